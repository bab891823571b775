//! Many runs at once, on several threads, and the value of every expectation.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::enforcement::{Enforcement, ModeChoice};
use super::expectation::Expectation;
use super::machine::Machine;
use super::outcome::SimulationOutcome;
use super::play::{ReplicaStage, play};
use super::scenario::{LevelUnit, Scenario, Segment, Subject};
use super::truth::{Truth, Truths};
use super::verdict::{Evidence, across};

/// The value of one expectation for one engine.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    /// The scenario it is from.
    pub scenario: &'a Scenario,
    /// The engine's name.
    pub engine: &'a str,
    /// What was expected.
    pub expectation: &'a Expectation,
    /// A value for each seed; `None` where there was nothing to measure.
    pub seeds: Vec<Option<f64>>,
    /// One value from those.
    pub value: Option<f64>,
}

impl Finding<'_> {
    /// Whether the value lies in the range.
    pub fn is_met(&self) -> bool {
        self.value.is_some_and(|value| self.expectation.range.contains(&value))
    }
}

/// Which of the scenarios' engines and seeds are run; the default is all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names of engines; empty is all.
    pub engines: Vec<String>,
    /// These in place of the file's.
    pub seeds: Option<Vec<u64>>,
}

/// Runs every scenario with every engine and seed, and compares the outcome with what was expected.
///
/// Truths that are not in `truths` are computed first and added. The findings are in the order of the files, whichever
/// thread was first.
pub fn rehearse<'a>(
    scenarios: &'a [Scenario],
    choice: &Selection,
    truths: &mut Truths,
    threads: NonZeroUsize,
) -> Vec<Finding<'a>> {
    let pairs: Vec<(&Scenario, &Subject)> = scenarios
        .iter()
        .flat_map(|scenario| scenario.engines.iter().map(move |subject| (scenario, subject)))
        .filter(|(_, subject)| choice.engines.is_empty() || choice.engines.contains(&subject.name))
        .collect();
    complete(truths, &pairs, threads);
    let known = &*truths;
    let mut runs: Vec<SimulationRun<'_>> = Vec::new();
    for (pair, (scenario, subject)) in pairs.iter().enumerate() {
        let (truths, units) = against(scenario, subject, known);
        let seeds = choice.seeds.as_ref().unwrap_or(&scenario.seeds);
        runs.extend(seeds.iter().map(|&seed| SimulationRun {
            pair,
            scenario,
            subject,
            seed,
            truths: truths.clone(),
            units: units.clone(),
        }));
    }
    // The longest first, so that it is not the only one left at the end.
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|&a, &b| runs[b].work().total_cmp(&runs[a].work()));
    let values = in_parallel(&order, threads, |&run| runs[run].values());
    let mut by_run: Vec<Vec<Option<f64>>> = vec![Vec::new(); runs.len()];
    for (run, values) in order.into_iter().zip(values) {
        by_run[run] = values;
    }
    let mut findings = Vec::new();
    for (pair, (scenario, subject)) in pairs.iter().enumerate() {
        let of_pair: Vec<&Vec<Option<f64>>> =
            runs.iter().zip(&by_run).filter(|(run, _)| run.pair == pair).map(|(_, values)| values).collect();
        let concerned = scenario.expectations.iter().filter(|expectation| expectation.concerns(&subject.name));
        for (number, expectation) in concerned.enumerate() {
            let seeds: Vec<Option<f64>> = of_pair.iter().map(|values| values[number]).collect();
            let value = across(expectation.of, &seeds, &expectation.range);
            findings.push(Finding { scenario, engine: &subject.name, expectation, seeds, value });
        }
    }
    findings
}

/// Runs one engine and seed of a scenario, for a chart: the outcome, and the truth of every segment.
pub fn perform(
    scenario: &Scenario,
    subject: &Subject,
    truths: &mut Truths,
    threads: NonZeroUsize,
    seed: u64,
) -> (SimulationOutcome, Vec<Truth>) {
    complete(truths, &[(scenario, subject)], threads);
    let (truths, units) = against(scenario, subject, truths);
    let concurrency = concurrency(scenario, &truths);
    (play(ReplicaStage { scenario, subject, units: &units, concurrency }, seed), truths)
}

/// Computes the truths that `pairs` need and `truths` lacks.
fn complete(truths: &mut Truths, pairs: &[(&Scenario, &Subject)], threads: NonZeroUsize) {
    let mut missing: BTreeMap<String, Machine> = BTreeMap::new();
    for (scenario, subject) in pairs {
        for machine in machines(scenario, subject) {
            if truths.of(&machine).is_none() {
                missing.insert(machine.key(), machine);
            }
        }
    }
    let missing: Vec<Machine> = missing.into_values().collect();
    for (machine, truth) in missing.iter().zip(in_parallel(&missing, threads, Truth::compute)) {
        truths.insert(machine, truth);
    }
}

/// The machines that scenarios need the truth of, each once, with a name for people.
pub fn machines_of(scenarios: &[Scenario]) -> Vec<(String, Machine)> {
    let mut found: Vec<(String, Machine)> = Vec::new();
    for (scenario, subject) in scenarios.iter().flat_map(|one| one.engines.iter().map(move |subject| (one, subject))) {
        for machine in machines(scenario, subject) {
            if !found.iter().any(|(_, known)| *known == machine) {
                found.push((format!("{} {}", subject.name, scenario.name), machine));
            }
        }
    }
    found
}

/// The machines whose truths a scenario needs: each segment's mix, and last the scenario's own, which is the unit of loads.
fn machines(scenario: &Scenario, subject: &Subject) -> Vec<Machine> {
    let own = std::iter::once(subject.machine);
    scenario.segments.iter().map(|segment| segment.machine(&subject.machine)).chain(own).collect()
}

/// The truth of each segment, at its speed and number of replicas, and what its level counts in.
///
/// Every machine is known after [`complete`].
fn against(scenario: &Scenario, subject: &Subject, truths: &Truths) -> (Vec<Truth>, Vec<f64>) {
    let replicas = |segment: &Segment| segment.replicas.unwrap_or(scenario.replicas);
    let own = truths.of(&subject.machine).map(|own| own.scaled(1.0, scenario.replicas));
    let of_segment = |segment: &Segment| {
        let truth = truths.of(&segment.machine(&subject.machine))?.scaled(segment.slowdown, replicas(segment));
        let unit = match segment.unit {
            LevelUnit::Requests => 1.0,
            LevelUnit::Capacity => own?.best.requests_per_second,
            LevelUnit::OwnCapacity => truth.best.requests_per_second,
        };
        Some((truth, unit))
    };
    scenario.segments.iter().filter_map(of_segment).unzip()
}

/// Requests in flight at which the engines are at their best.
fn concurrency(scenario: &Scenario, truths: &[Truth]) -> f64 {
    truths.first().map_or(1.0, |truth| f64::from(truth.clients * scenario.replicas))
}

/// One engine, one seed.
struct SimulationRun<'a> {
    pair: usize,
    scenario: &'a Scenario,
    subject: &'a Subject,
    seed: u64,
    truths: Vec<Truth>,
    units: Vec<f64>,
}

impl SimulationRun<'_> {
    /// The value of every expectation that concerns the engine.
    fn values(&self) -> Vec<Option<f64>> {
        let (scenario, subject, units) = (self.scenario, self.subject, self.units.as_slice());
        let stage = ReplicaStage { scenario, subject, units, concurrency: concurrency(scenario, &self.truths) };
        let outcome = play(stage, self.seed);
        let twin = self.has_twin().then(|| {
            let control = Enforcement { mode: ModeChoice::Observe, ..scenario.control };
            let scenario = Scenario { control, ..scenario.clone() };
            play(ReplicaStage { scenario: &scenario, ..stage }, self.seed)
        });
        let evidence = Evidence {
            scenario: self.scenario,
            outcome: &outcome,
            twin: twin.as_ref(),
            machine: &self.subject.machine,
            truths: &self.truths,
            units: &self.units,
            slo_ttft: self.subject.slo_ttft,
        };
        let concerned =
            self.scenario.expectations.iter().filter(|expectation| expectation.concerns(&self.subject.name));
        concerned.map(|expectation| evidence.value(expectation)).collect()
    }

    /// Whether something is compared with the same traffic without a gate.
    fn has_twin(&self) -> bool {
        let concerned = |expectation: &&Expectation| expectation.concerns(&self.subject.name);
        self.scenario.expectations.iter().filter(concerned).any(|expectation| expectation.measure.has_twin())
    }

    /// Tokens to be generated, roughly.
    fn work(&self) -> f64 {
        let tokens = self.truths.first().map_or(0.0, |truth| truth.best.tokens_per_second);
        tokens * self.scenario.length().as_secs_f64()
    }
}

/// `of` each item, in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], threads: NonZeroUsize, of: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(items.len()) {
            scope.spawn(|| {
                while let Some((number, item)) = pick(items, &next) {
                    let result = of(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

fn pick<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let number = next.fetch_add(1, Relaxed);
    Some((number, items.get(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

    fn scenario(expect: &str) -> Vec<Scenario> {
        let text = format!(
            "about = \"x\"\nengines = [\"slots16\", \"thrash\"]\nseeds = [1, 2]\n[[segment]]\nseconds = 60\nload = 2.0\n\
             {expect}"
        );
        vec![Scenario::parse("overload", &text).unwrap()]
    }

    #[test]
    fn the_outcome_is_compared_with_what_was_expected() {
        let goodput = |bar: &str| {
            let scenarios = scenario(&format!("[[expect]]\nmeasure = \"goodput\"\n{bar}\n"));
            let mut truths = Truths::kept();
            let findings = rehearse(&scenarios, &Selection::default(), &mut truths, TWO);
            assert_eq!(findings.iter().map(|finding| finding.engine).collect::<Vec<_>>(), ["slots16", "thrash"]);
            assert!(findings.iter().all(|finding| finding.seeds.len() == 2));
            findings.iter().map(Finding::is_met).collect::<Vec<_>>()
        };
        assert_eq!(goodput("at_most = 0.5"), [true, true], "an ungated overload serves hardly any request in time");
        assert_eq!(goodput("at_least = 0.5"), [false, false]);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let scenarios = scenario("[[expect]]\nmeasure = \"ttft\"\nat_most = 1\n");
        let seeds = |threads| {
            let mut truths = Truths::kept();
            rehearse(&scenarios, &Selection::default(), &mut truths, threads)
                .into_iter()
                .map(|f| f.seeds)
                .collect::<Vec<_>>()
        };
        assert_eq!(seeds(NonZeroUsize::MIN), seeds(TWO));
    }

    #[test]
    fn engines_and_seeds_can_be_picked() {
        let choice = Selection { engines: vec!["thrash".into()], seeds: Some(vec![8]) };
        let scenarios = scenario("[[expect]]\nmeasure = \"ttft\"\nat_most = 1\n");
        let findings = rehearse(&scenarios, &choice, &mut Truths::kept(), TWO);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].engine, findings[0].seeds.len()), ("thrash", 1));
    }

    #[test]
    fn items_keep_their_order() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = in_parallel(&items, TWO, |item| item * 2);
        assert!(doubled.iter().zip(&items).all(|(doubled, item)| *doubled == item * 2));
    }
}
