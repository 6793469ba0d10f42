"""Living with accounts: the list, test now, sync now, edit, remove. Alice's rows do not exist for Bob (A1, I2)."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from catalog.models import AccountModel, AggregatorModel, SyncRun
from providers import vault
from providers.models import Provider, ProviderAccount

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of

pytestmark = pytest.mark.slow

HTMX = {"HX-Request": "true"}
LIST = "/accounts/"


def edit(client, account, **fields):
    """What the dialog would send: every box as it is drawn, with `fields` typed over."""
    private = account.provider.owner_id is not None
    data = {
        "label": account.label,
        "base_url": account.base_url if private else account.endpoint_override,
        "api_key": "",
        "extra_headers": "",
        "priority": account.priority,
        "is_active": "on" if account.is_active else "",
        **fields,
    }
    data = {name: value for name, value in data.items() if value != "" or name != "is_active"}
    return client.post(f"{LIST}{account.pk}/edit/", data, headers=HTMX)


@pytest.fixture
def account(alice, router) -> ProviderAccount:
    return account_of(alice, router)


@pytest.fixture
def custom(alice, server) -> ProviderAccount:
    """An account at Alice's own endpoint, with a header that may be a secret."""
    provider = Provider.objects.create(
        owner=alice, name="keys", display_name="My box", base_url="http://keys.internal/v1", provider_type="direct"
    )
    made = account_of(alice, provider)
    vault.seal_headers(made, {"X-Secret": "SENTINEL-header"})
    made.save()
    return made


# -- The list --------------------------------------------------------------------------------------------------------


def test_the_list_shows_label_provider_hint_status_and_models(alice, alice_client, account, router):
    account.mark("valid", "The provider accepted the key.")
    model = AggregatorModel.objects.create(provider=router, model_id="alpha", display_name="Alpha")
    AccountModel.objects.create(account=account, model=model)
    SyncRun.objects.create(account=account, state="done", total=1, added=1)

    page = alice_client.get(LIST).content.decode()

    for words in ("Work key", "Router", "•••• 3f9a", "Valid", "The provider accepted the key.", "1 new"):
        assert words in page
    assert GOOD_KEY not in page
    assert account.api_key_hash not in page
    assert account.api_key_encrypted not in page


def test_private_pages_are_not_kept_by_caches(alice_client, account):
    assert "no-store" in alice_client.get(LIST).headers["Cache-Control"]


def test_the_list_costs_the_same_number_of_queries_for_one_and_for_fifty(alice, alice_client, router):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert alice_client.get(LIST).status_code == 200
        return len(captured)

    SyncRun.objects.create(account=account_of(alice, router, key="sk-0-0123456789"), state="done")
    one = queries()
    for n in range(1, 50):
        made = account_of(alice, router, key=f"sk-{n}-0123456789")
        SyncRun.objects.create(account=made, state="done")
    assert queries() == one
    assert one <= 12


def test_A1_nobody_sees_anothers_accounts(bob_client, account):
    page = bob_client.get(LIST).content.decode()
    assert "Work key" not in page
    assert "3f9a" not in page


@pytest.mark.parametrize("action", ["row", "test", "sync", "edit", "remove"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_A1_a_foreign_account_answers_like_a_missing_one(bob_client, sam_client, account, server, action, method):
    foreign, missing = f"{LIST}{account.pk}/{action}/", f"{LIST}00000000-0000-4000-8000-000000000000/{action}/"
    data = {"label": "stolen", "api_key": OTHER_GOOD_KEY}
    for client in (bob_client, sam_client):  # staff are strangers here too
        answers = [getattr(client, method)(url, data, headers=HTMX) for url in (foreign, missing)]
        assert {answer.status_code for answer in answers} <= {404, 405}
        assert answers[0].status_code == answers[1].status_code
    account.refresh_from_db()
    assert account.label == "Work key"
    assert server.requests == []


def test_changes_are_never_made_by_a_get(alice_client, account, server):
    for action in ("test", "sync"):
        assert alice_client.get(f"{LIST}{account.pk}/{action}/").status_code == 405
    assert alice_client.get(f"{LIST}{account.pk}/remove/").status_code == 200
    assert ProviderAccount.objects.filter(pk=account.pk).exists()
    assert server.requests == []


# -- Test and sync ---------------------------------------------------------------------------------------------------


def test_testing_a_good_key_makes_it_valid_and_shows_the_row(alice_client, account, server):
    response = alice_client.post(f"{LIST}{account.pk}/test/", headers=HTMX)
    assert f'id="account-{account.pk}"' in response.content.decode()
    account.refresh_from_db()
    assert account.status == "valid"
    assert account.checked_at is not None
    assert server.sent_keys == [GOOD_KEY]


def test_testing_a_revoked_key_says_so_and_routes_avoid_it(alice_client, account, server):
    server.keys.clear()
    page = alice_client.post(f"{LIST}{account.pk}/test/", headers=HTMX).content.decode()
    assert "Key rejected" in page
    assert account not in ProviderAccount.objects.usable()


def test_a_proved_key_is_not_called_unverified_because_the_provider_is_down(alice_client, account, server):
    account.mark("valid")
    server.answer = lambda heard: (503, {})
    alice_client.post(f"{LIST}{account.pk}/test/", headers=HTMX)
    account.refresh_from_db()
    assert account.status == "attention"
    assert account in ProviderAccount.objects.usable()


def test_sync_queues_one_run_and_the_row_asks_for_itself_until_it_is_over(alice_client, account):
    page = alice_client.post(f"{LIST}{account.pk}/sync/", headers=HTMX).content.decode()
    alice_client.post(f"{LIST}{account.pk}/sync/", headers=HTMX)
    run = SyncRun.objects.get(account=account)
    assert 'hx-trigger="every 1s"' in page
    assert "Waiting…" in page

    SyncRun.objects.filter(pk=run.pk).update(state="done")
    assert "every 1s" not in alice_client.get(f"{LIST}{account.pk}/row/", headers=HTMX).content.decode()


# -- Edit ------------------------------------------------------------------------------------------------------------


def test_renaming_pausing_and_reordering_ask_nobody(alice_client, account, server):
    response = edit(alice_client, account, label="Night key", priority="5", is_active="")
    assert response.status_code == 200
    assert response.headers["HX-Trigger-After-Swap"] == "dialog-close"
    account.refresh_from_db()
    assert (account.label, account.priority, account.is_active) == ("Night key", 5, False)
    assert vault.open_key(account) == GOOD_KEY
    assert server.requests == []
    assert account not in ProviderAccount.objects.usable()


def test_the_edit_form_never_holds_the_key_or_header_values(alice_client, custom):
    page = alice_client.get(f"{LIST}{custom.pk}/edit/", headers=HTMX).content.decode()
    assert "•••• 3f9a" in page
    assert "X-Secret" in page
    assert "SENTINEL" not in page
    assert GOOD_KEY not in page


def test_a_new_key_is_checked_before_it_replaces_the_old_one(alice_client, account, server):
    response = edit(alice_client, account, api_key="sk-SENTINEL-not-accepted")
    assert response.status_code == 422
    page = response.content.decode()
    assert "Router rejected this key" in page
    assert "SENTINEL" not in page
    account.refresh_from_db()
    assert vault.open_key(account) == GOOD_KEY

    assert edit(alice_client, account, api_key=OTHER_GOOD_KEY).status_code == 200
    account.refresh_from_db()
    assert vault.open_key(account) == OTHER_GOOD_KEY
    assert (account.status, account.api_key_hint) == ("valid", "77b1")
    assert account.api_key_hash == vault.key_hash(account.owner_id, account.provider_id, OTHER_GOOD_KEY)
    assert SyncRun.objects.filter(account=account).count() == 1


def test_replacing_a_key_by_one_already_stored_is_refused(alice, alice_client, account, router, server):
    other = account_of(alice, router, key=OTHER_GOOD_KEY)
    response = edit(alice_client, other, api_key=GOOD_KEY)
    assert response.status_code == 422
    assert "already added this key" in response.content.decode()
    assert server.requests == []


def test_re_entering_the_same_key_is_no_duplicate(alice_client, account):
    assert edit(alice_client, account, api_key=GOOD_KEY).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "http://other.internal/v1",
        "http://keys.internal:81/v1",
        "https://keys.internal/v1",
    ],
)
def test_S4_another_scheme_host_or_port_needs_the_key_again(alice_client, custom, server, address):
    response = edit(alice_client, custom, base_url=address)
    assert response.status_code == 422
    assert "Enter it again to use it at this one" in response.content.decode()
    assert server.requests == []
    before = custom.api_key_encrypted
    custom.refresh_from_db()
    assert (custom.endpoint_override, custom.api_key_encrypted) == ("", before)


def test_S4_moving_with_the_key_drops_the_headers_of_the_old_server(alice_client, custom, server):
    assert edit(alice_client, custom, base_url="http://other.internal/v1", api_key=GOOD_KEY).status_code == 200
    custom.refresh_from_db()
    assert custom.origin == "http://other.internal:80"
    assert vault.open_key(custom) == GOOD_KEY
    assert vault.open_headers(custom) == {}
    assert all("x-secret" not in heard.headers for heard in server.requests)


def test_another_path_of_the_same_server_keeps_key_and_headers(alice_client, custom, server):
    assert edit(alice_client, custom, base_url="http://keys.internal/other/v1").status_code == 200
    custom.refresh_from_db()
    assert custom.endpoint_override == "http://keys.internal/other/v1"
    assert vault.open_key(custom) == GOOD_KEY
    assert vault.open_headers(custom) == {"X-Secret": "SENTINEL-header"}
    assert all(heard.path.startswith("/other/v1/") for heard in server.requests)
    assert server.requests


def test_S4_an_override_of_a_built_in_provider_needs_the_key_too(alice_client, account, server):
    assert edit(alice_client, account, base_url="http://other.internal/api/v1").status_code == 422
    assert server.requests == []
    assert edit(alice_client, account, base_url="http://other.internal/api/v1", api_key=GOOD_KEY).status_code == 200
    account.refresh_from_db()
    assert account.base_url == "http://other.internal/api/v1"


def test_S4_a_key_over_plain_http_is_refused_here_too(alice_client, account, server, settings):
    settings.ALLOW_UNSEALED_KEYS = False
    response = alice_client.post(
        f"{LIST}{account.pk}/edit/",
        {"label": "x", "api_key": OTHER_GOOD_KEY},
        headers=HTMX,
        REMOTE_ADDR="192.168.1.9",
    )
    assert response.status_code == 422
    assert "not encrypted by the browser" in response.content.decode()
    assert server.requests == []


def test_headers_are_replaced_whole_or_removed(alice_client, custom):
    assert edit(alice_client, custom, extra_headers="X-New: 1").status_code == 200
    custom.refresh_from_db()
    assert vault.open_headers(custom) == {"X-New": "1"}
    assert edit(alice_client, custom, forget_headers="on").status_code == 200
    custom.refresh_from_db()
    assert vault.open_headers(custom) == {}


def test_S1_an_inner_address_is_refused_when_editing(alice_client, custom, server):
    response = edit(alice_client, custom, base_url="http://169.254.169.254/v1", api_key=GOOD_KEY)
    assert response.status_code == 422
    assert "private or reserved network" in response.content.decode()
    assert server.requests == []


# -- Remove ----------------------------------------------------------------------------------------------------------


def test_removing_asks_first_and_says_what_it_affects(alice, alice_client, account, router):
    models = [
        AggregatorModel.objects.create(provider=router, model_id=name, display_name=name) for name in ("a", "b", "c")
    ]
    for model in models:
        AccountModel.objects.create(account=account, model=model)
    other = account_of(alice, router, key=OTHER_GOOD_KEY, label="Other")
    AccountModel.objects.create(account=other, model=models[0])

    page = alice_client.get(f"{LIST}{account.pk}/remove/", headers=HTMX).content.decode()

    assert "Remove Work key?" in page
    assert "2 models can no longer be picked: no other account of yours offers them." in page


def test_removing_deletes_the_key_and_keeps_the_catalog(alice_client, account, router):
    model = AggregatorModel.objects.create(provider=router, model_id="a", display_name="a")
    AccountModel.objects.create(account=account, model=model)
    response = alice_client.post(f"{LIST}{account.pk}/remove/", headers=HTMX)
    assert response.status_code == 200
    assert "Work key was removed" in response.content.decode()
    assert not ProviderAccount.objects.exists()
    assert AggregatorModel.objects.filter(pk=model.pk).exists()
    assert Provider.objects.filter(pk=router.pk).exists()
