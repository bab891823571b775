//! Published concurrency limiters with their published parameters, for comparison. Their latency is the time from dispatch to first
//! token: whole answers differ a hundredfold in length, and with those all of the limiters fail.
//!
//! Sources: Netflix concurrency-limits (`VegasLimit`, `Gradient2Limit`), Envoy's `adaptive_concurrency` filter, and additive increase
//! with multiplicative decrease as in Netflix's `AIMDLimit` (back off at half the objective).
//!
//! Absent: queue and deadlines, which are the same with every policy.

use std::collections::HashMap;

use super::control_policy::ControlPolicy;
use crate::measure::{RequestKey, Sample, What};

/// A limiter, and the requests whose latency it measures.
#[derive(Debug)]
pub(super) struct ConcurrencyLimiter {
    rule: LimiterRule,
    limit: f64,
    slo: f64,
    /// Requests without a first token: seconds at which they were dispatched.
    pending: HashMap<RequestKey, f64>,
    in_flight: HashMap<RequestKey, ()>,
}

#[derive(Debug)]
enum LimiterRule {
    Static,
    Aimd { no_cut_until: f64 },
    Vegas { unloaded: f64, samples: u32, rng: Lcg, jitter: f64 },
    Gradient2 { long: f64, windows: u32, window: SampleWindow, since: f64 },
    Envoy(Envoy),
}

/// Samples of one window.
#[derive(Clone, Copy, Debug, Default)]
struct SampleWindow {
    sum: f64,
    count: u32,
}

/// Envoy measures the smallest latency by itself, at a concurrency of 3.
#[derive(Debug, Default)]
struct Envoy {
    unloaded: Option<f64>,
    samples: Vec<f64>,
    /// The limit before the measurement.
    saved: f64,
    measured: f64,
    updated: f64,
    at_least: u32,
}

impl ConcurrencyLimiter {
    /// `None` for a policy without a limit of requests in flight.
    pub fn new(policy: ControlPolicy, slo: f64) -> Option<Self> {
        let (rule, limit) = match policy {
            ControlPolicy::FirstTokenWindow | ControlPolicy::None => return None,
            ControlPolicy::Static(limit) => (LimiterRule::Static, f64::from(limit)),
            ControlPolicy::Aimd => (LimiterRule::Aimd { no_cut_until: 0.0 }, INITIAL),
            ControlPolicy::Vegas => {
                (LimiterRule::Vegas { unloaded: 0.0, samples: 0, rng: Lcg(12_345), jitter: 0.75 }, INITIAL)
            }
            ControlPolicy::Gradient2 => {
                (LimiterRule::Gradient2 { long: 0.0, windows: 0, window: SampleWindow::default(), since: 0.0 }, INITIAL)
            }
            ControlPolicy::EnvoyGradient => {
                (LimiterRule::Envoy(Envoy { saved: INITIAL, ..Envoy::default() }), ENVOY_LEAST)
            }
        };
        Some(Self { rule, limit, slo, pending: HashMap::new(), in_flight: HashMap::new() })
    }

    pub fn on_sample(&mut self, sample: &Sample) {
        if matches!(self.rule, LimiterRule::Static) {
            return;
        }
        let now = sample.at.as_secs_f64();
        match sample.what {
            What::Admitted if self.in_flight.len() < MAX_FOLLOWED => {
                self.pending.insert(sample.request, now);
                self.in_flight.insert(sample.request, ());
            }
            What::Emission { .. } => {
                if let Some(dispatched) = self.pending.remove(&sample.request) {
                    let in_flight = self.in_flight.len() as f64;
                    self.on_latency(now - dispatched, in_flight, now);
                }
            }
            What::Finished { .. } | What::Left { .. } => {
                self.pending.remove(&sample.request);
                self.in_flight.remove(&sample.request);
            }
            _ => {}
        }
    }

    /// Requests allowed in flight.
    pub fn concurrency(&self) -> u32 {
        self.limit.floor().max(1.0) as u32
    }

    fn on_latency(&mut self, latency: f64, in_flight: f64, now: f64) {
        let Self { rule, limit, slo, .. } = self;
        match rule {
            LimiterRule::Static => {}
            LimiterRule::Aimd { no_cut_until } => {
                if latency > 0.5 * *slo {
                    if now > *no_cut_until {
                        *limit = (0.9 * *limit).max(1.0);
                        *no_cut_until = now + 1.0;
                    }
                } else if 2.0 * in_flight >= *limit {
                    *limit = (*limit + 1.0).min(LARGEST);
                }
            }
            LimiterRule::Vegas { unloaded, samples, rng, jitter } => {
                *samples += 1;
                if f64::from(*samples) >= *jitter * 30.0 * *limit {
                    // Time to probe for the unloaded latency again.
                    (*samples, *unloaded, *jitter) = (0, latency, 0.5 + 0.5 * rng.next_unit());
                } else if *unloaded == 0.0 || latency < *unloaded {
                    *unloaded = latency;
                } else if 2.0 * in_flight >= *limit {
                    *limit = vegas(*limit, *unloaded, latency);
                }
            }
            LimiterRule::Gradient2 { long, windows, window, since } => {
                window.sum += latency;
                window.count += 1;
                if now - *since < 1.0 || window.count < 10 {
                    return;
                }
                let short = window.sum / f64::from(window.count);
                (*window, *since, *windows) = (SampleWindow::default(), now, windows.saturating_add(1));
                let gain = if *windows <= 10 { 1.0 / f64::from(*windows) } else { 2.0 / 601.0 };
                *long += gain * (short - *long);
                if *long / short > 2.0 {
                    *long *= 0.9;
                }
                if in_flight >= *limit / 2.0 {
                    let gradient = (*long / short).clamp(0.5, 1.0);
                    *limit = (0.8 * *limit + 0.2 * (*limit * gradient + 4.0)).clamp(4.0, LARGEST);
                }
            }
            LimiterRule::Envoy(envoy) => *limit = envoy.on_latency(latency, *limit, now),
        }
    }
}

/// One step of Vegas: its estimate of the queue, against 1, 3 and 6 times the logarithm of the limit.
fn vegas(limit: f64, unloaded: f64, latency: f64) -> f64 {
    let step = limit.max(1.0).log10().floor().max(1.0);
    let queue = (limit * (1.0 - unloaded / latency)).ceil();
    let next = match queue {
        queue if queue <= step => limit + 6.0 * step,
        queue if queue < 3.0 * step => limit + step,
        queue if queue > 6.0 * step => limit - step,
        _ => limit,
    };
    next.clamp(1.0, LARGEST)
}

impl Envoy {
    fn on_latency(&mut self, latency: f64, limit: f64, now: f64) -> f64 {
        self.samples.push(latency);
        let Some(unloaded) = self.unloaded else {
            if self.samples.len() < ENVOY_SAMPLES {
                return limit;
            }
            self.unloaded = Some(self.take_median());
            (self.measured, self.updated) = (now, now);
            return self.saved;
        };
        let mut next = limit;
        if now - self.updated >= ENVOY_WINDOW {
            self.updated = now;
            let gradient = (ENVOY_BUFFER * unloaded / self.take_median()).clamp(0.5, 2.0);
            next = (gradient * limit + (gradient * limit).sqrt()).clamp(ENVOY_LEAST, LARGEST);
            self.at_least = if next <= ENVOY_LEAST { self.at_least + 1 } else { 0 };
        }
        if now - self.measured > ENVOY_INTERVAL || self.at_least >= 5 {
            *self = Self { saved: next.max(ENVOY_LEAST), ..Self::default() };
            next = ENVOY_LEAST;
        }
        next
    }

    fn take_median(&mut self) -> f64 {
        self.samples.sort_by(f64::total_cmp);
        let median = self.samples.get(self.samples.len() / 2).copied().unwrap_or(1.0);
        self.samples.clear();
        median.max(1e-6)
    }
}

/// A linear congruential generator. Vegas spreads its probes so that clients do not probe together; a generator of its own keeps
/// equal runs equal.
#[derive(Clone, Copy, Debug)]
struct Lcg(u64);

impl Lcg {
    fn next_unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }
}

/// First and largest limit of the limiters.
const INITIAL: f64 = 20.0;
const LARGEST: f64 = 1_000.0;
/// Bounds the memory of requests whose end was lost.
const MAX_FOLLOWED: usize = 65_536;
/// Envoy's documented defaults: concurrency and requests of the measurement, its interval, the window, the buffer.
const ENVOY_LEAST: f64 = 3.0;
const ENVOY_SAMPLES: usize = 50;
const ENVOY_INTERVAL: f64 = 60.0;
const ENVOY_WINDOW: f64 = 0.1;
const ENVOY_BUFFER: f64 = 1.25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::time::Timestamp;

    /// The final limit at an engine that takes `unloaded` seconds up to `knee` in flight, and proportionally longer beyond.
    fn settled(policy: ControlPolicy, knee: f64, unloaded: f64) -> f64 {
        let mut limiter = ConcurrencyLimiter::new(policy, 1.0).unwrap();
        let mut now = 0.0;
        for _ in 0..20_000 {
            let in_flight = limiter.limit;
            now += unloaded / in_flight;
            limiter.on_latency(unloaded * (in_flight / knee).max(1.0), in_flight, now);
        }
        limiter.limit
    }

    #[test]
    fn aimd_settles_where_half_the_objective_is_reached() {
        let limit = settled(ControlPolicy::Aimd, 40.0, 0.1);
        assert!((150.0..=201.0).contains(&limit), "0.5 s is five knees: {limit}");
    }

    #[test]
    fn vegas_and_the_gradients_move_and_stay_in_their_bounds() {
        for policy in [ControlPolicy::Vegas, ControlPolicy::Gradient2, ControlPolicy::EnvoyGradient] {
            let limit = settled(policy, 40.0, 0.1);
            assert!(limit != INITIAL && (1.0..=LARGEST).contains(&limit), "{policy:?}: {limit}");
        }
    }

    #[test]
    fn a_static_limit_is_its_configured_number() {
        assert_eq!(settled(ControlPolicy::Static(33), 40.0, 0.1), 33.0);
        assert!(ConcurrencyLimiter::new(ControlPolicy::FirstTokenWindow, 1.0).is_none());
    }

    #[test]
    fn requests_are_followed_from_dispatch_to_first_token() {
        let mut limiter = ConcurrencyLimiter::new(ControlPolicy::Aimd, 1.0).unwrap();
        let mut sample = |seconds: f64, request, what| {
            let at = Timestamp::from_nanos((seconds * 1e9) as u64);
            limiter.on_sample(&Sample { at, request: RequestKey(request), what });
            limiter.limit
        };
        (0..20).for_each(|n| assert_eq!(sample(1.0, n, What::Admitted), INITIAL));
        let emission = What::Emission { tokens: 1, limited: false };
        assert_eq!(sample(1.2, 0, emission), 21.0);
        assert_eq!(sample(1.3, 0, emission), 21.0, "only the first counts");
        assert!((sample(1.9, 1, emission) - 18.9).abs() < 1e-9, "late");
        assert!((sample(1.95, 2, emission) - 18.9).abs() < 1e-9, "one cut a second");
    }
}
