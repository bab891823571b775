//! The key of a request's statistics.

use serde::{Deserialize, Serialize};

use crate::vocabulary::backend_id::{BackendId, ModelId};

/// One backend and one model: the key of a request's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    pub backend: BackendId,
    pub model: ModelId,
}
