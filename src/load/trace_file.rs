//! Requests given one by one: a workload file or a recorded trace, in place of laws of lengths. Pure.
//!
//! Three shapes are read, distinguished by their first line: JSONL of our own (`prompt` or `prompt_tokens`, and
//! `output_tokens`), Mooncake's JSONL (`timestamp` in ms, `input_length`, `output_length`, `hash_ids` of 512-token blocks),
//! and Azure's CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`). A trace holds lengths and times, never content: prompts are
//! made up to length, and two requests that share leading hash ids share that much of their prompt. It opens no file.

use std::time::Duration;

use serde::Deserialize;

use super::schedule::Rate;
use super::workload::Draw;

/// Requests in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceFile {
    items: Vec<TraceItem>,
}

/// One request of the file.
#[derive(Clone, Debug, PartialEq)]
struct TraceItem {
    /// When it was made, from the first one.
    at: Option<Duration>,
    prompt: Prompt,
    output_tokens: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Prompt {
    /// This text; its length is counted at 4 bytes a token.
    Text(String),
    /// A text of this many tokens, unlike every other.
    Tokens(u32),
    /// The same, whose leading blocks of 512 tokens are shared with every request that has the same ids.
    Blocks { tokens: u32, ids: Vec<u64> },
}

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTraceFile {
    /// Nothing in it.
    #[error("no request in it")]
    Empty,
    /// A line that is no request.
    #[error("line {line}: {why}; expected {EXPECTED}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// More than is kept in memory.
    #[error("more than {MOST_ITEMS} requests")]
    TooLong,
}

impl TraceFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`BadTraceFile`], with the line.
    pub fn parse(text: &str) -> Result<Self, BadTraceFile> {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).peekable();
        let csv = lines.peek().is_some_and(|(_, line)| !line.trim_start().starts_with('{'));
        if csv && let Some((line, header)) = lines.next() {
            let columns: Vec<&str> = header.trim().trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
            if columns.get(..3) != Some(&AZURE[..]) {
                return Err(BadTraceFile::Line { line, why: "an unknown header".to_owned() });
            }
        }
        let read = if csv { azure } else { json };
        let mut items = Vec::new();
        for (line, text) in lines {
            if items.len() == MOST_ITEMS {
                return Err(BadTraceFile::TooLong);
            }
            items.push(read(text).map_err(|why| BadTraceFile::Line { line, why })?);
        }
        let Some(first) = items.iter().filter_map(|item| item.at).min() else {
            return if items.is_empty() { Err(BadTraceFile::Empty) } else { Ok(Self { items }) };
        };
        for item in &mut items {
            item.at = item.at.map(|at| at - first);
        }
        items.sort_by_key(|item| item.at);
        Ok(Self { items })
    }

    /// How many requests.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none; a parsed file has one at least.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Requests a second of the recorded times; none without times, or when all are the same.
    pub fn rate(&self) -> Option<Rate> {
        let last = self.items.iter().map(|item| item.at).max()??;
        Rate::new(self.items.len() as f64 / last.as_secs_f64()).ok()
    }

    /// The recorded times, played faster or slower so that their mean rate is `rate`: bursts stay bursts.
    pub fn starts(&self, rate: Rate) -> Vec<Duration> {
        let stretch = self.rate().map_or(1.0, |own| own.per_second() / rate.per_second());
        self.items.iter().filter_map(|item| item.at).map(|at| at.mul_f64(stretch)).collect()
    }

    /// Request number `id`, from the beginning again after the last, with its prompt.
    pub fn request(&self, id: u64, seed: u64) -> Option<(Draw, String)> {
        let item = self.items.get((id % self.items.len().max(1) as u64) as usize)?;
        let draw = |tokens| Draw::given(id, tokens, item.output_tokens, seed);
        Some(match &item.prompt {
            Prompt::Text(text) => (draw((text.len() / 4).clamp(1, u32::MAX as usize) as u32), text.clone()),
            Prompt::Tokens(tokens) => (draw(*tokens), draw(*tokens).prompt()),
            Prompt::Blocks { tokens, ids } => (draw(*tokens), of_blocks(&draw(*tokens), ids, seed)),
        })
    }

    /// The lengths alone.
    pub fn draw(&self, id: u64, seed: u64) -> Option<Draw> {
        let item = self.items.get((id % self.items.len().max(1) as u64) as usize)?;
        let tokens = match &item.prompt {
            Prompt::Text(text) => (text.len() / 4).clamp(1, u32::MAX as usize) as u32,
            Prompt::Tokens(tokens) | Prompt::Blocks { tokens, .. } => *tokens,
        };
        Some(Draw::given(id, tokens, item.output_tokens, seed))
    }
}

/// The blocks' texts, then the rest of the length from the request's own text.
fn of_blocks(draw: &Draw, ids: &[u64], seed: u64) -> String {
    let mut text = String::new();
    let mut left = draw.prompt_tokens;
    for id in ids {
        let tokens = left.min(BLOCK_TOKENS);
        text.push_str(&Draw::given(*id, tokens, 1, seed.wrapping_add(1)).prompt());
        left -= tokens;
    }
    text.push_str(&Draw::given(draw.id, left, 1, seed).prompt());
    text
}

#[derive(Deserialize)]
struct TraceLine {
    timestamp: Option<f64>,
    prompt: Option<String>,
    #[serde(alias = "input_length", alias = "input_tokens")]
    prompt_tokens: Option<u32>,
    #[serde(alias = "output_length", alias = "max_tokens")]
    output_tokens: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

fn json(text: &str) -> Result<TraceItem, String> {
    let line: TraceLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let at = line.timestamp.map(|millis| seconds(millis / 1e3)).transpose()?;
    let prompt = match (line.prompt, line.prompt_tokens) {
        (Some(text), _) => Prompt::Text(text),
        (None, Some(tokens)) if line.hash_ids.is_empty() => Prompt::Tokens(length(tokens)?),
        (None, Some(tokens)) => Prompt::Blocks { tokens: length(tokens)?, ids: line.hash_ids },
        (None, None) => return Err("neither prompt nor prompt_tokens".to_owned()),
    };
    Ok(TraceItem { at, prompt, output_tokens: length(line.output_tokens)? })
}

fn azure(text: &str) -> Result<TraceItem, String> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let [time, prompt, output, ..] = fields[..] else { return Err("fewer than three columns".to_owned()) };
    let tokens = |field: &str| field.parse::<u32>().map_err(|_| format!("`{field}` is no number of tokens"));
    let at = time.parse::<f64>().ok().or_else(|| wall_clock(time)).ok_or_else(|| format!("`{time}` is no time"))?;
    let (prompt, output) = (length(tokens(prompt)?)?, length(tokens(output)?)?);
    Ok(TraceItem { at: Some(seconds(at)?), prompt: Prompt::Tokens(prompt), output_tokens: output })
}

/// Seconds since the beginning of the month before year 0 of `2023-11-16 18:15:46.6805900`. Only differences matter.
fn wall_clock(text: &str) -> Option<f64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = parts(date, '-')?;
    let [hours, minutes, seconds] = parts(time.trim_end_matches('Z'), ':')?;
    // Days of the civil calendar, with the year beginning in March: Hinnant, "chrono-compatible low-level date algorithms".
    let year = if month <= 2.0 { year - 1.0 } else { year };
    let of_year = ((153.0 * (if month > 2.0 { month - 3.0 } else { month + 9.0 }) + 2.0) / 5.0).floor() + day - 1.0;
    let days = 365.0 * year + (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor() + of_year;
    Some(86_400.0 * days + 3_600.0 * hours + 60.0 * minutes + seconds)
}

fn parts(text: &str, separator: char) -> Option<[f64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<f64>().ok());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    (parts.next().is_none() && found.iter().all(|part| *part >= 0.0)).then_some(found)
}

fn seconds(at: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(at).map_err(|_| format!("{at} is no time"))
}

/// A length of 0 counts as 1: traces have aborted requests.
fn length(tokens: u32) -> Result<u32, String> {
    if tokens <= LONGEST { Ok(tokens.max(1)) } else { Err(format!("{tokens} tokens are more than {LONGEST}")) }
}

const AZURE: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

const EXPECTED: &str = "{\"prompt\" or \"prompt_tokens\", \"output_tokens\"}, Mooncake's {\"timestamp\", \"input_length\", \
                        \"output_length\"}, or a CSV that begins with TIMESTAMP,ContextTokens,GeneratedTokens";

/// Tokens of one of Mooncake's blocks.
const BLOCK_TOKENS: u32 = 512;

/// Requests of the longest published trace, several times over.
const MOST_ITEMS: usize = 2_000_000;

/// As in `workload`.
const LONGEST: u32 = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(trace: &TraceFile) -> Vec<(u32, u32)> {
        let draw = |id| trace.draw(id as u64, 1).map(|draw| (draw.prompt_tokens, draw.output_tokens));
        (0..trace.len()).filter_map(draw).collect()
    }

    #[test]
    fn azure_times_have_seven_decimals_and_cross_midnight() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.6805900,374,44\r\n\
                    2023-11-17 00:00:00.1805900,396,109\r\n";
        let trace = TraceFile::parse(text).unwrap();
        assert_eq!(lengths(&trace), [(374, 44), (396, 109)]);
        let starts = trace.starts(trace.rate().unwrap());
        assert!((starts[1].as_secs_f64() - 0.5).abs() < 1e-4 && starts[0].is_zero(), "{starts:?}");
    }

    #[test]
    fn mooncake_requests_with_the_same_hash_ids_share_prompts() {
        let text = "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 7, 9]}\n\
                    {\"timestamp\": 2000, \"input_length\": 1100, \"output_length\": 6, \"hash_ids\": [0, 7, 8]}\n";
        let trace = TraceFile::parse(text).unwrap();
        let ((_, one), (_, other)) = (trace.request(0, 3).unwrap(), trace.request(1, 3).unwrap());
        assert_eq!((one.len(), other.len()), (4400, 4400));
        let shared = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        assert!((4096..4120).contains(&shared), "{shared}");
        assert_eq!(trace.rate().unwrap().per_second(), 1.0);
        assert_eq!(trace.starts(Rate::new(4.0).unwrap())[1], Duration::from_millis(500));
    }

    #[test]
    fn our_own_lines_hold_text_or_lengths_and_repeat() {
        let text = "{\"prompt\": \"Why is the sky blue?\", \"output_tokens\": 9}\n\n{\"prompt_tokens\": 12, \"max_tokens\": 3}\n";
        let trace = TraceFile::parse(text).unwrap();
        assert_eq!(trace.request(0, 1).unwrap().1, "Why is the sky blue?");
        assert_eq!(trace.request(3, 1).unwrap().0.prompt_tokens, 12);
        assert_ne!(trace.request(1, 1).unwrap().1, trace.request(3, 1).unwrap().1, "the same line is another request");
        assert_eq!(trace.rate(), None);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let line = |text: &str| TraceFile::parse(text).unwrap_err().to_string();
        assert_eq!(line(" \n"), "no request in it");
        assert!(line("a,b\n1,2\n").starts_with("line 1: an unknown header; expected "));
        assert!(
            line("{\"prompt_tokens\":1,\"output_tokens\":1}\n{\"output_tokens\":1}").starts_with("line 2: neither")
        );
        assert!(line("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13,1\n").starts_with("line 2: fewer"));
        assert!(line("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n").contains("`yesterday` is no time"));
        assert!(line("{\"prompt_tokens\":9999999,\"output_tokens\":1}").contains("more than 4194304"));
        assert!(line("{\"timestamp\":-5,\"prompt_tokens\":9,\"output_tokens\":1}").contains("is no time"));
        assert!(line("{\"prompt_tokens\":9,\"output_tokens\":1").starts_with("line 1: EOF"));
    }
}
