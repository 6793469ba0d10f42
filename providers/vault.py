"""The vault: seals and opens the secrets of accounts. Nothing else in the product knows what is stored.

    v1.<id of the vault key>.<nonce>.<ciphertext>        AES-256-GCM, base64url without padding

The associated data name what the text is for: purpose, row, owner, origin (scheme://host:port), format version and
key id. A ciphertext that was moved to another row, owner or origin, or damaged, therefore does not open: `Locked`
(K1, I3). `VAULT_KEYS` is a ring, newest first: the newest key seals, every key opens. docs/vault.md says what this
protects against and what not.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables

from providers.clients.errors import ProviderError

if TYPE_CHECKING:
    from providers.models import ProviderAccount

VERSION = "v1"
KEY = "account-key"
HEADERS = "account-headers"
DUPLICATES = "account-key-duplicates"
CHECKS = "account-checks"

MAX_KEY_LENGTH = 2048  # the outbound door refuses longer ones (providers/net.py)
_HINT_LENGTH = 4
_HINT_FROM = 12  # a hint on a shorter key would give away a third of it or more
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class Locked(ProviderError):
    """What is stored does not open in this row, for this owner and origin, with the keys of this server.

    It carries nothing but that. It is a ProviderError (code "locked") so that whoever handles a failed call handles
    this too; no request has left.
    """

    def __init__(self) -> None:
        super().__init__("locked")


class BadKey(ValueError):
    """This cannot be an API key; str() is a sentence for a person and never contains the key."""


# -- The ring --------------------------------------------------------------------------------------------------------


class _Ring:
    """The parsed VAULT_KEYS. Sub-keys are derived once per purpose (HKDF-SHA256) and kept."""

    def __init__(self, masters: dict[str, bytes]) -> None:
        self._masters = masters
        self._ciphers: dict[tuple[str, str], AESGCM] = {}
        self._macs: dict[str, hmac.HMAC] = {}
        self.newest = next(iter(masters))

    def __repr__(self) -> str:
        return f"<vault ring: {', '.join(self._masters)}>"

    def __iter__(self):
        return iter(self._masters)

    def derive(self, key_id: str, purpose: str, length: int = 32) -> bytes:
        """`length` bytes for that purpose alone. Raises KeyError for a key that is not in the ring."""
        info = _frame("switchboard-vault", VERSION, purpose)
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self._masters[key_id])

    def cipher(self, key_id: str, purpose: str) -> AESGCM | None:
        """The cipher for `purpose` under that key, or None when the ring has no such key."""
        if key_id not in self._masters:
            return None
        found = self._ciphers.get((key_id, purpose))
        if found is None:
            found = self._ciphers[key_id, purpose] = AESGCM(self.derive(key_id, purpose))
        return found

    def mac(self, key_id: str) -> hmac.HMAC:
        """A fresh HMAC-SHA256 for finding duplicates: a copy, which costs half of keying it anew."""
        found = self._macs.get(key_id)
        if found is None:
            found = self._macs[key_id] = hmac.new(self.derive(key_id, DUPLICATES), digestmod="sha256")
        return found.copy()


@lru_cache(maxsize=4)
@sensitive_variables()
def _parse(text: str) -> _Ring:
    wanted = (
        "VAULT_KEYS is not a list of vault keys: write id:base64, the newest first, separated by commas, where the "
        "base64 text holds 32 random bytes. Correct it in the environment, in .env or in the file it is kept in."
    )
    masters: dict[str, bytes] = {}
    for item in re.split(r"[,\s]+", text.strip()):
        key_id, colon, encoded = item.partition(":")
        try:
            master = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            master = b""
        if not colon or not _KEY_ID.fullmatch(key_id) or len(master) != 32 or key_id in masters:
            raise ImproperlyConfigured(wanted)
        masters[key_id] = master
    return _Ring(masters)


def ring() -> _Ring:
    """The key ring of this server. Raises ImproperlyConfigured with a sentence that says what to write."""
    return _parse(settings.VAULT_KEYS)


# -- Seal and open ---------------------------------------------------------------------------------------------------


def _frame(*parts: str) -> bytes:
    """The parts as bytes that cannot be read another way: each one behind its length."""
    return b"".join([len(data).to_bytes(4, "big") + data for data in map(str.encode, parts)])


_known_frame = lru_cache(maxsize=1024)(_frame)
"""The same for parts that come again and again. Never for a secret: it would stay in memory."""


def _binding(account: ProviderAccount, purpose: str, key_id: str) -> bytes:
    whose = _known_frame(str(account.owner_id), account.origin)
    return _known_frame(VERSION, key_id, purpose) + _frame(str(account.pk)) + whose


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:  # the reader skips what it does not know; a damaged text must not read as a whole one
        raise ValueError
    return data


@sensitive_variables()
def _seal(account: ProviderAccount, purpose: str, plain: str) -> str:
    keys = ring()
    cipher = keys.cipher(keys.newest, purpose)
    assert cipher is not None
    nonce = os.urandom(_NONCE_BYTES)
    sealed = cipher.encrypt(nonce, plain.encode(), _binding(account, purpose, keys.newest))
    return ".".join((VERSION, keys.newest, _encode(nonce), _encode(sealed)))


@sensitive_variables()
def _open(account: ProviderAccount, purpose: str, text: str) -> str:
    try:
        version, key_id, nonce, sealed = text.split(".")
        cipher = ring().cipher(key_id, purpose)
        if version != VERSION or cipher is None:
            raise ValueError
        return cipher.decrypt(_decode(nonce), _decode(sealed), _binding(account, purpose, key_id)).decode()
    except (ValueError, InvalidTag):
        # Also UnicodeDecodeError, binascii.Error and a base URL that is no URL any more: all ValueErrors.
        raise Locked from None


# -- Keys of accounts ------------------------------------------------------------------------------------------------


@sensitive_variables()
def clean_key(text: str) -> str:
    """`text` without surrounding white space. Raises BadKey for what cannot be sent in a header (S10)."""
    key = text.strip()
    if len(key) > MAX_KEY_LENGTH:
        raise BadKey(f"This is {len(key):,} characters long; a key has at most {MAX_KEY_LENGTH:,}. Copy the key alone.")
    if key and not _VISIBLE.fullmatch(key):
        if any(mark in key for mark in "\r\n\u2028\u2029"):
            raise BadKey("The key contains a line break. Copy it again, as one line.")
        if any(mark.isspace() for mark in key):
            raise BadKey("The key contains a space. Copy it again, without what stands around it.")
        raise BadKey("The key contains a character no key has: only plain letters, digits and signs can be sent.")
    return key


@sensitive_variables()
def hint(plain: str) -> str:
    """The last 4 characters, or nothing for a key so short that they would say too much."""
    return plain[-_HINT_LENGTH:] if len(plain) >= _HINT_FROM else ""


@sensitive_variables()
def key_hash(owner_id: int, provider_id: int | None, plain: str, *, key_id: str = "") -> str:
    """64 hex digits that are equal for equal keys of one owner at one provider, and only then.

    Keyed and bound to the owner: without the vault key nobody can test a guess, and two users' equal keys do not show.
    """
    keys = ring()
    mac = keys.mac(key_id or keys.newest)
    mac.update(_known_frame(VERSION, str(owner_id), str(provider_id)))
    mac.update(_frame(plain))
    return mac.hexdigest()


@sensitive_variables()
def key_hashes(owner_id: int, provider_id: int | None, plain: str) -> list[str]:
    """`key_hash` under every key of the ring, so that a duplicate is found before and after a rotation."""
    return [key_hash(owner_id, provider_id, plain, key_id=key_id) for key_id in ring()]


@sensitive_variables()
def seal_key(account: ProviderAccount, plain: str) -> None:
    """Put `plain` into the account's key columns (ciphertext, keyed hash, hint); saves nothing.

    The account needs its owner, provider and address first: the ciphertext is bound to them. An empty `plain` means
    an account without a key. Raises BadKey.
    """
    plain = clean_key(plain)
    account.api_key_encrypted = _seal(account, KEY, plain) if plain else ""
    account.api_key_hash = key_hash(account.owner_id, account.provider_id, plain)
    account.api_key_hint = hint(plain)


def open_key(account: ProviderAccount) -> str:
    """The account's key in the clear, "" for one without a key. Raises Locked."""
    return _open(account, KEY, account.api_key_encrypted) if account.api_key_encrypted else ""


@sensitive_variables()
def seal_headers(account: ProviderAccount, headers: Mapping[str, str]) -> None:
    """Put extra headers into the account, sealed like the key (their values may be secrets); saves nothing."""
    text = json.dumps(dict(headers), ensure_ascii=False, separators=(",", ":"))
    account.extra_headers_encrypted = _seal(account, HEADERS, text) if headers else ""


@sensitive_variables()
def open_headers(account: ProviderAccount) -> dict[str, str]:
    """The account's extra headers in the clear. Raises Locked."""
    sealed = account.extra_headers_encrypted
    return json.loads(_open(account, HEADERS, sealed)) if sealed else {}


@sensitive_variables()
def mark_of(account: ProviderAccount, *more: str) -> str:
    """64 hex digits that are equal for equal owner, key, headers and `more`, and only then. Nobody else can make them.

    Made with the newest vault key, so it changes with that. Raises Locked.
    """
    keys = ring()
    headers = json.dumps(open_headers(account), sort_keys=True)
    message = _frame(VERSION, str(account.owner_id), open_key(account), headers, *more)
    return hmac.digest(keys.derive(keys.newest, CHECKS), message, "sha256").hex()


def opens(account: ProviderAccount) -> bool:
    """Whether all that is sealed in this account opens. Reads `provider`."""
    try:
        open_key(account)
        open_headers(account)
    except Locked:
        return False
    return True


# -- Rotation --------------------------------------------------------------------------------------------------------


def key_id_of(text: str) -> str:
    """The id of the vault key a stored text names, or "?" for a text that is not of our making."""
    version, _, rest = text.partition(".")
    key_id = rest.partition(".")[0]
    return key_id if version == VERSION and _KEY_ID.fullmatch(key_id) else "?"


@sensitive_variables()
def rotate(account: ProviderAccount) -> bool:
    """Seal what this row holds anew with the newest vault key, and compute its keyed hash with it. False: nothing to do
    or a writer was faster, whose own text is then sealed with the newest key already.

    Raises Locked, and then writes nothing. The write is a compare-and-swap on all that was read, so a key that was
    entered meanwhile is never put back (K2).
    """
    from providers.models import ProviderAccount

    newest = ring().newest
    plain, headers = open_key(account), open_headers(account)
    wanted = {
        "api_key_encrypted": account.api_key_encrypted,
        "extra_headers_encrypted": account.extra_headers_encrypted,
        "api_key_hash": key_hash(account.owner_id, account.provider_id, plain),
    }
    if plain and key_id_of(account.api_key_encrypted) != newest:
        wanted["api_key_encrypted"] = _seal(account, KEY, plain)
    if headers and key_id_of(account.extra_headers_encrypted) != newest:
        text = json.dumps(headers, ensure_ascii=False, separators=(",", ":"))
        wanted["extra_headers_encrypted"] = _seal(account, HEADERS, text)
    found = {name: getattr(account, name) for name in wanted}
    if wanted == found:
        return False
    row = ProviderAccount.objects.filter(pk=account.pk, endpoint_override=account.endpoint_override, **found)
    try:
        with transaction.atomic():
            return bool(row.update(**wanted))
    except IntegrityError:
        # Two rows with one key, which different vault keys had hidden from each other: the other one is found by it.
        wanted["api_key_hash"] = ""
        return wanted != found and bool(row.update(**wanted))
