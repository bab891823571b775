#!/usr/bin/env bash
# What weir says of a real llama.cpp server: saturation, knee, capacity, step costs.
# Fetches a prebuilt server and the model writer with pip (250 MB), once. WEIR names the binary.
set -euo pipefail
source "$(dirname "$0")/need.sh"
python_venv llamacpp xllamacpp,gguf xllamacpp==2026.10.11549 gguf==0.19.0
[ -f "$E2E_DIR/tiny.gguf" ] || { "$python" "$here/mkgguf.py" "$E2E_DIR/tiny.part" && mv "$E2E_DIR/tiny.part" "$E2E_DIR/tiny.gguf"; }
exec "$python" "$here/e2e_knee.py" --weir "$WEIR" --model "$E2E_DIR/tiny.gguf" "$@"
