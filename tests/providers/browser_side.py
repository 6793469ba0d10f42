"""What static/js/elements/sealed-form.js does, in Python: asks for an offer and seals fields to it."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ADD = "add-account"
CONTEXT = b"switchboard sealed form v1"


def ask(client: Any, purpose: str = ADD) -> dict[str, Any]:
    response = client.post("/accounts/sealing/", {"purpose": purpose})
    assert response.status_code == 200, response.content
    return response.json()


def seal(offer: dict[str, Any], **fields: str) -> str:
    return seal_document(offer, {"names": offer["names"], "fields": fields})


def seal_document(offer: dict[str, Any], document: Any) -> str:
    theirs = _decode(offer["public_key"])
    private = ec.generate_private_key(ec.SECP256R1())
    ours = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs))
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=CONTEXT + ours + theirs).derive(shared)
    nonce = os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, json.dumps(document).encode(), CONTEXT)
    return ".".join((offer["version"], offer["key_id"], _encode(ours), _encode(nonce), _encode(sealed)))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
