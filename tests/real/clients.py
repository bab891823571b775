#!/usr/bin/env python3
"""Real load clients through weir, each table beside weir's own figures of the same requests.

usage:  clients.sh [--direct | --cross] [--rate 6] [--requests 240] [--input 128] [--output 64] [CLIENT...]
        CLIENT: aiperf, vllm, guidellm. Without a name, all of them.

Each client runs against its own `weir engine` behind its own weir. Means and counts of weir are the growth of /metrics over
the run, quantiles are read off /status (of the last minute, so a run must be shorter), and a third column works the same
figures out from weir's journal, request by request, without buckets. The engine's column is the growth of its own /metrics.
--cross holds `weir sweep` against each client: both send the same load straight to the same engine, at two rates in turn, and
must agree within 3 % on throughput and 5 % on mean TTFT.
--direct sends the same load past weir: what the client then reads above the engine is the client's and the machine's.

The counts must agree exactly; times are printed for a person to judge, as a client measures from another place than weir.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from harness import check, grown, identities, mean_of, page, records, settled, status_of, verdict, weir, weir_engine

MODEL = "weir-sim"
WARNED = 0.02  # differences above this are to be explained


def aiperf(options, url, folder):
    """NVIDIA's AIPerf. Its `inter_token_latency` is a TPOT; the gaps are `inter_chunk_latency`."""
    os.symlink(options.tokenizer, os.path.join(folder, "tokenizer"))  # it takes an absolute path for the name on a hub
    command = [
        f"{options.venvs}/aiperf/bin/aiperf", "profile", "-m", MODEL, "--url", url, "--endpoint-type", "chat", "--streaming",
        "--tokenizer", "./tokenizer", "--isl", str(options.input), "--osl", str(options.output), "--extra-inputs", "ignore_eos:true",
        "--use-server-token-count", "--request-rate", str(options.rate), "--request-count", str(options.requests),
        "--artifact-dir", "out", "--ui-type", "none", "--workers-max", "2", "--record-processor-service-count", "1",
    ]

    def read():
        found = json.load(open(f"{folder}/out/profile_export_aiperf.json"))
        spread = lambda name: {q: found[name][key] / 1e3 for q, key in [("mean", "avg"), ("p50", "p50"), ("p99", "p99")]}
        return {
            "requests": found["request_count"]["avg"], "errors": len(found["error_summary"]),
            "req/s": found["request_throughput"]["avg"], "output tokens": found["total_output_tokens"]["avg"],
            "TTFT": spread("time_to_first_token"), "ITL": spread("inter_chunk_latency"),
            "TPOT": spread("inter_token_latency"), "E2E": spread("request_latency"),
        }

    return command, {}, read


def vllm(options, url, folder):
    """`vllm bench serve`, out of the wheel's Python files: no CUDA build is needed to send load."""
    launch = ("from vllm.utils.argparse_utils import FlexibleArgumentParser as P; from vllm.benchmarks.serve import add_cli_args, main; "
              "p = P(); add_cli_args(p); main(p.parse_args())")
    command = [
        f"{options.venvs}/vllm/bin/python", "-c", launch, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", url,
        "--model", MODEL, "--tokenizer", options.tokenizer, "--dataset-name", "random", "--random-input-len", str(options.input),
        "--random-output-len", str(options.output), "--ignore-eos", "--num-prompts", str(options.requests), "--request-rate", str(options.rate),
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99", "--save-result", "--result-dir", folder,
        "--result-filename", "vllm.json", "--disable-tqdm",
    ]

    def read():
        found = json.load(open(f"{folder}/vllm.json"))
        spread = lambda name: {q: found[f"{q}_{name}_ms"] / 1e3 for q in ("mean", "p50", "p99")}
        return {
            "requests": found["completed"], "errors": found["failed"],
            "req/s": found["request_throughput"], "output tokens": found["total_output_tokens"],
            "TTFT": spread("ttft"), "ITL": spread("itl"), "TPOT": spread("tpot"), "E2E": spread("e2el"),
        }

    return command, {"PYTHONPATH": f"{options.venvs}/vllm-unpacked", "HF_HUB_OFFLINE": "1"}, read


def guidellm(options, url, folder):
    """GuideLLM. Its `inter_token_latency` is a request's TPOT counted once a token; it has no gaps, and its rate is over event intervals."""
    command = [
        f"{options.venvs}/vllm/bin/guidellm", "run", "--backend", f"kind=openai_http,target={url},model={MODEL}",
        "--profile", f"kind=poisson,rate={options.rate}", "--constraint", f"kind=max_requests,count={options.requests}",
        "--tokenizer", f"kind=huggingface_auto,model={options.tokenizer}",
        "--data", f"kind=synthetic_text,prompt_tokens={options.input},output_tokens={options.output}",
        "--output", f"kind=json,path={folder}/guidellm.json", "--disable-progress",
    ]

    def read():
        found = json.load(open(f"{folder}/guidellm.json"))["benchmarks"][0]
        metrics, totals = found["metrics"], found["metrics"]["request_totals"]
        of = lambda name: metrics[name]["successful"]
        spread = lambda name, unit: {
            "mean": of(name)["mean"] / unit, "p50": of(name)["percentiles"]["p50"] / unit, "p99": of(name)["percentiles"]["p99"] / unit}
        return {
            "requests": totals["successful"], "errors": totals["errored"] + totals["incomplete"],
            "req/s": totals["successful"] / found["duration"], "output tokens": of("output_token_count")["total_sum"],
            "TTFT": spread("time_to_first_token_ms", 1e3), "TPOT": spread("inter_token_latency_ms", 1e3), "E2E": spread("request_latency", 1),
        }

    return command, {"GUIDELLM__MAX_WORKER_PROCESSES": "1", "HF_HUB_OFFLINE": "1"}, read


def weir_sweep(options, url, folder):
    """Our own generator, in the other clients' words. One level supports no verdict: exit status 3 is expected."""
    command = [
        options.weir, "sweep", "--target", url, "--rates", str(options.rate), "--requests", str(options.requests), "--model", MODEL,
        "--input-tokens", str(options.input), "--output-tokens", str(options.output), "--out", folder,
    ]

    def read():
        level = json.load(open(f"{folder}/sweep.json"))["levels"][0]
        spread = lambda name: {q: level[name][q] for q in ("mean", "p50", "p99")}
        return {
            "requests": level["counts"]["completed"], "errors": level["counts"]["failed"],
            "req/s": level["whole"]["requests"], "output tokens": level["whole"]["output_tokens"] * level["duration"],
            "TTFT": spread("ttft"), "ITL": spread("itl"), "TPOT": spread("tpot"), "E2E": spread("e2e"),
            "late": level["schedule_delay"]["p99"],
        }

    return command, {}, read


CLIENTS = {"aiperf": aiperf, "vllm": vllm, "guidellm": guidellm}


class LastStatus(threading.Thread):
    """The /status at which the most requests were completed: read on, the last minute would forget them."""

    def __init__(self, admin):
        super().__init__(daemon=True)
        self.admin, self.best, self.over = admin, None, threading.Event()

    def run(self):
        while not self.over.wait(0.25):
            now = status_of(self.admin)["backends"][0]
            if self.best is None or now["totals"]["completed"] > self.best["totals"]["completed"]:
                self.best = now

    def stop(self):
        self.over.set()
        self.join()
        return self.best


def by_pages(before, after, status):
    """weir's figures as an operator reads them."""
    spread = lambda family, name: {"mean": mean_of(before, after, family)[0]} | ({q: status[name][q] for q in ("p50", "p99")} if name else {})
    return {
        "requests": grown(before, after, "weir_requests_finished_total", outcome="completed"),
        "errors": grown(before, after, "weir_requests_offered_total") - grown(before, after, "weir_requests_finished_total", outcome="completed"),
        "output tokens": grown(before, after, "weir_output_tokens_total"),
        "TTFT": spread("weir_time_to_first_token_seconds", "ttft_s"),
        "ITL": spread("weir_inter_token_latency_seconds", "itl_s"),
        "TPOT": spread("weir_time_per_output_token_seconds", None),
        "E2E": spread("weir_request_duration_seconds", "e2e_s"),
    }


def by_engine(before, after):
    """The engine's own account, under vLLM's names."""
    mean = lambda name: {"mean": mean_of(before, after, f"vllm:{name}_seconds")[0]}
    return {
        "requests": grown(before, after, "vllm:request_success_total"),
        "output tokens": grown(before, after, "vllm:generation_tokens_total"),
        "TTFT": mean("time_to_first_token"), "ITL": mean("inter_token_latency"), "E2E": mean("e2e_request_latency"),
    }


def by_journal(path):
    """The same from the journal: nothing is in buckets, and every request counts once."""
    found = records(path)
    times = [r["timeline"] for r in found]
    output = [r["verdict"]["usage"]["output"] for r in found]

    def spread(nanos):
        cuts = statistics.quantiles(nanos, n=100, method="inclusive")
        return {"mean": statistics.mean(nanos) / 1e9, "p50": cuts[49] / 1e9, "p99": cuts[98] / 1e9}

    return {
        "requests": len(found), "output tokens": sum(output),
        "req/s": len(found) / ((max(t["ended"] for t in times) - min(t["arrived"] for t in times)) / 1e9),
        "TTFT": spread([t["first_token"] - t["arrived"] for t in times]),
        "ITL": spread([gap for r in found for gap, _, _ in r["emissions"][1:]]),
        "TPOT": spread([(t["last_token"] - t["first_token"]) / (n - 1) for t, n in zip(times, output)]),
        "E2E": spread([t["ended"] - t["arrived"] for t in times]),
    }


def table(name, client, columns):
    """Markdown; the last column is the client's figure against the first other column that has it."""
    rows = [(key, lambda of, key=key: of.get(key), "{:.0f}") for key in ("requests", "errors", "output tokens")]
    rows.append(("req/s", lambda of: of.get("req/s"), "{:.3f}"))
    for key in ("TTFT", "ITL", "TPOT", "E2E"):
        for q in ("mean", "p50", "p99"):
            in_ms = lambda of, key=key, q=q: of[key][q] * 1e3 if q in of.get(key, {}) else None
            rows.append((f"{key} {q}, ms", in_ms, "{:.2f}"))
    print(f"\n| {name} | client | {' | '.join(columns)} | client against {next(iter(columns))} |\n|---{'|---' * (len(columns) + 2)}|")
    for title, of, form in rows:
        values = [of(client)] + [of(column) for column in columns.values()]
        if all(value is None for value in values):
            continue
        own = next((value for value in values[1:] if value is not None), None)
        ratio = values[0] / own - 1 if own and values[0] is not None else None
        shown = ["-" if value is None else form.format(value) for value in values]
        off = "-" if ratio is None else f"{100 * ratio:+.1f} %" + (" (!)" if abs(ratio) > WARNED else "")
        print(f"| {title} | {' | '.join(shown)} | {off} |")
    print(flush=True)


def run(name, options, port, folder):
    """Runs the client against a port; its figures."""
    make = weir_sweep if name == "weir" else CLIENTS[name]
    command, environment, read = make(options, f"http://127.0.0.1:{port}", folder)
    print("$ " + " ".join(command), flush=True)
    with open(os.path.join(folder, "talk"), "w+") as talk:
        ended = subprocess.run(command, cwd=folder, env=os.environ | environment, stdout=talk, stderr=talk, timeout=options.limit)
        if ended.returncode and not (name == "weir" and ended.returncode == 3):
            talk.seek(0)
            print(talk.read())
            sys.exit(f"{name} ended with {ended.returncode}")
    return read()


def measure_direct(name, options):
    with tempfile.TemporaryDirectory() as folder, weir_engine(options.weir, "--profile", "seed") as engine:
        before = page(engine)
        client = run(name, options, engine, folder)
        table(f"{name}, past weir", client, {"engine": by_engine(before, page(engine))})


def measure_cross(name, options):
    """The client and `weir sweep` against the engine itself, at two rates; throughput and mean TTFT must agree."""
    for rate in (options.rate, 1.6 * options.rate):
        at_rate = argparse.Namespace(**vars(options) | {"rate": rate})
        found, prompts = {}, {}
        for client in (name, "weir"):
            with tempfile.TemporaryDirectory() as folder, weir_engine(options.weir, "--profile", "seed") as engine:
                before = page(engine)
                found[client] = run(client, at_rate, engine, folder)
                after = page(engine)
                prompts[client] = grown(before, after, "vllm:prompt_tokens_total") / grown(before, after, "vllm:request_success_total")
                # A token is four bytes to this engine, and another client's 128 may be some more of them.
                at_rate.input = round(prompts[client])
                found[client]["engine"] = by_engine(before, after)["TTFT"]["mean"]
        theirs, ours = found[name], found["weir"]
        print(f"\n| at {rate:g} req/s | {name} | weir sweep | weir against it |\n|---|---|---|---|")
        rows = [("req/s", "{:.3f}", lambda of: of["req/s"]), ("TTFT mean, ms", "{:.1f}", lambda of: 1e3 * of["TTFT"]["mean"]),
                ("TTFT p50, ms", "{:.1f}", lambda of: 1e3 * of["TTFT"]["p50"]), ("E2E mean, ms", "{:.0f}", lambda of: 1e3 * of["E2E"]["mean"]),
                ("TTFT mean in the engine, ms", "{:.1f}", lambda of: 1e3 * of["engine"])]
        for title, form, of in rows:
            print(f"| {title} | {form.format(of(theirs))} | {form.format(of(ours))} | {100 * (of(ours) / of(theirs) - 1):+.1f} % |")
        print(f"prompt tokens a request in the engine: {prompts[name]:.1f} and {prompts['weir']:.1f}; weir sent {1e3 * ours['late']:.1f} ms late (p99)\n")
        off = lambda of: abs(of(ours) / of(theirs) - 1)
        check(ours["errors"] == 0 and theirs["errors"] == 0, f"{name}: errors {theirs['errors']}, weir sweep {ours['errors']}")
        check(off(lambda of: of["req/s"]) <= 0.03, f"{name} at {rate:g}: throughput within 3 %")
        check(off(lambda of: of["TTFT"]["mean"]) <= 0.05, f"{name} at {rate:g}: mean TTFT within 5 %")


def measure(name, options):
    with tempfile.TemporaryDirectory() as folder, weir_engine(options.weir, "--profile", "seed") as engine:
        journal = os.path.join(folder, "journal.jsonl")
        with weir(options.weir, engine, {"journal": {"path": journal}}) as (data, admin):
            before, engine_before, watch = settled(admin), page(engine), LastStatus(admin)
            watch.start()
            client = run(name, options, data, folder)
            after, status = settled(admin), watch.stop()
            identities(admin)
        # weir has ended: every record is in the file.
        own, exact, engines = by_pages(before, after, status), by_journal(journal), by_engine(engine_before, page(engine))
    table(name, client, {"weir": own, "weir's journal": exact, "engine": engines})
    for key in ("requests", "errors", "output tokens"):
        check(client[key] == own[key], f"{name}: {key}: client {client[key]:.0f}, weir {own[key]:.0f}")
    check(exact["requests"] == own["requests"], f"{name}: the journal has {exact['requests']} records")
    check(engines["output tokens"] == own["output tokens"], f"{name}: the engine made {engines['output tokens']:.0f} tokens")
    check(engines["TTFT"]["mean"] <= own["TTFT"]["mean"] <= client["TTFT"]["mean"], f"{name}: mean TTFT: engine, weir, client in this order")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", metavar="CLIENT")
    for flag in ("--weir", "--venvs", "--tokenizer"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--rate", type=float, default=6)
    for flag, default in [("--requests", 240), ("--input", 128), ("--output", 64), ("--limit", 400)]:
        parser.add_argument(flag, type=int, default=default)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--direct", action="store_true")
    way.add_argument("--cross", action="store_true")
    options = parser.parse_args()
    for name in options.clients or CLIENTS:
        print(f"== {name}, load average {os.getloadavg()[0]:.2f}, {time.strftime('%Y-%m-%d %H:%M')}")
        (measure_direct if options.direct else measure_cross if options.cross else measure)(name, options)
    return verdict()


if __name__ == "__main__":
    raise SystemExit(main())
