"""The content policy holds on every page, admin and sign-in included: nothing in them is refused (X8)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib import admin
from django.template.loader import get_template
from django.urls import reverse

from tests.switchboard import Switchboard

ROOT = Path(settings.BASE_DIR)


def directives(header: str) -> dict[str, set[str]]:
    return {name: set(values) for name, *values in (part.split() for part in header.split(";") if part.strip())}


def test_the_policy_is_strict_x8(client, db):
    header = client.get("/sign-in/login/")["content-security-policy"]
    assert directives(header) == {
        "default-src": {"'none'"}, "script-src": {"'self'"}, "style-src": {"'self'"}, "img-src": {"'self'", "data:"},
        "font-src": {"'self'"}, "connect-src": {"'self'"}, "form-action": {"'self'"}, "base-uri": {"'none'"},
        "object-src": {"'none'"}, "frame-ancestors": {"'none'"},
    }  # fmt: skip


def test_every_response_has_a_nonce_of_its_own_x8(rf):
    from csp.middleware import CSPMiddleware
    from django.http import HttpResponse

    def answer(request):
        return HttpResponse(f"<script nonce='{request.csp_nonce}'></script>")

    seen = set()
    for _ in range(2):
        response = CSPMiddleware(answer)(rf.get("/"))
        nonce = re.search(rb"nonce='([^']+)'", response.content)[1].decode()
        policy = directives(response["content-security-policy"])
        assert f"'nonce-{nonce}'" in policy["script-src"] & policy["style-src"]
        seen.add(nonce)
    assert len(seen) == 2


def test_htmx_writes_no_style_and_evaluates_nothing_x3_x8(client, db):
    html = client.get("/sign-in/login/").content.decode()
    config = json.loads(re.search(r'name="htmx-config" content=\'([^\']+)', html)[1])
    assert not config["allowEval"] and not config["allowScriptTags"] and config["selfRequestsOnly"]
    assert not config["includeIndicatorStyles"]
    # By default it copies `style` from an element to the one that takes its place, by an attribute, which is refused.
    # A field gets one where the browser or a tool (Playwright's screenshots) touched its style and let go again.
    assert "style" not in config["attributesToSettle"]


INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*type=.application/json)[^>]*>|<style\b(?![^>]*nonce)|\sstyle=[\"']|\son[a-z]+=[\"']|javascript:",
    re.IGNORECASE,
)


def inline_code_in(template: str) -> list[str]:
    return INLINE.findall(re.sub(r"\{#.*?#\}", "", template, flags=re.DOTALL))


@pytest.mark.parametrize(
    "planted",
    [
        "<script>alert(1)</script>",
        '<p style="color:red">',
        "<a onclick='x()'>",
        "<style>p{}</style>",
        '<a href="javascript:x()">',
        '<script type="module">1</script>',
    ],
)
def test_the_search_for_inline_code_finds_what_is_planted(planted):
    assert inline_code_in(planted)


def test_no_template_of_ours_has_inline_code_x8():
    templates = list((ROOT / "templates").rglob("*.html"))
    assert len(templates) > 20
    guilty = {str(path.relative_to(ROOT)): found for path in templates if (found := inline_code_in(path.read_text()))}
    assert guilty == {}


def test_no_template_of_the_packages_that_a_page_can_use_has_inline_code_x8():
    """As they are loaded: a template of ours with the same name takes the place of the package's."""
    import allauth.account
    import django.contrib.admin

    guilty = {}
    for package in (django.contrib.admin, allauth):
        folder = Path(package.__path__[0]) / "templates"
        for path in folder.rglob("*.html"):
            name = str(path.relative_to(folder))
            if name.startswith(("mfa/", "socialaccount/", "usersessions/", "idp/", "openid/", "tests/")):
                continue  # apps that are not installed
            loaded = Path(get_template(name).origin.name)
            if found := inline_code_in(loaded.read_text()):
                guilty[name] = found
    # phone numbers and replacing the only address are features we do not switch on: their views are not routed
    assert set(guilty) <= {"account/phone_change.html", "account/email_change.html"}
    assert not getattr(settings, "ACCOUNT_CHANGE_EMAIL", False)
    assert "phone" not in str(settings.ACCOUNT_SIGNUP_FIELDS)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(240)
def test_a_walk_through_every_page_in_a_browser_refuses_nothing_x8(tmp_path, prepared, page):
    with Switchboard(tmp_path / "var").like(prepared) as board:
        page.goto(board.setup_link)
        page.fill("[name=username]", "robin")
        page.fill("[name=email]", "robin@example.org")
        page.fill("[name=password]", "four random words here")
        page.click("button[type=submit]")
        page.wait_for_url(f"{board.origin}/")
        page.notes.gather()

        paths = ["/", "/sign-in/logout/", "/sign-in/password/change/", "/sign-in/email/", "/sign-in/reauthenticate/"]
        paths += [
            reverse(name)
            for name in (
                "providers:account-list",
                "catalog:model-list",
                "catalog:change-list",
                "notices:notice-list",
                "usage:usage-list",
                "admin:index",
            )
        ]
        for model, model_admin in admin.site._registry.items():
            where = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            paths.append(reverse(f"{where}_changelist"))
            if model._meta.model_name in {"user", "group"} or model_admin.has_add_permission.__qualname__.startswith(
                "ModelAdmin."
            ):
                paths.append(reverse(f"{where}_add"))
        paths += [
            "/admin/auth/user/1/change/",
            "/admin/auth/user/1/history/",
            "/admin/auth/user/1/password/",
            "/admin/auth/user/1/delete/",
        ]
        statuses = {}
        for path in paths:
            statuses[path] = page.goto(board.origin + path).status
            page.wait_for_load_state()
            page.notes.gather()
        assert {path: status for path, status in statuses.items() if status != 200} == {}

        page.goto(f"{board.origin}/admin/auth/user/1/change/")
        page.click("#calendarlink0")
        page.click("#clocklink0")
        page.click("#id_user_permissions_add_all")
        page.notes.gather()

        page.goto(f"{board.origin}/sign-in/logout/")
        page.click("main button[type=submit]")
        page.wait_for_url("**/sign-in/login/")
        for path in ("/sign-in/login/", "/sign-in/signup/", "/sign-in/password/reset/", "/sign-in/inactive/"):
            page.goto(board.origin + path)
            page.notes.gather()
        assert page.notes.problems(board.origin) == []

        page.goto(f"{board.origin}/nothing/here/")
        page.goto(board.setup_link)
        problems = [problem for problem in page.notes.problems(board.origin) if "status of 404" not in problem]
        assert problems == []
        assert urlsplit(page.url).path.startswith("/setup/")
