"""What every client that speaks JSON over HTTP does alike: headers, refusals, lists, verdicts, and the one stream loop.

A dialect is what is left: where to ask, how to prove who asks, how to write a request and how to read an answer.
Knows no dialect, and nothing of what an answer means.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from providers import net
from providers.clients import errors, prices
from providers.clients.base import Frame, ModelInfo, Probe, ProviderClient
from providers.clients.errors import ProviderBroken, ProviderError, ProviderRefused
from providers.clients.sse import Event, EventReader

MAX_LIST = 96 << 20
MAX_PROBED_LIST = 16 << 20
MAX_ANSWER = 32 << 20
MAX_ERROR = 64 << 10
MAX_PROBE = 1 << 20
"""Bytes read of a model list, of one that a probe asks for, of an answer in one piece, of a refusal, of a probe's
answer."""

MAX_VALUES = 6_000_000
"""JSON values in a model list, counted before it is parsed: in memory, 96 MB of small ones would be gigabytes (S9)."""

PROBE_DEADLINE = 8.0
"""Seconds for each call of a probe: somebody sits before a form and waits."""

MAX_BAD_FRAMES = 5
"""This many frames in a row that are no JSON end a stream."""

_RESERVED_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "if-none-match",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4000}", re.ASCII)
_SECRET_NAME = re.compile(r"auth|key|token|secret|code|pass|cookie", re.IGNORECASE)
_WRONG_KEY = "sk-not-a-real-key-0000000000000000"
"""Sent once by a probe, to learn whether the provider looks at keys at all."""

ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,200}"', re.ASCII)

_decoder = json.JSONDecoder(parse_constant=prices.refuse_constant)
_decode = _decoder.raw_decode
scan_json: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


def read_document(text: str) -> Any:
    """The JSON of one event or answer. Raises ValueError for anything else, glued documents included."""
    try:
        value, end = _decode(text)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    if end != len(text) and not text[end:].isspace():
        raise ValueError("something follows the JSON")
    return value


class EndpointClient(ProviderClient):
    """A client that asks with JSON over HTTP, and is answered with JSON or server-sent events.

    `options` it reads: `header_timeout`, `idle_timeout`, `total_timeout` in seconds for streams.
    """

    # --- requests

    OWN_HEADERS: frozenset[str] = frozenset({"authorization"})
    """Headers of this dialect, in lower case, that an account's extra headers cannot set."""

    def url(self, path: str) -> str:
        return f"{self.base_url}/{path.lstrip('/')}"

    @property
    def host(self) -> str:
        return (urlsplit(self.base_url).hostname or "").lower()

    def headers(self, *, accept: str = "application/json", key: str | None = None) -> dict[str, str]:
        """Request headers. The account's extra ones come first and cannot replace ours, the key's above all.

        Raises ProviderRefused("key_rejected") for a key that cannot be a header (S10).
        """
        known = self._headers.get((accept, key))
        if known is None:
            if len(self._headers) >= 8:
                self._headers.clear()
            known = self._headers[accept, key] = self._made_headers(accept, key)
        return dict(known)

    @cached_property
    def _headers(self) -> dict[tuple[str, str | None], dict[str, str]]:
        """Headers made before: a client lives for a few seconds of calls, or for one probe."""
        return {}

    def _made_headers(self, accept: str, key: str | None) -> dict[str, str]:
        sent: dict[str, str] = {}
        extra: Mapping[Any, Any] = self._extra_headers  # JSON of a row, so anything
        for name, value in extra.items():
            if not isinstance(name, str) or not isinstance(value, str):
                continue
            if name.lower() in _RESERVED_HEADERS | self.OWN_HEADERS or not _HEADER_NAME.fullmatch(name):
                continue
            if _HEADER_VALUE.fullmatch(value):
                sent[name] = value
        sent["Accept"] = accept
        key = self._api_key if key is None else key
        if key:
            if not re.fullmatch(r"[\x21-\x7e]{1,4000}", key, re.ASCII):
                raise ProviderRefused("key_rejected", detail="The key holds characters that no key has.")
            sent.update(self.auth_headers(key))
        return sent

    def auth_headers(self, key: str) -> dict[str, str]:
        """How this dialect shows `key`, which is not empty and fits into a header."""
        return {"Authorization": f"Bearer {key}"}

    def secrets(self) -> tuple[str, ...]:
        """What must be cut from upstream text: the key, and extra headers that sound like one."""
        return self._secrets

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        return tuple(
            value
            for name, value in (("key", self._api_key), *self._extra_headers.items())
            if isinstance(value, str) and len(value) >= 6 and _SECRET_NAME.search(str(name))
        )

    @cached_property
    def _secret_bytes(self) -> tuple[bytes, ...]:
        return tuple([secret.encode() for secret in self._secrets])

    def parse_error(self, status: int, headers: Mapping[str, str] | None, body: Any) -> ProviderError:
        """What a refusal means; see errors.from_answer."""
        return errors.from_answer(status, headers, body, self.secrets())

    async def get_json(self, url: str) -> Any:
        """A small JSON document, numbers exact, for probes. Raises ProviderError, also for an error with status 200."""
        response = await net.request("GET", url, headers=self.headers(), max_bytes=MAX_PROBE, deadline=PROBE_DEADLINE)
        return self._read_json(response)

    def _read_json(self, response: Any, *, is_list: bool = False) -> Any:
        """The JSON of an answer that is no refusal. `is_list`: of models, where one odd figure spoils nothing else."""
        if response.status >= 300 or response.status < 200:
            raise self.parse_error(response.status, response.headers, response.body)
        body = self._without_secrets(response.body)
        if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
            raise ProviderBroken("response_too_large", status=response.status)
        try:
            document = prices.loads(body, is_lenient=is_list)
        except ValueError:
            raise self._unexpected(response.status, body) from None
        if errors.has_error(document) or isinstance(document, str):
            raise self.parse_error(response.status, response.headers, document)
        return document

    def _without_secrets(self, body: bytes) -> bytes:
        """An echoed key is never kept, not even as a model's name (K5); nor are bytes that are no UTF-8 (F10)."""
        for secret in self._secret_bytes:
            if secret in body:
                body = body.replace(secret, b"[key]")
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError:
                body = body.decode("utf-8", "replace").encode()
        return body

    def _unexpected(self, status: int, body: bytes, expected: str = "JSON") -> ProviderBroken:
        start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        came = {b"": "an empty answer", b"<": "a web page", b"{": "JSON", b"[": "JSON"}.get(start, "other text")
        said = errors.excerpt(body, self.secrets())
        detail = f"{came} instead of {expected}" + (f": {said}" if said else "")
        return ProviderBroken("unexpected_content", status=status, detail=detail[: errors.DETAIL_LENGTH])

    # --- models

    @abstractmethod
    def parse_model(self, row: Any) -> ModelInfo | None:
        """One row of the list; None for a row that is fine but not offered. Raises ValueError for an unusable one."""

    def read_rows(self, rows: Iterable[Any]) -> tuple[tuple[ModelInfo, ...], int]:
        """(models, number of rows that could not be read). Of rows with one id the first counts; case matters."""
        found: dict[str, ModelInfo] = {}
        skipped = 0
        for row in rows:
            try:
                model = self.parse_model(row)
            except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError):
                skipped += 1
                continue
            if model is not None:
                found.setdefault(model.model_id, model)
        return tuple(found.values()), skipped

    @staticmethod
    def taken(rows: list[Any]) -> Iterator[Any]:
        """The rows in their order, each let go of as it is read: a long list is not kept twice. Leaves `rows` empty."""
        rows.reverse()
        while rows:
            yield rows.pop()

    # --- probing

    async def ask(self, method: str, url: str, key: str, content: bytes | None = None) -> net.Response:
        """One call of a probe, with any key. Raises ProviderError."""
        headers = self.headers(key=key)
        if content is not None:
            headers["Content-Type"] = "application/json"
        return await net.request(
            method, url, headers=headers, content=content, max_bytes=MAX_PROBED_LIST, deadline=PROBE_DEADLINE
        )

    async def refuses(self, method: str, url: str, content: bytes | None = None) -> bool:
        """Whether the same request with a wrong key is refused because of the key."""
        answer = await self.ask(method, url, _WRONG_KEY, content)
        if answer.status in (401, 403):
            return True
        return self.parse_error(answer.status, answer.headers, answer.body).code == "key_rejected"

    def _verdict_of(self, error: ProviderError, request: str) -> Probe:
        if error.code == "key_rejected":
            verdict = "invalid"
        elif error.code == "no_balance":
            verdict = "valid"
        else:
            verdict = "unverified"
        return Probe(verdict, request, error.public_message, code=error.code)  # type: ignore[arg-type]

    # --- chat

    @abstractmethod
    def chat_request(self, body: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        """(address, JSON) to send for an OpenAI-shaped `body`. Raises ProviderRefused for what cannot be said here."""

    @abstractmethod
    def frame_reader(self, status: int, headers: Mapping[str, str]) -> FrameReader:
        """Who reads the stream of an answer with this status."""

    def _amended(self, sent: dict[str, Any], error: ProviderError) -> dict[str, Any] | None:
        """What to send instead of `sent` once, when we know how to mend what `error` complains about; else None."""
        return None

    def _encode(self, body: Mapping[str, Any]) -> bytes:
        try:
            return _to_json(body).encode()
        except UnicodeEncodeError:  # half surrogate pairs: legal as \u escapes, not as UTF-8
            return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise ProviderRefused("bad_request", detail="The request is not JSON.") from exc

    @cached_property
    def _stream_limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        for name in ("header_timeout", "idle_timeout", "total_timeout"):
            value = self.options.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 86_400:
                limits[name] = float(value)
        return limits

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Frame]:
        url, sent = self.chat_request(body, stream=True)
        may_amend = True
        while True:
            headers = self.headers(accept="text/event-stream")
            headers["Content-Type"] = "application/json"
            async with net.open_stream(
                "POST",
                url,
                headers=headers,
                content=self._encode(sent),
                **self._stream_limits,
            ) as answer:
                problem: ProviderError | None = None
                if not 200 <= answer.status < 300:
                    problem = self.parse_error(answer.status, answer.headers, await self._refusal_body(answer))
                else:
                    reader = self.frame_reader(answer.status, answer.headers)
                    try:
                        while chunk := await answer.next_chunk():
                            for frame in reader.feed(chunk):
                                yield frame
                            if reader.is_done or reader.problem is not None:
                                break
                        for frame in reader.close():
                            yield frame
                    except ProviderError as error:
                        for frame in reader.close():
                            yield frame
                        if not reader.is_over:
                            problem = _cut(error) if reader.frames else error
                    else:
                        problem = reader.problem
                    if reader.frames and problem is not None:
                        raise problem
                if problem is None:
                    return
                amended = self._amended(sent, problem) if may_amend else None
                if amended is None:
                    raise problem
            # Refused before the first frame, for a reason we know how to mend: once more (upstreams.md §1.4).
            sent, may_amend = amended, False

    async def _refusal_body(self, answer: Any) -> bytes:
        """The body of a refusal, or nothing if it breaks off: the status already says enough."""
        try:
            return await answer.read(MAX_ERROR)
        except ProviderError:
            return b""

    async def whole_answer(self, body: Mapping[str, Any]) -> tuple[Any, Any]:
        """The answer to a chat request that is no stream: the response, and its JSON with exact numbers.

        Raises ProviderError.
        """
        url, sent = self.chat_request(body, stream=False)
        headers = self.headers()
        headers["Content-Type"] = "application/json"
        deadline = self._stream_limits.get("total_timeout", 600.0)
        may_amend = True
        while True:
            async with net.open_stream(  # a third of net.request()'s price, on a path that /v1 is measured by
                "POST",
                url,
                headers=headers,
                content=self._encode(sent),
                header_timeout=deadline,
                idle_timeout=deadline,
                total_timeout=deadline,
                max_bytes=MAX_ANSWER,
            ) as answer:
                response = await answer.whole()
            try:
                return response, self._read_json(response)
            except ProviderRefused as error:
                amended = self._amended(sent, error) if may_amend else None
                if amended is None:
                    raise
                sent, may_amend = amended, False


class FrameReader(ABC):
    """From the bytes of one answer to Frames; pure, so that tests cut the bytes as they like.

    Subclasses know a dialect: they turn events into frames.

    Call `feed` until `is_done` or `problem`, and `close` at the end of the bytes. `problem` is what to raise once the
    frames are dealt with. Whether this is a stream at all is decided by the first byte that is no white space, never by
    the content type.
    """

    MAX_DOCUMENT = MAX_ERROR
    """Bytes that are read of an answer that is no stream."""

    def __init__(self, client: EndpointClient, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._client, self._status, self._headers = client, status, headers or {}
        self._events = EventReader()
        self._head = bytearray()
        self._is_stream: bool | None = None
        key = client._api_key
        self._key = key if len(key) >= 12 and key.isascii() else ""
        self._key_bytes = self._key.encode()
        self._others = [
            (secret.encode(), secret)
            for secret in client.secrets()
            if secret != key and len(secret) >= 12 and secret.isascii()
        ]
        """Extra headers that sound like secrets; most accounts have none."""
        self._bad = 0
        self.skipped = 0
        """Frames that could not be read."""
        self.frames = 0
        """Frames given out."""
        self.problem: ProviderError | None = None
        self.is_done = self._has_finish = self._has_error = False

    @property
    def has_problem(self) -> bool:
        return self.problem is not None

    @property
    def is_over(self) -> bool:
        """The answer reached an end of its own: `[DONE]`, a finish reason, or an error frame."""
        return self.is_done or self._has_finish or self._has_error

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes; none after `[DONE]` or a problem."""
        if self.is_done or self.problem is not None:
            return []
        if not self._is_stream:
            self._head += chunk
            if self._is_stream is None:
                self._is_stream = _looks_like_events(self._head)
            if not self._is_stream:
                if len(self._head) > self.MAX_DOCUMENT:
                    return self._end_document()
                return []
            chunk = bytes(self._head)
            del self._head[2_000:]
        elif not self.frames:
            self._head += chunk[: 2_000 - len(self._head)]  # to name what came, should it turn out to be no stream
        try:
            frames = self._read(self._events.feed(chunk))
        except ProviderBroken as error:
            self.problem = error
            return []
        if self._events.is_broken and self.problem is None and not self.is_done:
            self.problem = ProviderBroken("response_too_large", status=self._status)
        return frames

    def close(self) -> list[Frame]:
        """The last frames when the bytes end: a pending event that is whole, and what a dialect held back."""
        frames: list[Frame] = []
        if self.problem is None and not self.is_done:
            if self._is_stream:
                frames = self._read(self._events.close())
            else:
                frames = self._end_document()
                if self.has_problem:
                    return frames
        last = self._last_frames()
        self.frames += len(last)
        frames += last
        if self.problem is None and not self.is_over:
            if not self.frames and not _FIELD_LINE.match(self._head):
                self.problem = self._client._unexpected(self._status, bytes(self._head), "a stream")
            else:
                self.problem = ProviderBroken("interrupted", status=self._status)
        return frames

    @abstractmethod
    def _read(self, events: list[Event]) -> list[Frame]:
        """The frames of `events`; counts them in `frames`, and sets `is_done`, `problem` and the like."""

    def _last_frames(self) -> list[Frame]:
        """What is to be given out when the bytes end."""
        return []

    def _read_odd(self, text: str, name: str) -> Any:
        """JSON with white space before it, the text of an `event: error`; None for what has to be skipped."""
        if not text:
            return None
        try:
            return read_document(text)
        except ValueError:
            if name == "error":
                return {"error": {"message": text}}
        self.skipped += 1
        self._bad += 1
        if self._bad >= MAX_BAD_FRAMES:
            self.problem = ProviderBroken(
                "unexpected_content",
                status=self._status,
                detail=errors.redact(f"{self._bad} events in a row were no JSON: {text}", self._client.secrets()),
            )
        return None

    def _end_document(self) -> list[Frame]:
        """What came is no stream: a refusal with status 200, JSON of another kind, a web page, nothing.

        Sets `problem`, or returns the frames of an answer all the same, where a dialect knows how to read it.
        """
        body = bytes(self._head)
        try:
            document = prices.loads(body)
        except ValueError:
            document = None
        if errors.has_error(document) or isinstance(document, str) or _is_error_list(document):
            self.problem = self._client.parse_error(self._status, self._headers, document)
        elif not body.strip():
            self.problem = ProviderBroken("interrupted", status=self._status)
        else:
            self.problem = self._client._unexpected(self._status, body, "a stream")
        return []


_FIELD_LINE = re.compile(rb"[\xef\xbb\xbf\s]*(data|event|id|retry)?[ \t]*(:|$)")


def _looks_like_events(head: bytes | bytearray) -> bool | None:
    """Whether a body that starts so is an event stream; None while only white space came."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return start in (b"d", b"e", b"i", b"r", b":") if start else None


def _is_error_list(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and errors.has_error(document[0])


def _cut(error: ProviderError) -> ProviderError:
    """A connection that broke after the answer began is an interruption; a deadline of ours stays one."""
    if error.code != "unreachable":
        return error
    return ProviderBroken("interrupted", status=error.status)
