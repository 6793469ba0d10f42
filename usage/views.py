"""The usage page: what was spent, where it went, and every attempt."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from catalog.models import AggregatorModel
from providers.models import ProviderAccount
from usage import charts, reports


@require_safe
@never_cache
def usage_list(request: HttpRequest) -> HttpResponse:
    """The page, or with htmx and `before` only the next rows of its list."""
    span = reports.period(request.GET.get("period", "30"))
    before = request.GET.get("before", "")
    try:
        attempts, older = reports.rows(request.user, span, before=before)
    except reports.BadCursor:
        return HttpResponseBadRequest("That place in the list does not exist.", content_type="text/plain")
    context = {"period": span, "attempts": attempts, "older": older, "before": before}
    models = AggregatorModel.objects.for_user(request.user).filter(pk__in={row.model_pk for row in attempts})
    context["models"] = set(models.values_list("pk", flat=True))
    if before and request.headers.get("hx-request") == "true":
        return render(request, "usage/usage_list.html#attempts", context)
    summary = reports.summary(request.user, span)
    has_rest = len(summary.legend) > reports.NAMED_MODELS
    context |= {
        "summary": summary,
        "periods": [(key, label) for key, (label, _) in reports.PERIODS.items()],
        "chart": charts.bars(summary.days, has_rest=has_rest, whole=summary.measure == "calls")
        if span.days > 1
        else None,
        "legend": [
            (5 if has_rest and n == len(summary.legend) else n, name) for n, name in enumerate(summary.legend, 1)
        ],
        "has_accounts": bool(summary.attempts) or ProviderAccount.objects.for_user(request.user).exists(),
    }
    return render(request, "usage/usage_list.html", context)
