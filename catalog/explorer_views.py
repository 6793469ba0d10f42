"""The explorer: every model in one table, compared side by side, exported; the filters and hide rules a user keeps.

The list itself is searched in memory (catalog/search.py), so that no page here costs more queries for more models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from catalog import choices, comparing, exporting, own_prices
from catalog.choice_forms import HideRuleForm, SaveFilterForm
from catalog.listing import judge_of
from catalog.models import AggregatorModel, HideRule, SavedFilter, SyncRun
from catalog.question import Question
from catalog.row_context import Shelf
from catalog.views import form_context

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django_htmx.middleware import HtmxDetails

    class Request(HttpRequest):
        """What our middleware makes of a request."""

        htmx: HtmxDetails
        user: User


PAGE_ROWS = 100

COLUMNS = (
    ("name", "Model", "", "model__name"),
    ("provider", "Offered by", "", "model__provider"),
    ("-context", "Context", "num", ""),
    ("-output-limit", "Max. output", "num", "model__output"),
    ("in", "In / 1M", "num", ""),
    ("cached", "Cached / 1M", "num", "model__cached"),
    ("out", "Out / 1M", "num", ""),
    ("", "Can do", "", "model__can"),
    ("-newest", "Since", "num", "model__since"),
)
"""(order by a first click, heading, and the classes of the cell); no order: the column is not sorted by."""


# -- The table -------------------------------------------------------------------------------------------------------


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def model_list(request: Request) -> HttpResponse:
    """Every model the user may call, as the address asks; htmx gets the table alone."""
    shelf = Shelf(request.user)
    question = Question.read(request.GET, shelf.opened.accounts, page_size=PAGE_ROWS)
    results = shelf.find(question, limit=PAGE_ROWS)
    rows = shelf.shown(results)
    after = question.offset + len(rows)
    saved = list(SavedFilter.objects.for_user(request.user)[: choices.MAX_FILTERS])
    context: dict[str, Any] = {
        "rows": rows,
        "results": results,
        "question": question,
        "columns": [_column(question, *column) for column in COLUMNS],
        "first": question.offset + 1,
        "last": after,
        "previous": _page(question, question.offset - PAGE_ROWS) if question.offset else "",
        "next": _page(question, after) if after < results.total else "",
        "saved": saved,
        "show_address": question.address(hidden="on"),
        "hide_address": question.address(hidden=""),
        "is_saved": question.is_narrow and any(one.query == question.address() for one in saved),
        "most": comparing.MOST,
        **form_context(shelf, question),
    }
    if request.htmx and not request.htmx.boosted:
        context["has_new_order"] = request.htmx.trigger_name != "sort"
        return render(request, "catalog/model_list.html#models", context)
    return render(request, "catalog/model_list.html", {**context, "runs": _last_runs(request)})


def _column(question: Question, order: str, label: str, kind: str, style: str) -> dict[str, Any]:
    """A heading: what a click on it asks for, and how it is sorted now. The second click turns the order round."""
    name = order.removeprefix("-")
    now = question.sort
    is_sorted = bool(name) and now.removeprefix("-") == name
    turned = name if now.startswith("-") else f"-{name}"
    return {
        "label": label,
        "style": f"{kind} {style}".strip(),
        "address": f"?{question.address(sort=turned if is_sorted else order)}" if order else "",
        "sorted": ("descending" if now.startswith("-") else "ascending") if is_sorted else "",
    }


def _page(question: Question, offset: int) -> str:
    """The query string of another page of the same question."""
    return "?" + question.address(**({"offset": offset} if offset > 0 else {}))


def _last_runs(request: Request) -> list[SyncRun]:
    """The open run of each of the user's accounts that are switched on, or how its last one ended. One query."""
    latest = SyncRun.objects.filter(account=OuterRef("account")).order_by("-queued_at").values("pk")[:1]
    runs = SyncRun.objects.for_user(request.user).filter(account__is_active=True, pk=Subquery(latest))
    return list(runs.select_related("account").order_by("account__priority", "account__created_at"))


@require_GET
@never_cache
def model_export(request: Request) -> HttpResponse:
    """The rows of the present filter, all pages, as CSV (K7)."""
    shelf = Shelf(request.user)
    question = Question.read(request.GET, shelf.opened.accounts, page_size=PAGE_ROWS).without_place()
    results = shelf.find(question, limit=exporting.MOST_ROWS)
    name = f"models-{timezone.localdate():%Y-%m-%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(exporting.csv_of(results.rows), content_type="text/csv; charset=utf-8", headers=headers)


# -- Side by side ----------------------------------------------------------------------------------------------------


@require_GET
@never_cache
def model_compare(request: Request) -> HttpResponse:
    """Up to four models side by side: `?m=1&m=2`. What is not the user's is as if not named."""
    asked = list(dict.fromkeys(pk for text in request.GET.getlist("m")[:50] if (pk := _key(text))))
    models = AggregatorModel.objects.available_to(request.user).select_related("provider")
    found = {model.pk: model for model in models.filter(pk__in=asked)}
    chosen = [found[pk] for pk in asked if pk in found]
    shown = chosen[: comparing.MOST]
    own_prices.lay_over(request.user, shown)
    shelf = Shelf(request.user)
    context = {
        "columns": [
            {"model": model, "without": _without(shown, model.pk), "row": shelf.row_of(model.pk)} for model in shown
        ],
        "lines": comparing.lines(shown),
        "left_out": chosen[comparing.MOST :],
        "most": comparing.MOST,
    }
    return render(request, "catalog/model_compare.html", context)


def _without(shown: Sequence[AggregatorModel], pk: int) -> str:
    return "?" + "&".join(f"m={model.pk}" for model in shown if model.pk != pk)


def _key(text: str) -> int:
    """A primary key from the address; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


# -- What a user keeps -----------------------------------------------------------------------------------------------


@require_http_methods(["GET", "POST"])
@never_cache
def filter_save(request: Request) -> HttpResponse:
    """GET: the dialog that asks for a name. POST: keep the filter of the address under it."""
    shelf = Shelf(request.user)
    asked = request.GET if request.method == "GET" else request.POST
    question = Question.read(asked, shelf.opened.accounts, page_size=PAGE_ROWS)
    form = SaveFilterForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            choices.save_filter(request.user, form.cleaned_data["name"], question.address())
            return _go(request, f"{reverse('catalog:model-list')}?{question.address()}")
        except choices.TooMany as exc:
            form.add_error("name", str(exc))
    context = {"form": form, "question": question}
    return render(request, "catalog/filter_save.html", context, status=422 if form.is_bound else 200)


@require_POST
@never_cache
def filter_delete(request: Request, pk: int) -> HttpResponse:
    """Forget a saved filter; the list stays as it is."""
    choices.delete_filter(saved := get_object_or_404(SavedFilter.objects.for_user(request.user), pk=pk))
    messages.success(request, f"The filter “{saved.name}” was deleted.")
    return _go(request, f"{reverse('catalog:model-list')}?{saved.query}")


@require_http_methods(["GET", "POST"])
@never_cache
def hide_rules(request: Request) -> HttpResponse:
    """The user's hide rules, each with what it hides now, and a form for another. `?glob=` fills the form."""
    form = HideRuleForm(request.POST or None, initial={"glob": request.GET.get("glob", "")[:200].replace("\0", "")})
    if request.method == "POST" and form.is_valid():
        try:
            choices.add_rule(request.user, form.cleaned_data["glob"], form.cleaned_data["price_cap"])
            return redirect("catalog:hide-rules")
        except choices.TooMany as exc:
            form.add_error(None, str(exc))
    shelf = Shelf(request.user)
    models = {offer.model.pk: offer.model for row in shelf.opened.listing.rows for offer in row.sellers}.values()
    rules = []
    for rule in HideRule.objects.for_user(request.user)[: choices.MAX_RULES]:
        is_hidden = judge_of(((rule.glob, rule.price_cap),))
        rules.append({"rule": rule, "count": sum(map(is_hidden, models))})
    hidden = len(shelf.opened.listing.hidden(shelf.rules))
    context = {"form": form, "rules": rules, "hidden": hidden, "of": len(shelf.opened.listing.rows)}
    return render(request, "catalog/hide_rules.html", context, status=422 if form.is_bound else 200)


@require_POST
@never_cache
def hide_rule_delete(request: Request, pk: int) -> HttpResponse:
    """Drop a rule: what it hid is there again."""
    choices.delete_rule(get_object_or_404(HideRule.objects.for_user(request.user), pk=pk))
    return redirect("catalog:hide-rules")


def _go(request: Request, url: str) -> HttpResponse:
    """Load `url`, one of our own paths, as a page."""
    if request.htmx:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)
