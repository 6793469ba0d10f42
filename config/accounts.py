"""Who may sign up (nobody, unless the operator opened it), and how guessing passwords is slowed (A11)."""

from __future__ import annotations

import hashlib
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import ratelimit
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.cache import cache
from django.http import HttpRequest

KNOWN_FOR_SECONDS = 30 * 24 * 3600


class AccountAdapter(DefaultAccountAdapter):
    """Failed sign-ins count per (address, account), per address, and per account over all addresses.

    The last alone would let anyone lock Alice out by guessing at her account, so an address from which she signed in
    before is exempt from it. Rates: settings.ACCOUNT_RATE_LIMITS.
    """

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return settings.SIGNUP_OPEN

    def _account(self, **credentials: Any) -> str:
        return str(credentials.get("email") or credentials.get("username") or "").lower()

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        return f"{self._account(**credentials)}@{self.get_client_ip(request)}"

    def _is_known_key(self, request: HttpRequest, **credentials: Any) -> str:
        pair = self._get_login_attempts_cache_key(request, **credentials)
        return f"known-address:{hashlib.sha256(pair.encode()).hexdigest()}"

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractBaseUser | None:
        known, account = self._is_known_key(request, **credentials), self._account(**credentials)
        is_known = cache.get(known)
        if not is_known and not ratelimit.consume(request, action="login_account", key=account, dry_run=True):
            raise self.validation_error("too_many_login_attempts")
        user = super().authenticate(request, **credentials)
        if user:
            cache.set(known, True, KNOWN_FOR_SECONDS)
        elif not is_known:
            ratelimit.consume(request, action="login_account", key=account)
        return user
