"""What the chat finds out about an account, with a real upstream's faults (issue 4, 7; F9)."""

from __future__ import annotations

import time

import pytest
from django.utils import timezone

from catalog.models import AccountModel, AggregatorModel
from chat import writing
from chat.models import Generation
from providers.models import ProviderAccount
from usage.models import UsageLog

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def say(web, alice, upstream_account):
    """say(model id) sends a message and returns the reply once it has ended."""

    def offered(name):
        model, _ = AggregatorModel.objects.get_or_create(
            provider=upstream_account.provider, model_id=name, defaults={"display_name": name, "model_type": "chat"}
        )
        AccountModel.objects.get_or_create(account=upstream_account, model=model)
        return model

    def say(name, wait=True):
        sent = writing.send(alice, text="Hi", model=offered(name), account=None)
        return ended(sent.reply) if wait else sent.reply

    return say


def ended(message, seconds: float = 20) -> Generation:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        reply = Generation.objects.select_related("message").get(message=message)
        if not reply.is_open:
            return reply
        time.sleep(0.02)
    raise AssertionError(f"still {reply.state}")


def outcome():
    account = ProviderAccount.objects.get()
    rest = (account.cooldown_until - timezone.now()).total_seconds() if account.cooldown_until else 0
    return account.status, account.trouble, rest


@pytest.mark.parametrize(
    ("fault", "status", "trouble", "least", "most"),
    [
        ("fault-status-401", "attention", "key_rejected", 25, 30),
        ("fault-status-402", "attention", "no_balance", 590, 600),
        ("fault-status-403", "attention", "forbidden", 0, 0),
        ("fault-status-429-retry-after-90", "valid", "rate_limited", 85, 90),
        ("fault-status-503", "valid", "overloaded", 10, 15),
        ("fault-status-400", "valid", "", 0, 0),
    ],
)
def test_f9_a_fault_has_the_consequence_of_the_table_and_the_next_good_reply_ends_it(
    say, upstream, fault, status, trouble, least, most
):
    assert say(fault).state == "failed"
    found = outcome()
    assert found[:2] == (status, trouble)
    assert least <= found[2] <= most
    if status == "attention":
        assert ProviderAccount.objects.get().status_reason

    assert say("echo").state == "complete"
    assert outcome() == ("valid", "", 0)


def test_an_account_removed_in_the_middle_of_an_answer_loses_nothing(say, upstream, alice_client, upstream_account):
    """Issue 4, bad input: the answer goes on to its end, its cost is kept, and the next question says what is missing."""
    upstream.gate(after=2)
    reply = say("markdown", wait=False)
    upstream.wait(held=1)
    response = alice_client.post(f"/accounts/{upstream_account.pk}/remove/", headers={"HX-Request": "true"})
    assert response.status_code == 200
    assert not ProviderAccount.objects.exists()
    upstream.open()

    done = ended(reply)
    assert (done.state, done.error_code) == ("complete", "")
    assert done.message.content
    assert done.account_label == "Trial", "whose key it was is still told"
    row = UsageLog.objects.get()
    assert (row.status, row.account_label) == ("success", "Trial")
    assert row.account_id == upstream_account.pk
    page = alice_client.get(f"/c/{done.message.conversation_id}/")
    assert page.status_code == 200
    assert upstream.key not in page.content.decode()
    retried = alice_client.post(f"/c/{done.message.conversation_id}/send/", {"text": "Again"}, follow=True)
    assert retried.status_code in (200, 422)
    assert "account" in retried.content.decode().lower()


def test_an_account_removed_before_its_answer_fails_ends_in_a_sentence(say, upstream, upstream_account):
    upstream.gate(after=0)
    reply = say("markdown", wait=False)
    upstream.wait(held=1)
    ProviderAccount.objects.all().delete()
    upstream.open()
    done = ended(reply)
    assert not done.is_open
    assert done.state in ("complete", "failed", "interrupted")
    assert UsageLog.objects.exclude(status="pending").count() == 1
