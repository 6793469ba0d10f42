"""The first minute: one click on the keyless provider, real HTTP to the trial upstream, models to pick from."""

from __future__ import annotations

import pytest

from catalog.models import AggregatorModel, SyncRun
from providers import vault
from providers.models import Provider, ProviderAccount

from .conftest import add

HTMX = {"HX-Request": "true"}


@pytest.fixture
def trial(db, upstream) -> Provider:
    return Provider.objects.get(base_url=upstream.base_url, owner=None)


def test_one_click_adds_the_provider_that_needs_no_key_and_reads_its_models(
    alice, alice_client, trial, upstream, django_capture_on_commit_callbacks
):
    assert trial.display_name in alice_client.get("/accounts/").content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        response = alice_client.post("/accounts/create/", {"provider": trial.pk}, headers=HTMX)

    assert f"✓ {trial.display_name} answers" in response.content.decode()
    account = ProviderAccount.objects.get(owner=alice)
    run = SyncRun.objects.get(account=account)
    assert (run.state, run.error_message) == ("done", "")
    assert run.total > 0
    assert AggregatorModel.objects.available_to(alice).count() == run.total
    status = alice_client.get(f"/models/syncs/{run.pk}/", headers=HTMX).content.decode()
    assert f"{run.total} models" in status
    row = alice_client.get(f"/accounts/{account.pk}/row/", headers=HTMX).content.decode()
    assert "every 1s" not in row
    assert all(seen.authorization is None for seen in upstream.requests)


def test_a_key_at_a_custom_address_goes_to_that_address_alone(alice, alice_client, upstream):
    data = {"provider": "custom", "base_url": upstream.base_url, "api_key": upstream.key, "label": "Mine"}
    response = add(alice_client, data)
    assert response.status_code == 200, response.content.decode()
    account = ProviderAccount.objects.get(owner=alice)
    assert vault.open_key(account) == upstream.key
    assert f"Bearer {upstream.key}" in {seen.authorization for seen in upstream.requests}
    assert account.provider.owner == alice
