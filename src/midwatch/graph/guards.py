"""Guards: which parts of a foreign graph can act only through the kit, as far as that can be seen from their parts.

In:   a compiled graph. Out: one `Unguarded` for every part that is anything else.
May import: sibling modules; LangGraph. Must not know: fleets, engine.
The rule fails closed: a part is guarded only when it is recognised, whole, as one of these:

    - a `ToolNode` itself, with tools of the kit alone, and without wrappers of calls or error handlers in code;
    - a model of the kit, also with tools bound to it;
    - a subgraph all of whose parts are guarded; so an agent of LangChain's `create_agent` is, when its model and tools are the
      kit's and it has no middleware;
    - a function that `kit.guarded` watches; `tools_condition`, and the routing functions inside `create_agent`.

Everything else is the author's own code, which can do what the process can. Reducers of state and predicates of retries are
declarations and not looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from langchain_core.runnables import Runnable, RunnableBinding
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from midwatch.graph.govern import KitModel, KitTool
from midwatch.graph.tripwire import is_guarded

__all__ = ["Unguarded", "unguarded"]

_FACTORY: Final = "langchain.agents.factory"
_ROUTES: Final = frozenset({"model_to_tools", "model_to_model", "tools_to_model"})


@dataclass(frozen=True, slots=True)
class Unguarded:
    """A part whose effects are not governed.

    Attributes:
        node: names of the nodes around it, joined by dots. why: what it is, and what to do.
    """

    node: str
    why: str


def unguarded(graph: CompiledStateGraph[Any, Any, Any, Any], above: str = "") -> Iterator[Unguarded]:
    """Find them, in the order of the graph's nodes."""
    for name, node in graph.nodes.items():
        place, runnable = f"{above}{name}", node.bound
        if name == START:
            continue
        if isinstance(runnable, CompiledStateGraph):
            if runnable.store is not None or runnable.cache is not None:
                yield Unguarded(
                    place, "it keeps things outside of the run, in a store or cache of its own; compile it without"
                )
            yield from unguarded(runnable, f"{place}.")
            continue
        why = _why(runnable)
        if why is not None:
            yield Unguarded(place, why)
    for source, branches in graph.builder.branches.items():
        for name, branch in branches.items():
            if not _is_route(branch.path):
                place = f"{above}{'' if source == START else source}"
                yield Unguarded(place, f"the routing function `{name}` is code of its own; wrap it with `kit.guarded`")


def _why(runnable: Runnable[Any, Any] | Any) -> str | None:
    if type(runnable) is ToolNode:
        return _tool_node(runnable)
    if isinstance(runnable, KitModel):
        return None
    if type(runnable) is RunnableBinding:
        return _why(runnable.bound)
    functions = _functions(runnable)
    if functions and all(_is_code_of(fn, "model_node", "amodel_node") for fn in functions):
        return _agent_model(functions)
    if functions and all(is_guarded(fn) for fn in functions):
        return None
    return "its effects are its own code's; let it act by tools of the kit, or wrap it with `kit.guarded`"


def _tool_node(node: ToolNode) -> str | None:
    own = sorted(name for name, tool in node.tools_by_name.items() if type(tool) is not KitTool)
    if own:
        return f"its tool `{own[0]}` is not the kit's; make it a tool of the fleet"
    if node._wrap_tool_call is not None or node._awrap_tool_call is not None:  # noqa: SLF001 - no public way to ask
        return "its calls are wrapped by code of their own; take the wrapper away"
    handler = node._handle_tool_errors  # noqa: SLF001 - as above
    if inspect.isroutine(handler) and not str(handler.__module__).startswith("langgraph."):
        return "its errors are handled by code of their own; use `True` or a text"
    return None


def _agent_model(functions: list[Any]) -> str | None:
    """Judge the model node of `create_agent` by what its functions have closed over."""
    for fn in functions:
        held = inspect.getclosurevars(fn).nonlocals
        if type(held.get("model")) is not KitModel:
            return "the agent's model is not the kit's; use `kit.model`"
        if any(held.get(name) is not None for name in ("wrap_model_call_handler", "awrap_model_call_handler")):
            return "the agent's model calls are wrapped by middleware, which is code of its own"
    return None


def _is_route(path: Any) -> bool:
    functions = _functions(path)
    return bool(functions) and all(
        fn is tools_condition or is_guarded(fn) or (_is_code_of(fn, *_ROUTES) and _is_closure(fn)) for fn in functions
    )


def _functions(runnable: Any) -> list[Any]:
    """Give the functions that a callable node or route runs; none for what is something else."""
    if type(runnable).__name__ != "RunnableCallable":
        return []
    found = [runnable.func, runnable.afunc]
    # LangGraph gives a synchronous function an asynchronous twin, which only moves it to a thread.
    return [
        fn
        for fn in found
        if fn is not None and not (isinstance(fn, partial) and getattr(fn, "__wrapped__", None) is found[0])
    ]


def _is_code_of(fn: Any, *names: str) -> bool:
    """Say whether a function is one of these of LangChain's own module; a name alone can be borrowed, globals cannot."""
    if not inspect.isfunction(fn) or fn.__name__ not in names:
        return False
    return fn.__globals__.get("__name__") == _FACTORY and fn.__code__.co_filename == fn.__globals__.get("__file__")


def _is_closure(fn: Any) -> bool:
    return "<locals>" in fn.__qualname__
