"""An upstream that says what a test tells it to, when it is told to, and counts what it was asked."""

from __future__ import annotations

import asyncio
from typing import Any

from providers.clients.base import Delta, Frame, Usage

USAGE = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)


def say(text: str = "", **fields: Any) -> Frame:
    return Frame(raw=b"", data={}, delta=Delta(text=text, **fields))


def end(usage: Usage | None = USAGE, reason: str = "stop") -> list[Frame]:
    """What a good answer ends with: a reason, the figures, the terminator."""
    return [
        Frame(b"", {}, Delta(finish_reason=reason)),
        Frame(b"", {}, Delta(usage=usage)),
        Frame(b"", None, Delta(), done=True),
    ]


class FakeClient:
    """One account's client. `script` holds frames, strings (say them), numbers (wait so many seconds), exceptions
    (raise them) and asyncio Events (wait for them)."""

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.is_closed = False

    async def stream(self, body):
        self.bodies.append(body)
        try:
            for step in self.script:
                match step:
                    case int() | float():
                        await asyncio.sleep(step)
                    case str():
                        yield say(step)
                    case BaseException():
                        raise step
                    case asyncio.Event():
                        await step.wait()
                    case _:
                        yield step
        finally:
            self.is_closed = True
