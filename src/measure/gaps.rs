//! The inter-token gaps of one stream, kept until its number of tokens is known.
//!
//! An event of k tokens after a gap dt counts as k observations of dt/k. What k is may be known only at the end, from
//! `usage`: so the gaps are kept per bucket, count and sum, and scaled then. With one token an event, or a running count
//! in every event, the scale is 1 and the result is exact; else it is exact in its sum and count, and each bucket's gaps
//! are taken at their mean.
//!
//! A steady stream's gaps fall into one bucket, or into two neighbours by turns: those two are kept inline. The other
//! buckets, 400 bytes a stream, are allocated once a third one is needed.

use super::histogram::{Bounds, Buckets};

/// One stream's inter-token gaps, by bucket.
#[derive(Debug, Default)]
pub(super) struct TokenGaps {
    /// One bucket with an even index and one with an odd index, so that neighbours never displace each other.
    near: [NearBucket; 2],
    far: Option<Box<[HeldGap]>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct NearBucket {
    bucket: u32,
    held: HeldGap,
}

#[derive(Clone, Copy, Debug, Default)]
struct HeldGap {
    /// Observations, one a token.
    tokens: u32,
    /// Their sum in nanoseconds.
    sum: u64,
}

impl TokenGaps {
    /// An event of `tokens` tokens after `gap` nanoseconds.
    pub fn add(&mut self, bounds: &Bounds, gap: u64, tokens: u32) {
        let tokens = tokens.max(1);
        let bucket = bounds.upper().partition_point(|bound| bound.saturating_mul(u64::from(tokens)) < gap);
        let near = &mut self.near[bucket % 2];
        if near.bucket as usize != bucket {
            let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
            let displaced = std::mem::replace(near, NearBucket { bucket, held: HeldGap::default() });
            self.store_far(bounds, displaced);
        }
        self.near[bucket % 2].held.add(HeldGap { tokens, sum: gap });
    }

    fn store_far(&mut self, bounds: &Bounds, near: NearBucket) {
        if near.held.tokens > 0 {
            let far = self.far.get_or_insert_with(|| vec![HeldGap::default(); bounds.upper().len() + 1].into());
            far[near.bucket as usize].add(near.held);
        }
    }

    /// Observes everything in `into`. `counted` tokens were counted on the stream; `reported` is what the engine says.
    pub fn observe(mut self, into: &mut Buckets, counted: u64, reported: Option<u64>) {
        let mut near = std::mem::take(&mut self.near);
        let scale = reported.filter(|reported| counted > 0 && *reported > counted);
        let (mut held_so_far, mut observed) = (0_u64, 0_u64);
        if self.far.is_some() {
            near.into_iter().for_each(|near| self.store_far(into.bounds(), near));
            near = Default::default();
        }
        near.sort_unstable_by_key(|near| near.bucket);
        let far = self.far.iter().flatten().enumerate().map(|(bucket, held)| (bucket, *held));
        let near = near.into_iter().map(|near| (near.bucket as usize, near.held));
        for (bucket, held) in near.chain(far).filter(|(_, held)| held.tokens > 0) {
            match scale {
                None => into.add_at(bucket, u64::from(held.tokens), u128::from(held.sum)),
                Some(reported) => {
                    // Rounded on the running total: rounded by bucket, nine buckets of one gap would lose or gain a half each.
                    held_so_far += u64::from(held.tokens);
                    let due = scaled(held_so_far, reported, counted);
                    into.record_share(held.sum, u32::try_from(due - observed).unwrap_or(u32::MAX));
                    observed = due;
                }
            }
        }
    }
}

impl HeldGap {
    fn add(&mut self, other: Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// `held` x `reported` / `counted`, rounded.
fn scaled(held: u64, reported: u64, counted: u64) -> u64 {
    let (held, reported, counted) = (u128::from(held), u128::from(reported), u128::from(counted));
    u64::try_from((held * reported + counted / 2) / counted).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds::seconds(&[0.01, 0.02, 0.04])
    }

    fn observed(gaps: TokenGaps, counted: u64, reported: Option<u64>) -> (Vec<u64>, u128) {
        let mut buckets = Buckets::new(&bounds());
        gaps.observe(&mut buckets, counted, reported);
        (buckets.counts().to_vec(), buckets.sum())
    }

    #[test]
    fn one_token_an_event_is_exact() {
        let mut gaps = TokenGaps::default();
        for gap in [10_000_000, 10_000_001, 40_000_001] {
            gaps.add(&bounds(), gap, 1);
        }
        assert_eq!(observed(gaps, 4, None), (vec![1, 1, 0, 1], 60_000_002));
    }

    #[test]
    fn every_gap_is_in_its_bucket_in_any_order() {
        let values = [5_000_000, 15_000_000, 30_000_000, 50_000_000];
        for order in [[0, 1, 2, 3], [3, 0, 2, 1], [0, 2, 0, 2], [1, 3, 1, 3], [1, 2, 1, 2], [2, 2, 2, 0]] {
            let (mut gaps, mut expected) = (TokenGaps::default(), Buckets::new(&bounds()));
            for i in order.into_iter().cycle().take(400) {
                gaps.add(&bounds(), values[i], 1);
                expected.record(values[i]);
            }
            assert_eq!(observed(gaps, 401, None), (expected.counts().to_vec(), expected.sum()), "{order:?}");
        }
    }

    #[test]
    fn only_a_third_bucket_allocates() {
        let mut gaps = TokenGaps::default();
        (0..100).for_each(|i| gaps.add(&bounds(), if i % 2 == 0 { 19_999_999 } else { 20_000_001 }, 1));
        assert!(gaps.far.is_none());
        gaps.add(&bounds(), 1, 1);
        gaps.add(&bounds(), 30_000_000, 1);
        assert!(gaps.far.is_some());
    }

    #[test]
    fn three_tokens_after_30_ms_are_three_gaps_of_10_ms() {
        let mut gaps = TokenGaps::default();
        gaps.add(&bounds(), 30_000_000, 3);
        assert_eq!(observed(gaps, 4, Some(4)), (vec![3, 0, 0, 0], 30_000_000));
    }

    #[test]
    fn usage_above_the_events_scales_the_gaps_at_the_end() {
        let mut gaps = TokenGaps::default();
        gaps.add(&bounds(), 30_000_000, 1);
        gaps.add(&bounds(), 30_000_000, 1);
        assert_eq!(observed(gaps, 3, Some(9)), (vec![6, 0, 0, 0], 60_000_000));
    }

    #[test]
    fn a_fractional_scale_keeps_the_count_over_many_buckets() {
        let mut gaps = TokenGaps::default();
        for gap in [5_000_000, 15_000_000, 30_000_000, 50_000_000] {
            gaps.add(&bounds(), gap, 1);
        }
        let (counts, sum) = observed(gaps, 5, Some(7));
        assert_eq!((counts.iter().sum::<u64>(), sum), (6, 100_000_000), "4 x 7/5 is 5.6");
    }

    #[test]
    fn usage_below_the_events_is_not_believed() {
        let mut gaps = TokenGaps::default();
        gaps.add(&bounds(), 30_000_000, 1);
        assert_eq!(observed(gaps, 2, Some(1)), (vec![0, 0, 1, 0], 30_000_000));
    }
}
