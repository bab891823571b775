#!/usr/bin/env bash
# The live page in a real Chromium, driven by Playwright. WEIR names the binary, CHROMIUM may name a browser of the machine.
# Playwright comes with pip (50 MB); the browser from the machine, from Playwright's own store, or from Debian's package.
set -euo pipefail
source "$(dirname "$0")/need.sh"
python_venv page playwright playwright==1.65.2

# What is committed must be what the sources make; where there is no npm this is said and not checked.
the_build() {
  command -v npm >/dev/null 2>&1 || { echo "  not checked: there is no npm to build web/ with"; return 0; }
  local copy=$E2E_DIR/page-build
  mkdir -p "$copy/src/export/page"
  rm -rf "$copy/src/export/page/built" && cp -r "$here/../../src/export/page/built" "$copy/src/export/page/"
  mkdir -p "$copy/web" && rm -rf "$copy"/web/src "$copy"/web/*.mjs && cp -r "$here/../../web/." "$copy/web/"
  (cd "$copy/web" && npm ci --no-audit --no-fund --loglevel=error >&2) || skip "npm could not fetch what web/ is built with"
  (cd "$copy/web" && npm run --silent check)
  (cd "$copy/web" && npm test --silent) >"$copy/tests.log" 2>&1 || { cat "$copy/tests.log"; return 1; }
  echo "  ok      what is committed is what web/ makes, and web/'s own tests pass"
}

have_chromium
the_build
exec "$python" "$here/e2e_page.py" --weir "$WEIR" --chromium "$chromium" --pictures "$E2E_DIR/page" "$@"
