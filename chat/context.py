"""What the sidebar shows on every page; each part is read only when a template asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Q, Sum
from django.http import HttpRequest
from django.utils import timezone

from catalog.models import AggregatorModel
from chat.models import Conversation, Generation
from config.htmx import path_behind
from providers import health
from usage.models import DailyUsage, Notice, UsageLog

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

SHOWN = 60
"""Conversations in the sidebar, newest first."""


class Navigation:
    """`groups`: (heading, conversations); `models`, `attention`, `notices`: counts; `spent`: USD this month or None.

    `standing`: how the user's accounts stand (health.Glance).
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def _user(self) -> AbstractBaseUser | AnonymousUser:
        return self._request.user

    @cached_property
    def current_path(self) -> str:
        """The path of the page in the browser, also when htmx asks for a part of it."""
        return path_behind(self._request) or self._request.path

    @cached_property
    def groups(self) -> list[tuple[str, list[Conversation]]]:
        conversations = list(Conversation.objects.for_user(self._user).active()[:SHOWN])
        ids = [conversation.pk for conversation in conversations]
        costs = _costs(self._user, ids)
        writing = set(
            Generation.objects.for_user(self._user)
            .open()
            .filter(message__conversation__in=ids)
            .values_list("message__conversation_id", flat=True)
        )
        today = timezone.localdate()
        groups: dict[str, list[Conversation]] = {}
        for conversation in conversations:
            conversation.cost = costs.get(conversation.pk)  # type: ignore[attr-defined]
            conversation.is_writing = conversation.pk in writing  # type: ignore[attr-defined]
            day = timezone.localdate(conversation.updated_at)
            heading = "Today" if day >= today else "Yesterday" if day == today - timedelta(days=1) else "Earlier"
            groups.setdefault(heading, []).append(conversation)
        return list(groups.items())

    @cached_property
    def models(self) -> int:
        """How many rows the explorer has: one per model, however many sell it."""
        single, grouped = Q(group_key=""), ~Q(group_key="")
        counted = AggregatorModel.objects.available_to(self._user).aggregate(
            single=Count("pk", filter=single), groups=Count("group_key", distinct=True, filter=grouped)
        )
        return counted["single"] + counted["groups"]

    @cached_property
    def standing(self) -> health.Glance:
        return health.glance(self._user)

    @property
    def attention(self) -> int:
        return self.standing.attention

    @cached_property
    def notices(self) -> int:
        """Unread ones; whoever has a hundred need not know how many more."""
        return Notice.objects.for_user(self._user).unread().order_by()[:100].count()

    @cached_property
    def spent(self) -> Decimal | None:
        first = timezone.now().date().replace(day=1)
        days = DailyUsage.objects.for_user(self._user).filter(day__gte=first)
        return days.aggregate(spent=Sum("cost"))["spent"]


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Context processor: `navigation` for signed-in users."""
    user = getattr(request, "user", None)
    return {"navigation": Navigation(request)} if user is not None and user.is_authenticated else {}


def _costs(user: AbstractBaseUser | AnonymousUser, conversation_ids: list[Any]) -> dict[Any, Decimal]:
    """USD per conversation; conversations with no known cost are missing."""
    rows = UsageLog.objects.for_user(user).filter(conversation_id__in=conversation_ids, cost__isnull=False)
    return dict(rows.order_by().values_list("conversation_id").annotate(spent=Sum("cost")))


@dataclass(frozen=True, slots=True)
class Figures:
    """The line in the bar of a conversation. `cost` is USD, None if unknown or nothing was called."""

    cost: Decimal | None
    unknown: int
    messages: int
    branches: int


def figures_of(conversation: Conversation) -> Figures:
    """What a conversation has cost, how many messages it has, and in how many ways it goes on."""
    rows = UsageLog.objects.filter(conversation_id=conversation.pk).exclude(status=UsageLog.Status.PENDING)
    counted = rows.aggregate(spent=Sum("cost"), all=Count("pk"), known=Count("cost"))
    tree = conversation.messages.aggregate(messages=Count("pk"), inner=Count("parent", distinct=True))
    return Figures(
        cost=counted["spent"],
        unknown=counted["all"] - counted["known"],
        messages=tree["messages"],
        branches=tree["messages"] - tree["inner"],  # a branch ends in a message that nothing answers
    )
