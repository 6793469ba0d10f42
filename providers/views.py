"""Accounts: list, add, test, sync, edit, remove. Every lookup starts at the user; a foreign id is a missing one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db import IntegrityError, transaction
from django.db.models import Count, OuterRef, Subquery
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.middleware import HtmxDetails

from catalog import schedule, sync
from catalog.models import AccountModel, SyncRun
from config.htmx import path_behind
from providers import checking, health, net, presets, sealing, vault
from providers.clients.base import Probe
from providers.forms import CHANGED, DUPLICATE, AddAccountForm, EditAccountForm, Outdated, tidy_address
from providers.models import LOCKED_REASON, Provider, ProviderAccount
from usage import proof, reports
from usage.models import UsageLog


class Request(HttpRequest):
    """What the htmx middleware makes of a request."""

    htmx: HtmxDetails


CUSTOM = "custom"
ADD = "add-account"
SECRETS = ("api_key", "extra_headers")
UNSEALED = (
    "The key arrived as it was typed, not encrypted by the browser, so it was not stored. Treat it as seen: make a "
    "new one. Use a browser with scripts switched on, over https or on the machine Switchboard runs on."
)


# -- The list --------------------------------------------------------------------------------------------------------


@require_GET
@never_cache
def account_list(request: Request) -> HttpResponse:
    return render(request, "providers/account_list.html", {**_list_of(request), "opens_dialog": "add" in request.GET})


@require_GET
@never_cache
def account_row(request: Request, pk: UUID) -> HttpResponse:
    """One row of the list, asked for when its sync is over."""
    return _row(request, _mine(request, pk))


@require_GET
@never_cache
def account_pulse(request: Request) -> HttpResponse:
    """What became of the user's accounts since the page was drawn: the badge, and here the list. 204: nothing."""
    if request.GET.get("seen") == health.glance(request.user).mark:
        return HttpResponse(status=204)
    context: dict[str, Any] = {"is_oob": True}
    if path_behind(request) == reverse("providers:account-list"):
        context |= {"with_list": True, "without_messages": True, **_list_of(request)}
    return render(request, "providers/pulse.html", context)


def _list_of(request: Request) -> dict[str, Any]:
    """What the list shows, in a number of queries that does not depend on its length."""
    accounts = _with_facts(ProviderAccount.objects.for_user(request.user)).refresh_locks()
    _dress(request, accounts)
    keyless = [provider for provider in _built_in(request) if provider.is_keyless]
    return {"accounts": accounts, "keyless": [] if accounts else keyless}


def _dress(request: Request, accounts: list[Any]) -> None:
    """Give the accounts their last sync and what they have spent: two queries."""
    runs = SyncRun.objects.in_bulk([account.last_run_id for account in accounts if account.last_run_id])
    spending = reports.spending_by_account(request.user)
    for account in accounts:
        account.last_run = runs.get(account.last_run_id)
        account.next_run_at = schedule.next_run(account, account.last_run)
        account.spending = spending.get(account.pk, reports.NOTHING_SPENT)
        account.days_left = account.spending.days_left(account.balance)


def _with_facts(accounts: Any) -> Any:
    offers = AccountModel.objects.filter(account=OuterRef("pk")).order_by().values("account")
    runs = SyncRun.objects.filter(account=OuterRef("pk")).order_by("-queued_at")
    return accounts.annotate(
        model_count=Subquery(offers.annotate(count=Count("pk")).values("count")),
        last_run_id=Subquery(runs.values("pk")[:1]),
    )


def _mine(request: Request, pk: UUID) -> ProviderAccount:
    accounts = ProviderAccount.objects.for_user(request.user).select_related("provider", "owner")
    return get_object_or_404(accounts, pk=pk)


def _row(request: Request, account: ProviderAccount, **context: Any) -> HttpResponse:
    """The row of `account` as it now is; without htmx, the whole list."""
    if not request.htmx:
        return redirect("providers:account-list")
    row: Any
    [row] = _with_facts(ProviderAccount.objects.for_user(request.user).filter(pk=account.pk)).refresh_locks()
    _dress(request, [row])
    return render(request, "providers/account_list.html#account", {"account": row, "is_update": True, **context})


# -- Add -------------------------------------------------------------------------------------------------------------


@require_GET
@never_cache
def account_add(request: Request) -> HttpResponse:
    """The dialog: a gallery of providers, and the form of the chosen one."""
    if not request.htmx:
        return redirect(f"{reverse('providers:account-list')}?add")
    choices = _built_in(request)
    chosen = request.GET.get("provider") or (str(choices[0].pk) if choices else CUSTOM)
    provider = _provider(request, chosen)
    form = AddAccountForm(user=request.user, provider=provider)
    return _add_dialog(request, form, provider)


@require_POST
@never_cache
@sensitive_post_parameters("api_key", "extra_headers", "sealed")
@sensitive_variables()
def account_create(request: Request) -> HttpResponse:
    """Check first: the answer is the same form with what was found, and nothing is kept. Sent again, it is saved.

    What was found comes back with the form and counts if it is about the very key and address that came with it; else
    this is a first time again. Where nothing was typed that could be wrong, and without scripts, once is enough.
    """
    data, problem = _opened(request, ADD)
    provider = _provider(request, data.get("provider", ""))
    form = AddAccountForm(data, user=request.user, provider=provider)
    if problem or not form.is_valid():
        form.refuse(problem)
        return _add_dialog(request, form, provider)
    probe = checking.read_note(form.account, form.cleaned_data["checked"])
    takes_any = form.cleaned_data["accept_unverified"]
    if probe is not None and probe.verdict != "valid" and not takes_any:
        probe = None  # "Check again"
    was_shown = probe is not None
    if probe is None:
        probe = checking.survey(form.account)
        if not form.accept(probe):
            return _add_dialog(request, form, provider)
    is_valid = probe.verdict == "valid"
    is_settled = (was_shown and (is_valid or takes_any)) or (is_valid and not form.shows_first)
    if request.htmx and not is_settled:
        return _add_dialog(request, form, provider, found=probe)
    try:
        account = form.save(probe)
    except IntegrityError:  # the same form, sent twice at once
        form.add_error(None, DUPLICATE)
        return _add_dialog(request, form, provider)
    run = sync.queue(account, "button")
    if not request.htmx:
        messages.success(
            request, f"{account.label} was added. {'' if is_valid else f'Not verified: {probe.reason}'}".strip()
        )
        return redirect("providers:account-list")
    context: dict[str, Any] = {"account": account, "probe": probe, "run": run}
    if path_behind(request) in ("", reverse("providers:account-list")):  # the dialog opens on other pages, too
        context |= {"with_list": True, **_list_of(request)}
    return render(request, "providers/account_added.html", context)


@require_POST
@never_cache
def account_address(request: Request) -> HttpResponse:
    """Show what will be called for the address typed so far. A POST, so that it is in no access log."""
    text = request.POST.get("base_url", "")[:500]
    context: dict[str, str] = {}
    try:
        if text.strip():
            context["address"] = tidy_address(text)
    except net.BadURL as exc:
        context["problem"] = str(exc)
    return render(request, "providers/account_add.html#address", context)


def _add_dialog(
    request: Request, form: AddAccountForm, provider: Provider | None, *, found: Probe | None = None
) -> HttpResponse:
    """The dialog with `form`: to be filled in, with what is wrong, or with what a check `found`."""
    form.point_at_error()
    context = {
        "form": form,
        "found": found,
        "note": checking.note_of(form.account, found) if found else "",
        "provider": provider,
        **_gallery(request, provider),
        "chosen": provider.pk if provider else CUSTOM,
        "purpose": ADD,
        "allow_unsealed": settings.ALLOW_UNSEALED_KEYS,
    }
    if not request.htmx and form.is_bound:  # a form sent without scripts: the list, and the reason as a notice
        for problem in [error for errors in form.errors.values() for error in errors]:
            messages.error(request, str(problem))
        return redirect("providers:account-list")
    is_refused = form.is_bound and found is None
    return render(request, "providers/account_add.html", context, status=422 if is_refused else 200)


def _built_in(request: Request) -> list[Provider]:
    """The gallery's providers: the best known, then those that want a key."""
    built_in = Provider.objects.for_user(request.user).active().filter(owner=None)
    first = {name: place for place, name in enumerate(presets.FRONT)}
    return sorted(
        built_in, key=lambda each: (first.get(each.name, len(first)), each.is_keyless, each.display_name.lower())
    )


def _gallery(request: Request, provider: Provider | None) -> dict[str, Any]:
    """What the gallery shows at once, what unfolds, and what the chosen one needs."""
    known = presets.every()
    choices = _built_in(request)
    more = [choice for choice in choices if choice.name in known and choice.name not in presets.FRONT]
    needs = known[provider.name].needs if provider and provider.owner_id is None and provider.name in known else ""
    return {
        "choices": [choice for choice in choices if choice not in more] + _endpoints(request),
        "more": more,
        "is_unfolded": provider in more,
        "needs": needs,
    }


def _endpoints(request: Request) -> list[Provider]:
    """The user's own endpoints in use, for a second key."""
    mine = Provider.objects.for_user(request.user).active().filter(owner_id=request.user.pk)
    return list(mine.filter(accounts__isnull=False).distinct())


def _provider(request: Request, chosen: str) -> Provider | None:
    """The provider of that id, or None for a new custom endpoint. Someone else's is a missing one."""
    if chosen == CUSTOM:
        return None
    if not chosen.isdecimal() or len(chosen) > 18:
        raise Http404
    return get_object_or_404(Provider.objects.for_user(request.user).active(), pk=int(chosen))


# -- Secrets: sealed in the browser ----------------------------------------------------------------------------------


@require_POST
@never_cache
def sealing_offer(request: Request) -> JsonResponse:
    """The vault's public key and a ticket for one form, which the page asks for when that is sent (sealed-form.js)."""
    return JsonResponse(sealing.offer(request.user, request.POST.get("purpose", "")[:64].replace("\0", "")))


@sensitive_variables()
def _opened(request: Request, purpose: str) -> tuple[QueryDict, str]:
    """The posted fields with the sealed ones opened in their place, and a sentence if they are not accepted (K3).

    What was sealed wins over what stands beside it: nobody on the way can send a key to another provider or address.
    """
    data = request.POST.copy()
    sealed = data.pop("sealed", [""])[-1]
    problem = ""
    if not settings.ALLOW_UNSEALED_KEYS and any(data.get(name, "").strip() for name in SECRETS):
        problem = UNSEALED
    elif sealed:
        try:
            for name, value in sealing.unseal(request.user, purpose, sealed).items():
                data[name] = value
        except sealing.BadSeal as exc:
            problem = str(exc)
    if problem:
        for name in SECRETS:
            data.pop(name, None)
    return data, problem


# -- One account -----------------------------------------------------------------------------------------------------


@require_POST
def account_test(request: Request, pk: UUID) -> HttpResponse:
    """Ask the provider now whether it accepts the key."""
    account = _mine(request, pk)
    try:
        probe = checking.check(account)
    except vault.Locked:
        account.mark(ProviderAccount.Status.LOCKED, LOCKED_REASON)
        return _row(request, account)
    account.record(probe)
    account.save_found()
    return _row(request, account, probe=probe)


@require_http_methods(["GET", "POST"])
@never_cache
def account_prove(request: Request, pk: UUID) -> HttpResponse:
    """Where no free call shows whether a key is good. GET says what one token would cost; POST agrees to it."""
    account = _mine(request, pk)
    offer = proof.offer(account)
    if request.method == "GET" or offer is None or request.POST.get("model") != str(offer.model.pk):
        return render(request, "providers/account_prove.html", {"account": account, "offer": offer})
    try:
        probe = proof.ask(account, offer.model)
    except vault.Locked:
        account.mark(ProviderAccount.Status.LOCKED, LOCKED_REASON)
        return _done(request)
    account.record(probe)
    account.save_found()
    tell = messages.success if probe.verdict == "valid" else messages.warning
    tell(request, f"{account.label}: {probe.reason}")
    return _done(request)


@require_POST
@never_cache
def account_move(request: Request, pk: UUID) -> HttpResponse:
    """Change the order in which accounts are tried: `to` is up or down by one; `before` another account, or "last"."""
    account = _mine(request, pk)
    with transaction.atomic():
        order = list(ProviderAccount.objects.for_user(request.user).select_for_update().only("pk", "priority"))
        places = {str(row.pk): place for place, row in enumerate(order)} | {"last": len(order)}
        was = places.get(str(account.pk))  # None: removed in this moment
        if was is not None:
            step = {"up": -1, "down": 2}.get(request.POST.get("to", ""), 0)
            goal = places.get(request.POST.get("before", ""), was + step)
            if 0 <= goal <= len(order) and goal not in (was, was + 1):
                order.insert(goal - (goal > was), order.pop(was))
                for priority, row in enumerate(order):
                    if row.priority != priority:
                        row.priority = priority
                        row.save(update_fields=["priority", "updated_at"])
    if not request.htmx:
        return redirect("providers:account-list")
    return render(request, "providers/account_list.html#accounts", _list_of(request))


@require_POST
def account_sync(request: Request, pk: UUID) -> HttpResponse:
    """Read the provider's model list again, in the background."""
    account = _mine(request, pk)
    sync.queue(account, "button")
    return _row(request, account)


@require_http_methods(["GET", "POST"])
@never_cache
@sensitive_post_parameters("api_key", "extra_headers", "sealed")
@sensitive_variables()
def account_edit(request: Request, pk: UUID) -> HttpResponse:
    account = _mine(request, pk)
    if request.method == "GET":
        return _edit_dialog(request, EditAccountForm(account=account))
    data, problem = _opened(request, _editing(account))
    form = EditAccountForm(data, account=account)
    if problem or not form.is_valid():
        form.refuse(problem)
        return _edit_dialog(request, form)
    if form.is_outdated:
        return _edit_dialog(request, EditAccountForm(account=account), notice=CHANGED)
    probe = checking.check(form.account) if form.must_check else None
    if probe is not None and not form.accept(probe):
        return _edit_dialog(request, form)
    is_doubtful = probe is not None and probe.verdict == "unverified" and form.would_lose
    if is_doubtful and not form.cleaned_data["accept_unverified"]:
        return _edit_dialog(request, form, found=probe)
    try:
        account = form.save(probe)
    except Outdated:
        now = ProviderAccount.objects.for_user(request.user).select_related("provider", "owner").filter(pk=pk).first()
        if now is not None:
            return _edit_dialog(request, EditAccountForm(account=now), notice=CHANGED)
        messages.error(request, f"{account.label} was removed in another window meanwhile. Nothing was stored.")
        return _done(request)
    except IntegrityError:
        form.add_error(None, DUPLICATE)
        return _edit_dialog(request, form)
    if probe is not None:
        sync.queue(account, "button")
    messages.success(request, f"{account.label} was saved." if probe is None else f"{account.label}: {probe.reason}")
    return _done(request)


def _editing(account: ProviderAccount) -> str:
    """What a form that edits this account is called in what the browser seals."""
    return f"edit-account {account.pk}"


def _edit_dialog(
    request: Request, form: EditAccountForm, *, notice: str = "", found: Probe | None = None
) -> HttpResponse:
    form.point_at_error()
    context = {
        "form": form,
        "found": found,
        "account": form.stored,
        "purpose": _editing(form.stored),
        "allow_unsealed": settings.ALLOW_UNSEALED_KEYS,
        "notice": notice,
    }
    return render(request, "providers/account_edit.html", context, status=422 if form.is_bound or notice else 200)


@require_http_methods(["GET", "POST"])
@never_cache
def account_remove(request: Request, pk: UUID) -> HttpResponse:
    """GET asks and says what it will affect; POST removes. What was used and paid stays."""
    account = _mine(request, pk)
    if request.method == "POST":
        account.delete()
        messages.success(request, f"{account.label} was removed, and its key with it.")
        return _done(request)
    others = ProviderAccount.objects.for_user(request.user).usable().exclude(pk=account.pk)
    elsewhere = AccountModel.objects.filter(account__in=others).values("model_id")
    context = {
        "account": account,
        "lost_models": account.offers.exclude(model_id__in=elsewhere).count(),
        "calls": UsageLog.objects.for_user(request.user).filter(account_id=account.pk).count(),
    }
    return render(request, "providers/account_remove.html", context)


def _done(request: Request) -> HttpResponse:
    """Close the dialog and show the list as it now is."""
    if not request.htmx:
        return redirect("providers:account-list")
    response = render(request, "providers/account_list.html#accounts", {"with_list": True, **_list_of(request)})
    response["HX-Trigger-After-Swap"] = "dialog-close"
    return response
