#!/usr/bin/env bash
# A real Prometheus scrapes weir during a run. WEIR names the binary; PROMETHEUS and PROMTOOL may name those of the machine.
# Where there are none, Debian's package is unpacked into E2E_DIR and run in place: no service is installed or started.
set -euo pipefail
source "$(dirname "$0")/need.sh"

unpacked_prometheus() {
  local folder=$E2E_DIR/prometheus
  if [ ! -x "$folder/usr/bin/promtool" ]; then
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || skip "there is no prometheus, and no apt to fetch it with"
    rm -rf "$folder" && mkdir -p "$folder"
    as_root apt-get update -qq >&2 || true # an older list may do
    (cd "$folder" && apt-get download -qq prometheus) >&2 || skip "apt could not fetch the package prometheus"
    dpkg-deb -x "$folder"/prometheus_*.deb "$folder"
  fi
  prometheus=$folder/usr/bin/prometheus promtool=$folder/usr/bin/promtool
}

prometheus=${PROMETHEUS:-$(command -v prometheus || true)} promtool=${PROMTOOL:-$(command -v promtool || true)}
[ -x "$prometheus" ] && [ -x "$promtool" ] || unpacked_prometheus
command -v python3 >/dev/null 2>&1 || apt_install python3 || skip "there is no python3, and it could not be installed"
exec python3 "$here/e2e_prometheus.py" --weir "$WEIR" --prometheus "$prometheus" --promtool "$promtool" "$@"
