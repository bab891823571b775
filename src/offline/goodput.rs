//! Goodput under an SLO: read where the source has it, estimated from quantiles where it has those.

use super::say::Say;
use super::sweep::{LatencySummary, Level, Sweep};
use super::verdict::Verdict;

/// Adds each level's goodput, and a sentence on the largest, when there is an SLO.
pub fn add(sweep: &Sweep, verdict: &mut Verdict) {
    let Some(slo) = sweep.slo else { return };
    let mut estimated = false;
    for judged in &mut verdict.levels {
        let Some(level) = sweep.levels.get(judged.index) else { continue };
        judged.goodput = level.goodput.or_else(|| {
            estimated = true;
            Some(level.best_requests()? * share_within(&level.ttft, slo.ttft)?)
        });
    }
    let known = verdict.levels.iter().filter_map(|judged| Some((judged.load, judged.goodput?)));
    let most = known.max_by(|left, right| left.1.total_cmp(&right.1));
    verdict.evidence.push(match most {
        Some((load, goodput)) => Say::Goodput { load, goodput, slo: slo.ttft, estimated },
        None => Say::NoGoodput { slo: slo.ttft },
    });
}

/// The share of requests whose time is within `limit`, from the quantiles that are known; none with a mean alone.
///
/// Between two quantiles the share is interpolated in the logarithm of the time. Below the lowest known quantile it is
/// taken as that quantile's share at most, scaled down in the same way.
pub fn share_within(times: &LatencySummary, limit: f64) -> Option<f64> {
    let known: Vec<(f64, f64)> = [(0.5, times.p50), (0.9, times.p90), (0.99, times.p99)]
        .into_iter()
        .filter_map(|(share, time)| Some((share, time.filter(|time| *time > 0.0)?)))
        .collect();
    let (first, last) = (known.first()?, known.last()?);
    if limit >= last.1 {
        return Some(if last.0 < 0.9 { last.0 } else { 1.0 });
    }
    if limit < first.1 {
        return Some(if limit < first.1 / 2.0 { 0.0 } else { first.0 * (limit / first.1 - 0.5) * 2.0 });
    }
    known.windows(2).find(|pair| limit < pair[1].1).map(|pair| {
        let ((low, from), (high, to)) = (pair[0], pair[1]);
        low + (high - low) * (limit / from).ln() / (to / from).ln()
    })
}

impl Level {
    /// Whether goodput was measured rather than estimated.
    pub const fn has_goodput(&self) -> bool {
        self.goodput.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(p50: f64, p90: f64, p99: f64) -> LatencySummary {
        LatencySummary { mean: None, p50: Some(p50), p90: Some(p90), p99: Some(p99) }
    }

    #[test]
    fn quantiles_bound_the_share() {
        let ttft = times(0.1, 1.0, 4.0);
        assert_eq!(share_within(&ttft, 5.0), Some(1.0));
        assert_eq!(share_within(&ttft, 0.04), Some(0.0));
        assert!((share_within(&ttft, 1.0).unwrap() - 0.9).abs() < 1e-9);
        let half = share_within(&ttft, 0.316).unwrap();
        assert!((half - 0.7).abs() < 0.01, "{half}");
    }

    #[test]
    fn a_mean_alone_gives_no_share() {
        assert_eq!(share_within(&LatencySummary { mean: Some(0.1), ..LatencySummary::default() }, 1.0), None);
        assert_eq!(share_within(&LatencySummary::default(), 1.0), None);
    }
}
