// The history kept in memory: three rings for each backend and for the sum of all. Nothing else grows while the page is open.

import { Ring } from "./ring.js";

/** The spans of time to choose from; `step` in seconds. */
export const SPANS = {
  "10min": { label: "10 min", step: 1, rows: 600 },
  "2h": { label: "2 h", step: 10, rows: 720 },
  "24h": { label: "24 h", step: 120, rows: 720 },
};

const COLUMNS = {
  offered: "mean",
  completed: "mean",
  shed: "mean",
  output_tokens: "mean",
  ttft50: "mean",
  ttft99: "max",
  itl50: "mean",
  itl99: "max",
  queue: "max",
  pending: "max",
  in_flight: "max",
  knee: "last",
};

export class History {
  constructor() {
    this.rings = new Map();
  }

  /** Adds one second of values. A backend that `rows` no longer contains is removed. */
  push(at, rows) {
    for (const name of this.rings.keys()) if (!rows.has(name)) this.rings.delete(name);
    for (const [name, row] of rows) {
      if (!this.rings.has(name)) this.rings.set(name, rings());
      for (const ring of Object.values(this.rings.get(name))) ring.push(at, values(row));
    }
  }

  /** The times, then the named columns, of one backend over a span. */
  read(name, span, columns) {
    const ring = this.rings.get(name)?.[span];
    return ring ? ring.read(columns) : [[], ...columns.map(() => [])];
  }
}

const rings = () =>
  Object.fromEntries(Object.entries(SPANS).map(([span, { step, rows }]) => [span, new Ring(step, rows, COLUMNS)]));

const values = (row) => ({
  ...row,
  ttft50: row.ttft[0],
  ttft99: row.ttft[1],
  itl50: row.itl[0],
  itl99: row.itl[1],
  knee: row.knee?.value,
});
