//! Advice for the engines' own limits, from the knee: how many requests to run at once, and how many may wait.
//!
//! The batch is as large as what is in flight at the knee: more brings no throughput. What may wait is work for a short time, so
//! that the engine's refusal is the last resort and weir's, which says when to retry, is the first. It changes no setting.

use super::reading::{Estimate, Knee, Regime};

/// One setting of one engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advice {
    /// The engine's name as its project writes it.
    pub engine: &'static str,
    /// The flag, variable or field.
    pub setting: &'static str,
    /// What to set it to.
    pub value: u64,
    /// The same for the lower end of the knee.
    pub low: u64,
    /// The same for its upper end.
    pub high: u64,
    /// What the engine counts against it.
    pub counts: CountedBy,
    /// What binds the engine at the knee, where that is known.
    pub regime: Option<Regime>,
}

/// What an engine counts against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// Sequences in the batch.
    Running,
    /// Requests that wait to join it.
    Waiting,
    /// Both.
    Both,
}

/// Advice for every engine in the table, from the requests in flight and the requests per second at the knee; empty where
/// either is not a finite number above zero.
pub fn advice(in_flight: Estimate, requests_per_second: Estimate, regime: Option<Regime>) -> Vec<Advice> {
    let known = |estimate: Estimate| estimate.value.is_finite() && estimate.value > 0.0;
    if !(known(in_flight) && known(requests_per_second)) {
        return Vec::new();
    }
    let of = |counts: CountedBy, end: fn(Estimate) -> f64| {
        let (running, waiting) = (whole(end(in_flight)), whole(WORK_SECONDS * end(requests_per_second)));
        match counts {
            CountedBy::Running => running,
            CountedBy::Waiting => waiting,
            CountedBy::Both => running + waiting,
        }
    };
    let made = SETTINGS.iter().map(|(engine, setting, counts)| Advice {
        engine,
        setting,
        value: of(*counts, |estimate| estimate.value),
        low: of(*counts, |estimate| estimate.low),
        high: of(*counts, |estimate| estimate.high),
        counts: *counts,
        regime,
    });
    made.collect()
}

impl Knee {
    /// Advice for the engine behind the backend whose knee this is.
    pub fn advice(&self) -> Vec<Advice> {
        advice(self.in_flight, self.requests_per_second, Some(self.regime))
    }
}

impl Advice {
    /// Why this value, in a sentence.
    pub fn why(&self) -> String {
        let Self { value, low, high, .. } = self;
        match self.counts {
            CountedBy::Running => format!(
                "About {value} requests ({low} to {high}) are in flight at the knee, and more in the batch bring no throughput{}.",
                match self.regime {
                    Some(Regime::Slots) =>
                        "; the slots bind, so the limit in force is near this, and a larger one is worth another sweep",
                    Some(Regime::Kv) => "; KV memory binds, so a larger one only preempts",
                    Some(Regime::Prefill) => "; prompts bind, so a smaller one may cost nothing",
                    Some(Regime::Mixed | Regime::Unknown) | None => "",
                }
            ),
            CountedBy::Waiting => format!(
                "{value} requests ({low} to {high}) are {WORK_SECONDS:.0} s of work at the knee's rate: a request that waits behind more is late, and is better refused at once."
            ),
            CountedBy::Both => format!(
                "This limit counts what runs and what waits: the requests in flight at the knee and {WORK_SECONDS:.0} s of work, {value} ({low} to {high})."
            ),
        }
    }
}

/// At least one: some engines read 0 as "no limit".
fn whole(value: f64) -> u64 {
    // A knee is far below 2^53; a NaN becomes 1.
    value.round().max(1.0) as u64
}

/// Twice the default objective for the first token: weir's own gate refuses first.
const WORK_SECONDS: f64 = 2.0;

/// The engines' own names, and what they count. vLLM's second and TGI's count what runs as well as what waits.
const SETTINGS: [(&str, &str, CountedBy); 10] = [
    ("vLLM", "--max-num-seqs", CountedBy::Running),
    ("vLLM", "--max-num-queued-reqs", CountedBy::Both),
    ("SGLang", "--max-running-requests", CountedBy::Running),
    ("SGLang", "--max-queued-requests", CountedBy::Waiting),
    ("TensorRT-LLM", "max_batch_size", CountedBy::Running),
    ("TGI", "--max-concurrent-requests", CountedBy::Both),
    ("llama.cpp", "-np", CountedBy::Running),
    ("Ollama", "OLLAMA_NUM_PARALLEL", CountedBy::Running),
    ("Ollama", "OLLAMA_MAX_QUEUE", CountedBy::Waiting),
    ("llm-d", "maxConcurrency", CountedBy::Running),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(value: f64) -> Estimate {
        Estimate::around(value, 0.1 * value)
    }

    #[test]
    fn what_runs_is_the_knee_and_what_waits_is_two_seconds_of_work() {
        let made = advice(at(91.0), at(13.0), Some(Regime::Slots));
        let of = |setting: &str| *made.iter().find(|advice| advice.setting == setting).unwrap();
        assert_eq!((of("--max-num-seqs").value, of("--max-num-seqs").low, of("--max-num-seqs").high), (91, 82, 100));
        assert_eq!((of("--max-queued-requests").value, of("--max-num-queued-reqs").value), (26, 117));
        assert!(of("-np").why().contains("the slots bind"));
        assert_eq!(made.len(), SETTINGS.len());
    }

    #[test]
    fn without_a_knee_there_is_no_advice() {
        for (in_flight, rate) in [(0.0, 13.0), (91.0, 0.0), (f64::NAN, 13.0), (f64::INFINITY, 13.0)] {
            assert_eq!(advice(at(in_flight), at(rate), None), vec![], "{in_flight} {rate}");
        }
    }

    #[test]
    fn no_limit_is_zero() {
        assert!(advice(at(0.2), at(0.1), None).iter().all(|advice| advice.low >= 1 && advice.low <= advice.high));
    }
}
