//! What the engine counts, under vLLM's names, in real seconds whatever the speed.
//!
//! One family is not vLLM's: `engine_sim_step_lateness_seconds`, how late the steps ended against their ideal instants,
//! shows how exactly this server keeps the model's time. A request with n choices counts as n requests.

use std::fmt::{self, Write};
use std::time::Duration;

use super::token::Finish;
use crate::engine::model::Engine;

/// Gauges, counters and histograms of one engine.
#[derive(Debug)]
pub struct Meter {
    running: usize,
    waiting: usize,
    kv_usage: f64,
    preemptions: u64,
    /// Size of KV memory; 0 before the first step.
    kv_tokens: u32,
    prompt_tokens: u64,
    output_tokens: u64,
    stopped: u64,
    cut_short: u64,
    aborted: u64,
    ttft: Histogram,
    itl: Histogram,
    e2e: Histogram,
    lateness: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            running: 0,
            waiting: 0,
            kv_usage: 0.0,
            preemptions: 0,
            kv_tokens: 0,
            prompt_tokens: 0,
            output_tokens: 0,
            stopped: 0,
            cut_short: 0,
            aborted: 0,
            ttft: Histogram::new(TTFT_BOUNDS),
            itl: Histogram::new(ITL_BOUNDS),
            e2e: Histogram::new(E2E_BOUNDS),
            lateness: Histogram::new(LATENESS_BOUNDS),
        }
    }
}

impl Meter {
    /// A sequence was submitted. Its prompt counts at once; vLLM counts it with the first token.
    pub fn on_submit(&mut self, prompt_tokens: u32) {
        self.prompt_tokens += u64::from(prompt_tokens);
    }

    /// N sequences were cancelled.
    pub fn on_abort(&mut self, sequences: u64) {
        self.aborted += sequences;
    }

    /// A token was emitted, this long after the one before and after the request's arrival.
    pub fn on_token(&mut self, index: u32, gap: Duration, age: Duration, finish: Option<Finish>) {
        self.output_tokens += 1;
        match index {
            0 => self.ttft.observe(age),
            _ => self.itl.observe(gap),
        }
        match finish {
            None => return,
            Some(Finish::Stop) => self.stopped += 1,
            Some(Finish::Length) => self.cut_short += 1,
        }
        self.e2e.observe(age);
    }

    /// A step ended this long after its ideal instant.
    pub fn on_step(&mut self, lateness: Duration) {
        self.lateness.observe(lateness);
    }

    /// The engine changed.
    pub fn on_state(&mut self, engine: &Engine) {
        self.running = engine.running();
        self.waiting = engine.waiting();
        self.kv_usage = engine.kv_usage();
        self.preemptions = engine.preemptions();
        self.kv_tokens = engine.params().kv_tokens.get();
    }

    /// The Prometheus text format. `model` is the model's name, quoted and escaped as JSON, which for the characters
    /// the format cares about is the same.
    pub fn exposition(&self, model: &str) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.put(&mut out, model);
        out
    }

    fn put(&self, out: &mut String, model: &str) -> fmt::Result {
        let labels = &format!("engine=\"0\",model_name={model}");
        let mut one = |kind: &str, name: &str, help: &str, value: f64| {
            write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value:?}\n")
        };
        one(
            "gauge",
            "vllm:num_requests_running",
            "Number of requests in model execution batches.",
            self.running as f64,
        )?;
        one("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed.", self.waiting as f64)?;
        one("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", self.kv_usage)?;
        one("counter", "vllm:num_preemptions_total", "Cumulative number of preemptions.", self.preemptions as f64)?;
        one("counter", "vllm:prompt_tokens_total", "Number of prompt tokens submitted.", self.prompt_tokens as f64)?;
        one("counter", "vllm:generation_tokens_total", "Number of tokens generated.", self.output_tokens as f64)?;

        if self.kv_tokens > 0 {
            let (name, tokens, blocks) = ("vllm:cache_config_info", self.kv_tokens, self.kv_tokens / KV_BLOCK);
            write!(out, "# HELP {name} Information of the cache configuration.\n# TYPE {name} gauge\n")?;
            let sizes =
                format!("block_size=\"{KV_BLOCK}\",num_gpu_blocks=\"{blocks}\",kv_cache_size_tokens=\"{tokens}\"");
            writeln!(out, "{name}{{{labels},{sizes}}} 1.0")?;
        }

        let name = "vllm:request_success_total";
        write!(out, "# HELP {name} Count of ended requests.\n# TYPE {name} counter\n")?;
        for (reason, count) in [("stop", self.stopped), ("length", self.cut_short), ("abort", self.aborted)] {
            writeln!(out, "{name}{{{labels},finished_reason=\"{reason}\"}} {count}.0")?;
        }
        let name = "vllm:num_requests_waiting_by_reason";
        write!(out, "# HELP {name} Number of requests waiting, by reason.\n# TYPE {name} gauge\n")?;
        for (reason, count) in [("capacity", self.waiting), ("deferred", 0)] {
            writeln!(out, "{name}{{{labels},reason=\"{reason}\"}} {count}.0")?;
        }
        self.ttft.put(out, "vllm:time_to_first_token_seconds", "Time to first token.", labels)?;
        self.itl.put(out, "vllm:inter_token_latency_seconds", "Time between tokens.", labels)?;
        self.e2e.put(out, "vllm:e2e_request_latency_seconds", "Arrival to last token.", labels)?;
        self.lateness.put(out, "engine_sim_step_lateness_seconds", "End of a step against its ideal end.", labels)
    }
}

/// Counts per bucket; the last one is what exceeds every bound.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, span: Duration) {
        let seconds = span.as_secs_f64();
        self.counts[self.bounds.partition_point(|&bound| bound < seconds)] += 1;
        self.sum += seconds;
    }

    fn put(&self, out: &mut String, name: &str, help: &str, labels: &str) -> fmt::Result {
        write!(out, "# HELP {name} {help}\n# TYPE {name} histogram\n")?;
        let mut total = 0;
        for (position, count) in self.counts.iter().enumerate() {
            total += count;
            match self.bounds.get(position) {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {total}.0")?,
                None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}.0")?,
            }
        }
        writeln!(out, "{name}_count{{{labels}}} {total}.0")?;
        writeln!(out, "{name}_sum{{{labels}}} {:?}", self.sum)
    }
}

// The first three are vLLM's own bounds, in seconds.
/// Tokens in a block of KV memory, for the names' sake: this engine counts in tokens.
const KV_BLOCK: u32 = 16;
const TTFT_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const ITL_BOUNDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const E2E_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
/// A parked thread wakes within tens of microseconds; a starved one takes milliseconds.
const LATENESS_BOUNDS: &[f64] =
    &[0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_carry_vllms_names_and_labels() {
        let mut meter = Meter::default();
        meter.on_submit(12);
        meter.on_token(0, Duration::from_millis(30), Duration::from_millis(30), None);
        meter.on_token(1, Duration::from_millis(20), Duration::from_millis(50), Some(Finish::Length));
        meter.on_abort(2);
        let text = meter.exposition("\"m\"");
        for line in [
            "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0.0",
            "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 12.0",
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 2.0",
            "vllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"length\"} 1.0",
            "vllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"abort\"} 2.0",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.02\"} 0.0",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.04\"} 1.0",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"+Inf\"} 1.0",
            "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"m\"} 1.0",
            "vllm:e2e_request_latency_seconds_sum{engine=\"0\",model_name=\"m\"} 0.05",
        ] {
            assert!(text.lines().any(|present| present == line), "{line}\nis not in\n{text}");
        }
    }
}
