//! What the proxy can be told: where the backends are, what one caller may take, and how a drain goes.
//!
//! Plain values only: the typed forms (`64MiB`, `1m 30s`) end at the door, in `units` and `config`. Nothing here checks one
//! setting against another; that is `config`'s.

use std::net::Ipv6Addr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::backend_id::is_link_local;
use crate::vocabulary::units::typed;

/// One inference server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSettings {
    /// The value of the label `backend`: letters, digits, `.`, `_` and `-`, at most 63, unique.
    pub name: String,
    /// Where it listens.
    pub url: BackendUrl,
    /// The model it serves, for families that describe the backend rather than a request; its label value is pinned.
    pub model_name: Option<String>,
    /// The `Host` sent to it; absent, the client's own.
    pub host: Option<String>,
    /// The health check.
    pub health: Health,
    /// In mode enforce, an answer that the client wants whole is streamed from here and put together again, so that its first
    /// token is seen. `false`: it is left whole, and counts among the requests in flight only. All backends have to allow it.
    pub reassemble: bool,
}

/// The parts of `http://host:port/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    /// A name or an address without brackets, as a resolver wants it.
    pub host: String,
    /// 80 when the URL names none.
    pub port: u16,
    /// Host and port as written, for the `Host` line.
    pub authority: String,
    /// Put before every target; empty, or begins with `/` and does not end with one.
    pub prefix: String,
}

/// Why an address of a backend was not accepted; one sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// TLS to a backend is not in this version.
    #[error("`{0}`: TLS to a backend is not in this version, use an http:// address")]
    Tls(String),
    /// Not `http://` at the start.
    #[error("`{0}` is not an address such as http://127.0.0.1:8200")]
    NotHttp(String),
    /// Nothing, or something odd, where the host belongs.
    #[error("`{0}` has no usable host name or IP address")]
    Host(String),
    /// The part after the colon is no port.
    #[error("`{0}` has no usable port: a number from 1 to 65535")]
    Port(String),
    /// A name and password before the host.
    #[error("the address must not carry a user name or password")]
    Credentials,
    /// A query or a fragment.
    #[error("`{0}`: an address ends with its path, without `?` or `#`")]
    Query(String),
    /// A character that a request line cannot carry.
    #[error("`{0}`: the path holds a blank or a character outside ASCII")]
    Path(String),
    /// 169.254.0.0/16 or fe80::/10, where clouds keep their credentials.
    #[error("`{0}` is a link-local address, where cloud metadata services live: it is never a backend")]
    LinkLocal(String),
}

impl BackendUrl {
    /// Reads `http://host[:port][/prefix]`.
    ///
    /// # Errors
    /// One of [`UrlError`]; no name is resolved.
    pub fn parse(typed: &str) -> Result<Self, UrlError> {
        let own = || typed.to_owned();
        let rest = match typed.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => return Err(UrlError::Tls(own())),
            _ => return Err(UrlError::NotHttp(own())),
        };
        if rest.contains(['?', '#']) {
            return Err(UrlError::Query(own()));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Path(own()));
        }
        let (host, port) = host_and_port(authority).ok_or_else(|| UrlError::Host(own()))?;
        let port = match port {
            None => 80,
            Some(digits) => digits.parse().ok().filter(|p| *p != 0).ok_or_else(|| UrlError::Port(own()))?,
        };
        if host.parse().is_ok_and(is_link_local) {
            return Err(UrlError::LinkLocal(own()));
        }
        let prefix = path.trim_end_matches('/').to_owned();
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned(), prefix })
    }
}

impl std::fmt::Display for BackendUrl {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "http://{}{}", self.authority, self.prefix)
    }
}

impl Serialize for BackendUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`; `None` when the host is empty or has odd characters.
fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (!host.is_empty() && host.bytes().all(named)).then_some((host, port))
}

/// The health check of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Path of the check, below the URL's prefix. Any status below 500 passes, because a server without such a path is alive too.
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// Time between two checks. A shorter one detects a dead backend sooner and sends more requests.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub timeout: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { path: "/health".to_owned(), interval: Duration::from_secs(5), timeout: Duration::from_secs(2) }
    }
}

/// Limits of one client, and of all clients together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyLimits {
    /// Open client connections. A connection above the limit waits in the kernel until another one ends.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// Open connections of one client address; `null` is no limit of its own.
    #[schemars(range(min = 1))]
    pub max_connections_per_address: Option<usize>,
    /// Bytes of one request body; longer ones get 413.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::ByteSize")]
    pub max_body: usize,
    /// Bytes held for all clients at one time: request bodies, and answers that they have not read. Beyond it a request gets
    /// 503, and a stream whose client lags behind ends.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::ByteSize")]
    pub body_memory: usize,
    /// Bytes of one request head; longer ones get 431.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::ByteSize", extend("minimum" = "1KiB", "maximum" = "64KiB"))]
    pub max_header: usize,
    /// From a head's first byte to its last; slower ones get 408.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub header_timeout: Duration,
    /// From the end of a head to the end of its body; slower ones get 408.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub body_timeout: Duration,
    /// How long a client connection may wait between requests.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub idle_timeout: Duration,
    /// How long a client may read nothing while bytes wait for it.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub write_stall: Duration,
    /// How long a backend may send nothing in the middle of an answer.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub stream_stall: Duration,
    /// How long a backend may take to its first byte; prefill of a long prompt is slow.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub first_byte_timeout: Duration,
    /// How long a connection to a backend may take.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub connect_timeout: Duration,
    /// Whether a client that closes its sending half counts as gone. `false` sends it its answer; a client that is gone is then
    /// noticed only at the next write.
    pub half_close: bool,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: None,
            max_body: 64 << 20,
            body_memory: 2 << 30,
            max_header: 64 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            write_stall: Duration::from_secs(30),
            stream_stall: Duration::from_secs(60),
            first_byte_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(3),
            half_close: true,
        }
    }
}

/// How the process shuts down.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainSettings {
    /// How long open streams may continue. Longer than the longest answer, shorter than the orchestrator's grace period.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub timeout: Duration,
    /// How long new requests are still served, so that load balancers can take the address out first.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span")]
    pub min_delay: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), min_delay: Duration::from_secs(5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_falls_into_its_parts() {
        for (typed, host, port, prefix) in [
            ("http://127.0.0.1:8200", "127.0.0.1", 8200, ""),
            ("http://engine", "engine", 80, ""),
            ("HTTP://engine/", "engine", 80, ""),
            ("http://[::1]:8200/llm/v2/", "::1", 8200, "/llm/v2"),
            ("http://[::1]", "::1", 80, ""),
            ("http://gpu_0.local:81/a", "gpu_0.local", 81, "/a"),
        ] {
            let url = BackendUrl::parse(typed).unwrap();
            assert_eq!((url.host.as_str(), url.port, url.prefix.as_str()), (host, port, prefix), "{typed}");
        }
        assert_eq!(BackendUrl::parse("http://[::1]:8200/a/").unwrap().to_string(), "http://[::1]:8200/a");
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        let refused = |typed: &str| BackendUrl::parse(typed).unwrap_err();
        assert_eq!(refused("https://x"), UrlError::Tls("https://x".into()));
        assert_eq!(refused("127.0.0.1:8200"), UrlError::NotHttp("127.0.0.1:8200".into()));
        assert_eq!(refused("unix:///run/engine"), UrlError::NotHttp("unix:///run/engine".into()));
        for typed in ["http://", "http:///a", "http://:80", "http://[::1", "http://[::1]x", "http://[x]", "http://a b"]
        {
            assert_eq!(refused(typed), UrlError::Host(typed.into()));
        }
        for typed in ["http://a:", "http://a:0", "http://a:65536", "http://a:b", "http://a:1:2"] {
            assert_eq!(refused(typed), UrlError::Port(typed.into()));
        }
        assert_eq!(refused("http://user:word@a"), UrlError::Credentials);
        assert_eq!(refused("http://a/?x"), UrlError::Query("http://a/?x".into()));
        assert_eq!(refused("http://a/b c"), UrlError::Path("http://a/b c".into()));
    }

    #[test]
    fn link_local_addresses_are_never_backends() {
        for typed in
            ["http://169.254.169.254", "http://169.254.0.1:80/x", "http://[fe80::1]", "http://[::ffff:169.254.1.1]"]
        {
            assert_eq!(BackendUrl::parse(typed), Err(UrlError::LinkLocal(typed.into())));
        }
    }

    #[test]
    fn neighbouring_addresses_may_be_backends() {
        for typed in ["http://169.253.0.1", "http://10.0.0.1", "http://[fd00::1]", "http://127.0.0.1"] {
            assert!(BackendUrl::parse(typed).is_ok(), "{typed}");
        }
    }
}
