"""A small office of tools and agents, for tests of policies: mail, a directory, the web, payments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from midwatch.config.fleet import Fleet
from midwatch.tools.contract import Arg
from midwatch.tools.decorate import tool
from midwatch.tools.registry import Registry

__all__ = ["BASE", "REGISTRY", "office", "write"]

_Email = Annotated[str, Field(json_schema_extra={"format": "email"})]
_Inert = Annotated[str, Arg(role="content", interprets=False)]


@tool(name="mail.send", effect="write", reversible=False, open_world=True)
def send(
    to: Annotated[list[_Email], Arg(role="target")],
    subject: _Inert,
    body: _Inert,
    urgency: Annotated[Literal["low", "high"], Arg(role="content", interprets=False)] = "low",
) -> dict[str, str]:
    """Send a mail.

    Args:
        to: whom. subject: its title. body: its text. urgency: how soon.
    """
    return {}


@tool(name="pay.transfer", effect="write", reversible=False, open_world=True)
def transfer(
    account: Annotated[str, Arg(role="target")],
    amount: Annotated[int, Arg(role="quantity")],
    note: Annotated[Any, Arg(role="content", interprets=False)] = None,
) -> dict[str, str]:
    """Pay somebody.

    Args:
        account: whom. amount: how much. note: anything.
    """
    return {}


@tool(name="crm.read", effect="read", open_world=False)
def read(name: Annotated[str, Arg(role="selector")]) -> dict[str, str]:
    """Look somebody up.

    Args:
        name: who.
    """
    return {}


@tool(name="web.fetch", effect="read", open_world=True)
def fetch(
    url: Annotated[str, Field(json_schema_extra={"format": "uri"}), Arg(role="target")],
) -> dict[str, str]:
    """Fetch a page.

    Args:
        url: which.
    """
    return {}


REGISTRY = Registry.of([send, transfer, read, fetch])

BASE = """\
midwatch: 1
fleet: office
routes: {local: {provider: scripted, scenario: scenario.yaml}}
tools: ["python:tools.py"]
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  clerk: {role: specialist, route: local, prompt_text: work, tools: ["*"]}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: [clerk], synthesis: pen}}
budgets: {run: {cost: "$1"}}
"""


def write(folder: Path, rest: str = "") -> Path:
    """Write the fleet, what it says besides, and a module that gives it these tools; the file's path."""
    (folder / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    (folder / "tools.py").write_text("from tests.policy_fleet import fetch, read, send, transfer\n", encoding="utf-8")
    file = folder / "fleet.yaml"
    file.write_text(BASE + rest, encoding="utf-8")
    return file


def office(folder: Path, rest: str = "") -> Fleet:
    """Load it."""
    return Fleet.load(write(folder, rest), environ={})
