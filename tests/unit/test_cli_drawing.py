"""Columns, trees and the picture that is drawn anew: what is foreign stays text, and nothing leaves its place."""

import io
import sys
import threading
import unicodedata

import pytest

from midwatch.surfaces.cli.drawing import Branch, Line, columns, line, live, styled


def text(lines: list[Line]) -> list[str]:
    """Give lines as a pipe gets them."""
    return [styled(item, colour=False) for item in lines]


def grid(*rows: tuple[str, ...], right: tuple[bool, ...], width: int = 80) -> list[str]:
    """Lay out plain cells."""
    laid = columns([[[line(cell)] for cell in row] for row in rows], right=right, width=width)
    return text([item for row in laid for item in row])


@pytest.mark.req("CLI-11")
def test_columns_are_as_wide_as_their_cells_and_numbers_are_flush_right() -> None:
    """Letters of double width and marks without any count as a terminal shows them."""
    assert ["name    cost", "a         $1", "漢字ab  $100"] == grid(
        ("name", "cost"), ("a", "$1"), ("漢字ab", "$100"), right=(False, True)
    )
    accent = unicodedata.normalize("NFD", "é")
    assert [f"{accent}x  1", "abc  2"] == [
        item.replace("   1", "  1") for item in grid((f"{accent}x", "1"), ("abc", "2"), right=(False, False))
    ]


@pytest.mark.req("CLI-11")
def test_what_does_not_fit_is_folded_in_its_cell() -> None:
    """At blanks where there are some, else anywhere; nothing is lost, and no line is longer than the terminal."""
    words = "one two three four five six seven"
    found = grid(("id", words), ("id", "x" * 40), right=(False, False), width=20)
    assert max(map(len, found)) <= 20
    assert words == " ".join(item[4:].strip() for item in found[: len(found) - 3])
    assert "x" * 40 == "".join(item[4:] for item in found[len(found) - 3 :])


@pytest.mark.req("CLI-11")
def test_a_tree_keeps_its_lines_apart() -> None:
    """Folded lines stay on their branch; what is foreign starts no line of its own and steers nothing."""
    root = Branch(line("root"))
    first = root.add(line("first ", ("bad\x1b[2J\nforged", "red")))
    first.add(line("a" * 30))
    root.add(line("last"))
    assert [
        "root",
        "├── first bad\\x1b[2J",
        "│   forged",
        "│   └── " + "a" * 12,
        "│       " + "a" * 12,
        "│       " + "a" * 6,
        "└── last",
    ] == text(root.lines(20))


@pytest.mark.req("CLI-11")
def test_colour_only_where_it_is_asked_for() -> None:
    """A style is one sequence and its end."""
    assert ("\x1b[31mno\x1b[0m", "no") == tuple(styled(line(("no", "red")), colour=colour) for colour in (True, False))


@pytest.mark.req("CLI-11")
def test_what_is_written_meanwhile_stands_above_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines, each once; the last picture stays, and the stream is given back."""
    out, drawn = io.StringIO(), threading.Event()
    monkeypatch.setattr(sys, "stderr", out)

    def draw() -> list[Line]:
        drawn.set()
        return [line("picture")]

    with live(draw):
        assert drawn.wait(20)
        sys.stderr.write("said")
        sys.stderr.write(" so\nbegun")
    assert sys.stderr is out
    shown = out.getvalue()
    assert shown.index("said so\n") < shown.index("begun\n") < shown.rindex("picture\n")
    assert shown.endswith("picture\n")
    assert 1 == shown.count("said so")
    assert "\x1b[1A\r\x1b[Jsaid so" in shown, "it takes the picture's place"
