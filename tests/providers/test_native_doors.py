"""Issue 4, item 5: accounts of native protocols behind the same two doors, the chat and `/v1`, metered like any other."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.parse import unquote

import pytest
from asgiref.sync import sync_to_async

from catalog.models import AccountModel, AggregatorModel
from chat import generation, streams, writing
from chat.models import Generation
from config import hot
from config.dispatcher import Dispatcher
from providers import vault
from providers.clients.openai_compatible import parse_chunk
from providers.models import Provider, ProviderAccount
from tests.asgi import ask
from usage import tokens
from usage.models import UsageLog

from .clients.test_native_client import INVALID_KEY, upstream_on_loopback
from .native_recordings import STREAMS
from .test_native_recordings import KEY, body_of, counts, noted
from .test_native_recordings import pytestmark as needs_recordings

pytestmark = [*needs_recordings, pytest.mark.django_db(transaction=True)]

in_db = sync_to_async


def account_for(owner, dialect: str, names) -> ProviderAccount:
    """An account at a provider of that dialect that lists `names`: $1 in, $2 out per million, 64000 tokens at most."""
    provider = Provider.objects.create(
        name=f"native-{dialect}",
        display_name=dialect,
        client=dialect,
        api_standard=dialect,
        base_url="http://upstream.test",
    )
    account = ProviderAccount(owner=owner, provider=provider, label="Work", status=ProviderAccount.Status.VALID)
    vault.seal_key(account, KEY)
    account.save()
    for name in names:
        model = AggregatorModel.objects.create(
            provider=provider,
            model_id=name,
            display_name=name,
            model_type="chat",
            max_output_tokens=64_000,
            price_kind="known",
            price_input=Decimal(1),
            price_output=Decimal(2),
        )
        AccountModel.objects.create(account=account, model=model)
    return account


def both(owner) -> None:
    account_for(owner, "anthropic", [name for name in STREAMS if "anthropic" in name])
    account_for(owner, "google", [name for name in STREAMS if "anthropic" not in name])


def reply(line: str, headers: dict[str, str], body: bytes):
    """Plays the recording that is asked for: Messages names the model in the body, Gemini in the path."""
    if KEY not in (headers.get("x-api-key"), headers.get("x-goog-api-key")):
        return 400, "application/json", json.dumps(INVALID_KEY).encode()
    name = json.loads(body).get("model") or unquote(line.split("/models/")[1].rpartition(":")[0])
    return 200, "text/event-stream", body_of(name)


async def no_django(scope, receive, send):
    raise AssertionError(f"{scope['path']} is not a hot route")


@pytest.mark.slow
async def test_v1_callers_read_every_native_recording_and_its_row_says_what_was_used(alice):
    await in_db(both)(alice)
    token = (await in_db(tokens.create)(alice, "editor"))[1]
    app = Dispatcher(no_django, hot.ROUTES)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    async with upstream_on_loopback(reply) as heard:
        for name, expected in STREAMS.items():
            asked = {
                "model": name,
                "messages": [{"role": "user", "content": "hi"}],
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            answer = await ask(app, "POST", "/v1/chat/completions", headers=headers, body=json.dumps(asked).encode())
            row = await UsageLog.objects.aget(model_id=name)
            blocks = [block.removeprefix("data: ") for block in answer.body.decode().split("\n\n") if block]
            if expected.end != "complete":
                assert "error" in json.loads(blocks[-1]), name
                assert row.status == "error", name
                continue
            assert (answer.status, blocks[-1]) == (200, "[DONE]"), name
            found = {"text": "", "reasoning": "", "usage": None, "finish": None, "annotations": 0}
            calls: dict[int, list[str]] = {}
            for block in blocks[:-1]:
                delta = parse_chunk(json.loads(block))
                found["text"] += delta.text
                found["reasoning"] += delta.reasoning
                found["finish"] = delta.finish_reason or found["finish"]
                found["usage"] = delta.usage or found["usage"]
                found["annotations"] += len(delta.annotations)
                for call in delta.tool_calls:
                    known = calls.setdefault(call.index, ["", "", ""])
                    known[0], known[1], known[2] = known[0] or call.id, known[1] or call.name, known[2] + call.arguments
            assert noted(found, calls, "complete", answer.body.count(b'"sb1.')) == expected, name
            assert row.status == "success", name
            if expected.usage is not None:
                assert counts(row) == expected.usage, name
                prompt, completion = expected.usage[:2]
                if not expected.usage[3] and not expected.usage[4]:
                    assert row.cost == Decimal(prompt + 2 * completion) / 1_000_000, name
    assert len(heard) == len(STREAMS)
    bodies = [json.loads(body) for line, _, body in heard if "/messages" in line]
    assert {body["max_tokens"] for body in bodies} == {64_000}, "what the catalog knows of the model"


@pytest.mark.parametrize("name", ["sse-anthropic-thinking.txt", "sse-gemini-thinking.txt"])
async def test_a_chat_reply_is_complete_with_its_thinking_apart(alice, name, monkeypatch):
    monkeypatch.setattr(streams, "_streams", streams.MemoryStreams())
    monkeypatch.setattr(generation, "start", lambda pk: None)
    await in_db(both)(alice)
    model = await AggregatorModel.objects.aget(model_id=name)
    sent = await in_db(writing.send)(alice, text="Hi there", model=model, account=None)
    found = await Generation.objects.aget(message=sent.reply)
    async with upstream_on_loopback(reply):
        await generation.Reply(found.pk).run()
    found = await Generation.objects.select_related("message").aget(pk=found.pk)
    expected = STREAMS[name]
    assert (found.state, found.error_code, found.finish_reason) == ("complete", "", "stop")
    assert (len(found.message.content), len(found.message.reasoning)) == (expected.length, expected.reasoning[0])
    row = await UsageLog.objects.aget()
    assert counts(row) == expected.usage


async def test_a_key_that_gemini_rejects_with_400_is_a_rejected_key_to_a_caller(alice):
    """F10: Google's bad key is no 401."""
    await in_db(both)(alice)
    token = (await in_db(tokens.create)(alice, "editor"))[1]
    asked = {"model": "sse-gemini-text.txt", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with upstream_on_loopback(lambda *heard: (400, "application/json", json.dumps([INVALID_KEY]).encode())):
        answer = await ask(
            Dispatcher(no_django, hot.ROUTES),
            "POST",
            "/v1/chat/completions",
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
            body=json.dumps(asked).encode(),
        )
    assert answer.status >= 400
    row = await UsageLog.objects.aget()
    assert (row.status, row.error_code, row.cost) == ("error", "key_rejected", 0)
    account = await ProviderAccount.objects.aget(provider__client="google")
    assert account.status != ProviderAccount.Status.VALID, "its owner is shown that the key needs attention"
