"""The sandbox suite as a third party has it: copied, with a class of three lines; and it finds backends that do not keep the port."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

THEIRS = '''
import os
from dataclasses import replace

from midwatch.sandbox import Layer, SandboxLimits, SandboxProfile
from midwatch.sandbox.bubblewrap import BubblewrapBackend

from .sandbox_suite import SandboxSuite


class Around:
    """A good sandbox, but for what a class below says of it."""

    def __init__(self, box):
        self._box = box

    def __getattr__(self, name):
        return getattr(self._box, name)


class Backend(BubblewrapBackend):
    box = Around

    async def start(self, profile, layers=(), *, egress=None):
        return self.box(await super().start(profile, layers, egress=egress))


class Runs(Around):
    async def pause(self):
        pass

class Survives(Around):
    async def kill(self):
        pass

class Leaks(Around):
    async def run(self, argv, *, env=None, **how):
        return await self._box.run(argv, env={**os.environ, **(env or {})}, **how)

class Forgets(Around):
    async def effects(self, into):
        layer = await self._box.effects(into)
        return replace(layer, changes=tuple(change for change in layer.changes if change.op != "deleted"))

class Deaf(Around):
    async def run(self, argv, *, stdin=b"", **how):
        return await self._box.run(argv, **how)

class Empty(Backend):
    async def start(self, profile, layers=(), *, egress=None):
        return await super().start(profile, (), egress=egress)

class Unbounded(Backend):
    async def start(self, profile, layers=(), *, egress=None):
        whole = SandboxProfile(profile.workspace, code=profile.code, env=profile.env, observe=profile.observe)
        return await super().start(whole, layers, egress=egress)


class TestMine(SandboxSuite):
    factory = "midwatch.sandbox.bubblewrap:BubblewrapBackend"
'''

LIES = {
    "Runs": "test_pause_stops_and_resume_goes_on",
    "Survives": "test_kill_ends_all_of_it",
    "Leaks": "test_the_environment_is_an_allow_list",
    "Forgets": "test_effects_are_exact",
    "Deaf": "test_a_program_has_its_streams_and_its_end",
    "Empty": "test_layers_bring_a_workspace_back",
    "Unbounded": "test_what_is_bounded_cannot_be_had",
}
"""By what is wrong with a backend: the test that must say so."""


def ran(folder: Path, *tests: str) -> dict[str, str]:
    """Run the tests in a folder of somebody else's; gives each one's outcome."""
    package = folder / "their_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("sandbox_suite.py", "sandbox_ground.py"):
        shutil.copy(HERE / name, package)
    lying = "\n".join(
        f"class Test{lie}(SandboxSuite):\n"
        "    factory, seconds = 'midwatch.sandbox.bubblewrap:BubblewrapBackend', 2.0\n"
        f"    @pytest.fixture\n    def backend(self):\n        made = {lie if lie in ('Empty', 'Unbounded') else 'Backend'}()\n"
        f"        made.box = {lie if lie not in ('Empty', 'Unbounded') else 'Around'}\n        return made\n"
        for lie in LIES
    )
    (package / "test_mine.py").write_text(f"import pytest\n{THEIRS}\n{lying}", encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    told = re.findall(r"::(Test\w+::\w+)\S* (PASSED|FAILED|ERROR)", done.stdout)
    found = dict(sorted(told, key=lambda pair: pair[1] == "PASSED", reverse=True))  # one bad case is a bad test
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.req("PORT-10")
def test_the_suite_is_of_use_to_others(tmp_path: Path) -> None:
    """Two copied files and a class of two lines are enough, with no setting and no fixture of this project."""
    file = "their_tests/test_mine.py::TestMine::"
    tests = ("test_it_says_what_it_is", "test_effects_are_exact", "test_nothing_is_left_after_close")
    assert {f"TestMine::{name}": "PASSED" for name in tests} == ran(tmp_path, *(file + name for name in tests))


@pytest.mark.req("PORT-10")
def test_a_backend_that_does_not_keep_the_port_is_found(tmp_path: Path) -> None:
    """One that does not pause, does not kill, shows the environment, forgets, drops input, starts empty or bounds nothing."""
    asked = [f"their_tests/test_mine.py::Test{lie}::{name}" for lie, name in LIES.items()]
    assert {f"Test{lie}::{name}": "FAILED" for lie, name in LIES.items()} == ran(tmp_path, *asked)
