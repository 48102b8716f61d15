"""Page: the programs of the how-to about the sandbox, and what it says they print."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

__all__ = ["PAGE", "printed", "programs"]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-sandbox-from-python.md"
_PAIR = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def programs(*, foreign: bool) -> list[tuple[str, str]]:
    """Give programs and their outputs; `foreign`: those that need another framework."""
    found: list[tuple[str, str]] = _PAIR.findall(PAGE.read_text(encoding="utf-8"))
    return [
        pair
        for pair in found
        if bool(re.search(r"^from (inspect_ai|midwatch\.adapters)", pair[0], re.MULTILINE)) is foreign
    ]


def printed(python: Path, program: str, folder: Path) -> str:
    """Run a program in an empty folder; give what it prints."""
    done = subprocess.run(
        [str(python), "-c", program],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
