//! The search for the knee: which level to run next, given those that were run. Pure.
//!
//! First a closed loop climbs by fours from one request in flight until more in flight brings no more throughput: that
//! bounds the capacity from a load that cannot run away. Where throughput falls again past its best, levels in between look
//! for the best. Then open-loop levels on both sides of that capacity close in on the rate at which requests begin to pile
//! up, by bisection, until the interval is narrow. It holds no clock and sends nothing; what a level showed is a [`LevelObservation`].

use std::fmt;

/// A level to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// What it asks of the server.
    pub load: SearchLoad,
    /// Requests it needs to show anything.
    pub requests: u64,
}

/// What a level asks of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SearchLoad {
    /// This many requests in flight.
    Closed(u32),
    /// This many requests a second.
    Open(f64),
}

/// What a level showed. Rates are per second, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelObservation {
    /// What it asked for.
    pub load: SearchLoad,
    /// Completions a second in the steady window, or over the whole run when there was none.
    pub served: f64,
    /// Completions that `served` rests on.
    pub completed: u64,
    /// Requests in flight, mean.
    pub in_flight: f64,
    /// Those of them with a first token, mean; none where answers do not stream.
    pub decoding: Option<f64>,
    /// Median TTFT.
    pub ttft: f64,
    /// Mean TTFT of the first third and of the last third of the requests.
    pub drift: (f64, f64),
    /// Requests that were offered.
    pub offered: u64,
    /// Whether the level shows anything of the server.
    pub worth: Worth,
}

/// Whether a level shows anything of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It does.
    Usable,
    /// The client could not offer the load.
    ClientLimited,
    /// Too many requests failed or were refused.
    Failed,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SearchStep {
    /// Run this level.
    Try(Trial),
    /// Nothing more.
    Stop(SearchEnd),
}

/// Why a search ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SearchEnd {
    /// The interval is narrow enough.
    Narrow {
        /// The last rate that the server keeps up with.
        lo: f64,
        /// The first that is not.
        hi: f64,
    },
    /// As many levels as are allowed have been run.
    MostLevels,
    /// Even this many in flight did not saturate the server.
    NeverSaturated(u32),
    /// The client could not offer more.
    ClientLimited,
    /// The server fails under the load instead of slowing down.
    Failed,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchResult {
    /// Requests a second at best, over the levels of the plateau.
    pub capacity: f64,
    /// What the engine's batch held on the plateau; in flight where answers do not stream.
    pub in_flight: f64,
    /// With far more in flight than the best: below `capacity` where overload costs throughput.
    pub overloaded: f64,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    seen: Vec<LevelObservation>,
    most_levels: usize,
    requests: Option<u64>,
    slo_ttft: Option<f64>,
}

impl Search {
    /// A search of at most `most_levels` levels. `requests`, where given, are those of the levels that decide; a level
    /// whose TTFT ends above `slo_ttft` counts as past the knee.
    pub fn new(most_levels: usize, requests: Option<u64>, slo_ttft: Option<f64>) -> Self {
        Self { seen: Vec::new(), most_levels, requests, slo_ttft }
    }

    /// Adds a level that was run.
    pub fn on_level(&mut self, seen: LevelObservation) {
        self.seen.push(seen);
    }

    /// Which level to run next.
    pub fn next(&self) -> SearchStep {
        match self.seen.last().map(|seen| seen.worth) {
            Some(Worth::ClientLimited) => return SearchStep::Stop(SearchEnd::ClientLimited),
            Some(Worth::Failed) => return SearchStep::Stop(SearchEnd::Failed),
            _ if self.seen.len() >= self.most_levels => return SearchStep::Stop(SearchEnd::MostLevels),
            _ => {}
        }
        let Some(top) = self.top() else { return self.next_rung() };
        if let Some(clients) = self.next_near_the_peak(&top) {
            return self.closed(clients, EVIDENCE);
        }
        self.next_rate(&top)
    }

    /// What is known, once the closed loop has found the plateau.
    pub fn found(&self) -> Option<SearchResult> {
        let top = self.top()?;
        let full = || self.seen.iter().filter(|level| level.decides() && self.is_full(level));
        let best = full().map(|level| level.served).max_by(f64::total_cmp)?;
        // The plateau is the levels that cannot be distinguished from the best, weighed by what they rest on.
        let plateau = || full().filter(|level| level.served >= PLATEAU * best);
        let weight: f64 = plateau().map(|level| level.completed as f64).sum();
        let mean = |of: fn(&LevelObservation) -> f64| {
            plateau().map(|level| of(level) * level.completed as f64).sum::<f64>() / weight
        };
        Some(SearchResult {
            capacity: mean(|level| level.served),
            in_flight: mean(LevelObservation::batch),
            overloaded: top.served,
        })
    }

    /// The interval between the last rate that is served and the first that is not, as far as known.
    pub fn interval(&self) -> (Option<f64>, Option<f64>) {
        let rates = |saturated: bool| {
            let of = move |level: &LevelObservation| match level.load {
                SearchLoad::Open(rate) if self.piles_up(level) == saturated => Some(rate),
                _ => None,
            };
            self.seen.iter().filter_map(of)
        };
        let hi = rates(true).min_by(f64::total_cmp);
        // A level above one that piled up and did not itself was lucky.
        let lo = rates(false).filter(|rate| hi.is_none_or(|hi| *rate < hi)).max_by(f64::total_cmp);
        (lo, hi)
    }

    /// Whether requests pile up at this open level.
    pub fn piles_up(&self, level: &LevelObservation) -> bool {
        let (early, late) = level.drift;
        // What was left over, as a share of the arrivals: the first and the last third lie two thirds of the level apart.
        let left_over = (late - early) * level.served / (2.0 / 3.0 * level.offered.max(1) as f64);
        let grows = left_over > LEFT_OVER && late > GROWN * early;
        grows || self.slo_ttft.is_some_and(|slo| late > slo)
    }

    fn next_rung(&self) -> SearchStep {
        match self.closed_levels().last() {
            None => self.closed(1, FEW),
            Some(LevelObservation { load: SearchLoad::Closed(clients), .. }) if *clients >= MOST_CLIENTS => {
                SearchStep::Stop(SearchEnd::NeverSaturated(*clients))
            }
            Some(LevelObservation { load: SearchLoad::Closed(clients), .. }) => self.closed(clients * RUNG, FEW),
            Some(_) => SearchStep::Stop(SearchEnd::MostLevels),
        }
    }

    /// The first rung that brought no more than the one below, or only made requests wait.
    fn top(&self) -> Option<LevelObservation> {
        let rungs: Vec<LevelObservation> =
            self.seen.iter().copied().filter(|level| level.clients().is_some_and(is_rung)).collect();
        let full = |pair: &[LevelObservation]| {
            let gained = pair[1].served / pair[0].served;
            let waits = pair[1].batch() < BUSY * pair[1].in_flight && pair[1].ttft > WAITS * rungs[0].ttft;
            gained < GAIN || waits
        };
        rungs.windows(2).find(|pair| full(pair)).map(|pair| pair[1])
    }

    /// A number of clients that shows more of the best throughput; none when that is known well enough.
    fn next_near_the_peak(&self, top: &LevelObservation) -> Option<u32> {
        let levels = self.closed_levels();
        let deciding = || levels.iter().filter(|level| level.decides() && *level != top);
        let untried = |clients: u32| deciding().chain([top]).all(|level| level.is_far_from(clients)).then_some(clients);
        if deciding().count() == 0 {
            return untried((top.batch().round() as u32).max(1));
        }
        let best = (0..levels.len()).max_by(|a, b| levels[*a].served.total_cmp(&levels[*b].served))?;
        let most = levels[best];
        let in_vain =
            |level: &LevelObservation| top.batch() > BUSIER * level.batch() && top.served < FALLS * level.served;
        let falls = most.served > FALLS * top.served || levels.iter().any(in_vain);
        if !falls || deciding().count() >= MOST_BETWEEN {
            return None;
        }
        let (below, above) = (levels.get(best.checked_sub(1)?)?, levels.get(best + 1)?);
        let halfway = |a: &LevelObservation, b: &LevelObservation| {
            Some((f64::from(a.clients()?) * f64::from(b.clients()?)).sqrt().round() as u32)
        };
        // Where requests wait already, the level is past the peak.
        let past = most.drift.1 > PAST_PEAK * below.drift.1;
        let sides = [halfway(below, &most)?, halfway(&most, above)?];
        let [first, second] = if past { sides } else { [sides[1], sides[0]] };
        untried(first).or_else(|| untried(second))
    }

    fn next_rate(&self, top: &LevelObservation) -> SearchStep {
        let Some(found) = self.found() else { return SearchStep::Stop(SearchEnd::MostLevels) };
        let rate = match self.interval() {
            (None, None) => BELOW * found.capacity.min(top.served),
            (None, Some(hi)) => LOWER * hi,
            (Some(lo), None) => (ABOVE * found.capacity).max(HIGHER * lo),
            (Some(lo), Some(hi)) if hi - lo <= NARROW * f64::midpoint(lo, hi) => {
                return SearchStep::Stop(SearchEnd::Narrow { lo, hi });
            }
            (Some(lo), Some(hi)) => f64::midpoint(lo, hi),
        };
        let requests = ((ENOUGH_BATCHES * found.in_flight) as u64 + EVIDENCE).min(MOST_REQUESTS);
        SearchStep::Try(Trial { load: SearchLoad::Open(rate), requests: self.requests_to_decide(requests) })
    }

    fn closed(&self, clients: u32, evidence: u64) -> SearchStep {
        let requests = 3 * u64::from(clients) + evidence;
        let requests = if evidence == FEW { requests } else { self.requests_to_decide(requests) };
        SearchStep::Try(Trial { load: SearchLoad::Closed(clients), requests })
    }

    fn requests_to_decide(&self, requests: u64) -> u64 {
        self.requests.unwrap_or(requests)
    }

    fn closed_levels(&self) -> Vec<LevelObservation> {
        let mut levels: Vec<LevelObservation> =
            self.seen.iter().copied().filter(|level| level.clients().is_some()).collect();
        levels.sort_by_key(LevelObservation::clients);
        levels
    }

    fn is_full(&self, level: &LevelObservation) -> bool {
        level.clients().is_some() || self.piles_up(level)
    }
}

impl LevelObservation {
    fn clients(&self) -> Option<u32> {
        match self.load {
            SearchLoad::Closed(clients) => Some(clients),
            SearchLoad::Open(_) => None,
        }
    }

    /// Enough was completed to distinguish throughputs.
    fn decides(&self) -> bool {
        self.completed >= DECIDES
    }

    fn batch(&self) -> f64 {
        self.decoding.unwrap_or(self.in_flight)
    }

    fn is_far_from(&self, clients: u32) -> bool {
        let ratio = f64::from(clients) / f64::from(self.clients().unwrap_or(u32::MAX));
        !(1.0 / NEAR..=NEAR).contains(&ratio)
    }
}

impl fmt::Display for SearchEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Narrow { lo, hi } => {
                let width = 100.0 * (hi - lo) / f64::midpoint(*lo, *hi);
                write!(f, "the knee lies between {lo:.3} and {hi:.3} req/s, an interval {width:.0} % wide")
            }
            Self::MostLevels => write!(f, "the largest number of levels has been run"),
            Self::NeverSaturated(clients) => write!(f, "{clients} requests in flight did not saturate the server"),
            Self::ClientLimited => write!(f, "the client itself could not offer more"),
            Self::Failed => write!(f, "the server fails or refuses requests instead of queueing them"),
        }
    }
}

fn is_rung(clients: u32) -> bool {
    clients.is_power_of_two() && clients.trailing_zeros().is_multiple_of(RUNG.trailing_zeros())
}

/// Each rung of the ladder has this many times the clients of the one below: six rungs reach a thousand.
const RUNG: u32 = 4;

/// Beyond this a single address has more waiting than any engine batches.
const MOST_CLIENTS: u32 = 4096;

/// Four times the clients that bring less than this are past the knee: half full, a batch still gains by a third.
const GAIN: f64 = 1.10;

/// With less than this share of what is in flight in the engine's batch, and a TTFT this many times that of a lone request, the
/// rest waits: the batch is full.
const BUSY: f64 = 0.7;
const WAITS: f64 = 5.0;

/// Levels this close to the best are the plateau. The best alone would be the luckiest: levels of some hundred requests
/// repeat to about 2 %.
const PLATEAU: f64 = 0.94;

/// A best this far above the throughput of an overload is a peak, and worth another level.
const FALLS: f64 = 1.06;

/// So is one that serves about as much with a batch this much smaller.
const BUSIER: f64 = 1.3;

/// Numbers of clients closer than this show the same.
const NEAR: f64 = 1.08;

/// Levels spent between rungs.
const MOST_BETWEEN: usize = 3;

/// TTFT this many times that of the level below is a wait for a slot, not a longer batch.
const PAST_PEAK: f64 = 1.5;

/// Where the first open levels lie, as shares of the capacity.
const BELOW: f64 = 0.92;
const ABOVE: f64 = 1.08;

/// The next rate when a side is missing.
const LOWER: f64 = 0.85;
const HIGHER: f64 = 1.10;

/// Width of the interval at which the search ends.
const NARROW: f64 = 0.10;

/// Share of arrivals left waiting at which they pile up. A Poisson stream at 95 % of an engine with few slots leaves some 3 %
/// of 500 requests waiting by chance; at 108 % it leaves 5 to 9 %.
const LEFT_OVER: f64 = 0.03;

/// And the wait must have grown by this much: prefill makes long waits that stay as they are.
const GROWN: f64 = 2.0;

/// Requests of a rung beyond its ramp: it only has to show a doubling.
const FEW: u64 = 60;

/// Completions in the steady window below which a level only shows a doubling.
const DECIDES: u64 = 150;

/// Requests beyond the ramp of a level that decides. Lengths are stratified, so that these give throughput to about 1 %.
const EVIDENCE: u64 = 600;

/// An open level near the knee fills the batch only slowly: it goes on for this many batches.
const ENOUGH_BATCHES: f64 = 8.0;
const MOST_REQUESTS: u64 = 6000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of `slots`, each answer a second long.
    fn seen(trial: Trial, slots: f64) -> LevelObservation {
        let (served, in_flight, wait) = match trial.load {
            SearchLoad::Closed(clients) => {
                let served = f64::from(clients).min(slots);
                (served, f64::from(clients), f64::from(clients) / served - 1.0)
            }
            SearchLoad::Open(rate) => {
                let left = (rate / slots - 1.0).max(0.0) * trial.requests as f64 / slots;
                (rate.min(slots), rate.min(slots) + left / 2.0, left)
            }
        };
        let drift = match trial.load {
            SearchLoad::Open(_) => (0.1 + wait / 6.0, 0.1 + wait * 5.0 / 6.0),
            SearchLoad::Closed(_) => (0.1 + wait, 0.1 + wait),
        };
        LevelObservation {
            load: trial.load,
            served,
            completed: trial.requests,
            in_flight,
            decoding: Some(in_flight.min(slots)),
            ttft: 0.1 + wait,
            drift,
            offered: trial.requests,
            worth: Worth::Usable,
        }
    }

    fn search(slots: f64, change: impl Fn(usize, &mut LevelObservation)) -> (Search, SearchEnd) {
        let mut search = Search::new(12, None, None);
        loop {
            match search.next() {
                SearchStep::Try(trial) => {
                    let mut level = seen(trial, slots);
                    change(search.seen.len(), &mut level);
                    search.on_level(level);
                }
                SearchStep::Stop(why) => return (search, why),
            }
        }
    }

    #[test]
    fn closes_in_on_a_server_with_a_limit() {
        let (search, why) = search(40.0, |_, _| {});
        let found = search.found().unwrap();
        assert!((found.capacity / 40.0 - 1.0).abs() < 0.01 && (found.in_flight / 40.0 - 1.0).abs() < 0.05, "{found:?}");
        let SearchEnd::Narrow { lo, hi } = why else { panic!("{why:?}") };
        assert!(lo <= 40.0 && 40.0 < hi && hi - lo < 4.2, "{lo} {hi}");
    }

    #[test]
    fn a_server_without_a_limit_is_never_saturated() {
        let (search, why) = search(1e9, |_, _| {});
        assert_eq!(why, SearchEnd::NeverSaturated(MOST_CLIENTS));
        assert_eq!((search.found(), search.interval()), (None, (None, None)));
    }

    #[test]
    fn a_client_that_cannot_offer_more_ends_the_search() {
        let limited = |number, level: &mut LevelObservation| {
            if number == 3 {
                level.worth = Worth::ClientLimited;
            }
        };
        let (search, why) = search(1e9, limited);
        assert_eq!((why, search.seen.len()), (SearchEnd::ClientLimited, 4));
    }

    #[test]
    fn a_server_that_fails_under_load_ends_the_search() {
        let failing = |number, level: &mut LevelObservation| {
            if number == 5 {
                level.worth = Worth::Failed;
            }
        };
        assert_eq!(search(40.0, failing).1, SearchEnd::Failed);
    }

    #[test]
    fn a_missed_objective_is_the_knee_even_if_nothing_piles_up() {
        let mut strict = Search::new(12, None, Some(0.05));
        let mut lax = Search::new(12, None, Some(5.0));
        let level = seen(Trial { load: SearchLoad::Open(10.0), requests: 500 }, 40.0);
        strict.on_level(level);
        lax.on_level(level);
        assert_eq!((strict.interval(), lax.interval()), ((None, Some(10.0)), (Some(10.0), None)));
    }

    #[test]
    fn a_wait_that_stays_as_it_is_piles_nothing_up() {
        let search = Search::new(12, None, None);
        let level = seen(Trial { load: SearchLoad::Open(40.0), requests: 500 }, 40.0);
        assert!(!search.piles_up(&LevelObservation { drift: (2.0, 2.6), ..level }), "long, and no longer at the end");
        assert!(search.piles_up(&LevelObservation { drift: (0.2, 2.6), ..level }));
    }

    #[test]
    fn named_requests_are_those_of_the_levels_that_decide() {
        let mut search = Search::new(12, Some(3000), None);
        let SearchStep::Try(first) = search.next() else { panic!("no first level") };
        assert_eq!(first, Trial { load: SearchLoad::Closed(1), requests: 63 });
        for clients in [1, 4, 16, 64, 256] {
            search.on_level(seen(Trial { load: SearchLoad::Closed(clients), requests: 100 }, 40.0));
        }
        let SearchStep::Try(next) = search.next() else { panic!("no more levels") };
        assert_eq!(next, Trial { load: SearchLoad::Closed(40), requests: 3000 });
    }
}
