//! The JSON of an analysis: the stable keys first, everything else below `detail`.

use serde_json::{Map, Value, json};

use super::super::analysis::Analysis;
use super::super::say::Say;
use super::super::sweep::Sweep;
use super::super::verdict::{Band, JudgedLevel, Verdict};
use super::format::Lang;
use super::language::sentence;
use crate::estimate::Advice;

/// The whole analysis.
pub fn analysis(analysis: &Analysis, lang: Lang) -> String {
    let sweeps: Vec<Value> = analysis.sweeps.iter().map(|judged| sweep(&judged.sweep, &judged.verdict, lang)).collect();
    let problem = |problem: &super::super::import::Problem| json!({"file": problem.file, "line": problem.line, "what": problem.what});
    let problems: Vec<Value> = analysis.problems.iter().map(problem).collect();
    format!("{:#}\n", json!({"sweeps": sweeps, "problems": problems}))
}

/// One sweep.
pub fn sweep(sweep: &Sweep, verdict: &Verdict, lang: Lang) -> Value {
    let say = |said: &[Say]| said.iter().map(|said| sentence(said, verdict.closed, lang)).collect::<Vec<_>>();
    let most = verdict.most;
    let mut value = Map::new();
    let mut put = |key: &str, what: Value| value.insert(key.to_owned(), what);
    put("sweep_id", json!(sweep.id));
    put("kind", json!(verdict.kind.word()));
    put("sat_lo", json!(verdict.sat_lo));
    put("sat_hi", json!(verdict.sat_hi));
    put("max_req_s", json!(most.requests));
    put("max_out_tok_s", json!(most.output_tokens));
    put("max_total_tok_s", json!(most.total_tokens));
    put("ttft_ratio", json!(verdict.jump.map(|jump| rounded(jump.ratio))));
    put("evidence", json!(say(&verdict.evidence)));
    put("advice", verdict.advice.iter().map(|advice| advised(*advice, verdict.closed, lang)).collect());
    put("next", json!(say(&verdict.next)));
    let detail = json!({
        "loop": if verdict.closed { "closed" } else { "open" },
        "load_unit": if verdict.closed { "requests in flight" } else { "req/s" },
        "plateau_req_s": verdict.plateau.map(band),
        "throughput_knee": verdict.throughput_knee.map(|(lo, hi)| json!([lo, hi])),
        "latency_knee": verdict.latency_knee.map(|(lo, hi)| json!([lo, hi])),
        "knee_in_flight": verdict.knee_in_flight.map(rounded),
        "ttft_s": verdict.jump.map(|jump| json!({"last_good": jump.good, "first_saturated": jump.bad})),
        "limits": say(&verdict.limits),
        "environment": sweep.environment,
        "slo": sweep.slo,
        "levels": verdict.levels.iter().map(level).collect::<Vec<_>>(),
    });
    put("detail", detail);
    Value::Object(value)
}

fn advised(advice: Advice, closed: bool, lang: Lang) -> Value {
    let Advice { engine, setting, value, low, high, .. } = advice;
    let said = sentence(&Say::Advice(advice), closed, lang);
    json!({"engine": engine, "setting": setting, "value": value, "low": low, "high": high, "why": said})
}

fn level(level: &JudgedLevel) -> Value {
    json!({
        "load": level.load,
        "served_req_s": level.served,
        "best_possible_req_s": level.best.map(rounded),
        "ttft_over_base": level.ttft_ratio.map(rounded),
        "goodput_req_s": level.goodput.map(rounded),
        "standing": level.standing.word(),
    })
}

fn band(band: Band) -> Value {
    json!({"low": band.low, "middle": band.middle, "high": band.high})
}

/// Four decimals.
pub fn rounded(value: f64) -> f64 {
    if value.abs() < 1e11 { (value * 1e4).round() / 1e4 } else { value }
}
