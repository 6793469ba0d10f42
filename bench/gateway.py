"""`make bench`: what Switchboard's `/v1` costs, beside the upstream called directly and other gateways.

    python -m bench.gateway [--rounds 5] [--databases sqlite,postgres] [--litellm BIN] [--portkey FILE] [--quick]
                            [--python BIN] [--data FOLDER]

Each target runs alone on one core, the mock upstream and the driver (and PostgreSQL) on the other. In every round the
targets take turns, so that whatever else the machine does hits all of them. See bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psycopg
import uvloop

from bench import driver
from bench.driver import Target
from tests import services

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
TICK = os.sysconf("SC_CLK_TCK")
PLAIN, STREAM, SLOW = "bench-plain", "bench-stream", "bench-slow"


# -- Processes ---------------------------------------------------------------------------------------------------------


class Server:
    """A target's process tree on its core."""

    def __init__(self, target: Target, process: subprocess.Popen[bytes] | None, started_in: float = 0) -> None:
        self.target, self.process, self.started_in = target, process, started_in
        self.sent = self.cut = 0
        """Requests that a row must exist for, and how many of them we gave up waiting for."""

    def pids(self) -> list[int]:
        if self.process is None:
            return []
        children: dict[int, list[int]] = defaultdict(list)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                text = stat.read_text()
                children[int(text[text.rindex(")") + 2 :].split()[1])].append(int(stat.parent.name))
        found, todo = [], [self.process.pid]
        while todo:
            found.append(pid := todo.pop())
            todo += children[pid]
        return found

    def cpu(self) -> float:
        """Seconds of CPU the whole tree has used."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/stat").read_text()
                fields = text[text.rindex(")") + 2 :].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICK

    def memory(self) -> float:
        """MB, shared pages counted in proportion (PSS)."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def pinned(core: int, *command: object) -> list[str]:
    return ["taskset", "-c", str(core), *(str(part) for part in command)]


def started(
    target: Target, command: list[str], *, env: dict[str, str], log: Path, healthy: str, fds: tuple[int, ...] = ()
) -> Server:
    """Start a target and wait until `healthy` answers below 500."""
    out = log.open("wb")
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out, pass_fds=fds)
    while time.perf_counter() - began < 240:
        if process.poll() is not None:
            raise RuntimeError(f"{target.name} did not start: {log.read_text()[-800:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{target.port}{healthy}", timeout=2).close()
        except urllib.error.HTTPError as exc:
            if exc.code >= 500:
                time.sleep(0.1)
                continue
        except OSError:
            time.sleep(0.05)
            continue
        return Server(target, process, time.perf_counter() - began)
    process.kill()
    raise RuntimeError(f"{target.name} was not ready within 240 s: {log.read_text()[-800:]}")


def clean_env(**more: str) -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | more


SEED = """
from django.contrib.auth import get_user_model
from catalog.models import AccountModel, AggregatorModel
from providers import vault
from providers.models import Provider, ProviderAccount
from usage import tokens
user = get_user_model().objects.create_user("bench")
provider = Provider.objects.create(
    name="bench", display_name="Bench", base_url="http://bench.test/v1", client="openai_compatible"
)
account = ProviderAccount(owner=user, provider=provider, label="Bench", status="valid")
vault.seal_key(account, "sk-bench-0123456789abcdef")
account.save()
for name in ("bench-plain", "bench-stream", "bench-slow"):
    model = AggregatorModel.objects.create(
        provider=provider, model_id=name, display_name=name, model_type="chat", price_input="0.5", price_output="1.5"
    )
    AccountModel.objects.create(account=account, model=model)
print("TOKEN", tokens.create(user, "bench")[1])
"""


def switchboard(name: str, folder: Path, upstream: int, database: str, python: str = sys.executable) -> Server:
    """Our web process as `make run` starts it, with one user, account, token and three models."""
    folder.mkdir()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    port = listening.getsockname()[1]
    env = clean_env(
        VAR_DIR=str(folder),
        DATABASE_URL=database,
        PORT=str(port),
        SECRET_KEY=secrets.token_hex(32),
        OUTBOUND_HOSTS=f"bench.test=127.0.0.1:{upstream}",
    )
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "-v", "0"], cwd=ROOT, env=env, check=True)
    said = subprocess.run(
        [*manage, "shell", "-v", "0", "-c", SEED], cwd=ROOT, env=env, check=True, capture_output=True, text=True
    ).stdout
    token = said.split("TOKEN ", 1)[1].split()[0]
    target = Target(name, port, headers=(("Authorization", f"Bearer {token}"),))
    command = pinned(SERVER_CORE, python, "-m", "config.web", "--fd", listening.fileno())
    server = started(target, command, env=env, log=folder / "web.log", healthy="/healthz", fds=(listening.fileno(),))
    listening.close()
    server.env = env
    return server


def age(database: str) -> None:
    """Bring a new PostgreSQL to where one is that has run for a while.

    It has the statistics of all its databases, which autovacuum would gather in the first minutes, and files of its log
    to use again, 16 MB each that a commit would have to write.
    """
    for name in ("postgres", "template1"):
        with psycopg.connect(f"{database.rsplit('/', 1)[0]}/{name}", autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(5):
            connection.execute("SELECT pg_logical_emit_message(false, 'bench', '')")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


COUNT = """
from django.db.models import Sum
from usage.models import DailyUsage, UsageLog
summed = DailyUsage.objects.aggregate(n=Sum("attempts"))["n"]
print("ROWS", UsageLog.objects.count(), UsageLog.objects.filter(status="success").count(), summed)
"""


def rows(server: Server) -> tuple[int, int]:
    """(rows, rows that are settled as success) in our database."""
    said = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", COUNT],
        cwd=ROOT, env=server.env, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    count, good, summed = said.split("ROWS ", 1)[1].split()[:3]
    assert count == summed, f"{count} rows, but the daily sums say {summed}"
    return int(count), int(good)


def litellm(binary: str, folder: Path, upstream: int) -> Server:
    folder.mkdir()
    port = services.free_port()
    lines = ["model_list:"]
    for model in (PLAIN, STREAM, SLOW):
        lines += [
            f"  - model_name: {model}",
            "    litellm_params:",
            f"      model: openai/{model}",
            f"      api_base: http://127.0.0.1:{upstream}/v1",
            "      api_key: sk-bench",
        ]
    lines += ["litellm_settings:", "  telemetry: false", "  drop_params: false"]
    (folder / "config.yaml").write_text("\n".join(lines))
    command = pinned(SERVER_CORE, binary, "--config", folder / "config.yaml", "--port", port, "--num_workers", 1)
    key = f"sk-{secrets.token_hex(24)}"  # it refuses to start without one; checked in memory, there is no database
    env = clean_env(
        LITELLM_LOG="ERROR",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_TELEMETRY="False",
        LITELLM_MASTER_KEY=key,
    )
    target = Target("LiteLLM", port, headers=(("Authorization", f"Bearer {key}"),))
    return started(target, command, env=env, log=folder / "log", healthy="/health/liveliness")


def portkey(script: str, folder: Path, upstream: int) -> Server:
    folder.mkdir()
    port = services.free_port()
    headers = (
        ("Authorization", "Bearer sk-bench"),
        ("x-portkey-provider", "openai"),
        ("x-portkey-custom-host", f"http://127.0.0.1:{upstream}/v1"),
    )
    command = pinned(
        SERVER_CORE, "node", "--import", ROOT / "bench/portkey_headers.mjs", script, f"--port={port}", "--headless"
    )
    env = clean_env(NODE_ENV="production", TRUSTED_CUSTOM_HOSTS="127.0.0.1,localhost")
    return started(Target("Portkey", port, headers=headers), command, env=env, log=folder / "log", healthy="/")


# -- Measuring ---------------------------------------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def syncs(file: Path, *, rate: float, count: int) -> list[float]:
    """Seconds that two `fdatasync`s take, one after the other: what every call waits for, whatever the software.

    20 kB each, over bytes that are there already, as SQLite's log in its steady state; `rate` pairs a second.
    """
    found, piece = [], os.urandom(20 << 10)
    with file.open("wb", buffering=0) as log:
        log.write(piece * 64)
        os.fsync(log.fileno())
        for number in range(count):
            time.sleep(1 / rate)
            at = time.perf_counter()
            for half in range(2):
                os.pwrite(log.fileno(), piece, (2 * number + half) % 64 * len(piece))
                os.fdatasync(log.fileno())
            found.append(time.perf_counter() - at)
    file.unlink()
    return found


class Figures:
    """What was measured of one target: lists with one value per round."""

    def __init__(self) -> None:
        self.rps: list[float] = []
        self.cpu: list[float] = []
        self.p99_full: list[float] = []
        self.paced: list[float] = []
        """Every call of every round: what the machine did meanwhile is in it too."""
        self.p99_paced: list[float] = []
        self.ttft: list[float] = []
        self.idle = self.started_in = 0.0
        self.slow: list[tuple[driver.Slow, float, float]] = []


async def one_round(server: Server, into: Figures | None, options: argparse.Namespace) -> None:
    """One turn of one target; thrown away when `into` is None."""
    target = server.target
    before = server.cpu()
    count, seconds, latencies = await driver.flood(target, PLAIN, seconds=options.seconds, at_once=32)
    used = server.cpu() - before
    paced = await driver.paced(target, PLAIN, rate=20, count=options.paced)
    firsts = await driver.first_tokens(target, STREAM, count=options.firsts)
    server.sent += count + len(paced) + len(firsts)
    if into is not None:
        into.rps.append(count / seconds)
        into.cpu.append(used / count * 1e6)
        into.p99_full.append(percentile(latencies, 0.99) * 1e3)
        into.paced += [value * 1e3 for value in paced]
        into.p99_paced.append(percentile(paced, 0.99) * 1e3)
        into.ttft.append(statistics.median(firsts) * 1e3)


async def slow_round(server: Server, into: Figures, options: argparse.Namespace) -> None:
    memory = [server.memory()]
    before = server.cpu()
    found = await driver.slow_streams(
        server.target, SLOW, streams=options.streams, patience=25, halfway=lambda: memory.append(server.memory())
    )
    chunks = len(found.ages)
    used = server.cpu() - before
    server.sent += options.streams
    server.cut += options.streams - found.finished
    kb = (memory[-1] - memory[0]) * 1024 / options.streams
    into.slow.append((found, used / max(chunks, 1) * 1e6, kb))


async def measure(
    servers: list[Server], options: argparse.Namespace, folder: Path
) -> tuple[dict[str, Figures], list[float]]:
    """What was measured of each target, and what two `fdatasync`s took at the same time, in ms."""
    disk: list[float] = []
    figures = {server.target.name: Figures() for server in servers}
    for server in servers:
        figures[server.target.name].idle = server.memory()
        figures[server.target.name].started_in = server.started_in
        await one_round(server, None, options)  # warm-up
    for number in range(options.rounds):
        for server in servers:
            await one_round(server, figures[server.target.name], options)
        disk += [value * 1e3 for value in syncs(folder / "disk", rate=20, count=options.paced)]
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    for _ in range(options.slow_rounds):
        for server in servers:
            await slow_round(server, figures[server.target.name], options)
    return figures, disk


# -- Telling -----------------------------------------------------------------------------------------------------------


def spread(values: list[float], digits: int = 0) -> str:
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} [{low:,.{digits}f}-{high:,.{digits}f}]"


def tell(figures: dict[str, Figures]) -> None:
    direct = figures["direct"]
    columns = "plain rps|CPU us/request|p99 ms, 32 at once|p50 / p99 ms at 20 rps, all|p99 ms at 20 rps, per round"
    columns += "|first token added ms|idle MB|start s"
    print(f"\n| target | {' | '.join(columns.split('|'))} |\n|---|---|---|---|---|---|---|---|---|")
    for name, found in figures.items():
        added = [a - b for a, b in zip(found.ttft, direct.ttft, strict=True)]
        print(
            f"| {name} | {spread(found.rps)} | {spread(found.cpu)} | {spread(found.p99_full, 1)} | "
            f"{percentile(found.paced, 0.5):.2f} / {percentile(found.paced, 0.99):.2f} | "
            f"{spread(found.p99_paced, 1)} | {spread(added, 2)} | {found.idle:.0f} | {found.started_in:.1f} |"
        )
    if any(found.slow for found in figures.values()):
        print("\n| slow streams | finished | chunk age p50 / p99 ms | CPU us/chunk | KB/stream |")
        print("|---|---|---|---|---|")
        for name, found in figures.items():
            for slow, cpu, kb in found.slow:
                age = f"{percentile(slow.ages, 0.5):.2f} / {percentile(slow.ages, 0.99):.2f}"
                print(f"| {name} | {slow.finished} | {age} | {cpu:.0f} | {kb:.0f} |")


MUST = {
    # measure: (LiteLLM must, moonshot, Portkey must, moonshot)
    "plain rps, ours / theirs": (20, 60, 5, 15),
    "first token added, theirs / ours": (6, 15, None, None),
    "p99 at 20 rps, theirs / ours": (8, 20, 3, 6),
    "CPU per paced chunk, theirs / ours": (8, 18, 1.3, 2.5),
    "chunk age p99, theirs / ours": (None, None, 5, 15),
}


def ratios(figures: dict[str, Figures], ours: str) -> None:
    """The table of performance.md §6 for one of our databases."""
    mine, direct = figures[ours], figures["direct"]
    others = [(name, at) for name, at in (("LiteLLM", 0), ("Portkey", 2)) if name in figures]
    if not others:
        return

    def added(found: Figures) -> float:
        return statistics.median(found.ttft) - statistics.median(direct.ttft)

    print(f"\n| {ours} | " + " | ".join(f"{name}: ratio | must | moonshot" for name, _ in others) + " |")
    print("|---|" + "---|---|---|" * len(others))
    for measure_name, goals in MUST.items():
        cells = []
        for name, at in others:
            their = figures[name]
            if measure_name.startswith("plain"):
                ratio = statistics.median(mine.rps) / statistics.median(their.rps)
            elif measure_name.startswith("first"):
                ratio = added(their) / added(mine)
            elif measure_name.startswith("p99"):
                ratio = statistics.median(their.p99_paced) / statistics.median(mine.p99_paced)
            elif not their.slow or not mine.slow:
                ratio = float("nan")
            elif measure_name.startswith("CPU"):
                ratio = statistics.median(s[1] for s in their.slow) / statistics.median(s[1] for s in mine.slow)
            else:
                ratio = statistics.median(percentile(s[0].ages, 0.99) for s in their.slow) / statistics.median(
                    percentile(s[0].ages, 0.99) for s in mine.slow
                )
            cells.append(f"{ratio:.1f}x | {goals[at] or '–'} | {goals[at + 1] or '–'}")
        print(f"| {measure_name} | " + " | ".join(cells) + " |")


INTERPRETER = """
import platform, time

def one(numbers, rows={}):
    for number in numbers:
        rows[number % 50] = (str(number), number + 1)
    return len(rows)

best = 9.0
for _ in range(20):
    at = time.process_time()
    one(range(20_000))
    best = min(best, time.process_time() - at)
print(f"Python {platform.python_version()} ({best / 20_000 * 1e9:.0f} ns for a step of a small loop)")
"""
"""Interpreters of one version differ by half, by how they were built."""


def interpreter(python: str) -> str:
    return subprocess.run([python, "-c", INTERPRETER], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def everything(options: argparse.Namespace) -> Iterator[tuple[list[Server], Path]]:
    """All targets, started, and the folder of their data; gone, both, when the context ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="switchboard-bench-")))
        upstream = services.free_port()
        process = subprocess.Popen(pinned(LOAD_CORE, sys.executable, "-m", "bench.mock_upstream", upstream), cwd=ROOT)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        servers = [Server(Target("direct", upstream), None)]
        for kind in options.databases.split(","):
            if kind == "postgres":
                database = stack.enter_context(services.postgres(durable=True))
                age(database)
            else:
                database = f"sqlite:///{folder}/bench.sqlite3"
            servers.append(switchboard(f"Switchboard, {kind}", folder / kind, upstream, database, options.python))
        if options.litellm:
            servers.append(litellm(options.litellm, folder / "litellm", upstream))
        if options.portkey:
            servers.append(portkey(options.portkey, folder / "portkey", upstream))
        for server in servers:
            stack.callback(server.stop)
        yield servers, folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.5, help="of plain requests per round and target")
    parser.add_argument("--paced", type=int, default=200, help="requests at 20 a second per round and target")
    parser.add_argument("--firsts", type=int, default=100, help="streams one after the other per round and target")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--litellm", default=os.environ.get("BENCH_LITELLM", ""), help="the litellm program")
    parser.add_argument("--portkey", default=os.environ.get("BENCH_PORTKEY", ""), help="its build/start-server.js")
    parser.add_argument(
        "--python", default=sys.executable, help="what runs our web process; it needs what this one has"
    )
    parser.add_argument("--data", help="where the databases are, such as /dev/shm to see the software without the disk")
    parser.add_argument("--quick", action="store_true", help="one short round, no slow streams: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.slow_rounds, options.paced, options.firsts = 1, 0, 20, 20
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        print("This needs taskset and two cores.", file=sys.stderr)
        return 1
    tempfile.tempdir = options.data
    os.sched_setaffinity(0, {LOAD_CORE})  # PostgreSQL inherits it: the other core is one target's alone
    with everything(options) as (servers, folder):
        when = time.strftime("%Y-%m-%d %H:%M")
        print(f"{when}, {interpreter(options.python)}, load average before: {os.getloadavg()[0]:.2f}")
        figures, disk = uvloop.run(measure(servers, options, folder))
        tell(figures)
        print(
            f"\ntwo fdatasyncs of 20 kB in {options.data or tempfile.gettempdir()}, 20 pairs a second, p50 / p99 ms: "
            f"{percentile(disk, 0.5):.2f} / {percentile(disk, 0.99):.2f}"
        )
        for server in servers:
            if server.target.name.startswith("Switchboard"):
                ratios(figures, server.target.name)
        wrong = 0
        for server in servers:
            if server.target.name.startswith("Switchboard"):
                count, good = rows(server)
                is_right = count == server.sent and good >= server.sent - server.cut
                wrong += not is_right
                said = f"{server.sent:,} requests sent ({server.cut} given up), {count:,} rows, {good:,} successes"
                print(f"\n{server.target.name}: {said}{'' if is_right else '  <-- THESE DIFFER'}")
        return wrong


if __name__ == "__main__":
    sys.exit(main())
