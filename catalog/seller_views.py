"""The same model from several sellers: a piece of a model's page, also under its own address."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from catalog import grouping
from catalog.models import AggregatorModel
from usage import reports


def sellers_of(request: HttpRequest, model: AggregatorModel) -> grouping.Offers:
    """What catalog/_other_sellers.html wants as `sellers`. Two queries."""
    return grouping.offers(request.user, model, record=reports.records(request.user))


@require_GET
@never_cache
def model_sellers(request: HttpRequest, pk: int) -> HttpResponse:
    """The piece alone, for pages that fetch it."""
    model = get_object_or_404(AggregatorModel.objects.for_user(request.user).select_related("provider"), pk=pk)
    return render(request, "catalog/_other_sellers.html", {"model": model, "sellers": sellers_of(request, model)})
