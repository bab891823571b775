//! The reference measurement: one GPU, 10 -> 9.11 req/s, 20 -> 12.24 req/s at 79 times the TTFT, 13.68 req/s at most.

use super::{data, json, weir};

#[test]
fn the_reference_saturates_between_10_and_20() {
    let file = data("reference.csv");
    let output = weir(&["analyze", file.to_str().unwrap(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let found = json(&output);
    let sweep = &found["sweeps"][0];
    for key in [
        "sweep_id",
        "kind",
        "sat_lo",
        "sat_hi",
        "max_req_s",
        "max_out_tok_s",
        "max_total_tok_s",
        "ttft_ratio",
        "evidence",
        "next",
    ] {
        assert!(sweep.get(key).is_some(), "{key}");
    }
    assert_eq!(
        (sweep["kind"].as_str(), sweep["sat_lo"].as_f64(), sweep["sat_hi"].as_f64()),
        (Some("interval"), Some(10.0), Some(20.0))
    );
    assert_eq!((sweep["max_req_s"].as_f64(), sweep["max_total_tok_s"].as_f64()), (Some(13.68), Some(4100.0)));
    assert!((sweep["ttft_ratio"].as_f64().unwrap() - 78.8).abs() < 0.05);
    let evidence = sweep["evidence"].to_string();
    assert!(evidence.contains("9.11 of 10 req/s is the drain, not saturation"), "{evidence}");
    assert!(sweep["next"].to_string().contains("4 GPUs at 20, 40, 60, 80 req/s"), "{}", sweep["next"]);
}

#[test]
fn the_story_is_told_in_korean_too() {
    let file = data("reference.csv");
    let page = String::from_utf8(weir(&["analyze", file.to_str().unwrap(), "--lang", "ko"]).stdout).unwrap();
    for said in
        ["포화점은 초당 10건과 20건 사이", "약 13.68 req/s", "78.8배", "드레인 때문", "마트 계산대", "다음 단계"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
}

#[test]
fn four_gpus_are_planned_at_20_40_60_80() {
    let file = data("reference.csv");
    let output =
        weir(&["plan", "--baseline", file.to_str().unwrap(), "--gpus", "4", "--slo-ttft", "1s", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let plan = json(&output);
    let levels = plan["levels"].as_array().unwrap();
    let rates: Vec<f64> = levels.iter().map(|level| level["rate"].as_f64().unwrap()).collect();
    assert!([20.0, 40.0, 60.0, 80.0].iter().all(|rate| rates.contains(rate)), "{rates:?}");
    assert!(rates.iter().any(|rate| *rate >= 1.3 * 4.0 * 13.68));
    // A tail of 5.86 s, as in 600 requests at 10 req/s that read 9.11.
    for level in levels {
        let (rate, requests) = (level["rate"].as_f64().unwrap(), level["requests"].as_f64().unwrap());
        let read = requests / (requests / rate + 600.0 * (1.0 / 9.11 - 0.1));
        assert!(read > 0.98 * rate, "{level}");
        assert!(level["duration_s"].as_f64().unwrap() >= requests / rate);
    }
    assert!((plan["expected_capacity_req_s"]["ideal"].as_f64().unwrap() - 54.72).abs() < 1e-9);
    let command = plan["commands"][0].as_str().unwrap();
    assert!(
        command.starts_with("weir sweep --target ")
            && command.contains("--rates 20,40,50,60,80 --duration 310s --slo-ttft 1000ms"),
        "{command}"
    );
    let total: f64 = levels.iter().map(|level| level["requests"].as_f64().unwrap()).sum();
    assert!((plan["cost"]["output_tokens"].as_f64().unwrap() / (total * 4100.0 / 13.68) - 1.0).abs() < 1e-3);
}

#[test]
fn a_report_goes_where_it_is_told() {
    let (file, out) =
        (data("reference.csv"), std::env::temp_dir().join(format!("weir-report-{}.html", std::process::id())));
    let output = weir(&[
        "analyze",
        file.to_str().unwrap(),
        "--format",
        "html",
        "--slo-ttft",
        "1s",
        "--out",
        out.to_str().unwrap(),
    ]);
    let page = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(page.matches("<svg ").count() >= 3 && page.contains("prefers-color-scheme: dark"));
    // Self-contained: nothing is fetched.
    for asks in ["src=", "href=", "url(", "@import", "http://", "https://", "<script"] {
        assert!(!page.contains(asks), "{asks}");
    }
}
