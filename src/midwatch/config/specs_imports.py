"""Specs of imported tools: servers, documents and libraries that a fleet takes tools from, and what it says of them.

In:   nothing. Out: `McpSpec`, `OpenApiSpec`, `LangchainSpec`, each with its `ToolRules`; `secrets_in`.
May import: records; the standard library. Must not know: YAML, protocols, what such a source answers.
Why all rules stand with the fleet: what a source says of its own tools may only make them worse, never better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from midwatch.records.effect import EffectClass, Role

__all__ = ["SECRET", "ImportedSpec", "LangchainSpec", "McpSpec", "OpenApiSpec", "ToolRules", "secrets_in"]

SECRET: Final = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class ToolRules:
    """What a fleet declares of the tools of one source. A tool is named as its source names it.

    Attributes:
        take: globs over the source's names; None: all of its tools.
        effects: the worst that a call can do. args: per tool, the role of an argument. What is missing counts as the worst.
        closed_world, idempotent: globs over tools of which that is true.
        timeout_us: of each call, microseconds; max_bytes: what a model is shown; None: the contract's own default.
    """

    take: tuple[str, ...] | None = None
    effects: Mapping[str, EffectClass] = field(default_factory=dict)
    args: Mapping[str, Mapping[str, Role]] = field(default_factory=dict)
    closed_world: tuple[str, ...] = ()
    idempotent: tuple[str, ...] = ()
    timeout_us: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class McpSpec:
    """A server of tools. Exactly one of `command` (argv, not empty) and `url`.

    Attributes:
        digest: that its tools were pinned with, or None.
        env: names of variables that a started server is given; it gets no others.
        runs: where a started server lives: in a sandbox without network, or beside the kernel.
        headers: sent to `url`; a value may hold `${secret:NAME}`. private: it may lead to a private or loopback address.
    """

    name: str
    command: tuple[str, ...]
    url: str | None
    digest: str | None
    env: tuple[str, ...]
    runs: Literal["sandbox", "broker"] = field(default="sandbox", metadata={"later": True})
    headers: Mapping[str, str] = field(default_factory=dict, metadata={"later": True})
    private: bool = field(default=False, metadata={"later": True})
    rules: ToolRules = field(default_factory=ToolRules, metadata={"later": True})


@dataclass(frozen=True, slots=True)
class OpenApiSpec:
    """A service that an OpenAPI document describes.

    Attributes:
        document: a file below the fleet's folder, or an `https://` address.
        server: where it is, when the document does not say, or says it wrongly.
        headers, private, digest: as for `McpSpec`.
    """

    name: str
    document: str
    server: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    digest: str | None = None
    rules: ToolRules = field(default_factory=ToolRules)


@dataclass(frozen=True, slots=True)
class LangchainSpec:
    """Tools of LangChain: `FILE.py:NAME` below the fleet's folder, or `MODULE:NAME`; a tool or a list of them."""

    name: str
    source: str
    digest: str | None = None
    runs: Literal["sandbox", "broker"] = "sandbox"
    rules: ToolRules = field(default_factory=ToolRules)


ImportedSpec = McpSpec | OpenApiSpec | LangchainSpec


def secrets_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """List the variables that headers name as `${secret:NAME}`."""
    return tuple(sorted({name for value in headers.values() for name in SECRET.findall(value)}))
