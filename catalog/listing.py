"""What one user may call, kept in this process so that it is searched without asking the database.

    opened = listing.of(user)            # one query while nothing changed
    opened.listing.rows                  # a row per model, with the offers of the user's accounts in it
    opened.accounts                      # their usable accounts in the order requests try them, with their health

A list is kept until that one query says that it is old: the user's usable accounts (labels, order), the prices entered
by hand that count for them, and the versions of their providers' catalogs, which every writer raises. Facts of a model
(`Entry`) are kept once per provider and shared by its users; after a sync only what changed is made anew. A user's own
list is who offers what, and at which price if one was entered.
"""

from __future__ import annotations

import fnmatch
import json
import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import Count, Max, QuerySet, Subquery, Value
from django.utils import timezone

from catalog import grouping, own_prices
from catalog.models import AccountModel, AggregatorModel, OwnPrice
from catalog.per_user import PerUser
from providers.clients.errors import CODES
from providers.models import ProviderAccount
from providers.money import from_pico

if TYPE_CHECKING:
    from providers.models import AnyUser

KEPT_USERS = 64
"""Users whose lists stay in memory; the least recently seen leave first."""

KEPT_ANSWERS = 160
KEPT_NUMBERS = 250_000
"""Answers kept per list, and numbers in all of them: a search is typed letter by letter, and each letter narrows the
answer before."""

ABILITIES = ("vision", "audio", "tools", "reasoning", "JSON")
"""The few words a row has room for, in the order people ask for them."""

FREE = 1 << len(ABILITIES)
RETIRES_SOON = timedelta(days=183)
PUNCTUATION = re.compile(r"[\W_]+")
_DIGITS = re.compile(r"\d+", re.ASCII)
_COLUMNS = (
    "pk",
    "model_id",
    "display_name",
    "model_type",
    "capabilities",
    "input_modalities",
    "context_window",
    "max_output_tokens",
    "price_kind",
    "price_input",
    "price_output",
    "price_cache_read",
    "released_at",
    "created_at",
    "retires_at",
    "is_featured",
    "group_key",
)
_TOOL_WORDS = frozenset({"tools", "tool", "function_calling"})
_REASONING_WORDS = frozenset({"reasoning", "thinking"})
_JSON_WORDS = frozenset({"structured_outputs", "json", "json_mode", "response_format"})


class Entry(NamedTuple):
    """What pages show of one model at one provider, and the text it is found by. Prices are USD per 1M tokens, None
    is unknown."""

    pk: int
    model_id: str
    name: str
    model_type: str
    provider_id: int
    provider_name: str
    monogram: str
    context_window: int | None
    max_output_tokens: int | None
    price_kind: str
    price_input: Decimal | None
    price_output: Decimal | None
    price_cache_read: Decimal | None
    abilities: tuple[str, ...]
    since: date
    retires_at: date | None
    is_featured: bool
    mask: int
    group: str
    text: str
    starts: str
    squeezed_name: str
    order: str
    is_own_price: bool = False
    """Entered by hand, by this user or for everybody."""

    @property
    def retires_soon(self) -> bool:
        """Within half a year: providers also write dates decades away (2098-12-31)."""
        return self.retires_at is not None and self.retires_at <= timezone.now().date() + RETIRES_SOON

    @property
    def price(self) -> Decimal | None:
        """The one price that caps and "cheapest" go by: per 1M tokens out, else in; 0 for free, None for not known."""
        if self.price_kind == AggregatorModel.PriceKind.FREE:
            return Decimal(0)
        if self.price_kind != AggregatorModel.PriceKind.KNOWN:
            return None
        return self.price_output if self.price_output is not None else self.price_input

    @property
    def plain_input(self) -> str:
        """The input price as digits, or "" for unknown: for scripts, which must not meet an exponent."""
        return "" if self.price_input is None else format(self.price_input, "f")

    @property
    def plain_output(self) -> str:
        return "" if self.price_output is None else format(self.price_output, "f")


class Account(NamedTuple):
    """One of the user's usable accounts, as rows show it."""

    pk: UUID
    label: str
    provider_id: int
    provider_name: str


class Health(NamedTuple):
    """How an account is: a word, a badge's variant, and why; no word when all is well."""

    word: str = ""
    variant: str = "neutral"
    why: str = ""
    is_resting: bool = False


class Offer(NamedTuple):
    """An account that takes a request to a model, and the model as its provider sells it."""

    account: Account
    model: Entry


class Row(NamedTuple):
    """One model, whoever sells it: the first offer is the one a choice of the row means."""

    sellers: tuple[Offer, ...]

    @property
    def model(self) -> Entry:
        return self.sellers[0].model

    @property
    def account(self) -> Account:
        return self.sellers[0].account

    @property
    def accounts(self) -> tuple[Account, ...]:
        return tuple(offer.account for offer in self.sellers)


class Opened(NamedTuple):
    """A user's list, with what is never kept: how their accounts are now."""

    listing: Listing
    accounts: list[Account]
    health: dict[UUID, Health]


Rules = tuple[tuple[str, Decimal | None], ...]
"""A user's hide rules: (glob on the model id, "" for any; hide only above this price, None for at any price)."""


class Listing:
    """All that one user may call, ready to be searched: rows by number, and beside them what they are judged by.

    The lists stand side by side because a comprehension over plain strings and numbers is several times as fast as
    one that visits objects.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        leads = [row.sellers[0].model for row in rows]
        self.masks = [lead.mask for lead in leads]
        self.types = [lead.model_type for lead in leads]
        self.texts = [lead.text for lead in leads]
        self.starts = [lead.starts for lead in leads]
        self.contexts = [lead.context_window or 0 for lead in leads]
        self.prices = [lead.price for lead in leads]
        self.numbers = {row.sellers[0].model.pk: number for number, row in enumerate(rows)}
        for number, row in enumerate(rows):
            if len(row.sellers) > 1 and row.sellers[-1].model.pk != row.sellers[0].model.pk:
                self._merge(number, [offer.model for offer in row.sellers])
        self._orders: dict[str, list[int]] = {}
        self._answers: OrderedDict[Any, Any] = OrderedDict()
        self._kept_numbers = 0
        self._hidden: tuple[Rules, frozenset[int]] = ((), frozenset())
        self._answers_lock = threading.Lock()

    def _merge(self, number: int, models: list[Entry]) -> None:
        """A row of several sellers is found by the words of each of them, and judged by the best."""
        different = list({model.pk: model for model in models}.values())
        self.numbers.update({model.pk: number for model in different})
        self.texts[number] = "".join(dict.fromkeys(model.text for model in different))
        self.starts[number] = "".join(dict.fromkeys(model.starts for model in different))
        self.contexts[number] = max(model.context_window or 0 for model in different)
        known = [model.price for model in different if model.price is not None]
        self.prices[number] = min(known) if known else None
        for model in different:
            self.masks[number] |= model.mask

    def order(self, name: str) -> list[int]:
        """All numbers in the order ORDERS calls `name`; "-name" is the other way round. What is not known is last."""
        kept = self._orders.get(name)
        if kept is None:
            if name == "closest":  # short names first: the nearest to what was typed
                kept = sorted(self.order("name"), key=[self._closeness(row) for row in self.rows].__getitem__)
            elif name == "name":
                keys = [(not row.model.is_featured, row.model.order, row.model.pk) for row in self.rows]
                kept = sorted(range(len(self.rows)), key=keys.__getitem__)
            else:
                kept = self._ordered_by(name.removeprefix("-"), is_reversed=name.startswith("-"))
            self._orders[name] = kept
        return kept

    @cached_property
    def named(self) -> dict[str, list[int]]:
        """Whole name or id, squeezed → the rows that have it."""
        found: dict[str, list[int]] = {}
        for number, text in enumerate(self.texts):
            for name in {*text.split("\n")} - {""}:
                found.setdefault(name, []).append(number)
        return found

    @staticmethod
    def _closeness(row: Row) -> tuple[bool, int]:
        return not row.model.is_featured, len(row.model.squeezed_name)

    def _ordered_by(self, name: str, *, is_reversed: bool) -> list[int]:
        values = [ORDERS[name](row.model) for row in self.rows]
        known = [number for number in self.order("name") if values[number] is not None]
        unknown = [number for number in self.order("name") if values[number] is None]
        return sorted(known, key=values.__getitem__, reverse=is_reversed) + unknown

    def hidden(self, rules: Rules) -> frozenset[int]:
        """The rows that the user's rules hide: those of which every offer is hidden."""
        if not rules:
            return frozenset()
        kept = self._hidden
        if kept[0] != rules:
            judge = judge_of(rules)
            found = (n for n, row in enumerate(self.rows) if all(judge(offer.model) for offer in row.sellers))
            kept = self._hidden = rules, frozenset(found)
        return kept[1]

    def recall(self, key: Any) -> Any:
        """The answer kept under `key`, if it is one of the last; else None."""
        with self._answers_lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        return None

    def remember(self, key: Any, answer: Any) -> Any:
        """Keep an answer (something with a length) and give it back; the least recently used leave."""
        with self._answers_lock:
            if key not in self._answers:
                self._answers[key] = answer
                self._kept_numbers += len(answer)
            while len(self._answers) > KEPT_ANSWERS or (len(self._answers) > 1 and self._kept_numbers > KEPT_NUMBERS):
                _, left = self._answers.popitem(last=False)
                self._kept_numbers -= len(left)
        return answer

    def forget_answers(self) -> None:
        with self._answers_lock:
            self._answers.clear()
            self._kept_numbers = 0


ORDERS: dict[str, Any] = {
    "name": lambda model: model.order,
    "provider": lambda model: model.provider_name.casefold(),
    "context": lambda model: model.context_window,
    "output-limit": lambda model: model.max_output_tokens,
    "in": lambda model: _sortable(model, model.price_input),
    "cached": lambda model: _sortable(model, model.price_cache_read),
    "out": lambda model: _sortable(model, model.price_output),
    "newest": lambda model: model.since,
}
"""What rows can be sorted by; the names are those of the address."""


def _sortable(model: Entry, price: Decimal | None) -> Decimal | None:
    if price is None and model.price_kind == AggregatorModel.PriceKind.FREE:
        return Decimal(0)
    return price


def judge_of(rules: Rules) -> Any:
    """A function that says whether a model is hidden by one of the rules. A price that is not known is above no cap."""
    always = [glob for glob, cap in rules if cap is None]
    pattern = re.compile("|".join(fnmatch.translate(glob.casefold()) for glob in always)) if always else None
    capped = [(re.compile(fnmatch.translate(glob.casefold() or "*")), cap) for glob, cap in rules if cap is not None]

    def is_hidden(model: Entry) -> bool:
        model_id = model.model_id.casefold()
        if pattern is not None and pattern.match(model_id):
            return True
        price = model.price
        return price is not None and any(price > cap and glob.match(model_id) for glob, cap in capped)

    return is_hidden


# -- Keeping ---------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
Version = tuple[int, datetime] | None
"""(version, changed_at) of a provider's catalog: the moment tells a restored database from the one that was. None means
that no sync ever wrote it, so nothing says when it changes and nothing is kept."""

Standing = tuple[Account, str, Version]
"""An account, its provider's monogram, and the version of its catalog: all that a list depends on, but for prices
entered by hand."""

Own = tuple[int, datetime | None]
"""How many prices entered by hand count for a user, and when the last one was entered."""


class _Kept(NamedTuple):
    """A provider's models as they were read: (version, provider's name and monogram), pk → row, pk → facts."""

    key: tuple
    raw: dict[int, tuple]
    entries: dict[int, Entry]


_providers: dict[int, _Kept] = {}
_lists: OrderedDict[int, tuple[tuple, Listing]] = OrderedDict()
"""User → (what the list was made from, the list)."""


def of(user: AnyUser) -> Opened:
    """The user's list, from memory if it is still what the database would say."""
    assert user.pk is not None  # nobody anonymous comes here
    standing, own, health = _standing(user)
    accounts = [account for account, _, _ in standing]
    key = own, tuple(standing)
    with _lock:
        kept = _lists.get(user.pk)
        if kept is not None and kept[0] == key:
            _lists.move_to_end(user.pk)
            return Opened(kept[1], accounts, health)
    listing = Listing(_load(user, standing, own))
    if all(version for _, _, version in standing):
        _keep(user.pk, key, listing)
    return Opened(listing, accounts, health)


def forget() -> None:
    """Drop every list, as a restart would."""
    with _lock:
        _providers.clear()
        _lists.clear()


def _keep(user_pk: int, key: tuple, listing: Listing) -> None:
    with _lock:
        _lists[user_pk] = key, listing
        _lists.move_to_end(user_pk)
        while len(_lists) > KEPT_USERS:
            _lists.popitem(last=False)
        in_use = {account.provider_id for (_, made_from), _ in _lists.values() for account, _, _ in made_from}
        for provider_id in _providers.keys() - in_use:
            del _providers[provider_id]


def _standing_of(user: AnyUser) -> QuerySet[Any, Any]:
    entered = OwnPrice.objects.for_user(user).order_by().values(_=Value(1))
    accounts = ProviderAccount.objects.for_user(user).usable().order_by("priority", "created_at", "pk")
    return accounts.annotate(
        own_count=Subquery(entered.annotate(count=Count("pk")).values("count")),
        own_at=Subquery(entered.annotate(at=Max("updated_at")).values("at")),
    ).values_list(
        "pk",
        "label",
        "provider_id",
        "provider__display_name",
        "provider__monogram",
        "provider__catalog__version",
        "provider__catalog__changed_at",
        "status",
        "status_reason",
        "cooldown_until",
        "trouble",
        "own_count",
        "own_at",
    )


_STANDING = PerUser(_standing_of)


def _standing(user: AnyUser) -> tuple[list[Standing], Own, dict[UUID, Health]]:
    standing: list[Standing] = []
    own: Own = 0, None
    health: dict[UUID, Health] = {}
    for (
        pk, label, provider_id, provider, monogram, version, changed_at, status, reason, cooldown, trouble, count, at
    ) in _STANDING.rows(user):  # fmt: skip
        account, own = Account(pk, label, provider_id, provider), (count or 0, at)
        standing.append((account, monogram, None if version is None else (version, changed_at)))
        health[pk] = _health(status, reason, cooldown, trouble)
    return standing, own, health


def _health(status: str, reason: str, cooldown_until: datetime | None, trouble: str) -> Health:
    if cooldown_until is not None and cooldown_until > timezone.now():
        return Health("resting", "warn", CODES.get(trouble, ""), is_resting=True)
    if status == ProviderAccount.Status.ATTENTION:
        return Health("needs attention", "warn", reason)
    if status == ProviderAccount.Status.UNVERIFIED:
        return Health("not verified", "neutral", reason)
    return Health()


def _load(user: AnyUser, standing: list[Standing], own: Own) -> list[Row]:
    if not standing:
        return []
    accounts = [account for account, _, _ in standing]
    facts: dict[int, Entry] = {}
    for account, monogram, version in {item[0].provider_id: item for item in standing}.values():
        facts.update(_facts_of(account, monogram, version))
    if own != (0, None):
        facts.update(_with_own_prices(user, facts))
    place: dict[Any, int] = {account.pk: number for number, account in enumerate(accounts)}
    place |= {account.pk.hex: number for number, account in enumerate(accounts)}  # what SQLite keeps of a UUID
    offers = AccountModel.objects.filter(account__in=[account.pk for account in accounts])
    offering: dict[int | str, list[tuple[int, Entry]]] = {}
    for model_pk, account_pk in _raw(offers.order_by().values_list("model_id", "account_id")):
        if (model := facts.get(model_pk)) is not None:
            offering.setdefault(model.group or model_pk, []).append((place[account_pk], model))
    return [Row(_in_order(found, accounts)) for found in offering.values()]


def _with_own_prices(user: AnyUser, facts: dict[int, Entry]) -> Iterator[tuple[int, Entry]]:
    """(model, facts) for those of `facts` with a price entered by hand that counts for this user."""
    own = own_prices.of(user)
    for model in AggregatorModel.objects.for_user(user).filter(pk__in=[pk for pk in own if pk in facts]):
        columns = own_prices.laid_over(model, own[model.pk])
        entry = facts[model.pk]
        is_free = columns["price_kind"] == AggregatorModel.PriceKind.FREE
        yield (
            model.pk,
            entry._replace(
                price_kind=columns["price_kind"],
                price_input=columns["price_input"],
                price_output=columns["price_output"],
                price_cache_read=columns["price_cache_read"],
                mask=entry.mask | FREE if is_free else entry.mask & ~FREE,
                is_own_price=True,
            ),
        )


def _in_order(found: list[tuple[int, Entry]], accounts: Sequence[Account]) -> tuple[Offer, ...]:
    """The cheapest first; at one price in the order in which requests try the accounts."""
    if len(found) > 1:
        found.sort(key=lambda offer: (_cost(offer[1]), offer[0]))
    return tuple(Offer(accounts[number], model) for number, model in found)


def _cost(model: Entry) -> tuple[bool, Decimal]:
    price = grouping.price_of(model)
    return price is None, price or Decimal(0)


def _facts_of(account: Account, monogram: str, version: Version) -> dict[int, Entry]:
    """Model → facts for everything the account's provider sells, shared by all users at this version.

    The rows are read as the database keeps them and compared with what was read before: an unchanged row costs no
    decoding, so a sync that repriced three models of ten thousand costs the reading alone.
    """
    key = (version, account.provider_name, monogram)
    with _lock:
        kept = _providers.get(account.provider_id)
    if version and kept is not None and kept.key == key:
        return kept.entries
    models = AggregatorModel.objects.filter(provider_id=account.provider_id, is_available=True).order_by()
    raw = {row[0]: row for row in _raw(models.values_list(*_COLUMNS))}
    known = kept if kept is not None and kept.key[1:] == key[1:] else _Kept((), {}, {})
    made_by = _Maker(account.provider_id, account.provider_name, monogram)
    facts = {pk: known.entries[pk] if known.raw.get(pk) == row else made_by.entry(row) for pk, row in raw.items()}
    if version:
        with _lock:
            _providers[account.provider_id] = _Kept(key, raw, facts)
    return facts


def _raw(queryset: QuerySet[Any, Any]) -> Iterator[tuple]:
    """The rows of a values_list as the driver gives them: JSON is text, money an integer."""
    sql, params = queryset.query.get_compiler(queryset.db).as_sql()
    with connections[queryset.db].cursor() as cursor:
        cursor.execute(sql, params)
        while rows := cursor.fetchmany(2_000):
            yield from map(tuple, rows)


# -- Facts of one model ----------------------------------------------------------------------------------------------


class _Maker:
    """Makes the entries of one provider."""

    def __init__(self, provider_id: int, provider_name: str, monogram: str) -> None:
        self.provider_id, self.provider_name, self.monogram = provider_id, provider_name, monogram
        folded = fold(provider_name)
        self.squeezed, self.spaced = squeeze(folded), _space(folded)

    def entry(self, raw: tuple) -> Entry:
        """What is kept of a model, from a row of _COLUMNS as the database keeps it."""
        (
            pk, model_id, display_name, model_type, capabilities, modalities, context, output, kind,
            price_input, price_output, price_cached, released_at, created_at, retires_at, is_featured, group,
        ) = raw  # fmt: skip
        abilities, mask = _abilities(capabilities, modalities)
        if kind == AggregatorModel.PriceKind.FREE:
            mask |= FREE
        name, folded_id = fold(display_name), fold(model_id)
        own_name = name.rpartition(": ")[2]
        all_id, all_name = squeeze(folded_id), squeeze(name)
        own_part = squeeze(own_name) if own_name != name else all_name
        own_id = all_id if "/" not in folded_id else squeeze(folded_id.rpartition("/")[2])
        return Entry(
            pk=pk,
            model_id=model_id,
            name=display_name,
            model_type=model_type,
            provider_id=self.provider_id,
            provider_name=self.provider_name,
            monogram=next((char.upper() for char in own_name if char.isalnum()), "") or self.monogram,
            context_window=context,
            max_output_tokens=output,
            price_kind=kind,
            price_input=_money(price_input),
            price_output=_money(price_output),
            price_cache_read=_money(price_cached),
            abilities=abilities,
            since=(released_at or created_at).date(),
            retires_at=retires_at,
            is_featured=bool(is_featured),
            mask=mask,
            group=group,
            # A line break begins and ends each name: no word matches across two, and "\nword\n" is all of one. The
            # second and fourth are without the maker: "gpt-4o" is all of "openai/gpt-4o" and of "OpenAI: GPT-4o".
            text=f"\n{all_id}\n{own_id}\n{all_name}\n{own_part}\n\t{self.squeezed}",
            starts=f" {_space(name)} {_space(folded_id)} {self.spaced}",
            squeezed_name=all_name,
            order=_DIGITS.sub(_padded, name),
        )


def entry(raw: Sequence[Any], *, provider_name: str, monogram: str = "", provider_id: int = 0) -> Entry:
    """One entry from a row of _COLUMNS."""
    return _Maker(provider_id, provider_name, monogram).entry(tuple(raw))


@lru_cache(maxsize=4_096)
def _abilities(capabilities: str, modalities: str) -> tuple[tuple[str, ...], int]:
    """(words of ABILITIES, their bits) from two JSON lists; models share a few hundred of these."""
    said = {str(word).lower() for word in _list(capabilities)}
    reads = {str(word).lower() for word in _list(modalities)}
    can = (
        "vision" in said or "image" in reads,
        "audio" in said or "audio" in reads,
        bool(said & _TOOL_WORDS),
        bool(said & _REASONING_WORDS),
        bool(said & _JSON_WORDS),
    )
    words = tuple(word for word, does in zip(ABILITIES, can, strict=True) if does)
    return words, sum(1 << bit for bit, does in enumerate(can) if does)


def _list(text: str) -> Iterable[Any]:
    found = json.loads(text) if text else []
    return found if isinstance(found, list) else []


@lru_cache(maxsize=8_192)
def _money(units: int | None) -> Decimal | None:
    return None if units is None else from_pico(int(units))


def _padded(digits: re.Match[str]) -> str:
    """For sorting: "model 9" before "model 10"."""
    return digits[0].zfill(8)


_AWAY = {code: None for code in range(128) if not chr(code).isalnum()}
_BLANK = {code: " " for code in range(128) if not chr(code).isalnum()}


def squeeze(text: str) -> str:
    """Without punctuation and blanks."""
    return text.translate(_AWAY) if text.isascii() else PUNCTUATION.sub("", text)


def _space(text: str) -> str:
    """A blank for each piece of punctuation, so that " word" is where a word begins."""
    return text.translate(_BLANK) if text.isascii() else PUNCTUATION.sub(" ", text)


def fold(text: str) -> str:
    """Lower case, without accents, compatibility characters resolved."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()
