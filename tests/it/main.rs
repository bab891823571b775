//! One integration binary: real sockets on port 0, our own engine, no sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on should say so and stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod access_log;
mod admin;
mod attacks;
mod bad_answers;
mod bodies;
mod books;
mod budget;
mod canaries;
mod cancels;
mod circles;
mod config;
mod dashboards;
mod debug_level;
mod deploy;
mod docs;
mod drain;
mod enforce;
mod engine_server;
mod exposition;
mod gpu;
mod http1_corpora;
mod identities;
mod layering;
mod load_client;
mod log_table;
mod metric_table;
mod notify;
mod offline;
mod page;
mod probe_token;
mod reassembly;
mod rehearsal;
mod relay;
mod reload;
mod retry;
mod scrape;
mod slow_paths;
mod source;
mod style;
mod sweep;
mod traces;
mod wakeups;
mod wire_golden;
mod wire_properties;
mod wire_samples;
mod wrong_configs;
