"""What an upstream or the way to it can do to a call: F1-F6 as bytes on a socket, for both calls.

Each ends in one of our errors, within its deadline, and quotes nothing of what was sent (K4).
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback

import psutil
import pytest

from providers import net
from providers.clients.errors import ProviderBroken, ProviderError, ProviderUnreachable
from tests.providers.net.raw_upstream import OK, RawUpstream, reset

pytestmark = pytest.mark.slow

SECRET = "sk-SENTINEL-4711"
HEADERS = {"Authorization": f"Bearer {SECRET}"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Outcome:
    """What a call came to: the text that arrived before the end, and the error, if any."""

    def __init__(self) -> None:
        self.text, self.error, self.seconds = b"", None, 0.0

    @property
    def code(self) -> str:
        return self.error.code if self.error else ""


async def by_request(url: str, *, connect=0.4, headers=0.4, idle=0.4, total=0.9) -> Outcome:
    outcome, begun = Outcome(), time.monotonic()
    try:
        outcome.text = (
            await net.request(
                "POST",
                url,
                headers=HEADERS,
                content=b"{}",
                deadline=min(headers + connect, total),
                connect_timeout=connect,
            )
        ).body
    except ProviderError as exc:
        outcome.error = exc
    outcome.seconds = time.monotonic() - begun
    return outcome


async def by_stream(url: str, *, connect=0.4, headers=0.4, idle=0.4, total=0.9) -> Outcome:
    outcome, begun = Outcome(), time.monotonic()
    try:
        async with net.open_stream(
            "POST",
            url,
            headers=HEADERS,
            content=b"{}",
            connect_timeout=connect,
            header_timeout=headers,
            idle_timeout=idle,
            total_timeout=total,
        ) as stream:
            async for chunk in stream.chunks():
                outcome.text += chunk
    except ProviderError as exc:
        outcome.error = exc
    outcome.seconds = time.monotonic() - begun
    return outcome


both_calls = pytest.mark.parametrize("call", [by_request, by_stream])


def quotes_nothing(error: BaseException | None) -> bool:
    """K4: neither the error nor anything it was raised from carries what was sent."""
    while error is not None:
        said = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        if SECRET in said or error.__cause__ is not None or error.__context__ is not None:
            return False
        error = error.__context__
    return True


@pytest.fixture(autouse=True)
async def nothing_stays_behind(caplog):
    """I20, K4: after each fault every socket of ours is closed, and no log line quotes the key."""
    caplog.set_level(logging.DEBUG)
    yield
    await net.close()
    assert await none_left(open_sockets, seconds=3)
    assert SECRET not in caplog.text
    assert "never retrieved" not in caplog.text


def open_sockets():
    return [conn for conn in psutil.Process().net_connections("tcp") if conn.status in {"ESTABLISHED", "SYN_SENT"}]


async def none_left(count, *, seconds: float) -> bool:
    """Whether `count()` becomes empty in time: the kernel and the loop need a moment after a close."""
    for _ in range(int(seconds * 50)):
        if not count():
            return True
        await asyncio.sleep(0.02)
    return False


# -- F1: nobody there --------------------------------------------------------------------------------------------------


@both_calls
async def test_a_refused_connection_is_unreachable(call, allow):
    async with RawUpstream() as gone:
        pass
    allow(gone.target)
    outcome = await call(gone.url)
    assert (type(outcome.error), outcome.code) == (ProviderUnreachable, "unreachable")
    assert outcome.seconds < 1
    assert quotes_nothing(outcome.error)


@both_calls
async def test_a_name_that_does_not_exist_is_unreachable(call, allow, resolver):
    outcome = await call("https://missing.example.org/v1")
    assert outcome.code == "unreachable"
    assert quotes_nothing(outcome.error)


@both_calls
async def test_a_resolver_that_hangs_ends_at_the_connect_deadline(call, allow, monkeypatch):
    monkeypatch.setattr(net, "_lookup", lambda host, port: time.sleep(2) or ["127.0.0.1"])
    outcome = await call("https://slow.example.org/v1", connect=0.3, headers=5, total=5)
    assert outcome.code == "unreachable"  # and not "timeout": that one may have cost something
    assert outcome.seconds < 1


def test_a_resolver_that_hangs_does_not_hold_up_a_finished_task(allow, monkeypatch):
    """A Celery task ends with asyncio.run(), which would wait for the loop's own threads."""
    monkeypatch.setattr(net, "_lookup", lambda host, port: time.sleep(2) or ["127.0.0.1"])
    begun = time.monotonic()
    outcome = asyncio.run(by_request("https://slow.example.org/v1", connect=0.3, headers=5, total=5))
    assert outcome.code == "unreachable"
    assert time.monotonic() - begun < 1.5


@both_calls
async def test_the_next_address_is_tried_when_the_first_is_dead(call, allow, resolver):
    """F1: a name with two addresses, nobody listening at the first."""
    async with RawUpstream(host="127.0.0.3") as upstream:
        allow(f"models.lan:{upstream.port}")
        resolver.names["models.lan"] = ["127.0.0.2", "127.0.0.3"]
        outcome = await call(f"http://models.lan:{upstream.port}/v1")
        assert (outcome.code, outcome.text) == ("", b"{}")


# -- F3, F4: silence and drip ------------------------------------------------------------------------------------------


async def hold(upstream, writer, heard):
    await writer.drain()
    await upstream.reader_gone(writer)


@both_calls
async def test_silence_before_the_headers_ends_at_their_deadline(call, allow):
    async with RawUpstream(hold) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url, headers=0.2, total=5)
        assert (type(outcome.error), outcome.code) == (ProviderUnreachable, "timeout")
        assert 0.2 <= outcome.seconds < 1
        assert len(upstream.requests) == 1
        assert quotes_nothing(outcome.error)


@both_calls
@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200", HEAD, HEAD + b"X: "])
async def test_half_a_head_and_then_silence_ends_too(call, said, allow):
    async def half(upstream, writer, heard):
        writer.write(said)
        await hold(upstream, writer, heard)

    async with RawUpstream(half) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url, headers=0.2, total=5)
        assert outcome.code == "timeout"
        assert outcome.seconds < 1


@both_calls
@pytest.mark.parametrize("said", [b"", b"data: hello\n\n"])
async def test_silence_after_the_headers_ends_at_the_idle_deadline(call, said, allow):
    async def then_silent(upstream, writer, heard):
        writer.write(HEAD + b"\r\n" + said)
        await hold(upstream, writer, heard)

    async with RawUpstream(then_silent) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url, idle=0.3, total=0.8)
        assert outcome.code == "timeout"
        assert 0.3 <= outcome.seconds < 1.2
        assert quotes_nothing(outcome.error)
        if call is by_stream:
            assert outcome.text == said
            assert outcome.seconds < 0.6


@both_calls
async def test_a_slow_drip_ends_at_the_total_deadline(call, allow):
    """F4: a byte every 50 ms trips no idle timer."""

    async def drip(upstream, writer, heard):
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with RawUpstream(drip) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url, total=0.7)
        assert outcome.code == "timeout"
        assert 0.7 <= outcome.seconds < 1.2
        if call is by_stream:
            assert 5 <= len(outcome.text) <= 15


@both_calls
@pytest.mark.parametrize("drop", [b"X", b"X-A: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_headers_that_drip_end_at_their_deadline(call, drop, allow):
    async def drip(upstream, writer, heard):
        if not drop.startswith(b"HTTP"):
            writer.write(HEAD)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    async with RawUpstream(drip) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url, connect=0.2, headers=0.3, total=5)
        assert outcome.code in {"timeout", "unexpected_content"}
        assert outcome.seconds < 1.2


async def test_a_chunk_extension_that_drips_is_silence(allow):
    """F4: bytes that are no content do not count as an answer."""

    async def drip(upstream, writer, heard):
        writer.write(CHUNKED + b"5;x=")
        while True:
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with RawUpstream(drip) as upstream:
        allow(upstream.target)
        outcome = await by_stream(upstream.url, idle=0.3, total=5)
        assert outcome.code in {"timeout", "interrupted"}
        assert outcome.seconds < 1


async def test_a_reader_who_is_slow_is_not_taken_for_a_silent_upstream(allow):
    async def much(upstream, writer, heard):
        writer.write(HEAD + b"\r\n" + b"x" * 400_000)

    async with RawUpstream(much) as upstream:
        upstream.script = HEAD + b"Content-Length: 2000000\r\n\r\n" + b"x" * 2_000_000
        allow(upstream.target)
        total = 0
        async with net.open_stream("POST", upstream.url, headers={}, content=b"", idle_timeout=0.2) as stream:
            async for chunk in stream.chunks():
                if total == 0:
                    await asyncio.sleep(0.6)
                total += len(chunk)
        assert total == 2_000_000


async def test_the_total_deadline_ends_a_stream_nobody_reads(allow):
    """The connection is closed even while our own reader is busy elsewhere."""
    gone = asyncio.Event()

    async def endless(upstream, writer, heard):
        writer.write(HEAD + b"\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        finally:
            gone.set()

    async with RawUpstream(endless) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"", total_timeout=0.3) as stream:
            await asyncio.wait_for(gone.wait(), 2)
            kept = 0
            with pytest.raises(ProviderUnreachable) as caught:
                async for chunk in stream.chunks():
                    kept += len(chunk)
            assert caught.value.code == "timeout"
            assert kept >= 65536  # I9: what had arrived is not lost


@both_calls
async def test_an_upstream_that_never_reads_lets_go_of_its_socket(call, allow, monkeypatch):
    """I20: the request itself does not fit into the socket; closing must not wait for its last byte."""
    monkeypatch.setattr(net, "UNSENT_TIMEOUT", 2)

    async def deaf(reader, writer):
        writer.transport.pause_reading()
        await asyncio.sleep(10)

    async with RawUpstream(on_connect=deaf) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable) as caught:
            if call is by_request:
                await net.request("POST", upstream.url, content=b"x" * 20_000_000, deadline=0.4)
            else:
                async with net.open_stream(
                    "POST", upstream.url, headers={}, content=b"x" * 20_000_000, header_timeout=0.4, connect_timeout=1
                ):
                    pass
        assert caught.value.code == "timeout"
        assert await none_left(lambda: [made for made in open_sockets() if made.raddr.port == upstream.port], seconds=5)


# -- F5, F6: cuts ------------------------------------------------------------------------------------------------------


@both_calls
async def test_a_reset_before_the_first_byte_is_interrupted_and_not_sent_twice(call, allow):
    async def cut(upstream, writer, heard):
        reset(writer)

    async with RawUpstream(cut) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url)
        assert (type(outcome.error), outcome.code) == (ProviderBroken, "interrupted")
        assert len(upstream.requests) == 1
        assert not outcome.error.permanent
        assert quotes_nothing(outcome.error)


@pytest.mark.parametrize("end", [reset, lambda writer: writer.close()])
async def test_even_a_get_is_sent_once(end, allow):
    """F9: one retry loop, and it is not here."""

    async def cut(upstream, writer, heard):
        end(writer)

    async with RawUpstream(cut) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderBroken) as caught:
            await net.request("GET", upstream.url)
        assert caught.value.code == "interrupted"
        with pytest.raises(ProviderBroken):
            async with net.open_stream("GET", upstream.url, headers={}, content=b""):
                pass
        assert len(upstream.requests) == 2


CUTS = {
    "short content-length": HEAD + b"Content-Length: 100\r\n\r\ndata: hello\n\n",
    "no last chunk": CHUNKED + b"d\r\ndata: hello\n\n\r\n",
    "inside a chunk": CHUNKED + b"20\r\ndata: hello\n\n",
    "inside the last chunk's line": CHUNKED + b"d\r\ndata: hello\n\n\r\n0\r",
}


@both_calls
@pytest.mark.parametrize("answer", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("hard", [False, True], ids=["end of file", "reset"])
async def test_a_cut_body_is_interrupted_and_what_came_is_kept(call, answer, hard, allow):
    async def cut(upstream, writer, heard):
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(0.05)
        if hard:
            reset(writer)
        else:
            writer.close()

    async with RawUpstream(cut) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url)
        assert (type(outcome.error), outcome.code) == (ProviderBroken, "interrupted")
        assert quotes_nothing(outcome.error)
        if call is by_stream:
            assert outcome.text == b"data: hello\n\n"


@pytest.mark.parametrize("hard", [False, True], ids=["end of file", "reset"])
async def test_the_last_words_before_a_cut_reach_a_reader_who_was_busy(hard, allow):
    """I9: text and cut arrive together, while our reader is elsewhere."""
    both_there = asyncio.Event()

    async def cut(upstream, writer, heard):
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"6\r\nsecond\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        if hard:
            reset(writer)
        else:
            writer.close()
        both_there.set()

    async with RawUpstream(cut) as upstream:
        allow(upstream.target)
        text = b""
        with pytest.raises(ProviderBroken) as caught:
            async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
                async for chunk in stream.chunks():
                    text += chunk
                    await both_there.wait()
                    await asyncio.sleep(0.1)
        assert caught.value.code == "interrupted"
        assert text == b"firstsecond"


BROKEN_CHUNKS = {
    "not a number": b"zz\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "too long a number": b"f" * 20 + b"\r\nhello",
    "size too small": b"2\r\nhello\r\n0\r\n\r\n",
    "no line end": b"5\r\nhelloXX0\r\n\r\n",
}


@both_calls
@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
async def test_broken_chunking_is_never_a_complete_answer(call, body, allow):
    async with RawUpstream(CHUNKED + body) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url)
        assert isinstance(outcome.error, ProviderBroken)
        assert outcome.code in {"interrupted", "unexpected_content"}
        assert quotes_nothing(outcome.error)


@both_calls
async def test_a_body_that_ends_with_the_connection_is_whole(call, allow):
    """F6: HTTP/1.0 manners. Whether the text is complete is for the reader of events to say."""
    async with RawUpstream(HEAD + b"\r\ndata: hello\n\n") as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url)
        assert (outcome.code, outcome.text) == ("", b"data: hello\n\n")


BROKEN_HEADS = {
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "html": b"<html>hello</html>\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "odd status": b"HTTP/1.1 999999 OK\r\n\r\n",
    "letters for a status": b"HTTP/1.1 abc OK\r\n\r\n",
    "header without a colon": b"HTTP/1.1 200 OK\r\nhello\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "zero byte": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    "switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
}


@both_calls
@pytest.mark.parametrize("answer", BROKEN_HEADS.values(), ids=BROKEN_HEADS)
async def test_an_answer_that_is_not_http_is_broken(call, answer, allow):
    """F7"""
    async with RawUpstream(answer) as upstream:
        allow(upstream.target)
        outcome = await call(upstream.url)
        assert isinstance(outcome.error, ProviderBroken), outcome.text
        assert outcome.code == ("interrupted" if answer == b"" else "unexpected_content")
        assert quotes_nothing(outcome.error)


@both_calls
async def test_an_answer_quoting_our_key_in_a_bad_head_is_not_repeated(call, allow):
    """K4, K5: the parser's own message would hold it."""
    for answer in (
        b"HTTP/1.1 200 OK\r\n" + SECRET.encode() + b"\r\n\r\n",
        SECRET.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + SECRET.encode() + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://" + SECRET.encode() + b"/\r\n\r\n",
        CHUNKED + SECRET.encode() + b"\r\n",
    ):
        async with RawUpstream(answer) as upstream:
            allow(upstream.target)
            outcome = await call(upstream.url)
            assert isinstance(outcome.error, ProviderBroken)
            assert quotes_nothing(outcome.error)


@both_calls
async def test_the_next_call_works_after_any_fault(call, allow):
    """I19"""
    async with RawUpstream() as upstream:
        allow(upstream.target)
        for answer in (*CUTS.values(), *BROKEN_HEADS.values(), *(CHUNKED + body for body in BROKEN_CHUNKS.values())):
            upstream.script = answer
            await call(upstream.url)
        upstream.script = OK
        outcome = await call(upstream.url)
        assert (outcome.code, outcome.text) == ("", b"{}")
