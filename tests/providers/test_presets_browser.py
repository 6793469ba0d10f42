"""The gallery in a real browser: unfolded, searched and chosen from by keyboard alone; nothing wider than a phone."""

from __future__ import annotations

import os

import pytest
from django.urls import reverse

from providers import presets
from providers.models import Provider

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def signed_in(sign_in, live_server, alice):
    presets.add_missing(Provider.objects, presets.every().values())
    page = sign_in(alice)
    page.goto(live_server.url + reverse("providers:account-list") + "?add")
    page.wait_for_selector("dialog[open] provider-gallery")
    page.wait_for_timeout(100)  # htmx listens to new content 20 ms after it drew it
    return page


def count_unfolded() -> int:
    return len(presets.every()) - len(presets.FRONT)


def focused(page) -> str:
    return page.evaluate("document.activeElement.innerText || document.activeElement.id")


def picture(page, name: str) -> None:
    """Kept only where a person wants to look: SHOTS=/tmp/shots."""
    if folder := os.environ.get("SHOTS"):
        page.wait_for_timeout(200)
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_preset_is_found_and_chosen_by_keyboard_alone(signed_in):
    page = signed_in
    summary = page.locator("provider-gallery summary")
    assert summary.inner_text() == f"{count_unfolded()} more presets…"
    assert not page.is_visible("#presets")
    summary.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#presets", state="visible")
    page.wait_for_selector("provider-gallery input:focus")
    assert page.locator("form.add-account__form [type=submit]").bounding_box()["y"] < 800, (
        "the form's end stays in sight"
    )
    picture(page, "unfolded")

    page.keyboard.type("deep")
    assert page.locator("#presets .choice:visible .choice__words > span").all_inner_texts() == ["DeepInfra", "DeepSeek"]
    assert page.inner_text("provider-gallery [role=status]") == f"2 of {count_unfolded()}"
    page.keyboard.press("ArrowDown")
    assert "DeepInfra" in focused(page)
    page.keyboard.press("ArrowDown")
    assert "DeepSeek" in focused(page)
    page.keyboard.press("ArrowDown")
    assert "DeepSeek" in focused(page), "the end of the list is the end"
    page.keyboard.press("Enter")

    page.wait_for_selector("text=You need: An API key; it starts with sk-.")
    page.wait_for_selector("#id_api_key:focus")
    assert page.get_attribute("form.add-account__form a[href*=api_keys]", "href") == (
        "https://platform.deepseek.com/api_keys"
    )
    assert page.is_visible("#presets .choice[aria-current]"), "what was chosen stays in sight"
    picture(page, "chosen")


def test_enter_in_the_search_takes_the_first_and_escape_clears_it(signed_in):
    page = signed_in
    page.click("provider-gallery summary")
    page.wait_for_selector("provider-gallery input:focus")
    page.keyboard.type("nobody has this")
    assert page.inner_text("provider-gallery [role=status]") == "None by that name. Try Custom endpoint."
    page.keyboard.press("Escape")
    assert page.is_visible("dialog[open]"), "the first Escape empties the search, not the dialog"
    assert page.locator("#presets .choice:visible").count() == count_unfolded()
    page.keyboard.type("vercel")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=it starts with vck_")


def test_a_local_preset_asks_where_and_shows_what_will_be_called(signed_in):
    page = signed_in
    page.click("text=Ollama")
    page.wait_for_selector("text=You need: Its address")
    assert page.input_value("#id_base_url") == "http://localhost:11434/v1"
    page.wait_for_selector("#id_base_url:focus")
    page.wait_for_selector("#address >> text=/\\S/")  # the address is judged before anything is sent
    page.fill("#id_base_url", "models.example.org/v1/chat/completions")
    page.wait_for_selector("text=https://models.example.org/v1/chat/completions")
    picture(page, "ollama")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(signed_in, scheme):
    page = signed_in
    page.emulate_media(color_scheme=scheme)
    picture(page, f"desktop-{scheme}")
    page.set_viewport_size({"width": 375, "height": 740})
    page.click("provider-gallery summary")
    page.wait_for_selector("#presets", state="visible")
    picture(page, f"phone-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")
