"""HTTP/1.1 by hand on asyncio's sockets: a framework would repair the faults this upstream is here to make.

A `Server` listens on loopback and answers one exchange after the other per connection. What is sent is decided in
`routes.py` and `faults.py`; this module knows bytes, not models.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEAD = 64 << 10
MAX_BODY = 32 << 20


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


class Left(Exception):
    """The other side closed the connection."""


class Closed(Exception):
    """We closed the connection on purpose: nothing more is to be said in this exchange."""


@dataclass
class Record:
    """One request as it came in, and how it ended: `open`, `answered`, `left` (the client closed) or `cut` (we did)."""

    number: int
    connection: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: str
    at: float
    ended: str = "open"
    seconds: float | None = None
    sent: int = 0
    """Bytes of the answer written so far."""

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "connection": self.connection,
            "method": self.method,
            "path": self.path,
            "headers": dict(self.headers),
            "header_list": [list(pair) for pair in self.headers],
            "body": self.body,
            "ended": self.ended,
            "seconds": self.seconds,
            "sent": self.sent,
        }


@dataclass
class Gate:
    """Holds every stream after its first `after` pieces until somebody opens it, so that tests need no clock."""

    after: int = 0
    waiting: int = 0
    event: asyncio.Event | None = None

    def shut(self, after: int) -> None:
        self.open()
        self.after, self.event = after, asyncio.Event()

    def open(self) -> None:
        if self.event is not None:
            self.event.set()
        self.event = None

    async def pass_after(self, count: int, exchange: Exchange) -> None:
        """Wait if `count` pieces have been sent and the gate is shut. Raises Left when the client goes meanwhile."""
        if self.event is None or count < self.after:
            return
        self.waiting += 1
        exchange.server.changed()
        try:
            await exchange.until(self.event.wait())
        finally:
            self.waiting -= 1


class Exchange:
    """One request and the answer to it. Everything written goes straight to the socket."""

    def __init__(self, connection: _Connection, record: Record, target: str, body: bytes) -> None:
        self.connection, self.record = connection, record
        self.server = connection.server
        parts = urlsplit(target)
        self.method, self.path = record.method, unquote(parts.path)
        self.query = dict(parse_qsl(parts.query))
        self.headers = {name.lower(): value for name, value in record.headers}
        self.body = body
        self.keep_alive = self.headers.get("connection", "").lower() != "close"
        self._is_chunked = False

    # -- waiting

    async def until(self, coroutine: Awaitable[Any]) -> Any:
        """Await, but raise Left as soon as the client has gone."""
        task = asyncio.ensure_future(coroutine)
        gone = asyncio.ensure_future(self.connection.gone.wait())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Left
        finally:
            task.cancel()
            gone.cancel()

    async def pause(self, seconds: float) -> None:
        """Sleep `seconds`, divided by the server's speed. Raises Left when the client goes meanwhile."""
        seconds = seconds / self.server.speed if self.server.speed else 0
        if self.connection.gone.is_set():
            raise Left
        if seconds:
            await self.until(asyncio.sleep(seconds))
        else:
            await asyncio.sleep(0)

    async def wait(self, seconds: float) -> None:
        """Sleep `seconds` whatever the speed is. Raises Left when the client goes meanwhile."""
        await self.until(asyncio.sleep(seconds))

    async def silence(self) -> None:
        """Say nothing until the client gives up."""
        await self.connection.gone.wait()
        raise Left

    # -- writing

    async def write(self, data: bytes) -> None:
        """Raw bytes, as they are."""
        await self.connection.write(data)
        self.record.sent += len(data)

    async def head(self, status: int = 200, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        """Status line, headers, the blank line, and `content`, in one write."""
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if headers and headers.get("Connection") == "close":
            self.keep_alive = False
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + content)

    async def answer(self, status: int, content: bytes, kind: str = "application/json", **more: str) -> None:
        """A whole response with a Content-Length. `more`: header names with _ for -."""
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        await self.head(status, headers, content)

    async def json(self, value: Any, status: int = 200, **more: str) -> None:
        await self.answer(status, encode(value), **more)

    async def refuse(self, status: int, message: str, code: str | None = None, **more: str) -> None:
        """An error in OpenAI's shape."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            status, "invalid_request_error" if status < 500 else "server_error"
        )
        await self.json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, **more)

    async def open_stream(self, kind: str = "text/event-stream; charset=utf-8", **more: str) -> None:
        """Headers of a chunked response; `chunk` then sends its pieces and `end_stream` ends it."""
        headers = {"Content-Type": kind, "Cache-Control": "no-cache", "Transfer-Encoding": "chunked"}
        await self.head(200, headers | {name.replace("_", "-"): value for name, value in more.items()})
        self._is_chunked = True

    async def open_unframed(self, kind: str = "text/event-stream; charset=utf-8", **more: str) -> None:
        """Headers of a response that ends when the connection does; `chunk` sends its pieces raw."""
        headers = {"Content-Type": kind, "Connection": "close"}
        await self.head(200, headers | {name.replace("_", "-"): value for name, value in more.items()})
        self._is_chunked = False

    async def chunk(self, data: bytes) -> None:
        if not data:
            return
        await self.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    async def event(self, value: Any) -> None:
        """One SSE frame of JSON."""
        await self.chunk(b"data: " + encode(value) + b"\n\n")

    async def end_stream(self) -> None:
        if self._is_chunked:
            await self.write(b"0\r\n\r\n")
        else:
            self.keep_alive = False

    # -- ending the connection

    def hang_up(self) -> None:
        """Close cleanly (FIN), whatever was promised. Raises Closed."""
        self.connection.close()
        raise Closed

    async def reset(self) -> None:
        """Close with a TCP reset (RST), after what was written has had time to arrive. Raises Closed."""
        if self.record.sent:
            await self.wait(0.05)
        self.connection.reset()
        raise Closed


_REASONS = {
    200: "OK", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect",
    308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large", 422: "Unprocessable",
    429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 529: "Site is overloaded",
}  # fmt: skip


class _Connection(asyncio.Protocol):
    """Reads requests off one socket and has them answered in order."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.number = 0
        self.gone = asyncio.Event()
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._writes = 0
        self.transport: asyncio.Transport
        self._task: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.number = self.server.opened(self)
        transport.set_write_buffer_limits(high=256 << 10)
        self._task = asyncio.ensure_future(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._more.set()
        if len(self._buffer) > MAX_HEAD + MAX_BODY:
            self.transport.abort()

    def eof_received(self) -> bool:
        self.gone.set()
        self._more.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._more.set()
        self._writable.set()
        self.server.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, data: bytes) -> None:
        if self.gone.is_set() or self.transport.is_closing():
            raise Left
        self.transport.write(data)
        self._writes += 1
        if self._writes % 16 == 0:  # whoever reads as fast as we write must not keep the loop from the others
            await asyncio.sleep(0)
        await self._writable.wait()
        if self.gone.is_set():
            raise Left

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def _read_until(self, size: Callable[[], int | None]) -> bytes | None:
        """The first bytes of the buffer as soon as `size()` knows how many; None when the client leaves first."""
        while (count := size()) is None:
            if self.gone.is_set():
                return None
            self._more.clear()
            await self._more.wait()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _head_size(self) -> int | None:
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0 and len(self._buffer) > MAX_HEAD:
            raise ValueError("request head too large")
        return None if at < 0 else at + 4

    async def _serve(self) -> None:
        try:
            while True:
                exchange = await self._next()
                if exchange is None:
                    break
                await self._run(exchange)
                if not exchange.keep_alive:
                    break
        except (Closed, Left):
            return
        except (ValueError, UnicodeDecodeError):
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        finally:
            self.transport.close()

    async def _next(self) -> Exchange | None:
        raw = await self._read_until(self._head_size)
        if raw is None:
            return None
        lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        record = self.server.record(self, method, target, headers)
        exchange = Exchange(self, record, target, b"")
        length = int(exchange.headers.get("content-length") or 0)
        if not 0 <= length <= MAX_BODY:
            raise ValueError("body too large")
        body = await self._read_until(lambda: length if len(self._buffer) >= length else None)
        if body is None:
            record.ended = "left"
            return None
        exchange.body = body
        record.body = body.decode("utf-8", "replace")
        return exchange

    async def _run(self, exchange: Exchange) -> None:
        record, begun = exchange.record, time.monotonic()
        try:
            await self.server.handle(exchange)
            record.ended = "answered"
        except Closed:
            record.ended = "cut"
            raise
        except Left:
            record.ended = "left"
            raise
        finally:
            record.seconds = round(time.monotonic() - begun, 3)
            self.server.changed()


@dataclass
class Server:
    """Listens on 127.0.0.1. `handle` answers one exchange; `speed` divides every pause (0: no pauses).

    `keep`: remember requests for tests. They hold keys, in memory only, and are never kept otherwise.
    """

    handle: Callable[[Exchange], Awaitable[None]]
    speed: float = 1.0
    keep: bool = False
    gate: Gate = field(default_factory=Gate)
    listing: str = "normal"
    """The model list that is served: a name of shelf.LISTS."""
    records: list[Record] = field(default_factory=list)
    connections: int = 0
    """Connections accepted since the last reset."""

    def __post_init__(self) -> None:
        self._open: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._count = 0
        self._change = asyncio.Event()
        self.port = 0

    async def start(self, port: int = 0, sock: socket.socket | None = None) -> int:
        """Listen; returns the port. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        if sock is not None:
            self._listener = await loop.create_server(lambda: _Connection(self), sock=sock)
        else:
            self._listener = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.port

    async def stop_listening(self) -> None:
        """New connections are refused from here on; open ones go on (F1)."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def stop(self) -> None:
        await self.stop_listening()
        for connection in list(self._open):
            connection.transport.abort()

    def opened(self, connection: _Connection) -> int:
        self._open.add(connection)
        self.connections += 1
        self.changed()
        return self.connections

    def closed(self, connection: _Connection) -> None:
        self._open.discard(connection)
        self.changed()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def record(self, connection: _Connection, method: str, target: str, headers: list[tuple[str, str]]) -> Record:
        self._count += 1
        path = urlsplit(target).path
        record = Record(self._count, connection.number, method, target, headers, "", time.time())
        if self.keep and not path.startswith("/_control/"):
            self.records.append(record)
            self.changed()
        return record

    def reset(self) -> None:
        """Forget everything, let everybody go."""
        self.gate.open()
        self.records.clear()
        self.connections = 0
        self.listing = "normal"
        self._count = 0

    def changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def change(self) -> None:
        """Wait for a request, a connection or an end."""
        await self._change.wait()
