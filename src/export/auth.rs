//! Access control of the admin port: `Host`, `Origin` and fetch-metadata checks, and the token.
//!
//! The port is loopback by default, so the remaining attacker is a page in the operator's own browser: by DNS rebinding
//! (foreign `Host`), by a scripted request (foreign `Origin`), or by an image whose address is `/drain` (no `Origin`, but
//! `Sec-Fetch-Site`). Absent: the list of paths, and any look at a body.

use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Request, Version};

/// Which requests are accepted, and for which actions.
#[derive(Clone, Default)]
pub struct AccessPolicy {
    /// Names accepted in `Host` beside addresses and `localhost`, without port, any case.
    pub hosts: Vec<String>,
    /// The token that a change must carry as `Authorization: Bearer …`; `None`: none is needed.
    pub token: Option<String>,
    /// Addresses that may drain without the token, beside loopback and the address the connection came in on: the node's.
    pub neighbours: Vec<IpAddr>,
}

/// Both addresses of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints {
    pub peer: IpAddr,
    /// Our side; equals `peer` when the caller runs in the same pod.
    pub local: IpAddr,
}

/// The effect of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Changes nothing.
    Read,
    /// Changes something.
    Change,
    /// Drains: a kubelet hook on the same machine cannot carry a token.
    Drain,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessDenied {
    /// HTTP/1.1 without exactly one readable `Host`.
    #[error("the request needs exactly one valid Host header")]
    HostMissing,
    /// A `Host` that is neither an address nor a known name.
    #[error("this Host is not known here: use an address or localhost, or add the name to the admin hosts")]
    HostForeign,
    /// A page of another origin is calling.
    #[error("requests from pages of another origin are refused")]
    OriginForeign,
    /// A change without the token, or with a wrong one.
    #[error("this needs the admin token as Authorization: Bearer")]
    TokenMissing,
}

impl AccessDenied {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::HostMissing => 400,
            Self::HostForeign | Self::OriginForeign => 403,
            Self::TokenMissing => 401,
        }
    }
}

impl AccessPolicy {
    /// Accepts a request for `action`, or says why not.
    pub fn admit<B>(&self, request: &Request<B>, endpoints: Endpoints, action: Action) -> Result<(), AccessDenied> {
        let host = host_of(request)?;
        if host.as_ref().is_some_and(|host| !self.knows(host.host())) {
            return Err(AccessDenied::HostForeign);
        }
        if is_cross_site(request.headers(), host.as_ref(), action) {
            return Err(AccessDenied::OriginForeign);
        }
        if self.needs_token(endpoints, action) && !self.token_presented(request.headers()) {
            return Err(AccessDenied::TokenMissing);
        }
        Ok(())
    }

    fn knows(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    fn needs_token(&self, endpoints: Endpoints, action: Action) -> bool {
        self.token.is_some()
            && match action {
                Action::Read => false,
                Action::Change => true,
                Action::Drain => !self.is_near(endpoints),
            }
    }

    fn is_near(&self, endpoints: Endpoints) -> bool {
        let (peer, local) = (endpoints.peer.to_canonical(), endpoints.local.to_canonical());
        peer.is_loopback() || peer == local || self.neighbours.contains(&peer)
    }

    fn token_presented(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        sole(headers, AUTHORIZATION)
            .map(HeaderValue::as_bytes)
            .and_then(bearer)
            .is_some_and(|presented| same(presented, token.as_bytes()))
    }
}

impl fmt::Debug for AccessPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "masked");
        f.debug_struct("AccessPolicy").field("hosts", &self.hosts).field("token", &token).finish_non_exhaustive()
    }
}

/// The authority a request is addressed to; `None` only in HTTP/1.0, which no browser speaks.
fn host_of<B>(request: &Request<B>) -> Result<Option<Authority>, AccessDenied> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    match sole(request.headers(), HOST) {
        Some(host) => Authority::try_from(host.as_bytes()).map(Some).map_err(|_| AccessDenied::HostMissing),
        None if request.version() == Version::HTTP_10 && !request.headers().contains_key(HOST) => Ok(None),
        None => Err(AccessDenied::HostMissing),
    }
}

/// A browser names the origin of the calling page; following a link to a page that only reads is not an attack.
fn is_cross_site(headers: &HeaderMap, host: Option<&Authority>, action: Action) -> bool {
    let foreign_origin = headers.get_all(ORIGIN).iter().any(|origin| !is_ours(origin, host));
    let site = headers.get("sec-fetch-site").map_or(&b"none"[..], HeaderValue::as_bytes);
    let foreign_site = !matches!(site, b"none" | b"same-origin");
    let follows_link = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    foreign_origin || (foreign_site && !(follows_link && action == Action::Read))
}

/// An origin is weir's own when it names exactly the authority of the request.
fn is_ours(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_str()),
        _ => false,
    }
}

/// The one value of a header; `None` when it is absent or there are several.
fn sole(headers: &HeaderMap, name: http::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

/// Compares in a time that depends on the length only.
fn same(presented: &[u8], token: &[u8]) -> bool {
    let differs = presented.iter().zip(token).fold(0, |differs, (a, b)| black_box(differs | (a ^ b)));
    presented.len() == token.len() && !token.is_empty() && black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Endpoints =
        Endpoints { peer: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), local: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

    fn far() -> Endpoints {
        Endpoints { peer: "10.0.0.9".parse().unwrap(), local: "10.0.0.1".parse().unwrap() }
    }

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        headers.iter().fold(Request::builder().uri("/x"), |r, (k, v)| r.header(*k, *v)).body(()).unwrap()
    }

    fn verdict(headers: &[(&str, &str)], action: Action) -> Result<(), AccessDenied> {
        let policy = AccessPolicy { hosts: vec!["gpu-0.example".into()], ..AccessPolicy::default() };
        policy.admit(&request(headers), LOCAL, action)
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        for host in
            ["127.0.0.1:9902", "[::1]:9902", "[::1]", "localhost", "LOCALHOST:1", "10.1.2.3", "GPU-0.example:80"]
        {
            assert_eq!(verdict(&[("host", host)], Action::Read), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_name_that_resolves_here_is_still_foreign() {
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9902", "gpu-0.example."] {
            assert_eq!(verdict(&[("host", host)], Action::Read), Err(AccessDenied::HostForeign), "{host}");
        }
    }

    #[test]
    fn the_host_must_be_there_once() {
        assert_eq!(verdict(&[], Action::Read), Err(AccessDenied::HostMissing));
        assert_eq!(
            verdict(&[("host", "localhost"), ("host", "localhost")], Action::Read),
            Err(AccessDenied::HostMissing)
        );
    }

    #[test]
    fn another_origin_is_refused_and_our_own_is_not() {
        let with = |origin| verdict(&[("host", "localhost:9902"), ("origin", origin)], Action::Change);
        assert_eq!(with("http://localhost:9902"), Ok(()));
        for origin in ["http://localhost:3000", "http://evil.example", "null", "file://", "http://localhost"] {
            assert_eq!(with(origin), Err(AccessDenied::OriginForeign), "{origin}");
        }
    }

    #[test]
    fn an_image_of_a_foreign_page_cannot_drain_and_a_link_can_read() {
        let cross = |mode, dest, action| {
            let headers = [
                ("host", "localhost"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            verdict(&headers, action)
        };
        assert_eq!(cross("no-cors", "image", Action::Drain), Err(AccessDenied::OriginForeign));
        assert_eq!(cross("navigate", "document", Action::Drain), Err(AccessDenied::OriginForeign));
        assert_eq!(cross("navigate", "document", Action::Read), Ok(()));
    }

    #[test]
    fn a_change_needs_the_token_and_reading_does_not() {
        let policy = AccessPolicy { token: Some("secret".into()), ..AccessPolicy::default() };
        let with = |auth: &str, action| {
            policy.admit(&request(&[("host", "localhost"), ("authorization", auth)]), LOCAL, action)
        };
        assert_eq!(with("Bearer secret", Action::Change), Ok(()));
        assert_eq!(with("Bearer wrong!", Action::Read), Ok(()));
        for auth in ["Bearer secre", "Bearer secrets", "Bearer ", "secret", "Basic secret"] {
            assert_eq!(with(auth, Action::Change), Err(AccessDenied::TokenMissing), "{auth}");
        }
    }

    #[test]
    fn only_a_hook_on_this_machine_drains_without_the_token() {
        let node: IpAddr = "10.0.0.7".parse().unwrap();
        let policy = AccessPolicy { token: Some("secret".into()), neighbours: vec![node], ..AccessPolicy::default() };
        let ask = |endpoints| policy.admit(&request(&[("host", "10.0.0.1")]), endpoints, Action::Drain);
        assert_eq!(ask(LOCAL), Ok(()));
        assert_eq!(ask(Endpoints { peer: far().local, ..far() }), Ok(()));
        assert_eq!(ask(Endpoints { peer: node, ..far() }), Ok(()));
        assert_eq!(ask(far()), Err(AccessDenied::TokenMissing));
    }

    #[test]
    fn the_token_is_not_printed() {
        let policy = AccessPolicy { token: Some("secret".into()), ..AccessPolicy::default() };
        assert!(!format!("{policy:?}").contains("secret"));
    }
}
