"""A provider, Alice's account there, and an upstream that lists whatever a test tells it to."""

from __future__ import annotations

import json
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from providers import net
from providers.clients.base import ModelInfo, ModelList, Prices
from providers.models import Provider, ProviderAccount


class FakeClient:
    """Stands in for a dialect: answers with a prepared list, or raises. `etags` records what it was asked with."""

    def __init__(self, answer):
        self.answer, self.etags = answer, []

    async def list_models(self, *, etag=""):
        self.etags.append(etag)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(etag) if callable(self.answer) else self.answer

    async def list_is_proof(self):
        return False


def model(model_id, input_price="1", output_price="2", **fields):
    """A ModelInfo as a client would read it; prices in USD per 1M tokens, None for unknown."""
    prices = Prices(
        input=None if input_price is None else Decimal(input_price),
        output=None if output_price is None else Decimal(output_price),
    )
    return ModelInfo(
        **{"model_id": model_id, "display_name": model_id.title(), "model_type": "chat", "prices": prices, **fields}
    )


def listing(*models, **fields):
    return ModelList(models=tuple(models), **fields)


@pytest.fixture
def provider(db):
    return Provider.objects.create(
        name="lister", display_name="Lister", base_url="http://lister.test/v1", features={"keyless": True}
    )


@pytest.fixture
def account(provider, alice):
    return ProviderAccount.objects.create(owner=alice, provider=provider, label="Alice's key")


@pytest.fixture
def bobs_account(provider, bob):
    return ProviderAccount.objects.create(owner=bob, provider=provider, label="Bob's key")


@pytest.fixture
def upstream(monkeypatch):
    """upstream(answer, account=None): what the provider lists from now on; returns the FakeClient."""
    per_account = {}

    def client(self):
        return per_account.get(self.pk) or per_account[None]

    monkeypatch.setattr(ProviderAccount, "client", client)

    def answers(answer, account=None):
        fake = FakeClient(answer)
        per_account[account.pk if account else None] = fake
        return fake

    return answers


class Listing:
    """What the loopback provider sends: set `body` (bytes or JSON-able), `status`, `etag`; `asked` is what it heard."""

    def __init__(self, port):
        self.port, self.body, self.status, self.etag, self.asked = port, {"data": []}, 200, "", []

    def answer(self, handler):
        self.asked.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        if self.etag and handler.headers.get("If-None-Match") == self.etag:
            handler.send_response(304)
            handler.send_header("ETag", self.etag)
            handler.end_headers()
            return
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        handler.send_response(self.status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def lister():
    """A real HTTP server on loopback, reached under the names lister.test and home.test by the operator's table."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            state.answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Listing(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    before = net._rules
    net.configure(net.Policy(hosts=dict.fromkeys(("lister.test", "home.test"), ("127.0.0.1", state.port))))
    yield state
    net._rules = before
    server.shutdown()
    server.server_close()
    thread.join(5)
