"""Who is behind a session cookie, for hot routes. Django's own rule decides; this only remembers its answer briefly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest, parse_cookie

from config import hot

# A disabled user or an ended session loses access within 30 s (I18): the longest chain is an answer that is REMEMBER
# old when a stream's check, RECHECK after the last one, meets it.
REMEMBER_SECONDS = 8.0
RECHECK_SECONDS = 20.0
MOST_REMEMBERED = 4096


def user_id_behind(session_key: str) -> int | None:
    """The active user signed in under this session; None if it ended, its password changed, or the user is disabled."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    return user.pk if user.is_authenticated and user.is_active else None


class Sessions:
    """Answers of `user_id_behind`, each at most REMEMBER_SECONDS old; one lookup at a time per session."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, int | None]] = {}
        self._lookups: dict[str, asyncio.Task[int | None]] = {}

    def forget(self) -> None:
        self._answers.clear()

    async def caller(self, scope: Mapping[str, Any], head: Mapping[str, str]) -> hot.Caller | None:
        """Who is behind the request's cookie; None if nobody is."""
        user_id = await self.user_id(head.get("cookie", ""))
        return None if user_id is None else hot.Caller(user_id)

    async def user_id(self, cookie_header: str) -> int | None:
        key = parse_cookie(cookie_header).get(settings.SESSION_COOKIE_NAME, "")
        if not key or len(key) > 64 or not (key.isascii() and key.isalnum()):
            return None
        answer = self._answers.get(key)
        if answer and time.monotonic() - answer[0] < REMEMBER_SECONDS:
            return answer[1]
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.create_task(self._look_up(key))
            lookup.add_done_callback(lambda _: self._lookups.pop(key, None))
        return await asyncio.shield(lookup)  # one caller that leaves does not fail the others

    async def _look_up(self, key: str) -> int | None:
        asked = time.monotonic()
        user_id = await hot.in_thread(user_id_behind, key)
        if len(self._answers) >= MOST_REMEMBERED:
            self._answers.clear()
        self._answers[key] = (asked, user_id)
        return user_id
