"""What an upstream can do to us, as four exceptions and one table of codes.

    ProviderError
    ├── ProviderUnreachable   nothing came back: DNS, refused, TLS, a deadline of ours, an address we do not call
    ├── ProviderRefused       an answer that says no: 4xx, 5xx, or 200 with an error body
    └── ProviderBroken        an answer that is not one: HTML, a redirect, broken frames, a cut stream

`public_message` may be shown to the account's owner; it never holds a header, a key or a raw body beyond a short
redacted excerpt. `code` is stable: rows, pages and `/v1` use it. `permanent` says that trying again is pointless.
"""

from __future__ import annotations

CODES: dict[str, str] = {
    # code: what happened and what to do, for a person
    "unreachable": "The provider could not be reached. Check the address, or try again in a moment.",
    "blocked_address": "That address is not one this server may call.",
    "tls_error": "The provider's certificate was not accepted, so nothing was sent.",
    "timeout": "The provider did not answer in time. Try again, or pick another model.",
    "key_rejected": "The provider rejected this key. Replace the key of this account.",
    "no_balance": "The provider says the balance is used up. Top it up there, or use another account.",
    "forbidden": "The provider refuses this for your key. Check the key's rights there.",
    "model_not_found": "The provider does not know this model, or your key may not use it.",
    "context_length_exceeded": "The conversation is longer than this model can read. Pick a model with a larger context.",
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
