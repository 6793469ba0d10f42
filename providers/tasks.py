"""Background work about accounts. Nothing depends on the broker: what is due stands in the rows."""

from __future__ import annotations

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from providers import checking, vault
from providers.models import LOCKED_REASON, ProviderAccount

PER_TICK = 10
"""Probes of one tick of beat; each takes ten seconds at most."""


@shared_task(ignore_result=True)
def recheck() -> int:
    """Ask again about keys that a real call saw rejected, once their rest is over; how many were asked.

    The probe says whether it was the provider's hiccup (valid again) or final (invalid, and out of use). If it cannot
    tell, the account rests on, each time twice as long.
    """
    now = timezone.now()
    suspects = (
        ProviderAccount.objects.filter(owner__is_active=True, is_active=True, provider__is_active=True)
        .filter(status=ProviderAccount.Status.ATTENTION, trouble="key_rejected")
        .filter(Q(cooldown_until__isnull=True) | Q(cooldown_until__lte=now))
        .select_related("provider")
        .order_by("cooldown_until", "pk")
    )
    asked = 0
    for account in suspects[:PER_TICK]:
        asked += 1
        try:
            probe = checking.check(account)
        except vault.Locked:
            account.mark(ProviderAccount.Status.LOCKED, LOCKED_REASON)
            continue
        account.record(probe)
        account.save_found()
    return asked
