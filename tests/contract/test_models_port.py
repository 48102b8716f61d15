"""What every `ChatModel` must hold. A new adapter adds a `Subject` to `SUBJECTS`; the tests name no provider."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from midwatch.config.specs import Provider, RouteSpec
from midwatch.errors import ModelFailure
from midwatch.models.openai import open_model
from midwatch.models.port import ChatModel
from midwatch.models.scripted import Fault, ScriptedProvider, parse_scenario
from midwatch.records.chat import ChatAnswer, ChatRequest, Message, ToolOffer, ToolRequest, Usage
from tests.contract.models_raw_server import RawServer, delta, plain, sse

KEY = "sk-contract-0123456789abcdef"
TOOLS = tuple(ToolOffer(name, f"looks at {name}", {"type": "object"}) for name in ("host.disks", "host.memory"))
LONG = "".join(f"line {number} of a long answer. " for number in range(60))
SCENARIO = f"""\
scenario: 1
models: [m]
api_key: {KEY}
stream_chars: 7
rules:
  - {{name: calls, when: size(tools) > 0 && size(results) == 0, say: I look., tool_calls: [
      {{name: host_disks, arguments: {{limit: 2, path: "/ü"}}}}, {{name: host_memory}}, {{name: no_such}}]}}
  - {{name: sees, when: size(results) > 0, say: "saw ${{ results[0].name }} ${{ results[0].content }}"}}
  - {{name: long, when: user == 'long', say: "{LONG}"}}
  - {{name: echo, say: "you said ${{ user }}",
    usage: {{prompt_tokens: 1000, cached_tokens: 400, completion_tokens: 12}}}}
"""
BEHAVIOURS: dict[str, Fault] = {
    "limited": Fault("status", status=429, retry_after=7),
    "broken": Fault("status", status=503),
    "silent": Fault("timeout", seconds=30),
    "cut": Fault("cut_stream", after_chunks=2),
    "no_finish": Fault("no_finish"),
    "no_usage": Fault("no_usage"),
    "malformed_arguments": Fault("malformed_arguments"),
    "duplicate_keys": Fault("duplicate_keys"),
    "prose": Fault("prose", bytes=1_000_000),
    "slow": Fault("slow", delay_ms=150),
}


def now() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


class Subject:
    """An adapter together with a provider that behaves, or misbehaves, as asked."""

    def __init__(self, provider: Provider) -> None:
        self.provider: Provider = provider

    def serving(self, behaviour: str = "well") -> AbstractContextManager[tuple[ChatModel, Callable[[], int]]]:
        """Give the model, and how many requests its provider has seen."""
        return self._raw(behaviour) if behaviour in _RAW or behaviour == "gone" else self._scripted(behaviour)

    @contextmanager
    def _scripted(self, behaviour: str) -> Iterator[tuple[ChatModel, Callable[[], int]]]:
        text = SCENARIO if self.provider == "openai" else SCENARIO.replace(f"api_key: {KEY}\n", "")
        with ScriptedProvider(parse_scenario(text), clock=now) as server:
            if behaviour in BEHAVIOURS:
                server.inject(BEHAVIOURS[behaviour])
            key = "sk-wrong-key-abcdef" if behaviour == "wrong_key" else KEY
            yield self._model(server.base_url, key), lambda: len(server.bill)

    @contextmanager
    def _raw(self, behaviour: str) -> Iterator[tuple[ChatModel, Callable[[], int]]]:
        if behaviour == "gone":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            yield self._model(f"http://127.0.0.1:{port}/v1", KEY), lambda: 0
            return
        with RawServer(_RAW[behaviour], reset=behaviour == "reset") as server:
            yield self._model(server.url, KEY), lambda: len(server.heads)

    def _model(self, url: str, key: str) -> ChatModel:
        spec = RouteSpec("smart", "smart", self.provider, "m", base_url=url, api_key_env="A_KEY")
        return open_model(spec, environ={"A_KEY": key}, clock=now, scripted_url=url)


_RAW = {
    "reset": b"",
    "corrupt": sse(delta(content="a"), "{not json"),
    "no_object": sse("[1, 2]"),
    "no_utf8": sse(delta(content="a"), done=False) + b'data: {"a": "\xff\xfe"}\n\n',
    "error_event": sse(delta(content="a"), {"error": {"message": "overloaded", "type": "server_error"}}),
    "bad_request": plain(400, {"error": {"message": "schema too deep"}}),
    "unknown_model": plain(404, {"error": {"message": "no such model"}}),
    "forbidden": plain(403, {"error": {"message": "no"}}),
    "html": plain(200, b"<html>welcome</html>"),
}

SUBJECTS = {"openai": Subject("openai"), "scripted": Subject("scripted")}


@pytest.fixture(params=sorted(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each adapter in turn."""
    return SUBJECTS[request.param]


def ask(text: str = "hi", tools: tuple[ToolOffer, ...] = (), *more: Message, agent: str = "lone") -> ChatRequest:
    """A request of one user message and what follows it."""
    return ChatRequest(agent, "smart", (Message("user", text), *more), 4096, tools)


async def chat(
    model: ChatModel, request: ChatRequest, *, cap: int = 4096, wait_s: float = 20, **more: Any
) -> ChatAnswer:
    """Ask with a deadline."""
    deadline = now() + int(wait_s * 1_000_000)
    return await model.chat(
        request, max_output=cap, deadline_us=deadline, on_delta=more.get("on_delta"), stop=more.get("stop")
    )


def fail(subject: Subject, behaviour: str, request: ChatRequest | None = None, **more: Any) -> ModelFailure:
    """The failure that a behaviour leads to; the provider saw one request at most."""
    with subject.serving(behaviour) as (model, seen), pytest.raises(ModelFailure) as caught:
        asyncio.run(chat(model, request or ask(), **more))
    assert seen() <= 1
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def test_says(subject: Subject) -> None:
    """A plain answer is complete: text, finish reason, usage with its cached part, model and id."""
    with subject.serving() as (model, _):
        answer = asyncio.run(chat(model, ask("hé")))
    assert "you said hé" == answer.content
    assert "stop" == answer.finish
    assert Usage(input=1000, output=12, cached=400) == answer.usage
    assert ("m", True, (), ()) == (answer.model, bool(answer.response_id), answer.tool_calls, answer.signals)


def test_deltas(subject: Subject) -> None:
    """The pieces come in order and add up to the content."""
    pieces: list[str] = []
    with subject.serving() as (model, _):
        answer = asyncio.run(chat(model, ask("long"), on_delta=pieces.append))
    assert LONG == "".join(pieces) == answer.content
    assert len(pieces) > 50


@pytest.mark.req("MODELS-6")
def test_parallel_tool_calls(subject: Subject) -> None:
    """Several calls in one answer keep their order, ids and arguments, under the kernel's own names."""
    with subject.serving() as (model, _):
        answer = asyncio.run(chat(model, ask("hi", (*TOOLS, ToolOffer("no_such", "x", {})))))
    assert ("host.disks", "host.memory", "no_such") == tuple(call.name for call in answer.tool_calls)
    assert '{"limit":2,"path":"/ü"}' == answer.tool_calls[0].arguments.replace(" ", "")
    assert 3 == len({call.id for call in answer.tool_calls})
    assert ("tool_calls", "I look.") == (answer.finish, answer.content)


def test_conversation_with_results(subject: Subject) -> None:
    """A conversation with earlier calls and results goes out as the provider's protocol wants it."""
    call = ToolRequest("call_1", "host.disks", '{"limit": 2}')
    turns = (Message("assistant", "", (call,)), Message("tool", '"full"', tool_call_id="call_1", name="host.disks"))
    with subject.serving() as (model, _):
        answer = asyncio.run(chat(model, ask("hi", TOOLS, *turns)))
    assert "saw host_disks full" == answer.content


@pytest.mark.req("MODELS-6")
@pytest.mark.parametrize("behaviour", ["malformed_arguments", "duplicate_keys"])
def test_bad_arguments_arrive_raw(subject: Subject, behaviour: str) -> None:
    """Malformed arguments are neither repaired nor dropped."""
    tools = (*TOOLS, ToolOffer("no_such", "x", {}))
    with subject.serving(behaviour) as (model, _):
        answer = asyncio.run(chat(model, ask("hi", tools)))
    assert ("host.disks", "host.memory", "no_such") == tuple(call.name for call in answer.tool_calls)
    raw = answer.tool_calls[0].arguments
    if behaviour == "duplicate_keys":
        assert 2 == raw.count('"limit"')
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(raw)


@pytest.mark.req("MODELS-1", "MODELS-2", "MODELS-3")
@pytest.mark.parametrize(
    ("behaviour", "code", "retryable", "dispatched"),
    [
        ("limited", "rate_limited", True, False),
        ("broken", "upstream", True, True),
        ("cut", "cut", True, True),
        ("reset", "cut", True, True),
        ("no_finish", "no_finish", True, True),
        ("no_usage", "no_usage", False, True),
        ("corrupt", "malformed", True, True),
        ("no_object", "malformed", True, True),
        ("no_utf8", "malformed", True, True),
        ("error_event", "upstream", True, True),
        ("bad_request", "bad_request", False, True),
        ("unknown_model", "bad_request", False, False),
        ("forbidden", "auth", False, False),
        ("html", "no_finish", True, True),
        ("gone", "upstream", True, False),
    ],
)
def test_failures(subject: Subject, behaviour: str, code: str, retryable: bool, dispatched: bool) -> None:
    """Each way to fail has its code, says whether to try again, and whether it may have been charged."""
    failure = fail(subject, behaviour)
    assert (code, retryable, dispatched) == (failure.code, failure.retryable, failure.dispatched)
    assert KEY not in str(failure)


def test_retry_after(subject: Subject) -> None:
    """The provider's wish to be left alone is passed on."""
    assert 7_000_000 == fail(subject, "limited").retry_after_us
    assert fail(subject, "broken").retry_after_us is None


@pytest.mark.req("MODELS-2")
def test_deadline(subject: Subject) -> None:
    """A silent provider is left at the deadline, and the call counts as charged."""
    began = time.monotonic()
    failure = fail(subject, "silent", wait_s=0.3)
    assert ("timeout", True, True) == (failure.code, failure.retryable, failure.dispatched)
    assert time.monotonic() - began < 5


@pytest.mark.req("MODELS-2")
def test_deadline_in_stream(subject: Subject) -> None:
    """The deadline bounds the whole answer, not the wait for the next piece."""
    failure = fail(subject, "slow", ask("long"), wait_s=1.0)
    assert ("timeout", True) == (failure.code, failure.dispatched)


def test_deadline_already_over(subject: Subject) -> None:
    """When the time is over before the call nothing is sent."""
    with subject.serving() as (model, seen), pytest.raises(ModelFailure) as caught:
        asyncio.run(chat(model, ask(), wait_s=-1))
    assert ("timeout", False, 0) == (caught.value.code, caught.value.dispatched, seen())


@pytest.mark.req("MODELS-5")
def test_stop_cuts(subject: Subject) -> None:
    """The live meter sees a growing bound and cuts the stream; a cut counts as charged and is not tried again."""
    bounds: list[int] = []

    def stop(bound: int) -> bool:
        bounds.append(bound)
        return bound > 100

    failure = fail(subject, "well", ask("long"), stop=stop)
    assert ("cut", False, True) == (failure.code, failure.retryable, failure.dispatched)
    assert sorted(bounds) == bounds
    assert 100 < bounds[-1] < 200


@pytest.mark.req("MODELS-5")
def test_ignored_cap_is_cut(subject: Subject) -> None:
    """A server that streams a megabyte against a cap of 50 tokens is cut without anybody asking."""
    failure = fail(subject, "prose", cap=50)
    assert ("cut", True) == (failure.code, failure.dispatched)


@pytest.mark.req("MODELS-4")
def test_cap_is_obeyed(subject: Subject) -> None:
    """The cap reaches the provider, which stops there and says so."""
    with subject.serving() as (model, _):
        answer = asyncio.run(chat(model, ask("long"), cap=5))
    assert ("length", 5) == (answer.finish, answer.usage.output)


@pytest.mark.req("MODELS-13")
def test_many_at_once(subject: Subject) -> None:
    """Thirty-two calls at once each get their own answer and pieces."""

    async def one(model: ChatModel, number: int) -> tuple[str, str]:
        pieces: list[str] = []
        answer = await chat(model, ask(f"number {number}"), on_delta=pieces.append)
        return answer.content, "".join(pieces)

    async def all_of(model: ChatModel) -> list[tuple[str, str]]:
        return await asyncio.gather(*(one(model, number) for number in range(32)))

    with subject.serving() as (model, seen):
        answers = asyncio.run(all_of(model))
        assert 32 == seen()
    assert [(f"you said number {number}",) * 2 for number in range(32)] == answers


@pytest.mark.req("MODELS-14")
def test_cancellation(subject: Subject) -> None:
    """A cancelled call ends at once, as cancelled; the model works on afterwards."""

    async def run(model: ChatModel) -> str:
        begun = asyncio.Event()
        task = asyncio.create_task(chat(model, ask("long"), on_delta=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 3)
        return "cancelled"

    with subject.serving("slow") as (model, _):
        assert "cancelled" == asyncio.run(run(model))
    with subject.serving() as (model, _):
        assert "you said hi" == asyncio.run(chat(model, ask())).content


def test_another_loop(subject: Subject) -> None:
    """One model serves one event loop after another, and closing it twice is harmless."""
    with subject.serving() as (model, _):
        assert [12, 12] == [asyncio.run(chat(model, ask())).usage.output for _ in range(2)]
        model.close()
        model.close()


def test_own_error_of_the_caller_passes(subject: Subject) -> None:
    """What `on_delta` raises reaches the caller as it is, not as a provider's failure."""

    def spoil(piece: str) -> None:
        raise ValueError(piece)

    with subject.serving() as (model, _), pytest.raises(ValueError, match=r"^you sai"):
        asyncio.run(chat(model, ask("x"), on_delta=spoil))


def test_unsendable_request(subject: Subject) -> None:
    """A request that is no UTF-8 is refused here and nothing is sent."""
    with subject.serving() as (model, seen), pytest.raises(ModelFailure) as caught:
        asyncio.run(chat(model, ask("\ud800")))
    assert ("bad_request", False, 0) == (caught.value.code, caught.value.dispatched, seen())
