"""Keys are sealed in the browser (K3): to our public key, for one user and one form, once, for two minutes."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.utils import timezone

from providers import sealing, vault
from providers.models import Provider, ProviderAccount, SealingTicket

from .browser_side import ADD, ask, seal, seal_document
from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of, note_in

pytestmark = pytest.mark.slow

HTMX = {"HX-Request": "true"}
CREATE = "/accounts/create/"
K1 = "k1:" + base64.b64encode(b"1" * 32).decode()
K2 = "k2:" + base64.b64encode(b"2" * 32).decode()


@pytest.fixture(autouse=True)
def _strict(settings, _keys_may_come_as_typed):
    settings.ALLOW_UNSEALED_KEYS = False


def send(client, provider, sealed, url=CREATE, **fields):
    data = {"provider": getattr(provider, "pk", provider), "label": "Work key", "sealed": sealed, **fields}
    return client.post(url, data, headers=HTMX)


def save(client, router, response, **typed):
    """The second step: what was typed is sealed again, to another ticket."""
    return send(client, router, seal(ask(client), **typed), checked=note_in(response))


def refused(response, sentence, server):
    assert response.status_code == 422
    page = response.content.decode()
    assert sentence in page
    assert "sk-" not in page
    assert not ProviderAccount.objects.exists()
    assert server.requests == [], "no provider heard of it"


# -- Accepted --------------------------------------------------------------------------------------------------------


def test_a_sealed_key_and_sealed_headers_are_checked_and_stored(alice_client, router, server):
    typed = {"api_key": f" {GOOD_KEY}\n", "extra_headers": "X-Team: blue", "provider": str(router.pk)}
    first = seal(ask(alice_client), **typed)
    response = send(alice_client, router, first)
    assert response.status_code == 200, response.content.decode()
    assert not ProviderAccount.objects.exists(), "checked, and shown"
    assert not SealingTicket.objects.exists(), "the ticket is used up"
    replayed = send(alice_client, router, first, checked=note_in(response))
    assert "was sent once already" in replayed.content.decode(), "saving takes another seal"

    response = save(alice_client, router, response, **typed)
    assert response.status_code == 200, response.content.decode()
    account = ProviderAccount.objects.get()
    assert vault.open_key(account) == GOOD_KEY
    assert vault.open_headers(account) == {"X-Team": "blue"}
    assert server.sent_keys == [GOOD_KEY, GOOD_KEY], "the check and its list"
    assert not SealingTicket.objects.exists()


def test_a_sealed_key_replaces_the_stored_one(alice, alice_client, router, server):
    account = account_of(alice, router)
    sealed = seal(ask(alice_client, f"edit-account {account.pk}"), api_key=OTHER_GOOD_KEY)
    url = f"/accounts/{account.pk}/edit/"
    response = send(alice_client, router, sealed, url, is_active="on")
    assert response.status_code == 200, response.content.decode()
    account.refresh_from_db()
    assert vault.open_key(account) == OTHER_GOOD_KEY


def test_where_the_key_goes_is_sealed_with_it(alice_client, router, server):
    """A proxy on the way that swaps the provider or the address sends the key nowhere else."""
    typed = {"api_key": GOOD_KEY, "provider": "custom", "base_url": "http://keys.internal/v1"}
    forged = {"base_url": "http://other.internal/v1"}
    response = send(alice_client, router, seal(ask(alice_client), **typed), **forged)
    forged |= {"checked": note_in(response), "accept_unverified": "on"}
    response = send(alice_client, router, seal(ask(alice_client), **typed), **forged)
    assert response.status_code == 200, response.content.decode()
    assert ProviderAccount.objects.get().base_url == "http://keys.internal/v1"
    assert {heard.headers["host"] for heard in server.requests} == {"keys.internal"}


def test_it_does_not_matter_over_which_connection_a_sealed_key_comes(alice_client, router, settings):
    settings.ALLOWED_HOSTS = ["*"]
    sealed = seal(ask(alice_client), api_key=GOOD_KEY)
    response = alice_client.post(
        CREATE, {"provider": router.pk, "sealed": sealed}, headers=HTMX, REMOTE_ADDR="192.168.1.20"
    )
    assert response.status_code == 200


def test_a_form_that_was_offered_before_the_vault_key_changed_still_opens(alice_client, router, settings):
    settings.VAULT_KEYS = K1
    offer = ask(alice_client)
    settings.VAULT_KEYS = f"{K2},{K1}"
    assert ask(alice_client)["key_id"] != offer["key_id"], "new forms get the newest key"
    assert send(alice_client, router, seal(offer, api_key=GOOD_KEY)).status_code == 200


# -- Refused ---------------------------------------------------------------------------------------------------------


def test_a_key_that_comes_as_typed_is_refused(alice_client, router, server):
    refused(send(alice_client, router, "", api_key=GOOD_KEY), "not encrypted by the browser", server)


def test_headers_that_come_as_typed_are_refused_beside_a_sealed_key(alice_client, router, server):
    sealed = seal(ask(alice_client), api_key=GOOD_KEY)
    refused(send(alice_client, router, sealed, extra_headers="X-A: b"), "not encrypted by the browser", server)


def test_a_key_that_comes_as_typed_does_not_replace_the_stored_one(alice, alice_client, router, server):
    account = account_of(alice, router)
    response = send(alice_client, router, "", f"/accounts/{account.pk}/edit/", api_key=OTHER_GOOD_KEY, is_active="on")
    assert response.status_code == 422
    assert "not encrypted by the browser" in response.content.decode()
    account.refresh_from_db()
    assert vault.open_key(account) == GOOD_KEY
    assert server.requests == []


def test_a_form_without_scripts_and_its_plain_key_is_answered_with_the_reason(alice_client, router, server):
    response = alice_client.post(CREATE, {"provider": router.pk, "api_key": GOOD_KEY}, follow=True)
    assert "not encrypted by the browser" in response.content.decode()
    assert not ProviderAccount.objects.exists()
    assert server.requests == []


def test_the_operator_may_allow_keys_as_typed(alice_client, router, server, settings):
    settings.ALLOW_UNSEALED_KEYS = True
    data = {"provider": router.pk, "api_key": GOOD_KEY}
    response = alice_client.post(CREATE, data, headers=HTMX, REMOTE_ADDR="192.168.1.20")
    assert response.status_code == 200
    data["checked"] = note_in(response)
    assert alice_client.post(CREATE, data, headers=HTMX, REMOTE_ADDR="192.168.1.20").status_code == 200
    assert vault.open_key(ProviderAccount.objects.get()) == GOOD_KEY


def test_a_replay_is_refused(alice_client, router, server):
    sealed = seal(ask(alice_client), api_key=GOOD_KEY)
    assert send(alice_client, router, sealed).status_code == 200
    ProviderAccount.objects.all().delete()
    server.requests.clear()
    refused(send(alice_client, router, sealed), "was sent once already", server)


def test_a_ticket_carries_one_form_only(alice_client, router, server):
    offer = ask(alice_client)
    assert send(alice_client, router, seal(offer, api_key="sk-wrong-000000000")).status_code == 422
    server.requests.clear()
    refused(send(alice_client, router, seal(offer, api_key=GOOD_KEY)), "was sent once already", server)


def test_what_was_sealed_for_another_user_is_refused_and_stays_theirs_to_send(alice_client, bob_client, router, server):
    sealed = seal(ask(alice_client), api_key=GOOD_KEY)
    refused(send(bob_client, router, sealed), "for another user or another form", server)
    assert send(alice_client, router, sealed).status_code == 200


def test_naming_another_user_does_not_help_without_their_ticket(alice_client, bob, bob_client, router, server):
    offer = ask(alice_client)
    offer["names"]["user"] = str(bob.pk)
    refused(send(bob_client, router, seal(offer, api_key=GOOD_KEY)), "was sent once already", server)
    assert SealingTicket.objects.count() == 1, "nor is hers used up"


def test_what_was_sealed_for_another_form_is_refused(alice, alice_client, router, server):
    offer = ask(alice_client, "edit-account 00000000-0000-0000-0000-000000000007")
    refused(send(alice_client, router, seal(offer, api_key=GOOD_KEY)), "for another user or another form", server)
    offer["names"]["purpose"] = ADD  # the ticket remembers
    refused(send(alice_client, router, seal(offer, api_key=GOOD_KEY)), "was sent once already", server)


@pytest.mark.parametrize("seconds", [125, 3600, -70])
def test_what_names_an_old_time_or_one_to_come_is_refused(alice_client, router, server, seconds):
    offer = ask(alice_client)
    offer["names"]["at"] -= seconds
    refused(send(alice_client, router, seal(offer, api_key=GOOD_KEY)), "took too long to arrive", server)


def test_an_old_ticket_is_refused_whatever_time_is_named(alice_client, router, server):
    offer = ask(alice_client)
    SealingTicket.objects.update(created_at=timezone.now() - timedelta(minutes=2, seconds=1))
    refused(send(alice_client, router, seal(offer, api_key=GOOD_KEY)), "took too long to arrive", server)


def test_what_was_sealed_to_a_key_we_do_not_have_says_reload(alice_client, router, server, settings):
    settings.VAULT_KEYS = K1
    sealed = seal(ask(alice_client), api_key=GOOD_KEY)
    settings.VAULT_KEYS = K2
    refused(send(alice_client, router, sealed), "Reload the page", server)


def test_another_vault_key_of_the_same_name_is_another_key(alice_client, router, server, settings):
    settings.VAULT_KEYS = K1
    sealed = seal(ask(alice_client), api_key=GOOD_KEY)
    settings.VAULT_KEYS = "k1:" + base64.b64encode(b"9" * 32).decode()
    refused(send(alice_client, router, sealed), "Reload the page", server)


def _flip(text: str, part: int) -> str:
    parts = text.split(".")
    parts[part] = ("B" if parts[part][0] != "B" else "C") + parts[part][1:]
    return ".".join(parts)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: _flip(text, 2),
        lambda text: _flip(text, 3),
        lambda text: _flip(text, 4),
        lambda text: text[:-5],
        lambda text: text + ".x",
        lambda text: "v2" + text[2:],
        lambda text: "nonsense",
        lambda text: text.rpartition(".")[0] + ".",
        lambda text: text + "A" * 70_000,
        lambda text: text.replace(".", ".é", 2),
    ],
)
def test_what_was_damaged_on_the_way_is_refused(alice_client, router, server, damage):
    sealed = damage(seal(ask(alice_client), api_key=GOOD_KEY))
    response = send(alice_client, router, sealed)
    assert response.status_code == 422
    assert not ProviderAccount.objects.exists()
    assert server.requests == []


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {},
        {"names": [], "fields": {}},
        {"names": {"user": 1}, "fields": {"api_key": GOOD_KEY}},
        {"names": {}, "fields": "x"},
    ],
)
def test_a_sealed_text_of_another_shape_is_refused(alice_client, router, server, document):
    refused(send(alice_client, router, seal_document(ask(alice_client), document)), "key", server)


def test_a_ticket_or_time_that_is_none_is_refused(alice_client, router, server):
    for name, value in (("ticket", "x"), ("ticket", None), ("at", "x"), ("at", None), ("at", 1e400), ("at", 10**400)):
        offer = ask(alice_client)
        offer["names"][name] = value
        refused(send(alice_client, router, seal(offer, api_key=GOOD_KEY)), "took too long", server)


def test_fields_that_are_no_texts_are_not_taken(alice_client, router, server):
    offer = ask(alice_client)
    sealed = seal_document(offer, {"names": offer["names"], "fields": {"api_key": {"a": 1}, "provider": 7}})
    assert send(alice_client, router, sealed).status_code == 422
    assert server.requests == []


@pytest.mark.parametrize("name", ["label", "checked", "api_key", "base_url", "extra_headers"])
def test_half_a_character_in_a_sealed_field_is_refused_p1_i21(alice_client, router, server, name):
    sealed = seal(ask(alice_client), **{"api_key": GOOD_KEY, name: "half \ud83d"})
    refused(send(alice_client, router, sealed), "did not arrive whole", server)


# -- The offer -------------------------------------------------------------------------------------------------------


def test_the_public_key_follows_the_vault_key_and_says_nothing_of_it(settings):
    settings.VAULT_KEYS = K1
    [pair] = sealing._pairs()
    assert len(pair.public) == 65 and pair.public[0] == 4
    assert b"1" * 8 not in pair.public
    settings.VAULT_KEYS = f"{K2},{K1}"
    newest, oldest = sealing._pairs()
    assert (oldest.id, oldest.public) == (pair.id, pair.public), "the same after a restart, in every process"
    assert newest.id != pair.id
    assert len(pair.id) == 16
    assert "private" not in repr(pair)


def test_an_offer_needs_a_signed_in_user_and_the_csrf_token(alice):
    assert Client().post("/accounts/sealing/", {"purpose": ADD}).status_code == 302
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post("/accounts/sealing/", {"purpose": ADD}).status_code == 403
    assert client.get("/accounts/sealing/").status_code == 405
    assert not SealingTicket.objects.exists()


def test_open_tickets_are_few_and_old_ones_are_cleared_away(alice, alice_client, bob_client):
    ask(bob_client)
    for _ in range(25):
        last = ask(alice_client)
    mine = SealingTicket.objects.for_user(alice)
    assert mine.count() == 20
    assert mine.filter(pk=last["names"]["ticket"]).exists(), "the newest ones stay"
    SealingTicket.objects.update(created_at=timezone.now() - timedelta(minutes=3))
    ask(alice_client)
    assert mine.count() == 1
    assert SealingTicket.objects.count() == 2, "other people's are left alone"


# -- The form --------------------------------------------------------------------------------------------------------


def test_the_boxes_for_secrets_have_no_name_so_no_form_sends_them(alice_client, router):
    page = alice_client.get(f"/accounts/add/?provider={router.pk}", headers=HTMX).content.decode()
    assert 'name="api_key"' not in page
    assert 'name="extra_headers"' not in page
    assert 'data-sealed="api_key"' in page
    assert 'data-sealed="extra_headers"' in page
    assert "no key can be sent from here" in page, "the sentence for a browser that cannot seal"


def test_with_the_operators_leave_they_have_one_and_the_warning_is_another(alice_client, router, settings):
    settings.ALLOW_UNSEALED_KEYS = True
    page = alice_client.get(f"/accounts/add/?provider={router.pk}", headers=HTMX).content.decode()
    assert 'name="api_key"' in page
    assert "Whoever is on the network can read a key" in page


def test_the_list_says_without_scripts_that_accounts_need_them(alice_client):
    page = alice_client.get("/accounts/").content.decode()
    assert "it encrypts your key before it leaves the browser" in page


def test_a_wrong_vault_ring_stops_with_a_sentence(settings):
    settings.VAULT_KEYS = "nonsense"
    with pytest.raises(ImproperlyConfigured, match="VAULT_KEYS"):
        sealing._pairs()


def test_a_provider_that_needs_no_key_is_added_without_sealing(alice_client, local):
    assert Provider.objects.filter(pk=local.pk).exists()
    assert alice_client.post(CREATE, {"provider": local.pk}, headers=HTMX).status_code == 200
