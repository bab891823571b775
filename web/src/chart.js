// The base of all charts: a uPlot in a <figure>, with a legend that shows the newest values or those under the pointer. The
// legend is text, so that it can be read without the canvas.

import uPlot from "uplot";
import { colour } from "./theme.js";

const FONT = "12px system-ui, sans-serif";

export class Chart {
  /**
   * @param {string} id of the figure, which contains `.plot` and `.legend`
   * @param {{key: string, label: string, colour: string, dash?: number[], width?: number, points?: object}[]} lines
   * @param {object} options `format` of a value; `scales`, `axes`, `hooks`, `cursor` as in uPlot
   */
  constructor(id, lines, options) {
    this.figure = document.getElementById(id);
    this.plot = this.figure.querySelector(".plot");
    this.lines = lines;
    this.format = options.format;
    this.legend = lines.map((line) => entry(this.figure.querySelector(".legend"), line));
    this.chart = new uPlot(this.settings(options), [[], ...lines.map(() => [])], this.plot);
    new ResizeObserver(() => this.chart.setSize(this.size())).observe(this.plot);
  }

  /** `data`: the values of the x axis, then one list a line. */
  show(data) {
    this.chart.setData(data);
    this.write(data[0].length - 1);
    const label = this.lines.map((line, i) => `${line.label} ${this.legend[i].textContent}`).join(", ");
    this.plot.setAttribute("aria-label", `${this.figure.querySelector("h2").textContent}. Now: ${label}`);
  }

  redraw() {
    this.chart.redraw(false, true);
  }

  size() {
    return { width: this.plot.clientWidth, height: this.plot.clientHeight };
  }

  write(row) {
    this.legend.forEach((cell, i) => {
      const text = this.format(this.chart.data[i + 1][row]);
      if (cell.textContent !== text) cell.textContent = text;
    });
  }

  settings({ format, hooks = {}, scales, axes = [{}, {}], cursor }) {
    const setCursor = (u) => this.write(u.cursor.idx ?? u.data[0].length - 1);
    return {
      ...this.size(),
      scales,
      axes: axes.map((axis, i) => ({ ...axisOf(i, format), ...axis })),
      series: [{}, ...this.lines.map(seriesOf)],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false }, ...cursor },
      hooks: { ...hooks, setCursor: [setCursor] },
      padding: [10, 30, 0, 0],
    };
  }
}

const seriesOf = (line) => ({
  label: line.label,
  stroke: () => colour(line.colour),
  width: line.width ?? 2,
  dash: line.dash,
  points: { show: false },
  ...line.points,
});

const axisOf = (side, format) => ({
  stroke: () => colour("--muted"),
  font: FONT,
  grid: { stroke: () => colour("--grid"), width: 1 },
  ticks: { stroke: () => colour("--grid"), width: 1, size: 4 },
  ...(side === 0 ? { space: 70, size: 28 } : { size: 56, space: 34, values: (_u, splits) => splits.map((v) => tick(format(v))) }),
});

/** Removes trailing zeros from a label of an axis: `5.00` becomes `5`. */
export const tick = (text) => text.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");

function entry(list, line) {
  const item = document.createElement("li");
  const mark = document.createElement("span");
  mark.className = `mark ${line.key}`;
  const value = document.createElement("b");
  item.append(mark, `${line.label} `, value);
  list.append(item);
  return value;
}

/** The range of an axis: from 0 to at least `least`. */
export const fromZero = (least) => (_u, _low, high) => [0, Math.max(least, (high ?? 0) * 1.1)];

/** Writes text next to a line and keeps it inside the plot. */
export function write(u, text, x, y, name) {
  const { ctx } = u;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  ctx.fillStyle = colour(name);
  ctx.textBaseline = "bottom";
  ctx.textAlign = "left"; // uPlot leaves the alignment of the axes
  const { left, top, width } = u.bbox;
  const right = left + width - ctx.measureText(text).width - 4 * ratio;
  ctx.fillText(text, Math.min(Math.max(x, left + 4 * ratio), right), Math.max(y - 3 * ratio, top + 14 * ratio));
  ctx.restore();
}
