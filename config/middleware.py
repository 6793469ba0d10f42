"""What a page says when the database or Redis is away: 503 and when to come back, not a failure of ours (F26, F27)."""

from __future__ import annotations

import logging

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin

log = logging.getLogger(__name__)


def _is_away(exc: Exception) -> bool:
    if isinstance(exc, OperationalError | InterfaceError):
        return True
    # By name: most installations have no Redis, and need not load its client to know that.
    return any(f"{kind.__module__}.{kind.__name__}" == "redis.exceptions.ConnectionError" for kind in type(exc).__mro__)


class Unavailable(MiddlewareMixin):
    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not _is_away(exception):
            return None
        log.error("%s %s: %s", request.method, request.path, type(exception).__name__, exc_info=exception)
        request_id = getattr(request, "scope", {}).get("request_id", "")
        body = render_to_string("503.html", {"request_id": request_id})
        return HttpResponse(body, status=503, headers={"Retry-After": "5"})
