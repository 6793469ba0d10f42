"""The selector's dialog, the list of models, and the progress of a sync, as a browser gets them."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog import sync
from catalog.models import AggregatorModel, ModelAlias, SyncRun
from providers.clients.base import Prices
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model

pytestmark = pytest.mark.slow

SELECT, LIST = reverse("catalog:model-select"), reverse("catalog:model-list")


@pytest.fixture
def catalog(account, upstream):
    upstream(
        listing(
            model(
                "anthropic/claude-sonnet-4.6",
                "3",
                "15",
                display_name="Claude Sonnet 4.6",
                context_window=1_000_000,
                input_modalities=("text", "image"),
                capabilities=("tools", "reasoning"),
            ),
            model("qwen/free", "0", "0", display_name="Qwen", context_window=256_000),
            model("router/auto", display_name="Auto", prices=Prices(variable=True)),
            model("old/one", None, None, display_name="Old"),
            model("paints", display_name="Painter", model_type="image"),
        )
    )
    sync.sync_account(account)


def ids(html):
    return re.findall(r'data-model-id="([^"]+)"', html)


def option(html, model_id):
    return re.search(rf'<model-option[^>]*data-model-id="{re.escape(model_id)}".*?</model-option>', html, re.S)[0]


def test_the_selector_opens_with_chat_models_prices_and_abilities(catalog, alice_client, account):
    html = alice_client.get(SELECT).content.decode()
    assert set(ids(html)) == {"anthropic/claude-sonnet-4.6", "qwen/free", "router/auto", "old/one"}
    assert "4 of 5" in html
    row = option(html, "anthropic/claude-sonnet-4.6")
    for text in ("$3.00", "$15.00", "1M", "vision · tools · reasoning", "Claude Sonnet 4.6", "Alice&#x27;s key"):
        assert text in row
    assert f'data-account="{account.pk}"' in row and 'data-price="$3.00 / $15.00"' in row
    assert row.count("free") == 0 and option(html, "qwen/free").count("free") >= 2
    assert "varies" in option(html, "router/auto") and "$" not in option(html, "router/auto")
    assert "unknown" in option(html, "old/one") and "$" not in option(html, "old/one")


def test_typing_brings_the_rows_alone_with_the_count(catalog, alice_client):
    html = alice_client.get(SELECT, {"q": "sonnet claude", "type": "chat"}).content.decode()
    assert ids(html) == ["anthropic/claude-sonnet-4.6"]
    assert "<form" not in html and "<html" not in html
    assert "1 of 5" in html and 'hx-swap-oob="true"' in html


def test_chips_narrow_the_rows(catalog, alice_client):
    def shown(**chips):
        return ids(alice_client.get(SELECT, {"q": "", **chips}).content.decode())

    assert set(shown(vision="on")) == {"anthropic/claude-sonnet-4.6"}
    assert set(shown(free="on")) == {"qwen/free"}
    assert set(shown(context="256000")) == {"anthropic/claude-sonnet-4.6", "qwen/free"}
    assert set(shown(price="14.99")) == {"qwen/free", "paints"}
    assert "paints" in shown() and "paints" not in shown(type="chat")


def test_no_match_and_no_account_say_what_to_do(catalog, alice_client, bob_client):
    assert "No model matches “zzz”" in alice_client.get(SELECT, {"q": "zzz"}).content.decode()
    html = bob_client.get(SELECT).content.decode()
    assert "Add an account" in html and reverse("providers:account-list") in html and "<form" not in html


def test_at_most_thirty_rows_are_drawn_however_many_match(account, upstream, alice_client):
    upstream(listing(*(model(f"m{n:03}") for n in range(120))))
    sync.sync_account(account)
    html = alice_client.get(SELECT).content.decode()
    assert len(ids(html)) == 30 and "120 of 120" in html
    assert re.search(r'hx-get="/models/select/\?type=chat&amp;q=&amp;offset=30"[^>]*hx-trigger="intersect once"', html)
    more = alice_client.get(SELECT, {"q": "", "type": "chat", "offset": "90"}).content.decode()
    assert len(ids(more)) == 30 and "intersect" not in more and "model-count" not in more


def test_hostile_names_are_shown_as_text(account, upstream, alice_client):
    upstream(listing(model('"><script>x</script>', display_name="<img src=x onerror=alert(1)>")))
    sync.sync_account(account)
    for url in (SELECT, LIST):
        html = alice_client.get(url).content.decode()
        assert "<img src=x" not in html and "<script>x" not in html
        assert "&lt;img src=x" in html


@pytest.mark.parametrize(
    "query",
    [
        {"account": "not-a-uuid"},
        {"offset": "-1"},
        {"offset": "9" * 30},
        {"offset": "abc"},
        {"q": "\x00%00" * 50, "type": "chat"},
        {"q": "\x01\x1b[31m\u202e\ud7ff" * 20, "sort": "__class__", "type": "x" * 9_000},
        {"q": "% _ * ? [ \\ ' \" -- ; " * 400},
        {"q": " ".join("abcdefgh") * 2_000, "context": "1e9", "price": "NaN"},
        {"context": "9" * 40, "price": "1_000", "provider": "\x00", "now": "9" * 40, "via": "\x00", "tokens": "-1"},
        {"price": "\u0663", "context": "\u0663", "tokens": "\u0663", "m": ["1", "x", "\x00", "9" * 30]},
        {"provider__owner": "1", "q": "__class__"},
    ],
)
def test_odd_questions_get_an_ordinary_page(query, catalog, alice_client):  # M7
    for name in ("model-list", "model-select", "model-compare", "model-export", "filter-save", "hide-rules"):
        assert alice_client.get(reverse(f"catalog:{name}"), query).status_code == 200, name


def test_the_list_shows_every_kind_with_prices_and_the_last_sync(catalog, alice_client):
    response = alice_client.get(LIST)
    html = response.content.decode()
    assert "1–5 of 5" in html and "Painter" in html and "$15.00" in html and "5 models" in html
    assert response["Vary"].count("HX-Request") == 1


def test_htmx_gets_the_table_alone(catalog, alice_client):
    html = alice_client.get(LIST, {"q": "qwen"}, headers={"HX-Request": "true"}).content.decode()
    assert (
        html.strip().startswith('<div id="models"')
        and "<html" not in html
        and "1–1 of 1" in html
        and "Painter" not in html
    )


def test_pages_keep_the_question(account, upstream, alice_client):
    upstream(listing(*(model(f"m{n:03}") for n in range(250))))
    sync.sync_account(account)
    html = alice_client.get(LIST, {"q": "m", "type": "chat"}).content.decode()
    assert 'href="?q=m&amp;type=chat&amp;offset=100"' in html
    last = alice_client.get(LIST, {"q": "m", "type": "chat", "offset": "200"}).content.decode()
    assert "201–250 of 250" in last and 'rel="next"' not in last and "offset=100" in last


def test_nobody_sees_the_models_of_a_foreign_private_provider(upstream, alice, alice_client, bob_client, bobs_account):
    private = Provider.objects.create(name="home", display_name="Home", base_url="http://home.test/v1", owner=alice)
    home = ProviderAccount.objects.create(owner=alice, provider=private, label="Home")
    upstream(listing(model("secret-model")), home)
    upstream(listing(model("m")), bobs_account)
    sync.sync_account(home)
    sync.sync_account(bobs_account)
    for url in (LIST, SELECT):
        assert "secret-model" in alice_client.get(url).content.decode()
        assert "secret-model" not in bob_client.get(url, {"account": str(home.pk)}).content.decode()


def test_queries_do_not_grow_with_the_list(account, upstream, alice_client, django_assert_max_num_queries):
    upstream(listing(*(model(f"m{n}") for n in range(300))))
    sync.sync_account(account)
    with django_assert_max_num_queries(14):
        alice_client.get(LIST)
    with django_assert_max_num_queries(7):
        alice_client.get(SELECT)


def test_an_open_sync_asks_again_each_second_and_a_finished_one_does_not(account, upstream, alice_client):
    run = SyncRun.objects.create(account=account, state="queued")
    url = reverse("catalog:sync-status", args=[run.pk])
    html = alice_client.get(url).content.decode()
    assert "Waiting" in html and 'hx-trigger="every 1s"' in html and url in html

    SyncRun.objects.update(state="running", started_at=timezone.now())
    assert "Reading the model list" in alice_client.get(url).content.decode()

    SyncRun.objects.update(state="queued")
    upstream(listing(model("m"), model("n"), skipped=3))
    sync.sync_account(account)
    response = alice_client.get(url)
    html = response.content.decode()
    assert "hx-get" not in html and response["HX-Trigger"] == "sync-finished"
    assert "2 models, all new." in html and "3 rows" in html


def test_a_failed_sync_says_why(account, upstream, alice_client):
    upstream(listing())
    run = sync.sync_account(account)
    html = alice_client.get(reverse("catalog:sync-status", args=[run.pk])).content.decode()
    assert "The provider listed no model" in html and "still there" in html


def test_a_foreign_sync_answers_like_a_missing_one(account, upstream, bob_client, client):
    upstream(listing(model("m")))
    url = reverse("catalog:sync-status", args=[sync.sync_account(account).pk])
    assert bob_client.get(url).status_code == 404
    assert client.get(url).status_code == 302


def test_prices_keep_every_digit_for_the_script(account, upstream, alice_client):
    upstream(listing(model("m", "0.000000833333", "0.075")))
    sync.sync_account(account)
    row = option(alice_client.get(SELECT).content.decode(), "m")
    assert 'data-price-input="0.000000833333"' in row and 'data-price-output="0.075"' in row


def test_what_a_dialog_shows_is_a_page_in_another_tab_and_works_there_without_a_script(catalog, alice, alice_client):
    pk = AggregatorModel.objects.get(model_id="qwen/free").pk
    alias = ModelAlias.objects.create(owner=alice, alias="fast", targets=["qwen/free"])
    for url in (
        reverse("catalog:model-probe", args=[pk]),
        reverse("catalog:alias-delete", args=[alias.pk]),
        reverse("catalog:filter-save"),
    ):
        page = alice_client.get(url).content.decode()
        assert page.count("<h1>") == 1 and 'class="page in-page" hx-disable' in page and 'class="app"' in page, url
        part = alice_client.get(url, headers={"hx-request": "true"}).content.decode()
        assert "<html" not in part and "<h1>" not in part and 'class="dialog__body' in part, url
    assert alice_client.post(reverse("catalog:alias-delete", args=[alias.pk])).status_code == 302
