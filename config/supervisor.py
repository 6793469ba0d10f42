"""Keeps Switchboard's processes together: starts them, watches them, restarts what dies, stops them all.

`manage.py run` prepares everything with Django, then becomes this module (`python -m config.supervisor --plan FD`),
which imports nothing but the standard library: it stays small while it waits.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

QUICK_SECONDS = 5.0  # a process that ends sooner than this after its start counts as failing at once
MOST_QUICK_ENDS = 4
LONGEST_PAUSE = 10.0
HEALTHY_WITHIN = 60.0
STOP_SECONDS = 3.5  # beyond the drain; then SIGKILL


@dataclass
class Child:
    """One process: how to start it, and how it went so far.

    Companions stop last, since others talk to them until the end; what they print for their own tests is not shown.
    """

    name: str
    argv: list[str]
    env: dict[str, str]
    fds: list[int] = field(default_factory=list)
    is_companion: bool = False
    process: asyncio.subprocess.Process | None = None
    quick_ends: int = 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None


def say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201  this is the command's output


def _how(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _die_with_parent() -> None:
    """In the child, on Linux: if the supervisor is killed, its children end too instead of holding the port."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Supervisor:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.children = [Child(**child) for child in plan["children"]]
        self.stopping = asyncio.Event()
        self.exit_code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(sig, self._signalled)
        keepers = [asyncio.create_task(self._keep(child)) for child in self.children]
        announcing = asyncio.create_task(self._announce())
        await self.stopping.wait()
        announcing.cancel()
        await self._stop_all()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, announcing, return_exceptions=True)
        return self.exit_code

    def _signalled(self) -> None:
        if self.stopping.is_set():  # asked twice: at once
            for child in self.children:
                self._signal(child, signal.SIGKILL)
        else:
            say("Stopping …")
            self.stopping.set()

    def _fail(self, sentence: str) -> None:
        say(sentence)
        self.exit_code = 1
        self.stopping.set()

    async def _keep(self, child: Child) -> None:
        while not self.stopping.is_set():
            started = time.monotonic()
            try:
                child.process = await asyncio.create_subprocess_exec(
                    *child.argv,
                    env={**os.environ, **child.env},
                    pass_fds=child.fds,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL if child.is_companion else None,
                    start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone
                    preexec_fn=_die_with_parent,  # safe: this process has one thread
                )
            except OSError as exc:
                self._fail(f"The {child.name} process cannot be started: {exc.strerror}.")
                return
            code = await child.process.wait()
            if self.stopping.is_set():
                return
            lived = time.monotonic() - started
            child.quick_ends = child.quick_ends + 1 if lived < QUICK_SECONDS else 0
            if child.quick_ends >= MOST_QUICK_ENDS:
                self._fail(
                    f"The {child.name} process ended {child.quick_ends} times right after its start ({_how(code)}); "
                    "its reason stands above. Switchboard stops."
                )
                return
            pause = min(0.2 * 4**child.quick_ends, LONGEST_PAUSE)
            say(f"The {child.name} process ended ({_how(code)}). Starting it again.")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)

    # -- Telling when it is ready ------------------------------------------------------------------------------------

    async def _announce(self) -> None:
        deadline = time.monotonic() + HEALTHY_WITHIN
        while not await self._is_healthy():
            if time.monotonic() > deadline:
                self._fail(f"The web process did not answer within {HEALTHY_WITHIN:.0f} s. Switchboard stops.")
                return
            await asyncio.sleep(0.05)
        for line in self.plan["ready"]:
            say(line)

    async def _is_healthy(self) -> bool:
        request = f"GET /healthz HTTP/1.1\r\nhost: {self.plan['host']}\r\nconnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(self.plan["probe"], self.plan["port"])
                try:
                    writer.write(request.encode())
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    # -- Stopping ----------------------------------------------------------------------------------------------------

    async def _stop_all(self) -> None:
        deadline = time.monotonic() + self.plan["drain"] + STOP_SECONDS
        await self._stop([child for child in self.children if not child.is_companion], deadline)
        await self._stop([child for child in self.children if child.is_companion], max(deadline, time.monotonic() + 1))

    async def _stop(self, children: list[Child], deadline: float) -> None:
        for child in children:
            self._signal(child, signal.SIGTERM)
        waits = [asyncio.create_task(child.process.wait()) for child in children if child.process]
        if not waits:
            return
        _, late = await asyncio.wait(waits, timeout=max(0.1, deadline - time.monotonic()))
        if late:
            for child in children:
                self._signal(child, signal.SIGKILL)
            await asyncio.wait(late)

    @staticmethod
    def _signal(child: Child, sig: signal.Signals) -> None:
        if child.is_running and child.process is not None:
            with suppress(ProcessLookupError):
                child.process.send_signal(sig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=int, required=True, help="descriptor from which to read the plan (JSON)")
    options = parser.parse_args()
    with os.fdopen(options.plan) as file:
        plan = json.load(file)
    sys.exit(asyncio.run(Supervisor(plan).run()))


if __name__ == "__main__":
    main()
