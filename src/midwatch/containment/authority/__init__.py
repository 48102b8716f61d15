"""Authority detectors: what an effect grants, and to whom, judged before it leaves its sandbox.

One module a family; `registry.judge` asks all of them. `docs/how-to/what-an-effect-grants.md` tells how to write one.
May import: the sandbox's facts and watch-list, containment's credentials. Must not know: gates, the engine, who decides.
"""

from midwatch.containment.authority.facts import (
    Command,
    Detector,
    File,
    Granted,
    Http,
    Inert,
    Judged,
    Sql,
    Unreadable,
    granted,
)
from midwatch.containment.authority.registry import BUILTIN, installed, judge

__all__ = [
    "BUILTIN",
    "Command",
    "Detector",
    "File",
    "Granted",
    "Http",
    "Inert",
    "Judged",
    "Sql",
    "Unreadable",
    "granted",
    "installed",
    "judge",
]
