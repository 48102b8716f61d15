"""A process that has loaded everything and forks one child for each segment of a run; the child may die by SIGKILL at a named place.

In:   a line of JSON on stdin per segment: an `Order` of `harness`; with `commit`, globs of paths, it commits instead of running.
Out:  a line of JSON on stdout per segment: `{"code", "result", "error"}`; `code` is the child's exit code, negative for a signal.
      The child appends to the order's `log`, one line of JSON each: `entered TASK`, `written TASK`, `seen SEQ HASH`.
Why a fork: loading LangGraph and the client takes two seconds; a fork of a process without threads, connections and open files
takes milliseconds and is as fresh. Why wrapping: what is killed is the product's own code, which has no hook for tests.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import os
import random
import resource
import signal
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from midwatch import wiring
from midwatch.containment import credentials
from midwatch.engine import (
    gating,
    governing,
    journaling,
    kernel,
    model_call,
    nodes,
    pipeline,
    releasing,
    runner,
    staging,
)
from midwatch.governor.watch import HEARTBEAT
from midwatch.graph import saver, team
from midwatch.models import assembly, openai, routes, scripted, sdk, tokens
from midwatch.records.event import Event
from midwatch.sandbox import bubblewrap, egress, landing, process, release
from midwatch.store import accounts, connection, journal, ledger, sqlite, tables
from midwatch.store.port import Store
from midwatch.tools import envelope, registry

LOADED = (credentials, process, registry, routes, sdk, tables, team, tokens)
"""Loaded here so that no child has to."""

PLACES: dict[str, tuple[Any, str]] = {
    # a tool call, stage by stage
    "tool.contract": (pipeline.Pipeline, "_contract"),
    "tool.journalled": (pipeline.Pipeline, "_journalled"),
    "tool.provenance": (pipeline.Pipeline, "_provenance"),
    "tool.containment": (pipeline.Pipeline, "_containment"),
    "tool.governor": (governing.Governing, "reserve"),
    "tool.gates": (gating.Gating, "decide"),
    "tool.journal": (journaling.Journal, "begin"),
    "tool.perform": (pipeline.Pipeline, "_perform"),
    "tool.call": (urllib.request, "urlopen"),
    "tool.envelope": (envelope, "seal"),
    "tool.settle": (pipeline.Pipeline, "_settle"),
    # a model call, step by step
    "model.ask": (model_call.ModelCalls, "ask"),
    "model.reserve": (model_call.ModelCalls, "_reserve"),
    "model.intend": (model_call.ModelCalls, "_intend"),
    "model.dispatch": (openai.OpenAIChat, "chat"),
    "model.stream": (assembly.Assembly, "feed"),
    "model.settle": (model_call.ModelCalls, "_settle"),
    # inside transactions, whoever writes
    "row.begin": (journal.SqlEffects, "begin"),
    "row.finish": (journal.SqlEffects, "finish"),
    "row.settle": (accounts.SqlBudgets, "settle"),
    "row.event": (ledger.SqlLedger, "append"),
    "store.commit": (connection.Connection, "commit"),
    "store.write": (sqlite.SqliteStore, "write"),
    # the graph and the run
    "saver.put": (saver.Saver, "put"),
    "saver.writes": (saver.Saver, "put_writes"),
    "node.think": (nodes.Nodes, "think"),
    "node.act": (nodes.Nodes, "act"),
    "run.create": (kernel.Kernel, "_create"),
    "run.take": (kernel.Kernel, "_take"),
    "run.begin": (runner, "_begin"),
    "run.end": (runner, "_end"),
}
"""Where a child can die: `before NAME` or `after NAME`."""

STAGED: dict[str, tuple[Any, str]] = {
    # a call in a sandbox
    "stage.start": (bubblewrap.BubblewrapBackend, "start"),
    "stage.call": (staging.Turn, "call"),
    "stage.gather": (staging.Turn, "gather"),
    "stage.keep": (staging.Turn, "keep"),
    "stage.close": (staging.Staging, "close"),
    # what leaves the sandboxes
    "release.begin": (releasing, "_begin"),
    "release.journal": (landing.Journal, "save"),
    "release.write": (landing.Landing, "_do"),
    "release.files": (release, "commit"),
    "release.request": (releasing, "_sent"),
    "release.send": (egress.Broker, "send_staged"),
    "release.end": (releasing, "_end"),
}
"""The same, of runs that act in sandboxes."""

LONGEST_S = 60


def arm(point: str, number: int) -> None:
    """Make this process die at the `number`th pass of `point`, which is `before NAME` or `after NAME`."""
    when, _, name = point.partition(" ")
    owner, attribute = (PLACES | STAGED)[name]
    left = [number]

    def reach(at: str) -> None:
        if at == when:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    wrap(owner, attribute, lambda *_: reach("before"), lambda *_: reach("after"))


def wrap(owner: Any, attribute: str, before: Callable[..., Any], after: Callable[..., Any]) -> None:
    """Call `before(*arguments)` and `after(result, *arguments)` around a function of a class or module."""
    original = getattr(owner, attribute)
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def later(*args: Any, **named: Any) -> Any:
            before(*args)
            result = await original(*args, **named)
            after(result, *args)
            return result

        setattr(owner, attribute, later)
        return

    @functools.wraps(original)
    def now(*args: Any, **named: Any) -> Any:
        before(*args)
        result = original(*args, **named)
        after(result, *args)
        return result

    setattr(owner, attribute, now)


def observe(log: str) -> Callable[[Event], None]:
    """Note what began and what was acknowledged; returns the listener of committed events."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(*words: object) -> None:
        os.write(handle, (json.dumps([*words]) + "\n").encode())

    def written(_: Any, __: Any, ___: Any, writes: Any, task: str, *____: Any) -> None:
        if not any(str(channel).startswith("__") for channel, _ in writes):
            note("written", task)

    wrap(nodes.Nodes, "_enter", lambda *_: None, lambda actor, *_: note("entered", actor.task.rpartition(":")[2]))
    wrap(saver.Saver, "put_writes", lambda *_: None, written)
    return lambda event: note("seen", event.seq, event.hash)


def stand_in(order: dict[str, Any]) -> None:
    """Put in the place of what a segment would start: the provider of the harness, a governor that lives, the order's time."""

    class Provider:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.base_url = order["provider"]

    @contextlib.contextmanager
    def provider(*_: Any, **__: Any) -> Iterator[Provider]:
        yield Provider()

    def clock() -> int:
        return time.time_ns() // 1000 + int(order["offset_us"])

    def govern(store: Store, *_: Any) -> None:
        store.write(lambda tx: tx.watch.beat(HEARTBEAT, pid=os.getpid(), at_us=clock()))

    ssl.SSLContext.load_verify_locations = lambda *_, **__: None  # type: ignore[method-assign]  # 20 ms, and all is plain HTTP
    vars(scripted)["ScriptedProvider"] = provider
    vars(wiring)["clock"] = clock
    vars(wiring)["_govern"] = govern


def child(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one segment; what it raises is told by name."""
    signal.alarm(LONGEST_S)
    random.seed()
    os.environ.update(order["environ"])
    stand_in(order)
    if order["busy_ms"] is not None:
        (sqlite.SqliteStore.__init__.__kwdefaults__ or {})["busy_timeout_ms"] = order["busy_ms"]
    if order["file_size"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], resource.RLIM_INFINITY))
    listen = observe(order["log"])
    if order["point"] is not None:
        arm(order["point"], order["number"])
    try:
        place = Path(order["work"])
        with wiring.open(order["fleet"], home=order["home"], workdir=place, environ={}, on_event=listen) as opened:
            run = order["run"]
            if "commit" in order:
                return {"result": _committed(opened, run, order["commit"]), "error": None}
            result = opened.run(order["request"]) if run is None else opened.resume(run)
    except Exception as error:  # noqa: BLE001 - told to whoever ordered the segment
        return {"result": None, "error": f"{type(error).__name__}: {error}"}
    names = (
        "run",
        "status",
        "error_code",
        "error_message",
        "cost",
        "tokens",
        "tool_calls",
        "head",
        "gates",
        "in_doubt",
    )
    return {"result": {name: getattr(result, name) for name in names} | {"output": result.output}, "error": None}


def _committed(opened: kernel.Kernel, run: str, only: list[str]) -> dict[str, Any]:
    done = opened.commit(run, only=only)
    words = [word for _, word in done.requests]
    return {"status": done.status, "paths": list(done.paths), "gate": done.gate, "requests": words}


def warm() -> None:
    """Load what the client only loads when it is first made and used; nothing is connected."""
    client = sdk.build(model="none", base_url="http://127.0.0.1:9/v1", key=None)
    for name in ("httpcore2", "openai.resources.chat.completions", "openai.lib.streaming.chat"):
        importlib.import_module(name)
    assert client.root_async_client.chat.completions is not None


def serve() -> None:
    """Fork one child for each line."""
    warm()
    assert threading.active_count() == 1, "a fork of a process with threads is not a fresh one"
    for line in sys.stdin:
        order = json.loads(line)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(ours)
                _tell(theirs, child(order))
                os._exit(0)
            finally:
                os._exit(70)
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            written = pipe.read()
        _, status = os.waitpid(pid, 0)
        told = json.loads(written) if written else {"result": None, "error": None}
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status), **told}) + "\n")
        sys.stdout.flush()


def _tell(handle: int, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(handle, data) :]


if __name__ == "__main__":
    serve()
