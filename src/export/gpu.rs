//! GPUs as families, as a part of `/status`, and as sentences beside a shift of the engine's speed.
//!
//! A value that was not read is absent or null, never 0. No decision depends on it.

use std::time::Duration;

use serde_json::{Value, json};

use super::exposition::{ExpositionWriter, FamilyDescription, Label};
use super::families as f;
use crate::estimate::Shift;
use crate::gpu::reading::{ClockKind, Device, ECC, Spell, ThrottleReason};
use crate::vocabulary::time::Timestamp;

/// The families of "GPU"; none without a GPU.
pub fn write(exposition: &mut ExpositionWriter<'_>, gpus: &[Device]) {
    exposition.family(&f::GPU_INFO, |out| {
        for gpu in gpus {
            let [index, uuid] = labels(gpu);
            let row = |backend| [index, uuid, ("name", &*gpu.identity.name), ("backend", backend)];
            gpu.backends.iter().for_each(|backend| out.count(&row(backend), 1));
            if gpu.backends.is_empty() {
                out.count(&row(""), 1);
            }
        }
    });
    gauge(exposition, &f::GPU_UP, gpus, |gpu| Some(f64::from(u8::from(gpu.up))));
    gauge(exposition, &f::GPU_UTILIZATION, gpus, |gpu| gpu.figures.utilization);
    gauge(exposition, &f::GPU_MEMORY_USED, gpus, |gpu| gpu.figures.memory_used);
    gauge(exposition, &f::GPU_MEMORY_TOTAL, gpus, |gpu| gpu.figures.memory_total);
    gauge(exposition, &f::GPU_POWER, gpus, |gpu| gpu.figures.power);
    gauge(exposition, &f::GPU_POWER_LIMIT, gpus, |gpu| gpu.figures.power_limit);
    gauge(exposition, &f::GPU_TEMPERATURE, gpus, |gpu| gpu.figures.temperature);
    let clocks = ClockKind::ALL.map(|kind| ("clock", kind.word()));
    split(exposition, &f::GPU_CLOCK, gpus, &clocks, |gpu, i| gpu.figures.clock[i]);
    split(exposition, &f::GPU_CLOCK_MOST, gpus, &clocks, |gpu, i| gpu.figures.clock_most[i]);
    let reasons = ThrottleReason::ALL.map(|reason| ("reason", reason.word()));
    split(exposition, &f::GPU_THROTTLE, gpus, &reasons, |gpu, i| {
        Some(f64::from(u8::from(gpu.throttling.as_ref()?.holds(ThrottleReason::ALL[i]))))
    });
    split(exposition, &f::GPU_THROTTLE_SECONDS, gpus, &reasons, |gpu, i| {
        Some(gpu.throttling.as_ref()?.held(ThrottleReason::ALL[i]).as_secs_f64())
    });
    split(exposition, &f::GPU_ECC, gpus, &ECC.map(|kind| ("error", kind)), |gpu, i| {
        gpu.figures.ecc[i].map(|count| count as f64)
    });
    gauge(exposition, &f::GPU_XID, gpus, |gpu| Some(gpu.xid?.count as f64));
    gauge(exposition, &f::GPU_XID_LAST, gpus, |gpu| Some(gpu.xid?.last?.0 as f64));
    gauge(exposition, &f::GPU_MIG, gpus, |gpu| gpu.figures.mig.map(|on| f64::from(u8::from(on))));
}

/// The key `gpus` of `/status`; `epoch` is the Unix time of the clock's zero.
pub fn describe(gpus: &[Device], now: Timestamp, epoch: f64) -> Value {
    gpus.iter().map(|gpu| device(gpu, now, epoch)).collect()
}

/// The throttling of a backend's GPUs shortly before and at a shift of the engine's speed, one sentence each.
pub fn beside(shift: Shift, backend: &str, gpus: &[Device], epoch: f64) -> Vec<String> {
    let spells = |gpu: &Device| -> Vec<Spell> {
        let throttling = gpu.throttling.iter();
        throttling.flat_map(|throttling| throttling.between(shift.at - BEFORE, shift.at + AFTER)).collect()
    };
    sentences(backend, gpus, epoch, spells)
}

/// The throttling of a backend's GPUs now, one sentence each.
pub fn throttled(backend: &str, gpus: &[Device], epoch: f64) -> Vec<String> {
    sentences(backend, gpus, epoch, |gpu| gpu.throttling.iter().flat_map(|throttling| throttling.now()).collect())
}

fn sentences(backend: &str, gpus: &[Device], epoch: f64, spells: impl Fn(&Device) -> Vec<Spell>) -> Vec<String> {
    let own = gpus.iter().filter(|gpu| gpu.backends.iter().any(|name| **name == *backend));
    let sentences = own.flat_map(|gpu| spells(gpu).into_iter().map(|spell| sentence(&gpu.identity.gpu, spell, epoch)));
    sentences.take(MOST_SENTENCES).collect()
}

fn sentence(gpu: &str, spell: Spell, epoch: f64) -> String {
    let (why, from) = (spell.reason.phrase(), clock_time(spell.from, epoch));
    match spell.to {
        None => format!("GPU {gpu} throttled ({why}) since {from}"),
        Some(to) => format!("GPU {gpu} was throttled ({why}) from {from} to {}", clock_time(to, epoch)),
    }
}

fn clock_time(at: Timestamp, epoch: f64) -> String {
    let unix = Duration::try_from_secs_f64(seconds(at, epoch)).unwrap_or_default().min(LAST_TIME);
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + unix).to_string()
}

fn device(gpu: &Device, now: Timestamp, epoch: f64) -> Value {
    let figures = &gpu.figures;
    let clock = |of: &[Option<f64>; 2]| json!({ "sm": of[0], "memory": of[1] });
    let spell = |spell: Spell| {
        json!({
            "reason": spell.reason.word(),
            "since": seconds(spell.from, epoch),
            "since_s": now.since(spell.from).as_secs_f64(),
        })
    };
    json!({
        "gpu": gpu.identity.gpu,
        "uuid": gpu.identity.uuid,
        "name": gpu.identity.name,
        "instance": gpu.identity.instance,
        "backends": gpu.backends.iter().map(|name| &**name).collect::<Vec<_>>(),
        "up": gpu.up,
        "utilization": figures.utilization,
        "memory_used_bytes": figures.memory_used,
        "memory_total_bytes": figures.memory_total,
        "power_watts": figures.power,
        "power_limit_watts": figures.power_limit,
        "temperature_celsius": figures.temperature,
        "clock_hertz": clock(&figures.clock),
        "clock_max_hertz": clock(&figures.clock_most),
        "throttled": gpu.throttling.as_ref().map(|throttling| throttling.now().map(spell).collect::<Vec<_>>()),
        "ecc": { "corrected": figures.ecc[0], "uncorrected": figures.ecc[1] },
        "xid": gpu.xid.map(|xid| json!({
            "count": xid.count,
            "last": xid.last.map(|(code, at)| json!({ "code": code, "at": seconds(at, epoch) })),
        })),
        "mig": figures.mig,
    })
}

fn seconds(at: Timestamp, epoch: f64) -> f64 {
    epoch + at.as_secs_f64()
}

fn gauge(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    gpus: &[Device],
    value: impl Fn(&Device) -> Option<f64>,
) {
    exposition.family(family, |out| {
        for gpu in gpus {
            if let Some(value) = value(gpu) {
                out.value(&labels(gpu), value);
            }
        }
    });
}

fn split(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    gpus: &[Device],
    children: &[Label<'static>],
    value: impl Fn(&Device, usize) -> Option<f64>,
) {
    exposition.family(family, |out| {
        for gpu in gpus {
            let [index, uuid] = labels(gpu);
            for (i, child) in children.iter().enumerate() {
                if let Some(value) = value(gpu, i) {
                    out.value(&[index, uuid, *child], value);
                }
            }
        }
    });
}

fn labels(gpu: &Device) -> [Label<'_>; 2] {
    [("gpu", &gpu.identity.gpu), ("uuid", &gpu.identity.uuid)]
}

/// A shift is detected some blocks after it happened: seconds under load, minutes at low load.
const BEFORE: Duration = Duration::from_secs(300);
/// A reading may be one round late.
const AFTER: Duration = Duration::from_secs(5);
/// Keeps the answer short on a node of sixteen throttled GPUs.
const MOST_SENTENCES: usize = 8;
/// The year 9999, the last one of the format.
const LAST_TIME: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::ShiftKind;
    use crate::gpu::reading::{Identity, Throttling};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    /// Throttled from `from` to `to`, of backend `a`.
    fn gpu(from: u64, to: Option<u64>) -> Device {
        let mut throttling = Throttling::default();
        throttling.on_reading(&[ThrottleReason::SwPowerCap], at(from));
        if let Some(to) = to {
            throttling.on_reading(&[], at(to));
        }
        let identity = Identity { gpu: "0".into(), ..Identity::default() };
        Device { identity, backends: vec!["a".into()], up: true, throttling: Some(throttling), ..Device::default() }
    }

    fn found_at(seconds: u64) -> Shift {
        Shift { at: at(seconds), kind: ShiftKind::Slower }
    }

    #[test]
    fn throttling_at_the_time_of_a_shift_is_listed() {
        let listed = beside(found_at(700), "a", &[gpu(600, None)], 1e9);
        assert_eq!(listed, ["GPU 0 throttled (power cap) since 2001-09-09T01:56:40Z"]);
        let listed = beside(found_at(700), "a", &[gpu(600, Some(650))], 1e9);
        assert_eq!(listed, ["GPU 0 was throttled (power cap) from 2001-09-09T01:56:40Z to 2001-09-09T01:57:30Z"]);
    }

    #[test]
    fn throttling_at_another_time_or_backend_is_not_listed() {
        assert!(beside(found_at(700), "a", &[gpu(100, Some(200))], 1e9).is_empty());
        assert!(beside(found_at(700), "a", &[gpu(800, None)], 1e9).is_empty());
        assert!(beside(found_at(700), "b", &[gpu(600, None)], 1e9).is_empty());
        assert!(beside(found_at(700), "a", &[gpu(600, None).silent()], 1e9).is_empty());
    }

    #[test]
    fn a_wall_clock_out_of_range_is_clamped() {
        assert_eq!(clock_time(at(1), -1e300), "1970-01-01T00:00:00Z");
        assert_eq!(clock_time(at(1), 1e18), "9999-12-31T23:59:59Z");
    }
}
