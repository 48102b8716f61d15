#!/bin/sh
# Measure what `pip install midwatch` adds to an empty environment; more than LIMIT_MB is a failure.
set -eu

cd "$(dirname "$0")/.."
LIMIT_MB=${LIMIT_MB:-200}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

.venv/bin/python -m venv "$scratch/venv"
python="$scratch/venv/bin/python"
"$python" -m pip install --quiet 'pip>=25.3' </dev/null
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
empty=$(du -sk "$site" | cut -f 1)
"$python" -m pip install --quiet --constraint requirements.lock --build-constraint requirements.lock . </dev/null
full=$(du -sk "$site" | cut -f 1)

added=$(((full - empty + 1023) / 1024))
echo "base install: $added MB over an empty environment (limit $LIMIT_MB MB); the ten largest, in KB:"
du -sk "$site"/* | sort -rn | sed "s|$site/||" | head -n 10
[ "$added" -le "$LIMIT_MB" ] || { echo "size: $added MB is over the limit of $LIMIT_MB MB" >&2; exit 1; }
