"""The first-run link: the one way to become the first administrator through the browser."""

from __future__ import annotations

import hashlib
import secrets

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import models, transaction
from django.utils import timezone


class SetupIsOver(Exception):
    """The link was used, replaced, never existed, or an administrator exists already."""


def needs_setup() -> bool:
    """Whether nobody administers this installation yet."""
    return not get_user_model().objects.filter(is_superuser=True).exists()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class SetupToken(models.Model):
    """At most one row: the hash of the link that is valid now. The link itself is printed once and stored nowhere."""

    THE_ONE = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=THE_ONE, editable=False)
    token_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "setup_tokens"

    def __str__(self) -> str:
        return f"Set-up link of {self.created_at:%Y-%m-%d %H:%M}"

    @classmethod
    def rotate(cls) -> str:
        """A fresh token; the one before is dead. Raises SetupIsOver when an administrator exists."""
        if not needs_setup():
            raise SetupIsOver
        token = secrets.token_urlsafe(32)
        now = timezone.now()
        cls.objects.update_or_create(
            pk=cls.THE_ONE, defaults={"token_hash": _hash(token), "created_at": now, "used_at": None}
        )
        return token

    @classmethod
    def is_open(cls, token: str) -> bool:
        return needs_setup() and cls.objects.filter(token_hash=_hash(token), used_at__isnull=True).exists()

    @classmethod
    def redeem(cls, token: str, *, username: str, email: str, password: str) -> User:
        """Create the first administrator. Of any number of racing callers exactly one succeeds (A5).

        The update of the row decides: it is one compare-and-set, in the transaction that creates the account.
        Raises SetupIsOver for everyone else.
        """
        with transaction.atomic():
            won = cls.objects.filter(token_hash=_hash(token), used_at__isnull=True).update(used_at=timezone.now())
            if won != 1 or not needs_setup():
                raise SetupIsOver
            return get_user_model().objects.create_superuser(username, email, password)
