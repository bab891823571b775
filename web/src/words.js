// Formats numbers, durations and states as text. Pure functions: no DOM and no clock.

/** Shown for an unknown value, so that it is never shown as 0. */
export const UNKNOWN = "not known yet";
const DASH = "–";

const known = (value) => value != null && Number.isFinite(value);

/** A rate or a count, with three significant digits. */
export function number(value) {
  if (!known(value)) return DASH;
  const size = Math.abs(value);
  if (size >= 10_000) return `${(value / 1000).toFixed(size >= 100_000 ? 0 : 1)}k`;
  // At 9.995 and 99.95 rounding adds a digit.
  return value.toFixed(size >= 99.95 || value === 0 ? 0 : size >= 9.995 ? 1 : 2);
}

export const count = (value) => (known(value) ? String(Math.round(value)) : DASH);

/** A duration in ms, s or longer units; `value` is in seconds. */
export function seconds(value) {
  if (!known(value)) return DASH;
  if (value < 0.1) return `${(value * 1e3).toFixed(1)} ms`;
  if (value < 1) return `${(value * 1e3).toFixed(0)} ms`;
  return value < 100 ? `${value.toFixed(value < 10 ? 2 : 1)} s` : span(value);
}

/** A long duration in its two largest units; `value` is in seconds. */
export function span(value) {
  if (!known(value)) return DASH;
  const whole = Math.floor(value);
  for (const [unit, size, next, small] of [["d", 86_400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / small);
      return rest ? `${Math.floor(whole / size)} ${unit} ${rest} ${next}` : `${Math.floor(whole / size)} ${unit}`;
    }
  }
  return `${whole} s`;
}

export const percent = (share) => (known(share) ? `${Math.round(share * 100)} %` : DASH);

/** Headroom is 1 − demand ratio, but not below 0; null while no knee is known. */
export const headroom = (row) => (known(row.demand_ratio) ? Math.max(0, 1 - row.demand_ratio) : null);

/** The line below the headroom: the knee it refers to, or what is missing to know it. */
export function headroomOf(row) {
  const { knee, predicted, demand_ratio: demand } = row;
  if (knee) {
    const over = demand > 1 ? `demand is ${number(demand)} times the knee; ` : "";
    return `${over}knee at ${number(knee.value)} (${number(knee.low)} to ${number(knee.high)}) req/s, ${count(knee.in_flight)} in flight`;
  }
  const missing = row.missing?.length ? row.missing.slice(0, 2).join("; ") : "no estimate yet";
  return predicted ? `predicted ${number(predicted.value)} req/s; no knee yet: ${missing}` : missing;
}

/** What a screen reader announces when the state changes. */
export function announcement(name, row) {
  const subject = name ? `Backend ${name}` : "weir";
  return `${subject} is ${row.state}${row.reason ? `: ${row.reason}` : ""}`;
}

/** Requests shed since the start by reason, the most frequent first, and those that enforcement would have shed. */
export function sheds(totals, would) {
  const some = Object.entries(totals ?? {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  const text = some.length ? some.map(([reason, n]) => `${reason} ${count(n)}`).join(" · ") : "none";
  return would > 0 ? `${text} (enforcement would have shed ${count(would)})` : text;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
