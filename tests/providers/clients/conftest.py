"""The outbound door's two calls, replaced by a script of answers: what goes out is remembered, what comes in is ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from providers import net
from providers.clients.errors import ProviderError

KEY = "sk-live-0123456789abcdef"


@dataclass
class Call:
    method: str
    url: str
    headers: dict[str, str]
    body: Any

    @property
    def key(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


@dataclass
class Answer:
    """`body` as JSON or bytes; an exception instead is raised. `pieces` are a stream's chunks, an exception cuts it."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes | ProviderError] | None = None

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Upstream:
    """Answers with `route(call)`, or with what was put into `answers`, in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[Answer | ProviderError] = []
        self.route: Callable[[Call], Answer | ProviderError] | None = None
        self.open_streams = 0

    def answer(self, method: str, url: str, headers: Any, content: bytes | None) -> Answer:
        call = Call(method, url, dict(headers or {}), json.loads(content) if content else None)
        self.calls.append(call)
        found = self.route(call) if self.route else self.answers.pop(0)
        if isinstance(found, ProviderError):
            raise found
        return found


class FakeStream:
    def __init__(self, answer: Answer) -> None:
        self.status, self.headers, self._answer = answer.status, answer.headers, answer
        self._coming = self.chunks()

    async def next_chunk(self):
        while True:
            piece = await anext(self._coming, None)
            if piece != b"":  # the real one gives at least a byte
                return piece or b""

    async def chunks(self):
        for piece in self._answer.pieces if self._answer.pieces is not None else [self._answer.content()]:
            if isinstance(piece, ProviderError):
                raise piece
            yield piece

    async def read(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self.chunks()])[:limit]

    async def whole(self) -> net.Response:
        return net.Response(self.status, self.headers, b"".join([piece async for piece in self.chunks()]))


@pytest.fixture
def upstream(monkeypatch) -> Upstream:
    fake = Upstream()

    async def request(method, url, *, headers=None, json=None, content=None, max_bytes=0, deadline=30.0):
        found = fake.answer(method, url, headers, content)
        return net.Response(found.status, found.headers, found.content())

    @asynccontextmanager
    async def open_stream(method, url, *, headers, content, **limits):
        fake.limits = limits
        found = fake.answer(method, url, headers, content)
        fake.open_streams += 1
        try:
            yield FakeStream(found)
        finally:
            fake.open_streams -= 1

    monkeypatch.setattr(net, "request", request)
    monkeypatch.setattr(net, "open_stream", open_stream)
    return fake
