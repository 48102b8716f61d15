"""`midwatch policy lint | explain | test`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch.surfaces.cli import main
from tests.policy_fleet import write

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "contain-what-was-read.md"
RULES = """\
sources:
  "tool:crm.*": {name: crm, trust: full, writers: [sales], readers: everyone}
policies:
  - who: source:crm
    may: mail.send
    roles: [control, target]
    where: {to: "*@example.org"}
    when: args.subject.size() < 80
grants:
  - {who: agent:clerk, may: ["mail.*", "crm.*"]}
  - {who: agent:clerk, may: "pay.*", if: args.amount <= 100}
containment: {mode: enforce, ask: lead}
"""
CALL = (
    "--agent",
    "clerk",
    "--tool",
    "mail.send",
    "--argument",
    "to=eve@example.com",
    "--argument",
    "subject=hi",
    "--argument",
    "body=x",
)
SNAPSHOT = """\
ask lead (by containment)
  `mail.send` needs somebody's yes: `third_party:web.fetch` may have chosen that it happens, and may not; `third_party:web.fetch` may have \
chosen `to` (its target), and may not
  causes: person:ann, third_party:web.fetch
  readers: everyone
  lacks: control (control): third_party:web.fetch
  lacks: to (target): third_party:web.fetch
"""


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path) -> str:
    return str(write(tmp_path, RULES))


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["policy", *arguments])


def _json(*arguments: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(_call(*arguments, "--json").stdout)
    return body


@pytest.mark.req("POLICY-8")
def test_lint_tells_errors_and_warnings(fleet: str, tmp_path: Path) -> None:
    """A sound fleet is fine; a condition that cannot be used ends with exit code 2."""
    sound = _call("lint", fleet)
    assert (0, "office: 1 policies, 1 sources, containment: enforce; 0 errors, 0 warnings\n") == (
        sound.exit_code,
        sound.stdout,
    )
    write(
        tmp_path,
        RULES.replace("args.subject.size()", "args.sbject.size()").replace(
            "[control, target]", "[control, credential]"
        ),
    )
    broken = _call("lint", fleet)
    assert 2 == broken.exit_code
    assert "there is no argument `sbject`" in broken.stderr
    body = _json("lint", fleet)
    assert (False, ["bad-condition"], ["idle-role"]) == (
        body["ok"],
        [each["code"] for each in body["errors"]],
        [each["code"] for each in body["warnings"]],
    )


@pytest.mark.req("POLICY-8")
def test_check_tells_the_same(fleet: str, tmp_path: Path) -> None:
    """`midwatch check` refuses a fleet whose condition cannot be used."""
    write(tmp_path, RULES.replace("args.subject.size()", "args.sbject.size()"))
    found = CliRunner().invoke(main, ["check", fleet])
    assert 2 == found.exit_code
    assert "there is no argument `sbject`" in found.stderr


@pytest.mark.req("POLICY-9")
def test_explain_shows_the_chain(fleet: str) -> None:
    """What waits for whom, by which causes, and what lacks what; no value is quoted."""
    told = _call("explain", fleet, *CALL, "--context", "third_party:web.fetch", "--requester", "ann")
    assert (0, SNAPSHOT) == (told.exit_code, told.stdout)


@pytest.mark.req("POLICY-9")
@pytest.mark.parametrize(
    ("more", "verdict", "by"),
    [
        ((), "allowed", "containment"),
        (("--context", "source:crm"), "ask", "containment"),
        (("--context", "unknown"), "ask", "containment"),
        (("--value", "to=person:requester", "--context", "source:crm"), "ask", "containment"),
        (("--confined", "--context", "third_party:web.fetch"), "allowed", "confined"),
    ],
)
def test_explain_follows_the_causes_given(fleet: str, more: tuple[str, ...], verdict: str, by: str) -> None:
    """The request alone, a trusted source beyond its bounds, an unknown cause, a value from the request, a sandbox."""
    body = _json("explain", fleet, *CALL, *more)
    assert (True, verdict, by) == (body["ok"], body["verdict"], body["by"])


@pytest.mark.req("POLICY-9")
def test_explain_reads_arguments_as_the_tool_takes_them(fleet: str) -> None:
    """Numbers as numbers: the condition of the grant holds for 100 and not for 101."""
    for amount, verdict in (("100", "allowed"), ("101", "denied")):
        body = _json(
            "explain",
            fleet,
            "--agent",
            "clerk",
            "--tool",
            "pay.transfer",
            "--argument",
            "account=7",
            "--argument",
            f"amount={amount}",
        )
        assert verdict == body["verdict"]


@pytest.mark.req("POLICY-9")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--agent", "nobody", "--tool", "mail.send"), "no agent `nobody`"),
        (("--agent", "clerk", "--tool", "mail.sned"), "no tool `mail.sned`"),
        (("--agent", "clerk", "--tool", "mail.send", "--argument", "cc=x"), "no argument `cc`"),
        (("--agent", "clerk", "--tool", "mail.send", "--argument", "to"), "has no `=`"),
        (("--agent", "clerk", "--tool", "mail.send", "--context", "god"), "no kind of cause"),
    ],
)
def test_what_explain_cannot_use_is_told(fleet: str, arguments: tuple[str, ...], words: str) -> None:
    """A misspelt name is a mistake of the command, not a verdict."""
    told = _call("explain", fleet, *arguments)
    assert 2 == told.exit_code
    assert words in told.stderr


@pytest.mark.req("POLICY-9")
def test_the_cases_of_the_page_come_out_as_it_says(fleet: str, tmp_path: Path) -> None:
    """What the how-to shows works; a case that expects something else ends with exit code 1."""
    text = PAGE.read_text(encoding="utf-8")
    cases = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "cases:" in block)
    file = tmp_path / "cases.yaml"
    file.write_text(cases, encoding="utf-8")
    right = _call("test", fleet, str(file))
    assert (0, "2 cases, 0 differ\n") == (right.exit_code, right.stdout)
    file.write_text(cases.replace("expect: ask", "expect: denied"), encoding="utf-8")
    wrong = _call("test", fleet, str(file))
    assert 1 == wrong.exit_code
    assert "a web page picks the recipient: expected denied, but ask lead" in wrong.stdout
    body = _json("test", fleet, str(file))
    assert (False, [True, False]) == (body["ok"], [case["as_expected"] for case in body["cases"]])


@pytest.mark.req("POLICY-9")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cases: []\n", "at least 1 item"),
        ("cases:\n  - {name: a, agent: clerk, tool: mail.send, expect: maybe}\n", "'allowed', 'ask' or 'denied'"),
        ("cases:\n  - {name: a, agent: clerk, tool: mail.send, expect: ask, conetxt: []}\n", "Extra inputs"),
        ("cases:\n  - {name: a, agent: clerk, tool: mail.send, expect: ask, context: [god]}\n", "no kind of cause"),
        ("cases:\n  - {name: a, agent: nobody, tool: mail.send, expect: ask}\n", "case `a`"),
        ("- 1\n", "this file"),
        ("", "is empty"),
    ],
)
def test_a_file_of_cases_that_cannot_be_used_is_refused(fleet: str, tmp_path: Path, text: str, words: str) -> None:
    """A case that is not read must not look like one that passed."""
    file = tmp_path / "cases.yaml"
    file.write_text(text, encoding="utf-8")
    told = _call("test", fleet, str(file))
    assert 2 == told.exit_code
    assert words in told.stderr
