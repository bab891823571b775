#![forbid(unsafe_code)]
pub mod backend;
pub mod balance;
pub mod clock;
pub mod http1;
pub mod measure;
pub mod slo;
pub mod time;
