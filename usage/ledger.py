"""The only writer of usage rows and their daily sums: durable, settled exactly once, many rows per commit.

    attempt = Attempt.begin(user_id=…, account=…, model=…, door="chat", prompt_chars=…)
    await ledger.aopen(attempt)                 # the row is on disk before the upstream hears of it (M3)
    … attempt.read(delta) for every delta …
    await ledger.asettle(attempt, "success")    # counts, cost and the day's sums in one transaction

One writer thread per process has its own database connection. It uses no timer: it commits when idle and takes along
whatever arrived meanwhile (docs/adr/0010). Nobody is told "done" before the commit is. Rows of a process that died
are closed by `sweep()`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections, models, transaction
from django.utils import timezone

from config.crash import crash_at
from config.ids import new_uuid
from providers.clients.base import Delta, Usage
from providers.clients.errors import CODES, ProviderError
from providers.money import MAX_USD, PICO, to_pico
from usage import pricing
from usage.models import CostSource, DailyUsage, UsageLog
from usage.pricing import NOTHING, UNKNOWN, Cost

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
    prices: dict[str, Any]
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
        return cls(
            request_id=new_uuid(),
            user_id=user_id,
            door=str(door),
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
            prices=pricing.snapshot(model) if prices is None else prices,
            prompt_size=prompt_chars,
            started_at=timezone.now(),
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
            prices=row.price_snapshot,
            prompt_size=int(row.metadata.get("prompt_size", 0)),
            process=str(row.metadata.get("process", "")),
            answer_size=answer_size,
        )

    def read(self, delta: Delta) -> None:
        """Take from one delta what metering needs. Cheap: called for every event."""
        if delta.text or delta.reasoning or delta.tool_calls:
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
            size = _size(delta.text) + _size(delta.reasoning)
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
    if text == "":
        return ""
    safe = str(text).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


# -- How an attempt ended --------------------------------------------------------------------------------------------


def _settlement(attempt: Attempt, status: str, error: BaseException | str | None) -> dict[str, Any]:
    """The columns that settling writes, as they are stored. Pure but for the clock; sets `attempt.cost`."""
    status, code, message, http_status = _verdict(attempt, Status(status), error)
    counts, cost, is_estimated = _metered(attempt, status, code, http_status)
    attempt.cost = cost
    metadata: dict[str, Any] = {"process": attempt.process}
    if is_estimated:
        metadata["counts"] = "estimated"
    if attempt.prompt_size:
        metadata["prompt_size"] = attempt.prompt_size
    if attempt.answer_size:
        metadata["answer_size"] = attempt.answer_size
    if attempt.finish_reason:
        metadata["finish_reason"] = clean(attempt.finish_reason, 60)
    if attempt.upstream_model and attempt.upstream_model != attempt.model_id:
        metadata["upstream_model"] = clean(attempt.upstream_model, 300)
    return {
        "status": str(status),
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
        "cost": None if cost.amount is None else to_pico(cost.amount),
        "cost_source": str(cost.source),
        "latency_ms": None if attempt.began is None else round((time.monotonic() - attempt.began) * 1000),
        "first_token_ms": attempt.first_token_ms,
        "settled_at": timezone.now(),
        "metadata": metadata,
    }


def _verdict(
    attempt: Attempt, status: Status, error: BaseException | str | None
) -> tuple[Status, str, str, int | None]:
    """(status, error code, message for the owner, HTTP status): design.md §2's table."""
    if status == Status.PENDING:
        raise ValueError("an attempt is not settled as pending")
    http_status = 200 if attempt.has_received else None
    if status in (Status.SUCCESS, Status.CANCELLED):
        return status, "", "", http_status
    error = error or attempt.error
    if isinstance(error, ProviderError):
        if error.code == "timeout":
            status = Status.TIMEOUT
        return status, error.code, error.public_message, error.status or http_status
    if isinstance(error, str):
        return status, error, NOT_SENT if error == "not_sent" else CODES.get(error, ""), http_status
    if error is not None:
        # Only the kind of the exception: its text may quote what must not be stored (K4).
        return status, "internal_error", type(error).__name__, http_status
    code = "timeout" if status == Status.TIMEOUT else "interrupted"
    return status, code, CODES[code], http_status


def _metered(attempt: Attempt, status: Status, code: str, http_status: int | None) -> tuple[Usage, Cost, bool]:
    """(what was used, what it costs, whether the counts are estimated). Counts nobody can tell stay None.

    - reported in full: computed (or billed, if the provider named a figure);
    - cut, stopped or unreported, but we saw text: estimated from what was sent and received;
    - nothing received and the job demonstrably not taken on: 0 (F1);
    - nothing received and nobody knows (timeouts, 500s, our own crash): unknown, except for free models.
    """
    noted = attempt.prices

    def price(usage: Usage, *, is_estimated: bool) -> tuple[Usage, Cost, bool]:
        cost = pricing.cost_by_snapshot(usage, noted, at=attempt.started_at, is_estimated=is_estimated)
        return pricing.tidy(usage), cost, is_estimated

    failed = status in (Status.ERROR, Status.TIMEOUT)
    if failed and not attempt.has_received:
        not_taken_on = http_status in FREE_STATUSES or code in FREE_CODES
        is_free = noted.get("kind") == "free" and noted.get("type", "unknown") in pricing.TOKEN_PRICED
        return Usage(), NOTHING if not_taken_on or is_free else UNKNOWN, False

    reported = pricing.tidy(attempt.usage) if attempt.usage is not None else None
    if reported is not None:
        has_ended = status == Status.SUCCESS or bool(attempt.finish_reason) or attempt.error is not None
        is_final = has_ended and (status == Status.SUCCESS or not attempt._grew_since_usage)
        is_whole = reported.prompt_tokens is not None and reported.completion_tokens is not None
        is_plausible = bool(reported.completion_tokens) or not attempt.answer_size
        if pricing.named_cost(reported.cost) is not None or (is_final and is_whole and is_plausible):
            return price(reported, is_estimated=False)

    reported = reported or Usage()
    prompt = reported.prompt_tokens or (pricing.estimate_tokens(attempt.prompt_size) if attempt.prompt_size else None)
    completion = max(reported.completion_tokens or 0, pricing.estimate_tokens(attempt.answer_size or 0))
    guess = replace(
        reported,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=None if prompt is None else prompt + completion,
    )
    return price(guess, is_estimated=True)


def _sums(attempt: Attempt, columns: dict[str, Any]) -> tuple[tuple[Any, ...], list[int]]:
    """(the daily row's key, what to add to its SUMS)."""
    key = (
        attempt.user_id,
        attempt.started_at.astimezone(UTC).date(),
        attempt.door,
        attempt.provider_name,
        attempt.account_id or NO_ACCOUNT,
        attempt.model_id,
    )
    source, pico = columns["cost_source"], columns["cost"] or 0
    failed = columns["status"] != Status.SUCCESS
    saved = (
        pricing.saved_by_cache(
            Usage(prompt_tokens=columns["prompt_tokens"], cached_tokens=columns["cached_tokens"]),
            attempt.prices,
            rules=attempt.prices.get("rules", ()),
            at=attempt.started_at,
        )
        if columns["cached_tokens"]
        else Decimal(0)
    )
    return key, [
        1,
        int(failed),
        int(source == CostSource.PROVIDER),
        int(source == CostSource.COMPUTED),
        int(source == CostSource.ESTIMATED),
        int(source == CostSource.UNKNOWN),
        columns["prompt_tokens"] or 0,
        columns["completion_tokens"] or 0,
        columns["cached_tokens"] or 0,
        pico,
        pico if source == CostSource.PROVIDER else 0,
        pico if source == CostSource.COMPUTED else 0,
        pico if source == CostSource.ESTIMATED else 0,
        pico if failed else 0,
        int(saved * PICO),
    ]


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
    "settled_at",
    "metadata",
)


def write_batch(writes: Sequence[Write], *, is_again: bool = False) -> None:
    """Insert, settle and add up `writes` in one transaction on this thread's connection; sets each `result`.

    `is_again` says that an earlier try may have been committed without our hearing of it.
    """
    try:
        _write_batch(writes, is_again=is_again)
    except _Contested:
        _write_batch(writes, is_again=is_again, one_by_one=True)


class _Contested(Exception):
    """Some row of the batch was settled before: which one must be asked row by row."""


def _write_batch(writes: Sequence[Write], *, is_again: bool, one_by_one: bool = False) -> None:
    opens = [write for write in writes if write.columns is None and not write.is_dropped]
    settles = sorted((write for write in writes if write.columns is not None), key=lambda w: w.attempt.request_id.bytes)
    db = connections[DEFAULT_DB_ALIAS]
    sql = _statements(db.vendor)
    with transaction.atomic(), db.cursor() as cursor:
        if opens:
            _insert(cursor, sql, opens)
        if settles:
            _settle(cursor, sql, settles, one_by_one=one_by_one)
            if is_again:
                _recognise(settles)
            _add_up(cursor, sql, [write for write in settles if write.result and not write.is_dropped])
        crash_at("ledger.before_commit")
    for write in opens:
        write.result = True


def _insert(cursor: Any, sql: _Statements, opens: Sequence[Write]) -> None:
    rows = []
    for write in opens:
        attempt = write.attempt
        values = [getattr(attempt, name) for name in _COPIED]
        values += [attempt.number, "pending", "", "", "", attempt.prices, "unknown"]
        values.append({"process": attempt.process, "prompt_size": attempt.prompt_size})
        rows.append(sql.adapt(sql.opened, values))
    sql.run(cursor, sql.insert, _OPENED, rows)


def _settle(cursor: Any, sql: _Statements, settles: Sequence[Write], *, one_by_one: bool) -> None:
    """Compare-and-swap on status = 'pending': of any number of settles of a row, one wins, ever."""
    first: dict[uuid.UUID, Write] = {}
    for write in settles:
        write.result = False
        first.setdefault(write.attempt.request_id, write)
    rows = [
        sql.adapt(sql.settled, [*[(write.columns or {})[name] for name in _SETTLED], key])
        for key, write in first.items()
    ]
    if sql.vendor == "postgresql":
        sql.run(cursor, sql.update, (*_SETTLED, "request_id"), rows)
        for (key,) in cursor.fetchall():
            first[key].result = True
        return
    # SQLite: one statement per row costs little, and the count of hits says whether all of them did, as nearly always.
    if one_by_one or len(rows) == 1:
        for write, row in zip(first.values(), rows, strict=True):
            cursor.execute(sql.update, row)
            write.result = cursor.rowcount == 1
        return
    sql.run(cursor, sql.update, (*_SETTLED, "request_id"), rows)
    if cursor.rowcount != len(rows):
        raise _Contested
    for write in first.values():
        write.result = True


def _recognise(settles: Sequence[Write]) -> None:
    """After a commit that may have happened: a row settled at our very microsecond was settled, and added up, by us."""
    lost = [write for write in settles if not write.result]
    keys = [write.attempt.request_id for write in lost]
    stored = dict(UsageLog.objects.filter(request_id__in=keys).values_list("request_id", "settled_at"))
    for write in lost:
        if write.columns and stored.get(write.attempt.request_id) == write.columns["settled_at"]:
            write.result = write.is_dropped = True


def _add_up(cursor: Any, sql: _Statements, settled: Iterable[Write]) -> None:
    """Add settled attempts to their daily rows.

    Raw SQL, because bulk_create(update_conflicts=True) can replace but not add, and because get-or-update would need
    two statements and a lock per row. `ON CONFLICT … DO UPDATE` is the same on both databases. What falls on one row
    is added up first (PostgreSQL refuses to touch a row twice in one statement), and rows go in the order of their
    key, so that two processes cannot wait for each other.
    """
    totals: dict[tuple[Any, ...], list[int]] = {}
    names: dict[tuple[Any, ...], str] = {}
    for write in settled:
        key, numbers = _sums(write.attempt, write.columns or {})
        names[key] = write.attempt.model_name
        if (so_far := totals.get(key)) is None:
            totals[key] = numbers
        else:
            totals[key] = [a + b for a, b in zip(so_far, numbers, strict=True)]
    if not totals:
        return
    rows = [sql.adapt(sql.key, [*key, names[key], *totals[key]]) for key in sorted(totals, key=str)]
    sql.run(cursor, sql.upsert, (*KEY, "model_name", *SUMS), rows)


class _Statements:
    """The SQL of one database vendor, and how it wants its values: built once, because it is the hot path.

    Django's own conversion of each value asks every field and its connection wrapper, which takes three times as long
    as the database does. Every value was made by us or checked by `_settlement`; a test compares both conversions.
    """

    def __init__(self, vendor: str) -> None:
        self.vendor = vendor
        log, daily = UsageLog._meta.db_table, DailyUsage._meta.db_table
        settled, sums = (*_SETTLED, "request_id"), (*KEY, "model_name", *SUMS)
        self.opened = self._adapters(UsageLog, _OPENED)
        self.settled = self._adapters(UsageLog, settled)
        self.key = self._adapters(DailyUsage, sums)
        # DO NOTHING: after a connection lost in mid-commit the row may be there already.
        self.insert = (
            f"INSERT INTO {log} ({', '.join(_OPENED)}) {self._rows(UsageLog, _OPENED)} "
            "ON CONFLICT (request_id) DO NOTHING"
        )
        # A sum stops at the limit: past the end of 64 bits PostgreSQL fails and SQLite turns to floats.
        limit = int(MAX_USD) * PICO
        additions = ", ".join(
            f"{name} = CASE WHEN {daily}.{name} > {limit} - excluded.{name} THEN {limit} "
            f"ELSE {daily}.{name} + excluded.{name} END"
            for name in SUMS
        )
        self.upsert = (
            f"INSERT INTO {daily} ({', '.join(sums)}) {self._rows(DailyUsage, sums)} "
            f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET model_name = excluded.model_name, {additions}"
        )
        if vendor == "postgresql":
            assignments = ", ".join(f"{name} = v.{name}" for name in _SETTLED)
            self.update = (
                f"UPDATE {log} AS t SET {assignments} FROM {self._table(UsageLog, settled)} "  # noqa: S608
                "WHERE t.request_id = v.request_id AND t.status = 'pending' RETURNING t.request_id"
            )
        else:
            assignments = ", ".join(f"{name} = %s" for name in _SETTLED)
            self.update = f"UPDATE {log} SET {assignments} WHERE request_id = %s AND status = 'pending'"  # noqa: S608

    def _rows(self, model: type[models.Model], names: Sequence[str]) -> str:
        if self.vendor == "postgresql":
            return f"SELECT {', '.join(f'v.{name}' for name in names)} FROM {self._table(model, names)}"  # noqa: S608
        return f"VALUES ({', '.join(['%s'] * len(names))})"

    @staticmethod
    def _table(model: type[models.Model], names: Sequence[str]) -> str:
        """The batch as a table `v`, read from one JSON parameter: one statement for any number of rows."""
        db = connections[DEFAULT_DB_ALIAS]
        typed = ", ".join(f"{name} {model._meta.get_field(name).db_type(db)}" for name in names)
        return f"jsonb_to_recordset(CAST(%s AS jsonb)) AS v({typed})"

    def run(self, cursor: Any, statement: str, names: Sequence[str], rows: list[list[Any]]) -> None:
        """All rows at once on PostgreSQL, where round trips and long statements cost; row by row on SQLite."""
        if self.vendor == "postgresql":
            cursor.execute(statement, [json.dumps([dict(zip(names, row, strict=True)) for row in rows])])
        else:
            cursor.executemany(statement, rows)

    def _adapters(self, model: type[models.Model], names: Sequence[str]) -> list[tuple[int, Callable[[Any], Any]]]:
        """(position, conversion) of the columns that need one."""
        found: list[tuple[int, Callable[[Any], Any]]] = []
        for number, name in enumerate(names):
            column = model._meta.get_field(name)
            if self.vendor == "postgresql":
                if isinstance(column, models.UUIDField | models.DateField):
                    found.append((number, str))
            elif isinstance(column, models.JSONField):
                found.append((number, json.dumps))
            elif isinstance(column, models.UUIDField):
                found.append((number, lambda value: value.hex))
            elif isinstance(column, models.DateTimeField):
                found.append((number, lambda value: str(value.astimezone(UTC).replace(tzinfo=None))))
            elif isinstance(column, models.DateField):
                found.append((number, str))
        return found

    @staticmethod
    def adapt(adapters: Iterable[tuple[int, Callable[[Any], Any]]], values: list[Any]) -> list[Any]:
        for number, convert in adapters:
            if values[number] is not None:
                values[number] = convert(values[number])
        return values


_statements = functools.cache(_Statements)


# -- The writer ------------------------------------------------------------------------------------------------------


class Writer:
    """The thread that commits. `submit` may be called from any thread and any event loop."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._give_up_at: float | None = None
        self._stopping = threading.Event()
        self._gate = threading.Lock()
        self.commits = 0
        self.rows = 0
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping.is_set()

    def submit(self, write: Write) -> bool:
        """Queue one row; False if this writer is stopping. Raises LedgerUnavailable if too many calls are waiting."""
        if write.columns is None and self._waiting.qsize() >= MAX_WAITING:
            raise LedgerUnavailable("Too many calls wait for the ledger. Try again in a moment.")
        with self._gate:
            if self._stopping.is_set():
                return False
            self._waiting.put(write)
            return True

    def stop(self, timeout: float) -> bool:
        """Write what is queued, end the thread, give its connection back. False if that took over `timeout` s."""
        self._give_up_at = time.monotonic() + timeout
        with self._gate:  # nothing can be queued behind the end
            self._stopping.set()
            self._waiting.put(None)
        self._thread.join(timeout + 1)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                batch = self._take()
                if batch:
                    self._write(batch)
                    self._answer(batch)
                if self._stopping.is_set() and self._waiting.empty():
                    return
        finally:
            connection.close()

    def _take(self) -> list[Write]:
        """Wait for a row; take along all that arrived meanwhile. Empty only when stopping."""
        first = self._waiting.get()
        batch = [] if first is None else [first]
        while len(batch) < MAX_BATCH:
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                break
            if write is not None:
                batch.append(write)
        return batch

    def _write(self, batch: list[Write]) -> None:
        """Write `batch`, however long the database takes; what it refuses alone gets its `error`."""
        tries = 0
        while True:
            try:
                write_batch(batch, is_again=tries > 0)
                self.commits += 1
                self.rows += len(batch)
                return
            except (OperationalError, InterfaceError) as exc:
                # Locked, restarting, disk full (F24-F26): nothing was written, or a retry recognises what was.
                connection.close()
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


os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(stop)


# -- Open and settle -------------------------------------------------------------------------------------------------


async def aopen(attempt: Attempt) -> None:
    """Return once the attempt's row is durable. Raises LedgerUnavailable or LedgerRefused: then nothing may be sent."""
    crash_at("ledger.before_open")
    write = Write(attempt)
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
    return await _durable(Write(attempt, _settlement(attempt, status, error)))


def open(attempt: Attempt) -> None:
    """`aopen` for threads, tasks and commands. Not inside a transaction: on SQLite it would wait for you."""
    crash_at("ledger.before_open")
    write = Write(attempt)
    try:
        _durable_in_thread(write)
    except BaseException:
        _disown(write)
        raise
    crash_at("ledger.opened")


def settle(attempt: Attempt, status: str, error: BaseException | str | None = None) -> bool:
    """`asettle` for threads, tasks and commands."""
    crash_at("ledger.before_settle")
    return _durable_in_thread(Write(attempt, _settlement(attempt, status, error)))


async def _durable(write: Write) -> bool:
    write.loop = loop = asyncio.get_running_loop()
    write.future = loop.create_future()
    _submit(write)
    # Not asyncio.timeout(): twice per call of /v1, it costs a third of what the writing does.
    patience = loop.call_later(PATIENCE, _give_up, write.future)
    try:
        return await write.future
    finally:
        patience.cancel()


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_exception(_too_late())


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
    _submit(Write(write.attempt, _settlement(write.attempt, Status.ERROR, "not_sent")))


# -- Rows nobody will settle any more --------------------------------------------------------------------------------

_process: tuple[int, str] | None = None


def this_process() -> str:
    """ "where:pid:start", unique for one process of one boot of one machine (or container)."""
    global _process
    pid = os.getpid()
    if _process is None or _process[0] != pid:
        _process = pid, f"{_whereabouts()}:{pid}:{_start_of(pid) or 0}"
    return _process[1]


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
