"""Gaps in what providers state: inferred facts, public list prices, and that neither passes for the provider's word."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal

import pytest
from django.conf import settings

from catalog import list_prices, sync
from catalog.models import AggregatorModel, ModelChange, Origin
from catalog.routes import routes_for
from providers.clients.base import Prices, Usage
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model
from usage import pricing

pytestmark = pytest.mark.slow

TABLE = [
    {
        "id": "openai",
        "name": "OpenAI",
        "api": r"https://api\.openai\.com",
        "makes": {"or": [{"starts_with": "gpt-"}, {"equals": "o1"}]},
        "fallbacks": [],
        "models": [
            {
                "id": "gpt-4o",
                "match": {"or": [{"equals": "gpt-4o"}, {"starts_with": "gpt-4o-2024"}]},
                "context": 128_000,
                "prices": [{"prices": {"input": "2.5", "output": "10", "cache_read": "1.25"}}],
            },
            {
                "id": "gpt-5",
                "match": {"regex": "^gpt-5$"},
                "context": 400_000,
                "prices": [
                    {"prices": {"input": "1", "output": "8"}, "tiers": [{"min_prompt_tokens": 272000, "input": "2"}]},
                    {"prices": {"input": "1.5", "output": "9"}, "from": "2026-10-01"},
                    {"prices": {"input": "99", "output": "99"}, "from": "2199-01-01"},
                ],
            },
            {
                "id": "gpt-half",
                "match": {"equals": "gpt-half"},
                "context": None,
                "prices": [{"prices": {"input": "1"}}],
            },
            {
                "id": "gpt-gift",
                "match": {"equals": "gpt-gift"},
                "context": None,
                "prices": [{"prices": {"input": "0", "output": "0"}}],
            },
            {
                "id": "text-embedding-3",
                "match": {"starts_with": "text-embedding-3"},
                "context": 8_191,
                "prices": [{"prices": {"input": "0.02"}}],
            },
        ],
    },
    {
        "id": "deepseek",
        "name": "DeepSeek",
        "api": r"https://api\.deepseek\.com",
        "makes": {"starts_with": "deepseek"},
        "models": [
            {
                "id": "deepseek-chat",
                "match": {"and": [{"contains": "chat"}, {"ends_with": "chat"}]},
                "context": 64_000,
                "prices": [
                    {"prices": {"input": "0.27", "output": "1.1"}},
                    {"prices": {"input": "0.135", "output": "0.55"}, "utc": ["1630", "0030"]},
                ],
            },
        ],
    },
]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A list of prices made by hand, in the place of the library's."""
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE))
    monkeypatch.setattr(list_prices, "path", lambda: path)
    list_prices.forget()
    yield path
    list_prices.forget()


@pytest.fixture
def openai(db, alice):
    """Alice's account at a provider that names no prices."""
    provider = Provider.objects.create(name="direct", display_name="Direct", base_url="https://api.openai.com/v1")
    return ProviderAccount.objects.create(owner=alice, provider=provider, label="Direct")


def bare(model_id, **fields):
    """A row of a list that says nothing but an id."""
    return model(model_id, None, None, **{"model_type": "unknown", **fields})


def stored(model_id):
    return AggregatorModel.objects.get(model_id=model_id)


def test_a_list_price_fills_a_gap_and_is_marked_as_one(table, openai, upstream):
    upstream(listing(bare("gpt-4o"), bare("gpt-unheard-of"), bare("text-embedding-3-small")))

    sync.sync_account(openai)

    row = stored("gpt-4o")
    assert (row.price_kind, row.price_input, row.price_output, row.price_cache_read) == (
        "list",
        Decimal("2.5"),
        Decimal(10),
        Decimal("1.25"),
    )
    assert (row.origin_of("prices"), row.origins["list"]) == (Origin.LIST, "OpenAI: gpt-4o")
    assert (row.context_window, row.origin_of("context_window")) == (128_000, Origin.INFERRED)
    assert (row.model_type, row.origin_of("model_type")) == ("chat", Origin.INFERRED)
    assert stored("gpt-unheard-of").price_kind == "unknown"
    assert stored("gpt-unheard-of").origin_of("prices") == Origin.UNKNOWN
    embedding = stored("text-embedding-3-small")
    assert (embedding.model_type, embedding.price_kind, embedding.price_input) == ("embedding", "list", Decimal("0.02"))


def test_what_the_provider_states_is_never_touched(table, openai, upstream):
    upstream(
        listing(
            model("gpt-4o", "9", "11", context_window=5_000, model_type="embedding"),
            bare("gpt-4o-2024-08-06", prices=Prices(variable=True)),
            model("gpt-5", "0", "0"),
            bare("gpt-4o-2024-free", prices=Prices(request=Decimal("0.01"))),
            bare("deepseek/gpt-4o:free"),
            bare("gpt-half"),
            bare("gpt-gift"),
            bare("gpt-4o-2024-image", model_type="image"),
        )
    )
    sync.sync_account(openai)

    one = stored("gpt-4o")
    assert (one.price_input, one.context_window, one.model_type) == (9, 5_000, "embedding")
    assert one.origins == {} and one.origin_of("prices") == Origin.STATED == one.origin_of("context_window")
    kinds = dict(AggregatorModel.objects.values_list("model_id", "price_kind"))
    assert kinds == {
        "gpt-4o": "known",
        "gpt-4o-2024-08-06": "variable",  # a router's -1 stays what it is
        "gpt-5": "free",
        "gpt-4o-2024-free": "known",  # one stated price, and the list adds none beside it
        "deepseek/gpt-4o:free": "unknown",
        "gpt-half": "unknown",  # half a price says little
        "gpt-gift": "unknown",  # nobody's list makes a seller free
        "gpt-4o-2024-image": "unknown",  # no token prices
    }
    assert stored("gpt-4o-2024-free").price_input is None


@pytest.mark.parametrize(
    ("base_url", "features"),
    [
        ("http://localhost:11434/v1", {}),
        ("http://192.168.0.7:8000/v1", {}),
        ("http://[fd00::1]:8000/v1", {}),
        ("http://models.lan/v1", {}),
        ("https://models.example/v1", {"keyless": True}),
        ("https://models.example/v1", {"asks_address": True}),
    ],
)
def test_what_runs_on_ones_own_machine_gets_no_list_price(base_url, features, table, openai, upstream):
    Provider.objects.filter(pk=openai.provider_id).update(base_url=base_url, features=features)
    upstream(listing(bare("gpt-4o")))
    sync.sync_account(openai)
    assert stored("gpt-4o").price_kind == "unknown"


def test_another_seller_gets_the_makers_list(table, openai, upstream):
    Provider.objects.filter(pk=openai.provider_id).update(base_url="https://relay.example/v1")
    upstream(listing(bare("openai/gpt-4o"), bare("deepseek-chat"), bare("someone/else")))
    sync.sync_account(openai)
    assert stored("openai/gpt-4o").origins["list"] == "OpenAI: gpt-4o"
    deepseek = stored("deepseek-chat")
    assert deepseek.price_input == Decimal("0.27")
    assert deepseek.pricing_rules == [{"utc_start": "1630", "utc_end": "0030", "input": "0.135", "output": "0.55"}], (
        "the time window is a rule"
    )
    assert stored("someone/else").price_kind == "unknown"


def test_a_seller_the_list_knows_gets_nobody_elses_prices(table, openai, upstream):
    upstream(listing(bare("deepseek-chat")))
    sync.sync_account(openai)
    assert stored("deepseek-chat").price_kind == "unknown"


def test_prices_come_into_force_on_their_day_with_their_tiers(table):
    found = list_prices.find("GPT-5")
    assert found.prices_on(date(2026, 9, 30)) == (
        {"input": Decimal(1), "output": Decimal(8)},
        [{"min_prompt_tokens": 272000, "input": "2"}],
    )
    assert found.prices_on(date(2026, 10, 1)) == ({"input": Decimal("1.5"), "output": Decimal(9)}, [])


def test_a_cost_computed_from_a_list_price_is_estimated(table, openai, upstream, alice):
    upstream(listing(bare("gpt-4o")))
    sync.sync_account(openai)
    [route] = routes_for(alice, "gpt-4o")

    noted = pricing.snapshot(route.model)

    assert noted["kind"] == "list"
    # 1,000 in at 2.5 and 100 out at 10 per 1M: 0.0025 + 0.001
    assert pricing.cost_by_snapshot(Usage(1_000, 100), noted) == pricing.Cost(Decimal("0.0035"), "estimated")
    named = Usage(1_000, 100, cost=Decimal("0.5"))
    assert pricing.cost_by_snapshot(named, noted) == pricing.Cost(Decimal("0.5"), "provider")


def test_no_history_is_made_of_what_we_inferred(table, openai, upstream):
    upstream(listing(bare("gpt-4o")))
    sync.sync_account(openai)
    raised = json.loads(json.dumps(TABLE))
    raised[0]["models"][0]["prices"][0]["prices"]["input"] = "7"
    table.write_text(json.dumps(raised))
    list_prices.forget()

    run = sync.sync_account(openai)

    assert (run.state, run.repriced, run.changed) == ("done", 0, 1)
    assert stored("gpt-4o").price_input == 7
    assert list(ModelChange.objects.values_list("kind", flat=True)) == ["added"]

    upstream(listing(model("gpt-4o", "3", "12", model_type="chat")))
    run = sync.sync_account(openai)

    assert run.repriced == 1
    said = {
        (c.field, c.before, c.after) for c in ModelChange.objects.filter(run=run)
    }  # from unknown, not from a price that this provider never named
    assert said == {
        ("price_input", None, "3"),
        ("price_output", None, "12"),
        ("price_kind", "unknown", "known"),
        ("model_type", "unknown", "chat"),
    }
    assert stored("gpt-4o").origins == {"context_window": "inferred", "capabilities": "inferred"}


@pytest.mark.parametrize(
    ("model_id", "kind", "abilities"),
    [
        ("text-embedding-004", "embedding", []),
        ("BAAI/bge-m3", "embedding", []),
        ("Qwen/Qwen3-Reranker-8B", "rerank", []),
        ("omni-moderation-latest", "moderation", []),
        ("tts-1-hd", "audio", []),
        ("whisper-large-v3", "audio", []),
        ("fx-flux-2-pro", "image", []),
        ("dall-e-3", "image", []),
        ("sora-2", "video", []),
        ("Wan-AI/Wan2.1-T2V-14B", "video", []),
        ("aihubmix-Llama-3-2-11B-Vision", "chat", ["vision"]),
        ("Qwen2.5-VL-72B-Instruct", "chat", ["vision"]),
        ("cc-kimi-k2-thinking", "chat", ["reasoning"]),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "chat", ["reasoning"]),
        ("o1-preview-2024-09-12", "chat", ["reasoning"]),
        ("claude-2.1", "chat", []),
        ("gpt-3.5-turbo", "chat", []),
        ("my-own-finetune", "unknown", []),
        ("photo1", "unknown", []),
    ],
)
def test_a_name_may_say_what_a_model_is(model_id, kind, abilities, account, upstream):
    upstream(listing(bare(model_id, display_name=model_id)))
    sync.sync_account(account)
    row = stored(model_id)
    assert (row.model_type, row.capabilities) == (kind, abilities)
    assert row.origin_of("model_type") == (Origin.UNKNOWN if kind == "unknown" else Origin.INFERRED)


def test_abilities_are_not_inferred_where_the_provider_states_any(account, upstream):
    upstream(listing(bare("gpt-4o", capabilities=("tools",)), bare("gpt-5", input_modalities=("text",))))
    sync.sync_account(account)
    assert stored("gpt-4o").capabilities == ["tools"] and stored("gpt-5").capabilities == []


def test_figures_of_what_turns_out_to_be_an_image_model_are_no_token_prices(account, upstream):
    upstream(listing(model("flux-1.1-pro", "4", "8", model_type="unknown", raw_pricing={"input": 4, "output": 8})))
    sync.sync_account(account)
    row = stored("flux-1.1-pro")
    assert (row.model_type, row.price_kind, row.price_input) == ("image", "unknown", None)
    assert row.pricing == {"input": 4, "output": 8}, "what the seller wrote is kept"


def test_without_the_library_gaps_stay_unknown(tmp_path, monkeypatch, openai, upstream, caplog):
    monkeypatch.setattr(list_prices, "path", lambda: tmp_path / "none.json")
    monkeypatch.setattr(list_prices.sys, "executable", str(tmp_path / "no-python"))
    list_prices.forget()
    upstream(listing(bare("gpt-4o")))

    run = sync.sync_account(openai)

    assert (run.state, run.added) == ("done", 1)
    assert stored("gpt-4o").price_kind == "unknown"
    assert caplog.text.count("list prices could not be read") == 1, "and it is not tried for every model"
    list_prices.forget()


def test_a_damaged_table_is_thrown_away(table):
    table.write_text('[{"id": "openai"')
    assert list_prices.find("gpt-4o") is None
    assert not table.exists()


# -- The library itself, in a child of its own -----------------------------------------------------------------------

CHILD = """
import sys
from tests import network_guard
network_guard.switch(on=True)
from pathlib import Path
from catalog import list_prices
list_prices.write(Path(sys.argv[1]))
assert network_guard.take() == [], "it tried to leave the machine"
assert not list(Path(sys.argv[1]).parent.glob("*.tmp"))
"""


def test_the_librarys_prices_are_read_without_a_network(tmp_path, monkeypatch):
    """The figures are OpenAI's and Anthropic's published prices, looked up by hand."""
    target = tmp_path / "table.json"
    subprocess.run([sys.executable, "-c", CHILD, str(target)], cwd=settings.BASE_DIR, check=True, timeout=120)
    assert target.stat().st_size < 2_000_000
    monkeypatch.setattr(list_prices, "path", lambda: target)
    list_prices.forget()
    today = date(2026, 11, 24)
    for model_id, base_url, prices in (
        ("gpt-4o", "https://api.openai.com/v1", {"input": "2.5", "output": "10", "cache_read": "1.25"}),
        ("gpt-4o-mini", "https://relay.example/v1", {"input": "0.15", "output": "0.6"}),
        ("openai/gpt-4o", "https://relay.example/v1", {"input": "2.5", "output": "10"}),
        (
            "claude-3-5-sonnet-20241022",
            "https://api.anthropic.com",
            {"input": "3", "output": "15", "cache_write": "3.75"},
        ),
        ("anthropic/claude-3.5-sonnet", "https://relay.example/v1", {"input": "3", "output": "15"}),
    ):
        found, _ = list_prices.find(model_id, base_url).prices_on(today)
        assert {name: found[name] for name in prices} == {k: Decimal(v) for k, v in prices.items()}, model_id
    assert list_prices.find("nobody/knows-this", "https://relay.example/v1") is None
    list_prices.forget()


def test_the_child_is_started_once_and_no_process_of_ours_imports_the_library(tmp_path, settings, monkeypatch):
    settings.VAR_DIR = tmp_path
    list_prices.forget()
    (tmp_path / "list-prices").mkdir()
    old = tmp_path / "list-prices" / "0.0.1-1.json"
    old.write_text("[]")

    assert list_prices.prepare()

    assert list_prices.path().exists() and not old.exists()
    assert "genai_prices" not in sys.modules
    monkeypatch.setattr(list_prices.subprocess, "run", lambda *args, **kwargs: pytest.fail("a second child"))
    assert list_prices.prepare() and list_prices.find("gpt-4o", "https://api.openai.com/v1")
    list_prices.forget()
