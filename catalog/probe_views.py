"""Trying what a model can do: what is known, what it would cost, the go, and how it goes. Only a POST makes calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from catalog import probes
from catalog.models import AggregatorModel, CapabilityProbe
from catalog.routes import NoRoute, routes_for_model
from providers.models import ProviderAccount
from usage import probing
from usage.tasks import probe as probe_task

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django_htmx.middleware import HtmxDetails

    class Request(HttpRequest):
        """What our middleware makes of a request."""

        htmx: HtmxDetails
        user: User


def findings_of(request: HttpRequest, model: AggregatorModel) -> dict[str, Any]:
    """What catalog/_probe.html wants: `findings`, and the open `probe` if there is one. Two to four queries."""
    mine = CapabilityProbe.objects.for_user(request.user).filter(model=model)
    if mine.open().exists():
        probes.end_abandoned(request.user, model)
    latest = mine.order_by("-queued_at").first()
    return {"findings": probes.findings(request.user, model), "probe": latest}


@require_http_methods(["GET", "POST"])
@never_cache
def model_probe(request: Request, pk: int) -> HttpResponse:
    """GET: what can be tried and what it costs at most, for what is ticked. POST: try it."""
    model = get_object_or_404(AggregatorModel.objects.for_user(request.user).select_related("provider"), pk=pk)
    if request.method == "GET":
        return render(request, "catalog/model_probe.html", _question(request, model, request.GET))
    context = _question(request, model, request.POST)
    if context["problem"]:
        return render(request, "catalog/model_probe.html", context, status=422)
    with transaction.atomic():
        made = probes.request(request.user, model, context["account"], context["asked"], estimate=context["estimate"])
        if made is not None:
            transaction.on_commit(lambda: probe_task.delay(str(made.pk)), robust=True)
    if made is None:
        context["problem"] = "This model is being tried already. Wait until that ends, or stop it."
        return render(request, "catalog/model_probe.html", context, status=422)
    if not request.htmx:
        return redirect("catalog:model-detail", model.pk)
    response = _piece(request, model)
    response["HX-Retarget"], response["HX-Reswap"] = "#probe", "outerHTML"
    response["HX-Trigger-After-Swap"] = "dialog-close"
    return response


@require_GET
@never_cache
def probe_status(request: Request, pk: UUID) -> HttpResponse:
    """The piece of the model's page as it now is; it asks for itself each second while a probe is open."""
    found = CapabilityProbe.objects.for_user(request.user).select_related("model__provider")
    probe = get_object_or_404(found, pk=pk)
    return _piece(request, probe.model)


@require_POST
@never_cache
def probe_stop(request: Request, pk: UUID) -> HttpResponse:
    """Stop trying. What was found and what it cost stay."""
    found = CapabilityProbe.objects.for_user(request.user).select_related("model__provider")
    probe = get_object_or_404(found, pk=pk)
    probes.request_stop(probe)
    if not request.htmx:
        messages.info(request, "It stops within a second. What was found until then is kept.")
        return redirect("catalog:model-detail", probe.model_id)
    return _piece(request, probe.model)


def _piece(request: Request, model: AggregatorModel) -> HttpResponse:
    return render(request, "catalog/_probe.html", {"model": model, **findings_of(request, model)})


def _question(request: Request, model: AggregatorModel, asked: QueryDict) -> dict[str, Any]:
    """What the dialog shows for what was ticked (at first everything). `problem` says why it cannot be tried."""
    ticked = [name for name in probes.CAPABILITIES if name in asked.getlist("what")]
    is_first = "what" not in asked and "account" not in asked
    chosen = list(probes.CAPABILITIES) if is_first else ticked
    problem, accounts, account, priced = "", [], None, model
    try:
        routes = routes_for_model(request.user, model)
        accounts, priced = [route.account for route in routes], routes[0].model
        account = _chosen(accounts, asked.get("account", ""))
    except NoRoute as exc:
        problem = exc.message
    if not problem and account is None:
        problem = "That account cannot call this model now. Pick another."
    if not problem and not chosen:
        problem = "Tick at least one thing to try."
    if not problem and model.model_type not in (AggregatorModel.ModelType.CHAT, AggregatorModel.ModelType.UNKNOWN):
        problem = "Only models that chat can be tried."
    return {
        "model": model,
        "capabilities": [(name, *texts, name in chosen) for name, texts in probes.CAPABILITIES.items()],
        "asked": chosen,
        "accounts": accounts,
        "account": account,
        "estimate": probing.estimate(priced, chosen) if chosen else None,
        "calls": len(chosen),
        "problem": problem,
        "most_tokens": probing.MAX_TOKENS,
    }


def _chosen(accounts: list[ProviderAccount], pk: str) -> ProviderAccount | None:
    if not pk:
        return accounts[0]
    return next((account for account in accounts if str(account.pk) == pk), None)
