"""Personal access tokens for `/v1`: how they look, and who holds one (K6).

    sb_<10 characters to look it up>_<32 random characters><6 characters of checksum>

The random part carries 190 bits. The checksum lets a typo, a cut copy or a scanner's guess be refused without the
database. Stored is SHA-256 of the whole token: with that much randomness a slow hash would protect nothing and cost
every request. Compared as bytes and in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from usage.models import ApiToken

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "sb_"
LOOKUP_LENGTH = 10
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
TOKEN_LENGTH = len(PREFIX) + LOOKUP_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

_SHAPE = re.compile(rb"sb_[0-9A-Za-z]{%d}_[0-9A-Za-z]{%d}" % (LOOKUP_LENGTH, SECRET_LENGTH + CHECKSUM_LENGTH))


@dataclass(frozen=True, slots=True)
class TokenParts:
    """What a well-formed token says before anybody looked it up."""

    lookup: str
    hash: str


def generate() -> tuple[str, TokenParts]:
    """A new token in the clear, to be shown once, and the parts to store."""
    body = PREFIX + _random(LOOKUP_LENGTH) + "_" + _random(SECRET_LENGTH)
    token = body + _checksum(body.encode())
    return token, TokenParts(body[len(PREFIX) : len(PREFIX) + LOOKUP_LENGTH], hash_of(token.encode()))


def create(owner: User, name: str, *, expires_at: datetime | None = None) -> tuple[ApiToken, str]:
    """Store a new token of `owner`. Returns the row and the text, which nobody can show again."""
    from usage.models import ApiToken

    text, parts = generate()
    row = ApiToken.objects.create(
        owner=owner,
        name=name.strip()[:80] or "token",
        lookup=parts.lookup,
        token_hash=parts.hash,
        expires_at=expires_at,
    )
    return row, text


def parse(token: bytes) -> TokenParts | None:
    """The parts of a token of ours; None for anything else, without asking the database."""
    if len(token) != TOKEN_LENGTH or not _SHAPE.fullmatch(token):
        return None
    body, checksum = token[:-CHECKSUM_LENGTH], token[-CHECKSUM_LENGTH:].decode()
    if not hmac.compare_digest(_checksum(body), checksum):
        return None
    lookup = token[len(PREFIX) : len(PREFIX) + LOOKUP_LENGTH].decode()
    return TokenParts(lookup, hash_of(token))


def hash_of(token: bytes) -> str:
    """64 hex digits; also the key of every cache that holds something about a token."""
    return hashlib.sha256(token).hexdigest()


def same(stored: str, presented: str) -> bool:
    """Whether two hashes are equal, in constant time."""
    return hmac.compare_digest(stored.encode(), presented.encode())


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: bytes) -> str:
    number, digits = zlib.crc32(body), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
