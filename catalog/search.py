"""Find a model among all those a user may call: a list in this process, the same on both databases.

    search(user, "claude sonnet", filters=Filters(free=True)) -> Results(rows, total, of …)

A query is words in any order. A word matches when it is part of a model's id, name or provider with all punctuation
removed, so `gpt4o` finds "GPT-4o" and `v3.2` finds "DeepSeek V3.2". A word with punctuation that is found nowhere as a
whole is found by its parts, so `anthropic/sonnet` finds "anthropic/claude-sonnet-4.6".

Where the list comes from, and when it is made anew: catalog/listing.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING
from uuid import UUID

from catalog import listing as lists
from catalog.listing import ABILITIES, FREE, ORDERS, PUNCTUATION, Health, Listing, Offer, Opened, Row, Rules, fold
from catalog.models import AggregatorModel

if TYPE_CHECKING:
    from providers.models import AnyUser

MAX_QUERY = 100
"""Characters of a query that are read (M7)."""

MAX_WORDS = 8
RANKED = 2_000
"""Of more answers than these, the ones with the shortest names are ranked: one letter finds thousands."""

CHAT_TYPES = frozenset({AggregatorModel.ModelType.CHAT.value, AggregatorModel.ModelType.UNKNOWN.value})
"""What "chat" takes along: many lists do not say what a model is, and it mostly is that."""

Words = list[tuple[str, tuple[str, ...]]]
"""Per word of a query: the word without punctuation, and the parts that punctuation cut it into."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What one asks for. `abilities` are words of ABILITIES; `price` is the most per 1M tokens (`Entry.price`);
    `account` is the id of one of the user's accounts, `provider` the key of one provider."""

    type: str = ""
    abilities: frozenset[str] = frozenset()
    free: bool = False
    favourites: bool = False
    context: int = 0
    price: Decimal | None = None
    account: UUID | None = None
    provider: int | None = None

    @property
    def mask(self) -> int:
        bits = sum(1 << bit for bit, word in enumerate(ABILITIES) if word in self.abilities)
        return bits | FREE if self.free else bits


NO_FILTERS = Filters()
SORTS = frozenset({*ORDERS, *(f"-{name}" for name in ORDERS)})


@dataclass(frozen=True, slots=True)
class Results:
    """One page of what matched.

    `total` matched in all, out of `of` models the user may call; `hidden` is how many of those that matched a hide rule
    of theirs hits: they are not in `total`, unless hidden ones were asked for. The first `pinned` of `rows` are there
    because they were asked for `first`; `hidden_models` are those of `rows` that a rule hits.
    """

    rows: Sequence[Row]
    total: int
    of: int
    hidden: int = 0
    pinned: int = 0
    hidden_models: frozenset[int] = field(default=frozenset(), repr=False)


def search(
    user: AnyUser,
    query: str = "",
    *,
    limit: int | None = 50,
    offset: int = 0,
    filters: Filters = NO_FILTERS,
    sort: str = "",
) -> Results:
    """The models `user` may call that match every word of `query` and every filter, best first.

    One query when nothing changed since the last call; then 1-3 ms for 10,000 models.
    """
    return within(lists.of(user), query, limit=limit, offset=offset, filters=filters, sort=sort)


def within(
    opened: Opened,
    query: str = "",
    *,
    limit: int | None = 50,
    offset: int = 0,
    filters: Filters = NO_FILTERS,
    sort: str = "",
    first: Sequence[int] = (),
    favourites: Collection[int] = (),
    rules: Rules = (),
    show_hidden: bool = False,
) -> Results:
    """`search` in a list that is open already; no query at all.

    `sort` is one of SORTS; without it, the best match first, and with no words by name. `first` are models that come
    before others as near, in this order; `favourites` those the filter of that name leaves. Both are primary keys.
    """
    listing = opened.listing
    words = words_of(query)
    by = sort if sort in SORTS else "closest" if words else "name"
    answer = _answer(listing, by, filters, words, favourites, rules, show_hidden=show_hidden)
    total = len(answer.numbers)
    last = total if limit is None else offset + limit
    page: Sequence[int]
    pinned = 0
    if sort in SORTS:
        page = answer.numbers[offset:last]
    else:
        front = [n for n in _numbers_of(listing, first) if n in answer.members]
        if words:
            page = _best(listing, answer, words, last, front)[offset:]
        else:
            pinned = len(front)
            page = list(islice(dict.fromkeys(chain(front, answer.numbers[: last + pinned])), offset, last))
    away = listing.hidden(rules)
    rows = [_dressed(listing.rows[n], filters, opened.health) for n in page]
    shown_away = frozenset(row.model.pk for n, row in zip(page, rows, strict=True) if n in away)
    return Results(rows, total, len(listing.rows), answer.hidden, max(0, min(pinned - offset, len(rows))), shown_away)


def words_of(query: str) -> Words:
    """At most MAX_WORDS words of the first MAX_QUERY characters, without case, accents and punctuation."""
    words = []
    for word in fold(query[:MAX_QUERY]).split()[:MAX_WORDS]:
        parts = tuple(part for part in PUNCTUATION.split(word) if part)
        if parts:
            words.append(("".join(parts), parts))
    return words


# -- Matching --------------------------------------------------------------------------------------------------------


class _Answer:
    """The numbers that answer a question, in order; how many a hide rule hits; and what is made of them when needed."""

    def __init__(self, numbers: list[int], hidden: int) -> None:
        self.numbers, self.hidden = numbers, hidden

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def members(self) -> frozenset[int]:
        return frozenset(self.numbers)


def _answer(
    listing: Listing,
    by: str,
    filters: Filters,
    words: Words,
    favourites: Collection[int],
    rules: Rules,
    *,
    show_hidden: bool,
) -> _Answer:
    starred = frozenset(_numbers_of(listing, favourites)) if filters.favourites else None
    key = (by, filters, tuple(parts for _, parts in words), rules, show_hidden, starred)
    if (kept := listing.recall(key)) is not None:
        return kept
    numbers = _matching(listing, by, filters, words)
    if starred is not None:
        numbers = [n for n in numbers if n in starred]
    hidden = 0
    if away := listing.hidden(rules):
        seen = [n for n in numbers if n not in away]
        hidden = len(numbers) - len(seen)
        numbers = numbers if show_hidden else seen
    return listing.remember(key, _Answer(numbers, hidden))


def _numbers_of(listing: Listing, pks: Collection[int]) -> list[int]:
    """The numbers of models `pks`, in their order, each once; those that the list does not have are left out."""
    return list(dict.fromkeys(listing.numbers[pk] for pk in pks if pk in listing.numbers))


def _matching(listing: Listing, by: str, filters: Filters, words: Words) -> list[int]:
    """The numbers that pass the filters and hold every word, in the order `by`. Kept, so that each letter typed
    narrows the answer to the letters before it."""
    key = (by, filters, tuple(parts for _, parts in words))
    kept = listing.recall(key)
    if kept is not None:
        return kept
    if not words:
        return listing.remember(key, _filtered(listing, by, filters))
    numbers = _narrowest(listing, by, filters, words)
    texts = listing.texts
    for whole, parts in words:
        # What holds the whole holds its parts: the longest, which is the rarest, leaves few for the others to look at.
        for part in sorted(parts, key=len, reverse=True):
            numbers = [n for n in numbers if part in texts[n]]
        if len(parts) > 1 and (strict := [n for n in numbers if whole in texts[n]]):
            numbers = strict
    return listing.remember(key, numbers)


def _narrowest(listing: Listing, by: str, filters: Filters, words: Words) -> list[int]:
    """The smallest kept answer that surely holds all of this question's: to the same words, the last one shorter."""
    if all(len(parts) == 1 for _, parts in words):
        before, last = tuple(parts for _, parts in words[:-1]), words[-1][0]
        for length in range(len(last) - 1, 0, -1):
            if (kept := listing.recall((by, filters, (*before, (last[:length],))))) is not None:
                return kept
        if before and (kept := listing.recall((by, filters, before))) is not None:
            return kept
    return _matching(listing, by, filters, [])


def _filtered(listing: Listing, by: str, filters: Filters) -> list[int]:
    rows, numbers = listing.rows, listing.order(by)
    if mask := filters.mask:
        masks = listing.masks
        numbers = [n for n in numbers if masks[n] & mask == mask]
    if filters.type:
        types = listing.types
        wanted = CHAT_TYPES if filters.type == AggregatorModel.ModelType.CHAT else frozenset({filters.type})
        numbers = [n for n in numbers if types[n] in wanted]
    if least := filters.context:
        contexts = listing.contexts
        numbers = [n for n in numbers if contexts[n] >= least]
    if (most := filters.price) is not None:
        prices = listing.prices
        numbers = [n for n in numbers if (price := prices[n]) is not None and price <= most]
    if filters.provider is not None or filters.account is not None:
        numbers = [n for n in numbers if _offers(rows[n], filters)]
    return numbers


def _offers(row: Row, filters: Filters) -> Sequence[Offer]:
    """The offers of a row that the filters for provider, account and price leave."""
    return [
        offer
        for offer in row.sellers
        if (filters.provider is None or offer.model.provider_id == filters.provider)
        and (filters.account is None or offer.account.pk == filters.account)
        and (filters.price is None or ((price := offer.model.price) is not None and price <= filters.price))
    ]


def _dressed(row: Row, filters: Filters, health: dict[UUID, Health]) -> Row:
    """The row with the chosen account's or provider's offers alone, and accounts that rest at the end."""
    is_narrowed = filters.provider is not None or filters.account is not None
    offers = _offers(row, filters) if is_narrowed else row.sellers
    if len(offers) > 1 and any(health[offer.account.pk].is_resting for offer in offers):
        offers = sorted(offers, key=lambda offer: health[offer.account.pk].is_resting)
    return row if offers is row.sellers else Row(tuple(offers))


def _best(listing: Listing, answer: _Answer, words: Words, wanted: int, front: Sequence[int]) -> list[int]:
    """The first `wanted` of the answer, best first.

    The query is the whole name or id · `front` · name or id begin with it · each word begins a word · the rest. Within
    each of these the order stays.
    """
    whole = "".join(word for word, _ in words)
    exact = [n for n in listing.named.get(whole, ()) if n in answer.members]
    if len(exact) > 1:
        named = set(exact)
        exact = [n for n in answer.numbers if n in named]
    nearest = answer.numbers[:RANKED]
    begin = _beginning(listing.texts, f"\n{whole}", nearest)
    rest: Iterable[int] = nearest
    for word, _ in words:
        rest = _beginning(listing.starts, f" {word}", rest)
    best: dict[int, None] = {}
    for n in chain(exact, front, begin, rest, answer.numbers):
        if len(best) >= wanted:
            break
        best[n] = None
    return list(best)


def _beginning(texts: list[str], start: str, numbers: Iterable[int]) -> Iterable[int]:
    """Those whose text has a word that begins with `start`, one by one: the caller mostly wants the first few."""
    return (n for n in numbers if start in texts[n])
