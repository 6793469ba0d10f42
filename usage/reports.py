"""What pages say about spending. Sums come from the daily rows alone, so that no page grows slower with history.

Days are UTC. Everything starts from `for_user`; each function names how many queries it makes.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Max, Q, QuerySet, Sum
from django.utils import timezone

from catalog.models import AggregatorModel, FavouriteModel
from providers.models import ProviderAccount
from usage.models import CostSource, DailyUsage, Door, UsageLog

if TYPE_CHECKING:
    from providers.models import AnyUser

ZERO = Decimal(0)
PAGE_SIZE = 50
NAMED_MODELS = 4
"""Models with a colour of their own in the chart; the rest is "other"."""


# -- Periods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Period:
    """Whole UTC days from `first` to `last`, both included."""

    key: str
    label: str
    first: date
    last: date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def before(self) -> Period:
        """As many days, ending the day before this one begins."""
        return Period(
            "", f"the {self.days} days before", self.first - timedelta(days=self.days), self.first - timedelta(1)
        )

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first, datetime.min.time(), UTC)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return datetime.combine(self.last + timedelta(days=1), datetime.min.time(), UTC)


PERIODS = {"today": ("Today", 1), "7": ("7 days", 7), "30": ("30 days", 30), "90": ("90 days", 90)}


def period(key: str, *, today: date | None = None) -> Period:
    """The period a chip stands for, ending today (UTC); 30 days for a key we do not know."""
    key = key if key in PERIODS else "30"
    label, days = PERIODS[key]
    last = today or timezone.now().astimezone(UTC).date()
    return Period(key, label, last - timedelta(days=days - 1), last)


# -- The summary of a period -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class ModelLine:
    """One model at one provider. `sources`: (CostSource, attempts), most first."""

    model_id: str
    name: str
    provider: str
    attempts: int = 0
    unknown: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost: Decimal = ZERO
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    share: int = 0
    """Per cent of the dearest model (of the busiest, where nothing cost anything): the length of its bar."""

    @property
    def sources(self) -> list[tuple[CostSource, int]]:
        found = [(source, self.counts[source]) for source in CostSource if self.counts[source]]
        return sorted(found, key=lambda pair: -pair[1])

    @property
    def shown_cost(self) -> Decimal | None:
        """None (unknown) where nothing but 0 is known of some: "free" would be a claim."""
        return None if self.unknown and not self.cost else self.cost


@dataclass(frozen=True, slots=True)
class DoorLine:
    """Where a part of the money went; `cost` leaves out failed attempts, which have a line of their own."""

    label: str
    attempts: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Day:
    """`parts` has one figure per colour of the chart, `other` last; in USD, or attempts where nothing cost anything."""

    date: date
    parts: tuple[Decimal, ...]

    @property
    def total(self) -> Decimal:
        return sum(self.parts, ZERO)


@dataclass(frozen=True, slots=True)
class Summary:
    period: Period
    spent: Decimal
    spent_before: Decimal
    attempts: int
    failed: int
    unknown: int
    estimated: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    saved: Decimal
    days: tuple[Day, ...]
    legend: tuple[str, ...]
    measure: str
    """What `days` counts: "cost" or, where nothing cost anything, "calls"."""
    models: tuple[ModelLine, ...]
    doors: tuple[DoorLine, ...]

    @property
    def change(self) -> int | None:
        """Per cent against the period before; None where that one cost nothing."""
        if not self.spent_before:
            return None
        return round((self.spent - self.spent_before) * 100 / self.spent_before)

    @property
    def change_size(self) -> int:
        return abs(self.change or 0)

    @property
    def unknown_models(self) -> list[ModelLine]:
        return [line for line in self.models if line.unknown]


_ADDED = (
    "attempts",
    "failed",
    "billed",
    "computed",
    "estimated",
    "unknown",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost",
    "saved",
)


def summary(user: AnyUser, span: Period) -> Summary:
    """All sums of a period, from three queries over daily rows."""
    daily = DailyUsage.objects.for_user(user)
    inside = daily.filter(day__gte=span.first, day__lte=span.last)
    rows: list[Any] = list(
        inside.order_by()
        .values("day", "model_id", "model_name", "provider_name")
        .annotate(**{f"sum_{name}": Sum(name) for name in _ADDED})
    )
    models: dict[tuple[str, str], ModelLine] = {}
    for row in sorted(rows, key=lambda row: row["day"]):
        key = (row["model_id"], row["provider_name"])
        line = models.setdefault(key, ModelLine(row["model_id"], row["model_name"], row["provider_name"]))
        line.name = row["model_name"] or row["model_id"]
        for name in ("attempts", "unknown", "prompt_tokens", "completion_tokens", "cached_tokens", "cost"):
            setattr(line, name, getattr(line, name) + row[f"sum_{name}"])
        for source, column in (("provider", "billed"), ("computed",) * 2, ("estimated",) * 2, ("unknown",) * 2):
            line.counts[source] += row[f"sum_{column}"]

    def total(name: str) -> Any:
        return sum((row[f"sum_{name}"] for row in rows), ZERO if name in ("cost", "saved") else 0)

    measure = "cost" if total("cost") else "calls"
    column = "cost" if measure == "cost" else "attempts"
    ranked = sorted(models.values(), key=lambda line: (-getattr(line, column), -line.attempts, line.name))
    most = max((getattr(line, column) for line in ranked), default=0)
    for line in ranked:
        line.share = int(getattr(line, column) * 100 / most) if most else 0
    days, legend = _days(span, rows, ranked, column)
    before = daily.filter(day__gte=span.before.first, day__lte=span.before.last).aggregate(cost=Sum("cost"))["cost"]
    return Summary(
        period=span,
        spent=total("cost"),
        spent_before=before or ZERO,
        attempts=total("attempts"),
        failed=total("failed"),
        unknown=total("unknown"),
        estimated=total("estimated"),
        prompt_tokens=total("prompt_tokens"),
        completion_tokens=total("completion_tokens"),
        cached_tokens=total("cached_tokens"),
        saved=total("saved"),
        days=days,
        legend=legend,
        measure=measure,
        models=tuple(ranked),
        doors=_doors(inside),
    )


def _days(
    span: Period, rows: Iterable[dict[str, Any]], ranked: Sequence[ModelLine], column: str
) -> tuple[tuple[Day, ...], tuple[str, ...]]:
    """One Day per day of the period, split by the dearest models and the rest, and the names of those parts."""
    named = [(line.model_id, line.provider) for line in ranked[:NAMED_MODELS]]
    colours = {key: number for number, key in enumerate(named)}
    has_rest = len(ranked) > len(named)
    width = len(named) + has_rest
    parts: dict[date, list[Decimal]] = defaultdict(lambda: [ZERO] * width)
    for row in rows:
        at = colours.get((row["model_id"], row["provider_name"]), len(named))
        parts[row["day"]][at] += row[f"sum_{column}"]
    dates = [span.first + timedelta(days=n) for n in range(span.days)]
    legend = tuple(line.name for line in ranked[:NAMED_MODELS]) + (("other",) if has_rest else ())
    return tuple(Day(day, tuple(parts[day]) if day in parts else (ZERO,) * width) for day in dates), legend


def _doors(inside: QuerySet[DailyUsage]) -> tuple[DoorLine, ...]:
    rows = (
        inside.order_by()
        .values("door")
        .annotate(n=Sum("attempts"), bad=Sum("failed"), all_cost=Sum("cost"), bad_cost=Sum("cost_failed"))
    )
    by_door = {row["door"]: row for row in rows}
    lines = [
        DoorLine(str(door.label), row["n"] - row["bad"], row["all_cost"] - row["bad_cost"])
        for door in Door
        if (row := by_door.get(door.value))
    ]
    failed = sum(row["bad"] for row in by_door.values())
    if failed:
        lines.append(DoorLine("Failed and stopped calls", failed, sum((r["bad_cost"] for r in by_door.values()), ZERO)))
    return tuple(lines)


# -- Rows, newest first ----------------------------------------------------------------------------------------------


class BadCursor(ValueError):
    """That is no place in the list."""


def rows(user: AnyUser, span: Period, *, before: str = "", size: int = PAGE_SIZE) -> tuple[list[UsageLog], str]:
    """(attempts started within the period, newest first; the cursor of the next page or ""). One query by an index.

    `before` is a cursor from here: the last row's time in microseconds and its id. Raises BadCursor.
    """
    found = UsageLog.objects.for_user(user).filter(started_at__gte=span.start, started_at__lt=span.end)
    if before:
        moment, pk = _place(before)
        # The first condition lets both databases start in the index where the page starts.
        found = found.filter(started_at__lte=moment).filter(Q(started_at__lt=moment) | Q(pk__lt=pk))
    page = list(found.order_by("-started_at", "-pk")[: size + 1])
    if len(page) <= size:
        return page, ""
    last = page[size - 1]
    return page[:size], f"{_microseconds(last.started_at)}-{last.pk}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _place(cursor: str) -> tuple[datetime, int]:
    moment, _, pk = cursor.partition("-")
    if not (moment.isascii() and moment.isdigit() and pk.isascii() and pk.isdigit() and len(cursor) <= 40):
        raise BadCursor(cursor[:40])
    try:
        when = _EPOCH + timedelta(microseconds=int(moment))
    except OverflowError:
        raise BadCursor(cursor) from None
    if int(pk) >= 2**63:
        raise BadCursor(cursor)
    return when, int(pk)


# -- For other pages -------------------------------------------------------------------------------------------------


def spent_this_month(user: AnyUser, *, today: date | None = None) -> Decimal:
    """USD of the current month (UTC) so far, known costs only. One query."""
    first = (today or timezone.now().astimezone(UTC).date()).replace(day=1)
    return DailyUsage.objects.for_user(user).filter(day__gte=first).aggregate(cost=Sum("cost"))["cost"] or ZERO


def cost_by_conversation(user: AnyUser, conversation_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Decimal | None]:
    """Known USD per conversation, None if only unknown costs could be more than 0; absent if nothing was settled.

    One query.
    """
    found = (
        UsageLog.objects.for_user(user)
        .filter(conversation_id__in=list(conversation_ids))
        .exclude(status=UsageLog.Status.PENDING)
        .order_by()
        .values_list("conversation_id")
        .annotate(known=Sum("cost"), unknown=Count("pk", filter=Q(cost__isnull=True)))
    )
    return {key: None if unknown and not known else known for key, known, unknown in found if key is not None}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one reply cost, all its attempts together; counts and times are of the last one.

    `cost` is the sum of what is known, None if that would only be 0 beside unknown ones; `source` is the weakest of
    the known ones.
    """

    cost: Decimal | None
    source: CostSource
    unknown: int
    attempts: int
    is_running: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    first_token_ms: int | None
    latency_ms: int | None
    has_estimated_counts: bool
    has_failed: bool

    @property
    def source_label(self) -> str:
        return str(self.source.label)

    @property
    def explanation(self) -> str:
        """How we know, for a tooltip."""
        if self.has_failed and self.cost == 0:
            return "The provider did not take this on, so it charges nothing."
        if self.source == CostSource.ESTIMATED and not self.has_estimated_counts:
            return BY_LIST_PRICE
        return EXPLANATIONS[self.source]


BY_LIST_PRICE = "Tokens the provider counted, times a public list price: this provider names no price of its own."
EXPLANATIONS = {
    CostSource.PROVIDER: "The provider named this figure.",
    CostSource.COMPUTED: "Tokens the provider counted, times its prices when the call was made.",
    CostSource.ESTIMATED: "The provider counted nothing, so tokens are estimated from the length of the text.",
    CostSource.UNKNOWN: "Neither the provider nor its price list says what this cost. It is not counted as zero.",
}


def receipt(attempts: Iterable[UsageLog]) -> Receipt | None:
    """One receipt for the attempts of one reply; None if there were none."""
    ordered = sorted(attempts, key=lambda row: row.pk)
    if not ordered:
        return None
    last = ordered[-1]
    settled = [row for row in ordered if row.status != UsageLog.Status.PENDING]
    known = [row for row in settled if row.cost is not None]
    total: Any = sum((row.cost for row in known if row.cost is not None), ZERO)
    unknown = len(settled) - len(known)
    is_known = bool(known) and bool(total or not unknown)
    weakest = max(
        (CostSource(row.cost_source) for row in known), key=list(CostSource).index, default=CostSource.UNKNOWN
    )
    return Receipt(
        cost=total if is_known else None,
        source=weakest if is_known else CostSource.UNKNOWN,
        unknown=unknown,
        attempts=len(ordered),
        is_running=len(settled) < len(ordered),
        prompt_tokens=last.prompt_tokens,
        completion_tokens=last.completion_tokens,
        cached_tokens=last.cached_tokens,
        reasoning_tokens=last.reasoning_tokens,
        first_token_ms=last.first_token_ms,
        latency_ms=last.latency_ms,
        has_estimated_counts=last.metadata.get("counts") == "estimated",
        has_failed=last.status in (UsageLog.Status.ERROR, UsageLog.Status.TIMEOUT),
    )


def receipts_for(generation_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Receipt]:
    """Receipts of replies by generation. One query. The caller has checked that the generations are the user's."""
    by_generation: dict[uuid.UUID, list[UsageLog]] = defaultdict(list)
    for row in UsageLog.objects.filter(generation_id__in=list(generation_ids)).order_by("pk"):
        if row.generation_id is not None:
            by_generation[row.generation_id].append(row)
    return {key: found for key, group in by_generation.items() if (found := receipt(group))}


# -- Models used lately ----------------------------------------------------------------------------------------------


def recent_models(user: AnyUser, *, limit: int = 5, among: int = 100) -> list[int]:
    """Primary keys of the models `user` asked last, by either door, the latest first; read off `among` attempts."""
    attempts = UsageLog.objects.for_user(user).filter(door__in=[Door.CHAT, Door.API], model_pk__isnull=False)
    pks = attempts.order_by("-started_at", "-id").values_list("model_pk", flat=True)[:among]
    return list(dict.fromkeys(pk for pk in pks if pk is not None))[:limit]


# -- Spending per account --------------------------------------------------------------------------------------------

BURN_DAYS = 7
"""Days, today included, over which the burn rate is the mean: long enough for a weekend."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What an account has cost its owner, in USD, as far as costs are known."""

    this_month: Decimal
    per_day: Decimal

    def days_left(self, balance: Decimal | None) -> int | None:
        """Whole days until the balance is used up at this rate; None where either is not known or nothing is spent."""
        if balance is None or self.per_day <= 0:
            return None
        return max(0, min(int(balance / self.per_day), 9999))


NOTHING_SPENT = Spending(Decimal(0), Decimal(0))


def spending_by_account(user: AnyUser, *, today: date | None = None) -> dict[uuid.UUID, Spending]:
    """The spending of each account that was used this month or in the last week; one query over the daily sums."""
    today = today or timezone.now().date()
    month, week = today.replace(day=1), today - timedelta(days=BURN_DAYS - 1)
    days = DailyUsage.objects.for_user(user).filter(day__gte=min(month, week), day__lte=today)
    sums = (
        days.order_by()
        .values("account_id")
        .annotate(this_month=Sum("cost", filter=Q(day__gte=month)), this_week=Sum("cost", filter=Q(day__gte=week)))
    )
    return {
        row["account_id"]: Spending(row["this_month"] or Decimal(0), (row["this_week"] or Decimal(0)) / BURN_DAYS)
        for row in sums
    }


# -- Models in use ---------------------------------------------------------------------------------------------------

IN_USE = timedelta(days=90)
"""A model called within this time is in use."""

MOST_IN_USE = 300


def models_of(user: AnyUser) -> set[int]:
    """Keys of the models `user` starred, or called lately: at most MOST_IN_USE of each. Four queries, small tables."""
    first = (timezone.now() - IN_USE).date()
    days = DailyUsage.objects.for_user(user).filter(day__gte=first).exclude(door=Door.PROBE).order_by()
    used = days.values_list("account_id", "model_id").annotate(last=Max("day")).order_by("-last")[:MOST_IN_USE]
    providers = dict(ProviderAccount.objects.for_user(user).values_list("pk", "provider_id"))
    wanted = {(providers[account], model_id) for account, model_id, _ in used if account in providers}
    starred = set(FavouriteModel.objects.for_user(user).values_list("model_id", flat=True)[:MOST_IN_USE])
    if not wanted:
        return starred
    models = AggregatorModel.objects.for_user(user).filter(model_id__in={model_id for _, model_id in wanted})
    return starred | {pk for pk, *key in models.values_list("pk", "provider_id", "model_id") if tuple(key) in wanted}


# -- Latest calls -----------------------------------------------------------------------------------------------------

RECORD_DAYS = 7
RECORD_ATTEMPTS = 500


def records(user: AnyUser) -> dict[tuple[uuid.UUID, str], tuple[int, int]]:
    """(account, model id) → (attempts, failed ones) among the user's latest attempts: at most 500, at most a week old.

    Attempts that the user stopped say nothing about the seller and are left out. One query, whatever the history holds.
    """
    since = timezone.now() - timedelta(days=RECORD_DAYS)
    latest = (
        UsageLog.objects.for_user(user)
        .filter(started_at__gte=since, account_id__isnull=False)
        .order_by("-started_at", "-id")
        .values_list("account_id", "model_id", "status")[:RECORD_ATTEMPTS]
    )
    failures = {UsageLog.Status.ERROR, UsageLog.Status.TIMEOUT}
    found: dict[tuple[uuid.UUID, str], tuple[int, int]] = {}
    for account_id, model_id, status in latest:
        if account_id is not None and (status in failures or status == UsageLog.Status.SUCCESS):
            attempts, failed = found.get((account_id, model_id), (0, 0))
            found[account_id, model_id] = attempts + 1, failed + (status in failures)
    return found
