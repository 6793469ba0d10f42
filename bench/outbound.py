"""What the outbound door costs: CPU time of one call and of one chunk, next to aiohttp and httpx by themselves.

    python -m bench.outbound [calls]

The upstream is a process of its own on loopback and answers with fixed bytes, so CPU time here is the client's alone;
it is measured instead of wall time because it does not depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httpx
import uvloop

from providers import net

BODY = b'{"id":"x","object":"chat.completion","choices":[{"message":{"content":"' + b"word " * 100 + b'"}}]}'
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"delta":{"content":"word "}}]}\n\n'
EVENTS = 200
HEADERS = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}
QUESTION = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


class Upstream(asyncio.Protocol):
    """Answers each request at once: /json whole, /burst as one write, /paced one event per millisecond."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(head)

    def answer(self, head: bytes) -> None:
        if b" /json" in head:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
            return
        start = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        piece = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
        if b" /burst" in head:
            self.transport.write(start + piece * EVENTS + b"0\r\n\r\n")
            return
        self.transport.write(start)
        loop = asyncio.get_running_loop()
        for number in range(EVENTS):
            loop.call_later(0.001 * (number + 1), self.transport.write, piece)
        loop.call_later(0.001 * (EVENTS + 2), self.transport.write, b"0\r\n\r\n")


def serve(pipe: multiprocessing.connection.Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


async def cpu(work: Callable[[], Awaitable[object]], calls: int, at_once: int, rounds: int = 3) -> tuple[float, float]:
    """Median CPU and wall microseconds of one `work()`."""

    async def some(count: int) -> None:
        for _ in range(count):
            await work()

    figures = []
    await some(20)
    for _ in range(rounds):
        before, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(some(calls // at_once) for _ in range(at_once)))
        done = calls // at_once * at_once
        figures.append(((time.process_time() - before) / done * 1e6, (time.perf_counter() - began) / done * 1e6))
    return statistics.median(it[0] for it in figures), statistics.median(it[1] for it in figures)


async def measure(port: int, calls: int) -> None:
    base = f"http://127.0.0.1:{port}"
    net.configure(net.Policy(private_targets=(f"127.0.0.1:{port}",)))

    async def door_request() -> None:
        await net.request("POST", base + "/json", headers=HEADERS, content=QUESTION)

    def door_stream(path: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            async with net.open_stream("POST", base + path, headers=HEADERS, content=QUESTION) as stream:
                async for _ in stream.chunks():
                    pass

        return work

    async with (
        aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)) as session,
        httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None)) as client,
    ):

        def raw_aiohttp(path: str) -> Callable[[], Awaitable[None]]:
            async def work() -> None:
                async with session.post(base + path, data=QUESTION, headers=HEADERS) as response:
                    async for _ in response.content.iter_any():
                        pass

            return work

        def raw_httpx(path: str) -> Callable[[], Awaitable[None]]:
            async def work() -> None:
                async with client.stream("POST", base + path, content=QUESTION, headers=HEADERS) as response:
                    async for _ in response.aiter_raw():
                        pass

            return work

        print(f"{'':34}{'CPU us':>9}{'wall us':>9}")
        for at_once in (1, 32):
            print(f"one call, answer whole, {at_once} at once")
            for name, work in (
                ("aiohttp", raw_aiohttp("/json")),
                ("net.open_stream", door_stream("/json")),
                ("net.request", door_request),
                ("httpx", raw_httpx("/json")),
            ):
                print(f"    {name:30}{'%9.0f%9.0f' % await cpu(work, calls, at_once)}")
        print(f"one stream of {EVENTS} events in one burst, 8 at once")
        for name, work in (
            ("aiohttp", raw_aiohttp("/burst")),
            ("net.open_stream", door_stream("/burst")),
            ("httpx", raw_httpx("/burst")),
        ):
            print(f"    {name:30}{'%9.0f%9.0f' % await cpu(work, calls // 4, 8)}")
        print(f"one event of {EVENTS}, one each ms, 50 streams at once")
        for name, work in (
            ("aiohttp", raw_aiohttp("/paced")),
            ("net.open_stream", door_stream("/paced")),
            ("httpx", raw_httpx("/paced")),
        ):
            spent, wall = await cpu(work, 50, 50, rounds=3)
            print(f"    {name:30}{spent / EVENTS:9.1f}{wall / EVENTS:9.1f}")
    await net.close()


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    ours, theirs = multiprocessing.Pipe()
    upstream = multiprocessing.get_context("spawn").Process(target=serve, args=[theirs], daemon=True)
    upstream.start()
    uvloop.run(measure(ours.recv(), calls))
    upstream.terminate()


if __name__ == "__main__":
    main()
