"""P1 on `/v1`: what the strict reader takes, and what it refuses with a stable code."""

import json

import pytest

from chat.api.errors import ANSWERS, ApiError, from_provider
from chat.api.schemas import MAX_DEPTH, ROUTING_FIELDS, read_chat_request, read_json
from providers.clients.errors import CODES, ProviderRefused, ProviderUnreachable


def chat(**extra):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **extra}).encode()


def refusal(raw, reader=read_json):
    with pytest.raises(ApiError) as caught:
        reader(raw)
    return caught.value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"a":0.' + b"9" * 5_000 + b"}",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":2}}',
        b"\xff\xfe{}",
        b'{"a":"\xff"}',
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b'{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
    ],
)
def test_p1_a_body_that_is_not_strict_json_is_a_400(raw):
    error = refusal(raw)
    assert (error.status, error.code) == (400, "invalid_json")
    assert json.loads(error.body())["error"].keys() == {"message", "type", "param", "code"}


def test_brackets_inside_strings_are_text():
    text = '[{"' * 500 + "\\"
    assert read_json(json.dumps({"a": text}).encode()) == {"a": text}


def test_deep_but_allowed():
    raw = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert "a" in read_json(raw)


def test_a_lone_surrogate_passes_and_can_be_sent_on():
    value = read_json(b'{"a":"\\ud800"}')
    assert json.dumps(value) == '{"a": "\\ud800"}'


def test_large_integers_keep_every_digit():
    assert read_json(b'{"seed":18446744073709551616}')["seed"] == 2**64


@pytest.mark.parametrize("name", sorted(ROUTING_FIELDS))
def test_s4_a_field_that_would_route_the_request_is_refused_by_name(name):
    error = refusal(chat(**{name: "http://127.0.0.1:1/"}), read_chat_request)
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", name)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"messages":[{"role":"user"}]}', "model"),
        (b'{"model":5,"messages":[{"role":"user"}]}', "model"),
        (b'{"model":"","messages":[{"role":"user"}]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m","messages":{"role":"user"}}', "messages"),
        (b'{"model":"m","messages":["hi"]}', "messages[0]"),
        (b'{"model":"m","messages":[{"role":1}]}', "messages[0]"),
        (b'{"model":"m","messages":[{"role":"user","content":5}]}', "messages[0].content"),
        (chat(stream="yes"), "stream"),
        (chat(stream_options=[]), "stream_options"),
    ],
)
def test_a_wrong_field_is_named(raw, param):
    error = refusal(raw, read_chat_request)
    assert (error.status, error.param) == (400, param)


def test_unknown_fields_pass_untouched():
    request = read_chat_request(chat(reasoning={"effort": "low"}, top_k=5, provider={"order": ["x"]}))
    assert request.body["reasoning"] == {"effort": "low"} and request.body["provider"] == {"order": ["x"]}


def test_usage_is_asked_for_only_when_it_is():
    assert read_chat_request(chat(stream=True)).include_usage is False
    assert read_chat_request(chat(stream=True, stream_options={"include_usage": True})).include_usage is True


def test_every_provider_code_has_an_answer_and_a_providers_401_is_not_ours():
    assert set(CODES) <= set(ANSWERS)
    assert from_provider(ProviderRefused("key_rejected", status=401)).status == 502


def test_what_must_not_be_retried_says_so():
    empty = from_provider(ProviderRefused("no_balance", status=403))
    assert (empty.status, empty.headers()["x-should-retry"]) == (402, "false")
    busy = from_provider(ProviderRefused("rate_limited", status=429, retry_after=7.2, permanent=False))
    assert (busy.status, busy.headers()["x-should-retry"], busy.headers()["retry-after"]) == (429, "true", "7")
    assert from_provider(ProviderUnreachable("unreachable")).headers()["x-should-retry"] == "true"
