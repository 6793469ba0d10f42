"""Google's Gemini API, generateContent (upstreams.md §3.4.2), spoken to with OpenAI-shaped requests and answered so.

What is not passed on, because generateContent has no such thing or most models refuse it: `frequency_penalty`,
`presence_penalty`, `logit_bias`, `logprobs`, `top_logprobs`, `prediction`, `parallel_tool_calls`, `service_tier`,
`store`, `metadata`, `user`, `verbosity`, `strict` of tools, stop sequences after the fifth, and whatever else is not
named below. `top_k`, `safety_settings`, `cached_content` and tools that are no functions are Google's own words and go
out as they are. Code that Gemini ran by itself, and what that printed, is not shown.

Images in an answer go to `/v1` callers as `images` of the message, as OpenRouter does it, and everybody reads a short
note in their place: megabytes of base64 are no text.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, urlsplit

from providers import net
from providers.clients import errors, native
from providers.clients.base import Frame, ModelInfo, Usage, Whole
from providers.clients.errors import ProviderError, ProviderRefused
from providers.clients.openai_compatible import as_dict, as_text, count_of, limit_of, model_id_of
from providers.clients.registry import register

FORMAT = "google-gemini-v1"

ANY_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini 3 accepts in place of a signature, for tool calls that another model made."""

MAX_FILE = 14 << 20
"""Bytes of a file that a request names by its web address: a whole request may have 20 MB, and base64 adds a third."""

FETCH_DEADLINE = 20.0
MAX_FETCHES = 16

BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
"""`reasoning_effort` → tokens, for the models before 3."""

LEAST_OF_PRO = 128
"""2.5 Pro cannot be told not to think."""

_FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "LANGUAGE",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        "content_filter",
    ),
}
"""Any other word is a failure when nothing was produced, and an end like any other when something was."""

_MODEL = re.compile(r"gemini-(\d+)(?:\.(\d+))?-")
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")
_FETCHED = re.compile(r"(image|audio|video)/[a-z0-9.+-]{1,60}|application/pdf|text/plain")


def version_of(model_id: str) -> tuple[int, int] | None:
    """(2, 5) of "gemini-2.5-flash"; None for other families and for names such as gemini-flash-latest."""
    found = _MODEL.match(model_id)
    return (int(found[1]), int(found[2] or 0)) if found else None


# --- usage -----------------------------------------------------------------------------------------------------------


def read_usage(meta: Any, *, is_final: bool = True, has_output: bool = False) -> Usage | None:
    """Gemini's counts as base.Usage promises: thinking inside the completion, its own tools' prompts inside the prompt.

    A key that is missing is 0; but while an answer is under way (`is_final` False) and there is some (`has_output`), a
    missing count of candidates only says that nobody counted yet.
    """
    meta = as_dict(meta)
    prompt, total = count_of(meta.get("promptTokenCount")), count_of(meta.get("totalTokenCount"))
    if not prompt and not total:
        return None
    prompt = (prompt or 0) + (count_of(meta.get("toolUsePromptTokenCount")) or 0)
    candidates, thoughts = count_of(meta.get("candidatesTokenCount")), count_of(meta.get("thoughtsTokenCount")) or 0
    cached = count_of(meta.get("cachedContentTokenCount")) or 0
    cached_or_none = cached if cached <= prompt else None
    if candidates is None and has_output and not is_final:
        return Usage(prompt, None, None, cached_or_none)
    completion = (candidates or 0) + thoughts
    if total is not None and total >= prompt:
        completion = total - prompt
    return Usage(
        prompt, completion, prompt + completion, cached_or_none, None, thoughts if thoughts <= completion else None
    )


# --- answers ---------------------------------------------------------------------------------------------------------


class _Choice:
    """One candidate, as far as it has come."""

    __slots__ = ("call", "calls", "finish", "has_output", "message", "thoughts")

    def __init__(self) -> None:
        self.calls = self.thoughts = 0
        self.call: _Streamed | None = None
        self.finish = self.message = ""
        self.has_output = False


class _Streamed:
    """A function call whose arguments come in pieces (Vertex): a path into the object, and a value or a part of one."""

    __slots__ = ("arguments", "index")

    def __init__(self, index: int, arguments: Any) -> None:
        self.index, self.arguments = index, dict(as_dict(arguments))

    def add(self, pieces: Any) -> None:
        for piece in pieces if isinstance(pieces, list) else []:
            if not isinstance(piece, dict):
                continue
            steps = _steps(piece.get("jsonPath"))
            if not steps:
                continue
            if "stringValue" in piece:
                self._put(steps, as_text(piece["stringValue"]), is_more=True)
            elif "numberValue" in piece or "boolValue" in piece:
                self._put(steps, piece.get("numberValue", piece.get("boolValue")))
            elif "nullValue" in piece:
                self._put(steps, None)

    def _put(self, steps: list[str | int], value: Any, *, is_more: bool = False) -> None:
        place: Any = self.arguments
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if isinstance(step, int):
                if not isinstance(place, list) or step > len(place):
                    return
                if step == len(place):
                    place.append(_empty(following))
            else:
                if not isinstance(place, dict):
                    return
                place.setdefault(step, _empty(following))
            if following is None:
                known = place[step]
                place[step] = known + value if is_more and isinstance(known, str) else value
            else:
                place = place[step]


def _empty(step: str | int | None) -> Any:
    return None if step is None else [] if isinstance(step, int) else {}


_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d{1,4})\]|\[(['\"])(.*?)\3\]")


def _steps(path: Any) -> list[str | int]:
    """["a", 0, "b"] of "$.a[0].b"; nothing for a path that is none, or too deep."""
    if not isinstance(path, str) or not path.startswith("$"):
        return []
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or len(steps) == 32:
            return []
        steps.append(int(found[2]) if found[2] else found[1] or found[4] or "")
        at = found.end()
    return steps


class GenerateReader(native.NativeReader):
    """GenerateContentResponses → chunks. The stream has no end of its own: complete once a reason to finish was named.

    The reason goes out when the bytes end, since it may stand on every frame, and an error may still follow.
    """

    def __init__(self, client: GoogleClient, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(client, status, headers)
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._blocked = ""
        self._is_blocked = False
        self._cited: set[tuple[Any, ...]] = set()

    def take(self, value: dict[str, Any]) -> list[Frame]:
        write = self.write
        if not write.id:
            write.id, write.model = as_text(value.get("responseId")), as_text(value.get("modelVersion"))
        candidates = value.get("candidates")
        candidates = candidates if isinstance(candidates, list) else []
        frames: list[Frame] = []
        for candidate in candidates:
            if isinstance(candidate, dict):
                frames += self._candidate(candidate)
        feedback = as_dict(value.get("promptFeedback"))
        if not candidates and (feedback.get("blockReason") or feedback.get("blockReasonMessage")):
            self._is_blocked = self._has_finish = True
            self._blocked = as_text(feedback.get("blockReasonMessage"))
        usage = read_usage(
            value.get("usageMetadata"),
            is_final=self._has_finish,
            has_output=any(choice.has_output for choice in self._choices.values()),
        )
        if usage is not None:
            self._usage = usage  # the last one, not the sum and not the largest
            if frames:
                frames[-1].delta.usage = usage
            else:
                frames.append(write.meter(usage))
        return frames

    def _candidate(self, candidate: dict[str, Any]) -> list[Frame]:
        index = candidate.get("index")
        index = index if index.__class__ is int and 0 <= index < 128 else 0
        choice = self._choices.setdefault(index, _Choice())
        parts = as_dict(candidate.get("content")).get("parts")
        frames: list[Frame] = []
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                frames += self._part(index, choice, part)
        for found in self._citations(candidate):
            frames.append(self.write.chunk(index, annotations=[found]))
        reason = candidate.get("finishReason")
        if isinstance(reason, str) and reason not in ("", "FINISH_REASON_UNSPECIFIED"):
            choice.finish, choice.message = reason, as_text(candidate.get("finishMessage"))
            self._has_finish = True
        return frames

    def _part(self, index: int, choice: _Choice, part: dict[str, Any]) -> list[Frame]:
        text, signature = as_text(part.get("text")), as_text(part.get("thoughtSignature"))
        write = self.write
        if "functionCall" in part:
            return self._call(index, choice, as_dict(part["functionCall"]), signature)
        if part.get("thought") is True:
            if not text:
                return []
            detail = {"type": "reasoning.text", "index": choice.thoughts, "format": FORMAT, "text": text}
            return [write.chunk(index, reasoning_content=text, reasoning_details=[detail])]
        frames: list[Frame] = []
        if text:
            choice.has_output = True
            frames.append(write.chunk(index, content=text))
        elif isinstance(part.get("inlineData"), dict):
            frames += self._media(index, choice, part["inlineData"])
        if signature and "text" in part:
            frames.append(self._signature(index, choice, signature))
        return frames

    def _call(self, index: int, choice: _Choice, call: dict[str, Any], signature: str) -> list[Frame]:
        name, open_call = as_text(call.get("name")), choice.call
        if not name:
            if open_call is None:
                return []
            open_call.add(call.get("partialArgs"))
            return [] if call.get("willContinue") is True else self._finish_call(index, choice)
        frames = self._finish_call(index, choice)
        choice.has_output = True
        number, choice.calls = choice.calls, choice.calls + 1
        call_id = as_text(call.get("id")) or self._call_id(index, number)
        started = {"index": number, "id": call_id, "type": "function"}
        if call.get("willContinue") is True or "partialArgs" in call:
            choice.call = _Streamed(number, call.get("args"))
            choice.call.add(call.get("partialArgs"))
            function = {"name": name, "arguments": ""}
        else:
            function = {"name": name, "arguments": native.compact(as_dict(call.get("args")))}
        frames.append(self.write.chunk(index, tool_calls=[{**started, "function": function}]))
        if signature:
            frames.append(self._signature(index, choice, signature, call_id))
        if choice.call is not None and call.get("willContinue") is not True:
            frames += self._finish_call(index, choice)
        return frames

    def _finish_call(self, index: int, choice: _Choice) -> list[Frame]:
        call, choice.call = choice.call, None
        if call is None:
            return []
        function = {"arguments": native.compact(call.arguments)}
        return [self.write.chunk(index, tool_calls=[{"index": call.index, "function": function}])]

    def _call_id(self, index: int, number: int) -> str:
        """An id of ours, where Gemini names none: callers need one to answer the call."""
        own = re.sub(r"[^A-Za-z0-9_-]", "_", self.write.id)[:24]
        return f"call_{own}_{number}" if not index else f"call_{own}_{index}_{number}"

    def _signature(self, index: int, choice: _Choice, signature: str, call_id: str = "") -> Frame:
        choice.thoughts += 1
        detail = {"type": "reasoning.encrypted", "index": choice.thoughts, "format": FORMAT}
        detail |= {"data": self.seal.close(signature), **({"id": call_id} if call_id else {})}
        choice.thoughts += 1
        return self.write.chunk(index, reasoning_details=[detail])

    def _media(self, index: int, choice: _Choice, given: dict[str, Any]) -> list[Frame]:
        mime, data = as_text(given.get("mimeType")).lower(), as_text(given.get("data"))
        if not re.fullmatch(r"[a-z]+/[a-z0-9.+-]{1,60}", mime) or not data:
            return []
        choice.has_output = True
        size = max(1, round(len(data) * 3 / 4 / 1000))
        said: dict[str, Any] = {"content": f"[{mime.partition('/')[0]}: {mime}, {size} kB]"}
        if mime.startswith("image/"):
            said["images"] = [{"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}]
        return [self.write.chunk(index, **said)]

    def _citations(self, candidate: dict[str, Any]) -> list[dict[str, Any]]:
        """Sources named so far and not told yet: each frame repeats those of the frames before it."""
        found: list[dict[str, Any]] = []
        sources = as_dict(candidate.get("citationMetadata")).get("citationSources")
        for source in sources if isinstance(sources, list) else []:
            told = as_dict(source)
            places = {"start_index": count_of(told.get("startIndex")), "end_index": count_of(told.get("endIndex"))}
            found.append({"url": told.get("uri"), "title": as_text(told.get("title")), **places})
        grounding = as_dict(candidate.get("groundingMetadata")).get("groundingChunks")
        for item in grounding if isinstance(grounding, list) else []:
            web = as_dict(as_dict(item).get("web"))
            found.append({"url": web.get("uri"), "title": as_text(web.get("title"))})
        fresh = []
        for told in found:
            key = tuple(told.values())
            if not isinstance(told["url"], str) or not told["url"] or key in self._cited:
                continue
            self._cited.add(key)
            cited = {name: value for name, value in told.items() if value is not None}
            fresh.append({"type": "url_citation", "url_citation": cited})
        return fresh

    def _last_frames(self) -> list[Frame]:
        """The end of the answer: why it ended and what was used; or what was wrong with it."""
        if self.is_done or self.problem is not None:
            return []
        if error := self._stray_error():
            return [self.fail(error, self._usage)]
        if not self._has_finish:
            return []
        frames: list[Frame] = []
        for index, choice in sorted(self._choices.items()) or [(0, _Choice())]:
            frames += self._finish_call(index, choice)
            finish = _FINISH.get(choice.finish, "stop")
            if not choice.has_output and finish == "stop" and not self._is_blocked:
                detail = choice.message or f"{choice.finish or 'STOP'}: the answer is empty."
                detail = errors.redact(detail, self._client.secrets())
                failure = ProviderRefused("upstream_error", status=200, detail=detail, permanent=False)
                if index == 0:
                    return [*frames, self.fail(failure, self._usage)]
            said: dict[str, Any] = {}
            if self._is_blocked:
                finish = "content_filter"
                if self._blocked:
                    said["refusal"] = self._blocked
            elif finish == "stop" and choice.calls:
                finish = "tool_calls"
            frames.append(self.write.chunk(index, finish=finish, **said))
        if self._usage is not None:
            frames.append(self.write.usage(self._usage))
        self.is_done = True
        return [*frames, self.write.done()]

    def _stray_error(self) -> ProviderError | None:
        """An error that was written between the events as bare JSON (sse-gemini-error-mid-stream.txt)."""
        document = errors.document_of(re.sub(rb"^[^\[{]*", b"", bytes(self._events.stray)))
        if not errors.has_error(document):
            return None
        return self._client.parse_error(200, {}, document)

    def pieces_of(self, document: Any) -> list[dict[str, Any]]:
        """An answer in one piece, or the list that a stream is without `alt=sse`."""
        items = document if isinstance(document, list) else [document]
        known = ("candidates", "promptFeedback", "usageMetadata", "error")
        if not all(isinstance(item, dict) and any(name in item for name in known) for item in items):
            return []
        return items


# --- requests --------------------------------------------------------------------------------------------------------


def _content(role: str, parts: list[native.Part], *, needs_signatures: bool) -> dict[str, Any]:
    """One side's words. Signatures go back into the part they came with; a call's is known by the call's id."""
    signatures = {part.call_id: part.signature for part in parts if isinstance(part, native.Thought) and part.is_hidden}
    written: list[dict[str, Any]] = []
    is_first_call = True
    for part in parts:
        if isinstance(part, native.Text):
            written.append({"text": part.text})
        elif isinstance(part, native.Media):
            written.append(_media(part))
        elif isinstance(part, native.Call):
            call = {"name": part.name, "args": part.arguments, **_id(part.id)}
            signature = signatures.get(part.id) or (ANY_SIGNATURE if needs_signatures and is_first_call else "")
            written.append({"functionCall": call, **({"thoughtSignature": signature} if signature else {})})
            is_first_call = False
        elif isinstance(part, native.Result):
            written += _result(part)
    texts = [item for item in written if "text" in item]
    if texts and "" in signatures:
        texts[-1]["thoughtSignature"] = signatures[""]
    return {"role": "model" if role == "assistant" else "user", "parts": written}


def _id(call_id: str) -> dict[str, str]:
    """Gemini's own ids go back to it; those that we, or other vendors, made up mean nothing there."""
    return {"id": call_id} if call_id and not call_id.startswith(("call_", "toolu_", "chatcmpl-")) else {}


def _result(result: native.Result) -> list[dict[str, Any]]:
    try:
        value = json.loads(result.text)
    except (ValueError, RecursionError):
        value = result.text
    if result.is_error:
        value = {"error": value}
    elif not isinstance(value, dict):
        value = {"result": value}
    told = {"name": result.name or "tool", "response": value, **_id(result.call_id)}
    return [{"functionResponse": told}, *(_media(part) for part in result.parts if isinstance(part, native.Media))]


def _media(part: native.Media) -> dict[str, Any]:
    if part.data:
        return {"inlineData": {"mimeType": part.mime, "data": part.data}}
    return {"fileData": {"fileUri": part.url, **({} if part.mime.endswith("/*") else {"mimeType": part.mime})}}


def _is_googles(url: str) -> bool:
    """Addresses that Gemini reads by itself: uploaded files, and videos."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host == "generativelanguage.googleapis.com":
        return "/files/" in parts.path
    return host in ("www.youtube.com", "youtube.com", "youtu.be")


@register("google", "Google Gemini")
class GoogleClient(native.NativeClient):
    """Gemini's developer API. Vertex AI has other addresses and other keys."""

    DIALECT = "google"
    OFFICIAL = "generativelanguage.googleapis.com"
    OWN_HEADERS = frozenset({"authorization", "x-goog-api-key"})

    def url(self, path: str) -> str:
        has_version = re.search(r"/v\d+(alpha|beta)?\d*$", self.base_url)
        return f"{self.base_url if has_version else f'{self.base_url}/v1beta'}/{path}"

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key}

    # --- models

    def list_url(self, after: str = "") -> str:
        return self.url("models?pageSize=1000" + (f"&pageToken={quote(after, safe='')}" if after else ""))

    def read_page(self, document: Any) -> tuple[list[Any], str] | None:
        if not isinstance(document, dict):
            return None
        rows = document.get("models", [] if document == {} else None)
        return (rows, as_text(document.get("nextPageToken"))) if isinstance(rows, list) else None

    def parse_model(self, row: Any) -> ModelInfo | None:
        """A row; None for a model that does not answer generateContent. The list names no prices and no modalities."""
        if not isinstance(row, dict):
            raise ValueError("row is no object")
        model_id = model_id_of({"id": as_text(row.get("name")).removeprefix("models/")})
        methods = row.get("supportedGenerationMethods")
        if not isinstance(methods, list) or "generateContent" not in methods:
            return None
        kind = _type_of(model_id)
        return ModelInfo(
            model_id=model_id,
            display_name=(as_text(row.get("displayName")).strip() or model_id)[:300],
            model_name=model_id,
            description=as_text(row.get("description")),
            model_type=kind,
            capabilities=("reasoning",) if row.get("thinking") is True else (),
            output_modalities={"image": ("text", "image"), "audio": ("audio",)}.get(kind, ("text",)),
            context_window=limit_of(row.get("inputTokenLimit")),
            max_output_tokens=limit_of(row.get("outputTokenLimit")),
        )

    # --- errors

    def parse_error(self, status: int, headers: Mapping[str, str] | None, body: Any) -> ProviderError:
        """Google's words; of `details` only names and times are read, since they may hold the key itself."""
        error = super().parse_error(status, headers, body)
        told = as_dict(as_dict(errors.document_of(body)).get("error"))
        word = told.get("status")
        details = [item for item in told.get("details") or () if isinstance(item, dict)]
        reasons = {item.get("reason") for item in details}
        if "API_KEY_INVALID" in reasons or "API_KEY_EXPIRED" in reasons or "reported as leaked" in error.detail:
            return native.restated(error, "key_rejected", permanent=True)
        if error.code == "rate_limited":
            if any("PerDay" in as_text(as_dict(item).get("quotaId")) for item in _violations(details)):
                # What RetryInfo says then is not true.
                return native.restated(error, "rate_limited", permanent=True)
            return native.restated(
                error, "rate_limited", permanent=False, retry_after=_delay(details) or error.retry_after
            )
        if word == "FAILED_PRECONDITION" and error.code == "bad_request":
            return native.restated(error, "forbidden", permanent=True)  # a country without a free tier
        if word == "CANCELLED":
            return native.restated(error, "upstream_error", permanent=False)
        if word == "DEADLINE_EXCEEDED":
            return native.restated(error, "timeout", permanent=False)
        return error

    # --- chat

    def frame_reader(self, status: int, headers: Mapping[str, str]) -> GenerateReader:
        return GenerateReader(self, status, headers)

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Frame]:
        async with aclosing(super().stream(await self.with_files(body))) as frames:  # type: ignore[type-var]
            async for frame in frames:
                yield frame

    async def complete(self, body: Mapping[str, Any]) -> Whole:
        return await super().complete(await self.with_files(body))

    def chat_request(self, body: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
        model = as_text(body.get("model")).removeprefix("models/")
        conversation = native.read_conversation(body.get("messages"), self.seal)
        needs_signatures = model.startswith("gemini-") and (version_of(model) or (3, 0)) >= (3, 0)
        sent: dict[str, Any] = {}
        contents = [_content(turn.role, turn.parts, needs_signatures=needs_signatures) for turn in conversation.turns]
        sent["contents"] = [content for content in contents if content["parts"]]
        if not sent["contents"]:
            raise native.refuse("There is no message to answer.")
        if conversation.system:
            sent["systemInstruction"] = {"parts": [{"text": part.text} for part in conversation.system]}
        self._add_tools(sent, body)
        if config := self._config(model, body):
            sent["generationConfig"] = config
        if isinstance(safety := body.get("safety_settings", body.get("safetySettings")), list):
            sent["safetySettings"] = safety
        if cached := as_text(body.get("cached_content", body.get("cachedContent"))):
            sent["cachedContent"] = cached
        return self._address(model, stream), sent

    def _address(self, model: str, stream: bool) -> str:
        """The id is one step of the path, whatever it holds (S10)."""
        try:
            step = net.path_segment(model)
        except net.BadURL:
            raise ProviderRefused("model_not_found", status=404) from None
        return self.url(f"models/{step}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}")

    @staticmethod
    def _add_tools(sent: dict[str, Any], body: Mapping[str, Any]) -> None:
        functions, others = native.tools_of(body)
        if not functions and not others:
            return
        declared = [
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                **({"parametersJsonSchema": tool.schema} if tool.schema else {}),
            }
            for tool in functions
        ]
        sent["tools"] = ([{"functionDeclarations": declared}] if declared else []) + others
        choice, name = native.tool_choice_of(body)
        if choice and declared:
            told: dict[str, Any] = {"mode": {"none": "NONE", "required": "ANY"}.get(choice, "AUTO")}
            if name:
                told["allowedFunctionNames"] = [name]
            sent["toolConfig"] = {"functionCallingConfig": told}

    def _config(self, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        form, schema = native.response_format_of(body)
        seed = body.get("seed")
        modalities = body.get("modalities")
        count = native.whole_number(body.get("n"))
        config: dict[str, Any] = {
            "maxOutputTokens": native.whole_number(body.get("max_completion_tokens"), body.get("max_tokens")),
            "temperature": native.fraction(body.get("temperature"), 0.0, 2.0),
            "topP": native.fraction(body.get("top_p"), 0.0, 1.0),
            "topK": native.whole_number(body.get("top_k")),
            "stopSequences": native.stops(body.get("stop"))[:5],
            "candidateCount": min(count, 8) if count and count > 1 else None,
            "seed": seed if seed.__class__ is int and -(2**31) <= seed < 2**31 else None,
            "responseMimeType": "application/json" if form else None,
            "responseJsonSchema": schema,
            "responseModalities": [item.upper() for item in modalities if item in ("text", "image", "audio")]
            if isinstance(modalities, list) and "image" in modalities
            else None,
            "thinkingConfig": thinking_of(model, body),
        }
        return {name: value for name, value in config.items() if value not in (None, [], {})}

    def _amended(self, sent: dict[str, Any], error: ProviderError) -> dict[str, Any] | None:
        """The request once more, without what this model does not take, or with signatures it cannot read replaced."""
        if error.status != 400:
            return None
        text = error.detail.lower()
        if "thought signature" in text or "thought_signature" in text or "thoughtsignature" in text:
            contents = [
                {**content, "parts": [_unsigned(part) for part in content["parts"]]} for content in sent["contents"]
            ]
            return {**sent, "contents": contents} if contents != sent["contents"] else None
        config = as_dict(sent.get("generationConfig"))
        if ("think" in text or "thought" in text) and "thinkingConfig" in config:
            return {**sent, "generationConfig": {name: config[name] for name in config if name != "thinkingConfig"}}
        return None

    # --- files

    async def with_files(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """`body` with the files that it names by web address put in: Gemini does not fetch them reliably.

        They come through the outbound door like everything else, so that no address inside this network is read (S1),
        by https only, and only media. Raises ProviderRefused for one that cannot be had.
        """
        messages = body.get("messages")
        wanted = [
            (at, place)
            for at, message in enumerate(messages if isinstance(messages, list) else [])
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            for place, part in enumerate(message["content"])
            if _address_in(part)
        ]
        if not wanted:
            return body
        if len(wanted) > MAX_FETCHES:
            raise native.refuse(
                f"At most {MAX_FETCHES} files may be named by their address; send others as data: URLs."
            )
        changed = [dict(message) if isinstance(message, dict) else message for message in messages or ()]
        left = MAX_FILE
        for at, place in wanted:
            content = list(changed[at]["content"])
            part = content[place]
            mime, data = await self._fetch(_address_in(part), f"messages[{at}].content[{place}]", left)
            left -= len(data)
            url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
            content[place] = {"type": "image_url", "image_url": {"url": url}}
            changed[at]["content"] = content
        return {**body, "messages": changed}

    async def _fetch(self, url: str, where: str, most: int) -> tuple[str, bytes]:
        try:
            answer = await net.request("GET", url, max_bytes=max(most, 1), deadline=FETCH_DEADLINE)
        except ProviderError as error:
            reason = errors.CODES[error.code] if error.code == "blocked_address" else "It could not be fetched."
            raise native.refuse(f"{where} names a file by its address. {reason}") from None
        mime = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if answer.status != 200 or not _FETCHED.fullmatch(mime):
            raise native.refuse(f"{where} names an address where no image or document is.")
        return mime, answer.body


def _address_in(part: Any) -> str:
    """The web address in a content part that Gemini would not read by itself, or nothing."""
    given = part.get("image_url") if isinstance(part, dict) else None
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url[:8].lower().startswith(("http://", "https://")) or _is_googles(url):
        return ""
    if not url[:8].lower().startswith("https://"):
        raise native.refuse("Files are fetched by https only.")
    return url


def _unsigned(part: dict[str, Any]) -> dict[str, Any]:
    if "thoughtSignature" not in part:
        return part
    if "functionCall" in part:
        return {**part, "thoughtSignature": ANY_SIGNATURE}
    return {name: value for name, value in part.items() if name != "thoughtSignature"}


def thinking_of(model: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """`thinkingConfig` in the form this model takes: a number of tokens before 3, a level from 3 on, never both.

    Models known to think say what they thought unless told otherwise; it costs nothing more.
    """
    wish = as_dict(body.get("reasoning"))
    effort, budget = native.effort_of(body)
    version = version_of(model)
    is_pro, is_other = "-pro" in model, re.search(r"image|tts|live|lite|robotics|computer-use|audio", model)
    thinks = version is not None and version >= (2, 5) and not is_other
    if not effort:
        return {"includeThoughts": True} if thinks and wish.get("exclude") is not True else None
    if version is not None and version < (2, 5):
        return None
    if version is None and not model.startswith("gemini-"):
        return None
    config: dict[str, Any] = {"includeThoughts": effort != "none" and wish.get("exclude") is not True}
    if version is not None and version >= (3, 0) and not budget:
        level = {"none": "minimal", "xhigh": "high", "max": "high"}.get(effort, effort)
        if is_pro:
            few = {"minimal": "low", "medium": "high"} if version == (3, 0) else {"minimal": "low"}
            level = few.get(level, level)
        config["thinkingLevel"] = level
    else:
        tokens = BUDGETS[effort] if budget is None else budget
        config["thinkingBudget"] = max(tokens, LEAST_OF_PRO) if is_pro else min(tokens, 24_576)
    return config


def _violations(details: list[dict[str, Any]]) -> list[Any]:
    return [one for item in details if isinstance(item.get("violations"), list) for one in item["violations"]]


def _delay(details: list[dict[str, Any]]) -> float | None:
    """Seconds of RetryInfo's `retryDelay`, "34.4s"; at most a day."""
    for item in details:
        if found := _SECONDS.fullmatch(as_text(item.get("retryDelay"))):
            return min(float(found[1]), 86_400.0)
    return None


def _type_of(model_id: str) -> str:
    """TTS, music and image models answer generateContent as well; only their names tell."""
    if re.search(r"-tts\b|^lyria|native-audio", model_id):
        return "audio"
    if re.search(r"-image\b|banana|^imagen", model_id):
        return "image"
    if re.search(r"^(antigravity|deep-research|veo|aqa)", model_id):
        return "other"
    return "embedding" if "embedding" in model_id else "chat"
