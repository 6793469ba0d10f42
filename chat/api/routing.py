"""Name → routes with opened keys, remembered for a few seconds (performance.md §5.4).

This holds answers of `catalog.routes` and of the vault; it re-implements no rule. What an account, a price or a right
was is at most REMEMBER_SECONDS old, in every process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model

from catalog.routes import NoRoute, Route, routes_for
from chat.api.errors import ApiError
from config import hot
from providers.clients.base import ProviderClient
from providers.clients.errors import ProviderError
from usage import pricing

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 4.0
MOST_REMEMBERED = 4096
MAX_ROUTES = 4


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """A route whose key is open: ready to be called. `repr` shows no key (ProviderClient's promise).

    `prices` is the model's price snapshot, `headers` tells a caller who answered.
    """

    route: Route
    client: ProviderClient
    prices: dict[str, Any]
    headers: dict[str, str]

    @classmethod
    def of(cls, route: Route) -> OpenRoute:
        """Raises vault.Locked."""
        headers = {
            "x-switchboard-provider": visible_ascii(route.account.provider.name),
            "x-switchboard-account": visible_ascii(route.account.label),
            "x-switchboard-model": visible_ascii(route.model.model_id),
        }
        if route.alias:
            headers["x-switchboard-alias"] = visible_ascii(route.alias)
        if route.skipped:
            headers["x-switchboard-skipped"] = visible_ascii(route.skipped)
        return cls(route, route.client(), pricing.snapshot(route.model), headers)


def visible_ascii(text: str) -> str:
    """`text` fit for a header: what is not visible ASCII becomes a question mark; at most 200 characters."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:200]


def open_routes(user_id: int, name: str) -> tuple[OpenRoute, ...]:
    """The routes `user_id` may take to `name`, keys opened. Raises ApiError: model_not_found, no_account, locked."""
    user = get_user_model().objects.get(pk=user_id)
    try:
        routes = routes_for(user, name)
    except NoRoute as exc:
        raise ApiError(exc.code, exc.message, param="model") from None
    opened: list[OpenRoute] = []
    locked: ProviderError | None = None
    for route in routes[:MAX_ROUTES]:
        try:
            opened.append(OpenRoute.of(route))
        except ProviderError as exc:  # vault.Locked: no request may leave
            locked = locked or exc
    if not opened and locked is not None:
        raise ApiError("locked", locked.public_message, param="model")
    return tuple(opened)


class Routes:
    """`open_routes`, each answer at most REMEMBER_SECONDS old; one look-up at a time per user and name.

    Past half that age an answer is still given, and looked up anew a moment later: nobody who calls all the time waits.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[int, str], tuple[float, tuple[OpenRoute, ...]]] = {}
        self._lookups: dict[tuple[int, str], asyncio.Task[tuple[OpenRoute, ...]]] = {}

    async def to(self, user_id: int, name: str) -> tuple[OpenRoute, ...]:
        """Never empty. Raises ApiError; refusals are not remembered."""
        key = (user_id, name)
        answer = self._answers.get(key)
        age = time.monotonic() - answer[0] if answer is not None else REMEMBER_SECONDS
        if answer is not None and age < REMEMBER_SECONDS / 2:
            return answer[1]
        lookup, is_good = self._lookups.get(key), answer is not None and age < REMEMBER_SECONDS
        if lookup is None:
            lookup = self._lookups[key] = asyncio.create_task(self._look_up(key, hot.ASIDE_SECONDS if is_good else 0))
            lookup.add_done_callback(lambda done: self._looked_up(key, done))
        if answer is not None and is_good:
            return answer[1]
        return await asyncio.shield(lookup)

    def forget(self, user_id: int) -> None:
        """Ask again at the next call: something about this user's accounts changed in this process."""
        for key in [key for key in self._answers if key[0] == user_id]:
            del self._answers[key]

    def _looked_up(self, key: tuple[int, str], done: asyncio.Task[tuple[OpenRoute, ...]]) -> None:
        if self._lookups.get(key) is done:
            del self._lookups[key]
        if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, ApiError):
            log.warning("routes could not be looked up: %s", type(error).__name__)

    async def _look_up(self, key: tuple[int, str], wait: float) -> tuple[OpenRoute, ...]:
        await asyncio.sleep(wait)
        asked = time.monotonic()
        try:
            routes = await hot.in_thread(open_routes, *key)
        except BaseException:
            self._answers.pop(key, None)
            raise
        if len(self._answers) >= MOST_REMEMBERED:
            self._answers.clear()
        self._answers[key] = (asked, routes)
        return routes
