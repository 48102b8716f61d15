"""Which parts of a foreign graph count as guarded, and the tripwire around functions that claim to have no effects."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.errors import InvalidFleet
from midwatch.graph.tripwire import guarded, is_guarded
from midwatch.surfaces.cli import main
from tests.scenario.ground import AGENT_GRAPH, PLAIN_GRAPH, Ground, calls, rules

GUARDED = PLAIN_GRAPH.replace('graph.add_node("think", think)', 'graph.add_node("think", kit.guarded(think))')
MIDDLEWARE = AGENT_GRAPH.replace("system_prompt=", "middleware=[Mine()], system_prompt=").replace(
    "def build",
    "from langchain.agents.middleware import AgentMiddleware\n\nclass Mine(AgentMiddleware):\n"
    "    async def awrap_model_call(self, request, handler):\n        return await handler(request)\n"
    "    def wrap_model_call(self, request, handler):\n        return handler(request)\n\ndef build",
)
BEFORE = MIDDLEWARE.replace("awrap_model_call(self, request, handler)", "abefore_model(self, state, runtime)").replace(
    "        return await handler(request)\n    def wrap_model_call(self, request, handler):\n        return handler(request)\n",
    "        return None\n",
)
OWN_TOOL = AGENT_GRAPH.replace('kit.tools("worker")', 'kit.tools("worker") + [mine]').replace(
    "def build",
    'from langchain_core.tools import tool\n\n@tool\ndef mine(x: str) -> str:\n    """Mine."""\n    return x\n\ndef build',
)
OTHER_MODEL = AGENT_GRAPH.replace('kit.model("worker")', "GenericFakeChatModel(messages=iter(()))").replace(
    "def build", "from langchain_core.language_models import GenericFakeChatModel\n\ndef build"
)
WRAPPED = GUARDED.replace(
    "ToolNode(tools, handle_tool_errors=True)", "ToolNode(tools, awrap_tool_call=around)"
).replace("def build", "async def around(request, handler):\n    return await handler(request)\n\ndef build")
ROUTED = GUARDED.replace('"think", tools_condition,', '"think", lambda state: tools_condition(state),')
HANDLER = GUARDED.replace("kit.guarded(think))", "kit.guarded(think), error_handler=lambda state: {})")
ERRORS = GUARDED.replace("handle_tool_errors=True", "handle_tool_errors=lambda error: str(error)")
BORROWED = GUARDED.replace(", kit.guarded(think))", ", model_node)").replace(
    "    graph = State", "    async def model_node(state):\n        return await think(state)\n\n    graph = State"
)
STORED = AGENT_GRAPH.replace("system_prompt=", "store=InMemoryStore(), system_prompt=").replace(
    "def build", "from langgraph.store.memory import InMemoryStore\n\ndef build"
)
SUBCLASS = GUARDED.replace("ToolNode(tools, handle", "Mine(tools, handle").replace(
    "def build", "class Mine(ToolNode):\n    pass\n\ndef build"
)


@pytest.mark.req("GOVERN-12")
@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (GUARDED, {}),
        (AGENT_GRAPH, {}),
        (PLAIN_GRAPH, {"think": "its own code"}),
        (MIDDLEWARE, {"agent.model": "middleware"}),
        (BEFORE, {"agent.Mine.before_model": "its own code"}),
        (OWN_TOOL, {"agent.tools": "`mine` is not the kit's"}),
        (OTHER_MODEL, {"agent.model": "not the kit's"}),
        (WRAPPED, {"act": "wrapped"}),
        (ROUTED, {"think": "routing function"}),
        (HANDLER, {"__error_handler__think": "its own code"}),
        (ERRORS, {"act": "errors are handled"}),
        (BORROWED, {"think": "its own code"}),
        (SUBCLASS, {"act": "its own code"}),
        (STORED, {"agent": "outside of the run"}),
    ],
    ids=[
        "guarded",
        "create_agent",
        "own node",
        "wrapping middleware",
        "middleware node",
        "own tool",
        "own model",
        "wrapper of calls",
        "own route",
        "error handler",
        "handler of tool errors",
        "a borrowed name",
        "a subclass",
        "a store",
    ],
)
def test_a_part_is_guarded_only_when_it_is_recognised_whole(tmp_path: Path, graph: str, found: dict[str, str]) -> None:
    """Warnings by default; errors, which refuse the fleet, under `require_guarded`."""
    ground = Ground(tmp_path, graph)
    loaded, _ = wiring.load_fleet(ground.fleet, environ={})
    errors, warnings, _ = wiring.check_fleet(loaded, {})
    told = [problem for problem in warnings if problem.code == "unguarded"]
    assert ([], sorted(found)) == (list(errors), sorted(problem.message.split("`")[1] for problem in told))
    assert all(any(word in problem.message for word in found.values()) for problem in told)
    assert all("fleet.yaml:" in problem.where for problem in told)
    place = ground.fleet / "fleet.yaml"
    place.write_text(place.read_text() + "\nrequire_guarded: true\n")
    if found:
        with pytest.raises(InvalidFleet, match="unguarded"):
            ground.run()
    else:
        assert "done" == ground.run().status


@pytest.mark.req("GOVERN-12")
def test_check_shows_them(tmp_path: Path) -> None:
    """`midwatch check` names the node, its reason and the line of the fleet file."""
    ground = Ground(tmp_path)
    shown = CliRunner().invoke(main, ["check", str(ground.fleet)])
    assert 0 == shown.exit_code, shown.output
    assert "`think` is unguarded" in shown.output


def writes(place: Path) -> None:
    """Write a file."""
    (place / "made").write_text("x")


def removes(place: Path) -> None:
    """Remove a file."""
    (place / "there").unlink()


def starts(place: Path) -> None:
    """Start a process."""
    subprocess.run(["touch", str(place / "made")], check=True)


def shells(place: Path) -> None:
    """Start a shell."""
    os.system(f"touch {place / 'made'}")  # noqa: S605 - it must not run


def connects(_: Path) -> None:
    """Open a connection."""
    with socket.create_connection(("127.0.0.1", 9), timeout=1):
        raise AssertionError


class Tripped(Exception):
    """What the trip raises here."""


@pytest.mark.req("GOVERN-12")
@pytest.mark.parametrize("act", [writes, removes, starts, shells, connects])
def test_a_guarded_function_that_reaches_outside_is_stopped(tmp_path: Path, act: Callable[[Path], None]) -> None:
    """Nothing happens, in a synchronous and in an asynchronous function; the same outside of it is nobody's business."""
    (tmp_path / "there").touch()
    watched = guarded(act, Tripped)

    async def later(place: Path) -> None:
        act(place)

    with pytest.raises(Tripped, match="a tool of the fleet"):
        watched(tmp_path)
    with pytest.raises(Tripped):
        asyncio.run(guarded(later, Tripped)(tmp_path))
    assert ["there"] == [path.name for path in tmp_path.iterdir()]
    assert (True, False) == (is_guarded(watched), is_guarded(act))


@pytest.mark.req("GOVERN-12")
def test_a_guarded_function_may_read_and_compute(tmp_path: Path) -> None:
    """Reading a file is no effect."""
    (tmp_path / "there").write_text("text")
    assert "text" == guarded((tmp_path / "there").read_text, Tripped)()
    writes(tmp_path)


SNEAKY = PLAIN_GRAPH.replace('graph.add_node("think", think)', 'graph.add_node("think", kit.guarded(sneak))').replace(
    "    graph = State",
    "    async def sneak(state):\n        try:\n            open(PLACE, 'w')\n        except Exception:\n            pass\n"
    "        return await think(state)\n\n    graph = State",
)


@pytest.mark.req("GOVERN-12")
def test_a_guarded_node_that_reaches_outside_stops_the_run(tmp_path: Path) -> None:
    """Also when it swallows what stopped it; the model is not asked, nothing is written."""
    ground = Ground(tmp_path, SNEAKY.replace("PLACE", repr(str(tmp_path / "made"))))
    result = ground.run()
    assert ("failed", "UsageProblem", 0, False) == (
        result.status,
        result.error_code,
        ground.bill(),
        (tmp_path / "made").exists(),
    )
    assert "reached outside" in (result.error_message or "")


@pytest.mark.req("GOVERN-12")
def test_a_guarded_node_works_with_the_kit(tmp_path: Path) -> None:
    """The kernel's own writes are no effects of the node."""
    ground = Ground(tmp_path, GUARDED, rules(calls(("log", {"line": "x"}))))
    assert ("done", ["log x"]) == (ground.run().status, ground.calls())
