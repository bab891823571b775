//! From rows to figures: medians with their ranges, and ratios taken inside a round, because absolute microseconds drift
//! between rounds and a ratio of two neighbours does not. An invalid row enters no figure.

use crate::peer::Peer;
use crate::scenario::{Row, Scenario};

/// The middle and the ends of a few values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

impl Spread {
    /// Of `values`; `None` without any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let count = values.len();
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Spread { median, min, max, count })
    }

    /// `0.83 (0.78–0.86)`, with `places` decimals.
    pub fn text(self, places: usize) -> String {
        let Spread { median, min, max, .. } = self;
        format!("{median:.places$} ({min:.places$}–{max:.places$})")
    }
}

/// The valid rows of one peer in one scenario.
pub fn rows_of(rows: &[Row], peer: Peer, scenario: Scenario) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.peer == peer && row.scenario == scenario && row.invalid.is_none())
}

/// A value of every valid row.
pub fn spread(rows: &[Row], peer: Peer, scenario: Scenario, value: impl Fn(&Row) -> Option<f64>) -> Option<Spread> {
    Spread::of(rows_of(rows, peer, scenario).filter_map(value).collect())
}

/// A value of one peer joined with another's in the same round.
pub fn paired(
    rows: &[Row],
    scenario: Scenario,
    (peer, other): (Peer, Peer),
    value: impl Fn(&Row) -> Option<f64>,
    join: impl Fn(f64, f64) -> f64,
) -> Option<Spread> {
    let pair = |row: &Row| {
        let partner = rows_of(rows, other, scenario).find(|partner| partner.round == row.round)?;
        Some(join(value(row)?, value(partner)?))
    };
    Spread::of(rows_of(rows, peer, scenario).filter_map(pair).collect())
}

/// CPU of `peer` over that of `other`, in the same rounds.
pub fn cpu_ratio(rows: &[Row], scenario: Scenario, peer: Peer, other: Peer) -> Option<Spread> {
    paired(rows, scenario, (peer, other), |row| row.cpu_us, |mine, theirs| mine / theirs)
}

/// A time to first event of `peer` less that of direct, in the same rounds, microseconds.
pub fn added(rows: &[Row], scenario: Scenario, peer: Peer, time: impl Fn(&Row) -> f64) -> Option<Spread> {
    paired(rows, scenario, (peer, Peer::Direct), |row| Some(time(row)), |mine, direct| mine - direct)
}
