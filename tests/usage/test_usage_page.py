"""The usage page: sums from daily rows, rows of one's own only, nothing that the policy of the browser refuses."""

import re
import uuid
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db.models import Sum
from django.urls import reverse
from django.utils import timezone

from providers.clients.base import Delta, Usage
from providers.clients.errors import ProviderRefused
from tests.usage.conftest import make_route
from usage import charts, ledger, reports
from usage.ledger import Attempt
from usage.models import DailyUsage, UsageLog

URL = "/usage/"
D = Decimal


def call(user, route, *, days_ago=0, usage=None, status="success", error=None, cost=None, **kwargs):
    """One settled attempt; 1000 tokens in, 500 out unless `usage` says otherwise."""
    account, model = route
    attempt = Attempt.begin(**{"user_id": user.pk, "account": account, "model": model, "door": "chat", **kwargs})
    attempt.started_at = timezone.now() - timedelta(days=days_ago)
    ledger.open(attempt)
    if error is None:
        attempt.read(Delta(text="x", finish_reason="stop", usage=usage or Usage(1000, 500, 1500, cost=cost)))
    ledger.settle(attempt, status, error)
    return attempt


def page(client, query=""):
    response = client.get(URL + query)
    assert response.status_code == 200
    return response.content.decode()


def words(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_address_is_usage():
    assert reverse("usage:usage-list") == URL


def test_whoever_is_not_signed_in_is_asked_to(client, db):
    assert client.get(URL).status_code == 302


def test_without_accounts_it_says_what_to_do(alice_client):
    assert "Add an account" in words(page(alice_client))


def test_with_an_account_but_no_calls_it_says_where_to_look(alice_client, route):
    assert "No calls in this period" in words(page(alice_client))
    assert "No calls in 90 days" in words(page(alice_client, "?period=90"))


def test_the_figures_of_a_period(alice, alice_client, route):
    call(alice, route, cost=D("1.50"))
    call(alice, route, days_ago=3, cost=D("0.75"))
    call(alice, route, days_ago=40, cost=D("3.00"))  # in the 30 days before
    call(alice, route, status="timeout", error="timeout")
    text = words(page(alice_client))
    assert "Spent in 30 days $2.25" in text
    assert "↓ 25 % on the 30 days before" in text  # 2.25 against 3.00
    assert "Calls 3 1 failed or stopped" in text
    assert "Cost unknown 1 call not in any sum" in text
    assert "Spent today $1.50 $0.00 yesterday" in words(page(alice_client, "?period=today"))
    assert "Spent in 7 days $2.25" in words(page(alice_client, "?period=7"))
    assert "Spent in 90 days $5.25" in words(page(alice_client, "?period=90"))
    assert "Spent in 30 days $2.25" in words(page(alice_client, "?period=nonsense"))


def test_nobody_sees_what_another_spent(alice, bob, bob_client, route):
    """I2."""
    call(alice, route, cost=D("1.50"))
    text = page(bob_client)
    assert "1.50" not in text
    assert "Model One" not in text
    assert reports.summary(bob, reports.period("30")).attempts == 0
    assert reports.spent_this_month(bob) == 0
    assert reports.rows(bob, reports.period("30")) == ([], "")


def test_where_it_went_adds_up_to_what_was_spent(alice, route):
    call(alice, route, cost=D("1"))
    call(alice, route, cost=D("2"), door="api")
    call(alice, route, cost=D("0.25"), door="title")
    call(alice, route, cost=D("0.5"), status="cancelled")
    call(alice, route, door="api", status="error", error=ProviderRefused("rate_limited", status=429))
    found = reports.summary(alice, reports.period("30"))
    assert [(line.label, line.attempts, line.cost) for line in found.doors] == [
        ("Chat", 1, D(1)),
        ("/v1", 1, D(2)),
        ("Title", 1, D("0.25")),
        ("Failed and stopped calls", 2, D("0.5")),
    ]
    assert sum(line.cost for line in found.doors) == found.spent == D("3.75")


def test_by_model_names_every_source_and_never_calls_unknown_free(alice, route):
    other = make_route(alice, provider_name="Otherhub", model_id="m2", display_name="Model Two")
    call(alice, route, cost=D("1"))
    call(alice, route)
    call(alice, route)
    call(alice, other, status="timeout", error="timeout")
    one, two = reports.summary(alice, reports.period("30")).models
    assert (one.name, one.provider, one.sources) == ("Model One", "Testhub", [("computed", 2), ("provider", 1)])
    assert (one.prompt_tokens, one.completion_tokens, one.share) == (3000, 1500, 100)
    assert one.shown_cost == D("1.00094")  # 1 + 2 × 0.00047
    assert (two.name, two.shown_cost, two.sources) == ("Model Two", None, [("unknown", 1)])


def test_what_the_cache_saved_is_shown_but_not_summed(alice, alice_client):
    route = make_route(alice, provider_name="Cachehub", price_cache_read=D("0.027"))
    call(alice, route, usage=Usage(1_000_000, 1, 1_000_001, cached_tokens=500_000))
    found = reports.summary(alice, reports.period("30"))
    assert found.spent == D("0.1485004")  # 0.5M × 0.27 + 0.5M × 0.027 + 1 × 0.40
    assert found.saved == D("0.1215")  # 0.5M × (0.27 − 0.027)
    assert "−$0.12" in words(page(alice_client))


def test_the_page_reads_no_attempts_for_its_sums(alice, alice_client, route, django_assert_max_num_queries):
    """What it costs must not grow with the history (design.md §6)."""
    for days in range(30):
        call(alice, route, days_ago=days, cost=D("0.01"))
    UsageLog.objects.all().delete()
    with django_assert_max_num_queries(20):
        text = words(page(alice_client))
    assert "Spent in 30 days $0.30" in text


def test_the_list_goes_on_where_it_stopped_and_shows_each_row_once(alice, alice_client, route, monkeypatch):
    """Keyset pages stay right while rows arrive, and where many rows have the same time."""
    monkeypatch.setattr(reports, "PAGE_SIZE", 3)
    same = timezone.now() - timedelta(hours=1)
    keys = []
    for number in range(8):
        attempt = call(alice, route)
        keys.append(attempt.request_id)
        if number < 5:
            UsageLog.objects.filter(request_id=attempt.request_id).update(started_at=same)
    seen, cursor, span = [], "", reports.period("30")
    for _ in range(5):
        found, cursor = reports.rows(alice, span, before=cursor, size=3)
        seen += [row.request_id for row in found]
        call(alice, route)  # a new row must not shift the pages after the first
        if not cursor:
            break
    assert seen == keys[::-1]


def test_older_rows_come_by_htmx_without_the_page_around_them(alice, alice_client, route):
    for _ in range(reports.PAGE_SIZE + 5):
        call(alice, route)
    html = page(alice_client)
    assert html.count('class="attempt__model"') == reports.PAGE_SIZE
    older = re.search(r'hx-get="(\?period=30&amp;before=[0-9-]+)"', html).group(1).replace("&amp;", "&")
    response = alice_client.get(URL + older, headers={"hx-request": "true"})
    part = response.content.decode()
    assert part.count('class="attempt__model"') == 5
    assert "<html" not in part
    assert "Show older" not in part
    assert page(alice_client, older).count('class="attempt__model"') == 5  # the same link without script


@pytest.mark.parametrize(
    "cursor", ["x", "1-", "-1", "1-2-3", "9" * 39 + "-1", "1-" + "9" * 30, "١-١", "99999999999999999999-1", "%00"]
)
def test_a_made_up_place_in_the_list_is_a_400(alice_client, cursor):
    """I21."""
    assert alice_client.get(URL, {"before": cursor}).status_code == 400


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_the_page_only_reads(alice_client, method):
    assert getattr(alice_client, method)(URL).status_code == 405


def test_nothing_inline_that_the_policy_would_refuse(alice, alice_client, route):
    """X8: no style attributes, no inline style or script, no on* handlers; a hostile model name stays text."""
    evil = make_route(
        alice,
        provider_name="Evil",
        model_id="<img src=x onerror=alert(1)>",
        display_name="<img src=x onerror=alert(1)>\u202e",
    )
    for days in range(5):
        call(alice, evil, days_ago=days, cost=D("0.2"))
    main = page(alice_client).split("<main", 1)[1]
    assert " style=" not in main
    assert "<style" not in main
    assert "<img" not in main
    assert not re.search(r"<[^>]+\son\w+=", main)
    assert main.count("chart__bar--1") >= 5


def test_free_use_is_charted_by_calls(alice, alice_client):
    route = make_route(alice, provider_name="Freehub", price_kind="free", price_input=0, price_output=0)
    call(alice, route)
    call(alice, route, days_ago=1)
    text = words(page(alice_client))
    assert "Calls per day" in text
    assert "Spent in 30 days $0.00" in text


def test_sums_equal_the_rows_they_come_from(alice, route):
    """I10: the daily sums can be rebuilt from the rows."""
    for number in range(20):
        call(alice, route, days_ago=number % 4, door=["chat", "api"][number % 2], cost=D(number) / 7 if number % 3 else None,
             status=["success", "cancelled"][number % 5 == 0])  # fmt: skip
    for day in DailyUsage.objects.all():
        rows = UsageLog.objects.filter(user_id=day.user_id, door=day.door, started_at__date=day.day)
        assert day.attempts == rows.count()
        assert day.cost == rows.aggregate(s=Sum("cost"))["s"]
        assert day.failed == rows.exclude(status="success").count()
    assert DailyUsage.objects.aggregate(s=Sum("attempts"))["s"] == 20


# -- Receipts and other pages' figures -------------------------------------------------------------------------------


def test_a_receipt_adds_up_the_tries_of_a_reply_and_names_the_weakest_source(alice, route):
    generation = uuid.uuid4()
    call(alice, route, generation_id=generation, status="error", error=ProviderRefused("rate_limited", status=429))
    call(
        alice,
        route,
        generation_id=generation,
        attempt=2,
        usage=Usage(412, 187, 599, cached_tokens=256, cost=D("0.0034")),
    )
    receipt = reports.receipts_for([generation, uuid.uuid4()])[generation]
    assert (receipt.cost, receipt.attempts, receipt.unknown) == (D("0.0034"), 2, 0)
    assert receipt.source == "computed"  # the refused try's 0 is computed
    assert (receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens) == (412, 256, 187)


def test_receipts_take_one_query(alice, route, django_assert_num_queries):
    generations = [uuid.uuid4() for _ in range(5)]
    for generation in generations:
        call(alice, route, generation_id=generation)
    with django_assert_num_queries(1):
        assert set(reports.receipts_for(generations)) == set(generations)


def test_a_receipt_reads_as_drawn(alice, route):
    from django.template.loader import render_to_string

    generation = uuid.uuid4()
    call(alice, route, generation_id=generation, usage=Usage(412, 187, 599, cached_tokens=256, cost=D("0.0034")))
    UsageLog.objects.update(first_token_ms=800, latency_ms=3100)
    receipt = reports.receipts_for([generation])[generation]
    text = words(render_to_string("usage/_receipt.html", {"receipt": receipt})).split()
    assert " ".join(text) == "$0.0034 billed 412 in (256 cached) 187 out 0.8 s to first word 3.1 s in all"


def test_a_receipt_says_when_nobody_knows(alice, route):
    from django.template.loader import render_to_string

    generation = uuid.uuid4()
    call(alice, route, generation_id=generation, status="timeout", error="timeout")
    text = words(render_to_string("usage/_receipt.html", {"receipt": reports.receipts_for([generation])[generation]}))
    assert "cost unknown" in text
    assert "$0" not in text


def test_a_refusal_beside_an_unknown_cost_is_not_called_free(alice, route):
    """I13: 0 + unknown is unknown."""
    generation, conversation = uuid.uuid4(), uuid.uuid4()
    ids = {"generation_id": generation, "conversation_id": conversation}
    call(alice, route, status="error", error=ProviderRefused("rate_limited", status=429), **ids)
    assert reports.receipts_for([generation])[generation].cost == 0
    call(alice, route, attempt=2, status="timeout", error="timeout", **ids)
    receipt = reports.receipts_for([generation])[generation]
    assert (receipt.cost, receipt.source, receipt.unknown) == (None, "unknown", 1)
    assert reports.cost_by_conversation(alice, [conversation]) == {conversation: None}
    assert reports.summary(alice, reports.period("30")).models[0].shown_cost is None


def test_a_receipt_of_a_refused_call_says_nothing_was_charged(alice, route):
    from django.template.loader import render_to_string

    generation = uuid.uuid4()
    call(alice, route, generation_id=generation, status="error", error=ProviderRefused("key_rejected", status=401))
    text = words(render_to_string("usage/_receipt.html", {"receipt": reports.receipts_for([generation])[generation]}))
    assert "nothing charged" in text
    assert "computed" not in text


def test_cost_by_conversation_is_one_query_and_ones_own(alice, bob, route, django_assert_num_queries):
    one, two, three = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    call(alice, route, conversation_id=one, cost=D("0.5"))
    call(alice, route, conversation_id=one, cost=D("0.25"))
    call(alice, route, conversation_id=two, status="timeout", error="timeout")
    with django_assert_num_queries(1):
        assert reports.cost_by_conversation(alice, [one, two, three]) == {one: D("0.75"), two: None}
    assert reports.cost_by_conversation(bob, [one, two, three]) == {}


def test_a_month_begins_on_its_first_day_in_utc(alice, route):
    """I24: each event falls into exactly one period."""
    attempt = call(alice, route, cost=D("1"))
    day = attempt.started_at.date()
    assert reports.spent_this_month(alice, today=day) == D(1)
    following = (day.replace(day=1) + timedelta(days=40)).replace(day=1)
    assert reports.spent_this_month(alice, today=following) == 0


# -- The chart -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "step"),
    [("0.9", "0.5"), ("0.00042", "0.0002"), ("7", "2.5"), ("3", "1"), ("100", "50"), ("0.000001", "0.0000005")],
)
def test_grid_lines_stand_at_round_figures(most, step):
    assert charts.nice_step(D(most)) == D(step)


def test_bars_stack_from_the_ground_up():
    days = [reports.Day(timezone.now().date(), (D(3), D(1))), reports.Day(timezone.now().date(), (D(0), D(0)))]
    chart = charts.bars(days, has_rest=True)
    lower, upper = chart.columns[0].bars
    assert (lower.y, lower.height, lower.colour) == ("37.5", "112.5", 1)  # 3 of 4 of 150 units
    assert (upper.y, upper.height, upper.colour) == ("0", "37.5", 5)
    assert chart.columns[1].bars == ()
    assert charts.bars([reports.Day(timezone.now().date(), (D(0),))], has_rest=False).columns == ()


# -- Admin -----------------------------------------------------------------------------------------------------------


def test_staff_see_rows_and_totals_and_can_change_nothing(alice, sam_client, route):
    attempt = call(alice, route, cost=D("1.25"))
    call(alice, route, status="timeout", error="timeout")
    row = UsageLog.objects.get(request_id=attempt.request_id)
    base = "/admin/usage/usagelog/"
    text = words(sam_client.get(base).content.decode())
    assert "2 calls: $1.25, 1k tokens in, 500 out; the cost of 1 is unknown." in text
    assert "maker/model-1" in text
    assert "1 call: $1.25" in words(sam_client.get(base + "?cost_source__exact=provider").content.decode())
    assert sam_client.get(f"{base}{row.pk}/change/").status_code == 200
    assert sam_client.post(f"{base}{row.pk}/change/", {"cost": "0"}).status_code == 403
    assert sam_client.get(base + "add/").status_code == 403
    assert sam_client.post(f"{base}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert sam_client.get("/admin/usage/dailyusage/").status_code == 200
    assert sam_client.get("/admin/usage/dailyusage/add/").status_code == 403


@pytest.mark.parametrize("term", ["maker/mod", "{request_id}", "gen-1"])
def test_staff_find_a_row_by_model_or_id(alice, sam_client, route, term):
    attempt = call(alice, route)
    UsageLog.objects.filter(request_id=attempt.request_id).update(upstream_id="gen-1")
    other = make_route(alice, provider_name="Otherhub", model_id="m2", display_name="Model Two")
    call(alice, other)
    response = sam_client.get("/admin/usage/usagelog/", {"q": term.format(request_id=attempt.request_id)})
    assert [row.request_id for row in response.context_data["cl"].result_list] == [attempt.request_id]


def test_odd_searches_and_lookups_are_no_error_pages(sam_client):
    """I21, A6."""
    for term in ("\x00", "%", "'", "x" * 5000, "00000000-0000-0000-0000-000000000000"):
        assert sam_client.get("/admin/usage/usagelog/", {"q": term}).status_code == 200
    assert sam_client.get("/admin/usage/usagelog/?metadata__contains=x").status_code == 400
