"""What is there before a sandbox is asked for: a process in its control groups, a folder for all, compiled tools.

As a plain user without control groups nobody stands by, and the first two tests assert just that.
"""

import asyncio
import os
import select
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midwatch.config.specs import SandboxLimits
from midwatch.sandbox import cgroups, launcher
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.profile import DEFAULT_LIMITS, SandboxProfile

GROUPED = not cgroups.detect().missing(SandboxLimits())


def tried(folder: Path, work: Callable[[BubblewrapBackend, SandboxProfile], Awaitable[None]]) -> None:
    """Do something with a backend, and close it."""
    (folder / "workspace").mkdir()
    (folder / "code").mkdir()

    async def all_of_it() -> None:
        backend = BubblewrapBackend()
        try:
            await work(backend, SandboxProfile(workspace=folder / "workspace", code=(folder / "code",)))
        finally:
            await backend.close()

    asyncio.run(all_of_it())


async def standing(backend: BubblewrapBackend) -> Any:
    """Give who stands by after a start."""
    assert backend._aside is not None
    await backend._aside
    assert GROUPED == (backend._spare is not None)
    return backend._spare


async def said(box: CelledSandbox, *argv: str) -> str:
    """Give what a program says."""
    ended = await box.run(
        argv, limits=SandboxLimits(), workdir=Path("/"), timeout_us=20_000_000, max_bytes=100_000, env={}
    )
    assert ended.exit_code == 0, ended
    return ended.stdout.decode()


async def called(box: CelledSandbox, ref: str) -> Any:
    """Give what a tool answers."""
    result = await box.call(
        ref,
        "{}",
        facts={},
        limits=SandboxLimits(),
        workdir=Path("/"),
        timeout_us=20_000_000,
        max_bytes=1000,
    )
    return result.answer if result.status == "answered" else result


@pytest.mark.req("SBXSTART-1")
def test_who_stands_by_is_bounded_as_asked(tmp_path: Path) -> None:
    """It is the next sandbox, and its group has that one's bounds, though it was made for nobody."""

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        await backend.start(profile)
        spare = await standing(backend)
        if spare is None:
            return
        waiting = spare.group.procs()
        limits = replace(DEFAULT_LIMITS, processes=21, memory=96 << 20)
        box = await backend.start(replace(profile, limits=limits))
        group = box.group
        assert group is not None
        assert (spare.name, spare.group) == (box.name, group)
        assert waiting < group.procs()
        assert "21" == (group.where["pids"] / "pids.max").read_text().strip()
        memory = [group.where["memory"] / name for name in ("memory.limit_in_bytes", "memory.max")]
        assert [str(96 << 20)] == [path.read_text().strip() for path in memory if path.exists()]
        for path in group.join_files:
            assert waiting < {int(line) for line in path.read_text().split()}
        answer = await said(box, "python3", "-I", "-c", "bytearray(64 << 20); print('room')")
        assert "room\n" == answer

    tried(tmp_path, work)


@pytest.mark.req("SBXSTART-2")
def test_who_stands_by_goes_with_its_backend(tmp_path: Path) -> None:
    """Neither its process nor its control groups are left."""
    left: list[Any] = []

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        await backend.start(profile)
        spare = await standing(backend)
        if spare is not None:
            left.append((spare.group.paths, spare.group.procs()))

    tried(tmp_path, work)
    for paths, pids in left:
        assert [] == [path for path in paths if path.exists()]
        assert [] == [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.req("SBXSTART-2")
def test_who_died_standing_by_is_replaced(tmp_path: Path) -> None:
    """A start needs nobody who stands by."""

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        await backend.start(profile)
        spare = await standing(backend)
        if spare is not None:
            for pid in spare.group.procs():
                handle = os.pidfd_open(pid)
                os.kill(pid, signal.SIGKILL)
                assert select.select([handle], [], [], 20)[0]
                os.close(handle)
        box = await backend.start(profile)
        assert "here\n" == await said(box, "echo", "here")

    tried(tmp_path, work)


@pytest.mark.req("SBXSTART-2")
def test_who_stands_by_goes_with_its_launcher(tmp_path: Path) -> None:
    """A launcher that is killed takes nobody's order any more, and leaves nobody."""

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        await backend.start(profile)
        spare = await standing(backend)
        assert backend._client is not None
        handles: list[int] = []
        if spare is not None:
            handles = [os.pidfd_open(pid) for pid in spare.group.procs()]
            assert handles
        backend._client._process.kill()
        loop = asyncio.get_running_loop()
        for handle in handles:
            ended = asyncio.Event()
            loop.add_reader(handle, ended.set)
            await asyncio.wait_for(ended.wait(), 20)
            loop.remove_reader(handle)
            os.close(handle)

    tried(tmp_path, work)


@pytest.mark.req("SBXSTART-3")
def test_etc_is_the_same_for_all_and_nobodys_to_change(tmp_path: Path) -> None:
    """Three people, no host, certificates as on the machine; and no write reaches it."""
    paths = [Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/ld.so.cache")]
    sizes = {str(path): path.stat().st_size for path in paths if path.exists()}

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        boxes = [await backend.start(profile) for _ in range(2)]
        listed = [await said(box, "sh", "-c", "find /etc | sort; cat /etc/passwd /etc/hosts") for box in boxes]
        assert listed[0] == listed[1]
        assert ["root", "agent", "nobody"] == [line.split(":")[0] for line in listed[0].splitlines() if ":x:" in line]
        assert os.uname().nodename not in listed[0]
        for name, size in sizes.items():
            assert f"{size}\n" == await said(boxes[0], "stat", "-c", "%s", name)
        tries = "for f in /etc/new /etc/passwd /etc/ssl/new; do (echo x >> $f) 2>/dev/null && echo wrote $f; done; true"
        assert "" == await said(boxes[0], "sh", "-c", tries)

    tried(tmp_path, work)


@pytest.mark.req("SBXSTART-3")
def test_a_copy_is_no_easier_to_read(tmp_path: Path) -> None:
    """Modes but for write bits, links as links, nothing but files, folders and links."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "below").mkdir(parents=True)
    for name, mode in (("open", 0o664), ("closed", 0o600), ("below/program", 0o4755)):
        (source / name).write_text(name)
        (source / name).chmod(mode)
    (source / "link").symlink_to("/usr/share/x")
    os.mkfifo(source / "pipe")
    launcher._copy(str(source), str(target))
    assert ["below", "below/program", "closed", "link", "open"] == sorted(
        str(path.relative_to(target)) for path in target.rglob("*")
    )
    modes = {name: (target / name).stat().st_mode & 0o7777 for name in ("open", "closed", "below/program")}
    assert {"open": 0o644, "closed": 0o600, "below/program": 0o755} == modes
    assert "/usr/share/x" == str((target / "link").readlink())


@pytest.mark.req("SBXSTART-4")
def test_a_tool_is_run_anew_in_each_call(tmp_path: Path) -> None:
    """Also as it was changed meanwhile; the cell that read it has run none of it."""
    text = """
import os, pathlib
with open("/workspace/loaded", "a") as file:
    file.write("WORD ")
here = os.getpid()
class Tool:
    def work(self, arguments, facts):
        return [here == os.getpid(), pathlib.Path("/workspace/loaded").read_text()]
tool = Tool()
"""
    file = tmp_path / "code" / "tool.py"

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        file.write_text(text.replace("WORD", "one"))
        box = await backend.start(profile)
        assert [True, "one "] == await called(box, f"{file}:tool")
        assert [True, "one one "] == await called(box, f"{file}:tool")
        file.write_text(text.replace("WORD", "other"))
        assert [True, "one one other "] == await called(box, f"{file}:tool")
        file.write_text("not Python at all")
        assert "crashed" == (await called(box, f"{file}:tool")).status
        file.write_text(text.replace("WORD", "end"))
        assert [True, "one one other end "] == await called(box, f"{file}:tool")

    tried(tmp_path, work)


@pytest.mark.req("SBXSTART-4")
def test_what_the_agent_wrote_is_left_to_the_call(tmp_path: Path) -> None:
    """A tool in the workspace is run; a pipe in its place stops its own call alone, and not the cell."""

    async def work(backend: BubblewrapBackend, profile: SandboxProfile) -> None:
        box = await backend.start(profile)
        text = "class Tool:\n    def work(self, arguments, facts):\n        return 7\ntool = Tool()\n"
        await said(box, "python3", "-I", "-c", f"open('/workspace/tool.py', 'w').write({text!r})")
        assert 7 == await called(box, "/workspace/tool.py:tool")
        await said(box, "sh", "-c", "rm tool.py && mkfifo tool.py")
        result = await box.call(
            "/workspace/tool.py:tool",
            "{}",
            facts={},
            limits=SandboxLimits(),
            workdir=Path("/"),
            timeout_us=300_000,
            max_bytes=1000,
        )
        assert "timeout" == result.status
        assert "alive\n" == await said(box, "echo", "alive")

    tried(tmp_path, work)
