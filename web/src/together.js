// All backends as one row: sums where values add up, the worst value where they do not.

/** The key of that row. No backend has an empty name. */
export const ALL = "";

const SEVERITY = ["unknown", "healthy", "approaching", "recovering", "saturated"];

/** All rows by name; the row of all backends comes first. */
export function rowsOf(frame) {
  return new Map([[ALL, together(frame.backends)], ...frame.backends.map((backend) => [backend.name, backend])]);
}

/** The row of all backends; with one backend it is the row of that backend. */
export function together(backends) {
  if (backends.length === 1) return backends[0];
  const worst = backends.reduce((a, b) => (worse(b, a) ? b : a), backends[0] ?? NO_BACKEND);
  const sum = (of) => backends.reduce((total, backend) => total + (of(backend) ?? 0), 0);
  const max = (of) => backends.map(of).reduce((a, b) => (b != null && !(a >= b) ? b : a), null);
  return {
    name: ALL,
    up: backends.some((backend) => backend.up),
    state: worst.state,
    since_s: worst.since_s,
    reason: worst.reason && `${worst.name}: ${worst.reason}`,
    ratio: max((b) => b.ratio),
    demand_ratio: max((b) => b.demand_ratio),
    offered: sum((b) => b.offered),
    completed: sum((b) => b.completed),
    shed: sum((b) => b.shed),
    output_tokens: sum((b) => b.output_tokens),
    in_flight: sum((b) => b.in_flight),
    pending: sum((b) => b.pending),
    queue: sum((b) => b.queue),
    oldest_s: max((b) => b.oldest_s),
    ttft: [max((b) => b.ttft[0]), max((b) => b.ttft[1])],
    itl: [max((b) => b.itl[0]), max((b) => b.itl[1])],
    window: null,
    shed_total: added(backends.map((b) => b.shed_total)),
    would_shed: sum((b) => b.would_shed),
    knee: knees(backends),
    missing: backends.filter((b) => !b.knee).map((b) => `${b.name}: ${b.missing[0] ?? "no knee yet"}`),
    predicted: null,
    lower: null,
  };
}

const NO_BACKEND = { name: ALL, state: "unknown", since_s: null, reason: null };

const worse = (a, b) => SEVERITY.indexOf(a.state) > SEVERITY.indexOf(b.state);

/** The sum of the knees; unknown while one of them is unknown. */
function knees(backends) {
  if (!backends.length || backends.some((b) => !b.knee)) return null;
  const sum = (of) => backends.reduce((total, b) => total + of(b.knee), 0);
  return { value: sum((k) => k.value), low: sum((k) => k.low), high: sum((k) => k.high), in_flight: sum((k) => k.in_flight) };
}

function added(counts) {
  const total = {};
  for (const count of counts) for (const [key, n] of Object.entries(count ?? {})) total[key] = (total[key] ?? 0) + n;
  return total;
}
