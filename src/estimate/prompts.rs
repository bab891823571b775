//! How long a prompt is: what the request tells, corrected by what the engine reports afterwards.
//!
//! A request tells bytes over four, which is right for English and off by two or more for other scripts; `usage` tells the
//! truth, but too late. Their ratio corrects the next ones. It is applied in jumps, and those who keep sums over prompts
//! are told, so that a prompt token stays one unit within each sum.

/// The correction.
#[derive(Clone, Copy, Debug)]
pub(super) struct PromptCorrection {
    /// Tokens per token told, as applied.
    scale: f64,
    /// Sums over requests that both told and had it reported, forgetting.
    told: f64,
    reported: f64,
    pairs: f64,
    /// Means, as a stand-in for who tells nothing.
    mean_reported: f64,
    reports: f64,
    mean_told: f64,
    tellers: f64,
}

/// A prompt's length, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PromptTokens {
    /// Its own.
    Told(f64),
    /// The mean of what the engine reports: right for sums over requests, not for one.
    Reported(f64),
    /// A guess, for want of anything better.
    Unknown(f64),
}

impl PromptTokens {
    /// In tokens.
    pub fn tokens(self) -> f64 {
        let (Self::Told(tokens) | Self::Reported(tokens) | Self::Unknown(tokens)) = self;
        tokens
    }
}

impl PromptCorrection {
    pub fn new() -> Self {
        Self {
            scale: 1.0,
            told: 0.0,
            reported: 0.0,
            pairs: 0.0,
            mean_reported: 0.0,
            reports: 0.0,
            mean_told: 0.0,
            tellers: 0.0,
        }
    }

    /// The length of a prompt of which so much is told.
    pub fn length(&mut self, told: Option<u32>) -> PromptTokens {
        if let Some(told) = told {
            self.tellers = (self.tellers + 1.0).min(REMEMBERED);
            self.mean_told += (f64::from(told) - self.mean_told) / self.tellers;
        }
        self.expected(told)
    }

    /// The same, without learning from it.
    pub fn expected(&self, told: Option<u32>) -> PromptTokens {
        if let Some(told) = told {
            return PromptTokens::Told(f64::from(told) * self.scale);
        }
        if self.reports >= ENOUGH {
            PromptTokens::Reported(self.mean_reported)
        } else {
            PromptTokens::Unknown(self.mean_told * self.scale)
        }
    }

    /// The engine reports a prompt's length. If the correction changes, by which factor.
    pub fn on_report(&mut self, told: Option<u32>, reported: u32) -> Option<f64> {
        let reported = f64::from(reported);
        self.reports = (self.reports + 1.0).min(REMEMBERED);
        self.mean_reported += (reported - self.mean_reported) / self.reports;
        let told = f64::from(told.filter(|told| *told > 0)?);
        let keep = 1.0 - 1.0 / REMEMBERED;
        self.told = self.told * keep + told;
        self.reported = self.reported * keep + reported;
        self.pairs = self.pairs * keep + 1.0;
        let factor = self.reported / self.told / self.scale;
        if self.pairs < ENOUGH || (1.0 / JUMP..=JUMP).contains(&factor) || factor <= 0.0 {
            return None;
        }
        self.scale *= factor;
        Some(factor)
    }
}

/// Requests remembered.
const REMEMBERED: f64 = 200.0;
/// Reports before they are believed.
const ENOUGH: f64 = 20.0;
/// The correction stays while it is right within 8 %: well below what a figure could show.
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
        assert_eq!(prompts.length(Some(50)), PromptTokens::Told(100.0));
    }

    #[test]
    fn a_ratio_that_is_right_within_a_few_percent_stays() {
        let mut prompts = PromptCorrection::new();
        assert!((0..500).all(|n| prompts.on_report(Some(100), 95 + n % 11).is_none()));
        assert_eq!(prompts.length(Some(50)), PromptTokens::Told(50.0));
    }

    #[test]
    fn who_tells_nothing_is_known_only_by_reports() {
        let mut prompts = PromptCorrection::new();
        assert_eq!(prompts.length(None), PromptTokens::Unknown(0.0));
        prompts.length(Some(80));
        assert_eq!(prompts.length(None), PromptTokens::Unknown(80.0));
        (0..30).for_each(|_| assert_eq!(prompts.on_report(None, 120), None));
        assert_eq!(prompts.length(None), PromptTokens::Reported(120.0));
    }
}
