//! weir: a sidecar reverse proxy that measures the saturation of LLM inference servers under real traffic, and can limit the load to
//! what they sustain.
//!
//! # From `main` to the last byte of an answer
//!
//! `main` parses the command line ([`cli`]) and turns an error into an exit status. `weir serve` reads its [`config`] and calls
//! [`app`], which constructs the parts in order, connects them, and ends them in order. Then, for each request:
//!
//! 1. [`proxy::listener`] accepts the connection, one listener per worker thread; `proxy::connection` serves one request after another.
//! 2. `proxy::request` reads head and body. The rules of HTTP/1.1 are in [`http1`], the dialects (OpenAI, Anthropic, Ollama, …) in
//!    [`wire`]: the path gives the dialect, and a scanner finds model, lengths and whether a stream is asked for.
//! 3. `proxy::dispatch` asks [`admission::pool`] for a permit. [`admission`] picks a backend, or queues the request
//!    (`proxy::acquire` waits), or refuses it. `proxy::local_reply` writes every answer that weir gives itself.
//! 4. [`measure::Entry`] accounts for the request from its offer to its end, on every path.
//! 5. `proxy::upstream` has the addresses and the health of the backends; an idle connection is used, or a new one made.
//! 6. `proxy::exchange` moves the bytes of one request and its answer in one task. `proxy::response` relays the answer, and its tap
//!    reads along through [`wire`] and stamps each emission.
//! 7. `proxy::finish` ends it: at the last byte the outcome is counted, the permit is released, and the connection reads its next request.
//!
//! # Beside the data path
//!
//! - [`control_loop`]: every 100 ms, samples go from [`measure`] through [`estimate`] to [`admission::policy`], and limits back to the
//!   pool. [`simulation`] runs the same code in virtual time.
//! - [`export`]: the admin port with `/metrics`, `/status` and the live page; journal, access log, spans. [`engine_metrics`] and
//!   [`gpu`] read what the engine and the GPU report.
//! - [`load`], [`sweep`], [`probe`]: synthetic load. [`engine`]: a simulated inference server. [`demo`]: weir between the two.
//! - [`offline`]: reports from result files. [`top`]: a running weir in a terminal.
//!
//! # Layers
//!
//! Imports go down, never up, and never sideways between modules of layer 5. `tests/it/layering.rs` holds the table.
//!
//! | layer | modules |
//! |---|---|
//! | 6 | `cli`, `app`, `config`, `demo`, `top`, `sweep`, `probe` |
//! | 5 | `proxy`, `export`, `control_loop`, `engine_metrics`, `gpu`, `engine::server`, `load`, `offline`; `clock`, `http_client` |
//! | 4 | `simulation` |
//! | 3 | `admission` |
//! | 2 | `estimate`, `sweep::search` |
//! | 1 | `http1`, `wire`, `measure`, `engine::{model, profile}`, `load::{schedule, workload, trace_file}`, `svg`, parts of `gpu`, `probe` |
//! | 0 | `vocabulary`: values, units, and each closed list once |
//!
//! docs/internals/architecture.md has pictures of the request's way and of the control loop, the seams and the invariants;
//! docs/internals/adding.md the files to touch for a dialect, a metric, a setting and other extensions.
//!
//! Absent: a clock, a socket or a random source without a seed below layer 5; a metric counted in a callback; a client's content in a
//! log or a metric; TLS and HTTP/2.

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
