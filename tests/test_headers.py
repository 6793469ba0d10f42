"""What every response tells the browser (X8, I22): pages, errors, redirects, static files, streams and /v1, crawled.

The addresses come from the URLconf and the hot table, so a new one is in the crawl at once. The templates' own text is
held by tests/config/test_policy.py; here it is the finished page, with the policy it came with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connections
from django.test import Client
from django.urls import reverse

from config import hot
from config.dispatcher import Dispatcher
from providers import net
from tests.asgi import Answer, ask
from tests.routes import path_of, walk
from tests.world import Things, things_of
from usage import tokens

pytestmark = [pytest.mark.slow, pytest.mark.once]

# -- What an answer must say -----------------------------------------------------------------------------------------

EXACT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
}
PERMISSIONS = {"camera=()", "microphone=()", "geolocation=()", "payment=()", "usb=()"}
SILENT = {"server", "x-powered-by", "access-control-allow-origin", "access-control-allow-credentials"}
DOCUMENT = {
    "default-src": {"'none'"},
    "object-src": {"'none'"},
    "base-uri": {"'none'"},
    "frame-ancestors": {"'none'"},
    "form-action": {"'self'"},
}


def directives(header: str) -> dict[str, set[str]]:
    return {name: set(values) for name, *values in (part.split() for part in header.split(";") if part.strip())}


def problems(answer: Answer, *, is_static: bool = False, is_https: bool = False) -> Iterator[str]:
    """What is missing or too much in the headers of `answer`."""
    names = [name for name, _ in answer.headers]
    values = dict(answer.headers)
    yield from (f"{name} stands twice" for name in set(names) if names.count(name) > 1 and name != "set-cookie")
    yield from (f"{name} is {values.get(name)}" for name, value in EXACT.items() if values.get(name) != value)
    yield from (f"{name} is there" for name in SILENT & set(names))
    if not set(values.get("permissions-policy", "").split(", ")) >= PERMISSIONS:
        yield f"permissions-policy is {values.get('permissions-policy')}"
    if not re.fullmatch(r"[0-9a-f]{16}", values.get("x-request-id", "")):
        yield "no x-request-id (I21)"
    policy = directives(values.get("content-security-policy", ""))
    if policy.get("default-src") != {"'none'"} or policy.get("frame-ancestors") != {"'none'"}:
        yield f"content-security-policy is {values.get('content-security-policy')}"
    for name, sources in policy.items():
        for source in sources:
            if source.startswith("'unsafe") or source in {"*", "https:", "http:", "blob:"} or "//" in source:
                yield f"{name} allows {source}"
            if source == "data:" and name != "img-src":
                yield f"{name} allows {source}"
    if is_document(answer):
        yield from (f"{name} is {policy.get(name)}" for name, value in DOCUMENT.items() if policy.get(name) != value)
    if not is_static and "no-store" not in values.get("cache-control", ""):
        yield f"may be stored: {values.get('cache-control')} (X9)"
    wanted = "max-age=31536000; includeSubDomains; preload" if is_https else None
    if values.get("strict-transport-security") != wanted:
        yield f"strict-transport-security is {values.get('strict-transport-security')}"
    for name, value in answer.headers:
        if name == "set-cookie":
            if not value.startswith(("messages=", "csrf")) and "httponly" not in value.lower():
                yield f"a cookie that scripts can read: {value.partition('=')[0]}"
            if "samesite=lax" not in value.lower() and "samesite=strict" not in value.lower():
                yield f"a cookie for other sites: {value.partition('=')[0]}"


def is_document(answer: Answer) -> bool:
    return (
        dict(answer.headers).get("content-type", "").startswith("text/html") and b"<html" in answer.body[:500].lower()
    )


class _Reader(HTMLParser):
    """Finds what the policy would refuse, or should."""

    def __init__(self, policy: dict[str, set[str]]) -> None:
        super().__init__()
        self.policy, self.found = policy, []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        is_data = given.get("type", "").endswith("json")
        if (tag == "script" and "src" not in given and not is_data) or tag == "style":
            nonce = f"'nonce-{given.get('nonce')}'"
            if nonce not in self.policy.get(f"{tag}-src", ()):
                self.found.append(f"<{tag}> without the answer's nonce")
        for name, value in given.items():
            if re.match(r"on\w|hx-on|data-hx-on", name):
                self.found.append(f"<{tag} {name}>")
            if name == "style":
                self.found.append(f"<{tag} style>")
            if re.match(r"\s*(javascript:|vbscript:|data:text)", value, re.IGNORECASE) and name != "value":
                self.found.append(f"<{tag} {name}={value[:20]}>")
            loads = name in {"src", "srcset", "poster", "background", "data"} or (tag == "link" and name == "href")
            if loads and re.match(r"\s*([a-z]+:)?//", value, re.IGNORECASE):
                self.found.append(f"<{tag} {name}={value[:60]}> loads from another origin")
        if tag == "form" and not given.get("action", "").startswith(("", "/", "?", ".")):
            self.found.append("<form> that leads away")
        if tag in {"iframe", "object", "embed", "base", "applet", "frame"}:
            self.found.append(f"<{tag}>")
        if tag == "a" and given.get("target") == "_blank" and "noopener" not in given.get("rel", ""):
            self.found.append("<a target=_blank> without noopener")


def inline(answer: Answer) -> list[str]:
    """What stands in a page that its own policy refuses, or that no page should hold."""
    if not dict(answer.headers).get("content-type", "").startswith("text/html"):
        return []
    reader = _Reader(directives(dict(answer.headers).get("content-security-policy", "")))
    reader.feed(answer.body.decode())
    return reader.found


# -- The crawl -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(transactional_db, sam) -> Things:
    """Things of an administrator's: one person to whom every page opens."""
    return things_of(sam)


@pytest.fixture
def static_root(tmp_path, settings):
    root = tmp_path / "static"
    (root / "css").mkdir(parents=True)
    (root / "css" / "base.css").write_text("p {}")
    (root / "app.js").write_text("1")
    settings.STATIC_ROOT = root
    return root


@pytest.fixture
async def app(static_root, transactional_db):
    """The whole application: the dispatcher around Django, as config/asgi.py builds it."""
    yield Dispatcher(get_asgi_application(), hot.ROUTES)
    await net.close()
    await sync_to_async(connections.close_all)()


def cookie_of(user: Any) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"}


def addresses(mine: Things) -> list[str]:
    """An address for every route there is, with the ids of things that exist."""
    from tests.test_authorisation import ADMIN_PAGES, PAGES, SIGN_IN_ADDRESSES, short

    rows = {f"{model._meta.app_label}/{model._meta.model_name}": row for model, row in mine.rows.items()}
    rows["auth/user"] = mine.owner
    found = []
    for route, _ in walk():
        if route in PAGES:
            page = PAGES[route]
            found.append(path_of(route, getattr(mine, page.of).pk if page.of else "nothing"))
        elif short(route) in ADMIN_PAGES:
            found.append(ADMIN_PAGES[short(route)][2].format(user=mine.owner.pk))
        elif route.startswith("admin/"):
            row = rows.get("/".join(route.split("/")[1:3]))
            found.append(path_of(route, row.pk if row else 1))
        else:
            found.append(SIGN_IN_ADDRESSES.get(route, path_of(route)))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("profile", ["http", "https"])
async def test_every_page_for_everybody_wears_the_headers_i22(profile, app, mine, settings):
    if profile == "https":
        settings.SECURE_HSTS_SECONDS = 31536000
        settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True
        app = Dispatcher(get_asgi_application(), hot.ROUTES)
    inside = await hot.in_thread(cookie_of, mine.owner)
    paths = await hot.in_thread(addresses, mine)
    assert len(paths) > 100
    wrong: dict[str, list[str]] = {}
    statuses: dict[int, int] = {}
    documents = 0
    for who, headers in (("anonymous", {}), ("signed in", inside)):
        for path in paths:
            if profile == "https" and (who == "anonymous" or "/admin/" in path):
                continue  # only HSTS differs
            answer = await ask(app, "GET", path, headers=headers)
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            documents += is_document(answer)
            if found := [*problems(answer, is_https=profile == "https"), *inline(answer)]:
                wrong[f"{who} {path}"] = found
            assert answer.status < 500, path
    assert wrong == {}
    assert {200, 302, 404, 405} <= set(statuses), "the crawl saw pages, redirects and refusals"
    assert documents > (15 if profile == "https" else 80)


async def every_error(app: Dispatcher, mine: Things, monkeypatch: Any) -> dict[str, Answer]:
    """One answer of each kind that is no page of the table."""
    inside = await hot.in_thread(cookie_of, mine.owner)
    bearer = {"authorization": f"Bearer {mine.token_text}", "content-type": "application/json"}
    home, events = "/", f"/chat/generations/{mine.generation.pk}/events"
    body = json.dumps({"model": "none", "messages": [{"role": "user", "content": "hi"}]}).encode()
    huge = {"content-length": str(100 * 1024 * 1024)}
    form = {"content-type": "application/x-www-form-urlencoded"}
    lookup = f"{reverse('admin:usage_apitoken_changelist')}?token_hash__startswith=a"
    found = {
        "400 host": await ask(app, "GET", home, headers={"host": "evil.example"}),
        "400 host, hot": await ask(app, "GET", "/v1/models", headers={"host": "evil.example"}),
        "400 of Django's": await ask(app, "GET", lookup, headers=inside),
        "403 csrf": await ask(app, "POST", "/send/", headers={**inside, **form}, body=b"text=hi"),
        "403 hot": await ask(app, "GET", events, headers={**inside, "sec-fetch-site": "cross-site"}),
        "404 page": await ask(app, "GET", "/no/such/page/", headers=inside),
        "404 hot": await ask(
            app, "GET", events.replace(str(mine.generation.pk), "0" * 8 + "-0000-0000-0000-" + "0" * 12), headers=inside
        ),
        "404 static": await ask(app, "GET", "/static/no-such.css"),
        "404 v1": await ask(app, "POST", "/v1/chat/completions", headers=bearer, body=body),
        "401 hot": await ask(app, "GET", events),
        "401 v1": await ask(app, "GET", "/v1/models"),
        "405 page": await ask(app, "OPTIONS", home, headers=inside),
        "405 hot": await ask(app, "POST", events, headers=inside),
        "405 v1": await ask(app, "DELETE", "/v1/models", headers=bearer),
        "413 page": await ask(app, "POST", "/send/", headers={**inside, **huge}),
        "413 hot": await ask(app, "POST", "/v1/chat/completions", headers={**bearer, **huge}),
        "301": await ask(app, "GET", "/usage", headers=inside),
        "302": await ask(app, "GET", home),
        "200 head": await ask(app, "HEAD", "/healthz"),
        "400 v1": await ask(app, "POST", "/v1/chat/completions", headers=bearer, body=b"{"),
    }
    monkeypatch.setattr("usage.reports.period", lambda text: 1 / 0)
    monkeypatch.setattr("chat.api.views._models", lambda *args: 1 / 0)
    found["500 page"] = await ask(app, "GET", "/usage/", headers=inside)
    found["500 v1"] = await ask(app, "GET", "/v1/models", headers=bearer)
    await app.drain()
    found["503 v1"] = await ask(app, "GET", "/v1/models", headers=bearer)
    return found


async def test_every_error_wears_the_headers_i22_i21(app, mine, monkeypatch):
    answers = await every_error(app, mine, monkeypatch)
    for kind, answer in answers.items():
        assert answer.status == int(kind[:3]), (kind, answer.status, answer.body[:300])
        assert [*problems(answer), *inline(answer)] == [], kind
        assert b"Traceback" not in answer.body and b"ZeroDivision" not in answer.body, kind
        if kind.startswith("500"):
            assert dict(answer.headers)["x-request-id"].encode() in answer.body, "an error names its number"


async def test_streams_and_v1_wear_the_headers_i22(app, mine):
    inside = await hot.in_thread(cookie_of, mine.owner)
    stream = await ask(app, "GET", f"/chat/generations/{mine.generation.pk}/events", headers=inside)
    models = await ask(app, "GET", "/v1/models", headers={"authorization": f"Bearer {mine.token_text}"})
    kinds = [dict(answer.headers)["content-type"].partition(";")[0] for answer in (stream, models)]
    assert kinds == ["text/event-stream", "application/json"]
    for answer in (stream, models):
        assert answer.status == 200
        assert list(problems(answer)) == []
        assert dict(answer.headers).get("set-cookie") is None


async def test_a_streamed_answer_on_v1_wears_the_headers_i22(app, upstream_account):
    _, text = await hot.in_thread(tokens.create, upstream_account.owner, "editor")
    headers = {"authorization": f"Bearer {text}", "content-type": "application/json"}
    for stream in (True, False):
        body = {"model": "markdown", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        answer = await ask(app, "POST", "/v1/chat/completions", headers=headers, body=json.dumps(body).encode())
        assert answer.status == 200, answer.body[:300]
        assert dict(answer.headers)["content-type"].startswith("text/event-stream" if stream else "application/json")
        assert list(problems(answer)) == []


async def test_static_files_wear_the_headers_and_are_the_only_thing_that_may_be_kept_i22_x9(app):
    kept = {}
    for path in ("/static/css/base.css", "/static/app.js"):
        for method in ("GET", "HEAD"):
            answer = await ask(app, method, path)
            assert answer.status == 200, path
            assert list(problems(answer, is_static=True)) == [], path
            kept[path] = dict(answer.headers)["cache-control"]
    assert all("public" in value for value in kept.values())
    since = {"if-modified-since": dict(answer.headers)["last-modified"]}
    unchanged = await ask(app, "GET", "/static/app.js", headers=since)
    assert unchanged.status == 304
    assert list(problems(unchanged, is_static=True)) == []


# -- The judges are judged -------------------------------------------------------------------------------------------

GOOD = {
    **EXACT,
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "x-request-id": "0123456789abcdef",
    "cache-control": "no-store",
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; script-src 'self' 'nonce-abc'; style-src 'self'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
}
PAGE = b"<!doctype html><html><body><script nonce='abc'>1</script></body></html>"


def answer_with(body: bytes = PAGE, **changed: str | None) -> Answer:
    headers = GOOD | {name.replace("_", "-"): value for name, value in changed.items()}
    return Answer(200, [(name, value) for name, value in headers.items() if value is not None], body, True)


@pytest.mark.once
def test_a_good_answer_has_no_problem():
    assert list(problems(answer_with())) == [] == inline(answer_with())


@pytest.mark.once
@pytest.mark.parametrize(
    "changed",
    [
        *({name.replace("-", "_"): None} for name in GOOD if name != "content-type"),
        {"x_frame_options": "SAMEORIGIN"},
        {"referrer_policy": "unsafe-url"},
        {"cross_origin_resource_policy": "cross-origin"},
        {"cache_control": "private, max-age=60"},
        {"content_security_policy": GOOD["content-security-policy"].replace("'nonce-abc'", "'unsafe-inline'")},
        {"content_security_policy": GOOD["content-security-policy"].replace("'nonce-abc'", "'unsafe-eval'")},
        {"content_security_policy": GOOD["content-security-policy"].replace("style-src 'self'", "style-src *")},
        {"content_security_policy": GOOD["content-security-policy"].replace("data:", "https://x.example")},
        {"content_security_policy": GOOD["content-security-policy"].replace("script-src 'self'", "script-src data:")},
        {"content_security_policy": GOOD["content-security-policy"].replace("base-uri 'none'; ", "")},
        {"content_security_policy": GOOD["content-security-policy"].replace("form-action 'self'", "form-action *")},
        {"content_security_policy": "default-src 'none'; frame-ancestors 'none'"},
        {"server": "uvicorn"},
        {"access_control_allow_origin": "*"},
        {"strict_transport_security": "max-age=1"},
        {"set_cookie": "session=x; Path=/; SameSite=Lax"},
        {"set_cookie": "session=x; HttpOnly; Path=/"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_planted_fault_in_the_headers_is_found(changed):
    assert list(problems(answer_with(**changed)))


@pytest.mark.once
def test_a_header_that_stands_twice_is_found():
    twice = answer_with()
    twice.headers.append(("cache-control", "no-store"))
    assert list(problems(twice)) == ["cache-control stands twice"]
    assert list(problems(answer_with(), is_https=True)) == ["strict-transport-security is None"]


@pytest.mark.once
@pytest.mark.parametrize(
    "body",
    [
        b"<script>1</script>",
        b"<script nonce='other'>1</script>",
        b"<style>p{}</style>",
        b"<p style='color:red'>",
        b"<a onclick='x()'>",
        b"<div hx-on:click='x()'>",
        b"<a href=' JavaScript:x()'>",
        b"<script src='https://cdn.example/x.js'></script>",
        b"<img src='//x.example/a.png'>",
        b"<link rel=stylesheet href='https://x.example/a.css'>",
        b"<iframe srcdoc='x'>",
        b"<base href='/x/'>",
        b"<a target=_blank href='https://x.example'>",
    ],
)
def test_planted_inline_code_is_found(body):
    assert inline(answer_with(body))


@pytest.mark.once
@pytest.mark.parametrize(
    "body",
    [
        b"<script src='/static/app.js' type=module></script><link rel=icon href='/static/icon.svg'>",
        b"<script type='application/json'>{}</script>",
        b"<a href='https://x.example' rel='noopener noreferrer' target=_blank>",
        b"<button data-language=javascript><input value='javascript:alert(1)'><p>onclick='x()' &lt;script&gt;</p>",
        b"<img src='data:image/png;base64,AAAA'>",
    ],
)
def test_ordinary_markup_is_left_alone(body):
    assert inline(answer_with(body)) == []
