"""Which part of a JSON value broke which rule, said without quoting the value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FieldError"]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule.

    Attributes:
        path: JSON pointer into the checked value, empty for the whole.
        rule: keyword of the schema that failed, such as `type`, `required`, `maxLength`.
        message: lowercase, short; made from the rule and the schema, never from the value (CONTAINMENT.md, clause 5).
    """

    path: str
    rule: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Give the JSON object."""
        return {"path": self.path, "rule": self.rule, "message": self.message}
