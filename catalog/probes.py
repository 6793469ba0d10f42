"""Capability probes: what may be tried, what was found, and the only writer of CapabilityProbe.

The calls themselves are made by `usage.probing`, which is above this: they are metered. A probe is its owner's: another
account may lead to another server, so nobody's finding changes what other users see. To its owner it says more than
what the provider states, and is shown as *probed*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from catalog.models import AggregatorModel, CapabilityProbe

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from providers.models import AnyUser, ProviderAccount

State = CapabilityProbe.State

CAPABILITIES: dict[str, tuple[str, str]] = {
    "vision": ("Vision", "Shows it a small picture of two colours and asks which they are."),
    "tools": ("Tools", "Offers it a tool and asks something that only the tool can tell."),
    "json": ("JSON mode", "Asks for an answer in JSON mode and reads it."),
    "stream_usage": ("Usage in streams", "Streams a short answer and looks for its token counts."),
}
"""Name → (what pages call it, how it is tried)."""

STALE_AFTER = timedelta(minutes=3)
"""A probe without a sign of life for longer is nobody's any more. One call takes a minute at most."""

UNSTARTED_AFTER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one capability from the latest probe that tried it."""

    capability: str
    verdict: str = ""
    reason: str = ""
    cost: Decimal | None = None
    at: datetime | None = None
    account_label: str = ""

    @property
    def label(self) -> str:
        return CAPABILITIES[self.capability][0]

    @property
    def short(self) -> str:
        """For a badge beside what the provider states."""
        return f"{self.label.lower() if self.capability != 'json' else self.label} probed: {self.verdict}"

    @property
    def how(self) -> str:
        return CAPABILITIES[self.capability][1]

    @property
    def variant(self) -> str:
        """Badge variant."""
        return {"yes": "good", "no": "bad", "unclear": "warn"}.get(self.verdict, "neutral")


def request(
    owner: User, model: AggregatorModel, account: ProviderAccount, asked: Iterable[str], *, estimate: Decimal | None
) -> CapabilityProbe | None:
    """A new waiting probe, or None while another of this user and model is open."""
    end_abandoned(owner, model)
    try:
        with transaction.atomic():
            return CapabilityProbe.objects.create(
                owner=owner,
                model=model,
                account=account,
                account_label=account.label[:80],
                asked=[name for name in CAPABILITIES if name in set(asked)],
                estimate=estimate,
            )
    except IntegrityError:
        return None


def claim(pk: UUID) -> CapabilityProbe | None:
    """The probe, ours to carry out; None if it is not waiting (a second delivery of its task)."""
    now = timezone.now()
    won = CapabilityProbe.objects.filter(pk=pk, state=State.QUEUED).update(state=State.RUNNING, alive_at=now)
    if not won:
        return None
    return CapabilityProbe.objects.select_related("owner", "model__provider", "account__provider").get(pk=pk)


def note(pk: UUID, results: list[dict[str, Any]], cost: Decimal | None) -> bool:
    """Store what was found so far. False: it is not ours any more, or its owner wants it to stop."""
    CapabilityProbe.objects.filter(pk=pk, state=State.RUNNING).update(
        results=results, cost=cost, alive_at=timezone.now()
    )
    return is_wanted(pk)


def is_wanted(pk: UUID) -> bool:
    """Whether the probe shall go on; a sign of life."""
    running = CapabilityProbe.objects.filter(pk=pk, state=State.RUNNING, stop_requested_at=None)
    return bool(running.update(alive_at=timezone.now()))


def finish(pk: UUID, state: str, message: str = "") -> None:
    """End an open probe. One that has ended stays as it is."""
    ended = {"state": state, "message": message[:500], "finished_at": timezone.now()}
    CapabilityProbe.objects.open().filter(pk=pk).update(**ended)


def request_stop(probe: CapabilityProbe) -> None:
    """End it: at once if nobody has begun, else within about a second. What was found is kept."""
    now = timezone.now()
    waiting = CapabilityProbe.objects.filter(pk=probe.pk, state=State.QUEUED)
    if not waiting.update(state=State.STOPPED, finished_at=now, message="You stopped it before it began."):
        CapabilityProbe.objects.filter(pk=probe.pk, state=State.RUNNING).update(stop_requested_at=now)


def end_abandoned(owner: AnyUser, model: AggregatorModel) -> None:
    """End what nobody carries out: its process died, or no worker ever took it."""
    now = timezone.now()
    mine = CapabilityProbe.objects.for_user(owner).filter(model=model)
    mine.filter(state=State.RUNNING, alive_at__lt=now - STALE_AFTER).update(
        state=State.FAILED, finished_at=now, message="The server stopped while this was tried. What was found is kept."
    )
    mine.filter(state=State.QUEUED, queued_at__lt=now - UNSTARTED_AFTER).update(
        state=State.FAILED, finished_at=now, message="No worker took it on. Is the worker running?"
    )


def findings(user: AnyUser, model: AggregatorModel) -> list[Finding]:
    """Every capability with what the user's latest probe of it found. One query."""
    latest: dict[str, Finding] = {}
    rows = CapabilityProbe.objects.for_user(user).filter(model=model).order_by("-queued_at")[:50]
    for probe in rows:
        for result in probe.results:
            name = result.get("capability")
            if name in CAPABILITIES and name not in latest:
                latest[name] = Finding(
                    name,
                    str(result.get("verdict", "")),
                    str(result.get("reason", "")),
                    None if result.get("cost") is None else Decimal(result["cost"]),
                    datetime.fromisoformat(result["at"]),
                    probe.account_label,
                )
    return [latest.get(name, Finding(name)) for name in CAPABILITIES]
