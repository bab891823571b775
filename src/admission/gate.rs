//! The requests in flight at one backend, counted exactly, and whether one more may be dispatched.
//!
//! Counts are kept by slot. A dispatched request releases its slot once, and a released slot no longer identifies anything.
//!
//! Absent: the queue and deadlines.

use std::collections::VecDeque;

use super::limits::Limits;
use super::request::{AdmissionRequest, Tenant};
use crate::vocabulary::class::Class;
use crate::vocabulary::mode::Mode;
use crate::vocabulary::time::Timestamp;

/// A dispatched request at its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    index: u32,
    generation: u32,
}

/// Whether one more request may be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) enum GateVerdict {
    Open,
    /// The window or the concurrency limit is reached.
    Full,
    /// The KV cap is reached.
    MemoryBound,
}

/// One backend's requests in flight.
#[derive(Debug, Default)]
pub(in crate::admission) struct Gate {
    slots: Vec<InFlightRequest>,
    vacant: Vec<u32>,
    /// In order of dispatch. The head is always pending; an entry behind it that no longer is goes when it reaches the head.
    pending: VecDeque<(Slot, Timestamp)>,
    in_flight: u32,
    awaiting: u32,
    /// Prompt tokens of the requests without a first token.
    awaiting_tokens: f64,
    /// Prompt and answer tokens of all requests in flight.
    context: f64,
    /// Smoothed prompt tokens of the dispatched requests.
    mean_prompt: Option<f64>,
    last_first_token: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct InFlightRequest {
    generation: u32,
    phase: SlotPhase,
    prompt: f64,
    tokens: u32,
    class: Class,
    tenant: Tenant,
    /// Answer tokens that its tenant was charged at dispatch.
    charged: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotPhase {
    Vacant,
    /// No first token yet.
    Pending,
    /// Its first token was seen, or will never be.
    Running,
}

/// A request that ended, and by how many answer tokens its tenant was undercharged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::admission) struct EndedRequest {
    pub class: Class,
    pub tenant: Tenant,
    pub uncharged: f64,
}

impl Gate {
    /// Counts a request as dispatched, whatever the verdict was. Its tenant was charged `charged` answer tokens.
    pub fn dispatch(&mut self, request: &AdmissionRequest, charged: f64, now: Timestamp) -> Slot {
        let prompt = tokens(request.prompt);
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(InFlightRequest::VACANT);
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[index as usize];
        let generation = entry.generation;
        let phase = if request.streamed { SlotPhase::Pending } else { SlotPhase::Running };
        *entry = InFlightRequest {
            generation,
            phase,
            prompt,
            tokens: 0,
            class: request.class,
            tenant: request.tenant,
            charged,
        };
        let slot = Slot { index, generation };
        self.in_flight += 1;
        self.context += prompt;
        if request.streamed {
            self.awaiting += 1;
            self.awaiting_tokens += prompt;
            self.pending.push_back((slot, now));
            self.compact_pending();
        }
        self.mean_prompt = Some(self.mean_prompt.map_or(prompt, |mean| mean + PROMPT_GAIN * (prompt - mean)));
        slot
    }

    /// `false` if the slot was not pending.
    pub fn on_first_token(&mut self, slot: Slot, now: Timestamp) -> bool {
        let Some(entry) = self.in_flight_mut(slot).filter(|entry| entry.phase == SlotPhase::Pending) else {
            return false;
        };
        entry.phase = SlotPhase::Running;
        let prompt = entry.prompt;
        self.stop_awaiting(prompt);
        self.last_first_token = now;
        true
    }

    /// `more` tokens of its answer arrived.
    pub fn on_tokens(&mut self, slot: Slot, more: u32) {
        let Some(entry) = self.in_flight_mut(slot) else { return };
        let before = entry.tokens;
        entry.tokens = before.saturating_add(more);
        self.context += f64::from(entry.tokens - before);
    }

    /// The request ended, in any way; `None` if it had ended already.
    pub fn on_end(&mut self, slot: Slot) -> Option<EndedRequest> {
        let entry = *self.in_flight_mut(slot)?;
        let vacant = &mut self.slots[slot.index as usize];
        *vacant = InFlightRequest { generation: slot.generation.wrapping_add(1), ..InFlightRequest::VACANT };
        self.vacant.push(slot.index);
        if entry.phase == SlotPhase::Pending {
            self.stop_awaiting(entry.prompt);
        }
        self.in_flight -= 1;
        self.context -= entry.prompt + f64::from(entry.tokens);
        if self.in_flight == 0 {
            self.context = 0.0; // what rounding left
        }
        let InFlightRequest { class, tenant, charged, .. } = entry;
        Some(EndedRequest { class, tenant, uncharged: f64::from(entry.tokens) - charged })
    }

    /// The dispatch time and prompt tokens of the request that has waited longest for a first token.
    pub fn oldest_pending(&self) -> Option<(Timestamp, f64)> {
        let &(slot, since) = self.pending.front()?;
        Some((since, self.slots.get(slot.index as usize)?.prompt))
    }

    /// Whether a request of `prompt` tokens may be dispatched, of a class that may exceed the window by `headroom`.
    ///
    /// An idle backend accepts any request, and one without pending requests accepts any that fits its memory: otherwise a wrong
    /// limit would block it for ever. Long prompts count for more: with two or more pending, their tokens may fill 1.5 windows of
    /// mean prompts.
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
        let mean_prompt = self.mean_prompt.unwrap_or(prompt);
        let prompts_fit =
            self.awaiting < 2 || self.awaiting_tokens + prompt <= LONG_PROMPT_WINDOWS * window.max(2.0) * mean_prompt;
        let window_fits = f64::from(self.awaiting) < window.round().max(1.0);
        let engine_starts = self.awaiting < ALLOWED_WHEN_STUCK || !self.is_stuck(limits, now);
        if self.awaiting == 0 || window_fits && prompts_fit && engine_starts {
            GateVerdict::Open
        } else {
            GateVerdict::Full
        }
    }

    /// Prompt tokens of a request in flight; 0 if it ended.
    pub fn prompt(&self, slot: Slot) -> f64 {
        let entry = self.slots.get(slot.index as usize);
        entry.filter(|entry| entry.generation == slot.generation).map_or(0.0, |entry| entry.prompt)
    }

    /// Requests dispatched and not ended.
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

    /// Prompt tokens of the mean request; 0 before the first.
    pub fn mean_prompt(&self) -> f64 {
        self.mean_prompt.unwrap_or(0.0)
    }

    /// When the last first token arrived.
    pub fn last_first_token(&self) -> Timestamp {
        self.last_first_token
    }

    /// Whether the oldest pending request has waited much longer than the window aims at: the engine starts no request now, and
    /// further ones would wait there, where they cannot be refused or moved.
    fn is_stuck(&self, limits: &Limits, now: Timestamp) -> bool {
        let Some((since, _)) = self.oldest_pending() else { return false };
        limits.concurrency.is_none()
            && now.since(since).as_secs_f64() > STUCK * limits.signals.ttft_target.max(limits.signals.typical_ttft)
    }

    fn in_flight_mut(&mut self, slot: Slot) -> Option<&mut InFlightRequest> {
        let entry = self.slots.get_mut(slot.index as usize)?;
        (entry.generation == slot.generation && entry.phase != SlotPhase::Vacant).then_some(entry)
    }

    fn stop_awaiting(&mut self, prompt: f64) {
        self.awaiting -= 1;
        self.awaiting_tokens = if self.awaiting == 0 { 0.0 } else { self.awaiting_tokens - prompt };
        while self.pending.front().is_some_and(|(slot, _)| !self.is_pending(*slot)) {
            self.pending.pop_front();
        }
    }

    fn is_pending(&self, slot: Slot) -> bool {
        let entry = self.slots.get(slot.index as usize);
        entry.is_some_and(|entry| entry.generation == slot.generation && entry.phase == SlotPhase::Pending)
    }

    /// Drops entries that ended behind a pending head. At least as many were added since the last time, so it is amortised O(1).
    fn compact_pending(&mut self) {
        if self.pending.len() <= 2 * self.in_flight as usize + PENDING_SLACK {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|(slot, _)| self.is_pending(*slot));
        self.pending = pending;
    }
}

impl InFlightRequest {
    const VACANT: Self = Self {
        generation: 0,
        phase: SlotPhase::Vacant,
        prompt: 0.0,
        tokens: 0,
        class: Class::Default,
        tenant: Tenant(0),
        charged: 0.0,
    };
}

/// A finite prompt length of at least one token, whatever the client claims.
pub(in crate::admission) fn tokens(prompt: f32) -> f64 {
    f64::from(prompt).clamp(1.0, MOST_TOKENS)
}

/// Gain of the smoothed prompt.
const PROMPT_GAIN: f64 = 0.02;
/// Windows of mean prompts that pending prompts may fill.
const LONG_PROMPT_WINDOWS: f64 = 1.5;
/// Multiples of the target after which the engine counts as stuck.
const STUCK: f64 = 1.5;
/// Pending requests allowed at a stuck engine, so that it has work when it starts again.
const ALLOWED_WHEN_STUCK: u32 = 2;
const PENDING_SLACK: usize = 64;
const MOST_TOKENS: f64 = 1e8;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

    fn limits(window: f64) -> Limits {
        Limits { window, ..Limits::new(Mode::Enforce) }
    }

    fn request(prompt: f32) -> AdmissionRequest {
        AdmissionRequest::new(NOW, prompt)
    }

    fn filled(prompts: &[f32]) -> (Gate, Vec<Slot>) {
        let mut gate = Gate::default();
        let slots = prompts.iter().map(|&prompt| gate.dispatch(&request(prompt), 0.0, NOW)).collect();
        (gate, slots)
    }

    #[test]
    fn the_window_counts_only_requests_without_a_first_token() {
        let (mut gate, slots) = filled(&[100.0; 4]);
        assert_eq!(gate.verdict(&limits(4.0), 100.0, 0.0, NOW), GateVerdict::Full);
        assert_eq!(gate.verdict(&limits(5.0), 100.0, 0.0, NOW), GateVerdict::Open);
        assert!(gate.on_first_token(slots[0], NOW));
        assert_eq!(gate.verdict(&limits(4.0), 100.0, 0.0, NOW), GateVerdict::Open, "it decodes now");
        assert_eq!((gate.in_flight(), gate.awaiting()), (4, 3));
    }

    #[test]
    fn headroom_exceeds_the_window_by_its_share() {
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
        assert_eq!(gate.verdict(&limits(4.0), 9e9, 0.0, NOW), GateVerdict::Open, "two long prompts always fit");
    }

    #[test]
    fn an_idle_backend_accepts_anything_a_busy_one_what_fits() {
        let capped = Limits { kv_cap: Some(1_000.0), window: 1.0, ..limits(1.0) };
        let mut gate = Gate::default();
        assert_eq!(gate.verdict(&capped, 5_000.0, 0.0, NOW), GateVerdict::Open);
        let slot = gate.dispatch(&request(600.0), 0.0, NOW);
        assert_eq!(gate.verdict(&capped, 401.0, 0.0, NOW), GateVerdict::MemoryBound);
        gate.on_first_token(slot, NOW);
        assert_eq!(gate.verdict(&capped, 400.0, 0.0, NOW), GateVerdict::Open);
        gate.on_tokens(slot, 1);
        assert_eq!(gate.verdict(&capped, 400.0, 0.0, NOW), GateVerdict::MemoryBound, "answers fill memory too");
    }

    #[test]
    fn a_concurrency_limit_counts_all_in_flight() {
        let (mut gate, slots) = filled(&[1.0; 3]);
        let limits = Limits { window: f64::INFINITY, concurrency: Some(3), ..limits(1.0) };
        slots.iter().for_each(|slot| assert!(gate.on_first_token(*slot, NOW)));
        assert_eq!(gate.verdict(&limits, 1.0, 0.0, NOW), GateVerdict::Full);
        gate.on_end(slots[1]);
        assert_eq!(gate.verdict(&limits, 1.0, 0.0, NOW), GateVerdict::Open);
    }

    #[test]
    fn in_mode_observe_everything_is_dispatched() {
        let (gate, _) = filled(&[100.0; 50]);
        assert_eq!(gate.verdict(&Limits::new(Mode::Observe), 100.0, 0.0, NOW), GateVerdict::Open);
    }

    #[test]
    fn a_slot_is_released_once_and_means_nothing_afterwards() {
        let (mut gate, slots) = filled(&[100.0, 50.0]);
        gate.on_tokens(slots[0], 7);
        assert_eq!(gate.context(), 157.0);
        let ended = gate.on_end(slots[0]).unwrap();
        assert_eq!(ended.uncharged, 7.0);
        assert_eq!(gate.on_end(slots[0]), None);
        let reused = gate.dispatch(&request(10.0), 0.0, NOW);
        assert_eq!(reused.index, slots[0].index);
        assert!(!gate.on_first_token(slots[0], NOW), "the old slot is not the new one");
        gate.on_tokens(slots[0], 1_000);
        assert_eq!((gate.context(), gate.awaiting(), gate.awaiting_tokens()), (60.0, 2, 60.0));
    }

    #[test]
    fn the_oldest_pending_is_the_first_dispatched_that_still_waits() {
        let mut gate = Gate::default();
        let at = |second: u64| Timestamp::from_nanos(second * 1_000_000_000);
        let slots: Vec<Slot> = (1..=3).map(|second| gate.dispatch(&request(second as f32), 0.0, at(second))).collect();
        gate.on_first_token(slots[1], at(4));
        assert_eq!(gate.oldest_pending(), Some((at(1), 1.0)));
        gate.on_end(slots[0]);
        assert_eq!(gate.oldest_pending(), Some((at(3), 3.0)));
        gate.on_first_token(slots[2], at(5));
        assert_eq!((gate.oldest_pending(), gate.last_first_token()), (None, at(5)));
    }

    #[test]
    fn an_unstreamed_answer_counts_in_flight_only() {
        let mut gate = Gate::default();
        let slot = gate.dispatch(&AdmissionRequest { streamed: false, ..request(100.0) }, 0.0, NOW);
        assert_eq!((gate.in_flight(), gate.awaiting(), gate.context()), (1, 0, 100.0));
        assert!(!gate.on_first_token(slot, NOW));
        gate.on_end(slot);
        assert_eq!((gate.in_flight(), gate.context()), (0, 0.0));
    }

    #[test]
    fn ended_requests_behind_a_pending_one_do_not_pile_up() {
        let mut gate = Gate::default();
        let _stays = gate.dispatch(&request(1.0), 0.0, NOW);
        for _ in 0..10_000 {
            let slot = gate.dispatch(&request(1.0), 0.0, NOW);
            gate.on_end(slot);
        }
        assert!(gate.pending.len() <= 100 && gate.slots.len() <= 2, "{} {}", gate.pending.len(), gate.slots.len());
    }
}
