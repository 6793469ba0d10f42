"""From a client's ModelInfo to the columns of a row: strange text, odd numbers and huge values stop here.

Pure functions. The text rule: control characters, bidirectional overrides and other invisible format characters are
dropped (the joiners that emoji and Indic scripts need stay), line breaks in a name become spaces, and lengths are
capped. HTML is left as it is: it is text, and pages escape it. An id is never cleaned, because it is sent back as is:
a row whose id could not be stored or shown safely is skipped instead.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from catalog import inference
from catalog.models import PRICE_COLUMNS, AggregatorModel
from providers.clients.base import ModelInfo, Prices
from providers.money import from_pico, to_pico

RULES = "2"
"""Raise this when rows are read differently: the next sync then ignores its ETag and reads the list again."""

MAX_ID = 300
MAX_NAME = 300
MAX_DESCRIPTION = 4_000
MAX_TOKENS = 10_000_000_000
MAX_PRICE = Decimal(1_000_000)
"""USD. The clients judge what is plausible per 1M tokens; beyond this even a price per call is nonsense."""

MAX_JSON = 8_000
"""Characters of JSON kept of the seller's own figures."""

_LINK = re.compile(r"\[([^\[\]]{1,200})\]\((?:https?://|/)[^\s()]{0,300}\)")
_JOINERS = "\u200c\u200d"
_MODEL_TYPES = frozenset(AggregatorModel.ModelType.values)


def _is_hidden(char: str) -> bool:
    category = unicodedata.category(char)
    return category in ("Cc", "Cs") or (category == "Cf" and char not in _JOINERS)


def clean_text(text: object, limit: int) -> str:
    """`text` without hidden characters, at most `limit` characters; line breaks and tabs stay. Not a string: ''."""
    if not isinstance(text, str):
        return ""
    if len(text) <= limit and text.isascii() and text.isprintable():  # the most common
        return text.strip()
    text = text[: limit * 4].replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    if not text.isprintable():  # what is printable holds nothing hidden
        text = "".join(char for char in text if char in "\n\t" or not _is_hidden(char))
    return text.strip()[:limit].rstrip()


def _without_links(text: str) -> str:
    """Markdown links as their words: descriptions are shown as plain text, and many link to their seller's pages."""
    return _LINK.sub(r"\1", text) if "](" in text else text


def clean_name(text: object, limit: int = MAX_NAME) -> str:
    """Like clean_text, on one line: runs of white space become one space."""
    text = clean_text(text, limit)
    return text if text.isprintable() and "  " not in text else " ".join(text.split())


def is_storable_id(model_id: object) -> bool:
    """Can this id be stored, shown and sent back unchanged?"""
    return (
        isinstance(model_id, str)
        and 0 < len(model_id) <= MAX_ID
        and model_id == model_id.strip()
        and (
            model_id.isprintable()
            or not any(_is_hidden(char) or char in "\u2028\u2029" or char in _JOINERS for char in model_id)
        )
    )


def clean_json(value: Any, depth: int = 6) -> Any:
    """`value` as JSON that both databases store and give back equal: no NaN, no hidden characters, no big integers."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)[:60]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return format(value, "f")[:60] if value.is_finite() and abs(value.adjusted()) < 60 else str(value)[:60]
    if isinstance(value, date):
        return value.isoformat()
    if depth <= 0:
        return None
    if isinstance(value, Mapping):
        return {clean_name(str(key), 60): clean_json(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean_json(item, depth - 1) for item in value]
    return clean_text(str(value), 500)


def _capped_json(value: Any, empty: Any) -> Any:
    if not value:
        return empty
    cleaned = clean_json(value)
    return cleaned if len(json.dumps(cleaned)) <= MAX_JSON else empty


def _words(values: object) -> list[str]:
    """A sorted list of distinct short words, so that the order a provider names them in is no change."""
    if not isinstance(values, list | tuple | set | frozenset) or not values:
        return []
    words = tuple(value[:160] for value in values if isinstance(value, str))
    return list(_sorted_words(words) if len(words) <= 50 else _sorted_words.__wrapped__(words))


@lru_cache(maxsize=1_000)
def _sorted_words(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({word for value in values if (word := clean_name(value, 40))})[:40])


def price(value: object) -> Decimal | None:
    """USD as the database will give it back, or None (unknown) for anything that is no price (M2)."""
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= MAX_PRICE:
        return None
    return _rounded(value)


@lru_cache(maxsize=2_000)
def _rounded(value: Decimal) -> Decimal:
    return from_pico(to_pico(value))


def _tokens(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_TOKENS:
        return None
    return value


def _moment(value: object) -> datetime | None:
    if not isinstance(value, datetime) or not 1990 <= value.year <= 2200:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _day(value: object) -> date | None:
    if isinstance(value, datetime):
        value = value.date()
    return value if isinstance(value, date) and 1990 <= value.year <= 2200 else None


def price_kind(prices: Mapping[str, Decimal | None], *, variable: bool) -> str:
    """Priced, free, variable or unknown. Free means that every stated price is zero, tokens included."""
    kinds = AggregatorModel.PriceKind
    if variable:
        return kinds.VARIABLE
    stated = [value for value in prices.values() if value is not None]
    if not stated:
        return kinds.UNKNOWN
    if prices.get("price_input") == 0 and prices.get("price_output") == 0 and not any(stated):
        return kinds.FREE
    return kinds.KNOWN if any(stated) else kinds.UNKNOWN


def facts(info: ModelInfo, seller: inference.Seller = inference.NOBODY) -> dict[str, Any]:
    """Column → value for all we know of one model from `seller`'s list, exactly as the database returns it.

    What the list leaves open is inferred where it can be; `origins` says which columns that concerns.
    """
    prices: Prices = info.prices
    columns = {column: price(getattr(prices, name)) for column, name in PRICE_COLUMNS.items()}
    name = clean_name(info.display_name) or info.model_id
    stated = {
        "model_name": clean_name(info.model_name),
        "display_name": name,
        "description": _without_links(clean_text(info.description, MAX_DESCRIPTION)),
        "model_type": info.model_type if info.model_type in _MODEL_TYPES else AggregatorModel.ModelType.UNKNOWN.value,
        "capabilities": _words(info.capabilities),
        "input_modalities": _words(info.input_modalities),
        "output_modalities": _words(info.output_modalities),
        "context_window": _tokens(info.context_window),
        "max_output_tokens": _tokens(info.max_output_tokens),
        "price_kind": str(price_kind(columns, variable=bool(prices.variable))),
        **columns,
        "pricing": _capped_json(info.raw_pricing, {}),
        "pricing_rules": _capped_json(prices.rules, []),
        "released_at": _moment(info.released_at),
        "retires_at": _day(info.retires_at),
        "successor": clean_name(info.successor),
        "is_available": bool(info.is_available),
        "origins": {},
    }
    return inference.complete(stated, info.model_id, seller)
