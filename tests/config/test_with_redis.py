"""With REDIS_URL the same command uses Redis: tasks, throttles; and says so when it is not there (F27)."""

from __future__ import annotations

import time

import pytest
import redis

from tests.services import free_port
from tests.switchboard import Switchboard

pytestmark = [
    pytest.mark.installation, pytest.mark.slow, pytest.mark.once, pytest.mark.redis_server, pytest.mark.timeout(180),
]  # fmt: skip


def test_beat_reaches_the_worker_and_throttles_are_shared_through_redis(tmp_path, redis_url, prepared):
    client = redis.Redis.from_url(redis_url)
    with Switchboard(tmp_path / "var", REDIS_URL=redis_url).like(prepared) as board:
        assert not (board.var / "broker").exists(), "no embedded broker"
        board.manage("shell", "-v0", "-c", "from catalog.tasks import sweep_queued; sweep_queued.delay()")
        deadline = time.monotonic() + 30
        while client.llen("celery") or client.hlen("unacked"):
            assert time.monotonic() < deadline, "the worker took nothing"
            time.sleep(0.05)
        assert client.smembers("_kombu.binding.celery")
        board.manage(
            "shell", "-v0", "-c",
            "from django.test import Client; Client(headers={'host': '127.0.0.1'}).post("
            "'/sign-in/login/', {'login': 'nobody', 'password': 'wrong'})",
        )  # fmt: skip
        assert [key for key in client.keys("*") if b"login_failed" in key], "counted where every process sees it"
        assert "Traceback" not in board.output


def test_without_the_redis_it_was_told_to_use_pages_still_answer_and_it_stops_cleanly_f27(tmp_path, prepared):
    with Switchboard(tmp_path / "var", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0").like(prepared) as board:
        assert board.get("/healthz")[0] == 200
        status, _, body = board.get("/sign-in/login/")
        assert status == 200, body
        assert board.stop() == 0, board.output
