"""Port: the one call that every model answers to, whatever stands behind it.

In:   a `ChatRequest` and its bounds. Out: a complete `ChatAnswer`, or `ModelFailure`; nothing in between.
May import: records. Must not know: providers, prices, budgets, who asks. Adapters: `openai`. What an adapter must hold
is `tests/contract/test_models_port.py`; a new one is added to its list of subjects.
Why one failure with `dispatched`: the caller reserved before and settles after. Whether the request may have been
charged is the one thing that it cannot find out by itself, so the adapter says it, and says yes when it is not sure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from midwatch.records.chat import ChatAnswer, ChatRequest

__all__ = ["ChatModel"]


class ChatModel(Protocol):
    """A model behind a route. Safe for many calls at once on one event loop; holds no state between calls."""

    async def chat(
        self,
        request: ChatRequest,
        *,
        max_output: int,
        deadline_us: int,
        on_delta: Callable[[str], None] | None = None,
        stop: Callable[[int], bool] | None = None,
    ) -> ChatAnswer:
        """Ask once. Never retries: each attempt is a reservation of its own.

        Args:
            request: its own `max_output` is ignored; the governor's stands beside it.
            max_output: tokens the answer may have, > 0; sent to the provider.
            deadline_us: microseconds UTC at which the call is given up.
            on_delta: called with each piece of text as it comes, in order; their sum is `content` under the native
                protocol, and the raw JSON under the constrained one. What it raises reaches the caller as it is.
            stop: called after each piece with a proven upper bound of the visible output tokens so far (their UTF-8
                bytes: usually three to five times the tokens). True cuts the stream.

        Raises:
            ModelFailure: for the engine, which settles the reservation in full when `dispatched`, gives it back when
                not, and tries again what is `retryable`. Cancellation passes through.
        """
        ...

    def close(self) -> None:
        """Let go of what is held. Safe to call twice; calls that are under way end as they end."""
        ...
