"""The first run: one link, one administrator, dead afterwards (A5, P5)."""

from __future__ import annotations

import io
import re
import threading

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import Client
from django.urls import reverse

from config.models import SetupIsOver, SetupToken

PASSWORD = "four random words here"
FORM = {"username": "robin", "email": "robin@example.org", "password": PASSWORD}


def link() -> str:
    out = io.StringIO()
    call_command("setup_link", stdout=out)
    return out.getvalue().strip()


def path_of(url: str) -> str:
    return url.removeprefix("http://127.0.0.1:8000")


@pytest.fixture
def path(db, settings):
    settings.PUBLIC_ORIGIN = "http://127.0.0.1:8000"
    return path_of(link())


def test_the_link_creates_an_administrator_and_signs_them_in(client, path):
    assert client.get(path).status_code == 200
    response = client.post(path, FORM)
    assert (response.status_code, response["location"]) == (302, "/")
    user = get_user_model().objects.get()
    assert (user.username, user.email, user.is_staff, user.is_superuser, user.is_active) == (
        "robin", "robin@example.org", True, True, True,
    )  # fmt: skip
    assert user.check_password(PASSWORD)
    assert int(client.session["_auth_user_id"]) == user.pk


def test_the_link_is_dead_afterwards_and_says_what_to_do(client, path):
    client.post(path, FORM)
    for response in (Client().get(path), Client().post(path, FORM | {"username": "eve", "email": "eve@example.org"})):
        assert response.status_code == 404
        assert "setup_link" in response.content.decode()
    assert get_user_model().objects.count() == 1


def test_a_wrong_link_is_as_dead_as_a_used_one(client, path):
    used = Client()
    used.post(path, FORM)
    wrong, dead = client.get("/setup/nonsense/"), client.get(path)
    assert wrong.status_code == dead.status_code == 404
    without_token = re.compile(rb'"x-csrftoken": "\w*"')
    assert without_token.sub(b"", wrong.content) == without_token.sub(b"", dead.content)


def test_a_newer_link_replaces_the_older(client, path):
    newer = path_of(link())
    assert newer != path
    assert client.get(path).status_code == 404
    assert client.get(newer).status_code == 200


def test_only_a_hash_of_the_link_is_stored(path):
    token = path.split("/")[2]
    stored = SetupToken.objects.get()
    assert token not in repr(stored.__dict__)
    assert len(token) >= 43  # 256 bits


def test_createsuperuser_makes_the_link_dead(client, path, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", interactive=False, username="root", email="root@example.org", verbosity=0)
    assert client.get(path).status_code == 404
    assert client.post(path, FORM).status_code == 404
    with pytest.raises(CommandError, match="An administrator exists already"):
        call_command("setup_link")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "short"}, "at least 10 characters"),
        ({"password": "password123"}, "too common"),
        ({"password": "robin@example.org"}, "too similar"),
        ({"password": "8274619038264"}, "entirely numeric"),
        ({"username": ""}, "required"),
        ({"email": ""}, "required"),
        ({"email": "nobody"}, "valid email"),
        ({"username": "no spaces"}, "valid username"),
    ],
)
def test_bad_input_is_refused_beside_its_field_and_the_link_lives_on(client, path, change, says):
    response = client.post(path, FORM | change)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert not get_user_model().objects.exists()
    assert client.post(path, FORM).status_code == 302


def test_the_form_is_protected_against_other_sites(path):
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(path, FORM).status_code == 403
    assert not get_user_model().objects.exists()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_fifty_racing_visitors_make_exactly_one_account_a5():
    token = SetupToken.rotate()
    path = reverse("setup", args=[token])
    together = threading.Barrier(50)
    statuses: list[int] = []

    def visit(number: int) -> None:
        try:
            together.wait(30)
            response = Client().post(path, FORM | {"username": f"user{number}", "email": f"user{number}@example.org"})
            statuses.append(response.status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=visit, args=[number]) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(statuses) == [302] + [404] * 49
    assert get_user_model().objects.count() == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_fifty_racing_redeemers_past_the_page_make_exactly_one_account_a5():
    """As above without the page's own check, so that the compare-and-set alone must decide."""
    token = SetupToken.rotate()
    together = threading.Barrier(50)
    outcomes: list[str] = []

    def redeem(number: int) -> None:
        try:
            connection.ensure_connection()
            together.wait(30)
            SetupToken.redeem(token, username=f"user{number}", email="", password=PASSWORD)
            outcomes.append("made")
        except SetupIsOver:
            outcomes.append("over")
        finally:
            connections.close_all()

    size = 12 if connection.vendor == "postgresql" else 50  # the pool holds 16 connections
    together = threading.Barrier(size)
    threads = [threading.Thread(target=redeem, args=[number]) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(outcomes) == ["made"] + ["over"] * (size - 1)
    assert get_user_model().objects.count() == 1
