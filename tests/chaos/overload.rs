//! Two and ten times the capacity of an engine with the figures of the field, a minute each, and the same without enforcement.

use std::time::Duration;

use weir::engine::profile::{Profile, Setup};

use crate::support::overload::Case;
use crate::{Verdict, timed};

/// `seed` is slot-bound with long answers, `fastsmall` fast with short ones; half its speed is what one machine can carry with its
/// clients and weir beside it.
const CASES: [(&str, f64, u32); 2] = [("seed", 2.0, 200), ("fastsmall", 0.25, 500)];
const SECONDS: f64 = 45.0;

pub fn run() -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (name, speed, workers) in CASES {
        let profile = Profile::named(name).unwrap();
        let Profile { slo_ttft, .. } = *profile;
        let case = Case { setup: Setup { ..profile.setup }, speed, slo_ttft };
        let capacity = case.capacity(workers, 30.0);
        let slo = Duration::as_secs_f64(&slo_ttft);
        println!("   {name}: {capacity:.2} req/s measured, {:.2} by its profile", profile.capacity * speed);
        for (settings, share) in [("", 2.0), ("mode: enforce", 2.0), ("mode: enforce", 10.0)] {
            let seen = case.through_weir(settings, capacity * share, SECONDS);
            let good = seen.goodput / capacity;
            println!("   {name} {share}x {settings:?}: {seen:?}");
            if settings.is_empty() {
                verdicts.push(timed(
                    format!("{name} {share}x without: {good:.2} of the capacity (bound: 0.2)"),
                    good <= 0.2,
                ));
                continue;
            }
            verdicts
                .push(timed(format!("{name} {share}x: goodput {good:.3} of the capacity (bound: 0.95)"), good >= 0.95));
            verdicts.push(timed(
                format!(
                    "{name} {share}x: p99 TTFT of the served {:.2} of the objective (bound: 1.1)",
                    seen.ttft_p99 / slo
                ),
                seen.ttft_p99 <= 1.1 * slo,
            ));
            verdicts.push(timed(
                format!("{name} {share}x: refusals p99 {:.2} ms (bound: 10)", seen.shed_p99 * 1e3),
                seen.shed_p99 <= 0.010,
            ));
        }
    }
    verdicts
}
