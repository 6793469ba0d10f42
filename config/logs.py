"""Log lines: which request they belong to, and no secret in them (K4's second line; the first is not to log any)."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_SECRETS = (
    re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=\-]{6,}"),
    re.compile(r"(?i)\b((?:x-)?api[-_]?key[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]{6,}"),
    # A provider's key: sk-…, sk-or-v1-…, sk-ant-…; what says whose key it is may stay.
    re.compile(r"\b(sk-(?:[a-z][a-z0-9]{0,5}-){0,2})[A-Za-z0-9_\-]{8,}"),
    re.compile(r"(/setup/)[A-Za-z0-9_\-]{16,}"),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a credential replaced by ••••."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1••••", text)
    return text


class Formatter(logging.Formatter):
    """Formats, then redacts the finished line, so that arguments and tracebacks are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return redact(super().format(record))
