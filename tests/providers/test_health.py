"""Errors of real calls move an account from well to cooling down to needs attention, and it recovers by itself (issue 4, 7)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from chat.context import Navigation
from providers import checking, health, vault
from providers.clients.errors import CODES, ProviderBroken, ProviderRefused, ProviderUnreachable
from providers.models import ProviderAccount
from providers.tasks import recheck

from .conftest import GOOD_KEY, OTHER_GOOD_KEY, account_of

HTMX = {"HX-Request": "true"}


@pytest.fixture
def account(alice, router) -> ProviderAccount:
    return account_of(alice, router, status="valid")


def fresh(account):
    return ProviderAccount.objects.select_related("provider").get(pk=account.pk)


def rest_of(account) -> float:
    """Seconds; 0 for one that does not rest."""
    until = fresh(account).cooldown_until
    return 0 if until is None else max(0, (until - timezone.now()).total_seconds())


def rest_is_over(account):
    ProviderAccount.objects.filter(pk=account.pk).update(cooldown_until=timezone.now() - timedelta(seconds=1))


def attention(user) -> int:
    class Request:
        pass

    request = Request()
    request.user = user
    return Navigation(request).attention


# -- The table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "seconds"),
    [
        # by hand, from docs/account-health.md
        ("key_rejected", "attention", 30),
        ("forbidden", "attention", 0),
        ("bad_header", "attention", 600),
        ("no_balance", "attention", 600),
        ("rate_limited", "valid", 30),
        ("overloaded", "valid", 15),
        ("upstream_error", "valid", 5),
        ("timeout", "valid", 15),
        ("unreachable", "valid", 15),
        ("tls_error", "attention", 60),
        ("unexpected_redirect", "attention", 60),
        ("blocked_address", "attention", 600),
    ],
)
def test_each_error_has_its_consequence(account, code, status, seconds):
    assert health.failed(account, ProviderRefused(code)) is True
    after = fresh(account)
    assert (after.status, after.trouble) == (status, code)
    assert seconds - 2 < rest_of(account) <= seconds or seconds == rest_of(account) == 0
    assert after in ProviderAccount.objects.usable(), "no call takes an account out of use"
    assert attention(account.owner) == (status == "attention")


@pytest.mark.parametrize("code", sorted(set(CODES) - set(health.CONSEQUENCES)))
def test_what_is_about_one_request_says_nothing_of_the_account(account, code):
    before = ProviderAccount.objects.values().get()
    assert health.failed(account, ProviderBroken(code)) is False
    assert ProviderAccount.objects.values().get() == before


@pytest.mark.parametrize(("asked", "given"), [(90, 90), (5, 30), (86_400, 3600), (1e12, 3600), (-5, 30)])
def test_f9_retry_after_lengthens_the_rest_up_to_an_hour(account, asked, given):
    health.failed(account, ProviderRefused("rate_limited", status=429, retry_after=asked))
    assert given - 2 < rest_of(account) <= given


# -- Cooling down, and well again by itself --------------------------------------------------------------------------


def test_a_resting_account_says_until_when_and_why_and_is_well_again_without_anybody_writing(alice_client, account):
    health.failed(account, ProviderRefused("rate_limited", status=429, retry_after=600))
    page = alice_client.get("/accounts/").content.decode()
    assert "Cooling down" in page
    assert "limits how often this key may ask" in page
    assert "Tried last for another" in page and "9\xa0minutes" in page

    rest_is_over(account)
    before = ProviderAccount.objects.values().get()
    page = alice_client.get("/accounts/").content.decode()
    assert "Cooling down" not in page
    assert "limits how often" not in page
    assert "Valid" in page
    assert ProviderAccount.objects.values().get() == before


def test_rests_in_a_row_double_and_the_fifth_is_for_the_owner(account):
    lengths = []
    for _ in range(5):
        health.failed(account, ProviderRefused("overloaded", status=503))
        lengths.append(round(rest_of(account)))
        rest_is_over(account)
        if len(lengths) < 5:
            assert fresh(account).status == "valid"
    assert lengths == [15, 30, 60, 120, 240]
    assert fresh(account).status == "attention"
    assert "overloaded" in fresh(account).status_reason
    for _ in range(20):
        health.failed(account, ProviderRefused("overloaded", status=503))
        rest_is_over(account)
    health.failed(account, ProviderRefused("overloaded", status=503))
    assert 3590 < rest_of(account) <= 3600, "never longer than an hour"


def test_many_calls_that_fail_at_once_are_one_failure(account):
    for _ in range(12):
        health.failed(account, ProviderRefused("rate_limited", status=429))
    assert (fresh(account).status, fresh(account).failures) == ("valid", 1)
    assert rest_of(account) <= 30


def test_a_call_that_goes_through_ends_it(account):
    began = timezone.now()
    for code in ("rate_limited", "no_balance"):
        health.failed(account, ProviderRefused(code))
        assert not health.is_well(fresh(account))
        health.succeeded(fresh(account), timezone.now())
        after = fresh(account)
        assert health.is_well(after)
        assert (after.status, after.status_reason, after.cooldown_until, after.failures) == ("valid", "", None, 0)
    health.failed(account, ProviderRefused("rate_limited"))
    health.succeeded(fresh(account), began)
    assert fresh(account).trouble == "rate_limited", "a long answer that began before says nothing of now"


def test_a_call_that_goes_through_proves_a_key_nobody_could_check(alice, router):
    account = account_of(alice, router)
    assert account.status == "unverified" and not health.is_well(account)
    health.succeeded(account, timezone.now())
    assert fresh(account).status == "valid"


def test_a_new_key_does_not_answer_for_the_old_one(account):
    """A call made with the old key ends after the key was replaced, either way."""
    old = fresh(account)
    vault.seal_key(account, OTHER_GOOD_KEY)
    account.save()
    health.failed(old, ProviderRefused("key_rejected", status=401))
    assert fresh(account).status == "valid" and fresh(account).trouble == ""
    health.failed(account, ProviderRefused("no_balance", status=402))
    health.succeeded(old, timezone.now())
    assert fresh(account).status == "attention"


@pytest.mark.parametrize("status", ["invalid", "locked"])
def test_what_a_probe_or_the_vault_found_out_is_not_overruled_by_a_call(account, status):
    account.mark(status, "as it is")
    health.failed(account, ProviderUnreachable("unreachable"))
    health.failed(account, ProviderRefused("no_balance"))
    health.succeeded(account, timezone.now())
    assert (fresh(account).status, fresh(account).status_reason) == (status, "as it is")


def test_a_removed_account_is_no_trouble(account):
    ProviderAccount.objects.all().delete()
    assert health.failed(account, ProviderRefused("no_balance")) is False
    health.succeeded(account, timezone.now())
    assert not ProviderAccount.objects.exists()


# -- A key that a call saw rejected ----------------------------------------------------------------------------------


def test_one_401_is_asked_about_again_and_a_hiccup_is_forgotten(account, server):
    health.failed(account, ProviderRefused("key_rejected", status=401))
    assert recheck() == 0, "not while it rests"
    rest_is_over(account)
    assert recheck() == 1
    assert server.sent_keys == [GOOD_KEY]
    after = fresh(account)
    assert (after.status, after.trouble, after.failures, after.cooldown_until) == ("valid", "", 0, None)
    assert recheck() == 0


def test_a_key_that_is_really_rejected_is_out_of_use_and_asked_about_no_more(account, server):
    server.keys.clear()
    health.failed(account, ProviderRefused("key_rejected", status=401))
    rest_is_over(account)
    assert recheck() == 1
    assert fresh(account).status == "invalid"
    assert account not in ProviderAccount.objects.usable()
    assert recheck() == 0


def test_while_nobody_can_tell_it_rests_longer_each_time(account, server):
    server.answer = lambda heard: (503, {})
    health.failed(account, ProviderRefused("key_rejected", status=401))
    rests = []
    for _ in range(3):
        rest_is_over(account)
        assert recheck() == 1
        rests.append(round(rest_of(account)))
        assert fresh(account).status == "attention"
    assert rests == [240, 480, 960]
    assert recheck() == 0


def test_paused_accounts_and_those_of_people_who_left_are_not_asked_about(account, alice, server):
    health.failed(account, ProviderRefused("key_rejected", status=401))
    rest_is_over(account)
    ProviderAccount.objects.update(is_active=False)
    assert recheck() == 0
    ProviderAccount.objects.update(is_active=True)
    alice.is_active = False
    alice.save()
    assert recheck() == 0
    assert server.requests == []


def test_a_key_that_is_replaced_during_the_check_keeps_its_own_verdict(account, server):
    health.failed(account, ProviderRefused("key_rejected", status=401))
    rest_is_over(account)
    server.keys = {OTHER_GOOD_KEY}

    checked = fresh(account)
    replaced = fresh(account)
    vault.seal_key(replaced, OTHER_GOOD_KEY)
    replaced.status = "valid"
    replaced.save()

    checked.record(checking.check(checked))
    assert checked.status == "invalid"
    assert checked.save_found() is False
    assert fresh(account).status == "valid"
