"""A ciphertext that was moved by SQL, or damaged: "locked", the pages work, no request leaves (K1, F30, I1, I3)."""

from __future__ import annotations

import base64

import pytest
from django.db import connection

from catalog import sync
from catalog.models import SyncRun
from providers import vault
from providers.models import Provider, ProviderAccount

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of

HTMX = {"HX-Request": "true"}


def sql(statement: str, *values) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        assert cursor.rowcount >= 1


def pk(account: ProviderAccount):
    return account.pk.hex if connection.vendor == "sqlite" else account.pk


def to_another_row(victim, alice, bob, router):
    """Alice's own second account gets the ciphertext of the first."""
    other = account_of(alice, router, key=OTHER_GOOD_KEY, label="Thief")
    sql("UPDATE user_api_providers SET api_key_encrypted = %s WHERE id = %s", victim.api_key_encrypted, pk(other))
    return other, "alice"


def to_another_owners_row(victim, alice, bob, router):
    """Bob's account gets Alice's ciphertext."""
    his = account_of(bob, router, key=OTHER_GOOD_KEY, label="Thief")
    sql("UPDATE user_api_providers SET api_key_encrypted = %s WHERE id = %s", victim.api_key_encrypted, pk(his))
    return his, "bob"


def to_another_owner(victim, alice, bob, router):
    """The row itself is given to Bob."""
    sql("UPDATE user_api_providers SET owner_id = %s WHERE id = %s", bob.pk, pk(victim))
    return victim, "bob"


def to_another_origin(victim, alice, bob, router):
    """The account is pointed at another server."""
    sql(
        "UPDATE user_api_providers SET endpoint_override = %s WHERE id = %s", "http://other.internal/api/v1", pk(victim)
    )
    return victim, "alice"


def to_another_origin_by_its_provider(victim, alice, bob, router):
    sql("UPDATE api_providers SET base_url = %s WHERE id = %s", "http://other.internal/api/v1", router.pk)
    return victim, "alice"


def to_no_address_at_all(victim, alice, bob, router):
    sql("UPDATE api_providers SET base_url = %s WHERE id = %s", "not an address", router.pk)
    return victim, "alice"


def damaged(victim, alice, bob, router):
    text = victim.api_key_encrypted
    sql(
        "UPDATE user_api_providers SET api_key_encrypted = %s WHERE id = %s",
        text[:-3] + ("AAA" if text[-3:] != "AAA" else "BBB"),
        pk(victim),
    )
    return victim, "alice"


def replaced_by_nonsense(victim, alice, bob, router):
    sql("UPDATE user_api_providers SET api_key_encrypted = %s WHERE id = %s", "é not base64", pk(victim))
    return victim, "alice"


def headers_damaged(victim, alice, bob, router):
    sql("UPDATE user_api_providers SET extra_headers_encrypted = %s WHERE id = %s", "v1.k1.AAAA.AAAA", pk(victim))
    return victim, "alice"


MOVES = [
    to_another_row,
    to_another_owners_row,
    to_another_owner,
    to_another_origin,
    to_another_origin_by_its_provider,
    to_no_address_at_all,
    damaged,
    replaced_by_nonsense,
    headers_damaged,
]


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_K1_it_is_locked_the_pages_work_and_no_request_leaves(
    move, alice, bob, alice_client, bob_client, router, server
):
    victim = account_of(alice, router, label="Victim")
    victim.mark("valid")
    target, whose = move(victim, alice, bob, router)
    client = {"alice": alice_client, "bob": bob_client}[whose]

    page = client.get("/accounts/").content.decode()
    assert "Locked" in page
    assert "Enter the key again" in page
    assert "Locked" in client.post(f"/accounts/{target.pk}/test/", headers=HTMX).content.decode()
    assert client.get(f"/accounts/{target.pk}/edit/", headers=HTMX).status_code == 200
    assert client.get(f"/accounts/{target.pk}/remove/", headers=HTMX).status_code == 200
    target = ProviderAccount.objects.select_related("provider").get(pk=target.pk)
    run = sync.sync_account(target, trigger="button")
    assert (run.state, run.error_code) == (SyncRun.State.FAILED, "locked")
    with pytest.raises(vault.Locked):
        target.client()

    assert target.status == "locked"
    assert target not in ProviderAccount.objects.usable()
    assert server.requests == []


def test_F30_a_wrong_vault_key_locks_overwrites_nothing_and_the_right_one_unlocks(
    alice, alice_client, router, server, settings
):
    account = account_of(alice, router)
    account.mark("valid")
    right, before = settings.VAULT_KEYS, account.api_key_encrypted
    settings.VAULT_KEYS = "k1:" + base64.b64encode(b"w" * 32).decode()

    assert "Locked" in alice_client.get("/accounts/").content.decode()
    alice_client.post(f"/accounts/{account.pk}/test/", headers=HTMX)
    renamed = {"label": "Renamed while locked", "is_active": "on"}
    assert alice_client.post(f"/accounts/{account.pk}/edit/", renamed, headers=HTMX).status_code == 200
    account.refresh_from_db()
    assert (account.status, account.api_key_encrypted) == ("locked", before)
    assert server.requests == []

    settings.VAULT_KEYS = right
    page = alice_client.get("/accounts/").content.decode()
    assert "The stored key opens again." in page
    account.refresh_from_db()
    assert account.status == "unverified"
    assert account in ProviderAccount.objects.usable()
    assert vault.open_key(account) == GOOD_KEY


def test_K2_an_account_sealed_with_an_older_key_of_the_ring_just_works(alice, alice_client, router, server, settings):
    account = account_of(alice, router)
    settings.VAULT_KEYS = "new:" + base64.b64encode(b"n" * 32).decode() + "," + settings.VAULT_KEYS
    alice_client.post(f"/accounts/{account.pk}/test/", headers=HTMX)
    account.refresh_from_db()
    assert account.status == "valid"
    assert server.sent_keys == [GOOD_KEY]


def test_entering_the_key_again_unlocks(alice, alice_client, router, server):
    account = account_of(alice, router)
    damaged(account, alice, None, router)
    alice_client.get("/accounts/")
    data = {"label": "Work key", "is_active": "on", "api_key": GOOD_KEY}
    assert alice_client.post(f"/accounts/{account.pk}/edit/", data, headers=HTMX).status_code == 200
    account.refresh_from_db()
    assert account.status == "valid"
    assert vault.open_key(account) == GOOD_KEY


def test_S4_a_locked_account_does_not_follow_its_provider_without_the_key(alice, alice_client, router, server):
    account = account_of(alice, router)
    Provider.objects.filter(pk=router.pk).update(base_url="http://other.internal/api/v1")
    data = {"label": "Work key", "is_active": "on", "base_url": "http://other.internal/api/v2"}
    response = alice_client.post(f"/accounts/{account.pk}/edit/", data, headers=HTMX)
    assert response.status_code == 422
    assert "Enter it again" in response.content.decode()
    assert server.requests == []
