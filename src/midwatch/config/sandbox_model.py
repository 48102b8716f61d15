"""The shape of `sandbox:` in a fleet file, for the fleet and for an agent: one word, or a mapping.

In:   plain values from `yaml_source`. Out: validated blocks.
May import: pydantic; `file_types`, `specs`. Must not know: what exists on this machine (`sandbox_mounts`), what fits together
(`sandbox_rules`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints

from midwatch.config.file_types import (
    Block,
    Count,
    EnvName,
    EnvNames,
    Line,
    Lines,
    OrWord,
    Share,
    Size,
    Span,
    listed,
    or_empty,
    rows,
    words_schema,
)
from midwatch.config.specs import Backend

__all__ = ["EgressFile", "Method", "MountFile", "SandboxFile", "SandboxLimitsFile", "Sandboxed"]

Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
"""A tunnel (`CONNECT`) is none of them: nobody can look into it, so only a rule without methods allows one."""

_METHODS: Final = get_args(Method)
_Methods = Annotated[tuple[Method, ...], BeforeValidator(listed), words_schema(words=_METHODS)]
_HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
_Value = Annotated[str, StringConstraints(max_length=4096)]
_Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]{0,254}$")]
_Runtime = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9._-]{0,62}$")]


class SandboxLimitsFile(Block):
    """Bounds of one sandboxed process tree; the backend's own default where absent."""

    memory: Size | None = Field(
        None,
        description="Memory of the whole tree where a control group holds it, else address space of each process.",
    )
    cpu: Span | None = Field(None, description="Processor time of one process.")
    cpus: Share | None = Field(None, description="Share of processors: `0.5` is half of one.")
    processes: Count | None = Field(None, description="Processes at once.")
    disk: Annotated[Size, Field(gt=0)] | None = Field(
        None, description="Room for everything that is changed in the workspace."
    )
    inodes: Annotated[Count, Field(gt=0)] | None = Field(None, description="Files and folders that may be changed.")
    open_files: Count | None = Field(None, description="Open files of one process.")
    file_size: Size | None = Field(None, description="Largest file that may be written.")
    wall: Span | None = Field(None, description="Longest time of one call, whatever the tool asks for.")


class MountFile(Block):
    """A file or folder of this machine that the sandbox sees, read-only always."""

    from_: Line = Field(alias="from", description="Where it is: absolute, or below the fleet file's folder.")
    at: Line | None = Field(None, description="Where the sandbox sees it: absolute. The same place unless given.")


def _mount(value: object) -> object:
    return {"from": value} if isinstance(value, str) else value


class EgressFile(Block):
    """Requests that the broker lets out of the sandbox. What no rule describes is refused."""

    host: Line = Field(description="A name, or `*.name` for all below it; never an address.")
    port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="443 unless given, or 80 without `tls`."
    )
    methods: _Methods = Field((), description="Methods; any, and a tunnel (`CONNECT`) too, unless given.")
    paths: Lines = Field((), description="Globs of paths, such as `/repos/*`; any unless given.")
    tls: bool = Field(
        True,
        description="The broker speaks TLS to the host. Inside, `http://HOST/…` is asked for; the broker does the rest.",
    )
    headers: Annotated[dict[_HeaderName, Line], BeforeValidator(or_empty)] = Field(
        {}, description="What the broker adds. A credential is written `${secret:NAME}`, NAME being one of `secrets`."
    )
    stage: bool = Field(
        False,
        description="Requests that do not only read are kept, and sent when the run's effects are committed.",
    )
    private: bool = Field(
        False, description="The name may lead to a loopback, private or link-local address, which is refused otherwise."
    )


class SandboxFile(Block):
    """Where tools act. A word alone names the backend: `sandbox: docker`."""

    backend: Backend | None = Field(
        None,
        description="What holds the tools; `bubblewrap` unless given. `process` bounds them and does not isolate them.",
    )
    because: Line | None = Field(
        None, description="Why no isolation is good enough here, in your words. Required for `process`."
    )
    image: _Image | None = Field(
        None, description="Image for `docker`; one made from this machine's Python unless given."
    )
    runtime: _Runtime | None = Field(None, description="Runtime of the Docker engine, such as `runsc` for gVisor.")
    mounts: Annotated[
        tuple[
            Annotated[MountFile, BeforeValidator(_mount), OrWord({"type": "string", "pattern": "^/"})],
            ...,
        ],
        BeforeValidator(listed),
        OrWord({"type": "string", "pattern": "^/"}, or_null=True),
    ] = Field((), description="What else of this machine it sees, read-only. A path alone is seen at the same place.")
    egress: Annotated[tuple[EgressFile, ...], BeforeValidator(rows)] = Field(
        (), description="What may be asked of the network; nothing unless given."
    )
    secrets: EnvNames = Field(
        (),
        description="Names of environment variables that the broker may put into requests. Their values never enter the sandbox.",
    )
    env: Annotated[dict[EnvName, _Value], BeforeValidator(or_empty)] = Field(
        {}, description="Variables that are set inside. No credentials: those are `secrets`."
    )
    commit: Literal["ask", "done", "discard"] = Field(
        "ask",
        description="What becomes of changed files when a run ends well: `ask` keeps them until a person says so, `done` commits "
        "them unless one of them needs a person, `discard` drops them.",
    )
    limits: SandboxLimitsFile | None = Field(None, description="Bounds of the process tree.")


def _word(value: object) -> object:
    return {"backend": value} if isinstance(value, str) else value


_BACKENDS: Final[dict[str, Any]] = {"type": "string", "enum": list(get_args(Backend))}
Sandboxed = Annotated[SandboxFile, BeforeValidator(_word), OrWord(_BACKENDS)]
