//! Where a shard lays out samples until the estimate takes them: one buffer a backend, bounded, swapped whole.
//!
//! Samples are laid down inside the critical sections that the stats have anyway, so they cost no lock of their own, and a
//! buffer that was swapped for an emptied one costs no allocation. Nothing is kept before somebody has asked for the first time.

use super::sample::Sample;

/// Samples of one backend on one shard.
#[derive(Clone, Debug, Default)]
pub struct SampleBuffer {
    /// In the order in which they were booked, which is not quite the order of their stamps.
    pub samples: Vec<Sample>,
    /// Samples that found no room since the last swap.
    pub lost: u64,
    open: bool,
}

impl SampleBuffer {
    /// Lays a sample down, or counts it as lost.
    pub(super) fn put(&mut self, sample: Sample) {
        if !self.open {
        } else if self.samples.len() < ROOM {
            self.samples.push(sample);
        } else {
            self.lost += 1;
        }
    }

    /// Lays down as many emissions as there is room for, in one go. They leave room for arrivals and ends, without which
    /// nobody would know any more who is in flight.
    pub(super) fn put_emissions(&mut self, emissions: impl ExactSizeIterator<Item = Sample>) {
        let fit = emissions.len().min(EMISSIONS.saturating_sub(self.samples.len()));
        self.lost += (emissions.len() - fit) as u64;
        self.samples.extend(emissions.take(fit));
    }

    /// Takes what lies here and leaves `empty`, whose memory is used again.
    pub(super) fn swap(&mut self, empty: &mut Self) {
        empty.samples.clear();
        (empty.lost, empty.open) = (0, true);
        std::mem::swap(self, empty);
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }
}

/// Samples a buffer holds: ten swaps of a worker that relays 60,000 tokens a second.
const ROOM: usize = 1 << 16;
/// Of these, at most so many when the next one is an emission.
const EMISSIONS: usize = ROOM - (1 << 12);

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
    fn nothing_is_kept_before_the_first_swap() {
        let (mut buffer, mut empty) = (SampleBuffer::default(), SampleBuffer::default());
        buffer.put(sample(TOKEN));
        buffer.swap(&mut empty);
        assert_eq!((empty.samples.len(), empty.lost), (0, 0));
        buffer.put(sample(TOKEN));
        buffer.swap(&mut empty);
        assert_eq!((empty.samples.len(), empty.lost), (1, 0));
    }

    #[test]
    fn a_full_tray_loses_emissions_first_and_counts_them() {
        let (mut buffer, mut empty) = (SampleBuffer::default(), SampleBuffer::default());
        buffer.swap(&mut empty);
        (0..ROOM / 16).for_each(|_| buffer.put_emissions([sample(TOKEN); 16].into_iter()));
        assert_eq!((buffer.samples.len(), buffer.lost), (EMISSIONS, (ROOM - EMISSIONS) as u64));
        (0..ROOM).for_each(|_| buffer.put(sample(What::Admitted)));
        assert_eq!((buffer.samples.len(), buffer.lost), (ROOM, ROOM as u64));
        buffer.swap(&mut empty);
        assert_eq!((buffer.samples.len(), buffer.lost), (0, 0));
    }

    #[test]
    fn a_swapped_tray_uses_its_memory_again() {
        let (mut buffer, mut empty) = (SampleBuffer::default(), SampleBuffer::default());
        buffer.swap(&mut empty);
        (0..100).for_each(|_| buffer.put(sample(TOKEN)));
        buffer.swap(&mut empty);
        let room = empty.samples.capacity();
        buffer.swap(&mut empty);
        assert!(room >= 100 && buffer.samples.capacity() == room);
    }

    #[test]
    fn a_sample_is_small() {
        assert!(size_of::<Sample>() <= 48, "{}", size_of::<Sample>());
    }
}
