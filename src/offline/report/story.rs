//! The report of one sweep before it has a layout, in its order: conclusion, throughput, latency, goodput, an explanation in
//! plain words, what the measurement cannot say, what to run next.

use super::super::analysis::JudgedSweep;
use super::super::say::Say;
use super::super::sweep::Sweep;
use super::super::verdict::{Figure, JudgedLevel, Standing, Verdict, VerdictKind};
use super::format::Lang;
use super::language::sentence;
use super::number::{factor, plain, time, whole};
use crate::estimate::Advice;

/// A sweep's report before it has a layout.
#[derive(Clone, Debug)]
pub struct Story {
    /// The sweep's name.
    pub title: String,
    /// What was measured, in one line.
    pub subject: String,
    /// The conclusion, first sentence to last.
    pub conclusion: Vec<String>,
    /// The key figures: a name and a value.
    pub figures: Vec<(String, String)>,
    /// All levels.
    pub table: ReportTable,
    /// Parts with a heading each; none is empty.
    pub parts: Vec<ReportPart>,
}

/// Rows under a header.
#[derive(Clone, Debug, Default)]
pub struct ReportTable {
    /// Names of the columns.
    pub header: Vec<String>,
    /// One level a row.
    pub rows: Vec<Vec<String>>,
    /// How each row's level stands.
    pub standings: Vec<Standing>,
}

/// A part of the report.
#[derive(Clone, Debug)]
pub struct ReportPart {
    /// What it is about.
    pub topic: Topic,
    /// Its heading.
    pub heading: String,
    /// Its sentences.
    pub sentences: Vec<String>,
}

/// What a part is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// What is served.
    Throughput,
    /// How long requests wait.
    Latency,
    /// What is served in time.
    Goodput,
    /// An explanation in plain words.
    Picture,
    /// What the measurement cannot say.
    Limits,
    /// What to set the engine's own limits to.
    Advice,
    /// What to run next.
    Next,
}

/// The report of a judged sweep.
pub fn story(judged: &JudgedSweep, lang: Lang) -> Story {
    let (sweep, verdict) = (&judged.sweep, &judged.verdict);
    let writer = StoryWriter { sweep, verdict, lang };
    let parts =
        [Topic::Throughput, Topic::Latency, Topic::Goodput, Topic::Picture, Topic::Limits, Topic::Advice, Topic::Next];
    Story {
        title: sweep.id.clone(),
        subject: writer.subject(),
        conclusion: writer.conclusion(),
        figures: writer.figures(),
        table: writer.table(),
        parts: parts.into_iter().filter_map(|topic| writer.part(topic)).collect(),
    }
}

/// One of two texts.
pub fn pick(lang: Lang, english: impl Into<String>, korean: impl Into<String>) -> String {
    match lang {
        Lang::En => english.into(),
        Lang::Ko => korean.into(),
    }
}

/// The word for how a level stands.
pub fn standing(standing: Standing, lang: Lang) -> String {
    match standing {
        Standing::Good => pick(lang, "keeps up", "여유"),
        Standing::AtCapacity => pick(lang, "at capacity", "한계 도달"),
        Standing::Saturated => pick(lang, "saturated", "포화"),
        Standing::LeftOut => pick(lang, "left out", "제외"),
    }
}

struct StoryWriter<'a> {
    sweep: &'a Sweep,
    verdict: &'a Verdict,
    lang: Lang,
}

impl StoryWriter<'_> {
    fn pick(&self, english: impl Into<String>, korean: impl Into<String>) -> String {
        pick(self.lang, english, korean)
    }

    /// A load with its unit.
    fn load(&self, load: f64) -> String {
        let load = plain(load);
        if self.verdict.closed {
            self.pick(format!("{load} requests in flight"), format!("동시 요청 {load}개"))
        } else {
            format!("{load} req/s")
        }
    }

    fn between(&self, lo: f64, hi: f64) -> String {
        let (lo, hi) = (plain(lo), plain(hi));
        if self.verdict.closed {
            self.pick(format!("{lo} and {hi} requests in flight"), format!("동시 요청 {lo}개와 {hi}개"))
        } else {
            self.pick(format!("{lo} and {hi} req/s"), format!("초당 {lo}건과 {hi}건"))
        }
    }

    fn system(&self) -> String {
        match self.sweep.environment.gpus {
            Some(gpus) => {
                self.pick(format!("This {}-GPU system", plain(gpus)), format!("이 {}-GPU 시스템", plain(gpus)))
            }
            None => self.pick("This system", "이 시스템"),
        }
    }

    fn subject(&self) -> String {
        let environment = &self.sweep.environment;
        let gpus = environment.gpus.map(|gpus| format!("{} GPU", plain(gpus)));
        let levels = self.pick(
            format!("{} levels", self.verdict.levels.len()),
            format!("{}개 부하 수준", self.verdict.levels.len()),
        );
        let kind = if self.verdict.closed {
            self.pick("closed loop", "폐루프")
        } else {
            self.pick("open loop", "개루프")
        };
        let named = [&environment.engine, &environment.model, &environment.gpu, &gpus, &environment.tool];
        let mut words: Vec<String> = named.into_iter().flatten().filter(|word| !word.is_empty()).cloned().collect();
        words.extend([kind, levels]);
        words.join(" · ")
    }

    fn conclusion(&self) -> Vec<String> {
        let (verdict, system) = (self.verdict, self.system());
        let mut said = match (verdict.kind, verdict.sat_lo, verdict.sat_hi) {
            (VerdictKind::Interval, Some(lo), Some(hi)) => vec![self.pick(
                format!("{system} saturates between {}.", self.between(lo, hi)),
                format!("{system}의 포화점은 {} 사이에 있습니다.", self.between(lo, hi)),
            )],
            (VerdictKind::LeftCensored, _, Some(hi)) => vec![self.pick(
                format!("{system} is saturated at every level that was run: it saturates below {}.", self.load(hi)),
                format!(
                    "{system}은(는) 측정한 모든 부하에서 이미 포화 상태입니다. 포화점은 {} 아래에 있습니다.",
                    self.load(hi)
                ),
            )],
            (VerdictKind::RightCensored, Some(lo), _) => vec![self.pick(
                format!("{system} was never saturated: it keeps up with {}, and its limit lies above.", self.load(lo)),
                format!(
                    "{system}은(는) 한 번도 포화되지 않았습니다. {}까지 감당하며 한계는 그 위에 있습니다.",
                    self.load(lo)
                ),
            )],
            _ => vec![self.pick(
                "No verdict: these measurements do not support one.",
                "판정 보류: 이 측정 결과로는 결론을 내릴 수 없습니다.",
            )],
        };
        said.extend(self.capacity());
        if let (Some(jump), false) = (verdict.jump.filter(|jump| jump.ratio > SEEN_JUMP), verdict.closed) {
            said.push(self.pick(
                format!(
                    "More load only makes callers wait: the time to first token is {} times as long.",
                    factor(jump.ratio)
                ),
                format!("그 이상의 부하는 대기만 늘립니다. 첫 토큰까지의 시간이 {}배가 됩니다.", factor(jump.ratio)),
            ));
        }
        if verdict.kind == VerdictKind::Noisy {
            said.extend(verdict.evidence.first().map(|why| sentence(why, verdict.closed, self.lang)));
        }
        said
    }

    /// The largest throughput, where the verdict knows what it is.
    fn capacity(&self) -> Option<String> {
        let most = plain(self.verdict.most.requests?);
        match (self.verdict.kind, self.verdict.plateau) {
            (VerdictKind::RightCensored, _) => Some(self.pick(
                format!("The largest throughput seen, {most} req/s, is a lower bound."),
                format!("관측된 최대 처리량 {most} req/s는 하한값입니다."),
            )),
            (VerdictKind::Interval | VerdictKind::LeftCensored, Some(band)) => Some(self.pick(
                format!(
                    "The most it serves is about {most} req/s (plateau {} to {}).",
                    plain(band.low),
                    plain(band.high)
                ),
                format!(
                    "최대 처리량은 약 {most} req/s입니다(정체 구간 {}~{} req/s).",
                    plain(band.low),
                    plain(band.high)
                ),
            )),
            _ => None,
        }
    }

    fn figures(&self) -> Vec<(String, String)> {
        let verdict = self.verdict;
        let mut figures = Vec::new();
        let mut put = |name: String, value: Option<String>| figures.extend(value.map(|value| (name, value)));
        let ends = match (verdict.sat_lo, verdict.sat_hi) {
            (Some(lo), Some(hi)) => Some(format!("{} – {}", plain(lo), plain(hi))),
            (Some(lo), None) => Some(format!("> {}", plain(lo))),
            (None, Some(hi)) => Some(format!("< {}", plain(hi))),
            (None, None) => None,
        };
        let unit = if verdict.closed { self.pick("in flight", "동시 요청") } else { "req/s".to_owned() };
        let saturates = match verdict.kind {
            VerdictKind::Noisy => self.pick("where to look", "살펴볼 구간"),
            _ => self.pick("saturation", "포화 구간"),
        };
        put(saturates, ends.map(|ends| format!("{ends} {unit}")));
        let bound = if verdict.kind == VerdictKind::RightCensored { "≥ " } else { "" };
        put(
            self.pick("maximum throughput", "최대 처리량"),
            verdict.most.requests.map(|most| format!("{bound}{} req/s", plain(most))),
        );
        let tokens = verdict.most.total_tokens.map(|tokens| (self.pick("total tokens", "총 토큰"), tokens));
        let tokens = tokens
            .or_else(|| verdict.most.output_tokens.map(|tokens| (self.pick("output tokens", "출력 토큰"), tokens)));
        if let Some((name, tokens)) = tokens {
            put(name, Some(format!("{bound}{} tok/s", whole(tokens))));
        }
        put("TTFT".to_owned(), verdict.jump.map(|jump| format!("× {}", factor(jump.ratio))));
        let held = verdict.knee_in_flight.filter(|_| !verdict.closed).map(|held| plain(held.round()));
        put(self.pick("served at once at the knee", "포화점에서 동시 처리"), held);
        figures
    }

    fn table(&self) -> ReportTable {
        let load = if self.verdict.closed {
            self.pick("in flight", "동시 요청")
        } else {
            self.pick("offered req/s", "부하 req/s")
        };
        let ttft = match self.verdict.jump.map(|jump| jump.figure) {
            Some(Figure::Median) => self.pick("TTFT median", "TTFT 중앙값"),
            _ => "TTFT".to_owned(),
        };
        let mut header =
            vec![load, self.pick("served req/s", "처리 req/s"), self.pick("tok/s", "tok/s"), ttft, "E2E".to_owned()];
        let goodput = self.verdict.levels.iter().any(|level| level.goodput.is_some());
        if goodput {
            header.push(self.pick("goodput req/s", "goodput req/s"));
        }
        header.push(self.pick("judged", "판정"));
        let rows = self.verdict.levels.iter().map(|judged| self.row(judged, goodput)).collect();
        ReportTable { header, rows, standings: self.verdict.levels.iter().map(|judged| judged.standing).collect() }
    }

    fn row(&self, judged: &JudgedLevel, goodput: bool) -> Vec<String> {
        let level = self.sweep.levels.get(judged.index);
        let dash = || "—".to_owned();
        let tokens = level.and_then(|level| level.whole.total_tokens.or(level.whole.output_tokens));
        let ttft = level.and_then(|level| level.ttft.mean.or(level.ttft.p50));
        let e2e = level.and_then(|level| level.e2e.mean.or(level.e2e.p50));
        let mut row = vec![
            plain(judged.load),
            level.and_then(|level| level.best_requests()).map_or_else(dash, plain),
            tokens.map_or_else(dash, whole),
            ttft.map_or_else(dash, time),
            e2e.map_or_else(dash, time),
        ];
        if goodput {
            row.push(judged.goodput.map_or_else(dash, plain));
        }
        row.push(standing(judged.standing, self.lang));
        row
    }

    fn part(&self, topic: Topic) -> Option<ReportPart> {
        let verdict = self.verdict;
        let about = |wanted: Topic| {
            let fits = verdict.evidence.iter().filter(|said| topic_of(said) == wanted);
            fits.map(|said| sentence(said, verdict.closed, self.lang)).collect::<Vec<_>>()
        };
        let all = |said: &[Say]| said.iter().map(|said| sentence(said, verdict.closed, self.lang)).collect::<Vec<_>>();
        let (heading, sentences) = match topic {
            Topic::Throughput => (self.pick("Throughput: the plateau", "처리량의 한계"), self.throughput(about(topic))),
            Topic::Latency => (self.pick("Latency: the steep rise", "응답 시간의 폭증"), about(topic)),
            Topic::Goodput => (self.pick("Goodput: what is served in time", "제때 처리된 양(goodput)"), about(topic)),
            Topic::Picture => (self.pick("In plain words", "쉽게 말하면"), self.picture()),
            Topic::Limits => (self.pick("What this measurement cannot show", "이 측정의 한계"), all(&verdict.limits)),
            Topic::Advice => (self.pick("Limits for the engine", "엔진 한도 설정"), self.advice()),
            Topic::Next => (self.pick("What to run next", "다음 단계"), all(&verdict.next)),
        };
        (!sentences.is_empty()).then_some(ReportPart { topic, heading, sentences })
    }

    fn advice(&self) -> Vec<String> {
        let say = |advice: &Advice| sentence(&Say::Advice(*advice), self.verdict.closed, self.lang);
        self.verdict.advice.iter().map(say).collect()
    }

    fn throughput(&self, mut sentences: Vec<String>) -> Vec<String> {
        let most = self.verdict.most;
        if self.verdict.plateau.is_some() && (most.total_tokens.is_some() || most.output_tokens.is_some()) {
            let tokens = Say::Tokens { total: most.total_tokens, output: most.output_tokens };
            sentences.push(sentence(&tokens, self.verdict.closed, self.lang));
        }
        sentences
    }

    /// The till of a supermarket: what a queue is, for readers without the theory.
    fn picture(&self) -> Vec<String> {
        let verdict = self.verdict;
        let (VerdictKind::Interval, Some(lo), Some(hi), Some(band), false) =
            (verdict.kind, verdict.sat_lo, verdict.sat_hi, verdict.plateau, verdict.closed)
        else {
            return Vec::new();
        };
        let highest = verdict.levels.iter().map(|level| level.load).fold(hi, f64::max);
        let served = if band.spread() < SAME {
            plain(band.middle)
        } else {
            self.pick(
                format!("{} to {}", plain(band.low), plain(band.high)),
                format!("{}~{}", plain(band.low), plain(band.high)),
            )
        };
        let mut said = vec![
            self.pick(
                format!(
                    "Think of a supermarket till. With {} customers a second the cashier serves each as they come.",
                    plain(lo)
                ),
                format!(
                    "마트 계산대를 떠올려 보십시오. 손님이 초당 {}명씩 오면 계산원은 오는 대로 처리합니다.",
                    plain(lo)
                ),
            ),
            self.pick(
                format!(
                    "With {} a second the cashier still manages {served}, and the line grows by the rest every second.",
                    plain(hi)
                ),
                format!("초당 {}명씩 오면 계산원은 {served}명만 처리하고, 나머지는 매초 줄을 섭니다.", plain(hi)),
            ),
        ];
        if highest > hi {
            said.push(self.pick(
                format!("With {} a second the till is no faster; only the line is longer.", plain(highest)),
                format!("초당 {}명이 몰려와도 계산 속도는 그대로이고, 줄만 더 길어집니다.", plain(highest)),
            ));
        }
        said
    }
}

/// Which part of the report a piece of evidence belongs to.
const fn topic_of(said: &Say) -> Topic {
    match said {
        Say::Jump { .. }
        | Say::Queue { .. }
        | Say::AtCapacity { .. }
        | Say::Held { .. }
        | Say::LatencyPays { .. }
        | Say::TwoKnees { .. } => Topic::Latency,
        Say::Goodput { .. } | Say::NoGoodput { .. } => Topic::Goodput,
        _ => Topic::Throughput,
    }
}

/// A TTFT that is this many times as long is in the conclusion.
const SEEN_JUMP: f64 = 1.5;

/// A plateau this narrow is one number.
const SAME: f64 = 0.01;
