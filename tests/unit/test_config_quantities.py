"""Quantities: each reads into one whole number, or is refused."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.config.quantities import (
    LARGEST,
    QuantityError,
    parse_duration,
    parse_money,
    parse_size,
    parse_tokens,
)

Parse = Callable[[object], int]
NO_QUANTITIES: tuple[tuple[Parse, tuple[object, ...]], ...] = (
    (parse_duration, (90, 1.5, "90", "1.5h", "-1s", "+1s", "1 s", "s", "1min", "1s\n", "١s", None, True)),
    (parse_money, (5, 0.25, "5", "0.25", "$", "$-1", "-$1", "$1.", "$.5", "$1.1234567", "$1\n", "€1")),
    (parse_money, ("$9007199254.740992", "$1e3", "$1,000", "$ 1", None, [], {}, True)),
    (parse_size, (64, "64", "64MB", "1.5MiB", "-1B", "64mib", "64 MiB", "9999999999999999GiB")),
    (parse_tokens, (-1, 1.5, True, None, "120", "120K", "0.0001k", "-1k", "1.5G", LARGEST + 1)),
)


@pytest.mark.req("CONFIG-4")
@pytest.mark.parametrize(
    ("parse", "written", "read"),
    [
        (parse_duration, "250ms", 250_000),
        (parse_duration, "90s", 90_000_000),
        (parse_duration, "10m", 600_000_000),
        (parse_duration, "2h", 7_200_000_000),
        (parse_duration, "1d", 86_400_000_000),
        (parse_duration, "0s", 0),
        (parse_money, "$0", 0),
        (parse_money, "$5", 5_000_000),
        (parse_money, "$0.25", 250_000),
        (parse_money, "$0.000001", 1),
        (parse_money, "$1.10", 1_100_000),
        (parse_money, "$9007199254.740991", LARGEST),
        (parse_size, "100B", 100),
        (parse_size, "512KiB", 524_288),
        (parse_size, "64MiB", 67_108_864),
        (parse_size, "2GiB", 2_147_483_648),
        (parse_tokens, 2048, 2048),
        (parse_tokens, 0, 0),
        (parse_tokens, "120k", 120_000),
        (parse_tokens, "1.5M", 1_500_000),
        (parse_tokens, "0.001k", 1),
    ],
)
def test_a_quantity_is_read_exactly(parse: Parse, written: object, read: int) -> None:
    """Units are applied in whole numbers; nothing is rounded."""
    assert read == parse(written)


@pytest.mark.req("CONFIG-4")
@pytest.mark.parametrize(
    ("parse", "written"),
    [(parse, bad) for parse, rows in NO_QUANTITIES for bad in rows],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_what_is_no_quantity_is_refused(parse: Parse, written: object) -> None:
    """No unit, a sign, a fraction that is lost, another script's digits, a newline: the value is not guessed."""
    with pytest.raises(QuantityError, match=r"is not|too large"):
        parse(written)


@pytest.mark.req("CONFIG-4")
@given(micros=st.integers(0, LARGEST))
def test_money_survives_a_round_trip(micros: int) -> None:
    """Every amount that can be counted can be written, and reads back as itself."""
    assert micros == parse_money(f"${micros // 1_000_000}.{micros % 1_000_000:06d}")


@pytest.mark.req("CONFIG-4")
@given(whole=st.integers(0, 10**6), fraction=st.text("0123456789", max_size=6), unit=st.sampled_from(["k", "M"]))
def test_tokens_agree_with_exact_arithmetic(whole: int, fraction: str, unit: str) -> None:
    """A fraction counts when it ends up whole, and is refused when it does not."""
    written = f"{whole}.{fraction}{unit}" if fraction else f"{whole}{unit}"
    exact = Decimal(written[:-1]) * {"k": 1_000, "M": 1_000_000}[unit]
    if exact == exact.to_integral_value():
        assert int(exact) == parse_tokens(written)
    else:
        with pytest.raises(QuantityError):
            parse_tokens(written)


@pytest.mark.req("CONFIG-4")
@given(value=st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.lists(st.integers(), max_size=2))
@pytest.mark.parametrize("parse", [parse_duration, parse_money, parse_size, parse_tokens])
def test_anything_is_read_or_refused(parse: Parse, value: object) -> None:
    """Whatever is written, the answer is a number within bounds or `QuantityError`."""
    answer: int | str
    try:
        answer = parse(value)
    except QuantityError as failure:
        answer = str(failure)
    assert 0 <= answer <= LARGEST if isinstance(answer, int) else 0 < len(answer) < 200
