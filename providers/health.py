"""What errors of real calls say about an account: one table, applied by both doors.

`cooldown_until` lives in the database, so that every process rests the same accounts. Routes try resting accounts last
(catalog.routes); nothing is switched off by itself, and a call that succeeds ends the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from providers.clients.errors import CODES, ProviderError
from providers.models import ProviderAccount

Status = ProviderAccount.Status

LONGEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from one error code: a status for the owner to see, and how long the account rests."""

    status: str
    rest: timedelta


CONSEQUENCES: dict[str, Consequence] = {
    "key_rejected": Consequence(Status.INVALID, timedelta(0)),
    "no_balance": Consequence(Status.ATTENTION, timedelta(minutes=10)),
    "rate_limited": Consequence(Status.COOLING, timedelta(seconds=30)),
    "overloaded": Consequence(Status.COOLING, timedelta(seconds=15)),
    "unreachable": Consequence(Status.COOLING, timedelta(seconds=15)),
    "tls_error": Consequence(Status.ATTENTION, timedelta(minutes=1)),
    "unexpected_redirect": Consequence(Status.ATTENTION, timedelta(minutes=1)),
}
"""Codes that say something about the account. All others are about one request or one model."""


def failed(account_id: UUID, error: ProviderError) -> bool:
    """Record what `error` says about the account, if it says anything. True if it did."""
    consequence = CONSEQUENCES.get(error.code)
    if consequence is None:
        return False
    now = timezone.now()
    rest = consequence.rest
    if error.retry_after is not None:
        rest = max(rest, timedelta(seconds=error.retry_after))
    ProviderAccount.objects.filter(pk=account_id).update(
        status=consequence.status,
        status_reason=CODES[error.code],
        cooldown_until=now + min(rest, LONGEST) if rest else None,
        checked_at=now,
        updated_at=now,
    )
    return True


def succeeded(account_id: UUID) -> None:
    """A call went through: the account is well again. Costs one statement; call it only if the account was not well."""
    ProviderAccount.objects.filter(pk=account_id, status__in=[Status.COOLING, Status.ATTENTION]).update(
        status=Status.VALID, status_reason="", cooldown_until=None, checked_at=timezone.now()
    )
