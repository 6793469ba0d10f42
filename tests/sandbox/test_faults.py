"""What each fault really sends, read off the socket (F1, F3-F12, S3, S9, K5)."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from providers.sandbox.faults import FAULTS, HELLO, PAGE, REST, UNICODE
from tests.sandbox.raw import chat

pytestmark = pytest.mark.slow

WHOLE = HELLO + REST
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def port(upstream):
    return upstream.port


# -- F1, F3, F4, F5, F6 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fault-refuse", "fault-reset-first"])
def test_f5_a_reset_before_the_first_byte(port, name):
    reply = chat(port, name)
    assert (reply.raw, reply.end) == (b"", "reset")


def test_f3_silence_before_the_headers(port):
    reply = chat(port, "fault-silent-headers")
    assert (reply.raw, reply.end) == (b"", "silence")


@pytest.mark.parametrize("stream", [True, False])
def test_f3_silence_after_the_headers(port, stream):
    reply = chat(port, "fault-silent-body", stream=stream)
    assert (reply.status, reply.content, reply.end) == (200, b"", "silence")


def test_f3_silence_in_mid_stream(port, upstream):
    reply = chat(port, "fault-silent-mid")
    assert (reply.text, reply.end) == (HELLO, "silence")
    upstream.wait(left=1)


def test_f3_silence_after_everything(port):
    reply = chat(port, "fault-silent-end")
    assert (reply.text, reply.end, reply.events[-1]) == (WHOLE, "silence", b"[DONE]")


@pytest.mark.parametrize(
    ("name", "sign"),
    [("fault-drip", b": still here\n\n"), ("fault-drip-bytes", b"\r\nx\r\n"), ("fault-drip-headers", b"X-Slow: xx")],
)
def test_f4_a_drip_that_is_never_silent_and_never_says_anything(port, name, sign):
    begun = time.monotonic()
    reply = chat(port, name, until=sign)
    assert sign in reply.raw
    assert reply.end == "left"
    assert time.monotonic() - begun > 0.15


def test_f5_a_reset_inside_an_event(port):
    reply = chat(port, "fault-reset-mid")
    assert (reply.text, reply.end) == (HELLO, "reset")
    assert reply.content.count(b"\n\n") == 2
    assert b'data: {"id"' in reply.content.rpartition(b"\n\n")[2]


@pytest.mark.parametrize(("name", "finish"), [("fault-reset-after-text", None), ("fault-reset-before-usage", "stop")])
def test_f5_a_reset_after_the_text_and_before_usage(port, name, finish):
    reply = chat(port, name)
    assert (reply.text, reply.end) == (WHOLE, "reset")
    assert reply.events[-1]["choices"][0]["finish_reason"] == finish
    assert not any("usage" in event for event in reply.events)


def test_f6_a_clean_end_in_mid_answer(port):
    reply = chat(port, "fault-eof")
    assert (reply.text, reply.end) == (HELLO, "fin")
    assert "content-length" not in reply.headers and "transfer-encoding" not in reply.headers
    reply = chat(port, "fault-eof", stream=False)
    with pytest.raises(json.JSONDecodeError):
        _ = reply.json


def test_f6_a_clean_end_inside_an_event(port):
    reply = chat(port, "fault-eof-in-event")
    assert (reply.text, reply.end) == (HELLO, "fin")
    assert not reply.content.endswith(b"\n\n")


def test_f6_chunks_without_a_last_one(port):
    reply = chat(port, "fault-eof-chunked")
    assert (reply.text, reply.end, reply.is_whole) == (HELLO, "fin", False)


@pytest.mark.parametrize("stream", [True, False])
def test_f6_fewer_bytes_than_promised(port, stream):
    reply = chat(port, "fault-short-length", stream=stream)
    assert reply.end == "fin"
    assert 0 < len(reply.content) < int(reply.headers["content-length"]) - 1000


def test_f6_a_chunk_size_that_is_no_number(port):
    reply = chat(port, "fault-broken-chunking")
    assert b"\r\nzz\r\n" in reply.raw
    assert (reply.text, reply.end) == (HELLO, "fin")


def test_f6_what_counts_as_complete_without_being_tidy(port):
    reply = chat(port, "fault-no-done")
    assert reply.text == WHOLE and b"[DONE]" not in reply.raw and reply.is_whole
    reply = chat(port, "fault-no-finish")
    assert reply.text == WHOLE and b'"stop"' not in reply.raw and reply.events[-1] == b"[DONE]"
    reply = chat(port, "fault-no-blank-line")
    assert reply.content.endswith(b"data: [DONE]")


# -- F7, F8, F9 ------------------------------------------------------------------------------------------------------


def test_f7_html_with_200_and_with_502(port):
    for name, status in (("fault-html", 200), ("fault-html-502", 502)):
        reply = chat(port, name)
        assert (reply.status, reply.content) == (status, PAGE)
        assert reply.headers["content-type"].startswith("text/html")


def test_f7_json_for_a_stream_and_a_stream_for_json(port):
    reply = chat(port, "fault-json-for-sse", stream=True)
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["choices"][0]["message"]["content"] == WHOLE
    reply = chat(port, "fault-sse-for-json", stream=False)
    assert reply.headers["content-type"] == "application/json"
    assert reply.text == WHOLE


def test_f7_an_empty_answer(port):
    assert (chat(port, "fault-empty").status, chat(port, "fault-empty").content) == (200, b"")


def test_f8_errors_that_come_with_200(port):
    assert chat(port, "fault-200-error").json["error"]["code"] == "engine_fire"
    reply = chat(port, "fault-first-error")
    assert [list(event) for event in reply.events] == [["error"]]
    reply = chat(port, "fault-mid-error")
    assert reply.text == HELLO and reply.events[-2]["error"]["message"] == "The engine is on fire."
    reply = chat(port, "fault-mid-error-string")
    assert reply.text == HELLO and reply.events[-1] == {"error": "The engine is on fire."}
    assert b"event: error\ndata: " in chat(port, "fault-event-error").content
    last = chat(port, "fault-finish-error").events[-2]
    assert last["choices"][0]["finish_reason"] == "error" and "error" in last


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("stream", [True, False])
def test_f9_every_status_with_and_without_retry_after(port, status, stream):
    reply = chat(port, f"fault-status-{status}", stream=stream)
    assert reply.status == status and "retry-after" not in reply.headers
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    assert chat(port, f"fault-status-{status}-retry-after").headers["retry-after"] == "3"
    assert chat(port, f"fault-status-{status}-retry-after-7").headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_s3_redirects_lead_back_here_where_they_would_be_counted(port, upstream, status):
    reply = chat(port, f"fault-redirect-{status}")
    assert (reply.status, reply.headers["location"]) == (status, f"http://127.0.0.1:{port}/v1/models")


# -- F10 -------------------------------------------------------------------------------------------------------------


def test_f10_a_frame_that_is_not_json_between_good_ones(port):
    reply = chat(port, "fault-bad-json")
    assert reply.text == WHOLE
    assert b'{"choices":[{"delta":{"content":"lost"' in reply.events
    reply = chat(port, "fault-bad-json-only")
    assert reply.events == [b"{not json"] * 40 + [b"[DONE]"]


def test_f10_a_byte_that_is_not_utf_8(port):
    for stream in (True, False):
        reply = chat(port, "fault-bad-utf8", stream=stream)
        with pytest.raises(UnicodeDecodeError):
            reply.content.decode()
        assert b"\xff" in reply.content


def test_f10_every_byte_its_own_write(port):
    reply = chat(port, "fault-split", wait=5)
    assert {len(chunk) for chunk in reply.chunks} == {1, 0}
    assert reply.text == UNICODE + WHOLE
    assert b"\r\n\r\n" in reply.content
    assert chat(port, "fault-split", stream=False, wait=5).json["choices"][0]["message"]["content"] == WHOLE


def test_f10_lines_that_end_with_cr_alone(port):
    content = chat(port, "fault-cr").content
    assert b"\n" not in content
    assert content.replace(b"\r", b"\n").endswith(DONE)


def test_f10_characters_that_trip_line_splitters(port):
    content = chat(port, "fault-separators").content
    for character in "\u2028\u2029\u0085\ufeff":
        assert character.encode() in content  # not \u escaped


def test_f10_comments_and_other_fields(port):
    content = chat(port, "fault-comments").content
    for part in (
        b": PROCESSING\n\n",
        b"retry: 3000\n\n",
        b"id: 7\n\n",
        b"event: ping\n\n",
        b"unknown: field\ndata:{",
        b":\n\n",
    ):
        assert part in content


def test_f10_a_byte_order_mark_and_data_over_several_lines(port):
    assert chat(port, "fault-bom").content.startswith(b"\xef\xbb\xbfdata: ")
    content = chat(port, "fault-multi-line-data").content
    frame = next(f for f in content.split(b"\n\n") if b"many lines" in f)
    assert frame.count(b"\ndata: ") >= 4
    json.loads(frame.replace(b"data: ", b""))


def test_f10_two_documents_in_one_frame(port):
    assert any(isinstance(e, bytes) and e.startswith(b'{"id":"xdata: {') for e in chat(port, "fault-glued").events)


def test_f10_a_big_event_and_one_that_never_ends(port):
    assert len(chat(port, "fault-big-event").text) == 500_000 + len(WHOLE)
    reply = chat(port, "fault-huge-event", limit=4 << 20)
    assert (reply.end, len(reply.raw) >= 4 << 20, b"\n\n" in reply.content[2000:]) == ("left", True, False)


def test_f10_more_after_the_terminator(port):
    before, _, after = chat(port, "fault-after-done").content.partition(DONE)
    assert b"TOO LATE" in after and b"engine_fire" in after and b"TOO LATE" not in before


# -- F11 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("fault-empty-choices", {"choices": []}),
        ("fault-null-choices", {"choices": None}),
        ("fault-null", {"choices": [{"index": 0, "finish_reason": None, "delta": None}]}),
        ("fault-no-delta", {"choices": [{"index": 0}]}),
        ("fault-empty-finish", {"choices": [{"index": 0, "finish_reason": "", "delta": {"content": "on, "}}]}),
    ],
)
def test_f11_odd_choices_between_good_ones(port, name, event):
    reply = chat(port, name)
    assert any(event.items() <= e.items() for e in reply.events if isinstance(e, dict))
    assert reply.text.startswith(HELLO) and reply.text.endswith(REST)
    assert chat(port, name, stream=False).status == 200


def test_f11_no_choices_at_all(port):
    assert sum("choices" not in e for e in chat(port, "fault-no-choices").events if isinstance(e, dict)) == 2
    assert "choices" not in chat(port, "fault-no-choices", stream=False).json


def test_f11_content_as_a_list(port):
    assert any(
        isinstance(e, dict) and e["choices"] and isinstance(e["choices"][0]["delta"].get("content"), list)
        for e in chat(port, "fault-content-list").events
    )
    message = chat(port, "fault-content-list", stream=False).json["choices"][0]["message"]
    assert message["content"] == [{"type": "text", "text": WHOLE}]


def usages(reply) -> list:
    return [e["usage"] for e in reply.events if isinstance(e, dict) and "usage" in e]


def test_f11_usage_missing_partial_repeated_and_odd(port):
    good = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
    assert usages(chat(port, "fault-no-usage")) == []
    assert "usage" not in chat(port, "fault-no-usage", stream=False).json
    assert usages(chat(port, "fault-null-usage")) == [None, None]
    assert usages(chat(port, "fault-partial-usage")) == [{"prompt_tokens": 7}]
    assert [u["completion_tokens"] for u in usages(chat(port, "fault-usage-every-chunk"))] == [0, 3, 8, 11]
    assert usages(chat(port, "fault-odd-usage"))[0] == {
        "prompt_tokens": -5,
        "completion_tokens": "11",
        "total_tokens": 1.5,
    }
    assert usages(chat(port, "fault-usage-with-finish")) == [good]
    assert usages(chat(port, "fault-odd-cost")) == [{**good, "cost": 1e300}]


# -- F12, S9, K5 -----------------------------------------------------------------------------------------------------


def test_s9_a_gzip_bomb(port):
    reply = chat(port, "fault-gzip-bomb", wait=5)
    assert reply.headers["content-encoding"] == "gzip"
    assert len(reply.content) < 100_000
    assert len(gzip.decompress(reply.content)) == 50 << 20


def test_f12_text_without_end_and_headers_without_measure(port):
    reply = chat(port, "fault-endless", limit=3 << 20)
    assert (reply.end, len(reply.raw) >= 3 << 20) == ("left", True)
    assert len(chat(port, "fault-big-headers").head) > 1 << 20
    assert chat(port, "fault-many-headers").head.count(b"\r\n") > 5_000


def test_k5_the_key_comes_back_in_text_header_and_error(port):
    for stream in (True, False):
        reply = chat(port, "fault-echo-key", stream=stream, key="sk-SENTINEL-1")
        assert reply.headers["x-echo"] == "Bearer sk-SENTINEL-1"
        assert b"You sent Bearer sk-SENTINEL-1." in reply.content
    assert "sk-SENTINEL-1" in chat(port, "fault-echo-key-401", key="sk-SENTINEL-1").json["error"]["message"]
    assert b"sk-SENTINEL-1" in chat(port, "fault-echo-key-mid", key="sk-SENTINEL-1").content


def test_every_fault_answers_somehow_and_none_kills_the_server(port):
    """I19: after all of them the upstream still answers properly."""
    for name in FAULTS:
        for stream in (True, False):
            chat(port, name, stream=stream, wait=0.02, limit=64 << 10)
    assert chat(port, "echo", wait=10).text == "Hi there"
