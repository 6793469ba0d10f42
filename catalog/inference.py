"""What a provider's list leaves open, as far as it can be told: from the model's name, and from public list prices.

Pure. The provider's own word always wins, and nothing here passes for it: `origins` names each column that was filled
("inferred", or "list" for prices). The history of changes takes what is inferred for unknown (catalog/sync.py).
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

from django.utils import timezone

from catalog import list_prices
from catalog.models import PRICE_COLUMNS, AggregatorModel, Origin
from providers.money import from_pico, to_pico

_Type = AggregatorModel.ModelType
_Kind = AggregatorModel.PriceKind


class Seller(NamedTuple):
    """Whose list it is. `has_list_prices`: what is public about a model says something about this seller's, too."""

    base_url: str = ""
    has_list_prices: bool = False


NOBODY = Seller()

PRICED_BY_TOKEN = frozenset({_Type.CHAT, _Type.EMBEDDING, _Type.MODERATION, _Type.UNKNOWN})

_TYPES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"rerank", _Type.RERANK.value),
        (r"moderation|llama-guard|shieldgemma", _Type.MODERATION.value),
        (r"embed|text-search-|text-similarity-|^(?:bge|gte|e5|voyage)-", _Type.EMBEDDING.value),
        (r"whisper|(?:^|-)tts(?:-|$)|transcribe|^eleven_", _Type.AUDIO.value),
        (r"^sora|^veo-|^kling|seedance|hailuo|(?:-|_)(?:t2v|i2v)(?:-|_|$)", _Type.VIDEO.value),
        (
            r"dall-e|gpt-image|^imagen|(?:^|-)flux[-.]|stable-diffusion|^sdxl|^sd3|midjourney|ideogram|recraft"
            r"|seedream|^cogview",
            _Type.IMAGE.value,
        ),
        (
            r"(?:^|[-/])(?:gpt-(?:3\.5|[4-9]|oss)|chatgpt|o[1345](?:-|$)|claude|gemini|learnlm|gemma|deepseek|qwen|qwq|qvq"
            r"|llama|(?:code|mini|mi|magi|dev)stral|mixtral|pixtral|grok|glm|chatglm|kimi|moonshot|moonlight|doubao|ernie"
            r"|hunyuan|minimax|command-|yi-|phi-|jamba|nemotron|sonar|step-?\d|baichuan|longcat|mythomax|wizardlm)",
            _Type.CHAT.value,
        ),
    )
)
"""What a name says about what a model does, tried in this order on the lower-case id without its maker."""

_ABILITIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), ability)
    for pattern, ability in (
        (
            r"-vl(?:-|\d|$)|vision|(?:^|-)glm-\d(?:\.\d)?v|^gpt-(?:4o|4\.1|5)|claude-(?:[3-9]|opus|sonnet|haiku)",
            "vision",
        ),
        (r"thinking|reasoner|reasoning|(?:^|-)r1(?:-|$)|qwq|qvq|^o[1345](?:-|$)|^gpt-5|deep-research", "reasoning"),
    )
)
"""Abilities that a name gives away. Only for chat models whose seller states neither abilities nor modalities."""

_IS_FREE = re.compile(r"[:-]free$")


def complete(facts: dict[str, Any], model_id: str, seller: Seller) -> dict[str, Any]:
    """`facts` (catalog.reading) with its gaps filled and `origins` set; the same dict."""
    name = model_id.lower().rsplit("/", 1)[-1]
    origins: dict[str, str] = facts["origins"]
    if facts["model_type"] == _Type.UNKNOWN and (kind := _type_by(name)):
        facts["model_type"] = kind
        origins["model_type"] = Origin.INFERRED.value
        if kind not in PRICED_BY_TOKEN:  # what sellers write there are placeholders (upstreams.md §1.3)
            facts |= dict.fromkeys(PRICE_COLUMNS)
            facts |= {"price_kind": str(_Kind.UNKNOWN), "pricing_rules": []}
    is_silent = not (facts["capabilities"] or facts["input_modalities"] or facts["output_modalities"])
    if is_silent and facts["model_type"] == _Type.CHAT and (abilities := _abilities_by(name)):
        facts["capabilities"] = abilities
        origins["capabilities"] = Origin.INFERRED.value
    if seller.has_list_prices:
        _fill_from_lists(facts, model_id, seller)
    return facts


@lru_cache(maxsize=20_000)
def _type_by(name: str) -> str:
    return next((kind for pattern, kind in _TYPES if pattern.search(name)), "")


def _abilities_by(name: str) -> list[str]:
    return sorted(ability for pattern, ability in _ABILITIES if pattern.search(name))


def _fill_from_lists(facts: dict[str, Any], model_id: str, seller: Seller) -> None:
    wants_price = (
        facts["price_kind"] == _Kind.UNKNOWN
        and facts["model_type"] in PRICED_BY_TOKEN
        and not _IS_FREE.search(model_id.lower())
    )
    wants_context = facts["context_window"] is None and facts["model_type"] in (_Type.CHAT, _Type.UNKNOWN)
    found = list_prices.find(model_id, seller.base_url) if wants_price or wants_context else None
    if found is not None and wants_context and found.context_window:
        facts["context_window"] = found.context_window
        facts["origins"]["context_window"] = Origin.INFERRED.value
    if found is not None and wants_price:
        _fill_prices(facts, found, timezone.now().date())


def _fill_prices(facts: dict[str, Any], found: list_prices.Listed, today: date) -> None:
    figures, rules = found.prices_on(today)
    needed = ("input",) if facts["model_type"] == _Type.EMBEDDING else ("input", "output")
    if any(figures.get(name) is None for name in needed) or not any(figures.values()):
        return  # half a price says little, and nobody's list makes a seller free
    for column, name in PRICE_COLUMNS.items():
        facts[column] = from_pico(to_pico(figures[name])) if name in figures else None
    facts["price_kind"] = str(_Kind.LIST)
    facts["pricing_rules"] = rules
    facts["origins"] |= {"prices": Origin.LIST.value, "list": found.label}
