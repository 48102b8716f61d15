"""Network: every way to somebody outside that is not the broker. See the package's head.

Nothing is sent to another machine, not even where that would work: for those a datagram socket is only given its destination, which
asks the kernel for a route and sends nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any, Final

from midwatch.sandbox.attacks.common import Told, attack, call

__all__ = ["NAMES", "NEIGHBOUR", "serve"]

_ELSEWHERE: Final = (
    ("169.254.169.254", 80), ("192.0.2.1", 443), ("10.0.0.1", 443), ("172.17.0.1", 2375), ("192.168.0.1", 80), ("2001:db8::1", 443),
    ("fe80::1%lo", 80), ("198.51.100.7", 53),
)  # fmt: skip
"""The address that clouds tell credentials at, addresses of documentation (RFC 5737, RFC 3849), usual private ones."""
_ENGINES: Final = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify", "/run/systemd/journal/socket", "/run/snapd.socket",
    "/run/udev/control", "/run/user/0/bus", "/run/user/1000/bus", "/tmp/.X11-unix/X0", "/dev/log", "/run/nscd/socket", "/run/uuidd/request",
)  # fmt: skip
_VSOCK, _ALG, _PACKET, _NETLINK = 40, 38, 17, 16
_FAMILIES: Final = (
    3,
    4,
    5,
    6,
    8,
    9,
    11,
    12,
    15,
    18,
    20,
    21,
    23,
    26,
    28,
    29,
    30,
    31,
    32,
    33,
    34,
    35,
    36,
    37,
    39,
    41,
    42,
    43,
    44,
    45,
)
_PATIENCE: Final = 1.0


def _connected(family: int, address: object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        client.connect(address)  # type: ignore[arg-type] # of any family
        return True


@attack()
def loopback_tcp(told: Told) -> str:
    """A server on the host's loopback address."""
    return "connected" if _connected(socket.AF_INET, ("127.0.0.1", told.tcp)) else ""


@attack()
def loopback_other_names(told: Told) -> str:
    """The same server by its other addresses."""
    for family, host in (
        (socket.AF_INET, "127.1.2.3"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
    ):
        with contextlib.suppress(OSError):
            if _connected(family, (host, told.tcp)):
                return f"connected by `{host}`"
    return ""


@attack()
def loopback_udp(told: Told) -> str:
    """A datagram to the host's loopback address, and its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.sendto(told.token.encode(), ("127.0.0.1", told.udp))
        return "answered" if client.recv(64) else ""


@attack()
def host_tcp(told: Told) -> str:
    """A server on the host's own address."""
    return "connected" if told.address and _connected(socket.AF_INET, (told.address, told.address_tcp)) else ""


@attack()
def route_elsewhere(_told: Told) -> str:
    """A way to any other machine."""
    for host, port in _ELSEWHERE:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect((host.partition("%")[0], port))
            return f"there is a route to `{host}` from `{client.getsockname()[0]}`"
    return ""


@attack()
def name_servers(_told: Told) -> str:
    """Whoever knows names, and tells them on: names carry data out."""
    servers = []
    with contextlib.suppress(OSError), open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
        servers = [line.split()[1] for line in file if line.startswith("nameserver") and len(line.split()) > 1]
    for server in servers:
        if server.startswith("127."):
            continue
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect((server.partition("%")[0], 53))
            return f"there is a route to `{server}`"
    return ""


@attack()
def interfaces(_told: Told) -> str:
    """A network card."""
    others = [
        name
        for _, name in socket.if_nameindex()
        if name != "lo"
        and not name.startswith(("tunl", "sit", "ip6tnl", "gre", "erspan", "ip_vti", "ip6_vti", "ip6gre"))
    ]
    return ", ".join(others)


@attack()
def abstract_socket(told: Told) -> str:
    """A socket of the host that has a name and no file."""
    return "connected" if _connected(socket.AF_UNIX, f"\0{told.abstract}") else ""


@attack()
def path_socket(told: Told) -> str:
    """A socket of the host that is a file."""
    return "connected" if _connected(socket.AF_UNIX, told.path_socket) else ""


@attack()
def engines(_told: Told) -> str:
    """Services of the host: container engines, the message bus, the log."""
    for path in _ENGINES:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as client:
                client.settimeout(_PATIENCE)
                client.connect(path)
                return f"connected to `{path}`"
    return ""


@attack()
def vsock(_told: Told) -> str:
    """The channel between a virtual machine and what runs it."""
    socket.socket(_VSOCK, socket.SOCK_STREAM).close()
    return "a socket"


@attack()
def kernel_ciphers(_told: Told) -> str:
    """The kernel's ciphers, as a socket."""
    socket.socket(_ALG, socket.SOCK_SEQPACKET).close()
    return "a socket"


@attack()
def raw_packets(_told: Told) -> str:
    """Packets as they come from the wire, or without the kernel's heads."""
    for family, kind, protocol in (
        (_PACKET, socket.SOCK_RAW, 768),
        (_PACKET, socket.SOCK_DGRAM, 768),
        (socket.AF_INET, socket.SOCK_RAW, 1),
    ):
        with contextlib.suppress(OSError):
            socket.socket(family, kind, protocol).close()
            return f"a socket of family {family}"
    return ""


@attack()
def odd_families(_told: Told) -> str:
    """Every other family of sockets that the kernel might load."""
    for family in _FAMILIES:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
            with contextlib.suppress(OSError):
                socket.socket(family, kind).close()
                return f"a socket of family {family}"
    return ""


@attack()
def odd_protocols(_told: Told) -> str:
    """Rare protocols over the usual families."""
    for kind, protocol in (
        (socket.SOCK_STREAM, 132),
        (socket.SOCK_SEQPACKET, 132),
        (6, 33),
        (socket.SOCK_STREAM, 262),
        (socket.SOCK_DGRAM, 136),
    ):
        with contextlib.suppress(OSError):
            socket.socket(socket.AF_INET, kind, protocol).close()
            return f"a socket of protocol {protocol}"
    return ""


@attack()
def kernel_messages(_told: Told) -> str:
    """The kernel's own message sockets, but the one that lists interfaces."""
    for protocol in (2, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 19, 20, 21):
        with contextlib.suppress(OSError):
            socket.socket(_NETLINK, socket.SOCK_RAW, protocol).close()
            return f"a socket of protocol {protocol}"
    return ""


@attack("information")
def own_name(told: Told) -> str:
    """The host's name."""
    return f"`{told.hostname}`" if told.hostname in (socket.gethostname(), os.uname().nodename) else ""


@attack()
def shared_memory(told: Told) -> str:
    """Memory that processes of the host share by number, and by file."""
    with contextlib.suppress(OSError):
        if os.stat(told.shared_file):
            return f"`{told.shared_file}` exists"
    result = call(told, "shmget", told.ipc_key, 0, 0) if told.ipc_key else -1
    return "a segment of the host" if result >= 0 else ""


@attack()
def neighbour_sockets(told: Told) -> str:
    """Another sandbox's server: by address, by name, by file."""
    there = told.neighbour
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", there["tcp"])),
            (socket.AF_UNIX, f"\0{there['abstract']}"),
            (socket.AF_UNIX, there["file"] + ".sock"),
        ):
            with contextlib.suppress(OSError):
                if _connected(family, address):
                    return f"connected to {address!r}"
        time.sleep(0.05)
    return ""


@attack()
def neighbour_files(told: Told) -> str:
    """Another sandbox's files, in its workspace and in its folder for temporary ones."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        for path in (told.neighbour["file"], f"{told.workspace}/neighbour-{told.neighbour['abstract']}"):
            with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
                return f"`{path}` says `{file.read(40)}`"
        time.sleep(0.05)
    return ""


@attack()
def neighbour_processes(told: Told) -> str:
    """Another sandbox's processes."""
    end = time.monotonic() + _PATIENCE
    mark = told.neighbour["abstract"].encode() + b"-serves"
    while time.monotonic() < end:
        for pid in (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                if mark in file.read():
                    return f"process {pid}"
        time.sleep(0.05)
    return ""


def serve(there: dict[str, Any], seconds: float) -> None:
    """Be the neighbour for a while."""
    file = str(there["file"])
    with contextlib.ExitStack() as stack:
        addresses: tuple[Any, ...] = (("127.0.0.1", there["tcp"]), f"\0{there['abstract']}", file + ".sock")
        for address in addresses:
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            server = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            server.bind(address)
            server.listen()
        for path in (file, f"{os.getcwd()}/neighbour-{there['abstract']}"):
            with open(path, "w", encoding="utf-8") as out:
                out.write("the neighbour was here")
        time.sleep(seconds)


NAMES: Final = (
    "loopback_tcp", "loopback_other_names", "loopback_udp", "host_tcp", "route_elsewhere", "name_servers", "interfaces", "abstract_socket",
    "path_socket", "engines", "vsock", "kernel_ciphers", "raw_packets", "odd_families", "odd_protocols", "kernel_messages", "own_name",
    "shared_memory",
)  # fmt: skip
NEIGHBOUR: Final = ("neighbour_sockets", "neighbour_files", "neighbour_processes")
