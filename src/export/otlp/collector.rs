//! The collector of spans, from the configuration and OpenTelemetry's own variables.
//!
//! A variable overrides its part of the configuration. A value that is not understood is left out, as the standard asks: a misspelt
//! variable must not keep a proxy from serving.

use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};

use super::super::settings::Otlp;

/// Where spans go, and the names that this process gives itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// The URL for spans.
    pub traces: Uri,
    /// Sent with every request; they may hold keys and are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Names of this process, `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// For one export.
    pub timeout: Duration,
    /// Share of the traces that begin here.
    pub share: f64,
}

impl Collector {
    /// `None`: no spans are sent.
    pub fn of(otlp: &Otlp) -> Option<Self> {
        let variable = |name: &str| otlp.variables.get(name).map(String::as_str);
        if variable("OTEL_SDK_DISABLED").is_some_and(|word| word.eq_ignore_ascii_case("true")) {
            return None;
        }
        let own = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(str::to_owned);
        let base = variable("OTEL_EXPORTER_OTLP_ENDPOINT").or(otlp.endpoint.as_deref());
        let under = |base: &str| format!("{}/v1/traces", base.trim_end_matches('/').trim_end_matches("/v1/traces"));
        let address = own.or_else(|| base.map(under)).filter(|_| variable("OTEL_TRACES_EXPORTER") != Some("none"));
        let traces = usable(&address?)?;
        let timeout = variable("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        Some(Self {
            traces,
            headers: variable("OTEL_EXPORTER_OTLP_HEADERS").map_or_else(Vec::new, headers),
            resource: resource(variable("OTEL_SERVICE_NAME"), variable("OTEL_RESOURCE_ATTRIBUTES")),
            timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT),
            share: share(variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG"))
                .unwrap_or(otlp.sample_ratio),
        })
    }
}

fn usable(address: &str) -> Option<Uri> {
    let uri = address.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    if uri.is_none() {
        // The address itself may hold a key.
        tracing::warn!("a collector's address is not an http:// one, nothing is sent there");
    }
    uri
}

/// By the names of samplers in the standard; a trace that began elsewhere follows its own flag in any case.
fn share(sampler: Option<&str>, argument: Option<&str>) -> Option<f64> {
    match sampler? {
        "always_on" | "parentbased_always_on" => Some(1.0),
        "always_off" | "parentbased_always_off" => Some(0.0),
        "traceidratio" | "parentbased_traceidratio" => Some(
            argument.and_then(|share| share.parse().ok()).filter(|share| (0.0..=1.0).contains(share)).unwrap_or(1.0),
        ),
        _ => None,
    }
}

fn resource(service: Option<&str>, attributes: Option<&str>) -> Vec<(String, String)> {
    let mut resource: Vec<_> = attributes.map_or_else(Vec::new, |list| pairs(list).collect());
    if let Some(service) = service {
        resource.retain(|(key, _)| key != SERVICE);
        resource.push((SERVICE.into(), service.into()));
    }
    if !resource.iter().any(|(key, _)| key == SERVICE) {
        resource.push((SERVICE.into(), "weir".into()));
    }
    resource.push(("service.version".into(), env!("CARGO_PKG_VERSION").into()));
    resource
}

fn headers(list: &str) -> Vec<(HeaderName, HeaderValue)> {
    let header = |(name, value): (String, String)| {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?, value))
    };
    pairs(list).filter_map(header).collect()
}

/// `a=b,c=d`, values in the encoding of URLs.
fn pairs(list: &str) -> impl Iterator<Item = (String, String)> {
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.trim().to_owned(), decoded(value.trim())));
    list.split(',').filter_map(pair).filter(|(key, _)| !key.is_empty())
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match pair.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const SERVICE: &str = "service.name";
/// The standard's.
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoint: Option<&str>, variables: &[(&'static str, &str)]) -> Option<Collector> {
        let mut otlp = Otlp { endpoint: endpoint.map(str::to_owned), ..Otlp::default() };
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        otlp.read_variables(&variable);
        Collector::of(&otlp)
    }

    #[test]
    fn nothing_is_sent_without_a_collector() {
        assert_eq!(of(None, &[]), None);
        assert_eq!(of(None, &[("OTEL_SERVICE_NAME", "x")]), None);
        assert_eq!(of(Some("http://c:4318"), &[("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(of(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318")]), None, "no TLS");
        assert_eq!(of(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense")]), None);
    }

    #[test]
    fn only_the_base_address_gets_the_path_of_the_signal() {
        let traces = |collector: Option<Collector>| collector.unwrap().traces.to_string();
        assert_eq!(traces(of(Some("http://c:4318"), &[])), "http://c:4318/v1/traces");
        assert_eq!(traces(of(Some("http://c:4318/v1/traces"), &[])), "http://c:4318/v1/traces");
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://d:1/x/");
        assert_eq!(traces(of(Some("http://c:4318"), &[base])), "http://d:1/x/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://e:1/y");
        assert_eq!(traces(of(Some("http://c:4318"), &[base, own])), "http://e:1/y");
        assert_eq!(of(Some("http://c:4318"), &[("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn the_other_variables_are_read() {
        let collector = of(
            Some("http://c:4318"),
            &[
                ("OTEL_SERVICE_NAME", "front"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,k8s.pod.name=a%20b"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc,broken"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ],
        )
        .unwrap();
        assert_eq!(collector.headers, [(http::header::AUTHORIZATION, HeaderValue::from_static("Basic abc"))]);
        let resource = |key: &str| {
            collector.resource.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((resource("service.name"), resource("k8s.pod.name")), (vec!["front"], vec!["a b"]));
        assert_eq!((collector.timeout, collector.share), (Duration::from_millis(250), 0.25));
    }
}
