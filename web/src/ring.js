// A ring buffer of rows at a fixed step: once it is full, each new row replaces the oldest.

/** How the seconds of one row are merged. An unknown value is NaN and changes nothing. */
const MERGE = {
  mean: (have, value, seen) => (Number.isNaN(have) ? value : have + (value - have) / seen),
  max: (have, value) => (have >= value ? have : value),
  last: (_have, value) => value,
};

export class Ring {
  /**
   * @param {number} step seconds a row covers
   * @param {number} rows capacity
   * @param {Record<string, keyof MERGE>} columns how each column is merged, by its name
   */
  constructor(step, rows, columns) {
    this.step = step;
    this.rows = rows;
    this.merge = Object.entries(columns).map(([name, way]) => [name, MERGE[way]]);
    this.time = new Float64Array(rows);
    this.columns = Object.fromEntries(Object.keys(columns).map((name) => [name, new Float32Array(rows)]));
    this.seen = new Uint16Array(rows);
    this.end = 0; // one past the newest row, counted since the start
  }

  /** Adds the values of one second at Unix time `at`. Values older than the newest row are dropped. */
  push(at, values) {
    const time = Math.floor(at / this.step) * this.step;
    const newest = this.end ? this.time[(this.end - 1) % this.rows] : -Infinity;
    if (time < newest) return;
    if (time > newest) {
      // A gap in time becomes one empty row, so that no line is drawn across it.
      if (this.end && time - newest > GAP * this.step) this.open(newest + this.step);
      this.open(time);
    }
    const row = (this.end - 1) % this.rows;
    this.seen[row] = Math.min(this.seen[row] + 1, 0xffff);
    for (const [name, merge] of this.merge) {
      const value = values[name] ?? NaN;
      if (!Number.isNaN(value)) this.columns[name][row] = merge(this.columns[name][row], value, this.seen[row]);
    }
  }

  /** The times, then the named columns, oldest first; an unknown value is null. */
  read(names) {
    const count = Math.min(this.end, this.rows);
    const begin = this.end - count;
    const list = (from, of) => Array.from({ length: count }, (_, i) => of(from[(begin + i) % this.rows]));
    return [list(this.time, (t) => t), ...names.map((name) => list(this.columns[name], (v) => (Number.isNaN(v) ? null : v)))];
  }

  open(time) {
    const row = this.end % this.rows;
    this.end += 1;
    this.time[row] = time;
    this.seen[row] = 0;
    for (const [name] of this.merge) this.columns[name][row] = NaN;
  }
}

/** Steps without a row that count as late events and not as a gap. */
const GAP = 3;
