"""The escape self-test's own rules: who is believed, and that the program inside needs nothing."""

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from midwatch.sandbox import escape
from midwatch.sandbox.attacks import common, files, kernel, network, processes, resources
from midwatch.sandbox.escape import Bait, Check, program, run_escape
from midwatch.sandbox.port import RunResult, Sandbox

pytestmark = pytest.mark.req("ESCAPE-1")

ALL = (
    *files.NAMES,
    *kernel.NAMES,
    *network.NAMES,
    *network.NEIGHBOUR,
    *processes.NAMES,
    *resources.NAMES,
    *resources.MEMORY,
)
PYTHON = ("/usr/bin/env", "-i", "python3", "-I", "-S", "-c")


def attack(name: str, bait: Bait, **how: Any) -> Check:
    """Run one attack in a bare interpreter, with no sandbox around it."""
    text = bait.text(f"common.report(told, {(name,)!r})")
    done = subprocess.run([*PYTHON, text], capture_output=True, timeout=60, check=False, **how)
    (found,) = escape._read(RunResult("ended", done.returncode, done.stdout, done.stderr), bait.token, [name])
    return found


async def _with_bait(work: Any) -> Any:
    async with Bait() as bait:
        return await asyncio.to_thread(work, bait)


def test_every_attack_is_listed_once_and_says_what_it_tries() -> None:
    """No attack is declared and forgotten; there are more than a hundred with those of the host's side."""
    assert sorted(common._REGISTRY) == sorted(ALL)
    assert len(set(ALL)) == len(ALL)
    assert 100 <= len(ALL)
    assert all(work.__doc__ for _, work, _ in common._REGISTRY.values())
    assert {"escape", "information", "resource"} == {kind for kind, _, _ in common._REGISTRY.values()}


def test_the_program_needs_nothing_and_fits_one_argument() -> None:
    """It brings its text along, and the kernel takes it as one word of a command line."""
    text = program({}, "print(sorted(common._REGISTRY))")
    assert 128 << 10 > len(text)
    done = subprocess.run([*PYTHON, text], capture_output=True, text=True, check=True, timeout=60, cwd="/")
    assert str(sorted(ALL)) == done.stdout.strip()


def test_a_terminal_and_a_descriptor_are_found() -> None:
    """What is seldom there is seen where it is: the caller's terminal, a descriptor that was passed on."""

    def body(bait: Bait) -> tuple[Check, Check, Check]:
        near, far = pty.openpty()
        try:
            quiet = attack("leaked_descriptors", bait)
            leaked = attack("leaked_descriptors", bait, pass_fds=(far,))
            text = bait.text("common.report(told, ('callers_terminal',))")
            program_file = bait.folder / "program.py"
            program_file.write_text(text)
            done = subprocess.run(
                ["setsid", "--ctty", "--wait", *PYTHON[:-1], str(program_file)],
                stdin=far, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            (terminal,) = escape._read(
                RunResult("ended", 0, done.stdout, done.stderr), bait.token, ["callers_terminal"]
            )
            program_file.unlink()
            return quiet, leaked, terminal
        finally:
            os.close(near)
            os.close(far)

    quiet, leaked, terminal = asyncio.run(_with_bait(body))
    assert (True, False, False) == (quiet.held, leaked.held, terminal.held)


def test_what_the_host_saw_counts_whatever_the_program_says() -> None:
    """A program that lies, or is stopped from telling, does not hide a connection, a stopped process or a changed file."""

    async def body() -> dict[str, Check]:
        async with Bait() as bait:
            reader, writer = await asyncio.open_connection("127.0.0.1", bait.facts["tcp"])
            bait.victim.kill()
            bait.victim.wait()
            bait.reference.write_text("other")
            (bait.folder / "new").touch()
            await reader.read()  # until the bait has closed, which it does after it has noted who came
            writer.close()
            said = [
                Check("loopback_tcp", held=True, detail=""),
                Check("signal_host", held=True, detail=""),
                Check("vsock", held=True, detail=""),
            ]
            return {check.name: check for check in bait.judged(said)}

    found = asyncio.run(body())
    assert {"loopback_tcp": False, "signal_host": False, "vsock": True, "host_files": False} == {
        name: check.held for name, check in found.items()
    }
    assert "changed: book, new" == found["host_files"].detail


class Silent:
    """A sandbox that runs nothing and says that all went well."""

    async def run(self, argv: Sequence[str], **_: Any) -> RunResult:
        """Say nothing."""
        return RunResult("ended", 0)

    async def kill(self) -> None:
        """Nothing runs."""

    async def close(self) -> None:
        """Nothing is held."""


def test_silence_is_no_success() -> None:
    """Where nothing was heard, nothing held; only the files of the host speak for themselves."""

    async def start(_profile: Any) -> Sandbox:
        return cast("Sandbox", Silent())

    found = asyncio.run(run_escape(start))
    assert {"host_files"} == {check.name for check in found if check.held}
    assert {*ALL, "daemon", "flood", "outlives_sandbox", "host_files"} == {check.name for check in found}


def test_lines_of_others_are_not_believed() -> None:
    """Only lines with the token of this run count, and only a clear yes is one."""
    line = json.dumps({"name": "vsock", "kind": "escape", "held": True, "detail": ""})
    forged = RunResult("ended", 0, f"other {line}\n{line}\n".encode())
    vague = RunResult("ended", 0, f"token {line.replace('true', '1')}\ntoken {{\n".encode())
    for ran in (forged, vague):
        assert [False] == [check.held for check in escape._read(ran, "token", ["vsock"])]
    assert [True] == [
        check.held for check in escape._read(RunResult("ended", 0, f"token {line}".encode()), "token", ["vsock"])
    ]


def test_bait_is_taken_away() -> None:
    """No folder, process, segment or variable stays, also when the test is ended in the middle."""

    async def body() -> Bait:
        async with Bait() as bait:
            assert os.environ["MIDWATCH_BAIT"] == bait.canary
            return bait

    bait = asyncio.run(body())
    assert not bait.folder.exists()
    assert bait.victim.poll() is not None
    assert "MIDWATCH_BAIT" not in os.environ
    assert not Path(bait.facts["shared_file"]).exists()
