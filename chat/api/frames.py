"""What happens to an upstream's answer on its way to a `/v1` caller: nothing, unless a named rule fires.

A frame goes out with its original bytes; where a rule fires, the parsed JSON is changed and encoded again with the
standard library (orjson would change 2⁶⁴ and lone surrogates). The rules, by name:

    framing    one `data:` line per event: no `id:` (the Python SDK would decode an empty event), no `event:`, no CRLF
    identity   one `id`, `model` and `created` per stream: those of the first frame that has them
    object     `object` is "chat.completion.chunk" (of a whole answer: "chat.completion")
    usage      only if the caller asked: then once, in a last frame of its own; else no usage key anywhere
    empty      a frame without choices says nothing to a caller who did not ask for usage
    shape      `delta` is an object, `content` a string, every choice and tool call has its `index`
    finish     `finish_reason` is one of the words of the API
    error      errors in our shape; nothing follows one, no `[DONE]` either (chat/api/relay.py)

Why each is needed: upstreams.md §1.4, §3.3, §4.3, §4.7. `<think>` tags stay in the text: they are the upstream's bytes.
"""

from __future__ import annotations

import json
import math
import secrets
from collections import Counter
from typing import Any

from providers.clients.base import Delta, Frame
from providers.clients.openai_compatible import finish_reason_of, parse_chunk

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
CHUNK, WHOLE = "chat.completion.chunk", "chat.completion"
DONE = b"data: [DONE]\n\n"

_NO_USAGE = b',"usage":null'


class FrameRules:
    """The rules applied to one stream. `fired` counts, by name, what had to be changed."""

    __slots__ = ("_created", "_fallback", "_id", "_is_known", "_model", "_usage", "fired", "include_usage")

    def __init__(self, *, include_usage: bool, fallback_id: str, fallback_model: str, created: int) -> None:
        self.include_usage = include_usage
        self.fired: Counter[str] = Counter()
        self._fallback = (fallback_id, fallback_model, created)
        self._id, self._model, self._created = self._fallback
        self._is_known = False
        self._usage: dict[str, Any] | None = None

    def outgoing(self, frame: Frame) -> bytes:
        """The bytes to send for `frame`; empty when it has nothing for this caller. Raises nothing (F11)."""
        data, delta = frame.data, frame.delta
        if data is None or delta.error is not None:
            return b""  # `[DONE]`, text whose bytes were sent before, and errors: the relay's to send
        usage = data.get("usage")
        choices = data.get("choices")
        if usage is None and (sent := self._untouched(frame.raw, data, choices)):
            return sent
        if (delta.usage is not None or self._usage is None) and (found := usage or _hidden_usage(data, choices)):
            self._usage = found if isinstance(found, dict) else self._usage
        if not _has_choice(choices) and (usage or not self.include_usage or not _text(data.get("id"))):
            self.fired["usage" if usage else "empty"] += 1
            return b""
        rules = self._rules(data, choices)
        if not rules:
            raw = frame.raw
            if raw[:6] == b"data: " and raw.find(b"\n") == len(raw) - 2:  # one line, and the blank one after it
                return raw
            rules = ("framing",)
        if rules == ("usage",) and usage is None:
            raw = frame.raw
            if raw[:6] == b"data: " and raw.find(b"\n") == len(raw) - 2 and (sent := self._without_null_usage(raw)):
                return sent
        for name in rules:
            self.fired[name] += 1
        try:
            return _framed(self._changed(data, choices, delta, rules))
        except RecursionError:  # nested as deep as the reader just so allowed
            self.fired["too deep"] += 1
            return b""

    def _untouched(self, raw: bytes, data: dict[str, Any], choices: Any) -> bytes:
        """The bytes of the frame nearly every frame is: one piece of text, as the API has it; empty for any other.

        Only a short cut: whatever it lets through, the rules below would have let through as well (a test compares).
        """
        if choices.__class__ is not list or len(choices) != 1 or (choice := choices[0]).__class__ is not dict:
            return b""
        delta, index, created = choice.get("delta"), choice.get("index"), data.get("created")
        if (
            not self._is_known
            or delta.__class__ is not dict
            or delta.get("content").__class__ is not str
            or "tool_calls" in delta
            or index.__class__ is not int
            or index < 0
            or choice.get("finish_reason") is not None
            or "usage" in choice
            or "message" in choice
            or data.get("id") != self._id
            or data.get("model") != self._model
            or created != self._created
            or created.__class__ is not int
            or data.get("object") != CHUNK
            or "x_groq" in data
            or raw[:6] != b"data: "
            or raw.find(b"\n") != len(raw) - 2  # one line, and the blank one after it
        ):
            return b""
        if "usage" not in data or self.include_usage:
            return raw
        return self._without_null_usage(raw)

    def _without_null_usage(self, raw: bytes) -> bytes:
        """`raw` less `"usage":null`, which OpenAI sends on every chunk once usage was asked for; empty if in doubt.

        Inside a JSON string the quotes would be escaped, so where these bytes are the only such key, they are that key.
        """
        if _NO_USAGE not in raw or raw.count(b'"usage"') != 1:
            return b""
        self.fired["usage"] += 1
        return raw.replace(_NO_USAGE, b"", 1)

    def closing(self) -> bytes:
        """The usage frame, if the caller asked for one and the upstream gave one."""
        if not self.include_usage or self._usage is None:
            return b""
        return _framed(
            {
                "id": self._id,
                "object": CHUNK,
                "created": self._created,
                "model": self._model,
                "choices": [],
                "usage": self._usage,
            }
        )

    def _rules(self, data: dict[str, Any], choices: Any) -> tuple[str, ...]:
        """The names of the rules that this frame needs, in order."""
        if not self._is_known:
            self._is_known = True
            self._id = _text(data.get("id")) or self._fallback[0]
            self._model = _text(data.get("model")) or self._fallback[1]
            self._created = _count(data.get("created")) or self._fallback[2]
        rules: tuple[str, ...] = ()
        if (
            data.get("id") != self._id
            or data.get("model") != self._model
            or data.get("created") != self._created
            or data["created"].__class__ is not int
        ):
            rules += ("identity",)
        if data.get("object") != CHUNK:
            rules += ("object",)
        if "usage" in data:
            if data["usage"] is not None or not self.include_usage:
                rules += ("usage",)
        elif "x_groq" in data and isinstance(data["x_groq"], dict) and "usage" in data["x_groq"]:
            rules += ("usage",)
        if choices.__class__ is not list:
            return (*rules, "shape")
        odd = [choice for choice in choices if _is_misshapen(choice) or choice.get("finish_reason") is not None]
        if odd:
            if any(map(_is_misshapen, odd)):
                rules += ("shape",)
            if any(choice.__class__ is dict and _has_odd_finish(choice) for choice in odd):
                rules += ("finish",)
        return rules

    def _changed(self, data: dict[str, Any], choices: Any, delta: Delta, rules: tuple[str, ...]) -> dict[str, Any]:
        changed = {**data, "id": self._id, "model": self._model, "created": self._created, "object": CHUNK}
        if "usage" in rules:
            changed.pop("usage", None)
            if self.include_usage:
                changed["usage"] = None
            if isinstance(changed.get("x_groq"), dict):
                changed["x_groq"] = {name: value for name, value in changed["x_groq"].items() if name != "usage"}
        if "shape" in rules or "finish" in rules:
            rows = choices if isinstance(choices, list) else []
            read = _first(rows)
            changed["choices"] = [
                _mended(position, choice, delta if choice is read else None)
                for position, choice in enumerate(rows)
                if isinstance(choice, dict)
            ]
        return changed


def whole_answer(
    raw: bytes, data: dict[str, Any], delta: Delta, *, fallback_id: str, fallback_model: str, created: int
) -> bytes:
    """An answer in one piece: the upstream's own bytes, unless identity, object, shape or finish need a change."""
    choices = data.get("choices")
    rows = choices if isinstance(choices, list) else []
    if (
        rows
        and _text(data.get("id"))
        and _text(data.get("model"))
        and _count(data.get("created"))
        and data.get("object") == WHOLE
        and raw[:1] == b"{"
        and not any(_is_misshapen_whole(choice) or _has_odd_finish(choice) for choice in rows)
    ):
        return raw
    first = _first(rows)
    changed = {
        **data,
        "id": _text(data.get("id")) or fallback_id,
        "object": WHOLE,
        "created": _count(data.get("created")) or created,
        "model": _text(data.get("model")) or fallback_model,
        "choices": [
            _mended_whole(position, choice, delta if choice is first else None)
            for position, choice in enumerate(rows)
            if isinstance(choice, dict)
        ],
    }
    return _encoded(changed)


# -- Looking -----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return value if value.__class__ is str else ""


def _count(value: Any) -> int:
    return value if value.__class__ is int and value > 0 else 0


def _is_index(value: Any) -> bool:
    return value.__class__ is int and value >= 0


def _has_choice(choices: Any) -> bool:
    return choices.__class__ is list and any(choice.__class__ is dict for choice in choices)


def _first(choices: list[Any]) -> Any:
    """The choice that `parse_chunk` reads."""
    return next((choice for choice in choices if isinstance(choice, dict) and not choice.get("index")), None)


def _hidden_usage(data: dict[str, Any], choices: Any) -> Any:
    """Usage where some put it: under x_groq, or inside the choice."""
    vendor = data.get("x_groq")
    if isinstance(vendor, dict) and vendor.get("usage"):
        return vendor["usage"]
    choice = _first(choices) if choices.__class__ is list else None
    return choice.get("usage") if choice is not None else None


def _has_odd_finish(choice: Any) -> bool:
    reason = choice.get("finish_reason")
    return reason is not None and not (reason.__class__ is str and reason in FINISH_REASONS)


def _is_misshapen(choice: Any) -> bool:
    if choice.__class__ is not dict or not _is_index(choice.get("index")):
        return True
    delta = choice.get("delta")
    if delta.__class__ is not dict or "usage" in choice or "message" in choice:
        return True
    content = delta.get("content")
    if content is None:
        if "text" in choice and "content" not in delta:
            return True
    elif content.__class__ is not str:
        return True
    calls = delta.get("tool_calls")
    return calls is not None and not (calls.__class__ is list and all(map(_is_call_piece, calls)))


def _is_call_piece(call: Any) -> bool:
    if call.__class__ is not dict or not _is_index(call.get("index")):
        return False
    function = call.get("function")
    if function is None:
        return True
    return function.__class__ is dict and function.get("arguments", "").__class__ is str


def _is_misshapen_whole(choice: Any) -> bool:
    if choice.__class__ is not dict or not _is_index(choice.get("index")):
        return True
    message = choice.get("message")
    if message.__class__ is not dict or "content" not in message or message.get("role") != "assistant":
        return True
    content = message["content"]
    if content is not None and content.__class__ is not str:
        return True
    calls = message.get("tool_calls")
    return calls is not None and not (calls.__class__ is list and all(map(_is_whole_call, calls)))


def _is_whole_call(call: Any) -> bool:
    function = call.get("function") if call.__class__ is dict else None
    return function.__class__ is dict and function.get("arguments").__class__ is str and bool(_text(call.get("id")))


# -- Changing ----------------------------------------------------------------------------------------------------------


def _finish(reason: Any, known: Delta | None) -> str | None:
    if reason.__class__ is str and reason in FINISH_REASONS:
        return reason
    meant = known.finish_reason if known is not None else finish_reason_of(reason)
    return meant if meant in FINISH_REASONS else None


def _alone(choice: dict[str, Any]) -> Delta:
    """What one choice says, read by itself and with its tags in place."""
    return parse_chunk({"choices": [{**choice, "index": 0}]})


def _mended(position: int, choice: dict[str, Any], known: Delta | None) -> dict[str, Any]:
    """A choice of a stream as the API has it. `known`: what the client read from it (its tool calls are numbered)."""
    changed = {name: value for name, value in choice.items() if name not in ("usage", "message", "text")}
    delta, message = choice.get("delta"), choice.get("message")
    if not isinstance(delta, dict) or (not delta and isinstance(message, dict)):
        delta = message if isinstance(message, dict) else {}
    delta = dict(delta)
    said = _alone(choice)
    content = delta.get("content")
    if content is not None and not isinstance(content, str):
        delta["content"] = said.text
        if said.reasoning and not delta.get("reasoning_content"):
            delta["reasoning_content"] = said.reasoning
    elif "content" not in delta and "text" in choice:
        delta["content"] = said.text
    calls = (known.tool_calls if known is not None else ()) or said.tool_calls
    if delta.get("tool_calls") and calls:
        delta["tool_calls"] = [
            {
                "index": call.index,
                **({"id": call.id, "type": "function"} if call.id else {}),
                "function": {**({"name": call.name} if call.name else {}), "arguments": call.arguments},
            }
            for call in calls
        ]
    elif "tool_calls" in delta and not isinstance(delta["tool_calls"], list):
        del delta["tool_calls"]
    changed["delta"] = delta
    changed["index"] = choice["index"] if _is_index(choice.get("index")) else position
    changed["finish_reason"] = _finish(choice.get("finish_reason"), known)
    return changed


def _mended_whole(position: int, choice: dict[str, Any], known: Delta | None) -> dict[str, Any]:
    changed = {name: value for name, value in choice.items() if name not in ("delta", "text")}
    said = _alone(choice)
    given = choice.get("message") or choice.get("delta")
    message = dict(given) if isinstance(given, dict) else {}
    message["role"] = "assistant"
    if not isinstance(message.get("content"), str):
        message["content"] = said.text if said.text or not said.tool_calls else None
        if said.reasoning and not message.get("reasoning_content"):
            message["reasoning_content"] = said.reasoning
    if said.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id or f"call_{secrets.token_hex(12)}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in said.tool_calls
        ]
    elif "tool_calls" in message:
        del message["tool_calls"]
    changed["message"] = message
    changed["index"] = choice["index"] if _is_index(choice.get("index")) else position
    changed["finish_reason"] = _finish(choice.get("finish_reason"), known) or "stop"
    return changed


# -- The wire ----------------------------------------------------------------------------------------------------------


def _framed(data: dict[str, Any]) -> bytes:
    return b"data: " + _encoded(data) + b"\n\n"


def _encoded(data: dict[str, Any]) -> bytes:
    """JSON, ASCII-escaped: a lone surrogate in an upstream's text has no UTF-8."""
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        # 1e400 is legal JSON and was read as infinity, which is not: it goes out as a number of the same meaning.
        mark = secrets.token_hex(16)
        text = json.dumps(_marked(data, mark), separators=(",", ":"))
        return text.replace(f'"{mark}+"', "1e400").replace(f'"{mark}-"', "-1e400").encode()


def _marked(value: Any, mark: str) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return f"{mark}{'+' if value > 0 else '-'}"
    if isinstance(value, dict):
        return {name: _marked(item, mark) for name, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, mark) for item in value]
    return value
