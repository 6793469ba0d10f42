"""The guard of every test is itself tested: leaving loopback fails, even if the attempt is swallowed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import network_guard

ROOT = Path(__file__).resolve().parent.parent

# TEST-NET-1 (RFC 5737): routed nowhere, so even without the guard nobody would be bothered.
ELSEWHERE = "192.0.2.1"


async def _by_asyncio() -> None:
    await asyncio.open_connection(ELSEWHERE, 80)


def _by_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (ELSEWHERE, 53))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: socket.create_connection((ELSEWHERE, 80), timeout=1),
        lambda: socket.create_connection(("10.0.0.1", 80), timeout=1),
        lambda: socket.create_connection(("2001:db8::1", 80), timeout=1),
        lambda: socket.create_connection(("::ffff:192.0.2.1", 80), timeout=1),
        lambda: asyncio.run(_by_asyncio()),
        _by_datagram,
        lambda: socket.getaddrinfo("models.example.com", 443),
    ],
    ids=["tcp", "private", "ipv6", "mapped", "asyncio", "udp", "dns"],
)
def test_every_way_out_is_shut_and_remembered(attempt):
    with pytest.raises(OSError):
        attempt()
    assert len(network_guard.take()) == 1


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=1).close()
    assert network_guard.take() == []


def test_a_name_that_cannot_exist_fails_like_dns_without_asking():
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("nowhere.invalid", 80)
    assert network_guard.take() == []


@pytest.mark.slow
@pytest.mark.once
def test_a_test_that_swallows_the_refusal_fails_all_the_same():
    planted = ROOT / "tests" / f"test_planted_{os.getpid()}.py"
    planted.write_text(
        "import socket\n"
        "def test_planted():\n"
        "    try:\n"
        f"        socket.create_connection(({ELSEWHERE!r}, 80), timeout=1)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(planted)],
            capture_output=True, text=True, cwd=ROOT, timeout=60,
        )  # fmt: skip
    finally:
        planted.unlink()
    assert result.returncode == 1, result.stdout
    assert "tried to leave loopback: socket.connect to 192.0.2.1:80" in result.stdout
