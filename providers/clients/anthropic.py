"""Anthropic's Messages API (upstreams.md §3.4.1), spoken to with OpenAI-shaped requests and answered in that shape.

What is not passed on, because Messages has no such thing: `n`, `seed`, `frequency_penalty`, `presence_penalty`,
`logit_bias`, `logprobs`, `top_logprobs`, `prediction`, `service_tier`, `store`, `metadata`, `modalities`, `verbosity`,
`strict` of tools, and whatever else is not named below. Sound is refused, since leaving it out would change the
question. `response_format: json_object` becomes a sentence in the system prompt. `top_k`, `thinking`, `cache_control`
and tools that are no functions are Anthropic's own words and go out as they are.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from providers.clients import errors, native
from providers.clients.base import Frame, ModelInfo, Usage
from providers.clients.errors import ProviderError
from providers.clients.openai_compatible import (
    as_dict,
    as_text,
    count_of,
    finish_reason_of,
    limit_of,
    model_id_of,
    moment,
)
from providers.clients.registry import register

VERSION = "2023-06-01"
FORMAT = "anthropic-claude-v1"

DEFAULT_TOKENS = 4096
"""`max_tokens`, which Messages requires, where neither the caller nor the catalog names one: no model allows less."""

MOST_UNSTREAMED = 21_333
"""Our default for answers in one piece: what the vendor's own SDK allows without a stream (ten minutes of writing)."""

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_000, "max": 32_000}
"""Tokens to think with, for models that take a number instead of an effort. 1024 is the least they take."""

_EFFORTS = {"minimal": "low", "xhigh": "max"}
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_THINKING = frozenset({"thinking", "redacted_thinking"})
_JSON_ONLY = "Answer with one JSON object and nothing else."
_VERSION_OF = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?![\d.])")
_ID = re.compile(r"[^A-Za-z0-9_-]")
_CAP = re.compile(r"> (\d{3,9}), which is the maximum")


def version_of(model_id: str) -> tuple[int, int] | None:
    """(4, 6) of "claude-opus-4-6-20260204"; None for a name that does not tell."""
    found = _VERSION_OF.search(model_id.lower())
    return (int(found[1]), int(found[2] or 0)) if found else None


# --- usage -----------------------------------------------------------------------------------------------------------


def read_usage(usage: Mapping[str, Any], *, is_final: bool = True) -> Usage | None:
    """Anthropic's counts as base.Usage promises: cached tokens inside the prompt, which Anthropic counts beside it.

    `iterations`, where present, is the billable list, and the counts beside it are not: all are added up. (Each may be
    another model's; we know one price, that of the model asked for.) What a stream says at its beginning is final for
    the prompt only.
    """
    rows = [row for row in usage.get("iterations") or () if isinstance(row, dict)]
    rows = rows if any(count_of(row.get("input_tokens")) is not None for row in rows) else [dict(usage)]

    def total(name: str) -> int | None:
        counts = [count for row in rows if (count := count_of(row.get(name))) is not None]
        return sum(counts) if counts else None

    prompt = total("input_tokens")
    written, read = total("cache_creation_input_tokens"), total("cache_read_input_tokens")
    if prompt is None:
        return None
    prompt += (written or 0) + (read or 0)
    completion = total("output_tokens") if is_final else None
    if not prompt and not completion:
        return None
    thinking = count_of(as_dict(usage.get("output_tokens_details")).get("thinking_tokens"))
    if not is_final or (thinking or 0) > (completion or 0):
        thinking = None
    whole = None if completion is None else prompt + completion
    return Usage(prompt, completion, whole, read, written, thinking)


# --- answers ---------------------------------------------------------------------------------------------------------


class _Block:
    """A content block that is being written. `call` is the number among the tool calls of the answer."""

    __slots__ = ("arguments", "call", "has_pieces", "kind", "thought")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.call = self.thought = -1
        self.arguments: Any = None
        self.has_pieces = False


class MessagesReader(native.NativeReader):
    """Messages events → chunks. Complete only with `message_stop`: what comes without it was cut."""

    def __init__(self, client: AnthropicClient, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(client, status, headers)
        self._blocks: dict[Any, _Block] = {}
        self._calls = self._thoughts = 0
        self._usage: dict[str, Any] = {}
        self._stop: Any = None
        self._why = ""

    def take(self, value: dict[str, Any]) -> list[Frame]:
        kind = value.get("type")
        if kind == "content_block_delta":
            return self._piece(value.get("index"), as_dict(value.get("delta")))
        if kind == "content_block_start":
            return self._open(value.get("index"), as_dict(value.get("content_block")))
        if kind == "content_block_stop":
            return self._close(value.get("index"))
        if kind == "message_start":
            return self._begin(as_dict(value.get("message")))
        if kind == "message_delta":
            delta = as_dict(value.get("delta"))
            self._stop = delta.get("stop_reason") or self._stop
            self._why = as_text(as_dict(delta.get("stop_details")).get("explanation")) or self._why
            # Cumulative: each key replaces what was known of it.
            self._usage |= {name: count for name, count in as_dict(value.get("usage")).items() if count is not None}
            usage = read_usage(self._usage)
            return [self.write.meter(usage)] if usage else []
        if kind == "message_stop":
            return self._end()
        return []  # ping, and what is yet to be invented

    def _begin(self, message: dict[str, Any]) -> list[Frame]:
        """The answer begins; or once more, when a relay lost its own upstream: then nothing of before is open."""
        self._blocks.clear()
        self._usage = as_dict(message.get("usage"))
        self._stop = None
        self.write.id = self.write.id or as_text(message.get("id"))
        self.write.model = self.write.model or as_text(message.get("model"))
        return [self.write.chunk(usage=read_usage(self._usage, is_final=False))]

    def _open(self, index: Any, content: dict[str, Any]) -> list[Frame]:
        kind = as_text(content.get("type"))
        block = self._blocks[_key(index)] = _Block(kind)
        if kind == "text":
            frames = self._text(as_text(content.get("text")))
            citations = content.get("citations")
            for citation in citations if isinstance(citations, list) else []:
                frames += self._citation(citation)
            return frames
        if kind == "thinking":
            block.thought = self._next_thought()
            frames = self._thinking(block, as_text(content.get("thinking")))
            return frames + self._signature(block, as_text(content.get("signature")))
        if kind == "redacted_thinking":
            detail = {"type": "reasoning.encrypted", "index": self._next_thought(), "format": FORMAT}
            return [
                self.write.chunk(reasoning_details=[{**detail, "data": self.seal.close(as_text(content.get("data")))}])
            ]
        if kind == "tool_use":
            block.call, self._calls = self._calls, self._calls + 1
            block.arguments = content.get("input")
            function = {"name": as_text(content.get("name")), "arguments": ""}
            call = {"index": block.call, "id": as_text(content.get("id")), "type": "function", "function": function}
            return [self.write.chunk(tool_calls=[call])]
        return []  # the provider's own tools and their results, compaction, fallback: no words to a reader

    def _piece(self, index: Any, delta: dict[str, Any]) -> list[Frame]:
        kind = delta.get("type")
        block = self._blocks.get(_key(index))
        if kind == "text_delta":
            return self._text(as_text(delta.get("text")))
        if kind == "thinking_delta":
            return self._thinking(block, as_text(delta.get("thinking")))
        if kind == "input_json_delta":
            piece = as_text(delta.get("partial_json"))
            if block is None or block.call < 0 or not piece:
                return []
            block.has_pieces = True
            return [self._arguments(block, piece)]
        if kind == "signature_delta" and block is not None:
            return self._signature(block, as_text(delta.get("signature")))
        if kind == "citations_delta":
            return self._citation(delta.get("citation"))
        return []

    def _close(self, index: Any) -> list[Frame]:
        block = self._blocks.pop(_key(index), None)
        if block is None or block.call < 0 or block.has_pieces:
            return []
        return [self._arguments(block, native.compact(as_dict(block.arguments)))]  # whole at the start, or none: {}

    def _end(self) -> list[Frame]:
        if self._stop == "pause_turn":  # the provider paused its own tools: there would be more
            finish = "length"
        else:
            finish = finish_reason_of(self._stop) or "stop"
        said: dict[str, Any] = {"refusal": self._why} if self._why and finish == "content_filter" else {}
        frames = [self.write.chunk(finish=finish, **said)]
        if usage := read_usage(self._usage):
            frames.append(self.write.usage(usage))
        self.is_done = True
        return [*frames, self.write.done()]

    # --- pieces

    def _text(self, text: str) -> list[Frame]:
        return [self.write.chunk(content=text)] if text else []

    def _thinking(self, block: _Block | None, text: str) -> list[Frame]:
        if not text:
            return []
        detail = {"type": "reasoning.text", "index": block.thought if block else 0, "format": FORMAT, "text": text}
        return [self.write.chunk(reasoning_content=text, reasoning_details=[detail])]

    def _signature(self, block: _Block, signature: str) -> list[Frame]:
        if not signature:
            return []
        detail = {"type": "reasoning.text", "index": block.thought, "format": FORMAT}
        return [self.write.chunk(reasoning_details=[{**detail, "signature": self.seal.close(signature)}])]

    def _arguments(self, block: _Block, piece: str) -> Frame:
        return self.write.chunk(tool_calls=[{"index": block.call, "function": {"arguments": piece}}])

    def _citation(self, citation: Any) -> list[Frame]:
        if not isinstance(citation, dict):
            return []
        if url := as_text(citation.get("url")):
            told = {"url": url, "title": as_text(citation.get("title"))}
            return [self.write.chunk(annotations=[{"type": "url_citation", "url_citation": told}])]
        return [self.write.chunk(annotations=[{"type": "citation", "citation": citation}])]

    def _next_thought(self) -> int:
        self._thoughts += 1
        return self._thoughts - 1

    def pieces_of(self, document: Any) -> list[dict[str, Any]]:
        """A whole message, as the events that would have brought it."""
        if not isinstance(document, dict) or document.get("type") != "message":
            return []
        pieces: list[dict[str, Any]] = [{"type": "message_start", "message": document}]
        content = document.get("content")
        for index, block in enumerate(content if isinstance(content, list) else []):
            pieces.append({"type": "content_block_start", "index": index, "content_block": block})
            pieces.append({"type": "content_block_stop", "index": index})
        pieces.append({"type": "message_delta", "delta": document, "usage": document.get("usage")})
        return [*pieces, {"type": "message_stop"}]


def _key(index: Any) -> Any:
    return index if isinstance(index, int | str) else None


# --- requests --------------------------------------------------------------------------------------------------------


def _turn(turn: native.Turn) -> dict[str, Any]:
    """One side's words: thinking first, in an answer; results of tools first, in a question (upstreams.md §3.4.1)."""
    first = native.Thought if turn.role == "assistant" else native.Result
    parts = sorted(turn.parts, key=lambda part: not isinstance(part, first))
    return {"role": turn.role, "content": [_part(part) for part in parts]}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, native.Text):
        return {"type": "text", "text": part.text, **part.extra}
    if isinstance(part, native.Call):
        return {"type": "tool_use", "id": _ID.sub("_", part.id) or "call", "name": part.name, "input": part.arguments}
    if isinstance(part, native.Result):
        told: dict[str, Any] = {"type": "tool_result", "tool_use_id": _ID.sub("_", part.call_id) or "call"}
        if part.parts:
            told["content"] = [_part(inner) for inner in part.parts]
        return {**told, "is_error": True} if part.is_error else told
    if isinstance(part, native.Thought):
        if part.is_hidden:
            return {"type": "redacted_thinking", "data": part.signature}
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    return _media(part)


def _media(part: native.Media) -> dict[str, Any]:
    source: dict[str, Any] = {"type": "url", "url": part.url}
    if part.data:
        source = {"type": "base64", "media_type": part.mime, "data": part.data}
    if part.kind == "image":
        if part.data and part.mime not in _IMAGES:
            raise native.refuse("This provider reads images as JPEG, PNG, GIF or WebP only.")
        return {"type": "image", "source": source, **part.extra}
    named = {"title": part.name} if part.name else {}
    if part.mime == "application/pdf":
        return {"type": "document", "source": source, **named, **part.extra}
    if part.kind == "text" and part.data:
        try:
            text = base64.b64decode(part.data).decode()
        except ValueError:
            raise native.refuse("A text file in the request is not UTF-8.") from None
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": "document", "source": source, **named, **part.extra}
    raise native.refuse(f"This provider takes no files of type {part.mime:.60}.")


@register("anthropic", "Anthropic")
class AnthropicClient(native.NativeClient):
    """Anthropic, and relays that speak its Messages API.

    `options` it reads besides EndpointClient's: `auth`: "bearer" for relays that take the key so.
    """

    DIALECT = "anthropic"
    OFFICIAL = "api.anthropic.com"
    OWN_HEADERS = frozenset({"authorization", "x-api-key", "anthropic-version"})

    def url(self, path: str) -> str:
        base = self.base_url if self.base_url.endswith("/v1") else f"{self.base_url}/v1"
        return f"{base}/{path}"

    def headers(self, *, accept: str = "application/json", key: str | None = None) -> dict[str, str]:
        return {**super().headers(accept=accept, key=key), "anthropic-version": VERSION}

    def auth_headers(self, key: str) -> dict[str, str]:
        if self.options.get("auth") == "bearer" or key.startswith("sk-ant-oat"):
            return {"Authorization": f"Bearer {key}"}
        return {"x-api-key": key}

    # --- models

    def list_url(self, after: str = "") -> str:
        return self.url("models?limit=1000" + (f"&after_id={quote(after, safe='')}" if after else ""))

    def read_page(self, document: Any) -> tuple[list[Any], str] | None:
        rows = document.get("data") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            return None
        return rows, as_text(document.get("last_id")) if document.get("has_more") is True else ""

    def parse_model(self, row: Any) -> ModelInfo | None:
        """A row of either age; the older one says nothing but a name. Messages itself takes tools for every model."""
        if not isinstance(row, dict):
            raise ValueError("row is no object")
        model_id = model_id_of({"id": row.get("id")})
        told = as_dict(row.get("capabilities"))

        def can(name: str) -> bool:
            return as_dict(told.get(name)).get("supported") is True

        words = [("vision", "image_input"), ("structured_outputs", "structured_outputs"), ("reasoning", "thinking")]
        inputs = [("image", "image_input"), ("file", "pdf_input")]
        released = moment(row.get("created_at"))
        return ModelInfo(
            model_id=model_id,
            display_name=(as_text(row.get("display_name")).strip() or model_id)[:300],
            model_name=model_id,
            model_type="chat",
            capabilities=("tools", *(word for word, name in words if can(name))),
            input_modalities=("text", *(word for word, name in inputs if can(name))) if told else (),
            output_modalities=("text",),
            context_window=limit_of(row.get("max_input_tokens")),
            max_output_tokens=limit_of(row.get("max_tokens")),
            released_at=released if released and released.year > 1990 else None,
        )

    # --- errors

    def parse_error(self, status: int, headers: Mapping[str, str] | None, body: Any) -> ProviderError:
        told = as_dict(as_dict(errors.document_of(body)).get("error"))
        kind = as_text(told.get("type"))
        # Inside a stream the type stands for the status.
        error = super().parse_error(status if status >= 400 else _STATUS.get(kind, status), headers, body)
        code = as_dict(told.get("details")).get("error_code")
        if code == "enforced_spend_limit_reached" or kind == "billing_error" or _SPENT.search(error.detail):
            return native.restated(error, "no_balance", permanent=True)
        if kind == "not_found_error" and error.detail.startswith("model:"):
            return native.restated(error, "model_not_found", permanent=True)
        if kind == "request_too_large":
            return native.restated(error, "too_large", permanent=True)
        if kind == "timeout_error":
            return native.restated(error, "timeout", permanent=False)
        return error

    # --- chat

    def frame_reader(self, status: int, headers: Mapping[str, str]) -> MessagesReader:
        return MessagesReader(self, status, headers)

    def chat_request(self, body: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        conversation = native.read_conversation(body.get("messages"), self.seal)
        sent: dict[str, Any] = {
            "model": body.get("model"),
            "max_tokens": self._max_tokens(body, stream=stream),
            "messages": [_turn(turn) for turn in conversation.turns],
            "stream": stream,
        }
        last = sent["messages"][-1]
        if last["role"] == "assistant" and last["content"][-1]["type"] == "text":  # a prefill may not end in blanks
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
        system = [_part(part) for part in conversation.system]
        form, schema = native.response_format_of(body)
        if form == "json_object":
            system.append({"type": "text", "text": _JSON_ONLY})
        if system:
            sent["system"] = system
        if sequences := native.stops(body.get("stop")):
            sent["stop_sequences"] = sequences
        if user := as_text(body.get("user")) or as_text(body.get("safety_identifier")):
            sent["metadata"] = {"user_id": user[:256]}
        if isinstance(body.get("cache_control"), dict):
            sent["cache_control"] = body["cache_control"]
        self._add_tools(sent, body)
        self._add_thinking(sent, body)
        if form == "json_schema":
            sent.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
        self._add_sampling(sent, body)
        return self.url("messages"), sent

    def _max_tokens(self, body: Mapping[str, Any], *, stream: bool) -> int:
        given = native.whole_number(body.get("max_completion_tokens"), body.get("max_tokens"))
        return given or self._default_tokens(stream)

    def _default_tokens(self, stream: bool) -> int:
        most = self.max_output_tokens or DEFAULT_TOKENS
        return most if stream else min(most, MOST_UNSTREAMED)

    @staticmethod
    def _add_tools(sent: dict[str, Any], body: Mapping[str, Any]) -> None:
        functions, others = native.tools_of(body)
        if not functions and not others:
            return
        sent["tools"] = [
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "input_schema": {"type": "object", **(tool.schema or {"properties": {}})},
                **tool.extra,
            }
            for tool in functions
        ] + others
        choice, name = native.tool_choice_of(body)
        told: dict[str, Any] = {"type": {"required": "any", "none": "none"}.get(choice, "auto")}
        if name:
            told = {"type": "tool", "name": name}
        if body.get("parallel_tool_calls") is False and choice != "none":
            told["disable_parallel_tool_use"] = True
        if choice or len(told) > 1:
            sent["tool_choice"] = told

    def _add_thinking(self, sent: dict[str, Any], body: Mapping[str, Any]) -> None:
        """Thinking, in the form this model takes; left out where the API would refuse it.

        That is: before 3.7, together with a tool that must be called, and (older form only) in a tool loop whose
        thinking did not come back.
        """
        if isinstance(body.get("thinking"), dict):
            sent["thinking"] = body["thinking"]
            return
        effort, budget = native.effort_of(body)
        version = version_of(as_text(sent["model"]))
        if effort in ("", "none") or (version is not None and version < (3, 7)):
            return
        if as_dict(sent.get("tool_choice")).get("type") in ("any", "tool"):
            return
        if version is None or version >= (4, 6):
            sent["thinking"] = {"type": "adaptive", "display": "summarized"}
            sent["output_config"] = {"effort": _EFFORTS.get(effort, effort)}
        else:
            self._think_with_budget(sent, budget or BUDGETS[effort], is_limit=_names_limit(body))

    def _think_with_budget(self, sent: dict[str, Any], budget: int, *, is_limit: bool) -> None:
        """The older form: a number of tokens, at least 1024 and below `max_tokens`, which counts them in."""
        if _lost_its_thinking(sent["messages"]):
            return
        if not is_limit:  # the default is ours: leave room to answer
            room = budget + DEFAULT_TOKENS
            sent["max_tokens"] = max(sent["max_tokens"], min(room, self.max_output_tokens or room))
        budget = min(budget, sent["max_tokens"] * 4 // 5)
        if budget >= 1024:
            sent["thinking"] = {"type": "enabled", "budget_tokens": budget}

    @staticmethod
    def _add_sampling(sent: dict[str, Any], body: Mapping[str, Any]) -> None:
        """temperature 0–2 → 0–1. Models from 4.7 on refuse to be steered at all, and thinking allows nothing either."""
        version = version_of(as_text(sent["model"]))
        is_thinking = as_dict(sent.get("thinking")).get("type") in ("adaptive", "enabled")
        if is_thinking or (version is not None and version >= (4, 7)):
            return
        temperature = native.fraction(body.get("temperature"), 0.0, 1.0)
        top_p = native.fraction(body.get("top_p"), 0.0, 1.0)
        if temperature is not None:
            sent["temperature"] = temperature
        elif top_p is not None:  # one of the two
            sent["top_p"] = top_p
        if top_k := native.whole_number(body.get("top_k")):
            sent["top_k"] = top_k

    def _amended(self, sent: dict[str, Any], error: ProviderError) -> dict[str, Any] | None:
        """The request once more, without what this model does not take."""
        if error.status != 400:
            return None
        text = error.detail.lower()
        amended = dict(sent)
        thinking, config = as_dict(sent.get("thinking")), as_dict(sent.get("output_config"))
        kept = [
            {**turn, "content": [part for part in turn["content"] if part["type"] not in _THINKING]}
            for turn in sent["messages"]
        ]
        if "signature" in text and kept != sent["messages"]:  # another account's, or a relay changed its own upstream
            amended["messages"] = [turn for turn in kept if turn["content"]]
            if thinking.get("type") == "enabled":
                del amended["thinking"]
        elif "thinking" in text and "expected" in text and "found" in text and "thinking" in sent:
            del amended["thinking"]  # a tool loop whose thinking was lost on the way
        elif "effort" in text and "effort" in config:
            amended["output_config"] = {name: value for name, value in config.items() if name != "effort"}
            if not amended["output_config"]:
                del amended["output_config"]
        elif ("thinking" in text or "adaptive" in text) and thinking.get("type") == "adaptive":
            del amended["thinking"]
            amended["output_config"] = {name: value for name, value in config.items() if name != "effort"}
            if not amended["output_config"]:
                del amended["output_config"]
            self._think_with_budget(amended, BUDGETS.get(str(config.get("effort")), 8192), is_limit=False)
        elif ("thinking" in text or "budget_tokens" in text) and thinking.get("type") == "enabled":
            amended["thinking"] = {"type": "adaptive", "display": "summarized"}
        elif any(name in text and name in sent for name in ("temperature", "top_p", "top_k")):
            amended = {name: value for name, value in sent.items() if name not in ("temperature", "top_p", "top_k")}
        elif (cap := _CAP.search(text)) and sent["max_tokens"] == self._default_tokens(sent["stream"]):
            amended["max_tokens"] = int(cap[1])  # the catalog was wrong, not the caller
        else:
            return None
        return amended


_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_SPENT = re.compile(r"reached (your|the) (specified )?(\w+ )?(api )?(usage|spend(ing)?) (limit|cap)", re.IGNORECASE)


def _names_limit(body: Mapping[str, Any]) -> bool:
    return native.whole_number(body.get("max_completion_tokens"), body.get("max_tokens")) is not None


def _lost_its_thinking(messages: list[dict[str, Any]]) -> bool:
    """Whether the conversation ends in a tool loop whose last answer came back without its thinking."""
    if len(messages) < 2 or messages[-1]["content"][0]["type"] != "tool_result":
        return False
    return messages[-2]["content"][0]["type"] not in _THINKING
