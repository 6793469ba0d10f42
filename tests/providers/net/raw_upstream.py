"""A server that does to HTTP whatever a test tells it to: a framework would repair the faults (threats.md §4)."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Heard:
    """One request, as its bytes came."""

    head: str
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split("\r\n", 1)[0]

    def header(self, name: str) -> list[str]:
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:]]
        return [value.strip() for key, _, value in lines if key.lower() == name.lower()]


Script = Callable[["RawUpstream", asyncio.StreamWriter, Heard], Awaitable[None]]


async def _answer_ok(upstream: RawUpstream, writer: asyncio.StreamWriter, heard: Heard) -> None:
    writer.write(OK)


class RawUpstream:
    """Counts connections, keeps requests, and answers each by `script`; `async with` starts and stops it.

    `on_connect` instead takes over the whole connection before anything is read.
    """

    def __init__(
        self,
        script: Script | bytes = _answer_ok,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        on_connect: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None,
    ) -> None:
        self.script, self.host, self.port, self.tls, self.on_connect = script, host, port, tls, on_connect
        self.connections = 0
        self.requests: list[Heard] = []
        self._tasks: set[asyncio.Task] = set()
        self._readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.target}/v1"

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def __aenter__(self) -> RawUpstream:
        # StreamReader's own limit would cut large heads; nobody here needs it.
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def reader_gone(self, writer: asyncio.StreamWriter) -> None:
        """Wait until the other side has left."""
        with suppress(OSError):
            while await self._readers[writer].read(1 << 16):
                pass

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._readers[writer] = reader
        task = asyncio.create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.on_connect is not None:
                await self.on_connect(reader, writer)
                return
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?im)^content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                heard = Heard(head, body)
                self.requests.append(heard)
                if isinstance(self.script, bytes):
                    writer.write(self.script)
                    await writer.drain()
                    return
                await self.script(self, writer, heard)
                await writer.drain()
                if writer.is_closing():
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), 1)


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut the connection with RST, as a crashed peer does."""
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
