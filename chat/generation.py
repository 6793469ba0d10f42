"""The life of one reply: from the row that a POST stored to exactly one end state (design.md §2, I8).

    start(id)          hands a stored reply to the web loop, from any thread, after the commit
    request_stop(g)    asks for its end, in whatever process it runs
    sweep()            ends replies whose process died

A reply runs as a task of its own, detached from whoever asked: closing the tab stops nothing. Three things go on side
by side: the upstream is read into a transcript, the transcript is published to listeners (at most 15 times a second),
and it is saved every 1.5 s or 4 kB, together with a sign of life. No thread and no database connection is held in
between.

The end: text is complete, the ledger's row is durable, the end state is stored, and only then the page is told.
Every change of a stored reply compares and swaps on "still open", so an end state never changes.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from catalog.routes import NoRoute, Route, routes_for_alias, routes_for_model
from chat import streams
from chat.models import Conversation, Generation, Message
from chat.transcript import Saved, Transcript
from config.crash import crash_at
from config.hot import in_thread
from providers import health
from providers.clients.base import ProviderClient, Usage
from providers.clients.errors import CODES, ProviderBroken, ProviderError, ProviderUnreachable
from providers.models import ProviderAccount
from usage import ledger, pricing
from usage.ledger import Attempt
from usage.models import Door, UsageLog
from usage.templatetags.money import usd

logger = logging.getLogger(__name__)

State = Generation.State

SAVE_SECONDS = 1.5
SAVE_BYTES = 4_000
SAVE_PAUSE_SECONDS = 0.25
STALE_SECONDS = 15
MAX_ATTEMPTS = 3
MAX_REPLY_CHARS = 2_000_000
USAGE_SECONDS = 10
"""How long the figures may come after the model said why it ended."""

OTHER_ACCOUNT_MAY_HELP = frozenset({"key_rejected", "no_balance", "forbidden", "rate_limited", "locked"})
"""Permanent for this account, not for the next one."""

SENTENCES = {
    "stopped": "You stopped this reply.",
    "timeout": CODES["timeout"],
    "interrupted": "The reply was cut off before it was complete. What had arrived is kept.",
    "restarted": "The server stopped while this was being written. What had arrived is kept.",
    "internal": "Something went wrong on our side. What had arrived is kept; try again.",
    "response_too_large": CODES["response_too_large"],
    "gone": "This reply no longer exists.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a reply ended, or why an attempt did. `error` is what the ledger notes."""

    state: State
    code: str = ""
    message: str = ""
    finish_reason: str = ""
    error: BaseException | None = None

    @property
    def ledger_status(self) -> str:
        if self.state == State.COMPLETE:
            return UsageLog.Status.SUCCESS
        if self.state == State.STOPPED:
            return UsageLog.Status.CANCELLED
        return UsageLog.Status.TIMEOUT if self.code == "timeout" else UsageLog.Status.ERROR

    @property
    def may_fail_over(self) -> bool:
        error = self.error
        return isinstance(error, ProviderError) and (not error.permanent or error.code in OTHER_ACCOUNT_MAY_HELP)


def _failed(exc: ProviderError) -> Ending:
    state = State.INTERRUPTED if exc.code == "interrupted" else State.FAILED
    return Ending(state, exc.code, exc.public_message, error=exc)


@dataclass(frozen=True, slots=True)
class Job:
    """All a reply needs to run, read from the database in one go."""

    user_id: int
    conversation_id: UUID
    message_id: int
    routes: list[tuple[Route, ProviderClient]]
    messages: list[dict[str, Any]]
    prompt_size: int


# -- In: from a request's thread to the web loop ---------------------------------------------------------------------

_loop: asyncio.AbstractEventLoop | None = None
_running: dict[UUID, Reply] = {}


def startup() -> None:
    """Remember the running loop as the one that runs replies, and end those that a dead process left open."""
    global _loop
    _loop = asyncio.get_running_loop()
    task = _loop.create_task(_sweep_quietly(), context=contextvars.Context())
    _background.add(task)
    task.add_done_callback(_background.discard)


_background: set[asyncio.Task[None]] = set()


async def _sweep_quietly() -> None:
    try:
        await in_thread(sweep)
    except DatabaseError:
        logger.exception("open replies of an earlier process could not be closed yet")


def start(generation_id: UUID) -> None:
    """Run a stored reply. Call it after the commit, from any thread.

    Where no loop runs replies (a shell, a test) the reply stays pending until sweep() ends it.
    """
    if _loop is None or _loop.is_closed():
        logger.warning("reply %s cannot run: this process serves no pages", generation_id)
        return
    # A fresh Context: a task that inherits a view's keeps its thread and connection for good (design.md §7).
    _loop.call_soon_threadsafe(_spawn, generation_id, context=contextvars.Context())


def _spawn(generation_id: UUID) -> None:
    if generation_id in _running:
        return
    reply = _running[generation_id] = Reply(generation_id)
    reply.task = asyncio.get_running_loop().create_task(reply.run(), context=contextvars.Context())
    reply.task.add_done_callback(lambda _: _running.pop(generation_id, None))


def request_stop(generation: Generation) -> None:
    """End a reply: at once where it runs in this process, within two seconds elsewhere. An ended one stays as it is."""
    Generation.objects.filter(pk=generation.pk).open().update(stop_requested_at=timezone.now())
    reply = _running.get(generation.pk)
    if reply is not None and _loop is not None and not _loop.is_closed():
        _loop.call_soon_threadsafe(reply.stop)


async def drain(seconds: float) -> None:
    """Let running replies finish for `seconds`; those that do not are kept as interrupted (F21)."""
    tasks = [reply.task for reply in _running.values() if reply.task is not None]
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds) if seconds > 0 else (set(), set(tasks))
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=10)


# -- The database's side, run in threads -----------------------------------------------------------------------------


def _load(generation_id: UUID) -> Job | Ending | None:
    """Claim a pending reply and read what it needs. None: it is not there, or no longer pending."""
    claimed = Generation.objects.filter(pk=generation_id, state=State.PENDING).update(
        process=ledger.this_process(), heartbeat_at=timezone.now()
    )
    if not claimed:
        return None
    generation = Generation.objects.select_related("message__conversation__owner", "model", "account", "alias").get(
        pk=generation_id
    )
    message = generation.message
    owner = message.conversation.owner
    if not owner.is_active:
        return Ending(State.REFUSED, "no_account", "This user is switched off.")
    try:
        if generation.alias is not None:
            routes = routes_for_alias(owner, generation.alias)
        elif generation.model is not None:
            routes = routes_for_model(owner, generation.model, account=generation.account)
        else:
            return Ending(State.REFUSED, "model_not_found", "This model no longer exists. Pick another model.")
    except NoRoute as exc:
        return Ending(State.REFUSED, exc.code, exc.message)
    usable: list[tuple[Route, ProviderClient]] = []
    locked: ProviderError | None = None
    for route in routes[:MAX_ATTEMPTS]:
        try:
            usable.append((route, route.client()))
        except ProviderError as exc:  # vault.Locked: no request may leave
            locked = locked or exc
    if locked is not None and not usable:
        return Ending(State.REFUSED, locked.code, locked.public_message)
    messages = context_for(message)
    size = sum(len(entry["content"].encode()) for entry in messages)
    return Job(owner.pk, message.conversation_id, message.pk, usable, messages, size)


def context_for(message: Message) -> list[dict[str, Any]]:
    """What the model reads: the turns from the root to the one it answers, in OpenAI's shape, without reasoning.

    Replies that ended without a word are left out: providers refuse empty turns.
    """
    if message.parent_id is None:
        return []
    path = Message.objects.path_to(message.parent_id)
    return [{"role": turn.role, "content": turn.content} for turn in path if turn.content]


def _save(generation_id: UUID, message_id: int, saved: Saved | None, columns: dict[str, Any]) -> tuple[bool, bool]:
    """Store a state and a sign of life, while the reply is open. Returns (still ours, stop wanted)."""
    mine = Generation.objects.filter(pk=generation_id, process=ledger.this_process()).open()
    with transaction.atomic():
        columns = _without_removed_account(columns)
        if saved is not None:
            columns = {**columns, "seq": saved.seq}
        if not mine.update(heartbeat_at=timezone.now(), **columns):
            return False, False
        if saved is not None:
            Message.objects.filter(pk=message_id).update(
                content=saved.content, reasoning=saved.reasoning, tool_calls=saved.tool_calls
            )
    wish = Generation.objects.filter(pk=generation_id).values_list(
        "stop_requested_at", "message__conversation__owner__is_active"
    )
    stop_requested_at, is_active = wish.get()
    return True, stop_requested_at is not None or not is_active  # a disabled user's reply ends, too (I18)


def _without_removed_account(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns to store, without a reference to an account that was removed while it answered."""
    pk = columns.get("account_id")
    if pk is None or ProviderAccount.objects.filter(pk=pk).exists():
        return columns
    return {**columns, "account_id": None}


def _store_end(generation_id: UUID, ending: Ending, saved: Saved | None, columns: dict[str, Any]) -> tuple[str, str]:
    """Store the end if the reply is still open. Returns (state, HTML of the finished message) as they now are."""
    from chat import turns

    now = timezone.now()
    with transaction.atomic():
        columns = _without_removed_account(columns)
        won = (
            Generation.objects.filter(pk=generation_id)
            .open()
            .update(
                state=ending.state,
                error_code=ending.code,
                error_message=ending.message[:500],
                finish_reason=ending.finish_reason[:40],
                heartbeat_at=now,
                finished_at=now,
                **({"seq": saved.seq} if saved else {}),
                **columns,
            )
        )
        generation = Generation.objects.select_related("message").filter(pk=generation_id).first()
        if generation is None:
            return State.FAILED, ""
        if won:
            if saved is not None:
                Message.objects.filter(pk=generation.message_id).update(
                    content=saved.content, reasoning=saved.reasoning, tool_calls=saved.tool_calls
                )
            Conversation.objects.filter(pk=generation.message.conversation_id).update(updated_at=now)
    crash_at("chat.after_commit")
    return generation.state, turns.finished_html(generation.message_id)


def sweep() -> int:
    """End open replies that nobody writes any more; returns how many (I8, F20). Safe to run anywhere, any time."""
    return sum(map(sweep_one, Generation.objects.open()[:1000]))


def sweep_one(generation: Generation) -> int:
    """End this open reply if nobody writes it any more: its process is dead, or gave no sign of life for 15 s."""
    if generation.pk in _running:
        return 0
    is_stale = generation.heartbeat_at < timezone.now() - timedelta(seconds=STALE_SECONDS)
    if not is_stale and not ledger.is_dead(generation.process):
        return 0
    return close_abandoned(generation.pk, generation.process, generation.heartbeat_at)


def close_abandoned(pk: UUID, process: str, heartbeat_at: datetime) -> int:
    """Mark one reply as interrupted, unless it showed a sign of life meanwhile. Returns 1 if it did."""
    ended = (
        Generation.objects.filter(pk=pk, process=process, heartbeat_at=heartbeat_at)
        .open()
        .update(
            state=State.INTERRUPTED,
            error_code="interrupted",
            error_message=SENTENCES["restarted"],
            finished_at=timezone.now(),
        )
    )
    if ended and (rows := list(UsageLog.objects.pending().filter(generation_id=pk))):
        # We alone know how much had arrived, so that its cost can be estimated.
        kept = Message.objects.filter(generation=pk).values_list("content", "reasoning").first() or ("", "")
        for row in rows:
            size = len(kept[0].encode()) + len(kept[1].encode())
            ledger.settle(Attempt.of(row, answer_size=size), UsageLog.Status.ERROR, "interrupted")
    return ended


# -- One reply -------------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """A reply while it is being written. Lives on the web loop; ends by itself, in a named state, whatever happens."""

    id: UUID
    task: asyncio.Task[None] | None = None
    transcript: Transcript = field(default_factory=Transcript)
    job: Job | None = None
    is_stopped: bool = False
    is_lost: bool = False
    """Somebody else ended it, or it was deleted: nothing of ours may be stored any more."""

    def __post_init__(self) -> None:
        self._news = asyncio.Event()  # something to publish, or something urgent
        self._urgent = asyncio.Event()  # stopped, lost, or the upstream ended
        self._save_now = asyncio.Event()
        self._over = asyncio.Event()
        self._began = self._last_word = time.monotonic()
        self._first_word: float | None = None
        self._finish_reason = ""
        self._finish_reason_at: float | None = None
        self._columns: dict[str, Any] = {}  # to be stored with the next save
        self._saved_seq = 0
        self._needs_whole = False
        self._prices: dict[str, Any] = {}
        self._has_text = False

    def stop(self) -> None:
        """Keep what is there and end. Call on the loop."""
        self.is_stopped = True
        self._wake()

    def _wake(self) -> None:
        self._urgent.set()
        self._news.set()

    # -- from beginning to end

    async def run(self) -> None:
        saver: asyncio.Task[None] | None = None
        try:
            job = await in_thread(_load, self.id)
            if job is None:
                return
            if isinstance(job, Ending):
                ending = job
            else:
                self.job = job
                await streams.current().append(self.id, streams.Update(0, status="waiting for the first word"))
                saver = asyncio.create_task(self._save_regularly())
                ending = await self._answer(job)
        except ledger.LedgerError as exc:  # without its row nothing may be sent
            ending = Ending(State.REFUSED, "ledger", str(exc))
        except asyncio.CancelledError:  # the process is stopping
            ending = Ending(State.INTERRUPTED, "interrupted", SENTENCES["restarted"])
        except Exception:
            logger.exception("reply %s failed", self.id)
            ending = Ending(State.FAILED, "internal", SENTENCES["internal"])
        if saver is not None:
            self._over.set()
            self._save_now.set()
            await asyncio.wait({saver})
        await self._finish(ending)

    async def _answer(self, job: Job) -> Ending:
        """Ask route after route until one speaks."""
        ending = Ending(State.FAILED, "internal", SENTENCES["internal"])
        for number, (route, client) in enumerate(job.routes, start=1):
            self._route_columns(route)
            ending = await self._attempt(job, route, client, number)
            if self.is_stopped or self.is_lost or not ending.may_fail_over or not self.transcript.is_empty:
                return ending
            if number < len(job.routes):
                label = route.account.label or route.account.provider.display_name
                if route.alias:  # the next one may be another model
                    label = f"{route.model.display_name} at {label}"
                self._columns["failover"] = f"instead of {label}: {ending.code.replace('_', ' ')}"[:300]
        return ending

    def _route_columns(self, route: Route) -> None:
        provider = route.account.provider
        self._prices = pricing.snapshot(route.model)
        self._columns |= {
            "account_id": route.account.pk,
            "account_label": route.account.label[:80],
            "provider_name": provider.display_name[:100],
            "model_name": route.model.display_name[:300],
            **({"model_id": route.model.pk} if route.alias else {}),
        }

    async def _attempt(self, job: Job, route: Route, client: ProviderClient, number: int) -> Ending:
        """One upstream call: its row is durable before the call, and settled before anybody hears of the end."""
        attempt = Attempt.begin(
            user_id=job.user_id,
            account=route.account,
            model=route.model,
            door=Door.CHAT,
            attempt=number,
            conversation_id=job.conversation_id,
            message_id=job.message_id,
            generation_id=self.id,
            prompt_chars=job.prompt_size,
        )
        await ledger.aopen(attempt)
        crash_at("chat.before_call")
        ending = Ending(State.INTERRUPTED, "interrupted", SENTENCES["restarted"], error=ProviderBroken("interrupted"))
        try:
            ending = await self._follow(client, job, route, attempt)
        except ProviderError as exc:
            ending = _failed(exc)
        except Exception as exc:
            logger.exception("reply %s failed", self.id)
            ending = Ending(State.FAILED, "internal", SENTENCES["internal"], error=exc)
        finally:
            try:
                await ledger.asettle(attempt, ending.ledger_status, ending.error)
            except ledger.LedgerUnavailable:  # it is queued, and written when the database comes back
                logger.warning("reply %s is metered late", self.id)
        await self._note(route, ending, attempt)
        return ending

    async def _note(self, route: Route, ending: Ending, attempt: Attempt) -> None:
        """Tell the account's owner what a real call found out about it (providers/health.py)."""
        account = route.account
        with suppress(DatabaseError):
            if isinstance(ending.error, ProviderError):
                if ending.error.code in health.CONSEQUENCES:
                    await in_thread(health.failed, account, ending.error)
            elif ending.state == State.COMPLETE and not health.is_well(account):
                await in_thread(health.succeeded, account, attempt.started_at)

    async def _follow(self, client: ProviderClient, job: Job, route: Route, attempt: Attempt) -> Ending:
        """Publish what is read, until it ends, a deadline passes, or somebody stops us. Raises ProviderError."""
        self._began = self._last_word = time.monotonic()
        self._urgent.clear()
        self._finish_reason, self._finish_reason_at = "", None
        body = {"model": route.model.model_id, "messages": job.messages, "stream": True}
        reader = asyncio.create_task(self._read(client, body, attempt))
        reader.add_done_callback(lambda _: self._wake())
        try:
            while not reader.done():
                if self.is_lost:
                    return Ending(State.INTERRUPTED, "interrupted", error=ProviderBroken("interrupted"))
                if self.is_stopped:
                    return Ending(State.STOPPED, message=SENTENCES["stopped"])
                if (late := self._deadline()) is not None:
                    return late
                if self.transcript.has_news:
                    await self._publish()
                    await self._sleep(self._urgent, self.transcript.pause)
                else:
                    await self._sleep(self._news, 1.0)
                    self._news.clear()
            return reader.result()
        finally:
            reader.cancel()
            await asyncio.wait({reader}, timeout=5)

    @staticmethod
    async def _sleep(event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    async def _read(self, client: ProviderClient, body: dict[str, Any], attempt: Attempt) -> Ending:
        """Read one upstream answer into the transcript and the attempt. Raises ProviderError."""
        is_done = False
        try:
            async with aclosing(client.stream(body)) as frames:  # type: ignore[type-var]
                async for frame in frames:
                    delta = frame.delta
                    attempt.read(delta)
                    if delta.error is not None:
                        raise (
                            delta.error if isinstance(delta.error, ProviderError) else ProviderBroken("upstream_error")
                        )
                    if delta.text or delta.reasoning or delta.tool_calls:
                        self._take(delta)
                        if self.transcript.received > MAX_REPLY_CHARS:
                            raise ProviderBroken("response_too_large", permanent=True)
                    if delta.finish_reason:
                        self._finish_reason, self._finish_reason_at = delta.finish_reason, time.monotonic()
                    if frame.done:
                        is_done = True
                        break
        except ProviderError as exc:
            # Cut after the model said that it had ended: only the figures are missing, and the ledger estimates (F5).
            if exc.code != "interrupted" or not self._finish_reason:
                raise
        if self._finish_reason or is_done:
            return Ending(State.COMPLETE, finish_reason=self._finish_reason)
        raise ProviderBroken("interrupted")  # ended without saying so: not complete (F6)

    def _take(self, delta: Any) -> None:
        self._last_word = time.monotonic()
        if self._first_word is None:
            self._first_word = self._last_word
            self._columns |= {"state": State.STREAMING, "first_token_at": timezone.now()}
            self._save_now.set()
            crash_at("chat.first_token")
        if (delta.text or delta.tool_calls) and not self._has_text:
            self._has_text = True
            self._columns["reasoning_ended_at"] = timezone.now()
        self.transcript.add(delta)
        self._news.set()

    def _deadline(self) -> Ending | None:
        """An ending if a deadline of ours passed: the whole, the first word, or a word after the last (F3, F4)."""
        now = time.monotonic()
        if self._finish_reason_at is not None:
            if now - self._finish_reason_at > USAGE_SECONDS:
                return Ending(State.COMPLETE, finish_reason=self._finish_reason)
            return None
        quiet = settings.REPLY_FIRST_WORD_SECONDS if self.transcript.is_empty else settings.REPLY_IDLE_SECONDS
        if now - self._last_word <= quiet and now - self._began <= settings.REPLY_TOTAL_SECONDS:
            return None
        return _failed(ProviderUnreachable("timeout"))

    # -- what listeners and the database see

    async def _publish(self) -> None:
        status = self._status()
        if self.transcript.to_draw > 8_000:  # must not hold up the other replies (X6)
            drawing = asyncio.get_running_loop().run_in_executor(None, self.transcript.advance, status)
            try:
                update = await asyncio.shield(drawing)
            except asyncio.CancelledError:
                await asyncio.wait({drawing})  # two may not write in one transcript
                raise
        else:
            update = self.transcript.advance(status)
        if self._needs_whole:
            update = self.transcript.whole(status)
        self._needs_whole = not await streams.current().append(self.id, update)
        self.transcript.published()
        if self.transcript.unsaved_bytes >= SAVE_BYTES:
            self._save_now.set()

    def _status(self) -> str:
        """The line under a reply that is being written: speed, and about what it has cost so far."""
        assert self.job is not None
        tokens = pricing.estimate_tokens(self.transcript.received)
        seconds = time.monotonic() - (self._first_word or self._began)
        speed = f"writing · {tokens / seconds:.0f} tokens/s" if seconds >= 0.5 and tokens > 10 else "writing"
        used = Usage(prompt_tokens=pricing.estimate_tokens(self.job.prompt_size), completion_tokens=tokens)
        cost = pricing.cost_by_snapshot(used, self._prices, at=timezone.now(), is_estimated=True).amount
        if cost is None or cost == Decimal(0):
            return speed
        return f"{speed} · ≈ {usd(cost)} so far"

    async def _save_regularly(self) -> None:
        """Save every 1.5 s, or sooner after 4 kB; a database that is busy delays this and nothing else (F24)."""
        assert self.job is not None
        while not self._over.is_set():
            await self._sleep(self._save_now, SAVE_SECONDS)
            self._save_now.clear()
            if self._over.is_set():
                return
            saved = self.transcript.saved() if self.transcript.seq > self._saved_seq else None
            self.transcript.unsaved_bytes = 0
            columns, self._columns = self._columns, {}
            try:
                is_ours, is_stop_wanted = await in_thread(_save, self.id, self.job.message_id, saved, columns)
            except DatabaseError as exc:
                logger.warning("reply %s could not be saved yet: %s", self.id, type(exc).__name__)
                self._columns = columns | self._columns
            else:
                if saved is not None:
                    self._saved_seq = saved.seq
                    crash_at("chat.mid")
                if not is_ours:
                    self.is_lost = True
                    self._wake()
                elif is_stop_wanted:
                    self.stop()
            await self._sleep(self._over, SAVE_PAUSE_SECONDS)

    async def _finish(self, ending: Ending) -> None:
        """Store the end, then tell the listeners. A database that is away is tried again; sweep() has the last word."""
        self.transcript.close()
        saved = self.transcript.saved() if self.job is not None else None
        columns = {key: value for key, value in self._columns.items() if key != "state"}
        crash_at("chat.before_commit")
        for pause in (0.2, 1.0, 3.0, 6.0, None):
            try:
                state, html = await in_thread(_store_end, self.id, ending, saved, columns)
                break
            except DatabaseError as exc:
                logger.warning("the end of reply %s could not be stored yet: %s", self.id, type(exc).__name__)
                if pause is None:
                    return
                await asyncio.sleep(pause)
        await streams.current().finish(self.id, streams.End(self.transcript.seq, state, html))
