"""The only writer of usage rows and their daily sums: durable, settled exactly once, many rows per commit.

    attempt = Attempt.begin(user_id=…, account=…, model=…, door="chat", prompt_chars=…)
    await ledger.aopen(attempt)                 # the row is on disk before the upstream hears of it (M3)
    … attempt.read(delta) for every delta …
    await ledger.asettle(attempt, "success")    # counts, cost and the day's sums in one transaction

One writer thread per process has its own database connection. It uses no timer: it commits when idle and takes along
whatever arrived meanwhile (docs/adr/0010). A call that is the only one of its process borrows that connection and
commits on the spot. Nobody is told "done" before the commit is. Rows of a process that died are closed by `sweep()`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import logging
import os
import queue
import select
import sqlite3
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import add, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    models,
    transaction,
)
from django.utils import timezone

from config.crash import crash_at
from config.ids import new_uuid
from providers.clients.base import Delta, Usage
from providers.clients.errors import CODES, ProviderError
from providers.money import MAX_USD, PICO
from usage import pricing
from usage.models import CostSource, DailyUsage, UsageLog
from usage.pricing import NOTHING, UNKNOWN, Cost, Snapshot

if TYPE_CHECKING:
    from catalog.models import AggregatorModel
    from providers.models import ProviderAccount

log = logging.getLogger(__name__)

Status = UsageLog.Status

PATIENCE = 10.0
"""Seconds a caller waits for its row to be durable before it is told LedgerUnavailable."""

MAX_BATCH = 500
"""Rows taken into one transaction: bounds how long a commit, and thus the next caller, waits."""

MAX_WAITING = 20_000
"""Rows waiting for the writer beyond which new attempts are refused. Settles are always taken: their calls are made."""

CHECKPOINT_COMMITS = 600
"""Commits on SQLite after which the log is copied into the database when nothing waits: some 3,000 pages, 12 MB."""

QUIET = 0.01
"""Seconds without a row that count as nothing waiting."""

MOST_LOG_PAGES = 8_000
"""Pages in the log (32 MB) at which SQLite copies them within a commit, if there was no quiet moment till then."""

AT_ONCE = 0.02
"""Seconds that a lone call's event loop waits for its commit, before the writer's thread does the waiting."""

AFTER_A_SLOW_ONE = 20
"""Rows that go by the thread after a commit that took longer: the next is likely to be slow too."""

NO_ACCOUNT = uuid.UUID(int=0)

FREE_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 411, 413, 414, 415, 422, 429, 451, 503, 529})
"""HTTP statuses that say the job was not taken on, so that it costs nothing if they come before the first byte.

408, 500, 502, 504 and 524 are not among them: the model may have worked behind a gateway that gave up.
"""

FREE_CODES = frozenset(
    {
        "unreachable",
        "blocked_address",
        "bad_header",
        "tls_error",
        "key_rejected",
        "no_balance",
        "forbidden",
        "model_not_found",
        "context_length_exceeded",
        "bad_request",
        "too_large",
        "rate_limited",
        "overloaded",
        "unexpected_redirect",
        "locked",
        "not_sent",
    }
)
"""Error codes of the same meaning, for errors that came with status 200 or without any answer (F1)."""

NOT_SENT = "The call was not made: its row could not be written in time, or the caller had left."


class LedgerError(Exception):
    """A usage row could not be written."""


class LedgerUnavailable(LedgerError):
    """The database did not take the row in time. Nothing may be sent upstream without it; try again later."""


class LedgerRefused(LedgerError):
    """The database refuses this one row, whatever the time. A bug: the log has the reason."""


# -- One attempt -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Attempt:
    """One upstream call, from before it is made until it is settled. Belongs to one task at a time."""

    request_id: uuid.UUID
    user_id: int
    door: str
    number: int
    provider_id: int | None
    provider_name: str
    account_id: uuid.UUID | None
    account_label: str
    model_pk: int | None
    model_id: str
    model_name: str
    conversation_id: uuid.UUID | None
    message_id: int | None
    generation_id: uuid.UUID | None
    token_id: uuid.UUID | None
    prices: Snapshot
    prompt_size: int
    started_at: datetime
    process: str
    began: float | None = None
    """time.monotonic() at the start; None for a row taken over from another process."""

    usage: Usage | None = None
    """The last usage object with any non-zero figure (upstreams.md §0.4)."""
    answer_size: int | None = 0
    """UTF-8 bytes of text, reasoning and tool calls so far; None where nobody knows."""
    first_token_at: float | None = None
    finish_reason: str = ""
    upstream_id: str = ""
    upstream_model: str = ""
    error: Exception | None = None
    cost: Cost | None = None
    """Set by settling."""
    _grew_since_usage: bool = False

    @classmethod
    def begin(
        cls,
        *,
        user_id: int,
        account: ProviderAccount,
        model: AggregatorModel,
        door: str,
        attempt: int = 1,
        conversation_id: uuid.UUID | None = None,
        message_id: int | None = None,
        generation_id: uuid.UUID | None = None,
        token_id: uuid.UUID | None = None,
        prompt_chars: int = 0,
        prices: dict[str, Any] | None = None,
    ) -> Attempt:
        """An attempt that starts now, with today's prices. Reads `account.provider` (load it before: no query here).

        `attempt` is 1 for the first try. `prompt_chars` is the size of all messages, for the estimate if the upstream
        never says (UTF-8 bytes are better still); 0 means unknown. `prices`: `pricing.snapshot(model)`, where a caller
        who keeps the model has it already.
        """
        if type(prices) is not Snapshot:
            prices = pricing.snapshot(model) if prices is None else Snapshot(prices)
        return cls(
            request_id=new_uuid(),
            user_id=user_id,
            door=door if type(door) is str else str(door),
            number=attempt,
            provider_id=account.provider_id,
            provider_name=account.provider.display_name,
            account_id=account.pk,
            account_label=account.label,
            model_pk=model.pk,
            model_id=model.model_id,
            model_name=model.display_name,
            conversation_id=conversation_id,
            message_id=message_id,
            generation_id=generation_id,
            token_id=token_id,
            prices=prices,
            prompt_size=prompt_chars,
            started_at=datetime.now(UTC),
            process=this_process(),
            began=time.monotonic(),
        )

    @classmethod
    def of(cls, row: UsageLog, *, answer_size: int | None = None) -> Attempt:
        """The attempt behind a stored row, to settle it for a process that is gone.

        `answer_size`: UTF-8 bytes that are known to have arrived (a checkpoint), None if nobody knows.
        """
        return cls(
            **{name: getattr(row, name) for name in _COPIED},
            number=row.attempt,
            prices=Snapshot(row.price_snapshot),
            prompt_size=int(row.metadata.get("prompt_size", 0)),
            process=str(row.metadata.get("process", "")),
            answer_size=answer_size,
        )

    def read(self, delta: Delta) -> None:
        """Take from one delta what metering needs. Cheap: called for every event."""
        text = delta.text
        if text or delta.reasoning or delta.tool_calls:
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
            size = len(text) if text.isascii() else _size(text)
            if delta.reasoning:
                size += _size(delta.reasoning)
            for call in delta.tool_calls:
                size += _size(call.name) + _size(call.arguments)
            self.answer_size = (self.answer_size or 0) + size
            self._grew_since_usage = True
        if delta.usage is not None and _says_something(delta.usage):
            self.usage = delta.usage
            self._grew_since_usage = False
        if delta.finish_reason:
            self.finish_reason = delta.finish_reason
        if delta.error is not None and self.error is None:
            self.error = delta.error
        if delta.id and not self.upstream_id:
            self.upstream_id = delta.id
        if delta.model and not self.upstream_model:
            self.upstream_model = delta.model

    @property
    def has_received(self) -> bool:
        """The upstream delivered something it may charge for."""
        return bool(self.answer_size) or self.usage is not None

    @property
    def first_token_ms(self) -> int | None:
        if self.first_token_at is None or self.began is None:
            return None
        return round((self.first_token_at - self.began) * 1000)


_COPIED = (
    "request_id",
    "user_id",
    "door",
    "provider_id",
    "provider_name",
    "account_id",
    "account_label",
    "model_pk",
    "model_id",
    "model_name",
    "conversation_id",
    "message_id",
    "generation_id",
    "token_id",
    "started_at",
)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _says_something(usage: Usage) -> bool:
    return bool(
        usage.prompt_tokens
        or usage.completion_tokens
        or usage.total_tokens
        or usage.cached_tokens
        or usage.reasoning_tokens
        or usage.cost
    )


def clean(text: object, limit: int) -> str:
    """Upstream text as both databases can hold it: no NUL, no lone surrogate, at most `limit` characters."""
    if type(text) is str and len(text) <= limit and text.isascii() and "\x00" not in text:
        return text
    safe = str(text).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


# -- How an attempt ended --------------------------------------------------------------------------------------------


def _settlement(attempt: Attempt, status: str, error: BaseException | str | None) -> dict[str, Any]:
    """The columns that settling writes, as they are stored. Pure but for the clock; sets `attempt.cost`."""
    status, code, message, http_status = _verdict(attempt, _END_STATES.get(status, ""), error)
    counts, cost, is_estimated = _metered(attempt, status, code, http_status)
    attempt.cost = cost
    return {
        "status": status,
        "error_code": clean(code, 60),
        "error_message": clean(message, 500),
        "http_status": http_status,
        "upstream_id": clean(attempt.upstream_id, 200),
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
        "cached_tokens": counts.cached_tokens,
        "cache_write_tokens": counts.cache_write_tokens,
        "reasoning_tokens": counts.reasoning_tokens,
        "cost": cost.pico,
        "cost_source": cost.source,
        "latency_ms": None if attempt.began is None else round((time.monotonic() - attempt.began) * 1000),
        "first_token_ms": attempt.first_token_ms,
        "settled_at": datetime.now(UTC),
        "metadata": _settled_metadata(attempt, is_estimated=is_estimated),
    }


_as_json = functools.lru_cache(maxsize=4096)(json.dumps)
"""The JSON of a short text: of a process, a finish reason, a model, which are the same in row after row."""


def _opened_metadata(attempt: Attempt) -> str:
    return f'{{"process": {_as_json(attempt.process)}, "prompt_size": {attempt.prompt_size:d}}}'


def _settled_metadata(attempt: Attempt, *, is_estimated: bool) -> str:
    text = f'{{"process": {_as_json(attempt.process)}'
    if is_estimated:
        text += ', "counts": "estimated"'
    if attempt.prompt_size:
        text += f', "prompt_size": {attempt.prompt_size:d}'
    if attempt.answer_size:
        text += f', "answer_size": {attempt.answer_size:d}'
    if attempt.finish_reason:
        text += f', "finish_reason": {_as_json(clean(attempt.finish_reason, 60))}'
    if attempt.upstream_model and attempt.upstream_model != attempt.model_id:
        text += f', "upstream_model": {_as_json(clean(attempt.upstream_model, 300))}'
    return text + "}"


# Plain texts, because an enum's member costs some twenty times as much to look at (Python 3.11), ten times per attempt.
_SUCCESS, _CANCELLED, _TIMEOUT, _ERROR = (
    status.value for status in (Status.SUCCESS, Status.CANCELLED, Status.TIMEOUT, Status.ERROR)
)
_END_STATES = {text: text for text in (_SUCCESS, _CANCELLED, _TIMEOUT, _ERROR)}
_BILLED, _COMPUTED, _ESTIMATED, _UNKNOWN = (
    source.value for source in (CostSource.PROVIDER, CostSource.COMPUTED, CostSource.ESTIMATED, CostSource.UNKNOWN)
)


def _verdict(attempt: Attempt, status: str, error: BaseException | str | None) -> tuple[str, str, str, int | None]:
    """(status, error code, message for the owner, HTTP status): design.md §2's table."""
    if not status:
        raise ValueError("an attempt is settled as success, cancelled, timeout or error, not as pending")
    http_status = 200 if attempt.has_received else None
    if status in (_SUCCESS, _CANCELLED):
        return status, "", "", http_status
    error = error or attempt.error
    if isinstance(error, ProviderError):
        if error.code == "timeout":
            status = _TIMEOUT
        return status, error.code, error.public_message, error.status or http_status
    if isinstance(error, str):
        return status, error, NOT_SENT if error == "not_sent" else CODES.get(error, ""), http_status
    if error is not None:
        # Only the kind of the exception: its text may quote what must not be stored (K4).
        return status, "internal_error", type(error).__name__, http_status
    code = "timeout" if status == _TIMEOUT else "interrupted"
    return status, code, CODES[code], http_status


def _metered(attempt: Attempt, status: str, code: str, http_status: int | None) -> tuple[Usage, Cost, bool]:
    """(what was used, what it costs, whether the counts are estimated). Counts nobody can tell stay None.

    - reported in full: computed (or billed, if the provider named a figure);
    - cut, stopped or unreported, but we saw text: estimated from what was sent and received;
    - nothing received and the job demonstrably not taken on: 0 (F1);
    - nothing received and nobody knows (timeouts, 500s, our own crash): unknown, except for free models.
    """
    noted = attempt.prices
    failed = status in (_ERROR, _TIMEOUT)
    if failed and not attempt.has_received:
        not_taken_on = http_status in FREE_STATUSES or code in FREE_CODES
        is_free = noted.get("kind") == "free" and noted.get("type", "unknown") in pricing.TOKEN_PRICED
        return Usage(), NOTHING if not_taken_on or is_free else UNKNOWN, False

    reported = pricing.tidy(attempt.usage) if attempt.usage is not None else None
    if reported is not None:
        has_ended = status == _SUCCESS or bool(attempt.finish_reason) or attempt.error is not None
        is_final = has_ended and (status == _SUCCESS or not attempt._grew_since_usage)
        is_whole = reported.prompt_tokens is not None and reported.completion_tokens is not None
        is_plausible = bool(reported.completion_tokens) or not attempt.answer_size
        if pricing.named_cost(reported.cost) is not None or (is_final and is_whole and is_plausible):
            return reported, pricing.cost_by_snapshot(reported, noted, at=attempt.started_at), False

    reported = reported or Usage()
    prompt = reported.prompt_tokens or (pricing.estimate_tokens(attempt.prompt_size) if attempt.prompt_size else None)
    completion = max(reported.completion_tokens or 0, pricing.estimate_tokens(attempt.answer_size or 0))
    guess = pricing.tidy(
        replace(
            reported,
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=None if prompt is None else prompt + completion,
        )
    )
    return guess, pricing.cost_by_snapshot(guess, noted, at=attempt.started_at, is_estimated=True), True


def _sums(attempt: Attempt, columns: dict[str, Any]) -> tuple[tuple[Any, ...], list[int]]:
    """(the daily row's key, what to add to its SUMS), as they are stored."""
    key = (
        attempt.user_id,
        _utc(attempt.started_at).date().isoformat(),
        attempt.door,
        attempt.provider_name,
        (attempt.account_id or NO_ACCOUNT).hex,
        attempt.model_id,
    )
    source, pico = columns["cost_source"], columns["cost"] or 0
    failed = columns["status"] != _SUCCESS
    return key, [
        1,
        int(failed),
        int(source == _BILLED),
        int(source == _COMPUTED),
        int(source == _ESTIMATED),
        int(source == _UNKNOWN),
        columns["prompt_tokens"] or 0,
        columns["completion_tokens"] or 0,
        columns["cached_tokens"] or 0,
        pico,
        pico if source == _BILLED else 0,
        pico if source == _COMPUTED else 0,
        pico if source == _ESTIMATED else 0,
        pico if failed else 0,
        _saved(attempt, columns),
    ]


def _saved(attempt: Attempt, columns: dict[str, Any]) -> int:
    """10⁻¹² USD that the cached tokens would have cost more."""
    if not columns["cached_tokens"]:
        return 0
    prices = attempt.prices
    if prices.tariff is not None:
        return pricing.saved_by_tariff(columns["prompt_tokens"] or 0, columns["cached_tokens"], prices.tariff)
    used = Usage(prompt_tokens=columns["prompt_tokens"], cached_tokens=columns["cached_tokens"])
    return pricing.saved_by_cache(used, prices, rules=prices.get("rules", ()), at=attempt.started_at)


KEY = ("user_id", "day", "door", "provider_name", "account_id", "model_id")
SUMS = (
    "attempts",
    "failed",
    "billed",
    "computed",
    "estimated",
    "unknown",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost",
    "cost_billed",
    "cost_computed",
    "cost_estimated",
    "cost_failed",
    "saved",
)


# -- One batch, one transaction --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Write:
    """One row to insert (`columns` is None) or to settle. `result` of a settle: whether this one did it."""

    attempt: Attempt
    columns: dict[str, Any] | None = None
    loop: asyncio.AbstractEventLoop | None = None
    future: Any = None
    is_dropped: bool = False
    is_again: bool = False
    """An earlier try may have been committed without our hearing of it."""
    is_written: bool = False
    """The writer need not write it any more."""
    result: bool = False
    error: BaseException | None = field(default=None, repr=False)


_OPENED = (
    *_COPIED,
    "attempt",
    "status",
    "error_code",
    "error_message",
    "upstream_id",
    "price_snapshot",
    "cost_source",
    "metadata",
)
_SETTLED = (
    "status",
    "error_code",
    "error_message",
    "http_status",
    "upstream_id",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost",
    "cost_source",
    "latency_ms",
    "first_token_ms",
    "metadata",
)
"""Columns of a settlement that are stored as `_settlement` made them; `settled_at` comes after them."""


# Rows as both databases take them: ids as 32 hex digits, times as text in UTC, JSON as text. Written out by hand,
# because asking each field of the model how it wants its value took three times as long as the database does; a test
# compares what is stored with what Django would have stored.


def _opened_row(attempt: Attempt, zone: str) -> tuple[Any, ...]:
    """The values of _OPENED. `zone` is what the database wants behind a time."""
    account, conversation, generation, token = (
        attempt.account_id,
        attempt.conversation_id,
        attempt.generation_id,
        attempt.token_id,
    )
    return (
        attempt.request_id.hex,
        attempt.user_id,
        attempt.door,
        attempt.provider_id,
        attempt.provider_name,
        account and account.hex,
        attempt.account_label,
        attempt.model_pk,
        attempt.model_id,
        attempt.model_name,
        conversation and conversation.hex,
        attempt.message_id,
        generation and generation.hex,
        token and token.hex,
        _stamp(attempt.started_at) + zone,
        attempt.number,
        "pending",
        "",
        "",
        "",
        attempt.prices.text,
        "unknown",
        _opened_metadata(attempt),
    )


_as_settled = itemgetter(*_SETTLED)


def _settled_row(write: Write, zone: str) -> tuple[Any, ...]:
    """The values of (*_SETTLED, "settled_at", "request_id"). `zone` as above."""
    columns = write.columns or {}
    return (*_as_settled(columns), _stamp(columns["settled_at"]) + zone, write.attempt.request_id.hex)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _stamp(moment: datetime) -> str:
    """A time in UTC as Django writes it on SQLite."""
    return _utc(moment).isoformat(" ")[:-6]  # without the +00:00


def write_batch(writes: Sequence[Write], *, is_again: bool = False) -> None:
    """Insert, settle and add up `writes` in one transaction on this thread's connection; sets each `result`.

    `is_again` says that an earlier try may have been committed without our hearing of it.
    """
    opens = [write for write in writes if write.columns is None and not write.is_dropped]
    settles: dict[uuid.UUID, Write] = {}
    for write in writes:
        write.result = False
        if write.columns is not None:  # of two in one batch the first is the one that may win
            settles.setdefault(write.attempt.request_id, write)
    # In the order of their ids, so that two processes cannot wait for each other's rows.
    ordered = sorted(settles.values(), key=_id_of) if len(settles) > 1 else list(settles.values())
    db = connections[DEFAULT_DB_ALIAS]
    db.ensure_connection()
    # Below Django's cursors, which cost as much per statement as SQLite needs for it. Errors are still Django's.
    with db.wrap_database_errors:
        if db.vendor == "postgresql":
            with _savepoint(db):
                _write_to_postgres(db.connection, opens, ordered)
            if is_again:
                _recognise(ordered)
        else:
            try:
                _write_to_sqlite(db, opens, ordered, is_again=is_again)
            except _Contested:
                _write_to_sqlite(db, opens, ordered, is_again=is_again, one_by_one=True)
    for write in opens:
        write.result = True


def _savepoint(db: Any) -> AbstractContextManager[None]:
    """Inside a test's transaction an error must not end that one. Elsewhere nothing: the transaction is our own."""
    return transaction.atomic() if db.in_atomic_block else nullcontext()


def _id_of(write: Write) -> int:
    return write.attempt.request_id.int


def _recognise(settles: Iterable[Write]) -> None:
    """After a commit that may have happened: a row settled at our very microsecond was settled, and added up, by us."""
    lost = [write for write in settles if not write.result]
    keys = [write.attempt.request_id for write in lost]
    stored = dict(UsageLog.objects.filter(request_id__in=keys).values_list("request_id", "settled_at"))
    for write in lost:
        if write.columns and stored.get(write.attempt.request_id) == write.columns["settled_at"]:
            write.result = write.is_dropped = True


# A sum stops at the limit: past the end of 64 bits PostgreSQL fails and SQLite turns to floats.
_LIMIT = int(MAX_USD) * PICO
_LOG, _DAILY = UsageLog._meta.db_table, DailyUsage._meta.db_table
_DAY_COLUMNS = (*KEY, "model_name", *SUMS)
_ADD = f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET model_name = excluded.model_name, " + ", ".join(
    f"{name} = CASE WHEN {_DAILY}.{name} > {_LIMIT} - excluded.{name} THEN {_LIMIT} "
    f"ELSE {_DAILY}.{name} + excluded.{name} END"
    for name in SUMS
)
"""Raw SQL, because bulk_create(update_conflicts=True) can replace but not add, and because get-or-update would need
two statements and a lock per row. It is the same on both databases."""

# DO NOTHING: after a connection lost in mid-commit the row may be there already.
_ONCE = "ON CONFLICT (request_id) DO NOTHING"


# -- The same on SQLite ----------------------------------------------------------------------------------------------


def _marks(count: int) -> str:
    return ", ".join("?" * count)


_SQLITE_INSERT = f"INSERT INTO {_LOG} ({', '.join(_OPENED)}) VALUES ({_marks(len(_OPENED))}) {_ONCE}"  # noqa: S608
_SQLITE_SETTLE = (
    f"UPDATE {_LOG} SET {', '.join(f'{name} = ?' for name in (*_SETTLED, 'settled_at'))} "  # noqa: S608
    "WHERE request_id = ? AND status = 'pending'"
)
_SQLITE_ADD = f"INSERT INTO {_DAILY} ({', '.join(_DAY_COLUMNS)}) VALUES ({_marks(len(_DAY_COLUMNS))}) {_ADD}"  # noqa: S608


class _Contested(Exception):
    """Some row of the batch was settled before: which one must be asked row by row."""


def _write_to_sqlite(
    db: Any, opens: Sequence[Write], settles: Sequence[Write], *, is_again: bool, one_by_one: bool = False
) -> None:
    """One prepared statement per kind of row, run for each row."""
    raw = db.connection
    with _savepoint(db) if db.in_atomic_block else _sqlite_transaction(raw):
        _put_into_sqlite(raw, opens, settles, is_again=is_again, one_by_one=one_by_one)


def _write_one_to_sqlite(raw: Any, write: Write) -> None:
    is_open = write.columns is None
    with _sqlite_transaction(raw):
        _put_into_sqlite(raw, [write] if is_open else [], [] if is_open else [write])
    write.result = write.result or is_open


def _put_into_sqlite(
    raw: Any, opens: Sequence[Write], settles: Sequence[Write], *, is_again: bool = False, one_by_one: bool = False
) -> None:
    if opens:
        raw.executemany(_SQLITE_INSERT, [_opened_row(write.attempt, "") for write in opens])
    if settles:
        _settle_on_sqlite(raw, settles, one_by_one=one_by_one)
        if is_again:
            _recognise(settles)
        if days := _days([write for write in settles if write.result and not write.is_dropped]):
            raw.executemany(_SQLITE_ADD, days)
    crash_at("ledger.before_commit")


@contextmanager
def _sqlite_transaction(raw: Any) -> Iterator[None]:
    """`transaction.atomic()` without what it does for nested ones. Django leaves its connection in autocommit mode."""
    raw.execute("BEGIN IMMEDIATE")
    try:
        yield
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:  # a full disk makes SQLite end it by itself
            raw.execute("ROLLBACK")
        raise


def _settle_on_sqlite(raw: Any, settles: Sequence[Write], *, one_by_one: bool) -> None:
    """Compare-and-swap on status = 'pending': of any number of settles of a row, one wins, ever.

    The count of hits says whether all of them did, as nearly always. (If not, the batch is undone and done again one by
    one; a savepoint inside each batch would do that with less code, and copy every page it touches.)
    """
    rows = [_settled_row(write, "") for write in settles]
    if one_by_one or len(rows) == 1:
        for write, row in zip(settles, rows, strict=True):
            write.result = raw.execute(_SQLITE_SETTLE, row).rowcount == 1
        return
    if raw.executemany(_SQLITE_SETTLE, rows).rowcount != len(rows):
        raise _Contested
    for write in settles:
        write.result = True


def _days(settled: Iterable[Write]) -> list[tuple[Any, ...]]:
    """The rows of _DAY_COLUMNS that add `settled` to their days: one per key, in the order of the keys."""
    totals: dict[tuple[Any, ...], list[int]] = {}
    names: dict[tuple[Any, ...], str] = {}
    for write in settled:
        key, numbers = _sums(write.attempt, write.columns or {})
        names[key] = write.attempt.model_name
        so_far = totals.get(key)
        totals[key] = numbers if so_far is None else list(map(add, so_far, numbers))
    return [(*key, names[key], *totals[key]) for key in sorted(totals)]


# -- And on PostgreSQL -----------------------------------------------------------------------------------------------

# || '' keeps the planner off the index of pending rows, whose entries are mostly dead: it would walk all.
_PENDING = "t.status || '' = 'pending'"


def _postgres_marks(count: int, *, after: int = 0) -> list[str]:
    return [f"${number}" for number in range(after + 1, after + count + 1)]


# One row, as in quiet hours each has a commit of its own: it needs neither JSON nor grouping, and gets there sooner.
_POSTGRES_OPEN = (
    f"INSERT INTO {_LOG} ({', '.join(_OPENED)}) VALUES ({', '.join(_postgres_marks(len(_OPENED)))}) {_ONCE}"  # noqa: S608
)
_POSTGRES_SETTLE = (
    f"WITH settled AS (UPDATE {_LOG} AS t "  # noqa: S608
    f"SET {', '.join(f'{name} = ${at}' for at, name in enumerate((*_SETTLED, 'settled_at'), start=1))} "
    f"WHERE t.request_id = ${len(_SETTLED) + 2} AND {_PENDING} RETURNING 1) "
    f"INSERT INTO {_DAILY} ({', '.join(_DAY_COLUMNS)}) "
    f"SELECT {', '.join(_postgres_marks(len(_DAY_COLUMNS), after=len(_SETTLED) + 2))} FROM settled {_ADD} RETURNING 1"
)


@functools.cache
def _postgres_statement(*, opens: bool, settles: bool) -> str:
    """Everything one batch does, as one statement: one round trip, and no BEGIN and COMMIT around it.

    Its parts see the database as it was before; none needs what another wrote but the sums, which are read from what
    the settled rows are returned to be. Each part is a batch of rows in one JSON parameter, so that there is one text
    for any number of rows, planned once where it can be prepared (planning takes the server 2 ms, running it 0.3).
    """
    parts, parameter = [], 0
    if opens:
        parameter += 1
        parts.append(
            f"opened AS (INSERT INTO {_LOG} ({', '.join(_OPENED)}) "  # noqa: S608
            f"SELECT {_postgres_columns(_OPENED)} FROM {_postgres_table(_OPENED, parameter)} {_ONCE})"
        )
    if settles:
        parameter += 2
        columns = (*_SETTLED, "settled_at")
        sets = ", ".join(f"{name} = {_postgres_columns([name])}" for name in columns)
        parts.append(
            f"settled AS (UPDATE {_LOG} AS t SET {sets} "  # noqa: S608
            f"FROM {_postgres_table((*columns, 'request_id'), parameter - 1, ', saved bigint')} "
            # The ids a second time, as an array, so that every plan looks rows up by them. With the join alone a plan
            # made while the table was small walked the whole index for each batch, however long it grew since.
            f"WHERE t.request_id = v.request_id AND t.request_id = ANY(CAST(${parameter} AS uuid[])) "
            f"AND {_PENDING} RETURNING t.*, v.saved)"
        )
        parts.append(
            f"days AS (INSERT INTO {_DAILY} ({', '.join(_DAY_COLUMNS)}) SELECT user_id, "  # noqa: S608
            "CAST(started_at AT TIME ZONE 'UTC' AS date), door, provider_name, "
            f"COALESCE(account_id, '{NO_ACCOUNT}'), model_id, MAX(model_name), "
            f"{', '.join(_POSTGRES_SUMS[name] for name in SUMS)} FROM settled "
            f"GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6 {_ADD})"
        )
    return f"WITH {', '.join(parts)} SELECT {'request_id FROM settled' if settles else 'NULL WHERE false'}"  # noqa: S608


_FAILED = f"status <> '{_SUCCESS}'"
_POSTGRES_SUMS = {
    "attempts": "COUNT(*)",
    "failed": f"COUNT(*) FILTER (WHERE {_FAILED})",
    "billed": f"COUNT(*) FILTER (WHERE cost_source = '{_BILLED}')",
    "computed": f"COUNT(*) FILTER (WHERE cost_source = '{_COMPUTED}')",
    "estimated": f"COUNT(*) FILTER (WHERE cost_source = '{_ESTIMATED}')",
    "unknown": f"COUNT(*) FILTER (WHERE cost_source = '{_UNKNOWN}')",
    "prompt_tokens": "COALESCE(SUM(prompt_tokens), 0)",
    "completion_tokens": "COALESCE(SUM(completion_tokens), 0)",
    "cached_tokens": "COALESCE(SUM(cached_tokens), 0)",
    "cost": "COALESCE(SUM(cost), 0)",
    "cost_billed": f"COALESCE(SUM(cost) FILTER (WHERE cost_source = '{_BILLED}'), 0)",
    "cost_computed": f"COALESCE(SUM(cost) FILTER (WHERE cost_source = '{_COMPUTED}'), 0)",
    "cost_estimated": f"COALESCE(SUM(cost) FILTER (WHERE cost_source = '{_ESTIMATED}'), 0)",
    "cost_failed": f"COALESCE(SUM(cost) FILTER (WHERE {_FAILED}), 0)",
    "saved": "SUM(saved)",
}
"""`_sums` in SQL. At most MAX_BATCH figures of at most MAX_CALL_USD each fit into 64 bits, added to the day or not."""


def _postgres_columns(names: Iterable[str]) -> str:
    """Columns of `v`. JSON comes as text in JSON, so that nobody has to read it before the database does."""
    is_json = {name: isinstance(UsageLog._meta.get_field(name), models.JSONField) for name in names}
    return ", ".join(f"CAST(v.{name} AS jsonb)" if is_json[name] else f"v.{name}" for name in names)


def _postgres_table(names: Sequence[str], parameter: int, more: str = "") -> str:
    db = connections[DEFAULT_DB_ALIAS]
    fields = [UsageLog._meta.get_field(name) for name in names]
    typed = [f"{f.name} {'text' if isinstance(f, models.JSONField) else f.db_type(db)}" for f in fields]
    return f"json_to_recordset(CAST(${parameter} AS json)) AS v({', '.join(typed)}{more})"


def _write_to_postgres(raw: Any, opens: Sequence[Write], settles: Sequence[Write]) -> None:
    """One statement, which is a transaction of its own."""
    if not opens and not settles:
        return
    crash_at("ledger.before_commit")
    if len(opens) + len(settles) == 1:
        _write_one_to_postgres(raw, *opens, *settles)
        return
    parameters = []
    if opens:
        opened = [dict(zip(_OPENED, _opened_row(write.attempt, "+00"), strict=True)) for write in opens]
        parameters.append(json.dumps(opened))
    if settles:
        parameters.append(json.dumps([_settled_object(write) for write in settles]))
        parameters.append(f"{{{','.join(write.attempt.request_id.hex for write in settles)}}}")
    kind = "_".join([*(["opens"] if opens else []), *(["settles"] if settles else [])])
    result = _postgres_result(raw, kind, _postgres_statement(opens=bool(opens), settles=bool(settles)), parameters)
    won = {result.get_value(at, 0) for at in range(result.ntuples)}
    for write in settles:
        write.result = str(write.attempt.request_id).encode() in won


def _write_one_to_postgres(raw: Any, write: Write) -> None:
    kind, statement, parameters = _statement_of(write)
    result = _postgres_result(raw, kind, statement, parameters)
    write.result = write.columns is None or result.ntuples == 1


def _statement_of(write: Write) -> tuple[str, str, tuple[Any, ...]]:
    """(kind, SQL, parameters) of a row alone."""
    if write.columns is None:
        return "open", _POSTGRES_OPEN, _opened_row(write.attempt, "+00")
    return "settle", _POSTGRES_SETTLE, (*_settled_row(write, "+00"), *_days([write])[0])


class _Asked:
    """A row alone on its way to PostgreSQL: the answer can be waited for a while here and, if need be, on there."""

    def __init__(self, raw: Any, write: Write, name: bytes, parameters: Sequence[Any]) -> None:
        """Send `write` as the statement that is prepared on `raw` as `name`."""
        self.write = write
        self._connection = raw.pgconn
        self._last: Any = None
        self._connection.send_query_prepared(name, _as_text(parameters))

    def answer(self, seconds: float | None) -> bool:
        """Whether the answer came within `seconds` (None: as long as it takes). Then `write` has its `result`.

        Raises what psycopg would raise. The row is durable only once all is read: the server commits after the
        statement has ended, and can still fail then.
        """
        connection = self._connection
        until = None if seconds is None else time.monotonic() + seconds
        poller = select.poll()
        while True:
            while connection.is_busy():
                poller.register(connection.socket, select.POLLIN | (select.POLLOUT if connection.flush() else 0))
                left = None if until is None else max(0, until - time.monotonic()) * 1000
                if not poller.poll(left):
                    return False
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                break
            self._last = result
        result = _checked(connection, self._last)
        self.write.result = self.write.columns is None or result.ntuples == 1
        return True


def _postgres_result(raw: Any, kind: str, statement: str, parameters: Sequence[Any]) -> Any:
    """The result of one statement, straight from libpq: psycopg's cursors take as long as the server does for it.

    All goes in as text, so nothing needs adapting. Raises what psycopg would raise.
    """
    connection = raw.pgconn
    prepared = _prepared_on(raw)
    values = _as_text(parameters)
    if prepared is None:
        return _checked(connection, connection.exec_params(statement.encode(), values))
    name = _name_of(kind)
    if name not in prepared:
        _checked(connection, connection.prepare(name, statement.encode()))
        prepared.add(name)
    return _checked(connection, connection.exec_prepared(name, values))


def _as_text(parameters: Sequence[Any]) -> list[bytes | None]:
    return [None if value is None else str(value).encode() for value in parameters]


def _name_of(kind: str) -> bytes:
    """The name of a prepared statement."""
    return b"ledger_" + kind.encode()


_DONE = (1, 2)  # libpq's PGRES_COMMAND_OK and PGRES_TUPLES_OK


def _checked(connection: Any, result: Any) -> Any:
    """`result` if it is one of success; else raises the exception that psycopg has for its SQLSTATE."""
    if result is not None and result.status in _DONE:
        return result
    import psycopg  # not before: with SQLite it need not be loaded
    from psycopg.pq import DiagnosticField

    if result is None:
        raise psycopg.OperationalError("the connection was lost before the answer came")
    state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    if state in ("", "26000"):  # the connection is lost, or its session was made to forget what it had prepared
        kind: type[Exception] = psycopg.OperationalError
    else:
        try:
            kind = psycopg.errors.lookup(state)
        except KeyError:
            kind = psycopg.DatabaseError
    raise kind(result.get_error_message() or connection.get_error_message())


_POSTGRES_DETOURS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_material")
"""What the planner must not choose for a batch, which finds each row by its id. It takes any batch for a hundred rows
and plans once, maybe while the table is empty: all of it would be read for each row, however long it grew since."""

_sessions: weakref.WeakKeyDictionary[Any, set[bytes] | None] = weakref.WeakKeyDictionary()
"""Per connection the names of the statements it has prepared; None if it must not prepare any."""


def _prepared_on(raw: Any) -> set[bytes] | None:
    """What `raw` has prepared; None unless it ends at the database itself. Asked once per connection.

    A pooler in between (PgBouncer) may have each statement run by another server process, where a prepared name stands
    for nothing, or for another statement. It gives its clients process ids of its own making, and so is known by them.
    """
    try:
        return _sessions[raw]
    except KeyError:
        connection = raw.pgconn
        served_by = _checked(connection, connection.exec_params(b"SELECT pg_backend_pid()", [])).get_value(0, 0)
        return _sessions.setdefault(raw, set() if int(served_by) == raw.info.backend_pid else None)


def _settled_object(write: Write) -> dict[str, Any]:
    """As _SETTLED, "settled_at", "request_id" and "saved" are read from JSON."""
    columns = write.columns or {}
    return {
        **columns,
        "settled_at": _stamp(columns["settled_at"]) + "+00",
        "request_id": write.attempt.request_id.hex,
        "saved": _saved(write.attempt, columns),
    }


# -- The writer ------------------------------------------------------------------------------------------------------


class Writer:
    """The thread that commits. `submit` may be called from any thread and any event loop."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._give_up_at: float | None = None
        self._stopping = threading.Event()
        self._gate = threading.Lock()
        self.is_alive = True
        """False once it is stopping or its thread has ended. Kept here: to ask the thread takes a lock, per row."""
        self.commits = 0
        self.rows = 0
        self._checkpointed = 0
        """`commits` when the log was last copied."""
        self._prepared: Any = None
        """The connection that has our settings (`_prepare`)."""
        self._is_sqlite = False
        self._desk = threading.Lock()
        """Held by whoever uses the connection: the thread, or an event loop for the one row of `write_at_once`."""
        self._asked: _Asked | None = None
        """A row that a loop has sent, and whose answer the thread is to hear before it uses the connection."""
        self._by_thread = 0
        """Rows that still go by the thread since a commit was slow."""
        self._patience_ms = 0
        self._is_patient = True
        """Whether SQLite waits for another process's lock (for the thread) or says so at once (for a loop)."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> bool:
        """Queue one row; False if this writer is stopping. Raises LedgerUnavailable if too many calls are waiting."""
        if write.columns is None and self._waiting.qsize() >= MAX_WAITING:
            raise LedgerUnavailable("Too many calls wait for the ledger. Try again in a moment.")
        with self._gate:
            if not self.is_alive:
                return False
            self._waiting.put(write)
            return True

    def write_at_once(self, write: Write) -> bool:
        """Commit `write` here and now, if nothing is in the way. If False it must be submitted, and nothing is lost.

        For an event loop that has nothing else under way: the hand-over to the thread and back wakes two sleepers and
        passes the interpreter's lock twice, a seventh of a quiet call and more of its slowest percent (ADR 0010). The
        loop stands still meanwhile: for PostgreSQL no longer than AT_ONCE, on SQLite for the disk, never for a lock.
        """
        if self._by_thread:
            self._by_thread -= 1
            return False
        if not self._desk.acquire(blocking=False):
            return False
        try:
            raw = self._prepared
            if raw is None or self._asked is not None or not self.is_alive or not self._waiting.empty():
                return False
            began = time.monotonic()
            try:
                commit = self._at_once_to_sqlite if self._is_sqlite else self._at_once_to_postgres
                is_done = commit(raw, write)
            except Exception:
                # Whatever it is (a lock, a full disk, a lost connection, a bad row), the thread has an answer to it.
                write.is_again = True
                return False
            if time.monotonic() - began > AT_ONCE:
                self._by_thread = AFTER_A_SLOW_ONE
            if is_done:
                self.commits += 1
                self.rows += 1
                if self.commits - self._checkpointed == CHECKPOINT_COMMITS:
                    self._waiting.put(None)  # the thread sleeps, and has a log to copy
            return is_done
        finally:
            self._desk.release()

    def _at_once_to_sqlite(self, raw: Any, write: Write) -> bool:
        self._wait_for_locks(raw, is_patient=False)
        _write_one_to_sqlite(raw, write)
        crash_at("ledger.after_commit")
        return True

    def _at_once_to_postgres(self, raw: Any, write: Write) -> bool:
        kind, _, parameters = _statement_of(write)
        if (name := _name_of(kind)) not in (_sessions.get(raw) or ()):
            return False  # the thread prepares it, or there is a pooler
        crash_at("ledger.before_commit")
        asked = _Asked(raw, write, name, parameters)
        if not asked.answer(AT_ONCE):
            self._asked = asked
            return False
        crash_at("ledger.after_commit")
        return True

    def _wait_for_locks(self, raw: Any, *, is_patient: bool) -> None:
        if self._is_patient is not is_patient:
            raw.execute(f"PRAGMA busy_timeout={self._patience_ms if is_patient else 0}").fetchall()
            self._is_patient = is_patient

    def stop(self, timeout: float) -> bool:
        """Write what is queued, end the thread, give its connection back. False if that took over `timeout` s."""
        self._give_up_at = time.monotonic() + timeout
        with self._gate:  # nothing can be queued behind the end
            self.is_alive = False
            self._stopping.set()
            self._waiting.put(None)
        self._thread.join(timeout + 1)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                batch = self._take()
                if batch:
                    with self._desk:
                        self._hear()
                        self._write([write for write in batch if not write.is_written])
                    self._answer(batch)
                if self._stopping.is_set() and self._waiting.empty():
                    return
        finally:
            self.is_alive = False
            with self._desk:
                self._hear()
                self._let_go(is_well=True)

    def _hear(self) -> None:
        """Wait for the answer that a loop did not wait for, and be patient with SQLite's locks again."""
        asked, self._asked = self._asked, None
        if asked is not None:
            try:
                asked.answer(None)
                asked.write.is_written = True
                self.commits += 1
                self.rows += 1
            except Exception:  # it is written again, and whether it was committed is looked up then
                asked.write.is_again = True
        if self._prepared is not None and not self._is_patient:
            with suppress(sqlite3.Error):  # then the write fails too, and gets a new connection
                self._wait_for_locks(self._prepared, is_patient=True)

    def _take(self) -> list[Write]:
        """Wait for a row; take along all that arrived meanwhile. Empty only when stopping."""
        first = self._next()
        batch = [] if first is None else [first]
        while len(batch) < MAX_BATCH:
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                break
            if write is not None:
                batch.append(write)
        return batch

    def _next(self) -> Write | None:
        """The next row; while there is none, the log is looked after."""
        is_due = self.commits - self._checkpointed >= CHECKPOINT_COMMITS
        if is_due and self._prepared is not None and self._is_sqlite:
            try:
                return self._waiting.get(timeout=QUIET)
            except queue.Empty:
                self._checkpoint()
        return self._waiting.get()

    def _checkpoint(self) -> None:
        """Copy SQLite's log into the database, so that no commit has to: each hundredth call waited for it."""
        self._checkpointed = self.commits
        try:
            with self._desk:
                self._prepared.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # waits for nobody
        except sqlite3.Error as exc:  # nothing is lost: it is tried again later, and SQLite does it in the end
            log.info("the ledger could not copy the log: %s", exc)

    def _prepare(self) -> None:
        """Settings of a new connection, and of it alone. The rows are written by now: this must not fail."""
        raw = self._prepared = connection.connection
        self._is_sqlite = connection.vendor == "sqlite"
        if self._is_sqlite:
            self._is_patient = True
            with suppress(sqlite3.Error):
                raw.execute(f"PRAGMA wal_autocheckpoint={MOST_LOG_PAGES}").fetchall()
                (self._patience_ms,) = raw.execute("PRAGMA busy_timeout").fetchone()
        elif _sessions.get(raw) is not None:
            with suppress(DatabaseError), connection.cursor() as cursor:
                cursor.execute("; ".join(f"SET {name} = off" for name in _POSTGRES_DETOURS))

    def _let_go(self, *, is_well: bool) -> None:
        """End with the connection. No pool has it while it has our settings, or again if it failed."""
        raw, self._prepared = self._prepared, None
        if connection.vendor == "postgresql":
            with suppress(Exception):
                if not is_well:
                    connection.connection.close()
                elif raw is not None:
                    raw.execute("; ".join(f"RESET {name}" for name in _POSTGRES_DETOURS))
        connection.close()

    def _write(self, batch: list[Write]) -> None:
        """Write `batch`, however long the database takes; what it refuses alone gets its `error`."""
        tries = 0
        while batch:
            try:
                write_batch(batch, is_again=tries > 0 or any(write.is_again for write in batch))
                self.commits += 1
                self.rows += len(batch)
                if connection.connection is not self._prepared:
                    self._prepare()
                return
            except (OperationalError, InterfaceError) as exc:
                # Locked, restarting, disk full (F24-F26): nothing was written, or a retry recognises what was.
                self._let_go(is_well=False)
                tries += 1
                if tries in (2, 6) or tries % 60 == 0:
                    log.warning("the ledger waits for the database: %s rows, try %s (%s)", len(batch), tries, exc)
                if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                    log.error("the ledger gave up on %s rows; the sweep will close them", len(batch))
                    for write in batch:
                        write.error = LedgerUnavailable("The ledger stopped before the database came back.")
                    return
                self._pause(tries)
            except Exception:
                if len(batch) > 1:
                    # One bad row must not take the others with it.
                    for write in batch:
                        self._write([write])
                    return
                log.exception("the ledger cannot store attempt %s", batch[0].attempt.request_id)
                batch[0].error = LedgerRefused(f"attempt {batch[0].attempt.request_id} could not be stored")
                return

    def _pause(self, tries: int) -> None:
        """0 s, then 50 ms doubling up to 1 s; shorter when stopping."""
        if tries > 1:
            time.sleep(min(0.05 * 2 ** (min(tries, 8) - 2), 1.0 if self._give_up_at is None else 0.1))

    def _answer(self, batch: list[Write]) -> None:
        crash_at("ledger.after_commit")
        by_loop: dict[asyncio.AbstractEventLoop, list[Write]] = {}
        for write in batch:
            if write.future is None:
                continue
            if write.loop is None:
                resolve(write)
            else:
                by_loop.setdefault(write.loop, []).append(write)
        for loop, writes in by_loop.items():
            # One wake-up per loop and commit, however many coroutines wait. A closed loop has nobody left to tell.
            try:
                loop.call_soon_threadsafe(_resolve_all, writes)
            except RuntimeError:
                continue


def resolve(write: Write) -> None:
    """Tell whoever waits for `write` how it went."""
    future = write.future
    if future is None or future.done():
        return
    if write.error is not None:
        future.set_exception(write.error)
    else:
        future.set_result(write.result)


def _resolve_all(writes: list[Write]) -> None:
    for write in writes:
        resolve(write)


_lock = threading.Lock()
_writer: Any = None
_factory: Callable[[], Any] = Writer


def start() -> None:
    """Start the writer. Not needed (the first row starts it), but it takes the cost off the first call."""
    _current()


def stop(timeout: float = 10.0) -> None:
    """Write what is queued and end the writer. Safe to call twice; a later row starts a new one."""
    global _writer
    with _lock:
        writer, _writer = _writer, None
    if writer is not None and not writer.stop(timeout):
        log.error("the ledger did not finish within %s s", timeout)


def counts() -> tuple[int, int]:
    """(commits, rows) of the running writer: how well group commit groups."""
    writer = _writer
    return (0, 0) if writer is None else (writer.commits, writer.rows)


def _current() -> Any:
    global _writer
    writer = _writer
    if writer is None or not writer.is_alive:
        with _lock:
            if _writer is None or not _writer.is_alive:
                _writer = _factory()
            writer = _writer
    return writer


def _submit(write: Write) -> None:
    while not _current().submit(write):
        pass  # that writer is stopping: the next one takes it


def _forget_in_child() -> None:
    """A forked child has no writer thread, and must not use the parent's queue or lock."""
    global _writer, _lock, _process
    _writer, _lock, _process = None, threading.Lock(), None
    _under_way.clear()


os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(stop)


# -- Open and settle -------------------------------------------------------------------------------------------------


async def aopen(attempt: Attempt) -> None:
    """Return once the attempt's row is durable. Raises LedgerUnavailable or LedgerRefused: then nothing may be sent."""
    crash_at("ledger.before_open")
    write = Write(attempt)
    _under_way.add(attempt.request_id)
    try:
        await _durable(write)
    except BaseException:
        _disown(write)
        raise
    crash_at("ledger.opened")


async def asettle(attempt: Attempt, status: str, error: BaseException | str | None = None) -> bool:
    """Settle the attempt and return once that is durable; False if it was settled before (nothing changes then).

    `status`: "success", "cancelled" (stopped by the user, or the caller left), "timeout" or "error". `error`: the
    ProviderError, a code from providers.clients.errors.CODES, or None for the one the stream carried. The row is
    queued before the first await: it is written even if the caller is cancelled or told LedgerUnavailable.
    """
    crash_at("ledger.before_settle")
    write = Write(attempt, _settlement(attempt, status, error))
    try:
        return await _durable(write)
    finally:
        _under_way.discard(attempt.request_id)


def open(attempt: Attempt) -> None:
    """`aopen` for threads, tasks and commands. Not inside a transaction: on SQLite it would wait for you."""
    crash_at("ledger.before_open")
    write = Write(attempt)
    _under_way.add(attempt.request_id)
    try:
        _durable_in_thread(write)
    except BaseException:
        _disown(write)
        raise
    crash_at("ledger.opened")


def settle(attempt: Attempt, status: str, error: BaseException | str | None = None) -> bool:
    """`asettle` for threads, tasks and commands."""
    crash_at("ledger.before_settle")
    write = Write(attempt, _settlement(attempt, status, error))
    try:
        return _durable_in_thread(write)
    finally:
        _under_way.discard(attempt.request_id)


_under_way: set[uuid.UUID] = set()
"""Attempts that this process has opened and not settled yet."""


def _is_alone(attempt: Attempt) -> bool:
    """Nothing is under way in this process but, at most, `attempt`: nobody waits if its event loop stands still."""
    return len(_under_way) == (attempt.request_id in _under_way)


async def _durable(write: Write) -> bool:
    if _is_alone(write.attempt) and _current().write_at_once(write):
        return write.result
    write.loop = loop = asyncio.get_running_loop()
    write.future = future = loop.create_future()
    _submit(write)
    _patience.watch(loop, future)
    return await future


class _Patience(threading.local):
    """Gives up on rows that wait longer than PATIENCE, by one timer per event loop (there is one loop in a thread).

    A timer per row, made and cancelled twice per call of `/v1`, cost a third of what the writing does. All wait equally
    long, so the first in the line is always the next that is due; those whose row came are dropped from its front.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._has_timer = False

    def watch(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[bool]) -> None:
        if loop is not self._loop:  # the last loop of this thread has ended, and its timer with it
            self._loop, self._line, self._has_timer = loop, deque(), False
        line = self._line
        while line and line[0][1].done():
            line.popleft()
        line.append((time.monotonic() + PATIENCE, future))
        if not self._has_timer:
            self._has_timer = True
            loop.call_later(PATIENCE, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        line, now = self._line, time.monotonic()
        while line and (line[0][1].done() or line[0][0] <= now):
            future = line.popleft()[1]
            if not future.done():
                future.set_exception(_too_late())
        self._has_timer = bool(line)
        if line:  # not at once for rows that came one after the other: a twentieth late is in time
            loop.call_later(max(line[0][0] - now, PATIENCE / 20), self._look, loop)


_patience = _Patience()


def _durable_in_thread(write: Write) -> bool:
    write.future = Future()
    _submit(write)
    try:
        return write.future.result(timeout=PATIENCE)
    except FutureTimeout:
        raise _too_late() from None


def _too_late() -> LedgerUnavailable:
    return LedgerUnavailable(f"The database did not answer within {PATIENCE:g} s, so the call was not recorded.")


def _disown(write: Write) -> None:
    """The caller of open() has gone and sends nothing: leave no running row behind."""
    write.is_dropped = True
    _under_way.discard(write.attempt.request_id)
    _submit(Write(write.attempt, _settlement(write.attempt, Status.ERROR, "not_sent")))


# -- Rows nobody will settle any more --------------------------------------------------------------------------------

_process: str | None = None


def this_process() -> str:
    """ "where:pid:start", unique for one process of one boot of one machine (or container)."""
    global _process
    if _process is None:  # a forked child forgets it
        pid = os.getpid()
        _process = f"{_whereabouts()}:{pid}:{_start_of(pid) or 0}"
    return _process


def _whereabouts() -> str:
    """This boot and process-id namespace: only within both does a process id mean anything. "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _start_of(pid: int) -> int | None:
    """When process `pid` started, in ticks since boot; None if there is no such process (or no /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_dead(process: str) -> bool:
    """Whether `process` (from `this_process`) has certainly ended. Of another machine or boot nobody can tell."""
    parts = process.rsplit(":", 2)
    if len(parts) != 3 or not parts[0] or parts[0] != _whereabouts() or not parts[1].isdigit():
        return False
    pid, started = parts[1:]
    return str(_start_of(int(pid))) != started


def sweep(now: datetime | None = None) -> int:
    """Settle rows whose process is dead, or that are older than LEDGER_SWEEP_SECONDS, as error/interrupted.

    Returns how many. What they cost is unknown (0 for free models): nobody is left who saw the answer; whoever kept a
    part of it (chat) settles with `Attempt.of(row, answer_size=…)` before. Running it twice, or while the owner
    settles after all, changes nothing: the first settle wins (I15).
    """
    now = now or timezone.now()
    deadline = now - timedelta(seconds=settings.LEDGER_SWEEP_SECONDS)
    closed = 0
    for row in UsageLog.objects.pending().order_by("started_at").iterator(chunk_size=500):
        if row.started_at < deadline or is_dead(str(row.metadata.get("process", ""))):
            closed += settle(Attempt.of(row), Status.ERROR, "interrupted")
    return closed
