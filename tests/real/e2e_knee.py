#!/usr/bin/env python3
"""What weir says of a real llama.cpp server with four slots: saturated or not, where the knee is, what a step costs.

usage:  e2e.sh knee, or  e2e_knee.sh [--rounds 3]        (the shell script fetches what this needs)

First two requests at a time for a minute: never saturated. Then rounds, each a closed loop of eight past weir, eight at a time through
weir until well after it has said so, and the loop past weir again: the capacity that weir knows at the end of its part is set
against what the server did without it in the same minute, by this client's own clock. The lengths of answers vary, or the four
slots would end in step.

Exit status 0: every check held. Thresholds stand at the head and were set before the first run.
"""

import argparse
import json
import os
import random
import statistics
import sys
import threading
import time

from e2e_llamacpp import llama
from harness import check, get, status_of, verdict, weir
from load import chat

SLOTS = 4
QUIET, QUIET_SECONDS = 2, 60
BUSY, BUSY_SECONDS, TRUTH_SECONDS = 8, 40, 12
DETECTED_WITHIN = 5.0
KNEE, KNEE_WITHIN = 4.0, 0.5
CAPACITY_WITHIN = 0.10
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
        end = time.monotonic()
    return loop.rate(loop.begin + 2, end)


def busy(data, admin, seed):
    """Eight at a time through weir: seconds until it said so, and what it knows at the end."""
    detected = None
    with Loop(data, BUSY, seed) as loop:
        while time.monotonic() < loop.begin + BUSY_SECONDS:
            if detected is None and state_of(admin) == "saturated":
                detected = time.monotonic() - loop.begin
            time.sleep(0.05 if detected is None else 0.5)
        knee = json.loads(get(admin, "/knee")[1])["backends"][0]
        end = time.monotonic()
    check(not loop.faults, f"no request failed {loop.faults[:3]}")
    return detected, knee, loop.rate(loop.begin + 5, end)


def rounds(data, admin, engine, number):
    rows = []
    for turn in range(number):
        before = truth(engine, 10 + turn)
        detected, said, through = busy(data, admin, 20 + turn)
        after = truth(engine, 30 + turn)
        rows.append((before, detected, said, through, after))
        name = f"round {turn + 1}"
        check(detected is not None and detected <= DETECTED_WITHIN, f"{name}: saturated after {detected and round(detected, 2)} s")
        known = said["knee"]
        if not known:
            check(False, f"{name}: no knee: {said}")
            continue
        in_flight, capacity = known["in_flight"]["value"], known["requests_per_second"]["value"]
        own = statistics.mean((before, after))
        check(abs(in_flight - KNEE) <= KNEE_WITHIN, f"{name}: knee at {in_flight:.2f} in flight, what binds: {known['regime']}")
        check(abs(capacity / own - 1) <= CAPACITY_WITHIN, f"{name}: capacity {capacity:.3f}/s; past weir {before:.3f} and {after:.3f}, through it {through:.3f}")
        # Back to rest, so that the next round begins unsaturated.
        ended = time.monotonic()
        while state_of(admin) != "healthy" and time.monotonic() < ended + 30:
            time.sleep(0.2)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--journal")
    options = parser.parse_args()
    options.slots = SLOTS
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    settings = {"journal": {"path": options.journal}} if options.journal else {}
    with llama(options) as engine, weir(options.weir, engine, settings) as (data, admin):
        quiet(data, admin)
        rows = rounds(data, admin, engine, options.rounds)
        costs = rows[-1][2].get("step_seconds")
        check(bool(costs), f"step costs: {costs}")
        print(json.dumps(rows[-1][2]))
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
