"""The documents' check finds what it is there to find, in both directions."""

from pathlib import Path

import pytest

from scripts import check_docs
from scripts.check_docs import Code, Page

CODE = Code(
    targets=frozenset({"run", "test"}),
    commands=frozenset({"run", "trace"}),
    exit_codes=frozenset({"0", "4"}),
    fleet_keys=frozenset({"agents"}),
    requirements=frozenset({"STORE-1"}),
)
ROOT = Path(__file__).resolve().parents[2]


def _page(text: str, path: str = "README.md") -> Page:
    return Page(Path(path), text)


@pytest.mark.req("PROJECT-6")
@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("see [it](gone.md)", "README.md: link to `gone.md`: no such file"),
        ("# Here\n[it](#there)", "README.md: link to `#there`: no such heading"),
        ("# Here `it` is\n[it](#here-it-is), [far](https://example.org/gone)", None),
        ("```sh\n[no link](gone.md)\n```\n`[nor](here)`", None),
    ],
    ids=["missing file", "missing heading", "good", "code is no link"],
)
def test_a_link_that_leads_nowhere_is_found(
    text: str, finding: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who follows a link arrives."""
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(text, encoding="utf-8")
    assert [finding] * (finding is not None) == list(check_docs.broken_links([_page(text)]))


@pytest.mark.req("PROJECT-6")
@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("`make dance`", "README.md: `make dance`: the Makefile has no such target"),
        ("```sh\nmake run && make jump\n```", "README.md: `make jump`: the Makefile has no such target"),
        ("`midwatch dream`", "README.md: `midwatch dream`: no such command"),
        ("```\n.venv/bin/midwatch sleep now\n```", "README.md: `midwatch sleep`: no such command"),
        ("as STORE-2 says", "README.md: `STORE-2`: no such requirement"),
        ("`make run test`, `midwatch trace RUN`, STORE-1, SHA-256, and we make do", None),
    ],
    ids=["inline target", "fenced target", "inline command", "fenced command", "requirement", "good"],
)
def test_a_name_that_the_code_does_not_have_is_found(text: str, finding: str | None) -> None:
    """What a reader copies from a page works."""
    assert [finding] * (finding is not None) == list(check_docs.unknown_names([_page(text)], CODE))


@pytest.mark.req("PROJECT-6")
def test_what_no_page_tells_is_found() -> None:
    """A command, an exit code or a key that ships without a word in the documents is reported, each by name."""
    assert [
        "command `midwatch run` is in no code of the README or docs/",
        "command `midwatch trace` is in no code of the README or docs/",
        "exit code 0 has no row in a table of the README or docs/",
        "exit code 4 has no row in a table of the README or docs/",
        "fleet key `agents` is in no code of the README or docs/",
    ] == list(check_docs.unlisted([_page("nothing")], CODE))
    told = _page("`midwatch run`, `midwatch trace`\n\n| 0 | fine |\n| 4 | denied |\n\n```yaml\nagents: {}\n```\n")
    assert [] == list(check_docs.unlisted([told], CODE))


@pytest.mark.req("PROJECT-6")
def test_history_may_name_what_is_gone() -> None:
    """A changelog line about a removed command stays true."""
    assert [] == list(check_docs.unknown_names([_page("`midwatch dream` is gone", "CHANGELOG.md")], CODE))


@pytest.mark.req("PROJECT-6")
def test_a_decision_outside_the_index_is_found(tmp_path: Path) -> None:
    """A decision that nobody can find is made again."""
    for name in ("0001-a.md", "0002-b.md"):
        (tmp_path / name).write_text("# x", encoding="utf-8")
    (tmp_path / "README.md").write_text("[one](0001-a.md)", encoding="utf-8")
    assert [f"{tmp_path}/0002-b.md: not linked from {tmp_path}/README.md"] == list(
        check_docs.unindexed_decisions(tmp_path)
    )


@pytest.mark.req("PROJECT-6")
def test_this_checkout_has_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """The project's own documents pass their own check."""
    code = check_docs.main(ROOT)
    assert ("", 0) == (capsys.readouterr().out, code)
