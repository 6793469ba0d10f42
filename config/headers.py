"""What every response tells the browser (X8, I22): pages, static files, errors, hot routes alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Pages get their nonce policy from django-csp; what has none is not a document, so nothing may load or frame it.
FALLBACK_POLICY = "default-src 'none'; frame-ancestors 'none'"
PERMISSIONS = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "usb",
    )
)


def defaults() -> tuple[tuple[bytes, bytes], ...]:
    """The headers a response gets unless it brings its own of that name."""
    headers = {
        "content-security-policy": FALLBACK_POLICY,
        "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": settings.SECURE_REFERRER_POLICY,
        "permissions-policy": PERMISSIONS,
        "x-frame-options": settings.X_FRAME_OPTIONS,
        "cache-control": "no-store",  # private unless it says otherwise; hashed static files do (X9)
    }
    if settings.SECURE_HSTS_SECONDS:
        headers["strict-transport-security"] = (
            f"max-age={settings.SECURE_HSTS_SECONDS}"
            + ("; includeSubDomains" if settings.SECURE_HSTS_INCLUDE_SUBDOMAINS else "")
            + ("; preload" if settings.SECURE_HSTS_PRELOAD else "")
        )
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def sending(send: Send, request_id: str, defaults: tuple[tuple[bytes, bytes], ...]) -> Send:
    """`send`, with the missing headers added to the response's start."""
    own = (b"x-request-id", request_id.encode())

    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers.extend(pair for pair in defaults if pair[0] not in present)
            headers.append(own)
            message = {**message, "headers": headers}
        await send(message)

    return wrapped
