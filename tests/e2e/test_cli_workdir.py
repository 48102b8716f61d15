"""`--workdir`: where a run's files are, and that `resume` finds them again from anywhere; which model is used and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.surfaces.cli import main
from tests.e2e.trial import DONE, Trial, call


def midwatch(trial: Trial, *words: str) -> tuple[int, str]:
    """Run a command in the trial's home; give its exit code and what it said on stderr."""
    shown = CliRunner().invoke(main, ["--home", str(trial.home), *words])
    return shown.exit_code, shown.stderr


@pytest.mark.req("ENGINE-10")
def test_resume_goes_on_where_the_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called from another directory, `resume` works on the run's own files; a `--workdir` of its own names others."""
    rules = [call("says_timeout", {"what": "milk"}), call("note", {"what": "bread"}, turn=1), DONE]
    trial = Trial(tmp_path, monkeypatch, rules)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert 3 == midwatch(trial, "run", str(trial.fleet), "--workdir", str(trial.work))[0]
    with trial.store() as store:
        run = store.read(lambda tx: tx.runs.list())[0].id
    for place, more in ((trial.work, ()), (elsewhere, ("--workdir", "."))):
        trial.resolve(trial.effects(run)[0].id, "retry")
        assert 3 == midwatch(trial, "resume", run, *more)[0]
        assert "milk" in (place / "notes").read_text()
    assert ["milk", "milk"] == trial.lines("notes")
    trial.resolve(trial.effects(run)[0].id, "done")
    assert 0 == midwatch(trial, "resume", run)[0]
    assert ["milk", "milk", "bread"] == trial.lines("notes")


@pytest.mark.req("ENGINE-10")
def test_a_working_directory_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, the name, what to do; nothing was started. A run whose directory is gone says so when it is resumed."""
    trial = Trial(tmp_path, monkeypatch, [call("says_timeout", {"what": "milk"}), DONE])
    code, said = midwatch(trial, "run", str(trial.fleet), "--workdir", str(tmp_path / "none"))
    assert (2, True, False) == (code, "--workdir" in said, trial.home.exists())
    assert 3 == midwatch(trial, "run", str(trial.fleet), "--workdir", str(trial.work))[0]
    (trial.work / "notes").unlink()
    trial.work.rmdir()
    code, said = midwatch(trial, "resume", "last")
    assert (2, True) == (code, "is not there" in said)


@pytest.mark.req("ENGINE-10")
@pytest.mark.parametrize(
    ("environ", "preset", "words"),
    [
        ({}, "default", "scripted provider"),
        ({"OPENAI_API_KEY": "sk-none"}, "cloud", "`OPENAI_API_KEY` is set"),
        ({"OPENAI_API_KEY": "  "}, "default", "no key"),
        ({"OPENAI_API_KEY": "sk-none", "MIDWATCH_PRESET": "default"}, "default", "`MIDWATCH_PRESET` is set"),
    ],
)
def test_one_place_chooses_the_preset_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], preset: str, words: str
) -> None:
    """What is loaded is what the words say."""
    trial = Trial(tmp_path, monkeypatch, [DONE])
    text = (trial.fleet / "fleet.yaml").read_text()
    (trial.fleet / "fleet.yaml").write_text(text.replace("{default: local}", "{default: local, cloud: smart}"))
    fleet, said = wiring.load_fleet(trial.fleet, environ=environ)
    assert (preset, True) == (fleet.preset, words in said)
    asked, said = wiring.load_fleet(trial.fleet, preset="cloud", environ=environ)
    assert ("cloud", True) == (asked.preset, "asked for" in said)
