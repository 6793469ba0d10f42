"""Moving everything that is sealed to the newest vault key, while Switchboard runs, and counting who needs which key.

A rotation is a walk over all accounts in batches. What is sealed with the newest key already is passed by, so one that
was killed goes on where it stopped, and a second run does nothing. Each row is written by compare-and-swap
(vault.rotate), so it meets writers without locks: whoever enters a key meanwhile wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import transaction

from config.crash import crash_at
from providers import vault
from providers.models import ProviderAccount

BATCH = 100
"""Accounts per transaction: some 10 ms in which SQLite lets nobody else write."""


@dataclass
class Rotation:
    """What a rotation did so far, in accounts."""

    seen: int = 0
    rotated: int = 0
    locked: int = 0


def rotate(batch: int = BATCH) -> Iterator[Rotation]:
    """Rotate all accounts; yields the figures so far after each batch, whose work is then durable."""
    so_far = Rotation()
    for accounts in _batches(batch):
        with transaction.atomic():
            for account in accounts:
                so_far.seen += 1
                try:
                    so_far.rotated += vault.rotate(account)
                except vault.Locked:
                    so_far.locked += 1
                crash_at("vault.in_batch")
        crash_at("vault.after_batch")
        yield so_far


@dataclass
class Census:
    """Sealed texts by the id of their vault key (keys and headers count apart), and accounts that do not open."""

    accounts: int = 0
    by_key: Counter[str] = field(default_factory=Counter)
    locked: list[str] = field(default_factory=list)
    """Ids of accounts that do not open."""


def census(batch: int = BATCH) -> Census:
    """Open everything that is sealed, change nothing."""
    found = Census()
    for accounts in _batches(batch):
        for account in accounts:
            found.accounts += 1
            for text in (account.api_key_encrypted, account.extra_headers_encrypted):
                if text:
                    found.by_key[vault.key_id_of(text)] += 1
            if not vault.opens(account):
                found.locked.append(str(account.pk))
    return found


def _batches(size: int) -> Iterator[list[ProviderAccount]]:
    """All accounts, in the order of their keys. Rows that arrive meanwhile are sealed with the newest key anyway."""
    accounts = ProviderAccount.objects.select_related("provider").order_by("pk")
    rows = list(accounts[:size])
    while rows:
        yield rows
        rows = list(accounts.filter(pk__gt=rows[-1].pk)[:size])
