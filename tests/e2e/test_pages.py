"""Every page for everybody: on a phone, by keyboard alone, by ear, in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from playwright.sync_api import Page, expect

from tests.e2e import checks
from tests.e2e.conftest import choose_model, send

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(180)]

PAGES = (
    "/", "/models/", "/models/?q=nothing-like-this", "/models/?sort=-out&type=chat", "/models/hidden/?glob=x",
    "/models/compare/", "/models/changes/", "/models/changes/?mine=on", "/models/1/", "/notices/", "/accounts/", "/usage/",
    "/usage/?period=today", "/usage/tokens/",
    "/sign-in/password/change/", "/sign-in/email/", "/sign-in/logout/", "/nothing/here/",
)  # fmt: skip
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"


def dialogs(page: Page, origin: str):
    """Open each dialog in turn, yield its name, close it."""
    page.goto(f"{origin}/")
    page.locator(".picker").click()
    expect(page.locator("dialog model-option").first).to_be_visible()
    yield "selector"
    page.keyboard.press("Escape")
    for choice in ("AiHubMix", "Custom endpoint"):
        page.goto(f"{origin}/accounts/?add")
        page.get_by_role("dialog").get_by_role("button", name=choice).click()
        expect(page.get_by_role("dialog").get_by_label("API key")).to_be_visible()
        yield f"add {choice}"
    page.goto(f"{origin}/accounts/")
    for action in ("Edit", "Remove"):
        page.get_by_role("button", name=re.compile(f"^{action} ")).first.click()
        expect(page.get_by_role("dialog").get_by_role("heading")).to_be_visible()
        yield action
        page.keyboard.press("Escape")


@pytest.fixture
def lived_in(robin, board) -> Page:
    """Robin's Switchboard with a conversation that has a table, code and long words; the page is on it."""
    page = robin
    if not page.locator("#conversations a").count():
        choose_model(page, "tables", "Tables")
        send(page, f"{LONG} examples of internationalisation and letters in a row")
        expect(page.locator(".turn--reply[data-state=complete]")).to_have_count(1)
        choose_model(page, "coder", "Coder")
        send(page, f"`{LONG}`" * 3)
        expect(page.locator(".turn--reply[data-state=complete]")).to_have_count(2)
        choose_model(page, "unpriced", "Unpriced writer")
        send(page, "What does it cost?")
        expect(page.locator(".turn--reply[data-state=complete]")).to_have_count(3)
    else:
        page.locator("#conversations a").first.click()
        expect(page.locator(".turn--reply").first).to_be_visible()
    return page


def test_every_page_has_names_for_everything_and_enough_contrast_in_both_themes(lived_in, board):
    page = lived_in
    found: dict[str, list[str]] = {}
    paths = [page.url.removeprefix(board.origin), *PAGES]

    def look(where: str) -> None:
        found[where] = checks.nameless(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colour half-way to another
            found[f"{where} in {scheme}"] = checks.faint(page)

    for path in paths:
        page.goto(board.origin + path)
        look(path)
    for name in dialogs(page, board.origin):
        look(f"dialog {name}")
    page.context.clear_cookies()
    for path in ("/sign-in/login/", "/sign-in/signup/", "/sign-in/password/reset/", "/setup/over/"):
        page.goto(board.origin + path)
        look(path)
    assert {where: problems for where, problems in found.items() if problems} == {}


def test_the_checks_find_what_is_planted(page):
    page.set_content(
        '<!doctype html><html><body style="background:#fff"><h1 id=a>Title</h1><main><button><span aria-hidden=true>x</span></button>'
        '<input><label for=gone>L</label><p id=a style="color:#999">faint</p><p style="color:#767676">enough</p>'
        '<div class=app style="width:3000px;height:3000px">wide</div></main></body></html>'
    )
    names = " ".join(checks.nameless(page))
    assert (
        names.count("no name") == 2 and "for leads nowhere" in names and "id twice: a" in names and "no title" in names
    )
    assert [line[:7] for line in checks.faint(page)] == ["2.85: p"]  # #999 on white; #767676 has 4.54
    wide, tall, *_ = checks.wider(page)
    assert wide.startswith("the page: 3") and tall.startswith("the frame itself scrolls: 3")


def test_tokens_of_text_have_contrast_on_every_ground_in_both_themes(page):
    """Also where no page puts them together today. The grounds and inks of tokens.css, 4.5:1 each."""
    css = (Path(settings.BASE_DIR) / "static/css/tokens.css").read_text()
    inks = ("ink", "ink-2", "ink-3", "green", "amber", "red")
    rows = "".join(
        f'<div style="background:var(--{ground})"><span style="color:var(--{ink})">{ink} on {ground}</span></div>'
        for ground in ("paper", "raised", "sunken")
        for ink in inks
    )
    washes = "".join(
        f'<div style="background:var(--{ink}-wash)"><span style="color:var(--{ink})">{ink} on its wash</span></div>'
        for ink in ("green", "amber", "red")
    )
    action = (
        '<div style="background:var(--color-action)"><span style="color:var(--color-on-action)">on action</span></div>'
    )
    page.set_content(f"<html><head><style>{css}</style></head><body>{rows}{washes}{action}</body></html>")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert checks.faint(page) == [], scheme
        assert len(checks.faint(page, 99)) == 22, "each pair is measured"


def test_nothing_scrolls_sideways_on_a_phone(lived_in, board):
    page = lived_in
    conversation = page.url.removeprefix(board.origin)
    found: dict[str, list[str]] = {}

    def look(where: str) -> None:
        for width in (320, 390):
            page.set_viewport_size({"width": width, "height": 844})
            found[f"{where} at {width}"] = checks.wider(page)

    for path in (conversation, *PAGES):
        page.goto(board.origin + path)
        look(path)
    for name in dialogs(page, board.origin):
        look(f"dialog {name}")
    page.goto(board.origin + conversation)
    page.get_by_role("button", name="Open the menu").click()
    expect(page.get_by_role("link", name="Switchboard")).to_be_focused()
    look("the sidebar")
    assert {where: problems for where, problems in found.items() if problems} == {}

    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Open the menu")).to_be_focused()
    expect(page.locator("#side")).to_be_hidden()

    words = page.locator(".prose td", has_text=re.compile("^examples$")).bounding_box()
    assert words["height"] < 60, "a word of the table is broken in the middle"
    send_button, composer = (
        page.get_by_role("button", name="Send").bounding_box(),
        page.locator(".composer").bounding_box(),
    )
    picker = page.locator(".picker").bounding_box()
    assert send_button["x"] + send_button["width"] < composer["x"] + composer["width"]
    assert abs((picker["y"] + picker["height"] / 2) - (send_button["y"] + send_button["height"] / 2)) < 6, "one line"


def _active(page: Page) -> str:
    return page.evaluate(
        "document.activeElement.closest('dialog') ? 'dialog' : document.activeElement === document.body ? 'body' : 'page'"
    )


def test_everything_is_reached_by_keyboard_alone(lived_in, board, trial):
    page = lived_in
    conversation = page.url
    page.goto(f"{board.origin}/accounts/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    opener = page.get_by_role("button", name="Add an account")
    expect(opener).to_be_focused()

    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    for key in ["Tab"] * 14 + ["Shift+Tab"] * 14:
        page.keyboard.press(key)
        assert _active(page) in ("dialog", "body"), "the focus left an open dialog"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(opener).to_be_focused()

    page.keyboard.press("n")
    expect(page).to_have_url(f"{board.origin}/")

    # A menu closes on Escape and on its own items; it does not stop the reply that is being written.
    page.goto(conversation)
    trial.hold(after=2)
    send(page, "One more")
    trial.wait(held=1)
    expect(page.locator("generation-stream .prose")).to_contain_text("You wrote")
    menu = page.locator(".menu summary")
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Rename")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Rename")).to_be_hidden()
    expect(menu).to_be_focused()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Rename").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".menu[open]")).to_have_count(0)

    # And Escape with nothing open stops it.
    page.keyboard.press("Escape")
    expect(page.locator(".turn--reply[data-state=stopped]")).to_be_visible()
    trial.let_go()


def test_what_goes_wrong_is_said_and_nothing_typed_is_lost(lived_in, board):
    page = lived_in
    field, notices = page.locator("#composer-text"), page.locator("#messages toast-message")

    page.get_by_role("button", name="Send").click()
    expect(page.locator("#composer-problems")).to_have_text("Write a message first.")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.press_sequentially("Are you there?")
    expect(page.locator("#composer-problems")).to_have_count(0)

    page.context.set_offline(True)
    page.keyboard.press("Enter")
    expect(notices).to_contain_text("Switchboard cannot be reached.")
    expect(field).to_have_value("Are you there?")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    expect(notices).to_have_count(1)
    page.context.set_offline(False)
    notices.get_by_role("button", name="Dismiss").click()
    expect(notices).to_have_count(0)
    replies = page.locator(".turn--reply[data-state=complete]").count()
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn--reply[data-state=complete]")).to_have_count(replies + 1)

    held = []
    page.route(re.compile(r"/chat/models/"), lambda route: held.append(route))
    page.locator(".picker").click()
    expect(page.get_by_role("dialog", name="Loading…").locator(".skeleton").first).to_be_visible()
    held.pop().continue_()
    expect(page.get_by_role("dialog", name="Choose a model")).to_be_visible()
    expect(page.get_by_role("combobox", name="Search models")).to_be_focused()
    page.keyboard.press("Escape")
    page.locator(".picker").click()
    expect(page.get_by_role("dialog", name="Loading…")).to_be_visible()
    held.pop().abort()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(notices).to_contain_text("Switchboard cannot be reached.")
    page.unroute(re.compile(r"/chat/models/"))

    field.fill("Words I would miss")
    page.context.clear_cookies(name="session")
    page.keyboard.press("Enter")
    expect(notices.filter(has_text="You are signed out.").get_by_role("link", name="sign in")).to_be_visible()
    expect(field).to_have_value("Words I would miss")
