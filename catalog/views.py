"""The selector's dialog, what can be done in it, and how a sync is going. The explorer: explorer_views.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import F, Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from catalog import choices, own_prices, probes
from catalog.listing import fold, squeeze
from catalog.models import AggregatorModel, FavouriteModel, ModelAlias, SyncRun
from catalog.question import CONTEXTS, PRICES, SORT_LABELS, Question
from catalog.row_context import ASSUMED_ANSWER, Shelf
from catalog.search import NO_FILTERS, Filters

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from providers.models import AnyUser

    class Request(HttpRequest):
        """What our middleware makes of a request."""

        user: User


SELECTOR_ROWS = 30
ALIASES = 200
SHOWN_ALIASES = 6
CHAT_ONLY = Filters(type="chat")

TYPES = [(value, label) for value, label in AggregatorModel.ModelType.choices if value != "unknown"]
CHIPS = (
    ("vision", "Vision"),
    ("audio", "Audio"),
    ("tools", "Tools"),
    ("reasoning", "Reasoning"),
    ("json", "JSON"),
    ("free", "Free"),
    ("favourites", "Favourites"),
)
"""(name in the address, what the chip says)."""


@require_GET
@never_cache
def model_select(request: Request) -> HttpResponse:
    """The selector: the whole dialog, or with `?q=` the rows that match.

    `now` and `via` are the model and account chosen at present, `tokens` the size of the draft, if there is one.
    """
    now = _digits(request.GET.get("now", ""))
    return selector(
        request,
        current=(now, _uuid(request.GET.get("via", ""))) if now else None,
        tokens=_digits(request.GET.get("tokens", "")) or None,
        asked=request.GET if "q" in request.GET else None,
    )


def selector(
    request: HttpRequest,
    *,
    current: tuple[int, UUID | None] | None,
    tokens: int | None,
    asked: QueryDict | None = None,
    alias: int | None = None,
) -> HttpResponse:
    """The dialog, or the rows that `asked` wants. Chat models only, until another type is chosen."""
    shelf = Shelf(request.user)
    question = Question.read(asked or {"type": "chat"}, shelf.opened.accounts, page_size=SELECTOR_ROWS)
    is_plain = not question.query and not question.sort
    first = [*([current[0]] if current and is_plain else []), *shelf.recent, *shelf.favourites]
    results = shelf.find(question, limit=SELECTOR_ROWS, first=first)
    rows = shelf.shown(results, current=current, draft_tokens=tokens, headings=is_plain)
    after = question.offset + len(rows)
    named = _aliases(request.user, question) if question.offset == 0 else []
    context: dict[str, Any] = {
        "aliases": named,
        "is_alias_best": any(squeeze(fold(one.alias)) == squeeze(fold(question.query)) for one in named),
        "current_alias": alias,
        "rows": rows,
        "results": results,
        "question": question,
        "more": after if after < results.total else 0,
        "current": current,
        "tokens": tokens,
        "assumed_answer": ASSUMED_ANSWER,
    }
    if asked is not None:
        context["is_update"] = question.offset == 0
        return render(request, "catalog/model_select.html#rows", context)
    context |= {**form_context(shelf, question), "synced_at": _synced(request)}
    return render(request, "catalog/model_select.html", context)


def _aliases(user: AnyUser, question: Question) -> list[ModelAlias]:
    """The user's aliases, where they are the answer or may become it: with no words all, else those that begin so."""
    if question.filters not in (NO_FILTERS, CHAT_ONLY) or question.sort:
        return []
    begins = squeeze(fold(question.query))
    rows = ModelAlias.objects.for_user(user).order_by(F("owner_id").asc(nulls_last=True), "alias")[:ALIASES]
    return [row for row in rows if squeeze(fold(row.alias)).startswith(begins)][:SHOWN_ALIASES]


def form_context(shelf: Shelf, question: Question) -> dict[str, Any]:
    """What the fields over both lists offer, and what is chosen in them."""
    accounts = shelf.opened.accounts
    chosen = question.chosen
    providers = {account.provider_id: account.provider_name for account in accounts}
    return {
        "accounts": accounts,
        "chips": [(name, label, name in chosen) for name, label in CHIPS],
        "selects": [
            select
            for select in (
                ("type", "Type", "Any type", TYPES),
                ("provider", "Provider", "All providers", [(str(pk), name) for pk, name in providers.items()]),
                ("account", "Account", "All accounts", [(str(one.pk), one.label) for one in accounts]),
                ("context", "Context", "Any context", _with(CONTEXTS, chosen.get("context", ""), "≥ {} tokens")),
                ("price", "Price per 1M out", "Any price", _with(PRICES, chosen.get("price", ""), "Out ≤ ${}")),
            )
            if len(select[3]) > 1
        ],
        "sorts": [*SORT_LABELS, *([] if question.sort in dict(SORT_LABELS) else [(question.sort, "As in the table")])],
    }


def _with(options: tuple[tuple[str, str], ...], chosen: str, text: str) -> list[tuple[str, str]]:
    """The options, and what is chosen though it is none of them."""
    if not chosen or any(value == chosen for value, _ in options):
        return list(options)
    return [*options, (chosen, text.format(chosen))]


@require_GET
@never_cache
def model_details(request: Request, pk: int) -> HttpResponse:
    """What a row unfolds to: description, limits, every price, what it can do (stated, probed), who offers it."""
    models = AggregatorModel.objects.available_to(request.user).select_related("provider")
    model = get_object_or_404(models, pk=pk)
    own_prices.lay_over(request.user, [model])
    found = [finding for finding in probes.findings(request.user, model) if finding.verdict]
    context = {"model": model, "row": Shelf(request.user).row_of(pk), "findings": found}
    return render(request, "catalog/model_details.html", context)


@require_POST
@never_cache
def favourite(request: Request, pk: int) -> HttpResponse:
    """Star a model, or take its star off; answers with the button as it now is.

    `?in=list`: the button stands in a list of options, which reaches it by a key of its own instead of Tab. A star can
    be taken off a model that is gone, too.
    """
    callable_now = AggregatorModel.objects.available_to(request.user).values("pk")
    starred = FavouriteModel.objects.for_user(request.user).values("model_id")
    models = AggregatorModel.objects.for_user(request.user)
    model = get_object_or_404(models.filter(Q(pk__in=callable_now) | Q(pk__in=starred)), pk=pk)
    problem, is_favourite = "", False
    try:
        is_favourite = choices.star(request.user, model, same=Shelf(request.user).same_as(pk))
    except choices.TooMany as exc:
        problem = str(exc)
    context = {
        "pk": pk,
        "name": model.display_name,
        "is_favourite": is_favourite,
        "problem": problem,
        "tabindex": "-1" if request.GET.get("in") == "list" else "",
    }
    return render(request, "catalog/_star.html", context, status=422 if problem else 200)


@require_GET
@never_cache
def sync_status(request: Request, pk: UUID) -> HttpResponse:
    """How one sync is going. The piece asks for itself each second while the run is open, and says when it is over."""
    run = get_object_or_404(SyncRun.objects.for_user(request.user).select_related("account"), pk=pk)
    response = render(request, "catalog/sync_status.html", {"run": run})
    if not run.is_open:
        response["HX-Trigger"] = "sync-finished"
    return response


def _synced(request: HttpRequest) -> Any:
    """When one of the user's lists was last found right."""
    runs = SyncRun.objects.for_user(request.user).applied().order_by("-queued_at")
    return runs.values_list("finished_at", flat=True).first()


def _digits(text: str) -> int:
    """A number from the address; 0 for anything else, or for more than we count to."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
