// The charts over time.

import { Chart, fromZero } from "./chart.js";
import { count, number, seconds } from "./words.js";

const TIME = { x: { time: true }, y: { range: fromZero(1) } };
const LATENCY = { x: { time: true }, y: { range: fromZero(0.01) } };
const HOURS = [
  [86_400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
  [3600, "{HH}:{mm}", null, null, null, null, null, null, 1],
  [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
];
const AXES = [{ values: HOURS }, {}];

const line = (key, label, dash, width) => ({ key, label, colour: `--${key}`, dash, width });

/** Creates the five charts, each with the columns of the history it shows. */
export const overTime = () =>
  [
    {
      id: "rates",
      columns: ["offered", "completed", "knee"],
      lines: [line("offered", "offered", [], 1.5), line("completed", "completed", [], 2.5), line("knee", "knee", [8, 5], 2)],
      options: { format: number, scales: TIME },
    },
    {
      id: "ttft",
      columns: ["ttft99", "ttft50"],
      lines: [line("p99", "p99"), line("p50", "p50", [5, 4])],
      options: { format: seconds, scales: LATENCY },
    },
    {
      id: "itl",
      columns: ["itl99", "itl50"],
      lines: [line("p99", "p99"), line("p50", "p50", [5, 4])],
      options: { format: seconds, scales: LATENCY },
    },
    {
      id: "waiting",
      columns: ["queue", "pending", "in_flight"],
      lines: [line("queue", "queue"), line("pending", "pending", [5, 4]), line("in_flight", "in flight", [2, 3], 1.5)],
      options: { format: count, scales: TIME },
    },
    {
      id: "shed",
      columns: ["shed"],
      lines: [line("sheds", "shed")],
      options: { format: number, scales: TIME },
    },
  ].map(({ id, columns, lines, options }) => ({ columns, chart: new Chart(id, lines, { axes: AXES, ...options }) }));
