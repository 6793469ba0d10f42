"""Speak ASGI to an application as a server would: one request, its whole answer, and a client that may leave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    is_complete: bool = False

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} stands {len(found)} times in one response"
        return found[0] if found else None


class Connection:
    """One request in flight. `leave()` is the client closing its socket."""

    def __init__(
        self,
        app: Any,
        method: str,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | list[bytes] = b"",
    ) -> None:
        path, _, query = target.partition("?")
        head = {"host": "127.0.0.1:8000"} | {name.lower(): value for name, value in (headers or {}).items()}
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.items() if value is not None],
            "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        chunks = body if isinstance(body, list) else [body]
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for position, chunk in enumerate(chunks, 1):
            self._incoming.put_nowait({"type": "http.request", "body": chunk, "more_body": position < len(chunks)})
        self.answer = Answer()
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(app(self.scope, self._incoming.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.answer.status = message["status"]
            self.answer.headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in message["headers"]]
        else:
            self.answer.body += message.get("body", b"")
            self.answer.is_complete = not message.get("more_body", False)
        self._changed.set()

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def received(self, part: bytes) -> None:
        """Wait until the answer contains `part`."""
        async with asyncio.timeout(5):
            while part not in self.answer.body:
                self._changed.clear()
                await self._changed.wait()

    async def finished(self) -> Answer:
        async with asyncio.timeout(10):
            await self.task
        return self.answer


async def ask(app: Any, method: str, target: str, **options: Any) -> Answer:
    """The whole answer to one request."""
    connection = Connection(app, method, target, **options)
    return await connection.finished()
