"""No test talks to another machine: a connect, datagram or look-up that would leave loopback fails the test.

An audit hook sees every socket Python opens, whatever library opens it (uvloop's sockets excepted: tests run on
asyncio's loop). The code under test gets an OSError, and even if it swallows that, the test fails afterwards.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

_violations: list[str] = []
_is_on = False

# Names that never resolve anywhere (RFC 6761). Asked for, they fail as DNS would, and nothing leaves.
_RESERVED = (".invalid", ".test", ".example", ".localhost", ".internal")


def _is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or host in {"", "localhost"}:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _is_on:
        return
    if event in {"socket.connect", "socket.sendto"}:
        address = args[1]
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            _violations.append(f"{event} to {address[0]}:{address[1]}")
            raise OSError(101, f"tests may only talk to loopback, not to {address[0]}")
    elif event == "socket.getaddrinfo":
        host = args[0].decode("ascii", "replace") if isinstance(args[0], bytes) else args[0]
        if not isinstance(host, str) or _is_loopback(host) or _is_literal(host):
            return
        if not host.rstrip(".").lower().endswith(_RESERVED):
            _violations.append(f"a DNS look-up of {host}")
        raise socket.gaierror(socket.EAI_NONAME, f"tests look up no names: {host}")


sys.addaudithook(_hook)


def switch(*, on: bool) -> None:
    global _is_on
    _is_on = on


def take() -> list[str]:
    """What was tried since the last call."""
    taken = _violations[:]
    _violations.clear()
    return taken
