#!/usr/bin/env bash
# What a scrape costs and whether clients feel it. WEIR names the binary.
set -euo pipefail
source "$(dirname "$0")/need.sh"
command -v python3 >/dev/null 2>&1 || apt_install python3 || skip "there is no python3, and it could not be installed"
exec python3 "$here/e2e_scrape.py" --weir "$WEIR" "$@"
