"""Sandbox: what it costs to begin one, to call in one, to see what was done, to stop it, and to keep a dozen; beside what others take.

All rows of the first table take turns in one run, so that other work on the machine meets each alike. `wall` is from asking to the
end of the program or the answer; `cpu` is the processor time of everything that worked for it, this process included; of `docker run`
and `docker exec` it is the client's and the container's, without the engine's own.
Bars: a fresh sandbox 25 ms over a bare process; a warm call 0.1 ms in the cell's own process, 2 ms in one of its own; 10,000 effects
read in 1.2 s; a tree of 60 frozen in 5 ms, killed in 150 ms; twelve idle sandboxes in 150 MB.
`python -m bench.sandbox [ROUNDS] [--srt]`; `--srt` fetches Anthropic's sandbox-runtime from npm. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import contextlib
import os
import py_compile
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import midwatch
from bench import effects, freezing
from bench.rivals import Docker, Missing, Row, docker, plain, sandbox_runtime
from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.docker_api import Engine
from midwatch.sandbox.docker_image import interpreter, of_machine
from midwatch.sandbox.overlay import diff
from midwatch.sandbox.process import ProcessSandbox
from midwatch.sandbox.profile import SandboxProfile
from tests.attack.overlay_child import Ground, enter

__all__ = ["main"]

_TRIVIAL = """
class Nothing:
    def work(self, arguments, facts):
        return {}


nothing = Nothing()
"""
_TOOL = '''
from midwatch import tool


@tool(effect="pure")
def double(number: int) -> int:
    """Give twice a number."""
    return 2 * number
'''
_FACTS = {"idempotency_key": "k", "run": "r", "agent": "a", "now_us": 0}
_AGENTS = 12
BARS = {
    "fresh over bare, ms": 25.0,
    "warm, in process, ms": 0.1,
    "warm, forked, ms": 2.0,
    "10,000 effects, ms": 1200.0,
    "freeze 60, ms": 5.0,
    "kill 60, ms": 150.0,
    "kill 60 frozen, ms": 150.0,
    "12 idle, MB": 150.0,
}


class Place:
    """What all sandboxes of this bench are made of: a workspace, and tools beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace, code = folder, folder / "workspace", folder / "code"
        for made in (self.workspace, code):
            made.mkdir()
        (self.workspace / "a.txt").write_text("a")
        for name, text in (("trivial", _TRIVIAL), ("decorated", _TOOL)):
            (code / f"{name}.py").write_text(text)
            py_compile.compile(str(code / f"{name}.py"))
        self.trivial, self.tool, self.module = (
            f"{code}/trivial.py:nothing",
            f"{code}/decorated.py:double",
            "trivial:nothing",
        )
        self.sys_path = (*sys.path, str(code))
        packages = {Path(entry) for entry in sys.path if entry.endswith("site-packages")}
        self.profile = SandboxProfile(workspace=self.workspace, code=(code, *sorted(packages)))

    async def call(self, tools: Any, ref: str, arguments: str = "{}") -> None:
        """Call a tool, and see to it that it answered."""
        result = await tools.call(
            ref,
            arguments,
            facts={**_FACTS, "workdir": str(self.workspace)},
            limits=SandboxLimits(),
            workdir=self.workspace,
            timeout_us=20_000_000,
            max_bytes=10_000,
        )
        assert result.status == "answered", result


class Warm:
    """A sandbox that was called once, and the rows of it."""

    def __init__(self, place: Place, sandbox: CelledSandbox) -> None:
        self._place, self._sandbox = place, sandbox

    def rows(self, name: str) -> list[Row]:
        """Give them; all but the first with thaw and freeze."""
        return [
            Row(f"{name}, warm, in process", self._inline, elsewhere=self._inside),
            Row(f"{name}, warm, forked", self._forked, 10, self._inside),
            Row(f"{name}, warm, forked, effects", self._with_effects, 5, self._inside),
            Row(f"{name}, warm, a program", self._program, 5, self._inside),
        ]

    def tool_rows(self, name: str) -> list[Row]:
        """Give that of a `@tool`, in a sandbox of its own: what it needs is several times what the cell has."""
        return [Row(f"{name}, warm, forked, @tool", self._decorated, 2, self._inside)]

    async def ready(self) -> Warm:
        """Call once, so that what a first call loads is loaded."""
        await self._forked()
        return self

    @classmethod
    async def both(cls, place: Place, backend: BubblewrapBackend | DockerBackend, name: str) -> list[Row]:
        """Give the rows of two sandboxes."""
        plain, tools = [await cls(place, await backend.start(place.profile)).ready() for _ in range(2)]
        await tools._decorated()  # noqa: SLF001 - of this very class
        return [*plain.rows(name), *tools.tool_rows(name)]

    async def _inline(self) -> list[float]:
        """Ask the cell to perform calls in its own process, through its link. No call of the port's does that: nothing ends it."""
        parts = self._sandbox._parts  # noqa: SLF001 - what a call is made of
        body = {"kind": "inline", "ref": self._place.module, "arguments": "{}", "facts": {}}
        walls = []
        parts.tree.thaw()
        for _ in range(30):
            began = time.perf_counter()
            await parts.link.ask(body, timeout_us=5_000_000, patience_us=1, max_bytes=1000)
            walls.append((time.perf_counter() - began) * 1000)
        parts.tree.freeze()
        return walls

    async def _forked(self) -> None:
        await self._place.call(self._sandbox, self._place.trivial)

    async def _with_effects(self) -> None:
        await self._forked()
        await self._sandbox.effects(self._place.folder / "layer")

    async def _decorated(self) -> None:
        await self._place.call(self._sandbox, self._place.tool, '{"number":2}')

    async def _program(self) -> None:
        ended = await self._sandbox.run(
            ["/bin/true"],
            limits=SandboxLimits(),
            workdir=self._place.workspace,
            timeout_us=20_000_000,
            max_bytes=1000,
        )
        assert ended.exit_code == 0, ended

    def _inside(self) -> float:
        return inside_ms(self._sandbox)


class Fresh:
    """The rows of a backend's fresh sandboxes."""

    def __init__(self, place: Place, backend: BubblewrapBackend | DockerBackend) -> None:
        self._place, self._backend = place, backend
        self._sandbox: CelledSandbox | None = None
        self._inside = 0.0

    def rows(self, name: str) -> list[Row]:
        """Give them: until it is ready; the first call in it; its end."""
        return [
            Row(f"{name}, fresh", self._start, elsewhere=self._elsewhere, after=self._close),
            Row(f"{name}, first call", self._call, 1, self._elsewhere, self._start, self._close),
            Row(f"{name}, closed", self._close, before=self._start),
        ]

    async def _start(self) -> None:
        self._sandbox = await self._backend.start(self._place.profile)

    async def _call(self) -> None:
        await self._place.call(self._sandbox, self._place.trivial)

    async def _close(self) -> None:
        if self._sandbox is not None:
            self._inside += inside_ms(self._sandbox)
            sandbox, self._sandbox = self._sandbox, None
            await sandbox.close()

    def _elsewhere(self) -> float:
        living = 0.0 if self._sandbox is None else inside_ms(self._sandbox)
        return self._inside + living + launcher_ms(self._backend)


def inside_ms(sandbox: CelledSandbox) -> float:
    """Give the processor time of all that lives or lived in a sandbox."""
    return (sandbox._parts.tree.stats().cpu_us or 0) / 1000  # noqa: SLF001 - as above


def launcher_ms(backend: BubblewrapBackend | DockerBackend) -> float:
    """Give the processor time of a backend's launcher."""
    client = backend._client  # noqa: SLF001 - as above
    if client is None:
        return 0.0
    return int(Path(f"/proc/{client._process.pid}/schedstat").read_text().split()[0]) / 1e6  # noqa: SLF001 - as above


async def taken(rows: Iterable[Row], rounds: int) -> None:
    """Measure all rows, one after the other, again and again."""
    for _ in range(rounds):
        for row in rows:
            for _ in range(row.times):
                if row.before is not None:
                    await row.before()
                before, began = _spent() + row.elsewhere(), time.perf_counter()
                walls = await row.act()
                took = (time.perf_counter() - began) * 1000
                each = walls if isinstance(walls, list) else [took]
                row.walls += each
                row.cpus.append((_spent() + row.elsewhere() - before) / len(each))
                if row.after is not None:
                    await row.after()


def _spent() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() / 1e6 + (ended.ru_utime + ended.ru_stime) * 1000


def printed(rows: Iterable[Row]) -> None:
    """Print the table; all numbers are milliseconds."""
    print(f"{'ms':44} {'wall min':>9} {'median':>9} {'cpu mean':>9} {'n':>5}")
    for row in rows:
        walls = row.walls
        print(
            f"{row.name:44} {min(walls):9.3f} {statistics.median(walls):9.3f} {statistics.fmean(row.cpus):9.3f} {len(walls):5}"
        )


def diffed(folder: Path) -> float:
    """Give how long 10,000 changes of a real overlay take to be read with all hashes, in milliseconds; in a mount namespace of its own."""
    told, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            enter()
            lower = folder / "lower"
            lower.mkdir()
            for number in range(5_000):
                file = effects._file(lower, f"d{number % effects.FOLDERS}", f"f{number}.txt")  # noqa: SLF001
                file.write_bytes(b"x%d" % number * 200)
            ground = Ground(folder, lower, "view", size="512m")
            effects._work(ground.merged)  # noqa: SLF001 - the same changes as there
            best = 1e9
            for _ in range(3):
                began = time.perf_counter()
                changes, spool = diff(ground.fd, lower, earlier={}, limit=1 << 30)
                best = min(best, (time.perf_counter() - began) * 1000)
                spool.close()
            os.write(into, f"{best} {len(changes)}".encode())
        os._exit(0)
    os.close(into)
    with open(told, "rb") as stream:  # noqa: PTH123 - a descriptor
        said = stream.read().split()
    os.waitpid(pid, 0)
    assert said, "the effects were not read"
    print(f"{'overlay.diff':44} {float(said[0]):9.0f} ms, {int(said[1]):,} changes with the hashes of both sides")
    return float(said[0])


async def dozen(place: Place) -> float:
    """Print what twelve idle sandboxes hold, with their launcher and who stands by; give megabytes before any call."""
    backend = BubblewrapBackend(sys_path=place.sys_path)
    try:
        sandboxes = [await backend.start(place.profile) for _ in range(_AGENTS)]
        after = {"started": _held(backend, sandboxes)}
        for name, ref, arguments in (
            ("called once", place.trivial, "{}"),
            ("a @tool called", place.tool, '{"number":1}'),
        ):
            for sandbox in sandboxes:
                await place.call(sandbox, ref, arguments)
            after[name] = _held(backend, sandboxes)
    finally:
        await backend.close()
    for name, megabytes in after.items():
        print(f"{f'{_AGENTS} sandboxes, idle, {name}':44} {megabytes:9.1f} MB")
    return after["started"]


def _held(backend: BubblewrapBackend, sandboxes: Iterable[CelledSandbox]) -> float:
    """Give the proportional set size of all processes, in megabytes."""
    client, spare = backend._client, backend._spare  # noqa: SLF001 - all that lives for it
    assert client is not None
    pids = {client._process.pid}  # noqa: SLF001 - as above
    for group in (*(sandbox.group for sandbox in sandboxes), None if spare is None else spare.group):
        pids |= group.procs() if group is not None else set()
    found = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        found += int(text[text.index("Pss:") + 1])
    return found / 1024


def stopped(rounds: int) -> dict[str, float]:
    """Print how fast a tree of 60 is frozen and killed; give the medians in milliseconds."""
    layout = cgroups.detect()
    found = [freezing.measured(layout) for _ in range(rounds)]
    medians = {}
    for name in ("freeze", "kill", "kill_frozen"):
        values = [getattr(one, name) / 1000 for one in found]
        medians[name] = statistics.median(values)
        print(f"{f'{name}, 60 processes':44} {min(values):9.2f} ms, median {medians[name]:.2f}")
    return medians


@contextlib.asynccontextmanager
async def rivals(
    place: Place, command: list[str], rows: list[Row], *, srt: bool
) -> AsyncIterator[tuple[Docker, str] | None]:
    """Add the rows of all that can be had here; say what cannot. Gives the engine and its image, where there is one."""
    try:
        rows.append(sandbox_runtime(command, fetch=srt))
    except Missing as why:
        print(f"sandbox-runtime: left out, {why}")
    async with contextlib.AsyncExitStack() as stack:
        try:
            engine = stack.enter_context(docker())
            async with Engine(engine.host) as asked:
                image = (await of_machine(asked)).name
            backend = DockerBackend(engine.host, sys_path=place.sys_path)
            stack.push_async_callback(backend.close)
            rows += Fresh(place, backend).rows("docker backend")
            rows += await Warm.both(place, backend, "docker backend")
            rows += engine.rows(image, command)
        except (Missing, SandboxError) as why:
            print(f"docker: left out, {why}")
            yield None
        else:
            yield engine, image


async def compared(place: Place, rounds: int, *, srt: bool) -> dict[str, float]:
    """Print the table, and what `docker diff` takes; give what has a bar."""
    python = interpreter()
    command = [python, "-I", "-S", "-c", "pass"]
    rows = [plain("bare process", command)]
    unshare = shutil.which("unshare")
    if unshare is not None:
        rows.append(plain("unshare, all namespaces", [unshare, "-Uripnfum", "--mount-proc", *command]))
    rows.append(Row("process worker, a call", lambda: place.call(ProcessSandbox(), place.trivial)))
    backend = BubblewrapBackend(sys_path=place.sys_path)
    try:
        rows += Fresh(place, backend).rows("bubblewrap")
        rows += await Warm.both(place, backend, "bubblewrap")
        async with rivals(place, command, rows, srt=srt) as engine:
            await taken(rows, 1)
            for row in rows:  # the first of everything is nobody's
                row.walls, row.cpus = [], []
            await taken(rows, rounds)
            printed(rows)
            if engine is not None:
                took, lines = engine[0].diff(engine[1], python)
                print(f"{'docker diff':44} {took:9.0f} ms, {lines:,} lines, no hashes")
    finally:
        await backend.close()
    medians = {row.name: statistics.median(row.walls) for row in rows}
    return {
        "fresh over bare, ms": medians["bubblewrap, fresh"] - medians["bare process"],
        "warm, in process, ms": medians["bubblewrap, warm, in process"],
        "warm, forked, ms": medians["bubblewrap, warm, forked"],
    }


def main(rounds: int = 10, *, srt: bool = False) -> None:
    """Print everything, then each bar and whether it holds; raises when one does not."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, python {sys.version.split()[0]}")
    # As an installer does: where nothing may be written later, each start would compile the cell anew.
    compileall.compile_dir(midwatch.__path__[0], quiet=2)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Place(Path(folder))
        found = asyncio.run(compared(place, rounds, srt=srt))
        found["10,000 effects, ms"] = diffed(Path(folder))
        stops = stopped(5)
        found |= {
            "freeze 60, ms": stops["freeze"],
            "kill 60, ms": stops["kill"],
            "kill 60 frozen, ms": stops["kill_frozen"],
        }
        found["12 idle, MB"] = asyncio.run(dozen(place))
    print(f"\nload {os.getloadavg()[0]:.1f}")
    for name, bar in BARS.items():
        print(f"{name:24} {found[name]:9.3f}  bar {bar:7g}  {'holds' if found[name] <= bar else 'missed'}")
    missed = [name for name, bar in BARS.items() if found[name] > bar]
    assert not missed, ", ".join(missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a sandbox costs.")
    parser.add_argument("rounds", nargs="?", type=int, default=10)
    parser.add_argument("--srt", action="store_true", help="fetch Anthropic's sandbox-runtime from npm")
    asked = parser.parse_args()
    main(asked.rounds, srt=asked.srt)
