"""The OpenAI dialect as it is really spoken (upstreams.md §3): the client most providers need, and the base of others.

Reading is pure and forgiving: `read_usage`, `parse_chunk`, `parse_model` take whatever JSON came and never raise (F11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from providers import net
from providers.clients import declared, endpoint, errors, prices
from providers.clients.base import (
    Delta,
    Frame,
    ModelInfo,
    ModelList,
    Prices,
    Probe,
    ToolCallDelta,
    Usage,
    Whole,
)
from providers.clients.endpoint import (
    ETAG,
    MAX_LIST,
    EndpointClient,
    read_document,
    scan_json,
)
from providers.clients.errors import ProviderError, ProviderRefused
from providers.clients.registry import register
from providers.clients.sse import Event

MAX_COUNT = 10_000_000_000
"""A token count above this is not believed (M2)."""

MAX_COST = Decimal(100_000)
"""USD; a cost of one answer above this is not believed (M2)."""

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
    if (plain := _plain_usage(usage)) is not None:
        return plain
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


_DETAILS = frozenset({"cached_tokens", "reasoning_tokens", "audio_tokens", "text_tokens", "image_tokens"}) | {
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
}


def _plain_usage(usage: dict[str, Any]) -> Usage | None:
    """What `read_usage` says of three counts that add up, with OpenAI's own details or without; None of all others.

    Only a short cut, at a fifth of the price (a test compares).
    """
    prompt, completion, total = usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
    if (
        prompt.__class__ is not int
        or completion.__class__ is not int
        or total.__class__ is not int
        or not 0 < total <= MAX_COUNT
        or prompt + completion != total
        or prompt < 0
        or completion < 0
    ):
        return None
    if len(usage) == 3:
        return Usage(prompt, completion, total)
    into, out = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    if len(usage) != 5 or into.__class__ is not dict or out.__class__ is not dict:
        return None
    cached, reasoning = into.get("cached_tokens"), out.get("reasoning_tokens")
    if (
        (cached is None or (cached.__class__ is int and 0 <= cached <= prompt))
        and (reasoning is None or (reasoning.__class__ is int and 0 <= reasoning <= completion))
        and _DETAILS.issuperset(into)
        and _DETAILS.issuperset(out)
    ):
        return Usage(prompt, completion, total, cached, None, reasoning)
    return None


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
        text, lone = storable(self.held_text + text)
        reasoning, thought = storable(self.held_reasoning + reasoning)
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
        text, lone = storable(text)
        reasoning, thought = storable(reasoning)
        text, reasoning = text + "\ufffd" * len(lone), reasoning + "\ufffd" * len(thought)
    else:
        if text:
            if state.think.state != "done":
                text, thought = state.think.split(text)
                reasoning += thought
            if state.held_text or not text.isascii() or "\x00" in text:
                text, state.held_text = storable(state.held_text + text)
        if reasoning and (state.held_reasoning or not reasoning.isascii() or "\x00" in reasoning):
            reasoning, state.held_reasoning = storable(state.held_reasoning + reasoning)
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


def storable(text: str) -> tuple[str, str]:
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

PRICE_SHAPES: dict[str, declared.PriceShape] = {
    "prompt_per_million": declared.PriceShape(
        ("pricing", "prompt"),
        ("pricing", "completion"),
        ("pricing", "input_cache_read"),
        ("pricing", "input_cache_write"),
        prices.PER_MILLION,
    ),
    "input_per_million": declared.PriceShape(
        ("pricing", "input"),
        ("pricing", "output"),
        ("pricing", "cache_read"),
        ("pricing", "cache_write"),
        prices.PER_MILLION,
    ),
    "deepinfra": declared.PriceShape(
        ("metadata", "pricing", "input_tokens"),
        ("metadata", "pricing", "output_tokens"),
        ("metadata", "pricing", "cache_read_tokens"),
        ("metadata", "pricing", "cache_write_tokens"),
        prices.PER_MILLION,
    ),
    "venice": declared.PriceShape(
        ("model_spec", "pricing", "input", "usd"),
        ("model_spec", "pricing", "output", "usd"),
        ("model_spec", "pricing", "cache_input", "usd"),
        (),
        prices.PER_MILLION,
    ),
    "requesty": declared.PriceShape(
        ("input_price",), ("output_price",), ("cached_price",), ("caching_price",), prices.PER_TOKEN
    ),
    "xai": declared.PriceShape(
        ("prompt_text_token_price",),
        ("completion_text_token_price",),
        ("cached_prompt_text_token_price",),
        (),
        Decimal("0.0001"),
    ),
    "none": declared.PriceShape((), (), (), (), prices.PER_MILLION),
}

PRICE_SHAPE_OF_HOST: dict[str, str] = {
    "together.ai": "input_per_million",
    "together.xyz": "input_per_million",
    "friendli.ai": "input_per_million",
    "chutes.ai": "prompt_per_million",
    "deepinfra.com": "deepinfra",
    "venice.ai": "venice",
    "requesty.ai": "requesty",
    "x.ai": "xai",
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


def read_prices(row: Mapping[str, Any], shape: str | declared.PriceShape = "") -> Prices:
    """Prices of a row of an unknown seller's list, or one read by a shape or the name of one in PRICE_SHAPES.

    Without a shape, only what names its unit counts: keys such as `input_cost_per_token`, a `unit` field, and decimal
    *strings*, which every seller that uses them means per token (a wrong guess would exceed MAX_PRICE and be dropped).
    """
    pricing = as_dict(row.get("pricing"))
    if pricing.get("unit_type", "TOKEN") != "TOKEN":  # Friendli: per second of a machine
        return Prices()
    known = PRICE_SHAPES.get(shape) if isinstance(shape, str) else shape
    if known is not None and known.input:
        to_input, to_output, to_read, to_write, factor = known
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
            found = _prices(into, out, kept, made, prices.PER_TOKEN, request=pricing.get("request"))
            return replace(found, rules=_tiers(pricing))
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


_TIERS = {
    "input_tiers": "input",
    "output_tiers": "output",
    "input_cache_read_tiers": "cache_read",
    "input_cache_write_tiers": "cache_write",
}


def _tiers(pricing: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Vercel's brackets `{cost, min, max}` as rules: from `min` tokens of prompt on, all of them cost `cost` each.

    The first bracket, from 0 on, is the price itself. A rule means strictly more than its `min_prompt_tokens`.
    """
    rules: dict[int, dict[str, Any]] = {}
    for key, name in _TIERS.items():
        tiers = pricing.get(key)
        for tier in tiers if isinstance(tiers, list) else ():
            floor = count_of(tier.get("min", 0)) if isinstance(tier, dict) else None
            cost = tier.get("cost") if isinstance(tier, dict) else None
            figure = prices.price(cost, prices.PER_TOKEN) if isinstance(cost, str) else None
            if floor and figure is not None:
                rules.setdefault(floor - 1, {})[name] = prices.plain(figure)
    return tuple({"min_prompt_tokens": floor, **dict(sorted(rules[floor].items()))} for floor in sorted(rules)[:20])


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
        return _words_in(value) if len(value) < 200 else words(value.replace("，", ",").split(","))
    if not isinstance(value, list | tuple):
        return ()
    found = (item.strip().lower() for item in value if isinstance(item, str))
    return tuple(dict.fromkeys(word for word in found if word))[:50]


@lru_cache(maxsize=1_000)
def _words_in(text: str) -> tuple[str, ...]:
    return words(text.replace("，", ",").split(","))


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


def parse_model(row: Any, *, shape: str | declared.PriceShape = "") -> ModelInfo:
    """One row of an OpenAI-shaped list, with the extras of upstreams.md §3. Raises ValueError if unusable.

    `shape` is for sellers whose figures do not name their unit: a declared one, or a PRICE_SHAPES key.
    """
    if isinstance(row, str):
        row = {"id": row}
    if not isinstance(row, dict):
        raise ValueError("row is no object")
    model_id = model_id_of(row)
    architecture, top = as_dict(row.get("architecture")), as_dict(row.get("top_provider"))
    metadata, meta, spec = as_dict(row.get("metadata")), as_dict(row.get("meta")), as_dict(row.get("model_spec"))
    info = as_dict(row.get("model_info"))
    limits = as_dict(row.get("limits") or as_dict(row.get("capabilities")).get("limits"))
    given, can = row.get("capabilities"), []
    flags = given if isinstance(given, dict) else {}
    supported = (
        words(row.get("supported_parameters")) + words(row.get("supported_features")) + words(row.get("features"))
    )
    inputs, outputs = (
        words(architecture.get(name) or row.get(name) or row.get(f"supported_{name}"))
        for name in ("input_modalities", "output_modalities")
    )
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
    if not isinstance(pricing, dict):
        pricing = {key: value for key, value in row.items() if "price" in key or "cost_per" in key}
        pricing |= {key: value for key, value in info.items() if "cost" in key and value is not None}
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
            limits.get("max_context_window_tokens"),
            limits.get("max_input_tokens"),
        ),
        max_output_tokens=limit_of(
            top.get("max_completion_tokens"),
            row.get("max_output_tokens"),
            row.get("max_completion_tokens"),
            row.get("max_output"),
            metadata.get("max_tokens"),
            row.get("max_tokens"),
            info.get("max_output_tokens"),
            limits.get("max_output_tokens"),
        ),
        prices=read_prices(row, shape) if model_type in ("chat", "unknown", "embedding", "moderation") else Prices(),
        raw_pricing=json_ready(pricing),
        released_at=moment(row.get("created") or row.get("created_at")),
        retires_at=day(row.get("expiration_date") or row.get("deprecation") or row.get("shutdown_date")),
        successor=as_text(row.get("deprecation_replacement_model") or row.get("successor_model")).strip()[:300],
        is_available=row.get("active") is not False,
    )


# --- the client ------------------------------------------------------------------------------------------------------


@register("openai_compatible", "OpenAI-compatible")
class OpenAICompatibleClient(EndpointClient):
    """Any endpoint that answers /models and /chat/completions.

    `options` it reads: those of `declared` and those of EndpointClient.
    """

    # --- models

    models_path = "models"

    def price_shape(self) -> str | declared.PriceShape:
        shape = self.options.get("price_shape")
        if isinstance(shape, str) and shape in PRICE_SHAPES:
            return shape
        if (own := declared.price_shape(shape)) is not None:
            return own
        host = self.host
        return next(
            (shape for end, shape in PRICE_SHAPE_OF_HOST.items() if host == end or host.endswith(f".{end}")), ""
        )

    def models_url(self) -> str:
        return self.url(self.models_path)

    def parse_model(self, row: Any) -> ModelInfo | None:
        return parse_model(row, shape=self.price_shape())

    async def list_models(self, *, etag: str = "") -> ModelList:
        headers = self.headers()
        has_details = "details" in self.options  # the tag of one list says nothing about the other
        if etag and ETAG.fullmatch(etag) and not has_details:
            headers["If-None-Match"] = etag
        response = await net.request("GET", self.models_url(), headers=headers, max_bytes=MAX_LIST)
        if response.status == 304:
            return ModelList(etag=etag, not_modified=True)
        rows = self._rows(self._read_json(response, is_list=True), response)
        tag = "" if has_details else response.headers.get("etag", "")
        del response  # the body of a long list
        rows = await declared.with_details(self, rows) if has_details else rows
        models, skipped = self.read_rows(self.taken(rows))
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

    # --- probing

    async def probe(self) -> Probe:
        """Is the key accepted?

        The call that the provider's row declares for it, if any. Else /models with the key, then with a wrong one: a
        list that both get is public and proves nothing. Then an empty chat request, with both: it cannot cost anything,
        and who checks keys first refuses only the wrong one.
        """
        try:
            found = await declared.probe(self)
            return found or await declared.with_balance(self, await self._probe_by_difference())
        except ProviderError as error:
            return self._verdict_of(error, "GET /models")

    async def list_is_proof(self) -> bool:
        try:
            return not self._api_key or await self.refuses("GET", self.models_url())
        except ProviderError:
            return False

    async def _probe_by_difference(self) -> Probe:
        request = "GET /models"
        models: tuple[ModelInfo, ...] | None = None
        failure: ProviderError | None = None
        try:
            response = await self.ask("GET", self.models_url(), self._api_key)
            models = self.read_rows(self._rows(self._read_json(response, is_list=True), response))[0]
        except ProviderError as error:
            verdict = self._verdict_of(error, request)
            # No list there says nothing about the key; a chat request still may.
            if verdict.verdict != "unverified" or not self._api_key or error.status is None:
                return verdict
            failure = error

        def found(probe: Probe) -> Probe:
            return probe if models is None else probe.with_models(models)

        if failure is None and not self._api_key:
            return found(Probe("valid", request, "No key was needed."))
        if failure is None and await self.refuses("GET", self.models_url()):
            return found(Probe("valid", request, "The provider accepted the key."))
        request = "POST /chat/completions with an empty body"
        answer = await self.ask("POST", self.url("chat/completions"), self._api_key, b"{}")
        if answer.status >= 400:
            refusal = self.parse_error(answer.status, answer.headers, answer.body)
            if refusal.code in ("key_rejected", "no_balance"):
                return found(self._verdict_of(refusal, request))
            if answer.status in (400, 422) and await self.refuses("POST", self.url("chat/completions"), b"{}"):
                return found(Probe("valid", request, "The provider accepted the key and refused a wrong one."))
        if failure is not None:
            return self._verdict_of(failure, "GET /models")
        reason = "The list of models is public here, and no call that costs nothing shows whether the key is good."
        return found(Probe("unverified", request, reason))

    # --- chat

    def chat_body(self, body: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        """`body` as it goes out: unknown fields untouched, the streaming flags ours."""
        sent = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
        sent["stream"] = stream
        if stream:
            sent["stream_options"] = {**as_dict(body.get("stream_options")), "include_usage": True}
        return sent

    def chat_request(self, body: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        return self.url("chat/completions"), self.chat_body(body, stream=stream)

    def frame_reader(self, status: int, headers: Mapping[str, str]) -> FrameReader:
        return FrameReader(self, status, headers)

    def _amended(self, body: dict[str, Any], error: ProviderError) -> dict[str, Any] | None:
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

    async def complete(self, body: Mapping[str, Any]) -> Whole:
        response, exact = await self.whole_answer(body)
        choices = exact.get("choices") if isinstance(exact, dict) else None
        if not isinstance(exact, dict) or "choices" not in exact:
            raise self._unexpected(response.status, response.body, "an answer")
        if _choice(choices) is None:
            # MiniMax through gateways: a failure as 200 with "choices": null.
            raise ProviderRefused("upstream_error", status=response.status, detail="empty answer", permanent=False)
        raw = self._without_secrets(response.body)
        # Fractions were read as Decimal, which is right for money and nothing to pass on.
        document = read_document(raw.decode("utf-8-sig").strip()) if _FRACTION.search(raw) else exact
        state = _StreamState()
        if document is exact:
            delta = parse_chunk(document, state)
        else:
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
        return Whole(document, delta, raw)


class FrameReader(endpoint.FrameReader):
    """Reads the OpenAI dialect's streams."""

    def __init__(self, client: EndpointClient, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(client, status, headers)
        self._state = _StreamState()

    def _last_frames(self) -> list[Frame]:
        text, reasoning = self._state.flush()
        return [Frame(b"", None, Delta(text=text, reasoning=reasoning))] if text or reasoning else []

    def _read(self, events: list[Event]) -> list[Frame]:
        frames: list[Frame] = []
        state, key = self._state, self._key
        for raw, name, text in events:
            if key and self._key_bytes in raw:  # K5: an upstream that echoes the key
                raw, text = raw.replace(self._key_bytes, b"[key]"), text.replace(key, "[key]")
            for mark, secret in self._others:
                if mark in raw:
                    raw, text = raw.replace(mark, b"[key]"), text.replace(secret, "[key]")
            if "\ufffd" in text:
                raw = raw.decode("utf-8", "replace").encode()
            try:
                value, end = scan_json(text, 0)
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


_FRACTION = re.compile(rb"[0-9][.eE]")


def _has_choice_error(choices: Any) -> bool:
    return bool((_choice(choices) or {}).get("error"))
