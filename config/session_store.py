"""Sessions in the database, by keys that can be keys: a cookie holds whatever its sender likes (P1)."""

from typing import Any

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    def _validate_session_key(self, key: Any) -> bool:
        """Django's rule, and letters and digits only: PostgreSQL fails on a NUL, which a quoted cookie can carry."""
        is_long_enough = super()._validate_session_key(key)  # type: ignore[misc]
        return bool(is_long_enough) and key.isascii() and key.isalnum()
