"""What an upstream can do to us, as four exceptions and one table of codes.

    ProviderError
    ├── ProviderUnreachable   nothing came back: DNS, refused, TLS, a deadline of ours, an address we do not call
    ├── ProviderRefused       an answer that says no: 4xx, 5xx, or 200 with an error body
    └── ProviderBroken        an answer that is not one: HTML, a redirect, broken frames, a cut stream

`public_message` may be shown to the account's owner; it never holds a header, a key or a raw body beyond a short
redacted excerpt. `code` is stable: rows, pages and `/v1` use it. `permanent` says that trying again is pointless.

`from_answer()` turns any upstream's refusal into one of them; `redact()` makes upstream text fit to keep and show (K5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

CODES: dict[str, str] = {
    # code: what happened and what to do, for a person
    "unreachable": "The provider could not be reached. Check the address, or try again in a moment.",
    "blocked_address": "That address is not one this server may call.",
    "bad_header": "The key or an extra header of this account cannot be sent as it is. Enter it again.",
    "tls_error": "The provider's certificate was not accepted, so nothing was sent.",
    "timeout": "The provider did not answer in time. Try again, or pick another model.",
    "key_rejected": "The provider rejected this key. Replace the key of this account.",
    "no_balance": "The provider says the balance is used up. Top it up there, or use another account.",
    "forbidden": "The provider refuses this for your key. Check the key's rights there.",
    "model_not_found": "The provider does not know this model, or your key may not use it.",
    "context_length_exceeded": "The conversation is longer than this model can read. Pick one with a larger context.",
    "content_filtered": "The provider refused this content.",
    "bad_request": "The provider did not accept the request.",
    "too_large": "The request is larger than the provider accepts.",
    "rate_limited": "The provider limits how often this key may ask. Wait a little, then retry.",
    "overloaded": "The provider is overloaded. Try again, or pick another model.",
    "upstream_error": "The provider failed while answering.",
    "unexpected_redirect": "The provider answered with a redirect, which is never followed. Check the address.",
    "unexpected_content": "The answer was not what this API promises. Check the address of the endpoint.",
    "response_too_large": "The answer was larger than is accepted, so it was cut off.",
    "interrupted": "The connection was cut before the answer was complete.",
    "locked": "The stored key does not open. Enter it again.",
}


class ProviderError(Exception):
    """An upstream call failed. Arguments after `code` are keyword-only.

    `status` is the HTTP status, if one came. `retry_after` is in seconds, if the upstream named a time.
    `detail` is the upstream's own sentence, already redacted and shortened.
    """

    permanent = True

    def __init__(
        self,
        code: str,
        *,
        detail: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        permanent: bool | None = None,
    ) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}")
        self.code, self.detail, self.status, self.retry_after = code, detail, status, retry_after
        if permanent is not None:
            self.permanent = permanent
        super().__init__(f"{code} {status or ''}".strip())

    @property
    def public_message(self) -> str:
        """A sentence for the account's owner: what happened, what to do, and what the upstream said."""
        sentence = CODES[self.code]
        return f"{sentence} It said: “{self.detail}”" if self.detail else sentence


class ProviderUnreachable(ProviderError):
    """Nothing came back. Trying again may help."""

    permanent = False


class ProviderRefused(ProviderError):
    """The upstream answered, and the answer is an error."""


class ProviderBroken(ProviderError):
    """The upstream answered something that is not an answer."""

    permanent = False


# --- upstream text -------------------------------------------------------------------------------------------------

DETAIL_LENGTH = 300
"""Characters of upstream text that are kept."""

_KEY_SHAPES = re.compile(
    r"\b(?:sk|rk|pk|gsk|xai|vck|cpk|hf|fw|nvapi|tgp_v1|pplx)[-_][A-Za-z0-9*.…_-]{4,}"  # sk-…, masked ones too
    r"|\bAIza[A-Za-z0-9_-]{10,}"
    r"|\b(?:bearer|basic)\s+[^\s\"',;]{4,}"
    r"|\b(?:authorization|x-api-key|api[-_]key)[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?[^\s\"',;]{4,}",
    re.IGNORECASE,
)
_TAGS = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^<>]{0,2000}>", re.DOTALL | re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_CUT = "[key]"


def redact(text: str, secrets: Iterable[str] = (), *, length: int = DETAIL_LENGTH) -> str:
    """Upstream `text` without `secrets` and without anything shaped like a key, on one line, at most `length` long.

    Control, direction and zero-width characters go first, so that they cannot hide a key; cutting comes last, so that
    it cannot leave half of one. Still text, not HTML: whoever shows it escapes it.
    """
    secrets = [secret for secret in secrets if len(secret) >= 4]
    for secret in secrets:
        text = text.replace(secret, _CUT)
        if "%" in text and secret in (decoded := unquote(text)):
            text = decoded.replace(secret, _CUT)
    text = text[: 64 * length]
    text = _UNPRINTABLE.sub(lambda found: " " if found[0] in "\t\r\n\v\f\x85\u2028\u2029" else "", text)
    for secret in secrets:
        text = text.replace(secret, _CUT)
    text = " ".join(_KEY_SHAPES.sub(_CUT, text).split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def excerpt(body: bytes, secrets: Iterable[str] = ()) -> str:
    """What a body that is no JSON says, for a person: the text of a page without its tags, redacted and short."""
    text = body[: 16 << 10].decode("utf-8", "replace")
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        text = _TAGS.sub(" ", text)
    return redact(text, secrets)


# --- the one table: what an upstream said -> our code --------------------------------------------------------------

_BY_WORD: dict[str, str] = {
    # the upstream's `code`, `type` or `status`, lower-cased
    "insufficient_quota": "no_balance",
    "insufficient_user_quota": "no_balance",
    "pre_consume_token_quota_failed": "no_balance",
    "insufficient_funds": "no_balance",
    "insufficient_balance": "no_balance",
    "insufficient_credits": "no_balance",
    "billing_hard_limit_reached": "no_balance",
    "billing_not_active": "no_balance",
    "budget_exceeded": "no_balance",
    "customer_verification_required": "forbidden",
    "invalid_api_key": "key_rejected",
    "authentication_error": "key_rejected",
    "unauthenticated": "key_rejected",
    "permission_denied": "forbidden",
    "permission_error": "forbidden",
    "key_model_access_denied": "forbidden",
    "model_not_found": "model_not_found",
    "model_retired": "model_not_found",
    "context_length_exceeded": "context_length_exceeded",
    "content_filter": "content_filtered",
    "content_policy_violation": "content_filtered",
    "data_inspection_failed": "content_filtered",
    "moderation_blocked": "content_filtered",
    "rate_limit_exceeded": "rate_limited",
    "rate_limit_error": "rate_limited",
    "rate_limited": "rate_limited",
    "throttling_error": "rate_limited",
    "too_many_requests": "rate_limited",
    "resource_exhausted": "rate_limited",
    "overloaded_error": "overloaded",
    "engine_overloaded": "overloaded",
    "unavailable_error": "overloaded",
    "unavailable": "overloaded",
    "unsupported_parameter": "bad_request",
    "unsupported_value": "bad_request",
    "tool_use_failed": "upstream_error",  # Groq, as a 400: the model's own tool call was malformed
}

_BY_TEXT: tuple[tuple[re.Pattern[str], frozenset[int] | None, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), statuses, code)
    for pattern, statuses, code in (
        # pattern in the upstream's sentence, the statuses it counts for (None: any), our code
        (
            r"balance[^.]{0,30}(insufficient|not enough|too low)|insufficient[^.]{0,20}(balance|quota|credit|fund)"
            r"|quota is not enough|exceeded your current quota|out of credits|requires more credits|余额不足|额度不足",
            None,
            "no_balance",
        ),
        (
            r"(incorrect|invalid|unknown|expired) api[ _-]?key|api[ _-]?key (is )?(not valid|invalid|expired)",
            None,
            "key_rejected",
        ),
        (
            r"no key provided|no auth credentials|invalid token|failed to retrieve token|token (is )?(invalid|expired)"
            r"|无效的令牌",
            frozenset({200, 400, 401, 403}),
            "key_rejected",
        ),
        (
            r"incorrect model id|no available channel|无可用渠道|no endpoints found|unknown model"
            r"|not a valid model|models?\b.{0,120}(not found|not exist)",
            frozenset({200, 400, 403, 404, 410, 422, 500, 503}),
            "model_not_found",
        ),
        (
            r"context[ _](length|window|size)|maximum context|prompt is too long|input is too long|reduce the length"
            r"|too many (input )?tokens",
            frozenset({200, 400, 413, 422, 500}),
            "context_length_exceeded",
        ),
        (r"rate[ -]?limit|too many requests|负载已饱和|throttl", frozenset({200, 400, 429, 503}), "rate_limited"),
        (r"overloaded|over capacity|loading model", None, "overloaded"),
        (
            r"content (management )?policy|prompt injection|moderation|safety system|flagged",
            frozenset({200, 400, 403, 451}),
            "content_filtered",
        ),
    )
)

_BY_STATUS: dict[int, str] = {
    400: "bad_request",
    401: "key_rejected",
    402: "no_balance",
    403: "forbidden",
    404: "unexpected_content",  # not about a model (the text said so otherwise), so about the address
    405: "unexpected_content",
    407: "forbidden",
    408: "timeout",
    409: "upstream_error",
    410: "model_not_found",
    412: "forbidden",  # Fireworks: account suspended
    413: "too_large",
    415: "bad_request",
    422: "bad_request",
    425: "overloaded",
    429: "rate_limited",
    431: "too_large",
    451: "content_filtered",
    503: "overloaded",
    504: "timeout",
    524: "timeout",
    529: "overloaded",
}

_TRANSIENT = frozenset({"timeout", "rate_limited", "overloaded", "upstream_error", "interrupted", "unreachable"})


def from_answer(
    status: int, headers: Mapping[str, str] | None, body: bytes | str | dict | list | None, secrets: Iterable[str] = ()
) -> ProviderError:
    """The error an upstream's answer means. Never raises; `headers` has lower-case names.

    `body` is the raw body or JSON already read. `status` may be 200: an error in a 200 body or inside a stream counts
    by the status it names itself, if any. The upstream's code wins over its sentence, the sentence over the status.
    """
    secrets = tuple(secrets)
    headers = headers or {}
    if isinstance(body, bytes | bytearray):
        content = _json_or_none(bytes(body))
        detail = "" if content is not None else excerpt(bytes(body), secrets)
    else:
        content, detail = body, ""
    words, sentence, meant, hints = _read_error(content)
    if sentence:
        detail = redact(sentence, secrets)
    effective = status if status >= 400 else (meant or status)
    if 300 <= status < 400:
        return ProviderBroken("unexpected_redirect", status=status, permanent=True)

    code = next((_BY_WORD[word] for word in words if word in _BY_WORD), None)
    if code is None and hints.get("is_moderation"):
        code = "content_filtered"
    if code is None:
        text = sentence or detail
        code = next(
            (
                ours
                for pattern, statuses, ours in _BY_TEXT
                if (statuses is None or effective in statuses) and pattern.search(text)
            ),
            None,
        )
    if code is None:
        code = _BY_STATUS.get(effective) or ("bad_request" if 400 <= effective < 500 else "upstream_error")

    permanent = code not in _TRANSIENT
    if isinstance(hints.get("retryable"), bool):
        permanent = not hints["retryable"]
    kind = ProviderBroken if code in ("unexpected_content", "interrupted") else ProviderRefused
    return kind(
        code,
        detail=detail,
        status=effective if effective >= 400 else status,
        retry_after=_retry_after(headers, hints.get("retry_after")),
        permanent=permanent,
    )


def has_error(document: Any) -> bool:
    """Whether a JSON document that came with 200 is a refusal: `error`, `success: false`, MiniMax's `base_resp`."""
    if not isinstance(document, dict):
        return False
    if document.get("error") or document.get("success") is False:
        return True
    base = document.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in (0, None):
        return True
    return document.get("object") == "error"


def document_of(body: Any) -> Any:
    """The JSON of an answer's body, given as bytes or already read; None if it is none. Of a list, its first object."""
    content = _json_or_none(bytes(body)) if isinstance(body, bytes | bytearray) else body
    if isinstance(content, list):
        return next((item for item in content if isinstance(item, dict)), None)
    return content


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig").strip())
    except (ValueError, RecursionError):
        return None


def _read_error(content: Any) -> tuple[list[str], str, int | None, dict[str, Any]]:
    """(code words, sentence, status named inside, hints) of an error document in any of the shapes met so far."""
    if isinstance(content, list):  # Gemini compat wraps it in an array
        content = next((item for item in content if isinstance(item, dict)), None)
    if isinstance(content, str):  # SiliconFlow: a bare JSON string
        return [], content, None, {}
    if not isinstance(content, dict):
        return [], "", None, {}
    error = content.get("error")
    if not error and isinstance(choice := _first(content.get("choices")), dict) and choice.get("error"):
        error = choice["error"]
    base = content.get("base_resp")
    if not error and isinstance(base, dict):
        error = {"code": base.get("status_code"), "message": base.get("status_msg")}
    holder = error if isinstance(error, dict) else content
    metadata, availability = _object(holder.get("metadata")), _object(holder.get("availability"))

    words: list[str] = []
    for value in (
        holder.get("code"),
        availability.get("code"),
        metadata.get("error_type"),
        holder.get("status"),
        holder.get("type"),
        content.get("code"),
    ):
        if isinstance(value, str) and value:
            words.append(value.lower())
    meant = None
    for value in (holder.get("status_code"), holder.get("code"), holder.get("http_code")):
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value) else value
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number <= 599:
            meant = number
            break

    sentence = _sentence(error if isinstance(error, str) else holder.get("message") or holder.get("msg"))
    if not sentence:
        sentence = (
            _sentence(content.get("message")) or _sentence(content.get("detail")) or _sentence(content.get("hint"))
        )
    raw = metadata.get("raw")
    if isinstance(raw, str) and raw:
        inner = _json_or_none(raw.encode("utf-8", "replace"))
        told = _read_error(inner)[1] if isinstance(inner, dict | list) else raw
        if told and told != sentence:
            sentence = f"{sentence}: {told}" if sentence else told
    hints = {
        "retryable": availability.get("retryable"),
        "retry_after": availability.get("retry_after", metadata.get("retry_after")),
        "is_moderation": "flagged_input" in metadata or "reasons" in metadata or "patterns" in metadata,
    }
    return words, sentence, meant, hints


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _sentence(value: Any) -> str:
    """A message that may be text, FastAPI's list of {msg}, or an object holding one."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _sentence(value.get("message") or value.get("detail") or value.get("msg"))
    if isinstance(value, list):
        return "; ".join(filter(None, (_sentence(item) for item in value[:5])))
    return ""


def _retry_after(headers: Mapping[str, str], hint: Any) -> float | None:
    """Seconds until it makes sense to ask again, 0 to one day, from `Retry-After(-Ms)` or the body."""
    candidates: list[float] = []
    text = str(headers.get("retry-after-ms", "")).strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text):
        candidates.append(float(text) / 1000)
    text = str(headers.get("retry-after", "")).strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text):
        candidates.append(float(text))
    elif text:
        try:
            when = parsedate_to_datetime(text)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            candidates.append((when - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError, OverflowError):
            pass
    if isinstance(hint, int | float) and not isinstance(hint, bool) and hint == hint:
        candidates.append(min(max(hint, 0), 86_400))  # before float(), which an integer may be too large for
    return float(min(max(candidates[0], 0.0), 86_400.0)) if candidates else None
