//! The series of each engine: built-in tables, and the report of one exposition by one of them.
//!
//! Names are matched exactly: a prefix match on `vllm:num_requests_waiting` would also take in its `_by_reason` sister.
//! Counts are summed over the ranks of a parallel engine (`engine`, `dp_rank`, `tp_rank`), shares of memory averaged.
//! Absent: HTTP, and any comparison with weir's own counts.

use super::settings::{EngineKind, Series, Spec};
use super::text::{self, SeriesLine};

/// The figures of one exposition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MetricsReport {
    /// Requests that the engine works on.
    pub running: Option<f64>,
    /// Requests that wait inside the engine, by reason.
    pub waiting: [Option<f64>; WaitingReason::COUNT],
    /// Share of KV memory in use, 0 to 1.
    pub kv_usage: Option<f64>,
    /// Size of KV memory in tokens.
    pub kv_tokens: Option<f64>,
    /// Most sequences in one batch.
    pub max_num_seqs: Option<f64>,
}

/// Why requests wait inside an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingReason {
    /// No slot or no memory is free: congestion.
    Capacity,
    /// An adapter budget or a KV transfer: no congestion.
    Deferred,
    /// The engine does not distinguish the two.
    All,
}

impl WaitingReason {
    pub const ALL: [Self; 3] = [Self::Capacity, Self::Deferred, Self::All];
    pub const COUNT: usize = Self::ALL.len();

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Deferred => "deferred",
            Self::All => "all",
        }
    }

    pub const fn index(self) -> usize {
        self as usize
    }
}

impl MetricsReport {
    /// All waiting requests; `None` when the engine does not count them.
    pub fn waiting(&self) -> Option<f64> {
        self.waiting.iter().flatten().copied().reduce(|a, b| a + b)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The series of one engine with their meanings.
#[derive(Clone, Debug)]
pub struct SeriesTable {
    pub engine: EngineKind,
    /// In order of preference: of several with one meaning, the first that the exposition holds counts.
    rows: Vec<(Meaning, Spec)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Running,
    Waiting(WaitingReason),
    KvUsage,
    KvTokens,
    /// KV memory in blocks, and the tokens of one block.
    KvBlocks,
    BlockTokens,
    MostSequences,
    /// Its labels hold the size of KV memory.
    CacheInfo,
}

/// The sum of one row's samples.
#[derive(Clone, Copy, Debug, Default)]
struct RowTally {
    sum: f64,
    samples: u32,
}

impl SeriesTable {
    /// The table of `engine` with `series` in place of its own; `None` for an engine that has no table.
    pub fn of(engine: EngineKind, series: &Series) -> Option<Self> {
        let mut rows: Vec<(Meaning, Spec)> = match engine {
            EngineKind::Auto | EngineKind::None => return None,
            EngineKind::Custom => Vec::new(),
            known => built_in(known).into_iter().map(|(meaning, typed)| (meaning, spec(typed))).collect(),
        };
        let own = [
            (Meaning::Running, &series.running),
            (Meaning::Waiting(WaitingReason::All), &series.waiting),
            (Meaning::KvUsage, &series.kv_usage),
        ];
        for (meaning, spec) in own.into_iter().filter_map(|(meaning, spec)| Some((meaning, spec.clone()?))) {
            rows.retain(|(known, _)| !known.replaced_by(meaning));
            rows.push((meaning, spec));
        }
        Some(Self { engine, rows })
    }

    /// The engine whose names an exposition uses. TGI is never found this way: it is archived, and must be configured.
    pub fn recognise(body: &[u8]) -> Option<EngineKind> {
        let found = |line: SeriesLine<'_>| PREFIXES.iter().find(|(prefix, _)| line.name.starts_with(prefix));
        text::lines(body).find_map(found).map(|(_, engine)| *engine)
    }

    /// Reads an exposition; `None` when it holds none of the table's series.
    pub fn read(&self, body: &[u8]) -> Option<MetricsReport> {
        let mut tallies = vec![RowTally::default(); self.rows.len()];
        for line in text::lines(body) {
            for ((meaning, spec), tally) in self.rows.iter().zip(&mut tallies) {
                if spec.name == line.name {
                    tally.add(*meaning, spec, line);
                }
            }
        }
        let report = self.sum_up(&tallies);
        (!report.is_empty()).then_some(report)
    }

    fn sum_up(&self, tallies: &[RowTally]) -> MetricsReport {
        let first = |wanted: Meaning| {
            let mut found = self.rows.iter().zip(tallies).filter(|((meaning, _), _)| *meaning == wanted);
            found.find(|(_, tally)| tally.samples > 0).map(|(_, tally)| *tally)
        };
        let count = |meaning| first(meaning).map(|tally| tally.sum);
        let mut waiting = WaitingReason::ALL.map(|reason| count(Meaning::Waiting(reason)));
        if waiting[WaitingReason::Capacity.index()].is_some() {
            waiting[WaitingReason::All.index()] = None;
        }
        let blocks = count(Meaning::KvBlocks).zip(first(Meaning::BlockTokens));
        let from_blocks = blocks.map(|(blocks, each)| blocks * each.mean());
        let kv_tokens = count(Meaning::CacheInfo).or(count(Meaning::KvTokens)).or(from_blocks);
        MetricsReport {
            running: count(Meaning::Running),
            waiting,
            kv_usage: first(Meaning::KvUsage).map(RowTally::mean).filter(|share| *share <= 1.0),
            kv_tokens: kv_tokens.filter(|tokens| *tokens >= 1.0),
            max_num_seqs: count(Meaning::MostSequences).filter(|slots| *slots >= 1.0),
        }
    }
}

impl Meaning {
    /// A configured waiting count stands for every built-in one.
    fn replaced_by(self, own: Self) -> bool {
        self == own || matches!((self, own), (Self::Waiting(_), Self::Waiting(_)))
    }
}

impl RowTally {
    fn add(&mut self, meaning: Meaning, spec: &Spec, line: SeriesLine<'_>) {
        let Some(sample) = line.sample() else { return };
        let carries = |(label, value): &(String, String)| sample.labels.get(label).is_some_and(|found| found == *value);
        let value = match meaning {
            Meaning::CacheInfo => kv_tokens_of(&sample.labels).unwrap_or(f64::NAN),
            _ => sample.value,
        };
        if value.is_finite() && value >= 0.0 && spec.labels.iter().all(carries) {
            self.sum += value;
            self.samples += 1;
        }
    }

    fn mean(self) -> f64 {
        self.sum / f64::from(self.samples)
    }
}

/// vLLM reports its KV memory in the labels of an info metric: in tokens, in older versions in blocks.
fn kv_tokens_of(labels: &text::Labels<'_>) -> Option<f64> {
    let number = |label| labels.get(label)?.parse::<u64>().ok().map(|number| number as f64);
    number("kv_cache_size_tokens").or_else(|| Some(number("num_gpu_blocks")? * number("block_size")?))
}

fn spec(typed: &str) -> Spec {
    typed.parse().unwrap_or_else(|_| Spec::named(typed))
}

/// Prefixes of each engine's names.
const PREFIXES: [(&str, EngineKind); 5] = [
    ("vllm:", EngineKind::Vllm),
    ("sglang:", EngineKind::Sglang),
    ("trtllm_", EngineKind::TrtllmServe),
    ("nv_trt_llm_", EngineKind::Triton),
    ("llamacpp:", EngineKind::Llamacpp),
];

fn built_in(engine: EngineKind) -> Vec<(Meaning, &'static str)> {
    use Meaning as M;
    match engine {
        EngineKind::Vllm => vec![
            (M::Running, "vllm:num_requests_running"),
            (M::Waiting(WaitingReason::Capacity), "vllm:num_requests_waiting_by_reason{reason=capacity}"),
            (M::Waiting(WaitingReason::Deferred), "vllm:num_requests_waiting_by_reason{reason=deferred}"),
            (M::Waiting(WaitingReason::All), "vllm:num_requests_waiting"),
            (M::KvUsage, "vllm:kv_cache_usage_perc"),
            (M::KvUsage, "vllm:gpu_cache_usage_perc"),
            (M::CacheInfo, "vllm:cache_config_info"),
        ],
        EngineKind::Sglang => vec![
            (M::Running, "sglang:num_running_reqs"),
            (M::Waiting(WaitingReason::All), "sglang:num_queue_reqs"),
            (M::KvUsage, "sglang:token_usage"),
            (M::KvTokens, "sglang:max_total_num_tokens"),
        ],
        EngineKind::TrtllmServe => vec![
            (M::Running, "trtllm_num_requests_running"),
            (M::Waiting(WaitingReason::All), "trtllm_num_requests_waiting"),
            (M::KvUsage, "trtllm_kv_cache_utilization"),
            (M::MostSequences, "trtllm_max_num_active_requests"),
        ],
        EngineKind::Triton => vec![
            (M::Running, "nv_trt_llm_request_metrics{request_type=scheduled}"),
            (M::Waiting(WaitingReason::All), "nv_trt_llm_request_metrics{request_type=waiting}"),
            (M::KvUsage, "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"),
            (M::KvBlocks, "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"),
            (M::BlockTokens, "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"),
            (M::MostSequences, "nv_trt_llm_request_metrics{request_type=max}"),
        ],
        EngineKind::Llamacpp => {
            vec![
                (M::Running, "llamacpp:requests_processing"),
                (M::Waiting(WaitingReason::All), "llamacpp:requests_deferred"),
            ]
        }
        EngineKind::Tgi => {
            vec![(M::Running, "tgi_batch_current_size"), (M::Waiting(WaitingReason::All), "tgi_queue_size")]
        }
        EngineKind::Auto | EngineKind::None | EngineKind::Custom => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(engine: EngineKind, text: &str) -> Option<MetricsReport> {
        SeriesTable::of(engine, &Series::default()).unwrap().read(text.as_bytes())
    }

    const VLLM: &str = "\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0
vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 4.0
vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 9.0
vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.2
vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.4
";

    #[test]
    fn counts_are_summed_over_ranks_and_shares_averaged() {
        let report = read(EngineKind::Vllm, VLLM).unwrap();
        assert_eq!(report.running, Some(7.0));
        assert!((report.kv_usage.unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(report.waiting, [None, None, Some(9.0)], "without the sister family the total is all there is");
    }

    #[test]
    fn the_reasons_replace_the_total_and_are_never_added_to_it() {
        let by_reason = "\
vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 5.0
vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"deferred\"} 4.0
";
        let report = read(EngineKind::Vllm, &[VLLM, by_reason].concat()).unwrap();
        assert_eq!(report.waiting, [Some(5.0), Some(4.0), None]);
        assert_eq!(report.waiting(), Some(9.0));
    }

    #[test]
    fn a_family_whose_name_merely_begins_alike_is_not_taken() {
        let alike = "vllm:num_requests_running_max 99\nvllm:num_requests_waiting_by_reason_total{reason=\"capacity\"} 9\n\
                     sglang:num_running_reqs 1\nmy_vllm:num_requests_running 5\n";
        assert_eq!(read(EngineKind::Vllm, alike), None);
    }

    #[test]
    fn the_size_of_kv_memory_is_read_where_the_engine_tells_it() {
        let info = |labels: &str| format!("vllm:cache_config_info{{{labels}}} 1.0\n");
        let blocks = info("block_size=\"16\",num_gpu_blocks=\"661\",cache_dtype=\"auto\"");
        assert_eq!(read(EngineKind::Vllm, &blocks).unwrap().kv_tokens, Some(10_576.0));
        let tokens = info("block_size=\"16\",num_gpu_blocks=\"None\",kv_cache_size_tokens=\"10500\"");
        assert_eq!(read(EngineKind::Vllm, &tokens).unwrap().kv_tokens, Some(10_500.0));
        assert_eq!(read(EngineKind::Vllm, &info("block_size=\"16\",num_gpu_blocks=\"None\"")), None);
        let triton = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\",model=\"m\"} 64\n\
                      nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"m\"} 100\n\
                      nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\"} 48\n";
        let report = read(EngineKind::Triton, triton).unwrap();
        assert_eq!((report.kv_tokens, report.max_num_seqs), (Some(6400.0), Some(48.0)));
    }

    #[test]
    fn nonsense_values_are_no_report() {
        for value in ["NaN", "-1", "+Inf", "many"] {
            assert_eq!(read(EngineKind::Llamacpp, &format!("llamacpp:requests_processing {value}\n")), None, "{value}");
        }
        assert_eq!(read(EngineKind::Sglang, "sglang:token_usage 37\n"), None, "a percentage is no share");
    }

    #[test]
    fn the_names_say_which_engine_it_is() {
        let of = |text: &str| SeriesTable::recognise(text.as_bytes());
        assert_eq!(of(VLLM), Some(EngineKind::Vllm));
        assert_eq!(of("python_info 1\nsglang:token_usage 0.1\n"), Some(EngineKind::Sglang));
        assert_eq!(of("trtllm_num_requests_running 1"), Some(EngineKind::TrtllmServe));
        assert_eq!(of("nv_gpu_utilization 1\nnv_trt_llm_request_metrics{} 1"), Some(EngineKind::Triton));
        assert_eq!(of("llamacpp:requests_processing 1"), Some(EngineKind::Llamacpp));
        assert_eq!(of("tgi_queue_size 1\nweir_mode 1\nvllm_x 1\n# TYPE vllm:x gauge"), None);
    }

    #[test]
    fn configured_series_replace_the_built_in_ones_and_only_those() {
        let own = Series { waiting: Some("my_queue{pool=a}".parse().unwrap()), ..Series::default() };
        let text = format!("{VLLM}my_queue{{pool=\"a\"}} 2\nmy_queue{{pool=\"b\"}} 50\n");
        let report = SeriesTable::of(EngineKind::Vllm, &own).unwrap().read(text.as_bytes()).unwrap();
        assert_eq!((report.running, report.waiting), (Some(7.0), [None, None, Some(2.0)]));
        let report = SeriesTable::of(EngineKind::Custom, &own).unwrap().read(text.as_bytes()).unwrap();
        assert_eq!((report.running, report.waiting()), (None, Some(2.0)));
        assert!(SeriesTable::of(EngineKind::None, &own).is_none() && SeriesTable::of(EngineKind::Auto, &own).is_none());
    }
}
