"""The list of accounts in a real browser: order by mouse, finger and keyboard; news that come by themselves."""

from __future__ import annotations

import os

import pytest

from providers import health
from providers.clients.errors import ProviderRefused
from providers.models import ProviderAccount

from .conftest import account_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def three(alice, router) -> list[ProviderAccount]:
    return [account_of(alice, router, f"sk-number-{n}-abcdefgh", label=f"No. {n}", status="valid") for n in range(3)]


@pytest.fixture
def signed_in(sign_in, live_server, alice, three):
    page = sign_in(alice)
    page.goto(live_server.url + "/accounts/")
    page.wait_for_timeout(100)
    return page


def shown(page) -> list[str]:
    return page.locator(".account strong").all_inner_texts()


def stored(alice) -> list[str]:
    return [account.label for account in ProviderAccount.objects.for_user(alice)]


def grip(page, n: int) -> tuple[float, float]:
    box = page.locator("[data-grip]").nth(n).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start: int, onto: int) -> None:
    page.mouse.move(*grip(page, start))
    page.mouse.down()
    x, y = grip(page, onto)
    page.mouse.move(x, y + (12 if onto > start else -12), steps=8)


def test_a_row_is_dragged_to_its_place_and_escape_puts_it_back(signed_in, alice):
    page = signed_in
    drag(page, 0, 2)
    assert shown(page) == ["No. 1", "No. 2", "No. 0"], "it moves under the pointer"
    assert stored(alice) == ["No. 0", "No. 1", "No. 2"], "nothing is posted before it is let go"
    with page.expect_response("**/move/"):
        page.mouse.up()
    page.wait_for_timeout(100)
    assert shown(page) == stored(alice) == ["No. 1", "No. 2", "No. 0"]

    drag(page, 2, 0)
    page.keyboard.press("Escape")
    page.mouse.up()
    page.wait_for_timeout(200)
    assert shown(page) == stored(alice) == ["No. 1", "No. 2", "No. 0"]


def test_a_finger_drags_too(signed_in, alice):
    page = signed_in
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(100)
    devtools = page.context.new_cdp_session(page)
    (x, y), (_, end) = grip(page, 2), grip(page, 0)

    def touch(kind: str, *points: float) -> None:
        spots = [{"x": x, "y": at} for at in points]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    touch("touchStart", y)
    for step in range(1, 9):
        touch("touchMove", y + (end - 12 - y) * step / 8)
    with page.expect_response("**/move/"):
        touch("touchEnd")
    page.wait_for_timeout(100)
    assert shown(page) == stored(alice) == ["No. 2", "No. 0", "No. 1"]


def test_an_order_that_could_not_be_stored_is_put_back_and_said(signed_in, alice, live_server):
    page = signed_in
    page.route("**/move/", lambda route: route.abort())
    drag(page, 0, 2)
    page.mouse.up()
    page.wait_for_selector("text=Switchboard cannot be reached")
    assert shown(page) == stored(alice) == ["No. 0", "No. 1", "No. 2"]
    page.notes.errors.clear()  # the console notes a request that failed, as it should


def test_the_arrows_do_it_by_keyboard_and_keep_the_focus(signed_in, alice, three):
    page = signed_in
    page.focus(f"#up-{three[2].pk}")
    with page.expect_response("**/move/"):
        page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert shown(page) == stored(alice) == ["No. 0", "No. 2", "No. 1"]
    assert page.evaluate("document.activeElement.id") == f"up-{three[2].pk}"


def test_trouble_met_elsewhere_comes_to_the_open_page_and_goes_again(signed_in, three):
    page = signed_in
    page.focus(f"#test-{three[1].pk}")
    page.evaluate("document.querySelector('#messages').innerHTML = '<p>A notice</p>'")
    health.failed(three[0], ProviderRefused("no_balance", status=402))
    page.wait_for_selector("text=Top it up there", timeout=9_000)
    assert page.inner_text("#side-attention") == "1"
    assert page.inner_text("#messages") == "A notice"
    assert page.evaluate("document.activeElement.id") == f"test-{three[1].pk}", "nobody's focus is lost"

    row = ProviderAccount.objects.get(pk=three[0].pk)
    health.succeeded(row, row.checked_at)
    page.wait_for_selector("text=Top it up there", state="detached", timeout=9_000)
    assert page.inner_text("#side-attention") == ""


def test_on_the_page_of_a_chat_the_badge_comes_by_itself(signed_in, live_server, three):
    page = signed_in
    page.goto(live_server.url + "/")
    assert page.inner_text("#side-attention") == ""
    health.failed(three[0], ProviderRefused("key_rejected", status=401))
    page.wait_for_selector("#side-attention >> text=1", timeout=9_000)


def test_a_page_out_of_sight_asks_nothing(signed_in):
    page = signed_in
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/pulse/" in request.url else None)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.wait_for_timeout(6_000)
    assert asked == []
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(500)
    assert len(asked) == 1, "and at once when it is looked at again"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(signed_in, scheme, three):
    page = signed_in
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 375, "height": 740})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    if folder := os.environ.get("SHOTS"):
        page.screenshot(path=f"{folder}/accounts-phone-{scheme}.png")
