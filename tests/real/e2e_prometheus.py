#!/usr/bin/env python3
"""A real Prometheus scrapes weir once a second during a run: what it stores must be what the client counted.

usage:  e2e.sh prometheus

Between two scrapes the counters must have grown by what the client saw end between them; rate() must agree within what
extrapolation to the window's edges allows; the identities must hold in every scrape that was stored; and promtool must find
nothing to say about the page, before traffic and after.

Exit status 0: every check held.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import urllib.parse

from harness import Process, check, free_port, get, settled, verdict, wait_until, wait_until_up, weir, weir_engine
from load import open_loop

RATE, REQUESTS, TOKENS = 12.0, 480, 16
SCRAPE, WINDOW = 1.0, 20
# rate() extrapolates by up to a scrape interval at either edge.
RATE_RELATIVE = 2 * SCRAPE / WINDOW
# On a busy machine the client hears of an end later than weir, and a page is made later than its scrape begins.
LATENESS = 1.0

CONFIG = """
global: {{ scrape_interval: {scrape:g}s, scrape_timeout: {scrape:g}s }}
scrape_configs:
  - job_name: weir
    static_configs: [ {{ targets: ["127.0.0.1:{admin}"] }} ]
"""


class Store:
    """A running Prometheus, asked in PromQL."""

    def __init__(self, port):
        self.port = port

    def ask(self, path, **parameters):
        status, body = get(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        if status != 200:
            raise RuntimeError(f"{parameters}: {answer.get('error')}")
        return answer["data"]["result"]

    def value(self, query, **parameters):
        """The value of a query with one result; NaN without."""
        result = self.ask("query", query=query, **parameters)
        return float(result[0]["value"][1]) if result else float("nan")

    def samples(self, query, **parameters):
        """The stored samples of all series of a range selector: time to sum of values."""
        by_time = {}
        for series in self.ask("query", query=query, **parameters):
            for at, value in series["values"]:
                by_time[float(at)] = by_time.get(float(at), 0) + float(value)
        return by_time

    def over(self, query, begin, end):
        result = self.ask("query_range", query=query, start=begin, end=end, step=SCRAPE)
        return [float(value) for _, value in result[0]["values"]] if result else []


def lint(promtool, admin, when):
    found = subprocess.run([promtool, "check", "metrics"], input=get(admin, "/metrics")[1], capture_output=True)
    said = (found.stdout + found.stderr).decode().strip()
    check(found.returncode == 0 and not said, f"promtool check metrics, {when}: status {found.returncode} {said}")


def compare(store, results, begin, end):
    """What was stored over the run, against what the client saw."""
    check(store.value("min_over_time(up[30s])", time=end) == 1, "up was 1 in every scrape")
    ends, tokens = sorted(r.at for r in results), sum(r.tokens for r in results)
    seen = store.samples(f'weir_requests_finished_total{{outcome="completed"}}[{end - begin:.0f}s]', time=end)
    check(len(seen) >= (end - begin) / SCRAPE - 3, f"{len(seen)} scrapes stored in {end - begin:.0f} s")
    heard = lambda until: sum(1 for at in ends if at < until)
    fits = [heard(at - LATENESS) <= value <= heard(at + LATENESS) for at, value in seen.items()]
    off = [value - heard(at) for at, value in seen.items()]
    check(all(fits), f"completed at each scrape is the client's count within {LATENESS:g} s (less it: {min(off):.0f} to {max(off):.0f})")

    middle = begin + (REQUESTS / RATE + WINDOW) / 2  # a window inside the load
    felt = sum(1 for at in ends if middle - WINDOW <= at < middle) / WINDOW
    for name, query, own in [
        ("completed/s", f'sum(rate(weir_requests_finished_total{{outcome="completed"}}[{WINDOW}s]))', felt),
        ("tokens/s", f"sum(rate(weir_output_tokens_total[{WINDOW}s]))", felt * TOKENS),
    ]:
        rate = store.value(query, time=middle)
        check(abs(rate / own - 1) <= RATE_RELATIVE, f"rate() of {name} {rate:.2f}, client {own:.2f} ({100 * (rate / own - 1):+.1f} %)")

    for name, query, own in [
        ("offered", "sum(weir_requests_offered_total)", len(results)),
        ("completed", 'sum(weir_requests_finished_total{outcome="completed"})', len(results)),
        ("output tokens", "sum(weir_output_tokens_total)", tokens),
        ("TTFT observations", "sum(weir_time_to_first_token_seconds_count)", len(results)),
    ]:
        total = store.value(query, time=end)
        check(total == own, f"{name} in the end: {total:.0f}, client {own}")
    mean = store.value("sum(weir_time_to_first_token_seconds_sum) / sum(weir_time_to_first_token_seconds_count)", time=end)
    felt = sum(r.first for r in results) / len(results)
    check(0 < mean <= felt, f"mean TTFT {mean * 1e3:.1f} ms, never above the client's {felt * 1e3:.1f} ms")

    for identity in [
        'sum(weir_requests_offered_total) - sum(weir_requests_admitted_total) - sum(weir_requests_shed_total)'
        ' - sum(weir_requests_abandoned_total{phase="queue"}) - sum(weir_queue_depth)',
        "sum(weir_requests_admitted_total) - sum(weir_requests_finished_total) - sum(weir_inflight_requests)",
    ]:
        values = store.over(identity, begin + 2, end)
        check(values and set(values) == {0}, f"an identity holds in {len(values)} stored scrapes: {set(values)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weir", "--prometheus", "--promtool"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    version = subprocess.run([options.prometheus, "--version"], capture_output=True, text=True)
    print((version.stdout + version.stderr).splitlines()[0])
    with tempfile.TemporaryDirectory() as folder, weir_engine(options.weir) as engine, weir(options.weir, engine) as (data, admin):
        lint(options.promtool, admin, "before traffic")
        config, port = os.path.join(folder, "prometheus.yml"), free_port()
        with open(config, "w") as out:
            out.write(CONFIG.format(scrape=SCRAPE, admin=admin))
        server = Process(
            options.prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}", log=os.path.join(folder, "log"))
        with server as process:
            wait_until_up(port, "/-/ready", process)
            store = Store(port)
            check(wait_until(lambda: store.value("up") == 1), "Prometheus scrapes weir: up is 1")
            begin = time.time()
            results = open_loop(data, RATE, REQUESTS, TOKENS)
            errors = [r.error or r.status for r in results if r.error or r.status != 200]
            check(not errors, f"no request failed ({errors[:3]})")
            settled(admin)
            time.sleep(2 * SCRAPE)  # what is settled is in the store after the next scrape
            compare(store, results, begin, time.time())
        lint(options.promtool, admin, "after the run")
    return verdict()


if __name__ == "__main__":
    raise SystemExit(main())
