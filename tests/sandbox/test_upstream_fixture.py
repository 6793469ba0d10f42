"""The fixture other tests stand on: an account whose calls reach the real trial upstream."""

from contextlib import aclosing

from catalog.models import AggregatorModel

BODY = {"model": "echo", "messages": [{"role": "user", "content": "Hello, écho 👋"}]}


async def test_a_client_of_the_account_streams_from_the_upstream_with_its_key(upstream, upstream_account):
    text, usage = "", None
    async with aclosing((await _client(upstream_account)).stream(BODY)) as frames:
        async for frame in frames:
            text += frame.delta.text
            usage = frame.delta.usage or usage
    assert text == "Hello, écho 👋"
    # 13 characters are 4 tokens here, in and out.
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 4, 8)
    [chat] = upstream.chats
    assert chat.authorization == f"Bearer {upstream.key}"
    assert chat.json["stream_options"] == {"include_usage": True}
    assert chat.ended == "answered"


async def _client(account):
    from asgiref.sync import sync_to_async

    return await sync_to_async(account.client)()


def test_the_models_land_with_names_limits_and_prices_per_million(upstream_account):
    models = {m.model_id: m for m in AggregatorModel.objects.available_to(upstream_account.owner)}
    assert len(models) == 14
    writer = models["markdown"]
    assert (writer.display_name, writer.context_window, writer.max_output_tokens) == ("Writer", 128_000, 16_384)
    # 0.0000005 USD per token are 0.5 USD per million; 0.0000015 are 1.5; 0.00000005 are 0.05.
    assert [str(p.normalize()) for p in (writer.price_input, writer.price_output, writer.price_cache_read)] == [
        "0.5",
        "1.5",
        "0.05",
    ]
    assert "vision" in writer.capabilities
    assert models["reasoning"].capabilities == ["reasoning"]
    assert models["tools"].capabilities == ["tools"]
    assert models["free"].price_kind == "free"
    assert models["unpriced"].price_kind == "unknown"
    assert models["unpriced"].price_input is None


def test_faulty_models_are_not_offered(upstream_account):
    assert not AggregatorModel.objects.filter(model_id__contains="fault").exists()
