#!/usr/bin/env python3
"""What many weirs cost a Prometheus: one real page of weir's, served as that of so many replicas, scraped by a real Prometheus.

usage:  thousand.py --weir FILE --prometheus FILE [--replicas 1000] [--interval 15] [--seconds 150]

A weir before a simulated engine is loaded for a moment, and its page is kept; an own server gives it to every replica's scrape with
its counters moving on. It prints the page's size, what Prometheus holds in memory and on disk, and the CPU of both. It checks nothing.
"""

import argparse
import contextlib
import gzip
import http.server
import json
import os
import re
import subprocess
import tempfile
import threading
import time

from e2e_prometheus import Store
from harness import Process, free_port, get, wait_until_up, weir, weir_engine

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CONFIG = """
global: {{ scrape_interval: {interval}s, scrape_timeout: {interval}s, evaluation_interval: 30s }}
rule_files: [ "{rules}" ]
scrape_configs:
  - job_name: weir
    static_configs: [ {{ targets: {targets}, labels: {{ namespace: n }} }} ]
    relabel_configs:
      - {{ source_labels: [__address__], target_label: __param_replica }}
      - {{ source_labels: [__address__], target_label: instance }}
      - {{ target_label: __address__, replacement: "127.0.0.1:{port}" }}
"""


def real_page(binary):
    """The page of a weir that has seen load, for one model."""
    with weir_engine(binary, "--profile", "slots16", "--speed", "4") as engine:
        model = json.loads(get(engine, "/v1/models")[1])["data"][0]["id"]
        backend = {"name": "engine", "url": f"http://127.0.0.1:{engine}", "model_name": model}
        with weir(binary, engine, {"backends": [backend]}) as (data, admin):
            load = ["sweep", "--target", f"http://127.0.0.1:{data}", "--rates", "30", "--duration", "12s", "--grace", "3s"]
            subprocess.run([binary, *load], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            begin = time.monotonic()
            page = get(admin, "/metrics")[1].decode()
            return page, time.monotonic() - begin


def moving(page):
    """The page in which every sample of a request counter has grown; another one each second, gzipped once for all replicas."""
    kept = {}

    def now():
        second = int(time.time())
        if second not in kept:
            kept.clear()
            grown = lambda found: f"{found[1]} {float(found[2]) + second % 100_000:g}"
            text = re.sub(r"(?m)^(\S+(?:_total|_bucket|_sum|_count)(?:\{.*\})?) (\S+)$", grown, page)
            kept[second] = gzip.compress(text.encode(), 1)
        return kept[second]

    return now


def serve(page):
    body = moving(page)

    class Replica(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            text = body()
            self.send_response(200)
            for name, value in (("Content-Type", "text/plain; version=0.0.4"), ("Content-Encoding", "gzip"), ("Content-Length", str(len(text)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """Prometheus ends with its connections open."""

    server = Server(("127.0.0.1", 0), Replica)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def of_process(pid):
    """CPU seconds and resident bytes."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weir", "--prometheus"):
        parser.add_argument(name, required=True)
    for name, usual in (("--replicas", 1000), ("--interval", 15), ("--seconds", 150)):
        parser.add_argument(name, type=int, default=usual)
    options = parser.parse_args()
    page, took = real_page(options.weir)
    series = sum(1 for line in page.splitlines() if line and not line.startswith("#"))
    print(f"one page: {series} series, {len(page)} bytes, {len(gzip.compress(page.encode(), 6))} gzipped, {1e3 * took:.1f} ms")
    port, own = serve(page), free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as keep:
        targets = json.dumps([f"replica-{number}:9902" for number in range(options.replicas)])
        rules = os.path.join(ROOT, "dashboards", "rules", "weir-rules.yaml")
        with open(os.path.join(folder, "prometheus.yml"), "w") as out:
            out.write(CONFIG.format(interval=options.interval, rules=rules, targets=targets, port=port))
        process = keep.enter_context(Process(
            options.prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{own}", log=os.path.join(folder, "log")))
        wait_until_up(own, "/-/ready", process, 60)
        store = Store(own)
        time.sleep(options.seconds / 2)
        before, at = of_process(process.pid)[0], time.monotonic()
        time.sleep(options.seconds / 2)
        cpu, resident = of_process(process.pid)
        print(f"{store.value('sum(up)'):.0f} of {options.replicas} replicas are scraped every {options.interval} s")
        head = json.loads(get(own, "/api/v1/status/tsdb")[1])["data"]["headStats"]
        print(f"Prometheus: {head['numSeries']} series in memory, {resident / 2**20:.0f} MiB resident, {(cpu - before) / (time.monotonic() - at):.2f} cores")
        wal = sum(os.path.getsize(os.path.join(folder, "data", "wal", name)) for name in os.listdir(os.path.join(folder, "data", "wal")))
        print(f"write-ahead log: {wal / 2**20:.0f} MiB after {options.seconds} s")
        for group in json.loads(get(own, "/api/v1/rules")[1])["data"]["groups"]:
            print(f"rules {group['name']}: {group['evaluationTime']:.2f} s an evaluation")
        print(f"knee of all: {store.value('fleet:weir_knee_requests_per_second:sum'):.0f} req/s of {store.value('fleet:weir_backends_up:count'):.0f} engines")


if __name__ == "__main__":
    main()
