"""What our own reader of answers refuses, counts and never keeps: S8, S9, F3-F7, F12, I9 (providers/wire.py).

The expected results were written before the reader. What both calls have in common is in the other files of this folder.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import httptools
import pytest

from providers import net, wire
from providers.clients.errors import ProviderBroken, ProviderError, ProviderUnreachable
from tests.providers.net.raw_upstream import OK, RawUpstream, reset

pytestmark = pytest.mark.slow

H = b"HTTP/1.1 200 OK\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"Content-Length: 2\r\n\r\n{}"


async def ask(url, *, method="POST", content=b"{}", **limits):
    """(status, headers, body, code of the error)"""
    body, status, headers = b"", 0, {}
    try:
        async with net.open_stream(method, url, headers={}, content=content, **limits) as stream:
            status, headers = stream.status, dict(stream.headers)
            while chunk := await stream.next_chunk():
                body += chunk
    except ProviderError as exc:
        assert exc.__context__ is None
        return status, headers, body, exc.code
    return status, headers, body, ""


async def answered(answer, allow, **options):
    async with RawUpstream(answer) as upstream:
        allow(upstream.target)
        return await ask(upstream.url, header_timeout=2, idle_timeout=2, total_timeout=3, **options)


# -- What is not an answer ---------------------------------------------------------------------------------------------

NOT_ANSWERS = {
    "another protocol": b"RTSP/1.0 200 OK\r\n" + BODY,
    "and another": b"ICE/1.0 200 OK\r\n" + BODY,
    "radio": b"ICY 200 OK\r\n" + BODY,
    "lower case": b"http/1.1 200 OK\r\n" + BODY,
    "version 0.9": b"HTTP/0.9 200 OK\r\n" + BODY,
    "version 2.0": b"HTTP/2.0 200 OK\r\n" + BODY,
    "version 1.3": b"HTTP/1.3 200 OK\r\n" + BODY,
    "no head at all": b"hello, this is what HTTP/0.9 looked like",
    "blank lines first": b"\r\n\r\n" + H + BODY,
    "two spaces": b"HTTP/1.1  200 OK\r\n" + BODY,
    "four digits": b"HTTP/1.1 2000 OK\r\n" + BODY,
    "status 000": b"HTTP/1.1 000 OK\r\n" + BODY,
    "status 099": b"HTTP/1.1 099 OK\r\n" + BODY,
    "status 101 without a word": b"HTTP/1.1 101 Switching\r\n\r\n" + H + BODY,
    "informational with a body": b"HTTP/1.1 199 Odd\r\nContent-Length: 5\r\n\r\nhello" + H + BODY,
    "informational, then nonsense": b"HTTP/1.1 100 Continue\r\n\r\nnonsense\r\n\r\n",
    "informational, then another version": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/2.0 200 OK\r\n" + BODY,
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "one bare line feed": H + b"X: a\n" + BODY,
    "bare carriage return": H + b"X: a\rY: b\r\n" + BODY,
    "carriage return in the reason": b"HTTP/1.1 200 O\rK\r\n" + BODY,
    "folded by a space": H + b"X: a\r\n b\r\n" + BODY,
    "folded by a tab": H + b"X: a\r\n\tb\r\n" + BODY,
    "folded length": H + b"Content-Length:\r\n 2\r\n\r\n{}",
    "folded first line": H + b" X: a\r\n" + BODY,
    "space before the colon": H + b"Content-Length : 2\r\n\r\n{}",
    "no name": H + b": a\r\n" + BODY,
    "letters beyond ASCII in a name": H + b"X\xe9: a\r\n" + BODY,
    "control character": H + b"X: a\x01b\r\n" + BODY,
    "the same length twice": H + b"Content-Length: 2\r\n" + BODY,
    "a list of lengths": H + b"Content-Length: 2, 2\r\n\r\n{}",
    "length with a sign": H + b"Content-Length: +2\r\n\r\n{}",
    "length in hex": H + b"Content-Length: 0x2\r\n\r\n{}",
    "length with an underscore": H + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": H + b"Content-Length:\r\n\r\n{}",
    "length beyond 64 bits": H + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "chunks and length": H + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "length and chunks": H + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "zipped and in chunks": H + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks, then zipped": H + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks twice": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "identity coding": H + b"Transfer-Encoding: identity\r\n\r\n{}",
    "nearly chunked": H + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked behind a control character": H + b"Transfer-Encoding:\x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
}
BAD_CHUNKS = {
    "size in hex notation": b"0x2\r\n{}\r\n0\r\n\r\n",
    "size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "size with an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "size with a space": b"2 \r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "size beyond 64 bits": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "line feed after the size": b"2\n{}\r\n0\r\n\r\n",
    "line feed in an extension": b"2;a\n{}\r\n0\r\n\r\n",
    "line feed after the data": b"2\r\n{}\n0\r\n\r\n",
    "nothing after the data": b"2\r\n{}0\r\n\r\n",
    "folded trailer": b"2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n",
    "a length as a trailer": b"2\r\n{}\r\n0\r\nContent-Length: 2\r\n\r\n",
}


@pytest.mark.parametrize("answer", NOT_ANSWERS.values(), ids=NOT_ANSWERS)
async def test_what_can_be_read_in_two_ways_is_refused(answer, allow):
    """F6, F7: no lenience, no guess."""
    status, _, body, code = await answered(answer, allow)
    assert (status, body, code) == (0, b"", "unexpected_content")


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_chunks_that_are_nearly_right_are_broken(body, allow):
    """F6"""
    _, _, text, code = await answered(CHUNKED + body, allow)
    assert code == "unexpected_content"
    assert text in {b"", b"{}"}  # what came before is kept


# -- What is one -------------------------------------------------------------------------------------------------------

ANSWERS = {
    "length": (H + BODY, 200, b"{}"),
    "no reason": (b"HTTP/1.1 200\r\n" + BODY, 200, b"{}"),
    "no space for the reason": (b"HTTP/1.1 200 \r\n" + BODY, 200, b"{}"),
    "any case": (H + b"cOnTeNt-LeNgTh:2\r\n\r\n{}", 200, b"{}"),
    "spaces around the length": (H + b"Content-Length: \t 2 \t\r\n\r\n{}", 200, b"{}"),
    "chunks": (CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, b"{}"),
    "chunked, any case": (H + b"Transfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, b"{}"),
    "sizes with zeros and letters": (CHUNKED + b"000A\r\n0123456789\r\n000\r\n\r\n", 200, b"0123456789"),
    "extensions": (CHUNKED + b'2;a=b;c="d e"\r\n{}\r\n0;last\r\n\r\n', 200, b"{}"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nX-Checksum: 1\r\nX-Other: 2\r\n\r\n", 200, b"{}"),
    "until the connection ends": (H + b"\r\n{}", 200, b"{}"),
    "version 1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}", 200, b"{}"),
    "no content": (b"HTTP/1.1 204 No\r\n\r\n", 204, b""),
    "no content, with a length": (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", 204, b""),
    "length 0": (H + b"Content-Length: 0\r\n\r\n", 200, b""),
    "continue first": (b"HTTP/1.1 100 Continue\r\n\r\n" + H + BODY, 200, b"{}"),
    "hints first": (b"HTTP/1.1 103 Hints\r\nX-H: 1\r\nContent-Length: 9\r\n\r\n" * 3 + H + BODY, 200, b"{}"),
    "an upgrade nobody takes": (H + b"Upgrade: h2c\r\nConnection: upgrade\r\n" + BODY, 200, b"{}"),
    "a refusal": (b"HTTP/1.1 429 Slow\r\n" + BODY, 429, b"{}"),
}


@pytest.mark.parametrize(("answer", "status", "body"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_read(answer, status, body, allow):
    got_status, headers, got, code = await answered(answer, allow)
    assert (got_status, got, code) == (status, body, "")
    assert not {"x-checksum", "x-h"} & set(headers)  # neither trailers nor hints are headers


async def test_headers_arrive_as_they_were_sent(allow):
    answer = H + b"X-A: 1\r\nx-a:  2 \r\nX-B: caf\xe9\r\nX-C:\r\n" + BODY
    _, headers, _, _ = await answered(answer, allow)
    assert headers == {"x-a": "1, 2", "x-b": "caf\xe9", "x-c": "", "content-length": "2"}


async def test_an_answer_to_head_has_no_body(allow):
    async with RawUpstream(H + b"Content-Length: 12345\r\n\r\n") as upstream:
        allow(upstream.target)
        for _ in range(2):
            status, headers, body, code = await ask(upstream.url, method="HEAD", content=b"")
            assert (status, headers["content-length"], body, code) == (200, "12345", b"", "")


def outcome(pieces, *, is_clean=True, is_head=False, max_bytes=1 << 20):
    """What an Answer comes to that is fed `pieces`, then loses its connection: (status, headers, body, code)."""
    answer = wire.Answer(asyncio.get_running_loop(), is_head=is_head, max_bytes=max_bytes)
    for piece in pieces:
        answer.feed(piece)
    answer.lost(is_clean=is_clean)
    assert answer.is_over != (answer.error is not None)
    return answer.status, answer.headers, b"".join(answer._pieces), answer.error.code if answer.error else ""


async def test_how_the_bytes_are_cut_changes_nothing():
    """F10: each answer of the tables whole, byte by byte, and cut once at every place."""
    for answer in (
        *(a for a, _, _ in ANSWERS.values()),
        *NOT_ANSWERS.values(),
        *(CHUNKED + b for b in BAD_CHUNKS.values()),
    ):
        whole = outcome([answer])
        cuts = [[answer[:at], answer[at:]] for at in range(1, len(answer))]
        for pieces in ([answer[at : at + 1] for at in range(len(answer))], *cuts):
            status, headers, body, code = outcome(pieces)
            assert (status, body, code) == (whole[0], whole[2], whole[3]), pieces
            if status:
                assert headers == whole[1], pieces


async def test_no_mutation_of_an_answer_leaves_the_reader_waiting_or_in_pieces():
    """F6, F12: whatever comes, it ends whole or as one of our errors, and no body is longer than what was sent."""
    dice = random.Random(4711)
    seeds = [*(a for a, _, _ in ANSWERS.values()), *NOT_ANSWERS.values(), *(CHUNKED + b for b in BAD_CHUNKS.values())]
    tokens = [
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\0",
        b"0",
        b"f" * 16,
        b": ",
        b" ",
        b"HTTP/1.1 ",
        b"\xff",
        b"Content-Length: 3",
    ]
    over = 0
    for _ in range(8000):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data) + 1)
            match dice.randrange(4):
                case 0:
                    data[at:at] = dice.choice(tokens)
                case 1:
                    del data[at : at + dice.randint(1, 8)]
                case 2:
                    data[at : at + 1] = bytes([dice.randrange(256)])
                case _:
                    data[at:at] = dice.choice(seeds)[: dice.randrange(40)]
        pieces, sent = [], bytes(data)
        while sent:
            size = dice.randint(1, 60)
            pieces.append(sent[:size])
            sent = sent[size:]
        status, _, body, code = outcome(pieces, is_clean=dice.random() < 0.5, is_head=dice.random() < 0.1)
        assert len(body) <= len(data)
        assert code in {"", "unexpected_content", "interrupted"}
        if not code:
            over += 1
            assert 200 <= status < 1000
    assert over > 200  # the dice are not only noise


# -- Caps (S9, F12) ----------------------------------------------------------------------------------------------------

CAPS = {
    "a line as long as allowed": (H + b"X: " + b"v" * (wire.MAX_LINE - 3) + b"\r\n" + BODY, ""),
    "a line too long": (H + b"X: " + b"v" * wire.MAX_LINE + b"\r\n" + BODY, "response_too_large"),
    "a name too long": (H + b"n" * (wire.MAX_LINE + 1) + b": v\r\n" + BODY, "response_too_large"),
    "a reason too long": (b"HTTP/1.1 200 " + b"r" * wire.MAX_LINE + b"\r\n" + BODY, "response_too_large"),
    "as many headers as allowed": (H + b"X: v\r\n" * (wire.MAX_FIELDS - 1) + BODY, ""),
    "too many headers": (H + b"X: v\r\n" * wire.MAX_FIELDS + BODY, "unexpected_content"),
    "too many trailers": (
        CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: v\r\n" * wire.MAX_FIELDS + b"\r\n",
        "unexpected_content",
    ),
    "a trailer too long": (CHUNKED + b"2\r\n{}\r\n0\r\nX: " + b"v" * wire.MAX_LINE + b"\r\n\r\n", "response_too_large"),
    "too many hints": (b"HTTP/1.1 103 Hints\r\nX: v\r\n\r\n" * (wire.MAX_FIELDS + 1) + H + BODY, "unexpected_content"),
}


@pytest.mark.parametrize("size", [1 << 20, 4096, 100])
@pytest.mark.parametrize(("answer", "code"), CAPS.values(), ids=CAPS)
async def test_heads_and_trailers_have_an_end(answer, code, size):
    assert outcome([answer[at : at + size] for at in range(0, len(answer), size)])[3] == code


ENDLESS = {
    "status line": (b"HTTP/1.1 200 ", b"r" * 1000, "response_too_large"),
    "header name": (H, b"n" * 1000, "response_too_large"),
    "header value": (H + b"X: ", b"v" * 1000, "response_too_large"),
    "headers": (H, b"X: v\r\n" * 10, "unexpected_content"),
    "large headers": (H, b"X: " + b"v" * 4000 + b"\r\n", "unexpected_content"),
    "informational answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "unexpected_content"),
    "chunk extension": (CHUNKED + b"5;x=", b"y" * 1000, "unexpected_content"),
    "chunk size": (CHUNKED, b"0" * 1000, "unexpected_content"),
    "trailer": (CHUNKED + b"0\r\nX: ", b"v" * 1000, "unexpected_content"),
    "trailers": (CHUNKED + b"0\r\n", b"X: v\r\n" * 10, "unexpected_content"),
}


@pytest.mark.parametrize(("first", "block", "code"), ENDLESS.values(), ids=ENDLESS)
async def test_what_never_ends_is_ended_within_100_kb(first, block, code):
    """S9: not by a deadline: memory would fill long before."""
    answer = wire.Answer(asyncio.get_running_loop(), is_head=False, max_bytes=1 << 20)
    answer.feed(first)
    fed = len(first)
    while answer.error is None:
        answer.feed(block)
        fed += len(block)
        assert fed < 100_000
    assert answer.error.code == code
    assert answer._parser is None  # what it had gathered is gone


async def test_an_upstream_that_writes_faster_than_is_read_has_to_wait(allow):
    """S9, F17: a reader who is elsewhere costs a fixed amount of memory."""

    async def endless(upstream, writer, heard):
        writer.write(H + b"\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with RawUpstream(endless) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"", max_bytes=1 << 30) as stream:
            total = 0
            for _ in range(5):
                total += len(await stream.next_chunk())
                await asyncio.sleep(0.05)
                waiting = stream._answer.received - total
                assert waiting <= wire.HIGH_WATER + (256 << 10)
            while total < 20_000_000:
                total += len(await stream.next_chunk())


# -- Connections that are not given to the next call (S8) --------------------------------------------------------------

POISON = {
    "a whole answer": H + b"Content-Length: 6\r\n\r\npoison",
    "half an answer": H + b"Content-Le",
    "one letter": b"H",
    "nonsense": b"\0\0\0",
}


@pytest.mark.parametrize("pause", [0, 0.03], ids=["at once", "a little later"])
@pytest.mark.parametrize("more", POISON.values(), ids=POISON)
@pytest.mark.parametrize("first", ["stream", "request"])
async def test_what_comes_behind_an_answer_is_never_the_next_one(first, more, pause, allow):
    """S8: one user's answer must not reach another's call over a shared connection."""

    async def script(upstream, writer, heard):
        if not pause:
            writer.write(OK + (more if len(upstream.requests) == 1 else b""))
            return
        writer.write(OK)
        await writer.drain()
        if len(upstream.requests) == 1:
            await asyncio.sleep(pause)
            writer.write(more)

    async with RawUpstream(script) as upstream:
        allow(upstream.target)
        if first == "stream":
            # At once: its text is given out, but whether it was all of it is not known. Later: it was.
            assert (await ask(upstream.url))[2:] == (b"{}", "" if pause else "unexpected_content")
        else:
            with suppress(ProviderBroken):  # aiohttp's parser, given both at once, may refuse both
                assert (await net.request("POST", upstream.url, content=b"{}")).body == b"{}"
        for _ in range(100):
            if not upstream.open_connections or not (first == "stream" or pause):
                break
            await asyncio.sleep(0.02)
        assert (await ask(upstream.url))[2:] == (b"{}", "")
        assert (await net.request("POST", upstream.url, content=b"{}")).body == b"{}"
        if first == "stream" or pause:
            assert upstream.connections == 2  # the first was closed, the second serves both


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + BODY,
    ],
)
async def test_a_connection_that_is_to_be_closed_is_closed(answer, allow):
    async def script(upstream, writer, heard):
        writer.write(answer)

    async with RawUpstream(script) as upstream:
        allow(upstream.target)
        for _ in range(3):
            assert (await ask(upstream.url))[2:] == (b"{}", "")
        assert upstream.connections == 3


async def test_trailers_of_one_answer_do_not_reach_the_next(allow):
    """S8: httptools keeps the last trailer for whoever comes next; here nobody does."""

    async def script(upstream, writer, heard):
        writer.write(CHUNKED + b"2\r\n{}\r\n0\r\nX-Secret: mine\r\n\r\n" if len(upstream.requests) == 1 else OK)

    async with RawUpstream(script) as upstream:
        allow(upstream.target)
        for _ in range(2):
            _, headers, body, code = await ask(upstream.url)
            assert (body, code) == (b"{}", "")
            assert "x-secret" not in headers
        assert upstream.connections == 1


async def test_an_answer_before_the_request_was_sent_closes_the_connection(allow):
    async def hasty(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\n" + BODY)
        await writer.drain()
        writer.transport.pause_reading()
        await asyncio.sleep(0.5)

    async with RawUpstream(on_connect=hasty) as upstream:
        allow(upstream.target)
        for _ in range(2):
            status, _, body, code = await ask(upstream.url, content=b"x" * 20_000_000, header_timeout=3)
            assert (status, body, code) == (413, b"{}", "")
        assert upstream.connections == 2


async def test_a_connection_closed_while_it_waited_is_not_used_and_one_closed_in_use_is_not_sent_again(allow):
    """F9"""

    async def script(upstream, writer, heard):
        if len(upstream.requests) == 2:
            writer.close()
        else:
            writer.write(OK)

    async with RawUpstream(script) as upstream:
        allow(upstream.target)
        assert (await ask(upstream.url))[3] == ""
        assert (await ask(upstream.url))[3] == "interrupted"
        assert (await ask(upstream.url))[3] == ""
        assert (len(upstream.requests), upstream.connections) == (3, 2)


# -- How a body ends (F5, F6, I9) --------------------------------------------------------------------------------------


async def test_a_reset_is_no_end_of_a_body_without_a_length(allow):
    """F5: only a connection that is closed in peace ends such a body."""

    async def cut(upstream, writer, heard):
        writer.write(H + b"\r\nhello")
        await writer.drain()
        await asyncio.sleep(0.05)
        reset(writer)

    assert (await answered(cut, allow))[2:] == (b"hello", "interrupted")


async def test_the_end_and_an_error_can_be_asked_for_again(allow):
    async with RawUpstream(H + BODY) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
            assert [await stream.next_chunk() for _ in range(3)] == [b"{}", b"", b""]
        upstream.script = CHUNKED + b"2\r\n{}\r\n"
        with pytest.raises(ProviderBroken):
            async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
                assert await stream.next_chunk() == b"{}"
                for _ in range(2):
                    with pytest.raises(ProviderBroken) as caught:
                        await stream.next_chunk()
                    assert caught.value.code == "interrupted"
                raise caught.value


async def test_a_reader_who_was_cancelled_may_read_on(allow):
    go = asyncio.Event()

    async def script(upstream, writer, heard):
        writer.write(CHUNKED)
        await writer.drain()
        await go.wait()
        writer.write(b"2\r\n{}\r\n0\r\n\r\n")

    async with RawUpstream(script) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.next_chunk(), 0.05)
            go.set()
            assert await stream.next_chunk() == b"{}"


async def test_nonsense_in_the_body_closes_the_connection_though_nobody_reads(allow):
    gone = asyncio.Event()

    async def script(upstream, writer, heard):
        writer.write(CHUNKED + b"2\r\n{}\r\nnonsense")
        await writer.drain()
        await upstream.reader_gone(writer)
        gone.set()

    async with RawUpstream(script) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderBroken) as caught:
            async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
                await asyncio.wait_for(gone.wait(), 2)
                assert await stream.next_chunk() == b"{}"  # I9
                await stream.next_chunk()
        assert caught.value.code == "unexpected_content"


async def test_many_pieces_at_once_are_one_chunk(allow):
    pieces = b"".join(b"4\r\n%04d\r\n" % number for number in range(100))
    async with RawUpstream(CHUNKED + pieces + b"0\r\n\r\n") as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
            await asyncio.sleep(0.05)
            assert await stream.next_chunk() == b"".join(b"%04d" % number for number in range(100))
            assert await stream.next_chunk() == b""


async def test_silence_and_drip_in_the_head_end_at_its_deadline(allow):
    """F3, F4: one timer looks at both, the head and the body."""

    async def drip(upstream, writer, heard):
        for letter in (H + b"X: " + b"v" * 1000).decode():
            writer.write(letter.encode())
            await writer.drain()
            await asyncio.sleep(0.01)

    async with RawUpstream(drip) as upstream:
        allow(upstream.target)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(ProviderUnreachable) as caught:
            async with net.open_stream(
                "POST", upstream.url, headers={}, content=b"", connect_timeout=0.1, header_timeout=0.2, idle_timeout=60
            ):
                pass
        assert caught.value.code == "timeout"
        assert 0.3 <= loop.time() - begun < 0.8


def test_the_parser_is_used_as_strictly_as_it_comes():
    """Nobody switches llhttp's leniencies on, and a new release does not do it for us."""
    parser = httptools.HttpResponseParser(object())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(b"HTTP/1.1 200 OK\nX: y\n\n")
