"""Model lists in every shape (F13), prices in the right unit (upstreams.md §3.0), the two aggregators' traps."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.clients import prices, registry
from providers.clients.base import Prices
from providers.clients.errors import ProviderError, ProviderUnreachable
from providers.clients.openai_compatible import moment, parse_model, read_prices, words
from providers.clients.openrouter import read_pricing

from .conftest import KEY, Answer


def client(kind="openai_compatible", **more):
    base = {"aihubmix": "https://aihubmix.test/v1", "openrouter": "https://openrouter.test/api/v1"}
    return registry.create(kind, **{"base_url": base.get(kind, "https://upstream.test/v1"), "api_key": KEY, **more})


def ids(found) -> list[str]:
    return [model.model_id for model in found.models]


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        {"data": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"name": "zzz"}], "data": [{"id": "a"}, {"id": "b"}]},  # llama.cpp sends both
        [{"id": "a"}, {"id": "b"}],
        [{"id": "a"}, {"id": "b"}, {"id": "a", "name": "again"}],  # Mistral repeats ids
        ["a", "b"],
    ],
)
async def test_a_list_in_any_shape(upstream, document):
    upstream.answers = [Answer(document)]
    found = await client().list_models()
    assert (ids(found), found.skipped) == (["a", "b"], 0)
    assert upstream.calls[0].url == "https://upstream.test/v1/models"


async def test_bad_rows_are_skipped_and_counted_and_good_ones_land(upstream):
    """F13."""
    rows = [
        {"id": "a"},
        None,
        7,
        {},
        {"id": ""},
        {"id": 5},
        {"id": "x" * 301},
        {"id": "a\nb"},
        {"id": "b\u202e"},
        {"id": "b"},
    ]
    upstream.answers = [Answer({"data": rows})]
    found = await client().list_models()
    assert (ids(found), found.skipped) == (["a", "b"], 8)


async def test_ids_that_differ_by_case_are_different_models(upstream):
    upstream.answers = [Answer({"data": [{"id": "deepseek-v3"}, {"id": "DeepSeek-v3"}, {"id": "DeepSeek-V3"}]})]
    assert len((await client().list_models()).models) == 3


@pytest.mark.parametrize("kind", ["openai_compatible", "aihubmix", "openrouter"])
async def test_a_figure_that_is_not_a_number_costs_a_list_no_row(upstream, kind):
    """F13: Python's writer makes NaN of what nobody knows; strictly that is no JSON, and the whole list was lost."""
    upstream.answers = [
        Answer(b'{"data":[{"id":"a","model_id":"a","context_length":NaN},NaN,{"id":"b","model_id":"b"}]}')
    ]
    found = await client(kind).list_models()
    assert (ids(found), found.skipped) == (["a", "b"], 1)
    assert found.models[0].context_window is None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer({"success": False, "message": "no"}), "upstream_error"),
        (Answer({"error": {"message": "Invalid token"}}), "key_rejected"),
        (Answer({"hello": 1}), "unexpected_content"),
        (Answer({"data": "x"}), "unexpected_content"),
        (Answer(3), "unexpected_content"),
        (Answer(b"<html>hi</html>"), "unexpected_content"),
        (Answer(b""), "unexpected_content"),
        (Answer(b'{"data":[nan]}'), "unexpected_content"),
        (Answer(b"[" * 100_000), "unexpected_content"),
        (Answer(b"", 401), "key_rejected"),
        (Answer(b"", 301), "unexpected_redirect"),
    ],
)
@pytest.mark.parametrize("kind", ["openai_compatible", "aihubmix", "openrouter"])
async def test_an_answer_that_is_no_list_raises(upstream, answer, code, kind):
    upstream.answers = [answer]
    with pytest.raises(ProviderError) as caught:
        await client(kind).list_models()
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["openai_compatible", "aihubmix", "openrouter"])
async def test_an_etag_saves_the_second_list(upstream, kind):
    upstream.answers = [Answer({"data": []}, headers={"etag": 'W/"1"'}), Answer(b"", 304), Answer({"data": []})]
    first = await client(kind).list_models()
    assert first.etag == 'W/"1"'
    second = await client(kind).list_models(etag=first.etag)
    assert (second.not_modified, second.etag, second.models) == (True, 'W/"1"', ())
    assert upstream.calls[1].headers["If-None-Match"] == 'W/"1"'
    await client(kind).list_models(etag='"a"\r\nX: y')
    assert "If-None-Match" not in upstream.calls[2].headers


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "model_id", "pricing", "types", "features", "context_length", "created", "architecture", "top_provider",
             "metadata", "name", "supported_parameters", "expiration_date", "capabilities", "input_modalities", "type"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["-1", "1e-6"]),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["prompt", "input", "output", "overrides", "discount", "text"]), inner),
            max_leaves=8,
        ),
    )
)  # fmt: skip
def test_no_row_can_break_a_list(row):
    """F13, M2: read or skipped; a price is never negative, never above the cap, never a float."""
    for kind in ("openai_compatible", "aihubmix", "openrouter"):
        models, skipped = client(kind).read_rows([row, {"id": "good", "model_id": "good"}])
        assert len(models) + skipped >= 1
        assert models[-1].model_id == "good" or row.get("id") == "good"
        for model in models:
            json.dumps(model.raw_pricing)
            json.dumps(model.prices.rules)
            for name in ("input", "output", "cache_read", "cache_write", "reasoning", "image", "request", "search"):
                value = getattr(model.prices, name)
                assert value is None or (isinstance(value, Decimal) and 0 <= value <= prices.MAX_PRICE)


# --- rows of other sellers -------------------------------------------------------------------------------------------


def test_limits_are_read_under_every_name_and_zero_is_unknown():
    def limits(**row):
        found = parse_model({"id": "m", **row})
        return found.context_window, found.max_output_tokens

    assert limits(context_length=8, top_provider={"max_completion_tokens": 4}) == (8, 4)
    assert limits(context_window=8, max_completion_tokens=4) == (8, 4)  # Groq
    assert limits(max_model_len=8) == (8, None)  # vLLM
    assert limits(context_length=0, max_output_tokens=0) == (None, None)
    assert limits(context_length=None, meta={"n_ctx": 8}) == (8, None)  # llama.cpp
    assert limits(metadata={"context_length": 8, "max_tokens": 4}) == (8, 4)  # DeepInfra
    assert limits(model_spec={"availableContextTokens": 8}) == (8, None)  # Venice
    assert limits(context_length="128000") == (128_000, None)
    assert limits(context_length=-5, max_output_tokens=True) == (None, None)


@pytest.mark.parametrize(
    ("value", "year"),
    [(1784325956, 2026), (1784325956000, 2026), ("2026-04-21", 2026), ("2025-01-02T03:04:05Z", 2025),
     (0, None), (None, None), (1626777600, None), (1677610602, None), (-62135596800, None), (10**30, None), ("x", None),
     (True, None), (1.5, None), (float("nan"), None)],
)  # fmt: skip
def test_dates_in_seconds_milliseconds_or_text_and_constants_are_unknown(value, year):
    found = moment(value)
    assert (found.year if found else None) == year
    assert found is None or found.tzinfo is not None


@pytest.mark.parametrize(
    ("row", "shape", "expected"),
    [
        ({"pricing": {"prompt": "0.000001", "completion": "0.000004"}}, "", ("1", "4")),
        ({"pricing": {"prompt": "0.00000008333333333333334", "completion": "5e-7"}}, "", ("0.08333333333333334", "0.5")),
        ({"pricing": {"input": "0.00000008", "output": "0.00000024"}}, "", ("0.08", "0.24")),  # Vercel
        ({"pricing": {"input": 0.08, "output": 0.24}}, "", (None, None)),  # a number names no unit
        ({"pricing": {"prompt": 0.08, "completion": 0.24}}, "", (None, None)),
        ({"pricing": {"input": Decimal("0.08"), "output": 2}}, "input_per_million", ("0.08", "2")),  # Together
        ({"pricing": {"prompt": Decimal("0.2"), "completion": 1}}, "prompt_per_million", ("0.2", "1")),  # Chutes
        ({"metadata": {"pricing": {"input_tokens": 1, "output_tokens": 2}}}, "deepinfra", ("1", "2")),
        ({"metadata": None}, "deepinfra", (None, None)),
        ({"model_spec": {"pricing": {"input": {"usd": 1}, "output": {"usd": 2}}}}, "venice", ("1", "2")),
        ({"input_price": Decimal("5e-07"), "output_price": Decimal("1e-06")}, "requesty", ("0.5", "1")),
        ({"input_token_price_per_m": 7000, "output_token_price_per_m": 25000}, "", ("0.7", "2.5")),  # Novita
        ({"pricing": {"per_input_token": 1e-6, "per_output_token": 5e-6}}, "", ("1", "5")),  # naga
        ({"input_cost_per_token": 2e-6, "output_cost_per_token": None}, "", ("2", None)),  # LiteLLM
        ({"pricing": {"prompt": 1, "completion": 2, "unit": "per_million_tokens"}}, "", ("1", "2")),  # NanoGPT
        ({"pricing": {"prompt": "0.000001", "completion": "0.000004", "currency": "EUR"}}, "", (None, None)),
        ({"pricing": {"prompt": "0.5", "completion": "1"}}, "", (None, None)),  # would be 500000 per 1M: a unit error
        ({"pricing": {"prompt": "-0.000001", "completion": "0"}}, "", (None, "0")),
        ({"pricing": None}, "", (None, None)),
        ({"pricing": {"prompt": "0.000001", "completion": "0.000004"}}, "none", (None, None)),
    ],
)  # fmt: skip
def test_prices_are_usd_per_million_whatever_the_unit_and_unknown_is_none(row, shape, expected):
    found = read_prices(row, shape)
    assert (found.input, found.output) == tuple(value and Decimal(value) for value in expected)


def test_the_unit_of_a_seller_is_known_by_its_host():
    def shape(url, **options):
        return client(base_url=url, options=options).price_shape()

    assert shape("https://api.together.ai/v1") == "input_per_million"
    assert shape("https://llm.chutes.ai/v1") == "prompt_per_million"
    assert shape("https://chutes.ai.evil.test/v1") == ""
    assert shape("https://notchutes.ai/v1") == ""
    assert shape("https://x.test/v1", price_shape="venice") == "venice"
    assert shape("https://x.test/v1", price_shape="guess") == ""


def test_image_rows_have_no_token_price():
    found = parse_model({"id": "m", "type": "image", "pricing": {"prompt": "0.000001", "completion": "0"}})
    assert (found.model_type, found.prices) == ("image", Prices())


@pytest.mark.parametrize(
    "text", ["1_000", "١", "0x1", "1e400", "1e-99", " ", "NaN", "Infinity", "1" * 200, "--1", "1,5"]
)
def test_odd_price_texts_are_unknown(text):
    """M2: Decimal() itself would take some of these."""
    assert prices.price(text) is None


def test_a_price_is_bounded():
    assert prices.price("0.002", prices.PER_TOKEN) == 2000
    assert prices.price("0.0020000001", prices.PER_TOKEN) is None
    assert prices.price("-0") == 0
    assert prices.price(True) is None


# --- AiHubMix --------------------------------------------------------------------------------------------------------


def aihubmix(**row):
    return client("aihubmix").parse_model({"model_id": "m", "types": "llm", **row})


async def test_aihubmix_reads_the_rich_catalogue_beside_v1(upstream):
    upstream.answers = [
        Answer({"data": [{"model_id": "a", "pricing": {"input": 1, "output": 2}}], "success": True, "message": ""})
    ]
    found = await client("aihubmix").list_models()
    assert upstream.calls[0].url == "https://aihubmix.test/api/v1/models"
    assert found.models[0].prices == Prices(input=Decimal(1), output=Decimal(2))


def test_aihubmix_prices_are_per_million_and_exact():
    upstream_row = prices.loads('{"model_id":"m","types":"llm","pricing":{"input":3.3000000000000003,"output":82.5}}')
    found = client("aihubmix").parse_model(upstream_row)
    assert str(found.prices.input) == "3.3000000000000003"
    assert found.raw_pricing == {"input": "3.3000000000000003", "output": "82.5"}


def test_aihubmix_zero_cache_price_is_unset_on_paid_and_free_on_free():
    paid = aihubmix(pricing={"input": 1, "output": 2, "cache_read": 0, "cache_write": 0})
    free = aihubmix(model_id="m-free", pricing={"input": 0, "output": 0, "cache_read": 0})
    assert (paid.prices.cache_read, paid.prices.cache_write) == (None, None)
    assert free.prices == Prices(input=Decimal(0), output=Decimal(0), cache_read=Decimal(0))


def test_aihubmix_auto_is_variable_and_placeholders_are_unknown():
    assert aihubmix(types="", pricing={"input": 2, "output": 0}).prices == Prices()
    assert aihubmix(model_id="auto", pricing={"input": 2, "output": 2}).prices == Prices(variable=True)
    assert aihubmix(model_id="auto:balanced", pricing={"input": 2, "output": 2}).prices == Prices(variable=True)
    assert aihubmix(model_id="autoglm", pricing={"input": 2, "output": 2}).prices.input == 2
    assert aihubmix(types="image_generation", pricing={"input": 2, "output": 0}).prices == Prices()
    assert aihubmix(types="image_generation,llm", pricing={"input": 2, "output": 3}).prices.output == 3
    assert aihubmix(types="", pricing={"input": 2, "output": 3}).prices.output == 3


@pytest.mark.parametrize(
    ("types", "kind"),
    [("llm", "chat"), ("", "unknown"), (None, "unknown"), ("llm,search", "chat"), ("image_generation,llm", "chat"),
     ("image_generation", "image"), ("video", "video"), ("tts", "audio"), ("stt", "audio"), ("embedding,rerank", "embedding"),
     ("rerank", "rerank"), ("ocr", "other"), (["llm"], "chat"), ("t2t", "chat")],
)  # fmt: skip
def test_aihubmix_types(types, kind):
    assert aihubmix(types=types).model_type == kind


def test_aihubmix_features_may_use_the_full_width_comma_or_a_list():
    assert aihubmix(features="thinking，tools,function_calling").capabilities == ("reasoning", "tools")
    assert aihubmix(features=["tool"], input_modalities=["text", "image"]).capabilities == ("tools", "vision")
    assert aihubmix(features="", reasoning=True, tool_call=True).capabilities == ("reasoning", "tools")
    assert aihubmix(input_modalities="image,text").input_modalities == ("image", "text")


def test_aihubmix_limits_of_zero_are_unknown_and_may_be_text():
    assert aihubmix(context_length=0, max_output=0).context_window is None
    found = aihubmix(context_length="400000", max_output=128000)
    assert (found.context_window, found.max_output_tokens) == (400_000, 128_000)


def test_aihubmix_rows_of_autumn_say_when_they_go():
    found = aihubmix(
        model_name="M One",
        release_date="2026-04-21",
        retire_stage="deprecated",
        retired_at="2026-12-01",
        successor_model="n",
    )
    assert found.display_name == "M One"
    assert found.released_at == datetime(2026, 4, 21, tzinfo=UTC)
    assert (found.retires_at, found.successor, found.is_available) == (date(2026, 12, 1), "n", False)
    assert aihubmix(retire_stage="active", release_date=None).is_available
    assert aihubmix().is_available


# --- OpenRouter ------------------------------------------------------------------------------------------------------


def test_openrouter_prices_are_text_per_token():
    found = read_pricing(
        {
            "prompt": "0.00000008333333333333334",
            "completion": "0.00000405",
            "input_cache_read": "0.00000017",
            "input_cache_write": "0.00000125",
            "internal_reasoning": "0.000003",
            "image": "0.0051",
            "request": "0.01",
            "web_search": "0.005",
        }
    )
    assert found == Prices(
        input=Decimal("0.08333333333333334"),
        output=Decimal("4.05"),
        cache_read=Decimal("0.17"),
        cache_write=Decimal("1.25"),
        reasoning=Decimal(3),
        image=Decimal("0.0051"),
        request=Decimal("0.01"),
        search=Decimal("0.005"),
    )


def test_openrouter_minus_one_is_variable_and_never_a_price():
    """M2: another client multiplied it and charged minus 142,066 dollars."""
    assert read_pricing({"prompt": "-1", "completion": "-1"}) == Prices(variable=True)
    assert read_pricing({"prompt": "0.000001", "completion": "-1.0"}) == Prices(variable=True)


def test_openrouter_zero_is_free_and_zero_beside_a_price_is_unset():
    assert read_pricing({"prompt": "0", "completion": "0"}) == Prices(input=Decimal(0), output=Decimal(0))
    old = {
        "prompt": "0.000001",
        "completion": "0",
        "request": "0",
        "image": "0",
        "internal_reasoning": "0",
        "input_cache_read": "0",
    }
    assert read_pricing(old) == Prices(input=Decimal(1), output=Decimal(0))


def test_openrouter_discount_counts():
    assert read_pricing({"prompt": "0.000002", "completion": "0.000004", "discount": Decimal("0.25")}).input == Decimal(
        "1.5"
    )
    assert read_pricing({"prompt": "0.000002", "completion": "0.000004", "discount": 1}).input == 2


def test_openrouter_overrides_become_rules_in_usd_per_million():
    found = read_pricing(
        {
            "prompt": "0.000001",
            "completion": "0.000004",
            "overrides": [
                {
                    "min_prompt_tokens": 272000,
                    "prompt": "0.000002",
                    "completion": "0.000009",
                    "input_cache_read": "2e-7",
                },
                {"utc_start": "1630", "utc_end": "0030", "prompt": "0.0000005"},
                {"min_images": 3, "prompt": "0.1"},
                {"prompt": "0.000009"},
                "x",
                {"min_prompt_tokens": -4, "prompt": "0.000002"},
            ],
        }
    )
    assert found.rules == (
        {"cache_read": "0.2", "input": "2", "min_prompt_tokens": 272000, "output": "9"},
        {"input": "0.5", "utc_end": "0030", "utc_start": "1630"},
    )


def test_openrouter_rows():
    found = client("openrouter").parse_model(
        {
            "id": "~vendor/model:free",
            "canonical_slug": "vendor/model-20260715",
            "name": "Vendor: Model",
            "created": 1784325956,
            "context_length": 1048576,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "pricing": {"prompt": "0", "completion": "0"},
            "top_provider": {"context_length": 524288, "max_completion_tokens": 65536},
            "supported_parameters": ["tools", "reasoning", "structured_outputs", "web_search_options"],
            "expiration_date": "2026-07-21",
            "alias_target": "vendor/other",
        }
    )
    assert found.model_id == "~vendor/model:free"
    assert found.model_name == "vendor/model-20260715"
    assert (found.context_window, found.max_output_tokens) == (1048576, 65536)
    assert found.capabilities == ("tools", "reasoning", "structured_outputs", "web_search", "vision")
    assert (found.model_type, found.output_modalities) == ("chat", ("text",))
    assert (found.retires_at, found.successor) == (date(2026, 7, 21), "vendor/other")


async def test_openrouter_follows_pages_on_its_own_origin_only(upstream):
    page = "https://openrouter.test/api/v1/models?offset=1"
    upstream.answers = [
        Answer({"data": [{"id": "a"}], "links": {"next": "/api/v1/models?offset=1"}}, headers={"etag": '"1"'}),
        Answer({"data": [{"id": "b"}], "links": {"next": "https://evil.test/models"}}),
    ]
    found = await client("openrouter").list_models()
    assert ids(found) == ["a", "b"]
    assert [call.url for call in upstream.calls] == ["https://openrouter.test/api/v1/models", page]
    assert found.etag == ""  # it would cover the first page only


async def test_openrouter_pages_end(upstream):
    """F12: a list whose every page names a next one."""
    upstream.route = lambda call: Answer({"data": [], "links": {"next": f"?offset={len(upstream.calls)}"}})
    await client("openrouter").list_models()
    assert len(upstream.calls) == 20


# --- probes ----------------------------------------------------------------------------------------------------------


def gate(*, models_public: bool, chat_checks_key: bool, good: str = KEY):
    """An upstream's manners: whether its list and its chat look at keys."""

    def route(call):
        refused = Answer({"error": {"message": "No such key"}}, 401)
        if call.url.endswith("/models"):
            return Answer({"data": [{"id": "a"}]}) if models_public or call.key == good else refused
        if chat_checks_key and call.key != good:
            return refused
        return Answer({"error": {"message": "messages: required"}}, 400)

    return route


@pytest.mark.parametrize(
    ("models_public", "chat_checks_key", "key", "verdict", "request_name"),
    [
        (False, True, KEY, "valid", "GET /models"),
        (False, True, "sk-wrong-000000", "invalid", "GET /models"),
        (True, True, KEY, "valid", "POST /chat/completions with an empty body"),
        (True, True, "sk-wrong-000000", "invalid", "POST /chat/completions with an empty body"),
        (True, False, KEY, "unverified", "POST /chat/completions with an empty body"),
        (True, True, "", "valid", "GET /models"),
        (False, True, "", "invalid", "GET /models"),
    ],
)
async def test_a_probe_tells_a_checked_key_from_an_ignored_one(
    upstream, models_public, chat_checks_key, key, verdict, request_name
):
    upstream.route = gate(models_public=models_public, chat_checks_key=chat_checks_key)
    found = await client(api_key=key).probe()
    assert (found.verdict, found.request) == (verdict, request_name)
    assert found.reason
    if verdict != "invalid":
        assert found.models == 1
    assert all(call.body in (None, {}) for call in upstream.calls)  # nothing that could cost


async def test_a_probe_without_a_list_still_asks_the_chat(upstream):
    listed = gate(models_public=True, chat_checks_key=True)
    upstream.route = lambda call: Answer(b"", 404) if call.url.endswith("/models") else listed(call)
    assert (await client().probe()).verdict == "valid"
    assert (await client(api_key="sk-wrong-000000").probe()).verdict == "invalid"


@pytest.mark.parametrize("kind", ["openai_compatible", "aihubmix", "openrouter"])
@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [
        (ProviderUnreachable("unreachable"), "unverified", "unreachable"),
        (ProviderUnreachable("timeout"), "unverified", "timeout"),
        (ProviderUnreachable("blocked_address"), "unverified", "blocked_address"),
        (Answer(b"<html>", 200), "unverified", "unexpected_content"),
        (Answer(b"", 500), "unverified", "upstream_error"),
        (Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), "invalid", "key_rejected"),
        (Answer({"error": {"message": "Insufficient balance"}}, 402), "valid", "no_balance"),
    ],
)
async def test_a_probe_never_raises_and_says_what_it_found(upstream, kind, answer, verdict, code):
    upstream.route = lambda call: answer
    found = await client(kind).probe()
    assert (found.verdict, found.code) == (verdict, code)
    assert KEY not in found.reason


@pytest.mark.parametrize("kind", ["openai_compatible", "aihubmix", "openrouter"])
async def test_a_probe_with_a_key_that_cannot_be_sent_says_so(upstream, kind):
    """S10."""
    found = await client(kind, api_key="sk-ä\n").probe()
    assert (found.verdict, found.code, upstream.calls) == ("invalid", "key_rejected", [])


@pytest.mark.parametrize(
    ("remaining", "balance"),
    [("0.064", Decimal("0.064")), ("-0.000002", None), ("-1", None), ("100000000", None), ("0", Decimal(0))],
)
async def test_aihubmix_probe_reads_the_balance_and_negative_is_unlimited(upstream, remaining, balance):
    upstream.answers = [Answer(b'{"object":"list","total_usage":' + remaining.encode() + b"}")]
    found = await client("aihubmix").probe()
    assert (found.verdict, found.request, found.balance) == ("valid", "GET /dashboard/billing/remain", balance)
    assert upstream.calls[0].url == "https://aihubmix.test/dashboard/billing/remain"


async def test_aihubmix_probe_sees_an_error_that_came_with_200(upstream):
    upstream.answers = [
        Answer({"error": {"message": "Invalid token", "type": "Aihubmix_api_error"}}),
        Answer({"error": {"message": "record not found", "type": "upstream_error"}}),
        Answer({"object": "list"}),
    ]
    assert [(await client("aihubmix").probe()).verdict for _ in range(3)] == ["invalid", "unverified", "unverified"]


async def test_aihubmix_probe_recognises_a_manage_key(upstream):
    upstream.answers = [Answer({"error": {"message": "Invalid token"}}, 401)] * 2
    assert "Manage key" in (await client("aihubmix", api_key="fd0123456789abcdef0123456789abcd").probe()).reason
    assert "Manage key" not in (await client("aihubmix").probe()).reason


async def test_openrouter_probe_reads_limit_and_what_remains(upstream):
    upstream.answers = [Answer(b'{"data":{"limit":25,"limit_remaining":18.204,"usage":6.796,"is_free_tier":true}}')]
    found = await client("openrouter").probe()
    assert (found.verdict, found.request) == ("valid", "GET /key")
    assert (found.balance, found.limit) == (Decimal("18.204"), Decimal(25))
    assert "free tier" in found.reason


async def test_openrouter_probe_asks_for_credits_where_the_key_has_no_limit(upstream):
    key = Answer({"data": {"limit": None, "limit_remaining": None}})
    upstream.answers = [key, Answer(b'{"data":{"total_credits":10.5,"total_usage":0.25}}'), key, Answer(b"", 403)]
    assert (await client("openrouter").probe()).balance == Decimal("10.25")
    found = await client("openrouter").probe()
    assert (found.verdict, found.balance) == ("valid", None)


async def test_openrouter_probe_turns_down_a_management_key(upstream):
    upstream.answers = [Answer({"data": {"is_management_key": True, "limit": None, "limit_remaining": None}})]
    found = await client("openrouter").probe()
    assert (found.verdict, len(upstream.calls)) == ("invalid", 1)
    assert "management key" in found.reason


def test_words_from_lists_and_strings():
    assert words("Text， image,,text") == ("text", "image")
    assert words(["Text", 3, None, " image "]) == ("text", "image")
    assert words(None) == ()
