//! What a step costs: least squares of `T ~ a n_s + b n_d + c n_p` over rows of steps, where older rows weigh less.
//!
//! `a` seconds per step, `b` per decode, `c` per prompt token: identified at any load, saturated or not. Three coefficients and
//! a 3x3 normal matrix, kept with its inverse for intervals. Everything is linear: a term that grows with the context
//! ends up in `b`, and attention that grows with its square is not represented.

use super::reading::StepCosts;
use super::steps::WorkInterval;

/// The regression.
#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    /// Normal matrix `X'X`.
    normal: Matrix,
    /// `X'y`.
    right: [f64; 3],
    /// `y'y`.
    square: f64,
    /// Sum of the rows' weights.
    rows: f64,
    solution: Option<Solution>,
}

/// The coefficients and their uncertainty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solution {
    /// `a`, `b`, `c` in seconds; one whose solution is negative is 0.
    pub coefficients: [f64; 3],
    /// Inverse of the normal matrix over the coefficients that are not 0.
    inverse: Matrix,
    /// Variance of a row's residual.
    pub residual: f64,
}

impl Costs {
    /// Adds a row.
    pub fn add(&mut self, row: &WorkInterval) {
        let x = [row.steps, row.decodes, row.prefill];
        let y = row.time;
        self.scale(KEEP);
        for (i, xi) in x.iter().enumerate() {
            for (j, xj) in x.iter().enumerate() {
                self.normal[i][j] += xi * xj;
            }
            self.right[i] += xi * y;
        }
        self.square += y * y;
        self.rows += 1.0;
        self.solve();
    }

    /// The engine changed: the rows so far keep little of their weight.
    pub fn discount(&mut self) {
        self.scale(DISCOUNT);
        self.rows = AFTER_DISCOUNT;
    }

    /// Prompt tokens are counted in another unit from now on: `factor` times as many as before.
    pub fn rescale_prompts(&mut self, factor: f64) {
        for i in 0..3 {
            self.normal[i][2] *= factor;
            self.normal[2][i] *= factor;
        }
        self.right[2] *= factor;
        self.solve();
    }

    /// The coefficients, once there are enough rows.
    pub fn solution(&self) -> Option<&Solution> {
        self.solution.as_ref()
    }

    /// The coefficients by name, for a reading.
    pub fn step_costs(&self) -> Option<StepCosts> {
        let [step, decode, prefill_token] = self.solution()?.coefficients;
        Some(StepCosts { step, decode, prefill_token })
    }

    /// Rows behind the coefficients, by weight.
    pub fn rows(&self) -> f64 {
        self.rows
    }

    fn scale(&mut self, keep: f64) {
        self.normal.iter_mut().flatten().for_each(|entry| *entry *= keep);
        self.right.iter_mut().for_each(|entry| *entry *= keep);
        self.square *= keep;
        self.rows *= keep;
    }

    /// Solves, and solves again without the most negative coefficient until none is.
    fn solve(&mut self) {
        if self.rows < FEWEST_ROWS {
            return;
        }
        let mut active = [true; 3];
        for _ in 0..3 {
            let Some(inverse) = invert(&self.normal, active) else { return };
            let coefficients = multiply(&inverse, &self.right);
            let weight = |i: usize| coefficients[i] * self.normal[i][i].sqrt();
            let negative = (0..3).filter(|&i| active[i] && coefficients[i] < 0.0);
            if let Some(worst) = negative.min_by(|&i, &j| weight(i).total_cmp(&weight(j))) {
                active[worst] = false;
                continue;
            }
            let explained: f64 = coefficients.iter().zip(self.right).map(|(c, r)| c * r).sum();
            let residual = ((self.square - explained) / (self.rows - 3.0).max(1.0)).max(SMALLEST_RESIDUAL);
            self.solution = Some(Solution { coefficients, inverse, residual });
            return;
        }
    }
}

impl Solution {
    /// Seconds that a row should take.
    pub fn predicted(&self, row: &WorkInterval) -> f64 {
        let [a, b, c] = self.coefficients;
        a * row.steps + b * row.decodes + c * row.prefill
    }

    /// Leverage, how far a row is from those behind the coefficients: variance of its prediction over that of a residual.
    pub fn leverage(&self, row: &WorkInterval) -> f64 {
        self.variance_along([row.steps, row.decodes, row.prefill]) / self.residual
    }

    /// Variance of `gradient . (a, b, c)`.
    pub fn variance_along(&self, gradient: [f64; 3]) -> f64 {
        let along = multiply(&self.inverse, &gradient);
        self.residual * gradient.iter().zip(along).map(|(g, x)| g * x).sum::<f64>().max(0.0)
    }
}

type Matrix = [[f64; 3]; 3];

fn multiply(matrix: &Matrix, vector: &[f64; 3]) -> [f64; 3] {
    matrix.map(|row| row.iter().zip(vector).map(|(m, v)| m * v).sum())
}

/// Inverse over the active rows and columns, 0 elsewhere. The matrix is scaled to a diagonal of ones first: steps,
/// decodes and prompt tokens differ by orders of magnitude.
fn invert(matrix: &Matrix, active: [bool; 3]) -> Option<Matrix> {
    let scale: [f64; 3] = std::array::from_fn(|i| if active[i] { matrix[i][i].sqrt() } else { 1.0 });
    if (0..3).any(|i| active[i] && scale[i] <= 0.0) {
        // A regressor without data: no prompt length known, or no decode yet.
        let seen = std::array::from_fn(|i| active[i] && matrix[i][i] > 0.0);
        return if seen == [false; 3] { None } else { invert(matrix, seen) };
    }
    let entry = |i: usize, j: usize| match (active[i] && active[j], i == j) {
        (true, true) => 1.0 + RIDGE,
        (true, false) => matrix[i][j] / (scale[i] * scale[j]),
        (false, true) => 1.0,
        (false, false) => 0.0,
    };
    let m: Matrix = std::array::from_fn(|i| std::array::from_fn(|j| entry(i, j)));
    // Cofactors: a symmetric 3x3 matrix needs no elimination.
    let minor = |i: usize, j: usize| {
        let (r, s) = ((i + 1) % 3, (i + 2) % 3);
        let (t, u) = ((j + 1) % 3, (j + 2) % 3);
        m[r][t] * m[s][u] - m[r][u] * m[s][t]
    };
    let determinant = (0..3).map(|j| m[0][j] * minor(0, j)).sum::<f64>();
    if determinant < SINGULAR {
        return None;
    }
    let element = |i: usize, j: usize| match active[i] && active[j] {
        true => minor(j, i) / determinant / (scale[i] * scale[j]),
        false => 0.0,
    };
    Some(std::array::from_fn(|i| std::array::from_fn(|j| element(i, j))))
}

/// Weight of a row relative to the next: 500 rows count.
const KEEP: f64 = 0.998;
/// Rows before there is a solution.
pub(super) const FEWEST_ROWS: f64 = 5.0;
/// Weight of the rows before a change of speed: enough to separate the three costs while the load is constant ...
const DISCOUNT: f64 = 0.02;
/// ... and too few for a test or a prediction.
const AFTER_DISCOUNT: f64 = 3.0;
/// Keeps the scaled matrix invertible when steps and decodes move together.
const RIDGE: f64 = 1e-7;
const SINGULAR: f64 = 1e-12;
/// Square seconds; a perfect fit would make intervals of width 0.
const SMALLEST_RESIDUAL: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    const A: f64 = 0.0135;
    const B: f64 = 0.000157;
    const C: f64 = 0.000183;

    /// A row of the engine above, with loads that vary.
    fn row(n: u32) -> WorkInterval {
        let steps = f64::from(20 + n * 7 % 31);
        let decodes = steps * f64::from(3 + n * 13 % 29);
        let prefill = f64::from(n * 29 % 17) * 100.0;
        WorkInterval { time: A * steps + B * decodes + C * prefill, steps, decodes, prefill }
    }

    fn assert_near(value: f64, expected: f64, tolerance: f64) {
        assert!((value / expected - 1.0).abs() < tolerance, "{value} instead of {expected}");
    }

    #[test]
    fn the_costs_of_a_known_engine_are_found() {
        let mut costs = Costs::default();
        (0..40).for_each(|n| costs.add(&row(n)));
        let found = costs.step_costs().unwrap();
        assert_near(found.step, A, 1e-3);
        assert_near(found.decode, B, 1e-3);
        assert_near(found.prefill_token, C, 1e-3);
    }

    #[test]
    fn noise_of_five_percent_stays_within_the_interval() {
        let mut costs = Costs::default();
        for n in 0..400 {
            let mut row = row(n);
            row.time *= 1.0 + 0.05 * (f64::from(n * 7919 % 200) / 100.0 - 1.0);
            costs.add(&row);
        }
        let solution = costs.solution().unwrap();
        for (index, expected) in [A, B, C].into_iter().enumerate() {
            let gradient = std::array::from_fn(|i| f64::from(u8::from(i == index)));
            let deviation = solution.variance_along(gradient).sqrt();
            let off = (solution.coefficients[index] - expected).abs();
            assert!(off < 3.0 * deviation && deviation < 0.05 * expected, "{index}: {off} off, {deviation}");
        }
    }

    #[test]
    fn four_rows_have_no_solution() {
        let mut costs = Costs::default();
        (0..4).for_each(|n| costs.add(&row(n)));
        assert!(costs.solution().is_none());
    }

    #[test]
    fn a_cost_is_never_negative() {
        let mut costs = Costs::default();
        for n in 0..50 {
            let mut row = row(n);
            row.time -= 2.0 * B * row.decodes;
            costs.add(&row);
        }
        let solution = costs.solution().unwrap();
        assert!(solution.coefficients.iter().all(|cost| *cost >= 0.0), "{solution:?}");
        assert_eq!(solution.coefficients[1], 0.0);
    }

    #[test]
    fn without_prompt_lengths_the_other_two_are_found() {
        let mut costs = Costs::default();
        for n in 0..50 {
            let row = row(n);
            costs.add(&WorkInterval { time: row.time - C * row.prefill, prefill: 0.0, ..row });
        }
        let found = costs.step_costs().unwrap();
        assert_near(found.step, A, 1e-3);
        assert_near(found.decode, B, 1e-3);
        assert_eq!(found.prefill_token, 0.0);
    }

    #[test]
    fn a_changed_engine_is_found_within_forty_rows() {
        let mut costs = Costs::default();
        (0..300).for_each(|n| costs.add(&row(n)));
        costs.discount();
        for n in 0..40 {
            let row = row(n);
            costs.add(&WorkInterval { time: row.time / 0.6, ..row });
        }
        let [a, ..] = costs.solution().unwrap().coefficients;
        assert!((a / (A / 0.6) - 1.0).abs() < 0.1, "{a}");
    }

    #[test]
    fn prompts_in_another_unit_cost_in_that_unit() {
        let mut costs = Costs::default();
        (0..50).for_each(|n| costs.add(&row(n)));
        costs.rescale_prompts(2.0);
        assert_near(costs.step_costs().unwrap().prefill_token, C / 2.0, 1e-3);
    }
}
