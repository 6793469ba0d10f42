"""Who may do what (A1, A7, I2): every route × every kind of caller × every method, against tables written by hand.

A route without an entry fails the suite, so that a new page says whose it is before it is merged. "A stranger" is Bob,
who is signed in and owns things of his own; to him Alice's ids are ids that do not exist: the same status, the same
body. Staff are strangers too, outside the admin.
"""

from __future__ import annotations

import ast
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from catalog.models import PRICE_COLUMNS, AccountModel, AggregatorModel, ModelAlias
from chat import generation
from config import hot
from config.dispatcher import Dispatcher
from providers import checking, vault
from providers.clients.base import Probe
from providers.models import Provider, ProviderAccount
from tests.asgi import ask
from tests.routes import path_of, walk
from tests.source_tree import APPS, chain, dotted, literal, parsed, python
from tests.world import Things, mark, missing_id, things_of
from usage import tokens

# Left to `make test`: a table this long costs more than the fast part may take.
pytestmark = pytest.mark.slow

LOGIN = "/sign-in/login/"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
HTMX = {"HX-Request": "true"}

# -- The tables ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """What the owner gets by each method; a method without a status is 405.

    `of` names the thing in the address: an attribute of `Things`. `public` says why nobody need sign in. `sends` is
    what the owner posts; `asks`, their query; `htmx`, that the page is asked for by htmx.
    """

    get: int | None = None
    post: int | None = None
    of: str = ""
    public: str = ""
    sends: Callable[[Things], dict[str, Any]] = lambda mine: {}
    asks: Callable[[Things], dict[str, Any]] = lambda mine: {}
    htmx: bool = False
    head: bool = False

    @property
    def methods(self) -> dict[str, int]:
        given = {"GET": self.get, "POST": self.post, "HEAD": self.get if self.head else None}
        return {name: status for name, status in given.items() if status is not None}


def message(mine: Things) -> dict[str, Any]:
    return {"text": "Hello", "model": mine.model.pk, "account": mine.account.pk, "client_key": uuid.uuid4()}


PAGES: dict[str, Page] = {
    "healthz": Page(get=200, head=True, public="says whether the process answers, and nothing else"),
    "setup/<str:token>/": Page(get=404, post=404, public="makes the first account, by a one-time link; dead afterwards"),
    # providers
    "accounts/": Page(get=200),
    "accounts/add/": Page(get=200, htmx=True),
    "accounts/create/": Page(
        post=302, sends=lambda mine: {"provider": mine.provider.pk, "label": "New", "api_key": "sk-another-0123456789"}
    ),
    "accounts/address/": Page(post=200, sends=lambda mine: {"base_url": "https://x.example/v1"}),
    "accounts/sealing/": Page(post=200, sends=lambda mine: {"purpose": "add-account"}),
    "accounts/<uuid:pk>/row/": Page(get=200, of="account", htmx=True),
    "accounts/<uuid:pk>/test/": Page(post=200, of="account", htmx=True),
    "accounts/pulse/": Page(get=200),
    "accounts/<uuid:pk>/prove/": Page(get=200, post=200, of="account"),
    "accounts/<uuid:pk>/move/": Page(post=200, of="account", htmx=True, sends=lambda mine: {"to": "up"}),
    "accounts/<uuid:pk>/sync/": Page(post=200, of="account", htmx=True),
    "accounts/<uuid:pk>/edit/": Page(
        get=200, post=302, of="account",
        sends=lambda mine: {"label": "Renamed", "base_url": mine.provider.base_url, "is_active": "on"},
    ),
    "accounts/<uuid:pk>/remove/": Page(get=200, post=302, of="account"),
    # catalog
    "models/": Page(get=200),
    "models/select/": Page(get=200),
    "models/aliases/": Page(get=200),
    "models/aliases/new/": Page(
        get=200, post=302, sends=lambda mine: {"name": "fast", "targets": [mine.model.model_id], "do": "save"}
    ),
    "models/aliases/suggest/": Page(get=200, asks=lambda mine: {"new": mark(mine.owner)}, htmx=True),
    "models/aliases/<int:pk>/": Page(
        get=200, post=302, of="alias",
        sends=lambda mine: {"name": "renamed", "targets": [mine.model.model_id], "do": "save"},
    ),
    "models/aliases/<int:pk>/delete/": Page(get=200, post=302, of="alias"),
    "models/aliases/<int:pk>/restore/": Page(
        post=302, of="alias", sends=lambda mine: {"version": mine.alias_version.pk}
    ),
    "models/<int:pk>/probe/": Page(
        get=200, post=302, of="model", sends=lambda mine: {"what": ["tools"], "account": mine.account.pk}
    ),
    "models/probes/<uuid:pk>/": Page(get=200, of="probe"),
    "models/probes/<uuid:pk>/stop/": Page(post=302, of="probe"),
    "models/<int:pk>/sellers/": Page(get=200, of="model", htmx=True),
    "models/compare/": Page(get=200, asks=lambda mine: {"m": mine.model.pk}),
    "models/export.csv": Page(get=200),
    "models/filters/save/": Page(get=200, post=302, sends=lambda mine: {"name": "Cheap", "free": "on"}),
    "models/filters/<int:pk>/delete/": Page(post=302, of="saved"),
    "models/hidden/": Page(get=200, post=302, sends=lambda mine: {"glob": "*-preview", "price_cap": "3"}),
    "models/hidden/<int:pk>/delete/": Page(post=302, of="rule"),
    "models/<int:pk>/details/": Page(get=200, of="model"),
    "models/<int:pk>/favourite/": Page(post=200, of="model", htmx=True),
    "models/<int:pk>/price/": Page(get=200, post=302, of="model", sends=lambda mine: {"price_input": "0.7"}),
    "models/syncs/<uuid:pk>/": Page(get=200, of="run"),
    "models/changes/": Page(get=200),
    "models/changes/<int:pk>/": Page(get=200, of="change_set"),
    "models/<int:pk>/": Page(get=200, of="model"),
    # usage
    "usage/": Page(get=200, head=True),
    "notices/": Page(get=200),
    "notices/read/": Page(post=302, sends=lambda mine: {"until": mine.notice.pk}),
    "notices/<int:pk>/read/": Page(post=302, of="notice"),
    "usage/tokens/": Page(get=200),
    "usage/tokens/new/": Page(post=200, sends=lambda mine: {"name": "editor", "days": "7"}),
    "usage/tokens/<uuid:pk>/revoke/": Page(post=302, of="token"),
    # chat
    "": Page(get=200),
    "send/": Page(post=302, sends=message),
    "c/<uuid:pk>/": Page(get=200, of="conversation"),
    "c/<uuid:pk>/send/": Page(post=302, of="conversation", sends=message),
    "c/<uuid:pk>/earlier/": Page(get=200, of="conversation", asks=lambda mine: {"before": mine.reply.pk}),
    "c/<uuid:pk>/rename/": Page(get=200, post=302, of="conversation", sends=lambda mine: {"title": "Renamed"}),
    "c/<uuid:pk>/delete/": Page(get=200, post=302, of="conversation"),
    "chat/messages/<int:pk>/retry/": Page(post=302, of="reply", sends=message),
    "chat/generations/<uuid:pk>/stop/": Page(post=302, of="generation"),
    "chat/picker/": Page(get=200),
    "chat/models/": Page(get=200),
    "chat/sidebar/": Page(get=200),
    "chat/try/<int:pk>/": Page(post=404, of="provider"),  # built-in ones that need no key alone: see the test
}  # fmt: skip

STRANGERS = "needed by people who cannot sign in yet"
SIGN_IN: dict[str, tuple[int, int, str]] = {
    # route: (anonymous GET, member GET, why anonymous people may see it; "" if they are sent to sign in)
    "sign-in/login/": (200, 302, STRANGERS),
    "sign-in/logout/": (302, 200, "sends on to signing in; ends nothing without a POST"),
    "sign-in/inactive/": (200, 200, "says that an account was switched off"),
    "sign-in/signup/": (200, 302, "says that sign-up is closed, unless the operator opened it"),
    "sign-in/reauthenticate/": (302, 200, ""),
    "sign-in/email/": (302, 200, ""),
    "sign-in/confirm-email/": (200, 200, STRANGERS),
    "sign-in/password/change/": (302, 200, ""),
    "sign-in/password/set/": (302, 302, ""),
    "sign-in/password/reset/": (200, 200, STRANGERS),
    "sign-in/login/code/confirm/": (302, 302, "leads back to signing in: we send no codes"),
    r"sign-in/^confirm-email/(?P<key>[-:\w]+)/$": (200, 200, "opened from a mail, by a signed key"),
    "sign-in/password/reset/key/done/": (200, 200, STRANGERS),
    r"sign-in/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": (
        200,
        200,
        "opened from a mail, by a signed key",
    ),
    "sign-in/password/reset/done/": (200, 200, STRANGERS),
}
SIGN_IN_ADDRESSES = {
    r"sign-in/^confirm-email/(?P<key>[-:\w]+)/$": "/sign-in/confirm-email/nonsense/",
    r"sign-in/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": "/sign-in/password/reset/key/1-nonsense/",
}

ADMIN_PAGES: dict[str, tuple[int, int, str]] = {
    # route: (staff without any permission, administrator, address)
    "admin/": (200, 200, "/admin/"),
    "admin/login/": (302, 302, "/admin/login/"),
    "admin/logout/": (405, 405, "/admin/logout/"),  # by POST alone
    "admin/password_change/": (200, 200, "/admin/password_change/"),
    "admin/password_change/done/": (200, 200, "/admin/password_change/done/"),
    "admin/autocomplete/": (403, 403, "/admin/autocomplete/"),
    "admin/jsi18n/": (200, 200, "/admin/jsi18n/"),
    "admin/r/<path:content_type_id>/<path:object_id>/": (404, 404, "/admin/r/999/1/"),
    "admin/^(?P<app_label>…)/$": (404, 200, "/admin/chat/"),
    "admin/(?P<url>.*)$": (404, 404, "/admin/nothing/here/"),
    "admin/auth/user/<id>/password/": (403, 200, "/admin/auth/user/{user}/password/"),
}
ADMIN_TABLES: dict[str, str] = {
    # What an administrator may do with a table's rows in the admin, besides looking at them.
    "chat.Conversation": "",
    "chat.Message": "",
    "chat.Generation": "",
    "usage.UsageLog": "",
    "usage.DailyUsage": "",
    "usage.ApiToken": "",
    "usage.Notice": "",
    "providers.Provider": "add change delete",
    "providers.ProviderAccount": "change delete",
    "catalog.AggregatorModel": "change",
    "catalog.ModelAlias": "add change delete",
    "catalog.CapabilityProbe": "",
    "catalog.ModelAliasVersion": "",
    "catalog.ModelGroupRule": "add change delete",
    "catalog.FavouriteModel": "",
    "catalog.SavedFilter": "",
    "catalog.HideRule": "",
    "catalog.SyncRun": "",
    "catalog.ModelChange": "",
    "catalog.ChangeSet": "",
    "catalog.AccountModel": "",
    "catalog.PastOffer": "",
    "catalog.CatalogVersion": "",
    "catalog.OwnPrice": "",
    "auth.Group": "add change delete",
    "auth.User": "add change delete",
    "account.EmailAddress": "add change delete",
}
TABLE_ROUTES = (
    "",
    "add/",
    "<path:object_id>/history/",
    "<path:object_id>/delete/",
    "<path:object_id>/change/",
    "<path:object_id>/",
)

HOT: dict[str, str] = {
    # route: what is in its address
    "generation-events": "Alice's generation",
    "v1-chat-completions": "nothing; the body names a model",
    "v1-models": "nothing",
    "v1-model": "a model's id",
    "v1-nothing": "anything",
}


def short(route: str) -> str:
    """The admin's list of app labels is no part of a route's identity."""
    return re.sub(r"(?<=<app_label>)[\w|]+", "…", route)


def without_entry(routes: list[str]) -> list[str]:
    """Routes that none of the tables speaks of."""
    tables = {f"admin/{label.lower().replace('.', '/')}/{rest}" for label in ADMIN_TABLES for rest in TABLE_ROUTES}
    known = {*PAGES, *SIGN_IN, *ADMIN_PAGES, *tables}
    return [route for route in routes if short(route) not in known]


@pytest.mark.once
def test_every_route_has_an_entry_and_every_entry_a_route():
    routes = [route for route, _ in walk()]
    assert len(routes) > 100
    assert without_entry(routes) == [], "say in the table who may come in there"
    assert {*PAGES, *SIGN_IN, *ADMIN_PAGES} <= {short(route) for route in routes}, "an entry for a route that is gone"
    assert set(ADMIN_TABLES) == {model._meta.label for model in admin.site._registry}
    assert {route.name for route in hot.ROUTES} == set(HOT)


@pytest.mark.once
@pytest.mark.parametrize("planted", ["c/<uuid:pk>/export/", "usage/all/", "admin/chat/note/", "sign-in/magic/"])
def test_a_planted_route_without_an_entry_is_found(planted):
    assert without_entry([*PAGES, planted]) == [planted]


@pytest.mark.once
def test_routes_that_name_a_thing_say_which():
    for route, page in PAGES.items():
        assert ("<" in route) == bool(page.of or route == "setup/<str:token>/"), route


# -- The world, and what an answer is --------------------------------------------------------------------------------


@dataclass
class World:
    alice: Things
    bob: Things
    keyless: Provider


@pytest.fixture
def world(alice, bob, monkeypatch, settings) -> World:
    """Alice and Bob with a row of everything each; keys are found valid, replies do not start."""
    settings.ALLOW_UNSEALED_KEYS = True  # there is no browser here to seal one
    monkeypatch.setattr(
        checking, "check", lambda account: Probe(verdict="valid", request="GET /key", reason="It works.")
    )
    monkeypatch.setattr(generation, "start", lambda pk: None)
    keyless = Provider.objects.create(
        name="nokey", display_name="No key", base_url="https://nokey.example/v1", features={"keyless": True}
    )
    return World(things_of(alice), things_of(bob), keyless)


def client_of(user: Any = None, **options: Any) -> Client:
    client = Client(**options)
    if user is not None:
        client.force_login(user)
    return client


def request(
    client: Client, method: str, path: str, page: Page, mine: Things, changed: dict[str, Any] | None = None
) -> Any:
    """Ask as the page's own forms and links do. `changed` goes into the query of a GET, or the body of a POST."""
    headers = HTMX if page.htmx else {}
    changed = changed or {}
    if method in {"GET", "HEAD"}:
        return client.generic(method, path, headers=headers, QUERY_STRING=_query({**page.asks(mine), **changed}))
    if method == "POST":
        return client.post(path, {**page.sends(mine), **changed}, headers=headers)
    return client.generic(method, path, headers=headers)


def _query(asked: dict[str, Any]) -> str:
    return "&".join(f"{name}={value}" for name, value in asked.items())


def plain(response: Any, *ids: Any) -> tuple[int, str, dict[str, str]]:
    """(status, body, headers) without what differs in any two answers, and with `ids` all alike."""
    text = response.content.decode()
    text = re.sub(r"[0-9A-Za-z]{64}", "CSRF", text)
    text = re.sub(r'(nonce="|name="client_key" value=")[^"]+', r"\1…", text)
    headers = {name: value for name, value in response.headers.items() if name not in CHANGING}
    for one in map(str, ids):
        text = text.replace(one, "ID")
        headers = {name: value.replace(one, "ID") for name, value in headers.items()}
    return response.status_code, text, headers


CHANGING = {"Content-Security-Policy", "Content-Length", "Expires"}
"""Headers that differ by a nonce, by the length of an id, by the clock."""

OURS = [model for model in apps.get_models() if model._meta.app_label in {*APPS, "auth", "admin", "account"}]


def columns_of(model: Any) -> list[Any]:
    """All but "last signed in", which every sign-in moves."""
    return [field for field in model._meta.concrete_fields if field.name != "last_login"]


def rows() -> dict[str, list[tuple]]:
    """Every row of every table that says something (sessions do not), as Python values."""
    return {
        model._meta.label: list(
            model.objects.order_by("pk").values_list(*(field.attname for field in columns_of(model)))
        )
        for model in OURS
    }


def database() -> dict[str, list[tuple]]:
    """The same as the database gives it: only to be compared with itself, and quick."""
    found = {}
    with connection.cursor() as cursor:
        quote = connection.ops.quote_name
        for model in OURS:
            names = ", ".join(quote(field.column) for field in columns_of(model))
            cursor.execute(f"SELECT {names} FROM {quote(model._meta.db_table)} ORDER BY {quote(model._meta.pk.column)}")
            found[model._meta.label] = cursor.fetchall()
    return found


def cases(*, owned: bool | None = None) -> list[Any]:
    """(route, page) of the table: those that name a thing of somebody's, the others, or all."""
    return [
        pytest.param(route, page, id=route or "/")
        for route, page in PAGES.items()
        if owned is None or bool(page.of) == owned
    ]


def subject(page: Page, mine: Things) -> Any:
    return getattr(mine, page.of).pk if page.of else "nothing"


# -- Pages: anonymous, stranger, owner -------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "page"), cases())
@pytest.mark.once
def test_anonymous_people_are_sent_to_sign_in_whatever_they_ask_for(route, page, world):
    before, client = database(), client_of()
    for method, status in page.methods.items():
        there = request(client, method, path_of(route, subject(page, world.alice)), page, world.alice)
        if page.public:
            assert there.status_code == status
            assert mark(world.alice.owner) not in there.content.decode()
            continue
        assert there.status_code == 302, method
        assert there["location"].startswith(LOGIN), method
        if page.of:
            gone = missing_id(getattr(world.alice, page.of))
            nowhere = request(client, method, path_of(route, gone), page, world.alice)
            assert plain(there, subject(page, world.alice), gone) == plain(nowhere, subject(page, world.alice), gone)
    assert database() == before


@pytest.mark.parametrize(("route", "page"), cases(owned=True))
def test_to_a_stranger_alices_ids_are_ids_that_do_not_exist_a1_i2(route, page, world, sam):
    before = database()
    mine, gone = subject(page, world.alice), missing_id(getattr(world.alice, page.of))
    for user in (world.bob.owner, sam):
        client = client_of(user)
        for method in page.methods:
            for htmx in (False, True):
                asked = Page(**{**vars(page), "htmx": htmx})
                there = request(client, method, path_of(route, mine), asked, world.alice)
                nowhere = request(client, method, path_of(route, gone), asked, world.alice)
                assert there.status_code == 404, (method, user)
                assert plain(there, mine, gone) == plain(nowhere, mine, gone), (method, user)
    assert database() == before, "and nothing happened"


@pytest.mark.parametrize(("route", "page"), cases())
def test_the_owner_gets_what_the_table_says_and_no_other_method(route, page, world):
    client = client_of(world.alice.owner)
    path = path_of(route, subject(page, world.alice))
    before = database()
    for method in METHODS:
        if method in page.methods or (page.public and method == "OPTIONS"):
            continue
        refused = request(client, method, path, page, world.alice)
        assert refused.status_code == 405, method
        assert set(refused["allow"].split(", ")) == set(page.methods), method
    if page.get is not None:
        seen = request(client, "GET", path, page, world.alice)
        assert seen.status_code == page.get
    assert database() == before, "reading, and asking by a method that is not there, change nothing (A7)"
    if page.post is not None:
        done = request(client, "POST", path, page, world.alice)
        assert done.status_code == page.post, done.content.decode()[:2000]


CHANGES_NOTHING = {
    "accounts/<uuid:pk>/prove/": "nobody has agreed to this price",
    "accounts/<uuid:pk>/move/": "it is her only one",
    "accounts/address/": "says how an address is read",
    "chat/generations/<uuid:pk>/stop/": "the reply has ended already",
    "models/probes/<uuid:pk>/stop/": "the probe has ended already",
    "chat/try/<int:pk>/": "hers is not built in",
    "setup/<str:token>/": "the link is dead",
}


@pytest.mark.parametrize(("route", "page"), [case for case in cases() if case.values[1].post])
def test_what_the_owner_posts_is_done_to_hers_and_to_nobody_elses(route, page, world):
    before = database()
    request(client_of(world.alice.owner), "POST", path_of(route, subject(page, world.alice)), page, world.alice)
    after = database()
    assert (after == before) == (route in CHANGES_NOTHING), route
    for model, row in world.bob.rows.items():
        place, key = columns_of(model).index(model._meta.pk), model._meta.pk.get_db_prep_value(row.pk, connection)
        [was], [now] = ([one for one in state[model._meta.label] if one[place] == key] for state in (before, after))
        assert was == now, model


@pytest.mark.parametrize(("route", "page"), [case for case in cases() if case.values[1].post])
@pytest.mark.once
def test_a_post_without_the_token_of_our_own_page_is_refused_a7(route, page, world):
    before = database()
    client = client_of(None if page.public else world.alice.owner, enforce_csrf_checks=True)
    refused = request(client, "POST", path_of(route, subject(page, world.alice)), page, world.alice)
    assert refused.status_code == 403
    assert "csrf" not in refused.content.decode().lower() or "form" in refused.content.decode()
    assert database() == before


@pytest.mark.parametrize(("route", "page"), cases(owned=False))
def test_no_page_of_bobs_shows_anything_of_alices_i2(route, page, world):
    client = client_of(world.bob.owner)
    for method in [name for name in page.methods if name != "HEAD"]:
        for changed in ({}, {"q": "alice"}, {"q": "only"}):
            if changed and method == "POST":
                continue
            shown = request(client, method, path_of(route, "nothing"), page, world.bob, changed)
            assert mark(world.alice.owner) not in shown.content.decode(), (route, method)
            assert str(world.alice.account.pk) not in shown.content.decode(), (route, method)


def test_the_marks_would_be_seen_if_they_were_there(world):
    """Alice's own pages do show what Bob's are searched for."""
    client = client_of(world.alice.owner)
    showing = {
        route
        for route, page in PAGES.items()
        if page.get == 200
        and mark(world.alice.owner)
        in request(client, "GET", path_of(route, subject(page, world.alice)), page, world.alice).content.decode()
    }
    assert {
        "accounts/",
        "models/",
        "models/select/",
        "usage/",
        "usage/tokens/",
        "",
        "c/<uuid:pk>/",
        "chat/sidebar/",
    } <= showing


@pytest.mark.parametrize("who", ["disabled", "deleted"])
def test_a_user_who_is_disabled_or_gone_is_a_stranger_to_their_own_pages_a4(who, world):
    client = client_of(world.alice.owner)
    paths = [
        (method, path_of(route, subject(page, world.alice)), page)
        for route, page in PAGES.items()
        for method in page.methods
        if not page.public
    ]
    if who == "disabled":
        get_user_model().objects.filter(pk=world.alice.owner.pk).update(is_active=False)
    else:
        world.alice.owner.delete()
    for method, path, page in paths:
        answer = request(client, method, path, page, world.bob)
        assert (answer.status_code, answer["location"][: len(LOGIN)]) == (302, LOGIN), path


def test_a_keyless_provider_is_tried_by_its_id_only_if_it_is_built_in(world):
    client = client_of(world.bob.owner)
    assert client.post(path_of("chat/try/<int:pk>/", world.keyless.pk)).status_code == 302
    assert ProviderAccount.objects.for_user(world.bob.owner).filter(provider=world.keyless).exists()
    Provider.objects.filter(pk=world.alice.provider.pk).update(features={"keyless": True})
    assert client.post(path_of("chat/try/<int:pk>/", world.alice.provider.pk)).status_code == 404


# -- Ids inside queries and bodies -----------------------------------------------------------------------------------

REFERENCES: list[tuple[str, str, str, str]] = [
    # (method, route, name in the query or the body, the thing of Alice's that it would name)
    ("GET", "c/<uuid:pk>/", "at", "reply"),
    ("GET", "c/<uuid:pk>/earlier/", "before", "reply"),
    ("GET", "chat/picker/", "model", "model"),
    ("GET", "chat/models/", "model", "model"),
    ("GET", "chat/models/", "account", "account"),
    ("GET", "chat/models/", "parent", "reply"),
    ("GET", "models/select/", "now", "model"),
    ("GET", "models/select/", "via", "account"),
    ("GET", "models/select/", "provider", "provider"),
    ("GET", "models/", "provider", "provider"),
    ("GET", "models/compare/", "m", "model"),
    ("GET", "models/export.csv", "account", "account"),
    ("GET", "models/filters/save/", "account", "account"),
    ("GET", "chat/picker/", "account", "account"),
    ("GET", "chat/picker/", "alias", "alias"),
    ("POST", "send/", "alias", "alias"),
    ("POST", "c/<uuid:pk>/send/", "alias", "alias"),
    ("POST", "chat/messages/<int:pk>/retry/", "alias", "alias"),
    ("POST", "models/aliases/<int:pk>/restore/", "version", "alias_version"),
    ("GET", "models/<int:pk>/probe/", "account", "account"),
    ("POST", "models/<int:pk>/probe/", "account", "account"),
    ("POST", "send/", "model", "model"),
    ("POST", "send/", "account", "account"),
    ("POST", "send/", "parent", "question"),
    ("POST", "c/<uuid:pk>/send/", "model", "model"),
    ("POST", "c/<uuid:pk>/send/", "account", "account"),
    ("POST", "c/<uuid:pk>/send/", "parent", "question"),
    ("POST", "chat/messages/<int:pk>/retry/", "model", "model"),
    ("POST", "chat/messages/<int:pk>/retry/", "account", "account"),
    ("GET", "accounts/add/", "provider", "provider"),
    ("POST", "accounts/create/", "provider", "provider"),
    ("POST", "accounts/<uuid:pk>/move/", "before", "account"),
    ("POST", "accounts/<uuid:pk>/prove/", "model", "model"),
    ("GET", "models/", "account", "account"),
    ("GET", "models/select/", "account", "account"),
    ("GET", "usage/", "before", "usage"),
    ("GET", "models/changes/", "provider", "provider"),
]
NAME_NOTHING = {
    "text": "words", "client_key": "made by the page; looked up inside the writer's own conversation",
    "q": "words", "undo": "a choice", "scope": "mine or everybody's; only staff with the permission may", "offset": "a number of rows", "add": "opens the dialog", "base_url": "an address", "api_key": "a key",
    "extra_headers": "headers", "forget_headers": "a choice", "label": "words", "title": "words", "name": "words",
    "priority": "a number", "is_active": "a choice", "days": "a choice", "period": "a choice", "username": "words",
    "email": "an address", "password": "words", "purpose": "which form; kept with its ticket, never looked up",
    "to": "up or down", "kind": "a choice", "mine": "a choice", "after": "a place among the reader's own rows, never looked up", "until": "the same", "version": "a hash of what the form was drawn from, compared with the account's own",
    "sealed": "what the browser sealed; its ticket is looked up at the sender", "do": "a button's word",
    "new": "words", "targets": "names of models, looked up among the sender's own", "page": "a number of a page",
    "everybody": "a choice", "max_input": "a number", "max_output": "a number", "what": "choices of capabilities",
    "checked": "what a check found, signed for its sender, key and address", "accept_unverified": "a choice",
    "seen": "a hash of what was shown, compared with the sender's own",
    "tokens": "a count", "in": "a place on the page", "draft": "a count of bytes", "glob": "words", "price_cap": "a price",
}  # fmt: skip
BY_NAME = {"model": "usage/tokens/"}
"""Names of models, not ids: a stranger's is one the user does not have."""


@pytest.mark.parametrize(("method", "route", "name", "thing"), REFERENCES)
def test_a_strangers_id_in_a_query_or_body_is_one_that_does_not_exist_a1(method, route, name, thing, world):
    client, path = client_of(world.bob.owner), path_of(route, subject(PAGES[route], world.bob))
    theirs, gone = getattr(world.alice, thing).pk, missing_id(getattr(world.alice, thing))
    before = database()
    for htmx in {True, PAGES[route].htmx}:
        page = Page(**{**vars(PAGES[route]), "htmx": htmx})
        there = request(client, method, path, page, world.bob, {name: theirs})
        middle = database()
        nowhere = request(client, method, path, page, world.bob, {name: gone})
        assert plain(there, theirs, gone) == plain(nowhere, theirs, gone)
        assert mark(world.alice.owner) not in there.content.decode()
        assert middle == before == database(), "and nothing was stored"


def test_the_page_named_by_htmx_is_looked_up_at_its_reader_too(world):
    page, client = PAGES["chat/sidebar/"], client_of(world.bob.owner)
    answers = []
    ids = (world.alice.conversation.pk, missing_id(world.alice.conversation))
    for pk in ids:
        headers = {**HTMX, "HX-Current-URL": f"http://testserver/c/{pk}/"}
        answers.append(plain(client.get("/chat/sidebar/", headers=headers), *ids))
    assert page.get == answers[0][0]
    assert answers[0] == answers[1]


def test_a_model_named_on_the_tokens_page_is_one_of_the_readers_own(world):
    client = client_of(world.bob.owner)
    theirs, gone = world.alice.model.model_id, "no-such/model"
    pages = [client.get("/usage/tokens/", {"model": name}) for name in (theirs, gone)]
    assert plain(pages[0], theirs, gone) == plain(pages[1], theirs, gone)


def parameters(path: str, text: str) -> Iterator[str]:
    """Names that a view or form reads from a query or a body: by hand, or by the field of a form."""
    for node in ast.walk(parsed(path, text)):
        if isinstance(node, ast.Call):
            _, steps = chain(node.func)
            called = dotted(node.func)
            if not node.args:
                continue
            if (
                len(steps) >= 2 and steps[-2] in {"GET", "POST"} and steps[-1] in {"get", "getlist", "pop"}
            ) or re.fullmatch(r"(asked|data)\.(get|getlist|pop)", called):
                yield literal(node.args[0])
            elif called == "_number":
                yield literal(node.args[1])
        elif isinstance(node, ast.Subscript) and dotted(node.value).endswith((".GET", ".POST")):
            yield literal(node.slice)
        elif isinstance(node, ast.Compare) and dotted(node.comparators[0]).endswith((".GET", ".POST")):
            yield literal(node.left)
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Form"):
            for item in node.body:
                called = dotted(item.value.func) if isinstance(getattr(item, "value", None), ast.Call) else ""
                if isinstance(item, ast.Assign) and re.search(r"[Ff]ield$", called):
                    yield dotted(item.targets[0])


def unjudged(path: str, text: str) -> set[str]:
    judged = {name for _, _, name, _ in REFERENCES} | set(NAME_NOTHING) | set(BY_NAME) | {""}
    return set(parameters(path, text)) - judged


@pytest.mark.once
def test_every_parameter_a_page_reads_is_judged():
    read = [
        file for file in python() if re.search(r"(^|_|/)(views|forms)\.py$", file.path) and "/api/" not in file.path
    ]
    seen = {name for file in read for name in parameters(file.path, file.text)}
    assert {"model", "account", "parent", "provider", "before", "at", "text"} <= seen, "the search sees something"
    new = {file.path: names for file in read if (names := unjudged(file.path, file.text))}
    assert new == {}, "does it name an object? Then put it into REFERENCES"


@pytest.mark.once
@pytest.mark.parametrize(
    "text",
    [
        "x = request.GET.get('folder')",
        "x = request.POST['folder']",
        "x = self.request.POST.getlist('folder')",
        "x = 'folder' in request.GET",
        "x = _number(request, 'folder')",
        "class MoveForm(forms.Form):\n    folder = forms.UUIDField()",
        "class MoveForm(forms.Form):\n    folder = FolderField(required=False)",
    ],
)
def test_a_planted_parameter_is_found(text):
    assert unjudged("chat/views.py", text) == {"folder"}


@pytest.mark.once
@pytest.mark.parametrize(
    "text", ["x = request.GET.get('model')", "x = seen.get('folder')", "class A:\n    folder = Field()"]
)
def test_other_names_are_no_parameters(text):
    assert unjudged("chat/views.py", text) == set()


# -- What forms take over (A2) ---------------------------------------------------------------------------------------


def hostile_extras(mine: Things, theirs: Things, taken: set[str]) -> dict[str, Any]:
    """Every column of every owned model, as a form might take it over: owners and relations become Bob's."""
    extras: dict[str, Any] = {
        "is_staff": "on",
        "is_superuser": "on",
        "user": theirs.owner.pk,
        "user_id": theirs.owner.pk,
    }
    for model in mine.rows:
        for field in model._meta.concrete_fields:
            value: Any = "1"
            if field.is_relation:
                rows = {type(row): row for row in (*theirs.rows.values(), theirs.owner)}
                value = rows[field.related_model].pk
            elif field.get_internal_type() in {"DateTimeField", "DateField"}:
                value = "2001-01-01"
            elif field.choices:
                value = field.choices[-1][0]
            extras |= {field.name: value, field.attname: value}
    return {name: value for name, value in extras.items() if name not in taken}


FORM_FIELDS = {
    "accounts/<uuid:pk>/move/": {"to", "before"},
    "accounts/<uuid:pk>/prove/": {"model"},
    "accounts/sealing/": {"purpose"},
    "accounts/create/": {
        "provider",
        "label",
        "base_url",
        "api_key",
        "extra_headers",
        "priority",
        "sealed",
        "checked",
        "accept_unverified",
    },
    "accounts/<uuid:pk>/edit/": {
        "label",
        "base_url",
        "api_key",
        "extra_headers",
        "forget_headers",
        "priority",
        "is_active",
        "accept_unverified",
    },
    "models/filters/save/": {
        "name",
        "q",
        "type",
        "vision",
        "audio",
        "tools",
        "reasoning",
        "json",
        "free",
        "favourites",
        "context",
        "price",
        "provider",
        "account",
        "sort",
        "hidden",
    },
    "models/hidden/": {"glob", "price_cap"},
    "usage/tokens/new/": {"name", "days"},
    "models/aliases/new/": {"name", "targets", "max_input", "max_output"},
    "models/aliases/<int:pk>/": {"name", "targets", "max_input", "max_output"},
    "models/aliases/<int:pk>/restore/": {"version"},
    "models/<int:pk>/probe/": {"what", "account"},
    "models/<int:pk>/price/": {*PRICE_COLUMNS, "scope", "undo"},
    "send/": {"text", "model", "account", "alias", "parent", "client_key"},
    "c/<uuid:pk>/send/": {"text", "model", "account", "alias", "parent", "client_key"},
    "c/<uuid:pk>/rename/": {"title"},
    "chat/messages/<int:pk>/retry/": {"model", "account", "alias", "client_key", "text"},
    "accounts/address/": {"base_url"},
}


@pytest.mark.parametrize(
    ("route", "page"), [case for case in cases() if case.values[1].post and not case.values[1].public]
)
@pytest.mark.once
def test_columns_that_a_form_does_not_offer_are_not_taken_from_it_a2(route, page, world):
    taken = FORM_FIELDS.get(route, set())
    client, path = client_of(world.alice.owner), path_of(route, subject(page, world.alice))
    known = {
        (label, row[columns_of(apps.get_model(label)).index(apps.get_model(label)._meta.pk)])
        for label, table in rows().items()
        for row in table
    }
    states = []
    for extras in ({}, hostile_extras(world.alice, world.bob, taken)):
        with transaction.atomic():
            done = request(client, "POST", path, page, world.alice, extras)
            assert done.status_code == page.post, done.content.decode()[:1500]
            states.append(
                {
                    label: sorted((_settled(label, row, known) for row in table), key=repr)
                    for label, table in rows().items()
                }
            )
            transaction.set_rollback(True)
    assert states[0] == states[1]


RANDOM = {"lookup", "token_hash", "api_key_encrypted", "client_key", "process"}


def _settled(label: str, row: tuple, known: set[tuple[str, Any]]) -> list:
    """A row without what differs in any two runs: times, random texts, ids made in it."""
    kept: list[Any] = []
    for field, value in zip(columns_of(model := apps.get_model(label)), row, strict=True):
        of = field.related_model if field.is_relation else model
        if field.name in RANDOM or (field.get_internal_type() == "DateTimeField" and value and value.year > 2020):
            kept.append(bool(value))
        elif (field.primary_key or field.is_relation) and value is not None and (of._meta.label, value) not in known:
            kept.append("new")
        else:
            kept.append(value)
    return kept


# -- Signing in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", SIGN_IN)
@pytest.mark.once
def test_sign_in_pages_are_for_whom_the_table_says(route, world):
    anonymous, member, why = SIGN_IN[route]
    path = SIGN_IN_ADDRESSES.get(route, path_of(route))
    # allauth copies a user's address into its own table when it is first asked for: that is no change.
    EmailAddress.objects.create(user=world.alice.owner, email=world.alice.owner.email)
    before = database()
    for client, expected in ((client_of(), anonymous), (client_of(world.alice.owner), member)):
        shown = client.get(path)
        assert shown.status_code == expected
        if client.session.get("_auth_user_id") is None:
            assert mark(world.alice.owner) not in shown.content.decode()
            if not why:
                assert shown["location"].startswith(LOGIN)
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                refused = client_of(enforce_csrf_checks=True).generic(method, path)
                assert refused.status_code in (403, 405) or (refused.status_code == 302 and not why), method
    assert database() == before


# -- The admin -------------------------------------------------------------------------------------------------------


@pytest.fixture
def staff(db) -> Any:
    """Staff with no permission at all."""
    return get_user_model().objects.create_user("nemo", "nemo@example.org", "nemo's password", is_staff=True)


@pytest.fixture
def viewer(db) -> Any:
    """Staff who may look at every table."""
    user = get_user_model().objects.create_user("vera", "vera@example.org", "vera's password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return user


def is_sent_away(response: Any) -> bool:
    return response.status_code == 302 and response["location"].startswith((LOGIN, "/admin/login/"))


@pytest.mark.parametrize("route", ADMIN_PAGES)
@pytest.mark.once
def test_the_admins_own_pages_are_for_staff(route, world, staff, sam):
    without, administrator, path = ADMIN_PAGES[route]
    path = path.format(user=world.alice.owner.pk)
    before = database()
    for user in (None, world.bob.owner):
        response = client_of(user).get(path)
        if route in {"admin/login/", "admin/logout/"}:
            assert response.status_code in (302, 403, 405)
        else:
            assert is_sent_away(response), user
    assert client_of(staff).get(path).status_code == without
    assert client_of(sam).get(path).status_code == administrator
    assert database() == before


@pytest.mark.parametrize("label", ADMIN_TABLES)
@pytest.mark.once
def test_a_table_in_the_admin_is_for_staff_with_the_permission(label, world, staff, viewer, sam):
    model, may = apps.get_model(label), ADMIN_TABLES[label].split()
    row = {**world.alice.rows, get_user_model(): world.alice.owner}.get(model) or model.objects.first()
    where = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    paths = {"changelist": reverse(f"{where}_changelist"), "add": reverse(f"{where}_add")}
    if row is not None:
        paths |= {name: reverse(f"{where}_{name}", args=[row.pk]) for name in ("change", "delete", "history")}
    before = database()
    outside = {str(user): client_of(user) for user in (None, world.bob.owner, world.alice.owner)}
    without, looking, all_of_it = client_of(staff), client_of(viewer), client_of(sam)
    guarded = client_of(sam, enforce_csrf_checks=True)
    for name, path in paths.items():
        writes = name in {"add", "change", "delete"}
        for who, client in outside.items():
            assert is_sent_away(client.post(path) if writes else client.get(path)), (name, who)
        assert (without.post(path) if writes else without.get(path)).status_code == 403, name
        if writes:
            assert looking.post(path, {"post": "yes"}).status_code == 403, name
            assert guarded.post(path, {"post": "yes"}).status_code == 403, "not without the token of our own page (A7)"
            assert name in may or all_of_it.post(path, {"post": "yes"}).status_code == 403, name
        if name in {"changelist", "change"}:
            assert looking.get(path).status_code == 200, name
        if writes and name != "change":
            assert looking.get(path).status_code == 403, name
            assert all_of_it.get(path).status_code == (200 if name in may else 403), name
    after = database()
    entries = after.pop("admin.LogEntry")
    assert all("Read." in entry for entry in entries), "reading what people wrote leaves a trace; nothing else does"
    assert {**after, "admin.LogEntry": []} == before


# -- The hot routes --------------------------------------------------------------------------------------------------


async def no_django(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(f"{scope['path']} is no hot route")


@pytest.fixture
def door(transactional_db, world, sam, monkeypatch) -> Dispatcher:
    """The dispatcher with its real table. A key that does not open stands in for a call that was let through."""

    def locked(self: ProviderAccount) -> Any:
        raise vault.Locked

    monkeypatch.setattr(ProviderAccount, "client", locked)
    return Dispatcher(no_django, hot.ROUTES)


def cookie_of(user: Any) -> dict[str, str]:
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}={client_of(user).cookies[settings.SESSION_COOKIE_NAME].value}"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


TARGETS = {
    # name: (the method that works, address, body) for a thing of Alice's, or one that does not exist
    "generation-events": lambda names: ("GET", f"/chat/generations/{names['generation']}/events", None),
    "v1-chat-completions": lambda names: (
        "POST", "/v1/chat/completions", {"model": names["model"], "messages": [{"role": "user", "content": "hi"}]},
    ),
    "v1-models": lambda names: ("GET", "/v1/models", None),
    "v1-model": lambda names: ("GET", f"/v1/models/{names['model']}", None),
    "v1-nothing": lambda names: ("GET", "/v1/embeddings", None),
}  # fmt: skip


async def call(door: Dispatcher, target: tuple, headers: dict[str, str], method: str = "") -> tuple[int, str]:
    """(status, body) without the request's number."""
    works, path, body = target
    raw = json.dumps(body).encode() if body else b""
    answer = await ask(door, method or works, path, headers={**headers, "content-type": "application/json"}, body=raw)
    return answer.status, answer.body.decode()


def names_of(things: Things) -> dict[str, Any]:
    return {"generation": things.generation.pk, "model": things.model.model_id}


MISSING = {"generation": uuid.UUID(int=7), "model": "no-such/model"}


async def test_the_event_stream_is_its_owners_alone_a1(door, world, sam, alice):
    headers = {
        name: await hot.in_thread(cookie_of, user)
        for name, user in {"alice": alice, "bob": world.bob.owner, "sam": sam}.items()
    }
    target, missing = (TARGETS["generation-events"](names) for names in (names_of(world.alice), MISSING))
    status, body = await call(door, target, headers["alice"])
    assert status == 200 and mark(alice) in body
    for who in ("bob", "sam"):
        answers = [await call(door, one, headers[who]) for one in (target, missing)]
        assert answers[0] == answers[1] and answers[0][0] == 404, who
    for nobody in ({}, {"cookie": "session=nonsense"}, bearer(world.alice.token_text)):
        answers = [await call(door, one, nobody) for one in (target, missing)]
        assert answers[0] == answers[1] and answers[0][0] == 401, nobody
    await hot.in_thread(lambda: get_user_model().objects.filter(pk=alice.pk).update(is_active=False))
    assert (await call(Dispatcher(no_django, hot.ROUTES), target, headers["alice"]))[0] == 401, "disabled (A4)"


def worthless(things: Things) -> dict[str, dict[str, str]]:
    """Every kind of credential that opens nothing, by what it is."""
    owner = things.owner
    revoked, revoked_text = tokens.create(owner, "revoked")
    revoked.revoke()
    _, expired = tokens.create(owner, "expired", expires_at=timezone.now() - timedelta(seconds=1))
    gone = get_user_model().objects.create_user("gone", "gone@example.org", "gone's password")
    _, disabled = tokens.create(gone, "disabled")
    gone.is_active = False
    gone.save()
    good = things.token_text
    return {
        "no token": {},
        "empty": {"authorization": ""},
        "another scheme": {"authorization": f"Basic {good}"},
        "no scheme": {"authorization": good},
        "another header": {"x-api-key": good},
        "nonsense": bearer("sb_nonsense"),
        "well made, unknown": bearer(tokens.generate()[0]),
        "one letter off": bearer(good[:-1] + ("a" if good[-1] != "a" else "b")),
        "its look-up part": bearer(f"sb_{things.token.lookup}"),
        "its hash": bearer(things.token.token_hash),
        "revoked": bearer(revoked_text),
        "expired": bearer(expired),
        "of a disabled user": bearer(disabled),
        "a session's cookie": cookie_of(owner),
    }


async def test_the_token_routes_open_to_a_live_token_alone_a3_k6(door, world):
    kinds = await hot.in_thread(worthless, world.alice)
    routes = [route.name for route in hot.ROUTES if route.auth == "token"]
    assert routes == [name for name in HOT if name.startswith("v1-")]
    for name in routes:
        target, missing = (TARGETS[name](names) for names in (names_of(world.alice), MISSING))
        for kind, headers in kinds.items():
            answers = [await call(door, one, headers) for one in (target, missing)]
            assert answers[0] == answers[1], f"{name} with {kind}"
            assert answers[0][0] == 401, f"{name} with {kind}"
            assert json.loads(answers[0][1])["error"]["code"] == "invalid_api_key"
        works, path, body = target
        in_query = (works, f"{path}?token={world.alice.token_text}&api_key={world.alice.token_text}", body)
        assert (await call(door, in_query, {}))[0] == 401, "never in a query string"


async def test_a_token_reaches_its_holders_things_and_to_others_they_do_not_exist_a1(door, world):
    expected = {"v1-chat-completions": 502, "v1-models": 200, "v1-model": 200, "v1-nothing": 404}
    for name, status in expected.items():
        target, missing = (TARGETS[name](names) for names in (names_of(world.alice), MISSING))
        own = await call(door, target, bearer(world.alice.token_text))
        assert own[0] == status, (name, own)
        there, nowhere = [await call(door, one, bearer(world.bob.token_text)) for one in (target, missing)]
        alike = [
            text.replace(str(MISSING["model"]), "ID").replace(world.alice.model.model_id, "ID")
            for _, text in (there, nowhere)
        ]
        assert (there[0], alike[0]) == (nowhere[0], alike[1]), name
        assert there[0] == (200 if name == "v1-models" else 404), name
        assert mark(world.alice.owner) not in there[1].replace(world.alice.model.model_id, ""), name
    own_list = await call(door, TARGETS["v1-models"](MISSING), bearer(world.alice.token_text))
    assert world.alice.model.model_id in own_list[1] and world.alice.alias.alias in own_list[1]


def _shared_model(world: World) -> None:
    """A model that Bob may call, which Alice's alias leads to."""
    model = AggregatorModel.objects.create(provider=world.keyless, model_id="shared/model", display_name="Shared")
    account = ProviderAccount.objects.create(owner=world.bob.owner, provider=world.keyless, label="Bob's")
    AccountModel.objects.create(account=account, model=model)
    ModelAlias.objects.filter(pk=world.alice.alias.pk).update(targets=["shared/model"])


async def test_an_alias_is_its_owners_alone_a1(door, world):
    """Also where it leads to a model that the stranger may call: the name is not theirs."""
    await hot.in_thread(_shared_model, world)
    answers = []
    for name in (world.alice.alias.alias, "no-such-alias", "shared/model"):
        target = TARGETS["v1-chat-completions"]({"model": name})
        status, body = await call(door, target, bearer(world.bob.token_text))
        answers.append((status, body.replace(name, "ID")))
    assert answers[0] == answers[1] and answers[0][0] == 404
    assert answers[2][0] == 502, "by its own name Bob may call it"


async def test_a_routing_wish_in_a_body_reaches_no_account_of_another_s4(door, world):
    """Fields that other gateways obey: to us they are unknown, or the upstream's; never a way to Alice's account."""
    _, path, body = TARGETS["v1-chat-completions"]({"model": world.bob.model.model_id})
    plain_answer = await call(door, ("POST", path, body), bearer(world.bob.token_text))
    for wish in (
        {"account": str(world.alice.account.pk)},
        {"account_id": str(world.alice.account.pk)},
        {"user_id": world.alice.owner.pk},
        {"api_base": "http://127.0.0.1:1/v1"},
        {"base_url": "http://127.0.0.1:1/v1"},
        {"api_key": "sk-other"},
    ):
        answer = await call(door, ("POST", path, {**body, **wish}), bearer(world.bob.token_text))
        assert answer == plain_answer or answer[0] == 400, wish
        assert mark(world.alice.owner) not in answer[1]


async def test_hot_routes_take_their_own_methods_alone(door, world):
    session = await hot.in_thread(cookie_of, world.alice.owner)
    for route in hot.ROUTES:
        target = TARGETS[route.name](names_of(world.alice))
        headers = session if route.auth == "session" else bearer(world.alice.token_text)
        for method in {*METHODS, "PROPFIND"} - set(route.methods) - {"HEAD"}:
            status, _ = await call(door, target, headers, method)
            assert status == 405, (route.name, method)


def test_offers_of_one_model_by_two_accounts_stay_apart(world):
    """A built-in provider's model that both may call: each by their own account."""
    from catalog.routes import routes_for

    model = AggregatorModel.objects.create(
        provider=world.keyless, model_id="shared/model", display_name="Shared", model_type="chat"
    )
    accounts = {}
    for things in (world.alice, world.bob):
        account = ProviderAccount.objects.create(owner=things.owner, provider=world.keyless, label=mark(things.owner))
        AccountModel.objects.create(account=account, model=model)
        accounts[things.owner] = account
    for owner, account in accounts.items():
        assert [route.account for route in routes_for(owner, "shared/model")] == [account]
