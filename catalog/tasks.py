"""The periodic calls of `catalog.sync`. Nothing depends on the broker: a queued row that nobody ran is swept."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Any

from celery import shared_task
from django.db.models import Exists, OuterRef, Q, Subquery
from django.utils import timezone

from catalog import list_prices, schedule, sync
from catalog.models import SyncRun
from providers.models import ProviderAccount

SWEEP_AFTER = timedelta(seconds=20)
"""How long a queued run may wait for its own task before the sweep runs it."""

PER_TICK = 50
"""Syncs one tick of beat may queue: the rest is due again at the next."""


@shared_task(ignore_result=True)
def sync_account_task(run_id: str) -> None:
    """Carry out one queued run. A second delivery finds it finished and does nothing (F28)."""
    run = SyncRun.objects.open().filter(pk=run_id).select_related("account__provider").first()
    if run is not None:
        sync.sync_account(run.account, trigger=run.trigger)


@shared_task(ignore_result=True)
def sync_due() -> int:
    """Queue a sync for every usable account whose last one is older than its provider's interval; how many.

    They start one after the other until the next tick, each at its own moment.
    """
    now = timezone.now()
    last = SyncRun.objects.filter(account=OuterRef("pk"), finished_at__isnull=False).order_by("-queued_at")
    is_open = SyncRun.objects.open().filter(account=OuterRef("pk"))
    accounts: Any = (
        ProviderAccount.objects.filter(owner__is_active=True)
        .usable()
        .filter(~Exists(is_open))
        .select_related("provider")
        .annotate(last_sync=Subquery(last.values("finished_at")[:1]))
        .filter(Q(last_sync__isnull=True) | Q(last_sync__lt=now - schedule.shortest_interval()))
        .order_by("last_sync", "pk")
    )
    is_due = (
        account
        for account in accounts.iterator(chunk_size=500)
        if account.last_sync is None or schedule.due_after(account.provider, account.pk, account.last_sync) <= now
    )
    due = list(islice(is_due, PER_TICK))
    for account in due:
        sync.queue(account, "beat", wait=schedule.place_in_tick(account.pk))
    return len(due)


@shared_task(ignore_result=True)
def keep_list_prices() -> None:
    """Have the public list prices at hand before a sync asks for them; work only after an upgrade of the library."""
    list_prices.prepare()


@shared_task(ignore_result=True)
def sweep_queued() -> int:
    """Run what was queued and never started, and take over what was started by a process that died (F22)."""
    now = timezone.now()
    waiting = Q(state=SyncRun.State.QUEUED, queued_at__lt=now - SWEEP_AFTER)
    dead = Q(state=SyncRun.State.RUNNING, started_at__lt=now - sync.STALE_AFTER)
    runs = SyncRun.objects.filter(waiting | dead).select_related("account__provider").order_by("queued_at")
    count = 0
    for run in runs[:PER_TICK]:
        sync.sync_account(run.account, trigger=run.trigger)
        count += 1
    return count
