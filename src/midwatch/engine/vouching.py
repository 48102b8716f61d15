"""Vouching: whose rights a channel of a fleet carries is not for everybody to say who may start a run.

In:   a fleet, what the home kept of its channels, who starts. Out: nothing, or `Denied`.
May import: records, store (port), identity, `delivery`, errors. Must not know: HTTP, links.
Why: links sent to a channel speak for its principal, in every run of a fleet of that name. An operator with a file of one's own could
else lead them to oneself, and answer as an approver. So the first time, and whenever such a channel changes, its principal or an
admin starts the run; afterwards everybody may.
"""

from __future__ import annotations

import orjson

from midwatch.config.fleet import Fleet
from midwatch.engine.delivery import kept, setting_of
from midwatch.engine.identity import present
from midwatch.errors import Denied
from midwatch.gates.review import Speaker
from midwatch.store.port import Tx

__all__ = ["vouch"]


def vouch(tx: Tx, fleet: Fleet, speaker: Speaker) -> None:
    """Let a run start only if each channel that speaks for somebody is as it was, or that somebody or an admin starts it.

    Raises:
        Denied: as said; it names the channel.
    """
    if not tx.principals.list():
        return
    who = present(tx, speaker)
    for name, spec in fleet.channels.items():
        before = tx.watch.setting(setting_of(fleet.name, name))
        old = None if before is None else orjson.loads(before).get("principal")
        spoken_for = {person for person in (old, spec.principal) if person is not None}
        if before == kept(fleet, spec) or spoken_for <= {who.name} or who.has("admin"):
            continue
        named = ", ".join(f"`{person}`" for person in sorted(spoken_for))
        raise Denied(
            f"channel `{name}` of fleet `{fleet.name}` speaks for {named} and is new or changed here; "
            f"they or an admin must start a run with it once"
        )
