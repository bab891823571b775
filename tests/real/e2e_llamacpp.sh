#!/usr/bin/env bash
# weir in front of a real llama.cpp server: exact counts, and times against the server's own.
# Fetches a prebuilt server and the model writer with pip into target/e2e (250 MB), once. WEIR names the binary.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${E2E_DIR:-$here/../../target/e2e}
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ] || ! "$work/venv/bin/python" -c 'import xllamacpp, gguf' 2>/dev/null; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --only-binary :all: xllamacpp gguf
fi
[ -f "$work/tiny.gguf" ] || "$work/venv/bin/python" "$here/mkgguf.py" "$work/tiny.gguf"
exec "$work/venv/bin/python" "$here/e2e_llamacpp.py" \
  --weir "${WEIR:-$here/../../target/release/weir}" --model "$work/tiny.gguf" "$@"
