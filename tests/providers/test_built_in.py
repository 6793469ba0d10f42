"""The providers a fresh installation offers, and that taking the migration back deletes nobody's key."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps

from providers.clients import registry
from providers.models import Provider, ProviderAccount

from .conftest import account_of

migration = import_module("providers.migrations.0002_built_in_providers")


@pytest.fixture(autouse=True)
def built_in(db):
    migration.add(apps, None)


@pytest.mark.parametrize(
    ("name", "base_url", "client", "is_keyless"),
    [
        ("aihubmix", "https://aihubmix.com/v1", "aihubmix", False),
        ("openrouter", "https://openrouter.ai/api/v1", "openrouter", False),
        ("sandbox", "http://sandbox.internal/v1", "openai_compatible", True),
    ],
)
def test_a_fresh_installation_offers(name, base_url, client, is_keyless):
    provider = Provider.objects.get(name=name, owner=None)
    assert (provider.base_url, provider.client, provider.is_keyless) == (base_url, client, is_keyless)
    assert client in dict(registry.choices())
    assert provider.is_active
    if not is_keyless:
        assert provider.keys_url.startswith("https://")
        assert provider.documentation_url.startswith("https://")


def test_adding_twice_changes_nothing_and_keeps_what_staff_wrote():
    Provider.objects.filter(name="openrouter").update(tagline="Ours", is_active=False)
    before = list(Provider.objects.order_by("pk").values())
    migration.add(apps, None)
    assert list(Provider.objects.order_by("pk").values()) == before


def test_taking_it_back_keeps_providers_in_use(alice):
    account_of(alice, Provider.objects.get(name="openrouter"))
    migration.remove(apps, None)
    rows = Provider.objects.filter(owner=None, name__in=[row["name"] for row in migration.BUILT_IN])
    assert list(rows.values_list("name", flat=True)) == ["openrouter"]
    assert ProviderAccount.objects.count() == 1
    migration.add(apps, None)
    assert rows.count() == 3
