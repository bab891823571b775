//! The capacity before any saturation was seen: step costs, the mix and the engine's limits.
//!
//! A request needs a number of steps that the scarcest limit decides: `E[O]` emissions shared by the slots, its
//! KV-token-steps shared by the memory, or its tokens shared by the batch. Each step costs `a`, the rest is the request's own.
//! With one limit known of two it is an upper bound, not a point: slots alone overstate a KV-bound engine by 12 to 140 %.

use super::costs::Solution;
use super::headroom::Headroom;
use super::mix::{MixFigures, ServedMoments};
use super::reading::{Estimate, Prediction, Regime};

/// The limits of an engine, told or learnt, in requests and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limits {
    pub slots: Option<f64>,
    pub kv: Option<f64>,
    pub batched: Option<f64>,
    /// What binds is known from saturation: the other limits need not be.
    pub bound_is_known: bool,
}

/// Predicts; `None` when no limit is known.
pub(super) fn predict(
    limits: &Limits,
    mix: &MixFigures,
    served: &ServedMoments,
    costs: &Solution,
) -> Option<Prediction> {
    if limits.slots.is_none() && limits.kv.is_none() {
        return None;
    }
    let [a, b, c] = costs.coefficients;
    let Binding { regime, steps, recomputation, prices } = Binding::of(limits, mix, costs);
    let work = a * steps + b * mix.output + c * mix.prompt + recomputation;
    let by_costs = costs.variance_along([steps, mix.output, mix.prompt]);
    let by_mix = served.variance(prices) / served.weight().max(1.0) * (1.0 + SMALL_SAMPLE / mix.completions.max(1.0));
    let relative = ((by_costs + by_mix) / (work * work) + MODEL_ERROR).sqrt();
    let rate = 1.0 / work;
    let slots = limits.slots.unwrap_or(f64::INFINITY);
    Some(Prediction {
        requests_per_second: Estimate::around(rate, 1.96 * relative * rate),
        in_flight: (mix.output / steps).min(slots),
        regime,
        at_most: !limits.bound_is_known && (limits.slots.is_none() || limits.kv.is_none()),
    })
}

/// No limit can lift the capacity above this: the work of a request without any step's own cost.
pub(super) fn upper_bound(mix: &MixFigures, costs: &Solution) -> Option<f64> {
    let [_, b, c] = costs.coefficients;
    let work = c * mix.prompt + b * mix.output;
    (work > 0.0).then(|| 1.0 / work)
}

/// The scarcest limit.
struct Binding {
    regime: Regime,
    /// Steps a request needs.
    steps: f64,
    /// Seconds of recomputation a request.
    recomputation: f64,
    /// What a prompt token, an emission, a KV-token-step then cost: for the error of the mix.
    prices: [f64; 3],
}

impl Binding {
    fn of(limits: &Limits, mix: &MixFigures, costs: &Solution) -> Self {
        let [a, b, c] = costs.coefficients;
        let slots = limits.slots.map(|slots| Self {
            regime: Regime::Slots,
            steps: mix.output / slots,
            recomputation: 0.0,
            prices: [c, b + a / slots, 0.0],
        });
        let kv = limits.kv.map(|kv| {
            let full = (kv - 0.5 * mix.prompt).max(1.0) / mix.context();
            let headroom = Headroom::cheapest(full, mix, a, c);
            let steps = mix.output / headroom.decoding;
            let prices = [c, b, a * steps / mix.kv];
            Self { regime: Regime::Kv, steps, recomputation: headroom.recomputation, prices }
        });
        let batched = limits.batched.map(|batched| Self {
            regime: Regime::Prefill,
            steps: (mix.prompt + mix.output) / batched,
            recomputation: 0.0,
            prices: [c + a / batched, b + a / batched, 0.0],
        });
        let none = Self { regime: Regime::Unknown, steps: 0.0, recomputation: 0.0, prices: [c, b, 0.0] };
        [slots, kv, batched]
            .into_iter()
            .flatten()
            .fold(none, |scarcest, limit| if limit.steps > scarcest.steps { limit } else { scarcest })
    }
}

/// Few completions know the mix less well than their variance says.
const SMALL_SAMPLE: f64 = 30.0;
/// (2 %)^2: no prediction is better.
const MODEL_ERROR: f64 = 4e-4;
