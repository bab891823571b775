//! From the typed file to the configuration: fills in names, parses addresses, finds contradictions.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::fault::ConfigErrors;
use super::file::{self, ConfigFile, ConfigReader, PolicyWord, Workers};
use super::tree::PathStep;
use super::{BackendConfig, Config, Inside, Loaded, Mode, Overrides, SloRoute, processors};
use crate::admission::policy::ControlPolicy;
use crate::engine_metrics::settings::EngineKind;
use crate::export::settings::{Metrics, Otlp};
use crate::proxy::settings::{BackendSettings, BackendUrl, Health, UrlError};
use crate::vocabulary::slo::Slo;

/// More threads than any machine needs; a larger number is a typing error.
const MOST_WORKERS: usize = 1024;
/// Indices of backends are 16 bits wide, and every backend has its own families.
const MOST_BACKENDS: usize = 256;
/// A label value that fits on a dashboard.
const LONGEST_NAME: usize = 63;
/// Every bound is one series a backend and model.
const MOST_BUCKETS: usize = 64;

/// The configuration, or every fault that the reader and the checks below have found.
pub(super) fn of(file: ConfigFile, overrides: &Overrides, mut reader: ConfigReader) -> Result<Loaded, ConfigErrors> {
    let reader_ref = &mut reader;
    check_version(file.version, reader_ref);
    let mut config = Config {
        listen: overrides.listen.or(file.listen).unwrap_or(Config::default().listen),
        workers: workers(file.workers.as_ref(), reader_ref),
        mode: mode(file.mode.as_deref(), overrides, reader_ref),
        slo: slo(&file, overrides, reader_ref),
        slo_routes: slo_routes(&file.slo.routes, reader_ref),
        backends: backends(file.backends, overrides, reader_ref),
        balance: file.balance,
        admission: file.admission,
        limits: file.limits,
        admin: file.admin,
        log: file.log,
        otlp: file.otlp,
        drain: file.drain,
        metrics: file.metrics,
        journal: file.journal,
        probe: file.probe,
        gpu: file.gpu,
        control: policy(&file.control, reader_ref),
    };
    config.admin.listen = overrides.admin.unwrap_or(config.admin.listen);
    config.log.level = overrides.log_level.unwrap_or(config.log.level);
    check_ports(&config, reader_ref);
    check_limits(&config, reader_ref);
    check_admission(&config, reader_ref);
    check_metrics(&config.metrics, reader_ref);
    check_probe(&config.probe, reader_ref);
    if let Some(fault) = config.gpu.fault() {
        reader_ref.report(&at(&["gpu", "interval"]), fault);
    }
    check_otlp(&config.otlp, reader_ref);
    let origins = reader.origins(&config, overrides);
    ConfigErrors::check(reader.into_faults()).map(|()| Loaded { config, origins })
}

fn check_version(version: Option<u64>, reader: &mut ConfigReader) {
    if let Some(other) = version.filter(|version| *version != 1) {
        reader.report(&at(&["version"]), format!("version {other} is not known to this program: expected 1"));
    }
}

fn workers(typed: Option<&Workers>, reader: &mut ConfigReader) -> NonZeroUsize {
    let number = match typed {
        None | Some(Workers::Auto) => return processors(),
        Some(Workers::Number(number)) => *number,
    };
    let fitting = usize::try_from(number).ok().filter(|n| *n <= MOST_WORKERS).and_then(NonZeroUsize::new);
    fitting.unwrap_or_else(|| {
        reader.report(
            &at(&["workers"]),
            format!("{number} workers: expected `auto` or a number from 1 to {MOST_WORKERS}"),
        );
        processors()
    })
}

fn mode(typed: Option<&str>, overrides: &Overrides, reader: &mut ConfigReader) -> Mode {
    let fault = match overrides.mode.as_deref().or(typed) {
        None | Some("observe") => return Mode::Observe,
        Some("enforce") => return Mode::Enforce,
        Some(other) => format!("unknown value `{other}`{}", super::fault::suggestion(other, &["observe", "enforce"])),
    };
    match overrides.mode {
        Some(_) => reader.report_flag("--mode", fault),
        None => reader.report(&at(&["mode"]), fault),
    }
    Mode::Observe
}

fn slo(file: &ConfigFile, overrides: &Overrides, reader: &mut ConfigReader) -> Slo {
    let default = Slo::default();
    let slo = Slo {
        ttft: overrides.slo_ttft.or(file.slo.ttft.map(|span| span.0)).unwrap_or(default.ttft),
        itl: overrides.slo_itl.or(file.slo.itl.map(|span| span.0)).unwrap_or(default.itl),
    };
    for (key, flag, objective) in [
        ("ttft", overrides.slo_ttft.map(|_| "--slo-ttft"), slo.ttft),
        ("itl", overrides.slo_itl.map(|_| "--slo-itl"), slo.itl),
    ] {
        if objective.is_zero() {
            let sentence = "an objective of zero is never met, write a span of time such as `1s`".to_owned();
            match flag {
                Some(flag) => reader.report_flag(flag, sentence),
                None => reader.report(&at(&["slo", key]), sentence),
            }
        }
    }
    slo
}

fn slo_routes(typed: &[file::RouteSection], reader: &mut ConfigReader) -> Vec<SloRoute> {
    let mut routes = Vec::new();
    for (index, route) in typed.iter().enumerate() {
        let steps =
            |key: &str| [at(&["slo", "routes"]), vec![PathStep::Index(index), PathStep::Key(key.to_owned())]].concat();
        match &route.path {
            Some(path) if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?') => {
                routes.push(SloRoute { path: path.clone(), ttft: route.ttft.map(|span| span.0) });
            }
            None if reader.is_faulty(&steps("path")) => {}
            _ => {
                let sentence = "a route needs a path such as `path: /v1/embeddings`, without a query".to_owned();
                reader.report(&steps("path"), sentence);
            }
        }
        if route.ttft.is_some_and(|span| span.0.is_zero()) {
            let sentence = "an objective of zero is never met, write `ttft: null` for none".to_owned();
            reader.report(&steps("ttft"), sentence);
        }
    }
    routes
}

fn policy(typed: &file::ControlSection, reader: &mut ConfigReader) -> ControlPolicy {
    if typed.policy == Some(PolicyWord::Static) {
        match typed.limit {
            Some(limit) if limit > 0 => return ControlPolicy::Static(limit),
            Some(_) => {
                let sentence = "no request at all: expected 1 or more".to_owned();
                reader.report(&at(&["control", "limit"]), sentence);
            }
            None if reader.is_faulty(&at(&["control", "limit"])) => {}
            None => {
                let sentence = "`static` needs the number of requests in flight, as `limit: 64`".to_owned();
                reader.report(&at(&["control", "policy"]), sentence);
            }
        }
    } else if typed.limit.is_some() {
        let sentence = "only `policy: static` has a limit of its own; this one finds it".to_owned();
        reader.report(&at(&["control", "limit"]), sentence);
    }
    ControlPolicy::default()
}

fn backends(typed: Vec<file::BackendSection>, overrides: &Overrides, reader: &mut ConfigReader) -> Vec<BackendConfig> {
    if !overrides.backends.is_empty() {
        return overrides.backends.iter().enumerate().filter_map(|(i, url)| from_flag(i, url, reader)).collect();
    }
    if typed.is_empty() && !reader.is_faulty(&at(&["backends"])) {
        reader.report(&at(&["backends"]), "no backend: give one here or with `--backend http://HOST:PORT`".to_owned());
    }
    if typed.len() > MOST_BACKENDS {
        reader.report(&at(&["backends"]), format!("{} backends, the most is {MOST_BACKENDS}", typed.len()));
    }
    let mut backends = Vec::<BackendConfig>::with_capacity(typed.len());
    for (index, server) in typed.into_iter().enumerate() {
        if let Some(backend) = from_file(index, server, &backends, reader) {
            backends.push(backend);
        }
    }
    backends
}

fn from_flag(index: usize, url: &str, reader: &mut ConfigReader) -> Option<BackendConfig> {
    match BackendUrl::parse(url) {
        Ok(url) => {
            let name = format!("backend-{index}");
            let backend = BackendSettings {
                name,
                url,
                model_name: None,
                host: None,
                health: Health::default(),
                reassemble: true,
            };
            Some(BackendConfig { backend, inside: Inside::default() })
        }
        Err(why) => {
            reader.report_flag("--backend", why.to_string());
            None
        }
    }
}

fn from_file(
    index: usize,
    server: file::BackendSection,
    earlier: &[BackendConfig],
    reader: &mut ConfigReader,
) -> Option<BackendConfig> {
    let steps =
        |key: &str| vec![PathStep::Key("backends".to_owned()), PathStep::Index(index), PathStep::Key(key.to_owned())];
    let inside = inside(&server, &steps, reader);
    let name = server.name.unwrap_or_else(|| format!("backend-{index}"));
    if !is_label(&name) {
        let sentence = format!(
            "`{name}` is not a name: expected 1 to {LONGEST_NAME} letters, digits, `.`, `_` or `-`, a letter or digit first"
        );
        reader.report(&steps("name"), sentence);
    } else if earlier.iter().any(|backend| backend.name == name) {
        reader.report(&steps("name"), format!("`{name}` is taken by an earlier backend"));
    }
    if server.host.as_deref().is_some_and(|host| host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic())) {
        reader.report(&steps("host"), "not a Host header: write a name such as `engine.local:8200`".to_owned());
    }
    check_health(&server.health, &steps("health"), reader);
    let Some(url) = server.url else {
        if !reader.is_faulty(&steps("url")) {
            reader.report(&steps("url"), "a backend needs an address such as `url: http://127.0.0.1:8200`".to_owned());
        }
        return None;
    };
    let url = BackendUrl::parse(&url).map_err(|why| reader.report(&steps("url"), why.to_string())).ok()?;
    let backend = BackendSettings {
        name,
        url,
        model_name: server.model_name,
        host: server.host,
        health: server.health,
        reassemble: server.reassemble.unwrap_or(true),
    };
    Some(BackendConfig { backend, inside })
}

fn inside(server: &file::BackendSection, steps: &impl Fn(&str) -> Vec<PathStep>, reader: &mut ConfigReader) -> Inside {
    let limits = [
        ("max_num_seqs", server.max_num_seqs),
        ("kv_tokens", server.kv_tokens),
        ("max_num_batched_tokens", server.max_num_batched_tokens),
    ];
    for (key, _) in limits.iter().filter(|(_, limit)| *limit == Some(0)) {
        reader
            .report(&steps(key), "an engine with a limit of 0 serves no request: expected a number from 1".to_owned());
    }
    if server.engine == EngineKind::Custom && server.engine_metrics.is_empty() {
        let sentence = "`custom` needs `engine_metrics: { running: …, waiting: …, kv_usage: … }`, one of them at least";
        reader.report(&steps("engine"), sentence.to_owned());
    }
    let mut metrics_url = None;
    if let Some(typed) = &server.metrics_url {
        match BackendUrl::parse(typed) {
            Ok(url) => metrics_url = Some(url),
            Err(why) => reader.report(&steps("metrics_url"), why.to_string()),
        }
    }
    Inside {
        engine: server.engine,
        metrics_url,
        engine_metrics: server.engine_metrics.clone(),
        max_num_seqs: server.max_num_seqs,
        kv_tokens: server.kv_tokens,
        max_num_batched_tokens: server.max_num_batched_tokens,
        gpu: server.gpu.clone(),
    }
}

fn is_label(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    name.len() <= LONGEST_NAME && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(inside)
}

fn check_health(health: &Health, steps: &[PathStep], reader: &mut ConfigReader) {
    let below = |key: &str| [steps, &[PathStep::Key(key.to_owned())]].concat();
    if !health.path.starts_with('/') || !health.path.bytes().all(|b| b.is_ascii_graphic()) {
        reader.report(&below("path"), format!("`{}` is not a path such as `/health`", health.path));
    }
    for (key, span) in [("interval", health.interval), ("timeout", health.timeout)] {
        if span.is_zero() {
            reader.report(&below(key), zero());
        }
    }
}

fn check_ports(config: &Config, reader: &mut ConfigReader) {
    let (data, admin) = (config.listen, config.admin.listen);
    if data.port() != 0 && data == admin {
        reader
            .report(&at(&["admin", "listen"]), format!("`{admin}` is the data port too, give the admin port its own"));
    }
    for (index, backend) in config.backends.iter().enumerate() {
        let url = &backend.url;
        if data.port() == url.port && url.host.parse() == Ok(data.ip()) && !data.ip().is_unspecified() {
            let steps = [PathStep::Key("backends".to_owned()), PathStep::Index(index), PathStep::Key("url".to_owned())];
            reader.report(&steps, format!("`{url}` is the data port of this proxy: it would call itself"));
        }
    }
}

fn check_limits(config: &Config, reader: &mut ConfigReader) {
    let limits = &config.limits;
    let spans: [(&[&str], Duration); 8] = [
        (&["limits", "header_timeout"], limits.header_timeout),
        (&["limits", "body_timeout"], limits.body_timeout),
        (&["limits", "idle_timeout"], limits.idle_timeout),
        (&["limits", "write_stall"], limits.write_stall),
        (&["limits", "stream_stall"], limits.stream_stall),
        (&["limits", "first_byte_timeout"], limits.first_byte_timeout),
        (&["limits", "connect_timeout"], limits.connect_timeout),
        (&["drain", "timeout"], config.drain.timeout),
    ];
    for (path, _) in spans.iter().filter(|(_, span)| span.is_zero()) {
        reader.report(&at(path), zero());
    }
    if limits.max_connections == 0 {
        reader.report(&at(&["limits", "max_connections"]), "no connection at all: expected a number from 1".to_owned());
    }
    if limits.max_connections_per_address == Some(0) {
        let sentence = "no connection at all: expected a number from 1, or `null` for no limit".to_owned();
        reader.report(&at(&["limits", "max_connections_per_address"]), sentence);
    }
    /// Below this, ordinary clients with a token and a trace are refused.
    const LEAST_HEADER: usize = 1 << 10;
    /// What the search for a head's end stops at.
    const MOST_HEADER: usize = 64 << 10;
    if limits.max_header < LEAST_HEADER {
        reader.report(&at(&["limits", "max_header"]), "too little for an ordinary request: at least `1KiB`".to_owned());
    }
    if limits.max_header > MOST_HEADER {
        reader.report(&at(&["limits", "max_header"]), "more than is ever read of a head: at most `64KiB`".to_owned());
    }
    if limits.max_body > limits.body_memory {
        let sentence = "larger than `body_memory`: one allowed body would not fit".to_owned();
        reader.report(&at(&["limits", "max_body"]), sentence);
    }
}

fn check_probe(probe: &crate::probe::settings::Settings, reader: &mut ConfigReader) {
    if !(probe.max_rate.is_finite() && probe.max_rate > 0.0) {
        reader.report(&at(&["probe", "max_rate"]), "expected a number above 0".to_owned());
    }
    if !(0.0..=1.0).contains(&probe.max_missed) {
        reader.report(&at(&["probe", "max_missed"]), "expected a share from 0 to 1".to_owned());
    }
    for (key, too_little, least) in [
        ("max_in_flight", probe.max_in_flight == 0, "1"),
        ("input_tokens", probe.input_tokens == 0, "1"),
        ("output_tokens", probe.output_tokens < 2, "2"),
        ("step", probe.step < SHORTEST_STEP, "`1s`"),
    ] {
        if too_little {
            let sentence = format!("too little to measure anything with: expected {least} or more");
            reader.report(&at(&["probe", key]), sentence);
        }
    }
}

fn check_otlp(otlp: &Otlp, reader: &mut ConfigReader) {
    if let Some(Err(why)) = otlp.endpoint.as_deref().map(BackendUrl::parse) {
        let sentence = match why {
            UrlError::Tls(typed) => format!("`{typed}`: spans are sent in the clear, to a collector nearby: http://"),
            other => other.to_string(),
        };
        reader.report(&at(&["otlp", "endpoint"]), sentence);
    }
    if !(0.0..=1.0).contains(&otlp.sample_ratio) {
        reader.report(&at(&["otlp", "sample_ratio"]), "expected a share from 0 to 1".to_owned());
    }
}

/// Less than this holds no steady state.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

fn check_admission(config: &Config, reader: &mut ConfigReader) {
    let admission = &config.admission;
    if !matches!(admission.shed_status, 429 | 503 | 529) {
        let sentence =
            format!("status {} is not one that clients wait after: expected 429, 503 or 529", admission.shed_status);
        reader.report(&at(&["admission", "shed_status"]), sentence);
    }
    if admission.queue.max_wait.is_zero() {
        reader.report(&at(&["admission", "queue", "max_wait"]), zero());
    }
    for (name, class) in admission.classes.named() {
        let shares = [("share", class.share, 1.0), ("queue", class.queue, 1.0), ("headroom", class.headroom, 10.0)];
        for (key, value, most) in shares.into_iter().filter(|(_, value, most)| !(0.0..=*most).contains(value)) {
            let sentence = format!("{value} is not a share: expected a number from 0 to {most}");
            reader.report(&at(&["admission", "classes", name, key]), sentence);
        }
    }
}

fn check_metrics(metrics: &Metrics, reader: &mut ConfigReader) {
    for (index, family) in metrics.disable.iter().enumerate() {
        if !family.starts_with("weir_") && !family.starts_with("process_") {
            let steps = [at(&["metrics", "disable"]), vec![PathStep::Index(index)]].concat();
            reader.report(&steps, format!("`{family}` is not a family of weir: they begin with `weir_` or `process_`"));
        }
    }
    for (name, bounds) in metrics.buckets.named() {
        if bounds.is_some_and(|bounds| !are_bounds(bounds)) {
            let sentence = format!("expected 1 to {MOST_BUCKETS} numbers above 0 in ascending order");
            reader.report(&at(&["metrics", "buckets", name]), sentence);
        }
    }
}

fn are_bounds(bounds: &[f64]) -> bool {
    (1..=MOST_BUCKETS).contains(&bounds.len())
        && bounds.iter().all(|bound| bound.is_finite() && *bound > 0.0)
        && bounds.is_sorted_by(|a, b| a < b)
}

fn zero() -> String {
    "a span of zero would end everything at once, write one such as `10s`".to_owned()
}

fn at(keys: &[&str]) -> Vec<PathStep> {
    keys.iter().map(|key| PathStep::Key((*key).to_owned())).collect()
}
