"""Code beside a fleet file under attack: what runs is the source that was looked at, and nothing that a run has put beside it."""

from __future__ import annotations

import importlib
import sys
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]
from pathlib import Path

import pytest

from midwatch.tools.registry import Registry

TOOL = '''
import os
from typing import Annotated

from midwatch import tool
{more}

@tool(name="beside.say", effect="pure")
def say(text: str) -> str:
    """Say it.

    Args:
        text: what.
    """
    return text
'''
RAN = "raise RuntimeError('the planted code ran')"


def planted(place: Path) -> None:
    """Leave bytecode that Python takes without looking at the source, as anybody can who may write the folder."""
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(_code_to_hash_pyc(compile(RAN, place.name, "exec"), b"12345678", False))


def cached(source: Path) -> Path:
    """Give where Python keeps a source's bytecode."""
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


@pytest.mark.req("OWN-3")
@pytest.mark.parametrize("name", ["beside_tools", "beside_helper"])
def test_attack_planted_bytecode_does_not_run_in_the_place_of_the_source(tmp_path: Path, name: str) -> None:
    """The tools' own file, and one that it imports, are compiled from what was looked at."""
    (tmp_path / "beside_tools.py").write_text(TOOL.format(more="import beside_helper"), "utf-8")
    (tmp_path / "beside_helper.py").write_text("SAID = 1\n", "utf-8")
    planted(cached(tmp_path / f"{name}.py"))
    sys.modules.pop("beside_helper", None)
    assert ("beside.say",) == Registry.load(["python:beside_tools.py"], tmp_path).names()
    assert sys.modules["beside_helper"].SAID == 1


@pytest.mark.req("OWN-3")
@pytest.mark.parametrize("file", ["beside_package/__pycache__", "beside_package.pyc", "beside_package.so"])
def test_attack_nor_in_a_package_nor_before_it(tmp_path: Path, file: str) -> None:
    """Modules of a package are compiled from their source; no other kind of file comes before it."""
    (tmp_path / "beside_tools.py").write_text(TOOL.format(more="import beside_package.part"), "utf-8")
    package = tmp_path / "beside_package"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    (package / "part.py").write_text("SAID = 2\n", "utf-8")
    planted(cached(package / "part.py") if file.endswith("__pycache__") else tmp_path / file)
    for known in [each for each in sys.modules if each.startswith("beside_package")]:
        del sys.modules[known]
    assert ("beside.say",) == Registry.load(["python:beside_tools.py"], tmp_path).names()
    assert sys.modules["beside_package.part"].SAID == 2


@pytest.mark.req("OWN-3")
@pytest.mark.parametrize("end", ["py", "pyc"])
def test_attack_what_some_library_would_like_to_have_is_not_found_there(tmp_path: Path, end: str) -> None:
    """A module that the fleet's own code does not name is not imported from beside it, whoever looks for it."""
    (tmp_path / "beside_tools.py").write_text(TOOL.format(more=""), "utf-8")
    Registry.load(["python:beside_tools.py"], tmp_path)
    place = tmp_path / f"beside_optional.{end}"
    planted(place) if end == "pyc" else place.write_text(RAN, "utf-8")
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("beside_optional")


@pytest.mark.req("OWN-3")
def test_twin_what_the_code_names_is_found_when_it_is_needed(tmp_path: Path) -> None:
    """An import within a function is found later, as it was told before."""
    later = TOOL.format(more="\ndef later() -> int:\n    import beside_later\n\n    return beside_later.SAID\n")
    (tmp_path / "beside_tools.py").write_text(later, "utf-8")
    (tmp_path / "beside_later.py").write_text("SAID = 3\n", "utf-8")
    sys.modules.pop("beside_later", None)
    Registry.load(["python:beside_tools.py"], tmp_path)
    assert importlib.import_module("beside_later").SAID == 3


@pytest.mark.req("OWN-3")
def test_twin_a_program_of_ones_own_imports_from_its_package_although_a_fleet_lies_there(tmp_path: Path) -> None:
    """What is a package of whoever started the process stays one; only what is imported by way of the fleet's folder is told of first."""
    package = tmp_path / "own_program"
    package.mkdir()
    (package / "beside_tools.py").write_text(TOOL.format(more=""), "utf-8")
    (package / "another.py").write_text("SAID = 2\n", "utf-8")
    sys.path.insert(0, str(tmp_path))  # the fixture of every test takes it away again
    Registry.load(["python:beside_tools.py"], package)
    assert importlib.import_module("own_program.another").SAID == 2
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("another")
