"""promtool tests of the fleet's rules, in the form of rules_test.py: worlds of four replicas, one of them odd."""

from fleet import FLEET, INSTANCE
from series import LONG, STEP, flat, gauge, requests, saturated, series

# Alive for three steps, and down from then on.
DEAD = f"1+0x2 0+0x{LONG}"


def up(value, instance):
    return [series("weir_backend_up", flat(value), model_name=None, instance=instance)]


def died(instance, values=DEAD):
    return [series("weir_backend_up", values, model_name=None, instance=instance)]


def replica(instance, knee=10, offered=7.0, alive=1):
    """One weir and its engine. Without a knee, 4 were served at best."""
    made = up(alive, instance) + requests(offered, instance=instance)
    if knee is None:
        return made + gauge("weir_capacity_lower_bound_requests_per_second", 4, instance=instance) + gauge("weir_saturation_ratio", "NaN", instance=instance)
    for end, share in (("", 1), ("_low", 0.9), ("_high", 1.2)):
        made += gauge(f"weir_knee_requests_per_second{end}", knee * share, instance=instance)
    return made


def fleet(odd=(), **usual):
    """Three replicas of a kind and an odd one."""
    return [one for name in "abc" for one in replica(name, **usual)] + list(odd)


def crowded(state):
    """The first replica gets nearly all, and the others know no knee."""
    others = replica("b", knee=None, offered=0.5) + replica("c", knee=None, offered=0.5)
    return replica("a", offered=20.0) + gauge("weir_saturation_ratio", 1.6, instance="a") + [saturated(state)] + others


FIRES = {
    "WeirReplicaDown": (fleet(died("d")), 3 * STEP, INSTANCE, "", {"instance": "d"}),
    "WeirFleetHeadroomLow": (fleet(replica("d", offered=15.0)), 4 * STEP, FLEET, "10%"),
}
SILENT = {
    "WeirReplicaDown": [
        ("it was never up: its engine loads", fleet(up(0, "d"))),
        ("all are down, which is another alert", died("a") + died("b")),
        ("its weir is gone too, as after scaling in", fleet(died("d", "1+0x3 stale"))),
    ],
    "WeirFleetHeadroomLow": [
        ("a fifth is left", fleet(replica("d", offered=8.0), offered=8.0)),
        ("no knee is known anywhere", fleet(replica("d", knee=None), knee=None)),
        ("one is full and the others are not", fleet(replica("d", offered=14.0), offered=6.0)),
    ],
}


def recorded():
    """Names with the values that they must have after five minutes; None: no series at all."""
    names = {
        "up": "fleet:weir_backends_up:count",
        "known": "fleet:weir_knee_known:ratio",
        "knee": "fleet:weir_knee_requests_per_second:sum",
        "low": "fleet:weir_knee_requests_per_second_low:sum",
        "high": "fleet:weir_knee_requests_per_second_high:sum",
        "demand": "fleet:weir_demand_ratio",
        "headroom": "fleet:weir_headroom_ratio",
        "imbalance": "fleet:weir_requests_offered:imbalance_rate5m",
    }
    cases = [
        ("four alike", fleet(replica("d")), {"up": 4, "known": 1, "knee": 40, "low": 36, "high": 48, "demand": 0.7, "headroom": 0.3, "imbalance": 1}),
        # What it served at best is its part of the sum; demand is held against four of the average.
        ("one knows no knee", fleet(replica("d", knee=None)), {"up": 4, "known": 0.75, "knee": 34, "low": 31, "high": None, "demand": 0.7, "headroom": 0.3}),
        ("none knows a knee", fleet(replica("d", knee=None), knee=None), {"up": 4, "known": 0, "knee": 16, "low": 16, "high": None, "demand": None, "headroom": None}),
        # 28 requests a second still come, and what its weir remembers of a dead engine is worth nothing.
        ("one engine is dead", fleet(replica("d", alive=0)), {"up": 3, "known": 1, "knee": 30, "high": 36, "demand": 28 / 30, "headroom": 2 / 30, "imbalance": 1}),
        ("one weir is gone", fleet(), {"up": 3, "known": 1, "knee": 30, "demand": 0.7, "headroom": 0.3}),
        ("no traffic", fleet(replica("d", offered=0.0), offered=0.0), {"up": 4, "knee": 40, "demand": 0, "headroom": 1, "imbalance": None}),
        ("beyond the knee", fleet(replica("d", offered=39.0)), {"demand": 1.5, "headroom": 0}),
        ("one gets everything", fleet(replica("d", offered=28.0), offered=0.0), {"demand": 0.7, "imbalance": 4}),
        ("all are down", up(0, "a") + up(0, "b"), {name: None for name in names}),
    ]
    made = []
    for why, world, expected in cases:
        asked = []
        for name, value in expected.items():
            # In millionths: 28/30 is not the same double on every path to it.
            found = [] if value is None else [{"labels": '{job="weir", namespace="n"}', "value": round(1e6 * value)}]
            asked.append({"expr": f"round(1e6 * {names[name]})", "eval_time": "10m", "exp_samples": found})
        made.append({"name": f"fleet: {why}", "interval": f"{STEP}s", "input_series": world, "promql_expr_test": asked})
    return made
