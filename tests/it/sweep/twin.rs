//! A level in virtual time: the engine's model in place of a server, and the records that the client would have kept.

use std::collections::HashMap;
use std::time::Duration;

use weir::engine::model::Engine;
use weir::engine::profile::{LengthLaw, Profile};
use weir::load::record::{LoadOutcome, LoadRecord};
use weir::load::schedule::{Arrivals, Extent, Rate, pinned, schedule};
use weir::load::summary::LevelSummary;
use weir::load::workload::{TokenLength, Workload};
use weir::sweep::fill;
use weir::sweep::search::{Search, SearchEnd, SearchLoad, SearchStep, Trial};
use weir::vocabulary::slo::Slo;
use weir::vocabulary::time::Timestamp;

/// The level's figures, as `weir sweep` would have them.
pub fn level(profile: &Profile, trial: Trial, seed: u64) -> LevelSummary {
    let rate = match trial.load {
        SearchLoad::Open(rate) => Some(rate),
        SearchLoad::Closed(_) => None,
    };
    LevelSummary::new(&Play::new(profile, trial, seed).records(), rate, Some(Slo::default()))
}

/// A whole search; level k has seed + k.
pub fn search(profile: &Profile, seed: u64) -> (Search, usize, SearchEnd) {
    let mut search = Search::new(12, None, None);
    for number in 1.. {
        match search.next() {
            SearchStep::Try(trial) => {
                let summary = level(profile, trial, seed + number);
                search.on_level(fill::observation(trial.load, &summary, true));
            }
            SearchStep::Stop(why) => return (search, number as usize - 1, why),
        }
    }
    unreachable!("a search has a most number of levels")
}

struct Play<'a> {
    profile: &'a Profile,
    trial: Trial,
    workload: Workload,
    starts: Vec<Duration>,
    engine: Engine,
    now: Duration,
    sent: u64,
    free: u32,
    open: HashMap<u64, LoadRecord>,
    done: Vec<LoadRecord>,
}

impl<'a> Play<'a> {
    fn new(profile: &'a Profile, trial: Trial, seed: u64) -> Self {
        let law = |law: LengthLaw| TokenLength::LogNormal { mean: law.mean, sigma: law.sigma };
        let usual = profile.setup.workload;
        let (starts, free) = match trial.load {
            SearchLoad::Open(rate) => {
                let rate = Rate::new(rate).unwrap();
                (pinned(schedule(Arrivals::Poisson, rate, Extent::Count(trial.requests), seed), rate), 0)
            }
            SearchLoad::Closed(clients) => (Vec::new(), clients),
        };
        Self {
            profile,
            trial,
            workload: Workload { prompt: law(usual.prompt), output: law(usual.output), seed },
            starts,
            engine: Engine::new(profile.setup.params),
            now: Duration::ZERO,
            sent: 0,
            free,
            open: HashMap::new(),
            done: Vec::new(),
        }
    }

    fn records(mut self) -> Vec<LoadRecord> {
        while self.go_on() {
            while let Some(intended) = self.due() {
                self.send(intended);
            }
        }
        self.done.sort_by_key(|record| record.id);
        self.done
    }

    fn due(&mut self) -> Option<Duration> {
        match self.trial.load {
            SearchLoad::Open(_) => self.starts.get(self.sent as usize).copied().filter(|start| *start <= self.now),
            SearchLoad::Closed(_) if self.free > 0 && self.sent < self.trial.requests => {
                self.free -= 1;
                Some(self.now)
            }
            SearchLoad::Closed(_) => None,
        }
    }

    fn send(&mut self, intended: Duration) {
        // As the engine's own server has it: nobody asks for more than the engine can hold.
        let longest = (self.profile.setup.params.kv_tokens.get() / 5 * 2).clamp(4, 16_384);
        let draw = self.workload.draw(self.sent);
        let mut record = LoadRecord::offered(&draw, at(intended));
        record.sent = Some(at(intended));
        record.prompt_tokens = draw.prompt_tokens.clamp(4, longest);
        self.engine.submit(self.sent, record.prompt_tokens, draw.output_tokens.min(longest)).unwrap();
        self.open.insert(self.sent, record);
        self.sent += 1;
    }

    /// One step of the engine, or the time until the next request when it idles; false when all is over.
    fn go_on(&mut self) -> bool {
        let Some(step) = self.engine.begin_step() else {
            let next = self.starts.get(self.sent as usize).copied();
            self.now = next.unwrap_or(self.now);
            return next.is_some() || (self.free > 0 && self.sent < self.trial.requests);
        };
        self.now += step.duration;
        for emission in self.engine.finish_step() {
            let record = self.open.get_mut(&emission.id).unwrap();
            record.on_emission(at(self.now), emission.tokens, false);
            if emission.finished {
                let mut record = self.open.remove(&emission.id).unwrap();
                (record.end, record.outcome) = (at(self.now), LoadOutcome::Completed);
                self.done.push(record);
                self.free += 1;
            }
        }
        true
    }
}

fn at(since: Duration) -> Timestamp {
    Timestamp::ZERO + since
}
