"""What the README promises about structure that is recovered from prose."""

from __future__ import annotations

REQUIREMENTS: dict[str, str] = {
    "RECOVERY-1": "Text becomes a value that fits its schema, or a refusal with a code from a closed list.",
    "RECOVERY-2": "An object that names one key twice is refused, also when the text must be repaired.",
    "RECOVERY-3": "An answer that was cut at its length limit is never repaired.",
    "RECOVERY-4": "A schema that points outside itself is refused before anything is fetched.",
    "RECOVERY-5": "What is said about a wrong value never repeats the value.",
    "RECOVERY-6": "Text of any size and any nesting is answered with bounded work.",
    "RECOVERY-7": "Files out of prose: all that a text names or none, each relative path once, none that leads out.",
    "RECOVERY-8": "On a corpus of at least 200 texts, half of them models' own, no value is silently wrong.",
}
