"""The OpenAI adapter through the real client: what leaves this process, and what must not."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import subprocess
import sys
import time
import traceback
from typing import Any

import httpx2
import openai
import pytest

from midwatch.config.specs import RouteSpec
from midwatch.errors import MissingExtra, ModelFailure, NotGuaranteed, UsageProblem
from midwatch.models.errors_map import Told, failure_of, retry_after_us
from midwatch.models.openai import OpenAIChat, open_model
from midwatch.models.sdk import build
from midwatch.records.chat import ChatAnswer, ChatRequest, Message
from tests.contract.models_raw_server import RawServer, delta, plain, sse, usage

KEY = "sk-secret-0123456789abcdefghij"
GOOD = sse(delta(content="hi"), delta("stop"), usage(prompt_tokens=5, completion_tokens=1))
REQUEST = ChatRequest("ceo", "smart", (Message("user", "hi"),), 64)


def now() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


def model_at(url: str | None, **parts: Any) -> OpenAIChat:
    """An adapter at an address."""
    key_env = parts.pop("api_key_env", "A_KEY")
    spec = RouteSpec("smart", "smart", "openai", parts.pop("model", "m"), base_url=url, api_key_env=key_env, **parts)
    return OpenAIChat(spec, environ={"A_KEY": KEY}, clock=now)


def once(model: OpenAIChat, request: ChatRequest = REQUEST, cap: int = 64) -> ChatAnswer:
    """Ask once."""
    return asyncio.run(model.chat(request, max_output=cap, deadline_us=now() + 10_000_000))


def body_of(**parts: Any) -> dict[str, Any]:
    """The body that one call sends."""
    with RawServer(GOOD) as server:
        once(model_at(server.url, **parts))
    sent: dict[str, Any] = json.loads(server.bodies[0])
    return sent


@pytest.mark.req("MODELS-4")
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("qwen2.5", "max_tokens"),
        ("gpt-4o", "max_tokens"),
        ("gpt-5-mini", "max_completion_tokens"),
        ("o3-mini", "max_completion_tokens"),
        ("openai/gpt-5.4", "max_completion_tokens"),
        ("olmo-2", "max_tokens"),
    ],
)
def test_cap_field(name: str, field: str) -> None:
    """The cap goes in the one field that the model's server obeys, never in both: some servers refuse that."""
    sent = body_of(model=name)
    assert {field: 64} == {key: value for key, value in sent.items() if key.startswith("max_")}


def test_what_is_sent() -> None:
    """Always streaming, always with usage, and nothing that a compatible server does not know."""
    sent = body_of()
    assert (True, {"include_usage": True}) == (sent.pop("stream"), sent.pop("stream_options"))
    assert {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 64} == sent


@pytest.mark.req("MODELS-4")
def test_own_address_pins_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    """At OpenAI's own address the service tier is the one whose price is reserved, and the newer cap field is used."""
    with RawServer(GOOD) as server:
        monkeypatch.setattr("midwatch.models.sdk.OPENAI_URL", server.url)
        once(model_at(None))
    sent = json.loads(server.bodies[0])
    assert ("default", 64) == (sent["service_tier"], sent["max_completion_tokens"])


@pytest.mark.req("MODELS-3")
@pytest.mark.parametrize("status", [429, 500, 503, 408, 409])
def test_no_retry_of_its_own(status: int) -> None:
    """The client's own retries are off, whatever the status and whatever the server asks for."""
    answer = plain(status, {"error": {"message": "x"}}, ["retry-after: 0", "x-should-retry: true"])
    with RawServer(answer) as server, pytest.raises(ModelFailure):
        once(model_at(server.url))
    assert 1 == len(server.bodies)


@pytest.mark.req("MODELS-7")
def test_redirects_are_not_followed() -> None:
    """A redirect would take prompt and key elsewhere; it is a failure."""
    with RawServer(GOOD) as elsewhere:
        answer = plain(307, {}, [f"location: {elsewhere.url}/chat/completions"])
        with RawServer(answer) as server, pytest.raises(ModelFailure) as caught:
            once(model_at(server.url))
        assert [] == elsewhere.heads
    assert ("bad_request", False) == (caught.value.code, caught.value.retryable)


@pytest.mark.req("MODELS-7")
def test_headers() -> None:
    """A named key is sent as bearer token; without one nothing is, and the agent's name stays here."""
    with RawServer(GOOD) as server:
        once(model_at(server.url))
        once(model_at(server.url, api_key_env=None))
    first, second = (head.lower() for head in server.heads)
    assert f"authorization: bearer {KEY}" in first
    assert "authorization" not in second
    assert "x-midwatch-agent" not in first + second


def test_agent_header_for_the_scripted_provider() -> None:
    """Our own scripted provider is told who asks, and gets no key."""
    with RawServer(GOOD) as server:
        spec = RouteSpec("smart", "smart", "scripted", "m", api_key_env="A_KEY")
        model = open_model(spec, environ={"A_KEY": KEY}, clock=now, scripted_url=server.url)
        asyncio.run(model.chat(REQUEST, max_output=64, deadline_us=now() + 10_000_000))
    head = server.heads[0].lower()
    assert "x-midwatch-agent: ceo" in head
    assert "authorization" not in head


@pytest.mark.req("MODELS-7")
def test_ambient_settings_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, headers, proxies and addresses that lie in the environment do not reach a server that the route names."""
    ambient = {
        "OPENAI_API_KEY": "sk-ambient-1",
        "OPENAI_ADMIN_KEY": "sk-ambient-2",
        "OPENAI_ORG_ID": "org-ambient",
        "OPENAI_PROJECT_ID": "proj-ambient",
        "OPENAI_CUSTOM_HEADERS": "x-ambient: 1\nauthorization: Bearer sk-ambient-3",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_ENDPOINT": "http://127.0.0.1:9",
    }
    for name, value in ambient.items():
        monkeypatch.setenv(name, value)
    with RawServer(GOOD) as server:
        assert "hi" == once(model_at(server.url, api_key_env=None)).content
    assert "ambient" not in server.heads[0]


@pytest.mark.req("MODELS-7")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_key_is_in_no_failure(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that quotes the key back does not bring it into message, traceback, context or log."""
    caplog.set_level(logging.DEBUG)
    answer = plain(status, {"error": {"message": f"bad key {KEY}\nand more", "code": KEY}})
    with RawServer(answer) as server, pytest.raises(ModelFailure) as caught:
        once(model_at(server.url))
    failure = caught.value
    shown = "".join(traceback.format_exception(failure)) + repr(failure) + repr(vars(failure)) + caplog.text
    assert KEY not in shown
    assert (None, None) == (failure.__cause__, failure.__context__)


@pytest.mark.req("MODELS-7")
def test_key_is_in_no_state() -> None:
    """The model does not show its key and cannot be pickled or copied into a checkpoint; nor do its parts show it."""
    model = model_at("http://127.0.0.1:9/v1")
    assert KEY not in repr(model) + str(model) + repr(model._told) + repr(model._client) + str(model._client)
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a key"):
            spread(model)


def test_missing_key() -> None:
    """A route whose variable is not set cannot be opened."""
    spec = RouteSpec("smart", "smart", "openai", "m", api_key_env="A_KEY")
    with pytest.raises(UsageProblem, match="`A_KEY`"):
        open_model(spec, environ={}, clock=now)


def test_unknown_provider() -> None:
    """A provider that this version cannot call is refused by name."""
    with pytest.raises(NotGuaranteed, match="`anthropic`"):
        open_model(RouteSpec("smart", "smart", "anthropic", "m"), environ={}, clock=now)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without langchain-openai the user is told which extra to install."""
    monkeypatch.delitem(sys.modules, "midwatch.models.sdk", raising=False)
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(MissingExtra, match="midwatch\\[openai\\]"):
        model_at("http://127.0.0.1:9/v1")


def test_adapter_is_imported_late() -> None:
    """Importing the room loads neither the client nor the price list."""
    code = (
        "import sys, midwatch.models.openai, midwatch.models.routes\n"
        "print(sorted({'openai', 'langchain_openai', 'langchain_core', 'genai_prices', 'httpx2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "[]" == done.stdout.strip()


def test_loopback_is_known_by_its_host() -> None:
    """Only a loopback address leaves the environment's proxies out."""
    for url, trusted in (
        ("http://127.0.0.1:1/v1", False),
        ("http://localhost/v1", False),
        ("http://[::1]:1/v1", False),
        ("http://localhost.example/v1", True),
        ("http://x@10.0.0.1/v1", True),
    ):
        client: Any = build(model="m", base_url=url, key=None).http_async_client
        assert (url, trusted) == (url, client.trust_env)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7_000_000),
        ({"retry-after": "1.5"}, 1_500_000),
        ({"retry-after-ms": "250", "retry-after": "9"}, 250_000),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50_000_000),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0),
        ({"retry-after": "999999999"}, 86_400_000_000),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: int | None) -> None:
    """The provider's wish is read in all its forms, bounded by a day, and ignored when it is none."""
    assert expected == retry_after_us(headers, now_us=10_000_000)


@pytest.mark.req("MODELS-2")
def test_unknown_error_counts_as_charged() -> None:
    """What is not known to have been harmless may have been charged."""
    failure = failure_of(ValueError("x"), Told("smart", "m", None), now_us=0)
    assert ("malformed", True, True) == (failure.code, failure.dispatched, failure.retryable)


def test_spent_quota_is_not_retried() -> None:
    """A 429 that says that the account is empty is not worth another try."""
    answer = plain(429, {"error": {"message": "quota", "code": "insufficient_quota"}})
    with RawServer(answer) as server, pytest.raises(ModelFailure) as caught:
        once(model_at(server.url))
    assert ("rate_limited", False) == (caught.value.code, caught.value.retryable)


def test_provider_words_are_one_short_line() -> None:
    """What a provider says is shown as one line of at most 300 signs."""
    answer = plain(400, {"error": {"message": "a\n\x1b[31mb" + "c" * 1000}})
    with RawServer(answer) as server, pytest.raises(ModelFailure) as caught:
        once(model_at(server.url))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.req("MODELS-5")
def test_endless_stream_is_cut() -> None:
    """A server that never stops is cut long before the deadline, and its connection is closed."""
    flood = sse(*[delta(content="x" * 1000) for _ in range(100)], done=False)
    with RawServer(flood, hold=True) as server:
        began = time.monotonic()
        with pytest.raises(ModelFailure) as caught:
            once(model_at(server.url), cap=10)
    assert ("cut", True) == (caught.value.code, time.monotonic() - began < 5)


@pytest.mark.req("MODELS-1")
def test_hanging_after_the_finish() -> None:
    """A server that finishes its answer but neither its usage nor its connection is left at the deadline."""
    answer = sse(delta(content="hi"), delta("stop"), done=False)
    with RawServer(answer, hold=True) as server, pytest.raises(ModelFailure) as caught:
        asyncio.run(model_at(server.url).chat(REQUEST, max_output=64, deadline_us=now() + 300_000))
    assert ("timeout", True) == (caught.value.code, caught.value.dispatched)


@pytest.mark.req("MODELS-2")
@pytest.mark.parametrize(
    ("cause", "code", "dispatched"),
    [
        (httpx2.ConnectError("x"), "upstream", False),
        (httpx2.ConnectTimeout("x"), "timeout", False),
        (httpx2.ReadTimeout("x"), "timeout", True),
        (httpx2.WriteTimeout("x"), "timeout", True),
        (httpx2.ReadError("x"), "cut", True),
        (httpx2.RemoteProtocolError("x"), "cut", True),
    ],
)
def test_only_a_missing_connection_is_free(cause: Exception, code: str, dispatched: bool) -> None:
    """Of all that the transport reports, only a connection that was never made proves that nothing was charged."""
    request = httpx2.Request("POST", "http://127.0.0.1:9/v1")
    for kind in (openai.APITimeoutError, openai.APIConnectionError):
        error = kind(request=request)
        error.__cause__ = cause
        failure = failure_of(error, Told("smart", "m", None), now_us=0)
        timed = kind is openai.APITimeoutError
        assert ("timeout" if timed else code, dispatched) == (failure.code, failure.dispatched)
