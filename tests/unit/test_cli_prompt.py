"""The prompt of a run that waits: what is asked, how answers are read, what is put off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.errors import UsageProblem
from midwatch.records.gate import GateRow
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.prompt import edited_by_hand, picked
from tests.scenario.office import Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
CART = ("ops.place", {"service": "cart", "version": "v2"})
ASK = "[y]es"


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runner's streams count as a terminal, with no editor named."""
    monkeypatch.setattr("midwatch.surfaces.cli.prompt.possible", lambda _, *, wanted: wanted)
    for name in ("EDITOR", "VISUAL", "MIDWATCH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "ann")


def run(office: Office, *typed: str, options: tuple[str, ...] = ()) -> Result:
    """Run the office's fleet while these lines are typed; then the input ends."""
    argv = ["--home", str(office.home), "run", str(office.fleet), "--workdir", str(office.work), "--quiet", *options]
    return CliRunner().invoke(main, argv, input="".join(f"{line}\n" for line in typed))


def rows(office: Office) -> list[GateRow]:
    """Give every gate, in the order in which they are asked."""
    with wiring.open_store(office.home) as store:
        return list(store.read(lambda tx: tx.gates.list()))


@pytest.mark.req("CLI-12")
def test_what_is_put_off_is_not_asked_again(tmp_path: Path) -> None:
    """One of two is put off and the other approved: the run goes on with the one, and does not nag about the other."""
    office = Office(tmp_path, [[SHOP, CART]])
    done = run(office, "l", "y", "")
    assert (3, 2) == (done.exit_code, done.stderr.count(ASK)), done.stderr
    assert ["open", "used"] == sorted(row.status for row in rows(office))
    assert 1 == len(office.calls())


@pytest.mark.req("CLI-12")
def test_the_end_of_the_input_leaves_the_question(tmp_path: Path) -> None:
    """Whoever closes the terminal has said nothing: the run waits, with exit code 3 and its status told."""
    office = Office(tmp_path, [[SHOP]])
    done = run(office)
    assert (3, ["open"]) == (done.exit_code, [row.status for row in rows(office)])
    assert "waiting" in done.stderr
    done = run(office, "y")
    assert (3, []) == (done.exit_code, office.calls())


@pytest.mark.req("CLI-12")
def test_no_prompt_asks_nobody(tmp_path: Path) -> None:
    """With `--no-prompt` the run ends as it does without a terminal."""
    office = Office(tmp_path, [[SHOP]])
    done = run(office, "y", "", options=("--no-prompt",))
    assert (3, 0) == (done.exit_code, done.stderr.count(ASK))


@pytest.mark.req("CLI-12")
def test_a_refused_edit_asks_again_about_what_stands(tmp_path: Path) -> None:
    """Neither broken JSON nor arguments that do not fit change the gate; the agent learns of the no that follows."""
    office = Office(tmp_path, [[SHOP]])
    done = run(office, "e", "{nonsense", "e", '{"service": 7}', "e", "[]", "n", "not today")
    assert (0, 4, []) == (done.exit_code, done.stderr.count(ASK), office.calls())
    (row,) = rows(office)
    assert ("denied", "not today", None) == (row.status, row.answer_reason, row.edited_by)


@pytest.mark.req("CLI-12")
def test_made_up_questions_are_asked_like_the_rest(tmp_path: Path) -> None:
    """Both cards come up in the order of their ids, so the place of one does not tell which it is."""
    office = Office(tmp_path, [[SHOP]], extra="review: {canary: 1}")
    kinds = {"action": "y", "canary": "n"}
    assert 3 == run(office, "l", "l").exit_code
    found = rows(office)
    assert [row.id for row in found] == sorted(row.id for row in found)
    argv = ["--home", str(office.home), "resume", found[0].run, "--quiet"]
    typed = "".join(f"{kinds[row.kind]}\n\n" for row in found)
    done = CliRunner().invoke(main, argv, input=typed)
    assert (0, ["place shop v2"]) == (done.exit_code, office.calls()), done.stderr
    assert {"action": "used", "canary": "denied"} == {row.kind: row.status for row in rows(office)}


@pytest.mark.req("CLI-12", "CLI-17")
def test_a_question_is_answered_by_number_and_its_words_cannot_pose_as_lines(tmp_path: Path) -> None:
    """A choice is taken by its number; a question of several lines is set in under its own heading."""
    asked = {"question": "Which?\ndigest     0000\u202e", "choices": ["blue", "green"]}
    office = Office(tmp_path, [[("gates.request_human", asked)]])
    done = run(office, "2")
    assert 0 == done.exit_code, done.stderr
    assert "\ndigest     0000" not in done.stderr
    assert "| digest     0000\\u202e" in done.stderr
    (row,) = rows(office)
    with wiring.open_store(office.home) as store:
        said = json.loads(store.read(lambda tx: tx.blobs.get(row.answer or "")) or b"{}")
    assert {"answer": "green", "choice": "green", "by": "local:ann"} == said


@pytest.mark.req("CLI-12", "PEOPLE-2")
def test_who_started_the_run_cannot_answer_at_its_own_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where people have tokens the yes is refused in words, and the question stays for somebody else."""
    office = Office(tmp_path, [[SHOP]])
    office.person("boss", "admin")
    monkeypatch.setenv("MIDWATCH_TOKEN", office.tokens["boss"])
    done = run(office, "y", "")
    assert (3, ["open"]) == (done.exit_code, [row.status for row in rows(office)])
    assert "who asks does not answer" in done.stderr


@pytest.mark.req("CLI-12")
@pytest.mark.parametrize(
    ("text", "choices", "expected"),
    [
        ("2", ["blue", "green"], ("green", "green")),
        ("green", ["blue", "green"], ("green", "green")),
        ("3", ["blue", "green"], ("3", None)),
        ("0", ["blue"], ("0", None)),
        ("²", ["blue", "green"], ("²", None)),
        ("1", ["2", "1"], ("1", "1")),
        ("2", ["3", "1"], ("2", None)),
        ("teal", ["blue"], ("teal", None)),
        ("1", [], ("1", None)),
    ],
)
def test_an_answer_is_a_choice_its_number_or_words(
    text: str, choices: list[str], expected: tuple[str, str | None]
) -> None:
    """A number never stands for another choice than the one that reads like it."""
    answer, choice = expected
    assert {"answer": answer, "choice": choice} == picked(text, choices)


@pytest.mark.req("CLI-12")
@pytest.mark.parametrize(
    ("editor", "says"),
    [
        ("false", "failed"),
        ("/no/such/editor", "failed"),
        ("true", "without a change"),
        ("sh -c 'printf {nonsense > \"$0\"'", "not JSON"),
        ("sh -c 'printf [] > \"$0\"'", "one JSON object"),
    ],
)
def test_an_editor_that_gives_nothing_usable_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, editor: str, says: str
) -> None:
    """Each way to fail is told in words."""
    monkeypatch.setenv("EDITOR", editor)
    with pytest.raises(UsageProblem, match=says):
        edited_by_hand({"service": "shop"})


@pytest.mark.req("CLI-12")
def test_an_editor_shows_what_cannot_be_seen_and_gives_back_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds invisible characters as escapes; what is saved is the new arguments."""
    kept = tmp_path / "kept"
    script = tmp_path / "editor.sh"
    script.write_text(f'cp "$1" {kept}\nprintf \'{{"service": "cart"}}\' > "$1"\ntouch -d "2030-01-01" "$1"\n')
    monkeypatch.setenv("EDITOR", f"sh {script}")
    made: dict[str, Any] = edited_by_hand({"service": "sh\u202eop"})
    assert ({"service": "cart"}, True) == (made, "\\u202e" in kept.read_text())
