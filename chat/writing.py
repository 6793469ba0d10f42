"""Storing what a person wrote, and the reply that shall follow it: one transaction, then the work starts (I7).

One reply per conversation is written at a time; sending twice makes one message and one upstream call (F18).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from chat import generation as replies
from chat.models import Conversation, Generation, Message
from chat.rendering import visible
from usage import ledger

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from catalog.models import AggregatorModel, ModelAlias
    from providers.models import ProviderAccount

MAX_OPEN_PER_USER = 8


class Refused(Exception):
    """Nothing was stored; str() is a sentence for the writer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What is stored now. `question` is the user's message; a repeated send gets what the first one made."""

    conversation: Conversation
    question: Message
    reply: Message


def send(
    user: User,
    *,
    text: str,
    model: AggregatorModel,
    account: ProviderAccount | None,
    alias: ModelAlias | None = None,
    conversation: Conversation | None = None,
    parent: int | None = None,
    client_key: uuid.UUID | None = None,
) -> Sent:
    """Store a message and a pending reply to it; start the reply after the commit. Raises Refused.

    Without `conversation` a new one begins; its id follows from `client_key`, so that sending twice finds it.
    """
    with transaction.atomic():
        if conversation is None:
            conversation = _begin(user, text, client_key)
        conversation = _locked(conversation)
        if client_key is not None and (sent := _sent_before(conversation, client_key)) is not None:
            return sent
        _check_free(user, conversation)
        messages = conversation.messages.all()
        above = messages.filter(pk=parent).first() if parent else messages.order_by("-pk").first()
        if parent and above is None:
            raise Refused("This conversation has changed. Reload the page.")
        question = Message.objects.create(
            conversation=conversation, parent=above, role=Message.Role.USER, content=text, client_key=client_key
        )
        reply = _reply_to(question, model, account, alias=alias)
    return Sent(conversation, question, reply)


def retry(
    reply: Message,
    *,
    model: AggregatorModel,
    account: ProviderAccount | None,
    alias: ModelAlias | None = None,
    client_key: uuid.UUID | None = None,
) -> Message:
    """A new reply beside `reply`, to the same question; both stay (I17). Raises Refused."""
    with transaction.atomic():
        conversation = _locked(reply.conversation)
        if client_key is not None and (known := conversation.messages.filter(client_key=client_key).first()):
            return known
        _check_free(conversation.owner, conversation)
        if reply.parent is None or reply.role != Message.Role.ASSISTANT:
            raise Refused("Only a reply can be asked for again.")
        return _reply_to(reply.parent, model, account, client_key, alias=alias)


def _begin(user: User, text: str, client_key: uuid.UUID | None) -> Conversation:
    pk = uuid.uuid5(client_key, f"conversation of {user.pk}") if client_key else uuid.uuid4()
    conversation, _ = Conversation.objects.get_or_create(pk=pk, owner=user, defaults={"title": title_from(text)})
    return conversation


def _locked(conversation: Conversation) -> Conversation:
    """The row, ours until the commit: of two writers one comes second. (SQLite locks whole transactions anyway.)"""
    locked = Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
    if locked is None:
        raise Refused("This conversation was deleted.")
    return locked


def _sent_before(conversation: Conversation, client_key: uuid.UUID) -> Sent | None:
    question = conversation.messages.filter(client_key=client_key, role=Message.Role.USER).first()
    reply = question.replies.order_by("pk").first() if question else None
    return Sent(conversation, question, reply) if question and reply else None


def _check_free(user: User, conversation: Conversation) -> None:
    ours = Generation.objects.for_user(user).open()
    for generation in ours.filter(message__conversation=conversation):
        if not replies.sweep_one(generation):
            raise Refused("A reply is being written. Wait until it ends, or stop it.")
    if ours.count() >= MAX_OPEN_PER_USER:
        raise Refused(f"{MAX_OPEN_PER_USER} replies are being written for you. Wait until one ends, or stop one.")


def _reply_to(
    question: Message,
    model: AggregatorModel,
    account: ProviderAccount | None,
    client_key: uuid.UUID | None = None,
    *,
    alias: ModelAlias | None = None,
) -> Message:
    reply = Message.objects.create(
        conversation=question.conversation, parent=question, role=Message.Role.ASSISTANT, client_key=client_key
    )
    generation = Generation.objects.create(
        message=reply,
        model=model,
        account=account,
        alias=alias,
        alias_name=alias.alias if alias else "",
        model_name=model.display_name[:300],
        provider_name=model.provider.display_name[:100],
        account_label=account.label[:80] if account else "",
        process=ledger.this_process(),
    )
    Conversation.objects.filter(pk=question.conversation_id).update(
        model=model, account=account, alias=alias, updated_at=timezone.now()
    )
    transaction.on_commit(partial(replies.start, generation.pk))
    return reply


def title_from(text: str) -> str:
    """The first line of a message, short enough for the sidebar."""
    line = visible(next((line for line in text.splitlines() if line.strip()), "").strip()).lstrip("#>*- ")
    if len(line) <= 60:
        return line
    return line[:60].rsplit(" ", 1)[0].rstrip(",.;:") + "…"
