//! The first-token window: how many dispatched requests may be without a first token at a time.
//!
//! Little's law on that stage gives it: pending = start rate x time to first token. Whoever aims at a time knows the window
//! from the rate. The engine keeps choosing how many it decodes; dispatch stops only while it has work waiting, so the
//! window cannot lock below the knee: where the engine does not queue, starts = W / TTFT > W / ttft_target, and the window grows.
//! It knows no queue and no request.

use crate::admission::FIRST_WINDOW;

/// The window; moves only with evidence.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) struct FirstTokenWindow {
    /// `plim`.
    size: f64,
}

/// The first-token stage, seen at a tick.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) struct StageView {
    /// Seconds from dispatch to first token: recent ones, or of who has waited longest if that is more.
    pub latency: f64,
    /// First tokens per second.
    pub start_rate: f64,
    /// The time from dispatch to first token that is aimed at, `T_goal`, in seconds.
    pub ttft_target: f64,
}

impl FirstTokenWindow {
    pub fn new() -> Self {
        Self { size: FIRST_WINDOW }
    }

    /// A tick at which somebody waits whom the window has refused since the last one. Without that nothing is proved about
    /// its size, and it must not be called.
    pub fn on_refusal(&mut self, seen: &StageView) {
        self.size = if seen.latency < IDLE * seen.ttft_target {
            (1.3 * self.size).max(self.size + 1.0)
        } else {
            let off = seen.start_rate * seen.ttft_target - self.size;
            self.size + GAIN * off.clamp(-0.5 * self.size, self.size.max(2.0))
        }
        .clamp(1.0, LARGEST);
    }

    /// Requests, in parts: it moves by less than one.
    pub fn size(&self) -> f64 {
        self.size
    }
}

/// More pending requests than any engine takes in within a ttft_target; bounds what a wrong rate can do.
const LARGEST: f64 = 512.0;
/// Below this share of the ttft_target the engine is not queueing.
const IDLE: f64 = 0.6;
/// Share of the way to Little's law taken at a tick.
const GAIN: f64 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    const GOAL: f64 = 0.25;

    /// An engine that starts `rate` requests per second, and takes `free` seconds for one without a queue: what a full window
    /// sees of it after `ticks`.
    fn run(window: &mut FirstTokenWindow, rate: f64, free: f64, ticks: u32) -> f64 {
        let latency = |window: &FirstTokenWindow| (window.size() / rate).max(free);
        for _ in 0..ticks {
            let latency = latency(window);
            window.on_refusal(&StageView { latency, start_rate: window.size() / latency, ttft_target: GOAL });
        }
        latency(window)
    }

    #[test]
    fn it_settles_where_first_tokens_take_the_goal() {
        for (start, rate) in [(FIRST_WINDOW, 200.0), (FIRST_WINDOW, 1000.0), (400.0, 200.0), (1.0, 40.0)] {
            let mut window = FirstTokenWindow { size: start };
            let latency = run(&mut window, rate, 0.05, 100);
            assert!((latency / GOAL - 1.0).abs() < 0.02, "{start} {rate}: {latency}");
        }
    }

    #[test]
    fn there_is_no_low_fixed_point() {
        for size in [1.0, 1.4, 2.0, 3.0, 10.0] {
            let mut window = FirstTokenWindow { size };
            // Not queueing, but slow: 0.8 of the ttft_target even for one alone.
            run(&mut window, 400.0, 0.8 * GOAL, 100);
            assert!((window.size() / (400.0 * GOAL) - 1.0).abs() < 0.02, "from {size}: {}", window.size());
        }
    }

    #[test]
    fn an_engine_that_does_not_queue_opens_it_fast_and_one_that_does_closes_it() {
        let mut window = FirstTokenWindow::new();
        window.on_refusal(&StageView { latency: 0.1, start_rate: 1.0, ttft_target: GOAL });
        assert!((window.size() - 5.2).abs() < 1e-9);
        window.on_refusal(&StageView { latency: 2.0, start_rate: 4.0, ttft_target: GOAL });
        assert!((window.size() - 5.2 * 0.85).abs() < 1e-9, "at most by 15 % a tick: {}", window.size());
    }

    #[test]
    fn it_stays_within_its_clamps() {
        let mut window = FirstTokenWindow::new();
        (0..100).for_each(|_| window.on_refusal(&StageView { latency: 0.0, start_rate: 1e6, ttft_target: GOAL }));
        assert_eq!(window.size(), 512.0);
        (0..100).for_each(|_| window.on_refusal(&StageView { latency: 9.0, start_rate: 0.0, ttft_target: GOAL }));
        assert_eq!(window.size(), 1.0);
    }
}
