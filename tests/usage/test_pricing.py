"""Cost = the provider's figure, else tokens × prices with one rounding, else unknown (design.md §5, M2, I13)."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.models import AggregatorModel
from providers.clients.base import Usage
from usage import pricing
from usage.pricing import Cost, cost_by_snapshot, cost_of, estimate_tokens, saved_by_cache, snapshot

D = Decimal
PRICES = {"input": D("3"), "output": D("15"), "cache_read": D("0.3"), "cache_write": D("3.75")}


@pytest.mark.parametrize(
    ("usage", "prices", "amount"),
    [
        # by hand, USD: tokens × price ÷ 1,000,000
        (Usage(1000, 100), PRICES, "0.0045"),  # 0.003 + 0.0015
        (Usage(1000, 100, cached_tokens=400), PRICES, "0.00342"),  # 600×3 + 400×0.3 + 100×15 = 3420
        (Usage(1000, 100, cached_tokens=400, cache_write_tokens=500), PRICES, "0.003795"),  # 100×3+120+1875+1500
        (Usage(1000, 100, cached_tokens=400), {"input": D(3), "output": D(15)}, "0.0045"),  # cache falls back to input
        (Usage(1000, 100, cache_write_tokens=400), {"input": D(3), "output": D(15)}, "0.0045"),
        (Usage(1000, 100, reasoning_tokens=60), PRICES, "0.0045"),  # reasoning is output
        (Usage(1000, 100, reasoning_tokens=60), {**PRICES, "reasoning": D(20)}, "0.0048"),  # 3000 + 40×15 + 60×20
        (Usage(1000, 100, reasoning_tokens=60), {**PRICES, "reasoning": D(0)}, "0.0045"),  # "0" means not priced apart
        (Usage(1000, 100), {**PRICES, "request": D("0.01")}, "0.0145"),
        (Usage(100, 10, cached_tokens=150), PRICES, "0.00018"),  # more cached than sent: clamped, 100×0.3 + 10×15
        (Usage(100, 10, cached_tokens=80, cache_write_tokens=80), PRICES, "0.000249"),  # 80×0.3 + 20×3.75 + 150
        (Usage(5, 0), {"input": D(3)}, "0.000015"),  # an embedding: no output price, no output
        (Usage(0, 0), {}, "0"),
        (Usage(None, 10, 110), PRICES, "0.00045"),  # prompt from the total: 100×3 + 150
        (Usage(100, None, 110), PRICES, "0.00045"),
        (Usage(1, 0), {"input": D("0.0000005"), "output": D(0)}, "0"),  # 0.5e-12: half to even, down
        (Usage(3, 0), {"input": D("0.0000005"), "output": D(0)}, "0.000000000002"),  # 1.5e-12: half to even, up
        (Usage(1, 1), {"input": D("0.0000005"), "output": D("0.0000005")}, "0.000000000001"),  # one rounding, not two
    ],
)
def test_cost_by_hand(usage, prices, amount):
    assert cost_of(usage, prices) == Cost(D(amount), "computed")


@pytest.mark.parametrize(
    ("usage", "prices", "kwargs"),
    [
        (Usage(1000, 100), {"input": D(3)}, {}),
        (Usage(1000, 100), {"output": D(3)}, {}),
        (Usage(1000, 100), {}, {}),
        (Usage(1000, None), PRICES, {}),
        (Usage(), PRICES, {}),
        (Usage(-5, 100), PRICES, {}),
        (Usage(1000, 100), PRICES, {"kind": "variable"}),
        (Usage(1000, 100), PRICES, {"is_token_priced": False}),
        (Usage(1000, 100), {"input": D(0), "output": D(0)}, {"is_token_priced": False, "kind": "free"}),
        (Usage(1000, 100), {"input": D("NaN"), "output": D(1)}, {}),
        (Usage(1000, 100), {"input": D(-1), "output": D(1)}, {}),  # "-1" is variable, and never multiplied
        (Usage(10**9, 100), {"input": D(2_000_000), "output": D(1)}, {}),  # beyond belief
    ],
)
def test_what_cannot_be_known_is_unknown_and_not_zero(usage, prices, kwargs):
    assert cost_of(usage, prices, **kwargs) == Cost(None, "unknown")


@pytest.mark.parametrize("kwargs", [{}, {"kind": "variable"}, {"is_token_priced": False}, {"is_estimated": True}])
def test_the_providers_own_figure_wins(kwargs):
    usage = Usage(1000, 100, cost=D("0.0133176"))
    assert cost_of(usage, PRICES, **kwargs) == Cost(D("0.0133176"), "provider")


def test_a_figure_of_zero_is_a_figure():
    assert cost_of(Usage(1000, 100, cost=D(0)), PRICES) == Cost(D(0), "provider")


@pytest.mark.parametrize("figure", [D("NaN"), D("-1"), D("1e9"), D("Infinity"), 0.5])
def test_an_absurd_figure_is_passed_over(figure):
    assert cost_of(Usage(1000, 100, cost=figure), PRICES) == Cost(D("0.0045"), "computed")


def test_free_is_zero_even_when_nobody_counted():
    assert cost_of(Usage(), {}, kind="free") == Cost(D(0), "computed")


def test_estimated_counts_give_an_estimated_cost():
    assert cost_of(Usage(1000, 100), PRICES, is_estimated=True) == Cost(D("0.0045"), "estimated")


TIER = {"min_prompt_tokens": 272000, "input": "5", "output": "22.5", "cache_read": "0.5"}


@pytest.mark.parametrize(
    ("prompt", "amount"),
    [(272_000, "0.8175"), (272_001, "1.362255")],  # 272000×3 + 100×15 = 817500; 272001×5 + 100×22.5 = 1362255
)
def test_a_tier_starts_above_its_limit(prompt, amount):
    assert cost_of(Usage(prompt, 100), PRICES, rules=[TIER]).amount == D(amount)


def test_later_rules_win_and_leave_other_prices_alone():
    rules = [{"min_prompt_tokens": "10", "input": "1"}, {"min_prompt_tokens": "100", "input": "2"}]
    assert cost_of(Usage(1000, 100), PRICES, rules=rules).amount == D("0.0035")  # 1000×2 + 100×15


@pytest.mark.parametrize(
    ("clock", "holds"),
    [("16:29", False), ("16:30", True), ("23:59", True), ("00:29", True), ("00:30", False)],
)
def test_a_window_may_pass_midnight(clock, holds):
    rule = {"utc_start": "1630", "utc_end": "0030", "input": "1"}
    at = datetime.fromisoformat(f"2026-11-24T{clock}:00+00:00")
    assert cost_of(Usage(1000, 0), PRICES, rules=[rule], at=at).amount == (D("0.001") if holds else D("0.003"))


def test_a_window_is_judged_in_utc_and_never_without_a_time():
    rule = {"utc_start": 800, "utc_end": 900, "input": "1"}
    at = datetime.fromisoformat("2026-11-24T10:30:00+02:00")
    assert cost_of(Usage(1000, 0), PRICES, rules=[rule], at=at).amount == D("0.001")
    assert cost_of(Usage(1000, 0), PRICES, rules=[rule]).amount == D("0.003")


@pytest.mark.parametrize(
    "rule", [{"min_prompt_tokens": "x", "input": "1"}, {"utc_start": "99:99", "input": "1"}, "rule", {"input": "-1"}]
)
def test_a_rule_that_cannot_be_read_does_not_hold(rule):
    assert cost_of(Usage(1000, 0), PRICES, rules=[rule], at=datetime.now(UTC)).amount == D("0.003")


_tokens = st.integers(0, 2_000_000)
_price = st.one_of(st.none(), st.integers(0, 10**15).map(lambda n: D(n) / 10**12))


@given(prompt=_tokens, completion=_tokens, cached=_tokens, written=_tokens, reasoning=_tokens,
       prices=st.fixed_dictionaries(dict.fromkeys(("input", "output", "cache_read", "cache_write", "reasoning"), _price)))  # fmt: skip
@example(
    prompt=1, completion=1, cached=0, written=0, reasoning=0, prices=dict.fromkeys(("input", "output"), D("0.0000005"))
)
def test_every_cost_equals_exact_fractions_rounded_once(prompt, completion, cached, written, reasoning, prices):
    """The oracle: exact rational arithmetic, and Python's round(), which is half to even."""
    cost = cost_of(Usage(prompt, completion, None, cached, written, reasoning), prices)
    cached = min(cached, prompt)
    written = min(written, prompt - cached)
    reasoning = min(reasoning, completion) if prices.get("reasoning") else 0

    def either(key, other):
        return prices[other] if prices.get(key) is None else prices[key]

    parts = [
        (prompt - cached - written, prices["input"]),
        (cached, either("cache_read", "input")),
        (written, either("cache_write", "input")),
        (completion - reasoning, prices["output"]),
        (reasoning, prices.get("reasoning")),
    ]
    if any(n and price is None for n, price in parts):
        assert cost == pricing.UNKNOWN
        return
    exact = sum((n * Fraction(price) for n, price in parts if n), Fraction(0)) / 1_000_000
    units = round(exact * 10**12)
    if units > 1000 * 10**12:
        assert cost == pricing.UNKNOWN
    else:
        assert cost.source == "computed"
        assert Fraction(cost.amount) == Fraction(units, 10**12)


_odd = st.one_of(st.none(), st.integers(), st.floats(), st.decimals(), st.text(max_size=5), st.booleans())


@pytest.mark.slow
@given(counts=st.lists(_odd, min_size=6, max_size=6), cost=_odd, prices=st.dictionaries(st.sampled_from(pricing.PRICE_KEYS), _odd),
       rules=st.lists(st.dictionaries(st.sampled_from([*pricing.PRICE_KEYS, "min_prompt_tokens", "utc_start", "utc_end"]), _odd)))  # fmt: skip
def test_nothing_an_upstream_says_breaks_the_arithmetic(counts, cost, prices, rules):
    """M2, F11: always a finite amount from 0 to the cap, or unknown."""
    result = cost_of(Usage(*counts, cost=cost), prices, rules=rules, at=datetime.now(UTC))
    assert result.amount is None or (result.amount.is_finite() and 0 <= result.amount <= pricing.MAX_CALL_USD)
    assert 0 <= saved_by_cache(Usage(*counts), prices, rules=rules) <= pricing.MAX_CALL_PICO


def test_the_snapshot_is_strings_and_gives_the_same_cost_later():
    model = AggregatorModel(
        model_type="chat", price_kind="known", price_input=D("0.27"), price_output=D("0.000001"), price_cache_read=None,
        pricing_rules=[{"min_prompt_tokens": 10, "input": "0.5"}],
    )  # fmt: skip
    noted = snapshot(model)
    assert noted == {
        "kind": "known", "type": "chat", "input": "0.27", "output": "0.000001",
        "rules": [{"min_prompt_tokens": "10", "input": "0.5"}],
    }  # fmt: skip
    model.price_input = D(99)
    assert cost_by_snapshot(Usage(1_000_000, 0), noted) == Cost(D("0.5"), "computed")
    assert cost_by_snapshot(Usage(10, 0), noted) == Cost(D("0.0000027"), "computed")


@pytest.mark.parametrize("model_type", ["image", "video", "audio", "rerank", "other"])
def test_placeholder_prices_of_what_is_not_sold_by_the_token_are_not_used(model_type):
    """upstreams.md §1.3: {"input": 2, "output": 0} on image models is no token price."""
    noted = snapshot(AggregatorModel(model_type=model_type, price_kind="known", price_input=D(2), price_output=D(0)))
    assert cost_by_snapshot(Usage(1000, 0), noted) == pricing.UNKNOWN


def test_what_the_cache_saved():
    assert saved_by_cache(Usage(1000, 0, cached_tokens=400), PRICES) == 1_080_000_000  # 10⁻¹² USD: 400 × 2.7
    assert saved_by_cache(Usage(100, 0, cached_tokens=400), PRICES) == 270_000_000  # no more than was sent
    assert saved_by_cache(Usage(1000, 0, cached_tokens=400), {"input": D(3)}) == 0


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100), (-3, 0)])
def test_an_estimate_is_one_token_for_four_bytes(size, tokens):
    assert estimate_tokens(size) == tokens


def test_a_cost_cannot_claim_to_be_unknown_and_have_an_amount():
    with pytest.raises(ValueError, match="unknown"):
        Cost(D(0), "unknown")
    with pytest.raises(ValueError, match="unknown"):
        Cost(None, "computed")
