"""SIGKILL at every statement of a sync: the catalog is as before or as after, and the next sync finishes it (I15, F22)."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone

from catalog import sync
from catalog.models import AccountModel, AggregatorModel, CatalogVersion, ChangeSet, ModelChange, SyncRun
from tests.catalog.conftest import listing, model
from usage.models import DailyUsage, Notice

pytestmark = pytest.mark.django_db(transaction=True)

OLD = [model(f"m{n}", "1", "2") for n in range(20)]
NEW = [*(model(f"m{n}", "3", "2") for n in range(3, 20)), *(model(f"n{n}") for n in range(40))]


def sync_and_die_at(statement, account):
    """Sync in a child process that kills itself before its `statement`th one (from 1). True if it was killed."""
    connections.close_all()
    if hasattr(connection, "close_pool"):
        connection.close_pool()  # a child must not share the parent's sockets
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count(execute, sql, params, many, context):
            nonlocal seen
            seen += 1
            if seen == statement:
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(sql, params, many, context)

        try:
            with connection.execute_wrapper(count):
                sync.sync_account(account)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def state():
    """Everything a sync writes but its own run."""
    models = AggregatorModel.objects.order_by("model_id").values_list(
        "model_id", "price_input", "is_available", "missing_since"
    )
    return (
        [(model_id, price, available, missing is None) for model_id, price, available, missing in models],
        sorted(AccountModel.objects.values_list("model__model_id", flat=True)),
        sorted(ModelChange.objects.values_list("model__model_id", "kind", "field")),
        CatalogVersion.objects.get().version,
        [one.counts for one in ChangeSet.objects.order_by("pk")],
        sorted(Notice.objects.values_list("model__model_id", "kind")),
    )


@pytest.mark.slow
def test_a_sync_killed_at_any_statement_leaves_the_old_state_or_the_new_one(account, upstream):
    assert "memory" not in str(connection.settings_dict["NAME"]), "a child cannot share a database in memory"
    upstream(listing(*OLD))
    sync.sync_account(account)
    for model_id in ("m1", "m5"):
        DailyUsage.objects.create(
            user_id=account.owner_id, day=timezone.now().date(), door="chat", provider_name="Lister",
            account_id=account.pk, model_id=model_id,
        )  # fmt: skip
    old = state()
    upstream(listing(*NEW))

    killed = 0
    for statement in range(1, 200):
        if not sync_and_die_at(statement, account):
            break
        killed += 1
        if state() != old:
            # Killed after the commit: only what follows it (reading the finished run) was lost.
            assert not SyncRun.objects.open().exists()
            break
        # Ten minutes later someone takes over what the dead one left running.
        SyncRun.objects.open().update(started_at=timezone.now() - timedelta(minutes=11))
    else:
        pytest.fail("the sync never got through")

    assert killed >= 10, "too few statements were tried"
    new = state()
    assert [row[0] for row in new[0]] == sorted({m.model_id for m in (*OLD, *NEW)})
    assert [row[:1] + row[3:] for row in new[0] if row[0] in ("m0", "m1", "m2")] == [
        ("m0", False),
        ("m1", False),
        ("m2", False),
    ]
    assert new[1] == sorted(m.model_id for m in NEW)
    run = sync.sync_account(account)
    assert run.state == "unchanged" and state() == new
    # One line per change, however many attempts it took: 40 added, 3 gone, 17 repriced; 20 added at first.
    assert len(new[2]) == 80
    assert new[4] == [{"added": 20}, {"price": 17, "gone": 3, "added": 40}]
    assert new[5] == [("m1", "gone"), ("m5", "dearer")], "told with the change, and once (M4)"


def test_a_run_left_behind_by_a_killed_worker_is_swept_and_finished(account, upstream):  # F22
    from catalog.tasks import sweep_queued

    upstream(listing(*OLD))
    assert sync_and_die_at(5, account)
    left = SyncRun.objects.get()
    assert left.state == "running"
    assert sweep_queued() == 0, "it may still be alive"
    SyncRun.objects.update(started_at=timezone.now() - timedelta(minutes=11))

    assert sweep_queued() == 1

    left.refresh_from_db()
    assert left.state == "done" and AggregatorModel.objects.count() == 20
