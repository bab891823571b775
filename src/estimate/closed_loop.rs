//! A closed loop: a constant number of requests in the system, of which at least one waits.
//!
//! Clients that send the next request when the last one is answered never arrive faster than they are served, so a surplus of
//! arrivals never builds up, however long they wait. The sign of them is that their number is constant. Independent arrivals make
//! it a random walk, which stays among R + 2 values for s steps with a probability of about exp(-s pi^2 / 2 (R + 2)^2), the
//! slowest mode of diffusion between absorbing ends; a stay for which this is below e^-16 is no accident.

/// The range of the number of requests in the system since a request began to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ClosedLoopDetector {
    low: u64,
    high: u64,
    steps: u64,
}

impl ClosedLoopDetector {
    /// A request arrived or left, and `in_system` are in the system now, dispatched or not.
    pub fn on_change(&mut self, in_system: u64) {
        let (low, high) = (self.low.min(in_system), self.high.max(in_system));
        if self.steps == 0 || high - low > (high / WIDEST).max(NARROWEST) {
            *self = Self { low: in_system, high: in_system, steps: 1 };
        } else {
            *self = Self { low, high, steps: self.steps + 1 };
        }
    }

    /// No request waits.
    pub fn on_quiet(&mut self) {
        self.steps = 0;
    }

    /// The number is constant, and not by accident.
    pub fn is_detected(&self) -> bool {
        let values = (self.high - self.low + 2) as f64;
        self.steps as f64 >= 2.0 * SURE * (values / std::f64::consts::PI).powi(2)
    }

    /// The smallest and the largest number of requests, and how many arrived or left meanwhile.
    pub fn extent(&self) -> (u64, u64, u64) {
        (self.low, self.high, self.steps)
    }
}

/// One accident in e^16 starts of the count: less than one in a day of 1,000 requests a second.
const SURE: f64 = 16.0;
/// In a closed loop the number changes by what ends at the same moment and is not replaced yet: two of a few, a tenth of many.
const NARROWEST: u64 = 2;
const WIDEST: u64 = 10;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn clients_that_send_when_served_are_a_loop_after_15_rounds() {
        for clients in [3, 8, 40, 500] {
            let mut closed_loop = ClosedLoopDetector::default();
            let rounds = (1..).find(|_| {
                closed_loop.on_change(clients - 1);
                closed_loop.on_change(clients);
                closed_loop.is_detected()
            });
            assert_eq!(rounds, Some(15), "one ends, one comes: the same for any number");
            assert_eq!(closed_loop.extent(), (clients - 1, clients, 30));
        }
    }

    #[test]
    fn independent_arrivals_are_no_closed_loop() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for start in [5_u64, 30, 400] {
            let (mut closed_loop, mut in_system) = (ClosedLoopDetector::default(), start);
            for _ in 0..2_000_000 {
                in_system = if in_system == 0 || rng.random_bool(0.5) { in_system + 1 } else { in_system - 1 };
                if in_system == 0 {
                    closed_loop.on_quiet();
                } else {
                    closed_loop.on_change(in_system);
                }
                assert!(!closed_loop.is_detected(), "{:?}", closed_loop.extent());
            }
        }
    }

    #[test]
    fn a_constant_number_proves_nothing_while_no_request_waits() {
        let mut closed_loop = ClosedLoopDetector::default();
        for _ in 0..1_000 {
            (0..10).for_each(|step| closed_loop.on_change(8 - step % 2));
            closed_loop.on_quiet();
            assert!(!closed_loop.is_detected());
        }
    }
}
