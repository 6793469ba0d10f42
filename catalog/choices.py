"""What a user arranges for themselves where they choose a model: stars, saved filters, hide rules. The only writer.

Each has a cap, so that what one user keeps never makes a page slow.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Value

from catalog.listing import Rules
from catalog.models import AggregatorModel, FavouriteModel, HideRule, SavedFilter
from catalog.per_user import PerUser
from providers.money import MoneyField

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.contrib.auth.models import User
    from django.db.models import QuerySet

    from providers.models import AnyUser

MAX_FAVOURITES = 200
MAX_FILTERS = 30
MAX_RULES = 40


class TooMany(Exception):
    """The cap is reached; str() is a sentence for the user."""


class Kept(NamedTuple):
    """What a list is arranged by: primary keys of starred models, the latest first, and the hide rules."""

    favourites: list[int]
    rules: Rules


def _kept_of(user: AnyUser) -> QuerySet[Any, Any]:
    no_cap = Value(None, output_field=MoneyField())
    stars = (
        FavouriteModel.objects.for_user(user).order_by().values_list(Value("star"), "model_id", Value(""), no_cap, "pk")
    )
    rules = HideRule.objects.for_user(user).order_by().values_list(Value("rule"), "pk", "glob", "price_cap", "pk")
    return stars.union(rules, all=True)


_KEPT = PerUser(_kept_of)


def kept_by(user: AnyUser) -> Kept:
    """The user's stars and hide rules. One query."""
    found = list(_KEPT.rows(user))
    starred = sorted(((pk, model_pk) for kind, model_pk, _, _, pk in found if kind == "star"), reverse=True)
    hiding = sorted((pk, glob, cap) for kind, _, glob, cap, pk in found if kind == "rule")
    return Kept(
        [model_pk for _, model_pk in starred][:MAX_FAVOURITES],
        tuple((glob, cap) for _, glob, cap in hiding)[:MAX_RULES],
    )


def with_stars(models: Collection[int]) -> Iterable[tuple[int, int]]:
    """(user, model) of those who starred one of `models`."""
    return FavouriteModel.objects.filter(model_id__in=models).order_by().values_list("owner_id", "model_id")


def star(user: User, model: AggregatorModel, *, same: Collection[int] = ()) -> bool:
    """Star the model, or take the star off it and off those that are the `same`. Returns whether it is starred now."""
    stars = FavouriteModel.objects.for_user(user)
    with transaction.atomic():
        taken, _ = stars.filter(model_id__in={model.pk, *same}).delete()
        if taken:
            return False
        if stars.count() >= MAX_FAVOURITES:
            raise TooMany(f"{MAX_FAVOURITES} favourites are the most. Take a star off another model first.")
        FavouriteModel.objects.bulk_create([FavouriteModel(owner=user, model=model)], ignore_conflicts=True)
    return True


def save_filter(user: User, name: str, query: str) -> SavedFilter:
    """Keep a filter under a name; one of that name is replaced."""
    mine = SavedFilter.objects.for_user(user)
    if mine.count() >= MAX_FILTERS and not mine.filter(name=name).exists():
        raise TooMany(f"{MAX_FILTERS} saved filters are the most. Delete one first.")
    with transaction.atomic():
        if mine.filter(name=name).update(query=query):
            return mine.get(name=name)
        try:
            with transaction.atomic():
                return SavedFilter.objects.create(owner=user, name=name, query=query)
        except IntegrityError:  # two tabs at once: the later one wins
            mine.filter(name=name).update(query=query)
            return mine.get(name=name)


def delete_filter(saved: SavedFilter) -> None:
    saved.delete()


def add_rule(user: User, glob: str, price_cap: Decimal | None) -> HideRule:
    """Hide what matches, from now on. The same rule twice is one."""
    mine = HideRule.objects.for_user(user)
    if same := next((one for one in mine if (one.glob, one.price_cap) == (glob, price_cap)), None):
        return same
    if mine.count() >= MAX_RULES:
        raise TooMany(f"{MAX_RULES} rules are the most. Remove one first.")
    return HideRule.objects.create(owner=user, glob=glob, price_cap=price_cap)


def delete_rule(rule: HideRule) -> None:
    rule.delete()
