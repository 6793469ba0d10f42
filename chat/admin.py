"""Conversations in the admin: read-only. What people wrote is hidden from staff without `chat.read_conversations`,
and who reads a message or a conversation with that permission leaves an entry in the log (A6)."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from chat.models import Conversation, Generation, Message

PERMISSION = "chat.read_conversations"


class ReadOnlyAdmin(admin.ModelAdmin):
    """Staff look; nobody changes a conversation but its owner. `words` are columns that hold what people wrote."""

    words: tuple[str, ...] = ()
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only the declared filters: a filter on a hidden column would answer questions about it, one by one."""
        declared = {item for item in self.list_filter if isinstance(item, str)}
        return lookup.split("__")[0] in declared | {self.date_hierarchy}

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = [field.name for field in self.opts.concrete_fields]
        return fields if request.user.has_perm(PERMISSION) else [name for name in fields if name not in self.words]

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = list(super().get_list_display(request))
        return shown if request.user.has_perm(PERMISSION) else [name for name in shown if name not in self.words]

    def get_search_fields(self, request: HttpRequest) -> Any:
        fields = list(super().get_search_fields(request))
        return fields if request.user.has_perm(PERMISSION) else [name for name in fields if name not in self.words]

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        response = super().changeform_view(request, object_id, form_url, extra_context)
        if self.words and object_id and response.status_code == 200 and request.user.has_perm(PERMISSION):
            LogEntry.objects.create(
                user=request.user,  # type: ignore[misc]
                content_type=ContentType.objects.get_for_model(self.model),
                object_id=object_id,
                object_repr=f"{self.opts.verbose_name} {object_id}"[:200],
                action_flag=CHANGE,
                change_message="Read.",
            )
        return response


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    words = ("title",)
    list_display = ("id", "owner", "title", "model", "created_at", "updated_at")
    list_filter = ("archived_at", "created_at")
    list_select_related = ("owner", "model")
    search_fields = ("id", "owner__username", "title")
    date_hierarchy = "updated_at"
    ordering = ("-updated_at",)


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    words = ("content", "reasoning", "tool_calls")
    list_display = ("id", "conversation_id", "owner", "role", "size", "created_at")
    list_filter = ("role", "created_at")
    list_select_related = ("conversation__owner",)
    search_fields = ("=id", "=conversation__id", "conversation__owner__username")
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("conversation__owner")

    @admin.display(description="owner")
    def owner(self, message: Message) -> str:
        return str(message.conversation.owner)

    @admin.display(description="characters")
    def size(self, message: Message) -> int:
        return len(message.content)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        # Two users' rows are named by their ids: a message's own text would be in the text of a link.
        return [name for name in super().get_fields(request, obj) if name != "client_key"]


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    list_display = ("id", "state", "error_code", "model_name", "provider_name", "created_at", "finished_at")
    list_filter = ("state", "error_code", "created_at")
    search_fields = ("id", "=message__conversation__id", "model_name", "error_code")
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
