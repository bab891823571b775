//! Exponentially weighted averages: a rate of events, a smoothed value, a mean with its variance; and octaves of counts.
//!
//! Times are seconds since a start that the caller chooses. Nothing here knows what it averages.

/// `floor(log2(n))` of a count that may be a fraction; 0 below 2 and for a NaN.
pub(crate) fn octave(n: f64) -> usize {
    (n.max(1.0) as u64).ilog2() as usize
}

/// Events per second, averaged over the past with weights that fall exponentially with age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecayingRate {
    time_constant: f64,
    value: f64,
    updated: f64,
    began: Option<f64>,
}

impl DecayingRate {
    /// Weights fall to 1/e in `time_constant` seconds.
    pub fn new(time_constant: f64) -> Self {
        Self { time_constant, value: 0.0, updated: 0.0, began: None }
    }

    /// Adds one event.
    pub fn add(&mut self, now: f64) {
        self.add_many(now, 1.0);
    }

    /// Adds `amount` events at once, or `amount` of what is counted.
    pub fn add_many(&mut self, now: f64, amount: f64) {
        if self.began.is_none() {
            (self.began, self.updated) = (Some(now), now);
        }
        self.value = self.value * self.decay(now) + amount / self.time_constant;
        self.updated = now;
    }

    /// The rate at `now`, corrected for the start: an average that began a moment ago has seen less than its time constant.
    pub fn at(&self, now: f64) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        let filled = 1.0 - (-(now - began).max(SHORTEST) / self.time_constant).exp();
        self.value * self.decay(now) / filled
    }

    fn decay(&self, now: f64) -> f64 {
        (-(now - self.updated).max(0.0) / self.time_constant).exp()
    }
}

/// Seconds; for a younger average the start correction would turn one event into a high rate.
const SHORTEST: f64 = 0.25;

/// A value smoothed with a fixed gain (an EWMA); it starts at the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Smoothed {
    gain: f64,
    value: Option<f64>,
}

impl Smoothed {
    /// Each value moves it by `gain` of the difference; `gain` is in (0, 1].
    pub const fn new(gain: f64) -> Self {
        Self { gain, value: None }
    }

    pub fn add(&mut self, value: f64) {
        self.value = Some(self.value.map_or(value, |old| old + self.gain * (value - old)));
    }

    /// The smoothed value; 0 before the first.
    pub fn value(&self) -> f64 {
        self.value.unwrap_or(0.0)
    }
}

/// Mean and variance of values, where each weighs `keep` times the next: Welford's update with exponential weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    keep: f64,
    /// Sum of the weights.
    pub weight: f64,
    /// Sum of their squares.
    weight_squared: f64,
    pub mean: f64,
    pub variance: f64,
}

impl Moments {
    /// Each new value leaves the share `keep` of the older values' weight; 1 keeps all.
    pub const fn new(keep: f64) -> Self {
        Self { keep, weight: 0.0, weight_squared: 0.0, mean: 0.0, variance: 0.0 }
    }

    pub fn add(&mut self, value: f64) {
        self.weight = self.weight * self.keep + 1.0;
        self.weight_squared = self.weight_squared * self.keep * self.keep + 1.0;
        let from_old = value - self.mean;
        self.mean += from_old / self.weight;
        self.variance += (from_old * (value - self.mean) - self.variance) / self.weight;
    }

    /// Effective sample size, `(sum w)^2 / sum w^2` (Kish); 0 before the first value.
    pub fn effective(&self) -> f64 {
        if self.weight_squared > 0.0 { self.weight * self.weight / self.weight_squared } else { 0.0 }
    }

    /// Changes the share that is kept from now on.
    pub fn set_keep(&mut self, keep: f64) {
        self.keep = keep;
    }

    /// Copies the values of another, and keeps its own `keep`.
    pub fn copy_from(&mut self, other: &Self) {
        *self = Self { keep: self.keep, ..*other };
    }

    /// Standard deviation.
    pub fn deviation(&self) -> f64 {
        self.variance.max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_right_from_its_first_second() {
        let mut rate = DecayingRate::new(10.0);
        for n in 0..=10 {
            rate.add(f64::from(n) * 0.1);
        }
        assert!((rate.at(1.0) - 10.5).abs() < 1.0, "{}", rate.at(1.0));
    }

    #[test]
    fn a_rate_decays_without_events() {
        let mut rate = DecayingRate::new(1.5);
        (0..100).for_each(|n| rate.add(f64::from(n) * 0.1));
        assert!(rate.at(9.9 + 15.0) < 0.001);
        assert_eq!(DecayingRate::new(1.0).at(5.0), 0.0);
    }

    #[test]
    fn moments_are_those_of_the_values() {
        let mut moments = Moments::new(1.0);
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|value| moments.add(value));
        assert!((moments.mean - 5.0).abs() < 1e-9 && (moments.deviation() - 2.0).abs() < 1e-9, "{moments:?}");
        assert_eq!(moments.effective(), 8.0);
    }

    #[test]
    fn decaying_moments_follow_and_their_weight_stays_bounded() {
        let mut moments = Moments::new(0.95);
        (0..200).for_each(|_| moments.add(1.0));
        (0..200).for_each(|_| moments.add(3.0));
        assert!((moments.mean - 3.0).abs() < 0.001);
        assert!((moments.weight - 20.0).abs() < 0.01 && (moments.effective() - 39.0).abs() < 0.1, "{moments:?}");
    }

    #[test]
    fn a_smoothed_value_starts_at_the_first() {
        let mut smoothed = Smoothed::new(0.2);
        assert_eq!(smoothed.value(), 0.0);
        smoothed.add(10.0);
        smoothed.add(20.0);
        assert_eq!(smoothed.value(), 12.0);
    }
}
