//! How long a prompt is: the estimate from the request, corrected by what the engine reports afterwards.
//!
//! The estimate is bytes over four, which is right for English and off by a factor of two or more for other scripts; `usage` is
//! exact, but arrives with the answer. The ratio of the two corrects the next requests. It is applied in jumps, and the parts that
//! keep sums over prompts convert them, so that a prompt token stays one unit within each sum.

/// The correction.
#[derive(Clone, Copy, Debug)]
pub(super) struct PromptCorrection {
    /// Tokens per estimated token, as applied.
    scale: f64,
    /// Sums over requests with an estimate and a report, by weight.
    estimated: f64,
    reported: f64,
    pairs: f64,
    /// Means, for requests without an estimate.
    mean_reported: f64,
    reports: f64,
    mean_estimated: f64,
    estimates: f64,
}

/// A prompt's length, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PromptTokens {
    /// From the request itself.
    Estimated(f64),
    /// The mean of the engine's reports: right for sums over requests, not for one.
    Reported(f64),
    /// A guess: neither an estimate nor enough reports.
    Unknown(f64),
}

impl PromptTokens {
    pub fn tokens(self) -> f64 {
        let (Self::Estimated(tokens) | Self::Reported(tokens) | Self::Unknown(tokens)) = self;
        tokens
    }
}

impl PromptCorrection {
    pub fn new() -> Self {
        Self {
            scale: 1.0,
            estimated: 0.0,
            reported: 0.0,
            pairs: 0.0,
            mean_reported: 0.0,
            reports: 0.0,
            mean_estimated: 0.0,
            estimates: 0.0,
        }
    }

    /// The length of a prompt that arrived; the estimate adds to the mean.
    pub fn length(&mut self, estimated: Option<u32>) -> PromptTokens {
        if let Some(estimated) = estimated {
            self.estimates = (self.estimates + 1.0).min(REMEMBERED);
            self.mean_estimated += (f64::from(estimated) - self.mean_estimated) / self.estimates;
        }
        self.expected(estimated)
    }

    /// The same, without adding to the mean.
    pub fn expected(&self, estimated: Option<u32>) -> PromptTokens {
        if let Some(estimated) = estimated {
            return PromptTokens::Estimated(f64::from(estimated) * self.scale);
        }
        if self.reports >= ENOUGH {
            PromptTokens::Reported(self.mean_reported)
        } else {
            PromptTokens::Unknown(self.mean_estimated * self.scale)
        }
    }

    /// The engine reports a prompt's length. Returns the factor by which the correction changes, if it does.
    pub fn on_report(&mut self, estimated: Option<u32>, reported: u32) -> Option<f64> {
        let reported = f64::from(reported);
        self.reports = (self.reports + 1.0).min(REMEMBERED);
        self.mean_reported += (reported - self.mean_reported) / self.reports;
        let estimated = f64::from(estimated.filter(|estimated| *estimated > 0)?);
        let keep = 1.0 - 1.0 / REMEMBERED;
        self.estimated = self.estimated * keep + estimated;
        self.reported = self.reported * keep + reported;
        self.pairs = self.pairs * keep + 1.0;
        let factor = self.reported / self.estimated / self.scale;
        if self.pairs < ENOUGH || (1.0 / JUMP..=JUMP).contains(&factor) || factor <= 0.0 {
            return None;
        }
        self.scale *= factor;
        Some(factor)
    }
}

/// Requests remembered.
const REMEMBERED: f64 = 200.0;
/// Reports before they are used.
const ENOUGH: f64 = 20.0;
/// The correction stays while it is right within 8 %: no figure is precise enough to show that.
const JUMP: f64 = 1.08;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_that_is_off_is_corrected_once() {
        let mut prompts = PromptCorrection::new();
        let jumps: Vec<f64> =
            (0..500).filter_map(|n| prompts.on_report(Some(100 + n % 50), 2 * (100 + n % 50))).collect();
        assert_eq!(jumps.len(), 1);
        assert!((jumps[0] - 2.0).abs() < 1e-9);
        assert_eq!(prompts.length(Some(50)), PromptTokens::Estimated(100.0));
    }

    #[test]
    fn a_ratio_that_is_right_within_a_few_percent_stays() {
        let mut prompts = PromptCorrection::new();
        assert!((0..500).all(|n| prompts.on_report(Some(100), 95 + n % 11).is_none()));
        assert_eq!(prompts.length(Some(50)), PromptTokens::Estimated(50.0));
    }

    #[test]
    fn without_an_estimate_only_reports_are_known() {
        let mut prompts = PromptCorrection::new();
        assert_eq!(prompts.length(None), PromptTokens::Unknown(0.0));
        prompts.length(Some(80));
        assert_eq!(prompts.length(None), PromptTokens::Unknown(80.0));
        (0..30).for_each(|_| assert_eq!(prompts.on_report(None, 120), None));
        assert_eq!(prompts.length(None), PromptTokens::Reported(120.0));
    }
}
