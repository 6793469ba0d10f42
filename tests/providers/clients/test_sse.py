"""The event reader against the rules of upstreams.md §5, and against a slow reader written from them (F10)."""

from __future__ import annotations

import codecs
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.clients.errors import ProviderBroken
from providers.clients.sse import MAX_EVENT, EventReader


def read(*pieces: bytes) -> list[tuple[str, str]]:
    """(name, data) of the events, with what close() still gives."""
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [(event.name, event.data) for event in events + reader.close()]


def by_the_book(body: bytes) -> list[tuple[str, str]]:
    """The specification, a character at a time; only finished events."""
    text = codecs.decode(body, "utf-8-sig", "replace")
    lines, line, previous = [], "", ""
    for char in text:
        if char == "\n" and previous == "\r":
            pass
        elif char in "\r\n":
            lines.append(line)
            line = ""
        else:
            line += char
        previous = char
    events, name, data = [], "", []
    for line in lines:
        if line == "":
            if data:
                events.append((name, "\n".join(data)))
            name, data = "", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
    return events


PIECES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data:  two",
        b"data",
        b"data: ",
        b"Data: no",
        b": ping",
        b"event: error",
        b"event",
        b"id: 7",
        b"retry: 9",
        b"nonsense",
        "data: 🌟 \u2028 é\u0085".encode(),
        b"data: \xff\xfe\xe2\x82",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
    ]
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14), st.integers(0, 2**32))
def test_any_bytes_read_as_the_specification_says_however_they_are_cut(parts, seed):
    body = b"".join(parts)
    expected = by_the_book(body)
    whole = EventReader()
    raws = [event.raw for event in whole.feed(body)]
    chance = random.Random(seed)
    for pieces in (
        [body],
        [body[at : at + 1] for at in range(len(body))],
        [body[at : at + 3] for at in range(0, len(body), 3)],
        _cut(body, chance),
    ):
        reader = EventReader()
        events = [event for piece in pieces for event in reader.feed(piece)]
        assert [(event.name, event.data) for event in events] == expected
        assert [event.raw for event in events] == raws


def _cut(body: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.randrange(len(body) + 1) for _ in range(4))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, max_size=10))
@example([b"\n", b"\xef\xbb\xbf", b"\n", b"data: {}", b"\n\n"])
def test_raw_bytes_read_again_give_the_same_event(parts):
    """What the relay sends on means the same to the next reader. (A byte order mark is a line of no meaning in the middle
    of a stream, and none at its beginning.)"""
    for event in EventReader().feed(b"".join(parts)):
        again = EventReader().feed(event.raw)
        assert [(one.name, one.data) for one in again] == [(event.name, event.data)]


def test_line_ends_are_cr_lf_and_crlf_and_no_others():
    assert read(b"data: a\r\rdata: b\n\ndata: c\r\n\r\n") == [("", "a"), ("", "b"), ("", "c")]
    odd = "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n"
    assert read(odd.encode()) == [("", odd[6:-2])]


def test_a_crlf_cut_in_the_middle_is_one_line_end():
    assert read(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [("", "a\nb")]


def test_an_event_ending_in_cr_is_given_out_without_waiting_for_a_line_feed():
    reader = EventReader()
    assert [event.data for event in reader.feed(b"data: a\r\n\r")] == ["a"]
    assert reader.feed(b"\n") == []


def test_one_byte_order_mark_is_dropped_and_a_later_one_is_data():
    assert read(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [("", "a")]
    assert read(b"data: \xef\xbb\xbfa\n\n") == [("", "\ufeffa")]


def test_a_character_cut_between_reads_survives():
    star = "🌟".encode()
    assert read(b"data: " + star[:2], star[2:] + b"\n\n") == [("", "🌟")]


def test_only_one_space_is_removed_and_fields_split_at_the_first_colon():
    assert read(b"data:x\n\ndata:  y: z\n\n") == [("", "x"), ("", " y: z")]


def test_several_data_lines_are_joined_and_comments_ignored():
    assert read(b": hello\nevent: error\ndata: {\n: between\ndata: }\n\n") == [("error", "{\n}")]


def test_an_event_without_data_is_not_given_out_and_its_name_is_forgotten():
    assert read(b"event: error\n\ndata: a\n\n") == [("", "a")]


@pytest.mark.parametrize(
    "rest", [b"data: [DONE]", b"data: [DONE]\n", b'data: {"a":1}', b'data: {"a":1}\r', b"data:[DONE]"]
)
def test_an_unfinished_last_event_counts_when_it_is_whole(rest):
    reader = EventReader()
    assert reader.feed(rest) == []
    (event,) = reader.close()
    assert event.raw.endswith(b"\n\n")
    assert reader.close() == []


@pytest.mark.parametrize("rest", [b"", b"dat", b"data: [DON", b'data: {"a":', b": ping", b"event: error", b"data: x"])
def test_half_an_event_at_the_end_is_dropped(rest):
    reader = EventReader()
    reader.feed(b"data: a\n\n" + rest)
    assert reader.close() == []


@pytest.mark.parametrize("size", [1 << 12, 1 << 16, MAX_EVENT * 3])
@pytest.mark.parametrize("start", [b"data: ", b": ", b"x", b"data: 1\ndata: "])
def test_an_endless_line_ends_the_reader_and_what_came_before_is_kept(size, start):
    """F12: bounded memory, one named error."""
    body = b"data: first\n\n" + start + b"x" * (MAX_EVENT + 10)
    reader, events = EventReader(), []
    with pytest.raises(ProviderBroken) as caught:
        for at in range(0, len(body), size):
            events += reader.feed(body[at : at + size])
        reader.feed(b"more")
    assert caught.value.code == "response_too_large"
    assert reader.is_broken
    assert [event.data for event in events] == ["first"]


def test_the_largest_event_passes_and_one_byte_more_does_not():
    fits = b"data: " + b"x" * (MAX_EVENT - 8) + b"\n\n"
    assert len(EventReader().feed(fits)) == 1
    with pytest.raises(ProviderBroken):
        EventReader().feed(b"data: " + b"x" * (MAX_EVENT - 7) + b"\n\n")


def test_a_large_event_in_single_bytes_costs_linear_time():
    """F12: 60,000 feeds of one byte took 0.1 s when written; quadratic copying would take minutes."""
    reader = EventReader()
    body = b"data: " + b"x" * 60_000 + b"\n\n"
    events = [event for at in range(len(body)) for event in reader.feed(body[at : at + 1])]
    assert len(events) == 1
