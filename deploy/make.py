#!/usr/bin/env python3
"""Writes the Helm chart and the plain manifests for Kustomize, both of the same objects and the same values.

usage:  make.py [--check]

Without options the files are written; --check writes nothing and fails when a file differs. Notes, helpers
and the kustomizations are written by hand. Standard library only.
"""

import json
import pathlib
import sys

import objects
import values
import watching
from kit import plain, template, yaml

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE / "helm" / "weir"
PLAIN = HERE / "kubernetes"
MADE = "# Made by deploy/make.py; change deploy/{} and run it.\n"

# File of the chart, its condition, the function that builds the object.
RUNS = [
    ("configmap", None, objects.config),
    ("deployment", None, objects.deployment),
    ("service", None, objects.service),
    ("networkpolicy", ".Values.networkPolicy.enabled", objects.network_policy),
    ("poddisruptionbudget", ".Values.podDisruptionBudget.enabled", objects.disruption_budget),
]
SCALES = '(eq .Values.shape "sidecar") (eq .Values.autoscaling.kind "{}")'
WATCHES = [
    ("podmonitor", ".Values.podMonitor.enabled", watching.pod_monitor),
    ("prometheusrule", ".Values.prometheusRule.enabled", watching.prometheus_rule),
    ("scaledobject", f"and {SCALES.format('keda')}", watching.scaled_object),
    ("hpa", f"and {SCALES.format('hpa')}", watching.autoscaler),
]
# These get the labels by which your Prometheus selects them.
CHOSEN = ("podmonitor", "prometheusrule")
COMPONENTS = [("monitoring", "podmonitor", watching.pod_monitor), ("keda", "scaledobject", watching.scaled_object), ("hpa", "hpa", watching.autoscaler)]


def chart_file(name, condition, node, source):
    lines = template(node, values.defaults())
    if name in CHOSEN:
        at = lines.index("spec:")
        lines[at:at] = ["    {{- with .Values.podMonitor.labels }}", "    {{- toYaml . | nindent 4 }}", "    {{- end }}"]
    if condition:
        lines = [f"{{{{- if {condition} }}}}", *lines, "{{- end }}"]
    return MADE.format(source) + "\n".join(lines) + "\n"


def injected():
    """The patch of a Deployment of your own; the engine's hook is in the kustomization."""
    pod = plain(objects.pod(), values.shape("sidecar"))
    kept = ("terminationGracePeriodSeconds", "enableServiceLinks", "initContainers", "volumes")
    spec = {"template": {"spec": {key: pod[key] for key in kept}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "any"}, "spec": spec}


def files():
    for name, condition, build in RUNS:
        yield CHART / "templates" / f"{name}.yaml", chart_file(name, condition, build(), "objects.py")
    for name, condition, build in WATCHES:
        yield CHART / "templates" / f"{name}.yaml", chart_file(name, condition, build(), "watching.py")
    boards = "---\n".join("\n".join(template(watching.dashboard(name), values.defaults())) + "\n" for name in watching.DASHBOARDS)
    yield CHART / "templates" / "dashboards.yaml", MADE.format("watching.py") + "{{- if .Values.dashboards.enabled }}\n" + boards + "{{- end }}\n"
    yield CHART / "values.yaml", MADE.format("values.py") + values.values_yaml()
    yield CHART / "values-gateway.yaml", MADE.format("values.py") + yaml(values.SHAPES["gateway"]) + "\n"
    yield CHART / "values.schema.json", json.dumps(values.values_schema(), indent=1) + "\n"
    for shape in values.SHAPES:
        given = values.shape(shape)
        made = [plain(build(), given) for name, _, build in RUNS if name != "poddisruptionbudget" or given["podDisruptionBudget"]["enabled"]]
        yield PLAIN / shape / "weir.yaml", MADE.format("objects.py") + "\n---\n".join(yaml(one) for one in made) + "\n"
    for folder, name, build in COMPONENTS:
        yield PLAIN / folder / f"{name}.yaml", MADE.format("watching.py") + yaml(plain(build(), values.shape("sidecar"))) + "\n"
    yield PLAIN / "inject" / "sidecar.yaml", MADE.format("objects.py") + yaml(injected()) + "\n"
    config = plain(objects.config(), values.shape("sidecar"))
    yield PLAIN / "inject" / "configmap.yaml", MADE.format("values.py") + yaml(config) + "\n"


def main():
    stale = 0
    for path, text in files():
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            stale += 1
            print(f"{path.relative_to(HERE.parent)}: not what deploy/make.py writes; run it", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
