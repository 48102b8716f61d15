"""Attacks by what a sandboxed tool answers: whatever it writes where its answer is read, the run goes on."""

from pathlib import Path
from typing import Final

import pytest

from tests.scenario import studio
from tests.scenario.studio import Studio, write

HOSTILE: Final = '''
@tool(effect="write", open_world=False, reversible=False)
def odd(context: ToolContext, path: Text) -> dict[str, str]:
    """Answer in the place of the honest code around."""
    bodies = {
        "surrogate": rb\'{"error": null, "detail": null, "value": {"path": "\\\\ud800"}}\',
        "key": rb\'{"error": null, "detail": null, "value": {"\\\\udfff": "x"}}\',
        "detail": rb\'{"value": null, "detail": "\\\\ud800", "error": {"code": "unavailable", "message": "\\\\ud800"}}\',
        "huge": b\'{"error": null, "detail": null, "value": {"path": "x", "n": 1\' + b"0" * 400 + b"}}",
        "float": b\'{"error": null, "detail": null, "value": {"path": "x", "n": 1e999}}\',
        "deep": b\'{"error": null, "detail": null, "value": {"path": \' + b"[" * 600 + b"]" * 600 + b"}}",
        "deeper": b"[" * 100000,
        "twice": b\'{"error": null, "detail": null, "value": {"path": "x"}}\' * 2,
        "nul": rb\'{"error": null, "detail": null, "value": {"path": "\\\\u0000"}}\',
        "print": b"",
    }
    if path == "print":
        os.write(1, b"\\xff\\x1b[2J\\xed\\xa0\\x80" * 100)
        return {"path": "\\ud800"}
    for place in range(3, 10):
        try:
            os.write(place, bodies[path])
        except OSError:
            continue
    os._exit(0)
'''
KINDS: Final = ("surrogate", "key", "detail", "huge", "float", "deep", "deeper", "twice", "nul", "print")


@pytest.mark.req("ISOLATION-7")
def test_no_answer_of_a_tool_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that is no text, numbers without end, depth, two answers at once: each is an error for the agent, or a value."""
    monkeypatch.setattr(studio, "TOOLS", studio.TOOLS + HOSTILE)
    calls = [[("odd", {"path": kind})] for kind in KINDS]
    made = Studio(tmp_path / "s", [*calls, write("a.txt")], own=", limits: {steps: 20}")
    made.rules("limits: {steps: 12}, limits: {steps: 20}", "limits: {steps: 20}")
    result = made.carry()
    assert "done" == result.status, result
    told = made.results(result.run)
    assert len(KINDS) + 1 == len(told)
    assert {"path": "a.txt"} == told[-1]
