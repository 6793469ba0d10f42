"""What the clients of native protocols share: conversations read from the OpenAI shape, answers written in it.

A provider with a protocol of its own (upstreams.md §3.4) speaks to the rest of the product through two translations.
Requests: `read_conversation` takes an OpenAI-shaped message list apart once, strictly, and each client writes it down
in its own shape. Answers: a client's reader turns each upstream event into chunks of the OpenAI shape (`ChunkWriter`),
so that the chat and `/v1` pass on and meter them like any other.

Thinking that must come back. Both protocols sign what a model thought, and want it back unchanged in tool loops. It
travels as `reasoning_details`, in the shape OpenRouter made common, next to the readable `reasoning_content`:

    {"type": "reasoning.text", "index": 0, "format": "…", "text": "…", "signature": "sb1.…"}
    {"type": "reasoning.encrypted", "index": 1, "format": "…", "data": "sb1.…", "id": "the tool call it belongs to"}

`Seal` marks each signature with the endpoint it came from, inside the opaque text that callers hand back as it is: a
signature from elsewhere is refused upstream, so what is not ours is left out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import uuid4

from providers import net
from providers.clients import endpoint, errors
from providers.clients.base import Delta, Frame, ModelList, Probe, ToolCallDelta, Usage, Whole
from providers.clients.endpoint import MAX_ANSWER, MAX_LIST, EndpointClient, read_document, scan_json
from providers.clients.errors import ProviderBroken, ProviderError, ProviderRefused
from providers.clients.openai_compatible import as_dict, as_text, storable
from providers.clients.sse import Event, EventReader

MAX_PAGES = 20
"""Pages read of a model list."""

MAX_EVENT = 24 << 20
"""Bytes of one event: images come whole, as base64."""


def refuse(sentence: str) -> ProviderRefused:
    """What cannot be said in the provider's protocol, found before anything was sent."""
    return ProviderRefused("bad_request", status=400, detail=sentence)


def restated(error: ProviderError, code: str, *, permanent: bool, retry_after: float | None = None) -> ProviderRefused:
    """`error` under another code of ours, where the protocol's own words say more than the common table knows."""
    return ProviderRefused(code, detail=error.detail, status=error.status, retry_after=retry_after, permanent=permanent)


# --- requests: the conversation --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """`cache_control`, where the caller set it."""


@dataclass(frozen=True, slots=True)
class Media:
    """An image, a sound or a document: `data` is base64, or empty when only a web address was given."""

    mime: str
    data: str = ""
    url: str = ""
    name: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """image, audio, video, text, application."""
        return self.mime.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    call_id: str
    name: str
    parts: tuple[Text | Media, ...]
    is_error: bool = False

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of thinking that came from this endpoint; `signature` is unsealed."""

    text: str
    signature: str
    is_hidden: bool = False
    call_id: str = ""


Part = Text | Media | Call | Result | Thought


@dataclass(slots=True)
class Turn:
    """Everything one side says before the other does: neighbours of one role are one turn."""

    role: str
    parts: list[Part] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    system: list[Text] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def add(self, role: str, parts: Iterable[Part]) -> None:
        parts = list(parts)
        if not parts:
            return
        if self.turns and self.turns[-1].role == role:
            self.turns[-1].parts += parts
        else:
            self.turns.append(Turn(role, parts))


class Seal:
    """Marks signatures with the endpoint they are from. Not a secret: it keeps them from going to another one."""

    _FORM = re.compile(r"sb1\.([0-9a-f]{12})\.(.*)", re.DOTALL)

    def __init__(self, dialect: str, origin: str) -> None:
        self._mark = hashlib.sha256(f"{dialect} {origin}".encode()).hexdigest()[:12]

    def close(self, signature: str) -> str:
        return f"sb1.{self._mark}.{signature}"

    def open(self, sealed: Any) -> str:
        """The signature, or nothing if it is not from here."""
        found = self._FORM.fullmatch(sealed) if isinstance(sealed, str) else None
        return found[2] if found and found[1] == self._mark else ""


def read_conversation(messages: Any, seal: Seal) -> Conversation:
    """An OpenAI-shaped message list, taken apart. Raises ProviderRefused, naming the message at fault.

    System and developer messages are gathered, wherever they stand. Texts of white space alone are left out: neither
    protocol takes them. Thinking is kept only where it is sealed by `seal`.
    """
    if not isinstance(messages, list):
        raise refuse("“messages” must be a list.")
    conversation = Conversation()
    names: dict[str, str] = {}  # tool call id → function: a result must name it
    old_call = 0  # functions before there were tool calls: no ids
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            raise refuse(f"messages[{position}] is not an object.")
        role, where = message.get("role"), f"messages[{position}]"
        content = message.get("content")
        if role in ("system", "developer"):
            conversation.system += [part for part in _parts(content, where) if isinstance(part, Text)]
        elif role == "user":
            conversation.add("user", _parts(content, where))
        elif role == "assistant":
            parts: list[Part] = list(_thoughts(message.get("reasoning_details"), seal))
            parts += _parts(content, where)
            if not content and isinstance(message.get("refusal"), str):
                parts += _parts(message["refusal"], where)
            calls = message.get("tool_calls")
            for call in calls if isinstance(calls, list) else []:
                function = as_dict(as_dict(call).get("function"))
                read = Call(as_text(as_dict(call).get("id")), as_text(function.get("name")), _arguments(function))
                names[read.id] = read.name
                parts.append(read)
            if function := as_dict(message.get("function_call")):
                old_call += 1
                parts.append(Call(f"call_old_{old_call}", as_text(function.get("name")), _arguments(function)))
            conversation.add("assistant", parts)
        elif role in ("tool", "function"):
            call_id = as_text(message.get("tool_call_id")) if role == "tool" else f"call_old_{old_call}"
            name = names.get(call_id) or as_text(message.get("name"))
            told = tuple(part for part in _parts(content, where) if isinstance(part, Text | Media))
            conversation.add("user", [Result(call_id, name, told, message.get("is_error") is True)])
        else:
            raise refuse(f"{where} has a role this provider does not know.")
    if not conversation.turns:
        raise refuse("There is no message to answer.")
    return conversation


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments as an object: what is no JSON object is wrapped into one, since models write such things."""
    given = function.get("arguments")
    if isinstance(given, dict):
        return given
    if not isinstance(given, str) or not given.strip():
        return {}
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        value = given
    return value if isinstance(value, dict) else {"arguments": value}


def _thoughts(details: Any, seal: Seal) -> list[Thought]:
    """The thinking of an assistant message that came from this endpoint. Pieces of one block are joined again."""
    found: list[Thought] = []
    text, key = "", None
    for item in details if isinstance(details, list) else []:
        if not isinstance(item, dict):
            continue
        if item.get("type") == "reasoning.encrypted":
            if signature := seal.open(item.get("data")):
                found.append(Thought("", signature, is_hidden=True, call_id=as_text(item.get("id"))))
            continue
        if item.get("type") != "reasoning.text":
            continue
        if item.get("index") != key:
            text, key = "", item.get("index")
        text += as_text(item.get("text"))
        if item.get("signature"):
            if signature := seal.open(item["signature"]):
                found.append(Thought(text, signature))
            text = ""
    return found


def _parts(content: Any, where: str) -> list[Text | Media]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content.strip() else []
    if not isinstance(content, list):
        raise refuse(f"{where}.content must be text or a list of parts.")
    found: list[Text | Media] = []
    for at, part in enumerate(content):
        here = f"{where}.content[{at}]"
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, dict):
            raise refuse(f"{here} is not an object.")
        kind = part.get("type")
        extra = {"cache_control": part["cache_control"]} if isinstance(part.get("cache_control"), dict) else {}
        if kind in ("text", "input_text", "output_text", "refusal"):
            text = as_text(part.get("text")) or as_text(part.get("refusal"))
            if text.strip():
                found.append(Text(text, extra))
        elif kind in ("image_url", "input_image"):
            given = part.get("image_url")
            url = given.get("url") if isinstance(given, dict) else given
            found.append(replace(_media(url, here, "image/*"), extra=extra))
        elif kind in ("file", "input_file"):
            found.append(replace(_file(as_dict(part.get("file")) or part, here), extra=extra))
        elif kind == "input_audio":
            sound = as_dict(part.get("input_audio"))
            found.append(Media(f"audio/{_word(sound.get('format'), 'wav')}", data=_base64(sound.get("data"), here)))
        elif kind in ("thinking", "reasoning"):
            continue  # no signature that we could vouch for
        else:
            raise refuse(f"{here} is of a type this provider does not take.")
    return found


def _file(given: Mapping[str, Any], where: str) -> Media:
    name = as_text(given.get("filename"))[:200]
    data = given.get("file_data")
    if not isinstance(data, str) or not data:
        raise refuse(
            f"{where} must hold the file itself, as base64 in “file_data”; ids of uploaded files are not known."
        )
    if data.startswith(("data:", "http://", "https://")):
        return replace(_media(data, where, "application/pdf"), name=name)
    kind = "text/plain" if name.lower().endswith((".txt", ".md", ".csv")) else "application/pdf"
    return Media(kind, data=_base64(data, where), name=name)


_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,(.*)", re.DOTALL | re.IGNORECASE)


def _media(url: Any, where: str, kind: str) -> Media:
    """What a URL holds (`data:`) or points to; `kind` is what it is if it does not say."""
    if not isinstance(url, str) or not url:
        raise refuse(f"{where} has no address.")
    if url[:8].lower().startswith(("http://", "https://")):
        return Media(kind, url=url)
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise refuse(f"{where} must be a data: URL or a web address.")
    mime = (found[1] or ("text/plain" if kind == "image/*" else kind)).lower()
    if found[3]:
        return Media(mime, data=_base64(found[4], where))
    return Media(mime, data=base64.b64encode(unquote_to_bytes(found[4])).decode())


def _base64(data: Any, where: str) -> str:
    if not isinstance(data, str) or not data:
        raise refuse(f"{where} holds no data.")
    data = "".join(data.split())
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise refuse(f"{where} is not base64.") from None
    return data


def _word(value: Any, otherwise: str) -> str:
    return value.lower() if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,40}", value) else otherwise


# --- requests: single fields -----------------------------------------------------------------------------------------


def whole_number(*values: Any) -> int | None:
    """The first positive whole number."""
    return next((value for value in values if value.__class__ is int and value > 0), None)


def fraction(value: Any, lowest: float, highest: float) -> float | None:
    """A number, held between two others; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return min(max(value, lowest), highest)


def stops(value: Any) -> list[str]:
    """`stop` as a list, without those of white space alone, which neither protocol takes."""
    value = [value] if isinstance(value, str) else value
    return [item for item in value if isinstance(item, str) and item.strip()] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    schema: dict[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


def tools_of(body: Mapping[str, Any]) -> tuple[list[Tool], list[dict[str, Any]]]:
    """(functions, tools of other kinds, which are the provider's own) of `tools`, or of the old `functions`."""
    functions: list[Tool] = []
    others: list[dict[str, Any]] = []
    given = body.get("tools")
    if not isinstance(given, list):
        old = body.get("functions")
        given = [{"type": "function", "function": item} for item in old] if isinstance(old, list) else []
    for at, item in enumerate(given):
        if not isinstance(item, dict):
            raise refuse(f"tools[{at}] is not an object.")
        function = item.get("function")
        if not isinstance(function, dict):
            if item.get("type") == "function":
                raise refuse(f"tools[{at}] has no function.")
            others.append(item)
            continue
        extra = {"cache_control": item["cache_control"]} if isinstance(item.get("cache_control"), dict) else {}
        functions.append(
            Tool(
                as_text(function.get("name")),
                as_text(function.get("description")),
                as_dict(function.get("parameters")),
                extra,
            )
        )
    return functions, others


def tool_choice_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """(auto, none, required, or "" for nothing said; and the one function that must be called)."""
    choice = body.get("tool_choice", body.get("function_call"))
    if isinstance(choice, str):
        return (choice, "") if choice in ("auto", "none", "required") else ("required" if choice == "any" else "", "")
    if isinstance(choice, dict):
        name = as_text(as_dict(choice.get("function")).get("name")) or as_text(choice.get("name"))
        if name:
            return "required", name
        mode = as_dict(choice.get("allowed_tools")).get("mode", choice.get("mode"))
        return (mode, "") if mode in ("auto", "required") else ("", "")
    return "", ""


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def effort_of(body: Mapping[str, Any]) -> tuple[str, int | None]:
    """(how hard to think: one of EFFORTS, or "" for nothing said; tokens for it, if the caller named a number).

    `reasoning_effort`, or `reasoning: {effort, max_tokens, enabled}` as OpenRouter's callers write it.
    """
    wish = as_dict(body.get("reasoning"))
    effort = body.get("reasoning_effort") or wish.get("effort") or ""
    effort = effort.lower() if isinstance(effort, str) else ""
    budget = whole_number(wish.get("max_tokens"))
    if effort not in EFFORTS:
        effort = "medium" if budget or wish.get("enabled") is True else ""
    if wish.get("enabled") is False:
        return "none", None
    return effort, budget


def response_format_of(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """("json_schema", the schema), ("json_object", {}) or ("", {})."""
    wish = as_dict(body.get("response_format"))
    if wish.get("type") == "json_schema":
        schema = as_dict(as_dict(wish.get("json_schema")).get("schema"))
        return "json_schema" if schema else "json_object", schema
    return ("json_object", {}) if wish.get("type") == "json_object" else ("", {})


# --- answers ---------------------------------------------------------------------------------------------------------


def usage_json(usage: Usage) -> dict[str, Any]:
    """`usage` in the OpenAI shape; what is unknown is left out."""
    into = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    out = {"reasoning_tokens": usage.reasoning_tokens}
    given = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {name: value for name, value in into.items() if value is not None},
        "completion_tokens_details": {name: value for name, value in out.items() if value is not None},
    }
    return {name: value for name, value in given.items() if value is not None and value != {}}


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_escape = json.JSONEncoder(separators=(",", ":")).encode


def compact(value: Any) -> str:
    """JSON on one line, characters as they are."""
    return _encode(value)


def framed(value: Any) -> bytes:
    """JSON as one event. Half surrogate pairs go as escapes, since they have no UTF-8."""
    try:
        return f"data: {_encode(value)}\n\n".encode()
    except UnicodeEncodeError:
        return f"data: {_escape(value)}\n\n".encode()


class ChunkWriter:
    """Writes one answer as `chat.completion.chunk` frames: one id, model and time for all of them."""

    def __init__(self) -> None:
        self.id = self.model = ""
        self.created = int(time.time())
        self._has_named_itself = False
        self._spoke: set[int] = set()
        self._held: dict[tuple[int, str], str] = {}
        self.has_text = False
        """Whether the first choice said anything so far."""

    def chunk(
        self,
        choice: int = 0,
        *,
        finish: str | None = None,
        usage: Usage | None = None,
        **said: Any,
    ) -> Frame:
        """A frame whose `delta` holds `said` (content, reasoning_content, reasoning_details, tool_calls, images, …).

        A `refusal`, why there is no answer, is read as its text if there is no other.

        Texts are made fit to store: no NUL, no half surrogate pairs, whose first halves wait for the next piece.
        Choices other than the first go out, but are not read into the Delta, as everywhere (openai_compatible.py).
        """
        for name in ("content", "reasoning_content", "refusal"):
            if name in said and (not said[name].isascii() or "\0" in said[name] or (choice, name) in self._held):
                said[name], held = storable(self._held.pop((choice, name), "") + said[name])
                if held:
                    self._held[choice, name] = held
        if choice not in self._spoke:
            self._spoke.add(choice)
            said = {"role": "assistant", "content": "", **said}
        data = self._head()
        data["choices"] = [{"index": choice, "delta": said, "logprobs": None, "finish_reason": finish}]
        if choice:
            return self._frame(data, Delta(usage=usage))
        text = said.get("content") or ("" if self.has_text else said.get("refusal", ""))
        self.has_text = self.has_text or bool(text)
        calls = said.get("tool_calls")
        read = Delta(
            text,
            said.get("reasoning_content", ""),
            tuple(map(_call_of, calls)) if calls else (),
            finish,
            usage,
            annotations=tuple(said.get("annotations", ())),
        )
        return self._frame(data, read)

    def usage(self, usage: Usage) -> Frame:
        """The last chunk of a stream: no choices, and what was used."""
        return self._frame({**self._head(), "choices": [], "usage": usage_json(usage)}, Delta(usage=usage))

    def error(self, error: ProviderError, usage: Usage | None = None) -> Frame:
        """An error inside the stream. What goes out is our sentence, never the upstream's document."""
        told = {"message": error.public_message, "type": error.code, "param": None, "code": error.code}
        return Frame(framed({"error": told}), {"error": told}, Delta(usage=usage, error=error))

    @staticmethod
    def meter(usage: Usage) -> Frame:
        """What was used so far, for whoever counts; nothing for readers."""
        return Frame(b"", None, Delta(usage=usage))

    @staticmethod
    def done() -> Frame:
        return Frame(b"data: [DONE]\n\n", None, Delta(), True)

    def _head(self) -> dict[str, Any]:
        self.id = self.id or f"chatcmpl-{uuid4().hex}"
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _frame(self, data: dict[str, Any], delta: Delta) -> Frame:
        if not self._has_named_itself:
            self._has_named_itself = True
            delta = replace(delta, id=self.id, model=self.model)
        return Frame(framed(data), data, delta)


def _call_of(call: dict[str, Any]) -> ToolCallDelta:
    function = call["function"]
    return ToolCallDelta(call["index"], call.get("id", ""), function.get("name", ""), function["arguments"])


class NativeReader(endpoint.FrameReader):
    """Reads a native protocol's stream into chunks. Subclasses know what an event means."""

    MAX_DOCUMENT = MAX_ANSWER

    def __init__(self, client: NativeClient, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(client, status, headers)
        self._events = EventReader(MAX_EVENT)
        self.seal = client.seal
        self.write = ChunkWriter()

    @abstractmethod
    def take(self, value: dict[str, Any]) -> list[Frame]:
        """The frames of one event that is no error. Sets `is_done` or `_has_finish` at the answer's own end."""

    def _read(self, events: list[Event]) -> list[Frame]:
        frames: list[Frame] = []
        key = self._key
        for _, name, text in events:
            if self.is_done:
                break
            if key and key in text:  # K5: an upstream that echoes the key
                text = text.replace(key, "[key]")
            for _, secret in self._others:
                text = text.replace(secret, "[key]")
            try:
                value, end = scan_json(text, 0)
                if end != len(text) and not text[end:].isspace():
                    raise ValueError
            except (StopIteration, ValueError, RecursionError):
                stripped = text.strip()
                if stripped == "[DONE]":  # some relays write it; it proves nothing here
                    continue
                value = self._read_odd(stripped, name)
                if value is None:
                    if self.problem is not None:
                        break
                    continue
            self._bad = 0
            frames += self.read_value(value, is_error=name == "error")
        self.frames += len(frames)
        return frames

    def read_value(self, value: Any, *, is_error: bool = False) -> list[Frame]:
        """The frames of one event's JSON, whatever it is."""
        if not isinstance(value, dict):
            if not is_error:
                return []
            value = {"error": value if isinstance(value, str) else {"message": ""}}
        if is_error or value.get("error"):
            return [self.fail(self._client.parse_error(200, {}, value))]
        return self.take(value)

    def fail(self, error: ProviderError, usage: Usage | None = None) -> Frame:
        """An error frame; nothing after it is read."""
        self.is_done = self._has_error = True
        return self.write.error(error, usage)

    def _end_document(self) -> list[Frame]:
        """JSON that came instead of a stream: an answer in one piece, or a list of pieces, is one all the same."""
        body = bytes(self._head)
        if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            try:
                document = read_document(self._client._without_secrets(body).decode("utf-8-sig").strip())
            except ValueError:
                document = None
            is_refusal = errors.has_error(errors.document_of(document))
            if not is_refusal and (pieces := self.pieces_of(document)):
                frames = [frame for piece in pieces for frame in self.read_value(piece)]
                self.frames += len(frames)
                return frames
        return super()._end_document()

    def pieces_of(self, document: Any) -> list[dict[str, Any]]:
        """The events that a JSON document stands for; none if it is no answer."""
        return []


def assembled(frames: list[Frame]) -> Whole:
    """Frames of one whole answer, as `chat.completion` and as one Delta."""
    choices: dict[int, dict[str, Any]] = {}
    whole = Delta()
    head: dict[str, Any] = {}
    usage: dict[str, Any] | None = None
    for frame in frames:
        delta = frame.delta
        whole = replace(
            whole,
            text=whole.text + delta.text,
            reasoning=whole.reasoning + delta.reasoning,
            finish_reason=delta.finish_reason or whole.finish_reason,
            usage=delta.usage or whole.usage,
            model=whole.model or delta.model,
            id=whole.id or delta.id,
            annotations=whole.annotations + delta.annotations,
        )
        if frame.data is None:
            continue
        head = head or {**frame.data, "object": "chat.completion"}
        usage = frame.data.get("usage") or usage
        for choice in frame.data.get("choices", ()):
            _join(choices.setdefault(choice["index"], {"message": {"role": "assistant", "content": None}}), choice)
    calls = choices.get(0, {}).get("message", {}).get("tool_calls", ())
    whole = replace(
        whole,
        tool_calls=tuple(
            ToolCallDelta(at, call["id"], call["function"]["name"], call["function"]["arguments"])
            for at, call in enumerate(calls)
        ),
    )
    head["choices"] = [
        {
            "index": index,
            "message": {"refusal": None, "annotations": [], **choice["message"]},
            "logprobs": None,
            "finish_reason": choice.get("finish_reason") or "stop",
        }
        for index, choice in sorted(choices.items())
    ]
    if usage is not None:
        head["usage"] = usage
    return Whole(head, whole)


def _join(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a chunk's choice to a whole answer's."""
    message = choice["message"]
    choice["finish_reason"] = piece["finish_reason"] or choice.get("finish_reason")
    for name, value in piece["delta"].items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for call in value:
                if call["index"] >= len(calls):
                    calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
                known = calls[call["index"]]
                known["id"] = known["id"] or call.get("id", "")
                known["function"]["name"] = known["function"]["name"] or call["function"].get("name", "")
                known["function"]["arguments"] += call["function"]["arguments"]
        elif name == "reasoning_details":
            _join_details(message.setdefault("reasoning_details", []), value)
        elif isinstance(value, list):
            message[name] = [*message.get(name, ()), *value]
        elif name == "content":
            message["content"] = ((message["content"] or "") + value) or None
        elif name != "role":
            message[name] = (message.get(name) or "") + value


def _join_details(known: list[dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    for piece in pieces:
        last = known[-1] if known else {}
        if last.get("type") == piece["type"] == "reasoning.text" and last.get("index") == piece.get("index"):
            known[-1] = {**last, **piece, "text": last.get("text", "") + piece.get("text", "")}
        else:
            known.append(dict(piece))


# --- the client ------------------------------------------------------------------------------------------------------


class NativeClient(EndpointClient):
    """A client of a native protocol. It reads EndpointClient's `options`."""

    DIALECT = ""
    OFFICIAL = ""
    """Host of the vendor itself, whose list is known to need a key."""

    @property
    def seal(self) -> Seal:
        return Seal(self.DIALECT, net.origin_of(self.base_url))

    # --- models

    @abstractmethod
    def list_url(self, after: str = "") -> str:
        """Where a page of the list is; `after` is what `next_page` gave."""

    @abstractmethod
    def read_page(self, document: Any) -> tuple[list[Any], str] | None:
        """(rows, where to go on or "") of a page; None if this is no list."""

    async def list_models(self, *, etag: str = "") -> ModelList:
        rows: list[Any] = []
        after, seen = "", set[str]()
        while True:
            response = await net.request("GET", self.list_url(after), headers=self.headers(), max_bytes=MAX_LIST)
            page = self.read_page(self._read_json(response, is_list=True))
            if page is None:
                raise self._unexpected(response.status, response.body, "a list of models")
            rows += page[0]
            after = page[1]
            if not after:
                break
            if after in seen or len(seen) >= MAX_PAGES:
                # Half a list would take the other half's models out of the catalog.
                raise ProviderBroken("unexpected_content", status=response.status, detail="a list without an end")
            seen.add(after)
        models, skipped = self.read_rows(rows)
        return ModelList(models=models, skipped=skipped)

    # --- probing

    async def probe(self) -> Probe:
        """The list needs the key and costs nothing. Elsewhere than at the vendor's, a wrong key is tried as well."""
        request = "GET /models"
        try:
            response = await self.ask("GET", self.list_url(), self._api_key)
            page = self.read_page(self._read_json(response, is_list=True))
            if page is None:
                raise self._unexpected(response.status, response.body, "a list of models")
            models = self.read_rows(page[0])[0]
            if not self._api_key:
                verdict = Probe("valid", request, "No key was needed.")
            elif self.host == self.OFFICIAL or await self.refuses("GET", self.list_url()):
                verdict = Probe("valid", request, "The provider accepted the key.")
            else:
                reason = "The list of models is public here, so it does not show whether the key is good."
                verdict = Probe("unverified", request, reason)
            return verdict.with_models(models)
        except ProviderError as error:
            return self._verdict_of(error, request)

    async def list_is_proof(self) -> bool:
        try:
            known = not self._api_key or self.host == self.OFFICIAL
            return known or await self.refuses("GET", self.list_url())
        except ProviderError:
            return False

    # --- chat

    @abstractmethod
    def frame_reader(self, status: int, headers: Mapping[str, str]) -> NativeReader: ...

    async def complete(self, body: Mapping[str, Any]) -> Whole:
        response, _ = await self.whole_answer(body)
        # Read again: fractions as Decimal are right for money, and nothing to write down again.
        document = read_document(self._without_secrets(response.body).decode("utf-8-sig").strip())
        reader = self.frame_reader(response.status, response.headers)
        frames: list[Frame] = []
        for piece in reader.pieces_of(document):
            frames += reader.read_value(piece)
        if not frames and not reader.is_over:
            raise self._unexpected(response.status, response.body, "an answer")
        frames += reader._last_frames()
        for frame in frames:
            if frame.delta.error is not None:
                raise frame.delta.error
        return assembled(frames)
