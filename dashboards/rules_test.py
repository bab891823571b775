"""promtool tests of the rules: each alert fires after exactly its time, and stays silent beside every threshold.

A case is the series of a world, written as promtool reads them, and the time from which the alert's expression holds in it.
Of one that fires, two more tests are made: silent one step before its time, and silent when its series are missing.
"""

import re

import fleet_test
from fleet import BACKEND, INSTANCE
from rules import BY, RUNBOOK, THRESHOLDS, alerts, page_of
from series import LABELS, LONG, STEP, counter, flat, gauge, requests, saturated, series

BEFORE = 4 * 70  # steps in which the knee stood still: more than the hour that the rule looks back


def wait(seconds):
    """A histogram in which every wait is as long as the bucket that ends at `seconds`."""
    buckets = [0.1, 0.25, 0.5, 1, 2.5, 5]
    made = [series("weir_queue_wait_seconds_bucket", counter(10 if le >= seconds else 0), le=f"{le:g}", outcome="admitted") for le in buckets]
    return made + [series("weir_queue_wait_seconds_bucket", counter(10), le="+Inf", outcome="admitted")]


def overhead(seconds):
    buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025]
    made = [series("weir_proxy_overhead_seconds_bucket", counter(10 if le >= seconds else 0), le=f"{le:g}", stage="request") for le in buckets]
    return made + [series("weir_proxy_overhead_seconds_bucket", counter(10), le="+Inf", stage="request")]


def judged(missed, until=LONG):
    """Objectives, 10 judged per second; a share of them missed, and none from step `until` on."""
    def growth(share, rest):
        head = f"0+{10 * share * STEP:g}x{until}"
        return head if until == LONG else f"{head} {10 * share * STEP * (until + 1):g}+{10 * rest * STEP:g}x{LONG - until}"

    results = {"missed": growth(missed, 0), "met": growth(1 - missed, 1)}
    return [series("weir_slo_requests_total", values, slo="ttft", result=result) for result, values in results.items()]


def moved(before, after, confidence=0.95):
    steps = BEFORE
    return [series("weir_knee_concurrency", f"{before}+0x{steps} {after}+0x{LONG}"), series("weir_knee_confidence_ratio", f"{confidence}+0x{steps + LONG}")]


def changes(direction, at):
    other = "faster" if direction == "slower" else "slower"
    return [series("weir_engine_speed_changes_total", f"0+0x{at} 1+0x{LONG}", direction=direction), series("weir_engine_speed_changes_total", flat(0), direction=other)]



# name: (world, seconds from which the expression holds, labels by which it is grouped, how $value reads)
FIRES = {
    "WeirBackendDown": (gauge("weir_backend_up", 0, model_name=None), 0, BACKEND, ""),
    "WeirThroughputPlateau": ([saturated("saturated")] + requests(20, [("completed", 13)]), STEP, BACKEND, ""),
    "WeirBackendSaturated": (gauge("weir_saturation_ratio", 1.25), 0, BY, "125%"),
    "WeirSheddingHigh": (requests(20, [("completed", 13)], shed=5), STEP, BY, "25%"),
    "WeirLateAbortsHigh": (requests(20, [("completed", 18), ("deadline", 1)]), STEP, BY, "5%"),
    "WeirHeadroomLow": (gauge("weir_demand_ratio", 0.9), 0, BY, "10%"),
    "WeirQueueWaitHigh": (wait(0.5) + gauge("weir_queue_max_wait_seconds", 0.6), STEP, BACKEND, "487.5ms"),
    "WeirSLOBurnRateFast": (judged(0.5), STEP, BY + ", slo", "50%"),
    "WeirSLOBurnRateSlow": (judged(0.1), STEP, BY + ", slo", "10%"),
    "WeirBackendErrorRateHigh": (requests(20, [("completed", 15), ("upstream_error", 5)]), STEP, BY, "25%"),
    "WeirKVCapActive": (gauge("weir_kv_cap_tokens", 16000), 0, INSTANCE, "16k"),
    "WeirKneeShifted": (moved(100, 60), (BEFORE + 1) * STEP, INSTANCE + ", model_name", "40%"),
    "WeirEngineSlower": (changes("slower", 40), 41 * STEP, INSTANCE + ", model_name", ""),
    "WeirKneeStale": (gauge("weir_knee_last_update_timestamp_seconds", -90000) + requests(20), STEP, INSTANCE + ", model_name", ""),
    "WeirSignalsDisagree": (gauge("weir_saturation_ratio", 0.5) + gauge("weir_backend_reported_waiting_requests", 5, reason="capacity"), 0, INSTANCE, ""),
    "WeirLoadImbalance": (gauge("weir_saturation_ratio", 1.6) + gauge("weir_saturation_ratio", 0.2, instance="b"), 0, BACKEND, ""),
    "WeirBackendScrapeFailing": (gauge("weir_backend_scrape_up", 0, engine="vllm"), 0, INSTANCE, ""),
    "WeirConfigReloadFailed": (gauge("weir_config_last_reload_successful", 0, backend=None, model_name=None), 0, "namespace, job, instance", ""),
    "WeirProxyOverheadHigh": (overhead(0.01), STEP, "namespace, job, instance", "9.95ms"),
    **fleet_test.FIRES,
}

# Worlds that look alike and must not fire, however long they last; some with the times at which they must not.
SILENT = {
    "WeirBackendDown": [
        ("one of two replicas reaches it", gauge("weir_backend_up", 0, model_name=None) + gauge("weir_backend_up", 1, model_name=None, instance="b")),
    ],
    "WeirThroughputPlateau": [
        ("saturated, and completing what is offered", [saturated("saturated")] + requests(14, [("completed", 13)])),
        ("more is offered than completed, and the backend keeps up (clients leave)", [saturated("healthy")] + requests(20, [("completed", 13), ("client_cancelled", 7)])),
        ("a load of 0.85 of the capacity", [saturated("approaching")] + requests(11.2, [("completed", 11.2)])),
        ("another backend is the saturated one", [saturated("saturated", backend="gpu-1")] + requests(20, [("completed", 13)])),
    ],
    "WeirBackendSaturated": [
        ("just below the knee", gauge("weir_saturation_ratio", 0.99)),
        ("a knee that is not known yet", gauge("weir_saturation_ratio", "NaN")),
        ("one replica without a knee, the other below it", gauge("weir_saturation_ratio", "NaN") + gauge("weir_saturation_ratio", 0.7, instance="b")),
    ],
    "WeirSheddingHigh": [
        ("one in twenty is refused", requests(20, shed=1)),
        ("everything is refused, of one request in a hundred seconds", requests(0.01, shed=0.01)),
    ],
    "WeirLateAbortsHigh": [
        ("one in a hundred", requests(20, [("completed", 19.8), ("deadline", 0.2)])),
        ("all of them, of one request in a hundred seconds", requests(0.01, [("deadline", 0.01)])),
    ],
    "WeirHeadroomLow": [
        ("a fifth is left", gauge("weir_demand_ratio", 0.8)),
        ("a knee that is not known yet", gauge("weir_demand_ratio", "NaN")),
    ],
    "WeirQueueWaitHigh": [
        ("waits far below the limit", wait(0.25) + gauge("weir_queue_max_wait_seconds", 0.6)),
        ("no limit is in force", wait(5) + gauge("weir_queue_max_wait_seconds", 0)),
    ],
    "WeirSLOBurnRateFast": [
        ("slow burning only", judged(0.1)),
        ("the hour was bad, the last minutes are not", judged(0.5, until=60), (1215, 2400, 4000)),
    ],
    "WeirSLOBurnRateSlow": [
        ("within the target", judged(0.01)),
        ("the hours were bad, the last half hour is not", judged(0.1, until=240), (5415, 7200, 9000)),
    ],
    "WeirBackendErrorRateHigh": [
        ("clients that leave are no errors", requests(20, [("completed", 15), ("client_cancelled", 5)])),
        ("every request, of one in a hundred seconds", requests(0.01, [("upstream_error", 0.01)])),
    ],
    "WeirKVCapActive": [("no cap is in force", gauge("weir_kv_cap_tokens", "+Inf"))],
    "WeirKneeShifted": [
        ("moved by a fifth", moved(100, 80)),
        ("moved, at low confidence", moved(100, 60, confidence=0.6)),
        ("the first hour of the first estimate", [series("weir_knee_concurrency", "100+0x100 60+0x130"), series("weir_knee_confidence_ratio", flat(0.95))]),
    ],
    "WeirEngineSlower": [
        ("it became faster", changes("faster", 40)),
        ("slower, and back", [series("weir_engine_speed_changes_total", f"0+0x40 1+0x{LONG}", direction=way) for way in ("slower", "faster")]),
    ],
    "WeirKneeStale": [
        ("no traffic", gauge("weir_knee_last_update_timestamp_seconds", -90000) + requests(0)),
        ("never known", requests(20)),
        ("confirmed an hour ago", gauge("weir_knee_last_update_timestamp_seconds", -3600) + requests(20)),
    ],
    "WeirSignalsDisagree": [
        ("what waits was deferred", gauge("weir_saturation_ratio", 0.5) + gauge("weir_backend_reported_waiting_requests", 5, reason="deferred")),
        ("both see a queue", gauge("weir_saturation_ratio", 1.2) + gauge("weir_backend_reported_waiting_requests", 5, reason="capacity")),
    ],
    "WeirLoadImbalance": [
        ("both carry the same", gauge("weir_saturation_ratio", 0.9) + gauge("weir_saturation_ratio", 0.8, instance="b")),
        ("the other knows no knee yet", gauge("weir_saturation_ratio", 0.9) + gauge("weir_saturation_ratio", "NaN", instance="b")),
        ("one gets all and keeps up", fleet_test.crowded("healthy")),
    ],
    "WeirBackendScrapeFailing": [("the readings work", gauge("weir_backend_scrape_up", 1, engine="vllm"))],
    "WeirConfigReloadFailed": [("the last one was taken", gauge("weir_config_last_reload_successful", 1, backend=None, model_name=None))],
    "WeirProxyOverheadHigh": [("below five milliseconds", overhead(0.0025))],
    **fleet_test.SILENT,
}


def seconds_of(wait_for):
    return int(wait_for[:-1]) * {"s": 1, "m": 60, "h": 3600}[wait_for[-1]]


def rendered(text, labels, value):
    text = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels.get(found[1], ""), text)
    return re.sub(r"{{ \$value[^}]*}}", value, text)


def test(name, world, checks):
    """Checks are pairs of a time in seconds and the alerts expected then."""
    return {
        "name": name,
        "interval": f"{STEP}s",
        "input_series": world,
        "alert_rule_test": [{"eval_time": f"{at}s", "alertname": name.split(":")[0], "exp_alerts": expected} for at, expected in checks],
    }


def tests():
    made = []
    for name, _, wait_for, severity, summary, description in alerts(THRESHOLDS):
        world, since, by, value, *odd = FIRES[name]
        due = since + seconds_of(wait_for)
        labels = {key: {**LABELS, **(odd[0] if odd else {})}[key] for key in by.split(", ") if key in LABELS}
        if "slo" in by.split(", "):
            labels["slo"] = "ttft"
        said = {"summary": rendered(summary, labels, value), "description": rendered(description, labels, value), "runbook_url": RUNBOOK + page_of(name)}
        alarm = {"exp_labels": {**labels, "severity": severity}, "exp_annotations": said}
        made.append(test(f"{name}: fires after exactly {wait_for}", world, [(due - STEP, []), (due, [alarm])]))
        late = [(int(since + seconds_of(wait_for) * share), []) for share in (1, 1.5, 2)]
        made.append(test(f"{name}: silent without its series", gauge("weir_mode", 1, mode="observe"), late))
        for why, alike, *times in SILENT[name]:
            made.append(test(f"{name}: silent: {why}", alike, [(at, []) for at in times[0]] if times else late))
    wait_for = next(seconds_of(alert[2]) for alert in alerts(THRESHOLDS) if alert[0] == "WeirLoadImbalance")
    return made + [crowded(wait_for), recorded()] + fleet_test.recorded()


def crowded(wait_for):
    """The other way to be uneven: the rest of the fleet has never been near a knee, so that no ratio shows it."""
    name, _, _, severity, summary, description = next(alert for alert in alerts(THRESHOLDS) if alert[0] == "WeirLoadImbalance")
    labels = {key: LABELS[key] for key in BACKEND.split(", ")}
    said = {"summary": rendered(summary, labels, ""), "description": rendered(description, labels, ""), "runbook_url": RUNBOOK + page_of(name)}
    alarm = {"exp_labels": {**labels, "severity": severity}, "exp_annotations": said}
    world = fleet_test.crowded("saturated")
    return test(f"{name}: fires where one gets all, and the others know no knee", world, [(wait_for, []), (wait_for + STEP, [alarm])])


def recorded():
    """One replica without a knee leaves the average to the other; without traffic there is no ratio rather than NaN."""
    world = gauge("weir_saturation_ratio", "NaN") + gauge("weir_saturation_ratio", 0.8, instance="b") + gauge("weir_demand_ratio", 0.75) + requests(0)
    by = ", ".join(f'{key}="{LABELS[key]}"' for key in ("backend", "job", "model_name", "namespace"))
    expect = lambda expr, samples: {"expr": expr, "eval_time": "5m", "exp_samples": samples}
    one = lambda name, value: [{"labels": f"{name}{{{by}}}", "value": value}]
    ratio, headroom, shed = "backend_model:weir_saturation_ratio:avg", "backend_model:weir_headroom_ratio:avg", "backend_model:weir_requests_shed:ratio_rate5m"
    return {"name": "recording", "interval": f"{STEP}s", "input_series": world, "promql_expr_test": [expect(ratio, one(ratio, 0.8)), expect(headroom, one(headroom, 0.25)), expect(shed, [])]}
