//! The KV cap: how many tokens of context may be in flight at an engine that preempts streams for lack of memory.
//!
//! A preempted stream is computed again, and that time is lost. So the cap is set when loss is observed, below the context of that
//! moment, and rises slowly while it binds without loss. It counts tokens, because tokens fill the memory. Without loss there is
//! no cap.

use crate::admission::gate_stats::GateStats;
use crate::vocabulary::signals::Signals;

/// The cap; moves only with evidence.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvCap {
    cap: Option<f64>,
    /// Seconds before which it does not move again.
    wait_until: f64,
    growth: f64,
    /// The context at which it was first set.
    began: f64,
    /// The context at the last overflow.
    overflowed: f64,
}

impl KvCap {
    pub fn new() -> Self {
        Self { cap: None, wait_until: 0.0, growth: SLOW_GROWTH, began: 0.0, overflowed: 0.0 }
    }

    /// A tick, at `now` in seconds.
    pub fn on_tick(&mut self, signals: &Signals, gate_stats: &GateStats, now: f64) {
        // The requests in flight now end after about this many seconds; only then a change has had its effect.
        let residence = (f64::from(gate_stats.in_flight) / signals.start_rate.max(SLOWEST)).clamp(1.0, 60.0);
        if signals.wasted > LOSS && signals.wasted_lately > LOSS && may_be_full(signals, gate_stats) {
            let obeyed = self.cap.is_none_or(|cap| gate_stats.context <= OBEYED * cap);
            if now > self.wait_until && obeyed || self.cap.is_some() && now > self.wait_until + residence / 2.0 {
                self.cut(gate_stats.context, residence, now);
            }
        } else if let Some(cap) =
            self.cap.as_mut().filter(|_| signals.wasted < CALM && now > self.wait_until && gate_stats.memory_bound)
        {
            // Memory does not grow: near the context that overflowed, steps are small.
            let near = *cap > NEAR * self.overflowed;
            *cap *= 1.0 + if near { NEAR_GROWTH } else { self.growth };
            self.growth = (1.4 * self.growth).min(FAST_GROWTH);
            self.wait_until = now + (residence / 4.0).max(1.0);
        }
    }

    fn cut(&mut self, context: f64, residence: f64, now: f64) {
        if self.cap.is_none() {
            self.began = context;
        }
        if context > self.overflowed || self.cap.is_none_or(|cap| context >= cap) {
            self.overflowed = context;
        }
        let cap = (CUT * self.cap.unwrap_or(f64::INFINITY).min(context)).max(SMALLEST);
        self.growth = SLOW_GROWTH;
        if cap < USELESS * self.began {
            // A full memory would have been relieved long before: the loss has another cause.
            (self.cap, self.wait_until) = (None, now + DOUBT);
            return;
        }
        self.cap = Some(cap);
        self.wait_until = now + (residence / 8.0).max(1.0);
    }

    /// Tokens of context allowed in flight.
    pub fn tokens(&self) -> Option<f64> {
        self.cap
    }
}

/// Whether the requests in flight can have filled the engine's memory.
fn may_be_full(signals: &Signals, gate_stats: &GateStats) -> bool {
    signals.kv_tokens.is_none_or(|tokens| gate_stats.context >= LEAST_FULL * tokens)
}

/// Share of its memory below which no engine preempts; prompt lengths are estimates, and may be twice what the bytes suggest.
const LEAST_FULL: f64 = 0.25;
/// Shares of the time lost to recomputation: above the first there is loss, below the second there is none.
const LOSS: f64 = 0.05;
const CALM: f64 = 0.025;
/// A context within this factor of the cap counts as capped: a larger one dates from before the last cut.
const OBEYED: f64 = 1.02;
/// Share of the context that remains allowed after a cut.
const CUT: f64 = 0.95;
/// Share of the context that overflowed above which the cap grows in small steps.
const NEAR: f64 = 0.9;
const NEAR_GROWTH: f64 = 0.01;
/// Share of the first context below which a cap has proved useless, and the seconds for which none is set then.
const USELESS: f64 = 0.4;
const DOUBT: f64 = 60.0;
/// Tokens; below that no request would fit.
const SMALLEST: f64 = 64.0;
/// Growth per step, at first and at most.
const SLOW_GROWTH: f64 = 0.02;
const FAST_GROWTH: f64 = 0.1;
/// Starts per second: the least assumed of any engine.
const SLOWEST: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    fn losing(wasted: f64) -> Signals {
        Signals { wasted, wasted_lately: wasted, start_rate: 10.0, ..Signals::UNKNOWN }
    }

    /// Twenty requests in flight at ten starts per second: they end after 2 s.
    fn tick(cap: &mut KvCap, wasted: f64, context: f64, memory_bound: bool, now: f64) -> Option<f64> {
        cap.on_tick(&losing(wasted), &GateStats { context, memory_bound, in_flight: 20, ..GateStats::default() }, now);
        cap.tokens()
    }

    #[test]
    fn without_loss_there_is_no_cap() {
        let mut cap = KvCap::new();
        assert!((0..1000).all(|n| tick(&mut cap, 0.04, 1e9, false, f64::from(n)).is_none()));
    }

    #[test]
    fn loss_sets_it_below_the_context_and_not_at_every_tick() {
        let mut cap = KvCap::new();
        assert_eq!(tick(&mut cap, 0.2, 1000.0, false, 1.0), Some(950.0));
        assert_eq!(tick(&mut cap, 0.2, 940.0, false, 1.5), Some(950.0), "it has had no effect yet");
        assert_eq!(tick(&mut cap, 0.2, 990.0, false, 2.1), Some(950.0), "nor while the context is above it");
        assert_eq!(tick(&mut cap, 0.2, 940.0, false, 2.2), Some(893.0));
    }

    #[test]
    fn a_cap_without_loss_rises_only_while_it_binds() {
        let mut cap = KvCap::new();
        tick(&mut cap, 0.2, 1000.0, false, 1.0);
        assert_eq!(tick(&mut cap, 0.2, 600.0, false, 5.0), Some(570.0));
        assert_eq!(tick(&mut cap, 0.0, 500.0, false, 10.0), Some(570.0));
        assert_eq!(tick(&mut cap, 0.0, 500.0, true, 11.0), Some(581.4));
        assert_eq!(tick(&mut cap, 0.03, 500.0, true, 19.0), Some(581.4), "a little is lost");
        assert!(tick(&mut cap, 0.0, 500.0, true, 20.0).unwrap() > 597.0, "faster each time");
    }

    #[test]
    fn near_the_context_that_overflowed_it_grows_in_small_steps() {
        let mut cap = KvCap::new();
        tick(&mut cap, 0.2, 1000.0, false, 1.0);
        assert_eq!(tick(&mut cap, 0.0, 900.0, true, 11.0), Some(959.5));
    }

    #[test]
    fn only_a_memory_that_may_be_full_is_capped() {
        for (kv_tokens, capped) in [(400_000.0, None), (25_000.0, Some(18_050.0))] {
            let mut cap = KvCap::new();
            let signals = Signals { kv_tokens: Some(kv_tokens), ..losing(0.2) };
            cap.on_tick(&signals, &GateStats { context: 19_000.0, in_flight: 20, ..GateStats::default() }, 1.0);
            assert_eq!(cap.tokens(), capped, "{kv_tokens}");
        }
    }

    #[test]
    fn loss_that_ended_cuts_no_further() {
        let mut cap = KvCap::new();
        tick(&mut cap, 0.2, 1000.0, false, 1.0);
        let signals = Signals { wasted: 0.2, wasted_lately: 0.01, start_rate: 10.0, ..Signals::UNKNOWN };
        cap.on_tick(&signals, &GateStats { context: 900.0, in_flight: 20, ..GateStats::default() }, 9.0);
        assert_eq!(cap.tokens(), Some(950.0));
    }

    #[test]
    fn a_cap_that_relieves_nothing_is_given_up_for_a_while() {
        let mut cap = KvCap::new();
        let caps: Vec<Option<f64>> =
            (1..40).map(|n| tick(&mut cap, 0.3, 1000.0 * 0.95_f64.powi(n), false, 10.0 * f64::from(n))).collect();
        let given_up = caps.iter().position(Option::is_none).unwrap();
        assert!(caps[given_up - 1].is_some_and(|cap| (380.0..430.0).contains(&cap)), "{caps:?}");
        assert!(caps[given_up..given_up + 6].iter().all(Option::is_none) && caps[given_up + 7].is_some(), "{caps:?}");
    }

    #[test]
    fn it_never_falls_below_what_a_request_needs() {
        let mut cap = KvCap::new();
        tick(&mut cap, 0.5, 100.0, false, 50.0);
        (1..2).for_each(|n| assert!(tick(&mut cap, 0.5, 10.0, false, 100.0 * f64::from(n)).is_some()));
        assert_eq!(cap.tokens(), Some(64.0));
    }
}
