"""Asking a provider whether it accepts an account's key, within ten seconds, whatever the provider does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync
from django.views.decorators.debug import sensitive_variables

from providers import vault
from providers.clients.base import Probe

if TYPE_CHECKING:
    from providers.clients.base import ProviderClient
    from providers.models import ProviderAccount

DEADLINE = 10.0
"""Seconds until a verdict is shown, always."""


@sensitive_variables()
def check(account: ProviderAccount) -> Probe:
    """What the provider says about this account's key. Saves nothing; the account need not be saved.

    A network failure and the deadline are the verdict "unverified". Raises vault.Locked, before any request leaves.
    """
    client = account.client()
    probe = async_to_sync(_within)(client, DEADLINE)
    key = vault.open_key(account)
    # Clients cut the key out of what upstreams say; this is the second line (K5).
    return replace(probe, reason=probe.reason.replace(key, "[key]")) if key and key in probe.reason else probe


async def _within(client: ProviderClient, seconds: float) -> Probe:
    try:
        async with asyncio.timeout(seconds):
            return await client.probe()
    except TimeoutError:
        return Probe(
            verdict="unverified",
            request="",
            reason=f"No answer within {seconds:g} seconds. The key was not checked.",
            code="timeout",
        )
