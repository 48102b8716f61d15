"""The scripted provider: a real HTTP server that speaks the OpenAI chat API from a scenario file, and keeps a bill.

In:   a scenario (`scenario.py`; its grammar is `docs/reference/scenario.md`) and, over HTTP on loopback, chat
completions.
Out:  answers computed from the tool results it is sent, streamed or whole; one line of bill for each dispatched
request.
May import: `records`, `errors`, the standard library, PyYAML, cel-expr-python, orjson, jsonschema-rs.
Must not know: the kernel. It is on the other side of the wire, as a provider is.
Why a server and not a fake model object: without a key `midwatch run` still goes through the real client, the real
stream, real time-outs and a bill that somebody else writes, so that caps are tested against what was charged and not
against what the kernel believes.
"""

from __future__ import annotations

from midwatch.models.scripted.bill import BillLine
from midwatch.models.scripted.faults import Fault
from midwatch.models.scripted.provider import ScriptedProvider
from midwatch.models.scripted.scenario import Scenario, load_scenario, parse_scenario

__all__ = ["BillLine", "Fault", "Scenario", "ScriptedProvider", "load_scenario", "parse_scenario"]
