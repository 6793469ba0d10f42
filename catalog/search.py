"""Find a model among all those a user may call: a list in this process, the same on both databases.

    search(user, "claude sonnet", filters=Filters(free=True)) -> Results(rows, total, of)

The list is loaded once and kept until one cheap query says that it is old: the user's usable accounts (their labels
and order) and the versions of their providers' catalogs, which every sync that changed something raises. Facts of a
model are kept once per provider and shared by all its users; a user's own list is only who offers what.

A query is words in any order. A word matches when it is part of a model's id, name or provider with all punctuation
removed, so `gpt4o` finds "GPT-4o" and `v3.2` finds "DeepSeek V3.2". A word with punctuation that is found nowhere as a
whole is found by its parts, so `anthropic/sonnet` finds "anthropic/claude-sonnet-4.6".
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.utils import timezone

from catalog.models import AccountModel, AggregatorModel
from providers.models import ProviderAccount

if TYPE_CHECKING:
    from providers.models import AnyUser

MAX_QUERY = 100
"""Characters of a query that are read (M7)."""

MAX_WORDS = 8
KEPT_USERS = 64
"""Users whose lists stay in memory; the least recently seen leave first."""

VISION, TOOLS, REASONING, FREE, CHAT, LONG = 1, 2, 4, 8, 16, 32
LONG_CONTEXT = 128_000
"""Tokens of context that the "≥ 128k" filter asks for."""

Words = list[tuple[str, tuple[str, ...]]]
"""Per word of a query: the word without punctuation, and the parts that punctuation cut it into."""

RETIRES_SOON = timedelta(days=183)
_PUNCTUATION = re.compile(r"[\W_]+")
_DIGITS = re.compile(r"\d+", re.ASCII)
_COLUMNS = (
    "pk",
    "provider_id",
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
    "retires_at",
    "is_featured",
)
_TOOL_WORDS = frozenset({"tools", "tool", "function_calling"})
_REASONING_WORDS = frozenset({"reasoning", "thinking"})


@dataclass(frozen=True, slots=True)
class Filters:
    """What the chips ask for. `account` is the id of one of the user's accounts, `provider` the key of one provider."""

    chat: bool = False
    vision: bool = False
    tools: bool = False
    reasoning: bool = False
    free: bool = False
    long: bool = False
    account: UUID | None = None
    provider: int | None = None

    @property
    def mask(self) -> int:
        chosen = (
            (self.vision, VISION),
            (self.tools, TOOLS),
            (self.reasoning, REASONING),
            (self.free, FREE),
            (self.chat, CHAT),
            (self.long, LONG),
        )
        return sum(bit for wanted, bit in chosen if wanted)


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What pages show of one model, and the text it is found by. Prices are USD per 1M tokens, None is unknown."""

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
    retires_at: date | None
    is_featured: bool
    mask: int
    text: str = field(repr=False)
    squeezed_name: str = field(repr=False)
    starts: str = field(repr=False)

    @property
    def retires_soon(self) -> bool:
        """Within half a year: providers also write dates decades away (2098-12-31)."""
        return self.retires_at is not None and self.retires_at <= timezone.now().date() + RETIRES_SOON

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


class Row(NamedTuple):
    """A model and the user's accounts that offer it, in the order a request would try them."""

    model: Entry
    accounts: tuple[Account, ...]

    @property
    def account(self) -> Account:
        return self.accounts[0]

    @property
    def others(self) -> tuple[Account, ...]:
        return self.accounts[1:]


@dataclass(frozen=True, slots=True)
class Results:
    """One page of what matched; `total` matched in all, out of `of` models the user may call."""

    rows: Sequence[Row]
    total: int
    of: int


def search(
    user: AnyUser, query: str = "", *, limit: int = 50, offset: int = 0, filters: Filters = NO_FILTERS
) -> Results:
    """The models `user` may call that match every word of `query` and every filter, best first.

    One query when nothing changed since the last call; then 1-3 ms for 10,000 models.
    """
    listing = _listing_of(user)
    words = words_of(query)
    found = _filtered(listing, filters, is_search=bool(words))
    if words:
        found = _matching(listing, found, words)
    page = (_best(listing, found, words, offset + limit) if words else found)[offset : offset + limit]
    return Results([_narrowed(listing.rows[n], filters.account) for n in page], len(found), len(listing.rows))


def accounts_of(user: AnyUser) -> list[Account]:
    """The user's usable accounts, in the order requests try them."""
    return [account for account, _, _ in _standing(user)]


def words_of(query: str) -> Words:
    """At most MAX_WORDS words of the first MAX_QUERY characters, without case, accents and punctuation."""
    words = []
    for word in _fold(query[:MAX_QUERY]).split()[:MAX_WORDS]:
        parts = tuple(part for part in _PUNCTUATION.split(word) if part)
        if parts:
            words.append(("".join(parts), parts))
    return words


def forget() -> None:
    """Drop every list, as a restart would."""
    with _lock:
        _entries.clear()
        _lists.clear()


# -- Matching --------------------------------------------------------------------------------------------------------


# A listing's rows go by their number; the lists they are judged by stand side by side, because a list comprehension
# over plain strings is several times as fast as one that visits objects.


def _filtered(listing: Listing, filters: Filters, *, is_search: bool) -> Sequence[int]:
    rows = listing.rows
    numbers = listing.with_mask(filters.mask, is_search=is_search)
    if filters.provider is not None:
        numbers = [n for n in numbers if rows[n].model.provider_id == filters.provider]
    if filters.account is not None:
        numbers = [n for n in numbers if any(account.pk == filters.account for account in rows[n].accounts)]
    return numbers


def _narrowed(row: Row, account_pk: UUID | None) -> Row:
    """The row with the chosen account alone, when one was chosen."""
    if account_pk is None:
        return row
    return Row(row.model, tuple(account for account in row.accounts if account.pk == account_pk))


def _matching(listing: Listing, numbers: Sequence[int], words: Words) -> Sequence[int]:
    texts = listing.texts
    for whole, parts in words:
        strict = [n for n in numbers if whole in texts[n]]
        if strict or len(parts) == 1:
            numbers = strict
            continue
        for part in parts:
            numbers = [n for n in numbers if part in texts[n]]
    return numbers


def _best(listing: Listing, numbers: Sequence[int], words: Words, wanted: int) -> Sequence[int]:
    """The first `wanted` of `numbers`, best first.

    The query is the whole name or id · name or id begin with it · each word begins a word · the rest. Within each of
    these the order of `numbers` stays.
    """
    whole = "".join(word for word, _ in words)
    texts, start, all_of_it = listing.texts, f"\n{whole}", f"\n{whole}\n"
    begin = [n for n in numbers if start in texts[n]]
    best = [n for n in begin if all_of_it in texts[n]]
    seen = set(best)
    best += [n for n in begin if n not in seen]
    seen = set(best)
    rest: Iterable[int] = numbers
    for word, _ in words:
        rest = _beginning(listing.starts, f" {word}", rest)
    for n in chain(rest, numbers):
        if len(best) >= wanted:
            break
        if n not in seen:
            seen.add(n)
            best.append(n)
    return best[:wanted]


def _beginning(texts: list[str], start: str, numbers: Iterable[int]) -> Iterable[int]:
    """Those whose text has a word that begins with `start`, one by one: the caller mostly wants the first few."""
    return (n for n in numbers if start in texts[n])


def _natural(text: str) -> str:
    """For sorting: "model 9" before "model 10"."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(8), text)


def _fold(text: str) -> str:
    """Lower case, without accents, compatibility characters resolved."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()


# -- Keeping ---------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
Version = tuple[int, datetime] | None
"""(version, changed_at) of a provider's catalog: the moment tells a restored database from the one that was. None means
that no sync ever wrote it, so nothing says when it changes and nothing is kept."""

_entries: dict[int, tuple[Version, dict[int, Entry]]] = {}
"""Provider → (version, model → facts), shared by its users."""

_lists: OrderedDict[int, tuple[tuple, Listing]] = OrderedDict()
"""User → (what the list was made from, the list)."""


class Listing:
    """All that one user may call, ready to be searched: rows, and beside them what they are judged by."""

    __slots__ = ("_by_mask", "by_name", "closest", "masks", "rows", "starts", "texts")

    def __init__(self, rows: list[Row]) -> None:
        models = [row.model for row in rows]
        self.rows = rows
        self.masks = [model.mask for model in models]
        self.texts = [model.text for model in models]
        self.starts = [model.starts for model in models]
        keys = [(not model.is_featured, _natural(_fold(model.name)), model.pk) for model in models]
        self.by_name = sorted(range(len(rows)), key=keys.__getitem__)
        lengths = [(not model.is_featured, len(model.squeezed_name)) for model in models]
        self.closest = sorted(self.by_name, key=lengths.__getitem__)
        self._by_mask: dict[tuple[int, bool], list[int]] = {}

    def with_mask(self, mask: int, *, is_search: bool) -> list[int]:
        """Numbers of the rows that have every bit of `mask`: short names first for a search, else by name.

        Kept per mask, of which there are at most 64.
        """
        numbers = self.closest if is_search else self.by_name
        if not mask:
            return numbers
        kept = self._by_mask.get((mask, is_search))
        if kept is None:
            masks = self.masks
            kept = self._by_mask[mask, is_search] = [n for n in numbers if masks[n] & mask == mask]
        return kept


def _listing_of(user: AnyUser) -> Listing:
    """The user's list, from memory if it is still what the database would say."""
    assert user.pk is not None  # nobody anonymous comes here
    standing = _standing(user)
    key = tuple(standing)
    with _lock:
        kept = _lists.get(user.pk)
        if kept is not None and kept[0] == key:
            _lists.move_to_end(user.pk)
            return kept[1]
    listing = Listing(_load(standing))
    if all(version for _, _, version in standing):
        _keep(user.pk, key, listing)
    return listing


def _keep(user_pk: int, key: tuple, listing: Listing) -> None:
    with _lock:
        _lists[user_pk] = key, listing
        _lists.move_to_end(user_pk)
        while len(_lists) > KEPT_USERS:
            _lists.popitem(last=False)
        in_use = {account.provider_id for made_from, _ in _lists.values() for account, _, _ in made_from}
        for provider_id in _entries.keys() - in_use:
            del _entries[provider_id]


def _standing(user: AnyUser) -> list[tuple[Account, str, Version]]:
    """(account, monogram, version of its provider's catalog) per usable account: all that a list depends on."""
    accounts = ProviderAccount.objects.for_user(user).usable().order_by("priority", "created_at", "pk")
    columns = ("pk", "label", "provider_id", "provider__display_name", "provider__monogram")
    version = ("provider__catalog__version", "provider__catalog__changed_at")
    return [
        (Account(pk, label, provider_id, provider), monogram, None if version is None else (version, changed_at))
        for pk, label, provider_id, provider, monogram, version, changed_at in accounts.values_list(*columns, *version)
    ]


def _load(standing: list[tuple[Account, str, Version]]) -> list[Row]:
    accounts = [account for account, _, _ in standing]
    order = {account.pk: number for number, account in enumerate(accounts)}
    facts: dict[int, Entry] = {}
    for account, monogram, version in {item[0].provider_id: item for item in standing}.values():
        facts.update(_facts_of(account, monogram, version))
    offering: dict[int, list[int]] = {}
    offers = AccountModel.objects.filter(account__in=list(order)).values_list("model_id", "account_id")
    for model_pk, account_pk in offers.iterator(chunk_size=5_000):
        if model_pk in facts:
            offering.setdefault(model_pk, []).append(order[account_pk])
    return [Row(facts[pk], tuple(accounts[number] for number in sorted(numbers))) for pk, numbers in offering.items()]


def _facts_of(account: Account, monogram: str, version: Version) -> dict[int, Entry]:
    """Model → facts for everything the account's provider sells, shared by all users at this version."""
    with _lock:
        kept = _entries.get(account.provider_id)
    if version and kept is not None and kept[0] == version:
        return kept[1]
    models = AggregatorModel.objects.filter(provider_id=account.provider_id, is_available=True).order_by()
    facts = {
        model.pk: _entry(model, account.provider_name, monogram)
        for model in models.values_list(*_COLUMNS, named=True).iterator(chunk_size=2_000)
    }
    if version:
        with _lock:
            _entries[account.provider_id] = version, facts
    return facts


def _entry(model: Any, provider_name: str, monogram: str) -> Entry:
    """What is kept of a model, from anything that has the attributes _COLUMNS names."""
    abilities = _abilities(model)
    mask = sum(
        bit
        for wanted, bit in (
            ("vision" in abilities, VISION),
            ("tools" in abilities, TOOLS),
            ("reasoning" in abilities, REASONING),
            (model.price_kind == AggregatorModel.PriceKind.FREE, FREE),
            (model.model_type in (AggregatorModel.ModelType.CHAT, AggregatorModel.ModelType.UNKNOWN), CHAT),
            ((model.context_window or 0) >= LONG_CONTEXT, LONG),
        )
        if wanted
    )
    name, model_id = _fold(model.display_name), _fold(model.model_id)
    squeezed_name = _PUNCTUATION.sub("", name)
    words = (_PUNCTUATION.sub(" ", text) for text in (name, model_id, _fold(provider_name)))
    return Entry(
        pk=model.pk,
        model_id=model.model_id,
        name=model.display_name,
        model_type=model.model_type,
        provider_id=model.provider_id,
        provider_name=provider_name,
        monogram=_monogram(model.display_name) or monogram,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        price_kind=model.price_kind,
        price_input=model.price_input,
        price_output=model.price_output,
        price_cache_read=model.price_cache_read,
        abilities=abilities,
        retires_at=model.retires_at,
        is_featured=model.is_featured,
        mask=mask,
        # A line break begins and ends each name: no word matches across two, and "\nword\n" is all of one. The second
        # and fourth are without the maker: "gpt-4o" is all of "openai/gpt-4o" and of "OpenAI: GPT-4o".
        text="\n{}\n{}\n{}\n{}\n\t{}".format(
            *(
                _PUNCTUATION.sub("", name)
                for name in (
                    model_id,
                    model_id.rsplit("/", 1)[-1],
                    name,
                    name.rsplit(": ", 1)[-1],
                    _fold(provider_name),
                )
            )
        ),
        squeezed_name=squeezed_name,
        starts=f" {' '.join(words)}",
    )


def _abilities(model: Any) -> tuple[str, ...]:
    """The few words a row has room for, in the order people ask for them."""
    said = {str(word).lower() for word in model.capabilities}
    reads = {str(word).lower() for word in model.input_modalities}
    known = (
        ("vision", "vision" in said or "image" in reads),
        ("audio", "audio" in said or "audio" in reads),
        ("tools", bool(said & _TOOL_WORDS)),
        ("reasoning", bool(said & _REASONING_WORDS)),
        ("JSON", bool(said & {"structured_outputs", "json", "json_mode", "response_format"})),
    )
    return tuple(word for word, can in known if can)


def _monogram(name: str) -> str:
    """The first letter or digit of the model's own name ("OpenAI: GPT-5" is a G)."""
    own = name.rsplit(": ", 1)[-1]
    return next((char.upper() for char in own if char.isalnum()), "")
