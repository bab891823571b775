//! GPUs as weir reads them, from a fake of NVIDIA's library: what is shown, and everything that can be missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weir::clock::Clock;
use weir::gpu::nvml::Library;
use weir::gpu::settings::{Enabled, Settings};
use weir::gpu::track::{GpuSelection, GpuTenant};
use weir::gpu::{GpuMonitor, GpuReadings};

use crate::support::exposition::Text;
use crate::support::time::{comes_true, now, until};
use crate::support::{Client, Engine, FakeNvml, Process, Weir, chat, post};

/// In front of an address at which nobody listens: GPUs are read all the same.
fn reading(fake: &FakeNvml) -> Weir {
    Weir::with(&["127.0.0.1:9".parse().unwrap()], &fake.settings(), |_| {})
}

/// The samples of the GPU families: name and labels but the UUID, in the exposition's own form.
fn samples(weir: &Weir) -> BTreeMap<String, f64> {
    let text = Text::parse(&weir.page("/metrics")).unwrap();
    let gpus = text.samples.iter().filter(|sample| sample.name.starts_with("weir_gpu_"));
    let key = |sample: &crate::support::exposition::Sample| {
        let labels = sample.labels.iter().filter(|(name, _)| name != "uuid");
        let values: Vec<_> = labels.map(|(_, value)| value.as_str()).collect();
        format!("{} {}", &sample.name["weir_gpu_".len()..], values.join(" "))
    };
    gpus.map(|sample| (key(sample), sample.value)).collect()
}

fn gpus(weir: &Weir) -> Value {
    weir.status()["gpus"].clone()
}

/// Waits until the families show this.
fn shows(weir: &Weir, sample: &str, value: f64) {
    let mut last = BTreeMap::new();
    let seen = comes_true(Duration::from_secs(20), || {
        last = samples(weir);
        last.get(sample) == Some(&value)
    });
    assert!(seen, "{sample} {value} is not in {last:#?}");
}

#[test]
fn what_the_library_tells_is_shown_in_metrics_and_status() {
    let fake = FakeNvml::build("shown");
    fake.answer("count 2\ntemperature.1 90\npower.1 699500\nthrottling.1 4\ncorrected 7\nutilization.1 100");
    let weir = reading(&fake);
    shows(&weir, "temperature_celsius 1", 90.0);
    let shown = samples(&weir);
    for (sample, value) in [
        ("info 0 Fake GPU backend-0", 1.0),
        ("up 0", 1.0),
        ("utilization_ratio 0", 0.73),
        ("utilization_ratio 1", 1.0),
        ("memory_used_bytes 0", 60.0 * 1024.0 * 1024.0 * 1024.0),
        ("memory_total_bytes 0", 80.0 * 1024.0 * 1024.0 * 1024.0),
        ("power_watts 1", 699.5),
        ("power_limit_watts 1", 700.0),
        ("temperature_celsius 0", 66.0),
        ("clock_hertz 0 sm", 1.755e9),
        ("clock_hertz 0 memory", 2.619e9),
        ("clock_max_hertz 0 sm", 1.98e9),
        ("throttle_active 1 sw_power_cap", 1.0),
        ("throttle_active 0 sw_power_cap", 0.0),
        ("throttle_active 1 hw_thermal_slowdown", 0.0),
        ("ecc_errors_total 0 corrected", 7.0),
        ("ecc_errors_total 0 uncorrected", 0.0),
        ("xid_errors_total 0", 0.0),
        ("mig_enabled 0", 0.0),
    ] {
        assert_eq!(shown.get(sample), Some(&value), "{sample}");
    }
    assert!(!shown.contains_key("xid_last_code 0"));
    let status = gpus(&weir);
    let second = &status[1];
    assert_eq!((&second["gpu"], &second["uuid"]), (&json!("1"), &json!("GPU-00000001-0000")));
    assert_eq!((&second["backends"], &second["power_watts"]), (&json!(["backend-0"]), &json!(699.5)));
    assert_eq!(second["throttled"][0]["reason"], "sw_power_cap");
    assert_eq!(status[0]["throttled"], json!([]));
    let knee = weir.page("/knee");
    assert!(knee.contains("GPU 1 throttled (power cap) since 20") && !knee.contains("GPU 0 throttled"), "{knee}");
}

#[test]
fn time_under_throttling_adds_up_and_ends_with_it() {
    let fake = FakeNvml::build("throttled");
    fake.answer("throttling 64");
    let weir = reading(&fake);
    shows(&weir, "throttle_active 0 hw_thermal_slowdown", 1.0);
    let held = || samples(&weir)["throttle_seconds_total 0 hw_thermal_slowdown"];
    until("half a second of it", || held() > 0.5);
    fake.answer("");
    shows(&weir, "throttle_active 0 hw_thermal_slowdown", 0.0);
    let so_far = held();
    assert!(so_far > 0.5 && samples(&weir)["throttle_seconds_total 0 sw_power_cap"] == 0.0);
    fake.answer("temperature 1");
    shows(&weir, "temperature_celsius 0", 1.0);
    assert_eq!(held(), so_far);
}

#[test]
fn a_reading_that_fails_is_left_out_alone_and_comes_back() {
    let fake = FakeNvml::build("failing");
    let weir = reading(&fake);
    shows(&weir, "power_watts 0", 512.0);
    let all = samples(&weir);
    for (reading, families) in [
        ("power", &["power_watts 0"][..]),
        ("temperature", &["temperature_celsius 0"]),
        ("utilization", &["utilization_ratio 0"]),
        ("memory", &["memory_total_bytes 0", "memory_used_bytes 0"]),
        ("events", &["xid_errors_total 0"]),
        ("ecc", &["ecc_errors_total 0 corrected", "ecc_errors_total 0 uncorrected"]),
    ] {
        fake.answer(&format!("fail_{reading} 3"));
        until(reading, || !samples(&weir).contains_key(families[0]));
        let left = samples(&weir);
        let missing: Vec<_> = all.keys().filter(|key| !left.contains_key(*key)).collect();
        assert_eq!(missing, families, "{reading}");
    }
    fake.answer("");
    until("everything is back", || samples(&weir).len() == all.len());
    fake.answer("fail_throttling 999");
    until("throttling", || !samples(&weir).keys().any(|key| key.starts_with("throttle")));
    assert_eq!(gpus(&weir)[0]["throttled"], Value::Null);
}

#[test]
fn an_old_library_lacks_single_readings_and_no_more() {
    let fake = FakeNvml::old("old");
    let weir = reading(&fake);
    shows(&weir, "power_watts 0", 512.0);
    let shown = samples(&weir);
    assert!(!shown.contains_key("power_limit_watts 0") && !shown.contains_key("xid_errors_total 0"), "{shown:?}");
    assert!(shown.contains_key("temperature_celsius 0") && shown.contains_key("throttle_active 0 sync_boost"));
}

#[test]
fn a_lost_gpu_is_down_the_others_are_not_and_it_may_come_back() {
    let fake = FakeNvml::build("lost");
    fake.answer("count 2");
    let weir = reading(&fake);
    shows(&weir, "up 1", 1.0);
    fake.answer("count 2\nlost.1 15");
    shows(&weir, "up 1", 0.0);
    let shown = samples(&weir);
    let of_second: Vec<_> = shown.keys().filter(|key| key.split(' ').nth(1) == Some("1")).collect();
    assert_eq!(of_second, ["info 1 Fake GPU backend-0", "up 1", "xid_errors_total 1"]);
    assert_eq!(shown["temperature_celsius 0"], 66.0);
    assert_eq!((&gpus(&weir)[1]["up"], &gpus(&weir)[1]["temperature_celsius"]), (&json!(false), &Value::Null));
    fake.answer("count 2");
    shows(&weir, "temperature_celsius 1", 66.0);
}

#[test]
fn errors_of_the_driver_are_counted_from_the_start() {
    let fake = FakeNvml::build("xid");
    fake.answer("xids 5\nxid 31");
    let weir = reading(&fake);
    shows(&weir, "xid_errors_total 0", 0.0);
    fake.answer("xids 7\nxid 79");
    shows(&weir, "xid_errors_total 0", 2.0);
    shows(&weir, "xid_last_code 0", 79.0);
    assert_eq!(gpus(&weir)[0]["xid"]["last"]["code"], 79);
}

#[test]
fn instances_of_a_divided_gpu_have_their_own_memory() {
    let fake = FakeNvml::build("mig");
    fake.answer("count 2\nmig.1 1");
    let file = format!(
        "backends:\n  - {{name: a, url: 'http://127.0.0.1:9', gpu: ['1:0']}}\n  \
         - {{name: b, url: 'http://127.0.0.1:8', gpu: [MIG-00000001-0001, 7]}}\n{}",
        fake.settings()
    );
    let weir = Weir::of(&file);
    shows(&weir, "mig_enabled 1", 1.0);
    let shown = samples(&weir);
    assert_eq!(shown["memory_total_bytes 1:0"], 10.0 * 1024.0 * 1024.0 * 1024.0);
    assert!(shown.contains_key("info 1:0 Fake GPU MIG a") && shown.contains_key("info 1:1 Fake GPU MIG b"));
    assert!(shown.contains_key("info 0 Fake GPU "), "nobody's");
    assert!(!shown.contains_key("utilization_ratio 1") && shown.contains_key("utilization_ratio 0"));
    assert!(!shown.contains_key("temperature_celsius 1:0") && shown.contains_key("temperature_celsius 1"));
    let names: Vec<_> = gpus(&weir).as_array().unwrap().iter().map(|gpu| gpu["gpu"].clone()).collect();
    assert_eq!(names, ["0", "1", "1:0", "1:1"]);
}

#[test]
fn without_a_library_there_is_one_line_and_no_family() {
    let engine = Engine::quick();
    let missing = "gpu: {library: /nowhere/libnvidia-ml.so.1}\n".to_owned();
    let fake = FakeNvml::build("undriven");
    fake.answer("init 9");
    for settings in [missing, fake.settings()] {
        let weir = Process::serve(Path::new(env!("CARGO_BIN_EXE_weir")), &[engine.address], &settings);
        until("it is said", || weir.log().contains("no readings of GPUs"));
        let answer = Client::connect(weir.address).send(&post("/v1/chat/completions", "", chat(3).as_bytes())).answer();
        assert_eq!(answer.status, 200);
        let metrics =
            Client::connect(weir.admin).send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").answer().text();
        assert!(metrics.contains("weir_build_info") && !metrics.contains("weir_gpu_"));
        let lines = weir.log();
        let said: Vec<_> = lines.lines().filter(|line| line.contains("GPU")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("INFO"), "{said:?}");
    }
}

#[test]
fn a_library_that_hangs_stops_its_own_readings_alone() {
    let fake = FakeNvml::build("hanging");
    let engine = Engine::quick();
    let weir = Weir::with(&[engine.address], &fake.settings(), |_| {});
    shows(&weir, "up 0", 1.0);
    fake.answer("hang 1");
    // Nothing waits for it: not the data path, not the pages, not the end.
    let answer = Client::connect(weir.address).send(&post("/v1/chat/completions", "", chat(3).as_bytes())).answer();
    assert_eq!(answer.status, 200);
    shows(&weir, "up 0", 0.0);
    assert_eq!(samples(&weir).len(), 2, "its name, and that it does not answer");
    assert_eq!(gpus(&weir)[0]["uuid"], "GPU-00000000-0000");
    let began = now();
    weir.stop();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn an_answer_after_a_hang_brings_the_readings_back() {
    let fake = FakeNvml::build("resumed");
    let (clock, seat, _watch) = watch(&fake, Enabled::Auto);
    let temperature = || seat.devices(clock.now()).first().and_then(|gpu| gpu.figures.temperature);
    until("it is read", || temperature() == Some(66.0));
    let later = clock.now() + Duration::from_secs(60);
    assert!(seat.devices(later).iter().all(|gpu| !gpu.up && gpu.figures.temperature.is_none()));
    fake.answer("hang 1\ntemperature 50");
    assert!(!comes_true(Duration::from_millis(400), || temperature() == Some(50.0)), "it hangs");
    fake.answer("temperature 50");
    until("it is read again", || temperature() == Some(50.0));
}

#[test]
fn what_is_switched_off_is_not_even_opened() {
    let fake = FakeNvml::build("off");
    let (clock, settings) = (Clock::start(), Settings { enabled: Enabled::No, ..settings(&fake) });
    assert!(GpuMonitor::start(Library::of(&settings), &settings, Vec::new(), clock).unwrap().is_none());
    let weir = Weir::with(&["127.0.0.1:9".parse().unwrap()], "gpu: {enabled: false}\n", |_| {});
    assert!(samples(&weir).is_empty());
    assert_eq!(gpus(&weir), json!([]));
}

fn settings(fake: &FakeNvml) -> Settings {
    let library = Some(fake.library());
    Settings { enabled: Enabled::Auto, interval: Duration::from_millis(100), library }
}

fn watch(fake: &FakeNvml, enabled: Enabled) -> (Clock, std::sync::Arc<GpuReadings>, GpuMonitor) {
    let (clock, settings) = (Clock::start(), Settings { enabled, ..settings(fake) });
    let tenants = vec![GpuTenant { backend: "a".into(), gpus: GpuSelection::All }];
    let watch = GpuMonitor::start(Library::of(&settings), &settings, tenants, clock).unwrap().unwrap();
    (clock, watch.latest(), watch)
}
