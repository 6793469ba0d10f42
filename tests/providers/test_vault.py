"""The vault: what is sealed opens only where it was sealed (K1, I3), and a wrong ring locks instead of breaking (F30)."""

from __future__ import annotations

import base64
import pickle
import traceback

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import vault
from providers.models import Provider, ProviderAccount

KEY = "sk-SENTINEL-0123456789abcdef"
K1 = "k1:" + base64.b64encode(b"1" * 32).decode()
K2 = "k2:" + base64.b64encode(b"2" * 32).decode()
WRONG_K1 = "k1:" + base64.b64encode(b"9" * 32).decode()


@pytest.fixture(autouse=True)
def ring(settings):
    settings.VAULT_KEYS = K1


def account(**columns) -> ProviderAccount:
    provider = Provider(pk=columns.pop("provider_id", 7), base_url=columns.pop("base_url", "https://a.example/v1"))
    return ProviderAccount(**{"owner_id": 3, "provider": provider, **columns})


def sealed() -> ProviderAccount:
    made = account()
    vault.seal_key(made, KEY)
    return made


def test_a_key_opens_where_it_was_sealed_and_its_text_says_with_which_vault_key():
    made = sealed()

    version, key_id, nonce, ciphertext = made.api_key_encrypted.split(".")
    assert (version, key_id) == ("v1", "k1")
    assert len(vault._decode(nonce)) == 12
    assert len(vault._decode(ciphertext)) == len(KEY) + 16  # GCM's tag
    assert vault.open_key(made) == KEY
    assert vault.opens(made)


def test_each_seal_has_a_fresh_nonce():
    texts = set()
    for _ in range(200):
        made = sealed()
        texts.add(made.api_key_encrypted.split(".")[2])
    assert len(texts) == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"owner_id": 4},
        {"base_url": "http://a.example/v1"},
        {"base_url": "https://b.example/v1"},
        {"base_url": "https://a.example:8443/v1"},
        {"endpoint_override": "https://a.example.evil.example/v1"},
        {},  # another row: a new primary key
    ],
)
def test_K1_a_ciphertext_moved_to_another_row_owner_or_origin_is_locked(elsewhere):
    made = sealed()
    same = {"id": made.pk} if elsewhere else {}
    thief = account(**same, **elsewhere)
    thief.api_key_encrypted = made.api_key_encrypted

    with pytest.raises(vault.Locked):
        vault.open_key(thief)
    assert not vault.opens(thief)


def test_K1_the_same_row_owner_and_origin_still_open_it_with_another_path():
    made = sealed()
    moved = account(id=made.pk, base_url="https://A.example:443/other/v2")
    moved.api_key_encrypted = made.api_key_encrypted
    assert vault.open_key(moved) == KEY


def test_K1_sealed_headers_are_no_key_and_a_key_is_no_headers():
    made = sealed()
    vault.seal_headers(made, {"APP-Code": "ABCD1234"})
    made.api_key_encrypted, made.extra_headers_encrypted = made.extra_headers_encrypted, made.api_key_encrypted

    with pytest.raises(vault.Locked):
        vault.open_key(made)
    with pytest.raises(vault.Locked):
        vault.open_headers(made)


def test_K1_every_single_damaged_character_locks_it():
    made = sealed()
    text = made.api_key_encrypted
    for position in range(len(text)):
        for replacement in ("A", "~", ""):
            damaged = text[:position] + replacement + text[position + 1 :]
            if damaged == text:
                continue
            made.api_key_encrypted = damaged
            with pytest.raises(vault.Locked):
                vault.open_key(made)


@pytest.mark.parametrize(
    "text", ["x", "v1", "v1.k1.AAAA", "v1.k1..", "v2.k1.AAAA.AAAA", "v1.k1.A.B", "v1.k1.é.é", "...", "\x00"]
)
def test_K1_what_was_never_sealed_is_locked(text):
    made = account(api_key_encrypted=text)
    with pytest.raises(vault.Locked):
        vault.open_key(made)


def test_K1_parts_cannot_be_read_another_way():
    assert vault._frame("ab", "c") != vault._frame("a", "bc")
    assert vault._frame("a", "") != vault._frame("a")
    assert vault._frame("1", "11") != vault._frame("11", "1")


def test_K2_the_newest_key_seals_and_every_key_of_the_ring_opens(settings):
    made = sealed()
    settings.VAULT_KEYS = f"{K2},{K1}"

    assert vault.open_key(made) == KEY
    vault.seal_key(made, KEY)
    assert made.api_key_encrypted.startswith("v1.k2.")
    settings.VAULT_KEYS = K2
    assert vault.open_key(made) == KEY


def test_F30_a_missing_or_wrong_vault_key_locks_and_touches_nothing(settings):
    made = sealed()
    before = made.api_key_encrypted
    for wrong in (K2, WRONG_K1):
        settings.VAULT_KEYS = wrong
        with pytest.raises(vault.Locked):
            vault.open_key(made)
        assert made.api_key_encrypted == before
    settings.VAULT_KEYS = K1
    assert vault.open_key(made) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k1",
        "k1:",
        ":" + base64.b64encode(b"1" * 32).decode(),
        "k1:" + base64.b64encode(b"1" * 31).decode(),
        "k1:" + base64.b64encode(b"1" * 33).decode(),
        "k1:not base64!",
        "k.1:" + base64.b64encode(b"1" * 32).decode(),
        f"{K1},{WRONG_K1}",
    ],
)
def test_a_malformed_ring_stops_with_a_sentence_that_quotes_no_key(settings, text):
    settings.VAULT_KEYS = text
    with pytest.raises(ImproperlyConfigured) as caught:
        vault.ring()
    assert "write id:base64, the newest first" in str(caught.value)
    assert "MTEx" not in str(caught.value)  # base64 of 111…
    assert "MTEx" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", [f"{K1} {K2}", f"{K1},{K2}", f"{K1}\n{K2}\n", f"  {K1} , {K2} "])
def test_a_ring_may_be_written_with_commas_or_lines(settings, text):
    settings.VAULT_KEYS = text
    assert list(vault.ring()) == ["k1", "k2"]
    assert vault.ring().newest == "k1"


def test_the_ring_shows_ids_and_no_key():
    assert repr(vault.ring()) == "<vault ring: k1>"


# -- Key rules (S10) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("sk-abc", "sk-abc"),
        ("  sk-abc\n", "sk-abc"),
        ("\u00a0sk-abc\u00a0", "sk-abc"),
        ("!~", "!~"),
        ("", ""),
        ("a" * 2048, "a" * 2048),
    ],
)
def test_S10_surrounding_white_space_is_cut_and_visible_ascii_is_kept(typed, kept):
    assert vault.clean_key(typed) == kept


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("sk-SENT\ninel", "line break"),
        ("sk-SENT\r\ninel", "line break"),
        ("sk-SENT\u2028inel", "line break"),
        ("sk-SENT\u00a0inel", "contains a space"),
        ("sk-SENT inel", "contains a space"),
        ("sk-SENT\tinel", "contains a space"),
        ("sk-SENT\x00inel", "a character no key has"),
        ("sk-SENT\x7finel", "a character no key has"),
        ("sk-SENTïnel", "a character no key has"),
        ("sk-SENT\u200binel", "a character no key has"),
        ("k" * 2049, "2,049 characters long"),
        ("k" * 10_000, "10,000 characters long"),
    ],
)
def test_S10_what_cannot_be_sent_in_a_header_is_refused_with_a_sentence(typed, sentence):
    with pytest.raises(vault.BadKey) as caught:
        vault.clean_key(typed)
    assert sentence in str(caught.value)
    assert "SENT" not in str(caught.value)


def test_S10_the_outbound_door_takes_every_key_the_vault_takes():
    from providers import net

    longest = "k" * vault.MAX_KEY_LENGTH
    assert net.check_key(longest) == longest
    net.check_header_value(f"Bearer {longest}")


@pytest.mark.parametrize(
    ("key", "hint"),
    [("sk-or-v1-abcdef3f9a", "3f9a"), ("123456789012", "9012"), ("12345678901", ""), ("abcd", ""), ("", "")],
)
def test_the_hint_is_the_last_four_and_nothing_for_a_short_key(key, hint):
    made = account()
    vault.seal_key(made, key)
    assert made.api_key_hint == hint


def test_an_account_without_a_key_has_no_ciphertext_and_opens_as_empty():
    made = account()
    vault.seal_key(made, "")
    assert made.api_key_encrypted == ""
    assert vault.open_key(made) == ""


# -- The keyed hash --------------------------------------------------------------------------------------------------


def test_the_keyed_hash_is_equal_for_one_owner_and_provider_only(settings):
    here = vault.key_hash(3, 7, KEY)
    assert len(here) == 64
    assert here == vault.key_hash(3, 7, KEY)
    assert len({here, vault.key_hash(4, 7, KEY), vault.key_hash(3, 8, KEY), vault.key_hash(3, 7, KEY + "x")}) == 4
    assert vault.key_hash(1, 11, KEY) != vault.key_hash(11, 1, KEY)
    settings.VAULT_KEYS = WRONG_K1
    assert vault.key_hash(3, 7, KEY) != here


def test_a_duplicate_is_found_after_the_ring_got_a_new_key(settings):
    stored = vault.key_hash(3, 7, KEY)
    settings.VAULT_KEYS = f"{K2},{K1}"
    assert vault.key_hash(3, 7, KEY) != stored
    assert stored in vault.key_hashes(3, 7, KEY)


# -- Nothing leaks from what the vault raises (K4) --------------------------------------------------------------------


def test_K4_locked_carries_nothing():
    made = sealed()
    made.owner_id = 99
    with pytest.raises(vault.Locked) as caught:
        vault.open_key(made)
    said = f"{caught.value!r} {caught.value} {caught.value.public_message} {caught.value.__dict__}"
    said += "".join(traceback.format_exception(caught.value))
    assert made.api_key_encrypted not in said
    assert "SENTINEL" not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert caught.value.code == "locked"


def test_K4_an_account_shows_no_secret_in_repr_and_its_pickle_holds_no_plain_key():
    made = sealed()
    assert "SENTINEL" not in repr(made)
    assert b"SENTINEL" not in pickle.dumps(made)


def test_extra_headers_come_back_as_they_were_and_are_not_readable_at_rest():
    made = account()
    vault.seal_headers(made, {"APP-Code": "sk-SENTINEL-header", "X-Über": "1"})
    assert "SENTINEL" not in made.extra_headers_encrypted
    assert vault.open_headers(made) == {"APP-Code": "sk-SENTINEL-header", "X-Über": "1"}
    vault.seal_headers(made, {})
    assert made.extra_headers_encrypted == ""
