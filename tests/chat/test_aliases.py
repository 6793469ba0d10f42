"""An alias picked in chat: who answers, along the list, what the page says of it, and that it stays picked."""

from __future__ import annotations

import uuid

import pytest
from asgiref.sync import sync_to_async
from django.urls import reverse

from catalog import aliases
from chat import generation
from chat.models import Conversation, Generation
from providers.clients.errors import ProviderUnreachable
from providers.models import ProviderAccount
from tests.chat.conftest import make_model
from usage.models import UsageLog

pytestmark = pytest.mark.slow


@pytest.fixture
def second(provider, alice):
    return ProviderAccount.objects.create(owner=alice, provider=provider, label="second key", status="valid")


@pytest.fixture
def spare(provider, second):
    return make_model(provider, second, model_id="vendor/spare", display_name="Spare")


@pytest.fixture
def alias(alice, model, spare):
    row = aliases.blank(alice)
    row.alias, row.targets = "fast", [model.model_id, spare.model_id]
    return aliases.save(row, by=alice)


@pytest.fixture
def send(alice_client, monkeypatch):
    monkeypatch.setattr(generation, "start", lambda pk: None)

    def post(client=alice_client, **data):
        return client.post(reverse("chat:message-send"), {"text": "Hi", "client_key": uuid.uuid4(), **data})

    return post


def test_a_message_to_an_alias_keeps_it_picked_and_shows_it(send, alias, model, alice_client):
    response = send(alias=alias.pk)
    conversation = Conversation.objects.get()
    reply = Generation.objects.get()
    assert response.status_code == 302
    assert (conversation.alias, reply.alias, reply.alias_name, reply.model) == (alias, alias, "fast", model)
    page = alice_client.get(conversation.get_absolute_url()).content.decode()
    assert f'name="alias" value="{alias.pk}"' in page and 'alias <span dir="auto">fast</span>' in page
    assert f'name="alias" value="{alias.pk}"' in alice_client.get("/").content.decode(), "a new one offers it as well"


def test_picking_a_model_again_puts_the_alias_away(send, alias, model, alice_client):
    send(alias=alias.pk)
    conversation = Conversation.objects.get()
    Generation.objects.update(state="complete")
    alice_client.post(reverse("chat:message-send", args=[conversation.pk]), {"text": "And?", "model": model.pk})
    conversation.refresh_from_db()
    assert (conversation.alias, conversation.model) == (None, model)


def test_a_retry_asks_the_alias_again(send, alias, alice_client):
    send(alias=alias.pk)
    Generation.objects.update(state="complete")
    reply = Generation.objects.get().message
    alice_client.post(reverse("chat:message-retry", args=[reply.pk]), {})
    assert [g.alias for g in Generation.objects.all()] == [alias, alias]


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "9" * 30, "12345"])
def test_an_alias_that_is_none_is_refused(wrong, send, alias):
    assert send(alias=wrong).status_code == 422
    assert not Conversation.objects.exists()


def test_another_users_alias_does_not_exist_here(send, alias, bob_client):  # A1
    response = send(client=bob_client, alias=alias.pk)
    assert response.status_code == 422 and "That alias does not exist" in response.content.decode()
    picker = bob_client.get(reverse("chat:model-picker"), {"alias": alias.pk}).content.decode()
    assert "fast" not in picker and "Pick a model" in picker


def test_an_alias_without_a_usable_model_says_why(send, alias, alice):
    ProviderAccount.objects.update(is_active=False)
    response = send(alias=alias.pk)
    assert response.status_code == 422 and "switched off" in response.content.decode()


def test_the_picker_shows_the_chosen_alias(alias, alice_client):
    picker = alice_client.get(reverse("chat:model-picker"), {"alias": alias.pk}).content.decode()
    assert '<strong dir="auto">fast</strong>' in picker and f'name="alias" value="{alias.pk}"' in picker


async def run(reply):
    await generation.Reply(reply.pk).run()
    return await Generation.objects.select_related("model", "account", "alias").aget(pk=reply.pk)


@pytest.mark.django_db(transaction=True)
async def test_the_reply_fails_over_along_the_list_and_says_so(
    scripted, alice, alias, model, spare, account, second, ask
):
    reply = await sync_to_async(ask)(alias=alias)
    scripted(ProviderUnreachable("unreachable"), account=account)
    done = await run(reply)
    assert (done.state, done.model, done.account, done.model_name) == ("complete", spare, second, "Spare")
    assert done.failover == "instead of GPT at work key: unreachable" and done.alias_name == "fast"
    attempts = [(row.model_id, row.attempt, row.status) async for row in UsageLog.objects.order_by("id")]
    assert attempts == [("vendor/gpt", 1, "error"), ("vendor/spare", 2, "success")]


@pytest.mark.django_db(transaction=True)
async def test_an_alias_that_was_deleted_meanwhile_leaves_the_model_that_was_first(scripted, alias, model, ask):
    reply = await sync_to_async(ask)(alias=alias)
    await sync_to_async(aliases.delete)(alias)
    done = await run(reply)
    assert (done.state, done.model, done.alias, done.alias_name) == ("complete", model, None, "fast")
