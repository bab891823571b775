// Tests of the page's history and texts: node --test

import assert from "node:assert/strict";
import { test } from "node:test";
import { Ring } from "./src/ring.js";
import { History, SPANS } from "./src/history.js";
import { rowsOf, together } from "./src/together.js";
import * as words from "./src/words.js";

const columns = { rate: "mean", worst: "max" };

test("seconds of one step are merged and the oldest row is replaced", () => {
  const ring = new Ring(10, 3, columns);
  for (let at = 0; at < 50; at++) ring.push(at, { rate: at, worst: at % 10 });
  assert.deepEqual(ring.read(["rate", "worst"]), [[20, 30, 40], [24.5, 34.5, 44.5], [9, 9, 9]]);
});

test("a gap in time is one empty row, late events are not", () => {
  const ring = new Ring(1, 10, columns);
  for (const at of [0, 2, 9]) ring.push(at, { rate: 1, worst: 1 });
  assert.deepEqual(ring.read(["rate"]), [[0, 2, 3, 9], [1, 1, null, 1]]);
});

test("an unknown value is null and does not change known ones", () => {
  const ring = new Ring(10, 3, columns);
  ring.push(0, { rate: 4, worst: null });
  ring.push(1, { rate: null, worst: undefined });
  assert.deepEqual(ring.read(["rate", "worst"]), [[0], [4], [null]]);
});

test("values older than the newest row are dropped", () => {
  const ring = new Ring(1, 10, columns);
  ring.push(5, { rate: 1 });
  ring.push(3, { rate: 9 });
  assert.deepEqual(ring.read(["rate"]), [[5], [1]]);
});

const backend = (name, more) => ({ name, up: true, state: "healthy", ttft: [0.1, 0.2], itl: [0.01, 0.02], missing: [], offered: 2, ...more });

test("a day fills no more rows than the capacity, and a removed backend is forgotten", () => {
  const history = new History();
  for (let at = 0; at < 86_400; at += 1) history.push(at, new Map([["a", backend("a")]]));
  for (const [span, { rows }] of Object.entries(SPANS)) assert.equal(history.read("a", span, ["offered"])[0].length, rows);
  history.push(86_400, new Map([["b", backend("b")]]));
  assert.deepEqual([...history.rings.keys()], ["b"]);
});

test("of several backends rates are summed and the worst state is shown", () => {
  const knee = { value: 10, low: 9, high: 11, in_flight: 80 };
  const both = [backend("a", { knee, demand_ratio: 0.2 }), backend("b", { state: "saturated", reason: "why", ttft: [1, 5], demand_ratio: 1.5, knee })];
  const all = together(both);
  assert.deepEqual([all.offered, all.state, all.reason, all.ttft, all.demand_ratio, all.knee.value], [4, "saturated", "b: why", [1, 5], 1.5, 20]);
  assert.equal(together([both[0], { ...both[1], knee: null }]).knee, null);
  assert.equal(rowsOf({ backends: [] }).get("").state, "unknown");
});

test("headroom is never negative, and unknown is not 0", () => {
  assert.equal(words.headroom({ demand_ratio: 1.5 }), 0);
  assert.equal(words.headroom({ demand_ratio: null }), null);
  assert.equal(words.percent(null), "–");
  assert.match(words.headroomOf({ knee: null, missing: ["1 of 3 saturated blocks seen"] }), /^1 of 3/);
});

test("numbers have three significant digits, durations two units", () => {
  assert.deepEqual([0.123, 9.999, 12.34, 99.99, 1973, 21_400, 0].map(words.number), ["0.12", "10.0", "12.3", "100", "1973", "21.4k", "0"]);
  assert.deepEqual([0.0198, 0.25, 1.94, 20].map(words.seconds), ["19.8 ms", "250 ms", "1.94 s", "20.0 s"]);
  assert.deepEqual([59, 60, 3725, 90_000].map(words.span), ["59 s", "1 min", "1 h 2 min", "1 d 1 h"]);
});

test("sheds are listed by count, would-be sheds separately", () => {
  assert.equal(words.sheds({ saturated: 2, deadline: 9, queue_full: 0 }), "deadline 9 · saturated 2");
  assert.equal(words.sheds({ saturated: 0 }, 0), "none");
  assert.match(words.sheds({}, 7), /^none \(.*7/);
});
