"""The one strict reader of `/v1` bodies (P1): size, depth, numbers, duplicate keys; then the few fields we act on.

Everything else passes through untouched: the upstream knows its own parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from chat.api.errors import ApiError

MAX_BODY = 20 * 1024 * 1024
"""Bytes; images travel inside the body as base64."""

MAX_DEPTH = 64
MAX_VALUES = 200_000
"""Values in a body: commas and opening brackets outside its strings. 5,000 messages of several parts stay below."""

MAX_DIGITS = 400
MAX_MESSAGES = 5_000

_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

ROUTING_FIELDS = frozenset(
    {
        *("api_base", "api_key", "api_type", "api_version", "azure_endpoint", "base_url", "custom_llm_provider"),
        *("endpoint", "extra_headers", "headers", "host", "http_client", "organization", "proxies", "proxy"),
        *("url", "use_proxy"),
    }
)
"""Fields by which other gateways let a request choose where it goes (S4). Refused, wherever they would be obeyed."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A `/v1/chat/completions` body that may be sent on."""

    model: str
    body: dict[str, Any]
    stream: bool
    include_usage: bool
    prompt_chars: int


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ApiError("invalid_json") for anything a strict reader would not take."""
    _check_shape(raw)
    try:
        value = _read(str(raw, "utf-8"))
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8.")
    except json.JSONDecodeError as exc:
        _refuse(f"The body is not valid JSON: {exc.msg} at character {exc.pos}.")
    except RecursionError:
        _refuse(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if not isinstance(value, dict):
        _refuse("The body must be a JSON object.")
    return value


def read_chat_request(raw: bytes) -> ChatRequest:
    """A checked chat request. Raises ApiError with the parameter at fault."""
    body = read_json(raw)
    if not ROUTING_FIELDS.isdisjoint(body):
        name = min(ROUTING_FIELDS & body.keys())
        raise ApiError(
            "unsupported_parameter",
            f"“{name}” is not accepted: where a request goes is decided by your accounts.",
            param=name,
        )
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > 300:
        raise ApiError("invalid_request", "“model” must be the id of a model.", param="model")
    if not model.isprintable():  # no id is, and databases refuse NUL and half surrogate pairs
        raise ApiError("model_not_found", "None of your accounts lists such a model.", param="model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError("invalid_request", "“messages” must be a list with at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise ApiError("invalid_request", f"“messages” has more than {MAX_MESSAGES} entries.", param="messages")
    for index, message in enumerate(messages):
        if message.__class__ is not dict or message.get("role").__class__ is not str:
            raise ApiError("invalid_request", "Each message is an object with a role.", param=f"messages[{index}]")
        if message.get("content").__class__ not in _CONTENT:
            raise ApiError(
                "invalid_request",
                "“content” is text, a list of parts, or null.",
                param=f"messages[{index}].content",
            )
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError("invalid_request", "“stream” is true or false.", param="stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ApiError("invalid_request", "“stream_options” is an object.", param="stream_options")
    return ChatRequest(
        model=model,
        body=body,
        stream=bool(stream),
        include_usage=bool((options or {}).get("include_usage")),
        prompt_chars=_text_length(messages),
    )


_CONTENT = (str, list, type(None))


def _read(text: str) -> Any:
    """`_strict.decode`, which searches for white space with a regular expression twice."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:  # no value at the very start
        return _strict.decode(text)
    if end != len(text) and text[end:].strip(" \t\n\r"):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def _refuse(message: str) -> NoReturn:
    raise ApiError("invalid_json", message)


def _check_shape(raw: bytes) -> None:
    """Refuse what is nested too deep or made of too many values, before the parser builds it (P1, P3).

    20 MB of `{},{},…` would keep it busy for ten seconds, for everybody, and fill 600 MB. A body with few brackets and
    commas is only counted; else what stands outside its strings is looked at.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH and raw.count(b",") <= MAX_VALUES:
        return
    text = raw.replace(b"\\\\", b"").replace(b'\\"', b"")  # then strings split cleanly at `"`
    if text.count(b'"') > 4 * MAX_VALUES:  # a key and a string each
        _refuse(f"The body has more than {MAX_VALUES:,} values.")
    structure = b"".join(text.split(b'"')[::2])
    if sum(structure.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        _refuse(f"The body has more than {MAX_VALUES:,} values.")
    depth = 0
    for byte in structure.translate(None, _NO_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            _refuse(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _no_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON.")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        _refuse(f"A number has more than {MAX_DIGITS} digits.")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        _refuse(f"A number has more than {MAX_DIGITS} digits.")
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        _refuse("A number is out of range.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                _refuse(f"The key “{name:.60}” appears twice in one object.")
            seen.add(name)
    return value


def _text_length(messages: list[Any]) -> int:
    """Characters of text in the messages: what the estimate is made from when no usage ever comes."""
    total = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            total += len(content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    total += len(part["text"])
    return total


_strict = json.JSONDecoder(parse_constant=_no_constant, parse_int=_int, parse_float=_float, object_pairs_hook=_unique)
_scan: Callable[[str, int], tuple[Any, int]] = _strict.scan_once  # type: ignore[attr-defined]
