"""Pages of aliases: the list, one alias with its history, and the form whose rows move by buttons.

The form works without a script: every button sends it, `do` says what for, and only "save" stores anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db import IntegrityError
from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from catalog import aliases, search
from catalog.alias_forms import AliasForm
from catalog.models import ModelAlias, ModelAliasVersion

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django_htmx.middleware import HtmxDetails

    class Request(HttpRequest):
        """What our middleware makes of a request."""

        htmx: HtmxDetails
        user: User


PAGE_ROWS = 100
SUGGESTIONS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """An alias as the list shows it."""

    alias: ModelAlias
    targets: list[aliases.Target]
    collisions: list[aliases.Collision]
    is_editable: bool

    @property
    def usable(self) -> int:
        return sum(1 for target in self.targets if target.models)

    @property
    def first(self) -> aliases.Target | None:
        """The target that would answer now."""
        return next((target for target in self.targets if target.models), None)


@require_GET
@never_cache
def alias_list(request: Request) -> HttpResponse:
    """The user's own aliases, then everybody's."""
    rows = ModelAlias.objects.for_user(request.user).order_by(F("owner_id").asc(nulls_last=True), "alias", "pk")
    page = Paginator(rows, PAGE_ROWS).get_page(request.GET.get("page"))
    lines = _lines(request, list(page))
    context = {
        "page": page,
        "own": [line for line in lines if not line.alias.is_global],
        "shared": [line for line in lines if line.alias.is_global],
    }
    return render(request, "catalog/alias_list.html", context)


@require_http_methods(["GET", "POST"])
@never_cache
def alias_new(request: Request) -> HttpResponse:
    """An empty form; a POST moves its rows, or stores it."""
    return _form_page(request, None)


@require_http_methods(["GET", "POST"])
@never_cache
def alias_detail(request: Request, pk: int) -> HttpResponse:
    """One alias: what would answer, the form for who may change it, and its history."""
    if request.method == "POST":
        return _form_page(request, _editable(request, pk))
    return _form_page(request, get_object_or_404(ModelAlias.objects.for_user(request.user), pk=pk))


@require_http_methods(["GET", "POST"])
@never_cache
def alias_delete(request: Request, pk: int) -> HttpResponse:
    """GET asks; POST deletes."""
    alias = _editable(request, pk)
    if request.method == "GET":
        return render(request, "catalog/alias_delete.html", {"alias": alias})
    aliases.delete(alias)
    messages.success(request, f"The alias “{alias.alias}” is deleted. Calls by this name are refused from now on.")
    return _go(request, reverse("catalog:alias-list"))


@require_POST
@never_cache
def alias_restore(request: Request, pk: int) -> HttpResponse:
    """Make the alias what one of its versions made it; that is a version, too."""
    alias = _editable(request, pk)
    number = request.POST.get("version", "")
    versions = ModelAliasVersion.objects.for_user(request.user).filter(alias=alias)
    known = number.isascii() and number.isdigit() and len(number) <= 18
    version = get_object_or_404(versions, pk=int(number) if known else 0)
    try:
        aliases.restore(alias, version, by=request.user)
    except aliases.Unchanged:
        messages.info(request, "It is as it was then: there was nothing to restore.")
    except IntegrityError:
        messages.error(request, f"Another alias is called “{version.after['alias']}” by now. Rename that one first.")
    else:
        messages.success(request, f"“{alias.alias}” is again what it was at {version.at:%H:%M on %-d %B %Y}.")
        _say_collisions(request, alias)
    return _go(request, alias.get_absolute_url())


@require_GET
@never_cache
def alias_suggest(request: Request) -> HttpResponse:
    """Models to add, for what was typed: buttons of the form."""
    typed = request.GET.get("new", "").strip()[: search.MAX_QUERY]
    rows = search.search(request.user, typed, limit=SUGGESTIONS).rows if typed else []
    listed = set(request.GET.getlist("targets"))
    found = {row.model.model_id: row for row in reversed(rows) if row.model.model_id not in listed}
    context = {"rows": list(reversed(found.values())), "typed": typed, "listed": listed}
    return render(request, "catalog/_alias_suggestions.html", context)


# -- The form --------------------------------------------------------------------------------------------------------


def _form_page(request: Request, alias: ModelAlias | None) -> HttpResponse:
    is_post = request.method == "POST"
    form = AliasForm(request.POST if is_post else None, user=request.user, alias=alias)
    if not is_post:
        return _draw(request, alias, form)
    do = request.POST.get("do", "save")
    if do == "enter":
        do = "add" if request.POST.get("new", "").strip() else "save"
    if do != "save":
        data = request.POST.copy()
        data.setlist("targets", _rearranged(form.listed, do, request.POST.get("new", "").strip()))
        return _draw(request, alias, _unchecked(data, request, alias))
    if not form.is_valid():
        return _draw(request, alias, form, status=422)
    try:
        stored = aliases.save(form.filled(), by=request.user)
    except aliases.Unchanged:
        messages.info(request, "Nothing was different, so nothing was stored.")
        return _go(request, form.filled().get_absolute_url())
    except IntegrityError:  # somebody took the name in this moment
        form.add_error("name", form.taken)
        return _draw(request, alias, form, status=422)
    messages.success(request, f"“{stored.alias}” is stored. It can be used in chat and on /v1 within seconds.")
    _say_collisions(request, stored)
    return _go(request, stored.get_absolute_url())


def _unchecked(data: QueryDict, request: Request, alias: ModelAlias | None) -> AliasForm:
    """The form with what was typed, and no complaints about what is not finished."""
    typed = AliasForm(data, user=request.user, alias=alias)
    form = AliasForm(user=request.user, alias=alias)
    form.initial = {name: typed[name].value() for name in typed.fields}
    return form


def _rearranged(targets: list[str], do: str, typed: str) -> list[str]:
    """The list after one button. What makes no sense changes nothing."""
    verb, _, argument = do.partition(":")
    if verb == "add":
        new = argument or typed
        return [*targets, new] if new and new not in targets else targets
    if not (argument.isascii() and argument.isdigit() and len(argument) < 5 and int(argument) < len(targets)):
        return targets
    at = int(argument)
    if verb == "drop":
        return targets[:at] + targets[at + 1 :]
    to = {"up": at - 1, "down": at + 1}.get(verb, -1)
    if 0 <= to < len(targets):
        targets[at], targets[to] = targets[to], targets[at]
    return targets


def _draw(request: Request, alias: ModelAlias | None, form: AliasForm, *, status: int = 200) -> HttpResponse:
    listed = form.listed[: aliases.MAX_TARGETS]
    draft = aliases.draft(listed, alias)
    found = {target.model_id: target for target in aliases.targets_of(request.user, [draft])[0]}
    context: dict[str, Any] = {
        "alias": alias,
        "form": form,
        "rows": [(model_id, found.get(model_id)) for model_id in listed],
        "hidden": form.listed[aliases.MAX_TARGETS :],
        "is_editable": alias is None or _may_edit(request, alias),
        "most": aliases.MAX_TARGETS,
    }
    if request.htmx and not request.htmx.boosted and request.method == "POST":
        return render(request, "catalog/alias_detail.html#form", context, status=status)
    if alias is not None:
        context["collisions"] = aliases.collisions(request.user, [alias])[alias.pk]
        versions = ModelAliasVersion.objects.for_user(request.user).filter(alias=alias)
        context["versions"] = versions[: aliases.SHOWN_VERSIONS]
    return render(request, "catalog/alias_detail.html", context, status=status)


# -- Who may ---------------------------------------------------------------------------------------------------------


def _may_edit(request: Request, alias: ModelAlias) -> bool:
    return alias.owner_id == request.user.pk or (alias.is_global and aliases.may_edit_global(request.user))


def _editable(request: Request, pk: int) -> ModelAlias:
    """An alias this user may change. Everybody's is there to see, so who may not change it is told that it is not there
    to be changed: 404, as for a missing one."""
    alias = get_object_or_404(ModelAlias.objects.for_user(request.user), pk=pk)
    if not _may_edit(request, alias):
        raise Http404
    return alias


def _lines(request: Request, rows: list[ModelAlias]) -> list[Line]:
    targets = aliases.targets_of(request.user, rows)
    taken = aliases.collisions(request.user, rows)
    return [Line(row, targets[row.pk], taken[row.pk], _may_edit(request, row)) for row in rows]


def _say_collisions(request: Request, alias: ModelAlias) -> None:
    for collision in aliases.collisions(request.user, [alias])[alias.pk]:
        messages.warning(request, collision.text)


def _go(request: Request, url: str) -> HttpResponse:
    """Load `url`, one of our own paths, as a page."""
    if request.htmx:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)
