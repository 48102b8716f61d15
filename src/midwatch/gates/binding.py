"""Binding: one digest over everything that makes an action the one a person saw.

In:   tool digest, argument digest, agent, run, policy, expiry, nonce. Out: hex SHA-256.
May import: the standard library and orjson. Must not know: where gates are kept.
Why recomputed when the action runs: whatever changed since the yes makes another action (DESIGN.md, promise 6).
"""

from __future__ import annotations

import hashlib
import secrets

import orjson

__all__ = ["bind", "new_nonce"]


def new_nonce() -> str:
    """Make 32 random hex digits, so that two askings of the same action are two gates."""
    return secrets.token_hex(16)


def bind(
    *,
    tool: str,
    tool_digest: str,
    args_digest: str,
    agent: str,
    run: str,
    policy_digest: str,
    expires_us: int,
    nonce: str,
) -> str:
    """Digest the action; `args_digest` is over RFC 8785 bytes, so equal arguments have one form.

    Source: RFC 8785 (JSON Canonicalization Scheme) for the arguments; sorted-key JSON for the frame, which holds text and
    one integer only.
    """
    frame = {
        "agent": agent,
        "args": args_digest,
        "expires_us": expires_us,
        "nonce": nonce,
        "policy": policy_digest,
        "run": run,
        "tool": tool,
        "tool_digest": tool_digest,
    }
    return hashlib.sha256(orjson.dumps(frame, option=orjson.OPT_SORT_KEYS)).hexdigest()
