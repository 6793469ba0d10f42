"""`manage.py sync_models`, beat's tick and the sweep: who is synced, when, and what the shell is told."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from catalog import schedule, sync, tasks
from catalog.models import AggregatorModel, SyncRun
from providers.clients.errors import ProviderUnreachable
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model


def run_command(*args):
    out = StringIO()
    call_command("sync_models", *args, stdout=out, stderr=out)
    return out.getvalue()


def test_a_line_per_account_says_what_happened(account, bobs_account, upstream):
    upstream(listing(model("a"), model("b")))
    first, second = run_command().splitlines()
    assert first.startswith(
        "alice  lister  Alice's key: done; 2 added, 0 gone, 0 back, 0 repriced, 0 changed, 0 unchanged;"
    )
    assert second.startswith("bob  lister  Bob's key: done; 0 added") and "2 unchanged" in second


def test_json_gives_one_object_per_line(account, upstream):
    upstream(listing(model("a"), skipped=1))
    [line] = map(json.loads, run_command("--json").splitlines())
    assert line.pop("seconds") >= 0
    assert line == {
        "account": str(account.pk),
        "label": "Alice's key",
        "provider": "lister",
        "user": "alice",
        "state": "done",
        "added": 1,
        "gone": 0,
        "back": 0,
        "repriced": 0,
        "changed": 0,
        "unchanged": 0,
        "skipped": 1,
        "total": 1,
        "error": "",
    }


@pytest.mark.parametrize(
    ("args", "users"),
    [
        ((), ["alice", "bob"]),
        (("--user", "bob"), ["bob"]),
        (("--provider", "lister"), ["alice", "bob"]),
        (("--account", "Alice's key"), ["alice"]),
    ],
)
def test_filters_choose_the_accounts(args, users, account, bobs_account, upstream):
    upstream(listing(model("a")))
    assert [json.loads(line)["user"] for line in run_command("--json", *args).splitlines()] == users


def test_an_account_may_be_named_by_its_id(account, bobs_account, upstream):
    upstream(listing(model("a")))
    assert [json.loads(x)["user"] for x in run_command("--json", "--account", str(bobs_account.pk)).splitlines()] == [
        "bob"
    ]


def test_a_filter_that_matches_nothing_is_an_error(account):
    with pytest.raises(CommandError, match="No usable account"):
        run_command("--user", "nobody")


def test_no_account_at_all_is_no_failure(db):
    assert "add one in the browser" in run_command()


def test_a_fault_of_ours_with_one_account_leaves_the_others_their_turn(account, bobs_account, upstream):
    upstream(RuntimeError("a bug"), account)
    upstream(listing(model("a")), bobs_account)
    out = StringIO()
    with pytest.raises(CommandError, match=r"1 of 2 accounts failed\."):
        call_command("sync_models", "--json", stdout=out, stderr=out)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["state"], second["state"], second["added"]) == ("failed", "done", 1)
    assert "fault of ours" in first["error"] and "a bug" not in first["error"]


def test_an_account_that_is_being_synced_is_said_to_be(account, upstream):
    upstream(listing(model("a")))
    SyncRun.objects.create(account=account, state="running", started_at=timezone.now())
    assert "Another process is syncing this account." in run_command()


def test_accounts_of_people_who_may_not_sign_in_are_left_alone(account, bobs_account, bob, upstream):
    upstream(listing(model("a")))
    bob.is_active = False
    bob.save()
    assert [json.loads(line)["user"] for line in run_command("--json").splitlines()] == ["alice"]


def test_one_failure_fails_the_command_and_the_others_are_synced(account, bobs_account, upstream):
    upstream(ProviderUnreachable("timeout"), account)
    upstream(listing(model("a")), bobs_account)
    with pytest.raises(CommandError, match=r"1 of 2 accounts failed\."):
        run_command()
    assert AggregatorModel.objects.count() == 1


def test_a_dry_run_says_what_would_change_and_writes_nothing(account, upstream):
    upstream(listing(model("a"), model("b")))
    sync.sync_account(account)
    runs, version = SyncRun.objects.count(), AggregatorModel.objects.get(model_id="a").updated_at
    upstream(listing(model("a", "9", "9"), model("c")))

    [line] = map(json.loads, run_command("--json", "--dry-run").splitlines())

    assert (line["state"], line["added"], line["gone"], line["repriced"]) == ("would_change", 1, 1, 1)
    assert SyncRun.objects.count() == runs
    assert set(AggregatorModel.objects.values_list("model_id", flat=True)) == {"a", "b"}
    assert AggregatorModel.objects.get(model_id="a").updated_at == version

    upstream(listing())
    with pytest.raises(CommandError):
        run_command("--dry-run")


def finished(account, ago):
    when = timezone.now() - ago
    SyncRun.objects.create(account=account, state="done", queued_at=when, started_at=when, finished_at=when)


def test_beat_queues_what_is_due_and_nothing_else(
    provider, alice, upstream, settings, django_capture_on_commit_callbacks
):
    settings.SYNC_INTERVAL = 3600
    upstream(listing(model("a")))
    ages = {
        "never": None,
        "fresh": timedelta(minutes=50),
        "old": timedelta(minutes=67),
        "very old": timedelta(days=3),
    }
    accounts = {}
    for label, age in ages.items():
        accounts[label] = ProviderAccount.objects.create(owner=alice, provider=provider, label=label)
        if age:
            finished(accounts[label], age)
    ProviderAccount.objects.create(owner=alice, provider=provider, label="off", is_active=False)
    ProviderAccount.objects.create(owner=alice, provider=provider, label="rejected", status="invalid")
    closed = Provider.objects.create(name="closed", display_name="C", base_url="http://c.test/v1", is_active=False)
    ProviderAccount.objects.create(owner=alice, provider=closed, label="closed")

    with django_capture_on_commit_callbacks(execute=True):
        assert tasks.sync_due() == 3

    done = SyncRun.objects.filter(trigger="beat")
    assert {run.account.label for run in done} == {"never", "old", "very old"}
    assert not done.filter(finished_at=None).exists()
    with django_capture_on_commit_callbacks(execute=True):
        assert tasks.sync_due() == 0


def test_the_next_sync_is_the_interval_and_a_share_that_is_the_accounts_own(settings, account, bobs_account):
    settings.SYNC_INTERVAL = 1000
    last = timezone.now()
    dues = [schedule.due_after(each.provider, each.pk, last) for each in (account, bobs_account)]
    assert dues == [schedule.due_after(each.provider, each.pk, last) for each in (account, bobs_account)]
    assert dues[0] != dues[1]
    assert all(timedelta(seconds=1000) <= due - last <= timedelta(seconds=1100) for due in dues)


def test_a_provider_may_have_an_interval_of_its_own(
    provider, alice, upstream, settings, django_capture_on_commit_callbacks
):
    settings.SYNC_INTERVAL = 7200
    hasty = Provider.objects.create(
        name="hasty", display_name="H", base_url="http://lister.test/v1", features={"keyless": True}, sync_interval=600
    )
    upstream(listing(model("a")))
    for where, age in ((provider, 30), (provider, 133), (hasty, 9), (hasty, 12)):
        account = ProviderAccount.objects.create(owner=alice, provider=where, label=f"{where.name} {age}")
        finished(account, timedelta(minutes=age))
    with django_capture_on_commit_callbacks(execute=True):
        tasks.sync_due()
    synced = SyncRun.objects.filter(trigger="beat").values_list("account__label", flat=True)
    assert set(synced) == {"lister 133", "hasty 12"}


def test_accounts_that_are_due_at_once_start_at_different_seconds(provider, alice, settings, monkeypatch):
    """Twenty accounts whose syncs ended in the same moment; the tasks wait, and a sweep does not hurry them."""
    started = {}
    monkeypatch.setattr(
        "catalog.tasks.sync_account_task.apply_async", lambda args, countdown: started.update({args[0]: countdown})
    )
    monkeypatch.setattr("catalog.tasks.sync_account_task.delay", lambda run_id: started.update({run_id: 0}))
    monkeypatch.setattr("django.db.transaction.on_commit", lambda call, **kwargs: call())
    for n in range(20):
        account = ProviderAccount.objects.create(owner=alice, provider=provider, label=f"a{n}")
        finished(account, timedelta(days=1))

    assert tasks.sync_due() == 20

    waits = sorted(started.values())
    assert len(waits) == 20 and waits[0] >= 0 and waits[-1] <= 55
    assert len(set(waits)) >= 12, "spread over the minute"
    assert tasks.sync_due() == 0, "what waits is not queued again"
    assert tasks.sweep_queued() == 0


def test_whoever_presses_the_button_does_not_wait_for_beats_turn(account, upstream, django_capture_on_commit_callbacks):
    upstream(listing(model("a")))
    with django_capture_on_commit_callbacks():
        waiting = sync.queue(account, "beat", wait=timedelta(seconds=50))
    assert waiting.queued_at > timezone.now() + timedelta(seconds=40)
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        assert sync.queue(account, "beat", wait=timedelta(seconds=50)) == waiting
        assert sync.queue(account, "button").pk == waiting.pk
    waiting.refresh_from_db()
    assert (waiting.state, waiting.trigger, len(callbacks)) == ("done", "button", 1)


@pytest.mark.parametrize(
    ("change", "is_due"),
    [
        ({}, True),
        ({"is_active": False}, False),
        ({"status": "invalid"}, False),
        ({"status": "locked"}, False),
    ],
)
def test_an_account_says_when_its_next_sync_is(change, is_due, account, settings):
    settings.SYNC_INTERVAL = 3600
    ProviderAccount.objects.filter(pk=account.pk).update(**change)
    account.refresh_from_db()
    now = timezone.now()
    run = SyncRun.objects.create(account=account, state="done", finished_at=now)
    due = schedule.next_run(account, run)
    assert (due is not None) == is_due
    if due:
        assert timedelta(minutes=60) <= due - now <= timedelta(minutes=66)
    run.finished_at = now - timedelta(days=1)
    assert schedule.next_run(account, run) is None, "any moment now"
    assert schedule.next_run(account, None) is None


def test_the_accounts_page_says_when_the_next_sync_is_and_how_far_one_has_come(account, alice_client, settings):
    settings.SYNC_INTERVAL = 6 * 3600
    run = SyncRun.objects.create(account=account, state="done", finished_at=timezone.now())
    page = alice_client.get("/accounts/").content.decode()
    assert "next in 6\xa0hours" in page or "next in 5\xa0hours, 59\xa0minutes" in page
    for state, total, words in (
        ("queued", 0, "Waiting…"),
        ("running", 0, "Reading the list…"),
        ("running", 1805, "Storing 1,805 models…"),
    ):
        SyncRun.objects.filter(pk=run.pk).update(state=state, total=total, finished_at=None)
        assert words in alice_client.get("/accounts/").content.decode()


def test_the_sweep_runs_what_its_task_forgot(account, bobs_account, upstream):  # F28
    upstream(listing(model("a")))
    now = timezone.now()
    lost = SyncRun.objects.create(account=account, queued_at=now - timedelta(seconds=21))
    young = SyncRun.objects.create(account=bobs_account, queued_at=now - timedelta(seconds=5))

    assert tasks.sweep_queued() == 1

    lost.refresh_from_db()
    young.refresh_from_db()
    assert (lost.state, young.state) == ("done", "queued")


def test_a_task_delivered_twice_or_for_a_removed_account_does_nothing(account, upstream):  # F28
    fake = upstream(listing(model("a")))
    run = SyncRun.objects.create(account=account)
    tasks.sync_account_task(str(run.pk))
    tasks.sync_account_task(str(run.pk))
    assert len(fake.etags) == 1
    account.delete()
    tasks.sync_account_task(str(run.pk))
    assert len(fake.etags) == 1 and not SyncRun.objects.exists()
