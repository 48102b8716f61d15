"""The sizes' check: what is too long is found, and nothing here is."""

from pathlib import Path

import pytest

from scripts import check_sizes

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.req("PROJECT-5")
@pytest.mark.parametrize(
    ("source", "findings"),
    [
        ("def f():\n" + "    x = 1\n" * 59, 0),
        ("def f():\n" + "    x = 1\n" * 60, 1),
        ("@one\n@two\ndef f():\n" + "    x = 1\n" * 58, 1),
        ("class A:\n    async def f(self):\n" + "        x = 1\n" * 60, 1),
        ("x = 1\n" * 500, 0),
        ("x = 1\n" * 501, 1),
    ],
    ids=["60 lines", "61 lines", "decorators count", "methods count", "500 lines", "501 lines"],
)
def test_the_limits_are_exact(source: str, findings: int, tmp_path: Path) -> None:
    """The last line that is allowed passes, and the next does not."""
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert findings == len(list(check_sizes.too_long(path)))


@pytest.mark.req("PROJECT-5")
def test_a_folder_without_code_is_no_success(tmp_path: Path) -> None:
    """A check that looked at nothing has not passed."""
    assert 1 == check_sizes.main([str(tmp_path)])


@pytest.mark.req("PROJECT-5")
def test_nothing_here_is_too_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The project keeps its own limits, tests included."""
    monkeypatch.chdir(ROOT)
    code = check_sizes.main([root for root in check_sizes.ROOTS if Path(root).is_dir()])
    assert ("", 0) == (capsys.readouterr().out, code)
