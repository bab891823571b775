//! weir: a sidecar reverse proxy that measures the saturation of LLM inference servers under real traffic.
//!
//! The life of a request: `proxy::listener` accepts, `proxy::connection` reads head and body under the rules of `http1`,
//! `wire` says what is asked for, `measure` opens the books, `balance` picks a backend whose `admission` lets the request in or has
//! it wait, `proxy::exchange` moves the bytes while `proxy::tap` reads along, and the books close. `export` shows them. Every
//! 100 ms `steer` hands what was measured to `estimate`, and what `control` makes of that back to `admission`.
//!
//! Beside it: `load`, `sweep` and `probe` make load of their own, `offline` reads what such runs have left, `rehearsal` plays all of it in
//! virtual time, `top` shows a running weir in a terminal.
//!
//! Imports go down the floors, never up and never sideways between hands:
//! F0 `time` `units` `backend` `slo` `average` · F1 `http1` `wire` `measure` `admission` `engine::model` `load::schedule` · F2 `estimate`
//! `sweep::search` · F3 `control` `balance` · F4 `rehearsal` ·
//! F5 `proxy` `export` `steer` `scrape` `gpu` `engine::server` `load::runner` `offline` (with `clock`) · F6 `cli` `app` `demo` `sweep` `probe` `top` `config`.
//!
//! Absent: a clock below F5, a metric counted in a callback, a text of a client's in a log, TLS and HTTP/2 (later).

#![forbid(unsafe_code)]

pub mod admission;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control_loop;
pub mod demo;
pub mod engine;
pub mod engine_metrics;
pub mod estimate;
pub mod export;
pub mod gpu;
pub mod http1;
pub mod http_client;
pub mod load;
pub mod measure;
pub mod offline;
pub mod probe;
pub mod proxy;
pub mod simulation;
pub mod svg;
pub mod sweep;
pub mod top;
pub mod vocabulary;
pub mod wire;
