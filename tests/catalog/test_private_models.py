"""A shared provider, two keys with different rights: what only Alice's lists is nobody else's business (I2)."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.urls import reverse

from catalog import history, routes, sync
from catalog.models import AggregatorModel, CapabilityProbe, ChangeSet, FavouriteModel, ModelChange, OwnPrice, PastOffer
from providers.models import ProviderAccount
from tests.catalog.conftest import listing, model

CHANGES = reverse("catalog:change-list")
TUNED = "ft:gpt-4o:acme:merger"
HTMX = {"HX-Request": "true"}


def then(upstream, who, *models):
    upstream(listing(*models), who)
    return sync.sync_account(who)


def tuned(price="3", **fields):
    return model(TUNED, price, display_name="Acme merger", **fields)


@pytest.fixture
def fine_tune(account, bobs_account, upstream):
    """Both accounts list m; Alice's lists her fine-tune, too. Its price changed once, and m's did."""
    then(upstream, account, model("m"), tuned())
    then(upstream, bobs_account, model("m"))
    then(upstream, account, model("m", "2"), tuned("4"))
    return AggregatorModel.objects.get(model_id=TUNED)


def text(response):
    assert response.status_code == 200
    return response.content.decode()


def told(html):
    return TUNED in html or "Acme" in html or "acme" in html


def addresses_of(row):
    names = ("model-detail", "model-probe", "model-sellers", "model-details", "own-price")
    return [reverse(f"catalog:{name}", args=[row.pk]) for name in names]


def test_its_name_is_nowhere_on_the_pages_of_changes_of_others_i2(fine_tune, alice_client, bob_client):
    first, second = ChangeSet.objects.order_by("pk")
    addresses = [
        CHANGES,
        f"{CHANGES}?kind=added",
        f"{CHANGES}?kind=price",
        f"{CHANGES}?mine=on",
        f"{CHANGES}?provider={fine_tune.provider_id}",
        reverse("catalog:change-set", args=[first.pk]) + "?kind=added",
        reverse("catalog:change-set", args=[second.pk]) + "?kind=price",
    ]
    for address in addresses:
        html = text(bob_client.get(address))
        assert not told(html), address
        assert "?mine" in address or ">M</strong>" in html, address
        assert "?mine" in address or told(text(alice_client.get(address))), address
    counts = [history.kinds_under(account.owner, first) for account in ProviderAccount.objects.order_by("label")]
    assert counts == [{"added": 2}, {"added": 1}]


def test_a_sync_that_changed_nothing_else_is_no_heading_for_others_i2(
    fine_tune, account, upstream, alice_client, bob_client
):
    then(upstream, account, model("m", "2"), tuned("5"))
    latest = ChangeSet.objects.latest("pk")
    assert f'id="set-{latest.pk}"' in text(alice_client.get(CHANGES))
    assert f'id="set-{latest.pk}"' not in text(bob_client.get(CHANGES))
    assert bob_client.get(reverse("catalog:change-set", args=[latest.pk])).status_code == 404


def test_many_of_them_are_not_counted_for_others_i2(account, bobs_account, upstream, alice_client, bob_client):
    then(upstream, account, model("m"), *(model(f"ft:acme:{n}") for n in range(30)))
    then(upstream, bobs_account, model("m"))
    assert "31 models" in text(alice_client.get(CHANGES))
    html = text(bob_client.get(CHANGES))
    assert "31 models" not in html and not told(html)
    [first] = ChangeSet.objects.all()
    address = reverse("catalog:change-set", args=[first.pk])
    assert not told(text(bob_client.get(address))) and told(text(alice_client.get(address)))


def test_its_pages_are_not_there_for_others_i2(fine_tune, alice_client, bob_client):
    for address in addresses_of(fine_tune):
        assert bob_client.get(address).status_code == 404, address
        assert alice_client.get(address).status_code == 200, address
    own_price = reverse("catalog:own-price", args=[fine_tune.pk])
    assert bob_client.post(own_price, {"price_input": "1"}).status_code == 404
    assert bob_client.post(reverse("catalog:favourite", args=[fine_tune.pk])).status_code == 404
    assert bob_client.post(reverse("catalog:model-probe", args=[fine_tune.pk]), {"what": "tools"}).status_code == 404
    assert not any(table.objects.exists() for table in (OwnPrice, FavouriteModel, CapabilityProbe))


def test_it_is_in_no_list_comparison_file_or_suggestion_of_others_i2(fine_tune, alice_client, bob_client):
    m = AggregatorModel.objects.get(model_id="m")
    addresses = [
        reverse("catalog:model-list"),
        reverse("catalog:model-select"),
        reverse("catalog:model-compare") + f"?m={m.pk}&m={fine_tune.pk}",
        reverse("catalog:model-export"),
        reverse("catalog:alias-suggest") + "?new=acme",
    ]
    for address in addresses:
        assert not told(text(bob_client.get(address, headers=HTMX)).replace("acme”", "")), address
        assert told(text(alice_client.get(address, headers=HTMX))), address


def test_no_answer_says_whether_others_have_it_i2(fine_tune, bob, bob_client):
    """A name that somebody else has and a name that nobody has answer alike."""
    answers = []
    for name in (TUNED, TUNED.replace("merger", "nosuch")):
        form = {"name": "fast", "targets": [name], "new": "", "do": "up:0"}
        html = text(bob_client.post(reverse("catalog:alias-new"), form))
        with pytest.raises(routes.NoRoute) as refused:
            routes.routes_for(bob, name)
        answers.append((html.count("no provider of yours lists"), refused.value.message.replace(name, "")))
    assert answers[0] == answers[1] and answers[0][0] > 0


def test_staff_who_may_see_it_in_the_admin_see_its_page_other_staff_do_not(fine_tune, sam_client, bob, bob_client):
    page = reverse("catalog:model-detail", args=[fine_tune.pk])
    assert sam_client.get(page).status_code == 200
    bob.is_staff = True
    bob.save()
    assert bob_client.get(page).status_code == 404


def test_who_had_it_keeps_its_page_and_history_once_it_is_gone(
    fine_tune, account, bobs_account, upstream, alice_client, bob_client
):
    then(upstream, account, model("n"))
    then(upstream, bobs_account, model("n"))
    assert set(PastOffer.objects.values_list("account__label", "model__model_id")) == {
        ("Alice's key", TUNED), ("Alice's key", "m"), ("Bob's key", "m"),
    }  # fmt: skip
    m = AggregatorModel.objects.get(model_id="m")
    for row in (fine_tune, m):
        assert "Gone since" in text(alice_client.get(reverse("catalog:model-detail", args=[row.pk])))
    assert "Gone since" in text(bob_client.get(reverse("catalog:model-detail", args=[m.pk])))
    assert bob_client.get(reverse("catalog:model-detail", args=[fine_tune.pk])).status_code == 404
    html = text(bob_client.get(CHANGES, {"kind": "gone"}))
    assert ">M</strong>" in html and not told(html)
    assert told(text(alice_client.get(CHANGES, {"kind": "gone"})))


def test_a_key_that_may_no_more_keeps_what_it_saw_and_gains_it_back(fine_tune, account, upstream, alice_client):
    page = reverse("catalog:model-detail", args=[fine_tune.pk])
    for models in ([model("m", "2")], [model("m", "2"), tuned()], [model("m", "2")], [model("m", "2")]):
        then(upstream, account, *models)
        assert alice_client.get(page).status_code == 200
    assert PastOffer.objects.count() == 1


def test_removing_an_account_forgets_what_it_listed(fine_tune, account, alice_client):
    ProviderAccount.objects.get(pk=account.pk).delete()
    assert alice_client.get(reverse("catalog:model-detail", args=[fine_tune.pk])).status_code == 404
    assert ModelChange.objects.filter(model=fine_tune).exists()


def test_the_migration_remembers_what_the_history_of_each_account_tells(fine_tune, account, bobs_account, upstream):
    then(upstream, account, model("n"))
    then(upstream, bobs_account, model("n"))
    PastOffer.objects.all().delete()
    import_module("catalog.migrations.0010_past_offers").remember(apps, None)
    remembered = set(PastOffer.objects.values_list("account__label", "model__model_id"))
    assert remembered == {
        ("Alice's key", TUNED),
        ("Alice's key", "m"),
    }  # Bob's syncs wrote nothing of m but that it left
