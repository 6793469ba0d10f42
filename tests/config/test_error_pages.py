"""Error pages hold nothing after they were sent (I20): Django makes them in threads that no request owns."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import Client

from config import hot
from config.dispatcher import Dispatcher
from tests.asgi import ask


@pytest.fixture
def opened(transactional_db):
    """Every connection that is opened from now on."""
    seen = []

    def note(connection, **kwargs):
        seen.append(connection)

    connection_created.connect(note)
    yield seen
    connection_created.disconnect(note)


@pytest.fixture
def cookie(alice):
    client = Client()
    client.force_login(alice)
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/no/such/page/", 404),
        ("GET", "/c/00000000-0000-0000-0000-000000000007/", 404),
        ("POST", "/sign-in/logout/", 403),
        ("GET", "/admin/login/?next=/admin/", 403),
        ("GET", "/usage/", 500),
    ],
)
async def test_no_error_page_keeps_a_connection_i20(method, path, status, opened, cookie, monkeypatch):
    """Each would stay out of the pool for good, and break for good when the database restarts (F26, I19)."""
    monkeypatch.setattr("usage.reports.period", lambda text: 1 / 0)
    app = Dispatcher(get_asgi_application(), hot.ROUTES)
    before = len(opened)
    answers = await asyncio.gather(*(ask(app, method, path, headers=cookie) for _ in range(5)))
    assert [answer.status for answer in answers] == [status] * 5
    await sync_to_async(connections.close_all)()
    assert opened[before:], "they did ask the database"
    assert [one for one in opened[before:] if one.connection is not None] == []
