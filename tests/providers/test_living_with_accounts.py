"""Two tabs on one account, the order of accounts, and what each has cost (issue 4, 6 and "Bad input")."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.models import AccountModel, AggregatorModel, SyncRun
from providers import vault
from providers.models import ProviderAccount
from usage import reports
from usage.models import DailyUsage

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of

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
