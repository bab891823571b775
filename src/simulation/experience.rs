//! Latency and refusals of the requests of a segment: all of them, or those of a class or of some tenants.

use std::collections::BTreeMap;
use std::time::Duration;

use super::expectation::Expectation;
use super::outcome::Served;
use crate::vocabulary::time::Timestamp;

/// The requests that arrived within `[from, to)`.
pub(super) struct Experience<'a> {
    pub requests: &'a [Served],
    /// Whose class and tenants restrict them.
    pub expectation: &'a Expectation,
    pub from: Duration,
    pub to: Duration,
    /// The objective.
    pub slo: Duration,
}

impl Experience<'_> {
    /// The quantile of the seconds to the first token, of the requests that got one.
    pub fn ttft(&self, quantile: f64) -> Option<f64> {
        let mut ttfts: Vec<f64> = self.within().filter_map(|(_, one)| Some(one.ttft()?.as_secs_f64())).collect();
        ttfts.sort_by(f64::total_cmp);
        ttfts.get((ttfts.len().saturating_sub(1) as f64 * quantile) as usize).copied()
    }

    pub fn on_time(&self) -> Option<f64> {
        self.share(|_| true, |one| self.is_on_time(one))
    }

    pub fn shed(&self) -> Option<f64> {
        self.share(|_| true, |one| one.refused && !one.dispatched)
    }

    /// Requests that are still in flight when the run ends do not count.
    pub fn late(&self) -> Option<f64> {
        self.share(|one| one.dispatched && (one.refused || one.first_token.is_some()), |one| !self.is_on_time(one))
    }

    pub fn served_clients(&self) -> Option<f64> {
        let clients = self.clients();
        let served = clients.values().filter(|(served, _)| *served).count();
        (!clients.is_empty()).then(|| served as f64 / clients.len() as f64)
    }

    pub fn tries(&self) -> Option<f64> {
        let clients = self.clients();
        let tries: u32 = clients.values().map(|(_, tries)| tries).sum();
        (!clients.is_empty()).then(|| f64::from(tries) / clients.len() as f64)
    }

    /// Whether each client was served in time, and how often it tried.
    fn clients(&self) -> BTreeMap<usize, (bool, u32)> {
        let first = |(number, one): (usize, &Served)| (one.retry.is_none()).then_some((number, (false, 0)));
        let mut clients: BTreeMap<usize, (bool, u32)> = self.within().filter_map(first).collect();
        for (number, one) in self.requests.iter().enumerate() {
            let client = one.retry.map_or(number, |(first, _)| first);
            if let Some((served, tries)) = clients.get_mut(&client) {
                *served |= self.is_on_time(one);
                *tries += 1;
            }
        }
        clients
    }

    fn share(&self, of: impl Fn(&Served) -> bool, is: impl Fn(&Served) -> bool) -> Option<f64> {
        let of: Vec<&Served> = self.within().map(|(_, one)| one).filter(|one| of(one)).collect();
        (!of.is_empty()).then(|| of.iter().filter(|one| is(one)).count() as f64 / of.len() as f64)
    }

    fn is_on_time(&self, one: &Served) -> bool {
        one.ttft().is_some_and(|ttft| ttft <= self.slo)
    }

    fn within(&self) -> impl Iterator<Item = (usize, &Served)> {
        let Expectation { class, tenants, .. } = self.expectation;
        let concerns = move |one: &Served| {
            class.is_none_or(|class| one.class == class) && (tenants.is_empty() || tenants.contains(&one.tenant.0))
        };
        let span = self.from..self.to;
        let arrived = move |one: &Served| span.contains(&one.arrived.since(Timestamp::ZERO));
        self.requests.iter().enumerate().filter(move |(_, one)| concerns(one) && arrived(one))
    }
}
