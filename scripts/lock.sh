#!/bin/sh
# Write requirements.lock anew: the newest versions that pyproject.toml allows, resolved in an empty environment.
set -eu

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

.venv/bin/python -m venv "$scratch/venv"
pip="$scratch/venv/bin/python -m pip"
$pip install --quiet 'pip>=25.3' </dev/null
# hatchling and editables build the editable install; they are locked with the rest.
$pip install --quiet '.[openai,dev]' hatchling editables </dev/null

{
    cat <<'HEAD'
# The exact versions that Midwatch is tested with: base, and the extras `openai` and `dev`. Written by `make lock`.
#
# Used as a constraint (`pip install -c requirements.lock`), so that one file serves every Python and platform: each
# takes the packages that it needs, at these versions. There are no hashes on purpose. Pip demands all or none; the
# set of wheels differs by platform and Python, and hashes of those seen on one machine would refuse the others.
# No index is named: packages come from wherever the user's pip is configured to look.
HEAD
    $pip freeze --all | grep -v -i -E '^(#|(midwatch|pip|setuptools)[ =])' | LC_ALL=C sort -f
} >"$scratch/lock"
if grep -n -E '://| @ ' "$scratch/lock"; then
    echo "lock: the lines above name a place instead of a version; nothing was written" >&2
    exit 1
fi
cp "$scratch/lock" requirements.lock
echo "lock: $(grep -c == requirements.lock) packages in requirements.lock" >&2
