//! The live page at `/`: its three files, and a frame of figures for it once a second.
//!
//! The files are built in `web/` and embedded; they load nothing from other hosts, and the policy sent with them forbids it. A frame
//! is a shorter form of `/status` and `/knee` (`frame`), and all viewers get the same one (`hub`). Absent: paths, sockets, and a
//! history other than the last state transitions (`transitions`): the browser keeps the charts.

pub mod frame;
pub mod hub;
pub mod transitions;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use self::hub::{Frames, Hub};
use self::transitions::TransitionLog;
use super::{Handles, ProcessState};

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFile {
    Document,
    Script,
    Style,
}

impl PageFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Document, Self::Script, Self::Style];

    /// Its bytes.
    pub const fn content(self) -> &'static [u8] {
        match self {
            Self::Document => include_bytes!("built/index.html"),
            Self::Script => include_bytes!("built/page.js"),
            Self::Style => include_bytes!("built/page.css"),
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Document => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
        }
    }
}

/// `Content-Security-Policy`: everything from this origin, nothing inline, no framing. The icon is a `data:` image.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's viewers and the last state transitions.
#[derive(Debug, Default)]
pub struct LivePage {
    hub: Hub,
    transitions: Mutex<TransitionLog>,
}

impl LivePage {
    /// One second has passed: records state transitions, and sends a frame if there are viewers.
    pub fn on_second(&self, handles: &Handles) {
        let process = handles.backend.state();
        let roster = handles.ledger.roster();
        let changed = self.transitions().record(roster.iter().map(|(id, names)| (*id, &*names.name)), &process);
        if !self.hub.is_empty() {
            self.hub.send(&self.event(handles, &process, changed));
        }
    }

    /// A new viewer's frames, the first of them made now; `None` at the limit of viewers.
    pub fn join(&self, handles: &Handles) -> Option<Frames> {
        self.hub.join(|| self.event(handles, &handles.backend.state(), true))
    }

    fn event(&self, handles: &Handles, process: &ProcessState, with_transitions: bool) -> Bytes {
        let snapshot = handles.ledger.snapshot(handles.clock.now());
        let process = &process.clone().of(&snapshot);
        let transitions = if with_transitions { self.transitions().describe() } else { Value::Null };
        hub::event(&frame::describe(&snapshot, process, handles.backend.is_draining(), transitions))
    }

    fn transitions(&self) -> MutexGuard<'_, TransitionLog> {
        self.transitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: PageFile) -> &'static str {
        std::str::from_utf8(file.content()).unwrap()
    }

    #[test]
    fn the_page_is_small() {
        let size: usize = PageFile::ALL.iter().map(|file| file.content().len()).sum();
        assert!((1_000..=300 << 10).contains(&size), "{size} bytes");
    }

    #[test]
    fn nothing_is_inline_or_from_another_host() {
        let document = text(PageFile::Document);
        for inline in ["<style", " style=", " onclick=", " onload=", "<script>", "javascript:"] {
            assert!(!document.contains(inline), "{inline}");
        }
        assert!(document.contains(r#"<script src="page.js" defer></script>"#), "the one script is a file");
        let foreign =
            |text: &str| text.contains("src=\"http") || text.contains("href=\"http") || text.contains("url(http");
        assert!(!PageFile::ALL.iter().any(|file| foreign(text(*file))));
    }

    #[test]
    fn the_licence_of_bundled_code_is_included() {
        let script = text(PageFile::Script);
        assert!(script.contains("uPlot") && script.contains("Permission is hereby granted, free of charge"));
    }

    #[test]
    fn the_policy_allows_nothing_inline() {
        assert!(POLICY.starts_with("default-src 'none'") && !POLICY.contains("unsafe") && !POLICY.contains('*'));
    }
}
