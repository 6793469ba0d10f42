"""The dialects we speak: a name in the database, a class that talks.

@register("openrouter", "OpenRouter")
class OpenRouterClient(OpenAICompatibleClient): ...
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from providers.clients.base import ProviderClient

CLIENTS: dict[str, tuple[str, type[ProviderClient]]] = {}
"""Registry key → (label, class)."""

_MODULES = ("openai_compatible", "aihubmix", "openrouter", "anthropic", "google")
_C = TypeVar("_C", bound="type[ProviderClient]")


class UnknownClient(LookupError):
    """No client is registered under that name."""


def register(name: str, label: str) -> Callable[[_C], _C]:
    """Class decorator: make a client available as `name`. Raises ValueError if the name is taken."""

    def add(cls: _C) -> _C:
        if name in CLIENTS and CLIENTS[name][1].__qualname__ != cls.__qualname__:
            raise ValueError(f"client {name!r} is registered twice")
        CLIENTS[name] = (label, cls)
        return cls

    return add


def _load() -> None:
    for module in _MODULES:
        import_module(f"providers.clients.{module}")


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
