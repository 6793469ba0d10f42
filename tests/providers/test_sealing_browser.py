"""K3 in a real Chromium: a recorder on the wire sees every byte the browser sends, and the key is in none of them."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from providers import vault
from providers.models import ProviderAccount

from .conftest import GOOD_KEY, account_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("rows_beside_playwright"),
]

SENTINEL = "sk-SENTINEL-7f3a9c1e5b2d-wire"
HEADER = "SENTINELheadervalue42"


@pytest.fixture(autouse=True)
def _strict(settings, _keys_may_come_as_typed):
    settings.ALLOW_UNSEALED_KEYS = False


class Wire:
    """A TCP relay before the server. `sent` is every byte that came from the browser."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname, parts.port)
        self.sent = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                browser, _ = self.listener.accept()
                server = socket.create_connection(self.target)
                threading.Thread(target=self._pump, args=(browser, server, self.sent), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, browser, None), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, record: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if record is not None:
                    record += data
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def holds(self, secret: str) -> bool:
        """Whether the secret was sent: as it is, or as base64 (at any offset), hex, or UTF-16."""
        raw, sent = secret.encode(), bytes(self.sent)
        middles = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
        forms = [raw, raw[::-1], raw.hex().encode(), raw.hex().upper().encode(), secret.encode("utf-16-le"), *middles]
        urlsafe = [form.replace(b"+", b"-").replace(b"/", b"_") for form in middles]
        return any(form in sent for form in [*forms, *urlsafe])


@pytest.fixture
def wire(live_server) -> Iterator[Wire]:
    wire = Wire(live_server.url)
    yield wire
    wire.listener.close()


@pytest.fixture
def signed_in(sign_in, wire, alice, router, server):
    server.keys.add(SENTINEL)
    return sign_in(alice, origin=wire.url, expected="422")  # the console notes refusals


def open_dialog(page, wire, path):
    page.goto(wire.url + "/accounts/")
    page.evaluate(f"htmx.ajax('GET', '{path}', '#dialog')")
    page.wait_for_selector("dialog[open] sealed-form", state="attached")
    page.wait_for_timeout(150)  # htmx listens to new content 20 ms after it drew it


def fill(page, key=SENTINEL, header=""):
    page.fill("dialog [data-sealed=api_key]", key)
    if header:
        page.evaluate("for (const more of document.querySelectorAll('dialog details')) more.open = true")
        page.fill("dialog [data-sealed=extra_headers]", header)
    page.fill("dialog input[name=label]", "Typed label")


def test_the_recorder_finds_what_is_sent(wire):
    wire.sent += b"a=" + base64.b64encode(b"{" + SENTINEL.encode() + b"}")
    assert wire.holds(SENTINEL)
    assert not wire.holds("sk-another-0123456789")


def check(page, verdict="✓ Valid"):
    """The first step, and the first button of the second is what Enter would press."""
    page.click("dialog button[type=submit]")
    page.wait_for_selector(f"dialog check-result >> text={verdict}")
    page.wait_for_timeout(150)


def test_a_key_that_is_added_is_in_no_byte_the_browser_sends(signed_in, wire, router, server):
    page = signed_in
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    fill(page, header=f"X-Team: {HEADER}")
    check(page)
    assert not ProviderAccount.objects.exists()
    assert page.input_value("dialog [data-sealed=api_key]") == SENTINEL, (
        "it stands where it was typed, and nowhere else"
    )
    assert page.input_value("dialog [data-sealed=extra_headers]") == f"X-Team: {HEADER}"
    assert SENTINEL not in page.content() and HEADER not in page.content()
    assert page.inner_text("dialog button:focus") == "Add and sync 2 models"
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Typed label was added")
    assert bytes(wire.sent).count(b"POST /accounts/sealing/") == 2, "each step has its own seal and ticket"

    account = ProviderAccount.objects.select_related("provider").get()
    assert vault.open_key(account) == SENTINEL
    assert vault.open_headers(account) == {"X-Team": HEADER}
    assert set(server.sent_keys) == {SENTINEL}, "and the provider heard the very key"
    assert b"Typed" in wire.sent, "the recorder sees what is typed elsewhere"
    assert not wire.holds(SENTINEL)
    assert not wire.holds(HEADER)


def test_a_refused_key_is_in_no_byte_either_nor_in_the_page(signed_in, wire, router, server):
    page = signed_in
    server.keys.discard(SENTINEL)
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    fill(page)
    page.focus("dialog [data-sealed=api_key]")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Router rejected this key")
    assert not wire.holds(SENTINEL)
    assert SENTINEL not in page.content()
    assert page.input_value("dialog [data-sealed=api_key]") == SENTINEL, "to be mended, not typed again"
    assert page.get_attribute("dialog [data-sealed=api_key]:focus", "aria-invalid") == "true"
    # and the same dialog takes the next one
    page.wait_for_timeout(150)
    fill(page, GOOD_KEY)
    check(page)
    page.click("dialog button[type=submit]")
    page.wait_for_selector("text=Typed label was added")
    assert vault.open_key(ProviderAccount.objects.select_related("provider").get()) == GOOD_KEY
    assert not wire.holds(GOOD_KEY)


def test_a_replaced_key_is_in_no_byte_the_browser_sends(signed_in, wire, alice, router, server):
    account = account_of(alice, router)
    page = signed_in
    open_dialog(page, wire, f"/accounts/{account.pk}/edit/")
    fill(page)
    page.click("dialog button[type=submit]")
    page.wait_for_selector("dialog:not([open])", state="attached")
    account.refresh_from_db()
    assert vault.open_key(account) == SENTINEL
    assert account.label == "Typed label"
    assert not wire.holds(SENTINEL)


def test_a_key_for_a_custom_endpoint_is_in_no_byte_the_browser_sends(signed_in, wire, server):
    page = signed_in
    open_dialog(page, wire, "/accounts/add/?provider=custom")
    page.type("dialog input[name=base_url]", "http://keys.internal/v1/chat/completions")
    fill(page)
    page.wait_for_selector(
        "text=Calls go to http://keys.internal/v1/chat/completions"
    )  # sent while the key stands there
    check(page)
    page.click("dialog button[type=submit]")
    page.wait_for_selector("text=Typed label was added")
    assert vault.open_key(ProviderAccount.objects.select_related("provider").get()) == SENTINEL
    assert not wire.holds(SENTINEL)


def test_a_rename_alone_needs_no_sealing(signed_in, wire, alice, router):
    account = account_of(alice, router)
    page = signed_in
    open_dialog(page, wire, f"/accounts/{account.pk}/edit/")
    page.fill("dialog input[name=label]", "Typed label")
    page.click("dialog button[type=submit]")
    page.wait_for_selector("dialog:not([open])", state="attached")
    account.refresh_from_db()
    assert (account.label, vault.open_key(account)) == ("Typed label", GOOD_KEY)
    assert b"/accounts/sealing/" not in wire.sent


def test_where_the_browser_cannot_seal_the_form_says_so_and_sends_nothing(signed_in, wire, router, server):
    """Plain http on a LAN: no crypto.subtle there."""
    page = signed_in
    page.context.add_init_script(
        "Object.defineProperty(window, 'isSecureContext', { value: false });"
        "Object.defineProperty(Crypto.prototype, 'subtle', { value: undefined })"
    )
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    assert page.is_visible("text=no key can be sent from here")
    fill(page)
    before = len(wire.sent)
    page.click("dialog button[type=submit]")
    page.wait_for_timeout(500)
    assert len(wire.sent) == before, "not a byte"
    assert not wire.holds(SENTINEL)
    assert server.requests == []


def test_with_the_operators_leave_it_warns_and_sends(signed_in, wire, router, server, settings):
    settings.ALLOW_UNSEALED_KEYS = True
    page = signed_in
    page.context.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    assert page.is_visible("text=Whoever is on the network can read a key")
    fill(page)
    check(page)
    assert page.input_value("dialog [data-sealed=api_key]") == SENTINEL
    page.click("dialog button[type=submit]")
    page.wait_for_selector("text=Typed label was added")
    assert wire.holds(SENTINEL), "the recorder sees a key that is sent as typed"


def test_even_with_the_operators_leave_a_browser_that_can_seal_does(signed_in, wire, router, settings):
    settings.ALLOW_UNSEALED_KEYS = True
    page = signed_in
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    fill(page)
    check(page)
    page.click("dialog button[type=submit]")
    page.wait_for_selector("text=Typed label was added")
    assert not wire.holds(SENTINEL)


def test_what_was_found_goes_when_what_was_checked_is_changed(signed_in, wire, router, server):
    page = signed_in
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    fill(page)
    check(page)
    page.fill("dialog input[name=label]", "Typed label again")
    assert page.is_visible("dialog check-result"), "a name is not part of it"
    page.fill("dialog [data-sealed=api_key]", GOOD_KEY)
    assert not page.is_visible("dialog check-result")
    assert page.inner_text("dialog #check") == "Check"
    check(page)
    page.click("dialog button[type=submit]")
    page.wait_for_selector("text=Typed label again was added")
    assert vault.open_key(ProviderAccount.objects.select_related("provider").get()) == GOOD_KEY
    assert not wire.holds(SENTINEL) and not wire.holds(GOOD_KEY)


def test_another_provider_is_not_given_what_was_typed_for_the_first(signed_in, wire, router, local):
    page = signed_in
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    fill(page)
    check(page)
    page.click("dialog #choice-custom")
    page.wait_for_selector("dialog input[name=base_url]")
    assert page.input_value("dialog [data-sealed=api_key]") == ""


def test_what_could_not_be_verified_is_saved_by_its_own_button_and_enter_asks_again(signed_in, wire, router, server):
    page = signed_in
    server.answer = lambda heard: (503, {})
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    fill(page)
    check(page, "Not verified")
    heard = len(server.requests)
    page.focus("dialog [data-sealed=api_key]")
    page.keyboard.press("Enter")
    for _ in range(50):  # it is sealed before it is sent
        page.wait_for_timeout(100)
        if len(server.requests) > heard:
            break
    page.wait_for_selector("dialog form.htmx-request", state="detached")
    page.wait_for_timeout(300)
    assert len(server.requests) > heard and not ProviderAccount.objects.exists()
    page.click("text=Add, not verified")
    page.wait_for_selector("text=Typed label was added")
    assert ProviderAccount.objects.get().status == "unverified"
    assert not wire.holds(SENTINEL)


def test_a_key_is_pasted_shown_and_hidden_again_by_buttons(signed_in, wire, router):
    page = signed_in
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_dialog(page, wire, f"/accounts/add/?provider={router.pk}")
    page.evaluate(f"navigator.clipboard.writeText(' {SENTINEL}\\n')")
    page.click("dialog [data-paste]")
    page.wait_for_timeout(150)
    box = page.locator("dialog [data-sealed=api_key]")
    assert (box.input_value(), box.get_attribute("type")) == (SENTINEL, "password")
    page.click("dialog secret-field [aria-pressed]")
    assert box.get_attribute("type") == "text"
    check(page)
    assert box.get_attribute("type") == "password", "nothing stays readable on the screen"
    assert not wire.holds(SENTINEL)
