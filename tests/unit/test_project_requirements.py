"""The table of requirements and the tests agree, in both directions."""

from pathlib import Path

import pytest

from tests import requirements


@pytest.mark.req("PROJECT-3")
def test_every_requirement_has_a_test() -> None:
    """A promise without a test is not a promise."""
    tested = {use.id for use in requirements.used()}
    assert [] == sorted(set(requirements.load()) - tested)


@pytest.mark.req("PROJECT-3")
def test_every_marker_names_a_requirement() -> None:
    """A marker that names nothing is a typing error, and would hide an untested promise."""
    known = requirements.load()
    assert [] == [f"{use.where}: {use.id}" for use in requirements.used() if use.id not in known]


@pytest.mark.req("PROJECT-3")
def test_each_id_tells_its_room_and_number() -> None:
    """Ids look like `STORE-3`, each with a sentence of its own."""
    table = requirements.load()
    assert [] == [name for name in table if not _looks_like_an_id(name)]
    assert len(table) == len(set(table.values()))


@pytest.mark.req("PROJECT-3")
@pytest.mark.parametrize(
    "files",
    [
        {"a.py": 'REQUIREMENTS = {"A-1": "one", "A-1": "two"}'},
        {"a.py": 'REQUIREMENTS = {"A-1": "one"}', "b.py": 'REQUIREMENTS = {"A-1": "two"}'},
        {"a.py": "NOTHING = 1"},
    ],
    ids=["twice in one file", "in two files", "no table"],
)
def test_an_id_cannot_be_taken_twice(files: dict[str, str], tmp_path: Path) -> None:
    """Two promises under one id would let one test stand for both."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"A-1|REQUIREMENTS"):
        requirements.load(tmp_path)


@pytest.mark.req("PROJECT-3")
def test_markers_are_found_wherever_pytest_accepts_them(tmp_path: Path) -> None:
    """Decorators, module marks and parameter marks all count; an id that is no literal is given as written."""
    # Put together here, so that the scan of this very file does not see a marker.
    mark = "pytest.mark." + "req"
    source = f"""
pytestmark = {mark}("A-1")
@{mark}("A-2", "A-3")
def test_x(): ...
case = pytest.param(1, marks={mark}(NAME))
"""
    (tmp_path / "test_x.py").write_text(source, encoding="utf-8")
    assert {"A-1", "A-2", "A-3", "NAME"} == {use.id for use in requirements.used(tmp_path)}


def _looks_like_an_id(name: str) -> bool:
    room, dash, number = name.rpartition("-")
    return bool(dash) and room.isupper() and number.isdigit()
