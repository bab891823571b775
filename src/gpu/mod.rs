//! What NVIDIA's library says of the GPUs: context beside what weir measures itself, never a condition for anything.

pub mod settings;
