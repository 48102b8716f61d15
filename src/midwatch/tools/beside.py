"""Beside: how code that lies beside a fleet file is imported: out of its source, and only what was told of it before it was loaded.

In:   the folder of a fleet file, the modules that it names. Out: that folder at the end of the import path; a loader of single files.
May import: config (`code`). Must not know: what is in a module, who wrote it.
Why no cached bytecode: whoever can write `__pycache__` says what runs, and the source that was looked at is not it.
Why nothing but what is told by reading: a library that looks for an optional one (`try: import x`) would find a file that a run has put
there. So what is named only while code runs (`importlib.import_module(text)`) is not found beside the fleet file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from midwatch.config.code import closure

__all__ = ["Source", "importable"]

_TOLD: Final[dict[str, set[str]]] = {}
"""Per folder of a fleet file, the files that may be imported from there."""
_FOLDERS: Final[dict[str, str]] = {}
"""Folders that are looked through for it: the folder itself and its packages, with whose they are."""

_USUAL: Final = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


class Source(SourceFileLoader):
    """Compiles the source each time."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Give the code of the source as it is."""
        path = self.get_filename(fullname)
        made: Any = self.source_to_code(self.get_data(path), path)
        return made if isinstance(made, CodeType) else None


class _Finder(FileFinder):
    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        if (
            self.path in _TOLD and "." in fullname
        ):  # the folder is also that of a package which is importable without us
            return FileFinder(self.path, *_USUAL).find_spec(fullname, target)
        spec, base = super().find_spec(fullname, target), _FOLDERS.get(self.path, self.path)
        if spec is None:
            return None
        if spec.loader is not None and os.path.abspath(spec.origin or "") not in _TOLD.get(base, ()):  # noqa: PTH100 - links stay
            return None
        for folder in spec.submodule_search_locations or ():
            _FOLDERS.setdefault(folder, base)
            sys.path_importer_cache.pop(folder, None)
        return spec


def importable(base: Path, roots: Iterable[str]) -> None:
    """Let these modules, and all that they import from below `base`, be imported; a folder that was importable before stays as it was.

    Args:
        roots: `FILE.py` or `package.module`.
    """
    folder = str(base)
    if folder not in _TOLD:
        if folder in sys.path:
            return  # the choice of whoever started this process
        if _hook not in sys.path_hooks:
            sys.path_hooks.insert(0, _hook)
        _TOLD[folder], _FOLDERS[folder] = set(), folder
        sys.path_importer_cache.pop(folder, None)
    if folder not in sys.path:
        sys.path.append(folder)
    _TOLD[folder] |= {os.path.abspath(path) for path in closure(base, _named(roots))}  # noqa: PTH100 - as above


def _hook(path: str) -> _Finder:
    if path not in _FOLDERS:
        raise ImportError(path)
    return _Finder(path, (Source, [".py"]))


def _named(roots: Iterable[str]) -> Sequence[str]:
    return [root.removeprefix("python:") for root in roots if not root.startswith("builtin.")]
