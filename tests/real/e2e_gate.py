#!/usr/bin/env python3
"""weir's gate before a real llama.cpp server with four slots, at three times its capacity.

usage:  e2e.sh gate, or  e2e_gate.sh [--rounds N]        (the shell script fetches what this needs)

A round: four callers past weir, the capacity; the overload through a weir that enforces, Poisson arrivals; four callers past weir; the same
overload through a weir that only watches; four callers past weir. Both weirs are new, and get ten seconds of two callers first. Goodput is
what got its first token within the objective by this client's own clock, completed, per second of the second half of the overload, as a share of the
capacity in the closed loops before and after it. Whom weir gives up because its first token is late (deadline) is counted beside it.

Exit status 0: every check held. Thresholds stand at the head; the asked ones were set before the first run.
"""

import argparse
import os
import random
import statistics
import sys
import threading
import time

from e2e_llamacpp import llama
from harness import bar, check, identities, page, settled, verdict, wait_until, weir
from load import chat

SLOTS = 4
SLO, SLO_SECONDS = "1s", 1.0
OVERLOAD, SECONDS, SKIP = 3.0, 18.0, 8.0
TRUTH_SECONDS, LEARN_SECONDS = 6.0, 10.0
GOODPUT, UNENFORCED, LATE = bar(0.95, 0.80), 0.20, bar(1.1, 1.5)
SHORTEST, LONGEST = 24, 48
PATIENCE = 15  # objectives after which a client leaves that saw nothing


def ask(port, number):
    return chat(port, number, random.Random(number).randint(SHORTEST, LONGEST), PATIENCE)


def callers(port, clients, seconds, seed):
    """Each asks again when it was answered; completions a second."""
    ends, lock, over = [], threading.Lock(), time.monotonic() + seconds

    def run(number):
        while time.monotonic() < over:
            sent = ask(port, number)
            number += clients
            if sent.status == 200 and not sent.error:
                with lock:
                    ends.append(time.monotonic())

    begin = time.monotonic()
    threads = [threading.Thread(target=run, args=(seed * 100_000 + number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(at <= over for at in ends) / (over - begin)


def overload(port, rate, seed):
    """Poisson arrivals; what came of each, with the second at which it was sent."""
    dice, sent, threads, begin, at = random.Random(seed), [], [], time.monotonic(), 0.0

    def one(number, at):
        result = ask(port, number)
        sent.append((at, result))

    while (at := at + dice.expovariate(rate)) < SECONDS:
        time.sleep(max(0.0, begin + at - time.monotonic()))
        threads.append(threading.Thread(target=one, args=(seed * 100_000 + len(threads), at)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sent


def run(options, engine, mode, rate, seed):
    """Goodput per second, the 99th percentile of the first token of what was admitted, and counts."""
    settings = {"mode": mode, "slo": {"ttft": SLO}}
    with weir(options.weir, engine, settings) as (data, admin):
        callers(data, 2, LEARN_SECONDS, 1)
        sent = overload(data, rate, seed)
        identities(admin)
        shed = settled(admin).sum("weir_requests_shed_total")
        late = page(admin).sum("weir_requests_finished_total", outcome="deadline")
    ended = [(at + result.end, result) for at, result in sent if result.status == 200 and not result.error]
    window = [result for at, result in ended if SKIP <= at < SECONDS]
    good = sum(result.first is not None and result.first <= SLO_SECONDS for result in window)
    # By the time of arrival, so that nobody is left out who waited until the load was over.
    firsts = sorted(result.first for at, result in sent if at >= SKIP and result.first is not None)
    slow = firsts[len(firsts) * 99 // 100] if firsts else float("inf")
    odd = [result.error or result.status for _, result in sent if result.error or result.status not in (200, 429, 504)]
    said = f"{mode}: {len(sent)} sent, {len(ended)} completed, {shed:.0f} refused, {late:.0f} given up late, {len(odd)} left or failed"
    if mode == "enforce":
        check(not odd, said)
    else:
        # Let through, clients run out of patience: that is what it looks like.
        print("          " + said)
    return good / (SECONDS - SKIP), slow, len(firsts)


def rest(engine):
    """Waits until the server has worked off what it was left with."""
    busy = lambda: page(engine).sum("llamacpp:requests_processing") + page(engine).sum("llamacpp:requests_deferred")
    check(wait_until(lambda: busy() == 0, 90), "the server is at rest")


def one_round(options, engine, number):
    loops = [callers(engine, SLOTS, TRUTH_SECONDS, 10 + number)]
    rate = OVERLOAD * loops[0]
    found = {}
    for mode in ("enforce", "observe"):
        good, slow, started = run(options, engine, mode, rate, number)
        rest(engine)
        loops.append(callers(engine, SLOTS, TRUTH_SECONDS, 20 + number))
        found[mode] = (good / statistics.mean(loops[-2:]), slow / SLO_SECONDS)
        print(f"round {number}, {mode}: {rate:.1f} sent a second, goodput {found[mode][0]:.2f} of the capacity ({loops[-2]:.1f} and {loops[-1]:.1f} a "
              f"second around it), 99 % of {started} first tokens within {found[mode][1]:.2f} of the objective", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=bar(3, 1))
    options = parser.parse_args()
    options.slots = SLOTS
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    with llama(options) as engine:
        rounds = [one_round(options, engine, number + 1) for number in range(options.rounds)]
    middle = lambda mode, which: statistics.median(found[mode][which] for found in rounds)
    check(middle("enforce", 0) >= GOODPUT, f"enforced: goodput {middle('enforce', 0):.2f} of the capacity, median of {len(rounds)}")
    check(middle("enforce", 1) <= LATE, f"enforced: 99 % of the first tokens within {middle('enforce', 1):.2f} of the objective")
    check(middle("observe", 0) <= UNENFORCED, f"let through: goodput {middle('observe', 0):.2f} of the capacity")
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
