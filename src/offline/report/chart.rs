//! The charts of a sweep: throughput against load, TTFT against load, TTFT against throughput, goodput.

use super::super::analysis::JudgedSweep;
use super::super::sweep::Level;
use super::super::verdict::{JudgedLevel, Standing, VerdictKind};
use super::format::Lang;
use super::number::{plain, time};
use super::story::pick;
use super::svg::{Plot, Scale};

/// All charts that the figures allow, each in a `<figure>`.
pub fn charts(judged: &JudgedSweep, lang: Lang) -> String {
    let drawer = Drawer::of(judged, lang);
    if drawer.points.len() < 2 {
        return String::new();
    }
    let charts = [drawer.throughput(), drawer.ttft(), drawer.hockey_stick(), drawer.goodput()];
    let figure =
        |(svg, caption): (String, String)| format!("<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>\n");
    charts.into_iter().flatten().map(figure).collect()
}

struct Drawer<'a> {
    judged: &'a JudgedSweep,
    lang: Lang,
    points: Vec<(&'a JudgedLevel, &'a Level)>,
}

type ReportChart = Option<(String, String)>;

impl<'a> Drawer<'a> {
    fn of(judged: &'a JudgedSweep, lang: Lang) -> Self {
        let levels = judged.verdict.levels.iter();
        let points = levels.filter_map(|level| Some((level, judged.sweep.levels.get(level.index)?))).collect();
        Self { judged, lang, points }
    }

    fn pick(&self, english: &str, korean: &str) -> String {
        pick(self.lang, english, korean)
    }

    fn throughput(&self) -> ReportChart {
        let served = self.values(|_, level| level.best_requests());
        if served.len() < 2 {
            return self.tokens();
        }
        let loads = served.iter().map(|point| point.0);
        let most = served.iter().map(|point| point.1).fold(0.0, f64::max);
        let y = Scale::linear([most * 1.12]);
        let mut plot = Plot::new(self.x(loads), y, &self.load_name(), &self.pick("served req/s", "처리 req/s"), false);
        self.shade_interval(&mut plot);
        if let Some(band) = self.judged.verdict.plateau {
            plot.shade_y(band.low, band.high, "area-plateau", &self.pick("plateau", "정체 구간"));
        }
        if !self.judged.verdict.closed {
            plot.diagonal("diagonal", &self.pick("served = offered", "처리 = 부하"));
        }
        plot.line(&served, "served", &self.pick("served", "처리"));
        self.dots(&mut plot, &served, |value| format!("{} req/s", plain(value)));
        if let Some(top) = served.iter().max_by(|left, right| left.1.total_cmp(&right.1)) {
            plot.note(top.0, top.1, false, &format!("{} req/s", plain(top.1)));
        }
        let caption = self.pick(
            "Throughput against load. Where the line leaves the diagonal for the plateau, more load brings nothing.",
            "부하에 따른 처리량. 선이 대각선을 벗어나 정체 구간에 들어가면 부하를 늘려도 처리량이 늘지 않습니다.",
        );
        let caption = if self.judged.verdict.closed {
            self.pick("Throughput against requests in flight.", "동시 요청 수에 따른 처리량.")
        } else {
            caption
        };
        Some((plot.finish(&caption), caption))
    }

    /// Where requests a second are unknown.
    fn tokens(&self) -> ReportChart {
        let served = self.values(|_, level| level.whole.output_tokens);
        if served.len() < 2 {
            return None;
        }
        let name = self.pick("output tokens/s", "출력 토큰/s");
        let mut plot = Plot::new(
            self.x(served.iter().map(|point| point.0)),
            Scale::linear(served.iter().map(|point| point.1)),
            &self.load_name(),
            &name,
            false,
        );
        self.shade_interval(&mut plot);
        plot.line(&served, "served", &name);
        self.dots(&mut plot, &served, |value| format!("{} tok/s", plain(value)));
        let caption = self.pick("Output tokens per second against load.", "부하에 따른 초당 출력 토큰.");
        Some((plot.finish(&caption), caption))
    }

    fn ttft(&self) -> ReportChart {
        let ttft = self.values(|_, level| first_token(level));
        if ttft.len() < 2 {
            return None;
        }
        let slo = self.judged.sweep.slo.map(|slo| slo.ttft);
        let tail = self.values(|_, level| level.ttft.p99);
        let y = Scale::logarithmic(ttft.iter().chain(&tail).map(|point| point.1).chain(slo));
        let mut plot = Plot::new(
            self.x(ttft.iter().map(|point| point.0)),
            y,
            &self.load_name(),
            &self.pick("TTFT (log)", "TTFT (로그)"),
            true,
        );
        self.shade_interval(&mut plot);
        plot.line(&tail, "tail", if tail.len() > 1 { "p99" } else { "" });
        plot.line(&ttft, "latency", "TTFT");
        if let Some(slo) = slo {
            let ends = (ttft[0].0, ttft[ttft.len() - 1].0);
            plot.line(&[(ends.0, slo), (ends.1, slo)], "slo", "SLO");
        }
        self.dots(&mut plot, &ttft, time);
        let verdict = &self.judged.verdict;
        if let (Some(jump), Some(hi)) = (verdict.jump, verdict.sat_hi) {
            plot.note(hi, jump.bad, true, &format!("× {}", super::number::factor(jump.ratio)));
        }
        let caption =
            self.pick("Time to first token against load, on a logarithmic axis.", "부하에 따른 첫 토큰 시간(로그 축).");
        Some((plot.finish(&caption), caption))
    }

    fn hockey_stick(&self) -> ReportChart {
        let of = |level: &Level| Some((level.best_requests()?, first_token(level)?));
        let points: Vec<(&JudgedLevel, (f64, f64))> =
            self.points.iter().filter_map(|(judged, level)| Some((*judged, of(level)?))).collect();
        if points.len() < 2 {
            return None;
        }
        let curve: Vec<(f64, f64)> = points.iter().map(|point| point.1).collect();
        let x = Scale::linear(curve.iter().map(|point| point.0));
        let y = Scale::logarithmic(curve.iter().map(|point| point.1));
        let mut plot =
            Plot::new(x, y, &self.pick("served req/s", "처리 req/s"), &self.pick("TTFT (log)", "TTFT (로그)"), true);
        plot.line(&curve, "latency", &self.pick("level by level", "부하 순서"));
        for (judged, (served, ttft)) in points {
            let says = format!("{}: {} req/s, {}", plain(judged.load), plain(served), time(ttft));
            plot.dot(served, ttft, dot_class(judged.standing), &says);
        }
        let caption = self.pick(
            "Time to first token against throughput: past the knee it only goes up.",
            "처리량에 따른 첫 토큰 시간. 포화점을 지나면 위로만 올라갑니다.",
        );
        Some((plot.finish(&caption), caption))
    }

    fn goodput(&self) -> ReportChart {
        let good = self.values(|judged, _| judged.goodput);
        let served = self.values(|_, level| level.best_requests());
        if good.len() < 2 || served.len() < 2 {
            return None;
        }
        let y = Scale::linear(served.iter().map(|point| point.1));
        let mut plot = Plot::new(self.x(served.iter().map(|point| point.0)), y, &self.load_name(), "req/s", false);
        self.shade_interval(&mut plot);
        plot.line(&served, "served", &self.pick("served", "처리"));
        plot.line(&good, "goodput", "goodput");
        self.dots(&mut plot, &good, |value| format!("{} req/s", plain(value)));
        let slo = self.judged.sweep.slo.map(|slo| time(slo.ttft)).unwrap_or_default();
        let caption = pick(
            self.lang,
            format!("Goodput: what is served with its first token within {slo}."),
            format!("Goodput: 첫 토큰이 {slo} 안에 온 요청의 처리량."),
        );
        Some((plot.finish(&caption), caption))
    }

    fn values(&self, of: impl Fn(&JudgedLevel, &Level) -> Option<f64>) -> Vec<(f64, f64)> {
        let known = self.points.iter().filter(|(judged, _)| judged.standing != Standing::LeftOut);
        known.filter_map(|(judged, level)| Some((judged.load, of(judged, level)?))).collect()
    }

    /// Loads that span more than a decade are drawn on a logarithmic axis in a closed loop, where they double.
    fn x(&self, loads: impl Iterator<Item = f64> + Clone) -> Scale {
        let (low, high) =
            loads.clone().fold((f64::INFINITY, 0.0_f64), |(low, high), load| (low.min(load), high.max(load)));
        if self.judged.verdict.closed && high > WIDE * low { Scale::logarithmic(loads) } else { Scale::linear(loads) }
    }

    fn load_name(&self) -> String {
        if self.judged.verdict.closed {
            self.pick("requests in flight", "동시 요청 수")
        } else {
            self.pick("offered req/s", "부하 req/s")
        }
    }

    fn shade_interval(&self, plot: &mut Plot) {
        let verdict = &self.judged.verdict;
        if let (VerdictKind::Interval, Some(lo), Some(hi)) = (verdict.kind, verdict.sat_lo, verdict.sat_hi) {
            plot.shade_x(lo, hi, "area-interval", &self.pick("saturation", "포화 구간"));
        }
    }

    fn dots(&self, plot: &mut Plot, values: &[(f64, f64)], say: impl Fn(f64) -> String) {
        for (load, value) in values {
            let standing = self
                .points
                .iter()
                .find(|(judged, _)| judged.load == *load)
                .map_or(Standing::Good, |(judged, _)| judged.standing);
            plot.dot(*load, *value, dot_class(standing), &format!("{}: {}", plain(*load), say(*value)));
        }
    }
}

fn first_token(level: &Level) -> Option<f64> {
    level.ttft.mean.or(level.ttft.p50).or(level.e2e.mean).or(level.e2e.p50).filter(|ttft| *ttft > 0.0)
}

const fn dot_class(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "dot-good",
        Standing::AtCapacity => "dot-edge",
        Standing::Saturated => "dot-bad",
        Standing::LeftOut => "dot-out",
    }
}

/// Loads that span more than this are drawn on a logarithmic axis.
const WIDE: f64 = 8.0;
