"""The chat's pages: read, send, stop, ask again. Every lookup starts at the user; a foreign id is a missing one.

Without scripts each form works too: it posts, and the answer is a page or a redirect to one.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import Resolver404, resolve, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from catalog import own_prices, sync
from catalog.models import AggregatorModel, ModelAlias, SyncRun
from catalog.views import selector
from chat import generation as replies
from chat import turns, writing
from chat.context import figures_of
from chat.forms import MAX_MESSAGE_CHARS, MessageForm, RouteForm, TitleForm
from chat.models import Conversation, Generation, Message
from config.htmx import path_behind
from providers import checking
from providers.forms import AddAccountForm
from providers.models import Provider, ProviderAccount
from usage import pricing

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django_htmx.middleware import HtmxDetails

    class Request(HttpRequest):
        """What our middleware makes of a request."""

        htmx: HtmxDetails
        user: User


SUGGESTIONS = (
    "Explain window functions in SQL with a small example.",
    "Write a polite letter that asks for a refund.",
    "Which questions should I ask before I buy a used bicycle?",
    "Make a table of the planets with size, day and year.",
)


# -- Pages -----------------------------------------------------------------------------------------------------------


@require_GET
@never_cache
@vary_on_headers("HX-Request")
def conversation_list(request: Request) -> HttpResponse:
    """The first page: a new conversation, or what is missing before one can begin."""
    context = {"conversation": None, **_missing(request)}
    if "needs" not in context:
        context |= {"composer": _composer(request, None), "suggestions": SUGGESTIONS}
    return render(request, "chat/conversation_detail.html", context)


@require_GET
@never_cache
def conversation_detail(request: Request, pk: UUID) -> HttpResponse:
    """A conversation; `?at=` names a message whose branch to show."""
    conversation = _mine(request, pk)
    return render(request, "chat/conversation_detail.html", _page(request, conversation, at=_number(request, "at")))


@require_GET
@never_cache
def conversation_earlier(request: Request, pk: UUID) -> HttpResponse:
    """The turns before `?before=`, for the button above the first one."""
    conversation = _mine(request, pk)
    first = get_object_or_404(conversation.messages.all(), pk=_number(request, "before") or 0)
    shown, has_earlier = turns.on_path(first.parent_id)
    context = {"conversation": conversation, "turns": shown, "has_earlier": has_earlier}
    return render(request, "chat/conversation_detail.html#earlier", context)


@require_GET
@never_cache
def sidebar(request: Request) -> HttpResponse:
    """The list of conversations as it now is, and the figures of the one on the page."""
    conversation = _open_conversation(request)
    return render(request, "chat/sidebar.html", {"figures": figures_of(conversation) if conversation else None})


@require_GET
@never_cache
def model_picker(request: Request) -> HttpResponse:
    """The composer's model button after a choice in the selector. A model the user may not use is as if not there."""
    found = AggregatorModel.objects.available_to(request.user).filter(pk=_number(request, "model") or 0)
    account = _account(request, request.GET.get("account", ""))
    model, alias = _priced(request, found.first()), _alias(request, _number(request, "alias"))
    return render(request, "chat/_picker.html", {"model": model, "account": account, "alias": alias})


@require_GET
@never_cache
def model_select(request: Request) -> HttpResponse:
    """The selector, told what the composer holds: `draft` bytes of text after the message `parent`, for `model` and
    `account`. What is not the user's is as if not there."""
    size = min(_number(request, "draft") or 0, MAX_MESSAGE_CHARS * 4)
    parent = _number(request, "parent")
    if parent and Message.objects.for_user(request.user).filter(pk=parent).exists():
        size += Message.objects.size_of_path(parent)
    model, account = _number(request, "model"), _account(request, request.GET.get("account", ""))
    alias = _alias(request, _number(request, "alias"))
    current = (model, account.pk if account else None) if model and alias is None else None
    tokens = pricing.estimate_tokens(size) or None
    return selector(request, current=current, tokens=tokens, alias=alias.pk if alias else None)


# -- Write -----------------------------------------------------------------------------------------------------------


@require_POST
@never_cache
def message_send(request: Request, pk: UUID | None = None) -> HttpResponse:
    """Store the message and a pending reply, begin a conversation if there is none, and show both."""
    conversation = _mine(request, pk) if pk else None
    form = MessageForm(request.POST, user=request.user)
    if not form.is_valid():
        return _refuse(request, conversation, form.sentences)
    given = form.cleaned_data
    try:
        sent = writing.send(
            request.user,
            conversation=conversation,
            **{name: given[name] for name in ("text", "model", "account", "alias", "parent", "client_key")},
        )
    except writing.Refused as exc:
        return _refuse(request, conversation, [str(exc)])
    if not request.htmx:
        return redirect(sent.conversation)
    is_new, conversation = conversation is None, _mine(request, sent.conversation.pk)
    if is_new:
        response = render(request, "chat/conversation_begun.html", _page(request, conversation))
        response["HX-Push-Url"] = conversation.get_absolute_url()
        return response
    new = [turns.turn_of(sent.question.pk), turns.turn_of(sent.reply.pk)]
    composer = _composer(request, conversation, leaf=sent.reply.pk, is_oob=True)
    context = {"conversation": conversation, "turns": new, "composer": composer}
    response = render(request, "chat/turns_added.html", context)
    response["HX-Trigger-After-Settle"] = "conversations-changed"
    return response


@require_POST
@never_cache
def message_retry(request: Request, pk: int) -> HttpResponse:
    """Ask again: another reply to the same question, beside this one, by the model that is picked now."""
    reply = get_object_or_404(Message.objects.for_user(request.user).select_related("conversation__owner"), pk=pk)
    data = request.POST.copy()
    if not data.get("model") and not data.get("alias"):
        asked = Generation.objects.filter(message=reply).first()
        for name in ("model", "account", "alias"):
            data[name] = str(getattr(asked, f"{name}_id") or "") if asked else ""
    form = RouteForm(data, user=request.user)
    problem = " ".join(form.sentences)
    if not problem:
        try:
            given = form.cleaned_data
            new = writing.retry(reply, **{name: given[name] for name in ("model", "account", "alias", "client_key")})
        except writing.Refused as exc:
            problem = str(exc)
    if not request.htmx:
        if problem:
            messages.error(request, problem)
        return redirect(reply.conversation)
    if problem:
        return _refuse(request, reply.conversation, [problem], text=request.POST.get("text", ""))
    conversation = _mine(request, reply.conversation_id)
    page = _page(request, conversation, at=new.pk, text=request.POST.get("text", ""), is_oob=True)
    response = render(request, "chat/turns_again.html", page)
    response["HX-Trigger-After-Settle"] = "conversations-changed"
    return response


@require_POST
@never_cache
def generation_stop(request: Request, pk: UUID) -> HttpResponse:
    """End a reply. The text so far and its cost are kept; the page hears of the end by the event stream."""
    generations = Generation.objects.for_user(request.user).select_related("message__conversation")
    generation = get_object_or_404(generations, pk=pk)
    if generation.is_open and not replies.sweep_one(generation):
        replies.request_stop(generation)
    if not request.htmx:
        return redirect(generation.message.conversation)
    return HttpResponse(status=204)


def _refuse(
    request: Request, conversation: Conversation | None, problems: list[str], *, text: str | None = None
) -> HttpResponse:
    """The composer again, with what was typed and why it was not sent. Nothing was stored."""
    composer = _composer(request, conversation, leaf=_number(request, "parent", "POST"), problems=problems)
    composer["text"] = request.POST.get("text", "") if text is None else text
    if picked := AggregatorModel.objects.available_to(request.user).filter(pk=_number(request, "model", "POST") or 0):
        composer |= {
            "model": _priced(request, picked.first()),
            "account": _account(request, request.POST.get("account", "")),
        }
    composer["alias"] = _alias(request, _number(request, "alias", "POST"))
    if request.htmx:
        context = {"conversation": conversation, "composer": composer, **composer}
        response = render(request, "chat/_composer.html", context, status=422)
        response["HX-Retarget"], response["HX-Reswap"] = "#composer", "outerHTML"
        return response
    page = _page(request, conversation) if conversation else {"conversation": None, "suggestions": ()}
    return render(request, "chat/conversation_detail.html", {**page, "composer": composer}, status=422)


# -- One conversation ------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "POST"])
@never_cache
def conversation_rename(request: Request, pk: UUID) -> HttpResponse:
    """GET: the dialog. POST: the new name."""
    conversation = _mine(request, pk)
    form = TitleForm(request.POST or None, instance=conversation)
    if request.method == "POST" and form.is_valid():
        Conversation.objects.filter(pk=conversation.pk).update(title=form.cleaned_data["title"])
        return _go(request, conversation.get_absolute_url())
    context = {"form": form, "conversation": conversation}
    return render(request, "chat/conversation_rename.html", context, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "POST"])
@never_cache
def conversation_delete(request: Request, pk: UUID) -> HttpResponse:
    """GET asks; POST stops what is being written and deletes. What it cost stays in the usage."""
    conversation = _mine(request, pk)
    if request.method == "GET":
        context = {"conversation": conversation, "count": conversation.messages.count()}
        return render(request, "chat/conversation_delete.html", context)
    for generation in Generation.objects.for_user(request.user).open().filter(message__conversation=conversation):
        replies.request_stop(generation)
    conversation.delete()
    messages.success(request, "The conversation was deleted. What it cost stays in your usage.")
    return _go(request, reverse("chat:conversation-list"))


def _go(request: Request, url: str) -> HttpResponse:
    """Load `url`, one of our own paths, as a page."""
    if request.htmx:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)


# -- Before the first conversation -----------------------------------------------------------------------------------


@require_POST
@never_cache
def provider_try(request: Request, pk: int) -> HttpResponse:
    """Add an account at a provider that needs no key, in one click."""
    built_in = Provider.objects.for_user(request.user).active().filter(owner=None)
    provider = get_object_or_404(built_in.filter(features__keyless=True), pk=pk)
    form = AddAccountForm({"label": provider.display_name}, user=request.user, provider=provider)
    if form.is_valid() and form.accept(probe := checking.check(form.account)):
        sync.queue(form.save(probe), "button")
    for problem in (error for errors in form.errors.values() for error in errors):
        messages.error(request, str(problem))
    return _go(request, reverse("chat:conversation-list"))


def _missing(request: Request) -> dict[str, Any]:
    """What stands between this user and a conversation: `needs` is "account" or "models"; {} if nothing does."""
    if AggregatorModel.objects.available_to(request.user).exists():
        return {}
    accounts = ProviderAccount.objects.for_user(request.user)
    if not accounts.exists():
        keyless = Provider.objects.for_user(request.user).active().filter(owner=None, features__keyless=True)
        return {"needs": "account", "keyless": keyless}
    runs = SyncRun.objects.for_user(request.user)
    is_syncing = runs.filter(state__in=[SyncRun.State.QUEUED, SyncRun.State.RUNNING]).exists()
    return {"needs": "models", "is_syncing": is_syncing, "run": runs.order_by("-queued_at").first()}


# -- What the templates get ------------------------------------------------------------------------------------------


def _mine(request: Request, pk: UUID) -> Conversation:
    conversations = Conversation.objects.for_user(request.user).select_related("model__provider", "account", "alias")
    return get_object_or_404(conversations, pk=pk)


def _page(
    request: Request, conversation: Conversation, *, at: int | None = None, text: str = "", is_oob: bool = False
) -> dict[str, Any]:
    leaf = turns.leaf_of(conversation, at)
    shown, has_earlier = turns.on_path(leaf)
    for turn in shown:  # a reply whose process died is shown as what it is (I8)
        if turn.is_open and turn.generation is not None and replies.sweep_one(turn.generation):
            turn.generation.refresh_from_db()
    return {
        "conversation": conversation,
        "turns": shown,
        "has_earlier": has_earlier,
        "figures": figures_of(conversation),
        "composer": {**_composer(request, conversation, leaf=leaf, is_oob=is_oob), "text": text},
    }


def _composer(
    request: Request,
    conversation: Conversation | None,
    *,
    leaf: int | None = None,
    problems: list[str] | None = None,
    is_oob: bool = False,
) -> dict[str, Any]:
    """The composer: where it posts, which message it answers, which model it offers, and a fresh key (F18)."""
    model, account, alias = _offer(request, conversation)
    return {
        "send_url": reverse("chat:message-send", args=[conversation.pk] if conversation else []),
        "parent": leaf,
        "model": _priced(request, model),
        "account": account,
        "alias": alias,
        "client_key": uuid.uuid4(),
        "problems": problems or [],
        "text": "",
        "is_oob": is_oob,
    }


def _offer(
    request: Request, conversation: Conversation | None
) -> tuple[AggregatorModel | None, ProviderAccount | None, ModelAlias | None]:
    """The model to offer: this conversation's, else the one used last, else a featured one, else the first listed.

    A conversation whose model is gone keeps showing it: sending then explains what happened (F14).
    """
    if conversation is not None and (conversation.model is not None or conversation.alias is not None):
        return conversation.model, conversation.account, conversation.alias
    available = AggregatorModel.objects.available_to(request.user).select_related("provider")
    last = (
        Conversation.objects.for_user(request.user)
        .filter(model__in=available)
        .select_related("model__provider", "account", "alias")
        .order_by("-updated_at")
        .first()
    )
    if last is not None:
        return last.model, last.account, last.alias
    chat = available.filter(model_type=AggregatorModel.ModelType.CHAT)
    return chat.order_by("-is_featured", "pk").first() or available.first(), None, None


def _priced(request: Request, model: AggregatorModel | None) -> AggregatorModel | None:
    """`model` with the prices that count for this user."""
    if model is not None:
        own_prices.lay_over(request.user, [model])
    return model


def _account(request: Request, pk: str) -> ProviderAccount | None:
    try:
        return ProviderAccount.objects.for_user(request.user).filter(pk=UUID(pk)).first()
    except ValueError:
        return None


def _alias(request: Request, pk: int | None) -> ModelAlias | None:
    return ModelAlias.objects.for_user(request.user).filter(pk=pk).first() if pk else None


def _open_conversation(request: Request) -> Conversation | None:
    """The conversation on the page that this htmx request came from, if it is the user's."""
    path = path_behind(request)
    try:
        match = resolve(path) if path else None
    except Resolver404:
        return None
    if match is None or match.view_name != "chat:conversation-detail":
        return None
    return Conversation.objects.for_user(request.user).filter(pk=match.kwargs["pk"]).first()


def _number(request: Request, name: str, method: str = "GET") -> int | None:
    """A primary key from the query or the form; None for anything else."""
    text = getattr(request, method).get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
