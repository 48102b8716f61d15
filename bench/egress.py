"""Egress: what the only way out of a sandbox costs a request.

Loopback host, broker and bridge, each in a thread of one process, so the numbers hold all three and the client; `direct` is the same client
and host without them. Bar: a POST through bridge and broker, median of 10 ms.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.attack.egress_site import KEY, KEYED, Host, Site, rule, url

__all__ = ["main", "measure"]

BAR_MS = 10.0
_BODY = b'{"question": "' + b"x" * 1000 + b'"}'


def measure(count: int = 300) -> dict[str, float]:
    """Give the median of each way, in milliseconds: `direct`, `api` (the broker itself answers), `post` (to a host, with a secret)."""
    with tempfile.TemporaryDirectory() as folder, Host() as host:
        rules = (rule(host, methods=("POST",), paths=("/v1/*",), headers=KEYED),)
        with Site(Path(folder), rules, {"KEY": KEY}) as site:
            times = {
                "direct": _times(host.port, "/v1/ask", "POST", count),
                "api": _times(site.port, "/midwatch/health", "GET", count),
                "post": _times(site.port, url(host, "/v1/ask"), "POST", count, site),
            }
    return {name: statistics.median(each) * 1e3 for name, each in times.items()}


def _times(port: int, target: str, method: str, count: int, site: Site | None = None) -> list[float]:
    """Ask on one kept connection, as clients do."""
    times = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        for _ in range(count):
            began = time.perf_counter()
            client.request(method, target, _BODY if method == "POST" else None)
            response = client.getresponse()
            response.read()
            times.append(time.perf_counter() - began)
            assert response.status == 200, response.status
            if site is not None:
                site.requests()  # the attempts of one call are bounded
    return times


def main() -> None:
    """Print the table."""
    found = measure()
    for name, milliseconds in found.items():
        print(f"{name:<8} {milliseconds:>8.2f} ms, median")
    assert found["post"] <= BAR_MS, f"a POST takes {found['post']:.2f} ms, over {BAR_MS}"
