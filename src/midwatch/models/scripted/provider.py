"""Provider: the scripted provider as an object: a scenario, a bill and a server, for the length of a `with` block.

In:   a scenario, a bill file, a clock. Out: `base_url` for a client; the bill and the received requests for a test.
May import: siblings. Must not know: HTTP (that is `server`), the kernel.
Why apart from `server`: what a caller holds stays small, and the listening socket lives exactly as long as the block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from midwatch.models.scripted.bill import Bill, BillLine
from midwatch.models.scripted.faults import Fault
from midwatch.models.scripted.scenario import Scenario, load_scenario
from midwatch.models.scripted.server import CLOSE_S, Server

__all__ = ["ScriptedProvider"]


class ScriptedProvider:
    """The scripted provider, in a thread of its own, for as long as the `with` block lasts.

    Args:
        scenario: a scenario, or the file to read one from.
        bill: file to append the bill to; None keeps it in memory only.
        clock: the time in whole microseconds UTC.
        port: on 127.0.0.1; 0 takes a free one.
        keep_requests: keep every received body for `requests`; switch off where the provider lives long.

    Raises:
        InvalidScenario: the scenario cannot be used, or the bill file is not a bill. For the user, with every problem.
        OSError: the port is taken, or the bill file cannot be opened.
    """

    def __init__(
        self,
        scenario: Scenario | Path | str,
        *,
        bill: Path | None = None,
        clock: Callable[[], int],
        port: int = 0,
        keep_requests: bool = True,
    ) -> None:
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(Path(scenario))
        self._bill = Bill(bill, self.scenario.prices)
        try:
            self._server = Server(self.scenario, self._bill, clock=clock, port=port, keep_requests=keep_requests)
        except OSError:
            self._bill.close()
            raise
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="scripted-provider", daemon=True
        )

    def __enter__(self) -> Self:
        """Start to serve; requests are accepted when this returns."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving. What was billed stays readable."""
        self._server.stop()
        self._thread.join(CLOSE_S)
        self._bill.close()

    @property
    def url(self) -> str:
        """The root, where `/bill` and `/control/faults` are."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as `base_url`."""
        return f"{self.url}/v1"

    @property
    def bill(self) -> tuple[BillLine, ...]:
        """The bill so far."""
        return self._bill.lines

    @property
    def requests(self) -> tuple[dict[str, Any], ...]:
        """The bodies of all chat requests that were JSON, in the order in which they came in."""
        return tuple(self._server.requests)

    def inject(self, fault: Fault, *, agent: str | None = None) -> None:
        """Play `fault` on the next `fault.times` (default 1) requests of `agent` (None: of anybody)."""
        self._server.faults.inject(fault, agent)

    def wait_billed(self, count: int, *, seconds: float = 10.0) -> tuple[BillLine, ...]:
        """The bill as soon as it has `count` lines. Needed only where the client did not wait for its answer.

        Raises:
            TimeoutError: it had fewer after `seconds`.
        """
        return self._bill.wait(count, seconds)
