"""What one attempt cost, and how we know: pure arithmetic over integers, no database, no clock, no floats.

The provider's own figure wins; else tokens × the prices noted before the call; else nobody knows, which is None and
not zero. Prices are USD per 1M tokens (`request`: USD per call). All products are added up exactly, in units of
10⁻¹⁸ USD, and rounded once, halves to even, to the 10⁻¹² USD the database stores.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from providers.clients.base import Usage
from providers.money import MAX_USD, PICO, from_pico, to_pico
from usage.models import CostSource

if TYPE_CHECKING:
    from catalog.models import AggregatorModel

MILLION = 1_000_000

MAX_CALL_USD = Decimal(1_000)
"""A figure above this, named or computed, is not believed (M2): the dearest real calls cost a few dollars."""

MAX_CALL_PICO = int(MAX_CALL_USD) * PICO

MAX_TOKENS = 10**10
"""A token count above this is not believed; the largest context windows are some 10⁷."""

TOKEN_PRICED = frozenset({"chat", "embedding", "moderation", "unknown"})
"""Model types whose prices are per token. Sellers fill the others with placeholders (upstreams.md §1.3)."""

PRICE_KEYS = ("input", "output", "cache_read", "cache_write", "reasoning", "image", "request", "search")

BYTES_PER_TOKEN = 4

Price = Decimal | str | None
"""USD per 1M tokens: a Decimal, or its text in a snapshot; None is unknown."""

Prices = Mapping[str, Price]


@dataclass(slots=True, init=False)
class Cost:
    """USD, and the CostSource that says how we know. `amount` is None exactly when `source` is "unknown".

    Kept as the integer the database stores: a Decimal is made only where somebody reads it.
    """

    pico: int | None
    """10⁻¹² USD."""
    source: str

    def __init__(self, amount: Decimal | None, source: str) -> None:
        if (amount is None) != (source == CostSource.UNKNOWN):
            raise ValueError("an unknown cost has no amount, and every other has one")
        self.pico = None if amount is None else to_pico(amount)
        self.source = source

    @classmethod
    def of_pico(cls, pico: int, source: str) -> Cost:
        """The same from the stored integer; `source` is not "unknown"."""
        cost = cls.__new__(cls)
        cost.pico, cost.source = pico, source
        return cost

    @property
    def amount(self) -> Decimal | None:
        return None if self.pico is None else from_pico(self.pico)


UNKNOWN = Cost(None, CostSource.UNKNOWN.value)
NOTHING = Cost(Decimal(0), CostSource.COMPUTED.value)
"""Nothing was delivered and nothing is charged: refused connections, refusals before the first byte."""


def estimate_tokens(size: int) -> int:
    """Tokens in a text of `size` UTF-8 bytes, rounded up: one per four bytes.

    English has about four letters (bytes) to a token; Chinese and Japanese about one character (three bytes), Cyrillic
    about two letters (four bytes), so bytes are the better measure than characters. Good to some ±30 %, and only ever
    used for what is marked *estimated*. Pass characters where bytes are not at hand.
    """
    return -(-max(size, 0) // BYTES_PER_TOKEN)


def believable(count: object) -> int | None:
    """`count` if it is a whole number an upstream may name (0 … MAX_TOKENS), else None (M2)."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_TOKENS:
        return None
    return count


def tidy(usage: Usage) -> Usage:
    """`usage` with unbelievable counts as unknown, and a missing side filled in from the total."""
    counts = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    prompt, completion, total, cached, written, reasoning = counts
    if prompt is not None and completion is not None:
        for count in counts:
            if count is not None and (type(count) is not int or not 0 <= count <= MAX_TOKENS):
                break
        else:  # as nearly always: nothing to change
            return usage
    prompt, completion, total, cached, written, reasoning = map(believable, counts)
    if total is not None:
        if prompt is None and completion is not None and total >= completion:
            prompt = total - completion
        elif completion is None and prompt is not None and total >= prompt:
            completion = total - prompt
    return replace(
        usage,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def cost_of(
    usage: Usage,
    prices: Prices,
    *,
    is_token_priced: bool = True,
    kind: str = "known",
    rules: Iterable[Mapping[str, Any]] = (),
    at: datetime | None = None,
    is_estimated: bool = False,
) -> Cost:
    """What an attempt that used `usage` cost.

    `prices`: PRICE_KEYS → USD per 1M tokens (`request`: per call); missing or None is unknown. `kind` is the model's
    PriceKind. `rules` are tiers and time windows, judged by the prompt's size and `at` (an aware datetime).
    `is_estimated` says that the counts in `usage` are our guess. Never raises on what an upstream said. Fees that have
    no count in `usage` (web searches, images) are only in the provider's own figure.
    """
    named = named_cost(usage.cost)
    if named is not None:
        return Cost(named, CostSource.PROVIDER.value)
    if not is_token_priced or kind == "variable":
        return UNKNOWN
    # A list price is what the model's maker asks in public: what this seller asks, nobody told us.
    source = (CostSource.ESTIMATED if is_estimated or kind == "list" else CostSource.COMPUTED).value
    if kind == "free":
        return NOTHING
    counted = tidy(usage)
    if counted.prompt_tokens is None or counted.completion_tokens is None:
        return UNKNOWN
    current = in_force(prices, rules, prompt_tokens=counted.prompt_tokens, at=at)
    exact = 0
    for tokens, price in _parts(counted, current):
        if not tokens:
            continue
        units = _units(price)
        if units is None:
            return UNKNOWN
        exact += tokens * units
    exact += MILLION * (_units(current.get("request")) or 0)
    pico = _round_half_even(exact, MILLION)
    return UNKNOWN if pico > MAX_CALL_PICO else Cost.of_pico(pico, source)


def saved_by_cache(
    usage: Usage,
    prices: Prices,
    *,
    rules: Iterable[Mapping[str, Any]] = (),
    at: datetime | None = None,
) -> int:
    """10⁻¹² USD that the cached tokens would have cost more at the input price; 0 where a price is unknown."""
    counted = tidy(usage)
    current = in_force(prices, rules, prompt_tokens=counted.prompt_tokens or 0, at=at)
    full, cached = _units(current.get("input")), _units(current.get("cache_read"))
    if full is None or cached is None or cached >= full or not counted.cached_tokens:
        return 0
    tokens = min(counted.cached_tokens, counted.prompt_tokens or 0)
    return min(_round_half_even(tokens * (full - cached), MILLION), MAX_CALL_PICO)


def _parts(usage: Usage, prices: Prices) -> list[tuple[int, Price]]:
    """(tokens, price) of each kind; cached and cache-write tokens lie inside the prompt, reasoning in the answer."""
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = min(usage.cached_tokens or 0, prompt)
    written = min(usage.cache_write_tokens or 0, prompt - cached)
    full, output = prices.get("input"), prices.get("output")
    cache_read, cache_write = prices.get("cache_read"), prices.get("cache_write")
    reasoning_price = prices.get("reasoning")
    # Old lists say "internal_reasoning": "0" for "not priced apart" (upstreams.md §2.2): thinking is never free.
    reasoning = min(usage.reasoning_tokens or 0, completion) if _units(reasoning_price) else 0
    return [
        (prompt - cached - written, full),
        (cached, full if cache_read is None else cache_read),
        (written, full if cache_write is None else cache_write),
        (completion - reasoning, output),
        (reasoning, reasoning_price),
    ]


def in_force(
    prices: Prices,
    rules: Iterable[Mapping[str, Any]],
    *,
    prompt_tokens: int,
    at: datetime | None = None,
) -> dict[str, Price]:
    """`prices` with every rule applied that holds for this call; later rules win.

    A rule holds when the prompt has strictly more than `min_prompt_tokens` tokens and `at` lies in the UTC window
    [`utc_start`, `utc_end`) given as HHMM, which may pass midnight. Its other keys are prices that replace ours.
    """
    current = {key: prices.get(key) for key in PRICE_KEYS}
    for rule in rules:
        if not isinstance(rule, Mapping) or not _holds(rule, prompt_tokens, at):
            continue
        for key in PRICE_KEYS:
            if key in rule and _units(rule[key]) is not None:
                current[key] = rule[key]
    return current


def _holds(rule: Mapping[str, Any], prompt_tokens: int, at: datetime | None) -> bool:
    if (floor := rule.get("min_prompt_tokens")) is not None:
        least = _units(str(floor))
        if least is None or prompt_tokens * PICO <= least:
            return False
    if "utc_start" not in rule and "utc_end" not in rule:
        return True
    start, end = _minutes(rule.get("utc_start", 0)), _minutes(rule.get("utc_end", 2400))
    if at is None or start is None or end is None:
        return False
    moment = at.astimezone(UTC)
    now = moment.hour * 60 + moment.minute
    return start <= now < end if start <= end else now >= start or now < end


def _minutes(hhmm: object) -> int | None:
    """Minutes since midnight of 930, "0930" or "09:30"; None if it is no time of day (2400 is the day's end)."""
    try:
        number = int(str(hhmm).replace(":", ""))
    except ValueError:
        return None
    hours, minutes = divmod(number, 100)
    return hours * 60 + minutes if 0 <= hours <= 24 and 0 <= minutes < 60 and number <= 2400 else None


def named_cost(cost: object) -> Decimal | None:
    """The provider's own figure if it can be one: finite, 0 ≤ x ≤ MAX_CALL_USD; rounded to what we store."""
    if not isinstance(cost, Decimal) or not cost.is_finite() or cost < 0 or cost > MAX_CALL_USD:
        return None
    return from_pico(to_pico(cost))


def _units(price: object) -> int | None:
    """A price in 10⁻¹² USD per 1M tokens; None if it is unknown or no price."""
    if type(price) is str:
        return _units_of_text(price)
    if price is None or isinstance(price, bool | float):
        return None
    try:
        value = Decimal(price)  # type: ignore[arg-type]
    except (ArithmeticError, TypeError, ValueError):
        return None
    return to_pico(value) if value.is_finite() and 0 <= value <= MAX_USD else None


@functools.lru_cache(maxsize=4096)
def _units_of_text(price: str) -> int | None:
    """Snapshots hold the same few thousand texts again and again."""
    try:
        return _units(Decimal(price))
    except ArithmeticError:
        return None


def _round_half_even(numerator: int, denominator: int) -> int:
    """numerator ÷ denominator for non-negative integers, halves to even."""
    whole, rest = divmod(numerator, denominator)
    doubled = 2 * rest
    return whole + 1 if doubled > denominator or (doubled == denominator and whole % 2) else whole


# -- What is noted before the call -----------------------------------------------------------------------------------

Tariff = tuple[int, int, int, int, int, int]
"""10⁻¹² USD per 1M tokens (the last: per call): input, output, cache read, cache write, reasoning or 0, request."""


class Snapshot(dict[str, Any]):
    """Prices as `snapshot` noted them; nobody changes them. `/v1` makes one per route, not one per call.

    It also keeps what every call on the route needs and nobody should work out twice: its own JSON, and, if they are
    as plain as nearly all price lists are, its prices as integers.
    """

    __slots__ = ("tariff", "text")

    def __init__(self, noted: Mapping[str, Any]) -> None:
        super().__init__(noted)
        self.text = json.dumps(self)
        self.tariff = _tariff(self)


def _tariff(noted: Mapping[str, Any]) -> Tariff | None:
    """The prices of a token-priced model without rules; None wherever `cost_of` must look closer."""
    is_plain = noted.get("kind", "known") in ("known", "unknown") and not noted.get("rules")
    if not is_plain or noted.get("type", "unknown") not in TOKEN_PRICED:
        return None
    units = {key: _units(noted[key]) for key in PRICE_KEYS if noted.get(key) is not None}
    full, output = units.get("input"), units.get("output")
    cached, written = units.get("cache_read", full), units.get("cache_write", full)
    if full is None or output is None or cached is None or written is None:
        return None
    return full, output, cached, written, units.get("reasoning") or 0, units.get("request") or 0


def snapshot(model: AggregatorModel) -> Snapshot:
    """The prices of `model` now, as JSON of strings: later price changes do not touch calls under way (F14).

    `{"kind": "known", "type": "chat", "input": "0.27", "output": "0.4", "rules": [{"min_prompt_tokens": "272000", …}]}`
    where unknown prices are left out; `"origin": "by_hand"` where the user, or staff, entered them.
    """
    noted: dict[str, Any] = {"kind": str(model.price_kind), "type": str(model.model_type)}
    if model.origins.get("prices") == "by_hand":
        noted["origin"] = "by_hand"
    for key in PRICE_KEYS:
        price = getattr(model, f"price_{key}")
        if price is not None:
            noted[key] = format(from_pico(to_pico(price)), "f")
    rules = [{str(k): str(v) for k, v in rule.items()} for rule in model.pricing_rules or [] if isinstance(rule, dict)]
    return Snapshot({**noted, "rules": rules} if rules else noted)


def cost_by_snapshot(
    usage: Usage, noted: Mapping[str, Any], *, at: datetime | None = None, is_estimated: bool = False
) -> Cost:
    """`cost_of` with the prices `snapshot` noted before the call."""
    if usage.cost is None and type(noted) is Snapshot and noted.tariff is not None:
        return _cost_by_tariff(tidy(usage), noted.tariff, is_estimated=is_estimated)
    return cost_of(
        usage,
        noted,
        is_token_priced=noted.get("type", "unknown") in TOKEN_PRICED or noted.get("origin") == "by_hand",
        kind=str(noted.get("kind", "known")),
        rules=noted.get("rules", ()),
        at=at,
        is_estimated=is_estimated,
    )


def _cost_by_tariff(counted: Usage, tariff: Tariff, *, is_estimated: bool) -> Cost:
    """What `cost_of` says of a tidy usage and plain prices, at a tenth of the work; a test compares the two."""
    prompt, completion = counted.prompt_tokens, counted.completion_tokens
    if prompt is None or completion is None:
        return UNKNOWN
    full, output, cached_price, written_price, reasoning_price, request = tariff
    exact = prompt * full + completion * output + MILLION * request
    if counted.cached_tokens or counted.cache_write_tokens:  # they lie inside the prompt
        cached = min(counted.cached_tokens or 0, prompt)
        written = min(counted.cache_write_tokens or 0, prompt - cached)
        exact += cached * (cached_price - full) + written * (written_price - full)
    if reasoning_price and counted.reasoning_tokens:  # inside the answer
        exact += min(counted.reasoning_tokens, completion) * (reasoning_price - output)
    pico = _round_half_even(exact, MILLION)
    if pico > MAX_CALL_PICO:
        return UNKNOWN
    return Cost.of_pico(pico, _ESTIMATED if is_estimated else _COMPUTED)


def saved_by_tariff(prompt: int, cached: int, tariff: Tariff) -> int:
    """What `saved_by_cache` says of tidy counts and plain prices."""
    full, cached_price = tariff[0], tariff[2]
    if cached_price >= full:
        return 0
    return min(_round_half_even(min(cached, prompt) * (full - cached_price), MILLION), MAX_CALL_PICO)


_ESTIMATED, _COMPUTED = CostSource.ESTIMATED.value, CostSource.COMPUTED.value
