"""The outbound door: the only module that opens connections to other servers (threats.md S1-S10, F1-F6).

    request(...)      one call, one answer in memory; httpx's API on aiohttp's connections
    open_stream(...)  one call whose body is read piece by piece, by providers/wire.py, for the hot path (docs/adr/0013)

Both go through one pool per event loop, and every new connection passes two checks: the resolver judges each address a
name stands for, and the socket factory judges a literal address, which no resolver ever sees. No redirects, cookies,
proxies, netrc, decompression or retries. Whatever fails leaves as a ProviderError that quotes nothing.
Knows no Django: `configure()` is called once at start.
"""

from __future__ import annotations

import asyncio
import functools
import json as jsonlib
import logging
import math
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp
import certifi
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from providers import addresses
from providers.clients.errors import ProviderBroken, ProviderError, ProviderUnreachable
from providers.wire import Answer, Wire

# httpx logs every address it calls; ours may hold a user's own path or query (K4).
logging.getLogger("httpx").setLevel(logging.WARNING)

MAX_URL = 500
MAX_HEADER_VALUE = 4096
MAX_HEADERS = 64
CONNECT_TIMEOUT = 8.0  # seconds for name, connection and TLS: a dead upstream is told within 10 (F1)
LINGER = 0.25  # seconds an answer may need to end after its reader has left
KEEP_IDLE = 30.0  # seconds an unused connection is kept
UNSENT_TIMEOUT = 60  # seconds a peer may leave our bytes unread before the kernel gives the socket up
_USER_AGENT = "Switchboard"

# -- Policy: what the operator allows ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """The operator's exceptions (S5): nothing a user or the database holds can widen them.

    `private_targets`: "host:port" or CIDR. Link-local and metadata addresses stay closed even when listed.
    `hosts`: logical "name:port" or "name" → (address, port) that is called instead; such a target is allowed.
    """

    private_targets: tuple[str, ...] = ()
    hosts: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rules:
    """A Policy, read: what the checks look things up in."""

    exact: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    table: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def stand_in(self, host: str, port: int) -> tuple[str, int] | None:
        return self.table.get(f"{host}:{port}") or self.table.get(host)

    def lists(self, host: str, port: int, address: addresses.Address | None) -> bool:
        """Whether the operator named this target: by host and port, by address and port, or by network."""
        if (host, port) in self.exact:
            return True
        if address is None:
            return False
        return (str(address), port) in self.exact or any(address in network for network in self.networks)

    def allows(self, host: str, port: int, address: addresses.Address) -> bool:
        """Whether `address`, which `host` stands for, may be connected to."""
        kind = addresses.kind_of(address)
        return kind == addresses.GLOBAL or (kind in addresses.LISTABLE and self.lists(host, port, address))


_rules = _Rules()


def policy_from(targets: Iterable[str], hosts: Iterable[str]) -> Policy:
    """Read the operator's two lists. Raises ValueError, a sentence that says which entry to write how."""
    table: dict[str, tuple[str, int]] = {}
    for entry in hosts:
        name, equals, target = entry.partition("=")
        host, port = _host_and_port(target)
        if not equals or not name or port is None or not _is_address(host):
            raise ValueError(
                f"OUTBOUND_HOSTS: {entry!r} is not name=address:port, such as models.lan:80=127.0.0.1:9000."
            )
        table[name.strip().lower()] = (host, port)
    policy = Policy(tuple(targets), table)
    _read(policy)
    return policy


def _read(policy: Policy) -> _Rules:
    exact: set[tuple[str, int]] = set()
    networks: list[IPv4Network | IPv6Network] = []
    for entry in policy.private_targets:
        if "/" in entry:
            try:
                networks.append(ip_network(entry))
            except ValueError:
                raise ValueError(
                    f"OUTBOUND_PRIVATE_TARGETS: {entry!r} is not a network, such as 10.1.2.0/24."
                ) from None
            continue
        host, port = _host_and_port(entry)
        if port is None or not (_is_address(host) or _is_name(host)):
            raise ValueError(
                f"OUTBOUND_PRIVATE_TARGETS: {entry!r} is not host:port or a network, such as 10.1.2.3:8080."
            )
        if _is_address(host):
            _refuse_closed("OUTBOUND_PRIVATE_TARGETS", entry, host)
        exact.add((host, port))
    for name, (host, port) in policy.hosts.items():
        logical, logical_port = _host_and_port(name)
        if not _is_name(logical) or (":" in name and logical_port is None):
            raise ValueError(f"OUTBOUND_HOSTS: {name!r} is not a name or name:port.")
        if not _is_address(host) or not 0 < port < 65536:
            raise ValueError(f"OUTBOUND_HOSTS: {name!r} must point to an IP address and a port.")
        _refuse_closed("OUTBOUND_HOSTS", name, host)
    return _Rules(frozenset(exact), tuple(networks), {name.lower(): target for name, target in policy.hosts.items()})


def _refuse_closed(setting: str, entry: str, address: str) -> None:
    kind = addresses.kind_of(address)
    if kind != addresses.GLOBAL and kind not in addresses.LISTABLE:
        raise ValueError(f"{setting}: {entry!r} is a {kind} address, which is never called. Remove it.")


def _is_address(text: str) -> bool:
    try:
        return str(ip_address(text)) == text
    except ValueError:
        return False


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Host in lower case without brackets, and the port if there is a good one: "Name:80", "1.2.3.4:80", "[::1]:80"."""
    host, colon, port = text.strip().lower().rpartition(":")
    if not colon or host.endswith(":"):
        return text.strip().lower(), None
    number = int(port) if re.fullmatch(r"[1-9][0-9]{0,4}", port) else 0
    return host.removeprefix("[").removesuffix("]"), number if 0 < number < 65536 else None


def configure(policy: Policy) -> None:
    """Set what may be called besides the public internet. Raises ValueError, a sentence, if an entry cannot be read."""
    global _rules
    _rules = _read(policy)
    _admit.cache_clear()


# -- Addresses as people write them ------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"(?:\A|\.)(?:[0-9]+|0x[0-9a-f]*)\Z")
_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_DOT = re.compile(r"%2e", re.IGNORECASE)
_INNER_SUFFIXES = (
    ".localhost",
    ".localdomain",
    ".local",
    ".internal",
    ".lan",
    ".home.arpa",
    ".intranet",
    ".corp",
    ".home",
    ".onion",
)
_DEFAULT_PORT = {"http": 80, "https": 443}


def _is_name(host: str) -> bool:
    """Whether `host` is a name, and to no resolver a number such as 127.1, 2130706433, 0x7f.1 or 017700000001."""
    return len(host) <= 253 and bool(_NAME.fullmatch(host)) and not _NUMBER.search(host)


class BadURL(ValueError):
    """An address that is not accepted. `str(exc)` is a sentence for a person, without the address."""


@dataclass(frozen=True, slots=True)
class _Place:
    """An address, taken apart: `host` is a name or a canonical IP address without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    address: addresses.Address | None

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def text(self) -> str:
        base = self.origin
        if self.port == _DEFAULT_PORT[self.scheme]:
            base = base.removesuffix(f":{self.port}")
        return f"{base}{self.path}{'?' if self.query else ''}{self.query}"


@lru_cache(maxsize=1024)
def _take_apart(text: str) -> _Place:
    """The syntax alone; knows no policy. Raises BadURL."""
    if not text:
        raise BadURL("Write the address of the endpoint, such as https://api.example.org/v1.")
    if len(text) > MAX_URL * 4:
        raise BadURL("This address is too long.")
    if not text.isascii():
        raise BadURL("Use plain ASCII letters. Write an international name in its xn-- form.")
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise BadURL("The address must not contain spaces or control characters.")
    if "\\" in text:
        raise BadURL("The address must not contain a backslash.")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORT:
        raise BadURL("Begin the address with https://.")
    if "#" in rest:
        raise BadURL("Leave out everything from # on.")
    front, _, query = rest.partition("?")
    authority, slash, path = front.partition("/")
    if "@" in authority:
        raise BadURL("Leave the user name and password out of the address; enter the key in its own field.")
    host, port = _authority(authority, scheme)
    address = ip_address(host) if _is_address(host) else None
    path = slash + path
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        raise BadURL("The path contains characters that an address cannot carry.")
    if any(_DOT.sub(".", segment) in {".", ".."} for segment in path.split("/")):
        raise BadURL("The path must not contain . or .. as a step.")
    place = _Place(scheme, host, port, path, query, address)
    # The parser that connects has the last word on which host this is.
    try:
        judge = URL(place.text, encoded=True)
    except ValueError:
        raise BadURL("This address cannot be read.") from None
    if (judge.scheme, judge.raw_host, judge.port) != (scheme, host, port):
        raise BadURL("This address cannot be read.")
    return place


def _authority(authority: str, scheme: str) -> tuple[str, int]:
    """Host and port. Raises BadURL for every spelling but the plain one."""
    if authority.startswith("["):
        host, bracket, tail = authority[1:].partition("]")
        try:
            v6 = IPv6Address(host)
        except ValueError:
            raise BadURL("The address in brackets is not an IPv6 address.") from None
        if not bracket or v6.scope_id is not None:
            raise BadURL("The address in brackets is not an IPv6 address.")
        if addresses.embedded(v6) is not None:
            raise BadURL("Write an IPv4 address as four numbers, not inside an IPv6 address.")
        host = str(v6)
    else:
        host, colon, port_text = authority.partition(":")
        host, tail = host.lower(), colon + port_text
        if not host:
            raise BadURL("The address has no host name.")
        if "%" in host:
            raise BadURL("The host name must not contain percent signs.")
        if host.endswith("."):
            raise BadURL("Leave out the dot at the end of the host name.")
        if not _is_address(host) and not _is_name(host):
            if _NUMBER.search(host):
                raise BadURL("Write an IPv4 address as four plain decimal numbers.")
            raise BadURL("This is not a host name.")
    if not tail:
        return host, _DEFAULT_PORT[scheme]
    if not re.fullmatch(r":[1-9][0-9]{0,4}", tail) or int(tail[1:]) > 65535:
        raise BadURL("Behind the colon stands a port, a number from 1 to 65535. Without one, leave the colon out.")
    return host, int(tail[1:])


def _permit(place: _Place) -> None:
    """What can be said before any name is resolved. Raises BadURL."""
    rules = _rules
    if rules.stand_in(place.host, place.port) is not None:
        return
    listed = rules.lists(place.host, place.port, place.address)
    if place.address is not None:
        if not rules.allows(place.host, place.port, place.address):
            raise BadURL(
                "That address is inside a private or reserved network, which this server does not call unless its "
                "administrator allows it (OUTBOUND_PRIVATE_TARGETS)."
            )
    elif not listed and ("." not in place.host or place.host.endswith(_INNER_SUFFIXES)):
        raise BadURL("That is a name of an inner network, which this server does not call.")
    if place.scheme == "http" and not listed:
        raise BadURL("Use https://. Plain http would send your key unprotected.")


def parse_base_url(text: str) -> str:
    """`text` in canonical form: scheme://host[:port][/path], no slash at the end. Raises BadURL (S1, S5)."""
    place = _take_apart(text)
    if "?" in text:
        raise BadURL("Leave out the question mark and what follows it.")
    if len(text) > MAX_URL:
        raise BadURL(f"An address may have at most {MAX_URL} characters.")
    path = place.path.rstrip("/")
    if "//" in path or re.search(r"%(?:2f|5c|0|1|7f)", path, re.IGNORECASE):
        raise BadURL("The path contains an empty step or an encoded slash.")
    _permit(place)
    return _Place(place.scheme, place.host, place.port, path, "", place.address).text


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str:
    """scheme://host:port, always with the port. Asks no policy. Raises BadURL if `url` cannot be read."""
    return _take_apart(url).origin


def path_segment(text: str) -> str:
    """`text`, such as a model id, as one step of a path (S10). Raises BadURL if it cannot be one."""
    if not text or text in {".", ".."} or len(text) > 200 or not text.isprintable():
        raise BadURL("This name cannot be part of an address.")
    return quote(text, safe="")


@lru_cache(maxsize=1024)
def _admit(url: str) -> URL:
    """The address to hand to aiohttp. Raises BadURL."""
    place = _take_apart(url)
    _permit(place)
    return URL(place.text, encoded=True)


# -- Headers and keys --------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_VALUE = re.compile(rf"[\x21-\x7e](?:[\x20-\x7e]{{0,{MAX_HEADER_VALUE - 2}}}[\x21-\x7e])?")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_HEADER_VALUE // 2}}}")
OURS = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "cookie", "expect", "host"),
        *("http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("set-cookie", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers that steer the connection itself. Only this module sets them."""


class BadHeader(ValueError):
    """A key, header name or value that cannot be sent. `str(exc)` is a sentence that does not quote it."""


def check_key(key: str) -> str:
    """`key`, if it is one: 1 to 2048 visible ASCII characters, no spaces (S10). Raises BadHeader."""
    if not _KEY.fullmatch(key):
        raise BadHeader("A key consists of visible ASCII characters, without spaces or line breaks.")
    return key


def check_header_name(name: str) -> str:
    """`name`, if a caller may set such a header. Raises BadHeader."""
    if not _TOKEN.fullmatch(name):
        raise BadHeader("A header name consists of up to 64 letters, digits and hyphens.")
    if name.lower() in OURS:
        raise BadHeader("This header belongs to the connection and cannot be set.")
    return name


def check_header_value(value: str) -> str:
    """`value`, if it is visible ASCII with single-line spacing inside, at most 4096 characters. Raises BadHeader."""
    if not _VALUE.fullmatch(value):
        raise BadHeader("A header value consists of visible ASCII characters, on one line.")
    return value


def _check_headers(headers: Mapping[str, str] | None) -> None:
    """The second line behind the forms. Raises ProviderUnreachable("bad_header")."""
    if not headers:
        return
    is_good = len(headers) <= MAX_HEADERS
    for name, value in headers.items():
        is_good = is_good and bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)) and name.lower() not in OURS
    if not is_good:
        raise ProviderUnreachable("bad_header", permanent=True)


# -- The two checks of a connection ------------------------------------------------------------------------------------


class _Vetted(str):
    """An address the resolver has judged for the connection that is being made. A literal from a URL is a plain str."""

    __slots__ = ()


def _blocked() -> ProviderUnreachable:
    return ProviderUnreachable("blocked_address", permanent=True)


def _lookup(host: str, port: int) -> list[str]:
    """Every address `host` has, by the system's resolver; runs in a thread. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class _Resolver(AbstractResolver):
    """Judges every address of a name before any is connected to (S1, S2).

    Nothing is remembered: each new connection looks the name up again. Simultaneous lookups of one name share one
    answer, so that a burst of streams is not a burst of threads.
    """

    def __init__(self) -> None:
        # Not the loop's own pool: asyncio.run() would wait at its end for a lookup that hangs.
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="lookup")
        self._running: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        rules = _rules
        stand_in = rules.stand_in(host, port)
        if stand_in is not None:
            return [_result(host, *stand_in)]
        answers = await self._answers(host, port)
        if not answers:
            raise OSError("no address")
        for answer in answers:
            if "%" in answer or not rules.allows(host, port, ip_address(answer)):
                raise _blocked()
        return [_result(host, answer, port) for answer in answers]

    async def _answers(self, host: str, port: int) -> list[str]:
        key = (host, port)
        running = self._running.get(key)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._threads, _lookup, host, port)
            self._running[key] = running
            running.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(running)

    def _forget(self, key: tuple[str, int], done: asyncio.Future[list[str]]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # everybody who asked may have given up meanwhile

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _result(name: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=name,
        host=_Vetted(address),
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


def _open_socket(addr_info: tuple[Any, ...]) -> socket.socket:
    """The last gate: a socket for an address that was judged. aiohttp asks no resolver about a literal address (S1)."""
    family, kind, protocol, _, target = addr_info
    host, port = target[0], target[1]
    if type(host) is not _Vetted and not _rules.allows(host, port, ip_address(host)):
        raise _blocked()
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A peer that never reads must not keep a closed connection alive for ever (I20).
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_TIMEOUT * 1000)
    return made


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """One for the process: TLS 1.2 or newer, names and certificates checked, system and certifi's authorities."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


# -- One pool per event loop -------------------------------------------------------------------------------------------


class _Cut(aiohttp.ClientError):
    """The peer went away before it answered. aiohttp would send a GET again; nobody but our caller may decide that."""


async def _once(request: aiohttp.ClientRequest, handler: Callable[..., Any]) -> aiohttp.ClientResponse:
    """aiohttp middleware: one request is one request (F9)."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise _Cut from None


class _Clock:
    """One timer for all answers of an event loop: nearly all of them are over long before anything is due.

    A timer per call, made and cancelled, was 2 % of a plain `/v1` call.
    """

    __slots__ = ("_due", "_loop", "_timer", "_watched")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: set[Stream] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def watch(self, stream: Stream) -> None:
        """Have `stream` looked at when it is due."""
        self._watched.add(stream)
        if stream.due < self._due:
            self._set(stream.due)

    def leave(self, stream: Stream) -> None:
        self._watched.discard(stream)

    def close(self) -> None:
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer, self._due = None, math.inf
        now = self._loop.time()
        soon = now + 0.5  # too early harms nobody, and looking at many at once is cheaper
        for stream in [stream for stream in self._watched if stream.due <= soon]:
            if not stream.look(now):
                self._watched.discard(stream)
        if self._watched:
            self._set(max(min([stream.due for stream in self._watched]), now + 0.01))


class _Door:
    """The pool of one event loop: an aiohttp session, and an httpx client on top of it."""

    __slots__ = ("client", "clock", "lifetime", "places", "resolver", "session", "streams")

    def __init__(self) -> None:
        defaults = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": _USER_AGENT}
        self.resolver = _Resolver()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self.resolver,
                socket_factory=_open_socket,
                use_dns_cache=False,
                ssl=_tls_context(),
                limit=0,  # how many calls may run is decided by those who start them
                keepalive_timeout=KEEP_IDLE,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=defaults,
            auto_decompress=False,
            trust_env=False,
            middlewares=(_once,),
        )
        connector = self.session.connector
        connector._factory = functools.partial(Wire, loop=asyncio.get_running_loop())  # type: ignore[union-attr]
        self.client = httpx.AsyncClient(
            transport=AiohttpTransport(verify=_tls_context(), client=self.session),
            # httpx has a cookie jar of its own: one that takes nothing from anybody (S8).
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers=defaults,
            follow_redirects=False,
            trust_env=False,
            timeout=30.0,
        )
        self.lifetime: AsyncGenerator[_Door, None] | None = None
        self.streams: set[Stream] = set()
        self.clock = _Clock()
        self.places: dict[URL, aiohttp.ClientRequest] = {}

    def place(self, target: URL) -> aiohttp.ClientRequest:
        """What the connector wants to know of `target`: a whole request, but one for each address is enough."""
        known = self.places.get(target)
        if known is None:
            if len(self.places) >= 256:
                self.places.clear()
            known = aiohttp.ClientRequest("POST", target, loop=asyncio.get_running_loop(), session=self.session)
            self.places[target] = known
        return known


_doors: dict[asyncio.AbstractEventLoop, _Door] = {}


async def _living(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[_Door, None]:
    """A door that closes with its loop: asyncio.run() and asgiref close open asynchronous generators at their end."""
    door = _Door()
    try:
        yield door
    finally:
        if _doors.get(loop) is door:
            del _doors[loop]
        for stream in list(door.streams):
            # Or a body that ends with its connection would look complete.
            stream._fail(ProviderBroken("interrupted"))
        door.clock.close()
        await door.client.aclose()
        await door.session.close()
        await door.resolver.close()
        await asyncio.sleep(0)  # closed transports let go of their sockets in the next round of the loop


async def _door() -> _Door:
    loop = asyncio.get_running_loop()
    door = _doors.get(loop)
    if door is None or door.session.closed:
        for gone in [other for other in _doors if other.is_closed()]:
            del _doors[gone]
        lifetime = _living(loop)
        door = await anext(lifetime)
        door.lifetime = lifetime
        _doors[loop] = door
    return door


async def close() -> None:
    """Close this event loop's connections. The next call opens new ones."""
    door = _doors.pop(asyncio.get_running_loop(), None)
    if door is not None and door.lifetime is not None:
        await door.lifetime.aclose()


# -- Failures ----------------------------------------------------------------------------------------------------------

_FAILURES = (aiohttp.ClientError, httpx.HTTPError, HttpProcessingError, OSError, ProviderError)


def _translated(exc: BaseException) -> ProviderError:
    """One of ours for one of theirs. Raise it outside the `except` block: theirs may quote headers (K4)."""
    if isinstance(exc, ProviderError):
        return exc
    if isinstance(exc, httpx.HTTPError) and exc.__cause__ is not None:
        return _translated(exc.__cause__)
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            return ProviderUnreachable("tls_error", permanent=True)
        case aiohttp.ClientSSLError():
            return ProviderUnreachable("tls_error")
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return ProviderUnreachable("unreachable")  # nothing was sent, so nothing can have been charged
        case TimeoutError():
            return ProviderUnreachable("timeout")
        case aiohttp.InvalidURL():
            return _blocked()
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return ProviderBroken("response_too_large" if _has_cause(exc, LineTooLong) else "unexpected_content")
        case _:
            return ProviderBroken("interrupted")


def _has_cause(exc: BaseException | None, kind: type[BaseException]) -> bool:
    while exc is not None:
        if isinstance(exc, kind):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers in lower case; repeated ones are joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _judge_head(status: int, headers: Mapping[str, str], asked: Mapping[str, str] | None, max_bytes: int) -> None:
    """Raises ProviderBroken for what is not an answer, or too large a one."""
    if 300 <= status < 400 and not (status == 304 and asked and any(name.lower() == "if-none-match" for name in asked)):
        raise ProviderBroken("unexpected_redirect", status=status, permanent=True)
    if not 200 <= status < 600 or headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise ProviderBroken("unexpected_content", status=status)
    length = headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > max_bytes:
        raise ProviderBroken("response_too_large", status=status)


# -- Calls -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer: any status but a redirect. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, *, parse_float: Callable[[str], Any] | None = None) -> Any:
        """The body as JSON. Raises ProviderBroken("unexpected_content")."""
        try:
            return jsonlib.loads(self.body, parse_float=parse_float)
        except (ValueError, RecursionError):
            pass
        raise ProviderBroken("unexpected_content", status=self.status)


async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    content: bytes | None = None,
    max_bytes: int = 8 << 20,
    deadline: float = 30.0,
    connect_timeout: float = CONNECT_TIMEOUT,
) -> Response:
    """Call `url` and return the whole answer, within `deadline` seconds and `max_bytes`. Raises ProviderError."""
    target = _target(method, url)
    _check_headers(headers)
    if json is not None:
        content = jsonlib.dumps(json, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
    client = (await _door()).client
    try:
        async with asyncio.timeout(deadline):
            call = client.build_request(
                method,
                str(target),
                headers=headers,
                content=content,
                timeout=httpx.Timeout(deadline, pool=min(connect_timeout, deadline)),
            )
            response = await client.send(call, stream=True)
            try:
                head = _joined(response.headers.raw)
                _judge_head(response.status_code, head, headers, max_bytes)
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > max_bytes:
                        raise ProviderBroken("response_too_large", status=response.status_code)
                return Response(response.status_code, head, bytes(body))
            finally:
                await response.aclose()
    except _FAILURES as exc:
        failure = _translated(exc)
    raise failure


_METHODS = frozenset({"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"})


def _target(method: str, url: str) -> URL:
    if method not in _METHODS:
        raise ValueError("method must be one of DELETE, GET, HEAD, PATCH, POST, PUT")
    try:
        return _admit(url)
    except BadURL:
        pass
    raise _blocked()


class Stream:
    """An answer whose body is still coming. Made by `open_stream()`."""

    __slots__ = (
        "_answer",
        "_changed",
        "_clock",
        "_ends",
        "_idle",
        "_lease",
        "_loop",
        "_opens",
        "_seen",
        "_timer",
        "due",
        "headers",
        "next_chunk",
        "status",
    )

    def __init__(
        self, answer: Answer, lease: Connection, clock: _Clock, *, now: float, opens: float, idle: float, ends: float
    ) -> None:
        self.status, self.headers = 0, answer.headers
        self.next_chunk = answer.next_piece
        """`await` it for all of the body that is there, at least a byte; b"" is its end. Raises ProviderError if it
        ends early, after what came before was given out."""
        self._answer, self._lease, self._clock = answer, lease, clock
        self._opens, self._idle, self._ends = opens, idle, ends
        self._loop = asyncio.get_running_loop()
        self._seen, self._changed = 0, now
        self._timer: asyncio.TimerHandle | None = None
        self.due = now + max(min(idle / 4, opens - now, ends - now), 0.01)
        """When the clock looks at it next."""
        clock.watch(self)

    async def _begin(self, asked: Mapping[str, str], max_bytes: int) -> None:
        """Wait for the head. Raises ProviderError."""
        answer = self._answer
        await answer.head()
        self.status, self._changed = answer.status, self._loop.time()
        _judge_head(answer.status, answer.headers, asked, max_bytes)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, as `next_chunk` gives it."""
        while chunk := await self.next_chunk():
            yield chunk

    async def read(self, limit: int) -> bytes:
        """The rest of the body, at most `limit` bytes: what is beyond is left out. For error bodies."""
        body = bytearray()
        while len(body) < limit and (chunk := await self.next_chunk()):
            body += chunk
        return bytes(body[:limit])

    async def whole(self) -> Response:
        """All of the body as one answer: what `request()` gives, at a fraction of its price. Raises ProviderError."""
        chunks = []
        while chunk := await self.next_chunk():
            chunks.append(chunk)
        return Response(self.status, self.headers, b"".join(chunks))

    def look(self, now: float) -> bool:
        """Look at the clock, now and then, so that no chunk has to: end what is silent or takes too long.

        False if that was the last time.
        """
        answer = self._answer
        if answer.is_over or answer.error is not None:
            return False
        if not answer.status:
            ends = min(self._opens, self._ends)
        else:
            if answer.received != self._seen or answer.received > answer.taken:
                # News, or bytes that our reader has not taken yet: not the upstream's silence.
                self._seen, self._changed = answer.received, now
            ends = min(self._changed + self._idle, self._ends)
        if now >= ends:
            answer.fail(ProviderUnreachable("timeout"))
            return False
        self.due = now + max(min(self._idle / 4, ends - now), 0.01)
        return True

    def _fail(self, error: ProviderError) -> None:
        """End the body here and now, for a reason of ours."""
        self._answer.fail(error)
        self._abort()

    def _leave(self) -> None:
        """Let go of an answer that was read as far as its reader wanted.

        Most readers stop at the last event, a moment before the bytes that end the body. Waiting that moment, in the
        background, saves the next call a connection and a TLS handshake. An answer that goes on is cut.
        """
        self._stop_watching()
        if not self._answer.is_over and self._answer.error is None:
            self._timer = self._loop.call_later(LINGER, self._abort)

    def _abort(self) -> None:
        """Close the connection at once, unless it has been given back already."""
        self._stop_watching()
        self._answer.fail(ProviderBroken("interrupted"))
        _cut_off(self._lease)

    def _stop_watching(self) -> None:
        self._clock.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@lru_cache(maxsize=64)
def _timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect)


async def _connect(door: _Door, where: aiohttp.ClientRequest, seconds: float) -> Connection:
    """A connection that waits unused, or a new one."""
    connector = door.session.connector
    if connector is None:
        raise _Cut
    try:
        return await connector.connect(where, [], _timeout(seconds))
    except TimeoutError:
        raise aiohttp.ConnectionTimeoutError from None


def _cut_off(connection: Connection) -> None:
    """Close the connection at once, unless it has been given back already."""
    transport = connection.transport
    if transport is not None:
        transport.abort()
    connection.close()


@lru_cache(maxsize=256)
def _head(method: str, target: URL, headers: tuple[tuple[str, str], ...]) -> bytes:
    """The lines of a request that are the same each time its account is called. Raises ProviderUnreachable."""
    _check_headers(dict(headers))
    lines = [
        f"{method} {target.raw_path_qs} HTTP/1.1",
        f"Host: {target.host_port_subcomponent}",
        "Accept-Encoding: identity",
        f"User-Agent: {_USER_AGENT}",
        *[f"{name}: {value}" for name, value in headers],
    ]
    return "".join([f"{line}\r\n" for line in lines]).encode("ascii")


class open_stream:
    """`async with open_stream(...) as stream`: call `url` and read the answer as it comes. Raises ProviderError.

    Leaving the context by an exception closes the connection at once, leaving it otherwise does within a quarter of a
    second, unless the answer ends by then: then the connection is kept for the next call.

    All times are in seconds: until connected; from there to the headers; between two pieces of the body (noticed up
    to a quarter late); and for the whole.
    """

    __slots__ = ("_call", "_door", "_limits", "_stream")

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes,
        connect_timeout: float = CONNECT_TIMEOUT,
        header_timeout: float = 120.0,
        idle_timeout: float = 120.0,
        total_timeout: float = 1800.0,
        max_bytes: int = 64 << 20,
    ) -> None:
        self._call = method, url, headers, content
        self._limits = connect_timeout, header_timeout, idle_timeout, total_timeout, max_bytes

    async def __aenter__(self) -> Stream:
        method, url, headers, content = self._call
        connect, header, idle, total, max_bytes = self._limits
        target = _target(method, url)
        head = _head(method, target, tuple(headers.items()))
        if content or method != "GET":
            head += b"Content-Length: %d\r\n\r\n" % len(content)
        else:
            head += b"\r\n"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        door = _doors.get(loop)
        if door is None or door.session.closed:
            door = await _door()
        failure: ProviderError
        stream: Stream | None = None
        try:
            lease = await _connect(door, door.place(target), min(connect, total))
            wire = lease.protocol
            answer = Answer(loop, is_head=method == "HEAD", max_bytes=max_bytes)
            stream = Stream(
                answer,
                lease,
                door.clock,
                now=loop.time(),
                opens=begun + connect + header,
                idle=idle,
                ends=begun + total,
            )
            if not isinstance(wire, Wire) or not wire.ask(lease, head + content, answer):
                raise _Cut
            await stream._begin(headers, max_bytes)
            self._door, self._stream = door, stream
            door.streams.add(stream)
            return stream
        except _FAILURES as exc:
            failure = _translated(exc)
        except BaseException:
            if stream is not None:
                stream._abort()
            raise
        if stream is not None:
            stream._abort()
        raise failure

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream = self._stream
        self._door.streams.discard(stream)
        if kind is None:
            stream._leave()
        else:
            stream._abort()
