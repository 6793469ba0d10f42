"""Uses the door from many event loops, with every warning an error, and prints what was left open.

A process of its own, so that interpreter shutdown is part of the test: `python -m tests.providers.net.loops_probe`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import time
import warnings
from pathlib import Path

import psutil
import uvloop
from asgiref.sync import async_to_sync

from providers import net
from tests.providers.net.raw_upstream import RawUpstream


async def work(url: str) -> None:
    """One of each call, a stream left in the middle, and a few at once."""
    await net.request("GET", url)
    async with net.open_stream("POST", url, headers={}, content=b"{}") as stream:
        async for _ in stream.chunks():
            break
    await asyncio.gather(*(net.request("GET", url) for _ in range(5)))


def serve(ready: threading.Event, told: dict, stop: threading.Event) -> None:
    async def main() -> None:
        async with RawUpstream() as upstream:
            told["url"], told["target"] = upstream.url, upstream.target
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)

    asyncio.run(main())


def descriptors(at_most: int) -> int:
    """Open descriptors once there are `at_most` of them, or after two seconds: the server's own ends of the connections
    are closed in its thread, when that has its turn."""
    for _ in range(100):
        if psutil.Process().num_fds() <= at_most:
            break
        time.sleep(0.02)
    return psutil.Process().num_fds()


def main() -> None:
    warnings.simplefilter("error")
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # leaks are errors; slow callbacks are this machine's affair
    unraisable: list[str] = []
    sys.unraisablehook = lambda it: unraisable.append(f"{it.exc_value!r} in {it.object!r}")
    ready, stop, told = threading.Event(), threading.Event(), {}
    server = threading.Thread(target=serve, args=[ready, told, stop])
    server.start()
    ready.wait()
    net.configure(net.Policy(private_targets=(told["target"],)))
    url = told["url"]

    def run_all() -> None:
        asyncio.run(work(url))  # a Celery task
        async_to_sync(work)(url)  # a sync view or command
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # uvicorn
            runner.run(work(url))
        thread = threading.Thread(target=lambda: asyncio.run(work(url)))
        thread.start()
        thread.join()

        async def twice() -> None:
            await work(url)
            await net.close()
            await work(url)  # opens again

        asyncio.run(twice())

    run_all()
    gc.collect()
    before, threads = descriptors(0), threading.active_count()
    for _ in range(5):
        run_all()
    gc.collect()
    print(
        json.dumps(
            {
                "doors": len(net._doors),
                "descriptors_more": descriptors(before) - before,
                "threads_more": threading.active_count() - threads,
                "unraisable": unraisable,
            }
        )
    )
    stop.set()
    server.join()


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
