"""The selector and the explorer in a real browser: by keyboard alone, with stars, on a phone, in both themes."""

from __future__ import annotations

import os

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from catalog import sync
from catalog.models import FavouriteModel
from providers.models import ProviderAccount
from tests.browser import elsewhere
from tests.catalog.conftest import listing, model
from tests.e2e import checks

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

LIST = reverse("catalog:model-list")


@pytest.fixture
def catalog(account, upstream, alice, provider):
    spare = ProviderAccount.objects.create(owner=alice, provider=provider, label="Spare key", priority=5)
    rows = [
        model(
            f"maker/model-{n:03}", str(1 + n % 7), str(1 + n % 19), display_name=f"Model {n:03}", context_window=128_000,
            description="A model that " + "says much of itself. " * 20, capabilities=("tools", "reasoning"),
        )
        for n in range(130)
    ]  # fmt: skip
    rows.append(model("anthropic/claude-sonnet-4.6", "3", "15", display_name="Claude Sonnet 4.6"))
    upstream(listing(*rows))
    upstream(listing(*rows[:40]), spare)
    elsewhere(lambda: [sync.sync_account(each) for each in (account, spare)])


@pytest.fixture
def signed_in(sign_in, alice, catalog):
    return sign_in(alice)


def shot(page, name):
    if folder := os.environ.get("SHOTS"):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.screenshot(path=f"{folder}/{name}-{scheme}.png")


def fine(page):
    """Names, contrast in both themes, nothing wider than the window."""
    problems = [*checks.nameless(page), *checks.wider(page)]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        problems += checks.faint(page)
    return problems


def test_a_model_is_starred_looked_into_and_used_by_keyboard_alone(signed_in, live_server, alice):
    page = signed_in
    page.goto(live_server.url + reverse("chat:conversation-list"))
    page.locator("#composer-text").fill("What would this cost me? " * 40)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    search = page.get_by_role("combobox", name="Search models")
    expect(search).to_be_focused()
    in_use = page.locator("model-option[aria-current]")
    expect(in_use).to_have_attribute("aria-selected", "true")
    expect(in_use.locator(".option__draft")).to_contain_text("≈ $")
    shot(page, "selector")
    assert fine(page) == []

    page.keyboard.type("039 model")
    marked = page.locator("model-option[aria-selected=true]")
    expect(marked).to_have_attribute("data-name", "Model 039")
    page.keyboard.press("Alt+s")
    expect(marked.locator(".star")).to_have_attribute("aria-pressed", "true")
    assert FavouriteModel.objects.for_user(alice).get().model.model_id == "maker/model-039"
    page.keyboard.press("ArrowRight")
    expect(page.locator(".details")).to_contain_text("says much of itself")
    expect(page.locator(".details model-option")).to_have_count(2)
    shot(page, "selector-details")
    assert fine(page) == []
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(marked).to_contain_text("Spare key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#picker")).to_contain_text("Spare key")
    expect(page.locator("#picker strong")).to_have_text("Model 039")

    page.locator(".picker").focus()
    page.keyboard.press("Enter")
    expect(page.locator("model-option").first).to_have_attribute("data-name", "Model 039")
    expect(page.locator("model-option .star").first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("End")
    for _ in range(9):
        page.keyboard.press("PageDown")  # the end of what is drawn brings more
    expect(page.locator("model-option").nth(45)).to_be_attached()


def test_a_star_pressed_while_rows_are_on_their_way_stays_on_screen(signed_in, live_server, alice):
    page = signed_in
    page.goto(live_server.url + reverse("chat:conversation-list"))
    page.locator("#composer-text").fill("A question")
    page.locator(".picker").click()
    expect(page.get_by_role("combobox", name="Search models")).to_be_focused()
    page.keyboard.type("039")
    marked = page.locator("model-option[aria-selected=true]")
    expect(marked).to_have_attribute("data-name", "Model 039")
    star, stale = marked.locator(".star"), page.locator("[data-stale]")

    def rows_then(do):
        """Rows are asked for and answered; before the answer is given to the page, `do` it. Once: who types on a slow
        machine may ask for the same rows twice."""
        began = []

        def handler(route):
            if began:
                route.continue_()
                return
            began.append(route)
            marked.evaluate("option => option.dataset.stale = 1")
            do(route, route.fetch())

        page.route("**/models/select/?*", handler)

    def star_first(route, response):
        page.keyboard.press("Alt+s")
        expect(star).to_have_attribute("aria-pressed", "true")
        route.fulfill(response=response)

    rows_then(star_first)
    with page.expect_response("**/models/select/?*"):
        page.keyboard.type(" ")
    expect(page.locator("model-option:not([data-stale])")).to_have_count(1)
    expect(stale).to_have_count(0)
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(star).to_have_text("★")
    page.unroute("**/models/select/?*")

    def rows_first(rows_route, rows):
        def handler(route):
            response = route.fetch()
            rows_route.fulfill(response=rows)
            expect(stale).to_have_count(0)
            expect(star).to_have_attribute("aria-pressed", "true")  # as it was before
            route.fulfill(response=response)

        page.route("**/favourite/*", handler)
        page.keyboard.press("Alt+s")

    rows_then(rows_first)
    with page.expect_response("**/favourite/*"):
        page.keyboard.type("m")
    expect(star).to_have_attribute("aria-pressed", "false")
    expect(stale).to_have_count(0)
    assert not FavouriteModel.objects.for_user(alice).exists()


def test_models_are_chosen_over_pages_and_compared_on_a_phone(signed_in, live_server):
    page = signed_in
    page.goto(live_server.url + LIST + "?sort=name")
    shot(page, "explorer")
    assert fine(page) == []
    head = page.locator(".models thead th").nth(1)
    page.locator(".page").evaluate("element => element.scrollTo(0, 900)")
    assert 0 <= head.bounding_box()["y"] - page.locator(".page").bounding_box()["y"] <= 2, "the heading stays"
    shot(page, "explorer-scrolled")

    page.get_by_label("Compare Model 003").check()
    page.get_by_label("Compare Model 005").check()
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".models caption")).to_contain_text("101–131")
    page.get_by_label("Compare Model 120").check()
    page.get_by_label("Compare Model 121").check()
    page.get_by_label("Compare Model 122").click()
    expect(page.locator(".tray [role=status]")).to_have_text("4 is the most. Take one out first.")
    expect(page.get_by_label("Compare Model 122")).not_to_be_checked()
    page.get_by_role("searchbox", name="Search models").fill("sonnet")
    expect(page.locator("tr.model")).to_have_count(1)
    page.get_by_role("button", name="Take out Model 005").click()
    page.get_by_label("Compare Claude Sonnet 4.6").check()
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, "explorer-phone")
    assert fine(page) == []
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator(".compare thead th")).to_have_count(4)
    expect(page.locator(".compare thead")).to_contain_text("Claude Sonnet 4.6")
    shot(page, "compare-phone")
    assert fine(page) == []
    page.set_viewport_size({"width": 1360, "height": 860})
    shot(page, "compare")

    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(live_server.url + LIST)
    page.get_by_role("button", name="Favourite: Claude Sonnet 4.6").click()
    expect(page.get_by_role("button", name="Favourite: Claude Sonnet 4.6")).to_have_attribute("aria-pressed", "true")
    shot(page, "explorer-list-phone")
    page.goto(live_server.url + reverse("chat:conversation-list"))
    page.locator("#composer-text").fill("A question")
    page.locator(".picker").click()
    expect(page.locator("model-option").first).to_be_visible()
    shot(page, "selector-phone")
    assert fine(page) == []


def test_a_filter_is_saved_and_models_are_hidden_without_leaving_the_keyboard(signed_in, live_server):
    page = signed_in
    page.goto(live_server.url + LIST)
    page.get_by_label("Price per 1M out").select_option("5")
    save = page.get_by_role("button", name="Save this filter")
    save.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    page.keyboard.type("Cheap ones")
    page.keyboard.press("Enter")
    chosen = page.get_by_role("link", name="Cheap ones")
    expect(chosen).to_have_attribute("aria-current", "true")
    shot(page, "explorer-saved")
    page.goto(live_server.url + reverse("catalog:hide-rules"))
    page.get_by_label("Model id").fill("maker/model-1*")
    page.keyboard.press("Enter")
    expect(page.locator(".rules__list")).to_contain_text("hides 30")
    shot(page, "hide-rules")
    assert fine(page) == []
    page.goto(live_server.url + LIST)
    expect(page.locator(".models__state")).to_contain_text("30 hidden by your rules")
