#!/usr/bin/env bash
# The dashboards against Grafana's own types and against a real Prometheus; drawn by a small page of ours, for there is no Grafana here.
# WEIR names the binary; PROMETHEUS, PROMTOOL and CHROMIUM may name those of the machine. Pictures lie in E2E_DIR/dashboards.
set -euo pipefail
source "$(dirname "$0")/need.sh"
have_prometheus
python_venv page playwright playwright==1.65.2
have_chromium

# Types and compiler, pinned by the lock file. Without npm this is said and not checked.
types=()
if command -v npm >/dev/null 2>&1; then
  mkdir -p "$E2E_DIR/schema" && cp "$here"/schema/* "$E2E_DIR/schema/"
  (cd "$E2E_DIR/schema" && npm ci --no-audit --no-fund --loglevel=error >&2) || skip "npm could not fetch Grafana's types"
  types=(--types "$E2E_DIR/schema")
else
  echo "  not checked: there is no npm to fetch Grafana's types with"
fi
exec "$python" "$here/e2e_dashboards.py" --weir "$WEIR" --prometheus "$prometheus" --chromium "$chromium" --pictures "$E2E_DIR/dashboards" "${types[@]}" "$@"
