"""The one authenticator of `/v1`: bytes of a header in, a caller out (K6, A3, A4).

`Authorization: Bearer sb_…` and nothing else: never a query string, never a cookie. Answers are kept by the hash of
the whole token for REMEMBER_SECONDS, so a revoked token is refused in every process within seconds, and a stream that
runs under it ends at the dispatcher's next re-check.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.utils import timezone

from chat.api.errors import ApiError
from config import hot
from usage import tokens
from usage.models import ApiToken

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 4.0
MOST_REMEMBERED = 4096
USED_EVERY = timedelta(minutes=1)
"""How exact "last used" is."""

MISSING = "Send your token as “Authorization: Bearer sb_…”. Make one under Tokens."
WRONG = "This token is not valid. It may be mistyped, revoked or expired. Make a new one under Tokens."


def caller_behind(parts: tokens.TokenParts) -> hot.Caller | None:
    """The holder of a live token; None if there is none. Notes the use, at most once a minute."""
    row = ApiToken.objects.live().filter(lookup=parts.lookup).first()
    if row is None or not tokens.same(row.token_hash, parts.hash):
        return None
    now = timezone.now()
    if row.last_used_at is None or now - row.last_used_at > USED_EVERY:
        ApiToken.objects.filter(pk=row.pk).update(last_used_at=now)
    return hot.Caller(row.owner_id, row.pk)


class Tokens:
    """Answers of `caller_behind`, at most REMEMBER_SECONDS old; one look-up at a time per token.

    Past half that age an answer is still given, and looked up anew a moment later: nobody who calls all the time waits.
    """

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, hot.Caller]] = {}
        self._lookups: dict[str, asyncio.Task[hot.Caller | None]] = {}

    async def caller(self, scope: Mapping[str, Any], head: Mapping[str, str]) -> hot.Caller:
        """Who sent these `Authorization` headers. Raises ApiError("invalid_api_key")."""
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(headers) != 1:
            raise ApiError("invalid_api_key", MISSING if not headers else "Send exactly one Authorization header.")
        scheme, _, text = headers[0].partition(b" ")
        if scheme.lower() != b"bearer" or not text:
            raise ApiError("invalid_api_key", MISSING)
        if len(text) != tokens.TOKEN_LENGTH:
            raise ApiError("invalid_api_key", WRONG)
        answer = self._answers.get(tokens.hash_of(text))
        if answer is not None and time.monotonic() - answer[0] < REMEMBER_SECONDS / 2:
            return answer[1]
        parts = tokens.parse(text)
        found = await self._remembered(parts) if parts else None
        if found is None:
            raise ApiError("invalid_api_key", WRONG)
        return found

    async def _remembered(self, parts: tokens.TokenParts) -> hot.Caller | None:
        lookup, answer = self._lookups.get(parts.hash), self._answers.get(parts.hash)
        is_good = answer is not None and time.monotonic() - answer[0] < REMEMBER_SECONDS
        if lookup is None:
            wait = hot.ASIDE_SECONDS if is_good else 0
            lookup = self._lookups[parts.hash] = asyncio.create_task(self._look_up(parts, wait))
            lookup.add_done_callback(lambda done: self._looked_up(parts.hash, done))
        if answer is not None and is_good:
            return answer[1]
        return await asyncio.shield(lookup)

    def _looked_up(self, key: str, done: asyncio.Task[hot.Caller | None]) -> None:
        self._lookups.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.warning("a token could not be looked up: %s", type(error).__name__)

    async def _look_up(self, parts: tokens.TokenParts, wait: float) -> hot.Caller | None:
        await asyncio.sleep(wait)
        asked = time.monotonic()
        found = await hot.in_thread(caller_behind, parts)
        if len(self._answers) >= MOST_REMEMBERED:
            self._answers.clear()
        if found is not None:
            self._answers[parts.hash] = (asked, found)
        else:  # guesses are not remembered: they would push out what is
            self._answers.pop(parts.hash, None)
        return found
