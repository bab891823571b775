//! Who is served by whom: small numbers for backends and models.
//!
//! Names live in one table (the ledger's catalog for models, the configuration for backends); everything on the way of a
//! request carries these indices, so that no label is looked up per token.

use serde::{Deserialize, Serialize};

/// Index of a backend in the configuration's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u16);

/// Index of a model name in the ledger's catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(pub u16);
