#!/usr/bin/env bash
# Prometheus and Alertmanager watch weir through an overload: panels, alerts. WEIR names the binary; PROMETHEUS, PROMTOOL and
# ALERTMANAGER may name those of the machine.
set -euo pipefail
source "$(dirname "$0")/need.sh"
have_prometheus
alertmanager=${ALERTMANAGER:-$(command -v prometheus-alertmanager || command -v alertmanager || true)}
[ -x "$alertmanager" ] || { debian prometheus-alertmanager; alertmanager=$folder/usr/bin/prometheus-alertmanager; }
# Debian's build looks for its templates at one place only.
templates=usr/share/prometheus/alertmanager
[ -d "/$templates" ] || [ -z "${folder:-}" ] || { as_root mkdir -p "/$(dirname $templates)" && as_root cp -r "$folder/$templates" "/$templates"; } \
  || skip "Debian's Alertmanager needs /$templates, and it could not be put there"
command -v python3 >/dev/null 2>&1 || apt_install python3 || skip "there is no python3, and it could not be installed"
exec python3 "$here/e2e_alerts.py" --weir "$WEIR" --prometheus "$prometheus" --promtool "$promtool" --alertmanager "$alertmanager" "$@"
