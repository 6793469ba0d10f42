"""What a sync costs: statements on both databases, and that 100,000 models fit into a minute and half a gigabyte (F13)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from catalog import sync
from catalog.models import AccountModel, AggregatorModel, ModelChange
from tests.catalog.conftest import listing, model

FRAME = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")
MOST = {"postgresql": 15, "sqlite": 60}
"""Statements of one sync of 805 models (issue 5)."""


def statements(account):
    with CaptureQueriesContext(connection) as captured:
        run = sync.sync_account(account)
    return run, [query["sql"] for query in captured if not query["sql"].startswith(FRAME)]


@pytest.mark.slow
def test_a_sync_of_805_models_takes_few_statements(account, upstream):
    models = [model(f"maker/model-{n}", description="d" * 170, context_window=8_000) for n in range(805)]
    upstream(listing(*models))

    first, at_first = statements(account)
    again, unchanged = statements(account)
    upstream(listing(*(model(f"maker/model-{n}", "7", "8", context_window=9_000) for n in range(5, 810))))
    third, all_different = statements(account)

    assert (first.added, again.state, third.repriced, third.added, third.gone) == (805, "unchanged", 800, 5, 5)
    assert len(at_first) <= MOST[connection.vendor], at_first
    assert len(unchanged) <= 10, unchanged
    # Each of 800 models has four lines of history, and whoever uses one is told: still statements of many rows each.
    assert len(all_different) <= (40 if connection.vendor == "postgresql" else 110), len(all_different)


def test_statements_do_not_grow_with_rows_that_did_not_change(account, upstream):
    upstream(listing(*(model(f"m{n}") for n in range(300))))
    sync.sync_account(account)
    _, few = statements(account)
    upstream(listing(*(model(f"m{n}") for n in range(3))))
    sync.sync_account(account, force=True)
    _, fewer = statements(account)
    assert len(few) == len(fewer)


ROWS = 100_000

CHILD = """
import os, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
django.setup()
from django.db import connection
from catalog import sync
from catalog.models import AccountModel, AggregatorModel, ModelChange
from providers import net
from providers.models import ProviderAccount
port, connection.settings_dict["NAME"] = int(sys.argv[1]), sys.argv[2]
net.configure(net.Policy(hosts={"lister.test": ("127.0.0.1", port)}))
started = time.process_time()
run = sync.sync_account(ProviderAccount.objects.get())
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(run.state, run.total, run.skipped, f"{time.process_time() - started:.1f}", int(peak) // 1024)
"""


def row(n):
    """A model as AiHubMix lists it. Every fiftieth has the id of the one before it, in other letters."""
    return {
        "model_id": f"maker-{n % 17}/model-{n}" if n % 50 else f"Maker-{n % 17}/MODEL-{n - 1}",
        "model_name": f"Maker {n % 17}: Model {n}",
        "types": "llm",
        "features": "tools,thinking",
        "input_modalities": "text,image",
        "context_length": 128_000,
        "max_output": 8_192,
        "desc": "d" * 170,
        "pricing": {"input": 0.27 + n / 1e6, "output": 0.4, "cache_read": 0.027},
    }


def bare_row(n):
    return {"model_id": row(n)["model_id"]}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.django_db(transaction=True)
def test_a_hundred_thousand_models_survive(lister, account, provider):  # F13, S9
    """In a process of its own, so that the peak of memory is the sync's: over HTTP into the database of this run.

    A sync may take a minute (issue 5), judged here by the processor's time: the clock of a machine that runs other
    tests beside says little. bench/catalog_sync.py measures the clock's, and a second, unchanged one. What it costs to
    read a full row is the same on both databases, so PostgreSQL's run is spared that: its rows have an id alone.
    """
    provider.client = "aihubmix"
    provider.save()
    make = row if connection.vendor == "sqlite" else bare_row
    rows = [make(n) for n in range(ROWS)]
    lister.body = json.dumps({"data": [*rows, *rows[:500], None, {"model_id": 5}]}).encode()
    del rows
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(lister.port), str(connection.settings_dict["NAME"])],
        cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2_000:]
    state, total, skipped, seconds, megabytes = child.stdout.split()
    assert (state, int(total), int(skipped)) == ("done", ROWS, 2)
    assert float(seconds) < 60 and int(megabytes) < 500, child.stdout
    written = AggregatorModel.objects.filter(missing_since=None, is_available=True)
    assert (written.count(), AccountModel.objects.count(), ModelChange.objects.count()) == (ROWS, ROWS, ROWS)
    assert written.filter(model_id__in=["maker-15/model-49", "Maker-16/MODEL-49"]).count() == 2
    if (
        connection.vendor == "postgresql"
    ):  # the suite's own clearing deletes row by row, which takes longer than the test
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {AggregatorModel._meta.db_table} CASCADE")


def test_what_is_stored_is_read_in_parts_however_many_there_are(account, upstream, monkeypatch):
    """Every part but the last is full; the last may be empty."""
    monkeypatch.setattr(sync, "READ_AT_ONCE", 3)
    upstream(listing(*(model(f"m{n}") for n in range(6))))
    sync.sync_account(account)
    run, asked = statements(account)
    assert (run.state, run.unchanged) == ("unchanged", 6)
    upstream(listing(*(model(f"m{n}", "7") for n in range(1, 8))))
    again = sync.sync_account(account)
    assert (again.added, again.gone, again.repriced, again.unchanged) == (2, 1, 5, 0)
    parts = [sql for sql in asked if "LIMIT 3" in sql]
    assert len(parts) == 3, asked
