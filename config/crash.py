"""Named places where a test may kill this process, to see what a crash leaves behind (threats.md §4)."""

import os
import signal

armed = os.environ.get("CRASH_AT", "")
"""The label to die at. Read once: asking the environment at five places was 4 % of a call of /v1."""


def crash_at(label: str) -> None:
    """End the process by SIGKILL if the environment variable CRASH_AT named this label at start; else do nothing."""
    if armed and armed == label:
        os.kill(os.getpid(), signal.SIGKILL)
