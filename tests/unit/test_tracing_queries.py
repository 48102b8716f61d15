"""Queries over the ledger: the tree of a run, the origin of a text, the spend."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from midwatch.errors import NotFound, UsageProblem
from midwatch.records.event import EventDraft
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Tx
from midwatch.tracing import queries
from midwatch.tracing.facts import ModelItem, NoteItem, ToolItem, as_json
from tests.recorded_run import DOUBT, GATE, RUN, record


@pytest.fixture(name="store")
def _store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    record(store)
    yield store
    store.close()


def _tools(store: MemoryStore) -> dict[str, ToolItem]:
    nodes = queries.trace(store, RUN).nodes
    return {item.tool: item for node in nodes for item in node.items if isinstance(item, ToolItem)}


@pytest.mark.req("TRACING-1")
def test_nodes_come_in_order_with_their_status(store: MemoryStore) -> None:
    """Each node task is one part of the tree, and says whether it ended."""
    nodes = queries.trace(store, RUN).nodes
    expected = [("storage.think", "finished"), ("storage.act", "started"), ("editor.think", "started")]
    assert expected == [(node.node, node.status) for node in nodes]


@pytest.mark.req("TRACING-1")
def test_each_result_stands_with_its_own_proposal(store: MemoryStore) -> None:
    """What worked, what was refused, what waits and what was cut are told apart."""
    tools = _tools(store)
    assert ["host.disks", "files.write", "host.restart", "mail.send"] == list(tools)
    assert [True, False, None, None] == [item.ok for item in tools.values()]
    assert ("denied", None) == (tools["files.write"].code, tools["files.write"].effect)
    assert DOUBT == tools["mail.send"].effect
    denied = tools["files.write"].denied_by
    assert denied is not None
    assert "containment" == denied["stage"]
    assert None is tools["host.disks"].denied_by
    assert [("gate.opened", GATE)] == [(note.kind, note.data["gate"]) for note in tools["host.restart"].notes]


@pytest.mark.req("TRACING-1")
def test_a_model_call_tells_its_tokens_and_cost(store: MemoryStore) -> None:
    """Tokens in, cached and out, and the settled cost, stand beside the model."""
    first = queries.trace(store, RUN).nodes[0].items[0]
    assert isinstance(first, ModelItem)
    assert (100, 10, 20, 250, "stop") == (first.input, first.cached, first.output, first.cost, first.finish)


@pytest.mark.req("TRACING-1")
def test_what_a_crash_said_stands_with_its_call() -> None:
    """A person learns why from the trace, not from a digest of it."""
    store = MemoryStore()
    record(store)
    intent = next(event for event in queries.events(store, RUN) if event.data.get("effect") == DOUBT)

    def work(tx: Tx) -> None:
        told = {"effect": DOUBT, "tool": "mail.send", "ok": False, "code": "crashed"}
        told["detail_blob"] = tx.blobs.put(b"no route to host")
        at, who, step = intent.at_us, intent.agent, intent.step
        tx.ledger.append(
            EventDraft(
                "finished",
                RUN,
                at,
                told,
                node=intent.node,
                agent=who,
                step=step,
                task=intent.task,
                causes=(intent.seq,),
            )
        )

    store.write(work)
    assert "no route to host" == _tools(store)["mail.send"].detail
    store.close()


@pytest.mark.req("TRACING-1")
def test_what_concerns_the_run_stands_above_its_nodes(store: MemoryStore) -> None:
    """The run's own events belong to no node."""
    notes = queries.trace(store, RUN).notes
    assert ["run.created", "run.waiting"] == [note.kind for note in notes if isinstance(note, NoteItem)]


@pytest.mark.req("TRACING-1")
def test_every_answer_is_plain_json(store: MemoryStore) -> None:
    """A program reads the same tree as a person."""
    body = json.loads(json.dumps(as_json(queries.trace(store, RUN))))
    assert ["tool"] * 4 == [item["item"] for item in body["nodes"][1]["items"]]


@pytest.mark.req("TRACING-2")
@pytest.mark.parametrize(
    "text",
    [
        "two packages changed",
        'Disk "data" is 91 % full.',
        "naïve café",
        "full.\nnaïve",
        "full.   naïve",
        "na\\u00efve",
        '\\"data\\"',
    ],
    ids=["plain", "quotes", "accents", "line break", "blanks", "as ASCII JSON", "as JSON"],
)
def test_output_leads_to_the_model_call_that_wrote_it(store: MemoryStore, text: str) -> None:
    """However the fragment was copied, the node, the prompt and the call are found."""
    found = queries.which(store, RUN, text)
    assert ("answer", "editor.think", "editor", "22" * 8) == (
        found.place.what,
        found.place.node,
        found.place.agent,
        found.effect,
    )
    assert found.request is not None
    assert "Write the report." == found.request["messages"][1]["content"]


@pytest.mark.req("TRACING-2")
def test_the_origin_of_a_fact_is_told_too(store: MemoryStore) -> None:
    """What the report took from a tool names that tool first."""
    found = queries.which(store, RUN, "91 %")
    assert ["tool result", "answer"] == [place.what for place in found.seen]
    assert ("host.disks", "33" * 8) == (found.seen[0].name, found.seen[0].effect)


@pytest.mark.req("TRACING-3")
def test_a_tool_result_leads_to_the_model_call_that_asked(store: MemoryStore) -> None:
    """A fact that no model repeated still has a caller."""
    found = queries.which(store, RUN, "WX-1234")
    assert ("tool result", "host.disks", "11" * 8) == (found.place.what, found.place.name, found.effect)


@pytest.mark.req("TRACING-2")
def test_a_text_that_stands_nowhere_is_not_found(store: MemoryStore) -> None:
    """Nothing is guessed: neither a near match nor a prompt counts as output."""
    for text in ("three packages changed", "Write the report."):
        with pytest.raises(NotFound):
            queries.which(store, RUN, text)
    with pytest.raises(UsageProblem):
        queries.which(store, RUN, " \n ")
    with pytest.raises(NotFound):
        queries.which(store, "0" * 32, "Disk")


@pytest.mark.req("TRACING-4")
def test_spend_is_told_by_agent_model_and_cap(store: MemoryStore) -> None:
    """Sums fit the settled calls; refused ones count nowhere."""
    used = queries.spend(store, RUN)
    assert (500, 240, 1) == (used.cost, used.tokens, used.tool_calls)
    shares = {share.name: (share.cost, share.tokens, share.model_calls, share.tool_calls) for share in used.agents}
    assert {"editor": (250, 120, 1, 0), "storage": (250, 120, 1, 1)} == shares
    assert [("gpt-5-mini", 500, 2)] == [(share.name, share.cost, share.model_calls) for share in used.models]
    assert [(10, 0, 1)] == [(item.cap, item.spent, item.held) for item in used.accounts if item.unit == "tool_calls"]
