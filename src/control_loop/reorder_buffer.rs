//! Puts the samples of all workers back in the order of time.
//!
//! Ledger entries report emissions in batches: a stream's last emissions before a pause are reported when it emits again. So the
//! samples swapped out of the buffers are not sorted, and older ones may still arrive. Samples are therefore held back for a while,
//! and the emissions themselves show for how long: an engine with long steps has long pauses. A sample that arrives later than that
//! gets the time of the last release, and is counted as late.

use std::time::Duration;

use crate::measure::{Sample, What};
use crate::vocabulary::time::Timestamp;

/// The held samples of one backend.
#[derive(Debug)]
pub struct ReorderBuffer {
    held: Vec<Sample>,
    /// Everything up to here has been released.
    edge: Timestamp,
    /// Time of the last push.
    pushed: Timestamp,
    late: u64,
    hold_time: HoldTime,
}

impl ReorderBuffer {
    /// No sample is older than `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { held: Vec::new(), edge: now, pushed: now, late: 0, hold_time: HoldTime::new(now) }
    }

    /// Adds the samples reported between the last call and `now`.
    pub fn push<'a>(&mut self, samples: impl Iterator<Item = &'a Sample>, now: Timestamp) {
        for sample in samples {
            if matches!(sample.what, What::Emission { .. }) {
                self.hold_time.on_delay(self.pushed.since(sample.at));
            }
            self.late += u64::from(sample.at < self.edge);
            self.held.push(Sample { at: sample.at.max(self.edge), ..*sample });
        }
        self.pushed = now;
        self.hold_time.on_time(now);
        // The sort is linear for runs that are sorted already.
        self.held.sort_by_key(|sample| sample.at);
    }

    /// The time up to which all samples have arrived, as far as `now` can tell. It never decreases.
    pub fn settled(&self, now: Timestamp) -> Timestamp {
        (now - self.hold_time.span()).max(self.edge)
    }

    /// Releases the samples up to `edge`, in order.
    pub fn release(&mut self, edge: Timestamp) -> impl Iterator<Item = Sample> {
        self.edge = self.edge.max(edge);
        let ready = self.held.partition_point(|sample| sample.at <= self.edge);
        self.held.drain(..ready)
    }

    /// Samples that arrived late, since the start.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How long samples are held back now.
    pub fn span(&self) -> Duration {
        self.hold_time.span()
    }
}

/// How long to hold samples back: the shortest of `SPANS` within which 99 % of the emissions arrived.
#[derive(Debug)]
struct HoldTime {
    /// Emissions by the first span that would have been long enough; the last entry is for those later than every span.
    counts: [f64; SPANS.len() + 1],
    aged: Timestamp,
}

impl HoldTime {
    fn new(now: Timestamp) -> Self {
        Self { counts: [0.0; SPANS.len() + 1], aged: now }
    }

    /// An emission arrived this long after the push it belonged to.
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
            within >= all * (1.0 - MAX_LATE_SHARE)
        });
        enough.map_or(SPANS[SPANS.len() - 1], |(span, _)| *span)
    }
}

/// The first is the age at which an entry reports its batch, plus a margin for threads to run; the last is the delay that detection
/// accepts for the slowest engines.
const SPANS: [Duration; 5] = [
    Duration::from_millis(70),
    Duration::from_millis(140),
    Duration::from_millis(280),
    Duration::from_millis(560),
    Duration::from_millis(1_000),
];
/// Share of emissions that may arrive late: they are kept, with a wrong time.
const MAX_LATE_SHARE: f64 = 0.01;
/// The counts are halved after this time.
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

    fn released(buffer: &mut ReorderBuffer, now: Timestamp) -> Vec<u64> {
        let edge = buffer.settled(now);
        buffer.release(edge).map(|sample| sample.at.as_nanos() / 1_000_000).collect()
    }

    #[test]
    fn samples_out_of_order_are_released_in_order() {
        let mut buffer = ReorderBuffer::new(at(0));
        buffer.push([emission(90), emission(20), emission(40)].iter(), at(100));
        assert_eq!(released(&mut buffer, at(100)), [20]);
        buffer.push([emission(150), emission(60), emission(110)].iter(), at(200));
        assert_eq!(released(&mut buffer, at(200)), [40, 60, 90, 110]);
        assert_eq!(buffer.late(), 0);
    }

    #[test]
    fn a_late_sample_is_released_at_the_edge_and_counted() {
        let mut buffer = ReorderBuffer::new(at(0));
        buffer.push([].iter(), at(1000));
        assert_eq!(released(&mut buffer, at(1000)), [0_u64; 0]);
        buffer.push([emission(500), emission(1050)].iter(), at(1200));
        assert_eq!(released(&mut buffer, at(1200)), [930], "the other one waits longer, as emissions are this slow");
        assert_eq!(buffer.late(), 1);
    }

    #[test]
    fn long_pauses_lengthen_the_hold_time_and_short_ones_end_it() {
        let mut buffer = ReorderBuffer::new(at(0));
        let mut now = 0_u64;
        let mut run = |buffer: &mut ReorderBuffer, delay: u64, ticks: u64| {
            for _ in 0..ticks {
                now += 100;
                // Reported `delay` after the push they belong to.
                let samples: Vec<Sample> = (0..50).map(|_| emission((now - 100).saturating_sub(delay))).collect();
                buffer.push(samples.iter(), at(now));
                released(buffer, at(now));
            }
            buffer.span().as_millis()
        };
        assert_eq!(run(&mut buffer, 0, 20), 70);
        assert_eq!(run(&mut buffer, 400, 20), 560);
        assert_eq!(run(&mut buffer, 0, 600), 70, "forgotten within a minute");
        assert_eq!(run(&mut buffer, 30_000, 200), 1000, "never longer than the longest");
    }

    #[test]
    fn a_few_stalled_streams_do_not_lengthen_the_hold_time() {
        let mut buffer = ReorderBuffer::new(at(0));
        for tick in 1..=200_u64 {
            let now = tick * 100;
            let mut samples: Vec<Sample> = (0..500).map(|_| emission(now - 50)).collect();
            samples.push(emission(now.saturating_sub(5000)));
            buffer.push(samples.iter(), at(now));
            released(&mut buffer, at(now));
        }
        assert_eq!(buffer.span().as_millis(), 70);
    }

    #[test]
    fn the_edge_never_decreases() {
        let mut buffer = ReorderBuffer::new(at(0));
        buffer.push([emission(90)].iter(), at(100));
        let edge = buffer.settled(at(100));
        released(&mut buffer, at(100));
        (0..100).for_each(|_| buffer.hold_time.on_delay(Duration::from_millis(900)));
        assert!(buffer.settled(at(150)) >= edge);
    }
}
