// All backends as one row: sums of what can be added, the worst of what cannot.

/** The key of that row; no backend can have this name, which is empty. */
export const ALL = "";

const SEVERITY = ["unknown", "healthy", "approaching", "recovering", "saturated"];

/** Every row by its name, the one of all backends first. */
export function rowsOf(frame) {
  return new Map([[ALL, together(frame.backends)], ...frame.backends.map((backend) => [backend.name, backend])]);
}

/** The one row; of one backend it is that backend's. */
export function together(backends) {
  if (backends.length === 1) return backends[0];
  const worst = backends.reduce((a, b) => (graver(b, a) ? b : a), backends[0] ?? NOBODY);
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

const NOBODY = { name: ALL, state: "unknown", since_s: null, reason: null };

const graver = (a, b) => SEVERITY.indexOf(a.state) > SEVERITY.indexOf(b.state);

/** Sums need every term: with one knee unknown, that of all is. */
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
