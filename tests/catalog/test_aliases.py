"""Aliases: the form, the list and the history through their URLs; what a name leads to; and which of two things wins."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from catalog import aliases, sync
from catalog.models import AggregatorModel, ModelAlias, ModelAliasVersion
from catalog.routes import NoRoute, routes_for
from providers.clients.base import Prices
from providers.models import ProviderAccount
from tests.catalog.conftest import listing, model

pytestmark = pytest.mark.slow

LIST, NEW, SUGGEST = reverse("catalog:alias-list"), reverse("catalog:alias-new"), reverse("catalog:alias-suggest")
HTMX = {"HTTP_HX_REQUEST": "true"}


@pytest.fixture
def catalog(account, upstream):
    upstream(
        listing(
            model("cheap", "0.1", "0.4"),
            model("middle", "1", "4"),
            model("dear", "10", "40"),
            model("gift", "0", "0"),
            model("vague", None, None),
            model("router/auto", prices=Prices(variable=True)),
        )
    )
    sync.sync_account(account)


def page(response):
    return html.unescape(response.content.decode())


def make(client, name="fast", targets=("cheap", "middle"), **more):
    return client.post(NEW, {"name": name, "targets": list(targets), "do": "save", **more})


def alias_of(user, name="fast", targets=("cheap", "middle"), **cap):
    alias = aliases.blank(user)
    alias.alias, alias.targets = name, list(targets)
    for column, value in cap.items():
        setattr(alias, column, Decimal(value))
    return aliases.save(alias, by=user or ModelAlias.owner.field.related_model(username="sam"))


def ids(user, name):
    return [route.model.model_id for route in routes_for(user, name)]


def why(user, name):
    with pytest.raises(NoRoute) as caught:
        routes_for(user, name)
    return caught.value.message


# -- The form --------------------------------------------------------------------------------------------------------


def test_an_alias_is_made_shown_and_used(catalog, alice, alice_client):
    response = make(alice_client, "fast", ["middle", "cheap"], max_input="2.50")
    alias = ModelAlias.objects.get()
    assert (response.status_code, response["Location"]) == (302, f"/models/aliases/{alias.pk}/")
    assert (alias.owner, alias.targets, alias.max_input, alias.max_output) == (
        alice,
        ["middle", "cheap"],
        Decimal("2.5"),
        None,
    )
    assert ids(alice, "fast") == ["middle", "cheap"]
    shown = page(alice_client.get(LIST))
    assert "fast" in shown and "answers now" in shown and "2 of 2 models usable" in shown and "$2.50 in" in shown


@pytest.mark.parametrize(
    ("do", "new", "expected"),
    [
        ("up:1", "", ["b", "a", "c"]),
        ("down:1", "", ["a", "c", "b"]),
        ("up:0", "", ["a", "b", "c"]),
        ("down:2", "", ["a", "b", "c"]),
        ("drop:0", "", ["b", "c"]),
        ("add", "openai/gpt-5", ["a", "b", "c", "openai/gpt-5"]),
        ("add", " b ", ["a", "b", "c"]),
        ("add:x/y", "typed", ["a", "b", "c", "x/y"]),
        ("enter", "d", ["a", "b", "c", "d"]),
        ("up:9", "", ["a", "b", "c"]),
        ("up:-1", "", ["a", "b", "c"]),
        ("up:²", "", ["a", "b", "c"]),
        ("nonsense", "", ["a", "b", "c"]),
    ],
)
def test_buttons_move_rows_keep_what_was_typed_and_store_nothing(do, new, expected, alice_client):
    data = {"name": "my name", "targets": ["a", "b", "c"], "max_input": "x", "do": do, "new": new}
    for extra in ({}, HTMX):
        response = alice_client.post(NEW, data, **extra)
        shown = page(response)
        assert response.status_code == 200
        assert re.findall(r'name="targets" value="([^"]*)"', shown) == expected
        assert 'value="my name"' in shown and 'value="x"' in shown and "field__error" not in shown
        assert ("<html" in shown) == (not extra)
    assert not ModelAlias.objects.exists()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"name": ""}, "Give it a name"),
        ({"name": "two words"}, "one word"),
        ({"name": "x" * 121}, "121 characters long"),
        ({"name": "a\u202eb"}, "invisible"),
        ({"name": "a\x00b"}, "Null characters"),
        ({"targets": []}, "at least one model"),
        ({"targets": [f"m{n}" for n in range(51)]}, "Those are 51 models; 50 fit"),
        ({"targets": [f"m{n}" for n in range(990)]}, "Those are 990 models; 50 fit"),
        ({"targets": ["m", "n", "m"]}, "“m” is in the list twice"),
        ({"targets": ["a\x00b"]}, "invisible characters"),
        ({"targets": ["x" * 301]}, "too long"),
        ({"max_input": "1e9"}, "such as 2.50"),
        ({"max_input": "1_000"}, "such as 2.50"),
        ({"max_input": "NaN"}, "such as 2.50"),
        ({"max_input": "-1"}, "such as 2.50"),
        ({"max_output": "9999999"}, "less than or equal to 1000000"),
        ({"max_output": "0.1234567"}, "such as 2.50"),
    ],
)
def test_what_cannot_be_is_refused_beside_its_field_and_the_text_stays(data, error, alice_client):
    given = {"name": "fast", "targets": ["cheap"], "max_input": "", "max_output": "", "do": "save", **data}
    response = alice_client.post(NEW, given)
    shown = page(response)
    assert response.status_code == 422 and error in shown
    assert not ModelAlias.objects.exists()
    for name, value in data.items():
        values = value if isinstance(value, list) else [value]
        if value and "\x00" not in values[0]:
            kept = re.findall(rf'name="{name}"[^>]*value="([^"]*)"', shown)
            assert kept[: len(values)] == values, "the text is kept"


def test_a_form_of_thousands_of_fields_is_no_form_of_ours(alice_client):
    assert make(alice_client, targets=[f"m{n}" for n in range(3000)]).status_code == 400


def test_unknown_models_are_allowed_and_flagged(catalog, alice, alice_client):
    assert make(alice_client, "later", ["not-yet", "cheap"]).status_code == 302
    alias = ModelAlias.objects.get()
    shown = page(alice_client.get(alias.get_absolute_url()))
    assert "skipped: no provider of yours lists a model of this id" in shown
    assert ids(alice, "later") == ["cheap"]
    assert routes_for(alice, "later")[0].skipped == "not-yet: no provider of yours lists a model of this id"


def test_an_alias_of_aliases_is_refused_and_so_is_one_of_itself(catalog, alice, alice_client):
    alias_of(alice, "fast")
    alias_of(None, "best", ["dear"])
    for nested in ("fast", "best"):
        response = make(alice_client, "again", ["cheap", nested])
        assert response.status_code == 422 and f"“{nested}” is an alias" in page(response)
    response = make(alice_client, "loop", ["loop"])
    assert response.status_code == 422 and "cannot list itself" in page(response)
    assert make(alice_client, "cheap", ["cheap", "middle"]).status_code == 302, "a model's id with others to follow"
    assert ids(alice, "cheap") == ["cheap", "middle"]


def test_a_name_is_taken_once_per_owner(catalog, alice, bob, alice_client, bob_client):
    assert make(alice_client).status_code == 302
    response = make(alice_client)
    assert response.status_code == 422 and "There is an alias of this name already" in page(response)
    assert make(alice_client, "FAST").status_code == 302, "names are case-sensitive, as ids are"
    assert make(bob_client).status_code == 302
    assert ModelAlias.objects.count() == 3


def test_there_is_an_end_to_how_many_one_may_have(alice, alice_client, monkeypatch):
    monkeypatch.setattr(aliases, "MAX_OWN", 1)
    assert make(alice_client, "one").status_code == 302
    response = make(alice_client, "two")
    assert response.status_code == 422 and "Delete one you no longer use" in page(response)


def test_models_are_suggested_while_one_types(catalog, alice_client, bob_client):
    shown = page(alice_client.get(SUGGEST, {"new": "dea"}))
    assert 'value="add:dear"' in shown and "$10.00" in shown and "middle" not in shown
    assert "add:dear" not in page(alice_client.get(SUGGEST, {"new": "dea", "targets": ["dear"]}))
    assert "No model of yours matches" in page(bob_client.get(SUGGEST, {"new": "dea"}))
    assert "<button" not in page(alice_client.get(SUGGEST, {"new": " "}))


# -- Price caps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cap", "usable", "reasons"),
    [
        ({}, ["dear", "vague", "router/auto", "gift", "cheap"], []),
        ({"max_input": "1"}, ["gift", "cheap"], ["it costs $10.00 per 1M read, and the cap is $1.00", "not known", "varies"]),
        ({"max_output": "0.40"}, ["gift", "cheap"], ["it costs $40.00 per 1M written, and the cap is $0.40", "not known", "varies"]),
        ({"max_input": "10", "max_output": "0.399"}, ["gift"], ["$40.00 per 1M written", "not known", "varies", "$0.40 per 1M written, and the cap is $0.399"]),
        ({"max_input": "0"}, ["gift"], ["$10.00", "not known", "varies", "$0.10 per 1M read"]),
    ],
)  # fmt: skip
def test_what_is_above_the_cap_or_not_known_is_skipped_with_the_reason(
    cap, usable, reasons, catalog, alice, alice_client
):
    alias = alias_of(alice, "capped", ["dear", "vague", "router/auto", "gift", "cheap"], **cap)
    routes = routes_for(alice, "capped")
    assert [route.model.model_id for route in routes] == usable
    skipped = [part for part in routes[0].skipped.split("; ") if part]
    assert len(skipped) == len(reasons)
    for text, reason in zip(skipped, reasons, strict=True):
        assert reason in text
    shown = page(alice_client.get(alias.get_absolute_url()))
    assert shown.count("skipped: ") == len(reasons)


def test_when_the_cap_leaves_nothing_the_reasons_are_told(catalog, alice):
    alias_of(alice, "capped", ["dear", "vague"], max_input="1")
    assert why(alice, "capped") == (
        "No model of the alias “capped” can answer: dear: it costs $10.00 per 1M read, and the cap is $1.00; "
        "vague: its price per 1M read is not known, so it cannot be held to the cap."
    )


def test_accounts_that_rest_are_asked_after_the_rest_of_the_list(catalog, alice, account, provider, upstream):
    second = ProviderAccount.objects.create(owner=alice, provider=provider, label="Second", priority=5)
    upstream(listing(model("cheap"), model("middle")), second)
    sync.sync_account(second)
    alias_of(alice, "fast", ["middle", "cheap"])
    order = [(r.model.model_id, r.account.label) for r in routes_for(alice, "fast")]
    assert order == [("middle", "Alice's key"), ("middle", "Second"), ("cheap", "Alice's key"), ("cheap", "Second")]
    ProviderAccount.objects.filter(pk=account.pk).update(cooldown_until=timezone.now() + timedelta(minutes=1))
    order = [(r.model.model_id, r.account.label) for r in routes_for(alice, "fast")]
    assert order == [("middle", "Second"), ("cheap", "Second"), ("middle", "Alice's key"), ("cheap", "Alice's key")]


# -- Two things of one name ------------------------------------------------------------------------------------------


def test_a_name_that_is_a_models_id_says_which_wins_when_it_is_made_and_in_the_list(catalog, alice, alice_client):
    response = alice_client.post(NEW, {"name": "cheap", "targets": ["middle"], "do": "save"}, follow=True)
    notice = "“cheap” is also a model's id at Lister. Your alias wins: calls by this name go to its list."
    assert page(response).count(notice) >= 2, "once as a message, once on the alias's page"
    assert notice in page(alice_client.get(LIST))
    assert ids(alice, "cheap") == ["middle"]


def test_a_sync_that_brings_the_name_later_changes_nothing_and_is_shown(
    catalog, alice, alice_client, account, upstream
):
    alias_of(alice, "newcomer", ["middle"])
    assert "also a model's id" not in page(alice_client.get(LIST))
    upstream(listing(model("newcomer"), *(model(name) for name in ("cheap", "middle", "dear", "gift", "vague"))))
    sync.sync_account(account)
    assert ids(alice, "newcomer") == ["middle"], "who chose the name keeps it"
    assert "“newcomer” is also a model's id at Lister. Your alias wins" in page(alice_client.get(LIST))


def test_a_global_alias_yields_to_a_models_id_and_to_an_own_alias_and_says_so(catalog, alice, alice_client):
    alias_of(None, "cheap", ["dear"])
    alias_of(None, "best", ["dear"])
    alias_of(alice, "best", ["middle"])
    assert (ids(alice, "cheap"), ids(alice, "best")) == (["cheap"], ["middle"])
    shown = page(alice_client.get(LIST))
    assert "“cheap” is also a model's id at Lister. The model wins: who has it gets it, and not this alias." in shown
    assert "There is an alias “best” for everybody, too. Yours wins for you." in shown
    assert "You have an alias “best” of your own. Yours wins for you." in shown


# -- Whose it is -----------------------------------------------------------------------------------------------------


def test_one_sees_own_and_global_aliases_and_changes_own_ones_alone(catalog, alice, bob_client, alice_client):  # A1
    own, shared = alias_of(alice, "mine"), alias_of(None, "ours")
    assert "mine" not in page(bob_client.get(LIST)) and "ours" in page(bob_client.get(LIST))
    for url in (own.get_absolute_url(), reverse("catalog:alias-delete", args=[own.pk])):
        assert bob_client.get(url).status_code == 404
    shown = page(bob_client.get(shared.get_absolute_url()))
    assert "cheap" in shown and "alias-form" not in shown and "Delete" not in shown
    data = {"name": "taken over", "targets": ["x"], "do": "save"}
    for alias in (own, shared):
        assert bob_client.post(alias.get_absolute_url(), data).status_code == 404
        assert bob_client.post(reverse("catalog:alias-delete", args=[alias.pk])).status_code == 404
        version = alias.versions.get()
        url = reverse("catalog:alias-restore", args=[alias.pk])
        assert bob_client.post(url, {"version": version.pk}).status_code == 404
    assert make(bob_client, "sneaky", ["x"], everybody="on").status_code == 302
    assert ModelAlias.objects.get(alias="sneaky").owner is not None, "only staff make global ones"


def test_staff_with_the_permission_make_and_change_global_ones(catalog, sam_client, alice_client, alice):
    assert "For everybody here" in page(sam_client.get(NEW))
    assert make(sam_client, "ours", ["cheap"], everybody="on").status_code == 302
    alias = ModelAlias.objects.get()
    assert alias.owner is None and ids(alice, "ours") == ["cheap"]
    data = {"name": "ours", "targets": ["middle"], "do": "save"}
    assert sam_client.post(alias.get_absolute_url(), data).status_code == 302
    assert ids(alice, "ours") == ["middle"]

    alice.is_staff = True
    alice.save()
    assert alice_client.post(alias.get_absolute_url(), data).status_code == 404, "staff, but without the permission"
    alice.user_permissions.add(Permission.objects.get(codename="change_modelalias"))
    assert alice_client.post(alias.get_absolute_url(), {**data, "targets": ["dear"]}).status_code == 302


# -- History ---------------------------------------------------------------------------------------------------------


def test_changes_keep_who_when_and_what_and_can_be_restored(catalog, alice, alice_client):
    make(alice_client, "fast", ["cheap", "middle"], max_input="1.50")
    alias = ModelAlias.objects.get()
    alice_client.post(alias.get_absolute_url(), {"name": "faster", "targets": ["middle"], "do": "save"})
    first, second = ModelAliasVersion.objects.order_by("pk")
    assert (first.kind, first.by, first.before) == ("created", "alice", None)
    assert first.after == {"alias": "fast", "targets": ["cheap", "middle"], "max_input": "1.5", "max_output": None}
    assert (second.kind, second.before, second.after["alias"]) == ("changed", first.after, "faster")

    shown = page(alice_client.get(alias.get_absolute_url()))
    assert '<s dir="auto">fast</s> → <span dir="auto">faster</span>' in shown
    assert shown.count("Restore this") == 1 and 'by <span dir="auto">alice' in shown

    url = reverse("catalog:alias-restore", args=[alias.pk])
    response = alice_client.post(url, {"version": first.pk}, follow=True)
    assert "is again what it was" in page(response)
    alias.refresh_from_db()
    assert (alias.alias, alias.targets, alias.max_input) == ("fast", ["cheap", "middle"], Decimal("1.5"))
    assert ModelAliasVersion.objects.latest("pk").kind == "restored"
    assert "nothing to restore" in page(alice_client.post(url, {"version": first.pk}, follow=True))
    for wrong in ("", "0", "x", "9" * 30, "²"):
        assert alice_client.post(url, {"version": wrong}).status_code == 404


def test_restoring_a_name_that_is_taken_by_now_says_so(catalog, alice, alice_client):
    alias = alias_of(alice, "fast")
    alias.alias = "slow"
    aliases.save(alias, by=alice)
    alias_of(alice, "fast", ["dear"])
    url = reverse("catalog:alias-restore", args=[alias.pk])
    response = alice_client.post(url, {"version": alias.versions.order_by("pk")[0].pk}, follow=True)
    assert "Another alias is called “fast” by now" in page(response)


def test_saving_what_is_there_already_is_no_version(catalog, alice, alice_client):
    make(alice_client)
    alias = ModelAlias.objects.get()
    response = alice_client.post(
        alias.get_absolute_url(), {"name": "fast", "targets": ["cheap", "middle"], "do": "save"}, follow=True
    )
    assert "Nothing was different" in page(response) and alias.versions.count() == 1


def test_deleting_asks_first(catalog, alice, alice_client):
    alias = alias_of(alice)
    url = reverse("catalog:alias-delete", args=[alias.pk])
    assert "Calls that ask for this name are refused" in page(alice_client.get(url)) and ModelAlias.objects.exists()
    assert alice_client.post(url).status_code == 302 and not ModelAlias.objects.exists()
    assert "None of your accounts lists a model called fast" in why(alice, "fast")


# -- What pages cost -------------------------------------------------------------------------------------------------


def test_the_list_asks_no_more_for_many_aliases_than_for_one(catalog, alice, alice_client):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            assert alice_client.get(LIST).status_code == 200
        return len(captured)

    alias_of(alice, "a0")
    few = queries()
    for number in range(1, 30):
        alias_of(alice, f"a{number}", ["cheap", "middle", f"none-{number}"])
    assert queries() <= few + 1


def test_a_list_of_an_earlier_release_that_nobody_checked_does_no_harm(catalog, alice, alice_client):
    for number, odd in enumerate(([], [None, 3, "cheap", "cheap"], "cheap", ["a\x01b"], {"a": 1})):
        ModelAlias.objects.create(owner=alice, alias=f"odd-{number}", targets=odd)
    assert alice_client.get(LIST).status_code == 200
    assert ids(alice, "odd-1") == ["cheap"]
    assert "it lists none" in why(alice, "odd-0")
    for alias in ModelAlias.objects.all():
        assert alice_client.get(alias.get_absolute_url()).status_code == 200


def test_the_admin_writes_through_the_same_door(catalog, sam_client, sam, alice):
    url = reverse("admin:catalog_modelalias_add")
    data = {"alias": "ours", "owner": "", "targets": "dear\r\n\r\ncheap\r\n", "max_input": "20", "max_output": ""}
    assert sam_client.post(url, data).status_code == 302
    alias = ModelAlias.objects.get()
    assert (alias.targets, alias.max_input, alias.owner) == (["dear", "cheap"], 20, None)
    assert (alias.versions.get().by, alias.versions.get().kind) == ("sam", "created")
    for wrong, error in (
        ({"alias": "ours"}, "already exists"),
        ({"alias": "x y"}, "one word"),
        ({"alias": "n", "targets": "ours"}, "is an alias"),
        ({"alias": "n", "targets": "a\na"}, "in the list twice"),
        ({"alias": "n", "targets": "\n".join(f"m{n}" for n in range(51))}, "50 fit"),
        ({"alias": "n", "max_input": "NaN"}, "such as 2.50"),
    ):
        response = sam_client.post(url, {**data, **wrong})
        assert response.status_code == 200 and error in page(response), wrong
    response = sam_client.post(url, {**data, "alias": "cheap"}, follow=True)
    assert "The model wins" in page(response)
    assert AggregatorModel.objects.filter(model_id="cheap").exists() and ids(alice, "cheap") == ["cheap"]
