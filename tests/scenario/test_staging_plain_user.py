"""The core of staging and releasing, run by a plain user: by this one, or, where this is root, by one without any right."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UID = 61_234


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    """A folder that the user owns, and may reach."""
    place = Path(tempfile.mkdtemp(prefix="plain-user."))
    place.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(place, UID, UID)
    yield place
    shutil.rmtree(place, ignore_errors=True)  # its governors may just be ending


def _argv(place: Path) -> list[str]:
    """Give the command; for root, in a mount namespace in which the user can reach this Python, whoever's home it lies in."""
    program = [sys.executable, "-m", "tests.scenario.plain_user", str(place)]
    if os.geteuid() != 0:
        return program
    base = Path(os.path.realpath(sys.base_prefix))
    shut = next((path for path in [*reversed(base.parents), base] if not path.stat().st_mode & 0o001), None)
    lines = ["set -e"]
    if shut is not None:
        held = place / "held"
        lines += [f"mkdir {held}", f"mount --bind {base} {held}", f"mount -t tmpfs -o mode=755 none {shut}"]
        lines += [f"mkdir -p {base}", f"mount --bind {held} {base}", f"umount {held}"]
    lines.append(f"exec setpriv --reuid {UID} --regid {UID} --clear-groups --no-new-privs {shlex.join(program)}")
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]


@pytest.mark.req("STAGE-8")
def test_a_plain_user_has_all_of_it(place: Path) -> None:
    """Staged, committed, undone, sent at the commit, nothing left after a kill; a bound that only control groups hold is refused."""
    environ = {
        "HOME": str(place),
        "TMPDIR": str(place),
        "PATH": os.environ["PATH"],
        "USER": "ann",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(_argv(place), cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    assert told["uid"] != 0
    assert [{"path": "a.txt"}, "crashed", {"text": ""}, {"text": "new\n"}] == told["results"]
    assert ({}, ["created a.txt"], ["committed", {"a.txt": "new\n"}]) == (
        told["before"],
        told["staged"],
        told["committed"],
    )
    assert (["already", "undone"], ["committed", {}], 0) == (told["undone"], told["after"], told["living"])
    assert (["202", "200"], ["/two"], ["/two", "/one"]) == (told["statuses"], told["asked"], told["sent"])
    assert told["refused"] == _is_refused()
    went_on = ["done", [{"path": "a.txt"}, {"path": "b.txt"}, {"text": "new\n"}]]
    assert ([], went_on, 0, []) == (told["left"], told["went_on"], told["register"], told["runtime"])


def _is_refused() -> bool:
    """Root's plain user has no control groups; this machine's own may."""
    if os.geteuid() == 0:
        return True
    from midwatch.config.specs import SandboxLimits  # noqa: PLC0415 - only a plain user asks
    from midwatch.sandbox import cgroups  # noqa: PLC0415 - as above

    return bool(cgroups.detect().missing(SandboxLimits(memory=1 << 27)))
