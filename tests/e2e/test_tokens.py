"""The Tokens page in a real browser: make a token, see the calls it is for, run one, revoke it (issue 3, item 6)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import expected_error

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(180)]


def shot(page: Page, name: str) -> None:
    """A picture, for people, where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"tokens-{name}.png", full_page=True)


def test_a_token_is_made_tried_on_the_page_and_revoked(robin: Page, board, trial):
    page = robin
    page.goto(f"{board.origin}/usage/tokens/")
    page.get_by_label("What it is for").fill("editor")
    page.get_by_role("button", name="Make a token").click()
    token = page.locator("#new-token").inner_text()
    assert re.fullmatch(r"sb_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}", token)

    code = page.locator(".try__code")
    page.get_by_label("Model", exact=True).fill("echo")
    expect(code).to_contain_text(f"curl {board.origin}/v1/chat/completions")
    expect(code).to_contain_text(f"Bearer {token}")
    page.get_by_role("tab", name="Python").click()
    expect(code).to_contain_text(f'client = OpenAI(base_url="{board.origin}/v1", api_key="{token}")')
    page.get_by_role("tab", name="JavaScript").click()
    expect(code).to_contain_text("import OpenAI from")
    expect(page.get_by_role("tab", name="JavaScript")).to_have_attribute("aria-selected", "true")

    trial.forget()
    page.get_by_role("button", name="Run it").click()
    answer = page.locator(".try__answer")
    expect(answer).to_have_text("Say hello")  # what Echo says to "Say hello"
    assert len(trial.chats) == 1
    shot(page, "light")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(400)
    shot(page, "dark")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(600)  # the sidebar slides away
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "a phone scrolls nothing sideways"
    shot(page, "phone")
    page.set_viewport_size({"width": 1280, "height": 800})

    page.get_by_label("Model", exact=True).fill("no such model")
    page.get_by_role("button", name="Run it").click()
    expect(answer).to_contain_text("404: None of your accounts lists")
    expected_error(page, "404", "/v1/chat/completions")

    page.goto(f"{board.origin}/usage/tokens/")
    assert token not in page.content(), "it is shown once"
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Revoke editor").click()
    expect(page.get_by_text("is revoked")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(token)
    page.wait_for_timeout(4_500)  # refused within seconds, in every process
    page.get_by_role("button", name="Run it").click()
    expect(answer).to_contain_text("401: This token is not valid")
    expected_error(page, "401", "/v1/chat/completions")
    assert page.notes.problems(board.origin) == []
