"""World: AgentDojo's suites as the oracle uses them: environments, injected texts, ground truths, checkers.

In:   the `agentdojo` package, tasks of v1.2.2. Out: `World`, fresh environments with an injected text, calls and their results as JSON.
Must not know: policies. What is done about the benchmark's own faults is said where it is done.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suites
from pydantic import BaseModel

from bench.agentdojo import attackers

__all__ = ["CANARY", "VERSION", "Call", "World", "worlds"]

VERSION: Final = "v1.2.2"
CANARY: Final = "midwatch-canary-7f3a"
_SLOT: Final = "midwatchslot{number}x"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a scripted agent."""

    tool: str
    args: Mapping[str, Any]


class World:
    """One suite; its environment is parsed once, each run gets a copy of its own."""

    def __init__(self, name: str, suite: Any) -> None:
        self.name, self.suite = name, suite
        self.tools = {tool.name: tool for tool in suite.tools}
        self.users = dict(sorted(suite.user_tasks.items(), key=_number))
        self.injections = dict(sorted(suite.injection_tasks.items(), key=_number))
        self._defaults = suite.get_injection_vector_defaults()
        slots = {vector: _SLOT.format(number=place) for place, vector in enumerate(self._defaults)}
        self._slots = {slot: self._defaults[vector] for vector, slot in slots.items()}
        self._seen: dict[str, frozenset[str]] = {}
        # Texts are put into the parsed environment: within the YAML, a quote or a brace of theirs would break it.
        self._template = suite.load_and_inject_default_environment(slots).model_dump()
        self._type = suite.environment_type
        self._clean = suite.load_and_inject_default_environment({})

    def environment(self, task: Any, text: str | None) -> Any:
        """Give a fresh environment for a user task; with a text in every slot, or as AgentDojo ships it."""
        if text is None:
            made = self._clean.model_copy(deep=True)
        else:
            put = {slot: text if slot in self._read(task) else default for slot, default in self._slots.items()}
            made = self._type.model_validate(_replaced(self._template, put))
        return task.init_environment(made)

    def _read(self, task: Any) -> frozenset[str]:
        """Give the slots that the user's own calls read: as the benchmark's attacks do, only those are written to."""
        found = self._seen.get(task.ID)
        if found is None:
            environment = task.init_environment(self._type.model_validate(self._template))
            results = [self.run(environment, call)[0] for call in self.truth(task, environment)]
            read = list(texts(results))
            found = self._seen[task.ID] = frozenset(slot for slot in self._slots if any(slot in each for each in read))
        return found

    def truth(self, task: Any, environment: Any) -> list[Call]:
        """Give a user task's calls; computed on a copy, because looking at some things changes them."""
        return [Call(call.function, call.args) for call in task.ground_truth(environment.model_copy(deep=True))]

    def attack(self, task: Any, environment: Any) -> list[Call]:
        """Give an attacker's calls for the environment as it is now; ours where the benchmark ships none."""
        copied = environment.model_copy(deep=True)
        made = [Call(call.function, call.args) for call in task.ground_truth(copied)]
        return made or attackers.calls(task, environment.model_copy(deep=True))

    def run(self, environment: Any, call: Call) -> tuple[Any, str | None]:
        """Execute one call; its result as JSON and its error."""
        result, error = FunctionsRuntime(self.suite.tools).run_function(environment, call.tool, dict(call.args))
        return _json(result), error

    def solved(self, task: Any, output: str, before: Any, after: Any, done: list[Call]) -> bool:
        """Let the benchmark's checker judge; denied calls are not among `done`, because some checkers judge what was asked for."""
        trace = [FunctionCall(function=call.tool, args=dict(call.args)) for call in done]
        content = [{"type": "text", "content": output}]
        return bool(self.suite._check_task_result(task, content, before, after, trace))  # noqa: SLF001  # its own entry loops over pipelines


def worlds() -> list[World]:
    """Give the four suites."""
    return [World(name, suite) for name, suite in get_suites(VERSION).items()]


def _number(item: tuple[str, Any]) -> int:
    return int(item[0].rsplit("_", 1)[-1])


def _replaced(value: Any, slots: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for slot, text in slots.items():
            if slot in value:
                value = value.replace(slot, text)
        return value
    if isinstance(value, Mapping):
        return {_replaced(key, slots): _replaced(item, slots) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, slots) for item in value]
    return copy.copy(value)


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def texts(value: Any) -> Iterator[str]:
    """Give every text of a result."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
