"""One backend, a replica at a time: is the load spread, what does the gate do, what does the engine say, what does the GPU say."""

from kit import GREEN, GREY, RED, YELLOW, dashed, page, panel, states
from overview import STATES, mean, quantile, quantiles, rate

UP = [{"type": "value", "options": {"0": {"text": "down", "color": RED, "index": 0}, "1": {"text": "up", "color": GREEN, "index": 1}}}]
DOUBTS = 'namespace=~"$namespace",model_name=~"$model_name"'


def balance():
    return [
        panel("timeseries", "Is the load spread evenly?", "weir_saturation_ratio by instance. A spread is a fault of the balancer in front: long streams are not divided.", [("max by (instance) (weir_saturation_ratio{D})", "{{instance}}")], unit="percentunit", thresholds=[(None, GREEN), (0.8, YELLOW), (1, RED)]),
        panel("timeseries", "What does each replica get?", "weir_requests_offered_total by instance.", [("sum by (instance) (rate(weir_requests_offered_total{D}[R]))", "{{instance}}")], unit="reqps"),
        panel("state-timeline", "Which replica was saturated, and when?", "weir_saturation_state by instance.", [("max by (instance) " + STATES.replace("{S,", "{D,"), "{{instance}}")], mappings=states()),
    ]


def gate():
    return [
        panel("timeseries", "What is in flight?", "weir_inflight_requests by phase; prefill has no first token yet.", [("sum by (phase) (weir_inflight_requests{D})", "{{phase}}")], stacked=True),
        panel("timeseries", "How far is the window open?", "weir_first_token_window and what uses it.", [("sum by (instance) (weir_first_token_window{D})", "window {{instance}}"), ("sum by (instance) (weir_first_token_pending{D})", "pending {{instance}}")]),
        panel("timeseries", "Is the KV memory capped?", "weir_kv_cap_tokens, only while in force: streams were preempted for lack of memory.", [("min by (instance) (weir_kv_cap_tokens{D} < +Inf)", "{{instance}}")], noValue="no cap in force"),
        panel("timeseries", "What waits?", "weir_queue_depth by class.", [("sum by (priority) (weir_queue_depth{D})", "{{priority}}")], stacked=True),
        panel("timeseries", "How long has the oldest waited?", "weir_queue_oldest_age_seconds against weir_queue_max_wait_seconds, the wait that the objective allows.", [("max(weir_queue_oldest_age_seconds{D})", "oldest"), ("max(weir_queue_max_wait_seconds{D})", "limit")], unit="s", overrides=[dashed("limit")]),
        panel("timeseries", "How much memory does the queue hold?", "weir_queue_bytes: bodies of requests that wait.", [("sum(weir_queue_bytes{D})", "queue")], unit="bytes"),
    ]


def engine():
    return [
        panel("timeseries", "Does the engine agree with us?", "Its own running and waiting counts beside weir's in-flight. More running than in flight: another client uses the engine without weir.", [("sum(weir_backend_reported_running_requests{D})", "engine: running"), ("sum by (reason) (weir_backend_reported_waiting_requests{D})", "engine: waiting ({{reason}})"), ("sum(weir_inflight_requests{D})", "weir: in flight")]),
        panel("timeseries", "How full is the KV cache?", "weir_backend_reported_kv_cache_usage_ratio.", [("max by (instance) (weir_backend_reported_kv_cache_usage_ratio{D})", "{{instance}}")], unit="percentunit", min=0, max=1),
        panel("state-timeline", "Can the engine be reached?", "weir_backend_up is the health check, weir_backend_scrape_up the reading of its metrics.", [("min by (instance) (weir_backend_up{E})", "{{instance}}"), ("min by (instance, engine) (weir_backend_scrape_up{D})", "metrics of {{engine}} {{instance}}")], mappings=UP),
        panel("timeseries", "How old is what the engine says?", "Age of the last good reading of its metrics. Control never waits for it.", [("time() - min by (instance) (weir_backend_scrape_timestamp_seconds{D})", "{{instance}}")], unit="s"),
        panel("timeseries", "Do both see the same first token?", "Mean TTFT at the engine as weir stamps it, and as vLLM reports it itself.", [(mean("weir_upstream_time_to_first_token_seconds", "D"), "weir"), (f"sum(rate(vllm:time_to_first_token_seconds_sum{{{DOUBTS}}}[R])) / sum(rate(vllm:time_to_first_token_seconds_count{{{DOUBTS}}}[R]))", "vLLM")], unit="s"),
        panel("timeseries", "What does an engine step cost?", "weir_engine_step_seconds: a step, each decode in it, each prompt token in it.", [("max by (part) (weir_engine_step_seconds{D})", "{{part}}")], unit="s"),
        panel("timeseries", "Did the engine change its speed?", "weir_engine_speed_changes_total. Slower: a throttled GPU, a neighbour, another version.", [("sum by (direction) (increase(weir_engine_speed_changes_total{D}[$__interval]))", "{{direction}}")], draw="bars"),
    ]


def faults():
    return [
        panel("timeseries", "How do requests end?", "weir_requests_finished_total by outcome and class of status.", [("sum by (outcome, code) (rate(weir_requests_finished_total{D}[R]))", "{{outcome}} {{code}}")], unit="reqps", stacked=True),
        panel("timeseries", "Which streams never gave a token?", "weir_streams_without_first_token_total by reason.", [("sum by (reason) (rate(weir_streams_without_first_token_total{D}[R]))", "{{reason}}")], unit="reqps", stacked=True),
        panel("timeseries", "Which streams are overtaken?", "weir_stream_stalls_total: evidence of preemption. A stream that is silent for longer than limits.stream_stall is ended and counted as upstream_timeout.", [("sum by (instance) (rate(weir_stream_stalls_total{D}[R]))", "{{instance}}")], unit="cps"),
        panel("timeseries", "What is tried again?", "weir_upstream_retries_total; never after the first byte.", [("sum by (reason) (rate(weir_upstream_retries_total{D}[R]))", "{{reason}}")], unit="reqps"),
    ]


def workload():
    prompt, answer = "weir_request_input_tokens_bucket{D}", "weir_request_output_tokens_bucket{D}"
    return [
        panel("timeseries", "Did the mix change?", "Prompt and answer lengths. Longer ones move the knee.", quantiles(prompt, "prompt", (0.5, 0.95)) + quantiles(answer, "answer", (0.5, 0.95))),
        panel("timeseries", "How many tokens flow?", "Prompt tokens from usage, output tokens by where the count came from.", [(rate("weir_input_tokens_total{D}"), "in"), ("sum by (source) (rate(weir_output_tokens_total{D}[R]))", "out ({{source}})")]),
        panel("timeseries", "How many tokens ride in an event?", "Output tokens over content events: 1 is plain, more is speculative decoding or coalescing.", [('sum(rate(weir_output_tokens_total{D,source="usage"}[R])) / sum(rate(weir_stream_chunks_total{D}[R]))', "tokens per event")]),
    ]


def gpu():
    by = "{{gpu}} {{instance}}"
    held = "sum by (gpu, reason) (rate(weir_gpu_throttle_seconds_total{I}[R])) > 0"
    answers = [{"type": "value", "options": {"0": {"text": "lost", "color": RED, "index": 0}, "1": {"text": "up", "color": GREEN, "index": 1}}}]
    return [
        panel("timeseries", "What holds the clock back, and what did the engine do?", "Share of time under each reason of weir_gpu_throttle_seconds_total, beside the step's cost (weir_engine_step_seconds). A step that became dearer where a spell begins: that is the cause. sw_power_cap alone is usual under load; heat and power brake never are.", [(held, "{{gpu}} {{reason}}"), ('max(weir_engine_step_seconds{D,part="step"})', "engine step")], unit="percentunit", width=16, overrides=[{"matcher": {"id": "byName", "options": "engine step"}, "properties": [{"id": "unit", "value": "s"}, {"id": "custom.axisPlacement", "value": "right"}]}, dashed("engine step")]),
        panel("state-timeline", "Does every GPU answer?", "weir_gpu_up: 0 when it is lost or its driver hangs.", [("min by (gpu, instance) (weir_gpu_up{I})", by)], mappings=answers),
        panel("timeseries", "Is the clock held back now?", "weir_gpu_throttle_active by reason: 1 while in force.", [("max by (gpu, reason) (weir_gpu_throttle_active{I}) > 0", "{{gpu}} {{reason}}")], noValue="no clock is held back", min=0, max=1),
        panel("timeseries", "How fast does it run?", "weir_gpu_clock_hertz of the cores, against the highest (dashed).", [('weir_gpu_clock_hertz{I,clock="sm"}', by), ('max(weir_gpu_clock_max_hertz{I,clock="sm"})', "highest")], unit="hertz", overrides=[dashed("highest")]),
        panel("timeseries", "How much power does it draw?", "weir_gpu_power_watts, against the driver's limit (dashed).", [("weir_gpu_power_watts{I}", by), ("max(weir_gpu_power_limit_watts{I})", "limit")], unit="watt", overrides=[dashed("limit")]),
        panel("timeseries", "How hot is it?", "weir_gpu_temperature_celsius.", [("weir_gpu_temperature_celsius{I}", by)], unit="celsius"),
        panel("timeseries", "Is the GPU busy?", "weir_gpu_utilization_ratio: near 1 far below the knee, so context only; absent where it is divided (MIG).", [("weir_gpu_utilization_ratio{I}", by)], unit="percentunit", min=0, max=1),
        panel("timeseries", "Is its memory full?", "Used over total. An engine takes what it may at its start; how full its KV cache is stands above.", [("weir_gpu_memory_used_bytes{I} / weir_gpu_memory_total_bytes{I}", by)], unit="percentunit", min=0, max=1),
        panel("stat", "Were there Xid errors?", "weir_gpu_xid_errors_total in this range by GPU. The number of the last one is in the table, its meaning in NVIDIA's list of Xid errors; 48, 79, 94 and 95 are the card.", [("sum by (gpu) (increase(weir_gpu_xid_errors_total{I}[$__range]))", "{{gpu}}")], width=4, decimals=0, thresholds=[(None, GREEN), (1, RED)]),
        panel("stat", "Uncorrected ECC errors?", "weir_gpu_ecc_errors_total since the driver was loaded.", [('sum by (gpu) (weir_gpu_ecc_errors_total{I,error="uncorrected"})', "{{gpu}}")], width=4, decimals=0, thresholds=[(None, GREEN), (1, RED)], noValue="not told"),
        panel("table", "Which GPU is whose?", "weir_gpu_info: name and backend; whether it is divided; the last Xid, where there was one.", [("weir_gpu_info{I}", ""), ("max by (gpu, uuid) (weir_gpu_mig_enabled{I})", ""), ("max by (gpu, uuid) (weir_gpu_xid_last_code{I})", "")], width=16, overrides=[{"matcher": {"id": "byName", "options": name}, "properties": [{"id": "displayName", "value": shown}]} for name, shown in (("Value #B", "divided"), ("Value #C", "last Xid"))], transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": {"excludeByName": {"Time": True, "Value #A": True, "__name__": True, "cluster": True, "namespace": True, "job": True}}}]),
    ]


def process():
    return [
        panel("timeseries", "What does weir cost? (CPU)", "process_cpu_seconds_total.", [("rate(process_cpu_seconds_total{I}[R])", "{{instance}}")]),
        panel("timeseries", "What does weir cost? (memory)", "process_resident_memory_bytes.", [("process_resident_memory_bytes{I}", "{{instance}}")], unit="bytes"),
        panel("timeseries", "Does it run out of descriptors?", "Open over allowed.", [("process_open_fds{I} / process_max_fds{I}", "{{instance}}")], unit="percentunit"),
        panel("timeseries", "How much time does weir add? (p99)", "weir_proxy_overhead_seconds, without queue and engine. CPU throttling is the usual cause of a rise.", [(quantile(0.99, "weir_proxy_overhead_seconds_bucket{D}", "le, stage"), "{{stage}}")], unit="s"),
        panel("table", "Which build runs?", "weir_build_info.", [("weir_build_info{I}", "")], transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True, "cluster": True, "namespace": True, "job": True}}}]),
        panel("stat", "Last reload accepted?", "weir_config_last_reload_successful of the worst instance.", [("min(weir_config_last_reload_successful{I})", "reload")], width=4, mappings=[{"type": "value", "options": {"0": {"text": "rejected", "color": RED, "index": 0}, "1": {"text": "accepted", "color": GREEN, "index": 1}}}], thresholds=[(None, GREY)]),
        panel("stat", "Were label values folded?", "weir_label_overflow_total in this range, by label.", [("sum by (label) (increase(weir_label_overflow_total{I}[$__range]))", "{{label}}")], width=4, thresholds=[(None, GREEN), (1, YELLOW)]),
    ]


def backend(prefix=""):
    rows = [("Balance", balance()), ("Gate", gate()), ("Engine", engine()), ("Faults", faults()), ("Workload", workload()), ("GPU", gpu(), True), ("weir itself", process())]
    return page("weir-backend", "weir / Backend", rows, by_instance=True, prefix=prefix)
