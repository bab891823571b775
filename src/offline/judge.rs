//! Judges a sweep: open loops by the rules of `open`, closed ones by those of `closed`; docs/use/reports.md derives them.

use super::points::Points;
use super::sweep::{Level, Sweep};
use super::verdict::{Most, Verdict, VerdictKind};
use super::{closed, goodput, next, open};
use crate::estimate::{Advice, Estimate, advice};

/// The verdict on a sweep. Pure and cheap: a search may call it after every level.
pub fn verdict(sweep: &Sweep) -> Verdict {
    let points = Points::of(sweep);
    let mut verdict = if sweep.is_closed() { closed::judge(&points) } else { open::judge(&points) };
    verdict.limits.splice(0..0, points.limits.iter().cloned());
    verdict.most = Most::of(sweep);
    if points.by_tokens {
        verdict.forget_requests();
    }
    goodput::add(sweep, &mut verdict);
    verdict.advice = verdict.advise();
    verdict.next = next::after(sweep, &points, &verdict);
    verdict
}

impl Verdict {
    /// Where output tokens stood in for requests, no figure of it is a number of requests.
    fn forget_requests(&mut self) {
        self.plateau = None;
        self.levels.iter_mut().for_each(|level| (level.served, level.best) = (None, None));
    }

    /// From what was in flight at saturation; the plateau's width, or the two loads around the knee, are its uncertainty.
    fn advise(&self) -> Vec<Advice> {
        let known = matches!(self.kind, VerdictKind::Interval | VerdictKind::LeftCensored);
        let (Some(held), Some(band), true) = (self.knee_in_flight, self.plateau, known) else { return Vec::new() };
        let rate = Estimate { value: band.middle, low: band.low, high: band.high };
        let in_flight = match self.throughput_knee {
            Some((lo, hi)) if self.closed => {
                Estimate { value: held, low: lo.unwrap_or(held).min(held), high: hi.max(held) }
            }
            // Little's law: what is served at once is the rate times the time that serving takes.
            _ if band.middle > 0.0 => rate.scaled(held / band.middle),
            _ => return Vec::new(),
        };
        advice(in_flight, rate, None)
    }
}

impl Most {
    fn of(sweep: &Sweep) -> Self {
        let usable = || sweep.levels.iter().filter(|level| !level.client_limited);
        let most = |of: fn(&Level) -> Option<f64>| usable().filter_map(of).max_by(f64::total_cmp);
        Self {
            requests: most(|level| level.best_requests()),
            output_tokens: most(|level| level.whole.output_tokens),
            total_tokens: most(|level| level.whole.total_tokens),
        }
    }
}
