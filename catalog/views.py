"""Pages of the catalog: the selector's dialog, the list of models, how a sync is going. They only read."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from catalog import search
from catalog.models import SyncRun
from providers.models import ProviderAccount

SELECTOR_ROWS = 50
PAGE_ROWS = 100
MAX_OFFSET = 1_000_000

CHIPS = (
    ("chat", "Chat"),
    ("vision", "Vision"),
    ("tools", "Tools"),
    ("reasoning", "Reasoning"),
    ("long", "≥ 128k"),
    ("free", "Free"),
)
"""(name in the form and in search.Filters, what the chip says)."""


@require_GET
@never_cache
def model_select(request: HttpRequest) -> HttpResponse:
    """The selector: the whole dialog, or with `?q=` the rows that match. Chat models only, until that chip is off."""
    is_update = "q" in request.GET
    asked = request.GET if is_update else QueryDict("chat=on")
    context = _found(request, asked, limit=SELECTOR_ROWS)
    if is_update:
        return render(request, "catalog/model_select.html#rows", {**context, "is_update": True})
    return render(request, "catalog/model_select.html", {**context, "synced_at": _last_synced_at(request)})


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def model_list(request: HttpRequest) -> HttpResponse:
    """Every model the user may call, searched and filtered by the address; htmx gets the table alone."""
    context = _found(request, request.GET, limit=PAGE_ROWS)
    if request.htmx and not request.htmx.boosted:  # type: ignore[attr-defined]
        return render(request, "catalog/model_list.html#models", context)
    return render(request, "catalog/model_list.html", {**context, "synced": _accounts_with_runs(request)})


@require_GET
@never_cache
def sync_status(request: HttpRequest, pk: UUID) -> HttpResponse:
    """How one sync is going. The piece asks for itself each second while the run is open, and says when it is over."""
    run = get_object_or_404(SyncRun.objects.for_user(request.user).select_related("account"), pk=pk)
    response = render(request, "catalog/sync_status.html", {"run": run})
    if not run.is_open:
        response["HX-Trigger"] = "sync-finished"
    return response


def _found(request: HttpRequest, asked: QueryDict, *, limit: int) -> dict[str, Any]:
    """What both pages show for the question `asked`."""
    query = asked.get("q", "")[: search.MAX_QUERY]
    accounts = search.accounts_of(request.user)
    chosen = next((account.pk for account in accounts if str(account.pk) == asked.get("account")), None)
    on = {name for name, _ in CHIPS if asked.get(name)}
    filters = search.Filters(**dict.fromkeys(on, True), account=chosen)
    offset = _offset(asked.get("offset", ""), limit)
    results = search.search(request.user, query, limit=limit, offset=offset, filters=filters)
    after = offset + len(results.rows)
    return {
        "query": query,
        "accounts": accounts,
        "chosen_account": chosen,
        "chips": [(name, label, name in on) for name, label in CHIPS],
        "results": results,
        "first": offset + 1,
        "last": after,
        "previous": _page(asked, max(0, offset - limit)) if offset else "",
        "next": _page(asked, after) if after < results.total else "",
    }


def _offset(text: str, limit: int) -> int:
    """A multiple of `limit`; 0 for anything that is not a number we count to."""
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        return 0
    return min(int(text), MAX_OFFSET) // limit * limit


def _page(asked: QueryDict, offset: int) -> str:
    """The query string of another page of the same question."""
    kept = {name: asked[name] for name in ("q", "account", *(name for name, _ in CHIPS)) if asked.get(name)}
    return "?" + urlencode({**kept, "offset": offset} if offset else kept)


def _accounts_with_runs(request: HttpRequest) -> list[ProviderAccount]:
    """The user's accounts, each with `last_run`: its open run, or how the last one ended."""
    runs = SyncRun.objects.filter(account=OuterRef("pk")).order_by("-queued_at").values("pk")[:1]
    accounts: list[Any] = list(
        ProviderAccount.objects.for_user(request.user)
        .filter(is_active=True)
        .select_related("provider")
        .annotate(last_run_id=Subquery(runs))
    )
    found = SyncRun.objects.in_bulk([account.last_run_id for account in accounts if account.last_run_id])
    for account in accounts:
        account.last_run = found.get(account.last_run_id)
    return accounts


def _last_synced_at(request: HttpRequest) -> Any:
    """When one of the user's lists was last found right."""
    runs = SyncRun.objects.for_user(request.user).applied().order_by("-queued_at")
    return runs.values_list("finished_at", flat=True).first()
