"""The recorded lists of AiHubMix and OpenRouter, through the real clients over real HTTP, against tables made by hand.

The counts were taken from the raw files with one-liners that share no code with the clients; the rows of
tables/*.tsv were read by eye (each file says by which rules). A second sync of the same list writes nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from catalog import sync
from catalog.models import AccountModel, AggregatorModel, ModelChange
from tests.catalog.test_sync import writes

TABLES = Path(__file__).parent / "tables"
RECORDINGS = Path(settings.BASE_DIR).parent / "shared" / "data"

pytestmark = [pytest.mark.slow, pytest.mark.recordings]

COUNTS = {
    "aihubmix": {
        "models": 805,
        # 672 typed `llm` or untyped − 27 free − 1 auto − 2 placeholders − gpt-image-test, cogview-3, cogview-3-plus,
        # whose names say that they draw
        "known": 639,
        "free": 27,  # 28 ids say -free; one of them is an image row, whose figures are no token prices
        "variable": 1,
        "unknown": 138,
        "types": {
            "chat": 350,
            "unknown": 322,
            "image": 45,
            "video": 31,
            "embedding": 30,
            "audio": 11,
            "rerank": 10,
            "other": 6,
        },
        "unknown context": 546,
        "unknown output limit": 571,
        "cache reads above 0": 241,
        "cache writes above 0": 33,
        "tools": 261,
        "reasoning": 197,
        "vision": 291,
        "retiring": 0,
        "with rules": 0,
        "searches priced": 0,
        "reasoning priced": 0,
    },
    "openrouter": {
        "models": 344,
        "known": 316,
        "free": 23,
        "variable": 5,
        "unknown": 0,
        "types": {"chat": 344},
        "unknown context": 0,
        "unknown output limit": 54,
        "cache reads above 0": 179,
        "cache writes above 0": 53,
        "tools": 270,
        "reasoning": 210,  # 206 take the parameter; 4 more only describe their reasoning
        "vision": 179,
        "retiring": 15,
        "with rules": 43,
        "searches priced": 101,
        "reasoning priced": 17,
    },
}

FILES = {"aihubmix": "models-aihubmix-api-v1.json", "openrouter": "models-openrouter.json"}
PATHS = {"aihubmix": "/api/v1/models", "openrouter": "/v1/models"}

OVERRIDES = {
    "openai/gpt-5.6-luna": [
        {"min_prompt_tokens": 272000, "input": "2", "output": "9", "cache_read": "0.2", "cache_write": "2.5"}
    ],
    "qwen/qwen3-max-thinking": [
        {"min_prompt_tokens": 32000, "input": "1.56", "output": "7.8"},
        {"min_prompt_tokens": 128000, "input": "1.95", "output": "9.75"},
    ],
    "openai/gpt-5.5-pro": [{"min_prompt_tokens": 272000, "input": "60", "output": "270"}],
    "bytedance-seed/seed-2.0-mini": [{"min_prompt_tokens": 128000, "input": "0.2", "output": "0.8"}],
    "anthropic/claude-sonnet-4.5": [
        {"min_prompt_tokens": 200000, "input": "6", "output": "22.5", "cache_read": "0.6", "cache_write": "7.5"}
    ],
}


@pytest.fixture
def recorded(lister, provider):
    """recorded("openrouter"): the provider is that one from now on, and lists its recording."""

    def serve(name):
        path = RECORDINGS / FILES[name]
        if not path.exists():
            if os.environ.get("REQUIRE_RECORDINGS") == "1":
                pytest.fail(f"{path.name} is missing")
            pytest.skip(f"{path.name} is not here")
        lister.body = path.read_bytes()
        provider.client = name
        provider.save()

    return serve


def table(name):
    """The hand-made rows of a provider: dicts of text, "-" for unknown."""
    lines = [
        line for line in (TABLES / f"{name}.tsv").read_text("utf-8").splitlines() if line and not line.startswith("#")
    ]
    head = lines[0].split("\t")
    return [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]


def as_text(model):
    """A stored model in the words of the table."""

    def figure(value):
        return "-" if value is None else format(value, "f") if isinstance(value, Decimal) else str(value)

    return {
        "model_id": model.model_id,
        "name": model.display_name,
        "type": stated_type(model),
        "kind": model.price_kind,
        "input": figure(model.price_input),
        "output": figure(model.price_output),
        "cache_read": figure(model.price_cache_read),
        "cache_write": figure(model.price_cache_write),
        "reasoning": figure(model.price_reasoning),
        "search": figure(model.price_search),
        "context": figure(model.context_window),
        "max_output": figure(model.max_output_tokens),
        "retires": figure(model.retires_at),
        "can": " ".join(word for word in ("reasoning", "tools", "vision") if word in stated_abilities(model)),
    }


def stated_type(model):
    """The type that the list states; what was inferred is not its word."""
    return "unknown" if "model_type" in model.origins else model.model_type


def stated_abilities(model):
    return [] if "capabilities" in model.origins else model.capabilities


def counts():
    models = list(AggregatorModel.objects.all())
    kinds = Counter(model.price_kind for model in models)
    return {
        "models": len(models),
        **{kind: kinds[kind] for kind in ("known", "free", "variable", "unknown")},
        "types": dict(Counter(stated_type(model) for model in models)),
        "unknown context": sum(model.context_window is None for model in models),
        "unknown output limit": sum(model.max_output_tokens is None for model in models),
        "cache reads above 0": sum(bool(model.price_cache_read) for model in models),
        "cache writes above 0": sum(bool(model.price_cache_write) for model in models),
        **{word: sum(word in stated_abilities(model) for model in models) for word in ("tools", "reasoning", "vision")},
        "retiring": sum(model.retires_at is not None for model in models),
        "with rules": sum(bool(model.pricing_rules) for model in models),
        "searches priced": sum(model.price_search is not None for model in models),
        "reasoning priced": sum(model.price_reasoning is not None for model in models),
    }


@pytest.mark.parametrize("name", ["aihubmix", "openrouter"])
def test_a_recorded_list_becomes_exactly_the_models_of_the_table(name, recorded, lister, account):
    recorded(name)

    run = sync.sync_account(account)

    assert (run.state, run.added, run.total, run.skipped) == ("done", COUNTS[name]["models"], COUNTS[name]["models"], 0)
    assert [path for path, _ in lister.asked] == [PATHS[name]]
    assert counts() == COUNTS[name]
    rows = table(name)
    assert len(rows) >= 40 and len({row["model_id"] for row in rows}) == len(rows)
    named = AggregatorModel.objects.filter(model_id__in=[row["model_id"] for row in rows])
    stored = {model.model_id: model for model in named}
    for row in rows:
        found = as_text(stored[row["model_id"]])
        assert {column: found[column] for column in row} == row
    assert AccountModel.objects.filter(account=account).count() == COUNTS[name]["models"]


def test_names_tell_what_the_untyped_rows_are(recorded, account):
    """AiHubMix leaves 322 rows without a type. Every id was read by eye; no guess is wrong, 16 stay unknown."""
    recorded("aihubmix")
    sync.sync_account(account)
    inferred = AggregatorModel.objects.filter(origins__has_key="model_type")
    kinds = Counter(inferred.values_list("model_type", flat=True))
    assert kinds == {"chat": 295, "image": 5, "moderation": 4, "embedding": 2}
    assert AggregatorModel.objects.filter(model_type="unknown").count() == 16
    assert set(inferred.filter(model_type="image").values_list("model_id", flat=True)) == {
        "flux-kontext-max", "fx-flux-2-pro", "gpt-image-test", "cogview-3", "cogview-3-plus",
    }  # fmt: skip
    able = AggregatorModel.objects.filter(origins__has_key="capabilities")
    abilities = Counter(word for words in able.values_list("capabilities", flat=True) for word in words)
    assert set(abilities) == {"vision", "reasoning"}


@pytest.mark.parametrize("name", ["aihubmix", "openrouter"])
def test_a_second_sync_of_the_same_list_writes_nothing(name, recorded, account):
    recorded(name)
    sync.sync_account(account)
    before = list(AggregatorModel.objects.order_by("pk").values())
    history = ModelChange.objects.count()

    with CaptureQueriesContext(connection) as captured:
        run = sync.sync_account(account)

    assert (run.state, run.unchanged) == ("unchanged", COUNTS[name]["models"])
    assert {sql.split('"')[1] for sql in writes(captured)} == {"catalog_syncrun"}
    assert ModelChange.objects.count() == history
    assert list(AggregatorModel.objects.order_by("pk").values()) == before


def test_an_unchanged_etag_saves_the_second_reading(recorded, lister, account):
    recorded("aihubmix")
    lister.etag = 'W/"abc123"'
    sync.sync_account(account)

    run = sync.sync_account(account)

    assert (run.state, run.total) == ("unchanged", 805)
    assert [headers.get("if-none-match") for _, headers in lister.asked] == [None, 'W/"abc123"']


def test_conditional_prices_are_kept_per_million(recorded, account):
    recorded("openrouter")
    sync.sync_account(account)
    for model_id, rules in OVERRIDES.items():
        assert AggregatorModel.objects.get(model_id=model_id).pricing_rules == rules, model_id


def test_the_list_of_a_year_later_is_told_apart(recorded, lister, account):
    """2025-09 (326 rows) and then 2026-07 (344): 138 ids are in both (`jq -r .data[].id`, sort, comm -12)."""
    recorded("openrouter")
    newer = lister.body
    older = RECORDINGS / "models-openrouter-2025-09.json"
    if not older.exists():
        pytest.skip("the older recording is not here")
    lister.body = older.read_bytes()
    first = sync.sync_account(account)
    assert (first.added, first.total) == (326, 326)

    lister.body = newer
    run = sync.sync_account(account)

    assert (run.added, run.gone, run.total) == (344 - COMMON, 326 - COMMON, 344)
    assert run.repriced + run.changed + run.unchanged == COMMON
    assert AggregatorModel.objects.filter(missing_since__isnull=False).count() == 326 - COMMON
    assert AggregatorModel.objects.get(model_id="openai/gpt-4o").missing_since is None


COMMON = 138
"""Ids in both recordings of OpenRouter."""


def test_a_date_far_away_is_kept_as_the_provider_says_it(recorded, account):
    recorded("openrouter")
    sync.sync_account(account)
    assert AggregatorModel.objects.get(model_id="z-ai/glm-5-turbo").retires_at == date(2098, 12, 31)
