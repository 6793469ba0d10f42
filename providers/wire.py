"""Reading answers off a connection, cheaply and suspiciously: HTTP/1.1 by httptools (docs/adr/0013; S9, F3-F7, F12).

    Wire     aiohttp's protocol of one connection, which can also hand the bytes that come to an Answer
    Answer   one answer: head, body in pieces, how it ended

Opens nothing and decides nothing about whom to call: that is providers/net.py, the only module that uses this one.

httptools (llhttp, with none of its leniencies) finds the parts; what it has no limits for is counted here. Whatever
is odd ends the answer and closes the connection, and only one whose bytes ended where its answer did is kept.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.helpers import _EXC_SENTINEL

from providers.clients.errors import ProviderBroken, ProviderError

MAX_LINE = 8190
"""Bytes in one line of a head."""
MAX_HEAD = 64 << 10
"""Bytes of a head with all informational answers before it; and bytes in a row that bring no body: a chunk's extension,
its size, trailers. What arrives in one piece from the kernel (256 kB at most) is looked at as a whole."""
MAX_FIELDS = 128
"""Headers and trailers."""
HIGH_WATER = 128 << 10
"""Bytes that wait for our reader before the upstream is made to wait."""


class _Refused(Exception):
    """Raised through the parser to stop it. What went wrong is in the answer."""


class Answer:
    """One answer, as its bytes come. `status` is 0 until its head is there.

    Fed by Wire; the methods that begin with `on_` are called by the parser, within `feed`.
    """

    __slots__ = (
        "_dry",
        "_ends_with_connection",
        "_fed",
        "_fields",
        "_is_head",
        "_keeps",
        "_line",
        "_loop",
        "_most",
        "_parser",
        "_pieces",
        "_waiter",
        "_wire",
        "error",
        "headers",
        "is_over",
        "received",
        "status",
        "taken",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_head: bool, max_bytes: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """In lower case; repeated ones are joined."""
        self.received = self.taken = 0
        """Bytes of body, off the wire and given to our reader."""
        self.is_over = False
        """All of it was received."""
        self.error: ProviderError | None = None
        """Why there will be no more of it. What came before is given out first (I9)."""
        self._loop, self._is_head, self._most = loop, is_head, max_bytes
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._wire: Wire | None = None
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._fed = self._line = self._dry = self._fields = 0
        self._keeps = self._ends_with_connection = False

    # -- For the reader

    async def head(self) -> None:
        """Wait until `status` and `headers` are there. Raises ProviderError."""
        while not self.status:
            if self.error is not None:
                raise self.error
            await self._news()

    async def next_piece(self) -> bytes:
        """All of the body that is there, at least a byte of it; b"" at its end. Raises ProviderError."""
        pieces = self._pieces
        while not pieces:
            if self.error is not None:
                raise self.error
            if self.is_over:
                return b""
            await self._news()
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.taken += len(piece)
        if self.taken > self._most:
            self.fail(ProviderBroken("response_too_large", status=self.status))
            self.error = self.error or ProviderBroken("response_too_large", status=self.status)
            raise self.error
        if self._wire is not None and self._wire.is_held:
            self._wire.let_go()
        return piece

    async def _news(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def fail(self, error: ProviderError) -> None:
        """End it here and now, and its connection with it; unless it has ended."""
        if self.is_over or self._parser is None:
            return
        wire, self.error = self._wire, self.error or error
        self._ended()
        if wire is not None:
            wire.cut()

    # -- For the wire

    def sent_on(self, wire: Wire) -> None:
        self._wire = wire

    def feed(self, data: bytes) -> None:
        parser, had = self._parser, self.received
        if parser is None:
            return
        is_strange = not self.status and not self._begins_well(data)
        if not is_strange:
            try:
                parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                is_strange = True
        if is_strange and (not self.is_over or not self._is_head):
            # Bytes behind the end, too: was it the end, or is the length wrong? (What follows a HEAD is a body.)
            self.is_over = False
            self.fail(ProviderBroken("unexpected_content", status=self.status or None))
        elif self.is_over:
            self._give_back()
        elif not self.status:
            self._count_head(data)
        elif self.received == had:
            self._dry += len(data)
            if self._dry > MAX_HEAD:
                self.fail(ProviderBroken("unexpected_content", status=self.status))
        else:
            self._dry = 0
            if self.received - self.taken > HIGH_WATER and self._wire is not None:
                self._wire.hold()
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self.status or self.error is not None):
            waiter.set_result(None)

    def lost(self, *, is_clean: bool) -> None:
        """The connection is gone; `is_clean` if the other side closed it in peace."""
        if self.status and self._ends_with_connection and is_clean and self.error is None:
            self.is_over = True
            self._ended()
        else:
            self.fail(ProviderBroken("interrupted"))

    # -- For the parser

    def on_message_begin(self) -> None:
        if self.is_over:
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if len(name) + len(value) > MAX_LINE:
            self._refuse("response_too_large")
        if self._fields > MAX_FIELDS:
            self._refuse("unexpected_content")
        if self.status:
            return  # a trailer: counted and left out
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        headers = self.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self.headers
        status = parser.get_status_code()  # type: ignore[union-attr]
        if status < 200:
            if status < 100 or status == 101:  # 101: another protocol, which nobody asked for
                self._refuse("unexpected_content")
            headers.clear()
            return
        version = parser.get_http_version()  # type: ignore[union-attr]
        coding = headers.get("transfer-encoding")
        if (coding is not None and coding.lower() != "chunked") or version not in {"1.1", "1.0"}:
            self._refuse("unexpected_content")
        self._keeps = version == "1.1"
        self._ends_with_connection = coding is None and "content-length" not in headers
        self.status = status
        if self._is_head:  # the parser cannot know that no body follows
            self.is_over, self._keeps = True, False

    def on_body(self, piece: bytes) -> None:
        if self.is_over or not self.status:
            raise _Refused
        self._pieces.append(piece)
        self.received += len(piece)

    def on_message_complete(self) -> None:
        if self.status and not self.is_over:
            self.is_over = True
            self._keeps = self._keeps and self._parser.should_keep_alive()  # type: ignore[union-attr]

    # -- Inside

    def _refuse(self, code: str) -> None:
        if not self.is_over:
            self.error = ProviderBroken(code)
        raise _Refused

    def _begins_well(self, data: bytes) -> bool:
        """Whether these are the first bytes of HTTP/1, on a line that ends. The parser would also take RTSP."""
        if self._fed:
            return True
        if len(data) > MAX_LINE and data.find(b"\n", 0, MAX_LINE) < 0:
            self.error = ProviderBroken("response_too_large")
            return False
        return data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data)

    def _count_head(self, data: bytes) -> None:
        """`data` did not complete the head: the parser would wait for the rest for ever, and keep it all."""
        self._fed += len(data)
        at = data.rfind(b"\n")
        self._line = self._line + len(data) if at < 0 else len(data) - at - 1
        if self._line > MAX_LINE:
            self.fail(ProviderBroken("response_too_large"))
        elif self._fed > MAX_HEAD:
            self.fail(ProviderBroken("unexpected_content"))

    def _give_back(self) -> None:
        wire = self._wire
        self._ended()
        if wire is not None:
            wire.answered(keep=self._keeps)

    def _ended(self) -> None:
        """No byte of it will be read any more."""
        self._parser = self._wire = None  # the parser holds our methods: a circle
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Wire(ResponseHandler):
    """aiohttp's protocol of one connection: connected, pooled and closed by its connector.

    Either aiohttp reads from it (for `request()`), by `set_response_params`, or an Answer does, by `ask`. In between it
    is nobody's, and what comes then closes it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.is_held = False
        self._answer: Answer | None = None
        self._lease: Connection | None = None
        self._is_aiohttps = False

    def ask(self, lease: Connection, request: bytes, answer: Answer) -> bool:
        """Write `request`; what comes from now on is `answer`'s. False if that cannot be; then nothing was written."""
        transport = self.transport
        if transport is None or self._answer is not None or not self.is_connected():
            return False
        self._is_aiohttps, self._parser, self._payload = False, None, None
        self._answer, self._lease = answer, lease
        answer.sent_on(self)
        transport.write(request)
        return True

    def answered(self, *, keep: bool) -> None:
        """The answer is complete: the next call may have the connection, unless it was answered before it was asked."""
        lease, transport = self._lease, self.transport
        self._answer = self._lease = None
        if lease is None:
            return
        if self.is_held:
            self.let_go()
        if keep and transport is not None and not transport.get_write_buffer_size():
            lease.release()
        else:
            lease.close()

    def cut(self) -> None:
        """Close the connection at once."""
        lease, transport = self._lease, self.transport
        self._answer = self._lease = None
        if transport is not None:
            transport.abort()
        if lease is not None:
            lease.close()

    def hold(self) -> None:
        """Make the other side wait: our reader is slower."""
        if not self.is_held and self.transport is not None and not self.transport.is_closing():
            self.is_held = True
            self.transport.pause_reading()

    def let_go(self) -> None:
        self.is_held = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    # -- From the transport

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is not None:
            answer.feed(data)
        elif self._is_aiohttps and (self._payload is None or not self._payload.is_eof()):
            super().data_received(data)
        elif data and self.transport is not None:
            self.transport.abort()  # nobody has asked anything

    def connection_lost(self, exc: BaseException | None) -> None:
        answer, lease = self._answer, self._lease
        self._answer = self._lease = None
        super().connection_lost(exc)
        if answer is not None:
            answer.lost(is_clean=exc is None)
        if lease is not None:
            lease.close()

    # -- From aiohttp

    def set_response_params(self, **options: Any) -> None:
        self._is_aiohttps, self._payload = True, None
        super().set_response_params(**options)

    def feed_data(self, data: Any, size: int = 0) -> None:
        if data[0].code < 200:
            self._payload = None  # an answer is still to come
        super().feed_data(data, size)

    def is_connected(self) -> bool:
        """Whether the next call may use it: also not if more came than its last answer."""
        transport = self.transport
        return transport is not None and not transport.is_closing() and not self._buffer and not self._tail

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        """aiohttp alone leaves who reads a body waiting when the chunks turn to nonsense."""
        super().set_exception(exc, exc_cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(exc, exc_cause)
