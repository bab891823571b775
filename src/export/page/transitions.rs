//! The last changes of state of every backend, in words, noted once a second from what is published.
//!
//! The journal and the log have all of them; this is what a page that was opened late can still show.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use crate::estimate::{Reading, SaturationState};
use crate::export::ProcessState;
use crate::vocabulary::backend_id::BackendId;

/// The last changes, newest first.
#[derive(Debug, Default)]
pub struct Turns {
    noted: VecDeque<PageTransition>,
    stands: HashMap<Box<str>, SaturationState>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
struct PageTransition {
    /// Unix time, in seconds.
    at: f64,
    backend: Box<str>,
    from: SaturationState,
    to: SaturationState,
    reason: String,
}

impl Turns {
    /// Notes what changed since the last call; `names` are the backends in the order of the facts. Whether anything did.
    pub fn on_facts<'a>(&mut self, names: impl Iterator<Item = (BackendId, &'a str)>, facts: &ProcessState) -> bool {
        let judged = |place: BackendId| facts.judged.get(place.index())?.as_ref();
        let judged: Vec<_> = names.filter_map(|(place, name)| Some((name, &judged(place)?.reading))).collect();
        // A backend that is gone and comes back begins anew, and names that come and go do not pile up.
        self.stands.retain(|stood, _| judged.iter().any(|(name, _)| **stood == **name));
        let mut changed = false;
        for (name, reading) in judged {
            changed |= self.on_reading(name, reading, facts.epoch);
        }
        changed
    }

    /// A JSON list, newest first.
    pub fn describe(&self) -> Value {
        let describe = |turn: &PageTransition| {
            let PageTransition { at, backend, from, to, reason } = turn;
            json!({ "at": at, "backend": backend, "from": from.word(), "to": to.word(), "reason": reason })
        };
        self.noted.iter().map(describe).collect()
    }

    fn on_reading(&mut self, name: &str, reading: &Reading, epoch: f64) -> bool {
        let from = self.stands.get(name).copied().unwrap_or_default();
        if from == reading.state {
            return false;
        }
        self.stands.insert(name.into(), reading.state);
        let at = epoch + reading.since.as_secs_f64();
        let turn = PageTransition { at, backend: name.into(), from, to: reading.state, reason: reading.reason.clone() };
        self.noted.push_front(turn);
        self.noted.truncate(KEPT);
        true
    }
}

/// What fits a screen or two.
const KEPT: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{EngineLimits, Estimator, Settings};
    use crate::export::saturation::BackendEstimate;
    use crate::vocabulary::time::Timestamp;

    fn facts(state: SaturationState, second: u64) -> ProcessState {
        let settings = Settings { slo_ttft: std::time::Duration::from_secs(1), engine: EngineLimits::default() };
        let mut reading = Estimator::new(settings, Timestamp::ZERO).reading();
        (reading.state, reading.since) = (state, Timestamp::from_nanos(second * 1_000_000_000));
        reading.reason = format!("since second {second}");
        ProcessState {
            epoch: 100.0,
            judged: vec![None, Some(BackendEstimate { reading, lost: 0, late: 0 })],
            ..ProcessState::default()
        }
    }

    fn noted(turns: &mut Turns, state: SaturationState, second: u64) -> bool {
        turns.on_facts([(BackendId(0), "gpu-0"), (BackendId(1), "gpu-1")].into_iter(), &facts(state, second))
    }

    #[test]
    fn a_change_is_noted_once_with_its_reason_and_its_backend() {
        let mut turns = Turns::default();
        assert!(!noted(&mut turns, SaturationState::Unknown, 0), "it begins unknown");
        assert!(noted(&mut turns, SaturationState::Healthy, 2));
        assert!(!noted(&mut turns, SaturationState::Healthy, 2));
        assert!(noted(&mut turns, SaturationState::Saturated, 9));
        let told = turns.describe();
        assert_eq!(told.as_array().unwrap().len(), 2);
        let newest = json!({
            "at": 109.0, "backend": "gpu-1", "from": "healthy", "to": "saturated", "reason": "since second 9",
        });
        assert_eq!(told[0], newest);
    }

    #[test]
    fn a_backend_that_flaps_for_a_day_fills_no_memory() {
        let mut turns = Turns::default();
        for second in 0..86_400 {
            let state = if second % 2 == 0 { SaturationState::Healthy } else { SaturationState::Approaching };
            noted(&mut turns, state, second);
        }
        assert_eq!((turns.noted.len(), turns.stands.len()), (KEPT, 1));
        assert_eq!(turns.describe()[0]["reason"], "since second 86399");
    }
}
