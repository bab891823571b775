//! The capacity before any saturation was seen: step costs, the mix and the engine's limits.
//!
//! The scarcest limit decides how many steps a request needs: `E[O]` emissions shared by the slots, its KV-token-steps shared by
//! the memory, or its tokens shared by the batch. Each step costs `a`; the other costs are the request's own.
//! With one limit known of two it is an upper bound, not a point: slots alone overstate a KV-bound engine by 12 to 140 %.

use super::costs::Solution;
use super::headroom::Headroom;
use super::mix::{MixFigures, ServedMoments};
use super::reading::{Estimate, Prediction, Regime};

/// The limits of an engine, configured or shown by saturation, in requests and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EngineBounds {
    pub slots: Option<f64>,
    pub kv: Option<f64>,
    pub batched: Option<f64>,
    /// Saturation has shown which limit binds: the others need not be known.
    pub bound_is_known: bool,
}

/// The capacity of the offered mix; `None` when neither slots nor memory are known.
pub(super) fn predict(
    limits: &EngineBounds,
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

/// Requests per second that no limit of the engine allows more of: the work of a request without any step's own cost.
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
    /// Seconds for a prompt token, an emission and a KV-token-step: for the error of the mix.
    prices: [f64; 3],
}

impl Binding {
    fn of(limits: &EngineBounds, mix: &MixFigures, costs: &Solution) -> Self {
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

/// With few completions the mix is less certain than their variance shows.
const SMALL_SAMPLE: f64 = 30.0;
/// (2 %)^2: no prediction is more precise.
const MODEL_ERROR: f64 = 4e-4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::costs::Costs;
    use crate::estimate::steps::WorkInterval;

    const A: f64 = 0.0135;
    const B: f64 = 0.000157;
    const C: f64 = 0.000183;

    fn costs() -> Solution {
        let mut costs = Costs::default();
        for n in 0..60_u32 {
            let steps = f64::from(20 + n * 7 % 31);
            let (decodes, prefill) = (steps * f64::from(3 + n * 13 % 29), f64::from(n * 29 % 17) * 100.0);
            costs.add(&WorkInterval { time: A * steps + B * decodes + C * prefill, steps, decodes, prefill });
        }
        *costs.solution().unwrap()
    }

    const MIX: MixFigures = MixFigures {
        prompt: 162.0,
        output: 153.0,
        kv: 153.0 * 240.0,
        context_variation: 0.4,
        tokens_per_emission: 1.0,
        completions: 1000.0,
        offered: 1000.0,
    };

    fn bounds(slots: Option<f64>, kv: Option<f64>, batched: Option<f64>) -> EngineBounds {
        EngineBounds { slots, kv, batched, bound_is_known: false }
    }

    fn predicted(limits: &EngineBounds) -> Prediction {
        predict(limits, &MIX, &ServedMoments::default(), &costs()).unwrap()
    }

    #[test]
    fn slots_give_the_capacity_of_the_step() {
        let found = predicted(&bounds(Some(91.0), Some(400_000.0), Some(2048.0)));
        let truth = 1.0 / (A * 153.0 / 91.0 + B * 153.0 + C * 162.0);
        assert!((found.requests_per_second.value / truth - 1.0).abs() < 1e-3, "{found:?} {truth}");
        assert_eq!((found.regime, found.in_flight.round(), found.at_most), (Regime::Slots, 91.0, false));
    }

    #[test]
    fn the_scarcest_limit_binds() {
        assert_eq!(predicted(&bounds(Some(91.0), Some(8_000.0), Some(2048.0))).regime, Regime::Kv);
        assert_eq!(predicted(&bounds(Some(91.0), Some(400_000.0), Some(100.0))).regime, Regime::Prefill);
        let few = predicted(&bounds(Some(8.0), Some(400_000.0), Some(2048.0)));
        let many = predicted(&bounds(Some(91.0), Some(400_000.0), Some(2048.0)));
        assert!(few.requests_per_second.value < 0.5 * many.requests_per_second.value);
    }

    #[test]
    fn one_limit_of_two_is_at_most() {
        assert!(predicted(&bounds(Some(91.0), None, None)).at_most);
        assert!(predicted(&bounds(None, Some(8_000.0), None)).at_most);
        let bound_is_known = EngineBounds { bound_is_known: true, ..bounds(Some(91.0), None, None) };
        assert!(!predicted(&bound_is_known).at_most);
    }

    #[test]
    fn no_limit_is_no_prediction_but_a_bound() {
        assert_eq!(predict(&bounds(None, None, Some(2048.0)), &MIX, &ServedMoments::default(), &costs()), None);
        let bound = upper_bound(&MIX, &costs()).unwrap();
        let many = predicted(&bounds(Some(1e6), Some(1e9), None));
        assert!(bound > many.requests_per_second.value);
        assert!((bound / many.requests_per_second.value - 1.0).abs() < 0.01);
    }
}
