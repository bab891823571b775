#!/usr/bin/env bash
# AIPerf, vLLM's bench and GuideLLM through weir, in front of `weir engine`; see clients.py for the flags.
# Fetches them with pip: 1.2 GB for AIPerf, 6.5 GB for the other two, most of it torch. WEIR names the binary.
set -euo pipefail
source "$(dirname "$0")/need.sh"

clients=()
for word in "$@"; do case $word in aiperf | vllm | guidellm) clients+=("$word") ;; esac; done
[ ${#clients[@]} -gt 0 ] || clients=(aiperf vllm guidellm)

for client in "${clients[@]}"; do
  case $client in
    aiperf) python_venv aiperf aiperf aiperf==0.13.0 ;;
    *)
      python_venv vllm guidellm,torch guidellm==0.8.1 psutil aiohttp cachetools blake3 py-cpuinfo msgspec pybase64 cbor2 cloudpickle gguf einops \
        partial-json-parser depyf openai tiktoken fastapi prometheus-fastapi-instrumentator mistral_common lark pandas \
        opencv-python-headless pyzmq openai-harmony xgrammar llguidance ijson
      ;;
  esac
  if [ "$client" = vllm ] && [ ! -d "$E2E_DIR/vllm-unpacked" ]; then
    "$E2E_DIR/vllm/bin/pip" download --quiet --no-deps --only-binary :all: --dest "$E2E_DIR/wheel" vllm==0.33.0 || skip "pip could not fetch vllm"
    # Its Python files and its name; the compiled parts are not needed to send load.
    (cd "$E2E_DIR" && "$python" -c '
import glob, zipfile
wheel = zipfile.ZipFile(glob.glob("wheel/vllm-*.whl")[0])
wheel.extractall("vllm-unpacked.part", [name for name in wheel.namelist() if name.endswith(".py") or "dist-info" in name])')
    mv "$E2E_DIR/vllm-unpacked.part" "$E2E_DIR/vllm-unpacked" && rm -rf "$E2E_DIR/wheel"
  fi
  [ -d "$E2E_DIR/tokenizer" ] || "$python" "$here/tokenizer.py" "$E2E_DIR/tokenizer"
done
exec "$python" "$here/clients.py" --weir "$WEIR" --venvs "$E2E_DIR" --tokenizer "$E2E_DIR/tokenizer" "$@"
