//! What lies in deploy/ says only what weir understands: settings, flags, ports, paths, metrics, and times that fit together.
//!
//! Each check takes a text, so that a text with a mistake can be given to it too. Whether the manifests are valid Kubernetes, the
//! unit valid systemd and the image able to serve is asked by `make e2e`, with the real tools.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use http::Method;
use serde_json::Value;
use weir::cli::{Cli, Exit};
use weir::config::{Config, Overrides};
use weir::export::families;
use weir::export::routes::AdminPage;

const SIDECAR: &str = include_str!("../../deploy/kubernetes/sidecar/weir.yaml");
const GATEWAY: &str = include_str!("../../deploy/kubernetes/gateway/weir.yaml");
const UNIT: &str = include_str!("../../deploy/systemd/weir.service");
const COMPOSE: &str = include_str!("../../deploy/compose/docker-compose.yaml");
const COMPOSED: &str = include_str!("../../deploy/compose/weir/weir.yaml");
const SCRAPED: &str = include_str!("../../deploy/compose/prometheus/prometheus.yaml");
/// What weir itself may need beside bodies: 64 MiB with its tables, and as much again for streams.
const BESIDE_BODIES: u64 = 128 << 20;

#[test]
fn the_manifests_say_only_what_weir_has() {
    for (name, text) in [("sidecar", SIDECAR), ("gateway", GATEWAY)] {
        assert_eq!(faults(text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_manifest_that_says_something_else_is_found_out() {
    for (right, wrong, said) in [
        ("mode: observe", "mode: obsrve", "obsrve"),
        ("min_delay: 5s", "min_dely: 5s", "min_dely"),
        ("path: /readyz", "path: /ready", "/ready is no page"),
        ("path: \"/drain?wait=120s\"", "path: \"/drian?wait=120s\"", "/drian is no page"),
        ("path: \"/drain?wait=120s\"", "path: \"/undrain\"", "takes no GET"),
        ("containerPort: 9902", "containerPort: 9903", "9903"),
        ("targetPort: http", "targetPort: https", "https"),
        ("- port: admin", "- port: metrics", "metrics"),
        ("port: 9902", "port: 9903", "preStop"),
        ("terminationGracePeriodSeconds: 150", "terminationGracePeriodSeconds: 120", "grace"),
        ("wait=120s", "wait=60s", "wait"),
        ("- \"--config\"", "- \"--conf\"", "--conf"),
        ("memory: 768Mi", "memory: 300Mi", "memory"),
        ("memory: 768Mi", "memory: 768Mi\n              cpu: 1", "CPU limit"),
        ("enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"),
        ("mountPath: /etc/weir\n", "mountPath: /etc/weir\n              subPath: weir.yaml\n", "subPath"),
        (
            "startupProbe:\n            httpGet:\n              path: /livez",
            "startupProbe:\n            httpGet:\n              path: /readyz",
            "start-up",
        ),
    ] {
        assert!(SIDECAR.contains(right), "{right}");
        let faults = faults(&SIDECAR.replace(right, wrong));
        assert!(faults.iter().any(|fault| fault.contains(said)), "{wrong}: {faults:?}");
    }
}

#[test]
fn metrics_named_in_deploy_exist() {
    let mut named = 0;
    for path in files(&root().join("deploy")) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let unknown = unknown_metrics(&text);
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        named += text.matches("weir_demand_ratio").count();
    }
    assert!(named > 4, "the scalers ask for demand: {named}");
    assert_eq!(unknown_metrics("avg(weir_demand_ratoi >= 0)"), ["weir_demand_ratoi"]);
}

#[test]
fn the_chart_passes_on_a_configuration_that_weir_takes() {
    for name in ["values.yaml", "values-gateway.yaml"] {
        let text = std::fs::read_to_string(root().join("deploy/helm/weir").join(name)).unwrap();
        let config = &documents(&text)[0]["config"];
        assert!(config["backends"].is_array(), "{name}");
        parse(&config.to_string()).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn the_unit_starts_what_there_is_and_waits_for_the_drain() {
    let said = |key: &str| UNIT.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap();
    let command = said("ExecStart").strip_prefix("/usr/bin/").unwrap();
    Cli::try_parse_from(command.split(' ')).unwrap();
    assert_eq!(said("RestartPreventExitStatus"), Exit::BadConfig.code().to_string());
    let drain = Config::default().drain;
    let stop = Duration::from_secs(said("TimeoutStopSec").parse().unwrap());
    assert!(stop > drain.timeout + drain.min_delay);
    // systemd takes a comment behind a value for a part of it.
    assert!(UNIT.lines().all(|line| line.starts_with('#') || !line.contains(" #")));
}

#[test]
fn compose_starts_what_there_is_and_prometheus_is_let_in() {
    let compose = &documents(COMPOSE)[0];
    for service in ["engine", "load"] {
        let command = strings(&compose["services"][service]["command"]);
        Cli::try_parse_from(std::iter::once("weir".to_owned()).chain(command))
            .unwrap_or_else(|why| panic!("{service}: {why}"));
    }
    let config = parse(COMPOSED).unwrap();
    for port in [config.listen.port(), config.admin.listen.port()] {
        let opened = strings(&compose["services"]["weir"]["ports"]);
        assert!(opened.contains(&format!("127.0.0.1:{port}:{port}")), "{port}: {opened:?}");
    }
    let target = format!("weir:{}", config.admin.listen.port());
    assert!(SCRAPED.contains(&target) && config.admin.hosts.iter().any(|host| host == "weir"), "{target}");
    let inhibit = include_str!("../../deploy/compose/alertmanager/inhibit.yaml");
    assert!(include_str!("../../deploy/compose/alertmanager/alertmanager.yaml").ends_with(inhibit));
}

#[test]
fn image_chart_and_compose_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = std::fs::read_to_string(root().join("deploy/helm/weir/Chart.yaml")).unwrap();
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    assert!(chart.contains(&format!("\nappVersion: {version}\n")), "{chart}");
    assert!(dockerfile.contains(&format!("\nARG VERSION={version}\n")));
    assert!(COMPOSE.contains(&format!("weir:{version}}}")) && SIDECAR.contains(&format!("image: weir:{version}\n")));
}

/// Everything in the objects of a shape that weir would not understand, or that would not go well.
fn faults(text: &str) -> Vec<String> {
    let objects = documents(text);
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let config = match parse(of_kind("ConfigMap")["data"]["weir.yaml"].as_str().unwrap()) {
        Ok(config) => config,
        Err(why) => return vec![why.to_string()],
    };
    let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
    let containers: Vec<&Value> =
        [&pod["initContainers"], &pod["containers"]].into_iter().filter_map(Value::as_array).flatten().collect();
    let weir = *containers.iter().find(|container| container["name"] == "weir").unwrap();
    let mut faults = container(weir, &config);
    faults.extend(pod_times(pod, &containers, &config));
    let names: Vec<&Value> =
        containers.iter().flat_map(|one| one["ports"].as_array().unwrap()).map(|port| &port["name"]).collect();
    let service = of_kind("Service")["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["targetPort"]);
    let policy = of_kind("NetworkPolicy")["spec"]["ingress"].as_array().unwrap().iter();
    let policy = policy.flat_map(|rule| rule["ports"].as_array().unwrap()).map(|port| &port["port"]);
    let engines = config.backends.iter().map(|one| one.backend.url.to_string()).collect::<Vec<_>>().join(" ");
    for port in service.chain(policy) {
        let known = names.contains(&port) || port.as_u64().is_some_and(|port| engines.contains(&format!(":{port}")));
        if !known {
            faults.push(format!("no container has the port {port}"));
        }
    }
    faults
}

/// Arguments, ports, probes, memory and mounts of weir's own container.
fn container(weir: &Value, config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(why) = Cli::try_parse_from(std::iter::once("weir".to_owned()).chain(strings(&weir["args"]))) {
        faults.push(why.to_string());
    }
    for (name, listened) in [("http", config.listen.port()), ("admin", config.admin.listen.port())] {
        let port = weir["ports"]
            .as_array()
            .unwrap()
            .iter()
            .find(|port| port["name"] == name)
            .map(|port| &port["containerPort"]);
        if port.and_then(Value::as_u64) != Some(listened.into()) {
            faults.push(format!("{name} is {port:?}, weir listens on {listened}"));
        }
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        faults.extend(asked(probe, &weir[probe]["httpGet"]));
        if weir[probe]["httpGet"]["port"] != "admin" {
            faults.push(format!("{probe} asks another port than admin"));
        }
    }
    if weir["startupProbe"]["httpGet"]["path"] != "/livez" {
        faults.push("the start-up probe waits for an engine that is started after it".into());
    }
    let limits = &weir["resources"]["limits"];
    let memory = limits["memory"].as_str().and_then(bytes).unwrap_or(0);
    if config.limits.body_memory as u64 + BESIDE_BODIES > memory {
        faults.push(format!("bodies may take {}, and the memory limit is {memory}", config.limits.body_memory as u64));
    }
    if !limits["cpu"].is_null() {
        faults.push("a CPU limit distorts what is measured".into());
    }
    if weir["volumeMounts"].as_array().unwrap().iter().any(|mount| !mount["subPath"].is_null()) {
        faults.push("a subPath mount is never updated".into());
    }
    faults
}

/// The hook on the engine, and the time that a drain is given.
fn pod_times(pod: &Value, containers: &[&Value], config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let (timeout, min_delay) = (config.drain.timeout, config.drain.min_delay);
    for engine in containers.iter().filter(|container| container["name"] != "weir") {
        let hook = &engine["lifecycle"]["preStop"]["httpGet"];
        faults.extend(asked("preStop", hook));
        if hook["port"] != config.admin.listen.port() {
            faults.push(format!("preStop asks {}", hook["port"]));
        }
        if !hook["path"].as_str().unwrap_or_default().ends_with(&format!("?wait={}s", timeout.as_secs())) {
            faults.push(format!("preStop does not wait as long as drain.timeout: {}", hook["path"]));
        }
    }
    if Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30)) <= timeout + min_delay {
        faults.push("the grace period ends before the drain".into());
    }
    if pod["enableServiceLinks"] != false {
        faults.push("enableServiceLinks sets WEIR_ variables where a Service is named weir".into());
    }
    faults
}

/// Whether the admin port has what is asked for, and answers a GET.
fn asked(who: &str, get: &Value) -> Option<String> {
    let path = get["path"].as_str().unwrap_or_default().split('?').next().unwrap_or_default();
    match AdminPage::at(path) {
        None => Some(format!("{who}: {path} is no page")),
        Some(page) if !page.takes(&Method::GET) => Some(format!("{who}: {path} takes no GET")),
        Some(_) => None,
    }
}

fn unknown_metrics(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let named = text.split(|c| !is_name(c)).filter(|word| word.starts_with("weir_") && !word.contains(':'));
    named
        .filter(|name| !families::ALL.iter().any(|family| name.strip_suffix("_bucket").unwrap_or(name) == family.name))
        .collect()
}

fn parse(text: &str) -> Result<Config, weir::config::ConfigErrors> {
    Config::parse(text, "weir.yaml", &Overrides::default(), &|_| None)
}

fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|one| serde_saphyr::from_str(one).unwrap_or_else(|why| panic!("{why}: {one}"))).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// A quantity of memory as Kubernetes writes it, in the two units that we use.
fn bytes(quantity: &str) -> Option<u64> {
    let (digits, shift) = quantity
        .strip_suffix("Mi")
        .map(|digits| (digits, 20))
        .or(quantity.strip_suffix("Gi").map(|digits| (digits, 30)))?;
    Some(digits.parse::<u64>().ok()? << shift)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // Links lead to dashboards/, whose names are asked after in a test of their own.
    let own = entries.filter(|path| !path.is_symlink() && path.extension().is_none_or(|kind| kind != "pyc"));
    own.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
