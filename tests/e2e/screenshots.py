"""`python -m tests.e2e.screenshots [folder]`: the pictures of the README, taken from the product with its trial upstream.

Each is 1280 by 800 pixels and at most 150 kB; take them again when a page they show changes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser import find_chromium
from tests.e2e.conftest import Trial, choose_model, create_first_account, send
from tests.switchboard import ROOT, Switchboard

SIZE = {"width": 1280, "height": 800}
MOST_BYTES = 150_000

EARLIER = (
    ("Writer", "writer", "Translate the warranty letter"),
    ("Tables", "tables", "Compare three laptops by price and weight"),
    ("Free writer", "free writer", "Birthday riddle in Dutch"),
    ("Mathematician", "mathematician", "How many pairs are in a group?"),
    ("Billed writer", "billed", "Refactor the ingest script"),
)


def converse(page: Page, name: str, words: str, text: str) -> None:
    choose_model(page, words, name)
    before = page.locator(".turn--reply").count()
    send(page, text)
    expect(page.locator(".turn--reply[data-state=complete]")).to_have_count(before + 1)


def fill(page: Page, board: Switchboard) -> None:
    """A first account, its models, and a few conversations."""
    create_first_account(page, board)
    page.get_by_role("button", name="Try it without a key").click()
    expect(page.locator("#composer")).to_be_visible()
    for name, words, text in EARLIER:
        page.goto(f"{board.origin}/")
        converse(page, name, words, text)
    page.goto(f"{board.origin}/")
    converse(page, "Thinker", "thinker", "Is a window function slower than a join?")


def take(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.screenshot(path=path, caret="initial")
    size = path.stat().st_size
    print(f"{path.name}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} is larger than {MOST_BYTES // 1000} kB.")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as var,
        Switchboard(Path(var) / "var", SANDBOX_CONTROL="1", SANDBOX_SPEED="0") as board,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, reduced_motion="reduce", locale="en-GB", timezone_id="UTC")
        trial = Trial(board)
        fill(page, board)

        choose_model(page, "coder", "Coder")
        trial.hold(after=8)
        send(page, "Show me a total per day, in Python and SQL")
        trial.wait(held=1)
        expect(page.locator("generation-stream figure")).to_contain_text("dataclass")
        expect(page.locator("#conversations .dot")).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            take(page, folder / f"chat-{scheme}.png")
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        trial.let_go()
        expect(page.locator("generation-stream")).to_have_count(0)

        page.locator(".picker").click()
        expect(page.locator("dialog model-option").first).to_be_visible()
        take(page, folder / "selector.png")
        page.keyboard.press("Escape")
        page.goto(f"{board.origin}/usage/")
        take(page, folder / "usage.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots")
