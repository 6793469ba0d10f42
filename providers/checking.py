"""Asking a provider whether it accepts an account's key, within ten seconds, whatever the provider does.

A form shows what was found before it stores anything, and keeps nothing on the server meanwhile: the answer travels
through the page in a sealed note (`note_of`), which counts only beside the very key, headers and address it is about.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from dataclasses import asdict, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync
from django.views.decorators.debug import sensitive_variables

from providers import vault
from providers.clients.base import Probe
from providers.clients.errors import ProviderError

if TYPE_CHECKING:
    from providers.clients.base import ProviderClient
    from providers.models import ProviderAccount

DEADLINE = 10.0
"""Seconds until a verdict is shown, always."""

NOTE_LIFE = 600
"""Seconds for which a verdict that was shown may be saved without asking again."""

_NOBODY_THERE = frozenset({"unreachable", "timeout", "blocked_address", "tls_error", "unexpected_redirect"})


@sensitive_variables()
def check(account: ProviderAccount) -> Probe:
    """What the provider says about this account's key. Saves nothing; the account need not be saved.

    A network failure and the deadline are the verdict "unverified". Raises vault.Locked, before any request leaves.
    """
    return _without_key(account, async_to_sync(_within)(account.client(), DEADLINE))


@sensitive_variables()
def survey(account: ProviderAccount) -> Probe:
    """The same, and which models the key lists, if that can be said within the same time."""
    return _without_key(account, async_to_sync(_within)(account.client(), DEADLINE, with_models=True))


async def _within(client: ProviderClient, seconds: float, *, with_models: bool = False) -> Probe:
    found: Probe | None = None
    try:
        async with asyncio.timeout(seconds):
            found = await client.probe()
            if with_models and found.models is None and found.verdict != "invalid" and found.code not in _NOBODY_THERE:
                found = found.with_models((await client.list_models()).models)
    except TimeoutError:
        if found is None:
            reason = f"No answer within {seconds:g} seconds. The key was not checked."
            return Probe(verdict="unverified", request="", reason=reason, code="timeout")
    except ProviderError:  # of the list; a probe turns its own into a verdict
        if found is None:
            raise
    return found


def _without_key(account: ProviderAccount, probe: Probe) -> Probe:
    """Clients cut the key out of what upstreams say; this is the second line (K5)."""
    key = vault.open_key(account)
    if not key:
        return probe
    examples = tuple(name.replace(key, "[key]") for name in probe.examples)
    return replace(probe, reason=probe.reason.replace(key, "[key]"), examples=examples)


# -- What was found, on its way through the page ---------------------------------------------------------------------


def note_of(account: ProviderAccount, probe: Probe) -> str:
    """`probe` as text that `read_note` takes for this account alone, for ten minutes. Holds no secret."""
    said = {**asdict(probe), "at": int(time.time())}
    text = base64.urlsafe_b64encode(json.dumps(said, default=str).encode()).decode()
    return f"{text}.{_mark(account, text)}"


def read_note(account: ProviderAccount, note: str) -> Probe | None:
    """The probe in `note`; None if that is none of ours, too old, or about another key, address or set of headers."""
    text, _, mark = note.partition(".")
    if not hmac.compare_digest(mark.encode(), _mark(account, text).encode()):
        return None
    said = json.loads(base64.urlsafe_b64decode(text))
    if time.time() - said.pop("at") > NOTE_LIFE:
        return None
    amounts = {name: None if said[name] is None else Decimal(said[name]) for name in ("balance", "limit")}
    return Probe(**{**said, **amounts, "examples": tuple(said["examples"])})


def _mark(account: ProviderAccount, text: str) -> str:
    return vault.mark_of(account, account.provider.client, account.base_url, text)
