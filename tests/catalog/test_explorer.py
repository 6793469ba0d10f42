"""The explorer: sorted, compared, exported; what a user keeps there, and that it is theirs alone."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from catalog import choices, own_prices, sync
from catalog.models import AggregatorModel, CapabilityProbe, FavouriteModel, HideRule, SavedFilter
from providers.models import ProviderAccount
from tests.catalog.conftest import listing, model
from tests.world import things_of
from usage.models import Notice

pytestmark = pytest.mark.slow

LIST, SELECT = reverse("catalog:model-list"), reverse("catalog:model-select")
COMPARE, EXPORT = reverse("catalog:model-compare"), reverse("catalog:model-export")
HIDDEN, SAVE = reverse("catalog:hide-rules"), reverse("catalog:filter-save")


@pytest.fixture
def catalog(account, upstream):
    upstream(
        listing(
            model("a/one", "3", "15", display_name="One", context_window=200_000, capabilities=("tools", "vision")),
            model("b/two", "1", "5", display_name="Two", context_window=1_000_000, max_output_tokens=64_000),
            model("c/three:free", "0", "0", display_name="Three", context_window=32_000),
            model("d/four", None, None, display_name="Four", description="<b>bold</b> words"),
            model("e/five", "2", "8", display_name="Five"),
        )
    )
    sync.sync_account(account)
    return {row.model_id: row.pk for row in AggregatorModel.objects.all()}


def names(html):
    """The models of a table, in order."""
    return re.findall(r'class="model__name"><strong dir="auto">(?:<a [^>]*>)?([^<]+)', html)


def page(client, url=LIST, **asked):
    response = client.get(url, asked)
    assert response.status_code == 200
    return response.content.decode()


# -- Sorting, filters in the address -----------------------------------------------------------------------------------


def test_every_heading_sorts_and_the_second_click_turns_it_round(catalog, alice_client):
    html = page(alice_client, q="", type="chat")
    assert 'href="?type=chat&amp;sort=out"' in html and "aria-sort" not in html
    html = page(alice_client, type="chat", sort="out")
    assert names(html) == ["Three", "Two", "Five", "One", "Four"]
    assert 'aria-sort="ascending"' in html and 'href="?type=chat&amp;sort=-out"' in html
    html = page(alice_client, type="chat", sort="-out")
    assert names(html) == ["One", "Five", "Two", "Three", "Four"]
    assert 'aria-sort="descending"' in html
    assert names(page(alice_client, sort="-context")) == ["Two", "One", "Three", "Five", "Four"]


def test_filters_are_in_the_address_and_in_the_form(catalog, alice_client):
    html = page(alice_client, tools="on", price="20", context="100000")
    assert names(html) == ["One"]
    assert (
        re.search(r'name="tools" checked', html) and '<option value="100000" selected>≥ 100000 tokens</option>' in html
    )
    assert '<option value="20" selected>Out ≤ $20</option>' in html


# -- Comparing -----------------------------------------------------------------------------------------------------------


def test_up_to_four_stand_side_by_side_and_a_fifth_is_named(catalog, alice_client):
    pks = [catalog[i] for i in ("a/one", "b/two", "c/three:free", "d/four", "e/five")]
    html = page(alice_client, COMPARE, m=pks[:2])
    assert html.count('scope="col"') == 2 and "Left out" not in html
    assert re.search(r'compare__best">\s*\$1.00', html) and re.search(r'compare__best">\s*1M', html)
    assert not re.search(r'compare__best">\s*\$3.00', html)
    assert f'href="{COMPARE}?m={pks[1]}"' in html

    html = page(alice_client, COMPARE, m=pks)
    assert html.count('scope="col"') == 4
    assert re.search(r"4 fit side by side. Left out: <span[^>]*>Five</span>", html)
    assert "&lt;b&gt;bold" in html and "<b>bold" not in html

    assert "Nothing to compare yet" in page(alice_client, COMPARE, m=["x", "", "999999999"])


def test_the_comparison_goes_by_ones_own_prices_and_calls_no_list_price_the_best(catalog, alice, alice_client, bob):
    one, two = (AggregatorModel.objects.get(pk=catalog[name]) for name in ("a/one", "b/two"))
    own_prices.enter(alice, one, {"price_input": Decimal("0.5")}, for_all=False)
    own_prices.enter(bob, two, {"price_input": Decimal("0.1")}, for_all=False)
    AggregatorModel.objects.filter(pk=catalog["e/five"]).update(price_kind="list", price_output=Decimal(2))
    AggregatorModel.objects.filter(pk=catalog["d/four"]).update(price_kind="variable")
    html = page(alice_client, COMPARE, m=[one.pk, two.pk, catalog["d/four"], catalog["e/five"]])
    lines = dict(re.findall(r'<th scope="row">([^<]+)</th>(.*?)</tr>', html, re.DOTALL))
    cells = {label: re.findall(r'<td class="num([^"]*)">\s*(.*?)\s*</td>', lines[label], re.DOTALL) for label in lines}
    said = {
        label: [(style.strip(), " ".join(re.sub("<[^>]*>", "", text).split())) for style, text in cells[label]]
        for label in cells
    }
    assert said["Input / 1M"] == [
        ("compare__best", "$0.50* (best)"), ("", "$1.00"), ("", "varies"), ("", "≈ $2.00"),
    ]  # fmt: skip
    assert said["Output / 1M"] == [
        ("", "$15.00*"), ("compare__best", "$5.00 (best)"), ("", "varies"), ("", "≈ $2.00"),
    ]  # fmt: skip


def test_what_is_not_ones_own_is_compared_as_if_not_there_i2(catalog, alice_client, bob):
    theirs = things_of(bob).model
    html = page(alice_client, COMPARE, m=[catalog["a/one"], theirs.pk])
    assert html.count('scope="col"') == 1 and theirs.display_name not in html


# -- Export ------------------------------------------------------------------------------------------------------------


def exported(client, **asked):
    response = client.get(EXPORT, asked)
    assert response.status_code == 200
    return response, list(csv.DictReader(io.StringIO(response.content.decode())))


def test_the_export_has_all_rows_of_the_filter_as_an_attachment(account, upstream, alice_client):
    upstream(listing(*(model(f"m{n:03}", "0.27", "0.4") for n in range(150)), model("other", None, None)))
    sync.sync_account(account)
    response, rows = exported(alice_client, q="m", sort="-name", offset="100")
    assert re.fullmatch(r'attachment; filename="models-\d{4}-\d\d-\d\d\.csv"', response["Content-Disposition"])
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert [row["model"] for row in rows] == [f"m{n:03}" for n in reversed(range(150))]
    assert rows[0]["usd_per_1m_output"] == "0.4" and rows[0]["accounts"] == "Alice's key"
    assert [row["usd_per_1m_input"] for row in exported(alice_client, q="other")[1]] == [""]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+49", "'+49"),
        ("-2", "'-2"),
        ("@cf/meta/llama", "'@cf/meta/llama"),
        ("  =cmd|'/c calc'!A0", "'  =cmd|'/c calc'!A0"),
        ("＝1", "'＝1"),
        ("plain", "plain"),
        ("a=b", "a=b"),
        ('"quoted", and more', '"quoted", and more'),
    ],
)
def test_no_cell_begins_a_formula_k7(text, written):
    from catalog.exporting import safe_cell

    assert safe_cell(text) == written


def test_formulas_of_a_hostile_list_are_defused_in_the_file_k7(account, upstream, alice_client):
    upstream(listing(model("@evil/model", display_name='=HYPERLINK("http://evil.example","Win")')))
    sync.sync_account(account)
    ProviderAccount.objects.update(label="+1 key")
    _, [row] = exported(alice_client)
    assert (row["model"], row["accounts"]) == ("'@evil/model", "'+1 key")
    assert row["name"].startswith("'=HYPERLINK")


def test_the_export_holds_nothing_secret_and_nothing_of_others_k7_i2(alice, bob, alice_client):
    mine, theirs = things_of(alice), things_of(bob)
    response, rows = exported(alice_client)
    assert [row["model"] for row in rows] == [mine.model.model_id]
    text = response.content.decode()
    assert not [name for name, value in {**mine.secrets, **theirs.secrets}.items() if value and value in text]
    assert theirs.model.model_id not in text


# -- Favourites --------------------------------------------------------------------------------------------------------


def test_a_star_is_put_on_and_taken_off_and_the_model_comes_first(catalog, alice, alice_client):
    url = reverse("catalog:favourite", args=[catalog["b/two"]])
    assert 'aria-pressed="true"' in alice_client.post(url).content.decode()
    html = page(alice_client, SELECT)
    assert re.findall(r'data-name="([^"]+)" data-model-id', html)[0] == "Two"
    assert ">Favourites</p>" in html and ">All models</p>" in html
    assert names(page(alice_client, favourites="on")) == ["Two"]
    assert 'aria-pressed="false"' in alice_client.post(url).content.decode()
    assert not FavouriteModel.objects.for_user(alice).exists()
    assert ">Favourites</p>" not in page(alice_client, SELECT)
    assert "No favourite matches" in page(alice_client, favourites="on")


def test_stars_have_a_cap_that_says_so(catalog, alice, alice_client, monkeypatch):
    monkeypatch.setattr(choices, "MAX_FAVOURITES", 2)
    for model_id in ("a/one", "b/two"):
        alice_client.post(reverse("catalog:favourite", args=[catalog[model_id]]))
    refused = alice_client.post(reverse("catalog:favourite", args=[catalog["e/five"]]))
    assert refused.status_code == 422 and "2 favourites are the most" in refused.content.decode()
    assert FavouriteModel.objects.for_user(alice).count() == 2


def test_whoever_starred_a_model_hears_of_its_price_and_finds_it_among_theirs(account, upstream, alice, alice_client):
    upstream(listing(model("starred", "1", "2"), model("other", "1", "2")))
    sync.sync_account(account)
    alice_client.post(reverse("catalog:favourite", args=[AggregatorModel.objects.get(model_id="starred").pk]))
    upstream(listing(model("starred", "3", "4"), model("other", "3", "4")))
    sync.sync_account(account)
    [notice] = Notice.objects.for_user(alice)
    assert (notice.model.model_id, notice.because) == ("starred", "starred")
    html = page(alice_client, reverse("catalog:change-list"), mine="on")
    assert "Starred" in html and "Other" not in html


def test_a_star_can_be_taken_off_a_model_that_is_gone_and_not_put_on_one(
    catalog, account, upstream, alice, alice_client
):
    gone, other = catalog["a/one"], catalog["b/two"]
    star = {pk: reverse("catalog:favourite", args=[pk]) for pk in (gone, other)}
    alice_client.post(star[gone])
    upstream(listing(*(model(name) for name in ("c/three:free", "d/four", "e/five"))))
    sync.sync_account(account)
    assert "Favourite: One" in page(alice_client, reverse("catalog:model-detail", args=[gone]))
    assert "Favourite" not in page(alice_client, reverse("catalog:model-detail", args=[other]))
    assert alice_client.post(star[other]).status_code == 404
    assert 'aria-pressed="false"' in alice_client.post(star[gone]).content.decode()
    assert not FavouriteModel.objects.for_user(alice).exists()
    assert alice_client.post(star[gone]).status_code == 404


# -- Saved filters -----------------------------------------------------------------------------------------------------


def test_a_filter_is_saved_under_a_name_applied_replaced_and_deleted(catalog, alice, alice_client):
    asked = {"q": "o", "type": "chat", "price": "20", "sort": "-out", "offset": "300", "evil": "1"}
    dialog = page(alice_client, SAVE, **asked)
    assert 'name="price" value="20"' in dialog and "evil" not in dialog and "300" not in dialog
    response = alice_client.post(SAVE, {**asked, "name": "  Good\x07 ones "})
    assert response["Location"] == f"{LIST}?q=o&type=chat&price=20&sort=-out"
    saved = SavedFilter.objects.for_user(alice).get()
    assert (saved.name, saved.query) == ("Good ones", "q=o&type=chat&price=20&sort=-out")

    html = page(alice_client)
    assert f'href="{LIST}?q=o&amp;type=chat&amp;price=20&amp;sort=-out"' in html and ">Good ones</a>" in html
    html = alice_client.get(response["Location"]).content.decode()
    assert names(html) == ["One", "Two"] and "Save this filter" not in html and 'aria-current="true"' in html

    alice_client.post(SAVE, {"free": "on", "name": "Good ones"})
    assert SavedFilter.objects.for_user(alice).get().query == "free=on"
    alice_client.post(reverse("catalog:filter-delete", args=[SavedFilter.objects.get().pk]))
    assert not SavedFilter.objects.exists()


def test_a_filter_as_long_as_one_can_be_is_saved_i21(catalog, alice, alice_client):
    words = "\N{GRINNING FACE}" * 100
    response = alice_client.post(SAVE, {"q": words, "price": "0." + "1" * 18, "tools": "on", "name": "long"})
    assert response.status_code == 302
    assert SavedFilter.objects.for_user(alice).get().query.count("%F0%9F%98%80") == 100
    assert 'aria-current="true"' in page(alice_client, q=words, price="0." + "1" * 18, tools="on")


def test_what_is_wrong_with_a_saved_filter_is_said_beside_its_field(catalog, alice_client, monkeypatch):
    for name in ("", "   ", "x" * 61, "nul\0"):
        refused = alice_client.post(SAVE, {"free": "on", "name": name})
        assert refused.status_code == 422 and "field__error" in refused.content.decode(), name
        assert 'name="free" value="on"' in refused.content.decode()
    monkeypatch.setattr(choices, "MAX_FILTERS", 1)
    assert alice_client.post(SAVE, {"free": "on", "name": "one"}).status_code == 302
    assert "1 saved filters are the most" in alice_client.post(SAVE, {"q": "x", "name": "two"}).content.decode()


# -- Hide rules --------------------------------------------------------------------------------------------------------


def test_a_hide_rule_holds_in_both_lists_after_a_sync_and_can_be_looked_behind(
    catalog, account, upstream, alice_client
):
    assert alice_client.post(HIDDEN, {"glob": "*:FREE", "price_cap": ""}).status_code == 302
    assert alice_client.post(HIDDEN, {"glob": "", "price_cap": "10"}).status_code == 302
    html = page(alice_client)
    assert sorted(names(html)) == ["Five", "Four", "Two"] and "2 hidden by" in html
    assert sorted(names(page(alice_client, hidden="on"))) == ["Five", "Four", "One", "Three", "Two"]
    select = page(alice_client, SELECT)
    assert 'data-name="Three"' not in select and 'data-name="Two"' in select and "2 more, hidden by" in select
    rules = page(alice_client, HIDDEN)
    assert "2 of your 5 models are left out" in rules and rules.count("hides 1") == 2

    upstream(
        listing(*(model(f"new-{n}:free", "0", "0") for n in range(3)), model("b/two", "1", "5", display_name="Two"))
    )
    sync.sync_account(account)
    assert names(page(alice_client)) == ["Two"]
    assert "3 models match, hidden by your rules" in page(alice_client, q="new")

    for rule in HideRule.objects.all():
        alice_client.post(reverse("catalog:hide-rule-delete", args=[rule.pk]))
    assert len(names(page(alice_client))) == 4 and "Nothing is hidden" in page(alice_client, HIDDEN)


@pytest.mark.parametrize(
    ("entered", "said"),
    [
        ({"glob": "", "price_cap": ""}, "Say which models"),
        ({"glob": "x", "price_cap": "NaN"}, "Enter a price"),
        ({"glob": "x", "price_cap": "-1"}, "greater than or equal to 0"),
        ({"glob": "x", "price_cap": "1e999"}, "field__error"),
        ({"glob": "x" * 201, "price_cap": ""}, "at most 200"),
        ({"glob": "a\0b", "price_cap": ""}, "Null characters"),
        ({"glob": "a\x1bb", "price_cap": ""}, "can be seen"),
    ],
)
def test_an_odd_rule_is_refused_beside_its_field_and_kept_in_it(entered, said, catalog, alice_client):
    refused = alice_client.post(HIDDEN, entered)
    assert refused.status_code == 422 and said in refused.content.decode()
    assert not HideRule.objects.exists()


def test_rules_and_filters_of_others_are_theirs_i2(catalog, alice, bob, alice_client):
    theirs = things_of(bob)
    HideRule.objects.filter(pk=theirs.rule.pk).update(glob="*")
    html = page(alice_client)
    assert len(names(html)) == 5 and theirs.saved.name not in html
    assert alice_client.post(reverse("catalog:hide-rule-delete", args=[theirs.rule.pk])).status_code == 404
    assert alice_client.post(reverse("catalog:filter-delete", args=[theirs.saved.pk])).status_code == 404
    assert alice_client.post(reverse("catalog:favourite", args=[theirs.model.pk])).status_code == 404


# -- Several accounts, and how they are ----------------------------------------------------------------------------------


@pytest.fixture
def two_accounts(account, upstream, alice, provider):
    spare = ProviderAccount.objects.create(owner=alice, provider=provider, label="Spare", priority=5)
    upstream(listing(model("both"), model("one-only")))
    upstream(listing(model("both")), spare)
    for each in (account, spare):
        sync.sync_account(each)
        ProviderAccount.objects.filter(pk=each.pk).update(status="valid")
    return account, spare


def test_a_model_is_one_row_with_its_offers_inside_and_their_health(two_accounts, alice_client):
    first, spare = two_accounts
    html = page(alice_client, SELECT)
    assert html.count("<model-option") == 2
    row = re.search(r'<model-option[^>]*data-model-id="both".*?</model-option>', html, re.S)[0]
    assert f'data-account="{first.pk}"' in row.partition(">")[0]
    assert row.count('class="offer"') == 2 and f'data-account="{spare.pk}"' in row and "resting" not in row

    ProviderAccount.objects.filter(pk=first.pk).update(
        cooldown_until=timezone.now() + timedelta(minutes=3), trouble="rate_limited"
    )
    row = re.search(r'<model-option[^>]*data-model-id="both".*?</model-option>', page(alice_client, SELECT), re.S)[0]
    assert f'data-account="{spare.pk}"' in row.partition(">")[0], "the one that is well comes first"
    assert "resting" in row
    details = page(
        alice_client, reverse("catalog:model-details", args=[AggregatorModel.objects.get(model_id="both").pk])
    )
    assert details.count("<model-option") == 2 and "resting" in details and "ready" in details


def test_details_show_every_price_the_limits_and_what_it_says_of_itself(account, upstream, alice_client):
    from decimal import Decimal

    from providers.clients.base import Prices

    prices = Prices(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75"))
    upstream(
        listing(
            model(
                "m", prices=prices, description="<i>Thinks</i>", context_window=200_000, max_output_tokens=64_000,
                capabilities=("tools",), released_at=datetime(2026, 2, 17, tzinfo=UTC),
            )
        )
    )  # fmt: skip
    sync.sync_account(account)
    html = page(alice_client, reverse("catalog:model-details", args=[AggregatorModel.objects.get().pk]))
    for text in ("$3.00", "$15.00", "$0.30", "$3.75", "200k", "64k", "&lt;i&gt;Thinks", "tools", "17 Feb 2026"):
        assert text in html
    assert "<i>" not in html


def test_details_show_what_the_users_own_probe_found(account, bobs_account, upstream, alice, alice_client, bob_client):
    upstream(listing(model("m", capabilities=("tools",))))
    for each in (account, bobs_account):
        sync.sync_account(each)
    sold = AggregatorModel.objects.get()
    found = {"capability": "vision", "verdict": "no", "reason": "It saw <nothing>.", "cost": None}
    CapabilityProbe.objects.create(
        owner=alice, model=sold, state="done", results=[{**found, "at": timezone.now().isoformat()}]
    )
    html = page(alice_client, reverse("catalog:model-details", args=[sold.pk]))
    assert "vision probed: no" in html and "It saw &lt;nothing&gt;." in html and "tools probed" not in html
    assert "probed" not in page(bob_client, reverse("catalog:model-details", args=[sold.pk]))


# -- Cost --------------------------------------------------------------------------------------------------------------


def test_the_explorer_asks_fewer_than_fifteen_questions_however_many_models(account, upstream, alice, alice_client):
    def queries(url, **asked):
        alice_client.get(url, asked)  # the list in memory is made
        with CaptureQueriesContext(connection) as captured:
            assert alice_client.get(url, asked).status_code == 200
        return len(captured)

    counts = {}
    for size in (3, 300):
        upstream(listing(*(model(f"m{n}") for n in range(size))))
        sync.sync_account(account)
        pks = list(AggregatorModel.objects.values_list("pk", flat=True)[:30])
        FavouriteModel.objects.bulk_create(
            [FavouriteModel(owner=alice, model_id=pk) for pk in pks], ignore_conflicts=True
        )
        SavedFilter.objects.create(owner=alice, name=f"f{size}", query="free=on")
        HideRule.objects.create(owner=alice, glob=f"none-{size}-*")
        counts[size] = [
            queries(LIST),
            queries(LIST, q="m1", sort="out", favourites="on", hidden="on"),
            queries(SELECT, tokens="400"),
            queries(EXPORT),
            queries(COMPARE, m=pks[:4]),
            queries(HIDDEN),
        ]
    assert counts[3] == counts[300]
    assert counts[300][0] < 15 and max(counts[300]) < 15, counts
