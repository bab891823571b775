// Draws a dashboard: window.DASHBOARD is its JSON, window.ANSWERS what Prometheus answered to each panel, window.BETWEEN the time shown.
// Every kind of panel that weir's dashboards use, in the plainest form that shows whether queries, legends, units, mappings,
// thresholds and places fit. An unknown kind, unit or transformation is an error: it would not be seen otherwise.
"use strict";

const COLOURS = ["#5794f2", "#f2495c", "#73bf69", "#ff9830", "#b877d9", "#e0b400", "#8ab8ff", "#ff7383", "#37872d", "#fa6400", "#7c2ea3", "#96d98d"];
const NAMED = { green: "#56a64b", yellow: "#e0b400", red: "#e02f44", blue: "#3274d9", purple: "#8f3bb8", orange: "#ff780a" };
const SVG = "http://www.w3.org/2000/svg";
const colour = (name) => NAMED[name] ?? name ?? "#8e8e8e";

function made(tag, within, attributes = {}, text = "") {
  const node = tag === tag.toLowerCase() && SHAPES.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  within?.append(node);
  return node;
}
const SHAPES = new Set(["svg", "path", "line", "rect", "circle", "text", "g"]);

const scaled = (value, base, names) => {
  let place = 0;
  while (Math.abs(value) >= base && place < names.length - 1) { value /= base; place += 1; }
  return `${short(value)}${names[place]}`;
};
const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : Number(value.toPrecision(3)).toString());
const seconds = (value) => (value === 0 ? "0 s" : Math.abs(value) < 1e-3 ? `${short(value * 1e6)} µs` : Math.abs(value) < 1 ? `${short(value * 1e3)} ms`
  : Math.abs(value) < 120 ? `${short(value)} s` : Math.abs(value) < 7200 ? `${short(value / 60)} min` : `${short(value / 3600)} h`);
const UNITS = {
  short: (v) => scaled(v, 1000, ["", " K", " Mil", " Bil"]),
  percentunit: (v) => `${short(v * 100)}%`,
  s: seconds,
  reqps: (v) => `${short(v)} req/s`,
  cps: (v) => `${short(v)} c/s`,
  bytes: (v) => scaled(v, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]),
  watt: (v) => scaled(v, 1000, [" W", " kW"]),
  hertz: (v) => scaled(v, 1000, [" Hz", " kHz", " MHz", " GHz"]),
  celsius: (v) => `${short(v)} °C`,
};
const shown = (value, unit) => {
  if (!UNITS[unit ?? "short"]) throw new Error(`unit ${unit} is not known here`);
  return UNITS[unit ?? "short"](value);
};

/** What overrides say of the series or column of that name. */
function told(panel, name) {
  const own = {};
  for (const { matcher, properties } of panel.fieldConfig.overrides) {
    if (matcher.id !== "byName") throw new Error(`matcher ${matcher.id} is not known here`);
    if (matcher.options === name) for (const { id, value } of properties) own[id] = value;
  }
  return own;
}

function mapped(panel, value) {
  for (const { type, options } of panel.fieldConfig.defaults.mappings ?? []) {
    if (type === "value" && options[String(value)]) return options[String(value)];
    if (type === "special" && options.match === "nan" && Number.isNaN(value)) return options.result;
  }
  return undefined;
}

function threshold(panel, value) {
  const steps = panel.fieldConfig.defaults.thresholds?.steps ?? [];
  return steps.filter((step) => step.value === null || value >= step.value).at(-1)?.color;
}

const named = (legend, labels) => legend === "__auto" ? Object.values(labels).join(" ") || "value" : legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? "");

/** All series of a panel: name, points [time, value], what overrides say of it. */
function seriesOf(panel, answers) {
  const found = [];
  panel.targets.forEach((target, place) => {
    for (const { metric, values, value } of answers[place]) {
      const points = (values ?? [value]).map(([at, text]) => [at, Number(text)]);
      const name = named(target.legendFormat, metric);
      found.push({ name, points, metric, own: told(panel, name), ref: target.refId });
    }
  });
  found.forEach((one, place) => { one.colour = colour(one.own.color?.fixedColor ?? COLOURS[place % COLOURS.length]); });
  return found;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const all = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) all.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return all;
}

/** A frame with axes; gives back what turns values into places. */
function frame(body, x, y, unit, rightUnit, xShown) {
  const svg = made("svg", body), { width, height } = body.getBoundingClientRect();
  const left = 52, right = width - (rightUnit ? 48 : 6), top = 5, bottom = height - 14;
  const px = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left);
  const py = ([low, high]) => (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  for (const value of ticks(...y.left, 4)) {
    made("line", svg, { x1: left, x2: right, y1: py(y.left)(value), y2: py(y.left)(value), stroke: "#eceef0" });
    made("text", svg, { x: left - 4, y: py(y.left)(value) + 3, "text-anchor": "end" }, shown(value, unit));
  }
  if (rightUnit) for (const value of ticks(...y.right, 4)) made("text", svg, { x: right + 4, y: py(y.right)(value) + 3 }, shown(value, rightUnit));
  for (const value of ticks(...x, 5)) timeLabel(svg, px(value), height - 2, width, xShown(value));
  return { svg, px, py, left, right, top, bottom };
}

const clockOf = ([begin, end]) => (at) => (end - begin > 86400 ? new Date(at * 1000).toISOString().slice(5, 10) : new Date(at * 1000).toISOString().slice(11, 19));
/** A label of the time axis, which stays inside the panel. */
const timeLabel = (svg, x, y, width, text) => made("text", svg, { x: Math.min(x, width - 2), y, "text-anchor": x > width - 24 ? "end" : "middle" }, text);

function spread(values, minimum, maximum) {
  const finite = values.filter(Number.isFinite);
  let low = minimum ?? Math.min(0, ...finite), high = maximum ?? Math.max(...finite, low);
  if (!(high > low)) high = low + 1;
  return [low, maximum === undefined ? high + (high - low) * 0.05 : high];
}

function timeseries(panel, answers, body, legend, between) {
  const all = seriesOf(panel, answers), { defaults } = panel.fieldConfig, custom = defaults.custom;
  if (custom.stacking.mode === "normal") stack(all);
  const isRight = (one) => one.own["custom.axisPlacement"] === "right";
  const values = (which) => all.filter((one) => isRight(one) === which).flatMap((one) => one.points.map((p) => p[1]));
  const rights = all.filter(isRight), y = { left: spread(values(false), defaults.min, defaults.max), right: spread(values(true)) };
  const f = frame(body, between, y, defaults.unit, rights[0]?.own.unit ?? (rights.length ? defaults.unit : undefined), clockOf(between));
  if (custom.thresholdsStyle.mode === "dashed") for (const { value, color } of defaults.thresholds.steps) {
    if (value !== null && value <= y.left[1]) made("line", f.svg, { x1: f.left, x2: f.right, y1: f.py(y.left)(value), y2: f.py(y.left)(value), stroke: colour(color), "stroke-dasharray": "4 4" });
  }
  for (const one of all) {
    const place = f.py(isRight(one) ? y.right : y.left), points = one.points.filter((p) => Number.isFinite(p[1]));
    const line = points.map(([at, v], n) => `${n && at - points[n - 1][0] < GAP * (between[1] - between[0]) ? "L" : "M"}${f.px(at)} ${place(v)}`).join("");
    const below = one.own["custom.fillBelowTo"] && all.find((other) => other.name === one.own["custom.fillBelowTo"]);
    const floor = below ? [...below.points].reverse() : one.below ? [...one.below].reverse() : undefined;
    if (floor && points.length && custom.drawStyle !== "bars") made("path", f.svg, { d: `${line.replaceAll("M", "L").replace("L", "M")}${floor.map(([at, v]) => `L${f.px(at)} ${place(v)}`).join("")}Z`, fill: one.colour, opacity: below ? 0.15 : 0.35 });
    const style = { d: line, fill: "none", stroke: one.colour, "stroke-width": one.own["custom.lineWidth"] ?? 1.3 };
    if (one.own["custom.lineStyle"]?.fill === "dash") style["stroke-dasharray"] = "7 5";
    if (custom.drawStyle === "bars") points.forEach(([at, v], n) => made("line", f.svg, { x1: f.px(at), x2: f.px(at), y1: place(one.below?.[n]?.[1] ?? 0), y2: place(v), stroke: one.colour, "stroke-width": 2 }));
    else made("path", f.svg, style);
    if (points.length === 1) made("circle", f.svg, { cx: f.px(points[0][0]), cy: place(points[0][1]), r: 2.5, fill: one.colour });
    if (!one.own["custom.hideFrom"]?.legend) key(legend, one.name, one.colour);
  }
}

function stack(all) {
  const below = new Map();
  for (const one of all) {
    one.below = one.points.map(([at]) => [at, below.get(at) ?? 0]);
    one.points = one.points.map(([at, v]) => [at, (below.get(at) ?? 0) + (Number.isFinite(v) ? v : 0)]);
    for (const [at, v] of one.points) below.set(at, v);
  }
}

function key(legend, name, ink) {
  const one = made("span", legend);
  made("i", one, { style: `background:${ink}` });
  one.append(name);
}

function stat(panel, answers, body) {
  const all = seriesOf(panel, answers), row = made("div", body, { class: "stats" }), { defaults } = panel.fieldConfig;
  for (const one of all) {
    const value = one.points.at(-1)[1], map = mapped(panel, value);
    if (panel.options.textMode === "name") { made("b", made("div", row, { class: "stat", style: "color:#24292e" }), {}, one.name); continue; }
    const tile = made("div", row, { class: "stat", style: `font-size:${all.length > 3 ? 9 : 12}px;background:${colour(map?.color ?? threshold(panel, value) ?? "#3274d9")}` });
    if (all.length > 1 || panel.type === "gauge") made("div", tile, {}, one.name);
    made("b", tile, {}, map?.text ?? (Number.isNaN(value) ? "NaN" : defaults.decimals === undefined ? shown(value, defaults.unit) : fixed(value, defaults)));
  }
}

/** With so many decimals: what stands before the unit is replaced. */
const fixed = (value, { unit, decimals }) => unit === "percentunit" ? `${(value * 100).toFixed(decimals)}%`
  : shown(value, unit).replace(/^-?[\d.]+/, value.toFixed(decimals));

function timeline(panel, answers, body, legend, between) {
  const all = seriesOf(panel, answers), { width, height } = body.getBoundingClientRect(), svg = made("svg", body);
  const left = 120, room = (height - 14) / all.length, wide = Math.min(room * 0.9, 28);
  const px = (at) => left + ((at - between[0]) / (between[1] - between[0])) * (width - left - 6);
  all.forEach((one, place) => {
    const y = place * room + (room - wide) / 2;
    made("text", svg, { x: left - 5, y: y + wide / 2 + 3, "text-anchor": "end" }, one.name.length > 24 ? `${one.name.slice(0, 23)}…` : one.name);
    one.points.forEach(([at, value], n) => {
      const end = Math.min(one.points[n + 1]?.[0] ?? at + 1, at + GAP * (between[1] - between[0]));
      made("rect", svg, { x: px(at), y, width: Math.max(px(end) - px(at), 0.5) + 0.3, height: wide, fill: colour(mapped(panel, value)?.color ?? one.colour) });
    });
  });
  for (const value of ticks(...between, 4)) timeLabel(svg, px(value), height - 2, width, clockOf(between)(value));
  const words = new Map(all.flatMap((one) => one.points.map(([, v]) => [v, mapped(panel, v)])).filter(([, map]) => map));
  for (const [, map] of words) key(legend, map.text, colour(map.color));
}

function heatmap(panel, answers, body, legend, between) {
  const rows = answers[0].map(({ metric, values }) => ({ le: Number(metric.le.replace("+Inf", "Infinity")), values: new Map(values.map(([at, v]) => [at, Number(v)])) }));
  rows.sort((a, b) => a.le - b.le);
  const cells = rows.flatMap((row, place) => [...row.values].map(([at, v]) => ({ place, at, count: v - (rows[place - 1]?.values.get(at) ?? 0) }))).filter((cell) => cell.count > 1e-9);
  const used = [...new Set(cells.map((cell) => cell.place))].sort((a, b) => a - b), low = used[0] ?? 0, high = used.at(-1) ?? 1;
  const { width, height } = body.getBoundingClientRect(), svg = made("svg", body), left = 52, tall = (height - 16) / (high - low + 1);
  const px = (at) => left + ((at - between[0]) / (between[1] - between[0])) * (width - left - 6);
  const most = Math.max(...cells.map((cell) => cell.count)), step = window.STEP;
  for (const { place, at, count } of cells) {
    const strength = Math.sqrt(count / most);
    made("rect", svg, { x: px(at), y: (high - place) * tall, width: px(at + step) - px(at) + 0.3, height: tall - 1, fill: `hsl(28 90% ${92 - 50 * strength}%)` });
  }
  for (const place of used.filter((_, n) => n % Math.ceil(used.length / 8) === 0)) made("text", svg, { x: left - 4, y: (high - place) * tall + 9, "text-anchor": "end" }, rows[place].le === Infinity ? "∞" : shown(rows[place].le, panel.options.yAxis.unit));
  for (const value of ticks(...between, 5)) timeLabel(svg, px(value), height - 2, width, clockOf(between)(value));
}

function xychart(panel, answers, body, legend) {
  const [x, ...rest] = seriesOf(panel, answers), at = new Map(x?.points ?? []);
  const xs = spread([...at.values()]), ys = spread(rest.flatMap((one) => one.points.map((p) => p[1])));
  const f = frame(body, xs, { left: ys }, panel.fieldConfig.defaults.unit, undefined, (value) => shown(value));
  for (const one of rest) {
    for (const [when, value] of one.points) if (at.has(when) && Number.isFinite(value)) made("circle", f.svg, { cx: f.px(at.get(when)), cy: f.py(ys)(value), r: 2, fill: one.colour, opacity: 0.6 });
    key(legend, one.name, one.colour);
  }
}

function table(panel, answers, body) {
  const rows = new Map(), columns = new Set(), hidden = new Set();
  for (const { id, options } of panel.transformations ?? []) {
    if (id === "organize") Object.keys(options.excludeByName).forEach((name) => hidden.add(name));
    else if (id !== "merge") throw new Error(`transformation ${id} is not known here`);
  }
  panel.targets.forEach((target, place) => {
    const column = panel.targets.length > 1 ? `Value #${target.refId}` : "Value";
    for (const { metric, value } of answers[place]) {
      // A merge joins rows that agree in all columns that both have.
      const fits = ([, row]) => !(column in row) && Object.keys(metric).every((label) => !(label in row) || row[label] === metric[label]);
      const found = place > 0 && [...rows].find(fits), id = found ? found[0] : rows.size;
      rows.set(id, { ...rows.get(id), ...metric, [column]: Number(value[1]) });
      [...Object.keys(metric), column].filter((name) => !hidden.has(name)).forEach((name) => columns.add(name));
    }
  });
  const sheet = made("table", body), head = made("tr", sheet);
  for (const name of columns) made("th", head, {}, told(panel, name).displayName ?? name);
  for (const row of rows.values()) {
    const line = made("tr", sheet);
    for (const name of columns) {
      const value = row[name], own = told(panel, name);
      made("td", line, {}, value === undefined ? "" : typeof value === "number" ? shown(value, own.unit ?? panel.fieldConfig.defaults.unit) : value);
    }
  }
}

const KINDS = { timeseries, stat, gauge: stat, "state-timeline": timeline, heatmap, xychart, table };
/** Kinds without a legend. */
const BARE = new Set(["stat", "gauge", "table", "heatmap"]);
/** A line does not join points that lie further apart than this share of the view. */
const GAP = 0.05;

function draw() {
  const { title, panels } = window.DASHBOARD, main = document.querySelector("main");
  document.querySelector("header").textContent = title;
  const flat = panels.flatMap((panel) => panel.type === "row" ? [panel, ...panel.panels] : [panel]);
  for (const panel of flat) {
    const { x, y, w, h } = panel.gridPos, area = `grid-column:${x + 1} / span ${w};grid-row:${y + 1} / span ${h}`;
    if (panel.type === "row") { made("h2", main, { style: area }, panel.title); continue; }
    const card = made("section", main, { style: area, class: BARE.has(panel.type) ? "stat-like" : "" });
    made("h3", card, {}, panel.title);
    const body = made("div", card, { class: "body" }), legend = made("div", card, { class: "legend" });
    if (!KINDS[panel.type]) throw new Error(`panels of kind ${panel.type} are not known here`);
    const answers = window.ANSWERS[panel.id];
    if (answers.every((answer) => answer.length === 0)) { made("div", body, { class: "none" }, panel.fieldConfig.defaults.noValue ?? "No data"); continue; }
    const between = panel.timeFrom ? [window.BETWEEN[1] - window.SPANS[panel.timeFrom], window.BETWEEN[1]] : window.BETWEEN;
    KINDS[panel.type](panel, answers, body, legend, between);
  }
  document.body.dataset.drawn = "yes";
}

draw();
