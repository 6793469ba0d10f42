"""What a page of models is asked, read from its address and written back into one.

Only the names and values listed here are read; anything else is as if it were not there (M7). Addresses are shared,
saved and guessed: an odd value never makes an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from catalog.listing import ABILITIES, Account
from catalog.models import AggregatorModel
from catalog.search import MAX_QUERY, NO_FILTERS, SORTS, Filters

MAX_OFFSET = 1_000_000
MAX_CONTEXT = 10**10
MAX_PRICE = Decimal(1_000_000)

ABILITY_NAMES = {word.lower(): word for word in ABILITIES}
"""Name in the address → word of ABILITIES."""

CONTEXTS = (("32000", "≥ 32k"), ("128000", "≥ 128k"), ("200000", "≥ 200k"), ("1000000", "≥ 1M"))
PRICES = (("0.5", "Out ≤ $0.50"), ("1", "Out ≤ $1"), ("5", "Out ≤ $5"), ("15", "Out ≤ $15"))
"""(value, label) that the two select fields offer; any other number works in the address."""

SORT_LABELS = (
    ("", "Best match"),
    ("name", "Name"),
    ("in", "Price in, low first"),
    ("out", "Price out, low first"),
    ("-context", "Context, large first"),
    ("-newest", "Newest first"),
)
_TYPES = frozenset(AggregatorModel.ModelType.values)


@dataclass(frozen=True, slots=True)
class Question:
    """Words, filters, order and place in the answer."""

    query: str = ""
    filters: Filters = NO_FILTERS
    sort: str = ""
    offset: int = 0
    show_hidden: bool = False
    chosen: Mapping[str, str] = field(default_factory=dict)
    """What the form's fields show as chosen: name → value, as the address has it."""

    @classmethod
    def read(cls, asked: Mapping[str, Any], accounts: Sequence[Account], *, page_size: int) -> Question:
        """`accounts` are the user's: an account or provider that is none of them does not exist."""
        said = {name: str(asked.get(name, "")) for name in NAMES}
        query = "".join(char for char in said["q"] if char.isprintable()).strip()[:MAX_QUERY]
        account = next((one.pk for one in accounts if str(one.pk) == said["account"]), None)
        provider = next((one.provider_id for one in accounts if str(one.provider_id) == said["provider"]), None)
        filters = Filters(
            type=said["type"] if said["type"] in _TYPES else "",
            abilities=frozenset(word for name, word in ABILITY_NAMES.items() if said[name]),
            free=bool(said["free"]),
            favourites=bool(said["favourites"]),
            context=_whole(said["context"], MAX_CONTEXT),
            price=_price(said["price"]),
            account=account,
            provider=provider,
        )
        sort = said["sort"] if said["sort"] in SORTS else ""
        chosen = {
            "q": query,
            "type": filters.type,
            **{name: "on" if word in filters.abilities else "" for name, word in ABILITY_NAMES.items()},
            "free": "on" if filters.free else "",
            "favourites": "on" if filters.favourites else "",
            "context": str(filters.context or ""),
            "price": "" if filters.price is None else format(filters.price, "f"),
            "provider": str(provider or ""),
            "account": str(account or ""),
            "sort": sort,
            "hidden": "on" if said["hidden"] else "",
        }
        return cls(
            query=query,
            filters=filters,
            sort=sort,
            offset=_whole(said["offset"], MAX_OFFSET) // page_size * page_size,
            show_hidden=bool(said["hidden"]),
            chosen={name: value for name, value in chosen.items() if value},
        )

    def address(self, **changes: Any) -> str:
        """The query string of this question ("" for none), with `changes` of single names; without the place."""
        said = {**self.chosen, **{name: str(value) for name, value in changes.items()}}
        return urlencode({name: said[name] for name in NAMES if said.get(name)})

    def without_place(self) -> Question:
        return replace(self, offset=0)

    @property
    def is_narrow(self) -> bool:
        """Does it ask for less than everything?"""
        return bool(self.chosen.keys() - {"sort", "hidden"})


NAMES = (
    "q", "type", *ABILITY_NAMES, "free", "favourites", "context", "price", "provider", "account", "sort", "hidden",
    "offset",
)  # fmt: skip
"""All that is read of an address, in the order in which one is written."""


def _whole(text: str, most: int) -> int:
    """A count; 0 for anything that is not a number we count to."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return 0
    return min(int(text), most)


def _price(text: str) -> Decimal | None:
    """USD per 1M tokens; None for anything that is no price."""
    if not text or len(text) > 20 or not text.isascii() or not text.replace(".", "", 1).isdigit():
        return None
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    return price if price <= MAX_PRICE else None
