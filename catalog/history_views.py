"""Pages of history: what changed at the providers of a user's accounts, and one model with all we know of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.formats import date_format
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from catalog import history, price_plot
from catalog.models import AggregatorModel, ChangeSet, FavouriteModel, ModelChange
from catalog.price_views import prices_of
from catalog.probe_views import findings_of
from catalog.seller_views import sellers_of
from providers.models import Provider, ProviderAccount
from usage import reports
from usage.templatetags.money import per_million

MODEL_ENTRIES = 20
"""What happened to a model, on its page; older entries come by a button."""


# -- Changes ---------------------------------------------------------------------------------------------------------


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def change_list(request: HttpRequest) -> HttpResponse:
    """What changed, newest first: sync by sync, or, of the models the user uses, model by model."""
    providers = list(
        Provider.objects.for_user(request.user).filter(
            pk__in=ProviderAccount.objects.for_user(request.user).values("provider_id")
        )
    )
    chosen = next((one.pk for one in providers if str(one.pk) == request.GET.get("provider")), None)
    kind = request.GET.get("kind", "") if request.GET.get("kind") in ModelChange.Kind.values else ""
    is_mine = bool(request.GET.get("mine"))
    before = _key(request.GET.get("before", ""))
    asked = {"provider": chosen or "", "kind": kind, "mine": "on" if is_mine else ""}
    context: dict[str, Any] = {
        "providers": providers,
        "chosen_provider": chosen,
        "kinds": ModelChange.Kind.choices,
        "kind": kind,
        "is_mine": is_mine,
        "before": before,
    }
    if providers:
        mine = reports.models_of(request.user)
        if is_mine:
            models = mine if chosen is None else _sold_by(request, mine, chosen)
            found, older = history.of_models(request.user, models, kind=kind, before=before)
            context |= {"entries": found, "has_models": bool(mine)}
        else:
            at = [chosen] if chosen is not None else [one.pk for one in providers]
            page = history.page(request.user, providers=at, kind=kind, before=before, mine=mine)
            context |= {"headings": page.headings}
            older = page.next
        context["older"] = _address({**asked, "before": older})
    is_part = request.htmx and not request.htmx.boosted  # type: ignore[attr-defined]
    if is_part and before is not None:
        return render(request, "catalog/change_list.html#more", context)
    return render(request, "catalog/change_list.html#changes" if is_part else "catalog/change_list.html", context)


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def change_set(request: HttpRequest, pk: int) -> HttpResponse:
    """The models of one kind under one heading, where they are too many to stand on the page of all changes."""
    found = get_object_or_404(ChangeSet.objects.for_user(request.user).select_related("provider"), pk=pk)
    counts = history.kinds_under(request.user, found)
    kinds = [(name, label, counts[name]) for name, label in ModelChange.Kind.choices if name in counts]
    asked = request.GET.get("kind", "")
    kind = asked if asked in {name for name, _, _ in kinds} else (kinds[0][0] if kinds else "")
    after = _key(request.GET.get("after", ""))
    mine = reports.models_of(request.user)
    entries, further = history.under(request.user, found, kind=kind, after=after, mine=mine)
    context = {
        "change_set": found,
        "kinds": kinds,
        "kind": kind,
        "entries": entries,
        "further": _address({"kind": kind, "after": further}),
    }
    if after is not None and request.htmx and not request.htmx.boosted:  # type: ignore[attr-defined]
        return render(request, "catalog/change_set.html#entries", context)
    return render(request, "catalog/change_set.html", context)


# -- One model -------------------------------------------------------------------------------------------------------


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def model_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Facts, prices, which accounts offer it, what happened to it, and its price over time."""
    models = AggregatorModel.objects.for_user(request.user).select_related("provider")
    model = get_object_or_404(models, pk=pk)
    before = _key(request.GET.get("before", ""))
    entries, older = history.of_models(request.user, [model.pk], before=before, size=MODEL_ENTRIES)
    context: dict[str, Any] = {
        "model": model,
        "entries": entries,
        "older": _address({"before": older}),
    }
    if before is not None and request.htmx and not request.htmx.boosted:  # type: ignore[attr-defined]
        return render(request, "catalog/model_detail.html#history", context)
    context |= {
        **prices_of(request, model),
        "can_call": AggregatorModel.objects.available_to(request.user).filter(pk=model.pk).exists(),
        "is_favourite": FavouriteModel.objects.for_user(request.user).filter(model=model).exists(),
        "successor": _successor(request, model),
        "courses": _courses(request, model),
        **sellers_of(request, model),
        **findings_of(request, model),
    }
    return render(request, "catalog/model_detail.html", context)


def _successor(request: HttpRequest, model: AggregatorModel) -> AggregatorModel | None:
    """The model its seller names as the successor, if we know it."""
    if not model.successor:
        return None
    models = AggregatorModel.objects.for_user(request.user)
    return models.filter(provider_id=model.provider_id, model_id=model.successor).exclude(pk=model.pk).first()


def _courses(request: HttpRequest, model: AggregatorModel) -> list[dict[str, Any]]:
    """Input and output price over time; a plot for each that ever changed."""
    if model.price_kind == AggregatorModel.PriceKind.LIST:
        return []  # of somebody else's price
    now = timezone.now()
    found = []
    for course in history.courses(request.user, model):
        plot = None
        if course.has_changed:
            plot = price_plot.draw(
                course.points,
                now,
                price_text=lambda price: per_million(price) if price else "$0",
                date_text=partial(_moment, now=now, is_short=now - course.points[0][0] < timedelta(days=4)),
            )
        found.append({"course": course, "plot": plot})
    return found


def _moment(moment: datetime, *, now: datetime, is_short: bool) -> str:
    """A moment on the axis: with the time where days alone would say the same thrice."""
    if is_short:
        return date_format(moment, "j M H:i")
    return date_format(moment, "j M" if moment.year == now.year else "j M Y")


# -- Addresses -------------------------------------------------------------------------------------------------------


def _key(text: str) -> int | None:
    """The key of a row; None for anything that is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _address(asked: Mapping[str, str | int]) -> str:
    """The query string of another page of the same question; "" if the last of `asked`, its key, is missing."""
    if not list(asked.values())[-1]:
        return ""
    return "?" + urlencode({name: value for name, value in asked.items() if value})


def _sold_by(request: HttpRequest, models: set[int], provider: int) -> set[int]:
    sold = AggregatorModel.objects.for_user(request.user).filter(provider_id=provider, pk__in=models)
    return set(sold.values_list("pk", flat=True))
