#!/usr/bin/env bash
# Four weirs before four engines, added up by Prometheus. WEIR names the binary; PROMETHEUS may name that of the machine.
set -euo pipefail
source "$(dirname "$0")/need.sh"
have_prometheus
command -v python3 >/dev/null 2>&1 || apt_install python3 || skip "there is no python3, and it could not be installed"
exec python3 "$here/e2e_fleet.py" --weir "$WEIR" --prometheus "$prometheus" "$@"
