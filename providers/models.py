"""Whose key, at which provider. A key itself is only ever handled by `vault`."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q, TextChoices
from django.urls import reverse
from django.utils import timezone

from providers import net
from providers.clients import registry
from providers.clients.errors import CODES
from providers.money import MoneyField
from providers.ownership import OwnedQuerySet, SharedOrOwnedQuerySet

if TYPE_CHECKING:
    from providers.clients.base import Probe, ProviderClient
    from providers.ownership import AnyUser as AnyUser

RECHECK = timedelta(hours=1)
"""The longest rest of a rejected key until it is asked about again."""

LOCKED_REASON = "Enter the key again. What is stored does not open at this address with this server's vault keys."


class ProviderQuerySet(SharedOrOwnedQuerySet["Provider"]):
    """Shared are the built-in ones; private endpoints are their owner's."""

    def active(self) -> Self:
        return self.filter(is_active=True)


class Provider(models.Model):
    """A service we can talk to: built in (no owner), or one user's private custom endpoint."""

    class ProviderType(TextChoices):
        AGGREGATOR = "aggregator", "Aggregator"
        DIRECT = "direct", "Direct"

    class ApiStandard(TextChoices):
        OPENAI = "openai", "OpenAI"
        ANTHROPIC = "anthropic", "Anthropic"
        GOOGLE = "google", "Google"
        CUSTOM = "custom", "Custom"

    name = models.SlugField(max_length=60, help_text="Short name in addresses and logs, such as openrouter.")
    display_name = models.CharField(max_length=100)
    tagline = models.CharField(max_length=160, blank=True, help_text="One line under the name in the gallery.")
    monogram = models.CharField(max_length=2, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="private_providers"
    )
    provider_type = models.CharField(max_length=16, choices=ProviderType, default=ProviderType.AGGREGATOR)
    api_standard = models.CharField(max_length=16, choices=ApiStandard, default=ApiStandard.OPENAI)
    base_url = models.CharField(max_length=500, help_text="Everything before /chat/completions.")
    client = models.CharField(max_length=40, choices=registry.choices, default="openai_compatible")
    features = models.JSONField(default=dict, blank=True, help_text='Facts the pages use, such as {"keyless": true}.')
    documentation_url = models.URLField(max_length=500, blank=True)
    keys_url = models.URLField(max_length=500, blank=True, help_text="Where a user finds their key.")
    sync_interval = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(60), MaxValueValidator(30 * 86400)],
        help_text="Seconds between two automatic syncs of an account's model list. Empty: the server's SYNC_INTERVAL.",
    )
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ProviderQuerySet.as_manager()

    class Meta:
        db_table = "api_providers"
        ordering = ["display_name", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=Q(owner__isnull=True), name="one_built_in_per_name"),
            models.UniqueConstraint(
                fields=["owner", "name"], condition=Q(owner__isnull=False), name="one_private_per_owner_and_name"
            ),
        ]

    def __str__(self) -> str:
        return self.display_name

    @property
    def is_keyless(self) -> bool:
        """Works without a key: a local model server, or a provider made for trying things out."""
        return bool(self.features.get("keyless"))

    @property
    def asks_address(self) -> bool:
        """Runs on people's own machines: who adds it says where, and gets a private provider for that address."""
        return self.owner_id is None and bool(self.features.get("asks_address"))


class SealingTicket(models.Model):
    """The right to send one sealed form, once (providers/sealing.py). Deleted by its use, or by the next one."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    purpose = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = OwnedQuerySet["SealingTicket"].as_manager()

    class Meta:
        db_table = "api_sealing_tickets"

    def __str__(self) -> str:
        return self.purpose


class ProviderAccountQuerySet(OwnedQuerySet["ProviderAccount"]):
    def usable(self) -> Self:
        """Switched on, at a provider that is switched on, and not locked or rejected."""
        return self.filter(is_active=True, provider__is_active=True).exclude(
            status__in=[ProviderAccount.Status.LOCKED, ProviderAccount.Status.INVALID]
        )

    def refresh_locks(self) -> list[Any]:
        """These accounts, each with a status that says whether what is sealed in it opens.

        Opens everything (some 30 µs per account) and writes only where the answer changed: a vault key that was
        wrong locks accounts, and one that is right again unlocks them without anybody's doing (F30, I19).
        """
        accounts = list(self.select_related("provider"))
        for account in accounts:
            account.refresh_lock()
        return accounts


class ProviderAccount(models.Model):
    """One user's key at one provider. Several per user and provider are welcome.

    The primary key is a UUID so that it exists before the row does: the vault binds the ciphertext to it.
    """

    class Status(models.TextChoices):
        UNVERIFIED = "unverified", "Saved, not verified"
        VALID = "valid", "Valid"
        INVALID = "invalid", "Key rejected"
        ATTENTION = "attention", "Needs attention"
        LOCKED = "locked", "Locked"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="provider_accounts")
    provider = models.ForeignKey(Provider, models.CASCADE, related_name="accounts")
    label = models.CharField(max_length=80)
    api_key_encrypted = models.TextField(blank=True, editable=False)
    api_key_hash = models.CharField(max_length=64, blank=True, editable=False)
    api_key_hint = models.CharField(max_length=8, blank=True, editable=False)
    endpoint_override = models.CharField(max_length=500, blank=True)
    extra_headers_encrypted = models.TextField(blank=True, editable=False)
    settings = models.JSONField(default=dict, blank=True)
    monthly_budget = MoneyField(null=True, blank=True)
    priority = models.IntegerField(default=0, help_text="Lower is tried first.")
    is_active = models.BooleanField(default=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.UNVERIFIED)
    status_reason = models.CharField(max_length=500, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    cooldown_until = models.DateTimeField(null=True, blank=True, editable=False)
    trouble = models.CharField(max_length=40, blank=True, editable=False, help_text="Code of the last failed call.")
    failures = models.PositiveSmallIntegerField(default=0, editable=False, help_text="Rests since a call went through.")
    balance = MoneyField(null=True, blank=True, editable=False)
    balance_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ProviderAccountQuerySet.as_manager()

    class Meta:
        db_table = "user_api_providers"
        ordering = ["priority", "created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "provider", "api_key_hash"],
                condition=~Q(api_key_hash=""),
                name="one_account_per_owner_provider_and_key",
            ),
            models.CheckConstraint(
                condition=Q(monthly_budget__isnull=True) | Q(monthly_budget__gte=0), name="account_budget_not_negative"
            ),
        ]
        indexes = [models.Index(fields=["owner", "priority"])]

    def __str__(self) -> str:
        return f"{self.label} ({self.provider_id})"

    def get_absolute_url(self) -> str:
        return reverse("providers:account-list") + f"#account-{self.pk}"

    @property
    def base_url(self) -> str:
        """Where this account's calls go: its own override, or the provider's address."""
        return self.endpoint_override or self.provider.base_url

    @property
    def origin(self) -> str:
        """scheme://host:port the key is bound to (S4). Reads `provider`."""
        return net.origin_of(self.base_url)

    def client(self) -> ProviderClient:
        """A client with the key in the clear: the only place where that happens.

        Raises vault.Locked when the stored ciphertext does not open in this row, for this owner and origin.
        """
        from providers import vault

        return registry.create(
            self.provider.client,
            base_url=self.base_url,
            api_key=vault.open_key(self),
            extra_headers=vault.open_headers(self),
            options={**self.provider.features, **self.settings},
        )

    def record(self, probe: Probe) -> None:
        """Take over what a check of the key found; saves nothing.

        An account that was proved valid once is not called "not verified" because the provider is down today: it
        needs attention. Where the check could not tell, a key that a call saw rejected rests on (health.py).
        """
        proved = self.status in (self.Status.VALID, self.Status.ATTENTION)
        self.status = {
            "valid": self.Status.VALID,
            "invalid": self.Status.INVALID,
            "unverified": self.Status.ATTENTION if proved else self.Status.UNVERIFIED,
        }[probe.verdict]
        self.status_reason = probe.reason[:500]
        self.checked_at = timezone.now()
        if probe.verdict == "unverified" and self.trouble == "key_rejected":
            self.failures += 1
            self.cooldown_until = self.checked_at + min(timedelta(minutes=1) * 2 ** min(self.failures, 6), RECHECK)
        else:
            self.trouble, self.failures, self.cooldown_until = "", 0, None
        if probe.balance is not None:
            self.balance, self.balance_at = probe.balance, self.checked_at

    FOUND = (
        "status", "status_reason", "checked_at", "trouble", "failures", "cooldown_until", "balance", "balance_at",
    )  # fmt: skip
    """What `record` sets."""

    def save_found(self) -> bool:
        """Store what `record` set, if the row still holds the key that was checked."""
        row = ProviderAccount.objects.filter(pk=self.pk, api_key_encrypted=self.api_key_encrypted)
        return bool(row.update(**{name: getattr(self, name) for name in self.FOUND}, updated_at=timezone.now()))

    def refresh_lock(self) -> None:
        """Note (and save, if it changed) whether what is sealed here opens. Never touches the ciphertext."""
        from providers import vault

        opens = vault.opens(self)
        if opens == (self.status != self.Status.LOCKED):
            return
        if opens:
            self.status, self.status_reason = self.Status.UNVERIFIED, "The stored key opens again. Test it."
        else:
            self.status, self.status_reason = self.Status.LOCKED, LOCKED_REASON
        # Conditional on the old text, so that a key entered in this moment wins.
        ProviderAccount.objects.filter(
            pk=self.pk,
            api_key_encrypted=self.api_key_encrypted,
            extra_headers_encrypted=self.extra_headers_encrypted,
        ).update(status=self.status, status_reason=self.status_reason, updated_at=timezone.now())

    @property
    def is_resting(self) -> bool:
        """Cooling down: tried last, until `cooldown_until`."""
        return self.cooldown_until is not None and self.cooldown_until > timezone.now()

    @property
    def is_cooling(self) -> bool:
        """Resting for something that passes by itself."""
        return self.is_resting and self.status in (self.Status.VALID, self.Status.UNVERIFIED)

    @property
    def why_resting(self) -> str:
        """The reason of the rest in words, while it lasts."""
        return CODES.get(self.trouble, "") if self.is_resting else ""

    @property
    def is_locked(self) -> bool:
        return self.status == self.Status.LOCKED

    @property
    def masked_key(self) -> str:
        """•••• and the last four characters: all that is ever shown of a key."""
        if not self.api_key_encrypted:
            return ""
        return f"•••• {self.api_key_hint}".strip()

    @property
    def standing(self) -> tuple[str, str]:
        """(text, badge variant) for the account's owner."""
        if not self.is_active:
            return "Paused", "neutral"
        if not self.provider.is_active:
            return "Provider switched off", "neutral"
        if self.is_cooling:
            return "Cooling down", "warn"
        if self.status == self.Status.VALID and not self.api_key_encrypted:
            return "Ready", "good"
        variant = {
            self.Status.VALID: "good",
            self.Status.UNVERIFIED: "neutral",
            self.Status.INVALID: "bad",
            self.Status.LOCKED: "bad",
        }.get(self.Status(self.status), "warn")
        return self.get_status_display(), variant

    def mark(self, status: str, reason: str = "", **columns: Any) -> None:
        """Record what a check or a real call found out about this account."""
        self.status, self.status_reason, self.checked_at = status, reason[:500], timezone.now()
        for name, value in columns.items():
            setattr(self, name, value)
        self.save(update_fields=["status", "status_reason", "checked_at", "updated_at", *columns])
