//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` in a value.
//!
//! A default holds no further variable, and `$$` stands for one `$`. A `$` before anything else is itself. A file gives its
//! text without the line break at its end; a relative path begins beside the configuration file.

use std::io;
use std::path::Path;

/// Where variables and files come from.
pub(super) struct Surroundings<'a> {
    pub(super) variable: Variable<'a>,
    file: FileReference<'a>,
}

type Variable<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;
type FileReference<'a> = Box<dyn Fn(&Path) -> io::Result<String> + 'a>;

impl<'a> Surroundings<'a> {
    /// The process's own, for the configuration file at `path`.
    pub(super) fn of_process(path: &'a Path) -> Self {
        #[allow(clippy::disallowed_methods, reason = "variables in the file are filled in here and nowhere else")]
        let variable = |name: &str| std::env::var(name).ok();
        let beside = path.parent().unwrap_or(Path::new(""));
        Self { variable: Box::new(variable), file: Box::new(move |path| bounded(&beside.join(path))) }
    }

    /// Variables alone.
    pub(super) fn of_variables(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { variable: Box::new(variable), file: Box::new(|_| Err(io::ErrorKind::Unsupported.into())) }
    }
}

/// Why a value could not be filled in; one sentence without a full stop. What a file holds is never quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfilled {
    #[error("the environment variable `{0}` is not set: set it, or write `${{{0}:-default}}`")]
    Unset(String),
    #[error("the file `{0}` cannot be read ({1}): check the path, and who may read it")]
    File(String, String),
    #[error("`${{` without its `}}`: close it, or write `$$` for one `$`")]
    Open,
    #[error(
        "`{0}` is not the name of an environment variable: write `${{NAME}}`, `${{NAME:-default}}` or `${{file:PATH}}`"
    )]
    Name(String),
}

/// The text with its variables filled in, or `None` when it has none. A variable that is set but empty counts as unset
/// where there is a default, as in a shell.
pub(super) fn fill(text: &str, surroundings: &Surroundings<'_>) -> Result<Option<String>, Unfilled> {
    if !text.contains("${") && !text.contains("$$") {
        return Ok(None);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{') {
            let (reference, after) = inside.split_once('}').ok_or(Unfilled::Open)?;
            filled.push_str(&value(reference, surroundings)?);
            rest = after;
        } else {
            filled.push('$');
        }
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

/// What `VAR`, `VAR:-default` or `file:PATH` stands for.
fn value(reference: &str, surroundings: &Surroundings<'_>) -> Result<String, Unfilled> {
    if let Some(path) = reference.strip_prefix("file:") {
        let text =
            (surroundings.file)(Path::new(path)).map_err(|why| Unfilled::File(path.to_owned(), why.to_string()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    let (name, default) = reference.split_once(":-").map_or((reference, None), |(name, default)| (name, Some(default)));
    if !is_name(name) {
        return Err(Unfilled::Name(name.to_owned()));
    }
    match ((surroundings.variable)(name), default) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(_)) if !found.is_empty() => Ok(found),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unfilled::Unset(name.to_owned())),
    }
}

/// The text of a file of a few lines; a device that never ends is no secret.
fn bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    std::fs::File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Tokens are some hundred bytes.
const LONGEST_FILE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<Option<String>, Unfilled> {
        let variable = |name: &str| match name {
            "HOST" => Some("engine".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let file = |path: &Path| match path.to_str() {
            Some("/token") => Ok("abc\r\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        fill(text, &Surroundings { variable: Box::new(variable), file: Box::new(file) })
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (text, expected) in [
            ("http://${HOST}:${PORT:-8200}/", "http://engine:8200/"),
            ("${EMPTY:-x}${EMPTY}", "x"),
            ("$${HOST} ${HOST}", "${HOST} engine"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("Bearer ${file:/token}", "Bearer abc"),
        ] {
            assert_eq!(filled(text), Ok(Some(expected.into())), "{text}");
        }
    }

    #[test]
    fn text_without_variables_stays_as_it_is() {
        for text in ["", "plain", "$HOST", "cost: 5$", "{HOST}"] {
            assert_eq!(filled(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_says_why() {
        assert_eq!(filled("${NONE}"), Err(Unfilled::Unset("NONE".into())));
        assert_eq!(filled("${HOST"), Err(Unfilled::Open));
        assert_eq!(filled("${1X}"), Err(Unfilled::Name("1X".into())));
        assert_eq!(filled("${}"), Err(Unfilled::Name(String::new())));
        assert!(matches!(filled("${file:/none}"), Err(Unfilled::File(path, _)) if path == "/none"));
        let sentence = filled("${NONE}").unwrap_err().to_string();
        assert_eq!(sentence, "the environment variable `NONE` is not set: set it, or write `${NONE:-default}`");
    }
}
