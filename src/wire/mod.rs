//! The wire formats: what a request asks for, and what an answer says, read along without touching a byte.
//!
//! `route` knows a dialect by its path; `RequestScanner` reads the few fields of a body that matter; `StreamScanner` finds
//! content events, token counts, the end and the errors of an answer, cut anywhere. Nothing here copies a prompt, keeps a
//! text, or can fail the request that it reads.

mod dialect;
mod event;
mod json;
mod request;
mod stream;

pub use dialect::{Dialect, Endpoint, Family, Format, Route, is_path, route};
pub use event::ErrorKind;
pub use request::{PromptLength, RequestScanner, RequestShape};
pub use stream::{Emission, Reading, StreamScanner, Usage};
