//! The last minute of one backend: rates over 10 s and 60 s, and latency quantiles.
//!
//! Rates come from a ring of whole seconds in which the oldest one counts in part, so they do not jump at its edge.
//! Before the window is full they are over the time since the first event. Quantiles are over the last six slots of 10 s.

use std::time::Duration;

use super::histogram::LogHistogram;
use crate::vocabulary::time::Timestamp;

/// Events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Requests that arrived, a second.
    pub offered: f64,
    /// Requests dispatched, a second.
    pub admitted: f64,
    /// Requests completed, a second.
    pub completed: f64,
    /// Requests refused, a second.
    pub shed: f64,
    /// Tokens counted on streams and reported by answers that do not stream, a second.
    pub output_tokens: f64,
}

/// Three quantiles, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// An event that is counted by the second.
#[derive(Clone, Copy, Debug)]
pub(super) enum WindowEvent {
    Offered,
    Admitted,
    Completed,
    Shed,
    Tokens,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LatencyKind {
    Ttft,
    UpstreamTtft,
    Itl,
    E2e,
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    seconds: Box<[Second; RING]>,
    slots: [SecondSlot; SLOTS],
    first: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Which second this is, plus one; 0: none.
    tag: u64,
    counts: [u32; EVENTS],
}

#[derive(Clone, Debug, Default)]
struct SecondSlot {
    tag: u64,
    latencies: [LogHistogram; LATENCIES],
}

/// A window's rates and quantiles at one moment.
#[derive(Clone, Debug, Default)]
pub struct WindowView {
    pub rates_10s: Rates,
    pub rates_60s: Rates,
    pub ttft: Option<Quantiles>,
    pub upstream_ttft: Option<Quantiles>,
    pub itl: Option<Quantiles>,
    pub e2e: Option<Quantiles>,
}

impl Window {
    pub fn new() -> Self {
        Self { seconds: Box::new([Second::default(); RING]), slots: Default::default(), first: None }
    }

    /// `n` events at `now`.
    pub fn count(&mut self, event: WindowEvent, now: Timestamp, n: u32) {
        self.first.get_or_insert(now);
        let tag = second(now) + 1;
        let slot = &mut self.seconds[tag as usize % RING];
        if slot.tag != tag {
            // An event of a second that is overwritten already comes too late.
            if slot.tag > tag {
                return;
            }
            *slot = Second { tag, counts: [0; EVENTS] };
        }
        let count = &mut slot.counts[event as usize];
        *count = count.saturating_add(n);
    }

    /// `n` observations of `nanos` at `now`.
    pub fn observe(&mut self, latency: LatencyKind, now: Timestamp, nanos: u64, n: u32) {
        let tag = second(now) / SLOT_SECONDS + 1;
        let slot = &mut self.slots[tag as usize % SLOTS];
        if slot.tag != tag {
            if slot.tag > tag {
                return;
            }
            slot.tag = tag;
            slot.latencies.iter_mut().for_each(LogHistogram::clear);
        }
        slot.latencies[latency as usize].record_n(nanos, n);
    }

    /// Adds another shard's window of the same backend.
    pub fn merge(&mut self, other: &Self) {
        self.first = [self.first, other.first].into_iter().flatten().min();
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds[..]) {
            if theirs.tag > mine.tag {
                *mine = *theirs;
            } else if theirs.tag == mine.tag {
                mine.counts.iter_mut().zip(theirs.counts).for_each(|(a, b)| *a = a.saturating_add(b));
            }
        }
        for (mine, theirs) in self.slots.iter_mut().zip(&other.slots) {
            if theirs.tag > mine.tag {
                *mine = theirs.clone();
            } else if theirs.tag == mine.tag {
                mine.latencies.iter_mut().zip(&theirs.latencies).for_each(|(a, b)| a.merge(b));
            }
        }
    }

    /// Rates and quantiles at `now`.
    pub fn view(&self, now: Timestamp) -> WindowView {
        WindowView {
            rates_10s: self.rates(now, 10),
            rates_60s: self.rates(now, 60),
            ttft: self.quantiles(now, LatencyKind::Ttft),
            upstream_ttft: self.quantiles(now, LatencyKind::UpstreamTtft),
            itl: self.quantiles(now, LatencyKind::Itl),
            e2e: self.quantiles(now, LatencyKind::E2e),
        }
    }

    fn rates(&self, now: Timestamp, span: u64) -> Rates {
        let Some(first) = self.first else { return Rates::default() };
        let current = second(now) + 1;
        let into_current = (now.as_nanos() % NANOS) as f64 / NANOS as f64;
        let mut sums = [0.0; EVENTS];
        for slot in self.seconds.iter().filter(|slot| slot.tag != 0 && slot.tag <= current) {
            let age = current - slot.tag;
            let weight = match age {
                _ if age < span => 1.0,
                _ if age == span => 1.0 - into_current,
                _ => continue,
            };
            sums.iter_mut().zip(slot.counts).for_each(|(sum, count)| *sum += weight * f64::from(count));
        }
        let elapsed = now.since(first).max(Duration::from_secs(1)).as_secs_f64();
        let over = elapsed.min(span as f64);
        let rate = |event: WindowEvent| sums[event as usize] / over;
        Rates {
            offered: rate(WindowEvent::Offered),
            admitted: rate(WindowEvent::Admitted),
            completed: rate(WindowEvent::Completed),
            shed: rate(WindowEvent::Shed),
            output_tokens: rate(WindowEvent::Tokens),
        }
    }

    fn quantiles(&self, now: Timestamp, latency: LatencyKind) -> Option<Quantiles> {
        let current = second(now) / SLOT_SECONDS + 1;
        let mut all = LogHistogram::new();
        for slot in self.slots.iter().filter(|slot| slot.tag != 0 && slot.tag + (SLOTS as u64) > current) {
            all.merge(&slot.latencies[latency as usize]);
        }
        let at = |q| all.quantile(q).map(|nanos| nanos as f64 / 1e9);
        Some(Quantiles { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)? })
    }
}

fn second(now: Timestamp) -> u64 {
    now.as_nanos() / NANOS
}

const NANOS: u64 = 1_000_000_000;
/// One minute, the second under way and the one that counts in part.
const RING: usize = 64;
const EVENTS: usize = 5;
const LATENCIES: usize = 4;
const SLOTS: usize = 6;
const SLOT_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_steady_rate_reads_the_same_at_any_moment() {
        let mut window = Window::new();
        for i in 0..3000 {
            window.count(WindowEvent::Offered, at(i * 50), 1);
        }
        for look in [149_960, 150_010, 150_290] {
            let view = window.view(at(look));
            assert!((view.rates_10s.offered - 20.0).abs() < 0.7, "{look}: {}", view.rates_10s.offered);
            assert!((view.rates_60s.offered - 20.0).abs() < 0.2, "{look}: {}", view.rates_60s.offered);
        }
    }

    #[test]
    fn before_the_window_is_full_rates_are_since_the_first_event() {
        let mut window = Window::new();
        for i in 0..40 {
            window.count(WindowEvent::Completed, at(100_000 + i * 50), 1);
        }
        assert!((window.view(at(102_000)).rates_60s.completed - 20.0).abs() < 0.1);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::new();
        window.count(WindowEvent::Offered, at(0), 600);
        window.observe(LatencyKind::Ttft, at(0), 5_000_000, 10);
        assert!(window.view(at(5_000)).ttft.is_some());
        let view = window.view(at(61_000));
        assert_eq!(view.rates_10s.offered, 0.0);
        assert_eq!(view.rates_60s.offered, 0.0);
        assert!(window.view(at(71_000)).ttft.is_none());
    }

    #[test]
    fn two_shards_add_up() {
        let (mut a, mut b) = (Window::new(), Window::new());
        for i in 0..200 {
            a.count(WindowEvent::Tokens, at(i * 100), 3);
            b.count(WindowEvent::Tokens, at(i * 100), 2);
        }
        a.observe(LatencyKind::Itl, at(19_000), 10_000_000, 1);
        b.observe(LatencyKind::Itl, at(19_000), 30_000_000, 9);
        a.merge(&b);
        let view = a.view(at(20_000));
        assert!((view.rates_10s.output_tokens - 50.0).abs() < 1.0);
        assert!((view.itl.unwrap().p50 - 0.03).abs() < 0.001);
    }
}
