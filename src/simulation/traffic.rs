//! The requests of a run, all drawn before it begins: when they arrive and how long they are.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::machine::{Lengths, Machine};
use super::scenario::{LevelRamp, Scenario, Segment, Sight, Until};
use crate::admission::{Class, Tenant};
use crate::load::schedule::{Extent, Rate, schedule};
use crate::vocabulary::time::Timestamp;

/// One request that will arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedRequest {
    /// When.
    pub arrives: Timestamp,
    /// How long it really is.
    pub lengths: Lengths,
    /// How long weir thinks its prompt is.
    pub seen: Option<u32>,
    /// In which class.
    pub class: Class,
    /// Of which tenant.
    pub tenant: Tenant,
    /// The request that this is another try of: its number, and how many tries went before.
    pub retry: Option<(usize, u32)>,
}

/// All requests of `scenario`, in order. `units` are what each segment's level counts in, in requests per second.
///
/// Four independent random streams, so that a change to one law does not change what the others draw.
pub fn draw(scenario: &Scenario, machine: &Machine, units: &[f64], seed: u64) -> Vec<SimulatedRequest> {
    let mut lengths = rng(seed, DrawKind::Lengths);
    let mut sight = rng(seed, DrawKind::Sight);
    let mut clients = rng(seed, DrawKind::Clients);
    let mut requests = Vec::new();
    let mut begins = Timestamp::ZERO;
    for (number, (segment, &unit)) in scenario.segments.iter().zip(units).enumerate() {
        let machine = segment.machine(machine);
        for start in arrivals(segment, unit, arrival_seed(seed, number)) {
            let lengths = machine.draw(&mut lengths);
            let seen = see(lengths.prompt, scenario.sight, &mut sight);
            let (class, tenant) = scenario.clients.draw(clients.random(), clients.random());
            requests.push(SimulatedRequest { arrives: begins + start, lengths, seen, class, tenant, retry: None });
        }
        begins = begins + segment.length();
    }
    requests
}

/// Starts within the segment, counted from its beginning.
///
/// A ramp is a time change: gaps are drawn at rate 1 and laid out along the integral of the rate, so their law (Poisson,
/// CV) holds at every moment of it.
fn arrivals(segment: &Segment, unit: f64, seed: u64) -> Vec<Duration> {
    let LevelRamp { from, to } = segment.level.times(unit);
    match segment.until {
        Until::Requests(count) => {
            let starts = schedule(segment.arrivals, Rate::ONE, Extent::Count(count), seed);
            starts.into_iter().map(|start| start.div_f64(from)).collect()
        }
        Until::Elapsed(length) => {
            let seconds = length.as_secs_f64();
            let expected = Duration::from_secs_f64((from + to) / 2.0 * seconds);
            let starts = schedule(segment.arrivals, Rate::ONE, Extent::Time(expected), seed);
            let slope = (to - from) / seconds;
            starts.into_iter().map(|start| Duration::from_secs_f64(reached(from, slope, start.as_secs_f64()))).collect()
        }
    }
}

/// When the integral of `from + slope * t` reaches `area`.
///
/// The root of `slope/2 t² + from t = area` in the form that does not cancel when the slope is small.
fn reached(from: f64, slope: f64, area: f64) -> f64 {
    2.0 * area / (from + (from * from + 2.0 * slope * area).max(0.0).sqrt())
}

/// What a length of `prompt` tokens looks like from its bytes.
fn see(prompt: u32, sight: Sight, rng: &mut ChaCha8Rng) -> Option<u32> {
    let normal: f64 = StandardNormal.sample(rng);
    let seen = f64::from(prompt) * sight.prompt_bias * (sight.prompt_error * normal).exp();
    sight.prompts.then(|| seen.round().max(1.0) as u32)
}

/// What a random stream is for.
#[derive(Clone, Copy)]
pub(super) enum DrawKind {
    Lengths = 1,
    Sight = 2,
    Clients = 3,
    Retries = 4,
}

pub(super) fn rng(seed: u64, purpose: DrawKind) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng
}

/// `schedule` takes a seed and no stream; an odd multiplier keeps its seeds apart from those above and from each other.
fn arrival_seed(seed: u64, segment: usize) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1 + segment as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::profile::Profile;

    fn requests(toml: &str, seed: u64) -> Vec<SimulatedRequest> {
        let text = format!("about = \"x\"\nengines = [\"slots16\"]\nseeds = [1]\n{toml}");
        let scenario = Scenario::parse("test", &text).unwrap();
        let units = vec![10.0; scenario.segments.len()];
        draw(&scenario, &Machine::plain(Profile::named("slots16").unwrap().setup), &units, seed)
    }

    fn within(requests: &[SimulatedRequest], from: u64, to: u64) -> f64 {
        let bounds = Timestamp::ZERO + Duration::from_secs(from)..Timestamp::ZERO + Duration::from_secs(to);
        requests.iter().filter(|request| bounds.contains(&request.arrives)).count() as f64
    }

    #[test]
    fn a_level_counts_in_its_unit() {
        let poisson = requests("[[segment]]\nseconds = 2000\nload = 0.5\n", 1);
        assert!((within(&poisson, 0, 2000) / 10_000.0 - 1.0).abs() < 0.03);
        let steady = requests("[[segment]]\nseconds = 2000\nload = 0.2\ncv = 0.0\n", 1);
        assert_eq!(steady.len(), 4000);
    }

    #[test]
    fn a_ramp_goes_from_one_load_to_the_other() {
        let ramp = requests("[[segment]]\nseconds = 1000\nload = [0.0, 2.0]\n", 3);
        for quarter in 0..4_u64 {
            let expected = 10.0 * 250.0 * (0.5 * quarter as f64 + 0.25);
            let seen = within(&ramp, quarter * 250, quarter * 250 + 250);
            assert!((seen - expected).abs() < 4.0 * expected.sqrt(), "{quarter}: {seen}, expected {expected}");
        }
        assert!(ramp.is_sorted_by_key(|request| request.arrives));
    }

    #[test]
    fn segments_follow_each_other_and_change_the_mix() {
        let text = "[[segment]]\nseconds = 500\nload = 1.0\n[[segment]]\nseconds = 500\nload = 1.0\noutput = 2.0\n";
        let requests = requests(text, 5);
        let half = Timestamp::ZERO + Duration::from_secs(500);
        let mean = |part: &[SimulatedRequest]| {
            part.iter().map(|request| f64::from(request.lengths.output)).sum::<f64>() / part.len() as f64
        };
        let (before, after): (Vec<SimulatedRequest>, Vec<SimulatedRequest>) =
            requests.iter().partition(|request| request.arrives < half);
        let ratio = mean(&after) / mean(&before);
        assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
    }

    #[test]
    fn a_prompt_is_seen_with_an_error_or_not_at_all() {
        let plain = requests("[[segment]]\nseconds = 1000\nload = 1.0\n", 5);
        let logs: Vec<f64> = plain
            .iter()
            .map(|request| (f64::from(request.seen.unwrap()) / f64::from(request.lengths.prompt)).ln())
            .collect();
        let deviation = (logs.iter().map(|log| log * log).sum::<f64>() / logs.len() as f64).sqrt();
        assert!((deviation - 0.15).abs() < 0.01, "{deviation}");
        let hidden = requests("[sight]\nprompts = false\n[[segment]]\nseconds = 10\nload = 1.0\n", 5);
        assert!(hidden.iter().all(|request| request.seen.is_none()));
    }

    #[test]
    fn equal_seeds_draw_equal_requests_and_others_do_not() {
        let text = "[[segment]]\nseconds = 100\nload = 1.0\ncv = 3.0\n";
        assert_eq!(requests(text, 7), requests(text, 7));
        assert_ne!(requests(text, 7), requests(text, 8));
    }
}
