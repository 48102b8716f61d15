"""Defence: containment as one run of the benchmark meets it.

In:   a suite's policy file, the request, calls and their results. Out: a `Ruling` for each call.
May import: midwatch, the policy files. Must not know: ground truths, injected texts, names of cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from midwatch.containment import mandates
from midwatch.containment.mandates import Balance
from midwatch.containment.provenance import Seen, Trail
from midwatch.containment.reach import Reach, Right
from midwatch.containment.reading import Knob, Reader
from midwatch.containment.verdict import Action, Authority, Ruling, decide
from midwatch.records.decision import Allowed, Denied
from midwatch.records.label import Cause, join, label
from midwatch.tools.contract import ArgContract, OutContract, ToolContract
from midwatch.tools.shape import close

__all__ = ["Defence", "Policy", "load"]

FOLDER: Final = Path(__file__).parent / "policies"
USER: Final = Cause("person", "user")


@dataclass(frozen=True, slots=True)
class Policy:
    """One suite's policies, as its file says."""

    contracts: Mapping[str, ToolContract]
    reader: Reader
    rights: tuple[Right, ...]
    readers: frozenset[str]


def load(world: Any) -> Policy:
    """Read a suite's policy file against its tools; a tool that it does not name has no contract and is never allowed."""
    told = yaml.safe_load((FOLDER / f"{world.name}.yaml").read_text("utf-8"))
    contracts = {name: _contract(world, name, each or {}) for name, each in told["tools"].items()}
    knobs = {
        f"{world.name}.{tool}": {name: _knob(each) for name, each in args.items()}
        for tool, args in (told.get("knobs") or {}).items()
    }
    rights = tuple(
        Right(
            tuple(each["who"]),
            tuple(f"{world.name}.{may}" for may in each["may"]),
            frozenset(each["roles"]),
            by=f"policies[{place}]",
        )
        for place, each in enumerate(told.get("rights") or ())
    )
    return Policy(contracts, Reader(tuple(contracts.values()), knobs), rights, frozenset(told["readers"]))


class Defence:
    """One run."""

    def __init__(self, policy: Policy, request: str, *, reader: bool) -> None:
        self._policy = policy
        asked = label({USER}, policy.readers)
        self._trail = Trail(request, asked, closed=policy.readers)
        balance: Balance | mandates.Refused = Balance()
        if reader:
            balance = mandates.issue(Balance(), policy.reader.read(request, asked))
        if isinstance(balance, mandates.Refused):
            raise TypeError(balance.reason)
        self._authority = Authority(
            Denied("set for each call", "bench"), Reach(policy.rights, requester="user"), balance, ("root",), (USER,)
        )
        self._label = asked

    def contract(self, call: Any) -> ToolContract:
        """Give the contract of a call's tool."""
        return self._policy.contracts[call.tool]

    def effectful(self, call: Any) -> bool:
        """Say whether the call does something to the world, or reaches out into it."""
        contract = self.contract(call)
        return contract.effect not in {"pure", "read"} or (contract.open_world and bool(contract.args))

    def would(self, call: Any) -> Ruling:
        """Judge one call, and charge nothing."""
        contract = self._policy.contracts.get(call.tool)
        if contract is None:
            return Ruling(Denied("no such tool", "bench"), self._trail.context)
        args = {name: value for name, value in call.args.items() if value is not None}
        traced = self._trail.trace(contract, args)
        action = Action(
            "agent", contract, args, self._trail.context, traced.labels, traced.origins, referents=traced.labels
        )
        return decide(action, replace(self._authority, do=Allowed("grants[0]")))

    def decide(self, call: Any) -> Ruling:
        """Judge one call, and charge the mandate that covers it."""
        ruling = self.would(call)
        self._label = join(self._trail.context, ruling.label)
        if ruling.cover is not None:
            spent = mandates.spend(self._authority.balance, ruling.cover, at_us=0)
            if not isinstance(spent, Balance):
                return Ruling(Denied(spent.reason, "mandate"), ruling.label)
            self._authority = replace(self._authority, balance=spent)
        return ruling

    def observe(self, call: Any, result: Any, error: str | None) -> None:
        """Take in what a call gave."""
        contract = self._policy.contracts[call.tool]
        args = {name: value for name, value in call.args.items() if value is not None}
        self._trail.add(Seen(contract, args, result, self._label, error=error is not None))

    def denied(self) -> None:
        """Take in a denial: it tells the agent something, so its label joins the context."""
        self._trail.context = join(self._trail.context, self._label)


def _knob(told: Mapping[str, Any]) -> Knob:
    most = told.get("most")
    return Knob(
        tuple(told.get("delegate") or ()),
        bool(told.get("addressed")),
        None if most is None else Decimal(str(most)),
        tuple(told.get("values") or ()),
    )


def _contract(world: Any, name: str, told: Mapping[str, Any]) -> ToolContract:
    tool = world.tools[name]
    schema = close(tool.parameters.model_json_schema())
    args = []
    for argument, each in (told.get("args") or {}).items():
        role = each.get("role", "command")
        args.append(
            ArgContract(argument, role, each.get("deref"), interprets=bool(each.get("interprets", role != "content")))
        )
        if "kind" in each:
            schema["properties"][argument] = {**schema["properties"][argument], "format": each["kind"]}
    outs = told.get("outs") or {}
    made = tuple(
        OutContract(path, each.get("author", "third_party"), creates=bool(each.get("creates")))
        for path, each in outs.items()
    )
    is_open = told.get("world") == "open"
    return ToolContract(
        name=f"{world.name}.{name}",
        version="1",
        description=tool.description,
        input_schema=schema,
        output_schema=_output(outs),
        effect=told["effect"],
        open_world=is_open,
        args=tuple(args),
        outs=made,
        observers=tuple(told.get("observers") or (["everyone"] if is_open else [])),
    )


def _output(outs: Mapping[str, Any]) -> dict[str, Any]:
    """Make a schema of the declared fields; the benchmark's own results are not checked against it."""
    if "" in outs:
        return {"type": "string", **({"format": outs[""]["kind"]} if "kind" in outs[""] else {})}
    fields = {
        path: {"type": "string", **({"format": each["kind"]} if "kind" in each else {})} for path, each in outs.items()
    }
    return {"type": "object", "properties": fields, "additionalProperties": False}
