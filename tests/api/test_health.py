"""What `/v1` finds out about an account, with a real upstream's faults (issue 4, 7; F9)."""

from __future__ import annotations

import pytest
from django.utils import timezone

from config.hot import in_thread
from providers.models import ProviderAccount
from tests.api.conftest import chat

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def outcome(pk):
    """(status, trouble, seconds of rest) of the account."""
    account = ProviderAccount.objects.get(pk=pk)
    rest = (account.cooldown_until - timezone.now()).total_seconds() if account.cooldown_until else 0
    return account.status, account.trouble, rest


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "trouble", "least", "most"),
    [
        ("fault-status-401", "attention", "key_rejected", 25, 30),
        ("fault-status-402", "attention", "no_balance", 590, 600),
        ("fault-status-403", "attention", "forbidden", 0, 0),
        ("fault-status-429", "valid", "rate_limited", 25, 30),
        ("fault-status-429-retry-after-90", "valid", "rate_limited", 85, 90),
        ("fault-status-500", "valid", "upstream_error", 0, 5),
        ("fault-status-503", "valid", "overloaded", 10, 15),
        ("fault-redirect", "attention", "unexpected_redirect", 55, 60),
        ("fault-status-400", "valid", "", 0, 0),
        ("fault-html", "valid", "", 0, 0),
    ],
)
async def test_f9_a_fault_has_the_consequence_of_the_table_and_the_next_good_answer_ends_it(
    door, upstream_account, add_model, fault, status, trouble, least, most, stream
):
    await in_thread(add_model, fault)
    await in_thread(add_model, "echo")
    await door.post(chat(fault, stream=stream))
    found = await in_thread(outcome, upstream_account.pk)
    assert found[:2] == (status, trouble)
    assert least <= found[2] <= most

    answer = await door.post(chat("echo", stream=stream))
    assert answer.status == 200
    assert (await in_thread(outcome, upstream_account.pk)) == ("valid", "", 0)
