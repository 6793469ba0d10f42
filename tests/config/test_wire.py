"""config/wire.py writes what uvicorn itself would write, byte by byte, and leaves it in the same state."""

from __future__ import annotations

import asyncio
import logging

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from config import wire
from config.wire import Head, Wire

DEFAULTS = ((b"x-frame-options", b"DENY"), (b"cache-control", b"no-store"))
OWN = {"content-type": "text/plain", "cache-control": "no-cache"}
LINES = b"content-type: text/plain\r\ncache-control: no-cache\r\nx-frame-options: DENY\r\nx-request-id: 00ff\r\n"
PAIRS = [
    (b"content-type", b"text/plain"),
    (b"cache-control", b"no-cache"),
    (b"x-frame-options", b"DENY"),
    (b"x-request-id", b"00ff"),
]


class Transport:
    """What was written to a connection, and whether it was closed."""

    def __init__(self):
        self.wrote, self.is_closed = b"", False

    def write(self, data):
        self.wrote += data

    def close(self):
        self.is_closed = True


def cycle(method="POST", *, keep_alive=True, expects=False):
    transport, over = Transport(), []
    made = RequestResponseCycle(
        scope={"type": "http", "method": method},
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger("uvicorn.error"),
        access_logger=logging.getLogger("uvicorn.access"),
        access_log=False,
        default_headers=[(b"date", b"Tue, 24 Nov 2026 08:00:00 GMT")],
        message_event=asyncio.Event(),
        expect_100_continue=expects,
        keep_alive=keep_alive,
        on_response=lambda: over.append(1),
    )
    made.over = over
    return made


def state(of):
    return {
        "wrote": of.transport.wrote,
        "closed": of.transport.is_closed,
        "started": of.response_started,
        "complete": of.response_complete,
        "event": of.message_event.is_set(),
        "over": of.over,
        "keep_alive": of.keep_alive,
        "waits": of.waiting_for_100_continue,
    }


async def by_asgi(of, status, pairs, *parts):
    await of.send({"type": "http.response.start", "status": status, "headers": pairs})
    for part in parts[:-1]:
        await of.send({"type": "http.response.body", "body": part, "more_body": True})
    await of.send({"type": "http.response.body", "body": parts[-1], "more_body": False})
    return state(of)


def test_a_head_has_our_defaults_but_for_what_the_answer_brings():
    head = Head(DEFAULTS)
    assert head.lines(OWN, "00ff") == LINES
    assert head.lines(OWN, "00ff") == LINES, "the second time from memory"
    assert head.lines({}, "00ff") == b"x-frame-options: DENY\r\ncache-control: no-store\r\nx-request-id: 00ff\r\n"


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\rb", "a\0b"])
def test_s10_a_header_of_ours_cannot_splice_an_answer(value):
    with pytest.raises(ValueError, match="line end"):
        Head(DEFAULTS).lines({"x-switchboard-account": value}, "00ff")


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_whole_answer_is_what_uvicorn_writes(status, method, closes, keep_alive):
    more = {"connection": "close"} if closes else {}
    pairs = [*PAIRS[:2], (b"content-length", b"5"), *([(b"connection", b"close")] if closes else []), *PAIRS[2:]]
    body = b"" if method == "HEAD" else b"hello"
    expected = await by_asgi(cycle(method, keep_alive=keep_alive, expects=True), status, pairs, body)
    ours = cycle(method, keep_alive=keep_alive, expects=True)
    lines = Head(DEFAULTS).lines({**OWN, "content-length": "5", **more}, "00ff")
    Wire.behind(ours.send).whole(status, lines, b"hello", is_head=method == "HEAD", closes=closes)
    assert state(ours) == expected


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("parts", [[b""], [b"a"], [b"one", b"", b"x" * 300], [b"one", b"last"]])
async def test_a_stream_is_what_uvicorn_writes(parts, keep_alive):
    expected = await by_asgi(cycle(keep_alive=keep_alive), 200, PAIRS, *parts)
    ours = cycle(keep_alive=keep_alive)
    line = Wire.behind(ours.send)
    line.begin(200, LINES)
    for part in parts[:-1]:
        line.chunk(part)
    assert not ours.response_complete
    line.end(parts[-1])
    assert state(ours) == expected


async def test_a_reader_who_left_is_written_nothing():
    ours = cycle()
    ours.disconnected = True
    line = Wire.behind(ours.send)
    line.begin(200, LINES)
    line.chunk(b"a")
    line.end()
    line.whole(200, LINES, b"a", is_head=False, closes=False)
    assert state(ours) == state(cycle())


async def test_another_server_or_a_begun_answer_has_no_wire():
    async def send(message):
        """Of whatever server."""

    begun = cycle()
    begun.response_started = True
    assert Wire.behind(send) is None
    assert Wire.behind(begun.send) is None


# -- Heads of requests ---------------------------------------------------------------------------------------------------


class Peer(Transport):
    """A connection of uvicorn's that we hold the other end of."""

    def __init__(self, app):
        super().__init__()
        config = uvicorn.Config(app, http=wire.Protocol, ws="none", lifespan="off", log_config=None, access_log=False)
        config.load()
        self.protocol = wire.Protocol(config, ServerState(), {})
        self.protocol.connection_made(self)

    def abort(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed

    def get_extra_info(self, name):
        return None

    def resume_reading(self):
        pass

    pause_reading = resume_reading


async def app(scope, receive, send):
    body = b""
    while (message := await receive()).get("more_body") or not body:
        body += message.get("body", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\n"])
async def test_p3_a_head_that_never_ends_is_cut_off(begin):
    peer, fed = Peer(app), 0
    peer.protocol.data_received(begin)
    while not peer.is_closed and fed < 40:
        piece = (
            b"".join(b"h%d: %b\r\n" % (n, b"v" * 1000) for n in range(64)) if begin.endswith(b"\n") else b"a" * 65536
        )
        peer.protocol.data_received(piece)
        fed += 1
    assert peer.is_closed and 30 <= fed <= 34 and peer.wrote.startswith(b"HTTP/1.1 431 ")


async def test_p3_a_long_body_is_no_head_and_the_next_head_counts_from_nothing():
    peer = Peer(app)
    for _ in range(3):
        peer.wrote = b""
        peer.protocol.data_received(HEAD)
        for _ in range(3):
            peer.protocol.data_received(b"x" * 1_000_000)
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert peer.wrote.startswith(b"HTTP/1.1 200 ") and not peer.is_closed
    assert peer.protocol.head_size == 0


async def test_p3_who_owes_a_head_for_too_long_is_dropped():
    silent, dripping, busy, idle = (Peer(app) for _ in range(4))
    dripping.protocol.data_received(b"GET / HT")
    busy.protocol.data_received(HEAD)
    idle.protocol.data_received(HEAD + b"x" * 3_000_000)
    now = silent.protocol.loop.time()
    wire.drop_lingering([peer.protocol for peer in (silent, dripping, busy, idle)], now + wire.HEAD_SECONDS - 1)
    assert not any(peer.is_closed for peer in (silent, dripping, busy, idle))
    wire.drop_lingering([peer.protocol for peer in (silent, dripping, busy, idle)], now + wire.HEAD_SECONDS + 1)
    assert [peer.is_closed for peer in (silent, dripping, busy, idle)] == [True, True, False, False]


async def test_a_connection_that_nobody_uses_is_closed_without_a_timer_of_its_own(monkeypatch):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    used, unused = Peer(answer), Peer(answer)
    made = []
    loop = used.protocol.loop
    monkeypatch.setattr(loop, "call_later", lambda *args: made.append(args))
    for peer in (used, unused):
        peer.protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(10):
        await asyncio.sleep(0)
    assert used.wrote.startswith(b"HTTP/1.1 200 ") and not made
    limit = used.protocol.timeout_keep_alive
    connections = [used.protocol, unused.protocol]
    wire.drop_lingering(connections, loop.time() + limit - 0.5)
    assert not used.is_closed and not unused.is_closed
    used.protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\n")  # a next request has begun
    wire.drop_lingering(connections, loop.time() + limit + 0.5)
    assert not used.is_closed and unused.is_closed
