"""`midwatch tools`: what a fleet's tools are, and a pin that is written without touching anything else of the file."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch.surfaces.cli import main
from midwatch.tools.importing.pinning import pinned_text
from tests.contract.tools_caller import SERVERS, fleet_at

DIGEST = "sha256:" + "a" * 64


@pytest.mark.req("IMPORT-8")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  docs: {command: x}  # why", "  docs: {digest: D, command: x}  # why"),
        ("  docs: {digest: old, command: x}", "  docs: {digest: D, command: x}"),
        (
            "  docs:\n    # why\n    command: x\n  more: 1",
            "  docs:\n    digest: D\n    # why\n    command: x\n  more: 1",
        ),
        ("  docs:\n    command: x\n    digest: old # o\n", "  docs:\n    command: x\n    digest: D # o\n"),
        ("  docs:\n    command: x\n  b: {digest: keep}", "  docs:\n    digest: D\n    command: x\n  b: {digest: keep}"),
    ],
)
def test_a_pin_goes_into_its_own_block(before: str, after: str) -> None:
    """Comments, order and the pins of other sources stay what they were."""
    assert after.replace("D", DIGEST) == pinned_text(before, 1, DIGEST)


@pytest.mark.req("IMPORT-8")
def test_tools_are_listed_shown_pinned_and_their_drift_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line: `ls`, `show`, `lint`, `pin`, and `check`, which tells drift."""
    monkeypatch.setenv("MIDWATCH_HOME", str(tmp_path / "home"))
    shutil.copy(SERVERS / "mcp_hostile.py", tmp_path / "server.py")
    fleet_at(
        tmp_path, "tools: [builtin.files]\nmcp:\n  bad: {command: [python, server.py], tools: [good]}  # a stranger's\n"
    )
    run = CliRunner()
    listed = json.loads(run.invoke(main, ["tools", "ls", str(tmp_path), "--json"]).stdout)
    assert {"bad.good": "mcp.bad", "files.read": "own"} == {
        row["name"]: row["source"] for row in listed["tools"] if row["name"] in ("bad.good", "files.read")
    }
    shown = json.loads(run.invoke(main, ["tools", "show", "bad.good", "--fleet", str(tmp_path), "--json"]).stdout)
    assert "grants_authority" == shown["tool"]["contract"]["effect"]
    assert "unpinned-source" in run.invoke(main, ["tools", "lint", str(tmp_path), "--json"]).stdout
    assert 0 == run.invoke(main, ["tools", "pin", str(tmp_path)]).exit_code
    text = (tmp_path / "fleet.yaml").read_text("utf-8")
    assert "{digest: sha256:" in text
    assert "# a stranger's" in text
    changed = (tmp_path / "server.py").read_text("utf-8").replace("A tool that can be taken", "A tool to be trusted")
    (tmp_path / "server.py").write_text(changed, encoding="utf-8")
    told = json.loads(run.invoke(main, ["tools", "ls", str(tmp_path), "--json"]).stdout)
    assert [True] == [row["pending"] for row in told["tools"] if row["name"] == "bad.good"]
    assert "tool-drift" in run.invoke(main, ["check", str(tmp_path), "--json"]).stdout
    assert 2 == run.invoke(main, ["tools", "pin", str(tmp_path), "--json"]).exit_code
    assert 0 == run.invoke(main, ["tools", "pin", str(tmp_path), "--yes"]).exit_code
    again = json.loads(run.invoke(main, ["tools", "ls", str(tmp_path), "--json"]).stdout)
    assert not any(row["pending"] for row in again["tools"])
