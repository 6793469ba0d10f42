"""Who wants to know what a sync changed: told inside its transaction, so that both are stored or neither is.

The catalog stands below `usage` and knows nobody who listens; a listener registers itself in its AppConfig.ready().
A listener reads what the sync has just written, writes rows of its own and must cost what the changes cost, not what
the catalog holds: the provider's catalog is locked meanwhile. What it raises undoes the sync, which is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from catalog.models import ModelChange
from providers.models import ProviderAccount


@dataclass(frozen=True, slots=True)
class Applied:
    """What one sync wrote. `changes` leaves additions out: nobody can use yet what was not there.

    `dropped` are models that `account` no longer lists though the provider still sells them.
    """

    account: ProviderAccount
    run_id: UUID
    at: datetime
    changes: Sequence[ModelChange]
    dropped: Sequence[int]


Listener = Callable[[Applied], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell `listener` of every sync from now on. Registering it twice is registering it once."""
    if listener not in _listeners:
        _listeners.append(listener)


def tell(applied: Applied) -> None:
    """Called by the sync at the end of its transaction, when anything changed."""
    for listener in _listeners:
        listener(applied)
