"""`python -m tests quick|full [pytest arguments]`: the suite as `make quick` and `make test` run it.

full = everything on SQLite, then what touches a database again on PostgreSQL. The first failing run ends it, so the
exit code and the closing lines are those of the pytest run that decided.

The full suite starts servers, kills them and measures time on whatever machine it gets. So a handful of failures get
one second try, alone and without a neighbour on the other core; what passes only then is named loudly, to be mended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import services

LEFT_OUT_OF_QUICK = "not slow and not browser and not postgres and not redis_server"
ROOT = Path(__file__).resolve().parent.parent
MOST_SECOND_TRIES = 8
"""More failures than this are no accident."""


def pytest(heading: str, arguments: list[str], *, processes: str = "3", **more_env: str) -> int:
    """One pytest run in a folder of its own, so that runs and a developer's own database do not meet."""
    print(f"\n=== {heading} ===", flush=True)
    with tempfile.TemporaryDirectory(prefix="switchboard-test-") as var:
        command = [sys.executable, "-m", "pytest", "-q", "-n", processes, *arguments]
        env = {**os.environ, "VAR_DIR": var, **more_env}
        # Compiled files are a third of a minute per run, and seconds for each server a test starts. Who wants none
        # beside the sources gets them beside the test results.
        if env.pop("PYTHONDONTWRITEBYTECODE", ""):
            env.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache/compiled"))
        return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def failed_tests() -> list[str]:
    """The tests the last run saw fail."""
    try:
        return sorted(json.loads((ROOT / ".pytest_cache/v/cache/lastfailed").read_text()))
    except (OSError, ValueError):
        return []


def with_second_try(heading: str, arguments: list[str], **env: str) -> int:
    """A run; if only a few tests fail, those once more, alone. The exit code of what decided."""
    (ROOT / ".pytest_cache/v/cache/lastfailed").unlink(missing_ok=True)
    code = pytest(heading, arguments, **env)
    failed = failed_tests()
    if code != 1 or not 1 <= len(failed) <= MOST_SECOND_TRIES:
        return code
    code = pytest(f"{heading}: second try of {len(failed)}", failed, processes="0", **env)
    if code == 0:
        print("\n!!! Passed only when tried again, alone. These are to be mended:", *failed, sep="\n    ", flush=True)
    return code


def main(kind: str, arguments: list[str]) -> int:
    if kind == "quick":
        return pytest("Fast tests, on SQLite", ["-m", LEFT_OUT_OF_QUICK, *arguments], processes="2", DATABASE_URL="")
    if code := with_second_try("All tests, on SQLite", arguments, DATABASE_URL=""):
        return code
    try:
        with services.postgres() as url:
            return with_second_try(
                "Tests that touch the database, on PostgreSQL", ["-m", "not once", *arguments], DATABASE_URL=url
            )
    except services.Unavailable as exc:
        print(f"\n!!! PostgreSQL cannot be started, so nothing ran on it: {exc}", file=sys.stderr)
        return 1 if os.environ.get("REQUIRE_POSTGRES") == "1" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
