"""The admin is no reading glass: nothing secret is shown, editable, or reachable by filter, search or order (A6)."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from providers import vault
from providers.models import Provider, ProviderAccount

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of

pytestmark = pytest.mark.slow

ACCOUNTS = "/admin/providers/provideraccount/"
SECRET = ("api_key_encrypted", "api_key_hash", "api_key_hint", "extra_headers_encrypted")


@pytest.fixture
def viewer(db) -> Client:
    """Staff who may look, and nothing else."""
    user = get_user_model().objects.create_user("vera", "vera@example.org", "vera's password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def account(alice, router) -> ProviderAccount:
    made = account_of(alice, router)
    vault.seal_headers(made, {"X-Secret": "SENTINEL"})
    made.save()
    return made


def secrets_of(account: ProviderAccount) -> list[str]:
    return [GOOD_KEY, *(getattr(account, column) for column in SECRET)]


@pytest.mark.parametrize("who", ["viewer", "sam_client"])
@pytest.mark.parametrize("page", ["", "{pk}/change/", "{pk}/history/", "{pk}/delete/", "?q=Work"])
def test_A6_no_page_shows_a_secret_or_a_hash(request, who, page, account):
    client = request.getfixturevalue(who)
    text = client.get(ACCOUNTS + page.format(pk=account.pk)).content.decode()
    for secret in secrets_of(account):
        assert secret not in text
    if page == "":
        assert "Work key" in text


@pytest.mark.parametrize("column", SECRET)
@pytest.mark.parametrize(
    "base", [ACCOUNTS, "/admin/providers/provider/", "/admin/auth/user/", "/admin/catalog/syncrun/"]
)
def test_A6_no_lookup_in_the_address_reaches_a_secret(viewer, account, column, base):
    path = {
        ACCOUNTS: column,
        "/admin/providers/provider/": f"accounts__{column}",
        "/admin/auth/user/": f"provider_accounts__{column}",
        "/admin/catalog/syncrun/": f"account__{column}",
    }[base]
    for lookup in ("", "__exact", "__startswith", "__regex", "__isnull", "__gt", "__length", "__in"):
        query = [{f"{path}{lookup}": value} for value in (getattr(account, column)[:4], "zzzz")]
        assert [viewer.get(base, part).status_code for part in query] == [400, 400], lookup


@pytest.mark.parametrize(
    "lookup", ["owner__password__startswith", "owner__email__startswith", "id__startswith", "balance__gt"]
)
def test_A6_other_columns_are_not_open_either(viewer, account, lookup):
    assert viewer.get(ACCOUNTS, {lookup: "a"}).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "status__exact=valid",
        "is_active__exact=1",
        "provider__id__exact={provider}",
        "owner__id__exact={owner}",
        "created_at__gte=2020-01-01",
    ],
)
def test_the_useful_filters_work(viewer, account, query):
    account.mark("valid")
    page = viewer.get(f"{ACCOUNTS}?{query.format(provider=account.provider_id, owner=account.owner_id)}")
    assert page.status_code == 200
    assert "Work key" in page.content.decode()


def test_A6_search_does_not_look_into_secrets(viewer, account):
    for secret in secrets_of(account):
        page = viewer.get(ACCOUNTS, {"q": secret}).content.decode()
        assert "Work key" not in page
    assert "Work key" in viewer.get(ACCOUNTS, {"q": "alice"}).content.decode()


def test_A6_the_lists_name_no_secret_column_anywhere():
    for model in (Provider, ProviderAccount):
        page = admin.site.get_model_admin(model)
        for names in (
            page.list_display,
            page.search_fields,
            page.list_filter,
            page.readonly_fields,
            page.lookups,
            page.ordering,
        ):
            assert not [name for name in names or () if any(column in str(name) for column in SECRET)]


def test_A6_staff_cannot_write_what_is_sealed_or_where_a_key_goes(sam_client, account):
    before = {name: getattr(account, name) for name in (*SECRET, "endpoint_override", "label", "owner_id")}
    data = {
        "is_active": "on",
        "priority": "4",
        "label": "Stolen",
        "owner": "1",
        "endpoint_override": "http://other.internal/v1",
        **dict.fromkeys(SECRET, "x"),
    }
    assert sam_client.post(f"{ACCOUNTS}{account.pk}/change/", data).status_code == 302
    account.refresh_from_db()
    assert {name: getattr(account, name) for name in before} == before
    assert account.priority == 4


def test_a_key_cannot_be_entered_by_staff(sam_client):
    assert sam_client.get(f"{ACCOUNTS}add/").status_code == 403


def provider_form(provider: Provider, **changed) -> dict:
    return {
        "name": provider.name,
        "display_name": provider.display_name,
        "provider_type": provider.provider_type,
        "api_standard": provider.api_standard,
        "base_url": provider.base_url,
        "client": provider.client,
        "features": "{}",
        "is_active": "on",
        **changed,
    }


def test_S4_another_origin_locks_the_accounts_there_and_says_so(sam_client, alice, account, router, server):
    account_of(alice, router, key=OTHER_GOOD_KEY, label="Second")
    url = f"/admin/providers/provider/{router.pk}/change/"
    page = sam_client.post(url, provider_form(router, base_url="http://other.internal/api/v1"), follow=True)
    assert "2 accounts of Router can no longer be used" in page.content.decode()
    assert set(ProviderAccount.objects.values_list("status", flat=True)) == {"locked"}
    assert server.requests == []


def test_another_path_of_the_same_origin_locks_nobody(sam_client, account, router):
    url = f"/admin/providers/provider/{router.pk}/change/"
    page = sam_client.post(url, provider_form(router, base_url="http://router.internal/v2/"), follow=True)
    assert "can no longer be used" not in page.content.decode()
    router.refresh_from_db()
    account.refresh_from_db()
    assert router.base_url == "http://router.internal/v2"
    assert account.status != "locked"


def test_S1_staff_cannot_point_a_provider_at_an_inner_address(sam_client, router):
    url = f"/admin/providers/provider/{router.pk}/change/"
    page = sam_client.post(url, provider_form(router, base_url="http://169.254.169.254/v1"))
    assert page.status_code == 200
    assert "private or reserved network" in page.content.decode()
    router.refresh_from_db()
    assert router.base_url == "http://router.internal/api/v1"


def test_the_provider_list_counts_accounts(sam_client, account):
    page = sam_client.get("/admin/providers/provider/?q=Router").content.decode()
    assert 'class="field-account_count">1<' in page
