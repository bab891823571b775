//! A standing closed loop: as many requests in the system all the time, and somebody of them waits.
//!
//! Clients who send the next request when the last is answered never arrive faster than they are served, so a surplus of
//! arrivals never builds up, however long they wait. What gives them away is that their number stands still. Arrivals that know
//! nothing of each other make it a random walk, which stays among R + 2 places for s steps with a probability of about
//! exp(-s pi^2 / 2 (R + 2)^2); so long a stay that this is e^-16 is no accident.

/// How the number of requests in the system has moved since somebody began to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ClosedLoopDetector {
    low: u64,
    high: u64,
    steps: u64,
}

impl ClosedLoopDetector {
    /// Somebody came or went, and `in_system` are there now, dispatched or not.
    pub fn on_step(&mut self, in_system: u64) {
        let (low, high) = (self.low.min(in_system), self.high.max(in_system));
        if self.steps == 0 || high - low > (high / WIDEST).max(NARROWEST) {
            *self = Self { low: in_system, high: in_system, steps: 1 };
        } else {
            *self = Self { low, high, steps: self.steps + 1 };
        }
    }

    /// Nobody waits.
    pub fn on_quiet(&mut self) {
        self.steps = 0;
    }

    /// Their number stands still, and not by accident.
    pub fn stands(&self) -> bool {
        let places = (self.high - self.low + 2) as f64;
        self.steps as f64 >= 2.0 * SURE * (places / std::f64::consts::PI).powi(2)
    }

    /// The fewest and the most of them, and how many have come or gone meanwhile.
    pub fn extent(&self) -> (u64, u64, u64) {
        (self.low, self.high, self.steps)
    }
}

/// One accident in e^16 beginnings: less than one in a day of a thousand requests a second.
const SURE: f64 = 16.0;
/// A closed loop moves by what ends at the same moment and is not replaced yet: two of a few, a tenth of many.
const NARROWEST: u64 = 2;
const WIDEST: u64 = 10;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn clients_that_send_when_they_are_served_are_a_crowd_after_a_few_rounds() {
        for clients in [3, 8, 40, 500] {
            let mut closed_loop = ClosedLoopDetector::default();
            let rounds = (1..).find(|_| {
                closed_loop.on_step(clients - 1);
                closed_loop.on_step(clients);
                closed_loop.stands()
            });
            assert_eq!(rounds, Some(15), "one ends, one comes: the same for any number");
            assert_eq!(closed_loop.extent(), (clients - 1, clients, 30));
        }
    }

    #[test]
    fn arrivals_that_know_nothing_of_each_other_are_none() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        for start in [5_u64, 30, 400] {
            let (mut closed_loop, mut in_system) = (ClosedLoopDetector::default(), start);
            for _ in 0..2_000_000 {
                in_system = if in_system == 0 || dice.random_bool(0.5) { in_system + 1 } else { in_system - 1 };
                if in_system == 0 {
                    closed_loop.on_quiet();
                } else {
                    closed_loop.on_step(in_system);
                }
                assert!(!closed_loop.stands(), "{:?}", closed_loop.extent());
            }
        }
    }

    #[test]
    fn a_number_that_stands_still_proves_nothing_while_nobody_waits() {
        let mut closed_loop = ClosedLoopDetector::default();
        for _ in 0..1_000 {
            (0..10).for_each(|step| closed_loop.on_step(8 - step % 2));
            closed_loop.on_quiet();
            assert!(!closed_loop.stands());
        }
    }
}
