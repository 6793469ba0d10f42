"""The OpenAI-compatible client at work: headers, streams, answers in one piece, the one retry."""

from __future__ import annotations

import json
from contextlib import aclosing
from decimal import Decimal

import pytest

from providers.clients import registry
from providers.clients.errors import ProviderBroken, ProviderError, ProviderRefused, ProviderUnreachable

from .conftest import KEY, Answer

HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
BODY = {"model": "vendor/model:x", "messages": [{"role": "user", "content": "hi"}]}
NO_MAX_TOKENS = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
}


def client(**more):
    return registry.create("openai_compatible", **{"base_url": "https://upstream.test/v1", "api_key": KEY, **more})


async def collect(stream) -> list:
    async with aclosing(stream):
        return [frame async for frame in stream]


async def collect_until_error(stream) -> tuple[str, ProviderError]:
    text = ""
    with pytest.raises(ProviderError) as caught:
        async with aclosing(stream):
            async for frame in stream:
                text += frame.delta.text
    return text, caught.value


async def test_a_stream_is_asked_for_with_usage_whatever_the_body_says(upstream):
    upstream.answers = [Answer(HELLO + STOP + DONE)]
    body = {
        **BODY,
        "stream": False,
        "stream_options": {"x": 1, "include_usage": False},
        "top_k": 4,
        "provider": {"sort": "price"},
    }
    frames = await collect(client().stream(body))
    assert "".join(frame.delta.text for frame in frames) == "Hello"
    (call,) = upstream.calls
    assert (call.method, call.url) == ("POST", "https://upstream.test/v1/chat/completions")
    assert call.body == {**body, "stream": True, "stream_options": {"x": 1, "include_usage": True}}
    assert call.headers == {
        "Accept": "text/event-stream",
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
    }
    assert body["stream"] is False


async def test_no_key_means_no_authorization_header(upstream):
    upstream.answers = [Answer(DONE)]
    await collect(client(api_key="").stream(BODY))
    assert "Authorization" not in upstream.calls[0].headers


async def test_extra_headers_go_along_and_replace_none_of_ours(upstream):
    """S10: and none that steer the connection, in any spelling, nor any that could not be sent."""
    upstream.answers = [Answer(DONE)]
    extra = {
        "HTTP-Referer": "https://app.test",
        "APP-Code": "abc",
        "authorization": "Bearer other",
        "HOST": "evil.test",
        "Content-Length": "0",
        "Transfer-Encoding": "chunked",
        "content-type": "text/plain",
        "Cookie": "a=b",
        "Accept": "x",
        "Proxy-Authorization": "x",
        "Connection": "close",
        "X-Bad": "a\r\nHost: evil",
        "X Bad": "a",
        "X-Umlaut": "ä",
        "": "x",
        "X-Number": 7,
    }
    await collect(client(extra_headers=extra).stream(BODY))
    assert upstream.calls[0].headers == {
        "HTTP-Referer": "https://app.test",
        "APP-Code": "abc",
        "Accept": "text/event-stream",
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize("key", ["sk-a b", "sk-a\r\nX: y", "sk-ä", "sk-\x00", "sk-a\n"])
async def test_a_key_that_is_no_header_is_never_sent(upstream, key):
    """S10."""
    with pytest.raises(ProviderRefused) as caught:
        await collect(client(api_key=key).stream(BODY))
    assert caught.value.code == "key_rejected"
    assert upstream.calls == []


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 504, 529])
async def test_a_refusal_is_raised_before_the_first_frame_and_not_tried_again(upstream, status):
    """F9."""
    upstream.answers = [Answer({"error": {"message": f"no, {KEY}"}}, status, {"retry-after": "7"})]
    text, error = await collect_until_error(client().stream(BODY))
    assert (text, error.status, error.retry_after) == ("", status, 7.0)
    assert error.detail == "no, [key]"
    assert len(upstream.calls) == 1
    assert upstream.open_streams == 0


async def test_max_tokens_becomes_max_completion_tokens_once(upstream):
    upstream.answers = [Answer(NO_MAX_TOKENS, 400), Answer(HELLO + STOP + DONE)]
    frames = await collect(client().stream({**BODY, "max_tokens": 50}))
    assert len(frames) == 3
    first, second = (call.body for call in upstream.calls)
    assert first["max_tokens"] == 50
    assert "max_tokens" not in second
    assert second["max_completion_tokens"] == 50
    assert upstream.open_streams == 0


@pytest.mark.parametrize("status", [400, 200])
async def test_the_one_retry_is_one(upstream, status):
    upstream.answers = [Answer(NO_MAX_TOKENS, 400), Answer(NO_MAX_TOKENS, status)]
    _, error = await collect_until_error(client().stream({**BODY, "max_tokens": 50}))
    assert error.code == "bad_request"
    assert len(upstream.calls) == 2


async def test_without_max_tokens_in_the_request_nothing_is_tried_again(upstream):
    upstream.answers = [Answer(NO_MAX_TOKENS, 400)]
    await collect_until_error(client().stream(BODY))
    assert len(upstream.calls) == 1


async def test_stream_options_are_dropped_for_who_does_not_know_them(upstream):
    refusal = {"object": "error", "message": {"detail": [{"msg": "Extra inputs are not permitted: stream_options"}]}}
    upstream.answers = [Answer(refusal, 422), Answer(STOP)]
    assert len(await collect(client().stream(BODY))) == 1
    assert "stream_options" not in upstream.calls[1].body
    assert upstream.calls[1].body["stream"] is True


async def test_a_cut_keeps_the_text_and_is_interrupted(upstream):
    """F5, F6."""
    for cut in (ProviderUnreachable("unreachable"), ProviderBroken("interrupted")):
        upstream.answers = [Answer(pieces=[HELLO, b'data: {"choices":[{"delta":{"content":"l', cut])]
        text, error = await collect_until_error(client().stream(BODY))
        assert (text, error.code) == ("Hel", "interrupted")
        assert len(upstream.calls) == 1
        upstream.calls.clear()


async def test_a_whole_event_before_the_cut_still_counts(upstream):
    upstream.answers = [Answer(pieces=[HELLO, STOP.rstrip(b"\n"), ProviderBroken("interrupted")])]
    frames = await collect(client().stream(BODY))
    assert "".join(frame.delta.text for frame in frames) == "Hello"


async def test_a_connection_that_breaks_after_the_finish_reason_breaks_nothing(upstream):
    upstream.answers = [Answer(pieces=[HELLO + STOP, ProviderBroken("interrupted")])]
    assert len(await collect(client().stream(BODY))) == 2


async def test_a_deadline_in_mid_stream_stays_a_timeout(upstream):
    """F3, F4."""
    upstream.answers = [Answer(pieces=[HELLO, ProviderUnreachable("timeout")])]
    text, error = await collect_until_error(client().stream(BODY))
    assert (text, error.code) == ("Hel", "timeout")


async def test_what_never_came_is_unreachable(upstream):
    """F1."""
    upstream.answers = [ProviderUnreachable("unreachable")]
    _, error = await collect_until_error(client().stream(BODY))
    assert error.code == "unreachable"


async def test_an_error_frame_then_a_cut_is_told_once(upstream):
    """F8."""
    upstream.answers = [Answer(pieces=[HELLO, b'data: {"error":{"message":"x"}}\n\n', ProviderBroken("interrupted")])]
    frames = await collect(client().stream(BODY))
    assert frames[-1].delta.error.code == "upstream_error"


async def test_reading_stops_at_done(upstream):
    """What follows is not even fetched: the piece after it would raise."""
    upstream.answers = [Answer(pieces=[HELLO + DONE, ProviderBroken("response_too_large")])]
    frames = await collect(client().stream(BODY))
    assert frames[-1].done
    assert upstream.open_streams == 0


async def test_leaving_early_closes_the_upstream(upstream):
    upstream.answers = [Answer(pieces=[HELLO, STOP, DONE])]
    async with aclosing(client().stream(BODY)) as stream:
        async for _ in stream:
            break
    assert upstream.open_streams == 0


async def test_a_refusal_whose_body_breaks_off_keeps_its_status(upstream):
    upstream.answers = [Answer(pieces=[b'{"err', ProviderBroken("interrupted")], status=503)]
    _, error = await collect_until_error(client().stream(BODY))
    assert (error.code, error.status) == ("overloaded", 503)


async def test_an_endless_event_is_cut_off(upstream):
    """F12."""
    upstream.answers = [Answer(pieces=[HELLO, b"data: ", *[b"x" * 100_000] * 30])]
    text, error = await collect_until_error(client().stream(BODY))
    assert (text, error.code) == ("Hel", "response_too_large")


async def test_half_surrogate_pairs_in_the_request_are_sent_as_escapes(upstream):
    upstream.answers = [Answer(DONE)]
    body = {**BODY, "messages": [{"role": "user", "content": "a\ud83c"}]}
    await collect(client().stream(body))
    assert upstream.calls[0].body["messages"] == body["messages"]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), {1, 2}])
async def test_a_request_that_is_no_json_is_refused_here(upstream, odd):
    _, error = await collect_until_error(client().stream({**BODY, "temperature": odd}))
    assert error.code == "bad_request"
    assert upstream.calls == []


async def test_timeouts_come_from_the_options_where_they_make_sense(upstream):
    upstream.answers = [Answer(DONE)]
    options = {"header_timeout": 300, "idle_timeout": -1, "total_timeout": "9"}
    await collect(client(options=options).stream(BODY))
    assert upstream.limits == {"header_timeout": 300.0}


# --- one piece -------------------------------------------------------------------------------------------------------

WHOLE = {
    "id": "x",
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "<think>hm</think>Hello"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


async def test_an_answer_in_one_piece(upstream):
    text = json.dumps(WHOLE).replace('"total_tokens": 5', '"total_tokens": 5, "cost": 0.0076509169000000005')
    upstream.answers = [Answer(b"\n\n\n" + text.encode())]  # DeepSeek sends blank lines while it is busy
    document, delta, _ = await client().complete({**BODY, "stream": True, "stream_options": {"include_usage": True}})
    assert document["choices"] == WHOLE["choices"]
    assert (delta.text, delta.reasoning, delta.finish_reason) == ("Hello", "hm", "stop")
    assert delta.usage.cost == Decimal("0.0076509169000000005")
    assert upstream.calls[0].body == {**BODY, "stream": False}


async def test_an_echoed_key_is_cut_from_an_answer_in_one_piece(upstream):
    """K5."""
    upstream.answers = [Answer({"choices": [{"message": {"content": f"your key: {KEY}"}, "finish_reason": "stop"}]})]
    document, delta, _ = await client().complete(BODY)
    assert delta.text == "your key: [key]"
    assert KEY not in str(document)


async def test_an_echoed_extra_header_is_cut_from_a_stream_as_from_an_answer_in_one_piece_k5(upstream):
    secret = "gateway-pass-0123456789"
    sender = client(extra_headers={"X-Gateway-Token": secret, "X-Team": "a-team-of-no-secret"})
    told = f"{secret} a-team-of-no-secret"
    upstream.answers = [
        Answer(HELLO.replace(b"Hel", told.encode()) + STOP + DONE),
        Answer({"choices": [{"message": {"content": told}, "finish_reason": "stop"}]}),
    ]
    frames = await collect(sender.stream(BODY))
    assert "".join(frame.delta.text for frame in frames) == "[key] a-team-of-no-secretlo"
    assert secret.encode() not in b"".join(frame.raw for frame in frames)
    assert (await sender.complete(BODY)).delta.text == "[key] a-team-of-no-secret"


async def test_bytes_that_are_no_utf8_are_replaced_in_an_answer_in_one_piece_as_in_a_stream_f10(upstream):
    answer = (
        b'{"choices":[{"message":{"role":"assistant","content":"a\xff\xed\xa0\x80 \xc3\xa9"},"finish_reason":"stop"}]}'
    )
    upstream.answers = [Answer(answer)]
    _, delta, raw = await client().complete(BODY)
    assert delta.text == "a\ufffd\ufffd\ufffd\ufffd é"
    assert json.loads(raw.decode("utf-8"))["choices"][0]["message"]["content"] == delta.text


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer({"error": {"code": 429, "message": "x"}}), "rate_limited"),
        (Answer({"choices": None, "usage": {"total_tokens": 0}}), "upstream_error"),
        (Answer({"choices": []}), "upstream_error"),
        (Answer({"choices": [{"error": {"code": 502, "message": "x"}, "message": {"content": ""}}]}), "upstream_error"),
        (Answer({"hello": 1}), "unexpected_content"),
        (Answer([]), "unexpected_content"),
        (Answer(b"<html>"), "unexpected_content"),
        (Answer(b""), "unexpected_content"),
        (Answer(HELLO + DONE), "unexpected_content"),
        (Answer(b'{"choices":[{"message":{"content":NaN}}]}'), "unexpected_content"),
        (Answer({"error": {"message": "x"}}, 503), "overloaded"),
        (Answer(b"", 302), "unexpected_redirect"),
    ],
)
async def test_answers_in_one_piece_that_are_none(upstream, answer, code):
    """F7, F8, F11."""
    upstream.answers = [answer]
    with pytest.raises(ProviderError) as caught:
        await client().complete(BODY)
    assert caught.value.code == code


async def test_the_one_retry_of_an_answer_in_one_piece(upstream):
    upstream.answers = [Answer(NO_MAX_TOKENS, 400), Answer(WHOLE)]
    _, delta, _ = await client().complete({**BODY, "max_tokens": 9})
    assert delta.text == "Hello"
    upstream.answers = [Answer(NO_MAX_TOKENS, 400), Answer(NO_MAX_TOKENS, 400)]
    with pytest.raises(ProviderRefused):
        await client().complete({**BODY, "max_tokens": 9})
    assert len(upstream.calls) == 4


def test_repr_shows_the_host_and_never_the_key():
    """K4."""
    assert repr(client()) == "<OpenAICompatibleClient https://upstream.test:443>"


def test_the_registry_refuses_unknown_and_double_names():
    with pytest.raises(registry.UnknownClient):
        registry.create("nobody", base_url="https://upstream.test")
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("openrouter", "Mine")(type("Other", (), {}))
    names = [name for name, _ in registry.choices()]
    assert names == ["aihubmix", "anthropic", "google", "openai_compatible", "openrouter"]
