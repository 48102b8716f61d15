"""Watched: files that grant later power: somebody, or some program, will run or obey what they say without being asked again.

In:   a path as `effects.shown` writes it. Out: the reason in words, or None.
May import: effects. Must not know: what the file holds, who changed it, what follows from it.

On the list is what is run or obeyed *by habit*, outside of the sandbox, by a person's or a machine's next ordinary step: opening a
folder, changing into it, `git commit`, `make`, `pytest`, a push, a login, the start of the next agent. A module of the project
that is run on purpose is not: otherwise everything would be on it, and a person who is asked about everything reads nothing.
Names are compared without case, in the compatible Unicode form, without letters that show nothing, without blanks and dots at their
ends, and by the short names of FAT: a disk or a program that sees two names as one must not see more than this list does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from midwatch.sandbox.effects import raw

__all__ = ["FOLDERS", "NAMES", "PLACES", "PROGRAM", "SUFFIXES", "Above", "hook_folder", "why"]

PROGRAM: Final = "it becomes a program"
"""What a file that gains the right to be executed is flagged with, whatever its name."""


def _table(*rows: tuple[str, str]) -> Mapping[str, str]:
    return {name: reason for reason, names in rows for name in names.split()}


FOLDERS: Final = _table(
    (
        "continuous integration runs it with the project's secrets",
        """
        .github .gitlab .circleci .buildkite .gitea .forgejo .woodpecker .drone .tekton .azuredevops .azure-pipelines
        .teamcity .concourse .travis .semaphore .harness .cirrus .codebuild .bitbucket .jenkins .earthly .dagger
        """,
    ),
    ("version control runs what its settings name", ".hg .jj .svn .bzr"),
    ("every Python program runs it when it starts", "sitecustomize usercustomize"),
    ("a hook that git runs by itself", ".husky .githooks githooks git-hooks .git-hooks .lefthook .lefthook-local"),
    (
        "an editor runs its tasks, settings and extensions when the folder is opened",
        """
        .vscode .idea .fleet .zed .vscode-server .vim .nvim .emacs.d .sublime .nova .devcontainer .theia .eclipse .vs
        """,
    ),
    (
        "it instructs or equips an agent, or says what it may do",
        """
        .claude .cursor .codex .gemini .aider .continue .windsurf .codeium .roo .cline .clinerules .kilocode .amazonq .kiro
        .junie .goose .opencode .augment .trae .copilot .agents .agent .mcp .openhands .tabnine .zencoder .factory .devin
        .midwatch
        """,
    ),
    ("it decides who may log in, and what ssh runs", ".ssh"),
    (
        "it holds keys and whom to trust",
        """
        .gnupg .pki .aws .azure .kube .docker .gcloud .password-store .cargo .gem .m2 .gradle .sbt .nuget
        """,
    ),
    ("a timer runs it", "cron.d cron.daily cron.hourly cron.weekly cron.monthly crontabs"),
    ("it decides who may become whom", "sudoers.d polkit-1 pam.d"),
    (
        "it is started with the machine or at login",
        "systemd init.d rc.d autostart launchagents launchdaemons profile.d",
    ),
    ("programs are loaded or found by it", "ld.so.conf.d udev modprobe.d sysctl.d"),
    (
        "it says what is deployed, or runs there",
        """
        .argocd .flux .helm .kustomize .terraform .pulumi .serverless .vercel .netlify .railway
        """,
    ),
    ("a package manager runs or obeys it", ".yarn .pnpm .mvn .bundle .conda .rye .pdm-plugins .pixi .nx .moon"),
    ("it runs whenever somebody enters the folder", ".direnv .mise .asdf .devbox .devenv"),
)
"""A folder of this name, and all that is below it."""

NAMES: Final = _table(
    ("it decides which repository git uses here", ".git"),
    ("git runs filters, merges and diffs that it names", ".gitattributes"),
    ("it leads git to other repositories", ".gitmodules .gitconfig"),
    ("it makes a folder a repository whose settings can run programs", "head"),
    ("it decides what a review does not see", ".gitignore .git-blame-ignore-revs codeowners .mailmap"),
    (
        "it runs before each commit",
        """
        .pre-commit-config.yaml .pre-commit-config.yml .pre-commit-hooks.yaml lefthook.yml lefthook.yaml lefthook.toml
        .lefthook.yml .overcommit.yml .lintstagedrc .lintstagedrc.json .lintstagedrc.js lint-staged.config.js .huskyrc
        .huskyrc.json commitlint.config.js prek.toml lefthook-local.yml lefthook-local.yaml lefthook-local.toml
        """,
    ),
    (
        "continuous integration runs it with the project's secrets",
        """
        .gitlab-ci.yml .gitlab-ci.yaml .travis.yml .travis.yaml jenkinsfile azure-pipelines.yml azure-pipelines.yaml
        bitbucket-pipelines.yml .drone.yml .drone.yaml .drone.star .woodpecker.yml .woodpecker.yaml appveyor.yml .appveyor.yml
        .cirrus.yml .cirrus.star wercker.yml buildspec.yml buildspec.yaml cloudbuild.yaml cloudbuild.yml cloudbuild.json
        codemagic.yaml bitrise.yml earthfile .build.yml buildkite.yml pipeline.yml pipeline.yaml shippable.yml semaphore.yml
        screwdriver.yaml .ci.yml .gocd.yaml dagger.json zuul.yaml .zuul.yaml concourse.yml renovate.json renovate.json5
        .renovaterc dependabot.yml codecov.yml .codecov.yml .releaserc .goreleaser.yml .goreleaser.yaml
        sonar-project.properties
        """,
    ),
    (
        "a shell runs it when it starts or ends",
        """
        .bashrc .bash_profile .bash_login .bash_logout .bash_aliases .profile .zshrc .zshenv .zprofile .zlogin .zlogout .kshrc
        .mkshrc .cshrc .tcshrc .login .logout config.fish .inputrc .xonshrc .nurc profile.ps1 microsoft.powershell_profile.ps1
        .xinitrc .xprofile .xsession .xsessionrc .pam_environment bash.bashrc zshrc zshenv
        """,
    ),
    (
        "it runs whenever somebody enters the folder",
        """
        .envrc .direnvrc .autoenv .autoenv.zsh .env.fish .mise.toml mise.toml .tool-versions .nvmrc .python-version
        .ruby-version .sdkmanrc devbox.json devenv.nix shell.nix flake.nix default.nix .node-version rust-toolchain
        rust-toolchain.toml .java-version .screenrc .tmux.conf
        """,
    ),
    (
        "programs take secrets, addresses and switches from it",
        """
        .env .env.local .env.development .env.production .env.test .flaskenv
        """,
    ),
    (
        "every Python program runs it when it starts",
        "sitecustomize.py usercustomize.py .pythonrc .pythonrc.py pyvenv.cfg .pdbrc",
    ),
    (
        "a test runner runs it before the first test",
        """
        conftest.py pytest.ini tox.ini noxfile.py .coveragerc setup.cfg pyproject.toml jest.config.js jest.config.ts
        jest.config.mjs jest.config.cjs vitest.config.ts vitest.config.js karma.conf.js .mocharc.js .mocharc.json .mocharc.yml
        playwright.config.ts cypress.config.js cypress.config.ts .rspec spec_helper.rb test_helper.exs phpunit.xml .noserc
        """,
    ),
    (
        "it runs when the project is installed or built",
        """
        setup.py build.py hatch_build.py build.rs package.json package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml
        pnpm-workspace.yaml .pnpmfile.cjs bun.lockb bun.lock bunfig.toml deno.json deno.jsonc binding.gyp composer.json
        gemfile gemfile.lock rakefile cargo.toml cargo.lock go.mod go.work pom.xml build.gradle build.gradle.kts
        settings.gradle settings.gradle.kts gradle.properties gradlew mvnw build.sbt build.xml mix.exs rebar.config
        package.swift podfile meson.build conanfile.py cmakelists.txt cmakepresets.json configure configure.ac wscript
        sconstruct build.bazel workspace.bazel module.bazel .bazelrc .buckconfig nx.json turbo.json lerna.json poetry.lock
        uv.lock pdm.lock pipfile pipfile.lock requirements.txt constraints.txt environment.yml pixi.toml uv.toml vcpkg.json
        xmake.lua premake5.lua build.zig dune-project
        """,
    ),
    (
        "it is the command that people run without reading it",
        """
        makefile gnumakefile bsdmakefile makefile.am makefile.in justfile .justfile taskfile.yml taskfile.yaml tasks.py
        fabfile.py dodo.py invoke.yaml procfile procfile.dev gulpfile.js gruntfile.js gulpfile.ts gruntfile.coffee build.sh
        install.sh setup.sh run.sh test.sh bootstrap.sh deploy.sh release.sh entrypoint.sh docker-entrypoint.sh manage.py
        vagrantfile tiltfile skaffold.yaml garden.yml
        """,
    ),
    (
        "a package manager obeys it: where packages come from, with which credentials",
        """
        .npmrc .yarnrc .yarnrc.yml .pnpmrc pip.conf pip.ini .pypirc .condarc .gemrc .bowerrc nuget.config .netrc _netrc
        .curlrc .wgetrc sources.list .pydistutils.cfg .easy_install .cargo-ok
        """,
    ),
    (
        "it runs or shapes containers with the rights of whoever builds them",
        """
        dockerfile containerfile .dockerignore docker-compose.yml docker-compose.yaml docker-compose.override.yml
        docker-compose.override.yaml compose.yml compose.yaml compose.override.yml compose.override.yaml docker-bake.hcl
        docker-bake.json podman-compose.yml devcontainer.json .devcontainer.json singularity apptainer nixpacks.toml
        """,
    ),
    (
        "it says what is deployed, or runs there",
        """
        kustomization.yaml kustomization.yml chart.yaml helmfile.yaml serverless.yml serverless.yaml vercel.json netlify.toml
        fly.toml render.yaml wrangler.toml wrangler.json railway.json ansible.cfg playbook.yml pulumi.yaml terragrunt.hcl
        .terraformrc terraform.rc heroku.yml cdk.json samconfig.toml nginx.conf .htaccess web.config
        """,
    ),
    ("a timer runs it", "crontab anacrontab .crontab"),
    ("it decides who may become whom", "sudoers passwd shadow gshadow doas.conf subuid subgid nsswitch.conf"),
    (
        "it decides who may log in, and what ssh runs",
        """
        authorized_keys authorized_keys2 known_hosts ssh_config sshd_config .rhosts .shosts hosts.equiv .k5login
        """,
    ),
    ("programs are loaded or found by it", "ld.so.preload ld.so.conf rc.local inittab fstab .ld.so"),
    (
        "an editor runs or obeys it when a file or the folder is opened",
        """
        .vimrc .nvimrc .exrc .gvimrc _vimrc _exrc init.lua init.vim .nvim.lua .dir-locals.el .dir-locals-2.el .emacs init.el
        .projectile .editorconfig .netrwhist .lvimrc .vim-bookmarks local.vimrc .sublime-project .nanorc
        """,
    ),
    (
        "a linter or formatter loads code that it names",
        """
        .eslintrc .eslintrc.js .eslintrc.cjs .eslintrc.json .eslintrc.yml .eslintrc.yaml eslint.config.js eslint.config.mjs
        eslint.config.cjs eslint.config.ts .prettierrc .prettierrc.js .prettierrc.cjs .prettierrc.json prettier.config.js
        prettier.config.cjs .babelrc .babelrc.js babel.config.js babel.config.json postcss.config.js postcss.config.cjs
        tailwind.config.js tailwind.config.ts vite.config.js vite.config.ts vite.config.mjs webpack.config.js rollup.config.js
        next.config.js next.config.mjs nuxt.config.ts svelte.config.js astro.config.mjs metro.config.js .stylelintrc
        stylelint.config.js .pylintrc pylintrc mypy.ini .mypy.ini .flake8 .rubocop.yml .swcrc tsconfig.json jsconfig.json
        ruff.toml .ruff.toml .gdbinit .lldbinit .irbrc .pryrc .rdebugrc .iex.exs .rprofile .renviron .juliarc.jl startup.jl
        .psqlrc .sqliterc .my.cnf .ocamlinit .ghci .perltidyrc
        """,
    ),
    (
        "it instructs or equips an agent, or says what it may do",
        """
        agents.md agent.md claude.md claude.local.md gemini.md codex.md qwen.md copilot-instructions.md .cursorrules
        .cursorignore .windsurfrules .clinerules .roorules .roomodes .goosehints .aider.conf.yml .aiderignore .mcp.json
        mcp.json mcp.yaml mcp_config.json .claude.json claude_desktop_config.json .continuerc.json opencode.json
        opencode.jsonc crush.json .crush.json skill.md soul.md llms.txt system_prompt.md .rules .replit replit.md warp.md
        junie.md langgraph.json .agentignore
        """,
    ),
    ("it declares agents, what they may do and where", "fleet.yaml fleet.yml fleet.json midwatch.yaml midwatch.toml"),
)
"""A file or folder of this name, wherever it is."""

SUFFIXES: Final = _table(
    ("every Python program runs it when it starts", ".pth"),
    ("it is started with the machine, by a timer or a socket", ".service .timer .socket .desktop .plist .xinetd"),
    (
        "it instructs or equips an agent, or says what it may do",
        ".mdc .instructions.md .prompt.md .chatmode.md .agent.md",
    ),
    ("continuous integration runs it with the project's secrets", ".jenkinsfile"),
    ("it runs or shapes containers with the rights of whoever builds them", ".dockerfile .containerfile"),
    ("it is the command that people run without reading it", ".mk .mak .just"),
    (
        "an editor runs its tasks, settings and extensions when the folder is opened",
        ".code-workspace .sublime-project .iml",
    ),
    ("it says what is deployed, or runs there", ".tf .tf.json .tfvars .hcl"),
    ("programs are loaded or found by it", ".so .dll .dylib .pyd .node"),
    ("it runs without its source being seen", ".pyc .pyo"),
    ("it holds keys and whom to trust", ".pem .key .p12 .pfx .kubeconfig"),
)
"""A file whose name ends so."""

PLACES: Final = _table(
    ("a hook that git runs by itself", "hooks"),
    ("git runs what its settings name", "config config.worktree"),
    (
        "git takes repository, history or contents from where it says",
        """
        gitdir commondir alternates http-alternates grafts attributes sparse-checkout exclude replace packed-refs shallow
        """,
    ),
    ("a git operation that is continued runs it", "rebase-merge rebase-apply sequencer git-rebase-todo"),
)
"""Below a repository's own folder (`.git`, its worktrees and submodules): any part of the path. The rest there is inert data."""

_GIT: Final = frozenset({".git", "git~1"})
_PREFIXES: Final = (
    "dockerfile.",
    "containerfile.",
    "docker-compose.",
    "compose.",
    "jenkinsfile.",
    "makefile.",
    ".env.",
    "requirements-",
)
_HIDDEN: Final = re.compile(
    r"[\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)


class Above(NamedTuple):
    """What the folders above a name say: the reason that all below them has, and whether they are a repository's own."""

    reason: str | None = None
    git: bool = False

    def into(self, name: str) -> Above:
        """Give the same one folder further down."""
        if self.reason is not None:
            return self
        plain = _plain(name)
        if plain in _GIT:
            return Above(None, git=True)
        return Above(PLACES.get(plain), git=True) if self.git else Above(FOLDERS.get(plain))

    def why(self, name: str) -> str | None:
        """Say why a change of this name here needs a person, or None."""
        if self.reason is not None:
            return self.reason
        plain = _plain(name)
        if plain in _GIT:
            return NAMES[".git"]
        return PLACES.get(plain) if self.git else _by_name(plain)


def why(path: str) -> str | None:
    """Say why a change of this path needs a person, or None. Also where it, or a folder above it, is deleted or made a link."""
    head, _, name = path.rpartition("/")
    return (_above(head) if head else Above()).why(name)


def hook_folder(config: str) -> str | None:
    """Give the folder that a repository's `config` names as `core.hooksPath`, as written, or None."""
    section, found = "", None
    for line in config.splitlines():
        text = line.strip()
        if text.startswith("["):
            section, _, text = text[1:].partition("]")
            section, text = section.strip().casefold(), text.strip()
        key, equals, value = text.partition("=")
        if section == "core" and equals and key.strip().casefold() == "hookspath":
            found = value.strip().strip('"')
    return found


@lru_cache(maxsize=4096)
def _above(head: str) -> Above:
    above = Above()
    for name in head.split("/"):
        above = above.into(name)
    return above


def _by_name(plain: str) -> str | None:
    found = NAMES.get(plain) or FOLDERS.get(plain)
    if found is not None:
        return found
    dot = plain.find(".")
    while dot >= 0:
        if (found := SUFFIXES.get(plain[dot:])) is not None:
            return found
        dot = plain.find(".", dot + 1)
    if plain.startswith(_PREFIXES):
        return NAMES.get(plain[: plain.find(".")]) or NAMES.get("requirements.txt" if plain.startswith("r") else ".env")
    return None


def _plain(name: str) -> str:
    if name.isascii() and "\\" not in name:
        return name.casefold().rstrip(". ").lstrip(" ") or name
    text = unicodedata.normalize("NFKC", raw(name).decode("utf-8", "replace"))
    text = unicodedata.normalize("NFKC", _HIDDEN.sub("", text).casefold())
    return "".join(char for char in text if char.isprintable()).strip(" ").rstrip(". ") or name
