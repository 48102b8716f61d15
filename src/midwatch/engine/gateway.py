"""Gateway: what a program inside a sandbox finds at the broker's own paths: its model and its tools.

In:   HTTP requests that came in by one sandbox's socket. Out: HTTP answers.
May import: everything right of engine. Must not know: how calls are guarded, how the program is run.
Whose request it is follows from the socket alone: names, keys and headers that a program sends say nothing here.

    GET  /v1/models                POST /v1/chat/completions
    GET  /midwatch/tools           POST /midwatch/tools/NAME
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import orjson

from midwatch.engine.attending import Attended, Told
from midwatch.models import serving
from midwatch.models.wire import Names
from midwatch.records.chat import ChatAnswer, ToolOffer
from midwatch.sandbox.egress import ApiRequest, ApiResponse

__all__ = ["CALL_HEADER", "Gateway"]

CALL_HEADER: Final = "midwatch-call-id"
"""Under which a program names the model's own id of the tool call that it carries out."""
_LARGEST: Final = 1 << 20
"""Bytes of a request's body. Each is read and looked through for credentials, and while that takes long nobody watches the run."""
_JSON: Final = (("content-type", "application/json"),)
_FINAL: Final = ("x-should-retry", "false")
"""Clients must not ask again by themselves: the kernel has."""
_TOOLS: Final = "/midwatch/tools"
Answer = Callable[[ApiRequest], Coroutine[Any, Any, ApiResponse]]


class Gateway:
    """Serves one start of one program; it is `sandbox.egress.Api`.

    Args:
        model: what the agent's route calls its model. max_output: tokens of one answer at most.
    """

    def __init__(
        self, agent: str, route: str, model: str, max_output: int, offers: Sequence[ToolOffer], attended: Attended
    ) -> None:
        self._agent, self._route, self._model, self._max_output = agent, route, model, max_output
        self._offers, self._attended = tuple(offers), attended
        self._names = Names(offer.name for offer in offers)
        self._reading = asyncio.Lock()

    async def __call__(self, request: ApiRequest) -> ApiResponse:
        """Answer one request; never raises but for cancellation."""
        try:
            if len(request.body) > _LARGEST:
                raise Told(413, "invalid_arguments", f"a request may have {_LARGEST:,} bytes")
            return await self._route_of(request)(request)
        except Told as told:
            return _refused(told.status, {"message": str(told), "type": "midwatch", "param": None, "code": told.code})
        except serving.Refused as refused:
            return _refused(refused.status, refused.body)

    def _route_of(self, request: ApiRequest) -> Answer:
        path, method = request.path.rstrip("/"), request.method
        table: Mapping[tuple[str, str], Answer] = {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("GET", _TOOLS): self._tools,
        }
        if (method, path) in table:
            return table[(method, path)]
        if method == "GET" and path == f"/v1/models/{self._model}":
            return self._model_of
        if method == "POST" and path.startswith(f"{_TOOLS}/"):
            return self._tool
        known = [known for known in table if known[1] == path]
        if known:
            raise Told(405, "not_found", f"`{path}` takes {known[0][0]}")
        raise Told(
            404,
            "not_found",
            f"nothing is served at `{path[:100]}`; there are `/v1/models`, `/v1/chat/completions` and `{_TOOLS}`",
        )

    async def _models(self, _request: ApiRequest) -> ApiResponse:
        return _answer({"object": "list", "data": [self._one()]})

    async def _model_of(self, _request: ApiRequest) -> ApiResponse:
        return _answer(self._one())

    def _one(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": 0, "owned_by": "midwatch"}

    async def _chat(self, request: ApiRequest) -> ApiResponse:
        async with self._reading:  # one after the other, beside the loop
            asked = await anyio.to_thread.run_sync(self._read, request)
        answer, name = await self._attended.ask(asked.request)
        if not asked.stream:
            return _answer(serving.object_of(answer, _id(name)))
        headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
        return ApiResponse(200, headers, _events(answer, _id(name), include_usage=asked.include_usage))

    def _read(self, request: ApiRequest) -> serving.Asked:
        return serving.read(_json(request), agent=self._agent, route=self._route, max_output=self._max_output)

    async def _tools(self, _request: ApiRequest) -> ApiResponse:
        return _answer({"tools": [self._shown(offer) for offer in self._offers]})

    def _shown(self, offer: ToolOffer) -> dict[str, Any]:
        function = {
            "name": self._names.to_wire(offer.name),
            "description": offer.description,
            "parameters": dict(offer.input_schema),
        }
        return {**offer.to_json(), "openai": {"type": "function", "function": function}}

    async def _tool(self, request: ApiRequest) -> ApiResponse:
        name = request.path.rstrip("/").removeprefix(f"{_TOOLS}/")
        try:
            raw = request.body.decode()
        except UnicodeDecodeError as wrong:
            raise Told(400, "invalid_arguments", "the arguments are no UTF-8") from wrong
        proposed = next((value for key, value in request.headers if key.lower() == CALL_HEADER), None)
        envelope = await self._attended.tool(self._names.from_wire(name), raw, proposed)
        return _answer(envelope.to_json())


def _json(request: ApiRequest) -> Any:
    try:
        return orjson.loads(request.body)
    except orjson.JSONDecodeError as wrong:
        raise Told(400, "invalid_arguments", "the body is no JSON") from wrong


def _id(name: str) -> str:
    return name.replace(":", "-")


def _answer(body: Any) -> ApiResponse:
    return ApiResponse(200, _JSON, orjson.dumps(body))


def _refused(status: int, error: Mapping[str, Any]) -> ApiResponse:
    return ApiResponse(status, (*_JSON, _FINAL), orjson.dumps({"error": dict(error)}))


async def _events(answer: ChatAnswer, id_: str, *, include_usage: bool) -> AsyncIterator[bytes]:
    for chunk in serving.chunks(answer, id_, include_usage=include_usage):
        yield b"data: " + orjson.dumps(chunk) + b"\n\n"
    yield b"data: [DONE]\n\n"
