"""The named rules of chat/api/frames.py: when each fires, what it changes, and that nothing else is touched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.api.frames import FrameRules, whole_answer
from providers.clients import registry
from providers.clients.openai_compatible import FrameReader

BASE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1754688929, "model": "m"}
USAGE = {"prompt_tokens": 14, "completion_tokens": 8, "total_tokens": 22}


def line(data) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()) + b"\n\n"


def chunk(delta=None, finish=None, *, choices=None, **more) -> dict:
    rows = [{"index": 0, "delta": delta, "finish_reason": finish}] if choices is None else choices
    return {**BASE, "choices": rows} | more


def relay(*blocks: bytes, include_usage=False) -> tuple[list[bytes], FrameRules]:
    """What a caller is sent for these bytes of an upstream, and the rules that said so."""
    reader = FrameReader(registry.create("openai_compatible", base_url="https://upstream.test/v1"))
    rules = FrameRules(include_usage=include_usage, fallback_id="chatcmpl-ours", fallback_model="asked", created=99)
    frames = [frame for block in blocks for frame in reader.feed(block)] + reader.close()
    sent = [out for out in map(rules.outgoing, frames) if out]
    if closing := rules.closing():
        sent.append(closing)
    return sent, rules


def read(block: bytes) -> dict:
    """An outgoing event as a strict client reads it: one data line, strict JSON."""
    assert block.startswith(b"data: ") and block.endswith(b"\n\n") and block.count(b"\n") == 2 and b"\r" not in block
    return json.loads(block[6:], parse_constant=lambda name: pytest.fail(f"{name} on the wire"))


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_a_frame_that_needs_nothing_keeps_every_byte():
    odd = (
        b'data: {"id":"chatcmpl-1", "object":"chat.completion.chunk" ,"created":1754688929,"model":"m",'
        b'"seed":18446744073709551616,"x":1e400,"y":0.10,"choices":[{"index":0,"delta":{"content":"\\ud83d \xe2\x80\xa8"},'
        b'"finish_reason":null}]}\n\n'
    )
    sent, rules = relay(odd)
    assert sent == [odd] and not rules.fired


def test_framing_ids_events_comments_and_crlf_do_not_pass():
    text = json.dumps(chunk({"content": "hi"}))
    for block in (
        f"id: 7\ndata: {text}\n\n",
        f"event: message\ndata: {text}\n\n",
        f": note\ndata: {text}\n\n",
        f"retry: 5\ndata: {text}\n\n",
        f"data:{text}\n\n",
        "data: " + text.replace(', "model"', ',\ndata: "model"') + "\n\n",
    ):
        sent, rules = relay(block.encode())
        assert read(sent[0]) == chunk({"content": "hi"}) and rules.fired == {"framing": 1}, block
    sent, rules = relay(f"data: {text}\r\n\r\n".encode())
    assert read(sent[0]) == chunk({"content": "hi"})


def test_comments_alone_and_done_send_nothing():
    assert relay(b": ping\n\n", b"data: [DONE]\n\n")[0] == []


# -- identity, object --------------------------------------------------------------------------------------------------


def test_identity_one_id_model_and_created_per_stream():
    """Gemini's compatibility layer gives each chunk an id of its own."""
    sent, rules = relay(
        line(chunk({"content": "a"})),
        line(chunk({"content": "b"}, id="chatcmpl-2", model="m-0613", created=1754688930)),
    )
    assert {(e["id"], e["model"], e["created"]) for e in map(read, sent)} == {("chatcmpl-1", "m", 1754688929)}
    assert rules.fired == {"identity": 1}


@pytest.mark.parametrize("nothing", ["", None, 0, [], {}, 5.5, True, -1])
def test_identity_what_the_upstream_leaves_out_is_ours(nothing):
    sent, _ = relay(line(chunk({"content": "a"}, id=nothing, model=nothing, created=nothing)))
    event = read(sent[0])
    assert (event["id"], event["model"], event["created"]) == ("chatcmpl-ours", "asked", 99)


def test_identity_azures_first_chunk_has_none_and_must_not_set_it():
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [{}]}
    for include_usage in (False, True):
        sent, rules = relay(line(first), line(chunk({"content": "a"}, usage=None)), include_usage=include_usage)
        assert [read(block)["id"] for block in sent] == ["chatcmpl-1"]
        assert rules.fired["identity"] == 0


@pytest.mark.parametrize("word", ["", None, "chat.completion", "chat.completion.done", 5])
def test_object_is_that_of_a_chunk(word):
    sent, rules = relay(line(chunk({"content": "a"}, object=word)))
    assert read(sent[0])["object"] == "chat.completion.chunk" and rules.fired == {"object": 1}


# -- usage, empty ------------------------------------------------------------------------------------------------------

NULL = line(chunk({"content": 'say ,"usage":null'}, usage=None))


def test_usage_null_is_cut_from_the_bytes_where_it_was_not_asked_for():
    sent, rules = relay(NULL)
    assert sent == [NULL.replace(b',"usage":null}\n', b"}\n")]
    assert read(sent[0]) == chunk({"content": 'say ,"usage":null'}) and rules.fired == {"usage": 1}


def test_usage_null_stays_where_usage_was_asked_for():
    assert relay(NULL, include_usage=True)[0] == [NULL]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"usage":null,%s}',
        b'{"usage" : null,%s}',
        b'{%s,"usage":{"prompt_tokens":1},"usage":null}',
        b'{%s,"x":{"a":1,"usage":null},"usage":null}',
        b'{"usage":null,%s,"x":{"a":1,"usage":null}}',
    ],
)
def test_usage_null_in_an_odd_place_is_removed_by_meaning_not_by_bytes(raw):
    sent, _ = relay(line(raw % json.dumps(chunk({"content": "a"}))[1:-1].encode()))
    event = read(sent[0])
    assert "usage" not in event and event["choices"][0]["delta"] == {"content": "a"}
    assert ("x" in event) == (b'"x"' in raw) and (b'"x"' not in raw or event["x"] == {"a": 1, "usage": None})


def test_usage_comes_once_and_last_where_it_was_asked_for_however_often_it_was_sent():
    """Perplexity: cumulative figures on every chunk; OpenAI: one frame without choices; both, and zeros before."""
    growing = [line(chunk({"content": "a"}, usage=USAGE | {"completion_tokens": n})) for n in (0, 3, 8)]
    alone = line(chunk(choices=[], usage=USAGE))
    for blocks in (growing, [growing[0], alone], [growing[0], alone, alone]):
        sent, _ = relay(*blocks, include_usage=True)
        events = [read(block) for block in sent]
        assert [event["usage"] for event in events] == [None] * (len(events) - 1) + [USAGE]
        assert events[-1] == {**BASE, "choices": [], "usage": USAGE}
        sent, _ = relay(*blocks)
        assert all("usage" not in read(block) and read(block)["choices"] for block in sent)


def test_usage_hidden_under_a_vendors_name_is_found_and_hidden_again():
    for block in (
        line(chunk({}, "stop", x_groq={"id": "r", "usage": USAGE})),
        line(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}])),
    ):
        sent, _ = relay(line(chunk({"content": "a"})), block, include_usage=True)
        assert read(sent[-1])["usage"] == USAGE
        sent, _ = relay(line(chunk({"content": "a"})), block)
        assert b"usage" not in b"".join(sent)


@pytest.mark.parametrize("choices", [[], None, "x", {"a": 1}, 5, [5, None]])
def test_empty_a_frame_without_choices_says_nothing(choices):
    sent, rules = relay(line(chunk(choices=choices)))
    if choices is None:
        sent, rules = relay(line({**BASE, "choices": None}))
    assert sent == [] and rules.fired == {"empty": 1}


def test_empty_frames_with_news_pass_to_those_who_know_such_frames():
    moderation = line(chunk(choices=[], moderation={"flagged": False}, usage=None))
    assert relay(moderation, include_usage=True)[0] == [moderation]
    assert relay(moderation)[0] == []


# -- shape, finish -----------------------------------------------------------------------------------------------------


def only_choice(raw, **options) -> dict:
    sent, _ = relay(line(raw), **options)
    (choice,) = read(sent[0])["choices"]
    return choice


def test_shape_a_whole_message_becomes_a_delta():
    message = {"role": "assistant", "content": "Hi", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    for choice in (
        {"index": 0, "message": message, "finish_reason": "stop"},
        {"index": 0, "delta": None, "message": message, "finish_reason": "stop"},
        {"index": 0, "delta": {}, "message": message, "finish_reason": "stop"},
        {"delta": {}, "message": message, "finish_reason": "stop"},
    ):
        found = only_choice(chunk(choices=[choice]))
        assert found["delta"]["content"] == "Hi" and found["delta"]["role"] == "assistant" and found["index"] == 0
        (call,) = found["delta"]["tool_calls"]
        assert call == {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
        assert "message" not in found


def test_shape_mistrals_parts_become_text_and_reasoning():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Yes"}]
    delta = only_choice(chunk({"content": parts}))["delta"]
    assert delta == {"content": "Yes", "reasoning_content": "Hm."}


def test_shape_text_of_the_old_completions_is_text():
    assert only_choice(chunk(choices=[{"index": 0, "text": "Hi", "finish_reason": None}]))["delta"] == {"content": "Hi"}


def test_shape_tool_calls_get_their_index_and_text_arguments():
    pieces = [
        [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
        [{"id": "c2", "type": "function", "function": {"name": "g", "arguments": None}}],
        [{"function": {"arguments": "{}"}}],
    ]
    sent, _ = relay(*(line(chunk({"tool_calls": calls})) for calls in pieces))
    calls = [read(block)["choices"][0]["delta"]["tool_calls"][0] for block in sent]
    assert [call["index"] for call in calls] == [0, 1, 1]
    assert [call["function"]["arguments"] for call in calls] == ['{"a": 1}', "", "{}"]
    assert [call.get("id") for call in calls] == ["c1", "c2", None]


def test_shape_every_choice_is_mended_from_itself():
    choices = [
        {"index": 0, "delta": {"content": "zero"}, "finish_reason": None},
        {"index": 1, "delta": {"content": [{"type": "text", "text": "one"}]}, "finish_reason": "eos"},
        {"index": 2, "message": {"content": "two"}, "finish_reason": "max_tokens"},
    ]
    sent, _ = relay(line(chunk(choices=choices)))
    found = read(sent[0])["choices"]
    assert [(c["index"], c["delta"]["content"], c["finish_reason"]) for c in found] == [
        (0, "zero", None),
        (1, "one", "stop"),
        (2, "two", "length"),
    ]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("", None),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("recitation", "content_filter"),
        ("something new", "stop"),
        ([], None),
        ({}, None),
        (5, None),
        (False, None),
    ],
)
def test_finish_is_a_word_of_the_api(word, meant):
    assert only_choice(chunk({}, word))["finish_reason"] == meant


@pytest.mark.parametrize("word", ["stop", "length", "tool_calls", "content_filter", "function_call", None])
def test_finish_words_of_the_api_keep_the_bytes(word):
    block = line(chunk({"content": "a"}, word))
    assert relay(block)[0] == [block]


# -- numbers and text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("literal", "value"), [("1e400", float("inf")), ("-1e999", float("-inf"))])
def test_an_overflowing_number_is_never_infinity_on_the_wire(literal, value):
    raw = json.dumps(chunk({"content": "a"}, id="", x=[5])).replace("[5]", f'[{{"n":{literal}}}]').encode()
    sent, rules = relay(line(raw))
    assert rules.fired == {"identity": 1}
    assert b"nfinity" not in sent[0] and read(sent[0])["x"][0]["n"] == value


def test_large_integers_and_lone_surrogates_survive_a_rewrite():
    raw = json.dumps(chunk({"content": "\ud800 \udfff"}, id="", seed=2**64)).encode()
    event = read(relay(line(raw))[0][0])
    assert event["seed"] == 2**64 and event["choices"][0]["delta"]["content"] == "\ud800 \udfff"


def test_a_frame_nested_as_deep_as_can_be_read_ends_nothing():
    for depth in (200, 900, 960, 990):
        raw = json.dumps(chunk({"content": "a"}, id="", x=5)).replace(": 5", ": " + "[" * depth + "]" * depth).encode()
        for block in relay(line(raw), line(chunk({"content": "b"})))[0]:
            read(block)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KNOWN = ("index", "delta", "message", "text", "finish_reason", "usage", "content", "tool_calls", "function", "role")
ODD = st.recursive(
    JSON,
    lambda inner: st.dictionaries(st.sampled_from(KNOWN), inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(("id", "object", "created", "model", "choices", "usage", "x_groq")), ODD),
    st.lists(ODD, max_size=3),
    st.booleans(),
)
def test_f11_whatever_json_comes_what_goes_out_is_strict(fields, choices, include_usage):
    data = {"choices": choices} | fields
    sent, _ = relay(line(json.dumps(data).replace("Infinity", "1e999").encode()), include_usage=include_usage)
    for block in sent:
        event = read(block)
        assert event["object"] == "chat.completion.chunk" and isinstance(event["id"], str) and event["id"]
        assert event["created"].__class__ is int and isinstance(event["model"], str)
        for choice in event["choices"]:
            assert choice["index"].__class__ is int and isinstance(choice["delta"], dict)
            assert isinstance(choice["delta"].get("content"), str | None)
            assert choice.get("finish_reason") in (
                None,
                "stop",
                "length",
                "tool_calls",
                "content_filter",
                "function_call",
            )
        assert include_usage or ("usage" not in event and event["choices"])


class Unhurried(FrameRules):
    """The rules without their short cut."""

    def _untouched(self, raw, data, choices):
        return b""


NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["chatcmpl-1", "other", "", 1]),
        "object": st.sampled_from(["chat.completion.chunk", "x", None]),
        "created": st.sampled_from([1754688929, 1754688929.0, True, "1"]),
        "model": st.sampled_from(["m", "n"]),
        "usage": st.sampled_from([None, USAGE, {}]),
        "x_groq": st.sampled_from([None, {"usage": USAGE}, {"id": "r"}]),
    },
)
NEARLY_CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 1, -1, False, "0"]),
        "delta": st.sampled_from(
            [
                {"content": "hi"},
                {"content": 'a "usage" ,"usage":null b'},
                {"content": None},
                {"content": ["x"]},
                {},
                [],
                {"content": "", "tool_calls": [{"function": {"arguments": "{}"}}]},
                {"content": "t", "tool_calls": None},
            ]
        ),
        "finish_reason": st.sampled_from([None, "stop", "eos", 5]),
        "usage": st.sampled_from([None, USAGE]),
        "message": st.sampled_from([None, {"content": "m"}]),
        "text": st.sampled_from(["t", None]),
    },
)


@pytest.mark.slow
@given(
    st.lists(st.tuples(NEARLY, st.lists(NEARLY_CHOICE, max_size=2), st.booleans()), min_size=1, max_size=4),
    st.booleans(),
)
def test_the_short_cut_sends_what_the_rules_would_send(frames, include_usage):
    blocks = []
    for fields, choices, is_whole in frames:
        defaults = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None} if is_whole else {}
        data = {**(BASE if is_whole else {}), **fields, "choices": [{**defaults, **choice} for choice in choices]}
        blocks.append(line(data))
    reader = FrameReader(registry.create("openai_compatible", base_url="https://upstream.test/v1"))
    quick, slow = (
        kind(include_usage=include_usage, fallback_id="ours", fallback_model="asked", created=99)
        for kind in (FrameRules, Unhurried)
    )
    for frame in [frame for block in blocks for frame in reader.feed(block)]:
        assert quick.outgoing(frame) == slow.outgoing(frame)
    assert (quick.closing(), quick.fired) == (slow.closing(), slow.fired)


@given(
    st.lists(st.text(), min_size=1, max_size=6),
    st.lists(st.text(max_size=20), max_size=4),
    st.booleans(),
    st.sampled_from([{}, {"id": ""}, {"object": "x"}, {"usage": None}, {"usage": USAGE}, {"finish_reason": "eos"}]),
)
def test_i9_text_and_tool_arguments_survive_any_rule(texts, arguments, include_usage, odd):
    finish = odd.get("finish_reason")
    more = {name: value for name, value in odd.items() if name != "finish_reason"}
    blocks = [line(chunk({"content": text}, finish, **more)) for text in texts]
    for position, piece in enumerate(arguments):
        call = {"index": 0, "id": "c" if position == 0 else "", "function": {"arguments": piece}}
        blocks.append(line(chunk({"tool_calls": [call]}, finish, **more)))
    sent, _ = relay(*blocks, include_usage=include_usage)
    deltas = [choice["delta"] for block in sent for choice in read(block)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "".join(texts)
    told = [call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", ())]
    assert "".join(told) == "".join(arguments)


# -- an answer in one piece --------------------------------------------------------------------------------------------

WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def pass_on(document) -> bytes:
    from providers.clients.openai_compatible import parse_chunk

    raw = json.dumps(document).encode()
    return whole_answer(raw, document, parse_chunk(document), fallback_id="ours", fallback_model="asked", created=99)


def test_a_whole_answer_keeps_its_bytes():
    assert pass_on(WHOLE) == json.dumps(WHOLE).encode()


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ({"id": ""}, ("id",), "ours"),
        ({"model": None}, ("model",), "asked"),
        ({"created": "x"}, ("created",), 99),
        ({"object": ""}, ("object",), "chat.completion"),
        ({"choices": [{"message": {"content": "Hi"}}]}, ("choices", 0, "message", "role"), "assistant"),
        ({"choices": [{"message": {"content": "Hi"}}]}, ("choices", 0, "finish_reason"), "stop"),
        ({"choices": [{"message": {"content": "Hi"}, "finish_reason": "eos"}]}, ("choices", 0, "index"), 0),
        ({"choices": [{"message": {"content": [{"text": "Hi"}]}}]}, ("choices", 0, "message", "content"), "Hi"),
        ({"choices": [{"text": "Hi"}]}, ("choices", 0, "message", "content"), "Hi"),
        (
            {"choices": [{"message": {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]}}]},
            ("choices", 0, "message", "tool_calls", 0, "function", "arguments"),
            "{}",
        ),
    ],
)  # fmt: skip
def test_a_whole_answer_is_mended_where_it_must_be(change, path, value):
    found = json.loads(pass_on(WHOLE | change))
    for step in path:
        found = found[step]
    assert found == value
