"""catalog.sync: what a list does to the catalog, and what it must never do (I15, I16, F13, F14, F28)."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog import sync
from catalog.models import AccountModel, AggregatorModel, CatalogVersion, ModelChange, SyncRun
from providers import vault
from providers.clients.base import Prices
from providers.clients.errors import ProviderRefused, ProviderUnreachable
from providers.models import ProviderAccount
from tests.catalog.conftest import listing, model


def ids(**filters):
    return set(AggregatorModel.objects.filter(**filters).values_list("model_id", flat=True))


def offers(account):
    return set(AccountModel.objects.filter(account=account).values_list("model__model_id", flat=True))


def history(run):
    return sorted((c.model.model_id, c.kind, c.field, c.before, c.after) for c in run.changes.select_related("model"))


def writes(captured):
    return [q["sql"] for q in captured if q["sql"].split(" ", 1)[0] in ("INSERT", "UPDATE", "DELETE")]


def test_it_works(account, upstream):
    upstream(
        listing(
            model("a/one", "0.27", "0.40", context_window=128_000, max_output_tokens=8_192, capabilities=("tools",)),
            model("a/two", "0", "0"),
            model("a/three", None, None),
            model("a/auto", None, None, prices=Prices(variable=True)),
        )
    )

    run = sync.sync_account(account, trigger="button")

    assert (run.state, run.added, run.total, run.unchanged) == ("done", 4, 4, 0)
    assert run.finished_at and run.trigger == "button"
    one = AggregatorModel.objects.get(model_id="a/one")
    assert (one.price_input, one.price_output) == (Decimal("0.27"), Decimal("0.4"))
    assert (one.context_window, one.max_output_tokens, one.capabilities) == (128_000, 8_192, ["tools"])
    assert dict(AggregatorModel.objects.values_list("model_id", "price_kind")) == {
        "a/one": "known",
        "a/two": "free",
        "a/three": "unknown",
        "a/auto": "variable",
    }
    assert offers(account) == {"a/one", "a/two", "a/three", "a/auto"}
    assert history(run) == [(i, "added", "", None, None) for i in ("a/auto", "a/one", "a/three", "a/two")]


def test_a_second_run_writes_no_model_and_no_history(account, upstream):
    upstream(listing(*(model(f"m{i}", "0.000000333333333333", "1e-7", capabilities=("b", "a")) for i in range(30))))
    sync.sync_account(account)
    version = CatalogVersion.objects.get().version

    with CaptureQueriesContext(
        connection,
    ) as captured:
        run = sync.sync_account(account)

    assert (run.state, run.unchanged, run.added, run.changed) == ("unchanged", 30, 0, 0)
    tables = {sql.split('"')[1] for sql in writes(captured)}
    assert tables == {"catalog_syncrun"}
    assert CatalogVersion.objects.get().version == version
    assert ModelChange.objects.filter(run=run).count() == 0


def test_a_changed_price_is_written_and_remembered(account, upstream):
    upstream(listing(model("m", "1.10", "2"), model("n")))
    sync.sync_account(account)
    upstream(listing(model("m", "1.25", None), model("n")))

    run = sync.sync_account(account)

    assert (run.state, run.repriced, run.unchanged, run.changed) == ("done", 1, 1, 0)
    assert history(run) == [
        ("m", "price", "price_input", "1.1", "1.25"),
        ("m", "price", "price_output", "2", None),
    ]


def test_each_kind_of_change_has_its_line(account, upstream):
    upstream(listing(model("m", context_window=8_000, description="old"), model("d", description="old")))
    sync.sync_account(account)
    upstream(
        listing(
            model(
                "m",
                display_name="Em",
                context_window=16_000,
                capabilities=("vision",),
                retires_at=date(2027, 1, 31),
                successor="m2",
                description="new",
            ),
            model("d", description="new"),
        )
    )

    run = sync.sync_account(account)

    assert (run.changed, run.repriced) == (2, 0)
    assert history(run) == [
        ("m", "capability", "capabilities", [], ["vision"]),
        ("m", "context", "context_window", 8000, 16000),
        ("m", "renamed", "display_name", "M", "Em"),
        ("m", "retirement", "retires_at", None, "2027-01-31"),
        ("m", "retirement", "successor", "", "m2"),
    ]
    assert AggregatorModel.objects.get(model_id="d").description == "new"


def test_a_model_that_left_the_list_is_marked_and_kept_and_may_come_back(account, upstream):
    upstream(listing(model("stays"), model("leaves")))
    sync.sync_account(account)
    pk = AggregatorModel.objects.get(model_id="leaves").pk

    upstream(listing(model("stays")))
    run = sync.sync_account(account)
    gone = AggregatorModel.objects.get(pk=pk)
    assert (run.gone, run.unchanged, history(run)) == (1, 1, [("leaves", "gone", "", None, None)])
    assert gone.missing_since and not gone.is_available
    assert offers(account) == {"stays"}

    again = sync.sync_account(account)
    assert (again.state, again.gone) == ("unchanged", 0)

    upstream(listing(model("stays"), model("leaves", "3", "2")))
    run = sync.sync_account(account)
    back = AggregatorModel.objects.get(pk=pk)
    assert (run.back, run.added, run.repriced) == (1, 0, 1)
    assert history(run) == [("leaves", "back", "", None, None), ("leaves", "price", "price_input", "1", "3")]
    assert back.missing_since is None and back.is_available
    assert offers(account) == {"stays", "leaves"}


def test_a_model_another_live_account_still_lists_is_not_gone(account, bobs_account, upstream, alice, bob):
    upstream(listing(model("both"), model("alices")), account)
    upstream(listing(model("both")), bobs_account)
    sync.sync_account(account)
    run = sync.sync_account(bobs_account)

    assert run.gone == 0 and ids(missing_since=None) == {"both", "alices"}
    assert {m.model_id for m in AggregatorModel.objects.available_to(bob)} == {"both"}
    assert {m.model_id for m in AggregatorModel.objects.available_to(alice)} == {"both", "alices"}

    ProviderAccount.objects.filter(pk=account.pk).update(is_active=False)
    run = sync.sync_account(bobs_account)
    assert run.gone == 1 and ids(missing_since=None) == {"both"}


def test_an_account_that_offers_more_again_gets_it_back_although_its_list_is_the_same(account, bobs_account, upstream):
    def same(etag):
        return listing(not_modified=True) if etag else listing(model("both"), model("alices"), etag='"1"')

    upstream(same, account)
    upstream(listing(model("both")), bobs_account)
    sync.sync_account(account)
    ProviderAccount.objects.filter(pk=account.pk).update(is_active=False)
    sync.sync_account(bobs_account)
    ProviderAccount.objects.filter(pk=account.pk).update(is_active=True)
    account.refresh_from_db()

    run = sync.sync_account(account)

    assert (run.state, run.back) == ("done", 1)


def test_staffs_own_column_survives_a_sync(account, upstream):
    upstream(listing(model("m")))
    sync.sync_account(account)
    AggregatorModel.objects.update(is_featured=True)
    upstream(listing(model("m", "7", "8")))

    sync.sync_account(account)

    row = AggregatorModel.objects.get()
    assert row.is_featured and row.price_input == 7


@pytest.mark.parametrize("models", [[], ["m0", "m1", "m2", "m3", "m4"]])
def test_an_empty_or_halved_list_is_refused_and_changes_nothing(models, account, upstream):  # I16
    upstream(listing(*(model(f"m{i}") for i in range(11))))
    sync.sync_account(account)
    before = list(AggregatorModel.objects.order_by("pk").values())
    upstream(listing(*(model(i, "9", "9") for i in models)))

    run = sync.sync_account(account)

    assert run.state == "refused"
    assert run.error_code == ("halved_list" if models else "empty_list")
    assert ("5 models where there were 11" in run.error_message) == bool(models)
    assert list(AggregatorModel.objects.order_by("pk").values()) == before
    assert len(offers(account)) == 11 and run.changes.count() == 0


def test_half_is_plausible_and_so_is_anything_when_there_were_few(account, upstream):
    upstream(listing(*(model(f"m{i}") for i in range(10))))
    sync.sync_account(account)
    upstream(listing(*(model(f"m{i}") for i in range(5))))
    assert sync.sync_account(account).gone == 5
    upstream(listing(model("m0")))
    assert sync.sync_account(account).gone == 4


def test_force_accepts_a_halved_list_but_never_an_empty_one(account, upstream):
    upstream(listing(*(model(f"m{i}") for i in range(30))))
    sync.sync_account(account)
    upstream(listing(model("m0")))
    assert sync.sync_account(account, force=True).gone == 29
    upstream(listing())
    assert sync.sync_account(account, force=True).state == "refused"


def test_repeated_ids_land_once_and_ids_that_differ_by_case_are_different(account, upstream):  # F13
    upstream(listing(model("DeepSeek-V3", "1", "1"), model("deepseek-v3", "2", "2"), model("deepseek-v3", "9", "9")))

    run = sync.sync_account(account)

    assert (run.added, run.total) == (2, 2)
    assert dict(AggregatorModel.objects.values_list("model_id", "price_input")) == {"DeepSeek-V3": 1, "deepseek-v3": 2}


@pytest.mark.parametrize("bad", ["", "x" * 301, "a\x00b", "a\u202eb", "\ud800", "a\nb", " a"])
def test_an_id_that_cannot_be_kept_is_skipped_and_the_rest_lands(bad, account, upstream):  # F13
    upstream(listing(model(bad, display_name="bad"), model("good"), skipped=2))

    run = sync.sync_account(account)

    assert (run.added, run.skipped) == (1, 3)
    assert ids() == {"good"}


def test_hostile_text_is_cleaned_by_rule_and_html_stays_text(account, upstream):
    upstream(
        listing(
            model(
                "m",
                display_name="  Ev\u202eil\x00\n \u2066<b>Name</b>\ufeff  👩\u200d💻 ",
                description="<script>alert(1)</script>\r\nline\x07 two\ud83d",
                raw_pricing={"nan": float("nan"), "big": 10**400, "s": "a\x00b", "d": Decimal("1E-7")},
                capabilities=("to\u202eols", "tools", ""),
            ),
            model("n", display_name="\u202e\x00"),
            model("o", display_name="y" * 5_000, description="z" * 50_000, raw_pricing={"k": ["w" * 400] * 100}),
        )
    )

    sync.sync_account(account)

    m, n, o = AggregatorModel.objects.order_by("model_id")
    assert m.display_name == "Evil <b>Name</b> 👩\u200d💻"
    assert m.description == "<script>alert(1)</script>\nline two"
    assert m.pricing == {"nan": "nan", "big": ("1" + "0" * 400)[:60], "s": "ab", "d": "0.0000001"}
    assert m.capabilities == ["tools"]
    assert n.display_name == "n"
    assert (len(o.display_name), len(o.description), o.pricing) == (300, 4_000, {})
    assert sync.sync_account(account).state == "unchanged"


@pytest.mark.parametrize(
    "price", [Decimal(-1), Decimal("NaN"), Decimal("Infinity"), Decimal("1e999"), Decimal("-0.000001"), 1.5, True, "1"]
)
def test_a_number_that_is_no_price_is_unknown_even_if_a_client_lets_it_through(price, account, upstream):  # M2
    upstream(listing(model("m", prices=Prices(input=price, output=Decimal(2), request=price)), model("n")))

    run = sync.sync_account(account)

    m = AggregatorModel.objects.get(model_id="m")
    assert (run.added, m.price_input, m.price_output, m.price_request) == (2, None, 2, None)


@pytest.mark.parametrize("count", [0, -5, True, 10**30, "128000", 1.5])
def test_a_count_that_is_no_count_is_unknown(count, account, upstream):
    upstream(listing(model("m", context_window=count, max_output_tokens=count)))
    sync.sync_account(account)
    m = AggregatorModel.objects.get()
    assert (m.context_window, m.max_output_tokens) == (None, None)


def test_a_provider_error_ends_in_the_run_and_changes_nothing(account, upstream):
    upstream(listing(model("m")))
    sync.sync_account(account)
    upstream(ProviderUnreachable("timeout"))

    run = sync.sync_account(account)

    account.refresh_from_db()
    assert (run.state, run.error_code) == ("failed", "timeout")
    assert "did not answer in time" in run.error_message
    assert account.status == ProviderAccount.Status.UNVERIFIED
    assert ids(is_available=True) == {"m"} and offers(account) == {"m"}


def test_a_rejected_key_asks_for_its_owner_by_the_table_of_all_calls(account, upstream):
    upstream(ProviderRefused("key_rejected", status=401))

    run = sync.sync_account(account)

    account.refresh_from_db()
    assert (run.state, run.error_code) == ("failed", "key_rejected")
    assert account.status == ProviderAccount.Status.ATTENTION and "rejected" in account.status_reason
    assert account.trouble == "key_rejected" and account.cooldown_until is not None


def test_a_key_that_does_not_open_sends_nothing(account, monkeypatch):  # F26
    def locked(self):
        raise vault.Locked

    monkeypatch.setattr(ProviderAccount, "client", locked)

    run = sync.sync_account(account)

    account.refresh_from_db()
    assert (run.state, run.error_code) == ("failed", "locked")
    assert account.status == ProviderAccount.Status.LOCKED


def test_an_account_that_is_switched_off_is_not_asked(account, upstream):
    fake = upstream(listing(model("m")))
    ProviderAccount.objects.update(is_active=False)

    run = sync.sync_account(account)

    assert (run.state, run.error_code, fake.etags) == ("failed", "switched_off", [])


def test_our_own_fault_is_recorded_and_raised(account, upstream):
    upstream(RuntimeError("a bug"))
    with pytest.raises(RuntimeError):
        sync.sync_account(account)
    run = SyncRun.objects.get()
    assert (run.state, run.error_code) == ("failed", "internal")
    assert "a bug" not in run.error_message


def test_the_etag_of_the_last_list_is_sent_and_304_means_unchanged(account, upstream):
    fake = upstream(lambda etag: listing(not_modified=True) if etag else listing(model("m"), etag='W/"7"'))
    sync.sync_account(account)

    run = sync.sync_account(account)
    third = sync.sync_account(account)

    assert fake.etags == ["", 'W/"7"', 'W/"7"']
    assert (run.state, run.total, run.unchanged) == ("unchanged", 1, 1)
    assert third.state == "unchanged"


def test_the_etag_is_forgotten_when_the_rules_or_the_address_change(account, upstream, monkeypatch):
    fake = upstream(listing(model("m"), etag='"7"'))
    sync.sync_account(account)
    monkeypatch.setattr("catalog.reading.RULES", "other")
    sync.sync_account(account)
    account.endpoint_override = "http://lister.test/v2"
    account.save()
    sync.sync_account(account)
    sync.sync_account(account, force=True)
    assert fake.etags == ["", "", "", ""]


def test_a_refused_list_leaves_no_etag_behind(account, upstream):
    upstream(listing(*(model(f"m{i}") for i in range(20)), etag='"good"'))
    sync.sync_account(account)
    upstream(listing(model("m0"), etag='"bad"'))
    assert sync.sync_account(account).state == "refused"
    fake = upstream(listing(model("m0")))
    sync.sync_account(account)
    assert fake.etags == ['"good"']


def test_304_that_nobody_asked_for_is_a_broken_answer(account, upstream):
    upstream(listing(not_modified=True))
    run = sync.sync_account(account)
    assert (run.state, run.error_code) == ("failed", "unexpected_content")


def test_an_account_at_another_address_cannot_write_what_others_see(account, bobs_account, upstream, bob):
    upstream(listing(model("m", "1", "2")), account)
    sync.sync_account(account)
    bobs_account.endpoint_override = "http://bobs-own-server.test/v1"
    bobs_account.save()
    upstream(listing(model("m", "999", "999", display_name="Hacked"), model("bobs-invention")), bobs_account)

    run = sync.sync_account(bobs_account)

    m = AggregatorModel.objects.get()
    assert (m.model_id, m.display_name, m.price_input, m.missing_since) == ("m", "M", 1, None)
    assert (run.state, run.skipped, run.repriced) == ("done", 1, 0)
    assert {x.model_id for x in AggregatorModel.objects.available_to(bob)} == {"m"}

    bobs_account.provider.features["mirrors"] = ["http://bobs-own-server.test:80"]
    bobs_account.provider.save()
    assert sync.sync_account(bobs_account).added == 1


# -- The lock (F28) --------------------------------------------------------------------------------------------------


def test_a_queued_run_is_the_one_that_is_carried_out(account, upstream, django_capture_on_commit_callbacks):
    upstream(listing(model("m")))
    with django_capture_on_commit_callbacks() as callbacks:
        queued = sync.queue(account, "beat")
        assert sync.queue(account, "button") == queued
    assert len(callbacks) == 1

    run = sync.sync_account(account)

    assert (run.pk, run.state, run.trigger) == (queued.pk, "done", "beat")
    assert SyncRun.objects.count() == 1


def test_a_running_sync_is_left_alone(account, upstream):
    fake = upstream(listing(model("m")))
    running = SyncRun.objects.create(account=account, state="running", started_at=timezone.now())

    run = sync.sync_account(account)

    assert run == running and run.state == "running" and fake.etags == []


def test_a_run_of_a_dead_process_is_taken_over_after_ten_minutes(account, upstream):
    upstream(listing(model("m")))
    dead = SyncRun.objects.create(
        account=account, state="running", started_at=timezone.now() - timedelta(minutes=10, seconds=1)
    )
    run = sync.sync_account(account)
    assert (run.pk, run.state) == (dead.pk, "done")


def test_a_process_that_was_taken_over_writes_nothing(account, upstream, monkeypatch):  # I15
    fake = upstream(listing(model("late")))

    def slow_client(self):
        SyncRun.objects.update(started_at=timezone.now() + timedelta(seconds=1))  # someone else claims it meanwhile
        return fake

    monkeypatch.setattr(ProviderAccount, "client", slow_client)

    run = sync.sync_account(account)

    assert fake.etags == [""]
    assert run.state == "running" and ids() == set() and offers(account) == set()


def test_an_account_removed_during_its_sync_leaves_nothing(account, upstream, monkeypatch):  # F28
    fake = upstream(listing(model("late")))

    def removed(self):
        ProviderAccount.objects.filter(pk=account.pk).delete()
        return fake

    monkeypatch.setattr(ProviderAccount, "client", removed)

    run = sync.sync_account(account)

    assert (run.state, run.error_code) == ("failed", "removed")
    assert ids() == set() and not SyncRun.objects.exists()
