//! The report of a comparison.

use serde_json::{Value, json};

use super::super::compare::{AtShare, ComparedSystem, Comparison, Fact, Ratio, Tested};
use super::super::fit::Fit;
use super::document::{Document, DocumentBlock};
use super::format::{Lang, ReportFormat};
use super::json::rounded;
use super::number::{factor, percent, plain, time};
use super::story::{ReportTable, pick};

/// The comparison in a format and a language. It ends with a line break.
pub fn comparison(found: &Comparison, format: ReportFormat, lang: Lang) -> String {
    if format == ReportFormat::Json {
        format!("{:#}\n", json(found, lang))
    } else {
        document(found, lang).write(format, lang)
    }
}

fn json(found: &Comparison, lang: Lang) -> Value {
    let side = |side: &ComparedSystem| {
        json!({
            "file": side.file,
            "sweep_id": side.id,
            "gpus": side.gpus,
            "max_req_s": side.capacity.middle,
            "low": rounded(side.capacity.low),
            "high": rounded(side.capacity.high),
            "kind": side.kind.word(),
        })
    };
    let tested = |tested: Tested| {
        let Ratio { value, low, high } = tested.ratio;
        json!({"ratio": rounded(value), "low": rounded(low), "high": high.map(rounded), "significant": tested.significant, "levels": tested.levels})
    };
    let fit = |fit: Fit| {
        json!({
            "law": if fit.kappa.is_some() { "usl" } else { "amdahl" },
            "sigma": rounded(fit.sigma),
            "kappa": fit.kappa,
            "rms_error": rounded(fit.error),
            "points": fit.points,
            "peak_gpus": fit.peak().map(|peak| rounded(peak * found.base.gpus)),
        })
    };
    let refused = found.refused.is_some();
    json!({
        "base": side(&found.base),
        "candidate": found.candidates.last().map(side),
        "candidates": found.candidates.iter().map(side).collect::<Vec<_>>(),
        "speedup": if refused { Value::Null } else { ratio(found.speedup) },
        "efficiency": if refused { Value::Null } else { ratio(found.efficiency) },
        "latency": found.latency.iter().map(at_share).collect::<Vec<_>>(),
        "change": found.change.map(|change| json!({"throughput": tested(change.throughput), "ttft": change.ttft.map(tested)})),
        "fit": found.fit.map(fit),
        "evidence": evidence(found, lang),
    })
}

fn ratio(ratio: Ratio) -> Value {
    json!({"value": rounded(ratio.value), "low": rounded(ratio.low), "high": ratio.high.map(rounded)})
}

fn at_share(at: &AtShare) -> Value {
    json!({
        "share_of_capacity": at.share,
        "base_ttft_s": rounded(at.base),
        "candidate_ttft_s": rounded(at.candidate),
        "ratio": rounded(at.candidate / at.base),
    })
}

fn document(found: &Comparison, lang: Lang) -> Document {
    let said = evidence(found, lang);
    let (lead, rest) = said.split_first().map_or((String::new(), &[][..]), |(lead, rest)| (lead.clone(), rest));
    let mut blocks = vec![DocumentBlock::Table(sides(found, lang))];
    if !rest.is_empty() {
        blocks.push(DocumentBlock::Sentences(pick(lang, "What this rests on", "근거"), rest.to_vec()));
    }
    if !found.latency.is_empty() {
        blocks.push(DocumentBlock::Sentences(
            pick(lang, "Time to first token at equal shares of capacity", "같은 상대 부하에서의 첫 토큰 시간"),
            found.latency.iter().map(|at| latency(at, lang)).collect(),
        ));
    }
    let title = match found.candidates.last() {
        Some(last) if last.gpus == found.base.gpus => pick(lang, "Before and after", "변경 전후 비교"),
        Some(last) => pick(
            lang,
            format!("From {} to {} GPUs", plain(found.base.gpus), plain(last.gpus)),
            format!("GPU {}개에서 {}개로", plain(found.base.gpus), plain(last.gpus)),
        ),
        None => String::new(),
    };
    let figures = if found.refused.is_some() {
        Vec::new()
    } else {
        vec![
            (pick(lang, "speed-up", "속도 향상"), format!("× {}", interval(found.speedup))),
            (pick(lang, "efficiency", "효율"), interval(found.efficiency)),
        ]
    };
    Document { title, lead, figures, blocks }
}

fn interval(ratio: Ratio) -> String {
    match ratio.high {
        Some(high) => format!("{} ({} – {})", plain(ratio.value), plain(ratio.low), plain(high)),
        None => format!("≥ {}", plain(ratio.low)),
    }
}

fn sides(found: &Comparison, lang: Lang) -> ReportTable {
    let header =
        [("", ""), ("GPUs", "GPU"), ("max req/s", "최대 req/s"), ("from", "하한"), ("to", "상한"), ("verdict", "판정")];
    let row = |name: String, side: &ComparedSystem| {
        vec![
            name,
            plain(side.gpus),
            plain(side.capacity.middle),
            plain(side.capacity.low),
            plain(side.capacity.high),
            side.kind.word().replace('_', "-"),
        ]
    };
    let mut rows = vec![row(format!("{} ({})", pick(lang, "base", "기준"), found.base.id), &found.base)];
    rows.extend(found.candidates.iter().map(|side| row(side.id.clone(), side)));
    ReportTable {
        header: header.into_iter().map(|(english, korean)| pick(lang, english, korean)).collect(),
        rows,
        standings: Vec::new(),
    }
}

/// The conclusion first.
fn evidence(found: &Comparison, lang: Lang) -> Vec<String> {
    let mut said = Vec::new();
    match (&found.refused, found.candidates.last()) {
        (Some(why), _) => said.push(format!("{}{}", pick(lang, "Refused: ", "판정 보류: "), fact(why, lang))),
        (None, Some(last)) if last.gpus == found.base.gpus => said.extend(change(found, lang)),
        (None, Some(last)) => said.push(scaling(found, last, lang)),
        (None, None) => {}
    }
    said.extend(found.fit.map(|fit| law(&fit, found.base.gpus, lang)));
    said.extend(found.facts.iter().map(|known| fact(known, lang)));
    said
}

fn scaling(found: &Comparison, last: &ComparedSystem, lang: Lang) -> String {
    let (speedup, efficiency) = (found.speedup, found.efficiency);
    let (gpus, base) = (plain(last.gpus), plain(found.base.gpus));
    match (speedup.high, efficiency.high) {
        (Some(high), Some(best)) => pick(
            lang,
            format!(
                "{gpus} GPUs serve {} times what {base} did ({} to {}): an efficiency of {} ({} to {}).",
                plain(speedup.value),
                plain(speedup.low),
                plain(high),
                percent(efficiency.value),
                percent(efficiency.low),
                percent(best)
            ),
            format!(
                "GPU {gpus}개의 처리량은 {base}개의 {}배입니다({}~{}). 확장 효율은 {}입니다({}~{}).",
                plain(speedup.value),
                plain(speedup.low),
                plain(high),
                percent(efficiency.value),
                percent(efficiency.low),
                percent(best)
            ),
        ),
        _ => pick(
            lang,
            format!(
                "{gpus} GPUs serve at least {} times what {base} did: an efficiency of at least {}.",
                plain(speedup.low),
                percent(efficiency.low)
            ),
            format!(
                "GPU {gpus}개의 처리량은 {base}개의 {}배 이상입니다. 확장 효율은 {} 이상입니다.",
                plain(speedup.low),
                percent(efficiency.low)
            ),
        ),
    }
}

fn change(found: &Comparison, lang: Lang) -> Vec<String> {
    let Some(change) = found.change else { return Vec::new() };
    let mut said = vec![tested(&change.throughput, &pick(lang, "Maximum throughput", "최대 처리량"), lang)];
    said.extend(change.ttft.map(|ttft| {
        tested(&ttft, &pick(lang, "Time to first token below saturation", "포화 이전의 첫 토큰 시간"), lang)
    }));
    said
}

fn tested(tested: &Tested, what: &str, lang: Lang) -> String {
    let Ratio { value, low, high } = tested.ratio;
    let by = percent((value - 1.0).abs());
    let ends = format!("{}–{}", plain(low), high.map_or_else(|| "∞".to_owned(), plain));
    match (tested.significant, value > 1.0) {
        (true, true) => pick(
            lang,
            format!("{what} went up by {by} (ratio {ends}): significant."),
            format!("{what}이(가) {by} 증가했습니다(비율 {ends}): 유의합니다."),
        ),
        (true, false) => pick(
            lang,
            format!("{what} went down by {by} (ratio {ends}): significant."),
            format!("{what}이(가) {by} 감소했습니다(비율 {ends}): 유의합니다."),
        ),
        (false, _) => pick(
            lang,
            format!("{what} did not change significantly (ratio {}, {ends}).", plain(value)),
            format!("{what}에는 유의한 변화가 없습니다(비율 {}, {ends}).", plain(value)),
        ),
    }
}

fn law(fit: &Fit, base: f64, lang: Lang) -> String {
    let sigma = percent(fit.sigma);
    match (fit.kappa, fit.peak()) {
        (None, _) => pick(
            lang,
            format!("Amdahl's law fits with {sigma} that does not scale (error {}).", percent(fit.error)),
            format!("암달의 법칙: 확장되지 않는 부분 {sigma} (오차 {}).", percent(fit.error)),
        ),
        (Some(kappa), Some(peak)) => pick(
            lang,
            format!(
                "The universal scalability law fits with contention {sigma} and coherency {kappa:.5} (error {}); more than {} GPUs would make it slower.",
                percent(fit.error),
                plain((peak * base).floor())
            ),
            format!(
                "보편 확장성 법칙: 경합 {sigma}, 일관성 {kappa:.5} (오차 {}). GPU {}개를 넘으면 느려집니다.",
                percent(fit.error),
                plain((peak * base).floor())
            ),
        ),
        (Some(_), None) => pick(
            lang,
            format!(
                "The universal scalability law fits with contention {sigma} and no cost of coherency (error {}).",
                percent(fit.error)
            ),
            format!("보편 확장성 법칙: 경합 {sigma}, 일관성 비용 없음 (오차 {}).", percent(fit.error)),
        ),
    }
}

fn latency(at: &AtShare, lang: Lang) -> String {
    let (share, base, candidate) = (percent(at.share), time(at.base), time(at.candidate));
    let ratio = factor(at.candidate / at.base);
    pick(
        lang,
        format!("At {share} of capacity: {base} before, {candidate} after (× {ratio})."),
        format!("처리량의 {share}에서: {base} → {candidate} (× {ratio})."),
    )
}

fn fact(fact: &Fact, lang: Lang) -> String {
    match fact {
        Fact::Noisy(file) => pick(
            lang,
            format!("{file} is too noisy for a verdict; repeat it first."),
            format!("{file}의 측정이 불안정하여 판정할 수 없습니다. 먼저 다시 측정하십시오."),
        ),
        Fact::BaseNeverSaturated(file) => pick(
            lang,
            format!(
                "{file} never saturated, so its capacity may be anything above: a speed-up would be too large by an unknown factor. Find its knee first."
            ),
            format!(
                "{file}은(는) 포화되지 않아 실제 처리량을 알 수 없습니다. 속도 향상이 과대평가되므로 먼저 포화점을 찾으십시오."
            ),
        ),
        Fact::NoThroughput(file) => pick(
            lang,
            format!("{file} has no throughput in requests per second."),
            format!("{file}에 초당 요청 처리량이 없습니다."),
        ),
        Fact::Lengths(by) => pick(
            lang,
            format!("requests differ in length by a factor of {} between the two.", plain(*by)),
            format!("두 측정의 요청 길이가 {}배 차이 납니다.", plain(*by)),
        ),
        Fact::AtLeast(file) => pick(
            lang,
            format!("{file} never saturated: its figures are lower bounds."),
            format!("{file}은(는) 포화되지 않았으므로 하한값입니다."),
        ),
        Fact::LoopsDiffer => pick(
            lang,
            "One was measured as an open loop, the other as a closed one: only their maxima are comparable.",
            "한쪽은 개루프, 다른 쪽은 폐루프로 측정되어 최대값만 비교할 수 있습니다.",
        ),
        Fact::GpusAssumed(file) => pick(
            lang,
            format!("{file} does not say how many GPUs it had; 1 is taken."),
            format!("{file}에 GPU 수가 없어 1개로 보았습니다."),
        ),
        Fact::Spread(share) => pick(
            lang,
            format!(
                "The plateau of a side spreads by ± {}: that makes most of the interval. Longer runs narrow it.",
                percent(*share)
            ),
            format!("정체 구간의 폭이 ± {}로 구간 대부분을 차지합니다. 더 오래 측정하면 좁아집니다.", percent(*share)),
        ),
    }
}
