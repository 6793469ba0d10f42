"""A query that is compiled once for all users gives each their own rows, as for_user does (A1)."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db.models import Value
from django.utils import timezone

from catalog import choices, listing, own_prices
from catalog.models import AggregatorModel, FavouriteModel, HideRule
from catalog.per_user import PerUser
from providers.models import Provider, ProviderAccount


@pytest.fixture
def things_of_both(account, provider, alice, bob):
    """Each has accounts, stars, rules and prices; some columns are empty for one and set for the other."""
    ProviderAccount.objects.create(owner=alice, provider=provider, label="Spare", cooldown_until=timezone.now())
    ProviderAccount.objects.create(owner=bob, provider=provider, label="Bob's", status="attention")
    ProviderAccount.objects.create(owner=bob, provider=provider, label="Off", is_active=False)
    models = [AggregatorModel.objects.create(provider=provider, model_id=f"m{n}", display_name="M") for n in range(3)]
    for user, model in ((alice, models[0]), (alice, models[1]), (bob, models[2])):
        FavouriteModel.objects.create(owner=user, model=model)
    choices.add_rule(alice, "*:free", None)
    choices.add_rule(bob, "", Decimal("0.000001"))
    own_prices.enter(bob, models[0], {"price_input": Decimal(1)}, for_all=False)


@pytest.mark.parametrize(
    ("prepared", "make"), [(listing._STANDING, listing._standing_of), (choices._KEPT, choices._kept_of)]
)
def test_compiled_once_it_gives_what_the_queryset_gives_each_user(prepared, make, things_of_both, alice, bob, sam):
    for user in (alice, bob, alice, sam, bob):
        assert sorted(map(repr, prepared.rows(user))) == sorted(map(repr, make(user)))  # types and all
    assert {row[1] for row in listing._STANDING.rows(bob)} == {"Bob's"}
    assert {row[1] for row in listing._STANDING.rows(alice)} == {"Alice's key", "Spare"}
    assert choices.kept_by(bob).rules == (("", Decimal("0.000001")),)
    assert len(choices.kept_by(alice).favourites) == 2
    assert choices.kept_by(sam) == choices.Kept([], ())


def test_it_is_one_query_and_compiled_only_once(things_of_both, alice, bob, django_assert_num_queries):
    made = []

    def make(user):
        made.append(user)
        return HideRule.objects.for_user(user).values_list("glob")

    prepared = PerUser(make)
    for user in (alice, bob):
        with django_assert_num_queries(1):
            list(prepared.rows(user))
    assert len(made) == 2  # two users that do not exist


@pytest.mark.django_db
@pytest.mark.parametrize(
    "make",
    [
        lambda user: Provider.objects.values_list("name"),  # nobody's rows
        lambda user: HideRule.objects.for_user(user).filter(created_at__lt=timezone.now()).values_list("glob"),
        lambda user: HideRule.objects.for_user(user).filter(glob=str(user.pk)).values_list("glob"),
        lambda user: HideRule.objects.for_user(user).values_list("glob", *(["pk"] if user.pk % 2 else [])),
        lambda user: HideRule.objects.for_user(user).annotate(up=Value(user.pk - 1)).values_list("glob", "up"),
    ],
    ids=["nobody", "a moment", "a text of the key", "other columns", "made of the key"],
)
def test_a_query_that_differs_by_more_than_whose_rows_it_reads_is_refused(make, alice):
    with pytest.raises(TypeError):
        list(PerUser(make).rows(alice))


@pytest.mark.django_db
def test_more_than_the_key_of_a_user_is_not_to_be_had(alice):
    with pytest.raises(AttributeError):
        list(
            PerUser(lambda user: HideRule.objects.filter(owner_id=user.pk * user.is_staff).values_list("pk")).rows(
                alice
            )
        )


@pytest.mark.parametrize(
    "user", [AnonymousUser(), type("Odd", (), {"pk": None})(), type("Odd", (), {"pk": -7_310_001})()]
)
def test_nobody_who_is_not_stored_owns_rows(user):
    with pytest.raises(ValueError, match="stored"):
        list(listing._STANDING.rows(user))
