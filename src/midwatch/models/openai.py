"""OpenAI: the adapter for OpenAI and every server that speaks its chat API, our scripted provider among them.

In:   a route, a key, a clock; then requests. Out: answers, or `ModelFailure`. The port is `port.ChatModel`.
May import: siblings; config's `RouteSpec`, errors, records; langchain-openai lazily, through `sdk`.
Must not know: budgets, prices, who asks (except for the header that it sends to our own scripted provider).
Why the key comes in and never goes out: it lies in the client and in the list of texts that messages must not contain.
`repr` does not show it, and the object refuses to be pickled, so that it cannot reach a checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio

from midwatch.config.specs import RouteSpec
from midwatch.errors import MissingExtra, ModelFailure, NotGuaranteed
from midwatch.models.assembly import Assembly, call_id
from midwatch.models.constrained import constrained_payload, read_answer
from midwatch.models.errors_map import Told, failure_of
from midwatch.models.port import ChatModel
from midwatch.models.routes import key_of
from midwatch.models.tokens import live_meter
from midwatch.models.wire import Names, Payload, native_payload
from midwatch.records.chat import ChatAnswer, ChatRequest, ToolRequest

if TYPE_CHECKING:
    from midwatch.models.sdk import StreamingChat

__all__ = ["OpenAIChat", "open_model"]

_SECOND_US: Final = 1_000_000
_CONNECT_S: Final = 10.0
_LARGEST_ANSWER: Final = 8 << 20
_NEW_CAP: Final = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9])")
"""Models that take `max_completion_tokens` only, also behind a gateway."""


class OpenAIChat:
    """A `ChatModel` over `langchain_openai.ChatOpenAI`. Make it with `open_model`.

    Args:
        spec: the route.
        environ: read for the variable that the route names as its key, and for nothing else.
        clock: microseconds UTC.
        base_url: in place of the route's own; a scripted route needs it: where its provider listens.

    Raises:
        UsageProblem: the key's variable is not set; the user sets it.
        MissingExtra: langchain-openai is not installed.
    """

    def __init__(
        self, spec: RouteSpec, *, environ: Mapping[str, str], clock: Callable[[], int], base_url: str | None = None
    ) -> None:
        try:
            # Lazy: half a second, and only who calls a model needs it.
            from midwatch.models.sdk import CLIENT_ERRORS, build  # noqa: PLC0415
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] not in ("httpx2", "langchain_openai", "openai"):
                raise
            raise MissingExtra("openai", f"route `{spec.alias}`") from None
        key = None if spec.provider == "scripted" else key_of(spec, environ)
        self._spec, self._clock, self._foreign = spec, clock, CLIENT_ERRORS
        self._base_url = base_url or spec.base_url
        self._told = Told(spec.alias, spec.model, spec.api_key_env, (key,) if key else ())
        self._client: StreamingChat = build(model=spec.model, base_url=self._base_url, key=key)

    def __repr__(self) -> str:
        """Name the route; never the key."""
        return f"OpenAIChat(route={self._spec.alias!r}, model={self._spec.model!r}, base_url={self._base_url!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a key must not reach a state."""
        raise TypeError("a model holds a key and cannot be serialised; keep its route instead")

    def close(self) -> None:
        """Nothing is held between calls: every call has a connection of its own."""

    async def chat(
        self,
        request: ChatRequest,
        *,
        max_output: int,
        deadline_us: int,
        on_delta: Callable[[str], None] | None = None,
        stop: Callable[[int], bool] | None = None,
    ) -> ChatAnswer:
        """Ask once; see `port.ChatModel.chat`."""
        names = Names.of(request)
        constrained = self._spec.protocol == "constrained"
        payload = self._payload(constrained_payload(request) if constrained else native_payload(request, names))
        payload[self._cap_field()] = max_output
        self._check_sendable(payload)
        seconds = (deadline_us - self._clock()) / _SECOND_US
        if seconds <= 0:
            message = f"the time for the call on route `{self._spec.alias}` was over before it began"
            raise ModelFailure("timeout", message, retryable=False, dispatched=False)
        assembly = Assembly(self._spec.alias)
        meters = [live_meter(max_output), *([stop] if stop is not None else [])]
        with anyio.move_on_after(seconds) as scope:
            async with aclosing(self._events(payload, request.agent, seconds)) as events:
                async for event in events:
                    piece = assembly.feed(event)
                    if piece and on_delta is not None:
                        on_delta(piece)
                    self._meter(assembly.size, meters)
        if scope.cancelled_caught:
            message = f"the answer on route `{self._spec.alias}` was not complete within {self._wait(seconds)}"
            raise ModelFailure("timeout", message, retryable=True, dispatched=True)
        answer = assembly.answer(request, names)
        return self._unconstrained(request, answer) if constrained else answer

    async def _events(self, payload: dict[str, Any], agent: str, seconds: float) -> AsyncGenerator[Any, None]:
        """Give the stream's events; what the client raises becomes a `ModelFailure` without any of the client."""
        headers = {"x-midwatch-agent": agent} if self._spec.provider == "scripted" else {}
        failure: ModelFailure | None = None
        try:
            # A connection that takes too long must end as such before the deadline does: then nothing was dispatched.
            connect = min(_CONNECT_S, seconds * 0.9)
            stream = self._client.events(payload, headers=headers, timeout=seconds + 1, connect=connect)
            async with aclosing(stream) as events:
                async for event in events:
                    yield event
        except self._foreign as error:
            failure = failure_of(error, self._told, now_us=self._clock())
        if failure is not None:
            # Outside of `except`, so that the client's exception, whose request holds the key, is not its context.
            raise failure

    def _payload(self, parts: Payload) -> dict[str, Any]:
        payload: dict[str, Any] = {"messages": parts.messages}
        if parts.tools is not None:
            payload["tools"] = parts.tools
        if parts.response_format is not None:
            payload["response_format"] = parts.response_format
        if self._base_url is None:
            # A project may have a dearer tier as its default; the price list's rates are those of this one.
            payload["service_tier"] = "default"
        return payload

    def _cap_field(self) -> str:
        """OpenAI's newer models refuse `max_tokens`; many compatible servers ignore `max_completion_tokens`."""
        newer = self._base_url is None or _NEW_CAP.match(self._spec.model) is not None
        return "max_completion_tokens" if newer else "max_tokens"

    def _check_sendable(self, payload: dict[str, Any]) -> None:
        try:
            json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as problem:
            message = f"the request on route `{self._spec.alias}` is no JSON in UTF-8 ({type(problem).__name__})"
            raise ModelFailure("bad_request", message, retryable=False, dispatched=False) from None

    def _meter(self, size: int, meters: list[Callable[[int], bool]]) -> None:
        if size > _LARGEST_ANSWER or any(meter(size) for meter in meters):
            message = f"the answer on route `{self._spec.alias}` was cut by its live meter after {size:,} bytes"
            raise ModelFailure("cut", message, retryable=False, dispatched=True)

    def _unconstrained(self, request: ChatRequest, answer: ChatAnswer) -> ChatAnswer:
        if answer.finish == "content_filter" or answer.tool_calls:
            return answer
        reading = read_answer(request, answer.content, truncated=answer.finish == "length")
        calls = () if reading.call is None else (ToolRequest(call_id(request, 0), *reading.call),)
        return ChatAnswer(
            content=reading.content,
            tool_calls=calls,
            usage=answer.usage,
            finish="tool_calls" if calls else answer.finish,
            model=answer.model,
            response_id=answer.response_id,
            signals=(*answer.signals, *reading.signals),
        )

    @staticmethod
    def _wait(seconds: float) -> str:
        return f"{seconds:.3g} s"


def open_model(
    spec: RouteSpec, *, environ: Mapping[str, str], clock: Callable[[], int], scripted_url: str | None = None
) -> ChatModel:
    """Open the model behind a route: the table from provider to class.

    Args:
        environ: read for the route's key only.
        scripted_url: `ScriptedProvider.base_url`, for a scripted route.

    Raises:
        MissingExtra, UsageProblem: as `OpenAIChat`.
        NotGuaranteed: this version has no class for the provider.
    """
    if spec.provider == "openai":
        return OpenAIChat(spec, environ=environ, clock=clock)
    if spec.provider == "scripted" and scripted_url is not None:
        return OpenAIChat(spec, environ={}, clock=clock, base_url=scripted_url)
    message = f"route `{spec.alias}` has provider `{spec.provider}`, which cannot be called; choose another one"
    raise NotGuaranteed(message)
