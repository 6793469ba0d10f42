"""Secrets on their way from the browser: sealed there to a public key of the vault's, opened here (K3).

    v1.<id of the public key>.<ephemeral public key>.<nonce>.<ciphertext>      base64url without padding

Per vault key there is one P-256 key pair (HKDF of the vault key). The browser makes a pair of its own for each form,
agrees (ECDH), derives (HKDF-SHA256) and seals (AES-256-GCM) a JSON document that names the user, the form, the time and
a ticket of ours beside the secrets. A ticket is good for one form of one user, once, for two minutes. The other half
is static/js/elements/sealed-form.js; docs/vault.md says what this stops and what not.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from providers import vault
from providers.models import SealingTicket

if TYPE_CHECKING:
    from providers.models import AnyUser

VERSION = "v1"
CONTEXT = b"switchboard sealed form v1"
PURPOSE = "browser-sealing"

LIFE = timedelta(minutes=2)
"""From the ticket, which the page asks for when the form is sent, to the form's arrival."""

MAX_TICKETS = 20
"""Open tickets per user; the oldest give way."""

MAX_LENGTH = 64 * 1024
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256

RELOAD = "This server's key has changed since the page was loaded. Reload the page, then enter the key again."
DAMAGED = "What the browser encrypted did not arrive whole. Enter the key again."
FOREIGN = "This was encrypted for another user or another form. Reload the page, then enter the key again."
STALE = "This form was sent once already, or took too long to arrive. Enter the key again."


class BadSeal(ValueError):
    """What was sealed is not accepted; str() is a sentence for a person and holds nothing of it."""


@dataclass(frozen=True, repr=False)
class Pair:
    """The key pair that belongs to one vault key. `id` is a fingerprint of the public key."""

    id: str
    private: ec.EllipticCurvePrivateKey
    public: bytes


@lru_cache(maxsize=8)
@sensitive_variables()
def _pair(seed: bytes) -> Pair:
    private = ec.derive_private_key(int.from_bytes(seed, "big") % (_ORDER - 1) + 1, ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    digest = Hash(SHA256())
    digest.update(public)
    return Pair(_encode(digest.finalize()[:12]), private, public)


def _pairs() -> list[Pair]:
    """The pairs of all vault keys, the newest first."""
    ring = vault.ring()
    return [_pair(ring.derive(key_id, PURPOSE, 48)) for key_id in ring]


def offer(user: AnyUser, purpose: str) -> dict[str, Any]:
    """What the browser needs to seal one form: public key, its id, a fresh ticket, and what to name beside it."""
    now = timezone.now()
    mine = SealingTicket.objects.for_user(user)
    mine.filter(created_at__lt=now - LIFE).delete()
    for surplus in mine.order_by("-created_at")[MAX_TICKETS - 1 :]:
        surplus.delete()
    ticket = SealingTicket.objects.create(owner_id=cast(int, user.pk), purpose=purpose)
    newest = _pairs()[0]
    return {
        "version": VERSION,
        "key_id": newest.id,
        "public_key": _encode(newest.public),
        "names": {"user": str(user.pk), "purpose": purpose, "ticket": str(ticket.pk), "at": int(time.time())},
    }


@sensitive_variables()
def unseal(user: AnyUser, purpose: str, text: str) -> dict[str, str]:
    """The fields that were sealed for this form of this user, by name. Uses the ticket up. Raises BadSeal."""
    document = _open(text)
    names, fields = document.get("names"), document.get("fields")
    if not isinstance(names, dict) or not isinstance(fields, dict):
        raise BadSeal(DAMAGED)
    if names.get("user") != str(user.pk) or names.get("purpose") != purpose:
        raise BadSeal(FOREIGN)
    at = names.get("at")
    if not isinstance(at, int) or not time.time() - LIFE.total_seconds() <= at <= time.time() + 60:
        raise BadSeal(STALE)
    if not all(isinstance(value, str) and _is_storable(value) for value in fields.values()):
        raise BadSeal(DAMAGED)
    try:
        ticket = UUID(str(names.get("ticket")))
    except ValueError:
        raise BadSeal(STALE) from None
    tickets = SealingTicket.objects.for_user(user).filter(pk=ticket, purpose=purpose)
    if not tickets.filter(created_at__gte=timezone.now() - LIFE).delete()[0]:  # whoever deletes the row has used it
        raise BadSeal(STALE)
    return fields


def _is_storable(text: str) -> bool:
    """Whether it is text that any part of us can write down: JSON may also hold halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@sensitive_variables()
def _open(text: str) -> dict[str, Any]:
    parts = text.split(".")
    if len(text) > MAX_LENGTH or len(parts) != 5 or parts[0] != VERSION:
        raise BadSeal(DAMAGED)
    _, key_id, *encoded = parts
    pair = next((pair for pair in _pairs() if pair.id == key_id), None)
    if pair is None:
        raise BadSeal(RELOAD)
    try:
        theirs, nonce, sealed = (_decode(part) for part in encoded)
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
        secret = pair.private.exchange(ec.ECDH(), public)
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=CONTEXT + theirs + pair.public).derive(secret)
        document = json.loads(AESGCM(key).decrypt(nonce, sealed, CONTEXT))
    except (ValueError, InvalidTag, RecursionError):
        raise BadSeal(DAMAGED) from None
    if not isinstance(document, dict):
        raise BadSeal(DAMAGED)
    return document


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
