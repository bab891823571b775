// The parts of the page that are not charts: state, headroom, figures, the table of backends, the last changes of state.
//
// Text is set as text, never as markup. An element is written only when its text changes.

import { ALL } from "./together.js";
import * as words from "./words.js";

const byId = (id) => document.getElementById(id);

function put(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function showState(name, row) {
  const card = byId("verdict");
  if (card.dataset.state !== row.state) {
    card.dataset.state = row.state;
    put("said", words.announcement(name, row));
    document.title = `${row.state} · weir`;
  }
  put("state", row.state);
  put("since", row.since_s == null ? "" : `for ${words.span(row.since_s)}`);
  put("reason", row.reason || (row.state === "unknown" ? "no traffic yet" : ""));
}

export function showHeadroom(row) {
  const share = words.headroom(row);
  put("headroom", share == null ? words.UNKNOWN : words.percent(share));
  byId("headroom").classList.toggle("words", share == null);
  put("headroom-of", words.headroomOf(row));
  const meter = byId("meter");
  meter.hidden = share == null;
  meter.value = share == null ? 0 : 1 - share;
  meter.textContent = words.percent(meter.value);
}

export function showFigures(row) {
  put("offered-now", words.number(row.offered));
  put("completed-now", words.number(row.completed));
  put("shed-now", words.number(row.shed));
  put("tokens-now", words.number(row.output_tokens));
  put("ttft-now", words.seconds(row.ttft[1]));
  put("itl-now", words.seconds(row.itl[1]));
  put("flight-now", words.count(row.in_flight));
  put("queue-now", words.count(row.queue));
  put("oldest-now", row.queue > 0 ? `oldest ${words.seconds(row.oldest_s)}` : "in weir");
  put("sheds", words.sheds(row.shed_total, row.would_shed));
}

export function showProcess(frame) {
  put("mode", frame.mode);
  byId("mode").title = frame.mode === "observe" ? "measures, and refuses no request because of load" : "limits, queues and sheds requests";
  byId("draining").hidden = !frame.draining;
  put("version", `weir ${frame.version}`);
  put("uptime", `up ${words.span(frame.uptime_s)}`);
}

/** `problem`: the text to show while no events arrive, else null. */
export function showLink(problem) {
  document.body.classList.toggle("stale", problem != null);
  put("link", problem ?? "live");
}

/** The list of backends to choose from, rebuilt only when the names change. */
export function showNames(names, chosen) {
  const select = byId("backend");
  const wanted = names.length > 1 ? [ALL, ...names] : names;
  const have = [...select.options].map((option) => option.value);
  if (wanted.join("\n") !== have.join("\n")) {
    select.replaceChildren(...wanted.map((name) => new Option(name || `all ${names.length} backends`, name)));
  }
  if (select.value !== chosen) select.value = chosen;
  byId("worst").hidden = !(names.length > 1 && chosen === ALL);
}

const CELLS = [
  ["state", (b) => (b.up ? b.state : `down, ${b.state}`)],
  ["headroom", (b) => words.percent(words.headroom(b))],
  ["offered", (b) => words.number(b.offered)],
  ["completed", (b) => words.number(b.completed)],
  ["knee", (b) => (b.knee ? words.number(b.knee.value) : words.UNKNOWN)],
  ["TTFT p99", (b) => words.seconds(b.ttft[1])],
  ["ITL p99", (b) => words.seconds(b.itl[1])],
  ["in flight", (b) => words.count(b.in_flight)],
  ["queue", (b) => words.count(b.queue)],
];

/** One row a backend; the name is a button that selects it. */
export function showTable(backends, choose) {
  const body = byId("backends");
  if (body.rows.length !== backends.length) body.replaceChildren(...backends.map((b) => blank(choose)));
  backends.forEach((backend, i) => {
    const row = body.rows[i];
    row.dataset.state = backend.state;
    const button = row.cells[0].firstChild;
    if (button.textContent !== backend.name) button.textContent = backend.name;
    CELLS.forEach(([, of], at) => {
      const text = of(backend);
      const cell = row.cells[at + 1];
      if (cell.textContent !== text) cell.textContent = text;
    });
  });
}

function blank(choose) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => choose(button.textContent));
  head.append(button);
  const cells = CELLS.map(([label]) => {
    const cell = document.createElement("td");
    cell.dataset.label = label;
    return cell;
  });
  row.append(head, ...cells);
  return row;
}

/** The last changes of state, newest first; null when there is no new one. */
export function showTransitions(transitions) {
  if (transitions == null) return;
  const items = transitions.map(({ at, backend, from, to, reason }) => {
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.dateTime = new Date(at * 1000).toISOString();
    time.textContent = words.clock(at);
    const to_ = document.createElement("b");
    to_.textContent = to;
    to_.dataset.state = to;
    const what = document.createElement("span");
    what.append(`${backend}: ${from} → `, to_);
    const why = document.createElement("p");
    why.textContent = reason;
    item.append(time, what, why);
    return item;
  });
  byId("turns").replaceChildren(...items);
  byId("no-turns").hidden = items.length > 0;
}
