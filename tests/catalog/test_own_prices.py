"""Prices entered by hand: whose they are, where they count, and that neither a sync nor another user touches them."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from catalog import grouping, search, sync
from catalog.models import AggregatorModel, ModelAlias, OwnPrice
from catalog.routes import NoRoute, routes_for
from providers.clients.base import Prices, Usage
from tests.catalog.conftest import listing, model
from usage import pricing

pytestmark = pytest.mark.slow

RULES = (
    {"min_prompt_tokens": 200_000, "input": "6", "output": "20"},
    {"utc_start": "0000", "utc_end": "0600", "input": "1"},
)


@pytest.fixture
def sold(account, bobs_account, upstream):
    """A model that Alice's and Bob's accounts list: 2 in, 10 out, 0.5 cached, with a tier and a night price."""
    stated = Prices(input=Decimal(2), output=Decimal(10), cache_read=Decimal("0.5"), rules=RULES)
    upstream(
        listing(
            model("m", prices=stated),
            model("router", prices=Prices(variable=True)),
            model("dark", None, None),
            model("gift", "0", "0"),
        )
    )
    sync.sync_account(account)
    sync.sync_account(bobs_account)
    return AggregatorModel.objects.get(model_id="m")


def address(name="m"):
    return reverse("catalog:own-price", args=[AggregatorModel.objects.get(model_id=name).pk])


def counting(user, name="m"):
    """(kind, input, output) by which a request of this user is metered."""
    [route] = routes_for(user, name)
    noted = pricing.snapshot(route.model)
    return noted["kind"], noted.get("input"), noted.get("output")


def shown(user, name="m"):
    """(kind, input, output) in this user's selector."""
    [row] = search.search(user, name).rows
    return row.model.price_kind, row.model.price_input, row.model.price_output


def test_a_price_entered_counts_for_who_entered_it_and_for_nobody_else(sold, alice, bob, alice_client):
    assert shown(alice) == ("known", 2, 10)  # and now the list is kept in memory

    response = alice_client.post(address(), {"price_input": "1.5", "price_output": " $8 "})

    assert response.status_code == 302
    assert counting(alice) == ("known", "1.5", "8") and shown(alice) == ("known", Decimal("1.5"), 8)
    assert counting(bob) == ("known", "2", "10") and shown(bob) == ("known", 2, 10)
    sold.refresh_from_db()
    assert sold.token_prices == (2, 10), "what the provider states stays as it is"
    [route] = routes_for(alice, "m")
    cost = pricing.cost_by_snapshot(Usage(1_000_000, 1_000_000), pricing.snapshot(route.model))
    assert cost == pricing.Cost(Decimal("9.5"), "computed")


def test_only_what_was_filled_in_replaces_anything_and_tiers_give_way_in_it(sold, alice, alice_client):
    alice_client.post(address(), {"price_input": "1"})
    [route] = routes_for(alice, "m")
    noted = pricing.snapshot(route.model)
    assert noted == {
        "kind": "known",
        "type": "chat",
        "origin": "by_hand",
        "input": "1",
        "output": "10",
        "cache_read": "0.5",
        "rules": [{"min_prompt_tokens": "200000", "output": "20"}],
    }


def test_a_sync_never_touches_it_and_undoing_shows_what_the_provider_asks_now(
    sold, account, alice, alice_client, upstream
):
    alice_client.post(address(), {"price_input": "1", "price_output": "1"})
    upstream(listing(model("m", "3", "12"), model("router"), model("dark"), model("gift")))
    run = sync.sync_account(account)
    assert run.repriced >= 1, "the provider's change is still seen"
    assert counting(alice) == ("known", "1", "1") == tuple(map(str, shown(alice)))

    alice_client.post(address(), {"undo": "1"})

    assert not OwnPrice.objects.exists()
    assert counting(alice) == ("known", "3", "12") and shown(alice) == ("known", 3, 12)


def test_a_variable_an_unknown_and_a_free_model_may_get_a_price(sold, alice, alice_client):
    alice_client.post(address("router"), {"price_input": "1"})
    assert counting(alice, "router") == ("variable", "1", None), "half a price does not make a router predictable"
    alice_client.post(address("router"), {"price_input": "1", "price_output": "2"})
    assert counting(alice, "router") == ("known", "1", "2")
    alice_client.post(address("dark"), {"price_request": "0.03"})
    assert counting(alice, "dark")[0] == "known"
    alice_client.post(address("gift"), {"price_output": "4"})
    assert counting(alice, "gift") == ("known", "0", "4")
    alice_client.post(address(), {"price_input": "0", "price_output": "0", "price_cache_read": "0"})
    assert counting(alice) == ("free", "0", "0")
    assert search.search(alice, "m", filters=search.Filters(free=True)).total == 1


def test_a_list_price_gives_way_to_what_the_user_knows(sold, alice, alice_client):
    AggregatorModel.objects.filter(model_id="dark").update(
        price_kind="list", price_input=3, price_output=9, origins={"prices": "list", "list": "OpenAI: x"}
    )
    alice_client.post(address("dark"), {"price_input": "1"})
    assert counting(alice, "dark") == ("list", "1", "9"), "the other half is still the list's, so costs are estimated"
    alice_client.post(address("dark"), {"price_input": "1", "price_output": "2"})
    assert counting(alice, "dark") == ("known", "1", "2")


BAD = [
    "-1",
    "NaN",
    "1e999",
    "1_000",
    "true",
    '{"usd":1}',
    "1,5",
    "10001",
    "0x10",
    "٣",
    "∞",
    "free",
    "1 000",
    "--",
    "1.0000000000001",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_price_is_refused_beside_its_field_and_kept(text, sold, alice_client):  # M2
    response = alice_client.post(address(), {"price_input": text, "price_output": "3"})
    assert response.status_code == 422
    page = response.content.decode()
    assert "field__error" in page and 'value="3"' in page
    assert not OwnPrice.objects.exists()


def test_nothing_filled_in_is_no_price(sold, alice_client):
    response = alice_client.post(address(), {"price_input": " "})
    assert response.status_code == 422 and "Enter at least one price" in response.content.decode()


def test_the_page_shows_both_prices_the_conditions_and_where_they_come_from(sold, alice, alice_client):
    alice_client.post(address(), {"price_input": "1.25"})
    page = alice_client.get(address()).content.decode()
    assert "<s" in page and "$2.00" in page and "$1.25" in page, "the sold price stays visible beside one's own"
    words = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "Prompts of more than 200k tokens: output $20.00" in words, "the seller's tier gives way in the input price"
    assert "00:00–06:00 UTC" not in words
    alice_client.post(address(), {"undo": "1"})
    words = " ".join(re.sub(r"<[^>]+>", "", alice_client.get(address()).content.decode()).split())
    assert "Prompts of more than 200k tokens: input $6.00, output $20.00" in words
    assert "00:00–06:00 UTC: input $1.00" in words
    assert "stated by the provider" in page and "yours count" in page
    part = alice_client.get(address(), headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith("<section") and "<html" not in part


def test_a_price_of_the_list_is_said_to_be_one(sold, alice_client):
    AggregatorModel.objects.filter(model_id="dark").update(
        price_kind="list", price_input=3, price_output=9, origins={"prices": "list", "list": "OpenAI: <b>x</b>"}
    )
    page = alice_client.get(address("dark")).content.decode()
    assert "names no price" in page and "OpenAI: &lt;b&gt;x&lt;/b&gt;" in page and "≈ $3.00" in page


# -- Staff -----------------------------------------------------------------------------------------------------------


def test_staff_may_correct_a_price_for_everybody_and_a_users_own_still_wins(sold, alice, bob, sam_client, alice_client):
    alice_client.post(address(), {"price_input": "1", "price_output": "1"})
    sam_client.post(address(), {"price_input": "4", "price_output": "5", "scope": "all"})

    assert counting(bob) == ("known", "4", "5") and shown(bob) == ("known", 4, 5)
    assert counting(alice) == ("known", "1", "1")

    sam_client.post(address(), {"undo": "1", "scope": "all"})
    assert counting(bob) == ("known", "2", "10") and shown(bob) == ("known", 2, 10)
    assert OwnPrice.objects.count() == 1


def test_staffs_own_price_is_theirs_alone(sold, bob, sam_client):
    sam_client.post(address(), {"price_input": "4", "price_output": "5", "scope": "me"})
    assert counting(bob) == ("known", "2", "10")


@pytest.mark.parametrize("who", ["user", "staff without the permission", "user with the permission"])
def test_nobody_else_corrects_for_everybody(who, sold, alice, bob, alice_client):  # A1, A2
    alice.is_staff = who == "staff without the permission"
    alice.save()
    if who == "user with the permission":
        alice.user_permissions.add(Permission.objects.get(codename="change_ownprice"))
    OwnPrice.objects.create(model=sold, price_input=7, price_output=7)

    page = alice_client.get(address()).content.decode()
    assert 'name="scope"' not in page
    alice_client.post(address(), {"price_input": "4", "price_output": "5", "scope": "all"})
    alice_client.post(address(), {"undo": "1", "scope": "all"})

    assert counting(bob) == ("known", "7", "7")


def test_another_users_private_model_is_a_missing_one(sold, alice, bob_client):  # A1
    sold.provider.owner = alice
    sold.provider.save()
    assert bob_client.get(address()).status_code == 404
    assert bob_client.post(address(), {"price_input": "1"}).status_code == 404
    assert not OwnPrice.objects.exists()


def test_whose_price_counts_is_one_more_query_however_many_models(sold, alice, django_assert_num_queries):
    models = list(AggregatorModel.objects.all())
    from catalog import own_prices

    with django_assert_num_queries(1):
        own_prices.lay_over(alice, models)


def test_v1_lists_the_price_that_counts(sold, alice, alice_client):
    from chat.api.views import _models

    alice_client.post(address(), {"price_input": "1.5"})
    [row] = _models(alice.pk, "m")
    assert (row["pricing"]["input"], row["pricing"]["output"]) == ("1.5", "10")


def test_the_composer_shows_the_price_that_counts(sold, account, alice_client):
    alice_client.post(address(), {"price_input": "1.5"})
    page = alice_client.get(reverse("chat:model-picker"), {"model": sold.pk, "account": account.pk}).content.decode()
    assert "$1.50 / $10.00" in page


def test_an_aliass_cap_judges_by_the_price_that_counts_and_never_by_a_list_price(sold, alice, alice_client):
    alias = ModelAlias.objects.create(owner=alice, alias="mine", targets=["m", "dark"], max_input=Decimal("1.5"))
    with pytest.raises(NoRoute) as too_dear:
        routes_for(alice, "mine")
    assert "costs $2.00 per 1M" in too_dear.value.message
    alice_client.post(address(), {"price_input": "1.25"})
    assert [route.model.model_id for route in routes_for(alice, "mine")] == ["m"]

    alias.targets = ["dark"]
    alias.save()
    AggregatorModel.objects.filter(model_id="dark").update(
        price_kind="list", price_input=1, price_output=1, origins={"prices": "list"}
    )
    with pytest.raises(NoRoute) as unpriced:
        routes_for(alice, "mine")
    assert "names no price" in unpriced.value.message


def test_a_list_price_is_never_the_cheapest_offer(sold, alice):
    other = AggregatorModel.objects.get(model_id="dark")
    AggregatorModel.objects.filter(pk__in=[sold.pk, other.pk]).update(group_key="same")
    AggregatorModel.objects.filter(pk=other.pk).update(price_kind="list", price_input=1, price_output=1)
    found = grouping.offers(alice, AggregatorModel.objects.get(pk=sold.pk))
    assert {offer.model.model_id: offer.price is None for offer in found.rows} == {"m": False, "dark": True}


def test_the_estimate_of_a_draft_goes_by_the_price_that_counts(sold, alice, alice_client):
    from catalog.row_context import Shelf

    alice_client.post(address(), {"price_input": "1", "price_output": "1"})
    shelf = Shelf(alice)
    [row] = search.search(alice, "m").rows
    # 4,000 tokens at 1 USD per 1M
    assert shelf._estimates([row], 4_000)[sold.pk].to_send == Decimal("0.004")
    details = alice_client.get(reverse("catalog:model-details", args=[sold.pk])).content.decode()
    assert "$1.00" in details and "$10.00" not in details


def test_on_the_models_page_the_other_sellers_are_drawn_anew_with_the_price(sold, alice_client):
    page = reverse("catalog:model-detail", args=[sold.pk])
    head = {"hx-request": "true", "hx-current-url": f"http://testserver{page}"}
    html = alice_client.post(address(), {"price_input": "1.5"}, headers=head).content.decode()
    assert 'id="own-price"' in html and re.search(r'id="sellers"[^>]*hx-swap-oob="true"', html)
    head["hx-current-url"] = f"http://testserver{address()}"
    assert 'id="sellers"' not in alice_client.post(address(), {"price_input": "1"}, headers=head).content.decode()
    assert "hx-swap-oob" not in alice_client.get(page).content.decode().split('id="sellers"')[1].split(">")[0]
