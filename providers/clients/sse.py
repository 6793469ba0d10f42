"""Server-sent events from bytes, by the WHATWG rules (upstreams.md §5), whatever way the bytes were cut.

Lines end with CRLF, LF or CR and nothing else: `str.splitlines()` would also split at U+2028, which models write.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from providers.clients.errors import ProviderBroken

MAX_EVENT = 1 << 20
"""Bytes one event (and so one line of it) may have, unless a reader is told otherwise."""

MAX_STRAY = 64 << 10
"""Bytes kept of lines that are no field of the format."""

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event.

    `raw` is what the server sent, blank line and comments of the same block included, with every line end written as
    LF and without a BOM; an event that was unfinished when the stream ended is closed by a blank line.
    `name` is "" unless an `event:` line named it. `data` holds U+FFFD where the bytes were not UTF-8.
    """

    raw: bytes
    name: str
    data: str


class EventReader:
    """Feed it bytes as they come, take the events that are complete. Not thread-safe, one per stream.

    An event larger than `max_event` bytes ends the reader: events before it are still returned, then `feed` and
    `close` raise ProviderBroken("response_too_large"); `is_broken` says so at once.

    `stray` holds lines that are no field of the format, which the specification ignores: Gemini writes an error that
    comes in mid-stream as bare JSON between its events.
    """

    __slots__ = ("_buffer", "_is_start", "_max_event", "_scanned", "_skip_lf", "is_broken", "stray")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self.stray = bytearray()
        self._buffer = bytearray()
        self._scanned = 0
        self._skip_lf = False
        self._is_start = True
        self.is_broken = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises ProviderBroken once the size limit was passed."""
        if self.is_broken:
            raise ProviderBroken("response_too_large")
        if self._skip_lf and data:
            # The last read ended in CR: an LF now belongs to that line end.
            if data[0] == 10:
                data = data[1:]
            self._skip_lf = False
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer, max_event = self._buffer, self._max_event
        if buffer or self._is_start:
            buffer += data
            if self._is_start:
                if len(buffer) < 3 and _BOM.startswith(buffer):
                    return []
                self._is_start = False
                if buffer.startswith(_BOM):
                    del buffer[:3]
            if buffer.find(b"\n\n", self._scanned) < 0:
                self._scanned = max(0, len(buffer) - 1)
                if len(buffer) > max_event:
                    self._break()
                    raise ProviderBroken("response_too_large")
                return []
            data = bytes(buffer)
            buffer.clear()
        events: list[Event] = []
        start, is_too_large = 0, False
        while (end := data.find(b"\n", start)) >= 0:
            if data.startswith(b"data: ", start) and data.startswith(b"\n\n", end) and end - start < max_event - 1:
                # Nearly every event there is: one data line.
                line = data[start + 6 : end]
                start, end = end + 2, start
                try:
                    events.append(Event(data[end:start], "", str(line, "utf-8")))
                except UnicodeDecodeError:
                    events.append(Event(data[end:start], "", str(line, "utf-8", "replace")))
                continue
            end = data.find(b"\n\n", end)
            if end < 0:
                break
            end += 2
            if end - start > max_event:
                is_too_large = True
                break
            event = self._read_block(data[start:end])
            if event is not None:
                events.append(event)
            start = end
        if is_too_large or len(data) - start > max_event:
            self._break()
            if not events:
                raise ProviderBroken("response_too_large")
        elif start < len(data):
            buffer += data[start:]
        self._scanned = max(0, len(buffer) - 1)
        return events

    def _break(self) -> None:
        self.is_broken = True
        self._buffer.clear()

    def close(self) -> list[Event]:
        """The event that was pending when the stream ended, if it is whole: valid JSON or `[DONE]`.

        The specification drops it; servers that forget the last blank line are common. A half one is not returned.
        """
        if self.is_broken:
            raise ProviderBroken("response_too_large")
        block = bytes(self._buffer).strip(b"\n")
        self._buffer.clear()
        self._scanned = 0
        event = self._read_block(block + b"\n\n") if block else None
        if event is None:
            return []
        text = event.data.strip()
        if text != "[DONE]":
            try:
                json.loads(text)
            except (ValueError, RecursionError):
                return []
        return [event]

    def _read_block(self, block: bytes) -> Event | None:
        """The event of `block`, which ends with a blank line; None when it carries no data."""
        block = block.lstrip(b"\n")
        name, data = b"", []
        for line in block.split(b"\n"):
            if not line or line[0] == 58:
                continue
            field, _, value = line.partition(b":")
            if value[:1] == b" ":
                value = value[1:]
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field not in (b"id", b"retry") and len(self.stray) < MAX_STRAY:
                self.stray += line[:MAX_STRAY] + b"\n"
        if not data:
            return None
        return Event(block, str(name, "utf-8", "replace"), str(b"\n".join(data), "utf-8", "replace"))
