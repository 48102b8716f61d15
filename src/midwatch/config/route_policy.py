"""Route policy: the shape of `route_policy:` in a fleet file, what it means, and what of a route it forbids.

In:   plain values from `yaml_source`; a route and its rates. Out: a validated block, a `RoutePolicySpec`, sentences.
May import: pydantic; `file_types`, `specs`. Must not know: price lists, the network.
Why apart from `routes:`: routes and presets change often, and with the environment; what they may lead to is said once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BeforeValidator, Field

from midwatch.config.file_types import Block, Line, Money, listed
from midwatch.config.specs import Provider, RouteSpec

__all__ = ["RoutePolicyFile", "RoutePolicySpec", "offences", "route_policy_spec"]


class RoutePolicyFile(Block):
    """What the routes that a fleet uses may lead to, under every preset. What is left out is not bounded."""

    providers: Annotated[tuple[Provider, ...], BeforeValidator(listed)] | None = Field(
        None, description="Providers that may be asked; a route to another one is refused."
    )
    models: Annotated[tuple[Line, ...], BeforeValidator(listed)] | None = Field(
        None, description="Names of models, or globs; a model that matches none is refused."
    )
    max_input_per_mtok: Money | None = Field(None, description="Dearest price of a million input tokens.")
    max_output_per_mtok: Money | None = Field(None, description="Dearest price of a million output tokens.")


@dataclass(frozen=True, slots=True)
class RoutePolicySpec:
    """What routes may lead to; None bounds nothing, an empty tuple allows nothing. Prices in micro-dollars per million tokens."""

    providers: tuple[Provider, ...] | None = None
    models: tuple[str, ...] | None = None
    max_input: int | None = None
    max_output: int | None = None


def route_policy_spec(file: RoutePolicyFile | None) -> RoutePolicySpec:
    """Give what the block means."""
    if file is None:
        return RoutePolicySpec()
    return RoutePolicySpec(file.providers, file.models, file.max_input_per_mtok, file.max_output_per_mtok)


def offences(policy: RoutePolicySpec, route: RouteSpec, rates: tuple[int, int] | None) -> Iterator[str]:
    """Say what a policy forbids of a route.

    Args:
        rates: dearest input and output rate that may apply, micro-dollars per million tokens; None where nobody knows them,
            which no bound on prices allows.
    """
    if policy.providers is not None and route.provider not in policy.providers:
        yield f"the provider `{route.provider}` is not one of those that `route_policy` allows"
    if policy.models is not None and not any(fnmatchcase(route.model, glob) for glob in policy.models):
        yield f"the model `{route.model}` is not one of those that `route_policy` allows"
    bounds = ((0, "input", policy.max_input), (1, "output", policy.max_output))
    for place, word, most in bounds:
        if most is None:
            continue
        if rates is None:
            yield f"nobody knows the {word} price of `{route.model}`, and `route_policy` bounds it"
        elif rates[place] > most:
            said = f"{_dollars(rates[place])} per million {word} tokens"
            yield f"`{route.model}` costs up to {said}, more than the {_dollars(most)} that `route_policy` allows"


def _dollars(micro: int) -> str:
    return f"${micro / 1_000_000:,.4f}".rstrip("0").rstrip(".")
