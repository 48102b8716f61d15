#!/usr/bin/env bash
# Runs `python -m bench.agentdojo` in an environment of its own, because AgentDojo brings many large packages with it.
# Arguments go to the benchmark: `scripts/agentdojo.sh --quick --suite slack`. About 10 minutes for everything on one core.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
where="${MIDWATCH_AGENTDOJO:-$PWD/.venv-agentdojo}"
if [ ! -x "$where/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$where"
    # Of Midwatch only the rooms that judge are used; they need these.
    "$where/bin/pip" install --quiet "agentdojo==0.1.35" idna jsonschema-rs json-repair markdown-it-py orjson PyYAML rfc8785
fi
PYTHONPATH="$PWD:$PWD/src" exec "$where/bin/python" -m bench.agentdojo "$@"
