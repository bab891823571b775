"""The values of the chart, each with what it means: values.yaml, values.schema.json and the plain manifests are made of this table.

A row: path, default, what it means, and where the type of the default does not say it, a JSON schema.
"""

from kit import look, scalar, yaml

# weir's own configuration, with the keys of config/weir.yaml.
CONFIG = {
    "version": 1,
    "listen": "0.0.0.0:8000",
    # A node's cores are not the pod's: auto would start a thread for each of them, because there is no CPU limit.
    "workers": 2,
    "mode": "observe",
    "slo": {"ttft": "1s", "itl": "200ms"},
    "backends": [{"name": "engine", "url": "http://127.0.0.1:8200"}],
    # Within the memory limit, beside 64 MiB for the process and its tables.
    "limits": {"body_memory": "256MiB"},
    "admission": {"queue": {"max_bytes": "128MiB"}},
    # Kubelet and Prometheus come to the pod's address.
    "admin": {"listen": "0.0.0.0:9902"},
    # A GPU belongs to one container, and that is the engine's.
    "gpu": {"enabled": False},
    "drain": {"timeout": "120s", "min_delay": "5s"},
}

SPAN = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
TABLE = [
    ("shape", "sidecar", "sidecar: weir beside one engine in its pod | gateway: weir in pods of its own before the engines in config.backends", {"enum": ["sidecar", "gateway"]}),
    ("replicas", 1, "pods; left to the autoscaler where one is chosen", {"type": "integer", "minimum": 0}),
    ("strategy", {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, "of a roll-out; where no GPU is free for one pod more, it needs maxUnavailable 1 and maxSurge 0", None),
    ("image.name", "weir:0.1.0", "of weir; with a digest (NAME@sha256:…) it is always the same", None),
    ("image.pullPolicy", "IfNotPresent", "", {"enum": ["Always", "IfNotPresent", "Never"]}),
    ("imagePullSecrets", [], "[{name: …}]", None),
    ("nameOverride", "", "in place of the chart's name", None),
    ("fullnameOverride", "", "in place of release and name", None),
    ("config", CONFIG, "weir.yaml; every setting of weir may stand here. A change is taken up without a restart", None),
    ("adminTokenSecret", "", "name of a Secret with the key token; say `token: ${file:/etc/weir-secret/token}` in config.admin too", None),
    ("resources", {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "768Mi"}}, "of weir; no CPU limit, for waiting for the scheduler would be measured as the engine's", None),
    ("extraArgs", [], "flags of weir serve", None),
    ("extraEnv", [], "[{name: …, value: …}]", None),
    ("extraVolumes", [], "", None),
    ("extraVolumeMounts", [], "", None),
    ("terminationGracePeriodSeconds", 150, "more than config.drain.timeout and config.drain.min_delay together", {"type": "integer", "minimum": 1}),
    ("drainWait", "120s", "how long the engine's stop waits for its streams: config.drain.timeout", SPAN),
    ("engine.image", "docker.io/vllm/vllm-openai:v0.10.0", "sidecar: the engine", None),
    ("engine.command", [], "in place of the image's own", None),
    ("engine.args", ["--model=Qwen/Qwen2.5-7B-Instruct", "--port=8200"], "its port is that of config.backends", None),
    ("engine.port", 8200, "", {"type": "integer", "minimum": 1, "maximum": 65535}),
    ("engine.healthPath", "/health", "", None),
    ("engine.startSeconds", 1800, "how long loading the model may take", {"type": "integer", "minimum": 10}),
    ("engine.resources", {"limits": {"nvidia.com/gpu": 1}}, "", None),
    ("engine.env", [], "", None),
    ("engine.volumeMounts", [], "", None),
    ("podAnnotations", {}, "", None),
    ("nodeSelector", {}, "", None),
    ("tolerations", [], "", None),
    ("affinity", {}, "", None),
    ("service.type", "ClusterIP", "", {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}),
    ("service.port", 80, "what clients call", {"type": "integer", "minimum": 1, "maximum": 65535}),
    ("networkPolicy.enabled", True, "clients reach the data port only, the monitoring namespace the admin port and the engine's metrics", None),
    ("networkPolicy.monitoringNamespace", "monitoring", "where Prometheus runs", None),
    ("podDisruptionBudget.enabled", False, "at most one pod at a time is taken away", None),
    ("podMonitor.enabled", False, "needs the Prometheus Operator", None),
    ("podMonitor.interval", "15s", "", SPAN),
    ("podMonitor.labels", {}, "what your Prometheus chooses PodMonitors and PrometheusRules by", None),
    ("prometheusRule.enabled", False, "recording rules and alerts", None),
    ("dashboards.enabled", False, "ConfigMaps for Grafana's sidecar", None),
    ("autoscaling.kind", "none", "sidecar only: none | keda (a ScaledObject) | hpa (needs prometheus-adapter, see docs/operate/kubernetes.md)", {"enum": ["none", "keda", "hpa"]}),
    ("autoscaling.min", 1, "", {"type": "integer", "minimum": 1}),
    ("autoscaling.max", 8, "", {"type": "integer", "minimum": 1}),
    ("autoscaling.demand", "0.8", "share of the knee at which a pod is full; below 1, for a new one takes minutes", {"type": "string", "pattern": "^0\\.[0-9]+$"}),
    ("autoscaling.prometheus", "http://prometheus-operated.monitoring:9090", "whom KEDA asks", None),
]


def defaults():
    """The values as a tree."""
    tree = {}
    for path, default, _, _ in TABLE:
        *way, last = path.split(".")
        at = tree
        for step in way:
            at = at.setdefault(step, {})
        at[last] = default
    return tree


def merged(base, over):
    """Maps are merged, anything else is replaced: as Helm does."""
    made = dict(base)
    for key, value in over.items():
        made[key] = merged(made[key], value) if isinstance(value, dict) and isinstance(made.get(key), dict) else value
    return made


# What differs from the defaults in the shapes that are shipped as plain manifests. `plain` is not a value of the chart.
GATEWAY = {
    "shape": "gateway",
    "config": {
        "backends": [{"name": f"vllm-{number}", "url": f"http://vllm-{number}.vllm:8200"} for number in range(3)],
        "limits": {"body_memory": "512MiB"},
        "admission": {"queue": {"max_bytes": "256MiB"}},
        "admin": {"listen": "0.0.0.0:9902"},
    },
    "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
    "podDisruptionBudget": {"enabled": True},
}
SHAPES = {"sidecar": {}, "gateway": GATEWAY}


def shape(name):
    """All values of a shape."""
    return merged(merged(defaults(), SHAPES[name]), {"plain": {"namespace": "default"}})


def values_yaml():
    """values.yaml, every value under what it means."""
    lines, stands = [], []
    for path, default, meaning, _ in TABLE:
        *way, last = path.split(".")
        shared = 0
        while shared < min(len(way), len(stands)) and way[shared] == stands[shared]:
            shared += 1
        if not way and (not lines or stands or meaning):
            lines.append("")
        for depth in range(shared, len(way)):
            lines += ["", f"{'  ' * depth}{way[depth]}:"] if depth == 0 else [f"{'  ' * depth}{way[depth]}:"]
        pad = "  " * len(way)
        if meaning:
            lines.append(f"{pad}# {meaning}")
        lines.append(yaml({last: default}, len(way)))
        stands = way
    return "\n".join(lines).lstrip("\n") + "\n"


def of_type(default):
    if isinstance(default, bool):
        return {"type": "boolean"}
    kinds = {int: "integer", str: "string", list: "array", dict: "object"}
    return {"type": kinds[type(default)]}


def values_schema():
    """values.schema.json: an unknown value is a mistake, except inside maps that are passed on."""
    root = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": False, "properties": {}}
    for path, default, meaning, schema in TABLE:
        *way, last = path.split(".")
        at = root
        for step in way:
            at = at["properties"].setdefault(step, {"type": "object", "additionalProperties": False, "properties": {}})
        made = dict(schema or of_type(default))
        if meaning:
            made["description"] = meaning
        if path == "config":
            made["required"] = ["listen", "backends", "admin"]
        at["properties"][last] = made
    # Helm passes these to every chart.
    root["properties"]["global"] = {"type": "object"}
    return root


__all__ = ["SHAPES", "defaults", "look", "merged", "scalar", "shape", "values_schema", "values_yaml"]
