"""A price over time as a plot: pygal works the geometry out, the page's template writes it.

What pygal draws goes through an allow-list: shapes, their coordinates and class names. Its styles, scripts, comments
and tooltips stay behind (the page's policy refuses them, X8), the colours come from static/css/history.css, so that
both themes work, and every value is escaped by the template like any other text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

WIDTH, HEIGHT = 420, 190
_ATTRIBUTES = {
    "g": ("transform", "class"),
    "path": ("d", "class"),
    "text": ("x", "y", "class"),
}
"""Element → its attributes that are kept. Whatever is not named here is left out, with all that is inside it."""

_LEFT_OUT = frozenset({"titles", "overlay", "text-overlay", "tooltip-overlay"})
_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))


@dataclass(frozen=True, slots=True)
class Piece:
    """An opening tag with the text after it, or a closing tag."""

    tag: str
    attributes: tuple[tuple[str, str], ...] = ()
    text: str = ""
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    pieces: tuple[Piece, ...]
    width: int = WIDTH
    height: int = HEIGHT


def draw(
    points: Sequence[tuple[datetime, Decimal | None]],
    until: datetime,
    *,
    price_text: Callable[[Decimal], str],
    date_text: Callable[[datetime], str],
) -> Plot:
    """Steps from the first point until `until`; gaps where the price is unknown. Axes begin at zero."""
    import pygal  # half a megabyte that only this page needs

    start, end = _seconds(points[0][0]), _seconds(until)
    end = max(end, start + 1)
    most = max((price for _, price in points if price is not None), default=Decimal(0))
    marks = _marks(most)
    chart = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        margin=4,
        margin_right=30,
        margin_top=10,
        spacing=8,
        show_legend=False,
        show_dots=False,
        show_x_guides=False,
        js=(),
        css=(),
        no_prefix=True,
        truncate_label=-1,
        include_x_axis=True,
        range=(0, float(marks[-1])),
        xrange=(start, end),
        x_labels=[start, (start + end) / 2, end],
        y_labels=[float(mark) for mark in marks],
        x_value_formatter=lambda second: date_text(datetime.fromtimestamp(second, UTC)),
        value_formatter=lambda price: price_text(Decimal(str(price))),
    )
    for line in _lines(points, end):
        chart.add("", line)
    root = chart.render_tree()
    return Plot(tuple(piece for child in root for piece in _pieces(child)))


def _lines(points: Sequence[tuple[datetime, Decimal | None]], end: float) -> Iterator[list[tuple[float, float]]]:
    """Each stretch of known prices as the corners of its steps."""
    line: list[tuple[float, float]] = []
    for (at, price), following in zip(points, [*points[1:], None], strict=True):
        if price is None:
            if line:
                yield line
            line = []
            continue
        until = _seconds(following[0]) if following else end
        line += [(_seconds(at), float(price)), (until, float(price))]
    if line:
        yield line


def _marks(most: Decimal) -> list[Decimal]:
    """Zero and two to four round prices, the last at or above `most`."""
    if most <= 0:
        return [Decimal(0), Decimal(1)]
    rough = most / 3
    power = Decimal(1).scaleb(rough.adjusted())
    step = next(step * power for step in _STEPS if step * power >= rough)
    marks = [Decimal(0)]
    while marks[-1] < most:
        marks.append(marks[-1] + step)
    return marks


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _pieces(element: Any) -> Iterator[Piece]:
    """The allowed parts of pygal's tree, in the order a document has them."""
    kept = _ATTRIBUTES.get(element.tag) if isinstance(element.tag, str) else None
    classes = set(element.get("class", "").split())
    if kept is None or classes & _LEFT_OUT:
        return
    yield Piece(
        element.tag,
        tuple((name, element.get(name)) for name in kept if element.get(name)),
        (element.text or "").strip() if element.tag == "text" else "",
    )
    for child in element:
        yield from _pieces(child)
    yield Piece(element.tag, is_end=True)
