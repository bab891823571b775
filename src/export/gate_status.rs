//! The limits and the queue of each backend: the families of the gate, and their part of `/status`.
//!
//! Limits are shown as computed, in mode observe too; only the limit of requests in flight says whether it is enforced. Absent: any
//! decision.

use serde_json::{Value, json};

use super::exposition::{ExpositionWriter, FamilyDescription, Label};
use super::families as f;
use crate::admission::{Limits, Mode};
use crate::measure::snapshot::Snapshot;
use crate::measure::{Class, ShedReason};
use crate::vocabulary::would_shed::WouldShed;

/// The gate of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct GateStatus {
    pub limits: Limits,
    /// Bytes of the queued bodies.
    pub queued_bytes: u64,
    /// Objective for the first token, in seconds.
    pub slo_ttft: f64,
    /// Mode observe: requests that would have been refused.
    pub would_shed: WouldShed,
}

impl GateStatus {
    /// Seconds of the objective that are left for queueing, for a typical request.
    pub fn longest_wait(&self) -> f64 {
        let signals = &self.limits.signals;
        let expected = signals.typical_ttft + signals.excess_ttft + signals.excess_ttft_deviation;
        USED_SHARE * (self.slo_ttft - expected.clamp(0.0, MOST_EXPECTED * self.slo_ttft))
    }

    fn window(&self) -> Option<f64> {
        self.limits.window.is_finite().then_some(self.limits.window)
    }
}

/// Writes the families.
pub fn write(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, gates: &[GateStatus]) {
    let known = snapshot.backends.iter().zip(&snapshot.served).zip(gates);
    let rows: Vec<([Label<'_>; 2], &GateStatus)> =
        known.map(|((backend, model), gate)| ([("backend", &**backend), ("model_name", &**model)], gate)).collect();
    let mut gauge = |family: &FamilyDescription, value: &dyn Fn(&GateStatus) -> Option<f64>| {
        exposition.family(family, |out| {
            for (labels, gate) in &rows {
                if let Some(value) = value(gate) {
                    out.value(labels, value);
                }
            }
        });
    };
    gauge(&f::WINDOW, &GateStatus::window);
    gauge(&f::KV_CAP, &|gate| Some(gate.limits.kv_cap.unwrap_or(f64::INFINITY)));
    gauge(&f::CONCURRENCY, &|gate| {
        let enforced = gate.limits.concurrency.filter(|_| gate.limits.mode == Mode::Enforce);
        Some(enforced.map_or(-1.0, f64::from))
    });
    gauge(&f::QUEUE_BYTES, &|gate| Some(gate.queued_bytes as f64));
    gauge(&f::QUEUE_MAX_WAIT, &|gate| Some(gate.longest_wait()));
    exposition.family(&f::WOULD_SHED, |out| {
        for (labels, gate) in &rows {
            for priority in Class::ALL {
                for reason in ShedReason::ALL.into_iter().filter(|reason| reason.is_congestion()) {
                    let own = [("priority", priority.as_str()), ("reason", reason.as_str())];
                    let count = gate.would_shed.of(priority, reason);
                    out.count(&[&labels[..], &own[..]].concat(), count);
                }
            }
        }
    });
}

/// The limits as `/status` shows them.
pub fn describe(gate: Option<&GateStatus>) -> Value {
    json!({
        "first_token_window": gate.and_then(GateStatus::window),
        "kv_cap_tokens": gate.and_then(|gate| gate.limits.kv_cap),
        "concurrency": gate.and_then(|gate| gate.limits.concurrency),
        "max_wait_s": gate.map(GateStatus::longest_wait),
    })
}

/// Share of the remaining time that is used, because the expected time is not certain.
const USED_SHARE: f64 = 0.9;
/// Largest share of the objective that the engine is expected to take.
const MOST_EXPECTED: f64 = 0.7;
