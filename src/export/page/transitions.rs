//! The last state transitions of all backends, recorded once a second from the published readings.
//!
//! The journal and the log have all of them; these are for a page that is opened later.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use crate::estimate::{Reading, SaturationState};
use crate::export::ProcessState;
use crate::vocabulary::backend_id::BackendId;

/// The last transitions, newest first.
#[derive(Debug, Default)]
pub struct TransitionLog {
    recorded: VecDeque<PageTransition>,
    states: HashMap<Box<str>, SaturationState>,
}

/// One transition.
#[derive(Clone, Debug, PartialEq)]
struct PageTransition {
    /// Unix time, in seconds.
    at: f64,
    backend: Box<str>,
    from: SaturationState,
    to: SaturationState,
    reason: String,
}

impl TransitionLog {
    /// Records the transitions since the last call; `true`: there was one.
    pub fn record<'a>(&mut self, names: impl Iterator<Item = (BackendId, &'a str)>, process: &ProcessState) -> bool {
        let estimate = |id: BackendId| process.estimates.get(id.index())?.as_ref();
        let readings: Vec<_> = names.filter_map(|(id, name)| Some((name, &estimate(id)?.reading))).collect();
        // A removed backend is forgotten, so that changing names do not use more and more memory.
        self.states.retain(|known, _| readings.iter().any(|(name, _)| **known == **name));
        let mut changed = false;
        for (name, reading) in readings {
            changed |= self.on_reading(name, reading, process.epoch);
        }
        changed
    }

    /// A JSON list, newest first.
    pub fn describe(&self) -> Value {
        let describe = |transition: &PageTransition| {
            let PageTransition { at, backend, from, to, reason } = transition;
            json!({ "at": at, "backend": backend, "from": from.word(), "to": to.word(), "reason": reason })
        };
        self.recorded.iter().map(describe).collect()
    }

    fn on_reading(&mut self, name: &str, reading: &Reading, epoch: f64) -> bool {
        let from = self.states.get(name).copied().unwrap_or_default();
        if from == reading.state {
            return false;
        }
        self.states.insert(name.into(), reading.state);
        let at = epoch + reading.since.as_secs_f64();
        let transition =
            PageTransition { at, backend: name.into(), from, to: reading.state, reason: reading.reason.clone() };
        self.recorded.push_front(transition);
        self.recorded.truncate(KEPT);
        true
    }
}

/// One or two screens.
const KEPT: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{EngineLimits, Estimator, Settings};
    use crate::export::saturation::BackendEstimate;
    use crate::vocabulary::time::Timestamp;

    fn process(state: SaturationState, second: u64) -> ProcessState {
        let settings = Settings { slo_ttft: std::time::Duration::from_secs(1), engine: EngineLimits::default() };
        let mut reading = Estimator::new(settings, Timestamp::ZERO).reading();
        (reading.state, reading.since) = (state, Timestamp::from_nanos(second * 1_000_000_000));
        reading.reason = format!("since second {second}");
        ProcessState {
            epoch: 100.0,
            estimates: vec![None, Some(BackendEstimate { reading, lost: 0, late: 0 })],
            ..ProcessState::default()
        }
    }

    fn record(log: &mut TransitionLog, state: SaturationState, second: u64) -> bool {
        log.record([(BackendId(0), "gpu-0"), (BackendId(1), "gpu-1")].into_iter(), &process(state, second))
    }

    #[test]
    fn a_transition_is_recorded_once() {
        let mut log = TransitionLog::default();
        assert!(!record(&mut log, SaturationState::Unknown, 0), "it begins unknown");
        assert!(record(&mut log, SaturationState::Healthy, 2));
        assert!(!record(&mut log, SaturationState::Healthy, 2));
        assert!(record(&mut log, SaturationState::Saturated, 9));
        let described = log.describe();
        assert_eq!(described.as_array().unwrap().len(), 2);
        let newest = json!({
            "at": 109.0, "backend": "gpu-1", "from": "healthy", "to": "saturated", "reason": "since second 9",
        });
        assert_eq!(described[0], newest);
    }

    #[test]
    fn a_backend_that_flaps_for_a_day_fills_no_memory() {
        let mut log = TransitionLog::default();
        for second in 0..86_400 {
            let state = if second % 2 == 0 { SaturationState::Healthy } else { SaturationState::Approaching };
            record(&mut log, state, second);
        }
        assert_eq!((log.recorded.len(), log.states.len()), (KEPT, 1));
        assert_eq!(log.describe()[0]["reason"], "since second 86399");
    }
}
