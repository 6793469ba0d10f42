"""Celery: the worker's and beat's entry point (`celery -A config worker`)."""

import os

from celery import Celery
from django.core.exceptions import ImproperlyConfigured

from config import environment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("switchboard")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

try:
    app.conf.broker_url  # noqa: B018  reads the settings now, so that a wrong value ends in a sentence
except ImproperlyConfigured as exc:
    environment.exit_with_sentence(exc)
