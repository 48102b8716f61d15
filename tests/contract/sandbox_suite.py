"""Suite: what the sandbox port promises, as tests that any backend runs. This file needs `pytest` and `midwatch`, nothing else.

In:   a backend. Out: what pytest says; a backend that passes may take the place of any other.

A backend of your own, in a file of yours beside a copy of this one:

    from sandbox_suite import SandboxSuite

    class TestMine(SandboxSuite):
        factory = "my_package.sandbox:MyBackend"  # called without arguments, here and in a child process

        @pytest.fixture  # only where it needs arguments
        def backend(self):
            return MyBackend(image="mine")

What can be said otherwise, and why:
    counts = False      this machine's kernel counts nothing for it: every field of `Stats` may be None.
    observes = False    it does not tell what was read and executed.
    bounds = (…)        the limits it holds, of `memory`, `processes`, `disk`, `open_files`, `file_size`; a backend that names fewer
                        must refuse a profile that asks for the others.
    seconds             patience for one step; nothing in here waits longer.
`ToolsSuite` is the part for what performs single calls and isolates nothing. Nothing is skipped: a machine that cannot hold the
profile fails. The tests make all files below `tmp_path` and send nothing over a network but one attempt to loopback.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from midwatch.errors import SandboxError
from midwatch.sandbox import Backend, Layer, RunResult, Sandbox, SandboxLimits, SandboxResult

from .sandbox_ground import ATTEMPTS, MIB, Place, left, living, mark, mounted, sha, supervisor

__all__ = ["SandboxSuite", "ToolsSuite"]

SECRET = "SUITE_SECRET"


class ToolsSuite:
    """Single calls."""

    factory: ClassVar[str] = ""
    seconds: ClassVar[float] = 20.0

    @pytest.fixture
    def backend(self) -> Backend:
        """Give the backend under test; override it where it needs arguments."""
        module, _, name = self.factory.partition(":")
        made: Backend = getattr(importlib.import_module(module), name)()
        return made

    @pytest.fixture
    def place(self, backend: Backend, tmp_path: Path) -> Place:
        """Give what every test works with."""
        return Place(backend, tmp_path, self.seconds)

    def test_it_says_what_it_is(self, place: Place) -> None:
        """Backend and sandbox name the same level, and say in the same way whether they isolate."""

        async def body(box: Sandbox) -> tuple[str, bool]:
            return box.level, box.isolates

        assert place.inside(body) == (place.backend.level, place.backend.isolates)

    def test_an_answer_comes_back(self, place: Place) -> None:
        """What the thing gave, as JSON; arguments and facts reach it as they were."""
        argument = {"text": "π\u2028\\", "numbers": [1, 2.5, None, True]}

        async def body(box: Sandbox) -> SandboxResult:
            return await place.call(box, "echoes", argument)

        done = place.inside(body)
        assert (done.status, done.exit_code, done.began) == ("answered", 0, True)
        assert done.answer == [json.dumps(argument), "me"]

    @pytest.mark.parametrize(
        ("thing", "statuses"),
        [
            ("fails", {"crashed"}),
            ("ends", {"crashed"}),
            ("dies", {"crashed"}),
            ("odd", {"crashed"}),
            ("nan", {"crashed", "garbage"}),
            ("shouts", {"crashed", "garbage"}),
            ("big", {"too_big"}),
            ("is_not_there", {"crashed"}),
        ],
    )
    def test_nothing_that_a_tool_does_raises(self, thing: str, statuses: set[str], place: Place) -> None:
        """A bad end is a value without an answer, and the next call is served as if nothing had been."""

        async def body(box: Sandbox) -> tuple[SandboxResult, SandboxResult]:
            return await place.call(box, thing), await place.call(box, "echoes")

        bad, good = place.inside(body)
        assert bad.status in statuses
        assert bad.answer is None
        assert good.status == "answered", good

    def test_what_a_tool_prints_is_bounded_and_no_answer(self, place: Place) -> None:
        """A megabyte on both streams leaves the answer whole and only an end in the trace."""

        async def body(box: Sandbox) -> SandboxResult:
            return await place.call(box, "chatters")

        done = place.inside(body)
        assert (done.status, done.answer) == ("answered", 5)
        assert 0 < len(done.output) < 100_000

    def test_a_deadline_leaves_nobody(self, place: Place) -> None:
        """The worker and its children are dead, at the deadline; the sandbox takes the next call."""
        word = mark()

        async def body(box: Sandbox) -> None:
            late = await place.call(box, "hangs", word, timeout_us=700_000)
            assert (late.status, late.answer, late.began) == ("timeout", None, True)
            await place.until(lambda: not living(word))
            assert (await place.call(box, "echoes")).status == "answered"

        place.inside(body)

    def test_a_call_that_is_given_up_is_killed(self, place: Place) -> None:
        """Cancellation passes through, after every process of the call is dead."""
        word = mark()

        async def body(box: Sandbox) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(place.call, box, "hangs", word)
                await place.until(lambda: len(living(word)) == 2)
                group.cancel_scope.cancel()
            await place.until(lambda: not living(word))

        place.inside(body)


class SandboxSuite(ToolsSuite):
    """The whole port."""

    counts: ClassVar[bool] = True
    observes: ClassVar[bool] = True
    bounds: ClassVar[Iterable[str]] = ("memory", "processes", "disk", "open_files", "file_size")

    # ------------------------------------------------------------------------------------ programs
    def test_a_program_has_its_streams_and_its_end(self, place: Place) -> None:
        """Input and both outputs are bytes, apart; the exit code is the program's, a signal is negative, nothing is a shell's."""

        async def body(box: Sandbox) -> None:
            told = await place.run(box, "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"\0\xff\n")
            assert (told.status, told.exit_code) == ("ended", 7)
            assert (told.stdout, told.stderr, told.stdout_bytes, told.stderr_bytes) == (b"\0\xff\n", b"err\n", 3, 4)
            assert (await place.run(box, "cat")).stdout == b""
            assert (await place.run(box, "sh", "-c", "kill -9 $$")).exit_code == -signal.SIGKILL
            assert (await place.run(box, "echo", "$HOME;", "*")).stdout == b"$HOME; *\n"
            lost = await place.run(box, "no-such-program")
            assert (lost.status, lost.exit_code is None or lost.exit_code > 0) == ("crashed", True)
            assert os.strerror(2) in lost.detail
            assert (await place.run(box, "/etc/passwd")).detail.endswith(os.strerror(13))

        place.inside(body)

    def test_the_end_of_an_output_is_kept_and_all_of_it_counted(self, place: Place) -> None:
        """A flood neither fills memory nor blocks the program; large input passes."""

        async def body(box: Sandbox) -> None:
            told = await place.run(box, "sh", "-c", "head -c 5000000 /dev/zero; printf end", max_bytes=100)
            assert (told.stdout, told.stdout_bytes) == (b"\0" * 97 + b"end", 5_000_003)
            told = await place.run(box, "wc", "-c", stdin=b"x" * 5_000_000)
            assert told.stdout.strip() == b"5000000"
            assert (await place.run(box, "true", stdin=b"x" * 5_000_000)).exit_code == 0  # it never reads

        place.inside(body)

    def test_a_program_at_its_deadline(self, place: Place) -> None:
        """It is killed with its children, what it said before is kept, and the profile's wall time is a deadline too."""
        word = mark()

        async def body(box: Sandbox) -> None:
            late = await place.run(box, "sh", "-c", f"echo begun; sleep {word} & sleep {word}", timeout_us=700_000)
            assert (late.status, late.exit_code is None or late.exit_code < 0) == ("timeout", True)
            assert late.stdout == b"begun\n"
            await place.until(lambda: not living(word))
            late = await place.run(box, "sleep", word, limits=SandboxLimits(wall_us=300_000))
            assert late.status == "timeout"

        place.inside(body)

    def test_the_environment_is_an_allow_list(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing of the supervisor's passes; the profile's and the call's own do, the call's for one call only."""
        monkeypatch.setenv(SECRET, "must not be seen")

        async def body(box: Sandbox) -> None:
            first = (await place.run(box, "env", env={"OWN": "call"})).stdout.decode().splitlines()
            assert {"COLOUR=blue", "OWN=call"} <= set(first)
            assert not [line for line in first if line.startswith(SECRET)]
            assert b"OWN=" not in (await place.run(box, "env")).stdout
            everybody = await place.run(box, "sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null; true", max_bytes=MIB)
            assert SECRET.encode() not in everybody.stdout

        place.inside(body, env={"COLOUR": "blue"})

    # ------------------------------------------------------------------------------------- effects
    def test_effects_are_exact(self, place: Place) -> None:
        """Created, modified, deleted, mode, renamed, linked: each once, with content and base; what did not change is not named."""
        work = place.profile.workspace
        for name in ("keep", "edit", "gone", "mode", "move", "touched", "dir/inner"):
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_text(name)
            (work / name).chmod(0o644)

        async def body(box: Sandbox) -> Layer:
            await place.script(
                box,
                "umask 022; cat keep dir/inner >/dev/null; echo new >new; printf more >>edit; rm gone; chmod 755 mode; "
                "mv move moved; ln -s keep link; mkdir made; touch -d 2001-01-01 touched; rm -r dir",
            )
            return await place.layer(box)

        layer = place.inside(body)
        assert [(change.op, change.path, change.kind) for change in layer.changes] == [
            ("deleted", "dir", "folder"),
            ("deleted", "dir/inner", "file"),
            ("modified", "edit", "file"),
            ("deleted", "gone", "file"),
            ("created", "link", "link"),
            ("created", "made", "folder"),
            ("permission", "mode", "file"),
            ("deleted", "move", "file"),
            ("created", "moved", "file"),
            ("created", "new", "file"),
        ]
        seen = {change.path: change for change in layer.changes}
        assert (seen["new"].sha256, seen["new"].base, seen["new"].size, seen["new"].mode) == (
            sha("new\n"),
            None,
            4,
            0o644,
        )
        assert (seen["edit"].sha256, seen["edit"].base, seen["edit"].before) == (
            sha("editmore"),
            sha("edit"),
            sha("edit"),
        )
        assert (seen["gone"].sha256, seen["gone"].base, seen["gone"].mode) == (None, sha("gone"), None)
        assert (seen["mode"].mode, seen["mode"].base) == (0o755, sha("mode"))
        assert (seen["moved"].sha256, seen["link"].target) == (sha("move"), "keep")
        assert layer.digest
        assert (work / "edit").read_text() == "edit", "the workspace itself is never written"
        assert sorted(path.name for path in work.iterdir()) == [
            "dir",
            "edit",
            "gone",
            "keep",
            "mode",
            "move",
            "touched",
        ]

    def test_effects_are_told_once(self, place: Place) -> None:
        """Each `effects` gives what came since the last: `before` is what the call found, `base` what the workspace held."""
        (place.profile.workspace / "a").write_text("0")

        async def body(box: Sandbox) -> None:
            assert await place.layer(box) == Layer()
            await place.script(box, "printf 1 >a; printf x >b")
            first = await place.layer(box)
            assert [change.path for change in first.changes] == ["a", "b"]
            assert await place.layer(box) == Layer()
            assert await place.script(box, "cat a b; printf 2 >a; rm b") == "1x"
            second = {change.path: change for change in (await place.layer(box)).changes}
            assert (second["a"].before, second["a"].base, second["a"].sha256) == (sha("1"), sha("0"), sha("2"))
            assert (second["b"].op, second["b"].before, second["b"].base) == ("deleted", sha("x"), None)

        place.inside(body)

    def test_layers_bring_a_workspace_back(self, place: Place) -> None:
        """A sandbox started with the layers has every file as it was, deletions and modes too; one without has none of it."""
        for name in ("old", "gone"):
            (place.profile.workspace / name).write_text(name)
        look = "cat old new sub/deep; test ! -e gone; test -x new; readlink link"

        async def body() -> None:
            async with place.open() as box:
                await place.script(
                    box, "printf 1 >new; chmod 755 new; rm gone; ln -s new link; mkdir sub; printf 2 >sub/deep"
                )
                layers = [await place.layer(box)]
                await place.script(box, "printf 3 >>new; printf 4 >sub/deep")
                layers.append(await place.layer(box))
            async with place.open(*layers) as box:
                assert await place.script(box, look) == "old134new\n"
                assert await place.layer(box) == Layer(), "what the layers brought is not done anew"
                await place.script(box, "rm new")
                change = (await place.layer(box)).changes[0]
                assert (change.op, change.path, change.before, change.base) == ("deleted", "new", sha("13"), None)
            async with place.open() as box:
                assert sorted((await place.script(box, "ls -A")).split()) == ["gone", "old"]

        place.go(body)

    def test_what_was_read_and_executed_is_told(self, place: Place) -> None:
        """Where the machine can do that: files of the workspace, as they were before; what was changed is not told as read too."""
        for name in ("read", "tool", "unread"):
            (place.profile.workspace / name).write_text("#!/bin/sh\n")
            (place.profile.workspace / name).chmod(0o755)

        async def body(box: Sandbox) -> set[tuple[str, str, str | None]]:
            await place.script(box, "cat read >made; ./tool")
            return {(change.op, change.path, change.sha256) for change in (await place.layer(box)).changes}

        was = sha("#!/bin/sh\n")
        seen = {("read", "read", was), ("executed", "tool", was), ("created", "made", was)}
        told = seen if self.observes else {("created", "made", was)}
        assert place.inside(body, observe=True) - {("read", "tool", was)} == told

    def test_effects_after_a_kill(self, place: Place) -> None:
        """What was done before a kill can still be told."""

        async def body(box: Sandbox) -> list[str]:
            await place.script(box, "echo x >x")
            await box.kill()
            return [change.path for change in (await place.layer(box)).changes]

        assert place.inside(body) == ["x"]

    # ------------------------------------------------------------------------------ pause and kill
    def test_pause_stops_and_resume_goes_on(self, place: Place) -> None:
        """While paused nothing gets on, for longer than it would have taken; then it ends as if nothing had been."""
        word = mark("0.4")

        async def body(box: Sandbox) -> None:
            done: list[RunResult] = []
            ended = anyio.Event()

            async def work() -> None:
                done.append(await place.run(box, "sh", "-c", f"sleep {word}; echo woke"))
                ended.set()

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await place.until(lambda: bool(living(word)))
                await box.pause()
                assert (await box.stats()).frozen
                with anyio.move_on_after(1.0):
                    await ended.wait()
                assert not done
                await box.resume()
                with anyio.fail_after(place.seconds):
                    await ended.wait()
            assert (done[0].status, done[0].stdout) == ("ended", b"woke\n")

        place.inside(body)

    @pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
    def test_kill_ends_all_of_it(self, frozen: bool, place: Place) -> None:
        """Daemons too, that left every group and hear no signal; a call under way ends as crashed, and none begins any more."""
        word = mark()

        async def body(box: Sandbox) -> None:
            done: list[RunResult] = []

            async def work() -> None:
                many = f"for i in $(seq 20); do (trap '' TERM HUP; setsid sleep {word} &) ; done; sleep {word}"
                done.append(await place.run(box, "sh", "-c", many, timeout_us=600_000_000))

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await place.until(lambda: len(living(word)) >= 20)
                if frozen:
                    await box.pause()
                await box.kill()
            assert done[0].status == "crashed"
            await place.until(lambda: not living(word))
            if self.counts:
                assert ((await box.stats()).memory_peak or 0) > 0, "the counters can still be read"
            assert (await place.run(box, "true")).status == "crashed"

        place.inside(body)

    def test_a_call_leaves_nobody_behind(self, place: Place) -> None:
        """A daemon that a call started is gone before the next call, which must not act in its name."""
        word = mark()

        async def body(box: Sandbox) -> None:
            assert (await place.call(box, "leaves", word)).answer == 1
            assert (
                await place.run(box, "sh", "-c", f"cat /proc/*/cmdline | grep -c {word[:-1]}[{word[-1]}]")
            ).stdout == b"0\n"
            await place.until(lambda: not living(word))

        place.inside(body)

    def test_calls_are_taken_one_after_the_other(self, place: Place) -> None:
        """Asked at once, none sees another at work."""
        step = "test ! -e busy; touch busy; sleep 0.05; rm busy; echo x >>steps"

        async def body(box: Sandbox) -> str:
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(place.script, box, step)
            return await place.script(box, "cat steps")

        assert place.inside(body) == "x\n" * 4

    # -------------------------------------------------------------------------------------- limits
    @pytest.mark.parametrize("bound", ATTEMPTS)
    def test_what_is_bounded_cannot_be_had(self, bound: str, place: Place) -> None:
        """More than the bound fails inside, or the profile is refused; the counters tell of it."""
        limits, attempt = ATTEMPTS[bound]

        async def body(box: Sandbox) -> None:
            done = await place.run(box, "sh", "-ec", attempt)
            assert (done.status, done.exit_code) != ("ended", 0)
            stats = await box.stats()
            if self.counts and bound == "memory":
                assert (stats.oom_kills or 0) > 0
                assert (stats.memory_peak or 0) <= limits["memory"]
            if self.counts and bound == "processes":
                assert (stats.processes_refused or 0) > 0
                assert (stats.processes_peak or 0) <= limits["processes"]

        with contextlib.nullcontext() if bound in self.bounds else pytest.raises(SandboxError):
            place.inside(body, limits=SandboxLimits(**limits))

    def test_a_call_may_only_be_stricter(self, place: Place) -> None:
        """A call's own bound is held where it is lower, and does nothing where it is higher."""
        attempt = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"

        async def body(box: Sandbox) -> list[int]:
            asked = [SandboxLimits(open_files=count) for count in (32, 4096)]
            return [int((await place.run(box, "python3", "-c", attempt, limits=limits)).stdout) for limits in asked]

        assert place.inside(body, limits=SandboxLimits(open_files=64)) == [32, 64]

    # ----------------------------------------------------------------------------------- isolation
    def test_this_machine_is_not_seen(self, place: Place) -> None:
        """No file outside of what was given, no process, no network, no root; and nothing but the workspace can be written."""
        canary = place.folder / "canary"
        canary.write_text("must not be seen")

        async def body(box: Sandbox, port: int) -> None:
            assert (await place.run(box, "cat", str(canary))).exit_code != 0
            assert await place.script(box, "id -u") != "0\n"
            pids = {int(name) for name in (await place.script(box, "ls /proc")).split() if name.isdigit()}
            assert len(pids) < 12, "its own processes only"
            assert (await place.script(box, "tail -n +3 /proc/net/dev | cut -d: -f1")).split() in ([], ["lo"])
            program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
            assert (await place.run(box, "python3", "-c", program)).exit_code != 0
            for path in ("/usr/x", "/etc/x", "/x", str(place.folder / "code" / "x")):
                assert (await place.run(box, "touch", path)).exit_code != 0, path

        with socket.create_server(("127.0.0.1", 0)) as server:
            if place.backend.isolates:
                place.inside(lambda box: body(box, server.getsockname()[1]))

    # ---------------------------------------------------------------------------------------- ends
    def test_nothing_is_left_after_close(self, place: Place) -> None:
        """Processes, mounts, control groups, folders: none of them has the sandbox's name any more."""
        word = mark()

        async def body() -> str:
            async with place.open() as box:
                await place.call(box, "leaves", word)
                await place.script(box, "mkdir -p a/b; echo x >a/b/c")
                return box.name

        name = place.go(body)
        assert living(word) == []
        assert left(name) == []

    def test_nothing_is_left_when_the_supervisor_is_killed(self, place: Place) -> None:
        """SIGKILL of it, in the midst of a call: processes and mounts go at once, bare names when the next sandbox starts."""
        word = mark()
        program = supervisor(self.factory, place.profile.workspace, word)
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            assert name
            anyio.run(place.until, lambda: len(living(word)) >= 2)
        finally:
            process.kill()
            process.wait()
            process.communicate()
        anyio.run(place.until, lambda: not living(word) and not mounted(name))
        place.inside(lambda box: place.script(box, "true"))
        assert left(name) == []
