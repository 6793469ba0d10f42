"""Where the events of a running reply wait for listeners: in memory for one process, in Redis for many.

A listener says up to which number it knows the reply and gets **one** update that brings it up to date: all
blocks closed since, and the newest state of the open one. So nobody ever queues: what is kept is the closed
blocks once and the tail once, whoever reads how slowly (F17), and who falls behind gets fewer, larger updates.

    append(id, update)       the reply moved on
    finish(id, end)          it ended; the stream stays a minute for those who come late
    listen(id, after)        yields Update, then End; None when nothing happened for `idle` seconds

Neither append nor finish ever fails: the database has the truth, a stream is only the quick way to it. After a
loss (Redis away, F27) the next update is a whole one (`is_whole`). Where there is no stream, listen() returns
without an End, and the listener reads the database instead (chat/events.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol
from uuid import UUID

from django.conf import settings

logger = logging.getLogger(__name__)

KEEP_ENDED_SECONDS = 60
KEEP_OPEN_SECONDS = 2 * 3600


@dataclass(frozen=True, slots=True)
class Update:
    """What the page adds to bring it to number `seq`.

    `closed` is HTML to append, `tail` the HTML of the open block, `reasoning` plain text to append. `is_whole`: it
    replaces all that is there, instead of being appended.
    """

    seq: int
    closed: str = ""
    tail: str = ""
    reasoning: str = ""
    status: str = ""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The reply ended in `state`; `html` is the whole finished message."""

    seq: int
    state: str
    html: str


Event = Update | End


class Streams(Protocol):
    """What both kinds of stream offer."""

    async def append(self, generation_id: UUID, update: Update) -> bool: ...

    async def finish(self, generation_id: UUID, end: End) -> bool: ...

    def listen(self, generation_id: UUID, after: int, *, idle: float) -> AsyncGenerator[Event | None, None]: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Kept:
    """One reply in memory. `pieces` holds (seq, closed HTML, reasoning text) of the updates that closed something."""

    pieces: list[tuple[int, str, str]] = field(default_factory=list)
    latest: Update = Update(seq=0)
    whole_since: int = 0
    end: End | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, update: Update) -> None:
        if update.is_whole:
            self.pieces.clear()
            self.whole_since = update.seq
        if update.closed or update.reasoning or update.is_whole:
            self.pieces.append((update.seq, update.closed, update.reasoning))
        self.latest = update
        self.wake()

    def wake(self) -> None:
        """Wake every listener once. A new Event for the next round: nobody can miss one or clear another's."""
        self.changed.set()
        self.changed = asyncio.Event()

    def since(self, after: int) -> Update:
        """All that came after number `after`, as one update."""
        # A position ahead of us is from another life of this reply: start over.
        is_whole = after > self.latest.seq or after < self.whole_since
        first = 0 if is_whole else after
        newer = [piece for piece in self.pieces if piece[0] > first]
        return Update(
            seq=self.latest.seq,
            closed="".join(piece[1] for piece in newer),
            tail=self.latest.tail,
            reasoning="".join(piece[2] for piece in newer),
            status=self.latest.status,
            is_whole=is_whole,
        )


class MemoryStreams:
    """Streams of one process. Used from its event loop alone, so there are no locks."""

    def __init__(self) -> None:
        self._kept: dict[UUID, _Kept] = {}

    async def append(self, generation_id: UUID, update: Update) -> bool:
        self._kept.setdefault(generation_id, _Kept()).add(update)
        return True

    async def finish(self, generation_id: UUID, end: End) -> bool:
        kept = self._kept.setdefault(generation_id, _Kept())
        kept.end = end
        kept.wake()
        asyncio.get_running_loop().call_later(KEEP_ENDED_SECONDS, self._kept.pop, generation_id, None)
        return True

    async def listen(self, generation_id: UUID, after: int, *, idle: float) -> AsyncGenerator[Event | None, None]:
        while (kept := self._kept.get(generation_id)) is not None:
            if kept.latest.seq != after:
                update = kept.since(after)
                after = update.seq
                yield update
            elif kept.end is not None:
                yield kept.end
                return
            else:
                try:
                    async with asyncio.timeout(idle):
                        await kept.changed.wait()
                except TimeoutError:
                    yield None

    async def close(self) -> None:
        self._kept.clear()


class RedisStreams:
    """Streams shared by all web processes: one Redis stream per reply, the event's number in the entry's id.

    `<seq>-0` holds what closed and stays; `<seq>-1` holds the newest open tail and goes when the next one comes, so
    that the stream is as large as the text and not as the sum of its tails. `<seq>-2` is the end.
    """

    def __init__(self, url: str) -> None:
        import redis.asyncio as redis

        self._redis: Any = redis.from_url(
            url, decode_responses=True, socket_connect_timeout=2, socket_timeout=30, health_check_interval=30
        )
        self._tails: dict[UUID, str] = {}
        self._broken: set[UUID] = set()

    @staticmethod
    def _key(generation_id: UUID) -> str:
        return f"switchboard:reply:{generation_id}"

    async def append(self, generation_id: UUID, update: Update) -> bool:
        """False when the update was lost, or when an earlier one was: the caller then sends a whole one."""
        if generation_id in self._broken and not update.is_whole:
            return False
        key = self._key(generation_id)
        try:
            async with asyncio.timeout(2), self._redis.pipeline(transaction=True) as pipe:
                if update.is_whole:
                    pipe.delete(key)
                if update.closed or update.reasoning or update.is_whole:
                    piece = {"closed": update.closed, "reasoning": update.reasoning, "whole": int(update.is_whole)}
                    pipe.xadd(key, {"piece": json.dumps(piece)}, id=f"{update.seq}-0")
                if old := self._tails.get(generation_id):
                    pipe.xdel(key, old)
                pipe.xadd(
                    key, {"tail": json.dumps({"tail": update.tail, "status": update.status})}, id=f"{update.seq}-1"
                )
                pipe.expire(key, KEEP_OPEN_SECONDS)
                await pipe.execute()
        except Exception as exc:  # whatever the network does, the reply goes on
            logger.warning("stream of a reply lost an update: %s", type(exc).__name__)
            self._broken.add(generation_id)
            return False
        self._tails[generation_id] = f"{update.seq}-1"
        self._broken.discard(generation_id)
        return True

    async def finish(self, generation_id: UUID, end: End) -> bool:
        key = self._key(generation_id)
        self._tails.pop(generation_id, None)
        is_broken = generation_id in self._broken
        self._broken.discard(generation_id)
        try:
            async with asyncio.timeout(2), self._redis.pipeline(transaction=True) as pipe:
                if is_broken:
                    pipe.delete(key)  # an incomplete stream is worse than none: the end has the whole message
                pipe.xadd(key, {"end": json.dumps(asdict(end))}, id=f"{end.seq}-2")
                pipe.expire(key, KEEP_ENDED_SECONDS)
                await pipe.execute()
        except Exception as exc:
            logger.warning("stream of a reply lost its end: %s", type(exc).__name__)
            return False
        return True

    async def listen(self, generation_id: UUID, after: int, *, idle: float) -> AsyncGenerator[Event | None, None]:
        key, position = self._key(generation_id), f"{after}-1"
        try:
            newest = await self._redis.xrevrange(key, count=1)
            if not newest:
                return
            if int(newest[0][0].partition("-")[0]) < after:
                position = "0-0"  # from another life of this reply
            while True:
                answer = await self._redis.xread({key: position}, block=int(idle * 1000))
                if not answer:
                    if not await self._redis.exists(key):
                        return
                    yield None
                    continue
                entries = answer[0][1]
                update, end = self._coalesce(entries, is_whole=position == "0-0")
                position = entries[-1][0]
                if update is not None:
                    yield update
                if end is not None:
                    yield end
                    return
        except Exception as exc:
            logger.warning("stream of a reply cannot be read: %s", type(exc).__name__)

    @staticmethod
    def _coalesce(entries: list[tuple[str, dict[str, str]]], *, is_whole: bool) -> tuple[Update | None, End | None]:
        closed: list[str] = []
        reasoning: list[str] = []
        latest: dict[str, Any] | None = None
        seq = 0
        for entry_id, fields in entries:
            if "end" in fields:
                end = End(**json.loads(fields["end"]))
                if latest is None and not closed and not reasoning:
                    return None, end
                return _joined(seq, closed, reasoning, latest, is_whole), end
            seq = int(entry_id.partition("-")[0])
            if "piece" in fields:
                piece = json.loads(fields["piece"])
                if piece["whole"]:
                    closed, reasoning, is_whole = [], [], True
                closed.append(piece["closed"])
                reasoning.append(piece["reasoning"])
            else:
                latest = json.loads(fields["tail"])
        return _joined(seq, closed, reasoning, latest, is_whole), None

    async def close(self) -> None:
        await self._redis.aclose()


def _joined(seq: int, closed: list[str], reasoning: list[str], latest: dict[str, Any] | None, is_whole: bool) -> Update:
    latest = latest or {"tail": "", "status": ""}
    return Update(seq, "".join(closed), latest["tail"], "".join(reasoning), latest["status"], is_whole)


_streams: Streams | None = None


def current() -> Streams:
    """This process's streams: Redis where REDIS_URL is set, memory otherwise."""
    global _streams
    if _streams is None:
        _streams = RedisStreams(settings.REDIS_URL) if settings.REDIS_URL else MemoryStreams()
    return _streams


async def close() -> None:
    """Forget them all, and give back their connections."""
    global _streams
    if _streams is not None:
        streams, _streams = _streams, None
        await streams.close()
