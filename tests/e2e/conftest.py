"""The whole product as `make run` starts it, its trial upstream held in hand, and a person in Chromium in front."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.switchboard import Switchboard

# Patience for a machine on which the other core runs another server's test; a page that is right is right at once.
expect.set_options(timeout=20_000)

NAME, PASSWORD = "robin", "four random words here"


class Trial:
    """The trial upstream beside the server: what it was asked, and a gate that holds its streams."""

    def __init__(self, board: Switchboard) -> None:
        [line] = [
            " ".join(process.cmdline()) for name, process in board.children().items() if name.startswith("companion")
        ]
        port = line.split("--port ")[1].split()[0]
        self.origin = f"http://127.0.0.1:{port}"

    def _ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(f"{self.origin}/_control/{path}", method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def hold(self, after: int) -> None:
        """Every stream waits after that many pieces, until `let_go`."""
        self._ask("POST", f"gate?after={after}")

    def let_go(self) -> None:
        self._ask("POST", "open")

    def wait(self, **counts: int) -> None:
        """Until so many `chats` came, streams are `held`, or callers `left`. Raises HTTPError 408 after 10 s."""
        self._ask("GET", "wait?seconds=10&" + "&".join(f"{name}={count}" for name, count in counts.items()))

    @property
    def chats(self) -> list[dict[str, Any]]:
        return [record for record in self._ask("GET", "requests") if record["path"].endswith("/chat/completions")]

    def forget(self) -> None:
        self._ask("POST", "reset")


def whole_product(folder: Path, prepared: Path) -> Switchboard:
    """To be started, with a trial upstream that can be held."""
    return Switchboard(folder / "var", SANDBOX_CONTROL="1").like(prepared)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[Switchboard]:
    """One for all who do not mind what others did before them; the newcomer's journey begins at a fresh one."""
    with whole_product(tmp_path_factory.mktemp("e2e"), prepared) as board:
        yield board


@pytest.fixture(scope="session")
def trial(board: Switchboard) -> Trial:
    return Trial(board)


def create_first_account(page: Page, board: Switchboard) -> None:
    page.goto(board.setup_link)
    page.get_by_label("Username").fill(NAME)
    page.get_by_label("Email address").fill("robin@lab.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account and sign in").click()
    expect(page).to_have_url(f"{board.origin}/")


@pytest.fixture
def robin(page: Page, board: Switchboard) -> Page:
    """A signed-in page of the first user, whoever's test comes first; it has the trial account."""
    if board.get(board.setup_link.removeprefix(board.origin))[0] == 200:
        create_first_account(page, board)
    else:
        page.goto(f"{board.origin}/sign-in/login/")
        page.get_by_label("Username or email").fill(NAME)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{board.origin}/")
    if page.get_by_role("heading", name="Add an account to begin").is_visible():
        page.get_by_role("button", name="Try it without a key").click()
    expect(page.locator("#composer")).to_be_visible()
    return page


# -- What a person does in a chat ------------------------------------------------------------------------------------


def choose_model(page: Page, words: str, name: str) -> None:
    """From the composer, by keyboard alone."""
    page.locator("#composer-text").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("combobox", name="Search models")).to_be_focused()
    page.keyboard.type(words)
    page.keyboard.press("Enter")
    expect(page.locator("#picker strong")).to_have_text(name)
    expect(page.locator("#composer-text")).to_be_focused()


def send(page: Page, text: str) -> None:
    """Type and press Enter."""
    page.locator("#composer-text").fill(text)
    page.keyboard.press("Enter")


def expected_error(page: Page, *words: str) -> None:
    """Take out the one console line that Chromium writes for an answer we expect, such as 422."""
    found = [line for line in page.notes.errors if all(word in line for word in words)]
    assert len(found) == 1, page.notes.errors
    page.notes.errors.remove(found[0])
