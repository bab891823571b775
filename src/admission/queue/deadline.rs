//! Whether a request can still be in time: at arrival by the line before it, at dispatch by what the engine takes.
//!
//! Where prompts are most of the work their tokens are added up, otherwise requests are counted.

use super::class_queue::Queue;
use super::scheduler;
use crate::admission::gate::{Gate, tokens};
use crate::admission::limits::Limits;
use crate::admission::request::AdmissionRequest;
use crate::admission::settings::Settings;
use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// One look at a line.
pub(in crate::admission) struct Outlook<'a, T> {
    pub limits: &'a Limits,
    pub settings: &'a Settings,
    pub queue: &'a Queue<T>,
    pub gate: &'a Gate,
    /// Who has waited longest for a first token, since when.
    pub oldest: Option<(Timestamp, f64)>,
    pub now: Timestamp,
}

impl<T> Outlook<'_, T> {
    /// Whether the line is too long for it. An empty one never is, nor one in which the next turn is its class's.
    pub fn is_hopeless(&self, ask: &AdmissionRequest) -> bool {
        let class = self.queue.class(ask.class);
        if self.queue.is_empty() || class.requests == 0 && scheduler::is_due(self.queue, ask.class) {
            return false;
        }
        let Some(slo) = ask.slo.map(|slo| slo.as_secs_f64()) else {
            return self.wait(ask) > self.settings.max_wait.as_secs_f64();
        };
        let age = ask.age(self.now);
        if let Some(per_token) = self.limits.signals.per_prompt_token {
            let (ahead, left_over) = self.ahead(ask, |lane| lane.tokens());
            let waiting = per_token * (ahead / left_over + self.gate.awaiting_tokens() + self.own(ask));
            return age + waiting - self.progress(per_token) > slo;
        }
        let predicted = self.limits.signals.expected_ttft(f64::from(ask.prompt), 1.0);
        age + self.wait(ask) > 0.9 * (slo - predicted.min(0.7 * slo))
    }

    /// Whether its first token would come too late if it were dispatched now. On the spot nobody is too late.
    pub fn is_late(&self, ask: &AdmissionRequest) -> bool {
        let age = ask.age(self.now);
        let Some(slo) = ask.slo.map(|slo| slo.as_secs_f64()) else {
            return age > self.settings.max_wait.as_secs_f64();
        };
        age > 0.0 && age + self.expected(ask, slo) > slo
    }

    /// Seconds until its turn.
    pub fn wait(&self, ask: &AdmissionRequest) -> f64 {
        let (ahead, left_over) = self.ahead(ask, |lane| lane.len() as f64);
        if ahead == 0.0 { 0.0 } else { ahead / (self.rate() * left_over) }
    }

    /// What stands before it, and the share of the starts that those who will still come before it leave.
    fn ahead(&self, ask: &AdmissionRequest, count: impl Fn(&super::tenant_queue::TenantQueue<T>) -> f64) -> (f64, f64) {
        let own = self.queue.class(ask.class);
        let of_tenant = own.lanes.get(&ask.tenant).map_or(0.0, &count);
        let others = own.waiting().filter(|(tenant, _)| *tenant != ask.tenant).count() as f64;
        let before = Class::ALL.into_iter().take(ask.class.index());
        let (mut earlier, mut arriving) = (0.0, 0.0);
        for class in before {
            earlier += self.queue.class(class).waiting().map(|(_, lane)| count(lane)).sum::<f64>();
            arriving += self.queue.class(class).arrival_rate(self.seconds());
        }
        let share = self.settings.classes.of(ask.class).share.max(LEAST);
        let left_over = (1.0 - arriving / self.rate()).max(share);
        (earlier + of_tenant * (others + 1.0), left_over)
    }

    /// Starts per second: those seen while somebody waited, or what the window makes of the last times.
    pub fn rate(&self) -> f64 {
        let signals = &self.limits.signals;
        let by_window = self.limits.window / signals.recent_ttft.max(self.oldest_age()).max(SHORTEST);
        let by_window = if by_window.is_finite() { by_window } else { 0.0 };
        signals.busy_start_rate.max(by_window).max(SLOWEST)
    }

    /// From dispatch to first token. With nobody pending there is nothing to wait for, whatever the last ones went through: a
    /// gate that refused then would never see that times have changed.
    fn expected(&self, ask: &AdmissionRequest, slo: f64) -> f64 {
        let signals = &self.limits.signals;
        if let Some(per_token) = signals.per_prompt_token {
            let work = per_token * (self.gate.awaiting_tokens() + self.own(ask));
            return work - self.progress(per_token) + 0.5 * signals.step_time;
        }
        let prompt = f64::from(ask.prompt);
        if self.gate.awaiting() == 0 {
            return signals.unloaded_ttft(prompt).min(0.9 * slo);
        }
        signals.expected_ttft(prompt, 0.0).min(0.9 * slo) + signals.excess_ttft_deviation.min(0.2 * slo)
    }

    /// Seconds of the pending prompts' work that are done already.
    fn progress(&self, per_token: f64) -> f64 {
        let Some((_, prompt)) = self.oldest else { return 0.0 };
        self.now.since(self.gate.last_first_token()).as_secs_f64().min(0.8 * per_token * prompt)
    }

    fn own(&self, ask: &AdmissionRequest) -> f64 {
        if self.settings.length_aware { tokens(ask.prompt) } else { self.gate.mean_prompt() }
    }

    fn oldest_age(&self) -> f64 {
        self.oldest.map_or(0.0, |(since, _)| self.now.since(since).as_secs_f64())
    }

    fn seconds(&self) -> f64 {
        self.now.since(Timestamp::ZERO).as_secs_f64()
    }
}

/// Seconds; a first token that came at once must not look like an endless rate.
const SHORTEST: f64 = 0.01;
/// Starts per second that are assumed of any engine before anything is seen.
const SLOWEST: f64 = 0.3;
/// Share of the starts that a later class is assumed to get in any case.
const LEAST: f64 = 0.05;
