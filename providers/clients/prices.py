"""Sellers' price figures as Decimal USD per 1M tokens. Unknown is None, never 0 (M2).

The unit is the caller's knowledge: identical key names mean USD per token at one seller and per 1M at another
(upstreams.md §3.0). Read lists with `loads()`, which keeps every figure as it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

PER_TOKEN = Decimal(1_000_000)
"""Factor from USD per token to USD per 1M tokens."""

PER_MILLION = Decimal(1)

MAX_PRICE = Decimal(2000)
"""USD per 1M tokens (or per image, call, search). Whatever is above is a unit error."""

_CONTEXT = Context(prec=60)
_NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,60})?|\.\d{1,60})([eE][+-]?\d{1,2})?", re.ASCII)


def refuse_constant(name: str) -> Any:
    """For json's `parse_constant`: NaN and Infinity are no JSON. Raises ValueError."""
    raise ValueError(f"{name} is not JSON")


_exact = json.JSONDecoder(parse_float=Decimal, parse_constant=refuse_constant)
_scan: Callable[[str, int], tuple[Any, int]] = _exact.scan_once  # type: ignore[attr-defined]
_lenient = json.JSONDecoder(parse_float=Decimal, parse_constant=lambda name: None)


def loads(text: bytes | str, *, is_lenient: bool = False) -> Any:
    """JSON with numbers exact: fractions become Decimal. Raises ValueError, also for NaN, Infinity and deep nesting.

    `is_lenient` reads NaN and Infinity as null: Python's own writer makes them of figures nobody knows, and one such
    row must not cost a list all its other ones.
    """
    if not isinstance(text, str):
        text = str(text, "utf-8-sig" if text.startswith(b"\xef\xbb\xbf") else "utf-8")
    try:
        if is_lenient:
            return _lenient.decode(text)
        try:
            found, end = _scan(text, 0)
        except StopIteration:  # no value at the very start
            return _exact.decode(text)
        if end != len(text) and text[end:].strip(" \t\n\r"):
            raise ValueError("something follows the JSON")
        return found
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def number(value: Any) -> Decimal | None:
    """A finite Decimal of a JSON number or a decimal string; None for anything else. A float counts as printed."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, str):
        value = value.strip()
        if len(value) > 110 or not _NUMBER.fullmatch(value):
            return None
    elif not isinstance(value, int | Decimal):
        return None
    if isinstance(value, int) and value.bit_length() > 200:
        return None
    figure = Decimal(value)
    if not figure.is_finite() or (figure and abs(figure.adjusted()) > 60):
        return None
    return figure


def price(value: Any, factor: Decimal = PER_MILLION) -> Decimal | None:
    """`value` × `factor`, if that is 0 to MAX_PRICE; else None, which covers the seller's "-1" too."""
    figure = number(value)
    if figure is None or figure < 0:
        return None
    scaled = _CONTEXT.multiply(figure, factor)
    if scaled > MAX_PRICE:
        return None
    return scaled if scaled else Decimal(0)


def plain(value: Decimal) -> str:
    """Decimal as digits without exponent or trailing zeros, for JSON columns: "0.27", "2"."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_variable(*values: Any) -> bool:
    """Whether one of the figures is the routers' -1: the price depends on the model that answers."""
    return any(number(value) == -1 for value in values)
