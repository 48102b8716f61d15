"""One contract for every source of tools: whatever a call comes to fits the envelope and the tool's own schema, and tells no secret.

A new source registers here: a function of `SOURCES` gives its fleet blocks and, by kind of outcome, calls that come to it.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from midwatch.tools.registry import Registry
from tests.contract.tools_caller import SERVERS, Caller, fleet_at
from tests.contract.tools_servers.rest import Service, document, serve

Named = tuple[str, dict[str, Any]]


@dataclass
class Source:
    """One source: its part of the fleet file, and calls by what they come to.

    Attributes:
        answers, fails, giants: calls that give a value, that fail, and whose results are too large to show.
        times_out: calls that are not over in the contract's time.
        closed: called at the end.
    """

    blocks: str
    answers: list[Named]
    fails: list[Named]
    giants: list[Named] = field(default_factory=list)
    times_out: list[Named] = field(default_factory=list)
    closed: Callable[[], None] = lambda: None


FUNCTIONS = '''
import time
from midwatch import tool

@tool(effect="read", timeout="20s")
def echo(text: str) -> str:
    """Give a text back."""
    return text

@tool(effect="read")
def breaks(text: str) -> str:
    """Raise what quotes a password."""
    raise ValueError("the password is hunter2-do-not-show")

@tool(effect="read")
def lies(text: str) -> int:
    """Give something else than promised."""
    return "the password is hunter2-do-not-show"

@tool(effect="read")
def giant() -> str:
    """Give five megabytes."""
    return "x" * 5_000_000

@tool(effect="read", timeout="1s")
def hang() -> str:
    """Never answer in time."""
    time.sleep(20)
    return "late"
'''


def _functions(folder: Path) -> Source:
    (folder / "own.py").write_text(FUNCTIONS, encoding="utf-8")
    return Source(
        "tools: ['python:own.py']\n",
        answers=[("own.echo", {"text": "a"})],
        fails=[("own.echo", {"no": 1}), ("own.breaks", {"text": "a"}), ("own.lies", {"text": "a"})],
        giants=[("own.giant", {})],
        times_out=[("own.hang", {})],
    )


def _shell(folder: Path) -> Source:
    (folder / "big.txt").write_text("y" * 900_000, encoding="utf-8")
    return Source(
        "tools: [builtin.shell, builtin.files]\n",
        answers=[("files.read", {"path": "prompt.md"}), ("shell.run", {"command": ["/bin/echo", "a"]})],
        fails=[("files.read", {"path": "../../etc/shadow"}), ("shell.run", {"command": []})],
        giants=[("files.read", {"path": "big.txt"})],
    )


def _mcp(folder: Path) -> Source:
    shutil.copy(SERVERS / "mcp_docs.py", folder / "mcp_docs.py")
    return Source(
        "mcp:\n  docs: {command: [python, mcp_docs.py], timeout: 4s}\n",
        answers=[("docs.search", {"query": "a"}), ("docs.chatter", {"text": "a"})],
        fails=[("docs.search", {}), ("docs.wipe", {"name": "a"}), ("docs.ask_model", {"text": "a"})],
        giants=[("docs.giant", {})],
        times_out=[("docs.hang", {}), ("docs.die", {})],
    )


def _openapi(folder: Path) -> Source:
    class Own(Service):
        asked = []  # noqa: RUF012  annotated where it is declared
        wait = threading.Event()

    server = serve(None, Own)
    address = f"http://localhost:{server.server_address[1]}"
    (folder / "api.json").write_text(json.dumps(document(address)), encoding="utf-8")

    def closed() -> None:
        Own.wait.set()
        server.shutdown()
        server.server_close()

    return Source(
        "openapi:\n  pets: {document: api.json, private: true, timeout: 2s}\n",
        answers=[("pets.list_pets", {}), ("pets.delete_pets_id", {"id": 1})],
        fails=[(f"pets.{name}", {}) for name in ("away", "unfit", "broken")]
        + [("pets.get_pet", {"id": 5}), ("pets.by_name", {"name": "a"})],
        giants=[("pets.giant", {})],
        times_out=[("pets.hang", {}), ("pets.cut", {})],
        closed=closed,
    )


def _langchain(folder: Path) -> Source:
    shutil.copy(SERVERS / "chain_tools.py", folder / "chain_tools.py")
    return Source(
        "langchain:\n  chain: {source: 'chain_tools.py:ALL', timeout: 15s}\n"
        "  near: {source: 'chain_tools.py:ALL', runs: broker, timeout: 2s}\n",
        answers=[
            ("chain.add", {"numbers": [1, 2], "fields_": "x"}),
            ("near.later", {"text": "a"}),
            ("chain.picture", {"name": "a"}),
        ],
        fails=[(f"{name}.breaks", {"text": "a"}) for name in ("chain", "near")]
        + [("near.handled", {"text": "a"}), ("near.add", {})],
        giants=[("near.giant", {}), ("chain.giant", {})],
        times_out=[("near.hang", {})],
    )


SOURCES: dict[str, Callable[[Path], Source]] = {
    "function": _functions,
    "langchain": _langchain,
    "mcp": _mcp,
    "openapi": _openapi,
    "shell": _shell,
}


@pytest.fixture(params=sorted(SOURCES))
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Source, Caller]]:
    """Give a source and a caller of its tools."""
    source = SOURCES[request.param](tmp_path)
    registry = Registry.of_fleet(fleet_at(tmp_path, source.blocks), {})
    yield source, Caller(registry, tmp_path)
    registry.close()
    source.closed()


@pytest.mark.req("IMPORT-13")
def test_every_outcome_of_every_source_is_the_one_envelope(ground: tuple[Source, Caller]) -> None:
    """`Caller` holds each to the schemas; here each must come to what it was made for."""
    source, caller = ground
    for name, arguments in source.answers:
        assert caller.call(name, arguments).ok, name
    for name, arguments in source.fails:
        assert not caller.call(name, arguments).ok, name
    for name, arguments in source.giants:
        assert caller.call(name, arguments).truncated, name
    for name, arguments in source.times_out:
        assert "timeout" == caller.fails(name, arguments), name
        assert caller.performed is not None
        assert caller.performed.unclear, name


@pytest.mark.req("IMPORT-12")
def test_langchain_tools_keep_their_arguments_and_hide_what_is_injected(tmp_path: Path) -> None:
    """In a sandbox and beside the kernel alike."""
    source = _langchain(tmp_path)
    caller = Caller(Registry.of_fleet(fleet_at(tmp_path, source.blocks), {}), tmp_path)
    assert "sandbox" == caller.registry.get("chain.add").contract.runs
    assert {"text"} == set(caller.registry.get("chain.later").contract.input_schema["properties"])
    assert {"sum": 3, "fields": "x"} == json.loads(
        caller.call("chain.add", {"numbers": [1, 2], "fields_": "x"}).data["text"]
    )
    assert {"text": "a for nobody", "artifact": False} == caller.call("near.later", {"text": "a"}).data
    assert {"text": "drew a", "artifact": True} == caller.call("chain.picture", {"name": "a"}).data
    assert "invalid_arguments" == caller.fails("chain.later", {"text": "a", "user": "root"})
    assert "grants_authority" == caller.registry.get("chain.add").contract.effect
