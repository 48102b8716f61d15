"""Attacks on what a sandbox is shown: code that an agent would like to change, folders that it would like to see."""

import asyncio
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch import isolating
from midwatch.config.apart import not_apart
from midwatch.config.specs import SandboxLimits
from midwatch.errors import InvalidFleet, SandboxError
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.docker_plan import code_of as docker_code
from midwatch.sandbox.plan import Machine, code_of, imported_from
from midwatch.sandbox.port import RunResult
from midwatch.sandbox.profile import SandboxProfile

TOOL = "class honest:\n    @staticmethod\n    def work(arguments, facts):\n        return 'honest'\n"
EVIL = TOOL.replace("'honest'", "'evil'")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder below `/tmp`, where sandboxes have their own scratch space."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def attacked(profile: SandboxProfile, tool: Path, script: str) -> tuple[RunResult, Any]:
    """Run a hostile shell script, then call an honest tool."""

    async def work() -> tuple[RunResult, Any]:
        backend = BubblewrapBackend()
        try:
            box = await backend.start(profile)
            more: dict[str, Any] = {"limits": SandboxLimits(), "workdir": profile.workspace, "timeout_us": 20_000_000}
            ran = await box.run(["/bin/sh", "-c", script], max_bytes=10_000, **more)
            return ran, (await box.call(f"{tool}:honest", "{}", facts={}, max_bytes=10_000, **more)).answer
        finally:
            await backend.close()

    return asyncio.run(work())


@pytest.mark.req("ISOLATION-3")
def test_code_below_the_scratch_space_cannot_be_moved_away(tmp_path: Path, scratch: Path) -> None:
    """The folder around a tool's file is no agent's: it cannot be renamed and another put in its place."""
    tool = scratch / "fleet" / "tools.py"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    script = f"mv {scratch} /tmp/aside; mkdir -p {tool.parent}; cat >{tool} <<'END'\n{EVIL}END\n"
    ran, answer = attacked(SandboxProfile(tmp_path, code=(tool,)), tool, script)
    assert "honest" == answer, ran


@pytest.mark.req("ISOLATION-3")
@pytest.mark.parametrize("code_of_backend", [lambda profile: code_of(profile, Machine.here("/bin/true")), docker_code])
def test_the_workspaces_own_place_is_shown_as_nothing_else(
    tmp_path: Path, code_of_backend: Callable[[SandboxProfile], tuple[Path, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this machine has a `/workspace` on its import path, the agent's own files are no code of Midwatch's."""
    monkeypatch.setattr(Path, "exists", lambda _self: True)
    assert Path("/workspace") not in code_of_backend(SandboxProfile(tmp_path, code=(Path("/workspace"),)))


@pytest.mark.req("ISOLATION-3")
def test_nothing_is_imported_from_where_an_agent_writes() -> None:
    """Of an import path only what is shown read-only remains: an agent would plant the next call's modules elsewhere."""
    entries = ["", "lib", "/usr/lib/python3", "/tmp", "/tmp/own", "/tmp/shown/x", "/workspace", "/usr/../tmp/y"]
    assert ["/usr/lib/python3", "/tmp/shown/x"] == imported_from(entries, [Path("/tmp/shown")])


@pytest.mark.req("ISOLATION-3")
def test_code_that_the_workspace_would_hide_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool at `/workspace/tools.py` of this machine is not taken from another workspace's file of that name."""
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/workspace/tools.py" or real(self))
    with pytest.raises(SandboxError, match="lies where every sandbox sees its workspace"):
        code_of(SandboxProfile(tmp_path, code=(Path("/workspace/tools.py"),)), Machine.here("/bin/true"))


def registry(*refs: str) -> Any:
    """Stand in for a registry whose tools have these references."""
    return SimpleNamespace(names=lambda: refs, get=lambda name: SimpleNamespace(ref=name), sources=())


@pytest.mark.req("ISOLATION-4")
def test_the_folder_that_a_run_is_started_in_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `.env` and its sockets are a person's; only where a tool is imported from it, it is seen."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("dev.sock")
        assert tmp_path not in isolating._code(registry("midwatch.tools.builtin:x", "/elsewhere/tools.py:y"))
        assert tmp_path in isolating._code(registry("mine.tools:x"))


@pytest.mark.req("ISOLATION-4")
def test_an_import_path_that_would_show_the_home_is_refused(tmp_path: Path) -> None:
    """The home below, at or above it: runs, answers and tokens would be read as their owner reads them."""
    for folder, home in (
        (tmp_path, tmp_path / "state"),
        (tmp_path, tmp_path),
        (tmp_path / "state" / "x", tmp_path / "state"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with pytest.raises(InvalidFleet, match="would show Midwatch's home"):
            isolating._kept_apart([folder], home, {})
    isolating._kept_apart([tmp_path / "state"], tmp_path / "elsewhere", {})


@pytest.mark.req("ISOLATION-4")
@pytest.mark.parametrize("name", ["", ".ssh", ".aws/x"])
def test_a_persons_own_folder_is_no_workspace(tmp_path: Path, name: str) -> None:
    """With Midwatch's home elsewhere, an agent would still read the keys in it as that person does; a project below is fine."""
    person, home = tmp_path / "ann", tmp_path / "home"
    for folder in (person / ".ssh", person / ".aws" / "x", person / "project", home):
        folder.mkdir(parents=True)
    fleet: Any = SimpleNamespace(
        agents={"a": SimpleNamespace(sandbox=None)}, sandbox_of=lambda _name: SimpleNamespace(backend=None, mounts=())
    )
    environ = {"HOME": str(person)}
    found = not_apart(fleet, home=home, workspace=person / name, environ=environ)
    assert ["workspace-reach"] == [problem.code for problem in found]
    assert () == not_apart(fleet, home=home, workspace=person / "project", environ=environ)


@pytest.mark.req("ISOLATION-4")
def test_a_python_in_a_persons_own_folder_shows_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter at `~/bin/python3` would bring the whole folder with it, and one at `/bin/python3` the machine."""
    person, home = tmp_path / "ann", tmp_path / "home"
    (person / ".ssh").mkdir(parents=True)
    for place in (person / "bin" / "python3", Path("/nowhere/python3")):
        monkeypatch.setattr(sys, "_base_executable", str(place), raising=False)
        with pytest.raises(InvalidFleet, match="would show Midwatch's"):
            isolating._kept_apart(isolating._interpreter(), home, {"HOME": str(person)})
