"""`manage.py run`: everything Switchboard needs, as one command (docs/adr/0001)."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import ipaddress
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse

from config.models import SetupToken, needs_setup


class Command(BaseCommand):
    help = "Start Switchboard: web, worker, beat and the built-in upstreams. Ctrl-C stops them all."
    requires_system_checks = ()  # `make check` and the tests run them; here they would only delay the start

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # the database, its log and every other file under VAR_DIR: for the owner alone (P5)
        lock = only_one(settings.VAR_DIR / "run.lock")
        listener = listen(settings.BIND, settings.PORT)
        shutil.rmtree(settings.VAR_DIR / "broker", ignore_errors=True)  # rows say what is to be done, not old messages
        try:
            migrate_if_needed()
        except OperationalError as exc:
            raise CommandError(f"The database cannot be reached: {str(exc).strip().splitlines()[0]}") from None
        collect_if_needed()
        plan = plan_for(listener)
        connection.close()
        become_supervisor(plan, keep=[lock.fileno(), listener.fileno()])


def only_one(path: Path) -> TextIO:
    """A lock held until the process ends, however it ends: two supervisors on one folder would run everything twice."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise CommandError(
            f"Switchboard already runs from {path.parent} (process {file.read().strip() or 'unknown'}). "
            "Stop it first, or give this one another VAR_DIR and PORT."
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def listen(bind: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bind, port))
        listener.listen(2048)
    except OSError as exc:
        reason = "Another program uses it" if exc.errno == 98 else exc.strerror
        raise CommandError(
            f"Port {port} on {bind} is not free: {reason}. Choose another one: PORT={port + 1}"
        ) from None
    return listener


def migrate_if_needed() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0, interactive=False)


def collect_if_needed() -> None:
    """Copy and compress static files when any of them changed since the last time."""
    digest = hashlib.sha256(f"{django.__version__} {sys.version}".encode())
    for finder in get_finders():
        for path, storage in finder.list([]):
            stat = Path(storage.path(path)).stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    stamp = Path(settings.STATIC_ROOT) / ".stamp"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", verbosity=0, interactive=False, clear=True)
    stamp.write_text(digest.hexdigest())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def companions() -> list[tuple[str, str, list[str]]]:
    """Upstreams that come with us, as (name, `OUTBOUND_HOSTS` entry, command): every providers/*/companion.py."""
    found = []
    for path in sorted((settings.BASE_DIR / "providers").glob("*/companion.py")):
        module = importlib.import_module(f"providers.{path.parent.name}.companion")
        port = free_port()
        found.append((path.parent.name, f"{module.LOGICAL_HOST}=127.0.0.1:{port}", module.command(port)))
    return found


def plan_for(listener: socket.socket) -> dict[str, Any]:
    """What the supervisor is to do, as JSON values."""
    upstreams = companions()
    hosts = ",".join([*settings.OUTBOUND_HOSTS, *(entry for _, entry, _ in upstreams)])
    env = {"OUTBOUND_HOSTS": hosts, "PYTHONUNBUFFERED": "1"}
    # In a container root is the only user, and our tasks are JSON: Celery's warning about it is about pickle.
    quiet = {"PYTHONWARNINGS": "ignore:You're running the worker"}
    celery = [sys.executable, "-m", "celery", "-A", "config", "--quiet"]
    worker = [*celery, "worker", "--pool=threads", "--concurrency=4", "--without-gossip", "--without-mingle"]
    web = [sys.executable, "-m", "config.web", "--fd", str(listener.fileno())]
    children = [
        *({"name": name, "argv": command, "env": env, "is_companion": True} for name, _, command in upstreams),
        {"name": "web", "argv": web, "env": env, "fds": [listener.fileno()]},
        {"name": "worker", "argv": [*worker, "--without-heartbeat", "--loglevel=WARNING"], "env": env | quiet},
        {"name": "beat", "argv": [*celery, "beat", "--pidfile=", "--loglevel=WARNING"], "env": env},
    ]
    bind = ipaddress.ip_address(settings.BIND)
    probe = ("127.0.0.1" if bind.version == 4 else "::1") if bind.is_unspecified else str(bind)
    return {
        "children": children,
        "probe": probe,
        "port": settings.PORT,
        "host": urlsplit(settings.PUBLIC_ORIGIN).netloc,
        "drain": settings.DRAIN_SECONDS,
        "ready": ready_lines(is_loopback=bind.is_loopback),
    }


def ready_lines(*, is_loopback: bool) -> list[str]:
    lines = [f"Switchboard runs at {settings.PUBLIC_ORIGIN}  (Ctrl-C stops it)"]
    if needs_setup():
        link = settings.PUBLIC_ORIGIN + reverse("setup", args=[SetupToken.rotate()])
        lines.append(f"Nobody has an account yet. Create the first one with this link; it works once:\n  {link}")
    if not is_loopback:
        lines.append(
            f"It listens on {settings.BIND}, so other machines can reach it, under these names only: "
            f"{', '.join(settings.ALLOWED_HOSTS)}. For another name set PUBLIC_ORIGIN."
        )
        if not settings.IS_HTTPS:
            lines.append("Warning: http is not encrypted; passwords and messages can be read on the way. Use https.")
    if settings.IS_HTTPS and not settings.TRUSTED_PROXIES:
        lines.append(
            "Warning: PUBLIC_ORIGIN is https, but TRUSTED_PROXIES is empty: name the address of the proxy that "
            "ends TLS (127.0.0.1 if it runs here), or every page redirects to itself."
        )
    return lines


def become_supervisor(plan: dict[str, Any], *, keep: list[int]) -> None:
    """Replace this process: the plan travels through a pipe, since it may hold the set-up link."""
    reader, writer = os.pipe()
    os.write(writer, json.dumps(plan).encode())  # far below a pipe's 64 kB
    os.close(writer)
    for descriptor in (reader, *keep):
        os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    os.chdir(settings.BASE_DIR)
    os.execv(sys.executable, [sys.executable, "-m", "config.supervisor", "--plan", str(reader)])  # noqa: S606
