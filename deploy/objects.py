"""Configuration, pods, service, network policy, disruption budget. Monitoring and scaling are in watching.py."""

from kit import Document, Labels, Name, Splice, Text, Value, When

SELECT = {"app.kubernetes.io/name": "weir", "app.kubernetes.io/instance": Name()}
ADMIN = 9902
DATA = 8000
USER = 65532


def meta(**more):
    return {"name": Name(), "labels": Labels(SELECT), **more}


def probe(path, port, **times):
    return {"httpGet": {"path": path, "port": port}, **times}


def weir():
    """The container, the same in both shapes."""
    return {
        "name": "weir",
        "image": Value("image.name"),
        "imagePullPolicy": Value("image.pullPolicy"),
        "restartPolicy": When("shape", "Always", "sidecar"),
        "args": ["serve", "--config", "/etc/weir/weir.yaml", Splice("extraArgs")],
        "env": Value("extraEnv"),
        "ports": [{"name": "http", "containerPort": DATA}, {"name": "admin", "containerPort": ADMIN}],
        # Never /readyz: the engine is started after this probe has passed, and readiness waits for the engine.
        "startupProbe": probe("/livez", "admin", periodSeconds=1, failureThreshold=30),
        "livenessProbe": probe("/livez", "admin", periodSeconds=10, failureThreshold=3),
        "readinessProbe": probe("/readyz", "admin", periodSeconds=2, failureThreshold=2),
        "resources": Value("resources"),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # The directory, never subPath: a file mounted that way is not changed when the ConfigMap is.
        "volumeMounts": [
            {"name": "weir-config", "mountPath": "/etc/weir", "readOnly": True},
            When("adminTokenSecret", {"name": "weir-secret", "mountPath": "/etc/weir-secret", "readOnly": True}),
            Splice("extraVolumeMounts"),
        ],
    }


def engine():
    """vLLM, or another engine on the port that weir's configuration names."""
    return {
        "name": "engine",
        "image": Value("engine.image"),
        "command": Value("engine.command"),
        "args": Value("engine.args"),
        "env": Value("engine.env"),
        "ports": [{"name": "engine", "containerPort": Value("engine.port")}],
        "startupProbe": probe(Value("engine.healthPath"), "engine", periodSeconds=1, failureThreshold=Value("engine.startSeconds")),
        "readinessProbe": probe(Value("engine.healthPath"), "engine", periodSeconds=5, failureThreshold=3),
        # On the engine, because a sidecar stops last: without this hook the engine would end while weir still sends to it.
        "lifecycle": {"preStop": {"httpGet": When("adminTokenSecret", hook(), ""), "exec": When("adminTokenSecret", hook_with_token())}},
        "resources": Value("engine.resources"),
        "volumeMounts": Value("engine.volumeMounts"),
    }


def hook():
    return {"path": Text(("/drain?wait=", Value("drainWait"))), "port": ADMIN}


def hook_with_token():
    """A kubelet cannot carry a token; a request from within the pod needs none. The engine's image must have curl."""
    return {"command": ["curl", "--fail", "--silent", Text((f"http://127.0.0.1:{ADMIN}/drain?wait=", Value("drainWait")))]}


def config():
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(), "data": {"weir.yaml": Document("config")}}


def deployment():
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta(),
        "spec": {
            "replicas": When("autoscaling.kind", Value("replicas"), "none"),
            "selector": {"matchLabels": SELECT},
            "strategy": Value("strategy"),
            "template": {
                "metadata": {"labels": {**SELECT, "app.kubernetes.io/component": Value("shape")}, "annotations": Value("podAnnotations")},
                "spec": pod(),
            },
        },
    }


def pod():
    return {
        "terminationGracePeriodSeconds": Value("terminationGracePeriodSeconds"),
        # A Service named weir would set WEIR_PORT and its like.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "imagePullSecrets": Value("imagePullSecrets"),
        "initContainers": When("shape", [weir()], "sidecar"),
        "containers": [When("shape", engine(), "sidecar"), When("shape", weir(), "gateway")],
        "volumes": [
            {"name": "weir-config", "configMap": {"name": Name()}},
            When("adminTokenSecret", {"name": "weir-secret", "secret": {"secretName": Value("adminTokenSecret")}}),
            Splice("extraVolumes"),
        ],
        "nodeSelector": Value("nodeSelector"),
        "tolerations": Value("tolerations"),
        "affinity": Value("affinity"),
    }


def service():
    ports = [{"name": "http", "port": Value("service.port"), "targetPort": "http"}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta(), "spec": {"type": Value("service.type"), "selector": SELECT, "ports": ports}}


def network_policy():
    """The kubelet on the pod's own node is admitted by the network itself."""
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": Value("networkPolicy.monitoringNamespace")}}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(),
        "spec": {
            "podSelector": {"matchLabels": SELECT},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"port": "http", "protocol": "TCP"}]},
                {"from": monitoring, "ports": [{"port": "admin", "protocol": "TCP"}, When("shape", {"port": Value("engine.port"), "protocol": "TCP"}, "sidecar")]},
            ],
        },
    }


def disruption_budget():
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": SELECT}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta(), "spec": spec}
