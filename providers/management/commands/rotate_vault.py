"""`manage.py rotate_vault [--new-key]`: seal everything anew with the newest vault key, while Switchboard runs."""

from __future__ import annotations

import base64
import secrets
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from providers import rotation, vault


class Command(BaseCommand):
    help = (
        "Seal every stored key anew with the first key of VAULT_KEYS. Safe while Switchboard runs, after an "
        "interruption, and twice. Accounts that do not open stay as they are. docs/vault.md says how to change "
        "vault keys."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--new-key", action="store_true", help="only print a new vault key, for VAULT_KEYS")
        parser.add_argument("--batch", type=int, default=rotation.BATCH, help="accounts per transaction (%(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["new_key"]:
            self.stdout.write(_new_key())
            return
        done = rotation.Rotation()
        for done in rotation.rotate(max(1, options["batch"])):
            if options["verbosity"] > 1:
                self.stdout.write(f"{done.seen:,} accounts seen, {done.rotated:,} sealed anew")
        self.stdout.write(f"{done.rotated:,} of {done.seen:,} accounts were sealed anew with {vault.ring().newest}.")
        if done.locked:
            self.stdout.write(f"{done.locked:,} did not open and stay locked. `manage.py verify_vault` lists them.")


def _new_key() -> str:
    """A vault key whose id, of the kind k1, k2, …, follows the highest there is: an id is never used again."""
    numbers = [int(key_id[1:]) for key_id in vault.ring() if key_id[:1] == "k" and key_id[1:].isdecimal()]
    return f"k{max(numbers, default=0) + 1}:{base64.b64encode(secrets.token_bytes(32)).decode()}"
