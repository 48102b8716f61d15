"""Documents: what they name exists, and what exists is named where a reader looks for it.

In:   the checkout: *.md, the Makefile, the command line, the error tree, the fleet file's schema, the requirements.
Out:  one line for each finding, and exit code 1; nothing and 0 when there is none.
Both ways, where both make sense: a document may not name a command that is gone, nor may a command ship undocumented.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = [
    "Code",
    "Page",
    "broken_links",
    "main",
    "pages_of",
    "unindexed_decisions",
    "unknown_names",
    "unlisted",
    "what_the_code_has",
]

_Error = TypeVar("_Error")
ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {
    ".venv",
    ".venv-peers",
    ".docker-engine",
    ".git",
    "node_modules",
    "build",
    "dist",
    ".pytest_cache",
    ".hypothesis",
}

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"!?\[[^\]\n]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_MAKE = re.compile(r"(?:^|[`$&;|]\s*)make ((?:[a-z][a-z-]*[ \t]*)+)", re.MULTILINE)
_COMMAND = re.compile(r"(?:^|[`$&;|]\s*)(?:\.venv/bin/)?midwatch ([a-z][a-z-]*)", re.MULTILINE)
_REQUIREMENT = re.compile(r"\b[A-Z]{3,}-[0-9]{1,3}\b")
_EXIT_CODE = re.compile(r"^\|\s*`?(\d{1,3})`?\s*\|", re.MULTILINE)
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file.

    Attributes:
        path: where it is.
        text: all of it.
    """

    path: Path
    text: str

    @property
    def code(self) -> str:
        """Only what stands in code: fenced blocks and `inline`, each on lines of its own."""
        fences = [match.group(0) for match in _FENCE.finditer(self.text)]
        inline = _INLINE.findall(_FENCE.sub("", self.text))
        return "\n".join([*fences, *inline])

    @property
    def anchors(self) -> set[str]:
        """Anchors of its headings, as forges make them."""
        return {_anchor(title) for title in _HEADING.findall(_FENCE.sub("", self.text))}


@dataclass(frozen=True, slots=True)
class Code:
    """What the code has, to hold the documents against.

    Attributes:
        targets: of the Makefile.
        commands: of the command line, first level.
        exit_codes: that a command can end with.
        fleet_keys: of the fleet file, first level.
        requirements: ids of the promises.
    """

    targets: frozenset[str]
    commands: frozenset[str]
    exit_codes: frozenset[str]
    fleet_keys: frozenset[str]
    requirements: frozenset[str]


def pages_of(root: Path) -> list[Page]:
    """Read every Markdown file of the checkout."""
    found = (path for path in sorted(root.rglob("*.md")) if not SKIPPED & set(path.relative_to(root).parts))
    return [Page(path, path.read_text(encoding="utf-8")) for path in found]


def broken_links(pages: Iterable[Page]) -> Iterator[str]:
    """Report links inside the checkout that lead nowhere: a missing file, or a heading that is not there."""
    by_path = {page.path.resolve(): page for page in pages}
    for page in by_path.values():
        for target in _LINK.findall(_INLINE.sub("", _FENCE.sub("", page.text))):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue  # another place; what lies there is not ours to check offline
            name, _, anchor = target.partition("#")
            path = (page.path.parent / name).resolve() if name else page.path.resolve()
            if not path.exists():
                yield f"{page.path}: link to `{target}`: no such file"
            elif anchor and path in by_path and anchor not in by_path[path].anchors:
                yield f"{page.path}: link to `{target}`: no such heading"


def unknown_names(pages: Iterable[Page], code: Code) -> Iterator[str]:
    """Report make targets, commands and requirements that a document names and the code does not have."""
    rooms = {name.rpartition("-")[0] for name in code.requirements}
    for page in pages:
        if page.path.name == "CHANGELOG.md":
            continue  # history may name what is gone
        for words in _MAKE.findall(page.code):
            for target in sorted(set(words.split()) - code.targets):
                yield f"{page.path}: `make {target}`: the Makefile has no such target"
        for command in sorted(set(_COMMAND.findall(page.code)) - code.commands):
            yield f"{page.path}: `midwatch {command}`: no such command"
        for name in sorted(set(_REQUIREMENT.findall(page.text)) - code.requirements):
            if name.rpartition("-")[0] in rooms:
                yield f"{page.path}: `{name}`: no such requirement"


def unlisted(pages: Iterable[Page], code: Code) -> Iterator[str]:
    """Report commands, exit codes and fleet keys that no page tells a user about."""
    told = [page for page in pages if page.path.name == "README.md" or "docs" in page.path.parts]
    in_code = "\n".join(page.code for page in told)
    commands = set(_COMMAND.findall(in_code))
    exit_codes = {number for page in told for number in _EXIT_CODE.findall(page.text)}
    keys = set(re.findall(r"^\s*`?([a-z_]+)(?::|`|$)", in_code, re.MULTILINE))
    for what, missing in (
        ("command `midwatch {}` is in no code of the README or docs/", code.commands - commands),
        ("exit code {} has no row in a table of the README or docs/", code.exit_codes - exit_codes),
        ("fleet key `{}` is in no code of the README or docs/", code.fleet_keys - keys),
    ):
        yield from (what.format(name) for name in sorted(missing))


def unindexed_decisions(folder: Path) -> Iterator[str]:
    """Report decisions that `README.md` of their folder does not link to."""
    index = folder / "README.md"
    linked = set(_LINK.findall(index.read_text(encoding="utf-8"))) if index.exists() else set()
    for path in sorted(folder.glob("*.md")):
        if path != index and path.name not in linked:
            yield f"{path}: not linked from {index}"


def what_the_code_has(root: Path) -> Code:
    """Ask the Makefile, the command line, the errors, the schema and the requirements."""
    # Imported here: links and decisions can be checked while a room is in pieces.
    import click  # noqa: PLC0415

    from midwatch.config.schema import fleet_json_schema  # noqa: PLC0415
    from midwatch.errors import MidwatchError  # noqa: PLC0415
    from midwatch.surfaces.cli import main as command_line  # noqa: PLC0415
    from tests.requirements import load  # noqa: PLC0415

    if not isinstance(command_line, click.Group):
        raise TypeError("`midwatch.surfaces.cli:main` is no click group; tell this check how to list its commands")
    properties: Mapping[str, object] = fleet_json_schema()["properties"]
    return Code(
        targets=frozenset(_TARGET.findall((root / "Makefile").read_text(encoding="utf-8"))),
        commands=frozenset(command_line.list_commands(click.Context(command_line))),
        exit_codes=frozenset(str(error.exit_code) for error in _tree(MidwatchError)) | {"0"},
        fleet_keys=frozenset(properties),
        requirements=frozenset(load()),
    )


def main(root: Path = ROOT) -> int:
    """Check the checkout; return the exit code."""
    sys.path.insert(0, str(root))
    pages = pages_of(root)
    code = what_the_code_has(root)
    findings = [
        *broken_links(pages),
        *unindexed_decisions(root / "docs" / "decisions"),
        *unknown_names(pages, code),
        *unlisted(pages, code),
    ]
    for finding in findings:
        print(finding.replace(f"{root}/", ""))
    return 1 if findings else 0


def _tree(error: type[_Error]) -> Iterator[type[_Error]]:
    yield error
    for child in error.__subclasses__():
        yield from _tree(child)


def _anchor(title: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
