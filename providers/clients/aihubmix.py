"""AiHubMix: the rich catalogue at /api/v1/models, prices in USD per 1M tokens, a balance that proves the key."""

from __future__ import annotations

import re
from typing import Any

from providers.clients import prices
from providers.clients.base import ModelInfo, Prices, Probe
from providers.clients.errors import ProviderError
from providers.clients.openai_compatible import (
    OpenAICompatibleClient,
    as_dict,
    as_text,
    day,
    json_ready,
    limit_of,
    model_id_of,
    moment,
    words,
)
from providers.clients.registry import register

_TYPES: dict[str, str] = {
    "llm": "chat",
    "t2t": "chat",
    "image_generation": "image",
    "t2i": "image",
    "video": "video",
    "t2v": "video",
    "tts": "audio",
    "stt": "audio",
    "embedding": "embedding",
    "rerank": "rerank",
    "reranking": "rerank",
    "moderation": "moderation",
}
_CAPABILITIES: dict[str, str] = {
    "thinking": "reasoning",
    "tools": "tools",
    "tool": "tools",
    "function_calling": "tools",
    "structured_outputs": "structured_outputs",
    "web": "web_search",
    "deepsearch": "web_search",
}
_AUTO = re.compile(r"auto(:.*)?")
_UNLIMITED = 100_000_000


@register("aihubmix", "AiHubMix")
class AiHubMixClient(OpenAICompatibleClient):
    """AiHubMix and its alias hosts. `APP-Code` and other optional headers come as the account's extra headers."""

    @property
    def root(self) -> str:
        """The address before /v1, where catalogue and billing live."""
        return self.base_url.removesuffix("/v1")

    def models_url(self) -> str:
        return f"{self.root}/api/v1/models"

    def parse_model(self, row: Any) -> ModelInfo | None:
        if not isinstance(row, dict):
            raise ValueError("row is no object")
        model_id = model_id_of({key: row[key] for key in ("model_id", "id") if key in row})
        kinds = words(row.get("types"))
        inputs = words(row.get("input_modalities"))
        features = words(row.get("features"))
        can = {_CAPABILITIES[word] for word in features if word in _CAPABILITIES}
        if row.get("tool_call") is True:
            can.add("tools")
        if row.get("reasoning") is True:
            can.add("reasoning")
        if "image" in inputs:
            can.add("vision")
        pricing = as_dict(row.get("pricing"))
        stage = as_text(row.get("retire_stage")).strip().lower()
        return ModelInfo(
            model_id=model_id,
            display_name=(as_text(row.get("model_name")).strip() or model_id)[:300],
            model_name=model_id,
            description=as_text(row.get("desc")),
            model_type=_type_of(kinds),
            capabilities=tuple(sorted(can)),
            input_modalities=inputs,
            output_modalities=words(row.get("output_modalities")),
            context_window=limit_of(row.get("context_length")),
            max_output_tokens=limit_of(row.get("max_output")),
            prices=_prices_of(model_id, kinds, pricing),
            raw_pricing=json_ready(pricing),
            released_at=moment(row.get("release_date")),
            retires_at=day(row.get("retired_at")) or day(row.get("deprecated_at")),
            successor=as_text(row.get("successor_model")).strip()[:300],
            is_available=stage in ("", "active"),
        )

    async def probe(self) -> Probe:
        """GET /dashboard/billing/remain: free, 401 on a bad key, and it tells the balance."""
        request = "GET /dashboard/billing/remain"
        try:
            document = await self.get_json(f"{self.root}/dashboard/billing/remain")
        except ProviderError as error:
            probe = self._verdict_of(error, request)
            if probe.verdict == "invalid" and _looks_like_manage_key(self._api_key):
                return Probe(
                    "invalid",
                    request,
                    "This looks like a Manage key, which opens your account there but answers no chats. "
                    "Create an API key (it starts with sk-) and enter that one.",
                    code=error.code,
                )
            return probe
        remaining = prices.number(document.get("total_usage")) if isinstance(document, dict) else None
        if remaining is None:
            return Probe(
                "unverified", request, "The provider answered, but not with a balance.", code="unexpected_content"
            )
        if remaining < 0 or remaining >= _UNLIMITED:
            return Probe("valid", request, "The provider accepted the key. It has no limit of its own.")
        return Probe("valid", request, "The provider accepted the key.", balance=remaining)


def _type_of(kinds: tuple[str, ...]) -> str:
    """Empty means unknown (322 legacy rows, many of them chat models); `llm` wins over what else a model does."""
    if not kinds:
        return "unknown"
    found = [_TYPES.get(kind, "other") for kind in kinds]
    return "chat" if "chat" in found else found[0]


def _prices_of(model_id: str, kinds: tuple[str, ...], pricing: dict[str, Any]) -> Prices:
    """USD per 1M tokens, whatever the vendor's docs say. Image, video and speech rows hold placeholders: unknown."""
    if _AUTO.fullmatch(model_id):
        return Prices(variable=True)
    if kinds and "llm" not in kinds and "t2t" not in kinds:
        return Prices()
    into, out = prices.price(pricing.get("input")), prices.price(pricing.get("output"))
    read, write = prices.price(pricing.get("cache_read")), prices.price(pricing.get("cache_write"))
    if bool(into) != bool(out):  # {"input": 2, "output": 0} is the image placeholder, on untyped rows too (flux-…)
        return Prices()
    if into or out:  # 0 beside a real price means "not set"
        read, write = read or None, write or None
    return Prices(input=into, output=out, cache_read=read, cache_write=write)


def _looks_like_manage_key(key: str) -> bool:
    return not key.startswith("sk-") and re.fullmatch(r"(fd[A-Za-z0-9_-]{14,}|[0-9a-f]{32})", key) is not None
