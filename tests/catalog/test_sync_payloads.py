"""Lists with something wrong in them, as bytes over HTTP through the real clients: the rest lands (F13, M2)."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from decimal import Decimal

import hypothesis
import pytest
from hypothesis import strategies as st

from catalog import sync
from catalog.models import AggregatorModel, ModelChange
from providers.clients.base import Usage
from providers.models import ProviderAccount
from usage.pricing import cost_by_snapshot, snapshot

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("client", ["aihubmix", "openrouter", "openai_compatible"])
def test_a_context_that_is_no_count_is_unknown_and_one_that_is_text_is_read(client, speaks, lister, account):
    speaks(client)
    contexts = {
        "8000": 8_000,
        "128000": 128_000,
        8000.0: 8_000,
        -1: None,
        0: None,
        "0": None,
        None: None,
        True: None,
        1e300: None,
        "128k": None,
        "1_000": None,
        "8,000": None,
        " 8000": None,
        "1e4": None,
        "-5": None,
        "٣": None,
        "9" * 40: None,
    }
    odd = [{}, [], {"tokens": 5}]
    lister.body = {
        "data": [
            *(row(f"m{n}", context_length=value, max_output=value) for n, value in enumerate([*contexts, *odd])),
            row("n"),
        ]
    }
    run = sync.sync_account(account)
    assert (run.added, run.skipped) == (len(contexts) + len(odd) + 1, 0)
    found = dict(AggregatorModel.objects.values_list("model_id", "context_window"))
    for n, expected in enumerate([*contexts.values(), *[None] * len(odd)]):
        assert found[f"m{n}"] == expected, [*contexts, *odd][n]
    assert found["n"] == 8_000


def test_a_price_per_token_beyond_reason_is_a_unit_error_and_unknown(speaks, lister, account):  # M2
    speaks("openrouter")
    lister.body = {
        "data": [
            row("per-million-by-mistake", pricing={"prompt": "3", "completion": "15"}),
            row("dearest", pricing={"prompt": "0.002", "completion": "0.002"}),
            row("ok"),
        ]
    }
    assert sync.sync_account(account).added == 3
    prices = dict(AggregatorModel.objects.values_list("model_id", "price_input"))
    assert prices == {"per-million-by-mistake": None, "dearest": Decimal(2000), "ok": Decimal(1)}


HOSTILE = "\u202eEvil\u2066 \x1b[31m<img src=x onerror=alert(1)>\x00\u200b\ufeff\ud800 Name"


@pytest.mark.parametrize("client", ["aihubmix", "openrouter", "openai_compatible"])
def test_hostile_names_and_descriptions_are_cleaned_and_shown_escaped(client, speaks, lister, account, alice_client):
    """X5: what would turn the line around or hide is dropped; HTML stays text."""
    speaks(client)
    texts = dict.fromkeys(("model_name", "name", "display_name", "desc", "description"), HOSTILE)
    lister.body = {"data": [row("m", **texts), row("<script>alert(1)</script>"), row("ok")]}

    run = sync.sync_account(account)

    assert (run.state, run.added, run.skipped) == ("done", 3, 0)
    stored = AggregatorModel.objects.get(model_id="m")
    assert stored.display_name == "Evil [31m<img src=x onerror=alert(1)> Name"
    assert stored.description == "Evil [31m<img src=x onerror=alert(1)> Name"
    for url in ("/models/", "/models/select/", f"/models/{stored.pk}/price/"):
        page = alice_client.get(url).content.decode()
        assert "Evil [31m&lt;img src=x onerror=alert(1)&gt; Name" in page, url
        assert "<img src=x" not in page and "<script>alert" not in page, url
        assert not set(page) & set("\u202e\u2066\x1b\x00\u200b\ufeff"), url


def test_links_in_a_description_are_their_words(speaks, lister, account):
    speaks("openrouter")
    said = "As [GPT-4 Turbo](/models/openai/gpt-4-turbo), see [the paper](https://x.example/a_b). Not f[0](x) nor [a]."
    lister.body = {"data": [row("m", description=said)]}
    sync.sync_account(account)
    stored = AggregatorModel.objects.get().description
    assert stored == "As GPT-4 Turbo, see the paper. Not f[0](x) nor [a]."


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["-1", "NaN", "1e999", "0.000001", "text,image", "2026-13-45", "9999-12-31T23:59:59Z", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(sorted({
    *row("x"), "name", "display_name", "description", "desc", "created", "features", "capabilities", "retire_stage", "active",
    "retired_at", "deprecated_at", "expiration_date", "supported_parameters", "limits", "metadata", "model_spec", "type",
    "input_modalities", "output_modalities", "release_date", "successor_model", "reasoning", "tool_call", "meta", "price",
}))  # fmt: skip


@pytest.mark.parametrize("client", ["aihubmix", "openrouter", "openai_compatible"])
@hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None, derandomize=True
)
@hypothesis.given(rows=st.lists(st.dictionaries(KEYS, JSON, max_size=5) | JSON, max_size=6))
def test_whatever_stands_in_a_list_the_good_row_lands(rows, client, speaks, lister, account):  # F13
    speaks(client)
    odd = [
        {"id": f"odd{n}", "model_id": f"odd{n}", **each} if isinstance(each, dict) else each
        for n, each in enumerate(rows)
    ]
    lister.body = {"data": [*odd, row("good")]}

    run = sync.sync_account(account, force=True)

    assert run.state in ("done", "unchanged"), run.error_message
    good = AggregatorModel.objects.get(model_id="good")
    assert good.token_prices == (Decimal(1), Decimal(2)) or client == "openai_compatible"
    assert sync.sync_account(account).state == "unchanged", "what was stored reads back equal"


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


def test_aihubmixs_newer_rows_say_when_a_model_retires_and_what_comes_after(speaks, lister, account):
    """upstreams.md §1.3: retire_stage, deprecated_at, retired_at, successor_model; each change is history."""
    speaks("aihubmix")
    newer = {"release_date": "2026-04-21", "retire_stage": "active", "deprecated_at": None, "retired_at": None}
    lister.body = {"data": [row("m", **newer, successor_model=""), row("n", **newer), row("old")]}
    sync.sync_account(account)
    assert set(AggregatorModel.objects.values_list("is_available", "retires_at", "successor")) == {(True, None, "")}
    assert AggregatorModel.objects.get(model_id="m").released_at.date() == date(2026, 4, 21)

    lister.body = {
        "data": [
            row("m", **{**newer, "deprecated_at": "2026-12-01", "retired_at": "2027-01-31"}, successor_model="m2"),
            row("n", **{**newer, "retire_stage": "retired", "retired_at": "2026-11-01T00:00:00Z"}),
            row("old"),
        ]
    }
    run = sync.sync_account(account)

    assert (run.changed, run.unchanged, run.gone) == (2, 1, 0)
    said = ModelChange.objects.filter(run=run).values_list("model__model_id", "kind", "field", "before", "after")
    assert set(said) == {
        ("m", "retirement", "retires_at", None, "2027-01-31"),
        ("m", "retirement", "successor", "", "m2"),
        ("n", "retirement", "retires_at", None, "2026-11-01"),
        ("n", "retirement", "is_available", True, False),
    }
    assert sync.sync_account(account).state == "unchanged"


@pytest.mark.parametrize(
    ("fields", "retires_at", "successor"),
    [
        ({"deprecation": "2026-12-31T00:00:00Z", "deprecation_replacement_model": "mistral-next"}, date(2026, 12, 31), "mistral-next"),
        ({"shutdown_date": "2027-02-01"}, date(2027, 2, 1), ""),
        ({"expiration_date": 1_800_000_000}, date(2027, 1, 15), ""),
        ({"expiration_date": "soon", "deprecation_replacement_model": 5}, None, ""),
    ],
)  # fmt: skip
def test_other_sellers_words_for_an_end_are_read_too(fields, retires_at, successor, speaks, lister, account):
    speaks("openai_compatible")
    lister.body = {"data": [row("m", **fields)]}
    sync.sync_account(account)
    stored = AggregatorModel.objects.get()
    assert (stored.retires_at, stored.successor) == (retires_at, successor)


def test_vercels_tiers_become_rules_that_costs_are_computed_by(speaks, lister, account):
    """A bracket begins at its `min`: 200,001 tokens of prompt pay the second price, 200,000 the first."""
    speaks("openai_compatible")
    pricing = {
        "input": "0.00000125",
        "output": "0.00001",
        "input_cache_read": "0.000000125",
        "input_tiers": [{"cost": "0.00000125", "min": 0, "max": 200001}, {"cost": "0.0000025", "min": 200001}],
        "output_tiers": [{"cost": "0.00001", "min": 0, "max": 200001}, {"cost": "0.000015", "min": 200001}],
        "input_cache_read_tiers": [{"cost": "0.00000025", "min": 200001}, {"cost": "NaN", "min": 5}, {"min": 7}, 3],
    }
    lister.body = {
        "data": [row("m", pricing=pricing, context_window=1_048_576), row("n", pricing={**pricing, "input_tiers": {}})]
    }

    sync.sync_account(account)

    model = AggregatorModel.objects.get(model_id="m")
    assert model.pricing_rules == [{"min_prompt_tokens": 200000, "cache_read": "0.25", "input": "2.5", "output": "15"}]
    noted = snapshot(model)
    for prompt, cost in ((200_000, "0.25"), (200_001, "0.5000025")):
        assert cost_by_snapshot(Usage(prompt, 0), noted).amount == Decimal(cost)
    assert AggregatorModel.objects.get(model_id="n").pricing_rules[0]["output"] == "15"
    assert sync.sync_account(account).state == "unchanged"


def test_openrouters_conditions_are_kept_and_costs_are_computed_by_them(speaks, lister, account):
    speaks("openrouter")
    pricing = {
        "prompt": "0.000002",
        "completion": "0.00001",
        "overrides": [
            {"min_prompt_tokens": 272000, "prompt": "0.000004"},
            {"utc_start": 1630, "utc_end": 30, "prompt": "0.000001"},
            {"utc_days": ["saturday"], "prompt": "0.0000001"},
            {"prompt": "0"},
        ],
    }
    lister.body = {"data": [row("m", pricing=pricing)]}
    sync.sync_account(account)
    model = AggregatorModel.objects.get()
    assert model.pricing_rules == [
        {"min_prompt_tokens": 272000, "input": "4"},
        {"utc_start": "1630", "utc_end": "30", "input": "1"},
    ], "a condition we do not know is left out: applying it always would be wrong"
    noon, night = datetime(2026, 11, 24, 12, tzinfo=UTC), datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
    for at, prompt, cost in ((noon, 272_000, "0.544"), (noon, 272_001, "1.088004"), (night, 272_001, "0.272001")):
        assert cost_by_snapshot(Usage(prompt, 0), snapshot(model), at=at).amount == Decimal(cost)


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


def test_a_list_of_too_many_values_is_refused_before_it_is_parsed(speaks, lister, account, monkeypatch):  # S9
    """Sixteen million empty objects fit into 48 MB and would take gigabytes: they are counted in the bytes."""
    monkeypatch.setattr("providers.clients.endpoint.MAX_VALUES", 50_000)
    speaks("openrouter")
    lister.body = b'{"data": [' + b"{}," * 60_000 + b"{}]}"
    run = sync.sync_account(account)
    assert (run.state, run.error_code) == ("failed", "response_too_large")
    lister.body = json.dumps({"data": [row("m", description="x" * 200_000)]}).encode()
    assert sync.sync_account(account).state == "done", "a long text is one value"
