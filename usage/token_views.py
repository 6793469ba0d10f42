"""Personal access tokens: make one (it is shown once), see them, revoke them, and try `/v1` from the page."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from catalog.models import AggregatorModel
from usage import reports, tokens
from usage.models import ApiToken

MOST_LIVE = 100
"""Live tokens one user may hold."""


class TokenForm(forms.Form):
    """What a new token is for, and how long it lives."""

    name = forms.CharField(
        label="What it is for",
        max_length=80,
        widget=forms.TextInput(attrs={"placeholder": "editor", "autocomplete": "off"}),
        error_messages={"required": "Give it a name, so that you know later which program uses it."},
    )
    days = forms.TypedChoiceField(
        label="Expires",
        coerce=int,
        choices=[(0, "never"), (7, "in 7 days"), (30, "in 30 days"), (90, "in 90 days"), (365, "in a year")],
        initial=0,
    )


@require_GET
@never_cache
def token_list(request: HttpRequest) -> HttpResponse:
    return _page(request, TokenForm())


@require_POST
@never_cache
def token_create(request: HttpRequest) -> HttpResponse:
    """Make a token and show it, this once, in the answer to the POST: no address shows it again."""
    form = TokenForm(request.POST)
    if form.is_valid() and ApiToken.objects.for_user(request.user).live().count() >= MOST_LIVE:
        form.add_error(None, f"You have {MOST_LIVE} live tokens. Revoke one you no longer use.")
    if not form.is_valid():
        return _page(request, form, status=422)
    days = form.cleaned_data["days"]
    expires_at = timezone.now() + timedelta(days=days) if days else None
    row, text = tokens.create(request.user, form.cleaned_data["name"], expires_at=expires_at)  # type: ignore[arg-type]
    return _page(request, TokenForm(), new=row, text=text)


@require_POST
def token_revoke(request: HttpRequest, pk: UUID) -> HttpResponse:
    token = get_object_or_404(ApiToken.objects.for_user(request.user), pk=pk)
    token.revoke()
    messages.success(request, f"“{token.name}” is revoked. Programs that use it are refused within seconds.")
    return redirect("usage:token-list")


def _page(
    request: HttpRequest, form: TokenForm, *, new: ApiToken | None = None, text: str = "", status: int = 200
) -> HttpResponse:
    models = AggregatorModel.objects.available_to(request.user).filter(model_type__in=["chat", "unknown"])
    asked = models.filter(model_id=request.GET.get("model", "").replace("\0", "")).first()
    chosen = asked or models.filter(pk__in=reports.recent_models(request.user, limit=1)).first() or models.first()
    context = {
        "form": form,
        "tokens": ApiToken.objects.for_user(request.user).order_by("revoked_at", "-created_at")[:200],
        "new": new,
        "text": text,
        "model_ids": models.order_by("model_id").values_list("model_id", flat=True).distinct()[:500],
        "model_id": chosen.model_id if chosen else "",
        "base_url": f"{settings.PUBLIC_ORIGIN}/v1",
    }
    return render(request, "usage/token_list.html", context, status=status)
