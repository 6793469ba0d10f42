"""The check that costs something: one token of the cheapest model, where no free call shows whether a key is good.

Only after its user has seen the price and agreed. It is metered like every other call, under the door "probe".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync

from catalog.models import AggregatorModel
from providers.checking import DEADLINE
from providers.clients.base import Probe, ProviderClient, Usage
from providers.clients.errors import ProviderError, ProviderUnreachable
from usage import ledger, pricing
from usage.models import Door

if TYPE_CHECKING:
    from providers.models import ProviderAccount

QUESTION = "Hi"
_ABOUT = Usage(prompt_tokens=10, completion_tokens=1, total_tokens=11)
"""What such a call uses, with the words a provider puts round the question."""

_VERDICTS = {"key_rejected": "invalid", "no_balance": "valid"}


@dataclass(frozen=True, slots=True)
class Offer:
    """What a proof would ask, and about what it would cost in USD."""

    model: AggregatorModel
    cost: Decimal


def offer(account: ProviderAccount) -> Offer | None:
    """The cheapest chat model with a price that this account lists; None if there is none.

    A free one would prove nothing: some providers let everybody ask those.
    """
    models = (
        AggregatorModel.objects.for_user(account.owner)
        .filter(offers__account=account, is_available=True, missing_since=None)
        .filter(model_type__in=["chat", "unknown"], price_kind=AggregatorModel.PriceKind.KNOWN)
        .filter(price_input__gt=0, price_output__gt=0)
        .order_by("price_output", "price_input", "pk")
    )
    for model in models[:20]:
        cost = pricing.cost_by_snapshot(_ABOUT, pricing.snapshot(model)).amount
        if cost:
            return Offer(model, cost)
    return None


def ask(account: ProviderAccount, model: AggregatorModel) -> Probe:
    """Have `model` answer with one token, and say what that shows of the key. Raises vault.Locked; saves no verdict."""
    attempt = ledger.Attempt.begin(
        user_id=account.owner_id, account=account, model=model, door=Door.PROBE, prompt_chars=len(QUESTION)
    )
    request = f"one token of {model.display_name}"
    try:
        error = async_to_sync(_call)(account.client(), model.model_id, attempt)
    except ledger.LedgerError:
        return Probe("unverified", "", "The call could not be recorded, so it was not made. Try again in a moment.")
    if error is None:
        return Probe("valid", request, "The provider accepted the key and answered.")
    verdict: Any = _VERDICTS.get(error.code, "unverified")
    return Probe(verdict, request, error.public_message, code=error.code)


async def _call(client: ProviderClient, model_id: str, attempt: ledger.Attempt) -> ProviderError | None:
    await ledger.aopen(attempt)
    error: ProviderError | None = None
    try:
        body = {"model": model_id, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
        async with asyncio.timeout(DEADLINE):
            attempt.read((await client.complete(body)).delta)
    except TimeoutError:
        error = ProviderUnreachable("timeout")
    except ProviderError as refusal:
        error = refusal
    status = "success" if error is None else "timeout" if error.code == "timeout" else "error"
    await ledger.asettle(attempt, status, error)
    return error
