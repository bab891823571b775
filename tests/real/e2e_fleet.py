#!/usr/bin/env python3
"""A fleet: four weirs before four engines, added up by a real Prometheus with the rules as shipped.

usage:  e2e.sh fleet

What the engines can serve is measured first, without weir. Then all four are overloaded: the fleet's knee must be the sum of the
truths. A ramp is sent through all: the scaler's query must wish for the replicas that the load needs. One weir gets everything: the
imbalance must show, and be alerted. At 0.7 of the fleet's knee one engine is killed: knee and headroom must fall, and the alerts come.
Where a rule waits or looks back for minutes, it does so for seconds here; its own times are tested with promtool.

Exit status 0: every check held.
"""

import argparse
import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import tempfile
import time

from e2e_prometheus import Store
from harness import Process, bar, check, free_port, verdict, wait_until, wait_until_up, weir

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# Engines of 16 slots at different speeds: a sum of equals would hide which one is missing.
SPEEDS = (1.5, 2.0, 2.0, 2.5)
PROFILE, LENGTHS = "slots16", ["--input-tokens", "lognormal:162,0.5", "--output-tokens", "lognormal:153,0.25"]
TRUTH_CLIENTS, TRUTH_SECONDS = 24, 20
KNEE_WITHIN = bar(0.05, 0.15)
OVERLOAD, OVERLOAD_SECONDS = 1.5, 30
RAMP, STEP_SECONDS = (0.3, 0.7, 1.15), 24
# A sweep warms up first, and the ratio is a mean over ten seconds that fades as soon as nothing is sent.
SETTLED = (20, 26)
ALONE, ALONE_SECONDS = 1.3, 30
STEADY, STEADY_SECONDS, ALERT_WITHIN = 0.7, 65, bar(60, 75)
SHORT = "10s"
KEDA = os.path.join(ROOT, "deploy", "kubernetes", "keda", "scaledobject.yaml")

PROMETHEUS = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [ "{rules}" ]
scrape_configs:
  - job_name: weir
    static_configs: [ {{ targets: {targets}, labels: {{ namespace: e2e }} }} ]
"""


def rules_in_seconds(folder):
    """The rules as shipped, but that none waits or looks back longer than some seconds."""
    with open(os.path.join(ROOT, "dashboards", "rules", "weir-rules.yaml")) as shipped:
        text = shipped.read()
    text = re.sub(r"for: \d+[mh]", f"for: {SHORT}", text).replace("interval: 30s", "interval: 1s")
    path = os.path.join(folder, "rules.yaml")
    with open(path, "w") as out:
        out.write(re.sub(r"\[(1|5|10)m\]", "[15s]", text))
    return path


class Load:
    """weir sweeps at once, one a target; each sends and forgets what is still open after its time."""

    def __init__(self, binary, ports, level, seconds, folder, clients=False):
        self.children, self.folders = [], []
        for number, (port, value) in enumerate(zip(ports, level)):
            out = os.path.join(folder, f"load-{time.monotonic_ns()}-{number}")
            kind = ["--concurrency", str(value)] if clients else ["--rates", f"{value:.3f}"]
            more = ["--duration", f"{seconds}s", "--grace", "3s", "--seed", str(number + 1), "--out", out, *LENGTHS]
            self.folders.append(out)
            self.children.append(subprocess.Popen(
                [binary, "sweep", "--target", f"http://127.0.0.1:{port}", *kind, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def join(self):
        for child in self.children:
            child.wait(180)
        levels = []
        for folder in self.folders:
            with contextlib.suppress(OSError), open(os.path.join(folder, "sweep.json")) as file:
                levels += json.load(file)["levels"]
        return levels


def scalers_query():
    """The query and the set point of the ScaledObject as shipped, for the labels of this run."""
    with open(KEDA) as file:
        text = file.read()
    query = json.loads(re.search(r'query: (".*")', text)[1])
    threshold = float(re.search(r'[^n]threshold: "([\d.]+)"', text)[1])
    return re.sub(r'namespace="[^"]*"', 'namespace="e2e"', re.sub(r'job="[^"]*"', 'job="weir"', query)), threshold


class Fleet:
    def __init__(self, options, folder, truths, data, store):
        self.options, self.folder, self.truths, self.data, self.store = options, folder, truths, data, store

    def load(self, share, seconds):
        """That share of what each engine can serve."""
        return Load(self.options.weir, self.data, [share * truth for truth in self.truths], seconds, self.folder)

    def during(self, load, query):
        """The mean of what the query answers while the load has settled."""
        begin, seen = time.monotonic(), []
        while time.monotonic() < begin + SETTLED[1]:
            time.sleep(0.5)
            if time.monotonic() > begin + SETTLED[0]:
                seen.append(self.store.value(query))
        load.join()
        return statistics.mean(seen)

    def now(self, name):
        return self.store.value(f"fleet:weir_{name}")

    def firing(self, name):
        return bool(self.store.ask("query", query=f'ALERTS{{alertname="{name}",alertstate="firing"}}'))

    def fires(self, name, since, sentence):
        wait_until(lambda: self.firing(name), ALERT_WITHIN - (time.monotonic() - since))
        check(self.firing(name), f"{name} fires {time.monotonic() - since:.0f} s after {sentence}")


def knee(fleet):
    check(math.isnan(fleet.now("headroom_ratio")), "before any load there is no headroom to tell, rather than a zero")
    fleet.load(OVERLOAD, OVERLOAD_SECONDS).join()
    check(fleet.now("knee_known:ratio") == 1, "every replica knows its knee")
    found, truth = fleet.now("knee_requests_per_second:sum"), sum(fleet.truths)
    low, high = fleet.now("knee_requests_per_second_low:sum"), fleet.now("knee_requests_per_second_high:sum")
    check(abs(found / truth - 1) <= KNEE_WITHIN, f"the fleet's knee {found:.2f} ({low:.2f} to {high:.2f}) req/s, the sum of the truths {truth:.2f} ({100 * (found / truth - 1):+.1f} %)")


def ramp(fleet):
    query, threshold = scalers_query()
    wished = []
    for share in RAMP:
        value = fleet.during(fleet.load(share, STEP_SECONDS), query)
        wished.append(math.ceil(value / threshold))
        exact = len(SPEEDS) * share / threshold
        print(f"  load {share:.2f} of the fleet's knee: the scaler's query {value:.2f}, wishes for {wished[-1]} replicas ({exact:.2f} before rounding up)", flush=True)
        off = abs(value / threshold - exact)
        check(off <= bar(0.75, 1.0), f"  within {off:.2f} replicas of what the load needs")
    check(wished == sorted(wished) and wished[0] < len(SPEEDS) < wished[-1], f"a ramp makes the fleet grow: {wished}")


def alone(fleet):
    # At the ramp's end all are past their knees, and not by the same share.
    calm = lambda: not fleet.store.ask("query", query='ALERTS{alertname="WeirLoadImbalance"}')
    check(wait_until(calm, 60), "once the ramp's backlog is gone nothing speaks of imbalance")
    begin = time.monotonic()
    load = Load(fleet.options.weir, fleet.data[:1], [ALONE * fleet.truths[0]], ALONE_SECONDS, fleet.folder)
    fleet.fires("WeirLoadImbalance", begin, "one weir got everything")
    wait_until(lambda: fleet.now("requests_offered:imbalance_rate5m") > 3, 20)
    check(fleet.now("requests_offered:imbalance_rate5m") > 3, f"imbalance {fleet.now('requests_offered:imbalance_rate5m'):.2f} of 4")
    load.join()


def one_dies(fleet, engine):
    load = fleet.load(STEADY, STEADY_SECONDS)
    time.sleep(25)  # the load's own warm-up, and one window of the rules
    before = {name: fleet.now(name) for name in ("headroom_ratio", "knee_requests_per_second:sum", "backends_up:count")}
    check(abs(before["headroom_ratio"] - (1 - STEADY)) <= bar(0.1, 0.15), f"at {STEADY} of the knee the headroom is {before['headroom_ratio']:.2f}")
    check(not fleet.firing("WeirFleetHeadroomLow") and not fleet.firing("WeirReplicaDown"), "and nothing fires")
    engine.kill()
    begin = time.monotonic()
    wait_until(lambda: fleet.now("backends_up:count") == 3, 30)
    check(fleet.now("backends_up:count") == 3, f"one engine is gone {time.monotonic() - begin:.0f} s after its end")
    fleet.fires("WeirReplicaDown", begin, "the engine's end")
    fleet.fires("WeirFleetHeadroomLow", begin, "the engine's end")
    lost = 1 - fleet.now("knee_requests_per_second:sum") / before["knee_requests_per_second:sum"]
    own = fleet.truths[-1] / sum(fleet.truths)
    check(abs(lost - own) <= 0.08, f"the fleet's knee fell by {100 * lost:.0f} % (that engine was {100 * own:.0f} %)")
    check(fleet.now("headroom_ratio") < 0.15, f"headroom fell from {before['headroom_ratio']:.2f} to {fleet.now('headroom_ratio'):.2f}")
    check(not fleet.firing("WeirBackendDown"), "three still reach theirs: WeirBackendDown is silent")
    load.join()


def run(options, folder, keep):
    engines, ports = [], [free_port() for _ in SPEEDS]
    for port, speed in zip(ports, SPEEDS):
        process = keep.enter_context(Process(options.weir, "engine", "--listen", f"127.0.0.1:{port}", "--profile", PROFILE, "--speed", str(speed), log=os.devnull))
        wait_until_up(port, "/health", process)
        engines.append(process)
    levels = Load(options.weir, ports, [TRUTH_CLIENTS] * len(ports), TRUTH_SECONDS, folder, clients=True).join()
    truths = [level["steady"]["throughput"]["requests"] for level in levels]
    print("  what the engines serve without weir:", ", ".join(f"{truth:.2f}" for truth in truths), "req/s", flush=True)
    data, admins = [], []
    for port in ports:
        backend = {"name": "engine", "url": f"http://127.0.0.1:{port}", "model_name": "m"}
        ours = keep.enter_context(weir(options.weir, port, {"backends": [backend]}))
        data.append(ours[0])
        admins.append(ours[1])
    prometheus = free_port()
    with open(os.path.join(folder, "prometheus.yml"), "w") as out:
        out.write(PROMETHEUS.format(rules=rules_in_seconds(folder), targets=json.dumps([f"127.0.0.1:{admin}" for admin in admins])))
    process = keep.enter_context(Process(
        options.prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{prometheus}", log=os.path.join(folder, "log")))
    wait_until_up(prometheus, "/-/ready", process)
    store = Store(prometheus)
    check(wait_until(lambda: store.value("sum(up)") == len(SPEEDS)), "Prometheus scrapes all four")
    check(wait_until(lambda: store.value("fleet:weir_backends_up:count") == len(SPEEDS)), "all four reach their engines")
    fleet = Fleet(options, folder, truths, data, store)
    for part in (knee, ramp, alone):
        part(fleet)
    one_dies(fleet, engines[-1])
    print("  series of one replica:", f"{store.value('max(scrape_samples_post_metric_relabeling)'):.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weir", "--prometheus"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as keep:
        run(options, folder, keep)
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    return verdict()


if __name__ == "__main__":
    raise SystemExit(main())
