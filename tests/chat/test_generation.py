"""The life of one reply, with a scripted upstream: which end, which text, which row, and who was told when."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from catalog.models import AccountModel
from chat import generation, streams
from chat.models import Generation, Message
from providers.clients.base import ToolCallDelta
from providers.clients.errors import ProviderBroken, ProviderRefused, ProviderUnreachable
from providers.models import ProviderAccount
from tests.chat.fakes import end, say
from usage import ledger
from usage.models import UsageLog

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

in_db = sync_to_async


async def run(reply: Generation) -> Generation:
    """Let the reply live to its end, as the web loop does."""
    async with asyncio.timeout(20):
        await generation.Reply(reply.pk).run()
    return await stored(reply)


async def stored(reply: Generation) -> Generation:
    return await Generation.objects.select_related("message").aget(pk=reply.pk)


async def rows() -> list[UsageLog]:
    return [row async for row in UsageLog.objects.order_by("pk")]


async def heard(reply: Generation, after: int = 0) -> list[streams.Event]:
    """Everything a listener gets until the end."""
    async with asyncio.timeout(20):
        return [event async for event in streams.current().listen(reply.pk, after, idle=5) if event is not None]


async def test_a_reply_is_complete_with_its_text_its_row_and_its_end(ask, scripted):
    client = scripted("Hel", "lo", *end())
    reply = await in_db(ask)("Hi there")

    reply = await run(reply)

    assert (reply.state, reply.message.content, reply.error_code) == ("complete", "Hello", "")
    assert reply.first_token_at and reply.finished_at and reply.finish_reason == "stop"
    assert client.bodies == [
        {"model": "vendor/gpt", "messages": [{"role": "user", "content": "Hi there"}], "stream": True}
    ]
    [row] = await rows()
    # 10 tokens in at $1 and 5 out at $2 per million.
    assert (row.status, row.prompt_tokens, row.completion_tokens, str(row.cost)) == ("success", 10, 5, "0.00002")
    assert (row.generation_id, row.conversation_id) == (reply.pk, reply.message.conversation_id)
    events = await heard(reply)
    assert isinstance(events[-1], streams.End) and events[-1].state == "complete"
    assert "<p>Hello</p>" in events[-1].html


async def test_the_upstream_reads_the_path_from_the_root_without_reasoning(ask, scripted):
    client = scripted(say(reasoning="hmm"), "One", *end())
    first = await run(await in_db(ask)("First"))
    second = await run(await in_db(ask)("Second", conversation=await in_db(lambda: first.message.conversation)()))

    assert second.state == "complete"
    assert client.bodies[1]["messages"] == [
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "One"},
        {"role": "user", "content": "Second"},
    ]


async def test_the_row_is_durable_before_the_call_and_settled_before_the_end_is_told(ask, scripted, monkeypatch):
    """M3: opened before, settled before anybody hears of the end."""
    seen = []
    gate = asyncio.Event()
    scripted("a", gate, *end())
    reply = await in_db(ask)()
    finish = streams.MemoryStreams.finish

    async def watched(self, pk, event):
        seen.append([row.status for row in await rows()])
        return await finish(self, pk, event)

    monkeypatch.setattr(streams.MemoryStreams, "finish", watched)
    task = asyncio.create_task(run(reply))
    while not await UsageLog.objects.filter(status="pending").aexists():
        await asyncio.sleep(0.01)
    gate.set()
    await task
    assert seen == [["success"]]


async def test_reasoning_is_kept_apart_and_its_time_is_known(ask, scripted):
    scripted(say(reasoning="Let me "), say(reasoning="think."), 0.05, "So.", *end())
    reply = await run(await in_db(ask)())
    assert (reply.message.reasoning, reply.message.content) == ("Let me think.", "So.")
    assert reply.first_token_at < reply.reasoning_ended_at <= reply.finished_at


async def test_tool_calls_are_put_together_from_their_pieces(ask, scripted):
    scripted(
        say(tool_calls=(ToolCallDelta(0, id="c1", name="weather"),)),
        say(tool_calls=(ToolCallDelta(0, arguments='{"city":'),)),
        say(tool_calls=(ToolCallDelta(0, arguments='"Ghent"}'),)),
        *end(reason="tool_calls"),
    )
    reply = await run(await in_db(ask)())
    assert reply.state == "complete"
    assert reply.message.tool_calls == [{"id": "c1", "name": "weather", "arguments": '{"city":"Ghent"}'}]


async def test_stop_closes_the_upstream_and_keeps_text_and_cost(ask, scripted):
    client = scripted("Some words", asyncio.Event())
    reply = await in_db(ask)()
    life = generation.Reply(reply.pk)
    task = asyncio.create_task(life.run())
    while life.transcript.seq == 0:
        await asyncio.sleep(0.01)

    life.stop()
    async with asyncio.timeout(2):
        await task

    reply = await stored(reply)
    assert (reply.state, reply.message.content, client.is_closed) == ("stopped", "Some words", True)
    [row] = await rows()
    # "Some words" is 10 bytes, about 3 tokens; the question "Hi" about 1: 1 × $1 + 3 × $2 per million.
    assert (row.status, row.cost_source, str(row.cost)) == ("cancelled", "estimated", "0.000007")


async def test_stop_by_another_process_works_through_the_database(ask, scripted):
    client = scripted("Some words", asyncio.Event())
    reply = await in_db(ask)()
    task = asyncio.create_task(run(reply))
    while not await Generation.objects.filter(pk=reply.pk, state="streaming").aexists():
        await asyncio.sleep(0.02)

    await Generation.objects.filter(pk=reply.pk).aupdate(stop_requested_at=timezone.now())
    async with asyncio.timeout(5):
        reply = await task

    assert (reply.state, client.is_closed) == ("stopped", True)


async def test_a_disabled_users_reply_ends(ask, scripted, alice):
    """I18: within seconds, and not only for listeners."""
    scripted("Some words", asyncio.Event())
    reply = await in_db(ask)()
    task = asyncio.create_task(run(reply))
    while not await Generation.objects.filter(pk=reply.pk, state="streaming").aexists():
        await asyncio.sleep(0.02)
    alice.is_active = False
    await alice.asave()
    async with asyncio.timeout(5):
        assert (await task).state == "stopped"


@pytest.mark.parametrize(
    ("script", "state", "code", "text", "status"),
    [
        (["Half", ProviderBroken("interrupted")], "interrupted", "interrupted", "Half", "error"),
        (["Half"], "interrupted", "interrupted", "Half", "error"),
        (["Half", say(error=ProviderRefused("upstream_error"))], "failed", "upstream_error", "Half", "error"),
        ([ProviderRefused("bad_request", status=400)], "failed", "bad_request", "", "error"),
        ([ProviderUnreachable("unreachable")], "failed", "unreachable", "", "error"),
        ([ProviderUnreachable("timeout")], "failed", "timeout", "", "timeout"),
        (["Half", ProviderUnreachable("timeout")], "failed", "timeout", "Half", "timeout"),
        (["Half", ProviderBroken("unexpected_content")], "failed", "unexpected_content", "Half", "error"),
        (["Half", RuntimeError("a bug of ours, with a secret")], "failed", "internal", "Half", "error"),
        (["All", say(finish_reason="stop"), ProviderBroken("interrupted")], "complete", "", "All", "success"),
        (["Part", *end(reason="length")], "complete", "", "Part", "success"),
        ([*end()], "complete", "", "", "success"),
    ],
)
async def test_every_way_to_end_has_a_name_and_keeps_the_text(ask, scripted, script, state, code, text, status):
    """I8, F1, F5, F6, F8, F9: what the upstream does, and what is left of it."""
    client = scripted(*script)
    reply = await run(await in_db(ask)())
    assert (reply.state, reply.error_code, reply.message.content) == (state, code, text)
    assert client.is_closed and reply.finished_at
    assert [row.status for row in await rows()] == [status]
    assert "secret" not in reply.error_message
    if state != "complete":
        assert reply.error_message
    [end_event] = [event for event in await heard(reply) if isinstance(event, streams.End)]
    assert "Retry" in end_event.html


@pytest.mark.parametrize(
    ("script", "setting"),
    [
        ([asyncio.Event()], "REPLY_FIRST_WORD_SECONDS"),
        (["a", asyncio.Event()], "REPLY_IDLE_SECONDS"),
        (["a", *([0.2, "b"] * 50)], "REPLY_TOTAL_SECONDS"),
    ],
    ids=["F3 silence", "F3 silence in the middle", "F4 slow drip"],
)
async def test_deadlines_of_ours_end_a_reply(ask, scripted, settings, script, setting):
    setattr(settings, setting, 1)
    client = scripted(*script)
    reply = await in_db(ask)()
    async with asyncio.timeout(6):
        reply = await run(reply)
    assert (reply.state, reply.error_code, client.is_closed) == ("failed", "timeout", True)
    assert [row.status for row in await rows()] == ["timeout"]


async def test_an_endless_answer_is_cut(ask, scripted, monkeypatch):
    """F12, M6."""
    monkeypatch.setattr(generation, "MAX_REPLY_CHARS", 10_000)
    client = scripted(*["x" * 1000] * 500)
    reply = await run(await in_db(ask)())
    assert (reply.state, reply.error_code, client.is_closed) == ("failed", "response_too_large", True)
    assert 10_000 < len(reply.message.content) < 15_000


@pytest.fixture
def second_account(provider, alice, model):
    other = ProviderAccount.objects.create(owner=alice, provider=provider, label="home key", status="valid", priority=5)
    AccountModel.objects.create(account=other, model=model)
    return other


@pytest.mark.parametrize("code", ["rate_limited", "key_rejected", "no_balance", "overloaded", "unreachable"])
async def test_another_account_answers_when_the_first_fails_before_a_word(ask, scripted, account, second_account, code):
    scripted(ProviderRefused(code, permanent=code != "overloaded" and code != "unreachable"), account=account)
    scripted("Hello", *end(), account=second_account)
    reply = await run(await in_db(ask)())
    assert (reply.state, reply.message.content, reply.account_label) == ("complete", "Hello", "home key")
    assert reply.failover == f"instead of work key: {code.replace('_', ' ')}"
    assert [(row.attempt, row.account_label, row.status) for row in await rows()] == [
        (1, "work key", "error"),
        (2, "home key", "success"),
    ]


async def test_nobody_else_is_asked_after_the_first_word(ask, scripted, account, second_account):
    """A retry after the first word doubles text and cost (upstreams.md §5)."""
    scripted("Hel", ProviderBroken("interrupted"), account=account)
    other = scripted("Hello", *end(), account=second_account)
    reply = await run(await in_db(ask)())
    assert (reply.state, reply.message.content, other.bodies) == ("interrupted", "Hel", [])


async def test_nobody_else_is_asked_about_a_request_that_is_wrong(ask, scripted, account, second_account):
    scripted(ProviderRefused("context_length_exceeded", status=400), account=account)
    other = scripted("Hello", *end(), account=second_account)
    reply = await run(await in_db(ask)())
    assert (reply.state, reply.error_code, other.bodies) == ("failed", "context_length_exceeded", [])


async def test_an_account_at_its_limit_rests(ask, scripted, account, second_account):
    scripted(ProviderRefused("rate_limited", status=429, retry_after=60), account=account)
    scripted("Hello", *end(), account=second_account)
    await run(await in_db(ask)())
    await account.arefresh_from_db()
    assert 50 < (account.cooldown_until - timezone.now()).total_seconds() <= 60


async def test_a_rejected_key_is_told_to_its_owner(ask, scripted, account):
    scripted(ProviderRefused("key_rejected", status=401))
    await run(await in_db(ask)())
    await account.arefresh_from_db()
    assert account.status == "attention" and "rejected this key" in account.status_reason


async def test_without_a_route_nothing_is_sent(ask, scripted, account):
    client = scripted("Hello", *end())
    reply = await in_db(ask)()
    account.is_active = False
    await account.asave()
    reply = await run(reply)
    assert (reply.state, reply.error_code, client.bodies, await rows()) == ("refused", "no_account", [], [])


async def test_a_locked_key_is_refused_and_nothing_is_sent(ask, scripted, account, monkeypatch):
    """K1: the page works and says so."""
    from providers.vault import Locked

    def locked(self):
        raise Locked

    reply = await in_db(ask)()
    monkeypatch.setattr(ProviderAccount, "client", locked)
    reply = await run(reply)
    assert (reply.state, reply.error_code, await rows()) == ("refused", "locked", [])
    assert "does not open" in reply.error_message


async def test_without_its_row_nothing_is_sent(ask, scripted, monkeypatch):
    client = scripted("Hello", *end())

    async def unavailable(attempt):
        raise ledger.LedgerUnavailable("The database did not answer.")

    monkeypatch.setattr(ledger, "aopen", unavailable)
    reply = await run(await in_db(ask)())
    assert (reply.state, reply.error_code, client.bodies) == ("refused", "ledger", [])


async def test_draining_keeps_what_there_is_as_interrupted(ask, scripted):
    """F21."""
    client = scripted("Half a", asyncio.Event())
    reply = await in_db(ask)()
    generation._spawn(reply.pk)
    while generation._running[reply.pk].transcript.seq == 0:
        await asyncio.sleep(0.01)
    await generation.drain(0.1)
    reply = await stored(reply)
    assert (reply.state, reply.message.content, client.is_closed) == ("interrupted", "Half a", True)
    assert [row.status for row in await rows()] == ["error"]
    assert generation._running == {}


async def test_an_end_state_never_changes(ask, scripted):
    """I8: who was declared dead and lives after all stores nothing more."""
    gate = asyncio.Event()
    scripted("One ", gate, "two", *end())
    reply = await in_db(ask)()
    task = asyncio.create_task(run(reply))
    while not await Generation.objects.filter(pk=reply.pk, seq__gte=1).aexists():
        await asyncio.sleep(0.02)
    await Generation.objects.filter(pk=reply.pk).aupdate(state="interrupted", error_code="interrupted")
    gate.set()
    reply = await task
    assert (reply.state, reply.message.content) == ("interrupted", "One ")


async def test_a_conversation_deleted_in_mid_stream_ends_the_reply(ask, scripted):
    """F19: the upstream is closed, the row is settled, nothing comes back to life."""
    client = scripted("One ", asyncio.Event())
    reply = await in_db(ask)()
    task = asyncio.create_task(generation.Reply(reply.pk).run())
    while not await Generation.objects.filter(pk=reply.pk, seq__gte=1).aexists():
        await asyncio.sleep(0.02)
    conversation = await in_db(lambda: Message.objects.get(pk=reply.message_id).conversation)()
    await in_db(conversation.delete)()
    async with asyncio.timeout(5):
        await task
    assert client.is_closed
    assert [row.status for row in await rows()] == ["error"]
    assert await Message.objects.acount() == 0


async def test_what_is_stored_is_a_state_that_was_published(ask, scripted):
    """I9, F20: at most 2 s or 4 kB are missing while it runs."""
    gate = asyncio.Event()
    scripted(*["0123456789" * 50] * 20, gate, *end())  # 10 kB at once
    reply = await in_db(ask)()
    task = asyncio.create_task(run(reply))
    await asyncio.sleep(2.2)
    middle = await stored(reply)
    assert middle.state == "streaming" and len(middle.message.content) == 10_000
    assert timezone.now() - middle.heartbeat_at < timedelta(seconds=2.5)
    gate.set()
    assert (await task).message.content == "0123456789" * 1000


async def test_a_long_reply_in_tiny_pieces_costs_bounded_work(ask, scripted, monkeypatch):
    """X6: 100 kB in 20 000 pieces; at most 15 updates a second, and no more than a few seconds of CPU."""
    appended = []
    append = streams.MemoryStreams.append

    async def counted(self, pk, update):
        appended.append(len(update.tail))
        return await append(self, pk, update)

    monkeypatch.setattr(streams.MemoryStreams, "append", counted)
    paragraph = "A paragraph of *some* length with `code` and **more** in it, again and again.\n\n"
    text = (paragraph * 1300)[:100_000]
    pieces = [text[start : start + 5] for start in range(0, len(text), 5)]
    scripted(
        *[step for number, piece in enumerate(pieces) for step in ((piece, 0.001) if number % 10 == 0 else (piece,))],
        *end(),
    )
    reply = await in_db(ask)()
    wall, cpu = time.monotonic(), time.process_time()
    reply = await run(reply)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    assert (reply.state, len(reply.message.content)) == ("complete", 100_000)
    assert len(appended) <= wall * 15 + 3, (len(appended), wall)
    assert cpu < 8, cpu


async def test_text_no_database_can_hold_is_replaced(ask, scripted):
    """P1: NUL and lone surrogates; a pair that a stream cut in two is joined."""
    scripted("a\0b", "\ud83d", "\ude00", "\ud83d", "x", *end())
    reply = await run(await in_db(ask)())
    assert reply.message.content == "a\ufffdb😀\ufffdx"


async def test_a_second_start_of_the_same_reply_does_nothing(ask, scripted):
    client = scripted("Hello", *end())
    reply = await in_db(ask)()
    await run(reply)
    await run(reply)
    assert len(client.bodies) == 1 and len(await rows()) == 1


def dead_process() -> str:
    """A name in this process's form, of one that cannot live: its start time is another."""
    where, pid, _ = ledger.this_process().rsplit(":", 2)
    return f"{where}:{pid}:1"


@pytest.mark.parametrize("kind", ["dead", "stale"])
def test_a_reply_whose_process_died_is_closed_with_its_row(ask, model, account, kind):
    """I8, M3: what had arrived is estimated."""
    reply = ask("Hi")
    Message.objects.filter(pk=reply.message_id).update(content="x" * 40)
    attempt = ledger.Attempt.begin(
        user_id=account.owner_id, account=account, model=model, door="chat", generation_id=reply.pk, prompt_chars=4
    )
    ledger.open(attempt)
    if kind == "dead":
        Generation.objects.filter(pk=reply.pk).update(state="streaming", process=dead_process())
    else:
        Generation.objects.filter(pk=reply.pk).update(
            state="streaming", process="elsewhere:1:1", heartbeat_at=timezone.now() - timedelta(seconds=16)
        )
    assert generation.sweep() == 1
    assert generation.sweep() == 0
    reply.refresh_from_db()
    assert (reply.state, reply.error_code) == ("interrupted", "interrupted")
    row = UsageLog.objects.get()
    # 4 bytes asked and 40 answered: 1 × $1 + 10 × $2 per million.
    assert (row.status, row.cost_source, str(row.cost)) == ("error", "estimated", "0.000021")


def test_a_reply_with_a_fresh_sign_of_life_is_left_alone(ask):
    reply = ask("Hi")
    Generation.objects.filter(pk=reply.pk).update(process="elsewhere:1:1")
    assert generation.sweep() == 0
    reply.refresh_from_db()
    assert reply.is_open
