"""The upstream every target of a benchmark talks to: raw asyncio, bytes built beforehand, as fast as Python can be.

    python -m bench.mock_upstream PORT

What it answers is chosen by a word in the body: "bench-slow" streams STEPS chunks, one every PACE seconds, each with
the time it was written; "bench-stream" streams a first token and the rest at once; anything else is one JSON answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

STEPS, PACE = 200, 0.05
MARK = "first-token"
HEAD = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1767225600, "model": "bench"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}


def _event(delta: dict | None, finish: str | None = None, **more: object) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    data = json.dumps({**HEAD, "choices": choices, "usage": None, **more}, separators=(",", ":"))
    return f"data: {data}\n\n".encode()


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 40},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    },
    separators=(",", ":"),
).encode()
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
BEGIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + _piece(
    _event({"role": "assistant", "content": ""})
)
END = _piece(_event({}, "stop")) + _piece(_event(None, usage=USAGE)) + _piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"
SHORT = BEGIN + _piece(_event({"content": MARK})) + END
STAMP = b"000000000000000000"
STEP = _piece(_event({"content": f"t={STAMP.decode()} some more words "}))


class Upstream(asyncio.Protocol):
    """One connection; requests one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer, self.is_open = transport, b"", True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        self.buffer = data if not self.buffer else self.buffer + data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            if b"bench-slow" in body:
                self.loop = asyncio.get_running_loop()
                self.next, self.left = self.loop.time(), STEPS
                self.transport.write(BEGIN)
                self.step()
            else:
                self.transport.write(SHORT if b"bench-stream" in body else PLAIN)

    def step(self) -> None:
        if not self.is_open:
            return
        if not self.left:
            self.transport.write(END)
            return
        self.left -= 1
        self.next += PACE
        self.transport.write(STEP.replace(STAMP, b"%018d" % time.monotonic_ns()))
        self.loop.call_at(self.next, self.step)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
