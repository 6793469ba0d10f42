"""How long a sync takes, first and unchanged, in how many statements, beside what issue 5 asks; and the search.

    python bench/catalog_sync.py                                   SQLite in a temporary folder
    python -m tests.services postgres -- python bench/catalog_sync.py      PostgreSQL

Serves the recorded AiHubMix list (../shared/data; else one of the same size is made up) from a loopback server in a
process of its own, through the real client. Prints the median [min-max] of RUNS, then a list of ROWS rows once, in a
process of its own with its peak of memory, then the search over 10,000 models, p50 and p99 of the clock.

The table of public list prices is made first (its time is printed): in production that happens once per version of the
library, by beat. So does the first sync of an installation at most once wait for it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = int(os.environ.get("RUNS", "5"))
ROWS = int(os.environ.get("ROWS", "100000"))
LIST = ROOT.parent / "shared" / "data" / "models-aihubmix-api-v1.json"


def made_up(rows: int) -> bytes:
    words = ("mini", "large", "sonnet", "flash preview", "2025-09-01")
    data = [
        {
            "model_id": f"maker-{n % 17}/model-{n}-{words[n % 5]}",
            "model_name": f"Maker {n % 17}: Model {n % 97}.{n} {words[n % 5]}",
            "types": "llm",
            "features": "tools,thinking",
            "input_modalities": "text,image",
            "context_length": 128_000,
            "max_output": 8_192,
            "desc": "d" * 170,
            "pricing": {"input": 0.27 + n / 1e6, "output": 0.4, "cache_read": 0.027},
        }
        for n in range(rows)
    ]
    return json.dumps({"data": data}).encode()


def serve(bodies: dict[str, bytes], ports) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    ports.put(server.server_address[1])
    server.serve_forever()


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} s [{min(seconds):.3f}-{max(seconds):.3f}]"


def verdict(measured: float, most: float) -> str:
    return "ok" if measured <= most else "MISSED"


MOST_SECONDS = {"first": 1.0, "unchanged": 0.3}
MOST_STATEMENTS = {"postgresql": 15, "sqlite": 60}
MOST_SECONDS_LARGE, MOST_MB_LARGE = 60, 500


def main() -> None:
    recorded = LIST.exists()
    bodies = {
        "/small/api/v1/models": LIST.read_bytes() if recorded else made_up(805),
        "/large/api/v1/models": made_up(ROWS),
        "/ten/api/v1/models": made_up(10_000),
    }
    ports = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(bodies, ports), daemon=True)
    server.start()
    port = ports.get()
    prepare(port)
    small(recorded)
    large = subprocess.run([sys.executable, __file__, "large", str(port)], check=False)
    if large.returncode:
        print("the large list failed")
    searching()
    server.terminate()


def prepare(port: int) -> None:
    """Django, the database, and the name under which the loopback server is reached."""
    import django

    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    django.setup()
    from django.core.management import call_command

    from catalog import list_prices, sync
    from providers import net

    net.configure(net.Policy(hosts={"list.test": ("127.0.0.1", port)}))
    call_command("migrate", verbosity=0)
    sync._is_local = lambda url: False  # as a real seller: gaps are looked up in the public lists
    started = time.perf_counter()
    list_prices.prepare()
    list_prices.find("gpt-4o")
    if len(sys.argv) == 1:
        print(f"list prices made and read in {time.perf_counter() - started:.2f} s (once per version of the library)")


def account(path: str):
    from django.contrib.auth import get_user_model

    from providers import vault
    from providers.models import Provider, ProviderAccount

    user, _ = get_user_model().objects.get_or_create(username="bench")
    name = f"bench-{path}-{time.monotonic_ns()}"
    provider = Provider.objects.create(
        name=name,
        display_name=name,
        client="aihubmix",
        owner=user,
        base_url=f"http://list.test/{path}/v1",
    )
    account = ProviderAccount(owner=user, provider=provider, label=name)
    vault.seal_key(account, f"sk-bench-{name}")
    account.save()
    return account


def timed(who) -> tuple[float, float, int]:
    """Seconds of the clock, seconds of this process's CPU time, rows."""
    from catalog import sync

    started, busy = time.perf_counter(), time.process_time()
    run = sync.sync_account(who)
    assert run.state in ("done", "unchanged"), run.error_message
    return time.perf_counter() - started, time.process_time() - busy, run.total


def statements(who) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from catalog import sync

    with CaptureQueriesContext(connection) as captured:
        sync.sync_account(who)
    frame = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    return sum(not query["sql"].startswith(frame) for query in captured)


def small(recorded: bool) -> None:
    from django.db import connection

    load = os.getloadavg()[0]
    print(f"{connection.vendor}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}")
    first, unchanged = [], []
    for _ in range(RUNS):
        who = account("small")
        first.append(timed(who))
        unchanged.append(timed(who))
        who.provider.delete()
    who = account("small")
    said = "recorded" if recorded else "made up"
    most = MOST_STATEMENTS[connection.vendor]
    for name, runs in (("first", first), ("unchanged", unchanged)):
        clocks, count = [run[0] for run in runs], statements(who)
        median, limit = statistics.median(clocks), MOST_SECONDS[name]
        print(
            f"{runs[0][2]} rows ({said}), {name}: {spread(clocks)} of {limit} s {verdict(median, limit)}, "
            f"CPU {spread([run[1] for run in runs])}, {count} of {most} statements {verdict(count, most)}"
        )
    who.provider.delete()


def large() -> None:
    """In a process of its own: the peak of memory is this sync's alone."""
    who = account("large")
    for name in ("first", "unchanged"):
        clock, busy, total = timed(who)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{total:,} rows, {name}: {clock:.2f} of {MOST_SECONDS_LARGE} s {verdict(clock, MOST_SECONDS_LARGE)}, "
            f"CPU {busy:.2f} s, peak memory {peak} of {MOST_MB_LARGE} MB {verdict(peak, MOST_MB_LARGE)}",
            flush=True,
        )
    who.provider.delete()


def searching() -> None:
    from catalog import search, sync

    who = account("ten")
    user = who.owner
    sync.sync_account(who)
    started, busy = time.perf_counter(), time.process_time()
    count = search.search(user, "").of
    clock, busy = time.perf_counter() - started, time.process_time() - busy
    print(f"search: list of {count:,} made in {clock:.2f} s, CPU {busy:.2f} s")
    chat = search.Filters(type="chat")
    for query in ("", "o", "sonnet", "flash model", "maker/sonnet 97", "no such thing"):
        clocks, cpu = [], []
        for _ in range(200):
            started, busy = time.perf_counter(), time.process_time()
            found = search.search(user, query, filters=chat)
            clocks.append((time.perf_counter() - started) * 1000)
            cpu.append((time.process_time() - busy) * 1000)
        clocks.sort()
        cpu.sort()
        print(
            f"  {query!r:18} {found.total:6,} found  p50 {clocks[100]:5.2f} ms  p99 {clocks[197]:5.2f} ms"
            f"  CPU p50 {cpu[100]:5.2f} ms  p99 {cpu[197]:5.2f} ms"
        )


if __name__ == "__main__" and len(sys.argv) == 3:
    prepare(int(sys.argv[2]))
    large()
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as folder:
        os.environ["VAR_DIR"] = folder
        main()
