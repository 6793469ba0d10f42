"""The alias form in a real browser: made, put in order and stored by keyboard, with the focus where one works."""

from __future__ import annotations

import pytest
from django.urls import reverse

from catalog.models import ModelAlias
from tests.catalog.test_selector_browser import (  # noqa: F401
    catalog,
    signed_in,
    until,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_an_alias_is_made_and_ordered_by_keyboard(signed_in, live_server, account):  # noqa: F811
    page = signed_in
    page.goto(live_server.url + reverse("catalog:alias-new"))
    page.fill("[name=name]", "best")
    for words, model_id in (("sonnet", "anthropic/claude-sonnet-4.6"), ("haiku", "anthropic/claude-haiku-4.5")):
        page.focus("[name=new]")
        page.keyboard.type(words)
        page.wait_for_selector(f'[value="add:{model_id}"]')
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector(f'[name=targets][value="{model_id}"]', state="attached")
        page.wait_for_timeout(100)
    page.focus("[name=new]")
    page.keyboard.type("not-there-yet")
    page.keyboard.press("Enter")
    page.wait_for_selector('[name=targets][value="not-there-yet"]', state="attached")
    until(page, "document.activeElement.id === 'alias-new'")

    page.focus('[aria-label="not-there-yet up"]')
    for place in (1, 0):
        page.keyboard.press("Enter")
        until(
            page,
            f"[...document.querySelectorAll('[name=targets]')].findIndex(e => e.value === 'not-there-yet') === {place}",
        )
        until(page, "document.activeElement.getAttribute('aria-label') === 'not-there-yet up'")
    assert not ModelAlias.objects.exists(), "nothing is stored before one says so"
    page.click("[value=save]")
    until(page, "/aliases\\/[0-9]+/.test(location.pathname)")
    alias = ModelAlias.objects.get()
    assert alias.targets == ["not-there-yet", "anthropic/claude-sonnet-4.6", "anthropic/claude-haiku-4.5"]
    page.wait_for_selector("text=skipped: no provider of yours lists a model of this id")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
