"""Notices: what happened to models the reader uses. Reading them is theirs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from usage.models import Notice

if TYPE_CHECKING:
    from django_htmx.middleware import HtmxDetails

    from providers.models import AnyUser

    class Request(HttpRequest):
        """What our middleware makes of a request."""

        htmx: HtmxDetails


ROWS = 40


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def notice_list(request: Request) -> HttpResponse:
    """The reader's notices, newest first; with htmx and `before` only the next rows."""
    before = _key(request.GET.get("before", ""))
    context = _page(request.user, before)
    if before is not None and request.htmx:
        return render(request, "usage/notice_list.html#rows", context)
    return render(request, "usage/notice_list.html", context)


@require_POST
@never_cache
def notice_read(request: Request, pk: int) -> HttpResponse:
    """Mark one as read; htmx gets its row, and the count in the sidebar."""
    notice = get_object_or_404(Notice.objects.for_user(request.user).select_related("model__provider"), pk=pk)
    notice.mark_read()
    if request.htmx:
        return render(request, "usage/notice_list.html#row", {"notice": notice, "is_update": True})
    return redirect("notices:notice-list")


@require_POST
@never_cache
def notices_read(request: Request) -> HttpResponse:
    """Mark as read what the page showed as the newest and all before it: what came meanwhile stays unread."""
    until = _key(request.POST.get("until", ""))
    unread = Notice.objects.for_user(request.user).unread()
    if until is not None:
        unread.filter(pk__lte=until).update(read_at=timezone.now())
    if request.htmx:
        return render(request, "usage/notice_list.html#notices", {**_page(request.user, None), "is_update": True})
    return redirect("notices:notice-list")


def _page(user: AnyUser, before: int | None) -> dict[str, Any]:
    found = Notice.objects.for_user(user).select_related("model__provider")
    if before is not None:
        found = found.filter(pk__lt=before)
    rows = list(found.order_by("-pk")[: ROWS + 1])
    older = "?" + urlencode({"before": rows[ROWS - 1].pk}) if len(rows) > ROWS else ""
    return {
        "notices": rows[:ROWS],
        "older": older,
        "before": before,
        "unread": Notice.objects.for_user(user).unread().count(),
    }


def _key(text: str) -> int | None:
    """The key of a row; None for anything that is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
