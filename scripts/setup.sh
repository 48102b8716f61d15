#!/bin/sh
# Make .venv ready: the newest usable Python, a pip that can resolve the set, the locked versions, this checkout.
#
# Runs before `make run`, `make test` and `make check`, and does nothing when nothing has changed: the stamp holds a
# digest of what it installed from, so a moved checkout, another interpreter or a new lock file is noticed.
# PYTHON=/path/to/python chooses the interpreter. VENV=dir chooses where to build.
set -eu

cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
EXTRAS=openai,dev
CANDIDATES="python3.14 python3.13 python3.12 python3.11 python3 python"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

digest() {
    { cat pyproject.toml requirements.lock scripts/setup.sh; pwd; "$VENV/bin/python" -VV; } | sha256sum | cut -d ' ' -f 1
}

# A version manager's shim is found on PATH even when it cannot run, so each candidate is asked.
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1; }
can_make_venv() { "$1" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; }

find_python() {
    for name in ${PYTHON:-$CANDIDATES}; do
        # All of PATH, not only the first hit: a system Python without ensurepip may hide behind a complete one.
        for path in $(command -v "$name") /usr/local/bin/"$name" /usr/bin/"$name"; do
            if is_new_enough "$path" && can_make_venv "$path"; then echo "$path"; return 0; fi
        done
    done
    return 1
}

debian_install() {
    command -v apt-get >/dev/null 2>&1 || die "needed and missing: $*; install them with this system's package manager"
    [ "$(id -u)" = 0 ] || die "needed and missing: $*; run \`sudo apt-get install $*\`, then make again"
    say "installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null >/dev/null || say "apt-get update failed; trying with the lists at hand"
    said=$(apt-get install -y -qq --no-install-recommends "$@" </dev/null 2>&1) || die "apt-get could not install $*: $said"
}

venv_works() { is_new_enough "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }

system_packages() {
    missing=
    command -v git >/dev/null 2>&1 || missing="git"
    command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
    if ! venv_works && ! find_python >/dev/null; then
        [ -z "${PYTHON:-}" ] || die "\`PYTHON=$PYTHON\` is not a Python >= 3.11 with ensurepip; name another, or leave it out"
        missing="$missing python3 python3-venv"
    fi
    # shellcheck disable=SC2086  # a list of words
    [ -z "$missing" ] || debian_install $missing
}

make_venv() {
    if venv_works; then return 0; fi
    [ ! -e "$VENV" ] || say "$VENV cannot be used (no Python >= 3.11 with pip in it); making it anew"
    python=$(find_python) || die "no Python >= 3.11 with ensurepip found; install one, or name it: \`make PYTHON=/path/to/python\`"
    say "making $VENV with $("$python" -V)"
    "$python" -m venv --clear "$VENV"
}

install() {
    # Pip 23.2 and older cannot resolve this set; build constraints came with 25.3.
    "$VENV/bin/python" -m pip install --quiet 'pip>=25.3' </dev/null
    say "installing the locked versions (the first time takes a minute or two)"
    "$VENV/bin/python" -m pip install --quiet --constraint requirements.lock --build-constraint requirements.lock \
        --editable ".[$EXTRAS]" </dev/null
    "$VENV/bin/python" -m pip check >&2 || die "the installed packages disagree; remove $VENV and make again"
}

if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.midwatch-installed" 2>/dev/null)" = "$(digest 2>/dev/null)" ]; then
    exit 0
fi
system_packages
make_venv
install
digest >"$VENV/.midwatch-installed"
