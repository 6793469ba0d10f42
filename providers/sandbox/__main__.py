"""`python -m providers.sandbox --port 9000`: serve on 127.0.0.1 until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys

from providers.sandbox.routes import handle
from providers.sandbox.server import Server


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="providers.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one, printed as the first line")
    parser.add_argument(
        "--speed",
        type=float,
        default=float(os.environ.get("SANDBOX_SPEED") or 1),
        help="divides every pause; 0 means no pauses (SANDBOX_SPEED)",
    )
    parser.add_argument(
        "--control",
        action="store_true",
        default=os.environ.get("SANDBOX_CONTROL") == "1",
        help="for tests: remember requests, in memory, and answer /_control/ (SANDBOX_CONTROL=1)",
    )
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    server = Server(handle, speed=arguments.speed, keep=arguments.control)
    port = await server.start(arguments.port)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(_arguments()))
    except OSError as exc:
        sys.exit(f"The port cannot be used: {exc.strerror}")
