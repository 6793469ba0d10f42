"""Alice's things and Bob's: one row of every owned model for each, and what both may see.

Everything of a user's that has a text carries `mark(user)`, so that a page which shows one of Alice's rows to Bob gives
itself away, wherever on it the row stands.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Model

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
from chat.models import Conversation, Generation, Message
from providers import vault
from providers.models import Provider, ProviderAccount, SealingTicket
from usage import tokens
from usage.models import ApiToken, DailyUsage, Notice, UsageLog

_ids = count(71_000_001)
"""Primary keys that stand out: in a page, one is found or replaced without hitting any other number."""

WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)


def mark(user: User) -> str:
    """The word that stands in every text of this user's rows."""
    return f"{user.username}-only"


def key_of(user: User) -> str:
    return f"sk-SENTINEL-{user.username}-0123456789abcdef"


@dataclass
class Things:
    """One user's row of every model, and the token they call `/v1` with."""

    owner: User
    provider: Provider
    account: ProviderAccount
    model: AggregatorModel
    offer: AccountModel
    past_offer: PastOffer
    alias: ModelAlias
    alias_version: ModelAliasVersion
    group_rule: ModelGroupRule
    probe: CapabilityProbe
    star: FavouriteModel
    saved: SavedFilter
    rule: HideRule
    own_price: OwnPrice
    ticket: SealingTicket
    version: CatalogVersion
    change_set: ChangeSet
    run: SyncRun
    change: ModelChange
    conversation: Conversation
    question: Message
    reply: Message
    generation: Generation
    usage: UsageLog
    daily: DailyUsage
    notice: Notice
    token: ApiToken
    token_text: str

    @property
    def rows(self) -> dict[type[Model], Model]:
        """Model → this user's row."""
        return {type(row): row for row in vars(self).values() if isinstance(row, Model) and row is not self.owner}

    @property
    def secrets(self) -> dict[str, str]:
        """What nobody may be shown: column → value."""
        row = self.account
        sealed = {name: getattr(row, name) for name in ("api_key_encrypted", "api_key_hash", "extra_headers_encrypted")}
        own = {"token_hash": self.token.token_hash, "token": self.token_text, "password": self.owner.password}
        return {**sealed, **own, "key": key_of(self.owner)}


def things_of(owner: User, **names: Any) -> Things:
    """Make one row of each for `owner`; the generation has ended, the sync is done."""
    word = mark(owner)
    provider = Provider.objects.create(
        pk=next(_ids), name=f"{owner.username}-box", display_name=f"{word} provider", owner=owner, provider_type="direct",
        base_url=f"https://{owner.username}.example/v1",
    )  # fmt: skip
    account = ProviderAccount(
        owner=owner, provider=provider, label=f"{word} account", status="valid", status_reason=f"{word} reason"
    )
    vault.seal_key(account, key_of(owner))
    vault.seal_headers(account, {"X-Team": f"{word} header"})
    account.save()
    model = AggregatorModel.objects.create(
        pk=next(_ids), provider=provider, model_id=f"{word}/model", display_name=f"{word} model", model_type="chat",
        price_kind="known", price_input=Decimal(1), price_output=Decimal(2), released_at=WHEN,
    )  # fmt: skip
    conversation = Conversation.objects.create(owner=owner, title=f"{word} title", model=model, account=account)
    question = Message.objects.create(pk=next(_ids), conversation=conversation, role="user", content=f"{word} question")
    reply = Message.objects.create(
        pk=next(_ids),
        conversation=conversation,
        parent=question,
        role="assistant",
        content=f"{word} reply",
        reasoning=f"{word} why",
    )
    run = SyncRun.objects.create(
        account=account, state="failed", error_code="unreachable", error_message=f"{word} error", finished_at=WHEN
    )
    change_set = ChangeSet.objects.create(pk=next(_ids), provider=provider, at=WHEN, counts={"added": 1})
    generation = Generation.objects.create(
        message=reply, state="complete", account=account, model=model, account_label=account.label,
        provider_name=provider.display_name, model_name=model.display_name, finished_at=WHEN,
    )  # fmt: skip
    copied = {
        "door": "chat",
        "provider_name": provider.display_name,
        "model_id": model.model_id,
        "model_name": model.display_name,
    }
    alias = ModelAlias.objects.create(pk=next(_ids), owner=owner, alias=f"{word}-alias", targets=[model.model_id])
    token, token_text = tokens.create(owner, f"{word} token")
    return Things(
        owner=owner, provider=provider, account=account, model=model, run=run, conversation=conversation,
        question=question, reply=reply, generation=generation, token=token, token_text=token_text,
        offer=AccountModel.objects.create(pk=next(_ids), account=account, model=model),
        past_offer=PastOffer.objects.create(pk=next(_ids), account=account, model=model),
        ticket=SealingTicket.objects.create(owner=owner, purpose="add-account"),
        alias=alias,
        alias_version=ModelAliasVersion.objects.create(
            pk=next(_ids), alias=alias, kind="created", by=owner.username, after={"alias": f"{word}-alias", "targets": [model.model_id, "older"], "max_input": None, "max_output": None}
        ),
        probe=CapabilityProbe.objects.create(
            owner=owner, model=model, account=account, account_label=f"{word} account", state="done", asked=["tools"],
            results=[{"capability": "tools", "verdict": "yes", "reason": f"{word} reason", "cost": "0.01", "request_id": "", "at": WHEN.isoformat()}],
        ),
        group_rule=ModelGroupRule.objects.create(
            pk=next(_ids), provider=provider, model_id=model.model_id, group_key=f"{word}-group", note=f"{word} note"
        ),
        version=CatalogVersion.objects.create(provider=provider), change_set=change_set,
        change=ModelChange.objects.create(
            pk=next(_ids), model=model, run=run, change_set=change_set, kind="added", at=WHEN
        ),
        notice=Notice.objects.create(
            pk=next(_ids), owner=owner, model=model, kind="dropped", because="used", run_id=run.pk,
            data={"account": account.label},
        ),
        star=FavouriteModel.objects.create(pk=next(_ids), owner=owner, model=model),
        saved=SavedFilter.objects.create(pk=next(_ids), owner=owner, name=f"{word} filter", query="free=on"),
        rule=HideRule.objects.create(pk=next(_ids), owner=owner, glob=f"{word}/nothing-*"),
        own_price=OwnPrice.objects.create(pk=next(_ids), owner=owner, model=model, price_input=Decimal("0.5")),
        usage=UsageLog.objects.create(
            pk=next(_ids), user_id=owner.pk, account_id=account.pk, account_label=account.label, conversation_id=conversation.pk,
            message_id=reply.pk, generation_id=generation.pk, status="success", cost=Decimal("0.25"),
            cost_source="computed", settled_at=WHEN, token_id=token.pk, error_message=f"{word} note", **copied,
        ),
        daily=DailyUsage.objects.create(
            pk=next(_ids), user_id=owner.pk, day=date(2026, 11, 20), account_id=account.pk, attempts=1, cost=Decimal("0.25"), **copied
        ),
    )  # fmt: skip


def missing_id(row: Model) -> Any:
    """An id of the same kind that no row has."""
    return uuid.UUID(int=7) if isinstance(row.pk, uuid.UUID) else 79_999_999
