"""Bars per day as plain geometry for an SVG template: numbers only, no markup, no floats from money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from usage.reports import Day

WIDTH, HEIGHT = 720, 150
"""The plot's size in SVG units; labels lie outside (the template's viewBox)."""

_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))


@dataclass(frozen=True, slots=True)
class Bar:
    x: str
    y: str
    width: str
    height: str
    colour: int
    """1 … 5, the CSS class that fills it; the last is "other"."""


@dataclass(frozen=True, slots=True)
class Column:
    """A day: its bars, bottom up, the area that answers to the pointer, and a label under some of them."""

    day: Day
    x: str
    width: str
    bars: tuple[Bar, ...]
    label_at: str
    has_label: bool


@dataclass(frozen=True, slots=True)
class Line:
    y: str
    value: Decimal


@dataclass(frozen=True, slots=True)
class Chart:
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    width: int = WIDTH
    height: int = HEIGHT


def nice_step(most: Decimal) -> Decimal:
    """The distance of two to four grid lines up to `most`: 1, 2, 2.5 or 5 times a power of ten."""
    rough = most / 3
    power = Decimal(1).scaleb(rough.adjusted())
    return next(step * power for step in _STEPS if step * power >= rough)


def bars(days: Sequence[Day], *, has_rest: bool, whole: bool = False) -> Chart:
    """A stacked chart of `days`. `whole`: grid lines at whole numbers only (calls)."""
    most = max((day.total for day in days), default=Decimal(0))
    if not days or most <= 0:
        return Chart((), ())
    step = nice_step(most)
    if whole:
        step = max(Decimal(1), step.to_integral_value(ROUND_CEILING))
    top = max(most, step)
    pitch = Decimal(WIDTH) / len(days)
    gap = min(pitch / 5, Decimal(6))
    every = max(1, -(-len(days) // 5))
    columns = []
    for number, day in enumerate(days):
        left = pitch * number
        stack, base = [], Decimal(HEIGHT)
        for index, part in enumerate(day.parts):
            height = part * HEIGHT / top
            if part <= 0:
                continue
            base -= height
            is_rest = has_rest and index == len(day.parts) - 1
            stack.append(
                Bar(
                    _n(left + gap / 2),
                    _n(base),
                    _n(pitch - gap),
                    _n(max(height, Decimal("0.5"))),
                    5 if is_rest else index + 1,
                )
            )
        columns.append(Column(day, _n(left), _n(pitch), tuple(stack), _n(left + gap / 2), number % every == 0))
    lines = []
    value = Decimal(0)
    while value <= top:
        lines.append(Line(_n(HEIGHT - value * HEIGHT / top), value))
        value += step
    return Chart(tuple(columns), tuple(lines))


def _n(value: Decimal) -> str:
    """A coordinate with at most one decimal, always with a point, whatever the language."""
    return f"{value:.1f}".removesuffix(".0")
