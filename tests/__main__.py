"""`python -m tests quick|full [pytest arguments]`: the suite as `make quick` and `make test` run it.

full = everything on SQLite, then what touches a database again on PostgreSQL. The first failing run ends it, so the
exit code and the closing lines are those of the pytest run that decided.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import services

LEFT_OUT_OF_QUICK = "not slow and not browser and not postgres and not redis_server"
ROOT = Path(__file__).resolve().parent.parent


def pytest(heading: str, arguments: list[str], **env: str) -> int:
    """One pytest run in a folder of its own, so that runs and a developer's own database do not meet."""
    print(f"\n=== {heading} ===", flush=True)
    with tempfile.TemporaryDirectory(prefix="switchboard-test-") as var:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *arguments]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, "VAR_DIR": var, **env}, check=False).returncode


def main(kind: str, arguments: list[str]) -> int:
    if kind == "quick":
        return pytest("Fast tests, on SQLite", ["-m", LEFT_OUT_OF_QUICK, *arguments], DATABASE_URL="")
    if code := pytest("All tests, on SQLite", arguments, DATABASE_URL=""):
        return code
    try:
        with services.postgres() as url:
            return pytest(
                "Tests that touch the database, on PostgreSQL", ["-m", "not once", *arguments], DATABASE_URL=url
            )
    except services.Unavailable as exc:
        print(f"\n!!! PostgreSQL cannot be started, so nothing ran on it: {exc}", file=sys.stderr)
        return 1 if os.environ.get("REQUIRE_POSTGRES") == "1" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
