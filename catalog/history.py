"""What changed, as pages show it: rows of one model and kind put together, with before, after and direction.

Reads only, and starts at the user. Pages go from the newest to the oldest by keys, over headings (ChangeSet) that
count what is under them: a first sync of a thousand models is one line, and no page costs more as history grows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import reduce
from itertools import groupby
from operator import or_
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from catalog.models import AggregatorModel, ChangeSet, ModelChange
from catalog.reading import PRICE_COLUMNS

if TYPE_CHECKING:
    from providers.models import AnyUser

SETS = 12
"""Headings on one page."""

SHOWN_AT_ONCE = 12
"""Models of one kind that stand under a heading; more than that are one line with their count."""

MOST_COUNTED = 1_000
"""Models of one kind up to which those under a heading that the reader may know of are counted. Of more the heading
tells the sync's own count, which may be a few too high: no page may cost as much as a first sync is long."""

MOST_OF_MINE = 300
ENTRIES = 60
"""Models on a page of one heading, or of the models somebody uses."""

Kind = ModelChange.Kind

LABELS = {
    "price_input": "Input",
    "price_output": "Output",
    "price_cache_read": "Cached input",
    "price_cache_write": "Cache write",
    "price_reasoning": "Reasoning",
    "price_image": "Image",
    "price_request": "Call",
    "price_search": "Web search",
    "price_kind": "Price",
    "pricing_rules": "Tiers",
    "context_window": "Context",
    "max_output_tokens": "Max. output",
    "capabilities": "Can do",
    "input_modalities": "Reads",
    "output_modalities": "Writes",
    "model_type": "Type",
    "display_name": "Name",
    "retires_at": "Retires",
    "successor": "Successor",
    "is_available": "On sale",
}
"""Column → what pages call it."""

UNITS = {"price_image": "per image", "price_request": "per call", "price_search": "per search"}
PER_MILLION = "per 1M tokens"
_TOKENS = frozenset({"context_window", "max_output_tokens"})
_WORDS = frozenset({"capabilities", "input_modalities", "output_modalities"})
_CHOICES = {
    "price_kind": dict(AggregatorModel.PriceKind.choices),
    "model_type": dict(AggregatorModel.ModelType.choices),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One column's way from `before` to `after`. `shape` says how to write it: price, tokens, words, date, text …"""

    column: str
    before: Any
    after: Any

    @property
    def label(self) -> str:
        return LABELS.get(self.column, self.column)

    @property
    def unit(self) -> str:
        return UNITS.get(self.column, PER_MILLION) if self.column in PRICE_COLUMNS else ""

    @property
    def shape(self) -> str:
        if self.column in PRICE_COLUMNS:
            return "price"
        if self.column in _TOKENS:
            return "tokens"
        if self.column in _WORDS:
            return "words"
        return {"retires_at": "date", "pricing_rules": "rules", "is_available": "sale"}.get(self.column, "text")

    @property
    def added(self) -> list[str]:
        return [word for word in self.after or [] if word not in (self.before or [])]

    @property
    def removed(self) -> list[str]:
        return [word for word in self.before or [] if word not in (self.after or [])]

    @property
    def percent(self) -> Decimal | None:
        """By how much it rose (or fell, below 0); None where there is no such figure."""
        if self.shape not in ("price", "tokens") or self.before is None or self.after is None or not self.before:
            return None
        return (Decimal(self.after) - Decimal(self.before)) * 100 / Decimal(self.before)

    @property
    def rise(self) -> str:
        """The size of `percent` in words: "25 %", "0.4 %", "12 times" for what became many times as much."""
        percent = self.percent
        if percent is None or not percent:
            return ""
        if percent >= 900:
            return f"{1 + percent / 100:,.0f} times"
        size = abs(percent)
        return f"{size:.0f} %" if size >= 10 else f"{max(size, Decimal('0.1')):.1f} %".replace(".0 %", " %")

    @property
    def direction(self) -> str:
        """up, down, or "" where neither can be said."""
        if self.shape not in ("price", "tokens") or self.before is None or self.after is None:
            return ""
        return "up" if self.after > self.before else "down" if self.after < self.before else ""


def step(column: str, before: Any, after: Any) -> Step:
    """A Step from JSON values as history stores them."""
    if column in PRICE_COLUMNS:
        return Step(column, _decimal(before), _decimal(after))
    if column in _TOKENS:
        return Step(column, _whole(before), _whole(after))
    if column == "retires_at":
        return Step(column, _day(before), _day(after))
    if column in _WORDS:
        return Step(column, _list(before), _list(after))
    if names := _CHOICES.get(column):
        return Step(column, names.get(before, before), names.get(after, after))
    return Step(column, before, after)


def _decimal(value: Any) -> Decimal | None:
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _day(value: Any) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _list(value: Any) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to one model in one sync, of one kind."""

    model: AggregatorModel
    kind: Kind
    at: datetime
    steps: tuple[Step, ...]
    is_mine: bool = False


def entries(rows: Iterable[ModelChange], mine: Collection[int] = ()) -> list[Entry]:
    """One entry per model, kind and moment. A sync writes the rows of a model one after the other."""
    found = []
    for (_, kind, at), same in groupby(rows, key=lambda row: (row.model_id, row.kind, row.at)):
        group = list(same)
        model = group[0].model
        steps = _in_order(step(row.field, row.before, row.after) for row in group if row.field)
        found.append(Entry(model, Kind(kind), at, steps, model.pk in mine))
    return found


def _in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    order = list(LABELS)
    return tuple(sorted(steps, key=lambda one: order.index(one.column) if one.column in order else len(order)))


# -- The pages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """The models of one kind under a heading: all of them, or, where they are many, those of the reader's alone."""

    kind: Kind
    count: int
    entries: Sequence[Entry]

    @property
    def is_whole(self) -> bool:
        return self.count <= len(self.entries)


@dataclass(slots=True)
class Heading:
    """One sync that changed something. `day` is said where another day begins."""

    change_set: ChangeSet
    day: date | None = None
    groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is the key of the page after this one, "" if there is none."""

    headings: Sequence[Heading]
    next: str


def page(
    user: AnyUser, *, providers: Collection[int], kind: str = "", before: int | None = None, mine: Collection[int] = ()
) -> Page:
    """The changes at `providers` that `user` may see, newest first. Three to five queries, however long history is."""
    sets = ChangeSet.objects.for_user(user).filter(provider_id__in=providers).select_related("provider")
    if kind:
        sets = sets.filter(Exists(ModelChange.objects.for_user(user).filter(change_set=OuterRef("pk"), kind=kind)))
    if before is not None:
        sets = sets.filter(pk__lt=before)
    found = list(sets.order_by("-pk")[: SETS + 1])
    shown = found[:SETS]
    headings = [Heading(one) for one in shown]
    above = ChangeSet.objects.for_user(user).filter(pk=before).first() if before is not None else None
    said = above.at.date() if above else None
    for heading in headings:
        if heading.change_set.at.date() != said:
            heading.day = said = heading.change_set.at.date()
    _fill(user, headings, kind, mine)
    return Page([heading for heading in headings if heading.groups], str(shown[-1].pk) if len(found) > SETS else "")


def _fill(user: AnyUser, headings: Sequence[Heading], kind: str, mine: Collection[int]) -> None:
    """Put the rows under their headings: small kinds whole, of large ones what is `mine`."""
    small: list[tuple[int, str]] = []
    large: list[tuple[int, str, int]] = []
    for heading in headings:
        pk = heading.change_set.pk
        for name, count in _counts(heading.change_set, kind):
            if count <= SHOWN_AT_ONCE:
                small.append((pk, name))
            else:
                large.append((pk, name, count))
    wanted = [Q(change_set=pk, kind=name) for pk, name in small]
    if mine and large:
        sets, models = sorted({pk for pk, _, _ in large}), list(mine)[:MOST_OF_MINE]
        wanted.append(Q(change_set__in=sets, model_id__in=models) & ~Q(kind=Kind.ADDED))
    by_group: dict[tuple[int | None, str], list[ModelChange]] = {}
    if wanted:
        rows = ModelChange.objects.for_user(user).filter(change_set__in=[one.change_set.pk for one in headings])
        rows = rows.filter(reduce(or_, wanted)).select_related("model__provider")
        for row in rows.order_by("pk"):
            by_group.setdefault((row.change_set_id, row.kind), []).append(row)
    known = _known(user, large)
    for heading in headings:
        pk = heading.change_set.pk
        for name, _ in _counts(heading.change_set, kind):
            found = entries(by_group.get((pk, name), ()), mine)
            if count := known.get((pk, name), len(found)):
                heading.groups.append(Group(Kind(name), count, found))


def _known(user: AnyUser, groups: Iterable[tuple[int, str, int]]) -> dict[tuple[int, str], int]:
    """How many models `user` may know of in each of `groups`: (heading, kind, models in all). At most one query."""
    known = {(pk, name): count for pk, name, count in groups}
    asked = [Q(change_set=pk, kind=name) for (pk, name), count in known.items() if count <= MOST_COUNTED]
    if asked:
        known |= {(pk, name): 0 for (pk, name), count in known.items() if count <= MOST_COUNTED}
        rows = ModelChange.objects.for_user(user).filter(reduce(or_, asked)).order_by()
        for pk, name, count in rows.values_list("change_set_id", "kind").annotate(Count("model_id", distinct=True)):
            known[pk, name] = count
    return known


def kinds_under(user: AnyUser, change_set: ChangeSet) -> dict[str, int]:
    """Kind of change → how many models that `user` may know of, in the order pages show kinds. One query."""
    known = _known(user, [(change_set.pk, name, count) for name, count in _counts(change_set)])
    return {name: count for (_, name), count in known.items() if count}


def _counts(change_set: ChangeSet, only: str = "") -> Iterator[tuple[str, int]]:
    """(kind, models), in the order pages show kinds."""
    for name in (
        Kind.PRICE,
        Kind.RETIREMENT,
        Kind.GONE,
        Kind.BACK,
        Kind.ADDED,
        Kind.RENAMED,
        Kind.CONTEXT,
        Kind.CAPABILITY,
    ):
        count = change_set.counts.get(name.value, 0)
        if count and only in ("", name.value):
            yield name.value, count


def under(
    user: AnyUser, change_set: ChangeSet, *, kind: str, after: int | None = None, mine: Collection[int] = ()
) -> tuple[list[Entry], str]:
    """One page of the models of one kind under a heading, that `user` may know of; the key of the next or ""."""
    rows = ModelChange.objects.for_user(user).filter(change_set=change_set, kind=kind)
    if after is not None:
        rows = rows.filter(pk__gt=after)
    return _cut(rows.order_by("pk"), mine)


def of_models(
    user: AnyUser, models: Collection[int], *, kind: str = "", before: int | None = None, size: int = ENTRIES
) -> tuple[list[Entry], str]:
    """What happened to these models, newest first, and the key of the next page or ""."""
    rows = ModelChange.objects.for_user(user).filter(model_id__in=models)
    if kind:
        rows = rows.filter(kind=kind)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return _cut(rows.order_by("-pk"), (), size)


def _cut(rows: QuerySet[ModelChange], mine: Collection[int], size: int = ENTRIES) -> tuple[list[Entry], str]:
    """The first entries of `rows`, never a part of one."""
    most = size * 2
    found = list(rows.select_related("model__provider")[: most + 1])
    is_cut = len(found) > most
    pairs = [(list(same), key) for key, same in groupby(found, key=lambda row: (row.model_id, row.kind, row.at))]
    if is_cut and len(pairs) > 1:
        pairs.pop()  # its other rows may be on the next page
    is_cut = is_cut or len(pairs) > size
    pairs = pairs[:size]
    shown = [row for group, _ in pairs for row in group]
    return entries(shown, mine), str(shown[-1].pk) if is_cut and shown else ""


# -- One model's price over time -------------------------------------------------------------------------------------

MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Course:
    """One price over time: (moment, USD or None for unknown) from the oldest known to the last change."""

    column: str
    points: tuple[tuple[datetime, Decimal | None], ...]

    @property
    def label(self) -> str:
        return LABELS[self.column]

    @property
    def has_changed(self) -> bool:
        return len(self.points) > 1

    @property
    def since(self) -> datetime:
        """Since when it is what it is."""
        return self.points[-1][0]

    @property
    def now(self) -> Decimal | None:
        return self.points[-1][1]

    @property
    def steps(self) -> list[tuple[datetime, Step]]:
        """The changes, newest first."""
        pairs = zip(self.points, self.points[1:], strict=False)
        return [(at, Step(self.column, before, after)) for (_, before), (at, after) in pairs][::-1]


def courses(user: AnyUser, model: AggregatorModel) -> list[Course]:
    """The courses of the input and the output price, from history's rows. One query."""
    columns = ("price_input", "price_output")
    rows = (
        ModelChange.objects.for_user(user)
        .filter(model=model, kind=Kind.PRICE, field__in=columns)
        .order_by("-at", "-pk")
        .values_list("field", "at", "before", "after")[:MOST_POINTS]
    )
    found: Mapping[str, list[tuple[datetime, Any, Any]]] = {column: [] for column in columns}
    for column, at, before, after in reversed(list(rows)):
        found[column].append((at, _decimal(before), _decimal(after)))
    return [_course(model, column, changes) for column, changes in found.items()]


def _course(model: AggregatorModel, column: str, changes: Sequence[tuple[datetime, Any, Any]]) -> Course:
    if not changes:
        return Course(column, ((model.created_at, getattr(model, column)),))
    first = min(model.created_at, changes[0][0])
    points = [(first, changes[0][1]), *((at, after) for at, _, after in changes)]
    return Course(column, tuple(points))
