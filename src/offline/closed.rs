//! Judges a closed loop: from which concurrency on more requests in flight bring nothing but latency.
//!
//! In a closed loop the client waits for the server, so no request is offered in vain and TTFT is no proof. What proves
//! saturation is throughput that stops growing; by Little's law latency then grows in proportion to the concurrency.

use super::points::{Point, Points};
use super::say::Say;
use super::verdict::{Band, JudgedLevel, Jump, Standing, Verdict, VerdictKind};

/// Finds the first level of the plateau, or why there is none.
pub fn judge(points: &Points) -> Verdict {
    let levels = &points.usable;
    let mut verdict = Verdict { closed: true, ..Verdict::default() };
    verdict.limits.push(Say::ClosedLoop);
    let knee = first_flat(levels);
    if let Some((refusal, lo, hi)) = refused(points) {
        (verdict.sat_lo, verdict.sat_hi) = (lo, hi);
        verdict.evidence.push(refusal);
    } else if let (Some(knee), Some(first)) = (knee, levels.first()) {
        verdict.kind = if knee == 0 { VerdictKind::LeftCensored } else { VerdictKind::Interval };
        verdict.sat_lo = knee.checked_sub(1).map(|index| levels[index].load);
        verdict.sat_hi = Some(levels[knee].load);
        if knee == 0 {
            verdict.evidence.push(Say::AlwaysSaturated { lowest: first.load });
        }
    } else if let Some(last) = levels.last() {
        verdict.kind = VerdictKind::RightCensored;
        verdict.sat_lo = Some(last.load);
    }
    let saturated_from = if verdict.kind == VerdictKind::Noisy { None } else { knee };
    verdict.levels = judged(points, saturated_from);
    describe(points, saturated_from, &mut verdict);
    verdict
}

/// The first level from which on nothing above adds more than [`FLAT`].
fn first_flat(levels: &[Point]) -> Option<usize> {
    (0..levels.len()).find(|index| is_flat(&levels[*index], &levels[index + 1..]))
}

fn is_flat(point: &Point, above: &[Point]) -> bool {
    let Some(last) = above.last() else { return false };
    let steps = (last.load / point.load).log2();
    // A small step proves little: it may only add its share of what a doubling may.
    let tolerance = if steps >= 1.0 { FLAT } else { FLAT * steps + REPEATS_TO };
    last.load >= MORE_LOAD * point.load && above.iter().all(|level| level.served <= (1.0 + tolerance) * point.served)
}

/// Why there is no answer, and the interval where it lies.
fn refused(points: &Points) -> Option<(Say, Option<f64>, Option<f64>)> {
    let levels = &points.usable;
    let load = |index: usize| levels.get(index).map(|point| point.load);
    match levels[..] {
        [] => return Some((Say::NothingUsable, None, None)),
        [only] => return Some((Say::OneLevel { saturated: false }, Some(only.load), None)),
        _ => {}
    }
    if points.lengths > MOST_LENGTHS {
        return Some((Say::MixedLengths { factor: points.lengths }, None, None));
    }
    if let Some((index, last, gain)) = dip_then_rise(levels) {
        let refusal = Say::DipThenRise { from: levels[index].load, to: levels[index + 1].load, last, gain };
        return Some((refusal, load(index), Some(last)));
    }
    let peak = peak(levels)?;
    let fall = unexplained_fall(points, peak)?;
    let refusal = Say::PeakThenFall { peak: levels[peak].load, next: levels[peak + 1].load, fall };
    // A fall that only one level shows may be chance, in that level or in the peak: then the answer lies in the rise to the peak.
    let confirmed = levels.len() > peak + 2;
    let from = if confirmed { Some(peak) } else { peak.checked_sub(1) };
    Some((refusal, from.and_then(load), load(from.map_or(0, |from| from + 1))))
}

fn peak(levels: &[Point]) -> Option<usize> {
    (0..levels.len()).max_by(|left, right| levels[*left].served.total_cmp(&levels[*right].served))
}

/// How far throughput falls from its peak, unless that is within noise or a decline that several levels agree on.
fn unexplained_fall(points: &Points, peak: usize) -> Option<f64> {
    let (top, after) = (&points.usable[peak], points.usable.get(peak + 1..)?);
    let lowest = after.iter().map(|point| point.served).min_by(f64::total_cmp)?;
    let fall = 1.0 - lowest / top.served;
    let smooth = || {
        let past = &points.usable[peak..];
        after.len() >= AGREEING && past.windows(2).all(|pair| pair[1].served > (1.0 - SMOOTH) * pair[0].served)
    };
    let stays_down = || {
        let band = Band::of(&after.iter().map(|point| point.served).collect::<Vec<_>>());
        let slower = points.usable[peak..].windows(2).all(|pair| pair[1].e2e >= pair[0].e2e);
        !points.cold && after.len() >= AGREEING && slower && band.is_some_and(|band| band.spread() < FLAT)
    };
    (fall > MOST_FALL && !smooth() && !stays_down()).then_some(fall)
}

/// A step of half as many again or more that brought nothing, and a throughput well above it later.
fn dip_then_rise(levels: &[Point]) -> Option<(usize, f64, f64)> {
    levels.windows(2).enumerate().find_map(|(index, pair)| {
        let stood_still = pair[1].load >= LARGE_STEP * pair[0].load && pair[1].served < (1.0 + STANDS) * pair[0].served;
        let later = levels[index + 2..].iter().max_by(|left, right| left.served.total_cmp(&right.served))?;
        let gain = later.served / pair[0].served.max(pair[1].served) - 1.0;
        (stood_still && gain > FLAT).then_some((index, later.load, gain))
    })
}

fn judged(points: &Points, saturated_from: Option<usize>) -> Vec<JudgedLevel> {
    let base = points.usable.iter().filter_map(|point| point.ttft).min_by(f64::total_cmp);
    let level = |(index, point): (usize, &Point)| JudgedLevel {
        index: point.index,
        load: point.load,
        served: Some(point.read),
        best: None,
        ttft_ratio: base.zip(point.ttft).filter(|(base, _)| *base > 0.0).map(|(base, ttft)| ttft / base),
        goodput: None,
        standing: if saturated_from.is_some_and(|from| index >= from) { Standing::Saturated } else { Standing::Good },
    };
    let mut levels: Vec<JudgedLevel> = points.usable.iter().enumerate().map(level).collect();
    for (index, load) in &points.left_out {
        let standing = Standing::LeftOut;
        levels.push(JudgedLevel {
            index: *index,
            load: *load,
            served: None,
            best: None,
            ttft_ratio: None,
            goodput: None,
            standing,
        });
    }
    levels.sort_by(|left, right| left.load.total_cmp(&right.load));
    levels
}

fn describe(points: &Points, saturated_from: Option<usize>, verdict: &mut Verdict) {
    let levels = &points.usable;
    let late = latency_knee(levels);
    verdict.latency_knee =
        late.map(|index| (index.checked_sub(1).map(|before| levels[before].load), levels[index].load));
    if let Some(knee) = saturated_from {
        plateau(points, knee, verdict);
    }
    if let (VerdictKind::RightCensored, [.., before, last]) = (verdict.kind, &levels[..]) {
        let gain = last.served / before.served - 1.0;
        verdict.evidence.push(Say::StillRising { from: before.load, to: last.load, gain });
        verdict.evidence.push(Say::NeverSaturated { highest: last.load });
    }
    if let (Some(knee), Some(late)) =
        (saturated_from, late.filter(|late| Some(*late) > saturated_from.map(|knee| knee + 1)))
    {
        let before = levels[late - 1].load;
        verdict.evidence.push(Say::TwoKnees { throughput: levels[knee].load, before, latency: levels[late].load });
    }
}

fn plateau(points: &Points, knee: usize, verdict: &mut Verdict) {
    let (levels, past) = (&points.usable, &points.usable[knee..]);
    let served: Vec<f64> = past.iter().map(|point| point.served).collect();
    verdict.plateau = Band::of(&past.iter().map(|point| point.read).collect::<Vec<_>>());
    verdict.throughput_knee = Some((verdict.sat_lo, levels[knee].load));
    let (first, last) = (levels[knee], levels[levels.len() - 1]);
    let top = served.iter().copied().fold(0.0, f64::max);
    verdict.evidence.push(Say::ClosedFlat { from: first.load, to: last.load, gain: top / first.served - 1.0 });
    if let (Some(less), Some(more)) = (first.e2e.or(first.ttft), last.e2e.or(last.ttft)) {
        verdict.evidence.push(Say::LatencyPays { from: first.load, to: last.load, less, more });
    }
    if last.served < (1.0 - SEEN_FALL) * top {
        let peak = past.iter().max_by(|left, right| left.served.total_cmp(&right.served)).map_or(first, |peak| *peak);
        verdict.evidence.push(Say::Retrograde { peak: peak.load, most: top, last: last.load, least: last.served });
    }
    verdict.knee_in_flight = Some(first.load);
    let good = knee.checked_sub(1).and_then(|good| levels[good].ttft);
    if let Some((good, bad)) = good.zip(first.ttft).filter(|(good, _)| *good > 0.0) {
        verdict.jump = Some(Jump { good, bad, ratio: bad / good, figure: points.figure });
    }
}

/// The first level whose TTFT is far above that of the level before it.
fn latency_knee(levels: &[Point]) -> Option<usize> {
    (1..levels.len()).find(|index| {
        let pair = levels[index - 1].ttft.zip(levels[*index].ttft);
        pair.is_some_and(|(before, now)| now > LATE * before)
    })
}

/// A plateau adds at most this much, however many more are in flight. For a batch whose step costs a + b D this is where
/// D / (a + b D) has reached 85 % of its bound: doubling D there adds 8 %.
const FLAT: f64 = 0.08;

/// Throughputs repeat to within this at best.
const REPEATS_TO: f64 = 0.02;

/// The plateau must have been tried with this much more in flight.
const MORE_LOAD: f64 = 1.25;

/// A fall from the peak beyond this is no noise; below it, it is.
const MOST_FALL: f64 = 0.1;

/// A decline is accepted when this many levels agree and no step is larger than this.
const AGREEING: usize = 3;
const SMOOTH: f64 = 0.05;

/// A step that should have raised throughput, and the change below which it stood still.
const LARGE_STEP: f64 = 1.5;
const STANDS: f64 = 0.02;

/// Throughput this far below its peak is reported as falling.
const SEEN_FALL: f64 = 0.04;

/// TTFT this many times that of the level before has left its base.
const LATE: f64 = 3.0;

/// Lengths that differ by more make the levels different experiments.
const MOST_LENGTHS: f64 = 1.6;

#[cfg(test)]
mod tests {
    use super::super::sweep::{LatencySummary, Level, LevelLoad, OutcomeCounts, Sweep, Throughput};
    use super::super::verdict;
    use super::*;

    /// Concurrency and throughput.
    fn judged(levels: &[(f64, f64)]) -> Verdict {
        let level = |(held, served): &(f64, f64)| Level {
            load: LevelLoad::Concurrency(*held),
            counts: OutcomeCounts { completed: Some(10.0 * held), ..OutcomeCounts::default() },
            whole: Throughput { requests: Some(*served), ..Throughput::default() },
            ttft: LatencySummary { p50: Some(0.1 + held / 1000.0), ..LatencySummary::default() },
            ..Level::default()
        };
        verdict(&Sweep { levels: levels.iter().map(level).collect(), ..Sweep::default() })
    }

    #[test]
    fn the_first_level_of_the_plateau_is_saturated() {
        let found = judged(&[(4.0, 1.0), (8.0, 1.9), (16.0, 3.0), (32.0, 3.1), (64.0, 3.05)]);
        assert_eq!((found.kind, found.sat_lo, found.sat_hi), (VerdictKind::Interval, Some(8.0), Some(16.0)));
    }

    #[test]
    fn a_throughput_that_still_grows_is_right_censored() {
        let found = judged(&[(4.0, 1.0), (8.0, 1.9), (16.0, 3.0), (32.0, 3.4)]);
        assert_eq!((found.kind, found.sat_lo, found.sat_hi), (VerdictKind::RightCensored, Some(32.0), None));
    }

    #[test]
    fn flat_from_the_start_is_left_censored() {
        assert_eq!(judged(&[(32.0, 3.0), (64.0, 3.1), (128.0, 3.05)]).kind, VerdictKind::LeftCensored);
    }

    #[test]
    fn a_slow_decline_is_retrograde_and_a_sudden_one_is_refused() {
        let slow = judged(&[(16.0, 3.0), (32.0, 5.0), (64.0, 5.2), (128.0, 5.0), (256.0, 4.8), (512.0, 4.6)]);
        assert_eq!((slow.kind, slow.sat_hi), (VerdictKind::Interval, Some(32.0)));
        assert!(slow.evidence.iter().any(|said| matches!(said, Say::Retrograde { .. })));
        let sudden = judged(&[(16.0, 3.0), (32.0, 5.0), (64.0, 3.2)]);
        assert!(matches!(sudden.evidence[0], Say::PeakThenFall { .. }) && sudden.kind == VerdictKind::Noisy);
    }

    #[test]
    fn a_standstill_that_grows_again_is_refused() {
        let found = judged(&[(4.0, 1.0), (8.0, 2.0), (16.0, 2.0), (32.0, 2.6), (64.0, 2.7)]);
        assert!(
            matches!(found.evidence[0], Say::DipThenRise { .. }) && found.kind == VerdictKind::Noisy,
            "{:?}",
            found.evidence
        );
    }

    #[test]
    fn one_level_is_no_sweep() {
        assert_eq!(judged(&[(16.0, 3.0)]).kind, VerdictKind::Noisy);
        assert_eq!(judged(&[]).kind, VerdictKind::Noisy);
    }
}
