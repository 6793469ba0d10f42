"""Signing in, out, and being kept out: throttled, without telling who exists (A8, A10, A11)."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

LOGIN = "/sign-in/login/"


@pytest.fixture(autouse=True)
def _forget_earlier_attempts():
    cache.clear()


def sign_in(client, login="alice", password="alice's password", **more):
    return client.post(LOGIN, {"login": login, "password": password, **more})


@pytest.mark.parametrize("login", ["alice", "alice@example.org"])
def test_name_or_address_and_password_sign_in(client, alice, login):
    response = sign_in(client, login)
    assert (response.status_code, response["location"]) == (302, "/")
    assert int(client.session["_auth_user_id"]) == alice.pk


def test_a_stranger_is_sent_to_sign_in_and_back(client, alice):
    response = client.get("/sign-in/password/change/")
    assert response["location"] == f"{LOGIN}?next=/sign-in/password/change/"
    response = client.post(response["location"], {"login": "alice", "password": "alice's password"})
    page = sign_in(client, next="/usage/")
    assert page.status_code == 302


def test_signing_in_makes_a_new_session_a8(client, alice):
    client.get(LOGIN)
    session = client.session
    session["planted"] = 1
    session.save()
    planted = client.cookies["session"].value if "session" in client.cookies else session.session_key
    client.cookies["session"] = planted
    sign_in(client)
    assert client.session.session_key != planted


def test_signing_out_needs_a_post_and_ends_the_session_a8(client, alice):
    sign_in(client)
    key = client.session.session_key
    assert client.get(reverse("account_logout")).status_code == 200
    assert "_auth_user_id" in client.session
    response = client.post(reverse("account_logout"))
    assert response["location"] == LOGIN
    replay = Client()
    replay.cookies["session"] = key
    assert replay.get("/sign-in/password/change/").status_code == 302


def test_changing_the_password_ends_the_other_sessions_a8(alice):
    here, there = Client(), Client()
    here.force_login(alice)
    there.force_login(alice)
    new = "a new pass phrase"
    response = here.post(
        reverse("account_change_password"), {"oldpassword": "alice's password", "password1": new, "password2": new}
    )
    assert response.status_code == 302
    assert here.get(reverse("account_change_password")).status_code == 200
    assert there.get(reverse("account_change_password")).status_code == 302


def test_the_page_for_a_new_password_speaks_our_language(alice_client):
    page = alice_client.get(reverse("account_change_password")).content.decode()
    labels = re.findall(r"<label[^>]*>([^<]+)</label>", page)
    assert labels == ["Your password now", "The new password", "The new password once more"]
    assert "At least 10 characters. A few random words are good." in page
    assert "placeholder" not in page
    assert page.count("autofocus") == 1
    page = alice_client.post(reverse("account_change_password"), {"oldpassword": "wrong"}).content.decode()
    assert 'class="field__error"' in page


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http:evil.example",
        "\thttps://evil.example",
    ],
)
def test_next_leads_nowhere_else_a10(client, alice, target):
    response = sign_in(client, next=target)
    assert response["location"] == "/"


def test_an_unknown_name_and_a_wrong_password_read_the_same_a11(client, alice):
    unknown = sign_in(client, "nobody", "wrong")
    wrong = sign_in(client, "alice", "wrong")

    def message(response):
        return [str(error) for error in response.context["form"].non_field_errors()]

    assert message(unknown) == message(wrong) != []
    assert unknown.status_code == wrong.status_code == 200


def test_guessing_one_account_is_stopped_for_that_address_only_a11(alice):
    attacker = Client(REMOTE_ADDR="127.0.0.9")
    for _ in range(5):
        sign_in(attacker, password="wrong")
    refused = sign_in(attacker)
    assert refused.status_code == 200
    assert "Too many" in refused.content.decode()
    assert "_auth_user_id" not in attacker.session
    owner = Client(REMOTE_ADDR="127.0.0.10")
    assert sign_in(owner).status_code == 302, "nobody can lock Alice out"


def test_guessing_one_account_from_many_addresses_is_stopped_but_its_owner_gets_in_a11(alice, settings):
    settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "login_account": "6/h/key"}
    owner = Client(REMOTE_ADDR="127.0.1.1")
    assert sign_in(owner).status_code == 302
    for number in range(6):
        sign_in(Client(REMOTE_ADDR=f"127.0.2.{number}"), password="wrong")
    refused = sign_in(Client(REMOTE_ADDR="127.0.2.99"))
    assert "Too many" in refused.content.decode()
    again = Client(REMOTE_ADDR="127.0.1.1")
    assert sign_in(again).status_code == 302, "from where she signed in before, Alice gets in"


def test_a_forged_forwarded_address_does_not_reset_the_throttle_a9(alice):
    attacker = Client(REMOTE_ADDR="127.0.0.11")
    for number in range(5):
        attacker.post(LOGIN, {"login": "alice", "password": "wrong"}, headers={"x-forwarded-for": f"10.0.0.{number}"})
    refused = attacker.post(
        LOGIN, {"login": "alice", "password": "alice's password"}, headers={"x-forwarded-for": "10.0.0.99"}
    )
    assert "Too many" in refused.content.decode()


def test_the_admin_has_no_sign_in_form_of_its_own_a11(client, db):
    response = client.get("/admin/", follow=True)
    assert response.redirect_chain[-1][0].startswith(LOGIN)
    response = client.post("/admin/login/", {"username": "x", "password": "y"})
    assert response.status_code == 302


def test_who_is_not_staff_may_not_open_the_admin(alice_client):
    assert alice_client.get("/admin/", follow=True).status_code == 403


def test_sign_up_is_closed_unless_opened_p5(client, db, settings):
    form = {"username": "eve", "email": "eve@example.org", "password1": "eve's long password"}
    response = client.post(reverse("account_signup"), form)
    assert "closed" in response.content.decode()
    assert not get_user_model().objects.exists()
    settings.SIGNUP_OPEN = True
    assert client.post(reverse("account_signup"), form).status_code == 302
    assert get_user_model().objects.get().username == "eve"


def test_a_disabled_user_cannot_sign_in(client, alice):
    alice.is_active = False
    alice.save()
    sign_in(client)
    assert "_auth_user_id" not in client.session


def test_without_a_mail_server_the_reset_page_names_the_way(client, db):
    page = client.get(reverse("account_reset_password")).content.decode()
    assert "changepassword" in page
    assert "<form" not in page


def test_with_a_mail_server_known_and_unknown_addresses_get_the_same_answer_a11(client, alice, settings):
    settings.EMAIL_URL = "smtp://127.0.0.1:25"
    known = client.post(reverse("account_reset_password"), {"email": "alice@example.org"})
    unknown = client.post(reverse("account_reset_password"), {"email": "nobody@example.org"})
    assert (known.status_code, known["location"]) == (unknown.status_code, unknown["location"])
    assert mail.outbox[0].to == ["alice@example.org"]
    assert (
        "http://testserver/sign-in/password/reset/key/" in mail.outbox[0].body
        or "/sign-in/password/reset/key/" in mail.outbox[0].body
    )


@pytest.mark.parametrize(
    "name",
    ["account_login", "account_signup", "account_reset_password", "account_reset_password_done", "account_inactive",
     "account_reset_password_from_key_done"],
)  # fmt: skip
def test_pages_for_strangers_wear_our_frame(client, db, name):
    response = client.get(reverse(name))
    assert response.status_code == 200
    assert 'class="plain__card' in response.content.decode()


@pytest.mark.parametrize(
    "name", ["account_logout", "account_change_password", "account_email", "account_reauthenticate"]
)
def test_pages_for_members_wear_our_frame(alice_client, name):
    response = alice_client.get(reverse(name))
    assert response.status_code == 200
    assert 'class="plain__card' in response.content.decode()
