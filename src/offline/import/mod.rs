//! Reads result files of load generators: one file here per format, recognised by its content and not by its name.
//!
//! A file that is broken or unknown becomes a [`Problem`] with its line and with what was expected; the rest is still read. Units are known by the tool or by a key's suffix, never guessed from the size of a number. Levels that belong
//! together become one sweep in `gather`. No input makes it panic.

mod aiperf;
mod csv;
mod disk;
mod gather;
mod generic;
mod guidellm;
mod infperf;
mod json;
mod llmperf;
mod reading;
mod recognise;
mod sglang;
mod vllm;
mod weir;

pub use disk::{read, read_beside};
pub use reading::Problem;
pub use recognise::{ImportResult, texts};
