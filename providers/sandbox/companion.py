"""What `manage.py run` needs to start this upstream beside the web process."""

from __future__ import annotations

import sys

LOGICAL_HOST = "sandbox.internal:80"
"""The name accounts are bound to. Where it really listens is in the host table, so another port locks no key."""


def command(port: int) -> list[str]:
    """The argv that serves this upstream on 127.0.0.1:`port` until SIGTERM."""
    return [sys.executable, "-m", "providers.sandbox", "--port", str(port)]
