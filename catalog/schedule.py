"""When an account's model list is read again by itself: its provider's interval, and a spread of its own.

Accounts do not all ask at once: the interval is up to a tenth longer, by a share of the account's id that never
changes, and what one tick of beat finds due is spread over the time until the next.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Min
from django.utils import timezone

from catalog.models import SyncRun
from providers.models import Provider, ProviderAccount

JITTER = 0.1
"""The part of the interval that differs from account to account."""

TICK = timedelta(seconds=60)
"""How often beat asks what is due (settings.CELERY_BEAT_SCHEDULE)."""


def interval_of(provider: Provider) -> timedelta:
    """How long this provider's lists stay fresh."""
    return timedelta(seconds=provider.sync_interval or settings.SYNC_INTERVAL)


def shortest_interval() -> timedelta:
    """No list is due before this: narrows the query for what is."""
    shortest = Provider.objects.aggregate(shortest=Min("sync_interval"))["shortest"]
    return timedelta(seconds=min(shortest or settings.SYNC_INTERVAL, settings.SYNC_INTERVAL))


def due_after(provider: Provider, account_id: UUID, last_sync: datetime) -> datetime:
    """When an account whose last sync ended then is due again."""
    return last_sync + interval_of(provider) * (1 + JITTER * _share(account_id))


def place_in_tick(account_id: UUID) -> timedelta:
    """When, after the tick that finds it due, an account starts: its own moment before the next tick."""
    return timedelta(seconds=int((TICK.total_seconds() - 5) * _share(account_id, b"tick")))


def next_run(account: ProviderAccount, last_run: SyncRun | None) -> datetime | None:
    """When beat will read the account's list next, roughly; None if it will not, or is about to. Reads `provider`."""
    is_usable = account.is_active and account.provider.is_active
    is_usable = is_usable and account.status not in (ProviderAccount.Status.LOCKED, ProviderAccount.Status.INVALID)
    if not is_usable or last_run is None or last_run.is_open or last_run.finished_at is None:
        return None
    due = due_after(account.provider, account.pk, last_run.finished_at)
    return due if due > timezone.now() else None


def _share(account_id: UUID, purpose: bytes = b"") -> float:
    """0 to 1, always the same for an account."""
    return int.from_bytes(hashlib.sha256(purpose + account_id.bytes).digest()[:4]) / 0xFFFFFFFF
