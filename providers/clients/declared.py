"""What a provider's row may declare about its dialect, so that one more seller is data and no class.

Options, from `provider.features`. A *path* is keys joined by dots; a list on the way means each of its items. An
*address* is relative to the base URL or, with a slash before it, to what stands before its version (`/v1`).

    price_shape  a name in openai_compatible.PRICE_SHAPES, or {"input": path, "output": path, "unit": a key of UNITS}
                 and maybe "cache_read" and "cache_write": where a row keeps its prices, and what they mean
    details      {"path": address, "id": path}: a second list, whose rows add to the rows of /models with that id
    probe        {"path": address}: a GET that authenticates and costs nothing; "expects": a path that a good answer
                 has; "blocked": paths that are true for a key that opens nothing
    balance      {"path": address, "amount": path, "currency": "USD"} or, instead, "currency_in": path;
                 "unlimited": what counts as no limit; "used": {"path", "amount", "divisor"}, to be subtracted

Everything here is read forgivingly: a declaration that does not fit leaves the behaviour of an unknown provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from providers import net
from providers.clients import prices
from providers.clients.base import Probe
from providers.clients.errors import ProviderError

if TYPE_CHECKING:
    from providers.clients.endpoint import EndpointClient

Path = tuple[str, ...]

UNITS: dict[str, Decimal] = {
    "USD per token": prices.PER_TOKEN,
    "USD per 1M tokens": prices.PER_MILLION,
    "1/10000 USD per 1M tokens": Decimal("0.0001"),
}
"""What a seller's figure means → the factor to USD per 1M tokens."""

_ADDRESS = re.compile(r"/?[A-Za-z0-9_-]+(?:[/.][A-Za-z0-9_-]+)*/?(?:\?[A-Za-z0-9_=&-]*)?", re.ASCII)
_VERSION = re.compile(r"/v\d+\w*$")


class PriceShape(NamedTuple):
    """Where a row keeps its prices, and the factor that makes them USD per 1M tokens."""

    input: Path
    output: Path
    cache_read: Path
    cache_write: Path
    factor: Decimal


def price_shape(value: Any) -> PriceShape | None:
    """A shape declared as a mapping; None for anything that is no such declaration."""
    if not isinstance(value, Mapping) or value.get("unit") not in UNITS:
        return None
    to_input, to_output, to_read, to_write = (
        _path(value.get(key)) for key in ("input", "output", "cache_read", "cache_write")
    )
    if not to_input or not to_output:
        return None
    return PriceShape(to_input, to_output, to_read, to_write, UNITS[value["unit"]])


def _path(text: Any) -> Path:
    return tuple(text.split(".")) if isinstance(text, str) and text else ()


def values(document: Any, path: Any) -> list[Any]:
    """Everything `path` leads to, in order; empty where it leads nowhere."""
    found = [document]
    for key in _path(path):
        steps = [item for value in found for item in (value if isinstance(value, list) else [value])]
        found = [step[key] for step in steps if isinstance(step, dict) and key in step]
    return found if _path(path) else []


def address(client: EndpointClient, option: Any) -> str:
    """The URL of a declared address, always at the account's own origin (S4); "" for none."""
    path = option.get("path") if isinstance(option, Mapping) else option
    if not isinstance(path, str) or not _ADDRESS.fullmatch(path):
        return ""
    if path.startswith("/"):
        return _VERSION.sub("", client.base_url) + path
    return client.url(path)


# --- lists -----------------------------------------------------------------------------------------------------------

_NOT_OFFERED = frozenset({400, 401, 403, 404, 405, 410, 501})
"""Statuses that say this server, or this key, has no such list. Anything else is a failure, and no reason to forget."""


async def with_details(client: EndpointClient, rows: list[Any]) -> list[Any]:
    """`rows`, each with what the declared second list says about it. Raises ProviderError when that list fails."""
    option = client.options.get("details")
    url = address(client, option)
    if not url or not isinstance(option, Mapping):
        return rows
    try:
        document = await client.get_json(url)
    except ProviderError as error:
        if error.status in _NOT_OFFERED:
            return rows
        raise
    more: dict[str, dict[str, Any]] = {}
    for row in next((found for key in ("data", "models") for found in values(document, key)), document) or ():
        names = values(row, option.get("id", "id"))
        if isinstance(row, dict) and names and isinstance(names[0], str):
            # One name may stand for several deployments: what they do not agree on is not known.
            more[names[0]] = _agreed(more[names[0]], row) if names[0] in more else row
    return [
        {**more.get(row["id"], {}), **row} if isinstance(row, dict) and isinstance(row.get("id"), str) else row
        for row in rows
    ]


def _agreed(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _agreed(value, other[key]) if isinstance(value, dict) and isinstance(other[key], dict) else value
        for key, value in one.items()
        if key in other and (value == other[key] or (isinstance(value, dict) and isinstance(other[key], dict)))
    }


# --- probing ---------------------------------------------------------------------------------------------------------


async def probe(client: EndpointClient) -> Probe | None:
    """The verdict of the declared call. None where none is declared, or where it answers otherwise than declared.

    Raises ProviderError when nothing came back.
    """
    option = client.options.get("probe")
    url = address(client, option)
    if not url or not client._api_key or not isinstance(option, Mapping):
        return None
    request = f"GET {urlsplit(url).path}"
    try:
        document = await client.get_json(url)
    except ProviderError as error:
        if error.status is None or error.code in ("key_rejected", "no_balance"):
            return client._verdict_of(error, request)
        return None
    if not isinstance(document, dict) or (option.get("expects") and not values(document, option["expects"])):
        return None
    if any(True in values(document, path) for path in option.get("blocked", ())):
        reason = "The provider knows this key, and has blocked it or the team it belongs to."
        return Probe("invalid", request, reason, code="forbidden")
    accepted = Probe("valid", request, "The provider accepted the key.")
    return await with_balance(client, accepted, {url: document})


async def with_balance(client: EndpointClient, probe: Probe, known: Mapping[str, Any] | None = None) -> Probe:
    """`probe` with the declared balance: in USD as a figure, in any other unit as a sentence. Never fails.

    `known`: documents read already, by URL.
    """
    option = client.options.get("balance")
    url = address(client, option)
    if not url or not isinstance(option, Mapping) or not client._api_key or probe.verdict != "valid":
        return probe
    try:
        document = known[url] if known and url in known else await client.get_json(url)
        amounts = [prices.number(value) for value in values(document, option.get("amount"))]
        if (used := option.get("used")) and amounts and amounts[0] is not None:
            if _is_unlimited(amounts[0], option):
                return replace(probe, reason=f"{probe.reason} It has no limit of its own.")
            amounts = [_less(amounts[0], used, await client.get_json(address(client, used)))]
    except (ProviderError, net.BadURL):
        return probe
    units = values(document, option.get("currency_in")) or [option.get("currency", "")] * len(amounts)
    for amount, unit in zip(amounts, units, strict=False):
        if amount is None or not isinstance(unit, str) or not re.fullmatch(r"[A-Za-z]{2,12}", unit):
            continue
        if _is_unlimited(amount, option):
            probe = replace(probe, reason=f"{probe.reason} It has no limit of its own.")
        elif unit == "USD":
            probe = replace(probe, balance=amount)
        else:
            probe = replace(probe, reason=f"{probe.reason} Balance: {amount:,f} {unit}.")
    return probe


def _is_unlimited(amount: Decimal, option: Mapping[str, Any]) -> bool:
    top = prices.number(option.get("unlimited"))
    return top is not None and amount >= top


def _less(amount: Decimal, used: Mapping[str, Any], document: Any) -> Decimal | None:
    spent = [prices.number(value) for value in values(document, used.get("amount"))]
    divisor = prices.number(used.get("divisor", 1))
    return amount - spent[0] / divisor if spent and spent[0] is not None and divisor else None
