//! The true capacity of an engine: the same model in a closed loop, at the best number of clients.
//!
//! Short closed loops mislead by up to 7 %, so the last runs are long: 240,000 requests, at least 6,000 s, at most 80,000 s.
//! Computed truths are kept in `truths.tsv` beside this file, under a key with every number they depend on; a machine whose
//! numbers change is not found there and is computed again. `weir rehearse --truth` prints the lines.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::machine::{self, Lengths, Machine};

/// A machine's capacity, and what it does when no request is held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// At the best number of clients.
    pub best: Flow,
    /// That number.
    pub clients: u32,
    /// The smallest number of clients that reaches 95 % of it.
    pub clients_at_95: f64,
    /// With far more clients than the engine can run at once: the rate of an overload without a gate.
    pub ungated: Flow,
}

/// The rates of a closed loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Completed requests per second.
    pub requests_per_second: f64,
    /// Output tokens per second.
    pub tokens_per_second: f64,
    /// Sequences that emit in a step, mean over time.
    pub decodes: f64,
}

/// Known truths, by [`Machine::key`].
#[derive(Clone, Debug, Default)]
pub struct Truths(BTreeMap<String, Truth>);

impl Truths {
    /// Those that were computed before and are kept with the code.
    pub fn kept() -> Self {
        Self(include_str!("truths.tsv").lines().filter_map(read).collect())
    }

    /// That machine's, if known.
    pub fn of(&self, machine: &Machine) -> Option<Truth> {
        self.0.get(&machine.key()).copied()
    }

    /// Adds one.
    pub fn insert(&mut self, machine: &Machine, truth: Truth) {
        self.0.insert(machine.key(), truth);
    }
}

impl Truth {
    /// Computes it: about 40 short loops to find the best number of clients, then four long ones.
    pub fn compute(machine: &Machine) -> Self {
        let slots = machine.setup.params.max_num_seqs.get();
        let curve = curve(machine, (3 * slots).min(MOST_CLIENTS));
        let near = curve.iter().fold((1, 0.0), |best, point| if point.1 > best.1 { *point } else { best });
        let long = LoopExtent::long(near.1);
        let (clients, best) = [0.9, 1.0, 1.12]
            .map(|factor| ((f64::from(near.0) * factor) as u32).max(1))
            .map(|clients| (clients, closed_loop(machine, clients, long)))
            .into_iter()
            .fold(
                (1, Flow::NONE),
                |best, run| {
                    if run.1.requests_per_second > best.1.requests_per_second { run } else { best }
                },
            );
        let ungated = closed_loop(machine, MOST_CLIENTS.max(3 * slots), long);
        Self { best, clients, clients_at_95: clients_at(0.95 * near.1, &curve), ungated }
    }

    /// The same engine with all step times multiplied by `slowdown` and `replicas` of it behind one address.
    pub fn scaled(self, slowdown: f64, replicas: u32) -> Self {
        let replicas = f64::from(replicas);
        let flow = |flow: Flow| Flow {
            requests_per_second: flow.requests_per_second * replicas / slowdown,
            tokens_per_second: flow.tokens_per_second * replicas / slowdown,
            decodes: flow.decodes * replicas,
        };
        Self {
            best: flow(self.best),
            clients: self.clients,
            clients_at_95: self.clients_at_95 * replicas,
            ungated: flow(self.ungated),
        }
    }

    /// Its line for `truths.tsv`; the first column is a name for people.
    pub fn line(&self, name: &str, machine: &Machine) -> String {
        let flow =
            |flow: Flow| format!("{:.4}\t{:.1}\t{:.2}", flow.requests_per_second, flow.tokens_per_second, flow.decodes);
        format!(
            "{name}\t{}\t{}\t{}\t{:.1}\t{}",
            machine.key(),
            flow(self.best),
            self.clients,
            self.clients_at_95,
            flow(self.ungated)
        )
    }
}

/// Requests per second of an ungated engine that is given just these requests, over and over: the truth of a sample.
///
/// A few hundred requests are not their law. An estimate's difference from here is its own error; its further difference from
/// the law's truth is chance.
pub(super) fn of_sample(machine: &Machine, sample: &[Lengths]) -> Option<f64> {
    let mut repeated = sample.iter().copied().cycle();
    let mut draw = || repeated.next();
    let clients = MOST_CLIENTS.min(u32::try_from(4 * sample.len()).unwrap_or(MOST_CLIENTS));
    let requests_per_round = sample.len() as u64;
    (!sample.is_empty()).then(|| {
        let until =
            |now: Duration, requests: u64| requests < ROUNDS * requests_per_round || now < Duration::from_secs(300);
        run(machine, clients, Duration::from_secs(60), &mut draw, until).requests_per_second
    })
}

impl Flow {
    const NONE: Self = Self { requests_per_second: 0.0, tokens_per_second: 0.0, decodes: 0.0 };
}

/// How long a closed loop goes on after its warm-up.
#[derive(Clone, Copy, Debug)]
struct LoopExtent {
    seconds: f64,
}

impl LoopExtent {
    /// Enough to compare two numbers of clients with the same random stream.
    fn short(requests_per_second: f64) -> Self {
        Self { seconds: (10_000.0 / requests_per_second.max(1e-9)).clamp(60.0, 4_000.0) }
    }

    fn long(requests_per_second: f64) -> Self {
        Self { seconds: (240_000.0 / requests_per_second.max(1e-9)).clamp(6_000.0, 80_000.0) }
    }
}

/// `(clients, requests/s)` at ever larger numbers of clients, a tenth apart.
fn curve(machine: &Machine, most: u32) -> Vec<(u32, f64)> {
    let mut points: Vec<(u32, f64)> = Vec::new();
    let mut clients = 1;
    let mut guess = 1.0;
    while clients <= most {
        let flow = closed_loop(machine, clients, LoopExtent::short(guess));
        guess = flow.requests_per_second;
        points.push((clients, guess));
        clients = ((f64::from(clients) * 1.12) as u32).max(clients + 1);
    }
    points
}

/// Where the curve first reaches `level`, between two points by a straight line.
fn clients_at(level: f64, curve: &[(u32, f64)]) -> f64 {
    let Some(at) = curve.iter().position(|point| point.1 >= level) else { return f64::NAN };
    let (clients, rate) = curve[at];
    match at.checked_sub(1).map(|below| curve[below]) {
        None => f64::from(clients),
        Some((fewer, slower)) => f64::from(fewer) + f64::from(clients - fewer) * (level - slower) / (rate - slower),
    }
}

/// Keeps `clients` requests in the engine, drawn from its law. The first fifth of the time does not count.
fn closed_loop(machine: &Machine, clients: u32, extent: LoopExtent) -> Flow {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let warm = Duration::from_secs_f64(extent.seconds / 4.0);
    let length = Duration::from_secs_f64(extent.seconds);
    run(machine, clients, warm, &mut || Some(machine.draw(&mut rng)), |now, _| now < length)
}

/// Keeps `clients` requests in the engine: each that finishes is replaced at once. Counts after `warm`, while `goes_on`, which
/// gets the time and the requests since then, is true.
fn run(
    machine: &Machine,
    clients: u32,
    warm: Duration,
    draw: &mut impl FnMut() -> Option<Lengths>,
    goes_on: impl Fn(Duration, u64) -> bool,
) -> Flow {
    let mut engine = machine.engine(11);
    let mut next = 0;
    let mut submit = |engine: &mut _| {
        if let Some(lengths) = draw() {
            machine::submit(engine, next, lengths);
            next += 1;
        }
    };
    (0..clients).for_each(|_| submit(&mut engine));
    let (mut now, mut began) = (Duration::ZERO, Duration::ZERO);
    let (mut requests, mut tokens, mut emitted) = (0_u64, 0_u64, 0.0);
    while now <= warm || goes_on(now - began, requests) {
        let Some((step, emissions)) = engine.step() else { break };
        now += step.duration;
        let finished = emissions.iter().filter(|emission| emission.finished).count();
        if now > warm {
            if began.is_zero() {
                began = now - step.duration;
            }
            requests += finished as u64;
            tokens += emissions.iter().map(|emission| u64::from(emission.tokens)).sum::<u64>();
            emitted += emissions.len() as f64 * step.duration.as_secs_f64();
        }
        (0..finished).for_each(|_| submit(&mut engine));
    }
    let seconds = (now - began).as_secs_f64();
    Flow {
        requests_per_second: requests as f64 / seconds,
        tokens_per_second: tokens as f64 / seconds,
        decodes: emitted / seconds,
    }
}

/// One line of `truths.tsv`; a line that is not one (the heading) is skipped.
fn read(line: &str) -> Option<(String, Truth)> {
    let columns: Vec<&str> = line.split('\t').collect();
    let number = |at: usize| columns.get(at)?.parse::<f64>().ok();
    let flow = |at: usize| {
        Some(Flow { requests_per_second: number(at)?, tokens_per_second: number(at + 1)?, decodes: number(at + 2)? })
    };
    let truth = Truth { best: flow(2)?, clients: number(5)? as u32, clients_at_95: number(6)?, ungated: flow(7)? };
    Some((columns[1].to_owned(), truth))
}

/// How often a sample is played.
const ROUNDS: u64 = 4;

/// More clients than any of the engines runs at once.
const MOST_CLIENTS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::profile::Profile;

    fn machine(name: &str) -> Machine {
        Machine::plain(Profile::named(name).unwrap().setup)
    }

    #[test]
    fn every_profile_has_a_kept_truth_and_its_capacity_is_that() {
        let truths = Truths::kept();
        for profile in crate::engine::profile::PROFILES {
            let truth = truths.of(&Machine::plain(profile.setup)).unwrap_or_else(|| panic!("{}", profile.name));
            let error = truth.best.requests_per_second / profile.capacity - 1.0;
            assert!(error.abs() < 0.01, "{}: {:.2} % apart", profile.name, error * 100.0);
        }
    }

    #[test]
    fn a_kept_truth_is_what_a_closed_loop_gives() {
        let kept = Truths::kept();
        for name in ["slots16", "thrash"] {
            let machine = machine(name);
            let truth = kept.of(&machine).unwrap();
            let flow = closed_loop(&machine, truth.clients, LoopExtent { seconds: 3_000.0 });
            let error = flow.requests_per_second / truth.best.requests_per_second - 1.0;
            assert!(error.abs() < 0.03, "{name}: {:.2} % apart", error * 100.0);
            let ungated = closed_loop(&machine, MOST_CLIENTS, LoopExtent { seconds: 3_000.0 });
            let error = ungated.requests_per_second / truth.ungated.requests_per_second - 1.0;
            assert!(error.abs() < 0.03, "{name} ungated: {:.2} % apart", error * 100.0);
        }
    }

    #[test]
    fn a_machine_with_another_number_is_not_found() {
        let mut machine = machine("seed");
        assert!(Truths::kept().of(&machine).is_some());
        machine.setup.params.per_decode *= 1.01;
        assert!(Truths::kept().of(&machine).is_none());
    }

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let flow = |x| Flow { requests_per_second: x, tokens_per_second: 10.0 * x, decodes: 3.0 };
        let truth = Truth { best: flow(2.5), clients: 17, clients_at_95: 12.5, ungated: flow(2.0) };
        let machine = machine("prefill");
        assert_eq!(read(&truth.line("prefill", &machine)), Some((machine.key(), truth)));
        assert_eq!(read("name\tkey\tnumbers"), None);
    }

    #[test]
    fn half_the_speed_and_twice_the_replicas_is_equal_capacity() {
        let truth = Truths::kept().of(&machine("seed")).unwrap();
        let scaled = truth.scaled(2.0, 2);
        assert_eq!(scaled.best.requests_per_second, truth.best.requests_per_second);
        assert_eq!(scaled.best.decodes, 2.0 * truth.best.decodes);
    }
}
