"""X1, X2, X3 where the attacker stands: in a real browser's DOM, with no CSP to help, and with htmx loaded."""

from __future__ import annotations

from pathlib import Path

import django_htmx
import pytest
from django.conf import settings

from chat.rendering import render, render_block, split
from tests.chat.test_rendering_safety import ATTRIBUTES, MATHML, PAYLOADS, PLAIN

pytestmark = pytest.mark.browser

STATIC = Path(settings.BASE_DIR) / "static"

_READ = """
() => [...document.querySelectorAll("main *")].map(e => [
    e.localName, e.namespaceURI.split("/").pop(), [...e.attributes].map(a => a.name)])
"""


@pytest.fixture
def bare_page(page):
    """A page without any policy, with htmx, a target that hostile markup would like to change, and a dialog counter."""
    htmx = (Path(django_htmx.__file__).parent / "static/django_htmx/htmx-2.min.js").read_text()
    page.dialogs = []
    page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
    page.set_content('<div id="messages">untouched</div><main></main>')
    page.add_script_tag(content=htmx)
    return page


def test_no_payload_runs_loads_or_reaches_the_page(bare_page):
    page = bare_page
    page.notes.origins.clear()
    htmls = [render(payload) for payload in PAYLOADS]
    htmls += [render_block(split(payload[: len(payload) * 2 // 3]).tail, open=True) for payload in PAYLOADS]
    htmls += [render("\n\n".join(PAYLOADS)), render("\n".join(PAYLOADS))]
    for html in htmls:
        page.evaluate(
            """html => {
                const main = document.querySelector("main")
                main.innerHTML = html
                htmx.process(main)
            }""",
            str(html),
        )
        for tag, space, attributes in page.evaluate(_READ):
            if space == "MathML":
                assert tag in MATHML and not {"href", "style", "id"} & set(attributes), html
            else:
                assert space == "xhtml" and tag in PLAIN, (tag, html)
                assert set(attributes) <= ATTRIBUTES.get(tag, set()), (tag, attributes, html)
    page.mouse.move(400, 300)
    page.wait_for_timeout(300)
    assert page.dialogs == []
    assert page.notes.origins == set()
    assert page.evaluate("document.getElementById('messages').textContent") == "untouched"


def test_the_recorder_would_see_a_request_and_a_dialog(bare_page):
    """The test above is not blind."""
    page = bare_page
    page.route("**/*", lambda route: route.abort())
    page.evaluate("document.querySelector('main').innerHTML = '<img src=http://127.0.0.1:9/x.png onerror=alert(7)>'")
    page.wait_for_timeout(500)
    assert page.notes.origins == {"http://127.0.0.1:9"}
    assert page.dialogs == ["7"]


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_a_code_block_is_copied_character_for_character(bare_page, has_clipboard):
    """Over https by the clipboard API, over plain http by the old way."""
    page = bare_page
    code = "def f():\n\treturn '<&>'  # é 😀\n\nprint(f())"
    page.evaluate(
        """has => {
            window.copied = null
            const api = has ? { writeText: async text => { window.copied = text } } : undefined
            Object.defineProperty(navigator, "clipboard", { value: api, configurable: true })
            document.addEventListener("copy", () => { window.copied = document.activeElement.value })
        }""",
        has_clipboard,
    )
    page.add_script_tag(content=(STATIC / "js/elements/copy-button.js").read_text())
    page.evaluate("html => document.querySelector('main').innerHTML = html", str(render(f"```python\n{code}\n```\n")))
    page.get_by_role("button", name="Copy").click()
    page.wait_for_function("window.copied !== null")
    assert page.evaluate("window.copied") == code
    page.wait_for_function("document.querySelector('copy-button button').textContent === 'Copied'")
    assert page.locator("main textarea").count() == 0


def test_nothing_is_wider_than_a_phone(bare_page):
    """Wide tables, long lines, long words and long formulas scroll or wrap inside themselves."""
    page = bare_page
    page.set_viewport_size({"width": 360, "height": 700})
    css = "".join((STATIC / "css" / f"{name}.css").read_text() for name in ("tokens", "base", "prose"))
    page.add_style_tag(content=css + "body{margin:0;padding:16px}")
    text = (
        "| " + " | ".join(f"column {n}" for n in range(12)) + " |\n" + "|---" * 12 + "|\n" + "| a value " * 12 + "|\n\n"
        "```python\n" + "x = " + "1 + " * 80 + "1\n```\n\n" + "w" * 300 + "\n\n"
        "$$" + " + ".join(f"x_{{{n}}}" for n in range(60)) + "$$\n\n`" + "c" * 200 + "`\n\n"
        "[a link](https://" + "sub." * 30 + "example.org/)\n\n- " + "l" * 200 + "\n\n$" + "y" * 150 + "$ in line\n"
    )
    page.evaluate(
        "html => document.querySelector('main').innerHTML = `<div class='prose'>${html}</div>`", str(render(text))
    )
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    wide = page.evaluate(
        """[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > 361
            && !e.closest("pre, .table-scroll, math")).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert widths[0] <= widths[1], f"{widths} {wide}"
