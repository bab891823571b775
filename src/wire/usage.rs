//! Reports of usage, and what they add up to.
//!
//! **Output** is the sum of all reports in events of their own (`choices:[]`): llama.cpp sends one a choice, each for that
//! choice alone, vLLM one for all. Without such an event it is the largest report of each choice, summed over the
//! choices: continuous reports are cumulative. A whole answer has one report; llama.cpp, known by its `timings`, counts
//! one choice there, which is taken for the others too: an estimate, exact where all ran to the same length.
//!
//! **Input and cached tokens** belong to a prompt, and all choices of one prompt repeat them: they are not added. One
//! prompt: the largest report. Several prompts (only OpenAI's completions and the native dialects have those): the sum of
//! the reports, divided by the choices that each prompt has. How many prompts there are the request knows; where it is unknown,
//! a choice counts as a prompt of its own there, as in llama.cpp's stream of two prompts.
//!
//! **Belief.** A count beyond [`USAGE_LIMIT`], or of less output than there were content events, is not believed.
//! Anthropic's `message_start` carries a placeholder for output, which is never believed; only `message_delta` is.

use super::count::{Count, TokenReport, sum};
use super::dialect::{Dialect, has_sequences};
use super::event::Event;
use super::sequences::Sequences;
use crate::vocabulary::usage::Usage;

/// The reports of one answer, but for those that stand beside one sequence: `Sequences` keeps them.
#[derive(Debug, Default)]
pub(super) struct TokenReports {
    /// Prompts of the request, if known.
    pub prompts: Option<u32>,
    apart: Apart,
    /// Beside several choices in one event: for all of them together.
    shared: TokenReport,
    cache_read: Option<Count>,
    cache_written: Option<Count>,
}

/// Reports in events of their own.
#[derive(Clone, Copy, Debug, Default)]
struct Apart {
    sum: TokenReport,
    largest: TokenReport,
}

impl TokenReports {
    /// An event that has no choices reports.
    pub fn on_report_apart(&mut self, report: TokenReport) {
        self.apart.add(report);
    }

    /// An event that has several choices reports.
    pub fn on_shared_report(&mut self, report: TokenReport) {
        self.shared.raise(report);
    }

    /// What Anthropic's input leaves out.
    pub fn hear_cache(&mut self, event: &Event) {
        self.cache_read = self.cache_read.max(event.cache_read);
        self.cache_written = self.cache_written.max(event.cache_written);
    }

    /// The report of a whole answer that is not a stream.
    pub fn on_answer(&mut self, dialect: Dialect, event: &Event) {
        let mut report = event.list.unwrap_or(event.report);
        report.output = report.output.or(event.running);
        if dialect == Dialect::AnthropicMessages {
            self.hear_cache(event);
        }
        let choices = u64::from(event.choices.count());
        if event.timings && choices > 1 {
            let prompts = match (dialect, self.prompts) {
                (Dialect::OpenAiCompletions, None) => choices,
                (Dialect::OpenAiCompletions, Some(prompts)) => u64::from(prompts),
                _ => 1,
            };
            report.input = report.input.map(|n| n.times(prompts));
            report.cached = report.cached.map(|n| n.times(prompts));
            report.output = report.output.map(|n| n.times(choices));
        }
        self.apart = Apart { sum: report, largest: report };
    }

    /// What is believed of all reports, beside `content_events` that were seen.
    pub fn usage(&self, dialect: Dialect, sequences: &Sequences, content_events: u64) -> Option<Usage> {
        let mut beside = Apart::default();
        sequences.iter().for_each(|sequence| beside.add(sequence.report));
        beside.sum.raise(self.shared);
        beside.largest.raise(self.shared);
        let sum_of = self.apart.sum.or(beside.sum);
        let largest = self.apart.largest.or(beside.largest);
        let of_prompts = |summed: Option<Count>, largest: Option<Count>| match self.choices_a_prompt(dialect, sequences)
        {
            Some(choices) => summed.map(|n| n.get() / u64::from(choices)),
            None => largest.map(Count::get),
        };
        let left_out = sum(self.cache_read, self.cache_written).map_or(0, Count::get);
        let usage = Usage {
            input: of_prompts(sum_of.input, largest.input).map(|n| n.saturating_add(left_out)).filter(is_believed),
            output: sum_of.output.map(Count::get).filter(is_believed).filter(|n| *n >= content_events),
            cached: of_prompts(sum_of.cached, largest.cached).or(self.cache_read.map(Count::get)).filter(is_believed),
        };
        (usage != Usage::default()).then_some(usage)
    }

    /// Choices that share a prompt; `None`: there is one prompt, and all share it.
    fn choices_a_prompt(&self, dialect: Dialect, sequences: &Sequences) -> Option<u32> {
        let several = matches!(dialect, Dialect::OpenAiCompletions) || has_sequences(dialect);
        match self.prompts {
            _ if !several => None,
            Some(0 | 1) => None,
            Some(prompts) => Some((sequences.count() / prompts).max(1)),
            None => Some(1),
        }
    }
}

impl Apart {
    fn add(&mut self, report: TokenReport) {
        self.sum.add(report);
        self.largest.raise(report);
    }
}

/// A count that can be one.
pub(super) fn believed(count: Count) -> Option<u32> {
    u32::try_from(count.get()).ok().filter(|n| is_believed(&u64::from(*n)))
}

fn is_believed(n: &u64) -> bool {
    *n <= USAGE_LIMIT
}

/// No engine generates that many tokens for one request; a larger report is not believed.
const USAGE_LIMIT: u64 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::super::{BodyFormat, StreamReading, StreamScanner};
    use super::*;

    fn reads(scanner: StreamScanner, payloads: &[&str]) -> (StreamReading, Vec<u32>) {
        let (mut scanner, mut tokens) = (scanner, Vec::new());
        for payload in payloads {
            scanner.feed(format!("data: {payload}\n\n").as_bytes(), |emission| tokens.push(emission.tokens));
        }
        scanner.finish(|_| {});
        (scanner.reading(), tokens)
    }

    fn sse(dialect: Dialect) -> StreamScanner {
        StreamScanner::new(dialect, BodyFormat::Sse)
    }

    fn answer(scanner: StreamScanner, body: &str) -> Usage {
        let mut scanner = scanner;
        scanner.feed(body.as_bytes(), |_| {});
        scanner.finish(|_| {});
        scanner.reading().usage.unwrap()
    }

    fn usage(input: u64, output: u64) -> Option<Usage> {
        Some(Usage { input: Some(input), output: Some(output), cached: None })
    }

    fn chat(index: u32, more: &str) -> String {
        format!(r#"{{"choices":[{{"index":{index},"delta":{{"content":"x"}}}}]{more}}}"#)
    }

    #[test]
    fn continuous_usage_is_followed_for_each_choice() {
        let event = |index, input, output| {
            chat(index, &format!(r#","usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}"#))
        };
        let events = [event(0, 7, 1), event(1, 7, 2), event(0, 7, 4), event(1, 7, 3), event(1, 7, 9)];
        let events = events.each_ref().map(String::as_str);
        let (reading, tokens) = reads(sse(Dialect::OpenAiChat), &events);
        assert_eq!((tokens, reading.running), (vec![1, 2, 3, 1, 6], true));
        assert_eq!(reading.usage, usage(7, 4 + 9), "one prompt, shared by both choices");
        // Two prompts: each choice has one of its own; one prompt: both share it; and where it is unknown, as in chat or as in completions.
        let completions = || sse(Dialect::OpenAiCompletions);
        assert_eq!(reads(completions().with_prompts(2), &events).0.usage, usage(14, 13));
        assert_eq!(reads(completions().with_prompts(1), &events).0.usage, usage(7, 13));
        assert_eq!(reads(completions(), &events).0.usage, usage(14, 13));
    }

    #[test]
    fn reports_in_own_events_are_summed_and_take_precedence() {
        let beside = chat(0, r#","usage":{"prompt_tokens":7,"completion_tokens":1}"#);
        let own = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}"#;
        let (reading, _) = reads(sse(Dialect::OpenAiChat), &[&beside, own, own]);
        assert_eq!(reading.usage, Some(Usage { input: Some(7), output: Some(6), cached: Some(2) }));
        let two_prompts_each_twice = reads(
            sse(Dialect::OpenAiCompletions).with_prompts(2),
            &[&chat(0, ""), &chat(1, ""), &chat(2, ""), &chat(3, ""), own, own, own, own],
        );
        assert_eq!(two_prompts_each_twice.0.usage, Some(Usage { input: Some(14), output: Some(12), cached: Some(4) }));
        let nulls = r#"{"choices":[],"usage":null}"#;
        assert_eq!(reads(sse(Dialect::OpenAiChat), &[nulls, "{}"]).0.usage, None);
    }

    #[test]
    fn identifiers_of_tokens_are_counted_for_each_choice() {
        let event = |index: u32, text: &str, ids: &str| {
            format!(r#"{{"choices":[{{"index":{index},"text":"{text}","token_ids":{ids}}}]}}"#)
        };
        let events = [
            event(0, "a", "[1,2]"),
            event(1, "", "[3]"),
            event(1, "b", "[4,5]"),
            event(0, "c", "null"),
            event(0, "d", "[]"),
        ];
        let (reading, tokens) = reads(sse(Dialect::OpenAiCompletions), &events.each_ref().map(String::as_str));
        assert_eq!((tokens, reading.counted_tokens), (vec![2, 3, 1, 1], 7));
    }

    #[test]
    fn an_event_with_several_choices_is_one_emission() {
        let both = r#"{"choices":[{"index":0,"delta":{"content":"x"}},{"index":1,"delta":{"content":"y"}},{"index":2,"delta":{}}],"usage":{"completion_tokens":5}}"#;
        let (reading, tokens) = reads(sse(Dialect::OpenAiChat), &[both, both]);
        assert_eq!((tokens, reading.usage), (vec![2, 2], Some(Usage { output: Some(5), ..Usage::default() })));
    }

    #[test]
    fn a_report_for_all_choices_is_not_added_to_single_ones() {
        let one = chat(0, r#","usage":{"prompt_tokens":7,"completion_tokens":2}"#);
        let both = r#"{"choices":[{"index":0,"delta":{}},{"index":1,"delta":{}}],"usage":{"prompt_tokens":7,"completion_tokens":5}}"#;
        assert_eq!(reads(sse(Dialect::OpenAiChat), &[&one, both]).0.usage, usage(7, 5));
    }

    #[test]
    fn every_choice_must_finish() {
        let finish = |index: u32, reason: &str| {
            format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":{reason}}}]}}"#)
        };
        let finished = |events: &[String]| {
            reads(sse(Dialect::OpenAiChat), &events.iter().map(String::as_str).collect::<Vec<_>>()).0.finished
        };
        assert!(!finished(&[]));
        assert!(finished(&[chat(0, ""), finish(0, "\"stop\"")]));
        assert!(!finished(&[chat(0, ""), chat(90, ""), finish(0, "\"stop\"")]));
        assert!(finished(&[chat(0, ""), chat(90, ""), finish(90, "\"length\""), finish(0, "\"stop\"")]));
        assert!(!finished(&[chat(0, ""), finish(0, "\"\"")]) && !finished(&[chat(0, ""), finish(0, "null")]));
    }

    #[test]
    fn usage_that_lies_is_not_believed() {
        let events = [chat(0, ""), chat(0, ""), chat(0, "")];
        for lie in ["1", "18446744073709551615", "99999999999", "-5", "4.5", "\"7\""] {
            let own = format!(r#"{{"choices":[],"usage":{{"completion_tokens":{lie}}}}}"#);
            let payloads = [&events[0], &events[1], &events[2], own.as_str()];
            assert_eq!(reads(sse(Dialect::OpenAiChat), &payloads).0.usage, None, "{lie}");
        }
        let running = chat(0, r#","usage":{"completion_tokens":18446744073709551615}"#);
        assert_eq!(reads(sse(Dialect::OpenAiChat), &[&running, &running]).1, [1, 1]);
    }

    #[test]
    fn anthropic_cached_tokens_are_input_its_placeholder_is_not() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":5,"cache_creation_input_tokens":3,"output_tokens":1}}}"#;
        let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":12}}"#;
        let reading = |events: &[&str]| reads(sse(Dialect::AnthropicMessages), events).0;
        let (input, cached) = (Some(18), Some(5));
        assert_eq!(reading(&[start]).usage, Some(Usage { input, output: None, cached }));
        let whole = reading(&[start, delta]);
        assert_eq!(
            (whole.usage, whole.finished, whole.terminated),
            (Some(Usage { input, output: Some(12), cached }), true, false)
        );
        let again = delta.replace("12", r#"12,"input_tokens":10,"cache_read_input_tokens":5"#);
        assert_eq!(reading(&[start, &again]).usage, whole.usage, "repeated, not added");
        let body = r#"{"type":"message","usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}"#;
        let usage = answer(StreamScanner::new(Dialect::AnthropicMessages, BodyFormat::Json), body);
        assert_eq!(usage, Usage { input: Some(15), output: Some(1), cached: Some(5) });
    }

    #[test]
    fn a_native_stream_ends_with_the_last_of_its_prompts() {
        let event = |index: u32, text: &str, predicted: u32, stop: bool| {
            format!(
                r#"{{"index":{index},"content":"{text}","stop":{stop},"tokens_predicted":{predicted},"tokens_evaluated":4}}"#
            )
        };
        let events = [
            event(0, "a", 1, false),
            event(0, "b", 3, false),
            event(0, "", 3, true),
            event(1, "c", 2, false),
            event(1, "", 2, true),
        ];
        let events = events.each_ref().map(String::as_str);
        let native = || sse(Dialect::LlamacppNative).with_prompts(2);
        let (reading, tokens) = reads(native(), &events);
        assert_eq!((tokens, reading.usage, reading.terminated), (vec![1, 2, 2], usage(8, 5), true));
        for until in 0..events.len() {
            assert!(!reads(native(), &events[..until]).0.terminated, "{until} events");
        }
    }

    #[test]
    fn sglangs_text_may_be_repeated_or_not() {
        let event = |index: u32, text: &str, tokens: u32| {
            format!(
                r#"{{"index":{index},"text":"{text}","meta_info":{{"completion_tokens":{tokens},"prompt_tokens":4,"finish_reason":null}}}}"#
            )
        };
        let cumulative =
            [event(0, "", 0), event(0, "abc", 1), event(1, "abc", 2), event(0, "abcdef", 4), event(0, "abcdef", 4)];
        let (reading, tokens) = reads(sse(Dialect::SglangNative), &cumulative.each_ref().map(String::as_str));
        assert_eq!((tokens, reading.usage, reading.finished), (vec![1, 2, 3], usage(8, 6), false));
        let incremental = [event(0, "abc", 1), event(0, "d", 2), event(0, "e", 3)];
        assert_eq!(reads(sse(Dialect::SglangNative), &incremental.each_ref().map(String::as_str)).1, [1, 1, 1]);
    }

    #[test]
    fn an_answer_that_is_a_list_reports_the_sum_of_its_objects() {
        let native = StreamScanner::new(Dialect::LlamacppNative, BodyFormat::Json);
        let body = r#"[{"content":"a","tokens_predicted":3,"tokens_evaluated":4},{"tokens_predicted":2,"tokens_evaluated":5}]"#;
        assert_eq!(Some(answer(native, body)), usage(9, 5));
        let sglang = StreamScanner::new(Dialect::SglangNative, BodyFormat::Json);
        let body = r#"[{"meta_info":{"prompt_tokens":4,"completion_tokens":3}},{"meta_info":{"prompt_tokens":1,"completion_tokens":1}}]"#;
        assert_eq!(Some(answer(sglang, body)), usage(5, 4));
    }

    #[test]
    fn only_llamacpp_reports_one_choice_for_all() {
        let body = |timings: &str| {
            format!(
                r#"{{"choices":[{{"index":0}},{{"index":1}}],"usage":{{"prompt_tokens":7,"completion_tokens":3}}{timings}}}"#
            )
        };
        let json = |dialect| StreamScanner::new(dialect, BodyFormat::Json);
        let llamacpp = body(r#","timings":{"predicted_n":3}"#);
        assert_eq!(Some(answer(json(Dialect::OpenAiChat), &llamacpp)), usage(7, 6));
        assert_eq!(Some(answer(json(Dialect::OpenAiChat), &body(""))), usage(7, 3));
        assert_eq!(Some(answer(json(Dialect::OpenAiCompletions).with_prompts(1), &llamacpp)), usage(7, 6));
        assert_eq!(Some(answer(json(Dialect::OpenAiCompletions).with_prompts(2), &llamacpp)), usage(14, 6));
    }

    #[test]
    fn a_broken_answer_says_nothing() {
        let mut scanner = StreamScanner::new(Dialect::OpenAiChat, BodyFormat::Json);
        scanner.feed(br#"{"usage":{"prompt_tokens":7,"completion_tokens":3}"#, |_| {});
        scanner.finish(|_| {});
        assert_eq!((scanner.reading().usage, scanner.reading().finished), (None, false));
    }
}
