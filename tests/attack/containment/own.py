"""Our own authority under attack: a fleet on disk, a home, and a run whose commit writes what a test says.

The store, the fleet file, the detection and the endorsement are real; only the run itself is a few events, as a commit leaves them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.engine import authority, rightful
from midwatch.engine.rightful import Rightful
from midwatch.errors import InvalidFleet
from midwatch.gates.review import Speaker
from midwatch.records.authority import AuthorityRow
from midwatch.records.event import EventDraft
from midwatch.records.label import Cause, label
from midwatch.records.principal import Principal, hash_token, new_token
from midwatch.records.run import RunRow, new_run_id
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store, Tx
from midwatch.tools.registry import Registry
from tests.policy_fleet import write

__all__ = ["GATE", "GRANT", "Ground", "Grounds", "committed", "grounds", "loaded"]

Grounds = Callable[..., "Ground"]

GATE = 'gates: [{when: {tool: ["pay.*"]}, ask: operator, timeout: 15m}]\n'
GRANT = 'grants: [{who: "agent:clerk", may: ["crm.read"]}]\n'
AGENT = label({Cause("third_party", "web.fetch")})


class Ground:
    """A fleet with one grant and one gate, in a workspace that runs commit to."""

    def __init__(self, folder: Path, store: Store, *, extra: str = "") -> None:
        self.store = store
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = write(folder, GRANT + GATE + extra)
        self.now = 1

    @property
    def text(self) -> str:
        """What the fleet file says."""
        return self.file.read_text("utf-8")

    def person(self, name: str, *roles: str, may: str = "*") -> Speaker:
        """Make somebody with a token; from then on the home knows its people."""
        row = Principal(name, ",".join(roles), may, hash_token(new_token()), 1, "test")
        self.store.write(lambda tx: tx.principals.add(row))
        return Speaker(name, row, "cli")

    def open(self, speaker: Speaker | None = None, path: Path | None = None) -> Rightful:
        """Judge the fleet as whoever opens it would."""
        who = speaker or Speaker("local:anna", None, "cli")
        fleet, _ = wiring.load_fleet(path or self.file, environ={})
        return rightful.rightful(self.store, fleet, speaker=who, environ={}, at_us=self.tick())

    def start(self, speaker: Speaker | None = None, path: Path | None = None) -> Rightful:
        """Judge it, load its tools, and begin a run."""
        who = speaker or Speaker("local:anna", None, "cli")
        right = self.open(who, path)
        registry = Registry.load(list(right.fleet.tools), right.fleet.base)
        tools, _ = rightful.withheld(self.store, right, registry, speaker=who, at_us=self.tick())
        self.begin(right, tools)
        return right

    def begin(self, right: Rightful, *more: authority.Standing) -> int:
        """Write what the beginning of a run writes."""
        at, run = self.tick(), new_run_id()

        def work(tx: Tx) -> int:
            causes = {seq for made in (right.standing, *more) for seq in authority.record(tx, made, at_us=at)}
            data = {"fleet": right.fleet.name, "workdir": str(self.folder)}
            return tx.ledger.append(EventDraft("run.created", run, at, data, causes=tuple(sorted(causes))))

        return self.store.write(work)

    def agent_writes(self, path: str, text: str | None, *, asked_by: str = "local:anna", ends: bool = True) -> int:
        """Let a run's commit leave this at a path of the workspace (None: nothing is left); gives the call's last event."""
        return committed(self.store, self.folder, path, text, asked_by=asked_by, ends=ends, at=self.tick())

    def pending(self) -> list[AuthorityRow]:
        """Give what waits."""
        return list(self.store.read(lambda tx: tx.authority.list(states=("pending",))))

    def epoch(self) -> int:
        """Give the home's epoch."""
        return self.store.read(lambda tx: tx.authority.epoch())

    def tick(self) -> int:
        """Let time pass."""
        self.now += 1
        return self.now


@pytest.fixture
def grounds(tmp_path: Path) -> Iterator[Grounds]:
    """Make grounds below one folder, and close their homes afterwards."""
    stores: list[Store] = []

    def make(name: str, store: Store | None = None, *, extra: str = "") -> Ground:
        ground = Ground(tmp_path / name, store or MemoryStore(), extra=extra)
        stores.append(ground.store)
        return ground

    yield make
    for store in dict.fromkeys(stores):
        store.close()


def committed(
    store: Store,
    folder: Path,
    path: str,
    text: str | None,
    *,
    asked_by: str = "local:anna",
    ends: bool = True,
    at: int = 1,
) -> int:
    """Let a run's commit leave this at a path of a workspace (None: nothing is left); gives the call's last event."""
    run, file = new_run_id(), folder / path
    kind = {"op": "deleted"} if text is None else {"op": "modified", "sha256": _sha(text)}

    def call(tx: Tx) -> int:
        tx.runs.create(_run(run, asked_by, at, tx.blobs.put(b"{}")))
        tx.ledger.append(EventDraft("run.created", run, at, {"fleet": "office", "workdir": str(folder)}))
        began = tx.ledger.append(EventDraft("intent", run, at, {"tool": "files.write", "runs": "sandbox"}))
        blob = tx.blobs.put(orjson.dumps({"changes": [{"path": path, "kind": "file", **kind}], "requests": []}))
        seen = {"layer": "", "blob": blob, "file": None, "changes": 1, "requests": 0}
        data = {"tool": "files.write", "ok": True, "observed": seen, "label": AGENT.to_json()}
        return tx.ledger.append(EventDraft("finished", run, at, data, causes=(began,)))

    seq = store.write(call)
    begun = EventDraft("effects.releasing", run, at, {"workspace": str(folder), "gate": None})
    store.write(lambda tx: tx.ledger.append(begun))
    if text is None:
        file.unlink()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    if ends:
        ended = EventDraft("effects.committed", run, at, {"paths": None})
        store.write(lambda tx: tx.ledger.append(ended))
    return seq


def loaded(ground: Ground) -> Fleet:
    """Load the fleet as a command would: as its file says it, or as it was endorsed where a run broke that."""
    try:
        return Fleet.load(ground.file, environ={})
    except InvalidFleet as broken:
        return rightful.restored(ground.store, ground.file, broken, preset=None, environ={}, at_us=ground.tick())


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _run(run: str, asked_by: str, at: int, blob: str) -> RunRow:
    return RunRow(run, "office", None, "", blob, "", "", None, "done", at, blob, asked_by=asked_by)
