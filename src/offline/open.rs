//! Judges an open loop: which of its levels the system keeps up with.
//!
//! No sign is enough alone (docs/use/reports.md). A level is saturated when it was offered more than the system completed at any
//! level, when more load brought nothing more, or when TTFT has left its base *and* the throughput or the growth of
//! the wait shows a queue. It holds no names and no labels.

use super::drain::{ASSUMED_REQUESTS, Tail};
use super::points::{Point, Points};
use super::say::Say;
use super::verdict::{Band, JudgedLevel, Jump, Standing, Verdict, VerdictKind};

/// Judges the levels from the lowest up, each against those below it and the throughputs above it.
pub fn judge(points: &Points) -> Verdict {
    let levels = &points.usable;
    let mut verdict = Verdict::default();
    let findings = LevelFindings::of_all(levels);
    verdict.levels = findings.iter().zip(levels).map(|(finding, point)| finding.judged(point)).collect();
    for (index, load) in &points.left_out {
        verdict.levels.push(left_out(*index, *load));
    }
    verdict.levels.sort_by(|left, right| left.load.total_cmp(&right.load));
    let first_bad = findings.iter().position(LevelFindings::saturated);
    let last_good = findings.iter().rposition(|finding| !finding.saturated());
    decide(points, &findings, first_bad, last_good, &mut verdict);
    describe(points, &findings, first_bad, &mut verdict);
    verdict
}

fn decide(
    points: &Points,
    findings: &[LevelFindings],
    first_bad: Option<usize>,
    last_good: Option<usize>,
    verdict: &mut Verdict,
) {
    let levels = &points.usable;
    let load = |index: usize| levels[index].load;
    match (last_good, first_bad) {
        (None, None) => verdict.evidence.push(Say::NothingUsable),
        (Some(good), Some(bad)) if good > bad => {
            verdict.evidence.push(Say::Contradiction { good: load(good), bad: load(bad) });
            verdict.sat_lo = bad.checked_sub(1).map(load);
            verdict.sat_hi = levels.get(good + 1).map(|next| next.load).or(Some(load(good)));
        }
        _ if points.lengths > MOST_LENGTHS => {
            verdict.evidence.push(Say::MixedLengths { factor: points.lengths });
            (verdict.sat_lo, verdict.sat_hi) = (last_good.map(load), first_bad.map(load));
        }
        (Some(good), Some(bad)) => {
            verdict.kind = VerdictKind::Interval;
            (verdict.sat_lo, verdict.sat_hi) = (Some(load(good)), Some(load(bad)));
            verdict.jump = jump(points, good, bad);
        }
        (Some(good), None) => {
            verdict.kind = VerdictKind::RightCensored;
            verdict.sat_lo = Some(load(good));
        }
        (None, Some(bad)) if levels.len() == 1 => {
            verdict.evidence.push(Say::OneLevel { saturated: true });
            verdict.sat_hi = Some(load(bad));
        }
        (None, Some(bad)) => {
            verdict.kind = VerdictKind::LeftCensored;
            verdict.sat_hi = Some(load(bad));
        }
    }
    if let Some(bad) = first_bad {
        verdict.throughput_knee = Some((bad.checked_sub(1).map(load), load(bad)));
        verdict.knee_in_flight = levels[bad].service().map(|service| service * levels[bad].served);
    }
    if let Some(late) = findings.iter().position(|finding| finding.late) {
        verdict.latency_knee = Some((late.checked_sub(1).map(load), load(late)));
    }
}

fn describe(points: &Points, findings: &[LevelFindings], first_bad: Option<usize>, verdict: &mut Verdict) {
    let levels = &points.usable;
    let below = &levels[..first_bad.unwrap_or(levels.len())];
    let mut evidence = Vec::new();
    if let Some(good) = below.last() {
        evidence.push(Say::KeepsUp { load: good.load, served: good.served, ttft: good.ttft });
    }
    evidence.extend(below.iter().rev().filter_map(drained).take(MOST_DRAINS));
    for (finding, point) in findings.iter().zip(below) {
        if let (true, Some(ratio)) = (finding.late, finding.ratio) {
            evidence.push(Say::AtCapacity { load: point.load, ratio, share: point.served / point.sent });
        }
    }
    if let Some(bad) = first_bad {
        evidence.extend(reasons(points, &findings[bad], bad));
        plateau(&levels[bad..], verdict, &mut evidence);
    } else if let Some(last) = levels.last() {
        evidence.push(Say::NeverSaturated { highest: last.load });
    }
    if let (None, Some(first), VerdictKind::LeftCensored) = (verdict.sat_lo, levels.first(), verdict.kind) {
        evidence.insert(0, Say::AlwaysSaturated { lowest: first.load });
    }
    verdict.evidence.extend(evidence);
}

/// The sentences that show why the first saturated level is saturated.
fn reasons(points: &Points, finding: &LevelFindings, bad: usize) -> Vec<Say> {
    let point = &points.usable[bad];
    let mut said = Vec::new();
    if finding.short || bad == 0 || finding.over {
        said.push(Say::Short { load: point.load, served: point.served, best: finding.best });
    }
    if let Some(jump) = bad.checked_sub(1).and_then(|good| jump(points, good, bad)) {
        let from = points.usable[bad - 1].load;
        said.push(Say::Jump { from, to: point.load, good: jump.good, bad: jump.bad, ratio: jump.ratio });
    }
    if let (Some(excess), true) = (finding.excess, finding.queueing) {
        said.push(Say::Queue { load: point.load, excess });
    }
    if finding.over {
        said.push(Say::Over { load: point.load, most: finding.most });
    }
    let before = bad.checked_sub(1).map(|good| &points.usable[good]);
    if let Some((before, less, more)) = before.and_then(|before| Some((before, before.held?, point.held?)))
        && more / less.max(f64::MIN_POSITIVE) > SUPERLINEAR * point.load / before.load
    {
        said.push(Say::Held { from: before.load, to: point.load, less, more });
    }
    said
}

fn plateau(past: &[Point], verdict: &mut Verdict, evidence: &mut Vec<Say>) {
    let served: Vec<f64> = past.iter().map(|point| point.served).collect();
    verdict.plateau = Band::of(&served);
    let (Some(band), Some(first), Some(last)) = (verdict.plateau, past.first(), past.last()) else { return };
    if past.len() > 1 {
        evidence.push(Say::Flat { from: first.load, to: last.load, low: band.low, high: band.high });
    }
    let peak = past.iter().max_by(|left, right| left.served.total_cmp(&right.served));
    if let Some(peak) = peak.filter(|peak| last.served < (1.0 - SEEN_FALL) * peak.served) {
        evidence.push(Say::Retrograde { peak: peak.load, most: peak.served, last: last.load, least: last.served });
    }
}

/// Served visibly below offered, and judged to keep up: this needs an explanation.
fn drained(point: &Point) -> Option<Say> {
    if point.steady || point.served > SEEN_DRAIN * point.load {
        return None;
    }
    let requests = point.requests.unwrap_or(ASSUMED_REQUESTS);
    let tail = requests * (1.0 / point.served - 1.0 / point.load);
    let assumed = point.requests.is_none();
    Some(Say::Drain { load: point.load, served: point.served, best: point.served, requests, assumed, tail })
}

fn jump(points: &Points, good: usize, bad: usize) -> Option<Jump> {
    let (good, bad) = (points.usable[good].ttft?, points.usable[bad].ttft?);
    (good > 0.0).then(|| Jump { good, bad, ratio: bad / good, figure: points.figure })
}

const fn left_out(index: usize, load: f64) -> JudgedLevel {
    let standing = Standing::LeftOut;
    JudgedLevel { index, load, served: None, best: None, ttft_ratio: None, goodput: None, standing }
}

/// What one level shows.
#[derive(Clone, Copy, Debug)]
struct LevelFindings {
    /// The best throughput that a server which keeps up could show in this run.
    best: f64,
    /// The highest capacity that all throughputs allow.
    most: f64,
    /// TTFT over its base.
    ratio: Option<f64>,
    /// Load above capacity by the growth of the wait; a share.
    excess: Option<f64>,
    /// Served less than any drain explains.
    short: bool,
    /// So much less that nothing else is needed.
    far_short: bool,
    /// Offered more than the system completed at any level.
    over: bool,
    /// More load, no more throughput, and the load is above all throughputs.
    flat: bool,
    /// TTFT has left its base.
    late: bool,
    /// TTFT has left its base so far that it is no burst.
    very_late: bool,
    /// The wait grew as it does above capacity.
    queueing: bool,
    /// No request waited, neither for a first token nor for an answer. Then the throughput is that of a fill and a drain.
    unseen: bool,
    /// A lower load is saturated, and this level does not show that it is served.
    above_saturation: bool,
}

impl LevelFindings {
    fn of_all(levels: &[Point]) -> Vec<Self> {
        let mut tail = Tail::UNKNOWN;
        let mut base: Option<f64> = None;
        let mut all = Vec::new();
        for (index, point) in levels.iter().enumerate() {
            let mut finding = Self::of(levels, index, &tail, base);
            // What is too much stays too much at a higher load, unless that one is plainly served.
            finding.above_saturation = all.iter().any(Self::saturated) && !finding.is_plainly_served(point);
            if !finding.saturated() {
                tail.learn(point);
                base = [base, point.scheduled_ttft].into_iter().flatten().min_by(f64::total_cmp);
            }
            all.push(finding);
        }
        all
    }

    fn of(levels: &[Point], index: usize, tail: &Tail, base: Option<f64>) -> Self {
        let (point, above) = (&levels[index], &levels[index + 1..]);
        let best = tail.best(point);
        let most = levels.iter().map(|level| tail.most(level)).fold(0.0, f64::max);
        let raw = levels.iter().map(|level| level.served).fold(0.0, f64::max);
        let ratio = base.zip(point.scheduled_ttft).filter(|(base, _)| *base > 0.0).map(|(base, ttft)| ttft / base);
        let waits = waits_longer_than_it_is_served(point);
        let late = match base {
            None => waits.map_or_else(
                || point.scheduled_ttft.is_none_or(|ttft| ttft > UNREFERENCED_TTFT),
                |waits| waits || makes_a_queue(point, best),
            ),
            Some(_) => ratio.is_some_and(|ratio| ratio >= LATE),
        };
        let excess = queue_growth(point, base.unwrap_or(0.0));
        // Without a level below it, nothing is known of the tail of the lowest: it has to be far off.
        let tolerance = if index == 0 && waits != Some(true) { UNREFERENCED.max(point.noise()) } else { point.noise() };
        let flat = is_flat(point, above) && (point.sent >= most || base.is_none() && late && point.sent > raw);
        Self {
            best,
            most,
            ratio,
            excess,
            short: point.served < best * (1.0 - tolerance),
            far_short: index > 0 && point.served < best * FAR_SHORT,
            over: point.sent > most * (1.0 + tolerance),
            flat,
            late,
            very_late: ratio.is_some_and(|ratio| ratio >= VERY_LATE),
            queueing: (index > 0 || late) && excess.is_some_and(|excess| excess >= QUEUEING),
            unseen: !late && (is_unsettled(point) || is_unseen(levels, index)),
            above_saturation: false,
        }
    }

    /// Whether the level is past the system's capacity.
    fn saturated(&self) -> bool {
        let throughput = self.over || self.flat || self.far_short;
        let latency = self.late && (self.short || self.queueing) || self.very_late && self.excess.is_none();
        throughput && !self.unseen || latency || self.above_saturation
    }

    /// Keeps up, with the first tokens as early as at lower levels.
    fn is_plainly_served(&self, point: &Point) -> bool {
        !self.late && !self.short && !is_unsettled(point)
    }

    fn judged(&self, point: &Point) -> JudgedLevel {
        let standing = match (self.saturated(), self.late) {
            (true, _) => Standing::Saturated,
            (false, true) => Standing::AtCapacity,
            (false, false) => Standing::Good,
        };
        JudgedLevel {
            index: point.index,
            load: point.load,
            served: Some(point.served),
            best: Some(self.best),
            ttft_ratio: self.ratio,
            goodput: None,
            standing,
        }
    }
}

/// No level above this one completes noticeably more, and one of them offers noticeably more.
fn is_flat(point: &Point, above: &[Point]) -> bool {
    let tolerance = 1.0 + FLAT.max(point.noise().min(MOST_FLAT));
    let tried = above.iter().any(|level| level.load >= MORE_LOAD * point.load);
    tried && above.iter().all(|level| level.served <= tolerance * point.served)
}

/// In a queue that grows, the request that arrives at t waits (R/C − 1) t; the mean over a run of N/R seconds is half of
/// the last. So R/C − 1 = 2 W R / N, with W the mean wait beyond the base.
fn queue_growth(point: &Point, base: f64) -> Option<f64> {
    let wait = point.scheduled_ttft? - base;
    Some((2.0 * wait * point.sent / point.run?).max(0.0))
}

/// A first token that takes longer than the rest of the answer, twice over, was waited for. None without end-to-end times.
fn waits_longer_than_it_is_served(point: &Point) -> Option<bool> {
    Some(point.scheduled_ttft? > WAITS * point.service()?)
}

/// Without a lower level: a wait that is no small part of an answer, as long as a queue makes it, and a throughput that is too low.
fn makes_a_queue(point: &Point, best: f64) -> bool {
    let waited = point.service().zip(point.scheduled_ttft).is_some_and(|(service, ttft)| ttft > FILLS * service);
    let grows = queue_growth(point, 0.0).is_some_and(|excess| excess >= QUEUEING);
    waited && grows && point.served < best * (1.0 - point.noise())
}

/// The last request was sent before a few of the first were answered, so the batch was still filling. Where answers were not
/// timed it may have been.
fn is_unsettled(point: &Point) -> bool {
    match (point.requests, point.service()) {
        _ if point.steady => false,
        (Some(requests), Some(service)) => {
            requests / point.sent < SETTLED * service && no_request_waits(point, service)
        }
        _ => true,
    }
}

/// A backlog that explains the length of the run would be visible in the answers: half of it is their mean wait. Where they take
/// no longer than at the lower levels, the tail of the run is a few long answers.
fn is_unseen(levels: &[Point], index: usize) -> bool {
    let point = &levels[index];
    let base = levels[..index].iter().filter_map(|level| level.e2e).min_by(f64::total_cmp);
    let grown = base.zip(point.e2e).map(|(base, e2e)| e2e - base);
    let tail = point.requests.map(|requests| requests * (1.0 / point.served - 1.0 / point.sent));
    grown.zip(tail).is_some_and(|(grown, tail)| grown < SEEN_BACKLOG * tail / 2.0)
}

fn no_request_waits(point: &Point, service: f64) -> bool {
    point.scheduled_ttft.is_none_or(|ttft| ttft < FILLS * service)
}

/// TTFT has left its base: a third of the known open-loop sweeps reach twice their base below saturation, none four times.
const LATE: f64 = 3.0;

/// TTFT that no burst of a server that keeps up explains.
const VERY_LATE: f64 = 10.0;

/// Load above capacity that counts as a queue; 2–3 % is within the error of the rates.
const QUEUEING: f64 = 0.05;

/// Served below this share of the best possible is enough alone: engines with slots for every request queue in the batch.
const FAR_SHORT: f64 = 0.7;

/// As long as nothing is known of the tail, only a throughput this much below the best possible is a sign.
const UNREFERENCED: f64 = 0.2;

/// A batch that still fills makes no request wait for a first token; a wait of this share of the service is a queue.
const FILLS: f64 = 0.2;

/// The share of a backlog's wait that must be seen in the answers.
const SEEN_BACKLOG: f64 = 0.3;

/// Without a lower level and without end-to-end times, a wait that only a queue or a very long prompt makes, seconds.
const UNREFERENCED_TTFT: f64 = 0.5;

/// A wait of this many times the service is no prefill.
const WAITS: f64 = 2.0;

/// Answers that must fit into the time of sending for in-flight to have settled.
const SETTLED: f64 = 5.0;

/// More load must be this much more, and bring at most this much, to be called flat.
const MORE_LOAD: f64 = 1.25;
const FLAT: f64 = 0.05;
const MOST_FLAT: f64 = 0.08;

/// In-flight that grows this much faster than the load is worth a sentence.
const SUPERLINEAR: f64 = 2.0;

/// Throughput this far below its peak is reported as falling.
const SEEN_FALL: f64 = 0.04;

/// Served below this share of what was offered needs an explanation.
const SEEN_DRAIN: f64 = 0.97;
const MOST_DRAINS: usize = 2;

/// Lengths that differ by more make the levels different experiments.
const MOST_LENGTHS: f64 = 1.6;

#[cfg(test)]
mod tests {
    use super::super::sweep::{LatencySummary, Level, LevelLoad, OutcomeCounts, Sweep, Throughput};
    use super::super::verdict;
    use super::*;

    /// Load, served, TTFT in seconds and end to end; 600 requests each.
    fn judged(levels: &[(f64, f64, f64, f64)]) -> Verdict {
        let level = |(load, served, ttft, e2e): &(f64, f64, f64, f64)| Level {
            load: LevelLoad::Rate(*load),
            counts: OutcomeCounts { completed: Some(600.0), ..OutcomeCounts::default() },
            whole: Throughput { requests: Some(*served), ..Throughput::default() },
            ttft: LatencySummary { mean: Some(*ttft), ..LatencySummary::default() },
            e2e: LatencySummary { mean: Some(*e2e), ..LatencySummary::default() },
            ..Level::default()
        };
        verdict(&Sweep { levels: levels.iter().map(level).collect(), ..Sweep::default() })
    }

    fn ends(verdict: &Verdict) -> (VerdictKind, Option<f64>, Option<f64>) {
        (verdict.kind, verdict.sat_lo, verdict.sat_hi)
    }

    #[test]
    fn a_plateau_with_a_wait_is_saturation() {
        let found =
            judged(&[(5.0, 4.8, 0.08, 3.0), (10.0, 9.3, 0.1, 3.6), (20.0, 12.4, 6.9, 12.0), (40.0, 12.6, 14.0, 19.0)]);
        assert_eq!(ends(&found), (VerdictKind::Interval, Some(10.0), Some(20.0)));
    }

    #[test]
    fn a_drain_is_none() {
        // 600 / (600 / R + 6): no request waits, the runs get shorter and their drain larger.
        let found =
            judged(&[(5.0, 4.76, 0.08, 3.0), (10.0, 9.09, 0.08, 3.1), (20.0, 16.7, 0.1, 3.3), (40.0, 28.6, 0.12, 3.6)]);
        assert_eq!(ends(&found), (VerdictKind::RightCensored, Some(40.0), None), "{:?}", found.levels);
    }

    #[test]
    fn a_late_first_token_alone_is_at_capacity_and_not_past_it() {
        let found =
            judged(&[(5.0, 4.9, 0.03, 1.0), (10.0, 9.8, 0.04, 1.1), (17.0, 16.6, 0.12, 1.4), (30.0, 17.2, 6.0, 8.0)]);
        assert_eq!(ends(&found), (VerdictKind::Interval, Some(17.0), Some(30.0)));
        assert_eq!(found.levels[2].standing, Standing::AtCapacity);
    }

    #[test]
    fn a_few_long_answers_at_the_end_are_no_backlog() {
        // The tail of the last level is 26 s, yet its answers take no longer: it is one straggler.
        let found = judged(&[(5.0, 4.8, 0.05, 3.0), (10.0, 9.3, 0.05, 3.1), (15.0, 9.1, 0.05, 3.1)]);
        assert_eq!(found.kind, VerdictKind::RightCensored, "{:?}", found.levels);
    }

    #[test]
    fn every_level_in_a_queue_is_left_censored() {
        let found = judged(&[(20.0, 12.3, 7.0, 12.0), (30.0, 12.5, 11.0, 16.0), (60.0, 12.4, 17.0, 22.0)]);
        assert_eq!(ends(&found), (VerdictKind::LeftCensored, None, Some(20.0)));
    }

    #[test]
    fn a_higher_load_that_is_plainly_served_refuses_the_sweep() {
        let found = judged(&[(5.0, 4.9, 0.05, 2.0), (10.0, 5.5, 9.0, 12.0), (20.0, 19.2, 0.06, 2.1)]);
        assert_eq!(found.kind, VerdictKind::Noisy);
        assert!(matches!(found.evidence[0], Say::Contradiction { good: 20.0, bad: 10.0 }), "{:?}", found.evidence);
    }
}
