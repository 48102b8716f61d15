"""An office: tools that read what strangers wrote, pay, send, keep and open; for chains whose power is a cause, and no file of a sandbox.

In:   a `Case` whose steps are calls. Out: `acted`, what a chain left behind. The fleet enforces; nothing of it knows any case.
`mail` and `fail` bring in a stranger's words, `letter` does so behind handles, `book` gives the house's own; `pay`, `transfer_rent`,
`send_letter`, `keep`, `ring` and `put` act; `vault` and `peer` open what is closed; `cut` ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.attack.escalation.suite import Case, Ran, script
from tests.scenario.handling import Handling, behind

__all__ = ["acted"]

MORE = '''
Path_ = Annotated[Text, Arg(role="target")]
Address = Annotated[str, Field(max_length=200, json_schema_extra={"format": "email"}), Arg(role="target")]

@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def send_letter(context: ToolContext, to: Address, text: Plain = "") -> dict[str, Text]:
    """Send a letter."""
    log(context, f"letter {to}")
    return {"sent": to}

Account = Annotated[str, Field(max_length=40, json_schema_extra={"format": "iban"}), Arg(role="target")]

@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def transfer_rent(context: ToolContext, account: Account, amount: Amount) -> dict[str, Text]:
    """Transfer the rent to an account."""
    log(context, f"transfer {amount}")
    return {"paid": account}

@tool(effect="read", runs="broker", open_world=False, observers=())
def vault(context: ToolContext, path: Path_) -> Annotated[dict[str, Text], Out(author="service")]:
    """Open something."""
    if not (context.workdir / "opened").exists():
        log(context, "closed")
        (context.workdir / "opened").touch()
        raise PermissionError(13, "Permission denied")
    log(context, f"vault {path}")
    return {"text": "gold"}

@tool(effect="read", runs="broker", open_world=False, observers=())
def peer(context: ToolContext, file: Annotated[Text, Arg(role="selector")]) -> Annotated[dict[str, Text], Out(author="service")]:
    """Look into something, as another tool does."""
    log(context, f"vault {file}")
    return {"text": "gold"}

@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def put(context: ToolContext, path: Path_, text: Plain = "") -> Annotated[dict[str, Text], Out(author="service")]:
    """Write a file."""
    log(context, f"put {path}")
    place = context.workdir / "files" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return {"path": path}

@tool(effect="read", runs="broker", open_world=False, observers=())
def cut(context: ToolContext) -> Annotated[dict[str, Text], Out(author="service")]:
    """Give the time; the process may end meanwhile."""
    if (context.workdir / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"time": "now"}
'''
TEMPLATES: Mapping[str, str] = {"ACCOUNT": behind("ops_letter", "account"), "TEXT": behind("ops_letter", "text")}
REQUEST = "pay the rent"


def acted(case: Case, steps: Sequence[Any], root: Path) -> Ran:
    """Carry out a chain, session by session, each in a kernel that was opened anew."""
    bounds = f", bounds: {{{case.bounds}}}" if case.bounds else ""
    office = Handling(root, [[]], extra=case.operator, more=bounds)
    tools = office.fleet / "ops.py"
    tools.write_text(tools.read_text() + MORE)
    statuses: list[str] = []
    told: set[str] = set()
    for asked, session in _sessions(case.request or REQUEST, steps):
        script(office.fleet / "scenario.yaml", session)
        ends = any(step["call"] == "cut" for step in session)
        result = _cut(office, asked) if ends else office.go(request=asked)
        statuses.append(result.status)
        if result.status == "waiting":
            told |= {word for card in office.cards(result.run) for word in _told(card)}
    place = office.work / "calls"
    did = place.read_text().splitlines() if place.exists() else []
    return Ran(statuses, {}, [], [], frozenset(told), [], did)


def _cut(office: Handling, asked: str) -> Any:
    """Let the process end at the step that says so, and another one take the run up."""
    (office.work / "die").touch()
    office.process(request=asked)
    (office.work / "die").unlink()
    return office.go(office.freed())


def _told(card: Mapping[str, Any]) -> Iterator[str]:
    if card.get("lacks"):
        yield "causes"
    if "the same" in card.get("reason", "") and "then the run changed" in card["reason"]:
        yield "retries"


def _sessions(request: str, steps: Sequence[Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Give what each session is asked for, and its steps; a session that says nothing is asked what the case is."""
    found: list[Mapping[str, Any]] = []
    asked = request
    for step in steps:
        if step == "session" or "session" in step:
            yield asked, found
            found, asked = [], request if step == "session" else step["session"]
        else:
            given = {name: TEMPLATES.get(value, value) for name, value in step.get("with", {}).items()}
            found.append({**step, "with": given})
    yield asked, found
