"""Refusals in every shape, mapped in one table (F9), and upstream text made fit to keep and show (K5)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.clients.errors import CODES, ProviderBroken, ProviderRefused, excerpt, from_answer, has_error, redact

KEY = "sk-live-0123456789abcdef"


def said(status: int, body, headers=None, secrets=()):
    return from_answer(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode(), secrets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        (400, "bad_request", True), (401, "key_rejected", True), (402, "no_balance", True), (403, "forbidden", True),
        (404, "unexpected_content", True), (408, "timeout", False), (413, "too_large", True), (418, "bad_request", True),
        (422, "bad_request", True), (429, "rate_limited", False), (500, "upstream_error", False),
        (502, "upstream_error", False), (503, "overloaded", False), (504, "timeout", False), (529, "overloaded", False),
        (524, "timeout", False), (301, "unexpected_redirect", True), (307, "unexpected_redirect", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"<html><h1>Oh no</h1></html>", b'{"error":{}}', b"\xff\xfe", b"[]"]
)
def test_a_status_means_the_same_whatever_the_body_lacks(status, code, permanent, body):
    """F9."""
    error = said(status, body)
    assert (error.code, error.permanent, error.status) == (code, permanent, status)


@pytest.mark.parametrize(
    ("status", "body", "code", "detail"),
    [
        (401, "Invalid token", "key_rejected", "Invalid token"),  # SiliconFlow: a bare string
        (403, {"code": 20012, "message": "no", "data": None}, "forbidden", "no"),
        (429, {"message": "slow", "data": None}, "rate_limited", "slow"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, "bad_request", "field required"),  # FastAPI
        (422, {"object": "error", "message": {"detail": [{"msg": "extra"}]}}, "bad_request", "extra"),  # Mistral
        (400, {"code": "x", "error": "Incorrect API key provided: sk-12***9"}, "key_rejected", "Incorrect API key provided: [key]"),
        (404, {"error": {"message": 'model "m" not found, try pulling it first', "type": "not_found_error"}}, "model_not_found", "model"),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, "no_balance", "You"),
        (429, {"error": {"message": "x", "code": "429", "type": "throttling_error"}}, "rate_limited", "x"),  # LiteLLM
        (400, {"error": {"message": "x", "type": "budget_exceeded", "code": "400"}}, "no_balance", "x"),
        (402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}, "no_balance", "Insuf"),
        (403, {"error": {"code": 403, "message": "no", "metadata": {"reasons": ["x"], "flagged_input": "y"}}}, "content_filtered", "no"),
        (400, {"error": {"message": "This model's maximum context length is 8192 tokens."}}, "context_length_exceeded", "This"),
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, "context_length_exceeded", "x"),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "overloaded", "Loading"),
        (400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}], "key_rejected", "API"),
        (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}, "rate_limited", "x"),
        (503, {"error": {"message": "Incorrect model ID. Please …"}}, "model_not_found", "Incorrect"),
        (400, {"error": {"message": "The model does not support image input"}}, "bad_request", "The"),
        (502, {"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"inner"}}'}}}, "upstream_error", "Provider returned error: inner"),
        (410, {"error": {"message": "gone", "code": "model_retired"}}, "model_not_found", "gone"),
    ],
)  # fmt: skip
def test_shapes_of_many_vendors(status, body, code, detail):
    error = said(status, body)
    assert error.code == code
    assert error.detail.startswith(detail)


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"error": {"code": 429, "message": "slow"}}, "rate_limited", 429),
        ({"error": {"code": "401", "message": "x"}}, "key_rejected", 401),
        ({"error": {"status_code": 400, "message": "x"}}, "bad_request", 400),
        ({"error": "something"}, "upstream_error", 200),
        ({"success": False, "message": "Failed to retrieve token"}, "key_rejected", 200),
        ({"choices": None, "base_resp": {"status_code": 1, "status_msg": "rate limit"}}, "rate_limited", 200),
    ],
)
def test_an_error_with_status_200_counts_by_what_it_says(body, code, status):
    """F8."""
    error = said(200, body)
    assert isinstance(error, ProviderRefused)
    assert (error.code, error.status) == (code, status)
    assert has_error(body)


@pytest.mark.parametrize(
    "body", [{"error": None}, {"choices": []}, [], "x", 1, {"success": True}, {"base_resp": {"status_code": 0}}]
)
def test_what_is_no_error(body):
    assert not has_error(body)


def test_the_upstream_may_say_that_trying_again_helps_or_not():
    body = {"error": {"code": 503, "message": "x", "availability": {"retryable": False, "retry_after": 9}}}
    error = said(503, body)
    assert (error.permanent, error.retry_after) == (True, 9.0)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e999", "-1e999"])
def test_a_time_to_wait_that_no_float_can_hold_is_no_crash_f11(number):
    body = b'{"error":{"message":"x","metadata":{"retry_after":%b}}}' % number.encode()
    error = said(429, body)
    assert error.code == "rate_limited"
    assert error.retry_after in (None, 0.0, 86_400.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(headers, seconds):
    assert said(429, {}, headers).retry_after == seconds


def test_retry_after_as_a_date_to_come():
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 97 <= said(503, {}, {"retry-after": when}).retry_after <= 101


# --- K5 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"bad key {KEY}",
        f"bad key {KEY[:9]}\u200b{KEY[9:]}",
        f"bad key {KEY[:9]}\x00{KEY[9:]}",
        f"Authorization: Bearer {KEY}",
        "x" * 280 + KEY,
        "x" * 299 + KEY,
        f"https://x/?key={KEY.replace('-', '%2D')}",
        f'{{"headers": {{"authorization": "Bearer {KEY}"}}}}',
    ],
)
def test_the_own_key_is_cut_from_upstream_text(text):
    """K5: also when invisible characters or the length limit would split it."""
    found = redact(text, [KEY])
    assert KEY not in found
    assert "0123456789" not in found
    assert len(found) <= 300


@pytest.mark.parametrize(
    "secret",
    ["sk-or-v1-abcdef0123456789", "sk-proj-ab**********yz", "gsk_abcdefgh12345678", "xai-abcdefgh1234", "AIzaSyA1234567890abcdef",
     "Bearer abcdefgh", "api-key: abcdefgh12", 'Authorization":"Basic dXNlcjpwYXNz', "hf_abcdefghijkl", "x-api-key=abcdefgh"],
)  # fmt: skip
def test_anything_shaped_like_a_key_is_cut(secret):
    found = redact(f"Incorrect: {secret}, see docs")
    assert "[key]" in found
    assert re.search(r"abcdef|dXNl|ab\*", found) is None
    assert found.endswith("see docs")


def test_ordinary_words_stay():
    text = "The model `sk` is at risk-free capacity; use max_completion_tokens."
    assert redact(text) == text


def test_control_and_direction_characters_go_and_lines_become_one():
    assert redact("a\x00b\x1b[31m\u202ec\r\nd\te\u2028f") == "ab[31mc d e f"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=700), st.integers(0, 700))
def test_redacted_text_is_short_printable_and_without_the_key(text, at):
    found = redact(text[:at] + KEY + text[at:], [KEY])
    assert KEY not in found
    assert len(found) <= 300
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in found)
    found.encode()


def test_a_page_is_quoted_without_its_tags_and_scripts():
    page = b"<html><head><title>502</title><style>b{}</style><script>alert(1)</script></head><!-- x --><h1>Bad</h1>"
    assert excerpt(page) == "502 Bad"
    assert len(excerpt(b"<" * 20_000)) == 300


@pytest.mark.parametrize("start", [b"<script>", b"<!--", b"<a ", b"<"])
def test_a_hostile_page_costs_no_time(start):
    """F12: 16 kB of unfinished tags, in linear time (0.6 ms when written)."""
    began = datetime.now(UTC)
    for _ in range(20):
        excerpt(start * 20_000)
    assert (datetime.now(UTC) - began).total_seconds() < 3


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "message",
                    "code",
                    "type",
                    "metadata",
                    "raw",
                    "detail",
                    "choices",
                    "base_resp",
                    "availability",
                    "msg",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(200, 599),
    JUNK,
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=9)),
)
def test_no_refusal_can_break_the_table(status, body, headers):
    """F11."""
    error = from_answer(status, headers, body, [KEY])
    assert error.code in CODES
    assert isinstance(error, ProviderRefused | ProviderBroken)
    assert error.retry_after is None or 0 <= error.retry_after <= 86_400
    assert error.public_message
    assert from_answer(status, headers, json.dumps(body).encode()).code in CODES


def test_errors_quote_no_detail_in_repr_and_str():
    """K4: what lands in logs and tracebacks is code and status."""
    error = said(401, {"error": {"message": "secret words"}})
    assert "secret" not in repr(error) + str(error)
