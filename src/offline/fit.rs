//! Laws of scaling, fitted: Amdahl's, and the universal scalability law (Gunther).
//!
//! Both are linear in their parameters once written as n/S − 1 = σ (n − 1) + κ n (n − 1), with S the speed-up on n times the
//! GPUs: least squares give σ and κ, held at 0 or above.

/// A fitted law.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Contention: the share that does not scale.
    pub sigma: f64,
    /// Coherency: what every pair costs; none in Amdahl's law.
    pub kappa: Option<f64>,
    /// Root mean square of the relative error of S.
    pub error: f64,
    /// Points it rests on, the base included.
    pub points: usize,
}

impl Fit {
    /// The speed-up on n times the GPUs.
    pub fn speedup(&self, n: f64) -> f64 {
        n / (1.0 + self.sigma * (n - 1.0) + self.kappa.unwrap_or(0.0) * n * (n - 1.0))
    }

    /// The n beyond which more GPUs make it slower, √((1 − σ)/κ).
    pub fn peak(&self) -> Option<f64> {
        self.kappa.filter(|kappa| *kappa > 0.0).map(|kappa| ((1.0 - self.sigma).max(0.0) / kappa).sqrt())
    }
}

/// Fits (n, S) without the base, which is (1, 1) by definition: two points give Amdahl's law, three or more the universal one.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|(n, s)| *n > 1.0 && *s > 0.0).collect();
    let mut sizes: Vec<f64> = points.iter().map(|point| point.0).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let (sigma, kappa) = match sizes.len() {
        0 | 1 => return None,
        2 => (amdahl(&points), None),
        _ => match universal(&points) {
            (sigma, kappa) if sigma >= 0.0 && kappa >= 0.0 => (sigma, Some(kappa)),
            // A law with a negative part is none: what is left of it is Amdahl's.
            _ => (amdahl(&points), Some(0.0)),
        },
    };
    let mut fit = Fit { sigma, kappa, error: 0.0, points: points.len() + 1 };
    let squares: f64 = points.iter().map(|(n, s)| (fit.speedup(*n) / s - 1.0).powi(2)).sum();
    fit.error = (squares / points.len() as f64).sqrt();
    Some(fit)
}

fn amdahl(points: &[(f64, f64)]) -> f64 {
    let above: f64 = points.iter().map(|(n, s)| (n / s - 1.0) * (n - 1.0)).sum();
    let below: f64 = points.iter().map(|(n, _)| (n - 1.0).powi(2)).sum();
    (above / below).max(0.0)
}

fn universal(points: &[(f64, f64)]) -> (f64, f64) {
    let (mut aa, mut ab, mut bb, mut ay, mut by) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (n, s) in points {
        let (a, b, y) = (n - 1.0, n * (n - 1.0), n / s - 1.0);
        (aa, ab, bb, ay, by) = (aa + a * a, ab + a * b, bb + b * b, ay + a * y, by + b * y);
    }
    let determinant = aa * bb - ab * ab;
    ((ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(sigma: f64, kappa: f64, sizes: &[f64]) -> Vec<(f64, f64)> {
        let fit = Fit { sigma, kappa: Some(kappa), error: 0.0, points: 0 };
        sizes.iter().map(|n| (*n, fit.speedup(*n))).collect()
    }

    #[test]
    fn a_law_is_found_again() {
        let found = fit(&law(0.05, 0.002, &[2.0, 4.0, 8.0, 16.0])).unwrap();
        assert!((found.sigma - 0.05).abs() < 1e-9 && (found.kappa.unwrap() - 0.002).abs() < 1e-9 && found.error < 1e-9);
        assert!((found.peak().unwrap() - (0.95_f64 / 0.002).sqrt()).abs() < 1e-6);
        let found = fit(&law(0.1, 0.0, &[2.0, 4.0])).unwrap();
        assert!((found.sigma - 0.1).abs() < 1e-9 && found.kappa.is_none() && found.peak().is_none());
    }

    #[test]
    fn no_law_has_negative_parts_or_rests_on_one_point() {
        assert_eq!(fit(&[(4.0, 3.5)]), None);
        assert_eq!(fit(&[(4.0, 3.5), (4.0, 3.6)]), None, "one size, twice");
        let found = fit(&[(2.0, 2.2), (4.0, 4.6), (8.0, 9.0)]).unwrap();
        assert!(found.sigma >= 0.0 && found.kappa.unwrap() >= 0.0);
    }
}
