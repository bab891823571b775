#!/usr/bin/env bash
# A real Prometheus scrapes weir during a run. WEIR names the binary; PROMETHEUS and PROMTOOL may name those of the machine.
# Where there are none, Debian's package is unpacked into E2E_DIR and run in place: no service is installed or started.
set -euo pipefail
source "$(dirname "$0")/need.sh"
have_prometheus
command -v python3 >/dev/null 2>&1 || apt_install python3 || skip "there is no python3, and it could not be installed"
exec python3 "$here/e2e_prometheus.py" --weir "$WEIR" --prometheus "$prometheus" --promtool "$promtool" "$@"
