"""Notices: who hears of what a sync changed, once, and what their reader does with them (M4, I15, I2)."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from catalog import after_sync, sync
from catalog.models import AggregatorModel, ChangeSet, FavouriteModel, ModelAlias
from chat.models import Conversation
from providers.clients.base import Prices
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model
from usage import notices
from usage.models import DailyUsage, Notice
from usage.tasks import remind

pytestmark = pytest.mark.slow

LIST, READ_ALL = reverse("notices:notice-list"), reverse("notices:notices-read")


def use(user, account, model_id, *, days_ago=1, door="chat"):
    """`user` called the model through the account."""
    DailyUsage.objects.create(
        user_id=user.pk, day=timezone.now().date() - timedelta(days=days_ago), door=door, provider_name="Lister",
        account_id=account.pk, model_id=model_id, model_name=model_id.title(), attempts=1,
    )  # fmt: skip


def told(user):
    return sorted((notice.kind, notice.model.model_id, notice.because) for notice in Notice.objects.for_user(user))


def then(upstream, who, *models):
    """The provider lists `models` from now on, and the account is synced."""
    upstream(listing(*models), who)
    return sync.sync_account(who)


@pytest.fixture
def known(account, upstream):
    """m ($3 in, $15 out) and other are in the catalog."""
    then(upstream, account, model("m", "3", "15"), model("other"))
    return model("m", "3", "15")


def prices(input_price, output_price, **more):
    return Prices(Decimal(input_price), Decimal(output_price), **more)


# -- What is news ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"prices": prices("4", "15")}, ["dearer"]),
        ({"prices": prices("4", "20")}, ["dearer"]),
        ({"prices": prices("2.5", "15")}, ["cheaper"]),
        ({"prices": prices("0", "0")}, ["cheaper"]),
        ({"prices": prices("2.5", "20")}, ["repriced"]),
        ({"prices": Prices(variable=True)}, ["repriced"]),
        ({"prices": prices("3", "15", rules=({"min_prompt_tokens": 200_000, "input": "6"},))}, ["repriced"]),
        ({"retires_at": date.today() + timedelta(days=60)}, ["retiring"]),
        ({"retires_at": date.today() + timedelta(days=60), "successor": "m2"}, ["retiring"]),
        ({"retires_at": date(2098, 12, 31)}, []),
        ({"successor": "m2"}, ["successor"]),
        ({"is_available": False}, ["gone"]),
        ({"prices": prices("4", "15"), "successor": "m2"}, ["dearer", "successor"]),
        ({"display_name": "Em"}, []),
        ({"context_window": 1_000}, []),
        ({"capabilities": ("vision",)}, []),
        ({"description": "words"}, []),
    ],
)
def test_a_user_of_a_model_hears_what_matters_and_hears_it_once_m4_i15(
    changed, kinds, known, account, upstream, alice, bob
):
    use(alice, account, "m")
    for _ in range(2):
        then(upstream, account, replace(known, **changed), model("other"))
    assert [kind for kind, _, _ in told(alice)] == kinds
    assert told(bob) == []


def test_gone_and_back_and_the_successor_the_seller_named(known, account, upstream, alice):
    use(alice, account, "m")
    then(upstream, account, replace(known, successor="m2"), model("other"))
    Notice.objects.all().delete()
    then(upstream, account, model("other"))
    [gone] = Notice.objects.for_user(alice)
    assert (gone.kind, gone.successor) == ("gone", "m2")
    then(upstream, account, replace(known, successor="m2"), model("other"))
    assert [kind for kind, _, _ in told(alice)] == ["back", "gone"]


def test_a_retirement_that_is_called_off_is_news_too(known, account, upstream, alice):
    use(alice, account, "m")
    then(upstream, account, replace(known, retires_at=date.today() + timedelta(days=60)), model("other"))
    then(upstream, account, known, model("other"))
    assert [notice.retires_at for notice in Notice.objects.for_user(alice).order_by("pk")] == [
        date.today() + timedelta(days=60),
        None,
    ]


def test_who_began_after_the_announcement_is_reminded_a_month_before_and_once_i15(known, account, upstream, alice, bob):
    soon, later = date.today() + timedelta(days=20), date.today() + timedelta(days=40)
    then(upstream, account, replace(known, retires_at=soon, successor="m2"), model("other", retires_at=later))
    assert told(alice) == []
    use(alice, account, "m")
    use(alice, account, "other")
    assert [remind(), remind()] == [1, 0]
    [notice] = Notice.objects.for_user(alice)
    assert (notice.kind, notice.model.model_id, notice.retires_at, notice.successor) == ("retiring", "m", soon, "m2")
    assert told(bob) == []


def test_who_was_told_this_month_is_not_reminded(known, account, upstream, alice):
    use(alice, account, "m")
    then(upstream, account, replace(known, retires_at=date.today() + timedelta(days=20)), model("other"))
    assert remind() == 0
    Notice.objects.update(created_at=timezone.now() - timedelta(days=31))
    assert [remind(), remind()] == [1, 0]


# -- Who hears of it -------------------------------------------------------------------------------------------------


def dearer(upstream, account):
    then(upstream, account, model("m", "4", "15"), model("other"))


def test_use_counts_for_ninety_days_and_a_probe_is_no_use(known, account, upstream, alice):
    use(alice, account, "m", days_ago=100)
    use(alice, account, "m", door="probe")
    dearer(upstream, account)
    assert told(alice) == []


def test_a_model_somebody_uses_elsewhere_by_the_same_id_is_not_this_one(known, account, upstream, alice, bob):
    elsewhere = Provider.objects.create(name="else", display_name="Else", base_url="http://else.test/v1")
    other = ProviderAccount.objects.create(owner=alice, provider=elsewhere, label="Else")
    use(alice, other, "m")
    use(bob, account, "m")  # a row that cannot be: it is not his account
    dearer(upstream, account)
    assert told(alice) == told(bob) == []


def test_a_change_one_users_sync_finds_is_told_to_all_who_use_the_model(
    known, account, bobs_account, upstream, alice, bob
):
    then(upstream, bobs_account, known, model("other"))
    use(alice, account, "m")
    use(bob, bobs_account, "m")
    dearer(upstream, bobs_account)
    dearer(upstream, account)
    assert told(alice) == told(bob) == [("dearer", "m", "used")]


def test_a_star_is_enough(known, account, upstream, alice, bob):
    one = AggregatorModel.objects.get(model_id="m")
    FavouriteModel.objects.create(owner=bob, model=one)  # he has no account there, and wants to know
    FavouriteModel.objects.create(owner=alice, model=one)
    use(alice, account, "m")
    dearer(upstream, account)
    assert told(alice) == [("dearer", "m", "used")]
    assert told(bob) == [("dearer", "m", "starred")]


def test_the_target_of_an_alias_and_the_model_of_a_conversation_count(
    known, account, bobs_account, upstream, alice, bob, sam
):
    one = AggregatorModel.objects.get(model_id="m")
    ModelAlias.objects.create(owner=alice, alias="best", targets=["nothing", "m"])
    ModelAlias.objects.create(owner=sam, alias="best", targets=["m"])  # has no account there
    ModelAlias.objects.create(alias="everybodys", targets=["m"])
    Conversation.objects.create(owner=bob, title="Talk", model=one)
    Conversation.objects.create(owner=sam, title="Old", model=one, updated_at=timezone.now() - timedelta(days=120))
    dearer(upstream, account)
    assert told(alice) == [("dearer", "m", "alias")]
    assert told(bob) == [("dearer", "m", "conversation")]
    assert told(sam) == []


def test_nobody_hears_of_a_foreign_private_model_i2(upstream, alice, bob, bob_client):
    private = Provider.objects.create(
        name="home", display_name="Home", base_url="http://home.test/v1", owner=alice, features={"keyless": True}
    )
    home = ProviderAccount.objects.create(owner=alice, provider=private, label="Home")
    then(upstream, home, model("secret", "1", "1"))
    one = AggregatorModel.objects.get(model_id="secret")
    use(alice, home, "secret")
    use(bob, home, "secret")
    Conversation.objects.create(owner=bob, title="Talk", model=one)
    ModelAlias.objects.create(owner=bob, alias="mine", targets=["secret"])
    FavouriteModel.objects.create(owner=bob, model=one)
    then(upstream, home, model("secret", "2", "1"))
    assert told(alice) == [("dearer", "secret", "used")]
    assert told(bob) == []
    assert "Secret" not in bob_client.get(LIST).content.decode()


def test_a_key_that_no_longer_lists_a_model_tells_its_owner_alone(known, account, bobs_account, upstream, alice, bob):
    then(upstream, bobs_account, known, model("other"))
    use(alice, account, "m")
    use(bob, bobs_account, "m")
    then(upstream, account, model("other"))
    assert AggregatorModel.objects.get(model_id="m").is_available, "Bob's key still lists it"
    assert told(alice) == [("dropped", "m", "used")]
    assert told(bob) == []


def test_a_provider_that_reprices_everything_tells_each_user_of_their_own_models(account, upstream, alice):
    then(upstream, account, *(model(f"m{n}", "1", "1") for n in range(900)))
    use(alice, account, "m7")
    then(upstream, account, *(model(f"m{n}", "2", "1") for n in range(900)))
    assert told(alice) == [("dearer", "m7", "used")]


# -- With the change, or not at all ----------------------------------------------------------------------------------


def test_told_twice_it_writes_once_i15(known, account, upstream, alice, monkeypatch):
    use(alice, account, "m")
    heard = []
    after_sync.listen(heard.append)
    try:
        dearer(upstream, account)
    finally:
        after_sync._listeners.remove(heard.append)
    [applied] = heard
    before = list(Notice.objects.values())
    notices.write(applied)
    assert list(Notice.objects.values()) == before and len(before) == 1


def test_a_sync_that_fails_at_its_end_leaves_neither_change_nor_notice_and_the_next_brings_both(
    known, account, upstream, alice, monkeypatch
):
    use(alice, account, "m")
    monkeypatch.setattr(sync, "_finish", _fails_once(sync._finish))
    with pytest.raises(RuntimeError):
        dearer(upstream, account)
    assert told(alice) == [] and ChangeSet.objects.count() == 1
    dearer(upstream, account)
    assert told(alice) == [("dearer", "m", "used")] and ChangeSet.objects.count() == 2


def _fails_once(finish):
    calls = []

    def failing(run, state, **columns):
        calls.append(state)
        if len(calls) == 1:
            raise RuntimeError("the power went out")
        return finish(run, state, **columns)

    return failing


def test_the_command_writes_them_and_its_dry_run_does_not(known, account, upstream, alice, capsys):
    use(alice, account, "m")
    upstream(listing(model("m", "4", "15"), model("other")), account)
    call_command("sync_models", "--dry-run")
    assert told(alice) == []
    call_command("sync_models")
    assert told(alice) == [("dearer", "m", "used")]


def test_what_nobody_uses_costs_a_sync_a_few_questions(account, upstream, django_assert_max_num_queries):
    then(upstream, account, *(model(f"m{n}", "1", "1") for n in range(30)))
    applied = []
    after_sync.listen(applied.append)
    try:
        then(upstream, account, *(model(f"m{n}", "2", "1") for n in range(30)))
    finally:
        after_sync._listeners.remove(applied.append)
    with django_assert_max_num_queries(7):
        notices.write(applied[0])


# -- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture
def one(known, account, upstream, alice):
    use(alice, account, "m")
    dearer(upstream, account)
    return Notice.objects.get()


def badge(html):
    found = re.search(r'id="side-notices"[^>]*>(.*?)</a>', html, re.S)[1]
    return re.sub(r"<[^>]*>", "", found).strip()


def test_the_page_says_what_happened_from_what_to_what_and_why_it_is_said(one, alice_client):
    html = alice_client.get(LIST).content.decode()
    words = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "M got dearer" in words
    assert "$3.00 → , now $4.00 ↑ up 33 %" in words
    assert "Lister" in words and "you used it lately" in words
    assert reverse("catalog:model-detail", args=[one.model_id]) in html
    assert badge(html) == "1"


def test_reading_one_takes_it_off_the_count(one, alice_client, bob_client):
    url = reverse("notices:notice-read", args=[one.pk])
    assert bob_client.post(url).status_code == 404
    html = alice_client.post(url, headers={"HX-Request": "true"}).content.decode()
    assert "Mark read" not in html and 'hx-swap-oob="true"' in html and "<html" not in html
    page = alice_client.get(LIST).content.decode()
    assert "M</strong>" in page and "Mark" not in page and badge(page) == ""
    when = Notice.objects.get().read_at
    alice_client.post(url)
    assert Notice.objects.get().read_at == when


def test_marking_all_leaves_what_came_after_the_page_was_drawn(one, alice, alice_client, account, upstream):
    then(upstream, account, model("m", "5", "15"), model("other"))
    first, second = Notice.objects.order_by("pk")
    assert alice_client.post(READ_ALL, {"until": first.pk}).status_code == 302
    assert list(Notice.objects.for_user(alice).unread()) == [second]
    for odd in ("", "x", "9" * 40, "-1"):
        alice_client.post(READ_ALL, {"until": odd})
    assert Notice.objects.unread().count() == 1
    html = alice_client.post(READ_ALL, {"until": second.pk}, headers={"HX-Request": "true"}).content.decode()
    assert Notice.objects.unread().count() == 0 and "Mark all" not in html and 'hx-swap-oob="true"' in html


def test_nothing_to_report_says_what_will(alice_client):
    html = alice_client.get(LIST).content.decode()
    assert "Nothing to report" in html and badge(html) == ""


def test_pages_of_notices_go_by_key_and_cost_the_same(one, alice, alice_client, django_assert_max_num_queries):
    Notice.objects.bulk_create(
        Notice(owner=alice, model_id=one.model_id, kind="dearer", because="used", run_id=f"{n:032x}", data={"steps": [["price_input", str(n), str(n + 1)]]})
        for n in range(1, 120)
    )  # fmt: skip
    with django_assert_max_num_queries(16):
        html = alice_client.get(LIST).content.decode()
    assert html.count('class="told ') == 40 and badge(html) == "99+"
    seen, url = set(), LIST
    while url:
        part = alice_client.get(url, headers={"HX-Request": "true"} if "?" in url else {}).content.decode()
        ids = set(re.findall(r'id="notice-(\d+)"', part))
        assert not ids & seen
        seen |= ids
        older = re.search(r'href="(\?before=\d+)"', part)
        url = LIST + older[1] if older else ""
    assert len(seen) == 120


def test_hostile_names_are_shown_as_text_x1(account, upstream, alice, alice_client):
    evil = '"><script>x</script>'
    then(upstream, account, model(evil, "1", "1", display_name="<img src=x onerror=alert(1)>"))
    use(alice, account, evil)
    then(upstream, account, model(evil, "2", "1", display_name="<img src=x onerror=alert(1)>", successor="<b>new</b>"))
    pk = AggregatorModel.objects.get().pk
    for url in (LIST, reverse("catalog:change-list"), reverse("catalog:model-detail", args=[pk])):
        html = alice_client.get(url).content.decode()
        assert "&lt;img src=x" in html
        assert "<img src=x" not in html and "<script>x" not in html and "<b>new" not in html
