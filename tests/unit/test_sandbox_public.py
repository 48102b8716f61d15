"""The public surface of `midwatch.sandbox`, and the two ways to open a sandbox, without any backend of this machine."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from midwatch import sandbox
from midwatch.errors import MissingExtra, SandboxError
from midwatch.sandbox import (
    Egress,
    EgressRule,
    Layer,
    RunResult,
    Sandbox,
    SandboxLimits,
    SandboxProfile,
    SandboxResult,
    Stats,
    SyncSandbox,
    open_sandbox,
)
from midwatch.sandbox.profile import DEFAULT_LIMITS


class Told:
    """A backend and its only sandbox: it does nothing and tells what it was asked."""

    level, isolates, name = "told", False, "told-1"

    def __init__(self) -> None:
        self.said: list[Any] = []

    async def start(
        self, profile: SandboxProfile, layers: Sequence[Layer] = (), *, egress: Egress | None = None
    ) -> Sandbox:
        self.said.append(("start", profile.limits, tuple(layers), egress))
        return self

    async def call(
        self, ref: str, arguments: str, *, facts: Mapping[str, Any], limits: SandboxLimits, workdir: Path,
        timeout_us: int, max_bytes: int,
    ) -> SandboxResult:  # fmt: skip
        return SandboxResult("answered", [ref, arguments, facts, str(workdir)])

    async def run(
        self, argv: Sequence[str], *, limits: SandboxLimits, workdir: Path, timeout_us: int, max_bytes: int,
        stdin: bytes = b"", env: Mapping[str, str] | None = None,
    ) -> RunResult:  # fmt: skip
        return RunResult("ended", 0, stdin)

    async def effects(self, into: Path) -> Layer:
        return Layer()

    async def pause(self) -> None:
        self.said.append("pause")

    async def resume(self) -> None:
        self.said.append("resume")

    async def kill(self) -> None:
        self.said.append("kill")

    async def stats(self) -> Stats:
        return Stats(processes=3)

    async def close(self) -> None:
        self.said.append("close")


@pytest.mark.req("SBXAPI-1")
def test_the_list_is_sorted_and_each_name_is_the_one_of_its_room() -> None:
    """`__all__`, `dir()`, what type checkers see and what is found at run time are the same."""
    tree = ast.parse(Path(sandbox.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(sandbox.__all__)
    assert sorted(sandbox.__all__) == dir(sandbox)
    for name, home in seen.items():
        assert getattr(importlib.import_module(str(home)), name) is getattr(sandbox, name)
    with pytest.raises(AttributeError, match=r"`Sandboks`.*SandboxProfile"):
        _ = sandbox.Sandboks  # type: ignore[attr-defined]


@pytest.mark.req("SBXAPI-1")
def test_nothing_is_loaded_before_it_is_used() -> None:
    """The package alone loads no module of the room, and `import midwatch` not even the package."""
    program = (
        "import json, sys, midwatch\n"
        "before = 'midwatch.sandbox' in sys.modules\n"
        "import midwatch.sandbox\n"
        "print(json.dumps([before, [m for m in sys.modules if m.startswith('midwatch.sandbox.')]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert [False, []] == json.loads(done.stdout)


@pytest.mark.req("SBXAPI-2")
def test_a_sandbox_is_closed_with_its_block_and_has_every_bound(tmp_path: Path) -> None:
    """What the profile leaves open has the default; a failure inside the block closes too, and passes through."""
    told = Told()
    profile = SandboxProfile(tmp_path, SandboxLimits(memory=5))

    async def body() -> None:
        async with open_sandbox(profile, told) as box:
            assert told is box
            raise KeyError("as it was")

    with pytest.raises(KeyError, match="as it was"):
        anyio.run(body)
    limits = told.said[0][1]
    assert (5, DEFAULT_LIMITS.processes) == (limits.memory, limits.processes)
    assert ["close"] == told.said[1:]


@pytest.mark.req("SBXAPI-2")
def test_what_does_not_isolate_cannot_be_named(tmp_path: Path) -> None:
    """A name is a promise of isolation: `process` is none, and no other name is taken for one of ours."""

    async def body() -> None:
        async with open_sandbox(SandboxProfile(tmp_path), "process"):
            pass

    with pytest.raises(SandboxError, match="no backend `process` isolates; name `bubblewrap` or `docker`"):
        anyio.run(body)


@pytest.mark.req("SBXAPI-2")
@pytest.mark.parametrize("rules", [(), (EgressRule("example.org"),)], ids=["none", "one"])
def test_a_way_out_is_there_only_where_a_rule_is(rules: tuple[EgressRule, ...], tmp_path: Path) -> None:
    """Rules get a broker that holds requests to them; without rules nothing is put into the sandbox."""
    told = Told()

    async def body() -> None:
        async with open_sandbox(SandboxProfile(tmp_path, egress=rules), told):
            pass

    anyio.run(body)
    assert bool(rules) == (told.said[0][3] is not None)


@pytest.mark.req("SBXAPI-2")
def test_blocking_code_has_every_verb(tmp_path: Path) -> None:
    """Each waits for the async one and gives what it gave; outside of the block there is a remedy."""
    told = Told()
    sync = SyncSandbox(open_sandbox(SandboxProfile(tmp_path), told))
    with pytest.raises(SandboxError, match="not open"):
        sync.stats()
    with sync as box:
        assert ("told", False, "told-1") == (box.level, box.isolates, box.name)
        assert ["t:x", '{"a": 1}', {}, "/workspace"] == box.call("t:x", '{"a": 1}').answer
        assert RunResult("ended", 0, b"in") == box.run(["cat"], stdin=b"in")
        assert (Layer(), 3) == (box.effects(tmp_path / "x"), box.stats().processes)
        box.pause()
        box.resume()
        box.kill()
    with pytest.raises(SandboxError, match="not open"):
        box.run(["true"])
    assert ["pause", "resume", "kill", "close"] == told.said[1:]


@pytest.mark.req("SBXAPI-6")
@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [("deepagents", "deepagents.backends.protocol", "deepagents"), ("inspect_ai", "inspect_ai.util", "inspect")],
)
def test_an_adapter_names_its_extra(module: str, framework: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports an adapter without its framework reads what to install."""
    for name in (framework, framework.partition(".")[0]):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"midwatch.adapters.{module}", raising=False)
    with pytest.raises(MissingExtra, match=rf"pip install 'midwatch\[{extra}\]'"):
        importlib.import_module(f"midwatch.adapters.{module}")
