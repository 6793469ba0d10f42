"""One door for HTTP (threats.md §0): nothing outside providers/net.py speaks to the network by other means.

Its parser of answers, providers/wire.py, is the one other file that may import such libraries, and opens nothing.

Reads the source, so a new call site fails the build before anybody has to find it by attack (Open WebUI closed a
redirect hole at five call sites and missed the sixth).
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOOR = "providers/net.py"
WIRE = "providers/wire.py"
FORBIDDEN_MODULES = (
    *(
        "httpx",
        "aiohttp",
        "yarl",
        "httpx_aiohttp",
        "httptools",
        "requests",
        "urllib3",
        "httpcore",
        "httpx2",  # genai-prices brings them; it is only read
        "httpcore2",
        "apprise",  # S7: whoever first sends notices builds their door, with the rules of threats.md
        "niquests",
        "pycurl",
        "websockets",
    ),
    *("urllib.request", "http.client", "ftplib", "smtplib", "poplib", "imaplib", "telnetlib", "xmlrpc.client"),
    *("asyncio.open_connection", "asyncio.open_unix_connection", "socket.create_connection"),
    *("socket.getaddrinfo", "socket.gethostbyname", "django.core.mail.backends.smtp"),
)
FORBIDDEN_METHODS = frozenset(
    {"create_connection", "sock_connect", "open_connection", "start_tls", "connect_ex", "create_datagram_endpoint"}
)
"""Names of calls on any object: an event loop in a variable opens sockets too. Listening is not calling."""

ALLOWED = {
    "providers/sandbox/": "a server of our own, on a raw socket so that it can misbehave",
}
PARSES = frozenset({"httptools", "aiohttp.client_proto", "aiohttp.connector", "aiohttp.helpers"})
"""What WIRE may import: parsing, and the classes it extends or is lent. Whom to call is decided in DOOR alone."""

KNOWN = {
    "config/supervisor.py": ("calls asyncio.open_connection", "asks its own child on loopback whether it is up"),
}
"""File → the one thing found there that may stay, and why."""
SKIPPED = frozenset({".venv", "var", "tests", "bench", "node_modules", "build", ".git", ".ci", "dist"})


def violations(source: str, path: str) -> Iterator[str]:
    """Each way in which `source` reaches the network past the door, as "path:line what"."""
    names: dict[str, str] = {}  # what a name in this file stands for, such as r → requests
    nodes = list(ast.walk(ast.parse(source, path)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                if _is_forbidden(alias.name):
                    yield f"{path}:{node.lineno} imports {alias.name}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = whole = f"{node.module}.{alias.name}"
                if _is_forbidden(whole) or _is_forbidden(node.module or ""):
                    yield f"{path}:{node.lineno} imports {whole}"
    for node in nodes:
        if isinstance(node, ast.Call):
            called = _dotted(node.func)
            head, _, rest = called.partition(".")
            imported = names.get(head, "?" if rest else head)
            whole = f"{imported}.{rest}" if rest else imported
            last = called.rpartition(".")[2]
            connects = last == "connect" and any(isinstance(argument, ast.Tuple) for argument in node.args)
            if _is_forbidden(whole) or (rest and (last in FORBIDDEN_METHODS or connects)):
                yield f"{path}:{node.lineno} calls {called}"
            if whole in {"__import__", "importlib.import_module"} and node.args:
                wanted = node.args[0]
                if isinstance(wanted, ast.Constant) and isinstance(wanted.value, str) and _is_forbidden(wanted.value):
                    yield f"{path}:{node.lineno} imports {wanted.value}"


def _is_forbidden(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in FORBIDDEN_MODULES)


def _dotted(node: ast.expr) -> str:
    """`a.b.c` as text; a call or index in front of the last names becomes "?"."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "?")
    return ".".join(reversed(parts))


def sources() -> Iterator[Path]:
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = sorted(set(subfolders) - SKIPPED)  # never walks into .venv
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))


def test_nothing_reaches_the_network_past_the_door():
    found = []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if name not in {DOOR, WIRE} and not any(name.startswith(allowed) for allowed in ALLOWED):
            known = KNOWN.get(name, ("", ""))[0]
            found += [line for line in violations(path.read_text(), name) if not known or not line.endswith(known)]
    assert found == []


def test_the_parser_of_answers_opens_nothing():
    """It may import what parses, call none of it but the parser, and only the door may use it."""
    found = [line.split(" ", 1)[1] for line in violations((ROOT / WIRE).read_text(), WIRE)]
    imports = {line.removeprefix("imports ") for line in found if line.startswith("imports ")}
    assert imports and all(any(name == it or name.startswith(f"{it}.") for it in PARSES) for name in imports)
    assert {line for line in found if line.startswith("calls ")} == {"calls httptools.HttpResponseParser"}
    for path in sources():
        text = path.read_text()
        if path.relative_to(ROOT).as_posix() not in {DOOR, WIRE}:
            assert "providers.wire" not in text and "providers import wire" not in text, path


def test_each_known_exception_is_still_there():
    """What is no longer needed is taken off the list."""
    for name, (what, _) in KNOWN.items():
        assert any(line.endswith(what) for line in violations((ROOT / name).read_text(), name)), name


def test_the_reader_sees_the_whole_product():
    names = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert {DOOR, "config/settings.py", "providers/models.py", "providers/clients/openai_compatible.py"} <= names
    assert not any(name.startswith("tests/") for name in names)


def test_the_door_itself_would_be_caught_anywhere_else():
    """The rule is not vacuous: applied to the door, it finds every import the door is there for."""
    found = " ".join(violations((ROOT / DOOR).read_text(), "elsewhere.py"))
    for what in ("imports httpx", "imports aiohttp", "imports yarl", "calls socket.getaddrinfo"):
        assert what in found


PLANTED = [
    "import httpx",
    "import httpx as h",
    "from httpx import AsyncClient",
    "import aiohttp.client",
    "from aiohttp.client import ClientSession as C",
    "import requests",
    "from requests.sessions import Session",
    "import urllib.request",
    "from urllib import request",
    "from urllib.request import urlopen as u",
    "import urllib\nurllib.request.urlopen('x')",
    "import http.client",
    "from http import client",
    "import urllib3",
    "from yarl import URL",
    "import smtplib",
    "import apprise",
    "from apprise.plugins import NotifyBase",
    "import httpx2",
    "def f():\n    import httpx",
    "if True:\n    try:\n        import requests\n    except ImportError:\n        pass",
    "import asyncio\nasync def f():\n    await asyncio.open_connection('h', 80)",
    "import asyncio as a\nasync def f():\n    await a.open_connection('h', 80)",
    "from asyncio import open_connection as o\nasync def f():\n    await o('h', 80)",
    "import asyncio\nasync def f():\n    await asyncio.get_running_loop().create_connection(None, 'h', 80)",
    "async def f(loop, s):\n    await loop.sock_connect(s, ('h', 80))",
    "import socket\nsocket.create_connection(('h', 80))",
    "import socket as s\ns.socket().connect(('h', 80))",
    "from socket import socket\nsocket().connect(('h', 80))",
    "import socket\nsocket.getaddrinfo('h', 80)",
    "from socket import socket as s\nx = s()\nx.connect_ex(('h', 80))",
    "import importlib\nimportlib.import_module('httpx')",
    "from importlib import import_module\nimport_module('requests.sessions')",
    "__import__('aiohttp')",
]
INNOCENT = [
    "from providers import net\nasync def f():\n    await net.request('GET', 'https://example.org')",
    "import socket\nname = socket.gethostname()",
    "import socket\nlistener = socket.socket()\nlistener.bind(('127.0.0.1', 0))",
    "from django.db.models.signals import post_save\npost_save.connect(print)",
    "import urllib.parse\nurllib.parse.urlsplit('x')",
    "from urllib.parse import quote",
    "from http import HTTPStatus",
    "import http.cookies",
    "import httpxx",
    "from django.http import HttpResponse\nHttpResponse('httpx')",
    "requests = []\nrequests.append(1)",
    "import asyncio\nasyncio.start_server(None)",
    "from .requests import thing",
]


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_violation_is_caught(source):
    assert list(violations(source, "planted.py")), source


@pytest.mark.parametrize("source", INNOCENT)
def test_ordinary_code_is_left_alone(source):
    assert list(violations(source, "innocent.py")) == []


def test_a_violation_planted_in_the_tree_fails_the_rule(tmp_path, monkeypatch):
    """The whole rule, not only its reader: a file that calls past the door is found by name and line."""
    folder = tmp_path / "chat"
    folder.mkdir()
    (folder / "titles.py").write_text("'''Titles.'''\n\nimport httpx\n\nhttpx.get('https://example.org')\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "free.py").write_text("import httpx\n")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    with pytest.raises(AssertionError, match=r"chat/titles\.py:3 imports httpx"):
        test_nothing_reaches_the_network_past_the_door()
