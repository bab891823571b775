"""Rules for a fleet: what all weirs of one job are worth together, how evenly they carry it, and when one is lost.

A fleet is a job: its replicas serve the same model on the same kind of engine. A backend that is down counts for nothing,
whatever its weir remembers of it. It holds no threshold: those are in rules.py.
"""

FLEET = "namespace, job"
BACKEND = "namespace, job, backend"
INSTANCE = "namespace, job, instance, backend"
# weir_backend_up knows no model; all that the scrape adds (cluster, pod) stays in the match.
UP = "ignoring (model_name) (weir_backend_up == 1)"


def of_up(family):
    """A gauge of the estimate, of the backends that are up."""
    return f"{family} and {UP}"


def or_at_least(family):
    """The same; where no knee is known, what was served at best without saturation."""
    return f"({family} or weir_capacity_lower_bound_requests_per_second) and {UP}"


def offered(by, window):
    return f"sum by ({by}) (rate(weir_requests_offered_total[{window}]))"


def recording():
    """Pairs of a name and an expression; later ones use earlier ones, which Prometheus evaluates in this order."""
    up, known = "fleet:weir_backends_up:count", "fleet:weir_knee_known:ratio"
    each = offered(INSTANCE, "5m") + f" and on ({INSTANCE}) (weir_backend_up == 1)"
    return [
        (up, f"count by ({FLEET}) (weir_backend_up == 1)"),
        # Absent counts as zero: a fleet of which nothing is known is a fleet all the same.
        (known, f"(count by ({FLEET}) ({of_up('weir_knee_requests_per_second')}) or 0 * {up}) / {up}"),
        ("fleet:weir_knee_requests_per_second:sum", f"sum by ({FLEET}) ({or_at_least('weir_knee_requests_per_second')})"),
        ("fleet:weir_knee_requests_per_second_low:sum", f"sum by ({FLEET}) ({or_at_least('weir_knee_requests_per_second_low')})"),
        # An upper end exists only where no replica is missing from it.
        ("fleet:weir_knee_requests_per_second_high:sum", f"sum by ({FLEET}) ({of_up('weir_knee_requests_per_second_high')}) and {known} == 1"),
        ("fleet:weir_requests_offered:rate1m", offered(FLEET, "1m")),
        # A replica without a knee is taken for an average one: a sum with lower bounds in it would read a new peak as "full".
        ("fleet:weir_demand_ratio", f"fleet:weir_requests_offered:rate1m / (avg by ({FLEET}) ({of_up('weir_knee_requests_per_second')}) * {up})"),
        ("fleet:weir_headroom_ratio", "clamp_min(1 - fleet:weir_demand_ratio, 0)"),
        # 1: all get the same. As many as there are: one gets everything.
        ("fleet:weir_requests_offered:imbalance_rate5m", f"max by ({FLEET}) ({each}) / (avg by ({FLEET}) ({each}) > 0)"),
    ]


def crowded(share):
    """One replica is saturated and carries `share` times the average, beside one that has never been near its knee.

    No ratio shows this: a replica without traffic learns no knee, and an average leaves it out.
    """
    each = offered(INSTANCE, "5m") + f" and on ({INSTANCE}) (weir_backend_up == 1)"
    some_unknown = f"count by ({BACKEND}) (weir_saturation_ratio) > count by ({BACKEND}) (weir_saturation_ratio >= 0)"
    return (
        f"max by ({BACKEND}) ({each}) > {share} * avg by ({BACKEND}) ({each})"
        f' and on ({BACKEND}) max by ({BACKEND}) (weir_saturation_state{{state="saturated"}}) == 1'
        f" and on ({BACKEND}) {some_unknown}"
    )


def alerts(t):
    """As in rules.py: name, expression, how long, severity, one line, what to look at first."""
    return [
        ("WeirReplicaDown",
         # Was up within the last hours: an engine that is still loading its model has not failed. Others are up, or it is WeirBackendDown.
         f"(weir_backend_up == 0 and max_over_time(weir_backend_up[{t['was_up_within']}]) == 1) and on ({FLEET}) fleet:weir_backends_up:count > 0",
         "1m", "warning",
         "{{ $labels.backend }} is gone for weir on {{ $labels.instance }}, while others of its fleet are up.",
         "The fleet's knee is smaller by this one. First: the engine's log on that machine, and the headroom that is left."),
        ("WeirFleetHeadroomLow", f"fleet:weir_headroom_ratio < {t['headroom']}", "10m", "warning",
         "The fleet {{ $labels.namespace }}/{{ $labels.job }} has little headroom below its knee.",
         "{{ $value | humanizePercentage }} is left for all replicas together. First: is a replica down, and does the scaler add one?"),
    ]
