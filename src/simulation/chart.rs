//! The chart of one simulation run.
//!
//! One SVG file with three panels above each other over the same seconds: rates with the knee, its interval and the truth; the state;
//! requests in flight. It holds no script and no font.

use std::time::Duration;

use super::outcome::{Observation, SimulationOutcome};
use super::scenario::{Scenario, Subject};
use super::truth::{Flow, Truth};
use crate::estimate::{Estimate, Knee, SaturationState};
use crate::svg::{Anchor, Canvas, Paint, path_through, round_ticks};
use crate::vocabulary::time::Timestamp;

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct SimulationChart<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// Its engine.
    pub subject: &'a Subject,
    /// Its seed.
    pub seed: u64,
    /// The outcome.
    pub outcome: &'a SimulationOutcome,
    /// The truth of each segment.
    pub truths: &'a [Truth],
}

impl SimulationChart<'_> {
    /// The drawing.
    pub fn svg(&self) -> String {
        let seconds = self.outcome.moments.last().map_or(1.0, |last| second(last.at));
        let mut canvas = Canvas::default();
        canvas.background("#ffffff");
        self.title(&mut canvas);
        self.rates(&mut canvas, seconds);
        self.states(&mut canvas, seconds);
        self.in_flight(&mut canvas, seconds);
        let mut svg = canvas.finish(&format!(
            "xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\""
        ));
        svg.push('\n');
        svg
    }

    fn title(&self, canvas: &mut Canvas) {
        let title = format!("{}: {}, seed {}", self.scenario.name, self.subject.name, self.seed);
        canvas.text((LEFT, 24.0), Anchor::Start, font(17, INK), &title);
        canvas.text((LEFT, 44.0), Anchor::Start, font(12, FAINT), &self.scenario.about);
    }

    fn rates(&self, canvas: &mut Canvas, seconds: f64) {
        let bin = self.bin();
        let offered = self.rate(bin, |moment| moment.offered);
        let admitted = self.rate(bin, |moment| moment.admitted);
        let completed = self.rate(bin, |moment| moment.completed);
        let capacity = self.truths.iter().map(|truth| truth.best.requests_per_second).fold(0.0, f64::max);
        let highest = offered.iter().map(|point| point.1).fold(0.0, f64::max);
        // A burst would flatten everything else: what is above three times the capacity is cut off.
        let plot = ChartPanel {
            top: 66.0,
            height: 250.0,
            seconds,
            most: (1.1 * highest).clamp(1.25 * capacity, 3.0 * capacity),
        };
        plot.frame(canvas, "requests per second", highest);
        self.band(canvas, &plot, |knee| knee.requests_per_second);
        // Where every request is admitted the two lie upon each other: the broad pale line and the dashes both stay visible.
        plot.line(canvas, &offered, OFFERED, 3.0, "");
        plot.line(canvas, &admitted, ADMITTED, 1.2, "5 4");
        plot.line(canvas, &completed, COMPLETED, 1.8, "");
        plot.line(canvas, &self.predictions(), PREDICTED, 1.6, "2 3");
        self.known(canvas, &plot, |knee| knee.requests_per_second.value);
        self.truth(canvas, &plot, |flow| flow.requests_per_second);
        self.alarms(canvas, &plot);
        let entries = [
            ("offered", OFFERED, ""),
            ("admitted", ADMITTED, "5 4"),
            ("completed", COMPLETED, ""),
            ("knee, 95 % band", KNEE, ""),
            ("truth", TRUTH, "7 4"),
            ("predicted", PREDICTED, "2 3"),
            ("alarm", ALARM, "1 3"),
        ];
        legend(canvas, plot.top + 12.0, &entries);
    }

    fn states(&self, canvas: &mut Canvas, seconds: f64) {
        let plot = ChartPanel { top: 352.0, height: 22.0, seconds, most: 1.0 };
        canvas.text((LEFT - 8.0, plot.top + 15.0), Anchor::End, font(12, INK), "state");
        let mut began = (0.0, SaturationState::Unknown);
        let changes = self.outcome.transitions.iter().map(|change| (second(change.at), change.to));
        for (at, state) in changes.chain([(seconds, SaturationState::Unknown)]) {
            let (left, width) = (plot.x(began.0), plot.x(at) - plot.x(began.0));
            canvas.rectangle((left, plot.top), (width, plot.height), fill(colour_of(began.1), 1.0));
            began = (at, state);
        }
        for (number, state) in SaturationState::ALL.into_iter().enumerate() {
            let (x, y) = (RIGHT + 14.0, plot.top - 20.0 + 15.0 * number as f64);
            canvas.rectangle((x, y - 8.0), (18.0, 9.0), fill(colour_of(state), 1.0));
            canvas.text((x + 26.0, y), Anchor::Start, font(12, INK), state.word());
        }
    }

    fn in_flight(&self, canvas: &mut Canvas, seconds: f64) {
        let of = |count: fn(&Observation) -> u64| -> Vec<(f64, f64)> {
            self.outcome.moments.iter().map(|moment| (second(moment.at), count(moment) as f64)).collect()
        };
        let decoding = of(|moment| moment.reading.in_flight.saturating_sub(moment.reading.pending));
        let pending = of(|moment| moment.reading.pending);
        let decodes = self.truths.iter().map(|truth| truth.best.decodes).fold(0.0, f64::max);
        let highest = decoding.iter().chain(&pending).map(|point| point.1).fold(0.0, f64::max);
        let plot = ChartPanel {
            top: 410.0,
            height: 170.0,
            seconds,
            most: (1.1 * highest).clamp(1.3 * decodes, 3.0 * decodes),
        };
        plot.frame(canvas, "requests in flight", highest);
        self.band(canvas, &plot, |knee| knee.in_flight);
        plot.line(canvas, &pending, PENDING, 1.5, "");
        plot.line(canvas, &decoding, COMPLETED, 1.8, "");
        self.known(canvas, &plot, |knee| knee.in_flight.value);
        self.truth(canvas, &plot, |flow| flow.decodes);
        let below = (f64::midpoint(LEFT, RIGHT), plot.top + plot.height + 40.0);
        canvas.text(below, Anchor::Middle, font(12, INK), "seconds");
        let entries =
            [("pending", PENDING, ""), ("decoding", COMPLETED, ""), ("knee", KNEE, ""), ("truth", TRUTH, "7 4")];
        legend(canvas, plot.top + 12.0, &entries);
    }

    /// Seconds that a rate is taken over: enough for some twenty requests at the capacity.
    fn bin(&self) -> usize {
        let slowest = self.truths.iter().map(|truth| truth.best.requests_per_second).fold(f64::INFINITY, f64::min);
        (20.0 / slowest).ceil().clamp(1.0, 30.0) as usize
    }

    fn rate(&self, bin: usize, count: fn(&Observation) -> u64) -> Vec<(f64, f64)> {
        let mut before = (0.0, 0);
        let mut points = Vec::new();
        for moment in self.outcome.moments.iter().skip(bin - 1).step_by(bin) {
            let (at, now) = (second(moment.at), count(moment));
            points.push((f64::midpoint(before.0, at), (now - before.1) as f64 / (at - before.0)));
            before = (at, now);
        }
        points
    }

    fn knees(&self) -> impl Iterator<Item = (f64, Option<&Knee>)> {
        self.outcome.moments.iter().map(|moment| (second(moment.at), moment.reading.knee.as_ref().ok()))
    }

    /// The knee's line, broken where it is not known.
    fn known(&self, canvas: &mut Canvas, plot: &ChartPanel, of: fn(&Knee) -> f64) {
        let points: Vec<(f64, f64)> = self.knees().map(|(at, knee)| (at, knee.map_or(f64::NAN, of))).collect();
        plot.line(canvas, &points, KNEE, 2.0, "");
    }

    fn band(&self, canvas: &mut Canvas, plot: &ChartPanel, of: fn(&Knee) -> Estimate) {
        let points: Vec<(f64, Option<Estimate>)> = self.knees().map(|(at, knee)| (at, knee.map(of))).collect();
        for part in points.split(|point| point.1.is_none()).filter(|part| part.len() > 1) {
            let edge = |end: fn(Estimate) -> f64| part.iter().filter_map(move |(at, e)| Some((*at, end((*e)?))));
            let upper: Vec<(f64, f64)> = edge(|estimate| estimate.high).collect();
            let lower: Vec<(f64, f64)> = edge(|estimate| estimate.low).collect();
            let around = upper.into_iter().chain(lower.into_iter().rev());
            canvas.polygon(around.map(|(at, value)| (plot.x(at), plot.y(value))), fill(KNEE, 0.22));
        }
    }

    /// A step for each segment: the rate of an ungated engine.
    fn truth(&self, canvas: &mut Canvas, plot: &ChartPanel, of: fn(&Flow) -> f64) {
        let mut points = Vec::new();
        for (number, truth) in self.truths.iter().enumerate() {
            let from = self.scenario.begins(number);
            let to = self.scenario.begins(number + 1).max(from);
            points.push((from.as_secs_f64(), of(&truth.ungated)));
            points.push((if to > from { to.as_secs_f64() } else { plot.seconds }, of(&truth.ungated)));
        }
        plot.line(canvas, &points, TRUTH, 1.6, "7 4");
    }

    fn predictions(&self) -> Vec<(f64, f64)> {
        let value =
            |moment: &Observation| moment.reading.prediction.as_ref().map_or(f64::NAN, |p| p.requests_per_second.value);
        self.outcome.moments.iter().map(|moment| (second(moment.at), value(moment))).collect()
    }

    fn alarms(&self, canvas: &mut Canvas, plot: &ChartPanel) {
        for at in self.outcome.alarms(Duration::ZERO, Duration::MAX) {
            let x = plot.x(at.as_secs_f64());
            let commands = format!("M{x:.1} {:.1}V{:.1}", plot.top, plot.top + plot.height);
            canvas.path(&commands, stroke(ALARM, 1.2, "1 3"));
            let label = format!("{:.1} s", at.as_secs_f64());
            canvas.text((x, plot.top - 4.0), Anchor::Middle, font(10, ALARM), &label);
        }
    }
}

/// A panel with its own scale: seconds to the right, something from 0 to `most` upwards.
struct ChartPanel {
    top: f64,
    height: f64,
    seconds: f64,
    most: f64,
}

impl ChartPanel {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * seconds / self.seconds
    }

    /// What lies above the scale is drawn at its edge.
    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }

    /// Axes and their numbers, and a note when something above `most` is cut off.
    fn frame(&self, canvas: &mut Canvas, label: &str, highest: f64) {
        let point = format!("{:.1} {:.1}", LEFT - 46.0, self.top + self.height / 2.0);
        canvas.vertical_text(&point, font(12, INK), label);
        if highest > self.most {
            let note = format!("cut off here; highest {highest:.0}");
            canvas.text((RIGHT, self.top - 4.0), Anchor::End, font(10, FAINT), &note);
        }
        for value in round_ticks(self.most, 5.0) {
            let y = self.y(value);
            canvas.path(&format!("M{LEFT} {y:.1}H{RIGHT}"), stroke(GRID, 1.0, ""));
            canvas.text((LEFT - 8.0, y + 4.0), Anchor::End, font(11, FAINT), &format!("{value}"));
        }
        let bottom = self.top + self.height;
        for value in round_ticks(self.seconds, 8.0) {
            let x = self.x(value);
            canvas.path(&format!("M{x:.1} {bottom:.1}v5"), stroke(INK, 1.0, ""));
            canvas.text((x, bottom + 18.0), Anchor::Middle, font(11, FAINT), &format!("{value}"));
        }
        canvas.path(&format!("M{LEFT} {:.1}V{bottom:.1}H{RIGHT}", self.top), stroke(INK, 1.0, ""));
    }

    /// A line through the points; a value that is not a number breaks it.
    fn line(&self, canvas: &mut Canvas, points: &[(f64, f64)], colour: &str, width: f64, dashes: &str) {
        let known = |(at, value): &(f64, f64)| value.is_finite().then(|| (self.x(*at), self.y(*value)));
        let path = path_through(points.iter().map(known));
        if !path.is_empty() {
            canvas.path(&path, stroke(colour, width, dashes));
        }
    }
}

fn legend(canvas: &mut Canvas, top: f64, entries: &[(&str, &str, &str)]) {
    for (number, (name, colour, dashes)) in entries.iter().enumerate() {
        let y = top + 17.0 * number as f64;
        let x = RIGHT + 14.0;
        canvas.path(&format!("M{x:.1} {:.1}h20", y - 4.0), stroke(colour, 2.2, dashes));
        canvas.text((x + 26.0, y), Anchor::Start, font(12, INK), name);
    }
}

fn second(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).as_secs_f64()
}

fn stroke<'a>(colour: &'a str, width: f64, dashes: &'a str) -> Paint<'a> {
    Paint::Stroke { colour, width, dashes }
}

fn fill(colour: &str, opacity: f64) -> Paint<'_> {
    Paint::Fill { colour, opacity }
}

fn font(size: u32, colour: &str) -> Paint<'_> {
    Paint::Font { size, colour }
}

fn colour_of(state: SaturationState) -> &'static str {
    match state {
        SaturationState::Unknown => "#d5d8dc",
        SaturationState::Healthy => "#a9d8a5",
        SaturationState::Approaching => "#f7dc6f",
        SaturationState::Saturated => "#e06c5c",
        SaturationState::Recovering => "#8fbbe8",
    }
}

const WIDTH: f64 = 1020.0;
const HEIGHT: f64 = 634.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 850.0;

const INK: &str = "#222222";
const FAINT: &str = "#5f6670";
const GRID: &str = "#eceff1";
const OFFERED: &str = "#c9d0d6";
const ADMITTED: &str = "#4d5761";
const COMPLETED: &str = "#1f6fc4";
const PENDING: &str = "#b03a8c";
const KNEE: &str = "#e67e22";
const TRUTH: &str = "#1e8449";
const PREDICTED: &str = "#7d3cb5";
const ALARM: &str = "#c0392b";

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::simulation::{Truths, perform};

    fn drawn() -> String {
        let text = "about = \"more & more < most\"\nengines = [\"slots16\"]\nseeds = [1]\n\
            [[segment]]\nseconds = 20\nload = 0.3\n[[segment]]\nseconds = 40\nload = 2.0\n";
        let scenario = Scenario::parse("step", text).unwrap();
        let subject = &scenario.engines[0];
        let (outcome, truths) = perform(&scenario, subject, &mut Truths::kept(), NonZeroUsize::MIN, 1);
        SimulationChart { scenario: &scenario, subject, seed: 1, outcome: &outcome, truths: &truths }.svg()
    }

    #[test]
    fn every_curve_and_its_legend_is_in_the_drawing() {
        let svg = drawn();
        for word in
            ["step: slots16, seed 1", "offered", "completed", "knee, 95 % band", "truth", "saturated", "seconds"]
        {
            assert!(svg.contains(word), "{word}");
        }
        for colour in [OFFERED, COMPLETED, TRUTH, PENDING] {
            assert!(svg.matches(colour).count() >= 2, "a line and its legend: {colour}");
        }
    }

    #[test]
    fn the_drawing_is_well_formed_and_escaped() {
        let svg = drawn();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("more &amp; more &lt; most") && !svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn a_line_breaks_where_nothing_is_known() {
        let plot = ChartPanel { top: 0.0, height: 100.0, seconds: 10.0, most: 10.0 };
        let mut canvas = Canvas::default();
        plot.line(&mut canvas, &[(0.0, f64::NAN), (1.0, 5.0), (2.0, 6.0), (3.0, f64::NAN), (4.0, 50.0)], INK, 1.0, "");
        let svg = canvas.finish("");
        assert!(svg.contains("d=\"M148.0 50.0L226.0 40.0M382.0 0.0\""), "{svg}");
    }
}
