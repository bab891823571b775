//! What one backend has of us at this moment, exactly, and whether one more may be dispatched to it.
//!
//! Counts are kept by slot: whoever was dispatched gives his slot back once, and a slot that was given back means nothing any
//! more. It knows no queue and no deadline.

use std::collections::VecDeque;

use super::limits::Limits;
use super::request::{AdmissionRequest, Tenant};
use crate::vocabulary::class::Class;
use crate::vocabulary::mode::Mode;
use crate::vocabulary::time::Timestamp;

/// A dispatched request's place at its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    place: u32,
    generation: u32,
}

/// Whether one more may be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) enum GateVerdict {
    /// It may.
    Open,
    /// Enough are without a first token, or in flight at all.
    Full,
    /// The context in flight fills the memory.
    MemoryBound,
}

/// One backend's requests in flight.
#[derive(Debug, Default)]
pub(in crate::admission) struct Gate {
    flights: Vec<Flight>,
    vacant: Vec<u32>,
    /// In order of dispatch; who is no longer pending is taken out when he reaches the head, which always is.
    pending: VecDeque<(Slot, Timestamp)>,
    in_flight: u32,
    awaiting: u32,
    /// Prompt tokens of those without a first token.
    awaiting_tokens: f64,
    /// Prompt and answer tokens of all.
    context: f64,
    /// Smoothed prompt of what is dispatched.
    mean_prompt: Option<f64>,
    last_first_token: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    generation: u32,
    phase: FlightPhase,
    prompt: f64,
    tokens: u32,
    class: Class,
    tenant: Tenant,
    /// Answer tokens that its tenant was charged.
    charged: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlightPhase {
    Vacant,
    /// No first token yet.
    Pending,
    /// Emitting, or never going to show a first token.
    Running,
}

/// Of a request that has ended: whose it was, and by how much its tenant was charged too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::admission) struct EndedRequest {
    pub class: Class,
    pub tenant: Tenant,
    pub uncharged: f64,
}

impl Gate {
    /// Counts one more as dispatched, whatever the verdict; its tenant was charged `charged` answer tokens.
    pub fn dispatch(&mut self, ask: &AdmissionRequest, charged: f64, now: Timestamp) -> Slot {
        let prompt = tokens(ask.prompt);
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.flights.push(Flight::VACANT);
            (self.flights.len() - 1) as u32
        });
        let flight = &mut self.flights[place as usize];
        let generation = flight.generation;
        let phase = if ask.streamed { FlightPhase::Pending } else { FlightPhase::Running };
        *flight = Flight { generation, phase, prompt, tokens: 0, class: ask.class, tenant: ask.tenant, charged };
        let slot = Slot { place, generation };
        self.in_flight += 1;
        self.context += prompt;
        if ask.streamed {
            self.awaiting += 1;
            self.awaiting_tokens += prompt;
            self.pending.push_back((slot, now));
            self.trim();
        }
        self.mean_prompt = Some(self.mean_prompt.map_or(prompt, |mean| mean + PROMPT_GAIN * (prompt - mean)));
        slot
    }

    /// Its first token came; false if it was not waited for.
    pub fn on_first_token(&mut self, slot: Slot, now: Timestamp) -> bool {
        let Some(flight) = self.flight_mut(slot).filter(|flight| flight.phase == FlightPhase::Pending) else {
            return false;
        };
        flight.phase = FlightPhase::Running;
        let prompt = flight.prompt;
        self.no_longer_awaited(prompt);
        self.last_first_token = now;
        true
    }

    /// So many more tokens of its answer came.
    pub fn on_tokens(&mut self, slot: Slot, more: u32) {
        let Some(flight) = self.flight_mut(slot) else { return };
        let before = flight.tokens;
        flight.tokens = before.saturating_add(more);
        self.context += f64::from(flight.tokens - before);
    }

    /// It is over, however; `None` if it was already.
    pub fn on_end(&mut self, slot: Slot) -> Option<EndedRequest> {
        let flight = *self.flight_mut(slot)?;
        let vacant = &mut self.flights[slot.place as usize];
        *vacant = Flight { generation: slot.generation.wrapping_add(1), ..Flight::VACANT };
        self.vacant.push(slot.place);
        if flight.phase == FlightPhase::Pending {
            self.no_longer_awaited(flight.prompt);
        }
        self.in_flight -= 1;
        self.context -= flight.prompt + f64::from(flight.tokens);
        if self.in_flight == 0 {
            self.context = 0.0; // what rounding has left
        }
        let Flight { class, tenant, charged, .. } = flight;
        Some(EndedRequest { class, tenant, uncharged: f64::from(flight.tokens) - charged })
    }

    /// Who has waited longest for a first token, since when, and its prompt tokens.
    pub fn oldest_pending(&self) -> Option<(Timestamp, f64)> {
        let &(slot, since) = self.pending.front()?;
        Some((since, self.flights.get(slot.place as usize)?.prompt))
    }

    /// Whether one more of so many prompt tokens may be dispatched, of a class that may pass the window by `headroom`.
    ///
    /// An idle backend takes anything, and one that nobody waits at takes anything that fits its memory: otherwise a wrong
    /// limit would lock it up. Long prompts count for more: with two or more under way, their tokens are held to one and a
    /// half windows of usual prompts.
    pub fn verdict(&self, limits: &Limits, prompt: f32, headroom: f64, now: Timestamp) -> GateVerdict {
        let prompt = tokens(prompt);
        if limits.mode == Mode::Observe || self.in_flight == 0 {
            return GateVerdict::Open;
        }
        if limits.kv_cap.is_some_and(|cap| self.context + prompt > cap) {
            return GateVerdict::MemoryBound;
        }
        if limits.concurrency.is_some_and(|most| self.in_flight >= most) {
            return GateVerdict::Full;
        }
        let window = limits.window * (1.0 + headroom);
        let usual = self.mean_prompt.unwrap_or(prompt);
        let is_short = self.awaiting < 2 || self.awaiting_tokens + prompt <= LONG * window.max(2.0) * usual;
        let has_room = f64::from(self.awaiting) < window.round().max(1.0);
        let is_moving = self.awaiting < FEW || !self.is_stuck(limits, now);
        if self.awaiting == 0 || has_room && is_short && is_moving { GateVerdict::Open } else { GateVerdict::Full }
    }

    /// Prompt tokens of a request in flight; 0 if it is over.
    pub fn prompt(&self, slot: Slot) -> f64 {
        let flight = self.flights.get(slot.place as usize);
        flight.filter(|flight| flight.generation == slot.generation).map_or(0.0, |flight| flight.prompt)
    }

    /// Dispatched and not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Of those, streams without a first token.
    pub fn awaiting(&self) -> u32 {
        self.awaiting
    }

    /// Their prompt tokens.
    pub fn awaiting_tokens(&self) -> f64 {
        self.awaiting_tokens
    }

    /// Prompt and answer tokens of all in flight.
    pub fn context(&self) -> f64 {
        self.context
    }

    /// Prompt tokens of the usual request; 0 before the first.
    pub fn mean_prompt(&self) -> f64 {
        self.mean_prompt.unwrap_or(0.0)
    }

    /// When the last first token came.
    pub fn last_first_token(&self) -> Timestamp {
        self.last_first_token
    }

    /// Whether who waits longest has waited for much longer than the window aims at: the engine starts nobody now, and
    /// whoever is sent after would only wait there, where he cannot be called back.
    fn is_stuck(&self, limits: &Limits, now: Timestamp) -> bool {
        let Some((since, _)) = self.oldest_pending() else { return false };
        limits.concurrency.is_none()
            && now.since(since).as_secs_f64() > STUCK * limits.signals.ttft_target.max(limits.signals.typical_ttft)
    }

    fn flight_mut(&mut self, slot: Slot) -> Option<&mut Flight> {
        let flight = self.flights.get_mut(slot.place as usize)?;
        (flight.generation == slot.generation && flight.phase != FlightPhase::Vacant).then_some(flight)
    }

    fn no_longer_awaited(&mut self, prompt: f64) {
        self.awaiting -= 1;
        self.awaiting_tokens = if self.awaiting == 0 { 0.0 } else { self.awaiting_tokens - prompt };
        while self.pending.front().is_some_and(|(slot, _)| !self.is_pending(*slot)) {
            self.pending.pop_front();
        }
    }

    fn is_pending(&self, slot: Slot) -> bool {
        let flight = self.flights.get(slot.place as usize);
        flight.is_some_and(|flight| flight.generation == slot.generation && flight.phase == FlightPhase::Pending)
    }

    /// Those who left the line behind a head that stays: at most as many as are in flight, so constant time on average.
    fn trim(&mut self) {
        if self.pending.len() <= 2 * self.in_flight as usize + SHORT_LINE {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|(slot, _)| self.is_pending(*slot));
        self.pending = pending;
    }
}

impl Flight {
    const VACANT: Self = Self {
        generation: 0,
        phase: FlightPhase::Vacant,
        prompt: 0.0,
        tokens: 0,
        class: Class::Default,
        tenant: Tenant(0),
        charged: 0.0,
    };
}

/// A length that sums can be made of, whatever was told; at least one token.
pub(in crate::admission) fn tokens(prompt: f32) -> f64 {
    f64::from(prompt).clamp(1.0, MOST_TOKENS)
}

/// Gain of the smoothed prompt.
const PROMPT_GAIN: f64 = 0.02;
/// Windows of usual prompts that long ones may fill.
const LONG: f64 = 1.5;
/// Times the goal after which the engine starts nobody.
const STUCK: f64 = 1.5;
/// So many may be sent to it all the same: when it starts again, they are there.
const FEW: u32 = 2;
const SHORT_LINE: usize = 64;
const MOST_TOKENS: f64 = 1e8;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

    fn limits(window: f64) -> Limits {
        Limits { window, ..Limits::new(Mode::Enforce) }
    }

    fn ask(prompt: f32) -> AdmissionRequest {
        AdmissionRequest::new(NOW, prompt)
    }

    fn filled(prompts: &[f32]) -> (Gate, Vec<Slot>) {
        let mut gate = Gate::default();
        let slots = prompts.iter().map(|&prompt| gate.dispatch(&ask(prompt), 0.0, NOW)).collect();
        (gate, slots)
    }

    #[test]
    fn the_window_holds_those_without_a_first_token_and_nobody_else() {
        let (mut gate, slots) = filled(&[100.0; 4]);
        assert_eq!(gate.verdict(&limits(4.0), 100.0, 0.0, NOW), GateVerdict::Full);
        assert_eq!(gate.verdict(&limits(5.0), 100.0, 0.0, NOW), GateVerdict::Open);
        assert!(gate.on_first_token(slots[0], NOW));
        assert_eq!(gate.verdict(&limits(4.0), 100.0, 0.0, NOW), GateVerdict::Open, "it decodes now");
        assert_eq!((gate.in_flight(), gate.awaiting()), (4, 3));
    }

    #[test]
    fn headroom_passes_the_window_by_its_percentage() {
        let (gate, _) = filled(&[100.0; 10]);
        assert_eq!(gate.verdict(&limits(10.0), 100.0, 0.0, NOW), GateVerdict::Full);
        assert_eq!(gate.verdict(&limits(10.0), 100.0, 0.1, NOW), GateVerdict::Open);
        let (gate, _) = filled(&[100.0; 11]);
        assert_eq!(gate.verdict(&limits(10.0), 100.0, 0.1, NOW), GateVerdict::Full);
    }

    #[test]
    fn long_prompts_fill_it_sooner() {
        let (gate, _) = filled(&[100.0; 3]);
        assert_eq!(gate.verdict(&limits(4.0), 300.0, 0.0, NOW), GateVerdict::Open);
        assert_eq!(gate.verdict(&limits(4.0), 301.0, 0.0, NOW), GateVerdict::Full);
        let (gate, _) = filled(&[100.0]);
        assert_eq!(gate.verdict(&limits(4.0), 9e9, 0.0, NOW), GateVerdict::Open, "two long ones may always go");
    }

    #[test]
    fn an_idle_backend_takes_anything_and_one_nobody_waits_at_what_fits_its_memory() {
        let capped = Limits { kv_cap: Some(1_000.0), window: 1.0, ..limits(1.0) };
        let mut gate = Gate::default();
        assert_eq!(gate.verdict(&capped, 5_000.0, 0.0, NOW), GateVerdict::Open);
        let slot = gate.dispatch(&ask(600.0), 0.0, NOW);
        assert_eq!(gate.verdict(&capped, 401.0, 0.0, NOW), GateVerdict::MemoryBound);
        gate.on_first_token(slot, NOW);
        assert_eq!(gate.verdict(&capped, 400.0, 0.0, NOW), GateVerdict::Open);
        gate.on_tokens(slot, 1);
        assert_eq!(gate.verdict(&capped, 400.0, 0.0, NOW), GateVerdict::MemoryBound, "answers fill memory too");
    }

    #[test]
    fn a_policy_of_in_flight_holds_all_of_them() {
        let (mut gate, slots) = filled(&[1.0; 3]);
        let limits = Limits { window: f64::INFINITY, concurrency: Some(3), ..limits(1.0) };
        slots.iter().for_each(|slot| assert!(gate.on_first_token(*slot, NOW)));
        assert_eq!(gate.verdict(&limits, 1.0, 0.0, NOW), GateVerdict::Full);
        gate.on_end(slots[1]);
        assert_eq!(gate.verdict(&limits, 1.0, 0.0, NOW), GateVerdict::Open);
    }

    #[test]
    fn in_mode_observe_everything_goes() {
        let (gate, _) = filled(&[100.0; 50]);
        assert_eq!(gate.verdict(&Limits::new(Mode::Observe), 100.0, 0.0, NOW), GateVerdict::Open);
    }

    #[test]
    fn a_slot_is_given_back_once_and_means_nothing_afterwards() {
        let (mut gate, slots) = filled(&[100.0, 50.0]);
        gate.on_tokens(slots[0], 7);
        assert_eq!(gate.context(), 157.0);
        let ended = gate.on_end(slots[0]).unwrap();
        assert_eq!(ended.uncharged, 7.0);
        assert_eq!(gate.on_end(slots[0]), None);
        let reused = gate.dispatch(&ask(10.0), 0.0, NOW);
        assert_eq!(reused.place, slots[0].place);
        assert!(!gate.on_first_token(slots[0], NOW), "the old name is not the new one's");
        gate.on_tokens(slots[0], 1_000);
        assert_eq!((gate.context(), gate.awaiting(), gate.awaiting_tokens()), (60.0, 2, 60.0));
    }

    #[test]
    fn the_oldest_pending_is_the_first_dispatched_that_still_waits() {
        let mut gate = Gate::default();
        let at = |second: u64| Timestamp::from_nanos(second * 1_000_000_000);
        let slots: Vec<Slot> = (1..=3).map(|second| gate.dispatch(&ask(second as f32), 0.0, at(second))).collect();
        gate.on_first_token(slots[1], at(4));
        assert_eq!(gate.oldest_pending(), Some((at(1), 1.0)));
        gate.on_end(slots[0]);
        assert_eq!(gate.oldest_pending(), Some((at(3), 3.0)));
        gate.on_first_token(slots[2], at(5));
        assert_eq!((gate.oldest_pending(), gate.last_first_token()), (None, at(5)));
    }

    #[test]
    fn an_answer_that_is_not_streamed_counts_in_flight_and_nothing_else() {
        let mut gate = Gate::default();
        let slot = gate.dispatch(&AdmissionRequest { streamed: false, ..ask(100.0) }, 0.0, NOW);
        assert_eq!((gate.in_flight(), gate.awaiting(), gate.context()), (1, 0, 100.0));
        assert!(!gate.on_first_token(slot, NOW));
        gate.on_end(slot);
        assert_eq!((gate.in_flight(), gate.context()), (0, 0.0));
    }

    #[test]
    fn a_line_of_those_gone_does_not_grow() {
        let mut gate = Gate::default();
        let _stays = gate.dispatch(&ask(1.0), 0.0, NOW);
        for _ in 0..10_000 {
            let slot = gate.dispatch(&ask(1.0), 0.0, NOW);
            gate.on_end(slot);
        }
        assert!(gate.pending.len() <= 100 && gate.flights.len() <= 2, "{} {}", gate.pending.len(), gate.flights.len());
    }
}
