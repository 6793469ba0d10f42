"""What htmx says of the page behind a request. It is a header, so anything may stand in it (P1, I21)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def path_behind(request: Any) -> str:
    """The path of the page on which htmx made this request; "" where it says none, or nonsense."""
    htmx = getattr(request, "htmx", None)
    try:
        return urlsplit(htmx.current_url or "").path if htmx is not None else ""
    except ValueError:
        return ""
