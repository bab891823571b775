//! The units of the figures that the estimate publishes, as names for `f64`.
//!
//! They say in a signature what a number is; they do not keep two units apart. Quantities that a person types are in `units`.

/// A span of time, or a point in time since a start that the item names.
pub type Seconds = f64;
/// A number of tokens; a mean or an estimate may be a fraction.
pub type Tokens = f64;
/// A rate: requests, tokens or seconds per second, as the item names.
pub type PerSecond = f64;
