#!/usr/bin/env python3
"""Prometheus and Alertmanager watch weir through an overload: panels find data, alerts come when they must and not before.

usage:  e2e.sh alerts
        E2E_QUIET=30 e2e.sh alerts      0.85 of the capacity for 30 minutes under the rules as shipped, then twice: silence, then the plateau

A simulated engine behind weir is loaded at 0.7 of its capacity (nothing may fire), then at twice (the plateau must fire within a
minute of the step, and reach Alertmanager), under which every expression of every panel is asked; then weir enforces (shedding must
fire), then the engine is ended (backend down must fire, and mute what follows from it). Where a rule waits for minutes, it waits for
seconds here; its own time is tested with promtool.

Exit status 0: every check held.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
import threading
import time

from e2e_prometheus import Store
from harness import Process, check, free_port, get, verdict, wait_until, wait_until_up, weir
from load import open_loop
from nvml import FakeNvml

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DASHBOARDS = os.path.join(ROOT, "dashboards")
# The engine with 16 slots, which serves 5.13 requests a second of its usual 200 tokens.
PROFILE, CAPACITY, TOKENS = "slots16", 5.13, 200
LIGHT, BUSY, HEAVY = 0.7, 0.85, 2.0
LIGHT_SECONDS, HEAVY_SECONDS, ENFORCED_SECONDS = 75, 75, 60
PLATEAU_WITHIN = 60
SHORT = "15s"
# What says that the knee is passed. Others may come below it: a headroom that is low, an objective that a burst missed.
SATURATION = {"WeirThroughputPlateau", "WeirBackendSaturated", "WeirSheddingHigh"}
# Panels that have nothing to show in such a run.
NO_DATA = {
    "probe": "no synthetic load runs",
    "vllm:": "the engine is not vLLM",
    "weir_kv_cap_tokens": "no cap is in force",
    "weir_capacity_predicted": "a knee is known, or no limit is",
    "weir_capacity_lower_bound": "a knee is known",
    "weir_capacity_upper_bound": "a knee is known",
    "weir_concurrency_limit": "no policy of that kind is in force",
    "weir_label_overflow_total": "no label value was folded",
    "weir_upstream_retries_total": "nothing was retried",
    "reported_kv": "told by some engines only",
}
STANDS_FOR = {"__rate_interval": "15s", "__interval": "5s", "__range": "2m", "slo_target": "0.99"}

PROMETHEUS = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [ "{rules}" ]
alerting: {{ alertmanagers: [ {{ static_configs: [ {{ targets: ["127.0.0.1:{alertmanager}"] }} ] }} ] }}
scrape_configs:
  - job_name: weir
    file_sd_configs: [ {{ files: [ "{targets}" ], refresh_interval: 1s }} ]
"""
ALERTMANAGER = """
route: {{ receiver: nobody, group_by: [alertname, backend], group_wait: 0s, group_interval: 1s }}
receivers: [ {{ name: nobody }} ]
{inhibit}
"""


def rules(folder, as_shipped):
    """The rules as shipped; unless they are to stay so, none waits longer than SHORT."""
    with open(os.path.join(DASHBOARDS, "rules", "weir-rules.yaml")) as shipped:
        text = shipped.read()
    if not as_shipped:
        text = re.sub(r"for: \d+[mh]", f"for: {SHORT}", text).replace("interval: 30s", "interval: 1s")
    path = os.path.join(folder, "rules.yaml")
    with open(path, "w") as out:
        out.write(text)
    return path


class Watch:
    """What Alertmanager has been told, and when it first was."""

    def __init__(self, port):
        self.port, self.first, self.over = port, {}, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def now(self):
        return {a["labels"]["alertname"]: a["status"]["state"] for a in json.loads(get(self.port, "/api/v2/alerts")[1])}

    def run(self):
        while not self.over.wait(0.5):
            for name in self.now():
                self.first.setdefault(name, time.time())


def expressions(path):
    """Every query of a dashboard with the title of its panel, variables put in."""
    def panels(holder):
        for panel in holder.get("panels", []):
            yield panel
            yield from panels(panel)

    with open(path) as file:
        for panel in panels(json.load(file)):
            for target in panel.get("targets", []):
                yield panel["title"], re.sub(r"\$\{?(\w+)\}?", lambda found: STANDS_FOR.get(found[1], ".*"), target["expr"])


def dashboards(store):
    for name in sorted(os.listdir(DASHBOARDS)):
        if not name.endswith(".json"):
            continue
        asked, empty, excused, wrong = 0, [], 0, []
        for title, query in expressions(os.path.join(DASHBOARDS, name)):
            asked += 1
            try:
                found = store.ask("query", query=query)
            except RuntimeError as why:
                wrong.append(f"{title}: {why}")
                continue
            if found:
                continue
            if any(part in query for part in NO_DATA):
                excused += 1
            else:
                empty.append(f"{title}: {query}")
        check(not wrong, f"{name}: {asked} expressions are understood {wrong[:3]}")
        check(not empty, f"{name}: they return data, but for {excused} that cannot here {empty[:5]}")


def load_for(port, factor, seconds):
    rate = factor * CAPACITY
    return open_loop(port, rate, int(rate * seconds), TOKENS)


def in_background(port, factor, seconds):
    thread = threading.Thread(target=load_for, args=(port, factor, seconds))
    thread.start()
    return thread


def fires_within(watch, name, since, seconds, sentence):
    wait_until(lambda: name in watch.first, seconds)
    after = watch.first.get(name, float("nan")) - since
    check(after <= seconds, f"{name} is at Alertmanager {after:.0f} s after {sentence}")


def observing(data, store, watch):
    begin = set(watch.first)
    load_for(data, LIGHT, LIGHT_SECONDS)
    loud = set(watch.first) - begin
    check(not loud, f"{LIGHT} of the capacity for {LIGHT_SECONDS} s: nothing fires {sorted(loud)}")
    step, load = time.time(), in_background(data, HEAVY, HEAVY_SECONDS)
    fires_within(watch, "WeirThroughputPlateau", step, PLATEAU_WITHIN, f"the step to {HEAVY:g}x")
    dashboards(store)
    check("WeirSheddingHigh" not in watch.first, "nobody is refused in mode observe, and no alert says so")
    load.join()


def quiet(data, store, watch, minutes):
    """The rules as they are shipped: nothing may fire below the knee however long it lasts, and the plateau must within a minute."""
    begin = time.time()
    load_for(data, BUSY, minutes * 60)
    lasted = (time.time() - begin) / 60
    loud = set(watch.first) & SATURATION
    check(not loud, f"{BUSY} of the capacity for {lasted:.1f} minutes: no alert says saturated {sorted(loud)}; any alert: {sorted(watch.first)}")
    states = store.ask("query", query=f'sum by (state) (sum_over_time(weir_saturation_state[{minutes}m]))')
    print("  seconds in each state:", {one["metric"]["state"]: int(float(one["value"][1])) for one in states})
    step, load = time.time(), in_background(data, HEAVY, HEAVY_SECONDS)
    fires_within(watch, "WeirThroughputPlateau", step, PLATEAU_WITHIN, f"the step to {HEAVY:g}x")
    load.join()


def enforcing(data, store, watch, engine):
    step, load = time.time(), in_background(data, HEAVY, ENFORCED_SECONDS)
    fires_within(watch, "WeirSheddingHigh", step, ENFORCED_SECONDS, "the step to enforcement")
    load.join()
    engine.terminate()
    fires_within(watch, "WeirBackendDown", time.time(), ENFORCED_SECONDS, "the engine's end")
    muted = [name for name, state in watch.now().items() if state == "suppressed"]
    print("  muted meanwhile:", ", ".join(muted) or "nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weir", "--prometheus", "--promtool", "--alertmanager"):
        parser.add_argument(name, required=True)
    parser.add_argument("--quiet", type=int, metavar="MINUTES", default=os.environ.get("E2E_QUIET"))
    options = parser.parse_args()
    shipped = os.path.join(DASHBOARDS, "rules")
    for words in (["check", "rules", "weir-rules.yaml"], ["test", "rules", "weir-rules_test.yaml"]):
        ran = subprocess.run([options.promtool, *words], cwd=shipped, capture_output=True, text=True)
        check(ran.returncode == 0, f"promtool {' '.join(words)} {'' if ran.returncode == 0 else (ran.stdout + ran.stderr).strip()[-900:]}")

    with tempfile.TemporaryDirectory() as folder:
        run(options, folder)
    return verdict()


def run(options, folder):
    engine_port, manager_port, port = free_port(), free_port(), free_port()
    targets = os.path.join(folder, "targets.json")

    def scrape(admin):
        with open(targets + ".new", "w") as out:
            json.dump([{"targets": [f"127.0.0.1:{admin}"], "labels": {"namespace": "e2e", "cluster": "c"}}], out)
        os.replace(targets + ".new", targets)

    with open(os.path.join(ROOT, "deploy", "compose", "alertmanager", "inhibit.yaml")) as file:
        inhibit = file.read()
    with open(os.path.join(folder, "alertmanager.yml"), "w") as out:
        out.write(ALERTMANAGER.format(inhibit=inhibit))
    with open(os.path.join(folder, "prometheus.yml"), "w") as out:
        out.write(PROMETHEUS.format(rules=rules(folder, options.quiet is not None), alertmanager=manager_port, targets=targets))
    manager = Process(
        options.alertmanager, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am", "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{manager_port}", log=os.path.join(folder, "am.log"))
    prometheus = Process(
        options.prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", log=os.path.join(folder, "log"))
    engine = Process(options.weir, "engine", "--listen", f"127.0.0.1:{engine_port}", "--profile", PROFILE)
    backend = {"name": "gpu-0", "url": f"http://127.0.0.1:{engine_port}", "model_name": "test-model"}
    nvml = FakeNvml(folder, throttling=4, xids=0)
    if not nvml.library:
        NO_DATA["weir_gpu_"] = "there is no C compiler to make a GPU with"
    settings = {"slo": {"ttft": "1500ms"}, "backends": [backend]} | nvml.settings()
    with engine as engine_process, manager as manager_process, prometheus as prometheus_process:
        wait_until_up(engine_port, "/health", engine_process)
        wait_until_up(manager_port, "/-/ready", manager_process)
        wait_until_up(port, "/-/ready", prometheus_process)
        store, watch = Store(port), Watch(manager_port)
        with weir(options.weir, engine_port, settings) as (data, admin):
            scrape(admin)
            check(wait_until(lambda: store.value("up") == 1), "Prometheus scrapes weir: up is 1")
            if options.quiet is not None:
                quiet(data, store, watch, options.quiet)
                watch.over.set()
                return
            nvml.answer(throttling=4, xids=1)
            observing(data, store, watch)
        with weir(options.weir, engine_port, settings | {"mode": "enforce"}) as (data, admin):
            scrape(admin)
            check(wait_until(lambda: store.value(f'up{{instance="127.0.0.1:{admin}"}}') == 1), "it scrapes the one that enforces")
            enforcing(data, store, watch, engine_process)
        watch.over.set()


if __name__ == "__main__":
    raise SystemExit(main())
