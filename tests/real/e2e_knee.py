#!/usr/bin/env python3
"""What weir says of a real llama.cpp server with four slots: saturated or not, where the knee is, what a step costs.

usage:  e2e.sh knee, or  e2e_knee.sh [--rounds N]        (the shell script fetches what this needs)

First two requests at a time for a minute: never saturated. Then rounds, each with a weir that knows nothing: two at a time, then in turns
eight past weir and eight through it, so that both see the same of a machine whose speed wanders. The capacity that weir knows at
the end is set against what the server did without it in the same minute, by this client's own clock; capacity and in-flight are
judged by the median of the rounds, and the noise is stated: how far the loops past weir are apart. The journal of each round is
replayed and must come to the same states. The lengths of answers vary, or the four slots would end in step.

Exit status 0: every check held. Thresholds stand at the head; the asked ones were set before the first run.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from e2e_llamacpp import llama
from harness import bar, check, get, status_of, verdict, weir
from load import chat

SLOTS = 4
QUIET, QUIET_SECONDS = 2, 60
LEARN_SECONDS = 10
BUSY, BUSY_SECONDS, TRUTH_SECONDS = 8, (14, 8), 8
DETECTED_WITHIN = bar(5.0, 10.0)
KNEE, KNEE_WITHIN = 4.0, bar(0.5, 1.0)
CAPACITY_WITHIN = bar(0.10, 0.25)
# Answer tokens, evenly spread.
SHORTEST, LONGEST = 24, 72


class Loop:
    """So many clients, each sending the next request when the last is over, until it is left."""

    def __init__(self, port, clients, seed):
        self.port, self.dice, self.lock, self.ends, self.faults = port, random.Random(seed), threading.Lock(), [], []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def __enter__(self):
        self.begin = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        while not self.over.is_set():
            with self.lock:
                number, tokens = self.dice.randrange(10**6), self.dice.randint(SHORTEST, LONGEST)
            sent = chat(self.port, number, tokens)
            with self.lock:
                self.ends.append(time.monotonic())
                if sent.error or sent.status != 200:
                    self.faults.append(sent.error or sent.status)

    def rate(self, begin, end):
        """Completions per second between two moments."""
        return sum(begin <= at < end for at in self.ends) / (end - begin)


def state_of(admin):
    return status_of(admin)["backends"][0]["saturation"]["state"]


def quiet(data, admin):
    seen = set()
    with Loop(data, QUIET, seed=1) as loop:
        while time.monotonic() < loop.begin + QUIET_SECONDS:
            seen.add(state_of(admin))
            time.sleep(0.2)
    check(not loop.faults, f"no request failed {loop.faults[:3]}")
    check("saturated" not in seen and "healthy" in seen, f"{QUIET} at a time for {QUIET_SECONDS} s: {sorted(seen)}")


def truth(engine, seed):
    """The server's own rate, past weir."""
    with Loop(engine, BUSY, seed) as loop:
        time.sleep(TRUTH_SECONDS)
    return loop.rate(loop.begin + 1, loop.begin + TRUTH_SECONDS)


def busy(data, admin, seed, seconds):
    """Eight at a time through weir: seconds until it said so."""
    detected = None
    with Loop(data, BUSY, seed) as loop:
        while time.monotonic() < loop.begin + seconds:
            if detected is None and state_of(admin) == "saturated":
                detected = time.monotonic() - loop.begin
            time.sleep(0.05 if detected is None else 0.5)
    check(not loop.faults, f"no request failed {loop.faults[:3]}")
    return detected, loop.rate(loop.begin + 1, loop.begin + seconds)


def replayed(binary, journal):
    """The states that the journal came to live, and those that it comes to again."""
    with open(journal) as lines:
        live = [line["transition"]["to"] for line in map(json.loads, lines) if "transition" in line]
    said = subprocess.run([binary, "rehearse", "--journal", journal], capture_output=True, text=True, check=True).stdout
    return live, [words[2] for words in map(str.split, said.splitlines()) if words[1:2] == ["s"]]


def one_round(options, engine, number, folder):
    journal = os.path.join(folder, f"journal-{number}.jsonl")
    with weir(options.weir, engine, {"journal": {"path": journal}}) as (data, admin):
        busy_turns = []
        with Loop(data, QUIET, number):
            time.sleep(LEARN_SECONDS)
        past = [truth(engine, 10 * number)]
        for turn, seconds in enumerate(BUSY_SECONDS):
            busy_turns.append(busy(data, admin, 10 * number + 2 * turn + 1, seconds))
            said = json.loads(get(admin, "/knee")[1])["backends"][0]
            past.append(truth(engine, 10 * number + 2 * turn + 2))
    detected = busy_turns[0][0]
    name = f"round {number}"
    check(detected is not None and detected <= DETECTED_WITHIN, f"{name}: saturated after {detected and round(detected, 2)} s")
    live, again = replayed(options.weir, journal)
    # After the last request the live estimator went on ticking.
    check("saturated" in again and again == live[: len(again)], f"{name}: the journal replays to {again}, live they were {live}")
    check(bool(said["knee"]), f"{name}: a knee is known {said['missing']}")
    return past, [rate for _, rate in busy_turns], said


def judge(rounds):
    print("\n%5s | %20s | %13s | %6s %6s %6s %6s | %5s %8s | %6s %6s %6s" % (
        "round", "past weir, req/s", "through it", "knee", "low", "high", "error", "D", "bound by", "a ms", "b ms", "c ms"))
    errors, noise, in_flight, costs = [], [], [], []
    for number, (past, through, said) in enumerate(rounds, 1):
        knee, own = said["knee"], statistics.mean(past)
        rate = knee["requests_per_second"]
        errors.append(rate["value"] / own - 1)
        noise.append((max(past) - min(past)) / own)
        in_flight.append(knee["in_flight"]["value"])
        parts = [said["step_seconds"][part] * 1e3 for part in ("step", "decode", "prefill_token")] if said["step_seconds"] else None
        costs += [parts] if parts else []
        print("%5d | %20s | %13s | %6.1f %6.1f %6.1f %5.1f%% | %5.2f %8s | %s" % (
            number, " ".join(f"{x:.1f}" for x in past), " ".join(f"{x:.1f}" for x in through), rate["value"], rate["low"], rate["high"],
            100 * errors[-1], in_flight[-1], knee["regime"], " ".join(f"{x:6.3f}" for x in parts or [])))
    middle = statistics.median
    said = (f"capacity: {100 * middle(errors):+.1f} %, median of {len(rounds)} rounds; the loops past weir are "
            f"{100 * middle(noise):.0f} % apart in the median round, {100 * max(noise):.0f} % at most")
    if middle(noise) <= CAPACITY_WITHIN:
        check(abs(middle(errors)) <= CAPACITY_WITHIN, said)
    else:
        print("  not judged, for the server does not agree with itself: " + said)
    check(abs(middle(in_flight) - KNEE) <= KNEE_WITHIN, f"knee at {middle(in_flight):.2f} in flight, median")
    check(2 * len(costs) >= len(rounds), f"step costs known in {len(costs)} of {len(rounds)} rounds")
    if costs:
        print("a step: a = %.3f ms, b = %.3f ms a decode, c = %.3f ms a prompt token, medians" % tuple(map(middle, zip(*costs))))


def alone(engine):
    """The server's own figures with one caller: ms a prompt token, ms a decode step."""
    timings = [sent.timings for sent in (chat(engine, number, LONGEST) for number in range(12)) if sent.timings]
    prompt = statistics.median(t["prompt_ms"] / t["prompt_n"] for t in timings)
    return prompt, statistics.median(t["predicted_ms"] / (t["predicted_n"] - 1) for t in timings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=bar(5, 2))
    parser.add_argument("--keep", metavar="FOLDER", help="where the journals are to stay")
    options = parser.parse_args()
    options.slots = SLOTS
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder, llama(options) as engine:
        print("the server with one caller: %.3f ms a prompt token, %.3f ms a decode step" % alone(engine))
        with weir(options.weir, engine) as (data, admin):
            quiet(data, admin)
        rounds = [one_round(options, engine, number + 1, options.keep or folder) for number in range(options.rounds)]
        print("the server with one caller: %.3f ms a prompt token, %.3f ms a decode step" % alone(engine))
    judge([one for one in rounds if one[2]["knee"]])
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
