"""Alice, a provider with one model, and a scripted upstream behind her account."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from catalog.models import AccountModel, AggregatorModel
from chat import generation, streams, writing
from chat.models import Generation
from providers import net
from providers.models import Provider, ProviderAccount
from tests.chat.fakes import FakeClient, end


@pytest.fixture(autouse=True)
async def _fresh_streams():
    """In memory, whatever REDIS_URL says; test_streams and test_live have Redis of their own."""
    streams._streams = streams.MemoryStreams()
    yield
    streams._streams = None
    # The thread behind sync_to_async keeps a connection, which would keep the test database from being dropped.
    await sync_to_async(connections.close_all)()


@pytest.fixture
def provider(db):
    return Provider.objects.create(
        name="talker", display_name="Talker", base_url="http://talker.test/v1", features={"keyless": True}
    )


@pytest.fixture
def account(provider, alice):
    return ProviderAccount.objects.create(owner=alice, provider=provider, label="work key", status="valid")


def make_model(provider, *accounts, model_id="vendor/gpt", **fields):
    model = AggregatorModel.objects.create(
        provider=provider,
        model_id=model_id,
        display_name=fields.pop("display_name", "GPT"),
        model_type="chat",
        price_kind="known",
        price_input=Decimal(1),
        price_output=Decimal(2),
        **fields,
    )
    for account in accounts:
        AccountModel.objects.create(account=account, model=model)
    return model


@pytest.fixture
def model(provider, account):
    return make_model(provider, account)


@pytest.fixture
def scripted(monkeypatch):
    """scripted(*script, account=None): what the provider says from now on; returns the FakeClient."""
    clients = {None: FakeClient("Hello", *end())}
    monkeypatch.setattr(ProviderAccount, "client", lambda self: clients.get(self.pk) or clients[None])

    def script(*script, account=None):
        clients[account.pk if account else None] = fake = FakeClient(*script)
        return fake

    return script


@pytest.fixture
def ask(alice, model, monkeypatch):
    """ask(text) stores a message and a pending reply, and starts nothing; returns the Generation."""
    monkeypatch.setattr(generation, "start", lambda pk: None)

    def stored(text="Hi", **options):
        options = {"user": alice, "model": model, "account": None, **options}
        sent = writing.send(options.pop("user"), text=text, **options)
        return Generation.objects.get(message=sent.reply)

    return stored


@pytest.fixture
def web(transactional_db):
    """A running web loop in a thread, as the server has one: replies that views start run on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="web-loop")
    thread.start()

    def call(coroutine, timeout=30):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout)

    async def begin():
        generation.startup()

    async def finish():
        await generation.drain(5)
        await net.close()
        await loop.shutdown_default_executor()

    call(begin())
    yield call
    call(finish())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    generation._loop = None
