//! The simulated engines by name: what a step costs, the limits, the usual traffic, the true capacity.
//!
//! Seven engines that the control algorithm was developed on, four that were held out meanwhile, and two that were written down from
//! data sheets before weir's own estimator existed (docs/internals/decisions/0007-two-untuned-engines.md).
//! [`Setup`] is the shape of an engine file (`weir engine --params FILE`). It holds no randomness: a generator is passed in.

use std::num::NonZeroU32;
use std::time::Duration;

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::model::Params;

/// An engine with a name, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// What `--profile` takes.
    pub name: &'static str,
    /// What is simulated.
    pub setup: Setup,
    /// The TTFT objective that goes with its size and traffic.
    pub slo_ttft: Duration,
    /// Completed requests per second at the best concurrency, for its own workload, in a closed loop of at least
    /// 15,000 requests or 1,500 s. Shorter loops read up to 7 % off.
    pub capacity: f64,
    /// Mean number of sequences that decode when saturated.
    pub saturated_decodes: f64,
}

impl Profile {
    /// The profile of that name.
    ///
    /// # Errors
    /// [`UnknownProfile`], whose sentence lists the names.
    pub fn named(name: &str) -> Result<&'static Self, UnknownProfile> {
        PROFILES.iter().find(|profile| profile.name == name).ok_or_else(|| UnknownProfile { name: name.to_owned() })
    }
}

/// An engine to simulate: its parameters and the lengths of its requests. This is the shape of an engine file:
///
/// ```yaml
/// params: { base: 0.0135, per_decode: 0.000157, per_prefill_token: 0.000183, per_kv_token: 0,
///           max_num_seqs: 91, max_num_batched_tokens: 2048, kv_tokens: 400000 }
/// workload: { prompt: { mean: 162, sigma: 0.7 }, output: { mean: 153, sigma: 0.25 } }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Step costs and limits.
    pub params: Params,
    /// Lengths of prompts and outputs; the server draws outputs from it, load generators both.
    #[serde(default = "seed_workload")]
    pub workload: ProfileWorkload,
}

impl Setup {
    /// Reads an engine file: YAML, of which JSON is a part.
    ///
    /// # Errors
    /// [`BadSetup::Syntax`] with line and column for what does not parse or has an unknown key; [`BadSetup::Value`]
    /// for a number that no engine can have.
    pub fn parse(text: &str) -> Result<Self, BadSetup> {
        let setup: Self = serde_saphyr::from_str(text).map_err(|error| BadSetup::Syntax(error.to_string()))?;
        let Params { base, per_decode, per_prefill_token, per_kv_token, .. } = setup.params;
        let ProfileWorkload { prompt, output } = setup.workload;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let checks = [
            ("params.base", positive(base)),
            ("params.per_decode", not_negative(per_decode)),
            ("params.per_prefill_token", not_negative(per_prefill_token)),
            ("params.per_kv_token", not_negative(per_kv_token)),
            ("workload.prompt.mean", positive(prompt.mean)),
            ("workload.prompt.sigma", not_negative(prompt.sigma)),
            ("workload.output.mean", positive(output.mean)),
            ("workload.output.sigma", not_negative(output.sigma)),
        ];
        match checks.iter().find(|(_, sound)| !sound) {
            Some((field, _)) => Err(BadSetup::Value { field }),
            None => Ok(setup),
        }
    }
}

/// Lengths of a traffic's requests, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileWorkload {
    /// Prompt lengths.
    pub prompt: LengthLaw,
    /// Output lengths.
    pub output: LengthLaw,
}

impl ProfileWorkload {
    /// Draws one request, `(prompt, output)` in tokens. Each is cut off at 40 % of KV memory and at 16,384, so that the
    /// tail of the law never asks for what the engine cannot hold; prompts have at least 4 tokens, outputs one.
    pub fn draw(&self, params: &Params, rng: &mut impl Rng) -> (u32, u32) {
        let longest = longest(params);
        let prompt = self.prompt.draw(4, longest, rng);
        (prompt, self.output.draw(1, longest, rng))
    }

    /// Draws an output length alone, with the same cut-off.
    pub fn draw_output(&self, params: &Params, rng: &mut impl Rng) -> u32 {
        self.output.draw(1, longest(params), rng)
    }
}

/// A log-normal law of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthLaw {
    /// Mean length, in tokens.
    pub mean: f64,
    /// Standard deviation of the logarithm; 0 makes every length the mean.
    pub sigma: f64,
}

impl LengthLaw {
    /// Draws a length between `least` and `most`. The location is `ln(mean) - sigma^2 / 2`, which makes `mean` the
    /// mean of the law before it is cut off.
    pub fn draw(&self, least: u32, most: u32, rng: &mut impl Rng) -> u32 {
        let normal: f64 = StandardNormal.sample(rng);
        let length = (self.mean.ln() - self.sigma * self.sigma / 2.0 + self.sigma * normal).exp();
        length.round().clamp(f64::from(least), f64::from(most.max(least))) as u32
    }
}

/// No engine has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine profile '{name}': choose one of {}", names())]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
}

/// What is wrong with an engine file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSetup {
    /// Not YAML, or not of this shape; the parser's sentence.
    #[error("engine file: {0}")]
    Syntax(String),
    /// A number out of range.
    #[error(
        "engine file: {field} is out of range (no time or length is negative or infinite; base and means are above zero)"
    )]
    Value {
        /// Which one.
        field: &'static str,
    },
}

/// Every named engine. `seed` reproduces a measurement of one GPU with a plateau near 13 req/s.
pub const PROFILES: [Profile; 13] = [
    Profile {
        name: "seed",
        setup: setup([0.0135, 0.000157, 0.000183, 0.0], [91, 2048, 400_000], law(162.0, 0.7), law(153.0, 0.25)),
        slo_ttft: Duration::from_millis(1000),
        capacity: 13.14,
        saturated_decodes: 91.0,
    },
    Profile {
        name: "smallkv",
        setup: setup([0.012, 0.0001, 0.00005, 2e-7], [256, 2048, 16_000], law(400.0, 0.6), law(300.0, 0.6)),
        slo_ttft: Duration::from_millis(1000),
        capacity: 4.168,
        saturated_decodes: 25.0,
    },
    Profile {
        name: "bigbatch",
        setup: setup([0.018, 0.00006, 0.00002, 2e-8], [512, 8192, 600_000], law(220.0, 0.8), law(250.0, 0.6)),
        slo_ttft: Duration::from_millis(1000),
        capacity: 33.26,
        saturated_decodes: 512.0,
    },
    Profile {
        name: "prefill",
        setup: setup([0.012, 0.0001, 0.00008, 1e-8], [128, 2048, 800_000], law(5000.0, 0.5), law(60.0, 0.5)),
        slo_ttft: Duration::from_millis(3000),
        capacity: 2.288,
        saturated_decodes: 26.0,
    },
    Profile {
        name: "slots16",
        setup: setup([0.011, 0.0002, 0.00006, 0.0], [16, 2048, 400_000], law(300.0, 0.7), law(200.0, 0.5)),
        slo_ttft: Duration::from_millis(1500),
        capacity: 5.126,
        saturated_decodes: 16.0,
    },
    Profile {
        // Over-admitted it falls to 1.235 req/s: recomputation eats the prefill budget.
        name: "thrash",
        setup: setup([0.012, 0.0001, 0.00030, 0.0], [256, 2048, 24_000], law(600.0, 0.3), law(700.0, 0.3)),
        slo_ttft: Duration::from_millis(2000),
        capacity: 1.526,
        saturated_decodes: 21.0,
    },
    Profile {
        name: "fastsmall",
        setup: setup([0.006, 0.00004, 0.00001, 0.0], [256, 4096, 600_000], law(120.0, 0.6), law(24.0, 0.4)),
        slo_ttft: Duration::from_millis(500),
        capacity: 372.9,
        saturated_decodes: 256.0,
    },
    Profile {
        name: "h100like",
        setup: setup([0.009, 3e-5, 6e-6, 1.5e-8], [256, 8192, 300_000], law(1500.0, 1.0), law(250.0, 0.8)),
        slo_ttft: Duration::from_millis(1000),
        capacity: 27.34,
        saturated_decodes: 172.6,
    },
    Profile {
        name: "ragkv",
        setup: setup([0.020, 1.2e-4, 3.5e-5, 5e-8], [128, 4096, 60_000], law(2500.0, 0.6), law(180.0, 0.9)),
        slo_ttft: Duration::from_millis(2500),
        capacity: 3.270,
        saturated_decodes: 21.4,
    },
    Profile {
        name: "codegen",
        setup: setup([0.015, 8e-5, 2e-5, 3e-8], [64, 4096, 120_000], law(1200.0, 0.8), law(600.0, 0.7)),
        slo_ttft: Duration::from_millis(1500),
        capacity: 4.080,
        saturated_decodes: 63.4,
    },
    Profile {
        name: "chat70b",
        setup: setup([0.030, 2e-4, 1.2e-4, 5e-8], [96, 2048, 90_000], law(700.0, 0.9), law(350.0, 0.7)),
        slo_ttft: Duration::from_millis(2000),
        capacity: 3.309,
        saturated_decodes: 85.4,
    },
    Profile {
        // An 8-billion-parameter model in 16 bits on an L4, chat: arithmetic from data sheets, nothing was tuned for it.
        name: "l4chat",
        setup: setup([0.067, 1.0e-4, 2.4e-4, 5.5e-7], [256, 2048, 30_000], law(230.0, 1.1), law(200.0, 0.9)),
        slo_ttft: Duration::from_millis(2000),
        capacity: 2.787,
        saturated_decodes: 60.6,
    },
    Profile {
        // A 70-billion-parameter model in 8 bits on an H200, summaries: likewise.
        name: "h200sum",
        setup: setup([0.0184, 5.0e-5, 1.4e-4, 8.5e-8], [256, 8192, 158_000], law(3500.0, 0.8), law(220.0, 0.6)),
        slo_ttft: Duration::from_millis(3000),
        capacity: 1.491,
        saturated_decodes: 40.1,
    },
];

/// Longest prompt or output of a drawn request: see [`ProfileWorkload::draw`].
fn longest(params: &Params) -> u32 {
    (params.kv_tokens.get() / 5 * 2).clamp(4, 16_384)
}

fn names() -> String {
    PROFILES.map(|profile| profile.name).join(", ")
}

fn seed_workload() -> ProfileWorkload {
    PROFILES[0].setup.workload
}

const fn law(mean: f64, sigma: f64) -> LengthLaw {
    LengthLaw { mean, sigma }
}

/// `costs` are a, b, c, d; `limits` are slots, batched tokens, KV tokens.
const fn setup(costs: [f64; 4], limits: [u32; 3], prompt: LengthLaw, output: LengthLaw) -> Setup {
    let [base, per_decode, per_prefill_token, per_kv_token] = costs;
    let params = Params {
        base,
        per_decode,
        per_prefill_token,
        per_kv_token,
        max_num_seqs: some(limits[0]),
        max_num_batched_tokens: some(limits[1]),
        kv_tokens: some(limits[2]),
    };
    Setup { params, workload: ProfileWorkload { prompt, output } }
}

/// The table above holds no zero; a zero there would not compile.
const fn some(count: u32) -> NonZeroU32 {
    match NonZeroU32::new(count) {
        Some(count) => count,
        None => panic!("a limit of zero"),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::engine::model::Engine;

    /// Keeps `concurrency` requests in the engine for `requests` completions after a warm-up; returns requests/s.
    fn closed_loop(profile: &Profile, concurrency: u64, requests: u64) -> f64 {
        let Setup { params, workload } = profile.setup;
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut engine = Engine::new(params);
        let mut next = 0;
        let mut submit = |engine: &mut Engine| {
            let (prompt, output) = workload.draw(&params, &mut rng);
            engine.submit(next, prompt, output).unwrap();
            next += 1;
        };
        (0..concurrency).for_each(|_| submit(&mut engine));
        let (mut done, mut time, mut began) = (0, Duration::ZERO, Duration::ZERO);
        let warm_up = requests / 4;
        while done < requests + warm_up {
            let (step, emissions) = engine.step().unwrap();
            time += step.duration;
            let finished = emissions.iter().filter(|emission| emission.finished).count() as u64;
            if done < warm_up && done + finished >= warm_up {
                began = time;
            }
            done += finished;
            (0..finished).for_each(|_| submit(&mut engine));
        }
        requests as f64 / (time - began).as_secs_f64()
    }

    fn assert_capacity(name: &str, concurrency: u64, requests: u64) {
        let profile = Profile::named(name).unwrap();
        let measured = closed_loop(profile, concurrency, requests);
        let error = measured / profile.capacity - 1.0;
        assert!(error.abs() < 0.02, "{name}: {measured:.3} req/s, {:.1} % off", error * 100.0);
    }

    #[test]
    fn seed_serves_its_known_capacity() {
        assert_capacity("seed", 100, 6_000);
    }

    #[test]
    fn slots16_serves_its_known_capacity() {
        assert_capacity("slots16", 20, 8_000);
    }

    #[test]
    fn fastsmall_serves_its_known_capacity() {
        assert_capacity("fastsmall", 300, 20_000);
    }

    #[test]
    fn prefill_serves_its_known_capacity() {
        assert_capacity("prefill", 30, 6_000);
    }

    #[test]
    fn thrash_falls_below_its_capacity_when_over_admitted() {
        let ungated = closed_loop(Profile::named("thrash").unwrap(), 300, 2_500);
        assert!((1.20..1.27).contains(&ungated), "{ungated:.3} req/s, known: 1.235");
    }

    #[test]
    fn the_law_has_the_mean_it_names() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let law = law(200.0, 0.7);
        let sum: f64 = (0..40_000).map(|_| f64::from(law.draw(1, 100_000, &mut rng))).sum();
        assert!((sum / 40_000.0 - 200.0).abs() < 4.0, "{}", sum / 40_000.0);
    }

    #[test]
    fn an_unknown_profile_lists_the_names() {
        let sentence = Profile::named("h200").unwrap_err().to_string();
        assert!(sentence.starts_with("unknown engine profile 'h200': choose one of seed, smallkv, "), "{sentence}");
        assert!(Profile::named("chat70b").is_ok());
    }

    #[test]
    fn an_engine_file_is_yaml_or_json() {
        let seed = PROFILES[0].setup;
        let json = serde_json::to_string(&seed).unwrap();
        assert_eq!(Setup::parse(&json).unwrap(), seed);
        let yaml = "params:\n  base: 0.0135\n  per_decode: 0.000157\n  per_prefill_token: 0.000183\n  max_num_seqs: 91\n  \
                    max_num_batched_tokens: 2048\n  kv_tokens: 400000\n";
        assert_eq!(Setup::parse(yaml).unwrap(), seed);
    }

    #[test]
    fn an_engine_file_that_no_engine_can_have_is_refused() {
        let json = serde_json::to_string(&PROFILES[0].setup).unwrap();
        let refused = |from: &str, to: &str| Setup::parse(&json.replace(from, to)).unwrap_err().to_string();
        assert!(refused("\"base\":0.0135", "\"base\":0").contains("params.base"));
        assert!(refused("\"per_decode\":0.000157", "\"per_decode\":-1").contains("params.per_decode"));
        assert!(refused("\"max_num_seqs\":91", "\"max_num_seqs\":0").starts_with("engine file: "));
        assert!(refused("\"base\"", "\"bass\"").contains("bass"));
    }
}
