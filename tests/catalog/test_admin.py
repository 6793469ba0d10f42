"""The catalog in the admin: every list opens, is searched and filtered; what a sync writes staff cannot."""

from __future__ import annotations

import pytest
from django.urls import reverse

from catalog import search, sync
from catalog.models import AggregatorModel, ModelAlias
from tests.catalog.conftest import listing, model

# Left to `make test`: a table this long costs more than the fast part may take.
pytestmark = pytest.mark.slow

MODELS = ("aggregatormodel", "modelalias", "syncrun", "modelchange", "accountmodel", "catalogversion")


@pytest.fixture
def catalog(account, upstream, alice):
    upstream(listing(model("m", display_name="<b>Em</b>"), model("n")))
    sync.sync_account(account)
    upstream(listing(model("m", "5", "6", display_name="<b>Em</b>")))
    sync.sync_account(account)
    ModelAlias.objects.create(alias="fast", owner=alice, targets=["m"])


@pytest.mark.parametrize("name", MODELS)
def test_lists_open_with_few_queries_and_can_be_searched(name, catalog, sam_client, django_assert_max_num_queries):
    url = reverse(f"admin:catalog_{name}_changelist")
    with django_assert_max_num_queries(15):
        html = sam_client.get(url).content.decode()
    assert "<b>Em</b>" not in html
    assert sam_client.get(url, {"q": "m"}).status_code == 200
    assert sam_client.get(url, {"q": "'%\\ <script>"}).status_code == 200


@pytest.mark.parametrize("name", [m for m in MODELS if m != "modelalias"])
def test_what_a_sync_writes_can_be_seen_and_not_added_or_deleted(name, catalog, sam_client):
    from django.apps import apps

    row = apps.get_model("catalog", name).objects.first()
    assert sam_client.get(reverse(f"admin:catalog_{name}_change", args=[row.pk])).status_code == 200
    assert sam_client.get(reverse(f"admin:catalog_{name}_add")).status_code == 403
    assert sam_client.post(reverse(f"admin:catalog_{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


def test_staff_feature_a_model_and_change_nothing_else(catalog, sam_client, alice):
    m = AggregatorModel.objects.get(model_id="m")
    search.search(alice, "")
    url = reverse("admin:catalog_aggregatormodel_change", args=[m.pk])
    sam_client.post(url, {"is_featured": "on", "price_input": "0", "display_name": "Hacked", "model_id": "x"})
    m.refresh_from_db()
    assert (m.is_featured, m.price_input, m.display_name, m.model_id) == (True, 5, "<b>Em</b>", "m")
    assert search.search(alice, "").rows[0].model.is_featured, "the list in memory is made anew"


def test_users_who_are_no_staff_see_none_of_it(catalog, bob_client):
    for name in MODELS:
        assert bob_client.get(reverse(f"admin:catalog_{name}_changelist")).status_code == 302


@pytest.mark.parametrize(
    ("name", "lookup"),
    [
        ("accountmodel", "account__api_key_hash__startswith"),
        ("accountmodel", "account__api_key_encrypted__contains"),
        ("syncrun", "account__api_key_hash__startswith"),
        ("syncrun", "account__owner__password__startswith"),
        ("modelchange", "model__offers__account__api_key_hash__startswith"),
        ("aggregatormodel", "offers__account__api_key_hash__startswith"),
        ("modelalias", "owner__password__startswith"),
    ],
)
def test_no_secret_is_reached_by_a_lookup_in_the_address(name, lookup, catalog, sam_client):  # A6
    url = reverse(f"admin:catalog_{name}_changelist")
    assert sam_client.get(url, {lookup: "a"}).status_code in (302, 400)


@pytest.mark.parametrize(
    ("name", "lookups"),
    [
        ("aggregatormodel", {"model_type__exact": "chat", "price_kind__exact": "known", "is_available__exact": "1"}),
        ("aggregatormodel", {"is_featured__exact": "0", "provider__id__exact": "1"}),
        ("modelalias", {"owner__isempty": "0"}),
        ("syncrun", {"state__exact": "done", "trigger": "button", "error_code": ""}),
        ("syncrun", {"account__provider__id__exact": "1", "queued_at__year": "2026", "queued_at__month": "1"}),
        ("modelchange", {"kind__exact": "gone", "model__provider__id__exact": "1", "at__year": "2026"}),
        ("accountmodel", {"account__provider__id__exact": "1"}),
    ],
)
def test_the_filters_on_offer_work(name, lookups, catalog, sam_client):
    assert sam_client.get(reverse(f"admin:catalog_{name}_changelist"), lookups).status_code == 200
