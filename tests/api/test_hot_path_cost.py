"""What one `/v1` call costs, counted in things that do not depend on the machine (performance.md §6's regression test).

Counted per request, warm: database queries and connections of ours, hops into threads, asyncio tasks and timers made,
writes to the ledger. A number that grows here is a microsecond or ten there; bench/README.md has the times.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
from django.db import connections

from config import hot
from tests.api.conftest import chat, text_of
from usage import ledger

pytestmark = pytest.mark.slow


@contextmanager
def counted(monkeypatch):
    """Counts of what happened on this loop and in Django's database wrappers meanwhile."""
    counts: Counter[str] = Counter()
    loop = asyncio.get_running_loop()

    def counting(name, function):
        def counted(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(loop, "create_task", counting("tasks", loop.create_task))
        patch.setattr(loop, "call_later", counting("timers", loop.call_later))
        patch.setattr(loop, "run_in_executor", counting("thread hops", loop.run_in_executor))
        patch.setattr(hot, "in_thread", counting("orm hops", hot.in_thread))
        patch.setattr(ledger, "_submit", counting("rows by the ledger's thread", ledger._submit))
        before = ledger.counts()[1]
        yield counts
        counts["ledger writes"] = ledger.counts()[1] - before


async def warm(door, body):
    """Caches filled, connections open, the ledger's thread running."""
    for _ in range(3):
        assert (await door.post(body)).status == 200
    await asyncio.sleep(0.1)


async def test_a_warm_plain_call_makes_one_task_no_hop_and_two_ledger_writes(door, upstream, monkeypatch):
    monkeypatch.setattr("config.dispatcher.ROUND_SECONDS", 60)  # no round, no watcher: these calls are short
    monkeypatch.setattr(ledger, "AT_ONCE", 5.0)  # nor a commit that is slow because the machine is busy
    await warm(door, chat("echo"))
    with counted(monkeypatch) as counts:
        for _ in range(10):
            assert (await door.post(chat("echo"))).status == 200
    assert counts["ledger writes"] == 20, "one row before the call, one settle after it"
    assert counts["rows by the ledger's thread"] == 0, "a call that is alone commits on the spot"
    assert counts["orm hops"] == counts["thread hops"] == 0, "token and routes come from memory"
    assert counts["tasks"] == 10, "the caller's own (the server makes it), and no other"
    assert counts["timers"] <= 2, "one for all upstream answers and one for all waiting rows, now and then"
    assert upstream.connections <= 1, "the upstream's connection is kept"


async def test_a_warm_stream_makes_one_task_however_many_chunks_it_has(door, upstream, monkeypatch):
    monkeypatch.setattr("config.dispatcher.ROUND_SECONDS", 60)
    await warm(door, chat("markdown", stream=True))
    with counted(monkeypatch) as counts:
        answer = await door.post(chat("markdown", stream=True))
    chunks = answer.body.count(b"data: ")
    assert chunks > 20 and text_of_stream(answer)
    assert counts["tasks"] == 1 and counts["orm hops"] == 0 and counts["ledger writes"] == 2
    assert counts["timers"] <= 2, f"{counts['timers']} timers for {chunks} chunks"


def text_of_stream(answer):
    return text_of(type(answer)(answer.status, answer.headers, answer.body))


async def test_a_long_stream_gets_a_watcher_and_leaves_nothing_behind(door, upstream):
    """I20: tasks, visits and timers of an ended stream are gone."""
    before = len(asyncio.all_tasks())
    upstream.gate(after=2)
    calls = [door.open(chat("markdown", stream=True)) for _ in range(10)]
    for call in calls:
        await call.received(b"data: ")
    await asyncio.sleep(0.6)
    assert len(asyncio.all_tasks()) - before <= 2 * len(calls), "the caller's task and one that waits for its leaving"
    assert len(door.app._visits) == 10
    upstream.open()
    await asyncio.gather(*(call.finished() for call in calls))
    await asyncio.sleep(0.6)
    assert len(asyncio.all_tasks()) - before <= 0 and not door.app._visits and door.app._steward is None


async def test_no_connection_of_ours_is_open_during_a_stream(door, upstream):
    """Trap 7 of performance.md: a pool of eight once meant eight streams."""
    upstream.gate(after=2)
    call = door.open(chat("markdown", stream=True))
    await call.received(b"data: ")

    def held():
        return [alias for alias in connections if connections[alias].connection is not None]

    assert await hot.in_thread(held) == []
    upstream.open()
    await call.finished()


async def test_allocations_per_call_stay_where_they_are(door, upstream):
    """Memory blocks that a warm call leaves behind: none that grow with the number of calls (I20)."""
    body = chat("echo")
    await warm(door, body)
    for _ in range(20):
        await door.post(body)
    gc.collect()
    upstream.reset()
    before = sys.getallocatedblocks()
    for _ in range(100):
        await door.post(body)
    upstream.reset()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100 * 20, "that is a leak per call"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_leaves_nothing_to_the_garbage_collector(door, upstream, stream):
    """Circles (a request that holds its visit, a task that holds both) were 21 objects per call, the token among them."""
    body = chat("echo", stream=stream)
    await warm(door, body)
    for _ in range(20):
        await door.post(body)
    upstream.reset()
    await asyncio.sleep(0.1)
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            await door.post(body)
        await asyncio.sleep(0.1)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(thing).__qualname__ for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left.total() < 50, f"{left} of 50 calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_bytes_of_a_frame_are_not_encoded_again(door, upstream, monkeypatch, stream):
    """Double JSON: an answer that needs no rule is passed on, not written anew."""
    from chat.api import frames

    monkeypatch.setattr(frames, "_encoded", lambda data: pytest.fail(f"re-encoded: {data}"))
    assert (await door.post(chat("echo", "as it was", stream=stream))).status == 200
