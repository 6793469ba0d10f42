"""What each upstream attempt cost, its daily sums, the tokens that may spend by `/v1`, and notices to users.

Usage rows are written by `usage.ledger` alone. They copy the ids and names they speak of and hold no foreign keys:
deleting a chat, an account, a model, a token or a user changes no figure of the past.
"""

from __future__ import annotations

import uuid
from datetime import date
from typing import TYPE_CHECKING, Self, TypeVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from catalog.history import Step, step
from catalog.models import AggregatorModel
from providers.money import MoneyField
from providers.ownership import OwnedQuerySet

if TYPE_CHECKING:
    from providers.models import AnyUser


_Row = TypeVar("_Row", bound=models.Model)


class CostSource(models.TextChoices):
    """How we know what an attempt cost, best first."""

    PROVIDER = "provider", "billed"
    COMPUTED = "computed", "computed"
    ESTIMATED = "estimated", "estimated"
    UNKNOWN = "unknown", "unknown"


class Door(models.TextChoices):
    """Which of our doors, or which errand of ours, made the call."""

    CHAT = "chat", "Chat"
    API = "api", "/v1"
    TITLE = "title", "Title"
    PROBE = "probe", "Probe"


class OfUserQuerySet(models.QuerySet[_Row]):
    """Rows that copy the id of the user they were made for and outlive the user: no foreign key."""

    def for_user(self, user: AnyUser) -> Self:
        return self.filter(user_id=user.pk)


class UsageLogQuerySet(OfUserQuerySet["UsageLog"]):
    def pending(self) -> Self:
        return self.filter(status=UsageLog.Status.PENDING)


class UsageLog(models.Model):
    """One upstream attempt: written before the call, settled once, then never changed."""

    class Status(models.TextChoices):
        PENDING = "pending", "Running"
        SUCCESS = "success", "Complete"
        ERROR = "error", "Error"
        TIMEOUT = "timeout", "Timed out"
        CANCELLED = "cancelled", "Stopped"

    request_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    user_id = models.BigIntegerField()
    door = models.CharField(max_length=8, choices=Door, default=Door.CHAT)
    attempt = models.PositiveSmallIntegerField(default=1, help_text="1 is the first try, 2 the first fail-over …")
    provider_id = models.BigIntegerField(null=True)
    provider_name = models.CharField(max_length=100)
    account_id = models.UUIDField(null=True)
    account_label = models.CharField(max_length=80, blank=True)
    model_pk = models.BigIntegerField(null=True)
    model_id = models.CharField(max_length=300)
    model_name = models.CharField(max_length=300, blank=True, help_text="The display name when the call was made.")
    conversation_id = models.UUIDField(null=True)
    message_id = models.BigIntegerField(null=True)
    generation_id = models.UUIDField(null=True)
    token_id = models.UUIDField(null=True, help_text="The personal access token, for calls by /v1.")

    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    http_status = models.PositiveSmallIntegerField(null=True)
    upstream_id = models.CharField(max_length=200, blank=True, help_text="The upstream's own id of the answer.")

    prompt_tokens = models.BigIntegerField(null=True)
    completion_tokens = models.BigIntegerField(null=True)
    total_tokens = models.BigIntegerField(null=True)
    cached_tokens = models.BigIntegerField(null=True, help_text="Part of prompt_tokens.")
    cache_write_tokens = models.BigIntegerField(null=True, help_text="Part of prompt_tokens.")
    reasoning_tokens = models.BigIntegerField(null=True, help_text="Part of completion_tokens.")

    cost = MoneyField(null=True, help_text="USD; empty means unknown, which is not zero.")
    cost_source = models.CharField(max_length=16, choices=CostSource, default=CostSource.UNKNOWN)
    price_snapshot = models.JSONField(default=dict, help_text="Prices when the call was made, USD per 1M, as strings.")

    latency_ms = models.PositiveIntegerField(null=True)
    first_token_ms = models.PositiveIntegerField(null=True)
    started_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True)
    metadata = models.JSONField(default=dict)

    objects = UsageLogQuerySet.as_manager()

    class Meta:
        db_table = "aggregator_usage_logs"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user_id", "started_at", "id"], name="usage_by_user_and_time"),
            # Calls of /v1 have neither: they need not write an entry of each.
            models.Index(
                fields=["conversation_id"], condition=Q(conversation_id__isnull=False), name="usage_by_conversation"
            ),
            models.Index(
                fields=["generation_id"], condition=Q(generation_id__isnull=False), name="usage_by_generation"
            ),
            models.Index(fields=["started_at"], condition=Q(status="pending"), name="usage_pending"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(cost__isnull=True) | Q(cost__gte=0), name="usage_cost_not_negative"),
            models.CheckConstraint(
                condition=~Q(cost_source="unknown") | Q(cost__isnull=True), name="usage_unknown_cost_is_null"
            ),
            models.CheckConstraint(
                condition=Q(cost_source="unknown") | Q(cost__isnull=False), name="usage_known_cost_is_a_figure"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} {self.status}"


class DailyUsage(models.Model):
    """Sums of settled attempts per user, day, door, provider, account and model: what pages read (design.md §6).

    The day is the UTC day on which the attempt *started*, so that rows and sums agree on the period (I24).
    Running attempts are not in it yet. `attempts` = billed + computed + estimated + unknown.
    """

    user_id = models.BigIntegerField()
    day = models.DateField()
    door = models.CharField(max_length=8, choices=Door)
    provider_name = models.CharField(max_length=100)
    account_id = models.UUIDField(help_text="All zeros where the attempt had no account.")
    model_id = models.CharField(max_length=300)
    model_name = models.CharField(max_length=300, blank=True, help_text="The display name as of the latest attempt.")
    attempts = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0, help_text="Attempts that did not end as success.")
    billed = models.BigIntegerField(default=0, help_text="Attempts whose cost the provider named.")
    computed = models.BigIntegerField(default=0)
    estimated = models.BigIntegerField(default=0)
    unknown = models.BigIntegerField(default=0, help_text="Attempts whose cost nobody knows.")
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    cost = MoneyField(default=0)
    cost_billed = MoneyField(default=0)
    cost_computed = MoneyField(default=0)
    cost_estimated = MoneyField(default=0)
    cost_failed = MoneyField(default=0, help_text="The part of cost spent on attempts that did not succeed.")
    saved = MoneyField(default=0, help_text="What the cached tokens would have cost more without the cache.")

    objects = OfUserQuerySet["DailyUsage"].as_manager()

    class Meta:
        db_table = "aggregator_usage_daily"
        verbose_name_plural = "daily usage"
        ordering = ["-day", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["user_id", "day", "door", "provider_name", "account_id", "model_id"],
                name="one_daily_row_per_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.model_id}"


class ApiTokenQuerySet(OwnedQuerySet["ApiToken"]):
    def live(self) -> Self:
        """Not revoked, not expired, and of a user who may sign in (A4)."""
        return self.filter(revoked_at__isnull=True, owner__is_active=True).filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())
        )


class ApiToken(models.Model):
    """A personal access token for `/v1`. Only its hash is kept; usage.tokens makes and reads the text."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    lookup = models.CharField(max_length=16, unique=True, editable=False, help_text="The part it is found by.")
    token_hash = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        db_table = "api_tokens"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name  # not the part it is looked up by: the admin's pages and log show this to staff (A6)

    @property
    def is_live(self) -> bool:
        """Whether it opens the door now, as far as the token itself says."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())

    def revoke(self) -> None:
        """End it, for good. Every process refuses it within seconds, and ends its running streams within 30 s."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])


class NoticeQuerySet(OwnedQuerySet["Notice"]):
    def unread(self) -> Self:
        return self.filter(read_at__isnull=True)


class Notice(models.Model):
    """Something happened to a model that its owner uses: written once, by usage.notices, within the sync itself.

    A notice says what happened in `data`, so it needs no other row to be shown or sent. Whoever sends notices elsewhere
    goes through this table by id: it is complete (no change without its notices) and holds none twice.
    """

    class Kind(models.TextChoices):
        DEARER = "dearer", "Dearer"
        CHEAPER = "cheaper", "Cheaper"
        REPRICED = "repriced", "Price changed"
        RETIRING = "retiring", "Retirement"
        SUCCESSOR = "successor", "Successor"
        GONE = "gone", "Gone"
        BACK = "back", "Back"
        DROPPED = "dropped", "No longer listed"

    class Because(models.TextChoices):
        USED = "used", "you used it lately"
        STARRED = "starred", "you starred it"
        ALIAS = "alias", "an alias of yours leads to it"
        CONVERSATION = "conversation", "a conversation of yours has it"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notices", db_index=False)
    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=16, choices=Kind)
    because = models.CharField(max_length=16, choices=Because)
    run_id = models.UUIDField(help_text="The sync that found it; for reminders, made of model and date.")
    data = models.JSONField(default=dict, help_text="steps: [column, before, after] …; account, successor, retires_at.")
    created_at = models.DateTimeField(default=timezone.now)
    read_at = models.DateTimeField(null=True, blank=True)

    objects = NoticeQuerySet.as_manager()

    class Meta:
        db_table = "model_notices"
        ordering = ["-pk"]
        constraints = [
            # However often, and by however many processes, a sync is told of: one notice (M4, I15).
            models.UniqueConstraint(fields=["owner", "model", "kind", "run_id"], name="one_notice_per_change"),
        ]
        indexes = [
            models.Index(fields=["owner", "-id"], name="notices_by_owner"),
            models.Index(fields=["owner"], condition=Q(read_at__isnull=True), name="notices_unread"),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} {self.kind}"

    @property
    def steps(self) -> list[Step]:
        """What changed from what to what."""
        return [step(*line) for line in self.data.get("steps", []) if len(line) == 3]

    @property
    def successor(self) -> str:
        return str(self.data.get("successor") or "")

    @property
    def retires_at(self) -> date | None:
        return step("retires_at", None, self.data.get("retires_at")).after

    @property
    def account_label(self) -> str:
        return str(self.data.get("account") or "")

    def mark_read(self) -> None:
        if self.read_at is None:
            self.read_at = timezone.now()
            self.save(update_fields=["read_at"])
