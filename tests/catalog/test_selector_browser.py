"""The selector in a real browser: opened, typed into, moved through and used by keyboard alone."""

from __future__ import annotations

import os

import pytest
from django.urls import reverse
from playwright.sync_api import Error

from catalog import sync
from tests.browser import elsewhere
from tests.catalog.conftest import listing, model

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def catalog(account, upstream):
    rows = [model(f"maker/model-{n}", display_name=f"Model {n}", context_window=128_000) for n in range(80)]
    rows.append(
        model("anthropic/claude-sonnet-4.6", "3", "15", display_name="Claude Sonnet 4.6", capabilities=("tools",))
    )
    rows.append(model("anthropic/claude-haiku-4.5", "1", "5", display_name="Claude Haiku 4.5"))
    upstream(listing(*rows))
    elsewhere(lambda: sync.sync_account(account))


@pytest.fixture
def signed_in(sign_in, alice, catalog):
    return sign_in(alice)


def until(page, condition):
    """Wait for a condition; Playwright's own wait_for_function needs eval, which our policy forbids."""
    for _ in range(150):
        try:
            if page.evaluate(condition):
                return
        except Error as exc:  # asked while the page changed for the next one
            if "context was destroyed" not in str(exc):
                raise
        page.wait_for_timeout(100)
    pytest.fail(f"never became true: {condition}")


def open_selector(page, live_server):
    page.goto(live_server.url + reverse("catalog:model-list"))
    page.evaluate("addEventListener('model-chosen', (event) => { window.chosen = event.detail })")
    page.evaluate(f"htmx.ajax('GET', '{reverse('catalog:model-select')}', '#dialog')")
    page.wait_for_selector("dialog[open] model-option")
    page.wait_for_timeout(100)  # htmx listens to new content 20 ms after it drew it


def test_a_model_is_found_and_taken_by_keyboard_alone(signed_in, live_server, account):
    page = signed_in
    open_selector(page, live_server)
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("claude", delay=20)
    until(page, "document.querySelectorAll('model-option').length === 2")
    marked = "document.querySelector('model-option[aria-selected=true]').dataset.name"
    first = page.evaluate(marked)
    page.keyboard.press("ArrowDown")
    second = page.evaluate(marked)
    assert {first, second} == {"Claude Sonnet 4.6", "Claude Haiku 4.5"}
    assert page.get_attribute("dialog input[type=search]", "aria-activedescendant") == page.get_attribute(
        "model-option[aria-selected=true]", "id"
    )
    page.keyboard.press("ArrowDown")
    assert page.evaluate(marked) == second, "the end of the list is the end"

    page.keyboard.press("Enter")

    page.wait_for_selector("dialog:not([open])", state="attached")
    chosen = page.evaluate("window.chosen")
    assert (chosen["name"], chosen["account"]) == (second, str(account.pk))
    assert chosen["prices"]["text"] in ("$3.00 / $15.00", "$1.00 / $5.00")


def test_enter_right_after_typing_takes_what_was_typed(signed_in, live_server):
    page = signed_in
    open_selector(page, live_server)
    page.keyboard.type("sonnet")
    page.keyboard.press("Enter")
    until(page, "Boolean(window.chosen)")
    assert page.evaluate("window.chosen.modelId") == "anthropic/claude-sonnet-4.6"


def test_chips_and_escape(signed_in, live_server):
    page = signed_in
    open_selector(page, live_server)
    page.click("dialog .chip:has-text('Tools')")
    until(page, "document.querySelectorAll('model-option').length === 1")
    assert page.inner_text("#model-count") == "1 of 82"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert page.evaluate("window.chosen") is None


def test_nothing_is_wider_than_a_phone(signed_in, live_server):
    page = signed_in
    page.set_viewport_size({"width": 375, "height": 740})
    open_selector(page, live_server)
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 375
    assert page.evaluate("document.querySelector('.selector__scroll').scrollWidth") <= 375
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.evaluate("document.querySelector('#models').scrollWidth") <= 375
    if folder := os.environ.get("SHOTS"):
        page.screenshot(path=f"{folder}/models-phone.png")
        open_selector(page, live_server)
        page.screenshot(path=f"{folder}/selector-phone.png")
        page.set_viewport_size({"width": 1360, "height": 860})
        page.screenshot(path=f"{folder}/selector.png")
        page.keyboard.press("Escape")
        page.screenshot(path=f"{folder}/models.png")
