"""One row per attempt, written before the call, settled once (M3, I10); counts and costs by the rules of design.md §5."""

import asyncio
import uuid
from decimal import Decimal

import pytest

from providers.clients.base import Delta, ToolCallDelta, Usage
from providers.clients.errors import ProviderBroken, ProviderRefused, ProviderUnreachable
from tests.usage.conftest import make_route
from usage import ledger
from usage.ledger import Attempt
from usage.models import DailyUsage, UsageLog


def row_of(attempt):
    return UsageLog.objects.get(request_id=attempt.request_id)


FULL = Usage(prompt_tokens=1000, completion_tokens=500, total_tokens=1500, cached_tokens=200, reasoning_tokens=50)
# 1000 × 0.27 + 500 × 0.40 per million = 0.00027 + 0.0002
FULL_COST = Decimal("0.00047")


def test_a_row_is_there_before_the_call_and_says_nothing_it_does_not_know(begin, alice, route):
    account, model = route
    conversation, generation = uuid.uuid4(), uuid.uuid4()
    attempt = begin(attempt=2, conversation_id=conversation, message_id=7, generation_id=generation, prompt_chars=90)
    ledger.open(attempt)
    row = row_of(attempt)
    assert (row.status, row.cost, row.cost_source, row.prompt_tokens, row.settled_at) == (
        "pending",
        None,
        "unknown",
        None,
        None,
    )
    assert (row.user_id, row.door, row.attempt, row.account_id, row.account_label) == (
        alice.pk,
        "chat",
        2,
        account.pk,
        "Lab",
    )
    assert (row.provider_name, row.model_pk, row.model_id, row.model_name) == (
        "Testhub",
        model.pk,
        "maker/model-1",
        "Model One",
    )
    assert (row.conversation_id, row.message_id, row.generation_id) == (conversation, 7, generation)
    assert row.price_snapshot == {"kind": "known", "type": "chat", "input": "0.27", "output": "0.4"}
    assert not DailyUsage.objects.exists()  # running attempts are not in the sums


def test_a_complete_answer_is_computed_from_the_last_usage_that_says_something(begin):
    """upstreams.md §0.4: zeros before, zeros after, and cumulative figures on the way."""
    attempt = begin()
    ledger.open(attempt)
    for delta in (
        Delta(text="", id="gen-1", model="maker/model-1-2026"),
        Delta(reasoning="hm", usage=Usage(0, 0, 0)),
        Delta(text="Hello", usage=Usage(1000, 3, 1003)),
        Delta(text=" you", finish_reason="stop"),
        Delta(usage=FULL),
        Delta(usage=Usage(0, 0, 0)),
    ):
        attempt.read(delta)
    assert ledger.settle(attempt, "success") is True
    row = row_of(attempt)
    assert (row.status, row.error_code, row.http_status, row.upstream_id) == ("success", "", 200, "gen-1")
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (1000, 500, 1500)
    assert (row.cached_tokens, row.reasoning_tokens) == (200, 50)
    assert (row.cost, row.cost_source) == (FULL_COST, "computed")
    assert row.metadata["finish_reason"] == "stop"
    assert row.metadata["upstream_model"] == "maker/model-1-2026"
    assert 0 <= row.first_token_ms <= row.latency_ms
    assert row.settled_at >= row.started_at


def test_the_second_settle_changes_nothing_and_says_so(begin):
    """M3: settled exactly once."""
    attempt = begin()
    ledger.open(attempt)
    attempt.read(Delta(usage=FULL))
    assert ledger.settle(attempt, "success") is True
    before = UsageLog.objects.values().get(request_id=attempt.request_id)
    assert ledger.settle(attempt, "error", "interrupted") is False
    assert UsageLog.objects.values().get(request_id=attempt.request_id) == before
    day = DailyUsage.objects.get()
    assert (day.attempts, day.failed, day.cost) == (1, 0, FULL_COST)


def test_opening_twice_leaves_one_row(begin):
    """F26: a retry after a connection that died in mid-commit."""
    attempt = begin()
    ledger.open(attempt)
    ledger.open(attempt)
    assert UsageLog.objects.count() == 1


def test_the_day_adds_up_by_source(begin):
    """I10: rows and sums agree; failed spend, sources and counts apart."""
    billed, computed, failed, unknown = begin(), begin(), begin(), begin()
    for attempt in (billed, computed, failed, unknown):
        ledger.open(attempt)
    billed.read(Delta(usage=Usage(10, 5, 15, cost=Decimal("0.0123"))))
    ledger.settle(billed, "success")
    computed.read(Delta(usage=FULL))
    ledger.settle(computed, "success")
    failed.read(Delta(text="partial"))
    failed.read(Delta(finish_reason="error", usage=FULL, error=ProviderRefused("upstream_error", status=502)))
    ledger.settle(failed, "error")
    ledger.settle(unknown, "timeout")
    day = DailyUsage.objects.get()
    assert (day.attempts, day.failed) == (4, 2)
    assert (day.billed, day.computed, day.estimated, day.unknown) == (1, 2, 0, 1)
    assert (day.prompt_tokens, day.completion_tokens, day.cached_tokens) == (2010, 1005, 400)
    assert (day.cost_billed, day.cost_computed, day.cost_estimated) == (Decimal("0.0123"), FULL_COST * 2, 0)
    assert (day.cost, day.cost_failed) == (Decimal("0.01324"), FULL_COST)
    assert day.day == billed.started_at.date()


def settled(begin, status, error=None, deltas=(), **kwargs):
    attempt = begin(**kwargs)
    ledger.open(attempt)
    for delta in deltas:
        attempt.read(delta)
    ledger.settle(attempt, status, error)
    return row_of(attempt)


@pytest.mark.parametrize(
    ("error", "code", "http"),
    [
        (ProviderUnreachable("unreachable"), "unreachable", None),
        (ProviderUnreachable("tls_error"), "tls_error", None),
        (ProviderRefused("rate_limited", status=429), "rate_limited", 429),
        (ProviderRefused("key_rejected", status=401), "key_rejected", 401),
        (ProviderRefused("overloaded", status=503), "overloaded", 503),
        (ProviderRefused("no_balance", status=200), "no_balance", 200),
        (ProviderBroken("unexpected_redirect", status=302), "unexpected_redirect", 302),
    ],
)
def test_what_was_refused_before_the_first_byte_cost_nothing(begin, error, code, http):
    """F1: row failed, cost 0."""
    row = settled(begin, "error", error, prompt_chars=400)
    assert (row.status, row.error_code, row.http_status) == ("error", code, http)
    assert (row.cost, row.cost_source) == (Decimal(0), "computed")
    assert row.prompt_tokens is None
    assert row.error_message == error.public_message


@pytest.mark.parametrize(
    "error",
    [
        ProviderRefused("upstream_error", status=500),
        ProviderBroken("unexpected_content", status=200),
        ValueError("sk-secret"),
    ],
)
def test_where_nobody_knows_whether_it_was_charged_the_cost_is_unknown(begin, error):
    row = settled(begin, "error", error, prompt_chars=400)
    assert (row.cost, row.cost_source) == (None, "unknown")
    assert "sk-secret" not in row.error_message + str(row.metadata)  # K4
    assert DailyUsage.objects.get().unknown == 1


def test_a_deadline_of_ours_is_a_timeout_whatever_the_caller_called_it(begin):
    row = settled(begin, "error", ProviderUnreachable("timeout"))
    assert (row.status, row.error_code, row.cost_source) == ("timeout", "timeout", "unknown")


def test_a_cut_stream_without_usage_is_estimated_from_what_was_seen(begin):
    """F5: 400 bytes sent → 100 tokens; 8 bytes text + 4 bytes of Chinese rounded up … received."""
    row = settled(
        begin,
        "error",
        None,
        [Delta(text="12345678"), Delta(reasoning="世", tool_calls=(ToolCallDelta(0, "a", "f", "{}"),))],
        prompt_chars=400,
    )
    # 8 + 3 + 1 + 2 = 14 bytes → 4 tokens; 100 × 0.27 + 4 × 0.40 = 28.6 per million
    assert (row.status, row.error_code) == ("error", "interrupted")
    assert (row.prompt_tokens, row.completion_tokens) == (100, 4)
    assert (row.cost, row.cost_source) == (Decimal("0.0000286"), "estimated")
    assert row.metadata["counts"] == "estimated"
    assert DailyUsage.objects.get().cost_estimated == row.cost


def test_a_stop_in_mid_stream_is_estimated_even_if_running_figures_came(begin):
    """Cumulative usage so far is the last we heard, not the final one."""
    row = settled(begin, "cancelled", None, [Delta(text="x" * 40, usage=Usage(100, 7, 107)), Delta(text="y" * 40)])
    assert (row.status, row.prompt_tokens, row.completion_tokens) == ("cancelled", 100, 20)
    assert row.cost_source == "estimated"
    assert row.cost == Decimal("0.000035")  # 100 × 0.27 + 20 × 0.40


def test_a_stop_after_the_final_usage_is_exact(begin):
    row = settled(begin, "cancelled", None, [Delta(text="abc"), Delta(finish_reason="stop"), Delta(usage=FULL)])
    assert (row.cost, row.cost_source) == (FULL_COST, "computed")


def test_a_complete_answer_without_usage_is_estimated(begin):
    row = settled(begin, "success", None, [Delta(text="x" * 41, finish_reason="stop")], prompt_chars=8)
    assert (row.prompt_tokens, row.completion_tokens, row.cost_source) == (2, 11, "estimated")


def test_a_complete_answer_without_usage_and_without_a_known_prompt_is_unknown(begin):
    row = settled(begin, "success", None, [Delta(text="x" * 41, finish_reason="stop")])
    assert (row.prompt_tokens, row.cost, row.cost_source) == (None, None, "unknown")


def test_usage_that_counts_no_answer_where_text_came_is_filled_in(begin):
    row = settled(begin, "success", None, [Delta(usage=Usage(100, 0, 100)), Delta(text="x" * 40, finish_reason="stop")])
    assert (row.prompt_tokens, row.completion_tokens, row.cost_source) == (100, 10, "estimated")


def test_a_free_model_costs_nothing_even_when_it_fails(alice):
    account, model = make_route(alice, provider_name="Freehub", price_kind="free", price_input=0, price_output=0)
    attempt = Attempt.begin(user_id=alice.pk, account=account, model=model, door="api")
    ledger.open(attempt)
    ledger.settle(attempt, "timeout")
    row = row_of(attempt)
    assert (row.cost, row.cost_source) == (Decimal(0), "computed")


@pytest.mark.parametrize("figure", [Decimal("NaN"), Decimal("Infinity"), Decimal("-0.01"), Decimal("1000.01")])
def test_an_absurd_figure_of_the_provider_is_not_believed(begin, figure):
    """M2."""
    row = settled(begin, "success", None, [Delta(usage=Usage(1000, 500, 1500, cost=figure))])
    assert (row.cost, row.cost_source) == (FULL_COST, "computed")


@pytest.mark.parametrize("count", [-1, 2**70, 10**10 + 1])
def test_an_absurd_count_is_unknown_not_stored(begin, count):
    """M2: no overflow, no negative charge."""
    row = settled(begin, "success", None, [Delta(usage=Usage(count, 500, None)), Delta(text="x")])
    assert row.prompt_tokens is None
    assert (row.cost, row.cost_source) == (None, "unknown")


def test_text_no_database_can_hold_is_replaced(begin):
    """P1: NUL and lone surrogates in what the upstream said."""
    error = ProviderRefused("upstream_error", status=500, detail="bad \x00 byte \ud800 here" + "x" * 600)
    row = settled(begin, "error", error, [Delta(id="a\x00b\ud800" + "y" * 300, finish_reason="st\x00op")])
    assert "\x00" not in row.error_message
    assert len(row.error_message) == 500
    assert row.upstream_id.startswith("a\ufffdb?")
    assert len(row.upstream_id) == 200
    assert row.metadata["finish_reason"] == "st\ufffdop"


def test_a_sum_stops_at_the_limit_instead_of_overflowing(begin):
    """M2, new-api CVE-2026-71479: a 64-bit sum must not wrap, fail or become a float."""
    attempt = begin()
    ledger.open(attempt)
    attempt.read(Delta(usage=Usage(1, 1, 2, cost=Decimal(1000))))
    ledger.settle(attempt, "success")
    DailyUsage.objects.update(cost=Decimal(8_999_500), cost_billed=Decimal(8_999_500))
    second = begin()
    ledger.open(second)
    second.read(Delta(usage=Usage(1, 1, 2, cost=Decimal(1000))))
    assert ledger.settle(second, "success") is True
    assert DailyUsage.objects.get().cost == Decimal(9_000_000)


async def test_coroutines_use_the_same_ledger(begin):
    attempt = begin()
    await ledger.aopen(attempt)
    attempt.read(Delta(usage=FULL))
    assert await ledger.asettle(attempt, "success") is True
    assert attempt.cost.amount == FULL_COST


def test_pending_is_not_an_end(begin):
    attempt = begin()
    ledger.open(attempt)
    with pytest.raises(ValueError, match="pending"):
        ledger.settle(attempt, "pending")


async def test_a_caller_that_leaves_while_opening_leaves_no_running_row(begin, monkeypatch):
    """F15: cancelled before the call was made: not sent, cost 0."""

    class Slow:
        is_alive = True
        held = []

        def submit(self, write):
            self.held.append(write)
            return True

        def write_at_once(self, write):
            return False

        def stop(self, timeout):
            return True

    slow = Slow()
    monkeypatch.setattr(ledger, "_factory", lambda: slow)
    ledger.stop()
    attempt = begin()
    task = asyncio.create_task(ledger.aopen(attempt))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    opening, closing = slow.held
    assert opening.is_dropped
    assert (closing.columns["status"], closing.columns["error_code"], closing.columns["cost"]) == (
        "error",
        "not_sent",
        0,
    )
