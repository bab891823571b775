#!/usr/bin/env python3
"""weir in front of a real llama.cpp server: counts must be exact, times are set beside the server's own.

usage:  e2e.sh llamacpp, or  e2e_llamacpp.sh [--slots 4] [--tokens 32] [--direct]        (the shell script fetches what this needs)

Levels: 1, 4, 8 and 16 requests at a time, then one open loop of Poisson arrivals, 540 streamed requests in all; then a few of
every other dialect. The oracle is not weir: requests and tokens are counted by this client from `usage`, and by the server
in its own /metrics; times are the server's `timings` of each answer (prompt_ms: prefill without waiting; predicted_ms: from
the first token to the last). --direct sends the same load past weir, which shows what the machine itself does.

Exit status 0: every check held. Thresholds stand at the head and were set before the first run.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import time

from load import closed, events, open_loop
from harness import Process, check, free_port, get, grown, identities, mean_of, page, records, settled, status_of, verdict, wait_until_up, weir

LLSRV = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llsrv.py")
CLOSED_LEVELS = [(1, 60), (4, 140), (8, 140), (16, 140)]  # concurrency, requests
OPEN_RATE, OPEN_REQUESTS = 8.0, 60
# weir's mean TPOT against the server's: either bound suffices. A busy machine lets the first token wait longer than the last,
# which takes up to 5 % off what is seen from outside the server, or holds the server's sending threads up and not its slots: then
# the client, at the other side of weir, must have seen the same as weir.
TPOT_RELATIVE, TPOT_ABSOLUTE = 0.10, 0.0003
# weir's upstream TTFT above the server's prefill, one request at a time: the lowest tenth, which neighbours on the machine
# hardly move and anything that weir itself adds does.
TTFT_ABSOLUTE = 0.005


def level(name, load, data, admin, engine, tokens):
    """One level; its row of the table, and what the client saw."""
    server_before = page(engine).sum("llamacpp:tokens_predicted_total")
    before = settled(admin) if admin else None
    begin = time.monotonic()
    results = load(data)
    wall = time.monotonic() - begin
    after = settled(admin) if admin else None
    server_tokens = page(engine).sum("llamacpp:tokens_predicted_total") - server_before

    print(f"{name}: {len(results)} requests in {wall:.1f} s")
    errors = [r.error or r.status for r in results if r.error or r.status != 200 or not r.timings]
    check(not errors, f"no request failed ({errors[:3]})")
    if errors:
        raise SystemExit(verdict())
    counted = sum(r.tokens for r in results)
    prefill = statistics.mean(r.timings["prompt_ms"] / 1e3 for r in results)
    tpot = statistics.mean(
        r.timings["predicted_ms"] / 1e3 / (r.timings["predicted_n"] - 1) for r in results)
    felt = statistics.mean(r.first for r in results)
    row = [name, len(results), f"{len(results) / wall:.1f}", f"{counted / wall:.0f}", prefill, felt, tpot]

    check(counted == len(results) * tokens, f"client: {counted} tokens, asked for {len(results) * tokens}")
    check(server_tokens == counted, f"server: {server_tokens:.0f} tokens")
    if not admin:
        return row + [None, None], results

    for family, labels in [
        ("weir_requests_offered_total", {}),
        ("weir_requests_admitted_total", {}),
        ("weir_requests_finished_total", {"outcome": "completed", "code": "2xx"}),
    ]:
        delta = grown(before, after, family, **labels)
        check(delta == len(results), f"{family} {delta:.0f} of {len(results)}")
    finished = grown(before, after, "weir_requests_finished_total")
    check(finished == len(results), f"no other outcome: {finished:.0f} finished")
    by_usage = grown(before, after, "weir_output_tokens_total", source="usage")
    by_chunks = grown(before, after, "weir_output_tokens_total", source="chunks")
    check((by_usage, by_chunks) == (counted, 0), f"weir_output_tokens_total usage {by_usage:.0f}, chunks {by_chunks:.0f}")
    weir_ttft, observed = mean_of(before, after, "weir_upstream_time_to_first_token_seconds")
    check(observed == len(results), f"upstream TTFT observed {observed:.0f} times")
    weir_tpot, observed = mean_of(before, after, "weir_time_per_output_token_seconds")
    check(observed == len(results), f"TPOT observed {observed:.0f} times")
    seen = statistics.mean((r.last - r.first) / (r.tokens - 1) for r in results)
    near = lambda other: abs(weir_tpot - other) <= max(TPOT_RELATIVE * other, TPOT_ABSOLUTE)
    check(near(tpot) or near(seen),
          f"TPOT {weir_tpot * 1e3:.3f} ms, server {tpot * 1e3:.3f} ms ({100 * (weir_tpot / tpot - 1):+.1f} %), client {seen * 1e3:.3f} ms")
    # The mean TTFT that weir books must lie between what the engine spent and what the client felt.
    check(prefill <= weir_ttft <= felt, f"TTFT: prefill {prefill * 1e3:.2f} <= weir {weir_ttft * 1e3:.2f} <= client {felt * 1e3:.2f} ms")
    return row + [weir_ttft, weir_tpot], results


def alone(journal, results):
    """The first level's requests, which came one after the other, beside the first records of weir's journal."""
    times = [record["timeline"] for record in records(journal)[: len(results)]]
    above = [(t["first_token"] - t["admitted"]) / 1e9 - r.timings["prompt_ms"] / 1e3 for t, r in zip(times, results)]
    tenth, middle = statistics.quantiles(above, n=10)[0], statistics.median(above)
    check(0 <= tenth <= TTFT_ABSOLUTE, f"TTFT alone, above the prefill: lowest tenth {tenth * 1e3:.2f} ms, median {middle * 1e3:.2f} ms")


def table(rows):
    print("\n%-14s %5s %7s %7s | %10s %10s %10s | %10s %10s" % (
        "level", "n", "req/s", "tok/s", "prefill ms", "TTFT ms", "TPOT ms", "TTFT ms", "TPOT ms"))
    print("%-14s %5s %7s %7s | %10s %10s %10s | %10s %10s" % ("", "", "", "", "server", "client", "server", "weir", "weir"))
    ms = lambda seconds: "-" if seconds is None else f"{seconds * 1e3:.3f}"
    for name, n, rate, speed, *times in rows:
        print("%-14s %5d %7s %7s | %10s %10s %10s | %10s %10s" % (name, n, rate, speed, *map(ms, times)))
    print()


def post(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if body.get("stream"):
            return answer.status, [event for _, event in events(answer)]
        return answer.status, [json.loads(answer.read())]
    finally:
        connection.close()


def reported(answers):
    """Output tokens by the answer's own account, in any dialect: the largest number given is the last."""
    found = []
    for answer in answers:
        for holder in (answer, answer.get("response") or {}, answer.get("message") or {}):
            usage = holder.get("usage") or {}
            found += [usage.get(key) for key in ("completion_tokens", "output_tokens")] + [holder.get("tokens_predicted")]
    return max((n for n in found if isinstance(n, int)), default=0)


def dialects(data, admin, tokens):
    message = [{"role": "user", "content": "Name three rivers."}]
    plain = {"model": "test-model", "ignore_eos": True}
    requests = [
        ("chat", "/v1/chat/completions", plain | {"messages": message, "max_tokens": tokens, "stream_options": {"include_usage": True}}),
        ("completions", "/v1/completions", plain | {"prompt": "A river", "max_tokens": tokens, "stream_options": {"include_usage": True}}),
        ("responses", "/v1/responses", plain | {"input": "A river", "max_output_tokens": tokens}),
        ("messages", "/v1/messages", plain | {"messages": message, "max_tokens": tokens}),
        ("/completion", "/completion", plain | {"prompt": "A river", "n_predict": tokens}),
    ]
    for name, path, body in requests:
        for stream in (True, False):
            before, repeats, counted = settled(admin), 3, 0
            if not stream:
                body = {key: value for key, value in body.items() if key != "stream_options"}
            for _ in range(repeats):
                status, answers = post(data, path, body | {"stream": stream})
                if status != 200:
                    check(False, f"{name} stream={stream}: {status} {answers}")
                counted += reported(answers)
            after = settled(admin)
            done = grown(before, after, "weir_requests_finished_total", outcome="completed")
            seen = grown(before, after, "weir_output_tokens_total")
            check(done == repeats and seen == counted == repeats * tokens,
                  f"{name} stream={stream}: {done:.0f} completed, {seen:.0f} tokens; the server says {counted}")


def embeddings(data, admin):
    before = settled(admin)
    for inputs in ("a river", ["a mill", "the sea"], "salt"):
        status, _ = post(data, "/v1/embeddings", {"model": "test-model", "input": inputs})
        check(status == 200, f"embeddings: {status}")
    after = settled(admin)
    done = grown(before, after, "weir_requests_finished_total", outcome="completed")
    seen = grown(before, after, "weir_output_tokens_total")
    check((done, seen) == (3, 0), f"embeddings: {done:.0f} completed, {seen:.0f} output tokens")


def pass_through(data, admin):
    before = settled(admin).sum("weir_requests_offered_total")
    for path in ("/health", "/v1/models", "/metrics", "/props"):
        check(get(data, path)[0] == 200, f"GET {path} passes through")
    check(settled(admin).sum("weir_requests_offered_total") == before, "reads are not counted as requests")


@contextlib.contextmanager
def llama(options, *fields):
    """llama.cpp's server with the generated model; its port."""
    port = free_port()
    # Its log has several lines a request.
    with Process(sys.executable, LLSRV, options.model, str(port), str(options.slots), "1024", "1", *fields, log=options.model + ".log") as server:
        wait_until_up(port, "/health", server)
        yield port


def measured_load(options, data, admin, engine):
    """Every level; the results of the first, at which requests come one at a time."""
    loads = [
        (f"{concurrency} at a time", lambda port, c=concurrency, n=requests: closed(port, c, n, options.tokens))
        for concurrency, requests in CLOSED_LEVELS
    ]
    loads.append((f"{OPEN_RATE:g}/s open", lambda port: open_loop(port, OPEN_RATE, OPEN_REQUESTS, options.tokens)))
    rows, results = zip(*(level(name, load, data, admin, engine, options.tokens) for name, load in loads))
    table(rows)
    return results[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--direct", action="store_true")
    options = parser.parse_args()

    print(f"load average before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder, llama(options) as engine:
        if options.direct:
            measured_load(options, engine, None, engine)
            return verdict()
        journal = os.path.join(folder, "journal.jsonl")
        with weir(options.weir, engine, {"journal": {"path": journal}}) as (data, admin):
            first = measured_load(options, data, admin, engine)
            dialects(data, admin, options.tokens)
            pass_through(data, admin)
            identities(admin)
            check(all(backend["up"] for backend in status_of(admin)["backends"]), "/status: every backend is up")
        alone(journal, first)
    with llama(options, "embedding=1", "pooling_type=1") as engine, weir(options.weir, engine) as (data, admin):
        embeddings(data, admin)
        identities(admin)
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
