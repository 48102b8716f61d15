"""Routes: an alias with its price and its key's presence; and which preset an environment suggests.

In:   the fleet's routes, an alias, the environment, the time. Out: `Resolved`; a `Choice` in plain words.
May import: siblings `prices`, `scripted`; config, errors. Must not know: clients, the network, any key beyond its presence.
Why a choice is only a suggestion: what runs is decided by `--preset`, by `MIDWATCH_PRESET`, or by the fleet file. A key
that happens to lie in the environment picks a preset only if the fleet has one for it, and the words say so before
money is spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.config.routing import PRESET_VARIABLE
from midwatch.config.specs import RouteSpec
from midwatch.errors import NotFound, UsageProblem
from midwatch.models.prices import DollarRates, Price, price_for, scripted_price
from midwatch.models.scripted import load_scenario

__all__ = [
    "CLOUD_PRESET",
    "OWN_PRESET",
    "Choice",
    "Resolved",
    "choose_preset",
    "dearest",
    "key_of",
    "resolve",
    "route_price",
]

CLOUD_PRESET: Final = "cloud"
"""The preset that is chosen when the environment has a key of OpenAI's."""
OWN_PRESET: Final = "own"
"""The preset that is chosen when the environment names the address of a compatible server."""
_DEFAULT: Final = "default"
_URL, _KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Resolved:
    """An alias, ready to be called or to be shown.

    Attributes:
        key_present: the variable that the route names is set; True when it needs none.
    """

    spec: RouteSpec
    price: Price
    key_present: bool

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `check` shows; no key is in it."""
        return {
            "alias": self.spec.alias,
            "target": self.spec.target,
            "provider": self.spec.provider,
            "model": self.spec.model,
            "base_url": self.spec.base_url,
            "protocol": self.spec.protocol,
            "max_output": self.spec.max_output,
            "price": self.price.to_json(),
            "key": self.spec.api_key_env,
            "key_present": self.key_present,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """Which preset to load, and why. `preset` None: the file's own `default`, or none."""

    preset: str | None
    words: str


def resolve(
    routes: Mapping[str, RouteSpec],
    alias: str,
    environ: Mapping[str, str],
    *,
    at_us: int | None = None,
    scenario_prices: Mapping[str, DollarRates] | None = None,
) -> Resolved:
    """Resolve an alias to its route, its price and whether its key is there.

    Args:
        routes: of the loaded fleet, under its preset.
        at_us, scenario_prices: as for `route_price`.

    Raises:
        NotFound: the fleet has no such route.
        Unpriced: its model has no known price. Nothing may be sent; the user prices it.
    """
    spec = routes.get(alias)
    if spec is None:
        known = ", ".join(f"`{name}`" for name in sorted(routes)) or "none"
        raise NotFound(f"there is no route `{alias}`; known routes: {known}")
    price = route_price(spec, at_us=at_us, scenario_prices=scenario_prices)
    present = spec.api_key_env is None or bool(environ.get(spec.api_key_env, "").strip())
    return Resolved(spec, price, present)


def route_price(
    spec: RouteSpec, *, at_us: int | None = None, scenario_prices: Mapping[str, DollarRates] | None = None
) -> Price:
    """Give the price of a route's model; of a scripted one what its own bill charges.

    Args:
        at_us: microseconds UTC; None takes the dearest of all dates.
        scenario_prices: of a scripted route; None reads its scenario file.

    Raises:
        Unpriced: as `prices.price_for`. InvalidScenario: the scenario cannot be read. Both are the user's to mend.
    """
    if spec.provider != "scripted":
        return price_for(
            provider=spec.provider,
            model=spec.model,
            base_url=spec.base_url,
            own=spec.price,
            at_us=at_us,
            context=spec.context,
        )
    if scenario_prices is None and spec.scenario is not None:
        scenario_prices = load_scenario(spec.scenario).prices
    return scripted_price(spec.model, (scenario_prices or {}).get(spec.model))


def dearest(price: Price) -> tuple[int, int]:
    """Give the dearest input and output rate that any call may be charged, micro-dollars per million tokens."""
    inputs = [max(price.input, price.cached_input), *(max(one.input, one.cached_input) for one in price.tiers)]
    return max(inputs), max([price.output, *(one.output for one in price.tiers)])


def key_of(spec: RouteSpec, environ: Mapping[str, str]) -> str | None:
    """Read a route's key from the variable that it names, and from nowhere else; None when it names none.

    Raises:
        UsageProblem: the variable is not set, or holds what cannot be sent in a header. Its value is not quoted.
    """
    if spec.api_key_env is None:
        return None
    key = environ.get(spec.api_key_env, "").strip()
    if not key:
        raise UsageProblem(
            f"route `{spec.alias}` needs a key in the environment variable `{spec.api_key_env}`; set it, "
            "or choose another preset"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageProblem(f"`{spec.api_key_env}` holds what is no key (spaces, or signs outside ASCII); set it again")
    return key


def choose_preset(environ: Mapping[str, str], presets: Iterable[str], *, asked: str | None = None) -> Choice:
    """Say which preset to load and why, in words for the person who starts the run.

    Args:
        presets: names that the fleet file has.
        asked: `--preset`; it wins over everything, known or not (the loader reports an unknown one).
    """
    known = frozenset(presets)
    if asked:
        return Choice(asked, f"preset `{asked}`, because it was asked for")
    if environ.get(PRESET_VARIABLE):
        named = environ[PRESET_VARIABLE]
        return Choice(named, f"preset `{named}`, because `{PRESET_VARIABLE}` is set")
    found = [
        (variable, preset, what)
        for variable, preset, what in (
            (_URL, OWN_PRESET, "your own OpenAI-compatible server"),
            (_KEY, CLOUD_PRESET, "a real model of OpenAI's, which costs money"),
        )
        if environ.get(variable, "").strip()
    ]
    for variable, preset, what in found:
        if preset in known:
            return Choice(preset, f"preset `{preset}` ({what}), because `{variable}` is set")
    rest = f"preset `{_DEFAULT}` of the fleet file" if _DEFAULT in known else "the routes as the fleet file has them"
    if found:
        variable, preset, _ = found[0]
        return Choice(None, f"{rest}; `{variable}` is set, but this fleet has no preset `{preset}` for it")
    words = (
        f"{rest}; no key and no server is in the environment: set `{_KEY}` for a real model, or `{_URL}` for any "
        "OpenAI-compatible server"
    )
    return Choice(None, words)
