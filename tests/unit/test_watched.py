"""Files that grant later power, by every spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.sandbox.effects import shown
from midwatch.sandbox.watched import FOLDERS, NAMES, PLACES, SUFFIXES, hook_folder, why

TABLES = {"folder": FOLDERS, "name": NAMES, "suffix": SUFFIXES, "place": PLACES}


@pytest.mark.req("FILES-7")
@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/pre-commit", ".git/config", ".git", ".git/modules/lib/config", ".git/worktrees/w/gitdir", ".git/config.worktree",
        ".git/objects/info/alternates", ".git/info/attributes", ".git/rebase-merge/git-rebase-todo", "deep/down/.git/hooks/x", "lib/HEAD",
        ".gitattributes", ".gitmodules", ".githooks/pre-push", ".husky/pre-commit", ".pre-commit-config.yaml", "lefthook.yml",
        ".github/workflows/ci.yml", ".gitlab-ci.yml", "Jenkinsfile", ".circleci/config.yml", "azure-pipelines.yml", ".travis.yml",
        "bitbucket-pipelines.yml", ".drone.yml", ".woodpecker/a.yml", ".buildkite/pipeline.yml", "appveyor.yml", ".cirrus.yml",
        ".bashrc", ".zshenv", ".profile", "home/me/.bash_profile", "config.fish", ".envrc", ".env", ".env.prod", "mise.toml",
        "x.pth", "lib/site-packages/a.PTH", "sitecustomize.py", "usercustomize.py", "conftest.py", "tests/deep/conftest.py", "setup.py",
        "pyproject.toml", "tox.ini", "noxfile.py", "Makefile", "makefile.in", "rules.mk", "justfile", "Taskfile.yml", "package.json",
        "etc/cron.d/x", "crontab", "a/etc/systemd/system/x.service", "x.timer", "my.desktop", ".ssh/config", ".ssh/authorized_keys",
        "authorized_keys", "etc/sudoers", "etc/sudoers.d/me", "Dockerfile", "Dockerfile.dev", "app.dockerfile", "docker-compose.yml",
        "compose.override.yaml", ".devcontainer/devcontainer.json", ".vscode/tasks.json", ".vscode/settings.json", ".idea/workspace.xml",
        "x.code-workspace", ".vimrc", ".exrc", ".dir-locals.el", "AGENTS.md", "CLAUDE.md", "sub/CLAUDE.local.md", ".cursor/rules/a.mdc",
        ".cursorrules", ".mcp.json", ".claude/settings.json", ".github/copilot-instructions.md", "GEMINI.md", "fleet.yaml",
        ".npmrc", ".yarnrc.yml", "pip.conf", ".pypirc", ".netrc", ".cargo/config.toml", "build.rs", "Cargo.toml", "gradlew",
        ".eslintrc.js", "eslint.config.mjs", "webpack.config.js", ".gdbinit", "main.tf", "native.so", "x.pyc", "requirements-dev.txt",
    ],
)  # fmt: skip
def test_what_is_run_or_obeyed_by_habit_is_watched(path: str) -> None:
    """Each with a reason in words."""
    assert " " in (why(path) or "")


@pytest.mark.req("FILES-7")
@pytest.mark.parametrize(
    "path",
    ["main.py", "src/app/views.py", "README.md", "docs/a/b.md", "data/x.csv", "src/git/hooks.py", "hooks/use_state.ts",
     ".git/objects/ab/cdef",
     ".git/refs/heads/main", ".git/index", ".git/logs/HEAD", ".git/COMMIT_EDITMSG", "config/app.toml", "service.py",
     "tests/test_x.py", "é.txt",
     "src/build/x.c", "templates/head.html", "path/agents.py", "environment.py"],
)  # fmt: skip
def test_ordinary_work_is_not(path: str) -> None:
    """A list that holds everything would be read by nobody."""
    assert why(path) is None


@pytest.mark.req("FILES-7")
@pytest.mark.parametrize(
    "name",
    [
        ".GIT/hooks/x", ".Git/Config", "GIT~1/config", ".git /hooks/x", ".git./hooks/x", ".g\u200cit/hooks/x", "\ufeff.git/config",
        ".gi\u00adt/hooks/x", "\uff0egit/hooks/x", "\uff2dakefile", "MAKEFILE", "Ma\u212aefile", "claude.md", "Claude.MD", "CLAUDE.md ",
        ".pro\ufb01le", "\u2024git/hooks/x", ".\uff47\uff49\uff54/config", ".bashrc\u3164", ".ENVRC",
        ".github\u2060/workflows/x.yml", "Dockerfile.", "x.\uff50th", "\u017fetup.py", "pac\u212aage.json", ".\u017f\u017fh/config",
    ],
)  # fmt: skip
def test_no_spelling_evades(name: str) -> None:
    """Case, width, ligatures, long s, the Kelvin sign, letters that show nothing, blanks and dots at the end, names of FAT."""
    assert why(shown(name.encode())) is not None, name


@pytest.mark.req("FILES-7")
@given(st.sampled_from(sorted(NAMES)), st.data())
def test_any_mix_of_case_and_hidden_letters_is_the_name(name: str, data: st.DataObject) -> None:
    """Whatever letters are large, and wherever what shows nothing is put."""
    letters = [data.draw(st.sampled_from([char, char.upper(), char + "\u200d", "\u2063" + char])) for char in name]
    assert why(f"some/folder/{shown(''.join(letters).encode())}") is not None


@pytest.mark.req("FILES-7")
def test_the_folder_itself_is_watched() -> None:
    """Replacing or deleting a watched folder, or putting a link there, is as good as changing what it holds."""
    assert None not in [why(name) for name in (".git", ".github", ".vscode", "a/.ssh", ".git/hooks")]


@pytest.mark.req("FILES-7")
@pytest.mark.parametrize("table", TABLES)
def test_the_lists_are_as_they_are_compared(table: str) -> None:
    """An entry that is not in its own plain form would never be found; each has a reason."""
    assert [] == [
        name for name, reason in TABLES[table].items() if name != name.casefold().strip() or " " not in reason
    ]


@pytest.mark.req("FILES-7")
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("[core]\n\thooksPath = tools/hooks\n", "tools/hooks"),
        ('[CORE]\nHOOKSPATH="a b"\n', "a b"),
        ("[core] hooksPath = x", "x"),
        ("[user]\nhooksPath = x\n[core]\nbare = false\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_folder_of_hooks_is_read_from_the_settings(config: str, expected: str | None) -> None:
    """As git reads them."""
    assert expected == hook_folder(config)
