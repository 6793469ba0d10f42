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
import secrets
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.module_loading import import_string

from config import headers, hot, logs, sessions

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)

BODY_SECONDS = 30.0  # a caller who sends nothing for this long in mid-body is dropped
SEND_SECONDS = 60.0  # a reader who takes nothing for this long is dropped (F17)

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
    """`receive` with a size limit and a time limit on the body; afterwards it waits for the disconnect."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._complete = False
        self._read_to_the_end = asyncio.Event()

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_SECONDS):
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
        if self._complete:
            self._read_to_the_end.set()
        return message

    async def read(self) -> bytes:
        parts = []
        while not self._complete:
            message = await self()
            if message["type"] != "http.request":
                raise hot.ClientGone
            parts.append(message.get("body", b""))
        return b"".join(parts)

    async def left(self) -> None:
        """Return when the caller is gone: only the connection's end can follow a complete body."""
        await self._read_to_the_end.wait()
        while (await self())["type"] != "http.disconnect":
            pass

    def hand_over(self) -> None:
        """The handler reads no more: from now on `left` may."""
        self._read_to_the_end.set()


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
        self._hosts: dict[str, bool] = {}
        self._closing = asyncio.Event()
        self._drained = False
        self._calls: set[asyncio.Task[Any]] = set()

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
        """Let running generations finish for DRAIN_SECONDS while their listeners watch, then end every hot stream.

        config/web.py calls this on the first SIGTERM: the server itself waits for open streams before its shutdown.
        """
        if not self._drained:
            self._drained = True
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(_call(DRAIN, settings.DRAIN_SECONDS))]
            if self._calls:
                waits.append(asyncio.ensure_future(asyncio.wait(set(self._calls), timeout=settings.DRAIN_SECONDS)))
            for result in await asyncio.gather(*waits, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("Draining failed", exc_info=result)
        self._closing.set()

    # -- Every request -----------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(8)
        scope["request_id"] = request_id
        logs.request_id.set(request_id)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        send_all = headers.sending(watched, request_id, self._defaults)
        head: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            head[key] = (
                f"{head[key]}; {value.decode('latin-1')}"
                if key == "cookie" and key in head
                else value.decode("latin-1")
            )
        route, args = self._find(scope["path"])
        limit = route.body_limit if route else settings.REQUEST_BODY_LIMIT
        refuse = route.refuse if route else hot.text
        body = _Body(receive, limit)
        if route is not None and route.auth == "token" and (task := asyncio.current_task()) is not None:
            self._calls.add(task)  # drain() waits for callers who cannot come back to a stream
            task.add_done_callback(self._calls.discard)
        try:
            if not self._is_our_host(head.get("host", "")):
                answer = refuse(400, "This address does not belong to this server. Use the one in PUBLIC_ORIGIN.")
            elif int(head["content-length"] if head.get("content-length", "").isdecimal() else 0) > limit:
                raise hot.BodyTooLarge
            elif route is None:
                await self._django(scope, body, send_all)
                return
            else:
                answer = await self._unless_left(self._answer(route, args, scope, head, body, request_id), body)
                if not isinstance(answer.body, bytes):
                    await self._stream(route, answer, scope, head, body, send_all)
                    return
        except hot.BodyTooLarge:
            answer = refuse(413, f"That is too much: at most {limit:,} bytes fit in one request.", connection="close")
        except hot.BodyTooSlow:
            answer = refuse(408, "The rest of the request did not arrive in time.", connection="close")
        except hot.Refusal as refusal:
            answer = refusal.response()
        except hot.ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = refuse(500, f"Something went wrong here. Tell your administrator this number: {request_id}")
        if not started:
            await self._send_whole(answer, send_all, is_head=scope["method"] == "HEAD")

    def _find(self, path: str) -> tuple[hot.HotRoute | None, dict[str, Any]]:
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

    async def _unless_left(self, answering: Coroutine[Any, Any, hot.HotResponse], body: _Body) -> hot.HotResponse:
        """The handler's answer; if the caller leaves first, the handler is cancelled. Raises ClientGone."""
        task = asyncio.ensure_future(answering)
        leaving = asyncio.ensure_future(body.left())
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise hot.ClientGone
            return task.result()
        finally:
            for one in (task, leaving):
                if not one.done():
                    one.cancel()
            await asyncio.gather(task, leaving, return_exceptions=True)

    async def _answer(
        self,
        route: hot.HotRoute,
        args: dict[str, Any],
        scope: Scope,
        head: dict[str, str],
        body: _Body,
        request_id: str,
    ) -> hot.HotResponse:
        if scope["method"] not in route.methods:
            return route.refuse(405, "This address does not take that method.", allow=", ".join(sorted(route.methods)))
        # A cookie travels with requests that other sites start; only our own pages may use one here (A7).
        if route.auth == "session" and head.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return hot.text(403, "Only Switchboard's own pages may read this.")
        if self._drained and route.auth == "token":
            return route.refuse(503, "This server is stopping. Try again in a moment.", retry_after="2")
        caller = await self._authenticators[route.auth].caller(scope, head)
        if caller is None:
            return route.refuse(401, "Sign in first.")
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        request = hot.HotRequest(
            scope["method"], scope["path"], head, query, caller.user_id, request_id, body.read, caller.token_id
        )
        return await route.handle(request, **args)

    async def _stream(
        self, route: hot.HotRoute, answer: hot.HotResponse, scope: Scope, head: dict[str, str], body: _Body, send: Send
    ) -> None:
        """Send chunk by chunk until the answer ends, the reader leaves, access is lost, or the process stops."""
        chunks = answer.body
        assert not isinstance(chunks, bytes)
        outcome = "left"
        last_words = b""
        body.hand_over()

        async def pump() -> None:
            await send(_start(answer))
            async for chunk in chunks:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async def access_is_lost() -> None:
            while True:
                await asyncio.sleep(sessions.RECHECK_SECONDS)
                try:
                    if await self._authenticators[route.auth].caller(scope, head) is None:
                        return
                except hot.Refusal:
                    return

        tasks = {
            "ended": asyncio.create_task(pump()),
            "left": asyncio.create_task(body.left()),
            "lost": asyncio.create_task(access_is_lost()),
            "closing": asyncio.create_task(self._closing.wait()),
        }
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            outcome = next(name for name, task in tasks.items() if task.done())
            if outcome in ("lost", "closing") and answer.farewell is not None:
                last_words = answer.farewell(outcome)
        finally:
            for task in tasks.values():
                task.cancel()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            if (close := getattr(chunks, "aclose", None)) is not None:
                with suppress(RuntimeError):  # still being closed by the pump's cancellation
                    await close()
        failure = results[0]
        if isinstance(failure, TimeoutError):
            log.info("A reader took nothing for %d s and was dropped", SEND_SECONDS)
        elif isinstance(failure, Exception):
            log.error("%s failed in mid-stream", route.name, exc_info=failure)
        elif outcome != "left":
            await send({"type": "http.response.body", "body": last_words, "more_body": False})
        # Otherwise the response stays unfinished: the server closes the connection, so the reader knows it was cut.

    async def _send_whole(self, answer: hot.HotResponse, send: Send, *, is_head: bool) -> None:
        assert isinstance(answer.body, bytes)
        answer.headers.setdefault("content-length", str(len(answer.body)))
        await send(_start(answer))
        await send({"type": "http.response.body", "body": b"" if is_head else answer.body})


def _start(answer: hot.HotResponse) -> Message:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    return {"type": "http.response.start", "status": answer.status, "headers": pairs}
