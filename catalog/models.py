"""Which models exist, at what price, and what changed. Written by `catalog.sync` alone; own prices by
`catalog.own_prices`."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, TypeVar

from django.conf import settings
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils import timezone

from providers.models import Provider, ProviderAccount
from providers.money import MoneyField
from providers.ownership import OwnedQuerySet, SharedOrOwnedQuerySet

if TYPE_CHECKING:
    from providers.models import AnyUser


_Row = TypeVar("_Row", bound=models.Model)

SEES_ALL = "catalog.view_aggregatormodel"
"""Staff with this permission know of every model of the shared providers."""

PRICE_COLUMNS = {
    "price_input": "input",
    "price_output": "output",
    "price_cache_read": "cache_read",
    "price_cache_write": "cache_write",
    "price_reasoning": "reasoning",
    "price_image": "image",
    "price_request": "request",
    "price_search": "search",
}
"""Column → the price's name in the clients' Prices, in rules and in price snapshots."""


class OfProviderQuerySet(models.QuerySet[_Row]):
    """Rows about a provider: they are seen by whoever sees the provider."""

    def for_user(self, user: AnyUser) -> Self:
        """Those of the built-in providers, and of the user's own private endpoints."""
        return self.filter(provider__in=Provider.objects.for_user(user))


class OfAccountQuerySet(models.QuerySet[_Row]):
    """Rows about an account: its owner's."""

    def for_user(self, user: AnyUser) -> Self:
        return self.filter(account__in=ProviderAccount.objects.for_user(user))


class AggregatorModelQuerySet(OfProviderQuerySet["AggregatorModel"]):
    def for_user(self, user: AnyUser) -> Self:
        """Models `user` may know of: all of their private endpoints, and at shared providers those that one of their
        accounts lists or once listed. A model that only somebody else's key lists (a fine-tune has its owner's name in
        its id) is nobody else's business, except of staff who may look at every model in the admin: prices and aliases
        for everybody are theirs to set.
        """
        if user.pk is None:
            return self.none()
        if isinstance(user, PermissionsMixin) and getattr(user, "is_staff", False) and user.has_perm(SEES_ALL):
            return super().for_user(user)
        is_listed = [
            Exists(rows.filter(model=OuterRef("pk")))
            for rows in (AccountModel.objects.for_user(user), PastOffer.objects.for_user(user))
        ]
        at_shared = Q(provider__owner__isnull=True)
        return self.filter(Q(provider__owner_id=user.pk) | at_shared & (is_listed[0] | is_listed[1]))

    def available_to(self, user: AnyUser) -> Self:
        """Models `user` may call now: on sale, and listed by one of their usable accounts.

        The one answer to "which models may this user use?".
        """
        accounts = ProviderAccount.objects.for_user(user).usable()
        offers = AccountModel.objects.filter(account__in=accounts)
        return self.filter(is_available=True, pk__in=offers.values("model_id"))


class Origin(models.TextChoices):
    """How we know a fact about a model."""

    STATED = "stated", "stated by the provider"
    INFERRED = "inferred", "inferred"
    LIST = "list", "list price"
    PROBED = "probed", "probed"
    BY_HAND = "by_hand", "entered by hand"
    UNKNOWN = "", "unknown"


class AggregatorModel(models.Model):
    """One model as one provider sells it. Prices are Decimal USD per 1M tokens; unknown is NULL, never 0.

    A price of kind LIST is not this seller's: it is what the model's maker asks in public, and only ever an estimate.
    """

    class ModelType(models.TextChoices):
        CHAT = "chat", "Chat"
        IMAGE = "image", "Image"
        VIDEO = "video", "Video"
        AUDIO = "audio", "Audio"
        EMBEDDING = "embedding", "Embedding"
        RERANK = "rerank", "Rerank"
        MODERATION = "moderation", "Moderation"
        OTHER = "other", "Other"
        UNKNOWN = "unknown", "Unknown"

    class PriceKind(models.TextChoices):
        KNOWN = "known", "Priced"
        FREE = "free", "Free"
        VARIABLE = "variable", "Variable"
        LIST = "list", "List price"
        UNKNOWN = "unknown", "Unknown"

    provider = models.ForeignKey(Provider, models.CASCADE, related_name="models")
    model_id = models.CharField(max_length=300, help_text="Opaque, case-sensitive; sent to the provider as it is.")
    model_name = models.CharField(max_length=300, blank=True)
    display_name = models.CharField(max_length=300)
    description = models.TextField(blank=True)
    model_type = models.CharField(max_length=16, choices=ModelType, default=ModelType.UNKNOWN)
    capabilities = models.JSONField(default=list, blank=True, help_text="tools, vision, reasoning, …")
    input_modalities = models.JSONField(default=list, blank=True)
    output_modalities = models.JSONField(default=list, blank=True)
    context_window = models.BigIntegerField(null=True, blank=True, help_text="Tokens; empty means unknown.")
    max_output_tokens = models.BigIntegerField(null=True, blank=True)
    price_kind = models.CharField(max_length=16, choices=PriceKind, default=PriceKind.UNKNOWN)
    price_input = MoneyField(null=True, blank=True)
    price_output = MoneyField(null=True, blank=True)
    price_cache_read = MoneyField(null=True, blank=True)
    price_cache_write = MoneyField(null=True, blank=True)
    price_reasoning = MoneyField(null=True, blank=True)
    price_image = MoneyField(null=True, blank=True, help_text="USD per image in the request.")
    price_request = MoneyField(null=True, blank=True, help_text="USD per call.")
    price_search = MoneyField(null=True, blank=True, help_text="USD per web search.")
    pricing = models.JSONField(default=dict, blank=True, help_text="The seller's own figures, for reference.")
    pricing_rules = models.JSONField(default=list, blank=True, help_text="Tiers and time windows, in USD per 1M.")
    origins = models.JSONField(
        default=dict, blank=True, help_text="Facts the provider did not state itself, and where they come from."
    )
    is_available = models.BooleanField(default=True)
    missing_since = models.DateTimeField(null=True, blank=True)
    released_at = models.DateTimeField(null=True, blank=True)
    retires_at = models.DateField(null=True, blank=True)
    successor = models.CharField(max_length=300, blank=True)
    is_featured = models.BooleanField(default=False)
    group_key = models.CharField(
        max_length=300,
        blank=True,
        default="",
        help_text="Rows with the same key are the same model; empty: in no group (catalog.grouping).",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = AggregatorModelQuerySet.as_manager()

    class Meta:
        db_table = "aggregator_models"
        ordering = ["display_name", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "model_id"], name="one_model_id_per_provider"),
            *[
                models.CheckConstraint(
                    condition=Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__gte": 0}),
                    name=f"{column}_not_negative",
                )
                for column in PRICE_COLUMNS
            ],
        ]
        indexes = [models.Index(fields=["provider", "is_available"]), models.Index(fields=["group_key"])]

    def __str__(self) -> str:
        return self.display_name

    @property
    def is_free(self) -> bool:
        return self.price_kind == self.PriceKind.FREE

    def origin_of(self, fact: str) -> Origin:
        """How we know `fact`: "prices", or the name of a column such as "context_window"."""
        if fact == "prices":
            is_known = self.price_kind != self.PriceKind.UNKNOWN
        else:
            is_known = getattr(self, fact) not in (None, "", [], self.ModelType.UNKNOWN)
        return Origin(self.origins.get(fact, Origin.STATED)) if is_known else Origin.UNKNOWN

    @property
    def listed_prices(self) -> list[tuple[str, Decimal, str]]:
        """(what for, USD, unit) of every price that is known; the unit is "" for per 1M tokens."""
        return [
            (label, price, unit)
            for label, column, unit in (
                ("Input", "input", ""),
                ("Output", "output", ""),
                ("Cache read", "cache_read", ""),
                ("Cache write", "cache_write", ""),
                ("Reasoning", "reasoning", ""),
                ("Per image", "image", "each"),
                ("Per call", "request", "each"),
                ("Per web search", "search", "each"),
            )
            if (price := getattr(self, f"price_{column}")) is not None
        ]

    @property
    def token_prices(self) -> tuple[Decimal | None, Decimal | None]:
        """(input, output) in USD per 1M tokens; None is unknown."""
        return self.price_input, self.price_output


class AccountModel(models.Model):
    """This account's key lists this model: two keys with different rights see different selectors."""

    account = models.ForeignKey(ProviderAccount, models.CASCADE, related_name="offers")
    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="offers")

    objects = OfAccountQuerySet["AccountModel"].as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "model"], name="one_offer_per_account_and_model")]

    def __str__(self) -> str:
        return f"{self.account_id} offers {self.model_id}"


class PastOffer(models.Model):
    """This account's key once listed this model and does not any more, so its owner may still see what became of it.

    Stays when the model comes back; goes with the account.
    """

    account = models.ForeignKey(ProviderAccount, models.CASCADE, related_name="past_offers")
    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="past_offers")

    objects = OfAccountQuerySet["PastOffer"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "model"], name="one_past_offer_per_account_and_model")
        ]

    def __str__(self) -> str:
        return f"{self.account_id} offered {self.model_id}"


class OwnPrice(models.Model):
    """Prices of a model entered by hand: one user's own, or staff's for everybody (no owner).

    Laid over the seller's by `catalog.own_prices`, the only writer. An empty column leaves the seller's price.
    """

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="own_prices"
    )
    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="own_prices")
    price_input = MoneyField(null=True, blank=True)
    price_output = MoneyField(null=True, blank=True)
    price_cache_read = MoneyField(null=True, blank=True)
    price_cache_write = MoneyField(null=True, blank=True)
    price_reasoning = MoneyField(null=True, blank=True)
    price_image = MoneyField(null=True, blank=True)
    price_request = MoneyField(null=True, blank=True)
    price_search = MoneyField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = SharedOrOwnedQuerySet["OwnPrice"].as_manager()

    class Meta:
        db_table = "own_prices"
        ordering = ["-updated_at", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "model"], name="one_own_price_per_owner_and_model"),
            models.UniqueConstraint(fields=["model"], condition=Q(owner__isnull=True), name="one_own_price_for_all"),
            *[
                models.CheckConstraint(
                    condition=Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__gte": 0}),
                    name=f"own_{column}_not_negative",
                )
                for column in PRICE_COLUMNS
            ],
        ]

    def __str__(self) -> str:
        return f"{self.owner_id or 'everybody'}: {self.model_id}"


class ModelGroupRule(models.Model):
    """What staff say about the group of one model, instead of its spelling (catalog.grouping). Survives syncs."""

    provider = models.ForeignKey(Provider, models.CASCADE, related_name="group_rules")
    model_id = models.CharField(max_length=300, help_text="Exactly as the provider spells it.")
    group_key = models.CharField(
        "group",
        max_length=300,
        blank=True,
        help_text="The key its group has at other models, for example gpt-4o. Empty: it is in no group.",
    )
    note = models.CharField(max_length=300, blank=True, help_text="Why, for whoever reads this later.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = OfProviderQuerySet["ModelGroupRule"].as_manager()

    class Meta:
        db_table = "model_group_rules"
        verbose_name = "model group correction"
        ordering = ["provider", "model_id"]
        constraints = [models.UniqueConstraint(fields=["provider", "model_id"], name="one_group_rule_per_model")]

    def __str__(self) -> str:
        return f"{self.model_id} → {self.group_key or 'no group'}"


class ModelAlias(models.Model):
    """A name that resolves to an ordered list of models; global (no owner) or a user's own."""

    alias = models.CharField(max_length=120)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="model_aliases"
    )
    targets = models.JSONField(default=list, help_text="Model ids, tried in this order.")
    max_input = MoneyField(
        "most per 1M read",
        null=True,
        blank=True,
        help_text="USD. Models that cost more, or whose price is not known, are skipped.",
    )
    max_output = MoneyField(
        "most per 1M written",
        null=True,
        blank=True,
        help_text="USD. Models that cost more, or whose price is not known, are skipped.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = SharedOrOwnedQuerySet["ModelAlias"].as_manager()

    class Meta:
        db_table = "model_aliases"
        verbose_name_plural = "model aliases"
        ordering = ["alias", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["alias"], condition=Q(owner__isnull=True), name="one_global_alias"),
            models.UniqueConstraint(
                fields=["owner", "alias"], condition=Q(owner__isnull=False), name="one_alias_per_owner"
            ),
        ]

    def __str__(self) -> str:
        return self.alias

    def get_absolute_url(self) -> str:
        return reverse("catalog:alias-detail", args=[self.pk])

    @property
    def is_global(self) -> bool:
        return self.owner_id is None

    @property
    def has_cap(self) -> bool:
        return self.max_input is not None or self.max_output is not None


class ModelAliasVersionQuerySet(models.QuerySet["ModelAliasVersion"]):
    def for_user(self, user: AnyUser) -> Self:
        return self.filter(alias__in=ModelAlias.objects.for_user(user))


class ModelAliasVersion(models.Model):
    """One change of an alias: what it was, what it became, who did it. Written by `catalog.aliases` with the change."""

    class Kind(models.TextChoices):
        CREATED = "created", "Made"
        CHANGED = "changed", "Changed"
        RESTORED = "restored", "Restored"

    alias = models.ForeignKey(ModelAlias, models.CASCADE, related_name="versions")
    kind = models.CharField(max_length=16, choices=Kind)
    by = models.CharField(max_length=150, help_text="The username of who did it, as it was then.")
    before = models.JSONField(null=True)
    after = models.JSONField()
    at = models.DateTimeField(default=timezone.now)

    objects = ModelAliasVersionQuerySet.as_manager()

    class Meta:
        db_table = "model_alias_versions"
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["alias", "-at"])]

    def __str__(self) -> str:
        return f"{self.alias_id} {self.kind}"


class FavouriteModel(models.Model):
    """A model that a user starred: it comes first where they choose."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="favourite_models")
    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet["FavouriteModel"].as_manager()

    class Meta:
        db_table = "favourite_models"
        ordering = ["-created_at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["owner", "model"], name="one_star_per_owner_and_model")]

    def __str__(self) -> str:
        return f"{self.owner_id} stars {self.model_id}"


class SavedFilter(models.Model):
    """A question to the explorer that a user keeps under a name: the query string of its address."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="saved_filters")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=2_000, blank=True, help_text="Percent-encoded, so up to twelve for a letter.")
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet["SavedFilter"].as_manager()

    class Meta:
        db_table = "saved_model_filters"
        ordering = ["name", "pk"]
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="one_saved_filter_per_owner_and_name")]

    def __str__(self) -> str:
        return self.name


class HideRule(models.Model):
    """What a user does not want to see where they choose. A rule and no list of models, so that it holds after a sync.

    Hides models whose id matches the glob (an empty one: all) and, where a cap is set, only those dearer than it.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="hide_rules")
    glob = models.CharField(max_length=200, blank=True, help_text="On the model's id, without case: *:free, openai/*")
    price_cap = MoneyField(null=True, blank=True, help_text="USD per 1M tokens out; empty hides at any price.")
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet["HideRule"].as_manager()

    class Meta:
        db_table = "model_hide_rules"
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(condition=~Q(glob="") | Q(price_cap__isnull=False), name="hide_rule_says_something"),
            models.CheckConstraint(
                condition=Q(price_cap__isnull=True) | Q(price_cap__gte=0), name="hide_rule_cap_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.glob or "*"


class CatalogVersion(models.Model):
    """Counts the changes of one provider's models and offers: what the in-process search list reloads by.

    Its row is also the lock two accounts of one provider take while a sync writes.
    """

    provider = models.OneToOneField(Provider, models.CASCADE, primary_key=True, related_name="catalog")
    version = models.BigIntegerField(default=0)
    changed_at = models.DateTimeField(default=timezone.now)

    objects = OfProviderQuerySet["CatalogVersion"].as_manager()

    class Meta:
        verbose_name = "catalog version"

    def __str__(self) -> str:
        return f"{self.provider_id} v{self.version}"


class SyncRunQuerySet(OfAccountQuerySet["SyncRun"]):
    def open(self) -> Self:
        """Waiting or running."""
        return self.filter(state__in=[SyncRun.State.QUEUED, SyncRun.State.RUNNING])

    def applied(self) -> Self:
        """The catalog was what the provider's list said when this run ended."""
        return self.filter(state__in=[SyncRun.State.DONE, SyncRun.State.UNCHANGED])


class SyncRun(models.Model):
    """How one sync of one account went. A queued row is work to do: beat sweeps it if the broker lost the task."""

    class State(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Syncing"
        DONE = "done", "Done"
        UNCHANGED = "unchanged", "Nothing changed"
        REFUSED = "refused", "Refused as implausible"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(ProviderAccount, models.CASCADE, related_name="sync_runs")
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    trigger = models.CharField(max_length=16, default="button", help_text="button, beat or command")
    added = models.IntegerField(default=0)
    gone = models.IntegerField(default=0)
    back = models.IntegerField(default=0)
    repriced = models.IntegerField(default=0)
    changed = models.IntegerField(default=0)
    unchanged = models.IntegerField(default=0)
    skipped = models.IntegerField(default=0, help_text="Rows that could not be read.")
    total = models.IntegerField(default=0)
    etag = models.CharField(max_length=300, blank=True, help_text="The list's ETag, sent back with the next request.")
    source = models.CharField(
        max_length=600, blank=True, help_text="The address the list came from and the rules it was read by."
    )
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    queued_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = SyncRunQuerySet.as_manager()

    class Meta:
        ordering = ["-queued_at"]
        indexes = [models.Index(fields=["state", "queued_at"]), models.Index(fields=["account", "-queued_at"])]
        constraints = [
            # The lock: at most one sync of an account is waiting or running (I15, F28).
            models.UniqueConstraint(
                fields=["account"], condition=Q(state__in=["queued", "running"]), name="one_open_sync_per_account"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} {self.state}"

    @property
    def is_open(self) -> bool:
        return self.state in (self.State.QUEUED, self.State.RUNNING)


class ChangeSetQuerySet(OfProviderQuerySet["ChangeSet"]):
    def for_user(self, user: AnyUser) -> Self:
        """Headings with at least one model under them that the user may know of."""
        return super().for_user(user).filter(Exists(ModelChange.objects.for_user(user).under(OuterRef("pk"))))


class ChangeSet(models.Model):
    """Everything one sync changed at a provider: the heading over its ModelChange rows.

    Small and counted, so that a page of history costs what it shows, however many rows a first sync brought.
    """

    provider = models.ForeignKey(Provider, models.CASCADE, related_name="change_sets", db_index=False)
    at = models.DateTimeField(default=timezone.now)
    counts = models.JSONField(default=dict, help_text="Kind of change → how many models, whoever may know of them.")

    objects = ChangeSetQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["provider", "-id"])]

    def __str__(self) -> str:
        return f"{self.provider_id} at {self.at:%Y-%m-%d %H:%M}"


class ModelChangeQuerySet(models.QuerySet["ModelChange"]):
    def for_user(self, user: AnyUser) -> Self:
        # Row by row: as a list (IN), SQLite would first look at every model there is.
        return self.filter(Exists(AggregatorModel.objects.for_user(user).order_by().filter(pk=OuterRef("model_id"))))

    def under(self, change_set: Any) -> Self:
        """In no order: to ask whether there are any."""
        return self.filter(change_set=change_set).order_by()


class ModelChange(models.Model):
    """What one sync changed on one model."""

    class Kind(models.TextChoices):
        ADDED = "added", "Added"
        GONE = "gone", "Gone"
        BACK = "back", "Back"
        RENAMED = "renamed", "Renamed"
        PRICE = "price", "Price"
        CONTEXT = "context", "Limits"
        CAPABILITY = "capability", "Capabilities"
        RETIREMENT = "retirement", "Retirement"

    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="changes")
    run = models.ForeignKey(SyncRun, models.SET_NULL, null=True, related_name="changes")
    change_set = models.ForeignKey(ChangeSet, models.CASCADE, null=True, related_name="changes", db_index=False)
    kind = models.CharField(max_length=16, choices=Kind)
    field = models.CharField(max_length=40, blank=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    at = models.DateTimeField(default=timezone.now)

    objects = ModelChangeQuerySet.as_manager()

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [
            models.Index(fields=["model", "-at"]),
            models.Index(fields=["-at"]),
            models.Index(fields=["change_set", "kind", "id"]),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} {self.kind}"


class CapabilityProbeQuerySet(OwnedQuerySet["CapabilityProbe"]):
    def open(self) -> Self:
        return self.filter(state__in=[CapabilityProbe.State.QUEUED, CapabilityProbe.State.RUNNING])


class CapabilityProbe(models.Model):
    """What a model can really do, tried by its owner through one of their accounts. Written by `catalog.probes`.

    `results` holds one entry per capability that was tried, in the order they were: {"capability", "verdict" ("yes",
    "no", "unclear"), "reason", "cost" (USD as text, or null for unknown), "request_id", "at"}.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Trying"
        DONE = "done", "Done"
        STOPPED = "stopped", "Stopped"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="capability_probes")
    model = models.ForeignKey(AggregatorModel, models.CASCADE, related_name="probes")
    account = models.ForeignKey(ProviderAccount, models.SET_NULL, null=True, related_name="+")
    account_label = models.CharField(max_length=80, blank=True)
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    asked = models.JSONField(default=list, help_text="The capabilities to try, in this order.")
    results = models.JSONField(default=list)
    estimate = MoneyField(null=True, help_text="USD at most, as it was shown before; empty: unknown.")
    cost = MoneyField(null=True, help_text="USD so far; empty: unknown.")
    message = models.CharField(max_length=500, blank=True, help_text="Why it ended early.")
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    queued_at = models.DateTimeField(default=timezone.now)
    alive_at = models.DateTimeField(default=timezone.now, help_text="The last sign of life of who carries it out.")
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = CapabilityProbeQuerySet.as_manager()

    class Meta:
        db_table = "capability_probes"
        ordering = ["-queued_at"]
        indexes = [models.Index(fields=["owner", "model", "-queued_at"])]
        constraints = [
            # One at a time: two clicks, two tabs and two processes make one probe.
            models.UniqueConstraint(
                fields=["owner", "model"], condition=Q(state__in=["queued", "running"]), name="one_open_probe_per_model"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} {self.state}"

    @property
    def is_open(self) -> bool:
        return self.state in (self.State.QUEUED, self.State.RUNNING)
