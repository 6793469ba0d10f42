"""The dialects we speak: a name in the database, a class that talks.

@register("openrouter", "OpenRouter")
class OpenRouterClient(OpenAICompatibleClient): ...

Other packages bring theirs by an entry point in the group `switchboard.providers` (docs/adding-a-provider.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from providers.clients.base import ProviderClient

CLIENTS: dict[str, tuple[str, type[ProviderClient]]] = {}
"""Registry key → (label, class)."""

_MODULES = ("openai_compatible", "aihubmix", "openrouter", "anthropic", "google")
_C = TypeVar("_C", bound="type[ProviderClient]")

GROUP = "switchboard.providers"
"""The group of entry points under which installed packages bring dialects and presets."""

log = logging.getLogger(__name__)


class UnknownClient(LookupError):
    """No client is registered under that name."""


def register(name: str, label: str) -> Callable[[_C], _C]:
    """Class decorator: make a client available as `name`. Raises ValueError if the name is taken."""

    def add(cls: _C) -> _C:
        if name in CLIENTS and _place_of(CLIENTS[name][1]) != _place_of(cls):
            raise ValueError(f"client {name!r} is registered twice")
        CLIENTS[name] = (label, cls)
        return cls

    return add


def _place_of(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _load() -> None:
    for module in _MODULES:
        import_module(f"providers.clients.{module}")
    extensions()


@cache
def extensions() -> tuple[Any, ...]:
    """What the entry points of other packages name, loaded once per process; loading registers their clients.

    A package that cannot be loaded is logged and left out: one bad package must not stop everybody's calls.
    """
    for module in _MODULES:  # ours first, so that nobody takes their names
        import_module(f"providers.clients.{module}")
    found = []
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found.append(point.load())
        except Exception:
            log.exception("The provider package behind entry point %s was left out.", point.name)
    return tuple(found)


def create(name: str, **kwargs: Any) -> ProviderClient:
    """A client of dialect `name`, built with base_url, api_key, extra_headers and options. Raises UnknownClient."""
    _load()
    try:
        _, cls = CLIENTS[name]
    except KeyError:
        raise UnknownClient(name) from None
    return cls(**kwargs)


def choices() -> list[tuple[str, str]]:
    """(name, label) pairs for a model field; a callable, so that a new dialect needs no migration."""
    _load()
    return sorted((name, label) for name, (label, _) in CLIENTS.items())
