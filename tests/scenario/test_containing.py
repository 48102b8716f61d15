"""Containing over whole runs: whose words lead to a call, who is asked then, and what stays the same whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.containment.provenance import Trail
from midwatch.engine import answering
from midwatch.engine.trails import Trails
from midwatch.store.causes import SqlCauses
from midwatch.store.port import Tx
from tests.scenario.bank import EVE, PAY, TOOLS, Bank, Call

MAIL: Call = ("ops_mail", {})
BOUND = (
    '[{who: "agent:*", may: [ops.mail]}, {who: "agent:*", may: ["ops.*"]}, '
    '{who: "agent:*", may: [ops.ring], where: {service: "desk"}}]'
)


@pytest.mark.req("CONTAIN-1")
def test_words_of_a_third_party_before_a_payment_wait_for_a_person(tmp_path: Path) -> None:
    """Read, then pay: exit code 3, nothing happened; the card says which control and argument, and which cause; a yes pays once."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]])
    waits = bank.go()
    assert ("waiting", []) == (waits.status, bank.calls())
    card = bank.cards(waits.run)[0]
    assert "`third_party:ops.mail` may have chosen that it happens, and may not" in card["reason"]
    links = {(lack["where"], lack["role"], lack["cause"]) for lack in card["lacks"]}
    assert {("control", "control", "third_party:ops.mail"), ("amount", "quantity", "third_party:ops.mail")} <= links
    done = bank.answer(waits.run)
    assert ("done", [f"pay {EVE} 70"]) == (done.status, bank.calls("pay"))


@pytest.mark.req("CONTAIN-1")
def test_without_a_strangers_words_nobody_is_asked(tmp_path: Path) -> None:
    """The benign twin: what the request alone led to is done at once."""
    bank = Bank(tmp_path / "b", [[PAY], [MAIL]])
    done = bank.go()
    assert ("done", [f"pay {EVE} 70"]) == (done.status, bank.calls("pay"))


@pytest.mark.req("CONTAIN-1")
def test_a_no_and_a_silence_are_no(tmp_path: Path) -> None:
    """Denied by a person, and answered by nobody in time: nothing is paid, the agent is told, the run goes on to its end."""
    bank = Bank(tmp_path / "no", [[MAIL], [PAY]])
    run = bank.go().run
    done = bank.answer(run, approve=False)
    assert ("done", [], [None, "denied"]) == (done.status, bank.calls("pay"), bank.codes(run))
    late = Bank(tmp_path / "late", [[MAIL], [PAY]])
    run = late.go().run
    with wiring.open_store(late.home) as store:
        store.write(lambda tx: answering.expire(tx, wiring.clock() + 3_600_000_000))
    done = late.go(run)
    assert ("done", [], [None, "denied"]) == (done.status, late.calls("pay"), late.codes(run))


@pytest.mark.req("CONTAIN-2")
def test_where_nobody_has_the_reach_it_is_denied_in_words_without_the_value(tmp_path: Path) -> None:
    """Only the one who asked could say yes, and who asks does not answer: denied as data, with a hint, without account or sum."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]])
    token = bank.person("ann", "operator")
    done = bank.spoken(token)
    assert ("done", [], [None, "denied"]) == (done.status, bank.calls("pay"), bank.codes(done.run))
    error = bank.results(done.run)[1]["error"]
    assert error["hint"]
    assert not {EVE, "70"} & set(json.dumps(error).split('"'))


@pytest.mark.req("CONTAIN-3")
def test_a_grant_that_binds_every_argument_is_a_mandate(tmp_path: Path) -> None:
    """The operator's own words in advance: the bound value passes whatever was read; another one asks."""
    bank = Bank(
        tmp_path / "b",
        [[MAIL], [("ops_ring", {"service": "desk"})], [("ops_ring", {"service": "alarm"})]],
        grants=BOUND,
    )
    waits = bank.go()
    assert ("waiting", ["ring desk"]) == (waits.status, bank.calls("ring"))
    assert "mandate grants[2]/ops.ring" == bank.marks(waits.run, "ops.ring", "containment")[0]["contained"]


@pytest.mark.req("CONTAIN-3")
def test_two_grants_do_not_combine(tmp_path: Path) -> None:
    """The recipient of one line and the note of another are bound by no line together; each line by itself passes."""
    tools = TOOLS + SEND
    grants = (
        '[{who: "agent:*", may: [ops.mail]}, {who: "agent:*", may: [ops.send]}, '
        '{who: "agent:*", may: [ops.send], where: {to: "ann@example.org", case: "a"}}, '
        '{who: "agent:*", may: [ops.send], where: {to: "bob@example.org", case: "b"}}]'
    )
    calls = [
        ("ops_send", {"to": f"{to}@example.org", "case": case})
        for to, case in (("ann", "a"), ("bob", "b"), ("ann", "b"))
    ]
    bank = Bank(tmp_path / "b", [[MAIL], *([call] for call in calls)], grants=grants, tools=tools)
    waits = bank.go()
    assert ("waiting", ["send ann@example.org a", "send bob@example.org b"]) == (waits.status, bank.calls("send"))


SEND = '''
@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def send(context: ToolContext, to: Target, case: Named) -> dict[str, Text]:
    """Send a case."""
    log(context, f"send {to} {case}")
    return {"sent": to}
'''
POLICY = """
policies:
  - {who: ["third_party:*", "service:*"], may: [ops.ring], roles: [control]}
"""


@pytest.mark.req("CONTAIN-4")
def test_a_value_has_the_label_of_where_it_stood_whole(tmp_path: Path) -> None:
    """Who may choose the moment may not choose the target: a target of the request or of a service passes as theirs, a mail's does not."""
    desk = ("ops_ring", {"service": "front desk"})
    asked = Bank(tmp_path / "asked", [[MAIL], [desk]], extra=POLICY)
    assert "done" == asked.go(request={"bell": "front desk"}).status
    assert (
        "waiting"
        == Bank(tmp_path / "part", [[MAIL], [desk]], extra=POLICY).go(request="ring the front desk now").status
    )
    service = Bank(
        tmp_path / "service",
        [[MAIL], [("ops_book", {})], [("ops_ring", {"service": EVE})]],
        extra=POLICY + '  - {who: "service:ops.book", may: [ops.ring], roles: [target]}\n',
    )
    assert "done" == service.go().status


@pytest.mark.req("CONTAIN-4")
def test_a_declared_source_is_its_own_author(tmp_path: Path) -> None:
    """A source trusted in full may bring about what a policy gives it, and nothing else; the same text from elsewhere may not."""
    extra = (
        'sources: {"tool:ops.mail": {name: post, trust: full, writers: [sales], readers: everyone}}\n'
        'policies: [{who: "source:post", may: [ops.pay], roles: [control, target, quantity]}]\n'
    )
    bank = Bank(tmp_path / "b", [[MAIL], [PAY], [("ops_ring", {"service": "desk"})]], extra=extra)
    waits = bank.go()
    assert ("waiting", [f"pay {EVE} 70"]) == (waits.status, bank.calls())
    assert [["person:local:ann", "source:post"]] == bank.causes(waits.run, "ops.pay")


@pytest.mark.req("CONTAIN-5")
def test_the_synthesis_has_all_labels_and_specialists_have_their_own(tmp_path: Path) -> None:
    """Two specialists side by side do not have each other's; what is handed over brings all of it to the synthesis."""
    bank = Bank(tmp_path / "b", [[MAIL], [MAIL]], [[("ops_book", {})], [("ops_book", {})], [PAY]], [[PAY]])
    first = bank.go()
    assert ("waiting", [], [["person:local:ann", "service:ops.book"]]) == (
        first.status,
        bank.calls("pay"),
        bank.causes(first.run, "ops.pay"),
    )
    assert "waiting" == bank.answer(first.run).status
    had = {"service:ops.book", "third_party:ops.mail", "third_party:ops.pay"}
    assert {"person:local:ann", *had} == set(bank.causes(first.run, "ops.pay")[-1])


@pytest.mark.req("CONTAIN-6")
def test_labels_survive_a_wait_and_a_kill_exactly(tmp_path: Path) -> None:
    """Mail and payment of one answer, side by side; then killed in another process: every decision on one call has the same label."""
    bank = Bank(
        tmp_path / "b",
        [[MAIL], [("ops_mail", {"name": "second"}), PAY, ("ops_book", {})], [("ops_ring", {"service": "x"})]],
    )
    waits = bank.go()
    (bank.work / "die").touch()
    for gate in waits.gates:
        bank.say(gate)
    killed = bank.process(waits.run)
    assert -9 == killed.returncode, killed.stderr
    (bank.work / "die").unlink()
    bank.freed()
    again = bank.process(waits.run)
    assert json.loads(again.stdout.splitlines()[-1])[1] == "waiting", again.stderr
    labels = [mark["label"] for mark in bank.marks(waits.run, "ops.pay")]
    assert len(labels) >= 2
    assert all(label == labels[0] for label in labels), labels
    assert ["person:local:ann", "third_party:ops.mail"] == labels[0]["causes"]


@pytest.mark.req("CONTAIN-7")
def test_record_changes_nothing_but_what_is_recorded(tmp_path: Path) -> None:
    """The same fleet, recording and as if there were no containment at all: the same envelopes, the same world; the record says `would`."""
    calls: list[list[Call]] = [[MAIL, ("ops_fail", {})], [PAY], [("ops_fetch", {"url": "https://example.org"})]]
    recorded = Bank(tmp_path / "r", calls, mode="record")
    done = recorded.go()
    enforced = Bank(tmp_path / "e", calls)
    run = enforced.go().run
    while enforced.go(run).status == "waiting":
        enforced.answer(run)
    assert "done" == done.status
    # Two calls of one answer end in whatever order they do.
    assert sorted(map(_plain, enforced.results(run))) == sorted(map(_plain, recorded.results(done.run)))
    assert sorted(map(str, enforced.calls())) == sorted(map(str, recorded.calls()))
    assert enforced.causes(run, "ops.pay")[0] == recorded.causes(done.run, "ops.pay")[0]
    assert ("pass", "ask") == tuple(
        recorded.marks(done.run, "ops.pay", "containment")[0][key] for key in ("outcome", "would")
    )


def _plain(envelope: object) -> str:
    text = json.loads(json.dumps(envelope))
    text["meta"].pop("ms", None)
    text["refs"] = []
    return json.dumps(text, sort_keys=True)


FAULTS = [
    (Trails, "__init__"),
    (Trails, "trail"),
    (Trails, "context"),
    (Trails, "chosen"),
    (Trails, "written"),
    (Trails, "learn"),
    (Trails, "_past"),
    (Trail, "add"),
    (Trail, "trace"),
    (SqlCauses, "writers"),
]


@pytest.mark.req("CONTAIN-8")
@pytest.mark.parametrize(("owner", "name"), FAULTS, ids=lambda item: item if isinstance(item, str) else item.__name__)
def test_what_cannot_be_judged_is_denied_and_harms_no_run_that_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """Whatever breaks: enforcing, the payment does not happen by itself; recording, the run is as ever, and its record says so."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    calls: list[list[Call]] = [[MAIL], [("files_list", {"path": "."})], [PAY]]
    recorded = Bank(tmp_path / "r", calls, mode="record")
    enforced = Bank(tmp_path / "e", calls)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, broken)
        done, held = recorded.go(), enforced.go()
    assert ("done", [None, None, None], 1) == (done.status, recorded.codes(done.run), len(recorded.calls("pay")))
    assert [] == enforced.calls("pay")
    marks = recorded.marks(done.run, "ops.pay")
    assert "unknown" in marks[0]["label"]["causes"] or "unjudged" in marks[0]
    assert held.status in ("done", "waiting")


@pytest.mark.req("CONTAIN-11")
def test_the_past_is_read_once_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two agents and several calls: one reading, and one more after the wait."""
    made: list[int] = []
    past = Trails._past

    def counted(self: Trails, tx: Tx) -> object:
        made.append(1)
        return past(self, tx)

    monkeypatch.setattr(Trails, "_past", counted)
    bank = Bank(tmp_path / "b", [[MAIL, MAIL], [PAY]], [[MAIL]])
    waits = bank.go()
    assert ("waiting", 1) == (waits.status, len(made))
    assert ("done", 2) == (bank.answer(waits.run).status, len(made))


@pytest.mark.req("CONTAIN-6")
def test_what_a_person_wrote_in_the_place_of_the_agents_words_is_judged_anew(tmp_path: Path) -> None:
    """An edit by a person: what happens is what they wrote, it was asked about, and its label is that of what the agent had seen."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]])
    waits = bank.go()
    with bank.opened() as kernel:
        kernel.edit(waits.gates[0], {"to": EVE, "amount": 5, "note": "rent"}, reason="too much")
    done = bank.answer(waits.run)
    assert ("done", [f"pay {EVE} 5"]) == (done.status, bank.calls("pay"))
    assert all("third_party:ops.mail" in causes for causes in bank.causes(waits.run, "ops.pay"))
