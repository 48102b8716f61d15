"""Commands: programs, statements and calls that deploy, delete, or open a database, by the place they stand in.

In:   a folded reading, its tokens, how it is meant. Out: the families that its commands belong to.
May import: the standard library. Must not know: disguises, arguments, roles.
Why by place: `rm` is a command at the beginning of one, an option in `docker run --rm`, and three letters in `firmware`. A word is
in a command's place at the start of a line or after `;`, `|`, `&`, `(`, and behind words that only carry a command (`sudo`,
`xargs`, `env X=1`, `* * * * *`, `RUN`, `cmd:`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate

__all__ = ["in_commands"]

_GAP = r"[^\n;|&]{0,120}?"


def _pair(heads: str, verbs: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{heads})(?:\.exe)?(?![\w-]){_GAP}(?<![\w-])(?:{verbs})(?![\w-])")


# `del` is a word of Python, Spanish and Italian too: what is deleted must look like files of that other system.
_DEL = re.compile(
    r"(?<![\w-])(?:del|erase)[\s\x01]+(?:/[a-z][\s\x01]|\"?[a-z]:\\|\*\.|%|"
    r"[\w.\\-]+\.(?:txt|log|bak|tmp|exe|dll|csv|json|db|sql|dat|zip|docx?|xlsx?|pdf|ini|cfg|ya?ml|png|jpg)(?![\w(]))"
)
# A token that calls for it -> (family, pattern). These say enough in any place.
_PHRASES: dict[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    **dict.fromkeys(
        ("kubectl", "oc"),
        (("deploy", _pair("kubectl|oc", "apply|create|replace|patch|set|scale|rollout|edit|drain|autoscale|taint")),),
    ),
    "k": (("deploy", re.compile(r"(?<![\w-])k apply -[fk]\b")),),
    **dict.fromkeys(
        ("terraform", "tofu", "terragrunt", "tf"),
        (
            ("deploy", _pair("terraform|tofu|terragrunt|tf", "apply|apply-all|run-all|destroy|import|taint")),
            ("delete", _pair("terraform|tofu|terragrunt|tf", "destroy|state[\\s\\x01\"',]+rm")),
        ),
    ),
    **dict.fromkeys(
        ("helm", "helmfile"),
        (
            ("deploy", _pair("helm|helmfile", "upgrade|install|rollback|sync|apply")),
            ("delete", _pair("helm|helmfile", "uninstall|destroy|del")),
        ),
    ),
    "pulumi": (("deploy", _pair("pulumi", "up|update|destroy|refresh|import")),),
    "ansible": (("deploy", re.compile(r"ansible-(?:playbook|pull)(?![\w-])")),),
    "argocd": (("deploy", _pair("argocd", "sync|rollback|set|create")),),
    "flux": (("deploy", _pair("flux", "reconcile|bootstrap")),),
    "nomad": (("deploy", _pair("nomad", "run|stop|revert")),),
    "docker": (
        (
            "deploy",
            _pair("docker", "stack[\\s\\x01]+(?:up|rm)|service[\\s\\x01]+(?:update|create|scale|rollback)|swarm"),
        ),
        ("delete", _pair("docker", "prune|rmi|rm|down[\\s\\x01]+(?:-v|--volumes)")),
    ),
    "podman": (("delete", _pair("podman", "prune|rmi|rm")),),
    # To push or publish what others run: an image, a package, a site.
    "push": (
        (
            "deploy",
            re.compile(
                r"(?<![\w-])(?:(?:docker|podman|nerdctl|buildah|crane|oras)[\s\x01\"',]+(?:compose[\s\x01\"',]+|image[\s\x01\"',]+|-\S+[\s\x01]+){0,3}push|"
                r"(?:cf|gem|helm|heroku|eas|ko|acr|melange)[\s\x01\"',]+push|docker[\s\x01\"',]+buildx?[\s\x01][^\n;|&]{0,160}?--push)(?![\w-])"
            ),
        ),
    ),
    "publish": (
        (
            "deploy",
            re.compile(
                r"(?<![\w-])(?:npm|yarn|pnpm|bun|cargo|wrangler|poetry|flit|hatch|uv|lerna|nx|vsce|ovsx|jsr|mix hex\.|dart pub|dotnet|"
                r"netlify|expo|eas|serverless|sls)"
                r"[\s\x01\"',]+(?:-\S+[\s\x01]+){0,3}publish(?![\w-])"
            ),
        ),
    ),
    **dict.fromkeys(
        ("railway", "copilot", "convox", "okteto", "devspace", "waypoint", "sst", "render", "zeabur", "koyeb"),
        (
            (
                "deploy",
                _pair(
                    "railway|copilot|convox|okteto|devspace|waypoint|sst|render|zeabur|koyeb",
                    "up|redeploy|release|promote|rollback",
                ),
            ),
        ),
    ),
    **dict.fromkeys(
        ("sam", "amplify", "eb"), (("deploy", _pair("sam|amplify|eb", "sync|push|publish|create|upgrade|swap")),)
    ),
    **dict.fromkeys(
        ("webapp", "containerapp", "functionapp"),
        (("deploy", _pair("webapp|containerapp|functionapp", "up|create|restart|swap|publish")),),
    ),
    "supabase": (("database", _pair("supabase", "db[\\s\\x01]+(?:push|reset|remote)|migration")),),
    "twine": (("deploy", _pair("twine", "upload")),),
    **dict.fromkeys(("skopeo", "crane"), (("deploy", _pair("skopeo|crane", "copy|sync|push|cp")),)),
    "cloudformation": (("deploy", _pair("cloudformation", "create-stack|update-stack|execute-change-set")),),
    "ecs": (("deploy", _pair("ecs", "update-service|create-service|run-task|register-task-definition")),),
    "lambda": (("deploy", _pair("lambda", "update-function-code|publish-version|update-alias")),),
    "aws": (
        ("delete", _pair("aws|s3", "rm|rb|terminate-instances|deregister-image")),
        ("database", _pair("aws", "rds|dynamodb|redshift")),
    ),
    "s3cmd": (("delete", _pair("s3cmd", "del|rm|rb")),),
    "gsutil": (("delete", _pair("gsutil", "rm|rb")),),
    "rclone": (("delete", _pair("rclone", "purge|rmdirs?")),),
    "gcloud": (("database", _pair("gcloud", "sql|spanner|bigtable")),),
    "az": (("database", _pair("az", "sql|postgres|mysql|cosmosdb")),),
    "bq": (("delete", _pair("bq", "rm")),),
    "redis": (("database", re.compile(r"(?<![\w-])redis-cli(?![\w-])")),),
    "pg": (
        (
            "database",
            re.compile(
                r"(?<![\w-])pg_(?:dump|dumpall|restore|ctl|basebackup|upgrade|resetwal|rewind|receivewal|\w{2,12}cluster)(?![\w-])"
            ),
        ),
    ),
    **{
        f"pg_{name}"[3:]: (("database", re.compile(rf"(?<![\w-])pg_{name}(?![\w-])")),)
        for name in ("dump", "dumpall", "restore", "ctl", "basebackup", "resetwal")
    },
    "clickhouse": (("database", re.compile(r"(?<![\w-])clickhouse[- ](?:client|local)(?![\w-])")),),
    **dict.fromkeys(
        ("migrate", "flush", "sqlflush"),
        (
            (
                "database",
                re.compile(
                    r"(?:manage\.py|artisan|prisma|knex|sequelize|django-admin|typeorm|goose)[\s\x01]+(?:migrat\w*|sqlflush|flush)"
                ),
            ),
        ),
    ),
    "alembic": (("database", _pair("alembic", "upgrade|downgrade|stamp")),),
    "git": (
        (
            "deploy",
            re.compile(
                r"(?<![\w-])git[\s\x01][^\n;|&]{0,80}?push[\s\x01][^\n;|&]{0,80}?(?<![\w.])(?:releases?|live|heroku|dokku|prod)(?![\w.-])"
            ),
        ),
        (
            "delete",
            re.compile(
                r"(?<![\w-])git[\s\x01][^\n;|&]{0,60}?(?<![\w-])(?:rm|clean[\s\x01]+-|(?:branch|tag|push)[\s\x01][^\n;|&]{0,60}?(?<![\w-])-d(?![\w-])|push[\s\x01][^\n;|&]{0,80}?[\s\x01]:[\w./-])"
            ),
        ),
    ),
    "release": (
        (
            "deploy",
            re.compile(
                r"(?<![\w-])(?:make|just|npm run|yarn|pnpm|task|gh|rake|mage|fastlane|glab)[\s\x01]+(?:run[\s\x01]+)?release(?![\w.])"
            ),
        ),
    ),
    "crontab": (("delete", re.compile(r"(?<![\w-])crontab[\s\x01]+(?:-u[\s\x01]+\w+[\s\x01]+)?-r(?![\w-])")),),
    "rsync": (("delete", re.compile(r"(?<![\w-])rsync[\s\x01][^\n;|&]{0,200}?--(?:del(?![\w])|remove-source-files)")),),
    "remove": (
        (
            "delete",
            re.compile(
                r"(?<![\w])(?:os|fs|shutil|pathlib|storage|fileutils)[\"'\s,.)\[]{1,4}(?:remove|removesync)(?![a-z])|remove-item|--remove-files|"
                r"from (?:os|shutil|pathlib) import [\w, ]{0,80}(?:remove|unlink|rmdir)"
            ),
        ),
    ),
    "unlink": (
        (
            "delete",
            re.compile(r"(?:\.|os[\"'\s,.]{1,4}|(?<![\w]))unlink\s?\(|unlink[\s\x01]+[/$~\"'.]|os[\"'\s,]{2,4}unlink"),
        ),
    ),
    "rmdir": (("delete", re.compile(r"(?:\.|os[\"'\s,.]{1,4})rmdir\s?[(\"']")),),
    "rm": (
        (
            "delete",
            re.compile(
                r"(?:fs|fileutils|promises)\.rm(?:_rf?)?\s?\(|(?<![\w.-])rm[\s\x01\"',]{1,4}-[a-z]*[rf][a-z]*(?![\w-])|find[\s\x01][^\n]{0,200}?-(?:exec|execdir|ok)[\s\x01]\S*rm[\s\x01]"
            ),
        ),
    ),
    **dict.fromkeys(("rf", "fr"), (("delete", re.compile(r"\brm_(?:rf|fr|f|r)\b")),)),
    "null": (
        (
            "delete",
            re.compile(r"(?:cat|cp)[\s\x01]+/dev/null[\s\x01]*>?[\s\x01]*[\w/~.$]|mv[\s\x01][^\n;|&]{1,200}?/dev/null"),
        ),
    ),
    "dd": (("delete", re.compile(r"(?<![\w-])dd[\s\x01][^\n;|&]{0,160}?of=/dev/(?!null|stdout)")),),
    "mkfs": (("delete", re.compile(r"(?<![\w-])mkfs(?:\.\w+)?[\s\x01]")),),
    "drop": (
        ("delete", re.compile(r"\.drop\s?\(\s?\)|\.drop(?:collection|database|index|table|all|schema)|drop_all\s?\(")),
    ),
    "ri": (("delete", re.compile(r"(?:^|[\n;|{])[\s\x01]*ri[\s\x01]+[^\n]{0,80}-(?:r|recurse|force|fo)\b")),),
    "del": (("delete", _DEL),),
    "rd": (("delete", re.compile(r"(?<![\w-])rd[\s\x01]+/[sq]")),),
}

# In a command's place only: program -> (family, whether prose counts too).
_PLACED: dict[str, tuple[str, bool]] = {
    **dict.fromkeys(("rm", "rmdir"), ("delete", True)),
    **dict.fromkeys(
        ("shred", "unlink", "srm", "userdel", "groupdel", "deluser", "blkdiscard", "truncate"),
        ("delete", False),
    ),
    **dict.fromkeys(("trash", "rimraf", "dropuser"), ("delete", False)),
    **dict.fromkeys(
        ("psql", "mysql", "mongo", "mongosh", "sqlite3", "mysqldump", "sqlplus", "sqlcmd", "cqlsh"), ("database", True)
    ),
    **dict.fromkeys(
        ("mysqladmin", "mysqlimport", "mariadb", "mongodump", "mongorestore", "mongoimport"), ("database", False)
    ),
    **dict.fromkeys(
        ("createdb", "dropdb", "initdb", "vacuumdb", "pgcli", "mycli", "litecli", "usql", "cockroach"),
        ("database", False),
    ),
    **dict.fromkeys(
        ("sqlite", "influx", "flyway", "liquibase", "dbmate", "duckdb", "isql", "bcp"), ("database", False)
    ),
    **dict.fromkeys(("vercel", "flyctl", "dokku", "skaffold", "kamal"), ("deploy", False)),
    "stripe": ("billing", False),
}
_HEAD = re.compile(
    r"(?<![\w-])(" + "|".join(sorted(_PLACED, key=len, reverse=True)) + r")(?:\.exe)?(?=[\s\x01\"',;|&)`]|$)"
)
_BREAK = re.compile(r"[\n;|&`{}]|\$\(|[(\[][\s\x01]?[frbu]{0,2}[\"']|\((?=[^()]*$)")
_WRAPPER = re.compile(
    r"\"?\w+\"?[:=]\S*|\S+:|-\S*|[\d*/,.-]+[smhd]?|@\w*|-@|[$#>!%]|\\?(?:sudo|doas|env|nohup|time|exec|command|builtin|then|do|else|if|while|until|nice|"
    r"setsid|xargs|busybox|toybox|timeout|stdbuf|ionice|run|cmd|entrypoint|root|eval|call|start|watch|strace|unshare|and|or|not|sh|bash|-c|"
    r"coproc|trap|alias|chrt|taskset|please|/c|shell)"
)
_CARRIER = re.compile(
    r"sudo|doas|su|runuser|ssh|docker|podman|kubectl|xargs|find|env|parallel|nsenter|chroot|timeout|watch|flock|nice|ionice|adb|"
    r"cmd|cmd\.exe|powershell|pwsh|wsl|systemd-run|unshare|bwrap|firejail|proot|vagrant|lxc|multipass|pssh|pdsh|ansible|salt|strace|at|"
    r"hdfs|hadoop|gcloud|mc|terraform|npx|uvx|pipx|bundle|poetry|uv|exec|time|nohup|setsid|command|alias|trap"
)
_GLOBBED = re.compile(r"/[\w-]{0,24}[?*\[]")
_GLOB = re.compile(r"(?:^|[\n;|&(`]|sudo )[\s\x01]*((?:/[\w?*\[\]!^-]{1,24}){1,5})(?=[\s\x01])")

# `: > file` and `cd x && > file` leave a file with nothing in it.
_FILE = r"\|?[\s\x01]*(?!/dev/)[\"']?[\w.~$-]{0,80}[/.][\w./${}-]{1,160}[\"']?[\s\x01]*(?:$|[;&\n])"
_EMPTIED = re.compile(
    r"(?:(?:^|[\n;&|({])[\s\x01]*(?::|true|echo[\s\x01]+-n(?:[\s\x01]+(?:''|\"\"))?|printf[\s\x01]+(?:''|\"\"))[\s\x01]*|"
    rf"(?:^|;|&&)[ \x01]*)>{_FILE}"
)

# A program given another name: what it is called from then on says nothing.
_BORROWED = re.compile(
    r"(?<![\w-])(?:ln|cp|mv|install|cat|tee|dd)[\s\x01][^\n;|&]{0,60}?bin/(" + "|".join(_PLACED) + r")(?=[\s\x01\"']|$)"
)


def in_commands(text: str, tokens: frozenset[str], *, command: bool) -> Iterator[str]:
    r"""Name the families that the commands of a text belong to.

    Args:
        text: folded; a blank inside a shell word may be `\x01`.
        tokens: its runs of letters and digits.
        command: the text is run by somebody: programs count whose names are words of a language, those alone on their line, and
            globs that fit one.
    """
    for token in tokens & _PHRASES.keys():
        for word, pattern in _PHRASES[token]:
            if pattern.search(text):
                yield word
    if tokens & _PLACED.keys():
        for found in _HEAD.finditer(text):
            word, anywhere = _PLACED[found[1]]
            alone = not text[found.end() : found.end() + 2].strip("\n")
            if (anywhere or command) and (command or not alone) and _in_place(text, found.start()):
                yield word
    if command:
        yield from _in_lines(text)


def _in_lines(text: str) -> Iterator[str]:
    """What a line says that somebody runs, beside its programs' names."""
    if (">" in text and _EMPTIED.search(text)) or (text.startswith("del ") and "\n" not in text):
        yield "delete"
    if "bin/" in text:
        yield from (_PLACED[found[1]][0] for found in _BORROWED.finditer(text))
    for found in _GLOB.finditer(text) if _GLOBBED.search(text) else ():
        name = found[1].rpartition("/")[2]
        # `/bin/r?` is a program; `/*` and `src/*` are many things.
        if re.search(r"[?*\[]", found[1]) and (re.search(r"[a-z]", name) or found[1].count("/") > 1) and name != "*":
            fits = re.compile(translate(name))
            yield from (word for head, (word, _) in _PLACED.items() if fits.match(head))


def _in_place(text: str, start: int) -> bool:
    before = text[max(0, start - 300) : start]
    if before.endswith(("/", "\\")):
        before = re.sub(r"[^\s\x01;|&(`\"'={}]{1,200}$", "", before)
    last = _BREAK.split(before)[-1]
    bare = last.rstrip("\"'")
    if bare != last and (not bare.strip() or bare.rstrip().endswith((":", "="))):
        last = bare
    words = last.split(" ") if "\x01" in last else last.split()
    words = [word for word in words if word]
    if all(_WRAPPER.fullmatch(word) for word in words):
        return True
    first = words[0].rpartition("/")[2]
    return "\x01" not in last and bool(_CARRIER.fullmatch(first)) and last[-1:].isspace()
