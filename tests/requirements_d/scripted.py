"""What the scripted provider promises."""

from __future__ import annotations

__all__ = ["REQUIREMENTS"]

REQUIREMENTS: dict[str, str] = {
    "SCRIPTED-1": "A scenario is refused as a whole, with every problem and its line, unknown and repeated keys too.",
    "SCRIPTED-2": "Answers are computed from the tool results in the request; the same request gives the same bytes.",
    "SCRIPTED-3": "What cannot be answered (no rule, an expression without a value, a tool not offered, a broken "
    "schema) is an HTTP 500 that names its rule, never a made-up answer, and costs nothing.",
    "SCRIPTED-4": "The real SDKs get plain, streamed, tool-calling and schema-bound answers as from the real API.",
    "SCRIPTED-5": "The request is honoured: token caps cut, usage is streamed only when asked for, "
    "protocol breaks are 4xx.",
    "SCRIPTED-6": "Every fault of the closed list reaches the client as described, as often as the scenario says.",
    "SCRIPTED-7": "Each dispatched request is exactly one bill line in whole micro-dollars, with 32 at once too.",
    "SCRIPTED-8": "A complete answer stands on the bill on disk whatever is killed afterwards; an unwritable bill "
    "completes no answer.",
    "SCRIPTED-9": "A cut stream, or one whose client left, bills the whole prompt and what was generated up to then.",
    "SCRIPTED-10": "As a process it says where it listens in one line of JSON and ends on SIGTERM or a closed stdin.",
}
"""Id -> the promise, in one sentence."""
