//! A count of tokens as an answer reports it, in four bytes even where it may be absent: each open stream holds many.

use std::num::NonZeroU32;

/// A count. It saturates far above every count that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count(NonZeroU32);

/// Token counts as one object reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenReport {
    pub input: Option<Count>,
    pub output: Option<Count>,
    pub cached: Option<Count>,
}

impl Count {
    pub fn of(n: u64) -> Self {
        // One more than the count, so that the niche is free for `None`.
        Self(u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1).try_into().unwrap_or(NonZeroU32::MAX))
    }

    pub fn get(self) -> u64 {
        u64::from(self.0.get()) - 1
    }

    pub fn times(self, n: u64) -> Self {
        Self::of(self.get().saturating_mul(n))
    }
}

impl TokenReport {
    /// Each count by the larger of two.
    pub fn raise(&mut self, other: Self) {
        self.input = self.input.max(other.input);
        self.output = self.output.max(other.output);
        self.cached = self.cached.max(other.cached);
    }

    /// Each count by the sum of two.
    pub fn add(&mut self, other: Self) {
        self.input = sum(self.input, other.input);
        self.output = sum(self.output, other.output);
        self.cached = sum(self.cached, other.cached);
    }

    /// Each count of this one, or else of the other.
    pub fn or(self, other: Self) -> Self {
        Self {
            input: self.input.or(other.input),
            output: self.output.or(other.output),
            cached: self.cached.or(other.cached),
        }
    }
}

/// The sum of what is there.
pub(super) fn sum(a: Option<Count>, b: Option<Count>) -> Option<Count> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Count::of(a.get().saturating_add(b.get()))),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_small_keeps_what_is_believable_and_saturates() {
        assert_eq!(size_of::<TokenReport>(), 12);
        for n in [0, 1, 1 << 24, u64::from(u32::MAX) - 1] {
            assert_eq!(Count::of(n).get(), n);
        }
        assert_eq!(Count::of(u64::MAX).get(), u64::from(u32::MAX) - 1);
        assert_eq!(Count::of(1 << 31).times(u64::MAX), Count::of(u64::MAX));
    }

    #[test]
    fn absent_counts_neither_lower_nor_add() {
        let (some, none) = (Some(Count::of(3)), None);
        assert_eq!(
            (sum(some, none), sum(none, some), sum(none, none), sum(some, some)),
            (some, some, none, Some(Count::of(6)))
        );
        let mut report = TokenReport { input: some, ..TokenReport::default() };
        report.raise(TokenReport { input: none, output: Some(Count::of(0)), cached: none });
        assert_eq!(report, TokenReport { input: some, output: Some(Count::of(0)), cached: none });
    }
}
