"""The pages of history: all changes, one heading, one model with its price over time; as a browser gets them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog import history, sync
from catalog.models import AggregatorModel, ChangeSet, FavouriteModel, ModelChange
from providers.clients.base import Prices
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model
from usage.models import DailyUsage

pytestmark = pytest.mark.slow

CHANGES = reverse("catalog:change-list")
HTMX = {"HX-Request": "true"}


def page_of(model_id):
    return reverse("catalog:model-detail", args=[AggregatorModel.objects.get(model_id=model_id).pk])


def words(html):
    """The text of a page as it is read."""
    main = re.search(r"<main.*</main>", html, re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", main[0] if main else html).split())


def then(upstream, who, *models):
    upstream(listing(*models), who)
    return sync.sync_account(who)


def use(user, account, model_id):
    DailyUsage.objects.create(
        user_id=user.pk, day=timezone.now().date(), door="chat", provider_name="Lister", account_id=account.pk,
        model_id=model_id, attempts=1,
    )  # fmt: skip


EM = model("m", "3", "15", display_name="Em", context_window=8_000, capabilities=("tools",))


@pytest.fixture
def changed(account, upstream):
    """A first sync of two models, and one in which m changed in every way and other left."""
    then(upstream, account, EM, model("other"))
    then(
        upstream,
        account,
        replace(
            EM,
            display_name="Em 2",
            prices=Prices(Decimal("2.5"), Decimal("20"), cache_read=Decimal("0.3")),
            context_window=16_000,
            capabilities=("vision",),
            retires_at=date(2027, 1, 31),
            successor="m2",
        ),
        model("m2", "1", "2", display_name="Em Two"),
    )


# -- Changes ---------------------------------------------------------------------------------------------------------


def test_every_kind_is_told_with_before_after_and_by_how_much(changed, alice_client):
    text = words(alice_client.get(CHANGES).content.decode())
    for told in (
        "Input $3.00 → , now $2.50 ↓ down 17 %",
        "Output $15.00 → , now $20.00 ↑ up 33 %",
        "Cached input unknown → , now $0.30",
        "Context 8k → , now 16k ↑ up 100 %",
        "Can do + added vision − removed tools",
        "Name Em → , now Em 2",
        "Retires 31 Jan 2027",
        "Successor m2",
        "no longer in the provider's list",
        "$1.00 in, $2.00 out",
    ):
        assert told.replace("'", "&#x27;") in text or told in text, told
    assert "Today" in text and text.index("Retires") < text.index("Added Em Two")


@pytest.mark.parametrize(
    ("kind", "shown", "hidden"),
    [
        ("price", "$2.50", "31 Jan"),
        ("retirement", "31 Jan", "$2.50"),
        ("gone", "no longer in the provider", "Em Two"),
        ("added", "Em Two", "31 Jan"),
        ("renamed", "Em 2", "31 Jan"),
        ("context", "16k", "$2.50"),
        ("capability", "vision", "$2.50"),
    ],
)
def test_one_kind_alone_and_the_address_says_so(kind, shown, hidden, changed, alice_client):
    html = alice_client.get(CHANGES, {"kind": kind}).content.decode()
    assert shown in html and hidden not in words(html)
    assert f'value="{kind}" selected' in html
    part = alice_client.get(CHANGES, {"kind": kind}, headers=HTMX).content.decode()
    assert part.strip().startswith('<div id="changes"') and shown in part and "<form" not in part


def test_a_first_sync_is_one_line_that_leads_to_all_of_it(account, upstream, alice_client):
    then(upstream, account, *(model(f"m{n:03}") for n in range(344)))
    then(upstream, account, *(model(f"m{n:03}", "2" if n == 5 else "1") for n in range(344)))
    html = alice_client.get(CHANGES).content.decode()
    assert "344 models" in html and "new in the list" in html
    assert "M005" in html and "M006" not in html
    url = reverse("catalog:change-set", args=[ChangeSet.objects.earliest("pk").pk])
    assert f'href="{url}?kind=added"' in html
    seen, address = [], f"{url}?kind=added"
    while address:
        part = alice_client.get(address, headers=HTMX if seen else {}).content.decode()
        seen += re.findall(r"<strong dir=\"auto\">(M\d+)</strong>", part)
        further = re.search(r'href="(\?kind=added&amp;after=\d+)"', part)
        address = url + further[1].replace("&amp;", "&") if further else ""
    assert seen == [f"M{n:03}" for n in range(344)]


def test_where_many_change_those_i_use_are_named(account, upstream, alice, alice_client):
    then(upstream, account, *(model(f"m{n:03}", "1") for n in range(40)))
    use(alice, account, "m007")
    then(upstream, account, *(model(f"m{n:03}", "2") for n in range(40)))
    html = alice_client.get(CHANGES).content.decode()
    assert "All 40 models" in html and "M007" in html and "M008" not in html and "in use" in html


def test_models_i_use_alone(account, upstream, alice, alice_client):
    then(upstream, account, model("m", "1"), model("n", "1"))
    then(upstream, account, model("m", "2"), model("n", "3"))
    html = alice_client.get(CHANGES, {"mine": "on"}).content.decode()
    assert "You have not used a model lately" in html
    use(alice, account, "m")
    text = words(alice_client.get(CHANGES, {"mine": "on"}).content.decode())
    assert "$2.00" in text and "$3.00" not in text and "Added M" in text
    FavouriteModel.objects.create(owner=alice, model=AggregatorModel.objects.get(model_id="n"))
    assert "$3.00" in words(alice_client.get(CHANGES, {"mine": "on"}).content.decode())
    FavouriteModel.objects.all().delete()
    text = words(alice_client.get(CHANGES, {"mine": "on", "kind": "price"}).content.decode())
    assert "$2.00" in text and "Added M" not in text


def test_providers_are_told_apart_and_only_those_of_own_accounts_are_shown_i2(
    changed, account, upstream, alice, alice_client, bob, bob_client
):
    assert "No changes yet" in bob_client.get(CHANGES).content.decode()
    private = Provider.objects.create(
        name="home", display_name="Home", base_url="http://home.test/v1", owner=alice, features={"keyless": True}
    )
    home = ProviderAccount.objects.create(owner=alice, provider=private, label="Home")
    then(upstream, home, model("secret"))
    bobs_account = ProviderAccount.objects.create(owner=bob, provider=account.provider, label="Bob")
    then(upstream, bobs_account, EM, model("m2", "1", "2", display_name="Em Two"))

    both = alice_client.get(CHANGES).content.decode()
    assert "Secret" in both and "Em Two" in both and "Every kind" in both
    home_only = alice_client.get(CHANGES, {"provider": private.pk}).content.decode()
    assert "Secret" in home_only and "Em Two" not in home_only
    bobs = bob_client.get(CHANGES, {"provider": private.pk}).content.decode()
    assert "Secret" not in bobs and "Em Two" in bobs
    hidden = ChangeSet.objects.get(provider=private)
    assert bob_client.get(reverse("catalog:change-set", args=[hidden.pk])).status_code == 404
    assert bob_client.get(page_of("secret")).status_code == 404
    assert alice_client.get(page_of("secret")).status_code == 200


def test_pages_go_by_key_and_cost_the_same_however_long_history_is(
    account, upstream, alice_client, django_assert_max_num_queries
):
    for n in range(31):
        then(upstream, account, model("m", str(n + 1)))
    with django_assert_max_num_queries(18):
        html = alice_client.get(CHANGES).content.decode()
    seen, address, pages = [], CHANGES, 0
    while address:
        part = alice_client.get(address, headers=HTMX if pages else {}).content.decode()
        seen += re.findall(r'id="set-(\d+)"', part)
        assert part.count("history__day") == (not pages), "one day is said once"
        older = re.search(r'href="(\?[^"]*before=\d+)"', part)
        address, pages = (CHANGES + older[1].replace("&amp;", "&") if older else ""), pages + 1
    assert len(seen) == len(set(seen)) == 31 and pages == 3
    assert html.count("change-set__title") == history.SETS


@pytest.mark.parametrize(
    "query",
    [
        {"before": "x"}, {"before": "9" * 40}, {"before": "-1"}, {"kind": "nonsense"}, {"provider": "0x1"},
        {"provider": "\x00", "kind": "\x00"}, {"mine": "1", "before": "1"}, {"before": "1"},
    ],
)  # fmt: skip
def test_odd_questions_get_an_ordinary_page_m7(query, changed, alice_client):
    assert alice_client.get(CHANGES, query).status_code == 200
    assert alice_client.get(page_of("m"), query).status_code == 200
    assert (
        alice_client.get(reverse("catalog:change-set", args=[ChangeSet.objects.latest("pk").pk]), query).status_code
        == 200
    )


def test_before_the_first_change_it_says_where_changes_come_from(account, alice_client):
    assert "See how your syncs are going" in alice_client.get(CHANGES).content.decode()


# -- One model -------------------------------------------------------------------------------------------------------


def test_a_models_page_has_facts_prices_offers_and_what_happened(changed, account, alice_client):
    html = alice_client.get(page_of("m")).content.decode()
    text = words(html)
    for told in (
        "Em 2", "$2.50", "$20.00", "$0.30", "16,000 tokens", "vision", "Retires on 31 January 2027", "Alice&#x27;s key",
        "Name Em → , now Em 2",
    ):  # fmt: skip
        assert told in text, told
    assert f'href="{page_of("m2")}"' in html, "the successor is one we know"


def test_a_star_can_be_given_on_a_models_page(changed, alice, alice_client):
    star = reverse("catalog:favourite", args=[AggregatorModel.objects.get(model_id="m").pk])
    assert 'aria-pressed="false"' in alice_client.get(page_of("m")).content.decode()
    alice_client.post(star)
    assert 'aria-pressed="true"' in alice_client.get(page_of("m")).content.decode()


def test_a_model_that_is_gone_keeps_its_page(changed, alice_client):
    html = alice_client.get(page_of("other")).content.decode()
    text = words(html)
    assert "aria-pressed" not in html
    assert "Gone since" in text and "None of your accounts lists this model" in text


def test_tiers_are_said_in_words(account, upstream, alice_client):
    rules = ({"min_prompt_tokens": 200_000, "input": "6"}, {"utc_start": "0030", "utc_end": "0830", "output": "7.5"})
    then(upstream, account, model("m", prices=Prices(Decimal(3), Decimal(15), rules=rules)))
    text = words(alice_client.get(page_of("m")).content.decode())
    assert "Prompts of more than 200k tokens: input $6.00" in text
    assert "00:30–08:30 UTC: output $7.50" in text


def test_staff_and_strangers_find_no_page_of_a_private_model(upstream, alice, sam_client, client):
    private = Provider.objects.create(
        name="home", display_name="Home", base_url="http://home.test/v1", owner=alice, features={"keyless": True}
    )
    home = ProviderAccount.objects.create(owner=alice, provider=private, label="Home")
    then(upstream, home, model("secret"))
    assert sam_client.get(page_of("secret")).status_code == 404
    assert client.get(page_of("secret")).status_code == 302
    assert sam_client.get(reverse("catalog:model-detail", args=[10**18])).status_code == 404


def test_a_models_page_costs_the_same_with_a_long_history(
    account, upstream, alice_client, django_assert_max_num_queries
):
    then(upstream, account, model("m", "1"))
    one = AggregatorModel.objects.get()
    ModelChange.objects.bulk_create(
        ModelChange(model=one, kind="price", field="price_input", before=str(n), after=str(n + 1), at=timezone.now())
        for n in range(600)
    )
    with django_assert_max_num_queries(22):
        html = alice_client.get(page_of("m")).content.decode()
    assert html.count('class="entry"') <= 20 and "Show older changes" in html
    assert len(history.courses(account.owner, one)[0].points) <= history.MOST_POINTS + 1


# -- Price over time -------------------------------------------------------------------------------------------------


def test_one_price_is_said_and_not_drawn(account, upstream, alice_client):
    then(upstream, account, model("m", "3", "15"))
    html = alice_client.get(page_of("m")).content.decode()
    assert html.count("Unchanged since") == 2 and "price-plot" not in html


def at(day):
    return datetime(2026, 11, day, 12, tzinfo=UTC)


@pytest.fixture
def long_known(account, upstream):
    """m since 1 November: input $3, from the 5th $2.50, unknown from the 9th, from the 12th $4; output always $15."""
    then(upstream, account, model("m", "4", "15"))
    AggregatorModel.objects.update(created_at=at(1))
    one = AggregatorModel.objects.get()
    for day, before, after in ((5, "3", "2.5"), (9, "2.5", None), (12, None, "4")):
        ModelChange.objects.create(model=one, kind="price", field="price_input", before=before, after=after, at=at(day))
    return one


def test_the_course_is_pieced_together_from_history(long_known, alice):
    input_price, output_price = history.courses(alice, long_known)
    assert input_price.points == ((at(1), Decimal(3)), (at(5), Decimal("2.5")), (at(9), None), (at(12), Decimal(4)))
    assert input_price.has_changed and input_price.now == 4 and input_price.since == at(12)
    assert output_price.points == ((at(1), Decimal(15)),) and not output_price.has_changed


def test_the_plot_steps_at_the_moment_of_the_change_and_breaks_where_nothing_is_known(long_known, alice_client):
    html = alice_client.get(page_of("m")).content.decode()
    [svg] = re.findall(r'<svg class="price-plot".*?</svg>', html, re.S)
    root = ElementTree.fromstring(svg)
    lines = [path.get("d") for path in root.iter("path") if "nofill" in path.get("class")]
    assert len(lines) == 2, "before and after the days without a price"
    points = [tuple(map(float, point.split())) for point in re.findall(r"[\d.]+ [\d.]+", lines[0])]
    (x1, y1), (x2, y2), (x3, y3), (x4, y4) = points
    assert y1 == y2 and x2 == x3 and y3 == y4, "flat, down at once, flat"
    assert y3 > y1, "a lower price is drawn lower"
    assert (x2 - x1) == pytest.approx(x4 - x3, rel=0.01), "four days each"
    assert [text.text for text in root.iter("text")][:1] == ["$0"]


def test_the_axis_says_days_and_for_a_few_days_the_time(long_known, account, alice_client):
    def labels():
        html = alice_client.get(page_of("m")).content.decode()
        [svg] = re.findall(r'<svg class="price-plot".*?</svg>', html, re.S)
        return [text.text for text in ElementTree.fromstring(svg).iter("text") if not text.text.startswith("$")]

    assert labels()[0].startswith("1 Nov")
    ModelChange.objects.filter(kind="price").delete()
    AggregatorModel.objects.update(created_at=timezone.now() - timedelta(hours=20))
    ModelChange.objects.create(model=long_known, kind="price", field="price_input", before="3", after="4")
    assert len(set(labels())) == 3


def test_the_plot_brings_no_script_style_or_address_x8(long_known, alice_client):
    html = alice_client.get(page_of("m")).content.decode()
    [svg] = re.findall(r'<svg class="price-plot".*?</svg>', html, re.S)
    root = ElementTree.fromstring(svg)
    assert {element.tag for element in root.iter()} == {"svg", "title", "desc", "g", "path", "text"}
    names = {name for element in root.iter() for name in element.attrib}
    assert names <= {"class", "viewBox", "role", "aria-labelledby", "id", "d", "x", "y", "transform"}
    assert "http" not in svg and "pygal" not in svg and "style" not in svg


def test_the_plot_has_a_name_a_description_and_a_table(long_known, alice_client):
    html = alice_client.get(page_of("m")).content.decode()
    assert "Input price over time</title>" in html
    assert "4 prices since 1 Nov 2026; now $4.00 per 1M tokens." in html
    table = words(re.search(r"<summary>As a table</summary>(.*?)</details>", html, re.S)[1])
    assert "12 Nov 2026 unknown $4.00" in table and "5 Nov 2026 $3.00 $2.50 ↓ 17 %" in table


@pytest.mark.once
@pytest.mark.parametrize(
    ("before", "after", "said", "direction"),
    [
        ("3", "4", "33 %", "up"),
        ("4", "3", "25 %", "down"),
        ("1", "1.001", "0.1 %", "up"),
        ("1", "1.05", "5 %", "up"),
        ("0.1", "2", "20 times", "up"),
        ("0", "2", "", "up"),
        (None, "2", "", ""),
        ("2", None, "", ""),
        ("2", "0", "100 %", "down"),
        ("nonsense", "2", "", ""),
    ],
)
def test_by_how_much(before, after, said, direction):
    step = history.step("price_input", before, after)
    assert (step.rise, step.direction) == (said, direction)


def test_history_from_before_there_were_headings_gets_them(account, upstream):
    from importlib import import_module

    from django.apps import apps

    migration = import_module("catalog.migrations.0003_sets_of_past_changes")
    then(upstream, account, model("m", "1"), model("n", "1"))
    then(upstream, account, model("m", "2"), model("n", "1"))
    expected = [(one.provider_id, one.at, one.counts) for one in ChangeSet.objects.order_by("at")]
    ModelChange.objects.update(change_set=None)
    ChangeSet.objects.all().delete()
    for _ in range(2):
        migration.group(apps, None)
    assert [(one.provider_id, one.at, one.counts) for one in ChangeSet.objects.order_by("at")] == expected
    assert not ModelChange.objects.filter(change_set=None).exists()
    assert timedelta(0) <= timezone.now() - expected[0][1] < timedelta(minutes=5)
