"""Settings: documented, safe when left alone, and a sentence instead of a traceback when wrong (P5)."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTTPS = {"PUBLIC_ORIGIN": "https://switchboard.example"}


def python(code_or_args: str | list[str], var: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A fresh process with only these settings."""
    command = ["-c", code_or_args] if isinstance(code_or_args, str) else code_or_args
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=60,
        env={"PATH": os.environ["PATH"], "VAR_DIR": str(var), "DJANGO_SETTINGS_MODULE": "config.settings", **env},
    )  # fmt: skip


def values(expression: str, var: Path, **env: str) -> str:
    result = python(f"from django.conf import settings as s; print({expression})", var, **env)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def names_read() -> set[str]:
    """Every environment variable that config/settings.py reads."""
    return set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "config/settings.py").read_text()))


def test_every_setting_stands_in_the_example_and_in_the_handbook():
    example = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    handbook = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs/settings.md").read_text(), re.MULTILINE))
    assert len(names_read()) > 15
    assert names_read() <= example
    assert names_read() <= handbook
    files = {"SECRET_KEY_FILE", "VAULT_KEYS_FILE"}
    assert example - files == names_read(), "the example names a setting that nothing reads"
    assert handbook - files == names_read(), "the handbook names a setting that nothing reads"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DEBUG", "maybe", "write 1 or 0"),
        ("SIGNUP_OPEN", "ja", "write 1 or 0"),
        ("PORT", "eighty", "a whole number from 1 to 65535"),
        ("PORT", "70000", "a whole number from 1 to 65535"),
        ("BIND", "everywhere", "write 127.0.0.1"),
        ("PUBLIC_ORIGIN", "switchboard.example.org", "write https://"),
        ("PUBLIC_ORIGIN", "https://switchboard.example.org/path", "without a path"),
        ("PUBLIC_ORIGIN", "https://switchboard.example.org:port", "write https://"),
        ("DATABASE_URL", "mysql://root@127.0.0.1/db", "write sqlite:///path or postgres://"),
        ("DATABASE_URL", "nonsense", "write sqlite:///path or postgres://"),
        ("EMAIL_URL", "mail.example.org", "write smtp+tls://"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
        ("DRAIN_SECONDS", "-1", "a whole number from 0 to 600"),
        ("SECRET_KEY_FILE", "/nowhere/key", "a readable file"),
    ],
)
def test_a_malformed_value_stops_the_start_with_one_sentence(tmp_path, name, value, says):
    result = python(["manage.py", "check"], tmp_path, **{name: value})
    assert result.returncode == 1
    assert result.stderr.strip().splitlines() == [result.stderr.strip()], "one line, no traceback"
    assert name in result.stderr
    assert says in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["manage.py", "migrate"],
        ["manage.py", "run"],
        ["-c", "import config.asgi"],
        ["-m", "celery", "-A", "config", "worker"],
        ["-m", "celery", "-A", "config", "beat"],
    ],
    ids=lambda command: command[-1],
)
def test_every_entry_point_says_the_sentence_without_a_traceback(tmp_path, command):
    result = python(command, tmp_path, PORT="eighty")
    assert result.returncode != 0
    assert "PORT is not a whole number from 1 to 65535" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fresh_start_is_safe_p5(tmp_path):
    var = tmp_path / "var"
    expression = "s.DEBUG, s.SIGNUP_OPEN, s.BIND, s.ALLOWED_HOSTS, s.PUBLIC_ORIGIN, len(s.SECRET_KEY) > 50"
    assert values(expression, var) == (
        "False False 127.0.0.1 ['127.0.0.1', 'localhost', '127.0.0.1', '[::1]'] http://127.0.0.1:8000 True"
    )
    assert stat.S_IMODE(var.stat().st_mode) == 0o700
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in var.iterdir()}
    assert made == {"secret_key": 0o600, "vault_keys": 0o600}


def test_keys_are_made_once_and_differ_between_installations(tmp_path):
    first = values("s.SECRET_KEY, s.VAULT_KEYS", tmp_path / "a")
    assert values("s.SECRET_KEY, s.VAULT_KEYS", tmp_path / "a") == first
    assert values("s.SECRET_KEY, s.VAULT_KEYS", tmp_path / "b") != first


def test_a_folder_that_others_could_read_is_closed(tmp_path):
    var = tmp_path / "var"
    var.mkdir(mode=0o755)
    values("s.VAR_DIR", var)
    assert stat.S_IMODE(var.stat().st_mode) == 0o700


def test_the_port_alone_moves_the_links_along(tmp_path):
    assert values("s.PUBLIC_ORIGIN, s.CSRF_TRUSTED_ORIGINS", tmp_path, PORT="9000") == (
        "http://127.0.0.1:9000 ['http://127.0.0.1:9000']"
    )


def test_on_https_cookies_are_bound_to_the_host_and_to_tls_a8(tmp_path):
    expression = "s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS >= 31536000, s.ALLOWED_HOSTS"
    assert values(expression, tmp_path, **HTTPS) == (
        "__Host-session __Host-csrf True True True ['switchboard.example']"
    )


@pytest.mark.slow
def test_djangos_deployment_checks_are_silent_on_https_p5(tmp_path):
    result = python(["manage.py", "check", "--deploy", "--fail-level", "WARNING"], tmp_path, **HTTPS)
    assert result.returncode == 0, result.stderr
    assert "no issues" in result.stdout


def test_without_redis_tasks_wait_in_the_var_folder_and_with_it_in_redis(tmp_path):
    assert values("s.CELERY_BROKER_TRANSPORT_OPTIONS['data_folder_in']", tmp_path) == f"{tmp_path}/broker/tasks"
    expression = (
        "s.CELERY_BROKER_URL, hasattr(s, 'CELERY_BROKER_TRANSPORT'), s.CACHES['default']['BACKEND'].rsplit('.')[-1]"
    )
    assert values(expression, tmp_path, REDIS_URL="redis://127.0.0.1:1/0") == ("redis://127.0.0.1:1/0 False RedisCache")
