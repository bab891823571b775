//! A request on its way in, and as it is written to a backend.

pub mod body_buffer;
pub mod hints;
pub mod reader;
pub mod received;
pub mod request_id;
pub mod upstream_request;
