"""The hot route a page listens to: one reply's events, from any tab, from where that tab left off.

It only reads: coming and going changes nothing (A7, F15). Who may listen was checked by the dispatcher (session, origin
of the request, and again every 20 s while it streams, I18); whose reply it is, here. Where this process has no stream
of the reply — it ended long ago, it runs elsewhere without Redis, Redis is away — the database answers instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

from django.contrib.auth import get_user_model

from chat import generation as replies
from chat import sse, streams, turns
from chat.models import Generation
from config.hot import HotRequest, HotResponse, in_thread, text

PING_SECONDS = 15.0
LOOK_SECONDS = 1.0
"""How often the database is asked where there is no stream."""

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


async def generation_events(request: HotRequest, *, pk: UUID) -> HotResponse:
    """Server-sent events of one reply: `update`, `reset`, `end` (chat/sse.py)."""
    if not await in_thread(_may_listen, request.user_id, pk):
        return text(404, "There is no such reply.")
    after = sse.position(request.headers.get("last-event-id"), request.query.get("after"))
    return HotResponse(200, dict(HEADERS), _events(request.user_id, pk, after))


def _may_listen(user_id: int, pk: UUID) -> bool:
    user = get_user_model().objects.filter(pk=user_id, is_active=True).first()
    return user is not None and Generation.objects.for_user(user).filter(pk=pk).exists()


async def _events(user_id: int, pk: UUID, after: int) -> AsyncIterator[bytes]:
    yield sse.RETRY
    pinged = time.monotonic()
    looks = 0
    while True:
        async with aclosing(streams.current().listen(pk, after, idle=PING_SECONDS)) as events:
            async for event in events:
                if event is None:
                    yield sse.PING
                    continue
                looks, after = 0, event.seq
                yield sse.encode(event)
                if isinstance(event, streams.End):
                    return
        stored = await in_thread(_stored, pk, after)
        for event in stored:
            after = event.seq
            yield sse.encode(event)
            if isinstance(event, streams.End):
                return
        if time.monotonic() - pinged > PING_SECONDS:
            pinged = time.monotonic()
            yield sse.PING
        looks += 1
        await asyncio.sleep(0.1 if looks < 5 else LOOK_SECONDS)  # it may be about to begin here


def _stored(pk: UUID, after: int) -> list[streams.Event]:
    """What the database knows beyond `after`. An open reply whose process died is ended on the way (I8)."""
    generation = Generation.objects.select_related("message").filter(pk=pk).first()
    if generation is None:
        return [streams.End(after, Generation.State.FAILED, "")]
    if generation.is_open:
        replies.sweep_one(generation)
        generation.refresh_from_db()
    if not generation.is_open:
        return [streams.End(generation.seq, generation.state, turns.finished_html(generation.message_id))]
    if generation.seq == after:
        return []
    turn = turns.Turn(generation.message, generation)
    return [
        streams.Update(
            seq=generation.seq,
            closed=turn.closed,
            tail=turn.tail,
            reasoning=generation.message.reasoning,
            status="writing",
            is_whole=True,
        )
    ]
