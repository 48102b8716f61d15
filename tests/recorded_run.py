"""A recorded run: a home as the engine leaves it, written through the store's port, for tests of those who read it.

In:   an open store. Out: one run of three nodes: model calls, a tool call that worked, one refused, one that waits
for a person, one that was cut off, and the report. Must not know: the engine; the events are written as it writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from midwatch.records.effect import EffectRow
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.records.run import RunRow, RunStatus
from midwatch.records.spend import Line
from midwatch.store.port import Store, Tx

__all__ = ["DOUBT", "GATE", "NOW", "REPORT", "RUN", "record"]

RUN = "ab12cd34" * 4
GATE = "9a" * 8
DOUBT = "5d" * 8
NOW = 1_764_000_000_000_000
REPORT = '# Night\n\nDisk "data" is 91 % full.\nnaïve café: two packages changed.'


@dataclass(slots=True)
class _Pen:
    """Writes the events of one run, a second apart."""

    tx: Tx
    at_us: int = NOW

    def write(self, kind: Any, agent: str | None, node: str | None, data: dict[str, Any], *causes: int) -> int:
        self.at_us += 1_000_000
        task = None if node is None else f"{agent}|{node}:1"
        return self.tx.ledger.append(
            EventDraft(kind, RUN, self.at_us, data, node=node, agent=agent, step=1, task=task, causes=causes)
        )

    def blob(self, value: Any) -> str:
        return self.tx.blobs.put(json.dumps(value).encode())

    def ask(self, agent: str, node: str, prompt: str, content: str, calls: list[dict[str, str]], effect: str) -> int:
        """One answered model call: `intent`, `finished`."""
        messages = [{"role": "system", "content": f"You are {agent}."}, {"role": "user", "content": prompt}]
        request = self.blob({"agent": agent, "route": "fast", "messages": messages, "tools": []})
        told = {"effect": effect, "model": "gpt-5-mini", "route": "fast", "request_blob": request, "attempt": 1}
        intent = self.write("intent", agent, node, told | {"max_output": 500, "price": "test"})
        answer = {"content": content, "tool_calls": calls, "finish": "stop", "model": "gpt-5-mini"}
        usage = {"input": 100, "cached": 10, "output": 20}
        ended = {"effect": effect, "model": "gpt-5-mini", "route": "fast", "ok": True, "finish": "stop", "usage": usage}
        return self.write(
            "finished", agent, node, ended | {"cost": 250, "result_blob": self.blob(answer), "ms": 900}, intent
        )

    def propose(self, tool: str, call: str, stages: list[dict[str, Any]], cause: int, arguments: Any) -> int:
        """`proposed`, `decided`; returns the latter's number."""
        data = {"call": call, "tool": tool, "arguments_blob": self.blob(arguments)}
        proposed = self.write("proposed", "storage", "storage.act", data, cause)
        return self.write("decided", "storage", "storage.act", {"call": call, "tool": tool, "stages": stages}, proposed)


def record(
    store: Store, *, status: RunStatus = "waiting", live_until_us: int | None = None, workdir: str | None = None
) -> None:
    """Write the run; with `live_until_us` another process holds it until then."""

    def work(tx: Tx) -> None:
        _create(tx, status)
        pen = _Pen(tx)
        pen.write(
            "run.created", None, None, {"fleet": "nightwatch"} | ({} if workdir is None else {"workdir": workdir})
        )
        pen.write("node.started", "storage", "storage.think", {})
        wanted = [{"id": "1", "name": "host.disks", "arguments": '{"mount": "/data"}'}]
        asked = pen.ask("storage", "storage.think", "Which disks fill up?", "", wanted, "11" * 8)
        pen.write("node.finished", "storage", "storage.think", {"bytes": 10})
        pen.write("node.started", "storage", "storage.act", {})
        _tool_calls(pen, asked)
        pen.write("node.started", "editor", "editor.think", {})
        body = json.dumps({"answer": REPORT, "changed": []})
        pen.ask("editor", "editor.think", "Write the report.", body, [], "22" * 8)
        pen.write("run.waiting", None, None, {"status": status, "gates": [GATE]})
        if live_until_us is not None:
            tx.fences.take(RUN, owner="other:1", at_us=NOW, ttl_us=live_until_us - NOW)

    store.write(work)


def _create(tx: Tx, status: RunStatus) -> None:
    tx.runs.create(
        RunRow(
            id=RUN,
            fleet="nightwatch",
            fleet_path=None,
            fleet_digest="f" * 64,
            fleet_blob=tx.blobs.put(b"fleet"),
            graph_digest="a" * 64,
            policy_digest="b" * 64,
            preset=None,
            status=status,
            created_us=NOW,
            input=tx.blobs.put(b"{}"),
            cost=500,
            tokens=240,
            tool_calls=1,
            steps=2,
        )
    )
    tx.budgets.set_cap(f"run:{RUN}", "tool_calls", 10)


def _tool_calls(pen: _Pen, asked: int) -> None:
    passed = [{"stage": "contract", "outcome": "pass"}, {"stage": "containment", "outcome": "pass", "by": "grants[0]"}]
    decided = pen.propose("host.disks", "tool:1.0", passed, asked, {"mount": "/data"})
    intent = pen.write(
        "intent",
        "storage",
        "storage.act",
        {"effect": "33" * 8, "tool": "host.disks", "class": "read", "attempt": 1},
        decided,
    )
    data = {"disks": [{"mount": "/data", "used": "91 %", "serial": "WX-1234"}]}
    result = pen.blob({"ok": True, "data": data, "refs": [], "truncated": False, "next_cursor": None, "meta": {}})
    ended = {"effect": "33" * 8, "tool": "host.disks", "ok": True, "code": None, "result_blob": result, "ms": 12}
    pen.write("finished", "storage", "storage.act", ended, intent)
    refused = [{"stage": "containment", "outcome": "deny", "by": "no grant", "reason": "nobody granted `files.write`"}]
    decided = pen.propose("files.write", "tool:1.1", refused, asked, {"path": "/etc/motd"})
    error = {"code": "denied", "message": "nobody granted `files.write`"}
    told = {"call": "tool:1.1", "tool": "files.write", "ok": False, "code": "denied"}
    pen.write(
        "finished", "storage", "storage.act", told | {"result_blob": pen.blob({"ok": False, "error": error})}, decided
    )
    decided = pen.propose(
        "host.restart", "tool:1.2", [{"stage": "gates", "outcome": "ask", "who": "operator"}], asked, {}
    )
    _gate(pen)
    pen.write("gate.opened", "storage", "storage.act", {"gate": GATE, "digest": "d" * 64, "who": "operator"}, decided)
    _doubt(pen, asked)


def _gate(pen: _Pen) -> None:
    arguments = {"unit": "nginx\x1b[2J"}
    card = {"action": "host.restart", "does": "Restart a unit.", "effect": "write", "arguments": arguments}
    pen.tx.gates.open(
        GateRow(
            id=GATE,
            run=RUN,
            agent="storage",
            tool="host.restart",
            digest="d" * 64,
            nonce="0" * 32,
            policy_digest="b" * 64,
            who="operator",
            reason="writes need a yes",
            card=pen.blob(card),
            status="open",
            opened_us=pen.at_us,
            expires_us=NOW + 900_000_000,
        )
    )


def _doubt(pen: _Pen, asked: int) -> None:
    decided = pen.propose("mail.send", "tool:1.3", [{"stage": "gates", "outcome": "pass"}], asked, {"to": "ops"})
    data = {"effect": DOUBT, "tool": "mail.send", "class": "write", "attempt": 1}
    intent = pen.write("intent", "storage", "storage.act", data, decided)
    pen.tx.budgets.reserve(f"t:{DOUBT}:1", run=RUN, lines=(Line(f"run:{RUN}", "tool_calls", 1),), at_us=pen.at_us)
    pen.tx.budgets.confirm(f"t:{DOUBT}:1")
    pen.tx.effects.begin(
        EffectRow(
            id=DOUBT,
            run=RUN,
            task="storage|storage.act:1",
            call_id="tool:1.3",
            kind="tool",
            tool="mail.send",
            tool_digest="e" * 64,
            effect="write",
            agent="storage",
            args_digest="c" * 64,
            arguments=pen.blob({"to": "ops"}),
            epoch=1,
            attempt=1,
            status="started",
            started_us=pen.at_us,
            intent_seq=intent,
        )
    )
