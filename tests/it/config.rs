//! The configuration as a person meets it: the file we ship, and the sentences for what is wrong with another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weir::config::{Config, ConfigErrors, ConfigSource, Overrides};

const ONE_BACKEND: &str = "backends:\n  - {name: a, url: 'http://127.0.0.1:8200'}\n";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, &Overrides::default())
}

fn parse_with(text: &str, overrides: &Overrides) -> Result<Config, ConfigErrors> {
    Config::parse(text, "weir.yaml", overrides, &|name| (name == "PORT").then(|| "8201".to_owned()))
}

/// What is said about `text`, line by line.
fn said(text: &str) -> Vec<String> {
    parse(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

/// What is said about one backend and `rest`, whose lines begin at 3.
fn said_beside_a_backend(rest: &str) -> Vec<String> {
    said(&format!("{ONE_BACKEND}{rest}"))
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let mut shipped = Config::load(Some(&shipped("weir.yaml")), &Overrides::default()).unwrap();
    let backend = shipped.backends.pop().unwrap();
    assert_eq!(shipped, Config::default());
    let flag = Overrides { backends: vec!["http://127.0.0.1:8200".into()], ..Overrides::default() };
    let mut from_flag = Config::load(None, &flag).unwrap().backends.pop().unwrap();
    from_flag.backend.name = "gpu-0".into();
    assert_eq!(backend, from_flag);
}

/// What the program writes of itself lies in the repository as it writes it.
#[test]
fn the_shipped_files_are_what_the_program_writes() {
    let schema = format!("{:#}\n", weir::config::schema::schema());
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/use/configuration.md");
    for (path, written, with) in [
        (shipped("weir.yaml"), weir::config::reference::yaml(), "--format yaml"),
        (shipped("weir.schema.json"), schema, ""),
        (docs, weir::config::reference::markdown(), "--format md"),
    ] {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let made = text.split_once(MADE_BELOW).map_or(text.as_str(), |(_, made)| made.trim_start());
        assert!(made == written, "{} is stale: `weir schema {with}` writes it", path.display());
    }
}

/// In the reference, what is above this line was written by hand.
const MADE_BELOW: &str = "<!-- below this line: weir schema --format md -->";

#[test]
fn the_shipped_file_mentions_every_key_in_force() {
    let flag = Overrides { backends: vec!["http://127.0.0.1:8200".into()], ..Overrides::default() };
    let effective = Config::load(None, &flag).unwrap().effective();
    let text = std::fs::read_to_string(shipped("weir.yaml")).unwrap();
    let mut keys = Vec::new();
    collect_keys(&effective, &mut keys);
    assert!(keys.len() > 50, "only {} keys", keys.len());
    for key in keys {
        assert!(
            text.lines().any(|line| line.trim_start_matches([' ', '-']).starts_with(&format!("{key}:"))),
            "`{key}` is missing"
        );
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (key, inner) in entries {
                keys.push(key.clone());
                collect_keys(inner, keys);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|inner| collect_keys(inner, keys)),
        _ => {}
    }
}

#[test]
fn every_key_has_a_meaning() {
    fn unsaid(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        for (key, own) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            if own["description"].as_str().unwrap_or_default().is_empty() {
                found.push(path.clone());
            }
            unsaid(&path, own, found);
            unsaid(&path, &own["items"], found);
        }
    }
    let mut found = Vec::new();
    unsaid("", &weir::config::schema::schema(), &mut found);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_examples_are_valid() {
    let mut read = 0;
    for entry in std::fs::read_dir(shipped("examples")).unwrap() {
        let path = entry.unwrap().path();
        Config::load(Some(&path), &Overrides::default()).unwrap_or_else(|why| panic!("{why}"));
        read += 1;
    }
    assert!(read >= 2);
}

#[test]
fn the_effective_configuration_reads_back() {
    let config = parse(ONE_BACKEND).unwrap();
    assert_eq!(parse(&config.effective().to_string()).unwrap(), config);
}

#[test]
fn a_misspelt_key_is_answered_with_the_right_one_and_its_place() {
    assert_eq!(
        said_beside_a_backend("limits:\n  max_bdy: 1MiB\n"),
        ["weir.yaml:4:3: limits.max_bdy: unknown key `max_bdy`, did you mean `max_body`?"]
    );
    assert_eq!(
        said_beside_a_backend("balance: round-robin\n"),
        ["weir.yaml:3:10: balance: unknown value `round-robin`, did you mean `round_robin`?"]
    );
}

#[test]
fn all_faults_are_told_in_the_order_of_the_file() {
    let said = said(
        "listen: here\nslo: {ttft: 1}\nbackends:\n  - {name: a b, url: 'https://x'}\n  - {name: ok, url: 'http://169.254.169.254'}\n  - {name: ok, uri: x}\nlimits:\n  max_header: 1B\n  half_close: maybe\n  colour: red\nmode: enforec\n",
    );
    let begins = [
        "weir.yaml:1:9: listen: ",
        "weir.yaml:2:13: slo.ttft: `1` has no unit: write a span of time",
        "weir.yaml:4:12: backends[0].name: `a b` is not a name",
        "weir.yaml:4:22: backends[0].url: `https://x`: TLS to a backend is not in this version",
        "weir.yaml:5:21: backends[1].url: `http://169.254.169.254` is a link-local address",
        "weir.yaml:6:5: backends[2].url: a backend needs an address",
        "weir.yaml:6:16: backends[2].uri: unknown key `uri`, did you mean `url`?",
        "weir.yaml:8:15: limits.max_header: too little",
        "weir.yaml:9:15: limits.half_close: expected `true` or `false`, found string \"maybe\"",
        "weir.yaml:10:3: limits.colour: unknown key `colour`, expected one of ",
        "weir.yaml:11:7: mode: unknown value `enforec`, did you mean `enforce`?",
    ];
    assert_eq!(said.len(), begins.len(), "{said:#?}");
    for (line, begin) in said.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}\n  does not begin\n{begin}");
    }
}

#[test]
fn names_are_unique() {
    let said = said("backends:\n  - {name: a, url: 'http://x'}\n  - {name: a, url: 'http://y'}\n");
    assert_eq!(said, ["weir.yaml:3:12: backends[1].name: `a` is taken by an earlier backend"]);
}

#[test]
fn no_backend_is_a_fault_unless_a_flag_gives_one() {
    assert!(said("listen: 127.0.0.1:1\n")[0].contains("no backend: give one here or with `--backend"));
    assert!(said("# nothing\n")[0].contains("no backend"));
    let flag = Overrides { backends: vec!["http://x:1".into(), "http://y:2".into()], ..Overrides::default() };
    let config = parse_with("", &flag).unwrap();
    assert_eq!(config.backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["backend-0", "backend-1"]);
}

#[test]
fn flags_win_over_the_file() {
    let overrides = Overrides {
        listen: Some("127.0.0.1:1".parse().unwrap()),
        admin: Some("127.0.0.1:2".parse().unwrap()),
        slo_ttft: Some(Duration::from_millis(5)),
        backends: vec!["http://flag".into()],
        ..Overrides::default()
    };
    let config =
        parse_with(&format!("listen: 0.0.0.0:9\n{ONE_BACKEND}slo: {{ttft: 9s, itl: 9s}}\n"), &overrides).unwrap();
    assert_eq!((config.listen.port(), config.admin.listen.port()), (1, 2));
    assert_eq!((config.slo.ttft, config.slo.itl), (Duration::from_millis(5), Duration::from_secs(9)));
    assert_eq!(config.backends[0].url.host, "flag");
}

#[test]
fn variables_stand_for_text_and_for_numbers() {
    let config =
        parse("workers: ${N:-3}\nbackends:\n  - url: http://h:${PORT}\nlimits: {max_connections: \"${M:-7}\"}\n")
            .unwrap();
    assert_eq!((config.workers.get(), config.backends[0].url.port, config.limits.max_connections), (3, 8201, 7));
}

#[test]
fn an_unset_variable_is_a_fault_at_its_place() {
    let said = said("backends:\n  - url: http://h:${NOPE}\n");
    assert_eq!(
        said,
        [
            "weir.yaml:2:10: backends[0].url: the environment variable `NOPE` is not set: set it, or write `${NOPE:-default}`"
        ]
    );
}

#[test]
fn a_key_given_twice_is_a_fault() {
    let said = said_beside_a_backend("mode: observe\nmode: observe\n");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("weir.yaml:4:1: ") && said[0].contains("duplicate"), "{said:?}");
}

#[test]
fn text_that_is_no_yaml_is_one_fault_with_its_place() {
    let said = said("listen: [1, 2\nmode: x\n");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("weir.yaml:"), "{said:?}");
}

#[test]
fn settings_that_contradict_are_faults() {
    for (rest, begin) in [
        ("admin: {listen: '0.0.0.0:8000'}\n", "weir.yaml:3:17: admin.listen: `0.0.0.0:8000` is the data port too"),
        (
            "listen: 127.0.0.1:8200\n",
            "weir.yaml:2:20: backends[0].url: `http://127.0.0.1:8200` is the data port of this proxy",
        ),
        ("limits: {max_body: 3GiB}\n", "weir.yaml:3:20: limits.max_body: larger than `body_memory`"),
        ("workers: 0\n", "weir.yaml:3:10: workers: 0 workers"),
        ("metrics: {disable: [vllm_x]}\n", "weir.yaml:3:21: metrics.disable[0]: `vllm_x` is not a family of weir"),
        ("metrics: {buckets: {ttft: [1, 0.5]}}\n", "weir.yaml:3:27: metrics.buckets.ttft: expected 1 to 64 numbers"),
        ("drain: {timeout: 0s}\n", "weir.yaml:3:18: drain.timeout: a span of zero"),
        ("version: 2\n", "weir.yaml:3:10: version: version 2 is not known"),
    ] {
        let said = said_beside_a_backend(rest);
        assert_eq!(said.len(), 1, "{rest}{said:?}");
        assert!(said[0].starts_with(begin), "{said:?}\n  does not begin\n{begin}");
    }
}

#[test]
fn neighbours_of_what_is_refused_are_accepted() {
    for rest in [
        "admin: {listen: '0.0.0.0:8001'}\n",
        "limits: {max_body: 2GiB}\n",
        "workers: 1\n",
        "drain: {min_delay: 0s}\n",
        "limits:\n",
        "version: 1\n",
    ] {
        parse(&format!("{ONE_BACKEND}{rest}")).unwrap_or_else(|why| panic!("{rest}{why}"));
    }
}

#[test]
fn a_missing_file_says_so() {
    let why = Config::load(Some(Path::new("/nonexistent/weir.yaml")), &Overrides::default()).unwrap_err();
    assert!(why.to_string().starts_with("/nonexistent/weir.yaml: cannot be read: "), "{why}");
}

#[test]
fn what_is_known_of_an_engine_is_read_and_its_faults_are_told() {
    let config = parse(
        "backends:\n  - url: http://a\n    engine: trtllm-serve\n    metrics_url: http://a:9/m\n    kv_tokens: 4096\n    engine_metrics:\n      waiting: q{kind=waiting}\n",
    )
    .unwrap();
    let inside = &config.backends[0].inside;
    assert_eq!((inside.engine.as_str(), inside.limits().kv_tokens), ("trtllm-serve", Some(4096)));
    assert_eq!(inside.engine_metrics.waiting.as_ref().unwrap().to_string(), "q{kind=\"waiting\"}");
    assert_eq!(parse(&config.effective().to_string()).unwrap(), config);
    let said = said(
        "backends:\n  - url: http://a\n    engine: custom\n    metrics_url: https://a\n    max_num_seqs: 0\n  - {url: 'http://b', engine: vlm, engine_metrics: {running: 'a b'}}\n",
    );
    for (said, begin) in said.iter().zip([
        "weir.yaml:3:13: backends[0].engine: `custom` needs `engine_metrics:",
        "weir.yaml:4:18: backends[0].metrics_url: `https://a`: TLS",
        "weir.yaml:5:19: backends[0].max_num_seqs: an engine with a limit of 0 serves no request",
        "weir.yaml:6:31: backends[1].engine: unknown value `vlm`, did you mean `vllm`?",
        "weir.yaml:6:62: backends[1].engine_metrics.running: `a b` names no series",
    ]) {
        assert!(said.starts_with(begin), "{said}");
    }
    assert_eq!(said.len(), 5);
}

#[test]
fn off_is_a_word_and_not_a_truth_value() {
    let passthrough = |typed: &str| {
        parse(&format!("{ONE_BACKEND}metrics: {{passthrough: {typed}}}\n")).unwrap().effective()["metrics"]["passthrough"].clone()
    };
    assert_eq!((passthrough("off"), passthrough("engine")), ("off".into(), "engine".into()));
    assert!(parse(&format!("{ONE_BACKEND}limits: {{half_close: off}}\n")).is_err());
}

#[test]
fn gpus_are_switched_and_mapped_to_backends() {
    use weir::gpu::settings::{Enabled, Selector};
    let backend = "backends:\n  - {name: a, url: 'http://127.0.0.1:8200', gpu: [0, '1:2', GPU-8f2c-4000]}\n";
    let config = parse(&format!("{backend}gpu: {{enabled: false, library: /opt/libnvidia-ml.so.1}}\n")).unwrap();
    assert_eq!(config.gpu.enabled, Enabled::No);
    let named = [Selector::Index(0), Selector::Instance(1, 2), Selector::Uuid("GPU-8f2c-4000".into())];
    assert_eq!(config.backends[0].inside.gpu, named);
    assert_eq!(parse(&config.effective().to_string()).unwrap(), config);
    let words = ["auto", "true", "false"].map(|word| parse(&format!("{backend}gpu: {{enabled: {word}}}")).unwrap());
    assert_eq!(words.map(|config| config.gpu.enabled), [Enabled::Auto, Enabled::Yes, Enabled::No]);
    let faults = said(
        "backends:\n  - {name: a, url: 'http://127.0.0.1:8200', gpu: [zero]}\ngpu:\n  enabled: maybe\n  interval: 10ms\n",
    );
    for (fault, sentence) in faults.iter().zip([
        "weir.yaml:2:51: backends[0].gpu[0]: `zero` names no GPU",
        "weir.yaml:4:12: gpu.enabled: expected `auto`, `true` or `false`",
        "weir.yaml:5:13: gpu.interval: the interval between",
    ]) {
        assert!(fault.starts_with(sentence), "{fault}");
    }
    assert_eq!(faults.len(), 3, "{faults:?}");
}

/// A folder of one test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_secret_comes_from_a_file_beside_the_configuration() {
    let folder = Folder::new("secret");
    folder.file("token", "canary-token\n");
    let path = folder.file("weir.yaml", &format!("{ONE_BACKEND}admin: {{ token: \"${{file:token}}\" }}\n"));
    let config = Config::load(Some(&path), &Overrides::default()).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().reveal(), "canary-token");
    assert!(!config.effective().to_string().contains("canary"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_at_its_place() {
    let folder = Folder::new("unreadable");
    folder.file("token", "canary with blanks\n");
    let text = format!("{ONE_BACKEND}admin:\n  token: ${{file:none}}\n");
    let said = Config::load(Some(&folder.file("a.yaml", &text)), &Overrides::default()).unwrap_err().to_string();
    assert!(said.contains("a.yaml:4:10: admin.token: the file `none` cannot be read"), "{said}");
    let text = format!("{ONE_BACKEND}admin:\n  token: ${{file:token}}\n");
    let said = Config::load(Some(&folder.file("b.yaml", &text)), &Overrides::default()).unwrap_err().to_string();
    assert!(said.contains("b.yaml:4:10: admin.token: ") && !said.contains("canary"), "{said}");
}

#[test]
fn a_secret_at_the_wrong_key_is_not_shown() {
    let folder = Folder::new("wrong-key");
    folder.file("token", "canary\n");
    for key in [
        "mode: ${file:token}",
        "drain: { timeout: \"${file:token}\" }",
        "workers: ${file:token}",
        "slo: { ttft: \"${file:token}\" }",
    ] {
        let said = |line: &str| {
            let path = folder.file("weir.yaml", &format!("{ONE_BACKEND}{line}\n"));
            Config::load(Some(&path), &Overrides::default()).unwrap_err().to_string()
        };
        let secret = said(key);
        assert!(!secret.contains("canary") && secret.contains("weir.yaml:3:"), "{secret}");
        let typed = said(&key.replace("${file:token}", "plain"));
        assert!(typed.contains("plain"), "{typed}");
    }
}

#[test]
fn a_file_that_everyone_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    let path = folder.file("weir.yaml", ONE_BACKEND);
    let load = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Config::load(Some(&path), &Overrides::default())
    };
    assert!(load(0o664).is_ok());
    assert!(load(0o646).unwrap_err().to_string().contains("`chmod o-w` it first"));
}

#[test]
fn every_value_tells_where_it_came_from() {
    let folder = Folder::new("origins");
    let text = "mode: enforce\nbackends:\n  - url: http://a\n  - url: http://b\n    health:\n      path: /ping\nslo: {ttft: 2s}\n";
    let path = folder.file("weir.yaml", text);
    let overrides = Overrides {
        slo_ttft: Some(Duration::from_secs(3)),
        admin: Some("127.0.0.1:2".parse().unwrap()),
        from_environment: vec![("admin.listen", "WEIR_ADMIN_LISTEN")],
        ..Overrides::default()
    };
    let source = ConfigSource { path: Some(path.clone()), overrides };
    let origins = source.load().unwrap().origins;
    let line = |line: u32| format!("{}:{line}", path.display());
    for (setting, origin) in [
        ("mode", line(1)),
        ("backends[0].url", line(3)),
        ("backends[0].health.path", "default".to_owned()),
        ("backends[1].health.path", line(6)),
        ("backends[1].health.interval", "default".to_owned()),
        ("slo.ttft", "flag --slo-ttft".to_owned()),
        ("slo.itl", "default".to_owned()),
        ("admin.listen", "environment WEIR_ADMIN_LISTEN".to_owned()),
        ("admission.trust", "default".to_owned()),
    ] {
        assert_eq!(origins.get(setting), Some(&origin), "{setting}: {origins:#?}");
    }
    let flags = Overrides { backends: vec!["http://c".into()], ..Overrides::default() };
    let origins = ConfigSource { path: Some(path), overrides: flags }.load().unwrap().origins;
    assert_eq!(origins["backends"], "flag --backend");
    assert!(!origins.keys().any(|path| path.starts_with("backends[")), "{origins:?}");
}
