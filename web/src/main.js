// The live page: receives one event a second, keeps it in memory, and shows the chosen backend and span of time. It sends
// nothing and stores nothing.

import { History, SPANS } from "./history.js";
import { KneeChart } from "./knee_chart.js";
import { overTime } from "./over_time.js";
import { onScheme } from "./theme.js";
import { ALL, rowsOf } from "./together.js";
import * as view from "./view.js";

const history = new History();
const kneeChart = new KneeChart();
const charts = overTime();
const chosen = { backend: ALL, span: "10min" };
let frame = null;
let receivedAt = 0;
let drawing = false;

function onFrame(event) {
  frame = JSON.parse(event.data);
  receivedAt = performance.now();
  history.push(frame.at, rowsOf(frame));
  view.showTransitions(frame.turns);
  draw();
}

/** At most once a frame of the browser. A hidden page gets no frames and draws nothing. */
function draw() {
  if (drawing || !frame) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    show();
  });
}

function show() {
  const rows = rowsOf(frame);
  const names = frame.backends.map((backend) => backend.name);
  if (!names.includes(chosen.backend)) chosen.backend = names.length === 1 ? names[0] : ALL;
  const row = rows.get(chosen.backend);
  view.showLink(null);
  view.showProcess(frame);
  view.showNames(names, chosen.backend);
  view.showState(row.name, row);
  view.showHeadroom(row);
  view.showFigures(row);
  view.showTable(frame.backends, choose);
  for (const { chart, columns } of charts) chart.show(history.read(chosen.backend, chosen.span, columns));
  kneeChart.show(row, ...history.read(chosen.backend, chosen.span, ["offered", "completed"]));
  document.body.classList.add("ready");
}

function choose(backend) {
  chosen.backend = backend;
  draw();
}

/** The browser reconnects by itself after a broken connection, but not after a refused one. */
function listen() {
  const source = new EventSource("events");
  source.onmessage = onFrame;
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, RECONNECT_AFTER);
  };
}

function watchSilence() {
  const silence = (performance.now() - receivedAt) / 1000;
  if (silence > SILENT) view.showLink(frame ? `no data for ${Math.round(silence)} s` : "waiting for data");
}

/** Seconds without an event before the page says so. Shorter delays are usual on a busy machine. */
const SILENT = 4;
/** Milliseconds. */
const RECONNECT_AFTER = 5000;

document.getElementById("backend").addEventListener("change", (event) => choose(event.target.value));
for (const [span, { label }] of Object.entries(SPANS)) {
  const input = document.getElementById(`span-${span}`);
  input.nextElementSibling.textContent = label;
  input.addEventListener("change", () => {
    chosen.span = span;
    draw();
  });
}
onScheme(() => [kneeChart, ...charts.map(({ chart }) => chart)].forEach((chart) => chart.redraw()));
setInterval(watchSilence, 1000);
listen();
