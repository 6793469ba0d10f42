"""Usage in every spelling, normalised as base.Usage promises; odd numbers are unknown, never wrong (M2)."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.clients import openai_compatible
from providers.clients.base import Usage
from providers.clients.openai_compatible import MAX_COST, MAX_COUNT, parse_chunk, read_usage


def plain(prompt=10, completion=5, **more) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def test_the_reference_shape():
    found = read_usage(
        plain(
            total_tokens=15,
            prompt_tokens_details={"cached_tokens": 4, "audio_tokens": 0},
            completion_tokens_details={"reasoning_tokens": 3},
        )
    )
    assert found == Usage(10, 5, 15, 4, None, 3, None)


@pytest.mark.parametrize("usage", [None, {}, [], "x", 7, plain(0, 0, total_tokens=0), {"cost": 0}, {"queue_time": 0.4}])
def test_usage_that_says_nothing_is_none(usage):
    """Gateways send zeros on every chunk before the real figures; the last one that says something counts."""
    assert read_usage(usage) is None


def test_a_missing_total_or_side_is_computed_where_it_is_certain():
    assert read_usage(plain()).total_tokens == 15
    assert read_usage({"prompt_tokens": 10, "total_tokens": 15}).completion_tokens == 5
    assert read_usage({"completion_tokens": 5, "total_tokens": 15}).prompt_tokens == 10
    assert read_usage(plain(total_tokens=3)).total_tokens == 15
    assert read_usage({"prompt_tokens": 10}) == Usage(10, None, None)


def test_responses_style_names_count_too():
    usage = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 2}}
    assert read_usage(usage) == Usage(10, 5, 15, 2)


def test_xai_counts_reasoning_beside_the_completion():
    found = read_usage(plain(12, 1, total_tokens=303, completion_tokens_details={"reasoning_tokens": 290}))
    assert (found.completion_tokens, found.reasoning_tokens, found.total_tokens) == (291, 290, 303)


def test_reasoning_that_does_not_fit_inside_the_completion_is_beside_it():
    found = read_usage(plain(12, 1, completion_tokens_details={"reasoning_tokens": 290}))
    assert (found.completion_tokens, found.total_tokens) == (291, 303)


@pytest.mark.parametrize(
    ("more", "cached", "written"),
    [
        ({"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3}, 7, None),  # DeepSeek
        ({"cached_tokens": 7}, 7, None),  # Together, Moonshot
        ({"prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 2}}, 7, 2),  # OpenRouter
        ({"claude_cache_tokens_details": {"cache_read_input_tokens": 7, "cache_creation_input_tokens": 2}}, 7, 2),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, None, None),  # Novita
    ],
)
def test_cached_tokens_are_read_under_every_name(more, cached, written):
    found = read_usage(plain(**more))
    assert (found.prompt_tokens, found.cached_tokens, found.cache_write_tokens) == (10, cached, written)


def test_claude_cache_tokens_that_cannot_be_inside_the_prompt_are_added_to_it():
    details = {"cache_read_input_tokens": 5000, "cache_creation_input_tokens": 100}
    found = read_usage(plain(20, 5, total_tokens=25, claude_cache_tokens_details=details))
    assert found == Usage(5120, 5, 5125, 5000, 100)


def test_cached_tokens_beyond_the_prompt_are_not_believed():
    assert read_usage(plain(prompt_tokens_details={"cached_tokens": 11})).cached_tokens is None


@pytest.mark.parametrize(
    ("more", "cost"),
    [
        ({"cost": 0.000837}, "0.000837"),
        ({"cost": Decimal("0.00076509169000000005")}, "0.00076509169000000005"),
        ({"cost": 0}, "0"),
        ({"cost": 2}, "2"),
        ({"cost": {"input_tokens_cost": 0.1, "total_cost": Decimal("0.006")}}, "0.006"),  # Perplexity
        ({"cost_in_usd_ticks": 1466250}, "0.000146625"),  # xAI
        ({"estimated_cost": 0.0002}, "0.0002"),  # DeepInfra
        ({"cost": None, "estimated_cost": 0.5}, "0.5"),
    ],
)
def test_the_providers_own_cost_is_read_exactly(more, cost):
    assert read_usage(plain(**more)).cost == Decimal(cost)


@pytest.mark.parametrize(
    "odd", [True, -1, float("nan"), float("inf"), "12", 10**30, 1.5, [], {}, Decimal("NaN"), Decimal("-1")]
)
def test_an_odd_count_is_unknown(odd):
    found = read_usage({"prompt_tokens": odd, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": odd}})
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (None, 5, None)


@pytest.mark.parametrize(
    "odd", [True, -0.1, float("nan"), float("inf"), "0.1", 10**30, [], Decimal("Infinity"), Decimal("1E+9")]
)
def test_an_odd_cost_is_unknown(odd):
    assert read_usage(plain(cost=odd)).cost is None
    assert read_usage(plain(cost_in_usd_ticks=odd)).cost in (None, Decimal("0.1"))


def test_a_whole_number_written_as_a_fraction_counts():
    assert read_usage(plain(12.0)).prompt_tokens == 12


def test_usage_may_hide_in_x_groq_or_in_the_choice():
    assert parse_chunk({"choices": [], "x_groq": {"usage": plain()}}).usage == Usage(10, 5, 15)
    assert parse_chunk({"choices": [{"delta": {}, "usage": plain()}]}).usage == Usage(10, 5, 15)


NUMBER = st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text("0123456789.-", max_size=4)
DETAILS = (
    st.none()
    | NUMBER
    | st.dictionaries(
        st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens", "cache_read_input_tokens"]), NUMBER
    )
)
USAGE = st.dictionaries(
    st.sampled_from(
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "reasoning_tokens",
            "cost",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cost_in_usd_ticks",
            "estimated_cost",
        ]
    ),
    NUMBER,
) | st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 50), "completion_tokens": st.integers(0, 50)},
    optional={
        "total_tokens": st.integers(0, 150),
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS,
        "claude_cache_tokens_details": DETAILS,
    },
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(USAGE)
def test_whatever_came_the_promises_of_usage_hold(usage):
    """M2: counts are whole, bounded, and parts are never larger than what they are part of."""
    found = read_usage(usage)
    if found is None:
        return
    counts = (
        found.prompt_tokens,
        found.completion_tokens,
        found.total_tokens,
        found.cached_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
    )
    assert all(count is None or (type(count) is int and 0 <= count <= 3 * MAX_COUNT) for count in counts)
    if found.prompt_tokens is not None:
        assert (found.cached_tokens or 0) + (found.cache_write_tokens or 0) <= found.prompt_tokens
    if found.completion_tokens is not None:
        assert (found.reasoning_tokens or 0) <= found.completion_tokens
    if found.prompt_tokens is not None and found.completion_tokens is not None:
        assert found.total_tokens >= found.prompt_tokens + found.completion_tokens
    assert found.cost is None or (isinstance(found.cost, Decimal) and 0 <= found.cost <= MAX_COST)


def test_a_count_of_five_thousand_digits_is_unknown():
    assert (
        read_usage(json.loads('{"prompt_tokens": ' + "9" * 4_000 + ', "completion_tokens": 1}')).prompt_tokens is None
    )


def test_the_short_cut_for_plain_usage_says_what_the_long_way_says(monkeypatch):
    """20,000 usage objects, most of them as OpenAI writes them or nearly so."""
    dice = random.Random(20261124)
    counts = (0, 1, 2, 5, 9, 10, 12, 14, 15, 24, 10**9, MAX_COUNT, MAX_COUNT + 1, -1, None, True, 9.0, "9", [], {})
    likely = (0, 5, 9, 10, 14, 15, 24)
    details = (
        "cached_tokens",
        "reasoning_tokens",
        "audio_tokens",
        "cache_write_tokens",
        "cache_creation_tokens",
        "odd",
    )
    more = ("cost", "cached_tokens", "input_tokens", "reasoning_tokens", "cost_in_usd_ticks", "cache_read_input_tokens")

    def count():
        return dice.choice(likely if dice.random() < 0.85 else counts)

    usages = []
    for _ in range(20_000):
        usage = {"prompt_tokens": count(), "completion_tokens": count()}
        both = [value for value in usage.values() if type(value) is int]
        usage["total_tokens"] = sum(both) if dice.random() < 0.8 else count()
        for name in ("prompt_tokens_details", "completion_tokens_details"):
            if dice.random() < 0.6:
                chosen = dice.sample(details, dice.randrange(3))
                usage[name] = dice.choice(({key: count() for key in chosen}, {key: count() for key in chosen}, None))
        for name in more:
            if dice.random() < 0.04:
                usage[name] = count()
        if dice.random() < 0.05:
            del usage[dice.choice(list(usage))]
        usages.append(usage)
    short = [read_usage(usage) for usage in usages]
    taken = sum(openai_compatible._plain_usage(usage) is not None for usage in usages)
    monkeypatch.setattr(openai_compatible, "_plain_usage", lambda usage: None)
    for usage, found in zip(usages, short, strict=True):
        assert found == read_usage(usage), usage
    assert 1_000 < taken < 16_000, taken
