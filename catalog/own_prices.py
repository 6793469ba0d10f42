"""Prices entered by hand: by a user, for themselves; by staff, for everybody. The only writer of OwnPrice.

They are laid over what the seller states and never written into it, so no sync can touch them and both stay visible.
A user's own price wins over staff's, staff's over the seller's, the seller's over a list price. Only the columns that
were filled in replace anything; a tier or time window of the seller's gives way in those columns too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from catalog import reading
from catalog.models import PRICE_COLUMNS, AggregatorModel, Origin, OwnPrice
from providers.clients import prices

if TYPE_CHECKING:
    from providers.models import AnyUser

_Kind = AggregatorModel.PriceKind
CONDITIONS = ("min_prompt_tokens", "utc_start", "utc_end")
"""Keys of a rule that say when it holds; the others are prices."""


def of(user: AnyUser, model_pks: Iterable[int] | None = None) -> dict[int, OwnPrice]:
    """Model → the price entered by hand that counts for `user`. One query."""
    rows = OwnPrice.objects.for_user(user)
    if model_pks is not None:
        rows = rows.filter(model_id__in=list(model_pks))
    found: dict[int, OwnPrice] = {}
    for row in rows.order_by():
        if row.owner_id is not None or row.model_id not in found:
            found[row.model_id] = row
    return found


def lay_over(user: AnyUser, models: Sequence[AggregatorModel], known: Mapping[int, OwnPrice] | None = None) -> None:
    """Give `models` the prices that count for `user`. In memory: nobody but the sync may save them.

    `known`: what `of` gave, where the caller has asked already.
    """
    own = of(user, [model.pk for model in models]) if known is None and models else known or {}
    for model in models:
        if model.pk in own:
            for name, value in laid_over(model, own[model.pk]).items():
                setattr(model, name, value)


def laid_over(model: Any, own: OwnPrice) -> dict[str, Any]:
    """Column → value of the price columns of `model` (a row, or anything with its attributes) under `own`."""
    given = {column: getattr(own, column) for column in PRICE_COLUMNS if getattr(own, column) is not None}
    counting: dict[str, Decimal | None] = {column: getattr(model, column) for column in PRICE_COLUMNS} | given
    is_whole = "price_input" in given and "price_output" in given
    kind = str(model.price_kind)
    if kind == _Kind.VARIABLE and not is_whole:
        counting = dict.fromkeys(PRICE_COLUMNS) | given
    elif kind == _Kind.LIST and any(value is not None and column not in given for column, value in counting.items()):
        if is_whole:  # the user knows what this seller asks: nothing of another's list beside it
            counting = dict.fromkeys(PRICE_COLUMNS) | given
            kind = reading.price_kind(counting, variable=False)
    else:
        kind = reading.price_kind(counting, variable=False)
    names = {PRICE_COLUMNS[column] for column in given}
    origin = Origin.LIST if kind == _Kind.LIST else Origin.BY_HAND
    return {
        **counting,
        "price_kind": kind,
        "pricing_rules": _without(model.pricing_rules, names),
        "origins": {**model.origins, "prices": origin.value},
    }


def _without(rules: Any, names: set[str]) -> list[dict[str, Any]]:
    """The seller's rules without the prices called `names`; rules that then say nothing are dropped."""
    kept = []
    for rule in rules if isinstance(rules, list) else []:
        rest = {key: value for key, value in rule.items() if key not in names} if isinstance(rule, dict) else {}
        if any(key not in CONDITIONS for key in rest):
            kept.append(rest)
    return kept


def figure(value: object) -> Decimal | None:
    """The price in a rule (text, as the clients write it); None for anything else."""
    return reading.price(prices.number(value)) if isinstance(value, str) else None


def plain(value: Decimal | None) -> str:
    """A price as digits to edit, "" for none."""
    return "" if value is None else prices.plain(value)


# -- Writing ---------------------------------------------------------------------------------------------------------


def enter(user: AnyUser, model: AggregatorModel, entered: Mapping[str, Decimal | None], *, for_all: bool) -> OwnPrice:
    """Keep `entered` (columns of PRICE_COLUMNS) as the user's own for this model, or as everybody's.

    Whoever calls with `for_all` has checked that the user may. Replaces what was entered before.
    """
    owner_id = None if for_all else user.pk
    columns = {column: entered.get(column) for column in PRICE_COLUMNS}
    with transaction.atomic():
        row, _ = OwnPrice.objects.update_or_create(
            owner_id=owner_id, model_id=model.pk, defaults={**columns, "updated_at": timezone.now()}
        )
    return row


def undo(user: AnyUser, model: AggregatorModel, *, for_all: bool) -> bool:
    """Forget what was entered; whether there was anything. The next price in line counts again at once."""
    rows = OwnPrice.objects.for_user(user).filter(model_id=model.pk)
    rows = rows.filter(owner__isnull=True) if for_all else rows.filter(owner_id=user.pk)
    return bool(rows.delete()[0])
