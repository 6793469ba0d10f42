"""One `/v1` call: routes, attempts, the upstream's answer passed on, everything metered.

The order is the promise: the ledger's row is durable before the upstream hears of the call; an answer is finished
(`[DONE]`, or the JSON body) only when the settled row is durable. Fail-over happens before the first frame alone; each
attempt is its own row. A caller who leaves arrives here as CancelledError (while we wait for the upstream) or as
`close()` (while we wait for the socket): the upstream is closed and the row settles as cancelled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from chat.api.errors import ApiError, from_provider
from chat.api.frames import DONE, FrameRules, whole_answer
from chat.api.routing import OpenRoute, visible_ascii
from chat.api.schemas import ChatRequest
from config import hot
from config.crash import crash_at
from providers import health
from providers.clients.base import Frame
from providers.clients.errors import ProviderBroken, ProviderError
from usage import ledger
from usage.ledger import Attempt, LedgerError
from usage.models import Door, UsageLog

log = logging.getLogger(__name__)

Status = UsageLog.Status

_DOOR, _SUCCESS = Door.API.value, Status.SUCCESS.value  # plain texts: an enum's member costs more to look at

OTHER_ACCOUNT_MAY_HELP = frozenset({"key_rejected", "no_balance", "forbidden", "rate_limited", "locked"})
"""Permanent for this account, not for the next one."""


class Call:
    """One call of one caller, over as many attempts as it takes. Use `begin`, then `complete` or `relay`.

    `request.ended` says why the dispatcher cancelled us, if it did. `forget` is called with the user's id when the
    health of one of their accounts changed.
    """

    __slots__ = (
        "_first",
        "_forget",
        "_frames",
        "_is_over",
        "_relaying",
        "attempt",
        "chat",
        "open_route",
        "reasons",
        "request",
        "routes",
    )

    def __init__(
        self,
        chat: ChatRequest,
        routes: tuple[OpenRoute, ...],
        request: hot.HotRequest,
        forget: Callable[[int], None],
    ) -> None:
        self.chat, self.routes, self.request, self._forget = chat, routes, request, forget
        self.attempt: Attempt | None = None
        self.open_route: OpenRoute | None = None
        self.reasons: list[str] = []
        """Why earlier attempts failed, as "account: code"."""
        self._frames: AsyncIterator[Frame] | None = None
        self._first: Frame | None = None
        self._relaying: AsyncGenerator[bytes, None] | None = None
        self._is_over = False

    # -- attempts ---------------------------------------------------------------------------------------------------

    async def _attempt(self, number: int, open_route: OpenRoute) -> Attempt:
        route = open_route.route
        attempt = Attempt.begin(
            user_id=self.request.user_id,
            account=route.account,
            model=route.model,
            door=_DOOR,
            attempt=number,
            token_id=self.request.token_id,
            prompt_chars=self.chat.prompt_chars,
            prices=open_route.prices,
        )
        self.attempt, self.open_route = attempt, open_route
        try:
            await ledger.aopen(attempt)
        except LedgerError as exc:
            raise ApiError("ledger_unavailable", str(exc), retry_after=5) from None
        return attempt

    def _body(self, open_route: OpenRoute) -> dict[str, Any]:
        model_id = open_route.route.model.model_id
        return self.chat.body if model_id == self.chat.model else {**self.chat.body, "model": model_id}

    async def complete(self) -> bytes:
        """The upstream's whole answer as JSON, settled. Raises ApiError."""
        for number, open_route in enumerate(self.routes, start=1):
            attempt = await self._attempt(number, open_route)
            try:
                document, delta, raw = await open_route.client.complete(self._body(open_route))
            except ProviderError as exc:
                await self._failed(attempt, open_route, exc)
                if number < len(self.routes) and _may_fail_over(exc):
                    continue
                raise from_provider(exc, account=open_route.route.account.label) from None
            except BaseException:
                await self._cut(attempt)
                raise
            attempt.read(delta)
            try:
                await self._succeeded(attempt, open_route)
            except LedgerError as exc:
                raise ApiError("ledger_unavailable", str(exc), retry=False) from None
            return whole_answer(raw, document, delta, **self._fallback(attempt))
        raise AssertionError("routes are never empty")

    async def begin(self) -> None:
        """Open the stream and wait for its first frame, over the routes in turn. Raises ApiError."""
        for number, open_route in enumerate(self.routes, start=1):
            attempt = await self._attempt(number, open_route)
            frames = open_route.client.stream(self._body(open_route))
            try:
                first = await anext(frames, None)
                if first is None:
                    raise ProviderBroken("interrupted")
                if isinstance(first.delta.error, ProviderError):
                    raise first.delta.error
            except ProviderError as exc:
                await _close(frames)
                await self._failed(attempt, open_route, exc)
                if number < len(self.routes) and _may_fail_over(exc):
                    continue
                raise from_provider(exc, account=open_route.route.account.label) from None
            except BaseException:
                await _close(frames)
                await self._cut(attempt)
                raise
            crash_at("v1.first_frame")
            self._frames, self._first = frames, first
            return
        raise AssertionError("routes are never empty")

    def relay(self) -> AsyncGenerator[bytes, None]:
        """The bytes for the caller, event by event. Await `close` afterwards, however it ended."""
        self._relaying = self._relay()
        return self._relaying

    async def _relay(self) -> AsyncGenerator[bytes, None]:
        attempt, open_route, frames, first = self.attempt, self.open_route, self._frames, self._first
        assert attempt is not None and open_route is not None and frames is not None and first is not None
        rules = FrameRules(include_usage=self.chat.include_usage, **self._fallback(attempt))
        read, outgoing = attempt.read, rules.outgoing
        failure = first.delta.error
        try:
            read(first.delta)
            if failure is None:
                if sent := outgoing(first):
                    yield sent
                async for frame in frames:
                    delta = frame.delta
                    read(delta)
                    if delta.error is not None:
                        failure = delta.error
                        break
                    if sent := outgoing(frame):
                        yield sent
        except ProviderError as exc:
            failure = exc
        self._is_over = True
        await _close(frames)
        try:
            if failure is not None:
                error = _as_provider_error(failure)
                await self._failed(attempt, open_route, error)
                yield from_provider(error, account=open_route.route.account.label).frame()
                return
            if closing := rules.closing():
                yield closing
            await self._succeeded(attempt, open_route)
            yield DONE
        except LedgerError:
            log.error("attempt %s could not be settled in time; the sweep will close it", attempt.request_id)
            yield ApiError("ledger_unavailable", "The cost of this answer could not be recorded yet.").frame()

    async def close(self) -> None:
        """After `relay`, however it ended: the upstream is closed and the attempt is settled."""
        if self._relaying is not None:
            await self._relaying.aclose()
        if not self._is_over and self.attempt is not None:
            if self._frames is not None:
                await _close(self._frames)
            await self._cut(self.attempt)

    def farewell(self, why: str) -> bytes:
        """Last words to a stream that we end: this process stops ("closing"), or the token was revoked ("lost")."""
        if self._is_over:
            return b""  # it was over but for the last word
        if why == "lost":
            return ApiError("invalid_api_key", "This token is no longer valid.").frame()
        return ApiError("shutting_down", "The server is stopping; the answer was cut off here.").frame()

    def _fallback(self, attempt: Attempt) -> dict[str, Any]:
        return {
            "fallback_id": f"chatcmpl-{attempt.request_id.hex}",
            "fallback_model": self.chat.model,
            "created": int(time.time()),
        }

    # -- how an attempt ends ----------------------------------------------------------------------------------------

    async def _cut(self, attempt: Attempt) -> None:
        """Settle an attempt that ended from outside: its caller left, or we ended it."""
        if self.request.ended in ("left", "stuck"):
            await _settle(attempt, Status.CANCELLED)
        else:
            await _settle(attempt, Status.ERROR, ProviderBroken("interrupted"))

    async def _succeeded(self, attempt: Attempt, open_route: OpenRoute) -> None:
        await ledger.asettle(attempt, _SUCCESS)
        account = open_route.route.account
        if not health.is_well(account):
            await hot.in_thread(health.succeeded, account, attempt.started_at)
            self._forget(self.request.user_id)

    async def _failed(self, attempt: Attempt, open_route: OpenRoute, error: ProviderError) -> None:
        account = open_route.route.account
        self.reasons.append(f"{account.label}: {error.code}")
        await _settle(attempt, Status.TIMEOUT if error.code == "timeout" else Status.ERROR, error)
        if error.code in health.CONSEQUENCES:
            await hot.in_thread(health.failed, account, error)
            self._forget(self.request.user_id)

    def headers(self) -> dict[str, str]:
        """Who answered, and why not the first (design.md §5)."""
        assert self.open_route is not None and self.attempt is not None
        headers = {**self.open_route.headers, "x-switchboard-attempt": str(self.attempt.number)}
        if self.reasons:
            headers["x-switchboard-failed-over"] = visible_ascii("; ".join(self.reasons))
        return headers


def _may_fail_over(error: ProviderError) -> bool:
    return not error.permanent or error.code in OTHER_ACCOUNT_MAY_HELP


def _as_provider_error(error: Exception) -> ProviderError:
    return error if isinstance(error, ProviderError) else ProviderBroken("upstream_error")


async def _close(frames: AsyncIterator[Frame]) -> None:
    aclose = getattr(frames, "aclose", None)
    if aclose is not None:
        await aclose()


async def _settle(attempt: Attempt, status: str, error: BaseException | None = None) -> None:
    """Settle on a way out that must not fail in turn: what cannot be written now, the writer or the sweep writes."""
    try:
        await ledger.asettle(attempt, status, error)
    except LedgerError:
        log.error("attempt %s is not settled yet", attempt.request_id)
