//! The admin port's pages: the paths and their answers.
//!
//! A request arrives here once it is authorized and its body is read. Only `/drain?wait=` waits, for the drain, and only the answer
//! of `/events` has no end. Absent: sockets and deadlines.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use serde_json::json;

use super::auth::Action;
use super::metrics::{self, Exposition};
use super::page::hub::Frames;
use super::page::{self, LivePage, PageFile};
use super::{Handles, Mode, Reloaded, encoding, knee, probe, status};

/// An answer of the admin port: whole, or the events of the live page.
pub type AdminResponse = Response<Either<Full<Bytes>, Frames>>;

/// A path of the admin port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminPage {
    /// The live page, or a file of it.
    Live(PageFile),
    /// The live page's frames, as server-sent events.
    Events,
    /// The exposition.
    Metrics,
    /// The process is alive; never depends on a backend.
    Alive,
    /// The process should receive new requests; `?verbose` lists the checks.
    Ready,
    /// The state of the process and its backends, as JSON.
    Status,
    /// The knee of each backend, or the evidence still missing for it.
    Knee,
    /// Advice for a batch client.
    Saturation,
    /// The effective configuration.
    Config,
    /// Reads the configuration again.
    Reload,
    /// Begins the drain; `?wait=120s` waits for its end.
    Drain,
    /// Cancels the drain.
    Undrain,
    /// The mode; `POST ?set=enforce` switches it.
    Mode,
    /// The state of synthetic load; `POST ?set=start` and `?set=stop` start and stop it.
    Probe,
}

impl AdminPage {
    /// Every path with its page.
    pub const PATHS: [(&'static str, Self); 17] = [
        ("/", Self::Live(PageFile::Document)),
        ("/page.js", Self::Live(PageFile::Script)),
        ("/page.css", Self::Live(PageFile::Style)),
        ("/events", Self::Events),
        ("/metrics", Self::Metrics),
        ("/livez", Self::Alive),
        ("/readyz", Self::Ready),
        ("/healthz", Self::Alive),
        ("/status", Self::Status),
        ("/knee", Self::Knee),
        ("/saturation", Self::Saturation),
        ("/config", Self::Config),
        ("/-/reload", Self::Reload),
        ("/drain", Self::Drain),
        ("/undrain", Self::Undrain),
        ("/mode", Self::Mode),
        ("/probe", Self::Probe),
    ];

    /// The page at a path.
    pub fn at(path: &str) -> Option<Self> {
        Self::PATHS.iter().find(|(known, _)| *known == path).map(|(_, page)| *page)
    }

    /// The methods it takes, as `Allow` lists them.
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Events => "GET",
            Self::Drain => "GET, POST",
            Self::Mode | Self::Probe => "GET, HEAD, POST",
            Self::Undrain | Self::Reload => "POST",
            _ => "GET, HEAD",
        }
    }

    /// The effect of calling it with `method`.
    pub fn action(self, method: &Method) -> Action {
        match self {
            Self::Drain => Action::Drain,
            Self::Undrain | Self::Reload => Action::Change,
            Self::Mode | Self::Probe if *method == Method::POST => Action::Change,
            _ => Action::Read,
        }
    }

    /// Whether it takes this method.
    pub fn takes(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Answers pages from the handles; one per process.
pub struct Pages {
    handles: Handles,
    exposition: Exposition,
    live: LivePage,
}

impl Pages {
    /// Pages over these handles.
    pub fn new(handles: Handles) -> Self {
        let exposition = Exposition::new(&handles.disabled);
        Self { handles, exposition, live: LivePage::default() }
    }

    /// Sends the live page's viewers a frame; called once a second.
    pub fn on_second(&self) {
        self.live.on_second(&self.handles);
    }

    /// The answer of a page, for a method it takes.
    pub async fn answer(&self, page: AdminPage, method: &Method, uri: &Uri, headers: &HeaderMap) -> AdminResponse {
        match page {
            AdminPage::Live(file) => live(file),
            AdminPage::Events => self.events(),
            AdminPage::Metrics => self.metrics(headers),
            AdminPage::Alive => text(StatusCode::OK, "ok\n"),
            AdminPage::Ready => self.ready(uri),
            AdminPage::Status => body(StatusCode::OK, JSON, status::render(&self.handles)),
            AdminPage::Knee | AdminPage::Saturation => self.estimates(page),
            AdminPage::Config => body(StatusCode::OK, JSON, self.handles.backend.config()),
            AdminPage::Drain => self.drain(uri).await,
            AdminPage::Reload => self.reload(),
            AdminPage::Undrain => self.undrain(),
            AdminPage::Mode => self.mode(method, uri),
            AdminPage::Probe => self.probe(method, uri),
        }
    }

    /// Time that an answer may take beyond the time of every answer.
    pub fn extra_time(page: AdminPage, uri: &Uri) -> Duration {
        match page {
            AdminPage::Drain => wait(uri).ok().flatten().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    fn probe(&self, method: &Method, uri: &Uri) -> AdminResponse {
        let Some(probe) = self.handles.backend.probe() else {
            if *method != Method::POST {
                return body(StatusCode::OK, JSON, line(&probe::render(&probe::Status::default())));
            }
            return problem(
                StatusCode::FORBIDDEN,
                "synthetic load needs admin.token to be set: it costs what clients pay for",
            );
        };
        if *method == Method::POST {
            match parameter(uri, "set") {
                Some("start") => {
                    if let Err(why) = probe.start() {
                        return problem(StatusCode::CONFLICT, &why);
                    }
                }
                Some("stop") => _ = probe.stop(),
                _ => return problem(StatusCode::BAD_REQUEST, "set must be start or stop"),
            }
        }
        body(StatusCode::OK, JSON, line(&probe::render(&probe.status())))
    }

    fn events(&self) -> AdminResponse {
        let Some(frames) = self.live.join(&self.handles) else {
            let mut answer = problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "the limit of open live pages is reached; close one and try again",
            );
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return answer;
        };
        body(StatusCode::OK, "text/event-stream", Bytes::new()).map(|_| Either::Right(frames))
    }

    fn metrics(&self, headers: &HeaderMap) -> AdminResponse {
        let exposition = match self.exposition.render(&self.handles) {
            Ok(exposition) => exposition,
            Err(error) => {
                tracing::error!(%error, "the exposition could not be written");
                return problem(StatusCode::INTERNAL_SERVER_ERROR, "the exposition could not be written; see the log");
            }
        };
        let wants_gzip =
            headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(encoding::accepts_gzip);
        let compressed = wants_gzip.then(|| encoding::gzip(exposition.as_bytes())).flatten();
        let mut answer = match compressed {
            Some(compressed) => {
                let mut answer = body(StatusCode::OK, metrics::CONTENT_TYPE, compressed);
                answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                answer
            }
            None => body(StatusCode::OK, metrics::CONTENT_TYPE, exposition),
        };
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        answer
    }

    fn estimates(&self, page: AdminPage) -> AdminResponse {
        let snapshot = self.handles.ledger.snapshot(self.handles.clock.now());
        let process = self.handles.backend.state().of(&snapshot);
        let described = match page {
            AdminPage::Knee => {
                let mut described = knee::knee(&snapshot, &process.estimates, &process.gpus, process.epoch);
                described["probe"] = self.probe_knee();
                described
            }
            _ => knee::saturation(&snapshot, &process.estimates),
        };
        body(StatusCode::OK, JSON, line(&described))
    }

    /// The knee that the last run of synthetic load measured, over all backends.
    fn probe_knee(&self) -> serde_json::Value {
        let last = self.handles.backend.probe().and_then(|probe| probe.status().last);
        let seen = last.and_then(|last| Some(probe::describe(&last.knee?, last.ended_at)));
        seen.unwrap_or_default()
    }

    fn ready(&self, uri: &Uri) -> AdminResponse {
        let checks = self.handles.backend.readiness();
        let ready = checks.iter().all(|check| check.passed);
        let verdict = if ready { "ready\n" } else { "not ready\n" };
        let mut answer = String::new();
        if parameter(uri, "verbose").is_some() {
            for check in &checks {
                let mark = if check.passed { "[+]" } else { "[-]" };
                answer.push_str(&format!("{mark} {}\n", check.name));
            }
        }
        answer.push_str(verdict);
        text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, answer)
    }

    async fn drain(&self, uri: &Uri) -> AdminResponse {
        let Ok(wait) = wait(uri) else {
            return problem(StatusCode::BAD_REQUEST, "wait must be a duration like 120s, an hour at most");
        };
        let backend = &self.handles.backend;
        backend.begin_drain();
        let Some(wait) = wait else { return self.drain_state(StatusCode::OK, "draining") };
        match tokio::time::timeout(wait, backend.drained()).await {
            Ok(true) => self.drain_state(StatusCode::OK, "empty"),
            Ok(false) => self.drain_state(StatusCode::CONFLICT, "cancelled"),
            Err(_) => self.drain_state(StatusCode::GATEWAY_TIMEOUT, "timeout"),
        }
    }

    fn reload(&self) -> AdminResponse {
        match self.handles.backend.reload() {
            Ok(Reloaded { changed, needs_restart }) => {
                body(StatusCode::OK, JSON, line(&json!({ "changed": changed, "needs_restart": needs_restart })))
            }
            Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        }
    }

    fn undrain(&self) -> AdminResponse {
        if self.handles.backend.cancel_drain() {
            self.drain_state(StatusCode::OK, "serving")
        } else {
            self.drain_state(StatusCode::CONFLICT, "stopping")
        }
    }

    fn mode(&self, method: &Method, uri: &Uri) -> AdminResponse {
        if let Some(word) = parameter(uri, "set").filter(|_| *method == Method::POST) {
            let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.as_str() == word) else {
                return problem(StatusCode::BAD_REQUEST, "write ?set=observe or ?set=enforce");
            };
            self.handles.backend.set_mode(mode);
        }
        body(StatusCode::OK, JSON, line(&json!({ "mode": self.handles.backend.mode().as_str() })))
    }

    fn drain_state(&self, status: StatusCode, state: &str) -> AdminResponse {
        let backend = &self.handles.backend;
        let state = json!({ "state": state, "draining": backend.is_draining(), "underway": backend.in_flight() });
        body(status, JSON, line(&state))
    }
}

/// 404 with the paths there are.
pub fn not_found() -> AdminResponse {
    let paths: Vec<_> = AdminPage::PATHS.iter().map(|(path, _)| path).collect();
    body(StatusCode::NOT_FOUND, JSON, line(&json!({ "error": "no such admin path", "paths": paths })))
}

/// 405 with the methods the page takes.
pub fn not_allowed(page: AdminPage) -> AdminResponse {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(page.allow()));
    answer
}

/// Any other refusal: `{"error": sentence}`.
pub fn problem(status: StatusCode, sentence: &str) -> AdminResponse {
    body(status, JSON, line(&json!({ "error": sentence })))
}

fn live(file: PageFile) -> AdminResponse {
    let mut answer = body(StatusCode::OK, file.media_type(), file.content());
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}

fn text(status: StatusCode, content: impl Into<Bytes>) -> AdminResponse {
    body(status, "text/plain; charset=utf-8", content)
}

fn body(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> AdminResponse {
    let mut answer = Response::new(Either::Left(Full::new(content.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The `wait` of a drain: `None` when absent, an error when it is no duration or longer than `LONGEST_WAIT`.
fn wait(uri: &Uri) -> Result<Option<Duration>, NoDuration> {
    let Some(value) = parameter(uri, "wait") else { return Ok(None) };
    let duration = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(value).map_err(|_| NoDuration)?,
    };
    if duration <= LONGEST_WAIT { Ok(Some(duration)) } else { Err(NoDuration) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoDuration;

/// The first value of a query parameter, undecoded; empty when it stands without `=`.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

const JSON: &str = "application/json";

/// Longer than any termination grace period; a hook that asks for more has a typo in it.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn wait_takes_durations_and_plain_seconds() {
        assert_eq!(wait(&uri("/drain")), Ok(None));
        assert_eq!(wait(&uri("/drain?wait=120s")), Ok(Some(Duration::from_secs(120))));
        assert_eq!(wait(&uri("/drain?x=1&wait=5")), Ok(Some(Duration::from_secs(5))));
        assert_eq!(wait(&uri("/drain?wait=0")), Ok(Some(Duration::ZERO)));
    }

    #[test]
    fn wait_refuses_nonsense_and_more_than_an_hour() {
        for query in ["wait=", "wait=-1s", "wait=soon", "wait=61min", "wait=18446744073709551616"] {
            assert_eq!(wait(&uri(&format!("/drain?{query}"))), Err(NoDuration), "{query}");
        }
    }

    #[test]
    fn only_the_drain_is_given_more_time() {
        assert_eq!(Pages::extra_time(AdminPage::Drain, &uri("/drain?wait=7s")), Duration::from_secs(7));
        assert_eq!(Pages::extra_time(AdminPage::Drain, &uri("/drain?wait=x")), Duration::ZERO);
        assert_eq!(Pages::extra_time(AdminPage::Status, &uri("/status?wait=7s")), Duration::ZERO);
    }

    #[test]
    fn every_path_finds_its_page_and_others_do_not() {
        assert!(AdminPage::PATHS.iter().all(|(path, page)| AdminPage::at(path) == Some(*page)));
        assert!(["//", "/metrics/", "/METRICS", "", "/v1/chat/completions"].iter().all(|p| AdminPage::at(p).is_none()));
    }
}
