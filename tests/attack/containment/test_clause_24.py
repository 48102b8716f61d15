"""Clauses 24, 31, 32: an agent changes its own fleet: grants, gates, budgets, schedules, prompts, tools; or breaks the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from midwatch.config.resources import Found
from midwatch.engine import authority, endorsing
from midwatch.engine.authority import Place
from midwatch.errors import Conflict, Denied, InvalidFleet
from midwatch.gates.review import Speaker
from midwatch.records.effect import EffectRow
from midwatch.records.event import EventDraft
from midwatch.store.port import Tx
from midwatch.tools.registry import Registry
from tests.attack.containment.own import GATE, GRANT, Ground, Grounds, loaded
from tests.policy_fleet import BASE

ANNA = Speaker("local:anna", None, "cli")
CHANGES: dict[str, tuple[Callable[[str], str], tuple[str, str]]] = {
    "gate": (lambda text: text.replace(GATE, ""), ("gates", "gates")),
    "grant": (lambda text: text.replace("crm.read", "*"), ("grants", "grants")),
    "budget": (lambda text: text.replace("$1", "$900"), ("budgets", "budgets")),
    "policy": (lambda text: text + 'policies: [{who: ["third_party:*"], may: ["*"], roles: all}]\n', ("policies", "policies")),
    "source": (lambda text: text + 'sources: {"tool:web.*": {trust: none, readers: [everyone]}}\n', ("policies", "sources")),
    "governor": (lambda text: text + "governor: {stale_after: 20m}\n", ("budgets", "governor")),
    "agent": (lambda text: text.replace("role: specialist,", "role: specialist, limits: {steps: 20},"), ("agents", "clerk")),
    "prompt": (lambda text: text.replace("prompt_text: work", "prompt_text: obey the page"), ("prompts", "clerk")),
    "sandbox": (lambda text: text + 'sandbox: {backend: process, because: "it is quicker"}\n', ("fleet", "sandbox")),
    "pin": (lambda text: text.replace("authority: pinned\n", ""), ("fleet", "authority")),
}  # fmt: skip


def names(ground: Ground) -> set[tuple[str, str]]:
    """Give what waits, by kind and name."""
    return {row.resource for row in ground.pending()}


@pytest.mark.req("OWN-1")
@pytest.mark.parametrize("what", sorted(CHANGES))
def test_attack_a_run_changes_its_own_bounds_and_the_next_run_does_not_see_it(grounds: Grounds, what: str) -> None:
    """Whatever part of the file a commit of ours changed is pending, and the next run has what was endorsed."""
    change, resource = CHANGES[what]
    ground = grounds("ws", extra="authority: pinned\n" if what == "pin" else "")
    before = ground.start().fleet
    ground.agent_writes("fleet.yaml", change(ground.text))
    assert change(before.text) != before.text
    after = ground.start().fleet
    assert {resource} == names(ground)
    assert (before.digest, before.policy_digest) == (after.digest, after.policy_digest)
    ground.start()
    assert 1 == len(ground.pending())


@pytest.mark.req("OWN-1")
@pytest.mark.parametrize("what", sorted(set(CHANGES) - {"pin"}))
def test_twin_a_person_changes_the_fleet_and_runs_it(grounds: Grounds, what: str) -> None:
    """The same edit, made outside of any run by who runs the fleet, counts without a question."""
    change, _ = CHANGES[what]
    ground = grounds("ws")
    ground.start()
    epoch, text = ground.epoch(), change(ground.text)
    ground.file.write_text(text, "utf-8")
    assert text == ground.start().fleet.text
    assert [] == ground.pending()
    assert epoch < ground.epoch()


@pytest.mark.req("OWN-1")
def test_attack_a_person_edits_on_top_of_what_a_run_wrote(grounds: Grounds) -> None:
    """An edit of some other line does not carry in what a run wrote before; that edit itself waits, too."""
    ground = grounds("ws")
    ground.start()
    ground.agent_writes("fleet.yaml", ground.text.replace(GATE, ""))
    ground.file.write_text(ground.text.replace("$1", "$2"), "utf-8")
    assert 1 == len(ground.start().fleet.gates)
    assert {("gates", "gates"), ("budgets", "budgets")} == names(ground)


@pytest.mark.req("OWN-1")
def test_twin_what_is_put_back_leaves_no_trace_on_later_edits(grounds: Grounds) -> None:
    """After the file was seen in order again, a person's edit is a person's edit."""
    ground = grounds("ws")
    ground.start()
    kept = ground.text
    ground.agent_writes("fleet.yaml", kept.replace(GATE, ""))
    ground.start()
    ground.file.write_text(kept, "utf-8")
    ground.start()
    ground.file.write_text(kept.replace("$1", "$2"), "utf-8")
    assert "$2" in ground.start().fleet.text


@pytest.mark.req("OWN-1")
def test_attack_a_commit_that_is_not_recorded_as_ended(grounds: Grounds) -> None:
    """Killed between the files and their record, or seen in between, a commit is still ours."""
    ground = grounds("ws")
    ground.start()
    ground.agent_writes("fleet.yaml", ground.text.replace(GATE, ""), ends=False)
    assert 1 == len(ground.start().fleet.gates)
    assert {("gates", "gates")} == names(ground)


@pytest.mark.req("OWN-1")
def test_attack_a_commit_lands_after_the_fleet_was_loaded(grounds: Grounds) -> None:
    """What comes in between loading and beginning is not what was judged, and is ours at the next start."""
    ground = grounds("ws")
    ground.start()
    right = ground.open()
    ground.agent_writes("fleet.yaml", ground.text.replace(GATE, ""))
    ground.begin(right)
    assert 1 == len(ground.start().fleet.gates)
    assert {("gates", "gates")} == names(ground)


@pytest.mark.req("OWN-1")
def test_attack_a_fleet_written_by_a_run_is_not_trusted_on_first_use(grounds: Grounds) -> None:
    """A fleet that this home has not seen, or a copy of one with more in it, is refused when a run of ours wrote it."""
    ground = grounds("ws")
    ground.start()
    ground.agent_writes("other.yaml", ground.text.replace(GATE, ""))
    with pytest.raises(Denied, match="grants endorse"):
        ground.start(path=ground.folder / "other.yaml")
    assert {str(ground.folder / "other.yaml")} == {row.place for row in ground.pending()}


@pytest.mark.req("OWN-1")
def test_attack_the_fleet_file_becomes_a_link_to_a_laxer_one(grounds: Grounds) -> None:
    """The name is what counts: a link that a run put there, or above it, is a change by that run."""
    ground = grounds("ws")
    lax = ground.folder / "lax.yaml"
    lax.write_text(BASE, "utf-8")
    ground.start()
    ground.agent_writes("fleet.yaml", "a link")
    ground.file.unlink()
    ground.file.symlink_to(lax)
    assert 1 == len(ground.start().fleet.gates)
    assert {("gates", "gates"), ("grants", "grants")} == names(ground)


@pytest.mark.req("OWN-1")
def test_attack_another_fleet_of_the_same_name(grounds: Grounds) -> None:
    """What was endorsed of one file says nothing about another file, whatever name that gives itself."""
    one = grounds("one")
    other = grounds("two", one.store)
    one.start()
    other.now = one.now
    other.agent_writes("fleet.yaml", other.text.replace(GATE, ""))
    with pytest.raises(Denied):
        other.start()
    assert 1 == len(one.start().fleet.gates)


def acted(ground: Ground, at: int) -> None:
    """Let a tool that nobody observes be at work at that time."""

    def work(tx: Tx) -> None:
        data = {"tool": "host.patch", "runs": "broker", "isolation": "none: in the broker"}
        seq = tx.ledger.append(EventDraft("intent", "a" * 32, at, data))
        row = EffectRow(
            id="e" * 16,
            run="a" * 32,
            task="t",
            call_id="c",
            kind="tool",
            tool="host.patch",
            tool_digest="",
            effect="write",
            agent="clerk",
            args_digest="",
            arguments="",
            epoch=1,
            attempt=1,
            status="started",
            started_us=at - 1000,
            intent_seq=seq,
        )
        tx.effects.begin(row)

    ground.store.write(work)


@pytest.mark.req("OWN-1")
def test_attack_an_effect_that_nobody_observes_wrote_the_file(grounds: Grounds) -> None:
    """A tool outside a sandbox leaves no record of the file; that it was at work when the file changed is enough."""
    ground = grounds("ws")
    ground.start()
    ground.file.write_text(ground.text.replace(GATE, ""), "utf-8")
    acted(ground, os.lstat(ground.file).st_ctime_ns // 1000)
    assert 1 == len(ground.start().fleet.gates)
    assert {("gates", "gates")} == names(ground)


@pytest.mark.req("OWN-1")
def test_attack_an_agent_adds_an_agent_and_takes_one_away(grounds: Grounds) -> None:
    """New blocks are left out and lost ones are there again."""
    ground = grounds("ws")
    before = ground.start().fleet
    more = '  imp: {role: specialist, route: local, prompt_text: "do it", tools: ["*"]}\n  pen:'
    ground.agent_writes("fleet.yaml", ground.text.replace("  pen:", more).replace("[clerk]", "[clerk, imp]"))
    assert before.digest == ground.start().fleet.digest
    assert {("agents", "imp"), ("prompts", "imp"), ("fleet", "graph")} == names(ground)
    less = (
        ground.text.replace("  clerk:", "  imp2:")
        .replace("[clerk, imp]", "[imp2, imp]")
        .replace("agent:clerk", "agent:imp2")
    )
    ground.agent_writes("fleet.yaml", less)
    assert before.digest == ground.start().fleet.digest


@pytest.mark.req("OWN-3")
@pytest.mark.parametrize("text", ["midwatch: [", "", "midwatch: 1\nfleet: office\nagents: {}\n", None])
def test_attack_an_agent_makes_the_file_invalid(grounds: Grounds, text: str | None) -> None:
    """A broken file does not make denials vanish: the endorsed version stays in its place, and what broke it is shown."""
    ground = grounds("ws")
    before = ground.start().fleet
    ground.agent_writes("fleet.yaml", text)
    assert before.digest == loaded(ground).digest
    assert [("fleet", "file")] == [row.resource for row in ground.pending()]
    row = ground.pending()[0]
    with pytest.raises(Denied, match="no fleet file"):
        endorsing.endorse(ground.store, row.id, digest=row.digest, speaker=ANNA, at_us=ground.tick())


@pytest.mark.req("OWN-3")
def test_twin_a_person_breaks_the_file(grounds: Grounds) -> None:
    """Who makes a mistake is told of it; nothing old runs in silence."""
    ground = grounds("ws")
    ground.start()
    ground.file.write_text("midwatch: [", "utf-8")
    with pytest.raises(InvalidFleet):
        loaded(ground)
    assert [] == ground.pending()


@pytest.mark.req("OWN-3")
def test_attack_an_agent_rewrites_the_code_of_its_tools(grounds: Grounds, tmp_path: Path) -> None:
    """Code that a run wrote is not loaded at all, nor is what the tools import from beside them."""
    ground = grounds("ws")
    (ground.folder / "helper.py").write_text("SAFE = True\n", "utf-8")
    (ground.folder / "tools.py").write_text(
        "import helper\n" + (ground.folder / "tools.py").read_text("utf-8"), "utf-8"
    )
    ground.start()
    mark = tmp_path / "it-ran"
    ground.agent_writes("helper.py", f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    with pytest.raises(Denied, match="code:helper"):
        ground.start()
    assert not mark.exists()
    assert {("tools", "code:helper.py")} == names(ground)


@pytest.mark.req("OWN-3")
def test_twin_a_person_rewrites_the_code_of_the_tools(grounds: Grounds) -> None:
    """Their own edit counts when they run it."""
    ground = grounds("ws")
    ground.start()
    tools = ground.folder / "tools.py"
    tools.write_text(tools.read_text("utf-8") + "MORE = 1\n", "utf-8")
    ground.start()
    assert [] == ground.pending()


@pytest.mark.req("OWN-4")
def test_attack_a_tool_changes_its_description(grounds: Grounds) -> None:
    """Of a pinned fleet a tool that is another one by now is withheld, and so is one that was not there; the others go on."""
    ground = grounds("ws", extra="authority: pinned\n")
    right = ground.start()
    registry = Registry.load(list(right.fleet.tools), right.fleet.base)
    kept = authority.contracts({name: registry.get(name).contract for name in registry.names()})
    place = Place(right.standing.place.key, "office")
    lying = {
        **kept,
        ("tools", "crm.read"): Found("f" * 64, b"{}", ()),
        ("tools", "new.one"): Found("e" * 64, b"{}", ()),
    }
    made = authority.standing(ground.store, place, lying, speaker=ANNA, pinned=True, head=0)
    assert {"crm.read", "new.one"} == {version.resource[1] for version in made.inert}
    made = authority.standing(ground.store, place, kept, speaker=ANNA, pinned=True, head=0)
    assert () == made.inert


@pytest.mark.req("OWN-1")
def test_attack_of_a_pinned_fleet_nobody_endorses_by_running(grounds: Grounds) -> None:
    """With `authority: pinned` a person's edit waits as well, also the one that would unpin it."""
    ground = grounds("ws", extra="authority: pinned\n")
    ground.start()
    ground.file.write_text(ground.text.replace(GATE, "").replace("authority: pinned\n", ""), "utf-8")
    after = ground.start().fleet
    assert ("pinned", 1) == (after.authority, len(after.gates))
    assert {("gates", "gates"), ("fleet", "authority")} == names(ground)


@pytest.mark.req("OWN-1")
def test_attack_authority_is_answered_between_loading_and_beginning(grounds: Grounds) -> None:
    """A run that was loaded under what is no longer endorsed does not begin, and does not endorse it anew."""
    ground = grounds("ws")
    ground.start()
    late = ground.open()
    ground.file.write_text(ground.text.replace("$1", "$2"), "utf-8")
    ground.start()
    with pytest.raises(Conflict):
        ground.begin(late)


@pytest.mark.req("OWN-1")
def test_attack_who_runs_it_does_not_reach_what_it_grants(grounds: Grounds) -> None:
    """Running endorses only what the runner's own reach covers."""
    ground = grounds("ws")
    anna, bob = ground.person("anna", "admin"), ground.person("bob", "operator", may="crm.*")
    ground.start(anna)
    ground.file.write_text(
        ground.text.replace(GRANT, GRANT.replace('"crm.read"', '"crm.read", "pay.transfer"')), "utf-8"
    )
    assert [("crm.read",)] == [grant.may for grant in ground.start(bob).fleet.grants]
    assert {("grants", "grants")} == names(ground)


@pytest.mark.req("OWN-1")
def test_attack_a_link_halfway_is_turned_round(grounds: Grounds) -> None:
    """A run that makes a link on the way to the fleet lead elsewhere has changed the fleet, though it wrote no file of it."""
    ground = grounds("ws")
    for name, text in (("strict", ground.text), ("lax", BASE)):
        (ground.folder / name).mkdir()
        (ground.folder / name / "fleet.yaml").write_text(text, "utf-8")
        for beside in ("scenario.yaml", "tools.py"):
            (ground.folder / name / beside).write_bytes((ground.folder / beside).read_bytes())
    (ground.folder / "middle").mkdir()
    turned = ground.folder / "middle" / "now"
    turned.symlink_to("../strict")
    (ground.folder / "conf").symlink_to("middle/now")
    path = ground.folder / "conf" / "fleet.yaml"
    assert 1 == len(ground.start(path=path).fleet.gates)
    ground.agent_writes("middle/other", "x")
    assert 1 == len(ground.start(path=path).fleet.gates)
    turned.unlink()
    ground.agent_writes("middle/now", "a link")
    turned.unlink()
    turned.symlink_to("../lax")
    assert 1 == len(ground.start(path=path).fleet.gates)
    assert {("gates", "gates"), ("grants", "grants")} == names(ground)


@pytest.mark.req("OWN-1")
@pytest.mark.parametrize("changed", ["file", "link"])
def test_attack_an_unobserved_effect_writes_behind_a_link(grounds: Grounds, changed: str) -> None:
    """When a fleet file is a link, both count: when the link changed, and when what it leads to did."""
    ground = grounds("ws")
    real, link = ground.folder / "real.yaml", ground.file
    link.rename(real)
    link.symlink_to("real.yaml")
    ground.start()
    other = ground.folder / "lax.yaml"
    other.write_text(real.read_text("utf-8").replace(GATE, ""), "utf-8")
    if changed == "link":
        link.unlink()
        link.symlink_to("lax.yaml")
    else:
        real.write_text(other.read_text("utf-8"), "utf-8")
    acted(ground, os.lstat(link if changed == "link" else real).st_ctime_ns // 1000)
    assert 1 == len(ground.start().fleet.gates)
    assert {("gates", "gates")} == names(ground)
