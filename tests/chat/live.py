"""A real web process on a real port, and a browser's part in plain sockets: post a form, listen to events."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection

from chat.models import Generation


def database_url() -> str:
    """The test database's address, for another process."""
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{given['NAME']}"
    password = f":{given['PASSWORD']}" if given["PASSWORD"] else ""
    return f"postgres://{given['USER']}{password}@{given['HOST']}:{given['PORT']}/{given['NAME']}"


class Web:
    """One web process (config/web.py), as `make run` starts it."""

    def __init__(self, folder: Path, outbound_hosts: str, **env: str) -> None:
        self.folder, self.port = folder, 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.env = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "HOME")},
            "VAR_DIR": str(folder),
            "DATABASE_URL": database_url(),
            "SECRET_KEY": settings.SECRET_KEY,
            "VAULT_KEYS": settings.VAULT_KEYS,
            "PORT": str(self.port),
            "OUTBOUND_HOSTS": outbound_hosts,
            "DRAIN_SECONDS": "1",
            **env,
        }

    def start(self) -> Web:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(128)
        self.log = (self.folder / "web.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "config.web", "--fd", str(listening.fileno())],
            cwd=settings.BASE_DIR, env=self.env, pass_fds=[listening.fileno()], stdout=self.log, stderr=self.log,
        )  # fmt: skip
        listening.close()
        self._until_it_answers()
        return self

    def _until_it_answers(self) -> None:
        for _ in range(300):
            assert self.process.poll() is None, self.output
            with contextlib.suppress(OSError, http.client.HTTPException):
                peer = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                peer.request("GET", "/healthz")
                peer.getresponse().read()
                peer.close()
                return
            time.sleep(0.1)
        raise AssertionError(self.output)

    @property
    def output(self) -> str:
        return (self.folder / "web.log").read_text()[-4000:]

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.log.close()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(15)
        self.log.close()
        return self.process.returncode


class Browser:
    """A signed-in user's cookies at one web process."""

    def __init__(self, user: Any, port: int) -> None:
        session = SessionStore()
        session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session.save()
        self.port, self.csrf = port, secrets.token_hex(16)
        self.cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}; {settings.CSRF_COOKIE_NAME}={self.csrf}"

    def request(self, method: str, path: str, fields: dict[str, Any] | None = None, **headers: str) -> tuple[int, str]:
        peer = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        head = {"cookie": self.cookie, "hx-request": "true", **headers}
        body = None
        if fields is not None:
            body = urlencode(fields)
            head |= {"content-type": "application/x-www-form-urlencoded", "x-csrftoken": self.csrf}
        peer.request(method, path, body, head)
        answer = peer.getresponse()
        text = answer.read().decode()
        peer.close()
        return answer.status, text

    def send(self, text: str, model: Any, conversation: Any = None, **fields: Any) -> str:
        """Post a message, to a new conversation if none is given; returns the address of the reply's events."""
        path = f"/c/{conversation.pk}/send/" if conversation else "/send/"
        status, page = self.request("POST", path, {"text": text, "model": model.pk, **fields})
        assert status == 200, page
        if found := re.findall(r'data-url="([^"]+)"', page):
            return found[-1]
        # Over before the page was drawn, which then has nothing to listen to. Whoever does gets the end.
        return f"/chat/generations/{Generation.objects.latest('created_at').pk}/events"

    def listen(self, url: str, after: int = 0, **headers: str) -> Listener:
        return Listener(self, url, after, headers)


class Listener:
    """One EventSource: reads events in a thread until `close()` or the end."""

    def __init__(self, browser: Browser, url: str, after: int, headers: dict[str, str]) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.seq, self.closed, self.tail = after, "", ""
        self._changed = threading.Condition()
        self.socket = socket.create_connection(("127.0.0.1", browser.port), timeout=30)
        lines = [f"GET {url}?after={after} HTTP/1.1", f"host: 127.0.0.1:{browser.port}", f"cookie: {browser.cookie}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.answer = http.client.HTTPResponse(self.socket)
        self.answer.begin()
        self.status = self.answer.status
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        name, data, number = "", "", 0
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            while line := self.answer.readline():
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif field == "id":
                    number = int(value)
                elif not field and data:
                    with self._changed:
                        self._take(name, number, json.loads(data))
                        self._changed.notify_all()
                    name, data = "", ""

    def _take(self, name: str, number: int, data: dict[str, Any]) -> None:
        self.events.append((name, data))
        if name == "end":
            return
        assert number == data["seq"]
        if name == "reset":
            self.closed = ""
        self.seq, self.tail = number, data["tail"]
        self.closed += data["closed"]

    @property
    def html(self) -> str:
        return self.closed + self.tail

    def wait(self, condition: Any, seconds: float = 15) -> Listener:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), seconds), self.events[-3:]
        return self

    def wait_for_end(self, seconds: float = 30) -> dict[str, Any]:
        self.wait(lambda self: self.events and self.events[-1][0] == "end", seconds)
        return self.events[-1][1]

    def close(self) -> None:
        """Cut the socket, as a closed tab or a lost network does."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)
