//! A shard's samples until the estimate drains them: one bounded buffer for each backend, swapped whole.
//!
//! Samples are pushed inside the critical sections that the statistics need anyway, so they cost no lock of their own, and a drain
//! swaps in an emptied buffer, so it costs no allocation. Nothing is kept before the first drain.

use super::sample::Sample;

/// Samples of one backend on one shard.
#[derive(Clone, Debug, Default)]
pub struct SampleBuffer {
    /// In the order of their transitions, which is not quite the order of their stamps.
    pub samples: Vec<Sample>,
    /// Samples dropped since the last drain because the buffer was full.
    pub lost: u64,
    open: bool,
}

impl SampleBuffer {
    /// Adds a sample, or counts it as lost.
    pub(super) fn push(&mut self, sample: Sample) {
        if !self.open {
        } else if self.samples.len() < CAPACITY {
            self.samples.push(sample);
        } else {
            self.lost += 1;
        }
    }

    /// Adds as many emissions as fit. They leave space for arrivals and ends, without which the estimate no longer knows what is in
    /// flight.
    pub(super) fn push_emissions(&mut self, emissions: impl ExactSizeIterator<Item = Sample>) {
        let fit = emissions.len().min(EMISSION_CAPACITY.saturating_sub(self.samples.len()));
        self.lost += (emissions.len() - fit) as u64;
        self.samples.extend(emissions.take(fit));
    }

    /// Moves the samples into `empty`, and keeps the memory of `empty` for the next ones.
    pub(super) fn drain_into(&mut self, empty: &mut Self) {
        empty.samples.clear();
        (empty.lost, empty.open) = (0, true);
        std::mem::swap(self, empty);
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }
}

/// Samples a buffer holds: ten drains of a worker that relays 60,000 tokens a second.
const CAPACITY: usize = 1 << 16;
/// The part of the capacity that emissions may fill.
const EMISSION_CAPACITY: usize = CAPACITY - (1 << 12);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sample::{RequestKey, What};
    use crate::vocabulary::time::Timestamp;

    fn sample(what: What) -> Sample {
        Sample { at: Timestamp::ZERO, request: RequestKey(1), what }
    }

    const TOKEN: What = What::Emission { tokens: 1, limited: false };

    #[test]
    fn nothing_is_kept_before_the_first_drain() {
        let (mut buffer, mut empty) = (SampleBuffer::default(), SampleBuffer::default());
        buffer.push(sample(TOKEN));
        buffer.drain_into(&mut empty);
        assert_eq!((empty.samples.len(), empty.lost), (0, 0));
        buffer.push(sample(TOKEN));
        buffer.drain_into(&mut empty);
        assert_eq!((empty.samples.len(), empty.lost), (1, 0));
    }

    #[test]
    fn a_full_buffer_loses_emissions_first_and_counts_them() {
        let (mut buffer, mut empty) = (SampleBuffer::default(), SampleBuffer::default());
        buffer.drain_into(&mut empty);
        (0..CAPACITY / 16).for_each(|_| buffer.push_emissions([sample(TOKEN); 16].into_iter()));
        assert_eq!((buffer.samples.len(), buffer.lost), (EMISSION_CAPACITY, (CAPACITY - EMISSION_CAPACITY) as u64));
        (0..CAPACITY).for_each(|_| buffer.push(sample(What::Admitted)));
        assert_eq!((buffer.samples.len(), buffer.lost), (CAPACITY, CAPACITY as u64));
        buffer.drain_into(&mut empty);
        assert_eq!((buffer.samples.len(), buffer.lost), (0, 0));
    }

    #[test]
    fn a_drained_buffer_uses_its_memory_again() {
        let (mut buffer, mut empty) = (SampleBuffer::default(), SampleBuffer::default());
        buffer.drain_into(&mut empty);
        (0..100).for_each(|_| buffer.push(sample(TOKEN)));
        buffer.drain_into(&mut empty);
        let capacity = empty.samples.capacity();
        buffer.drain_into(&mut empty);
        assert!(capacity >= 100 && buffer.samples.capacity() == capacity);
    }

    #[test]
    fn a_sample_is_small() {
        assert!(size_of::<Sample>() <= 48, "{}", size_of::<Sample>());
    }
}
