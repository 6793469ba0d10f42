"""Money with the precision it deserves (design.md §8); unknown is never shown as zero (I13)."""

from decimal import Decimal

import pytest
from django.template import Context, Template
from hypothesis import given
from hypothesis import strategies as st

from usage.templatetags.money import milliseconds, per_million, tokens, usd, usd_at_most


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.00042", "$0.00042"),
        ("0.0061", "$0.0061"),
        ("0.000000833333", "$0.00000083"),
        ("0.000000000001", "$0.000000000001"),
        ("0.006", "$0.006"),
        ("0.00999", "$0.01"),
        ("0.01", "$0.01"),
        ("0.0124", "$0.0124"),
        ("0.087", "$0.087"),
        ("0.09996", "$0.10"),
        ("0.31", "$0.31"),
        ("0.3149", "$0.31"),
        ("0.999", "$1.00"),
        ("12.34", "$12.34"),
        ("12.345", "$12.34"),
        ("1234.5", "$1,234.50"),
        ("9000000", "$9,000,000.00"),
        ("-4.08", "−$4.08"),
        ("1E-7", "$0.0000001"),
        ("0", "free"),
    ],
)
def test_an_amount_shows_as_many_digits_as_it_deserves(amount, text):
    assert usd(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.00252", "$0.0026"),
        ("0.0025", "$0.0025"),
        ("0.00991", "$0.01"),
        ("0.08701", "$0.0871"),
        ("0.31000001", "$0.32"),
        ("12.34", "$12.34"),
        ("0", "free"),
    ],
)
def test_what_at_most_stands_before_is_never_less_than_the_amount(amount, text):
    assert usd_at_most(Decimal(amount)) == text


def test_unknown_is_said_and_zero_can_be_a_sum():
    assert usd(None) == "unknown"
    assert usd(Decimal("NaN")) == "unknown"
    assert usd(0.5) == "unknown"  # a float is never money
    assert usd(Decimal(0), "$0.00") == "$0.00"
    assert usd(Decimal("0.5"), "$0.00") == "$0.50"


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ("0.27", "$0.27"),
        ("15", "$15.00"),
        ("0.075", "$0.075"),
        ("0.0375", "$0.0375"),
        ("82.5", "$82.50"),
        ("1234.5", "$1,234.50"),
        ("0.08333333333333334", "$0.08333"),
        ("0", "free"),
        ("-1", "unknown"),
    ],
)
def test_a_price_per_million(price, text):
    assert per_million(Decimal(price)) == text


def test_an_unknown_price_is_not_zero():
    assert per_million(None) == "unknown"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999, "999"),
        (1000, "1k"),
        (1234, "1.2k"),
        (18_000, "18k"),
        (18_400, "18k"),
        (88_123, "88k"),
        (128_000, "128k"),
        (131_072, "131k"),
        (999_400, "999k"),
        (999_950, "1M"),
        (1_000_000, "1M"),
        (1_050_000, "1.05M"),
        (1_048_576, "1.05M"),
        (6_100_000, "6.1M"),
        (14_800_000, "14.8M"),
        (2_500_000_000, "2.5B"),
        (None, "–"),
        (-3, "–"),
    ],
)
def test_token_counts_are_short(count, text):
    assert tokens(count) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (45, "45 ms"),
        (50, "50 ms"),
        (51, "0.1 s"),
        (80, "0.1 s"),
        (800, "0.8 s"),
        (9_940, "9.9 s"),
        (9_960, "10 s"),
        (12_345, "12 s"),
        (59_600, "1 min 0 s"),
        (125_000, "2 min 5 s"),
        (3_725_000, "1 h 2 min"),
        (None, "–"),
    ],
)
def test_durations_are_told_in_seconds(ms, text):
    assert milliseconds(ms) == text


@given(st.decimals(min_value=0, max_value=9_000_000, places=12, allow_nan=False))
def test_no_amount_is_ever_scientific_or_rounded_to_nothing(amount):
    """I13: what costs something never shows as zero."""
    text = usd(amount)
    assert "E" not in text
    assert "e" not in text.replace("free", "")
    shown = Decimal(0) if text == "free" else Decimal(text[1:].replace(",", ""))
    assert (shown == 0) == (amount == 0)
    assert abs(shown - amount) <= amount * Decimal("0.05")


def test_the_filters_load_in_a_template():
    text = Template('{% load money %}{{ a|usd }} {{ z|usd:"$0.00" }} {{ n|tokens }} {{ p|per_million }}').render(
        Context({"a": Decimal("0.0061"), "z": Decimal(0), "n": 128_000, "p": Decimal("0.27")})
    )
    assert text == "$0.0061 $0.00 128k $0.27"
