"""What a model costs, what it can cost at most, and what is affordable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.config.specs import PriceSpec
from midwatch.errors import Unpriced
from midwatch.models.prices import FLOOR_OUTPUT, Price, Tier, fit_output, price_for, scripted_price
from midwatch.models.scripted import parse_scenario
from midwatch.records.chat import Usage

AT_US = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp()) * 1_000_000
MINI = Price("m", "v", 250_000, 25_000, 2_000_000, "test")
TIERED = Price("m", "v", 10, 1, 20, "test", (Tier(100, 20, 2, 30), Tier(1000, 15, 1, 90)))
RATES = st.integers(0, 10**9)
PRICES = st.builds(
    Price,
    st.just("m"),
    st.just("v"),
    RATES,
    RATES,
    RATES,
    st.just("test"),
    st.lists(
        st.builds(Tier, st.integers(1, 10**6), RATES, RATES, RATES), max_size=3, unique_by=lambda tier: tier.start
    ).map(lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.start))),
)
TOKENS = st.integers(0, 2 * 10**6)


def price(model: str, *, base_url: str | None = None, own: PriceSpec | None = None, **more: Any) -> Price:
    """Look a price up."""
    return price_for(provider="openai", model=model, base_url=base_url, own=own, **{"at_us": AT_US, **more})


def test_cost_is_exact_and_rounded_up() -> None:
    """A cost is whole micro-dollars, rounded up once; cached tokens cost their own rate."""
    assert 600 * 250_000 // 10**6 + 400 * 25_000 // 10**6 + 50 * 2 == MINI.cost(Usage(1000, 50, 400))
    assert 1 == MINI.cost(Usage(1, 0))
    assert 0 == MINI.cost(Usage(0, 0))
    assert MINI.cost(Usage(10, 0, 10)) == MINI.cost(Usage(10, 0, 99))


def test_tiers_hold_for_the_whole_call() -> None:
    """A long call pays the rates of its tier for all its tokens; the worst case takes the dearest that can apply."""
    million = 10**6
    price = Price("m", "v", 10 * million, 0, 20 * million, "test", (Tier(100, 20 * million, 0, 30 * million),))
    assert (100 * 10 + 20, 101 * 20 + 30) == (price.cost(Usage(100, 1)), price.cost(Usage(101, 1)))
    assert (100 * 10 + 20, 101 * 20 + 30) == (price.worst(100, 1), price.worst(101, 1))


@pytest.mark.req("MODELS-10")
@given(PRICES, TOKENS, TOKENS, TOKENS, st.integers(0, 10**5), st.integers(0, 10**5))
def test_cost_is_within_worst(price: Price, into: int, out: int, cached: int, more_in: int, more_out: int) -> None:
    """Whatever is reported within the bounds costs at most what was reserved."""
    assert price.cost(Usage(into, out, cached)) <= price.worst(into + more_in, out + more_out)


@pytest.mark.req("MODELS-11")
@given(PRICES, st.integers(0, 10**7), st.integers(0, 10**7), st.integers(1, 10**6), st.integers(1, 10**5))
def test_fit_is_affordable_and_the_most(price: Price, cost: int, tokens: int, bound: int, wanted: int) -> None:
    """The cap that is given fits both balances, one token more would not; none is given only below the floor."""

    def affordable(output: int) -> bool:
        return price.worst(bound, output) <= cost and bound + output <= tokens

    fitted = fit_output(price, balance_cost=cost, balance_tokens=tokens, input_bound=bound, wanted=wanted)
    if fitted is None:
        assert not affordable(min(FLOOR_OUTPUT, wanted))
    else:
        assert affordable(fitted)
        assert fitted == wanted or not affordable(fitted + 1)


@pytest.mark.req("MODELS-11")
def test_fit_without_bounds() -> None:
    """What nothing bounds is given as wanted; a free model is bounded by tokens only."""
    free = Price("m", "v", 0, 0, 0, "test")
    assert 5000 == fit_output(MINI, balance_cost=None, balance_tokens=None, input_bound=10, wanted=5000)
    assert 5000 == fit_output(free, balance_cost=0, balance_tokens=None, input_bound=10, wanted=5000)
    assert 90 == fit_output(free, balance_cost=0, balance_tokens=100, input_bound=10, wanted=5000)
    assert fit_output(MINI, balance_cost=0, balance_tokens=None, input_bound=10, wanted=5) is None


def test_list_price() -> None:
    """The list's price of a known model, with the package's version and a digest of the rates."""
    found = price("gpt-5-mini")
    assert (250_000, 25_000, 2_000_000) == (found.input, found.cached_input, found.output)
    assert found.version.startswith("genai-prices ")
    assert found == price("gpt-5-mini")
    assert found.version != price("gpt-4o").version


def test_list_tiers_and_window() -> None:
    """A tier of the list is kept, unless the route's context ends below it."""
    assert (272_000,) == tuple(tier.start for tier in price("gpt-5.4").tiers)
    assert () == price("gpt-5.4", context=200_000).tiers


def test_hour_of_day_and_date() -> None:
    """Where the rate depends on the hour, the dearest of the next day is taken; without a time, the dearest of all."""
    url = "https://api.deepseek.com/v1"
    night = int(datetime(2026, 11, 24, 20, tzinfo=UTC).timestamp()) * 1_000_000
    assert 270_000 == price("deepseek-chat", base_url=url, at_us=night).input
    assert 270_000 == price("deepseek-chat", base_url=url, at_us=None).input
    assert price("gpt-5.6-sol", at_us=None).output >= price("gpt-5.6-sol").output


def test_writing_to_a_cache_is_not_cheaper_than_billed() -> None:
    """Usage does not tell what was written to a cache; where writing costs more, all input is priced so."""
    from genai_prices.data import providers  # noqa: PLC0415 - the list under test

    listed = next(provider for provider in providers if provider.id == "openai").find_model("gpt-5.6-sol")
    assert listed is not None
    table: Any = listed.get_prices(datetime(2026, 11, 24, tzinfo=UTC))
    assert table.cache_write_mtok.base > table.input_mtok.base
    assert int(table.cache_write_mtok.base * 10**6) == price("gpt-5.6-sol").input


@pytest.mark.req("MODELS-9")
@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("no-such-model", None),
        ("gpt-5-mini-but-other", None),
        ("gpt-4o", "http://127.0.0.1:11434/v1"),
        ("gpt-4o", "https://gateway.example/v1"),
        ("gpt-4o", "https://api.openai.com.gateway.example/v1"),
        ("gpt-4o", "https://gateway.example/https://api.openai.com/v1"),
        ("text-embedding-3-small", None),
        ("sonar", "https://api.perplexity.ai"),  # it is in the list, with a fee for each request
    ],
)
def test_unpriced(model: str, base_url: str | None) -> None:
    """An unknown model, or one at an unknown address, has no price; the message says how to give one."""
    with pytest.raises(Unpriced, match="input_per_mtok") as caught:
        price(model, base_url=base_url)
    assert f"`{model}`" in str(caught.value)


@pytest.mark.req("MODELS-9")
def test_fleet_price_wins() -> None:
    """The fleet's own price is used wherever it is given, also for a known model and also when it is nothing."""
    own = PriceSpec(1, 2, 3)
    assert (1, 2, 3, "the fleet file") == (
        (found := price("gpt-4o", own=own)).input,
        found.cached_input,
        found.output,
        found.source,
    )
    assert 0 == price("qwen", base_url="http://127.0.0.1:1/v1", own=PriceSpec(0, 0, 0)).worst(10**6, 10**6)
    assert found.version != price("gpt-4o", own=PriceSpec(1, 2, 4)).version


def test_scripted_price_is_the_bills() -> None:
    """The scripted provider's price is its scenario's, exactly; a model without one costs nothing, as on its bill."""
    scenario = parse_scenario(
        'scenario: 1\nprices: {m: {input: "$0.25", cached_input: "$0.025", output: "$2.00"}}\nrules: [{say: x}]\n'
    )
    found = scripted_price("m", scenario.prices["m"])
    assert (250_000, 25_000, 2_000_000, "the scenario") == (found.input, found.cached_input, found.output, found.source)
    assert 0 == scripted_price("other", scenario.prices.get("other")).worst(10**6, 10**6)


def test_fractions_round_up() -> None:
    """A rate finer than a micro-dollar is rounded up, never to nothing."""

    class Tiny:
        input = cached_input = output = Fraction(1, 10**7)

    assert 1 == scripted_price("m", Tiny()).input


@pytest.fixture
def updated() -> Iterator[None]:
    """A process in which something has replaced the price list by one from elsewhere."""
    from genai_prices import data_snapshot  # noqa: PLC0415 - the list under test

    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(providers=[], from_auto_update=True))
    yield
    data_snapshot.set_custom_snapshot(None)


@pytest.mark.usefixtures("updated")
def test_list_is_the_installed_one() -> None:
    """A list that was fetched or replaced at run time is not used: the version that a settlement names must be true."""
    assert 250_000 == price("gpt-5-mini").input


def test_list_is_loaded_late() -> None:
    """A fleet that prices its own routes never pays for loading the list."""
    code = (
        "import sys; from midwatch.models.prices import price_for; from midwatch.config.specs import PriceSpec\n"
        "price_for(provider='openai', model='m', base_url=None, own=PriceSpec(1, 1, 1), at_us=0)\n"
        "print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "False" == done.stdout.strip()
