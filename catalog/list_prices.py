"""Public list prices and context windows, for models whose seller states none: the library `genai-prices`, kept small.

Importing the library takes two seconds and 97 MB, so no process of ours does. A child process writes what we need of it
to VAR_DIR/list-prices/<version>.json once per version (`python -m catalog.list_prices FILE`); this module reads that
file when it is first asked and keeps it, some 2 MB. Nothing here ever uses the network: the library's prices are those
it was published with.

    find("gpt-4o", "https://api.openai.com/v1") -> Listed | None

A seller that the library knows by its address is asked for its own list; for any other it is the list of the model's
maker. Such a price is never the seller's own: whoever takes it marks it as a list price.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LIBRARY = "genai-prices"
FORMAT = 1
"""Raise this when the file is written differently: files of another format are not read."""

MAKING_SECONDS = 60.0
RETRY_SECONDS = 600.0
"""How long to do without after the child failed."""

_KEYS = {
    "input_mtok": ("input", 1),
    "output_mtok": ("output", 1),
    "cache_read_mtok": ("cache_read", 1),
    "cache_write_mtok": ("cache_write", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "requests_kcount": ("request", 1000),
    "web_searches_kcount": ("search", 1000),
}
"""The library's price keys → (our name, units per price)."""

_LEFT_OUT = re.compile(r"openrouter$|huggingface_|cursor$|openai-decisions$")
"""Sellers that state their own prices wherever we meet them, and lists of something else than models."""

Rule = dict[str, Any]
Matcher = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in somebody's price list. `label` says whose and which; `variants` are prices in force from a day on."""

    label: str
    context_window: int | None
    variants: tuple[dict[str, Any], ...]

    def prices_on(self, day: date) -> tuple[dict[str, Decimal], list[Rule]]:
        """(price name → USD per 1M tokens, tiers and time windows as `pricing_rules`) in force on `day`."""
        begun = [each for each in self.variants if "utc" not in each and each.get("from", "") <= day.isoformat()]
        current = begun[-1] if begun else next((each for each in self.variants if "utc" not in each), None)
        if current is None:
            return {}, []
        prices = {name: Decimal(figure) for name, figure in current["prices"].items()}
        rules: list[Rule] = [dict(tier) for tier in current.get("tiers", ())]
        for each in self.variants:
            if "utc" in each:
                start, end = each["utc"]
                rules.append({"utc_start": start, "utc_end": end, **each["prices"]})
        return prices, rules


# -- Asking ----------------------------------------------------------------------------------------------------------


def find(model_id: str, base_url: str = "") -> Listed | None:
    """What the seller at `base_url`, or else the model's maker, publishes about `model_id`. None where nobody does."""
    return _find(model_id.lower(), base_url) if _sellers() else None


@lru_cache(maxsize=20_000)
def _find(name: str, base_url: str) -> Listed | None:
    sellers = _sellers()
    own = next((seller for seller in sellers if base_url and seller.is_at(base_url)), None)
    names = [name] if "/" not in name else [name, name.rsplit("/", 1)[-1]]
    for one in names:
        for seller in [own] if own is not None else sellers:
            if own is None and not (seller.makes and seller.makes(one)):
                continue
            if (found := seller.find(one)) is not None:
                return found
            for fallback in seller.fallbacks if own is not None else ():
                other = next((each for each in sellers if each.key == fallback), None)
                if other is not None and (found := other.find(one)) is not None:
                    return found
            break  # the first that calls the model its own decides
    return None


@cache
def version() -> str:
    """The installed library's version, part of what a stored list was read by."""
    try:
        return metadata.version(LIBRARY)
    except metadata.PackageNotFoundError:
        return ""


def forget() -> None:
    """Drop what is kept, as a restart would."""
    global _failed_at
    _failed_at = None
    _kept.clear()
    _find.cache_clear()


class _Seller:
    """One price list: who publishes it, how it recognises its models."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.key: str = raw["id"]
        self.is_at: Matcher = lambda url, match=re.compile(raw["api"]).match: bool(match(url))  # type: ignore[misc]
        self.makes: Matcher | None = _matcher(raw["makes"]) if raw.get("makes") else None
        self.fallbacks: list[str] = raw.get("fallbacks", [])
        self._models = [
            (
                _matcher(each["match"]),
                Listed(f"{raw['name']}: {each['id']}", each.get("context"), tuple(each["prices"])),
            )
            for each in raw["models"]
        ]

    def find(self, name: str) -> Listed | None:
        return next((listed for matches, listed in self._models if matches(name)), None)


def _matcher(clause: dict[str, Any]) -> Matcher:
    """A function that judges lower-case model names as the library's clause does."""
    [(kind, value)] = clause.items()
    if kind in ("or", "and"):
        parts = [_matcher(part) for part in value]
        combine = any if kind == "or" else all
        return lambda name: combine(part(name) for part in parts)
    if kind == "regex":
        search = re.compile(value).search
        return lambda name: search(name) is not None
    text = value.lower()
    simple: dict[str, Matcher] = {
        "starts_with": lambda name: name.startswith(text),
        "ends_with": lambda name: name.endswith(text),
        "contains": lambda name: text in name,
        "equals": lambda name: name == text,
    }
    return simple[kind]


# -- The file --------------------------------------------------------------------------------------------------------

_kept: dict[str, list[_Seller]] = {}
_failed_at: float | None = None


def path() -> Path:
    """Where the installed version's list is, or will be."""
    from django.conf import settings

    return settings.VAR_DIR / "list-prices" / f"{version()}-{FORMAT}.json"


def prepare() -> bool:
    """Have the child write the list, unless it is there. Whether it is there now."""
    global _failed_at
    target = path()
    if target.exists():
        return True
    if not version() or (_failed_at is not None and time.monotonic() < _failed_at + RETRY_SECONDS):
        return False
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    try:
        subprocess.run(  # noqa: S603  our own interpreter and module; nobody's input
            [sys.executable, "-m", "catalog.list_prices", str(target)],
            cwd=root,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MAKING_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        log.warning("the public list prices could not be read, so gaps stay unknown: %s", type(exc).__name__)
        _failed_at = time.monotonic()
        return False
    for old in target.parent.glob("*.json"):
        if old != target:
            old.unlink(missing_ok=True)
    return True


def _sellers() -> list[_Seller]:
    key = f"{version()}-{FORMAT}"
    if key not in _kept:
        if not prepare():
            return []
        try:
            raw = json.loads(path().read_text("utf-8"))
            _kept[key] = [_Seller(each) for each in raw]
        except (OSError, ValueError, KeyError, TypeError, re.error):
            log.warning("the stored list prices cannot be read; they are written anew")
            path().unlink(missing_ok=True)
            return []
        _find.cache_clear()
    return _kept[key]


# -- In the child ----------------------------------------------------------------------------------------------------


def write(target: Path) -> None:
    """Write what we need of the library to `target`, whole or not at all."""
    from genai_prices.data import providers

    sellers = [_seller_of(each) for each in providers if not _LEFT_OUT.match(each.id)]
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(json.dumps(sellers, separators=(",", ":")), "utf-8")
        draft.replace(target)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _seller_of(provider: Any) -> dict[str, Any]:
    models = []
    for model in provider.models:
        listed = model.prices if isinstance(model.prices, list) else [model]
        prices = [variant for each in listed if (variant := _variant(each))]
        if prices or model.context_window:
            models.append(
                {"id": model.id, "match": _clause(model.match), "context": model.context_window, "prices": prices}
            )
    return {
        "id": provider.id,
        "name": provider.name,
        "api": provider.api_pattern,
        "makes": _clause(provider.model_match) if provider.model_match is not None else None,
        "fallbacks": provider.fallback_model_providers or [],
        "models": models,
    }


def _clause(clause: Any) -> dict[str, Any]:
    for kind in ("or_", "and_"):
        if hasattr(clause, kind):
            return {kind.rstrip("_"): [_clause(part) for part in getattr(clause, kind)]}
    [(kind, value)] = vars(clause).items()
    return {kind: value}


def _variant(conditional: Any) -> dict[str, Any]:
    """One set of prices with its condition, its tiers as rules; {} for one without token prices."""
    prices: dict[str, str] = {}
    tiers: dict[int, dict[str, str]] = {}
    for key, value in vars(conditional.prices).items():
        if key not in _KEYS or value is None:
            continue
        name, per = _KEYS[key]
        if hasattr(value, "tiers"):
            for tier in value.tiers:
                tiers.setdefault(tier.start, {})[name] = _plain(tier.price / per)
            value = value.base
        prices[name] = _plain(value / per)
    variant: dict[str, Any] = {"prices": prices}
    if tiers:
        variant["tiers"] = [{"min_prompt_tokens": start, **tiers[start]} for start in sorted(tiers)]
    constraint = getattr(conditional, "constraint", None)
    if constraint is not None and hasattr(constraint, "start_date"):
        variant["from"] = constraint.start_date.isoformat()
    elif constraint is not None:
        variant["utc"] = [_hhmm(constraint.start_time), _hhmm(constraint.end_time)]
    return variant if prices else {}


def _hhmm(moment: Any) -> str:
    from datetime import UTC, datetime, time

    if moment.tzinfo is not None:
        moment = datetime.combine(date(1970, 1, 1), moment).astimezone(UTC).time()
    assert isinstance(moment, time)
    return f"{moment.hour:02d}{moment.minute:02d}"


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


if __name__ == "__main__":
    write(Path(sys.argv[1]))
