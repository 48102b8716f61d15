"""The how-to about the sandbox: each of its programs runs as it stands there."""

import re
import sys
from pathlib import Path

import pytest

from tests.e2e.sandbox_page import PAGE, printed, programs


@pytest.mark.req("SBXAPI-3")
@pytest.mark.parametrize("number", range(3))
def test_a_program_of_the_page_prints_what_the_page_says(number: int, tmp_path: Path) -> None:
    """In an empty folder, with nothing else."""
    program, output = programs(foreign=False)[number]
    assert output == printed(Path(sys.executable), program, tmp_path)


@pytest.mark.req("SBXAPI-3")
def test_no_program_of_the_page_is_left_out() -> None:
    """Three run here, two beside their frameworks."""
    assert (3, 2) == (len(programs(foreign=False)), len(programs(foreign=True)))
    assert 5 == len(re.findall(r"^```python$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
