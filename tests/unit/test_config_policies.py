"""Sources, policies and containment in a fleet file: what they mean, what is refused, which digests change."""

from pathlib import Path

import pytest

from midwatch.config.check import check
from midwatch.config.fleet import ContainmentSpec
from midwatch.config.guarantees import not_guaranteed
from midwatch.errors import InvalidFleet
from midwatch.records.effect import ROLES
from tests.policy_fleet import office

ALL = """\
sources:
  "tool:crm.*": {name: crm, trust: full, writers: [sales], readers: [requester]}
  "tool:web.*": {trust: none}
policies:
  - who: [source:crm, "person:*"]
    may: mail.send
    roles: [target, control]
    where: {to: "*@example.org"}
    when: args.subject.size() < 80
  - {who: operator, may: "*", roles: all}
containment: {mode: enforce, ask: lead, timeout: 5m}
"""


@pytest.mark.req("POLICY-1")
def test_everything_that_may_be_said_loads(tmp_path: Path) -> None:
    """In the file's own words, nothing of it refused."""
    fleet = office(tmp_path, ALL)
    first, second = fleet.policies
    assert ("crm", "web.*") == tuple(source.name for source in fleet.sources.values())
    assert (("source:crm", "person:*"), ("mail.send",), ("target", "control")) == (first.who, first.may, first.roles)
    assert ({"to": ("*@example.org",)}, "args.subject.size() < 80") == (dict(first.where), first.condition)
    assert (ROLES, None) == (second.roles, second.condition)
    assert ContainmentSpec("enforce", "lead", 300_000_000) == fleet.containment
    assert () == not_guaranteed(fleet)
    assert [] == check(fleet)[0]


@pytest.mark.req("POLICY-1")
@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("", ContainmentSpec()),
        ("containment:\n", ContainmentSpec()),
        ("containment: record\n", ContainmentSpec()),
        ("containment: enforce\n", ContainmentSpec("enforce")),
        ("containment: {ask: lead}\n", ContainmentSpec("record", "lead")),
    ],
)
def test_one_word_or_a_mapping_says_the_mode(tmp_path: Path, written: str, spec: ContainmentSpec) -> None:
    """Absent, empty and `record` are one thing."""
    assert spec == office(tmp_path, written).containment


@pytest.mark.req("POLICY-1")
def test_digests_change_with_what_is_said_and_only_then(tmp_path: Path) -> None:
    """Runs of an older version wait under these digests."""
    plain, silent = office(tmp_path), office(tmp_path, "policies: []\nsources: {}\ncontainment: record\n")
    assert (plain.digest, plain.policy_digest) == (silent.digest, silent.policy_digest)
    seen = {plain.policy_digest}
    for said in (
        "containment: enforce\n",
        "containment: {mode: enforce, timeout: 1m}\n",
        "policies: [{who: operator, may: x.y, roles: all}]\n",
        "policies: [{who: operator, may: x.y, roles: all, when: args.a == 1}]\n",
        "policies: [{who: operator, may: x.y, roles: all, where: {a: b}}]\n",
        'sources: {"tool:a.*": {trust: none}}\n',
        'sources: {"tool:a.*": {trust: none, name: a}}\n',
    ):
        fleet = office(tmp_path, said)
        assert fleet.policy_digest not in seen
        assert fleet.digest != plain.digest
        seen.add(fleet.policy_digest)


@pytest.mark.req("POLICY-2")
@pytest.mark.parametrize(
    ("written", "code", "line"),
    [
        ("policies: [{who: everybody, may: a.b, roles: all}]", "bad-form", 11),
        ('policies: [{who: "*", may: a.b, roles: all}]', "bad-form", 11),
        ("policies: [{who: unknown, may: a.b, roles: all}]", "bad-form", 11),
        ("policies: [{who: 'source:', may: a.b, roles: all}]", "bad-form", 11),
        ("policies: [{who: operator, may: a.b, roles: [aim]}]", "unknown-word", 11),
        ("policies: [{who: operator, may: a.b}]", "missing-key", 11),
        ("policies: [{who: operator, may: a.b, roles: []}]", "empty-policy", 11),
        ("policies: [{who: [], may: a.b, roles: all}]", "empty-policy", 11),
        ("policies: [{who: operator, may: [], roles: all}]", "empty-policy", 11),
        ("policies: [{who: operator, may: a.b, roles: all, where: {x: []}}]", "empty-policy", 11),
        ("policies: [{who: operator, may: a.b, roles: all, where: {}}]", "empty-where", 11),
        ("policies: [{who: operator, may: a.b, roles: all, if: 'true'}]", "unknown-key", 11),
        ("policies: [{who: 'agent:nobody', may: a.b, roles: all}]", "unknown-agent", 11),
        ("policies: [{who: 'source:crm', may: a.b, roles: all}]", "unknown-source", 11),
        (
            'policies: [{who: "source:crm", may: a.b, roles: all}]\nsources: {"tool:crm.*": {name: crm}}',
            "untrusted-source",
            11,
        ),
        (
            "policies:\n  - {who: operator, may: a.b, roles: all}\n  - {who: operator, may: a.b, roles: all}",
            "duplicate-entry",
            13,
        ),
        ('sources: {"web.*": {trust: none}}', "bad-form", 11),
        ('sources: {"tool:web.*": {trust: full}}', "trusted-without-writers", 11),
        ('sources: {"tool:web.*": {trust: full, writers: everyone}}', "trusted-stranger", 11),
        ('sources: {"tool:web.*": {readers: [everyone, ann]}}', "duplicate-entry", 11),
        ('sources:\n  "tool:a.*": {name: a}\n  "tool:b.*": {name: a}', "duplicate-name", 13),
        ("containment: maybe", "unknown-word", 11),
        ("containment: {timeout: 0s}", "out-of-range", 11),
        ("containment: {mode: enforce, who: me}", "unknown-key", 11),
    ],
)
def test_what_cannot_mean_anything_is_refused(tmp_path: Path, written: str, code: str, line: int) -> None:
    """With its line, a stable code, and what to do."""
    with pytest.raises(InvalidFleet) as refused:
        office(tmp_path, written + "\n")
    found = {(problem.code, problem.where.rpartition(":")[2]) for problem in refused.value.problems}
    assert (code, str(line)) in found


@pytest.mark.req("POLICY-2")
def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    """A broken policy hides nothing that another one, or a source, has wrong."""
    written = """\
sources:
  "tool:web.*": {trust: full}
policies:
  - {who: nobody, may: a.b, roles: all}
  - {who: source:crm, may: a.b, roles: all}
  - {who: operator, may: [], roles: all}
containment: often
"""
    with pytest.raises(InvalidFleet) as refused:
        office(tmp_path, written)
    assert ["trusted-without-writers", "bad-form", "unknown-source", "empty-policy", "unknown-word"] == [
        problem.code for problem in refused.value.problems
    ]
