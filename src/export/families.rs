//! The families of `/metrics`: name, type and help of each, in the order in which they are written.
//!
//! Only families with a source are listed; a permanent zero misleads more than an absent family. docs/operate/metrics.md is made of
//! this list, and a test compares the two. Absent: values (`metrics`) and labels.

use super::exposition::{FamilyDescription, MetricKind};

macro_rules! families {
    ($($(#[$group:meta])* $constant:ident = $kind:ident $name:literal: $help:literal;)+) => {
        $($(#[$group])* #[doc = $help] pub const $constant: FamilyDescription =
            FamilyDescription { name: $name, kind: MetricKind::$kind, help: $help };)+

        /// Every family above.
        pub const ALL: &[FamilyDescription] = &[$($constant),+];
    };
}

families! {
    OFFERED = Counter "weir_requests_offered_total": "Well-formed client requests for a proxied generation route, before admission.";
    ADMITTED = Counter "weir_requests_admitted_total": "Requests dispatched to the backend, directly or from the queue.";
    SHED = Counter "weir_requests_shed_total": "Requests refused by weir before dispatch.";
    WOULD_SHED = Counter "weir_requests_would_shed_total": "Mode observe: requests that enforcement would have refused.";
    MOVED = Counter "weir_requests_moved_total": "Queued requests that another backend took over, counted at both backends.";
    ABANDONED = Counter "weir_requests_abandoned_total": "Requests whose client disconnected before the end.";
    FINISHED = Counter "weir_requests_finished_total": "Admitted requests that ended; code is the class sent to the client.";
    SLO = Counter "weir_slo_requests_total": "Requests judged against the configured objectives.";
    RETRIES = Counter "weir_upstream_retries_total": "Upstream attempts after the first; never after the first byte to the client.";
    WITHOUT_FIRST_TOKEN = Counter "weir_streams_without_first_token_total": "Admitted streaming requests that ended before any content token.";
    OPAQUE = Counter "weir_answers_opaque_total": "Answers in a content coding; weir relays them and counts neither their tokens nor their times.";
    STALLS = Counter "weir_stream_stalls_total": "Times an open stream stood still while others of its backend went on; evidence of preemption.";

    MODE = Gauge "weir_mode": "1 for the active mode, 0 for the other.";
    INFLIGHT = Gauge "weir_inflight_requests": "Requests at the backend now; prefill is before the first content token.";
    PENDING = Gauge "weir_first_token_pending": "Dispatched requests, streamed from the engine, without a first token now.";
    WINDOW = Gauge "weir_first_token_window": "Dispatched requests without a first token that the gate allows now.";
    KV_CAP = Gauge "weir_kv_cap_tokens": "Cap on prompt plus generated tokens in flight; +Inf when no cap is in force.";
    CONCURRENCY = Gauge "weir_concurrency_limit": "Limit of requests in flight, enforced in addition to the window; -1 when none is enforced.";
    QUEUE_DEPTH = Gauge "weir_queue_depth": "Requests in weir's queue now.";
    QUEUE_BYTES = Gauge "weir_queue_bytes": "Bytes of request bodies in the queue.";
    QUEUE_OLDEST = Gauge "weir_queue_oldest_age_seconds": "Age of the oldest queued request; 0 when the queue is empty.";
    QUEUE_MAX_WAIT = Gauge "weir_queue_max_wait_seconds": "Longest wait of the default class: the time that its first-token objective leaves for queueing.";
    DRAINING = Gauge "weir_draining": "1 while the process drains.";

    TTFT = Histogram "weir_time_to_first_token_seconds": "From arrival to first content token, queue wait included.";
    UPSTREAM_TTFT = Histogram "weir_upstream_time_to_first_token_seconds": "From dispatch to first content token, upstream streams only.";
    ITL = Histogram "weir_inter_token_latency_seconds": "Gap between content events divided by the event's tokens, weighted by tokens.";
    TPOT = Histogram "weir_time_per_output_token_seconds": "Time from first to last token over the tokens after the first, per request.";
    GAP = Histogram "weir_inter_event_gap_seconds": "Raw gap between consecutive content events of a stream.";
    DURATION = Histogram "weir_request_duration_seconds": "From arrival to last byte, admitted requests.";
    QUEUE_WAIT = Histogram "weir_queue_wait_seconds": "Time in weir's queue, for every exit; a request admitted directly counts as 0.";
    OVERHEAD = Histogram "weir_proxy_overhead_seconds": "weir's own processing, without queue and upstream.";

    INPUT_TOKENS = Counter "weir_input_tokens_total": "Prompt tokens, as the engine reports them in usage.";
    OUTPUT_TOKENS = Counter "weir_output_tokens_total": "Output tokens; chunks are counted events, used when the engine reports no usage.";
    REQUEST_INPUT = Histogram "weir_request_input_tokens": "Prompt length per request.";
    REQUEST_OUTPUT = Histogram "weir_request_output_tokens": "Output length per request.";
    CHUNKS = Counter "weir_stream_chunks_total": "Content events seen.";

    SATURATION_RATIO = Gauge "weir_saturation_ratio": "Requests in flight and queued over those in flight at the knee; NaN until a knee is known.";
    DEMAND_RATIO = Gauge "weir_demand_ratio": "Offered rate, shed included, over the capacity for the offered mix; NaN until a knee is known.";
    SATURATION_STATE = Gauge "weir_saturation_state": "1 for the active state, 0 for the others.";
    KNEE_CONCURRENCY = Gauge "weir_knee_concurrency": "In-flight requests at which the engine starts to queue.";
    KNEE_CONCURRENCY_LOW = Gauge "weir_knee_concurrency_low": "95 % interval of weir_knee_concurrency: lower end.";
    KNEE_CONCURRENCY_HIGH = Gauge "weir_knee_concurrency_high": "95 % interval of weir_knee_concurrency: upper end.";
    KNEE_REQUESTS = Gauge "weir_knee_requests_per_second": "Completion rate at the knee, for the offered mix.";
    KNEE_REQUESTS_LOW = Gauge "weir_knee_requests_per_second_low": "95 % interval of weir_knee_requests_per_second: lower end.";
    KNEE_REQUESTS_HIGH = Gauge "weir_knee_requests_per_second_high": "95 % interval of weir_knee_requests_per_second: upper end.";
    KNEE_TOKENS = Gauge "weir_knee_output_tokens_per_second": "Output token rate at the knee, for the offered mix.";
    KNEE_TOKENS_LOW = Gauge "weir_knee_output_tokens_per_second_low": "95 % interval of weir_knee_output_tokens_per_second: lower end.";
    KNEE_TOKENS_HIGH = Gauge "weir_knee_output_tokens_per_second_high": "95 % interval of weir_knee_output_tokens_per_second: upper end.";
    KNEE_CONFIDENCE = Gauge "weir_knee_confidence_ratio": "1 minus the half-width of the 95 % interval of weir_knee_requests_per_second over its value.";
    KNEE_UPDATED_AT = Gauge "weir_knee_last_update_timestamp_seconds": "Unix time of the last accepted estimate.";
    KNEE_UPDATES = Counter "weir_knee_updates_total": "Time blocks of saturation, accepted or rejected as evidence of the knee.";
    PREDICTED = Gauge "weir_capacity_predicted_requests_per_second": "Capacity predicted before any saturation was seen, for the offered mix.";
    PREDICTED_LOW = Gauge "weir_capacity_predicted_requests_per_second_low": "95 % interval of weir_capacity_predicted_requests_per_second: lower end.";
    PREDICTED_HIGH = Gauge "weir_capacity_predicted_requests_per_second_high": "95 % interval of weir_capacity_predicted_requests_per_second: upper end.";
    UPPER_BOUND = Gauge "weir_capacity_upper_bound_requests_per_second": "Highest capacity under any limits of the engine, for the offered mix.";
    LOWER_BOUND = Gauge "weir_capacity_lower_bound_requests_per_second": "Highest start rate over 10 s seen so far; absent once a knee is known.";
    STEP_SECONDS = Gauge "weir_engine_step_seconds": "Estimated time of one engine step, and of each decode and each prompt token in it.";
    SPEED_CHANGES = Counter "weir_engine_speed_changes_total": "Times the engine's step costs shifted persistently, at any load.";
    SAMPLES = Counter "weir_samples_faulty_total": "Samples that did not reach the estimate, or reached it too late for their order.";

    PROBE_ACTIVE = Gauge "weir_probe_active": "1 while synthetic load runs.";
    PROBE_HELD = Gauge "weir_probe_in_flight_target": "Synthetic requests in flight that the current step asks for.";
    PROBE_REQUESTS = Counter "weir_probe_requests_total": "Synthetic requests that ended.";
    PROBE_TTFT = Histogram "weir_probe_time_to_first_token_seconds": "First-token time of synthetic requests.";
    PROBE_LAST_AT = Gauge "weir_probe_last_run_timestamp_seconds": "Unix time of the last run's end.";
    PROBE_LAST_OK = Gauge "weir_probe_last_run_successful": "1 if the last run produced an accepted estimate.";

    BACKEND_UP = Gauge "weir_backend_up": "1 if the health check passes.";
    BAD_ANSWERS = Counter "weir_bad_answers_total": "Answers refused or cut off because they break a rule of HTTP or of their dialect.";
    SCRAPE_UP = Gauge "weir_backend_scrape_up": "1 if the last read of the engine's own metrics worked.";
    SCRAPE_AT = Gauge "weir_backend_scrape_timestamp_seconds": "Unix time of the last good read of the engine's own metrics.";
    REPORTED_RUNNING = Gauge "weir_backend_reported_running_requests": "Running requests, by the engine's own count.";
    REPORTED_WAITING = Gauge "weir_backend_reported_waiting_requests": "Waiting requests, by the engine's own count.";
    REPORTED_KV_USAGE = Gauge "weir_backend_reported_kv_cache_usage_ratio": "The engine's own KV memory usage, 0 to 1.";

    GPU_INFO = Gauge "weir_gpu_info": "Constant 1: a GPU's name, and the backend that runs on it.";
    GPU_UP = Gauge "weir_gpu_up": "1 while the GPU answers; 0 when it is lost or its driver hangs.";
    GPU_UTILIZATION = Gauge "weir_gpu_utilization_ratio": "Share of time in which a kernel ran; near 1 far below the knee, so it is context only.";
    GPU_MEMORY_USED = Gauge "weir_gpu_memory_used_bytes": "Device memory in use.";
    GPU_MEMORY_TOTAL = Gauge "weir_gpu_memory_total_bytes": "Device memory.";
    GPU_POWER = Gauge "weir_gpu_power_watts": "Power draw.";
    GPU_POWER_LIMIT = Gauge "weir_gpu_power_limit_watts": "Power limit that the driver enforces.";
    GPU_TEMPERATURE = Gauge "weir_gpu_temperature_celsius": "Core temperature.";
    GPU_CLOCK = Gauge "weir_gpu_clock_hertz": "Clock now.";
    GPU_CLOCK_MOST = Gauge "weir_gpu_clock_max_hertz": "Highest clock of the GPU.";
    GPU_THROTTLE = Gauge "weir_gpu_throttle_active": "1 while the driver throttles the clock for this reason.";
    GPU_THROTTLE_SECONDS = Counter "weir_gpu_throttle_seconds_total": "Time for which the driver throttled the clock for this reason.";
    GPU_ECC = Counter "weir_gpu_ecc_errors_total": "Memory errors since the driver was loaded.";
    GPU_XID = Counter "weir_gpu_xid_errors_total": "XID errors that the driver reported since weir started.";
    GPU_XID_LAST = Gauge "weir_gpu_xid_last_code": "Number of the last XID error; absent before the first.";
    GPU_MIG = Gauge "weir_gpu_mig_enabled": "1 if the GPU is divided into instances.";

    MALFORMED = Counter "weir_requests_malformed_total": "Requests refused as malformed before they were offered, by status sent.";
    CONNECTIONS = Gauge "weir_connections": "Client connections open now.";
    ACCEPT_ERRORS = Counter "weir_accept_errors_total": "Failed accept calls of the data port.";
    PANICS = Counter "weir_panics_total": "Panics; each one ends one request, one admin call or one task.";
    DROPPED = Counter "weir_entries_dropped_total": "Requests whose entry was dropped without an explicit end; each one is a panic or a cancelled task.";
    BODY_MEMORY = Gauge "weir_body_memory_bytes": "Bytes of request bodies, and of answers not yet sent on, held now; limits.body_memory bounds them.";
    JOURNAL = Counter "weir_journal_records_total": "Journal records, by result.";
    SPANS = Counter "weir_otlp_spans_total": "Spans, by result.";
    LOG_LOST = Counter "weir_log_lines_lost_total": "Log lines dropped because standard error was blocked.";
    LABEL_OVERFLOW = Counter "weir_label_overflow_total": "Observations folded into the label value other.";
    RELOAD_OK = Gauge "weir_config_last_reload_successful": "1 if the last reload of the configuration was accepted.";
    RELOADS = Counter "weir_config_reloads_total": "Reloads of the configuration, by result.";
    RELOAD_AT = Gauge "weir_config_last_reload_success_timestamp_seconds": "Unix time of the last accepted reload; start-up counts.";
    BUILD = Gauge "weir_build_info": "Constant 1, labelled with the build.";
}
