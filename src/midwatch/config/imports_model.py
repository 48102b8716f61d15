"""The shape of `mcp:`, `openapi:` and `langchain:` in a fleet file.

In:   plain values from `yaml_source`. Out: validated blocks; `rules_of`, what they declare of the tools they bring.
May import: pydantic; `file_types`, `specs_imports`, records. Must not know: what a source answers, files on disk.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from midwatch.config.file_types import Block, EnvNames, Globs, Line, Lines, Size, Span, or_empty
from midwatch.config.specs_imports import ToolRules
from midwatch.records.effect import EffectClass, Role

__all__ = ["LangchainFile", "McpFile", "OpenApiFile", "ToolRulesFile", "rules_of"]

_HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
_Headers = Annotated[dict[_HeaderName, Line], BeforeValidator(or_empty)]


class ToolRulesFile(Block):
    """What the fleet says of the tools that a source brings. Tools are named as the source names them."""

    digest: Line | None = Field(None, description="Digest that its tools were pinned with: `midwatch tools pin`.")
    tools: Globs | None = Field(None, description="Which of its tools are taken; all unless given.")
    effects: Annotated[dict[Line, EffectClass], BeforeValidator(or_empty)] = Field(
        {}, description="The worst that a call can do, by tool. A tool that is not named counts as the worst."
    )
    args: Annotated[dict[Line, dict[Line, Role]], BeforeValidator(or_empty)] = Field(
        {}, description="Roles of arguments, by tool. An argument that is not named counts as a command."
    )
    closed_world: Globs = Field((), description="Tools that reach nothing beyond what the operator controls.")
    idempotent: Globs = Field((), description="Tools of which a repeated call changes nothing more.")
    timeout: Span | None = Field(None, description="Longest time of one call; 30s unless given.")
    max_bytes: Size | None = Field(None, description="What a model is shown of one result; 8KiB unless given.")


class McpFile(ToolRulesFile):
    """A server of tools, started by `command` or reached at `url`."""

    command: Lines = Field((), description="Program and arguments.")
    url: Line | None = Field(None, description="Address, instead of `command`.")
    env: EnvNames = Field((), description="Names of environment variables that a started server is given.")
    runs: Literal["sandbox", "broker"] = Field(
        "sandbox",
        description="Where a started server lives: in a sandbox without network, or beside the kernel (`broker`).",
    )
    headers: _Headers = Field({}, description="Headers that are sent to `url`; a value may hold `${secret:NAME}`.")
    private: bool = Field(False, description="Whether `url` may lead to a loopback, private or link-local address.")


class OpenApiFile(ToolRulesFile):
    """A service that an OpenAPI 3.0 or 3.1 document describes; each operation is a tool."""

    document: Line = Field(description="File below the fleet file's folder, or an `https://` address.")
    server: Line | None = Field(None, description="Address of the service, instead of the document's first server.")
    headers: _Headers = Field({}, description="Headers that are sent along; a value may hold `${secret:NAME}`.")
    private: bool = Field(False, description="Whether the service may be at a loopback, private or link-local address.")


class LangchainFile(ToolRulesFile):
    """Tools of LangChain: a `BaseTool`, or a list of them."""

    source: Line = Field(description="`FILE.py:NAME` below the fleet file's folder, or `MODULE:NAME`.")
    runs: Literal["sandbox", "broker"] = Field(
        "sandbox", description="Where they act: in the agent's sandbox, or in the kernel's own process (`broker`)."
    )


def rules_of(file: ToolRulesFile) -> ToolRules:
    """Give what a block declares of its tools."""
    return ToolRules(
        take=file.tools,
        effects=dict(file.effects),
        args={name: dict(roles) for name, roles in file.args.items()},
        closed_world=file.closed_world,
        idempotent=file.idempotent,
        timeout_us=file.timeout,
        max_bytes=file.max_bytes,
    )
