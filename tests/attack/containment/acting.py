"""What the clauses' tests share: small contracts, labels, and one call judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midwatch.containment.mandates import Balance, Line, Mandate, issue
from midwatch.containment.provenance import Seen, Trail
from midwatch.containment.reach import Reach, Right
from midwatch.containment.verdict import Action, Authority, Ruling, decide
from midwatch.records.decision import Allowed, Denied
from midwatch.records.effect import EffectClass
from midwatch.records.label import EVERYONE, Cause, Label, label
from midwatch.tools.contract import ArgContract, OutContract, ToolContract

ANNA = Cause("person", "anna")
WEB = Cause("third_party", "web.read")
ASKED = label({ANNA})
TAINTED = label({ANNA, WEB})
MAY = Allowed("grants[0]")


def contract(
    name: str = "mail.send",
    effect: EffectClass = "write",
    *,
    args: Mapping[str, ArgContract | None] | None = None,
    formats: Mapping[str, str] | None = None,
    outs: Mapping[str, tuple[OutContract, str | None]] | None = None,
    world: bool = False,
    observers: tuple[str, ...] = (),
) -> ToolContract:
    """Make a contract whose arguments may be of any shape; None declares an argument without its role."""
    args = {"to": ArgContract("to", "target")} if args is None else args
    kinds = formats or {}
    properties = {name: {"format": kinds[name]} if name in kinds else {} for name in args}
    fields = {path: {"format": kind} if kind else {} for path, (_, kind) in (outs or {}).items() if path}
    return ToolContract(
        name=name,
        version="1",
        description="of a test",
        input_schema={"type": "object", "properties": properties, "required": [*args], "additionalProperties": False},
        output_schema={"type": "object", "properties": fields, "additionalProperties": False},
        effect=effect,
        open_world=world,
        args=tuple(arg for arg in args.values() if arg is not None),
        outs=tuple(out for out, _ in (outs or {}).values()),
        observers=observers,
    )


def judged(
    tool: ToolContract,
    arguments: Mapping[str, Any],
    context: Label | None = ASKED,
    *,
    rights: tuple[Right, ...] = (),
    lines: tuple[Line, ...] = (),
    do: Allowed | Denied = MAY,
    asked: tuple[Cause, ...] = (ANNA,),
    trail: Trail | None = None,
    issuer: Label = ASKED,
    at_us: int = 0,
    expires_us: int | None = None,
    **more: Any,
) -> Ruling:
    """Judge one call of an agent that anna asked."""
    balance = issue(Balance(), Mandate("root", issuer, lines, expires_us=expires_us))
    assert isinstance(balance, Balance), balance
    if trail is not None:
        traced = trail.trace(tool, arguments)
        context, more = trail.context, {"labels": traced.labels, "origins": traced.origins, **more}
    authority = Authority(do, Reach(rights, requester="anna"), balance, ("root",), asked, at_us)
    return decide(Action("clerk", tool, arguments, context, **more), authority)


def trail(request: Any = "read it", readers: frozenset[str] | None = EVERYONE) -> Trail:
    """Begin what an agent has seen, with a request of anna's."""
    return Trail(request, label({ANNA}, readers), closed=readers)


def seen(tool: ToolContract, value: Any, of: Label = ASKED, **arguments: Any) -> Seen:
    """Make a result."""
    return Seen(tool, arguments, value, of)
