#!/usr/bin/env bash
# weir's gate before a real llama.cpp server at three times its capacity: enforced, and the same traffic let through.
# Fetches what the part llamacpp fetches. WEIR names the binary.
set -euo pipefail
source "$(dirname "$0")/need.sh"
python_venv llamacpp xllamacpp,gguf xllamacpp==2026.10.11549 gguf==0.19.0
[ -f "$E2E_DIR/tiny.gguf" ] || { "$python" "$here/mkgguf.py" "$E2E_DIR/tiny.part" && mv "$E2E_DIR/tiny.part" "$E2E_DIR/tiny.gguf"; }
exec "$python" "$here/e2e_gate.py" --weir "$WEIR" --model "$E2E_DIR/tiny.gguf" "$@"
