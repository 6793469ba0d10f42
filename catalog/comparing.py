"""Models side by side: the lines of the table, and which figure of each line is the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from catalog.models import AggregatorModel

MOST = 4
"""Models that fit side by side."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one model has in a line, and whether that is better than what another of the line has."""

    model: AggregatorModel
    value: Any
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A label and one cell per model. `kind` says how the values are written: tokens, price, fee (a price that few
    models have), words, date or text."""

    label: str
    kind: str
    cells: Sequence[Cell]


def lines(models: Sequence[AggregatorModel]) -> list[Line]:
    """The lines in which at least one model says something."""
    found = [Line(label, kind, _judged(models, kind, value, better)) for label, kind, value, better in LINES]
    return [line for line in found if any(cell.value not in (None, "", []) for cell in line.cells)]


def _judged(
    models: Sequence[AggregatorModel],
    kind: str,
    value: Callable[[AggregatorModel], Any],
    better: Callable[..., Any] | None,
) -> list[Cell]:
    """A list price is shown and never the best: it is not what this seller asks."""
    values = [value(model) for model in models]
    weighed = [
        None if kind in ("price", "fee") and model.price_kind == AggregatorModel.PriceKind.LIST else value
        for model, value in zip(models, values, strict=True)
    ]
    known = {value for value in weighed if value is not None} if better is not None else set()
    best = better(known) if better is not None and len(known) > 1 else None
    cells = zip(models, values, weighed, strict=True)
    return [Cell(model, value, best is not None and weight == best) for model, value, weight in cells]


def _price(name: str) -> Callable[[AggregatorModel], Decimal | None]:
    return lambda model: getattr(model, f"price_{name}")


def _type(model: AggregatorModel) -> str:
    return model.get_model_type_display()  # type: ignore[attr-defined,no-any-return]


LINES: tuple[tuple[str, str, Callable[[AggregatorModel], Any], Callable[..., Any] | None], ...] = (
    ("Type", "text", _type, None),
    ("Context", "tokens", lambda model: model.context_window, max),
    ("Longest answer", "tokens", lambda model: model.max_output_tokens, max),
    ("Input / 1M", "price", _price("input"), min),
    ("Output / 1M", "price", _price("output"), min),
    ("Cache read / 1M", "fee", _price("cache_read"), min),
    ("Cache write / 1M", "fee", _price("cache_write"), min),
    ("Reasoning / 1M", "fee", _price("reasoning"), min),
    ("Per image", "fee", _price("image"), min),
    ("Per call", "fee", _price("request"), min),
    ("Per web search", "fee", _price("search"), min),
    ("Can do", "words", lambda model: model.capabilities, None),
    ("Reads", "words", lambda model: model.input_modalities, None),
    ("Writes", "words", lambda model: model.output_modalities, None),
    ("Released", "date", lambda model: model.released_at, None),
    ("Retires", "date", lambda model: model.retires_at, None),
    ("Successor", "text", lambda model: model.successor, None),
)
