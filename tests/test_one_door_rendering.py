"""One door for rendering (threats.md §0, X1): only chat/rendering.py turns text into markup or calls markup safe."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
DOOR = "chat/rendering.py"
APPS = ("catalog", "chat", "config", "providers", "usage")

LIBRARIES = {"pyromark", "nh3", "pygments", "latex2mathml", "markdown", "bleach", "mistune", "markdown_it"}
SAFE_MAKERS = {"mark_safe", "SafeString", "SafeText", "SafeData", "html_safe", "__html__"}
TYPES_ARE_FINE = {"SafeString", "SafeText"}
"""These may be named in annotations, where they promise and do not make."""

IN_TEMPLATES = re.compile(r"\|\s*safe(?:seq)?\b|\{%\s*autoescape\s+off|\{%\s*(?:un)?localize\s+safe")


def python_violations(source: str, path: str) -> Iterator[str]:
    """Every use of a rendering library or of a maker of safe strings in `source`."""
    tree = ast.parse(source, path)
    annotations = {
        id(node)
        for parent in ast.walk(tree)
        for field in ("annotation", "returns")
        if (root := getattr(parent, field, None)) is not None
        for node in ast.walk(root)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.partition(".")[0] in LIBRARIES:
                    yield f"{path}:{node.lineno} imports {name}"
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name in SAFE_MAKERS - TYPES_ARE_FINE:
                        yield f"{path}:{node.lineno} imports {alias.name}"
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in SAFE_MAKERS and id(node) not in annotations:
                yield f"{path}:{node.lineno} uses {name}"
        elif isinstance(node, ast.FunctionDef) and node.name == "__html__":
            yield f"{path}:{node.lineno} defines __html__"
        elif isinstance(node, ast.keyword) and node.arg == "is_safe" and getattr(node.value, "value", None) is True:
            yield f"{path}:{node.value.lineno} registers a filter as safe"


def violations(root: Path) -> list[str]:
    found = []
    for app in APPS:
        for path in (root / app).rglob("*.py"):
            relative = path.relative_to(root).as_posix()
            if relative != DOOR:
                found += python_violations(path.read_text(), relative)
    for folder in ("templates", *APPS):
        for path in (root / folder).rglob("*.html"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if IN_TEMPLATES.search(line):
                    found.append(f"{path.relative_to(root).as_posix()}:{number} {line.strip()[:80]}")
    return found


def test_nothing_else_renders_or_calls_markup_safe():
    assert violations(ROOT) == []


def test_the_door_itself_would_be_found_so_the_search_sees_something():
    assert len(list(python_violations((ROOT / DOOR).read_text(), DOOR))) > 5


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("usage/views.py", "from django.utils.safestring import mark_safe\n"),
        ("usage/views.py", "from django.utils import safestring\nx = safestring.mark_safe('<b>')\n"),
        ("usage/views.py", "from django.utils.safestring import SafeString\nx = SafeString('<b>')\n"),
        ("catalog/models.py", "class A:\n    def __html__(self):\n        return '<b>'\n"),
        ("chat/turns.py", "import nh3\n"),
        ("chat/turns.py", "from markdown import markdown\n"),
        ("usage/tags.py", "@register.filter(is_safe=True)\ndef f(x): return x\n"),
        ("templates/a.html", "{{ message.content|safe }}"),
        ("templates/a.html", "{{ message.content | safe }}"),
        ("templates/a.html", "{% autoescape off %}{{ x }}{% endautoescape %}"),
        ("chat/templates/a.html", "{{ items|safeseq }}"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, text):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(text)
    assert violations(tmp_path)


def test_promising_a_safe_string_is_not_making_one(tmp_path):
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "x.py").write_text(
        "from django.utils.safestring import SafeString\n\ndef f(html: SafeString) -> SafeString:\n    return html\n"
    )
    assert violations(tmp_path) == []
