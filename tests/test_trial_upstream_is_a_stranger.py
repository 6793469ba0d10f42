"""Nothing outside its own folder knows the trial upstream's name: to the rest of the product it is one more endpoint.

Otherwise special cases grow, and what works with it stops proving anything about real providers (design.md §3).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

WORD = "sandbox"
ROOT = Path(settings.BASE_DIR)
SEARCHED = ("bench", "catalog", "chat", "config", "providers", "static", "templates", "usage")
AT_THE_TOP = ("manage.py", "Makefile", "pyproject.toml", ".env.example", ".ci")
ALLOWED = ("providers/sandbox/", "providers/migrations/0002_built_in_providers.py")
READ = {".py", ".html", ".txt", ".js", ".css", ".svg", ".json", ".toml", ".md", ".sh", ".cfg", ".example", ""}


def mentions(root: Path) -> list[str]:
    """Files under `root`, as relative paths, that name the trial upstream in their text or path and may not."""
    found = []
    files = [path for folder in SEARCHED for path in (root / folder).rglob("*")]
    for name in AT_THE_TOP:
        files += [root / name, *(root / name).rglob("*")]
    for path in files:
        relative = path.relative_to(root).as_posix()
        if not path.is_file() or "__pycache__" in relative or relative.startswith(ALLOWED) or path.suffix not in READ:
            continue
        if WORD in relative.lower() or WORD in path.read_text(encoding="utf-8", errors="replace").lower():
            found.append(relative)
    return found


def test_the_rest_of_the_tree_does_not_know_its_name():
    assert mentions(ROOT) == []


def test_its_own_places_do_so_the_search_sees_something():
    assert WORD in (ROOT / ALLOWED[1]).read_text()
    assert (ROOT / ALLOWED[0]).is_dir()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("catalog/routes.py", "if provider.name == 'sandbox':\n    pass\n"),
        ("templates/chat/hint.html", "<p>Try the Sandbox</p>"),
        ("static/js/elements/x.js", "const host = 'SANDBOX.internal'"),
        ("providers/clients/sandbox.py", "pass\n"),
        ("providers/migrations/0003_more.py", "'sandbox'"),
        ("Makefile", "run-sandbox:\n"),
    ],
)
def test_a_planted_mention_is_found(tmp_path, path, text):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(text)
    assert mentions(tmp_path) == [path]


def test_the_two_places_that_may_are_not_reported(tmp_path):
    for path in ("providers/sandbox/server.py", ALLOWED[1], "docs/run.md", "tests/test_x.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("sandbox")
    assert mentions(tmp_path) == []
