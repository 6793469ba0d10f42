"""The clients of native protocols at work: headers, addresses, lists, probes, streams, second tries, real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import aclosing, asynccontextmanager

import pytest

from providers import net
from providers.clients import registry
from providers.clients.errors import ProviderBroken, ProviderError, ProviderRefused, ProviderUnreachable

from .conftest import Answer

pytestmark = pytest.mark.slow

KEY = "sk-ant-api03-0123456789abcdef"
BODY = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}]}
ASK_GOOGLE = {**BODY, "model": "gemini-2.5-flash"}
START = b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-x","usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
HELLO = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}\n\n'
DELTA = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
GEM_HELLO = b'data: {"candidates":[{"content":{"parts":[{"text":"Hello"}]}}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3},"responseId":"r1","modelVersion":"gemini-x"}\r\n\r\n'
GEM_STOP = b'data: {"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":9,"totalTokenCount":12}}\r\n\r\n'
WHOLE = {
    "anthropic": START + HELLO + DELTA + STOP,
    "google": GEM_HELLO + GEM_STOP,
}
ASK = {"anthropic": BODY, "google": ASK_GOOGLE}
KINDS = ("anthropic", "google")


def client(kind: str, **more):
    return registry.create(kind, **{"base_url": "https://upstream.test", "api_key": KEY, **more})


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


def text_of(frames) -> str:
    return "".join(frame.delta.text for frame in frames)


# --- what goes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more", "name", "value"),
    [
        ("anthropic", {}, "x-api-key", KEY),
        ("anthropic", {"options": {"auth": "bearer"}}, "Authorization", f"Bearer {KEY}"),
        ("anthropic", {"api_key": "sk-ant-oat01-0123456789"}, "Authorization", "Bearer sk-ant-oat01-0123456789"),
        ("google", {}, "x-goog-api-key", KEY),
    ],
)
async def test_the_key_is_in_one_header_and_never_in_the_address(upstream, kind, more, name, value):
    upstream.answers = [Answer(WHOLE[kind])]
    extra = {
        "X-Api-Key": "mine",
        "x-goog-api-key": "mine",
        "anthropic-version": "1",
        "authorization": "mine",
        "X-Team": "7",
    }
    if kind == "google":
        extra.pop("X-Api-Key")
    else:
        extra.pop("x-goog-api-key")
    made = client(kind, extra_headers=extra, **more)
    await collect(made.stream(ASK[kind]))
    (call,) = upstream.calls
    key = more.get("api_key", KEY)
    assert {held for held, text in call.headers.items() if key in text} == {name}
    assert call.headers[name] == value
    assert call.headers["X-Team"] == "7"
    assert "mine" not in call.headers.values()
    assert key not in call.url
    if kind == "anthropic":
        assert call.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_key_no_header_shows_one(upstream, kind):
    upstream.answers = [Answer(WHOLE[kind])]
    await collect(client(kind, api_key="").stream(ASK[kind]))
    assert not {"authorization", "x-api-key", "x-goog-api-key"} & {name.lower() for name in upstream.calls[0].headers}


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "ключ", "a b", "a\x00b"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_is_no_header_is_never_sent_s10(upstream, kind, key):
    with pytest.raises(ProviderRefused, match="key_rejected"):
        await collect(client(kind, api_key=key).stream(ASK[kind]))
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "models/gemini-2.5-flash:"),
        ("models/gemini-2.5-flash", "models/gemini-2.5-flash:"),
        ("a/../../v1/files", "models/a%2F..%2F..%2Fv1%2Ffiles:"),
        ("x?key=1#y", "models/x%3Fkey%3D1%23y:"),
        ("x:countTokens", "models/x%3AcountTokens:"),
        ("é %2e", "models/%C3%A9%20%252e:"),
    ],
)
async def test_a_model_id_is_one_step_of_the_path_s10(upstream, model, path):
    upstream.answers = [Answer(WHOLE["google"])]
    await collect(client("google").stream({**ASK_GOOGLE, "model": model}))
    assert upstream.calls[0].url == f"https://upstream.test/v1beta/{path}streamGenerateContent?alt=sse"


@pytest.mark.parametrize("model", ["", "..", ".", "a\nb", "x" * 201, None, 5])
async def test_a_model_id_that_cannot_be_a_step_is_not_asked_for_s10(upstream, model):
    with pytest.raises(ProviderRefused, match="model_not_found"):
        await collect(client("google").stream({**ASK_GOOGLE, "model": model}))
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("kind", "base", "url"),
    [
        ("anthropic", "https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "https://relay.test/claude/", "https://relay.test/claude/v1/messages"),
        ("google", "https://g.test", "https://g.test/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        (
            "google",
            "https://g.test/v1beta",
            "https://g.test/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        ),
        ("google", "https://g.test/v1", "https://g.test/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
    ],
)
async def test_the_base_may_name_the_version_or_not(upstream, kind, base, url):
    upstream.answers = [Answer(WHOLE[kind])]
    await collect(client(kind, base_url=base).stream(ASK[kind]))
    assert upstream.calls[0].url == url


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_is_openai_chunks_with_usage_before_done(upstream, kind):
    upstream.answers = [Answer(WHOLE[kind])]
    frames = await collect(client(kind).stream(ASK[kind]))
    chunks = [frame.data for frame in frames if frame.data]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]][-1] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == 3
    assert chunks[-1]["usage"]["completion_tokens"] == 9
    assert (frames[-1].done, frames[-1].raw) == (True, b"data: [DONE]\n\n")
    assert text_of(frames) == "Hello"
    named = [frame.delta for frame in frames if frame.delta.id]
    assert len(named) == 1
    assert named[0].model == ("claude-x" if kind == "anthropic" else "gemini-x")


@pytest.mark.parametrize(
    ("kind", "pieces", "code"),
    [
        ("anthropic", [START, HELLO], "interrupted"),
        ("anthropic", [START, HELLO, DELTA], "interrupted"),
        ("anthropic", [START, HELLO, DELTA, STOP[:30]], "interrupted"),
        ("anthropic", [START, HELLO, ProviderUnreachable("timeout")], "timeout"),
        ("anthropic", [START, HELLO, ProviderBroken("interrupted")], "interrupted"),
        ("google", [GEM_HELLO], "interrupted"),
        ("google", [GEM_HELLO, GEM_STOP[:40]], "interrupted"),
        ("google", [GEM_HELLO, ProviderUnreachable("timeout")], "timeout"),
    ],
)
async def test_what_did_not_say_why_it_ended_is_not_complete(upstream, kind, pieces, code):
    """F3, F5, F6: without message_stop, or without a reason to finish."""
    upstream.answers = [Answer(pieces=pieces)]
    frames = []
    with pytest.raises(ProviderError) as caught:
        async with aclosing(client(kind).stream(ASK[kind])) as stream:
            async for frame in stream:
                frames.append(frame)
    assert caught.value.code == code
    assert text_of(frames) == "Hello"
    assert not any(frame.delta.finish_reason or frame.done for frame in frames)
    usage = [frame.delta.usage for frame in frames if frame.delta.usage][-1]
    assert usage.prompt_tokens == 3, "what was told so far can be metered"


async def test_a_cut_after_geminis_reason_breaks_nothing(upstream):
    upstream.answers = [Answer(pieces=[GEM_HELLO, GEM_STOP, ProviderBroken("interrupted")])]
    frames = await collect(client("google").stream(ASK_GOOGLE))
    assert frames[-1].done
    assert [frame.delta.finish_reason for frame in frames if frame.delta.finish_reason] == ["stop"]


async def test_reading_stops_at_message_stop(upstream):
    upstream.answers = [Answer(pieces=[WHOLE["anthropic"], ProviderBroken("interrupted")])]
    assert (await collect(client("anthropic").stream(BODY)))[-1].done


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_early_closes_the_upstream(upstream, kind):
    upstream.answers = [Answer(pieces=[WHOLE[kind], WHOLE[kind]])]
    async with aclosing(client(kind).stream(ASK[kind])) as stream:
        await anext(stream)
        assert upstream.open_streams == 1
    assert upstream.open_streams == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_an_echoed_key_is_cut_from_every_frame_k5(upstream, kind):
    upstream.answers = [Answer(WHOLE[kind].replace(b"Hello", KEY.encode()))]
    frames = await collect(client(kind).stream(ASK[kind]))
    assert text_of(frames) == "[key]"
    assert KEY.encode() not in b"".join(frame.raw for frame in frames)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_echoed_extra_header_is_cut_from_every_frame_k5(upstream, kind):
    secret = "gateway-pass-0123456789"
    upstream.answers = [Answer(WHOLE[kind].replace(b"Hello", secret.encode()))]
    frames = await collect(client(kind, extra_headers={"X-Gateway-Token": secret}).stream(ASK[kind]))
    assert text_of(frames) == "[key]"
    assert secret.encode() not in b"".join(frame.raw for frame in frames)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "odd", ["null", "5", '"x"', "[]", "[1]", "{}", '{"type":5}', '{"candidates":5}', '{"candidates":[5]}']
)
async def test_odd_events_are_passed_over_f11(upstream, kind, odd):
    odd_event = f"data: {odd}\n\n".encode()
    start, rest = (START, HELLO + DELTA + STOP) if kind == "anthropic" else (GEM_HELLO, GEM_STOP)
    upstream.answers = [Answer(odd_event + start + odd_event + rest)]
    assert text_of(await collect(client(kind).stream(ASK[kind]))) == "Hello"


ODD_ANTHROPIC = [
    {"type": "message_start"},
    {"type": "message_start", "message": 5},
    {"type": "content_block_start"},
    {"type": "content_block_start", "index": {}, "content_block": {"type": "tool_use"}},
    {"type": "content_block_start", "index": 7, "content_block": {"type": "tool_use", "id": 5, "name": [], "input": 5}},
    {"type": "content_block_start", "index": 7, "content_block": {"type": "text", "citations": [5]}},
    {"type": "content_block_start", "index": 7, "content_block": {"type": "redacted_thinking"}},
    {"type": "content_block_delta", "index": 9, "delta": {"type": "input_json_delta", "partial_json": "x"}},
    {"type": "content_block_delta", "index": 9, "delta": {"type": "signature_delta", "signature": "x"}},
    {"type": "content_block_delta", "index": 9, "delta": {"type": "citations_delta"}},
    {"type": "content_block_delta", "index": 9, "delta": None},
    {"type": "content_block_stop", "index": 99},
    {
        "type": "message_delta",
        "delta": None,
        "usage": {"input_tokens": "many", "iterations": [None, {"input_tokens": -1}]},
    },
    {"type": "something_new"},
]
ODD_GOOGLE = [
    {"candidates": [{"content": 5, "index": "x"}]},
    {
        "candidates": [
            {"content": {"parts": [5, {}, {"text": 5}, {"functionCall": 5}, {"inlineData": {"mimeType": 5}}]}}
        ]
    },
    {"candidates": [{"content": {"parts": [{"functionCall": {"partialArgs": [5]}}]}}]},
    {"candidates": [{"citationMetadata": {"citationSources": [5, {"uri": 5}]}, "groundingMetadata": 5}]},
    {"candidates": [{"finishReason": 5}]},
    {"promptFeedback": 5, "usageMetadata": 5},
    {"usageMetadata": {"promptTokenCount": "many", "totalTokenCount": -1}},
]


@pytest.mark.parametrize(
    ("kind", "odd"), [*(("anthropic", odd) for odd in ODD_ANTHROPIC), *(("google", odd) for odd in ODD_GOOGLE)]
)
async def test_odd_shapes_break_nothing_f11(upstream, kind, odd):
    start, rest = (START, HELLO + DELTA + STOP) if kind == "anthropic" else (GEM_HELLO, GEM_STOP)
    upstream.answers = [Answer(start + b"data: " + json.dumps(odd).encode() + b"\n\n" + rest)]
    frames = await collect(client(kind).stream(ASK[kind]))
    assert text_of(frames) == "Hello"
    assert frames[-1].done


async def test_an_event_of_several_megabytes_is_read_since_pictures_come_whole(upstream):
    data = base64.b64encode(b"\x89PNG" * 700_000).decode()
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    event = b"data: " + json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()
    upstream.answers = [Answer(pieces=[event[at : at + 65_536] for at in range(0, len(event), 65_536)] + [b"\n\n"])]
    frames = await collect(client("google").stream(ASK_GOOGLE))
    assert text_of(frames) == "[image: image/png, 2800 kB]"
    assert frames[0].data["choices"][0]["delta"]["images"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    ]


@pytest.mark.parametrize(
    ("reason", "parts", "finish"),
    [
        ("STOP", [{"text": "x"}], "stop"),
        ("STOP", [{"functionCall": {"name": "f", "args": {}}}], "tool_calls"),
        ("MAX_TOKENS", [], "length"),
        ("MAX_TOKENS", [{"text": "thinking", "thought": True}], "length"),
        ("SAFETY", [], "content_filter"),
        ("RECITATION", [{"text": "x"}], "content_filter"),
        ("PROHIBITED_CONTENT", [], "content_filter"),
        ("OTHER", [{"text": "x"}], "stop"),
        ("SOMETHING_NEW", [{"text": "x"}], "stop"),
        ("STOP", [], "error"),
        ("STOP", [{"text": "thinking", "thought": True}], "error"),
        ("MALFORMED_FUNCTION_CALL", [], "error"),
        ("OTHER", [], "error"),
    ],
)
async def test_why_gemini_ended(upstream, reason, parts, finish):
    document = {"candidates": [{"content": {"parts": parts}, "finishReason": reason, "finishMessage": f"said {KEY}"}]}
    upstream.answers = [Answer(b"data: " + json.dumps(document).encode() + b"\n\n"), Answer(document)]
    frames = await collect(client("google").stream(ASK_GOOGLE))
    if finish == "error":
        assert frames[-1].delta.error.code == "upstream_error"
        assert not frames[-1].delta.error.permanent, "the user may try again"
        assert KEY not in frames[-1].delta.error.public_message
        with pytest.raises(ProviderRefused, match="upstream_error"):
            await client("google").complete(ASK_GOOGLE)
        return
    assert [frame.delta.finish_reason for frame in frames if frame.delta.finish_reason] == [finish]
    assert (await client("google").complete(ASK_GOOGLE)).data["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "length"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
async def test_why_claude_ended(upstream, reason, finish):
    delta = DELTA.replace(b'"end_turn"', json.dumps(reason).encode())
    upstream.answers = [Answer(START + HELLO + delta + STOP)]
    frames = await collect(client("anthropic").stream(BODY))
    assert [frame.delta.finish_reason for frame in frames if frame.delta.finish_reason] == [finish]


async def test_several_candidates_are_several_choices(upstream):
    document = {
        "candidates": [
            {"index": 0, "content": {"parts": [{"text": "one"}]}, "finishReason": "STOP"},
            {"index": 1, "content": {"parts": [{"text": "two"}]}, "finishReason": "MAX_TOKENS"},
        ]
    }
    upstream.answers = [Answer(b"data: " + json.dumps(document).encode() + b"\n\n"), Answer(document)]
    frames = await collect(client("google").stream({**ASK_GOOGLE, "n": 2}))
    said = [choice for frame in frames if frame.data for choice in frame.data["choices"]]
    assert {(c["index"], c["delta"].get("content"), c["finish_reason"]) for c in said} >= {
        (0, "one", None),
        (1, "two", None),
        (0, None, "stop"),
        (1, None, "length"),
    }
    assert text_of(frames) == "one", "the first choice is the answer"
    whole = await client("google").complete({**ASK_GOOGLE, "n": 2})
    assert [choice["message"]["content"] for choice in whole.data["choices"]] == ["one", "two"]
    assert whole.delta.text == "one"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("$.a", {"stringValue": "x"}), ("$.a", {"stringValue": "y"})], {"a": "xy"}),
        ([("$.a.b", {"numberValue": 1.5}), ("$.a.c", {"boolValue": False})], {"a": {"b": 1.5, "c": False}}),
        ([("$.a[0]", {"stringValue": "x"}), ("$.a[1].b", {"nullValue": None})], {"a": ["x", {"b": None}]}),
        ([("$['odd key']", {"numberValue": 3})], {"odd key": 3}),
        ([("a", {"numberValue": 3}), ("$..a", {"numberValue": 3}), ("$.a[5]", {"numberValue": 3}), (5, {})], {"a": []}),
        ([("$.a", {"numberValue": 3}), ("$.a.b", {"numberValue": 3}), ("$", {"numberValue": 3})], {"a": 3}),
    ],
)
async def test_arguments_in_pieces_are_put_together(upstream, pieces, expected):
    calls = [{"name": "f", "willContinue": True}]
    calls += [{"partialArgs": [{"jsonPath": path, **value}], "willContinue": True} for path, value in pieces]
    events = [{"candidates": [{"content": {"parts": [{"functionCall": call}]}}]} for call in calls]
    events.append({"candidates": [{"finishReason": "STOP"}]})
    upstream.answers = [Answer(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))]
    frames = await collect(client("google").stream(ASK_GOOGLE))
    arguments = "".join(call.arguments for frame in frames for call in frame.delta.tool_calls)
    assert json.loads(arguments) == expected


# --- answers in one piece --------------------------------------------------------------------------------------------

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {
            "type": "text",
            "text": "Hello ",
            "citations": [{"type": "web_search_result_location", "url": "https://a.test", "title": "A"}],
        },
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "text", "text": "there"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1.5}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 9},
}


async def test_a_whole_message_as_chat_completion(upstream):
    upstream.answers = [Answer(MESSAGE)]
    made = client("anthropic")
    data, delta, raw = await made.complete({**BODY, "stream": True})
    assert upstream.calls[0].body["stream"] is False
    assert raw == b""
    assert (data["id"], data["object"], data["model"]) == ("msg_1", "chat.completion", "claude-x")
    assert data["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello there",
                "refusal": None,
                "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.test", "title": "A"}}],
                "reasoning_content": "hm",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "index": 0,
                        "format": "anthropic-claude-v1",
                        "text": "hm",
                        "signature": made.seal.close("sig"),
                    }
                ],
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1.5}'}}
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ]
    assert data["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    assert (delta.text, delta.reasoning, delta.finish_reason, delta.id) == ("Hello there", "hm", "tool_calls", "msg_1")
    # …and that message, sent back, is what Anthropic wants to see.
    _, sent = made.chat_request({**BODY, "messages": [*BODY["messages"], data["choices"][0]["message"]]}, stream=True)
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "Hello there"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1.5}},
    ]


async def test_a_whole_gemini_answer_as_chat_completion_and_back(upstream):
    parts = [
        {"text": "hm", "thought": True},
        {"functionCall": {"name": "f", "args": {"x": 1.5}}, "thoughtSignature": "sig"},
    ]
    upstream.answers = [
        Answer(
            {
                "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
                "responseId": "r1",
                "modelVersion": "gemini-x",
            }
        )
    ]
    made = client("google")
    data, delta, _ = await made.complete(ASK_GOOGLE)
    assert upstream.calls[0].url.endswith("/v1beta/models/gemini-2.5-flash:generateContent")
    message = data["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "call_r1_0", "type": "function", "function": {"name": "f", "arguments": '{"x":1.5}'}}
    ]
    assert data["choices"][0]["finish_reason"] == delta.finish_reason == "tool_calls"
    _, sent = made.chat_request({**ASK_GOOGLE, "messages": [*BODY["messages"], message]}, stream=False)
    assert sent["contents"][1]["parts"] == [parts[1]]


@pytest.mark.parametrize(
    ("kind", "answer", "code"),
    [
        ("anthropic", Answer({}), "unexpected_content"),
        ("anthropic", Answer([]), "unexpected_content"),
        ("anthropic", Answer(b"<html>hello</html>"), "unexpected_content"),
        (
            "anthropic",
            Answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            "overloaded",
        ),
        ("anthropic", Answer(b"<html>413</html>", 413), "too_large"),
        ("google", Answer({}), "unexpected_content"),
        ("google", Answer([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}]), "overloaded"),
        ("google", Answer({"error": {"code": 500, "status": "INTERNAL", "message": "oops"}}, 500), "upstream_error"),
        ("google", Answer({"error": {"code": 504, "status": "DEADLINE_EXCEEDED", "message": "late"}}, 504), "timeout"),
        (
            "google",
            Answer({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}, 429),
            "rate_limited",
        ),
    ],
)
async def test_answers_in_one_piece_that_are_none(upstream, kind, answer, code):
    upstream.answers = [answer]
    with pytest.raises(ProviderError) as caught:
        await client(kind).complete(ASK[kind])
    assert caught.value.code == code


async def test_a_daily_quota_is_not_worth_waiting_for(upstream):
    details = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "RequestsPerDayPerProject"}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
        {"@type": "type.googleapis.com/google.rpc.DebugInfo", "detail": f"key {KEY}"},
    ]
    upstream.answers = [
        Answer({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": details}}, 429)
    ]
    with pytest.raises(ProviderRefused) as caught:
        await client("google").complete(ASK_GOOGLE)
    assert (caught.value.permanent, caught.value.retry_after) == (True, None)
    assert caught.value.detail == "quota"


async def test_retry_after_of_anthropic_is_kept(upstream):
    upstream.answers = [
        Answer(
            {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}, 429, {"retry-after": "7"}
        )
    ]
    with pytest.raises(ProviderRefused) as caught:
        await client("anthropic").complete(BODY)
    assert (caught.value.code, caught.value.permanent, caught.value.retry_after) == ("rate_limited", False, 7.0)


# --- the one second try ----------------------------------------------------------------------------------------------


def refusal(kind: str, message: str) -> Answer:
    if kind == "google":
        return Answer([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": message}}], 400)
    return Answer({"type": "error", "error": {"type": "invalid_request_error", "message": message}}, 400)


@pytest.mark.parametrize(
    ("kind", "body", "message", "was", "now"),
    [
        (
            "anthropic",
            {"model": "claude-relay", "temperature": 0.5},
            "`temperature` is not supported by this model",
            {"temperature": 0.5},
            {"temperature": None},
        ),
        (
            "anthropic",
            {"model": "our-claude", "reasoning_effort": "high"},
            "adaptive thinking is not supported on this model",
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            {"thinking": {"type": "enabled", "budget_tokens": 16_384}, "output_config": None, "max_tokens": 20_480},
        ),
        (
            "anthropic",
            {"model": "claude-sonnet-4-5", "reasoning_effort": "low"},
            '"thinking.type.enabled" is not supported for this model. Use adaptive.',
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        (
            "anthropic",
            {"model": "claude-sonnet-4-5", "reasoning_effort": "low"},
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`.",
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"thinking": None},
        ),
        (
            "anthropic",
            {"model": "claude-opus-4-6", "reasoning_effort": "max"},
            "This model does not support effort level 'max'.",
            {"output_config": {"effort": "max"}},
            {"output_config": None, "thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        (
            "anthropic",
            {},
            "max_tokens: 4096 > 2048, which is the maximum allowed number of output tokens for claude-x",
            {"max_tokens": 4096},
            {"max_tokens": 2048},
        ),
        (
            "google",
            {"reasoning_effort": "low"},
            "Thinking budget is not supported for this model.",
            {"generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024}}},
            {"generationConfig": {}},
        ),
    ],
)
async def test_what_a_model_refuses_is_left_out_once(upstream, kind, body, message, was, now):
    upstream.answers = [refusal(kind, message), Answer(WHOLE[kind])]
    frames = await collect(client(kind).stream({**ASK[kind], **body}))
    assert text_of(frames) == "Hello"
    first, second = (call.body for call in upstream.calls)
    assert {name: first.get(name) for name in was} == was
    assert {name: second.get(name) for name in now} == now
    upstream.answers = [refusal(kind, message), refusal(kind, message)]
    with pytest.raises(ProviderRefused, match="bad_request"):
        await collect(client(kind).stream({**ASK[kind], **body}))


async def test_a_limit_that_the_caller_named_is_the_callers(upstream):
    upstream.answers = [refusal("anthropic", "max_tokens: 9999 > 2048, which is the maximum allowed")]
    with pytest.raises(ProviderRefused, match="bad_request"):
        await collect(client("anthropic").stream({**BODY, "max_tokens": 9999}))


async def test_signatures_that_are_refused_are_stripped_once(upstream):
    made = client("anthropic")
    thought = {"type": "reasoning.text", "index": 0, "text": "hm", "signature": made.seal.close("sig")}
    history = [
        *BODY["messages"],
        {"role": "assistant", "content": "x", "reasoning_details": [thought]},
        *BODY["messages"],
    ]
    upstream.answers = [
        refusal("anthropic", "messages.1.content.0: Invalid `signature` in `thinking` block"),
        Answer(WHOLE["anthropic"]),
    ]
    await collect(made.stream({**BODY, "messages": history}))
    first, second = (call.body["messages"][1]["content"] for call in upstream.calls)
    assert [part["type"] for part in first] == ["thinking", "text"]
    assert [part["type"] for part in second] == ["text"]

    made = client("google")
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sealed = {"type": "reasoning.encrypted", "data": made.seal.close("sig"), "id": "call_1"}
    history = [*BODY["messages"], {"role": "assistant", "tool_calls": [call], "reasoning_details": [sealed]}]
    history.append({"role": "tool", "tool_call_id": "call_1", "content": "done"})
    upstream.calls.clear()
    upstream.answers = [refusal("google", "Corrupted thought signature."), Answer(WHOLE["google"])]
    await collect(made.stream({**ASK_GOOGLE, "model": "gemini-3-pro-preview", "messages": history}))
    first, second = (call.body["contents"][1]["parts"][0]["thoughtSignature"] for call in upstream.calls)
    assert (first, second) == ("sig", "skip_thought_signature_validator")


# --- files by address ------------------------------------------------------------------------------------------------


def with_picture(url: str) -> dict:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {**ASK_GOOGLE, "messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]}


async def test_gemini_is_given_pictures_that_were_named_by_address(upstream):
    upstream.answers = [Answer(b"\x89PNG", 200, {"content-type": "image/png; x=1"}), Answer(WHOLE["google"])]
    body = with_picture("https://pictures.test/a.png")
    await collect(client("google").stream(body))
    fetched, asked = upstream.calls
    assert (fetched.method, fetched.url, fetched.headers) == ("GET", "https://pictures.test/a.png", {})
    assert asked.body["contents"][0]["parts"][1] == {
        "inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}
    }
    assert body == with_picture("https://pictures.test/a.png"), "the caller's body is the caller's"


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("https://pictures.test/a", Answer(b"<html>", 200, {"content-type": "text/html"})),
        ("https://pictures.test/a", Answer(b"", 404, {"content-type": "image/png"})),
        ("https://pictures.test/a", Answer(b"x", 200, {})),
        ("https://pictures.test/a", ProviderBroken("unexpected_redirect")),
        ("https://pictures.test/a", ProviderBroken("response_too_large")),
        ("https://127.0.0.1/a", ProviderUnreachable("blocked_address")),
        ("http://pictures.test/a", None),
    ],
)
async def test_a_picture_that_cannot_be_had_is_the_requests_fault(upstream, url, answer):
    """S1: the door decides which addresses there are; http is none."""
    upstream.answers = [answer] if answer else []
    with pytest.raises(ProviderRefused) as caught:
        await collect(client("google").stream(with_picture(url)))
    assert caught.value.code == "bad_request"
    assert "127.0.0.1" not in caught.value.detail
    assert len(upstream.calls) == (1 if answer else 0)


async def test_the_real_door_fetches_no_picture_from_inside():
    """S1, without a fake: loopback, metadata and private addresses."""
    for host in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "[::1]", "localhost"):
        with pytest.raises(ProviderRefused) as caught:
            await client("google").with_files(with_picture(f"https://{host}/a.png"))
        assert "not one this server may call" in caught.value.detail
    await net.close()


# --- lists and probes ------------------------------------------------------------------------------------------------


async def test_every_page_of_a_list_is_read(upstream):
    upstream.answers = [
        Answer({"data": [{"id": "a", "type": "model"}], "has_more": True, "last_id": "a&b"}),
        Answer({"data": [{"id": "b", "type": "model"}, {"id": 5}], "has_more": False, "last_id": "b"}),
    ]
    listing = await client("anthropic").list_models()
    assert [call.url for call in upstream.calls] == [
        "https://upstream.test/v1/models?limit=1000",
        "https://upstream.test/v1/models?limit=1000&after_id=a%26b",
    ]
    assert ([model.model_id for model in listing.models], listing.skipped) == (["a", "b"], 1)

    upstream.calls.clear()
    methods = ["generateContent"]
    upstream.answers = [
        Answer({"models": [{"name": "models/a", "supportedGenerationMethods": methods}], "nextPageToken": "t/1"}),
        Answer({"models": [{"name": "models/b", "supportedGenerationMethods": methods}]}),
    ]
    listing = await client("google").list_models()
    assert [call.url for call in upstream.calls] == [
        "https://upstream.test/v1beta/models?pageSize=1000",
        "https://upstream.test/v1beta/models?pageSize=1000&pageToken=t%2F1",
    ]
    assert [model.model_id for model in listing.models] == ["a", "b"]


async def test_a_list_that_never_ends_is_no_list(upstream):
    """Half a list would take the other half out of the catalog."""
    upstream.route = lambda call: Answer({"data": [{"id": "a"}], "has_more": True, "last_id": "a"})
    with pytest.raises(ProviderBroken, match="unexpected_content"):
        await client("anthropic").list_models()
    assert len(upstream.calls) == 2
    upstream.route = lambda call: Answer({"models": [], "nextPageToken": f"{len(upstream.calls)}"})
    with pytest.raises(ProviderBroken, match="unexpected_content"):
        await client("google").list_models()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [b"[]", b"5", b'{"data": 5}', b'{"models": 5}', b"<html>", b""])
async def test_what_is_no_list_is_told_apart(upstream, kind, odd):
    upstream.answers = [Answer(odd)]
    with pytest.raises(ProviderBroken, match="unexpected_content"):
        await client(kind).list_models()


INVALID_KEY = {
    "error": {
        "code": 400,
        "status": "INVALID_ARGUMENT",
        "message": "Bad key.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
    }
}
BAD_ANTHROPIC = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
LISTS = {
    "anthropic": {"data": [{"id": "a"}, {"id": "b"}], "has_more": False},
    "google": {"models": [{"name": "models/a", "supportedGenerationMethods": ["generateContent"]}]},
}


@pytest.mark.parametrize(
    ("kind", "answer", "verdict", "code"),
    [
        ("anthropic", Answer(LISTS["anthropic"]), "valid", ""),
        ("anthropic", Answer(BAD_ANTHROPIC, 401), "invalid", "key_rejected"),
        (
            "anthropic",
            Answer({"type": "error", "error": {"type": "permission_error", "message": "x"}}, 403),
            "unverified",
            "forbidden",
        ),
        (
            "anthropic",
            Answer({"type": "error", "error": {"type": "billing_error", "message": "x"}}, 402),
            "valid",
            "no_balance",
        ),
        ("anthropic", Answer(b"<html>", 502), "unverified", "upstream_error"),
        ("anthropic", ProviderUnreachable("timeout"), "unverified", "timeout"),
        ("google", Answer(LISTS["google"]), "valid", ""),
        ("google", Answer(INVALID_KEY, 400), "invalid", "key_rejected"),
        ("google", Answer([INVALID_KEY], 400), "invalid", "key_rejected"),
        (
            "google",
            Answer(
                {
                    "error": {
                        "code": 403,
                        "status": "PERMISSION_DENIED",
                        "message": "Your API key was reported as leaked.",
                    }
                },
                403,
            ),
            "invalid",
            "key_rejected",
        ),
        (
            "google",
            Answer({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "API disabled"}}, 403),
            "unverified",
            "forbidden",
        ),
        (
            "google",
            Answer({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "page size"}}, 400),
            "unverified",
            "bad_request",
        ),
        ("google", ProviderUnreachable("unreachable"), "unverified", "unreachable"),
    ],
)
async def test_what_the_vendors_own_list_says_about_a_key(upstream, kind, answer, verdict, code):
    host = {"anthropic": "https://api.anthropic.com", "google": "https://generativelanguage.googleapis.com/v1beta"}[
        kind
    ]
    upstream.answers = [answer]
    probe = await client(kind, base_url=host).probe()
    assert (probe.verdict, probe.code) == (verdict, code)
    assert len(upstream.calls) == 1
    assert upstream.calls[0].method == "GET"


@pytest.mark.parametrize("kind", KINDS)
async def test_elsewhere_a_wrong_key_has_to_be_refused_before_a_key_is_called_valid(upstream, kind):
    name = {"anthropic": "x-api-key", "google": "x-goog-api-key"}[kind]
    upstream.route = lambda call: (
        Answer(LISTS[kind]) if call.headers.get(name) == KEY else Answer({"error": {"message": "no"}}, 401)
    )
    assert (await client(kind).probe()).verdict == "valid"
    assert len(upstream.calls) == 2
    upstream.route = lambda call: Answer(LISTS[kind])
    probe = await client(kind).probe()
    assert (probe.verdict, probe.models) == ("unverified", len(LISTS[kind].get("data", LISTS[kind].get("models"))))
    probe = await client(kind, api_key="").probe()
    assert probe.verdict == "valid"


# --- real sockets ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def upstream_on_loopback(reply):
    """A raw server: `reply(request line, headers, body)` gives (status, content type, body). Yields what it heard."""
    heard: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            heard.append((head[0], headers, body))
            status, kind, content = reply(head[0], headers, body)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n".encode())
            if isinstance(content, list):  # a stream that is cut: chunked, without its end
                writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
                for piece in content:
                    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            else:
                writer.write(f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    before = net._rules
    net.configure(net.Policy(hosts={"upstream.test:80": ("127.0.0.1", server.sockets[0].getsockname()[1])}))
    try:
        yield heard
    finally:
        await net.close()
        net._rules = before
        server.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_over_a_real_socket_list_probe_stream_and_whole_answer(kind):
    header = {"anthropic": "x-api-key", "google": "x-goog-api-key"}[kind]
    whole = (
        MESSAGE
        if kind == "anthropic"
        else {"candidates": [{"content": {"parts": [{"text": "Hello there"}]}, "finishReason": "STOP"}]}
    )

    def reply(line: str, headers: dict[str, str], body: bytes):
        if headers.get(header) != KEY:
            refused = BAD_ANTHROPIC if kind == "anthropic" else INVALID_KEY
            return (401 if kind == "anthropic" else 400), "application/json", json.dumps(refused).encode()
        if line.startswith("GET"):
            return 200, "application/json", json.dumps(LISTS[kind]).encode()
        if b'"stream":true' in body or "stream" in line:
            return 200, "text/event-stream", WHOLE[kind]
        return 200, "application/json", json.dumps(whole).encode()

    async with upstream_on_loopback(reply) as heard:
        good, bad = (
            client(kind, base_url="http://upstream.test"),
            client(kind, base_url="http://upstream.test", api_key="sk-other"),
        )
        assert (await good.list_models()).models[0].model_id == "a"
        probe = await good.probe()
        assert (probe.verdict, probe.code) == ("valid", "")
        probe = await bad.probe()
        assert (probe.verdict, probe.code) == ("invalid", "key_rejected")
        frames = await collect(good.stream(ASK[kind]))
        assert text_of(frames) == "Hello"
        assert frames[-1].done
        assert (await good.complete(ASK[kind])).delta.text == "Hello there"
        with pytest.raises(ProviderRefused, match="key_rejected"):
            await collect(bad.stream(ASK[kind]))
        with pytest.raises(ProviderRefused, match="key_rejected"):
            await bad.complete(ASK[kind])
    lines = [line for line, _, _ in heard]
    root = "/v1" if kind == "anthropic" else "/v1beta"
    assert lines[0].startswith(f"GET {root}/models?")
    assert all(KEY not in line for line in lines)
    for _, headers, body in heard:
        assert "authorization" not in headers
        assert headers["accept-encoding"] == "identity"
        assert headers.get("anthropic-version") == ("2023-06-01" if kind == "anthropic" else None)
        assert not body or headers["content-type"] == "application/json"
        assert KEY.encode() not in body


@pytest.mark.parametrize("kind", KINDS)
async def test_over_a_real_socket_a_cut_is_interrupted_and_keeps_its_text(kind):
    start = [START, HELLO] if kind == "anthropic" else [GEM_HELLO]
    async with upstream_on_loopback(lambda *asked: (200, "text/event-stream", start)):
        text, error = await collect_until_error(client(kind, base_url="http://upstream.test").stream(ASK[kind]))
    assert (text, error.code) == ("Hello", "interrupted")
