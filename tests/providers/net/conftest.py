"""Helpers for tests of the outbound door: its rules come back to what they were after each test."""

from __future__ import annotations

import socket

import pytest

from providers import net


class FakeResolver:
    """Names and what they stand for. A list of lists is answered in turn.

    What is not in the table does not exist, unless libc would take it for a number: 127.1, 0x7f000001.
    """

    def __init__(self) -> None:
        self.names: dict[str, list] = {}
        self.asked: list[str] = []

    def lookup(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            return [socket.inet_ntoa(socket.inet_aton(host))]  # OSError: no such name
        if answers and isinstance(answers[0], list):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        return list(answers)


@pytest.fixture
def allow():
    """Tell the door what the operator lists: `allow("127.0.0.1:80", hosts={"models.lan": ("127.0.0.1", 9000)})`."""
    before = net._rules

    def configure(*targets: str, hosts: dict[str, tuple[str, int]] | None = None) -> None:
        net.configure(net.Policy(private_targets=targets, hosts=hosts or {}))

    configure()
    yield configure
    net._rules = before
    net._admit.cache_clear()


@pytest.fixture
def resolver(monkeypatch):
    """Stands in for the system's resolver, behind all our checks."""
    made = FakeResolver()
    monkeypatch.setattr(net, "_lookup", made.lookup)
    return made
