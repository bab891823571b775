//! `weir sweep` against a simulated engine over real sockets: its levels are sent in real time.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir::clock::Clock;

use crate::support::{Engine, time};

fn sweep(target: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["sweep", "--target", target]).args(flags).stdin(Stdio::null());
    command
}

fn run(target: &str, flags: &[&str]) -> Output {
    sweep(target, flags).output().unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sweep-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_sweep_leaves_its_files_and_its_verdict() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let out = folder("files");
    let target = format!("http://{}", engine.address);
    let output = run(
        &target,
        &["--rates", "60,220", "--requests", "400", "--format", "json", "--gpus", "1", "--out", out.to_str().unwrap()],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // On a machine that is too busy to send in time the levels are refused, and rightly.
    let refused = said(&output).contains("REFUSED");
    assert_eq!(output.status.code(), Some(if refused { 3 } else { 0 }), "{}", said(&output));
    assert_eq!(report["sweeps"][0]["kind"], if refused { "noisy" } else { "interval" }, "{report:#}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let kept: Value = serde_json::from_str(&read("sweep.json")).unwrap();
    assert_eq!(
        (&kept["environment"]["gpus"], &kept["levels"][1]["request_rate"]),
        (&Value::from(1.0), &Value::from(220.0))
    );
    assert_eq!(kept["environment"]["model"], Value::Null);
    assert_eq!(read("requests.jsonl").lines().count(), 800);
    assert!(read("requests.jsonl").starts_with("{\"level\":1,\"id\":0,"));
    assert_eq!(read("sweep.csv").lines().count(), 3);
    assert!(read("report.html").contains("</html>"));
    let analysed =
        Command::new(env!("CARGO_BIN_EXE_weir")).arg("analyze").arg(out.join("sweep.json")).output().unwrap();
    assert_eq!(analysed.status.code(), output.status.code(), "analyze reads what sweep wrote: {}", said(&analysed));
}

#[test]
fn one_saturated_level_is_refused() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let output = run(&format!("http://{}", engine.address), &["--rates", "400", "--requests", "300"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("weir: refused: the levels support no verdict"), "{}", said(&output));
}

#[test]
fn a_trace_is_played_at_its_own_times_and_lengths() {
    let engine = Engine::quick();
    let out = folder("trace");
    std::fs::create_dir_all(&out).unwrap();
    let trace = out.join("trace.jsonl");
    let line =
        |at: u64| format!("{{\"timestamp\": {at}, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": [1]}}\n");
    std::fs::write(&trace, (0..40).map(|n| line(n / 4 * 100)).collect::<String>()).unwrap();
    let target = format!("http://{}", engine.address);
    let output = run(&target, &["--trace", trace.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(matches!(output.status.code(), Some(0 | 3)), "one level is no sweep: {}", said(&output));
    let requests = std::fs::read_to_string(out.join("requests.jsonl")).unwrap();
    let records: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 40);
    assert!(records.iter().all(|record| record["prompt_tokens"] == 700 && record["output_usage"] == 5));
    assert_eq!((&records[3]["intended"], &records[4]["intended"]), (&Value::from(0), &Value::from(100_000_000)));
}

#[test]
fn an_interrupt_keeps_what_there_is() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let out = folder("interrupt");
    let target = format!("http://{}", engine.address);
    let flags = ["--rates", "50,60,70,80", "--requests", "150", "--out", out.to_str().unwrap()];
    let mut child = sweep(&target, &flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lines = || std::fs::read_to_string(out.join("requests.jsonl")).map_or(0, |text| text.lines().count());
    time::until("two levels are over", || lines() >= 300);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut status = None;
    assert!(time::comes_true(Duration::from_secs(10), || {
        status = child.try_wait().unwrap();
        status.is_some()
    }));
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(out.join("sweep.json")).unwrap()).unwrap();
    assert_eq!(kept["complete"], false);
    assert!((2..4).contains(&kept["levels"].as_array().unwrap().len()), "{kept:#}");
}

#[test]
fn three_processes_send_a_third_each_and_analyze_adds_them_up() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let (target, out) = (format!("http://{}", engine.address), folder("parts"));
    let path = out.to_str().unwrap();
    let flags = ["--rates", "60,90", "--duration", "2s", "--every", "6s", "--parts", "3", "--out", path];
    let children: Vec<_> = (0..3)
        .map(|index: u32| {
            sweep(&target, &flags)
                .args(["--format", "json"])
                .env("JOB_COMPLETION_INDEX", index.to_string())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    }
    let merged = folder("merged");
    let analysed = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["analyze", path, "--format", "json", "--merge-into", merged.to_str().unwrap()])
        .output()
        .unwrap();
    let read = |folder: &std::path::Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join("sweep.json")).unwrap()).unwrap()
    };
    let whole = read(&merged);
    let parts: Vec<Value> = (0..3).map(|index| read(&out.join(format!("part-{index}")))).collect();
    for (level, rate) in [(0, 60.0), (1, 90.0)] {
        let sum = |pointer: &str| {
            parts.iter().map(|part| part["levels"][level].pointer(pointer).unwrap().as_f64().unwrap()).sum::<f64>()
        };
        let all = &whole["levels"][level];
        assert_eq!(all["load"]["value"], rate, "{}", said(&analysed));
        assert_eq!(all["counts"]["offered"], sum("/counts/offered"));
        for name in ["ttft", "itl", "e2e"] {
            let count = |sheet: &Value| {
                let buckets = sheet["levels"][level]["histograms"][name]["buckets"].as_array().unwrap().clone();
                buckets.iter().map(|pair| pair[1].as_u64().unwrap()).sum::<u64>()
            };
            assert!(count(&whole) > 0);
            assert_eq!(count(&whole), parts.iter().map(count).sum::<u64>(), "{name}");
        }
    }
    let report: Value = serde_json::from_slice(&analysed.stdout).unwrap();
    assert_eq!(
        report["sweeps"].as_array().unwrap().len(),
        1,
        "the parts are one sweep, and none beside it: {report:#}"
    );
}
