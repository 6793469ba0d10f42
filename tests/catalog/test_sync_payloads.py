"""Lists with something wrong in them, as bytes over HTTP through the real clients: the rest lands (F13, M2)."""

from __future__ import annotations

import json
import time
from decimal import Decimal

import pytest

from catalog import sync
from catalog.models import AggregatorModel, ModelChange
from providers.models import ProviderAccount


@pytest.fixture
def speaks(provider):
    def set_client(name):
        provider.client = name
        provider.save()

    return set_client


def row(model_id, **fields):
    """A row in both dialects at once: AiHubMix reads model_id and pricing.input, OpenRouter id and pricing.prompt."""
    return {
        "id": model_id,
        "model_id": model_id,
        "types": "llm",
        "context_length": 8_000,
        "max_output": 1_000,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "top_provider": {},
        "pricing": {"input": 1, "output": 2, "prompt": "0.000001", "completion": "0.000002"},
        **fields,
    }


BAD = [
    "-0.5",
    -3,
    "NaN",
    "Infinity",
    "1e999",
    "1_000",
    "0x10",
    "",
    " ",
    True,
    None,
    {"usd": 1},
    [1],
    10**40,
    "1,5",
    "٣",
]


@pytest.mark.parametrize("client", ["aihubmix", "openrouter"])
def test_a_figure_that_is_no_price_is_unknown_and_the_rest_lands(client, speaks, lister, account):  # M2
    speaks(client)
    ours, theirs = ("input", "output") if client == "aihubmix" else ("prompt", "completion")
    good = 2 if client == "aihubmix" else "0.000002"
    lister.body = {
        "data": [row(f"bad{n}", pricing={ours: bad, theirs: good}) for n, bad in enumerate(BAD)] + [row("ok")]
    }

    run = sync.sync_account(account)

    assert (run.state, run.added, run.skipped) == ("done", len(BAD) + 1, 0)
    for n, bad in enumerate(BAD):
        assert AggregatorModel.objects.get(model_id=f"bad{n}").price_input is None, bad
    assert AggregatorModel.objects.get(model_id="ok").token_prices == (Decimal(1), Decimal(2))
    assert not AggregatorModel.objects.filter(price_kind="free").exists(), "an unreadable price is never free"


def test_a_negative_price_other_than_the_routers_is_unknown_and_minus_one_is_variable(speaks, lister, account):  # M2
    speaks("openrouter")
    lister.body = {
        "data": [
            row("router", pricing={"prompt": "-1", "completion": "-1"}),
            row("odd", pricing={"prompt": "-2", "completion": "-2"}),
        ]
    }
    sync.sync_account(account)
    kinds = dict(AggregatorModel.objects.values_list("model_id", "price_kind"))
    assert kinds == {"router": "variable", "odd": "unknown"}
    assert set(AggregatorModel.objects.values_list("price_input", "price_output")) == {(None, None)}


@pytest.mark.parametrize("client", ["aihubmix", "openrouter", "openai_compatible"])
def test_rows_that_are_no_rows_are_counted_and_the_rest_lands(client, speaks, lister, account):
    speaks(client)
    bad = [
        None,
        7,
        *(["text"] if client != "openai_compatible" else []),  # some lists there are bare ids
        [],
        {},
        {"id": None, "model_id": None},
        {"id": 5, "model_id": 5},
        row("x" * 400),
        row("a\x00b"),
    ]
    lister.body = {"data": [*bad, row("good"), row("good", context_length=9), row("Good")]}

    run = sync.sync_account(account)

    stored = set(AggregatorModel.objects.values_list("model_id", flat=True))
    assert (run.state, stored, run.skipped) == ("done", {"good", "Good"}, len(bad))
    if client != "openai_compatible":
        assert AggregatorModel.objects.get(model_id="good").context_window == 8_000, "of repeated ids the first counts"


@pytest.mark.parametrize("context", ["8000", -1, 0, None, True, 1e300, {}, "many"])
def test_a_context_that_is_no_count_spoils_nothing(context, speaks, lister, account):
    speaks("openrouter")
    lister.body = {"data": [row("m", context_length=context), row("n")]}
    run = sync.sync_account(account)
    assert run.added == 2
    assert AggregatorModel.objects.get(model_id="m").context_window in (None, 8_000)
    assert AggregatorModel.objects.get(model_id="n").context_window == 8_000


@pytest.mark.parametrize(
    ("body", "status", "state", "code"),
    [
        ({"data": []}, 200, "refused", "empty_list"),
        ({"data": None}, 200, "refused", "empty_list"),
        (b"<html>busy</html>", 200, "failed", "unexpected_content"),
        (b"", 200, "failed", "unexpected_content"),
        (b'{"data": [', 200, "failed", "unexpected_content"),
        ({"error": {"message": "no", "code": 401}}, 401, "failed", "key_rejected"),
        ({"error": {"message": "busy"}}, 503, "failed", "overloaded"),
        (b"[" * 100_000, 200, "failed", "unexpected_content"),
    ],
)
def test_an_answer_that_is_no_list_changes_nothing(body, status, state, code, speaks, lister, account):  # I16
    speaks("openrouter")
    lister.body = {"data": [row("m")]}
    sync.sync_account(account)
    before = list(AggregatorModel.objects.values())
    lister.body, lister.status = body, status

    run = sync.sync_account(account)

    assert (run.state, run.error_code) == (state, code)
    assert run.error_message and list(AggregatorModel.objects.values()) == before
    account.refresh_from_db()
    assert (account.status == ProviderAccount.Status.ATTENTION) == (code == "key_rejected")


def test_a_dead_server_ends_the_run_with_a_sentence(provider, account):
    run = sync.sync_account(account)  # nothing listens for lister.test, and no table knows it
    assert run.state == "failed" and run.error_code in ("unreachable", "blocked_address") and run.error_message


@pytest.mark.slow
def test_five_thousand_rows_land_in_seconds_and_a_second_time_faster(speaks, lister, account):
    """Generous limits for a busy machine; bench/catalog_sync.py measures."""
    speaks("openrouter")
    lister.body = json.dumps({"data": [row(f"maker/model-{n}", description="d" * 170) for n in range(5_000)]}).encode()

    started = time.perf_counter()
    first = sync.sync_account(account)
    middle = time.perf_counter()
    second = sync.sync_account(account)
    ended = time.perf_counter()

    assert (first.added, second.state, second.unchanged) == (5_000, "unchanged", 5_000)
    assert ModelChange.objects.filter(kind="added").count() == 5_000
    assert middle - started < 30 and ended - middle < 15
