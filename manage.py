#!/usr/bin/env python
"""Django's command line: `python manage.py help` lists every command."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from config import environment

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as exc:
        environment.exit_with_sentence(exc)


if __name__ == "__main__":
    main()
