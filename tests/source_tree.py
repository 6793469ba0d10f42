"""What the tests over the source tree read: every tracked file once, as a path and a text.

A rule is a function `(path, text) -> iterator of complaints`; a complaint is "path:line what". Each rule is also run on
a planted violation, which it must find, and on an innocent near-miss, which it must leave alone.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = ("providers", "catalog", "usage", "chat")
"""The domain modules, lowest first: each may import itself and what stands before it."""
APPS = (*DOMAIN, "config")
UNTRACKED = {".git", ".venv", "var", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


@dataclass(frozen=True)
class File:
    """A file of the tree. `path` is relative to its root, with slashes."""

    path: str
    data: bytes

    @cached_property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    @property
    def is_binary(self) -> bool:
        return b"\0" in self.data[:8000]

    @property
    def app(self) -> str:
        return self.path.partition("/")[0]


@lru_cache(maxsize=1)
def files() -> tuple[File, ...]:
    """Every file that is tracked or would be, by git; without git, everything but what is made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode == 0:
        names = sorted(set(listed.stdout.decode().split("\0")) - {""})
    else:
        names = sorted(
            path.relative_to(ROOT).as_posix()
            for path in ROOT.rglob("*")
            if not UNTRACKED & set(path.relative_to(ROOT).parts)
        )
    return tuple(File(name, (ROOT / name).read_bytes()) for name in names if (ROOT / name).is_file())


def python(*folders: str) -> Iterator[File]:
    """Python files under `folders` (default: all our apps), migrations left out: they are history."""
    for file in files():
        if file.path.endswith(".py") and file.app in (folders or APPS) and "/migrations/" not in file.path:
            yield file


@lru_cache(maxsize=512)
def parsed(path: str, text: str) -> ast.Module:
    """The tree of `text`; each node knows its `parent` and the function it is in. Not to be changed: it is shared."""
    tree = ast.parse(text, path)
    tree.function = ""  # type: ignore[attr-defined]
    tree.nodes = tuple(ast.walk(tree))  # type: ignore[attr-defined]
    for node in tree.nodes:  # type: ignore[attr-defined]
        inside = node.function
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{inside}.{node.name}".lstrip(".")
        for child in ast.iter_child_nodes(node):
            child.parent, child.function = node, inside  # type: ignore[attr-defined]
    return tree


def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """What `ast.walk` gives for a tree from `parsed`, walked once: many rules look at the same file."""
    return tree.nodes  # type: ignore[attr-defined]


def parents(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes around `node`, innermost first. Of a tree from `parsed`."""
    while (node := getattr(node, "parent", None)) is not None:  # type: ignore[assignment]
        yield node


def function_around(node: ast.AST) -> str:
    """The dotted name of the function and class `node` stands in; "" at the top of the file. Of a tree from `parsed`."""
    return node.function  # type: ignore[attr-defined]


def is_for_types_only(node: ast.AST) -> bool:
    """Whether `node` stands under `if TYPE_CHECKING:`, so that it never runs."""
    child: ast.AST = node
    for parent in parents(node):
        if isinstance(parent, ast.If) and child in parent.body and dotted(parent.test).endswith("TYPE_CHECKING"):
            return True
        child = parent
    return False


def dotted(node: ast.AST) -> str:
    """`a.b.c` as text; what is no plain name becomes "?"."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "?", *reversed(names)])


def chain(node: ast.AST) -> tuple[ast.AST, list[str]]:
    """What a chain of attributes, calls and indexes begins with, and its names: `A.objects.filter(x)[0]` gives
    (A, [objects, filter])."""
    names: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Subscript | ast.Await | ast.Starred):
            node = node.value
        else:
            return node, names[::-1]


def lines_with(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    """(line number, what matched) of every match in `text`."""
    for found in pattern.finditer(text):
        yield text.count("\n", 0, found.start()) + 1, found[0].strip()


def literal(node: ast.AST | None) -> str:
    """The text of a string constant, or the constant parts of an f-string; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def imported(tree: ast.AST, path: str) -> Iterator[tuple[ast.AST, str]]:
    """(node, dotted module or name) of every import that runs, relative ones and those by name included."""
    package = path.removesuffix(".py").removesuffix("/__init__").split("/")
    if not path.endswith("/__init__.py"):
        package = package[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call) or is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node, f"{module}.{alias.name}"
        else:
            called = dotted(node.func).rpartition(".")[2]
            name = literal(node.args[0]) if node.args else ""
            if name and called in {"import_module", "import_string", "__import__"}:
                yield node, name.replace(":", ".")
            elif name and called in {"get_model", "get_app_config"}:
                yield node, f"{name.partition('.')[0]}.models"
