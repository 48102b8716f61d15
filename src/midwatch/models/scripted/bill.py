"""Bill: what the scripted provider charges, one line of JSON a request, kept on disk before the answer is complete.

In:   a `Charge` for every dispatched request, when its outcome is known.
Out:  `BillLine`s, in memory and in the bill file; their sums.
May import: `errors`, orjson. Must not know: HTTP, scenarios' rules, who the client is.
Why on disk first: the bill is the witness against which caps are tested. A line is appended and fsynced before the last
piece of the answer leaves, so that whoever has a complete answer also stands on the bill, whatever is killed
afterwards.
A request that is still open when the server is killed has no outcome and no line.
Several servers may write one file, one after the other or at once (a run that was killed and resumed): each append
takes a lock on the file and first reads what others have added, so that `seq` is unique over the file.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import orjson

from midwatch.errors import InvalidScenario

__all__ = ["Bill", "BillLine", "Charge", "Price", "cost_microusd", "parse_price"]


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, which is the same number as micro-dollars per token. Exact fractions."""

    input: Fraction
    cached_input: Fraction
    output: Fraction


@dataclass(frozen=True, slots=True)
class Charge:
    """One request as it is to be billed. Tokens are whole; `cached_tokens` are part of `prompt_tokens`."""

    at_us: int
    agent: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    outcome: str
    request_id: str
    idempotency_key: str | None = None
    rule: str = ""
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class BillLine:
    """A line of the bill.

    Attributes:
        seq: from 1, unique over the bill file, in the order in which outcomes were known.
        at_us: when the request was dispatched, microseconds UTC.
        cost_microusd: whole micro-dollars, rounded up once over the whole line; 0 for a model without a price.
        outcome: `finished`; `fault`: a fault was played; `cut`: the server closed the stream early; `client_left`.
        rule: the rule that answered.
        fault: the kind of fault that was played, or None.
    """

    seq: int
    at_us: int
    agent: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_microusd: int
    outcome: str
    request_id: str
    idempotency_key: str | None
    rule: str
    fault: str | None


def parse_price(value: object) -> Fraction | None:
    """`"$0.25"` as an exact fraction of a dollar, or None when it is not written like that."""
    if not isinstance(value, str) or not value.startswith("$"):
        return None
    digits = value[1:]
    return Fraction(Decimal(digits)) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", digits) else None


def cost_microusd(price: Price | None, *, prompt: int, cached: int, completion: int) -> int:
    """What a request costs in whole micro-dollars, rounded up; `cached` is part of `prompt`."""
    if price is None:
        return 0
    exact = price.input * (prompt - cached) + price.cached_input * cached + price.output * completion
    return -(-exact.numerator // exact.denominator)


class Bill:
    """The bill of one server, and the file it is kept in (None: in memory only). Safe to use from any thread."""

    def __init__(self, path: Path | None, prices: Mapping[str, Price]) -> None:
        """Open the bill and read what an earlier server has written.

        Raises:
            OSError: the file cannot be opened; the caller tells the user.
            InvalidScenario: the file is there, but is not a bill; nothing is written to it.
        """
        self._path, self._prices = path, prices
        self._changed = threading.Condition()
        self._lines: list[BillLine] = []
        self._offset = 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = None if path is None else os.open(path, flags, 0o600)
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up(self._file)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    @property
    def lines(self) -> tuple[BillLine, ...]:
        """All lines so far, those of earlier servers on the same file included."""
        with self._changed:
            return tuple(self._lines)

    def add(self, charge: Charge) -> BillLine:
        """Append one line and return once it is durable.

        Raises:
            OSError: it could not be written (a full disk). The caller must not complete the answer.
        """
        with self._changed:
            if self._file is None:
                line = self._price(charge)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                try:
                    self._catch_up(self._file)
                    line = self._price(charge)
                    self._append(self._file, orjson.dumps(asdict(line)) + b"\n")
                finally:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
            self._lines.append(line)
            self._changed.notify_all()
            return line

    def wait(self, count: int, seconds: float) -> tuple[BillLine, ...]:
        """The lines as soon as there are `count` of them.

        Raises:
            TimeoutError: there were fewer after `seconds`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._lines) >= count, seconds):
                raise TimeoutError(f"the bill has {len(self._lines)} lines after {seconds} s, not {count}")
            return tuple(self._lines)

    def report(self) -> dict[str, object]:
        """What `GET /bill` answers: `{"lines": [...], "totals": {...}}`."""
        lines = self.lines
        return {"lines": [asdict(line) for line in lines], "totals": totals(lines)}

    def close(self) -> None:
        """Close the file; the lines stay readable."""
        with self._changed:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _price(self, charge: Charge) -> BillLine:
        cost = cost_microusd(
            self._prices.get(charge.model),
            prompt=charge.prompt_tokens,
            cached=charge.cached_tokens,
            completion=charge.completion_tokens,
        )
        return BillLine(seq=len(self._lines) + 1, cost_microusd=cost, **asdict(charge))

    def _append(self, file: int, data: bytes) -> None:
        """Write the whole line and fsync it; a line that could be written only in part is taken back."""
        try:
            written = os.write(file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes of the bill could be written; free some disk space")
            os.fsync(file)
        except OSError:
            os.ftruncate(file, self._offset)
            raise
        self._offset += len(data)

    def _catch_up(self, file: int) -> None:
        """Read what other servers have appended. A last line without its end was never acknowledged and is cut off."""
        added = os.pread(file, os.fstat(file).st_size - self._offset, self._offset)
        complete = added[: added.rfind(b"\n") + 1]
        for number, row in enumerate(complete.splitlines(), start=len(self._lines) + 1):
            try:
                self._lines.append(BillLine(**orjson.loads(row)))
            except (orjson.JSONDecodeError, TypeError) as failure:
                message = f"line {number} of `{self._path}` is not a line of a bill; choose another file"
                raise InvalidScenario(message) from failure
        self._offset += len(complete)
        if len(complete) != len(added):
            os.ftruncate(file, self._offset)


def totals(lines: Sequence[BillLine]) -> dict[str, int]:
    """Sums over lines: requests, tokens, micro-dollars."""
    return {
        "requests": len(lines),
        "prompt_tokens": sum(line.prompt_tokens for line in lines),
        "cached_tokens": sum(line.cached_tokens for line in lines),
        "completion_tokens": sum(line.completion_tokens for line in lines),
        "cost_microusd": sum(line.cost_microusd for line in lines),
    }
