//! The end of the demonstration: weir's estimates beside the known truth of the simulated engine.
//!
//! weir's configuration holds the engine's limits, as an operator would set them, and neither its speed nor its capacity.

use std::fmt::Write as _;

use crate::engine::profile::Profile;
use crate::estimate::{Estimate, Prediction, Reading, SaturationState, StepCosts};
use crate::vocabulary::time::Timestamp;

/// Watches the readings go by.
#[derive(Debug, Default)]
pub struct Witness {
    changes: Vec<StateChange>,
    /// The last prediction before the first knee, and when it was made.
    predicted: Option<(Timestamp, Prediction)>,
    last: Option<Reading>,
}

/// A change of state that was seen.
#[derive(Debug)]
struct StateChange {
    at: Timestamp,
    to: SaturationState,
    reason: String,
}

impl Witness {
    /// A reading at `now`. Readings are published at every change of state, so looking often enough misses none.
    pub fn on_reading(&mut self, reading: Reading, now: Timestamp) {
        if self.last.as_ref().is_none_or(|last| last.since != reading.since || last.state != reading.state) {
            self.changes.push(StateChange { at: reading.since, to: reading.state, reason: reading.reason.clone() });
        }
        if reading.knee.is_err()
            && let Ok(prediction) = reading.prediction
        {
            self.predicted = Some((now, prediction));
        }
        self.last = Some(reading);
    }

    /// The last reading.
    pub fn last(&self) -> Option<&Reading> {
        self.last.as_ref()
    }

    /// Everything that was found out, against the truth of an engine that runs `speed` times as fast as its profile.
    pub fn verdict(&self, profile: &Profile, speed: f64) -> String {
        let mut out = String::from("verdict\n");
        // Writing into a String cannot fail.
        let _ = self.write(&mut out, profile, speed);
        out
    }

    fn write(&self, out: &mut String, profile: &Profile, speed: f64) -> std::fmt::Result {
        for change in &self.changes {
            let seconds = change.at.as_secs_f64();
            writeln!(out, "  {seconds:>6.1} s  {:<12} {}", change.to.word(), change.reason)?;
        }
        let Some(reading) = &self.last else { return writeln!(out, "  no reading") };
        let (capacity, in_flight) = (profile.capacity * speed, profile.saturated_decodes);
        match &reading.knee {
            Ok(knee) => {
                let rate = knee.requests_per_second;
                let (blocks, regime) = (knee.blocks, knee.regime.word());
                writeln!(out, "  knee       {} req/s from {blocks} saturated blocks, bound by {regime}", spread(rate))?;
                writeln!(
                    out,
                    "             {} in flight, {} tok/s",
                    spread(knee.in_flight),
                    spread(knee.tokens_per_second)
                )?;
                writeln!(
                    out,
                    "  truth      {capacity:.2} req/s, {in_flight:.0} in flight: error {}, {} the interval",
                    off(rate.value, capacity),
                    if rate.covers(capacity) { "inside" } else { "outside" },
                )?;
            }
            Err(missing) => writeln!(out, "  knee       {missing}; truth {capacity:.2} req/s")?,
        }
        match (&self.predicted, &reading.prediction) {
            (Some((at, prediction)), _) => {
                let (rate, seconds) = (prediction.requests_per_second, at.as_secs_f64());
                let bound = if prediction.at_most { "at most " } else { "" };
                let error = off(rate.value, capacity);
                writeln!(
                    out,
                    "  predicted  {bound}{} req/s at {seconds:.0} s, before any knee: error {error}",
                    spread(rate)
                )?;
            }
            (None, Err(missing)) => writeln!(out, "  predicted  nothing: {missing}")?,
            (None, Ok(_)) => writeln!(out, "  predicted  nothing before the knee was seen")?,
        }
        if let Some(StepCosts { step, decode, prefill_token }) = reading.costs {
            let truth = profile.setup.params;
            writeln!(
                out,
                "  a step     {} + {} a decode + {} a prompt token",
                beside(step, truth.base / speed),
                beside(decode, truth.per_decode / speed),
                beside(prefill_token, truth.per_prefill_token / speed),
            )?;
        }
        Ok(())
    }
}

fn spread(estimate: Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    let digits = if value >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$} ({low:.digits$} to {high:.digits$})")
}

fn off(value: f64, truth: f64) -> String {
    format!("{:+.1} %", (value / truth - 1.0) * 100.0)
}

fn beside(seconds: f64, truth: f64) -> String {
    format!("{:.3} ms (true {:.3})", seconds * 1e3, truth * 1e3)
}
