"""Items of handoffs as the pure step reads them: what a reference can show, and what it is made to show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.agents.answers import Evidence, Parsed, Rejected, parse_handoff
from midwatch.records.call import AgentRole
from midwatch.records.handoff import Criterion, Handoff, Item

WROTE, IDLE, LOOKED, BROKE, FAILED = (f"e:{digit * 16}" for digit in "12345")
KNOWN = {
    WROTE: Evidence("ops.put", ok=True, changed=True),
    IDLE: Evidence("ops.put", ok=True, changed=False),
    LOOKED: Evidence("ops.look", ok=True),
    BROKE: Evidence("tests.run", ok=True, passed=False),
    FAILED: Evidence("ops.put", ok=False, changed=True),
}
EARLIER = Handoff("worker", "complete", (Item("put it there", (WROTE,), "done"),), (Item("look at it"),), ())
NAMES = [name for _, _, _, name in EARLIER.items()]


def read(
    *evidence: str, field: str = "changed", role: AgentRole = "synthesis", shown_by: str = "tests.run"
) -> Parsed | Rejected:
    """Read a handoff of one item that cites this."""
    body: dict[str, Any] = {"changed": [], "needed": [], "risks": []}
    body[field] = [{"text": "it is so", "evidence": list(evidence)}]
    if role == "synthesis":
        body["answer"] = "# Report"
    criteria = (Criterion("tests pass", (shown_by,)),)
    return parse_handoff(
        json.dumps(body),
        agent="a",
        role=role,
        criteria=criteria,
        resolve=KNOWN.get,
        truncated=False,
        received=(EARLIER,),
    )


def codes(found: Parsed | Rejected) -> list[str]:
    """Give the codes of a refusal."""
    return [item.code for item in found.items] if isinstance(found, Rejected) else []


def handoff(found: Parsed | Rejected) -> Handoff:
    """Give what was taken."""
    assert isinstance(found, Parsed)
    assert isinstance(found.value, Handoff)
    return found.value


@pytest.mark.req("HANDOFF-1")
@pytest.mark.parametrize(
    ("cited", "wrong"),
    [
        ((), ["no_evidence"]),
        ((IDLE,), ["no_change"]),
        ((FAILED,), ["failed"]),
        ((WROTE, FAILED), ["failed"]),
        (("e:" + "9" * 16,), ["unknown"]),
        (("h:" + "9" * 16,), ["unknown_item"]),
        ((NAMES[1],), ["no_evidence"]),
        ((WROTE,), []),
        ((LOOKED, IDLE), []),
        ((NAMES[0],), []),
    ],
)
def test_what_can_show_a_change(cited: tuple[str, ...], wrong: list[str]) -> None:
    """A call that ended well and did not only fail to change anything; an item stands for what it cites itself."""
    assert wrong == codes(read(*cited))


@pytest.mark.req("HANDOFF-1")
def test_done_is_not_seen() -> None:
    """An item that only looks, or that was passed on, is no deed of its author's own words."""
    words = [handoff(read(*cited)).changed[0].shown for cited in ((WROTE,), (LOOKED,), (NAMES[0],), (LOOKED, IDLE))]
    assert ["done", "seen", "done", "seen"] == words


@pytest.mark.req("HANDOFF-1")
@pytest.mark.parametrize(
    ("cited", "shown_by", "unmet"),
    [
        (BROKE, "tests.run", True),
        (LOOKED, "tests.run", True),
        (LOOKED, "ops.look", False),
        (FAILED, "ops.put", True),
    ],
)
def test_tests_pass_only_by_a_run_that_passed(cited: str, shown_by: str, unmet: bool) -> None:
    """It takes the declared tool, a call that ended well, and a result that does not say otherwise."""
    assert unmet == bool(handoff(read(cited, field="risks", shown_by=shown_by)).unmet)


@pytest.mark.req("HANDOFF-1")
def test_a_specialist_cites_no_items_and_says_nothing_of_what_they_show() -> None:
    """Its shape has neither; what the kernel adds cannot be written by an agent."""
    assert "schema" == getattr(read(NAMES[0], role="specialist"), "code", None)
    body = {"changed": [{"text": "x", "evidence": [LOOKED], "shown": "done"}], "needed": [], "risks": []}
    told = parse_handoff(
        json.dumps(body), agent="a", role="specialist", criteria=(), resolve=KNOWN.get, truncated=False
    )
    assert "schema" == getattr(told, "code", None)


@pytest.mark.req("HANDOFF-2")
def test_a_refusal_names_every_broken_item_and_quotes_no_text() -> None:
    """Field, place, code and hint; the agent's own sentence stays out of it."""
    item = {"text": "SECRET", "evidence": ["e:" + "9" * 16]}
    body = {"changed": [{"text": "SECRET", "evidence": []}, item], "needed": [item], "risks": []}
    found = parse_handoff(
        json.dumps(body), agent="a", role="specialist", criteria=(), resolve=KNOWN.get, truncated=False
    )
    assert isinstance(found, Rejected)
    places = [(each.field, each.index, each.code) for each in found.items]
    assert [("changed", 0, "no_evidence"), ("changed", 1, "unknown"), ("needed", 0, "unknown")] == places
    assert (True, False) == (all(each.hint for each in found.items), "SECRET" in str(found))
