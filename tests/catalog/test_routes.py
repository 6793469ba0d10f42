"""catalog.routes: by which accounts a name reaches an upstream, and why not (F14)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from catalog import sync
from catalog.models import AggregatorModel, ModelAlias
from catalog.routes import NoRoute, routes_for, routes_for_model
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model


@pytest.fixture
def second(provider, alice):
    return ProviderAccount.objects.create(owner=alice, provider=provider, label="Second key", priority=-1)


def labels(routes):
    return [(route.account.label, route.model.model_id) for route in routes]


def why(user, name):
    with pytest.raises(NoRoute) as caught:
        routes_for(user, name)
    return caught.value.code, caught.value.message


def test_it_works(account, second, upstream, alice):
    upstream(listing(model("m"), model("only-first")), account)
    upstream(listing(model("m")), second)
    sync.sync_account(account)
    sync.sync_account(second)

    assert labels(routes_for(alice, "m")) == [("Second key", "m"), ("Alice's key", "m")]
    assert labels(routes_for(alice, "only-first")) == [("Alice's key", "only-first")]


def test_the_chosen_account_comes_first(account, second, upstream, alice):
    upstream(listing(model("m")))
    sync.sync_account(account)
    sync.sync_account(second)
    m = AggregatorModel.objects.get()
    assert labels(routes_for_model(alice, m)) == [("Second key", "m"), ("Alice's key", "m")]
    assert labels(routes_for_model(alice, m, account=account)) == [("Alice's key", "m"), ("Second key", "m")]


def test_a_resting_account_comes_last(account, second, upstream, alice):
    upstream(listing(model("m")))
    sync.sync_account(account)
    sync.sync_account(second)
    ProviderAccount.objects.filter(pk=second.pk).update(cooldown_until=timezone.now() + timedelta(minutes=1))
    assert labels(routes_for(alice, "m")) == [("Alice's key", "m"), ("Second key", "m")]


def test_ids_are_case_sensitive(account, upstream, alice):
    upstream(listing(model("DeepSeek-V3")))
    sync.sync_account(account)
    assert why(alice, "deepseek-v3")[0] == "model_not_found"


def test_no_route_leads_through_another_users_account(account, upstream, bob, alice):
    upstream(listing(model("m")))
    sync.sync_account(account)
    assert why(bob, "m")[0] == "no_account"
    with pytest.raises(NoRoute):
        routes_for_model(bob, AggregatorModel.objects.get())


def test_a_private_model_of_someone_else_is_like_none(upstream, alice, bob, bobs_account):
    private = Provider.objects.create(name="home", display_name="Home", base_url="http://home.test/v1", owner=alice)
    home = ProviderAccount.objects.create(owner=alice, provider=private, label="Home")
    upstream(listing(model("secret")), home)
    upstream(listing(model("m")), bobs_account)
    sync.sync_account(home)
    sync.sync_account(bobs_account)

    assert labels(routes_for(alice, "secret")) == [("Home", "secret")]
    code, message = why(bob, "secret")
    assert (code, message.replace("secret", "nosuch")) == why(bob, "nosuch")
    assert code == "model_not_found"


def test_a_user_without_an_account_is_told_to_add_one(alice):
    assert why(alice, "m") == ("no_account", "You have no account that can be used. Add one under Accounts.")


@pytest.mark.parametrize(
    ("columns", "code", "word"),
    [
        ({"status": "locked"}, "locked", "does not open"),
        ({"status": "invalid"}, "no_account", "rejected"),
        ({"is_active": False}, "no_account", "switched off"),
    ],
)
def test_a_blocked_account_says_why(columns, code, word, account, upstream, alice):
    upstream(listing(model("m")))
    sync.sync_account(account)
    ProviderAccount.objects.update(**columns)
    assert why(alice, "m")[0] == code
    assert word in why(alice, "m")[1]


def test_a_model_that_is_gone_says_since_when_and_what_follows_it(account, upstream, alice):  # F14
    upstream(listing(model("old", successor="new"), model("other")))
    sync.sync_account(account)
    upstream(listing(model("other")))
    sync.sync_account(account)
    code, message = why(alice, "old")
    assert code == "model_not_found"
    assert "no longer lists old" in message and f"{timezone.now():%B %Y}" in message and "new" in message


def test_an_alias_gives_its_targets_in_order(account, upstream, alice, bob):
    upstream(listing(model("a"), model("b"), model("best")))
    sync.sync_account(account)
    ModelAlias.objects.create(alias="best", owner=alice, targets=["b", "missing", "a"])
    ModelAlias.objects.create(alias="fast", targets=["a"])
    ModelAlias.objects.create(alias="a", targets=["b"])
    ModelAlias.objects.create(alias="bobs", owner=bob, targets=["a"])

    assert [r.model.model_id for r in routes_for(alice, "best")] == ["b", "a"], "one's own alias wins over an id"
    assert [r.model.model_id for r in routes_for(alice, "fast")] == ["a"]
    assert [r.model.model_id for r in routes_for(alice, "a")] == ["a"], "an id wins over a global alias"
    assert why(alice, "bobs")[0] == "model_not_found"
