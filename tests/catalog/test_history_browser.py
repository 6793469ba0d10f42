"""The pages of history in a real browser: filters keep the address, notices leave the count, the plot is drawn."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from catalog import sync
from catalog.models import AggregatorModel
from tests.browser import elsewhere
from tests.catalog.conftest import listing, model
from usage.models import DailyUsage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def signed_in(sign_in, alice, account, upstream):
    DailyUsage.objects.create(
        user_id=alice.pk, day=timezone.now().date(), door="chat", provider_name="Lister", account_id=account.pk,
        model_id="m", attempts=1,
    )  # fmt: skip
    for input_price in ("3", "4", "2.5"):
        upstream(listing(model("m", input_price, "15", display_name="Em"), model("other")))
        elsewhere(lambda: sync.sync_account(account))
    AggregatorModel.objects.update(created_at=timezone.now() - timedelta(days=30))
    return sign_in(alice)


def test_filters_keep_the_address_notices_leave_the_count_and_the_plot_is_drawn(signed_in, live_server):
    page = signed_in
    page.goto(live_server.url + reverse("catalog:change-list"))
    page.get_by_label("Kind of change").select_option("price")
    expect(page).to_have_url(f"{live_server.url}/models/changes/?kind=price")
    expect(page.locator("#changes .entry")).to_have_count(2)
    page.get_by_text("Models I use or star").click()
    expect(page).to_have_url(f"{live_server.url}/models/changes/?kind=price&mine=on")
    page.reload()
    expect(page.locator("#changes .entry")).to_have_count(2)
    page.notes.gather()

    page.get_by_label("Navigation").get_by_role("link", name="Notices").click()
    expect(page.locator("#side-notices")).to_have_text("2")
    page.get_by_role("button", name="Mark the notice on Em as read").first.click()
    expect(page.locator("#side-notices")).to_have_text("1")
    page.get_by_role("button", name="Mark all as read").click()
    expect(page.locator("#side-notices")).to_have_text("")
    expect(page.locator(".told")).to_have_count(2)
    page.notes.gather()

    page.locator(".told__model").first.click()
    plot = page.get_by_role("img", name="Input price over time")
    expect(plot).to_be_visible()
    line = plot.locator(".series .line")
    assert line.evaluate("line => getComputedStyle(line).stroke") != "none"
    assert line.evaluate("line => getComputedStyle(line).fill") == "none"
    page.get_by_text("As a table").click()
    expect(page.get_by_role("cell", name="$4.00").first).to_be_visible()
