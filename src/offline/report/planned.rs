//! The report of a plan: the levels with their reasons, the commands, the cost.

use serde_json::{Value, json};

use super::super::plan::{LevelPurpose, Plan, PlannedLevel};
use super::document::{Document, DocumentBlock};
use super::format::{Lang, ReportFormat};
use super::json::rounded;
use super::number::{percent, plain, time, whole};
use super::story::{ReportTable, pick};

/// The plan in a format and a language. It ends with a line break.
pub fn planned(plan: &Plan, format: ReportFormat, lang: Lang) -> String {
    if format == ReportFormat::Json {
        format!("{:#}\n", json(plan, lang))
    } else {
        document(plan, lang).write(format, lang)
    }
}

fn json(plan: &Plan, lang: Lang) -> Value {
    let level = |level: &PlannedLevel| {
        json!({
            "rate": level.rate,
            "requests": level.requests,
            "duration_s": rounded(level.duration),
            "drain_bias": rounded(level.bias),
            "why": why(plan, level, lang),
        })
    };
    json!({
        "baseline": {
            "file": plan.baseline.file,
            "gpus": plan.baseline.gpus,
            "capacity_req_s": plan.baseline.capacity,
            "at_least": plan.baseline.at_least,
            "tail_s": rounded(plan.baseline.tail),
        },
        "gpus": plan.gpus,
        "expected_capacity_req_s": {"ideal": rounded(plan.ideal), "with_efficiency": rounded(plan.with_efficiency)},
        "levels": plan.levels.iter().map(level).collect::<Vec<_>>(),
        "commands": plan.commands,
        "cost": {
            "duration_s": plan.cost.duration.round(),
            "output_tokens": plan.cost.output_tokens.map(f64::round),
            "output_tokens_include_prompts": plan.cost.prompts_included,
        },
    })
}

/// The plan in one paragraph.
fn lead(plan: &Plan, lang: Lang) -> String {
    let (gpus, base) = (plain(plan.gpus), &plan.baseline);
    let at_least = if base.at_least { pick(lang, " at least", " 이상") } else { String::new() };
    let highest = plan.levels.last().map_or(0.0, |level| level.rate);
    pick(
        lang,
        format!(
            "{} GPU served{at_least} {} req/s. On {gpus} GPUs expect up to {} req/s, {} at an efficiency of {}. Run {} levels up to {} req/s; that takes {}{}.",
            plain(base.gpus),
            plain(base.capacity),
            plain(plan.ideal),
            plain(plan.with_efficiency),
            percent(plan.efficiency),
            plan.levels.len(),
            plain(highest),
            time(plan.cost.duration),
            tokens(plan, lang)
        ),
        format!(
            "GPU {}개의 처리량은 {} req/s{at_least}였습니다. GPU {gpus}개에서는 이상적으로 {} req/s, 효율 {}일 때 {} req/s가 예상됩니다. 최대 {} req/s까지 {}개 \
             수준을 실행하며 {}이(가) 걸립니다{}.",
            plain(base.gpus),
            plain(base.capacity),
            plain(plan.ideal),
            percent(plan.efficiency),
            plain(plan.with_efficiency),
            plain(highest),
            plan.levels.len(),
            time(plan.cost.duration),
            tokens(plan, lang)
        ),
    )
}

fn document(plan: &Plan, lang: Lang) -> Document {
    let row = |level: &PlannedLevel| {
        vec![
            plain(level.rate),
            whole(level.requests),
            time(level.duration),
            percent(level.bias),
            why(plan, level, lang),
        ]
    };
    let header =
        [("req/s", "req/s"), ("requests", "요청 수"), ("time", "시간"), ("drain bias", "드레인 편향"), ("why", "이유")];
    let table = ReportTable {
        header: header.into_iter().map(|(english, korean)| pick(lang, english, korean)).collect(),
        rows: plan.levels.iter().map(row).collect(),
        standings: Vec::new(),
    };
    let figures = vec![
        (pick(lang, "ideal capacity", "이상적 처리량"), format!("{} req/s", plain(plan.ideal))),
        (pick(lang, "with efficiency", "효율 반영"), format!("{} req/s", plain(plan.with_efficiency))),
        (pick(lang, "time", "시간"), time(plan.cost.duration)),
    ];
    let blocks = vec![
        DocumentBlock::Table(table),
        DocumentBlock::Sentences(pick(lang, "How it was chosen", "선정 근거"), reasons(plan, lang)),
        DocumentBlock::Commands(pick(lang, "What to type", "실행 명령"), plan.commands.clone()),
    ];
    let gpus = plain(plan.gpus);
    let title = pick(lang, format!("The next experiment: {gpus} GPUs"), format!("다음 실험: GPU {gpus}개"));
    Document { title, lead: lead(plan, lang), figures, blocks }
}

fn tokens(plan: &Plan, lang: Lang) -> String {
    match (plan.cost.output_tokens, plan.cost.prompts_included) {
        (None, _) => String::new(),
        (Some(tokens), false) => pick(
            lang,
            format!(" and about {} output tokens", whole(tokens)),
            format!(" (출력 토큰 약 {}개)", whole(tokens)),
        ),
        (Some(tokens), true) => pick(
            lang,
            format!(" and at most {} tokens, prompts included (the baseline has only their sum)", whole(tokens)),
            format!(" (프롬프트 포함 최대 {} 토큰, 기준 파일이 구분하지 않음)", whole(tokens)),
        ),
    }
}

fn reasons(plan: &Plan, lang: Lang) -> Vec<String> {
    let worst = plan.levels.iter().map(|level| level.bias).fold(0.0, f64::max);
    let share = |rate: Option<f64>| percent(rate.unwrap_or(0.0) / plan.ideal);
    let (first, last) = (plan.levels.first().map(|level| level.rate), plan.levels.last().map(|level| level.rate));
    let mut said = vec![
        pick(
            lang,
            format!(
                "The levels cover {} to {} of the ideal capacity, so that both the base and the plateau are seen.",
                share(first),
                share(last)
            ),
            format!(
                "부하 수준은 이상적 처리량의 {}~{}를 포함하여 여유 구간과 정체 구간을 모두 보게 합니다.",
                share(first),
                share(last)
            ),
        ),
        pick(
            lang,
            format!(
                "Every level sends for {}: with a tail of {} after the last request, a whole-run reading is at most {} too low.",
                time(plan.send),
                time(plan.baseline.tail),
                percent(worst)
            ),
            format!(
                "각 수준은 {} 동안 보냅니다. 마지막 요청 뒤의 꼬리가 {}이므로 전체 구간 처리량은 최대 {}만 낮게 읽힙니다.",
                time(plan.send),
                time(plan.baseline.tail),
                percent(worst)
            ),
        ),
    ];
    if plan.baseline.tail_assumed {
        said.push(pick(
            lang,
            "The baseline does not say how many requests it sent: the tail is that of a run of 600.",
            "기준 파일에 요청 수가 없어 600건을 보낸 것으로 보고 꼬리를 계산했습니다.",
        ));
    }
    if plan.baseline.at_least {
        said.push(pick(
            lang,
            "The baseline never saturated: its capacity is a lower bound, and so is everything here. Find its knee first if you can.",
            "기준 시스템은 포화되지 않았으므로 여기의 모든 값은 하한값입니다. 가능하면 먼저 포화점을 찾으십시오.",
        ));
    }
    said
}

fn why(plan: &Plan, level: &PlannedLevel, lang: Lang) -> String {
    let share = percent(level.rate / plan.ideal);
    match level.why {
        LevelPurpose::Base => pick(
            lang,
            format!("{share} of ideal: base of TTFT and of the drain"),
            format!("이상값의 {share}: TTFT 기준값과 드레인"),
        ),
        LevelPurpose::Below => pick(
            lang,
            format!("{share} of ideal: below the expected capacity"),
            format!("이상값의 {share}: 예상 처리량 아래"),
        ),
        LevelPurpose::Knee => pick(
            lang,
            format!("{share} of ideal: between the capacity with efficiency and the ideal one"),
            format!("이상값의 {share}: 효율 반영 처리량과 이상값 사이"),
        ),
        LevelPurpose::Above => pick(
            lang,
            format!("{share} of ideal: past saturation, shows the plateau"),
            format!("이상값의 {share}: 포화 이후, 정체 구간 확인"),
        ),
    }
}
