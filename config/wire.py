"""All that we know of uvicorn's insides, in one place: answers of hot routes written below ASGI, and heads that end.

uvicorn's own `send` matches two regular expressions per header (we send a dozen, nearly all constant), builds the head
piece by piece and takes a coroutine and a dictionary per chunk: 70 µs of a plain `/v1` call, 10 of a chunk
(docs/adr/0013). Here the head is one string whose constant part is made once, and a chunk is one `write`.

The state that uvicorn keeps of an answer (RequestResponseCycle) is kept as its own `send` keeps it; uvicorn is pinned,
and tests/config/test_wire.py compares both ways byte by byte. Where the server is another, there is no Wire, and the
dispatcher speaks ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_HEAD = 2 << 20
"""Bytes of a request's head. Far beyond any real one, so that a token of 1 MB still hears that it is none (K6)."""

HEAD_SECONDS = 60.0
"""How long a connection may take to send the head of its first request, or of a next one it began."""


class Head:
    """The heads of our answers: `defaults` go along unless an answer brings its own of that name."""

    def __init__(self, defaults: Iterable[tuple[bytes, bytes]]) -> None:
        self._defaults = {name.decode(): b"%b: %b\r\n" % (name, value) for name, value in defaults}
        self._constant: dict[tuple[str, ...], bytes] = {}
        """Names an answer brings → the defaults it gets. Our code names them, so there are few."""

    def lines(self, headers: Mapping[str, str], request_id: str) -> bytes:
        """The header lines of an answer. Raises ValueError for what could splice it (S10)."""
        own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if own.count("\n") != len(headers) or own.count("\r") != len(headers) or "\0" in own:
            raise ValueError("a header of ours has a line end in it")
        names = tuple(headers)
        constant = self._constant.get(names)
        if constant is None:
            constant = b"".join([line for name, line in self._defaults.items() if name not in headers])
            if len(self._constant) < 64:
                self._constant[names] = constant
        return b"%b%bx-request-id: %b\r\n" % (own.encode("latin-1"), constant, request_id.encode())


class Wire:
    """One answer on its connection: `whole`, or `begin`, `chunk` as often as you like, and `end`."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @classmethod
    def behind(cls, send: Callable[[Any], Awaitable[None]]) -> Wire | None:
        """The connection behind an ASGI `send` that has sent nothing yet; None if the server is not uvicorn."""
        cycle = getattr(send, "__self__", None)
        return cls(cycle) if type(cycle) is RequestResponseCycle and not cycle.response_started else None

    @property
    def is_full(self) -> bool:
        """The reader does not keep up: `await drained()` before the next chunk."""
        return self._cycle.flow.write_paused and not self._cycle.disconnected

    async def drained(self) -> None:
        """Return when the reader has taken what was written, or has left."""
        await self._cycle.flow.drain()

    def whole(self, status: int, lines: bytes, body: bytes, *, is_head: bool, closes: bool) -> None:
        """Head and body in one write. `lines` name the body's length. `closes`: they say "connection: close"."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        head = self._head(status, lines, closes=closes)
        cycle.transport.write(head if is_head else head + body)
        self._is_complete()

    def begin(self, status: int, lines: bytes) -> None:
        """The head of an answer whose length nobody knows."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.chunked_encoding = cycle.scope["method"] != "HEAD"
        framing = b"transfer-encoding: chunked\r\n" if cycle.chunked_encoding else b""
        cycle.transport.write(self._head(status, lines, framing))

    def chunk(self, body: bytes) -> None:
        """One piece of the body; nothing for a reader who has left."""
        cycle = self._cycle
        if body and cycle.chunked_encoding and not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def end(self, last: bytes = b"") -> None:
        """The end of the body, after `last`."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        if cycle.chunked_encoding:
            cycle.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n")
        self._is_complete()

    def abort(self) -> None:
        """Drop the connection at once: uvicorn's own close would wait for the reader to read on (F17)."""
        self._cycle.transport.abort()

    def _head(self, status: int, lines: bytes, framing: bytes = b"", *, closes: bool = False) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        if closes:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            lines += b"connection: close\r\n"
        server = b"".join([b"%b: %b\r\n" % pair for pair in cycle.default_headers])  # the date
        return b"%b%b%b%b\r\n" % (STATUS_LINE[status], server, lines, framing)

    def _is_complete(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, whose parser would collect a head that never ends until the memory does (P3).

    The head is counted as it comes, one addition per read; its time is looked at by `drop_lingering`.
    """

    head_size = 0
    """Bytes of the head that is coming; -1 while a request is under way."""
    head_began: float | None = None
    idle_since: float | None = None
    """When its last answer ended, until the next request comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self.idle_since = None
        if self.head_size >= 0:
            self.head_size += len(data)
            if self.head_began is None:
                self.head_began = self.loop.time()
        super().data_received(data)
        if self.head_size > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(b"%bconnection: close\r\ncontent-length: 0\r\n\r\n" % STATUS_LINE[431])
            self.transport.close()

    def on_headers_complete(self) -> None:
        self.head_size, self.head_began = -1, None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.head_size = 0

    def on_response_complete(self) -> None:
        """uvicorn's, but that it makes a timer per answer, to close what stays idle: `drop_lingering` looks for all."""
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.idle_since = self.loop.time()


def drop_lingering(connections: Iterable[Any], now: float) -> None:
    """Close every connection that owes us a head for too long, or that nobody uses. `now` is the event loop's time."""
    for connection in list(connections):
        began, idle_since = getattr(connection, "head_began", None), getattr(connection, "idle_since", None)
        if began is not None and now - began > HEAD_SECONDS:
            connection.transport.abort()
        elif idle_since is not None and now - idle_since > connection.timeout_keep_alive:
            connection.transport.close()
