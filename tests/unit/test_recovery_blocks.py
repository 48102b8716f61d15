"""Files out of prose: which names count, what is refused, and that no text leads out."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.recovery.blocks import BLOCK_REFUSALS, FileBlock, RefusedBlocks, file_blocks
from midwatch.sandbox.process import ProcessSandbox
from midwatch.tools.arguments import check
from midwatch.tools.perform import PerformContext, perform
from midwatch.tools.registry import Registry

BODY = "```py{}\nx = 1\n```"
NAMES = [
    BODY.format(" src/app.py"),
    BODY.format(' title="src/app.py"'),
    BODY.format(" {file=src/app.py}"),
    "```python:src/app.py\nx = 1\n```",
    f"**src/app.py**\n\n{BODY.format('')}",
    f"Here it is:\n\n`src/app.py`:\n{BODY.format('')}\nThen run it.",
    f"File: src/app.py\n{BODY.format('')}",
    f"### 1. `src/app.py`\n\n{BODY.format('')}",
    "```py\n# src/app.py\nx = 1\n```",
    "```js\n// file: src/app.py\nx = 1\n```",
    "1. First:\n\n   ```py src/app.py\n   x = 1\n   ```",
    "~~~~py src/app.py\nx = 1\n~~~~",
    '<file path="src/app.py">\nx = 1\n</file>',
    BODY.format(" ./src//app.py"),
    f"{BODY.format(' src/app.py')}\n\nAgain:\n\n{BODY.format(' src/app.py')}",
]
REFUSED = [
    ("empty", " \n"),
    ("too_long", "x" * ((1 << 20) + 1)),
    ("too_many", "\n".join(f"```py a{number}.py\n```" for number in range(201))),
    ("no_candidate", "Run it:\n\n```sh\nls\n```"),
    ("no_candidate", "```sh\n#!/bin/sh\nls\n```"),
    ("truncated", "```py a.py\nx = 1"),
    ("truncated", "```md README.md\n# Hi\n```sh\nls\n```\nbye\n```"),
    ("truncated", '<file path="a.py">\nx = 1'),
    ("ambiguous", "```py a.py\nx\n```\n```py a.py\ny\n```"),
    ("ambiguous", '<file path="a.py"><file path="b.py"></file></file>'),
    ("path", '<file path="../a.py">x</file>'),
    ("path", '<file path="/etc/passwd">x</file>'),
    ("path", '<file path="C:/a.py">x</file>'),
    ("path", '<file path="~/a.py">x</file>'),
    ("path", '<file path="a\\..\\b.py">x</file>'),
    ("path", '<file path="a/b.py ">x</file>'),
    ("path", '<file path=".">x</file>'),
    ("path", "```py path=../../a.py\nx\n```"),
    ("path", "File: /etc/cron.d/a.sh\n```\nx\n```"),
    ("path", "```py a.py\n```\n```py a.py/b.py\n```"),
    ("path", "```py ok.py\n```\n```py file=../no.py\n```"),
]


@pytest.mark.req("RECOVERY-7")
@pytest.mark.parametrize("text", NAMES)
def test_a_block_with_a_name_is_that_file(text: str) -> None:
    """The name stands in the info string, before the block or in its first comment; that comment is no content."""
    assert (FileBlock("src/app.py", "x = 1\n"),) == file_blocks(text)


@pytest.mark.req("RECOVERY-7")
@pytest.mark.parametrize(("code", "text"), REFUSED)
def test_what_is_no_set_of_files_is_refused_whole(code: str, text: str) -> None:
    """One bad block refuses them all, with a code from the list."""
    found = file_blocks(text)
    assert isinstance(found, RefusedBlocks)
    assert (code, True) == (found.code, code in BLOCK_REFUSALS)


@pytest.mark.req("RECOVERY-3", "RECOVERY-7")
def test_a_cut_text_holds_no_file() -> None:
    """Its last block may look whole: three back quotes can be the content's own."""
    assert RefusedBlocks("truncated") == file_blocks(NAMES[0], truncated=True)


PIECES = st.sampled_from(
    [
        *NAMES,
        "```",
        "~~~",
        "\n",
        "py ",
        "../",
        "/",
        "a.py",
        "# ",
        "**",
        '<file path="',
        '">',
        "</file>",
        "> ",
        "\x00",
        "\ud800",
        "\\",
        " ",
    ]
)


@pytest.mark.req("RECOVERY-7")
@settings(max_examples=300, deadline=None)
@given(text=st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=200))
def test_no_text_leads_out(text: str) -> None:
    """For any text: no exception, and each path is relative, plain and stands once."""
    found = file_blocks(text)
    if isinstance(found, RefusedBlocks):
        assert found.code in BLOCK_REFUSALS
        return
    paths = [PurePosixPath(block.path) for block in found]
    assert len(set(paths)) == len(found) > 0
    assert not any(path.is_absolute() or ".." in path.parts or str(path) == "." for path in paths)


@pytest.mark.req("RECOVERY-7")
@pytest.mark.parametrize(
    ("text", "files"), [(NAMES[0], ["src/app.py"]), (REFUSED[-1][1], []), ("```py link/a.py\n```", [])]
)
def test_the_tool_writes_all_of_them_or_none(tmp_path: Path, text: str, files: list[str]) -> None:
    """What the recovery refuses is not written; a folder that is a link is not gone through."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.mkdir()
    (work / "link").symlink_to(outside)
    tool = Registry.load(["builtin.blocks"], tmp_path).get("blocks.write")
    checked = check(tool, json.dumps({"text": text}))
    context = PerformContext("k" * 16, "f" * 32, "agent", lambda: 0, work, anyio.CapacityLimiter(1))

    async def call() -> object:
        with anyio.fail_after(30):
            return (await perform(tool, checked, context=context, sandbox=ProcessSandbox())).error  # type: ignore[arg-type]

    error = anyio.run(call)
    found = sorted(str(path.relative_to(work)) for path in work.rglob("*.py"))
    assert (files, bool(files), []) == (found, error is None, list(outside.iterdir()))
