"""`manage.py create_token --user robin [--name editor] [--days 90]`: a personal access token, printed once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from usage import tokens


class Command(BaseCommand):
    help = "Make a personal access token for /v1 and print it. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", required=True, help="the user name of its owner")
        parser.add_argument("--name", default="command line", help="what it is for")
        parser.add_argument("--days", type=int, help="days until it expires; without it, it does not")

    def handle(self, *args: Any, **options: Any) -> None:
        user_model = get_user_model()
        owner = user_model.objects.filter(**{user_model.USERNAME_FIELD: options["user"]}).first()
        if owner is None:
            raise CommandError(f"There is no user called {options['user']}. `manage.py createsuperuser` makes one.")
        if not owner.is_active:
            raise CommandError(f"{options['user']} is switched off, so a token would open nothing.")
        days = options["days"]
        if days is not None and not 1 <= days <= 3650:
            raise CommandError("--days takes a whole number from 1 to 3650.")
        expires_at = timezone.now() + timedelta(days=days) if days else None
        _, text = tokens.create(owner, options["name"], expires_at=expires_at)
        self.stdout.write(text)
