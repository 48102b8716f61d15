"""The lock file and the set-up: exact versions, no places, and an environment that is repaired when it must be."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

# An interpreter that writes down what it is asked, and makes an environment whose interpreter is itself.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"{log}"
case "$*" in
    "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    -VV) echo "Python 3.13.0 (fake)" ;;
esac
"""
SHIM = "#!/bin/sh\necho 'command found, version not installed' >&2\nexit 127\n"


class Checkout:
    """A checkout with fake interpreters, to run the real set-up script in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "checkout", folder / "log"
        self.bin = folder / "bin"
        (self.folder / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "scripts" / "setup.sh", self.folder / "scripts" / "setup.sh")
        for name in ("pyproject.toml", "requirements.lock"):
            (self.folder / name).write_text(name, encoding="utf-8")
        self.program("made-up-shim", SHIM)
        self.program("made-up-python", FAKE_PYTHON.format(log=self.log))

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text, encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def without_git(self, user: int) -> str:
        """Make a PATH of what a minimal system has: neither git nor bubblewrap, and an `apt-get` that brings them."""
        minimal = self.folder.parent / "minimal"
        minimal.mkdir()
        for name in ("cat", "chmod", "cp", "cut", "dirname", "mkdir", "sh", "sha256sum"):
            (minimal / name).symlink_to(str(shutil.which(name)))
        self.program("id", f"#!/bin/sh\necho {user}\n")
        self.program(
            "apt-get",
            f'#!/bin/sh\necho "-m apt-get $*" >>"{self.log}"\n'
            f'case "$*" in "install "*" git bubblewrap") cp "$0" "{self.bin}/git"; cp "$0" "{self.bin}/bwrap" ;; esac\n',
        )
        return f"{self.bin}:{minimal}"

    def setup(self, python: str = "made-up-shim made-up-python", path: str | None = None) -> tuple[int, list[str], str]:
        """Run the script; return its exit code, what it asked of the interpreters this time, and its messages."""
        self.log.write_text("", encoding="utf-8")
        done = subprocess.run(
            ["/bin/sh", str(self.folder / "scripts" / "setup.sh")],
            env={"PATH": path or f"{self.bin}:/usr/bin:/bin", "PYTHON": python},
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        asked = [line for line in self.log.read_text(encoding="utf-8").splitlines() if line.startswith("-m ")]
        return done.returncode, asked, done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Give a fresh checkout."""
    return Checkout(tmp_path)


def _made(asked: list[str]) -> bool:
    return any(line.startswith("-m venv") for line in asked)


def _installed(asked: list[str]) -> bool:
    return any("--editable .[openai,dev]" in line and "--constraint requirements.lock" in line for line in asked)


@pytest.mark.req("PROJECT-8")
def test_a_shim_that_cannot_run_is_passed_over(checkout: Checkout) -> None:
    """The first name on PATH is not taken on trust: the next interpreter makes the environment."""
    code, asked, messages = checkout.setup()
    assert 0 == code, messages
    assert _made(asked)
    assert _installed(asked)


@pytest.mark.req("PROJECT-8")
def test_a_ready_environment_is_left_alone(checkout: Checkout) -> None:
    """The second time nothing is installed, nothing is asked of pip, and nothing is said."""
    checkout.setup()
    assert (0, [], "") == checkout.setup()


@pytest.mark.req("PROJECT-8")
@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_a_changed_input_installs_again(name: str, checkout: Checkout) -> None:
    """A new lock or a new dependency reaches the environment, which is kept."""
    checkout.setup()
    (checkout.folder / name).write_text("changed", encoding="utf-8")
    code, asked, messages = checkout.setup()
    assert 0 == code, messages
    assert _installed(asked)
    assert not _made(asked)


@pytest.mark.req("PROJECT-8")
def test_an_environment_without_a_stamp_is_kept_and_completed(checkout: Checkout) -> None:
    """Somebody's own environment at the same place is used, not thrown away."""
    checkout.setup()
    (checkout.folder / ".venv" / ".midwatch-installed").unlink()
    (checkout.folder / ".venv" / "mine").write_text("kept", encoding="utf-8")
    code, asked, messages = checkout.setup()
    assert 0 == code, messages
    assert _installed(asked)
    assert (checkout.folder / ".venv" / "mine").exists()


@pytest.mark.req("PROJECT-8")
def test_an_environment_that_cannot_run_is_made_anew(checkout: Checkout) -> None:
    """An interpreter that was removed or upgraded away leaves a broken environment; it is replaced and that is said."""
    checkout.setup()
    (checkout.folder / ".venv" / "bin" / "python").write_text(SHIM, encoding="utf-8")
    code, asked, messages = checkout.setup()
    assert 0 == code, messages
    assert _made(asked)
    assert "cannot be used" in messages


@pytest.mark.req("PROJECT-8")
def test_a_failed_installation_leaves_no_stamp(checkout: Checkout) -> None:
    """What was not installed is tried again: a broken download does not count as ready."""
    failing = FAKE_PYTHON.format(log=checkout.log).replace("esac", "    *--editable*) exit 1 ;;\nesac")
    checkout.program("made-up-python", failing)
    code, _, _ = checkout.setup()
    assert 0 != code
    code, asked, _ = checkout.setup()
    assert 0 != code
    assert _installed(asked)


@pytest.mark.req("PROJECT-8")
def test_a_named_interpreter_that_does_not_serve_is_refused_by_name(checkout: Checkout) -> None:
    """Whoever chose an interpreter is told about that one; no other is taken, nothing is installed instead."""
    code, asked, messages = checkout.setup("made-up-shim")
    assert 1 == code
    assert [] == asked
    assert "`PYTHON=made-up-shim` is not a Python >= 3.11" in messages


@pytest.mark.req("PROJECT-8")
def test_a_missing_program_is_named_to_who_may_not_install_it(checkout: Checkout) -> None:
    """An ordinary user gets the exact command, and nothing is installed."""
    code, asked, messages = checkout.setup(path=checkout.without_git(user=1000))
    assert (1, []) == (code, asked)
    assert "run `sudo apt-get install git bubblewrap`" in messages


@pytest.mark.req("PROJECT-8")
def test_a_missing_program_is_installed_by_root(checkout: Checkout) -> None:
    """In a minimal container set-up brings what it needs, without a question, and goes on."""
    code, asked, messages = checkout.setup(path=checkout.without_git(user=0))
    assert 0 == code, messages
    assert "-m apt-get install -y -qq --no-install-recommends git bubblewrap" in asked
    assert _installed(asked)


def _locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.req("PROJECT-7")
def test_the_lock_names_versions_and_no_place() -> None:
    """Every line is `name==version`, once: no address, no index, no path."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [] == [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert len(pins) == len({canonicalize_name(line.split("==")[0]) for line in pins})
    assert "://" not in "\n".join(lines)


@pytest.mark.req("PROJECT-7")
def test_the_lock_satisfies_what_the_project_asks() -> None:
    """Each dependency of the base and of the extras that set-up installs is locked, within its bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(line) for line in [*project["dependencies"], *extras["openai"], *extras["dev"]]]
    locked = {canonicalize_name(name): Version(number) for name, number in _locked().items()}
    unmet = [
        str(need) for need in asked if locked.get(canonicalize_name(need.name), Version("0")) not in need.specifier
    ]
    assert [] == unmet


@pytest.mark.req("PROJECT-7")
@pytest.mark.parametrize("name", ["langgraph", "langgraph-checkpoint", "langchain-core", "pydantic", "SQLAlchemy"])
def test_the_tests_run_on_the_locked_versions(name: str) -> None:
    """What was tested is what the lock names."""
    assert _locked()[name] == version(name)
