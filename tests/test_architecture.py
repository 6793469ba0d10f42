"""The house (design.md §4): who may import whom, what files may be called, what may lie in the tree.

The other rules over the source stand beside this file, each with planted violations:

    test_one_door_http.py                 HTTP libraries and sockets: providers/net.py
    test_one_door_rendering.py            markup: chat/rendering.py
    test_one_door_writes.py               vault, ledger, catalog, redirects
    test_owned_rows.py                    every owned model has for_user, and look-ups start there (A1)
    test_trial_upstream_is_a_stranger.py  the trial upstream's name
    config/test_policy.py                 inline scripts and styles
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.source_tree import APPS, DOMAIN, ROOT, File, files, imported, lines_with, literal, parsed, python

pytestmark = pytest.mark.once

# -- Imports point one way -------------------------------------------------------------------------------------------

COMPOSERS = re.compile(r"(^|/)(\w*_)?(views|forms|admin|tasks|context|urls)\.py$|/management/")
"""These may compose what their page or command shows; but nobody outside `chat` imports `chat`."""

FOUNDATION = {"config.crash", "config.hot", "config.htmx", "config.ids"}
"""The parts of `config` a domain module may use: they know no domain module themselves."""

WITHOUT_DJANGO = re.compile(r"^providers/(clients/.*|sandbox/.*|net|wire|addresses)\.py$")


def one_way(path: str, text: str) -> Iterator[str]:
    """Imports that point up: towards `chat`, towards a later domain module, or into what composes."""
    app = path.partition("/")[0]
    if app not in APPS:
        return
    for node, name in imported(tree := parsed(path, text), path):
        target = name.partition(".")[0]
        if target == "chat" and app not in {"chat", "config"}:
            yield f"{path}:{node.lineno} imports {name}: nobody imports chat"
        elif app in DOMAIN and target in DOMAIN and DOMAIN.index(target) > DOMAIN.index(app):
            if not COMPOSERS.search(path):
                yield f"{path}:{node.lineno} imports {name}: {app} stands below {target}"
        elif app in DOMAIN and target == "config" and not any(f"{name}.".startswith(f"{f}.") for f in FOUNDATION):
            yield f"{path}:{node.lineno} imports {name}: only {', '.join(sorted(FOUNDATION))} may be used"
        elif target in DOMAIN and path.removesuffix(".py").replace("/", ".") in FOUNDATION:
            yield f"{path}:{node.lineno} imports {name}: the foundation knows no domain module"
    if app in DOMAIN and not COMPOSERS.search(path):
        yield from _named_upwards(path, tree, app)


def _named_upwards(path: str, tree: ast.AST, app: str) -> Iterator[str]:
    """Dependence by name: a relation to "chat.Message", an address of "chat:…"."""
    above = "|".join(DOMAIN[DOMAIN.index(app) + 1 :])
    if not above:
        return
    for node in ast.walk(tree):
        for argument in getattr(node, "args", []) if isinstance(node, ast.Call) else []:
            if re.fullmatch(rf"(?:{above})(?:\.[A-Z]\w*|:[\w-]+)", literal(argument)):
                yield f"{path}:{argument.lineno} names {literal(argument)}"


def knows_no_django(path: str, text: str) -> Iterator[str]:
    """Django, or a module of ours that uses it, imported where an upstream is spoken to."""
    if not WITHOUT_DJANGO.match(path):
        return
    for node, name in imported(parsed(path, text), path):
        top = name.partition(".")[0]
        if top == "django" or top.startswith("django_"):
            yield f"{path}:{node.lineno} imports {name}"
        elif top in APPS:
            # `from providers import net` names a module or something inside one: either must be free of Django.
            steps = name.split(".")
            candidates = {"/".join(steps[:n]) for n in range(1, len(steps) + 1)}
            if not any(WITHOUT_DJANGO.match(f"{one}.py") for one in candidates) and name != "providers.clients":
                yield f"{path}:{node.lineno} imports {name}, which may use Django"


def test_imports_point_one_way():
    assert [found for file in python() for found in one_way(file.path, file.text)] == []


def test_what_speaks_to_upstreams_knows_no_django():
    free = [file for file in python() if WITHOUT_DJANGO.match(file.path)]
    assert len(free) > 12, "the search sees something"
    assert [found for file in free for found in knows_no_django(file.path, file.text)] == []


def test_what_speaks_to_upstreams_runs_where_django_was_never_loaded():
    names = [
        re.sub(r"\.__init__$", "", file.path.removesuffix(".py").replace("/", "."))
        for file in python()
        if WITHOUT_DJANGO.match(file.path) and "__main__" not in file.path
    ]
    code = f"import sys\nfor name in {names!r}: __import__(name)\nsys.exit('django' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("catalog/sync.py", "from usage.models import UsageLog"),
        ("catalog/sync.py", "import usage.ledger"),
        ("providers/health.py", "from catalog import sync"),
        ("usage/reports.py", "from chat.models import Message"),
        ("usage/admin.py", "from chat import turns"),
        ("providers/views.py", "def f():\n    from chat.models import Message"),
        ("providers/models.py", "def f():\n    import catalog.models"),
        ("providers/net.py", "try:\n    from usage import ledger\nexcept ImportError:\n    pass"),
        ("providers/health.py", "from importlib import import_module\nimport_module('usage.ledger')"),
        ("providers/health.py", "import_string('catalog.sync.queue')"),
        ("catalog/search.py", "from django.apps import apps\napps.get_model('usage', 'UsageLog')"),
        ("catalog/search.py", "apps.get_model('chat.Message')"),
        ("catalog/models.py", "x = models.ForeignKey('chat.Message', models.CASCADE)"),
        ("catalog/models.py", "reverse('usage:usage-list')"),
        ("catalog/models.py", "from ..chat import models"),
        ("usage/ledger.py", "from config import settings"),
        ("usage/ledger.py", "from config.dispatcher import Dispatcher"),
        ("catalog/sync.py", "if not TYPE_CHECKING:\n    from usage import ledger"),
        ("catalog/sync.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from usage import ledger"),
        ("config/hot.py", "from chat import events"),
        ("usage/reviews.py", "from chat import turns"),
    ],
)
def test_a_planted_import_that_points_up_is_found(path, text):
    assert list(one_way(path, text)), text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "chat/generation.py",
            "from usage import ledger\nfrom catalog.routes import Route\nfrom config.hot import text",
        ),
        ("catalog/sync.py", "if TYPE_CHECKING:\n    from usage.models import UsageLog"),
        ("catalog/sync.py", "if typing.TYPE_CHECKING:\n    from usage.models import UsageLog"),
        ("providers/views.py", "from catalog import sync\nfrom usage.models import UsageLog"),
        ("providers/management/commands/check.py", "from catalog import sync"),
        ("usage/token_views.py", "from catalog.models import AggregatorModel"),
        ("catalog/sync.py", "usage = {'chat': 1}\nfrom catalog import reading\nfrom . import models"),
        ("catalog/sync.py", "import chatter\nfrom usages import x"),
        ("config/urls.py", "from chat import views"),
        ("config/dispatcher.py", "import_string('chat.events.generation_events')"),
        ("usage/ledger.py", "from config.crash import crash_at\nfrom config import hot"),
        ("catalog/models.py", "x = models.ForeignKey('providers.Provider', models.CASCADE)\nlog('chat: it works')"),
        ("tests/usage/test_x.py", "from chat import turns"),
    ],
)
def test_imports_that_are_fine_are_left_alone(path, text):
    assert list(one_way(path, text)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("providers/net.py", "from django.conf import settings"),
        ("providers/clients/base.py", "def f():\n    import django.utils.timezone"),
        ("providers/clients/registry.py", "from providers.models import Provider"),
        ("providers/clients/registry.py", "from ..models import Provider"),
        ("providers/addresses.py", "from providers import vault"),
        ("providers/sandbox/server.py", "from config import hot"),
        ("providers/clients/new.py", "import_module('django.conf')"),
        ("providers/clients/new.py", "import django_htmx"),
    ],
)
def test_planted_django_is_found(path, text):
    assert list(knows_no_django(path, text)), text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "providers/net.py",
            "import httpx\nfrom providers.clients.errors import ProviderError\nfrom providers import addresses",
        ),
        (
            "providers/clients/new.py",
            "from providers import net\nfrom providers.clients import prices, sse\nfrom .base import X",
        ),
        ("providers/clients/new.py", "if TYPE_CHECKING:\n    from providers.models import ProviderAccount"),
        ("providers/vault.py", "from django.conf import settings"),
    ],
)
def test_code_without_django_is_left_alone(path, text):
    assert list(knows_no_django(path, text)) == []


# -- Names of files --------------------------------------------------------------------------------------------------

NAMED_IN_COMMANDS = {
    "tests/services.py": "starts PostgreSQL and Redis, which are services; bench/ and everybody's commands name it"
}
VAGUE = re.compile(r"(^|/|_)(utils?|helpers?|services?|managers?|misc|common)(\.\w+$|/)")


def vague_name(path: str, text: str = "") -> Iterator[str]:
    """A file or folder whose name says nothing about what is in it."""
    if VAGUE.search(path) and path not in NAMED_IN_COMMANDS:
        yield f"{path} says nothing about what is in it"


def test_every_file_is_named_after_what_is_in_it():
    assert [found for file in files() for found in vague_name(file.path)] == []


@pytest.mark.parametrize(
    "path",
    [
        "chat/utils.py",
        "usage/helpers.py",
        "catalog/services/prices.py",
        "chat/managers.py",
        "usage/date_utils.py",
        "tests/util.py",
    ],
)
def test_a_planted_vague_name_is_found(path):
    assert list(vague_name(path))


@pytest.mark.parametrize("path", ["usage/management/commands/x.py", "chat/serviceable.py", "static/css/utilities.css"])
def test_clear_names_are_left_alone(path):
    assert list(vague_name(path)) == []


# -- What lies in the tree -------------------------------------------------------------------------------------------

PICTURES = re.compile(r"^docs/.*\.(png|webp)$")
NOT_OURS = re.compile(
    r"(^|/)(vendor|vendored|third[_-]?party|node_modules|bower_components|external|lib)/|\.min\.(js|css)$|(^|/)package(-lock)?\.json$"
)
FOREIGN_LICENCE = re.compile(
    r"/\*!|@(?:licen[cs]e|preserve)\b|\b[Cc]opyright\s*(?:\([Cc]\)|©|\d{4})|\b[Rr]eleased under the \w+ licen[cs]e|\bSPDX-License"
)


def not_our_own(path: str, text: str) -> Iterator[str]:
    """What somebody else wrote, or a machine: it comes by pip, pinned by hash (P4)."""
    if NOT_OURS.search(path):
        yield f"{path} looks like a third party's file"
    if path.startswith(("static/", "templates/", *(f"{app}/" for app in APPS))):
        for number, notice in lines_with(FOREIGN_LICENCE, text):
            yield f"{path}:{number} carries a licence notice: {notice}"
        if path.endswith((".js", ".css")) and max(map(len, text.splitlines()), default=0) > 400:
            yield f"{path} has lines as a minifier writes them"


def test_everything_in_the_tree_is_our_own():
    assert [found for file in files() for found in not_our_own(file.path, file.text)] == []
    binary = [file.path for file in files() if file.is_binary and not PICTURES.search(file.path)]
    assert binary == [], "nobody can review these"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("static/js/htmx.min.js", ""),
        ("static/vendor/chart.js", ""),
        ("static/lib/a.css", ""),
        ("static/js/a.js", "/*! Chart v1 */"),
        ("static/js/a.js", "/**\n * @license MIT\n */"),
        ("static/js/a.js", "// Copyright (c) 2020 Somebody"),
        ("chat/markdown.py", "# Copyright 2021 Somebody Else"),
        ("static/js/a.js", "x=1;" * 200),
        ("package.json", "{}"),
    ],
)
def test_a_planted_foreign_file_is_found(path, text):
    assert list(not_our_own(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("static/js/elements/copy-button.js", "// Copies the code beside it.\n" + "x()\n" * 400),
        ("LICENSE", "MIT License\n\nCopyright (c) 2026 The Switchboard authors"),
        ("static/css/library.css", "/* the model library */"),
        ("chat/rendering.py", "# removes copyright signs"),
    ],
)
def test_our_own_files_are_left_alone(path, text):
    assert list(not_our_own(path, text)) == []


# The patterns below are written so that they do not match themselves.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|work|Users|mnt|private/var)/[\w.-]")
REGISTRY = re.compile(
    r"(?:py[p]i\.org|pythonh[o]sted\.org|registry\.n[p]mjs|regis[t]ry\.yarnpkg|c[d]njs\.|un[p]kg\.com|jsdel[i]vr|esm\.s[h]\b"
    r"|cr[a]tes\.io|ru[b]ygems\.org|g[h]cr\.io|dock[e]r\.io|q[u]ay\.io|deb\.deb[i]an\.org|archive\.ub[u]ntu|arti[f]actory|devp[i]\b"
    r"|g[o]proxy|prox[y]\.golang)"
    r"|--(?:extra-)?index-ur[l]\b|--trusted-hos[t]\b|--find-link[s]\b|(?:PIP|UV)_(?:EXTRA_)?INDEX|(?:PIP|UV)_DEFAULT_INDEX",
)


def tied_to_a_machine(path: str, text: str) -> Iterator[str]:
    """Paths of one computer, and addresses of package registries: a clone elsewhere has neither."""
    for pattern in (MACHINE_PATH, REGISTRY):
        for number, found in lines_with(pattern, text):
            yield f"{path}:{number} {found}"


LOCKED = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*(?:\[[\w,-]+\])?==[^\s;]+)(?P<marker> ; .+?)? \\"
    r"|    --hash=sha256:[0-9a-f]{64}(?: \\)?"
    r"|    #.*|"
)


def unlocked(path: str, text: str) -> Iterator[str]:
    """Lines of a lock file that are no pinned requirement, hash or reason: an index, an address, a loose version."""
    for number, line in enumerate(text.splitlines(), 1):
        if not LOCKED.fullmatch(line) or "://" in line:
            yield f"{path}:{number} {line[:80]}"
    blocks = re.split(r"\n(?=\S)", text.strip())
    yield from (f"{path} {block.splitlines()[0]} has no hash" for block in blocks if "--hash=sha256:" not in block)


def test_nothing_in_the_tree_is_tied_to_one_machine_or_registry():
    read = [file for file in files() if not file.is_binary and file not in lock_files()]
    assert [line for file in read for line in tied_to_a_machine(file.path, file.text)] == []


def lock_files() -> list[File]:
    return [file for file in files() if re.fullmatch(r"requirements[\w-]*\.txt", file.path)]


def test_the_lock_files_hold_pins_and_hashes_and_no_address():
    locks = lock_files()
    assert len(locks) == 3, "for running, for tests and checks, and pip itself"
    assert [found for file in locks for found in unlocked(file.path, file.text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "open('/ho¦me/alice/x')",
        "cd /wo¦rk/main && make",
        "file:///ro¦ot/.cache",
        "--index-¦url https://x.example/simple",
        "PIP_¦INDEX_URL=x",
        "https://py¦pi.org/simple",
        "https://files.python¦hosted.org/x",
        "<script src=https://un¦pkg.com/htmx>",
        "FROM gh¦cr.io/x/y",
    ],
)
def test_a_planted_tie_to_a_machine_is_found(text):
    assert list(tied_to_a_machine("docs/run.md", text.replace("¦", "")))  # so that this file is none itself


@pytest.mark.parametrize(
    "text",
    [
        "ROOT / 'home' / 'x'",
        "path('chat/ro¦ot/', views.x)",
        "https://example.org/home/alice",
        "./wo¦rk/notes.txt",
        "--no-emit-index-¦url",
        "/homework/",
        "a.pypi_like_name",
        "~/wo¦rk/x",
    ],
)
def test_what_holds_on_every_machine_is_left_alone(text):
    assert list(tied_to_a_machine("docs/run.md", text.replace("¦", ""))) == []


HASH = f"    --hash=sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "text",
    [
        f"--index-{'url'} https://x.example/simple\ndjango==5.2 \\\n{HASH}",
        f"django>=5.2 \\\n{HASH}",
        "django==5.2",
        f"django==5.2 \\\n{HASH}\nidna==3.1 \\\n    # via x",
        f"pkg @ https://x.example/pkg.whl \\\n{HASH}",
        f"django==5.2 \\\n{HASH}\n    # from https://x.example",
        "django==5.2 \\\n    --hash=md5:00",
    ],
)
def test_a_planted_loose_line_in_a_lock_file_is_found(text):
    assert list(unlocked("requirements.txt", text))


def test_pinned_lines_are_left_alone():
    text = f"django==5.2.1 \\\n{HASH} \\\n{HASH}\n    # via\n    #   switchboard (pyproject.toml)\nuvloop==0.21 ; sys_platform != 'win32' \\\n{HASH}\npsycopg[binary,pool]==3.2 \\\n{HASH}"
    assert list(unlocked("requirements.txt", text)) == []


# -- What scripts may do ---------------------------------------------------------------------------------------------

SCRIPT_RULES = {
    r"\beval\s*\(|\bnew\s+Function\b|\bFunction\s*\(|\bset(?:Timeout|Interval)\s*\(\s*[\"'`]": "runs text as code",
    r"\b(?:innerHTML|outerHTML)\s*\+?=(?!=)|\binsertAdjacentHTML\b|\bdocument\.write|\bcreateContextualFragment\b|\bsetHTMLUnsafe\b": (
        "makes markup from text"
    ),
    r"\b(?:localStorage|sessionStorage|indexedDB)\b|\bcaches\.open\b|\bdocument\.cookie\b|\bserviceWorker\b": (
        "leaves something in the browser"
    ),
    r"\bsetAttribute\s*\(\s*[\"'`](?:on\w+|style|srcdoc|hx-on)|\.cssText\s*=|\.on(?:click|load|error|submit)\s*=": (
        "makes an inline handler or style"
    ),
    r"[\"'`](?:https?:)?//\w": "names another origin",
}
SCRIPTS_THAT_MAY = {
    ("static/js/elements/generation-stream.js", "makes markup from text"): (
        "puts in what chat/rendering.py made and sanitised on the server, the same as after a reload (X1)"
    ),
}


def script_does(path: str, text: str) -> Iterator[str]:
    """What a script of ours may not do: eval, markup from text, storage (X9), inline handlers, other origins (X2)."""
    for number, line in enumerate(
        re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.S).splitlines(), 1
    ):
        code = re.sub(r"(^|\s)//.*", "", line)
        for pattern, what in SCRIPT_RULES.items():
            if re.search(pattern, code):
                yield f"{path}:{number} {what}"


def test_our_scripts_run_no_text_make_no_markup_and_store_nothing():
    used, found = set(), []
    for file in files():
        if not file.path.endswith(".js"):
            continue
        for line in script_does(file.path, file.text):
            key = (file.path, line.partition(" ")[2])
            used.add(key)
            if key not in SCRIPTS_THAT_MAY:
                found.append(line)
    assert found == []
    assert set(SCRIPTS_THAT_MAY) <= used, "an exception nobody needs any more"


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)",
        "new Function('a')()",
        "setTimeout('x()', 1)",
        "box.innerHTML = text",
        "box.innerHTML += text",
        "box.insertAdjacentHTML('beforeend', x)",
        "document.write(x)",
        "localStorage.setItem('draft', x)",
        "sessionStorage.x = 1",
        "document.cookie = 'a=b'",
        "a.setAttribute('onclick', 'x()')",
        'a.setAttribute("style", x)',
        "a.onclick = x",
        "fetch('https://example.org')",
        "import '//cdn.example/x.js'",
    ],
)
def test_a_planted_script_is_found(text):
    assert list(script_does("static/js/a.js", text))


@pytest.mark.parametrize(
    "text",
    [
        "// eval(x) would be refused\nbox.textContent = text",
        "/* localStorage is not used */",
        "if (box.innerHTML === '') x()",
        "setTimeout(() => x(), 10)",
        "a.addEventListener('click', x)",
        "fetch('/models/select/')",
        "new URL(x, location.origin)",
        "a.setAttribute('aria-label', x)",
    ],
)
def test_ordinary_scripts_are_left_alone(text):
    assert list(script_does("static/js/a.js", text)) == []
