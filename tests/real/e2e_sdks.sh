#!/usr/bin/env bash
# The OpenAI, Anthropic and Ollama client libraries through weir. Fetches them with pip (60 MB), once. WEIR names the binary.
set -euo pipefail
source "$(dirname "$0")/need.sh"
python_venv sdks openai,anthropic,ollama openai==3.54.0 anthropic==2.12.0 ollama==0.6.3
exec "$python" "$here/e2e_sdks.py" --weir "$WEIR" "$@"
