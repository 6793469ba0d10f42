# ruff: noqa: E402, E501 (Django is set up before its models are imported)
"""How fast the ledger commits: open + settle from many coroutines, each waiting for its own commit.

    VAR_DIR=/tmp/bench .venv/bin/python bench/ledger_commit.py                     # SQLite, synchronous=FULL
    DATABASE_URL=postgres://… VAR_DIR=/tmp/bench .venv/bin/python bench/ledger_commit.py   # PostgreSQL

Makes its tables in the database it is given (use an empty one), prints one line per number of coroutines: attempts
and rows per second, p50/p99 of open and of settle in ms, commits, rows per commit, CPU µs per attempt.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django

django.setup()

from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from providers.clients.base import Delta, Usage
from usage import ledger
from usage.ledger import Attempt
from usage.pricing import Snapshot

DELTA = Delta(text="x" * 400, finish_reason="stop", usage=Usage(1000, 500, 1500, cached_tokens=100))
PRICES = Snapshot({"kind": "known", "type": "chat", "input": "0.27", "output": "0.4", "cache_read": "0.03"})


def attempt(number: int) -> Attempt:
    """As `begin` makes them, without an account row: 50 users, 8 models."""
    return Attempt(
        request_id=uuid.uuid4(), user_id=number % 50, door="chat", number=1, provider_id=1, provider_name="Bench",
        account_id=uuid.UUID(int=number % 50), account_label="Bench", model_pk=1, model_id=f"model-{number % 8}",
        model_name="Model", conversation_id=None, message_id=None, generation_id=None, token_id=None, prices=PRICES,
        prompt_size=4000, started_at=timezone.now() - timedelta(seconds=1), process=ledger.this_process(), began=time.monotonic(),
    )  # fmt: skip


async def run(coroutines: int, total: int) -> tuple[list[float], list[float]]:
    opens, settles = [], []
    numbers = iter(range(total))

    async def caller() -> None:
        for number in numbers:
            one = attempt(number)
            a = time.perf_counter()
            await ledger.aopen(one)
            b = time.perf_counter()
            one.read(DELTA)
            await ledger.asettle(one, "success")
            c = time.perf_counter()
            opens.append((b - a) * 1000)
            settles.append((c - b) * 1000)

    await asyncio.gather(*(caller() for _ in range(coroutines)))
    return opens, settles


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=5000)
    parser.add_argument("--coroutines", type=int, nargs="*", default=[1, 10, 100, 500])
    parser.add_argument("--plain-loop", action="store_true", help="asyncio's own loop instead of uvloop")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    import uvloop

    print(f"{connection.vendor}, {options.attempts} attempts each")
    for coroutines in options.coroutines:
        total = min(options.attempts, 500 * coroutines)
        ledger.start()
        before, cpu = ledger.counts(), resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        runner = asyncio.run if options.plain_loop else uvloop.run
        opens, settles = runner(run(coroutines, total))
        seconds = time.perf_counter() - started
        after, used = ledger.counts(), resource.getrusage(resource.RUSAGE_SELF)
        commits, rows = after[0] - before[0], after[1] - before[1]
        burned = (used.ru_utime + used.ru_stime) - (cpu.ru_utime + cpu.ru_stime)
        print(
            f"{coroutines:4d} coroutines: {total / seconds:7.0f} attempts/s {rows / seconds:7.0f} rows/s  "
            f"open p50 {statistics.median(opens):6.2f} p99 {percentile(opens, 0.99):6.2f} ms  "
            f"settle p50 {statistics.median(settles):6.2f} p99 {percentile(settles, 0.99):6.2f} ms  "
            f"{commits} commits, {rows / commits:.1f} rows each, {burned / total * 1e6:.0f} us CPU/attempt"
        )
    ledger.stop()


if __name__ == "__main__":
    main()
