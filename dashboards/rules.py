"""Recording and alert rules, with their thresholds in one table.

Symptoms before causes, each alert guarded against thin traffic, each ratio filtered with >= 0, because one replica that knows
no knee yet would turn its group into NaN. What concerns a fleet as a whole is in fleet.py.
"""

import fleet
from fleet import BACKEND, INSTANCE

# What an operator may want another value for. The chart's values carry the same names.
THRESHOLDS = {
    "slo_target": 0.99,
    "plateau_excess": 1.1,
    "shed_ratio": 0.05,
    "late_abort_ratio": 0.02,
    "headroom": 0.15,
    "queue_wait_share": 0.5,
    "upstream_error_ratio": 0.05,
    "knee_shift": 0.3,
    "knee_stale_seconds": 86400,
    "imbalance": 0.4,
    "imbalance_share": 1.5,
    "was_up_within": "6h",
    "overhead_seconds": 0.005,
    "room_seen_below": 0.7,
    "engine_waiting": 2,
}
WINDOWS = ("5m", "30m", "1h", "6h")
BY = "namespace, job, backend, model_name"
LATE, UPSTREAM, COMPLETED = '{outcome="deadline"}', '{outcome=~"upstream_.*"}', '{outcome="completed"}'
RUNBOOK = "https://example.org/weir/runbooks/"
SHARED_PAGES = {"WeirSLOBurnRateFast": "WeirSLOBurnRate", "WeirSLOBurnRateSlow": "WeirSLOBurnRate"}


def recording():
    def rate(family, window, by=BY, match=""):
        return f"sum by ({by}) (rate({family}{match}[{window}]))"

    slo = BY + ", slo"
    rules = [
        ("backend_model:weir_requests_offered:rate1m", rate("weir_requests_offered_total", "1m")),
        ("backend_model:weir_requests_shed:ratio_rate5m", f"{rate('weir_requests_shed_total', '5m')} / ({rate('weir_requests_offered_total', '5m')} > 0)"),
        ("backend_model:weir_saturation_ratio:avg", f"avg by ({BY}) (weir_saturation_ratio >= 0)"),
        ("backend_model:weir_headroom_ratio:avg", f"clamp_min(1 - avg by ({BY}) (weir_demand_ratio >= 0), 0)"),
    ]
    for window in WINDOWS:
        missed = rate("weir_slo_requests_total", window, slo, '{result="missed"}')
        rules.append((f"slo:weir_slo_errors:ratio_rate{window}", f"{missed} / ({rate('weir_slo_requests_total', window, slo)} > 0)"))
    return [{"record": name, "expr": expr} for name, expr in rules + fleet.recording()]


def alerts(t):
    """All of them: name, expression, how long, severity, one line, what to look at first."""
    budget = round(1 - t["slo_target"], 6)

    def rate(family, match="", window="5m", by=BY):
        return f"sum by ({by}) (rate(weir_requests_{family}_total{match}[{window}]))"

    slower, faster = (f'sum by ({INSTANCE}, model_name) (increase(weir_engine_speed_changes_total{{direction="{way}"}}[10m]))' for way in ("slower", "faster"))
    day_before = "avg_over_time(weir_knee_concurrency[1d] offset 1h)"
    return [
        ("WeirBackendDown", "max by (namespace, job, backend) (weir_backend_up) == 0", "1m", "critical",
         "Backend {{ $labels.backend }} cannot be reached.",
         "The health check of every weir in {{ $labels.namespace }}/{{ $labels.job }} fails. First: is the engine up, and does its /health answer on the machine of weir?"),
        ("WeirThroughputPlateau",
         # By backend: its state has the model of the configuration, its requests the models that they name.
         f'(max by ({BACKEND}) (weir_saturation_state{{state="saturated"}}) == 1) and on ({BACKEND}) ({rate("offered", "", "1m", BACKEND)} > {t["plateau_excess"]} * {rate("finished", COMPLETED, "1m", BACKEND)})',
         "30s", "warning",
         "{{ $labels.backend }} completes no more requests at a higher load.",
         "More requests are offered than completed and the backend is past its knee: more load only adds waiting time. First: offered against completed, and the time to first token."),
        ("WeirBackendSaturated", f"avg by ({BY}) (avg_over_time(weir_saturation_ratio[5m]) >= 0) >= 1", "10m", "warning",
         "{{ $labels.backend }} works at its knee or beyond.",
         "Its requests are {{ $value | humanizePercentage }} of those at which it starts to queue. First: demand ratio, then prompt and answer lengths."),
        ("WeirSheddingHigh", f"backend_model:weir_requests_shed:ratio_rate5m > {t['shed_ratio']} and backend_model:weir_requests_offered:rate1m > 0.1", "5m", "critical",
         "{{ $value | humanizePercentage }} of the requests for {{ $labels.model_name }} are refused.",
         "Clients of {{ $labels.backend }} get 429 or 503. First: the reasons of refusal, which distinguish capacity, limits and a dead engine."),
        ("WeirLateAbortsHigh", f'{rate("finished", LATE)} / ({rate("admitted")} > 0.1) > {t["late_abort_ratio"]}', "10m", "warning",
         "{{ $value | humanizePercentage }} of the requests dispatched to {{ $labels.backend }} had no first token in time.",
         "The gate admits more of {{ $labels.model_name }} than can be started: the capacity fell, prompts grew, or the objective is too tight for them. First: prompt length p95."),
        ("WeirHeadroomLow", f"1 - avg by ({BY}) (quantile_over_time(0.95, weir_demand_ratio[1h]) >= 0) < {t['headroom']}", "30m", "info",
         "{{ $labels.backend }} has little headroom below its knee.",
         "The busiest minutes of the last hour leave {{ $value | humanizePercentage }}. First: demand over seven days; add capacity before the next peak."),
        ("WeirQueueWaitHigh",
         f"histogram_quantile(0.95, sum by (le, namespace, job, backend) (rate(weir_queue_wait_seconds_bucket[5m]))) > on (namespace, job, backend) {t['queue_wait_share']} * max by (namespace, job, backend) (weir_queue_max_wait_seconds > 0)",
         "5m", "warning",
         "Requests to {{ $labels.backend }} wait for most of their longest wait.",
         "One in twenty waits {{ $value | humanizeDuration }} or longer and will soon expire. First: queue depth by class, window against pending."),
        ("WeirSLOBurnRateFast", f"slo:weir_slo_errors:ratio_rate1h > (14.4 * {budget}) and slo:weir_slo_errors:ratio_rate5m > (14.4 * {budget})", "2m", "critical",
         "The {{ $labels.slo }} budget of {{ $labels.model_name }} is gone in two days at this rate.",
         "{{ $value | humanizePercentage }} of the last hour's requests missed it. First: which objective, and whether it is refused or slow."),
        ("WeirSLOBurnRateSlow", f"slo:weir_slo_errors:ratio_rate6h > (6 * {budget}) and slo:weir_slo_errors:ratio_rate30m > (6 * {budget})", "15m", "warning",
         "The {{ $labels.slo }} budget of {{ $labels.model_name }} is gone in five days at this rate.",
         "{{ $value | humanizePercentage }} of the last six hours' requests missed it. First: which objective, and whether it is refused or slow."),
        ("WeirBackendErrorRateHigh", f'{rate("finished", UPSTREAM)} / ({rate("finished")} > 0.1) > {t["upstream_error_ratio"]}', "5m", "critical",
         "{{ $labels.backend }} fails {{ $value | humanizePercentage }} of its requests.",
         "Errors, timeouts, resets or streams cut short on {{ $labels.model_name }}. First: outcomes by class, the engine's log, the last roll-out."),
        ("WeirKVCapActive", f"min by ({INSTANCE}) (weir_kv_cap_tokens) < +Inf", "30m", "info",
         "weir limits the tokens in flight at {{ $labels.backend }}.",
         "Streams were preempted for lack of KV memory, so {{ $value | humanize }} tokens are allowed. More KV memory or shorter contexts raise the knee."),
        ("WeirKneeShifted", f"abs(weir_knee_concurrency - {day_before}) / {day_before} > {t['knee_shift']} and weir_knee_confidence_ratio > 0.8", "30m", "warning",
         "The knee of {{ $labels.backend }} has moved.",
         "It moved by {{ $value | humanizePercentage }} against the last day on {{ $labels.instance }}. First: roll-outs, GPU throttling, prompt and answer lengths."),
        ("WeirEngineSlower", f"{slower} > {faster}", "1m", "warning",
         "The engine behind {{ $labels.backend }} has become slower.",
         "Its steps take longer at any load ({{ $labels.instance }}). First: GPU clocks and throttling, neighbours, the engine's version."),
        ("WeirKneeStale", f"(time() - weir_knee_last_update_timestamp_seconds > {t['knee_stale_seconds']}) and on ({INSTANCE}) (sum by ({INSTANCE}) (rate(weir_requests_offered_total[1h])) > 0)", "1h", "info",
         "The last estimate of the knee of {{ $labels.backend }} is more than a day old.",
         "The load did not reach the knee, or the estimates were rejected. A `weir sweep` in a quiet hour confirms it."),
        ("WeirSignalsDisagree",
         f'max by ({INSTANCE}) (weir_saturation_ratio) < {t["room_seen_below"]} and on ({INSTANCE}) max by ({INSTANCE}) (weir_backend_reported_waiting_requests{{reason="capacity"}}) > {t["engine_waiting"]}',
         "10m", "warning",
         "The engine behind {{ $labels.backend }} queues while weir measures a load below the knee.",
         "Traffic bypasses weir, or the estimated knee is too high. First: which other clients use the engine's port?"),
        ("WeirLoadImbalance",
         f"(max by ({BACKEND}) (avg_over_time(weir_saturation_ratio[10m]) >= 0) - avg by ({BACKEND}) (avg_over_time(weir_saturation_ratio[10m]) >= 0) > {t['imbalance']})"
         f" or ({fleet.crowded(t['imbalance_share'])})",
         "15m", "info",
         "One replica of {{ $labels.backend }} carries far more than the others.",
         "Long streams are not spread evenly: round robin, sticky sessions or pinned connections in front. First: saturation by instance."),
        ("WeirBackendScrapeFailing", f"min by ({INSTANCE}) (weir_backend_scrape_up) == 0", "10m", "info",
         "weir on {{ $labels.instance }} cannot read the metrics of {{ $labels.backend }}.",
         "Nothing depends on them but the comparison. First: metrics_url, the engine's type, its authentication."),
        ("WeirConfigReloadFailed", "max_over_time(weir_config_last_reload_successful[5m]) == 0", "5m", "warning",
         "weir on {{ $labels.instance }} refused its new configuration.",
         "The previous one stays in force. First: `weir check` on the file; it names line and column."),
        ("WeirProxyOverheadHigh", f"histogram_quantile(0.99, sum by (le, namespace, job, instance) (rate(weir_proxy_overhead_seconds_bucket[5m]))) > {t['overhead_seconds']}", "10m", "warning",
         "weir on {{ $labels.instance }} adds {{ $value | humanizeDuration }} to a request (p99).",
         "That is its own work, without queue and engine. First: is its CPU throttled?"),
    ] + fleet.alerts(t)


def page_of(name):
    """The runbook page of an alert."""
    return SHARED_PAGES.get(name, name)


def groups(thresholds=THRESHOLDS):
    made = []
    for name, expr, wait, severity, summary, description in alerts(thresholds):
        annotations = {"summary": summary, "description": description, "runbook_url": RUNBOOK + page_of(name)}
        made.append({"alert": name, "expr": expr, "for": wait, "labels": {"severity": severity}, "annotations": annotations})
    return [
        {"name": "weir.recording", "interval": "30s", "rules": recording()},
        {"name": "weir.alerts", "rules": made},
    ]
