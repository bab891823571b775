//! What `weir top` draws: state and headroom, the backends, the chosen one's last minutes and knee, the last changes.
//!
//! Colour repeats what words and signs say already, so nothing is lost without it. It remembers two minutes of rates and some changes
//! of state, of each backend there is now. Absent: requests and a clock.

use std::collections::{HashMap, VecDeque};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, Wrap};

use super::Trouble;
use super::labels::{number, percent, seconds, span};
use super::picture::{BackendPicture, Picture};

/// Everything that is shown.
#[derive(Debug)]
pub struct Screen {
    admin: String,
    colour: bool,
    picture: Picture,
    /// What went wrong, and how many times in a row.
    silence: Option<(String, u64)>,
    chosen: usize,
    past: HashMap<String, BackendHistory>,
    turns: VecDeque<String>,
}

/// One backend's last minutes, oldest first, in thousandths: what a sparkline takes is whole numbers.
#[derive(Debug, Default)]
struct BackendHistory {
    state: String,
    offered: VecDeque<u64>,
    completed: VecDeque<u64>,
    ttft: VecDeque<u64>,
}

impl Screen {
    /// An empty screen for the weir at `admin`.
    pub fn new(admin: &str, colour: bool) -> Self {
        Self {
            admin: admin.to_owned(),
            colour,
            picture: Picture::default(),
            silence: None,
            chosen: 0,
            past: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// The answers of one second.
    pub fn on_picture(&mut self, picture: Picture) {
        self.silence = None;
        self.past.retain(|name, _| picture.backends.iter().any(|backend| backend.name == *name));
        for backend in &picture.backends {
            let past = self.past.entry(backend.name.clone()).or_default();
            if past.state != backend.state && !(past.state.is_empty() && backend.state == "unknown") {
                self.turns.push_front(turn(&past.state, backend));
                self.turns.truncate(TURNS);
            }
            past.on_second(backend);
        }
        self.chosen = self.chosen.min(picture.backends.len().saturating_sub(1));
        self.picture = picture;
    }

    /// A question had no answer: what was seen last stays, and is said to be old.
    pub fn on_silence(&mut self, trouble: &Trouble) {
        let times = self.silence.take().map_or(0, |(_, times)| times);
        self.silence = Some((trouble.to_string(), times + 1));
    }

    /// Chooses the backend above.
    pub fn choose_before(&mut self) {
        self.chosen = self.chosen.saturating_sub(1);
    }

    /// Chooses the backend below.
    pub fn choose_after(&mut self) {
        self.chosen = (self.chosen + 1).min(self.picture.backends.len().saturating_sub(1));
    }

    /// Draws all of it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let rows = self.picture.backends.len().min(MOST_ROWS);
        let table = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2);
        let areas = [Constraint::Length(4), Constraint::Length(table), Constraint::Length(10), Constraint::Fill(1)];
        let [head, backends, chosen, rest] = Layout::vertical(areas).areas(frame.area());
        let [turns, foot] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(rest);
        frame.render_widget(Paragraph::new(self.head()).wrap(Wrap { trim: true }), head);
        frame.render_widget(self.table(backends), backends);
        if let Some(backend) = self.picture.backends.get(self.chosen) {
            self.draw_backend(frame, chosen, backend);
        }
        frame.render_widget(self.turns(), turns);
        frame.render_widget(Paragraph::new("q quits · up and down choose a backend").style(faint()), foot);
    }

    fn head(&self) -> Vec<Line<'_>> {
        let picture = &self.picture;
        let mut first =
            format!("weir {} · {} · up {} · {}", picture.version, picture.mode, span(picture.uptime), self.admin);
        if picture.draining {
            first.push_str(" · DRAINING");
        }
        let headroom = match picture.headroom() {
            Some(share) => format!("headroom {}", percent(Some(share))),
            None => "headroom not known yet".to_owned(),
        };
        let mut advice = format!("{headroom} · ");
        match picture.suggested_in_flight {
            Some(most) => advice.push_str(&format!("a batch client may keep {most:.0} in flight")),
            None => advice.push_str("no knee known"),
        }
        if picture.retry_after > 0 {
            advice.push_str(&format!(" · come back in {} s", picture.retry_after));
        }
        let state = format!("{} {}", sign(&picture.state), picture.state.to_uppercase());
        let mut lines = vec![
            Line::styled(first, faint()),
            Line::from(vec![Span::styled(state, self.tone(&picture.state)), Span::raw("  "), Span::raw(advice)]),
        ];
        if let Some((why, times)) = &self.silence {
            lines.push(Line::styled(format!("NO ANSWER, {times} in a row: {why}"), self.tone("saturated")));
        }
        lines
    }

    fn table(&self, area: Rect) -> Table<'_> {
        let columns: Vec<&TableColumn> = COLUMNS.iter().filter(|column| column.from <= area.width).collect();
        // The chosen row is in sight, whatever number of rows there are.
        let first = (self.chosen + 1).saturating_sub(MOST_ROWS);
        let shown = self.picture.backends.iter().enumerate().skip(first).take(MOST_ROWS);
        let rows = shown.map(|(i, backend)| {
            let mark = if i == self.chosen { "> " } else { "  " };
            let name = std::iter::once(format!("{mark}{}", backend.name));
            let style = if i == self.chosen { Modifier::BOLD } else { Modifier::empty() };
            Row::new(name.chain(columns.iter().map(|column| (column.of)(backend))))
                .style(Style::new().add_modifier(style))
        });
        let heads = std::iter::once("  backend").chain(columns.iter().map(|column| column.name));
        let widths =
            std::iter::once(Constraint::Fill(1)).chain(columns.iter().map(|column| Constraint::Length(column.width)));
        Table::new(rows, widths).header(Row::new(heads).style(faint())).column_spacing(1)
    }

    fn draw_backend(&self, frame: &mut Frame<'_>, area: Rect, backend: &BackendPicture) {
        let block = Block::new().borders(Borders::TOP).title(format!(" {} ", backend.name));
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let [why, knee, charts] =
            Layout::vertical([Constraint::Length(2), Constraint::Length(3), Constraint::Fill(1)]).areas(inside);
        let since = backend.since.map(|since| format!(" for {}", span(since))).unwrap_or_default();
        let stand = format!("{} {}", sign(&backend.state), backend.state);
        let sentence =
            vec![Span::styled(stand, self.tone(&backend.state)), Span::raw(format!("{since}: {}", reason(backend)))];
        frame.render_widget(Paragraph::new(Line::from(sentence)).wrap(Wrap { trim: true }), why);
        frame.render_widget(
            Paragraph::new(vec![Line::from(knee_of(backend)), Line::from(work_of(backend))]).wrap(Wrap { trim: true }),
            knee,
        );
        let Some(past) = self.past.get(&backend.name) else { return };
        let top = past.offered.iter().chain(&past.completed).copied().max().unwrap_or(0);
        let charts = Layout::horizontal([Constraint::Ratio(1, 3); 3]).spacing(2).split(charts);
        let rate = |what: &str, now: Option<f64>| format!("{what} {} req/s", number(now));
        self.draw_past(frame, charts[0], rate("offered", backend.offered), &past.offered, top);
        self.draw_past(frame, charts[1], rate("completed", backend.completed), &past.completed, top);
        let longest = past.ttft.iter().copied().max().unwrap_or(0);
        self.draw_past(frame, charts[2], format!("TTFT p99 {}", seconds(backend.ttft[1])), &past.ttft, longest);
    }

    /// The newest seconds that fit; `top` is the height of a full bar.
    fn draw_past(&self, frame: &mut Frame<'_>, area: Rect, title: String, past: &VecDeque<u64>, top: u64) {
        let newest = past.iter().copied().skip(past.len().saturating_sub(usize::from(area.width)));
        let style = if self.colour { Style::new().fg(Color::Cyan) } else { Style::new() };
        let block = Block::new().title(title);
        frame.render_widget(Sparkline::default().block(block).data(newest).max(top.max(1)).style(style), area);
    }

    fn turns(&self) -> Paragraph<'_> {
        let lines = self.turns.iter().map(|turn| Line::raw(turn.as_str()));
        Paragraph::new(lines.collect::<Vec<_>>())
            .block(Block::new().borders(Borders::TOP).title(" changes while this runs "))
    }

    fn tone(&self, state: &str) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if !self.colour {
            return bold;
        }
        match state {
            "healthy" => bold.fg(Color::Green),
            "approaching" => bold.fg(Color::Yellow),
            "saturated" => bold.fg(Color::Red),
            "recovering" => bold.fg(Color::Blue),
            _ => bold,
        }
    }
}

impl BackendHistory {
    fn on_second(&mut self, backend: &BackendPicture) {
        self.state.clone_from(&backend.state);
        let kept = [
            (&mut self.offered, backend.offered),
            (&mut self.completed, backend.completed),
            (&mut self.ttft, backend.ttft[1]),
        ];
        for (list, value) in kept {
            list.push_back((value.unwrap_or(0.0).max(0.0) * 1e3) as u64);
            if list.len() > SECONDS {
                list.pop_front();
            }
        }
    }
}

/// One column of the table, shown from a width of the terminal on.
struct TableColumn {
    name: &'static str,
    width: u16,
    from: u16,
    of: fn(&BackendPicture) -> String,
}

const fn column(name: &'static str, width: u16, from: u16, of: fn(&BackendPicture) -> String) -> TableColumn {
    TableColumn { name, width, from, of }
}

const COLUMNS: [TableColumn; 10] = [
    column("state", 18, 0, |b| {
        let down = if b.up { "" } else { " DOWN" };
        format!("{} {}{down}", sign(&b.state), b.state)
    }),
    column("headroom", 8, 44, |b| percent(b.headroom())),
    column("offered", 7, 52, |b| number(b.offered)),
    column("completed", 9, 64, |b| number(b.completed)),
    column("shed", 6, 71, |b| number(b.shed)),
    column("knee", 6, 78, |b| number(b.knee.map(|[value, ..]| value))),
    column("TTFT p99", 9, 88, |b| seconds(b.ttft[1])),
    column("ITL p99", 9, 98, |b| seconds(b.itl[1])),
    column("in flight", 9, 108, |b| b.in_flight.to_string()),
    column("queue", 6, 115, |b| b.queue.to_string()),
];

fn knee_of(backend: &BackendPicture) -> String {
    match (backend.knee, backend.predicted) {
        (Some([value, low, high]), _) => format!(
            "knee {} ({} to {}) req/s, {} in flight",
            number(Some(value)),
            number(Some(low)),
            number(Some(high)),
            backend.knee_in_flight.map_or_else(|| "?".to_owned(), |n| format!("{n:.0}")),
        ),
        (None, predicted) => {
            let predicted =
                predicted.map(|rate| format!("predicted {} req/s; ", number(Some(rate)))).unwrap_or_default();
            format!("knee not known yet: {predicted}{}", backend.missing.join("; "))
        }
    }
}

fn work_of(backend: &BackendPicture) -> String {
    let mut work = format!(
        "{} in flight, {} of them without a first token · queue {}",
        backend.in_flight, backend.pending, backend.queue
    );
    if backend.queue > 0 {
        work.push_str(&format!(", oldest {}", seconds(backend.oldest)));
    }
    work.push_str(&format!(" · {} tokens/s", number(backend.output_tokens)));
    let shed: Vec<_> = backend.shed_by.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    if !shed.is_empty() {
        work.push_str(&format!(" · shed: {}", shed.join(", ")));
    }
    work
}

fn reason(backend: &BackendPicture) -> &str {
    if backend.reason.is_empty() { "no traffic seen yet" } else { &backend.reason }
}

fn turn(from: &str, backend: &BackendPicture) -> String {
    let from = if from.is_empty() { String::new() } else { format!("{from} -> ") };
    format!("{}: {from}{} · {}", backend.name, backend.state, reason(backend))
}

/// Says in shape what the colour says.
fn sign(state: &str) -> &'static str {
    match state {
        "healthy" => "●",
        "approaching" => "▲",
        "saturated" => "■",
        "recovering" => "▼",
        _ => "○",
    }
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// Two minutes: as much as a wide terminal shows.
const SECONDS: usize = 120;
const TURNS: usize = 50;
/// More backends than these scroll.
const MOST_ROWS: usize = 12;

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Color;
    use serde_json::{Value, json};

    use super::*;

    fn status(state: &str, more: &[&str]) -> Value {
        let backend = |name: &str, state: &str, offered: f64| {
            json!({
                "name": name, "up": state != "unknown",
                "rates_10s": {"offered": offered, "admitted": 12.1, "completed": 12.27, "shed": 0.0, "output_tokens": 1759.0},
                "in_flight": 182, "pending": 91, "decoding": 91, "queue": {"depth": 4, "oldest_s": 0.35},
                "ttft_s": {"p50": 2.5, "p90": 8.0, "p99": 12.25}, "itl_s": {"p50": 0.0398, "p90": 0.05, "p99": 0.0612},
                "saturation": {"state": state, "since_s": 72.5, "ratio": 2.0, "demand_ratio": offered / 12.82, "reason": "the line grows"},
                "totals": {"shed": {"saturated": 3, "deadline": 0}},
            })
        };
        let first = backend("gpu-0", state, if state == "saturated" { 26.3 } else { 7.9 });
        let others = more.iter().map(|name| backend(name, "unknown", 0.0));
        let backends: Vec<Value> = std::iter::once(first).chain(others).collect();
        json!({ "version": "0.1.0", "mode": "observe", "draining": false, "uptime_s": 3725.0, "backends": backends })
    }

    fn picture(state: &str, more: &[&str]) -> Picture {
        let interval = json!({"value": 12.82, "low": 12.4, "high": 13.24});
        let knee = json!({"backends": [
            {"name": "gpu-0", "knee": {"requests_per_second": interval, "in_flight": {"value": 90.64}}},
            {"name": "gpu-1", "knee": null, "missing": ["0 of 3 saturated blocks seen"],
             "prediction": {"requests_per_second": interval, "at_most": false}},
        ]});
        let advice = json!({ "state": state, "suggested_in_flight": 90.0, "retry_after_s": if state == "saturated" { 8 } else { 0 } });
        Picture::of(&status(state, more), &knee, &advice).unwrap()
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal
    }

    fn text(screen: &Screen, width: u16, height: u16) -> String {
        let terminal = drawn(screen, width, height);
        let rows = terminal.backend().buffer().content().chunks(usize::from(width));
        let lines = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    fn overloaded(colour: bool) -> Screen {
        let mut screen = Screen::new("127.0.0.1:9902", colour);
        for _ in 0..30 {
            screen.on_picture(picture("healthy", &["gpu-1"]));
        }
        for _ in 0..10 {
            screen.on_picture(picture("saturated", &["gpu-1"]));
        }
        screen
    }

    #[track_caller]
    fn same(drawn: &str, expected: &str) {
        assert!(drawn == expected, "drawn:\n{drawn}\nexpected:\n{expected}");
    }

    #[test]
    fn an_overload_in_a_wide_terminal() {
        same(&text(&overloaded(false), 120, 27), include_str!("seen/wide.txt"));
    }

    #[test]
    fn an_overload_in_a_narrow_terminal_keeps_state_and_headroom() {
        same(&text(&overloaded(false), 60, 25), include_str!("seen/narrow.txt"));
    }

    #[test]
    fn a_weir_that_went_away_leaves_the_last_picture_and_says_so() {
        let mut screen = overloaded(false);
        let trouble =
            || Trouble::Unreachable { at: "127.0.0.1:9902".into(), path: "/status", why: "no connection".into() };
        screen.on_silence(&trouble());
        screen.on_silence(&trouble());
        let gone = text(&screen, 120, 27);
        assert!(gone.contains("NO ANSWER, 2 in a row") && gone.contains("SATURATED"), "{gone}");
        screen.on_picture(picture("healthy", &[]));
        assert!(!text(&screen, 120, 27).contains("NO ANSWER"));
    }

    #[test]
    fn the_arrows_choose_a_backend_and_stop_at_the_ends() {
        let mut screen = overloaded(false);
        screen.choose_before();
        assert!(text(&screen, 120, 27).contains("> gpu-0"));
        screen.choose_after();
        screen.choose_after();
        let second = text(&screen, 120, 27);
        assert!(
            second.contains("> gpu-1") && second.contains("knee not known yet: predicted 12.8 req/s; 0 of 3"),
            "{second}"
        );
        screen.on_picture(picture("healthy", &[]));
        assert!(text(&screen, 120, 27).contains("> gpu-0"), "the chosen one went away");
    }

    #[test]
    fn the_chosen_row_is_visible_for_any_number_of_backends() {
        let names: Vec<String> = (1..40).map(|i| format!("gpu-{i}")).collect();
        let mut screen = Screen::new("here", false);
        screen.on_picture(picture("healthy", &names.iter().map(String::as_str).collect::<Vec<_>>()));
        (0..39).for_each(|_| screen.choose_after());
        assert!(text(&screen, 100, 40).contains("> gpu-39"));
    }

    #[test]
    fn the_state_has_a_colour_only_where_colour_is_on() {
        let colours = |screen: &Screen| {
            let terminal = drawn(screen, 120, 27);
            terminal
                .backend()
                .buffer()
                .content()
                .iter()
                .map(|cell| cell.fg)
                .collect::<std::collections::HashSet<Color>>()
        };
        assert_eq!(colours(&overloaded(false)), [Color::Reset].into());
        assert!(colours(&overloaded(true)).contains(&Color::Red));
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn() {
        let screen = overloaded(true);
        for (width, height) in [(1, 1), (10, 5), (39, 12), (500, 100)] {
            text(&screen, width, height);
        }
        text(&Screen::new("here", false), 80, 24);
    }

    #[test]
    fn a_day_of_it_takes_no_more_than_minutes() {
        let mut screen = Screen::new("here", false);
        let (calm, hot) = (picture("healthy", &[]), picture("saturated", &[]));
        for second in 0..86_400 {
            screen.on_picture(if second % 2 == 0 { calm.clone() } else { hot.clone() });
        }
        assert_eq!((screen.turns.len(), screen.past["gpu-0"].offered.len()), (TURNS, SECONDS));
    }
}
