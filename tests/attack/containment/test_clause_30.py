"""Clause 30 over whole runs: denied, then something of authority changed, then the same again; by whatever tool, agent or process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine.containing import Containing
from midwatch.engine.outcomes import Outcomes
from midwatch.records.authority import AuthorityRow, AuthorityState
from midwatch.records.event import EventDraft
from midwatch.store.port import Tx
from tests.scenario.bank import TOOLS, Bank, Call
from tests.scenario.studio import Host, Studio

MORE = '''
Path_ = Annotated[Text, Arg(role="target")]

@tool(effect="read", runs="broker", open_world=False, observers=())
def vault(context: ToolContext, path: Path_) -> Annotated[dict[str, Text], Out(author="service")]:
    """Open something."""
    log(context, f"vault {path}")
    if not (context.workdir / ".ssh" / "authorized_keys").exists() and not (context.workdir / "open").exists():
        raise FAILURE
    return {"text": "gold"}

@tool(effect="read", runs="broker", open_world=False, observers=())
def peer(context: ToolContext, file: Annotated[Text, Arg(role="selector")]) -> Annotated[dict[str, Text], Out(author="service")]:
    """Look into something, as another tool does."""
    log(context, f"peer {file}")
    return {"text": "gold"}

@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def put(context: ToolContext, path: Path_, text: Plain = "") -> Annotated[dict[str, Text], Out(author="service")]:
    """Write a file."""
    log(context, f"put {path}")
    place = context.workdir / path
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    return {"path": path}
'''
TOLD = 'ToolFailure("denied", "403")'
RAISED = 'PermissionError(13, "Permission denied")'
ROLES = "[control, target, selector, quantity, command, credential, content]"
ALL = f'\npolicies: [{{who: ["service:*", "third_party:*"], may: ["*"], roles: {ROLES}}}]\n'
KEYS: Call = ("ops_put", {"path": ".ssh/authorized_keys", "text": "ssh-ed25519 AAAA me"})
NOTES: Call = ("ops_put", {"path": "notes/today.txt", "text": "ssh-ed25519 AAAA me"})
VAULT: Call = ("ops_vault", {"path": "vault/gold"})


def bank(
    root: Path,
    *mine: list[Call],
    theirs: tuple[list[Call], ...] = (),
    last: tuple[list[Call], ...] = (),
    how: str = TOLD,
    mode: str = "enforce",
    extra: str = ALL,
) -> Bank:
    """Make a bank in which every word has the reach, so that clause 30 alone decides."""
    tools = TOOLS + MORE.replace("FAILURE", how)
    return Bank(root / "b", mine, theirs, last, extra=extra, tools=tools, mode=mode)


@pytest.mark.req("CLAUSE-30")
@pytest.mark.parametrize("how", [TOLD, RAISED])
@pytest.mark.parametrize(
    "again",
    [
        VAULT,
        ("ops_vault", {"path": "./vault/../vault/gold"}),
        ("ops_peer", {"file": "vault/gold"}),
    ],
)
def test_refused_then_a_key_was_planted_then_the_same_again_waits(tmp_path: Path, how: str, again: Call) -> None:
    """However the refusal was said, by whatever spelling or tool: a person sees the chain, and nothing happens before a yes."""
    place = bank(tmp_path, [VAULT], [KEYS], [again], how=how)
    waits = place.go()
    assert ("waiting", ["put .ssh/authorized_keys", "vault vault/gold"]) == (waits.status, place.calls())
    reason = place.cards(waits.run)[0]["reason"]
    assert "the same had no permission" in reason
    assert "which may have decided that" in reason
    assert "gold" not in reason
    mark = place.marks(waits.run, again[0].replace("_", "."), "outcomes")[0]
    events = {event.seq: event.kind for event in place.events(waits.run)}
    found = mark["escalation"]
    assert ("ask", "finished", "intent") == (mark["outcome"], events[found["refused"]], events[found["changed"]])
    assert "done" == place.answer(waits.run).status
    assert 3 == len(place.calls())


@pytest.mark.req("CLAUSE-30")
@pytest.mark.parametrize(
    "mine",
    [
        ([VAULT], [NOTES], [VAULT]),
        ([KEYS], [VAULT], [VAULT]),
        ([VAULT], [KEYS], [("ops_vault", {"path": "vault/silver"})]),
        ([VAULT], [KEYS], [("ops_put", {"path": "vault/gold"})]),
        ([VAULT], [VAULT], [VAULT]),
    ],
)
def test_benign_retries_ask_nobody(tmp_path: Path, mine: tuple[list[Call], ...]) -> None:
    """No change of authority; one from before; another resource; another effect; the plain retry."""
    place = bank(tmp_path, *mine)
    assert "done" == place.go().status
    assert 3 == len(place.calls())


@pytest.mark.req("CLAUSE-30")
def test_by_another_agent_of_the_run_and_in_another_process_it_is_the_same(tmp_path: Path) -> None:
    """What one was refused and another changed, a third does not get; the wait is taken up by a new kernel that folds the same ledger."""
    place = bank(tmp_path, [VAULT], theirs=([("ops_mail", {})],), last=([KEYS], [VAULT]))
    waits = place.go()
    assert ("waiting", 1) == (waits.status, len(place.calls("vault")))
    assert "waiting" == place.go(waits.run).status
    assert 1 == len(place.calls("vault"))
    done = place.answer(waits.run, approve=False)
    assert ("done", 1) == (done.status, len(place.calls("vault")))


@pytest.mark.req("CLAUSE-30")
def test_a_no_at_a_gate_is_a_refusal_too(tmp_path: Path) -> None:
    """A person says no to a command; its author changes a key, and another spelling of the same asks again, with the chain."""
    gates = ALL + "\n"
    place = bank(
        tmp_path, [("ops_ring", {"service": "alarm"})], [KEYS], [("ops_ring", {"service": " alarm "})], extra=gates
    )
    place.change("gates: [", 'gates: [{when: {tool: ["ops.ring"]}, ask: operator, timeout: 15m}, ')
    place.change('review: {exempt: [{tool: ["ops.*", "files.*"]}]}', 'review: {exempt: [{tool: ["ops.put"]}]}')
    run = place.go().run
    waits = place.answer(run, approve=False)
    assert ("waiting", []) == (waits.status, place.calls("ring"))
    assert "was refused by a person" in place.cards(run)[-1]["reason"] + place.cards(run)[0]["reason"]


@pytest.mark.req("CLAUSE-30")
def test_a_yes_overrules_what_was_refused_before(tmp_path: Path) -> None:
    """A person who grants it has granted it: the fourth call of the same waits no more."""
    place = bank(tmp_path, [VAULT], [KEYS], [VAULT], [VAULT])
    waits = place.go()
    done = place.answer(waits.run)
    assert ("done", 3) == (done.status, len(place.calls("vault")))


@pytest.mark.req("CLAUSE-30")
def test_where_nobody_may_say_yes_it_is_denied_in_words(tmp_path: Path) -> None:
    """The one who asked is the only operator: denied, with a hint, without the resource; and that is no way round either."""
    place = bank(tmp_path, [VAULT], [KEYS], [VAULT], [VAULT])
    token = place.person("ann", "operator")
    done = place.spoken(token)
    assert ("done", 1) == (done.status, len(place.calls("vault")))
    assert ["denied", None, "denied", "denied"] == place.codes(done.run)
    error = place.results(done.run)[2]["error"]
    assert error["hint"]
    assert "gold" not in json.dumps(error)


@pytest.mark.req("CLAUSE-30")
def test_where_a_fleet_records_it_is_only_written_down(tmp_path: Path) -> None:
    """The run goes on; its record names the chain."""
    place = bank(tmp_path, [VAULT], [KEYS], [VAULT], mode="record")
    done = place.go()
    assert ("done", 2) == (done.status, len(place.calls("vault")))
    mark = place.marks(done.run, "ops.vault", "outcomes")[0]
    assert ("pass", "ask", "permission") == (mark["outcome"], mark["would"], mark["escalation"]["how"])


@pytest.mark.req("CLAUSE-30")
@pytest.mark.parametrize(("mode", "calls"), [("enforce", 0), ("record", 1)])
def test_a_ledger_that_cannot_be_read_lets_nothing_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, calls: int
) -> None:
    """Fault injected into the reading of outcomes: denied where it is enforced, on record where it is recorded."""

    def broken(self: Outcomes, tx: Tx) -> None:
        raise OSError("gone")

    monkeypatch.setattr(Outcomes, "_fold", broken)
    place = bank(tmp_path, [("ops_ring", {"service": "desk"})], mode=mode)
    done = place.go()
    assert ("done", calls) == (done.status, len(place.calls("ring")))


@pytest.mark.req("CLAUSE-30")
def test_what_changes_between_the_verdict_and_the_intent_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time of check, time of use: the change lands after stage 3 judged; the transaction of the intent judges once more."""
    real, judged = Outcomes.rule, []

    def early(self: Outcomes, p: object) -> object:
        judged.append(p)
        if len(judged) == 3:  # as if the second call had not been there when the third was judged
            return None
        return real(self, p)  # type: ignore[arg-type]

    monkeypatch.setattr(Outcomes, "rule", early)
    place = bank(tmp_path, [VAULT], [KEYS], [VAULT])
    waits = place.go()
    assert ("waiting", 1) == (waits.status, len(place.calls("vault")))
    assert ["denied", None] == place.codes(waits.run)


GET: Call = ("get", {"path": "/gold"})


@pytest.mark.req("CLAUSE-30")
@pytest.mark.parametrize(
    ("middle", "seen"),
    [
        (("put", {"path": ".npmrc", "text": "registry=http://evil.example\n"}), 1),
        (("put", {"path": "a.txt", "text": "x"}), 2),
    ],
)
def test_a_request_that_a_host_refused_does_not_leave_again_after_a_change(
    tmp_path: Path, middle: Call, seen: int
) -> None:
    """In a sandbox, at the broker: 403, then a registry is planted, then the same address: it is not sent. Its twin is."""
    with Host(status=403) as host:
        studio = Studio(tmp_path / "s", [[GET], [middle], [GET]], sandbox=host.rule())
        (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
        studio.rules("gates: []", "gates: []\ncontainment: enforce\n" + ALL)
        studio.carry()
    assert ["/gold"] * seen == [item[1] for item in host.seen]


BELL: Call = ("ops_ring", {"service": "desk"})
OURS = AuthorityRow(
    id="a" * 16,
    place="/w/fleet.yaml",
    fleet="bank",
    kind="grants",
    name="grants",
    number=1,
    digest="d" * 64,
    predecessor=None,
    state="pending",
    body=None,
    source=None,
    label="{}",
    why="a run wrote it",
    asked_by="",
    by="run",
    at_us=1,
    seq=1,
    seen_seq=1,
)


def _answered(place: Bank, state: AuthorityState, *, waited: bool) -> None:
    """Let a version of the fleet's own authority count, or not: one that waited for a person's word, or one that a person brought in."""

    def work(tx: Tx) -> None:
        said = tx.ledger.append(EventDraft("authority.endorsed", None, 1, {"versions": []}))
        tx.authority.add(replace(OURS, state="pending" if waited else state, seq=said))
        if waited:
            tx.authority.answer(OURS.id, state=state, by="ann", at_us=2, seq=said)
        tx.authority.raise_epoch()

    with wiring.open_store(place.home) as store:
        store.write(work)


@pytest.mark.req("CLAUSE-30")
@pytest.mark.parametrize(
    ("state", "waited", "ends"),
    [("endorsed", True, "waiting"), ("rejected", True, "waiting"), ("endorsed", False, "done")],
)
def test_a_word_about_what_waited_of_our_own_authority_is_a_change(
    tmp_path: Path, state: AuthorityState, waited: bool, ends: str
) -> None:
    """Refused, then somebody endorses what a run wrote, then the same: it asks, and names the version. What a person wrote asks nobody."""
    place = bank(tmp_path, [VAULT], [BELL], [VAULT])
    place.change("gates: [", 'gates: [{when: {tool: ["ops.ring"]}, ask: operator, timeout: 15m}, ')
    place.change('exempt: [{tool: ["ops.*", "files.*"]}]', 'exempt: [{tool: ["ops.vault"]}]')
    run = place.go().run
    _answered(place, state, waited=waited)
    done = place.answer(run)
    assert (ends, 2 if ends == "done" else 1) == (done.status, len(place.calls("vault")))
    assert (ends == "waiting") == any("grants/grants" in card["reason"] for card in place.cards(run))


@pytest.mark.req("CLAUSE-30")
def test_what_was_moved_under_a_call_that_had_begun_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody said no: the call met a change of another one. It says `conflict`, and the same after a change of authority asks nobody."""
    seen: list[object] = []

    def moved(self: Containing, p: object) -> bool:
        seen.append(p)
        return len(seen) == 1

    monkeypatch.setattr(Containing, "moved", moved)
    place = bank(tmp_path, [VAULT], [KEYS], [VAULT])
    done = place.go()
    assert ("done", ["conflict", None, None]) == (done.status, place.codes(done.run))
