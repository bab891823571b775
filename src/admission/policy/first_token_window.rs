//! The first-token window: how many dispatched requests may be without a first token at a time.
//!
//! Little's law gives its size: pending = start rate x time to first token, so a target for that time and the rate are enough. The
//! engine still chooses how many streams it decodes: dispatch stops only while the engine has work waiting, so the window cannot
//! lock below the knee. Where the engine does not queue, starts = W / TTFT > W / ttft_target, and the window grows.
//!
//! Absent: the queue and single requests.

use crate::admission::gate_stats::GateStats;
use crate::admission::limits::FIRST_WINDOW;
use crate::vocabulary::signals::Signals;

/// The window; moves only with evidence.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) struct FirstTokenWindow {
    /// `plim`.
    size: f64,
}

impl FirstTokenWindow {
    pub fn new() -> Self {
        Self { size: FIRST_WINDOW }
    }

    /// Moves only if the window held a request back that still waits: otherwise nothing is proved about its size.
    pub fn on_tick(&mut self, signals: &Signals, gate_stats: &GateStats) {
        if gate_stats.window_bound && gate_stats.queued > 0 {
            let ttft = signals.recent_ttft.max(gate_stats.oldest_pending);
            self.adjust(ttft, signals.start_rate, signals.ttft_target);
        }
    }

    /// `ttft` is the time from dispatch to first token: of the recent requests, or of the oldest pending one if that is longer.
    fn adjust(&mut self, ttft: f64, start_rate: f64, ttft_target: f64) {
        self.size = if ttft < IDLE * ttft_target {
            (1.3 * self.size).max(self.size + 1.0)
        } else {
            let difference = start_rate * ttft_target - self.size;
            self.size + GAIN * difference.clamp(-0.5 * self.size, self.size.max(2.0))
        }
        .clamp(1.0, LARGEST);
    }

    /// Requests; a fraction, because a step can be smaller than one.
    pub fn size(&self) -> f64 {
        self.size
    }
}

/// More pending requests than any engine starts within a target; bounds the effect of a wrong rate.
const LARGEST: f64 = 512.0;
/// Below this share of the target the engine does not queue.
const IDLE: f64 = 0.6;
/// Share of the difference to Little's law applied per tick.
const GAIN: f64 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: f64 = 0.25;

    /// An engine that starts `rate` requests per second, and takes `unloaded` seconds for one without a queue: the
    /// time to first token under a full window after `ticks`.
    fn run(window: &mut FirstTokenWindow, rate: f64, unloaded: f64, ticks: u32) -> f64 {
        let latency = |window: &FirstTokenWindow| (window.size() / rate).max(unloaded);
        for _ in 0..ticks {
            let latency = latency(window);
            window.adjust(latency, window.size() / latency, TARGET);
        }
        latency(window)
    }

    #[test]
    fn it_settles_where_first_tokens_take_the_target_time() {
        for (start, rate) in [(FIRST_WINDOW, 200.0), (FIRST_WINDOW, 1000.0), (400.0, 200.0), (1.0, 40.0)] {
            let mut window = FirstTokenWindow { size: start };
            let latency = run(&mut window, rate, 0.05, 100);
            assert!((latency / TARGET - 1.0).abs() < 0.02, "{start} {rate}: {latency}");
        }
    }

    #[test]
    fn there_is_no_low_fixed_point() {
        for size in [1.0, 1.4, 2.0, 3.0, 10.0] {
            let mut window = FirstTokenWindow { size };
            // It does not queue but is slow: 0.8 of the target even for a single request.
            run(&mut window, 400.0, 0.8 * TARGET, 100);
            assert!((window.size() / (400.0 * TARGET) - 1.0).abs() < 0.02, "from {size}: {}", window.size());
        }
    }

    #[test]
    fn it_opens_fast_without_a_queue_and_closes_with_one() {
        let mut window = FirstTokenWindow::new();
        window.adjust(0.1, 1.0, TARGET);
        assert!((window.size() - 5.2).abs() < 1e-9);
        window.adjust(2.0, 4.0, TARGET);
        assert!((window.size() - 5.2 * 0.85).abs() < 1e-9, "at most by 15 % a tick: {}", window.size());
    }

    #[test]
    fn it_stays_within_its_clamps() {
        let mut window = FirstTokenWindow::new();
        (0..100).for_each(|_| window.adjust(0.0, 1e6, TARGET));
        assert_eq!(window.size(), 512.0);
        (0..100).for_each(|_| window.adjust(9.0, 0.0, TARGET));
        assert_eq!(window.size(), 1.0);
    }
}
