"""Reading the environment: django-environ with sentences instead of tracebacks, and secrets made at first start."""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured


def read_dotenv(path: Path) -> None:
    """Take settings from an optional `.env`; what the environment already says wins."""
    if path.is_file():
        environ.Env.read_env(str(path))


def new_secret_key() -> str:
    return secrets.token_urlsafe(64)


def new_vault_keys() -> str:
    """One fresh 256-bit key in the ring's format, `id:base64`."""
    return f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def hosts_for(origin: str) -> list[str]:
    """The host names `ALLOWED_HOSTS` needs for an origin; loopback answers to its three usual names."""
    host = urlsplit(origin).hostname or ""
    return [host, "localhost", "127.0.0.1", "[::1]"] if host in {"127.0.0.1", "localhost", "::1"} else [host]


def write_once(path: Path, make: Callable[[], str]) -> str:
    """The text in `path`; made and stored (mode 0600) if missing. Racing processes all read the same winner."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(make() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # fails if another process was first, and never overwrites
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


class _Reader:
    """Typed readers over django-environ. Each failure names the setting and what to write instead."""

    def __init__(self) -> None:
        self._env = environ.Env()

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        raise ImproperlyConfigured(f"{name} is not {wanted}. Correct it in the environment or in .env.")

    def text(self, name: str, *, default: str) -> str:
        return self._env.str(name, default=default)

    def switch(self, name: str, *, default: bool) -> bool:
        raw = os.environ.get(name, "").strip().lower()
        if raw and raw not in {"1", "0", "true", "false", "yes", "no", "on", "off"}:
            self._refuse(name, "a switch: write 1 or 0")
        return self._env.bool(name, default=default) if raw else default

    def number(self, name: str, *, default: int, low: int, high: int) -> int:
        try:
            value = self._env.int(name, default=default)
        except ValueError:
            self._refuse(name, f"a whole number from {low} to {high}")
        if not low <= value <= high:
            self._refuse(name, f"a whole number from {low} to {high}")
        return value

    def choice(self, name: str, *, default: str, choices: tuple[str, ...]) -> str:
        value = self._env.str(name, default=default).strip().upper()
        if value not in choices:
            self._refuse(name, f"one of {', '.join(choices)}")
        return value

    def address(self, name: str, *, default: str) -> str:
        """An address to listen on, as a literal: a name could mean another one tomorrow."""
        value = self._env.str(name, default=default).strip().strip("[]")
        value = "127.0.0.1" if value == "localhost" else value
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            self._refuse(name, "an address to listen on: write 127.0.0.1, or 0.0.0.0 for every network")

    def mail(self, name: str) -> dict[str, Any]:
        """Django's EMAIL_* settings from a URL; without one, mail goes nowhere: a log is no place for reset links."""
        try:
            url = os.environ.get(name, "").strip() or "dummymail://"
            return self._env.email_url_config(url)
        except (ImproperlyConfigured, ValueError, KeyError):
            self._refuse(name, "a mail server: write smtp+tls://user:password@mail.example.org:587")

    def items(self, name: str, *, default: list[str]) -> list[str]:
        return [item.strip() for item in self._env.list(name, default=default) if item.strip()]

    def path(self, name: str, *, default: Path, make_private: bool = False) -> Path:
        """A folder; with `make_private` it is made if missing, readable by its owner alone."""
        path = Path(self._env.str(name, default=str(default))).expanduser().absolute()
        if make_private:
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if path.stat().st_mode & 0o077:
                    path.chmod(0o700)
            except OSError as exc:
                self._refuse(name, f"a folder that can be made ({exc.strerror})")
        return path

    def origin(self, name: str, *, default: str) -> str:
        value = self._env.str(name, default=default).rstrip("/")
        parts = urlsplit(value)
        try:
            port_is_right = parts.port is None or parts.port > 0
        except ValueError:
            port_is_right = False
        is_plain = not (parts.path or parts.query or parts.fragment or parts.username)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not is_plain or not port_is_right:
            self._refuse(name, "an origin: write https://chat.example.org, without a path")
        return value

    def secret(self, name: str, *, file: Path, make: Callable[[], str]) -> str:
        """From the variable, else from the file `<NAME>_FILE` names, else from `file`, made at first start."""
        if value := os.environ.get(name, "").strip():
            return value
        if named := os.environ.get(f"{name}_FILE", "").strip():
            try:
                return Path(named).read_text().strip()
            except OSError as exc:
                self._refuse(f"{name}_FILE", f"a readable file ({exc.strerror})")
        return write_once(file, make)

    def database(self, name: str, *, default: str) -> dict[str, Any]:
        """SQLite (WAL, full sync) or PostgreSQL (pooled) from a URL."""
        try:
            with warnings.catch_warnings(action="ignore"):  # our own sentence says it better
                config = self._env.db_url_config(os.environ.get(name, "").strip() or default)
        except (ImproperlyConfigured, ValueError):
            config = {}
        engine = config.get("ENGINE", "")
        if engine == "django.db.backends.sqlite3":
            # A test database in a file: an in-memory one is shared between threads under one lock.
            config["TEST"] = {"NAME": f"{config['NAME']}.test"}
            config["OPTIONS"] = {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": (
                    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
                    "PRAGMA temp_store=MEMORY; PRAGMA mmap_size=134217728;"
                ),
            }
        elif engine == "django.db.backends.postgresql":
            options = {"min_size": 0, "max_size": 16, "timeout": 10, "max_idle": 60}
            config["OPTIONS"] = {**config.get("OPTIONS", {}), "pool": options}
            config["DISABLE_SERVER_SIDE_CURSORS"] = True  # PgBouncer in transaction mode
        else:
            self._refuse(name, "a database address: write sqlite:///path or postgres://user:password@host:5432/name")
        return config


env = _Reader()


def exit_with_sentence(error: ImproperlyConfigured) -> NoReturn:
    """End the process with the sentence alone: who set a value wrong needs no traceback."""
    sys.exit(f"Switchboard cannot start: {error}")
