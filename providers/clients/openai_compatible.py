"""The OpenAI dialect as it is really spoken (upstreams.md §3): the client most providers need, and the base of others.

Reading is pure and forgiving: `read_usage`, `parse_chunk`, `parse_model` take whatever JSON came and never raise (F11).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from providers import net
from providers.clients import errors, prices
from providers.clients.base import (
    Delta,
    Frame,
    ModelInfo,
    ModelList,
    Prices,
    Probe,
    ProviderClient,
    ToolCallDelta,
    Usage,
)
from providers.clients.errors import ProviderBroken, ProviderError, ProviderRefused
from providers.clients.registry import register
from providers.clients.sse import Event, EventReader

MAX_COUNT = 10_000_000_000
"""A token count above this is not believed (M2)."""

MAX_COST = Decimal(100_000)
"""USD; a cost of one answer above this is not believed (M2)."""

MAX_LIST = 16 << 20
MAX_ANSWER = 32 << 20
MAX_ERROR = 64 << 10
MAX_PROBE = 1 << 20
"""Bytes read of a model list, of an answer in one piece, of a refusal, of a probe's answer."""

PROBE_DEADLINE = 8.0
"""Seconds for each call of a probe: somebody sits before a form and waits."""

MAX_BAD_FRAMES = 5
"""This many frames in a row that are no JSON end a stream."""

TICKS = Decimal(10_000_000_000)
"""xAI's cost ticks in one US dollar."""


# --- numbers ---------------------------------------------------------------------------------------------------------


def count_of(value: Any) -> int | None:
    """A believable token count, else None: no bool, no text, nothing negative, broken, infinite or huge (M2)."""
    if value.__class__ is int:
        return value if 0 <= value <= MAX_COUNT else None
    if isinstance(value, float | Decimal):
        try:
            whole = int(value)
        except (ValueError, OverflowError):
            return None
        return whole if whole == value and 0 <= whole <= MAX_COUNT else None
    return None


def _money(value: Any, divisor: Decimal = Decimal(1)) -> Decimal | None:
    """A believable amount in USD, else None."""
    if isinstance(value, str):
        return None
    figure = prices.number(value)
    if figure is None or figure < 0 or figure / divisor > MAX_COST:
        return None
    return figure / divisor if divisor != 1 else figure


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _first_count(*values: Any) -> int | None:
    for value in values:
        count = count_of(value)
        if count is not None:
            return count
    return None


def read_usage(usage: Any) -> Usage | None:
    """A usage object in any vendor's spelling, normalised as base.Usage promises; None when it says nothing.

    "Nothing" includes all zeros: gateways put zeros on every chunk before the real figures (upstreams.md §0.4).
    """
    if not isinstance(usage, dict) or not usage:
        return None
    into = as_dict(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    out = as_dict(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    claude = as_dict(usage.get("claude_cache_tokens_details")) or usage
    prompt = _first_count(usage.get("prompt_tokens"), usage.get("input_tokens"))
    completion = _first_count(usage.get("completion_tokens"), usage.get("output_tokens"))
    total = count_of(usage.get("total_tokens"))
    cached = _first_count(into.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
    written = _first_count(into.get("cache_write_tokens"), into.get("cache_creation_tokens"))
    reasoning = _first_count(out.get("reasoning_tokens"), usage.get("reasoning_tokens"))

    # Claude's own names. Anthropic counts cached tokens beside the prompt, gateways mostly inside it; what does not fit
    # inside must be beside.
    read_beside = count_of(claude.get("cache_read_input_tokens"))
    written_beside = count_of(claude.get("cache_creation_input_tokens"))
    if cached is None and written is None and (read_beside is not None or written_beside is not None):
        cached, written = read_beside, written_beside
        beside = (cached or 0) + (written or 0)
        if prompt is not None and beside > prompt:
            if total is not None and completion is not None and total == prompt + completion:
                total += beside
            prompt += beside
    if total is not None:
        if completion is None and prompt is not None and total >= prompt:
            completion = total - prompt
        elif prompt is None and completion is not None and total >= completion:
            prompt = total - completion
    if prompt is not None and completion is not None:
        if reasoning and (total == prompt + completion + reasoning or reasoning > completion):
            # xAI counts reasoning beside the completion: 12 + 1 + 290 = 303.
            completion += reasoning
        if total is None or total < prompt + completion:
            total = prompt + completion
    if reasoning is not None and completion is not None and reasoning > completion:
        reasoning = None

    if prompt is not None and (cached or 0) + (written or 0) > prompt:
        cached, written = (cached, None) if cached is not None and cached <= prompt else (None, None)

    cost = _cost(usage)
    if not (prompt or completion or total or cost):
        return None
    return Usage(prompt, completion, total, cached, written, reasoning, cost)


def _cost(usage: dict[str, Any]) -> Decimal | None:
    """USD as the upstream names it: `cost`, an object (Perplexity), ticks (xAI), an estimate (DeepInfra)."""
    cost = usage.get("cost")
    if cost is not None:
        return _money(as_dict(cost).get("total_cost") if isinstance(cost, dict) else cost)
    if (ticks := usage.get("cost_in_usd_ticks")) is not None:
        return _money(ticks, TICKS)
    return _money(usage.get("estimated_cost"))


# --- chunks ----------------------------------------------------------------------------------------------------------

FINISH_REASONS: dict[str, str | None] = {
    "": None,
    "null": None,
    "none": None,
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "end"), "stop"),
    **dict.fromkeys(
        ("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "model_context_window_exceeded"),
        "length",
    ),
    **dict.fromkeys(("tool_calls", "tool_use", "tool_call"), "tool_calls"),
    "function_call": "function_call",
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "safety",
            "recitation",
            "refusal",
            "blocklist",
            "prohibited_content",
            "spii",
            "sensitive",
            "image_safety",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "error",
            "network_error",
            "abort",
            "aborted",
            "cancelled",
            "malformed_function_call",
            "insufficient_system_resource",
        ),
        "error",
    ),
}
"""Vendors' words, lower-cased → ours. A word not listed ends the answer like "stop"."""


def finish_reason_of(value: Any) -> str | None:
    """stop, length, tool_calls, content_filter, function_call, error, or None for "not finished"."""
    if value is None or not isinstance(value, str):
        return None
    return FINISH_REASONS.get(value.lower(), "stop")


class _StreamState:
    """What reading one chunk needs to know of the ones before it."""

    __slots__ = ("_calls", "_ids", "_last", "_next", "held_reasoning", "held_text", "think")

    def __init__(self) -> None:
        self.held_text = self.held_reasoning = ""
        self.think = _ThinkTags()
        self._calls: dict[int, int] = {}
        self._ids: dict[int, str] = {}
        self._last = -1
        self._next = 0

    def flush(self) -> tuple[str, str]:
        """(text, reasoning) that was held back, at the end: possible tags, half surrogate pairs."""
        text, reasoning = self.think.flush()
        text, lone = _storable(self.held_text + text)
        reasoning, thought = _storable(self.held_reasoning + reasoning)
        self.held_text = self.held_reasoning = ""
        return text + "\ufffd" * len(lone), reasoning + "\ufffd" * len(thought)

    def tool_index(self, index: int | None, call_id: str, name: str) -> int:
        """Our index of the tool call a piece belongs to, when the upstream's is missing or used twice."""
        if index is None:
            is_new = self._last < 0 or (bool(call_id) and call_id not in (self._ids.get(self._last), ""))
            ours = self._new() if is_new else self._last
        else:
            known = self._calls.get(index)
            is_other = bool(name and call_id and known is not None and self._ids.get(known) not in ("", call_id))
            ours = self._new() if known is None or is_other else known
            self._calls[index] = ours
        if call_id and not self._ids.get(ours):
            self._ids[ours] = call_id
        self._last = ours
        return ours

    def _new(self) -> int:
        ours = self._next
        self._next += 1
        self._ids[ours] = ""
        return ours


class _ThinkTags:
    """Splits `<think>…</think>` at the very start of an answer from the rest, however the tags were cut.

    Only there: an answer that talks about the tag later keeps it. White space before the tag goes with it.
    """

    __slots__ = ("_held", "state")
    OPEN, CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self.state = "start"  # start | inside | done
        self._held = ""

    def split(self, text: str) -> tuple[str, str]:
        """(text, reasoning) that `text` adds; what may be part of a tag is held back."""
        if self.state == "done" or not text:
            return text, ""
        text, self._held = self._held + text, ""
        if self.state == "start":
            stripped = text.lstrip()
            if not stripped.startswith(self.OPEN):
                if self.OPEN.startswith(stripped):
                    self._held = text
                    return "", ""
                self.state = "done"
                return text, ""
            self.state, text = "inside", stripped[len(self.OPEN) :]
        at = text.find(self.CLOSE)
        if at >= 0:
            self.state = "done"
            return text[at + len(self.CLOSE) :], text[:at]
        keep = _overlap(text, self.CLOSE)
        if keep:
            self._held, text = text[-keep:], text[:-keep]
        return "", text

    def flush(self) -> tuple[str, str]:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return ("", held) if self.state == "inside" else (held, "")


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0


def parse_chunk(chunk: dict[str, Any], state: _StreamState | None = None) -> Delta:
    """What one chunk (or one whole answer) adds. Never raises.

    Without `state`, `<think>` tags stay in the text and tool calls keep the upstream's numbering. Text is fit to store:
    no NUL, no half surrogate pairs. Of several choices only the first (index 0) is read.
    """
    usage = chunk.get("usage")
    choices = chunk.get("choices")
    choice = choices[0] if choices.__class__ is list and choices else None
    if choice is not None and (choice.__class__ is not dict or choice.get("index")):
        choice = _choice(choices)
    error = finish = None
    text = reasoning = ""
    calls: tuple[ToolCallDelta, ...] = ()
    annotations: tuple[dict[str, Any], ...] = ()
    if choice is not None:
        delta = choice.get("delta")
        if delta.__class__ is not dict or not delta:
            delta = choice.get("message")
        if delta.__class__ is dict:
            content = delta.get("content")
            if content.__class__ is str:
                text = content
            elif content:
                text, reasoning = _parts(content)
            elif "content" not in delta:
                text = as_text(choice.get("text"))
            size = len(delta)
            if size > 2 or not text or (size == 2 and "role" not in delta):
                reasoning += _reasoning(delta)
                if refusal := delta.get("refusal"):
                    text += as_text(refusal)
                if items := (delta.get("tool_calls") or delta.get("function_call")):
                    calls = _tool_calls(items, state)
                if (found := delta.get("annotations")) and isinstance(found, list):
                    annotations = tuple(item for item in found if isinstance(item, dict))
        else:
            text = as_text(choice.get("text"))
        if (word := choice.get("finish_reason")) is not None:
            finish = finish_reason_of(word)
        if usage is None:
            usage = choice.get("usage")
        if choice.get("error"):
            error = errors.from_answer(200, None, chunk)
    if error is None and ("error" in chunk or "base_resp" in chunk) and errors.has_error(chunk):
        error = errors.from_answer(200, None, chunk)
    if finish == "error" and error is None:
        error = ProviderRefused("upstream_error", status=200, permanent=False)
    if state is None:
        text, lone = _storable(text)
        reasoning, thought = _storable(reasoning)
        text, reasoning = text + "\ufffd" * len(lone), reasoning + "\ufffd" * len(thought)
    else:
        if text:
            if state.think.state != "done":
                text, thought = state.think.split(text)
                reasoning += thought
            if state.held_text or not text.isascii() or "\x00" in text:
                text, state.held_text = _storable(state.held_text + text)
        if reasoning and (state.held_reasoning or not reasoning.isascii() or "\x00" in reasoning):
            reasoning, state.held_reasoning = _storable(state.held_reasoning + reasoning)
    if not usage and (vendor := chunk.get("x_groq")):
        usage = as_dict(vendor).get("usage")
    model, own_id = chunk.get("model"), chunk.get("id")
    return Delta(
        text,
        reasoning,
        calls,
        finish,
        read_usage(usage) if usage else None,
        error,
        model if model.__class__ is str else "",
        own_id if own_id.__class__ is str else "",
        annotations,
    )


def _choice(choices: Any) -> dict[str, Any] | None:
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def _storable(text: str) -> tuple[str, str]:
    """`text` with U+FFFD for NUL and lone surrogates; and a high surrogate at its end, which the next may complete."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text, ""
    try:
        text.encode()
        return text, ""
    except UnicodeEncodeError:
        held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        whole = text[: len(text) - len(held)]
        return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), held


def _parts(content: Any) -> tuple[str, str]:
    """(text, reasoning) of a content that is a list of parts, or one part."""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return "", ""
    text = reasoning = ""
    for part in content:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in ("thinking", "reasoning"):
                reasoning += _flat(part.get("thinking") or part.get("text") or part.get("summary"))
            else:
                text += _flat(part.get("text")) or as_text(part.get("refusal"))
    return text, reasoning


def _flat(value: Any) -> str:
    """Text that may be wrapped: "a", {"text": "a"}, [{"text": "a"}, …], {"value": "a"}."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        inner = value.get("text", value.get("value", value.get("content")))
        return inner if isinstance(inner, str) else ""
    if isinstance(value, list):
        return "".join(_flat(item) for item in value if isinstance(item, str | dict))
    return ""


def _reasoning(delta: dict[str, Any]) -> str:
    """The reasoning text of a delta, once, though vendors put it under up to three names at the same time."""
    if value := (delta.get("reasoning") or delta.get("reasoning_content") or delta.get("thinking")):
        if value.__class__ is str:
            return value
        if found := _flat(value):
            return found
    details = delta.get("reasoning_details")
    if isinstance(details, dict):
        details = [details]
    if not details or not isinstance(details, list):
        return ""
    return "".join(
        as_text(item.get("text")) or as_text(item.get("summary")) or as_text(item.get("thinking"))
        for item in details
        if isinstance(item, dict)
    )


def _tool_calls(items: Any, state: _StreamState | None) -> tuple[ToolCallDelta, ...]:
    if isinstance(items, dict):  # the old function_call, or one call without its list
        items = [items if "function" in items else {"index": 0, "function": items}]
    if not isinstance(items, list):
        return ()
    calls = []
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        function = as_dict(item.get("function"))
        arguments = function.get("arguments")
        if isinstance(arguments, dict | list):
            arguments = json.dumps(arguments, ensure_ascii=False)
        index = item.get("index")
        index = index if index.__class__ is int and 0 <= index < 1000 else None
        call_id, name = as_text(item.get("id")), as_text(function.get("name"))
        if state is not None:
            index = state.tool_index(index, call_id, name)
        calls.append(ToolCallDelta(position if index is None else index, call_id, name, as_text(arguments)))
    return tuple(calls)


# --- model rows ------------------------------------------------------------------------------------------------------

_MODEL_TYPES: dict[str, str] = {
    **dict.fromkeys(("chat", "language", "llm", "text", "text-generation", "chat.completions", "text-to-text"), "chat"),
    **dict.fromkeys(("image", "text-to-image", "image_generation", "image-generation"), "image"),
    **dict.fromkeys(("video", "text-to-video"), "video"),
    **dict.fromkeys(("audio", "tts", "stt", "asr", "transcribe", "speech", "text-to-speech", "whisper"), "audio"),
    **dict.fromkeys(("embedding", "embeddings", "feature-extraction"), "embedding"),
    **dict.fromkeys(("rerank", "reranker", "reranking"), "rerank"),
    "moderation": "moderation",
    "code": "chat",
}
"""Sellers' words for what a model does → AggregatorModel.ModelType."""

PRICE_SHAPES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], Decimal]] = {
    # name: paths to (input, output, cache_read, cache_write), and the factor to USD per 1M tokens
    "prompt_per_million": (
        ("pricing", "prompt"),
        ("pricing", "completion"),
        ("pricing", "input_cache_read"),
        ("pricing", "input_cache_write"),
        prices.PER_MILLION,
    ),
    "input_per_million": (
        ("pricing", "input"),
        ("pricing", "output"),
        ("pricing", "cache_read"),
        ("pricing", "cache_write"),
        prices.PER_MILLION,
    ),
    "deepinfra": (
        ("metadata", "pricing", "input_tokens"),
        ("metadata", "pricing", "output_tokens"),
        ("metadata", "pricing", "cache_read_tokens"),
        ("metadata", "pricing", "cache_write_tokens"),
        prices.PER_MILLION,
    ),
    "venice": (
        ("model_spec", "pricing", "input", "usd"),
        ("model_spec", "pricing", "output", "usd"),
        ("model_spec", "pricing", "cache_input", "usd"),
        (),
        prices.PER_MILLION,
    ),
    "requesty": (("input_price",), ("output_price",), ("cached_price",), ("caching_price",), prices.PER_TOKEN),
    "none": ((), (), (), (), prices.PER_MILLION),
}

PRICE_SHAPE_OF_HOST: dict[str, str] = {
    "together.ai": "input_per_million",
    "together.xyz": "input_per_million",
    "friendli.ai": "input_per_million",
    "chutes.ai": "prompt_per_million",
    "deepinfra.com": "deepinfra",
    "venice.ai": "venice",
    "requesty.ai": "requesty",
    "cortecs.ai": "none",  # may be in euros
    "nano-gpt.com": "none",  # only right where it names its unit, see below
}
"""Sellers whose figures do not say their unit (upstreams.md §3.0). Other hosts: only figures that do are read."""

_SELF_NAMED: tuple[tuple[str, str, tuple[str, ...], Decimal], ...] = (
    # (input key, output key, where they are, factor): keys that name their own unit
    ("input_cost_per_token", "output_cost_per_token", (), prices.PER_TOKEN),
    ("input_cost_per_token", "output_cost_per_token", ("model_info",), prices.PER_TOKEN),
    ("per_input_token", "per_output_token", ("pricing",), prices.PER_TOKEN),
    ("input_token_price_per_m", "output_token_price_per_m", (), Decimal("0.0001")),  # Novita: 1/10000 USD
)


def _dig(row: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = row
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value if path else None


def read_prices(row: Mapping[str, Any], shape: str = "") -> Prices:
    """Prices of a row of an unknown seller's list, or one read by a named PRICE_SHAPES entry.

    Without a shape, only what names its unit counts: keys such as `input_cost_per_token`, a `unit` field, and decimal
    *strings*, which every seller that uses them means per token (a wrong guess would exceed MAX_PRICE and be dropped).
    """
    if shape in PRICE_SHAPES:
        to_input, to_output, to_read, to_write, factor = PRICE_SHAPES[shape]
        if shape != "none":
            return _prices(_dig(row, to_input), _dig(row, to_output), _dig(row, to_read), _dig(row, to_write), factor)
    for key_in, key_out, where, factor in _SELF_NAMED:
        holder = as_dict(_dig(row, where)) if where else row
        if key_in in holder or key_out in holder:
            return _prices(
                holder.get(key_in),
                holder.get(key_out),
                holder.get("cache_read_input_token_cost", holder.get("per_cached_input_token")),
                holder.get("cache_creation_input_token_cost"),
                factor,
            )
    pricing = as_dict(row.get("pricing"))
    if not pricing or pricing.get("currency", "USD") != "USD":
        return Prices()
    if pricing.get("unit") == "per_million_tokens":
        return _prices(pricing.get("prompt"), pricing.get("completion"), None, None, prices.PER_MILLION)
    if shape:
        return Prices()
    read = pricing.get("input_cache_read", pricing.get("input_cache_reads"))
    write = pricing.get("input_cache_write", pricing.get("input_cache_writes"))
    for key_in, key_out in (("prompt", "completion"), ("input", "output")):
        figures = [pricing.get(key_in), pricing.get(key_out)]
        if any(isinstance(figure, str) for figure in figures):
            if prices.is_variable(*figures):
                return Prices(variable=True)
            into, out, kept, made = (figure if isinstance(figure, str) else None for figure in (*figures, read, write))
            return _prices(into, out, kept, made, prices.PER_TOKEN, request=pricing.get("request"))
    if isinstance(pricing.get("request"), str):
        return Prices(request=prices.price(pricing["request"]))
    return Prices()


def _prices(into: Any, out: Any, read: Any, write: Any, factor: Decimal, *, request: Any = None) -> Prices:
    paid = prices.price(into, factor)
    cache_read, cache_write = prices.price(read, factor), prices.price(write, factor)
    if paid:  # 0 beside a real price means "not set" (upstreams.md §0.2)
        cache_read, cache_write = cache_read or None, cache_write or None
    return Prices(
        input=paid,
        output=prices.price(out, factor),
        cache_read=cache_read,
        cache_write=cache_write,
        request=prices.price(request) or None,
    )


def limit_of(*values: Any) -> int | None:
    """The first believable number of tokens; 0 is unknown. Some sellers write it as text."""
    for value in values:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
            value = int(value)
        count = count_of(value)
        if count:
            return count
    return None


def moment(value: Any) -> datetime | None:
    """A time stamp in seconds or milliseconds, or an ISO date; None for 0, one-api's constants, nonsense."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    seconds = count_of(value)
    if value.__class__ is int and seconds is None and MAX_COUNT < value < 10**14:
        seconds = value
    if not seconds or seconds in (1626777600, 1677610602):
        return None
    if seconds > 10**11:
        seconds //= 1000
    if not 1_000_000_000 <= seconds <= 4_102_444_800:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def day(value: Any) -> date | None:
    """A date from "2026-07-21", with or without a time behind it, or a time stamp."""
    found = moment(value)
    return found.date() if found else None


def words(value: Any) -> tuple[str, ...]:
    """Words of a JSON list or of a comma-separated string (full-width commas too), lower-cased, in order, each once."""
    if isinstance(value, str):
        value = value.replace("，", ",").split(",")
    if not isinstance(value, list | tuple):
        return ()
    found = (item.strip().lower() for item in value if isinstance(item, str))
    return tuple(dict.fromkeys(word for word in found if word))[:50]


def json_ready(value: Any) -> Any:
    """`value` with every Decimal written as text, so that a JSON column keeps the seller's own digits."""
    if isinstance(value, Decimal):
        return prices.plain(value) if value.is_finite() and abs(value.adjusted()) <= 60 else str(value)
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_ready(item) for item in value]
    return value


def model_id_of(row: Mapping[str, Any]) -> str:
    """The id as it must be sent. Raises ValueError for none, or one that cannot be sent or stored (S10)."""
    for key in ("id", "model_id", "model", "name"):
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            if len(value) > 300 or not value.isprintable():
                raise ValueError("model id is too long or unprintable")
            return value
    raise ValueError("row without an id")


def parse_model(row: Any, *, shape: str = "") -> ModelInfo:
    """One row of an OpenAI-shaped list, with the extras of upstreams.md §3. Raises ValueError if unusable.

    `shape` is a PRICE_SHAPES key for sellers whose figures do not name their unit.
    """
    if isinstance(row, str):
        row = {"id": row}
    if not isinstance(row, dict):
        raise ValueError("row is no object")
    model_id = model_id_of(row)
    architecture, top = as_dict(row.get("architecture")), as_dict(row.get("top_provider"))
    metadata, meta, spec = as_dict(row.get("metadata")), as_dict(row.get("meta")), as_dict(row.get("model_spec"))
    info = as_dict(row.get("model_info"))
    given, can = row.get("capabilities"), []
    flags = given if isinstance(given, dict) else {}
    supported = (
        words(row.get("supported_parameters")) + words(row.get("supported_features")) + words(row.get("features"))
    )
    inputs = words(architecture.get("input_modalities") or row.get("input_modalities"))
    outputs = words(architecture.get("output_modalities") or row.get("output_modalities"))
    if {"tools", "tool_choice", "function_calling"} & set(supported) or any(
        value is True
        for value in (
            row.get("supports_tools"),
            flags.get("function_calling"),
            flags.get("tools"),
            flags.get("tool_calling"),
            flags.get("supports_tools"),
            info.get("supports_function_calling"),
        )
    ):
        can.append("tools")
    if {"reasoning", "thinking", "reasoning_effort", "include_reasoning"} & set(supported) or True in (
        flags.get("reasoning"),
        flags.get("thinking"),
        info.get("supports_reasoning"),
    ):
        can.append("reasoning")
    if "structured_outputs" in supported or flags.get("structured_outputs") is True:
        can.append("structured_outputs")
    if "image" in inputs or True in (row.get("supports_image_input"), flags.get("vision"), info.get("supports_vision")):
        can.append("vision")
    kind = row.get("type") or row.get("model_type") or info.get("mode") or row.get("task")
    model_type = _MODEL_TYPES.get(kind.lower(), "unknown") if isinstance(kind, str) else "unknown"
    if model_type == "unknown" and outputs:
        model_type = "chat" if "text" in outputs else _MODEL_TYPES.get(outputs[0], "other")
    display = row.get("display_name") or row.get("name") or row.get("title") or row.get("friendly_name")
    pricing = row.get("pricing") or row.get("price") or metadata.get("pricing") or spec.get("pricing")
    return ModelInfo(
        model_id=model_id,
        display_name=(as_text(display).strip() or model_id)[:300],
        model_name=as_text(row.get("canonical_slug") or row.get("root"))[:300],
        description=as_text(row.get("description") or row.get("summary") or metadata.get("description")),
        model_type=model_type,
        capabilities=tuple(can),
        input_modalities=inputs,
        output_modalities=outputs,
        context_window=limit_of(
            row.get("context_length"),
            row.get("context_window"),
            row.get("max_model_len"),
            row.get("max_context_length"),
            row.get("context_size"),
            row.get("max_input_tokens"),
            metadata.get("context_length"),
            meta.get("n_ctx"),
            spec.get("availableContextTokens"),
            info.get("max_input_tokens"),
            top.get("context_length"),
        ),
        max_output_tokens=limit_of(
            top.get("max_completion_tokens"),
            row.get("max_output_tokens"),
            row.get("max_completion_tokens"),
            row.get("max_output"),
            metadata.get("max_tokens"),
            row.get("max_tokens"),
            info.get("max_output_tokens"),
        ),
        prices=read_prices(row, shape) if model_type in ("chat", "unknown", "embedding", "moderation") else Prices(),
        raw_pricing=json_ready(pricing) if isinstance(pricing, dict) else {},
        released_at=moment(row.get("created") or row.get("created_at")),
        retires_at=day(row.get("expiration_date") or row.get("deprecation") or row.get("shutdown_date")),
        is_available=row.get("active") is not False,
    )


# --- the client ------------------------------------------------------------------------------------------------------

_RESERVED_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "if-none-match",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4000}", re.ASCII)
_SECRET_NAME = re.compile(r"auth|key|token|secret|code|pass|cookie", re.IGNORECASE)
ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,200}"', re.ASCII)

_WRONG_KEY = "sk-not-a-real-key-0000000000000000"
"""Sent once by a probe, to learn whether the provider looks at keys at all."""

_decoder = json.JSONDecoder(parse_constant=prices.refuse_constant)
_decode = _decoder.raw_decode
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]


def _read_frame(text: str) -> Any:
    """The JSON of one event. Raises ValueError for anything else, glued documents included."""
    try:
        value, end = _decode(text)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    if end != len(text) and not text[end:].isspace():
        raise ValueError("something follows the JSON")
    return value


@register("openai_compatible", "OpenAI-compatible")
class OpenAICompatibleClient(ProviderClient):
    """Any endpoint that answers /models and /chat/completions.

    `options` it reads: `price_shape` (a PRICE_SHAPES key), and `header_timeout`, `idle_timeout`, `total_timeout` in
    seconds for streams.
    """

    # --- requests

    def url(self, path: str) -> str:
        return f"{self.base_url}/{path.lstrip('/')}"

    def headers(self, *, accept: str = "application/json", key: str | None = None) -> dict[str, str]:
        """Request headers. The account's extra ones come first and cannot replace ours, the key's above all.

        Raises ProviderRefused("key_rejected") for a key that cannot be a header (S10).
        """
        sent: dict[str, str] = {}
        extra: Mapping[Any, Any] = self._extra_headers  # JSON of a row, so anything
        for name, value in extra.items():
            if not isinstance(name, str) or not isinstance(value, str):
                continue
            if name.lower() in _RESERVED_HEADERS or not _HEADER_NAME.fullmatch(name):
                continue
            if _HEADER_VALUE.fullmatch(value):
                sent[name] = value
        sent["Accept"] = accept
        key = self._api_key if key is None else key
        if key:
            if not re.fullmatch(r"[\x21-\x7e]{1,4000}", key, re.ASCII):
                raise ProviderRefused("key_rejected", detail="The key holds characters that no key has.")
            sent["Authorization"] = f"Bearer {key}"
        return sent

    def secrets(self) -> tuple[str, ...]:
        """What must be cut from upstream text: the key, and extra headers that sound like one."""
        return tuple(
            value
            for name, value in (("key", self._api_key), *self._extra_headers.items())
            if isinstance(value, str) and len(value) >= 6 and _SECRET_NAME.search(str(name))
        )

    def parse_error(self, status: int, headers: Mapping[str, str] | None, body: Any) -> ProviderError:
        """What a refusal means; see errors.from_answer."""
        return errors.from_answer(status, headers, body, self.secrets())

    async def get_json(self, url: str) -> Any:
        """A small JSON document, numbers exact, for probes. Raises ProviderError, also for an error with status 200."""
        response = await net.request("GET", url, headers=self.headers(), max_bytes=MAX_PROBE, deadline=PROBE_DEADLINE)
        return self._read_json(response)

    def _read_json(self, response: Any) -> Any:
        if response.status >= 300 or response.status < 200:
            raise self.parse_error(response.status, response.headers, response.body)
        body = self._without_secrets(response.body)
        try:
            document = prices.loads(body)
        except ValueError:
            raise self._unexpected(response.status, body) from None
        if errors.has_error(document) or isinstance(document, str):
            raise self.parse_error(response.status, response.headers, document)
        return document

    def _without_secrets(self, body: bytes) -> bytes:
        """An echoed key is never kept, not even as a model's name (K5)."""
        for secret in self.secrets():
            body = body.replace(secret.encode(), b"[key]")
        return body

    def _unexpected(self, status: int, body: bytes, expected: str = "JSON") -> ProviderBroken:
        start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        came = {b"": "an empty answer", b"<": "a web page", b"{": "JSON", b"[": "JSON"}.get(start, "other text")
        said = errors.excerpt(body, self.secrets())
        detail = f"{came} instead of {expected}" + (f": {said}" if said else "")
        return ProviderBroken("unexpected_content", status=status, detail=detail[: errors.DETAIL_LENGTH])

    # --- models

    models_path = "models"

    def price_shape(self) -> str:
        shape = self.options.get("price_shape")
        if isinstance(shape, str) and shape in PRICE_SHAPES:
            return shape
        host = (urlsplit(self.base_url).hostname or "").lower()
        return next(
            (shape for end, shape in PRICE_SHAPE_OF_HOST.items() if host == end or host.endswith(f".{end}")), ""
        )

    def models_url(self) -> str:
        return self.url(self.models_path)

    def parse_model(self, row: Any) -> ModelInfo | None:
        """One row; None for a row that is fine but not offered. Raises ValueError for an unusable one."""
        return parse_model(row, shape=self.price_shape())

    async def list_models(self, *, etag: str = "") -> ModelList:
        headers = self.headers()
        if etag and ETAG.fullmatch(etag):
            headers["If-None-Match"] = etag
        response = await net.request("GET", self.models_url(), headers=headers, max_bytes=MAX_LIST)
        if response.status == 304:
            return ModelList(etag=etag, not_modified=True)
        document = self._read_json(response)
        models, skipped = self.read_rows(self._rows(document, response))
        tag = response.headers.get("etag", "")
        return ModelList(models=models, skipped=skipped, etag=tag if ETAG.fullmatch(tag) else "")

    def _rows(self, document: Any, response: Any) -> list[Any]:
        """The rows of a list in any of its shapes: {data}, {models}, a bare array. Raises ProviderBroken."""
        if isinstance(document, dict):
            for key in ("data", "models"):
                if isinstance(document.get(key), list):
                    return document[key]
            if "data" in document and document["data"] is None:
                return []
        if isinstance(document, list):
            return document
        raise self._unexpected(response.status, response.body, "a list of models")

    def read_rows(self, rows: list[Any]) -> tuple[tuple[ModelInfo, ...], int]:
        """(models, number of rows that could not be read). Of rows with one id the first counts; case matters."""
        found: dict[str, ModelInfo] = {}
        skipped = 0
        for row in rows:
            try:
                model = self.parse_model(row)
            except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError):
                skipped += 1
                continue
            if model is not None:
                found.setdefault(model.model_id, model)
        return tuple(found.values()), skipped

    # --- probing

    async def probe(self) -> Probe:
        """Is the key accepted?

        /models with the key, then with a wrong one: a list that both get is public and proves nothing. Then an empty
        chat request, with both: it cannot cost anything, and who checks keys first refuses only the wrong one.
        """
        try:
            return await self._probe_by_difference()
        except ProviderError as error:
            return self._verdict_of(error, "GET /models")

    async def _probe_by_difference(self) -> Probe:
        request = "GET /models"
        count: int | None = None
        failure: ProviderError | None = None
        try:
            response = await self._ask("GET", self.models_url(), None, self._api_key)
            count = len(self.read_rows(self._rows(self._read_json(response), response))[0])
        except ProviderError as error:
            verdict = self._verdict_of(error, request)
            # No list there says nothing about the key; a chat request still may.
            if verdict.verdict != "unverified" or not self._api_key or error.status is None:
                return verdict
            failure = error
        if failure is None and not self._api_key:
            return Probe("valid", request, f"No key was needed. {_listed(count)}", models=count)
        if failure is None and await self._is_refused("GET", self.models_url(), None):
            return Probe("valid", request, f"The provider accepted the key. {_listed(count)}", models=count)
        request = "POST /chat/completions with an empty body"
        answer = await self._ask("POST", self.url("chat/completions"), b"{}", self._api_key)
        if answer.status >= 400:
            refusal = self.parse_error(answer.status, answer.headers, answer.body)
            if refusal.code in ("key_rejected", "no_balance"):
                return self._verdict_of(refusal, request, count)
            if answer.status in (400, 422) and await self._is_refused("POST", self.url("chat/completions"), b"{}"):
                reason = "The provider accepted the key and refused a wrong one."
                return Probe("valid", request, f"{reason} {_listed(count)}".strip(), models=count)
        if failure is not None:
            return self._verdict_of(failure, "GET /models")
        return Probe(
            "unverified",
            request,
            "The list of models is public here, and no call that costs nothing shows whether the key is good. "
            f"{_listed(count)}",
            models=count,
        )

    async def _ask(self, method: str, url: str, content: bytes | None, key: str) -> Any:
        headers = self.headers(key=key)
        if content is not None:
            headers["Content-Type"] = "application/json"
        return await net.request(
            method, url, headers=headers, content=content, max_bytes=MAX_LIST, deadline=PROBE_DEADLINE
        )

    async def _is_refused(self, method: str, url: str, content: bytes | None) -> bool:
        """Whether the same request with a wrong key is refused because of the key."""
        answer = await self._ask(method, url, content, _WRONG_KEY)
        if answer.status in (401, 403):
            return True
        return self.parse_error(answer.status, answer.headers, answer.body).code == "key_rejected"

    def _verdict_of(self, error: ProviderError, request: str, models: int | None = None) -> Probe:
        if error.code == "key_rejected":
            verdict = "invalid"
        elif error.code == "no_balance":
            verdict = "valid"
        else:
            verdict = "unverified"
        return Probe(verdict, request, error.public_message, code=error.code, models=models)  # type: ignore[arg-type]

    # --- chat

    def chat_body(self, body: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        """`body` as it goes out: unknown fields untouched, the streaming flags ours."""
        sent = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
        sent["stream"] = stream
        if stream:
            sent["stream_options"] = {**as_dict(body.get("stream_options")), "include_usage": True}
        return sent

    @staticmethod
    def _amended(body: dict[str, Any], error: ProviderError) -> dict[str, Any] | None:
        """`body` without what the upstream just refused, if we know better; None otherwise (upstreams.md §1.4)."""
        if error.status not in (400, 422):
            return None
        text = error.detail.lower()
        if "max_tokens" in body and "max_completion_tokens" in text and "max_completion_tokens" not in body:
            amended = dict(body)
            amended["max_completion_tokens"] = amended.pop("max_tokens")
            return amended
        if "stream_options" in body and "stream_options" in text:
            return {key: value for key, value in body.items() if key != "stream_options"}
        return None

    def _encode(self, body: Mapping[str, Any]) -> bytes:
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except UnicodeEncodeError:  # half surrogate pairs: legal as \u escapes, not as UTF-8
            return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise ProviderRefused("bad_request", detail="The request is not JSON.") from exc

    def _stream_limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        for name in ("header_timeout", "idle_timeout", "total_timeout"):
            value = self.options.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 86_400:
                limits[name] = float(value)
        return limits

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Frame]:
        sent = self.chat_body(body, stream=True)
        may_amend = True
        while True:
            headers = self.headers(accept="text/event-stream")
            headers["Content-Type"] = "application/json"
            async with net.open_stream(
                "POST",
                self.url("chat/completions"),
                headers=headers,
                content=self._encode(sent),
                **self._stream_limits(),
            ) as answer:
                problem: ProviderError | None = None
                if not 200 <= answer.status < 300:
                    problem = self.parse_error(answer.status, answer.headers, await self._refusal_body(answer))
                else:
                    reader = FrameReader(self, answer.status, answer.headers)
                    try:
                        async with aclosing(answer.chunks()) as chunks:
                            async for chunk in chunks:
                                for frame in reader.feed(chunk):
                                    yield frame
                                if reader.is_done or reader.problem is not None:
                                    break
                        for frame in reader.close():
                            yield frame
                    except ProviderError as error:
                        for frame in reader.close():
                            yield frame
                        if not reader.is_over:
                            problem = _cut(error) if reader.frames else error
                    else:
                        problem = reader.problem
                    if reader.frames and problem is not None:
                        raise problem
                if problem is None:
                    return
                amended = self._amended(sent, problem) if may_amend else None
                if amended is None:
                    raise problem
            # Refused before the first frame, for a reason we know how to mend: once more (upstreams.md §1.4).
            sent, may_amend = amended, False

    async def _refusal_body(self, answer: Any) -> bytes:
        """The body of a refusal, or nothing if it breaks off: the status already says enough."""
        try:
            return await answer.read(MAX_ERROR)
        except ProviderError:
            return b""

    async def complete(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], Delta]:
        sent = self.chat_body(body, stream=False)
        headers = self.headers()
        headers["Content-Type"] = "application/json"
        deadline = self._stream_limits().get("total_timeout", 600.0)
        for may_amend in (True, False):
            async with net.open_stream(  # a third of net.request()'s price, on a path that /v1 is measured by
                "POST",
                self.url("chat/completions"),
                headers=headers,
                content=self._encode(sent),
                header_timeout=deadline,
                idle_timeout=deadline,
                total_timeout=deadline,
                max_bytes=MAX_ANSWER,
            ) as answer:
                response = await answer.whole()
            try:
                exact = self._read_json(response)
                break
            except ProviderRefused as error:
                amended = self._amended(sent, error) if may_amend else None
                if amended is None:
                    raise
                sent = amended
        choices = exact.get("choices") if isinstance(exact, dict) else None
        if not isinstance(exact, dict) or "choices" not in exact:
            raise self._unexpected(response.status, response.body, "an answer")
        if _choice(choices) is None:
            # MiniMax through gateways: a failure as 200 with "choices": null.
            raise ProviderRefused("upstream_error", status=response.status, detail="empty answer", permanent=False)
        document = _read_frame(self._without_secrets(response.body).decode("utf-8-sig").strip())
        state = _StreamState()
        delta = parse_chunk({**document, "usage": exact.get("usage"), "x_groq": exact.get("x_groq")}, state)
        held = state.flush()
        if held[0] or held[1]:
            delta = replace(delta, text=delta.text + held[0], reasoning=delta.reasoning + held[1])
        if delta.error is not None:
            raise (
                self.parse_error(response.status, response.headers, document)
                if _has_choice_error(choices)
                else delta.error
            )
        return document, delta


class FrameReader:
    """From the bytes of one answer to Frames; pure, so that tests cut the bytes as they like.

    Call `feed` until `is_done` or `problem`, and `close` at the end of the bytes. `problem` is what to raise once the
    frames are dealt with. Whether this is a stream at all is decided by the first byte that is no white space, never by
    the content type.
    """

    def __init__(
        self, client: OpenAICompatibleClient, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._client, self._status, self._headers = client, status, headers or {}
        self._events = EventReader()
        self._state = _StreamState()
        self._head = bytearray()
        self._is_stream: bool | None = None
        key = client._api_key
        self._key = key if len(key) >= 12 and key.isascii() else ""
        self._key_bytes = self._key.encode()
        self._bad = 0
        self.skipped = 0
        """Frames that could not be read."""
        self.frames = 0
        """Frames given out."""
        self.problem: ProviderError | None = None
        self.is_done = self._has_finish = self._has_error = False

    @property
    def is_over(self) -> bool:
        """The answer reached an end of its own: `[DONE]`, a finish reason, or an error frame."""
        return self.is_done or self._has_finish or self._has_error

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes; none after `[DONE]` or a problem."""
        if self.is_done or self.problem is not None:
            return []
        if not self._is_stream:
            self._head += chunk
            if self._is_stream is None:
                self._is_stream = _looks_like_events(self._head)
            if not self._is_stream:
                if len(self._head) > MAX_ERROR:
                    self._end_document()
                return []
            chunk = bytes(self._head)
            del self._head[2_000:]
        elif not self.frames:
            self._head += chunk[: 2_000 - len(self._head)]  # to name what came, should it turn out to be no stream
        try:
            frames = self._read(self._events.feed(chunk))
        except ProviderBroken as error:
            self.problem = error
            return []
        if self._events.is_broken and self.problem is None and not self.is_done:
            self.problem = ProviderBroken("response_too_large", status=self._status)
        return frames

    def close(self) -> list[Frame]:
        """The last frames when the bytes end: a pending event that is whole, and text held back for a tag."""
        frames: list[Frame] = []
        if self.problem is None and not self.is_done:
            if not self._is_stream:
                self._end_document()
                return []
            frames = self._read(self._events.close())
        text, reasoning = self._state.flush()
        if text or reasoning:
            frames.append(Frame(b"", None, Delta(text=text, reasoning=reasoning)))
            self.frames += 1
        if self.problem is None and not self.is_over:
            if not self.frames and not _FIELD_LINE.match(self._head):
                self.problem = self._client._unexpected(self._status, bytes(self._head), "a stream")
            else:
                self.problem = ProviderBroken("interrupted", status=self._status)
        return frames

    def _read(self, events: list[Event]) -> list[Frame]:
        frames: list[Frame] = []
        state, key = self._state, self._key
        for raw, name, text in events:
            if key and self._key_bytes in raw:  # K5: an upstream that echoes the key
                raw, text = raw.replace(self._key_bytes, b"[key]"), text.replace(key, "[key]")
            if "\ufffd" in text:
                raw = raw.decode("utf-8", "replace").encode()
            try:
                value, end = _scan(text, 0)
                if end != len(text) and not text[end:].isspace():
                    raise ValueError
            except (StopIteration, ValueError, RecursionError):
                stripped = text.strip()
                if stripped == "[DONE]":
                    held, thought = state.flush()
                    frames.append(Frame(raw, None, Delta(text=held, reasoning=thought), True))
                    self.is_done = True
                    break
                value = self._read_odd(stripped, name)
                if value is None:
                    if self.problem is not None:
                        break
                    continue
            if value.__class__ is not dict:
                if name != "error":
                    continue
                value = {"error": value if isinstance(value, str | dict) else {"message": text}}
            self._bad = 0
            if "cost" in text and value.get("usage"):
                # Money as it was written, not as a float (upstreams.md §0.1); the frame keeps plain JSON.
                delta = parse_chunk({**value, "usage": prices.loads(text).get("usage")}, state)
            else:
                delta = parse_chunk(value, state)
            if name == "error" and delta.error is None:
                delta = replace(delta, error=errors.from_answer(200, None, value))
            if delta.error is not None:
                self._has_error = True
                if isinstance(delta.error, ProviderError):
                    delta.error.detail = errors.redact(delta.error.detail, self._client.secrets())
            elif delta.finish_reason is not None:
                self._has_finish = True
            frames.append(Frame(raw, value, delta))
        self.frames += len(frames)
        return frames

    def _read_odd(self, text: str, name: str) -> Any:
        """JSON with white space before it, the text of an `event: error`; None for what has to be skipped."""
        if not text:
            return None
        try:
            return _read_frame(text)
        except ValueError:
            if name == "error":
                return {"error": {"message": text}}
        self.skipped += 1
        self._bad += 1
        if self._bad >= MAX_BAD_FRAMES:
            self.problem = ProviderBroken(
                "unexpected_content",
                status=self._status,
                detail=errors.redact(f"{self._bad} events in a row were no JSON: {text}", self._client.secrets()),
            )
        return None

    def _end_document(self) -> None:
        """What came is no stream: a refusal with status 200, JSON of another kind, a web page, nothing."""
        body = bytes(self._head)
        try:
            document = prices.loads(body)
        except ValueError:
            document = None
        if errors.has_error(document) or isinstance(document, str) or _is_error_list(document):
            self.problem = self._client.parse_error(self._status, self._headers, document)
        elif not body.strip():
            self.problem = ProviderBroken("interrupted", status=self._status)
        else:
            self.problem = self._client._unexpected(self._status, body, "a stream")


_FIELD_LINE = re.compile(rb"[\xef\xbb\xbf\s]*(data|event|id|retry)?[ \t]*(:|$)")


def _looks_like_events(head: bytes | bytearray) -> bool | None:
    """Whether a body that starts so is an event stream; None while only white space came."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return start in (b"d", b"e", b"i", b"r", b":") if start else None


def _has_choice_error(choices: Any) -> bool:
    return bool((_choice(choices) or {}).get("error"))


def _is_error_list(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and errors.has_error(document[0])


def _cut(error: ProviderError) -> ProviderError:
    """A connection that broke after the answer began is an interruption; a deadline of ours stays one."""
    if error.code != "unreachable":
        return error
    return ProviderBroken("interrupted", status=error.status)


def _listed(count: int | None) -> str:
    return "" if count is None else f"{count} model{'' if count == 1 else 's'} listed."
