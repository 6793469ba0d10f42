"""`manage.py run` with its real processes: starts, tells where, survives deaths, stops cleanly, starts again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time

import psutil
import pytest

from tests.switchboard import ROOT, Switchboard

pytestmark = [pytest.mark.installation, pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with Switchboard(tmp_path_factory.mktemp("run") / "var") as running:
        yield running


def test_it_says_where_it_runs_and_how_to_begin(board):
    lines = board.output.strip().splitlines()
    assert lines[0] == f"Switchboard runs at {board.origin}  (Ctrl-C stops it)"
    assert board.setup_link.startswith(f"{board.origin}/setup/")
    assert board.get(board.setup_link.removeprefix(board.origin))[0] == 200


def test_web_worker_beat_and_every_companion_run_as_processes_of_their_own(board):
    names = board.children().keys()
    assert {"web", "worker", "beat"} <= names
    companions = list((ROOT / "providers").glob("*/companion.py"))
    assert len(names) == 3 + len(companions)


def test_everything_it_keeps_is_for_its_owner_alone_p5(board):
    kept = {path for path in board.var.rglob("*") if "static" not in path.relative_to(board.var).parts}
    assert {"switchboard.sqlite3", "secret_key", "vault_keys", "run.lock"} <= {path.name for path in kept}
    for path in [board.var, *kept]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_it_listens_on_loopback_alone_p5(board):
    addresses = {
        (item.laddr.ip)
        for process in [psutil.Process(board.process.pid), *board.children().values()]
        for item in process.net_connections("tcp")
        if item.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_an_idle_web_process_stays_small(board):
    memory = board.children()["web"].memory_full_info()
    assert memory.pss < 140e6, f"{memory.pss / 1e6:.0f} MB"


def test_pages_static_files_errors_and_hot_routes_carry_every_header_x8_i22(board):
    page = board.get("/sign-in/login/")
    style = re.search(r'href="(/static/css/tokens\.[0-9a-f]+\.css)"', page[2])
    assert style, "stylesheets have hashed names"
    event_stream = "/chat/generations/7d444840-9dc0-11d1-b245-5ffdce74fad2/events"
    answers = {
        "page": page,
        "static": board.get(style[1]),
        "missing": board.get("/nothing/here/"),
        "missing static": board.get("/static/nothing.css"),
        "redirect": board.get("/"),
        "admin": board.get("/admin/"),
        "hot": board.get(event_stream),
        "foreign host": board.get("/", host="evil.example"),
        "health": board.get("/healthz"),
    }
    assert {name: answer[0] for name, answer in answers.items()} == {
        "page": 200, "static": 200, "missing": 404, "missing static": 404, "redirect": 302, "admin": 302,
        "hot": 401, "foreign host": 400, "health": 200,
    }  # fmt: skip
    for name, (_, headers, _) in answers.items():
        assert headers["x-content-type-options"] == "nosniff", name
        assert headers["cross-origin-opener-policy"] == "same-origin", name
        assert headers["cross-origin-resource-policy"] == "same-origin", name
        assert headers["referrer-policy"] == "same-origin", name
        assert headers["x-frame-options"] == "DENY", name
        assert "camera=()" in headers["permissions-policy"], name
        assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"]), name
        assert "default-src 'none'" in headers["content-security-policy"], name
        assert "frame-ancestors 'none'" in headers["content-security-policy"], name
        assert "unsafe" not in headers["content-security-policy"], name
        assert "server" not in headers, name
        assert "strict-transport-security" not in headers, "on http it would be a lie"
        if name != "static":
            assert "no-store" in headers["cache-control"], name
    assert "immutable" in answers["static"][1]["cache-control"]


def test_a_message_of_a_megabyte_passes_the_walls_and_ten_do_not(board):
    def post(size: int) -> int:
        with socket.create_connection(("127.0.0.1", board.port), 10) as connection:
            head = f"POST /sign-in/login/ HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode())
            with contextlib.suppress(OSError):  # it answers before the end
                connection.sendall(b"x" * size)
            return int(connection.recv(64).split()[1])

    assert post(1_000_000) == 403  # read whole; no CSRF token
    assert post(10_000_000) == 413


def test_forwarded_headers_from_anyone_change_nothing_a9(board):
    _, headers, _ = board.get("/", x_forwarded_host="evil.example", x_forwarded_proto="https")
    assert headers["location"] == "/sign-in/login/?next=/"


def test_a_second_one_on_the_same_folder_is_refused_with_a_sentence(board):
    second = Switchboard(board.var).start()
    second.process.wait(30)
    second._reader.join(5)
    assert second.process.returncode == 1
    assert second.output.strip().count("\n") == 0
    assert f"already runs from {board.var} (process {board.process.pid})" in second.output
    assert board.get("/healthz")[0] == 200


def test_a_port_in_use_is_one_sentence(board, tmp_path):
    second = Switchboard(tmp_path / "var", port=board.port).start()
    second.process.wait(30)
    second._reader.join(5)
    assert second.process.returncode == 1
    assert second.output.strip() == (
        f"CommandError: Port {board.port} on 127.0.0.1 is not free: Another program uses it. "
        f"Choose another one: PORT={board.port + 1}"
    )


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_a_process_that_is_killed_comes_back(board, name):
    killed = board.children()[name]
    killed.kill()
    deadline = time.monotonic() + 30
    while (now := board.children().get(name)) is None or now.pid == killed.pid:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert f"The {name} process ended (killed by SIGKILL). Starting it again." in board.output
    if name == "web":
        assert board.get("/healthz")[0] == 200, "the socket outlives the process: callers only wait"


def test_through_its_life_it_stops_within_ten_seconds_leaves_nothing_running_and_starts_again(tmp_path, prepared):
    """One folder: with an account from the command line, stopped by Ctrl-C, by SIGTERM, killed, and still whole."""
    board = Switchboard(tmp_path / "var").like(prepared)
    board.manage(
        "createsuperuser",
        "--no-input",
        "--username=root",
        "--email=root@example.org",
        DJANGO_SUPERUSER_PASSWORD="a long pass phrase",
    )
    with board:
        assert "/setup/" not in board.output, "there is an account already"
        stops_cleanly(board, signal.SIGINT)
    (tmp_path / "var" / "celerybeat-schedule").write_text("a stale file")
    (tmp_path / "var" / "broker" / "control").mkdir(parents=True, exist_ok=True)
    (tmp_path / "var" / "broker" / "control" / "celery.exchange").write_text("[[half a fi")

    began = time.monotonic()
    with Switchboard(tmp_path / "var", BIND="0.0.0.0") as board:
        took = time.monotonic() - began
        assert took < 15, f"{took:.1f} s"  # alone it takes 3; the other test processes share the cores
        board.wait_for("http is not encrypted", within=5)
        assert "under these names only: 127.0.0.1, localhost" in board.output
        assert board.get("/healthz")[0] == 200
        stops_cleanly(board, signal.SIGTERM)

    board = Switchboard(tmp_path / "var").__enter__()
    children = list(board.children().values())
    board.process.kill()
    board.process.wait()
    _, alive = psutil.wait_procs(children, 10)
    assert not alive, "PR_SET_PDEATHSIG"
    with Switchboard(tmp_path / "var", port=board.port) as again:
        assert again.get("/healthz")[0] == 200
    with sqlite3.connect(tmp_path / "var" / "switchboard.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def stops_cleanly(board: Switchboard, how: signal.Signals) -> None:
    children = list(board.children().values())
    assert len(children) >= 3
    asked = time.monotonic()
    assert board.stop(how) == 0, board.output
    assert time.monotonic() - asked < 10
    assert not [child for child in children if child.is_running()], board.output
    assert "Traceback" not in board.output


def test_a_process_that_cannot_start_ends_everything_with_a_sentence(tmp_path):
    """The database goes away between the check and the start: here, a label that kills the worker at once."""
    board = Switchboard(tmp_path / "var", DATABASE_URL="postgres://nobody@127.0.0.1:1/none").start()
    board.process.wait(60)
    board._reader.join(5)
    assert board.process.returncode == 1
    assert "The database cannot be reached" in board.output
    assert "Traceback" not in board.output


def test_a_child_that_fails_at_once_every_time_ends_everything_with_a_sentence(tmp_path):
    plan = (
        '{"children": [{"name": "worker", "argv": ["/bin/false"], "env": {}},'
        ' {"name": "web", "argv": ["/bin/sleep", "60"], "env": {}}],'
        ' "probe": "127.0.0.1", "port": 1, "host": "x", "drain": 0, "ready": []}'
    )
    reader, writer = os.pipe()
    os.write(writer, plan.encode())
    os.close(writer)
    result = subprocess.run(
        [sys.executable, "-m", "config.supervisor", "--plan", str(reader)],
        pass_fds=[reader], capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1
    assert "The worker process ended 4 times right after its start (exit code 1)" in result.stdout
    assert "Traceback" not in result.stderr


def test_beats_clock_reaches_the_worker(board):
    """The way of every sweep: beat, the broker's folder, the worker, the task."""
    tasks = board.var / "broker" / "tasks"
    deadline = time.monotonic() + 60
    while not (queued := list(tasks.glob("*.celery.msg"))):
        assert time.monotonic() < deadline, "beat queued nothing"
        time.sleep(0.01)
    while any(path.exists() for path in queued):
        assert time.monotonic() < deadline, "the worker took nothing"
        time.sleep(0.05)
    assert "unregistered task" not in board.output
