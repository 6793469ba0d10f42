"""Runs each response bomb of S9 in this fresh process and prints what it came to, one JSON object a line.

A process of its own, because the high-water mark of memory is the process's: `python -m tests.providers.net.bomb_probe`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import time
import zlib

from providers import net
from providers.clients.errors import ProviderError
from tests.providers.net.raw_upstream import RawUpstream

BLOCK = b"x" * 65536
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
LIMIT = 1 << 20
DEADLINE = 0.8  # seconds
LONGEST = 300 << 20  # bytes a bomb sends if nobody stops it


def endless(first: bytes, block: bytes = BLOCK):
    """`first`, then `block` again and again."""

    async def script(upstream, writer, heard):
        writer.write(first)
        sent = 0
        while sent < LONGEST:
            writer.write(block)
            sent += len(block)
            await writer.drain()

    return script


def zipped(encoding: str, data: bytes):
    return HEAD + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding.encode(), len(data)) + data


def bombs():
    zeros = bytes(50 << 20)
    packed = gzip.compress(zeros, 9)
    twice = gzip.compress(packed, 9)
    deflated = zlib.compress(zeros, 9)
    del zeros
    yield "gzip", zipped("gzip", packed), "unexpected_content"
    yield "gzip twice", zipped("gzip, gzip", twice), "unexpected_content"
    yield "deflate", zipped("deflate", deflated), "unexpected_content"
    yield "identity, gzip", zipped("identity, gzip", packed), "unexpected_content"
    for encoding in ("br", "zstd", "compress", "x-gzip", "GZIP", "unheard-of"):
        yield encoding, zipped(encoding, b"anything"), "unexpected_content"
    yield "endless body", endless(HEAD + b"\r\n"), "response_too_large"
    yield (
        "endless chunks",
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + BLOCK + b"\r\n"),
        "response_too_large",
    )
    yield "one huge chunk", endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n"), "response_too_large"
    yield "tiny chunks", endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10000), None
    yield "promised length", HEAD + b"Content-Length: 99999999999\r\n\r\n", "response_too_large"
    yield "promised length beyond numbers", HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", "unexpected_content"
    yield "endless status line", endless(b"HTTP/1.1 200 "), "response_too_large"
    yield "endless header name", endless(HEAD), "response_too_large"
    yield "endless header value", endless(HEAD + b"X: "), "response_too_large"
    yield "endless headers", endless(HEAD, b"X-A: b\r\n" * 1000), "unexpected_content"
    yield "many large headers", endless(HEAD, b"X-A: " + b"b" * 8000 + b"\r\n"), "unexpected_content"
    yield "endless folded header", endless(HEAD + b"X: y\r\n", b" folded\r\n" * 1000), None
    yield "endless informational answers", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), None
    yield "endless informational answers with headers", endless(b"", b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\n" * 1000), None
    yield "endless chunk extension", endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x="), None
    yield "endless chunk size", endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65536), None
    yield "endless trailers", endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 1000), None
    yield "endless trailer", endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: "), None
    yield "endless bytes after the answer", endless(HEAD + b"Content-Length: 2\r\n\r\n{}"), None


async def by_request(url):
    await net.request("POST", url, content=b"{}", max_bytes=LIMIT, deadline=DEADLINE)


async def by_stream(url):
    async with net.open_stream(
        "POST",
        url,
        headers={},
        content=b"{}",
        max_bytes=LIMIT,
        header_timeout=DEADLINE,
        idle_timeout=DEADLINE,
        total_timeout=DEADLINE,
    ) as stream:
        async for _ in stream.chunks():
            pass


def peak() -> int:
    """The most memory this process ever had, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main() -> None:
    async with RawUpstream() as upstream:
        net.configure(net.Policy(private_targets=(upstream.target,)))
        for call in (by_request, by_stream):
            await call(upstream.url)
        ready = list(bombs())
        baseline = peak()
        for name, script, wanted in ready:
            for call in (by_request, by_stream):
                upstream.script = script
                begun, code = time.monotonic(), "complete"
                try:
                    await call(upstream.url)
                except ProviderError as exc:
                    code = exc.code
                report = {"bomb": name, "call": call.__name__, "code": code, "wanted": wanted}
                await net.close()
                report |= {"seconds": time.monotonic() - begun, "grown_kb": peak() - baseline}
                print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
