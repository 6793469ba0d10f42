from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from config.models import SetupIsOver, SetupToken


class Command(BaseCommand):
    help = "Print a one-time link that creates the first administrator. An earlier link stops working."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            token = SetupToken.rotate()
        except SetupIsOver:
            raise CommandError(
                "An administrator exists already. Use `manage.py createsuperuser` for another one, "
                "or `manage.py changepassword NAME` for a forgotten password."
            ) from None
        self.stdout.write(settings.PUBLIC_ORIGIN + reverse("setup", args=[token]))
