"""Prices: what a model costs, in whole micro-dollars, or that nobody knows.

In:   a route's provider, model and address, and the fleet's own price if it has one. Out: a `Price`, or `Unpriced`.
May import: config's `PriceSpec`, records, errors; genai-prices, lazily. Must not know: budgets, clients, the network.
Why closed: a model without a price cannot be bounded, so it is refused before anything is sent. The list is the one
inside the installed package and is never updated from the network: two machines with one lock file settle alike, and
each settlement names the version it was made with.
Why dearest: where several rates may apply (long prompts, writing to a cache, the hour of the day) a reservation takes
the dearest that can, and a settlement the one that did, or the dearer of those that cannot be told apart.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Protocol

from midwatch.config.specs import PriceSpec
from midwatch.errors import Unpriced
from midwatch.records.chat import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ["FLOOR_OUTPUT", "DollarRates", "Price", "Tier", "fit_output", "price_for", "scripted_price"]

_MILLION: Final = 1_000_000
FLOOR_OUTPUT: Final = 64
"""Fewer output tokens than this are not worth their input, unless fewer were wanted."""
_PER_CALL: Final = ("requests_kcount",)
"""Prices of the list that are not per token, and that every call pays."""


class DollarRates(Protocol):
    """Dollars per million tokens, exact, as the scripted provider's scenario has them."""

    @property
    def input(self) -> Fraction:
        """Of input that was not cached."""
        ...

    @property
    def cached_input(self) -> Fraction:
        """Of input read from a cache."""
        ...

    @property
    def output(self) -> Fraction:
        """Of output."""
        ...


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that replace a price's own for a call with more than `start` input tokens; for all of its tokens."""

    start: int
    input: int
    cached_input: int
    output: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs. Rates in micro-dollars per million tokens, whole, >= 0.

    Attributes:
        version: names the list and the rates; goes with each settlement.
        source: where it is from, in words: `the fleet file`, `genai-prices 0.2.3`, `the scenario`.
        tiers: ascending by `start`; empty when one set of rates holds for all.
    """

    model: str
    version: str
    input: int
    cached_input: int
    output: int
    source: str
    tiers: tuple[Tier, ...] = ()

    def cost(self, usage: Usage) -> int:
        """Give the cost of one call in micro-dollars, rounded up. More cached than input tokens count as all cached."""
        rates: Price | Tier = next((tier for tier in reversed(self.tiers) if usage.input > tier.start), self)
        cached = min(usage.cached, usage.input)
        total = (usage.input - cached) * rates.input + cached * rates.cached_input + usage.output * rates.output
        return -(-total // _MILLION)

    def worst(self, input_bound: int, max_output: int) -> int:
        """Give what a call of at most so many tokens can cost, in micro-dollars, rounded up."""
        into, out = self._dearest(input_bound)
        return -(-(input_bound * into + max_output * out) // _MILLION)

    def _dearest(self, input_bound: int) -> tuple[int, int]:
        rates: list[Price | Tier] = [self, *(tier for tier in self.tiers if input_bound > tier.start)]
        return max(max(one.input, one.cached_input) for one in rates), max(one.output for one in rates)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object kept beside a settlement and shown by `check`."""
        body: dict[str, Any] = {"model": self.model, "version": self.version, "source": self.source, **_rates(self)}
        if self.tiers:
            body["tiers"] = [{"start": tier.start, **_rates(tier)} for tier in self.tiers]
        return body


def fit_output(
    price: Price,
    *,
    balance_cost: int | None,
    balance_tokens: int | None,
    input_bound: int,
    wanted: int,
    floor: int = FLOOR_OUTPUT,
) -> int | None:
    """Lower the output cap to what is affordable.

    Args:
        balance_cost: micro-dollars left on the tightest scope; None where nothing bounds it.
        balance_tokens: tokens left on the tightest scope; None where nothing bounds it.
        input_bound: from `tokens.input_bound`.
        wanted: tokens, > 0.

    Returns:
        At most `wanted`, such that `price.worst(input_bound, n)` and `input_bound + n` fit their balances; None when
        that is less than `floor` (or than `wanted`, if that is smaller), so that the call is refused.
    """
    into, out = price._dearest(input_bound)  # noqa: SLF001 - same module
    fitting = wanted
    if balance_tokens is not None:
        fitting = min(fitting, balance_tokens - input_bound)
    if balance_cost is not None:
        left = balance_cost * _MILLION - input_bound * into
        fitting = min(fitting, left // out) if out and left >= 0 else (fitting if left >= 0 else -1)
    return fitting if fitting >= max(1, min(floor, wanted)) else None


def price_for(
    *,
    provider: str,
    model: str,
    base_url: str | None,
    own: PriceSpec | None,
    at_us: int | None,
    context: int | None = None,
) -> Price:
    """Find the price of a route's model.

    Args:
        provider: of the route, `openai` or `anthropic`.
        base_url: of the route; a server of one's own has no entry in any list, unless its address is a known
            provider's.
        own: the fleet's own price; it always wins.
        at_us: microseconds UTC; rates change by date and hour, and the dearest of the next day is taken. None: of all.
        context: tokens the route takes in; a tier that begins above it cannot apply.

    Raises:
        Unpriced: neither the fleet nor the list has a price per token. The user adds `price:` to the route.
    """
    if own is not None:
        return _price(model, "fleet", "the fleet file", Tier(0, own.input, own.cached_input, own.output), ())
    # Lazy: the list takes 0.2 s to load, and a fleet that prices its own routes never needs it.
    import genai_prices  # noqa: PLC0415
    from genai_prices.data import providers  # noqa: PLC0415

    entry = _entry(providers, provider, model, base_url)
    if entry is None:
        raise Unpriced(_unpriced(model, base_url))
    tables = _tables(entry, at_us)
    starts = sorted({start for table in tables for start in _starts(table)})
    window = context if context is not None else entry.context_window
    rows = [_dearest_row(tables, start) for start in [0, *(one for one in starts if window is None or one < window)]]
    priced = [row for row in rows if row is not None]
    if len(priced) != len(rows):
        raise Unpriced(_unpriced(model, base_url))
    name = f"genai-prices {genai_prices.__version__}"
    return _price(model, name, name, priced[0], tuple(priced[1:]))


def scripted_price(model: str, rates: DollarRates | None) -> Price:
    """Give the price of the scripted provider's own bill; a model that the scenario does not price costs nothing."""
    zero = Tier(0, 0, 0, 0)
    row = zero if rates is None else Tier(0, _up(rates.input), _up(rates.cached_input), _up(rates.output))
    return _price(model, "scenario", "the scenario", row, ())


def _price(model: str, name: str, source: str, base: Tier, tiers: tuple[Tier, ...]) -> Price:
    body = json.dumps([model, _rates(base), [[tier.start, _rates(tier)] for tier in tiers]])
    version = f"{name} {hashlib.sha256(body.encode()).hexdigest()[:12]}"
    return Price(model, version, base.input, base.cached_input, base.output, source, tiers)


def _rates(rates: Price | Tier) -> dict[str, int]:
    return {"input": rates.input, "cached_input": rates.cached_input, "output": rates.output}


def _unpriced(model: str, base_url: str | None) -> str:
    where = "" if base_url is None else f" at `{base_url}`"
    return (
        f"model `{model}`{where} has no known price per token, so its cost cannot be bounded; give its route "
        '`price: {input_per_mtok: "$…", output_per_mtok: "$…"}` in the fleet file ("$0" for a model of your own)'
    )


def _entry(providers: Iterable[Provider], provider: str, model: str, base_url: str | None) -> ModelInfo | None:
    known = list(providers)
    for one in known:
        if one.id == provider if base_url is None else _serves(one.api_pattern, base_url):
            found = one.find_model(model.lower(), all_providers=known)
            if found is not None:
                return found
    return None


def _serves(pattern: str, base_url: str) -> bool:
    """Say whether an address is the provider's. Patterns are open-ended: `api.openai.com.example` must not pass."""
    match = re.match(pattern, base_url)
    if match is None:
        return False
    rest = base_url[match.end() :]
    return not rest or rest[0] in "/:" or match[0].endswith("/")


def _tables(entry: ModelInfo, at_us: int | None) -> list[ModelPrice]:
    """Give every set of prices that holds within a day of `at_us`, or ever."""
    if at_us is None:
        return [one.prices for one in entry.prices] if isinstance(entry.prices, list) else [entry.prices]
    day = datetime.fromtimestamp(at_us // _MILLION, UTC)
    return [entry.get_prices(day + timedelta(hours=hour)) for hour in range(25)]


def _starts(table: ModelPrice) -> list[int]:
    return [tier.start for value in vars(table).values() for tier in getattr(value, "tiers", ())]


def _dearest_row(tables: Iterable[ModelPrice], start: int) -> Tier | None:
    """Give the dearest rates for calls of more than `start` tokens; None when they are not, or not only, per token."""
    rows: list[tuple[int, int, int]] = []
    for table in tables:
        rates = {key: _up(_at(value, start)) for key, value in vars(table).items() if value is not None}
        if "input_mtok" not in rates or "output_mtok" not in rates or any(key in rates for key in _PER_CALL):
            return None
        # Usage does not say what was written to a cache, so input that was not read from one is charged as written.
        into = max(rates["input_mtok"], rates.get("cache_write_mtok", 0))
        out = max(rates["output_mtok"], rates.get("output_reasoning_mtok", 0))
        rows.append((into, rates.get("cache_read_mtok", into), out))
    into, cached, out = (max(column) for column in zip(*rows, strict=True))
    return Tier(start, into, cached, out)


def _at(value: Any, start: int) -> Any:
    tiers = getattr(value, "tiers", None)
    if tiers is None:
        return value
    return next((tier.price for tier in reversed(tiers) if start >= tier.start > 0), value.base)


def _up(dollars: Any) -> int:
    return math.ceil(Fraction(dollars) * _MILLION)
