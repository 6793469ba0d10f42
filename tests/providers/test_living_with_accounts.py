"""Two tabs on one account, the order of accounts, and what each has cost (issue 4, 6 and "Bad input")."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.models import AccountModel, AggregatorModel, SyncRun
from providers import health, vault
from providers.clients.errors import ProviderRefused
from providers.models import Provider, ProviderAccount
from usage import reports
from usage.models import DailyUsage, UsageLog

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of

pytestmark = pytest.mark.slow

HTMX = {"HX-Request": "true"}
LIST = "/accounts/"


@pytest.fixture
def account(alice, router) -> ProviderAccount:
    return account_of(alice, router, status="valid")


def fresh(account):
    return ProviderAccount.objects.select_related("provider").get(pk=account.pk)


def drawn(client, account) -> dict:
    """What an open dialog holds, to be sent later."""
    page = client.get(f"{LIST}{account.pk}/edit/", headers=HTMX).content.decode()
    version = re.search(r'name="version" value="([0-9a-f]{16})"', page)
    assert version, page
    return {"label": account.label, "priority": account.priority, "is_active": "on", "version": version[1]}


def send(client, account, fields):
    return client.post(f"{LIST}{account.pk}/edit/", fields, headers=HTMX)


# -- Two tabs --------------------------------------------------------------------------------------------------------


def test_of_two_tabs_that_replace_one_key_the_second_is_told_and_loses_nothing(alice_client, account, server):
    server.keys.add("sk-third-0123456789abcdef")
    first, second = drawn(alice_client, account), drawn(alice_client, account)
    assert send(alice_client, account, {**first, "api_key": OTHER_GOOD_KEY}).status_code == 200
    heard = len(server.requests)

    response = send(alice_client, account, {**second, "api_key": "sk-third-0123456789abcdef"})
    page = response.content.decode()
    assert response.status_code == 422
    assert "changed in another window meanwhile" in page
    assert "sk-third" not in page
    assert vault.open_key(fresh(account)) == OTHER_GOOD_KEY
    assert len(server.requests) == heard, "a key that is not stored is not sent anywhere either"
    # The dialog it got shows how things are now, so sending it again does what its user wants.
    version = re.search(r'name="version" value="([0-9a-f]{16})"', page)[1]
    again = {**second, "version": version, "api_key": "sk-third-0123456789abcdef"}
    assert send(alice_client, account, again).status_code == 200
    assert vault.open_key(fresh(account)) == "sk-third-0123456789abcdef"


def test_a_rename_in_one_tab_and_a_new_key_in_the_other_both_hold(alice_client, account):
    first, second = drawn(alice_client, account), drawn(alice_client, account)
    send(alice_client, account, {**first, "api_key": OTHER_GOOD_KEY})
    assert send(alice_client, account, {**second, "label": "New name"}).status_code == 200
    assert (fresh(account).label, vault.open_key(fresh(account))) == ("New name", OTHER_GOOD_KEY)


def test_K2_a_key_stored_while_another_tab_waits_for_its_check_is_not_put_back(alice_client, account, server):
    """New headers alone: the stored key would be written back with them."""

    def meanwhile(heard):
        server.answer = lambda heard: None
        row = fresh(account)
        vault.seal_key(row, OTHER_GOOD_KEY)
        sealed.append(row)

    sealed: list = []
    fields = drawn(alice_client, account)
    from providers import checking

    check = checking.check

    def slow(checked):
        probe = check(checked)
        meanwhile(None)
        sealed[0].save()
        return probe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "check", slow)
        response = send(alice_client, account, {**fields, "extra_headers": "X-Team: blue"})
    assert response.status_code == 422
    assert "changed in another window meanwhile" in response.content.decode()
    assert vault.open_key(fresh(account)) == OTHER_GOOD_KEY
    assert vault.open_headers(fresh(account)) == {}


def test_an_account_removed_while_another_tab_edits_it_is_told_in_a_sentence(alice_client, account):
    from providers import checking

    fields = drawn(alice_client, account)
    check = checking.check

    def slow(checked):
        probe = check(checked)
        ProviderAccount.objects.all().delete()
        return probe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "check", slow)
        response = send(alice_client, account, {**fields, "api_key": OTHER_GOOD_KEY})
    assert response.status_code == 200
    assert "was removed in another window meanwhile" in response.content.decode()
    assert not ProviderAccount.objects.exists(), "nothing comes back to life"


def test_the_old_key_works_until_the_new_one_is_accepted(alice_client, account, server):
    fields = drawn(alice_client, account)
    assert send(alice_client, account, {**fields, "api_key": "sk-unknown-0123456789"}).status_code == 422
    assert vault.open_key(fresh(account)) == GOOD_KEY
    assert fresh(account).status == "valid"


def test_the_mark_of_a_version_says_nothing_of_the_key(alice_client, account):
    first = drawn(alice_client, account)["version"]
    row = fresh(account)
    vault.seal_key(row, GOOD_KEY)  # the same key, sealed again
    row.save()
    assert drawn(alice_client, account)["version"] != first


# -- Order -----------------------------------------------------------------------------------------------------------


def labels(client) -> list[str]:
    return re.findall(r'<strong dir="auto">(.*?)</strong>', client.get(LIST).content.decode())


@pytest.fixture
def three(alice, router) -> list[ProviderAccount]:
    return [account_of(alice, router, f"sk-number-{n}-abcdefgh", label=f"No. {n}") for n in range(3)]


def move(client, account, to):
    return client.post(f"{LIST}{account.pk}/move/", {"to": to}, headers=HTMX)


def test_accounts_are_put_in_order_by_buttons(alice, alice_client, three):
    assert labels(alice_client) == ["No. 0", "No. 1", "No. 2"]
    page = move(alice_client, three[2], "up").content.decode()
    assert page.index("No. 0") < page.index("No. 2") < page.index("No. 1")
    assert f'id="up-{three[2].pk}"' in page, "htmx puts the focus back on the same button"
    assert labels(alice_client) == ["No. 0", "No. 2", "No. 1"]
    move(alice_client, three[0], "down")
    assert labels(alice_client) == ["No. 2", "No. 0", "No. 1"]
    assert [a.label for a in ProviderAccount.objects.for_user(alice)] == ["No. 2", "No. 0", "No. 1"]


@pytest.mark.parametrize(("place", "to"), [(0, "up"), (2, "down"), (1, "sideways"), (1, "")])
def test_the_ends_of_the_list_are_the_ends_and_nonsense_moves_nothing(alice_client, three, place, to):
    assert move(alice_client, three[place], to).status_code == 200
    assert labels(alice_client) == ["No. 0", "No. 1", "No. 2"]


def test_a1_nobody_moves_anothers_account_or_by_moving_changes_it(alice, bob, alice_client, bob_client, three, router):
    theirs = account_of(bob, router, priority=5)
    assert move(bob_client, three[1], "up").status_code == 404
    move(alice_client, three[2], "up")
    assert fresh(theirs).priority == 5
    assert labels(alice_client) == ["No. 0", "No. 2", "No. 1"]


# -- Money -----------------------------------------------------------------------------------------------------------


def spent(account, day: date, cost: str, **columns) -> None:
    DailyUsage.objects.create(
        user_id=account.owner_id, day=day, account_id=account.pk, provider_name="Router", attempts=1,
        cost=Decimal(cost), **{"door": "chat", "model_id": "alpha", **columns},
    )  # fmt: skip


def test_spending_is_this_months_and_the_rate_is_the_last_weeks_mean(alice, account):
    spent(account, date(2026, 11, 1), "10")
    spent(account, date(2026, 11, 14), "1")  # in the month, before the week
    spent(account, date(2026, 11, 18), "3")  # the week's first day
    spent(account, date(2026, 11, 24), "4", door="api")
    spent(account, date(2026, 10, 31), "99")
    found = reports.spending_by_account(alice, today=date(2026, 11, 24))
    assert found == {account.pk: reports.Spending(Decimal(18), Decimal(1))}
    early = reports.spending_by_account(alice, today=date(2026, 11, 2))  # a week that began last month
    assert early[account.pk].this_month == 10
    assert early[account.pk].per_day == Decimal(109) / 7


@pytest.mark.parametrize(
    ("balance", "per_day", "left"),
    [("18.20", "1", 18), ("0", "1", 0), ("-3", "1", 0), (None, "1", None), ("5", "0", None), ("1e9", "0.01", 9999)],
)
def test_days_left(balance, per_day, left):
    spending = reports.Spending(Decimal(0), Decimal(per_day))
    assert spending.days_left(None if balance is None else Decimal(balance)) == left


def test_the_list_says_what_an_account_cost_and_how_long_its_balance_lasts(alice_client, account, bob, router):
    theirs = account_of(bob, router)
    spent(theirs, timezone.now().date(), "500")
    spent(account, timezone.now().date(), "7")
    ProviderAccount.objects.filter(pk=account.pk).update(balance=Decimal("18.20"), checked_at=timezone.now())
    page = alice_client.get(LIST).content.decode()
    assert "$7.00 this month · $1.00 a day lately" in page
    assert "$18.20 left, about 18 days" in page
    row = alice_client.get(f"{LIST}{account.pk}/row/", headers=HTMX).content.decode()
    assert "$7.00 this month" in row
    assert "500" not in page


def test_fifty_accounts_with_everything_take_twelve_queries_at_most(alice, alice_client, router):
    model = AggregatorModel.objects.create(provider=router, model_id="alpha", display_name="Alpha")
    for n in range(50):
        made = account_of(alice, router, f"sk-number-{n:02}-abcdefgh", label=f"No. {n}", status="valid")
        AccountModel.objects.create(account=made, model=model)
        SyncRun.objects.create(account=made, state="done", total=1)
        spent(made, timezone.now().date() - timedelta(days=n % 5), "1")
    alice_client.get(LIST)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = alice_client.get(LIST).content.decode()
    assert page.count("this month") >= 50
    assert len(queries) <= 12, [query["sql"][:90] for query in queries]


# -- Order by drag: what the element posts ---------------------------------------------------------------------------


def put(client, account, before):
    return client.post(f"{LIST}{account.pk}/move/", {"before": before}, headers=HTMX)


def test_an_account_is_put_before_any_other_or_last(alice, alice_client, three):
    first, second, third = three
    page = put(alice_client, third, first.pk).content.decode()
    assert page.index("No. 2") < page.index("No. 0") < page.index("No. 1")
    assert labels(alice_client) == ["No. 2", "No. 0", "No. 1"]
    put(alice_client, third, second.pk)
    assert labels(alice_client) == ["No. 0", "No. 2", "No. 1"]
    put(alice_client, first, "last")
    assert labels(alice_client) == ["No. 2", "No. 1", "No. 0"]
    assert [a.priority for a in ProviderAccount.objects.for_user(alice)] == [0, 1, 2]


def test_a1_a_place_that_is_none_changes_nothing(bob, alice_client, three, router):
    theirs = account_of(bob, router, priority=5)
    before = list(ProviderAccount.objects.order_by("pk").values())
    for place in ("", "x", "0", "-1", str(theirs.pk), str(three[1].pk), str(three[2].pk), "00000000-0000-0000-0000-00"):
        assert put(alice_client, three[1], place).status_code == 200
    assert put(alice_client, theirs, str(three[0].pk)).status_code == 404
    assert put(alice_client, three[2], "last").status_code == 200, "it is there already"
    assert list(ProviderAccount.objects.order_by("pk").values()) == before


# -- A key that is replaced by one nobody could verify ---------------------------------------------------------------


def test_the_old_key_works_until_its_user_takes_an_unverified_one(alice_client, account, server):
    fields = drawn(alice_client, account)
    server.answer = lambda heard: (503, {})
    response = send(alice_client, account, {**fields, "api_key": OTHER_GOOD_KEY})
    page = response.content.decode()
    assert "<strong>Not verified</strong>" in page
    assert "what was stored before is still in use" in page
    assert OTHER_GOOD_KEY not in page and "data-keeps" in page
    assert re.findall(r'<button[^>]*type="submit"[^>]*>([^<]+)</button>', page) == ["Check again", "Save, not verified"]
    assert vault.open_key(fresh(account)) == GOOD_KEY
    assert fresh(account).status == "valid"

    send(alice_client, account, {**fields, "api_key": OTHER_GOOD_KEY, "accept_unverified": "on"})
    assert vault.open_key(fresh(account)) == OTHER_GOOD_KEY
    assert fresh(account).status == "unverified"


def test_a_rejected_key_is_not_taken_even_so(alice_client, account):
    fields = {**drawn(alice_client, account), "api_key": "sk-unknown-0123456789", "accept_unverified": "on"}
    assert send(alice_client, account, fields).status_code == 422
    assert vault.open_key(fresh(account)) == GOOD_KEY


def test_where_nothing_works_any_more_an_unverified_key_is_taken_at_once(alice_client, account, server):
    account.mark("invalid", "rejected")
    server.answer = lambda heard: (503, {})
    send(alice_client, account, {**drawn(alice_client, account), "api_key": OTHER_GOOD_KEY})
    assert vault.open_key(fresh(account)) == OTHER_GOOD_KEY


# -- What the page asks every few seconds ----------------------------------------------------------------------------

PULSE = f"{LIST}pulse/"


def seen(page: str) -> str:
    return re.search(
        r'<account-watch id="account-watch" hidden data-url="/accounts/pulse/" data-seen="(\w{16})"', page
    )[1]


def pulse(client, mark, at=LIST):
    return client.get(PULSE, {"seen": mark}, headers={**HTMX, "HX-Current-URL": f"http://testserver{at}"})


def test_while_nothing_changes_there_is_no_answer_and_it_costs_next_to_nothing(alice_client, account):
    mark = seen(alice_client.get(LIST).content.decode())
    pulse(alice_client, mark)
    with CaptureQueriesContext(connection) as queries:
        response = pulse(alice_client, mark)
    assert (response.status_code, response.content) == (204, b"")
    assert len(queries) <= 3, "session, user, accounts"


def test_an_error_of_a_call_elsewhere_is_on_the_page_at_the_next_look(alice_client, account):
    page = alice_client.get(LIST).content.decode()
    mark = seen(page)
    health.failed(account, ProviderRefused("no_balance", status=402))
    answer = pulse(alice_client, mark).content.decode()
    assert '<span class="small num mute" id="side-attention" hx-swap-oob="true">' in answer
    assert re.search(r'badge--warn"[^>]*>1</span>', answer)
    assert 'id="accounts" hx-swap-oob="true"' in answer
    assert "Top it up there" in answer
    assert 'id="messages"' not in answer, "notices that stand there stay"
    assert seen(answer) != mark
    assert pulse(alice_client, seen(answer)).status_code == 204

    health.succeeded(fresh(account), timezone.now())
    answer = pulse(alice_client, seen(answer)).content.decode()
    assert "badge--warn" not in answer
    assert "Valid" in answer


def test_on_other_pages_the_badge_comes_alone(alice_client, account):
    mark = seen(alice_client.get("/").content.decode())
    health.failed(account, ProviderRefused("key_rejected", status=401))
    answer = pulse(alice_client, mark, at="/").content.decode()
    assert 'id="side-attention"' in answer
    assert 'id="accounts"' not in answer


def test_a_rest_that_ends_by_itself_is_noticed_too(alice_client, account, monkeypatch):
    health.failed(account, ProviderRefused("rate_limited", status=429))
    mark = seen(alice_client.get(LIST).content.decode())
    assert pulse(alice_client, mark).status_code == 204
    later = timezone.now() + timedelta(seconds=31)
    monkeypatch.setattr("django.utils.timezone.now", lambda: later)
    answer = pulse(alice_client, mark)
    assert answer.status_code == 200, "nobody wrote anything meanwhile"
    assert "Cooling down" not in answer.content.decode()


def test_a1_what_becomes_of_other_peoples_accounts_is_no_news(alice_client, account, bob, router):
    theirs = account_of(bob, router)
    mark = seen(alice_client.get(LIST).content.decode())
    health.failed(theirs, ProviderRefused("no_balance", status=402))
    assert pulse(alice_client, mark).status_code == 204


# -- One token, where nothing free shows whether a key is good -------------------------------------------------------


@pytest.fixture
def doubtful(alice, server) -> ProviderAccount:
    """At a provider whose list is public and which looks at the key of real chats alone."""

    def answer(heard):
        if heard.path.endswith("/models"):
            return 200, {"data": [{"id": "alpha"}]}
        if b"messages" not in heard.body:
            return 500, {}
        if heard.headers["authorization"] != f"Bearer {GOOD_KEY}":
            return 401, {"error": {"message": "no such key"}}
        return 200, {
            "id": "c1", "object": "chat.completion", "model": "alpha",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
        }  # fmt: skip

    server.answer = answer
    provider = Provider.objects.create(name="odd", display_name="Odd", base_url="http://keys.internal/v1")
    made = account_of(alice, provider)
    # Prices by hand: 10 tokens in at $2 and 1 out at $8 per million are $0.000028; 8 in and 1 out are $0.000024.
    for name, into, out in (("dear", 10, 30), ("alpha", 2, 8)):
        model = AggregatorModel.objects.create(
            provider=provider, model_id=name, display_name=name.title(), model_type="chat", price_kind="known",
            price_input=into, price_output=out,
        )  # fmt: skip
        AccountModel.objects.create(account=made, model=model)
    gift = AggregatorModel.objects.create(
        provider=provider, model_id="gift", display_name="Gift", model_type="chat", price_kind="free"
    )
    AccountModel.objects.create(account=made, model=gift)
    return made


@pytest.mark.django_db(transaction=True)
def test_one_token_is_asked_only_after_its_price_was_agreed_to_and_is_metered(alice, alice_client, doubtful, server):
    test = alice_client.post(f"{LIST}{doubtful.pk}/test/", headers=HTMX).content.decode()
    assert "no call that costs nothing shows whether the key is good" in test
    assert "Verify with one token…" in test
    asked = [heard for heard in server.requests if b"messages" in heard.body]
    page = alice_client.get(f"{LIST}{doubtful.pk}/prove/", headers=HTMX).content.decode()
    assert "Alpha" in page and "about $0.000028" in page, "the cheapest that is not free, and what it costs"
    assert asked == [heard for heard in server.requests if b"messages" in heard.body] == []
    other = AggregatorModel.objects.get(model_id="dear").pk
    alice_client.post(f"{LIST}{doubtful.pk}/prove/", {"model": other}, headers=HTMX)
    assert not UsageLog.objects.exists(), "what was agreed to is this model and its price"

    model = re.search(r'name="model" value="(\d+)"', page)[1]
    done = alice_client.post(f"{LIST}{doubtful.pk}/prove/", {"model": model}, headers=HTMX)
    assert "The provider accepted the key and answered." in done.content.decode()
    assert fresh(doubtful).status == "valid"
    [sent] = [json.loads(heard.body) for heard in server.requests if b"messages" in heard.body]
    assert (sent["model"], sent["max_tokens"]) == ("alpha", 1)
    row = UsageLog.objects.get()
    assert (row.user_id, row.door, row.status, row.cost) == (alice.pk, "probe", "success", Decimal("0.000024"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("status", "answer", "verdict"),
    [(401, {"error": {"message": "no such key"}}, "invalid"), (402, {}, "valid"), (503, {}, "unverified")],
)
def test_what_the_one_token_shows(alice_client, doubtful, server, status, answer, verdict):
    server.answer = lambda heard: (status, answer)
    model = AggregatorModel.objects.get(model_id="alpha").pk
    alice_client.post(f"{LIST}{doubtful.pk}/prove/", {"model": model}, headers=HTMX)
    assert fresh(doubtful).status == verdict
    assert UsageLog.objects.get().status == "error"


def test_without_a_price_nothing_is_asked(alice_client, doubtful, server):
    AggregatorModel.objects.update(price_kind="unknown", price_input=None, price_output=None)
    page = alice_client.get(f"{LIST}{doubtful.pk}/prove/", headers=HTMX).content.decode()
    assert "nobody can say what a check would cost" in page
    alice_client.post(f"{LIST}{doubtful.pk}/prove/", {"model": AggregatorModel.objects.first().pk}, headers=HTMX)
    assert server.requests == []
