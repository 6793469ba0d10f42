"""The ledger's short cuts say what the long way says (docs/adr/0010, "Below Django")."""

import asyncio
import random
import uuid
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.utils import timezone

from config.ids import new_uuid
from providers.clients.base import Delta, Usage
from usage import ledger, pricing
from usage.ledger import Write
from usage.models import DailyUsage, UsageLog

pytestmark = pytest.mark.slow

FULL = Delta(text="x", finish_reason="stöp", usage=Usage(1000, 500, 1500, cached_tokens=200, reasoning_tokens=50))


def stored(request_id):
    """The columns of one row as the database itself has them: value and kind."""
    columns = [field.column for field in UsageLog._meta.fields if field.name not in ("id", "request_id")]
    kind = "typeof({0})" if connection.vendor == "sqlite" else "pg_typeof({0})::text"
    selected = ", ".join(f"{name}, {kind.format(name)}" for name in columns)
    with connection.cursor() as cursor:
        key = request_id.hex if connection.vendor == "sqlite" else request_id
        cursor.execute(f"SELECT {selected} FROM {UsageLog._meta.db_table} WHERE request_id = %s", [key])
        found = cursor.fetchone()
    return {name: found[2 * at : 2 * at + 2] for at, name in enumerate(columns)}


@pytest.mark.parametrize("microsecond", [0, 123_456])
@pytest.mark.parametrize("upstream_model", ["", 'other "model"\\ ☃'])
@pytest.mark.parametrize("company", [0, 1])
def test_rows_are_stored_as_django_stores_them(begin, microsecond, upstream_model, company):
    """Alone and in a batch, which PostgreSQL writes by different statements."""
    begun = begin(
        conversation_id=uuid.uuid4(), message_id=7, generation_id=uuid.uuid4(), token_id=uuid.uuid4(), prompt_chars=90
    )
    begun.started_at = begun.started_at.replace(microsecond=microsecond)
    begun.upstream_model = upstream_model
    others = [begin() for _ in range(company)]
    ledger.write_batch([Write(attempt) for attempt in [begun, *others]])
    begun.read(FULL)
    for step in ("opened", "settled"):
        row = UsageLog.objects.get(request_id=begun.request_id)
        by_ledger = stored(row.request_id)
        row.pk, row.request_id = None, uuid.uuid4()
        row.save(force_insert=True)
        assert stored(row.request_id) == by_ledger, step
        if step == "opened":
            settled = [Write(attempt, ledger._settlement(attempt, "success", None)) for attempt in [begun, *others]]
            ledger.write_batch(settled)
            assert all(write.result for write in settled)
    day = DailyUsage.objects.get()
    assert (day.attempts, day.prompt_tokens) == (1 + company, 1000)
    assert (day.day, day.account_id) == (begun.started_at.date(), begun.account_id)


def test_plain_prices_as_integers_cost_what_the_long_way_says():
    """Every combination of known, free of charge, missing and unreadable prices, and of counts that lie."""
    dice = random.Random(20261124)
    texts = ["0", "0.27", "3", "0.000000000001", "8999999", None, None, "no price", "-1"]
    fast = 0
    for _ in range(20_000):
        noted = {
            "kind": dice.choice(["known", "known", "unknown", "free", "variable", "list"]),
            "type": dice.choice(["chat", "image"]),
        }
        noted |= {key: text for key in pricing.PRICE_KEYS if (text := dice.choice(texts)) is not None}
        if dice.random() < 0.1:
            noted["rules"] = [{"min_prompt_tokens": "500", "input": "9"}]
        counts = [dice.choice([None, 0, 1, 999, 1000, 10**6, 10**10, 10**10 + 1, -1]) for _ in range(6)]
        usage = Usage(*counts, cost=dice.choice([None, None, Decimal("0.5"), Decimal("NaN")]))
        snapshot, is_estimated = pricing.Snapshot(noted), dice.random() < 0.3
        fast += snapshot.tariff is not None
        kwargs = {"at": timezone.now(), "is_estimated": is_estimated}
        assert pricing.cost_by_snapshot(usage, snapshot, **kwargs) == pricing.cost_by_snapshot(
            usage, noted, **kwargs
        ), (
            noted,
            usage,
        )
        tidy = pricing.tidy(usage)
        if snapshot.tariff is not None and tidy.cached_tokens:
            long_way = pricing.saved_by_cache(
                Usage(prompt_tokens=tidy.prompt_tokens, cached_tokens=tidy.cached_tokens), noted
            )
            assert pricing.saved_by_tariff(tidy.prompt_tokens or 0, tidy.cached_tokens, snapshot.tariff) == long_way
    assert fast > 500


@pytest.mark.django_db
def test_a_contested_batch_settles_each_row_once_and_adds_up_only_its_own(begin):
    """M3: one statement per batch does not say which row lost: it must be found out (SQLite), or told (PostgreSQL)."""
    earlier, twice, once, new = begin(), begin(), begin(), begin()
    for attempt in (earlier, twice, once):
        ledger.open(attempt)
        attempt.read(FULL)
    ledger.settle(earlier, "success")

    def settle(attempt):
        return Write(attempt, ledger._settlement(attempt, "success", None))

    batch = [settle(earlier), settle(twice), settle(twice), settle(once), Write(new), Write(earlier)]
    ledger.write_batch(batch)
    assert [write.result for write in batch] == [False, True, False, True, True, True]
    assert DailyUsage.objects.get().attempts == 3
    assert UsageLog.objects.get(status="pending").request_id == new.request_id
    again = [settle(twice), settle(once)]
    ledger.write_batch(again, is_again=True)
    assert [write.result for write in again] == [False, False]
    recognised = [Write(twice, batch[1].columns), Write(once, batch[3].columns)]
    ledger.write_batch(recognised, is_again=True)
    assert [write.result for write in recognised] == [True, True], "the same settlement, whose answer was lost"
    assert DailyUsage.objects.get().attempts == 3


class Silent:
    """A writer whose database never answers, but for the rows it is told to answer."""

    is_alive = True

    def __init__(self):
        self.held = []

    def submit(self, write):
        self.held.append(write)
        return True

    def write_at_once(self, write):
        return False

    def stop(self, timeout):
        return True


@pytest.fixture
def silent(monkeypatch):
    writer = Silent()
    monkeypatch.setattr(ledger, "_factory", lambda: writer)
    ledger.stop()
    return writer


@pytest.mark.parametrize("loops", [1, 2])
def test_many_waiting_rows_share_one_timer_and_each_is_given_up_in_its_time(begin, silent, monkeypatch, loops):
    """F24: told LedgerUnavailable after PATIENCE, neither earlier nor much later; an answered row is not."""
    monkeypatch.setattr(ledger, "PATIENCE", 0.3)

    async def scenario():
        loop = asyncio.get_running_loop()
        timers = []
        real = loop.call_later

        def call_later(delay, callback, *args):
            if callback == ledger._patience._look:
                timers.append(delay)
            return real(delay, callback, *args)

        monkeypatch.setattr(loop, "call_later", call_later)
        waited = {}

        async def wait(name):
            began = loop.time()
            try:
                await ledger.aopen(begin())
                waited[name] = "opened"
            except ledger.LedgerUnavailable:
                waited[name] = loop.time() - began

        first = [asyncio.create_task(wait(number)) for number in range(50)]
        await asyncio.sleep(0.15)
        answered = silent.held[0]
        answered.result = True
        ledger.resolve(answered)
        second = asyncio.create_task(wait("later"))
        await asyncio.gather(*first, second)
        assert waited.pop(0) == "opened"
        assert all(0.29 <= seconds < 2 for seconds in waited.values()), waited
        assert len(timers) <= 10, timers  # of 51 rows

    for _ in range(loops):
        silent.held.clear()
        asyncio.run(scenario())


def test_ids_stand_in_the_order_of_time_and_are_never_the_same():
    before = timezone.now() - timedelta(milliseconds=2)
    ids = [new_uuid() for _ in range(5000)]
    assert len(set(ids)) == 5000
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    stamps = [one.int >> 80 for one in ids]
    assert stamps == sorted(stamps)
    assert before.timestamp() * 1000 <= stamps[0] <= stamps[-1] <= timezone.now().timestamp() * 1000
    assert len({one.int & (1 << 62) - 1 for one in ids}) == 5000, "62 random bits at the end"
    assert len({one.int >> 64 & 0xFFF for one in ids}) > 1000, "and 12 in the middle"


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL reads a small table whole")
def test_the_smaller_indexes_still_find_a_conversation_and_a_reply():
    one = uuid.uuid4()
    assert "usage_by_conversation" in UsageLog.objects.filter(conversation_id__in=[one]).order_by().explain()
    assert "usage_by_generation" in UsageLog.objects.filter(generation_id__in=[one]).order_by().explain()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite plans in no time")
@pytest.mark.parametrize("pooler", [False, True])
def test_what_postgresql_plans_once_it_does_not_plan_behind_a_pooler(begin, monkeypatch, pooler):
    """PgBouncer names process ids of its own; what was prepared there may be another statement the next time."""
    if pooler:
        monkeypatch.setattr("psycopg.ConnectionInfo.backend_pid", property(lambda info: -1))
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")  # what tests before this one left on the connection
    ledger._sessions.clear()
    for batch in ([begin()], [begin()], [begin(), begin()], [begin(), begin()]):
        ledger.write_batch([Write(attempt) for attempt in batch])
        ledger.write_batch([Write(attempt, ledger._settlement(attempt, "success", None)) for attempt in batch])
    assert UsageLog.objects.filter(status="success").count() == 6
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE 'ledger%'")
        names = {name for (name,) in cursor.fetchall()}
    assert names == (set() if pooler else {f"ledger_{kind}" for kind in ("open", "settle", "opens", "settles")})
    assert connection.connection.prepare_threshold is None, "Django's own queries go on as they were"
    ledger._sessions.clear()
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
