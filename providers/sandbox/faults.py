"""Everything an upstream can do wrong, by model id, as bytes on the socket (threats.md F1, F3-F12, K5, S3, S9).

`FAULTS` lists the ids. Families take a number: `fault-status-429`, `fault-status-503-retry-after-7`,
`fault-redirect-302`. The text before and after a fault is always `HELLO` and `REST`, so that a test can name both.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from providers.sandbox import answers
from providers.sandbox.answers import Answer
from providers.sandbox.server import Exchange, encode

HELLO = "Hello, this is "
REST = "the rest of the answer."
CREATED = 1_767_225_600
PAGE = (
    b"<!doctype html>\n<html><head><title>502 Bad Gateway</title></head>"
    b'<body><h1>502 Bad Gateway</h1><script>alert("upstream")</script><hr>cdn</body></html>\n'
)
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
_LIMIT = 64 << 20
"""Bytes after which an endless answer ends after all: this process must not run for ever on a forgotten client."""

Fault = Callable[[Exchange, dict[str, Any]], Awaitable[None]]
FAULTS: dict[str, Fault] = {}


def fault(*names: str) -> Callable[[Fault], Fault]:
    """Register a coroutine as the model `fault-<name>`."""

    def add(function: Fault) -> Fault:
        for name in names:
            FAULTS[f"fault-{name}"] = function
        return function

    return add


def find(model_id: str) -> Fault | None:
    """The fault behind a model id, or None."""
    if match := re.fullmatch(r"fault-status-(\d{3})(?:-retry-after(?:-(\d{1,6}))?)?", model_id):
        status, seconds = int(match[1]), match[2] or ("3" if "retry-after" in model_id else "")
        return lambda exchange, body: _status(exchange, status, seconds)
    if match := re.fullmatch(r"fault-redirect-(30[1-8])", model_id):
        status = int(match[1])
        return lambda exchange, body: _redirect(exchange, status)
    return FAULTS.get(model_id)


# -- A well-formed answer, which faults borrow from ------------------------------------------------------------------


class Talk:
    """One answer in OpenAI's shape, whole or as a stream."""

    def __init__(
        self,
        exchange: Exchange,
        body: dict[str, Any],
        answer: Answer | None = None,
        usage: Any = USAGE,
        finish: str = "stop",
    ) -> None:
        self.exchange, self.body, self.finish = exchange, body, finish
        self.answer = answer or Answer(HELLO + REST)
        self.usage = usage
        self.model = body["model"]
        self.id = "chatcmpl-" + hashlib.sha256(exchange.body).hexdigest()[:24]

    def chunk(self, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "choices": choices,
            **more,
        }

    def whole(self, **more: Any) -> dict[str, Any]:
        """The answer in one piece; `more` replaces top-level keys."""
        message: dict[str, Any] = {"role": "assistant", "content": self.answer.text or None, "refusal": None}
        if self.answer.reasoning:
            message["reasoning_content"] = self.answer.reasoning
        if self.answer.tool_calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in self.answer.tool_calls
            ]
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}],
            "usage": self.usage,
        } | more

    def deltas(self) -> list[dict[str, Any]]:
        """Every delta of the stream, in order, without the first (role) and the last (finish)."""
        found: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in answers.pieces(self.answer.reasoning)]
        found += [{"content": piece} for piece in answers.pieces(self.answer.text)]
        for index, (call_id, name, arguments) in enumerate(self.answer.tool_calls):
            function = {"name": name, "arguments": ""}
            found.append({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})
            found += [
                {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 8]}}]}
                for at in range(0, len(arguments), 8)
            ]
        return found

    async def stream(self, *, per_piece: float = 0, scaled: bool = True) -> None:
        """The stream as it should be. `per_piece`: seconds between pieces, over the server's speed if `scaled`."""
        exchange = self.exchange
        options = self.body.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        await exchange.open_stream(x_request_id=self.id)
        await exchange.event(self.chunk({"role": "assistant", "content": ""}))
        for count, delta in enumerate(self.deltas()):
            await exchange.server.gate.pass_after(count, exchange)
            await (exchange.pause if scaled else exchange.wait)(per_piece)
            await exchange.event(self.chunk(delta))
        await exchange.event(self.chunk({}, self.finish))
        if wants_usage:
            await exchange.event(self.chunk(None, usage=self.usage))
        await exchange.chunk(DONE)
        await exchange.end_stream()

    # Parts of a stream, for faults. Each piece is one write, so that it is one packet where that matters.

    async def begin(self, *, raw: bool = False) -> None:
        """Headers, the role, and HELLO. `raw`: the response ends with the connection instead of in chunks."""
        await (self.exchange.open_unframed() if raw else self.exchange.open_stream())
        await self.exchange.event(self.chunk({"role": "assistant", "content": ""}))
        await self.exchange.event(self.chunk({"content": HELLO}))

    async def rest(self, *, usage: bool = True, done: bool = True) -> None:
        """REST, the finish reason, usage, `[DONE]`, and the end of the response."""
        await self.exchange.event(self.chunk({"content": REST}))
        await self.exchange.event(self.chunk({}, "stop"))
        if usage:
            await self.exchange.event(self.chunk(None, usage=self.usage))
        if done:
            await self.exchange.chunk(DONE)
        await self.exchange.end_stream()

    async def frames(self, *parts: bytes | dict[str, Any]) -> None:
        """HELLO, then these frames (dicts as events, bytes as they are), then the rest."""
        await self.begin()
        for part in parts:
            await (self.exchange.chunk(part) if isinstance(part, bytes) else self.exchange.event(part))
        await self.rest()

    def all_bytes(self) -> bytes:
        """The stream of HELLO and REST as one byte string."""
        events = (
            self.chunk({"role": "assistant", "content": ""}),
            self.chunk({"content": HELLO}),
            self.chunk({"content": REST}),
            self.chunk({}, "stop"),
            self.chunk(None, usage=self.usage),
        )
        return b"".join(b"data: " + encode(event) + b"\n\n" for event in events) + DONE


def _streams(body: dict[str, Any]) -> bool:
    return body.get("stream") is True


# -- F1, F3, F4, F5, F6: connections ---------------------------------------------------------------------------------


@fault("refuse", "reset-first")
async def _reset_first(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.reset()


@fault("silent-headers")
async def _silent_headers(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.silence()


@fault("silent-body")
async def _silent_body(exchange: Exchange, body: dict[str, Any]) -> None:
    if _streams(body):
        await exchange.open_stream()
    else:
        await exchange.head(200, {"Content-Type": "application/json", "Content-Length": "500"})
    await exchange.silence()


@fault("silent-mid")
async def _silent_mid(exchange: Exchange, body: dict[str, Any]) -> None:
    if _streams(body):
        await Talk(exchange, body).begin()
    else:
        await exchange.head(200, {"Content-Type": "application/json", "Content-Length": "500"})
        await exchange.write(b'{"id":"chatcmpl-1","choices":[')
    await exchange.silence()


@fault("silent-end")
async def _silent_end(exchange: Exchange, body: dict[str, Any]) -> None:
    """All is said, `[DONE]` included, but the response never ends."""
    await exchange.open_stream()
    await exchange.chunk(Talk(exchange, body).all_bytes())
    await exchange.silence()


@fault("drip")
async def _drip(exchange: Exchange, body: dict[str, Any]) -> None:
    """Comments for ever, five a second: never silent, never anything to read (F4)."""
    await Talk(exchange, body).begin()
    while True:
        await exchange.wait(0.2)
        await exchange.chunk(b": still here\n\n")


@fault("drip-bytes")
async def _drip_bytes(exchange: Exchange, body: dict[str, Any]) -> None:
    """One byte of an event that never ends, five a second (F4)."""
    await Talk(exchange, body).begin()
    await exchange.chunk(b"data: ")
    while True:
        await exchange.wait(0.2)
        await exchange.chunk(b"x")


@fault("drip-headers")
async def _drip_headers(exchange: Exchange, body: dict[str, Any]) -> None:
    """A header line that never ends, five bytes a second (F4)."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await exchange.wait(0.2)
        await exchange.write(b"x")


@fault("reset-mid")
async def _reset_mid(exchange: Exchange, body: dict[str, Any]) -> None:
    """A reset inside an event."""
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.chunk(b"data: " + encode(talk.chunk({"content": REST}))[:60])
    await exchange.reset()


@fault("reset-after-text")
async def _reset_after_text(exchange: Exchange, body: dict[str, Any]) -> None:
    """All text, then a reset: no finish reason, no usage."""
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.event(talk.chunk({"content": REST}))
    await exchange.reset()


@fault("reset-before-usage")
async def _reset_before_usage(exchange: Exchange, body: dict[str, Any]) -> None:
    """All text and the finish reason, then a reset: no usage."""
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.event(talk.chunk({"content": REST}))
    await exchange.event(talk.chunk({}, "stop"))
    await exchange.reset()


@fault("eof")
async def _eof(exchange: Exchange, body: dict[str, Any]) -> None:
    """A clean end after HELLO: the HTTP framing is whole, but nothing says that the answer is."""
    if not _streams(body):
        await exchange.open_unframed("application/json")
        await exchange.chunk(encode(Talk(exchange, body).whole())[:-30])
        exchange.hang_up()
    await Talk(exchange, body).begin(raw=True)
    exchange.hang_up()


@fault("eof-in-event")
async def _eof_in_event(exchange: Exchange, body: dict[str, Any]) -> None:
    """The connection ends cleanly in the middle of a frame."""
    talk = Talk(exchange, body)
    await talk.begin(raw=True)
    await exchange.chunk(b"data: " + encode(talk.chunk({"content": REST}))[:60])
    exchange.hang_up()


@fault("eof-chunked")
async def _eof_chunked(exchange: Exchange, body: dict[str, Any]) -> None:
    """A chunked response without its last chunk."""
    await Talk(exchange, body).begin()
    exchange.hang_up()


@fault("short-length")
async def _short_length(exchange: Exchange, body: dict[str, Any]) -> None:
    """Fewer bytes than Content-Length promised."""
    talk = Talk(exchange, body)
    content = talk.all_bytes() if _streams(body) else encode(talk.whole())
    kind = "text/event-stream" if _streams(body) else "application/json"
    await exchange.head(200, {"Content-Type": kind, "Content-Length": str(len(content) + 1000)})
    await exchange.write(content[: len(content) // 2])
    exchange.hang_up()


@fault("broken-chunking")
async def _broken_chunking(exchange: Exchange, body: dict[str, Any]) -> None:
    """A chunk size that is no number."""
    await Talk(exchange, body).begin()
    await exchange.wait(0.05)  # so that what came before is read before, as on a real network
    await exchange.write(b"zz\r\ndata: {}\n\n\r\n")
    exchange.hang_up()


@fault("no-done")
async def _no_done(exchange: Exchange, body: dict[str, Any]) -> None:
    """Everything but `[DONE]`, which many providers leave out: complete."""
    talk = Talk(exchange, body)
    await talk.begin()
    await talk.rest(done=False)


@fault("no-finish")
async def _no_finish(exchange: Exchange, body: dict[str, Any]) -> None:
    """`[DONE]` without a finish reason: complete."""
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.event(talk.chunk({"content": REST}))
    await exchange.event(talk.chunk(None, usage=USAGE))
    await exchange.chunk(DONE)
    await exchange.end_stream()


@fault("no-blank-line")
async def _no_blank_line(exchange: Exchange, body: dict[str, Any]) -> None:
    """The last frame, `[DONE]`, is not followed by a blank line."""
    await exchange.open_stream()
    await exchange.chunk(Talk(exchange, body).all_bytes()[:-2])
    await exchange.end_stream()


# -- F7, F8, F9: the wrong answer ------------------------------------------------------------------------------------


@fault("html")
async def _html(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.answer(200, PAGE, "text/html; charset=utf-8")


@fault("html-502")
async def _html_502(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.answer(502, PAGE, "text/html; charset=utf-8")


@fault("empty")
async def _empty(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.answer(200, b"", "text/event-stream" if _streams(body) else "application/json")


@fault("json-for-sse")
async def _json_for_sse(exchange: Exchange, body: dict[str, Any]) -> None:
    """The answer in one piece although a stream was asked for."""
    await exchange.json(Talk(exchange, body).whole())


@fault("sse-for-json")
async def _sse_for_json(exchange: Exchange, body: dict[str, Any]) -> None:
    """A stream, called application/json."""
    await exchange.open_stream("application/json")
    await exchange.chunk(Talk(exchange, body).all_bytes())
    await exchange.end_stream()


_ERROR = {"error": {"message": "The engine is on fire.", "type": "server_error", "param": None, "code": "engine_fire"}}


@fault("200-error")
async def _200_error(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.json(_ERROR)


@fault("first-error")
async def _first_error(exchange: Exchange, body: dict[str, Any]) -> None:
    """A 200 stream whose only event is an error."""
    await exchange.open_stream()
    await exchange.event(_ERROR)
    await exchange.end_stream()


@fault("mid-error")
async def _mid_error(exchange: Exchange, body: dict[str, Any]) -> None:
    """An error object after some text."""
    if not _streams(body):
        await exchange.json(_ERROR)
        return
    await Talk(exchange, body).begin()
    await exchange.event(_ERROR)
    await exchange.chunk(DONE)
    await exchange.end_stream()


@fault("mid-error-string")
async def _mid_error_string(exchange: Exchange, body: dict[str, Any]) -> None:
    await Talk(exchange, body).begin()
    await exchange.event({"error": "The engine is on fire."})
    await exchange.end_stream()


@fault("event-error")
async def _event_error(exchange: Exchange, body: dict[str, Any]) -> None:
    """The error is in the event's name."""
    await Talk(exchange, body).begin()
    await exchange.chunk(b"event: error\ndata: " + encode({"message": "The engine is on fire."}) + b"\n\n")
    await exchange.end_stream()


@fault("finish-error")
async def _finish_error(exchange: Exchange, body: dict[str, Any]) -> None:
    """OpenRouter's way: the error beside a finish reason."""
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.event(talk.chunk({"content": ""}, "error", **_ERROR))
    await exchange.chunk(DONE)
    await exchange.end_stream()


_MESSAGES = {
    400: "The request is not valid.",
    401: "Incorrect API key provided.",
    402: "Your balance is used up.",
    403: "Your key may not use this model.",
    404: "The model does not exist.",
    408: "The request took too long.",
    413: "The request is too large.",
    429: "Rate limit reached. Please slow down.",
    529: "We are overloaded.",
}


async def _status(exchange: Exchange, status: int, retry_after: str) -> None:
    """F9: any status, with and without Retry-After. `fault-status-<code>[-retry-after[-<seconds>]]`."""
    more = {"Retry_After": retry_after} if retry_after else {}
    await exchange.refuse(status, _MESSAGES.get(status, "Something went wrong."), None, **more)


for _code in (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529):
    FAULTS[f"fault-status-{_code}"] = find(f"fault-status-{_code}")  # type: ignore[assignment]


async def _redirect(exchange: Exchange, status: int) -> None:
    target = exchange.query.get("to", f"http://127.0.0.1:{exchange.server.port}/v1/models")
    await exchange.answer(status, b"", Location=target)


@fault("redirect")
async def _redirect_308(exchange: Exchange, body: dict[str, Any]) -> None:
    """S3: the one that keeps method, body and key."""
    await _redirect(exchange, 308)


# -- F10: frames -----------------------------------------------------------------------------------------------------


@fault("bad-json")
async def _bad_json(exchange: Exchange, body: dict[str, Any]) -> None:
    """One frame that is not JSON among good ones."""
    talk = Talk(exchange, body)
    if not _streams(body):
        await exchange.answer(200, encode(talk.whole())[:-5])
        return
    await talk.frames(b'data: {"choices":[{"delta":{"content":"lost"\n\n')


@fault("bad-json-only")
async def _bad_json_only(exchange: Exchange, body: dict[str, Any]) -> None:
    """Nothing but frames that are not JSON."""
    await exchange.open_stream()
    for _ in range(40):
        await exchange.chunk(b"data: {not json\n\n")
    await exchange.chunk(DONE)
    await exchange.end_stream()


@fault("not-objects")
async def _not_objects(exchange: Exchange, body: dict[str, Any]) -> None:
    """JSON that is not an object."""
    await Talk(exchange, body).frames(b"data: null\n\n", b"data: 7\n\n", b'data: ""\n\n', b"data: []\n\n")


@fault("glued")
async def _glued(exchange: Exchange, body: dict[str, Any]) -> None:
    """Two documents in one frame, the first cut off, as one gateway was seen to send."""
    talk = Talk(exchange, body)
    await talk.frames(b'data: {"id":"xdata: ' + encode(talk.chunk({"content": "glued"})) + b"\n\n")


@fault("bad-utf8")
async def _bad_utf8(exchange: Exchange, body: dict[str, Any]) -> None:
    """A byte that no UTF-8 has, inside a JSON string: shown as U+FFFD."""
    talk = Talk(exchange, body)
    if not _streams(body):
        await exchange.answer(200, encode(talk.whole()).replace(b"Hello", b"He\xffllo"))
        return
    await talk.frames(b"data: " + encode(talk.chunk({"content": "bad@byte "})).replace(b"@", b"\xff") + b"\n\n")


UNICODE = "é 汉 👩‍🔬 \u2028 \u2029 \u0085 \u000b \ufeff end "
"""Characters that are legal in JSON and trip line splitters."""


@fault("split")
async def _split(exchange: Exchange, body: dict[str, Any]) -> None:
    """Every byte its own write, with characters of one to four bytes and CRLF line ends."""
    talk = Talk(exchange, body)
    if not _streams(body):
        content = encode(talk.whole())
        await exchange.head(200, {"Content-Type": "application/json", "Content-Length": str(len(content))})
        for byte in content:
            await exchange.write(bytes((byte,)))
            await exchange.pause(0)
        return
    frame = b"data: " + encode(talk.chunk({"content": UNICODE})) + b"\n\n"
    stream = frame + talk.all_bytes()
    await exchange.open_stream()
    for byte in stream.replace(b"\n", b"\r\n"):
        await exchange.chunk(bytes((byte,)))
        await exchange.pause(0)
    await exchange.end_stream()


@fault("cr")
async def _cr(exchange: Exchange, body: dict[str, Any]) -> None:
    """Lines end with CR alone, each in its own write."""
    await exchange.open_stream()
    for line in Talk(exchange, body).all_bytes().split(b"\n")[:-1]:
        await exchange.chunk(line + b"\r")
        await exchange.pause(0)
    await exchange.end_stream()


@fault("separators")
async def _separators(exchange: Exchange, body: dict[str, Any]) -> None:
    """U+2028 and friends unescaped inside a JSON string: no line ends there."""
    talk = Talk(exchange, body)
    await talk.frames(talk.chunk({"content": UNICODE}))


@fault("comments")
async def _comments(exchange: Exchange, body: dict[str, Any]) -> None:
    """Comments, retry and id lines, empty events, unknown fields, no space after the colon."""
    talk = Talk(exchange, body)
    await talk.frames(
        b": PROCESSING\n\n" * 5,
        b"retry: 3000\n\n",
        b"id: 7\n\n",
        b"event: ping\n\n",
        b"nonsense\n\n",
        b"unknown: field\n",
        b"data:" + encode(talk.chunk({"content": "no space, "})) + b"\n\n",
        b":\n\n",
    )


@fault("bom")
async def _bom(exchange: Exchange, body: dict[str, Any]) -> None:
    """A byte order mark before the first frame."""
    await exchange.open_stream()
    await exchange.chunk(b"\xef\xbb\xbf" + Talk(exchange, body).all_bytes())
    await exchange.end_stream()


@fault("multi-line-data")
async def _multi_line_data(exchange: Exchange, body: dict[str, Any]) -> None:
    """One JSON document over several data lines."""
    talk = Talk(exchange, body)
    document = encode(talk.chunk({"content": "many lines, "})).replace(b',"', b',\ndata: "')
    await talk.frames(b"data: " + document + b"\n\n")


@fault("big-event")
async def _big_event(exchange: Exchange, body: dict[str, Any]) -> None:
    """One event of 500 kB: large, but to be accepted."""
    talk = Talk(exchange, body)
    await talk.frames(talk.chunk({"content": "word " * 100_000}))


@fault("huge-event")
async def _huge_event(exchange: Exchange, body: dict[str, Any]) -> None:
    """One event that does not end, up to 64 MB (F10, F12)."""
    await Talk(exchange, body).begin()
    await exchange.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"')
    for _ in range(_LIMIT >> 16):
        await exchange.chunk(b"x" * (1 << 16))
    await exchange.end_stream()


@fault("after-done")
async def _after_done(exchange: Exchange, body: dict[str, Any]) -> None:
    """Text and an error after `[DONE]`: not read."""
    talk = Talk(exchange, body)
    await exchange.open_stream()
    await exchange.chunk(talk.all_bytes())
    await exchange.event(talk.chunk({"content": "TOO LATE"}))
    await exchange.event(_ERROR)
    await exchange.end_stream()


# -- F11: schema surprises -------------------------------------------------------------------------------------------


def _shape(name: str, *events: dict[str, Any], whole: dict[str, Any] | None = None) -> None:
    """A fault that is these chunks between HELLO and the rest; not streamed, the answer with `whole` put over it."""

    async def send(exchange: Exchange, body: dict[str, Any]) -> None:
        talk = Talk(exchange, body)
        if _streams(body):
            await talk.frames(*[{**talk.chunk({}), **event} for event in events])
        else:
            await exchange.json(talk.whole(**(whole or {})))

    FAULTS[f"fault-{name}"] = send


def _choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": None, **fields}]}


_shape("empty-choices", {"choices": []}, whole={"choices": []})
_shape("null-choices", {"choices": None}, whole={"choices": None})
_shape("null", _choice(delta=None), _choice(delta={"content": None}), {"choices": [None]}, whole={"choices": [None]})
_shape("no-delta", {"choices": [{"index": 0}]}, {"choices": [{}]}, whole={"choices": [{"index": 0}]})
_shape(
    "message-delta",
    _choice(message={"role": "assistant", "content": "in a message, "}),
    whole={"choices": [{"index": 0, "delta": {"content": HELLO + REST}, "finish_reason": "stop"}]},
)
_shape(
    "content-list",
    _choice(delta={"content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts, "}]}),
    whole={
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": [{"type": "text", "text": HELLO + REST}]},
                "finish_reason": "stop",
            }
        ]
    },
)
_shape(
    "unknown-fields",
    {**_choice(delta={"content": "more, ", "mood": "sunny"}), "weather": {"deep": [{"er": 1}]}, "n": 2**80},
    whole={"weather": {"deep": [1]}, "n": 2**80},
)
_shape("finish-words", _choice(delta={"content": "done, "}, finish_reason="end_turn"))
_shape("empty-finish", _choice(delta={"content": "on, "}, finish_reason=""))
_shape("odd-ids", {"id": "", "model": "other", "created": 0}, {"id": None, "model": None, "created": None})
_shape(
    "odd-tool-calls",
    _choice(delta={"tool_calls": [{"function": {"name": "look", "arguments": None}}]}),
    _choice(delta={"tool_calls": [{"function": {"arguments": {"a": 1}}}]}),
    _choice(delta={"tool_calls": None}),
    _choice(delta={"tool_calls": [None, 3]}),
)
_shape("think-tags", _choice(delta={"content": "<thi"}), _choice(delta={"content": "nk>late</think>"}))


@fault("no-choices")
async def _no_choices(exchange: Exchange, body: dict[str, Any]) -> None:
    """Chunks without the key `choices`."""
    talk = Talk(exchange, body)
    bare = {"id": talk.id, "object": "chat.completion.chunk", "created": CREATED, "model": talk.model}
    if not _streams(body):
        await exchange.json({**bare, "object": "chat.completion", "usage": USAGE})
        return
    await talk.frames(bare, {})


@fault("no-usage")
async def _no_usage(exchange: Exchange, body: dict[str, Any]) -> None:
    talk = Talk(exchange, body)
    if not _streams(body):
        whole = talk.whole()
        del whole["usage"]
        await exchange.json(whole)
        return
    await talk.begin()
    await talk.rest(usage=False)


def _usages(name: str, *usages: Any, last: Any) -> None:
    """A fault whose stream carries these usages on the way and `last` at the end."""

    async def send(exchange: Exchange, body: dict[str, Any]) -> None:
        talk = Talk(exchange, body, usage=last)
        if not _streams(body):
            await exchange.json(talk.whole())
            return
        await talk.begin()
        for usage in usages:
            await exchange.event(talk.chunk({"content": ""}, usage=usage))
        await talk.rest()

    FAULTS[f"fault-{name}"] = send


_usages(
    "usage-every-chunk",
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15},
    last=USAGE,
)
_usages("partial-usage", last={"prompt_tokens": 7})
_usages("null-usage", None, last=None)
_usages(
    "odd-usage",
    {"prompt_tokens": -5, "completion_tokens": "11", "total_tokens": 1.5},
    {"prompt_tokens": 10**40, "completion_tokens": True, "total_tokens": [], "cost": -1},
    "nonsense",
    last={"prompt_tokens": 7.0, "completion_tokens": None, "total_tokens": 18, "cost": "free"},
)
_usages("odd-cost", last={**USAGE, "cost": 1e300})


@fault("usage-with-finish")
async def _usage_with_finish(exchange: Exchange, body: dict[str, Any]) -> None:
    """Usage on the chunk that carries the finish reason."""
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.event(talk.chunk({"content": REST}))
    await exchange.event(talk.chunk({}, "stop", usage=USAGE))
    await exchange.chunk(DONE)
    await exchange.end_stream()


@fault("content-after-finish")
async def _content_after_finish(exchange: Exchange, body: dict[str, Any]) -> None:
    talk = Talk(exchange, body)
    await talk.begin()
    await exchange.event(talk.chunk({}, "stop"))
    await talk.rest()


# -- F12, S9: bombs --------------------------------------------------------------------------------------------------


@fault("gzip-bomb")
async def _gzip_bomb(exchange: Exchange, body: dict[str, Any]) -> None:
    """50 MB in about 50 kB, although nobody asked for compression."""
    kind = "text/event-stream" if _streams(body) else "application/json"
    await exchange.answer(200, _bomb(), kind, Content_Encoding="gzip")


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * (50 << 20), compresslevel=9, mtime=0)


@fault("endless")
async def _endless(exchange: Exchange, body: dict[str, Any]) -> None:
    """Text without end (64 MB), as fast as it is read."""
    talk = Talk(exchange, body)
    await talk.begin()
    frame = b"data: " + encode(talk.chunk({"content": "on and on " * 20})) + b"\n\n"
    for _ in range(_LIMIT // len(frame)):
        await exchange.chunk(frame)
    await exchange.end_stream()


@fault("big-headers")
async def _big_headers(exchange: Exchange, body: dict[str, Any]) -> None:
    """One header of 1 MB."""
    await exchange.answer(200, b"{}", X_Padding="x" * (1 << 20))


@fault("many-headers")
async def _many_headers(exchange: Exchange, body: dict[str, Any]) -> None:
    await exchange.answer(200, b"{}", **{f"X_Padding_{n}": "x" * 100 for n in range(5_000)})


@fault("set-cookie")
async def _set_cookie(exchange: Exchange, body: dict[str, Any]) -> None:
    """A good answer that sets a cookie, which must never come back (S8)."""
    await exchange.json(Talk(exchange, body).whole(), Set_Cookie="tracker=1; Path=/")


# -- K5: the upstream repeats the key --------------------------------------------------------------------------------


@fault("echo-key")
async def _echo_key(exchange: Exchange, body: dict[str, Any]) -> None:
    """The key in the text, in reasoning and in a header of a good answer."""
    sent = exchange.headers.get("authorization", "nothing")
    talk = Talk(exchange, body, Answer(f"You sent {sent}."))
    if not _streams(body):
        await exchange.json(talk.whole(), X_Echo=sent)
        return
    await exchange.open_stream(X_Echo=sent)
    await exchange.event(talk.chunk({"reasoning_content": f"They sent {sent}."}))
    await exchange.event(talk.chunk({"content": f"You sent {sent}."}))
    await exchange.event(talk.chunk({}, "stop"))
    await exchange.chunk(DONE)
    await exchange.end_stream()


@fault("echo-key-401")
async def _echo_key_401(exchange: Exchange, body: dict[str, Any]) -> None:
    """The key in the message of a refusal and in its header."""
    sent = exchange.headers.get("authorization", "nothing")
    await exchange.refuse(401, f"The key {sent} is not known here.", "invalid_api_key", X_Echo=sent)


@fault("echo-key-mid")
async def _echo_key_mid(exchange: Exchange, body: dict[str, Any]) -> None:
    """The key in an error after some text."""
    sent = exchange.headers.get("authorization", "nothing")
    await Talk(exchange, body).begin()
    await exchange.event({"error": {"message": f"The key {sent} ran out.", "code": "insufficient_quota"}})
    await exchange.end_stream()


FAULTS["echo-key"] = FAULTS["fault-echo-key"]
