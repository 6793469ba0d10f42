"""A provider, Alice's account there, and an upstream that lists whatever a test tells it to."""

from __future__ import annotations

from decimal import Decimal

import pytest

from providers.clients.base import ModelInfo, ModelList, Prices
from providers.models import Provider, ProviderAccount


class FakeClient:
    """Stands in for a dialect: answers with a prepared list, or raises. `etags` records what it was asked with."""

    def __init__(self, answer):
        self.answer, self.etags = answer, []

    async def list_models(self, *, etag=""):
        self.etags.append(etag)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(etag) if callable(self.answer) else self.answer


def model(model_id, input_price="1", output_price="2", **fields):
    """A ModelInfo as a client would read it; prices in USD per 1M tokens, None for unknown."""
    prices = Prices(
        input=None if input_price is None else Decimal(input_price),
        output=None if output_price is None else Decimal(output_price),
    )
    return ModelInfo(
        **{"model_id": model_id, "display_name": model_id.title(), "model_type": "chat", "prices": prices, **fields}
    )


def listing(*models, **fields):
    return ModelList(models=tuple(models), **fields)


@pytest.fixture
def provider(db):
    return Provider.objects.create(
        name="lister", display_name="Lister", base_url="http://lister.test/v1", features={"keyless": True}
    )


@pytest.fixture
def account(provider, alice):
    return ProviderAccount.objects.create(owner=alice, provider=provider, label="Alice's key")


@pytest.fixture
def bobs_account(provider, bob):
    return ProviderAccount.objects.create(owner=bob, provider=provider, label="Bob's key")


@pytest.fixture
def upstream(monkeypatch):
    """upstream(answer, account=None): what the provider lists from now on; returns the FakeClient."""
    per_account = {}

    def client(self):
        return per_account.get(self.pk) or per_account[None]

    monkeypatch.setattr(ProviderAccount, "client", client)

    def answers(answer, account=None):
        fake = FakeClient(answer)
        per_account[account.pk if account else None] = fake
        return fake

    return answers
