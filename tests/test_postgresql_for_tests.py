"""The services that tests bring along start where nobody but their owner may look."""

import os
import subprocess

import pytest

from tests import services

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.postgres]


def test_postgresql_runs_from_a_checkout_that_only_root_may_enter(tmp_path, monkeypatch):
    """As root it runs as somebody else, from a copy; the copy must be whole, and open to that user."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(services, "_others_may_read", lambda path: False)
    try:
        binaries = services._postgres_binaries(tmp_path)
    except services.Unavailable as exc:
        pytest.skip(str(exc))
    assert binaries.is_relative_to(tmp_path)
    for program in ("initdb", "postgres", "pg_isready"):
        said = subprocess.run([binaries / program, "--version"], capture_output=True, text=True)
        assert said.returncode == 0 and "PostgreSQL" in said.stdout, said.stderr
    kept = [path for path in (tmp_path / "install").rglob("*") if not path.is_symlink()]
    assert all(path.stat().st_mode & 0o555 == 0o555 for path in kept)
