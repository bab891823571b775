//! One simulated engine with its usual traffic and its departures from the plain model.

use std::fmt::Write as _;

use rand::{Rng, RngExt};
use serde::Deserialize;

use crate::engine::model::{Engine, Quirks, SequenceId};
use crate::engine::profile::{LengthLaw, Setup};

/// What is simulated: step costs, limits, lengths, quirks. Two equal machines have the same true capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Step costs, limits and the lengths of requests.
    pub setup: Setup,
    /// Departures from the plain engine.
    pub quirks: Quirks,
    /// Prompts that are partly in a prefix cache.
    pub cache: Cache,
}

/// How much of the prompts a prefix cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Share of the requests that hit it, 0 to 1.
    pub share: f64,
    /// Share of the prompt that is cached then.
    pub hit: f64,
}

/// Lengths of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Prompt tokens.
    pub prompt: u32,
    /// Of those, in the prefix cache.
    pub cached: u32,
    /// Output tokens.
    pub output: u32,
}

impl Machine {
    /// A plain engine.
    pub fn plain(setup: Setup) -> Self {
        Self { setup, quirks: Quirks::default(), cache: Cache::default() }
    }

    /// An idle engine of this kind. `seed` rules which drafted tokens it accepts.
    pub fn engine(&self, seed: u64) -> Engine {
        let mut quirks = self.quirks;
        if let Some(law) = &mut quirks.speculation {
            law.seed = seed;
        }
        Engine::with_quirks(self.setup.params, quirks)
    }

    /// Draws the lengths of one request. Every request of a machine takes as many random numbers.
    pub fn draw(&self, rng: &mut impl Rng) -> Lengths {
        let (prompt, output) = self.setup.workload.draw(&self.setup.params, rng);
        let hit = self.cache.share > 0.0 && rng.random::<f64>() < self.cache.share;
        let cached = if hit { (self.cache.hit * f64::from(prompt)) as u32 } else { 0 };
        Lengths { prompt, cached, output }
    }

    /// Everything that decides its capacity, as one line; equal for equal machines.
    pub fn key(&self) -> String {
        let Setup { params, workload } = self.setup;
        let mut key = format!(
            "{}/{}/{}/{} {}/{}/{} {} {}",
            params.base,
            params.per_decode,
            params.per_prefill_token,
            params.per_kv_token,
            params.max_num_seqs,
            params.max_num_batched_tokens,
            params.kv_tokens,
            law(workload.prompt),
            law(workload.output),
        );
        // Writing to a string cannot fail.
        if self.quirks != Quirks::default() {
            let Quirks { per_attended_token, padding, speculation } = self.quirks;
            let _ = write!(key, " attention={per_attended_token} padding={padding:?}");
            if let Some(law) = speculation {
                let _ = write!(key, " speculation={}/{}", law.acceptance, law.most);
            }
        }
        if self.cache != Cache::default() {
            let _ = write!(key, " cache={}/{}", self.cache.share, self.cache.hit);
        }
        key
    }
}

/// Puts a request into an engine. The lengths drawn by [`Machine::draw`] always fit: each is cut off at 40 % of KV memory.
pub(super) fn submit(engine: &mut Engine, id: SequenceId, lengths: Lengths) {
    let fits = engine.submit_cached(id, lengths.prompt, lengths.cached, lengths.output);
    debug_assert!(fits.is_ok(), "{fits:?}");
}

fn law(law: LengthLaw) -> String {
    format!("{}~{}", law.mean, law.sigma)
}
