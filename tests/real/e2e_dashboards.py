#!/usr/bin/env python3
"""The dashboards: their JSON against Grafana's own types, their queries against a real Prometheus, and pictures of what they show.

usage:  e2e.sh dashboards

Two weirs stand before a simulated engine, one with a GPU (a fake of NVIDIA's library). A probe runs beside light load, then twice the
capacity comes, the GPU is throttled, and weir enforces. Over that time every expression of every panel must return data, every
variable must have values, every annotation must be understood. There is no Grafana here: a page of ours (viewer/) draws the panels.

Exit status 0: every check held.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse

from playwright.sync_api import sync_playwright

from e2e_alerts import DASHBOARDS, rules
from e2e_prometheus import Store
from harness import Process, check, free_port, get, verdict, wait_until, wait_until_up, weir, weir_engine
from load import open_loop
from nvml import FakeNvml

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = ("weir-overview", "weir-backend", "weir-sweep")
# Eight slots; an answer of 20 tokens takes half a second: about 16 requests a second.
ENGINE = {
    "params": {"base": 0.02, "per_decode": 0.0005, "per_prefill_token": 0.00002, "per_kv_token": 0,
               "max_num_seqs": 8, "max_num_batched_tokens": 2048, "kv_tokens": 100000},
    "workload": {"prompt": {"mean": 40, "sigma": 0.3}, "output": {"mean": 20, "sigma": 0.1}},
}
TOKENS, CALM, HOT, ASIDE = 20, 4.0, 32.0, 1.0
CALM_SECONDS, HOT_SECONDS, ENFORCED_SECONDS = 30, 50, 25
TOKEN = "secret"
PROBE = {"step": "3s", "max_duration": "25s", "max_in_flight": 16, "input_tokens": 40, "output_tokens": 20}
# What such a run cannot show.
NO_DATA = {"weir_kv_cap_tokens": "no cap is in force"}
STEP = 1.0
STANDS_FOR = {"__rate_interval": "10s", "__interval": "5s", "slo_target": "0.99"}
SPANS = {"7d": 7 * 86400, "30d": 30 * 86400}

PROMETHEUS = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [ "{rules}" ]
scrape_configs:
  - job_name: weir
    static_configs: [ {{ targets: [{weirs}], labels: {{ namespace: e2e, cluster: c }} }} ]
  - job_name: engine
    static_configs: [ {{ targets: ["127.0.0.1:{engine}"], labels: {{ namespace: e2e, cluster: c }} }} ]
"""


def dashboard(name):
    with open(os.path.join(DASHBOARDS, name + ".json")) as file:
        return json.load(file)


def charts(page):
    """Every panel, those of rows that are shut at first among them."""
    return [one for panel in page["panels"] for one in (panel["panels"] if panel["type"] == "row" else [panel])]


def filled(query, seconds=120):
    given = STANDS_FOR | {"__range": f"{seconds:.0f}s"}
    return re.sub(r"\$\{?(\w+)\}?", lambda found: given.get(found[1], ".*"), query)


# -- the types --------------------------------------------------------------------------------------------------------------------------


def type_check(folder):
    """Whether TypeScript accepts each page as one of Grafana's, and refuses it when it is spoilt."""
    made = os.path.join(folder, "made")
    os.makedirs(made, exist_ok=True)

    def faults(texts):
        for name in os.listdir(made):
            os.remove(os.path.join(made, name))
        for name, text in texts.items():
            with open(os.path.join(made, name + ".ts"), "w") as out:
                out.write('import type { Page } from "../page";\nexport const page: Page = ' + text + ";\n")
        ran = subprocess.run(["npx", "--no-install", "tsc", "-p", "."], cwd=folder, capture_output=True, text=True)
        return [line for line in ran.stdout.splitlines() if ": error TS" in line]

    texts = {name: json.dumps(dashboard(name), indent=1) for name in NAMES}
    found = faults(texts)
    check(not found, f"{', '.join(NAMES)}: Grafana's types accept them {[line[:200] for line in found[:5]]}")
    spoilt = {}
    whole = texts["weir-overview"]
    for number, (old, new) in enumerate(SPOILT):
        assert old in whole, old
        spoilt[f"spoilt{number}"] = whole.replace(old, new, 1)
    refused = {line.split("(")[0] for line in faults(spoilt)}
    check(len(refused) == len(SPOILT), f"and they refuse it spoilt in {len(refused)} of {len(SPOILT)} ways")


SPOILT = [
    ('"schemaVersion"', '"schemaVersions"'), ('"graphTooltip": 1', '"graphTooltip": 7'), ('"showLegend"', '"showLegends"'),
    ('"drawStyle": "line"', '"drawStyle": "lines"'), ('"colorMode": "background"', '"colorMode": "backgrounds"'),
    ('"unit": "reqps"', '"units": "reqps"'), ('"collapsed"', '"colapsed"'), ('"type": "timeseries"', '"type": "graph"'),
]

# -- the run ----------------------------------------------------------------------------------------------------------------------------


def post(admin, path):
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    connection.request("POST", path, headers={"authorization": f"Bearer {TOKEN}", "content-length": "0"})
    return connection.getresponse().status


def load(data, admin, aside, nvml):
    """Light, beside a probe; twice the capacity, with a throttled GPU in the second half; the same enforced."""
    whole = CALM_SECONDS + HOT_SECONDS + ENFORCED_SECONDS
    beside = in_background(aside, ASIDE, whole)
    calm = in_background(data, CALM, CALM_SECONDS)
    check(post(admin, "/probe?set=start") == 200, "a probe starts")
    calm.join()
    hot = in_background(data, HOT, HOT_SECONDS)
    time.sleep(HOT_SECONDS / 2)
    nvml.answer(count=2, throttling__0=4, throttling__1=0x44, temperature__1=91, power__0=699000, clock__0=1410, xids__1=1, uncorrected=0)
    hot.join()
    check(post(admin, "/mode?set=enforce") == 200, "the mode is switched")
    in_background(data, HOT, ENFORCED_SECONDS).join()
    beside.join()


def in_background(port, rate, seconds):
    thread = threading.Thread(target=open_loop, args=(port, rate, int(rate * seconds), TOKENS))
    thread.start()
    return thread


# -- the queries ------------------------------------------------------------------------------------------------------------------------


def answers_of(store, page, begin, end):
    """What Prometheus answers to each target of each panel, as Grafana would ask it; and the expressions without an answer."""
    answers, empty, excused = {}, [], 0
    for panel in charts(page):
        span = SPANS.get(panel.get("timeFrom"))
        answers[panel["id"]] = []
        for target in panel["targets"]:
            query = filled(target["expr"], end - begin)
            if target["instant"]:
                found = store.ask("query", query=query, time=end)
            elif span:
                found = store.ask("query_range", query=query, start=end - span, end=end, step=span / 300)
            else:
                found = store.ask("query_range", query=query, start=begin, end=end, step=STEP)
            answers[panel["id"]].append(found)
            if found:
                continue
            if any(part in query for part in NO_DATA):
                excused += 1
            else:
                empty.append(f"{panel['title']}: {query}")
    return answers, empty, excused


def variables(port, page):
    """The values of each variable that is asked of Prometheus."""
    found = {}
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            path = f"/api/v1/label/{label}/values?" + urllib.parse.urlencode({"match[]": filled(series)})
            found[variable["name"]] = json.loads(get(port, path)[1])["data"]
    return found


def ask_everything(store, begin, end):
    pages = {}
    for name in NAMES:
        page = dashboard(name)
        answers, empty, excused = answers_of(store, page, begin, end)
        asked = sum(len(panel["targets"]) for panel in charts(page))
        check(not empty, f"{name}: {asked} expressions return data, but for {excused} that cannot here {empty[:5]}")
        values = variables(store.port, page)
        check(values and all(values.values()), f"{name}: its variables have values {values}")
        marks = [len(store.ask("query_range", query=filled(mark["expr"]), start=begin, end=end, step=STEP)) for mark in page["annotations"]["list"]]
        check(any(marks), f"{name}: its {len(marks)} annotations are understood, {sum(map(bool, marks))} of them mark something")
        pages[name] = page, answers
    return pages


# -- the pictures -----------------------------------------------------------------------------------------------------------------------


def draw(browser, pages, begin, end, folder):
    os.makedirs(folder, exist_ok=True)
    for name, (page, answers) in pages.items():
        view = browser.new_page(viewport={"width": 1280, "height": 900})
        faults = []
        view.on("pageerror", lambda why: faults.append(str(why)))
        view.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        view.goto("file://" + os.path.join(HERE, "viewer", "viewer.html"))
        given = {"DASHBOARD": page, "ANSWERS": answers, "BETWEEN": [begin, end], "STEP": STEP, "SPANS": SPANS}
        view.evaluate("(given) => Object.assign(window, given)", given)
        view.add_script_tag(path=os.path.join(HERE, "viewer", "viewer.js"))
        drawn = view.evaluate("document.body.dataset.drawn") == "yes"
        cards = view.locator("section").count()
        check(drawn and not faults and cards == len(charts(page)), f"{name}: {cards} panels are drawn {faults[:3]}")
        view.screenshot(path=os.path.join(folder, name + ".png"), full_page=True)
        view.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weir", "--prometheus", "--chromium", "--pictures"):
        parser.add_argument(name, required=True)
    parser.add_argument("--types", help="folder with Grafana's types")
    options = parser.parse_args()
    if options.types:
        type_check(options.types)
    with tempfile.TemporaryDirectory() as folder:
        run(options, folder)
    return verdict()


def run(options, folder):
    params = os.path.join(folder, "engine.json")
    with open(params, "w") as out:
        json.dump(ENGINE, out)
    nvml = FakeNvml(folder, count=2, xids=0)
    if not nvml.library:
        NO_DATA["weir_gpu_"] = "there is no C compiler to make a GPU with"
    common = {"slo": {"ttft": "1s"}}
    port = free_port()
    with weir_engine(options.weir, "--params", params) as engine:
        backend = {"name": "gpu-0", "url": f"http://127.0.0.1:{engine}", "model_name": "test-model", "engine": "vllm", "gpu": [0, 1], "max_num_seqs": 8, "kv_tokens": 100000}
        # No knee is found beside another weir's load, so the second one shows what stands in for it, and a limit of its own.
        first = common | nvml.settings() | {"backends": [backend], "probe": PROBE, "admin": {"token": TOKEN}}
        second = common | {"backends": [backend | {"gpu": []}], "mode": "enforce", "control": {"policy": "static", "limit": 6}, "gpu": {"enabled": False}}
        with weir(options.weir, engine, first) as (data, admin), weir(options.weir, engine, second) as (aside, other):
            with open(os.path.join(folder, "prometheus.yml"), "w") as out:
                weirs = ", ".join(f'"127.0.0.1:{one}"' for one in (admin, other))
                out.write(PROMETHEUS.format(rules=rules(folder, as_shipped=False), weirs=weirs, engine=engine))
            prometheus = Process(
                options.prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}", log=os.path.join(folder, "log"))
            with prometheus as process:
                wait_until_up(port, "/-/ready", process)
                store = Store(port)
                check(wait_until(lambda: store.value('sum(up{job="weir"})') == 2), "Prometheus scrapes both weirs")
                begin = time.time()
                load(data, admin, aside, nvml)
                end = time.time()
                pages = ask_everything(store, begin, end)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        draw(browser, pages, begin, end, options.pictures)
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main())
