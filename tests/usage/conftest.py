"""An account and a model of Alice's, and attempts on them."""

from decimal import Decimal

import pytest

from catalog.models import AccountModel, AggregatorModel
from providers.models import Provider, ProviderAccount
from usage.ledger import Attempt


def make_route(owner, *, label="Lab", provider_name="Testhub", **columns):
    provider, _ = Provider.objects.get_or_create(
        name=provider_name.lower(),
        owner=owner,
        defaults={"display_name": provider_name, "base_url": "https://x.example/v1"},
    )
    account = ProviderAccount.objects.create(owner=owner, provider=provider, label=label)
    defaults = {
        "model_id": "maker/model-1",
        "display_name": "Model One",
        "model_type": "chat",
        "price_kind": "known",
        "price_input": Decimal("0.27"),
        "price_output": Decimal("0.40"),
    }
    model = AggregatorModel.objects.create(provider=provider, **{**defaults, **columns})
    AccountModel.objects.create(account=account, model=model)
    return account, model


@pytest.fixture
def route(alice):
    """(account, model): $0.27 in, $0.40 out per 1M tokens."""
    return make_route(alice)


@pytest.fixture
def begin(alice, route):
    """Start an attempt of Alice's on her route."""

    def start(**kwargs):
        account, model = route
        return Attempt.begin(**{"user_id": alice.pk, "account": account, "model": model, "door": "chat", **kwargs})

    return start
