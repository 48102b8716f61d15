"""Calls tools of a fleet as the engine does, and holds what comes back to the envelope and to the contract."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import jsonschema_rs

from midwatch.config.fleet import Fleet
from midwatch.records.envelope import ENVELOPE_SCHEMA, Envelope
from midwatch.sandbox.process import ProcessSandbox
from midwatch.tools.arguments import check
from midwatch.tools.envelope import seal
from midwatch.tools.perform import PerformContext, Performed, perform
from midwatch.tools.registry import Registry

NOW_US = 1_790_000_000_000_000
SERVERS = Path(__file__).parent / "tools_servers"
SECRET = "hunter2-do-not-show"
_ENVELOPE = jsonschema_rs.validator_for(ENVELOPE_SCHEMA)
_FLEET = """\
midwatch: 1
fleet: sources
routes: {local: {provider: scripted, scenario: scenario.yaml}}
agents:
  ceo: {role: ceo, route: local, prompt: prompt.md}
  one: {role: specialist, route: local, prompt: prompt.md}
  two: {role: synthesis, route: local, prompt: prompt.md}
graph: {team: {ceo: ceo, specialists: [one], synthesis: two}}
sandbox: {backend: process, because: trusted tools}
"""


def fleet_at(folder: Path, blocks: str, environ: dict[str, str] | None = None) -> Fleet:
    """Load a fleet whose file has these blocks, too."""
    (folder / "scenario.yaml").write_text("scenario: 1\nrules:\n  - {reply: done}\n", encoding="utf-8")
    (folder / "prompt.md").write_text("act\n", encoding="utf-8")
    (folder / "fleet.yaml").write_text(_FLEET + blocks, encoding="utf-8")
    return Fleet.load(folder / "fleet.yaml", environ=environ or {})


@dataclass
class Caller:
    """One caller with a folder for blobs and a clock that stands."""

    registry: Registry
    workdir: Path
    blobs: dict[str, bytes] = field(default_factory=dict)
    performed: Performed | None = None

    def put(self, data: bytes) -> str:
        digest = f"{len(self.blobs):064x}"
        self.blobs[digest] = data
        return digest

    async def acall(self, name: str, arguments: dict[str, Any]) -> Envelope:
        """Call a tool; whatever comes of it fits the envelope's schema, and what it gives fits the tool's own."""
        tool = self.registry.get(name)
        checked = check(tool, arguments)
        if isinstance(checked, Envelope):
            found = checked
        else:
            limiter = anyio.CapacityLimiter(2)
            context = PerformContext("k" * 16, "0" * 32, "one", lambda: NOW_US, self.workdir, limiter)
            self.performed = await perform(tool, checked, context=context, sandbox=ProcessSandbox())
            found = seal(tool, checked, self.performed, effect_id="0" * 16, put_blob=self.put, ms=1)
        told = json.dumps(found.to_json())
        assert _ENVELOPE.is_valid(found.to_json()), found
        if found.ok and not found.truncated:
            assert tool.returns.fits(found.data), found.data
        assert SECRET not in told
        assert len(told) < tool.contract.max_bytes + 4096
        return found

    def call(self, name: str, arguments: dict[str, Any] | None = None) -> Envelope:
        """As `acall`, in a loop of its own."""
        return anyio.run(self.acall, name, arguments or {})

    def fails(self, name: str, arguments: dict[str, Any] | None = None) -> str:
        """Call a tool and give the code of its failure; empty where it did not fail."""
        error = self.call(name, arguments).error
        return "" if error is None else error.code
