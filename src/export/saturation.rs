//! The families of "Saturation and knee", from each backend's reading.
//!
//! A value that is unknown is NaN in the two ratios, so that no alert fires, and absent elsewhere, so that no average includes it.
//! Nothing is computed here but the confidence, which is one division.

use super::exposition::{ExpositionWriter, FamilyDescription, Label};
use super::families as f;
use crate::estimate::{Estimate, Knee, Reading, SaturationState};
use crate::measure::snapshot::Snapshot;

/// The estimate of one backend, and the samples that it missed.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendEstimate {
    pub reading: Reading,
    /// Samples dropped on their way to the estimate because a buffer was full.
    pub lost: u64,
    /// Samples that reached the estimate too late for their order.
    pub late: u64,
}

/// One backend with its estimate and its labels.
struct SaturationRow<'a> {
    labels: [Label<'a>; 2],
    estimate: &'a BackendEstimate,
}

impl SaturationRow<'_> {
    fn knee(&self) -> Option<&Knee> {
        self.estimate.reading.knee.as_ref().ok()
    }

    fn with<'b>(&'b self, name: &'static str, value: &'b str) -> [Label<'b>; 3] {
        [self.labels[0], self.labels[1], (name, value)]
    }
}

/// Writes the families; `epoch` is the Unix time of the clock's zero.
pub fn write(
    exposition: &mut ExpositionWriter<'_>,
    snapshot: &Snapshot,
    estimates: &[Option<BackendEstimate>],
    epoch: f64,
) {
    let known = snapshot.backends.iter().zip(&snapshot.served).zip(estimates);
    let rows: Vec<SaturationRow<'_>> = known
        .filter_map(|((backend, model), estimate)| {
            Some(SaturationRow {
                labels: [("backend", &**backend), ("model_name", &**model)],
                estimate: estimate.as_ref()?,
            })
        })
        .collect();
    write_state(exposition, &rows);
    write_knee(exposition, &rows, epoch);
    write_capacity(exposition, &rows);
    write_samples(exposition, &rows);
}

fn write_state(exposition: &mut ExpositionWriter<'_>, rows: &[SaturationRow<'_>]) {
    gauge(exposition, &f::SATURATION_RATIO, rows, |row| Some(row.estimate.reading.ratio.unwrap_or(f64::NAN)));
    gauge(exposition, &f::DEMAND_RATIO, rows, |row| Some(row.estimate.reading.demand_ratio.unwrap_or(f64::NAN)));
    exposition.family(&f::SATURATION_STATE, |out| {
        for row in rows {
            for state in SaturationState::ALL {
                out.count(&row.with("state", state.word()), u64::from(row.estimate.reading.state == state));
            }
        }
    });
}

fn write_knee(exposition: &mut ExpositionWriter<'_>, rows: &[SaturationRow<'_>], epoch: f64) {
    let mut interval = |families: [&FamilyDescription; 3], of: fn(&Knee) -> Estimate| {
        let ends: [fn(Estimate) -> f64; 3] = [|e| e.value, |e| e.low, |e| e.high];
        for (family, end) in families.into_iter().zip(ends) {
            gauge(exposition, family, rows, |row| row.knee().map(|knee| end(of(knee))));
        }
    };
    interval([&f::KNEE_CONCURRENCY, &f::KNEE_CONCURRENCY_LOW, &f::KNEE_CONCURRENCY_HIGH], |knee| knee.in_flight);
    interval([&f::KNEE_REQUESTS, &f::KNEE_REQUESTS_LOW, &f::KNEE_REQUESTS_HIGH], |knee| knee.requests_per_second);
    interval([&f::KNEE_TOKENS, &f::KNEE_TOKENS_LOW, &f::KNEE_TOKENS_HIGH], |knee| knee.tokens_per_second);
    gauge(exposition, &f::KNEE_CONFIDENCE, rows, |row| row.knee().map(confidence));
    gauge(exposition, &f::KNEE_UPDATED_AT, rows, |row| row.knee().map(|knee| epoch + knee.updated_at.as_secs_f64()));
    exposition.family(&f::KNEE_UPDATES, |out| {
        for row in rows {
            let blocks = row.estimate.reading.blocks;
            for (result, count) in [("accepted", blocks.accepted), ("rejected", blocks.rejected)] {
                let own = [("source", "online"), ("result", result)];
                out.count(&[&row.labels[..], &own[..]].concat(), count);
            }
        }
    });
}

fn write_capacity(exposition: &mut ExpositionWriter<'_>, rows: &[SaturationRow<'_>]) {
    let ends: [fn(Estimate) -> f64; 3] = [|e| e.value, |e| e.low, |e| e.high];
    for (family, end) in [&f::PREDICTED, &f::PREDICTED_LOW, &f::PREDICTED_HIGH].into_iter().zip(ends) {
        gauge(exposition, family, rows, |row| {
            let prediction = row.estimate.reading.prediction.as_ref().ok().filter(|prediction| !prediction.at_most)?;
            row.knee().is_none().then(|| end(prediction.requests_per_second))
        });
    }
    gauge(exposition, &f::UPPER_BOUND, rows, |row| row.estimate.reading.upper_bound);
    gauge(exposition, &f::LOWER_BOUND, rows, |row| row.estimate.reading.lower_bound.filter(|_| row.knee().is_none()));
    exposition.family(&f::STEP_SECONDS, |out| {
        for row in rows {
            let Some(costs) = row.estimate.reading.costs else { continue };
            for (part, cost) in [("step", costs.step), ("decode", costs.decode), ("prefill_token", costs.prefill_token)]
            {
                out.value(&row.with("part", part), cost);
            }
        }
    });
    exposition.family(&f::SPEED_CHANGES, |out| {
        for row in rows {
            let changes = row.estimate.reading.speed_changes;
            out.count(&row.with("direction", "slower"), changes.slower);
            out.count(&row.with("direction", "faster"), changes.faster);
        }
    });
}

fn write_samples(exposition: &mut ExpositionWriter<'_>, rows: &[SaturationRow<'_>]) {
    exposition.family(&f::SAMPLES, |out| {
        for row in rows {
            out.count(&[row.labels[0], ("fault", "lost")], row.estimate.lost);
            out.count(&[row.labels[0], ("fault", "late")], row.estimate.late);
        }
    });
}

/// 1 minus the half-width of the capacity's interval as a share of the capacity: 0.95 is "within 5 %".
pub(super) fn confidence(knee: &Knee) -> f64 {
    let Estimate { value, low, high } = knee.requests_per_second;
    if value > 0.0 { (1.0 - (high - low) / 2.0 / value).clamp(0.0, 1.0) } else { 0.0 }
}

fn gauge(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    rows: &[SaturationRow<'_>],
    value: impl Fn(&SaturationRow<'_>) -> Option<f64>,
) {
    exposition.family(family, |out| {
        for row in rows {
            if let Some(value) = value(row) {
                out.value(&row.labels, value);
            }
        }
    });
}
