"""Bring the catalog in step with what a provider lists for an account. The only writer of the catalog.

One sync is three parts: claim the account's open SyncRun (the lock), fetch the list with no transaction open, then
compare in Python and write everything in one transaction. A process that dies leaves the state before or the state
after (I15). A run that stays "running" for longer than STALE_AFTER is taken over; its first owner, should it still
live, finds at its first write that the claim is no longer its own, and writes nothing.

Who says what, when several accounts share a provider: the *facts* of a model (name, price, limits) are the provider's
and the latest list wins; that an account *lists* a model is kept per account (AccountModel), and that it once did
(PastOffer). A model is missing from the provider when the list just read lacks it and no other live account of that
provider offers it. Live means switched on and neither rejected nor locked: nobody would ever correct the offers of an
account that is not. A missing model is marked and kept.

An account whose address is not the provider's (an `endpoint_override` to another origin) may not write a shared
provider's facts: whoever runs that server could then set the prices other users see. Such an account is only matched
to models already known. `provider.features["mirrors"]` lists further origins of the provider itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.db import IntegrityError, connection, transaction
from django.db.models import DateField, DateTimeField, F, JSONField, Model, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from catalog import after_sync, grouping, list_prices, reading
from catalog.inference import Seller
from catalog.models import (
    PRICE_COLUMNS,
    AccountModel,
    AggregatorModel,
    CatalogVersion,
    ChangeSet,
    ModelChange,
    PastOffer,
    SyncRun,
)
from providers import health, net, vault
from providers.clients.base import ModelInfo, ModelList, ProviderClient
from providers.clients.errors import CODES, ProviderBroken, ProviderError
from providers.models import ProviderAccount
from providers.money import MoneyField, to_pico

STALE_AFTER = timedelta(minutes=10)
"""A run that is "running" for longer belongs to a process that died."""

HALVING_MATTERS_FROM = 10
"""Offers an account must have had before a list of less than half as many is refused."""

BATCH = 1_000
"""Rows per statement; Django lowers it to what SQLite's 999 parameters allow."""

READ_AT_ONCE = 10_000
"""Models that are read per statement to compare them with a list."""

SHOWN_FROM = 1_000
"""Models from which on pages say, before the transaction, how many are being stored: fewer take less than a second."""

KIND_OF_COLUMN: dict[str, ModelChange.Kind] = {
    "display_name": ModelChange.Kind.RENAMED,
    **dict.fromkeys([*PRICE_COLUMNS, "price_kind", "pricing_rules"], ModelChange.Kind.PRICE),
    **dict.fromkeys(["context_window", "max_output_tokens"], ModelChange.Kind.CONTEXT),
    **dict.fromkeys(
        ["capabilities", "input_modalities", "output_modalities", "model_type"], ModelChange.Kind.CAPABILITY
    ),
    **dict.fromkeys(["retires_at", "successor", "is_available"], ModelChange.Kind.RETIREMENT),
}
"""Columns whose change is history. Others (description, the seller's raw figures …) are updated silently."""

FACTS = tuple(reading.facts(ModelInfo(model_id="x", display_name="x")))
"""The columns a provider's list decides, in the order they are read and compared."""

_JSON = {field.name for field in AggregatorModel._meta.fields if isinstance(field, JSONField)}
_JSON_AT = [at for at, name in enumerate(FACTS) if name in _JSON]

UNSAID: dict[str, Any] = {
    "model_type": AggregatorModel.ModelType.UNKNOWN.value,
    "capabilities": [],
    "context_window": None,
    "price_kind": AggregatorModel.PriceKind.UNKNOWN.value,
    "pricing_rules": [],
    **dict.fromkeys(PRICE_COLUMNS),
}
"""What a column says when its seller states nothing: what the history takes an inferred fact for."""

_OF_PRICES = ("price_kind", "pricing_rules", *PRICE_COLUMNS)

_T = TypeVar("_T")


class _Superseded(Exception):
    """Another process took this run over; whatever we know is no longer wanted."""


@dataclass(frozen=True, slots=True)
class Change:
    """A line of history, before its model has a primary key."""

    kind: ModelChange.Kind
    field: str = ""
    before: Any = None
    after: Any = None


@dataclass(slots=True)
class Plan:
    """Everything one sync would write, and the counts it would report. Made by reading only."""

    new: list[ModelInfo] = field(default_factory=list)
    updates: list[tuple[int, ModelInfo, list[Change]]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    offers_added: list[int] = field(default_factory=list)
    offers_dropped: list[int] = field(default_factory=list)
    refusal: tuple[str, str] | None = None
    total: int = 0
    skipped: int = 0
    last_pk: int = 0
    back: int = 0
    repriced: int = 0
    changed: int = 0
    unchanged: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.updates or self.gone or self.offers_added or self.offers_dropped)

    def counts(self) -> dict[str, int]:
        """The columns of SyncRun that count."""
        return {
            "added": len(self.new),
            "gone": len(self.gone),
            "back": self.back,
            "repriced": self.repriced,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "total": self.total,
        }


# -- The doors -------------------------------------------------------------------------------------------------------


def queue(account: ProviderAccount, trigger: str, *, wait: timedelta = timedelta(0)) -> SyncRun:
    """The account's open run, or a new one whose task starts `wait` after this transaction commits.

    A run that beat put off is brought forward by whoever does not want to wait. If the broker loses the task,
    `tasks.sweep_queued` finds the row.
    """
    from catalog.tasks import sync_account_task

    now = timezone.now()
    run = SyncRun.objects.open().filter(account=account).first()
    if run is not None:
        put_off = SyncRun.objects.filter(pk=run.pk, state=SyncRun.State.QUEUED, queued_at__gt=now)
        if wait or not put_off.update(queued_at=now, trigger=trigger):
            return run
        run.queued_at, run.trigger = now, trigger
    else:
        try:
            with transaction.atomic():
                run = SyncRun.objects.create(account=account, trigger=trigger, queued_at=now + wait)
        except IntegrityError:
            return SyncRun.objects.filter(account=account).latest("queued_at")
    start = partial(sync_account_task.delay, str(run.pk))
    if wait:
        start = partial(sync_account_task.apply_async, (str(run.pk),), countdown=wait.total_seconds())
    transaction.on_commit(start, robust=True)
    return run


def sync_account(account: ProviderAccount, *, trigger: str = "button", force: bool = False) -> SyncRun:
    """Sync one account now and return its finished run.

    If another process is at it, returns that running run and does nothing. `force` asks for the whole list even if
    the ETag says it is the same, and accepts one that lost more than half of its models (never an empty one).
    Provider errors end in the run, they are not raised; anything else is recorded as "internal" and raised.
    Raises ProviderAccount.DoesNotExist when the account was removed.
    """
    account = ProviderAccount.objects.select_related("provider").get(pk=account.pk)
    run, is_ours = _claim(account, trigger)
    if not is_ours:
        return run
    run.account = account
    try:
        _run(run, force=force)
    except _Superseded:
        try:
            run.refresh_from_db()
        except SyncRun.DoesNotExist:  # the account was removed meanwhile, and its runs with it
            run.state, run.error_code, run.error_message = SyncRun.State.FAILED, "removed", "The account was removed."
    except BaseException:
        with suppress(_Superseded):
            _finish(run, SyncRun.State.FAILED, error_code="internal", error_message="The sync failed; see the log.")
        raise
    return run


def preview(account: ProviderAccount) -> Plan:
    """What a sync would do now: asks the provider, writes nothing. Raises ProviderError and vault.Locked."""
    listing, _ = asyncio.run(_fetch(account.client(), ""))
    return _plan(account, listing, force=False)


def regroup(provider_id: int, model_ids: Iterable[str] | None = None) -> int:
    """Give models of a provider (these, or all) the groups that their ids and staff's corrections say. Returns how many
    changed. Called at once when staff correct one, and by a release that spells keys differently.
    """
    with transaction.atomic():
        _lock_catalog(provider_id)
        keys = grouping.Keys(provider_id)
        models = AggregatorModel.objects.filter(provider_id=provider_id).order_by()
        if model_ids is not None:
            models = models.filter(model_id__in=list(model_ids))
        rows = models.values_list("pk", "model_id", "group_key")
        stale = [
            AggregatorModel(pk=pk, group_key=keys.of(model_id))
            for pk, model_id, before in rows.iterator(chunk_size=2_000)
            if keys.of(model_id) != before
        ]
        AggregatorModel.objects.bulk_update(stale, ["group_key"], batch_size=500)
        if stale:
            CatalogVersion.objects.filter(provider_id=provider_id).update(
                version=F("version") + 1, changed_at=timezone.now()
            )
    return len(stale)


# -- Claiming --------------------------------------------------------------------------------------------------------


def _claim(account: ProviderAccount, trigger: str) -> tuple[SyncRun, bool]:
    """(the account's open run, whether it is now ours to carry out). `started_at` is the mark of the claim."""
    for _ in range(20):
        now = timezone.now()
        run = SyncRun.objects.open().filter(account=account).select_related("account__provider").first()
        if run is None:
            try:
                with transaction.atomic():
                    run = SyncRun.objects.create(
                        account=account, trigger=trigger, state=SyncRun.State.RUNNING, queued_at=now, started_at=now
                    )
            except IntegrityError:
                continue  # someone was faster: look again
            return run, True
        if run.state == SyncRun.State.RUNNING and run.started_at and run.started_at > now - STALE_AFTER:
            return run, False
        seen = SyncRun.objects.filter(pk=run.pk, state=run.state, started_at=run.started_at)
        if seen.update(state=SyncRun.State.RUNNING, started_at=now):
            run.state, run.started_at = SyncRun.State.RUNNING, now
            return run, True
    raise RuntimeError("this account's sync could not be claimed")


def _finish(run: SyncRun, state: SyncRun.State, **columns: Any) -> None:
    """End the run, if it is still ours. Raises _Superseded if it is not."""
    ours = SyncRun.objects.filter(pk=run.pk, state=SyncRun.State.RUNNING, started_at=run.started_at)
    columns |= {"state": state, "finished_at": timezone.now()}
    if not ours.update(**columns):
        raise _Superseded
    for name, value in columns.items():
        setattr(run, name, value)


# -- One run ---------------------------------------------------------------------------------------------------------


def _run(run: SyncRun, *, force: bool) -> None:
    account = run.account
    if not (account.is_active and account.provider.is_active):
        _finish(
            run,
            SyncRun.State.FAILED,
            error_code="switched_off",
            error_message="This account is switched off, so it was not asked.",
        )
        return
    source = _source(account)
    etag = "" if force else _known_etag(account, source)
    began = timezone.now()
    try:
        listing, is_proof = asyncio.run(_fetch(account.client(), etag, asks=health.is_doubtful(account)))
        if listing.not_modified and not etag:
            raise ProviderBroken("unexpected_content", detail="304 Not Modified, though nothing was known before")
    except vault.Locked:
        with transaction.atomic():
            _finish(run, SyncRun.State.FAILED, error_code="locked", error_message=CODES["locked"])
            account.mark(ProviderAccount.Status.LOCKED, CODES["locked"])
        return
    except ProviderError as exc:
        with transaction.atomic():
            _finish(
                run,
                SyncRun.State.FAILED,
                error_code=exc.code,
                error_message=reading.clean_name(exc.public_message, 500),
            )
            health.failed(account, exc)  # the same table as for any other call
        return

    if is_proof:
        health.listed(account, began)
    if listing.not_modified:
        total = AccountModel.objects.filter(account=account).count()
        _finish(run, SyncRun.State.UNCHANGED, total=total, unchanged=total, etag=etag, source=source)
        return

    ours = SyncRun.objects.filter(pk=run.pk, state=SyncRun.State.RUNNING, started_at=run.started_at)
    if len(listing.models) > SHOWN_FROM and not ours.update(total=len(listing.models)):
        raise _Superseded
    with transaction.atomic():
        # The first statement writes: SQLite then waits for its turn here instead of failing half-way, and nobody can
        # take the run over any more.
        if not ours.update(total=len(listing.models)):
            raise _Superseded
        _lock_catalog(account.provider_id)
        plan = _plan(account, listing, force=force)
        if plan.refusal:
            code, message = plan.refusal
            _finish(
                run,
                SyncRun.State.REFUSED,
                error_code=code,
                error_message=message,
                total=plan.total,
                skipped=plan.skipped,
            )
            return
        _write(plan, run)
        state = SyncRun.State.UNCHANGED if plan.is_empty else SyncRun.State.DONE
        _finish(run, state, etag=listing.etag[:300], source=source, **plan.counts())


def _lock_catalog(provider_id: int) -> None:
    """Hold the provider's CatalogVersion row until the transaction ends: the lock between accounts of one provider."""
    if CatalogVersion.objects.select_for_update().filter(provider_id=provider_id).first() is None:
        # The first sync of a provider: inserting the row, or finding that someone just did, locks it as well.
        CatalogVersion.objects.bulk_create(
            [CatalogVersion(provider_id=provider_id)],
            update_conflicts=True,
            unique_fields=["provider"],
            update_fields=["changed_at"],
        )


def _source(account: ProviderAccount) -> str:
    """Where a list comes from and by what it is read: another one, and the ETag says nothing any more."""
    priced_by = f" {list_prices.version()}" if _seller(account).has_list_prices else ""
    return f"{account.base_url} {account.provider.client} {reading.RULES}{priced_by}"[:600]


def _seller(account: ProviderAccount) -> Seller:
    """Whose list it is, to fill its gaps by.

    What runs on people's own machines (a model server, one that needs no key) costs nothing per token, so public
    prices say nothing about it.
    """
    provider = account.provider
    is_local = provider.is_keyless or bool(provider.features.get("asks_address")) or _is_local(provider.base_url)
    return Seller(provider.base_url, has_list_prices=not is_local)


def _is_local(url: str) -> bool:
    """Whether the address names a machine rather than a public service."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return (
        "." not in host
        or ":" in host
        or host.replace(".", "").isdigit()
        or host.endswith((".local", ".lan", ".internal", ".home.arpa", ".localhost", ".test"))
    )


async def _fetch(client: ProviderClient, etag: str, *, asks: bool = False) -> tuple[ModelList, bool]:
    """The list, and whether that proves the key (found out only where `asks`). Raises ProviderError.

    Over connections of this loop alone.
    """
    try:
        listing = await client.list_models(etag=etag)
        return listing, asks and await client.list_is_proof()
    finally:
        await net.close()


def _known_etag(account: ProviderAccount, source: str) -> str:
    """The ETag of the list the account's offers stand for, or '' when the list must be read again.

    It must be: when it came from another address or was read by other rules, and when a sync of another account has
    since marked something this account offers as missing.
    """
    last = SyncRun.objects.applied().filter(account=account).order_by("-queued_at").first()
    if last is None or not last.etag or last.source != source:
        return ""
    if AccountModel.objects.filter(account=account, model__missing_since__isnull=False).exists():
        return ""
    return last.etag


# -- Comparing -------------------------------------------------------------------------------------------------------


def _plan(account: ProviderAccount, listing: ModelList, *, force: bool) -> Plan:
    """Compare the list with the database. Reads only.

    Of repeated ids the first wins; ids that cannot be stored are skipped; the rest lands (F13).
    """
    listed: dict[str, ModelInfo] = {}
    plan = Plan(skipped=listing.skipped)
    for info in listing.models:
        if reading.is_storable_id(info.model_id):
            listed.setdefault(info.model_id, info)
        else:
            plan.skipped += 1
    plan.total = len(listed)

    offered = set(AccountModel.objects.filter(account=account).values_list("model_id", flat=True))
    plan.refusal = _refusal(len(listed), len(offered), force=force)
    if plan.refusal:
        return plan

    may_write, seller = _speaks_for_provider(account), _seller(account)
    now_offered: set[int] = set()
    unlisted: list[int] = []
    for pk, model_id, missing_since, before in _known(account.provider_id):
        plan.last_pk = max(plan.last_pk, pk)
        found = listed.pop(model_id) if model_id in listed else None
        if found is None:
            if missing_since is None:
                unlisted.append(pk)
            continue
        now_offered.add(pk)
        after = list(reading.facts(found, seller).values()) if may_write else before
        if before == after and not (missing_since and may_write):
            plan.unchanged += 1
            continue
        changes = _changes(before, after, is_back=missing_since is not None)
        plan.updates.append((pk, found, changes))
        kinds = {change.kind for change in changes}
        plan.back += ModelChange.Kind.BACK in kinds
        plan.repriced += ModelChange.Kind.PRICE in kinds
        plan.changed += not kinds & {ModelChange.Kind.BACK, ModelChange.Kind.PRICE}

    if may_write:
        plan.new = list(listed.values())
        plan.gone = _without_other_offers(account, unlisted)
    else:
        plan.skipped += len(listed)
    plan.offers_added = sorted(now_offered - offered)
    plan.offers_dropped = sorted(offered - now_offered)
    return plan


def _known(provider_id: int) -> Iterator[tuple[int, str, datetime | None, list[Any]]]:
    """(pk, model_id, missing_since, the facts) of each model stored. JSON comes as text: few texts differ.

    Read in parts by key: without a cursor at the server, which PgBouncer may not allow, psycopg holds a whole answer.
    """
    columns = [Cast(name, TextField()) if name in _JSON else F(name) for name in FACTS]
    models = AggregatorModel.objects.filter(provider_id=provider_id).order_by("pk")
    rows = models.values_list("pk", "model_id", "missing_since", *columns)
    last = 0
    while True:
        read = 0
        for pk, model_id, missing_since, *facts in rows.filter(pk__gt=last)[:READ_AT_ONCE].iterator(chunk_size=2_000):
            for at in _JSON_AT:
                facts[at] = _loaded(facts[at])
            yield pk, model_id, missing_since, facts
            last, read = pk, read + 1
        if read < READ_AT_ONCE:
            return


@lru_cache(maxsize=2_000)
def _loaded(text: str) -> Any:
    """Whoever gets it must not write into it."""
    return json.loads(text)


def _refusal(listed: int, offered: int, *, force: bool) -> tuple[str, str] | None:
    """(code, sentence) when a list of `listed` models is implausible for an account that offered `offered` (I16)."""
    if listed == 0:
        return "empty_list", "The provider listed no model, so nothing was changed."
    if offered >= HALVING_MATTERS_FROM and listed * 2 < offered and not force:
        return (
            "halved_list",
            f"The provider listed {listed} models where there were {offered}, which looks like a fault on its side, "
            "so nothing was changed.",
        )
    return None


def _speaks_for_provider(account: ProviderAccount) -> bool:
    """May this account's list write the provider's facts? See the module's docstring."""
    provider = account.provider
    if provider.owner_id is not None and provider.owner_id == account.owner_id:
        return True
    origins = {net.origin_of(provider.base_url), *provider.features.get("mirrors", [])}
    return net.origin_of(account.base_url) in origins


def _changes(before: Sequence[Any], after: Sequence[Any], *, is_back: bool) -> list[Change]:
    changes = [Change(ModelChange.Kind.BACK)] if is_back else []
    for column, old, new in zip(FACTS, _said(before), _said(after), strict=True):
        if old == new or column not in KIND_OF_COLUMN or (is_back and column == "is_available"):
            continue
        changes.append(Change(KIND_OF_COLUMN[column], column, _as_json(old), _as_json(new)))
    return changes


def _said(facts: Sequence[Any]) -> list[Any]:
    """`facts`, in the order of FACTS, with what the seller did not say itself as unknown: no history is made of it."""
    said = dict(zip(FACTS, facts, strict=True))
    for fact in said["origins"]:
        for column in _OF_PRICES if fact == "prices" else (fact,):
            if column in UNSAID:
                said[column] = UNSAID[column]
    return list(said.values())


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat() if isinstance(value, date) else value


def _without_other_offers(account: ProviderAccount, pks: list[int]) -> list[int]:
    """Those of `pks` that no other live account of the provider offers."""
    others = AccountModel.objects.filter(
        account__in=ProviderAccount.objects.filter(provider_id=account.provider_id).usable().exclude(pk=account.pk)
    )
    kept: set[int] = set()
    for some in _chunks(pks, 500):
        kept.update(others.filter(model_id__in=some).values_list("model_id", flat=True).distinct())
    return [pk for pk in pks if pk not in kept]


# -- Writing ---------------------------------------------------------------------------------------------------------


def _write(plan: Plan, run: SyncRun) -> None:
    """Carry the plan out, in the caller's transaction. Writes nothing at all when the plan is empty."""
    if plan.is_empty:
        return
    now = timezone.now()
    account = run.account
    change_set = _change_set(plan, account, now)
    keys = grouping.Keys(account.provider_id)

    seller = _seller(account)
    _save([info for _, info, _ in plan.updates], account.provider_id, seller, now, keys)
    if plan.new:
        _save(plan.new, account.provider_id, seller, now, keys)
        _note_additions(plan, run, change_set, now)
    history = [
        ModelChange(
            model_id=pk,
            run_id=run.pk,
            change_set=change_set,
            kind=change.kind,
            field=change.field,
            before=change.before,
            after=change.after,
            at=now,
        )
        for pk, _, changes in plan.updates
        for change in changes
    ]
    history += [
        ModelChange(model_id=pk, run_id=run.pk, change_set=change_set, kind=ModelChange.Kind.GONE, at=now)
        for pk in plan.gone
    ]
    ModelChange.objects.bulk_create(history, batch_size=BATCH)

    for gone in _chunks(plan.gone, 500):
        AggregatorModel.objects.filter(pk__in=gone).update(is_available=False, missing_since=now, updated_at=now)
    for dropped in _chunks(plan.offers_dropped, 500):
        past = [PastOffer(account_id=account.pk, model_id=pk) for pk in dropped]
        PastOffer.objects.bulk_create(past, ignore_conflicts=True)
        AccountModel.objects.filter(account=account, model_id__in=dropped).delete()
    AccountModel.objects.bulk_create(
        [AccountModel(account_id=account.pk, model_id=pk) for pk in plan.offers_added], batch_size=BATCH
    )
    CatalogVersion.objects.filter(provider_id=account.provider_id).update(version=F("version") + 1, changed_at=now)
    after_sync.tell(after_sync.Applied(account, run.pk, now, history, sorted({*plan.offers_dropped} - {*plan.gone})))


def _change_set(plan: Plan, account: ProviderAccount, now: datetime) -> ChangeSet | None:
    """The heading of what will be written; None if accounts change what they list, but no model changes."""
    counts = Counter({ModelChange.Kind.ADDED: len(plan.new), ModelChange.Kind.GONE: len(plan.gone)})
    for _, _, changes in plan.updates:
        counts.update({change.kind for change in changes})
    found = {kind.value: count for kind, count in counts.items() if count}
    return ChangeSet.objects.create(provider_id=account.provider_id, at=now, counts=found) if found else None


def _save(infos: Sequence[ModelInfo], provider_id: int, seller: Seller, now: datetime, keys: grouping.Keys) -> None:
    """Insert, or update by (provider, model_id). Staff's own columns stay.

    Without model instances and in SQL of our own: bulk_create needs three times as long for a row, and a first sync
    may bring 100,000.
    """
    rows = ((info.model_id, *reading.facts(info, seller).values(), keys.of(info.model_id)) for info in infos)
    columns = ("model_id", *FACTS, "group_key")
    always = {
        "provider_id": provider_id,
        "missing_since": None,
        "updated_at": connection.ops.adapt_datetimefield_value(now),
        "created_at": connection.ops.adapt_datetimefield_value(now),
        "is_featured": False,
    }
    names = [*columns, *always]
    changing = [name for name in names if name not in ("model_id", "provider_id", "created_at", "is_featured")]
    insert = f"INSERT INTO {_quoted(AggregatorModel._meta.db_table)} ({', '.join(map(_quoted, names))}) "
    update = " ON CONFLICT (provider_id, model_id) DO UPDATE SET " + ", ".join(
        f"{name} = EXCLUDED.{name}" for name in map(_quoted, changing)
    )
    save = _save_as_json if connection.vendor == "postgresql" else _save_as_values
    save(rows, columns, list(always.values()), insert, update)


def _save_as_json(
    rows: Iterable[tuple[Any, ...]], columns: Sequence[str], always: list[Any], insert: str, update: str
) -> None:
    """A statement has one parameter for all rows: 35,000 of them cost the client more than all the rest of a sync."""
    fields = [AggregatorModel._meta.get_field(name) for name in columns]
    types = ", ".join(f"c{at} {field.db_type(connection)}" for at, field in enumerate(fields))
    taken = ", ".join(f"c{at}" for at in range(len(fields)))
    statement = (
        f"{insert} SELECT {taken}{', %s' * len(always)} "  # noqa: S608  no input
        f"FROM json_to_recordset(%s::json) AS listed ({types}) {update}"
    )
    names = [f"c{at}" for at in range(len(fields))]
    money = [at for at, field in enumerate(fields) if isinstance(field, MoneyField)]
    moments = [at for at, field in enumerate(fields) if isinstance(field, DateField)]  # a DateTimeField is one
    with connection.cursor() as cursor:
        while some := list(islice(rows, BATCH)):
            told = []
            for row in some:
                values = list(row)
                for at in money:
                    values[at] = None if values[at] is None else _pico(values[at])
                for at in moments:
                    values[at] = values[at] and values[at].isoformat()
                told.append(dict(zip(names, values, strict=True)))
            cursor.execute(statement, [*always, json.dumps(told, ensure_ascii=False)])


def _save_as_values(
    rows: Iterable[tuple[Any, ...]], columns: Sequence[str], always: list[Any], insert: str, update: str
) -> None:
    """A parameter for each value, as many rows at a time as the database takes."""
    writers = [_PREPARED.get(type(AggregatorModel._meta.get_field(name))) for name in columns]
    width = len(columns) + len(always)
    values = f"({', '.join(['%s'] * width)})"
    most = min(BATCH, (connection.features.max_query_params or BATCH * width) // width)
    with connection.cursor() as cursor:
        while some := list(islice(rows, most)):
            parameters: list[Any] = []
            for row in some:
                parameters += [
                    value if value is None or write is None else write(value)
                    for write, value in zip(writers, row, strict=True)
                ]
                parameters += always
            cursor.execute(f"{insert} VALUES {', '.join([values] * len(some))}{update}", parameters)


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)


@lru_cache(maxsize=2_000)
def _pico(value: Decimal) -> int:
    return to_pico(value)


def _dumped(value: Any) -> str:
    return json.dumps(value) if value else "[]" if isinstance(value, list) else "{}"


_PREPARED: dict[type[Any], Callable[[Any], Any]] = {
    MoneyField: _pico,
    JSONField: _dumped,
    DateTimeField: lambda value: connection.ops.adapt_datetimefield_value(value),
    DateField: lambda value: connection.ops.adapt_datefield_value(value),
}
"""Field → what the database is given for a fact; others are given as they are."""


def _note_additions(plan: Plan, run: SyncRun, change_set: ChangeSet | None, now: datetime) -> None:
    """The history and the offers of the models just added: those with higher keys than all of this provider before.

    Nobody else adds any meanwhile (_lock_catalog). The rows are made by the database, from its own.
    """
    table = connection.ops.quote_name(AggregatorModel._meta.db_table)
    added = ModelChange.Kind.ADDED
    rows: tuple[Model, ...] = (
        ModelChange(run_id=run.pk, change_set=change_set, kind=added, before=None, after=None, at=now),
        AccountModel(account_id=run.account_id),
    )
    statements = []
    parameters: list[list[Any]] = []
    for row in rows:
        fields = [field for field in row._meta.concrete_fields if not field.primary_key]
        names = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
        values = ", ".join("id" if field.column == "model_id" else "%s" for field in fields)
        statements.append(
            f"INSERT INTO {connection.ops.quote_name(row._meta.db_table)} ({names}) "  # noqa: S608  no input
            f"SELECT {values} FROM {table} WHERE provider_id = %s AND id > %s ORDER BY id"
        )
        given = [field for field in fields if field.column != "model_id"]
        parameters.append([field.get_db_prep_save(getattr(row, field.attname), connection) for field in given])
        parameters[-1] += (run.account.provider_id, plan.last_pk)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # both in one go
            cursor.execute(f"WITH noted AS ({statements[0]}) {statements[1]}", [*parameters[0], *parameters[1]])
        else:
            for statement, given_to_it in zip(statements, parameters, strict=True):
                cursor.execute(statement, given_to_it)


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
