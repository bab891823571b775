// The live page: hears one event a second, remembers it, and shows what is chosen. It sends nothing and stores nothing.

import { Crest } from "./crest.js";
import { History, SPANS } from "./history.js";
import { overTime } from "./over_time.js";
import { onScheme } from "./theme.js";
import { ALL, rowsOf } from "./together.js";
import * as view from "./view.js";

const history = new History();
const crest = new Crest();
const charts = overTime();
const chosen = { backend: ALL, span: "10min" };
let frame = null;
let heard = 0;
let drawing = false;

function onFrame(event) {
  frame = JSON.parse(event.data);
  heard = performance.now();
  history.push(frame.at, rowsOf(frame));
  view.showTurns(frame.turns);
  draw();
}

/** At most once for each picture that the browser shows; a hidden page draws nothing. */
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
  crest.show(row, ...history.read(chosen.backend, chosen.span, ["offered", "completed"]));
  document.body.classList.add("ready");
}

function choose(backend) {
  chosen.backend = backend;
  draw();
}

/** The browser comes back by itself when a connection breaks, but not when it was refused. */
function listen() {
  const source = new EventSource("events");
  source.onmessage = onFrame;
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, COME_BACK);
  };
}

function watchSilence() {
  const silence = (performance.now() - heard) / 1000;
  if (silence > SILENT) view.showLink(frame ? `nothing heard for ${Math.round(silence)} s` : "waiting for weir");
}

/** Late events are usual on a busy machine; this many seconds of them are not. */
const SILENT = 4;
const COME_BACK = 5000;

document.getElementById("backend").addEventListener("change", (event) => choose(event.target.value));
for (const [span, { label }] of Object.entries(SPANS)) {
  const input = document.getElementById(`span-${span}`);
  input.nextElementSibling.textContent = label;
  input.addEventListener("change", () => {
    chosen.span = span;
    draw();
  });
}
onScheme(() => [crest, ...charts.map(({ chart }) => chart)].forEach((chart) => chart.redraw()));
setInterval(watchSilence, 1000);
listen();
