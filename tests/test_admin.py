"""The admin as a whole (A6, I22): every table is there to read, and nothing secret can be seen, filtered, searched or
sorted by, whatever is asked in the address.

Models, columns and the ways from one to the other come from the registry, so that a new one is in these tests at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import models
from django.test import Client
from django.urls import reverse

from tests.source_tree import APPS
from tests.world import Things, things_of

# Left to `make test`: a table this long costs more than the fast part may take.
pytestmark = pytest.mark.slow

SECRET = {
    "providers.ProviderAccount": {"api_key_encrypted", "api_key_hash", "api_key_hint", "extra_headers_encrypted"},
    "usage.ApiToken": {"token_hash", "lookup"},
    "config.SetupToken": {"token_hash"},
    "auth.User": {"password"},
    "sessions.Session": {"session_key", "session_data"},
    "account.EmailConfirmation": {"key"},
}
NOT_SECRET = {
    "catalog.AggregatorModel.group_key": "which model it is, whoever sells it",
    "catalog.ModelGroupRule.group_key": "the same, as staff said it",
    "chat.Message.client_key": "made by the page so that sending twice makes one message; worth nothing afterwards",
    "chat.Generation.first_token_at": "when the first word came",
    "usage.UsageLog.first_token_ms": "how long the first word took",
    "usage.UsageLog.token_id": "which token called: its row's id, not a part of its text",
    "sessions.Session.expire_date": "when a session ends",
}
SMELLS = re.compile(
    r"hash|secret|encrypt|passw|salt|hint|(^|_)key$|^lookup$|token_|_token$|session_|credential|signature"
)

UNREGISTERED = {
    "SealingTicket": "the right to send one form, for two minutes: gone before anybody could look for it",
    "SetupToken": "one row with one hash; `manage.py setup_link` renews it, and it is dead once there is an administrator",
}
ADMINS = admin.site._registry
NAMES = {model._meta.label: model_admin for model, model_admin in ADMINS.items()}


def secrets_of(model: type[models.Model]) -> set[str]:
    return SECRET.get(model._meta.label, set())


@pytest.mark.once
def test_every_column_that_sounds_secret_is_judged():
    unjudged = [
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if SMELLS.search(field.name)
        and field.name not in secrets_of(model)
        and f"{model._meta.label}.{field.name}" not in NOT_SECRET
    ]
    assert unjudged == [], "secret, or not? Say so above"
    for label, columns in SECRET.items():
        if apps.is_installed(apps.get_app_config(label.partition(".")[0]).name):
            assert columns <= {field.name for field in apps.get_model(label)._meta.concrete_fields}, label


# -- Every table is there, and of use --------------------------------------------------------------------------------


@pytest.mark.once
def test_every_model_of_ours_is_in_the_admin_with_columns_filters_and_search():
    missing = []
    for model in apps.get_models():
        if model._meta.app_label not in APPS:
            continue
        page = ADMINS.get(model)
        if page is None:
            missing.append(model.__name__)
            continue
        assert len(page.list_display) >= 3, f"{model.__name__} shows too little in its list"
        assert page.list_filter, f"{model.__name__} has no filter"
        assert page.search_fields, f"{model.__name__} cannot be searched"
    assert sorted(missing) == sorted(UNREGISTERED)


@pytest.fixture
def alices(alice) -> Things:
    return things_of(alice)


@pytest.fixture
def viewer(db) -> Client:
    """Staff who may view every table, and nothing else."""
    user = get_user_model().objects.create_user("vera", "vera@example.org", "vera's password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


def list_of(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


@pytest.mark.parametrize("label", NAMES)
def test_every_list_opens_and_so_does_every_link_in_it(label, viewer, alices):
    url = list_of(NAMES[label].model)
    page = viewer.get(url)
    assert page.status_code == 200
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="(\?[^"]*)"', page.content.decode())]
    one_of_a_kind = {re.sub(r"=[^&]*", "", link): link for link in links}  # a filter's other values go the same way
    statuses = {link: viewer.get(url + link).status_code for link in one_of_a_kind.values()}
    assert {link: status for link, status in statuses.items() if status != 200} == {}
    for words in ("'%\\ <script>\x00" + "x" * 5000, "7d444840-9dc0-11d1-b245-5ffdce74fad2"):
        assert viewer.get(url, {"q": words}).status_code == 200, words


# -- Nothing secret is shown -----------------------------------------------------------------------------------------


def named_by(page: admin.ModelAdmin, request, row: models.Model) -> Iterator[str]:
    """Every column, or path of columns, that a page of the admin names anywhere."""
    for names in (
        page.get_list_display(request),
        page.get_list_display_links(request, page.get_list_display(request)) or (),
        page.list_editable,
        page.get_search_fields(request),
        page.get_ordering(request),
        page.get_sortable_by(request),
        page.get_readonly_fields(request, row),
        page.get_autocomplete_fields(request),
        page.raw_id_fields,
        page.filter_horizontal,
        page.filter_vertical,
        page.prepopulated_fields,
        page.radio_fields,
        getattr(page, "lookups", ()),
        [page.date_hierarchy or ""],
        [item[0] if isinstance(item, tuple) else item for item in page.get_list_filter(request)],
        [field for _, options in page.get_fieldsets(request, row) for field in _flat(options["fields"])],
    ):
        for name in names:
            yield name if isinstance(name, str) else getattr(name, "parameter_name", "") or ""
    for name in page.get_list_display(request):
        shown = getattr(page, name, None) if isinstance(name, str) else name
        yield str(getattr(shown, "admin_order_field", "") or "")


def _flat(fields) -> Iterator[str]:
    for field in fields:
        yield from [field] if isinstance(field, str) else field


EVERY_SECRET_NAME = set().union(*SECRET.values())


def names_a_secret(page: admin.ModelAdmin, request) -> list[str]:
    """Names on `page` that are a secret column of its model, or lead to one of another's."""
    found = []
    for name in named_by(page, request, page.model(pk=1)):
        steps = name.lstrip("-=^@").split("__")
        own = steps[0] in secrets_of(page.model)
        if own or (len(steps) > 1 and EVERY_SECRET_NAME & set(steps[1:])):
            found.append(name)
    return found


USERS_PASSWORD = "the field is a button to set a new one: config/templates/auth/widgets/ shows no part of the hash"


@pytest.mark.parametrize("label", NAMES)
def test_no_page_names_a_secret_column_a6(label, rf, sam):
    request = rf.get("/")
    request.user = sam
    found = names_a_secret(NAMES[label], request)
    if label == "auth.User":
        assert found == ["password"], USERS_PASSWORD
    else:
        assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        {"list_display": ["label", "api_key_hash"]},
        {"list_filter": ["api_key_hint"]},
        {"search_fields": ["=api_key_hash"]},
        {"search_fields": ["owner__password"]},
        {"ordering": ["-api_key_encrypted"]},
        {"readonly_fields": ["extra_headers_encrypted"]},
        {"fields": ["label", ("owner", "api_key_hash")]},
        {"lookups": ("api_key_hash__startswith",)},
        {"list_filter": [("api_key_hash", admin.EmptyFieldListFilter)]},
        {"list_display": [admin.display(ordering="api_key_hash")(lambda row: "x")]},
    ],
)
def test_a_planted_page_that_names_one_is_found(planted, rf, sam):
    from providers.models import ProviderAccount

    request = rf.get("/")
    request.user = sam
    page = type("Planted", (admin.ModelAdmin,), {"fields": ["label"], **planted})(ProviderAccount, admin.site)
    assert names_a_secret(page, request)
    innocent = type("Innocent", (admin.ModelAdmin,), {"fields": ["label"], "search_fields": ["owner__username"]})
    assert names_a_secret(innocent(ProviderAccount, admin.site), request) == []


@pytest.mark.parametrize("who", ["viewer", "sam_client"])
@pytest.mark.once
def test_no_page_shows_a_secret_or_a_part_of_one_a6(who, request, alices, alice):
    client = request.getfixturevalue(who)
    rows = {**alices.rows, get_user_model(): alice}
    seen = 0
    for model, row in rows.items():
        if model.__name__ in UNREGISTERED:
            continue
        where = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        names = ("change",) if who == "viewer" else ("change", "history", "delete")
        for url in [list_of(model), *(reverse(f"{where}_{name}", args=[row.pk]) for name in names)]:
            page = client.get(url)
            assert page.status_code in ((200, 403) if "delete" in url else (200,)), url
            text = page.content.decode()
            seen += page.status_code == 200
            for column, value in alices.secrets.items():
                assert value not in text, f"{column} on {url}"
                if column in {"password", "token_hash", "api_key_hash"}:
                    digest = value.rpartition("$")[2]
                    assert not re.search(rf"\b{re.escape(digest[:6])}", text), f"the beginning of {column} on {url}"
            assert alices.token.lookup not in text, f"the token's look-up part on {url}"
    assert seen >= 2 * (len(rows) - 1)


def test_a_user_s_page_offers_a_new_password_and_tells_nothing_of_the_old_a6(sam_client, alice):
    text = sam_client.get(reverse("admin:auth_user_change", args=[alice.pk])).content.decode()
    assert "../password/" in text and "Reset password" in text
    for word in ("algorithm", "salt", "md5", "iterations"):
        assert word not in text


# -- Nothing secret is reached by a question in the address ----------------------------------------------------------

LOOKUPS = ("", "__exact", "__startswith", "__regex", "__gt", "__in", "__isnull", "__length")
DEEP = 3


def ways_to_secrets(model: type[models.Model], depth: int = DEEP) -> Iterator[str]:
    """Every path of relations, forwards and back, from `model` to a secret column."""
    yield from sorted(secrets_of(model))
    if depth:
        for field in model._meta.get_fields():
            if field.is_relation and field.related_model:
                for rest in ways_to_secrets(field.related_model, depth - 1):
                    yield f"{field.name}__{rest}"


@pytest.mark.parametrize("label", NAMES)
def test_no_lookup_leads_to_a_secret_by_any_way_a6(label, rf, sam):
    page = NAMES[label]
    request = rf.get("/")
    request.user = sam
    ways = list(ways_to_secrets(page.model))
    assert ways or label in {"usage.UsageLog", "usage.DailyUsage"}, "every other table is tied to a user or an account"
    open_ways = [way + end for way in ways for end in LOOKUPS if page.lookup_allowed(way + end, "a", request)]
    assert open_ways == []


def test_the_ways_are_found():
    ways = set(ways_to_secrets(apps.get_model("catalog", "SyncRun")))
    assert {"account__api_key_hash", "account__owner__password", "account__owner__api_tokens__token_hash"} <= ways


@pytest.mark.parametrize("label", NAMES)
@pytest.mark.once
def test_asked_over_http_it_is_refused_whatever_the_secret_is_a6(label, viewer, alices):
    """The same refusal for a right and a wrong guess: no page, no count."""
    url = list_of(NAMES[label].model)
    for way in ways_to_secrets(NAMES[label].model, 1):
        values = {alices.secrets.get(way.rpartition("__")[2], "pbkdf2")[:3], "zz"}
        answers = {viewer.get(url, {f"{way}__startswith": value}).status_code for value in values}
        assert answers == {400}, f"{label} {way}: {answers}"


@pytest.mark.parametrize("label", NAMES)
def test_no_popup_may_ask_for_a_row_by_a_secret_a6(label, rf, sam):
    request = rf.get("/")
    request.user = sam
    assert [column for column in EVERY_SECRET_NAME if NAMES[label].to_field_allowed(request, column)] == []


@pytest.mark.parametrize("label", NAMES)
def test_search_and_order_tell_nothing_of_a_secret_a6(label, rf, sam, alices):
    page = NAMES[label]
    for value in (*alices.secrets.values(), alices.token.lookup):
        request = rf.get("/", {"q": value[:200]})
        request.user = sam
        assert page.get_changelist_instance(request).result_count == 0, f"searching for a secret finds {label}"
    for order in ("99", "-99", "api_key_hash", "-token_hash", "password", "0.99.-1"):
        request = rf.get("/", {"o": order})
        request.user = sam
        names = {str(name).lstrip("-") for name in page.get_changelist_instance(request).queryset.query.order_by}
        assert not EVERY_SECRET_NAME & names


def test_autocomplete_is_for_staff_who_may_see_the_rows_and_finds_no_secret_a6(sam_client, alices):
    nobody = get_user_model().objects.create_user("nemo", "nemo@example.org", "nemo's password", is_staff=True)
    stranger = Client()
    stranger.force_login(nobody)
    questions = [
        {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": field.name}
        for model in ADMINS
        for field in model._meta.get_fields()
        if field.is_relation and field.concrete and field.related_model in ADMINS
    ]
    assert len(questions) > 15
    url = reverse("admin:autocomplete")
    for question in questions:
        assert stranger.get(url, {**question, "term": "alice"}).status_code == 403, question
        for value in (alices.secrets["api_key_hash"], alices.secrets["password"], alices.token.lookup):
            assert sam_client.get(url, {**question, "term": value}).json()["results"] == [], question


# -- Tokens ----------------------------------------------------------------------------------------------------------

TOKENS = "/admin/usage/apitoken/"


def revoke(client: Client, *tokens) -> object:
    return client.post(TOKENS, {"action": "revoke", "_selected_action": [token.pk for token in tokens]}, follow=True)


def test_staff_with_the_permission_end_a_token_and_leave_a_trace(sam_client, alices, sam):
    page = revoke(sam_client, alices.token)
    assert "1 token is revoked" in page.content.decode()
    alices.token.refresh_from_db()
    assert alices.token.revoked_at is not None
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.change_message) == (sam, str(alices.token.pk), "Revoked.")
    assert alices.token.lookup not in entry.object_repr

    when = alices.token.revoked_at
    revoke(sam_client, alices.token)
    alices.token.refresh_from_db()
    assert alices.token.revoked_at == when, "ending it twice ends it once"
    assert LogEntry.objects.count() == 1


def test_staff_who_may_only_look_end_none(viewer, alices):
    assert 'value="revoke"' not in viewer.get(TOKENS).content.decode()
    revoke(viewer, alices.token)
    alices.token.refresh_from_db()
    assert alices.token.revoked_at is None


def test_nobody_makes_changes_or_deletes_a_token_in_the_admin(sam_client, alices):
    assert sam_client.get(f"{TOKENS}add/").status_code == 403
    assert sam_client.post(f"{TOKENS}add/", {"name": "x", "owner": alices.owner.pk}).status_code == 403
    assert sam_client.post(f"{TOKENS}{alices.token.pk}/change/", {"name": "x"}).status_code == 403
    assert sam_client.post(f"{TOKENS}{alices.token.pk}/delete/", {"post": "yes"}).status_code == 403
    alices.token.refresh_from_db()
    assert alices.token.name == "alice-only token"


def test_the_list_of_tokens_says_which_work(sam_client, alices):
    assert "icon-yes" in sam_client.get(TOKENS).content.decode()
    alices.token.revoke()
    text = sam_client.get(TOKENS).content.decode()
    assert "icon-yes" not in text and "icon-no" in text
    assert "alice-only token" in sam_client.get(TOKENS, {"revoked_at__isempty": "0"}).content.decode()
    assert "alice-only token" not in sam_client.get(TOKENS, {"revoked_at__isempty": "1"}).content.decode()
