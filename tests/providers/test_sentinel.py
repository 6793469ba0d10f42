"""Sentinel sweep: after keys named sk-SENTINEL-… were added, refused, replaced, tested, synced and lost in crashes,
nothing the product kept or said holds one (K4, K5, I4)."""

from __future__ import annotations

import logging
import pickle
import sys

import pytest
from django.apps import apps
from django.contrib.messages import get_messages
from django.core.cache import cache
from django.core.signals import got_request_exception
from django.db import connection
from django.views.debug import ExceptionReporter

from catalog import sync
from catalog.tasks import sync_account_task
from providers.models import Provider, ProviderAccount

from .conftest import note_in

pytestmark = pytest.mark.slow

HTMX = {"HX-Request": "true"}
KEYS = [f"sk-SENTINEL-{n}-abcdefghijkl" for n in range(6)]
HEADER = "SENTINEL-header-value"


def database_text() -> str:
    """Every value of every column of every table, as text."""
    cells: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            cells.extend(str(bytes(v) if isinstance(v, memoryview) else v) for row in cursor.fetchall() for v in row)
    return "\n".join(cells)


@pytest.fixture
def said(caplog, monkeypatch):
    """All the product says while a test runs: log records whole, tasks with their arguments."""
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "aiohttp", "httpx", "httpcore", "django.request", "django.db.backends"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    tasks: list[object] = []
    monkeypatch.setattr(sync_account_task, "delay", lambda *args, **kwargs: tasks.append((args, kwargs)))

    def text() -> str:
        records = [f"{record.__dict__!r} {record.getMessage()} {record.exc_text}" for record in caplog.records]
        return "\n".join([*records, repr(tasks)])

    text.tasks = tasks  # type: ignore[attr-defined]
    yield text
    logging.getLogger("django.db.backends").setLevel(logging.NOTSET)


def echoing(heard):
    """A hostile provider: it repeats the key in the status, the body and the model list."""
    key = heard.headers.get("authorization", "")
    if heard.path.endswith("/models"):
        return 200, {"data": [{"id": "alpha", "name": f"Alpha {key}"}]}
    return 500, {"error": {"message": f"I saw {key} and {heard.headers.get('x-secret', '')}", "code": key}}


def test_K4_K5_no_key_is_anywhere_after_everything_that_can_happen_to_one(
    alice, alice_client, sam_client, router, server, said, settings, django_capture_on_commit_callbacks
):
    pages: list[str] = []

    def post(url, **data):
        with django_capture_on_commit_callbacks(execute=True):
            response = alice_client.post(url, data, headers=HTMX)
        pages.append(
            response.content.decode() + repr(response.headers) + repr(list(get_messages(response.wsgi_request)))
        )
        return response

    def add(**data):
        """Both steps of the dialog."""
        response = post(create, **data)
        if note := note_in(response):
            response = post(create, **data, checked=note, accept_unverified="on")
        return response

    server.keys = {KEYS[0], KEYS[1]}
    create = "/accounts/create/"
    headers = f"X-Secret: {HEADER}"
    # added, duplicate, wrong, unsendable, over http, at a custom address, at one that may not be called
    assert add(provider=router.pk, label="A", api_key=KEYS[0], extra_headers=headers).status_code == 200
    assert post(create, provider=router.pk, label="A", api_key=KEYS[0]).status_code == 422
    assert post(create, provider=router.pk, label="A", api_key=KEYS[2]).status_code == 422
    assert post(create, provider=router.pk, label="A", api_key=KEYS[2] + "\nx").status_code == 422
    assert post(create, provider=router.pk, label="", priority="zz", api_key=KEYS[2]).status_code == 422
    settings.ALLOW_UNSEALED_KEYS = False
    assert post(create, provider=router.pk, label="A", api_key=KEYS[1]).status_code == 422
    settings.ALLOW_UNSEALED_KEYS = True
    assert post(create, provider="custom", base_url="http://10.0.0.1/v1", api_key=KEYS[2]).status_code == 422
    assert add(provider="custom", base_url="http://keys.internal/v1", api_key=KEYS[1]).status_code == 200
    # a provider that repeats all it hears
    server.answer = echoing
    assert add(provider=router.pk, label="E", api_key=KEYS[3], extra_headers=headers).status_code == 200
    for account in ProviderAccount.objects.for_user(alice):
        post(f"/accounts/{account.pk}/test/")
        post(f"/accounts/{account.pk}/sync/")
        sync.sync_account(account)
        post(f"/accounts/{account.pk}/edit/", label="B", base_url="http://other.internal/v1", is_active="on")
        post(f"/accounts/{account.pk}/edit/", label="B", is_active="on", base_url=account.base_url, api_key=KEYS[4])
        for path in ("edit", "remove", "row"):
            pages.append(alice_client.get(f"/accounts/{account.pk}/{path}/", headers=HTMX).content.decode())
        pages.append(sam_client.get(f"/admin/providers/provideraccount/{account.pk}/change/").content.decode())
    for url in ("/accounts/", "/accounts/add/", f"/accounts/add/?provider={router.pk}"):
        pages.append(alice_client.get(url, headers=HTMX if "add" in url else {}).content.decode())
    pages.append(sam_client.get("/admin/providers/provideraccount/").content.decode())

    assert {key for key in server.sent_keys if "SENTINEL" in key} >= {KEYS[0], KEYS[1], KEYS[2], KEYS[3], KEYS[4]}
    assert said.tasks
    database = database_text()
    for text in (*pages, database, said(), repr(getattr(cache, "_cache", ""))):
        assert "SENTINEL" not in text
    for account in ProviderAccount.objects.all():
        assert b"SENTINEL" not in pickle.dumps(account)


def test_K4_the_sweep_would_see_a_key_that_was_kept(alice, router, said):
    """The sweep proves itself: planted in a column and in a log, a key is found."""
    ProviderAccount.objects.create(owner=alice, provider=router, label=KEYS[0])
    logging.getLogger("providers").info("calling with %s", KEYS[1])
    assert KEYS[0] in database_text()
    assert KEYS[1] in said()


@pytest.mark.parametrize(
    "broken",
    [
        "catalog.sync.queue",
        "providers.forms.AddAccountForm.save",
        "providers.checking.async_to_sync",
        "providers.vault._seal",
    ],
)
def test_K4_the_report_of_a_crash_while_a_key_is_in_hand_does_not_hold_it(
    alice_client, router, server, monkeypatch, broken
):
    def crash(*args, **kwargs):
        raise RuntimeError("planted")

    reports: list[str] = []

    def report(sender, request, **kwargs):
        reporter = ExceptionReporter(request, *sys.exc_info(), is_email=True)
        reports.append(reporter.get_traceback_text() + reporter.get_traceback_html())

    server.keys = {KEYS[5]}
    data = {"provider": router.pk, "label": "A", "api_key": KEYS[5], "extra_headers": f"X-Secret: {HEADER}"}
    if broken in {"catalog.sync.queue", "providers.forms.AddAccountForm.save"}:  # reached by the second step
        data["checked"] = note_in(alice_client.post("/accounts/create/", data, headers=HTMX))
    monkeypatch.setattr(broken, crash)
    got_request_exception.connect(report)
    alice_client.raise_request_exception = False
    try:
        response = alice_client.post("/accounts/create/", data, headers=HTMX)
    finally:
        got_request_exception.disconnect(report)
    assert response.status_code == 500
    assert "planted" in reports[0]
    for text in (*reports, response.content.decode(), database_text()):
        assert "SENTINEL" not in text


def test_K4_no_model_of_the_product_shows_a_secret_in_its_repr(alice, router):
    account = ProviderAccount(
        owner=alice, provider=router, label="x", api_key_encrypted="SENTINEL", api_key_hash="SENTINEL"
    )
    assert "SENTINEL" not in f"{account!r} {account} {account.client!r}"
    assert apps.get_model("providers", "Provider") is Provider
