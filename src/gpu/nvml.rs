//! NVIDIA's library (NVML) as a source of readings: loaded at run time, and every call of it may fail on its own.
//!
//! Symbols load one by one, so an old driver lacks single readings and not all of them. Nothing is kept between two rounds. Absent:
//! backends.

use std::ffi::OsString;
use std::mem::ManuallyDrop;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::reading::{Figures, Identity, ThrottleReason};
use super::settings::Settings;
use super::source::{Driver, Failure, GpuFault, GpuSample, GpuSource, Unavailable};

/// The library, not opened yet.
#[derive(Clone, Debug)]
pub struct Library {
    file: OsString,
}

impl Library {
    /// The library that the settings name, or the one of the driver.
    pub fn of(settings: &Settings) -> Self {
        let named = settings.library.as_ref().map(|path| path.clone().into_os_string());
        Self { file: named.unwrap_or_else(|| FILE.into()) }
    }
}

impl Driver for Library {
    fn with_source(&self, body: &mut dyn FnMut(&mut dyn GpuSource)) -> Result<(), Unavailable> {
        let unavailable = |why: NvmlError| Unavailable(why.to_string());
        // Closed explicitly: the wrapper's drop panics where the library lacks the call.
        let nvml = ManuallyDrop::new(Nvml::builder().lib_path(&self.file).init().map_err(unavailable)?);
        if nvml.lib().nvmlShutdown.is_err() {
            return Err(Unavailable("the library cannot be closed again, so it is not NVML".to_owned()));
        }
        let opened = Gpus::of(&nvml).map(|mut gpus| body(&mut gpus));
        drop(ManuallyDrop::into_inner(nvml));
        opened.map_err(unavailable)
    }
}

/// The GPUs of an opened library.
struct Gpus<'a> {
    gpus: Vec<Gpu<'a>>,
}

struct Gpu<'a> {
    identity: Identity,
    device: Device<'a>,
    /// Its XID errors; a fault says why they are not reported.
    events: Result<EventSet<'a>, GpuFault>,
}

impl<'a> Gpus<'a> {
    fn of(nvml: &'a Nvml) -> Result<Self, NvmlError> {
        let mut gpus = Vec::new();
        for index in 0..nvml.device_count()?.min(MOST) {
            // Counted but not accessible: the container has other GPUs.
            let Ok(device) = nvml.device_by_index(index) else { continue };
            let instances = instances(index, &device);
            let identity = identity(index.to_string(), &device, false);
            gpus.push(Gpu { identity, events: listen(nvml, &device), device });
            gpus.extend(instances);
        }
        Ok(Self { gpus })
    }
}

impl GpuSource for Gpus<'_> {
    fn identities(&self) -> Vec<Identity> {
        self.gpus.iter().map(|gpu| gpu.identity.clone()).collect()
    }

    fn sample(&mut self, index: usize) -> GpuSample {
        let Some(gpu) = self.gpus.get(index) else { return GpuSample::default() };
        let mut round = DeviceQuery::default();
        let mut sample = if gpu.identity.instance { round.instance(&gpu.device) } else { round.whole(gpu) };
        sample.failed = round.failed;
        sample
    }
}

/// One round of calls for one GPU.
#[derive(Default)]
struct DeviceQuery {
    failed: Vec<Failure>,
}

impl DeviceQuery {
    fn whole(&mut self, gpu: &Gpu<'_>) -> GpuSample {
        let device = &gpu.device;
        let (memory_used, memory_total) = self.memory(device);
        let milliwatts = |milliwatts: u32| f64::from(milliwatts) / 1e3;
        let figures = Figures {
            utilization: self.read("utilization", device.utilization_rates()).map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used,
            memory_total,
            power: self.read("power", device.power_usage()).map(milliwatts),
            power_limit: self.read("power_limit", device.enforced_power_limit()).map(milliwatts),
            temperature: self.read("temperature", device.temperature(TemperatureSensor::Gpu)).map(f64::from),
            clock: CLOCKS.map(|clock| self.read("clock", device.clock_info(clock)).map(hertz)),
            clock_most: CLOCKS.map(|clock| self.read("clock_most", device.max_clock_info(clock)).map(hertz)),
            ecc: [MemoryError::Corrected, MemoryError::Uncorrected]
                .map(|kind| self.read("ecc", device.total_ecc_errors(kind, EccCounter::Volatile))),
            mig: self.read("mig", device.mig_mode()).map(|mode| mode.current == MIG_ON),
        };
        let throttling = self.read("throttling", device.current_throttle_reasons()).map(reasons);
        GpuSample { figures, throttling, xid: self.errors(&gpu.events), failed: Vec::new() }
    }

    /// An instance has a memory of its own; everything else is a reading of the whole GPU or of none.
    fn instance(&mut self, device: &Device<'_>) -> GpuSample {
        let (memory_used, memory_total) = self.memory(device);
        GpuSample { figures: Figures { memory_used, memory_total, ..Figures::default() }, ..GpuSample::default() }
    }

    fn memory(&mut self, device: &Device<'_>) -> (Option<f64>, Option<f64>) {
        let memory = self.read("memory", device.memory_info());
        memory.map_or((None, None), |memory| (Some(memory.used as f64), Some(memory.total as f64)))
    }

    fn errors(&mut self, events: &Result<EventSet<'_>, GpuFault>) -> Option<Vec<u64>> {
        let events = match events {
            Ok(events) => events,
            Err(fault) => {
                self.failed.push(Failure { reading: "xid", fault: fault.clone() });
                return None;
            }
        };
        let mut errors = Vec::new();
        while errors.len() < MOST_EVENTS {
            match events.wait(WAIT_MILLIS) {
                Ok(event) => errors.extend(event.event_data.map(number)),
                Err(NvmlError::Timeout) => break,
                Err(why) => return self.read("xid", Err(why)),
            }
        }
        Some(errors)
    }

    fn read<T>(&mut self, reading: &'static str, answer: Result<T, NvmlError>) -> Option<T> {
        let fault = |why| self.failed.push(Failure { reading, fault: GpuFault::from(why) });
        answer.map_err(fault).ok()
    }
}

impl From<NvmlError> for GpuFault {
    fn from(why: NvmlError) -> Self {
        match why {
            NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
                Self::NotOffered
            }
            NvmlError::GpuLost | NvmlError::ResetRequired => Self::Lost,
            other => Self::Other(other.to_string()),
        }
    }
}

/// The instances of a divided GPU.
fn instances<'a>(index: u32, device: &Device<'a>) -> Vec<Gpu<'a>> {
    if !device.mig_mode().is_ok_and(|mode| mode.current == MIG_ON) {
        return Vec::new();
    }
    let indices = 0..device.mig_device_count().unwrap_or(0).min(MOST_INSTANCES);
    let instance = |i| {
        // An index without an instance is an error.
        let instance = device.mig_device_by_index(i).ok()?;
        let identity = identity(format!("{index}:{i}"), &instance, true);
        Some(Gpu { identity, device: instance, events: Err(GpuFault::NotOffered) })
    };
    indices.filter_map(instance).collect()
}

fn identity(gpu: String, device: &Device<'_>, instance: bool) -> Identity {
    let short = |text: String| text.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    let uuid = device.uuid().map(short).unwrap_or_default();
    Identity { gpu, uuid, name: device.name().map(short).unwrap_or_default(), instance }
}

/// One set of events for each GPU, because a failure to register one GPU at a shared set would end it for all.
fn listen<'a>(nvml: &'a Nvml, device: &Device<'a>) -> Result<EventSet<'a>, GpuFault> {
    if nvml.lib().nvmlEventSetFree.is_err() {
        return Err(GpuFault::NotOffered);
    }
    if !device.supported_event_types()?.contains(EventTypes::CRITICAL_XID_ERROR) {
        return Err(GpuFault::NotOffered);
    }
    let set = nvml.create_event_set()?;
    device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|why| why.error.into())
}

fn number(error: XidError) -> u64 {
    match error {
        XidError::Value(number) => number,
        XidError::Unknown => UNKNOWN_XID,
    }
}

fn hertz(megahertz: u32) -> f64 {
    f64::from(megahertz) * 1e6
}

fn reasons(bits: ThrottleReasons) -> Vec<ThrottleReason> {
    let bit = |reason: &ThrottleReason| {
        bits.contains(match reason {
            ThrottleReason::SwPowerCap => ThrottleReasons::SW_POWER_CAP,
            ThrottleReason::SwThermal => ThrottleReasons::SW_THERMAL_SLOWDOWN,
            ThrottleReason::HwSlowdown => ThrottleReasons::HW_SLOWDOWN,
            ThrottleReason::HwThermal => ThrottleReasons::HW_THERMAL_SLOWDOWN,
            ThrottleReason::HwPowerBrake => ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
            ThrottleReason::SyncBoost => ThrottleReasons::SYNC_BOOST,
            ThrottleReason::ApplicationClocks => ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
            ThrottleReason::DisplayClocks => ThrottleReasons::DISPLAY_CLOCK_SETTING,
        })
    };
    ThrottleReason::ALL.into_iter().filter(bit).collect()
}

/// The name with the version: the bare one comes with development packages only.
const FILE: &str = "libnvidia-ml.so.1";
/// In the order of `ClockKind::ALL`.
const CLOCKS: [Clock; 2] = [Clock::SM, Clock::Memory];
/// What the library answers for a GPU that is divided now.
const MIG_ON: u32 = 1;
/// GPUs in one machine; the largest have 16.
const MOST: u32 = 64;
/// Instances of one GPU; there are 7 at most.
const MOST_INSTANCES: u32 = 16;
/// Errors taken in one round; the rest is taken in the next.
const MOST_EVENTS: usize = 16;
/// The shortest wait that is no special value.
const WAIT_MILLIS: u32 = 1;
/// What the library itself calls an error without a number.
const UNKNOWN_XID: u64 = 999;
const LONGEST_NAME: usize = 96;
