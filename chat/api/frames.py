"""What happens to an upstream's event on its way to a `/v1` caller: nothing, unless a named rule fires.

A frame goes out with its original bytes; where a rule fires, the parsed JSON is changed and encoded again with the
standard library (orjson would change 2⁶⁴ and lone surrogates). The rules, by name:

    framing    one `data:` line per event: no `id:` (the Python SDK would decode an empty event), no `event:`, no CRLF
    identity   one `id`, `model` and `created` per stream: those of the first frame that has them
    object     `object` is "chat.completion.chunk"
    usage      only if the caller asked: then once, in a last frame of its own; else no usage key anywhere
    empty      a frame without choices says nothing to a caller who did not ask for usage
    shape      `delta` is an object, `content` a string, every choice and tool call has its `index`
    finish     `finish_reason` is one of the words of the API
    error      errors in our shape; nothing follows one, no `[DONE]` either

Why each is needed: upstreams.md §1.4, §3.3, §4.3, §4.7.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from providers.clients.base import Frame

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_NO_USAGE = b',"usage":null'
DONE = b"data: [DONE]\n\n"


class FrameRules:
    """The rules applied to one stream. `fired` counts, by name, what had to be changed."""

    def __init__(self, *, include_usage: bool, fallback_id: str, fallback_model: str, created: int) -> None:
        self.include_usage = include_usage
        self.fired: Counter[str] = Counter()
        self._fallback = {"id": fallback_id, "model": fallback_model, "created": created}
        self._identity: dict[str, Any] | None = None
        self._usage: dict[str, Any] | None = None
        self._tool_indexes: dict[int, int] = {}

    def outgoing(self, frame: Frame) -> bytes:
        """The bytes to send for `frame`; empty when it has nothing for this caller."""
        data = frame.data
        if data is None or frame.delta.error is not None:
            return b""  # `[DONE]` and errors are the relay's to send
        usage = data.get("usage")
        choices = data.get("choices")
        if isinstance(usage, dict) and (frame.delta.usage is not None or self._usage is None):
            self._usage = usage
        if not choices and (usage or not self.include_usage):
            self.fired["usage" if usage else "empty"] += 1
            return b""
        rules = self._rules(data, choices)
        if not rules:
            return self._framed(frame.raw, data)
        self.fired.update(rules)
        if rules == ["usage"] and usage is None and frame.raw.count(_NO_USAGE) == 1:
            # The commonest case by far: OpenAI sends `"usage":null` on every chunk once usage was asked for. Inside a
            # JSON string the quotes would be escaped, so these bytes can only be the key itself.
            return self._framed(frame.raw.replace(_NO_USAGE, b""), data)
        return self._encoded(self._changed(frame, data, choices, rules))

    def closing(self) -> bytes:
        """The usage frame, if the caller asked for one and the upstream gave one."""
        if not self.include_usage or self._usage is None:
            return b""
        return self._encoded(
            {
                **(self._identity or self._fallback),
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": self._usage,
            }
        )

    # -- which rules a frame needs ---------------------------------------------------------------------------------

    def _rules(self, data: dict[str, Any], choices: Any) -> list[str]:
        rules = []
        identity = self._identity
        if identity is None:
            found = {name: data.get(name) for name in ("id", "model", "created")}
            self._identity = identity = {name: value or self._fallback[name] for name, value in found.items()}
        if (
            data.get("id") != identity["id"]
            or data.get("model") != identity["model"]
            or data.get("created") != identity["created"]
        ):
            rules.append("identity")
        if data.get("object") != "chat.completion.chunk":
            rules.append("object")
        groq = data.get("x_groq")
        unasked = "usage" in data and (data["usage"] is not None or not self.include_usage)
        if unasked or (isinstance(groq, dict) and "usage" in groq):
            rules.append("usage")
        if not isinstance(choices, list):
            rules.append("shape")
            return rules
        for choice in choices:
            if self._misshapen(choice):
                rules.append("shape")
                break
        for choice in choices:
            if isinstance(choice, dict):
                reason = choice.get("finish_reason")
                if reason is not None and reason not in FINISH_REASONS:
                    rules.append("finish")
                    break
        return rules

    @staticmethod
    def _misshapen(choice: Any) -> bool:
        if not isinstance(choice, dict) or not isinstance(choice.get("index"), int):
            return True
        delta = choice.get("delta")
        if not isinstance(delta, dict) or "usage" in choice or "message" in choice:
            return True
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            return True
        calls = delta.get("tool_calls")
        if calls is None:
            return False
        return not isinstance(calls, list) or any(
            not isinstance(call, dict)
            or not isinstance(call.get("index"), int)
            or not isinstance((call.get("function") or {}).get("arguments", ""), str)
            for call in calls
        )

    # -- the change -------------------------------------------------------------------------------------------------

    def _changed(self, frame: Frame, data: dict[str, Any], choices: Any, rules: list[str]) -> dict[str, Any]:
        changed = {**data, **(self._identity or self._fallback), "object": "chat.completion.chunk"}
        if "usage" in rules:
            if self.include_usage:
                changed["usage"] = None
            else:
                changed.pop("usage", None)
            if isinstance(changed.get("x_groq"), dict):
                changed["x_groq"] = {name: value for name, value in changed["x_groq"].items() if name != "usage"}
        if "shape" in rules or "finish" in rules:
            rows = choices if isinstance(choices, list) else []
            changed["choices"] = [
                self._choice(position, choice, frame)
                for position, choice in enumerate(rows)
                if isinstance(choice, dict)
            ]
        return changed

    def _choice(self, position: int, choice: dict[str, Any], frame: Frame) -> dict[str, Any]:
        changed = {name: value for name, value in choice.items() if name not in ("usage", "message")}
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            message = choice.get("message")
            delta = message if isinstance(message, dict) else {}
        delta = dict(delta)
        if delta.get("content") is not None and not isinstance(delta["content"], str):
            delta["content"] = frame.delta.text
            if frame.delta.reasoning:
                delta["reasoning_content"] = frame.delta.reasoning
        if frame.delta.tool_calls and "tool_calls" in delta:
            delta["tool_calls"] = [
                {
                    "index": call.index,
                    **({"id": call.id, "type": "function"} if call.id else {}),
                    "function": {**({"name": call.name} if call.name else {}), "arguments": call.arguments},
                }
                for call in frame.delta.tool_calls
            ]
        elif not isinstance(delta.get("tool_calls", []), list):
            delta.pop("tool_calls")
        changed["delta"] = delta
        if not isinstance(changed.get("index"), int):
            changed["index"] = position
        reason = changed.get("finish_reason")
        if reason is not None and reason not in FINISH_REASONS:
            changed["finish_reason"] = (
                frame.delta.finish_reason if frame.delta.finish_reason in FINISH_REASONS else None
            )
        return changed

    # -- the wire -----------------------------------------------------------------------------------------------------

    def _framed(self, raw: bytes, data: dict[str, Any]) -> bytes:
        if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.count(b"\n") == 2 and b"\r" not in raw:
            return raw
        self.fired["framing"] += 1
        return self._encoded(data)

    @staticmethod
    def _encoded(data: dict[str, Any]) -> bytes:
        # ASCII-escaped: a lone surrogate in an upstream's text has no UTF-8.
        return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
