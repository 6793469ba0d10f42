"""The ledger under test: inline where the test rolls back, its real thread where the test commits.

The real writer has its own connection, which cannot see what a savepoint test has not committed (and on SQLite would
wait for it). So for such tests each row is written at once, on the connection of the thread that asks.
"""

from __future__ import annotations

import asyncio

import pytest

from usage import ledger


class InlineWriter:
    """Has the writer's interface, and writes each row before `submit` returns."""

    is_alive = True

    def __init__(self):
        self.commits = self.rows = 0

    def submit(self, write):
        # An async test shares its thread with the test's transaction, but Django gives every coroutine a connection
        # of its own: for the moment of writing there is no loop.
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            ledger.write_batch([write])
            self.commits += 1
            self.rows += 1
        except Exception as exc:
            write.error = exc
        finally:
            asyncio._set_running_loop(loop)
        ledger.resolve(write)
        return True

    def write_at_once(self, write):
        return False

    def stop(self, timeout):
        return True


_COMMITTING = {"transactional_db", "live_server", "django_db_reset_sequences", "django_db_serialized_rollback"}


@pytest.fixture(autouse=True)
def _ledger_writer(request, monkeypatch):
    """Inline for savepoint tests; a real writer, stopped before the tables are emptied, for the others."""
    marker = request.node.get_closest_marker("django_db")
    commits = bool(_COMMITTING & set(request.fixturenames)) or bool(
        marker and (marker.kwargs.get("transaction") or marker.args[:1] == (True,))
    )
    if commits:
        request.getfixturevalue("transactional_db")
    else:
        monkeypatch.setattr(ledger, "_factory", InlineWriter)
    ledger.stop()
    ledger._under_way.clear()  # a test may leave a call open on purpose
    yield
    ledger.stop()
