"""A real Chromium for tests, and what it noticed: refused policies, errors in the console, requests to other origins."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connections

_LISTEN = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", event =>
    window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`));
"""


# Chromium takes the last switch of a kind, so Playwright's list is said again as far as it matters here: nothing is
# upgraded to https, asked of the network or painted late. The two at the end are a page of the browser's own in every
# window, a fifth of what these tests cost.
_WITHOUT = (
    "HttpsUpgrades", "HttpsFirstBalancedModeAutoEnable", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled",
    "PreconnectToSearch", "MediaRouter", "LensOverlay", "PaintHolding", "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose", "ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect",
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup",
)  # fmt: skip


def find_chromium() -> str | None:
    """The system's Chromium, or the one CHROMIUM names."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    return None


@dataclass
class Notes:
    """What one page noticed. `problems()` is empty on a page as it should be."""

    page: Any
    origins: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    home: str = ""
    """The origin of whose pages there must be no problems when the test is over; "" for no such check."""
    expected: str = ""
    """Errors that hold this are no problem; "" for none."""

    def gather(self) -> None:
        """Take the violations of the present document; call it before leaving the page."""
        self.violations += self.page.evaluate("window.__violations.splice(0)")

    def problems(self, origin: str) -> list[str]:
        self.gather()
        foreign = [f"asked {other}" for other in self.origins - {origin}]
        # Whoever closes a dialog or leaves a page breaks off what it asked for, and htmx says so as an error.
        errors = [said for said in self.errors if not said.startswith(("htmx:sendAbort,", "htmx:afterRequest,"))]
        errors = [said for said in errors if not self.expected or self.expected not in said]
        return [*self.violations, *errors, *foreign]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for the session; skips, loudly in the summary, where there is none."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here: install the package chromium, or name one in CHROMIUM")
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-dev-shm-usage", f"--disable-features={','.join(_WITHOUT)}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=switches)
        yield browser
        browser.close()


def _with_place(said: Any) -> str:
    return f"{said.text} ({said.location.get('url', '')})"


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh, empty profile's page of 1280 by 800; `page.notes` is what it noticed."""
    # Motion is left out, as some people ask for: Chromium would paint every frame of it, without a graphics card.
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(15_000)
    context.add_init_script(_LISTEN)
    page = context.new_page()
    notes = page.notes = Notes(page)

    def requested(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"}:
            notes.origins.add(f"{parts.scheme}://{parts.netloc}")

    page.on("request", requested)
    page.on("pageerror", lambda error: notes.errors.append(str(error)))
    page.on("console", lambda said: notes.errors.append(_with_place(said)) if said.type == "error" else None)
    yield page
    problems = notes.problems(notes.home) if notes.home else []
    context.close()
    assert problems == []


# -- Signed in, on the server that runs in this process --------------------------------------------------------------


@pytest.fixture(scope="module")
def rows_beside_playwright() -> Iterator[None]:
    """Playwright keeps an event loop running in this thread; Django would refuse to touch the database beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield


@pytest.fixture
def sign_in(
    request: pytest.FixtureRequest, rows_beside_playwright: None, live_server: Any, client: Any
) -> Callable[..., Any]:
    """sign_in(user): a page of theirs, which must have noticed nothing in the end, but errors that hold `expected`."""

    def signed_in(user: Any, *, origin: str = "", expected: str = "") -> Any:
        page = request.getfixturevalue("page")  # only now: making the database does not go beside Playwright either
        client.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        page.notes.home, page.notes.expected = origin or live_server.url, expected
        page.context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": page.notes.home}])
        return page

    return signed_in


def elsewhere(work: Callable[[], object]) -> None:
    """Do it in a thread of its own, and wait: a sync runs a loop, and this thread may have Playwright's."""

    def run() -> None:
        work()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
