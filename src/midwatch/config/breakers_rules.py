"""Rules of breakers: what of `breakers:` names nothing, or cannot be meant.

In:   the draft. Out: problems. May import: `draft`; errors. Must not know: when a breaker opens.
"""

from __future__ import annotations

from collections.abc import Iterator

from midwatch.config.draft import Draft
from midwatch.errors import Problem

__all__ = ["check_breakers"]


def check_breakers(draft: Draft) -> Iterator[Problem]:
    """Refuse what names nothing: a breaker that was meant for an agent or a route and holds for none would pass for one."""
    file = draft.file.breakers
    if file is None:
        return
    for key, blocks, there in (("routes", file.routes, draft.file.routes), ("agents", file.agents, draft.file.agents)):
        for name in blocks:
            if name not in there:
                message = f"`breakers.{key}` names `{name}`, which `{key}` does not declare"
                yield draft.problem(("breakers", key, name), message, "unknown-name")
    for place, block in [((), file), *((("tools", name), block) for name, block in file.tools.items())]:
        if block.cooldown is not None and block.cooldown < 1:
            yield draft.problem(
                ("breakers", *place, "cooldown"), "`cooldown` must be more than nothing", "out-of-range"
            )
