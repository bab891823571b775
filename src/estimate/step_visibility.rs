//! Whether the steps are those of a single engine.
//!
//! Several engines behind one backend blur each other's steps: what looks like a step holds only part of the streams, and
//! every stream is overtaken all the time. Then streams that were overtaken were not preempted, and the measured cost of a step is
//! not that of one engine. In calm times every stream of a single engine emits in every step.

/// Evidence for one engine or several.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepVisibility {
    /// Share of the decoding streams that emits in a step, smoothed over calm steps.
    coverage: f64,
    calm_steps: u32,
    /// Streams overtaken, per step, smoothed.
    overtaken: f64,
}

impl StepVisibility {
    pub fn new() -> Self {
        Self { coverage: 1.0, calm_steps: 0, overtaken: 0.0 }
    }

    /// A step in which `streams` of `decoding` emitted. In a calm step no stream can have been preempted.
    pub fn on_step(&mut self, streams: u32, decoding: u64, calm: bool) {
        self.overtaken *= 1.0 - OVERTAKEN_GAIN;
        if calm && decoding >= FEWEST_STREAMS {
            self.calm_steps = self.calm_steps.saturating_add(1);
            let gain = COVERAGE_GAIN.max(1.0 / f64::from(self.calm_steps));
            self.coverage += gain * ((f64::from(streams) / decoding as f64).min(1.0) - self.coverage);
        }
    }

    /// A stream was overtaken by several steps. Returns whether that is credible as a preemption.
    pub fn on_overtaken(&mut self) -> bool {
        self.overtaken += OVERTAKEN_GAIN;
        !self.is_blurred()
    }

    /// Several engines seem to answer behind this backend.
    pub fn is_blurred(&self) -> bool {
        (self.calm_steps >= ENOUGH && self.coverage < COVERED) || self.overtaken > MOST_OVERTAKEN
    }
}

/// Averaged over some 1,000 steps: an engine that begins to thrash is calm for a while yet.
const COVERAGE_GAIN: f64 = 0.001;
const OVERTAKEN_GAIN: f64 = 0.003;
/// Of two or three streams one step looks like another.
const FEWEST_STREAMS: u64 = 4;
/// Calm steps before their coverage is evidence.
const ENOUGH: u32 = 300;
/// A single engine is above 0.99, two behind one backend are below 0.96.
const COVERED: f64 = 0.975;
/// An engine that thrashes preempts a stream in twenty steps.
const MOST_OVERTAKEN: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_engine_that_thrashes_is_not_blurred() {
        let mut visibility = StepVisibility::new();
        (0..1_000).for_each(|_| visibility.on_step(20, 20, true));
        for step in 0..20_000 {
            visibility.on_step(18, 24, false);
            assert!(step % 15 > 0 || visibility.on_overtaken(), "step {step}");
        }
        assert!(!visibility.is_blurred());
    }

    #[test]
    fn steps_that_hold_part_of_the_streams_are_blurred() {
        let mut visibility = StepVisibility::new();
        (0..299).for_each(|_| visibility.on_step(9, 10, true));
        assert!(!visibility.is_blurred(), "too early to tell");
        (0..10).for_each(|_| visibility.on_step(9, 10, true));
        assert!(visibility.is_blurred());
        (0..3_000).for_each(|_| visibility.on_step(10, 10, true));
        assert!(!visibility.is_blurred(), "the second engine is gone");
    }

    #[test]
    fn streams_that_are_overtaken_all_the_time_are_not_preempted() {
        let mut visibility = StepVisibility::new();
        for _ in 0..1_000 {
            visibility.on_step(10, 20, false);
            visibility.on_overtaken();
        }
        assert!(!visibility.on_overtaken());
    }
}
