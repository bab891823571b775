"""What the end-to-end parts share: processes that end with the test, pages of metrics, and checks that are counted.

It knows weir from outside only: its command line, its ports and its pages. It sends no load of its own.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

failures = []


def bar(asked, beside_others):
    """What was asked of a time or a rate, judged with E2E_STRICT=1 on a machine that does nothing else. Without it the second, which a machine
    that others load meets too, and only a fault misses: tests find faults, runs that are written down show figures."""
    return asked if os.environ.get("E2E_STRICT") == "1" else beside_others


def check(holds, sentence):
    print(("  ok      " if holds else "  FAILED  ") + sentence, flush=True)
    if not holds:
        failures.append(sentence)


def verdict():
    """The last line of a part; its value is the exit status."""
    print(f"{len(failures)} check(s) failed" if failures else "every check held")
    return 1 if failures else 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def status_of(admin):
    return json.loads(get(admin, "/status")[1])


def wait_until(holds, seconds=30):
    """Asks until the answer is yes. False: it never was."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def wait_until_up(port, path, process, seconds=30):
    def answers():
        if process.poll() is not None:
            sys.exit(f"{process.args[:3]} ended with {process.returncode}")
        with contextlib.suppress(OSError):
            return get(port, path)[0] == 200

    if not wait_until(answers, seconds):
        sys.exit(f"port {port} did not answer {path} within {seconds} s")


class Page:
    """One reading of a Prometheus page: sums over the series that have the labels."""

    LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")

    def __init__(self, text):
        self.series = []
        for line in text.splitlines():
            found = self.LINE.match(line)
            if found:
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
                self.series.append((found[1], labels, float(found[3])))

    def sum(self, name, **labels):
        return sum(v for n, have, v in self.series if n == name and labels.items() <= have.items())


def page(port):
    return Page(get(port, "/metrics")[1].decode())


def settled(admin):
    """The page once nothing is in flight: the last byte reaches the client before the books are closed."""
    wait_until(lambda: page(admin).sum("weir_inflight_requests") == 0, 5)
    return page(admin)


def grown(before, after, name, **labels):
    return after.sum(name, **labels) - before.sum(name, **labels)


def mean_of(before, after, name, **labels):
    count = grown(before, after, name + "_count", **labels)
    total = grown(before, after, name + "_sum", **labels)
    return (total / count if count else float("nan")), count


def identities(admin):
    now = settled(admin)
    offered, admitted = now.sum("weir_requests_offered_total"), now.sum("weir_requests_admitted_total")
    shed, left = now.sum("weir_requests_shed_total"), now.sum("weir_requests_abandoned_total", phase="queue")
    check(offered == admitted + shed + left + now.sum("weir_queue_depth"), "offered = admitted + shed + left + queued")
    check(admitted == now.sum("weir_requests_finished_total") + now.sum("weir_inflight_requests"), "admitted = finished + in flight")
    total = sum(backend["totals"]["offered"] for backend in status_of(admin)["backends"])
    check(total == offered, f"/status says {total} offered, /metrics {offered:.0f}")


def records(journal):
    """The requests in a journal, in the order in which they ended; its other lines say what the file is about."""
    with open(journal) as lines:
        return [record for record in map(json.loads, lines) if "timeline" in record]


class Process:
    """A child that is ended by its own id, in any case. With `log`, what it says goes to that file."""

    def __init__(self, *arguments, log=None):
        self.arguments, self.log = arguments, log

    def __enter__(self):
        with open(self.log, "wb") if self.log else contextlib.nullcontext() as log:
            self.child = subprocess.Popen(self.arguments, stdout=subprocess.DEVNULL, stderr=log)
        return self.child

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


@contextlib.contextmanager
def weir_engine(binary, *flags, port=None):
    """A simulated engine; its port."""
    port = port or free_port()
    with Process(binary, "engine", "--listen", f"127.0.0.1:{port}", *flags) as engine:
        wait_until_up(port, "/health", engine)
        yield port


@contextlib.contextmanager
def weir(binary, engine, settings=None, path="/readyz"):
    """weir in front of the engine at that port, with these settings beside the defaults; its data and admin port."""
    data, admin, settings = free_port(), free_port(), dict(settings or {})
    file = {
        "listen": f"127.0.0.1:{data}",
        "admin": {"listen": f"127.0.0.1:{admin}"} | settings.pop("admin", {}),
        "backends": [{"url": f"http://127.0.0.1:{engine}"}],
        "log": {"level": "error"},
    } | settings
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "weir.yaml")
        with open(config, "w") as out:
            json.dump(file, out)
        with Process(binary, "serve", "--config", config) as process:
            wait_until_up(admin, path, process)
            yield data, admin
