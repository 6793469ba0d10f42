"""The periodic calls of `catalog.sync`. Nothing depends on the broker: a queued row that nobody ran is swept."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from celery import shared_task
from django.conf import settings
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone

from catalog import sync
from catalog.models import SyncRun
from providers.models import ProviderAccount

SWEEP_AFTER = timedelta(seconds=20)
"""How long a queued run may wait for its own task before the sweep runs it."""

PER_TICK = 50
"""Syncs one tick of beat may queue: the rest is due again at the next."""

JITTER = 0.1
"""The part of the interval that differs from account to account, so that they do not all ask at once."""


@shared_task(ignore_result=True)
def sync_account_task(run_id: str) -> None:
    """Carry out one queued run. A second delivery finds it finished and does nothing (F28)."""
    run = SyncRun.objects.open().filter(pk=run_id).select_related("account__provider").first()
    if run is not None:
        sync.sync_account(run.account, trigger=run.trigger)


@shared_task(ignore_result=True)
def sync_due() -> int:
    """Queue a sync for every usable account whose last one is older than the interval; how many were queued."""
    now = timezone.now()
    interval = sync_interval()
    last = SyncRun.objects.filter(account=OuterRef("pk"), finished_at__isnull=False).order_by("-queued_at")
    accounts = (
        ProviderAccount.objects.filter(owner__is_active=True)
        .usable()
        .annotate(last_sync=Subquery(last.values("finished_at")[:1]))
        .filter(Q(last_sync__isnull=True) | Q(last_sync__lt=now - interval))
        .order_by("last_sync", "pk")
    )
    due = [
        account
        for account in accounts[: PER_TICK * 4]
        if account.last_sync is None or next_sync_at(account.pk, account.last_sync) <= now
    ]
    for account in due[:PER_TICK]:
        sync.queue(account, "beat")
    return len(due[:PER_TICK])


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


def sync_interval() -> timedelta:
    """How long a list stays fresh."""
    return timedelta(seconds=settings.SYNC_INTERVAL)


def next_sync_at(account_id: UUID, last_sync: datetime) -> datetime:
    """When beat will sync this account next: its interval, plus a share of JITTER that is always the same for it."""
    share = hashlib.sha256(account_id.bytes).digest()[0] / 255
    return last_sync + sync_interval() * (1 + JITTER * share)
