"""What goes wrong on `/v1`, in the shape every OpenAI SDK reads (upstreams.md §4.4).

    {"error": {"message": str, "type": str, "param": str | null, "code": str | null}}

One table maps our codes to statuses. A provider's 401 is not our caller's 401 (F9): the caller's token was fine, so
what is wrong with an account answers 502 and says which account.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from config import hot
from providers.clients.errors import CODES, ProviderError


class Answer(NamedTuple):
    """How one code is answered: HTTP status, OpenAI error type, and whether an SDK may try again."""

    status: int
    type: str
    retry: bool


ANSWERS: dict[str, Answer] = {
    # what the caller did
    "invalid_json": Answer(400, "invalid_request_error", False),
    "invalid_request": Answer(400, "invalid_request_error", False),
    "unsupported_parameter": Answer(400, "invalid_request_error", False),
    "invalid_content_type": Answer(415, "invalid_request_error", False),
    "request_too_large": Answer(413, "invalid_request_error", False),
    "request_timeout": Answer(408, "invalid_request_error", False),
    "invalid_api_key": Answer(401, "authentication_error", False),
    "expired_api_key": Answer(401, "authentication_error", False),
    "method_not_allowed": Answer(405, "invalid_request_error", False),
    "not_found": Answer(404, "invalid_request_error", False),
    "model_not_found": Answer(404, "invalid_request_error", False),
    "too_many_requests": Answer(429, "rate_limit_exceeded", True),
    # what their accounts can do
    "no_account": Answer(403, "permission_error", False),
    "locked": Answer(502, "server_error", False),
    "key_rejected": Answer(502, "server_error", False),
    "forbidden": Answer(403, "permission_error", False),
    "no_balance": Answer(402, "insufficient_quota", False),
    "blocked_address": Answer(502, "server_error", False),
    "bad_header": Answer(502, "server_error", False),
    # what the upstream did
    "context_length_exceeded": Answer(400, "invalid_request_error", False),
    "content_filtered": Answer(400, "invalid_request_error", False),
    "bad_request": Answer(400, "invalid_request_error", False),
    "too_large": Answer(413, "invalid_request_error", False),
    "rate_limited": Answer(429, "rate_limit_exceeded", True),
    "overloaded": Answer(503, "server_error", True),
    "unreachable": Answer(502, "server_error", True),
    "tls_error": Answer(502, "server_error", False),
    "timeout": Answer(504, "server_error", True),
    "upstream_error": Answer(502, "server_error", True),
    "unexpected_redirect": Answer(502, "server_error", False),
    "unexpected_content": Answer(502, "server_error", False),
    "response_too_large": Answer(502, "server_error", False),
    "interrupted": Answer(502, "server_error", True),
    # what we could not do
    "ledger_unavailable": Answer(503, "server_error", True),
    "shutting_down": Answer(503, "server_error", True),
    "internal_error": Answer(500, "server_error", False),
}


class ApiError(hot.Refusal):
    """A refusal on `/v1`: stable code, a sentence, and the parameter it is about, if one is."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        retry: bool | None = None,
    ) -> None:
        self.answer = ANSWERS[code]
        self.code, self.message, self.param, self.retry_after = code, message, param, retry_after
        self.retry = self.answer.retry if retry is None else retry
        super().__init__(f"{code}: {message}")

    @property
    def status(self) -> int:
        return self.answer.status

    def body(self) -> bytes:
        """The JSON body, UTF-8; ASCII-escaped, so that any text of an upstream survives."""
        error = {"message": self.message, "type": self.answer.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def frame(self) -> bytes:
        """The same as one event of a stream that has begun; no `[DONE]` follows it."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> dict[str, str]:
        """SDKs retry 408, 409, 429 and ≥ 500 by themselves; `x-should-retry: false` tells them not to."""
        headers = {"content-type": "application/json", "x-should-retry": "true" if self.retry else "false"}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(0, round(self.retry_after)))
        return headers

    def response(self) -> hot.HotResponse:
        """The refusal as the dispatcher sends it."""
        return hot.HotResponse(self.status, self.headers(), self.body())


CODE_OF_STATUS = {
    400: "invalid_request",
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    500: "internal_error",
    503: "shutting_down",
}


def refusal(status: int, sentence: str, **headers: str) -> hot.HotResponse:
    """How the dispatcher words its own refusals on `/v1`: the counterpart of `config.hot.text`."""
    answer = ApiError(CODE_OF_STATUS[status], sentence).response()
    answer.headers |= {name.replace("_", "-"): value for name, value in headers.items()}
    return answer


def from_provider(error: ProviderError, *, account: str = "") -> ApiError:
    """Our caller's view of an upstream failure, naming the account it happened at."""
    message = error.public_message if error.code in CODES else "The provider failed."
    if account:
        message = f"{message} (account “{account}”)"
    code = error.code if error.code in ANSWERS else "upstream_error"
    retry = False if error.permanent and ANSWERS[code].status >= 429 else None
    return ApiError(code, message, retry_after=error.retry_after, retry=retry)
