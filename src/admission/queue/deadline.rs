//! Whether a request can still meet its deadline: at arrival by the queue before it, at dispatch by the engine's own time.
//!
//! Where prompts are most of the work, their tokens are added up; otherwise requests are counted.

use super::class_queue::ClassQueues;
use super::scheduler;
use super::tenant_queue::TenantQueue;
use crate::admission::gate::{Gate, tokens};
use crate::admission::limits::Limits;
use crate::admission::request::AdmissionRequest;
use crate::admission::settings::Settings;
use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// The refusal rule, over one backend at one moment.
pub(super) struct DeadlineCheck<'a, T> {
    pub limits: &'a Limits,
    pub settings: &'a Settings,
    pub queue: &'a ClassQueues<T>,
    pub gate: &'a Gate,
    /// The oldest pending request: its dispatch time and prompt tokens.
    pub oldest: Option<(Timestamp, f64)>,
    pub now: Timestamp,
}

impl<T> DeadlineCheck<'_, T> {
    /// Whether the queue is too long for it. An empty queue never is, nor one in which its class is due.
    pub fn is_hopeless(&self, request: &AdmissionRequest) -> bool {
        let class = self.queue.class(request.class);
        if self.queue.is_empty() || class.requests == 0 && scheduler::is_due(self.queue, request.class) {
            return false;
        }
        let Some(slo) = request.slo.map(|slo| slo.as_secs_f64()) else {
            return self.wait(request) > self.settings.max_wait.as_secs_f64();
        };
        let age = request.age(self.now);
        if let Some(per_token) = self.limits.signals.per_prompt_token {
            let (ahead, left_over) = self.ahead(request, |tenant_queue| tenant_queue.tokens());
            let waiting = per_token * (ahead / left_over + self.gate.awaiting_tokens() + self.own_tokens(request));
            return age + waiting - self.progress(per_token) > slo;
        }
        let predicted = self.limits.signals.expected_ttft(f64::from(request.prompt), 1.0);
        age + self.wait(request) > 0.9 * (slo - predicted.min(0.7 * slo))
    }

    /// Whether its first token would be late if it were dispatched now. A request is never late at its arrival.
    pub fn is_late(&self, request: &AdmissionRequest) -> bool {
        let age = request.age(self.now);
        let Some(slo) = request.slo.map(|slo| slo.as_secs_f64()) else {
            return age > self.settings.max_wait.as_secs_f64();
        };
        age > 0.0 && age + self.expected(request, slo) > slo
    }

    /// Seconds until it would be dispatched.
    pub fn wait(&self, request: &AdmissionRequest) -> f64 {
        let (ahead, left_over) = self.ahead(request, |tenant_queue| tenant_queue.len() as f64);
        if ahead == 0.0 { 0.0 } else { ahead / (self.rate() * left_over) }
    }

    /// What waits before it, and the share of the starts that later arrivals of earlier classes leave to it.
    fn ahead(&self, request: &AdmissionRequest, count: impl Fn(&TenantQueue<T>) -> f64) -> (f64, f64) {
        let own = self.queue.class(request.class);
        let of_tenant = own.tenants.get(&request.tenant).map_or(0.0, &count);
        let others = own.waiting().filter(|(tenant, _)| *tenant != request.tenant).count() as f64;
        let before = Class::ALL.into_iter().take(request.class.index());
        let (mut earlier, mut arriving) = (0.0, 0.0);
        for class in before {
            earlier += self.queue.class(class).waiting().map(|(_, tenant_queue)| count(tenant_queue)).sum::<f64>();
            arriving += self.queue.class(class).arrival_rate(self.seconds());
        }
        let share = self.settings.classes.of(request.class).share.max(LEAST);
        let left_over = (1.0 - arriving / self.rate()).max(share);
        (earlier + of_tenant * (others + 1.0), left_over)
    }

    /// Starts per second: those observed while a request waited, or the window divided by the recent time to first token.
    fn rate(&self) -> f64 {
        let signals = &self.limits.signals;
        let by_window = self.limits.window / signals.recent_ttft.max(self.oldest_age()).max(SHORTEST);
        let by_window = if by_window.is_finite() { by_window } else { 0.0 };
        signals.busy_start_rate.max(by_window).max(SLOWEST)
    }

    /// Seconds from dispatch to first token. Without a pending request it is the unloaded time, however slow the last ones were: a
    /// gate that refused then would never see the engine recover.
    fn expected(&self, request: &AdmissionRequest, slo: f64) -> f64 {
        let signals = &self.limits.signals;
        if let Some(per_token) = signals.per_prompt_token {
            let work = per_token * (self.gate.awaiting_tokens() + self.own_tokens(request));
            return work - self.progress(per_token) + 0.5 * signals.step_time;
        }
        let prompt = f64::from(request.prompt);
        if self.gate.awaiting() == 0 {
            return signals.unloaded_ttft(prompt).min(0.9 * slo);
        }
        signals.expected_ttft(prompt, 0.0).min(0.9 * slo) + signals.excess_ttft_deviation.min(0.2 * slo)
    }

    /// Seconds of work on the pending prompts that are done already.
    fn progress(&self, per_token: f64) -> f64 {
        let Some((_, prompt)) = self.oldest else { return 0.0 };
        self.now.since(self.gate.last_first_token()).as_secs_f64().min(0.8 * per_token * prompt)
    }

    fn own_tokens(&self, request: &AdmissionRequest) -> f64 {
        if self.settings.length_aware { tokens(request.prompt) } else { self.gate.mean_prompt() }
    }

    fn oldest_age(&self) -> f64 {
        self.oldest.map_or(0.0, |(since, _)| self.now.since(since).as_secs_f64())
    }

    fn seconds(&self) -> f64 {
        self.now.since(Timestamp::ZERO).as_secs_f64()
    }
}

/// Seconds; an immediate first token must not look like an infinite rate.
const SHORTEST: f64 = 0.01;
/// Starts per second: the least assumed of any engine before anything is observed.
const SLOWEST: f64 = 0.3;
/// Share of the starts that a later class is assumed to receive in any case.
const LEAST: f64 = 0.05;
