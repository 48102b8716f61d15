"""Foreign graphs: somebody else's `StateGraph`, loaded, checked, compiled with our saver, and watched node by node.

In:   a fleet whose graph is `import: "module:attribute"`; a `Kit`; a saver; a `Watch`.
Out:  `Foreign`: how to build it, its digest, which input fits it; `watched`: the same graph, each node's entry and exit told.
May import: sibling modules, config, errors; LangGraph. Must not know: engine, stores, what is written down about a node.
Why uncompiled: a compiled graph carries a saver of its own, so its state would be kept outside of the run's fences and digests.
Why nodes are wrapped and no stream is listened to: a stream tells of a node when the listener's turn comes, which may be after the
node has acted, and never when the process dies meanwhile. The wrapper writes `started` before the node's code runs, and it alone
can keep a node from finishing that swallowed a halt or a wait.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import orjson
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.types import interrupt
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from midwatch.config.fleet import Fleet
from midwatch.config.specs import ImportSpec
from midwatch.errors import InvalidFleet, Problem, UsageProblem
from midwatch.graph.govern import Kit
from midwatch.graph.scope import CURRENT, Scope
from midwatch.graph.serde import StateRefused, StrictSerializer, types_of
from midwatch.tools.beside import Source, importable

__all__ = ["Foreign", "Watch", "load", "watched"]

Compiled = CompiledStateGraph[Any, Any, Any, Any]
MakeSaver = Callable[[tuple[type, ...]], BaseCheckpointSaver[Any]]
_OURS: Final = "__midwatch_graph__"


class Watch(Protocol):
    """Is told of every node; what it raises keeps the node from running, or from finishing."""

    def enter(self, config: RunnableConfig, parent: Scope | None) -> Scope:
        """A node begins."""
        ...

    def check(self) -> None:
        """Raise if the run was stopped, whoever swallowed that."""
        ...

    def leave(self, scope: Scope, status: str, output: Any) -> None:
        """A node ends: `finished` with its output, `failed` with its error, or `waiting`."""
        ...


@dataclass(frozen=True, slots=True)
class Foreign:
    """An imported graph, loaded once a process and built anew for each segment.

    Attributes:
        digest: SHA-256 hex over the module's source text and the drawn nodes and edges.
        schema: class of the input. keys: names of the input's channels.
    """

    fleet: Fleet
    make: Callable[[Kit], Any]
    digest: str
    schema: Any
    keys: tuple[str, ...]

    def compile(self, kit: Kit, saver: MakeSaver | None) -> Compiled:
        """Build and compile it.

        Args:
            saver: makes the saver, once it is known which classes the graph keeps.

        Raises:
            InvalidFleet: what `build` returned, or raised, is no graph that can be run; the graph's author corrects it.
        """
        return _compile(self.fleet, self.make, kit, saver)

    def accept(self, request: Any) -> None:
        """Check that a run's input fits the graph's own.

        Raises:
            UsageProblem: it does not; nothing was started.
        """
        known = ", ".join(f"`{key}`" for key in self.keys)
        if not isinstance(request, dict) or not request:
            raise UsageProblem(f"the input of this graph is a JSON object with keys of its state: {known}")
        unknown = sorted(set(request) - set(self.keys))
        if unknown:
            raise UsageProblem(f"the graph's state has no `{unknown[0]}`; it takes {known}")
        for key, hint in _hints(self.schema).items():
            if key in request:
                _fits(key, hint, request[key])


def load(fleet: Fleet, kit: Kit) -> Foreign:
    """Load the module and build the graph once, with a kit that carries no calls.

    Raises:
        InvalidFleet: it cannot be imported, built or run.
    """
    spec = fleet.graph
    if not isinstance(spec, ImportSpec):
        raise _wrong(fleet, "the fleet's graph is no import", "no-import")
    module = _module(fleet, spec)
    made = getattr(module, spec.attr, None)
    if made is None:
        raise _wrong(
            fleet, f"module `{spec.module}` has no `{spec.attr}`; define `def {spec.attr}(kit): ...`", "no-attribute"
        )
    make: Callable[[Kit], Any] = (
        made if callable(made) and not isinstance(made, StateGraph | Pregel) else lambda _: made
    )
    graph = _compile(fleet, make, kit, None)
    schema = graph.builder.input_schema
    return Foreign(fleet, make, _digest(module, graph), schema, tuple(graph.builder.schemas[schema]))


def watched(graph: Compiled, watch: Watch) -> Compiled:
    """Give the same graph with each node wrapped, those of its subgraphs too. A graph that a node's own code calls is not seen."""
    nodes = {}
    for name, node in graph.nodes.items():
        bound = node.bound
        if isinstance(bound, CompiledStateGraph):
            bound = watched(bound, watch)
        nodes[name] = node if name == START else node.copy({"bound": _Watched(bound, watch)})
    return graph.copy({"nodes": nodes})


class _Watched(Runnable[Any, Any]):
    """A node's body between entry and exit. Only the asynchronous way exists: the engine goes no other."""

    def __init__(self, bound: Runnable[Any, Any], watch: Watch) -> None:
        self._bound, self._watch = bound, watch

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Refuse: a watched graph runs on the segment's event loop."""
        raise UsageProblem("a graph of the kernel runs on its own event loop; await `ainvoke`")

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the node; a halt or a wait that its code swallowed still holds."""
        scope = self._watch.enter(config or {}, CURRENT.get())
        token = CURRENT.set(scope)
        try:
            output = await self._bound.ainvoke(input, config, **kwargs)
            self._watch.check()
            while scope.waits:  # `interrupt` gives stale wake-ups first, then it raises
                interrupt(_all(scope))
        except GraphInterrupt:
            self._watch.leave(scope, "waiting", None)
            raise
        except ParentCommand as jump:
            self._watch.check()
            self._watch.leave(scope, "finished", jump.args)
            raise
        except GraphBubbleUp:
            raise
        except Exception as error:
            self._watch.check()
            self._watch.leave(scope, "failed", error)
            raise
        finally:
            CURRENT.reset(token)
        self._watch.leave(scope, "finished", output)
        return output


def _all(scope: Scope) -> dict[str, list[str]]:
    waits = list(scope.waits.values())
    return {
        "gates": sorted({gate for wait in waits for gate in wait.gates}),
        "in_doubt": sorted({effect for wait in waits for effect in wait.in_doubt}),
    }


def _module(fleet: Fleet, spec: ImportSpec) -> ModuleType:
    """Import the module: a file beside the fleet file, else whatever Python finds under that name."""
    importable(fleet.base, [spec.module])
    file = fleet.base / f"{spec.module}.py"
    try:
        if file.is_file():
            return _file(fleet, spec.module, file.resolve())
        return importlib.import_module(spec.module)
    except (Exception, SystemExit) as raised:  # the boundary to foreign code: it becomes a problem
        raise _raised(fleet, raised, "while it is loaded") from raised


def _file(fleet: Fleet, name: str, file: Path) -> ModuleType:
    """Run a file as the module of that name; another fleet's module of the same name gives way, nobody else's does."""
    known = sys.modules.get(name)
    if name in sys.stdlib_module_names or (known is not None and not hasattr(known, _OURS)):
        raise _wrong(
            fleet, f"`{name}` is the name of another module; give the graph's file another name", "taken-module"
        )
    if known is not None and getattr(known, _OURS) == (str(file), _text(file)):
        return known
    spec = spec_from_file_location(name, file, loader=Source(name, str(file)))
    if spec is None or spec.loader is None:
        raise _wrong(fleet, f"`{file.name}` is no Python file", "not-python")
    module = module_from_spec(spec)
    setattr(module, _OURS, (str(file), _text(file)))
    sys.modules[name] = module  # hints of the state's classes are resolved through here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _text(file: Path) -> bytes:
    return file.read_bytes()


def _compile(fleet: Fleet, make: Callable[[Kit], Any], kit: Kit, saver: MakeSaver | None) -> Compiled:
    try:
        made = make(kit)
    except (Exception, SystemExit) as raised:  # the boundary to foreign code: it becomes a problem
        raise _raised(fleet, raised, "while it builds the graph") from raised
    if isinstance(made, Pregel):
        raise _wrong(
            fleet,
            "the graph is compiled, so it carries another saver; return the `StateGraph` itself",
            "compiled-graph",
        )
    if not isinstance(made, StateGraph):
        raise _wrong(fleet, f"`build` gave a `{type(made).__name__}`; return a `StateGraph`", "no-graph")
    try:
        graph = made.compile()
        subgraphs = _subgraphs(graph, "")
        kept = (*kit.kept, *types_of(*_schemas(graph, *(sub for _, sub in subgraphs))))
        StrictSerializer(kept)
    except (StateRefused, ValueError) as error:
        raise _wrong(fleet, f"the graph does not compile: {error}", "bad-graph") from error
    for place, sub in subgraphs:
        if sub.checkpointer not in (None, True):
            message = f"the subgraph in `{place}` carries a checkpointer of its own; compile it without one, it inherits the run's"
            raise _wrong(fleet, message, "foreign-saver")
        if sub.interrupt_before_nodes or sub.interrupt_after_nodes:
            message = (
                f"the subgraph in `{place}` has breakpoints, which nobody can answer; ask by a tool that has a gate"
            )
            raise _wrong(fleet, message, "breakpoint")
    return graph if saver is None else graph.copy({"checkpointer": saver(kept)})


def _schemas(*graphs: Any) -> list[type]:
    """Give the classes of state, inputs and outputs of graphs and their nodes; a graph that is no `StateGraph` has none."""
    return [schema for graph in graphs for schema in getattr(getattr(graph, "builder", None), "schemas", ())]


def _subgraphs(graph: Any, above: str) -> list[tuple[str, Any]]:
    found = []
    for name, node in graph.nodes.items():
        direct = [node.bound] if isinstance(node.bound, Pregel) else []
        for sub in direct or node.subgraphs:
            place = f"{above}{name}"
            found += [(place, sub), *_subgraphs(sub, f"{place}.")]
    return found


def _digest(module: ModuleType, graph: Compiled) -> str:
    drawn = graph.get_graph(xray=True)
    shape: Mapping[str, Any] = {
        "pattern": "import/1",
        "nodes": sorted(drawn.nodes),
        "edges": sorted([edge.source, edge.target, str(edge.data), edge.conditional] for edge in drawn.edges),
    }
    source = Path(module.__file__).read_bytes() if module.__file__ else b""
    return hashlib.sha256(source + b"\x1f" + orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _hints(schema: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(schema)
    except (NameError, TypeError):  # what only a type checker can resolve is left to the graph itself
        return {}


def _fits(key: str, hint: Any, value: Any) -> None:
    if _has_messages(hint):
        return  # LangGraph itself takes messages in several forms
    try:
        TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise UsageProblem(f"`{key}` of the input does not fit the graph's state: {first}") from error
    except PydanticUserError:
        return


def _has_messages(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, BaseMessage):
        return True
    return any(_has_messages(part) for part in typing.get_args(hint))


def _raised(fleet: Fleet, raised: BaseException, when: str) -> InvalidFleet:
    if isinstance(raised, InvalidFleet):
        return raised
    frames = [
        frame
        for frame in traceback.extract_tb(raised.__traceback__)
        if Path(frame.filename).parent == fleet.base.resolve()
    ]
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = (str(raised).strip().splitlines() or ["no message"])[0][:200]
    return _wrong(fleet, f"the graph's module raises {when}{at}: {type(raised).__name__}: {text}", "import-failed")


def _wrong(fleet: Fleet, message: str, code: str) -> InvalidFleet:
    return InvalidFleet((Problem(fleet.where("graph", "import"), message, code),))
