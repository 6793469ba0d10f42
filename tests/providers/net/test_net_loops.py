"""I20: the door serves a long-lived web loop and loops that live for one task, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from providers import net
from providers.clients.errors import ProviderBroken, ProviderUnreachable
from tests.providers.net.raw_upstream import RawUpstream

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_loops_that_end_leave_no_socket_thread_or_warning():
    """asyncio.run, async_to_sync, uvloop, a loop in a thread, and close() in between."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.providers.net.loops_probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"doors": 0, "descriptors_more": 0, "threads_more": 0, "unraisable": []}


async def test_one_loop_has_one_pool(allow):
    async with RawUpstream() as upstream:
        allow(upstream.target)
        await asyncio.gather(*(net.request("GET", upstream.url) for _ in range(10)))
        assert list(net._doors) == [asyncio.get_running_loop()]
        await net.close()
        assert net._doors == {}
        await net.close()  # again, without harm


async def test_a_call_after_close_opens_a_new_pool(allow):
    async with RawUpstream() as upstream:
        allow(upstream.target)
        for _ in range(2):
            assert (await net.request("GET", upstream.url)).status == 200
            await net.close()
        assert upstream.connections == 2


async def test_closing_ends_what_is_under_way(allow):
    """F21: after the drain time the web process closes its pool; a stream still open ends as one of our errors."""

    async def hold(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        await upstream.reader_gone(writer)

    async with RawUpstream(hold) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
            chunks = stream.chunks()
            assert await anext(chunks) == b"hello"
            await net.close()
            with pytest.raises(ProviderBroken) as caught:
                await asyncio.wait_for(anext(chunks), 2)
            assert caught.value.code == "interrupted"


@pytest.mark.slow
async def test_more_streams_than_any_default_limit_run_at_once(allow):
    async def hold(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        await upstream.reader_gone(writer)

    async with RawUpstream(hold) as upstream:
        allow(upstream.target)
        all_open = asyncio.Barrier(150)

        async def one():
            async with net.open_stream("POST", upstream.url, headers={}, content=b"") as stream:
                assert await anext(stream.chunks()) == b"hello"
                await all_open.wait()

        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(150))), 20)


async def test_a_blocked_address_is_final(allow):
    with pytest.raises(ProviderUnreachable) as caught:
        await net.request("GET", "https://127.0.0.1/")
    assert caught.value.permanent
    assert "not one this server may call" in caught.value.public_message
