//! What is known of one GPU at one moment: figures that may each be missing, spells of throttling, XID errors.
//!
//! Values only, shared by whoever reads GPUs and whoever shows them. They know no library and no way to be read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::vocabulary::time::Timestamp;

/// Which GPU this is, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The driver's index, or `GPU:INSTANCE` for an instance of a divided one (MIG).
    pub gpu: String,
    /// The driver's own name for it, which survives a reboot; empty where it does not tell.
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
    /// Whether it answered the last time it was asked, and that was not long ago.
    pub up: bool,
    pub figures: Figures,
    /// Why its clock is and was held back; `None` where that cannot be read.
    pub throttling: Option<Throttling>,
    /// Errors that the driver reported since weir listens; `None` where it cannot.
    pub xid: Option<Xid>,
}

impl Device {
    /// The same without anything that was read: only who it is.
    #[must_use]
    pub fn silent(&self) -> Self {
        Self { identity: self.identity.clone(), backends: self.backends.clone(), ..Self::default() }
    }
}

/// What one round of questions brought. Each figure is missing where it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Share of the last moments in which some kernel ran.
    pub utilization: Option<f64>,
    /// Bytes of device memory.
    pub memory_used: Option<f64>,
    pub memory_total: Option<f64>,
    /// Watts drawn, and the most that the driver lets it draw.
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

/// Why a clock is held back, in the words of `nvidia-smi`. Idleness is not among them.
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

/// Which reasons hold a clock back, since when, and which did before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throttling {
    /// By place in [`Reason::ALL`]: since when, for those in force.
    since: [Option<Timestamp>; 8],
    /// By place in [`Reason::ALL`]: for how long in all.
    held: [Duration; 8],
    /// The last spells that ended, newest last.
    past: VecDeque<Spell>,
    told: Option<Timestamp>,
}

/// A time during which one reason held a clock back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    pub reason: ThrottleReason,
    pub from: Timestamp,
    /// `None`: it goes on.
    pub to: Option<Timestamp>,
}

impl Throttling {
    /// The reasons in force at `now`. What was in force at the reading before counts for the time between.
    pub fn on_reading(&mut self, in_force: &[ThrottleReason], now: Timestamp) {
        let between = self.told.map_or(Duration::ZERO, |told| now.since(told));
        for (place, reason) in ThrottleReason::ALL.into_iter().enumerate() {
            match (self.since[place], in_force.contains(&reason)) {
                (Some(_), true) => self.held[place] += between,
                (None, true) => self.since[place] = Some(self.resumed(reason, now).unwrap_or(now)),
                (Some(from), false) => {
                    self.held[place] += between;
                    self.since[place] = None;
                    self.past.push_back(Spell { reason, from, to: Some(now) });
                }
                (None, false) => {}
            }
        }
        while self.past.len() > PAST {
            self.past.pop_front();
        }
        self.told = Some(now);
    }

    /// Whether this reason is in force.
    pub fn holds(&self, reason: ThrottleReason) -> bool {
        self.since[place(reason)].is_some()
    }

    /// For how long this reason has been in force in all.
    pub fn held(&self, reason: ThrottleReason) -> Duration {
        self.held[place(reason)]
    }

    /// What holds the clock back now.
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
        let place = self.past.iter().rposition(same)?;
        self.past.remove(place).map(|spell| spell.from)
    }
}

/// Errors that the driver reported (its log calls them Xid).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xid {
    pub count: u64,
    /// The last one's number, and when it was heard of.
    pub last: Option<(u64, Timestamp)>,
}

fn place(reason: ThrottleReason) -> usize {
    reason as usize
}

/// Spells remembered: a card that flaps must not push out the one beside which the knee moved at once.
const PAST: usize = 32;
/// A power cap comes and goes with the load; a gap this short is no end.
const SAME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn told(readings: &[(u64, &[ThrottleReason])]) -> Throttling {
        let mut throttling = Throttling::default();
        readings.iter().for_each(|(seconds, reasons)| throttling.on_reading(reasons, at(*seconds)));
        throttling
    }

    #[test]
    fn reasons_are_indexed_by_their_place() {
        assert!(ThrottleReason::ALL.into_iter().enumerate().all(|(index, reason)| place(reason) == index));
    }

    #[test]
    fn a_reason_in_force_is_told_with_its_beginning_and_its_time_adds_up() {
        let hot = [ThrottleReason::HwThermal];
        let throttling = told(&[(10, &[]), (11, &hot), (12, &hot), (15, &hot)]);
        assert!(throttling.holds(ThrottleReason::HwThermal) && !throttling.holds(ThrottleReason::SwPowerCap));
        let spell = Spell { reason: ThrottleReason::HwThermal, from: at(11), to: None };
        assert_eq!(throttling.now().collect::<Vec<_>>(), [spell]);
        assert_eq!(throttling.held(ThrottleReason::HwThermal), Duration::from_secs(4));
        assert_eq!(throttling.held(ThrottleReason::SwPowerCap), Duration::ZERO);
    }

    #[test]
    fn a_spell_that_ended_is_found_where_it_lay_and_nowhere_else() {
        let cap = [ThrottleReason::SwPowerCap];
        let throttling = told(&[(100, &cap), (120, &[]), (300, &[])]);
        assert_eq!(throttling.now().count(), 0);
        let found = |from, to| throttling.between(at(from), at(to)).count();
        assert_eq!((found(90, 100), found(110, 115), found(120, 200)), (1, 1, 1));
        assert_eq!((found(0, 99), found(121, 200)), (0, 0));
    }

    #[test]
    fn a_short_gap_does_not_end_a_spell_and_a_long_one_does() {
        let cap = [ThrottleReason::SwPowerCap];
        let since = |gap: u64| told(&[(0, &cap), (10, &[]), (10 + gap, &cap)]).now().next().unwrap().from;
        assert_eq!((since(5), since(31)), (at(0), at(41)));
        let two = told(&[(0, &cap), (10, &[]), (12, &[ThrottleReason::HwThermal])]);
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
