"""Policies: the fleet's words become rights, sources and mandates; what is told of them; grants with conditions."""

from pathlib import Path
from typing import Any

import pytest

from midwatch.containment import grants
from midwatch.containment.policies import mandates, rights, slot, sources
from midwatch.containment.policy_lint import check_policies
from midwatch.containment.reach import Reach
from midwatch.containment.slots import OneOf, Pattern, accepts
from midwatch.containment.trial import Trial, judge, word_of
from midwatch.records.decision import Allowed, Denied
from midwatch.records.label import OPERATOR, Cause
from tests.policy_fleet import REGISTRY, office

CRM = Cause("source", "crm")
WEB = Cause("third_party", "web.fetch")
GRANT = 'grants: [{who: agent:clerk, may: "*"}]\n'
TRUSTED = 'sources: {"tool:crm.*": {name: crm, trust: full, writers: [sales]}}\n'
MAIL: dict[str, Any] = {"to": ["ann@example.org"], "subject": "hello", "body": "text"}


def _policy(text: str) -> str:
    return f"policies:\n  - {{{text}}}\n"


def _codes(folder: Path, rest: str) -> tuple[list[str], list[str]]:
    errors, warnings = check_policies(office(folder, rest), REGISTRY)
    return [problem.code for problem in errors], [problem.code for problem in warnings]


@pytest.mark.req("POLICY-5")
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (MAIL, "policies[0]"),
        (MAIL | {"to": ["ann@EXAMPLE.org"]}, "policies[0]"),
        (MAIL | {"to": ["ann@example.org", "eve@example.com"]}, None),
        (MAIL | {"to": ["ann@example.org.evil.com"]}, None),
        (MAIL | {"to": []}, None),
        (MAIL | {"subject": "x" * 80}, None),
        ({key: value for key, value in MAIL.items() if key != "subject"}, None),
    ],
)
def test_a_right_needs_all_that_its_policy_says(tmp_path: Path, arguments: dict[str, Any], wanted: str | None) -> None:
    """Every address is parsed and must fit, and the condition must be true."""
    rest = TRUSTED + _policy(
        "who: source:crm, may: mail.send, roles: [target], where: {to: '*@example.org'}, when: args.subject.size() < 80"
    )
    reach = Reach(rights(office(tmp_path, rest), REGISTRY))
    assert wanted == reach.may(CRM, "mail.send", "target", arguments=arguments)


@pytest.mark.req("POLICY-5")
def test_a_right_reaches_no_other_cause_role_or_tool(tmp_path: Path) -> None:
    """What a policy does not name, it does not give; an unknown cause never has anything."""
    rest = TRUSTED + _policy("who: [source:crm, 'person:*', 'agent:*'], may: 'mail.*', roles: [target]")
    reach = Reach(rights(office(tmp_path, rest), REGISTRY))
    assert "policies[0]" == reach.may(CRM, "mail.send", "target", arguments=MAIL)
    for cause, tool, role in (
        (WEB, "mail.send", "target"),
        (Cause("unknown"), "mail.send", "target"),
        (CRM, "mail.send", "control"),
        (CRM, "pay.transfer", "target"),
    ):
        assert reach.may(cause, tool, role, arguments=MAIL) is None


@pytest.mark.req("POLICY-5")
def test_a_policy_gives_nothing_for_tools_that_its_condition_does_not_fit(tmp_path: Path) -> None:
    """Untyped, `!=` would be true of another type; so such a tool has no right at all."""
    made = rights(
        office(tmp_path, _policy("who: 'third_party:*', may: '*', roles: all, when: args.amount != 'x'")), REGISTRY
    )
    assert () == made
    made = rights(
        office(tmp_path, _policy("who: 'third_party:*', may: '*', roles: all, when: args.amount < 5")), REGISTRY
    )
    assert [("pay.transfer",)] == [right.may for right in made]
    assert made[0].condition is not None
    assert (True, False) == (made[0].condition({"amount": 1}), made[0].condition({"amount": 9}))


@pytest.mark.req("POLICY-5")
def test_without_the_tools_a_condition_that_does_not_compile_is_no_right(tmp_path: Path) -> None:
    """Whoever skipped the check gets no right, instead of one without its condition."""
    fleet = office(tmp_path, _policy("who: 'third_party:*', may: '*', roles: all, when: 'args.amount <'"))
    assert () == rights(fleet)
    assert () == rights(fleet, REGISTRY)


@pytest.mark.req("POLICY-5")
@pytest.mark.parametrize(
    ("text", "kind", "value", "taken"),
    [
        ("https://*.example.org/docs/**", "url", "https://a.example.org/docs/x/y", True),
        ("https://*.example.org/docs/**", "url", "https://a.example.org/docs/../admin", False),
        ("https://*.example.org/docs/**", None, "https://a.example.org/docs/x", True),
        ("*@example.org", None, "ann@example.org", True),
        ("*@example.org", None, "ann@example.org@evil.com", False),
        ("reports/*", None, "reports/a.md", True),
        ("reports/*", None, "reports/a/b.md", False),
        ("reports/**", None, "reports/a/b.md", True),
        ("reports/**", None, "reports/../secret", False),
        ("INV-*", "id:invoice", "INV-7", True),
        ("ann@example.org", "email", "ann@Example.org", True),
        ("hello", None, "hello", True),
        ("hello", None, "hello world", False),
    ],
)
def test_patterns_match_the_parsed_value(text: str, kind: str | None, value: str, taken: bool) -> None:
    """By what the argument declares, else by what the pattern looks like."""
    read = slot(text, kind)
    own = read.kind if isinstance(read, Pattern) else kind
    assert isinstance(read, OneOf | Pattern)
    assert taken == accepts(read, value, own)


@pytest.mark.req("POLICY-6")
def test_a_grant_that_binds_all_that_matters_is_a_mandate(tmp_path: Path) -> None:
    """Issued by the operator, one line for each tool, without counts."""
    fleet = office(tmp_path, "grants: [{who: agent:clerk, may: mail.send, where: {to: '*@example.org'}}]\n")
    (mandate,) = mandates(fleet, REGISTRY, "clerk")
    (line,) = mandate.lines
    assert ("grants[0]", OPERATOR, None) == (mandate.id, mandate.issuer, mandate.expires_us)
    assert ("mail.send", {"to": (Pattern("email", "*@example.org"),)}, None) == (line.tool, dict(line.slots), line.most)
    assert () == mandates(fleet, REGISTRY, "pen")


@pytest.mark.req("POLICY-6")
@pytest.mark.parametrize(
    "grant",
    [
        "may: mail.send",
        "may: mail.send, where: {to: '*'}",
        "may: mail.send, where: {to: '**'}",
        "may: mail.send, where: {to: ['*@example.org', '*']}",
        "may: mail.send, where: {to: '*@example.org', subject: 'hello'}",
        "may: mail.send, where: {to: '*@example.org'}, if: args.subject == 'x'",
        "may: mail.send, where: {subject: 'hello'}",
        "may: pay.transfer, where: {account: 'DE89370400440532013000'}",
        "may: pay.transfer, where: {account: 'DE89370400440532013000', amount: '5'}",
        "may: crm.read, where: {name: ann}",
        "may: '*', where: {nothing: 'x'}",
    ],
)
def test_a_grant_that_leaves_something_open_is_none(tmp_path: Path, grant: str) -> None:
    """An open target, a number that no pattern fits, a bound that a mandate would forget, a condition."""
    assert () == mandates(office(tmp_path, f"grants:\n  - {{who: agent:clerk, {grant}}}\n"), REGISTRY, "clerk")


@pytest.mark.req("POLICY-6")
@pytest.mark.parametrize(
    ("to", "word"),
    [(["ann@example.org"], "allowed"), (["eve@example.com"], "ask"), (["ann@example.org", "eve@example.com"], "ask")],
)
def test_within_a_mandate_it_happens_whoever_picked_the_moment(tmp_path: Path, to: list[str], word: str) -> None:
    """Another grant allows the tool without bounds; that makes no mandate of it."""
    fleet = office(
        tmp_path,
        "grants:\n  - {who: agent:clerk, may: mail.send, where: {to: '*@example.org'}}\n  - {who: agent:clerk, may: '*'}\n",
    )
    ruling = judge(fleet, REGISTRY, Trial("clerk", "mail.send", MAIL | {"to": to}, context=(WEB,)))
    assert word == word_of(ruling)


@pytest.mark.req("POLICY-7")
@pytest.mark.parametrize("turned", [False, True])
def test_the_narrowest_source_counts_whatever_the_order(tmp_path: Path, turned: bool) -> None:
    """Digests leave the order of keys out, so it must mean nothing."""
    lines = [
        '  "tool:*": {name: all}',
        '  "tool:crm.*": {name: part}',
        '  "tool:crm.read": {name: one, readers: [ann, requester]}',
    ]
    fleet = office(tmp_path, "sources:\n" + "\n".join(reversed(lines) if turned else lines) + "\n")
    assert ["one", "part", "all"] == [source.name for source in sources(fleet)]
    assert frozenset({"ann", "bob"}) == sources(fleet, requester="bob")[0].readers
    assert frozenset({"ann"}) == sources(fleet)[0].readers


@pytest.mark.req("POLICY-7")
def test_a_source_without_readers_is_as_open_as_its_tools(tmp_path: Path) -> None:
    """Where the tools are known; else it has the readers of what is closed."""
    fleet = office(tmp_path, 'sources: {"tool:*": {name: all}, "tool:crm.*": {name: crm, readers: everyone}}\n')
    found = {source.pattern: source.readers for source in sources(fleet, REGISTRY, closed=frozenset({"ann"}))}
    assert (None, None, frozenset({"ann"})) == (found["tool:crm.*"], found["tool:web.fetch"], found["tool:crm.read"])
    assert {"tool:*": frozenset({"ann"}), "tool:crm.*": None} == {
        source.pattern: source.readers for source in sources(fleet, closed=frozenset({"ann"}))
    }


@pytest.mark.req("POLICY-8")
@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ("who: 'person:*', may: mail.sned, roles: all", "idle-policy"),
        ("who: operator, may: mail.send, roles: all", "idle-policy"),
        ("who: 'person:*', may: mail.send, roles: [credential]", "idle-role"),
        ("who: 'person:*', may: mail.send, roles: all, where: {cc: x}", "idle-policy"),
        ("who: 'person:*', may: pay.transfer, roles: all, where: {amount: '5'}", "never-true"),
        ("who: 'person:*', may: mail.send, roles: all, where: {to.name: ann}", "idle-policy"),
        ("who: 'person:*', may: mail.send, roles: all, where: {to: ann}", "never-true"),
        ("who: 'person:*', may: mail.send, roles: all, where: {to: 'ann*'}", "never-true"),
        ("who: 'person:*', may: mail.send, roles: all, where: {urgency: quick}", "never-true"),
        ("who: 'person:*', may: web.fetch, roles: all, where: {url: '*.example.org'}", "never-true"),
        ("who: 'person:*', may: mail.send, roles: all, when: args.urgency == 'quick'", "never-true"),
        ("who: 'person:*', may: mail.send, roles: all, when: args.urgency != 'quick'", "unknown-literal"),
        ("who: 'person:*', may: pay.transfer, roles: all, when: args.note == 1", "free-form"),
        ("who: 'person:*', may: '*', roles: all, when: args.amount < 5", "idle-condition"),
        ("who: 'third_party:*', may: mail.send, roles: [target]", "wide-policy"),
    ],
)
def test_what_gives_nothing_or_too_much_is_told(tmp_path: Path, policy: str, code: str) -> None:
    """As a warning: the fleet can run, and its author should know."""
    errors, warnings = _codes(tmp_path, _policy(policy))
    assert [] == errors
    assert code in warnings


@pytest.mark.req("POLICY-8")
def test_sound_policies_are_left_alone(tmp_path: Path) -> None:
    """No warning about what does what it says."""
    rest = TRUSTED + _policy(
        "who: source:crm, may: mail.send, roles: [target, control], where: {to: '*@example.org'}, when: args.subject.size() < 80"
    )
    assert ([], []) == _codes(tmp_path, rest)


@pytest.mark.req("POLICY-8")
def test_a_policy_that_another_contains_is_told_once(tmp_path: Path) -> None:
    """The narrower one; of two that say the same, the later one."""
    wide = "  - {who: 'person:*', may: 'mail.*', roles: all}\n"
    narrow = "  - {who: 'person:ann', may: mail.send, roles: [target], where: {to: '*@example.org'}}\n"
    same = "  - {who: 'person:*', may: ['mail.*'], roles: [target, command, credential, selector, quantity, content, control]}\n"
    for policies, line in ((wide + narrow, 13), (narrow + wide, 12)):
        _, warnings = check_policies(office(tmp_path, "policies:\n" + policies), REGISTRY)
        assert [("shadowed-policy", str(line))] == [(each.code, each.where.rpartition(":")[2]) for each in warnings]
    other = "  - {who: 'person:ann', may: mail.send, roles: all, when: args.urgency == 'low'}\n"
    assert ([], []) == _codes(tmp_path, "policies:\n" + other + narrow)
    assert same.count("control") == 1


@pytest.mark.req("POLICY-8")
@pytest.mark.parametrize(
    ("rest", "line"),
    [
        (_policy("who: 'person:*', may: mail.send, roles: all, when: args.subject"), 12),
        (_policy("who: 'person:*', may: mail.send, roles: all, when: args.subjct == 'x'"), 12),
        (_policy("who: 'person:*', may: nothing.here, roles: all, when: 'args.x =='"), 12),
        ("grants:\n  - {who: agent:clerk, may: pay.transfer, if: args.amount == 'x'}\n", 12),
        ("grants:\n  - {who: agent:clerk, may: '*', if: args.amount < 5}\n", 12),
    ],
)
def test_a_condition_that_cannot_be_used_is_an_error(tmp_path: Path, rest: str, line: int) -> None:
    """A grant's must fit each of its tools, because it is asked for each of them."""
    errors, _ = check_policies(office(tmp_path, rest), REGISTRY)
    assert [("bad-condition", str(line))] == [(each.code, each.where.rpartition(":")[2]) for each in errors]


@pytest.mark.req("POLICY-8")
def test_idle_sources_are_told(tmp_path: Path) -> None:
    """No such tool, or trusted and given nothing."""
    assert ([], ["idle-source"]) == _codes(tmp_path, 'sources: {"tool:nothing.*": {trust: none}}\n')
    assert ([], ["idle-source"]) == _codes(tmp_path, TRUSTED)


@pytest.mark.req("POLICY-10")
def test_the_condition_of_a_grant_is_enforced(tmp_path: Path) -> None:
    """True allows; false, an error and a missing argument do not; another grant still may."""
    fleet = office(tmp_path, "grants: [{who: agent:clerk, may: pay.*, if: args.amount <= 100}]\n")

    def decide(arguments: dict[str, Any]) -> Allowed | Denied:
        return grants.decide(fleet.grants, agent="clerk", tool="pay.transfer", arguments=arguments)

    assert Allowed("grants[0]") == decide({"account": "x", "amount": 100})
    for arguments in ({"amount": 101}, {}, {"amount": "5"}, {"amount": 2**70}):
        denied = decide(arguments)
        assert isinstance(denied, Denied)
        assert "its condition does not hold" in (denied.hint or "")
