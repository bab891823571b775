//! What real engines do and the four costs of a step leave out.
//!
//! All off by default. They exist so that an estimator which assumes linear steps and one token a decode can be tested with
//! engines that differ. It holds no randomness: how many drafted tokens are accepted follows from a hash.

use serde::{Deserialize, Serialize};

/// Departures from the plain engine; the default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// Seconds per pair of a prompt token that is processed and a token before it in its sequence: attention, whose
    /// cost grows with the square of the prompt.
    pub per_attended_token: f64,
    /// The batch sizes that decodes are padded to.
    pub padding: Padding,
    /// Several tokens an emission; `None` is one.
    pub speculation: Option<Speculation>,
}

/// CUDA graphs are captured for some batch sizes; a batch in between costs what the next captured one costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Every size costs its own time.
    #[default]
    None,
    /// 1, 2, 4, 8, then every 8th up to 256, then every 16th: vLLM's default capture sizes.
    Eights,
    /// Powers of two.
    Doubling,
}

/// Speculative decoding: a decode yields one token and those of the drafted ones that are accepted in a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speculation {
    /// Probability that the next drafted token is accepted.
    pub acceptance: f64,
    /// Most tokens of one emission, the sure one included.
    pub most: u32,
    /// Another seed, other acceptances.
    #[serde(default)]
    pub seed: u64,
}

impl Padding {
    /// The batch size that is paid for.
    pub fn padded(self, decodes: u32) -> u32 {
        match self {
            Self::None => decodes,
            Self::Doubling => decodes.checked_next_power_of_two().unwrap_or(decodes),
            Self::Eights if decodes <= 4 => decodes.next_power_of_two() * u32::from(decodes > 0),
            Self::Eights if decodes <= 256 => decodes.next_multiple_of(8),
            Self::Eights => decodes.checked_next_multiple_of(16).unwrap_or(decodes),
        }
    }
}

impl Speculation {
    /// Tokens of the decode that follows after `generated` tokens of sequence `id`: 1 to `most`.
    pub(super) fn tokens(&self, id: u64, generated: u32) -> u32 {
        let mut tokens = 1;
        let mut bits = scrambled(self.seed ^ scrambled(id.rotate_left(32) ^ u64::from(generated)));
        while tokens < self.most.max(1) && unit(bits) < self.acceptance {
            tokens += 1;
            bits = scrambled(bits);
        }
        tokens
    }
}

/// 64 bits that share nothing with their neighbours': the finalizer of splitmix64 (Steele, Lea, Flood 2014).
fn scrambled(bits: u64) -> u64 {
    let mut z = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in [0, 1) from the upper 53 bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_goes_to_the_next_captured_size() {
        let sizes = [0, 1, 3, 4, 5, 9, 256, 257, 300];
        assert_eq!(sizes.map(|n| Padding::Eights.padded(n)), [0, 1, 4, 4, 8, 16, 256, 272, 304]);
        assert_eq!([1, 3, 65, 128].map(|n| Padding::Doubling.padded(n)), [1, 4, 128, 128]);
        assert_eq!(sizes.map(|n| Padding::None.padded(n)), sizes);
    }

    #[test]
    fn drafted_tokens_are_accepted_as_often_as_said() {
        let law = Speculation { acceptance: 0.6, most: 4, seed: 9 };
        let drawn: Vec<u32> =
            (0..200).flat_map(|id| (0..100).map(move |generated| law.tokens(id, generated))).collect();
        let mean = f64::from(drawn.iter().sum::<u32>()) / drawn.len() as f64;
        // 1 + p + p² + p³
        assert!((mean - 2.176).abs() < 0.03, "{mean}");
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&1), Some(&4)));
    }

    #[test]
    fn the_seed_decides_which_tokens_are_accepted() {
        let drawn = |seed| {
            let law = Speculation { acceptance: 0.6, most: 4, seed };
            (0..50).map(|id| law.tokens(id, 7)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
