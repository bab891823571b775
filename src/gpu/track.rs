//! Rounds of samples become the state of each GPU; each new fault is logged once.
//!
//! A figure that fails is missing until it can be read again. Absent: any call of the driver.

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
    pub gpus: GpuSelection,
}

/// The GPUs of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuSelection {
    /// All of this machine.
    All,
    /// Those selected; none where the list is empty.
    Selected(Vec<Selector>),
}

impl GpuSelection {
    fn holds(&self, identity: &Identity) -> bool {
        match self {
            Self::All => true,
            Self::Selected(selectors) => selectors.iter().any(|selector| names(selector, identity)),
        }
    }
}

/// The state of every GPU between two rounds.
#[derive(Debug)]
pub struct Tracker {
    devices: Vec<Device>,
    /// Kept while a reading fails for some rounds.
    throttling: Vec<Throttling>,
    logged: Vec<HashSet<&'static str>>,
}

impl Tracker {
    /// GPUs without readings yet. Logs a configured GPU that is not on this machine.
    pub fn new(identities: Vec<Identity>, tenants: &[GpuTenant]) -> Self {
        for tenant in tenants {
            if let GpuSelection::Selected(selectors) = &tenant.gpus {
                let unseen = |selector: &&Selector| !identities.iter().any(|identity| names(selector, identity));
                for selector in selectors.iter().filter(unseen) {
                    tracing::warn!(backend = &*tenant.backend, gpu = %selector, "no GPU of this name is seen");
                }
            }
        }
        let backends_of = |identity: &Identity| {
            let of = tenants.iter().filter(|tenant| tenant.gpus.holds(identity));
            of.map(|tenant| tenant.backend.clone()).collect()
        };
        let device = |identity: Identity| Device { backends: backends_of(&identity), identity, ..Device::default() };
        let devices: Vec<_> = identities.into_iter().map(device).collect();
        let (throttling, logged) = (vec![Throttling::default(); devices.len()], vec![HashSet::new(); devices.len()]);
        Self { devices, throttling, logged }
    }

    /// One round's sample of the GPU at `index`.
    pub fn on_sample(&mut self, index: usize, sample: GpuSample, now: Timestamp) {
        let Some(device) = self.devices.get_mut(index) else { return };
        let (throttling, logged) = (&mut self.throttling[index], &mut self.logged[index]);
        let was_up = device.up;
        device.up = !sample.failed.iter().any(|failure| failure.fault == GpuFault::Lost);
        device.figures = sample.figures;
        device.throttling = sample.throttling.map(|reasons| {
            throttling.on_reading(&reasons, now);
            throttling.clone()
        });
        match sample.xid {
            Some(errors) => on_xid(device, &errors, now),
            None if device.up => device.xid = None,
            // A lost device keeps its errors, because they explain the loss.
            None => {}
        }
        if was_up && !device.up {
            tracing::warn!(gpu = device.identity.gpu, uuid = device.identity.uuid, "a GPU is lost");
        }
        if device.up {
            log_faults(&device.identity, &sample.failed, logged);
        }
    }

    /// The GPUs now.
    pub fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    /// Whether no GPU answers any more.
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

fn on_xid(device: &mut Device, errors: &[u64], now: Timestamp) {
    let known = device.xid.get_or_insert_default();
    for xid in errors {
        *known = Xid { count: known.count + 1, last: Some((*xid, now)) };
        tracing::warn!(
            gpu = device.identity.gpu,
            uuid = device.identity.uuid,
            xid,
            "the driver reports an error of a GPU"
        );
    }
}

/// Logs each reading once for each GPU: readings that are not offered in one INFO line, other faults as warnings.
fn log_faults(identity: &Identity, failed: &[Failure], logged: &mut HashSet<&'static str>) {
    let gpu = &*identity.gpu;
    let mut not_offered = Vec::new();
    let mut faults = BTreeMap::<String, Vec<&str>>::new();
    for failure in failed.iter().filter(|failure| logged.insert(failure.reading)) {
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
        let gpus = GpuSelection::Selected(gpus.iter().map(|gpu| gpu.parse().unwrap()).collect());
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
        let all = GpuTenant { backend: "c".into(), gpus: GpuSelection::All };
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
    fn throttling_is_kept_from_round_to_round() {
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
        let (identity, mut logged) = (Identity::default(), HashSet::new());
        let failures = failed(GpuFault::NotOffered).failed;
        log_faults(&identity, &failures, &mut logged);
        assert_eq!(logged.len(), 1);
        log_faults(&identity, &failures, &mut logged);
        assert_eq!(logged.len(), 1);
    }
}
