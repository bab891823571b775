//! One entry of `backends`: where requests go, and what is known of the engine that stands there.

use std::ops::Deref;

use serde::Serialize;

use crate::engine_metrics::settings::{EngineKind, Series};
use crate::estimate::EngineLimits;
use crate::proxy::settings::{BackendSettings, BackendUrl};

/// One inference server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendConfig {
    /// What the proxy needs to know.
    #[serde(flatten)]
    pub backend: BackendSettings,
    /// What is known of the engine itself.
    #[serde(flatten)]
    pub inside: Inside,
}

/// What is known of an engine beside its address. All of it may be left out: weir sees what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inside {
    /// Whose metrics these are.
    pub engine: EngineKind,
    /// Where they are; absent, at the backend's own address and this engine's usual path.
    pub metrics_url: Option<BackendUrl>,
    /// Series in place of the built-in ones.
    pub engine_metrics: Series,
    /// Most sequences in the running batch. With it and `kv_tokens` capacity is predicted before any saturation.
    pub max_num_seqs: Option<u32>,
    /// KV memory, in tokens.
    pub kv_tokens: Option<u32>,
    /// Most tokens in one step.
    pub max_num_batched_tokens: Option<u32>,
    /// The GPUs it runs on.
    pub gpu: Vec<crate::gpu::settings::Selector>,
}

impl Inside {
    /// The limits as the estimate takes them.
    pub fn limits(&self) -> EngineLimits {
        let Self { max_num_seqs, kv_tokens, max_num_batched_tokens, .. } = *self;
        EngineLimits { max_num_seqs, kv_tokens, max_num_batched_tokens }
    }
}

impl Deref for BackendConfig {
    type Target = BackendSettings;

    fn deref(&self) -> &BackendSettings {
        &self.backend
    }
}
