"""Aliases on `/v1`: the list answers in its order, the next one when the first cannot, and the headers say who did."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async

from catalog import aliases
from catalog.models import ModelAlias
from tests.api.conftest import chat, error_of, text_of
from usage.models import UsageLog

pytestmark = pytest.mark.slow


@pytest.fixture
def alias(alice):
    def make(name, *targets, owner=alice, **cap):
        row = aliases.blank(owner)
        row.alias, row.targets = name, list(targets)
        for column, value in cap.items():
            setattr(row, column, value)
        return aliases.save(row, by=alice)

    return sync_to_async(make)


async def rows():
    return [(row.model_id, row.attempt, row.status) async for row in UsageLog.objects.order_by("id")]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_alias_is_answered_by_the_first_of_its_list(stream, door, upstream, alias):
    await alias("fast", "echo", "markdown")
    answer = await door.post(chat("fast", "who are you", stream=stream))
    assert answer.status == 200
    assert (answer.header("x-switchboard-alias"), answer.header("x-switchboard-model")) == ("fast", "echo")
    assert upstream.chats[0].json["model"] == "echo"
    assert await rows() == [("echo", 1, "success")]


@pytest.mark.parametrize("stream", [False, True])
async def test_fail_over_goes_along_the_list_and_each_attempt_is_a_row(stream, door, upstream, alias, add_model):
    await sync_to_async(add_model)("fault-status-503")
    await alias("fast", "fault-status-503", "echo")
    answer = await door.post(chat("fast", "still there", stream=stream))
    assert answer.status == 200 and "still there" in (text_of(answer) if stream else answer.body.decode())
    assert answer.header("x-switchboard-model") == "echo" and answer.header("x-switchboard-attempt") == "2"
    assert "overloaded" in answer.header("x-switchboard-failed-over")
    assert await rows() == [("fault-status-503", 1, "error"), ("echo", 2, "success")]


async def test_after_the_first_token_no_other_model_is_asked(door, upstream, alias, add_model):
    await sync_to_async(add_model)("fault-mid-error")
    await alias("fast", "fault-mid-error", "echo")
    answer = await door.post(chat("fast", stream=True))
    assert "Hello, " in answer.body.decode() and "still there" not in answer.body.decode()
    assert [row[:2] for row in await rows()] == [("fault-mid-error", 1)]
    assert {seen.json["model"] for seen in upstream.chats} == {"fault-mid-error"}


async def test_what_a_cap_leaves_out_is_said_in_a_header_or_in_the_error(door, alias):
    await alias("thrifty", "reasoning", "echo", max_input=Decimal(1))
    answer = await door.post(chat("thrifty"))
    assert answer.header("x-switchboard-model") == "echo"
    assert answer.header("x-switchboard-skipped").startswith("reasoning: it costs $2.00 per 1M read")
    await alias("miser", "reasoning", max_input=Decimal(1))
    refused = await door.post(chat("miser"))
    assert "the cap is $1.00" in refused.body.decode()
    assert [row[0] for row in await rows()] == ["echo"]


async def test_no_header_speaks_of_an_alias_where_none_was_asked_for(door):
    answer = await door.post(chat("echo"))
    assert answer.header("x-switchboard-alias") is None and answer.header("x-switchboard-skipped") is None


async def test_the_list_of_models_agrees_with_who_answers(door, alias):
    """An own alias stands in place of a model of its name, a global one does not."""
    await alias("echo", "markdown")
    await alias("table", "markdown", owner=None)
    await alias("ours", "code", owner=None)
    listed = {row["id"]: row for row in json.loads((await door.get("/v1/models")).body)["data"]}
    assert [listed[name]["owned_by"] for name in ("echo", "table", "ours")] == ["alias", "sandbox", "alias"]
    for name, model, by_alias in (("echo", "markdown", "echo"), ("table", "table", None), ("ours", "code", "ours")):
        answer = await door.post(chat(name))
        assert (answer.header("x-switchboard-model"), answer.header("x-switchboard-alias")) == (model, by_alias)
        one = json.loads((await door.get(f"/v1/models/{name}")).body)
        assert one["owned_by"] == listed[name]["owned_by"]


async def test_another_users_alias_is_no_name_here(door, alias, bob):  # A1
    await alias("bobs", "echo", owner=bob)
    answer = await door.post(chat("bobs"))
    assert answer.status == 404 and error_of(answer) == (404, "model_not_found")
    assert "bobs" not in (await door.get("/v1/models")).body.decode()


async def test_a_deleted_alias_is_refused_within_seconds(door, alias):
    row = await alias("fast", "echo")
    assert (await door.post(chat("fast"))).status == 200
    await sync_to_async(aliases.delete)(row)
    assert not await ModelAlias.objects.aexists()
    from chat.api import views

    views._routes._answers.clear()  # four seconds later
    assert (await door.post(chat("fast"))).status == 404
