"""How an event goes over the wire: `id`, `event`, and one `data` line of JSON (WHATWG HTML §9.2).

JSON in ASCII has no line break inside, whatever the text holds, so nothing an upstream says can end our data line
and begin an event of its own (X4). Event names come from our own classes.
"""

from __future__ import annotations

import json

from chat.streams import End, Event

PING = b": still here\n\n"
"""A comment: keeps proxies from closing a quiet connection, and finds out that the reader has gone."""

RETRY = b"retry: 1000\n\n"


def encode(event: Event) -> bytes:
    """One event as bytes: `update` appends, `reset` replaces all, `end` brings the finished message."""
    data: dict[str, str | int]
    if isinstance(event, End):
        name, data = "end", {"state": event.state, "html": event.html}
    else:
        name = "reset" if event.is_whole else "update"
        data = {
            "seq": event.seq,
            "closed": event.closed,
            "tail": event.tail,
            "reasoning": event.reasoning,
            "status": event.status,
        }
    return f"id: {event.seq}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n".encode()


def position(last_event_id: str | None, after: str | None) -> int:
    """The number the reader has seen: the `Last-Event-ID` header wins over `?after=`. What is no number is 0."""
    for text in (last_event_id, after):
        if text is not None and text.isascii() and text.isdigit() and len(text) <= 18:
            return int(text)
    return 0
