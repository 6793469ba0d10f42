"""Events of a reply: in order, no gap, no repeat, bounded, in memory and on a real Redis; and how they go out."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import aclosing

import pytest

from chat import sse, streams
from chat.rendering import render
from chat.streams import End, Update
from chat.transcript import Transcript
from providers.clients.base import Delta

ID = uuid.UUID("00000000-0000-0000-0000-000000000001")


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis_server)])
async def kept(request):
    if request.param == "memory":
        yield streams.MemoryStreams()
        return
    redis = streams.RedisStreams(request.getfixturevalue("redis_url"))
    await redis._redis.flushdb()
    yield redis
    await redis.close()


class Page:
    """What a browser does with events: a list of the HTML and reasoning it has, and the open tail."""

    def __init__(self) -> None:
        self.seq, self.closed, self.tail, self.reasoning, self.state, self.resets = 0, "", "", "", "", 0

    def take(self, event) -> None:
        if isinstance(event, End):
            self.state = event.state
            return
        if event.is_whole:
            self.closed = self.reasoning = ""
            self.resets += 1
        self.seq, self.tail = event.seq, event.tail
        self.closed += event.closed
        self.reasoning += event.reasoning

    async def follow(self, kept, until=None) -> Page:
        async with asyncio.timeout(10), aclosing(kept.listen(ID, self.seq, idle=1)) as events:
            async for event in events:
                if event is not None:
                    self.take(event)
                if until is not None and until(self):
                    break
        return self


async def write(kept, pieces, pause=0.0):
    for number, piece in enumerate(pieces, 1):
        await kept.append(ID, Update(number, closed=piece, tail=f"tail {number}", reasoning=f"({number})"))
        await asyncio.sleep(pause)
    await kept.finish(ID, End(len(pieces), "complete", "<p>whole</p>"))


async def test_a_listener_gets_everything_in_order_and_the_end(kept):
    await kept.append(ID, Update(0))
    page = Page()
    task = asyncio.create_task(page.follow(kept))
    await write(kept, ["a", "b", "", "c"], pause=0.02)
    await task
    assert (page.closed, page.tail, page.reasoning, page.state) == ("abc", "tail 4", "(1)(2)(3)(4)", "complete")


async def test_two_listeners_see_the_same(kept):
    """F16: two tabs, one of them late."""
    await kept.append(ID, Update(0))
    early, late = Page(), Page()
    first = asyncio.create_task(early.follow(kept))
    writer = asyncio.create_task(write(kept, [f"<p>{n}</p>" for n in range(20)], pause=0.01))
    await asyncio.sleep(0.1)
    await late.follow(kept)
    await asyncio.gather(first, writer)
    assert early.closed == late.closed == "".join(f"<p>{n}</p>" for n in range(20))


async def test_a_listener_that_comes_back_gets_what_it_lacks_and_nothing_twice(kept):
    """I9, F16: at every position."""
    await write(kept, ["a", "b", "", "c", "d"])
    for after, closed in enumerate(["abcd", "bcd", "cd", "cd", "d", ""]):
        page = Page()
        page.seq = after
        await page.follow(kept)
        assert (page.closed, page.state, page.resets) == (closed, "complete", 0), after


async def test_a_position_from_another_life_starts_over(kept):
    await kept.append(ID, Update(1, closed="a", tail="b"))
    page = Page()
    page.seq, page.closed = 77, "something else"
    await page.follow(kept, until=lambda page: page.seq == 1)
    assert (page.closed, page.tail, page.resets) == ("a", "b", 1)


async def test_a_whole_update_replaces_what_a_listener_has(kept):
    await kept.append(ID, Update(1, closed="a", reasoning="x"))
    behind = Page()
    behind.seq, behind.closed = 1, "a"
    await kept.append(ID, Update(3, closed="abc", reasoning="xyz", is_whole=True))
    await kept.append(ID, Update(4, closed="d"))
    for page in (behind, Page()):
        await page.follow(kept, until=lambda page: page.seq == 4)
        assert (page.closed, page.reasoning) == ("abcd", "xyz")


async def test_a_quiet_stream_gives_signs_of_life(kept):
    await kept.append(ID, Update(1, closed="a"))
    async with aclosing(kept.listen(ID, 1, idle=0.1)) as events:
        assert await anext(events) is None
        assert await anext(events) is None


async def test_where_there_is_no_stream_the_listener_is_told_at_once(kept):
    async with aclosing(kept.listen(ID, 0, idle=5)) as events:
        assert [event async for event in events] == []


async def test_what_is_kept_grows_with_the_text_and_not_with_its_readers_or_tails(kept):
    """F17: nobody reads; 2 000 updates with a tail of 10 kB each."""
    tail = "t" * 10_000
    for number in range(1, 2001):
        await kept.append(ID, Update(number, closed="c" if number % 100 == 0 else "", tail=tail))
    if isinstance(kept, streams.MemoryStreams):
        stream = kept._kept[ID]
        assert len(stream.pieces) == 20 and stream.latest.tail == tail
    else:
        assert await kept._redis.xlen(kept._key(ID)) == 21
    page = await Page().follow(kept, until=lambda page: page.seq == 2000)
    assert page.closed == "c" * 20


@pytest.mark.slow
async def test_an_ended_stream_leaves(kept, monkeypatch):
    monkeypatch.setattr(streams, "KEEP_ENDED_SECONDS", 1)
    await write(kept, ["a"])
    await asyncio.sleep(1.3)
    async with aclosing(kept.listen(ID, 0, idle=5)) as events:
        assert [event async for event in events] == []


@pytest.mark.redis_server
async def test_a_lost_redis_loses_no_reply_and_the_next_update_is_whole(redis_url):
    """F27."""
    kept = streams.RedisStreams("redis://127.0.0.1:1/0")
    assert await kept.append(ID, Update(1, closed="a")) is False
    kept._redis = streams.RedisStreams(redis_url)._redis
    await kept._redis.flushdb()
    assert await kept.append(ID, Update(2, closed="b")) is False, "a gap may not be papered over"
    assert await kept.append(ID, Update(3, closed="abc", is_whole=True)) is True
    page = await Page().follow(kept, until=lambda page: page.seq == 3)
    assert page.closed == "abc"
    await kept.close()


def test_what_listeners_put_together_is_what_a_reload_shows():
    """I9: for a text with every kind of block, cut in many ways."""
    text = (
        "# Title\n\nOne *two* three.\n\n- a\n- b\n\n```python\nprint(1)\n\nx = 2\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n$$\nx^2\n$$\n\n> quote\n\nThe end: $5 and $6."
    )
    for step in (1, 3, 7, 50, len(text)):
        transcript, page = Transcript(), Page()
        for start in range(0, len(text), step):
            transcript.add(Delta(text=text[start : start + step]))
            page.take(transcript.advance())
            transcript.published()
        assert transcript.saved().content == text
        seen = page.closed + page.tail
        assert page.seq == transcript.seq
        # Only the open block may look different: its code is coloured when it is closed.
        assert seen == str(render(text)), step


def test_a_saved_state_never_runs_ahead_of_what_was_published():
    transcript = Transcript()
    transcript.add(Delta(text="one "))
    transcript.advance()
    transcript.published()
    transcript.add(Delta(text="two"))
    transcript.advance()  # drawn, not yet with the listeners
    assert (transcript.saved().seq, transcript.saved().content) == (1, "one ")
    transcript.published()
    assert (transcript.saved().seq, transcript.saved().content) == (2, "one two")


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "a\rb", "\n\nevent: end\ndata: {}\n\n", "a\u2028b\u2029c\x85d\x0be", "\x00"]
)
def test_no_text_can_begin_an_event_of_its_own(text):
    """X4: whatever stands in it, an event is three lines and a blank one."""
    for event in (Update(1, closed=text, tail=text, reasoning=text, status=text), End(1, "complete", text)):
        wire = sse.encode(event)
        assert wire.endswith(b"\n\n") and wire.count(b"\n") == 4 and b"\r" not in wire and wire.isascii()
        names = [line.partition(b":")[0] for line in wire.split(b"\n")]
        assert names == [b"id", b"event", b"data", b"", b""]
        assert text in json.loads(wire.split(b"\n")[2].removeprefix(b"data: ")).values()


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, None, 0), (None, "5", 5), ("7", "5", 7), ("0", "5", 0), ("x", "5", 5), ("-1", None, 0),
        ("", "5", 5), ("9" * 30, "5", 5), ("٣", "5", 5), ("1.5", None, 0),
    ],
)  # fmt: skip
def test_the_position_is_the_headers_or_else_the_querys(header, query, expected):
    assert sse.position(header, query) == expected
