"""What watches and scales: PodMonitor, rules, dashboards, KEDA's ScaledObject, the HorizontalPodAutoscaler."""

from kit import File, Labels, Name, Namespace, Text, Tree, Value
from objects import SELECT, meta

DASHBOARDS = ("weir-overview", "weir-backend", "weir-sweep")
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": Name()}
# A scale-down throws away a loaded model; ten quiet minutes are asked for first.
CALM = {"scaleDown": {"stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}]}}


def monitor_meta():
    return {"name": Name(), "labels": Labels(SELECT)}


def pod_monitor():
    """A sidecar has no Service of its own. The job is the installation's name, by which rules, dashboards and scalers ask."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": monitor_meta(),
        "spec": {
            "jobLabel": "app.kubernetes.io/instance",
            "selector": {"matchLabels": SELECT},
            "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": Value("podMonitor.interval")}],
        },
    }


def prometheus_rule():
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": monitor_meta(),
        "spec": Tree("files/weir-rules.yaml"),
    }


def dashboard(name):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": Text((Name(), name.removeprefix("weir"))),
            "labels": Labels({**SELECT, "grafana_dashboard": "1"}),
            "annotations": {"grafana_folder": "weir"},
        },
        "data": {f"{name}.json": File(f"files/{name}.json")},
    }


def scaled_object():
    """Demand, not saturation or a queue: what a limited pod serves cannot pass its limit, and behind weir no engine's queue grows."""
    demand = ("weir_demand_ratio{namespace=\"", Namespace(), "\",job=\"", Name(), "\"} >= 0")
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": meta(),
        "spec": {
            "scaleTargetRef": TARGET,
            "minReplicaCount": Value("autoscaling.min"),
            "maxReplicaCount": Value("autoscaling.max"),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": CALM}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": Value("autoscaling.prometheus"),
                        # Pods without a knee are NaN: they count as the average does, and do not make the sum unknown.
                        "query": Text(("avg(", *demand, ") * count(", *demand[:-1], "\"})")),
                        "threshold": Value("autoscaling.demand"),
                        "activationThreshold": "0.05",
                        # No data is an error and not zero: nothing is taken away while Prometheus is down.
                        "ignoreNullValues": "false",
                    },
                }
            ],
        },
    }


def autoscaler():
    """Needs prometheus-adapter with the rule in deploy/kubernetes/prometheus-adapter.yaml."""
    metric = {"metric": {"name": "weir_demand_ratio"}, "target": {"type": "AverageValue", "averageValue": Value("autoscaling.demand")}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": meta(),
        "spec": {
            "scaleTargetRef": TARGET,
            "minReplicas": Value("autoscaling.min"),
            "maxReplicas": Value("autoscaling.max"),
            "metrics": [{"type": "Pods", "pods": metric}],
            "behavior": CALM,
        },
    }
