#!/usr/bin/env python3
"""Writes the dashboards and the rules of weir.

usage:  make.py [--check] [--prefix PREFIX]

Without options the files beside this script are written. --check writes nothing and fails when one of them is not what
would be written. --prefix is put before every metric of weir's, for stacks that rename what they scrape (kserve_).
Standard library only.
"""

import argparse
import json
import pathlib
import re
import sys

from backend import backend
from overview import overview
from rules import groups
from rules_test import STEP, tests
from sweep import sweep

HERE = pathlib.Path(__file__).resolve().parent
MADE = "# Made by dashboards/make.py; change rules.py and run it.\n"


def text_of(value, depth=0):
    """YAML of dicts, lists, strings and numbers: double-quoted strings, so that nothing has to be escaped but as in JSON."""
    pad = "  " * depth
    if isinstance(value, dict):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, (dict, list)) and inner:
                lines.append(f"{pad}{key}:\n{text_of(inner, depth + 1)}")
            else:
                lines.append(f"{pad}{key}: {plain(inner)}")
        return "\n".join(lines)
    items = (text_of(inner, depth + 1).lstrip() if isinstance(inner, dict) else plain(inner) for inner in value)
    return "\n".join(f"{pad}- {item}" for item in items)


def plain(value):
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.:/]*|[0-9]+[smhd]", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def files(prefix):
    for name, build in (("weir-overview", overview), ("weir-backend", backend), ("weir-sweep", sweep)):
        yield HERE / f"{name}.json", json.dumps(build(prefix), indent=1, ensure_ascii=False) + "\n"
    made = groups()
    if prefix:
        made = json.loads(re.sub(r"\bweir_", prefix + "weir_", json.dumps(made)))
    yield HERE / "rules" / "weir-rules.yaml", MADE + text_of({"groups": made}) + "\n"
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "weir", "labels": {"app.kubernetes.io/name": "weir"}},
        "spec": {"groups": made},
    }
    if not prefix:
        order = [group["name"] for group in made]
        cases = {"rule_files": ["weir-rules.yaml"], "evaluation_interval": f"{STEP}s", "group_eval_order": order, "tests": tests()}
        yield HERE / "rules" / "weir-rules_test.yaml", MADE.replace("rules.py", "rules_test.py") + text_of(cases) + "\n"
    yield HERE / "rules" / "weir-prometheusrule.yaml", MADE + text_of(resource) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Writes the dashboards and the rules of weir.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("--prefix", default="", help="before every metric of weir's")
    options = parser.parse_args()
    stale = 0
    for path, text in files(options.prefix):
        if path.exists() and path.read_text() == text:
            continue
        if options.check:
            stale += 1
            print(f"{path.relative_to(HERE.parent)}: not what dashboards/make.py writes; run it", file=sys.stderr)
        else:
            path.write_text(text)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
