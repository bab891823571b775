//! Every tool's result, in the right units.

use weir::offline::import;
use weir::offline::sweep::{Level, LevelLoad, Sweep};

use super::{data, shared};

fn read(path: std::path::PathBuf) -> Vec<Sweep> {
    let found = import::read(&[path]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    found.sweeps
}

fn near(found: Option<f64>, wanted: f64, what: &str) {
    let found = found.unwrap_or_else(|| panic!("{what} is absent"));
    assert!((found / wanted - 1.0).abs() < 1e-3, "{what}: {found}, not {wanted}");
}

/// Load, requests/s, output tokens/s, TTFT mean (or median) and end to end in seconds.
fn check(level: &Level, load: LevelLoad, [requests, output, ttft, e2e]: [f64; 4]) {
    let name = format!("{load:?}");
    assert_eq!(level.load, load);
    near(level.whole.requests, requests, &format!("{name} requests/s"));
    near(level.whole.output_tokens, output, &format!("{name} output tokens/s"));
    near(level.ttft.mean.or(level.ttft.p50), ttft, &format!("{name} TTFT"));
    if e2e > 0.0 {
        near(level.e2e.mean.or(level.e2e.p50), e2e, &format!("{name} end to end"));
    }
}

#[test]
fn vllm_is_in_milliseconds() {
    let sweeps = read(data("vllm.json"));
    let level = &sweeps[0].levels[0];
    check(level, LevelLoad::Rate(20.0), [15.9769, 511.26, 0.052_174, 0.670_30]);
    near(level.whole.total_tokens, 1413.67, "total");
    near(level.tpot.mean, 0.019_94, "TPOT");
    near(level.itl.p99, 0.029_329, "ITL");
    near(level.goodput, 15.9769, "goodput");
    assert_eq!((level.counts.completed, level.counts.failed), (Some(60.0), Some(0.0)));
    near(level.duration, 3.7554, "duration");
}

#[test]
fn the_rewriting_of_vllm_is_in_seconds() {
    let Some(file) = shared("samples/vllm-bench/inferencex_variant_seconds.json") else { return };
    let sweeps = read(file);
    check(&sweeps[0].levels[0], LevelLoad::Concurrency(16.0), [3.152_976, 403.581, 0.291_399, 4.573_23]);
    assert_eq!(sweeps[0].levels[0].ttft.mean, None, "a mean is never filled from a median");
}

#[test]
fn sglang_counts_tokens_by_usage() {
    let sweeps = read(data("sglang.jsonl"));
    assert_eq!(sweeps[0].levels.len(), 3);
    check(&sweeps[0].levels[2], LevelLoad::Rate(20.0), [11.674_74, 373.592, 0.261_408, 1.354_98]);
    near(sweeps[0].levels[2].output_tokens, 32.0, "output tokens");
    near(sweeps[0].levels[2].in_flight, 15.819, "in flight");
}

#[test]
fn old_sglang_has_medians_and_infinity_and_no_throughput() {
    let Some(file) = shared("samples/sglang/llama_3_3_70b_offline_output.jsonl") else { return };
    let levels: Vec<Level> = read(file).into_iter().flat_map(|sweep| sweep.levels).collect();
    assert_eq!(levels.len(), 7);
    check(&levels[0], LevelLoad::Burst, [3000.0 / 341.721, 4520.70, 91.282_2, 224.918_8]);
    assert_eq!(levels[0].ttft.mean, None);
}

#[test]
fn aiperf_is_in_milliseconds_and_its_itl_is_a_tpot() {
    let sweeps = read(data("aiperf"));
    assert_eq!((sweeps.len(), sweeps[0].levels.len()), (1, 1), "the table beside the JSON is the same run");
    let level = &sweeps[0].levels[0];
    // 32 output tokens by usage; AIPerf counted 64.
    check(level, LevelLoad::Rate(15.0), [13.6146, 13.6146 * 32.0, 0.028_772, 0.548_516]);
    near(level.tpot.mean, 0.008_249_9, "TPOT");
    near(level.itl.mean, 0.016_766, "ITL");
    near(level.counts.completed, 60.0, "completed");
    near(level.duration, 4.3629, "duration");
}

#[test]
fn the_table_of_aiperf_needs_a_load_in_its_folders_name() {
    let text = std::fs::read(data("aiperf/profile_export_aiperf.csv")).unwrap();
    let found = import::texts([("artifacts/mock-chat-request_rate15/profile_export_aiperf.csv", text.as_slice())]);
    check(&found.sweeps[0].levels[0], LevelLoad::Rate(15.0), [13.61, 13.61 * 32.0, 0.028_77, 0.548_52]);
    let found = import::texts([("x/profile_export_aiperf.csv", text.as_slice())]);
    assert!(
        found.sweeps.is_empty() && found.problems[0].to_string().contains("does not say its load"),
        "{:?}",
        found.problems
    );
}

#[test]
fn genai_perf_is_read_as_aiperf_is() {
    // The layout of its exporter's own tests: values as {unit, avg}, the load in input_config.
    let text = br#"{"request_throughput": {"unit": "requests/sec", "avg": 12.5}, "request_latency": {"unit": "ms", "avg": 400.0, "p99": 900.0},
        "time_to_first_token": {"unit": "ms", "avg": 80.0, "p50": 70.0}, "inter_token_latency": {"unit": "ms", "avg": 9.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 1250.0}, "request_count": {"unit": "count", "avg": 100},
        "input_config": {"model_names": ["m"], "perf_analyzer": {"stimulus": {"concurrency": 5}}}}"#;
    let found = import::texts([("profile_export_genai_perf.json", text.as_slice())]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    check(&found.sweeps[0].levels[0], LevelLoad::Concurrency(5.0), [12.5, 1250.0, 0.080, 0.400]);
    let table = b"Metric,avg,min,max,p99\r\nTime To First Token (ms),80.00,7.00,90.00,88.98\r\nRequest Latency (ms),\"1,400.00\",4,6,5\r\n\r\nMetric,Value\r\n\
        Output Token Throughput (per sec),1250.00\r\nRequest Throughput (per sec),12.50\r\nRequest Count (count),100.00\r\n";
    let found = import::texts([("m-concurrency5/profile_export_genai_perf.csv", table.as_slice())]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    check(&found.sweeps[0].levels[0], LevelLoad::Concurrency(5.0), [12.5, 1250.0, 0.080, 1.400]);
}

#[test]
fn guidellm_mixes_seconds_and_milliseconds() {
    let mut sweeps = read(data("guidellm.csv"));
    sweeps.extend(shared("samples/guidellm/benchmarks_080_mock_trimmed.json").map(read).unwrap_or_default());
    for pair in sweeps.chunks(2) {
        let open = pair.iter().find(|sweep| !sweep.is_closed()).unwrap();
        let closed = pair.iter().find(|sweep| sweep.is_closed()).unwrap();
        assert_eq!((open.levels.len(), closed.levels.len()), (4, 2));
        let level = &open.levels[0];
        near(level.load.value(), 6.3125, "load");
        near(level.whole.requests, 5.875, "requests/s: the mean, not the quantiles of its intervals");
        near(level.ttft.mean, 0.032_915, "TTFT");
        near(level.ttft.p90, 0.043_971, "TTFT p90");
        near(level.e2e.mean, 0.622_026, "end to end");
        near(level.tpot.mean, 0.018_797, "TPOT without the first token");
        near(level.schedule_delay.mean, 0.025_796, "schedule delay");
        near(level.counts.unfinished, 4.0, "unfinished");
        assert_eq!(closed.levels[0].load, LevelLoad::Concurrency(1.0));
        assert_eq!(
            closed.levels[1].load,
            LevelLoad::Concurrency(64.0),
            "the throughput phase is a closed loop at its cap"
        );
        near(closed.levels[1].whole.output_tokens, 679.875, "output tokens/s");
    }
}

#[test]
fn inference_perf_is_in_seconds() {
    let sweeps = read(data("inference-perf"));
    assert_eq!((sweeps.len(), sweeps[0].levels.len()), (1, 4));
    let level = &sweeps[0].levels[3];
    check(level, LevelLoad::Rate(40.0), [22.7356, 1455.65, 1.637_77, 2.287_586]);
    near(level.achieved_rate, 36.5263, "sent");
    near(level.duration, 10.5561, "duration, drain included");
    near(level.send_duration, 6.5706, "sending");
    near(level.schedule_delay.mean, 0.000_750_8, "schedule delay");
}

#[test]
fn llmperf_counts_per_minute_and_in_seconds() {
    let Some(file) = shared("samples/llmperf/anyscale_7b_summary.json") else { return };
    let sweeps = read(file);
    check(&sweeps[0].levels[0], LevelLoad::Concurrency(5.0), [78.778_8 / 60.0, 198.251, 0.225_183, 2.947_27]);
    assert_eq!(sweeps[0].levels[0].tpot.mean, None, "its time between tokens includes the first token's");
}

#[test]
fn all_samples_together_are_read_as_separate_sweeps() {
    let Some(folder) = shared("samples") else { return };
    let found = import::read(&[folder]);
    let levels: usize = found.sweeps.iter().map(|sweep| sweep.levels.len()).sum();
    assert!(levels >= 24 && found.sweeps.len() >= 12, "{levels} levels of {} sweeps", found.sweeps.len());
    assert_eq!(found.problems.len(), 1, "single requests are no level: {:?}", found.problems);
}
