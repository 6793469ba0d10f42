"""`python -m tests quick|full [pytest arguments]`: the suite as `make quick` and `make test` run it.

full = everything on SQLite, and what touches a database again on PostgreSQL. Three runs side by side keep two cores busy,
since many tests wait: most of SQLite's; what drives a browser or runs the product in processes of its own; and
PostgreSQL's.

The full suite starts servers, kills them and measures time on whatever machine it gets. So a handful of failures get
one second try, alone and without a neighbour on the other core; what passes only then is named loudly, to be mended.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests import services

LEFT_OUT_OF_QUICK = "not slow and not browser and not postgres and not redis_server"
ROOT = Path(__file__).resolve().parent.parent
MOST_SECOND_TRIES = 8
"""More failures than this are no accident."""


NOTHING_COLLECTED = 5  # pytest's exit code


@dataclass
class Run:
    """One pytest run in folders of its own, so that runs and a developer's own database do not meet."""

    heading: str
    arguments: list[str]
    name: str
    processes: int = 2
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *, alone: list[str] | None = None, is_shown: bool = True) -> tuple[int, str]:
        """(exit code, output unless shown). `alone`: only these tests, one after the other in one process."""
        heading = self.heading if alone is None else f"{self.heading}: second try of {len(alone)}"
        if is_shown:
            print(f"\n=== {heading} ===", flush=True)
        processes = ["-n", str(self.processes)] if self.processes and alone is None else []
        with tempfile.TemporaryDirectory(prefix="switchboard-test-") as var:
            command = [sys.executable, "-m", "pytest", "-q", *processes, "-o", f"cache_dir={self.cache}"]
            env = {**os.environ, "VAR_DIR": var, **self.env}
            # Compiled files are a third of a minute per run, and seconds for each server a test starts. Who wants none
            # beside the sources gets them beside the test results.
            if env.pop("PYTHONDONTWRITEBYTECODE", ""):
                env.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache/compiled"))
            done = subprocess.run(
                [*command, *(self.arguments if alone is None else alone)], cwd=ROOT, env=env, check=False,
                stdout=None if is_shown else subprocess.PIPE, stderr=None if is_shown else subprocess.STDOUT,
            )  # fmt: skip
        return done.returncode, "" if is_shown else f"\n=== {heading} ===\n{done.stdout.decode(errors='replace')}"

    @property
    def cache(self) -> Path:
        return ROOT / ".pytest_cache" / self.name

    @property
    def failed(self) -> list[str]:
        """The tests the last run saw fail."""
        try:
            return sorted(json.loads((self.cache / "v/cache/lastfailed").read_text()))
        except (OSError, ValueError):
            return []

    def forget_failures(self) -> None:
        (self.cache / "v/cache/lastfailed").unlink(missing_ok=True)


def decided(run: Run, code: int) -> int:
    """If only a few tests failed, those once more, alone. The exit code of what decided."""
    failed = run.failed
    if code != 1 or not 1 <= len(failed) <= MOST_SECOND_TRIES:
        return code
    code, _ = run.start(alone=failed)
    if code == 0:
        print("\n!!! Passed only when tried again, alone. These are to be mended:", *failed, sep="\n    ", flush=True)
    return code


def side_by_side(shown: Run, beside: list[Run]) -> int:
    """`shown`, and at the same time the runs `beside` it. Its output comes as it is written, theirs when all are over;
    then the few that failed are tried again. The exit code is that of the first that failed."""
    runs = [shown, *beside]
    for run in runs:
        run.forget_failures()
    with ThreadPoolExecutor(len(beside)) as pool:
        others = [pool.submit(run.start, is_shown=False) for run in beside]
        ended = [shown.start(), *(other.result() for other in others)]
    for _, output in ended:
        print(output, end="", flush=True)
    codes = [code for code, _ in ended]
    if set(codes) == {NOTHING_COLLECTED}:
        return NOTHING_COLLECTED
    # With a choice of tests (ARGS="-k name") some of the runs may have none of them.
    decisions = [(run, decided(run, code)) for run, code in zip(runs, codes, strict=True) if code != NOTHING_COLLECTED]
    failed = [(run.heading, code) for run, code in decisions if code]
    for heading, code in failed:  # said last: the closing lines above may be those of a run that passed
        print(f"\n!!! Failed: {heading} (pytest's exit code {code})", flush=True)
    return failed[0][1] if failed else 0


WHOLE = ("browser", "installation")
"""Markers of what drives a browser, or runs the product in processes of its own."""


def files_with(markers: Iterable[str]) -> list[str]:
    """The test files that name one of `markers`: to collect the others only to choose nothing takes ten seconds.

    tests/conftest.py sees to it that whoever has one of WHOLE names it in its own file.
    """
    names = re.compile(rf"\bmark\.({'|'.join(markers)})\b")
    return [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if names.search(path.read_text())]


def main(kind: str, arguments: list[str]) -> int:
    sqlite = {"DATABASE_URL": ""}
    if kind == "quick":
        quick = Run("Fast tests, on SQLite", ["-m", LEFT_OUT_OF_QUICK, *arguments], "quick", env=sqlite)
        return quick.start()[0]
    whole = " or ".join(WHOLE)  # one browser is enough: one process runs them all
    has_paths = any(Path(part.partition("::")[0]).exists() for part in arguments)
    choice = ["-m", whole, *arguments, *([] if has_paths else files_with(WHOLE))]
    beside = [Run("The product as a whole, on SQLite", choice, "whole", processes=0, env=sqlite)]
    others = Run("All other tests, on SQLite", ["-m", f"not ({whole})", *arguments], "sqlite", env=sqlite)
    try:
        with services.postgres() as url:
            heading, env = "Tests that touch the database, on PostgreSQL", {"DATABASE_URL": url}
            beside.append(Run(heading, ["-m", "not once", *arguments], "postgres", env=env))
            return side_by_side(others, beside)
    except services.Unavailable as exc:
        code = side_by_side(others, beside)
        print(f"\n!!! PostgreSQL cannot be started, so nothing ran on it: {exc}", file=sys.stderr)
        return code or (1 if os.environ.get("REQUIRE_POSTGRES") == "1" else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
