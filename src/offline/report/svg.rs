//! A chart with two axes, each linear or logarithmic, and what stands on them.
//!
//! Colours are classes of the page's style, so that a chart is light or dark with its page. It holds nothing of sweeps.

use super::number::{plain, time_tick};
use crate::svg::{Anchor, Canvas, Paint, escaped, path_through, round_ticks};

/// A scale from data to a stretch of the drawing.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

/// One chart as it grows.
#[derive(Debug)]
pub struct Plot {
    canvas: Canvas,
    x: Scale,
    y: Scale,
    legend: Vec<(String, &'static str)>,
}

impl Scale {
    /// From 0 to a little above the largest.
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Self {
        let high = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self { low: 0.0, high: if high > LEAST { 1.08 * high } else { 1.0 }, log: false, from: 0.0, to: 1.0 }
    }

    /// Whole decades, or halves of them, around the values above 0.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.into_iter().filter(|value| value.is_finite() && *value > LEAST) {
            (low, high) = (low.min(value), high.max(value));
        }
        if high <= 0.0 {
            (low, high) = (1.0, 10.0);
        }
        // A margin on both sides, and a factor of five at least.
        let (low, high) = (low / 1.4, high * 1.4);
        let high = high.max(5.0 * low);
        Self { low, high, log: true, from: 0.0, to: 1.0 }
    }

    fn onto(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log { self.decades() } else { round_ticks(self.high, MOST_TICKS) }
    }

    /// 1, 2 and 5 of each decade, or only the 1 when there are many.
    fn decades(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let digits: &[f64] = match last - first {
            ..=2 => &[1.0, 2.0, 5.0],
            3 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let all = (first..=last).flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
        all.filter(|tick| *tick >= self.low && *tick <= self.high).take(20).collect()
    }
}

impl Plot {
    /// Axes with their ticks and names. `time` shows the ticks of y as times.
    pub fn new(x: Scale, y: Scale, x_name: &str, y_name: &str, time: bool) -> Self {
        let (x, y) = (x.onto(LEFT, RIGHT), y.onto(BOTTOM, TOP));
        let mut plot = Self { canvas: Canvas::default(), x, y, legend: Vec::new() };
        for tick in y.ticks() {
            let at = y.at(tick);
            plot.canvas.line((LEFT, at), (RIGHT, at), Paint::Class("grid"));
            let name = if time { time_tick(tick) } else { plain(tick) };
            plot.canvas.text((LEFT - 8.0, at + 4.0), Anchor::End, Paint::Class("tick"), &name);
        }
        for tick in x.ticks() {
            let at = x.at(tick);
            plot.canvas.line((at, BOTTOM), (at, BOTTOM + 5.0), Paint::Class("axis"));
            plot.canvas.text((at, BOTTOM + 19.0), Anchor::Middle, Paint::Class("tick"), &plain(tick));
        }
        let middle = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        plot.canvas.text((middle.0, HEIGHT - 6.0), Anchor::Middle, Paint::Class("name"), x_name);
        plot.canvas.vertical_text(&format!("14 {:.1}", middle.1), Paint::Class("name"), y_name);
        plot.canvas.line((LEFT, BOTTOM), (RIGHT, BOTTOM), Paint::Class("axis"));
        plot.canvas.line((LEFT, TOP), (LEFT, BOTTOM), Paint::Class("axis"));
        plot
    }

    /// A stretch of x over the whole height.
    pub fn shade_x(&mut self, from: f64, to: f64, class: &'static str, name: &str) {
        let (left, right) = (self.x.at(from), self.x.at(to));
        self.canvas.rectangle((left, TOP), (right - left, BOTTOM - TOP), Paint::Class(class));
        self.legend.push((name.to_owned(), class));
    }

    /// A stretch of y over the whole width.
    pub fn shade_y(&mut self, from: f64, to: f64, class: &'static str, name: &str) {
        // A plateau of one value is a line.
        let (top, bottom) = (self.y.at(to), self.y.at(from).max(self.y.at(to) + 2.0));
        self.canvas.rectangle((LEFT, top), (RIGHT - LEFT, bottom - top), Paint::Class(class));
        self.legend.push((name.to_owned(), class));
    }

    /// A line through points, in their order.
    pub fn line(&mut self, points: &[(f64, f64)], class: &'static str, name: &str) {
        let known = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let path = path_through(known.map(|(x, y)| Some((self.x.at(*x), self.y.at(*y)))));
        if path.is_empty() {
            return;
        }
        self.canvas.path(&path, Paint::Class(class));
        if !name.is_empty() {
            self.legend.push((name.to_owned(), class));
        }
    }

    /// The part of the diagonal inside the chart, where served is offered.
    pub fn diagonal(&mut self, class: &'static str, name: &str) {
        let (low, high) = (self.x.low.max(self.y.low), self.x.high.min(self.y.high));
        let points: Vec<(f64, f64)> =
            (0..=40).map(|step| low + (high - low) * f64::from(step) / 40.0).map(|at| (at, at)).collect();
        self.line(&points, class, name);
    }

    /// A dot that shows its figures when it is pointed at.
    pub fn dot(&mut self, x: f64, y: f64, class: &str, figures: &str) {
        self.canvas.dot((self.x.at(x), self.y.at(y)), 4.5, Paint::Class(class), figures);
    }

    /// A text beside a point, above or below it.
    pub fn note(&mut self, x: f64, y: f64, below: bool, text: &str) {
        let (x, y) = (self.x.at(x), self.y.at(y));
        // Towards the middle, so that it stays inside.
        let (anchor, shift) = if x > f64::midpoint(LEFT, RIGHT) { (Anchor::End, -9.0) } else { (Anchor::Start, 9.0) };
        let y = if below { (y + 17.0).min(BOTTOM - 6.0) } else { (y - 8.0).max(TOP + 10.0) };
        self.canvas.text((x + shift, y), anchor, Paint::Class("note"), text);
    }

    /// The drawing, with a label for screen readers.
    pub fn finish(mut self, label: &str) -> String {
        self.write_legend();
        let label = escaped(label);
        self.canvas.finish(&format!("viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\""))
    }

    /// Above the plot, one after the other.
    fn write_legend(&mut self) {
        let (mut x, mut y) = (LEFT, 14.0);
        for (name, class) in std::mem::take(&mut self.legend) {
            let width = 30.0 + name.chars().map(|c| if c.is_ascii() { 6.3 } else { 11.5 }).sum::<f64>();
            if x + width > WIDTH && x > LEFT {
                (x, y) = (LEFT, y + 17.0);
            }
            if class.starts_with("area") {
                self.canvas.rectangle((x, y - 9.0), (18.0, 10.0), Paint::Class(class));
            } else {
                self.canvas.line((x, y - 4.0), (x + 18.0, y - 4.0), Paint::Class(class));
            }
            self.canvas.text((x + 23.0, y), Anchor::Start, Paint::Class("legend"), &name);
            x += width + 6.0;
        }
    }
}

/// A value below this is 0, and its reciprocal no number.
const LEAST: f64 = 1e-12;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 350.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 545.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 300.0;
const MOST_TICKS: f64 = 6.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let near = |found: Vec<f64>, wanted: &[f64]| {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(a, b)| (a / b - 1.0).abs() < 1e-9 || *b == 0.0)
        };
        assert!(near(Scale::linear([60.0]).ticks(), &[0.0, 20.0, 40.0, 60.0]));
        assert!(near(Scale::logarithmic([0.0876, 17.9]).ticks(), &[0.1, 1.0, 10.0]));
        assert!(near(Scale::logarithmic([f64::NAN, 0.0]).ticks(), &[1.0, 3.0, 10.0]));
    }

    #[test]
    fn nothing_is_drawn_outside_or_without_a_number() {
        let mut plot = Plot::new(Scale::linear([10.0]), Scale::logarithmic([0.1, 1.0]), "x", "y", true);
        plot.line(&[(f64::NAN, 1.0), (1000.0, 1e9), (5.0, 0.0)], "served", "a & b");
        let mut tiny = Plot::new(Scale::logarithmic([1e-320]), Scale::linear([1e-320]), "x", "y", false);
        tiny.line(&[(1e-320, 1e-320), (1e300, 1e300)], "served", "");
        assert!(!tiny.finish("").contains("NaN"));
        let svg = plot.finish("<name>");
        assert!(
            !svg.contains("NaN") && !svg.contains("inf") && svg.contains("a &amp; b") && svg.contains("&lt;name&gt;"),
            "{svg}"
        );
        assert!(svg.contains("M545.0 44.0L"), "{svg}");
    }
}
