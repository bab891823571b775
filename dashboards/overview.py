"""Overview: are we saturated, where is the knee, how much headroom, what waits, what is shed and why."""

from kit import GREEN, GREY, NOT_KNOWN, RED, YELLOW, band, coloured, dashed, page, panel, states

RATE = "sum(rate({}[R]))"
STATES = '(4 * weir_saturation_state{S,state="saturated"} or 3 * weir_saturation_state{S,state="recovering"} or 2 * weir_saturation_state{S,state="approaching"} or weir_saturation_state{S,state="healthy"})'
STATE = f"max{STATES}"
CLIENT_TTFT = 'weir_time_to_first_token_seconds_bucket{S,streaming="true"}'


def rate(family):
    return RATE.format(family)


def quantile(q, bucket, by="le"):
    return f"histogram_quantile({q}, sum by ({by}) (rate({bucket}[R])))"


def quantiles(bucket, name, qs=(0.5, 0.95, 0.99)):
    return [(quantile(q, bucket), f"{name} p{q * 100:g}") for q in qs]


def mean(family, selector):
    return f"sum(rate({family}_sum{{{selector}}}[R])) / sum(rate({family}_count{{{selector}}}[R]))"


def answer():
    known = {"mappings": NOT_KNOWN, "noValue": "not known yet"}
    limits = [(None, GREEN), (0.8, YELLOW), (1.0, RED)]
    return [
        panel("stat", "Are we saturated?", "weir_saturation_state: the worst state of any replica. Saturated: look at offered against completed below, then add capacity or turn on enforcement.", [(STATE, "state")], width=4, height=5, mappings=states(), thresholds=[(None, GREY)], noValue="not known yet"),
        panel("stat", "Is the gate enforced?", "weir_mode: observe measures and says what would be done, enforce gates, queues and sheds.", [("max by (mode) (weir_mode{P}) == 1", "{{mode}}")], width=4, height=5, options={"textMode": "name", "colorMode": "none"}),
        panel("gauge", "How close to the knee? (worst replica, mean)", "weir_saturation_ratio: in-flight and queued over the knee. Past 1 latency grows and throughput does not.", [("max(weir_saturation_ratio{S} >= 0)", "worst"), ("avg(weir_saturation_ratio{S} >= 0)", "mean")], unit="percentunit", width=8, height=5, thresholds=limits, min=0, max=1.5, **known),
        panel("stat", "How much headroom?", "backend_model:weir_headroom_ratio:avg: 1 minus demand over capacity. Below 15 %: plan for more before the next peak.", [("min(backend_model:weir_headroom_ratio:avg{S})", "headroom")], unit="percentunit", width=4, height=5, thresholds=[(None, RED), (0.15, YELLOW), (0.3, GREEN)], **known),
        panel("stat", "How much is offered?", "weir_requests_offered_total: what clients ask for, before any decision.", [(rate("weir_requests_offered_total{S}"), "offered")], unit="reqps", width=4, height=5, decimals=2),
        panel("stat", "Where is the knee? (in flight)", "weir_knee_concurrency, summed over replicas: from here on the engine queues.", [("sum(weir_knee_concurrency{S})", "knee")], width=5, height=4, decimals=1, **known),
        panel("stat", "Where is the knee? (req/s)", "weir_knee_requests_per_second; before the first saturation the highest rate seen without it.", [("sum(weir_knee_requests_per_second{S} or weir_capacity_lower_bound_requests_per_second{S})", "knee")], unit="reqps", width=5, height=4, decimals=2, **known),
        panel("stat", "What share is refused?", "weir_requests_shed_total over offered. Above 5 %: see by reason below.", [("sum(rate(weir_requests_shed_total{S}[R])) / (sum(rate(weir_requests_offered_total{S}[R])) > 0)", "shed")], unit="percentunit", width=4, height=4, thresholds=[(None, GREEN), (0.01, YELLOW), (0.05, RED)], noValue="no traffic"),
        panel("stat", "How late is the first token? (p95)", "weir_time_to_first_token_seconds of streams, queue wait included.", [(quantile(0.95, CLIENT_TTFT), "p95")], unit="s", width=5, height=4, noValue="no traffic"),
        panel("stat", "How fast do tokens follow? (p95)", "weir_inter_token_latency_seconds.", [(quantile(0.95, "weir_inter_token_latency_seconds_bucket{S}"), "p95")], unit="s", width=5, height=4, noValue="no traffic"),
    ]


def funnel():
    offered, admitted, shed = (f"sum(weir_requests_{name}_total{{S}})" for name in ("offered", "admitted", "shed"))
    left = 'sum(weir_requests_abandoned_total{S,phase="queue"})'
    return [
        panel("timeseries", "Does completed follow offered?", "Offered, admitted, completed and shed per second beside the knee (dashed). Offered rises and completed does not: the plateau.", [
            (rate("weir_requests_offered_total{S}"), "offered"),
            (rate("weir_requests_admitted_total{S}"), "admitted"),
            (rate('weir_requests_finished_total{S,outcome="completed"}'), "completed"),
            (rate("weir_requests_shed_total{S}"), "shed"),
            ("sum(weir_knee_requests_per_second{S})", "knee"),
        ], unit="reqps", width=12, overrides=[dashed("knee")]),
        panel("timeseries", "How much is served in time?", "Goodput: weir_slo_requests_total met for the first token, beside everything completed. A gap is work done too late.", [(rate('weir_slo_requests_total{S,slo="ttft",result="met"}'), "in time"), (rate('weir_requests_finished_total{S,outcome="completed"}'), "completed")], unit="reqps", width=12),
        panel("timeseries", "Why is work refused?", "weir_requests_shed_total by reason. saturated and deadline: capacity. queue_full and queue_bytes: limits. no_backend: a dead engine. draining: a roll-out.", [("sum by (reason) (rate(weir_requests_shed_total{S}[R]))", "{{reason}}")], unit="reqps", width=6, stacked=True),
        panel("timeseries", "What would enforcement refuse?", "weir_requests_would_shed_total, in mode observe only: the same gate's decision, without effect.", [("sum by (reason) (rate(weir_requests_would_shed_total{S}[R]))", "{{reason}}")], unit="reqps", width=6, stacked=True),
        panel("timeseries", "How do admitted requests end?", "weir_requests_finished_total by outcome. upstream_*: the engine; deadline: no first token within its objective.", [("sum by (outcome) (rate(weir_requests_finished_total{S}[R]))", "{{outcome}}")], unit="reqps", width=6, stacked=True),
        panel("timeseries", "When do clients give up?", "weir_requests_abandoned_total by phase. In the queue or before the first token: they waited too long.", [("sum by (phase) (rate(weir_requests_abandoned_total{S}[R]))", "{{phase}}")], unit="reqps", width=6, stacked=True),
        panel("stat", "Do the books balance? (must be 0)", "Offered less admitted, shed, abandoned in the queue and queued; admitted less finished and in flight. Anything but 0 is a defect of weir.", [
            (f"{offered} - {admitted} - {shed} - {left} - sum(weir_queue_depth{{S}})", "before dispatch"),
            (f"{admitted} - sum(weir_requests_finished_total{{S}}) - sum(weir_inflight_requests{{S}})", "after dispatch"),
        ], width=6, height=4, thresholds=[(None, RED), (0, GREEN), (1, RED)]),
    ]


def knee():
    in_flight, upstream = "sum(weir_inflight_requests{S})", "weir_upstream_time_to_first_token_seconds_bucket{S}"
    return [
        panel("timeseries", "How much work is in the system, against the knee?", "In flight and queued requests; the knee with its 95 % interval. In flight stays at the knee under enforcement, the rest waits or is shed.", [
            (in_flight, "in flight"), ("sum(weir_queue_depth{S})", "queued"), ("sum(weir_knee_concurrency{S})", "knee"),
            ("sum(weir_knee_concurrency_low{S})", "low"), ("sum(weir_knee_concurrency_high{S})", "high"), ("sum(weir_concurrency_limit{S} >= 0)", "limit"),
        ], width=12, overrides=[dashed("knee"), dashed("limit"), *band("low", "high")]),
        panel("timeseries", "What waits for a first token at the engine?", "weir_first_token_pending against weir_first_token_window, which the gate allows.", [("sum(weir_first_token_pending{S})", "pending"), ("sum(weir_first_token_window{S})", "window")], width=12, overrides=[dashed("window")]),
        panel("xychart", "Does throughput still grow with concurrency?", "Output tokens per second over requests in flight. Where the cloud turns flat is the knee.", [(in_flight, "in flight"), (rate("weir_output_tokens_total{S}"), "tokens per second")], width=8),
        panel("xychart", "Where does the first token start to be late?", "Engine-side TTFT p50 and p95 over requests in flight.", [(in_flight, "in flight"), *quantiles(upstream, "TTFT", (0.5, 0.95))], unit="s", width=8),
        panel("timeseries", "How did demand stand over the week?", "weir_demand_ratio over seven days; scale before its peaks reach 1.", [("avg by (backend, model_name) (weir_demand_ratio{S} >= 0)", "{{backend}} {{model_name}}")], unit="percentunit", width=8, span="7d", thresholds=[(None, GREEN), (0.85, YELLOW), (1, RED)]),
    ]


def latency():
    itl, tpot = "weir_inter_token_latency_seconds_bucket{S}", "weir_time_per_output_token_seconds_bucket{S}"
    duration, wait = 'weir_request_duration_seconds_bucket{S,outcome="completed"}', "weir_queue_wait_seconds_bucket{S}"
    means = [(mean("weir_time_to_first_token_seconds", 'S,streaming="true"'), "mean"), (mean("weir_upstream_time_to_first_token_seconds", "S"), "mean at the engine")]
    return [
        panel("timeseries", "How long until the first token?", "Clients' TTFT with its mean, and the engine's own mean: the difference is weir's queue.", quantiles(CLIENT_TTFT, "TTFT") + means, unit="s", width=12),
        panel("timeseries", "How long between tokens?", "Inter-token latency and time per output token. Rises with the batch, jumps when the engine preempts.", quantiles(itl, "ITL", (0.5, 0.95)) + quantiles(tpot, "TPOT", (0.5, 0.95)), unit="s", width=12),
        panel("timeseries", "Does the text stutter?", "p99 of the gap between events, and streams that were overtaken (evidence of preemption).", [(quantile(0.99, "weir_inter_event_gap_seconds_bucket{S}"), "gap p99"), (rate("weir_stream_stalls_total{S}"), "stalls per second")], unit="s", width=8, overrides=[{"matcher": {"id": "byName", "options": "stalls per second"}, "properties": [{"id": "unit", "value": "cps"}, {"id": "custom.axisPlacement", "value": "right"}]}]),
        panel("timeseries", "How long does a request take?", "weir_request_duration_seconds of completed requests: mostly the length of their answers.", quantiles(duration, "duration", (0.5, 0.95)) + [(mean("weir_request_duration_seconds", 'S,outcome="completed"'), "mean")], unit="s", width=8),
        panel("timeseries", "How long do requests wait in weir?", "weir_queue_wait_seconds, whatever the exit.", quantiles(wait, "wait", (0.5, 0.95)) + [(mean("weir_queue_wait_seconds", "S"), "mean")], unit="s", width=8),
        panel("heatmap", "How are first tokens spread?", "weir_time_to_first_token_seconds by bucket. Two bands: two kinds of requests, or a queue.", [(f"sum by (le) (increase({CLIENT_TTFT}[R]))", "{{le}}")], unit="s", width=12),
        panel("heatmap", "How are token gaps spread?", "weir_inter_token_latency_seconds by bucket.", [(f"sum by (le) (increase({itl}[R]))", "{{le}}")], unit="s", width=12),
    ]


def objectives():
    burn = "max by (slo) (slo:weir_slo_errors:ratio_rate{}{{S}}) / (1 - $slo_target)"
    share = 'sum by (slo) (increase(weir_slo_requests_total{S,result="%s"}[%s])) / (sum by (slo) (increase(weir_slo_requests_total{S}[%s])) > 0)'
    left = 'sum by (slo) (increase(weir_slo_requests_total{S,result="missed"}[30d])) / sum by (slo) (increase(weir_slo_requests_total{S}[30d])) / (1 - $slo_target)'
    return [
        panel("stat", "Are objectives kept in this range?", "weir_slo_requests_total met over judged, per objective.", [(share % ("met", "$__range", "$__range"), "{{slo}}")], unit="percentunit", width=8, height=6, decimals=2, thresholds=[(None, RED), (0.95, YELLOW), (0.99, GREEN)], noValue="nothing judged"),
        panel("timeseries", "How fast does the error budget burn?", "Burn rate over 1 h and 6 h; 14.4 empties a 30-day budget in two days, 6 in five.", [(burn.format("1h"), "{{slo}} 1h"), (burn.format("6h"), "{{slo}} 6h")], width=8, height=6, thresholds=[(None, GREEN), (6, YELLOW), (14.4, RED)]),
        panel("stat", "How much budget is left of 30 days?", "One less the share of the 30-day error budget that is spent, for the target chosen above.", [(f"1 - {left}", "{{slo}}")], unit="percentunit", width=8, height=6, decimals=1, thresholds=[(None, RED), (0.2, YELLOW), (0.5, GREEN)], noValue="nothing judged"),
    ]


def table():
    by = "by (backend, model_name)"
    columns = {
        "Value #A": ("saturation", "percentunit"),
        "Value #B": ("knee", "reqps"),
        "Value #C": ("offered", "reqps"),
        "Value #D": ("shed", "percentunit"),
        "Value #E": ("TTFT p95", "s"),
    }
    link = {"title": "${__value.text}", "url": "/d/weir-backend?var-backend=${__data.fields.backend}&var-model_name=${__data.fields.model_name}&${datasource:queryparam}&${__url_time_range}"}
    overrides = [{"matcher": {"id": "byName", "options": name}, "properties": [{"id": "displayName", "value": shown}, {"id": "unit", "value": unit}, {"id": "mappings", "value": NOT_KNOWN}]} for name, (shown, unit) in columns.items()]
    overrides.append({"matcher": {"id": "byName", "options": "backend"}, "properties": [{"id": "links", "value": [link]}]})
    hidden = {name: True for name in ("Time", "namespace", "job", "cluster")}
    return [
        panel("table", "Which backend is the tightest?", "One line a backend and model: saturation, knee, offered, shed, TTFT p95. The name leads to the backend's page.", [
            (f"max {by} (weir_saturation_ratio{{S}} >= 0)", ""),
            (f"sum {by} (weir_knee_requests_per_second{{S}})", ""),
            (f"sum {by} (rate(weir_requests_offered_total{{S}}[R]))", ""),
            (f"max {by} (backend_model:weir_requests_shed:ratio_rate5m{{S}})", ""),
            (quantile(0.95, CLIENT_TTFT, "le, backend, model_name"), ""),
        ], width=24, height=7, overrides=overrides, transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": {"excludeByName": hidden}}]),
    ]


def overview(prefix=""):
    rows = [("Answer", answer()), ("Backends", table()), ("From offered to completed", funnel()), ("The knee", knee()), ("Latency", latency()), ("Objectives", objectives())]
    return page("weir-overview", "weir / Overview", rows, prefix=prefix)
