#!/bin/sh
# Make .venv/suites ready: deepagents, Inspect and the sandbox suites that they bring, at the versions of
# tests/contract/suites/requirements.lock, and this checkout with both adapters.
#
# An environment of its own: these packages weigh twice as much as all others and want other versions of LangChain.
# The tests below tests/contract/suites/ run it by themselves; it does nothing when nothing has changed.
# `scripts/suites.sh lock` resolves the newest allowed versions into the lock.
set -eu

cd "$(dirname "$0")/.."
BASE=.venv
HOME_OF_LOCK=tests/contract/suites
LOCK=$HOME_OF_LOCK/requirements.lock
# The last deepagents that agrees with its suite in everything; `suites.py` says what the newest one does otherwise.
PAIR=deepagents==0.6.12

pip_in() { target=$1; shift; "$BASE/bin/python" -m pip --quiet --python "$target/bin/python" "$@" </dev/null; }
digest() { { cat pyproject.toml "$LOCK" scripts/suites.sh; pwd; "$BASE/bin/python" -VV; } | sha256sum | cut -d ' ' -f 1; }

lock() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT INT TERM
    "$BASE/bin/python" -m venv --without-pip "$scratch/venv"
    pip_in "$scratch/venv" install --editable '.[deepagents,inspect]' langchain-tests pytest pytest-asyncio hatchling editables
    {
        echo "# The exact versions of \`.venv/suites\`: the extras \`deepagents\` and \`inspect\`, and the suites. Written by"
        echo "# \`scripts/suites.sh lock\`; why there are no hashes: see \`requirements.lock\`."
        pip_in "$scratch/venv" freeze --all | grep -v -i -E '^(#|-e|(midwatch|pip|setuptools)[ =])' | LC_ALL=C sort -f
    } >"$scratch/lock"
    if grep -n -E '://| @ ' "$scratch/lock"; then
        echo "suites: the lines above name a place instead of a version; nothing was written" >&2
        exit 1
    fi
    cp "$scratch/lock" "$LOCK"
    echo "suites: $(grep -c == "$LOCK") packages in $LOCK" >&2
}

install() {
    echo "suites: installing into $BASE/suites" >&2
    rm -rf "$BASE/suites"
    "$BASE/bin/python" -m venv --without-pip "$BASE/suites"
    # The lock is a whole set, so nothing is resolved; what is never imported needs no bytecode.
    pip_in "$BASE/suites" install --no-deps --no-compile --requirement "$LOCK"
    pip_in "$BASE/suites" install --no-deps --no-build-isolation --editable .
    pip_in "$BASE/suites" install --no-deps --no-compile --target "$BASE/suites/pair" "$PAIR"
    pip_in "$BASE/suites" check >&2
    digest >"$BASE/suites/.installed"
}

if [ "${1:-}" = lock ]; then
    lock
elif [ "$(cat "$BASE/suites/.installed" 2>/dev/null)" != "$(digest)" ]; then
    install
fi
