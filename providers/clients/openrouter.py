"""OpenRouter: prices as text per token, routers without a price, conditional prices, a key call with limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import urljoin, urlsplit

from providers import net
from providers.clients import prices
from providers.clients.base import ModelInfo, ModelList, Prices, Probe
from providers.clients.errors import ProviderError
from providers.clients.openai_compatible import (
    ETAG,
    MAX_LIST,
    OpenAICompatibleClient,
    as_dict,
    as_text,
    count_of,
    day,
    json_ready,
    limit_of,
    model_id_of,
    moment,
    words,
)
from providers.clients.registry import register

MAX_PAGES = 20

_TOKEN_KEYS: dict[str, str] = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cache_read",
    "input_cache_write": "cache_write",
    "internal_reasoning": "reasoning",
}
"""OpenRouter's keys priced per token → fields of Prices."""

_UNIT_KEYS: dict[str, str] = {"image": "image", "request": "request", "web_search": "search"}
"""Keys priced per image, call or search."""

_OUTPUTS = {"embeddings": "embedding", "embedding": "embedding", "image": "image", "video": "video", "audio": "audio"}


@register("openrouter", "OpenRouter")
class OpenRouterClient(OpenAICompatibleClient):
    """OpenRouter. Attribution headers (HTTP-Referer, X-Title) come as the account's extra headers."""

    async def list_models(self, *, etag: str = "") -> ModelList:
        """The public list, every page of it."""
        headers = self.headers()
        if etag and ETAG.fullmatch(etag):
            headers["If-None-Match"] = etag
        url, rows, tag = self.models_url(), [], ""
        for page in range(MAX_PAGES):
            response = await net.request("GET", url, headers=headers, max_bytes=MAX_LIST)
            if response.status == 304 and page == 0:
                return ModelList(etag=etag, not_modified=True)
            headers.pop("If-None-Match", None)
            document = self._read_json(response, is_list=True)
            rows += self._rows(document, response)
            if page == 0:
                tag = response.headers.get("etag", "")
            following = as_dict(document.get("links")).get("next") if isinstance(document, dict) else None
            if not following or not isinstance(following, str):
                break
            tag = ""  # the tag covers one page only
            url = self._same_origin(url, following)
            if not url:
                break
        models, skipped = self.read_rows(rows)
        return ModelList(models=models, skipped=skipped, etag=tag if ETAG.fullmatch(tag) else "")

    def _same_origin(self, here: str, following: str) -> str:
        """The next page's address, or "" if it leaves this origin: the key goes nowhere else (S4)."""
        target = urljoin(here, following)
        if target == here or urlsplit(target)[:2] != urlsplit(here)[:2]:
            return ""
        return target

    def parse_model(self, row: Any) -> ModelInfo | None:
        if not isinstance(row, dict):
            raise ValueError("row is no object")
        model_id = model_id_of({"id": row.get("id")})
        architecture, top = as_dict(row.get("architecture")), as_dict(row.get("top_provider"))
        inputs, outputs = words(architecture.get("input_modalities")), words(architecture.get("output_modalities"))
        if not inputs and not outputs:
            into, _, out = as_text(architecture.get("modality")).partition("->")
            inputs, outputs = words(into.replace("+", ",")), words(out.replace("+", ","))
        supported = set(words(row.get("supported_parameters")))
        can = []
        if supported & {"tools", "tool_choice"}:
            can.append("tools")
        if supported & {"reasoning", "include_reasoning", "reasoning_effort"} or isinstance(row.get("reasoning"), dict):
            can.append("reasoning")
        if "structured_outputs" in supported:
            can.append("structured_outputs")
        if "web_search_options" in supported:
            can.append("web_search")
        if "image" in inputs:
            can.append("vision")
        pricing = as_dict(row.get("pricing"))
        return ModelInfo(
            model_id=model_id,
            display_name=(as_text(row.get("name")).strip() or model_id)[:300],
            model_name=as_text(row.get("canonical_slug"))[:300],
            description=as_text(row.get("description")),
            model_type=_type_of(outputs),
            capabilities=tuple(can),
            input_modalities=inputs,
            output_modalities=outputs,
            context_window=limit_of(row.get("context_length"), top.get("context_length")),
            max_output_tokens=limit_of(top.get("max_completion_tokens")),
            prices=read_pricing(pricing),
            raw_pricing=json_ready(pricing),
            released_at=moment(row.get("created")),
            retires_at=day(row.get("expiration_date")),
            successor=as_text(row.get("alias_target")).strip()[:300],
        )

    async def probe(self) -> Probe:
        """GET /key: authenticates, free, and tells what this key may still spend."""
        request = "GET /key"
        try:
            document = await self.get_json(self.url("key"))
        except ProviderError as error:
            return self._verdict_of(error, request)
        data = document.get("data") if isinstance(document, dict) else None
        if not isinstance(data, dict):
            return Probe(
                "unverified", request, "The provider answered, but not about a key.", code="unexpected_content"
            )
        if data.get("is_management_key") is True or data.get("is_provisioning_key") is True:
            return Probe(
                "invalid",
                request,
                "This is a management key, which answers no chats. Create an ordinary API key and enter that one.",
                code="forbidden",
            )
        limit, remaining = prices.number(data.get("limit")), prices.number(data.get("limit_remaining"))
        balance = remaining if remaining is not None else await self._credits()
        reason = "The provider accepted the key." + (" It has no limit of its own." if limit is None else "")
        if data.get("is_free_tier") is True:
            reason += " It is on the free tier."
        return Probe("valid", request, reason, balance=balance, limit=limit)

    async def _credits(self) -> Decimal | None:
        """Credits bought minus used, where the key may ask (most may not: 403)."""
        try:
            document = await self.get_json(self.url("credits"))
        except ProviderError:
            return None
        data = as_dict(document.get("data")) if isinstance(document, dict) else {}
        bought, used = prices.number(data.get("total_credits")), prices.number(data.get("total_usage"))
        return bought - used if bought is not None and used is not None else None


def read_pricing(pricing: dict[str, Any]) -> Prices:
    """OpenRouter's pricing object. "-1" anywhere in the token prices makes the whole model variable."""
    if prices.is_variable(pricing.get("prompt"), pricing.get("completion")):
        return Prices(variable=True)
    factor = prices.PER_TOKEN
    discount = prices.number(pricing.get("discount"))
    if discount is not None and 0 < discount < 1:
        factor *= 1 - discount
    found: dict[str, Any] = {ours: prices.price(pricing.get(theirs), factor) for theirs, ours in _TOKEN_KEYS.items()}
    found |= {ours: prices.price(pricing.get(theirs)) for theirs, ours in _UNIT_KEYS.items()}
    if found["input"] or found["output"]:
        # Older lists write "0" for every key they do not price (upstreams.md §2.2).
        found = {key: value if key in ("input", "output") else value or None for key, value in found.items()}
    return Prices(**found, rules=_rules(pricing.get("overrides"), factor))


def _rules(overrides: Any, factor: Decimal) -> tuple[dict[str, Any], ...]:
    """Conditional prices, in order, later ones win: conditions as they came, prices as text in USD per 1M tokens.

    `min_prompt_tokens` means strictly more than; `utc_start` and `utc_end` are HHMM. A rule with a condition we do not
    know is left out: applying it always would be wrong.
    """
    rules = []
    for override in overrides if isinstance(overrides, list) else ():
        if not isinstance(override, dict):
            continue
        rule: dict[str, Any] = {}
        known = set(_TOKEN_KEYS) | set(_UNIT_KEYS)
        floor = count_of(override.get("min_prompt_tokens"))
        if "min_prompt_tokens" in override:
            if floor is None:
                continue
            rule["min_prompt_tokens"] = floor
        for key in ("utc_start", "utc_end"):
            if key in override:
                rule[key] = str(override[key])[:8]
        if not rule or any(key.startswith(("min_", "max_", "utc_")) and key not in rule for key in override):
            continue
        for theirs in known & set(override):
            value = override[theirs]
            figure = prices.price(value, factor) if theirs in _TOKEN_KEYS else prices.price(value)
            if figure is not None:
                rule[_TOKEN_KEYS.get(theirs) or _UNIT_KEYS[theirs]] = prices.plain(figure)
        rules.append(dict(sorted(rule.items())))
    return tuple(rules)


def _type_of(outputs: tuple[str, ...]) -> str:
    if not outputs:
        return "unknown"
    return "chat" if "text" in outputs else _OUTPUTS.get(outputs[0], "other")
