"""Synthetic load while it runs, and how the estimate of the knee came to be what it is."""

from kit import GREEN, GREY, RED, YELLOW, band, page, panel
from overview import quantile, quantiles, rate

PROBE_TTFT = "weir_probe_time_to_first_token_seconds_bucket{S}"
ENDED = "sum(increase(weir_probe_requests_total{S}[$__range]))"


def run():
    return [
        panel("state-timeline", "Does synthetic load run?", "weir_probe_active by backend.", [("max by (backend) (weir_probe_active{S})", "{{backend}}")], mappings=[{"type": "value", "options": {"0": {"text": "idle", "color": GREY, "index": 0}, "1": {"text": "running", "color": "purple", "index": 1}}}]),
        panel("timeseries", "Does the engine follow the set point?", "Requests in flight that the current step asks for, and what it gets done.", [("sum(weir_probe_in_flight_target{S})", "set point, in flight"), (rate('weir_probe_requests_total{S,outcome="completed"}'), "completed per second")]),
        panel("timeseries", "What does the run do to clients?", "First tokens of the probe beside the token gaps of real clients, which must not change.", quantiles(PROBE_TTFT, "probe TTFT", (0.5, 0.95)) + [(quantile(0.95, "weir_inter_token_latency_seconds_bucket{S}"), "clients' ITL p95")], unit="s"),
        panel("timeseries", "What of the run fails?", "weir_probe_requests_total by outcome, completed left out.", [('sum by (outcome) (rate(weir_probe_requests_total{S,outcome!="completed"}[R]))', "{{outcome}}")], unit="reqps", stacked=True),
        panel("stat", "What share of the work is synthetic?", "Probe requests over all that reached the engine, in this range.", [(f"{ENDED} / ({ENDED} + sum(increase(weir_requests_admitted_total{{S}}[$__range])))", "synthetic")], unit="percentunit", width=6, thresholds=[(None, GREEN), (0.05, YELLOW), (0.2, RED)], noValue="none"),
        panel("stat", "When was the last run?", "Time since weir_probe_last_run_timestamp_seconds.", [("time() - max(weir_probe_last_run_timestamp_seconds{S})", "age")], unit="s", width=5, noValue="never"),
        panel("stat", "Did it bring a knee?", "weir_probe_last_run_successful.", [("min(weir_probe_last_run_successful{S})", "result")], width=5, mappings=[{"type": "value", "options": {"0": {"text": "no", "color": YELLOW, "index": 0}, "1": {"text": "yes", "color": GREEN, "index": 1}}}], thresholds=[(None, GREY)], noValue="never"),
    ]


def history():
    knee, tokens = "weir_knee_requests_per_second", "weir_knee_output_tokens_per_second"
    bounds = lambda family: [(f"sum({family}{{S}})", "knee"), (f"sum({family}_low{{S}})", "low"), (f"sum({family}_high{{S}})", "high")]
    before = [("sum(weir_capacity_predicted_requests_per_second{S})", "predicted"), ("sum(weir_capacity_lower_bound_requests_per_second{S})", "at least"), ("sum(weir_capacity_upper_bound_requests_per_second{S}) unless sum(weir_knee_requests_per_second{S})", "at most")]
    return [
        panel("timeseries", "What is the capacity, in requests per second?", "The knee with its 95 % interval; before it is known the prediction and the bounds.", bounds(knee) + before, unit="reqps", width=12, overrides=band("low", "high")),
        panel("timeseries", "What is the capacity, in tokens per second?", "The same in output tokens.", bounds(tokens), width=12, overrides=band("low", "high")),
        panel("timeseries", "Did the knee move in a month?", "weir_knee_concurrency by instance over 30 days. A step without a deployment is the hardware.", [("max by (instance) (weir_knee_concurrency{S})", "{{instance}}")], span="30d", width=12),
        panel("timeseries", "Was a GPU held back meanwhile?", "Share of time under each reason of weir_gpu_throttle_seconds_total, over the same 30 days. A spell that begins where the knee steps down is its cause.", [("sum by (gpu, reason) (rate(weir_gpu_throttle_seconds_total{P}[R])) > 0", "{{gpu}} {{reason}}")], unit="percentunit", span="30d", width=12, min=0, max=1, noValue="no clock was held back"),
        panel("timeseries", "How sure is it?", "weir_knee_confidence_ratio.", [("min by (instance) (weir_knee_confidence_ratio{S})", "{{instance}}")], unit="percentunit", width=12, min=0, max=1),
        panel("timeseries", "How old is it?", "Time since the last accepted estimate.", [("time() - max by (instance) (weir_knee_last_update_timestamp_seconds{S})", "{{instance}}")], unit="s", width=12),
        panel("timeseries", "Where did the estimates come from?", "weir_knee_updates_total by source and result.", [("sum by (source, result) (increase(weir_knee_updates_total{S}[$__interval]))", "{{source}} {{result}}")], draw="bars", stacked=True, width=24, height=6),
    ]


def sweep(prefix=""):
    return page("weir-sweep", "weir / Synthetic load and the knee's history", [("Run", run()), ("The knee", history())], prefix=prefix)
