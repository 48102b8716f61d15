"""Clauses 24, 27, 28: endorsing: of exactly one digest, by whom it takes, once; and what follows from it stays on record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from midwatch.engine import authority, endorsing, people, quarantine
from midwatch.errors import Denied, GateNotUsable, MidwatchError
from midwatch.gates.review import Speaker
from midwatch.records.authority import AuthorityRow
from midwatch.records.label import Cause, Label
from midwatch.store.sqlite import SqliteStore
from tests.attack.containment.own import GATE, GRANT, Ground, Grounds

ANNA = Speaker("local:anna", None, "cli")
WIDER = GRANT.replace('"crm.read"', '"crm.read", "pay.transfer"')


def changed(ground: Ground, text: str, *, asked_by: str = "local:anna", by: Speaker = ANNA) -> AuthorityRow:
    """Let a run's commit change the fleet file, look at it, and give the one version that waits."""
    ground.agent_writes("fleet.yaml", text, asked_by=asked_by)
    ground.open(by)
    (row,) = ground.pending()
    return row


def endorse(ground: Ground, row: AuthorityRow, who: Speaker = ANNA, digest: str | None = None) -> endorsing.Answered:
    """Endorse it."""
    return endorsing.endorse(ground.store, row.id, digest=digest or row.digest, speaker=who, at_us=ground.tick())


@pytest.mark.req("OWN-2")
def test_twin_a_person_endorses_what_a_run_wrote(grounds: Grounds) -> None:
    """From the next run on it counts; the epoch rises; the run leads back to the endorsement, and that to the call that wrote it."""
    ground = grounds("ws")
    ground.start()
    row, epoch = changed(ground, ground.text.replace(GRANT, WIDER)), ground.epoch()
    done = endorse(ground, row)
    assert epoch + 1 == done.epoch == ground.epoch()
    right = ground.open()
    assert [("crm.read", "pay.transfer")] == [grant.may for grant in right.fleet.grants]
    began = ground.begin(right)
    wrote = next(event.seq for event in ground.store.read(lambda tx: tx.ledger.read(kinds=("finished",))))
    reached = [item.seq for item in ground.store.read(lambda tx: tx.causes.reach(wrote, limit=100))]
    assert {row.seq, done.event, began} <= set(reached)


@pytest.mark.req("OWN-2")
def test_an_endorsement_adds_a_cause_and_takes_none_away(grounds: Grounds) -> None:
    """The endorsed version is still the words of whoever led to it, beside those of who let it count."""
    ground = grounds("ws")
    ground.start()
    row = changed(ground, ground.text.replace("prompt_text: work", "prompt_text: work hard"))
    own = Label.from_json(orjson.loads(row.label))
    endorse(ground, row)
    words = ground.start().words["clerk"]
    assert own.causes | {Cause("person", "local:anna")} == words.causes


@pytest.mark.req("OWN-2")
def test_attack_the_file_changes_between_diff_and_endorsement(grounds: Grounds) -> None:
    """What was looked at is what counts: later content waits for a word of its own, though nobody looked at the file in between."""
    ground = grounds("ws")
    ground.start()
    row = changed(ground, ground.text.replace(GRANT, WIDER))
    ground.agent_writes("fleet.yaml", ground.text.replace('"pay.transfer"', '"*"'))
    with pytest.raises(GateNotUsable, match="has the digest"):
        endorse(ground, row, digest="f" * 64)
    endorse(ground, row)
    assert [("crm.read", "pay.transfer")] == [grant.may for grant in ground.start().fleet.grants]
    assert 1 == len(ground.pending())


@pytest.mark.req("OWN-2")
def test_attack_a_digest_of_few_digits_names_nothing(grounds: Grounds) -> None:
    """Whoever says less than twelve digits has not looked."""
    ground = grounds("ws")
    ground.start()
    row = changed(ground, ground.text.replace(GRANT, WIDER))
    for digest in ("", row.digest[:11]):
        with pytest.raises(GateNotUsable):
            endorsing.endorse(ground.store, row.id, digest=digest, speaker=ANNA, at_us=9)


@pytest.mark.req("OWN-2")
def test_attack_who_asked_for_the_run_endorses_what_it_made(grounds: Grounds) -> None:
    """Who asks does not answer, also under the name that they had before the home knew them; somebody else does."""
    ground = grounds("ws")
    anna, bob = ground.person("anna", "admin"), ground.person("bob", "approver")
    ground.start(anna)
    row = changed(ground, ground.text.replace(GRANT, WIDER), asked_by="anna", by=anna)
    with pytest.raises(Denied, match="who asks does not answer"):
        endorse(ground, row, anna)
    endorse(ground, row, bob)
    again = changed(ground, ground.text.replace("$1", "$2"), asked_by="local:bob", by=anna)
    with pytest.raises(Denied, match="who asks does not answer"):
        endorse(ground, again, bob)


@pytest.mark.req("OWN-2")
def test_attack_somebody_without_the_reach_or_the_role_endorses(grounds: Grounds) -> None:
    """Reach over what was there is not reach over what is added; a rule that is taken away is about every tool."""
    ground = grounds("ws")
    anna = ground.person("anna", "admin")
    crm, ops = ground.person("carl", "approver", may="crm.*"), ground.person("olga", "operator")
    pay = ground.person("paul", "approver", may="pay.*")
    ground.start(anna)
    row = changed(ground, ground.text.replace(GRANT, WIDER), asked_by="eve", by=anna)
    for who, why in ((crm, "reach"), (ops, "role")):
        with pytest.raises(Denied, match=why):
            endorse(ground, row, who)
    endorse(ground, row, pay)
    gone = changed(ground, ground.text.replace(GATE, ""), asked_by="eve", by=anna)
    with pytest.raises(Denied, match="reach"):
        endorse(ground, gone, pay)


@pytest.mark.req("OWN-2")
def test_attack_an_older_endorsed_version_reappears(grounds: Grounds) -> None:
    """What counted once and was replaced does not count again because a run puts it back."""
    ground = grounds("ws")
    wide = ground.text.replace(GRANT, WIDER)
    narrow = ground.text
    ground.file.write_text(wide, "utf-8")
    ground.start()
    ground.file.write_text(narrow, "utf-8")
    ground.start()
    row = changed(ground, wide)
    assert [("crm.read",)] == [grant.may for grant in ground.start().fleet.grants]
    assert "pending" == row.state


@pytest.mark.req("OWN-2")
def test_twin_the_current_version_reappears(grounds: Grounds) -> None:
    """A run that writes the very content that is endorsed changes nothing, and nobody is asked."""
    ground = grounds("ws")
    ground.start()
    ground.agent_writes("fleet.yaml", ground.text)
    ground.start()
    assert [] == ground.pending()


@pytest.mark.req("OWN-2")
def test_attack_what_was_rejected_comes_again(grounds: Grounds) -> None:
    """A rejected version is inert and nobody is asked again; it cannot be endorsed any more."""
    ground = grounds("ws")
    ground.start()
    row = changed(ground, ground.text.replace(GRANT, WIDER))
    endorsing.reject(ground.store, row.id, speaker=ANNA, at_us=ground.tick())
    assert [("crm.read",)] == [grant.may for grant in ground.start().fleet.grants]
    assert [] == ground.pending()
    with pytest.raises(GateNotUsable):
        endorse(ground, row)


@pytest.mark.req("OWN-2")
def test_attack_a_version_compared_with_another_one_is_endorsed(grounds: Grounds) -> None:
    """A version that was compared with what is no longer endorsed does not replace what is."""
    ground = grounds("ws")
    ground.start()
    kept = ground.text
    row = changed(ground, kept.replace(GRANT, WIDER))
    ground.agent_writes("fleet.yaml", kept.replace(GRANT, GRANT.replace("crm.read", "web.fetch")))
    ground.open()
    other = next(item for item in ground.pending() if item.id != row.id)
    endorse(ground, other)
    with pytest.raises(GateNotUsable):
        endorse(ground, row)


@pytest.mark.req("OWN-2")
def test_attack_what_was_quarantined_is_endorsed(grounds: Grounds) -> None:
    """Nothing follows from a quarantined call, no endorsement either."""
    ground = grounds("ws")
    ground.start()
    row = changed(ground, ground.text.replace(GRANT, WIDER))
    wrote = next(event.seq for event in ground.store.read(lambda tx: tx.ledger.read(kinds=("finished",))))
    quarantine.quarantine(ground.store, wrote, speaker=ANNA, reason="it looks wrong", at_us=ground.tick())
    with pytest.raises(Denied, match="quarantined"):
        endorse(ground, row)


@pytest.mark.req("OWN-2")
def test_attack_two_answer_at_the_same_time(grounds: Grounds, tmp_path: Path) -> None:
    """One word holds; the other one is refused, and the epoch rises once."""
    ground = grounds("ws", SqliteStore(tmp_path / "midwatch.db"))
    ground.start()
    row = changed(ground, ground.text.replace(GRANT, WIDER))
    epoch, outcomes, start = ground.epoch(), list[str](), threading.Barrier(4)

    def answer(place: int) -> None:
        start.wait(10)
        try:
            if place % 2:
                endorsing.reject(ground.store, row.id, speaker=ANNA, at_us=9)
            else:
                endorsing.endorse(ground.store, row.id, digest=row.digest, speaker=ANNA, at_us=9)
            outcomes.append("held")
        except MidwatchError as refused:
            outcomes.append(type(refused).__name__)

    threads = [threading.Thread(target=answer, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ["GateNotUsable"] * 3 + ["held"] == sorted(outcomes)
    assert epoch + 1 == ground.epoch()


_KILLED = """
import os, signal, sys
from pathlib import Path
from midwatch.engine import endorsing
from midwatch.gates.review import Speaker
from midwatch.store.authority import SqlAuthority
from midwatch.store.sqlite import SqliteStore

def cut(self):
    os.kill(os.getpid(), signal.SIGKILL)

SqlAuthority.raise_epoch = cut
endorsing.endorse(SqliteStore(Path(sys.argv[1])), sys.argv[2], digest=sys.argv[3], speaker=Speaker("local:x", None, "cli"), at_us=9)
"""


@pytest.mark.req("OWN-2")
def test_attack_the_endorsing_process_is_killed_in_between(grounds: Grounds, tmp_path: Path) -> None:
    """Killed after the answer and before the epoch, nothing was answered; the ledger is whole, and the word can be said again."""
    ground = grounds("ws", SqliteStore(tmp_path / "midwatch.db"))
    ground.start()
    row, epoch = changed(ground, ground.text.replace(GRANT, WIDER)), ground.epoch()
    argv = [sys.executable, "-c", _KILLED, str(tmp_path / "midwatch.db"), row.id, row.digest]
    done = subprocess.run(argv, timeout=60, check=False, env={**os.environ})
    assert -signal.SIGKILL == done.returncode
    assert ([row], epoch) == (ground.pending(), ground.epoch())
    assert ground.store.read(lambda tx: tx.ledger.verify()).ok
    endorse(ground, row)


@pytest.mark.req("OWN-2")
def test_nobody_endorses_by_a_right_that_was_taken_back(grounds: Grounds) -> None:
    """Whoever was disabled since they looked begins no run and endorses nothing."""
    ground = grounds("ws")
    anna, bob = ground.person("anna", "admin"), ground.person("bob", "approver")
    ground.start(anna)
    row = changed(ground, ground.text.replace(GRANT, WIDER), asked_by="eve", by=anna)
    late = ground.open(bob)
    ground.store.write(lambda tx: tx.principals.update("bob", disabled_us=1))
    with pytest.raises(Denied, match="taken back"):
        endorse(ground, row, bob)
    with pytest.raises(Denied, match="taken back"):
        ground.store.write(lambda tx: authority.record(tx, late.standing, at_us=9))


@pytest.mark.req("OWN-2")
def test_each_change_of_authority_raises_the_epoch(grounds: Grounds) -> None:
    """First use, an edit, a rejection and a change of people each raise it; a start does not."""
    ground, seen = grounds("ws"), [0]

    def raised() -> bool:
        seen.append(ground.epoch())
        return seen[-1] > seen[-2]

    ground.start()
    assert raised()
    ground.start()
    assert not raised()
    ground.file.write_text(ground.text.replace("$1", "$2"), "utf-8")
    ground.start()
    assert raised()
    row = changed(ground, ground.text.replace(GRANT, WIDER))
    endorsing.reject(ground.store, row.id, speaker=ANNA, at_us=ground.tick())
    assert raised()
    people.add(ground.store, "anna", roles=("admin",), may=("*",), speaker=ANNA, at_us=ground.tick())
    assert raised()


_ANSWERS = """
import sys
from pathlib import Path
from midwatch.engine import endorsing
from midwatch.errors import GateNotUsable
from midwatch.gates.review import Speaker
from midwatch.store.sqlite import SqliteStore

store, who = SqliteStore(Path(sys.argv[1])), Speaker("local:x", None, "cli")
sys.stdin.readline()
try:
    if sys.argv[4] == "endorse":
        endorsing.endorse(store, sys.argv[2], digest=sys.argv[3], speaker=who, at_us=9)
    else:
        endorsing.reject(store, sys.argv[2], speaker=who, at_us=9)
    print("held")
except GateNotUsable:
    print("refused")
store.close()
"""


@pytest.mark.req("OWN-2")
def test_attack_two_processes_answer_at_the_same_time(grounds: Grounds, tmp_path: Path) -> None:
    """Of two processes one is heard, and the state is what that one said."""
    ground = grounds("ws", SqliteStore(tmp_path / "midwatch.db"))
    ground.start()
    row, epoch = changed(ground, ground.text.replace(GRANT, WIDER)), ground.epoch()
    where = [sys.executable, "-c", _ANSWERS, str(tmp_path / "midwatch.db"), row.id, row.digest]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = {word: subprocess.Popen([*where, word], **pipes) for word in ("endorse", "reject")}  # type: ignore[call-overload]
    said = {word: process.communicate("go\n", timeout=60)[0].strip() for word, process in running.items()}
    assert ["held", "refused"] == sorted(said.values())
    state = ground.store.read(lambda tx: tx.authority.find(row.id)).state
    assert {"endorse": "endorsed", "reject": "rejected"}[
        next(word for word, out in said.items() if out == "held")
    ] == state
    assert epoch + 1 == ground.epoch()
