"""Aliases: names for ordered lists of models, their own or everybody's. The only writer of ModelAlias and its history.

Which of several things of one name answers, everywhere (chat chooses rows, so this is about names on `/v1`):

    the user's own alias   wins over   a model id   wins over   a global alias

Who makes an alias chose its name, so nothing that a provider lists later may take it from them; and staff cannot turn
a real model's id into something else for everybody. Neither happens in silence: `collisions` is what the form says when
a name is taken and what the list shows when a sync brings the name later; and the header `x-switchboard-alias` of an
answer says that an alias answered.

A target is a model id, never an alias: so there are no chains and no circles. It may be unknown (today): it is skipped,
and shown as such. With a price cap, a model that costs more is skipped, and so is one whose price is not known.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Q

from catalog import own_prices
from catalog.models import AggregatorModel, ModelAlias, ModelAliasVersion
from catalog.reading import clean_name, is_storable_id

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from providers.models import AnyUser

MAX_NAME = 120
MAX_TARGETS = 50
MAX_CAP = Decimal(1_000_000)
MAX_OWN = 200
"""Aliases one user may have."""

SHOWN_VERSIONS = 50


class Unchanged(Exception):
    """There was nothing to store."""


# -- Writing ---------------------------------------------------------------------------------------------------------


def state_of(alias: ModelAlias) -> dict[str, Any]:
    """What a version keeps of an alias, as JSON."""
    return {
        "alias": alias.alias,
        "targets": list(alias.targets),
        "max_input": _figure(alias.max_input),
        "max_output": _figure(alias.max_output),
    }


def save(alias: ModelAlias, *, by: User, kind: str = "") -> ModelAlias:
    """Store the alias and the version that says who made it what. Raises IntegrityError for a name that is taken and
    Unchanged when it already is what it shall be.
    """
    kinds = ModelAliasVersion.Kind
    with transaction.atomic():
        before = None
        if alias.pk is not None:
            stored = ModelAlias.objects.select_for_update().filter(pk=alias.pk).first()
            before = state_of(stored) if stored else None
        after = state_of(alias)
        if before == after:
            raise Unchanged
        alias.save()
        ModelAliasVersion.objects.create(
            alias=alias,
            kind=kind or (kinds.CREATED if before is None else kinds.CHANGED),
            by=by.get_username()[:150],
            before=before,
            after=after,
        )
    return alias


def blank(owner: User | None) -> ModelAlias:
    """A new alias of `owner`'s, or everybody's; not stored."""
    return ModelAlias(owner=owner, targets=[])


def draft(targets: Sequence[str], like: ModelAlias | None) -> ModelAlias:
    """A list that somebody is still writing, under the cap that is stored: for looking at, not for storing."""
    cap = {"max_input": like.max_input, "max_output": like.max_output} if like else {}
    return ModelAlias(pk=0, targets=list(targets), **cap)


def restore(alias: ModelAlias, version: ModelAliasVersion, *, by: User) -> ModelAlias:
    """Make the alias what it was after `version`. Raises as `save` does."""
    alias.alias = str(version.after["alias"])
    alias.targets = list(version.after["targets"])
    alias.max_input, alias.max_output = _amount(version.after["max_input"]), _amount(version.after["max_output"])
    return save(alias, by=by, kind=ModelAliasVersion.Kind.RESTORED)


def delete(alias: ModelAlias) -> None:
    """Remove it, and its history with it."""
    ModelAlias.objects.filter(pk=alias.pk).delete()


def _figure(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount.normalize(), "f")


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


# -- What may be entered ---------------------------------------------------------------------------------------------


def problem_with_name(name: str) -> str:
    """Why this cannot be an alias's name; "" if it can."""
    if not name:
        return "Give it a name: it is what you will ask for."
    if len(name) > MAX_NAME:
        return f"That is {len(name)} characters long; {MAX_NAME} fit."
    if not is_storable_id(name) or any(unicodedata.category(char) in ("Zl", "Zp", "Zs") for char in name):
        return "A name is one word without spaces or invisible characters, such as fast or team/best."
    return ""


def problem_with_targets(targets: Sequence[str]) -> str:
    """Why this cannot be an alias's list, whatever the ids mean; "" if it can."""
    if not targets:
        return "List at least one model: the first that can answer does."
    if len(targets) > MAX_TARGETS:
        return f"Those are {len(targets)} models; {MAX_TARGETS} fit."
    if odd := next((target for target in targets if not is_storable_id(target)), None):
        return f"“{_short(clean_name(odd))}” cannot be a model's id: it is too long, or has invisible characters in it."
    if twice := next((target for target in targets if targets.count(target) > 1), None):
        return f"“{_short(twice)}” is in the list twice."
    return ""


def problem_with_nesting(aliases: Iterable[str], models: Iterable[str]) -> str:
    """Why a list may not hold these names of aliases, unless they are ids of models as well."""
    if nested := sorted(set(aliases) - set(models)):
        return f"“{_short(nested[0])}” is an alias. An alias lists models: name the models you mean."
    return ""


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


# -- What it leads to ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """One id of an alias's list, for one user: the models it may go to now, or why it is skipped."""

    model_id: str
    models: tuple[AggregatorModel, ...]
    skipped: str = ""
    is_known: bool = True

    @property
    def first(self) -> AggregatorModel | None:
        return self.models[0] if self.models else None


def targets_of(user: AnyUser, aliases: Iterable[ModelAlias]) -> dict[int, list[Target]]:
    """Alias → its targets in order, as this user may use them. Two queries, however many aliases; one more for caps."""
    aliases = list(aliases)
    ids = {target for alias in aliases for target in _ids(alias) if is_storable_id(target)}
    available: dict[str, list[AggregatorModel]] = defaultdict(list)
    for some in _chunks(sorted(ids)):
        models = AggregatorModel.objects.available_to(user).filter(model_id__in=some)
        for model in models.select_related("provider").order_by("pk"):
            available[model.model_id].append(model)
    if any(alias.has_cap for alias in aliases):
        own_prices.lay_over(user, [model for models in available.values() for model in models])
    missing = ids - set(available)
    known = {
        model_id
        for some in _chunks(sorted(missing))
        for model_id in AggregatorModel.objects.for_user(user)
        .filter(model_id__in=some)
        .values_list("model_id", flat=True)
    }
    return {alias.pk: [_target(alias, name, available, known) for name in _ids(alias)] for alias in aliases}


def _target(alias: ModelAlias, model_id: str, available: dict[str, list[AggregatorModel]], known: set[str]) -> Target:
    models = available.get(model_id, [])
    if not models and model_id in known:
        return Target(model_id, (), "none of your accounts can call it now")
    if not models:
        return Target(model_id, (), "no provider of yours lists a model of this id", is_known=False)
    fitting = tuple(model for model in models if not above_cap(alias, model))
    return Target(model_id, fitting, "" if fitting else above_cap(alias, models[0]))


def above_cap(alias: ModelAlias, model: AggregatorModel) -> str:
    """Why the alias's price cap keeps the model out, as the end of a sentence; "" if it does not."""
    if not alias.has_cap or model.is_free:
        return ""
    if model.price_kind == AggregatorModel.PriceKind.VARIABLE:
        return "its price varies, so it cannot be held to the cap"
    if model.price_kind == AggregatorModel.PriceKind.LIST:
        return "its seller names no price, so it cannot be held to the cap"
    for cap, price, what in (
        (alias.max_input, model.price_input, "read"),
        (alias.max_output, model.price_output, "written"),
    ):
        if cap is not None and price is None:
            return f"its price per 1M {what} is not known, so it cannot be held to the cap"
        if cap is not None and price is not None and price > cap:
            return f"it costs ${_dollars(price)} per 1M {what}, and the cap is ${_dollars(cap)}"
    return ""


def _dollars(amount: Decimal) -> str:
    """At least cents, and what is behind them."""
    text = format(amount.normalize(), "f")
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}"


# -- Names that mean two things --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Collision:
    """Something else has the alias's name. `wins` says whether the alias answers all the same."""

    wins: bool
    text: str


def collisions(user: AnyUser, aliases: Iterable[ModelAlias]) -> dict[int, list[Collision]]:
    """Alias → what else has its name, as `user` sees it, and which wins. At most two queries."""
    aliases = list(aliases)
    names = sorted({alias.alias for alias in aliases})
    sellers: dict[str, set[str]] = defaultdict(set)
    others: dict[str, list[ModelAlias]] = defaultdict(list)
    for some in _chunks(names):
        models = AggregatorModel.objects.for_user(user).filter(model_id__in=some, missing_since__isnull=True)
        for model_id, seller in models.values_list("model_id", "provider__display_name"):
            sellers[model_id].add(seller)
        for other in ModelAlias.objects.for_user(user).filter(alias__in=some):
            others[other.alias].append(other)
    return {alias.pk: _collisions(alias, sellers[alias.alias], others[alias.alias]) for alias in aliases}


def _collisions(alias: ModelAlias, sellers: set[str], others: list[ModelAlias]) -> list[Collision]:
    found = []
    name = alias.alias
    if sellers:
        at = _listed(sorted(sellers))
        if alias.is_global:
            text = f"“{name}” is also a model's id at {at}. The model wins: who has it gets it, and not this alias."
            found.append(Collision(False, text))
        else:
            text = f"“{name}” is also a model's id at {at}. Your alias wins: calls by this name go to its list."
            found.append(Collision(True, text))
    for other in others:
        if other.pk != alias.pk and other.is_global != alias.is_global:
            if alias.is_global:
                found.append(Collision(False, f"You have an alias “{name}” of your own. Yours wins for you."))
            else:
                found.append(Collision(True, f"There is an alias “{name}” for everybody, too. Yours wins for you."))
    return found


def _listed(words: list[str]) -> str:
    if len(words) > 3:
        words = [*words[:2], f"{len(words) - 2} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# -- Finding ---------------------------------------------------------------------------------------------------------


def editable_by(user: User) -> Q:
    """Which aliases of those they see `user` may change: their own, and with the permission everybody's."""
    own = Q(owner_id=user.pk)
    return own | Q(owner__isnull=True) if may_edit_global(user) else own


def may_edit_global(user: User) -> bool:
    return user.is_staff and user.has_perm("catalog.change_modelalias")


def _ids(alias: ModelAlias) -> list[str]:
    """The list as stored, with nothing in it that is no id: rows of earlier releases were not checked."""
    stored = alias.targets if isinstance(alias.targets, list) else []
    return list(dict.fromkeys(item for item in stored if isinstance(item, str)))[:MAX_TARGETS]


def _chunks(items: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
