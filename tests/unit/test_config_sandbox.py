"""`sandbox:` in a fleet file: what it means, what is refused because it would undo the sandbox, what is only unwise."""

import re
import socket
from collections.abc import Mapping
from pathlib import Path

import jsonschema_rs
import pytest

from midwatch.config.check import check
from midwatch.config.fleet import Fleet
from midwatch.config.guarantees import not_guaranteed
from midwatch.config.schema import fleet_json_schema
from midwatch.config.specs import EgressRule, MountSpec, SandboxLimits, SandboxSpec
from midwatch.errors import InvalidFleet
from midwatch.sandbox.egress_rules import problem

FLEET = """\
midwatch: 1
fleet: plain
routes: {local: {provider: scripted, scenario: scenario.yaml}}
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  hand: {role: specialist, route: local, prompt_text: work, tools: [host.disks]%s}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: [hand], synthesis: pen}}
budgets: {run: {cost: "$1"}}
grants: [{who: agent:hand, may: host.*}]
gates: [{when: {effect: destructive}, ask: operator}]
"""
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "fleet-file.md"
TOKEN = {"CRATES_TOKEN": "s3cr3t-value-of-the-token"}

FULL = """\
sandbox:
  backend: docker
  image: debian:12
  runtime: runsc
  commit: discard
  mounts:
    - data
    - {from: shared/file.txt, at: /data/file.txt}
  secrets: CRATES_TOKEN
  env: {MODE: fast, OPENAI_API_KEY: unused}
  limits: {memory: 64MiB, cpu: 5s, cpus: 0.5, processes: 8, disk: 32MiB, inodes: 100, open_files: 64, file_size: 1MiB, wall: 2m}
  egress:
    - host: crates.io
      methods: [GET, POST]
      paths: /api/*
      headers: {Authorization: "Bearer ${secret:CRATES_TOKEN}", X-Who: midwatch}
      stage: true
    - {host: "*.example.org", port: 8443}
    - {host: db.lan, tls: false, private: true}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of a fleet, with files to mount; its path is short enough for a socket."""
    base = tmp_path / "fleet"
    (base / "data").mkdir(parents=True)
    (base / "shared").mkdir()
    (base / "shared" / "file.txt").write_text("x", encoding="utf-8")
    (base / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    return base


def _load(folder: Path, sandbox: str = "", own: str = "", environ: Mapping[str, str] = TOKEN) -> Fleet:
    return Fleet.from_text(FLEET % own + sandbox, base=folder, environ=environ)


def _full(folder: Path) -> str:
    return FULL.replace("- data", "- {from: data, at: /data/all}")


@pytest.mark.req("CONFIG-14")
def test_a_sandbox_written_out_is_read_in_full(folder: Path) -> None:
    """Each key arrives as what it says; sources are found below the fleet's folder, shares become thousandths."""
    text = _full(folder).replace("/data/file.txt", "/files/file.txt")
    limits = SandboxLimits(
        memory=64 << 20,
        cpu_us=5_000_000,
        processes=8,
        open_files=64,
        file_size=1 << 20,
        disk=32 << 20,
        inodes=100,
        cpu_milli=500,
        wall_us=120_000_000,
    )
    rules = (
        EgressRule(
            "crates.io",
            methods=("GET", "POST"),
            paths=("/api/*",),
            headers={"Authorization": "Bearer ${secret:CRATES_TOKEN}", "X-Who": "midwatch"},
            stage=True,
        ),
        EgressRule("*.example.org", port=8443),
        EgressRule("db.lan", tls=False, private=True),
    )
    expected = SandboxSpec(
        backend="docker",
        limits=limits,
        image="debian:12",
        runtime="runsc",
        mounts=(MountSpec(folder / "data", "/data/all"), MountSpec(folder / "shared/file.txt", "/files/file.txt")),
        egress=rules[:1] + rules[2:],
        secrets=("CRATES_TOKEN",),
        env={"MODE": "fast", "OPENAI_API_KEY": "unused"},
        commit="discard",
    )
    fleet = _load(folder, text.replace('    - {host: "*.example.org", port: 8443}\n', ""))
    assert expected == fleet.sandbox
    assert ([], []) == check(fleet)
    assert TOKEN["CRATES_TOKEN"] not in repr(fleet)
    assert "s3cr3t" not in fleet.digest + str(fleet.sandbox)


@pytest.mark.req("CONFIG-14")
def test_one_word_names_the_backend(folder: Path) -> None:
    """`sandbox: docker` is `sandbox: {backend: docker}`, for the fleet and for an agent."""
    word, mapping = _load(folder, "sandbox: docker\n"), _load(folder, "sandbox: {backend: docker}\n")
    assert (SandboxSpec(backend="docker"), word.digest) == (word.sandbox, mapping.digest)
    own = _load(folder, "sandbox: docker\n", own=", sandbox: bubblewrap")
    assert ("bubblewrap", "docker") == (own.sandbox_of("hand").backend, own.sandbox_of("pen").backend)


@pytest.mark.req("CONFIG-14")
@pytest.mark.parametrize("sandbox", ["", "sandbox: null\n", "sandbox: {}\n", "sandbox: {limits: {memory: 64MiB}}\n"])
def test_a_fleet_that_names_no_backend_is_isolated(folder: Path, sandbox: str) -> None:
    """Silence means `bubblewrap`, never no isolation; the spec itself stays as written."""
    fleet = _load(folder, sandbox)
    assert (None, "bubblewrap") == (fleet.sandbox.backend, fleet.sandbox_of("hand").backend)
    assert () == not_guaranteed(fleet)


@pytest.mark.req("CONFIG-14")
@pytest.mark.parametrize("backend", ["bubblewrap", "docker"])
def test_what_isolates_is_guaranteed(folder: Path, backend: str) -> None:
    """Both backends, for the fleet and for one agent."""
    assert () == not_guaranteed(_load(folder, f"sandbox: {backend}\n", own=f", sandbox: {backend}"))


@pytest.mark.req("CONFIG-7")
@pytest.mark.parametrize(
    ("sandbox", "own", "digests"),
    [
        ("", "", ("1a26e3a0f53794d3a828", "b63515ed1cbbae198bc4")),
        (
            "sandbox: {backend: process, because: trusted tools, limits: {memory: 64MiB, cpu: 5s}}\n",
            "",
            ("0f182237dfec595c3f4d", "21acd2b9b188c945dd65"),
        ),
        ("sandbox: bubblewrap\n", ", sandbox: docker", ("66cd66f48e70bbb07629", "8b0625e8c8c5065f1f43")),
    ],
)
def test_a_file_without_the_newer_keys_keeps_its_digests(
    folder: Path, sandbox: str, own: str, digests: tuple[str, str]
) -> None:
    """Written down from the version before these keys: runs that wait go on under the next one."""
    text = (
        (FLEET % own + sandbox)
        .replace('budgets: {run: {cost: "$1"}}\n', "")
        .replace("grants: [{who: agent:hand, may: host.*}]\n", "")
    )
    fleet = Fleet.from_text(text, base=folder)
    assert digests == (fleet.digest[:20], fleet.policy_digest[:20])


@pytest.mark.req("CONFIG-7")
@pytest.mark.parametrize(
    "line",
    [
        "  env: {A: b}",
        "  commit: done",
        "  egress: [{host: crates.io}]",
        "  mounts: [{from: data, at: /d}]",
        "  limits: {cpus: 1}",
    ],
)
def test_each_newer_key_is_policy(folder: Path, line: str) -> None:
    """Whoever widens a sandbox changes the policy's digest, and what was approved under the old one is void."""
    before, after = (_load(folder, f"sandbox:\n  backend: bubblewrap\n{more}\n") for more in ("", line))
    assert before.digest != after.digest
    assert before.policy_digest != after.policy_digest


@pytest.mark.req("CONFIG-9", "CONFIG-14")
def test_an_editor_accepts_what_loads(folder: Path) -> None:
    """Words, mappings, short mounts, one mount for a list of one."""
    validator = jsonschema_rs.validator_for(fleet_json_schema())
    texts = [
        _full(folder).replace("/data/file.txt", "/files/file.txt").replace("*.example.org", "*.crates.io"),
        "sandbox: docker\n",
        f"sandbox: {{mounts: {folder}/data}}\n",
        f"sandbox: {{mounts: [{folder}/data], egress: null, env: null, mounts: null}}\n".replace(", mounts: null", ""),
        "sandbox: {mounts: null, secrets: null, limits: null}\n",
    ]
    for text in texts:
        assert [] == [str(error) for error in validator.iter_errors(_load(folder, text).source.value)], text


def _problems(folder: Path, block: str, environ: Mapping[str, str] = TOKEN) -> list[tuple[str, str]]:
    with pytest.raises(InvalidFleet) as caught:
        _load(folder, block, environ=environ)
    for found in caught.value.problems:
        assert found.message[0].islower() or found.message[0] == "`", found.message
        assert TOKEN["CRATES_TOKEN"] not in found.message
    return [(found.where, found.code) for found in caught.value.problems]


def _refused(folder: Path, block: str, environ: Mapping[str, str] = TOKEN) -> None:
    """Compare with `#! code` at the ends of lines, as in the table of broken files."""
    expected = [
        (f"<fleet>:{number}", code)
        for number, line in enumerate((FLEET % "" + block).splitlines(), start=1)
        for code in re.findall(r"#! ([a-z0-9-]+)", line)
    ]
    assert expected
    assert expected == _problems(folder, block, environ)


SHAPES = [
    "sandbox: process #! unexplained-sandbox\n",
    "sandbox:\n  backend: process\n  because: x\n  mounts: [{from: data, at: /d}] #! sandbox-shape\n",
    "sandbox:\n  backend: process\n  because: x\n  egress: [{host: crates.io}] #! sandbox-shape\n",
    "sandbox:\n  backend: process\n  because: x\n  env: {A: b} #! sandbox-shape\n",
    "sandbox:\n  backend: process\n  because: x\n  commit: discard #! sandbox-shape\n",
    "sandbox:\n  backend: process\n  because: x\n  image: debian:12 #! sandbox-shape\n",
    "sandbox:\n  backend: process\n  because: x\n  limits: {disk: 1MiB} #! sandbox-shape\n",
    "sandbox:\n  backend: bubblewrap\n  image: debian:12 #! sandbox-shape\n",
    "sandbox:\n  runtime: runsc #! sandbox-shape\n",
    "sandbox: jail #! unknown-word\n",
    "sandbox: [docker] #! wrong-type\n",
    "sandbox: {imge: x} #! unknown-key\n",
    "sandbox: {backend: docker, image: -v/:/x} #! bad-form\n",
    "sandbox: {limits: {cpus: 0}} #! quantity\n",
    "sandbox: {limits: {cpus: 0.0005}} #! quantity\n",
    "sandbox: {limits: {cpus: true}} #! quantity\n",
    "sandbox: {limits: {cpus: 50%}} #! quantity\n",
    "sandbox: {limits: {disk: 0B}} #! out-of-range\n",
    "sandbox: {limits: {wall: 0s}} #! out-of-range\n",
    "sandbox: {commit: always} #! unknown-word\n",
]


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize("block", SHAPES)
def test_what_the_backend_cannot_hold_is_refused(folder: Path, block: str) -> None:
    """Nothing is accepted and then left out."""
    _refused(folder, block)


TARGETS = {
    "/": "mount-target",
    "data": "mount-target",
    "/data/../etc": "mount-target",
    "/data/": "mount-target",
    "//data": "mount-target",
    "/workspace": "mount-target",
    "/workspace/vendor": "mount-target",
    "/proc/self": "mount-target",
    "/dev/shm": "mount-target",
    "/usr/lib/python3": "mount-target",
    "/run/midwatch": "mount-target",
    "/etc": "mount-target",
    "/etc/passwd": "mount-target",
    "/etc/ld.so.preload": "mount-target",
    "/etc/myapp.conf": "mount-target",
    "/opt": "mount-target",
    "/tmp": "mount-target",
    '"/a\\u202eb"': "mount-target",
}


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize("target", TARGETS)
def test_a_mount_covers_nothing_that_the_sandbox_needs(folder: Path, target: str) -> None:
    """Targets are absolute, plain, and beside what every sandbox has."""
    _refused(folder, f"sandbox:\n  mounts:\n    - {{from: data, at: {target}}} #! {TARGETS[target]}\n")


@pytest.mark.req("CONFIG-15")
def test_what_may_not_be_shown_is_refused(folder: Path, tmp_path: Path) -> None:
    """The machine, its running system, an engine's socket, a home of Midwatch, a person's keys: also through a link."""
    home, person, used = tmp_path / "state", tmp_path / "ann", tmp_path / "used"
    for made in (home / "layers", person / ".ssh", used / "deep", tmp_path / "engine"):
        made.mkdir(parents=True)
    (used / "midwatch.db").touch()
    (folder / "link").symlink_to(person / ".ssh")
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "sock"))
    environ = {"MIDWATCH_HOME": str(home), "HOME": str(person), "DOCKER_HOST": f"unix://{tmp_path}/engine/docker.sock"}
    rows = {
        "/": "mount-reach",
        "/proc": "mount-reach",
        "/sys/kernel": "mount-reach",
        "/dev/null": "mount-reach",
        "/run": "mount-reach",
        str(home): "mount-reach",
        f"{home}/layers": "mount-reach",
        str(tmp_path): "mount-reach",
        f"{used}/deep": "mount-reach",
        str(person): "mount-reach",
        f"{person}/.ssh": "mount-reach",
        f"{tmp_path}/engine": "mount-reach",
        "link": "outside-folder",
        f"{folder}/link": "mount-reach",
        "out": "outside-folder",
        "../ann": "outside-folder",
        "sock": "mount-reach",
        "loop": "unreadable",
        "gone": "missing-file",
    }
    lines = "".join(
        f'    - {{from: "{source}", at: /data/{number}}} #! {code}\n'
        for number, (source, code) in enumerate(rows.items())
    )
    _refused(folder, f"sandbox:\n  mounts:\n{lines}", environ)


@pytest.mark.req("CONFIG-15")
def test_mounts_that_lie_in_each_other_are_refused(folder: Path) -> None:
    """Which of the two would be seen must not depend on the backend."""
    block = "sandbox:\n  mounts:\n    - {from: data, at: /d}\n    - {from: shared, at: /d/e} #! duplicate-mount\n"
    _refused(folder, block)
    _refused(folder, block.replace("/d/e", "/d"))


HOSTS = [
    "127.0.0.1",
    "10.0.0.7",
    '"2130706433"',
    "0x7f.1",
    "1.2.3.4.",
    '"[::1]"',
    '"::1"',
    "crates.io:443",
    "https://crates.io",
    "me@crates.io",
    "crates.io/api",
    "Crates.io",
    "crates.io.",
    "крат.рф",
    "localhost",
    "db",
    "db.internal",
    '"*"',
    '"*.io"',
    '"*.corp"',
    '"cr*.io"',
    "-x.io",
    "a..b",
]


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize("host", HOSTS)
def test_a_rule_names_a_host_and_nothing_else(folder: Path, host: str) -> None:
    """No address in any notation, no URL, no whole domain, no name of this network unless that is said."""
    _refused(folder, f"sandbox:\n  egress:\n    - {{host: {host}}} #! bad-host\n")


RULES = [
    "{host: crates.io, methods: [get]} #! unknown-word",
    "{host: crates.io, methods: [CONNECT]} #! unknown-word",
    "{host: crates.io, port: 0} #! out-of-range",
    "{host: crates.io, port: 65536} #! out-of-range",
    "{host: crates.io, paths: [api/*]} #! bad-form",
    "{host: crates.io, paths: [/a/../b]} #! bad-form",
    "{host: crates.io, headers: {Host: evil.org}} #! bad-header",
    "{host: crates.io, headers: {Transfer-Encoding: chunked}} #! bad-header",
    "{host: crates.io, headers: {X-Name: käse}} #! bad-header",
    '{host: crates.io, headers: {"X Y": a}} #! bad-form',
    "{host: crates.io, headers: {Authorization: Bearer abc}} #! literal-credential",
    "{host: crates.io, headers: {X-Api-Key: abc}} #! literal-credential",
    "{host: crates.io, headers: {Cookie: a=b}} #! literal-credential",
    "{host: crates.io, headers: {X-Note: ghp_0123456789abcdefghijABCDEFGHIJ012345}} #! literal-credential",
    '{host: crates.io, headers: {Authorization: "Bearer sk-0123456789abcdefghij ${secret:CRATES_TOKEN}"}} #! literal-credential',
    '{host: crates.io, headers: {Authorization: "Bearer ${secret:OTHER}"}} #! unknown-secret',
    '{host: crates.io, headers: {X-A: "${env:CRATES_TOKEN}"}} #! misplaced-variable',
    '{host: crates.io, headers: {X-A: "${secret:}"}} #! misplaced-variable',
    '{host: crates.io, tls: false, headers: {Authorization: "Bearer ${secret:CRATES_TOKEN}"}} #! plain-secret',
    '{host: "${env:HOST}"} #! bad-host #! misplaced-variable',
]


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_opens_more_than_it_says_is_refused(folder: Path, rule: str) -> None:
    """Methods are known, paths can match, headers are the user's to set, credentials come from `secrets` alone."""
    expected = sorted(re.findall(r"#! ([a-z-]+)", rule))
    block = f"sandbox:\n  secrets: [CRATES_TOKEN]\n  egress:\n    - {rule}\n"
    assert [("<fleet>:15", code) for code in expected] == sorted(_problems(folder, block))


@pytest.mark.req("CONFIG-15")
def test_what_the_fleet_file_accepts_the_broker_accepts(folder: Path) -> None:
    """Two rooms check rules; one that loads is never silently dead at run time, and a host that is refused here is refused there."""
    hosts = ["crates.io", '"*.crates.io"', "xn--e1aybc.xn--p1ai", "a-b.c_d.io", "localhost", "db.internal"]
    for host in hosts:
        text = f"sandbox:\n  egress: [{{host: {host}, private: true, paths: ['*', /x], methods: [GET, DELETE]}}]\n"
        for rule in _load(folder, text).sandbox.egress:
            assert problem(rule) is None, host
    loose = {"Crates.io", "crates.io.", "крат.рф"}  # the broker would repair these; a file says them plainly
    for host in set(HOSTS) - loose:
        assert problem(EgressRule(host.strip('"'))) is not None, host


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "missing-variable"), ("", "missing-variable"), ("a\r\nX-Evil: b", "bad-secret"), ("ключ", "bad-secret")],
)
def test_a_secret_that_is_not_there_or_would_split_a_header_is_refused(
    folder: Path, value: str | None, code: str
) -> None:
    """It is told before the run, by name; the value is never shown."""
    environ = {} if value is None else {"CRATES_TOKEN": value}
    _refused(folder, f"sandbox:\n  secrets: [CRATES_TOKEN] #! {code}\n", environ)


VARIABLES = {
    "LD_PRELOAD: /workspace/x.so": "reserved-variable",
    "PYTHONPATH: /workspace": "reserved-variable",
    "PYTHONSTARTUP: /workspace/x.py": "reserved-variable",
    "BASH_ENV: /workspace/x": "reserved-variable",
    "NODE_OPTIONS: --require=/workspace/x.js": "reserved-variable",
    "PATH: /workspace/bin": "reserved-variable",
    "https_proxy: http://x": "reserved-variable",
    "NO_PROXY: '*'": "reserved-variable",
    "MIDWATCH_HOME: /x": "reserved-variable",
    "CRATES_TOKEN: x": "reserved-variable",
    "DB_PASSWORD: hunter2": "literal-credential",
    "API_KEY: abc": "literal-credential",
    "NOTE: AKIA0123456789ABCDEF": "literal-credential",
    "DATABASE: postgres://me:pw@db/x": "literal-credential",
    "A: '${env:HOME}'": "misplaced-variable",
    "A-B: x": "bad-form",
    "A: 5": "wrong-type",
}


@pytest.mark.req("CONFIG-15")
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_that_would_break_the_guard_is_refused(folder: Path, variable: str) -> None:
    """What programs load, what the sandbox sets, what nobody may read inside."""
    _refused(folder, f"sandbox:\n  secrets: [CRATES_TOKEN]\n  env:\n    {variable} #! {VARIABLES[variable]}\n")


@pytest.mark.req("CONFIG-15")
def test_harmless_variables_are_taken(folder: Path) -> None:
    """Words that only look alike, what a client insists on, interpreters' habits."""
    env = "{MODE: fast, MONKEY: x, KEYBOARD: us, OPENAI_API_KEY: unused, PYTHONUNBUFFERED: '1', TZ: UTC, EMPTY: ''}"
    assert 7 == len(_load(folder, f"sandbox: {{env: {env}}}\n").sandbox.env)


@pytest.mark.req("CONFIG-15")
def test_everything_wrong_is_told_at_once_for_agents_too(folder: Path) -> None:
    """One pass names each problem of each sandbox, with its line."""
    own = ", sandbox: {egress: [{host: 10.0.0.1}], env: {LD_AUDIT: x}, mounts: [/gone]}"
    with pytest.raises(InvalidFleet) as caught:
        _load(folder, "sandbox: {runtime: runsc, secrets: [GONE]}\n", own=own)
    codes = ["bad-host", "missing-file", "missing-variable", "reserved-variable", "sandbox-shape"]
    assert codes == sorted(found.code for found in caught.value.problems)


@pytest.mark.req("CONFIG-11")
def test_what_does_nothing_is_a_warning(folder: Path) -> None:
    """`stage` over reads holds nothing back; a secret that no header uses reaches nobody."""
    text = "sandbox:\n  secrets: [CRATES_TOKEN]\n  egress:\n    - host: crates.io\n      methods: [GET, HEAD]\n      stage: true\n"
    errors, warnings = check(_load(folder, text))
    assert [] == errors
    assert [("<fleet>:17", "idle-stage"), ("<fleet>:13", "idle-secret")] == [(w.where, w.code) for w in warnings]


@pytest.mark.req("CONFIG-11")
def test_a_rule_for_the_sandbox_itself_is_a_warning(folder: Path) -> None:
    """`localhost` inside a sandbox is the sandbox; a rule for it would never be asked for by most clients."""
    text = "sandbox:\n  egress:\n    - {host: localhost, private: true, methods: [GET]}\n    - {host: crates.io, methods: [GET]}\n"
    errors, warnings = check(_load(folder, text))
    assert ([], [("<fleet>:14", "own-host")]) == (errors, [(w.where, w.code) for w in warnings])


@pytest.mark.req("CONFIG-9", "CONFIG-14")
def test_the_sandbox_on_the_reference_page_loads(folder: Path) -> None:
    """What is shown works, and warns of nothing."""
    text = PAGE.read_text(encoding="utf-8").partition("## The sandbox")[2].partition("```yaml\n")[2].partition("```")[0]
    (folder / "data" / "prices").mkdir()
    text = text.replace("/var/log/dpkg.log", f"{folder}/scenario.yaml")
    assert ([], []) == check(_load(folder, text, environ={"GITHUB_TOKEN": "x"}))
