//! The live page at `/`: its three files, and what it is told once a second.
//!
//! The files are built in `web/` and embedded; they load nothing from elsewhere, and the policy sent with them forbids it. What
//! the page shows is what `/status` and `/knee` say, in fewer words (frame.rs), told to all viewers alike (hub.rs). It holds no
//! path and no socket, and it keeps no history but the last changes of state (turns.rs): charts remember in the browser.

pub mod frame;
pub mod hub;
pub mod transitions;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use self::hub::{Frames, Hub};
use self::transitions::Turns;
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

    /// What is in it.
    pub const fn content(self) -> &'static [u8] {
        match self {
            Self::Document => include_bytes!("built/index.html"),
            Self::Script => include_bytes!("built/page.js"),
            Self::Style => include_bytes!("built/page.css"),
        }
    }

    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Document => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
        }
    }
}

/// `Content-Security-Policy`: everything from here, nothing inline, in nobody's frame. The icon is a `data:` image.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who looks, and what they are told.
#[derive(Debug, Default)]
pub struct LivePage {
    hub: Hub,
    turns: Mutex<Turns>,
}

impl LivePage {
    /// One second has passed: notes changes of state, and tells viewers if there are any.
    pub fn on_second(&self, handles: &Handles) {
        let facts = handles.backend.state();
        let roster = handles.ledger.roster();
        let changed = self.turns().on_facts(roster.iter().map(|(place, names)| (*place, &*names.name)), &facts);
        if !self.hub.is_empty() {
            self.hub.tell(&self.event(handles, &facts, changed));
        }
    }

    /// A new viewer's frames, the first of them made now; `None` when there are as many viewers as there may be.
    pub fn join(&self, handles: &Handles) -> Option<Frames> {
        self.hub.join(|| self.event(handles, &handles.backend.state(), true))
    }

    fn event(&self, handles: &Handles, facts: &ProcessState, with_turns: bool) -> Bytes {
        let snapshot = handles.ledger.snapshot(handles.clock.now());
        let facts = &facts.clone().of(&snapshot);
        let turns = if with_turns { self.turns().describe() } else { Value::Null };
        hub::event(&frame::describe(&snapshot, facts, handles.backend.is_draining(), turns))
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        let document = text(PageFile::Document);
        for inline in ["<style", " style=", " onclick=", " onload=", "<script>", "javascript:"] {
            assert!(!document.contains(inline), "{inline}");
        }
        assert!(document.contains(r#"<script src="page.js" defer></script>"#), "the one script is a file");
        let elsewhere =
            |text: &str| text.contains("src=\"http") || text.contains("href=\"http") || text.contains("url(http");
        assert!(!PageFile::ALL.iter().any(|file| elsewhere(text(*file))));
    }

    #[test]
    fn the_licence_of_what_is_bundled_comes_with_it() {
        let script = text(PageFile::Script);
        assert!(script.contains("uPlot") && script.contains("Permission is hereby granted, free of charge"));
    }

    #[test]
    fn the_policy_allows_nothing_inline() {
        assert!(POLICY.starts_with("default-src 'none'") && !POLICY.contains("unsafe") && !POLICY.contains('*'));
    }
}
