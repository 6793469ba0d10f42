"""A client that speaks to the socket itself, so that tests see bytes and not what a library made of them."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass
class Reply:
    """Everything that came, and how it ended: `fin`, `reset`, or `silence` (nothing more within the wait)."""

    raw: bytes
    end: str

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def content(self) -> bytes:
        """The body, with chunks joined as far as they are whole."""
        body = self.raw.partition(b"\r\n\r\n")[2]
        if self.headers.get("transfer-encoding") != "chunked":
            return body
        joined = b""
        while True:
            size, found, rest = body.partition(b"\r\n")
            try:
                count = int(size, 16)
            except ValueError:
                return joined
            if not found or not count:
                return joined
            joined += rest[:count]
            body = rest[count + 2 :]

    @property
    def chunks(self) -> list[bytes]:
        body, found = self.raw.partition(b"\r\n\r\n")[2], []
        while body:
            size, _, rest = body.partition(b"\r\n")
            try:
                count = int(size, 16)
            except ValueError:
                return found
            found.append(rest[:count])
            body = rest[count + 2 :]
        return found

    @property
    def is_whole(self) -> bool:
        """Whether the chunked body has its last chunk."""
        return self.raw.endswith(b"0\r\n\r\n")

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[Any]:
        """The data of well-formed frames, JSON where it is."""
        found: list[Any] = []
        for frame in self.content.replace(b"\r\n", b"\n").split(b"\n\n"):
            if frame.startswith(b"data: "):
                try:
                    found.append(json.loads(frame[6:]))
                except ValueError:
                    found.append(frame[6:])
        return found

    @property
    def text(self) -> str:
        """The answer's text, joined from the usual place."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            if isinstance(event, dict)
            for choice in event.get("choices") or []
            if isinstance(choice, dict) and isinstance(choice.get("delta"), dict)
            if isinstance(choice["delta"].get("content"), str | None)
        )


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: sandbox.internal", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def send(port: int, data: bytes, *, wait: float = 0.5, limit: int = 64 << 20, until: bytes = b"") -> Reply:
    """Send bytes, read until the end, until `until` came, or until nothing came for `wait` seconds."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        connection.settimeout(wait)
        while len(received) < limit:
            try:
                piece = connection.recv(1 << 16)
            except TimeoutError:
                return Reply(bytes(received), "silence")
            except ConnectionResetError:
                return Reply(bytes(received), "reset")
            if not piece:
                return Reply(bytes(received), "fin")
            received += piece
            if until and until in received:
                break
    return Reply(bytes(received), "left")


def chat(port: int, model: str, *, stream: bool = True, key: str | None = None, **options: Any) -> Reply:
    """One chat request; keyword arguments of `send`, and `Connection: close` so that a good answer ends too."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hi there"}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"Content-Type": "application/json", "Connection": "close"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return send(port, request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers), **options)
