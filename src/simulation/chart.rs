//! A rehearsal, drawn: a curve in review beats a paragraph.
//!
//! One SVG, three bands above each other over the same seconds: rates with the knee, its interval and the truth; the state;
//! what is in flight. It is written by hand, without a library, a script or a font of its own.

use std::fmt::Write as _;
use std::time::Duration;

use super::outcome::{Observation, SimulationOutcome};
use super::scenario::{Scenario, Subject};
use super::truth::{Flow, Truth};
use crate::estimate::{Estimate, Knee, SaturationState};
use crate::vocabulary::time::Timestamp;

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct SimulationChart<'a> {
    /// What was played.
    pub scenario: &'a Scenario,
    /// With which engine.
    pub subject: &'a Subject,
    /// And which seed.
    pub seed: u64,
    /// What came out.
    pub outcome: &'a SimulationOutcome,
    /// The truth of each segment.
    pub truths: &'a [Truth],
}

impl SimulationChart<'_> {
    /// The drawing.
    pub fn svg(&self) -> String {
        let seconds = self.outcome.moments.last().map_or(1.0, |last| second(last.at));
        let mut canvas = Canvas::new();
        self.title(&mut canvas);
        self.rates(&mut canvas, seconds);
        self.states(&mut canvas, seconds);
        self.in_flight(&mut canvas, seconds);
        canvas.finish()
    }

    fn title(&self, canvas: &mut Canvas) {
        let title = format!("{}: {}, seed {}", self.scenario.name, self.subject.name, self.seed);
        canvas.text(LEFT, 24.0, Anchor::Start, 17, INK, &title);
        canvas.text(LEFT, 44.0, Anchor::Start, 12, FAINT, &self.scenario.about);
    }

    fn rates(&self, canvas: &mut Canvas, seconds: f64) {
        let bin = self.bin();
        let offered = self.rate(bin, |moment| moment.offered);
        let admitted = self.rate(bin, |moment| moment.admitted);
        let completed = self.rate(bin, |moment| moment.completed);
        let capacity = self.truths.iter().map(|truth| truth.best.requests_per_second).fold(0.0, f64::max);
        let highest = offered.iter().map(|point| point.1).fold(0.0, f64::max);
        // A flash crowd would flatten everything else: what is above three times the capacity is cut off.
        let plot = ChartPanel {
            top: 66.0,
            height: 250.0,
            seconds,
            most: (1.1 * highest).clamp(1.25 * capacity, 3.0 * capacity),
        };
        plot.frame(canvas, "requests per second", highest);
        self.band(canvas, &plot, |knee| knee.requests_per_second);
        // Where everybody is admitted the two lie upon each other: the broad pale line and the dashes both stay visible.
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
        canvas.text(LEFT - 8.0, plot.top + 15.0, Anchor::End, 12, INK, "state");
        let mut began = (0.0, SaturationState::Unknown);
        let changes = self.outcome.transitions.iter().map(|change| (second(change.at), change.to));
        for (at, state) in changes.chain([(seconds, SaturationState::Unknown)]) {
            canvas.rect(plot.x(began.0), plot.top, plot.x(at) - plot.x(began.0), plot.height, shade(began.1), 1.0);
            began = (at, state);
        }
        for (number, state) in SaturationState::ALL.into_iter().enumerate() {
            let (x, y) = (RIGHT + 14.0, plot.top - 20.0 + 15.0 * number as f64);
            canvas.rect(x, y - 8.0, 18.0, 9.0, shade(state), 1.0);
            canvas.text(x + 26.0, y, Anchor::Start, 12, INK, state.word());
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
        canvas.text(f64::midpoint(LEFT, RIGHT), plot.top + plot.height + 40.0, Anchor::Middle, 12, INK, "seconds");
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
            let corners: Vec<String> =
                around.map(|(at, value)| format!("{:.1},{:.1}", plot.x(at), plot.y(value))).collect();
            canvas.polygon(&corners.join(" "), KNEE, 0.22);
        }
    }

    /// A step for each segment: what an ungated engine keeps up.
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
            canvas.path(&format!("M{x:.1} {:.1}V{:.1}", plot.top, plot.top + plot.height), ALARM, 1.2, "1 3");
            canvas.text(x, plot.top - 4.0, Anchor::Middle, 10, ALARM, &format!("{:.1} s", at.as_secs_f64()));
        }
    }
}

/// A part of the drawing with its own scale: seconds to the right, something from 0 to `most` upwards.
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

    /// Axes and their numbers; says so when something above `most` is cut off.
    fn frame(&self, canvas: &mut Canvas, label: &str, highest: f64) {
        canvas.vertical(LEFT - 46.0, self.top + self.height / 2.0, label);
        if highest > self.most {
            let note = format!("cut off here; highest {highest:.0}");
            canvas.text(RIGHT, self.top - 4.0, Anchor::End, 10, FAINT, &note);
        }
        for value in ticks(self.most, 5.0) {
            let y = self.y(value);
            canvas.path(&format!("M{LEFT} {y:.1}H{RIGHT}"), GRID, 1.0, "");
            canvas.text(LEFT - 8.0, y + 4.0, Anchor::End, 11, FAINT, &format!("{value}"));
        }
        let bottom = self.top + self.height;
        for value in ticks(self.seconds, 8.0) {
            let x = self.x(value);
            canvas.path(&format!("M{x:.1} {bottom:.1}v5"), INK, 1.0, "");
            canvas.text(x, bottom + 18.0, Anchor::Middle, 11, FAINT, &format!("{value}"));
        }
        canvas.path(&format!("M{LEFT} {:.1}V{bottom:.1}H{RIGHT}", self.top), INK, 1.0, "");
    }

    /// A line through the points; a value that is not a number breaks it.
    fn line(&self, canvas: &mut Canvas, points: &[(f64, f64)], colour: &str, width: f64, dashes: &str) {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (at, value) in points {
            if value.is_finite() {
                let command = if pen_is_down { 'L' } else { 'M' };
                // Writing to a string cannot fail, here and below.
                let _ = write!(path, "{command}{:.1} {:.1}", self.x(*at), self.y(*value));
            }
            pen_is_down = value.is_finite();
        }
        if !path.is_empty() {
            canvas.path(&path, colour, width, dashes);
        }
    }
}

/// Where a text is held.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// The file as it grows.
struct Canvas(String);

impl Canvas {
    fn new() -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        ))
    }

    fn text(&mut self, x: f64, y: f64, anchor: Anchor, size: u32, colour: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{colour}\">{}</text>",
            escaped(text)
        );
    }

    /// A text that reads upwards, centred on the point.
    fn vertical(&mut self, x: f64, y: f64, text: &str) {
        let _ = writeln!(
            self.0,
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\" font-size=\"12\" \
             fill=\"{INK}\">{}</text>",
            escaped(text)
        );
    }

    fn path(&mut self, path: &str, colour: &str, width: f64, dashes: &str) {
        let _ = writeln!(
            self.0,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{}\" \
             stroke-linejoin=\"round\"/>",
            if dashes.is_empty() { "none" } else { dashes }
        );
    }

    fn polygon(&mut self, corners: &str, colour: &str, opacity: f64) {
        let _ = writeln!(self.0, "<polygon points=\"{corners}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>");
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str, opacity: f64) {
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\" \
             fill-opacity=\"{opacity}\"/>",
            width.max(0.0)
        );
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn legend(canvas: &mut Canvas, top: f64, entries: &[(&str, &str, &str)]) {
    for (number, (name, colour, dashes)) in entries.iter().enumerate() {
        let y = top + 17.0 * number as f64;
        let x = RIGHT + 14.0;
        canvas.path(&format!("M{x:.1} {:.1}h20", y - 4.0), colour, 2.2, dashes);
        canvas.text(x + 26.0, y, Anchor::Start, 12, INK, name);
    }
}

/// Round numbers from 0 to `most`, about `count` of them.
fn ticks(most: f64, count: f64) -> Vec<f64> {
    let rough = most / count;
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let whole = |number: u32| (f64::from(number) * step * 1e6).round() / 1e6;
    (0..=20).map(whole).take_while(|value| *value <= most).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn second(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).as_secs_f64()
}

fn shade(state: SaturationState) -> &'static str {
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
    fn what_was_asked_for_is_in_the_drawing() {
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
    fn the_drawing_is_well_formed_and_holds_no_text_of_its_own_making() {
        let svg = drawn();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("more &amp; more &lt; most") && !svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(27.0, 5.0), [0.0, 10.0, 20.0]);
        assert_eq!(ticks(1.9, 5.0), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(ticks(270.0, 8.0), [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]);
    }

    #[test]
    fn a_line_breaks_where_nothing_is_known() {
        let plot = ChartPanel { top: 0.0, height: 100.0, seconds: 10.0, most: 10.0 };
        let mut canvas = Canvas::new();
        plot.line(&mut canvas, &[(0.0, f64::NAN), (1.0, 5.0), (2.0, 6.0), (3.0, f64::NAN), (4.0, 50.0)], INK, 1.0, "");
        assert!(canvas.0.contains("d=\"M148.0 50.0L226.0 40.0M382.0 0.0\""), "{}", canvas.0);
    }
}
