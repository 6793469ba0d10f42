"""Issue 2, item 11: every recording, whole, byte by byte and cut at random, equals the table noted from the raw file."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import settings

from providers import net
from providers.clients import registry
from providers.clients.errors import ProviderBroken, ProviderError
from providers.clients.openai_compatible import FrameReader, OpenAICompatibleClient

from .recordings import MODEL_LISTS, OTHER_DIALECTS, REFUSALS, STREAMS, Recording

DATA = Path(settings.BASE_DIR).parent / "shared" / "data"
SEEDS = range(20)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.recordings,
    pytest.mark.skipif(
        not DATA.is_dir() and os.environ.get("REQUIRE_RECORDINGS") != "1", reason="../shared/data is not here"
    ),
]


def body_of(name: str) -> bytes:
    """The recording as event-stream bytes; chunks-*.jsonl get back the framing their collector removed."""
    content = (DATA / name).read_bytes()
    if name.startswith("sse-"):
        return content
    lines = [line for line in content.split(b"\n") if line.strip()]
    return b"".join(b"data: " + line + b"\n\n" for line in [*lines, b"[DONE]"])


def client_for(name: str, base_url: str = "https://upstream.test/v1") -> OpenAICompatibleClient:
    kind = next((kind for kind in ("openrouter", "aihubmix") if kind in name), "openai_compatible")
    return registry.create(kind, base_url=base_url, api_key="sk-test-0123456789abcdef")


def read_in_pieces(client: OpenAICompatibleClient, pieces):
    """(frames, problem) of the pure reader, fed as a stream would feed it."""
    reader, frames = FrameReader(client), []
    for piece in pieces:
        frames += reader.feed(piece)
        if reader.is_done or reader.problem:
            return frames, reader.problem
    return frames + reader.close(), reader.problem


def summary(frames, problem) -> Recording:
    """What a consumer of the client would have collected, in the table's shape."""
    text = "".join(frame.delta.text for frame in frames)
    reasoning = "".join(frame.delta.reasoning for frame in frames)
    tools: dict[int, list[str]] = {}
    finish = usage = error = None
    annotations = 0
    for frame in frames:
        for call in frame.delta.tool_calls:
            known = tools.setdefault(call.index, ["", "", ""])
            known[0] = known[0] or call.id
            known[1] = known[1] or call.name
            known[2] += call.arguments
        finish = frame.delta.finish_reason or finish
        usage = frame.delta.usage or usage
        error = error or frame.delta.error
        annotations += len(frame.delta.annotations)
    end = "complete"
    if problem is not None:
        end = f"problem:{problem.code}"
    elif error is not None:
        end = f"error:{error.code}"
    return Recording(
        text=hashlib.sha256(text.encode()).hexdigest(),
        length=len(text),
        usage=usage
        and (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        ),
        reasoning=(len(reasoning), hashlib.sha256(reasoning.encode()).hexdigest()[:16]) if reasoning else (0, ""),
        tools=tuple(tuple(tools[index]) for index in sorted(tools)),
        cost=None if usage is None or usage.cost is None else str(usage.cost),
        finish=finish,
        end=end,
        annotations=annotations,
        done=any(frame.done for frame in frames),
    )


def same(found: Recording, expected: Recording) -> bool:
    """Equal, money compared as numbers (0.10 is 0.1), everything else to the letter."""
    money = [None if value is None else Decimal(value) for value in (found.cost, expected.cost)]
    return money[0] == money[1] and found._replace(cost=None) == expected._replace(cost=None)


def test_every_recording_of_the_dialect_is_in_the_table():
    names = {
        path.name
        for path in [*DATA.glob("sse-*"), *DATA.glob("chunks-*")]
        if path.name.startswith("sse-aihubmix") or not any(part in path.name for part in OTHER_DIALECTS)
    }
    assert names == set(STREAMS)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recording_reads_as_noted_whole_and_byte_by_byte(name):
    body = body_of(name)
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        found = summary(*read_in_pieces(client_for(name), pieces))
        assert same(found, STREAMS[name]), found


@pytest.mark.parametrize("name", STREAMS)
def test_a_recording_reads_as_noted_however_it_is_cut(name):
    body = body_of(name)
    whole, _ = read_in_pieces(client_for(name), [body])
    for seed in SEEDS:
        chance = random.Random(f"{name} {seed}")
        cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.choice((1, 3, 30, 300))))
        pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        frames, problem = read_in_pieces(client_for(name), pieces)
        assert same(summary(frames, problem), STREAMS[name]), seed
        assert [frame.raw for frame in frames] == [frame.raw for frame in whole], seed


@pytest.mark.parametrize("name", STREAMS)
def test_frames_carry_the_bytes_the_server_sent(name):
    """Everything but comments goes out as it came, and each frame's JSON is the JSON of its bytes."""
    body = body_of(name)
    frames, _ = read_in_pieces(client_for(name), [body])
    blocks = [block + b"\n\n" for block in body.split(b"\n\n") if block.strip() and not block.startswith(b":")]
    assert [frame.raw for frame in frames] == blocks
    for frame in frames:
        if not frame.done:
            assert frame.data == json.loads(frame.raw.partition(b"data: ")[2])


@pytest.mark.parametrize("name", STREAMS)
def test_a_recording_without_its_end_is_interrupted_and_keeps_its_text(name):
    """F5, F6: cut before the first finish reason and terminator, so nothing may call it complete."""
    body = body_of(name)
    events = [block + b"\n\n" for block in body.split(b"\n\n") if block.strip()]
    ends = [
        at
        for at, block in enumerate(events)
        if b'"finish_reason":"' in block or b"[DONE]" in block or b'{"error"' in block
    ]
    cut = b"".join(events[: ends[0]]) + events[ends[0]][: len(events[ends[0]]) // 3]
    frames, problem = read_in_pieces(client_for(name), [cut])
    assert isinstance(problem, ProviderBroken)
    assert problem.code == "interrupted"
    assert len(frames) == len([block for block in events[: ends[0]] if not block.startswith(b":")])


async def test_every_recording_reads_as_noted_over_a_real_socket():
    """The whole way: request, TCP, the outbound door, stream(); the server dribbles in uneven pieces."""
    bodies = {name: body_of(name) for name in STREAMS}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
        )
        asked = json.loads(await reader.readexactly(length))
        assert asked["stream"] is True
        assert asked["stream_options"]["include_usage"] is True
        assert "authorization: bearer sk-test-0123456789abcdef" in head.lower()
        body = bodies[asked["model"]]
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chance = random.Random(asked["model"])
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
            client = client_for(name, "http://upstream.test/v1")
            frames = []
            async with aclosing(client.stream({"model": name, "messages": []})) as stream:
                async for frame in stream:
                    frames.append(frame)
            assert same(summary(frames, None), expected), name
    finally:
        await net.close()
        server.close()


def error_lines() -> list[dict]:
    return [json.loads(line) for line in (DATA / "error-bodies.jsonl").read_text("utf-8").splitlines() if line.strip()]


def test_every_error_body_is_in_the_table():
    assert len(error_lines()) == len(REFUSALS)


@pytest.mark.parametrize("at", range(len(REFUSALS)))
def test_an_error_body_means_what_was_noted(at):
    """F9: the same from bytes and from JSON, and with the status gone, if the body names one."""
    line, expected = error_lines()[at], REFUSALS[at]
    client = client_for(line["provider"])
    body = json.dumps(line["body"], ensure_ascii=False).encode()
    for error in (
        client.parse_error(line["http_status"], {}, body),
        client.parse_error(line["http_status"], {}, line["body"]),
    ):
        assert (error.code, error.permanent) == (expected.code, expected.permanent)
        assert error.detail.startswith(expected.detail)
        assert error.status == line["http_status"]


@pytest.mark.parametrize("at", range(len(REFUSALS)))
def test_an_error_body_ends_a_stream_request_however_it_is_cut(at):
    """F8: the body as the answer to a stream request with status 200, and as an event inside a stream."""
    body = error_lines()[at]["body"]
    for raw in (json.dumps(body).encode(), json.dumps(body, ensure_ascii=False, indent=1).encode() + b"\n"):
        for size in (1, 5, len(raw)):
            frames, problem = read_in_pieces(
                client_for("x"), [raw[start : start + size] for start in range(0, len(raw), size)]
            )
            assert frames == []
            assert isinstance(problem, ProviderError)
            assert problem.detail.startswith(REFUSALS[at].detail)
    event = b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: ' + json.dumps(body).encode() + b"\n\n"
    for size in (1, 7, len(event)):
        frames, problem = read_in_pieces(
            client_for("x"), [event[start : start + size] for start in range(0, len(event), size)]
        )
        assert problem is None
        assert [frame.delta.text for frame in frames] == ["Hel", ""]
        assert frames[1].delta.error.detail.startswith(REFUSALS[at].detail)


HOSTS = {
    "deepinfra": "api.deepinfra.com",
    "requesty": "router.requesty.ai",
    "together": "api.together.ai",
    "venice": "api.venice.ai",
}


@pytest.mark.parametrize("name", MODEL_LISTS)
def test_a_model_list_reads_as_noted(name):
    """F13: every row lands or is a repetition, none is skipped, and prices are where the unit is known."""
    host = next((host for part, host in HOSTS.items() if part in name), "upstream.test")
    kind = "aihubmix" if "aihubmix-api" in name else "openrouter" if "openrouter" in name else "openai_compatible"
    client = registry.create(kind, base_url=f"https://{host}/v1")
    answer = net.Response(200, {}, (DATA / name).read_bytes())
    rows = client._rows(client._read_json(answer), answer)
    models, skipped = client.read_rows(rows)
    priced = [model for model in models if model.prices.input is not None]
    assert (len(rows), len(models), len(priced)) == MODEL_LISTS[name]
    assert skipped == 0
