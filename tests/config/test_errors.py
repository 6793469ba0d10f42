"""Error pages: our look, a number, nothing about the inside, and no second failure on the way (I21)."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory

from config import asgi, views
from tests.asgi import ask
from tests.services import free_port


def test_a_missing_page_is_404_in_our_frame_for_strangers_too(client, db):
    response = client.get("/nothing/here/")
    assert response.status_code == 404
    assert "Nothing here" in response.content.decode()


def test_the_500_page_needs_neither_database_nor_request(rf):
    response = views.server_error(rf.get("/"))
    assert response.status_code == 500
    assert "Something went wrong on our side" in response.content.decode()


def test_if_even_the_500_page_breaks_a_sentence_remains(rf, monkeypatch):
    monkeypatch.setattr("config.views.render_to_string", lambda *_: 1 / 0)
    response = views.server_error(rf.get("/"))
    assert (response.status_code, response.content) == (
        500, b"Something went wrong here. Tell your administrator this number: ",
    )  # fmt: skip


def test_a_view_that_breaks_shows_no_detail(alice, monkeypatch):
    client = Client(raise_request_exception=False)
    client.force_login(alice)
    monkeypatch.setattr("allauth.account.views.EmailView.get", lambda *_, **__: {}["a secret detail"])
    response = client.get("/sign-in/email/")
    assert response.status_code == 500
    assert "secret" not in response.content.decode()


def test_a_stale_form_says_what_to_do(db):
    response = Client(enforce_csrf_checks=True).post("/sign-in/login/", {})
    assert response.status_code == 403
    assert "reload the page" in response.content.decode()


def test_what_django_cannot_read_is_400_in_our_frame(client, db):
    response = client.post("/sign-in/login/", {"login": "x" * 5_000_000})
    assert response.status_code == 400
    assert "could not be read" in response.content.decode()


def test_a_database_that_is_away_is_503_and_says_when_to_come_back_f26(alice, monkeypatch):
    def away(*_, **__):
        raise OperationalError("server closed the connection: password=hunter2")

    client = Client(raise_request_exception=False)
    client.force_login(alice)
    monkeypatch.setattr("allauth.account.views.EmailView.get", away)
    response = client.get("/sign-in/email/")
    assert (response.status_code, response["retry-after"]) == (503, "5")
    assert "hunter2" not in response.content.decode()


def test_signing_in_while_redis_is_away_is_503_not_an_open_throttle_f27(alice, settings):
    dead = f"redis://127.0.0.1:{free_port()}/0"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": dead}}
    client = Client(raise_request_exception=False)
    response = client.post("/sign-in/login/", {"login": "alice", "password": "alice's password"})
    assert response.status_code == 503
    assert "_auth_user_id" not in client.session


@pytest.mark.django_db(transaction=True)
async def test_the_number_on_the_page_is_the_one_in_the_header_i21():
    answer = await ask(asgi.application, "GET", "/nothing/here/")
    assert answer.status == 404
    assert answer.header("x-request-id").encode() in answer.body


def test_health_says_ok_and_without_a_database_503_without_why(client, db, monkeypatch):
    response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")

    class Away:
        def cursor(self):
            raise OperationalError("password=hunter2")

    monkeypatch.setattr("config.views.connection", Away())
    response = views.healthz(RequestFactory().get("/healthz"))
    assert (response.status_code, response.content) == (503, b"database unreachable\n")


def test_too_many_tries_from_one_address_is_429_in_our_frame_a11(client, db, settings):
    settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "login": "2/m/ip"}
    answers = [
        client.post("/sign-in/login/", {"login": f"user{number}", "password": "x"}, REMOTE_ADDR="127.0.3.1")
        for number in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "Nothing is locked for good" in answers[-1].content.decode()
