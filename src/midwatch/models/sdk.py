"""SDK: the one module that imports the OpenAI client, through LangChain's chat model.

In:   a payload as the API wants it. Out: the events of the answer, each as the JSON object that came in.
May import: langchain-openai and what it brings. Must not know: records, budgets. Imported late, by `openai` only: half
a second, and an extra.
Why a subclass and not `astream`: LangChain's own reading of a stream lets malformed arguments pass as repaired ones,
the last of two equal keys win, calls without an index vanish, and the provider's id be lost; its callbacks may send
prompts to a tracing service that an environment variable names. So events are passed on as they are, and `assembly`
reads them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import httpx2
import openai
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

__all__ = ["CLIENT_ERRORS", "OPENAI_URL", "StreamingChat", "build"]

OPENAI_URL: Final = "https://api.openai.com/v1"
_NO_KEY: Final = "none"
CLIENT_ERRORS: Final = (
    *(openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL),
    *(OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError),  # of reading what is no chat API
)
"""All that `events` raises on purpose or on foreign data."""
_OWN_HEADERS: Final = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "transfer-encoding"}
    | {"user-agent", "authorization", "x-midwatch-agent"}
)


class StreamingChat(ChatOpenAI):
    """`ChatOpenAI`, streaming, with our payload going out and the provider's own events coming in."""

    async def events(
        self, payload: Mapping[str, Any], *, headers: Mapping[str, str], timeout: float, connect: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Ask once and give each event of the stream.

        Args:
            payload: of the request body, besides `model` and the stream's settings.
            headers: sent with this request.
            timeout: seconds without a byte after which the client gives up; `connect`: seconds for the connection.

        Raises:
            Exception: whatever the client raises; `errors_map` knows what it means.
        """
        limits = openai.Timeout(timeout, connect=connect)
        stream = self._astream([], wire=dict(payload), extra_headers=dict(headers), timeout=limits)
        async with aclosing(stream) as chunks:  # type: ignore[type-var]  # an async generator behind an iterator's type
            async for chunk in chunks:
                yield (chunk.generation_info or {})["event"]

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        wire: dict[str, Any] = kwargs.pop("wire")
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        # `response_format` at the top would take LangChain to another client call, which raises on a cut answer.
        extra = {key: wire[key] for key in ("response_format",) if key in wire}
        return {**payload, **{key: value for key, value in wire.items() if key not in extra}, "extra_body": extra}

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        return ChatGenerationChunk(message=AIMessageChunk(content=""), generation_info={"event": chunk})


def build(*, model: str, base_url: str | None, key: str | None) -> StreamingChat:
    """Make a client for one route. It keeps no connection between calls, so it may outlive an event loop.

    A fresh connection per call also settles what was dispatched: none was made, or the request left.
    """
    own = base_url is None
    address = base_url or OPENAI_URL

    async def guard(request: httpx2.Request) -> None:
        # Ambient settings (organisation, custom headers) are for the provider's own address; a key is sent where one is
        # named.
        if not own:
            for name in [name for name in request.headers if not _allowed(name)]:
                del request.headers[name]
        if key is None and "authorization" in request.headers:
            del request.headers["authorization"]

    http = openai.DefaultAsyncHttpxClient(
        base_url=address,
        follow_redirects=False,
        trust_env=not _is_loopback(address),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        event_hooks={"request": [guard]},
    )
    return StreamingChat(
        model_name=model,
        openai_api_base=address,
        openai_api_key=SecretStr(key or _NO_KEY),
        openai_proxy="",
        max_retries=0,
        stream_usage=True,
        streaming=True,
        use_responses_api=False,
        stream_chunk_timeout=None,
        http_async_client=http,
    )


def _allowed(name: str) -> bool:
    return name.lower() in _OWN_HEADERS


def _is_loopback(address: str) -> bool:
    host = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    return name in {"localhost", "::1"} or name.startswith("127.")
