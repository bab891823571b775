//! What is written can be read again, and says the same.

use weir::offline::sweep::{
    Environment, LatencySummary, Level, LevelLoad, Objectives, Start, SteadyWindow, Sweep, Throughput,
};
use weir::offline::{Analysis, Lang, ReportFormat, file, import, report};

use super::shared;

fn measured() -> Sweep {
    let level = |rate: f64, served: f64, ttft: f64| Level {
        load: LevelLoad::Rate(rate),
        achieved_rate: Some(rate * 0.99),
        duration: Some(120.0),
        whole: Throughput {
            requests: Some(served * 0.95),
            output_tokens: Some(150.0 * served),
            total_tokens: Some(300.0 * served),
        },
        steady: Some(SteadyWindow {
            length: 90.0,
            throughput: Throughput { requests: Some(served), ..Throughput::default() },
        }),
        ttft: LatencySummary { mean: Some(ttft), p50: Some(0.9 * ttft), p90: Some(1.4 * ttft), p99: Some(2.0 * ttft) },
        ttft_from: Start::Schedule,
        goodput: Some(0.5),
        ..Level::default()
    };
    Sweep {
        id: "a, \"b\"".to_owned(),
        environment: Environment { tool: Some("weir sweep".to_owned()), gpus: Some(2.0), ..Environment::default() },
        slo: Some(Objectives { ttft: 1.0, itl: Some(0.2) }),
        levels: vec![level(5.0, 4.96, 0.08), level(10.0, 9.9, 0.1), level(20.0, 13.1, 6.0)],
    }
}

#[test]
fn our_own_files_are_read_as_they_were_meant() {
    let analysis = Analysis::of(vec![measured()]);
    let judged = &analysis.sweeps[0];
    let text = file::json(&judged.sweep, &judged.verdict, Lang::En);
    let found = import::texts([("out/sweep.json", text.as_bytes())]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let mut again = found.sweeps[0].clone();
    again.levels.iter_mut().for_each(|level| level.origin = Default::default());
    assert_eq!(again, judged.sweep);
    let found = import::texts([("out/sweep.csv", file::csv(&judged.sweep).as_bytes())]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let table = Analysis::of(found.sweeps);
    let ends = |analysis: &Analysis| {
        (analysis.sweeps[0].verdict.kind, analysis.sweeps[0].verdict.sat_lo, analysis.sweeps[0].verdict.sat_hi)
    };
    assert_eq!(ends(&table), ends(&analysis));
    assert_eq!((ends(&table).1, ends(&table).2), (Some(10.0), Some(20.0)));
    assert_eq!(table.sweeps[0].sweep.id, "a, \"b\"");
}

#[test]
fn a_report_with_a_knee_says_what_to_set_the_engine_to() {
    let timed = |sweep: Sweep| {
        let timed = |level: Level| Level {
            e2e: LatencySummary { mean: level.ttft.mean.map(|ttft| ttft + 5.0), ..LatencySummary::default() },
            ..level
        };
        Sweep { levels: sweep.levels.into_iter().map(timed).collect(), ..sweep }
    };
    let known = Analysis::of(vec![timed(measured())]);
    let held = known.sweeps[0].verdict.knee_in_flight.unwrap().round();
    let below = Sweep { levels: measured().levels[..2].to_vec(), ..measured() };
    let below = Analysis::of(vec![timed(below)]);
    assert_eq!(below.sweeps[0].verdict.kind.word(), "right_censored");
    for (lang, word) in [(Lang::En, "bring no throughput"), (Lang::Ko, "처리량은 늘지 않습니다")] {
        for format in [ReportFormat::Text, ReportFormat::Markdown, ReportFormat::Html, ReportFormat::Json] {
            let flat = |page: String| page.split_whitespace().collect::<Vec<_>>().join(" ");
            let page = flat(report::render(&known, format, lang));
            assert!(page.contains(&format!("vLLM --max-num-seqs {held}")) && page.contains(word), "{page}");
            let page = flat(report::render(&below, format, lang));
            assert!(!page.contains("max-num-seqs"), "nothing is known: {page}");
        }
    }
}

#[test]
fn tools_that_read_vllm_find_its_keys() {
    let analysis = Analysis::of(vec![measured()]);
    let text = file::json(&analysis.sweeps[0].sweep, &analysis.sweeps[0].verdict, Lang::En);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let level = &value["levels"][1];
    for (key, wanted) in [
        ("request_rate", 10.0),
        ("request_throughput", 9.405),
        ("mean_ttft_ms", 100.0),
        ("p99_ttft_ms", 200.0),
        ("total_token_throughput", 2970.0),
    ] {
        assert!((level[key].as_f64().unwrap() / wanted - 1.0).abs() < 1e-9, "{key}: {}", level[key]);
    }
    assert_eq!((value["schema"].as_str(), value["verdict"]["kind"].as_str()), (Some("weir.sweep/1"), Some("interval")));
}

#[test]
fn every_sentence_is_korean_in_korean() {
    let Some(sweeps) = shared("sweeps/sweeps.csv") else { return };
    let analysis = Analysis::of(import::read(&[sweeps]).sweeps);
    let page = report::render(&analysis, ReportFormat::Json, Lang::Ko);
    let value: serde_json::Value = serde_json::from_str(&page).unwrap();
    let mut count = 0;
    for sweep in value["sweeps"].as_array().unwrap() {
        for said in [&sweep["evidence"], &sweep["next"], &sweep["detail"]["limits"]]
            .into_iter()
            .flat_map(|said| said.as_array().unwrap())
        {
            let said = said.as_str().unwrap();
            assert!(said.chars().any(|c| ('가'..='힣').contains(&c)), "{said}");
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
