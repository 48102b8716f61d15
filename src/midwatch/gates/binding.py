"""Binding: one digest over everything that makes an action the one a person saw.

In:   tool digest, argument digest, agent, run, policy, precondition, expiry, nonce. Out: hex SHA-256.
May import: the standard library and orjson. Must not know: where gates are kept.
Why recomputed when the action runs: whatever changed since the yes makes another action (DESIGN.md, promise 6).
"""

from __future__ import annotations

import hashlib
import secrets

import orjson

__all__ = ["action_digest", "bind", "bind_first", "new_nonce"]


def new_nonce() -> str:
    """Make 32 random hex digits, so that two askings of the same action are two gates."""
    return secrets.token_hex(16)


def action_digest(*, tool: str, tool_digest: str, code: str, args_digest: str, agent: str, policy_digest: str) -> str:
    """Digest what is the same for every asking of one action: the key of a batch. It approves nothing by itself."""
    return _digest(
        {
            "agent": agent,
            "args": args_digest,
            "code": code,
            "policy": policy_digest,
            "tool": tool,
            "tool_digest": tool_digest,
        }
    )


def bind(*, action: str, run: str, precondition: str, expires_us: int, nonce: str) -> str:
    """Digest one asking; `action` holds tool, arguments (RFC 8785 bytes, so that equal ones have one form), agent and policy.

    Source: RFC 8785 (JSON Canonicalization Scheme) for the arguments; sorted-key JSON for the frame, which holds text and
    one integer only.
    """
    return _digest(
        {"action": action, "expires_us": expires_us, "nonce": nonce, "precondition": precondition, "run": run}
    )


def bind_first(
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
    """Digest one asking as the first version did: a gate that it opened stays usable after an update."""
    return _digest(
        {
            "agent": agent,
            "args": args_digest,
            "expires_us": expires_us,
            "nonce": nonce,
            "policy": policy_digest,
            "run": run,
            "tool": tool,
            "tool_digest": tool_digest,
        }
    )


def _digest(frame: dict[str, str | int]) -> str:
    return hashlib.sha256(orjson.dumps(frame, option=orjson.OPT_SORT_KEYS)).hexdigest()
