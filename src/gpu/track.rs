//! From rounds of answers to what is known of each GPU; it says in the log what is new, once.
//!
//! A figure that fails is missing from then on until it can be read again; each one is complained of once. It asks nobody.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::reading::{Device, Identity, Throttling, Xid};
use super::settings::Selector;
use super::source::{Failure, GpuFault, GpuSample};
use crate::vocabulary::time::Timestamp;

/// A backend, and the GPUs it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuTenant {
    pub backend: Arc<str>,
    pub gpus: Whose,
}

/// Which GPUs are a backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All that are seen.
    All,
    /// These; none where nothing is known.
    These(Vec<Selector>),
}

impl Whose {
    fn holds(&self, identity: &Identity) -> bool {
        match self {
            Self::All => true,
            Self::These(selectors) => selectors.iter().any(|selector| names(selector, identity)),
        }
    }
}

/// What is remembered of every GPU between two rounds.
#[derive(Debug)]
pub struct Tracker {
    devices: Vec<Device>,
    /// Outlasts a reading that fails now and then.
    throttling: Vec<Throttling>,
    complained: Vec<HashSet<&'static str>>,
}

impl Tracker {
    /// Knows who they are and whose, and nothing else. A GPU that is named and not seen is complained of here.
    pub fn new(identities: Vec<Identity>, tenants: &[GpuTenant]) -> Self {
        for tenant in tenants {
            if let Whose::These(selectors) = &tenant.gpus {
                let unseen = |selector: &&Selector| !identities.iter().any(|identity| names(selector, identity));
                for selector in selectors.iter().filter(unseen) {
                    tracing::warn!(backend = &*tenant.backend, gpu = %selector, "no GPU of this name is seen");
                }
            }
        }
        let whose = |identity: &Identity| {
            let of = tenants.iter().filter(|tenant| tenant.gpus.holds(identity));
            of.map(|tenant| tenant.backend.clone()).collect()
        };
        let device = |identity: Identity| Device { backends: whose(&identity), identity, ..Device::default() };
        let devices: Vec<_> = identities.into_iter().map(device).collect();
        let (throttling, complained) =
            (vec![Throttling::default(); devices.len()], vec![HashSet::new(); devices.len()]);
        Self { devices, throttling, complained }
    }

    /// One round's answers of the GPU at `place`.
    pub fn on_sample(&mut self, place: usize, sample: GpuSample, now: Timestamp) {
        let Some(device) = self.devices.get_mut(place) else { return };
        let (throttling, complained) = (&mut self.throttling[place], &mut self.complained[place]);
        let was_up = device.up;
        device.up = !sample.failed.iter().any(|failure| failure.fault == GpuFault::Lost);
        device.figures = sample.figures;
        device.throttling = sample.throttling.map(|reasons| {
            throttling.on_reading(&reasons, now);
            throttling.clone()
        });
        match sample.xid {
            Some(errors) => hear(device, &errors, now),
            None if device.up => device.xid = None,
            // A lost device's errors are what people will ask for.
            None => {}
        }
        if was_up && !device.up {
            tracing::warn!(gpu = device.identity.gpu, uuid = device.identity.uuid, "a GPU is lost");
        }
        if device.up {
            complain(&device.identity, &sample.failed, complained);
        }
    }

    /// What is known now.
    pub fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    /// Whether none of them answers any longer.
    pub fn all_lost(&self) -> bool {
        !self.devices.is_empty() && self.devices.iter().all(|device| !device.up)
    }
}

fn names(selector: &Selector, identity: &Identity) -> bool {
    match selector {
        Selector::Uuid(uuid) => *uuid == identity.uuid,
        by_index => by_index.to_string() == identity.gpu,
    }
}

fn hear(device: &mut Device, errors: &[u64], now: Timestamp) {
    let heard = device.xid.get_or_insert_default();
    for xid in errors {
        *heard = Xid { count: heard.count + 1, last: Some((*xid, now)) };
        tracing::warn!(
            gpu = device.identity.gpu,
            uuid = device.identity.uuid,
            xid,
            "the driver reports an error of a GPU"
        );
    }
}

/// Each reading once a GPU: what is not offered in one line, as nothing can be done about it, other faults as warnings.
fn complain(identity: &Identity, failed: &[Failure], complained: &mut HashSet<&'static str>) {
    let gpu = &*identity.gpu;
    let mut not_offered = Vec::new();
    let mut faults = BTreeMap::<String, Vec<&str>>::new();
    for failure in failed.iter().filter(|failure| complained.insert(failure.reading)) {
        match &failure.fault {
            GpuFault::NotOffered => not_offered.push(failure.reading),
            other => faults.entry(other.to_string()).or_default().push(failure.reading),
        }
    }
    if !not_offered.is_empty() {
        tracing::info!(gpu, readings = not_offered.join(" "), "readings that this GPU does not offer");
    }
    for (fault, readings) in faults {
        tracing::warn!(gpu, readings = readings.join(" "), fault, "readings of a GPU failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::{Figures, ThrottleReason};

    fn identities() -> Vec<Identity> {
        let identity = |gpu: &str, uuid: &str| Identity { gpu: gpu.into(), uuid: uuid.into(), ..Identity::default() };
        vec![identity("0", "GPU-a"), identity("1", "GPU-b"), identity("1:0", "MIG-c")]
    }

    fn tenant(backend: &str, gpus: &[&str]) -> GpuTenant {
        let gpus = Whose::These(gpus.iter().map(|gpu| gpu.parse().unwrap()).collect());
        GpuTenant { backend: backend.into(), gpus }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn warm(temperature: f64) -> GpuSample {
        let figures = Figures { temperature: Some(temperature), ..Figures::default() };
        GpuSample { figures, throttling: Some(vec![]), xid: Some(vec![]), failed: vec![] }
    }

    fn failed(fault: GpuFault) -> GpuSample {
        GpuSample { failed: vec![Failure { reading: "temperature", fault }], ..GpuSample::default() }
    }

    #[test]
    fn gpus_belong_to_the_backends_that_name_them() {
        let tracker = Tracker::new(identities(), &[tenant("a", &["0", "GPU-b"]), tenant("b", &["1:0", "9"])]);
        let backends: Vec<_> = tracker.devices().iter().map(|device| device.backends.join(" ")).collect();
        assert_eq!(backends, ["a", "a", "b"]);
        let all = GpuTenant { backend: "c".into(), gpus: Whose::All };
        assert!(Tracker::new(identities(), &[all]).devices().iter().all(|device| device.backends.len() == 1));
        assert!(Tracker::new(identities(), &[]).devices().iter().all(|device| device.backends.is_empty()));
    }

    #[test]
    fn a_figure_that_fails_is_missing_until_it_is_read_again() {
        let mut tracker = Tracker::new(identities(), &[]);
        let temperature = |tracker: &Tracker| tracker.devices()[0].figures.temperature;
        tracker.on_sample(0, warm(60.0), at(1));
        assert_eq!(temperature(&tracker), Some(60.0));
        tracker.on_sample(0, failed(GpuFault::Other("x".into())), at(2));
        assert_eq!((temperature(&tracker), tracker.devices()[0].up), (None, true));
        tracker.on_sample(0, warm(61.0), at(3));
        assert_eq!(temperature(&tracker), Some(61.0));
    }

    #[test]
    fn a_lost_device_is_down_keeps_its_errors_and_comes_back() {
        let mut tracker = Tracker::new(identities(), &[]);
        tracker.on_sample(0, GpuSample { xid: Some(vec![31, 79]), ..warm(60.0) }, at(1));
        tracker.on_sample(0, failed(GpuFault::Lost), at(2));
        let device = tracker.devices().remove(0);
        assert!(!device.up && device.figures == Figures::default() && device.throttling.is_none());
        assert_eq!(device.xid, Some(Xid { count: 2, last: Some((79, at(1))) }));
        assert!(tracker.all_lost(), "the others never answered");
        tracker.on_sample(0, warm(60.0), at(3));
        assert!(tracker.devices()[0].up && !tracker.all_lost());
    }

    #[test]
    fn throttling_is_told_from_round_to_round() {
        let mut tracker = Tracker::new(identities(), &[]);
        let capped = GpuSample { throttling: Some(vec![ThrottleReason::SwPowerCap]), ..warm(80.0) };
        tracker.on_sample(0, capped.clone(), at(1));
        tracker.on_sample(0, capped, at(5));
        let throttling = tracker.devices().remove(0).throttling.unwrap();
        assert_eq!(throttling.now().next().unwrap().from, at(1));
        tracker.on_sample(0, warm(70.0), at(6));
        assert_eq!(tracker.devices()[0].throttling.as_ref().unwrap().now().count(), 0);
    }

    #[test]
    fn each_reading_is_complained_of_once() {
        let (identity, mut complained) = (Identity::default(), HashSet::new());
        let failures = failed(GpuFault::NotOffered).failed;
        complain(&identity, &failures, &mut complained);
        assert_eq!(complained.len(), 1);
        complain(&identity, &failures, &mut complained);
        assert_eq!(complained.len(), 1);
    }
}
