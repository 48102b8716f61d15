"""Drawings of graphs: what is in them, that names cannot break them, and that nothing outside this machine is asked."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from midwatch.graph import paint
from midwatch.graph.draw import Drawing, Edge, Node
from midwatch.surfaces.cli import main
from tests.scenario.ground import Ground, one_node
from tests.scenario.replays import Team, team_rules

HOSTILE = '"]--><script>alert(1)</script>&`\x1b[2J\n#;'


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection."""

    def refused(*_: object) -> None:
        raise AssertionError("a drawing asked the network")

    monkeypatch.setattr(socket.socket, "connect", refused)


def _cli(team: Ground, *options: str) -> str:
    done = CliRunner().invoke(main, ["--home", str(team.home), "graph", str(team.fleet), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.req("GRAPH-1")
def test_a_team(tmp_path: Path) -> None:
    """A team is drawn with its roles, routes, tools, the loops of its agents, and who must say yes."""
    team = Team(tmp_path, team_rules("worker"))
    told = json.loads(_cli(team, "--json"))
    nodes = {node["id"]: node for node in told["nodes"]}
    edges = {(edge["source"], edge["target"]): edge["conditional"] for edge in told["edges"]}
    assert ["ceo", "local: scripted/tiny"] == nodes["boss:think"]["detail"]
    assert ["operator"] == nodes["worker:act"]["gates"]
    assert "boss:act" not in nodes
    assert {True} == {edges["boss:think", "worker:think"], edges["worker:think", "worker:act"]}
    assert edges["worker:act", "worker:think"] is False
    assert "__start__ → boss:think" in _cli(team)


@pytest.mark.req("GRAPH-1")
def test_an_imported_graph(tmp_path: Path) -> None:
    """An imported graph is drawn, too, and its parts that nobody governs are marked."""
    ground = Ground(tmp_path, one_node("async def n(state):\n    return {}"))
    told = json.loads(_cli(ground, "--json"))
    marked = [node["id"] for node in told["nodes"] if node["unguarded"]]
    assert ["n"] == marked
    assert "unguarded" in _cli(ground, "--mermaid")


@pytest.mark.req("GRAPH-2")
def test_pictures(tmp_path: Path) -> None:
    """The SVG is well-formed, the same each time, without script or address, and overwrites nothing but a picture."""
    team = Team(tmp_path, team_rules("worker"))
    place = tmp_path / "graph.svg"
    _cli(team, "--svg", str(place))
    first = place.read_text()
    _cli(team, "--svg", str(place))
    assert first == place.read_text() == _cli(team, "--svg", "-")
    ET.fromstring(first)  # noqa: S314 - our own text
    assert "script>" not in first
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r"https?://[^\"]+", first))
    place.write_text("my notes")
    done = CliRunner().invoke(main, ["graph", str(team.fleet), "--svg", str(place)])
    assert (2, "my notes") == (done.exit_code, place.read_text())


@pytest.mark.req("GRAPH-2")
def test_hostile_names() -> None:
    """A name with quotes, tags and control characters stays one label."""
    nodes = (Node("__start__", "start"), Node(HOSTILE, "node", (HOSTILE,), (HOSTILE,), HOSTILE))
    drawn = Drawing(HOSTILE, nodes, (Edge("__start__", HOSTILE), Edge(HOSTILE, HOSTILE, conditional=True)))
    root = ET.fromstring(paint.svg(drawn))  # noqa: S314 - our own text
    assert not [item for item in root.iter() if "script" in item.tag]
    text = paint.mermaid(drawn)
    assert "<script" not in text
    assert all(line.count('"') in (0, 2) for line in text.splitlines())


@pytest.mark.req("GRAPH-2")
def test_boxes_lie_apart(tmp_path: Path) -> None:
    """No two boxes overlap, and cycles do not keep the layout from ending."""
    names = [f"n{place}" for place in range(12)]
    edges = [Edge("__start__", "n0"), *(Edge(a, b, conditional=True) for a in names for b in names)]
    drawn = Drawing("ring", (Node("__start__", "start"), *(Node(name, "node") for name in names)), tuple(edges))
    root = ET.fromstring(paint.svg(drawn))  # noqa: S314 - our own text
    boxes = [
        tuple(float(item.attrib[key]) for key in ("x", "y", "width", "height"))
        for item in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert len(boxes) == 13
    for at, (x, y, wide, tall) in enumerate(boxes):
        for left, top, wide2, tall2 in boxes[at + 1 :]:
            assert x + wide <= left or left + wide2 <= x or y + tall <= top or top + tall2 <= y
