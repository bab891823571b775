//! The finite-run bias: N requests sent at rate R read at best N / (N/R + tail), without any saturation.
//!
//! The tail is the time from the last send to the last completion. This file only does the arithmetic.

use super::points::Point;

/// What is known of the tail of runs that keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tail {
    /// The longest, seconds; runs whose length is unknown do not count.
    pub seconds: f64,
    /// The longest over the number of requests: all that a throughput alone shows, 1/X − 1/R.
    pub per_request: f64,
    /// Tail over the time a request is being served, at least 1: the last requests are not the mean ones.
    pub services: f64,
}

impl Tail {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self { seconds: 0.0, per_request: 0.0, services: 1.0 };

    /// Learns from a level that keeps up.
    pub fn learn(&mut self, point: &Point) {
        let spare = (1.0 / point.served - 1.0 / point.sent).max(0.0);
        self.per_request = self.per_request.max(spare);
        if let Some(requests) = point.requests {
            self.seconds = self.seconds.max(spare * requests);
            if let Some(service) = point.service().filter(|service| *service > 0.0) {
                self.services = self.services.max(spare * requests / service).min(MOST_SERVICES);
            }
        }
    }

    /// The longest tail that a level may have without being saturated, in seconds; none when its length is unknown.
    ///
    /// As long as that of the levels below it, or longer as each answer takes longer in a fuller batch. The wait for the
    /// first token is not part of it: that is what a queue makes.
    pub fn allowed(&self, point: &Point) -> Option<f64> {
        point.requests?;
        Some(self.seconds.max(point.service().map_or(0.0, |service| self.services * service)))
    }

    /// The best throughput that a run like this one can show: N / (N/R + tail), with the longest tail allowed.
    pub fn best(&self, point: &Point) -> f64 {
        if point.steady {
            return point.sent;
        }
        let spare = match (point.requests, self.allowed(point)) {
            (Some(requests), Some(tail)) => tail / requests,
            _ => self.per_request,
        };
        1.0 / (1.0 / point.sent + spare)
    }

    /// The highest capacity that a level's throughput allows: its whole tail is given back to it.
    pub fn most(&self, point: &Point) -> f64 {
        if point.steady {
            return point.served;
        }
        let run = 1.0 / point.served;
        let spare = match (point.requests, self.allowed(point)) {
            (Some(requests), Some(tail)) => tail / requests,
            _ => self.per_request,
        };
        1.0 / (run - spare.min(MOST_GIVEN_BACK * run))
    }
}

impl Point {
    /// Seconds that a request is being served: from end to end without the wait for the first token.
    pub fn service(&self) -> Option<f64> {
        Some((self.e2e? - self.ttft?).max(0.0))
    }

    /// How far a throughput of this level may be off by chance, as a share.
    ///
    /// Where only the asked rate is known, N Poisson arrivals take N/R ± √N/R; twice that is allowed.
    pub fn noise(&self) -> f64 {
        match (self.counted, self.requests) {
            (true, _) => LEAST_NOISE,
            (false, Some(requests)) => (2.0 / requests.sqrt()).clamp(LEAST_NOISE, MOST_NOISE),
            (false, None) => 2.0 / ASSUMED_REQUESTS.sqrt(),
        }
    }
}

/// The last answers of a run may be this many mean ones long; the longest of hundreds of log-normal lengths is below 6.
const MOST_SERVICES: f64 = 6.0;

/// At most this share of a run is taken for its drain: a server that drains still works.
const MOST_GIVEN_BACK: f64 = 0.25;

/// Throughputs repeat to within this at best.
pub const LEAST_NOISE: f64 = 0.03;
const MOST_NOISE: f64 = 0.15;

/// Requests of a level where the source does not say: a usual number.
pub const ASSUMED_REQUESTS: f64 = 600.0;
