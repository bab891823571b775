//! How full KV memory may be on average, if the context of the running streams fluctuates around that average.
//!
//! Fewer streams cost steps, more streams cost recomputation: a stream for which no memory is left is preempted and computed
//! again. The headroom is counted in standard deviations of the total context, and the cheapest of a few is chosen.

use super::mix::MixFigures;

/// The cheapest way to fill KV memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Headroom {
    /// Streams that decode on average.
    pub decoding: f64,
    /// Seconds of recomputation a request.
    pub recomputation: f64,
}

impl Headroom {
    /// `full` streams of the mean context fill the memory; `step` and `prefill_token` are the costs in seconds.
    pub fn cheapest(full: f64, mix: &MixFigures, step: f64, prefill_token: f64) -> Self {
        let context = mix.context();
        let at = |(deviations, tail): (f64, f64)| {
            let decoding = (full - deviations * full.max(0.0).sqrt() * mix.context_variation).max(1.0);
            let preemptions = PREEMPTIONS * tail * mix.output / context;
            Self { decoding, recomputation: preemptions * prefill_token * context }
        };
        let price = |headroom: &Self| step * mix.output / headroom.decoding + headroom.recomputation;
        let choices = NORMAL_TAIL.map(at);
        choices.into_iter().min_by(|a, b| price(a).total_cmp(&price(b))).unwrap_or(choices[0])
    }
}

/// z and 1 - Phi(z) of the normal distribution: the share of time in which the total context would exceed the memory.
const NORMAL_TAIL: [(f64, f64); 6] = [(0.0, 0.5), (0.5, 0.309), (1.0, 0.159), (1.5, 0.067), (2.0, 0.023), (2.5, 0.006)];
/// Preemptions per request are this times the tail times output / context; fitted on two KV-bound engines.
const PREEMPTIONS: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: MixFigures = MixFigures {
        prompt: 600.0,
        output: 700.0,
        kv: 700.0 * 950.0,
        context_variation: 0.3,
        tokens_per_emission: 1.0,
        completions: 1000.0,
        offered: 1000.0,
    };

    #[test]
    fn costly_prompts_need_headroom_and_cheap_ones_do_not() {
        let costly = Headroom::cheapest(25.0, &MIX, 0.012, 0.0003);
        let cheap = Headroom::cheapest(25.0, &MIX, 0.012, 0.000_000_1);
        assert!(costly.decoding < 23.5 && costly.recomputation < 0.03, "{costly:?}");
        assert_eq!(cheap.decoding, 25.0);
    }

    #[test]
    fn at_least_one_stream_decodes() {
        assert_eq!(Headroom::cheapest(0.2, &MIX, 0.012, 0.0003).decoding, 1.0);
    }
}
