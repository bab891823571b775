#!/usr/bin/env python3
"""What a scrape of twenty backends with ten models costs, and whether clients feel it.

usage:  e2e.sh scrape

One simulated engine stands behind twenty names; every backend serves every model once, so that all its series exist. Then clients ask at a
steady rate, in turns without a scrape and with one a second (gzip, as Prometheus asks): time of a scrape, and time to the first token.

Exit status 0: every check held.
"""

import argparse
import gzip
import http.client
import statistics
import threading
import time

from harness import Process, bar, check, free_port, verdict, wait_until_up, weir
from load import chat, open_loop

BACKENDS, MODELS, ROUNDS, SECONDS, RATE, TOKENS = 20, 10, 4, 8, 15, 8
# Asked: 50 ms. Beside others' work a scrape may wait for the processor.
SCRAPE_MS, SCRAPE_MS_BUSY = 50, 1000
# The 99th percentile with scrapes over that without: within a fifth and 2 ms, or a tenth of a second beside others' work.
MOVED, MOVED_BUSY = 1.2, 3.0


def scrape(admin):
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    begin = time.monotonic()
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    body = connection.getresponse().read()
    took = time.monotonic() - begin
    connection.close()
    return took * 1e3, body


def ask_all(data):
    """Every backend in turn for every model."""
    for model in range(MODELS):
        for _ in range(BACKENDS):
            sent = chat(data, 1, 2, model=f"m{model}")
            assert sent.status == 200, sent.status


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    options = parser.parse_args()
    port = free_port()
    engine = Process(options.weir, "engine", "--listen", f"127.0.0.1:{port}", "--profile", "seed", "--speed", "4")
    backends = [{"name": f"gpu-{i}", "url": f"http://127.0.0.1:{port}", "model_name": "m0"} for i in range(BACKENDS)]
    with engine as process:
        wait_until_up(port, "/health", process)
        with weir(options.weir, port, {"balance": "round_robin", "backends": backends}) as (data, admin):
            ask_all(data)
            text = gzip.decompress(scrape(admin)[1]).decode()
            series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
            accounts = sum(line.startswith("weir_stream_chunks_total{") for line in text.splitlines())
            check(accounts == BACKENDS * MODELS, f"{BACKENDS} backends with {MODELS} models: {series} series, {len(text) / 2**20:.1f} MiB")
            costs, first = [], {False: [], True: []}
            for turn in range(2 * ROUNDS):
                scraped = turn % 2 == 1
                over = threading.Event()

                def scraper():
                    while not over.wait(1):
                        costs.append(scrape(admin)[0])

                thread = threading.Thread(target=scraper)
                if scraped:
                    thread.start()
                sent = open_loop(data, RATE, RATE * SECONDS, TOKENS)
                over.set()
                if scraped:
                    thread.join()
                first[scraped] += [one.first * 1e3 for one in sent if one.first]
            median, worst = statistics.median(costs), max(costs)
            check(median <= bar(SCRAPE_MS, SCRAPE_MS_BUSY), f"a scrape takes {median:.1f} ms (median of {len(costs)}, at most {worst:.1f}), {bar(SCRAPE_MS, SCRAPE_MS_BUSY)} are asked")
            p50, p99 = ([percentile(first[scraped], share) for scraped in (False, True)] for share in (0.5, 0.99))
            check(p99[1] <= p99[0] * bar(MOVED, MOVED_BUSY) + 2,
                  f"TTFT p99 {p99[0]:.1f} ms without scrapes, {p99[1]:.1f} ms with one a second; p50 {p50[0]:.1f} and {p50[1]:.1f} ({len(first[True])} requests each)")
    return verdict()


if __name__ == "__main__":
    raise SystemExit(main())
