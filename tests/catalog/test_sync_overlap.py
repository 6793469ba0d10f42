"""Syncs at the same time, for one account and for two of one provider (F28, I14)."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from catalog import sync
from catalog.models import AccountModel, AggregatorModel, SyncRun
from tests.catalog.conftest import listing, model

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def at_once(*calls):
    """Run the calls in threads that start together; their results in order, or the exceptions they raised."""
    results, barrier = [None] * len(calls), threading.Barrier(len(calls))

    def run(number, call):
        try:
            barrier.wait(10)
            results[number] = call()
        except Exception as exc:
            results[number] = exc
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(n, call)) for n, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_eight_syncs_of_one_account_are_one(account, upstream):
    models = [model(f"m{n}") for n in range(300)]
    upstream(listing(*models))

    runs = at_once(*[lambda: sync.sync_account(account)] * 8)

    assert all(isinstance(run, SyncRun) for run in runs), runs
    assert AggregatorModel.objects.count() == 300 == AccountModel.objects.count()
    assert SyncRun.objects.open().count() == 0
    assert sum(run.added for run in SyncRun.objects.all()) == 300


def test_eight_requests_to_sync_queue_one_run(account, monkeypatch):
    monkeypatch.setattr("catalog.tasks.sync_account_task.delay", lambda run_id: None)  # the worker has not come to it
    runs = at_once(*[lambda: sync.queue(account, "button")] * 8)
    assert len({run.pk for run in runs}) == 1 == SyncRun.objects.count()


def test_two_accounts_of_one_provider_sync_at_once(account, bobs_account, upstream):
    upstream(listing(*(model(f"m{n}") for n in range(400))))

    runs = at_once(lambda: sync.sync_account(account), lambda: sync.sync_account(bobs_account))

    assert [run.state for run in runs] == ["done", "done"]
    assert sorted(run.added for run in runs) == [0, 400]
    assert AggregatorModel.objects.count() == 400 and AccountModel.objects.count() == 800
