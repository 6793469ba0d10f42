"""What the pages show of a conversation: turns with everything a template needs, found with a handful of queries.

A reply looks the same while it is written, when it has ended and after a reload, because the same functions draw it:
the live events come from `chat.transcript`, the rest from here, and both go through `chat.rendering`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from django.template.loader import render_to_string
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from chat.models import Conversation, Generation, Message
from chat.rendering import render_block, split
from config.hot import url_for
from usage import pricing, reports

SHOWN = 60
"""Turns on a page; earlier ones come on request."""


@dataclass
class Turn:
    """One message as a page shows it. `siblings` are the primary keys of all answers to the same message, in order."""

    message: Message
    generation: Generation | None = None
    receipt: reports.Receipt | None = None
    siblings: list[int] = field(default_factory=list)

    @property
    def is_reply(self) -> bool:
        return self.message.role == Message.Role.ASSISTANT

    @property
    def is_open(self) -> bool:
        return self.generation is not None and self.generation.is_open

    @cached_property
    def _parts(self) -> tuple[SafeString, SafeString]:
        parts = split(self.message.content)
        closed = format_html_join("", "{}", ((render_block(block),) for block in parts.closed))
        return closed, render_block(parts.tail, open=self.is_open)

    @property
    def closed(self) -> SafeString:
        """HTML of the blocks that no later text changes."""
        return self._parts[0]

    @property
    def tail(self) -> SafeString:
        """HTML of the last block; still open while the reply is written."""
        return self._parts[1]

    @property
    def events_url(self) -> str:
        assert self.generation is not None
        return url_for("generation-events", pk=self.generation.pk)

    @property
    def model_name(self) -> str:
        return self.generation.model_name if self.generation else ""

    @property
    def monogram(self) -> str:
        return next((char.upper() for char in self.model_name if char.isalnum()), "?")

    @property
    def via(self) -> str:
        """Who answered: the provider, and the account's label where that says more."""
        if self.generation is None:
            return ""
        provider, label = self.generation.provider_name, self.generation.account_label
        return f"{provider} · {label}" if provider and label and label != provider else provider or label

    @property
    def thought(self) -> str:
        """The folded line over the reasoning: "Thought for 3 s · 214 tokens"."""
        generation = self.generation
        words = []
        if generation is not None and generation.first_token_at:
            until = generation.reasoning_ended_at or generation.finished_at
            if until is not None:
                words.append(f"for {max(round((until - generation.first_token_at).total_seconds()), 1)} s")
        counted = self.receipt.reasoning_tokens if self.receipt else None
        tokens = counted or pricing.estimate_tokens(len(self.message.reasoning.encode()))
        return f"Thought {' '.join(words)} · {'' if counted else '≈ '}{tokens:,} tokens".replace("  ", " ")

    @property
    def note(self) -> str:
        """What a reader must know about how the reply ended; "" if all is well."""
        generation = self.generation
        if generation is None or generation.is_open:
            return ""
        if generation.state != Generation.State.COMPLETE:
            return generation.error_message or generation.get_state_display()
        if generation.finish_reason == "length":
            return "Cut off at the longest answer this model gives."
        if generation.finish_reason == "content_filter":
            return "The provider's filter ended this reply."
        if not self.message.content and not self.message.tool_calls:
            return "The model ended its reply without a word."
        return ""

    @property
    def note_variant(self) -> str:
        """Badge variant of the end state."""
        state = self.generation.state if self.generation else ""
        if state in (Generation.State.FAILED, Generation.State.REFUSED):
            return "bad"
        return "warn" if state == Generation.State.INTERRUPTED else "neutral"

    @property
    def place(self) -> int:
        """Which of its siblings this is, from 1."""
        return self.siblings.index(self.message.pk) + 1 if self.message.pk in self.siblings else 1

    @property
    def previous(self) -> int | None:
        at = self.place - 1
        return self.siblings[at - 1] if at > 0 else None

    @property
    def next(self) -> int | None:
        at = self.place
        return self.siblings[at] if at < len(self.siblings) else None


def leaf_of(conversation: Conversation, at: int | None = None) -> int | None:
    """The last message of the branch to show: the one at `at`, or the one that was written to last. None: no messages.

    The newest message of a tree is always a leaf. An `at` of another conversation counts as none.
    """
    messages = conversation.messages.all()
    if at is not None and messages.filter(pk=at).exists():
        return Message.objects.newest_below(at)
    return messages.order_by("-pk").values_list("pk", flat=True).first()


def on_path(leaf_id: int | None, *, limit: int = SHOWN) -> tuple[list[Turn], bool]:
    """The last `limit` turns up to `leaf_id`, oldest first, and whether there are earlier ones."""
    if leaf_id is None:
        return [], False
    path = Message.objects.path_to(leaf_id, limit=limit + 1)
    return _dress(path[-limit:]), len(path) > limit


def _dress(messages: Iterable[Message]) -> list[Turn]:
    messages = list(messages)
    replies = [message for message in messages if message.role == Message.Role.ASSISTANT]
    generations = {g.message_id: g for g in Generation.objects.filter(message__in=replies)}
    ended = [g.pk for g in generations.values() if not g.is_open]
    receipts = reports.receipts_for(ended) if ended else {}
    siblings: dict[int | None, list[int]] = defaultdict(list)
    parents = [message.parent_id for message in replies if message.parent_id]
    for pk, parent_id in Message.objects.filter(parent__in=parents).order_by("pk").values_list("pk", "parent_id"):
        siblings[parent_id].append(pk)
    turns = []
    for message in messages:
        generation = generations.get(message.pk)
        receipt = receipts.get(generation.pk) if generation else None
        brothers = siblings[message.parent_id] if message.role == Message.Role.ASSISTANT else []
        turns.append(Turn(message, generation, receipt, brothers))
    return turns


def turn_of(message_id: int) -> Turn:
    """One message as a turn."""
    return _dress([Message.objects.get(pk=message_id)])[0]


def finished_html(message_id: int) -> str:
    """A message's turn as HTML, for the event that ends a reply: the same template as the page's."""
    return render_to_string("chat/_turn.html", {"turn": turn_of(message_id)})
