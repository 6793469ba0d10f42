"""Models as CSV. No cell can begin a formula when a spreadsheet opens the file (K7), and nothing secret is in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from decimal import Decimal

from catalog.listing import Row

MOST_ROWS = 20_000
"""Rows of one file: twice the largest catalogs known."""

HEADINGS = (
    "model", "name", "provider", "accounts", "type", "context_tokens", "max_output_tokens", "price_kind",
    "usd_per_1m_input", "usd_per_1m_cached_input", "usd_per_1m_output", "can_do", "since", "retires",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def safe_cell(text: str) -> str:
    """`text` so that a spreadsheet reads it as text: one that would begin a formula gets an apostrophe before it."""
    return f"'{text}" if text.lstrip(" \u00a0").startswith(_FORMULA) else text


def csv_of(rows: Iterable[Row]) -> str:
    """One line per model and provider, with the user's accounts that offer it."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\r\n")
    table.writerow(HEADINGS)
    for row in rows:
        sellers = {offer.model.pk: offer.model for offer in row.sellers}
        for model in sellers.values():
            labels = [offer.account.label for offer in row.sellers if offer.model.pk == model.pk]
            table.writerow(
                safe_cell(cell)
                for cell in (
                    model.model_id,
                    model.name,
                    model.provider_name,
                    "; ".join(labels),
                    model.model_type,
                    str(model.context_window or ""),
                    str(model.max_output_tokens or ""),
                    model.price_kind,
                    _plain(model.price_input),
                    _plain(model.price_cache_read),
                    _plain(model.price_output),
                    " ".join(model.abilities),
                    model.since.isoformat(),
                    model.retires_at.isoformat() if model.retires_at else "",
                )
            )
    return written.getvalue()


def _plain(price: Decimal | None) -> str:
    return "" if price is None else format(price, "f")
