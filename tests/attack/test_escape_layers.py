"""Each layer of the bubblewrap backend is there for a reason: taken away, an attack gets out that was held before."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from midwatch.sandbox import bubblewrap, escape
from midwatch.sandbox import plan as planning
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.escape import Bait
from midwatch.sandbox.launcher import SECCOMP_FD

pytestmark = pytest.mark.req("ESCAPE-4")

LAYERS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "network": (
        ("--unshare-net",),
        {"loopback_tcp", "loopback_udp", "route_elsewhere", "interfaces", "abstract_socket"},
    ),
    "shared memory": (("--unshare-ipc",), {"shared_memory"}),
    "control group namespace": (("--unshare-cgroup-try",), {"control_group_path"}),
    "filter": (
        ("--seccomp", str(SECCOMP_FD)),
        {"without_filter", "key_rings", "io_uring", "user_faults", "watch_files", "trace_child"},
    ),
    "read-only root": (("--remount-ro", "/"), {"write_outside"}),
    "read-only devices": (("--remount-ro", "/dev"), {"write_outside"}),
    "first process": (("--as-pid-1",), {"memory_by_file", "first_process"}),
}


def opened(names: Sequence[str]) -> set[str]:
    """Try some attacks in a sandbox of the backend, as it is now."""

    async def tried() -> set[str]:
        backend = BubblewrapBackend()
        try:
            async with Bait() as bait:
                sandbox = await backend.start(bait.profile("one"))
                found = await escape._attacked(sandbox, bait, ("python3", "-I"), tuple(names))
                return {check.name for check in bait.judged(found) if not check.held}
        finally:
            await backend.close()

    return asyncio.run(tried())


def test_with_all_layers_they_are_held() -> None:
    """The attacks of the other test, and nothing taken away."""
    assert set() == opened(sorted({name for _, names in LAYERS.values() for name in names}))


@pytest.mark.parametrize("layer", LAYERS)
def test_without_a_layer_it_is_noticed(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of the plan less, and exactly what it holds is open."""
    words, names = LAYERS[layer]
    whole = planning.plan

    def weakened(*args: Any, **more: Any) -> Any:
        plan = whole(*args, **more)
        listed = plan.start["arguments"]
        at = next(place for place in range(len(listed)) if tuple(listed[place : place + len(words)]) == words)
        del listed[at : at + len(words)]
        return plan

    monkeypatch.setattr(bubblewrap, "plan", weakened)
    assert names == opened(sorted(names))
