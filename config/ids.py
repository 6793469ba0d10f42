"""Random bytes from the operating system, fetched a block at a time.

An id per request and one per attempt are two system calls per request otherwise, which is some 2 % of all its work.
Not for keys and tokens: those ask the system themselves.
"""

from __future__ import annotations

import os
import threading
from uuid import UUID

_BLOCK = 4096


class _Store(threading.local):
    """What is left of a thread's block."""

    data = b""
    at = 0


_store = _Store()


def random_bytes(count: int) -> bytes:
    """`count` random bytes (at most 64), no two callers' the same ones."""
    store = _store
    end = store.at + count
    if end > len(store.data):
        store.data, store.at, end = os.urandom(_BLOCK), 0, count
    found = store.data[store.at : end]
    store.at = end
    return found


def new_uuid() -> UUID:
    """A random UUID, as uuid.uuid4() makes it."""
    return UUID(bytes=random_bytes(16), version=4)


def _forget() -> None:
    """A forked child would give out the ids its parent gives out."""
    _store.data, _store.at = b"", 0


os.register_at_fork(after_in_child=_forget)
