#!/usr/bin/env python3
"""The live page as a person sees it: a real Chromium before a real weir, whose simulated engine is overloaded meanwhile.

usage:  e2e.sh page

It must paint within a second of a cold start, ask nobody but weir, say nothing on the console, show saturation within two seconds of
/status, come back when weir does, take no more memory after a day than after two hours, fit a phone, and be legible in both schemes.
Pictures of it lie in E2E_DIR/page afterwards.

Exit status 0: every check held.
"""

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import tempfile
import threading
import time

from playwright.sync_api import sync_playwright

from harness import bar, check, free_port, status_of, verdict, wait_until, wait_until_up, weir, weir_engine, Process
from load import open_loop

# Eight slots; an answer of 20 tokens takes half a second: about 16 requests a second.
ENGINE = {
    "params": {"base": 0.02, "per_decode": 0.0005, "per_prefill_token": 0.00002, "per_kv_token": 0,
               "max_num_seqs": 8, "max_num_batched_tokens": 2048, "kv_tokens": 100000},
    "workload": {"prompt": {"mean": 40, "sigma": 0.3}, "output": {"mean": 20, "sigma": 0.1}},
}
CALM, HOT, TOKENS = 9.0, 32.0, 20
CALM_SECONDS, HOT_SECONDS = 25, 60
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
FIRST_PAINT, BEHIND = bar(1.0, 3.0), bar(2.0, 5.0)
# What a day may add to the heap of a page that was open for two hours, all of which a collection may leave lying about.
GROWTH = 1 << 20

CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(".hidden")) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 30)]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""

NAMES = """() => [...document.querySelectorAll("button, select, input, a, meter, [role=img], [role=region]")]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length || e.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 80))"""

# Stands in for the browser's EventSource, so that a day can be told in seconds.
TAPE = """window.EventSource = class { constructor() { window.tape = this; } };
window.EventSource.CLOSED = 2;
window.tell = (from, seconds) => {
  const states = ["healthy", "approaching", "saturated", "recovering"];
  for (let s = from; s < from + seconds; s++) {
    const wave = 10 + 8 * Math.sin(s / 500), hot = wave > 13;
    const backend = (name) => ({ name, up: true, state: states[Math.floor(s / 97) % 4], since_s: s % 97, reason: `reason ${s}`,
      ratio: wave / 13, demand_ratio: wave / 13, offered: wave, completed: Math.min(wave, 13), shed: hot ? wave - 13 : 0,
      output_tokens: 100 * wave, in_flight: 8 * wave | 0, pending: wave | 0, queue: hot ? 5 : 0, oldest_s: 0.1, ttft: [0.1, hot ? 4 : 0.2],
      itl: [0.02, 0.05], window: null, shed_total: { saturated: s }, knee: { value: 13, low: 12.4, high: 13.6, in_flight: 91 }, missing: [],
      predicted: null, lower: null });
    const turns = s % 97 ? null : Array.from({ length: 30 }, (_, i) => ({ at: 1.7e9 + s - i, backend: "gpu-0", from: "healthy", to: "saturated", reason: `number ${s - i}` }));
    const frame = { at: 1.7e9 + s, version: "0", mode: "observe", draining: false, uptime_s: s, backends: [backend("gpu-0"), backend("gpu-1")], turns };
    window.tape.onmessage({ data: JSON.stringify(frame) });
  }
};"""


class Visitor:
    """A page that notes what it asks for and what it says."""

    def __init__(self, browser, admin, **context):
        self.origin = f"http://127.0.0.1:{admin}"
        self.asked, self.said = [], []
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda line: line.type in ("error", "warning") and self.said.append(line.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def visit(self):
        self.page.goto(self.origin + "/", wait_until="domcontentloaded")
        self.page.wait_for_selector("body.ready", timeout=10_000)
        return self

    def text(self, selector):
        return self.page.inner_text(selector)

    def outside(self):
        return [url for url in self.asked if not url.startswith((self.origin + "/", "data:"))]

    def picture(self, folder, name, full=False):
        self.page.screenshot(path=os.path.join(folder, name), full_page=full)


def first_paint(browser, admin):
    """A browser that was never here, and a weir that nobody looked at yet."""
    visitor = Visitor(browser, admin, viewport=DESKTOP).visit()
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    wait_until(lambda: visitor.page.evaluate(paint) is not None, 10)
    took = (visitor.page.evaluate(paint) or 1e9) / 1e3
    ready = visitor.page.evaluate("performance.now()") / 1e3
    check(took <= FIRST_PAINT, f"first paint after {took * 1e3:.0f} ms (figures on it by {ready * 1e3:.0f} ms at the latest)")
    size = visitor.page.evaluate("performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).reduce((n, e) => n + e.encodedBodySize, 0)")
    check(0 < size <= 300 << 10, f"the page is {size / 1024:.0f} KiB in all")
    return visitor


def saw_saturation(visitor, admin):
    """When /status said it first, and when the page did."""
    seen = {}

    def ask():
        while "status" not in seen and "stop" not in seen:
            with contextlib.suppress(OSError, ValueError):
                if status_of(admin)["backends"][0]["saturation"]["state"] == "saturated":
                    seen["status"] = time.monotonic()
            time.sleep(0.05)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        if wait_until(lambda: visitor.text("#state") == "saturated", 60):
            seen["page"] = time.monotonic()
        wait_until(lambda: "status" in seen, 5)
    finally:
        seen["stop"] = True
        asker.join()
    late = seen.get("page", float("inf")) - seen.get("status", float("-inf"))
    check(late <= BEHIND, f"the page shows saturation {late:.2f} s after /status")


def overload(browser, visitor, data, admin, pictures):
    calm = threading.Thread(target=open_loop, args=(data, CALM, int(CALM * CALM_SECONDS), TOKENS))
    calm.start()
    calm.join()
    agree = wait_until(lambda: visitor.text("#state") == status_of(admin)["backends"][0]["saturation"]["state"] != "unknown", 10)
    check(agree, f"at {CALM:g} req/s the page says what /status says: {visitor.text('#state')}")
    hot = threading.Thread(target=open_loop, args=(data, HOT, int(HOT * HOT_SECONDS), TOKENS))
    hot.start()
    saw_saturation(visitor, admin)
    said = visitor.page.text_content("#said")
    check("saturated" in said, f"a screen reader hears it: {said[:80]}")
    known = wait_until(lambda: "knee at" in visitor.text("#headroom-of"), HOT_SECONDS)
    check(known, f"the knee is named: {visitor.text('#headroom-of')}")
    check("saturated" in visitor.text("#turns"), "the change is in the list, in words")
    drawn = visitor.page.get_attribute("#knee-chart .plot", "aria-label")
    check("knee at" in drawn, f"the chart is described: {drawn}")
    for name, context in [
        ("light", {"viewport": DESKTOP, "color_scheme": "light"}), ("dark", {"viewport": DESKTOP, "color_scheme": "dark"}),
        ("phone", {"viewport": PHONE, "color_scheme": "light", "device_scale_factor": 2, "is_mobile": True, "has_touch": True}),
    ]:
        # The page that was open all the time has the history; a scheme is switched under it, as a system does at dusk.
        if name == "phone":
            phone(Visitor(browser, admin, **context).visit(), pictures)
            continue
        visitor.page.emulate_media(color_scheme=name)
        visitor.page.wait_for_timeout(1500)
        worst, where = visitor.page.evaluate(CONTRAST)
        check(worst >= 4.5, f"{name}: the least contrast of a text is {worst:.1f} to 1 ({where!r})")
        visitor.picture(pictures, f"{name}.png")
        visitor.picture(pictures, f"{name}-whole.png", full=True)
    visitor.page.emulate_media(color_scheme="light")
    enforced(visitor, admin, pictures)
    hot.join()


def enforced(visitor, admin, pictures):
    """The same load, enforced: what waits and what is refused is on the page."""
    print(f"  observed: {visitor.text('#sheds')}")
    post(admin, "/mode?set=enforce")
    shed = wait_until(lambda: visitor.text("#sheds")[:4] not in ("", "none"), 20)
    check(shed and visitor.text("#mode") == "enforce", f"enforced, the page counts what is shed: {visitor.text('#sheds')}")
    visitor.page.wait_for_timeout(4000)
    visitor.picture(pictures, "enforce.png", full=True)


def post(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path)
    check(connection.getresponse().status == 200, f"POST {path}")
    connection.close()


def phone(visitor, pictures):
    wide = visitor.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    check(wide[0] <= wide[1], f"a phone scrolls in one direction only ({wide[0]} of {wide[1]} px)")
    bottom = visitor.page.evaluate("document.getElementById('headroom').getBoundingClientRect().bottom")
    check(bottom <= PHONE["height"], f"state and headroom are on a phone's first screen ({bottom:.0f} px)")
    visitor.page.wait_for_timeout(1500)
    visitor.picture(pictures, "phone.png")
    visitor.picture(pictures, "phone-whole.png", full=True)
    visitor.context.close()


def keyboard(visitor):
    focused = []
    visitor.page.focus("body")
    for _ in range(12):
        visitor.page.keyboard.press("Tab")
        focused.append(visitor.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    check("backend" in focused and "span-10min" in focused, f"tab goes to {focused[:6]}")
    visitor.page.focus("#span-10min")
    visitor.page.keyboard.press("ArrowRight")
    check(visitor.page.is_checked("#span-2h"), "an arrow key chooses the next span")
    unnamed = visitor.page.evaluate(NAMES)
    check(not unnamed, f"everything that can be used or seen has a name {unnamed}")


def comes_back(browser, binary, engine, pictures):
    """weir ends under an open page and comes back at the same ports."""
    data, admin = free_port(), free_port()
    flags = ["serve", "--backend", f"http://127.0.0.1:{engine}", "--listen", f"127.0.0.1:{data}", "--admin", f"127.0.0.1:{admin}", "--log", "error"]
    with Process(binary, *flags) as process:
        wait_until_up(admin, "/readyz", process)
        visitor = Visitor(browser, admin, viewport=DESKTOP).visit()
        check(visitor.text("#link") == "live", "the page is live")
    gone = wait_until(lambda: "no data for" in visitor.text("#link"), 10)
    check(gone, f"weir went away: {visitor.text('#link')}")
    with Process(binary, *flags) as process:
        wait_until_up(admin, "/readyz", process)
        check(wait_until(lambda: visitor.text("#link") == "live", 15), "weir came back, and so did the page")
    visitor.context.close()


def a_day(browser, admin, pictures):
    visitor = Visitor(browser, admin, viewport=DESKTOP)
    visitor.page.add_init_script(TAPE)
    visitor.page.goto(visitor.origin + "/", wait_until="load")
    session = visitor.context.new_cdp_session(visitor.page)
    session.send("Performance.enable")

    def weigh():
        visitor.page.wait_for_timeout(300)
        for _ in range(3):
            session.send("HeapProfiler.collectGarbage")
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
        metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        return heap, metrics["Nodes"], metrics["JSEventListeners"]

    def tell(begin, end):
        # In pieces, with pictures between them, as an open page has.
        for at in range(begin, end, 600):
            visitor.page.evaluate("([from, seconds]) => new Promise((done) => { tell(from, seconds); requestAnimationFrame(done); })", [at, min(600, end - at)])

    tell(0, 7200)
    after_hours = weigh()
    tell(7200, 25 * 3600)
    after_day = weigh()
    grown = [b - a for a, b in zip(after_hours, after_day)]
    check(grown[0] <= GROWTH, f"heap {after_hours[0] / 2**20:.2f} MiB after 2 h, {after_day[0] / 2**20:.2f} MiB after 25 h")
    check(grown[1] <= 50 and grown[2] <= 5, f"nodes {after_hours[1]:.0f} and then {after_day[1]:.0f}, listeners {after_hours[2]:.0f} and then {after_day[2]:.0f}")
    visitor.page.check("#span-24h", force=True)
    visitor.page.evaluate("tell(90000, 1)")
    visitor.page.wait_for_timeout(500)
    visitor.picture(pictures, "day.png", full=True)
    check(not visitor.said, f"a day says nothing on the console {visitor.said[:3]}")
    visitor.context.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weir", "--chromium", "--pictures"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    os.makedirs(options.pictures, exist_ok=True)
    print(subprocess.run([options.chromium, "--version"], capture_output=True, text=True).stdout.strip())
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        params = os.path.join(folder, "engine.json")
        with open(params, "w") as out:
            json.dump(ENGINE, out)
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        with weir_engine(options.weir, "--params", params) as engine, weir(options.weir, engine) as (data, admin):
            visitor = first_paint(browser, admin)
            overload(browser, visitor, data, admin, options.pictures)
            keyboard(visitor)
            check(not visitor.said, f"nothing on the console {visitor.said[:3]}")
            check(not visitor.outside(), f"{len(visitor.asked)} requests, none of them to anybody else {visitor.outside()[:3]}")
            a_day(browser, admin, options.pictures)
            comes_back(browser, options.weir, engine, options.pictures)
        browser.close()
    return verdict()


if __name__ == "__main__":
    raise SystemExit(main())
