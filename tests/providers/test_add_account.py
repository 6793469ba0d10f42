"""Adding an account through the dialog: three honest verdicts, and a key that never comes back."""

from __future__ import annotations

import re
import socket
import time
from types import SimpleNamespace

import pytest
from django.test import Client
from django.urls import reverse

from catalog.models import SyncRun
from providers import checking, net, vault
from providers.models import Provider, ProviderAccount

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of, add, note_in

pytestmark = pytest.mark.slow

HTMX = {"HX-Request": "true"}
CREATE = "/accounts/create/"


def filled(provider, **fields):
    return {"provider": getattr(provider, "pk", provider), "label": "Work key", **fields}


def post(client, provider, **fields):
    """Check and save: both steps."""
    return add(client, filled(provider, **fields))


def check(client, provider, **fields):
    """The first step alone, or the second where `checked` is among the fields."""
    return client.post(CREATE, filled(provider, **fields), headers=HTMX)


# -- Three verdicts --------------------------------------------------------------------------------------------------


def test_a_good_key_is_checked_sealed_saved_and_its_first_sync_is_waiting(alice, alice_client, router, server):
    response = post(alice_client, router, api_key=f"  {GOOD_KEY}\n", priority="3")

    assert response.status_code == 200
    page = response.content.decode()
    assert "✓ Valid: Router accepted this key" in page
    assert "<code>GET /key</code>" in page
    assert "$18.20 of $25.00 left" in page
    account = ProviderAccount.objects.get()
    assert (account.owner, account.provider, account.label, account.priority) == (alice, router, "Work key", 3)
    assert account.status == "valid"
    assert account.api_key_hint == "3f9a"
    assert str(account.balance) == "18.2"
    assert vault.open_key(account) == GOOD_KEY
    assert GOOD_KEY not in account.api_key_encrypted
    run = SyncRun.objects.get(account=account)
    assert (run.state, run.trigger) == ("queued", "button")
    assert [heard.path for heard in server.requests] == ["/api/v1/key", "/api/v1/models"], "saving asks no more"
    assert server.sent_keys == [GOOD_KEY, GOOD_KEY]


def test_the_list_behind_the_dialog_is_refreshed_with_the_masked_key(alice_client, router):
    page = post(alice_client, router, api_key=GOOD_KEY).content.decode()
    assert 'id="accounts" hx-swap-oob="true"' in page
    assert "•••• 3f9a" in page


def test_a_wrong_key_keeps_the_dialog_and_what_was_typed_except_the_key(alice_client, router, server):
    response = post(
        alice_client,
        router,
        api_key="sk-SENTINEL-wrong-key",
        label="My label",
        priority="7",
        extra_headers="X-Team: blue",
    )

    assert response.status_code == 422
    page = response.content.decode()
    assert "Router rejected this key. Asked GET /key." in page
    assert "No such key" in page
    assert "My label" in page
    assert 'value="7"' in page
    assert "X-Team: blue" not in page, "headers may be secrets, too (K3)"
    assert "SENTINEL" not in page
    assert not ProviderAccount.objects.exists()
    assert not SyncRun.objects.exists()


def test_an_upstream_that_fails_is_saved_not_verified_with_the_reason(alice_client, router, server):
    server.answer = lambda heard: (500, {"error": {"message": "database on fire"}})
    response = post(alice_client, router, api_key=GOOD_KEY)

    assert response.status_code == 200
    assert "Saved, not verified" in response.content.decode()
    account = ProviderAccount.objects.get()
    assert account.status == "unverified"
    assert account.status_reason != ""
    assert account in ProviderAccount.objects.usable()


@pytest.mark.parametrize(
    "body",
    [b"<html>hello</html>", b"", b'{"data": 3}', b'{"error": {"message": "nope"}}'],
    ids=["html", "empty", "odd", "error-200"],
)
def test_F7_F8_a_200_that_is_no_answer_is_not_called_valid(alice_client, router, server, body):
    server.answer = lambda heard: (200, body)
    response = post(alice_client, router, api_key=GOOD_KEY)
    assert "✓ Valid" not in response.content.decode()
    assert not ProviderAccount.objects.filter(status="valid").exists()


def test_a_public_model_list_does_not_make_any_key_valid(alice_client, server):
    """The trap of AiHubMix and OpenRouter: the list answers whatever the key is."""
    server.answer = lambda heard: (200, {"data": [{"id": "alpha"}]}) if heard.path.endswith("/models") else (500, {})
    post(alice_client, "custom", base_url="http://keys.internal/v1", api_key="sk-nonsense-000000")
    assert ProviderAccount.objects.get().status == "unverified"


def test_F3_a_silent_upstream_gives_a_verdict_within_the_deadline(alice_client, router, server, monkeypatch):
    assert checking.DEADLINE == 10
    monkeypatch.setattr("providers.checking.DEADLINE", 0.4)
    server.delay = 3
    started = time.monotonic()
    response = post(alice_client, router, api_key=GOOD_KEY)
    assert time.monotonic() - started < 2.5
    assert "No answer within 0.4 seconds" in response.content.decode()
    assert ProviderAccount.objects.get().status == "unverified"


def test_F1_S3_upstreams_that_are_not_there_or_lead_elsewhere_end_in_a_sentence(alice_client, router, server):
    server.answer = lambda heard: (302, b"")
    page = check(alice_client, router, api_key=GOOD_KEY).content.decode()
    assert "<strong>Not verified</strong>" in page
    assert "answered with a redirect, which is never followed. Check the address." in page

    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    net.configure(net.Policy(hosts={"router.internal": ("127.0.0.1", port)}))
    page = check(alice_client, router, api_key=GOOD_KEY).content.decode()
    assert "<strong>Not verified</strong>" in page
    assert "could not be reached. Check the address" in page
    assert not ProviderAccount.objects.exists()


def test_K5_a_provider_that_echoes_the_key_does_not_get_it_onto_the_page_or_into_the_row(alice_client, router, server):
    key = "sk-SENTINEL-echo-1234"
    server.answer = lambda heard: (503, {"error": {"message": f"busy, dear {key}"}})
    page = post(alice_client, router, api_key=key).content.decode()
    assert "SENTINEL" not in page
    assert "SENTINEL" not in ProviderAccount.objects.get().status_reason


# -- Before saving ---------------------------------------------------------------------------------------------------


def saved() -> bool:
    return ProviderAccount.objects.exists() or SyncRun.objects.exists() or Provider.objects.filter(owner__isnull=False)


def test_the_first_step_shows_verdict_models_and_balance_and_keeps_nothing(alice_client, router, server):
    models = [{"id": f"m{n}", "name": f"Model {n}"} for n in range(1_200)]
    server.answer = lambda heard: (200, {"data": models}) if heard.path.endswith("/models") else None
    response = check(alice_client, router, api_key=GOOD_KEY, label="My label", priority="7")

    page = response.content.decode()
    assert response.status_code == 200
    assert "✓ Valid: Router accepted this key" in page
    assert "Asked <code>GET /key</code>. The provider accepted the key." in page
    assert "$18.20 of $25.00 left." in page
    words = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "1,200 models listed, such as Model 0, Model 1, Model 2, Model 3, Model 4." in words
    assert re.search(
        r'<button class="button button--primary"[^>]*autofocus[^>]*>Add and sync 1,200 models</button>', page
    )
    assert page.count("autofocus") == 1, "Enter, and Enter again"
    assert 'value="My label"' in page and 'value="7"' in page
    assert "data-keeps" in page, "what was typed into the other boxes is put back by the page itself"
    assert GOOD_KEY not in page
    assert not saved()


def test_the_second_step_saves_what_was_shown_and_asks_nobody(alice_client, router, server):
    note = note_in(check(alice_client, router, api_key=GOOD_KEY))
    server.requests.clear()
    response = check(alice_client, router, api_key=GOOD_KEY, checked=note, label="Renamed meanwhile")
    assert "Renamed meanwhile was added" in response.content.decode()
    account = ProviderAccount.objects.get()
    assert (account.status, account.label, str(account.balance)) == ("valid", "Renamed meanwhile", "18.2")
    assert server.requests == []


@pytest.mark.parametrize(
    "changed",
    [
        {"api_key": OTHER_GOOD_KEY},
        {"extra_headers": "X-Team: blue"},
        {"base_url": "http://other.internal/v1"},
        {"checked": ""},
        {"checked": "nonsense"},
        {"checked": "é.é"},
        {"checked": "."},
    ],
)
def test_what_was_found_counts_for_what_was_checked_alone(alice_client, server, changed):
    """Else a verdict for one key could be stored with another."""
    fields = {"base_url": "http://keys.internal/v1", "api_key": GOOD_KEY}
    server.answer = lambda heard: (401, {}) if "Bearer sk-not" in heard.headers["authorization"] else None
    note = note_in(check(alice_client, "custom", **fields))
    assert note
    server.requests.clear()
    response = check(alice_client, "custom", **{**fields, "checked": note, **changed})
    assert server.requests, "asked again"
    assert note_in(response), "and shown again"
    assert not saved()


def test_what_was_found_counts_for_its_user_and_for_ten_minutes(alice_client, bob_client, router, monkeypatch):
    note = note_in(check(alice_client, router, api_key=GOOD_KEY))
    assert note_in(check(bob_client, router, api_key=GOOD_KEY, checked=note))
    later = time.time() + 602
    monkeypatch.setattr("providers.checking.time", SimpleNamespace(time=lambda: later))
    assert note_in(check(alice_client, router, api_key=GOOD_KEY, checked=note))
    assert not saved()


def test_a_wrong_key_cannot_be_saved_by_any_button(alice_client, router, server):
    wrong = "sk-wrong-000000000000"
    response = check(alice_client, router, api_key=wrong, accept_unverified="on")
    assert response.status_code == 422 and not note_in(response)
    good = note_in(check(alice_client, router, api_key=GOOD_KEY))
    assert check(alice_client, router, api_key=wrong, accept_unverified="on", checked=good).status_code == 422
    assert not saved()


def test_what_could_not_be_verified_is_saved_by_a_button_of_its_own_alone(alice_client, router, server):
    server.answer = lambda heard: (503, {})
    response = check(alice_client, router, api_key=GOOD_KEY)
    page = response.content.decode()
    assert "<strong>Not verified</strong>" in page
    first, second = re.findall(r'<button[^>]*type="submit"[^>]*>([^<]+)</button>', page)
    assert (first, second) == ("Check again", "Add, not verified"), "Enter never saves it"

    again = check(alice_client, router, api_key=GOOD_KEY, checked=note_in(response))
    assert "<strong>Not verified</strong>" in again.content.decode() and not saved()
    server.answer = lambda heard: None
    better = check(alice_client, router, api_key=GOOD_KEY, checked=note_in(response))
    assert "✓ Valid" in better.content.decode() and not saved(), "Check again asks again"

    done = check(alice_client, router, api_key=GOOD_KEY, checked=note_in(response), accept_unverified="on")
    assert "<strong>Saved, not verified</strong>" in done.content.decode()
    assert ProviderAccount.objects.get().status == "unverified"


def test_a_list_that_cannot_be_read_does_not_spoil_the_verdict(alice_client, router, server, monkeypatch):
    monkeypatch.setattr("providers.checking.DEADLINE", 0.6)
    server.answer = lambda heard: (time.sleep(2), (200, {"data": []}))[1] if heard.path.endswith("/models") else None
    started = time.monotonic()
    page = check(alice_client, router, api_key=GOOD_KEY).content.decode()
    assert time.monotonic() - started < 1.8
    assert "✓ Valid: Router accepted this key" in page
    assert "Its models could not be read in time." in page
    assert ">Add the account</button>" in page

    server.answer = lambda heard: (500, {}) if heard.path.endswith("/models") else None
    assert "✓ Valid: Router accepted this key" in check(alice_client, router, api_key=GOOD_KEY).content.decode()


def test_K5_a_key_that_is_echoed_as_a_models_name_is_cut_out(alice_client, router, server):
    echo = {"data": [{"id": "alpha", "name": f"For {GOOD_KEY}"}]}
    server.answer = lambda heard: (200, echo) if heard.path.endswith("/models") else None
    page = check(alice_client, router, api_key=GOOD_KEY).content.decode()
    assert "For [key]" in page
    assert GOOD_KEY not in page


def test_a_keyless_provider_that_does_not_answer_is_not_saved_unasked(alice_client, local, server):
    server.answer = lambda heard: (503, {})
    response = alice_client.post(CREATE, {"provider": local.pk}, headers=HTMX)
    assert "<strong>Not verified</strong>" in response.content.decode()
    assert not saved()
    data = {"provider": local.pk, "checked": note_in(response), "accept_unverified": "on"}
    alice_client.post(CREATE, data, headers=HTMX)
    assert ProviderAccount.objects.get().status == "unverified"


# -- Refused beside the field ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "Enter the key."),
        ("sk-SENT\ninel", "line break"),
        ("sk-SENT\u00a0inel", "contains a space"),
        ("sk-SENTé", "a character no key has"),
        ("SENT" * 2500, "10,000 characters long"),
    ],
)
def test_S10_a_key_that_cannot_be_one_is_refused_before_any_request(alice_client, router, server, key, sentence):
    response = post(alice_client, router, api_key=key)
    assert response.status_code == 422
    page = response.content.decode()
    assert sentence in page
    assert "SENT" not in page
    assert server.requests == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Authorization: Bearer SENT", "is set for you"),
        ("Host: evil.example", "is set for you"),
        ("Transfer-Encoding: chunked", "is set for you"),
        ("no colon", "write a name, a colon and a value"),
        ("X Y: 1", "write a name, a colon and a value"),
        ("X-A:", "the value must be"),
        ("X-A: caf\u00e9", "the value must be"),
        ("X-A: a\x0bX-B: b", "the value must be"),
        ("X-A: a\u2028X-B: b", "the value must be"),
        ("X-A: 1\nx-a: 2", "Line 2: this header is there twice"),
        ("\n".join(f"X-{n}: 1" for n in range(21)), "At most 20"),
    ],
)
def test_S10_headers_that_could_splice_a_request_are_refused(alice_client, router, server, line, sentence):
    response = post(alice_client, router, api_key=GOOD_KEY, extra_headers=line)
    assert response.status_code == 422
    assert sentence in response.content.decode()
    assert server.requests == []


def test_extra_headers_are_sent_and_kept_sealed(alice_client, router, server):
    post(alice_client, router, api_key=GOOD_KEY, extra_headers="APP-Code: SENTINEL-42\nX-Team: blue green")
    assert server.requests[0].headers["app-code"] == "SENTINEL-42"
    account = ProviderAccount.objects.get()
    assert "SENTINEL" not in account.extra_headers_encrypted
    assert vault.open_headers(account) == {"APP-Code": "SENTINEL-42", "X-Team": "blue green"}


@pytest.mark.parametrize("label", ["a\u202eb", "a\u200bb", "a\x1fb", "x" * 81])
def test_X5_a_label_that_would_deceive_is_refused(alice_client, router, server, label):
    assert post(alice_client, router, api_key=GOOD_KEY, label=label).status_code == 422
    assert server.requests == []


def test_S6_placeholders_in_a_label_stay_letter_for_letter(alice_client, router):
    label = "${PATH} {{ 7*7 }} %s {0}"
    page = post(alice_client, router, api_key=GOOD_KEY, label=label).content.decode()
    assert ProviderAccount.objects.get().label == label
    assert "${PATH} {{ 7*7 }} %s {0}" in page


def test_A2_fields_nobody_offers_cannot_be_posted(alice, bob, alice_client, router):
    post(
        alice_client,
        router,
        api_key=GOOD_KEY,
        owner=bob.pk,
        status="locked",
        api_key_hint="zzzz",
        is_active="",
        settings='{"base_url": "http://evil"}',
        endpoint_override="http://other.internal/v1",
        api_key_encrypted="x",
    )
    account = ProviderAccount.objects.get()
    assert (account.owner, account.status, account.api_key_hint) == (alice, "valid", "3f9a")
    assert (account.settings, account.endpoint_override, account.is_active) == ({}, "", True)


# -- Duplicates ------------------------------------------------------------------------------------------------------


def test_the_same_key_twice_is_refused_without_asking_the_provider(alice, alice_client, router, server):
    account_of(alice, router)
    response = post(alice_client, router, api_key=GOOD_KEY)
    assert response.status_code == 422
    assert "You have already added this key" in response.content.decode()
    assert server.requests == []
    assert ProviderAccount.objects.count() == 1


def test_another_key_at_the_same_provider_is_welcome(alice, alice_client, router):
    account_of(alice, router)
    assert post(alice_client, router, api_key=OTHER_GOOD_KEY).status_code == 200
    assert ProviderAccount.objects.for_user(alice).count() == 2


def test_nobody_learns_that_another_user_has_the_same_key(alice, bob, bob_client, alice_client, router):
    mine = account_of(alice, router)
    first = post(bob_client, router, api_key=GOOD_KEY)
    assert first.status_code == 200
    his = ProviderAccount.objects.for_user(bob).get()
    assert his.api_key_hash != mine.api_key_hash
    assert his.api_key_encrypted != mine.api_key_encrypted


def test_F18_the_form_sent_twice_at_once_gives_one_account(alice, alice_client, router, monkeypatch):
    """Both requests pass the look-up; the database decides."""
    monkeypatch.setattr("providers.forms._CheckedForm.already_known", lambda self, account, key: False)
    note = note_in(check(alice_client, router, api_key=GOOD_KEY))
    assert check(alice_client, router, api_key=GOOD_KEY, checked=note).status_code == 200
    response = check(alice_client, router, api_key=GOOD_KEY, checked=note)
    assert response.status_code == 422
    assert "You have already added this key" in response.content.decode()
    assert ProviderAccount.objects.count() == 1


# -- Without a key ---------------------------------------------------------------------------------------------------


def test_a_keyless_provider_takes_one_click(alice, alice_client, local, server):
    response = alice_client.post(CREATE, {"provider": local.pk}, headers=HTMX)
    assert response.status_code == 200
    account = ProviderAccount.objects.get()
    assert (account.label, account.api_key_encrypted, account.status) == ("Local models", "", "valid")
    assert "Local models answers" in response.content.decode()
    assert all("authorization" not in heard.headers for heard in server.requests)


def test_the_second_click_does_not_add_it_twice(alice_client, local):
    alice_client.post(CREATE, {"provider": local.pk}, headers=HTMX)
    response = alice_client.post(CREATE, {"provider": local.pk}, headers=HTMX)
    assert response.status_code == 422
    assert "already added this provider" in response.content.decode()
    assert ProviderAccount.objects.count() == 1


def test_without_scripts_the_click_works_too(alice_client, local):
    response = alice_client.post(CREATE, {"provider": local.pk}, follow=True)
    assert "Local models was added." in response.content.decode()


def test_an_empty_list_offers_the_keyless_provider_at_once(alice_client, local):
    page = alice_client.get("/accounts/").content.decode()
    assert "Add your first account" in page
    assert f'name="provider" value="{local.pk}"' in page


# -- Custom endpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [
        "http://keys.internal/v1",
        "http://keys.internal/v1/",
        " http://KEYS.internal:80/v1/chat/completions ",
        "http://keys.internal/v1/models",
        "http://keys.internal",
        "http://keys.internal/",
    ],
)
def test_a_custom_address_becomes_a_private_provider_in_its_plain_form(alice, alice_client, server, typed):
    response = post(alice_client, "custom", base_url=typed, api_key=GOOD_KEY)
    assert response.status_code == 200, response.content.decode()
    provider = Provider.objects.get(owner=alice)
    assert provider.base_url == "http://keys.internal/v1"
    assert "http://keys.internal/v1/chat/completions" in response.content.decode()
    account = ProviderAccount.objects.get()
    assert (account.provider, account.origin) == (provider, "http://keys.internal:80")
    assert vault.open_key(account) == GOOD_KEY
    assert account.api_key_hash == vault.key_hash(alice.pk, provider.pk, GOOD_KEY)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("api.example.org", "https://api.example.org/v1"),
        ("api.example.org/v1", "https://api.example.org/v1"),
        ("https://api.example.org/openai/v1/chat/completions", "https://api.example.org/openai/v1"),
        ("https://API.example.org:443/v1/embeddings/", "https://api.example.org/v1"),
        ("https://api.example.org:8443", "https://api.example.org:8443/v1"),
    ],
)
def test_the_address_is_shown_back_as_it_will_be_called(alice_client, typed, shown):
    page = alice_client.post("/accounts/address/", {"base_url": typed}).content.decode()
    assert f"<code>{shown}/chat/completions</code>" in page


@pytest.mark.parametrize(
    "typed",
    [
        "http://169.254.169.254/v1",
        "https://127.0.0.1/v1",
        "localhost:11434",
        "https://[::1]/v1",
        "https://user:pass@api.example.org/v1",
        "file:///etc/passwd",
        "https://api.example.org/v1?x=1",
        "https://api.example.org/../v1",
        "https://2130706433/v1",
        "http://api.example.org/v1",
        "https://",
    ],
)
def test_S1_an_address_that_may_not_be_called_is_refused_beside_its_field(alice_client, server, typed):
    response = post(alice_client, "custom", base_url=typed, api_key="sk-SENTINEL-1234567")
    assert response.status_code == 422
    page = response.content.decode()
    assert 'id="id_base_url_error"' in page
    assert "SENTINEL" not in page
    assert not Provider.objects.filter(owner__isnull=False).exists()
    assert server.requests == []


@pytest.mark.parametrize(
    "typed",
    [
        *("json://keys.internal/v1", "jsons://keys.internal/v1", "xml://keys.internal", "form://keys.internal"),
        *("mailto://keys.internal", "ntfy://keys.internal/x", "gotify://keys.internal/x", "apprise://keys.internal/x"),
        *("syslog://keys.internal", "dbus://", "windows://", "json://127.0.0.1:22/", "json://169.254.169.254/"),
    ],
)
def test_S7_an_address_for_notices_is_no_address_of_an_upstream(alice_client, server, typed):
    """The only addresses a user gives here are upstreams'. Many of Apprise's schemes are plain HTTP to their host."""
    response = post(alice_client, "custom", base_url=typed, api_key="sk-SENTINEL-1234567")
    assert response.status_code == 422 and 'id="id_base_url_error"' in response.content.decode()
    assert not Provider.objects.filter(owner__isnull=False).exists() and server.requests == []


def test_a_second_key_for_the_same_address_shares_the_private_provider(alice, alice_client, server):
    post(alice_client, "custom", base_url="http://keys.internal/v1", api_key=GOOD_KEY)
    assert (
        post(alice_client, "custom", base_url="http://keys.internal:80/v1", api_key=OTHER_GOOD_KEY).status_code == 200
    )
    again = post(alice_client, "custom", base_url="http://keys.internal/v1", api_key=GOOD_KEY)
    assert again.status_code == 422
    assert Provider.objects.filter(owner=alice).count() == 1
    assert ProviderAccount.objects.for_user(alice).count() == 2


def test_two_users_with_the_same_address_have_two_providers_and_see_only_their_own(
    alice, bob, alice_client, bob_client, server
):
    post(alice_client, "custom", base_url="http://keys.internal/v1", api_key=GOOD_KEY, label="Alice's box")
    post(bob_client, "custom", base_url="http://keys.internal/v1", api_key=GOOD_KEY, label="Bob's box")
    assert Provider.objects.filter(base_url="http://keys.internal/v1").count() == 2
    page = bob_client.get("/accounts/add/", headers=HTMX).content.decode()
    assert "Bob&#x27;s box" in page
    assert "Alice" not in page


def test_A1_another_users_private_provider_is_a_missing_one(alice, bob_client, alice_client, server):
    post(alice_client, "custom", base_url="http://keys.internal/v1", api_key=GOOD_KEY)
    heard = len(server.requests)
    theirs = Provider.objects.get(owner=alice)
    assert post(bob_client, theirs, api_key=GOOD_KEY).status_code == 404
    assert bob_client.get(f"/accounts/add/?provider={theirs.pk}", headers=HTMX).status_code == 404
    assert len(server.requests) == heard


@pytest.mark.parametrize("chosen", ["", "0", "-1", "abc", "9" * 30, "1 or 1=1", "²"])
def test_a_provider_that_does_not_exist_is_a_404(alice_client, chosen):
    assert post(alice_client, chosen, api_key=GOOD_KEY).status_code == 404


def test_a_switched_off_provider_cannot_be_added(alice_client, router):
    Provider.objects.filter(pk=router.pk).update(is_active=False)
    assert post(alice_client, router, api_key=GOOD_KEY).status_code == 404


# -- Over which connection -------------------------------------------------------------------------------------------


def test_a_provider_without_a_key_may_be_added_over_plain_http(alice_client, local):
    response = alice_client.post(CREATE, {"provider": local.pk}, headers=HTMX, REMOTE_ADDR="192.168.1.20")
    assert response.status_code == 200


# -- The dialog itself -----------------------------------------------------------------------------------------------


def test_the_dialog_shows_the_gallery_and_an_empty_password_box(alice_client, router, local):
    page = alice_client.get(f"/accounts/add/?provider={router.pk}", headers=HTMX).content.decode()
    assert "Router" in page
    assert "Local models" in page
    assert "Custom endpoint" in page
    assert 'type="password"' in page and 'data-sealed="api_key"' in page
    assert 'autocomplete="off"' in page


def test_the_dialog_opened_as_a_page_leads_to_the_list_that_opens_it(alice_client, router):
    response = alice_client.get("/accounts/add/")
    assert response.status_code == 302
    assert response.url == "/accounts/?add"
    assert 'hx-trigger="load"' in alice_client.get(response.url).content.decode()


def test_A7_adding_needs_the_csrf_token(alice, router, server):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert post(client, router, api_key=GOOD_KEY).status_code == 403
    assert server.requests == []


def test_a_key_in_the_address_is_not_read(alice_client, router, server):
    response = alice_client.post(f"{CREATE}?api_key={GOOD_KEY}&provider={router.pk}", {"label": "L"}, headers=HTMX)
    assert response.status_code == 404
    page = alice_client.get(f"/accounts/add/?provider={router.pk}&api_key=sk-SENTINEL-1", headers=HTMX).content.decode()
    assert "SENTINEL" not in page
    assert server.requests == []


def test_anonymous_visitors_are_sent_to_sign_in(router, server):
    response = post(Client(), router, api_key=GOOD_KEY)
    assert response.status_code == 302
    assert "sign-in" in response.url
    assert reverse("providers:account-create") == CREATE
    assert server.requests == []
