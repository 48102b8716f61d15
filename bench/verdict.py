"""Verdict: what containment costs a call: where its values stood before, and whether every cause may bring it about.

A mail by a mandate, in a run of 10 results and in one of 10,000. No ledger is written. Bars: the verdict 100 µs, median; both flat.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from midwatch.containment.mandates import Balance, Line, Mandate, issue
from midwatch.containment.provenance import Seen, Trail
from midwatch.containment.reach import Reach
from midwatch.containment.slots import one_of
from midwatch.containment.verdict import Action, Authority, decide
from midwatch.records.decision import Allowed
from midwatch.records.label import Cause, label
from midwatch.tools.contract import ArgContract, OutContract, ToolContract

__all__ = ["main", "measure"]

BAR_US = 100.0
FLAT = 2.0
_ANNA = Cause("person", "anna")
_CALL = {"to": ["ben@example.org", "carl@example.org"], "subject": "minutes", "body": "as agreed, " * 20}
_TEXT = {"type": "string"}


def _contracts() -> tuple[ToolContract, ToolContract]:
    send = ToolContract(
        name="mail.send",
        version="1",
        description="Send a mail.",
        input_schema={
            "type": "object",
            "properties": {
                "to": {"type": "array", "items": {"type": "string", "format": "email"}},
                "subject": _TEXT,
                "body": _TEXT,
            },
            "additionalProperties": False,
        },
        output_schema={"type": "null"},
        effect="write",
        open_world=False,
        args=(
            ArgContract("to", "target"),
            ArgContract("subject", "content", interprets=False),
            ArgContract("body", "content", interprets=False),
        ),
        observers=("argument:to",),
    )
    read = ToolContract(
        name="mail.read",
        version="1",
        description="Read mails.",
        input_schema={"type": "object", "properties": {}, "additionalProperties": False},
        output_schema={
            "type": "object",
            "properties": {"sender": {"type": "string", "format": "email"}, "body": _TEXT},
            "additionalProperties": False,
        },
        effect="read",
        open_world=False,
        outs=(OutContract("sender", "service"), OutContract("body", "third_party")),
    )
    return send, read


def measure(results: int, count: int = 2_000) -> tuple[float, float]:
    """Give the medians, in microseconds, of tracing a call's values and of the verdict, after so many results."""
    send, read = _contracts()
    asked = label({_ANNA}, {"anna"})
    trail = Trail("tell ben and carl", asked, closed=frozenset({"anna"}))
    for number in range(results):
        trail.add(Seen(read, {}, {"sender": f"p{number}@example.org", "body": f"text {number} of somebody"}, asked))
    line = Line("mail", "mail.send", {"to": (one_of(*_CALL["to"], kind="email"),)}, most=10)
    balance = issue(Balance(), Mandate("root", asked, (line,)))
    assert isinstance(balance, Balance), balance
    authority = Authority(Allowed("grants[0]"), Reach(requester="anna"), balance, ("root",), (_ANNA,))
    traced = trail.trace(send, _CALL)
    action = Action("clerk", send, _CALL, trail.context, traced.labels, traced.origins)
    assert isinstance(decide(action, authority).verdict, Allowed)
    return _median(lambda: trail.trace(send, _CALL), count), _median(lambda: decide(action, authority), count)


def _median(work: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def main() -> None:
    """Print the table."""
    found = {results: measure(results) for results in (10, 10_000)}
    for results, (trace, verdict) in found.items():
        print(
            f"after {results:>6,} results   where values stood {trace:>6.1f} µs   verdict {verdict:>6.1f} µs, medians"
        )
    (early, few), (late, many) = found[10], found[10_000]
    assert many <= BAR_US, f"a verdict takes {many:.0f} µs, over {BAR_US:.0f}"
    assert many <= few * FLAT, f"a verdict takes {many:.0f} µs after 10,000 results and {few:.0f} µs after 10"
    assert late <= early * FLAT, f"tracing takes {late:.0f} µs after 10,000 results and {early:.0f} µs after 10"
