"""Governor's traffic: what agents of six kinds do in a month, as facts of the ledger; and five ways in which it goes wrong.

In:   a seed, a kind. Out: facts in order of time.
May import: governor.patterns for the shape of a fact, nothing else of the governor: what is usual here is decided by rates of arrival,
by chains of tools and by sizes, event by event, and not by windows, medians or days.

Each run arrives by a Poisson process whose rate follows the hour, the weekday and whatever the month brings (deploy days, an incident,
an outage during which calls fail and are tried again, holidays). Inside a run tools follow each other as a chain; sizes are lognormal.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from midwatch.governor.patterns import Fact

__all__ = ["ANOMALIES", "KINDS", "Kind", "anomaly", "month"]

START_S: Final = 1_767_225_600
"""2026-01-01 00:00 UTC."""
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Kind:
    """What an agent is for.

    Attributes:
        runs: a day, on a full weekday. night, weekend: share of the rate then. hour: of the one batch of a day, or None.
        steps: mean calls of a run. tools: the chain's states. sizes: median bytes by call, and ln-spread.
        tokens: median by model call. hosts: how many it knows; churn: chance that a call meets one that is new.
        polls: chance that a run waits for something by the same call. forks: median processes of its sandbox, None: uncounted.
    """

    name: str
    runs: float
    night: float
    weekend: float
    hour: int | None
    steps: float
    tools: tuple[str, ...]
    size: float
    spread: float
    tokens: float
    hosts: int
    churn: float = 0.0
    polls: float = 0.0
    forks: float | None = None


KINDS: Final = (
    Kind("triage", 60, 0.25, 0.4, None, 7, ("inbox.read", "wiki.find", "ticket.set", "mail.send"), 1500, 1.0, 2500, 5),
    Kind("coder", 25, 0.05, 0.1, None, 30, ("files.read", "files.write", "run.tests", "git.push", "files.list"), 3000, 1.2, 6000, 3,
         forks=9.0),
    Kind("nightly", 6, 1.0, 1.0, 2, 40, ("db.query", "db.export", "report.write"), 6000, 0.9, 4000, 2, forks=4.0),
    Kind("crawler", 18, 0.8, 0.9, None, 25, ("web.get", "web.find", "notes.add"), 700, 1.1, 5000, 40, churn=0.08),
    Kind("deployer", 9, 0.1, 0.05, None, 14, ("ci.start", "ci.status", "host.facts", "deploy.go"), 900, 0.8, 1800, 4, polls=0.5),
    Kind("reporter", 10, 0.3, 0.2, None, 12, ("sheet.read", "chart.make", "mail.send"), 9000, 1.3, 3500, 3),
)  # fmt: skip
ANOMALIES: Final = ("exfiltration", "destination", "loop", "forks", "slow burn")


class _Month:
    """One agent's month as it is made."""

    def __init__(self, kind: Kind, rng: random.Random, days: int) -> None:
        self.kind, self.rng, self.days = kind, rng, days
        self.seq = self.run = 0
        self.heavy = {day: rng.uniform(1.6, 3.0) for day in rng.sample(range(days), 3)}
        self.holiday = rng.randrange(days)
        self.outage = (rng.uniform(2, days - 1) * DAY_S, rng.uniform(0.5, 3) * 3600)
        self.habit = {tool: rng.sample(kind.tools, len(kind.tools)) for tool in ("^", *kind.tools)}
        self.fresh = 0

    def rate(self, at_s: float) -> float:
        """Give the runs a second at a time since the start."""
        kind, day = self.kind, int(at_s // DAY_S)
        hour = at_s % DAY_S / 3600
        weekday = (day + 3) % 7  # the month begins on a Thursday
        daily = kind.weekend if weekday >= 5 else 1.0
        daily *= self.heavy.get(day, 1.0) * (0.3 if day == self.holiday else 1.0)
        if kind.hour is not None:
            within = 1.0 if kind.hour <= hour < kind.hour + 1.5 else 0.0
            return kind.runs * daily * within / 5400
        curve = kind.night + (1 - kind.night) * math.pow(max(0.0, math.sin(math.pi * (hour - 6) / 14)), 1.3)
        return kind.runs * daily * curve / 40_000

    def facts(self) -> Iterator[Fact]:
        """Give the whole month, in order of time."""
        peak = max(self.rate(hour * 900.0) for hour in range(self.days * 96)) * 1.05
        at, made = 0.0, []  # type: tuple[float, list[Fact]]
        while True:
            at += self.rng.expovariate(peak)
            if at >= self.days * DAY_S:
                break
            if self.rng.random() * peak < self.rate(at):
                made += self._run(at)
        made.sort(key=lambda fact: fact.at_us)
        for number, fact in enumerate(made, 1):
            yield replace(fact, seq=number)

    def _run(self, at: float) -> list[Fact]:
        kind, rng = self.kind, self.rng
        self.run += 1
        name, made, tool = f"run{self.run}", [], "^"  # type: tuple[str, list[Fact], str]
        for _ in range(1 + int(rng.expovariate(1 / kind.steps))):
            at += rng.lognormvariate(1.6, 0.8)
            made.append(self._model(name, at))
            tool = self._next(tool)
            repeat = rng.randrange(5, 28) if kind.polls and tool == "ci.status" and rng.random() < kind.polls else 1
            digest = f"{rng.getrandbits(64):x}"
            for _ in range(repeat):
                at += rng.lognormvariate(0.7, 0.9) if repeat == 1 else rng.uniform(10, 20)
                made += self._call(name, at, tool, digest)
        return made

    def _next(self, tool: str) -> str:
        weights = [8.0, 4.0, 1.5, 0.7, 0.3][: len(self.kind.tools)]
        return self.rng.choices(self.habit[tool], weights)[0]

    def _model(self, run: str, at: float) -> Fact:
        tokens = int(self.rng.lognormvariate(math.log(self.kind.tokens), 0.7))
        return Fact(0, _us(at), run, self.kind.name, "model", "smart", tokens=tokens, cost=tokens * 2)

    def _call(self, run: str, at: float, tool: str, digest: str) -> Iterator[Fact]:
        rng, kind = self.rng, self.kind
        began, lasts = self.outage
        fails = 0.65 if began <= at < began + lasts else 0.03
        size = int(rng.lognormvariate(math.log(kind.size), kind.spread))
        tries = 0
        while True:
            yield Fact(0, _us(at), run, kind.name, "call", tool, digest, sent=size, places=(self._host(tool),))
            failed, tries = rng.random() < fails, tries + 1
            forks = None if kind.forks is None else 1 + int(rng.lognormvariate(math.log(kind.forks), 0.4))
            at += rng.lognormvariate(-1, 0.6)
            yield Fact(
                0, _us(at), run, kind.name, "done", tool, failed=failed, processes=forks, refused=0 if forks else None
            )
            if not failed or tries == 3:
                return
            at += 2.0**tries

    def _host(self, tool: str) -> str:
        if self.kind.churn and self.rng.random() < self.kind.churn:
            self.fresh += 1
            return f"host:new{self.fresh}.example"
        which = min(int(self.rng.expovariate(0.7)), self.kind.hosts - 1)
        return f"host:{which}.{tool.partition('.')[0]}.example"


def month(kind: Kind, seed: int, *, days: int = 30) -> list[Fact]:
    """Give what one agent does."""
    return list(_Month(kind, random.Random(f"{seed}/{kind.name}"), days).facts())


def anomaly(name: str, kind: Kind, facts: list[Fact], seed: int, *, begins: int) -> tuple[list[Fact], int]:
    """Put one anomaly into a month, at a time after day `begins`; gives the facts, and when it begins (microseconds)."""
    rng = random.Random(f"{seed}/{kind.name}/{name}")
    last = (facts[-1].at_us - _us(0)) // 1_000_000 / DAY_S
    if name == "slow burn":
        return _burn(rng, facts, begins, last)
    host = facts[rng.randrange(len(facts) // 2, len(facts))]
    while host.kind != "call" or host.at_us < _us(begins * DAY_S):
        host = facts[rng.randrange(len(facts) // 2, len(facts))]
    at, tool = host.at_us, host.tool
    made: list[Fact] = []
    if name == "exfiltration":
        volume = max(_windows(facts)) * math.exp(rng.uniform(math.log(4), math.log(60)))
        parts, lasts = rng.randrange(6, 60), rng.uniform(60, 900)
        made = [
            replace(host, at_us=at + int(index * lasts / parts * 1e6), digest=f"x{index}", sent=int(volume / parts))
            for index in range(parts)
        ]
    elif name == "destination":
        made = [replace(host, at_us=at + 1, digest="d", places=("host:drop.attacker.example",))]
    elif name == "loop":
        ring = [(rng.choice(kind.tools), f"l{index}") for index in range(rng.randrange(1, 4))]
        pace, count = rng.uniform(2, 20), rng.randrange(90, 300)
        facts = [
            fact for fact in facts if fact.run != host.run or fact.at_us <= at
        ]  # it does nothing else from here on
        for index in range(count):
            tool, digest = ring[index % len(ring)]
            made.append(replace(host, at_us=at + int(index * pace * 1e6), tool=tool, digest=digest))
    elif name == "forks":
        done = replace(host, kind="done", sent=0, places=(), digest="")
        peaks = [int((kind.forks or 4) * rng.uniform(12, 60)) for _ in range(3)]
        made = [
            replace(done, at_us=at + index * 5_000_000, processes=peak, refused=0) for index, peak in enumerate(peaks)
        ]
    return sorted([*facts, *made], key=lambda fact: fact.at_us), at


def _burn(rng: random.Random, facts: list[Fact], begins: int, last: float) -> tuple[list[Fact], int]:
    """Let everything that the agent does grow by some per cent a day: more runs of the same kinds, and larger ones."""
    first = _us(rng.uniform(begins - 4, min(begins + 1, last - 15)) * DAY_S)
    growth = rng.uniform(0.08, 0.15)
    made = []
    for fact in facts:
        days = max(0.0, (fact.at_us - first) / 1e6 / DAY_S)
        factor = (1 + growth) ** days
        made.append(
            replace(fact, sent=int(fact.sent * factor), tokens=int(fact.tokens * factor), cost=int(fact.cost * factor))
        )
    return made, first


def _windows(facts: list[Fact]) -> Iterator[int]:
    """Give what was sent in stretches of ten minutes that sent anything."""
    total, begun = 0, 0
    for fact in facts:
        if fact.at_us - begun > 600_000_000:
            if total:
                yield total
            total, begun = 0, fact.at_us
        total += fact.sent


def _us(at_s: float) -> int:
    return int((START_S + at_s) * 1_000_000)
