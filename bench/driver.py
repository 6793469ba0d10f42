"""The load of a benchmark: keep-alive connections in one uvloop, requests built beforehand, answers barely read."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass

_STAMP = re.compile(rb"t=(\d{18})")
MARK = b"first-token"


@dataclass(frozen=True)
class Target:
    """Where requests go; `headers` name the caller."""

    name: str
    port: int
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, model: str, *, stream: bool) -> bytes:
        body = json.dumps(
            {
                "model": model,
                "messages": [
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": "Say something about the weather in forty words, please."},
                ],
                "stream": stream,
            }
        ).encode()
        head = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Content-Type: application/json"]
        head += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Peer(asyncio.Protocol):
    """One connection of ours; `ask` sends a request and returns when its answer is whole."""

    def __init__(self) -> None:
        self.ages: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.done: asyncio.Future[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionError("the target closed the connection"))

    async def ask(self, request: bytes) -> None:
        self.buffer, self.length, self.is_chunked, self.first = b"", -1, False, 0.0
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self.done

    def data_received(self, data: bytes) -> None:
        if b"t=" in data:
            now = time.monotonic_ns()
            self.ages.extend(now - int(stamp) for stamp in _STAMP.findall(data))
        if not self.first and MARK in data:
            self.first = time.perf_counter()
        if self.length < 0 and not self.is_chunked:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                self.done.set_exception(RuntimeError(self.buffer[:600].decode("latin-1")))
                return
            self.is_chunked = b"transfer-encoding: chunked" in head
            if not self.is_chunked:
                self.length = end + 4 + int(re.search(rb"content-length: *(\d+)", head)[1])
            if not self.first and MARK in self.buffer:
                self.first = time.perf_counter()
        elif self.is_chunked:
            self.buffer = (self.buffer + data)[-16:]
        else:
            self.buffer += data
        if self.buffer.endswith(b"0\r\n\r\n") if self.is_chunked else len(self.buffer) >= self.length:
            self.done.set_result(None)


async def connect(target: Target) -> Peer:
    _, peer = await asyncio.get_running_loop().create_connection(Peer, "127.0.0.1", target.port)
    return peer


async def flood(target: Target, model: str, *, seconds: float, at_once: int) -> tuple[int, float, list[float]]:
    """(requests, seconds, latencies) of `at_once` connections that ask as fast as they are answered."""
    request = target.request(model, stream=False)
    peers = await asyncio.gather(*(connect(target) for _ in range(at_once)))
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + seconds

    async def run(peer: Peer) -> None:
        while (at := time.perf_counter()) < until:
            await peer.ask(request)
            latencies.append(time.perf_counter() - at)

    try:
        await asyncio.gather(*(run(peer) for peer in peers))
        return len(latencies), time.perf_counter() - began, latencies
    finally:
        for peer in peers:
            peer.transport.close()


async def paced(target: Target, model: str, *, rate: float, count: int) -> list[float]:
    """Latencies of `count` plain requests, `rate` a second, each at its time whatever became of the others."""
    request = target.request(model, stream=False)
    free: list[Peer] = []
    latencies: list[float] = []

    async def one() -> None:
        while free and free[-1].transport.is_closing():  # one that a burst needed and that idled too long since
            free.pop()
        peer = free.pop() if free else await connect(target)
        at = time.perf_counter()
        await peer.ask(request)
        latencies.append(time.perf_counter() - at)
        free.append(peer)

    free.append(await connect(target))
    loop, tasks = asyncio.get_running_loop(), []
    start = loop.time()
    for number in range(count):
        await asyncio.sleep(max(0, start + number / rate - loop.time()))
        tasks.append(loop.create_task(one()))
    await asyncio.gather(*tasks)
    for peer in free:
        peer.transport.close()
    return latencies


async def first_tokens(target: Target, model: str, *, count: int) -> list[float]:
    """Seconds from request to first token, one stream after the other on one connection."""
    request, peer, found = target.request(model, stream=True), await connect(target), []
    for _ in range(count):
        at = time.perf_counter()
        await peer.ask(request)
        found.append(peer.first - at)
    peer.transport.close()
    return found


@dataclass
class Slow:
    """What many slow streams at once were like: ages of chunks in ms, how many streams ended in time."""

    finished: int
    ages: list[float]
    seconds: float


async def slow_streams(target: Target, model: str, *, streams: int, patience: float, halfway: object = None) -> Slow:
    """`streams` streams at once; `halfway()` is called in the middle."""
    request = target.request(model, stream=True)
    peers: list[Peer] = []
    began = time.perf_counter()
    tasks = []
    for _ in range(streams // 50):
        some = await asyncio.gather(*(connect(target) for _ in range(50)))
        peers += some
        tasks += [asyncio.create_task(peer.ask(request)) for peer in some]
        await asyncio.sleep(0.05)
    if callable(halfway):
        asyncio.get_running_loop().call_later(5, halfway)
    await asyncio.wait(tasks, timeout=patience)
    finished = sum(task.done() and not task.cancelled() and task.exception() is None for task in tasks)
    for task in tasks:
        task.cancel()
    for peer in peers:
        peer.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
    ages = [age / 1e6 for peer in peers for age in peer.ages]
    return Slow(finished, ages, time.perf_counter() - began)
