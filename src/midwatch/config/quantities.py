"""Quantities: `90s`, `"$0.25"`, `64MiB`, `120k`, `0.5`, each read into one whole number.

In:   a value of the fleet file. Out: microseconds, micro-dollars, bytes, tokens, thousandths; whole, >= 0, at most 2**53 - 1.
May import: the standard library only. Must not know: where in a file the value stands.
Why a unit must be written: a bare `cost: 5` is five of something, and the wrong guess costs money.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = [
    "DURATION_PATTERN",
    "LARGEST",
    "MONEY_PATTERN",
    "SIZE_PATTERN",
    "TOKENS_PATTERN",
    "Parser",
    "QuantityError",
    "parse_duration",
    "parse_money",
    "parse_share",
    "parse_size",
    "parse_tokens",
]

Parser = Callable[[object], int]

LARGEST: Final = 2**53 - 1
"""Largest quantity: above it JSON readers lose digits (RFC 8785, section 3.2.2.3)."""

DURATION_PATTERN: Final = r"^[0-9]{1,16}(?:ms|s|m|h|d)$"
MONEY_PATTERN: Final = r"^\$[0-9]{1,16}(?:\.[0-9]{1,6})?$"
SIZE_PATTERN: Final = r"^[0-9]{1,16}(?:B|KiB|MiB|GiB)$"
TOKENS_PATTERN: Final = r"^[0-9]{1,16}(?:\.[0-9]{1,6})?[kM]$"

_MICROS: Final[Mapping[str, int]] = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_BYTES: Final[Mapping[str, int]] = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TOKENS: Final[Mapping[str, int]] = {"k": 1_000, "M": 1_000_000}
_SHOWN: Final = 40
_MOST_PROCESSORS: Final = 1024


class QuantityError(ValueError):
    """The value is no such quantity; the message says how to write one. The file's reader adds the line."""


def parse_duration(value: object) -> int:
    """Read `90s`, `10m`, `2h`, `1d` or `250ms` into microseconds.

    Raises:
        QuantityError: a bare number, a sign, a fraction, another unit, or more than 2**53 - 1 microseconds.
    """
    text = _text(value, DURATION_PATTERN, "a duration: write a whole number with its unit, such as `90s`, `10m`, `2h`")
    digits = text.rstrip("msdh")
    return _bounded(value, int(digits) * _MICROS[text[len(digits) :]])


def parse_money(value: object) -> int:
    """Read `"$0.25"` into micro-dollars.

    Raises:
        QuantityError: a bare number, a sign, more than 6 decimals, or more than 2**53 - 1 micro-dollars.
    """
    text = _text(value, MONEY_PATTERN, 'an amount of money: write dollars with at most 6 decimals, such as `"$0.25"`')
    return _bounded(value, _scaled(text[1:], 1_000_000))


def parse_size(value: object) -> int:
    """Read `64MiB`, `512KiB`, `2GiB` or `100B` into bytes.

    Raises:
        QuantityError: a bare number, a sign, a fraction, another unit, or more than 2**53 - 1 bytes.
    """
    text = _text(value, SIZE_PATTERN, "a size: write a whole number of `B`, `KiB`, `MiB` or `GiB`, such as `64MiB`")
    digits = text.rstrip("BKMGi")
    return _bounded(value, int(digits) * _BYTES[text[len(digits) :]])


def parse_share(value: object) -> int:
    """Read a share of processors, `0.5` or `2`, into thousandths of one.

    Raises:
        QuantityError: no number, not more than 0, more than 3 decimals, or more than 1,024 processors.
    """
    wish = "a share of processors: write a number with at most 3 decimals, such as `0.5` or `2`"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QuantityError(f"{_show(value)} is not {wish}")
    if not 0 < value <= _MOST_PROCESSORS:
        raise QuantityError(f"{_show(value)} is out of range; it must be more than 0 and at most {_MOST_PROCESSORS:,}")
    milli = round(value * 1000)
    if milli / 1000 != value:
        raise QuantityError(f"{_show(value)} is not {wish}")
    return milli


def parse_tokens(value: object) -> int:
    """Read `120k`, `1.5M` or a whole number into tokens.

    Raises:
        QuantityError: negative, not whole (`0.0001k`), another unit, or more than 2**53 - 1.
    """
    wish = "a number of tokens: write it whole, or as `120k` or `1.5M`"
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise QuantityError(f"{_show(value)} is not {wish}")
        return _bounded(value, value)
    text = _text(value, TOKENS_PATTERN, wish)
    factor = _TOKENS[text[-1]]
    whole, _, fraction = text[:-1].partition(".")
    # Every decimal place must fall away, or the number would have to be rounded.
    if int(fraction or "0") * factor % 10 ** len(fraction):
        raise QuantityError(f"{_show(value)} is not whole; it must be {wish}")
    return _bounded(value, int(whole) * factor + int(fraction or "0") * factor // 10 ** len(fraction))


def _text(value: object, pattern: str, wish: str) -> str:
    # `fullmatch`: with `match`, the `$` of the pattern would accept a trailing newline.
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        raise QuantityError(f"{_show(value)} is not {wish}")
    return value


def _scaled(text: str, factor: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * factor + int(fraction.ljust(6, "0")) if fraction else int(whole) * factor


def _bounded(value: object, number: int) -> int:
    if number > LARGEST:
        raise QuantityError(f"{_show(value)} is too large; write less")
    return number


def _show(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        text = {None: "null", True: "true", False: "false"}.get(value, "") if isinstance(value, bool | None) else ""
        text = text or str(value)
        return f"`{text[:_SHOWN]}…`" if len(text) > _SHOWN else f"`{text}`"
    return "a list" if isinstance(value, list | tuple) else "a mapping"
