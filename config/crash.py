"""Named places where a test may kill this process, to see what a crash leaves behind (threats.md §4)."""

import os
import signal


def crash_at(label: str) -> None:
    """End the process by SIGKILL if the environment variable CRASH_AT names this label; else do nothing."""
    if os.environ.get("CRASH_AT") == label:
        os.kill(os.getpid(), signal.SIGKILL)
