"""What a model costs: the seller's prices, where they come from, and the ones a user enters beside them.

`prices_of` is the context of `catalog/_own_price.html`, which the model's page includes. The form has its own address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from catalog import own_prices
from catalog.models import PRICE_COLUMNS, AggregatorModel, OwnPrice
from catalog.seller_views import sellers_of
from config.htmx import path_behind
from usage.templatetags.money import tokens

UNITS = {
    "price_input": ("Input", "per 1M tokens"),
    "price_output": ("Output", "per 1M tokens"),
    "price_cache_read": ("Cached input", "per 1M tokens"),
    "price_cache_write": ("Cache writes", "per 1M tokens"),
    "price_reasoning": ("Reasoning", "per 1M tokens"),
    "price_image": ("Image in the prompt", "each"),
    "price_request": ("Call", "each"),
    "price_search": ("Web search", "each"),
}
"""Price column → (what it is the price of, per what)."""

MOST_USD = Decimal(10_000)
CAN_SET_FOR_ALL = "catalog.change_ownprice"
_FIGURE = re.compile(r"\$?\s*(\d{1,7}(?:\.\d{0,12})?|\.\d{1,12})", re.ASCII)


class PriceField(forms.CharField):
    """A price in US dollars as people write it; empty is None. What is no price is refused, never guessed at (M2)."""

    def __init__(self, **kwargs: Any) -> None:
        attrs = {"inputmode": "decimal", "autocomplete": "off", "spellcheck": "false"}
        super().__init__(required=False, max_length=30, widget=forms.TextInput(attrs=attrs), **kwargs)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        found = _FIGURE.fullmatch(text)
        if found is None:
            raise forms.ValidationError("Write an amount in US dollars with a point, such as 0.27.")
        price = Decimal(found[1])
        if price > MOST_USD:
            raise forms.ValidationError(f"More than ${MOST_USD:,} is no price. It is in US dollars, per 1M tokens.")
        return price


class OwnPriceForm(forms.Form):
    """One field per price column; `scope` says whose price it is to be, where the user may choose."""

    def __init__(self, data: Any = None, *, own: OwnPrice | None = None, may_set_for_all: bool = False) -> None:
        initial = {column: own_prices.plain(getattr(own, column)) for column in PRICE_COLUMNS} if own else {}
        super().__init__(data, initial=initial)
        for column, (label, unit) in UNITS.items():
            self.fields[column] = PriceField(label=f"{label}, {unit}")
        self.may_set_for_all = may_set_for_all

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and all(cleaned.get(column) is None for column in PRICE_COLUMNS):
            raise forms.ValidationError(
                "Enter at least one price, or leave the page: the seller's prices count as they are."
            )
        return cleaned

    @property
    def is_for_all(self) -> bool:
        return self.may_set_for_all and self.data.get("scope") == "all"

    @property
    def prices(self) -> dict[str, Decimal | None]:
        return {column: self.cleaned_data.get(column) for column in PRICE_COLUMNS}


@dataclass(frozen=True, slots=True)
class Line:
    """One price: what the seller states, what counts for this user, and the field to enter another."""

    label: str
    unit: str
    sold: Decimal | None
    counts: Decimal | None
    is_own: bool
    field: Any


@require_http_methods(["GET", "POST"])
@never_cache
def own_price(request: HttpRequest, pk: int) -> HttpResponse:
    """The prices of one model, and the form to enter one's own; POST keeps them, or with `undo` forgets them."""
    models = AggregatorModel.objects.for_user(request.user).select_related("provider")
    model = get_object_or_404(models, pk=pk)
    may_set_for_all = _may_set_for_all(request)
    if request.method != "POST":
        return _show(request, prices_of(request, model))
    if "undo" in request.POST:
        for_all = may_set_for_all and request.POST.get("scope") == "all"
        was_there = own_prices.undo(request.user, model, for_all=for_all)
        sentence = "Undone for everybody." if for_all else "The provider's prices count again."
        return _kept(request, model, sentence if was_there else "")
    form = OwnPriceForm(request.POST, may_set_for_all=may_set_for_all)
    if not form.is_valid():
        return _show(request, prices_of(request, model, form), status=422)
    own_prices.enter(request.user, model, form.prices, for_all=form.is_for_all)
    whom = "everybody here" if form.is_for_all else "you"
    return _kept(request, model, f"These prices count for {whom} from now on.")


def prices_of(request: HttpRequest, model: AggregatorModel, form: OwnPriceForm | None = None) -> dict[str, Any]:
    """The context of `catalog/_own_price.html` for `model`, as the database has it (not laid over)."""
    may_set_for_all = _may_set_for_all(request)
    rows = {row.owner_id: row for row in OwnPrice.objects.for_user(request.user).filter(model_id=model.pk)}
    own, for_all = rows.get(request.user.pk), rows.get(None)
    row = own or for_all
    counting = own_prices.laid_over(model, row) if row else {column: getattr(model, column) for column in PRICE_COLUMNS}
    bound = form or OwnPriceForm(own=own or (for_all if may_set_for_all else None), may_set_for_all=may_set_for_all)
    for column in PRICE_COLUMNS:
        bound.fields[column].widget.attrs["placeholder"] = own_prices.plain(getattr(model, column))
    lines = [
        Line(
            label=label,
            unit=unit,
            sold=getattr(model, column),
            counts=counting[column],
            is_own=row is not None and getattr(row, column) is not None,
            field=bound[column],
        )
        for column, (label, unit) in UNITS.items()
    ]
    return {
        "model": model,
        "own": own,
        "for_all": for_all,
        "has_own": row is not None,
        "price_form": bound,
        "lines": lines,
        "conditions": conditions_of(counting.get("pricing_rules", model.pricing_rules)),
        "is_list_price": model.price_kind == AggregatorModel.PriceKind.LIST,
        "list_label": model.origins.get("list", ""),
        "origin": model.origin_of("prices"),
        "may_set_for_all": may_set_for_all,
    }


def conditions_of(rules: Any) -> list[tuple[str, list[tuple[str, Decimal]]]]:
    """Tiers and time windows in words: [("Prompts of more than 272k tokens", [("Input", 2), …]), …]."""
    labels = {PRICE_COLUMNS[column]: label for column, (label, _) in UNITS.items()}
    found = []
    for rule in rules if isinstance(rules, list) else []:
        if not isinstance(rule, dict):
            continue
        words = []
        if str(rule.get("min_prompt_tokens", "")).isdecimal():
            words.append(f"Prompts of more than {tokens(int(rule['min_prompt_tokens']))} tokens")
        if "utc_start" in rule or "utc_end" in rule:
            words.append(f"{_clock(rule.get('utc_start', '0000'))}–{_clock(rule.get('utc_end', '2400'))} UTC")
        prices = [
            (label, price) for name, label in labels.items() if (price := own_prices.figure(rule.get(name))) is not None
        ]
        if words and prices:
            found.append((", ".join(words), prices))
    return found


def _clock(hhmm: object) -> str:
    """0930, "0930" and "09:30" as 09:30."""
    text = str(hhmm).replace(":", "").zfill(4)[-4:]
    return f"{text[:2]}:{text[2:]}"


def _may_set_for_all(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.is_staff and user.has_perm(CAN_SET_FOR_ALL))


def _show(request: HttpRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    is_part = request.htmx and not request.htmx.boosted  # type: ignore[attr-defined]
    template = "catalog/_own_price.html" if is_part else "catalog/own_price.html"
    return render(request, template, context, status=status)


def _kept(request: HttpRequest, model: AggregatorModel, sentence: str) -> HttpResponse:
    if request.htmx:  # type: ignore[attr-defined]
        context = {**prices_of(request, model), "said": sentence}
        if path_behind(request) == reverse("catalog:model-detail", args=[model.pk]):
            context |= sellers_of(request, model)  # they stand there, too, at prices that were
        return _show(request, context)
    if sentence:
        messages.success(request, sentence)
    return redirect("catalog:own-price", pk=model.pk)
