"""Fixtures of the clauses' tests."""

from __future__ import annotations

from tests.attack.containment.own import grounds

__all__ = ["grounds"]
