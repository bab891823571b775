"""Series as promtool reads them, for the tests of the rules: what a weir would show of a world that stands still."""

import re

STEP = 15
LABELS = {"namespace": "n", "job": "weir", "instance": "a", "backend": "gpu-0", "model_name": "m"}
LONG = 4 * 60 * 3  # three hours of steps


def series(name, values, **more):
    """One series; a label given as None is left out."""
    labels = {key: value for key, value in {**LABELS, **more}.items() if value is not None}
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return {"series": f"{name}{{{inside}}}", "values": values}


def flat(value, steps=LONG):
    """A gauge that stands still. promtool 2 knows no short form for NaN and infinity."""
    return f"{value}x{steps}".replace("x", "+0x", 1) if re.fullmatch(r"-?[0-9.]+", str(value)) else " ".join([str(value)] * 200)


def counter(per_second, steps=LONG):
    return f"0+{per_second * STEP:g}x{steps}"


def requests(offered, finished=(), admitted=None, shed=0.0, **more):
    """Counters of one backend: offered, shed and admitted per second, and (outcome, per second) pairs."""
    made = [series("weir_requests_offered_total", counter(offered), **more), series("weir_requests_shed_total", counter(shed), reason="saturated", **more)]
    made.append(series("weir_requests_admitted_total", counter(offered - shed if admitted is None else admitted), **more))
    return made + [series("weir_requests_finished_total", counter(rate), outcome=outcome, **more) for outcome, rate in finished]


def saturated(state, **more):
    return series("weir_saturation_state", flat(1), state=state, model_name="unknown", **more)


def gauge(name, value, **more):
    return [series(name, flat(value), **more)]
