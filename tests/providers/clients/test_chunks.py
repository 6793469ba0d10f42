"""Chunks as vendors really send them (upstreams.md §3.3), and chunks nobody should send (F11)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.clients.base import Delta, ToolCallDelta
from providers.clients.errors import ProviderBroken, ProviderError
from providers.clients.openai_compatible import FrameReader, OpenAICompatibleClient, finish_reason_of, parse_chunk

KEY = "sk-live-0123456789abcdef"


def delta(**fields) -> Delta:
    return parse_chunk({"choices": [{"index": 0, "delta": fields}]})


def run(*events: str | dict, key: str = KEY, close: bool = True):
    """(frames, reader) of a stream of these events; a dict is sent as one data line."""
    client = OpenAICompatibleClient(base_url="https://upstream.test/v1", api_key=key)
    reader = FrameReader(client)
    body = b"".join(
        event.encode() if isinstance(event, str) else b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    )
    frames = reader.feed(body)
    return frames + (reader.close() if close else []), reader


def content(text: str, **more) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}, **more}]}


def text_of(frames) -> str:
    return "".join(frame.delta.text for frame in frames)


def reasoning_of(frames) -> str:
    return "".join(frame.delta.reasoning for frame in frames)


def test_choices_may_be_null_empty_missing_or_strange():
    for chunk in ({"choices": None}, {"choices": []}, {}, {"choices": "x"}, {"choices": [None]}, {"choices": [[]]}):
        assert parse_chunk(chunk) == Delta()


def test_a_delta_may_be_null_or_replaced_by_a_whole_message_or_by_text():
    assert parse_chunk({"choices": [{"delta": None}]}).text == ""
    assert parse_chunk({"choices": [{"message": {"content": "Hi"}}]}).text == "Hi"
    assert parse_chunk({"choices": [{"delta": None, "message": {"content": "Hi"}}]}).text == "Hi"
    assert parse_chunk({"choices": [{"text": "Hi"}]}).text == "Hi"
    # Together sends both: once counts.
    assert parse_chunk({"choices": [{"text": "Hi", "delta": {"content": "Hi"}}]}).text == "Hi"


def test_content_may_be_null_a_list_of_parts_or_a_refusal():
    assert delta(content=None).text == ""
    assert delta(content=[{"type": "text", "text": "a"}, "b", {"type": "image_url"}, 3]).text == "ab"
    found = delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])
    assert (found.text, found.reasoning) == ("", "hm")
    assert delta(content=None, refusal="I will not").text == "I will not"
    assert delta(content=7).text == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm", "content": None},
        {"thinking": "hm"},
        {"reasoning": None, "reasoning_content": "hm", "role": "assistant"},
        {"reasoning": "hm", "reasoning_content": "hm", "content": ""},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {
            "reasoning_details": [
                {"type": "reasoning.summary", "summary": "hm"},
                {"type": "reasoning.encrypted", "data": "x"},
            ]
        },
        {"reasoning_details": {"type": "thinking", "thinking": "hm"}},
        {"reasoning": {"text": "hm"}},
    ],
)
def test_reasoning_is_read_once_from_any_of_its_names(fields):
    assert delta(**fields).reasoning == "hm"


def test_text_and_reasoning_may_come_in_one_delta():
    assert delta(content="a", reasoning_content="b") == Delta(text="a", reasoning="b")
    assert delta(content="a", role="assistant", reasoning="b") == Delta(text="a", reasoning="b")


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        (None, None), ("", None), ("null", None), (7, None), ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"),
        ("end_turn", "stop"), ("length", "length"), ("max_tokens", "length"), ("MAX_TOKENS", "length"),
        ("tool_calls", "tool_calls"), ("tool_use", "tool_calls"), ("function_call", "function_call"),
        ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("recitation", "content_filter"),
        ("error", "error"), ("network_error", "error"), ("a word of tomorrow", "stop"),
    ],
)  # fmt: skip
def test_finish_reasons_are_ours_whatever_the_vendor_calls_them(word, ours):
    assert finish_reason_of(word) == ours


def test_a_finish_reason_error_is_an_error():
    assert parse_chunk({"choices": [{"delta": {}, "finish_reason": "error"}]}).error.code == "upstream_error"


def test_other_choices_than_the_first_are_left_to_the_raw_bytes():
    chunk = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]}
    assert parse_chunk(chunk) == Delta()
    chunk["choices"].append({"index": 0, "delta": {"content": "a"}})
    assert parse_chunk(chunk).text == "a"


# --- tool calls ------------------------------------------------------------------------------------------------------


def calls_of(frames) -> list[tuple[int, str, str, str]]:
    found: dict[int, list[str]] = {}
    for frame in frames:
        for call in frame.delta.tool_calls:
            known = found.setdefault(call.index, ["", "", ""])
            known[0], known[1], known[2] = known[0] or call.id, known[1] or call.name, known[2] + call.arguments
    return [(index, *found[index]) for index in sorted(found)]


def tool(*items) -> dict:
    return {"choices": [{"delta": {"tool_calls": list(items)}}]}


def test_tool_call_pieces_without_index_or_id_continue_the_last_call():
    frames, _ = run(
        tool({"id": "a", "function": {"name": "f", "arguments": '{"x'}}),
        tool({"function": {"arguments": '":1'}}),
        tool({"id": "", "function": {"name": "", "arguments": "}"}}),
        tool({"id": "b", "function": {"name": "g", "arguments": "{}"}}),
    )
    assert calls_of(frames) == [(0, "a", "f", '{"x":1}'), (1, "b", "g", "{}")]


def test_two_whole_calls_that_share_an_index_stay_two_calls():
    frames, _ = run(
        tool({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}),
        tool({"index": 0, "id": "b", "function": {"name": "g", "arguments": "[]"}}),
    )
    assert calls_of(frames) == [(0, "a", "f", "{}"), (1, "b", "g", "[]")]


def test_interleaved_pieces_go_to_their_own_calls():
    frames, _ = run(
        tool({"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 1, "id": "b", "function": {"name": "g"}}),
        tool({"index": 1, "function": {"arguments": "1"}}, {"index": 0, "function": {"arguments": "0"}}),
    )
    assert calls_of(frames) == [(0, "a", "f", "0"), (1, "b", "g", "1")]


def test_arguments_may_be_an_object_or_null_and_a_call_may_be_the_old_function_call():
    assert delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"é": 1}}}]).tool_calls == (
        ToolCallDelta(0, "a", "f", '{"é": 1}'),
    )
    assert delta(tool_calls=[{"function": {"arguments": None}}, None, 3]).tool_calls == (ToolCallDelta(0),)
    assert delta(function_call={"name": "f", "arguments": "{}"}).tool_calls == (ToolCallDelta(0, "", "f", "{}"),)


# --- <think> ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 40))
def test_think_tags_are_found_however_they_are_cut(size):
    whole = "\n<think>\nHm </thin so.</think>\n\nAnswer <think> kept"
    frames, _ = run(*[content(whole[at : at + size]) for at in range(0, len(whole), size)], "data: [DONE]\n\n")
    assert text_of(frames) == "\n\nAnswer <think> kept"
    assert reasoning_of(frames) == "\nHm </thin so."


@pytest.mark.parametrize("whole", ["<thin", "  <", "<thing>", "a <think>b</think>", "<b>x</b>", "  ", "< think>"])
@pytest.mark.parametrize("end", ["data: [DONE]\n\n", ""])
def test_text_that_only_looks_like_the_tag_is_text(whole, end):
    frames, _ = run(*[content(char) for char in whole], end)
    assert (text_of(frames), reasoning_of(frames)) == (whole, "")


def test_a_thought_that_never_ends_is_all_reasoning():
    frames, reader = run(content("<think>so long </"), "data: [DONE]\n\n")
    assert (text_of(frames), reasoning_of(frames)) == ("", "so long </")
    assert reader.problem is None


# --- characters ------------------------------------------------------------------------------------------------------


def test_half_surrogate_pairs_in_two_chunks_become_one_character():
    frames, _ = run(
        'data: {"choices":[{"delta":{"content":"a\\ud83c"}}]}\n\n',
        'data: {"choices":[{"delta":{"content":"\\udf1fb"}}]}\n\n',
    )
    assert text_of(frames) == "a🌟b"


def test_text_can_be_stored_whatever_came():
    """NUL breaks PostgreSQL, lone surrogates break UTF-8: both become U+FFFD, here and only here (I9)."""
    frames, _ = run(
        'data: {"choices":[{"delta":{"content":"a\\u0000b\\udf1fc\\ud83c"}}]}\n\n',
        'data: {"choices":[{"delta":{"content":"d\\ud83c"}}]}\n\n',
        "data: [DONE]\n\n",
    )
    assert text_of(frames) == "a\ufffdb\ufffdc\ufffdd\ufffd"
    assert b"\\u0000b\\udf1fc\\ud83c" in frames[0].raw


def test_bytes_that_are_no_utf8_do_not_pass_on():
    client = OpenAICompatibleClient(base_url="https://upstream.test/v1")
    (frame,) = FrameReader(client).feed(b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n')
    assert frame.delta.text == "a\ufffdb"
    assert frame.raw.decode() == 'data: {"choices":[{"delta":{"content":"a\ufffdb"}}]}\n\n'


# --- frames ----------------------------------------------------------------------------------------------------------


def test_bad_frames_are_skipped_and_counted_and_five_in_a_row_end_the_stream():
    """F10: two documents glued together are a bad frame too."""
    glued = 'data: {"id":"xdata: {"id":"y"}\n\n'
    frames, reader = run(
        content("a"), glued, 'data: {"a":1}{"b":2}\n\n', "data: oops\n\n", "data: NaN\n\n", content("b")
    )
    assert text_of(frames) == "ab"
    assert reader.skipped == 4
    frames, reader = run(content("a"), *["data: oops\n\n"] * 5, content("b"))
    assert text_of(frames) == "a"
    assert reader.problem.code == "unexpected_content"


def test_json_that_is_no_object_is_skipped():
    frames, reader = run("data: null\n\n", "data: 3\n\n", 'data: ""\n\n', "data: []\n\n", "data:\n\n", content("a"))
    assert len(frames) == 1
    assert reader.skipped == 0


@pytest.mark.parametrize(
    "nested", ["[" * 100_000, '{"a":' * 100_000, '{"choices":[{"delta":{"content":"x"}}],"usage":' + "1" * 5_000 + "}"]
)
def test_bombs_in_a_frame_are_bad_frames(nested):
    frames, reader = run(f"data: {nested}\n\n", content("a"))
    assert text_of(frames) == "a"
    assert reader.skipped == 1


def test_nothing_after_done_is_read():
    frames, reader = run(content("a"), "data: [DONE]\n\n", content("b"))
    assert text_of(frames) == "a"
    assert frames[-1].done
    assert frames[-1].data is None
    assert reader.feed(b"data: {}\n\n") == []


def test_the_end_counts_with_a_finish_reason_or_done_and_not_without():
    """F6, I8."""
    assert run(content("a", finish_reason="stop"))[1].problem is None
    assert run(content("a"), "data: [DONE]\n\n")[1].problem is None
    assert run(content("a"), "data: [DONE]")[1].problem is None
    assert run(content("a"))[1].problem.code == "interrupted"
    assert run(content("a", finish_reason=""))[1].problem.code == "interrupted"
    assert run("")[1].problem.code == "interrupted"
    assert run(": ping\n\n")[1].problem.code == "interrupted"


def test_text_after_the_finish_reason_and_a_second_one_are_kept():
    frames, reader = run(content("a", finish_reason="stop"), content("b"), content("", finish_reason="stop"))
    assert text_of(frames) == "ab"
    assert reader.problem is None


def test_usage_after_the_finish_reason_is_read():
    frames, _ = run(
        content("a", finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        "data: [DONE]\n\n",
    )
    assert frames[1].delta.usage.total_tokens == 7


def test_money_keeps_every_digit_and_the_frame_keeps_plain_json():
    frames, _ = run('data: {"choices":[],"usage":{"prompt_tokens":1,"cost":0.0076509169000000005123}}\n\n')
    assert str(frames[0].delta.usage.cost) == "0.0076509169000000005123"
    assert json.dumps(frames[0].data)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ('event: error\ndata: {"error":{"message":"no","status_code":400}}\n\n', "bad_request"),
        ('event: error\ndata: {"message":"overloaded"}\n\n', "overloaded"),
        ("event: error\ndata: something broke\n\n", "upstream_error"),
        ('event: error\ndata: "rate limit reached"\n\n', "rate_limited"),
        ('data: {"error":"slow down, rate limit"}\n\n', "rate_limited"),
        (
            'data: {"error":{"code":429,"message":"x"},"choices":[{"delta":{},"finish_reason":null}]}\n\n',
            "rate_limited",
        ),
        ('data: {"choices":[{"delta":{},"error":{"code":502,"message":"x"}}]}\n\n', "upstream_error"),
        ('data: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n', "overloaded"),
        (
            'data: {"choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}\n\n',
            "no_balance",
        ),
    ],
)
def test_errors_inside_a_stream_are_frames_with_an_error_and_the_text_before_stays(event, code):
    """F8."""
    frames, reader = run(content("Hel"), event)
    assert text_of(frames) == "Hel"
    assert frames[-1].delta.error.code == code
    assert reader.problem is None


def test_usage_in_the_frame_of_an_error_and_a_done_after_it_are_read():
    frames, _ = run(
        {"error": {"code": 502, "message": "x"}, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
        "data: [DONE]\n\n",
    )
    assert frames[0].delta.usage.prompt_tokens == 5
    assert frames[1].done


def test_an_error_key_that_is_empty_is_no_error():
    assert parse_chunk({"error": None, "choices": []}).error is None
    assert parse_chunk({"error": {}, "base_resp": {"status_code": 0}}).error is None


def test_the_key_does_not_come_back_out_of_a_stream():
    """K5: echoed in text and in an error."""
    frames, _ = run(content(f"your key is {KEY}!"), {"error": {"message": f"bad key {KEY} and sk-other-0123456789"}})
    everything = "".join(frame.raw.decode() + str(frame.data) + str(frame.delta) for frame in frames)
    assert KEY not in everything
    assert frames[0].delta.text == "your key is [key]!"
    assert frames[1].delta.error.detail == "bad key [key] and [key]"


# --- what is no stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("<!DOCTYPE html><script>x()</script><h1>Bad <b>gateway</b></h1>", "unexpected_content", "a web page instead of a stream: Bad gateway"),
        ('{"id":"x","choices":[{"message":{"content":"Hi"}}]}', "unexpected_content", "JSON instead of a stream"),
        ('\n\n {"error":{"message":"Incorrect API key provided"}}', "key_rejected", "Incorrect API key provided"),
        ('"Invalid token"', "key_rejected", "Invalid token"),
        ('[{"error":{"code":429,"message":"slow"}}]', "rate_limited", "slow"),
        ('{"success":false,"message":"no channel"}', "upstream_error", "no channel"),
        ("upstream connect error", "unexpected_content", "other text instead of a stream: upstream connect error"),
        ("internal error", "unexpected_content", "other text instead of a stream: internal error"),
        ("", "interrupted", ""),
        ("  \n ", "interrupted", ""),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_stream_is_named_whatever_its_content_type(body, code, said, size):
    """F7, F8."""
    reader = FrameReader(OpenAICompatibleClient(base_url="https://upstream.test/v1"))
    raw = body.encode()
    frames = [frame for at in range(0, len(raw), size) for frame in reader.feed(raw[at : at + size])]
    assert frames + reader.close() == []
    assert reader.problem.code == code
    assert reader.problem.detail.startswith(said)


def test_an_endless_web_page_is_not_kept():
    reader = FrameReader(OpenAICompatibleClient(base_url="https://upstream.test/v1"))
    for _ in range(100):
        reader.feed(b"<p>" * 1_000)
        if reader.problem:
            break
    assert isinstance(reader.problem, ProviderBroken)
    assert len(reader._head) < 100_000


@pytest.mark.parametrize(
    "head", ["data:", "\ufeffdata: ", "event: x\ndata: ", ": hi\n\ndata: ", "id: 1\ndata:", "\r\n\r\ndata: "]
)
def test_a_stream_is_known_by_its_first_letter(head):
    """Served as application/json or anything else: the header is not asked."""
    frames, reader = run(head + json.dumps(content("a", finish_reason="stop")) + "\n\n")
    assert (text_of(frames), reader.problem) == ("a", None)


# --- anything at all -------------------------------------------------------------------------------------------------

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["stop", "error", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "index",
                    "delta",
                    "message",
                    "content",
                    "text",
                    "type",
                    "thinking",
                    "reasoning",
                    "reasoning_content",
                    "reasoning_details",
                    "tool_calls",
                    "function_call",
                    "function",
                    "name",
                    "arguments",
                    "id",
                    "annotations",
                    "finish_reason",
                    "usage",
                    "prompt_tokens",
                    "completion_tokens",
                    "total_tokens",
                    "cost",
                    "x_groq",
                    "error",
                    "code",
                    "metadata",
                    "choices",
                    "base_resp",
                    "model",
                    "refusal",
                    "summary",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "x_groq", "id", "model", "base_resp"]), ODD))
def test_no_chunk_can_break_the_reader(chunk):
    """F11: whatever JSON comes, the result has the promised types and its text can be stored."""
    found = parse_chunk(chunk)
    assert isinstance(found.text, str)
    assert isinstance(found.reasoning, str)
    found.text.encode()
    assert "\x00" not in found.text + found.reasoning
    assert found.error is None or isinstance(found.error, ProviderError)
    assert found.finish_reason in (None, "stop", "length", "tool_calls", "content_filter", "function_call", "error")
    for call in found.tool_calls:
        assert isinstance(call.index, int)
        assert isinstance(call.id + call.name + call.arguments, str)
    run(f"data: {json.dumps(chunk)}\n\n", f"event: error\ndata: {json.dumps(chunk)}\n\n")
