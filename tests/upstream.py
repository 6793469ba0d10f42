"""A real upstream for tests: the trial server in a thread of its own, on loopback, with real HTTP and real SSE.

    def test_…(upstream, upstream_account):
        upstream.gate(after=2)        # every stream stops after two pieces …
        upstream.wait(held=1)         # … and one has
        upstream.open()
        upstream.requests[0].headers, .json, .ended

Model ids are in providers/sandbox/shelf.py; what goes wrong, in providers/sandbox/faults.py.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps as django_apps

from providers import net
from providers.sandbox.companion import LOGICAL_HOST
from providers.sandbox.routes import handle
from providers.sandbox.server import Record, Server

BASE_URL = "http://sandbox.internal/v1"
KEY = "sk-trial-alice-0123456789abcdef"


@dataclass(frozen=True)
class Seen:
    """One request that came in. `ended`: open, answered, left (the client closed) or cut (the upstream did)."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    ended: str
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Upstream:
    """The server and its knobs, to be used from any thread."""

    base_url = BASE_URL
    key = KEY

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self.server = Server(handle, speed=0, keep=True)
        self.port: int = self._call(self.server.start())

    def _call(self, coroutine: Coroutine[Any, Any, Any], seconds: float = 15) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def _do(self, function: Any, *args: Any) -> Any:
        async def run() -> Any:
            return function(*args)

        return self._call(run())

    @property
    def origin(self) -> str:
        """The address it really listens on."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def outbound_hosts(self) -> str:
        """The OUTBOUND_HOSTS entry that leads another process here."""
        return f"{LOGICAL_HOST}=127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Seen]:
        """Every request since the last reset, in order of arrival."""
        return self._do(lambda: [_seen(record) for record in self.server.records])

    @property
    def chats(self) -> list[Seen]:
        """Those of /chat/completions."""
        return [seen for seen in self.requests if seen.path.endswith("/chat/completions")]

    @property
    def connections(self) -> int:
        """Connections accepted since the last reset."""
        return self._do(lambda: self.server.connections)

    def gate(self, after: int = 0) -> None:
        """Hold every stream of a well-behaved model after its first `after` pieces, until `open()`."""
        self._do(self.server.gate.shut, after)

    def open(self) -> None:
        """Let every held stream go on."""
        self._do(self.server.gate.open)

    def wait(self, seconds: float = 10, **counts: int) -> None:
        """Until that many `requests`, `chats`, `left`, `ended` are counted or streams are `held`. Raises TimeoutError."""
        from providers.sandbox.routes import _COUNTS

        async def until() -> None:
            async with asyncio.timeout(seconds):
                while any(_COUNTS[name](self.server) < count for name, count in counts.items()):
                    await self.server.change()

        self._call(until(), seconds + 5)

    def speed(self, value: float) -> None:
        """0: no pauses (the default here); 1: as in `make run`. `slow` always takes 50 ms a piece."""
        self.server.speed = value

    def list(self, name: str) -> None:
        """Serve another model list: a name of shelf.LISTS, or faults, html, cut, fails."""
        self.server.listing = name

    def reset(self) -> None:
        self._do(self.server.reset)
        self.server.speed = 0

    def stop(self) -> None:
        self._call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


def _seen(record: Record) -> Seen:
    headers = {name.lower(): value for name, value in record.headers}
    return Seen(record.method, record.path, headers, record.body, record.ended, record.connection)


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture
def upstream(_upstream: Upstream) -> Iterator[Upstream]:
    """The upstream, fresh, reachable as http://sandbox.internal/v1 through the operator's host table."""
    before = net._rules
    _upstream.reset()
    net.configure(net.Policy(hosts={LOGICAL_HOST: ("127.0.0.1", _upstream.port)}))
    yield _upstream
    _upstream.reset()
    net._rules = before
    net._admit.cache_clear()


@pytest.fixture
def upstream_account(alice, upstream):
    """Alice's saved account there, with a key (`upstream.key`) and its models synced; the upstream's counts are 0."""
    from catalog.sync import sync_account
    from providers import vault
    from providers.models import Provider, ProviderAccount

    # A transactional test before this one may have emptied the tables, the built-in providers included.
    if not Provider.objects.filter(base_url=BASE_URL).exists():
        import_module("providers.migrations.0002_built_in_providers").add(django_apps, None)
    provider = Provider.objects.get(base_url=BASE_URL, owner=None)
    account = ProviderAccount(owner=alice, provider=provider, label="Trial", status=ProviderAccount.Status.VALID)
    vault.seal_key(account, KEY)
    account.save()
    run = sync_account(account)
    assert run.state == run.State.DONE, f"{run.error_code}: {run.error_message}"
    upstream.reset()
    return account
