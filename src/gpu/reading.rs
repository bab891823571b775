//! The readings of one GPU at one moment: figures that may each be missing, spells of throttling, XID errors.
//!
//! Values only, shared by the reader and the exporters. Absent: the library and the way to read it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::vocabulary::time::Timestamp;

/// The identity of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The driver's index, or `GPU:INSTANCE` for an instance of a divided one (MIG).
    pub gpu: String,
    /// The driver's own id, which survives a reboot; empty where the driver gives none.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// Whether it is an instance of a divided GPU: these have a memory of their own, and nothing else that can be read.
    pub instance: bool,
}

/// One GPU as last seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    pub identity: Identity,
    /// The backends that run on it.
    pub backends: Vec<Arc<str>>,
    /// It answered the last call, and that was not long ago.
    pub up: bool,
    pub figures: Figures,
    /// Its throttling, now and before; `None` where that cannot be read.
    pub throttling: Option<Throttling>,
    /// Errors that the driver reported since weir started; `None` where it reports none.
    pub xid: Option<Xid>,
}

impl Device {
    /// The same without readings: the identity only.
    #[must_use]
    pub fn silent(&self) -> Self {
        Self { identity: self.identity.clone(), backends: self.backends.clone(), ..Self::default() }
    }
}

/// The figures of one round. Each is missing where it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Share of the last moments in which a kernel ran.
    pub utilization: Option<f64>,
    /// Bytes of device memory.
    pub memory_used: Option<f64>,
    pub memory_total: Option<f64>,
    /// Watts drawn, and the limit that the driver enforces.
    pub power: Option<f64>,
    pub power_limit: Option<f64>,
    /// Degrees Celsius of the core.
    pub temperature: Option<f64>,
    /// Hertz, by [`ClockKind`].
    pub clock: [Option<f64>; 2],
    pub clock_most: [Option<f64>; 2],
    /// Memory errors since the driver was loaded: corrected, not corrected.
    pub ecc: [Option<u64>; 2],
    /// Whether it is divided into instances.
    pub mig: Option<bool>,
}

/// A clock of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    Sm,
    Memory,
}

impl ClockKind {
    pub const ALL: [Self; 2] = [Self::Sm, Self::Memory];

    /// The label value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sm => "sm",
            Self::Memory => "memory",
        }
    }
}

/// The label values of the two kinds of memory errors.
pub const ECC: [&str; 2] = ["corrected", "uncorrected"];

/// Why a clock is throttled, in the words of `nvidia-smi`. Idleness is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleReason {
    SwPowerCap,
    SwThermal,
    HwSlowdown,
    HwThermal,
    HwPowerBrake,
    SyncBoost,
    ApplicationClocks,
    DisplayClocks,
}

impl ThrottleReason {
    pub const ALL: [Self; 8] = [
        Self::SwPowerCap,
        Self::SwThermal,
        Self::HwSlowdown,
        Self::HwThermal,
        Self::HwPowerBrake,
        Self::SyncBoost,
        Self::ApplicationClocks,
        Self::DisplayClocks,
    ];

    /// The label value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::SwPowerCap => "sw_power_cap",
            Self::SwThermal => "sw_thermal_slowdown",
            Self::HwSlowdown => "hw_slowdown",
            Self::HwThermal => "hw_thermal_slowdown",
            Self::HwPowerBrake => "hw_power_brake_slowdown",
            Self::SyncBoost => "sync_boost",
            Self::ApplicationClocks => "applications_clocks_setting",
            Self::DisplayClocks => "display_clock_setting",
        }
    }

    /// For a sentence.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::SwPowerCap => "power cap",
            Self::SwThermal => "heat, by the driver",
            Self::HwSlowdown => "slowed by the hardware",
            Self::HwThermal => "heat, by the hardware",
            Self::HwPowerBrake => "power brake from outside",
            Self::SyncBoost => "held to the slowest of its group",
            Self::ApplicationClocks => "clock setting of an administrator",
            Self::DisplayClocks => "clock setting of a display",
        }
    }
}

/// The reasons that throttle a clock, since when, and the earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throttling {
    /// By index in [`ThrottleReason::ALL`]: since when, for those in force.
    since: [Option<Timestamp>; 8],
    /// By index in [`ThrottleReason::ALL`]: for how long in total.
    held: [Duration; 8],
    /// The last spells that ended, newest last.
    past: VecDeque<Spell>,
    last_reading: Option<Timestamp>,
}

/// A time during which one reason throttled a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    pub reason: ThrottleReason,
    pub from: Timestamp,
    /// `None`: it continues.
    pub to: Option<Timestamp>,
}

impl Throttling {
    /// The reasons in force at `now`. A reason in force at the reading before counts for the time between.
    pub fn on_reading(&mut self, in_force: &[ThrottleReason], now: Timestamp) {
        let between = self.last_reading.map_or(Duration::ZERO, |last| now.since(last));
        for (index, reason) in ThrottleReason::ALL.into_iter().enumerate() {
            match (self.since[index], in_force.contains(&reason)) {
                (Some(_), true) => self.held[index] += between,
                (None, true) => self.since[index] = Some(self.resumed(reason, now).unwrap_or(now)),
                (Some(from), false) => {
                    self.held[index] += between;
                    self.since[index] = None;
                    self.past.push_back(Spell { reason, from, to: Some(now) });
                }
                (None, false) => {}
            }
        }
        while self.past.len() > PAST {
            self.past.pop_front();
        }
        self.last_reading = Some(now);
    }

    /// Whether this reason is in force.
    pub fn holds(&self, reason: ThrottleReason) -> bool {
        self.since[index(reason)].is_some()
    }

    /// For how long this reason has been in force in total.
    pub fn held(&self, reason: ThrottleReason) -> Duration {
        self.held[index(reason)]
    }

    /// The spells that go on now.
    pub fn now(&self) -> impl Iterator<Item = Spell> {
        let since = ThrottleReason::ALL.into_iter().zip(self.since);
        since.filter_map(|(reason, from)| Some(Spell { reason, from: from?, to: None }))
    }

    /// Every spell of which a part lies between `from` and `to`, as far back as is remembered.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = Spell> {
        let all = self.past.iter().copied().chain(self.now());
        all.filter(move |spell| spell.from <= to && spell.to.is_none_or(|end| end >= from))
    }

    /// A spell of this reason that ended so short a time ago that it is the same one; it is no longer past.
    fn resumed(&mut self, reason: ThrottleReason, now: Timestamp) -> Option<Timestamp> {
        let same = |spell: &Spell| spell.reason == reason && spell.to.is_some_and(|end| now.since(end) <= SAME);
        let index = self.past.iter().rposition(same)?;
        self.past.remove(index).map(|spell| spell.from)
    }
}

/// Errors that the driver reported (its log calls them Xid).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xid {
    pub count: u64,
    /// The last one's number, and when it was heard of.
    pub last: Option<(u64, Timestamp)>,
}

fn index(reason: ThrottleReason) -> usize {
    reason as usize
}

/// Spells remembered: a card that flaps must not push out the one beside which the knee moved at once.
const PAST: usize = 32;
/// A power cap varies with the load; a gap this short does not end a spell.
const SAME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn read(readings: &[(u64, &[ThrottleReason])]) -> Throttling {
        let mut throttling = Throttling::default();
        readings.iter().for_each(|(seconds, reasons)| throttling.on_reading(reasons, at(*seconds)));
        throttling
    }

    #[test]
    fn reasons_are_indexed_by_their_place() {
        assert!(ThrottleReason::ALL.into_iter().enumerate().all(|(i, reason)| index(reason) == i));
    }

    #[test]
    fn a_reason_in_force_has_its_beginning_and_total_time() {
        let hot = [ThrottleReason::HwThermal];
        let throttling = read(&[(10, &[]), (11, &hot), (12, &hot), (15, &hot)]);
        assert!(throttling.holds(ThrottleReason::HwThermal) && !throttling.holds(ThrottleReason::SwPowerCap));
        let spell = Spell { reason: ThrottleReason::HwThermal, from: at(11), to: None };
        assert_eq!(throttling.now().collect::<Vec<_>>(), [spell]);
        assert_eq!(throttling.held(ThrottleReason::HwThermal), Duration::from_secs(4));
        assert_eq!(throttling.held(ThrottleReason::SwPowerCap), Duration::ZERO);
    }

    #[test]
    fn a_spell_that_ended_is_found_where_it_lay_and_nowhere_else() {
        let cap = [ThrottleReason::SwPowerCap];
        let throttling = read(&[(100, &cap), (120, &[]), (300, &[])]);
        assert_eq!(throttling.now().count(), 0);
        let found = |from, to| throttling.between(at(from), at(to)).count();
        assert_eq!((found(90, 100), found(110, 115), found(120, 200)), (1, 1, 1));
        assert_eq!((found(0, 99), found(121, 200)), (0, 0));
    }

    #[test]
    fn a_short_gap_does_not_end_a_spell_and_a_long_one_does() {
        let cap = [ThrottleReason::SwPowerCap];
        let since = |gap: u64| read(&[(0, &cap), (10, &[]), (10 + gap, &cap)]).now().next().unwrap().from;
        assert_eq!((since(5), since(31)), (at(0), at(41)));
        let two = read(&[(0, &cap), (10, &[]), (12, &[ThrottleReason::HwThermal])]);
        assert_eq!(two.now().next().unwrap().from, at(12), "another reason does not go on");
    }

    #[test]
    fn the_past_is_bounded() {
        let mut throttling = Throttling::default();
        for n in 0..1000 {
            throttling.on_reading(&[ThrottleReason::SwPowerCap], at(n * 100));
            throttling.on_reading(&[], at(n * 100 + 10));
        }
        assert_eq!(throttling.between(at(0), at(u64::MAX / 1_000_000_000)).count(), PAST);
    }
}
