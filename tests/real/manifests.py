"""The objects for Kubernetes: valid for real schemas, and the same out of Helm and out of Kustomize.

What weir itself understands of them is asked by tests/it/deploy.rs. No cluster is asked.
"""

import json
import os
import subprocess

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

from harness import check

# The oldest with native sidecars on, and the newest whose schemas there are.
VERSIONS = ("1.29", "1.37")
CUSTOM = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")
BUILDS = ("sidecar", "gateway", "examples/inject", "examples/watched")


def closed(**properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


STRING, NUMBER, MAP, LIST = {"type": "string"}, {"type": "integer"}, {"type": "object"}, {"type": "array"}
# The custom resources' own schemas let an unknown key pass, for the API server drops it; here it is a mistake. These know only the keys that we use.
SPECS = {
    "PodMonitor": closed(jobLabel=STRING, selector=closed(matchLabels=MAP), podMetricsEndpoints={"type": "array", "items": closed(port=STRING, path=STRING, interval=STRING)}),
    "PrometheusRule": closed(
        groups={
            "type": "array",
            "minItems": 1,
            "items": closed(
                name=STRING,
                interval=STRING,
                rules={"type": "array", "items": closed(record=STRING, alert=STRING, expr=STRING, labels=MAP, annotations=MAP, keep_firing_for=STRING, **{"for": STRING})},
            ),
        }
    ),
    "ScaledObject": closed(
        scaleTargetRef=closed(apiVersion=STRING, kind=STRING, name=STRING),
        minReplicaCount=NUMBER,
        maxReplicaCount=NUMBER,
        advanced=closed(horizontalPodAutoscalerConfig=closed(behavior=closed(scaleDown=closed(stabilizationWindowSeconds=NUMBER, policies=LIST)))),
        triggers={
            "type": "array",
            "items": closed(type=STRING, metadata=closed(serverAddress=STRING, query=STRING, threshold=STRING, activationThreshold=STRING, ignoreNullValues=STRING)),
        },
    ),
}
# What Helm says of where an object comes from, beside what both say.
ORIGIN = ("helm.sh/chart", "app.kubernetes.io/version", "app.kubernetes.io/managed-by")
ALL_ON = {name: {"enabled": True} for name in ("networkPolicy", "podDisruptionBudget", "podMonitor", "prometheusRule", "dashboards")}
ASK = """
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as operator from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";
for (const object of JSON.parse(readFileSync(0)))
  try { new { ...keda, ...operator }[object.kind](object).validate(); }
  catch (why) { console.log(`${object.kind}: ${why.message}`); }
"""


def held(deploy, options, folder):
    """Every check of this file."""
    built = {name: kustomized(deploy, name, options.tools) for name in BUILDS}
    chart = helm.Chart.load(os.path.join(deploy, "helm", "weir"))
    with open(os.path.join(deploy, "helm", "weir", "values-gateway.yaml")) as file:
        gateway = yaml.safe_load(file)
    rendered = {
        "sidecar": render(chart, {}),
        "gateway": render(chart, gateway),
        "all on, keda": render(chart, {**ALL_ON, "autoscaling": {"kind": "keda"}, "adminTokenSecret": "token", "extraArgs": ["--log=info"], "tolerations": [{"operator": "Exists"}]}, "llama", "prod"),
        "all on, hpa": render(chart, {**ALL_ON, "autoscaling": {"kind": "hpa"}, "podMonitor": {"enabled": True, "labels": {"release": "stack"}}}, "llama", "prod"),
    }
    for name, objects in [*built.items(), *((f"helm, {name}", objects) for name, objects in rendered.items())]:
        wrong = [fault for one in objects for fault in faults(one)]
        check(not wrong, f"{name}: {len(objects)} objects are valid in Kubernetes {' and '.join(VERSIONS)} {wrong[:2] or ''}")
    for shape in ("sidecar", "gateway"):
        check(same(built[shape]) == same(rendered[shape]), f"{shape}: Helm {helm.helm_sdk_version()} and Kustomize make the same objects")
    custom = [one for objects in [*built.values(), *rendered.values()] for one in objects if one["apiVersion"] in CUSTOM]
    check(len(custom) >= 7, f"{len(custom)} custom resources were looked at")
    if options.schemas:
        published(custom, options.schemas)
    chart_manners(deploy, chart, gateway)
    the_checks_can_fail(built["sidecar"])
    hooks(rendered)
    scaling(built["examples/watched"], rendered)


def kustomized(deploy, name, tools):
    command = [os.path.join(tools, "kubectl"), "kustomize", os.path.join(deploy, "kubernetes", name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"kubectl kustomize {name} {done.stderr[:300]}")
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def render(chart, values, name="weir", namespace="default"):
    """The objects, without what a hook makes; notes are no objects."""
    made = chart.render(values, name=name, namespace=namespace)
    objects = [one for path, text in made.items() if path.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
    return [one for one in objects if "helm.sh/hook" not in one["metadata"].get("annotations", {})]


def faults(one):
    if one["apiVersion"] in CUSTOM:
        return [error.message for error in jsonschema.Draft202012Validator(SPECS[one["kind"]]).iter_errors(one["spec"])]
    wrong = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except Exception as why:  # several kinds, all of which say what is wrong
            wrong.append(f"{one['kind']}: {why}"[:300])
    return wrong


def same(objects):
    """By kind and name, without the labels that only Helm sets, and a configuration by what it says."""
    found = {}
    for one in json.loads(json.dumps(objects)):
        labels = one["metadata"].get("labels", {})
        one["metadata"]["labels"] = {key: value for key, value in labels.items() if key not in ORIGIN}
        if one["kind"] == "ConfigMap" and "weir.yaml" in one["data"]:
            one["data"] = yaml.safe_load(one["data"]["weir.yaml"])
        found[one["kind"], one["metadata"]["name"]] = one
    return found


def published(custom, schemas):
    """The schemas that the projects publish: types and what must be there."""
    script = os.path.join(schemas, "ask.mjs")
    with open(script, "w") as file:
        file.write(ASK)
    wrong = json.loads(json.dumps(custom))
    for one in wrong:
        one["spec"] = {"groups": 1, "triggers": 1, "selector": 1, "podMetricsEndpoints": 1}

    def said(objects):
        done = subprocess.run(["node", script], input=json.dumps(objects), capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.split("\n")[:-1]

    check(said(custom) == [], f"the schemas that KEDA and the Prometheus Operator publish take them {said(custom)[:2] or ''}")
    check(len(said(wrong)) == len(custom), "and would not have taken others")


def chart_manners(deploy, chart, gateway):
    report = helm.lint(os.path.join(deploy, "helm", "weir"), strict=True, kube_version="v1.33.0")
    loud = [message for message in report["messages"] if message["severity"] >= 2]
    check(not report["errors"] and not loud, f"helm lint --strict has nothing to say {report['errors'] or loud or ''}")
    chart.validate_schema(gateway)
    for values in ({"replicsa": 2}, {"autoscaling": {"kind": "vpa"}}, {"engine": {"prot": 8200}}, {"drainWait": 120}):
        try:
            chart.validate_schema(values)
            check(False, f"the values' schema takes {values}")
        except helm.HelmValuesError:
            check(True, f"the values' schema refuses {values}")


def hooks(rendered):
    """The engine's hook is the kubelet's, but where a token is asked for, which the kubelet has not."""
    for name, how in (("sidecar", "httpGet"), ("all on, keda", "exec")):
        deployment = next(one for one in rendered[name] if one["kind"] == "Deployment")
        hook = deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]
        check(list(hook) == [how] and "/drain?wait=120s" in json.dumps(hook), f"helm, {name}: the engine's hook is {how}")


def the_checks_can_fail(objects):
    wrong = json.loads(json.dumps(next(one for one in objects if one["kind"] == "Deployment")))
    wrong["spec"]["template"]["spec"]["initContainers"][0]["restartPolcy"] = "Always"
    check(len(faults(wrong)) == len(VERSIONS), "a misspelt key of a sidecar is refused")
    monitor = {"apiVersion": CUSTOM[0], "kind": "PodMonitor", "spec": {"selector": {}, "podMetricsEndpoints": [{"prt": "admin"}]}}
    check(len(faults(monitor)) == 1, "and one of a PodMonitor")


def scaling(watched, rendered):
    """Who is scaled has no number of pods of its own, and the scaler asks for what the PodMonitor calls it."""
    for name, objects in (("kustomize", watched), ("helm", rendered["all on, keda"])):
        of = {one["kind"]: one for one in objects if one["kind"] in ("Deployment", "ScaledObject", "PodMonitor")}
        target, job = of["Deployment"]["metadata"], of["Deployment"]["spec"]["template"]["metadata"]["labels"][of["PodMonitor"]["spec"]["jobLabel"]]
        query = of["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
        namespace = target.get("namespace", "prod")
        check("replicas" not in of["Deployment"]["spec"], f"{name}: the number of pods is left to the scaler")
        check(of["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == target["name"], f"{name}: the scaler's target exists")
        check(query.count(f'namespace="{namespace}",job="{job}"') == 2, f"{name}: the scaler asks for namespace {namespace} and job {job}")
