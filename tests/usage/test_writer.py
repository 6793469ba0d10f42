"""The writer thread: many rows per commit, once each, through faults of the database (M3, F20, F24, F26, I10)."""

import asyncio
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
def test_a_session_that_was_made_to_forget_its_statements_loses_no_row(begin):
    """DISCARD ALL or DEALLOCATE from whoever had the connection before, or a pooler that gave another session."""
    attempt = begin()
    ledger.open(attempt)
    ledger._current()._prepared.execute("DEALLOCATE ALL")
    assert ledger.settle(attempt, "success") and not ledger.settle(attempt, "success")
    assert UsageLog.objects.get().status == "success"
    assert DailyUsage.objects.get().attempts == 1


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


# -- What a crash leaves behind --------------------------------------------------------------------------------------

CRASHING = """
import os, sys, django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = {name!r}
from django.db import connections
connections["default"].settings_dict["NAME"] = {name!r}
from catalog.models import AggregatorModel
from providers.models import ProviderAccount
from providers.clients.base import Delta, Usage
from usage import ledger
account = ProviderAccount.objects.select_related("provider").get()
attempt = ledger.Attempt.begin(user_id=account.owner_id, account=account, model=AggregatorModel.objects.get(), door="chat", prompt_chars=40)
ledger.open(attempt)
from config.crash import crash_at
crash_at("upstream.connected")
attempt.read(Delta(text="Hel", usage=Usage(1000, 500, 1500), finish_reason="stop"))
ledger.settle(attempt, "success")
print("finished")
"""


def crash(label, tmp_path):
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING.format(name=str(connection.settings_dict["NAME"])))
    root = Path(settings.BASE_DIR)
    return subprocess.run(
        [sys.executable, str(script)],
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


def test_without_a_crash_the_same_process_finishes(route, tmp_path):
    """The crash test's control: the script works when nobody kills it."""
    done = crash("", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "finished"), done.stderr
    assert UsageLog.objects.get().cost == FULL_COST
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
