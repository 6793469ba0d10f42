"""What staff see of usage: every row and every sum, to read, filter and search; nothing to change (I10)."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse

from usage.models import ApiToken, DailyUsage, Notice, UsageLog
from usage.templatetags.money import milliseconds, tokens, usd


class ReadOnly(admin.ModelAdmin):
    """The ledger is written by the ledger alone: no adding, changing or deleting, no actions."""

    actions = None
    lookups: tuple[str, ...] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.lookups


def _of_rows(rows: QuerySet[UsageLog]) -> dict[str, Any]:
    settled = rows.exclude(status=UsageLog.Status.PENDING).order_by()
    return settled.aggregate(
        calls=Count("pk"),
        spent=Sum("cost"),
        unknown=Count("pk", filter=Q(cost__isnull=True)),
        prompt=Sum("prompt_tokens"),
        completion=Sum("completion_tokens"),
    )


def _of_everything() -> dict[str, Any]:
    """The same from the daily sums: the unfiltered list must not read the whole history."""
    return DailyUsage.objects.aggregate(
        calls=Coalesce(Sum("attempts"), 0),
        spent=Sum("cost"),
        unknown=Coalesce(Sum("unknown"), 0),
        prompt=Sum("prompt_tokens"),
        completion=Sum("completion_tokens"),
    )


@admin.register(UsageLog)
class UsageLogAdmin(ReadOnly):
    list_display = [
        "started_at",
        "user_id",
        "door",
        "model_id",
        "provider_name",
        "account_label",
        "tokens_in",
        "tokens_out",
        "shown_cost",
        "cost_source",
        "took",
        "status",
        "error_code",
    ]
    list_display_links = ["started_at", "model_id"]
    list_filter = ["status", "door", "cost_source", "provider_name", "started_at"]
    lookups = (
        "status__exact",
        "door__exact",
        "cost_source__exact",
        "provider_name",
        "provider_name__exact",
        "user_id__exact",
        "user_id",
        "started_at__gte",
        "started_at__lt",
    )
    search_fields = ["=model_id"]
    search_help_text = (
        "A model id, whole or its beginning; or a request, generation, conversation or upstream id, whole"
    )
    list_per_page = 100
    show_full_result_count = False
    change_list_template = "admin/usage/usagelog/change_list.html"
    ordering = ["-id"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageLog], search_term: str
    ) -> tuple[QuerySet[UsageLog], bool]:
        """By id where it is one, else by the beginning of the model id: no free scan over texts (M7)."""
        term = search_term.strip()[:300].replace("\x00", "")
        if not term:
            return queryset, False
        try:
            key = uuid.UUID(term)
        except ValueError:
            return queryset.filter(Q(model_id__startswith=term) | Q(upstream_id=term)), False
        return queryset.filter(Q(request_id=key) | Q(generation_id=key) | Q(conversation_id=key)), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with the totals of what it is narrowed to."""
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None)
        if context and "cl" in context:
            changes = context["cl"]
            context["totals"] = _of_rows(changes.queryset) if changes.params or changes.query else _of_everything()
        return response

    @admin.display(description="in", ordering="prompt_tokens")
    def tokens_in(self, row: UsageLog) -> str:
        return tokens(row.prompt_tokens)

    @admin.display(description="out", ordering="completion_tokens")
    def tokens_out(self, row: UsageLog) -> str:
        return tokens(row.completion_tokens)

    @admin.display(description="cost", ordering="cost")
    def shown_cost(self, row: UsageLog) -> str:
        return "running" if row.status == UsageLog.Status.PENDING else usd(row.cost)

    @admin.display(description="took", ordering="latency_ms")
    def took(self, row: UsageLog) -> str:
        return milliseconds(row.latency_ms)


@admin.register(DailyUsage)
class DailyUsageAdmin(ReadOnly):
    list_display = [
        "day",
        "user_id",
        "door",
        "model_id",
        "provider_name",
        "attempts",
        "failed",
        "unknown",
        "tokens_in",
        "tokens_out",
        "shown_cost",
    ]
    list_filter = ["door", "provider_name", "day"]
    lookups = (
        "door__exact",
        "provider_name",
        "provider_name__exact",
        "user_id__exact",
        "user_id",
        "day__gte",
        "day__lt",
    )
    search_fields = ["model_id__startswith"]
    search_help_text = "The beginning of a model id"
    list_per_page = 100
    show_full_result_count = False

    @admin.display(description="in", ordering="prompt_tokens")
    def tokens_in(self, row: DailyUsage) -> str:
        return tokens(row.prompt_tokens)

    @admin.display(description="out", ordering="completion_tokens")
    def tokens_out(self, row: DailyUsage) -> str:
        return tokens(row.completion_tokens)

    @admin.display(description="cost", ordering="cost")
    def shown_cost(self, row: DailyUsage) -> str:
        return usd(row.cost if row.cost is not None else Decimal(0), "$0.00")


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly):
    """Staff see who holds tokens and may end them. Hash and look-up part are nobody's to see or to ask about (A6)."""

    list_display = ["name", "owner", "is_live", "created_at", "last_used_at", "expires_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter), ("expires_at", admin.EmptyFieldListFilter), "created_at"]
    lookups = (
        "revoked_at__isempty",
        "expires_at__isempty",
        "created_at__gte",
        "created_at__lt",
    )
    list_select_related = ["owner"]
    search_fields = ["name", "owner__username", "owner__email"]
    search_help_text = "What the token is for, or its owner"
    fields = ["id", "owner", "name", "created_at", "last_used_at", "expires_at", "revoked_at"]
    ordering = ["-created_at"]
    actions = ["revoke"]  # type: ignore[assignment]

    @admin.display(description="works", boolean=True)
    def is_live(self, token: ApiToken) -> bool:
        return token.is_live

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usage.change_apitoken")

    @admin.action(description="Revoke the chosen tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        """End them for good; who did it stays in the log."""
        count = 0
        for token in queryset.filter(revoked_at__isnull=True):
            token.revoke()
            self.log_change(request, token, "Revoked.")
            count += 1
        said = "1 token is revoked." if count == 1 else f"{count} tokens are revoked."
        messages.success(request, f"{said} Programs that use them are refused within seconds.")


@admin.register(Notice)
class NoticeAdmin(ReadOnly):
    list_display = ["created_at", "owner", "model", "kind", "because", "read_at"]
    list_filter = ["kind", "because", ("read_at", admin.EmptyFieldListFilter)]
    lookups = ("kind__exact", "because__exact", "read_at__isempty")
    list_select_related = ["owner", "model"]
    search_fields = ["owner__username", "model__model_id"]
    search_help_text = "Part of a user's name or of a model's id."
    show_full_result_count = False
    list_per_page = 100
