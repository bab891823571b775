//! Commands of a shell block, and whether weir's own command line or the Makefile takes them.

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use weir::cli::Cli;

/// Programs that need more than this tree: their commands stand in `console` blocks.
const ELSEWHERE: &[&str] = &["kubectl", "helm", "kustomize", "docker", "podman", "nvidia-smi"];

/// The commands of a block with the number of their first line from 0: lines that end in `\` go on, comments go, and what is joined by
/// `|`, `&&`, `;` or `&` is taken apart.
pub fn of(lines: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let (mut whole, mut first) = (String::new(), 0);
    for (number, line) in lines.iter().enumerate() {
        if whole.is_empty() {
            first = number;
        }
        if let Some(part) = line.strip_suffix('\\') {
            whole.push_str(part);
            continue;
        }
        whole.push_str(line);
        found.extend(words(&whole).into_iter().map(|command| (first, command)));
        whole.clear();
    }
    found
}

/// The words of a line as a shell takes them apart, command by command; redirections are left out.
fn words(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut command, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut skips_next) = (None, false);
    for c in line.chars().chain([';']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t' | ';' | '|' | '&' | '<' | '>') => {
                // The number of a redirected stream, as in 2>file, belongs to it.
                let is_stream = matches!(c, '<' | '>') && word.as_ref().is_some_and(|word| word.parse::<u8>().is_ok());
                if let Some(word) = word.take()
                    && !std::mem::take(&mut skips_next)
                    && !is_stream
                {
                    command.push(word);
                }
                skips_next |= matches!(c, '<' | '>');
                if matches!(c, ';' | '|') || c == '&' && !skips_next {
                    commands.push(std::mem::take(&mut command));
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    commands.push(command);
    commands.retain(|command| !command.is_empty());
    commands
}

/// The targets among the words after `make`.
pub fn targets(words: &[String]) -> impl Iterator<Item = &String> {
    words.iter().filter(|word| !word.starts_with('-') && !word.contains('='))
}

/// Why a command would not be taken, where that can be said.
pub fn wrong(command: &[String], has_target: &dyn Fn(&str) -> bool) -> Option<String> {
    let is_variable = |word: &&String| word.split_once('=').is_some_and(|(name, _)| !name.contains(['-', '/', '.']));
    let command = &command[command.iter().take_while(is_variable).count()..];
    let program = command.first()?;
    if program == "weir" || program.starts_with("target/") && program.ends_with("/weir") {
        let arguments = command.iter().skip(1).map(String::as_str);
        return Cli::try_parse_from(["weir"].into_iter().chain(arguments)).err().and_then(|why| refused(&why));
    }
    if program == "make" {
        let wrong = targets(&command[1..]).find(|target| !has_target(target));
        return wrong.map(|target| format!("make has no target `{target}`"));
    }
    let needs_more = ELSEWHERE.contains(&program.as_str());
    needs_more
        .then(|| format!("{program} needs more than this tree: the block is `console`, below `<!-- needs: … -->`"))
}

/// What clap says, unless it answers (`--help`), or a variable stands where it expects a value.
fn refused(why: &clap::Error) -> Option<String> {
    let is_answer = matches!(why.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let is_variable = match why.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.contains('$'),
        _ => false,
    };
    (!is_answer && !is_variable).then(|| why.to_string().lines().next().unwrap_or_default().to_owned())
}

fn check(line: &str) -> Vec<String> {
    let commands = of(&line.lines().collect::<Vec<_>>());
    commands.iter().filter_map(|(_, command)| wrong(command, &|target| target == "demo")).collect()
}

#[test]
fn a_command_that_cannot_be_typed_is_found() {
    for line in [
        "weir srve",
        "weir serve",
        "target/release/weir engine --porfile seed",
        "A=b weir engine --speed none &",
        "cd x && make none",
        "make demo none",
        "weir engine | kubectl apply -f -",
        "weir plan \\\n  --none",
    ] {
        assert_eq!(check(line).len(), 1, "{line}: {:?}", check(line));
    }
}

#[test]
fn a_command_that_can_be_typed_is_not_found() {
    for line in [
        "weir serve --backend http://127.0.0.1:8200 --mode \"observe\" > log 2>&1 &",
        "target/demo/weir engine --profile seed --speed 2 # as fast again",
        "weir serve --backend $ENGINE --listen ${ADDRESS}",
        "WEIR_LOG=info weir serve --config weir.yaml",
        "weir --help; weir engine --help",
        "make demo DEMO_FLAGS='--exit none' -j2",
        "curl -s http://127.0.0.1:9902/status | jq '.x | .y'",
        "# weir nothing",
    ] {
        assert_eq!(check(line), Vec::<String>::new(), "{line}");
    }
}
