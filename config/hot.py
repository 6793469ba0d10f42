"""The hot routes: plain coroutines beside Django (design.md §4), and the shapes they speak.

`ROUTES` is the one declared table. The dispatcher, the header, host and body-limit checks and the authorisation tests
read it, so that nothing is outside the walls. A handler is `async def handler(request, **path_args) -> HotResponse`.
It may not hold a database connection while it streams: ORM work goes through `in_thread`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from django.db import connections
from django.urls.resolvers import RoutePattern
from django.utils.module_loading import import_string

P = ParamSpec("P")
T = TypeVar("T")

Auth = Literal["session", "token"]


@dataclass(frozen=True)
class HotRoute:
    """One line of the table. `path` uses Django's route syntax; `body_limit` is in bytes."""

    name: str
    methods: frozenset[str]
    path: str
    handler: str
    auth: Auth
    body_limit: int = 0
    refusal: str = "config.hot:text"
    """How this route words a refusal: (status, sentence, **headers) -> HotResponse, as "module:function"."""

    @cached_property
    def _pattern(self) -> RoutePattern:
        return RoutePattern(self.path.removeprefix("/"), name=self.name, is_endpoint=True)

    @cached_property
    def prefix(self) -> str:
        """The part of the path before the first placeholder."""
        return self.path.partition("<")[0]

    def match(self, path: str) -> dict[str, Any] | None:
        """The path's arguments, converted; None if this is another route's path."""
        if not path.startswith(self.prefix):
            return None
        found = self._pattern.match(path.removeprefix("/"))
        return found[2] if found else None

    def url(self, **args: object) -> str:
        """This route's path with its placeholders filled: the counterpart of `reverse()`."""
        path = self.path
        for name, converter in self._pattern.converters.items():
            start = path.index("<")
            end = path.index(">", start)
            path = path[:start] + converter.to_url(args[name]) + path[end + 1 :]
        return path

    @cached_property
    def handle(self) -> Callable[..., Awaitable[HotResponse]]:
        """The handler itself, imported when the first request needs it."""
        return import_string(self.handler.replace(":", "."))

    @cached_property
    def refuse(self) -> Callable[..., HotResponse]:
        """The function that words refusals."""
        return import_string(self.refusal.replace(":", "."))


def _v1(name: str, methods: set[str], path: str, handler: str, body_limit: int = 0) -> HotRoute:
    return HotRoute(
        name=name,
        methods=frozenset(methods),
        path=path,
        handler=f"chat.api.views:{handler}",
        auth="token",
        body_limit=body_limit,
        refusal="chat.api.errors:refusal",
    )


ROUTES: tuple[HotRoute, ...] = (
    HotRoute(
        name="generation-events",
        methods=frozenset({"GET"}),
        path="/chat/generations/<uuid:pk>/events",
        handler="chat.events:generation_events",
        auth="session",
    ),
    _v1("v1-chat-completions", {"POST"}, "/v1/chat/completions", "chat_completions", body_limit=20 * 1024 * 1024),
    _v1("v1-models", {"GET"}, "/v1/models", "model_list"),
    _v1("v1-model", {"GET"}, "/v1/models/<path:model_id>", "model_detail"),
    _v1("v1-nothing", {"GET", "POST", "PUT", "PATCH", "DELETE"}, "/v1/<path:rest>", "nothing_here"),
)


def url_for(name: str, **args: object) -> str:
    """The path of the hot route called `name`; raises LookupError if there is none."""
    for route in ROUTES:
        if route.name == name:
            return route.url(**args)
    raise LookupError(f"no hot route is called {name}")


class BodyTooLarge(Exception):
    """The caller sent more than the route takes; the dispatcher answers 413."""


class BodyTooSlow(Exception):
    """The caller stopped sending in mid-body; the dispatcher answers 408."""


class ClientGone(Exception):
    """The caller left before its request was complete."""


class Refusal(Exception):
    """A handler's or an authenticator's "no": the dispatcher sends `response()`."""

    def response(self) -> HotResponse:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom an authenticator recognised; `token_id` is set where a token opened the door."""

    user_id: int
    token_id: UUID | None = None


@dataclass(slots=True)
class HotRequest:
    """What a handler sees of a request. Header names are lower-case; a repeated query name keeps its last value."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    user_id: int
    request_id: str
    read_body: Callable[[], Awaitable[bytes]] = field(repr=False)
    token_id: UUID | None = None
    ended: str = ""
    """Why the dispatcher cancelled the handler, if it did: left, lost, closing, slow, stuck."""

    async def body(self) -> bytes:
        """The whole body, at most the route's `body_limit` bytes; raises BodyTooLarge, BodyTooSlow, ClientGone."""
        return await self.read_body()


@dataclass(slots=True)
class HotResponse:
    """A handler's answer. An iterator is sent chunk by chunk, and closed when the client leaves.

    `farewell(why)` gives the last bytes of a stream that we end ourselves: "lost" (the caller's access ended) or
    "closing" (this process stops). `close()` is awaited once when a stream is over, however it ended, even if not one
    chunk was taken (an asynchronous generator that never began would skip its own `finally`).
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    farewell: Callable[[str], bytes] | None = None
    close: Callable[[], Awaitable[None]] | None = None


def text(status: int, sentence: str, **headers: str) -> HotResponse:
    """A short plain answer, for people who meet a hot route by accident and for programs' logs."""
    return HotResponse(
        status,
        {"content-type": "text/plain; charset=utf-8"} | {k.replace("_", "-"): v for k, v in headers.items()},
        (sentence + "\n").encode(),
    )


ASIDE_SECONDS = 0.02
"""How long work that nobody waits for is put off: the request that gave rise to it is over by then. A thread that asks
the ORM takes the interpreter from the event loop for milliseconds, which were the slowest percent of quiet calls."""

_threads: ThreadPoolExecutor | None = None
_threads_lock = threading.Lock()


def _pool() -> ThreadPoolExecutor:
    global _threads
    with _threads_lock:
        if _threads is None:
            _threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="hot-orm")
        return _threads


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ORM work in a thread of a small pool; its connection is given back before this returns."""

    def call() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return await asyncio.get_running_loop().run_in_executor(_pool(), call)
