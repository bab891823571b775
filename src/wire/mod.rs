//! What is said over HTTP: which requests are inference, what they ask for, and what a streamed answer says.
//!
//! Bytes go in, in whatever pieces they arrive; out come a [`RequestShape`], [`Emission`]s and a [`Reading`]. Everything
//! reads along and nothing is re-serialised: the bytes themselves go on untouched, and whatever is not understood is
//! passed over, never refused.
//!
//! Invariant: no scanner here holds a body, an event or a line. State is of fixed size (a stream with several choices
//! keeps some 50 bytes for each further one), so what a peer sends cannot make weir hold memory.
//!
//! Invariant: the pieces in which bytes arrive change nothing. Each scanner is a machine over single bytes; running
//! ahead with `memchr` inside one piece is a shortcut through the same states.
//!
//! It holds no HTTP framing (that is `http1/`), no clock and no books (`measure/`).

mod anthropic;
mod dialect;
mod event;
mod format;
mod json;
mod llamacpp;
mod ndjson;
mod ollama;
mod openai;
mod request;
mod responses;
mod route;
mod sglang;
mod sse;
mod stream;
mod tally;
mod tgi;

pub use dialect::{Dialect, Family};
pub use format::Format;
pub use request::{PromptLength, RequestScanner, RequestShape};
pub use route::{Endpoint, Route, route};
pub use stream::{Emission, ErrorKind, Reading, StreamScanner};
pub use tally::Usage;
