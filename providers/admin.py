"""What staff see of providers and accounts: everything but what is secret.

No page here shows, edits, filters, searches or sorts by a ciphertext or a hash, nor can a lookup in the address reach
one (A6): Django's own `lookup_allowed` permits every local column, so it is narrowed to a list.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from providers import net
from providers.models import Provider, ProviderAccount


class NarrowLookups(admin.ModelAdmin):
    """A ModelAdmin whose list can be filtered from the address by `lookups` alone, and sorted by what it shows."""

    lookups: tuple[str, ...] = ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.lookups


class ProviderForm(forms.ModelForm):
    documentation_url = forms.URLField(required=False, assume_scheme="https")
    keys_url = forms.URLField(required=False, assume_scheme="https", help_text="Where a user finds their key.")

    class Meta:
        model = Provider
        fields = [
            "name",
            "display_name",
            "tagline",
            "monogram",
            "provider_type",
            "api_standard",
            "base_url",
            "client",
            "features",
            "documentation_url",
            "keys_url",
            "sync_interval",
            "is_active",
        ]

    def clean_base_url(self) -> str:
        try:
            return net.parse_base_url(self.cleaned_data["base_url"])
        except net.BadURL as exc:
            raise forms.ValidationError(str(exc)) from None


@admin.register(Provider)
class ProviderAdmin(NarrowLookups):
    form = ProviderForm
    list_display = [
        "display_name",
        "name",
        "owner",
        "provider_type",
        "client",
        "base_url",
        "account_count",
        "is_active",
    ]
    list_filter = ["is_active", "provider_type", "api_standard", "client", ("owner", admin.EmptyFieldListFilter)]
    lookups = (
        "is_active__exact",
        "provider_type__exact",
        "api_standard__exact",
        "client__exact",
        "owner__isempty",
    )
    search_fields = ["name", "display_name", "base_url"]
    search_help_text = "Name or address"
    list_select_related = ["owner"]
    readonly_fields = ["owner", "created_at", "updated_at"]
    ordering = ["display_name"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return super().get_queryset(request).annotate(accounts_here=Count("accounts"))

    @admin.display(description="accounts", ordering="accounts_here")
    def account_count(self, provider: Any) -> int:
        return provider.accounts_here

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save; keys are bound to the origin they were entered for, so another origin locks accounts: say so (S4)."""
        super().save_model(request, obj, form, change)
        if not (change and "base_url" in form.changed_data):
            return
        before = set(obj.accounts.filter(status=ProviderAccount.Status.LOCKED).values_list("pk", flat=True))
        locked = [account for account in obj.accounts.refresh_locks() if account.is_locked and account.pk not in before]
        if locked:
            messages.warning(
                request,
                f"{len(locked)} account{'s' if len(locked) > 1 else ''} of {obj.display_name} can no longer be used: "
                "a key is sent only to the origin it was entered for. Their owners are asked to enter the key again.",
            )


@admin.register(ProviderAccount)
class ProviderAccountAdmin(NarrowLookups):
    """Staff may pause, reorder and delete an account; its key and where the key goes are its owner's alone."""

    list_display = [
        "label",
        "owner",
        "provider",
        "state",
        "is_active",
        "priority",
        "model_count",
        "balance",
        "checked_at",
        "created_at",
    ]
    list_display_links = ["label"]
    list_filter = ["status", "is_active", ("provider", admin.RelatedOnlyFieldListFilter), "created_at"]
    lookups = (
        "status__exact",
        "is_active__exact",
        "provider__id__exact",
        "owner__id__exact",
        "created_at__gte",
        "created_at__lt",
    )
    search_fields = ["label", "owner__username", "owner__email", "provider__display_name"]
    search_help_text = "Label, owner or provider"
    ordering = ["priority", "created_at", "pk"]
    list_select_related = ["owner", "provider"]
    date_hierarchy = None
    fields = [
        "id",
        "owner",
        "provider",
        "label",
        "is_active",
        "priority",
        "monthly_budget",
        "status",
        "status_reason",
        "endpoint_override",
        "has_key",
        "balance",
        "balance_at",
        "checked_at",
        "cooldown_until",
        "created_at",
        "updated_at",
    ]
    readonly_fields = [str(name) for name in fields if name not in {"is_active", "priority", "monthly_budget"}]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProviderAccount]:
        return super().get_queryset(request).annotate(models_here=Count("offers"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # only the owner of a key can enter it

    @admin.display(description="status", ordering="status")
    def state(self, account: ProviderAccount) -> str:
        text, variant = account.standing
        return format_html('<span class="badge badge--{}">{}</span>', variant, text)

    @admin.display(description="models", ordering="models_here")
    def model_count(self, account: Any) -> int:
        return account.models_here

    @admin.display(description="has a key", boolean=True)
    def has_key(self, account: ProviderAccount) -> bool:
        return bool(account.api_key_encrypted)
