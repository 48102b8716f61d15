"""Packages and tests: what runs when somebody installs, builds, tests, lints, opens or makes.

In:   a file effect. Out: findings.
May import: facts, text, tree, places. Must not know: package managers' state.
Python is compared by its syntax tree: comments, layout and docstrings of a test hook give nobody anything, every other change does.
Source: PEP 517, PEP 621; npm `package.json` scripts; `site` (*.pth); pytest, tox and nox configuration.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from midwatch.containment.authority.facts import (
    ANYBODY,
    Effect,
    File,
    Finding,
    Inert,
    Power,
    Unreadable,
    granted,
    listed,
)
from midwatch.containment.authority.places import EVERY_PYTHON, TESTS, family, last, like, parts
from midwatch.containment.authority.text import Lines, continued, hashed, judge_lines, script, texts
from midwatch.containment.authority.tree import Rules, Tree, json_tree, judge_tree, toml_tree, yaml_tree

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "packages"
_BUILDS: Final = like("setup.py")
_MAKES: Final = like("Makefile")
_LINTS: Final = like(".eslintrc.js")
_EDITS: Final = like(".vimrc")
_OPENS: Final = like(".vscode/x")
_FAMILIES: Final = frozenset({_BUILDS, _MAKES, _LINTS, _EDITS, _OPENS, EVERY_PYTHON, TESTS})
_WHO: Final[Mapping[str, str]] = {
    _BUILDS: "whoever installs or builds the project",
    _MAKES: "whoever uses the command",
    _LINTS: "whoever lints or formats it",
    _EDITS: "whoever opens a file",
    _OPENS: "whoever opens the folder",
    EVERY_PYTHON: "whoever starts Python there",
    TESTS: "whoever runs the tests",
}
_CODE: Final = "the code that it holds or names"
_SCRIPT_MARKS: Final[Mapping[str, tuple[str, ...]]] = {
    ".js": ("//",),
    ".ts": ("//",),
    ".mjs": ("//",),
    ".cjs": ("//",),
    ".rs": ("//",),
    ".kts": ("//",),
    ".gradle": ("//",),
    ".swift": ("//",),
    ".lua": ("--",),
    ".vimrc": ('"',),
    ".exrc": ('"',),
    ".el": (";",),
}


def concerns(effect: Effect) -> bool:
    """Say whether this is about packages, tests or tools of a developer."""
    return (
        isinstance(effect, File)
        and family(effect.change.path) in _FAMILIES
        and ".devcontainer" not in parts(effect.change.path)
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    path, name = effect.change.path, last(effect.change.path)
    who = _WHO[family(path) or _BUILDS]
    if name.endswith((".py", ".pythonrc", ".pdbrc")):
        yield from _python(effect, who)
    elif name.endswith(".pth"):
        yield from judge_lines(effect, NAME, Lines(hashed, _pth))
    elif (found := _trees(name, who)) is not None:
        yield from judge_tree(effect, NAME, found[0], found[1])
    elif name in ("requirements.txt", "constraints.txt") or name.startswith("requirements-") or name.endswith(".lock"):
        yield from judge_lines(effect, NAME, Lines(hashed, _requirement, _requirement_gone))
    elif name in ("go.mod", "go.work", "yarn.lock", "gemfile.lock", ".tool-versions"):
        yield from judge_lines(
            effect,
            NAME,
            Lines(
                _slashed(("//", "#")),
                lambda _: (
                    "be part of the project",
                    "whoever controls that package",
                    "it names one that is new or another one",
                ),
            ),
        )
    elif name.endswith(
        (".ini", ".cfg", ".coveragerc", "pylintrc", ".flake8", ".noserc", ".editorconfig", ".properties", "pyvenv.cfg")
    ):
        yield from judge_lines(effect, NAME, Lines(_ini, _setting(who)))
    elif effect.change.kind != "folder":
        marks = next((marks for end, marks in _SCRIPT_MARKS.items() if name.endswith(end)), ("#",))
        entries = (
            _recipe
            if "makefile" in name or name.endswith((".mk", ".mak"))
            else script
            if marks == ("#",)
            else _slashed(marks)
        )
        lines = Lines(
            entries,
            lambda _: (f"be run, with the rights of {who}", _CODE, "it has a new line"),
            _line_gone,
            _moved(who),
        )
        yield from judge_lines(effect, NAME, lines)


# -------------------------------------------------------------------------------------------------------------- Python


def _python(effect: File, who: str) -> Iterator[Finding]:
    before, after = texts(effect)
    try:
        new = _meaning(after)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unreadable("it is no Python that could be compared") from error
    try:
        old = _meaning(before)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        old = None
    if effect.change.op == "deleted" or new == old or not new:
        yield Inert(
            effect.change.path, NAME, "it is taken away" if not after else "only comments, docstrings or layout differ"
        )
    else:
        yield granted(
            f"be run, with the rights of {who}", _CODE, effect.change.path, NAME, "what it does is new or another thing"
        )


def _meaning(text: str) -> list[str]:
    if re.match(r"(?:[^\n]*\n)?[ \t\f]*#.*?coding[:=][ \t]*+(?!utf-?8\b)", text, re.IGNORECASE):
        raise Unreadable("it declares another encoding")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return [ast.dump(node) for node in tree.body if not _only_pass(node)]


def _only_pass(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _pth(line: str) -> Power | None:
    if re.match(r"import[ \t]", line):
        return "be run by every Python there", _CODE, "it has a line that runs"
    return "have its modules found by every Python there", "the folder that it names", "it names another folder"


# --------------------------------------------------------------------------------------------------------------- trees


_BRINGS: Final[Power] = (
    "be part of the project, and run when it is installed",
    "whoever controls that package",
    "it sets PLACE",
)
_ABOUT: Final = (
    r"(?:.*\.)?(?:description|keywords(?:\[\])?|author\w*(?:[.\[].*)?|maintainers(?:[.\[].*)?|contributors(?:[.\[].*)?"
    r"|licen[cs]e(?:[-.\[].*)?|readme(?:\..*)?|homepage|bugs(?:\..*)?|urls\..*|classifiers\[\]|funding(?:[.\[].*)?|private|sideeffects"
    r"|\$schema|title)"
)
_PYPROJECT: Final = (
    r"project\.(?:version|name|requires-python)"
    r"|tool\.(?:ruff|black|isort|mypy|pyright|coverage|codespell|pylint)\.(?!.*(?:plugin|extend(?!-(?:select|ignore|exclude))|path|exec|cmd|command|config|load|custom)).*"
    r"|tool\.pytest\.ini_options\.(?:testpaths(?:\[\])?|markers(?:\[\])?|minversion|xfail_strict|timeout|log_\w+)"
)
_CARGO: Final = r"package\.(?:version|name|edition|rust-version)|profile\..*\.(?:opt-level|lto|debug)"
_NODE: Final = r"(?:name|version|type|files\[\]|engines\..*)"
_LOOKS: Final = (
    r"(?:editor|workbench|explorer|window|diffEditor|breadcrumbs)\.?(?:\u2027|\.).*"
    r"|files\u2027(?:autosave\w*|eol|encoding|trim\w*|insertfinalnewline)"
    r"|(?:singlequote|semi|tabwidth|printwidth|trailingcomma|usetabs|bracketspacing|endofline)"
)
_RUFF: Final = r"(?:line-length|indent-width|target-version|lint\.(?:select|ignore|extend-select)(?:\[\])?|format\..*)"
_FROM_PYTHON: Final = (
    r"(?:project\.(?:optional-)?dependencies|dependency-groups|build-system\.requires"
    r"|tool\.\w+\.(?:\w+\.)*(?:\w*dependencies|sources?)).*"
)
_FROM_NODE: Final = r".*dependencies.*|(?:overrides|resolutions|imports|require(?:-dev)?|repositories|packagemanager).*"
_NODE_NAMES: Final = frozenset({"package.json", "composer.json", "deno.json", "deno.jsonc"})
_JSON_NAMES: Final = listed(".eslintrc .prettierrc .stylelintrc .swcrc .babelrc")


def _trees(name: str, who: str) -> tuple[Callable[[str], Tree], Rules] | None:
    """Give how a name is read, and its rules; None where it is no tree."""
    if name == "pyproject.toml":
        return toml_tree, _rules(who, _FROM_PYTHON, _PYPROJECT)
    if name == "cargo.toml":
        return toml_tree, _rules(who, r".*dependencies.*|(?:patch|replace|source)\..*", _CARGO)
    if name in _NODE_NAMES:
        return json_tree, _rules(who, _FROM_NODE, _NODE)
    if name in _JSON_NAMES or name.endswith((".json", ".jsonc", ".code-workspace", ".lockb")):
        return json_tree, _rules(who, r"(?:packages|dependencies)\..*", _LOOKS)
    if name.endswith((".yml", ".yaml")):
        return yaml_tree, _rules(who, r"dependencies.*", _ABOUT)
    return (toml_tree, _rules(who, r".*dependencies.*", _RUFF)) if name.endswith(".toml") else None


def _rules(who: str, brings: str, inert: str) -> Rules:
    runs: Power = (f"be run, or decide what is run, with the rights of {who}", _CODE, "it sets PLACE")
    return Rules(((brings, _BRINGS),), (_ABOUT, inert), runs)


# --------------------------------------------------------------------------------------------------------------- lines


def _requirement(line: str) -> Power | None:
    if line.startswith("-") and not re.match(r"--(?:hash|no-binary|require-hashes|prefer-binary)\b", line):
        return (
            "give packages, or files of them, to whoever installs it",
            "whoever controls the place that it names",
            "it has an option",
        )
    if line.startswith("--"):
        return None
    return (
        "be part of the project, and run when it is installed",
        "whoever controls that package",
        "it names one that is new or another one",
    )


def _requirement_gone(line: str) -> Power | None:
    return (
        ("be installed unchecked", "whoever controls a package", "hashes are no longer required")
        if "require-hashes" in line
        else None
    )


def _ini(text: str) -> list[str]:
    section = ""
    found: list[str] = []
    for line in text.split("\n"):
        plain = line.strip()
        if not plain or plain[0] in "#;":
            continue
        if plain.startswith("["):
            section = plain.strip("[] ").casefold()
        elif line[0].isspace() and found:
            found.append(f"{found[-1].partition('=')[0]}={plain}")
        else:
            key, mark, value = re.match(r"([^=:]*?)\s*([=:]|$)\s*(.*)", plain).groups()  # type: ignore[union-attr]
            found.append(f"{section}.{key.strip().casefold()}={value}" if mark else f"{section}.{plain}=")
    return found


_TOLD: Final = re.compile(
    r"metadata\.(?:name|version|description|long_description\w*|author\w*|maintainer\w*|license\w*|url|project_urls|classifiers|keywords)="
    r"|(?:flake8|pycodestyle|isort|pylint[^.]*|coverage[^.]*|report|html|tool:isort|\*[^.]*)\.(?!.*(?:plugin|init-hook|load|exec)).*="
    r"|(?:pytest|tool:pytest)\.(?:testpaths|markers|minversion|xfail_strict|timeout|log_\w+|norecursedirs)="
    r"|mypy[^.]*\.(?!plugins|python_executable|mypy_path|install_types|custom_typing).*="
)


def _setting(who: str) -> Callable[[str], Power | None]:
    def gains(line: str) -> Power | None:
        if _TOLD.match(line) and not re.search(r"=\s*(?:attr|file):", line):
            return None
        return (
            f"be run, or decide what is run, with the rights of {who}",
            _CODE,
            f"it sets {line.partition('=')[0][:60]}",
        )

    return gains


def _slashed(marks: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Give lines that are no comment; where comments or texts could go on over lines, all of them."""

    def entries(text: str) -> list[str]:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if re.search(r"/\*|\*/|`|\"\"\"|'''|--\[\[|\[\[|\\$", text, re.MULTILINE):
            return lines
        return [line for line in lines if not line.startswith(marks)]

    return entries


_HOLDS: Final = re.compile(
    r"(?:^|[;&|{]\s*)(?:exit|return|if|elif|else|fi|then|case|esac|while|until|"
    r"for|test|\[|false|set|trap|ifn?(?:eq|def)|endif|\.\w+)\b|&&|\|\||\bthrow\b|\bassert"
)


def _line_gone(line: str) -> Power | None:
    if _HOLDS.search(line):
        return "have run what did not run until now", ANYBODY, "a line that decides what is run goes"
    return None


def _recipe(text: str) -> list[str]:
    """Give the lines of a makefile; whether one begins with a tab decides whether it is run."""
    return [
        line.rstrip() if line.startswith("\t") else line.strip()
        for line in continued(text)
        if line.strip()
        and (line.lstrip()[0] != "#" or (line.startswith("\t") and "$" in line))  # `make` expands it first
    ]


def _moved(who: str) -> Power:
    return f"be run in another order, with the rights of {who}", _CODE, "lines changed places"
