"""A home and a workspace that would show each other are refused before anything runs."""

from pathlib import Path

import pytest

from midwatch.config.apart import not_apart
from midwatch.config.fleet import Fleet

FLEET = """\
midwatch: 1
fleet: plain
routes: {local: {provider: scripted, scenario: scenario.yaml}}
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  hand: {role: specialist, route: local, prompt_text: work, tools: [host.disks]}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: [hand], synthesis: pen}}
budgets: {run: {cost: "$1"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of a fleet, with files to mount."""
    base = tmp_path / "fleet"
    (base / "data").mkdir(parents=True)
    (base / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    return base


def _load(folder: Path, sandbox: str) -> Fleet:
    return Fleet.from_text(f"{FLEET}{sandbox}\n", base=folder, environ={})


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize(
    ("home", "workspace", "codes"),
    [
        ("state", "work", []),
        ("work/state", "work", ["home-in-workspace"]),
        ("state", "state/layers", ["home-in-workspace"]),
        ("state", "link", ["home-in-workspace"]),
        ("fleet/data/state", "work", ["mount-reach"]),
        ("fleet/data", "work", ["mount-reach"]),
    ],
)
def test_no_sandbox_sees_the_home_that_a_command_names(
    folder: Path, tmp_path: Path, home: str, workspace: str, codes: list[str]
) -> None:
    """The file does not know `--home` and `--workdir`; a run does, and is refused. Without isolation there is nothing to hold."""
    (tmp_path / "state" / "layers").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    state, work = tmp_path / home, tmp_path / workspace
    fleet = _load(folder, "sandbox: {mounts: [{from: data, at: /d}]}")
    assert codes == [found.code for found in not_apart(fleet, home=state, workspace=work)]
    assert () == not_apart(_load(folder, "sandbox: {backend: process, because: x}"), home=state, workspace=work)
