"""`manage.py verify_vault`: how many sealed texts need which vault key, and which accounts do not open."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from providers import rotation, vault


class Command(BaseCommand):
    help = (
        "Open everything that is sealed, and count by vault key. Changes nothing. Ends with 1 if something is locked."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        found = rotation.census()
        keys = vault.ring()
        for key_id in [*keys, *sorted(set(found.by_key) - set(keys))]:
            count = found.by_key[key_id]
            if key_id == "?":
                note = "damaged"
            elif key_id not in keys:
                note = "not in VAULT_KEYS"
            elif key_id == keys.newest:
                note = "newest"
            else:
                note = "still needed; run rotate_vault" if count else "no longer needed"
            self.stdout.write(f"{key_id}: {count:,} sealed texts ({note})")
        for account_id in found.locked:
            self.stdout.write(f"locked: account {account_id}")
        self.stdout.write(f"{found.accounts - len(found.locked):,} of {found.accounts:,} accounts open.")
        if found.locked:
            sys.exit(1)
