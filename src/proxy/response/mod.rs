//! A backend's answer on its way to the client.

pub mod assembling;
pub mod relay;
pub mod tap;
pub mod write_buffer;
