"""Command rules: what an agent that is a program must be, and which files of the fleet its command names.

In:   the draft, one agent and its place, the folder. Out: problems; `ProgramSpec`s.
May import: `draft`, `file_model`, `files`, `specs`, `yaml_source`; errors. Must not know: sandboxes' backends, how a program is run.
Why reads and staged requests only: a run that waits or was cut starts its program again from where it began. What the kernel carries
is answered from its journal then; what went out by the program itself would go out twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from midwatch.config.draft import Draft
from midwatch.config.file_model import AgentFile
from midwatch.config.files import locate
from midwatch.config.specs import ProgramSpec
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem

__all__ = ["MAX_PROGRAM", "check_command", "digest_of", "programs"]

MAX_PROGRAM: Final = 64 << 20
"""Largest file that a command may name, in bytes."""
_READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_CHUNK: Final = 1 << 20


def check_command(draft: Draft, place: Place, name: str, agent: AgentFile) -> Iterator[Problem]:
    """Check one agent that has a command."""
    at: Place = (*place, "command")
    for key in ("prompt", "prompt_text"):
        if getattr(agent, key) is not None:
            message = f"`{name}` has both `command` and `{key}`; a program has its words inside it, so keep one"
            yield draft.problem((*place, key), message, "two-prompts")
    if agent.role == "ceo":
        message = f"`{name}` is a CEO and has a command; only a specialist or a synthesis can be a program"
        yield draft.problem(at, message, "command-shape")
    if draft.file.graph.import_ is not None:
        message = f"`{name}` has a command, and the graph is imported; start the program in a node, or use `graph: {{team: …}}`"
        yield draft.problem(at, message, "command-shape")
    own = agent.sandbox is not None
    sandbox, where = (agent.sandbox, (*place, "sandbox")) if own else (draft.file.sandbox, ("sandbox",))
    if sandbox is None:
        return
    if sandbox.backend == "process":
        message = f"`{name}` is a program, and `process` does not isolate it; give it `sandbox: bubblewrap` or `docker`"
        yield draft.problem(at, message, "command-shape")
    for index, rule in enumerate(sandbox.egress):
        if not rule.stage and not (rule.methods and set(rule.methods) <= _READS):
            message = (
                f"`{name}` is a program and may be started again, so what it sends itself must be repeatable: "
                "write `methods: [GET]`, or `stage: true`, or let a tool send it"
            )
            yield draft.problem((*where, "egress", index), message, "command-shape")


def programs(
    draft: Draft, place: Place, command: Sequence[str], base: Path
) -> tuple[tuple[ProgramSpec, ...], list[Problem]]:
    """Find the files below `base` that a command names, and digest them."""
    found: dict[str, ProgramSpec] = {}
    problems: list[Problem] = []
    for index, word in enumerate(command):
        if word in found or word.startswith(("-", "/")):
            continue
        located = locate(base, word)
        if located.reason is not None:  # a word like any other
            continue
        digest = digest_of(located.path)
        if digest is None:
            message = (
                f"the program `{word}` cannot be read, or is larger than {MAX_PROGRAM >> 20} MiB; use `sandbox.mounts`"
            )
            problems.append(draft.problem((*place, index), message, "unreadable"))
        else:
            found[word] = ProgramSpec(word, located.path, digest)
    return tuple(found.values()), problems


def digest_of(path: Path) -> str | None:
    """Give the SHA-256 of a file; None where it cannot be read, or is too large."""
    digest, left = hashlib.sha256(), MAX_PROGRAM
    try:
        with path.open("rb") as stream:
            while data := stream.read(_CHUNK):
                left -= len(data)
                if left < 0:
                    return None
                digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()
