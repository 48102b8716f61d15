"""The keyword floor against two corpora that were written apart from its rules (`tests/attack/corpus/README.md`).

Each line is a call of a tool that writes and declares the roles of its arguments; no rule of a fleet applies, so only the floor can ask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from midwatch.config.fleet import Fleet
from midwatch.config.specs import ReviewSpec
from midwatch.gates import rules
from midwatch.records.decision import Ask
from midwatch.tools.contract import ArgContract, ToolContract
from midwatch.tools.shape import KERNEL_ARGUMENTS

CORPUS = Path(__file__).parent / "corpus"
FLEET = cast("Fleet", SimpleNamespace(gates=(), review=ReviewSpec(), environment=""))
OBJECT = {"type": "object", "additionalProperties": False}


def read(name: str) -> list[dict[str, Any]]:
    """Read one corpus."""
    return [json.loads(line) for line in (CORPUS / name).read_text(encoding="utf-8").splitlines() if line]


def gated(line: Mapping[str, Any]) -> bool:
    """Say whether the floor asks about this call."""
    # A corpus knows nothing of the kernel: two names that belong to it get another spelling.
    names = {f"{name}_" if name in KERNEL_ARGUMENTS else name: value for name, value in line["arguments"].items()}
    contract = ToolContract(
        name=line["tool"],
        version="1",
        description="A tool of the corpus.",
        input_schema={**OBJECT, "properties": {name: {} for name in names}},
        output_schema=OBJECT,
        effect="write",
        args=tuple(ArgContract(name, line["roles"].get(name.rstrip("_"), "command")) for name in names),
    )
    verdict = rules.decide(FLEET, contract=contract, agent="worker", arguments=names, at_us=0)
    return isinstance(verdict, Ask)


EVASIONS = read("evasion.jsonl")


@pytest.mark.req("GATES-1")
@pytest.mark.parametrize("line", EVASIONS, ids=[f"{line['id']}-{line['form']}" for line in EVASIONS])
def test_every_disguise_is_read(line: dict[str, Any]) -> None:
    """The call waits for a person."""
    assert gated(line), line["why"]


@pytest.mark.req("GATES-2")
def test_ordinary_work_does_not_wait() -> None:
    """At most two in a hundred calls of the benign corpus are asked about, near misses all of them."""
    lines = read("benign.jsonl")
    asked = [line["id"] for line in lines if gated(line)]
    assert len(lines) >= 150
    assert len(asked) <= len(lines) * 0.02, asked


def test_the_corpora_are_large_enough() -> None:
    """A hundred and fifty forms of evasion at least, each line its own."""
    assert len(EVASIONS) >= 150
    assert len({json.dumps(line["arguments"], sort_keys=True) for line in EVASIONS}) == len(EVASIONS)
