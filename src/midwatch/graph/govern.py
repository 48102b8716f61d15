"""Govern: the models and tools that somebody else's graph works with, each call of which passes the kernel.

In:   a fleet and its tools; `Calls`, which the engine implements for one segment.
Out:  `Kit`: what `build(kit)` of an imported graph is given: a LangChain chat model and LangChain tools for each agent.
May import: sibling modules, tools, records, errors; LangChain, LangGraph. Must not know: engine, store, guards.
Why values and not exceptions: what a model asked for and may not have is an answer to that model, as an envelope in a tool
message. A graph's own error handling never sees it, so it cannot be swallowed, retried or turned into something else.
Why `interrupt` in a loop: LangGraph matches answers to interrupts of one task by arrival, so an answer says nothing about which
call it was for. Here it only wakes the call up; the decision is read from the store, by the call's own name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol, TypeVar, cast

import orjson
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langgraph.types import interrupt
from pydantic import BaseModel, Field, PrivateAttr

from midwatch.config.fleet import Fleet
from midwatch.config.specs import AgentSpec
from midwatch.errors import MidwatchError, NotFound, UsageProblem
from midwatch.graph import tripwire
from midwatch.graph.messages import raw_arguments, to_langchain, to_records
from midwatch.graph.scope import Place, Wait, here
from midwatch.records.chat import ChatAnswer, ChatRequest, ToolOffer
from midwatch.records.envelope import Envelope
from midwatch.tools.registry import Registry

__all__ = ["Calls", "Kit", "KitModel", "KitTool", "NotRunning"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_IGNORED: Final = frozenset({"strict", "ls_structured_output_format"})
_NAME: Final = re.compile(r"[^a-z_]+")


class Calls(Protocol):
    """What carries the calls of one segment past the guards. Safe for calls from several threads and event loops."""

    async def ask(self, place: Place, agent: str, call_id: str, request: ChatRequest) -> ChatAnswer:
        """Ask the agent's model, at most once for this place and id."""
        ...

    async def tool(
        self, place: Place, agent: str, call_id: str, name: str, raw: str, proposed: str | None
    ) -> Envelope | Wait:
        """Carry out one tool call, at most once for this place and id.

        Args:
            proposed: the id under which a model asked for it, or None where the node's code did.
        """
        ...

    def from_thread(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Carry out, from a thread without an event loop, what `make` begins."""
        ...

    def stop(self, error: MidwatchError) -> BaseException:
        """Stop the run for good in this segment; returns what to raise."""
        ...


class NotRunning:
    """`Calls` of a graph that is only looked at, as `midwatch check` does: every call is an error of the graph's author."""

    _REASON: Final = "`build` called a model or tool; it only puts the graph together, calls belong in the nodes"

    async def ask(self, place: Place, agent: str, call_id: str, request: ChatRequest) -> ChatAnswer:
        """Refuse."""
        raise UsageProblem(self._REASON)

    async def tool(
        self, place: Place, agent: str, call_id: str, name: str, raw: str, proposed: str | None
    ) -> Envelope | Wait:
        """Refuse."""
        raise UsageProblem(self._REASON)

    def from_thread(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Refuse."""
        raise UsageProblem(self._REASON)

    def stop(self, error: MidwatchError) -> BaseException:
        """Give the error itself: there is no run to stop."""
        return error


class Kit:
    """What an imported graph is built from; `build(kit)` is called with it and returns an uncompiled `StateGraph`."""

    def __init__(self, fleet: Fleet, registry: Registry, calls: Calls) -> None:
        self._fleet, self._registry, self._calls = fleet, registry, calls
        self._kept: list[type] = []

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the fleet's agents."""
        return tuple(self._fleet.agents)

    def prompt(self, agent: str) -> str:
        """Give the agent's prompt from the fleet file; the kit's model does not add it by itself.

        Raises:
            NotFound: the fleet has no such agent.
        """
        return self._agent(agent).prompt

    def model(self, agent: str) -> KitModel:
        """Give the agent's model as a LangChain chat model: bounded, journalled, never billed twice for one place in the run.

        Raises:
            NotFound: the fleet has no such agent.
        """
        spec = self._agent(agent)
        route = self._fleet.routes[spec.route]
        made = KitModel(agent=agent, route=spec.route, max_output=route.max_output, cache=False)
        return made.carried_by(self._calls)

    def tools(self, agent: str) -> list[BaseTool]:
        """Give the agent's tools as LangChain tools: every call passes contract, grants, bounds, gates and the journal.

        A CEO gets none. Raises:
            NotFound: the fleet has no such agent.
        """
        spec = self._agent(agent)
        if spec.role == "ceo":
            return []
        names = [name for name in self._registry.names() if any(fnmatchcase(name, glob) for glob in spec.tools)]
        return [_tool(agent, offer, self._calls) for offer in self._registry.offers(names)]

    @property
    def kept(self) -> tuple[type, ...]:
        """Classes that `keep` was told of."""
        return tuple(self._kept)

    def keep(self, cls: type) -> type:
        """Let state hold instances of a class that the graph's schemas do not name, such as a `response_format`; returns it.

        Dataclasses, pydantic models, enums and named tuples can be kept. Stored state makes no instances of any other class.
        """
        self._kept.append(cls)
        return cls

    def guarded(self, fn: F) -> F:
        """Let a node's function, or a routing function, count as guarded.

        While it runs, what reaches outside the process's memory by Python's own means stops the run: writing files, processes,
        connections, native libraries. It is a tripwire for honest code, not a sandbox; see `graph.tripwire`.
        """
        return tripwire.guarded(fn, lambda what: self._calls.stop(UsageProblem(what)))

    def _agent(self, name: str) -> AgentSpec:
        spec = self._fleet.agents.get(name)
        if spec is None:
            raise NotFound(
                f"the fleet has no agent `{name}`; it has {', '.join(f'`{one}`' for one in self._fleet.agents)}"
            )
        return spec


class KitModel(BaseChatModel):
    """An agent's model. Streams come as one piece, since an answer counts only when it is complete.

    Attributes:
        route: alias of the fleet file. max_output: tokens; the governor may lower it.
    """

    agent: str
    route: str
    max_output: int
    profile: Any = Field(default_factory=lambda: {"structured_output": True}, exclude=True)
    _calls: Calls = PrivateAttr(default_factory=NotRunning)

    def carried_by(self, calls: Calls) -> KitModel:
        """Say who carries the calls; returns itself."""
        self._calls = calls
        return self

    @property
    def _llm_type(self) -> str:
        return "midwatch"

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model.

        Raises:
            UsageProblem: a tool of another agent is offered, or a choice is forced.
        """
        if tool_choice not in (None, "auto"):
            raise UsageProblem(
                "a model cannot be forced to call a tool; for an answer of a given shape use `with_structured_output`"
            )
        offers = [self._offer(tool) for tool in tools]
        return cast("Runnable[LanguageModelInput, AIMessage]", self.bind(tools=offers, **kwargs))

    def _offer(self, tool: Any) -> dict[str, Any]:
        if isinstance(tool, KitTool):
            if tool.agent != self.agent:
                raise UsageProblem(
                    f"`{tool.name}` is a tool of `{tool.agent}` here; give `{self.agent}` its own by `kit.tools`"
                )
            return {"name": tool.name, "description": tool.description, "input_schema": tool.args_schema}
        function = convert_to_openai_tool(tool)["function"]
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        return {"name": function["name"], "description": function.get("description", ""), "input_schema": schema}

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Ask for an answer that fits `schema`; what comes is parsed, and raises where it does not fit.

        Raises:
            UsageProblem: `include_raw` is wanted.
        """
        if include_raw:
            raise UsageProblem("`include_raw` is not supported; call the model itself and parse its answer")
        body = convert_to_json_schema(schema)
        name = str(body.pop("title", "answer"))
        is_model = isinstance(schema, type) and issubclass(schema, BaseModel)
        parser: Any = PydanticOutputParser(pydantic_object=cast("Any", schema)) if is_model else JsonOutputParser()
        return cast("Runnable[LanguageModelInput, dict[str, Any] | BaseModel]", self._shaped(name, body) | parser)

    def _shaped(self, name: str, schema: Mapping[str, Any]) -> Runnable[LanguageModelInput, AIMessage]:
        wanted = {"type": "json_schema", "json_schema": {"name": name, "schema": dict(schema)}}
        return cast("Runnable[LanguageModelInput, AIMessage]", self.bind(response_format=wanted))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        calls, (place, call_id, request) = self._calls, self._asked(messages, stop, kwargs)
        return _result(calls.from_thread(lambda: calls.ask(place, self.agent, call_id, request)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        place, call_id, request = self._asked(messages, stop, kwargs)
        return _result(await self._calls.ask(place, self.agent, call_id, request))

    def _asked(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[Place, str, ChatRequest]:
        request = self._request(messages, stop, kwargs)
        place = _here(self._calls)
        text = orjson.dumps(request.to_json(), option=orjson.OPT_SORT_KEYS).decode()
        return place, f"model:{place.scope.ordinal(place, text)}", request

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> ChatRequest:
        wished = dict(kwargs)
        tools = tuple(ToolOffer(**offer) for offer in wished.pop("tools", ()))
        shape = wished.pop("response_format", None)
        unknown = sorted(key for key, value in wished.items() if key not in _IGNORED and value is not None)
        if stop or unknown:
            raise UsageProblem(
                f"the model of `{self.agent}` does not take `{'stop' if stop else unknown[0]}`; the fleet file says how it is asked"
            )
        name, schema = _shape(shape)
        return ChatRequest(
            agent=self.agent,
            route=self.route,
            messages=to_records(messages),
            max_output=self.max_output,
            tools=tools,
            answer_schema=schema,
            answer_name=name,
        )


class KitTool(BaseTool):
    """One tool of one agent. What LangChain gives it as arguments goes to the kernel unparsed; there alone it is judged."""

    agent: str
    _calls: Calls = PrivateAttr(default_factory=NotRunning)

    def carried_by(self, calls: Calls) -> KitTool:
        """Say who carries the calls; returns itself."""
        self._calls = calls
        return self

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep the arguments together with the id that belongs to them."""
        raw = tool_input if isinstance(tool_input, str) else raw_arguments(tool_input)
        return (), {"raw": raw, "call_id": tool_call_id}

    def _run(self, raw: str, call_id: str | None) -> ToolMessage | str:
        calls, (place, name) = self._calls, self._named(raw, call_id)
        while True:
            outcome = calls.from_thread(lambda: calls.tool(place, self.agent, name, self.name, raw, call_id))
            if isinstance(outcome, Envelope):
                return self._told(outcome, call_id)
            interrupt(outcome.to_json())

    async def _arun(self, raw: str, call_id: str | None) -> ToolMessage | str:
        place, name = self._named(raw, call_id)
        while True:
            outcome = await self._calls.tool(place, self.agent, name, self.name, raw, call_id)
            if isinstance(outcome, Envelope):
                return self._told(outcome, call_id)
            interrupt(outcome.to_json())

    def _named(self, raw: str, call_id: str | None) -> tuple[Place, str]:
        place = _here(self._calls)
        if call_id is None:
            return place, f"code:{place.scope.ordinal(place, f'{self.agent} {self.name} {raw}')}"
        try:
            return place, f"call:{place.scope.call(place, call_id, f'{self.agent} {self.name}', raw)}"
        except MidwatchError as error:
            raise self._calls.stop(error) from error

    def _told(self, envelope: Envelope, call_id: str | None) -> ToolMessage | str:
        content = orjson.dumps(envelope.to_json()).decode()
        if call_id is None:
            return content
        return ToolMessage(content, name=self.name, tool_call_id=call_id, status="success" if envelope.ok else "error")


def _tool(agent: str, offer: ToolOffer, calls: Calls) -> KitTool:
    schema = {"title": offer.name, "description": offer.description, **offer.input_schema}
    return KitTool(name=offer.name, description=offer.description, args_schema=schema, agent=agent).carried_by(calls)


def _here(calls: Calls) -> Place:
    try:
        return here()
    except UsageProblem as error:
        raise calls.stop(error) from error


def _result(answer: ChatAnswer) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=to_langchain(answer))])


def _shape(wanted: Any) -> tuple[str, Mapping[str, Any] | None]:
    """Read the name and schema of a wished answer, in OpenAI's form of the wish."""
    if wanted is None:
        return "answer", None
    inner = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
        raise UsageProblem("an answer's shape is wished for as a JSON Schema; use `with_structured_output`")
    schema: Mapping[str, Any] = json.loads(json.dumps(inner["schema"]))
    return _NAME.sub("_", str(inner.get("name", "answer")).lower()).strip("_") or "answer", schema
