//! What the requests of a level look like: lengths of prompt and answer, and the prompt's text.
//!
//! Request number `i` of a seed is always the same, in whatever order requests are drawn: each has a random stream of its own.
//! Lengths are stratified: every block of `BLOCK` requests holds one length out of each `1/BLOCK` of the law, in a random order,
//! prompts and answers apart. So a level of some hundred requests has the law's mean almost exactly, where independent draws
//! would be off by `sigma / sqrt(n)` and every figure of the level with them. It holds no dialect (`body` writes the request) and
//! no times (`schedule`).

use std::fmt;
use std::str::FromStr;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Lengths of the requests of a level. The default is the mix of the `seed` engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// Prompt length, tokens.
    pub prompt: TokenLength,
    /// Answer length, tokens: sent as the output cap, exact when the engine honours `ignore_eos`.
    pub output: TokenLength,
    /// Seed of lengths and texts.
    pub seed: u64,
}

/// A length in tokens, or the law it is drawn from. Written `128` or `lognormal:162,0.7`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenLength {
    /// Always this many tokens.
    Fixed(u32),
    /// Log-normal, rounded to whole tokens, at least 1.
    LogNormal {
        /// Mean of the length itself (not of its logarithm), tokens.
        mean: f64,
        /// Standard deviation of the length's natural logarithm.
        sigma: f64,
    },
}

/// One request to be sent: its number and lengths. The text is made when it is needed, to keep a long level small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Number of the request within its level, from 0.
    pub id: u64,
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// Answer length, tokens.
    pub output_tokens: u32,
    seed: u64,
}

/// A text that is no length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length: write tokens (`128`) or `lognormal:MEAN,SIGMA`")]
pub struct BadLength(pub String);

impl Workload {
    /// Request number `id`.
    pub fn draw(&self, id: u64) -> Draw {
        let mut within = rng(self.seed, id, DrawPurpose::Lengths);
        let prompt_tokens = self.prompt.at(self.quantile(id, DrawPurpose::PromptOrder, &mut within));
        let output_tokens = self.output.at(self.quantile(id, DrawPurpose::OutputOrder, &mut within));
        Draw { id, prompt_tokens, output_tokens, seed: self.seed }
    }

    /// Which share of the law's lengths is shorter than request `id`'s.
    fn quantile(&self, id: u64, order: DrawPurpose, within: &mut ChaCha8Rng) -> f64 {
        let stratum = shuffled(id % BLOCK, rng(self.seed, id / BLOCK, order).next_u64());
        (stratum as f64 + within.random::<f64>()) / BLOCK as f64
    }
}

impl Draw {
    /// A request whose lengths are known from elsewhere.
    pub const fn given(id: u64, prompt_tokens: u32, output_tokens: u32, seed: u64) -> Self {
        Self { id, prompt_tokens, output_tokens, seed }
    }

    /// The prompt: `prompt_tokens` short English words, each with its leading space, so exactly 4 bytes a token. Such
    /// words are single tokens in the vocabularies in use; a chat template adds its own.
    ///
    /// No two prompts of a seed share their first five words, so a prefix cache finds nothing: the opening words spell
    /// the request's number. Prompts under 5 tokens cannot all differ and do not.
    pub fn prompt(&self) -> String {
        let words = self.prompt_tokens as usize;
        let mut text = String::with_capacity(words * 4);
        let mut serial = opening(self.seed, self.id);
        let mut rng = rng(self.seed, self.id, DrawPurpose::Text);
        let mut bits = 0_u32;
        for at in 0..words {
            let word = if at < OPENING_WORDS {
                let word = serial & WORD_MASK;
                serial >>= WORD_BITS;
                word
            } else {
                // Five words from 32 random bits.
                bits = if (at - OPENING_WORDS).is_multiple_of(5) { rng.next_u32() } else { bits >> WORD_BITS };
                bits & WORD_MASK
            };
            text.push(' ');
            text.push_str(WORDS[word as usize]);
        }
        text
    }
}

impl TokenLength {
    /// The length below which a share `quantile` of the law lies.
    fn at(self, quantile: f64) -> u32 {
        match self {
            Self::Fixed(tokens) => tokens.clamp(1, LONGEST),
            Self::LogNormal { mean, sigma } => {
                // E[X] = exp(mu + sigma²/2), hence mu = ln(mean) − sigma²/2.
                let mu = mean.ln() - sigma * sigma / 2.0;
                (mu + sigma * normal_quantile(quantile)).exp().round().clamp(1.0, f64::from(LONGEST)) as u32
            }
        }
    }

    /// Mean of the law, tokens, before rounding.
    pub fn mean(self) -> f64 {
        match self {
            Self::Fixed(tokens) => f64::from(tokens),
            Self::LogNormal { mean, .. } => mean,
        }
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            prompt: TokenLength::LogNormal { mean: 162.0, sigma: 0.7 },
            output: TokenLength::LogNormal { mean: 153.0, sigma: 0.25 },
            seed: 1,
        }
    }
}

impl FromStr for TokenLength {
    type Err = BadLength;

    fn from_str(text: &str) -> Result<Self, BadLength> {
        read_length(text.trim()).ok_or_else(|| BadLength(text.to_owned()))
    }
}

impl TryFrom<String> for TokenLength {
    type Error = BadLength;

    fn try_from(text: String) -> Result<Self, BadLength> {
        text.parse()
    }
}

impl From<TokenLength> for String {
    fn from(length: TokenLength) -> Self {
        length.to_string()
    }
}

impl fmt::Display for TokenLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tokens) => write!(f, "{tokens}"),
            Self::LogNormal { mean, sigma } => write!(f, "lognormal:{mean},{sigma}"),
        }
    }
}

/// What a random stream of a request is for: lengths and text must not depend on each other.
#[derive(Clone, Copy)]
enum DrawPurpose {
    Lengths,
    Text,
    PromptOrder,
    OutputOrder,
}

fn rng(seed: u64, id: u64, purpose: DrawPurpose) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(id.wrapping_mul(4).wrapping_add(purpose as u64));
    rng
}

/// The position of `index` in the order that `key` stands for: each round permutes the numbers below [`BLOCK`], an odd factor and an
/// exclusive or with itself moved right both being invertible modulo a power of two. Far cheaper than shuffling a block for
/// one of its indexes.
fn shuffled(index: u64, key: u64) -> u64 {
    (0..4).map(|round| key >> (16 * round)).fold(index, |at, bits| {
        let at = at.wrapping_mul(bits | 1).wrapping_add(bits >> 7) % BLOCK;
        at ^ at >> 3
    })
}

/// The inverse of the normal distribution's integral, to 7 digits: algorithm AS 241, PPND7 (Wichura, Applied Statistics 37,
/// 1988), whose coefficients these are.
fn normal_quantile(p: f64) -> f64 {
    let ratio = |x: f64, above: &[f64], below: &[f64]| {
        let horner = |coefficients: &[f64]| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
        horner(above) / horner(below)
    };
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(
            0.180625 - q * q,
            &[3.387_132_717_9, 50.434_271_938, 159.291_132_02, 59.109_374_72],
            &[1.0, 17.895_169_469, 78.757_757_664, 67.187_563_6],
        );
    }
    let tail = (-p.min(1.0 - p).max(f64::MIN_POSITIVE).ln()).sqrt();
    let size = if tail <= 5.0 {
        ratio(
            tail - 1.6,
            &[1.423_437_277_7, 2.756_815_39, 1.306_728_481_6, 0.170_238_211_03],
            &[1.0, 0.737_001_642_5, 0.120_211_329_75],
        )
    } else {
        ratio(
            tail - 5.0,
            &[6.657_905_115, 3.081_226_386, 0.428_682_943_37, 0.017_337_203_997],
            &[1.0, 0.241_978_942_25, 0.012_258_202_635],
        )
    };
    size.copysign(q)
}

fn read_length(text: &str) -> Option<TokenLength> {
    let Some(law) = text.strip_prefix("lognormal:") else {
        return text.parse().ok().filter(|tokens| (1..=LONGEST).contains(tokens)).map(TokenLength::Fixed);
    };
    let (mean, sigma) = law.split_once(',')?;
    let (mean, sigma) = (mean.trim().parse::<f64>().ok()?, sigma.trim().parse::<f64>().ok()?);
    let in_range = (1.0..=f64::from(LONGEST)).contains(&mean) && (0.0..=WIDEST_SIGMA).contains(&sigma);
    in_range.then_some(TokenLength::LogNormal { mean, sigma })
}

/// A number of 30 bits that differs for every request number below 2^30, spread so that neighbours differ in their first
/// word: multiplying by an odd number permutes the numbers modulo a power of two.
fn opening(seed: u64, id: u64) -> u32 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    const MASK: u64 = (1 << (OPENING_WORDS as u64 * WORD_BITS as u64)) - 1;
    (id.wrapping_mul(ODD).wrapping_add(seed.wrapping_mul(ODD) >> 17) & MASK) as u32
}

/// Requests in a block. Small enough that a level has several, large enough that the order within looks random.
const BLOCK: u64 = 128;

/// Words that open a prompt and make it unlike every other.
const OPENING_WORDS: usize = 5;

/// 64 words, so 6 bits choose one.
const WORD_BITS: u32 = 6;
const WORD_MASK: u32 = 63;

/// Four times the longest context on offer; it bounds a prompt at 16 MiB when a law has a long tail.
const LONGEST: u32 = 1 << 22;

/// Beyond this the mean of a log-normal rests on draws that never occur in a run.
const WIDEST_SIGMA: f64 = 4.0;

/// Three letters each, frequent enough to be one token together with the space before them.
const WORDS: [&str; 64] = [
    "the", "and", "for", "not", "you", "all", "any", "can", "her", "was", "one", "our", "out", "day", "get", "has",
    "him", "his", "how", "man", "new", "now", "old", "see", "two", "way", "who", "boy", "did", "its", "let", "put",
    "say", "she", "too", "use", "air", "art", "ask", "big", "box", "bus", "car", "cut", "dog", "eat", "end", "eye",
    "far", "few", "fun", "got", "hot", "job", "key", "law", "low", "map", "off", "own", "red", "run", "sea", "sun",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn lengths(length: TokenLength, count: u64) -> Vec<f64> {
        let workload = Workload { prompt: length, ..Workload::default() };
        (0..count).map(|id| f64::from(workload.draw(id).prompt_tokens)).collect()
    }

    #[test]
    fn log_normal_lengths_have_the_mean_and_sigma_of_the_law() {
        let drawn = lengths(TokenLength::LogNormal { mean: 162.0, sigma: 0.7 }, 20_000);
        let count = drawn.len() as f64;
        let mean = drawn.iter().sum::<f64>() / count;
        let logs: Vec<f64> = drawn.iter().map(|tokens| tokens.ln()).collect();
        let mu = logs.iter().sum::<f64>() / count;
        let sigma = (logs.iter().map(|log| (log - mu).powi(2)).sum::<f64>() / count).sqrt();
        assert!((mean / 162.0 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((sigma - 0.7).abs() < 0.02, "sigma {sigma}");
    }

    #[test]
    fn a_block_has_the_mean_of_the_law() {
        for block in 0..20 {
            let workload = Workload { seed: block, ..Workload::default() };
            let ids = (block * BLOCK)..((block + 1) * BLOCK);
            let mean = ids.map(|id| f64::from(workload.draw(id).output_tokens)).sum::<f64>() / BLOCK as f64;
            // 128 independent draws of sigma 0.25 have an error of 2.2 %.
            assert!((mean / 153.0 - 1.0).abs() < 0.004, "block {block}: mean {mean}");
        }
    }

    #[test]
    fn every_key_permutes_a_block_and_few_indexes_stay() {
        let mut stayed = 0;
        for key in 0..200_u64 {
            let key = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let order: Vec<u64> = (0..BLOCK).map(|index| shuffled(index, key)).collect();
            assert_eq!(order.iter().collect::<HashSet<_>>().len() as u64, BLOCK);
            stayed += order.iter().zip(0..).filter(|(to, from)| *to == from).count();
        }
        assert!(stayed < 3 * 200, "one a block is what chance leaves: {stayed}");
    }

    #[test]
    fn prompt_and_output_do_not_depend_on_each_other() {
        let draws: Vec<Draw> = (0..4096).map(|id| Workload::default().draw(id)).collect();
        let logs = |of: fn(&Draw) -> u32| draws.iter().map(|draw| f64::from(of(draw)).ln()).collect::<Vec<_>>();
        let (prompts, outputs) = (logs(|draw| draw.prompt_tokens), logs(|draw| draw.output_tokens));
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let (left, right) = (mean(&prompts), mean(&outputs));
        let together = prompts.iter().zip(&outputs).map(|(a, b)| (a - left) * (b - right)).sum::<f64>() / 4096.0;
        assert!((together / (0.7 * 0.25)).abs() < 0.05, "correlation {}", together / (0.7 * 0.25));
    }

    #[test]
    fn normal_quantiles_are_those_of_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_964), (0.025, -1.959_964), (0.999, 3.090_232), (1e-12, -7.034_484)] {
            assert!((normal_quantile(p) - z).abs() < 1e-5, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn a_fixed_length_is_exact_and_sigma_zero_is_the_mean() {
        assert!(lengths(TokenLength::Fixed(128), 50).iter().all(|tokens| *tokens == 128.0));
        assert!(lengths(TokenLength::LogNormal { mean: 300.0, sigma: 0.0 }, 50).iter().all(|tokens| *tokens == 300.0));
    }

    #[test]
    fn a_request_is_the_same_in_whatever_order_it_is_drawn() {
        let workload = Workload::default();
        let forwards: Vec<_> = (0..20).map(|id| (workload.draw(id), workload.draw(id).prompt())).collect();
        let mut backwards: Vec<_> = (0..20).rev().map(|id| (workload.draw(id), workload.draw(id).prompt())).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_ne!(Workload { seed: 2, ..workload }.draw(0).prompt(), workload.draw(0).prompt());
    }

    #[test]
    fn a_prompt_is_four_bytes_a_token() {
        for tokens in [1, 4, 5, 6, 162, 5000] {
            let workload = Workload { prompt: TokenLength::Fixed(tokens), ..Workload::default() };
            assert_eq!(workload.draw(3).prompt().len(), 4 * tokens as usize);
        }
    }

    #[test]
    fn no_two_prompts_share_their_opening() {
        let workload = Workload { prompt: TokenLength::Fixed(5), ..Workload::default() };
        let prompts: HashSet<String> = (0..20_000).map(|id| workload.draw(id).prompt()).collect();
        assert_eq!(prompts.len(), 20_000);
        assert_ne!(workload.draw(0).prompt()[..4], workload.draw(1).prompt()[..4]);
    }

    #[test]
    fn words_are_distinct_and_three_letters_long() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), WORDS.len());
        assert!(WORDS.iter().all(|word| word.len() == 3));
    }

    #[test]
    fn a_length_is_read_as_it_is_written() {
        for text in ["128", "lognormal:162,0.7"] {
            assert_eq!(text.parse::<TokenLength>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "-3", "lognormal:", "lognormal:0,1", "lognormal:10,9", "lognormal:NaN,1", "normal:3,1"] {
            assert!(wrong.parse::<TokenLength>().is_err(), "{wrong}");
        }
    }
}
