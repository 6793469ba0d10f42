"""Vault keys are changed while everything runs: killed, repeated, raced by writers, past damaged rows (K2, F30)."""

from __future__ import annotations

import base64
import os
import signal
import threading

import pytest
from django.core.management import call_command
from django.db import connection, connections

from config import crash
from providers import rotation, vault
from providers.models import ProviderAccount

from .conftest import account_of

pytestmark = pytest.mark.slow

K1 = "k1:" + base64.b64encode(b"1" * 32).decode()
K2 = "k2:" + base64.b64encode(b"2" * 32).decode()


def key(n: int) -> str:
    return f"sk-number-{n:04d}-abcdefgh"


@pytest.fixture
def accounts(alice, bob, router, local, settings) -> list[ProviderAccount]:
    """Seven accounts sealed with k1, one with headers, one keyless; then k2 became the newest."""
    settings.VAULT_KEYS = K1
    made = [account_of((alice, bob)[n % 2], router, key(n), label=f"No. {n}") for n in range(6)]
    vault.seal_headers(made[0], {"X-Team": "blue"})
    made[0].save()
    made.append(account_of(alice, local, ""))
    settings.VAULT_KEYS = f"{K2},{K1}"
    return made


def fresh(account):
    return ProviderAccount.objects.select_related("provider").get(pk=account.pk)


def run(capsys, command, *arguments):
    """(exit code, what it printed)"""
    try:
        call_command(command, *arguments)
    except SystemExit as exc:
        return exc.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_after_a_rotation_the_old_key_can_go(accounts, capsys, settings):
    code, said = run(capsys, "verify_vault")
    assert code == 0
    assert "k2: 0 sealed texts (newest)" in said
    assert "k1: 7 sealed texts (still needed; run rotate_vault)" in said  # six keys and one set of headers
    assert "7 of 7 accounts open." in said

    _, said = run(capsys, "rotate_vault", "--batch", "3")
    assert "7 of 7 accounts were sealed anew with k2." in said
    code, said = run(capsys, "verify_vault")
    assert "k2: 7 sealed texts (newest)" in said
    assert "k1: 0 sealed texts (no longer needed)" in said

    settings.VAULT_KEYS = K2
    assert run(capsys, "verify_vault")[0] == 0
    for n, account in enumerate(accounts[:6]):
        assert vault.open_key(fresh(account)) == key(n)
    assert vault.open_headers(fresh(accounts[0])) == {"X-Team": "blue"}


def test_the_keyed_hashes_follow_so_duplicates_are_still_found(accounts, alice, router, local, settings):
    list(rotation.rotate())
    settings.VAULT_KEYS = K2
    for n, account in enumerate(accounts[:6]):
        assert fresh(account).api_key_hash == vault.key_hash(account.owner_id, router.pk, key(n))
        assert fresh(account).api_key_hint == "efgh"
    assert fresh(accounts[6]).api_key_hash == vault.key_hash(alice.pk, local.pk, ""), "keyless accounts are one, too"


def test_a_second_run_writes_nothing(accounts, capsys, django_assert_num_queries):
    list(rotation.rotate())
    before = list(ProviderAccount.objects.order_by("pk").values())
    with django_assert_num_queries(4):  # the batch, its savepoint and release, and the look for another batch
        list(rotation.rotate())
    assert list(ProviderAccount.objects.order_by("pk").values()) == before
    assert "0 of 7 accounts were sealed anew" in run(capsys, "rotate_vault")[1]


def test_K1_a_damaged_row_stays_locked_and_everything_else_goes_on(accounts, capsys):
    damaged, moved = accounts[1], accounts[3]
    text = damaged.api_key_encrypted[:-4] + "AAAA"
    ProviderAccount.objects.filter(pk=damaged.pk).update(api_key_encrypted=text)
    ProviderAccount.objects.filter(pk=moved.pk).update(api_key_encrypted=accounts[5].api_key_encrypted)

    code, said = run(capsys, "rotate_vault")
    assert code == 0
    assert "5 of 7 accounts were sealed anew with k2." in said
    assert "2 did not open and stay locked" in said
    assert fresh(damaged).api_key_encrypted == text, "nothing is overwritten"
    code, said = run(capsys, "verify_vault")
    assert code == 1
    assert f"locked: account {damaged.pk}" in said
    assert f"locked: account {moved.pk}" in said
    assert "5 of 7 accounts open." in said


def test_F30_with_the_old_key_missing_nothing_is_touched_and_verify_says_which_key_is_wanted(
    accounts, capsys, settings
):
    settings.VAULT_KEYS = K2
    before = list(ProviderAccount.objects.order_by("pk").values_list("api_key_encrypted", "extra_headers_encrypted"))
    run(capsys, "rotate_vault")
    after = list(ProviderAccount.objects.order_by("pk").values_list("api_key_encrypted", "extra_headers_encrypted"))
    assert after == before
    code, said = run(capsys, "verify_vault")
    assert code == 1
    assert "k1: 7 sealed texts (not in VAULT_KEYS)" in said
    assert "1 of 7 accounts open." in said  # the one without a key


def test_a_text_that_is_none_of_ours_is_counted_as_damaged(accounts, capsys):
    ProviderAccount.objects.filter(pk=accounts[2].pk).update(api_key_encrypted="gAAAAAB-fernet")
    code, said = run(capsys, "verify_vault")
    assert code == 1
    assert "?: 1 sealed texts (damaged)" in said


def test_two_rows_with_one_key_that_different_vault_keys_hid_both_survive(alice, router, settings):
    settings.VAULT_KEYS = K1
    first = account_of(alice, router, key(1))
    settings.VAULT_KEYS = f"{K2},{K1}"
    second = account_of(alice, router, key(1))  # the form refuses this; two requests at once may slip through
    list(rotation.rotate())
    settings.VAULT_KEYS = K2
    assert vault.open_key(fresh(first)) == vault.open_key(fresh(second)) == key(1)
    assert sorted([fresh(first).api_key_hash, fresh(second).api_key_hash]) == [
        "",
        vault.key_hash(alice.pk, router.pk, key(1)),
    ]
    assert [step.rotated for step in rotation.rotate()] == [0]


def test_a_new_vault_key_has_an_id_that_was_never_used(accounts, capsys, settings):
    said = run(capsys, "rotate_vault", "--new-key")[1].strip()
    assert said.startswith("k3:")
    settings.VAULT_KEYS = f"{said},{K2},{K1}"
    assert vault.ring().newest == "k3"
    assert len(base64.b64decode(said[3:])) == 32
    assert ProviderAccount.objects.filter(api_key_encrypted__startswith="v1.k1.").count() == 6, "it only printed"


# -- Writers meanwhile -----------------------------------------------------------------------------------------------


def test_K2_a_key_entered_between_reading_and_writing_a_row_wins(accounts, settings):
    mine = fresh(accounts[0])
    entered = fresh(accounts[0])
    vault.seal_key(entered, "sk-entered-meanwhile-0001")
    entered.save()

    assert vault.rotate(mine) is False
    assert vault.open_key(fresh(mine)) == "sk-entered-meanwhile-0001"


def test_K2_an_account_removed_between_reading_and_writing_stays_removed(accounts):
    mine = fresh(accounts[0])
    ProviderAccount.objects.filter(pk=mine.pk).delete()
    assert vault.rotate(mine) is False
    assert not ProviderAccount.objects.filter(pk=mine.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_K2_writers_on_another_connection_lose_nothing_while_rotations_run(accounts):
    """One connection rotates to and fro, another one replaces keys: at the end each row holds the last key entered."""
    entered: dict = {}
    over = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for n in range(60):
                account = fresh(accounts[n % 6])
                vault.seal_key(account, f"sk-entered-{n:04d}-abcdefgh")
                account.save(update_fields=["api_key_encrypted", "api_key_hash", "api_key_hint"])
                entered[account.pk] = f"sk-entered-{n:04d}-abcdefgh"
        except BaseException as exc:
            failures.append(exc)
        finally:
            over.set()
            connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    while not over.is_set() or rounds < 2:
        # Put every row on the old key again, as a process that has not heard of the new one would.
        for account in ProviderAccount.objects.select_related("provider"):
            before, plain = account.api_key_encrypted, vault.open_key(account)
            if plain:
                again = vault_text_with_k1(account, plain)
                ProviderAccount.objects.filter(pk=account.pk, api_key_encrypted=before).update(api_key_encrypted=again)
        list(rotation.rotate(batch=2))
        rounds += 1
    writer.join(30)
    assert failures == []
    list(rotation.rotate())
    assert rotation.census().by_key == {"k2": 7}
    assert {
        pk: vault.open_key(ProviderAccount.objects.select_related("provider").get(pk=pk)) for pk in entered
    } == entered


def vault_text_with_k1(account, plain: str) -> str:
    """What a process with the old ring would store."""
    cipher = vault._parse(K1).cipher("k1", vault.KEY)
    nonce = os.urandom(12)
    sealed = cipher.encrypt(nonce, plain.encode(), vault._binding(account, vault.KEY, "k1"))
    return f"v1.k1.{vault._encode(nonce)}.{vault._encode(sealed)}"


# -- Killed ----------------------------------------------------------------------------------------------------------


def rotate_and_die_at(label: str, batch: int) -> bool:
    """Rotate in a child process that kills itself at that place. True if it did."""
    connections.close_all()
    if hasattr(connection, "close_pool"):
        connection.close_pool()  # a child must not share the parent's sockets
    pid = os.fork()
    if pid == 0:
        crash.armed = label
        try:
            list(rotation.rotate(batch))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("label", "kept"), [("vault.in_batch", 0), ("vault.after_batch", 2)])
def test_K2_a_rotation_killed_half_way_goes_on_where_it_stopped(accounts, capsys, label, kept):
    assert rotate_and_die_at(label, batch=2)
    for n, account in enumerate(accounts[:6]):
        assert vault.open_key(fresh(account)) == key(n), "every key opens in between"
    done = list(rotation.rotate(batch=2))[-1]
    assert (done.seen, done.rotated, done.locked) == (7, 7 - kept, 0)
    assert rotation.census().by_key == {"k2": 7}
