"""What is on the shelf: the models, their prices, and the lists a bad day would bring (F13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

CREATED = 1_767_225_600  # 2026-01-01, the same for all: a list that does not change must not look changed


@dataclass(frozen=True, slots=True)
class Model:
    """One model. Prices are USD per token as text, the way aggregators write them; None is not named."""

    id: str
    name: str
    description: str
    prompt: str | None = "0.0000005"
    completion: str | None = "0.0000015"
    cache_read: str | None = None
    context: int = 128_000
    max_output: int = 16_384
    parameters: tuple[str, ...] = ("temperature", "max_tokens", "stop")
    inputs: tuple[str, ...] = ("text",)
    bills: bool = False
    """Whether the answer's usage names the cost in USD."""
    refuses: tuple[str, ...] = ()
    """What a request may not hold: "pictures", "tools", "response_format"."""

    def row(self) -> dict[str, Any]:
        """The row of GET /v1/models."""
        row: dict[str, Any] = {
            "id": self.id,
            "object": "model",
            "created": CREATED,
            "owned_by": "sandbox",
            "name": self.name,
            "description": self.description,
            "context_length": self.context,
            "architecture": {"input_modalities": list(self.inputs), "output_modalities": ["text"]},
            "top_provider": {"context_length": self.context, "max_completion_tokens": self.max_output},
            "supported_parameters": list(self.parameters),
        }
        if self.prompt is not None:
            row["pricing"] = {"prompt": self.prompt, "completion": self.completion}
            if self.cache_read is not None:
                row["pricing"]["input_cache_read"] = self.cache_read
        return row

    def cost(self, prompt: int, completion: int, cached: int) -> Decimal | None:
        """What these tokens cost in USD by the listed prices; None when there are none."""
        if self.prompt is None or self.completion is None:
            return None
        read = Decimal(self.cache_read) if self.cache_read else Decimal(self.prompt)
        return (prompt - cached) * Decimal(self.prompt) + cached * read + completion * Decimal(self.completion)


_ALL = ("temperature", "max_tokens", "stop", "tools", "tool_choice")

MODELS: dict[str, Model] = {
    model.id: model
    for model in (
        Model(
            "markdown",
            "Writer",
            "Answers in a few paragraphs of Markdown about what you wrote. A good first model to try.",
            cache_read="0.00000005",
            inputs=("text", "image"),
        ),
        Model(
            "reasoning",
            "Thinker",
            "Thinks aloud first, then answers, so you can see how reasoning is shown and counted.",
            "0.000002",
            "0.000008",
            "0.0000005",
            parameters=(*_ALL[:3], "reasoning", "include_reasoning"),
        ),
        Model("code", "Coder", "Answers with code in several languages.", "0.0000002", "0.0000008"),
        Model("table", "Tables", "Answers with tables of numbers.", "0.0000001", "0.0000004"),
        Model("math", "Mathematician", "Answers with formulas, in line and on their own.", "0.000001", "0.000004"),
        Model(
            "tools",
            "Tool caller",
            "Calls the first tool you offer, then reports what the tool said. Without tools it says so.",
            "0.000001",
            "0.000003",
            parameters=_ALL,
        ),
        Model("slow", "Slow writer", "Takes its time: 50 ms between pieces, to watch an answer stream or to stop it."),
        Model(
            "long",
            "Long writer",
            "Writes about 100 kB, to see how a very long answer behaves.",
            "0.0000001",
            "0.0000002",
            max_output=65_536,
        ),
        Model("echo", "Echo", "Repeats your last message letter for letter.", "0.0000001", "0.0000001", context=8_192),
        Model("free", "Free writer", "Costs nothing.", "0", "0", context=32_000),
        Model(
            "billed",
            "Billed writer",
            "Names its own cost in every answer, a tenth above its listed prices, as some providers do.",
            "0.000003",
            "0.000015",
            "0.0000003",
            bills=True,
        ),
        Model(
            "able",
            "All-rounder",
            "Sees the colours of a picture, calls tools and writes JSON when asked to: for trying what a model can do.",
            parameters=(*_ALL, "response_format"),
            inputs=("text", "image"),
        ),
        Model(
            "plain",
            "Plain writer",
            "Refuses pictures, tools and JSON mode, as small models do.",
            "0.0000001",
            "0.0000002",
            refuses=("pictures", "tools", "response_format"),
        ),
        Model("unpriced", "Unpriced writer", "Names no price, so its cost is shown as unknown.", None, None),
    )
}


def rows(*, faults: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The list new users see; with `faults`, those ids too, as models that name no price."""
    return [model.row() for model in MODELS.values()] + [
        Model(fault, fault, "Misbehaves on purpose.", None, None).row() for fault in faults
    ]


def _odd_prices() -> list[Any]:
    odd: tuple[Any, ...] = (
        "-1",
        "-0.5",
        "NaN",
        "Infinity",
        "1e400",
        "free",
        "",
        0.000001,
        -3,
        True,
        None,
        [],
        {"usd": 1},
        "1e-30",
    )
    found = []
    for number, price in enumerate(odd):
        row = Model(f"odd-price-{number}", f"Odd price {number}", "").row()
        row["pricing"] = {"prompt": price, "completion": price}
        found.append(row)
    return found + rows()


def _wrong_types() -> list[Any]:
    return [
        None,
        7,
        "a-bare-string",
        [],
        {},
        {"id": None},
        {"id": 5},
        {"id": ""},
        {"id": "x" * 5000},
        {"id": "control\x00\x1b[31m"},
        {"id": "types", "context_length": "many", "pricing": [], "architecture": "text", "supported_parameters": 3},
        {"id": "negative", "context_length": -5, "top_provider": {"max_completion_tokens": 1e300}},
        *rows(),
    ]


LISTS: dict[str, Callable[[], list[Any]]] = {
    "normal": rows,
    "empty": list,
    "halved": lambda: rows()[: len(MODELS) // 2],
    "duplicate": lambda: rows() + rows(),
    "huge": lambda: [Model(f"bulk-{n}", f"Bulk {n}", "One of very many. " * 20).row() for n in range(20_000)],
    "wrong-types": _wrong_types,
    "odd-prices": _odd_prices,
    "one-removed": lambda: [row for row in rows() if row["id"] != "echo"],
    "repriced": lambda: [
        {**row, "pricing": {"prompt": "0.00001", "completion": "0.00002"}} if row["id"] == "echo" else row
        for row in rows()
    ],
}
