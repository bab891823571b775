//! An SVG drawing as it grows: lines, areas, dots and texts in pixels, painted with a class of the page's style or with colours.
//!
//! Both charts of weir are written with it: the report's, which takes its colours from its page, and the simulation's, a file that
//! stands alone. It holds no scale, no layout and no colour.

use std::fmt::{self, Write as _};

/// The elements written so far.
#[derive(Debug, Default)]
pub struct Canvas(String);

/// How an element looks.
#[derive(Clone, Copy, Debug)]
pub enum Paint<'a> {
    /// By the style of the page it stands in.
    Class(&'a str),
    /// As a line; no dashes is a solid one.
    Stroke {
        /// Its colour.
        colour: &'a str,
        /// In pixels.
        width: f64,
        /// Lengths of dashes and gaps, in pixels.
        dashes: &'a str,
    },
    /// As a filled area.
    Fill {
        /// Its colour.
        colour: &'a str,
        /// 0 to 1.
        opacity: f64,
    },
    /// As a text.
    Font {
        /// In pixels.
        size: u32,
        /// Its colour.
        colour: &'a str,
    },
}

/// Which end of a text stands at its point.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// The first letter.
    Start,
    /// The middle.
    Middle,
    /// The last letter.
    End,
}

// Writing to a string cannot fail, here and below.
impl Canvas {
    /// A whole drawing in one colour, behind what follows.
    pub fn background(&mut self, colour: &str) {
        let _ = writeln!(self.0, "<rect width=\"100%\" height=\"100%\" fill=\"{colour}\"/>");
    }

    /// A straight line.
    pub fn line(&mut self, (x, y): (f64, f64), (to_x, to_y): (f64, f64), paint: Paint<'_>) {
        let ends = format_args!("x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\"");
        self.element("line", paint, ends, None);
    }

    /// A path in SVG's own commands; [`path_through`] makes them from points.
    pub fn path(&mut self, commands: &str, paint: Paint<'_>) {
        self.element("path", paint, format_args!("d=\"{commands}\""), None);
    }

    /// A filled outline through `corners`.
    pub fn polygon(&mut self, corners: impl IntoIterator<Item = (f64, f64)>, paint: Paint<'_>) {
        let corners: Vec<String> = corners.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.element("polygon", paint, format_args!("points=\"{}\"", corners.join(" ")), None);
    }

    /// A rectangle; a negative size is none.
    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), paint: Paint<'_>) {
        let (width, height) = (width.max(0.0), height.max(0.0));
        let sides = format_args!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"");
        self.element("rect", paint, sides, None);
    }

    /// A dot that shows `title` when it is pointed at.
    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, paint: Paint<'_>, title: &str) {
        let title = format!("<title>{}</title>", escaped(title));
        self.element("circle", paint, format_args!("cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\""), Some(&title));
    }

    /// A text that begins, ends or is centred at a point of its base line.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, paint: Paint<'_>, text: &str) {
        let anchor = anchor.word();
        let place = format_args!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"");
        self.element("text", paint, place, Some(&escaped(text)));
    }

    /// A text that reads upwards, centred on `point`, which is two numbers with a space between them.
    pub fn vertical_text(&mut self, point: &str, paint: Paint<'_>, text: &str) {
        let place = format_args!("transform=\"translate({point}) rotate(-90)\" text-anchor=\"middle\"");
        self.element("text", paint, place, Some(&escaped(text)));
    }

    /// The drawing, with these attributes of its root element.
    pub fn finish(self, attributes: &str) -> String {
        format!("<svg {attributes}>\n{}</svg>", self.0)
    }

    fn element(&mut self, name: &str, paint: Paint<'_>, geometry: fmt::Arguments<'_>, content: Option<&str>) {
        let _ = match paint {
            Paint::Class(class) => write!(self.0, "<{name} class=\"{class}\" {geometry}"),
            own => write!(self.0, "<{name} {geometry} {own}"),
        };
        let _ = match content {
            Some(content) => writeln!(self.0, ">{content}</{name}>"),
            None => writeln!(self.0, "/>"),
        };
    }
}

impl fmt::Display for Paint<'_> {
    /// The attributes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Class(class) => write!(f, "class=\"{class}\""),
            Self::Stroke { colour, width, dashes } => {
                let dashes = if dashes.is_empty() { "none" } else { dashes };
                write!(
                    f,
                    "fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\" \
                     stroke-linejoin=\"round\""
                )
            }
            Self::Fill { colour, opacity } => write!(f, "fill=\"{colour}\" fill-opacity=\"{opacity}\""),
            Self::Font { size, colour } => write!(f, "font-size=\"{size}\" fill=\"{colour}\""),
        }
    }
}

impl Anchor {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// The commands of a line through `points`; `None` breaks it. Empty when there is no point.
pub fn path_through(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut pen_is_down = false;
    for point in points {
        if let Some((x, y)) = point {
            let command = if pen_is_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        pen_is_down = point.is_some();
    }
    path
}

/// Round numbers from 0 to `high`, about `count` of them and 21 at most: multiples of 1, 2 or 5 times a power of ten.
pub fn round_ticks(high: f64, count: f64) -> Vec<f64> {
    let rough = high / count;
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    // A multiple such as 3 * 0.1 is not the nearest number to 0.3: a whole number over a whole number is.
    let parts = (1.0 / power).round().max(1.0);
    let tick = |number: u32| (f64::from(number) * step * parts).round() / parts;
    (0..=20).map(tick).take_while(|tick| *tick <= high).collect()
}

/// `text` as text or as an attribute's value: nothing in it is markup.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(round_ticks(27.0, 5.0), [0.0, 10.0, 20.0]);
        assert_eq!(round_ticks(1.9, 5.0), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(round_ticks(0.35, 4.0), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(round_ticks(270.0, 8.0), [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]);
    }

    #[test]
    fn a_class_stands_before_the_geometry_and_colours_behind_it() {
        let mut canvas = Canvas::default();
        canvas.line((0.0, 1.0), (2.0, 3.0), Paint::Class("grid"));
        canvas.rectangle((0.0, 1.0), (-2.0, 3.0), Paint::Fill { colour: "red", opacity: 0.5 });
        canvas.text((1.0, 2.0), Anchor::End, Paint::Class("a"), "1 < \"2\"");
        assert_eq!(
            canvas.finish("role=\"img\""),
            "<svg role=\"img\">\n<line class=\"grid\" x1=\"0.0\" y1=\"1.0\" x2=\"2.0\" y2=\"3.0\"/>\n\
             <rect x=\"0.0\" y=\"1.0\" width=\"0.0\" height=\"3.0\" fill=\"red\" fill-opacity=\"0.5\"/>\n\
             <text class=\"a\" x=\"1.0\" y=\"2.0\" text-anchor=\"end\">1 &lt; &quot;2&quot;</text>\n</svg>"
        );
    }

    #[test]
    fn a_path_breaks_where_there_is_no_point() {
        let points = [None, Some((1.0, 5.0)), Some((2.0, 6.0)), None, Some((4.0, 50.0))];
        assert_eq!(path_through(points), "M1.0 5.0L2.0 6.0M4.0 50.0");
        assert_eq!(path_through([None, None]), "");
    }
}
