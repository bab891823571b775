//! Dashboards and rules ask only for families that exist, and every alert has its section in the runbooks.

use std::collections::BTreeSet;

use weir::export::families;

const FILES: [(&str, &str); 4] = [
    ("weir-overview.json", include_str!("../../dashboards/weir-overview.json")),
    ("weir-backend.json", include_str!("../../dashboards/weir-backend.json")),
    ("weir-sweep.json", include_str!("../../dashboards/weir-sweep.json")),
    ("weir-rules.yaml", include_str!("../../dashboards/rules/weir-rules.yaml")),
];

/// The names of ours in a text; those of recording rules have a colon before or behind them.
fn names(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("weir_") && !word.contains(':')).collect()
}

fn exists(name: &str) -> bool {
    let parts = ["", "_bucket", "_sum", "_count"];
    families::ALL.iter().any(|family| parts.iter().any(|part| name.strip_suffix(part) == Some(family.name)))
}

#[test]
fn they_ask_only_for_families_that_exist() {
    for (file, text) in FILES {
        let names = names(text);
        assert!(names.len() > 10, "{file}: {names:?}");
        let unknown: Vec<_> = names.into_iter().filter(|name| !exists(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    assert!(!exists("weir_requests_offered_tota") && exists("weir_time_to_first_token_seconds_bucket"));
}

#[test]
fn every_alert_has_its_section_in_the_runbooks() {
    let runbooks = include_str!("../../docs/operate/alerts.md");
    let pages = FILES[3].1.lines().filter_map(|line| line.split("runbook_url: ").nth(1));
    let pages: Vec<_> = pages.filter_map(|url| url.trim_matches('"').rsplit('/').next()).collect();
    assert_eq!(pages.len(), 21);
    for page in pages {
        assert!(runbooks.contains(&format!("\n## {page}\n")), "{page}");
    }
}
