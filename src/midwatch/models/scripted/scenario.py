"""Scenario: the file that says what the scripted provider answers, read and checked as a whole.

In:   YAML; its grammar, with examples, is `docs/reference/scenario.md`.
Out:  a `Scenario` of compiled `Rule`s; `InvalidScenario` with every problem and its line.
May import: `errors`, siblings. Must not know: HTTP, the bill.
Why everything is compiled here: a scenario that loads can only fail on the data it is sent, and then by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from midwatch.errors import InvalidScenario, Problem
from midwatch.models.scripted.bill import Price, parse_price
from midwatch.models.scripted.expressions import Program, is_name
from midwatch.models.scripted.faults import SILENT, Fault, parse_fault
from midwatch.models.scripted.source import Path as Place
from midwatch.models.scripted.source import Source, read_yaml
from midwatch.models.scripted.template import Template, compile_condition, compile_template

__all__ = ["FINISH_REASONS", "Rule", "Scenario", "load_scenario", "parse_scenario"]

FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter")
_VERSION: Final = 1
_LARGEST: Final = 4 * 2**20
_TOP: Final = frozenset({"scenario", "name", "models", "api_key", "prices", "stream_chars", "rules"})
_RULE: Final = frozenset(
    {
        "name", "agent", "system_contains", "turn", "when", "let",
        "say", "tool_calls", "answer", "usage", "finish_reason", "fault",
    }
)  # fmt: skip
_USAGE: Final = frozenset({"prompt_tokens", "completion_tokens", "cached_tokens"})
_PRICE: Final = frozenset({"input", "cached_input", "output"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. None, or an empty tuple, in a matcher means that it matches everything.

    Attributes:
        number: from 0, its place in the file; rules are tried in this order.
        name: as the user calls it, else `rule 3` (counted from 1).
        where: `file.yaml:12`.
        agents, turns, system_contains, when: the matchers; all must hold.
        let: names and what they stand for, each visible to the ones after it.
        say, tool_calls, answer: what it answers; `answer` excludes `say`.
        usage: templates of whole numbers that replace the computed ones.
        finish_reason: replaces the computed one.
    """

    number: int
    name: str
    where: str
    agents: frozenset[str] | None
    turns: frozenset[int] | None
    system_contains: tuple[str, ...]
    when: Program | None
    let: tuple[tuple[str, Template], ...]
    say: Template | None
    tool_calls: Template | None
    answer: Template | None
    usage: Mapping[str, Template]
    finish_reason: str | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario.

    Attributes:
        name: shown in errors; the file's name unless the file says otherwise.
        models: ids that exist; None = any id is served.
        api_key: the only bearer token that is accepted; None = any, or none at all.
        prices: per model id; a model without a price costs nothing.
        stream_chars: characters in one piece of streamed text, > 0.
    """

    name: str
    models: tuple[str, ...] | None
    api_key: str | None
    prices: Mapping[str, Price]
    stream_chars: int
    rules: tuple[Rule, ...]


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file.

    Raises:
        InvalidScenario: every problem in it, each with its line, or why the file cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidScenario(f"`{path}` is larger than {_LARGEST // 2**20} MiB; split the scenario")
        text = path.read_text(encoding="utf-8")
    except OSError as failure:
        raise InvalidScenario(f"`{path}` cannot be read: {failure.strerror}; name a scenario file") from failure
    except UnicodeDecodeError as failure:
        raise InvalidScenario(f"`{path}` is not UTF-8 at byte {failure.start}; save it as UTF-8") from failure
    return parse_scenario(text, path.name)


def parse_scenario(text: str, name: str = "scenario.yaml") -> Scenario:
    """Check a scenario given as text; `name` is what problems are reported under.

    Raises:
        InvalidScenario: every problem in it, each with its line.
    """
    return _Checker(read_yaml(text, name)).scenario()


class _Checker:
    """Builds a scenario from its source, collecting every problem on the way."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def problem(self, place: Place, message: str, code: str = "value") -> None:
        self.problems.append(Problem(self.source.where(place), message, code))

    def at(self, place: Place) -> Callable[[Place, str], None]:
        """A report function for things inside `place`."""
        return lambda inner, message: self.problem((*place, *inner), message, "template")

    def scenario(self) -> Scenario:
        top = self.mapping(self.source.value, (), _TOP)
        if top.get("scenario") != _VERSION:
            self.problem(("scenario",), "the file must say `scenario: 1`, the version of its format", "version")
        models = self.names(top, "models", ())
        prices = self.prices(top.get("prices"), models)
        chars = self.whole(top.get("stream_chars", 24), ("stream_chars",), 1, 100_000)
        rules = self.rules(top.get("rules"))
        name = self.string(top, "name", ()) or self.source.name
        api_key = self.string(top, "api_key", ())
        if self.problems:
            ordered = sorted(self.problems, key=lambda problem: int(problem.where.rpartition(":")[2]))
            raise InvalidScenario(tuple(ordered))
        return Scenario(name, models, api_key, prices, chars, rules)

    def rules(self, value: object) -> tuple[Rule, ...]:
        if not isinstance(value, list) or not value:
            self.problem(("rules",), "`rules` must be a list with at least one rule", "missing")
            return ()
        rules = tuple(self.rule(body, number) for number, body in enumerate(value))
        seen: dict[str, Rule] = {}
        for rule in rules:
            if rule.name in seen:
                message = f"two rules are called `{rule.name}`; the other is at {seen[rule.name].where}"
                self.problem(("rules", rule.number, "name"), message, "duplicate-name")
            seen[rule.name] = rule
        return rules

    def rule(self, value: object, number: int) -> Rule:
        place: Place = ("rules", number)
        body = self.mapping(value, place, _RULE)
        let, names = self.let(body.get("let"), (*place, "let"))
        fault = self.fault(body, place)
        self.answers(body, fault, place)
        return Rule(
            number=number,
            name=self.string(body, "name", place) or f"rule {number + 1}",
            where=self.source.where(place),
            agents=self.optional_set(self.names(body, "agent", place)),
            turns=self.turns(body.get("turn"), (*place, "turn")),
            system_contains=self.names(body, "system_contains", place) or (),
            when=self.when(body, place),
            let=let,
            say=self.template(body, "say", names, place),
            tool_calls=self.tool_calls(body, names, place),
            answer=self.template(body, "answer", names, place),
            usage=self.usage(body.get("usage"), names, (*place, "usage")),
            finish_reason=self.finish_reason(body, place),
            fault=fault,
        )

    def answers(self, body: Mapping[str, object], fault: Fault | None, place: Place) -> None:
        """Whether the rule answers at all, and in one way."""
        if "say" in body and "answer" in body:
            self.problem((*place, "answer"), "a rule has either `say` or `answer`; remove one", "conflict")
        if body.keys() & {"say", "tool_calls", "answer"} or ("fault" in body and fault is None):
            return
        if fault is None or fault.kind not in SILENT or fault.times is not None:
            message = (
                "a rule needs `say`, `tool_calls` or `answer`; only a `status` or `timeout` fault that lasts does not"
            )
            self.problem(place, message, "missing")

    def fault(self, body: Mapping[str, object], place: Place) -> Fault | None:
        if "fault" not in body:
            return None
        base = (*place, "fault")
        return parse_fault(
            body["fault"], lambda key, message: self.problem((*base, key) if key else base, message, "fault")
        )

    def when(self, body: Mapping[str, object], place: Place) -> Program | None:
        if "when" not in body:
            return None
        return compile_condition(body["when"], frozenset(), self.at((*place, "when")))

    def let(self, value: object, place: Place) -> tuple[tuple[tuple[str, Template], ...], frozenset[str]]:
        names: frozenset[str] = frozenset()
        compiled: list[tuple[str, Template]] = []
        for key, body in self.mapping({} if value is None else value, place, None).items():
            if not is_name(key):
                self.problem((*place, key), f"`{key}` cannot name a value; choose a word that is not taken", "name")
                continue
            compiled.append((key, compile_template(body, names, self.at((*place, key)))))
            names |= {key}
        return tuple(compiled), names

    def template(self, body: Mapping[str, object], key: str, names: frozenset[str], place: Place) -> Template | None:
        return compile_template(body[key], names, self.at((*place, key))) if key in body else None

    def tool_calls(self, body: Mapping[str, object], names: frozenset[str], place: Place) -> Template | None:
        value, base = body.get("tool_calls"), (*place, "tool_calls")
        if isinstance(value, list):
            for index, item in enumerate(value):
                call = self.call_body(item)
                if call is not None and (not call.get("name") or call.keys() - {"name", "arguments"}):
                    message = "a tool call has `name` and, if it takes any, `arguments`, and nothing else"
                    self.problem((*base, index), message, "tool-call")
        elif "tool_calls" in body and not isinstance(value, str | dict):
            self.problem(base, "`tool_calls` must be a list of `{name, arguments}`", "type")
        return self.template(body, "tool_calls", names, place)

    @staticmethod
    def call_body(item: object) -> Mapping[str, object] | None:
        """The `{name, arguments}` that an item of `tool_calls` writes out, or None when it is computed."""
        if isinstance(item, dict):
            inner = item.get("do") if "for" in item else item.get("then") if "if" in item else item
            return inner if isinstance(inner, dict) and not inner.keys() & {"for", "if"} else None
        return None if isinstance(item, str) else {}

    def usage(self, value: object, names: frozenset[str], place: Place) -> Mapping[str, Template]:
        body = self.mapping({} if value is None else value, place, _USAGE)
        for key, item in body.items():
            if not isinstance(item, str):
                self.whole(item, (*place, key), 0, 10**12)
        return {key: compile_template(item, names, self.at((*place, key))) for key, item in body.items()}

    def finish_reason(self, body: Mapping[str, object], place: Place) -> str | None:
        value = self.string(body, "finish_reason", place)
        if value is not None and value not in FINISH_REASONS:
            self.problem((*place, "finish_reason"), f"`{value}` is none of {', '.join(FINISH_REASONS)}")
        return value

    def turns(self, value: object, place: Place) -> frozenset[int] | None:
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        return frozenset(self.whole(item, place, 0, 1_000_000) for item in items)

    def prices(self, value: object, models: tuple[str, ...] | None) -> dict[str, Price]:
        prices: dict[str, Price] = {}
        for model, item in self.mapping({} if value is None else value, ("prices",), None).items():
            place: Place = ("prices", model)
            if models is not None and model not in models:
                self.problem(place, f"`{model}` has a price but is not in `models`; add it there", "unknown-model")
            body = self.mapping(item, place, _PRICE)
            amounts = {key: self.dollars(body, key, place) for key in ("input", "output")}
            cached = self.dollars(body, "cached_input", place) if "cached_input" in body else amounts["input"]
            prices[model] = Price(amounts["input"], cached, amounts["output"])
        return prices

    def dollars(self, body: Mapping[str, object], key: str, place: Place) -> Fraction:
        price = parse_price(body.get(key))
        if price is None:
            message = f'`{key}` must be dollars per million tokens, written like `"$0.25"`'
            self.problem((*place, key), message, "price")
        return price or Fraction(0)

    def mapping(self, value: object, place: Place, keys: frozenset[str] | None) -> Mapping[str, object]:
        """`value` as a map with no other keys than `keys` (None: any)."""
        if not isinstance(value, dict):
            what = f"`{place[-1]}`" if place and isinstance(place[-1], str) else "a rule" if place else "the file"
            self.problem(place, f"{what} must be a map of keys and values", "type")
            return {}
        for key in value:
            if keys is not None and key not in keys:
                message = f"`{key}` is not known here; the keys are {', '.join(sorted(keys))}"
                self.problem((*place, key), message, "unknown-key")
        return value

    def names(self, body: Mapping[str, object], key: str, place: Place) -> tuple[str, ...] | None:
        """A string or a list of strings; None when absent."""
        if key not in body:
            return None
        value = body[key]
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, str) and item for item in items):
            self.problem((*place, key), f"`{key}` must be a name or a list of names", "type")
            return None
        return tuple(items)

    def string(self, body: Mapping[str, object], key: str, place: Place) -> str | None:
        value = body.get(key)
        if key in body and (not isinstance(value, str) or not value):
            self.problem((*place, key), f"`{key}` must be text", "type")
        return value if isinstance(value, str) else None

    def whole(self, value: object, place: Place, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problem(place, f"`{value}` must be a whole number from {low:,} to {high:,}", "type")
            return low
        return value

    @staticmethod
    def optional_set(names: tuple[str, ...] | None) -> frozenset[str] | None:
        return None if names is None else frozenset(names)
