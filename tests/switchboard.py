"""A whole Switchboard for a test: `manage.py run` in a folder of its own, stopped when the context ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

import psutil

from tests.services import free_port

ROOT = Path(__file__).resolve().parent.parent


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        return None


class Switchboard:
    """`with Switchboard(var_dir) as board:` waits until it is ready. `output` is what it printed so far."""

    def __init__(self, var: Path, *, port: int | None = None, ready_within: float = 60.0, **env: str) -> None:
        self.var = var
        self.port = port or free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.ready_within = ready_within
        self.output = ""
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.env = {**keep, "VAR_DIR": str(var), "PORT": str(self.port), **env}

    def prepare(self) -> Switchboard:
        """Collect static files and make an empty database, without starting anything."""
        self.var.mkdir(mode=0o700)
        prepare = "from config.management.commands import run; run.migrate_if_needed(); run.collect_if_needed()"
        self.manage("shell", "-v0", "-c", prepare)
        return self

    def like(self, prepared: Path) -> Switchboard:
        """Begin with what the folder `prepared` holds (see `prepare`), which saves several seconds of each start."""
        self.var.mkdir(mode=0o700)
        shutil.copytree(prepared / "static", self.var / "static")
        shutil.copy(prepared / "switchboard.sqlite3", self.var)
        return self

    def start(self) -> Switchboard:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "run"],
            cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text: str, within: float) -> None:
        """Until `text` was printed; raises AssertionError with the output if it is not, or the process ends first."""
        deadline = time.monotonic() + within
        while text not in self.output:
            if self.process.poll() is not None:
                self._reader.join(5)
                if text in self.output:
                    return
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.output}")
            assert time.monotonic() < deadline, f"{text!r} was not printed within {within} s:\n{self.output}"
            time.sleep(0.02)

    def __enter__(self) -> Switchboard:
        self.start()
        try:
            self.wait_for("Ctrl-C stops it", self.ready_within)
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, how: signal.Signals = signal.SIGINT, within: float = 30.0) -> int:
        """Ask it to stop and wait; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(within)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise
        self._reader.join(5)
        return self.process.returncode

    @property
    def setup_link(self) -> str:
        found = re.findall(r"http://\S+/setup/\S+/", self.output)
        assert found, self.output
        return found[-1]

    def children(self) -> dict[str, psutil.Process]:
        """The running processes by what they are: web, worker, beat, and any companion by its module's folder."""
        named = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:  # it ended just now
                continue
            for name, sign in (("web", "config.web"), ("worker", " worker "), ("beat", " beat ")):
                if sign in line:
                    named[name] = child
                    break
            else:
                named.setdefault(f"companion:{line[-40:]}", child)
        return named

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        """(status, headers in lower case, body) of a GET, redirects not followed."""
        request = urllib.request.Request(
            self.origin + path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=10) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, {k.lower(): v for k, v in exc.headers.items()}, exc.read().decode()

    def manage(self, *arguments: str, **env: str) -> str:
        """The output of a management command on the same installation."""
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env={**self.env, **env}, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout
