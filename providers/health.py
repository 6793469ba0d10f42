"""What real calls say about an account: one table, applied by both doors.

    well ──► cooling down (until when, why) ──► needs attention
      ▲────────── a call that goes through ──────────┘

Two facts are kept apart. `status` is what is known of the key; `cooldown_until` and `trouble` say that the account
rests, and why. Both live in the database, so every process rests the same accounts. Routes try resting accounts last
(catalog.routes). A rest ends by itself, without anybody writing anything; a call that goes through ends it sooner.

No call takes an account out of use: a 401 may be the provider's hiccup. The account needs attention and rests, and
within the minute a free probe asks again (providers.tasks.recheck). Only a probe's "no" is final (`invalid`).
docs/account-health.md says it for people; the two must agree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from django.db.models import Q
from django.utils import timezone

from providers.clients.errors import ProviderError
from providers.models import ProviderAccount

if TYPE_CHECKING:
    from providers.models import AnyUser

Status = ProviderAccount.Status

LONGEST = timedelta(hours=1)
PATIENCE = 5
"""Rests in a row, each twice as long, after which even what passes by itself is for the owner to look at."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from one error code: the first rest, and whether it takes the owner to mend it."""

    rest: timedelta
    needs_owner: bool = False


CONSEQUENCES: dict[str, Consequence] = {
    # the key
    "key_rejected": Consequence(timedelta(seconds=30), needs_owner=True),  # 401: asked again by recheck()
    "forbidden": Consequence(timedelta(0), needs_owner=True),  # 403: may be about one model alone, so it does not rest
    "bad_header": Consequence(timedelta(minutes=10), needs_owner=True),
    # money
    "no_balance": Consequence(timedelta(minutes=10), needs_owner=True),  # 402
    # passes by itself
    "rate_limited": Consequence(timedelta(seconds=30)),  # 429
    "overloaded": Consequence(timedelta(seconds=15)),  # 503, 529
    "upstream_error": Consequence(timedelta(seconds=5)),  # other 5xx, and errors in a stream: often one model's
    "timeout": Consequence(timedelta(seconds=15)),  # 408, 504, and our own deadlines
    "unreachable": Consequence(timedelta(seconds=15)),
    # the address
    "tls_error": Consequence(timedelta(minutes=1), needs_owner=True),
    "unexpected_redirect": Consequence(timedelta(minutes=1), needs_owner=True),
    "blocked_address": Consequence(timedelta(minutes=10), needs_owner=True),
}
"""Codes that say something about the account. All others are about one request or one model."""


class Glance(NamedTuple):
    """All accounts of a user at once: how many need them, and a mark that changes when their standing does."""

    attention: int
    mark: str


NEEDS_OWNER = (Status.INVALID, Status.ATTENTION, Status.LOCKED)


def glance(user: AnyUser) -> Glance:
    """One query, for what every page shows and asks again every few seconds."""
    now = timezone.now()
    columns = ("pk", "label", "provider__is_active", "trouble", "status_reason", "checked_at", "balance")
    accounts = ProviderAccount.objects.for_user(user)
    attention, shown = 0, hashlib.sha256()
    for is_active, status, until, *row in accounts.values_list("is_active", "status", "cooldown_until", *columns):
        attention += is_active and status in NEEDS_OWNER
        rests = until if until and until > now else None  # a rest ends without anybody writing anything
        shown.update(repr((is_active, status, rests, *row)).encode())
    return Glance(attention, shown.hexdigest()[:16])


LIST_SETTLES = frozenset(
    {"", "key_rejected", "bad_header", "timeout", "unreachable", "tls_error", "unexpected_redirect", "blocked_address"}
)
"""Trouble that is over when a list which needs the key was read; "" is a key that nobody could check yet."""


def is_well(account: ProviderAccount) -> bool:
    """Whether a call that goes through says nothing new about this account, as it was read."""
    return account.status == Status.VALID and not account.trouble


def failed(account: ProviderAccount, error: ProviderError) -> bool:
    """Record what `error`, met with this account as it was read, says about it. True if it says something.

    `Retry-After` may lengthen the rest, up to an hour. Calls that fail while the account rests already count as one.
    """
    consequence = CONSEQUENCES.get(error.code)
    if consequence is None:
        return False
    now = timezone.now()
    rows = _same_key(account)
    known = rows.values_list("cooldown_until", "failures").first()
    if known is None:
        return False
    until, failures = known
    is_resting = until is not None and until > now
    if not is_resting:
        failures = min(failures + 1, 1000)
    rest = consequence.rest * 2 ** min(max(failures - 1, 0), 10)
    if error.retry_after is not None:
        rest = max(rest, timedelta(seconds=min(error.retry_after, LONGEST.total_seconds())))
    rest = min(rest, LONGEST)
    ends = [moment for moment in (until if is_resting else None, now + rest if rest else None) if moment]
    rows.update(
        trouble=error.code,
        failures=failures,
        cooldown_until=max(ends, default=None),
        checked_at=now,
        updated_at=now,
    )
    if consequence.needs_owner or failures >= PATIENCE:
        rows.exclude(status__in=[Status.INVALID, Status.LOCKED]).update(
            status=Status.ATTENTION, status_reason=error.public_message[:500]
        )
    return True


def succeeded(account: ProviderAccount, began: datetime) -> None:
    """A call that began then went through: the account is well again, unless something was found out since.

    Costs one statement; call it only if the account was not well.
    """
    _is_well_again(account, began, but_not=[Status.INVALID, Status.LOCKED])


def is_doubtful(account: ProviderAccount) -> bool:
    """Whether a model list that needs the key could clear what is held against this account, as it was read."""
    return not is_well(account) and account.status != Status.LOCKED and account.trouble in LIST_SETTLES


def listed(account: ProviderAccount, began: datetime) -> None:
    """A model list that is refused to a wrong key was read with this one, which is what a probe does: the key is good.

    Says nothing of money, limits, rights or how the provider answers chats: such trouble stays.
    """
    if is_doubtful(account):
        _is_well_again(account, began, but_not=[Status.LOCKED])


def _is_well_again(account: ProviderAccount, began: datetime, *, but_not: list[Status]) -> None:
    now = timezone.now()
    unknown_since = Q(checked_at__isnull=True) | Q(checked_at__lte=began)
    _same_key(account).filter(unknown_since).exclude(status__in=but_not).update(
        status=Status.VALID,
        status_reason="",
        trouble="",
        failures=0,
        cooldown_until=None,
        checked_at=now,
        updated_at=now,
    )


def _same_key(account: ProviderAccount):
    """The account's row, while it holds the key the call was made with: a new key does not answer for the old one."""
    return ProviderAccount.objects.filter(pk=account.pk, api_key_encrypted=account.api_key_encrypted)
