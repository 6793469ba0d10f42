"""The catalog for staff: facts are the sync's to write, so they are shown; aliases and featuring are staff's.

Several tables point at accounts, whose ciphertext and hash an address such as `?account__api_key_hash__startswith=a`
would reach: lookups are narrowed to lists (A6).
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from catalog import aliases, sync
from catalog.alias_forms import DollarField
from catalog.models import (
    AccountModel,
    AggregatorModel,
    CapabilityProbe,
    CatalogVersion,
    ChangeSet,
    FavouriteModel,
    HideRule,
    ModelAlias,
    ModelAliasVersion,
    ModelChange,
    ModelGroupRule,
    OwnPrice,
    PastOffer,
    SavedFilter,
    SyncRun,
)
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
        "group_key",
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
    search_fields = ("model_id", "display_name", "successor", "group_key")
    search_help_text = "Part of a model's id or name, or its group."
    ordering = ("display_name", "pk")

    def save_model(self, request: HttpRequest, obj: AggregatorModel, form: Any, change: bool) -> None:
        """Save staff's own columns alone: a sync may have written the others meanwhile. Search lists reload."""
        obj.save(update_fields=self.editable)
        CatalogVersion.objects.filter(provider_id=obj.provider_id).update(
            version=F("version") + 1, changed_at=timezone.now()
        )


@admin.register(OwnPrice)
class OwnPriceAdmin(WrittenBySync):
    """Staff correct a price for everybody on the model's page; here they see who counts with which."""

    list_display = ("model", "owner", "price_input", "price_output", "updated_at")
    list_filter = (("owner", admin.EmptyFieldListFilter),)
    lookups = ("owner__isempty",)
    list_select_related = ("model", "owner")
    search_fields = ("model__model_id", "model__display_name", "owner__username")
    search_help_text = "Part of a model's id or name, or of the owner's username."


class ModelGroupRuleForm(forms.ModelForm):
    class Meta:
        model = ModelGroupRule
        fields = ("provider", "model_id", "group_key", "note")

    def clean_group_key(self) -> str:
        """As keys are written. What looks like an id (openai/GPT-4o) is kept: it is as good a name as any."""
        return " ".join(self.cleaned_data["group_key"].casefold().split())

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        provider, model_id = given.get("provider"), given.get("model_id")
        known = AggregatorModel.objects.filter(provider=provider, model_id=model_id)
        if provider and model_id and not known.exists():
            self.add_error("model_id", "This provider lists no such model. Copy the id from the list of models.")
        return given


@admin.register(ModelGroupRule)
class ModelGroupRuleAdmin(NarrowLookups):
    """Corrections of which rows are the same model. Applied at once, and kept by every sync."""

    form = ModelGroupRuleForm
    list_display = ("model_id", "provider", "group_key", "note", "updated_at")
    list_filter = ("provider",)
    lookups = ("provider__id__exact",)
    list_select_related = ("provider",)
    search_fields = ("model_id", "group_key", "note")
    search_help_text = "Part of a model's id, of a group, or of a note."
    fieldsets = (
        (
            None,
            {
                "fields": ("provider", "model_id", "group_key", "note"),
                "description": (
                    "Models with the same group are shown as one model with several sellers, the cheapest marked. Put "
                    "a model into another group when its id misleads; leave the group empty to keep it out of all. "
                    "When in doubt keep it out: a wrong group shows people a wrong price. Deleting a correction gives "
                    "back the group that the id says."
                ),
            },
        ),
    )

    def save_model(self, request: HttpRequest, obj: ModelGroupRule, form: Any, change: bool) -> None:
        before = ModelGroupRule.objects.filter(pk=obj.pk).first() if change else None
        super().save_model(request, obj, form, change)
        if before is not None and (before.provider_id, before.model_id) != (obj.provider_id, obj.model_id):
            sync.regroup(before.provider_id, [before.model_id])
        sync.regroup(obj.provider_id, [obj.model_id])
        members = AggregatorModel.objects.filter(group_key=obj.group_key).exclude(
            provider_id=obj.provider_id, model_id=obj.model_id
        )
        if obj.group_key and not members.exists():
            messages.warning(request, f"No other model is in the group “{obj.group_key}” yet. Is it spelled as there?")

    def delete_model(self, request: HttpRequest, obj: ModelGroupRule) -> None:
        super().delete_model(request, obj)
        sync.regroup(obj.provider_id, [obj.model_id])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ModelGroupRule]) -> None:
        gone = list(queryset.values_list("provider_id", "model_id"))
        super().delete_queryset(request, queryset)
        for provider_id in {provider for provider, _ in gone}:
            sync.regroup(provider_id, [model_id for provider, model_id in gone if provider == provider_id])


class ModelAliasForm(forms.ModelForm):
    targets = forms.CharField(
        label="Models",
        widget=forms.Textarea(attrs={"rows": 6, "cols": 60}),
        max_length=20_000,
        help_text="Model ids, one on a line: the first that can answer does. Aliases cannot be listed.",
    )
    max_input = DollarField(label="At most, per 1M tokens read", help_text="USD. Empty: no limit.")
    max_output = DollarField(label="At most, per 1M tokens written", help_text="USD. Empty: no limit.")

    class Meta:
        model = ModelAlias
        fields = ("alias", "owner", "targets", "max_input", "max_output")
        help_texts = {"owner": "Empty: for everybody here. A model of the same id wins over it."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["targets"] = "\n".join(map(str, self.instance.targets))

    def clean_alias(self) -> str:
        name = self.cleaned_data["alias"].strip()
        if problem := aliases.problem_with_name(name):
            raise forms.ValidationError(problem)
        return name

    def clean_targets(self) -> list[str]:
        targets = [line.strip() for line in self.cleaned_data["targets"].splitlines() if line.strip()]
        problem = aliases.problem_with_targets(targets)
        if not problem:
            nested = ModelAlias.objects.filter(alias__in=targets, owner__isnull=True)
            models = AggregatorModel.objects.filter(model_id__in=targets)
            problem = aliases.problem_with_nesting(
                nested.values_list("alias", flat=True), models.values_list("model_id", flat=True)
            )
        if problem:
            raise forms.ValidationError(problem)
        return targets

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        owned = {"owner": given["owner"]} if given.get("owner") else {"owner__isnull": True}
        taken = ModelAlias.objects.filter(alias=given.get("alias"), **owned).exclude(pk=self.instance.pk)
        if "alias" in given and taken.exists():
            self.add_error("alias", "This name already exists there.")
        return given


@admin.register(ModelAlias)
class ModelAliasAdmin(NarrowLookups):
    """Names for lists of models. Each change is kept with who made it: see the versions."""

    form = ModelAliasForm
    list_display = ("alias", "owner", "targets", "max_input", "max_output", "updated_at")
    list_filter = (("owner", admin.EmptyFieldListFilter),)
    lookups = ("owner__isempty",)
    list_select_related = ("owner",)
    search_fields = ("alias", "owner__username")
    search_help_text = "Part of an alias, or of its owner's username."
    raw_id_fields = ("owner",)
    readonly_fields = ("created_at", "updated_at")

    def save_model(self, request: HttpRequest, obj: ModelAlias, form: Any, change: bool) -> None:
        try:
            aliases.save(obj, by=request.user)  # type: ignore[arg-type]
        except aliases.Unchanged:
            return
        for collision in aliases.collisions(request.user, [obj])[obj.pk]:
            messages.warning(request, collision.text)


@admin.register(ModelAliasVersion)
class ModelAliasVersionAdmin(WrittenBySync):
    """What aliases were before. They are restored on an alias's own page."""

    list_display = ("at", "alias", "kind", "by", "before", "after")
    list_filter = ("kind",)
    lookups = ("kind__exact", *(f"at__{part}" for part in ("year", "month", "day")))
    list_select_related = ("alias",)
    search_fields = ("alias__alias", "by")
    search_help_text = "Part of an alias, or of a username."
    date_hierarchy = "at"


class MadeByUsers(WrittenBySync):
    """What users arrange for themselves: staff may look, to help."""

    list_filter = ("created_at",)
    lookups = ("created_at__gte", "created_at__lt")
    list_select_related = True

    @admin.display(ordering="owner__username")
    def of(self, row: Any) -> str:
        return row.owner.get_username()


@admin.register(FavouriteModel)
class FavouriteModelAdmin(MadeByUsers):
    list_display = ("model", "of", "created_at")
    search_fields = ("model__model_id", "owner__username")
    search_help_text = "Part of a model's id, or of a username."


@admin.register(SavedFilter)
class SavedFilterAdmin(MadeByUsers):
    list_display = ("name", "query", "of", "created_at")
    search_fields = ("name", "owner__username")
    search_help_text = "Part of a filter's name, or of a username."


@admin.register(HideRule)
class HideRuleAdmin(MadeByUsers):
    list_display = ("__str__", "price_cap", "of", "created_at")
    search_fields = ("glob", "owner__username")
    search_help_text = "Part of a rule, or of a username."


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


@admin.register(PastOffer)
class PastOfferAdmin(AccountModelAdmin):
    """What accounts listed once."""


@admin.register(CatalogVersion)
class CatalogVersionAdmin(WrittenBySync):
    list_display = ("provider", "version", "changed_at")
    list_filter = ("changed_at",)
    lookups = ("changed_at__gte", "changed_at__lt")
    list_select_related = ("provider",)
    search_fields = ("provider__name", "provider__display_name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[CatalogVersion]:
        return super().get_queryset(request).order_by("provider__display_name")


@admin.register(CapabilityProbe)
class CapabilityProbeAdmin(WrittenBySync):
    """What users tried of models, through their own accounts."""

    list_display = ("queued_at", "owner", "model", "account_label", "state", "asked", "estimate", "cost", "finished_at")
    list_filter = ("state",)
    lookups = ("state__exact", *(f"queued_at__{part}" for part in ("year", "month", "day")))
    list_select_related = ("owner", "model")
    search_fields = ("model__model_id", "owner__username")
    search_help_text = "Part of a model's id, or of its owner's username."
    date_hierarchy = "queued_at"
