"""The writer thread: many rows per commit, once each, through faults of the database (M3, F20, F24, F26, I10)."""

import asyncio
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.db.models import Sum
from django.utils import timezone

from providers.clients.base import Delta, Usage
from providers.money import PICO
from usage import ledger, reports
from usage.ledger import Attempt
from usage.models import DailyUsage, UsageLog

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

FULL = Delta(text="x", finish_reason="stop", usage=Usage(1000, 500, 1500))
FULL_COST = Decimal("0.00047")  # 1000 × 0.27 + 500 × 0.40 per million


def test_many_coroutines_share_few_commits_and_none_is_lost(begin):
    async def call():
        attempt = begin()
        await ledger.aopen(attempt)
        attempt.read(FULL)
        assert await ledger.asettle(attempt, "success") is True

    async def all_at_once():
        await asyncio.gather(*(call() for _ in range(200)))

    ledger.start()
    asyncio.run(all_at_once())
    commits, rows = ledger.counts()
    assert rows == 400
    assert commits < 100, "200 calls, open and settle, must share their commits"
    assert UsageLog.objects.filter(status="success").count() == 200
    day = DailyUsage.objects.get()
    assert (day.attempts, day.cost) == (200, FULL_COST * 200)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's log")
def test_the_log_is_copied_when_nothing_waits_and_stays_within_a_bound(begin, monkeypatch):
    """No commit of a call copies it: that was the slowest percent of quiet calls (ADR 0010)."""
    monkeypatch.setattr(ledger, "CHECKPOINT_COMMITS", 20)

    def is_copied(attempt):  # by another process: who opens and closes the file in this one drops SQLite's locks on it
        command = ["grep", "-q", attempt.request_id.hex, str(connection.settings_dict["NAME"])]
        return subprocess.run(command).returncode == 0

    first = begin()
    ledger.open(first)
    writer = ledger._current()
    before = writer._checkpointed
    for _ in range(18):
        ledger.open(begin())
    time.sleep(5 * ledger.QUIET)
    assert writer._checkpointed == before, "too little yet"
    assert not is_copied(first)
    ledger.open(begin())
    deadline = time.monotonic() + 5
    while writer._checkpointed == before and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert is_copied(first), "in the database itself"
    assert writer._prepared.execute("PRAGMA wal_autocheckpoint").fetchone() == (ledger.MOST_LOG_PAGES,)
    assert writer._prepared.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's plans")
def test_a_batch_finds_its_rows_by_their_ids_however_small_the_table_was_when_it_was_planned(begin):
    """It is planned once per connection: for an empty table the planner would rather read all of it, for ever after."""

    async def several():
        attempts = [begin() for _ in range(5)]
        await asyncio.gather(*map(ledger.aopen, attempts))
        assert all(await asyncio.gather(*(ledger.asettle(attempt, "success") for attempt in attempts)))

    for _ in range(8):  # the sixth makes the plan that is kept
        asyncio.run(several())
        attempt = begin()
        ledger.open(attempt)
        assert ledger.settle(attempt, "success")
    raw = ledger._current()._prepared
    assert {raw.execute(f"SHOW {name}").fetchone() for name in ledger._POSTGRES_DETOURS} == {("off",)}
    older = UsageLog.objects.values().first()
    UsageLog.objects.bulk_create(
        UsageLog(**{**older, "id": None, "request_id": uuid.uuid4(), "status": status})
        for status in ["success", "pending"] * 500
    )

    def lookups(name, parameters):
        """What the statement's plan looks up, having run: it reads no row that is not in the batch."""
        query = "SELECT generic_plans FROM pg_prepared_statements WHERE name = %s"
        assert raw.execute(query, [name]).fetchone()[0] > 0, f"{name} was planned anew each time"
        text = f"EXPLAIN (ANALYZE) EXECUTE {name}({', '.join(['%s'] * len(parameters))})"
        plan = "\n".join(line for (line,) in psycopg.ClientCursor(raw).execute(text, parameters))
        assert "Seq Scan" not in plan and "Rows Removed" not in plan, plan
        return plan

    one, two = begin(), begin()
    for attempt in (one, two):
        ledger.open(attempt)
    alone, together = (ledger.Write(attempt, ledger._settlement(attempt, "success", None)) for attempt in (one, two))
    row = [*ledger._settled_row(alone, "+00"), *ledger._days([alone])[0]]
    assert "Index Cond: (request_id = $18)" in lookups("ledger_settle", row)
    batch = [json.dumps([ledger._settled_object(together)]), f"{{{two.request_id}}}"]
    assert "Index Cond: (request_id = ANY ($2))" in lookups("ledger_settles", batch)
    assert UsageLog.objects.filter(request_id__in=[one.request_id, two.request_id], status="success").count() == 2
    ledger.stop()
    with connection.cursor() as cursor:
        cursor.execute("SHOW enable_seqscan")
        assert cursor.fetchone() == ("on",), "nobody else gets a connection with these settings"


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite's statements are its own")
@pytest.mark.parametrize("when", ["while the writer has it", "in the pool"])
def test_a_session_that_was_made_to_forget_its_statements_loses_no_row(begin, when):
    """DISCARD ALL or DEALLOCATE from whoever had the connection before, or a pooler that gave another session."""
    first, attempt = begin(), begin()
    ledger.open(first)
    assert ledger.settle(first, "cancelled")
    ledger.open(attempt)
    ledger._current()._prepared.execute("DEALLOCATE ALL")
    if when == "in the pool":  # a failed connection must not go back there: the next try would get it again, for ever
        ledger.stop()
    assert ledger.settle(attempt, "success") and not ledger.settle(attempt, "success")
    assert UsageLog.objects.get(request_id=attempt.request_id).status == "success"
    assert DailyUsage.objects.get().attempts == 2


def test_of_racing_settles_exactly_one_wins(begin):
    """M3: from threads and a loop at once, whatever they claim."""
    attempts = [begin() for _ in range(20)]
    for attempt in attempts:
        ledger.open(attempt)
        attempt.read(FULL)
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(ledger.settle, a, s) for a in attempts for s in ("success", "cancelled", "error", "success")
        ]
        won = Counter(
            attempt.request_id
            for attempt, job in zip([a for a in attempts for _ in range(4)], jobs, strict=True)
            if job.result()
        )
    assert won == Counter(a.request_id for a in attempts)
    assert DailyUsage.objects.aggregate(n=Sum("attempts"))["n"] == 20


def test_settles_of_one_row_in_one_batch_count_once(begin):
    attempt = begin()
    ledger.open(attempt)
    attempt.read(FULL)

    async def both():
        return await asyncio.gather(ledger.asettle(attempt, "success"), ledger.asettle(attempt, "success"))

    assert sorted(asyncio.run(both())) == [False, True]
    assert DailyUsage.objects.get().attempts == 1


def test_one_bad_row_does_not_take_the_others_with_it(begin):
    """A row no database takes is refused to its own caller alone."""
    good, bad = [begin() for _ in range(5)], begin()
    bad.message_id = 2**70

    async def all_at_once():
        return await asyncio.gather(*(ledger.aopen(a) for a in [*good[:2], bad, *good[2:]]), return_exceptions=True)

    results = asyncio.run(all_at_once())
    assert [type(result) for result in results].count(ledger.LedgerRefused) == 1
    assert isinstance(results[2], ledger.LedgerRefused)
    assert set(UsageLog.objects.values_list("request_id", flat=True)) == {a.request_id for a in good}


def test_a_database_that_fails_for_a_moment_is_tried_again(begin, monkeypatch):
    """F24, F26: locked, restarted, terminated."""
    real, failures = (
        ledger.write_batch,
        iter([OperationalError("database is locked"), OperationalError("server closed")]),
    )

    def flaky(writes, **kwargs):
        for failure in failures:
            raise failure
        return real(writes, **kwargs)

    monkeypatch.setattr(ledger, "write_batch", flaky)
    attempt = begin()
    ledger.open(attempt)
    assert UsageLog.objects.get().status == "pending"


def test_a_commit_whose_answer_was_lost_is_recognised_and_not_counted_twice(begin, monkeypatch):
    """F26: the connection dies after the server committed."""
    real, lose = ledger.write_batch, [False]

    def loses_the_answer(writes, **kwargs):
        real(writes, **kwargs)
        if lose[0]:
            lose[0] = False
            raise OperationalError("connection lost")

    monkeypatch.setattr(ledger, "write_batch", loses_the_answer)
    attempt = begin()
    lose[0] = True
    ledger.open(attempt)
    attempt.read(FULL)
    lose[0] = True
    assert ledger.settle(attempt, "success") is True
    assert UsageLog.objects.count() == 1
    assert DailyUsage.objects.get().attempts == 1


def test_a_database_that_stays_away_is_said_and_nothing_is_sent_or_left_behind(begin, monkeypatch):
    """F24: the caller hears LedgerUnavailable in time; when the database is back no running row remains."""
    real, broken = ledger.write_batch, threading.Event()
    broken.set()

    def away(writes, **kwargs):
        if broken.is_set():
            raise OperationalError("database is locked")
        return real(writes, **kwargs)

    monkeypatch.setattr(ledger, "write_batch", away)
    monkeypatch.setattr(ledger, "PATIENCE", 0.3)
    waiting = begin()
    started = time.monotonic()
    with pytest.raises(ledger.LedgerUnavailable):
        ledger.open(waiting)
    assert time.monotonic() - started < 2
    broken.clear()
    monkeypatch.setattr(ledger, "PATIENCE", 10)
    later = begin()
    ledger.open(later)
    assert list(UsageLog.objects.pending().values_list("request_id", flat=True)) == [later.request_id]


def test_a_settle_that_found_no_database_is_written_when_it_is_back(begin, monkeypatch):
    """F24: no reply lost."""
    attempt = begin()
    ledger.open(attempt)
    attempt.read(FULL)
    real, broken = ledger.write_batch, threading.Event()
    broken.set()

    def away(writes, **kwargs):
        if broken.is_set():
            raise OperationalError("database is locked")
        return real(writes, **kwargs)

    monkeypatch.setattr(ledger, "write_batch", away)
    monkeypatch.setattr(ledger, "PATIENCE", 0.2)
    with pytest.raises(ledger.LedgerUnavailable):
        ledger.settle(attempt, "success")
    broken.clear()
    ledger.stop()
    assert UsageLog.objects.get().cost == FULL_COST


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's lock; PostgreSQL has rows instead")
def test_a_real_lock_by_another_writer_is_waited_out(begin):
    """F24, short."""
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
    release.start()
    attempt = begin()
    started = time.monotonic()
    ledger.open(attempt)
    assert time.monotonic() - started > 0.3
    release.join()
    other.close()
    assert UsageLog.objects.count() == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL can end a backend")
def test_a_terminated_backend_is_replaced(begin):
    """F26: the administrator ends every other connection, again and again; both rows land."""
    attempt = begin()
    ledger.open(attempt)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    attempt.read(FULL)
    assert ledger.settle(attempt, "success") is True
    assert UsageLog.objects.get().status == "success"


def test_stop_writes_what_is_queued_and_a_later_row_starts_anew(begin):
    attempts = [begin() for _ in range(50)]
    ledger.start()
    for attempt in attempts:
        ledger._current().submit(ledger.Write(attempt))
    ledger.stop()
    assert UsageLog.objects.count() == 50
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger"]  # I20
    ledger.settle(attempts[0], "cancelled")
    assert UsageLog.objects.filter(status="cancelled").count() == 1


def test_too_many_waiting_refuses_new_calls_but_takes_settles(begin, monkeypatch):
    """Bounded: the queue cannot grow until memory is gone."""
    attempt = begin()
    ledger.open(attempt)
    monkeypatch.setattr(ledger, "MAX_WAITING", 0)
    with pytest.raises(ledger.LedgerUnavailable):
        ledger.open(begin())
    assert ledger.settle(attempt, "cancelled") is True


def test_a_forked_child_has_a_writer_of_its_own(begin):
    ledger.start()
    parents = ledger.this_process()
    connection.close()
    child = os.fork()
    if child == 0:  # no assert in the child: only its exit code counts
        own = ledger._writer is None and ledger.this_process() != parents
        os._exit(0 if own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ledger._writer is not None


# -- A call that is alone commits on the spot ------------------------------------------------------------------------


async def call(begin):
    """One whole attempt, as `/v1` and the chat page make it."""
    attempt = begin()
    await ledger.aopen(attempt)
    attempt.read(FULL)
    assert await ledger.asettle(attempt, "success") is True
    return attempt


@pytest.fixture
def handed_over(monkeypatch):
    """The rows that went by the writer's thread."""
    rows = []
    submit = ledger._submit

    def noting(write):
        rows.append(write)
        submit(write)

    monkeypatch.setattr(ledger, "_submit", noting)
    return rows


@pytest.fixture
def no_commit_is_slow(monkeypatch):
    """On a busy machine one may take more than 20 ms, and the next go by the thread."""
    monkeypatch.setattr(ledger, "AT_ONCE", 5.0)


@pytest.fixture
def blocked():
    """A function that takes what both rows of a call need, on a connection of its own, and gives back how to let go."""
    if connection.vendor == "sqlite":
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)

        def block():
            other.execute("BEGIN IMMEDIATE")
            return lambda: other.execute("ROLLBACK")
    else:
        other = connection.copy()
        other.inc_thread_sharing()

        def block():
            with other.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("LOCK TABLE aggregator_usage_logs IN EXCLUSIVE MODE")
            return other.connection.rollback

    yield block
    other.close()


def settled():
    """(rows that succeeded, attempts in the day's sums), which must be the same number."""
    return (
        UsageLog.objects.filter(status="success").count(),
        DailyUsage.objects.aggregate(n=Sum("attempts"))["n"] or 0,
    )


def test_a_lone_call_needs_no_thread_and_is_as_durable(begin, handed_over, no_commit_is_slow):
    async def calls():
        await call(begin)  # the thread's first: it connects, and prepares what it says
        before = len(handed_over)
        assert before
        for _ in range(10):
            await call(begin)
        assert len(handed_over) == before, "twenty more rows, and none of them handed over"

    asyncio.run(calls())
    assert ledger.counts() == (22, 22)
    assert settled() == (11, 11)
    assert not ledger._under_way


def test_a_call_beside_others_goes_by_the_thread(begin, handed_over, no_commit_is_slow):
    """The loop must not stand still while somebody else's answer is under way."""

    async def calls():
        await call(begin)
        long = begin()
        await ledger.aopen(long)
        before = len(handed_over)
        await call(begin)
        assert len(handed_over) == before + 2
        assert await ledger.asettle(long, "cancelled") is True
        assert len(handed_over) == before + 2, "alone again"

    asyncio.run(calls())
    assert settled() == (2, 3)


@pytest.mark.parametrize("row", ["open", "settle"])
def test_a_lone_call_that_meets_a_lock_does_not_hold_the_loop(begin, blocked, handed_over, row):
    """F24: the thread does the waiting, and the row is written and counted once."""
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def calls():
        await call(begin)
        attempt = begin()
        if row == "settle":
            await ledger.aopen(attempt)
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        let_go = await asyncio.to_thread(blocked)
        before = len(handed_over)
        if row == "open":
            waiting = asyncio.create_task(ledger.aopen(attempt))
        else:
            waiting = asyncio.create_task(ledger.asettle(attempt, "success"))
        await asyncio.sleep(0.5)
        assert not waiting.done() and len(handed_over) == before + 1
        await asyncio.to_thread(let_go)
        result = await waiting
        ticking.cancel()
        assert result is (None if row == "open" else True)
        if row == "open":
            assert await ledger.asettle(attempt, "success") is True
        await call(begin)

    asyncio.run(calls())
    longest = max(later - sooner for sooner, later in itertools.pairwise(ticks))
    assert longest < 0.3, "the loop stood still"
    assert settled() == (3, 3)


def test_a_caller_who_leaves_while_the_thread_waits_leaves_no_running_row(begin, blocked):
    """F15: what the loop had sent by then is heard of first, and closed as not sent."""

    async def calls():
        await call(begin)
        let_go = await asyncio.to_thread(blocked)
        waiting = asyncio.create_task(ledger.aopen(begin()))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(let_go)

    asyncio.run(calls())
    ledger.stop()
    assert not UsageLog.objects.pending().exists()
    assert list(UsageLog.objects.exclude(status="success").values_list("error_code", "cost")) == [("not_sent", 0)]
    assert not ledger._under_way


def test_after_a_slow_commit_the_thread_has_the_next_ones(begin, handed_over, monkeypatch):
    """A slow disk would hold the loop each time."""

    async def calls():
        await call(begin)
        monkeypatch.setattr(ledger, "AT_ONCE", -1.0)  # any commit is slower
        await ledger.aopen(attempt := begin())
        monkeypatch.setattr(ledger, "AT_ONCE", 5.0)
        before = len(handed_over)
        await ledger.asettle(attempt, "success")
        for _ in range(10):
            await call(begin)
        assert len(handed_over) - before == ledger.AFTER_A_SLOW_ONE
        await call(begin)
        assert len(handed_over) - before == ledger.AFTER_A_SLOW_ONE

    asyncio.run(calls())
    assert settled() == (13, 13)


@pytest.mark.parametrize("row", ["open", "settle"])
def test_a_lone_commit_whose_answer_was_lost_is_recognised(begin, monkeypatch, row):
    """F26, on the spot: committed, and the connection died before we heard of it."""
    lose = []

    def loses(real):
        def answers(*args):
            result = real(*args)
            if lose:
                raise lose.pop()
            return result

        return answers

    async def calls():
        await call(begin)
        attempt = begin()
        if row == "open":
            lose.append(OperationalError("connection lost"))
        await ledger.aopen(attempt)
        attempt.read(FULL)
        if row == "settle":
            lose.append(OperationalError("connection lost"))
        assert await ledger.asettle(attempt, "success") is True
        assert await ledger.asettle(attempt, "error") is False
        assert not lose

    monkeypatch.setattr(ledger, "_write_one_to_sqlite", loses(ledger._write_one_to_sqlite))
    monkeypatch.setattr(ledger._Asked, "answer", loses(ledger._Asked.answer))
    asyncio.run(calls())
    assert settled() == (2, 2)
    assert UsageLog.objects.count() == 2


def test_a_lone_row_no_database_takes_is_refused_and_the_next_is_not(begin):
    async def calls():
        await call(begin)
        bad = begin()
        bad.message_id = 2**70
        with pytest.raises(ledger.LedgerRefused):
            await ledger.aopen(bad)
        await call(begin)

    asyncio.run(calls())
    assert settled() == (2, 2)
    assert UsageLog.objects.count() == 2


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL can end a backend")
def test_a_lone_call_outlives_its_connection(begin):
    """F26: an administrator ends it, or the server restarts, between two rows."""

    async def calls():
        await call(begin)
        attempt = begin()
        await ledger.aopen(attempt)
        backend = ledger._current()._prepared.info.backend_pid
        await asyncio.to_thread(end, backend)
        assert await ledger.asettle(attempt, "success") is True
        await call(begin)

    def end(backend):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 2000)", [backend])
        connection.close()

    asyncio.run(calls())
    assert settled() == (3, 3)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no pooler")
def test_behind_a_pooler_lone_calls_go_by_the_thread(begin, handed_over, monkeypatch):
    monkeypatch.setattr("psycopg.ConnectionInfo.backend_pid", property(lambda info: -1))

    async def calls():
        for _ in range(3):
            await call(begin)

    monkeypatch.setattr(ledger, "_sessions", weakref.WeakKeyDictionary())
    asyncio.run(calls())
    assert len(handed_over) == 6 and settled() == (3, 3)
    ledger.stop()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's log")
def test_lone_calls_have_the_log_copied_by_the_thread(begin, handed_over, monkeypatch, no_commit_is_slow):
    monkeypatch.setattr(ledger, "CHECKPOINT_COMMITS", 20)

    async def calls():
        for _ in range(11):
            await call(begin)

    asyncio.run(calls())
    writer = ledger._current()
    deadline = time.monotonic() + 5
    while not writer._checkpointed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 20 <= writer._checkpointed <= 22
    assert len(handed_over) <= 4, "the first call's, and maybe one that met the copying"


# -- What a crash leaves behind --------------------------------------------------------------------------------------

CRASHING = """
import asyncio, sys, django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = {name!r}
from django.db import connections
connections["default"].settings_dict["NAME"] = {name!r}
from catalog.models import AggregatorModel
from config import crash
from providers.models import ProviderAccount
from providers.clients.base import Delta, Usage
from usage import ledger
account = ProviderAccount.objects.select_related("provider").get()
model = AggregatorModel.objects.get()

def begin():
    return ledger.Attempt.begin(user_id=account.owner_id, account=account, model=model, door="chat", prompt_chars=40)

def answered(attempt):
    crash.crash_at("upstream.connected")
    attempt.read(Delta(text="Hel", usage=Usage(1000, 500, 1500), finish_reason="stop"))

def by_thread():
    attempt = begin()
    ledger.open(attempt)
    answered(attempt)
    ledger.settle(attempt, "success")

async def on_the_spot():
    label, crash.armed = crash.armed, ""
    for armed in "", label:  # the thread has the first call's rows
        crash.armed = armed
        attempt = begin()
        await ledger.aopen(attempt)
        answered(attempt)
        await ledger.asettle(attempt, "success")
    assert ledger.counts() == (4, 4)

asyncio.run(on_the_spot()) if sys.argv[1:] == ["on the spot"] else by_thread()
print("finished")
"""


def crash(label, tmp_path, *arguments):
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING.format(name=str(connection.settings_dict["NAME"])))
    root = Path(settings.BASE_DIR)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "CRASH_AT": label, "PYTHONPATH": str(root), "DJANGO_SETTINGS_MODULE": "config.settings"},
        cwd=root, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def database_is_whole():
    """I23."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert cursor.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize(
    ("label", "found", "after"),
    [
        ("ledger.before_open", [], []),
        ("ledger.before_commit", [], []),  # inside the transaction that opens: it never happened
        ("ledger.after_commit", ["pending"], ["error"]),  # on disk, but the caller was not told
        ("ledger.opened", ["pending"], ["error"]),
        ("upstream.connected", ["pending"], ["error"]),
        ("ledger.before_settle", ["pending"], ["error"]),
    ],
)
def test_a_kill_at_any_point_leaves_a_row_the_sweep_closes(route, tmp_path, label, found, after):
    """F20, M3, I10: kill -9 right after connect, and around each commit."""
    done = crash(label, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(UsageLog.objects.values_list("status", flat=True)) == found
    assert ledger.sweep() == len(found)
    assert ledger.sweep() == 0  # I15
    rows = list(UsageLog.objects.all())
    assert [row.status for row in rows] == after
    for row in rows:
        assert (row.error_code, row.cost, row.cost_source) == ("interrupted", None, "unknown")
        assert row.settled_at is not None
    assert (DailyUsage.objects.aggregate(n=Sum("unknown"))["n"] or 0) == len(after)
    database_is_whole()


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("ledger.before_commit", []),
        ("ledger.after_commit", ["pending"]),
        ("ledger.opened", ["pending"]),
        ("ledger.before_settle", ["pending"]),
    ],
)
def test_a_kill_around_a_commit_on_the_spot_leaves_no_more(route, tmp_path, label, found):
    """F20, M3: the same for a call that is alone and needs no thread; the one before it is whole."""
    done = crash(label, tmp_path, "on the spot")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(UsageLog.objects.order_by("id").values_list("status", flat=True)) == ["success", *found]
    assert ledger.sweep() == len(found)
    assert UsageLog.objects.filter(error_code="interrupted", cost=None).count() == len(found)
    assert DailyUsage.objects.aggregate(n=Sum("attempts"))["n"] == 1 + len(found)
    database_is_whole()


@pytest.mark.parametrize("way", ["by the thread", "on the spot"])
def test_without_a_crash_the_same_process_finishes(route, tmp_path, way):
    """The crash test's control: the script works when nobody kills it."""
    done = crash("", tmp_path, way)
    assert (done.returncode, done.stdout.strip()) == (0, "finished"), done.stderr
    assert set(UsageLog.objects.values_list("status", "cost")) == {("success", FULL_COST)}
    assert ledger.sweep() == 0


def test_the_sweep_leaves_running_calls_of_living_processes_alone(begin):
    attempt = begin()
    ledger.open(attempt)
    assert ledger.sweep() == 0
    assert ledger.sweep(timezone.now() + timedelta(seconds=settings.LEDGER_SWEEP_SECONDS + 5)) == 1
    assert UsageLog.objects.get().error_code == "interrupted"
    assert ledger.settle(attempt, "success") is False  # an end state never changes


def test_a_row_from_another_machine_waits_for_the_deadline(begin):
    attempt = begin()
    attempt.process = "another-boot/4026531836:1:1"
    ledger.open(attempt)
    assert ledger.sweep() == 0
    assert ledger.sweep(timezone.now() + timedelta(seconds=settings.LEDGER_SWEEP_SECONDS + 5)) == 1


def test_whoever_kept_the_text_settles_a_dead_row_with_an_estimate(begin):
    """Chat knows the checkpointed text of a reply whose process was killed: 40 bytes sent, 100 received."""
    attempt = begin(prompt_chars=40)
    ledger.open(attempt)
    taken_over = Attempt.of(UsageLog.objects.get(), answer_size=100)
    assert ledger.settle(taken_over, "error", "interrupted") is True
    row = UsageLog.objects.get()
    assert (row.prompt_tokens, row.completion_tokens, row.cost_source) == (10, 25, "estimated")
    assert row.cost == Decimal("0.0000127")  # 10 × 0.27 + 25 × 0.40
    assert row.latency_ms is None  # nobody measured it


# -- It adds up ------------------------------------------------------------------------------------------------------


def test_ten_thousand_calls_add_up_to_the_last_digit(alice, route, rf):
    """Issue 2, item 8: rows, daily sums and the usage page equal an oracle in Python integers (I10, I13)."""
    account, model = route
    seed = 20261124
    dice = random.Random(seed)
    expected, expected_by_source, expected_failed = 0, Counter(), 0
    expected_rows, expected_unknown = 10_000, 0
    price_in, price_out, price_cached = 833_333, 2_777_777_777_777, 83_333  # 10⁻¹² USD per 1M tokens
    model.price_input = Decimal(price_in) / PICO
    model.price_output = Decimal(price_out) / PICO
    model.price_cache_read = Decimal(price_cached) / PICO
    work = []
    now = timezone.now()
    for _ in range(expected_rows):
        attempt = Attempt.begin(
            user_id=alice.pk, account=account, model=model, door=dice.choice(["chat", "api", "title"])
        )
        attempt.started_at = now - timedelta(days=dice.randrange(0, 29), seconds=dice.randrange(0, 3600))
        prompt, completion = dice.randrange(0, 2_000_000), dice.randrange(1, 50_000)
        cached = dice.randrange(0, prompt + 1)
        kind = dice.choice(["computed", "computed", "provider", "unknown"])
        status = dice.choice(["success", "success", "success", "error"])
        if kind == "unknown":
            usage, status = None, "timeout"
            expected_unknown += 1
        elif kind == "provider":
            pico = dice.randrange(0, 10**13)
            usage = Usage(prompt, completion, prompt + completion, cached, cost=Decimal(pico) / PICO)
        else:
            # the oracle: integers, one rounding, half to even
            exact = (prompt - cached) * price_in + cached * price_cached + completion * price_out
            pico, rest = divmod(exact, 1_000_000)
            if rest * 2 > 1_000_000 or (rest * 2 == 1_000_000 and pico % 2):
                pico += 1
            usage = Usage(prompt, completion, prompt + completion, cached)
        if kind != "unknown":
            expected += pico
            expected_by_source[kind] += pico
            expected_failed += pico if status != "success" else 0
            attempt.read(Delta(text="x", finish_reason="stop"))
            attempt.read(Delta(usage=usage))
        work.append((attempt, status))

    async def call(attempt, status):
        await ledger.aopen(attempt)
        assert await ledger.asettle(attempt, status) is True

    async def everything():
        for start in range(0, len(work), 1000):
            await asyncio.gather(*(call(*item) for item in work[start : start + 1000]))

    asyncio.run(everything())
    with connection.cursor() as cursor:
        cursor.execute("SELECT SUM(cost), COUNT(*) FROM aggregator_usage_logs")
        in_rows, rows = cursor.fetchone()
        cursor.execute(
            "SELECT SUM(cost), SUM(cost_billed), SUM(cost_computed), SUM(cost_estimated), SUM(cost_failed), "
            "SUM(attempts), SUM(unknown) FROM aggregator_usage_daily"
        )
        total, billed, computed, estimated, failed, attempts, unknown = map(int, cursor.fetchone())
    assert (int(in_rows), rows) == (expected, expected_rows), f"seed {seed}"
    assert (total, billed, computed, estimated) == (
        expected,
        expected_by_source["provider"],
        expected_by_source["computed"],
        0,
    )
    assert (failed, attempts, unknown) == (expected_failed, expected_rows, expected_unknown)
    page = reports.summary(alice, reports.period("30", today=now.date()))
    assert page.spent == Decimal(expected) / PICO
    assert (page.attempts, page.unknown) == (expected_rows, expected_unknown)
    assert sum(bar.total for bar in page.days) == page.spent
    assert sum(line.cost for line in page.models) == page.spent
    assert sum(line.cost for line in page.doors) == page.spent
