//! Puts samples back into the order in which things happened.
//!
//! Entries hand over emissions in batches: a stream's last emissions before a silence are told only when it speaks again, so
//! what was swapped out of the buffers is not sorted, and something older may still come. Samples are therefore held back for
//! a while. How long is learned from the emissions themselves: an engine whose steps are long has long silences. What comes
//! later than that is told as if it happened at the edge of what was already told, and counted. Pure; `now` comes in.

use std::time::Duration;

use crate::measure::{Sample, What};
use crate::vocabulary::time::Timestamp;

/// One backend's samples on their way to the estimate.
#[derive(Debug)]
pub struct ReorderBuffer {
    held: Vec<Sample>,
    /// Everything up to here has been released.
    edge: Timestamp,
    /// When samples were last taken in.
    taken: Timestamp,
    late: u64,
    patience: HoldTime,
}

impl ReorderBuffer {
    /// Nothing was told before `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { held: Vec::new(), edge: now, taken: now, late: 0, patience: HoldTime::new(now) }
    }

    /// Takes in what was told between the last call and `now`.
    pub fn take_in<'a>(&mut self, samples: impl Iterator<Item = &'a Sample>, now: Timestamp) {
        for sample in samples {
            if matches!(sample.what, What::Emission { .. }) {
                self.patience.on_delay(self.taken.since(sample.at));
            }
            self.late += u64::from(sample.at < self.edge);
            self.held.push(Sample { at: sample.at.max(self.edge), ..*sample });
        }
        self.taken = now;
        self.patience.on_time(now);
        // Runs that are sorted already cost little more than a look.
        self.held.sort_by_key(|sample| sample.at);
    }

    /// The time up to which everything has been told, as far as can be known at `now`. Never goes back.
    pub fn settled(&self, now: Timestamp) -> Timestamp {
        (now - self.patience.span()).max(self.edge)
    }

    /// Releases what happened up to `edge`, in order.
    pub fn release(&mut self, edge: Timestamp) -> impl Iterator<Item = Sample> {
        self.edge = self.edge.max(edge);
        let ready = self.held.partition_point(|sample| sample.at <= self.edge);
        self.held.drain(..ready)
    }

    /// Samples that came after their time.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How long samples are held back now.
    pub fn span(&self) -> Duration {
        self.patience.span()
    }
}

/// How long to hold back: the shortest of `SPANS` within which all but a hundredth of the emissions came.
#[derive(Debug)]
struct HoldTime {
    /// Emissions by the first span that would have been long enough, the last for those that none would.
    counts: [f64; SPANS.len() + 1],
    aged: Timestamp,
}

impl HoldTime {
    fn new(now: Timestamp) -> Self {
        Self { counts: [0.0; SPANS.len() + 1], aged: now }
    }

    /// An emission came this long after the samples of its time were taken in.
    fn on_delay(&mut self, delay: Duration) {
        let span = SPANS.iter().position(|span| delay < *span).unwrap_or(SPANS.len());
        self.counts[span] += 1.0;
    }

    fn on_time(&mut self, now: Timestamp) {
        if now.since(self.aged) >= MEMORY {
            self.aged = now;
            self.counts.iter_mut().for_each(|count| *count /= 2.0);
        }
    }

    fn span(&self) -> Duration {
        let all: f64 = self.counts.iter().sum();
        let mut within = 0.0;
        let enough = SPANS.iter().zip(self.counts).find(|(_, count)| {
            within += count;
            within >= all * (1.0 - TOLERATED)
        });
        enough.map_or(SPANS[SPANS.len() - 1], |(span, _)| *span)
    }
}

/// The first is the age at which an entry hands over its batch, and a little for threads to run; the last is what detection
/// may lose by waiting for the slowest engines.
const SPANS: [Duration; 5] = [
    Duration::from_millis(70),
    Duration::from_millis(140),
    Duration::from_millis(280),
    Duration::from_millis(560),
    Duration::from_millis(1_000),
];
/// Share of emissions that may come late: they are told all the same, at a wrong time.
const TOLERATED: f64 = 0.01;
/// Half of what was learned is forgotten after this long.
const MEMORY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::RequestKey;

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    fn emission(ms: u64) -> Sample {
        Sample { at: at(ms), request: RequestKey(1), what: What::Emission { tokens: 1, limited: false } }
    }

    fn released(order: &mut ReorderBuffer, now: Timestamp) -> Vec<u64> {
        let edge = order.settled(now);
        order.release(edge).map(|sample| sample.at.as_nanos() / 1_000_000).collect()
    }

    #[test]
    fn what_is_told_out_of_order_comes_out_in_order() {
        let mut order = ReorderBuffer::new(at(0));
        order.take_in([emission(90), emission(20), emission(40)].iter(), at(100));
        assert_eq!(released(&mut order, at(100)), [20]);
        order.take_in([emission(150), emission(60), emission(110)].iter(), at(200));
        assert_eq!(released(&mut order, at(200)), [40, 60, 90, 110]);
        assert_eq!(order.late(), 0);
    }

    #[test]
    fn what_comes_too_late_is_told_at_the_edge_and_counted() {
        let mut order = ReorderBuffer::new(at(0));
        order.take_in([].iter(), at(1000));
        assert_eq!(released(&mut order, at(1000)), [0_u64; 0]);
        order.take_in([emission(500), emission(1050)].iter(), at(1200));
        assert_eq!(released(&mut order, at(1200)), [930], "the other one waits longer, as emissions are this slow");
        assert_eq!(order.late(), 1);
    }

    #[test]
    fn long_silences_make_it_wait_longer_and_short_ones_again_less() {
        let mut order = ReorderBuffer::new(at(0));
        let mut now = 0_u64;
        let mut run = |order: &mut ReorderBuffer, delay: u64, ticks: u64| {
            for _ in 0..ticks {
                now += 100;
                // Told `delay` after the swap that should have had them.
                let samples: Vec<Sample> = (0..50).map(|_| emission((now - 100).saturating_sub(delay))).collect();
                order.take_in(samples.iter(), at(now));
                released(order, at(now));
            }
            order.span().as_millis()
        };
        assert_eq!(run(&mut order, 0, 20), 70);
        assert_eq!(run(&mut order, 400, 20), 560);
        assert_eq!(run(&mut order, 0, 600), 70, "forgotten within a minute");
        assert_eq!(run(&mut order, 30_000, 200), 1000, "never longer than the longest");
    }

    #[test]
    fn a_few_stalled_streams_do_not_make_it_wait() {
        let mut order = ReorderBuffer::new(at(0));
        for tick in 1..=200_u64 {
            let now = tick * 100;
            let mut samples: Vec<Sample> = (0..500).map(|_| emission(now - 50)).collect();
            samples.push(emission(now.saturating_sub(5000)));
            order.take_in(samples.iter(), at(now));
            released(&mut order, at(now));
        }
        assert_eq!(order.span().as_millis(), 70);
    }

    #[test]
    fn the_edge_never_goes_back() {
        let mut order = ReorderBuffer::new(at(0));
        order.take_in([emission(90)].iter(), at(100));
        let edge = order.settled(at(100));
        released(&mut order, at(100));
        (0..100).for_each(|_| order.patience.on_delay(Duration::from_millis(900)));
        assert!(order.settled(at(150)) >= edge);
    }
}
