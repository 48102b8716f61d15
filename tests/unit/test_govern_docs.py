"""The how-to's graph is a graph that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.graph.govern import Kit
from tests.scenario.ground import Ground, calls, rules

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "govern-your-graph.md"


@pytest.mark.req("GOVERN-1")
def test_the_graph_of_the_page_runs_and_is_guarded(tmp_path: Path) -> None:
    """As it stands there, in a fleet that refuses unguarded graphs."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert 1 == len(code)
    ground = Ground(tmp_path, code[0], rules(calls(("look", {"what": "disk"}))), extra="require_guarded: true")
    assert ("done", ["look disk"]) == (ground.run().status, ground.calls())
    assert [] == wiring.check_fleet(wiring.load_fleet(ground.fleet, environ={})[0], {})[0]


def test_the_page_names_what_the_kit_has() -> None:
    """Every call in its table exists, and every public call of the kit stands in it."""
    named = set(re.findall(r"^\| `kit\.([a-z]+)\(", PAGE.read_text(), re.MULTILINE))
    public = {name for name in vars(Kit) if not name.startswith("_") and callable(getattr(Kit, name))}
    assert public == named
