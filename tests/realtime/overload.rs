//! The promise of mode enforce in real time and in the small: a simulated engine of sixteen slots, two and ten times its capacity.
//! `make chaos CHAOS=overload` runs it at length.

use std::time::Duration;

use weir::engine::profile::Setup;

use crate::support::overload::Case;
use crate::support::time;

const SETUP: &str = "{params: {base: 0.02, per_decode: 0.0005, per_prefill_token: 0.00002, per_kv_token: 0, \
                     max_num_seqs: 16, max_num_batched_tokens: 2048, kv_tokens: 100000}, \
                     workload: {prompt: {mean: 40, sigma: 0.3}, output: {mean: 20, sigma: 0.2}}}";

/// The bars proper, 0.95 and 1.1, are `make chaos`'s: here the rest of the suite runs beside it, and times are everybody's.
const GOODPUT: f64 = 0.85;
const LATE: f64 = 1.5;

#[test]
fn overloads_are_served_at_capacity_and_in_time_if_enforced() {
    let case = Case { setup: Setup::parse(SETUP).unwrap(), speed: 1.0, slo_ttft: Duration::from_millis(600) };
    let capacity = case.capacity(40, 6.0);
    let [without, twice, tenfold] = std::thread::scope(|scope| {
        [("", 2.0), ("mode: enforce", 2.0), ("mode: enforce", 10.0)]
            .map(|(settings, share)| scope.spawn(move || case.through_weir(settings, capacity * share, 12.0)))
            .map(|run| run.join().unwrap())
    });
    println!(
        "capacity {capacity:.1}, load average {}\nwithout {without:?}\n2x {twice:?}\n10x {tenfold:?}",
        time::load_average()
    );
    assert!(without.goodput <= 0.2 * capacity, "the test must bite");
    assert_eq!(without.shed, 0);
    assert!(without.would_shed > 0.25 * 24.0 * capacity, "half of what came would be refused, {}", without.would_shed);
    assert!(twice.would_shed < 0.5, "what is refused is not counted twice");
    for seen in [twice, tenfold] {
        assert!(seen.goodput >= GOODPUT * capacity, "{:.2} of the capacity", seen.goodput / capacity);
        assert!(seen.ttft_p99 <= LATE * 0.6, "{seen:?}");
        assert!(seen.shed > 0);
    }
}

#[test]
fn half_the_capacity_is_not_shed_and_not_delayed() {
    let case = Case { setup: Setup::parse(SETUP).unwrap(), speed: 1.0, slo_ttft: Duration::from_millis(600) };
    let [without, with] = std::thread::scope(|scope| {
        ["", "mode: enforce"]
            .map(|settings| scope.spawn(move || case.through_weir(settings, 12.0, 10.0)))
            .map(|run| run.join().unwrap())
    });
    println!("without {without:?}\nwith {with:?}");
    assert_eq!((with.shed, with.late), (0, 0));
    assert!(with.ttft_p50 <= without.ttft_p50 * 1.1 + 0.002, "{} against {}", with.ttft_p50, without.ttft_p50);
}
