"""MCP servers are brought in under contracts, and one that means harm gets nowhere. Real servers, over stdio and loopback HTTP."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from midwatch.errors import InvalidTool
from midwatch.tools.importing import mcp_link
from midwatch.tools.registry import Registry
from tests.contract.tools_caller import SECRET, SERVERS, Caller, fleet_at

DECLARED = (
    "effects: {search: read, wipe: destructive, drop: read, chatter: pure}, args: {search: {query: selector, cursor: control}}, "
    "closed_world: [search]"
)


def _copy(folder: Path, name: str) -> None:
    shutil.copy(SERVERS / name, folder / name)


def _registry(folder: Path, more: str = "", environ: dict[str, str] | None = None) -> Registry:
    """Bring the well-behaved server's tools."""
    _copy(folder, "mcp_docs.py")
    block = f"mcp:\n  docs: {{command: [python, mcp_docs.py], {DECLARED}, timeout: 8s{more}}}\n"
    return Registry.of_fleet(fleet_at(folder, block), environ or {})


def _hostile(folder: Path, word: str = "") -> Registry:
    _copy(folder, "mcp_hostile.py")
    words = f"python, mcp_hostile.py{', ' + word if word else ''}"
    return Registry.of_fleet(fleet_at(folder, f"mcp:\n  bad: {{command: [{words}]}}\n"), {})


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Caller]:
    """Give a caller of the well-behaved server in its sandbox."""
    registry = _registry(tmp_path)
    yield Caller(registry, tmp_path)
    registry.close()


@pytest.mark.req("IMPORT-1")
def test_a_server_in_its_sandbox_answers_and_fails_in_envelopes(docs: Caller) -> None:
    """One server, one connection: results, errors, prose on stdout, a giant, and what it may not ask for."""
    assert {"title": "ab", "count": 5} == docs.call("docs.search", {"query": "a", "cursor_": "b"}).data
    assert "invalid_arguments" == docs.fails("docs.search", {"query": "a", "limit": 51})
    assert "upstream" == docs.fails("docs.wipe", {"name": "x"})
    assert {"result": "hi"} == docs.call("docs.chatter", {"text": "hi"}).data
    giant = docs.call("docs.giant")
    assert giant.truncated
    assert 5_000_013 == giant.meta["bytes"]
    for name in ("docs.ask_model", "docs.ask_person"):
        assert docs.fails(name, {"text": "say yes"}) in ("upstream", "denied"), name
    assert {"title": "c", "count": 5} == docs.call("docs.search", {"query": "c"}).data


@pytest.mark.req("IMPORT-2")
def test_an_annotation_only_makes_a_tool_worse(docs: Caller) -> None:
    """What the fleet declares stands against kind words and yields to harsh ones; what nobody declares is the worst."""
    effects = {name: docs.registry.get(f"docs.{name}").contract.effect for name in ("search", "wipe", "drop", "giant")}
    assert {"search": "read", "wipe": "destructive", "drop": "destructive", "giant": "grants_authority"} == effects
    search = docs.registry.get("docs.search").contract
    assert ("selector", "control", "command") == tuple(search.arg(name).role for name in ("query", "cursor_", "limit"))
    assert not search.open_world
    assert docs.registry.get("docs.wipe").contract.open_world
    assert not docs.registry.get("docs.wipe").contract.idempotent


@pytest.mark.req("IMPORT-3")
def test_a_server_that_hangs_dies_or_changes_is_survived(docs: Caller, tmp_path: Path) -> None:
    """A death in a call leaves its outcome unknown; the next call starts the server anew; a changed tool is refused."""
    assert "timeout" == docs.fails("docs.die")
    assert docs.performed is not None
    assert docs.performed.unclear
    assert {"title": "again", "count": 5} == docs.call("docs.search", {"query": "again"}).data
    assert {"result": "changed"} == docs.call("docs.mutate", {"name": "evil"}).data
    assert "conflict" == docs.fails("docs.search", {"query": "x"})
    assert {"result": "ok"} == docs.call("docs.chatter", {"text": "ok"}).data


@pytest.mark.req("IMPORT-3")
def test_a_hanging_call_ends_with_the_contract_time(tmp_path: Path) -> None:
    """Other calls of the same server go on meanwhile."""
    _copy(tmp_path, "mcp_docs.py")
    block = (
        "mcp:\n  docs: {command: [python, mcp_docs.py], tools: [hang, search], timeout: 2s, effects: {search: read}}\n"
    )
    caller = Caller(Registry.of_fleet(fleet_at(tmp_path, block), {}), tmp_path)
    began = time.monotonic()
    assert "timeout" == caller.fails("docs.hang")
    assert 30 > time.monotonic() - began
    caller.registry.close()


@pytest.mark.req("IMPORT-4")
def test_a_server_gets_no_environment_and_sees_no_files_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named variables only; a secret that it repeats is not shown; the fleet's folder is not there but for the program."""
    monkeypatch.setenv("OTHER_TOKEN", SECRET)
    (tmp_path / "private.txt").write_text(SECRET, encoding="utf-8")
    registry = _registry(
        tmp_path, ", env: [PLAIN_NAME, DOCS_TOKEN]", {"PLAIN_NAME": "some-plain-value", "DOCS_TOKEN": SECRET}
    )
    caller = Caller(registry, tmp_path)
    assert "upstream" == caller.fails("docs.environment")
    seen = {
        path: caller.call("docs.look", {"path": path}).data["result"]
        for path in (str(tmp_path / "private.txt"), "/etc/passwd")
    }
    assert {str(tmp_path / "private.txt"): "no", "/etc/passwd": "no"} == seen
    registry.close()
    plain = Caller(_registry(tmp_path, ", runs: broker"), tmp_path)
    names = {line.partition("=")[0] for line in plain.call("docs.environment").data["result"].splitlines()}
    assert names <= {"PATH", "LANG", "LC_CTYPE", "PWD"}
    plain.registry.close()


@pytest.mark.req("IMPORT-5")
def test_a_hostile_list_costs_only_the_tools_that_are_bad(tmp_path: Path) -> None:
    """Remote references, bombs and names that are no names are left out and named; nothing is fetched, nothing hangs."""
    began = time.monotonic()
    registry = _hostile(tmp_path)
    assert 20 > time.monotonic() - began
    assert ("bad.good", "bad.long", "bad.unfit") == registry.names()
    left = [note for note in registry.notes if note.code == "tool-left-out"]
    assert 6 == len(left), left
    assert 2_000 >= len(registry.get("bad.long").contract.description)
    caller = Caller(registry, tmp_path)
    assert {"text": "ok", "parts": []} == caller.call("bad.good", {"text": "x"}).data
    assert caller.fails("bad.unfit", {"text": "x"}) in ("contract", "upstream")
    registry.close()


@pytest.mark.req("IMPORT-5")
@pytest.mark.parametrize("word", ["silent", "deep", "array", "prose", "line", "broken", "endless", "twice", "alike"])
def test_a_server_that_is_none_is_a_problem_of_the_fleet(
    tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with the reason, in bounded time, and its program does not live on."""
    monkeypatch.setattr(mcp_link, "START_S", 4.0)
    monkeypatch.setattr(mcp_link.Link.__init__, "__kwdefaults__", {"start_s": 4.0})
    with pytest.raises(InvalidTool) as told:
        _hostile(tmp_path, word)
    problem = told.value.problems[0]
    assert ("duplicate-tool" if word == "alike" else "no-server") == problem.code
    if word == "broken":
        assert "it needs a licence" in problem.message
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert f"mcp_hostile.py {word}" not in running


@pytest.mark.req("IMPORT-6")
def test_a_pin_holds_until_the_tools_change(tmp_path: Path) -> None:
    """With the right digest nothing is pending; with any other every tool of that server is."""
    digest = _registry(tmp_path).sources[0].digest
    pinned = _registry(tmp_path, f", digest: {digest}")
    assert (frozenset(), ()) == (pinned.pending, tuple(note for note in pinned.notes if note.code != "tool-left-out"))
    source = tmp_path / "mcp_docs.py"
    source.write_text(source.read_text("utf-8").replace("give the best hit", "give the worst hit"), encoding="utf-8")
    block = f"mcp:\n  docs: {{command: [python, mcp_docs.py], {DECLARED}, digest: {digest}}}\n"
    drifted = Registry.of_fleet(fleet_at(tmp_path, block), {})
    assert set(drifted.names()) == drifted.pending
    assert "tool-drift" in {note.code for note in drifted.notes}


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Give the port of a server over HTTP on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    server = subprocess.Popen([sys.executable, str(SERVERS / "mcp_docs.py"), "http", str(number)])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            anyio.run(anyio.sleep, 0.1)
        yield number
    finally:
        server.kill()
        server.wait(20)


@pytest.mark.req("IMPORT-7")
def test_a_server_over_http_is_reached_at_the_named_place_only(tmp_path: Path, port: int) -> None:
    """Loopback needs the fleet's word; then it answers as over stdio, its death included."""
    closed = f"mcp:\n  docs: {{url: 'https://127.0.0.1:{port}/mcp'}}\n"
    with pytest.raises(InvalidTool):
        Registry.of_fleet(fleet_at(tmp_path, closed), {})
    more = "headers: {X-Token: '${secret:T}'}"
    block = f"mcp:\n  docs: {{url: 'http://127.0.0.1:{port}/mcp', private: true, {DECLARED}, timeout: 8s, {more}}}\n"
    caller = Caller(Registry.of_fleet(fleet_at(tmp_path, block), {"T": SECRET}), tmp_path)
    assert {"title": "a", "count": 5} == caller.call("docs.search", {"query": "a"}).data
    assert caller.call("docs.giant").truncated
    assert "upstream" == caller.fails("docs.wipe", {"name": "x"})
    assert caller.fails("docs.die") in ("timeout", "upstream", "unavailable")
    assert caller.fails("docs.search", {"query": "a"}) in ("unavailable", "timeout", "upstream")
    caller.registry.close()
