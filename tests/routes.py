"""Every way in: the URLconf, walked, and the hot table. The authorisation matrix and the header crawl read this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver


def walk(patterns: Any = None, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    """(route, pattern) of every page, such as ("c/<uuid:pk>/", …); admin and sign-in included."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from walk(one.url_patterns, route)
        else:
            yield route, one


def path_of(route: str, value: object = "") -> str:
    """The address of `route` with `value` in its one placeholder."""
    return "/" + re.sub(r"<[^>]+>", str(value), route)
