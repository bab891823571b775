//! The wire formats: what a request asks for, and what an answer says, read along without touching a byte.
//!
//! `route` knows a dialect by its path; `RequestScanner` reads the few fields of a body that matter; `StreamScanner` finds
//! content events, token counts, the end and the errors of an answer, cut anywhere. Nothing here copies a prompt, keeps a
//! text, or can fail the request that it reads.

mod answer;
mod body;
mod bom;
mod count;
mod dialect;
mod event;
mod json;
mod path;
pub mod reassemble;
mod request;
mod sequences;
mod sse;
mod stream;
mod totals;
mod usage;

pub use crate::vocabulary::usage::Usage;
pub use dialect::{ApiFamily, BodyFormat, Dialect};
pub use event::InBandError;
pub use path::{Endpoint, Route, is_path, route};
pub use request::{PromptLength, RequestScanner, RequestShape};
pub use stream::{Emission, StreamReading, StreamScanner};
