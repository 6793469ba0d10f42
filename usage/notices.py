"""Who hears of what a sync changed: notices to users of a model, written with the change itself. The only writer.

It lives here and not in the catalog because it must know who used a model, and imports point one way. The catalog's
sync tells `write` inside its transaction (catalog.after_sync), so a change and its notices are stored together or not
at all, and a unique constraint keeps a second telling from writing anything (M4, I15).

A user hears of a model they used within IN_USE or starred, and of those a registered interest names: the targets of
their own aliases here, the models of their conversations in `chat`. Who begins to use a model after its retirement was
announced hears of it from `remind`, which beat calls. Nobody hears of a model they may not see. A provider that
reprices all of its models costs each user the notices of those they use, and additions cost nothing.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, TypeVar

from django.utils import timezone

from catalog import history
from catalog.after_sync import Applied
from catalog.models import AccountModel, AggregatorModel, FavouriteModel, ModelAlias, ModelChange
from catalog.reading import PRICE_COLUMNS
from providers.models import Provider, ProviderAccount
from usage.models import DailyUsage, Door, Notice
from usage.reports import IN_USE

FAR_AWAY = timedelta(days=2 * 365)
"""A retirement later than this is no news: some sellers write 2098-12-31 for "never"."""

SOON = timedelta(days=30)
"""So long before a model retires its users are reminded: most of them began after the date was announced."""

CHUNK = 400
"""Ids per question: SQLite takes 999 parameters."""

Interest = Callable[[Collection[int]], Iterable[tuple[int, int]]]
"""From models (at most CHUNK) to (user, model) of those who want to hear of them. Must cost what it gives."""

_interests: dict[Notice.Because, Interest] = {}
_T = TypeVar("_T")


def interested(because: Notice.Because, interest: Interest) -> None:
    """Let `interest` name users who hear of a model, whether they used it or not."""
    _interests[because] = interest


def lately() -> Any:
    """The moment since when use counts."""
    return timezone.now() - IN_USE


def write(applied: Applied) -> None:
    """Store the notices of one sync. Told twice, it writes them once."""
    news = dict(_news(applied.changes))
    _mention_successors(news)
    readers = _readers(applied.account.provider, list(news)) if news else {}
    rows = [
        Notice(owner_id=user, model_id=pk, kind=kind, because=because, run_id=applied.run_id, data=data)
        for pk, found in news.items()
        for user, because in readers.get(pk, {}).items()
        for kind, data in found
    ]
    rows += _dropped(applied)
    for row in rows:
        row.created_at = applied.at
    Notice.objects.bulk_create(rows, batch_size=500, ignore_conflicts=True)


def remind() -> int:
    """Tell the users of each model that retires SOON, once per model and date; how many notices that made (I15)."""
    today = timezone.now().date()
    leaving = AggregatorModel.objects.filter(
        retires_at__gte=today, retires_at__lte=today + SOON, missing_since__isnull=True
    )
    by_provider: dict[Provider, list[AggregatorModel]] = defaultdict(list)
    for model in leaving.select_related("provider"):
        by_provider[model.provider].append(model)
    before = Notice.objects.order_by().count()
    for provider, models in by_provider.items():
        keys = [model.pk for model in models]
        readers, knowing = _readers(provider, keys), _told_lately(keys)
        rows = [
            Notice(
                owner_id=user,
                model=model,
                kind=Notice.Kind.RETIRING,
                because=because,
                run_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{model.pk} retires {model.retires_at}"),
                data={"retires_at": str(model.retires_at), "successor": model.successor},
            )
            for model in models
            for user, because in readers.get(model.pk, {}).items()
            if (user, model.pk, str(model.retires_at)) not in knowing
        ]
        Notice.objects.bulk_create(rows, batch_size=500, ignore_conflicts=True)
    return Notice.objects.order_by().count() - before


def _told_lately(models: Sequence[int]) -> set[tuple[int, int, str]]:
    """(user, model, date) of retirements that were announced within SOON: no need to say it again."""
    announced = Notice.objects.filter(kind=Notice.Kind.RETIRING, created_at__gte=timezone.now() - SOON)
    return {
        (user, pk, str(data.get("retires_at")))
        for some in _chunks(models)
        for user, pk, data in announced.filter(model_id__in=some).values_list("owner_id", "model_id", "data")
    }


# -- What is news ----------------------------------------------------------------------------------------------------

News = list[tuple[Notice.Kind, dict[str, Any]]]


def _news(changes: Sequence[ModelChange]) -> Iterator[tuple[int, News]]:
    """(model, what to say of it). Renames, limits and capabilities are on the Changes page and no more."""
    by_model: dict[int, list[ModelChange]] = defaultdict(list)
    for change in changes:
        by_model[change.model_id].append(change)
    for pk, lines in by_model.items():
        kinds = {line.kind for line in lines}
        news: News = []
        if ModelChange.Kind.GONE in kinds:
            news.append((Notice.Kind.GONE, {}))
        if ModelChange.Kind.BACK in kinds:
            news.append((Notice.Kind.BACK, {}))
        if prices := [line for line in lines if line.kind == ModelChange.Kind.PRICE]:
            news.append((_verdict(prices), {"steps": [[line.field, line.before, line.after] for line in prices]}))
        news += _retirement([line for line in lines if line.kind == ModelChange.Kind.RETIREMENT])
        if news:
            yield pk, news


def _verdict(prices: Sequence[ModelChange]) -> Notice.Kind:
    """Dearer or cheaper where every price that moved went that way; otherwise just repriced."""
    directions = {
        history.step(line.field, line.before, line.after).direction for line in prices if line.field in PRICE_COLUMNS
    }
    return {frozenset({"up"}): Notice.Kind.DEARER, frozenset({"down"}): Notice.Kind.CHEAPER}.get(
        frozenset(directions), Notice.Kind.REPRICED
    )


def _retirement(lines: Sequence[ModelChange]) -> News:
    after = {line.field: line.after for line in lines}
    news: News = []
    if "is_available" in after:
        news.append((Notice.Kind.BACK if after["is_available"] else Notice.Kind.GONE, {}))
    if "retires_at" in after and _is_near(after["retires_at"]):
        news.append((Notice.Kind.RETIRING, {"retires_at": after["retires_at"]}))
    elif after.get("successor"):
        news.append((Notice.Kind.SUCCESSOR, {"successor": after["successor"]}))
    return news


def _is_near(day: Any) -> bool:
    """Near enough to say so; None (it stays after all) always is."""
    return day is None or (isinstance(day, str) and date.fromisoformat(day) <= timezone.now().date() + FAR_AWAY)


def _mention_successors(news: Mapping[int, News]) -> None:
    """A model that leaves says where to go, if its seller named a successor."""
    leaving = {
        pk: data
        for pk, found in news.items()
        for kind, data in found
        if kind in (Notice.Kind.GONE, Notice.Kind.RETIRING) and data.get("retires_at", True)
    }
    for some in _chunks(list(leaving)):
        named = AggregatorModel.objects.filter(pk__in=some).exclude(successor="")
        for pk, successor in named.values_list("pk", "successor"):
            leaving[pk]["successor"] = successor


# -- Who hears of it -------------------------------------------------------------------------------------------------


def _readers(
    provider: Provider, changed: Sequence[int], *, only: int | None = None
) -> dict[int, dict[int, Notice.Because]]:
    """Model → user → why; of one user if `only` says so."""
    found: dict[int, dict[int, Notice.Because]] = defaultdict(dict)
    at_provider = ProviderAccount.objects.filter(provider_id=provider.pk, owner__is_active=True)
    if only is not None:
        at_provider = at_provider.filter(owner_id=only)
    accounts = dict(at_provider.values_list("pk", "owner_id"))
    owners = sorted(set(accounts.values()))
    by_id: dict[str, int] = {}
    for some in _chunks(changed):
        by_id |= dict(AggregatorModel.objects.filter(pk__in=some).values_list("model_id", "pk"))

    def note(because: Notice.Because, pairs: Iterable[tuple[int, int]]) -> None:
        for user, pk in pairs:
            if provider.owner_id in (None, user) and only in (None, user):
                found[pk].setdefault(user, because)

    note(Notice.Because.USED, _users(accounts, owners, by_id))
    for some in _chunks(changed):
        stars = FavouriteModel.objects.filter(model_id__in=some, owner__is_active=True).order_by()
        note(Notice.Because.STARRED, stars.values_list("owner_id", "model_id"))
    note(Notice.Because.ALIAS, _with_aliases(owners, by_id))
    for because, interest in _interests.items():
        for some in _chunks(changed):
            note(because, interest(some))
    return found


def _users(accounts: Mapping[Any, int], owners: Sequence[int], by_id: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Those who called one of the models through an account of this provider."""
    first = lately().date()
    for some in _chunks(owners):
        days = DailyUsage.objects.filter(user_id__in=some, day__gte=first).exclude(door=Door.PROBE)
        if len(by_id) <= CHUNK:
            days = days.filter(model_id__in=list(by_id))
        for user, account, model_id in days.order_by().values_list("user_id", "account_id", "model_id").distinct():
            if accounts.get(account) == user and model_id in by_id:
                yield user, by_id[model_id]


def _with_aliases(owners: Sequence[int], by_id: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Those whose own alias leads to one of the models."""
    for some in _chunks(owners):
        for user, targets in ModelAlias.objects.filter(owner_id__in=some).values_list("owner_id", "targets"):
            for target in targets if isinstance(targets, list) else ():
                if isinstance(target, str) and user is not None and target in by_id:
                    yield user, by_id[target]


def _dropped(applied: Applied) -> list[Notice]:
    """To the account's owner alone: this key no longer lists a model they use, and no other key of theirs does."""
    rows = []
    owner = applied.account.owner_id
    for some in _chunks(applied.dropped):
        readers = _readers(applied.account.provider, some, only=owner)
        mine = {pk: readers[pk][owner] for pk in some if owner in readers.get(pk, {})}
        others = AccountModel.objects.filter(
            account__in=ProviderAccount.objects.filter(owner_id=owner).usable(), model_id__in=list(mine)
        ).values_list("model_id", flat=True)
        for pk in sorted(set(mine) - set(others)):
            rows.append(
                Notice(
                    owner_id=owner,
                    model_id=pk,
                    kind=Notice.Kind.DROPPED,
                    because=mine[pk],
                    run_id=applied.run_id,
                    data={"account": applied.account.label},
                )
            )
    return rows


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
