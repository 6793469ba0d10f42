"""The first minutes with Switchboard, in a real browser against the real processes: issue 2's first paragraph."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Trial, choose_model, create_first_account, expected_error, send, whole_product

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(180)]

WRONG_KEY = "sk-wrong-SENTINEL-4711"
QUESTION = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey xray yankee zulu and so on"
)
# The trial upstream's rules, by hand: four characters are a token, rounded up; Echo costs $0.1 per 1M tokens each way.
# 174 characters are 44 tokens in, and the same 44 out: 88 tokens at $0.0000001 are $0.0000088.
COST = "$0.0000088"

STORAGES = """async () => {
  const stored = { local: { ...localStorage }, session: { ...sessionStorage } }
  stored.databases = (await indexedDB.databases()).map((database) => database.name)
  stored.caches = await caches.keys()
  stored.workers = (await navigator.serviceWorker.getRegistrations()).length
  return stored
}"""


@pytest.fixture
def board(tmp_path, prepared):
    with whole_product(tmp_path, prepared) as board:
        yield board


@pytest.fixture
def trial(board) -> Trial:
    return Trial(board)


def test_a_newcomer_gets_from_the_set_up_link_to_a_metered_answer_and_leaves_nothing_behind(page, board, trial):
    assert len(QUESTION) == 174
    create_first_account(page, board)
    _a_wrong_key_is_refused_beside_its_field(page, board)
    _the_trial_account_syncs_before_ones_eyes(page)
    reply = _a_reply_outlives_a_reload(page, trial)
    _stop_keeps_text_and_cost(page, trial)
    _the_ledger_has_it(page, board)
    _signing_out_leaves_nothing(page, board, reply)
    assert page.notes.problems(board.origin) == []


def _a_wrong_key_is_refused_beside_its_field(page: Page, board) -> None:
    page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Custom endpoint").click()
    dialog.get_by_label("Address").fill("http://sandbox.internal/v1")
    dialog.get_by_label("Label").fill("Lab")
    dialog.get_by_label("API key").fill(WRONG_KEY)
    dialog.get_by_text("Headers, priority").click()
    dialog.get_by_label("Priority").fill("7")
    dialog.get_by_role("button", name="Check", exact=True).click()

    key = dialog.get_by_label("API key")
    expect(key).to_have_attribute("aria-invalid", "true")
    beside = page.locator(f"#{key.get_attribute('id')}_error")
    expect(beside).to_contain_text("rejected this key. Asked GET /models.")
    assert beside.get_attribute("id") in key.get_attribute("aria-describedby").split()
    expect(key).to_have_value(WRONG_KEY)  # to be mended; it stands nowhere but in its box
    expect(key).to_have_attribute("type", "password")
    expect(dialog.get_by_label("Address")).to_have_value("http://sandbox.internal/v1")
    expect(dialog.get_by_label("Label")).to_have_value("Lab")
    expect(dialog.get_by_label("Priority")).to_have_value("7")
    assert WRONG_KEY not in page.content()
    expected_error(page, "422", "/accounts/create/")


def _the_trial_account_syncs_before_ones_eyes(page: Page) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Try it without a key").click()
    expect(dialog.get_by_text("needs no key")).to_be_visible()
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("14 models listed, such as")).to_be_visible()
    # Whichever of these the eye catches, a state of the sync is always on the page.
    status = dialog.locator(".sync-status [role=status], [role=status]:has-text('Reading the model list')").first
    expect(status).to_have_text(re.compile("Waiting|Reading|Storing|Synced"))
    expect(dialog.get_by_text("14 models, all new.")).to_be_visible()
    expect(page.locator("#side-models")).to_have_text("14")
    dialog.get_by_role("button", name="Done").click()
    expect(page.locator("#composer-text")).to_be_focused()


def _a_reply_outlives_a_reload(page: Page, trial) -> str:
    """Returns the address of the conversation."""
    choose_model(page, "echo", "Echo")
    trial.hold(after=3)
    send(page, QUESTION)
    trial.wait(held=1)
    expect(page).to_have_url(re.compile(r"/c/[0-9a-f-]{36}/$"))
    answer = page.locator(".turn--reply .prose")
    expect(answer).to_have_text("alpha bravo charlie delta echo foxtrot")
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(page.locator("#conversations .dot")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()

    page.reload()
    expect(answer).to_have_text("alpha bravo charlie delta echo foxtrot")
    trial.let_go()
    expect(page.locator(".turn--reply[data-state=complete]")).to_be_visible()
    expect(answer).to_have_text(QUESTION)  # no gap, no repeat
    assert len(trial.chats) == 1, "a reload asked the upstream again"
    live = answer.inner_html()
    expect(page.locator(".receipt strong")).to_have_text(f"{COST} computed")
    expect(page.locator(".receipt")).to_contain_text("44 in")
    expect(page.locator(".receipt")).to_contain_text("44 out")
    expect(page.locator("#chat-figures")).to_contain_text(COST)
    expect(page.locator("#conversations .dot")).to_be_hidden()
    expect(page.locator("#conversations [aria-current=page]")).to_contain_text(COST)

    page.notes.gather()
    page.reload()
    assert page.locator(".turn--reply .prose").inner_html() == live, "live and stored differ"
    return page.url


def _stop_keeps_text_and_cost(page: Page, trial) -> None:
    page.keyboard.press("Escape")  # no reply is being written: nothing happens
    page.get_by_role("link", name="New conversation").click()
    choose_model(page, "slow", "Slow writer")
    trial.hold(after=4)
    send(page, "Tell me more")
    trial.wait(held=1)
    answer = page.locator(".turn--reply .prose")
    expect(answer).to_contain_text("This is")  # the last of the four pieces
    before = answer.inner_text()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".turn--reply[data-state=stopped]")).to_be_visible()
    trial.wait(left=1)
    trial.let_go()
    expect(page.get_by_text("You stopped this reply.")).to_be_visible()
    assert answer.inner_text().strip() == before.strip()
    expect(page.locator(".receipt strong")).to_have_text(re.compile(r"\$0\.0000\d+ estimated"))
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    page.notes.gather()


def _the_ledger_has_it(page: Page, board) -> None:
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("heading", name="Usage", exact=True)).to_be_visible()
    row = page.locator(".attempts tr", has=page.locator("strong", has_text=re.compile("^Echo$")))
    expect(row).to_contain_text(COST)
    expect(row).to_contain_text("computed")
    expect(row).to_contain_text("Chat")
    stopped = page.locator(".attempts tr", has_text="Slow writer")
    expect(stopped).to_contain_text("Stopped")
    page.notes.gather()

    page.get_by_role("link", name="Admin").click()
    page.get_by_role("link", name="Usage logs", exact=True).first.click()
    row = page.locator("#result_list tbody tr", has_text="echo")
    expect(row).to_have_count(1)
    expect(row.locator(".field-shown_cost")).to_have_text(COST)
    expect(row.locator(".field-tokens_in")).to_have_text("44")
    row.locator("a").first.click()
    # The figure to the last digit, where it is stored: 88 tokens at a ten-millionth of a dollar.
    cost = page.locator(".field-cost .readonly").first.inner_text()
    assert Decimal(cost) == Decimal("0.0000088")
    page.notes.gather()
    page.goto(f"{board.origin}/")


def _signing_out_leaves_nothing(page: Page, board, conversation: str) -> None:
    """X9: no words, no key in any storage of the browser, and Back shows the sign-in page."""
    page.goto(conversation)
    expect(page.locator(".turn--reply .prose")).to_have_text(QUESTION)
    page.notes.gather()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    stored = page.evaluate(STORAGES)
    # All there is: the admin's choice of light or dark, the names of its filters that stand open (where the browser had
    # the time to tell), and the path htmx is at, by now the sign-in page's.
    assert stored.pop("local") in ({}, {"theme": "auto"})
    session = stored.pop("session")
    filters = json.loads(session.pop("django.admin.filtersState", "{}"))
    assert filters.keys() <= {"status", "door", "cost source", "provider name", "started at"}
    assert set(session.values()) <= {"/sign-in/login/"}
    assert stored == {"databases": [], "caches": [], "workers": 0}
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    assert not any("session" in name for name in cookies), cookies
    assert not any("alpha" in value or "sk-" in value for value in cookies.values())
    page.notes.gather()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "alpha bravo" not in page.content()
