"""Answer: from a request to what the model "says": the rule that fits, its templates rendered, the caps kept.

In:   a `Scenario` and an `Ask`.
Out:  the matching `Rule`; a `Reply` with its `Counts`; `Refused` (500) where a real model could not answer so.
May import: siblings, orjson, jsonschema-rs. Must not know: sockets, the bill.
Why it refuses so much: an answer is never made up. No rule, an expression without a value, a tool that was not
offered, JSON
that breaks the schema that was asked for: each is an HTTP 500 that names the rule, so that a wrong scenario is
found where
it is wrong. What a misbehaving model does is played by faults, which say so in the bill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jsonschema_rs
import orjson

from midwatch.models.scripted.ask import Ask, Refused
from midwatch.models.scripted.expressions import ExpressionFault
from midwatch.models.scripted.faults import SILENT, Call, Fault, Reply, spoil
from midwatch.models.scripted.functions import text
from midwatch.models.scripted.scenario import Rule, Scenario
from midwatch.models.scripted.template import OMIT, Template

__all__ = ["Counts", "call_id", "compose", "find_rule", "reported"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Whole tokens of one answer; `cached` is part of `prompt`."""

    prompt: int
    cached: int
    completion: int


def find_rule(scenario: Scenario, ask: Ask) -> Rule:
    """The first rule that fits.

    Raises:
        Refused: none fits, or a condition has no value; status 500.
    """
    for rule in scenario.rules:
        if rule.agents is not None and ask.agent not in rule.agents:
            continue
        if rule.turns is not None and ask.turn not in rule.turns:
            continue
        if not all(part in ask.system for part in rule.system_contains):
            continue
        try:
            if rule.when is None or rule.when.truth(ask.variables):
                return rule
        except ExpressionFault as failure:
            raise _failed(rule, failure) from failure
    message = (
        f"no rule of `{scenario.name}` answers agent `{ask.agent}` at turn {ask.turn} "
        f"(results so far: {len(list_of(ask.variables['results']))}, schema: `{ask.schema_name}`); add one"
    )
    raise broken(message, "scenario_no_rule")


def compose(rule: Rule, ask: Ask, fault: Fault | None, seed: str) -> tuple[Reply, Counts]:
    """What the rule answers to `ask`, spoilt by `fault` and cut to the request's cap, with the true token counts.

    Args:
        seed: makes the ids of tool calls; the same seed gives the same ids.

    Raises:
        Refused: the answer cannot be computed, or no real model could give it; status 500.
    """
    try:
        scope = dict(ask.variables)
        for name, template in rule.let:
            scope[name] = _kept(template, scope)
        reply = _reply(rule, scope, seed)
        wishes = {key: _tokens(rule, key, template.render(scope)) for key, template in rule.usage.items()}
    except ExpressionFault as failure:
        raise _failed(rule, failure) from failure
    _possible(rule, ask, reply, fault)
    if fault is not None:
        reply = spoil(reply, fault, lambda index: call_id(seed, index))
    reply, completion = _clamp(reply, ask.cap, wishes.get("completion_tokens"), fault)
    if rule.finish_reason is not None and reply.finish not in (None, "length"):
        reply = replace(reply, finish=rule.finish_reason)
    prompt = wishes.get("prompt_tokens", _quarter(ask.prompt_bytes))
    return reply, Counts(prompt, min(wishes.get("cached_tokens", 0), prompt), completion)


def call_id(seed: str, index: int) -> str:
    """The id of a tool call."""
    return "call_" + hashlib.sha256(f"{seed}/{index}".encode()).hexdigest()[:24]


def reported(counts: Counts, fault: Fault | None) -> dict[str, Any]:
    """The usage object as the provider reports it, which a `lying_usage` fault multiplies."""
    factor = fault.multiplier if fault is not None and fault.kind == "lying_usage" else 1
    prompt, completion, cached = (int(one * factor) for one in (counts.prompt, counts.completion, counts.cached))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def broken(message: str, code: str) -> Refused:
    """The error of a scenario that cannot answer. Clients are told not to try again: it would fail in the same way."""
    return Refused(500, message, code=code, kind="scenario_error", headers={"x-should-retry": "false"})


def list_of(value: object) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _failed(rule: Rule, failure: ExpressionFault) -> Refused:
    return broken(f"rule `{rule.name}` ({rule.where}): {failure}", "scenario_expression")


def _wrong(rule: Rule, message: str) -> Refused:
    return broken(f"rule `{rule.name}` ({rule.where}): {message}", "scenario_answer")


def _kept(template: Template, scope: Mapping[str, object]) -> object:
    value = template.render(scope)
    return None if value is OMIT else value


def _reply(rule: Rule, scope: Mapping[str, object], seed: str) -> Reply:
    said = ""
    if rule.say is not None:
        said = text(_kept(rule.say, scope))
    elif rule.answer is not None:
        said = orjson.dumps(_kept(rule.answer, scope)).decode()
    calls = () if rule.tool_calls is None else _calls(rule, _kept(rule.tool_calls, scope), seed)
    return Reply(said, calls, "tool_calls" if calls else "stop")


def _calls(rule: Rule, value: object, seed: str) -> tuple[Call, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    calls = []
    for index, item in enumerate(items):
        body = item if isinstance(item, dict) else {}
        name, arguments = body.get("name"), body.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict | str) or body.keys() - {"name", "arguments"}:
            raise _wrong(
                rule, f"tool call {index + 1} must be `{{name, arguments}}` with arguments as a map, or as text"
            )
        written = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
        calls.append(Call(call_id(seed, index), name, written))
    return tuple(calls)


def _tokens(rule: Rule, key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(rule, f"`usage.{key}` must be a whole number >= 0")
    return value


def _possible(rule: Rule, ask: Ask, reply: Reply, fault: Fault | None) -> None:
    """Refuse what a model that honours the request could not answer. `wrong_tool` and its like act afterwards."""
    if fault is not None and fault.kind in SILENT:
        return
    names = [call.name for call in reply.calls]
    if fault is None or fault.kind != "wrong_tool":
        for name in names:
            if name not in ask.tools:
                offered = ", ".join(f"`{tool}`" for tool in ask.tools) or "none"
                raise _wrong(rule, f"it calls `{name}`, which was not offered (offered: {offered})")
    if names and ask.tool_choice == "none":
        raise _wrong(rule, "it calls a tool, but the request says `tool_choice: none`")
    if not names and ask.tool_choice not in ("auto", "none"):
        raise _wrong(rule, f"it calls no tool, but the request demands one (`tool_choice: {ask.tool_choice}`)")
    if ask.tool_choice.startswith("tool:") and set(names) != {ask.tool_choice[5:]}:
        raise _wrong(rule, f"the request demands a call of `{ask.tool_choice[5:]}` and of no other tool")
    if len(names) > 1 and not ask.parallel:
        raise _wrong(rule, f"it calls {len(names)} tools at once, but the request says `parallel_tool_calls: false`")
    if ask.schema_name and not names:
        _fits(rule, ask, reply.text)


def _fits(rule: Rule, ask: Ask, said: str) -> None:
    """Refuse text that breaks the `response_format` of the request."""
    try:
        value = orjson.loads(said)
    except orjson.JSONDecodeError as failure:
        raise _wrong(rule, f"the request wants JSON (`{ask.schema_name}`); use `answer`, not `say`") from failure
    if ask.schema is None or not ask.strict:
        return
    try:
        validator = jsonschema_rs.validator_for(dict(ask.schema), offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as failure:
        raise Refused(400, f"invalid schema for response_format `{ask.schema_name}`: {failure}") from failure
    faults = [f"at `/{'/'.join(map(str, one.instance_path))}`: {one.message}" for one in validator.iter_errors(value)]
    if faults:
        raise _wrong(rule, f"its answer breaks the schema `{ask.schema_name}` {'; '.join(faults[:5])}")


def _quarter(size: int) -> int:
    """Tokens of so many UTF-8 bytes: a quarter, rounded up."""
    return -(-size // 4)


def _clamp(reply: Reply, cap: int | None, wish: int | None, fault: Fault | None) -> tuple[Reply, int]:
    """The reply cut to `cap` tokens, and how many it has."""
    count = _quarter(reply.size) if wish is None else wish
    if cap is None or count <= cap:
        return reply, count
    if (
        fault is not None and fault.kind == "prose"
    ):  # plays a model that does not stop; more than the cap is not charged
        return reply, cap
    room = 4 * cap if wish is None else reply.size * cap // wish
    shorter = replace(_cut(reply, room), finish=None if reply.finish is None else "length")
    return shorter, _quarter(shorter.size) if wish is None else cap


def _cut(reply: Reply, room: int) -> Reply:
    """The first `room` bytes of a reply: its text, then its calls in order; a call that is cut keeps its name."""
    said = reply.text.encode()[:room].decode(errors="ignore")
    room -= len(said.encode())
    calls = []
    for call in reply.calls if len(said) == len(reply.text) else ():
        room -= len(call.name.encode())
        if room < 0:
            break
        arguments = call.arguments.encode()[:room].decode(errors="ignore")
        room -= len(arguments.encode())
        calls.append(replace(call, arguments=arguments))
        if len(arguments) < len(call.arguments):
            break
    return Reply(said, tuple(calls), reply.finish)
