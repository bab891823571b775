//! What the requests of a level look like: lengths of prompt and answer, and the prompt's text.
//!
//! Request number `i` of a seed is always the same, whoever draws it and in whatever order: each has dice of its own.
//! It holds no dialect (`body` spells the request) and no times (`schedule`).

use std::fmt;
use std::str::FromStr;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use serde::{Deserialize, Serialize};

/// Lengths of the requests of a level. The default is the mix of the `seed` engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// Prompt length, tokens.
    pub prompt: Length,
    /// Answer length, tokens: sent as the output cap, exact when the engine honours `ignore_eos`.
    pub output: Length,
    /// Seed of lengths and texts.
    pub seed: u64,
}

/// A length in tokens, or the law it is drawn from. Written `128` or `lognormal:162,0.7`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Length {
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

/// A length that was written in a way nobody can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length: write tokens (`128`) or `lognormal:MEAN,SIGMA`")]
pub struct BadLength(pub String);

impl Workload {
    /// Request number `id`.
    pub fn draw(&self, id: u64) -> Draw {
        let mut dice = dice(self.seed, id, Purpose::Lengths);
        let prompt_tokens = self.prompt.draw(&mut dice);
        let output_tokens = self.output.draw(&mut dice);
        Draw { id, prompt_tokens, output_tokens, seed: self.seed }
    }
}

impl Draw {
    /// The prompt: `prompt_tokens` short English words, each with its leading space, so exactly 4 bytes a token. Such
    /// words are single tokens in the vocabularies in use; a chat template adds its own.
    ///
    /// No two prompts of a seed share their first five words, so a prefix cache finds nothing: the opening words spell
    /// the request's number. Prompts under 5 tokens cannot all differ and do not.
    pub fn prompt(&self) -> String {
        let words = self.prompt_tokens as usize;
        let mut text = String::with_capacity(words * 4);
        let mut serial = opening(self.seed, self.id);
        let mut dice = dice(self.seed, self.id, Purpose::Text);
        let mut bits = 0_u32;
        for at in 0..words {
            let word = if at < OPENING_WORDS {
                let word = serial & WORD_MASK;
                serial >>= WORD_BITS;
                word
            } else {
                // Five words to a throw of 32 bits.
                bits = if (at - OPENING_WORDS).is_multiple_of(5) { dice.next_u32() } else { bits >> WORD_BITS };
                bits & WORD_MASK
            };
            text.push(' ');
            text.push_str(WORDS[word as usize]);
        }
        text
    }
}

impl Length {
    fn draw(self, dice: &mut ChaCha8Rng) -> u32 {
        match self {
            Self::Fixed(tokens) => tokens.clamp(1, LONGEST),
            Self::LogNormal { mean, sigma } => {
                // E[X] = exp(mu + sigma²/2), hence mu = ln(mean) − sigma²/2.
                let mu = mean.ln() - sigma * sigma / 2.0;
                let drawn = LogNormal::new(mu, sigma).map_or(mean, |law| law.sample(dice));
                drawn.round().clamp(1.0, f64::from(LONGEST)) as u32
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
            prompt: Length::LogNormal { mean: 162.0, sigma: 0.7 },
            output: Length::LogNormal { mean: 153.0, sigma: 0.25 },
            seed: 1,
        }
    }
}

impl FromStr for Length {
    type Err = BadLength;

    fn from_str(text: &str) -> Result<Self, BadLength> {
        read_length(text.trim()).ok_or_else(|| BadLength(text.to_owned()))
    }
}

impl TryFrom<String> for Length {
    type Error = BadLength;

    fn try_from(text: String) -> Result<Self, BadLength> {
        text.parse()
    }
}

impl From<Length> for String {
    fn from(length: Length) -> Self {
        length.to_string()
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tokens) => write!(f, "{tokens}"),
            Self::LogNormal { mean, sigma } => write!(f, "lognormal:{mean},{sigma}"),
        }
    }
}

/// What a request's dice are thrown for: lengths and text must not depend on each other.
#[derive(Clone, Copy)]
enum Purpose {
    Lengths,
    Text,
}

fn dice(seed: u64, id: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(id.wrapping_mul(2).wrapping_add(purpose as u64));
    dice
}

fn read_length(text: &str) -> Option<Length> {
    let Some(law) = text.strip_prefix("lognormal:") else {
        return text.parse().ok().filter(|tokens| (1..=LONGEST).contains(tokens)).map(Length::Fixed);
    };
    let (mean, sigma) = law.split_once(',')?;
    let (mean, sigma) = (mean.trim().parse::<f64>().ok()?, sigma.trim().parse::<f64>().ok()?);
    let sayable = (1.0..=f64::from(LONGEST)).contains(&mean) && (0.0..=WIDEST_SIGMA).contains(&sigma);
    sayable.then_some(Length::LogNormal { mean, sigma })
}

/// A number of 30 bits that differs for every request number below 2^30, spread so that neighbours differ in their first
/// word: multiplying by an odd number permutes the numbers modulo a power of two.
fn opening(seed: u64, id: u64) -> u32 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    const MASK: u64 = (1 << (OPENING_WORDS as u64 * WORD_BITS as u64)) - 1;
    (id.wrapping_mul(ODD).wrapping_add(seed.wrapping_mul(ODD) >> 17) & MASK) as u32
}

/// Words that open a prompt and make it unlike every other.
const OPENING_WORDS: usize = 5;

/// 64 words, so 6 bits choose one.
const WORD_BITS: u32 = 6;
const WORD_MASK: u32 = 63;

/// Four times the longest context on sale; it bounds a prompt at 16 MiB when a law has a wild tail.
const LONGEST: u32 = 1 << 22;

/// Beyond this the mean of a log-normal is carried by draws that never come up in a run.
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

    fn lengths(length: Length, count: u64) -> Vec<f64> {
        let workload = Workload { prompt: length, ..Workload::default() };
        (0..count).map(|id| f64::from(workload.draw(id).prompt_tokens)).collect()
    }

    #[test]
    fn log_normal_lengths_have_the_mean_of_the_law_and_the_sigma_of_the_log() {
        let drawn = lengths(Length::LogNormal { mean: 162.0, sigma: 0.7 }, 20_000);
        let count = drawn.len() as f64;
        let mean = drawn.iter().sum::<f64>() / count;
        let logs: Vec<f64> = drawn.iter().map(|tokens| tokens.ln()).collect();
        let mu = logs.iter().sum::<f64>() / count;
        let sigma = (logs.iter().map(|log| (log - mu).powi(2)).sum::<f64>() / count).sqrt();
        assert!((mean / 162.0 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((sigma - 0.7).abs() < 0.02, "sigma {sigma}");
    }

    #[test]
    fn a_fixed_length_is_exact_and_sigma_zero_is_the_mean() {
        assert!(lengths(Length::Fixed(128), 50).iter().all(|tokens| *tokens == 128.0));
        assert!(lengths(Length::LogNormal { mean: 300.0, sigma: 0.0 }, 50).iter().all(|tokens| *tokens == 300.0));
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
            let workload = Workload { prompt: Length::Fixed(tokens), ..Workload::default() };
            assert_eq!(workload.draw(3).prompt().len(), 4 * tokens as usize);
        }
    }

    #[test]
    fn no_two_prompts_share_their_opening() {
        let workload = Workload { prompt: Length::Fixed(5), ..Workload::default() };
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
            assert_eq!(text.parse::<Length>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "-3", "lognormal:", "lognormal:0,1", "lognormal:10,9", "lognormal:NaN,1", "normal:3,1"] {
            assert!(wrong.parse::<Length>().is_err(), "{wrong}");
        }
    }
}
