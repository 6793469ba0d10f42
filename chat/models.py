"""Conversations as trees of messages, and the life of each reply."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import connections, models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from catalog.models import AggregatorModel, ModelAlias
from providers.models import ProviderAccount
from providers.ownership import OwnedQuerySet

if TYPE_CHECKING:
    from providers.models import AnyUser


class ConversationQuerySet(OwnedQuerySet["Conversation"]):
    def active(self) -> Self:
        return self.filter(archived_at__isnull=True)


class Conversation(models.Model):
    """A tree of messages with a title; `model`, or the `alias` that led to it, is what the composer offers next."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="conversations")
    title = models.CharField(max_length=200, blank=True)
    model = models.ForeignKey(AggregatorModel, models.SET_NULL, null=True, blank=True, related_name="+")
    account = models.ForeignKey(ProviderAccount, models.SET_NULL, null=True, blank=True, related_name="+")
    alias = models.ForeignKey(ModelAlias, models.SET_NULL, null=True, blank=True, related_name="+")
    archived_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        db_table = "chat_conversations"
        ordering = ["-updated_at"]
        indexes = [models.Index(fields=["owner", "-updated_at"])]
        permissions = [("read_conversations", "Can read other people's conversations")]

    def __str__(self) -> str:
        # Not the title: the admin shows this to staff who may not read what people write (A6).
        return f"conversation {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("chat:conversation-detail", args=[self.pk])

    @property
    def name(self) -> str:
        return self.title or "New conversation"


class MessageQuerySet(models.QuerySet["Message"]):
    def for_user(self, user: AnyUser) -> Self:
        return self.filter(conversation__in=Conversation.objects.for_user(user))

    def path_to(self, leaf_id: int, *, limit: int = 100_000) -> list[Message]:
        """The last `limit` turns of the way from the root to `leaf_id`, oldest first. Walks up the tree in the
        database, so that a page costs what it shows and not what the conversation holds.

        Note: it does not look at who owns them; the caller has found `leaf_id` by `for_user`.
        """
        rows = self.raw(
            """
            WITH RECURSIVE path(id, parent_id, depth) AS (
                SELECT id, parent_id, 1 FROM chat_messages WHERE id = %s
                UNION ALL
                SELECT above.id, above.parent_id, path.depth + 1
                FROM chat_messages above JOIN path ON above.id = path.parent_id WHERE path.depth < %s
            )
            SELECT chat_messages.* FROM chat_messages JOIN path ON path.id = chat_messages.id
            ORDER BY chat_messages.id
            """,
            [leaf_id, limit],
        )
        return list(rows)

    def size_of_path(self, leaf_id: int) -> int:
        """Bytes of all turns from the root to `leaf_id`: what a model reads before the next message.

        Note: it does not look at who owns them; the caller has found `leaf_id` by `for_user`.
        """
        with connections[self.db].cursor() as cursor:
            measure = "OCTET_LENGTH({})" if cursor.db.vendor == "postgresql" else "LENGTH(CAST({} AS BLOB))"
            cursor.execute(
                f"""
                WITH RECURSIVE path(id, parent_id) AS (
                    SELECT id, parent_id FROM chat_messages WHERE id = %s
                    UNION ALL
                    SELECT above.id, above.parent_id
                    FROM chat_messages above JOIN path ON above.id = path.parent_id
                )
                SELECT COALESCE(SUM({measure.format("content")}), 0)
                FROM chat_messages JOIN path ON path.id = chat_messages.id
                """,  # noqa: S608
                [leaf_id],
            )
            return int(cursor.fetchone()[0])

    def newest_below(self, message_id: int) -> int:
        """The leaf that a reader who picks the branch at `message_id` sees: the newest message under it, or itself."""
        with connections[self.db].cursor() as cursor:
            cursor.execute(
                """
                WITH RECURSIVE below(id) AS (
                    SELECT id FROM chat_messages WHERE id = %s
                    UNION ALL
                    SELECT child.id FROM chat_messages child JOIN below ON child.parent_id = below.id
                )
                SELECT MAX(id) FROM below
                """,
                [message_id],
            )
            return cursor.fetchone()[0]


class Message(models.Model):
    """One turn. Order comes from the primary key, not from the clock (I24); a retry is a sibling (I17)."""

    class Role(models.TextChoices):
        USER = "user", "You"
        ASSISTANT = "assistant", "Reply"

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    parent = models.ForeignKey("self", models.CASCADE, null=True, blank=True, related_name="replies")
    role = models.CharField(max_length=16, choices=Role)
    content = models.TextField(blank=True)
    reasoning = models.TextField(blank=True)
    tool_calls = models.JSONField(default=list, blank=True)
    client_key = models.UUIDField(null=True, help_text="Made by the page: sending twice makes one message (F18).")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        db_table = "chat_messages"
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "client_key"],
                condition=Q(client_key__isnull=False),
                name="one_message_per_send",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.pk}"


class GenerationQuerySet(models.QuerySet["Generation"]):
    def for_user(self, user: AnyUser) -> Self:
        return self.filter(message__conversation__in=Conversation.objects.for_user(user))

    def open(self) -> Self:
        return self.filter(state__in=Generation.OPEN_STATES)


class Generation(models.Model):
    """The life of one reply: pending → streaming → one end state, which never changes (I8)."""

    class State(models.TextChoices):
        PENDING = "pending", "Waiting for the first word"
        STREAMING = "streaming", "Writing"
        COMPLETE = "complete", "Complete"
        STOPPED = "stopped", "Stopped by you"
        INTERRUPTED = "interrupted", "Interrupted"
        FAILED = "failed", "Failed"
        REFUSED = "refused", "Not sent"

    OPEN_STATES = (State.PENDING, State.STREAMING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    message = models.OneToOneField(Message, models.CASCADE, related_name="generation")
    state = models.CharField(max_length=16, choices=State, default=State.PENDING)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    finish_reason = models.CharField(max_length=40, blank=True, help_text="Why the model ended, in its own word.")
    failover = models.CharField(max_length=300, blank=True, help_text="Who was asked first, and what they said.")
    account = models.ForeignKey(ProviderAccount, models.SET_NULL, null=True, blank=True, related_name="+")
    model = models.ForeignKey(AggregatorModel, models.SET_NULL, null=True, blank=True, related_name="+")
    alias = models.ForeignKey(ModelAlias, models.SET_NULL, null=True, blank=True, related_name="+")
    alias_name = models.CharField(max_length=120, blank=True, help_text="The alias that was asked for, if one was.")
    account_label = models.CharField(max_length=80, blank=True)
    provider_name = models.CharField(max_length=100, blank=True)
    model_name = models.CharField(max_length=300, blank=True)
    seq = models.BigIntegerField(default=0, help_text="Number of the last event the stored text contains.")
    process = models.CharField(max_length=80, blank=True, help_text="The web process that runs it.")
    heartbeat_at = models.DateTimeField(default=timezone.now)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    first_token_at = models.DateTimeField(null=True, blank=True)
    reasoning_ended_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = GenerationQuerySet.as_manager()

    class Meta:
        db_table = "chat_generations"
        indexes = [
            models.Index(
                fields=["heartbeat_at"], condition=Q(state__in=["pending", "streaming"]), name="generation_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.state}"

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN_STATES
