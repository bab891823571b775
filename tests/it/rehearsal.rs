//! Scenario files, played: the ones that are quick enough for every test run. `make rehearse` plays all of them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use weir::simulation::{Finding, Scenario, Selection, Truths, rehearse, report};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scenarios")
}

fn scenario(name: &str) -> Scenario {
    let text = std::fs::read_to_string(folder().join(name).with_extension("toml")).unwrap();
    Scenario::parse(name, &text).unwrap_or_else(|bad| panic!("{bad}"))
}

fn assert_met(findings: &[Finding<'_>]) {
    assert!(!findings.is_empty());
    assert!(findings.iter().all(Finding::is_met), "\n{}", report::text(findings));
}

fn play(names: &[&str], engines: &[&str], seeds: Option<&[u64]>) {
    let scenarios: Vec<Scenario> = names.iter().map(|name| scenario(name)).collect();
    let choice =
        Selection { engines: engines.iter().map(|&name| name.to_owned()).collect(), seeds: seeds.map(<[u64]>::to_vec) };
    let mut truths = Truths::kept();
    assert_met(&rehearse(&scenarios, &choice, &mut truths, NonZeroUsize::MIN));
}

#[test]
fn every_scenario_file_is_sound() {
    let names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let scenario = scenario(&name);
        assert!(!scenario.expectations.is_empty(), "{name} expects nothing");
        assert!(!scenario.about.contains('\n'), "{name}");
    }
}

#[test]
fn every_truth_that_a_scenario_needs_is_kept() {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let names = names.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let truths = Truths::kept();
    for path in names {
        let scenario = scenario(path.file_stem().unwrap().to_str().unwrap());
        for (name, machine) in weir::simulation::machines_of(std::slice::from_ref(&scenario)) {
            assert!(truths.of(&machine).is_some(), "weir rehearse --truth {} prints {name}", path.display());
        }
    }
}

/// A1: one GPU's sweep, to which the `seed` engine was fitted.
#[test]
fn the_sweep_that_weir_starts_from_is_reproduced() {
    play(&["sweep10", "sweep20", "sweep30", "sweep40", "sweep60"], &[], None);
}

/// A5: a scenario about holding the load must fail where it is not held.
#[test]
fn twice_the_capacity_without_a_gate_serves_few_in_time() {
    play(&["step2x"], &["seed"], Some(&[1]));
}

/// A2, A8, A10: the same with a gate.
#[test]
fn at_twice_the_capacity_a_gate_keeps_the_goodput() {
    play(&["hold_step2x"], &["slots16", "prefill", "h100like"], Some(&[3]));
}

/// A3, A17.
#[test]
fn a_flash_crowd_and_a_cold_start_find_the_gate_ready() {
    play(&["hold_flash10", "hold_cold3x"], &["smallkv", "prefill"], Some(&[1]));
}

/// A6, A7: a gate that has nothing to do does nothing.
#[test]
fn at_half_the_capacity_the_gate_has_no_effect() {
    play(&["hold_steady05"], &["slots16", "prefill"], Some(&[1]));
}

/// A14: what the KV cap is for.
#[test]
fn an_engine_that_preempts_needs_the_cap() {
    play(&["hold_thrash", "hold_thrash_uncapped"], &[], Some(&[1]));
}

/// A22.
#[test]
fn refused_clients_that_retry_are_served_and_do_no_harm() {
    play(&["hold_retry", "hold_retry_now"], &["slots16"], Some(&[1]));
}

/// A24, A25.
#[test]
fn a_high_class_and_small_tenants_are_served_in_overload() {
    play(&["hold_classes", "hold_tenants"], &["smallkv", "codegen"], Some(&[1]));
}
