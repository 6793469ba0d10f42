"""Whose rows are they? The rules of ownership, one queryset each: every look-up of a page, task or API starts here.

What another user owns answers like what does not exist (I2). Models that hang on an owned row ask that row's model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

    AnyUser = AbstractBaseUser | AnonymousUser

_Row = TypeVar("_Row", bound=models.Model)


class OwnedQuerySet(models.QuerySet[_Row]):
    """Rows that belong to one user, their `owner`."""

    def for_user(self, user: AnyUser) -> Self:
        """Those of `user`, and no others."""
        return self.filter(owner_id=user.pk)


class SharedOrOwnedQuerySet(models.QuerySet[_Row]):
    """Rows that belong to one user, or, where `owner` is empty, to everybody here."""

    def for_user(self, user: AnyUser) -> Self:
        """Everybody's, and `user`'s own."""
        return self.filter(Q(owner__isnull=True) | Q(owner_id=user.pk))
