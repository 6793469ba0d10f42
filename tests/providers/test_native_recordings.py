"""Issue 4, item 5: every native recording, whole, byte by byte and cut at random, equals the table of the raw files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest
from django.conf import settings

from chat.api.frames import DONE, FrameRules
from providers import net
from providers.clients import registry
from providers.clients.errors import ProviderBroken, ProviderError
from providers.clients.native import NativeClient, assembled
from providers.clients.openai_compatible import parse_chunk

from .native_recordings import MODEL_LISTS, REFUSALS, RETRY_AFTER, STREAMS, WHOLE, Native

DATA = Path(settings.BASE_DIR).parent / "shared" / "data"
SEEDS = range(20)
KEY = "sk-test-0123456789abcdef"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.recordings,
    pytest.mark.skipif(
        not DATA.is_dir() and os.environ.get("REQUIRE_RECORDINGS") != "1", reason="../shared/data is not here"
    ),
]


def body_of(name: str) -> bytes:
    """The recording as it came; chunks-*.jsonl get back the framing that their collector removed."""
    content = (DATA / name).read_bytes()
    if not name.startswith("chunks-"):
        return content
    return b"".join(b"data: " + line + b"\n\n" for line in content.split(b"\n") if line.strip())


def client_for(name: str, base_url: str = "https://upstream.test") -> NativeClient:
    kind = "anthropic" if "anthropic" in name else "google"
    return registry.create(kind, base_url=base_url, api_key=KEY)


def read_in_pieces(client: NativeClient, pieces):
    """(frames, problem) of the pure reader, fed as a stream would feed it."""
    reader, frames = client.frame_reader(200, {}), []
    for piece in pieces:
        frames += reader.feed(piece)
        if reader.is_done or reader.problem:
            break
    return frames + reader.close(), reader.problem


def counts(usage):
    return usage and (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


def noted(delta, tools, end: str, sealed: int) -> Native:
    return Native(
        text=hashlib.sha256(delta["text"].encode()).hexdigest(),
        length=len(delta["text"]),
        usage=counts(delta["usage"]),
        reasoning=(len(delta["reasoning"]), hashlib.sha256(delta["reasoning"].encode()).hexdigest()[:16])
        if delta["reasoning"]
        else (0, ""),
        tools=tuple(tuple(tools[index]) for index in sorted(tools)),
        finish=delta["finish"],
        end=end,
        annotations=delta["annotations"],
        sealed=sealed,
    )


def summary(frames, problem) -> Native:
    """What the chat would have collected, in the table's shape."""
    found = {"text": "", "reasoning": "", "usage": None, "finish": None, "annotations": 0}
    tools: dict[int, list[str]] = {}
    error, sealed = None, 0
    for frame in frames:
        delta = frame.delta
        found["text"] += delta.text
        found["reasoning"] += delta.reasoning
        found["finish"] = delta.finish_reason or found["finish"]
        found["usage"] = delta.usage or found["usage"]
        found["annotations"] += len(delta.annotations)
        error = error or delta.error
        for call in delta.tool_calls:
            known = tools.setdefault(call.index, ["", "", ""])
            known[0] = known[0] or call.id
            known[1] = known[1] or call.name
            known[2] += call.arguments
        sealed += frame.raw.count(b'"sb1.')
    end = f"problem:{problem.code}" if problem else f"error:{error.code}" if error else "complete"
    return noted(found, tools, end, sealed)


def as_callers_read_it(frames) -> Native:
    """What a `/v1` caller collects from the bytes that go out to it, read with the parser of the OpenAI dialect."""
    rules = FrameRules(include_usage=True, fallback_id="chatcmpl-0", fallback_model="m", created=1)
    sent = b"".join(rules.outgoing(frame) for frame in frames) + rules.closing()
    found = {"text": "", "reasoning": "", "usage": None, "finish": None, "annotations": 0}
    tools: dict[int, list[str]] = {}
    heads = set()
    for block in sent.split(b"\n\n")[:-1]:
        assert block.startswith(b"data: ")
        assert block.count(b"\n") == 0
        chunk = json.loads(block[6:])
        heads.add((chunk["id"], chunk["model"], chunk["created"], chunk["object"]))
        delta = parse_chunk(chunk)
        found["text"] += delta.text
        found["reasoning"] += delta.reasoning
        found["finish"] = delta.finish_reason or found["finish"]
        found["usage"] = delta.usage or found["usage"]
        found["annotations"] += len(delta.annotations)
        for call in delta.tool_calls:
            known = tools.setdefault(call.index, ["", "", ""])
            known[0], known[1], known[2] = known[0] or call.id, known[1] or call.name, known[2] + call.arguments
    assert len(heads) == 1, "one id, model and time on all chunks"
    return noted(found, tools, "complete", sent.count(b'"sb1.'))


def steady(frames) -> list:
    """Frames without what differs from one reading to the next: the time, and an id where the upstream names none."""
    shown = []
    for frame in frames:
        delta = frame.delta
        data = frame.data and {**frame.data, "created": 0, "id": ""}
        shown.append((data, delta.text, delta.tool_calls, delta.finish_reason, delta.usage, frame.done))
    return shown


def test_every_native_recording_is_in_the_table():
    names = {path.name for path in [*DATA.glob("sse-*"), *DATA.glob("chunks-*")]}
    native = {name for name in names if "anthropic" in name or "-gemini" in name or "sse-gemini3" in name}
    native -= {"sse-aihubmix-gemini-reasoning.excerpt.txt"}
    assert native | {"gemini-stream-json-array-no-alt-sse.json"} == set(STREAMS)


@pytest.mark.parametrize("name", STREAMS)
def test_a_native_recording_reads_as_noted_whole_and_byte_by_byte(name):
    body = body_of(name)
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        found = summary(*read_in_pieces(client_for(name), pieces))
        assert found == STREAMS[name]


@pytest.mark.parametrize("name", STREAMS)
def test_a_native_recording_reads_as_noted_however_it_is_cut(name):
    body = body_of(name)
    whole, _ = read_in_pieces(client_for(name), [body])
    for seed in SEEDS:
        chance = random.Random(f"{name} {seed}")
        cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.choice((1, 3, 30, 300))))
        pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        frames, problem = read_in_pieces(client_for(name), pieces)
        assert summary(frames, problem) == STREAMS[name], seed
        assert steady(frames) == steady(whole), seed


@pytest.mark.parametrize("name", [name for name, noted in STREAMS.items() if noted.end == "complete"])
def test_a_v1_caller_reads_the_same_from_the_bytes_that_go_out(name):
    frames, _ = read_in_pieces(client_for(name), [body_of(name)])
    expected = STREAMS[name]
    assert as_callers_read_it(frames) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_a_chunk_is_the_json_of_its_bytes_and_a_complete_stream_ends_as_openais_do(name):
    frames, _ = read_in_pieces(client_for(name), [body_of(name)])
    for frame in frames:
        if frame.data is not None:
            assert (
                frame.raw
                == b"data: " + json.dumps(frame.data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
            )
    if STREAMS[name].end != "complete":
        assert not any(frame.done or frame.delta.finish_reason for frame in frames)
        return
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1].raw == DONE
    finished = [at for at, frame in enumerate(frames) if frame.delta.finish_reason]
    rest = [frame.data["choices"] for frame in frames[finished[0] + 1 : -1]]
    assert len(finished) == 1
    assert rest == ([[]] if STREAMS[name].usage else [])


def _before_its_end(name: str) -> bytes:
    """The recording up to the middle of the first event that says why it ended."""
    body = body_of(name).replace(b"\r\n", b"\n")
    mark = b'"message_stop"' if "anthropic" in name else b'"finishReason"'
    if name == "sse-gemini-prompt-blocked-safety.txt":
        mark = b'"blockReason"'
    return body[: body.index(mark)]


@pytest.mark.parametrize("name", [name for name in STREAMS if "error" not in name and not name.endswith(".json")])
def test_a_native_recording_without_its_end_is_interrupted_and_keeps_its_text(name):
    """F5, F6: neither protocol has a [DONE]; nothing may call complete what did not say why it ended."""
    frames, problem = read_in_pieces(client_for(name), [_before_its_end(name)])
    assert isinstance(problem, ProviderBroken)
    assert problem.code == "interrupted"
    found = summary(frames, None)
    assert found.finish is None
    assert not any(frame.done for frame in frames)
    if "gemini" not in name:
        assert found.text == STREAMS[name].text or name == "chunks-anthropic-refusal.jsonl"
        assert found.tools == STREAMS[name].tools
        assert found.usage == STREAMS[name].usage, "the delta's counts were there before the end"


async def test_every_native_recording_reads_as_noted_over_a_real_socket():
    """The whole way: request, TCP, the outbound door, stream(); the server dribbles in uneven pieces."""
    heard: list[tuple[str, str]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
        )
        asked = json.loads(await reader.readexactly(length))
        line = head.split("\r\n")[0]
        said = (asked.get("system") or [asked.get("systemInstruction", {}).get("parts", [{}])[0]])[0]["text"]
        heard.append((line, head.lower()))
        body = body_of(said)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chance = random.Random(said)
        at = 0
        while at < len(body):
            piece = body[at : at + chance.choice((7, 1_000, 20_000))]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            at += len(piece)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    net.configure(net.Policy(hosts={"upstream.test:80": ("127.0.0.1", port)}))
    try:
        for name, expected in STREAMS.items():
            client = client_for(name, "http://upstream.test")
            messages = [{"role": "system", "content": name}, {"role": "user", "content": "hi"}]
            frames = []
            async with aclosing(client.stream({"model": "some-model", "messages": messages})) as stream:
                async for frame in stream:
                    frames.append(frame)
            assert summary(frames, None) == expected, name
            line, head = heard[-1]
            if "anthropic" in name:
                assert line == "POST /v1/messages HTTP/1.1"
                assert f"x-api-key: {KEY}" in head
                assert "anthropic-version: 2023-06-01" in head
            else:
                assert line == "POST /v1beta/models/some-model:streamGenerateContent?alt=sse HTTP/1.1"
                assert f"x-goog-api-key: {KEY}" in head
            assert "authorization" not in head
            assert head.count(KEY) == 1
    finally:
        await net.close()
        server.close()


# --- answers in one piece --------------------------------------------------------------------------------------------


def whole_of(client: NativeClient, document) -> Native:
    reader = client.frame_reader(200, {})
    frames = [frame for piece in reader.pieces_of(document) for frame in reader.read_value(piece)]
    data, delta, raw = assembled(frames + reader._last_frames())
    assert raw == b""
    assert data["object"] == "chat.completion"
    choice = data["choices"][0]
    message = choice["message"]
    assert (message["content"] or message["refusal"] or "") == delta.text
    assert choice["finish_reason"] == delta.finish_reason
    found = {"text": delta.text, "reasoning": delta.reasoning, "usage": delta.usage, "finish": delta.finish_reason}
    tools = {call.index: [call.id, call.name, call.arguments] for call in delta.tool_calls}
    return noted({**found, "annotations": len(delta.annotations)}, tools, "complete", json.dumps(data).count('"sb1.'))


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_an_answer_in_one_piece_reads_as_noted(at):
    line = json.loads((DATA / "native-nonstream-cache-usage.jsonl").read_text("utf-8").splitlines()[at])
    client = client_for(line["provider"])
    assert whole_of(client, line["body"]) == WHOLE[at]
    # An upstream that ignores `stream` answers so to a stream request as well.
    body = json.dumps(line["body"]).encode()
    for size in (1, 7, len(body)):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert summary(*read_in_pieces(client, pieces)) == WHOLE[at]


# --- refusals --------------------------------------------------------------------------------------------------------


def error_lines() -> list[dict]:
    text = (DATA / "error-bodies-native.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def refuser(line: dict):
    if line["provider"] == "openai-responses":
        return registry.create("openai_compatible", base_url="https://upstream.test/v1", api_key=KEY)
    return client_for(line["provider"])


def test_every_native_error_body_is_in_the_table():
    assert len(error_lines()) == len(REFUSALS)


@pytest.mark.parametrize("at", [at for at, row in enumerate(REFUSALS) if not isinstance(row, Native)])
def test_a_native_error_body_means_what_was_noted(at):
    line, expected = error_lines()[at], REFUSALS[at]
    client = refuser(line)
    for body in (json.dumps(line["body"], ensure_ascii=False).encode(), line["body"]):
        error = client.parse_error(line["http_status"], {}, body)
        assert (error.code, error.permanent) == (expected.code, expected.permanent)
        assert error.detail.startswith(expected.detail)
        assert error.status == line["http_status"]
        assert error.retry_after == RETRY_AFTER.get(at)
        assert "ORIGINAL ERROR" not in error.public_message, "details are never shown"


@pytest.mark.parametrize("at", [at for at, row in enumerate(REFUSALS) if isinstance(row, Native)])
def test_a_blocked_answer_is_an_answer(at):
    line = error_lines()[at]
    assert whole_of(client_for("gemini"), line["body"]) == REFUSALS[at]


@pytest.mark.parametrize(
    "at",
    [at for at, row in enumerate(REFUSALS) if not isinstance(row, Native) and at not in (2, 7, 8)],
)
def test_a_native_error_body_ends_a_stream_request_however_it_is_cut(at):
    """F8: the body as the answer with status 200, as an event inside a stream, and bare between the events."""
    line, expected = error_lines()[at], REFUSALS[at]
    name = line["provider"]
    raw = json.dumps(line["body"], indent=1).encode()
    for size in (1, 5, len(raw)):
        pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
        frames, problem = read_in_pieces(client_for(name), pieces)
        errors = [frame.delta.error for frame in frames] + [problem]
        (error,) = [error for error in errors if error is not None]
        assert isinstance(error, ProviderError)
        assert error.code == expected.code
        assert error.detail.startswith(expected.detail)
    body = line["body"][0] if isinstance(line["body"], list) else line["body"]
    hello = b'data: {"candidates":[{"content":{"parts":[{"text":"Hel"}]}}]}\n\n'
    if name == "anthropic":
        hello = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}\n\n'
    events = [hello + b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n"]
    if name == "gemini":
        events.append(hello + json.dumps(line["body"], indent=2).encode())
    for event in events:
        for size in (1, 7, len(event)):
            pieces = [event[start : start + size] for start in range(0, len(event), size)]
            frames, problem = read_in_pieces(client_for(name), pieces)
            assert problem is None
            assert [frame.delta.text for frame in frames] == ["Hel", ""]
            assert frames[1].delta.error.code == expected.code
            assert "ORIGINAL ERROR" not in str(frames[1].raw)


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODEL_LISTS)
def test_a_native_model_list_reads_as_noted(name):
    """F13: every row that answers chats lands; no price is made up."""
    client = client_for(name)
    document = client._read_json(net.Response(200, {}, (DATA / name).read_bytes()))
    rows, after = client.read_page(document)
    models, skipped = client.read_rows(rows)
    expected = MODEL_LISTS[name]
    assert skipped == 0
    assert (len(rows), len(models)) == (expected.rows, expected.models)
    assert len({model.model_id for model in models}) == expected.models
    assert sum(model.context_window is not None for model in models) == expected.contexts
    assert sum("reasoning" in model.capabilities for model in models) == expected.reasoning
    assert sum("vision" in model.capabilities for model in models) == expected.vision
    assert Counter(model.model_type for model in models) == expected.types
    assert all(model.prices.input is None and not model.raw_pricing for model in models)
    assert after == ("Ch9tb2RlbHMvdmVvLTMuMS1nZW5lcmF0ZS1wcmV2aWV3" if "gemini" in name else "")


def test_single_rows_of_native_lists_read_as_noted():
    found = {}
    for name in MODEL_LISTS:
        client = client_for(name)
        rows, _ = client.read_page(json.loads((DATA / name).read_text("utf-8")))
        found |= {model.model_id: model for model in client.read_rows(rows)[0]}
    opus = found["claude-opus-4-7"]
    assert (opus.display_name, opus.context_window, opus.max_output_tokens) == ("Claude Opus 4.7", 1_000_000, 128_000)
    assert opus.input_modalities == ("text", "image", "file")
    assert opus.released_at.isoformat() == "2026-04-14T00:00:00+00:00"
    flash = found["gemini-2.5-flash"]
    assert (flash.display_name, flash.context_window, flash.max_output_tokens) == (
        "Gemini 2.5 Flash",
        1_048_576,
        65_536,
    )
    assert "gemini-embedding-001" not in found
