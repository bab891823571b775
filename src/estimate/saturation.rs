//! The five states of a backend's load, and the sentence that explains each change.

use super::detector::TickFindings;
use super::reading::{SaturationState, Transition};
use crate::vocabulary::time::Timestamp;

/// The current state, and why.
#[derive(Clone, Debug)]
pub(super) struct Saturation {
    state: SaturationState,
    since: Timestamp,
    reason: String,
    /// Last time a request waited, in seconds.
    last_waiting: f64,
    /// A closed loop was detected in this episode.
    closed_loop_seen: bool,
}

impl Saturation {
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: SaturationState::Unknown,
            since: now,
            reason: "no traffic seen yet".to_owned(),
            last_waiting: 0.0,
            closed_loop_seen: false,
        }
    }

    /// Judges a tick's findings. `seconds` is the same moment as `at`; `starts` counts first tokens since the start.
    pub fn on_tick(&mut self, at: Timestamp, seconds: f64, findings: &TickFindings, starts: u64) -> Option<Transition> {
        if !findings.is_quiet() {
            self.last_waiting = seconds;
        }
        let quiet = seconds - self.last_waiting;
        self.closed_loop_seen =
            findings.closed_loop.is_detected() || self.closed_loop_seen && self.state == SaturationState::Saturated;
        let next = self.next(findings, starts, quiet);
        if next == self.state {
            return None;
        }
        let transition = Transition { at, from: self.state, to: next, reason: reason(self.state, next, findings) };
        (self.state, self.since, self.reason) = (next, at, transition.reason.clone());
        Some(transition)
    }

    pub fn state(&self) -> SaturationState {
        self.state
    }

    pub fn since(&self) -> Timestamp {
        self.since
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn next(&self, findings: &TickFindings, starts: u64, quiet: f64) -> SaturationState {
        match self.state {
            // * => Saturated
            _ if findings.alarm() => SaturationState::Saturated,
            // Saturated => Recovering
            // Two requests that leave at once restart the count of a closed loop's steps and do not end the loop: it is over
            // when no request waits as long as it did.
            SaturationState::Saturated
                if findings.over() && !(self.closed_loop_seen && findings.waits_as_in_closed_loop()) =>
            {
                SaturationState::Recovering
            }
            SaturationState::Saturated => SaturationState::Saturated,
            // Recovering => Healthy
            SaturationState::Recovering if quiet >= QUIET_AFTER_SATURATION => SaturationState::Healthy,
            SaturationState::Recovering => SaturationState::Recovering,
            // (Healthy | Unknown) => Approaching
            _ if findings.is_waiting() => SaturationState::Approaching,
            // Approaching => Healthy
            SaturationState::Approaching if quiet < QUIET_AFTER_WAITING => SaturationState::Approaching,
            // Unknown => Healthy
            SaturationState::Unknown if starts < ENOUGH_STARTS => SaturationState::Unknown,
            _ => SaturationState::Healthy,
        }
    }
}

fn reason(from: SaturationState, to: SaturationState, findings: &TickFindings) -> String {
    match to {
        SaturationState::Saturated => findings.to_string(),
        SaturationState::Recovering => format!(
            "the surplus of arrivals over starts has fallen to {:.0} requests and the head of the queue waits {:.2} s",
            findings.surplus, findings.head
        ),
        SaturationState::Approaching => format!(
            "the head of the queue waits {:.2} s beyond its baseline ({:.2} s is allowed); {:.0} more requests arrived than \
             could be started ({:.0} is an alarm)",
            findings.head, findings.allowed, findings.surplus, findings.threshold
        ),
        SaturationState::Healthy if from == SaturationState::Unknown => {
            format!("{ENOUGH_STARTS} requests were started without waiting")
        }
        SaturationState::Healthy if from == SaturationState::Recovering => {
            format!("no request has waited for {QUIET_AFTER_SATURATION} s")
        }
        SaturationState::Healthy | SaturationState::Unknown => {
            format!("no request has waited for {QUIET_AFTER_WAITING} s")
        }
    }
}

/// Seconds without waiting that end an episode of saturation.
const QUIET_AFTER_SATURATION: f64 = 3.0;
/// Seconds without waiting that end an approach.
const QUIET_AFTER_WAITING: f64 = 2.0;
/// First tokens before a backend is called healthy.
const ENOUGH_STARTS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::closed_loop::ClosedLoopDetector;

    fn findings(surplus: f64, waiting: f64) -> TickFindings {
        TickFindings {
            drift: 1.2,
            surplus,
            threshold: 16.0,
            waiting,
            closed_loop_waiting: waiting,
            head: waiting,
            allowed: 0.2,
            shed: false,
            closed_loop: ClosedLoopDetector::default(),
        }
    }

    /// Ticks ten times a second; gives the states and when they began.
    fn walk(phases: &[(f64, f64, f64)], starts: u64) -> Vec<(SaturationState, f64)> {
        let mut saturation = Saturation::new(Timestamp::ZERO);
        let (mut now, mut seen) = (0.0, Vec::new());
        for (seconds, surplus, waiting) in phases {
            for _ in 0..(seconds * 10.0) as u32 {
                now += 0.1;
                let at = Timestamp::from_nanos((now * 1e9) as u64);
                if let Some(change) = saturation.on_tick(at, now, &findings(*surplus, *waiting), starts) {
                    assert!(!change.reason.is_empty() && !change.reason.ends_with('.'));
                    seen.push((change.to, now));
                }
            }
        }
        seen
    }

    #[test]
    fn an_overload_goes_through_all_states() {
        let phases = [(2.0, 0.0, 0.0), (1.0, 5.0, 0.6), (2.0, 17.0, 3.0), (2.0, 2.0, 0.3), (5.0, 0.0, 0.0)];
        let states: Vec<SaturationState> = walk(&phases, 100).into_iter().map(|change| change.0).collect();
        assert_eq!(
            states,
            [
                SaturationState::Healthy,
                SaturationState::Approaching,
                SaturationState::Saturated,
                SaturationState::Recovering,
                SaturationState::Healthy
            ]
        );
    }

    #[test]
    fn without_traffic_nothing_is_known() {
        assert!(walk(&[(10.0, 0.0, 0.0)], 3).is_empty());
    }

    #[test]
    fn a_cold_start_into_overload_is_saturated_at_once() {
        assert_eq!(walk(&[(1.0, 17.0, 3.0)], 2)[0].0, SaturationState::Saturated);
    }

    #[test]
    fn one_overload_is_one_episode() {
        let phases = [(2.0, 17.0, 3.0), (2.0, 10.0, 3.0), (2.0, 17.0, 3.0), (2.0, 10.0, 0.2)];
        assert_eq!(walk(&phases, 100).len(), 1);
    }

    /// Eight clients whose number is constant, then changes by more than a closed loop's does, while the head waits just less than
    /// an alarm needs; at the end they wait `waiting` by the closed loop's measure.
    fn states_of_a_closed_loop(waiting: f64) -> Vec<SaturationState> {
        let mut detected = ClosedLoopDetector::default();
        (0..40).for_each(|step| detected.on_change(8 - step % 2));
        let mut saturation = Saturation::new(Timestamp::ZERO);
        let closed_loop =
            |closed_loop, closed_loop_waiting| TickFindings { closed_loop, closed_loop_waiting, ..findings(0.0, 0.0) };
        let ticks = [
            closed_loop(detected, 1.0),
            closed_loop(ClosedLoopDetector::default(), 1.0),
            closed_loop(ClosedLoopDetector::default(), waiting),
        ];
        let tick =
            |(n, findings): (usize, &TickFindings)| saturation.on_tick(Timestamp::ZERO, 0.1 * n as f64, findings, 100);
        ticks.iter().enumerate().filter_map(tick).map(|change| change.to).collect()
    }

    #[test]
    fn a_closed_loop_that_still_waits_is_the_same_episode() {
        assert_eq!(states_of_a_closed_loop(1.0), [SaturationState::Saturated]);
    }

    #[test]
    fn a_closed_loop_that_no_longer_waits_is_over() {
        assert_eq!(states_of_a_closed_loop(0.0), [SaturationState::Saturated, SaturationState::Recovering]);
    }

    #[test]
    fn recovery_takes_three_quiet_seconds() {
        let seen = walk(&[(1.0, 17.0, 3.0), (1.0, 0.0, 0.1), (10.0, 0.0, 0.0)], 100);
        let (recovering, healthy) = (seen[1], seen[2]);
        assert_eq!((recovering.0, healthy.0), (SaturationState::Recovering, SaturationState::Healthy));
        assert!((healthy.1 - 5.0).abs() < 0.25, "{healthy:?}");
    }
}
