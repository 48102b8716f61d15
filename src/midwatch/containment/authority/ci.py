"""Continuous integration: what runs with the project's secrets, and with which rights.

In:   a file effect. Out: findings.
May import: facts, text, tree, places. Must not know: which secrets there are.
Every step that is new runs with what the job has; a permission, a trigger or a secret that is new gives more of it. What is only told to
people (names, descriptions) gives nobody anything. What goes takes power away, except where it held something back.
Source: workflow syntax of GitHub Actions, GitLab CI/CD YAML, CircleCI 2.1, Azure Pipelines, Buildkite, Woodpecker; Jenkinsfile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from midwatch.containment.authority.facts import Effect, File, Finding, Power, Unreadable
from midwatch.containment.authority.places import CI, family, last, within
from midwatch.containment.authority.text import Lines, judge_lines, script
from midwatch.containment.authority.tree import Rules, json_tree, judge_tree, toml_tree, yaml_tree, yes

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "ci"
_WHO: Final = "what it runs"
_EVERYBODY: Final = "anybody who can open a request or an issue"
_PROSE: Final = (".md", ".txt", ".png", ".svg", ".jpg")


def _power(what: str, why: str, who: str = _WHO) -> Power:
    return what, who, why


_GAINS: Final = (
    (r"(?:.*\.)?permissions(?:\..*)?", _power("act on the repository with more rights", "it sets PLACE")),
    (
        r"(?:.*\.)?(?:secrets|credentials|contexts?|secret_files|id_tokens)(?:[.\[].*)?",
        _power("use secrets of the project", "it sets PLACE"),
    ),
    (
        r"(?:.*\.)?(?:on|trigger|triggers|pr|schedules?|cron|when|rules|only|except|events?|branches|filters)(?:[.\[].*)?",
        _power("set it off", "it sets PLACE", _EVERYBODY),
    ),
    (r"(?:.*\.)?if", _power("run where it did not", "it sets PLACE")),
    (
        r"(?:.*\.)?(?:run|script|before_script|after_script|command|commands|bash|powershell|pwsh|pre|post)(?:[.\[].*)?",
        _power("be run with the project's secrets", "it sets PLACE"),
    ),
    (
        r"(?:.*\.)?(?:uses|include|extends|orbs|template|plugins|image|container|services|resources|ref|repository)(?:[.\[].*)?",
        _power(
            "have code of another place run with the project's secrets", "it sets PLACE", "whoever controls that place"
        ),
    ),
    (
        r"(?:.*\.)?(?:runs-on|pool|tags|agents|runner|runs_on)(?:[.\[].*)?",
        _power("run on another machine", "it sets PLACE"),
    ),
    (
        r"(?:.*\.)?(?:environment|deployment|deploy|release|pages|publish)(?:[.\[].*)?",
        _power("deploy, or publish", "it sets PLACE"),
    ),
    (r"(?:.*\.)?privileged", _power("have the machine that runs it", "it sets PLACE")),
)
_LOSSES: Final = (
    (
        r"(?:.*\.)?permissions(?:\..*)?",
        _power("act with the rights that are usual, which may be all", "PLACE is no longer set"),
    ),
    (
        (
            r"(?:.*\.)?(?:if|when|rules|only|except|environment|branches(?:-ignore)?|"
            r"paths(?:-ignore)?|tags(?:-ignore)?|protected|allow_failure|manual)(?:[.\[].*)?"
        ),
        _power("run where it was held back", "PLACE is no longer set"),
    ),
    (
        r"(?:.*\.)?with\.(?:persist-credentials|ref|.*verify.*|.*check.*)",
        _power("keep, or skip, what a step was told to drop or check", "PLACE is no longer set"),
    ),
)
_INERT: Final = (
    r"(?:.*\.)?(?:name|run-name|display_?name|description|label|title)",
    r"(?:.*\.)?(?:timeout-minutes|timeout|timeoutinminutes|retry(?:\..*)?|retention-days|fail-fast|max-parallel|interruptible)",
    r"(?:.*\.)?concurrency(?:\..*)?",
    r"(?:version|coverage(?:\..*)?|codecov\.(?:require_ci_to_pass|notify\..*)|comment(?:[.\[].*)?)",
)
_RULES: Final = Rules(
    _GAINS,
    _INERT,
    _power("run, or be run, in another way with the project's secrets", "it sets PLACE"),
    _LOSSES,
    lambda place, value: (bool(re.fullmatch(r"(?:.*\.)?permissions(?:\..*)?", place)) and value.strip('"') in ("none", ""))
    or (bool(re.fullmatch(r"(?:.*\.)?(?:privileged|with\.persist-credentials)", place)) and not yes(value)),
)  # fmt: skip


def concerns(effect: Effect) -> bool:
    """Say whether this is about continuous integration."""
    if not isinstance(effect, File) or family(effect.change.path) != CI:
        return False
    name = last(effect.change.path)
    return name not in ("codeowners", "copilot-instructions.md") and not name.endswith(
        (".instructions.md", ".prompt.md", ".agent.md", ".chatmode.md")
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    path, name = effect.change.path, last(effect.change.path)
    if name.endswith((".yml", ".yaml")):
        yield from judge_tree(effect, NAME, yaml_tree, _RULES)
    elif name.endswith((".json", ".json5", ".renovaterc", ".releaserc")):
        yield from judge_tree(effect, NAME, json_tree, _RULES)
    elif name.endswith(".toml"):
        yield from judge_tree(effect, NAME, toml_tree, _RULES)
    elif name.endswith(_PROSE) and within(path, ".github", ".gitlab", ".gitea", ".forgejo"):
        yield from judge_lines(effect, NAME, Lines(lambda text: text.split("\n"), lambda _: None))
    elif "jenkinsfile" in name or name.endswith((".groovy", ".star", ".sh")) or name == "earthfile":
        yield from judge_lines(
            effect, NAME, Lines(_groovy, lambda _: _power("be run with the project's secrets", "it has a new line"))
        )
    elif effect.change.kind != "folder" and effect.change.op != "deleted":
        raise Unreadable("it lies where continuous integration runs what it finds")


def _groovy(text: str) -> list[str]:
    if re.search(r"/\*|'''|\"\"\"", text):
        return [line.strip() for line in text.split("\n") if line.strip()]
    return [line for line in script(text) if not line.startswith("//")]
