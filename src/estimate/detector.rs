//! Saturated or not: a sequential test on counts, together with a request that waits.
//!
//! A bank of CUSUMs (Page, 1954) on arrivals minus first tokens: "N more requests arrived than could be started, against a drift
//! of 10 to 50 %, and the head of the queue waits". All thresholds follow from one false-alarm figure. The waiting alone
//! proves nothing (a long prompt ahead), the counts alone prove nothing (a burst that is absorbed); together they do. Clients
//! that wait for an answer before they send again make no surplus; the [`ClosedLoopDetector`] finds them.

use std::fmt;

use super::closed_loop::ClosedLoopDetector;

/// The test's state: a handful of floats, four additions an event.
#[derive(Clone, Debug)]
pub(super) struct Detector {
    /// `C_k`: requests that arrived and could not be started, against a drift of k.
    surplus: [f64; DRIFTS.len()],
    /// `h_k`: the surplus that is an alarm.
    thresholds: [f64; DRIFTS.len()],
    /// `S`: seconds that the head of the queue waited above what is allowed.
    waiting: f64,
    /// `S'`, the same above half of what is allowed: a constant number is evidence of its own, so that less waiting is needed.
    closed_loop_waiting: f64,
    /// How long the head of the queue waits beyond its baseline, and how long it may.
    head: f64,
    allowed: f64,
    shed: bool,
    closed_loop: ClosedLoopDetector,
}

/// The evidence at one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TickFindings {
    /// The strongest of the bank: its drift, surplus and threshold.
    pub drift: f64,
    pub surplus: f64,
    pub threshold: f64,
    /// `S`, in seconds.
    pub waiting: f64,
    /// `S'`, the same above half of what is allowed.
    pub closed_loop_waiting: f64,
    /// Waiting of the head of the queue beyond its baseline, in seconds.
    pub head: f64,
    /// What it may wait, in seconds.
    pub allowed: f64,
    /// Requests were refused since the last tick.
    pub shed: bool,
    /// The number of requests in the system while one waits.
    pub closed_loop: ClosedLoopDetector,
}

impl Detector {
    pub fn new() -> Self {
        Self {
            surplus: [0.0; DRIFTS.len()],
            thresholds: DRIFTS.map(threshold),
            waiting: 0.0,
            closed_loop_waiting: 0.0,
            head: 0.0,
            allowed: 0.0,
            shed: false,
            closed_loop: ClosedLoopDetector::default(),
        }
    }

    /// A request arrived.
    pub fn on_arrival(&mut self) {
        for (surplus, threshold) in self.surplus.iter_mut().zip(self.thresholds) {
            // Bounded, so that a long overload does not delay the recovery.
            *surplus = (*surplus + 1.0).min(2.0 * threshold);
        }
    }

    /// A request was started: its first token arrived.
    pub fn on_first_token(&mut self) {
        for (surplus, drift) in self.surplus.iter_mut().zip(DRIFTS) {
            *surplus = (*surplus - drift).max(0.0);
        }
    }

    /// A request arrived or left; `in_system` are in the system now, dispatched or not.
    pub fn on_change(&mut self, in_system: u64) {
        if self.closed_loop_waiting > 0.0 && in_system > 0 {
            self.closed_loop.on_change(in_system);
        } else {
            self.closed_loop.on_quiet();
        }
    }

    /// A request was refused: it would be waiting if it had been admitted.
    pub fn on_shed(&mut self) {
        self.shed = true;
    }

    /// `elapsed` seconds passed; the head of the queue waits `head` seconds beyond its baseline and may wait `allowed`.
    pub fn on_tick(&mut self, elapsed: f64, head: f64, allowed: f64) -> TickFindings {
        let mut ratio = head / allowed.max(1e-6);
        if self.shed {
            ratio = ratio.max(2.0);
        }
        self.waiting = (self.waiting + elapsed * (ratio.min(STEEPEST) - 1.0)).clamp(0.0, LONGEST);
        self.closed_loop_waiting =
            (self.closed_loop_waiting + elapsed * ((2.0 * ratio).min(STEEPEST) - 1.0)).clamp(0.0, LONGEST);
        (self.head, self.allowed) = (head, allowed);
        if self.closed_loop_waiting == 0.0 {
            self.closed_loop.on_quiet();
        }
        let findings = self.findings();
        self.shed = false;
        findings
    }

    fn findings(&self) -> TickFindings {
        let ratio = |index: &usize| self.surplus[*index] / self.thresholds[*index];
        let strongest = (0..DRIFTS.len()).max_by(|a, b| ratio(a).total_cmp(&ratio(b))).unwrap_or(0);
        TickFindings {
            drift: DRIFTS[strongest],
            surplus: self.surplus[strongest],
            threshold: self.thresholds[strongest],
            waiting: self.waiting,
            closed_loop_waiting: self.closed_loop_waiting,
            head: self.head,
            allowed: self.allowed,
            shed: self.shed,
            closed_loop: self.closed_loop,
        }
    }
}

impl TickFindings {
    /// Evidence of saturation in units of the alarm, `max_k C_k / h_k`.
    pub fn evidence(&self) -> f64 {
        self.surplus / self.threshold
    }

    /// Enough surplus or a closed loop, and a request waits.
    pub fn alarm(&self) -> bool {
        (self.evidence() >= 1.0 && self.waiting >= WAITING)
            || (self.closed_loop.is_detected() && self.waits_as_in_closed_loop())
    }

    /// A request waits as long as a closed loop needs for an alarm.
    pub fn waits_as_in_closed_loop(&self) -> bool {
        self.closed_loop_waiting >= WAITING
    }

    /// Neither surplus, nor closed loop, nor waiting.
    pub fn over(&self) -> bool {
        self.evidence() < 0.5 && !self.closed_loop.is_detected() && self.waiting <= WAITING
    }

    /// A request waits longer than it may.
    pub fn is_waiting(&self) -> bool {
        self.waiting > WAITING
    }

    /// No request has waited for a while.
    pub fn is_quiet(&self) -> bool {
        self.waiting == 0.0
    }
}

impl fmt::Display for TickFindings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.evidence() < 1.0 && self.closed_loop.is_detected() {
            let (low, high, steps) = self.closed_loop.extent();
            write!(out, "{low} to {high} requests were in the system all the time while {steps} arrived or left")?;
        } else {
            write!(
                out,
                "{:.0} more requests arrived than could be started ({:.0} is an alarm, against a drift of {:.0} %)",
                self.surplus,
                self.threshold,
                (self.drift - 1.0) * 100.0,
            )?;
        }
        let (head, allowed) = (self.head, self.allowed);
        write!(out, ", the head of the queue waits {head:.2} s beyond its baseline ({allowed:.2} s is allowed)")?;
        if self.shed { out.write_str(", requests are being shed") } else { Ok(()) }
    }
}

/// `h = LAMBDA / theta`, where theta is the positive root of `rho (e^theta - 1) = 1 - e^(-k theta)`: the Lundberg exponent of
/// the surplus for Poisson arrivals and starts at load rho. Per busy cycle P(alarm) <= e^-LAMBDA.
fn threshold(drift: f64) -> f64 {
    let (mut low, mut high) = (1e-4, 5.0);
    for _ in 0..60 {
        let theta: f64 = 0.5 * (low + high);
        if LOAD * theta.exp_m1() > -(-drift * theta).exp_m1() {
            high = theta;
        } else {
            low = theta;
        }
    }
    LAMBDA / low
}

/// Drifts the bank looks for: 10 to 50 % more arrivals than starts.
const DRIFTS: [f64; 4] = [1.1, 1.2, 1.35, 1.5];
/// The load at which a false alarm is bounded.
const LOAD: f64 = 0.7;
/// One false alarm in e^8 busy cycles at that load.
const LAMBDA: f64 = 8.0;
/// Seconds above what is allowed from which on a request counts as waiting.
const WAITING: f64 = 0.5;
/// In units of what is allowed: a longer wait of the head counts no more than this ...
const STEEPEST: f64 = 3.0;
/// ... and no more than this many seconds are remembered.
const LONGEST: f64 = 6.0;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Exp1};

    use super::*;

    #[test]
    fn thresholds_follow_from_the_formula() {
        let found = Detector::new().thresholds;
        for (found, expected) in found.into_iter().zip([18.5, 16.2, 14.1, 12.8]) {
            assert!((found - expected).abs() < 0.05, "{found} instead of {expected}");
        }
    }

    /// Poisson arrivals at `load` into one server of rate 1 for `seconds`; returns the moments of alarm.
    fn alarms(load: f64, seconds: f64, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |rate: f64| -> f64 {
            let unit: f64 = Exp1.sample(&mut rng);
            unit / rate
        };
        let mut detector = Detector::new();
        let (mut arrival, mut start, mut tick) = (draw(load), f64::INFINITY, 0.1);
        let mut queue = std::collections::VecDeque::new();
        let mut found: Vec<f64> = Vec::new();
        let mut saturated = false;
        while tick < seconds {
            if arrival <= start.min(tick) {
                detector.on_arrival();
                queue.push_back(arrival);
                if queue.len() == 1 {
                    start = arrival + draw(1.0);
                }
                arrival += draw(load);
            } else if start <= tick {
                detector.on_first_token();
                queue.pop_front();
                start = if queue.is_empty() { f64::INFINITY } else { start + draw(1.0) };
            } else {
                let head = queue.front().map_or(0.0, |arrived| tick - arrived);
                let findings = detector.on_tick(0.1, head, 2.0);
                if findings.alarm() && !saturated {
                    found.push(tick);
                }
                saturated = findings.alarm() || (saturated && !findings.over());
                tick += 0.1;
            }
        }
        found
    }

    #[test]
    fn twice_the_capacity_is_found_within_forty_service_times() {
        for seed in 0..20 {
            let found = alarms(2.0, 60.0, seed);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0] < 40.0, "{found:?}");
        }
    }

    #[test]
    fn half_the_capacity_never_alarms() {
        assert_eq!(alarms(0.5, 100_000.0, 1), [0.0; 0]);
    }

    /// At a load of 0.7 a busy cycle takes 1/0.3 + 1/0.7 service times, so 100,000 are 21,000 cycles. The bound e^-8 a cycle
    /// is one drift's; the bank of four shares most of its alarms.
    #[test]
    fn at_seven_tenths_the_bound_holds() {
        let found = alarms(0.7, 100_000.0, 2);
        assert!(found.len() <= 21, "{} alarms", found.len());
    }

    #[test]
    fn a_surplus_without_waiting_is_no_alarm() {
        let mut detector = Detector::new();
        (0..100).for_each(|_| detector.on_arrival());
        let findings = (0..100).map(|_| detector.on_tick(0.1, 0.1, 1.0)).last().unwrap();
        assert!(findings.evidence() > 1.0 && !findings.alarm());
    }

    #[test]
    fn waiting_without_a_surplus_is_no_alarm() {
        let mut detector = Detector::new();
        detector.on_arrival();
        let findings = (0..100).map(|_| detector.on_tick(0.1, 9.0, 1.0)).last().unwrap();
        assert!(findings.is_waiting() && !findings.alarm());
    }

    #[test]
    fn a_closed_loop_is_an_alarm_only_while_a_request_waits() {
        let mut detector = Detector::new();
        let mut tick = |head: f64| {
            for _ in 0..3 {
                detector.on_change(7);
                detector.on_change(8);
            }
            detector.on_tick(0.1, head, 0.1)
        };
        assert!(!(0..100).map(|_| tick(0.04)).any(|findings| findings.alarm()), "eight that are served at once");
        let found = (0..100).position(|_| tick(0.09).alarm());
        assert!(found.is_some_and(|ticks| ticks < 20), "{found:?}");
        assert!(tick(0.17).to_string().starts_with("7 to 8 requests were in the system"));
        assert!((0..30).any(|_| tick(0.0).over()));
    }

    #[test]
    fn shedding_counts_as_waiting() {
        let mut detector = Detector::new();
        (0..100).for_each(|_| detector.on_arrival());
        let findings = (0..10).map(|_| {
            detector.on_shed();
            detector.on_tick(0.1, 0.0, 1.0)
        });
        assert!(findings.last().unwrap().alarm());
    }

    #[test]
    fn an_episode_ends_once_the_surplus_is_gone() {
        let mut detector = Detector::new();
        (0..100).for_each(|_| detector.on_arrival());
        (0..20).for_each(|_| {
            detector.on_tick(0.1, 9.0, 1.0);
        });
        (0..40).for_each(|_| detector.on_first_token());
        let findings = (0..80).map(|_| detector.on_tick(0.1, 0.0, 1.0)).last().unwrap();
        assert!(findings.over() && findings.is_quiet());
    }
}
