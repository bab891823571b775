//! The names of backends and models, as labels of bounded number and length.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;

use super::fnv::FewMap;
use crate::vocabulary::backend_id::{BackendId, ModelId};

/// A backend's names from the configuration.
#[derive(Clone, Debug)]
pub struct BackendNames {
    /// The label value.
    pub name: Arc<str>,
    /// The model that it is configured to serve.
    pub model_name: Option<Arc<str>>,
}

/// The names behind the indices of an account; shared with the shards, whose journal records hold names.
pub(super) struct AccountNames {
    /// By index; `None` where there is no backend.
    pub backends: ArcSwap<Vec<Option<BackendNames>>>,
    pub models: RwLock<Models>,
}

#[derive(Debug, Default)]
pub(super) struct Models {
    names: Vec<Arc<str>>,
    pub ids: FewMap<Arc<str>, ModelId>,
}

impl AccountNames {
    /// The name of a backend, as in labels.
    pub fn backend(&self, backend: BackendId) -> Arc<str> {
        let configured = self.backends.load();
        let names = configured.get(backend.index()).and_then(Option::as_ref);
        names.map_or_else(|| UNKNOWN.into(), |names| names.name.clone())
    }

    /// The name of a model, as in labels.
    pub fn model(&self, model: ModelId) -> Arc<str> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.names.get(usize::from(model.0)).cloned().unwrap_or_else(|| OTHER.into())
    }
}

impl Models {
    /// The index of `name` (that of `other` for an unknown name in a full table), and the name as a label.
    pub fn look_up<'a>(&self, name: &'a str) -> (Option<ModelId>, Cow<'a, str>) {
        if let Some(id) = self.ids.get(name) {
            return (Some(*id), name.into());
        }
        let cleaned = label(name);
        let known = self.ids.get(&*cleaned).copied().or_else(|| self.is_full().then_some(OTHER_ID));
        (known, cleaned.into())
    }

    pub fn is_full(&self) -> bool {
        self.names.len() >= MODEL_LIMIT + RESERVED
    }

    pub fn add(&mut self, name: &str) -> ModelId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = ModelId(u16::try_from(self.names.len()).unwrap_or(u16::MAX));
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.ids.insert(name, id);
        id
    }
}

/// A label value that is safe in every sink: no control characters, and of bounded length.
pub(super) fn label(name: &str) -> String {
    let mut label: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let mut end = label.len().min(NAME_LIMIT);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label.truncate(end);
    label
}

/// The label of names over the limit.
pub(super) const OTHER: &str = "other";
pub(super) const OTHER_ID: ModelId = ModelId(0);
/// A request that names no model, at a backend that is configured with none.
pub(super) const UNKNOWN: &str = "unknown";
const RESERVED: usize = 2;
pub(super) const MODEL_LIMIT: usize = 100;
pub(super) const NAME_LIMIT: usize = 128;
