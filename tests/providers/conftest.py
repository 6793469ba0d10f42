"""A provider on loopback that knows which keys are good, and remembers everything it heard."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from providers import net, vault
from providers.models import Provider, ProviderAccount

GOOD_KEY = "sk-good-0123456789abcdef-3f9a"
OTHER_GOOD_KEY = "sk-good-zyxwvutsrqponmlk-77b1"


@dataclass
class Heard:
    """One request as it arrived: header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ProviderServer:
    """Answers like an OpenAI-compatible API. `answer(heard)` may return (status, body) to say something else."""

    port: int = 0
    keys: set[str] = field(default_factory=lambda: {GOOD_KEY, OTHER_GOOD_KEY})
    requests: list[Heard] = field(default_factory=list)
    delay: float = 0.0
    answer: Callable[[Heard], tuple[int, Any] | None] = lambda heard: None

    @property
    def sent_keys(self) -> list[str]:
        return [heard.headers.get("authorization", "").removeprefix("Bearer ") for heard in self.requests]

    def reply(self, heard: Heard) -> tuple[int, Any]:
        special = self.answer(heard)
        if special is not None:
            return special
        key = heard.headers.get("authorization", "").removeprefix("Bearer ")
        if heard.path.endswith("/models"):
            return 200, {"object": "list", "data": [{"id": "alpha"}, {"id": "beta"}]}
        if key not in self.keys:
            return 401, {"error": {"message": "No such key", "type": "auth", "code": 401}}
        if heard.path.endswith("/key"):
            return 200, {"data": {"label": "x", "limit": 25, "limit_remaining": 18.2, "usage": 6.8}}
        if heard.path.endswith("/dashboard/billing/remain"):
            return 200, {"object": "list", "total_usage": 0.064}
        return 400, {"error": {"message": "messages: field required", "type": "invalid_request_error"}}


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    state = ProviderServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard = Heard(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            state.requests.append(heard)
            time.sleep(state.delay)
            status, content = state.reply(heard)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.port = listener.server_address[1]
    before = net._rules
    here = ("127.0.0.1", state.port)
    names = ("keys.internal", "other.internal", "router.internal", "mix.internal", "local.internal")
    net.configure(net.Policy(hosts=dict.fromkeys(names, here)))
    yield state
    net._rules = before
    listener.shutdown()
    listener.server_close()
    thread.join(5)


@pytest.fixture
def router(db, server) -> Provider:
    """A built-in provider that is asked GET /key."""
    return Provider.objects.create(
        name="router", display_name="Router", client="openrouter", base_url="http://router.internal/api/v1"
    )


@pytest.fixture
def local(db, server) -> Provider:
    """A built-in provider that needs no key."""
    return Provider.objects.create(
        name="local", display_name="Local models", base_url="http://local.internal/v1", features={"keyless": True}
    )


def account_of(owner: Any, provider: Provider, key: str = GOOD_KEY, **columns: Any) -> ProviderAccount:
    """A saved account with a sealed key."""
    account = ProviderAccount(owner=owner, provider=provider, label=columns.pop("label", "Work key"), **columns)
    vault.seal_key(account, key)
    account.save()
    return account


def note_in(response: Any) -> str:
    """What an answer of the dialog says was found, to be sent with the second step; "" where it asks for none."""
    found = re.search(r'name="checked" value="([^"]+)"', response.content.decode())
    return found[1] if found else ""


def add(client: Any, data: dict[str, Any]) -> Any:
    """Both steps of the dialog: check, then save what was found, verified or not. The last answer."""
    response = client.post("/accounts/create/", data, headers={"HX-Request": "true"})
    if note := note_in(response):
        data = {**data, "checked": note, "accept_unverified": "on"}
        response = client.post("/accounts/create/", data, headers={"HX-Request": "true"})
    return response


@pytest.fixture(autouse=True)
def _keys_may_come_as_typed(settings: Any) -> None:
    """Tests of what happens to a key post it plainly; how it gets here is tested in test_sealing.py, strictly."""
    settings.ALLOW_UNSEALED_KEYS = True
