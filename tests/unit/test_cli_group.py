"""The command line as a whole: start-up, help, JSON, errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from midwatch.surfaces.cli import COMMANDS, main

_HEAVY = ("pydantic", "sqlalchemy", "langgraph", "langchain_core", "yaml", "rich", "jsonschema_rs", "anyio", "orjson")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
    )


@pytest.mark.req("CLI-1")
def test_help_imports_nothing_heavy() -> None:
    """Asking for help must not load what only a run needs."""
    code = f"""
import sys
from midwatch.surfaces.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
found = [name for name in {_HEAVY!r} if name in sys.modules]
sys.stderr.write(",".join(found))
"""
    done = _python(code)
    assert (0, "") == (done.returncode, done.stderr)
    assert "Commands:" in done.stdout


@pytest.mark.req("CLI-1")
def test_help_takes_little_processor_time() -> None:
    """150 ms of processor time, interpreter included; the best of three, since the machine is shared."""
    code = "import resource, sys\nfrom midwatch.surfaces.cli import main\n"
    code += "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "used = resource.getrusage(resource.RUSAGE_SELF)\nsys.stderr.write(str(used.ru_utime + used.ru_stime))"
    assert min(float(_python(code).stderr) for _ in range(3)) <= 0.150


@pytest.mark.req("CLI-1")
def test_the_table_of_commands_tells_what_the_commands_say() -> None:
    """The lines of `--help` are kept apart from the commands, so they are compared here."""
    context = click.Context(main)
    for name, (_, line) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert (name, line) == (command.name, command.short_help)
    assert main.get_command(context, "nonsense") is None


@pytest.mark.req("CLI-2")
def test_every_command_takes_json_and_home() -> None:
    """A script may put the same two options on whatever it calls."""

    def leaves(command: click.Command) -> list[click.Command]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            found = [command.get_command(context, name) for name in command.list_commands(context)]
            return [leaf for child in found if child is not None for leaf in leaves(child)]
        return [command]

    commands = leaves(main)
    groups = [name for name in COMMANDS if isinstance(main.get_command(click.Context(main), name), click.Group)]
    assert {"budget", "effects", "inbox", "policy", "principals", "runs", "sandbox", "store"} <= set(groups)
    assert set(COMMANDS) - set(groups) <= {command.name for command in commands}
    assert len(commands) > len(COMMANDS) + 10
    for command in commands:
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--home"} <= options, command.name


@pytest.mark.req("CLI-2", "CLI-3")
@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["trace", "abcd"], 6, "NotFound"),
        (["runs", "ls"], 6, "NotFound"),
        (["verify"], 6, "NotFound"),
        (["resolve", "abcd"], 2, "UsageProblem"),
        (["nonsense"], 2, "UsageProblem"),
        (["trace"], 2, "UsageProblem"),
        (["run", "no-such-fleet"], 2, "InvalidFleet"),
        (["check", "no-such-fleet"], 2, "InvalidFleet"),
        (["run", ".", "-i", "nothing"], 2, "UsageProblem"),
    ],
)
def test_errors_are_json_or_text_with_their_exit_code(
    tmp_path: Path, arguments: list[str], code: int, kind: str
) -> None:
    """One object on stdout when asked, else words on stderr and nothing on stdout; the code is the same."""
    home = ["--home", str(tmp_path / "none")]
    told = CliRunner().invoke(main, [*home, *arguments, "--json"])
    body = json.loads(told.stdout)
    assert (code, False, kind) == (told.exit_code, body["ok"], body["error"]["type"])
    assert body["error"]["message"]
    plain = CliRunner().invoke(main, [*home, *arguments])
    assert (code, "") == (plain.exit_code, plain.stdout)
    assert plain.stderr


@pytest.mark.req("CLI-3")
def test_a_misspelt_command_names_the_one_that_is_meant() -> None:
    """The error of an unknown command ends with a near one, if there is any."""
    near = CliRunner().invoke(main, ["inbx"])
    assert (2, True) == (near.exit_code, "did you mean `inbox`?" in near.stderr)
    assert "did you mean" not in CliRunner().invoke(main, ["zzz"]).stderr


@pytest.mark.req("CLI-3")
def test_asking_creates_no_home(tmp_path: Path) -> None:
    """Looking around leaves nothing behind."""
    for arguments in (["runs", "ls"], ["doctor"], ["verify"]):
        CliRunner().invoke(main, ["--home", str(tmp_path / "none"), *arguments])
    assert [] == list(tmp_path.iterdir())


@pytest.mark.req("CLI-3")
def test_an_interrupt_ends_in_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is told apart from a failure."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("midwatch.wiring.load_fleet", interrupted)
    done = CliRunner().invoke(main, ["run", "x"])
    assert (130, "") == (done.exit_code, done.stdout)
    assert "midwatch resume" in done.stderr


@pytest.mark.req("CLI-2")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell: str) -> None:
    """Each shell gets a script for `midwatch`, and the same one as JSON."""
    plain = CliRunner().invoke(main, ["completion", shell])
    assert 0 == plain.exit_code
    assert "_MIDWATCH_COMPLETE" in plain.stdout
    body = json.loads(CliRunner().invoke(main, ["completion", shell, "--json"]).stdout)
    assert (True, plain.stdout.strip()) == (body["ok"], body["script"].strip())
