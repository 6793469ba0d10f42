"""The one ASGI application: hot routes to plain coroutines, everything else to Django's stock handler.

Here are the walls of every request: exact host, body cap, request id, headers; and of a hot route also its method, its
caller and where the call came from. See docs/adr/0001 and performance.md §5.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.module_loading import import_string

from config import headers, hot, ids, logs, sessions, wire

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)

BODY_SECONDS = 30.0  # a caller who sends nothing for this long in mid-body is dropped …
BODY_BYTES_PER_SECOND = 20_000  # … and so is one who, after that time, is slower than this on the whole
SEND_SECONDS = 60.0  # a reader who takes nothing for this long is dropped (F17)
ROUND_SECONDS = 0.25  # how often the steward looks at the hot requests in flight

# What starts and stops with the web process, as "module:function", in this order.
STARTUP = ("usage.ledger:start", "chat.generation:startup")
SHUTDOWN = ("usage.ledger:stop", "providers.net:close")
DRAIN = "chat.generation:drain"

# Who checks callers: called without arguments once per process, gives an object with `caller(scope, head)`.
AUTHENTICATORS = {"session": "config.sessions:Sessions", "token": "chat.api.auth:Tokens"}


async def _call(dotted: str, *args: object) -> None:
    module, _, name = dotted.partition(":")
    result = getattr(importlib.import_module(module), name)(*args)
    if inspect.isawaitable(result):
        await result


class _Body:
    """`receive` for Django's requests, with a limit on the body's size and on its time."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._complete = False
        self._began = asyncio.get_running_loop().time()

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        left = self._began + _body_seconds(self._size) - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(BODY_SECONDS, left)):
                message = await self._receive()
        except TimeoutError:
            raise hot.BodyTooSlow from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._size > self._limit:
                raise hot.BodyTooLarge
        else:
            self._complete = True
        return message


def _body_seconds(size: int) -> float:
    """How long a body may have taken by the time `size` bytes of it are here."""
    return BODY_SECONDS + size / BODY_BYTES_PER_SECOND


class _Visit:
    """One hot request in flight. Whoever ends it from outside says why and cancels the one task that serves it.

    Deadlines, leaving callers and lost access are looked after by the dispatcher's steward, a few times a second for
    all visits together: so a request costs no timer and no second task, and a chunk none at all (docs/adr/0013).
    """

    __slots__ = (
        "access_checked",
        "began",
        "changed",
        "head",
        "is_reading",
        "is_sending",
        "may_watch",
        "receive",
        "request",
        "route",
        "scope",
        "seen",
        "sent",
        "size",
        "task",
        "watcher",
        "why",
    )

    def __init__(self, route: hot.HotRoute, scope: Scope, receive: Receive, head: dict[str, str]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.route, self.scope, self.receive, self.head, self.task = route, scope, receive, head, task
        self.request: hot.HotRequest | None = None
        self.watcher: asyncio.Task[None] | None = None
        self.why = ""
        """Why it was ended from outside: left, lost, closing, slow (its body), stuck (its reader)."""
        self.size = self.sent = self.seen = 0
        self.began = self.changed = self.access_checked = 0.0
        self.is_reading = self.is_sending = False
        self.may_watch = not route.body_limit  # else only once the body was read, or when nobody will read it

    def end(self, why: str) -> None:
        """Cancel the work. Only the first reason counts."""
        if not self.why:
            self.why = why
            if self.request is not None:
                self.request.ended = why
            self.task.cancel()

    async def read(self) -> bytes:
        """The whole body. Raises BodyTooLarge, ClientGone; the steward ends a slow one."""
        limit, parts = self.route.body_limit, []
        self.is_reading = True
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise hot.ClientGone
            part = message.get("body", b"")
            self.size += len(part)
            if self.size > limit:
                raise hot.BodyTooLarge
            parts.append(part)
            if not message.get("more_body", False):
                self.is_reading, self.may_watch = False, True
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def watch(self) -> None:
        """End the visit when its caller leaves. After the body only the end of the connection can come."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.end("left")

    def close(self) -> None:
        self.request = None  # which holds our `read`: a circle, left to the collector by each call
        if self.watcher is not None:
            self.watcher.cancel()
            self.watcher = None


class Dispatcher:
    """Routes by the declared table. One instance per process; `routes` is a parameter for tests alone."""

    def __init__(self, django: Callable[..., Awaitable[None]], routes: tuple[hot.HotRoute, ...] = hot.ROUTES) -> None:
        self._django = django
        self._routes = routes
        for route in routes:
            if route.auth not in AUTHENTICATORS:
                raise ValueError(f"{route.name}: nobody checks {route.auth}")
        self._authenticators = {
            name: import_string(AUTHENTICATORS[name].replace(":", "."))() for name in {route.auth for route in routes}
        }
        self._defaults = headers.defaults()
        self._named_defaults = [(pair[0].decode(), pair) for pair in self._defaults]
        self._head = wire.Head(self._defaults)
        self._exact = {route.path: route for route in routes if "<" not in route.path}
        self._hosts: dict[str, bool] = {}
        self._is_draining = self._is_closing = False
        self._visits: set[_Visit] = set()
        self._steward: asyncio.TimerHandle | None = None
        self._rechecks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # we speak no WebSocket
            await send({"type": "websocket.close", "code": 1008})

    # -- The life of the process -------------------------------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            for dotted in STARTUP:
                await _call(dotted)
        except Exception as exc:
            log.exception("The web process cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        gc.collect()
        gc.freeze()  # what is loaded now lives as long as the process: no collection need look at it again
        gc.set_threshold(10_000, 10, 10)  # a call makes some hundred containers and hardly a cycle: look less often
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.drain()
        for dotted in SHUTDOWN:
            try:
                await _call(dotted)
            except Exception:
                log.exception("%s failed while stopping", dotted)
        await send({"type": "lifespan.shutdown.complete"})

    async def drain(self) -> None:
        """Let running generations finish for DRAIN_SECONDS while their listeners watch, then end every hot request.

        config/web.py calls this on the first SIGTERM: the server itself waits for open streams before its shutdown.
        """
        if not self._is_draining:
            self._is_draining = True
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(_call(DRAIN, settings.DRAIN_SECONDS))]
            # Callers with a token cannot come back to a stream, so they may finish, too.
            calls = {visit.task for visit in self._visits if visit.route.auth == "token"}
            if calls:
                waits.append(asyncio.ensure_future(asyncio.wait(calls, timeout=settings.DRAIN_SECONDS)))
            for result in await asyncio.gather(*waits, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("Draining failed", exc_info=result)
        self._is_closing = True
        for visit in list(self._visits):
            visit.end("closing")

    # -- Every request -----------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = ids.random_bytes(8).hex()
        scope["request_id"] = request_id
        logs.request_id.set(request_id)
        head: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            head[key] = f"{head[key]}; {text}" if key == "cookie" and key in head else text
        route, args = self._find(scope["path"])
        length = head.get("content-length", "")
        limit = route.body_limit if route else settings.REQUEST_BODY_LIMIT
        refuse = route.refuse if route else hot.text
        answer: hot.HotResponse | None = None
        if not self._is_our_host(head.get("host", "")):
            answer = refuse(400, "This address does not belong to this server. Use the one in PUBLIC_ORIGIN.")
        elif length and (int(length) if length.isdecimal() and len(length) < 20 else 0) > limit:
            answer = _too_large(refuse, limit)
        elif route is not None:
            await self._hot(route, args, scope, receive, send, head, request_id)
            return
        else:
            answer = await self._page(scope, _Body(receive, limit), send, request_id, limit)
        if answer is not None:
            await self._send_whole(answer, send, request_id, is_head=scope["method"] == "HEAD")

    async def _page(self, scope: Scope, body: _Body, send: Send, request_id: str, limit: int) -> hot.HotResponse | None:
        """Django's answer, sent by Django; or ours, if the request broke off or Django failed before it answered."""
        has_started = False

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._django(scope, body, headers.sending(watched, request_id, self._defaults))
            return None
        except hot.BodyTooLarge:
            answer = _too_large(hot.text, limit)
        except hot.BodyTooSlow:
            answer = _too_slow(hot.text)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = _our_fault(hot.text, request_id)
        return None if has_started else answer

    def _find(self, path: str) -> tuple[hot.HotRoute | None, dict[str, Any]]:
        if (exact := self._exact.get(path)) is not None:
            return exact, {}
        for route in self._routes:
            if (args := route.match(path)) is not None:
                return route, args
        return None, {}

    def _is_our_host(self, host: str) -> bool:
        """Exact names only, from the Host header alone; forwarded hosts are never read (A9)."""
        known = self._hosts.get(host)
        if known is None:
            domain, _ = split_domain_port(host)
            known = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
            if len(self._hosts) < 256:
                self._hosts[host] = known
        return known

    # -- Hot routes --------------------------------------------------------------------------------------------------

    async def _hot(
        self,
        route: hot.HotRoute,
        args: dict[str, Any],
        scope: Scope,
        receive: Receive,
        send: Send,
        head: dict[str, str],
        request_id: str,
    ) -> None:
        """Answer one hot request on this task, whatever becomes of it."""
        visit = _Visit(route, scope, receive, head)
        self._visits.add(visit)
        if self._steward is None:
            self._steward = asyncio.get_running_loop().call_later(ROUND_SECONDS, self._go_round)
        try:
            try:
                answer = await self._answer(visit, args, request_id)
                if not isinstance(answer.body, bytes):
                    await self._stream(visit, answer, send, request_id)
                    return
            except hot.BodyTooLarge:
                answer = _too_large(route.refuse, route.body_limit)
            except hot.Refusal as refusal:
                answer = refusal.response()
            except hot.ClientGone:
                return
            except asyncio.CancelledError:
                if not visit.why:
                    raise  # somebody else's doing: the server's
                visit.task.uncancel()
                if visit.why == "left":
                    return
                if visit.why == "slow":
                    answer = _too_slow(route.refuse)
                elif visit.why == "lost":
                    answer = route.refuse(401, "Your access ended while this was under way.")
                else:
                    answer = route.refuse(503, "This server is stopping. Try again in a moment.", retry_after="2")
            except Exception:
                log.exception("%s %s failed", scope["method"], scope["path"])
                answer = _our_fault(route.refuse, request_id)
        finally:
            self._visits.discard(visit)
            visit.close()
        await self._send_whole(answer, send, request_id, is_head=scope["method"] == "HEAD")

    async def _answer(self, visit: _Visit, args: dict[str, Any], request_id: str) -> hot.HotResponse:
        route, scope, head = visit.route, visit.scope, visit.head
        method = scope["method"]
        if method not in route.methods:
            return route.refuse(405, "This address does not take that method.", allow=", ".join(sorted(route.methods)))
        # A cookie travels with requests that other sites start; only our own pages may use one here (A7).
        if route.auth == "session" and head.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return hot.text(403, "Only Switchboard's own pages may read this.")
        if self._is_draining and route.auth == "token":
            return route.refuse(503, "This server is stopping. Try again in a moment.", retry_after="2")
        caller = await self._authenticators[route.auth].caller(scope, head)
        if caller is None:
            return route.refuse(401, "Sign in first.")
        asked = scope.get("query_string", b"")
        query = dict(parse_qsl(asked.decode("latin-1"), keep_blank_values=True)) if asked else {}
        request = hot.HotRequest(
            method, scope["path"], head, query, caller.user_id, request_id, visit.read, caller.token_id
        )
        visit.request, visit.access_checked = request, asyncio.get_running_loop().time()
        return await route.handle(request, **args)

    async def _stream(self, visit: _Visit, answer: hot.HotResponse, send: Send, request_id: str) -> None:
        """Send chunk by chunk until the answer ends, or the visit is ended: see _Visit.why."""
        chunks, has_failed, line = answer.body, False, None
        assert not isinstance(chunks, bytes)
        try:
            visit.may_watch = True
            if self._is_closing:
                visit.end("closing")
            line = wire.Wire.behind(send)
            if line is not None:
                line.begin(answer.status, self._head.lines(answer.headers, request_id))
                async for chunk in chunks:
                    if line.is_full:
                        visit.is_sending = True
                        await line.drained()
                        visit.is_sending = False
                    line.chunk(chunk)
                    visit.sent += 1
            else:
                await send(self._start(answer, request_id))
                async for chunk in chunks:
                    visit.is_sending = True
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    visit.is_sending = False
                    visit.sent += 1
        except asyncio.CancelledError:
            if not visit.why:
                raise
            visit.task.uncancel()
        except Exception:
            log.exception("%s failed in mid-stream", visit.route.name)
            has_failed = True
        finally:
            self._visits.discard(visit)  # from here on nobody ends it: what follows is short, or the reader's own
            if answer.close is not None:
                await answer.close()
            elif (aclose := getattr(chunks, "aclose", None)) is not None:
                await aclose()
        if visit.why == "stuck":
            log.info("A reader took nothing for %d s and was dropped", SEND_SECONDS)
            if line is not None:
                line.abort()
        elif visit.why in ("", "lost", "closing") and not has_failed:
            last_words = answer.farewell(visit.why) if visit.why and answer.farewell is not None else b""
            if line is not None:
                line.end(last_words)
            else:
                await send({"type": "http.response.body", "body": last_words, "more_body": False})
        # Otherwise the response stays unfinished: the server closes the connection, so the reader knows it was cut.

    # -- The steward -------------------------------------------------------------------------------------------------

    def _go_round(self) -> None:
        """Look after every hot request in flight: who left, who is slow, who lost access."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for visit in list(self._visits):
            if visit.watcher is None and visit.may_watch:
                visit.watcher = loop.create_task(visit.watch())
            progress = visit.size + visit.sent
            if progress != visit.seen or not (visit.is_reading or visit.is_sending):
                visit.seen, visit.changed = progress, now  # while we wait for the upstream, nobody here is slow
            if visit.is_reading:
                visit.began, visit.changed = visit.began or now, visit.changed or now
                if now - visit.changed > BODY_SECONDS or now - visit.began > _body_seconds(visit.size):
                    visit.end("slow")
            elif visit.is_sending and now - visit.changed > SEND_SECONDS:
                visit.end("stuck")
            if visit.request is not None and now - visit.access_checked > sessions.RECHECK_SECONDS:
                visit.access_checked = now
                task = loop.create_task(self._recheck(visit))
                self._rechecks.add(task)
                task.add_done_callback(self._rechecks.discard)
        self._steward = loop.call_later(ROUND_SECONDS, self._go_round) if self._visits else None

    async def _recheck(self, visit: _Visit) -> None:
        """End a request whose caller lost access: a stream, or an answer that is still awaited (A4, I18)."""
        try:
            caller = await self._authenticators[visit.route.auth].caller(visit.scope, visit.head)
        except hot.Refusal:
            caller = None
        except Exception:
            log.exception("Access could not be checked; it is checked again later")
            return
        if caller is None and visit in self._visits:
            visit.end("lost")

    # -- The wire ----------------------------------------------------------------------------------------------------

    def _start(self, answer: hot.HotResponse, request_id: str) -> Message:
        own = answer.headers
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in own.items()]
        pairs += [pair for name, pair in self._named_defaults if name not in own]
        pairs.append((b"x-request-id", request_id.encode()))
        return {"type": "http.response.start", "status": answer.status, "headers": pairs}

    async def _send_whole(self, answer: hot.HotResponse, send: Send, request_id: str, *, is_head: bool) -> None:
        assert isinstance(answer.body, bytes)
        answer.headers.setdefault("content-length", str(len(answer.body)))
        line = wire.Wire.behind(send)
        if line is None:
            await send(self._start(answer, request_id))
            await send({"type": "http.response.body", "body": b"" if is_head else answer.body})
            return
        if line.is_full:
            await line.drained()
        lines = self._head.lines(answer.headers, request_id)
        closes = answer.headers.get("connection") == "close"
        line.whole(answer.status, lines, answer.body, is_head=is_head, closes=closes)


Refuse = Callable[..., hot.HotResponse]


def _too_large(refuse: Refuse, limit: int) -> hot.HotResponse:
    return refuse(413, f"That is too much: at most {limit:,} bytes fit in one request.", connection="close")


def _too_slow(refuse: Refuse) -> hot.HotResponse:
    return refuse(408, "The rest of the request did not arrive in time.", connection="close")


def _our_fault(refuse: Refuse, request_id: str) -> hot.HotResponse:
    return refuse(500, f"Something went wrong here. Tell your administrator this number: {request_id}")
