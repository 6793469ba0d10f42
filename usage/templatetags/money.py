"""How money, prices, token counts and durations look on every page: `{% load money %}`.

Pure functions over Decimal and int; none of them ever prints a float or scientific notation.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, ROUND_UP, Context, Decimal, InvalidOperation

from django import template

register = template.Library()

_CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_UP = Context(prec=60, rounding=ROUND_UP)


def _decimal(value: object) -> Decimal | None:
    """The finite Decimal of `value`; None for None, "", NaN, infinities and what is not a number."""
    if value is None or value == "" or isinstance(value, bool | float):
        return None
    try:
        number = Decimal(value)  # type: ignore[arg-type]
    except (InvalidOperation, TypeError, ValueError):
        return None
    return number if number.is_finite() else None


def _round(value: Decimal, decimals: int, context: Context = _CONTEXT) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-decimals), context=context)


def _plain(value: Decimal, *, significant: int, at_least: int = 2, context: Context = _CONTEXT) -> str:
    """`value` ≥ 0 to `significant` digits, trailing zeros cut, but never fewer than `at_least` decimals."""
    decimals = max(at_least, significant - 1 - value.adjusted())
    text = f"{_round(value, decimals, context):,f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(at_least, '0')}" if at_least or fraction.rstrip("0") else whole


@register.filter
def usd(value: object, zero: str = "free") -> str:
    """An amount of USD with the precision it deserves: $0.00042, $0.0061, $0.0124, $0.31, $12.34, $1,234.50.

    Two significant digits below a cent, three below ten cents, cents above. None is "unknown", which is not
    zero. Exactly 0 is "free": a call that cost nothing. For sums, where "free" would be odd, write
    `|usd:"$0.00"`: the argument is the text for 0. Negative amounts (savings) start with "−".
    """
    return _usd(value, zero, _CONTEXT)


@register.filter
def usd_at_most(value: object) -> str:
    """As `usd`, rounded up: what "at most" stands before must not be less than the amount."""
    return _usd(value, "free", _UP)


def _usd(value: object, zero: str, context: Context) -> str:
    amount = _decimal(value)
    if amount is None:
        return "unknown"
    if amount == 0:
        return zero
    sign, amount = ("−" if amount < 0 else ""), abs(amount)
    if amount < Decimal("0.01"):
        return f"{sign}${_plain(amount, significant=2, context=context)}"
    if amount < Decimal("0.1"):
        return f"{sign}${_plain(amount, significant=3, context=context)}"
    return f"{sign}${_round(amount, 2, context):,f}"


@register.filter
def per_million(value: object) -> str:
    """A price in USD per 1M tokens: $0.27, $15.00, $0.075, $1.0001; "free" for 0, "unknown" for None.

    Prices are compared, so up to four significant digits stay (more before the point), never fewer than cents.
    """
    price = _decimal(value)
    if price is None or price < 0:
        return "unknown"
    if price == 0:
        return "free"
    return f"${_plain(price, significant=4)}"


@register.filter
def tokens(value: object) -> str:
    """A count of tokens: 950, 1.2k, 18k, 128k, 1M, 1.05M, 14.8M; "–" for unknown.

    Thousands are decimal: a context of 131,072 is 131k.
    """
    count = _decimal(value)
    if count is None or count < 0:
        return "–"
    # Rounded before the unit is chosen, so that 999,950 is "1M" and not "1000k".
    if count < Decimal("999.5"):
        return f"{_round(count, 0):f}"
    if count < 999_500:
        return _short(count / 1000, below_ten=1, below_hundred=0) + "k"
    if count < 999_500_000:
        return _short(count / 10**6, below_ten=2, below_hundred=1) + "M"
    return _short(count / 10**9, below_ten=2, below_hundred=1) + "B"


def _short(scaled: Decimal, *, below_ten: int, below_hundred: int) -> str:
    decimals = below_ten if scaled < 10 else below_hundred if scaled < 100 else 0
    text = f"{_round(scaled, decimals):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@register.filter
def milliseconds(value: object) -> str:
    """A duration given in milliseconds: 0.8 s, 12 s, 2 min 5 s; up to 50 ms "45 ms"; "–" for unknown."""
    number = _decimal(value)
    if number is None or number < 0:
        return "–"
    if number <= 50:  # 0.05 s would round to 0.0
        return f"{_round(number, 0):f} ms"
    seconds = number / 1000
    if seconds < Decimal("9.95"):
        return f"{_round(seconds, 1):f} s"
    whole = int(_round(seconds, 0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
