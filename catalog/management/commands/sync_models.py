"""Sync the catalog from the shell: a line per account, and a status a script can trust."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from catalog import sync
from catalog.models import SyncRun
from providers import vault
from providers.clients.errors import CODES, ProviderError
from providers.models import ProviderAccount

log = logging.getLogger(__name__)

FAILED = (SyncRun.State.FAILED, SyncRun.State.REFUSED)


def is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


class Command(BaseCommand):
    help = "Sync the model lists of every usable account, or of those the filters name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", help="only this account: its id or its label")
        parser.add_argument("--provider", help="only accounts of this provider: its short name")
        parser.add_argument("--user", help="only accounts of this user: their username")
        parser.add_argument(
            "--dry-run", action="store_true", help="ask the providers, say what would change, write nothing"
        )
        parser.add_argument(
            "--force", action="store_true", help="ignore ETags, and accept a list that lost half its models"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object per line")

    def handle(self, **options: Any) -> None:
        accounts = self.chosen(options)
        if not accounts:
            if any(options[name] for name in ("account", "provider", "user")):
                raise CommandError("No usable account matches these filters.")
            self.stderr.write("No usable account yet: add one in the browser under Accounts.")
            return
        failed = 0
        for account in accounts:
            started = time.monotonic()
            line = self.line(account, options)
            line["seconds"] = round(time.monotonic() - started, 2)
            failed += line["state"] in FAILED
            self.stdout.write(json.dumps(line) if options["json"] else self.sentence(line))
            self.stdout.flush()  # whoever kills us has seen what was done
        if failed:
            raise CommandError(f"{failed} of {len(accounts)} accounts failed.")

    def chosen(self, options: dict[str, Any]) -> list[ProviderAccount]:
        accounts = ProviderAccount.objects.filter(owner__is_active=True).usable().select_related("provider", "owner")
        accounts = accounts.order_by("owner_id", "priority", "created_at", "pk")
        if name := options["account"]:
            accounts = accounts.filter(Q(pk=name) if is_uuid(name) else Q(label=name))
        if options["provider"]:
            accounts = accounts.filter(provider__name=options["provider"])
        if options["user"]:
            accounts = accounts.filter(owner__username=options["user"])
        return list(accounts)

    def line(self, account: ProviderAccount, options: dict[str, Any]) -> dict[str, Any]:
        """What became of one account. Nothing that happens to it keeps the others from their turn."""
        try:
            return self.preview(account) if options["dry_run"] else self.sync(account, force=options["force"])
        except ProviderAccount.DoesNotExist:
            error = "The account was removed meanwhile."
        except Exception:
            log.exception("the sync of account %s failed", account.pk)
            error = "The sync failed by a fault of ours; see the log."
        return {**self.about(account), "state": str(SyncRun.State.FAILED), **sync.Plan().counts(), "error": error}

    def sync(self, account: ProviderAccount, *, force: bool) -> dict[str, Any]:
        run = sync.sync_account(account, trigger="command", force=force)
        counts = {name: getattr(run, name) for name in sync.Plan().counts()}
        busy = "Another process is syncing this account." if run.is_open else ""
        return {**self.about(account), "state": str(run.state), **counts, "error": run.error_message or busy}

    def preview(self, account: ProviderAccount) -> dict[str, Any]:
        plan, state, error = sync.Plan(), "would_change", ""
        try:
            plan = sync.preview(account)
        except vault.Locked:
            state, error = str(SyncRun.State.FAILED), CODES["locked"]
        except ProviderError as exc:
            state, error = str(SyncRun.State.FAILED), exc.public_message
        if plan.refusal:
            state, error = str(SyncRun.State.REFUSED), plan.refusal[1]
        elif state == "would_change" and plan.is_empty:
            state = str(SyncRun.State.UNCHANGED)
        return {**self.about(account), "state": state, **plan.counts(), "error": error}

    def about(self, account: ProviderAccount) -> dict[str, str]:
        return {
            "account": str(account.pk),
            "label": account.label,
            "provider": account.provider.name,
            "user": account.owner.get_username(),
        }

    def sentence(self, line: dict[str, Any]) -> str:
        where = f"{line['user']}  {line['provider']}  {line['label']}"
        if line["error"]:
            return f"{where}: {line['state']} in {line['seconds']} s. {line['error']}"
        counts = ", ".join(
            f"{line[name]} {name}" for name in ("added", "gone", "back", "repriced", "changed", "unchanged")
        )
        skipped = f", {line['skipped']} unreadable" if line["skipped"] else ""
        return f"{where}: {line['state']}; {counts}{skipped}; {line['seconds']} s"
