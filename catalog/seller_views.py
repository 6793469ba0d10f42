"""Your accounts that offer a model, and the same model elsewhere: a piece of its page, also under its own address."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from catalog import grouping
from catalog.models import AccountModel, AggregatorModel
from providers.models import ProviderAccount
from usage import reports


def sellers_of(request: HttpRequest, model: AggregatorModel) -> dict[str, Any]:
    """What catalog/_other_sellers.html wants. Four queries.

    `sellers` are all offers of the model's group that can be called; `accounts` are all accounts that list the model,
    and `uncalled` those of them that take no call now.
    """
    sellers = grouping.offers(request.user, model, record=reports.records(request.user))
    listing = AccountModel.objects.for_user(request.user).filter(model=model).select_related("account__provider")
    accounts = sorted((offer.account for offer in listing), key=lambda one: (one.is_resting, one.priority, one.label))
    shown = {offer.account.pk for offer in sellers.rows if offer.model.pk == model.pk}
    return {
        "sellers": sellers,
        "is_compared": any(offer.model.pk != model.pk for offer in sellers.rows),
        "accounts": accounts,
        "uncalled": [account for account in accounts if account.pk not in shown],
        "has_accounts": bool(accounts) or ProviderAccount.objects.for_user(request.user).exists(),
    }


@require_GET
@never_cache
def model_sellers(request: HttpRequest, pk: int) -> HttpResponse:
    """The piece alone, for pages that fetch it."""
    model = get_object_or_404(AggregatorModel.objects.for_user(request.user).select_related("provider"), pk=pk)
    return render(request, "catalog/_other_sellers.html", {"model": model, **sellers_of(request, model)})
