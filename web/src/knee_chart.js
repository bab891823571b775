// Throughput against offered load: one point a second, with the knee as a line. Below the knee the points lie on the diagonal,
// where everything offered is served. Past the knee they leave the diagonal and stay at the height of the knee.

import { Chart, tick, write } from "./chart.js";
import { colour } from "./theme.js";
import { number } from "./words.js";

/** Seconds. Points of the last RECENT seconds are drawn in a strong colour, older ones in a faint one. */
const RECENT = 60;

const dots = (size, name) => ({
  paths: () => null,
  points: { show: true, size, width: 0, stroke: () => colour(name), fill: () => colour(name) },
});

export class KneeChart {
  constructor() {
    this.row = null;
    this.top = 1;
    this.height = 1;
    const lines = [
      { key: "older", label: "before", colour: "--older", points: dots(4, "--older") },
      { key: "recent", label: "last minute", colour: "--recent", points: dots(5, "--recent") },
      { key: "now", label: "now", colour: "--now", points: dots(13, "--now") },
    ];
    const reach = () => [0, this.top];
    this.chart = new Chart("knee-chart", lines, {
      format: number,
      scales: { x: { time: false, range: reach }, y: { range: () => [0, this.height] } },
      axes: [{ values: (_u, splits) => splits.map((v) => tick(number(v))), label: "offered, req/s", labelSize: 18, labelFont: "12px system-ui, sans-serif" }, {}],
      hooks: { drawClear: [(u) => this.under(u)], draw: [(u) => this.over(u)] },
      cursor: { show: false },
    });
  }

  /** `row`: the newest values. `times`, `offered`, `completed`: columns of the history. */
  show(row, times, offered, completed) {
    this.row = row;
    const begin = (times[times.length - 1] ?? 0) - RECENT;
    const past = times.map((time, i) => ({ x: offered[i], y: completed[i], kind: time >= begin ? 1 : 0 }));
    const points = [...past, { x: row.offered, y: row.completed, kind: 2 }].filter(({ x, y }) => x != null && y != null);
    points.sort((a, b) => a.x - b.x);
    const level = row.knee?.high ?? row.predicted?.value ?? 0;
    const reach = (of) => Math.max(level, ...points.map(of));
    this.top = Math.max(1, 1.1 * reach(({ x }) => x));
    this.height = Math.max(1, 1.2 * reach(({ y }) => y));
    const only = (wanted) => points.map(({ y, kind }) => (kind === wanted ? y : null));
    this.chart.show([points.map(({ x }) => x), only(0), only(1), only(2)]);
    this.write(row);
  }

  redraw() {
    this.chart.redraw();
  }

  /** Written here because the points are sorted by offered load: the last of them is not the newest second. */
  write(row) {
    this.chart.legend[0].textContent = "";
    this.chart.legend[1].textContent = "";
    this.chart.legend[2].textContent = `${number(row.completed)} of ${number(row.offered)} req/s`;
    const knee = row.knee ? `knee at ${number(row.knee.value)} requests per second` : "the knee is not known yet";
    this.chart.plot.setAttribute("aria-label", `Completed against offered. Now ${number(row.completed)} of ${number(row.offered)} requests per second are completed; ${knee}`);
  }

  /** Drawn below the points: the diagonal and the interval of the knee. */
  under(u) {
    const { ctx } = u;
    clipped(u, () => {
      const end = Math.min(this.top, this.height);
      stroke(ctx, "--muted", [4, 6], 1);
      path(ctx, at(u, 0, 0), at(u, end, end));
      const knee = this.row?.knee;
      if (knee) {
        ctx.globalAlpha = 0.22;
        ctx.fillStyle = colour("--knee");
        const [[left, low], [right, high]] = [at(u, 0, knee.low), at(u, this.top, knee.high)];
        ctx.fillRect(left, high, right - left, Math.max(low - high, 1));
      }
    });
  }

  /** Drawn above the points: the knee, or its prediction, with the value. */
  over(u) {
    const { knee, predicted } = this.row ?? {};
    const level = knee?.value ?? predicted?.value;
    if (level == null) return;
    clipped(u, () => {
      stroke(u.ctx, "--knee", knee ? [] : [3, 5], 2);
      path(u.ctx, at(u, 0, level), at(u, this.top, level));
      stroke(u.ctx, "--knee", [3, 5], 1);
      path(u.ctx, at(u, level, 0), at(u, level, level));
    });
    const [x, y] = at(u, 0, level);
    write(u, `${knee ? "knee" : "predicted knee"} ${number(level)} req/s`, x + 6 * devicePixelRatio, y, "--knee");
  }
}

const at = (u, x, y) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];

function clipped(u, draw) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw();
  ctx.restore();
}

function stroke(ctx, name, dash, width) {
  ctx.strokeStyle = colour(name);
  ctx.setLineDash(dash.map((length) => length * devicePixelRatio));
  ctx.lineWidth = width * devicePixelRatio;
}

function path(ctx, from, to) {
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
}
