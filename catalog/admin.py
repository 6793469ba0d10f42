"""The catalog for staff: facts are the sync's to write, so they are shown; aliases and featuring are staff's.

Several tables point at accounts, whose ciphertext and hash an address such as `?account__api_key_hash__startswith=a`
would reach: lookups are narrowed to lists (A6).
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from catalog.models import AccountModel, AggregatorModel, CatalogVersion, ChangeSet, ModelAlias, ModelChange, SyncRun
from providers.admin import NarrowLookups


class WrittenBySync(NarrowLookups):
    """Staff may look. `editable` names the columns that are theirs after all."""

    editable: tuple[str, ...] = ()
    show_full_result_count = False
    list_per_page = 100
    actions = None

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(self.editable) and super().has_change_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [field.name for field in self.model._meta.fields if field.name not in self.editable]


@admin.register(AggregatorModel)
class AggregatorModelAdmin(WrittenBySync):
    editable = ("is_featured",)
    list_display = (
        "display_name",
        "model_id",
        "provider",
        "model_type",
        "price_kind",
        "price_input",
        "price_output",
        "context_window",
        "is_available",
        "missing_since",
        "is_featured",
    )
    list_filter = ("model_type", "price_kind", "is_available", "is_featured", "provider")
    lookups = (
        "model_type__exact",
        "price_kind__exact",
        "is_available__exact",
        "is_featured__exact",
        "provider__id__exact",
    )
    list_select_related = ("provider",)
    search_fields = ("model_id", "display_name", "successor")
    search_help_text = "Part of a model's id or name."
    ordering = ("display_name", "pk")

    def save_model(self, request: HttpRequest, obj: AggregatorModel, form: Any, change: bool) -> None:
        """Save staff's own columns alone: a sync may have written the others meanwhile. Search lists reload."""
        obj.save(update_fields=self.editable)
        CatalogVersion.objects.filter(provider_id=obj.provider_id).update(
            version=F("version") + 1, changed_at=timezone.now()
        )


@admin.register(ModelAlias)
class ModelAliasAdmin(NarrowLookups):
    list_display = ("alias", "owner", "targets", "updated_at")
    list_filter = (("owner", admin.EmptyFieldListFilter),)
    lookups = ("owner__isempty",)
    list_select_related = ("owner",)
    search_fields = ("alias", "owner__username")
    search_help_text = "Part of an alias, or of its owner's username."
    raw_id_fields = ("owner",)
    readonly_fields = ("created_at", "updated_at")


@admin.register(SyncRun)
class SyncRunAdmin(WrittenBySync):
    list_display = (
        "queued_at",
        "account",
        "provider",
        "trigger",
        "state",
        "total",
        "added",
        "gone",
        "back",
        "repriced",
        "changed",
        "skipped",
        "seconds",
        "error_code",
    )
    list_filter = ("state", "trigger", "error_code", "account__provider")
    lookups = (
        "state__exact",
        "trigger",
        "error_code",
        "account__provider__id__exact",
        *(f"queued_at__{part}" for part in ("year", "month", "day")),
    )
    list_select_related = ("account__provider",)
    search_fields = ("account__label", "account__owner__username", "error_message")
    search_help_text = "Part of an account's label, its owner's username, or the message."
    date_hierarchy = "queued_at"

    @admin.display(ordering="account__provider__display_name")
    def provider(self, run: SyncRun) -> str:
        return run.account.provider.display_name

    @admin.display
    def seconds(self, run: SyncRun) -> str:
        if run.started_at is None or run.finished_at is None:
            return "–"
        return f"{(run.finished_at - run.started_at).total_seconds():.1f}"


@admin.register(ModelChange)
class ModelChangeAdmin(WrittenBySync):
    list_display = ("at", "model_id_shown", "provider", "kind", "field", "before", "after")
    list_filter = ("kind", "model__provider")
    lookups = ("kind__exact", "model__provider__id__exact", *(f"at__{part}" for part in ("year", "month", "day")))
    list_select_related = ("model__provider",)
    search_fields = ("model__model_id", "model__display_name")
    search_help_text = "Part of a model's id or name."
    date_hierarchy = "at"

    @admin.display(description="model", ordering="model__model_id")
    def model_id_shown(self, change: ModelChange) -> str:
        return change.model.model_id

    @admin.display(ordering="model__provider__display_name")
    def provider(self, change: ModelChange) -> str:
        return change.model.provider.display_name


@admin.register(ChangeSet)
class ChangeSetAdmin(WrittenBySync):
    list_display = ("at", "provider", "shown_counts")
    list_filter = ("provider",)
    lookups = ("provider__id__exact", *(f"at__{part}" for part in ("year", "month", "day")))
    list_select_related = ("provider",)
    search_fields = ("provider__name", "provider__display_name")
    search_help_text = "Part of a provider's name."
    date_hierarchy = "at"

    @admin.display(description="changed models")
    def shown_counts(self, change_set: ChangeSet) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in change_set.counts.items())


@admin.register(AccountModel)
class AccountModelAdmin(WrittenBySync):
    list_display = ("model", "account", "owner")
    list_filter = ("account__provider",)
    lookups = ("account__provider__id__exact",)
    list_select_related = ("model", "account__owner", "account__provider")
    search_fields = ("model__model_id", "account__label", "account__owner__username")
    search_help_text = "Part of a model's id, an account's label, or its owner's username."
    ordering = ("-pk",)

    @admin.display(ordering="account__owner__username")
    def owner(self, offer: AccountModel) -> str:
        return offer.account.owner.get_username()


@admin.register(CatalogVersion)
class CatalogVersionAdmin(WrittenBySync):
    list_display = ("provider", "version", "changed_at")
    list_filter = ("changed_at",)
    lookups = ("changed_at__gte", "changed_at__lt")
    list_select_related = ("provider",)
    search_fields = ("provider__name", "provider__display_name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[CatalogVersion]:
        return super().get_queryset(request).order_by("provider__display_name")
