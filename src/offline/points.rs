//! The levels of a sweep made comparable: ordered by load, repeats joined, one throughput and one latency each.
//!
//! What cannot be used is left out here, with the reason. It holds no judgement.

use super::say::Say;
use super::sweep::{Level, LevelLoad, Start, Sweep};
use super::verdict::Figure;

/// The usable levels in the order of their loads, and what the measurement lacks.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// Ascending in load, one a load.
    pub usable: Vec<Point>,
    /// Levels that are left out: their index in the sweep and their load.
    pub left_out: Vec<(usize, f64)>,
    /// What the measurement cannot show.
    pub limits: Vec<Say>,
    /// The figure of TTFT that all usable levels have.
    pub figure: Figure,
    /// By how much the lengths of requests differ between levels, as a factor.
    pub lengths: f64,
    /// No level has a throughput in requests: output tokens stand in for them.
    pub by_tokens: bool,
    /// TTFT of the lowest level is well above that of the next: it was cold.
    pub cold: bool,
}

/// One load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its index in the sweep's list; the first of several repeats.
    pub index: usize,
    /// What was asked for.
    pub load: f64,
    /// What was sent, in an open loop; the load itself when that is not known.
    pub sent: f64,
    /// `sent` was measured: chance in the arrivals is already in it.
    pub counted: bool,
    /// Requests (or tokens, when no level has requests) completed a second.
    pub served: f64,
    /// The same as the source has it. In a closed loop `served` is load over end-to-end time (Little), free of fill and drain.
    pub read: f64,
    /// `served` is of a steady window: neither ramp nor drain is in it.
    pub steady: bool,
    /// Requests that `served` rests on.
    pub requests: Option<f64>,
    /// Requests of the whole run.
    pub run: Option<f64>,
    /// Seconds to the first token as in the source.
    pub ttft: Option<f64>,
    /// The same with the client's own lateness added: from the intended start.
    pub scheduled_ttft: Option<f64>,
    /// Seconds from end to end, from the same start.
    pub e2e: Option<f64>,
    /// Requests in flight.
    pub held: Option<f64>,
}

impl Points {
    /// Picks and orders.
    pub fn of(sweep: &Sweep) -> Self {
        let closed = sweep.is_closed();
        let mut points = Self { figure: figure(sweep), lengths: lengths(sweep), ..Self::default() };
        let by_tokens = sweep.levels.iter().all(|level| level.best_requests().is_none());
        points.by_tokens = by_tokens;
        for (index, level) in sweep.levels.iter().enumerate() {
            points.add(index, level, closed, by_tokens);
        }
        points.usable.sort_by(|left, right| left.load.total_cmp(&right.load));
        points.join_repeats();
        points.note_cold_start();
        points.note_what_is_missing(sweep);
        points
    }

    fn add(&mut self, index: usize, level: &Level, closed: bool, by_tokens: bool) {
        let load = match level.load {
            LevelLoad::Rate(rate) if !closed => rate,
            LevelLoad::Concurrency(held) => held,
            LevelLoad::Rate(_) | LevelLoad::Burst => {
                self.limits.push(Say::Burst { requests: level.counts.completed, served: level.best_requests() });
                return;
            }
        };
        let served = if by_tokens { level.whole.output_tokens } else { level.best_requests() };
        let Some(served) = served.filter(|served| *served > 0.0) else {
            self.limits.push(Say::NoThroughput { load });
            self.left_out.push((index, load));
            return;
        };
        if let Some(share) = failures(level) {
            self.limits.push(Say::Failures { load, share });
            if share > TOLERABLE_FAILURES {
                self.left_out.push((index, load));
                return;
            }
        }
        let ttft = self.latency(level);
        let settled = if closed && !by_tokens { littles(load, served, level) } else { served };
        let point = Point {
            index,
            load,
            sent: sent(level, load),
            counted: level.achieved_rate.is_some(),
            served: settled,
            read: served,
            steady: !by_tokens && level.steady_requests().is_some(),
            requests: level.judged_requests(),
            run: level.counts.offered.or(level.counts.completed).or_else(|| level.judged_requests()),
            ttft,
            scheduled_ttft: ttft.map(|ttft| ttft + lateness(level)),
            e2e: level.e2e.mean.or(level.e2e.p50),
            held: level.held(),
        };
        if !closed && self.is_client_limited(level, &point) {
            self.limits.push(Say::ClientLimited { load, sent: level.achieved_rate });
            self.left_out.push((index, load));
            return;
        }
        if !closed && lateness(level) > SEEN_LATENESS * ttft.unwrap_or(0.0).max(LEAST_LATENESS) {
            let ttft = ttft.unwrap_or(0.0);
            self.limits.push(Say::Omission { load, sent: level.achieved_rate, delay: lateness(level), ttft });
        }
        self.usable.push(point);
    }

    /// TTFT in the figure all have; end-to-end times where none is there.
    fn latency(&self, level: &Level) -> Option<f64> {
        let of = |latency: &super::sweep::LatencySummary| match self.figure {
            Figure::Mean => latency.mean.or(latency.p50),
            Figure::Median => latency.p50.or(latency.mean),
        };
        of(&level.ttft).or_else(|| of(&level.e2e))
    }

    /// The client fell behind although the server answered at once: the load was never offered.
    fn is_client_limited(&self, level: &Level, point: &Point) -> bool {
        if level.client_limited {
            return true;
        }
        let behind = level.achieved_rate.is_some_and(|sent| sent < least_sent(level) * point.load);
        let base = self.usable.iter().filter_map(|point| point.ttft).min_by(f64::total_cmp);
        let slow = base.zip(point.ttft).is_none_or(|(base, ttft)| ttft > SLOW_SERVER * base);
        let keeps_up = level.achieved_rate.is_some_and(|sent| point.served > LEAST_SENT * sent);
        behind && !slow && keeps_up
    }

    /// Several runs of one load become one: the middle of their throughputs and of their latencies.
    fn join_repeats(&mut self) {
        let mut joined: Vec<Point> = Vec::new();
        let mut rest = std::mem::take(&mut self.usable).into_iter().peekable();
        while let Some(first) = rest.next() {
            let mut runs = vec![first];
            while let Some(next) = rest.next_if(|next| same_load(first.load, next.load)) {
                runs.push(next);
            }
            if let [only] = runs[..] {
                joined.push(only);
                continue;
            }
            let all = |of: fn(&Point) -> Option<f64>| runs.iter().filter_map(of).collect::<Vec<f64>>();
            let served = all(|run| Some(run.served));
            let ends = super::verdict::Band::of(&served).map_or((0.0, 0.0), |band| (band.low, band.high));
            self.limits.push(Say::Repeats { load: first.load, times: runs.len(), low: ends.0, high: ends.1 });
            let requests = all(|run| run.requests);
            joined.push(Point {
                read: middle(all(|run| Some(run.read))).unwrap_or(first.read),
                served: middle(served).unwrap_or(first.served),
                sent: middle(all(|run| Some(run.sent))).unwrap_or(first.sent),
                requests: (!requests.is_empty()).then(|| requests.iter().sum::<f64>() / requests.len() as f64),
                ttft: middle(all(|run| run.ttft)),
                scheduled_ttft: middle(all(|run| run.scheduled_ttft)),
                e2e: middle(all(|run| run.e2e)),
                held: middle(all(|run| run.held)),
                ..first
            });
        }
        self.usable = joined;
    }

    fn note_cold_start(&mut self) {
        let [first, second, ..] = self.usable[..] else { return };
        let Some((a, b)) = first.ttft.zip(second.ttft) else { return };
        self.cold = a > COLD * b;
        if self.cold {
            self.limits.push(Say::Cold { load: first.load, first: a, second: b });
        }
    }

    fn note_what_is_missing(&mut self, sweep: &Sweep) {
        if self.usable.is_empty() {
            return;
        }
        let usable = || self.usable.iter().filter_map(|point| sweep.levels.get(point.index));
        if usable().all(|level| level.ttft.is_empty()) {
            self.limits.push(Say::NoTtft);
        } else if self.figure == Figure::Median {
            self.limits.push(Say::MediansOnly);
        }
        if self.usable.iter().all(|point| point.requests.is_none()) {
            self.limits.push(Say::NoCounts);
        }
        let least = self.usable.iter().filter_map(|point| Some((point.requests?, point.load)));
        if let Some((requests, load)) = least.min_by(|left, right| left.0.total_cmp(&right.0)) {
            let noise = 1.0 / requests.max(1.0).sqrt();
            if noise > SEEN_NOISE {
                self.limits.push(Say::Few { load, requests, noise });
            }
        }
        if self.lengths > SEEN_LENGTHS {
            self.limits.push(Say::Lengths { factor: self.lengths });
        }
        if self.usable.len() > 1 && self.usable.len() + self.left_out.len() == sweep.levels.len() {
            self.limits.push(Say::OneRun);
        }
    }
}

impl Level {
    /// Requests a second of the steady window, else of the whole run, else counted.
    pub fn best_requests(&self) -> Option<f64> {
        let counted = || Some(self.counts.completed? / self.duration.filter(|duration| *duration > 0.0)?);
        self.steady_requests().or(self.whole.requests).or_else(counted)
    }

    fn steady_requests(&self) -> Option<f64> {
        self.steady?.throughput.requests.filter(|served| *served > 0.0)
    }

    /// Requests that [`Level::best_requests`] rests on.
    fn judged_requests(&self) -> Option<f64> {
        let steady = self.steady.and_then(|steady| Some(steady.length * steady.throughput.requests?));
        let counted = || Some(self.whole.requests? * self.duration?);
        steady.or(self.counts.completed).or_else(counted).filter(|requests| *requests >= 1.0)
    }
}

/// What was sent. A client that was held up by its own cap did offer the load: then its schedule counts.
fn sent(level: &Level, load: f64) -> f64 {
    let least = least_sent(level);
    level.achieved_rate.filter(|sent| *sent > least * load && *sent < load / least).unwrap_or(load)
}

/// N random arrivals take N/R ± √N/R: with few of them the rate may be off by chance.
fn least_sent(level: &Level) -> f64 {
    let few = level.counts.completed.map_or(0.0, |completed| CHANCE / completed.max(1.0).sqrt());
    LEAST_SENT.min(1.0 - few.min(MOST_CHANCE))
}

/// Throughput of a closed loop in its steady state: requests in flight over their mean time. A fill and a drain can only lower
/// what is read, and not by half; otherwise the source's times measure something else.
fn littles(load: f64, read: f64, level: &Level) -> f64 {
    let rounds = level.counts.completed.is_some_and(|completed| completed >= LEAST_ROUNDS * load);
    let steady = level.e2e.mean.filter(|e2e| rounds && *e2e > 0.0).map(|e2e| load / e2e);
    steady.filter(|steady| *steady > read && *steady < MOST_FILL * read).unwrap_or(read)
}

fn lateness(level: &Level) -> f64 {
    match level.ttft_from {
        Start::Schedule => 0.0,
        Start::Send => level.schedule_delay.mean.or(level.schedule_delay.p50).unwrap_or(0.0).max(0.0),
    }
}

fn failures(level: &Level) -> Option<f64> {
    let lost = level.counts.failed.unwrap_or(0.0);
    let all = level.counts.completed? + lost;
    (lost > 0.0 && all > 0.0).then(|| lost / all)
}

/// The mean, unless some level has a median only.
fn figure(sweep: &Sweep) -> Figure {
    let known = || sweep.levels.iter().map(|level| level.ttft).filter(|ttft| !ttft.is_empty());
    let means = known().filter(|ttft| ttft.mean.is_some()).count();
    let medians = known().filter(|ttft| ttft.p50.is_some()).count();
    if medians > means { Figure::Median } else { Figure::Mean }
}

/// Largest over smallest mean length of a request.
fn lengths(sweep: &Sweep) -> f64 {
    let known: Vec<f64> =
        sweep.levels.iter().filter_map(|level| level.tokens_all().or_else(|| level.tokens_out())).collect();
    match super::verdict::Band::of(&known) {
        Some(band) if band.low > 0.0 => band.high / band.low,
        _ => 1.0,
    }
}

fn same_load(left: f64, right: f64) -> bool {
    (left - right).abs() <= SAME_LOAD * left.abs().max(right.abs())
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// Share of failed requests above which a level's latencies are those of the survivors.
const TOLERABLE_FAILURES: f64 = 0.1;

/// Requests per client below which most of a closed loop is its first round and its drain.
const LEAST_ROUNDS: f64 = 5.0;

/// The most that fill and drain may take from a closed loop's throughput, as a factor.
const MOST_FILL: f64 = 2.0;

/// A client that sends less than this share of its schedule has fallen behind.
const LEAST_SENT: f64 = 0.95;

/// Standard deviations that are taken for chance, and the most that is.
const CHANCE: f64 = 2.5;
const MOST_CHANCE: f64 = 0.3;

/// A server whose TTFT is above this many times its base is slow; a client that falls behind with a fast one is slow itself.
const SLOW_SERVER: f64 = 3.0;

/// Lateness is reported when it is above this share of TTFT, or of the least TTFT that matters.
const SEEN_LATENESS: f64 = 0.2;
const LEAST_LATENESS: f64 = 0.05;

/// TTFT of the lowest level over that of the next: queueing only grows, so more than noise above is warm-up.
const COLD: f64 = 1.25;

/// Poisson noise of a count that is reported: below 100 requests.
const SEEN_NOISE: f64 = 0.1;

/// Lengths of requests that differ by more than this between levels are reported.
const SEEN_LENGTHS: f64 = 1.1;

/// Loads that are the same number, written twice.
const SAME_LOAD: f64 = 1e-3;
