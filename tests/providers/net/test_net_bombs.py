"""S9, F12: no answer makes us use memory or time without bound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from providers import net
from providers.clients.errors import ProviderBroken
from tests.providers.net.bomb_probe import DEADLINE
from tests.providers.net.raw_upstream import RawUpstream

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_no_bomb_costs_more_than_20_mb_or_outlives_its_deadline():
    """S9: about thirty bombs, through both calls, in one process that keeps score of its memory."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.providers.net.bomb_probe"], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == 58
    for report in reports:
        assert report["code"] != "complete", report
        if report["wanted"]:
            assert report["code"] == report["wanted"], report
        # What may be late is the loop itself, which shares one thread with the bomb's sender.
        assert report["seconds"] < DEADLINE + 1, report
        assert report["grown_kb"] < 20 * 1024, report


@pytest.mark.parametrize("size", [1000, 1001])
async def test_a_body_may_be_exactly_as_long_as_allowed(size, allow):
    """S9: the cap is a cap, with and without a promised length."""
    body = b"x" * size
    for head in (b"Content-Length: %d\r\n" % size, b""):
        async with RawUpstream(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + head + b"\r\n" + body) as upstream:
            allow(upstream.target)

            async def by_request(url=upstream.url):
                return (await net.request("POST", url, content=b"", max_bytes=1000)).body

            async def by_stream(url=upstream.url):
                async with net.open_stream("POST", url, headers={}, content=b"", max_bytes=1000) as stream:
                    return b"".join([chunk async for chunk in stream.chunks()])

            for call in (by_request, by_stream):
                if size <= 1000:
                    assert await call() == body
                else:
                    with pytest.raises(ProviderBroken) as caught:
                        await call()
                    assert caught.value.code == "response_too_large"


async def test_a_zipped_answer_is_refused_unread(allow):
    """S9: 247 bytes that would be 50 MB. What was asked for is identity."""
    async with RawUpstream(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nzzzz") as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderBroken) as caught:
            await net.request("GET", upstream.url)
        assert caught.value.code == "unexpected_content"
        assert upstream.requests[0].header("accept-encoding") == ["identity"]


async def test_an_answer_that_names_identity_is_welcome(allow):
    async with RawUpstream(b"HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\nContent-Length: 2\r\n\r\n{}") as upstream:
        allow(upstream.target)
        assert (await net.request("GET", upstream.url)).json() == {}
