"""What a sync meets and finds says something about its account, by the one table of providers/health.py (issue 4, 7)."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from catalog import sync
from providers import health, vault
from providers.clients.errors import ProviderRefused, ProviderUnreachable
from providers.models import Provider, ProviderAccount

pytestmark = pytest.mark.slow

KEY = "sk-good-0123456789abcdef"


class Seller:
    """Set `status` to refuse everybody; `is_public` lists to everybody, else to KEY alone."""

    def __init__(self, lister):
        self.is_public, self.status, self.retry_after, self.lister = False, 200, "", lister
        lister.answer = self.answer

    def answer(self, handler):
        key = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        self.lister.asked.append(key)
        is_let_in = self.is_public or key == KEY
        status = self.status if self.status != 200 else 200 if is_let_in else 401
        body = {"data": [{"id": "m"}]} if status == 200 else {"error": {"message": "no"}}
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        if self.retry_after:
            handler.send_header("Retry-After", self.retry_after)
        handler.end_headers()
        handler.wfile.write(data)

    @property
    def asked(self):
        return self.lister.asked


@pytest.fixture
def seller(lister):
    return Seller(lister)


@pytest.fixture
def account(db, alice, seller):
    provider = Provider.objects.create(name="lister", display_name="Lister", base_url="http://lister.test/v1")
    account = ProviderAccount(owner=alice, provider=provider, label="Key", status="valid")
    vault.seal_key(account, KEY)
    account.save()
    return account


def fresh(account):
    return ProviderAccount.objects.select_related("provider").get(pk=account.pk)


def age(account):
    """What was found out was found out before now."""
    ProviderAccount.objects.filter(pk=account.pk).update(checked_at=timezone.now() - timedelta(minutes=1))


# -- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "trouble", "seconds"),
    [
        # by hand, from docs/account-health.md
        (401, "attention", "key_rejected", 30),
        (402, "attention", "no_balance", 600),
        (403, "attention", "forbidden", 0),
        (429, "valid", "rate_limited", 30),
        (500, "valid", "upstream_error", 5),
        (503, "valid", "overloaded", 15),
    ],
)
def test_a_list_that_is_refused_has_the_consequence_of_any_call(account, seller, answer, status, trouble, seconds):
    seller.status = answer
    assert sync.sync_account(account).state == "failed"
    after = fresh(account)
    assert (after.status, after.trouble) == (status, trouble)
    rest = 0 if after.cooldown_until is None else (after.cooldown_until - timezone.now()).total_seconds()
    assert seconds - 2 < rest <= seconds or rest == seconds == 0
    assert after in ProviderAccount.objects.usable(), "no call takes an account out of use"


def test_f9_retry_after_counts_here_too(account, seller):
    seller.status, seller.retry_after = 429, "90"
    sync.sync_account(account)
    assert 88 < (fresh(account).cooldown_until - timezone.now()).total_seconds() <= 90


def test_a_list_that_is_none_says_nothing_of_the_account(account, seller):
    before = ProviderAccount.objects.values().get()
    seller.status = 404
    sync.sync_account(account)
    assert ProviderAccount.objects.values().get() == before


# -- What goes right -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["key_rejected", "timeout", "unreachable", "tls_error", "unexpected_redirect"])
def test_a_good_list_that_a_wrong_key_is_refused_ends_doubts_about_key_and_way(account, seller, code):
    health.failed(account, (ProviderUnreachable if code == "timeout" else ProviderRefused)(code))
    age(account)
    assert sync.sync_account(account).state == "done"
    after = fresh(account)
    assert (after.status, after.status_reason, after.trouble, after.cooldown_until) == ("valid", "", "", None)
    assert len(seller.asked) == 2 and seller.asked[0] == KEY and seller.asked[1] not in ("", KEY)


@pytest.mark.parametrize("status", ["unverified", "invalid"])
def test_it_proves_a_key_that_nobody_could_check_or_that_a_probe_saw_rejected(account, seller, status):
    account.mark(status, "as it was")
    age(account)
    sync.sync_account(account)
    assert fresh(account).status == "valid"


@pytest.mark.parametrize("status", ["unverified", "invalid", "attention"])
def test_a_public_list_proves_nothing(account, seller, status):
    seller.is_public = True
    account.mark(status, "as it was", trouble="key_rejected" if status == "attention" else "")
    age(account)
    before = ProviderAccount.objects.values().get()
    assert sync.sync_account(account).state == "done"
    assert ProviderAccount.objects.values().get() == before


@pytest.mark.parametrize("code", ["no_balance", "forbidden", "rate_limited", "overloaded", "upstream_error"])
def test_a_list_does_not_clear_what_it_cannot_know(account, seller, code):
    health.failed(account, ProviderRefused(code))
    age(account)
    before = ProviderAccount.objects.values().get()
    assert sync.sync_account(account).state == "done"
    assert ProviderAccount.objects.values().get() == before
    assert seller.asked == [KEY], "and a wrong key is not tried for nothing"


def test_a_list_that_was_asked_for_before_the_trouble_does_not_clear_it(account, seller):
    account.mark("unverified", "")
    age(account)
    run = sync._claim(account, "button")[0]
    run.account = fresh(account)
    ProviderAccount.objects.update(
        status="attention", trouble="key_rejected", checked_at=timezone.now() + timedelta(hours=1)
    )
    sync._run(run, force=False)
    assert fresh(account).trouble == "key_rejected"


def test_an_account_that_is_well_costs_no_second_request(account, seller):
    sync.sync_account(account)
    assert seller.asked == [KEY]


def test_an_account_without_a_key_is_well_once_its_list_was_read(account, seller):
    seller.is_public = True
    vault.seal_key(account, "")
    account.save()
    account.mark("attention", "gone", trouble="unreachable")
    age(account)
    sync.sync_account(account)
    assert fresh(account).status == "valid"
    assert len(seller.asked) == 1
